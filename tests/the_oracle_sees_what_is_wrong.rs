//! The other tests trust `crate::common::books`. Here it is shown to fail when something is lost, doubled, torn or moved.

use crate::common::books::faults;
use crate::common::producer::Confirmed;
use crate::common::{Applied, Journal};

fn applied(plates: &[&str]) -> Vec<Applied> {
    let event = |(sequence, plate): (u64, &&str)| Applied {
        garage: "g".into(),
        epoch: "e".into(),
        sequence,
        position: sequence / 2,
        kind: "entry".into(),
        plate: Some(plate.to_string()),
        at: String::new(),
        received_at: String::new(),
        moved_from: None,
    };
    (1..).zip(plates).map(event).collect()
}

fn plates(plates: &[&str]) -> Vec<String> {
    plates.iter().map(ToString::to_string).collect()
}

/// A and B were confirmed, C and D have no answer, E was refused.
fn journal() -> [Journal; 1] {
    let confirmed = |first, plate| Confirmed { epoch: "e".into(), first, plates: plates(&[plate]) };
    [Journal {
        confirmed: vec![confirmed(1, "A"), confirmed(2, "B")],
        unknown: vec![plates(&["C", "D"])],
        refused: vec![plates(&["E"])],
    }]
}

#[test]
fn right_books_have_no_fault() {
    for right in [&["A", "B"][..], &["A", "B", "C", "D"]] {
        assert_eq!(faults(&applied(right), &journal()), [""; 0]);
    }
}

#[test]
fn wrong_books_have_a_fault() {
    let wrong: [(&[&str], &str); 8] = [
        (&["A"], "B was confirmed at (\"e\", 2) and is not applied"),
        (&["B", "A"], "A was confirmed at (\"e\", 1) and stands at (\"e\", 2)"),
        (&["A", "B", "B"], "B is applied twice"),
        (&["A", "B", "C"], "of 2 posted together from C on"),
        (&["A", "B", "D", "C"], "of 2 posted together from C on"),
        (&["A", "B", "C", "D", "C", "D"], "C is applied twice"),
        (&["A", "B", "E"], "E is applied at (\"e\", 3), but was refused or never posted"),
        (&["A", "B", "X"], "X is applied at"),
    ];
    for (plates, fault) in wrong {
        let found = faults(&applied(plates), &journal());
        assert!(found.iter().any(|found| found.contains(fault)), "{plates:?}: {found:?}");
    }
}

#[test]
fn a_sequence_left_out_is_a_fault() {
    let mut books = applied(&["A", "B", "C", "D"]);
    books[3].sequence = 5;
    books[2].position = 0;
    let found = faults(&books, &journal());
    assert!(found.iter().any(|fault| fault.contains("sequence 5 of epoch e follows 3")), "{found:?}");
    assert!(found.iter().any(|fault| fault.contains("position 0 follows 1")), "{found:?}");
}
