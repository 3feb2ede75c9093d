//! Documents whose stays change while they are made, arrive after them, or are lost.

use super::issue_tests::{IssuingTown, document, stay_events};
use super::operate::Backend;
use super::{Put, ServerRequest};
use crate::messaging::Epoch;
use crate::parking::Plate;
use crate::parking::document::{LineCar, PlateTerm};
use crate::server::books::Whose;
use crate::server::issuing::IssueScope;
use crate::server::ledger::RecordOrDamage;
use crate::server::record::{Command, Record};
use crate::server::view::tests::{event, page_of};

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

/// The statement of one car of an account was shown as a draft after the account's documents were issued.
#[test]
fn a_car_of_an_account_is_on_the_documents_of_the_account() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (10, 5), 3);
    town.stay("a", "ZZ1", (10, 5), 1);
    let found = |town: &IssuingTown, plate: &str, month: &str| -> Vec<String> {
        let term = PlateTerm { years: 100, today: "2020-12-01".parse().unwrap() };
        let whose = Whose::Plate(plate.into());
        let found = town.books().issued((month.parse().unwrap(), &whose), term).unwrap();
        found.into_iter().map(|its| its.number.split_once('-').unwrap().1.to_owned()).collect()
    };
    assert!(found(&town, "MM1", "2020-10").is_empty(), "nothing was issued");
    town.issue("2020-10");
    town.stay("a", "MM2", (10, 7), 1);
    assert_eq!(found(&town, "MM1", "2020-10"), ["000001"]);
    for plate in ["MM2", "ZZ1"] {
        assert!(found(&town, plate, "2020-10").is_empty(), "{plate} was charged by no document");
    }
    let charge = town.charge("MM1");
    town.give(Command::Credit { charge, amount: 100, reason: "waited".into() });
    town.issue("2020-11");
    // November's document charges what October's does not.
    assert_eq!(found(&town, "MM1", "2020-10"), ["000001", "000002"]);
    assert_eq!(found(&town, "MM2", "2020-10"), ["000001", "000002"]);
    assert!(found(&town, "MM1", "2020-09").is_empty());
}

/// The plate was misread: the stay is another customer's. The credit note showed the first customer the plate of the second, and not the
/// one that its invoice has.
#[test]
fn what_is_given_back_is_shown_as_it_was_charged() {
    let mut town = IssuingTown::new();
    let epoch = town.stay("a", "MM1", (10, 5), 2);
    town.stay("a", "MM2", (10, 6), 1);
    town.issue("2020-10");
    let corrected = |sequence: u64, plate: &str| {
        event(&format!(
            r#"{{"kind":"plate_correction","epoch":"{epoch}","sequence":{sequence},"plate":"{plate}"}}"#
        ))
    };
    town.deliver("a", &[corrected(1, "SS1"), corrected(2, "SS1")]);
    town.issue("2020-10");
    // A third reading, and the stay is that of an unregistered car.
    town.deliver("a", &[corrected(1, "ZZ1"), corrected(2, "ZZ1")]);
    town.issue("2020-10");
    let lines = town.documents().into_iter().skip(1).flat_map(|document| {
        let whose = document.head.customer.debtor.name().to_owned();
        document.lines.into_iter().map(move |line| (whose.clone(), line.car, line.amount.gross.minor()))
    });
    let line = |whose: &str, plate: &str, amount| (whose.to_owned(), LineCar::Plate(plate.into()), amount);
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [line("miller", "MM1", -500), line("smith", "SS1", 500), line("smith", "SS1", -500)]
    );
    town.compare();
    town.verify();
}

/// An amount without its currency was taken for whole euros.
#[test]
fn a_credit_is_listed_in_the_currency_of_its_charge() {
    let mut town = IssuingTown::new();
    let epoch = town.stay("a", "MM1", (10, 5), 2);
    let charge = town.charge("MM1");
    town.give(Command::Credit { charge, amount: 150, reason: "waited".into() });
    let amounts = |town: &mut IssuingTown| {
        let listed = town.ask(ServerRequest::Decisions).unwrap();
        (
            listed["decisions"][0]["amount"].as_i64(),
            listed["decisions"][0]["currency"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(amounts(&mut town), (Some(150), Some("EUR".into())));
    town.issue("2020-10");
    // The stay is gone, and its document still names the currency.
    let json = format!(r#"{{"kind":"plate_correction","epoch":"{epoch}","sequence":2,"plate":"ZZ9"}}"#);
    town.deliver("a", &[event(&json)]);
    assert_eq!(amounts(&mut town), (Some(150), Some("EUR".into())));
}

/// The command that is advised named the account without quotes, so that a shell took it for two words.
#[test]
fn an_advised_command_takes_an_account_whose_name_has_a_space() {
    let mut town = IssuingTown::new();
    town.put(Put::Plates("plate,account\nNN2,no name\nNN3,o'neill\n".into()));
    town.stay("a", "NN2", (10, 5), 2);
    town.stay("a", "NN3", (10, 5), 2);
    let open = town.issue("2020-10")["open"].clone();
    let open: Vec<&str> = open.as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    for advice in ["server accounts set 'no name' --name", r"server accounts set 'o'\''neill' --name"] {
        assert!(open.iter().any(|line| line.contains(advice)), "{advice}: {open:?}");
    }
}

/// A car that got an account later could not be billed for the time before, by nobody.
#[test]
fn a_car_that_is_registered_now_is_billed_for_the_time_before() {
    let mut town = IssuingTown::new();
    town.stay("a", "ZZ1", (10, 5), 2);
    town.register("ZZ1", "smith", "2020-11-01");
    let order = || IssuingTown::order("2020-10", IssueScope::Plate(Plate::new("ZZ1").unwrap()));
    town.ask(ServerRequest::Issue(order())).unwrap();
    assert_eq!(town.issued(), [document(1, "unregistered", 500, 1)]);
    let refused = town.ask(ServerRequest::Issue(order())).unwrap_err().to_string();
    assert!(refused.contains("is registered to \"smith\""), "nothing else is due: {refused}");
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
