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

/// When to try the next connection after `tries` failed in a row. Connecting sends no event, so it may be soon.
pub fn reconnect_after(tries: u32, rng: &mut impl Rng) -> Duration {
    let most = RECONNECT_MOST.min(doubled(RECONNECT_LEAST, tries));
    rng.random_range(RECONNECT_LEAST.min(most)..=most)
}

fn doubled(start: Duration, times: u32) -> Duration {
    start.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
