//! How many cars are inside a garage: a fold over its events, in order.

use super::event::EventKind;
use serde::{Deserialize, Serialize};

/// The count of one garage. It is never clamped: a negative number, or one above the capacity, is what the
/// events say, and a reason to look.
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
            EventKind::PlateCorrection { .. } => {}
        }
    }

    /// Free spaces for a sign: never below 0.
    pub fn free(&self, capacity: u32) -> i64 {
        (i64::from(capacity) - self.occupied).max(0)
    }
}

/// What a run of events does to a count, whatever the count was: events that are not counted at the centre yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effect {
    /// Set when staff counted within the run: the count then does not depend on what came before.
    absolute: bool,
    change: i64,
}

impl Effect {
    pub fn of(kind: &EventKind) -> Effect {
        let mut occupancy = Occupancy::default();
        occupancy.apply(kind);
        Effect { absolute: matches!(kind, EventKind::Count { .. }), change: occupancy.occupied }
    }

    /// This run, then `later`.
    pub fn then(self, later: Effect) -> Effect {
        if later.absolute {
            return later;
        }
        Effect { absolute: self.absolute, change: self.change.saturating_add(later.change) }
    }

    /// The count after the run; `None` when it depends on an unknown one. A peer told the count before, which may be any number.
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

    #[test]
    fn the_count_follows_the_events_and_is_never_clamped() {
        let mut occupancy = Occupancy::default();
        occupancy.apply(&EventKind::Exit { plate: None });
        assert_eq!((occupancy.occupied, occupancy.free(3)), (-1, 4));
        for _ in 0..5 {
            occupancy.apply(&EventKind::Entry { plate: None });
        }
        assert_eq!((occupancy.occupied, occupancy.free(3)), (4, 0));
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
            let run =
                |kinds: &[EventKind]| kinds.iter().map(Effect::of).fold(Effect::default(), Effect::then);
            let both = run(&kinds[..split]).then(run(&kinds[split..]));
            let mut occupancy = Occupancy { occupied: 40 };
            kinds.iter().for_each(|kind| occupancy.apply(kind));
            assert_eq!(both.on(Some(40)), Some(occupancy.occupied));
            assert_eq!(both.on(None), Some(9), "a count needs no past");
        }
        assert_eq!(Effect::of(&kinds[0]).on(None), None);
    }
}
