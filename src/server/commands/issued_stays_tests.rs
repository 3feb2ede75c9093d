//! Documents whose stays change while they are made, arrive after them, or are lost.

use super::issue_tests::{IssuingTown, page_of, stay_events};
use super::operate::Backend;
use crate::messaging::Epoch;
use crate::server::ledger::RecordOrDamage;
use crate::server::record::{Command, Record};
use crate::server::view::tests::event;

type IssuedLine = (String, String, i64, u64);

fn document(number: u64, whose: &str, total: i64, lines: u64) -> IssuedLine {
    (format!("{number:06}"), whose.to_owned(), total, lines)
}

/// A server issued documents and was lost. Another one, which was started on a backup from before, takes them over.
fn restored(lost: &IssuingTown) -> IssuingTown {
    let mut town = IssuingTown::new();
    let mut commands = Vec::new();
    for found in lost.ledger.records(1) {
        if let (_, RecordOrDamage::Record(Record::Command { command, .. })) = found.unwrap() {
            match command {
                Command::DocumentPiece { .. } => commands.push(command),
                Command::Issue { issue, first, last, date, .. } => {
                    let from = town.ledger.position() + 1;
                    commands.push(Command::Issue { issue, from, first, last, date });
                }
                _ => {}
            }
        }
    }
    let position = town.record(commands, "me").unwrap();
    assert!(town.shows(position));
    town
}

/// Documents that were imported name garages and epochs that the ledger does not know yet: the stay would have been billed again once
/// its garage delivered it again, and until then it would have been given back.
#[test]
fn a_stay_that_is_delivered_after_its_document_is_charged_once() {
    let mut lost = IssuingTown::new();
    let epoch = lost.stay("a", "MM1", (10, 5), 2);
    lost.issue("2020-10");
    let mut town = restored(&lost);
    assert_eq!(town.issued(), [document(1, "miller", 500, 1)]);
    town.issue("2020-10");
    assert_eq!(town.issued().len(), 1, "what has not arrived is not given back");
    let [entry, exit] = stay_events("MM1", (10, 5), 2);
    town.commit("a", epoch, page_of(epoch, 1, &[entry]));
    town.issue("2020-10");
    assert_eq!(town.issued().len(), 1, "half of it changes nothing");
    town.commit("a", epoch, page_of(epoch, 2, &[exit]));
    town.stay("b", "MM1", (10, 7), 1);
    town.restart();
    town.issue("2020-10");
    assert_eq!(town.issued()[1..], [document(2, "miller", 250, 1)], "only the stay that was not charged");
    let charge = town.documents()[0].lines[0].reference.long().parse().unwrap();
    town.give(Command::Void { charge, reason: "barrier open".into() });
    town.issue("2020-10");
    assert_eq!(town.issued()[2..], [document(3, "miller", -500, 1)]);
    assert_eq!(
        town.documents()[2].head.corrects[0].number,
        town.documents()[0].head.issue.as_ref().unwrap().number
    );
    town.compare();
    town.verify();
}

/// The price is another one by what the ledger knows now: the difference is due, no more.
#[test]
fn a_stay_that_arrives_changed_after_its_document_is_corrected() {
    let mut lost = IssuingTown::new();
    let epoch = lost.stay("a", "MM1", (10, 5), 3);
    lost.issue("2020-10");
    let mut town = restored(&lost);
    let misread = format!(r#"{{"kind":"plate_correction","epoch":"{epoch}","sequence":1,"plate":"ZZ9"}}"#);
    let [entry, exit] = stay_events("MM1", (10, 5), 3);
    town.commit("a", epoch, page_of(epoch, 1, &[entry, exit]));
    town.shows(0);
    assert_eq!(town.issued_and_due("MM1"), (750, Some(0)));
    town.deliver("a", &[event(&misread)]);
    town.issue("2020-10");
    assert_eq!(town.issued()[1..], [document(2, "miller", -750, 1)], "the entry was another car's");
    town.compare();
    town.verify();
}

#[test]
fn damage_of_the_ledger_gives_nothing_back() {
    for damaged in [1, 2] {
        let mut town = IssuingTown::new();
        let epoch = Epoch::random();
        let [entry, exit] = stay_events("MM1", (10, 5), 2);
        town.commit("a", epoch, page_of(epoch, 1, &[entry]));
        let position = town.ledger.position();
        town.commit("a", epoch, page_of(epoch, 2, &[exit]));
        town.shows(0);
        town.issue("2020-10");
        let key = [b"r", &(position + damaged - 1).to_be_bytes()[..]].concat();
        let mut value = town.ledger.store().get(&key).unwrap().unwrap();
        let middle = value.len() / 2;
        value[middle] ^= 4;
        town.ledger.store().put(&key, &value).unwrap();
        town.rebuild();
        town.issue("2020-12");
        assert_eq!(town.issued(), [document(1, "miller", 500, 1)], "event {damaged} cannot be read");
    }
}

#[test]
fn what_a_restored_server_never_gets_again_is_not_given_back() {
    let mut lost = IssuingTown::new();
    let epoch = lost.stay("a", "MM1", (10, 5), 2);
    lost.issue("2020-10");
    let mut town = restored(&lost);
    // The entry was acknowledged by the server that was lost, so its edge has deleted it.
    let [_, exit] = stay_events("MM1", (10, 5), 2);
    town.commit("a", epoch, page_of(epoch, 2, &[exit]));
    town.shows(0);
    town.issue("2020-12");
    assert_eq!(town.issued(), [document(1, "miller", 500, 1)]);
    town.verify();
}

/// Garages deliver between the pieces of an issue.
#[test]
fn what_arrives_while_documents_are_made_is_acknowledged_and_comes_on_the_next_ones() {
    let mut town = IssuingTown::new();
    let wrong = town.stay("a", "MM1", (10, 5), 2);
    for day in 6..=20 {
        town.stay("a", "MM2", (10, day), 1);
        town.stay("b", "SS1", (10, day), 1);
    }
    let (late, corrections) = (Epoch::random(), Epoch::random());
    let json = format!(r#"{{"kind":"plate_correction","epoch":"{wrong}","sequence":1,"plate":"ZZ9"}}"#);
    town.arriving = vec![
        ("b", late, page_of(late, 1, &stay_events("SS1", (10, 22), 3))),
        ("a", corrections, page_of(corrections, 1, &[event(&json)])),
    ];
    town.issue("2020-10");
    assert!(town.arriving.is_empty(), "both came before the last record of the issue");
    let miller = document(1, "miller", 500 + 15 * 250, 16);
    let smith = document(2, "smith", 15 * 250, 15);
    assert_eq!(town.issued(), [miller.clone(), smith.clone()], "as it was when it was collected");
    assert_eq!(town.issued_and_due("SS1"), (0, Some(750)));
    town.restart();
    town.issue("2020-10");
    assert_eq!(town.issued(), [miller, smith, document(3, "miller", -500, 1), document(4, "smith", 750, 1)]);
    town.issue("2020-10");
    assert_eq!(town.issued().len(), 4);
    town.compare();
    town.verify();
}
