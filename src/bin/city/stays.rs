//! The oracle's own pairing: which stays ended, so that each can be looked for among the charges.
//!
//! **Promise.** [`Ended`] is the same for the same stays in whatever order, and another one for others.
//! **Kept by.** A sum of hashes. An exit ends the stay of the last entry of its plate in the same garage; what else could happen
//! (two entries in a row, an exit of a car that is not inside) the city's cars do only when they were here before it.

use super::money::Takings;
use std::collections::HashMap;
use std::sync::Arc;

/// Stays that ended, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    pub count: u64,
    sum: u128,
}

impl Ended {
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

/// The stays of one garage, as its confirmed events tell them.
#[derive(Debug, Clone, Default)]
pub struct Stays {
    /// Since when the cars are inside, by the letters and digits of their plates.
    inside: HashMap<Arc<str>, i64>,
    ended: Ended,
}

impl Stays {
    /// Goes on from the cars that were inside before.
    pub fn of_cars(inside: HashMap<Arc<str>, i64>) -> Stays {
        Stays { inside, ended: Ended::default() }
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

    pub fn ended(&self) -> &Ended {
        &self.ended
    }
}

/// The charges of one garage, as the centre lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charges {
    /// The sum of all: charges, voids and credits.
    pub taken: Takings,
    /// Stays with a charge that stands, or that wait for one; of earlier runs, too.
    pub stays: u64,
    /// Those that were charged since this run began.
    pub of_this_run: Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_stays_makes_no_difference_and_everything_else_does() {
        let of = |stays: &[(&str, i64, i64)]| {
            let mut ended = Ended::default();
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
        let mut stays = Stays::of_cars(HashMap::from([(Arc::from("FOUND"), 5)]));
        stays.entered("A", 10);
        stays.entered("A", 20);
        stays.left("B", 25);
        stays.left("A", 30);
        stays.left("A", 40);
        stays.left("FOUND", 50);
        let mut expected = Ended::default();
        expected.record("A", 20, 30);
        expected.record("FOUND", 5, 50);
        assert_eq!(*stays.ended(), expected);
    }
}
