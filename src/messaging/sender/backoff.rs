//! How long to wait before repeating.
//!
//! The resend time of the n-th try is uniform between 2 s and min(60 s, 2 s × 2ⁿ): never sooner than 2 s, growing
//! while no reply comes, and spread, so that a city of garages that lost its server together does not return together
//! ("full jitter" above a floor; M. Brooker, "Exponential Backoff And Jitter", AWS 2015).

use rand::{Rng, RngExt};
use std::time::Duration;

/// The shortest resend time: events are never sent again sooner.
pub const RESEND_LEAST: Duration = Duration::from_secs(2);
pub const RESEND_MOST: Duration = Duration::from_secs(60);

const RECONNECT_LEAST: Duration = Duration::from_millis(100);
// With the two seconds that a connection may take, a link that returns is found within three.
const RECONNECT_MOST: Duration = Duration::from_millis(1500);

/// The resend time after `tries` in a row without a reply.
pub fn resend_after(tries: u32, rng: &mut impl Rng) -> Duration {
    rng.random_range(RESEND_LEAST..=RESEND_MOST.min(doubled(RESEND_LEAST, tries)))
}

/// When to come back to a receiver that asked for `pause` because it is busy: not before that and the least resend time, and spread
/// over as much again, so that those whom it sent away together do not come back together.
pub fn come_back_after(pause: Duration, rng: &mut impl Rng) -> Duration {
    let least = pause.clamp(RESEND_LEAST, RESEND_MOST);
    rng.random_range(least..=RESEND_MOST.min(least * 2))
}

/// When to try the next connection after `tries` failed in a row. Connecting sends no event, so it may be soon.
pub fn reconnect_after(tries: u32, rng: &mut impl Rng) -> Duration {
    let most = RECONNECT_MOST.min(doubled(RECONNECT_LEAST, tries.saturating_add(2)));
    rng.random_range(RECONNECT_LEAST..=most)
}

fn doubled(start: Duration, times: u32) -> Duration {
    start.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_resend_time_stays_within_its_bounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(resend_after(0, &mut rng), RESEND_LEAST);
        for tries in [1, 2, 3, 4, 5, 31, 32, u32::MAX] {
            let most = RESEND_MOST.min(Duration::from_secs(2u64 << tries.min(10)));
            let drawn: Vec<_> = (0..500).map(|_| resend_after(tries, &mut rng)).collect();
            assert!(drawn.iter().all(|d| (RESEND_LEAST..=most).contains(d)));
            assert!(drawn.iter().any(|d| *d > RESEND_LEAST + (most - RESEND_LEAST) / 2));
        }
    }

    #[test]
    fn connecting_is_never_far_away() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..500).all(|tries| reconnect_after(tries, &mut rng) <= RECONNECT_MOST));
    }

    /// How many of 1,000 edges that wait from the same moment on return within the same twentieth of the longest time.
    fn most_together(drawn: impl Fn(&mut ChaCha8Rng) -> Duration) -> usize {
        let edges = (0..1000).map(|seed| drawn(&mut ChaCha8Rng::seed_from_u64(seed)));
        let returned: Vec<Duration> = edges.collect();
        let (first, last) = (returned.iter().min().unwrap(), returned.iter().max().unwrap());
        let slice = (*last - *first) / 20;
        let mut counts = [0; 21];
        returned.iter().for_each(|at| {
            counts[(at.as_nanos() - first.as_nanos()).checked_div(slice.as_nanos()).unwrap_or(0) as usize] +=
                1
        });
        counts.into_iter().max().unwrap()
    }

    proptest! {
        #[test]
        fn a_herd_does_not_come_back_together(pause_ms in 0..30_000u32, tries in 0..u32::MAX) {
            let pause = Duration::from_millis(pause_ms.into());
            prop_assert!(most_together(|rng| come_back_after(pause, rng)) < 100);
            prop_assert!(most_together(|rng| reconnect_after(tries, rng)) < 100);
            prop_assert!(most_together(|rng| resend_after(tries.max(1), rng)) < 100);
        }

        #[test]
        fn nobody_comes_back_to_a_busy_receiver_too_soon_or_much_too_late(pause_ms: u32, seed: u64) {
            let pause = Duration::from_millis(pause_ms.into());
            let after = come_back_after(pause, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert!(after >= RESEND_LEAST && after >= pause.min(RESEND_MOST));
            prop_assert!(after <= RESEND_MOST && after <= pause.max(RESEND_LEAST) * 2);
        }
    }
}
