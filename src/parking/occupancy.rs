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
        occupancy.apply(&EventKind::Count {
            occupied: 37,
            reason: "rounds".into(),
        });
        assert_eq!(occupancy.occupied, 37);
    }
}
