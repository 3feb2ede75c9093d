//! The oracle's own pairing: which stays ended, so that each can be looked for among the charges.
//!
//! **Promise.** [`EndedStays`] is equal for the same stays in whatever order, and differs for others.
//! **Kept by.** A sum of hashes. An exit ends the stay of the last entry of its plate in the same garage. Two entries in a row,
//! or an exit of a car that is not inside, happen only to cars that were here before the city began.

use super::money::Takings;
use std::collections::HashMap;
use std::sync::Arc;

/// Stays that ended, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedStays {
    pub count: u64,
    sum: u128,
}

impl EndedStays {
    pub fn record(&mut self, plate: &str, entered_unix_ms: i64, left_unix_ms: i64) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&entered_unix_ms.to_le_bytes());
        hasher.update(&left_unix_ms.to_le_bytes());
        hasher.update(plate.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(hash));
        self.count += 1;
    }
}

/// The stays of one garage, by its confirmed events.
#[derive(Debug, Clone, Default)]
pub struct StayPairing {
    /// Since when the cars are inside, by the letters and digits of their plates.
    inside: HashMap<Arc<str>, i64>,
    ended: EndedStays,
}

impl StayPairing {
    /// Goes on from the cars that were inside before.
    pub fn of_cars(inside: HashMap<Arc<str>, i64>) -> StayPairing {
        StayPairing { inside, ended: EndedStays::default() }
    }

    pub fn entered(&mut self, plate: &str, unix_ms: i64) {
        match self.inside.get_mut(plate) {
            Some(since) => *since = unix_ms,
            None => _ = self.inside.insert(plate.into(), unix_ms),
        }
    }

    pub fn left(&mut self, plate: &str, unix_ms: i64) {
        if let Some(entered) = self.inside.remove(plate) {
            self.ended.record(plate, entered, unix_ms);
        }
    }

    pub fn ended(&self) -> &EndedStays {
        &self.ended
    }
}

/// The charges of one garage, as the server lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GarageCharges {
    /// The sum of all: charges, voids and credits.
    pub taken: Takings,
    /// Stays with a charge that is valid, or that wait for one; including earlier runs.
    pub stays: u64,
    /// Those that were charged since this run began.
    pub of_this_run: EndedStays,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_stays_makes_no_difference_and_everything_else_does() {
        let of = |stays: &[(&str, i64, i64)]| {
            let mut ended = EndedStays::default();
            stays.iter().for_each(|(plate, entered, left)| ended.record(plate, *entered, *left));
            ended
        };
        let two = of(&[("A", 1, 2), ("B", 3, 4)]);
        assert_eq!(two, of(&[("B", 3, 4), ("A", 1, 2)]));
        for other in [
            of(&[("A", 1, 2)]),
            of(&[("A", 1, 2), ("A", 1, 2)]),
            of(&[("A", 1, 2), ("B", 3, 5)]),
            of(&[("A", 1, 2), ("B", 2, 4)]),
            of(&[("A", 1, 2), ("C", 3, 4)]),
            of(&[("A", 1, 2), ("B", 3, 4), ("B", 3, 4)]),
        ] {
            assert_ne!(two, other);
        }
    }

    #[test]
    fn an_exit_ends_the_last_entry_of_its_plate() {
        let mut stays = StayPairing::of_cars(HashMap::from([(Arc::from("FOUND"), 5)]));
        stays.entered("A", 10);
        stays.entered("A", 20);
        stays.left("B", 25);
        stays.left("A", 30);
        stays.left("A", 40);
        stays.left("FOUND", 50);
        let mut expected = EndedStays::default();
        expected.record("A", 20, 30);
        expected.record("FOUND", 5, 50);
        assert_eq!(*stays.ended(), expected);
    }
}
