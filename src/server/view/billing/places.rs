//! Which stays of a contract's cars have one of its places.
//!
//! **The rule.** The stays of all cars that a contract names are taken in the order of their entries in time. A closed stay is
//! covered when fewer than `cars` others hold a place at its entry, and one car too many otherwise. A covered stay holds its place
//! from its entry to its exit, at most [`HELD_DAYS`] days, and never beyond the next entry of its car anywhere. An exit at the
//! same instant frees first; stays that begin at the same instant follow each other in the order of their ids. Stays without a
//! seen exit, without length, or on hold, and cars too many, hold none.
//!
//! A car that is still inside may turn out to hold a place. A stay that would be one too many only because of such a car
//! [waits](Place::Waits): whether it is covered is decided when that car leaves.
//!
//! So the result follows from the stays alone, in whatever order they became known, and a change of one stay reaches only as far
//! as the places that it holds or frees.

use serde::{Deserialize, Serialize};

/// A place is held at most this long.
pub const HELD_DAYS: i64 = 30;
pub const HELD_MS: i64 = HELD_DAYS * 24 * 3_600_000;

/// Whether a stay of a contract's car has one of its places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    #[default]
    Covered,
    /// As many cars as the contract allows were inside.
    OneTooMany,
    /// It would be one car too many only because of a car that is still inside.
    Waits,
}

/// What a stay does to the places, whether it has one or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// It holds a place until then if it is covered.
    Until(i64),
    /// Its car is inside: it may hold a place until then.
    Perhaps(i64),
    /// It is on hold, has no length, or its exit was not seen.
    Nothing,
}

/// A stay of a contract's car.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractStay {
    pub entry_ms: i64,
    pub holding: Holding,
    /// How many cars the contract allows on the date of its entry.
    pub cars: u32,
    /// Of a stay whose plate was forgotten: its place does not change.
    pub decided: Option<Place>,
}

impl ContractStay {
    /// Until when it matters to others: the end of its holding, and at least its entry.
    pub fn reaches_ms(&self) -> i64 {
        match self.holding {
            Holding::Until(end) | Holding::Perhaps(end) => end.max(self.entry_ms),
            Holding::Nothing => self.entry_ms,
        }
    }
}

