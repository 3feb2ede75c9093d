//! How many cars are inside a garage: counted from its events, in order.

use super::event::{Event, EventKind};
use super::garage::GarageSays;
use serde::{Deserialize, Serialize};

/// The count of one garage. It is never clamped: a number below zero or above the capacity is a reason to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    pub occupied: i64,
}

impl Occupancy {
    pub fn apply(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Entry { .. } => self.occupied += 1,
            EventKind::Exit { .. } => self.occupied -= 1,
            EventKind::Count { occupied, .. } => self.occupied = i64::from(*occupied),
            EventKind::PlateCorrection { .. } | EventKind::Closed { .. } | EventKind::Opened => {}
        }
    }
}

/// Free spaces for a sign: from 0 to the capacity, whatever the count. The one place where they are computed.
pub fn free_spaces(capacity: u32, occupied: i64) -> u32 {
    let free = i64::from(capacity).saturating_sub(occupied).clamp(0, capacity.into());
    u32::try_from(free).expect("it is not above the capacity")
}

/// What a run of events does to a count of any value, and what it says of whether the garage is open: events that are not
/// counted at the centre yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountEffect {
    /// Set when staff counted within the run: the count then does not depend on what came before.
    absolute: bool,
    change: i64,
    /// The last that it says; `None`: nothing.
    pub says: Option<GarageSays>,
}

impl CountEffect {
    pub fn of(event: &Event) -> CountEffect {
        CountEffect { says: GarageSays::by(event), ..CountEffect::on_count(&event.kind) }
    }

    /// Of what happened, without what it says of the garage.
    pub fn on_count(kind: &EventKind) -> CountEffect {
        let mut occupancy = Occupancy::default();
        occupancy.apply(kind);
        let absolute = matches!(kind, EventKind::Count { .. });
        CountEffect { absolute, change: occupancy.occupied, says: None }
    }

    /// This run, then `later`.
    pub fn then(self, later: CountEffect) -> CountEffect {
        let says = later.says.or(self.says);
        if later.absolute {
            return CountEffect { says, ..later };
        }
        CountEffect { absolute: self.absolute, change: self.change.saturating_add(later.change), says }
    }

    /// The count after the run; `None` when it depends on an unknown count. `before` comes from a peer and may be any number.
    pub fn on(self, before: Option<i64>) -> Option<i64> {
        if self.absolute {
            return Some(self.change);
        }
        before.map(|before| before.saturating_add(self.change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::garage::Opening;

    #[test]
    fn the_count_follows_the_events_and_is_never_clamped() {
        let mut occupancy = Occupancy::default();
        occupancy.apply(&EventKind::Exit { plate: None });
        assert_eq!(occupancy.occupied, -1);
        for _ in 0..5 {
            occupancy.apply(&EventKind::Entry { plate: None });
        }
        assert_eq!(occupancy.occupied, 4);
    }

    /// One exit too many was once four free spaces out of three, on every sign of the city.
    #[test]
    fn free_spaces_are_never_fewer_than_none_nor_more_than_there_are() {
        for (occupied, free) in [(-1, 3), (0, 3), (1, 2), (3, 0), (4, 0), (i64::MIN, 3), (i64::MAX, 0)] {
            assert_eq!(free_spaces(3, occupied), free, "{occupied} of 3");
        }
        assert_eq!((free_spaces(0, -1), free_spaces(u32::MAX, -1)), (0, u32::MAX));
    }

    #[test]
    fn what_staff_counted_is_absolute() {
        let mut occupancy = Occupancy { occupied: 40 };
        occupancy.apply(&EventKind::Count { occupied: 37, reason: "rounds".into() });
        assert_eq!(occupancy.occupied, 37);
    }

    #[test]
    fn the_effect_of_a_run_is_that_of_its_events() {
        let count = |occupied| EventKind::Count { occupied, reason: "rounds".into() };
        let entry = EventKind::Entry { plate: None };
        let exit = EventKind::Exit { plate: None };
        let kinds = [entry.clone(), count(9), exit, entry];
        for split in 0..=kinds.len() {
            let run = |kinds: &[EventKind]| {
                kinds.iter().map(CountEffect::on_count).fold(CountEffect::default(), CountEffect::then)
            };
            let both = run(&kinds[..split]).then(run(&kinds[split..]));
            let mut occupancy = Occupancy { occupied: 40 };
            kinds.iter().for_each(|kind| occupancy.apply(kind));
            assert_eq!(both.on(Some(40)), Some(occupancy.occupied));
            assert_eq!(both.on(None), Some(9), "a count needs no past");
        }
        assert_eq!(CountEffect::on_count(&kinds[0]).on(None), None);
    }

    #[test]
    fn what_a_garage_said_last_counts_and_no_car_changes_it() {
        let effect = |json: &str| {
            CountEffect::of(&Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap())
        };
        let closed = effect(r#"{"kind":"closed","reason":"flood","at":"1970-01-01T00:00:01Z"}"#);
        let opened = effect(r#"{"kind":"opened","at":"1970-01-01T00:00:02Z"}"#);
        let car = effect(r#"{"kind":"entry","plate":null}"#);
        let counted = effect(r#"{"kind":"count","occupied":9,"reason":"rounds"}"#);
        let said = |opening, at_ms| Some(GarageSays { opening, at_ms });
        let all = closed.then(car).then(counted).then(car);
        assert_eq!((all.says, all.on(None)), (said(Opening::Closed, 1000), Some(10)));
        assert_eq!(all.then(opened).says, said(Opening::Open, 2000));
        assert_eq!((opened.on(Some(4)), car.says), (Some(4), None));
    }
}
