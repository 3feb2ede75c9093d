//! Records name facts. M13: prices and forgetting named numbers that depended on how the views' pages were packed.

use super::*;
use crate::parking::{ChargeId, EventId};
use crate::server::ledger::RecordOrDamage;
use crate::server::record::{Record, ToForget};
use crate::server::view::SLOTS_OF_A_PAGE;
use jiff::civil::date;

/// Ids of what is decided about.
struct Known {
    voided: ChargeId,
    credited: ChargeId,
    held: ChargeId,
    misread: [EventId; 2],
    unseen: EventId,
    split: EventId,
    forgotten: ChargeId,
    forgotten_misread: [EventId; 2],
}

fn passed(kind: &str, plate: &str, day: u8, hour: u8) -> Vec<u8> {
    let at = format!("2020-10-{day:02}T{hour:02}:00:00+02:00");
    event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#))
}

fn id(epoch: Epoch, sequence: u64) -> EventId {
    EventId { garage: "a".into(), epoch: epoch.to_bytes(), sequence }
}

/// Two months of two garages, the first of which is issued. What a person has to decide about is in the second.
fn history() -> (IssuingTown, Known) {
    let mut town = IssuingTown::new();
    for day in 1..=9 {
        for (garage, plate) in [("a", "MM1"), ("b", "SS1"), ("a", "ZZ1"), ("b", "NN1"), ("a", "SS1")] {
            town.stay(garage, plate, (9, day), 1 + day % 3);
        }
    }
    let (voided, credited) = (town.charge("MM1"), town.charge("SS1"));
    town.ask(ServerRequest::Issue(issue_of("2020-09"))).unwrap();
    let forgotten = town.charge("ZZ1");
    let other = town.deliver("a", &[passed("entry", "ZZ1", 1, 8), passed("exit", "ZZI", 1, 9)]);
    town.deliver("a", &[passed("entry", "ZZ1", 2, 8), passed("exit", "ZZ1", 2, 9)]);
    let long =
        [passed("entry", "MM2", 1, 8), event(r#"{"kind":"exit","plate":"MM2","at":"2020-11-05T08:00:00Z"}"#)];
    town.deliver("b", &long);
    let held = town.charge("MM2");
    let misread = town.deliver("a", &[passed("entry", "MM1", 3, 8), passed("exit", "MMI", 3, 9)]);
    let unseen = town.deliver(
        "a",
        &[passed("entry", "MM1", 4, 8), passed("entry", "MM1", 5, 8), passed("exit", "MM1", 5, 9)],
    );
    let split = town.deliver("a", &[passed("entry", "SS1", 6, 8), passed("exit", "SS1", 6, 20)]);
    let known = Known {
        voided,
        credited,
        held,
        misread: [1, 2].map(|sequence| id(misread, sequence)),
        unseen: id(unseen, 1),
        split: id(split, 1),
        forgotten,
        forgotten_misread: [1, 2].map(|sequence| id(other, sequence)),
    };
    (town, known)
}

fn issue_of(month: &str) -> IssueOrder {
    IssueOrder { date: Some(date(2020, 12, 1)), ..IssuingTown::order(month, IssueScope::AllAccounts) }
}

/// People decide about all of it, and issue.
fn decide(town: &mut IssuingTown, known: &Known) {
    let (offset_minutes, reason) = (120, || "seen".to_owned());
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let join = |[entry, exit]: &[EventId; 2]| Command::JoinStay {
        entry: entry.clone(),
        exit: exit.clone(),
        plate: None,
        reason: reason(),
    };
    town.give(Command::Void { charge: known.voided.clone(), reason: reason() });
    town.give(Command::Undo { decision: town.ledger.position() });
    town.give(Command::Void { charge: known.voided.clone(), reason: reason() });
    town.give(Command::Credit { charge: known.credited.clone(), amount: 100, reason: reason() });
    town.give(Command::BillStay { charge: known.held.clone(), reason: reason() });
    town.give(join(&known.misread));
    let left_at_ms = at("2020-10-04T10:00:00Z");
    town.give(Command::CloseStay {
        entry: known.unseen.clone(),
        left_at_ms,
        offset_minutes,
        reason: reason(),
    });
    let (left_at_ms, entered_at_ms) = (at("2020-10-06T08:00:00Z"), at("2020-10-06T12:00:00Z"));
    let entry = known.split.clone();
    town.give(Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason: reason() });
    let forget = Command::Forget { whose: ToForget::All, before: date(2020, 11, 1), seed: [7; 16] };
    town.ledger.record_all("me", vec![forget], 5).unwrap();
    town.shows(0);
    town.give(join(&known.forgotten_misread));
    town.give(Command::Credit { charge: known.forgotten.clone(), amount: 50, reason: reason() });
    town.register("ZZ2", "miller", "2020-09-01");
    town.ask(ServerRequest::Issue(issue_of("2020-11"))).unwrap();
}

/// What was recorded from a position on, byte for byte, but for the random id of the issue.
fn recorded(town: &IssuingTown, from: u64) -> Vec<Vec<u8>> {
    let records = town.ledger.records(from).map(|found| {
        let (_, RecordOrDamage::Record(mut record)) = found.unwrap() else { panic!("it is damaged") };
        if let Record::Command {
            command:
                Command::DocumentPiece { issue, .. }
                | Command::DocumentNote { issue, .. }
                | Command::Issue { issue, .. },
            ..
        } = &mut record
        {
            *issue = [0; 16];
        }
        record.encode()
    });
    records.collect()
}

#[test]
fn however_the_pages_of_the_views_are_packed_the_same_is_recorded_and_every_id_is_found() {
    let (town, known) = history();
    let begin = town.ledger.position() + 1;
    let mut found = Vec::new();
    for slots in [127, 1, 2, 7] {
        SLOTS_OF_A_PAGE.set(slots);
        let mut other = town.in_a_place_of_its_own();
        let pages = other.ledger.store().range(b"vs", b"vt").count();
        decide(&mut other, &known);
        other.compare();
        other.verify();
        let lines = other.books().charges(&Asked { limit: 1000, ..Asked::default() }).unwrap().charges;
        let files: Vec<Vec<u8>> = other.documents().into_iter().map(|its| its.file).collect();
        found.push((pages, recorded(&other, begin), serde_json::to_string(&lines).unwrap(), files));
    }
    SLOTS_OF_A_PAGE.set(127);
    let (pages, records, lines, files) = found.remove(0);
    assert!(records.len() > 15 && files.len() > 3, "{} records, {} documents", records.len(), files.len());
    for (other_pages, other_records, other_lines, other_files) in found {
        assert!(other_pages > pages, "the pages are the same: the test proves nothing");
        assert_eq!(other_records, records);
        assert_eq!(other_lines, lines);
        assert_eq!(other_files, files);
    }
}
