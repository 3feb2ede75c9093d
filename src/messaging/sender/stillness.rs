//! Notices a queue that does not move although the receiver answers.
//!
//! **Promise.** When messages wait, the receiver answers, and the oldest of them stays the oldest for
//! [`STANDS_STILL_AFTER`], that is an alarm, whatever the reason; it ends with the first message that is acknowledged.
//! **Kept by.** Only time that lies before an answer counts, at most [`ANSWERS_WITHIN`] for each: a receiver that was away
//! keeps a queue waiting, but that is no fault of the queue. A pause that the receiver asked for does not count.
//! **Not promised.** That the alarm gives a reason. A known reason has an alarm of its own, which says more.

use crate::messaging::outbox::{EpochIndex, Position};
use std::time::Duration;

/// How long a queue may stand while the receiver answers: 15 times the least resend time.
pub const STANDS_STILL_AFTER: Duration = Duration::from_secs(30);
/// A receiver that has not answered for longer than this was away, and the time counts only in part.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default)]
pub struct Stillness {
    /// The epoch and acknowledged sequence at the last answer.
    at: Option<(EpochIndex, u64)>,
    stood: Duration,
    /// Up to when that was counted.
    counted_until: Duration,
}

impl Stillness {
    /// The receiver answered. After that, the queue has come to `front` in the epoch that is being delivered, and `waiting` messages
    /// wait, of all epochs. `paused_until` is a moment up to which the receiver wants no messages, or wanted none.
    pub fn answered(&mut self, now: Duration, front: &Position, waiting: u64, paused_until: Duration) {
        let at = Some((front.epoch_index, front.acknowledged));
        if waiting == 0 || self.at != at {
            *self = Stillness { at, stood: Duration::ZERO, counted_until: now };
            return;
        }
        let since = self.counted_until.max(paused_until);
        self.stood += now.saturating_sub(since).min(ANSWERS_WITHIN);
        self.counted_until = self.counted_until.max(now);
    }

    pub fn is_alarming(&self) -> bool {
        self.stood >= STANDS_STILL_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::sender::tests::held;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queue(acknowledged: u64, waiting: u64) -> (Position, u64) {
        (held(1, acknowledged, acknowledged + waiting), waiting)
    }

    fn answered(stillness: &mut Stillness, second: u64, (front, waiting): (Position, u64), paused: Duration) {
        stillness.answered(secs(second), &front, waiting, paused);
    }

    /// The second at which the alarm is raised, when something is answered each second.
    fn alarmed_at(queue_at: impl Fn(u64) -> (Position, u64), paused_until: Duration) -> Option<u64> {
        let mut stillness = Stillness::default();
        (0..200).find(|second| {
            answered(&mut stillness, *second, queue_at(*second), paused_until);
            stillness.is_alarming()
        })
    }

    #[test]
    fn a_queue_that_stands_while_the_receiver_answers_is_an_alarm() {
        assert_eq!(alarmed_at(|_| queue(7, 3), Duration::ZERO), Some(30));
        assert_eq!(alarmed_at(|second| queue(7, second), Duration::ZERO), Some(30), "it only grows");
    }

    #[test]
    fn a_queue_that_moves_or_is_empty_or_was_asked_to_pause_is_none() {
        assert_eq!(alarmed_at(|second| queue(second / 29, 3), Duration::ZERO), None);
        assert_eq!(alarmed_at(|_| queue(7, 0), Duration::ZERO), None);
        assert_eq!(alarmed_at(|_| queue(7, 3), secs(60)), Some(90));
        let next_epoch = |second| (Position { epoch_index: (second / 29) as u32, ..held(1, 0, 3) }, 3);
        assert_eq!(alarmed_at(next_epoch, Duration::ZERO), None);
    }

    /// Nothing moves while the server is away, and the first answer after that says so of the whole time.
    #[test]
    fn a_receiver_that_was_away_is_no_alarm_when_it_answers_again() {
        let mut stillness = Stillness::default();
        answered(&mut stillness, 1, queue(7, 3), Duration::ZERO);
        for second in 3600..3619 {
            answered(&mut stillness, second, queue(7, 3), Duration::ZERO);
            assert!(!stillness.is_alarming(), "after {second} s");
        }
        answered(&mut stillness, 3621, queue(7, 3), Duration::ZERO);
        assert!(stillness.is_alarming());
    }

    #[test]
    fn the_alarm_ends_when_the_queue_moves() {
        let mut stillness = Stillness::default();
        (0..100).for_each(|second| answered(&mut stillness, second, queue(7, 3), Duration::ZERO));
        assert!(stillness.is_alarming());
        answered(&mut stillness, 100, queue(8, 2), Duration::ZERO);
        assert!(!stillness.is_alarming());
    }
}
