//! A change decides the places again only as far as it reaches, and that is far enough.

use super::super::histories::ALL_TIMES;
use super::*;
use proptest::prelude::*;

/// What happens to the stays of a contract, in any order of time: garages deliver late, and have wrong clocks.
#[derive(Debug, Clone)]
enum Change {
    /// A car was inside a garage from an hour, for a number of hours.
    Stay {
        garage: usize,
        plate: usize,
        entry: i64,
        hours: i64,
    },
    Enter {
        garage: usize,
        plate: usize,
        entry: i64,
    },
    Leave {
        garage: usize,
        plate: usize,
        exit: i64,
    },
    /// The event that many back in its garage was of this car, or of one that is in no contract.
    Correct {
        garage: usize,
        back: u64,
        plate: usize,
    },
    Cars(u32),
    Bill(usize),
}

const GARAGES: [&str; 3] = ["a", "b", "c"];
const PLATES: [&str; 5] = ["CC1", "CC2", "CC3", "CC4", "XX5"];

fn change() -> impl Strategy<Value = Change> {
    let (garage, plate) = (0..GARAGES.len(), 0..PLATES.len());
    // Four months. Many stays begin at the same hour, and some are longer than a place is held.
    let entry = prop_oneof![2 => 0i64..3_000, 1 => (0i64..30).prop_map(|n| 100 * n)];
    let hours = prop_oneof![6 => 0i64..200, 1 => 600i64..900];
    prop_oneof![
        8 => (garage.clone(), plate.clone(), entry.clone(), hours)
            .prop_map(|(garage, plate, entry, hours)| Change::Stay { garage, plate, entry, hours }),
        2 => (garage.clone(), plate.clone(), entry.clone()).prop_map(|(garage, plate, entry)| Change::Enter { garage, plate, entry }),
        2 => (garage.clone(), plate.clone(), entry).prop_map(|(garage, plate, exit)| Change::Leave { garage, plate, exit }),
        3 => (garage, 1u64..30, plate).prop_map(|(garage, back, plate)| Change::Correct { garage, back, plate }),
        1 => (1u32..4).prop_map(Change::Cars),
        1 => (0usize..10).prop_map(Change::Bill),
    ]
}

fn cars(cars: u32) -> String {
    PLATES[..4].iter().map(|plate| format!("Fleet,acme,{plate},*,,,{cars}\n")).collect()
}

fn at(hour: i64) -> String {
    let start = ms("2026-03-01T00:00:00Z");
    jiff::Timestamp::from_millisecond(start + hour * 3_600_000).unwrap().to_string()
}

impl BillingWorld {
    fn change(&mut self, change: &Change) {
        match *change {
            Change::Stay { garage, plate, entry, hours } => {
                let (entry, exit) = (at(entry), at(entry + hours));
                self.events(
                    GARAGES[garage],
                    &[("entry", PLATES[plate], &entry), ("exit", PLATES[plate], &exit)],
                );
            }
            Change::Enter { garage, plate, entry } => {
                self.events(GARAGES[garage], &[("entry", PLATES[plate], &at(entry))]);
            }
            Change::Leave { garage, plate, exit } => {
                self.events(GARAGES[garage], &[("exit", PLATES[plate], &at(exit))]);
            }
            Change::Correct { garage, back, plate } => {
                let next = self.sequences.get(GARAGES[garage]).copied().unwrap_or(1);
                if let Some(sequence) = next.checked_sub(back).filter(|sequence| *sequence > 0) {
                    self.correct(GARAGES[garage], sequence, PLATES[plate]);
                }
            }
            Change::Cars(number) => self.contracts(&cars(number)),
            Change::Bill(which) => {
                let held = self.lines().into_iter().filter(|line| line.state == "held").nth(which);
                if let Some(line) = held {
                    let charge = line.id.parse().unwrap();
                    // One that waits for a place cannot be billed.
                    let _ = self.order(bill(&charge));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scaled(20, 60, 2_000)))]

    #[test]
    fn after_every_change_the_places_are_those_that_deciding_all_at_once_gives(
        changes in prop::collection::vec(change(), 1..40),
    ) {
        let mut world = BillingWorld::with_tariffs();
        world.contracts(&cars(1));
        let contract = "Fleet".parse().unwrap();
        for change in &changes {
            world.change(change);
            let BillingWorld { view, ledger, changes, .. } = &mut world;
            let differing = view.billing.decide_places(ledger, &contract, ALL_TIMES.start, ALL_TIMES.end, &mut changes.billing);
            let differing = differing.unwrap();
            prop_assert!(differing.is_empty(), "after {change:?}: {differing:?}");
        }
        world.follows_from_the_ledger();
    }
}
