//! What the clocks of a site showed: evidence, not truth.
//!
//! A wall clock may be wrong by years and may be set at any time; a monotonic clock only says how much time passed between two
//! moments within one boot of one machine. Together, with the boot that they belong to and whether the wall clock was known to be
//! set, they let a person find out afterwards what happened when. No decision depends on a reading.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The boot of a machine that a monotonic reading belongs to (`/proc/sys/kernel/random/boot_id`); zeros when it is not known.
pub type BootId = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// The wall clock in milliseconds since 1970.
    pub wall_ms: i64,
    /// A clock that never goes back, in milliseconds since any moment of this boot.
    pub monotonic_ms: u64,
    pub boot: BootId,
    /// The wall clock was known to be set, by NTP for example.
    pub set: bool,
}

impl ClockReading {
    /// The longest encoding, in bytes.
    pub const ENCODED_MAX: usize = 10 + 10 + 16 + 1;

    /// A reading of a wall clock alone, by a machine that knows neither its boot nor whether the clock was set.
    pub fn at_wall_ms(wall_ms: i64) -> ClockReading {
        ClockReading { wall_ms, monotonic_ms: 0, boot: [0; 16], set: false }
    }

    /// How long before `now` this was read. Within one boot a wall clock that was set meanwhile does not matter; across boots
    /// only the wall clock is known, and a moment in the future counts as now.
    pub fn age_at(&self, now: &ClockReading) -> Duration {
        let ms = match self.same_boot(now) {
            true => now.monotonic_ms.saturating_sub(self.monotonic_ms),
            false => u64::try_from(now.wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0),
        };
        Duration::from_millis(ms)
    }

    /// How far the wall clock was set between this reading and a later one, in milliseconds; 0 when that cannot be known.
    pub fn wall_was_set_by(&self, later: &ClockReading) -> i64 {
        if !self.same_boot(later) {
            return 0;
        }
        let went = later.monotonic_ms.saturating_sub(self.monotonic_ms);
        later.wall_ms.saturating_sub(self.wall_ms).saturating_sub_unsigned(went)
    }

    fn same_boot(&self, other: &ClockReading) -> bool {
        self.boot == other.boot && self.boot != [0; 16]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall_ms: i64, monotonic_ms: u64, boot: u8) -> ClockReading {
        ClockReading { wall_ms, monotonic_ms, boot: [boot; 16], set: true }
    }

    #[test]
    fn within_a_boot_the_age_does_not_depend_on_the_wall_clock() {
        let ten_years = 315_360_000_000;
        let then = reading(1_000_000, 500, 1);
        for wall_ms in [1_000_000 + ten_years, 1_000_000, 1_000_000 - ten_years] {
            assert_eq!(then.age_at(&reading(wall_ms, 800, 1)), Duration::from_millis(300));
        }
        assert_eq!(then.wall_was_set_by(&reading(1_000_300 + ten_years, 800, 1)), ten_years);
        assert_eq!(then.wall_was_set_by(&reading(1_000_300, 800, 1)), 0);
    }

    #[test]
    fn across_boots_the_wall_clock_is_all_there_is() {
        let then = reading(1_000, 500, 1);
        assert_eq!(then.age_at(&reading(4_000, 3, 2)), Duration::from_secs(3));
        assert_eq!(then.age_at(&reading(10, 3, 2)), Duration::ZERO, "no event is from the future");
        assert_eq!(then.wall_was_set_by(&reading(9_000, 800, 2)), 0, "nobody knows");
    }
}