/// Decides the places of `stays`, which are in order; those before the index `from` have the places `decided`. The stays before
/// `from` must reach back at least [`HELD_DAYS`] days.
pub fn decide(stays: &[ContractStay], decided: &[Place]) -> Vec<Place> {
    // The ends of what is held: for sure, and perhaps.
    let (mut held, mut perhaps): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    let mut places: Vec<Place> = Vec::with_capacity(stays.len());
    for (n, stay) in stays.iter().enumerate() {
        held.retain(|end| *end > stay.entry_ms);
        perhaps.retain(|end| *end > stay.entry_ms);
        let place = match decided.get(n).copied().or(stay.decided) {
            Some(place) => place,
            None if held.len() >= stay.cars as usize => Place::OneTooMany,
            None if held.len() + perhaps.len() >= stay.cars as usize => Place::Waits,
            None => Place::Covered,
        };
        match (place, stay.holding) {
            (Place::Covered, Holding::Until(end)) => held.push(end),
            (Place::Waits, Holding::Until(end)) | (Place::Covered | Place::Waits, Holding::Perhaps(end)) => {
                perhaps.push(end);
            }
            (Place::OneTooMany, _) | (_, Holding::Nothing) => {}
        }
        places.push(place);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;

    fn stay(entry: i64, exit: i64) -> ContractStay {
        ContractStay { entry_ms: entry * HOUR, holding: Holding::Until(exit * HOUR), cars: 1, decided: None }
    }

    #[test]
    fn a_second_car_is_one_too_many_while_the_first_is_inside() {
        let stays = [stay(8, 12), stay(9, 10), stay(12, 13)];
        assert_eq!(decide(&stays, &[]), [Place::Covered, Place::OneTooMany, Place::Covered]);
    }

    #[test]
    fn a_car_too_many_holds_no_place() {
        let stays = [stay(8, 10), stay(9, 20), stay(11, 12)];
        assert_eq!(decide(&stays, &[]), [Place::Covered, Place::OneTooMany, Place::Covered]);
    }

    #[test]
    fn beside_a_car_that_is_still_inside_a_stay_waits() {
        let inside = ContractStay { holding: Holding::Perhaps(40 * HOUR), ..stay(8, 9) };
        let stays = [inside, stay(9, 10), stay(50, 51)];
        assert_eq!(decide(&stays, &[]), [Place::Covered, Place::Waits, Place::Covered]);
    }

    #[test]
    fn beside_a_place_that_is_held_for_sure_a_stay_is_one_too_many_whoever_else_is_inside() {
        let inside = ContractStay { holding: Holding::Perhaps(40 * HOUR), ..stay(7, 9) };
        let two = |stay: ContractStay| ContractStay { cars: 2, ..stay };
        let stays = [two(inside), two(stay(8, 20)), stay(9, 10), two(stay(10, 11))];
        assert_eq!(decide(&stays, &[]), [Place::Covered, Place::Covered, Place::OneTooMany, Place::Waits]);
    }

    #[test]
    fn a_stay_that_was_forgotten_keeps_its_place_and_what_it_holds() {
        let forgotten = |stay: ContractStay, place| ContractStay { decided: Some(place), cars: 0, ..stay };
        let stays = [
            forgotten(stay(8, 12), Place::Covered),
            stay(9, 10),
            forgotten(stay(12, 14), Place::OneTooMany),
            stay(13, 15),
        ];
        let places = [Place::Covered, Place::OneTooMany, Place::OneTooMany, Place::Covered];
        assert_eq!(decide(&stays, &[]), places);
    }

    proptest! {
        /// What a waiting stay waits for comes: once every car has left, nothing waits, and no more than the allowed cars hold a place.
        #[test]
        fn never_more_cars_than_allowed_hold_a_place(
            times in proptest::collection::vec((0i64..100, 1i64..30), 1..40),
            cars in 1u32..4,
        ) {
            let mut stays: Vec<ContractStay> = times
                .iter()
                .map(|(entry, hours)| ContractStay { cars, ..stay(*entry, entry + hours) })
                .collect();
            stays.sort_by_key(|stay| stay.entry_ms);
            let places = decide(&stays, &[]);
            prop_assert!(!places.contains(&Place::Waits));
            for (n, stay) in stays.iter().enumerate() {
                let at = stay.entry_ms;
                let others = stays[..n].iter().zip(&places).filter(|(other, place)| {
                    **place == Place::Covered && other.reaches_ms() > at
                });
                let held = others.count();
                prop_assert_eq!(places[n] == Place::Covered, held < cars as usize);
            }
        }

        /// The stays of the last 30 days are enough to go on from.
        #[test]
        fn a_part_is_decided_as_the_whole_is(
            times in proptest::collection::vec((0i64..2000, 1i64..700, any::<bool>()), 1..40),
            cars in 1u32..4,
            from in any::<prop::sample::Index>(),
        ) {
            let mut stays: Vec<ContractStay> = times
                .iter()
                .map(|(entry, hours, is_inside)| {
                    let end = (entry + hours) * HOUR;
                    let holding = if *is_inside { Holding::Perhaps(end) } else { Holding::Until(end) };
                    ContractStay { cars, holding, ..stay(*entry, 0) }
                })
                .collect();
            stays.sort_by_key(|stay| stay.entry_ms);
            let whole = decide(&stays, &[]);
            let from = from.index(stays.len());
            let first = stays.partition_point(|other| other.entry_ms < stays[from].entry_ms - HELD_MS);
            prop_assert_eq!(decide(&stays[first..], &whole[first..from]), &whole[first..]);
        }
    }
}
