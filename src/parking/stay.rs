//! Stays: an entry matched with the exit that ended it.
//!
//! **The rule.** Take the events of one garage with one plate, in their order. An exit ends the stay of the entry directly
//! before it. A car is inside when its last event is an entry. An entry that is directly followed by another entry began
//! a stay whose exit nobody saw: the car had left before it came again. An exit that does not directly follow an
//! entry is unmatched. A car whose plate could not be read is counted, never matched.
//!
//! So a pairing depends on neighbours alone: [`Inside`] follows the events as they come, with one open stay for each
//! car that is inside; and a better reading of an old event changes the visits beside it under the old plate and under the
//! new one ([`without`], [`with`]), and none further away. Both give what [`pair`] says of all events at once, each read with the
//! best plate known.

use super::plate::Plate;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

/// What became of a car that entered. `P` is what the caller keeps of an event; it orders them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End<P> {
    Inside,
    Left(P),
    /// The car entered again, so it had left; nobody saw when.
    Unseen,
}

impl<P> End<P> {
    pub fn exit(&self) -> Option<&P> {
        match self {
            End::Left(exit) => Some(exit),
            End::Inside | End::Unseen => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visit<P> {
    Stay { entry: P, end: End<P> },
    Exit(P),
}

impl<P> Visit<P> {
    /// Its first event. The visits of one car do not overlap, so it orders them.
    pub fn first(&self) -> &P {
        match self {
            Visit::Stay { entry, .. } => entry,
            Visit::Exit(exit) => exit,
        }
    }

    /// Its last event so far.
    pub fn last(&self) -> &P {
        match self {
            Visit::Stay { end: End::Left(exit), .. } | Visit::Exit(exit) => exit,
            Visit::Stay { entry, .. } => entry,
        }
    }

    /// The entry and the exit of a stay that an exit ended.
    pub fn closed(&self) -> Option<(P, P)>
    where
        P: Copy,
    {
        match self {
            Visit::Stay { entry, end: End::Left(exit) } => Some((*entry, *exit)),
            _ => None,
        }
    }

    pub fn is_inside(&self) -> bool {
        matches!(self, Visit::Stay { end: End::Inside, .. })
    }

    /// In their order.
    pub fn events(&self) -> impl Iterator<Item = (Way, &P)> {
        let (first, second) = match self {
            Visit::Stay { entry, end: End::Left(exit) } => ((Way::In, entry), Some((Way::Out, exit))),
            Visit::Stay { entry, .. } => ((Way::In, entry), None),
            Visit::Exit(exit) => ((Way::Out, exit), None),
        };
        std::iter::once(first).chain(second)
    }

    pub fn holds(&self, event: &P) -> bool
    where
        P: PartialEq,
    {
        self.events().any(|(_, other)| other == event)
    }
}

/// The rule: the visits that the events of one car make, in order.
pub fn pair<P>(events: impl IntoIterator<Item = (Way, P)>) -> Vec<Visit<P>> {
    let mut visits: Vec<Visit<P>> = Vec::new();
    for (way, event) in events {
        let last = match visits.last_mut() {
            Some(Visit::Stay { end: end @ End::Inside, .. }) => Some(end),
            _ => None,
        };
        match (way, last) {
            (Way::Out, Some(end)) => *end = End::Left(event),
            (Way::Out, None) => visits.push(Visit::Exit(event)),
            (Way::In, last) => {
                if let Some(end) = last {
                    *end = End::Unseen;
                }
                visits.push(Visit::Stay { entry: event, end: End::Inside });
            }
        }
    }
    visits
}

/// The visits that replace a run of visits. The last entry of the run may have been followed by another.
fn pair_again<P>(run: &[Visit<P>], events: impl IntoIterator<Item = (Way, P)>) -> Vec<Visit<P>> {
    let mut visits = pair(events);
    let is_followed = matches!(run.last(), Some(Visit::Stay { end: End::Unseen, .. }));
    if is_followed && let Some(Visit::Stay { end: end @ End::Inside, .. }) = visits.last_mut() {
        *end = End::Unseen;
    }
    visits
}

/// The visits of a run of one car without `event`. The run begins at least one visit before the one that
/// holds the event, and ends at least one after it, where there are such.
pub fn without<P: Clone + PartialEq>(visits: &[Visit<P>], event: &P) -> Vec<Visit<P>> {
    let events = visits.iter().flat_map(Visit::events).filter(|(_, other)| *other != event);
    pair_again(visits, events.map(|(way, event)| (way, event.clone())))
}

/// The visits of a run of one car with `event` added. The run begins with the last visit that begins before
/// the event, and ends with the first that begins after it, where there are such.
pub fn with<P: Clone + Ord>(visits: &[Visit<P>], way: Way, event: P) -> Vec<Visit<P>> {
    let mut events: Vec<_> =
        visits.iter().flat_map(Visit::events).map(|(way, event)| (way, event.clone())).collect();
    let place = events.partition_point(|(_, other)| *other < event);
    events.insert(place, (way, event));
    pair_again(visits, events)
}

/// The cars that are inside one garage, each with a note of its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside<N> {
    pub by_plate: HashMap<Plate, N>,
}

impl<N> Default for Inside<N> {
    fn default() -> Inside<N> {
        Inside { by_plate: HashMap::new() }
    }
}

impl<N> Inside<N> {
    /// A car entered. Returns the note of its earlier entry when it was inside: nobody saw that exit.
    pub fn enter(&mut self, plate: &Plate, entry: N) -> Option<N> {
        self.by_plate.insert(plate.clone(), entry)
    }

    /// A car left. Returns the note of the entry that this exit closes; `None`: the exit is unmatched.
    pub fn leave(&mut self, plate: &Plate) -> Option<N> {
        self.by_plate.remove(plate)
    }

    pub fn take_all(&mut self, is: impl Fn(&N) -> bool) -> Vec<(Plate, N)> {
        let taken: Vec<_> = self.by_plate.extract_if(|_, note| is(note)).collect();
        if !taken.is_empty() {
            self.by_plate.shrink_to(2 * self.by_plate.len());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Way::{In, Out};
    use proptest::prelude::*;

    fn paired(ways: &[Way]) -> Vec<Visit<usize>> {
        pair(ways.iter().enumerate().map(|(n, way)| (*way, n)))
    }

    fn stay(entry: usize, end: End<usize>) -> Visit<usize> {
        Visit::Stay { entry, end }
    }

    #[test]
    fn an_exit_closes_the_stay_of_the_entry_before_it() {
        assert_eq!(paired(&[In, Out, In]), [stay(0, End::Left(1)), stay(2, End::Inside)]);
    }

    #[test]
    fn an_exit_without_an_entry_is_unmatched() {
        assert_eq!(paired(&[Out, In, Out, Out]), [Visit::Exit(0), stay(1, End::Left(2)), Visit::Exit(3)]);
    }

    #[test]
    fn who_enters_twice_left_unseen_and_is_inside_once() {
        assert_eq!(paired(&[In, In, Out]), [stay(0, End::Unseen), stay(1, End::Left(2))]);
    }

    proptest! {
        /// Following the events as they come gives what the rule says of all of them.
        #[test]
        fn the_cars_inside_are_those_whose_stay_is_open(
            ways in proptest::collection::vec(prop_oneof![Just(In), Just(Out)], 0..30),
        ) {
            let plate = Plate::new("AB1").unwrap();
            let mut inside = Inside::default();
            let mut visits: Vec<Visit<usize>> = Vec::new();
            for (n, way) in ways.iter().enumerate() {
                let (former, end) = match way {
                    In => {
                        visits.push(stay(n, End::Inside));
                        (inside.enter(&plate, n), End::Unseen)
                    }
                    Out => (inside.leave(&plate), End::Left(n)),
                };
                match former {
                    Some(entry) => {
                        let its = visits.iter_mut().find(|visit| *visit.first() == entry).unwrap();
                        *its = stay(entry, end);
                    }
                    None if *way == Out => visits.push(Visit::Exit(n)),
                    None => {}
                }
            }
            prop_assert_eq!(&visits, &paired(&ways));
            prop_assert_eq!(inside.by_plate.len(), visits.iter().filter(|visit| visit.is_inside()).count());
        }

        /// One event more or less changes its neighbours alone, and they are enough to know how.
        #[test]
        fn a_run_of_neighbours_is_enough_to_put_an_event_in_or_out(
            ways in proptest::collection::vec(prop_oneof![Just(In), Just(Out)], 1..20),
            which in any::<prop::sample::Index>(),
        ) {
            let which = which.index(ways.len());
            let all = paired(&ways);
            let events = ways.iter().enumerate().map(|(n, way)| (*way, n));
            let rest = pair(events.filter(|(_, n)| *n != which));

            let its = all.iter().position(|visit| visit.holds(&which)).unwrap();
            let run = its.saturating_sub(1)..(its + 2).min(all.len());
            let mut out = all.clone();
            out.splice(run.clone(), without(&all[run], &which));
            prop_assert_eq!(&out, &rest);

            let after = rest.partition_point(|visit| *visit.first() < which);
            let run = after.saturating_sub(1)..(after + 1).min(rest.len());
            let mut back = rest.clone();
            back.splice(run.clone(), with(&rest[run], ways[which], which));
            prop_assert_eq!(&back, &all);
        }
    }
}
