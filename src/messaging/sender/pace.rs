//! When events may be sent: resend times, refusals, and pauses that the receiver asks for.

use super::backoff::{RESEND_LEAST, come_back_after, resend_after};
use crate::messaging::wire::PAUSE_MAX_MS;
use rand::Rng;
use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub(super) struct SendingPace {
    /// Requests in a row that got no reply at all.
    pub silent_tries: u32,
    /// Requests with pages in a row that were not accepted.
    pub refused_tries: u32,
    /// No events before this, because a reply did not come or was a refusal.
    pub hold_until: Duration,
    /// No events before this: some of the next ones were sent less than [`RESEND_LEAST`] before it.
    pub resend_at: Duration,
    /// No events before this: the receiver asked for a pause.
    pub pause_until: Duration,
    /// No requests at all before this: the receiver had too much waiting.
    pub busy_until: Duration,
    pub events_sent_at: Option<Duration>,
}

impl SendingPace {
    pub fn events_may_go_at(&self) -> Duration {
        self.hold_until.max(self.pause_until).max(self.resend_at).max(self.busy_until)
    }

    pub fn wait_for_the_least_resend_time(&mut self) {
        if let Some(sent_at) = self.events_sent_at {
            self.resend_at = self.resend_at.max(sent_at + RESEND_LEAST);
        }
    }

    pub fn heard(&mut self, now: Duration, pause_ms: u32) {
        if pause_ms > 0 {
            let pause = Duration::from_millis(pause_ms.min(PAUSE_MAX_MS).into());
            self.pause_until = self.pause_until.max(now + pause);
        }
        if std::mem::take(&mut self.silent_tries) > 0
            && self.refused_tries == 0
            && let Some(sent_at) = self.events_sent_at
        {
            // The receiver answers again: no need to sit out a long resend time.
            self.hold_until = self.hold_until.min(sent_at + RESEND_LEAST);
        }
    }

    /// The receiver had too much waiting to look at a request. Returns until when nothing is sent.
    pub fn busy(&mut self, now: Duration, busy_ms: u32, rng: &mut impl Rng) -> Duration {
        let pause = Duration::from_millis(busy_ms.into());
        self.busy_until = self.busy_until.max(now + come_back_after(pause, rng));
        self.busy_until
    }

    /// A request with pages was not accepted. Returns until when no events are sent.
    pub fn refused(&mut self, now: Duration, rng: &mut impl Rng) -> Duration {
        self.refused_tries = self.refused_tries.saturating_add(1);
        let resend_time = self.resend_time(rng);
        self.hold_until = self.hold_until.max(now + resend_time);
        self.hold_until
    }

    /// Called when the next pages are not the refused ones.
    pub fn forget_refusals(&mut self) {
        self.hold_until = Duration::ZERO;
        self.refused_tries = 0;
    }

    pub fn resend_time(&self, rng: &mut impl Rng) -> Duration {
        resend_after(self.silent_tries.max(self.refused_tries.saturating_sub(1)), rng)
    }
}
