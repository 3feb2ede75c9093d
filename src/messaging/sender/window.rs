//! Tracks what was sent of the outbox, and which requests are still unanswered.

use crate::messaging::outbox::Position;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct SentRequest {
    pub id: u64,
    /// The last sequence in it, when it carries pages.
    pub last: Option<u64>,
    /// The last sequence before its pages.
    pub after: u64,
    pub asks: bool,
    pub overdue_at: Duration,
    pub acknowledged_when_sent: u64,
}

impl SentRequest {
    fn has_unacknowledged_pages(&self, acknowledged: u64) -> bool {
        self.last.is_some_and(|last| last > acknowledged)
    }

    /// A request whose pages were acknowledged by a later reply needs none of its own, unless it asks.
    fn needs_a_reply(&self, acknowledged: u64) -> bool {
        self.asks || self.last.is_none_or(|last| last > acknowledged)
    }
}

/// What the last [`Action::Send`](super::Action::Send) asked the shell to send.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WantedRequest {
    pub pages: bool,
    pub ask: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct SendWindow {
    /// The highest sequence sent on this socket.
    pub sent: u64,
    /// The highest sequence that this process has sent, on any socket.
    sent_before: u64,
    /// The highest sequence that may ever have been sent, by an earlier process too.
    pub ever_sent: u64,
    /// Oldest first.
    pub in_flight: VecDeque<SentRequest>,
    /// The maximum number of unanswered requests with pages at present.
    pub limit: usize,
    pub wanted: WantedRequest,
    last_gap: Option<u64>,
    pub resends: u64,
}

impl SendWindow {
    pub fn new(outbox: Position) -> SendWindow {
        SendWindow {
            sent: outbox.acknowledged,
            sent_before: outbox.acknowledged,
            // What an earlier process sent is not known, and may have been all.
            ever_sent: outbox.durable,
            limit: 1,
            ..SendWindow::default()
        }
    }

    /// The size of the window and the count of resends carry over into the next epoch.
    pub fn begin_epoch(&mut self, outbox: Position) {
        *self = SendWindow {
            limit: self.limit,
            wanted: self.wanted,
            resends: self.resends,
            ..SendWindow::new(outbox)
        };
    }

    pub fn sent_through(&mut self, last: u64) {
        debug_assert!(last > self.sent);
        self.resends += last.min(self.sent_before).saturating_sub(self.sent);
        self.sent = last;
        self.sent_before = self.sent_before.max(last);
        self.ever_sent = self.ever_sent.max(last);
    }

    /// Forgets what is in flight. Returns true if something that was sent may be sent again.
    pub fn go_back_to(&mut self, acknowledged: u64) -> bool {
        self.in_flight.clear();
        self.sent = acknowledged;
        self.sent_before > acknowledged
    }

    /// Goes back to a request that the receiver did not look at, and forgets those that were sent after it. Earlier ones may still be
    /// answered. Returns true if something that was sent may be sent again.
    pub fn go_back_to_request(&mut self, request: &SentRequest, acknowledged: u64) -> bool {
        if request.last.is_none() {
            return false;
        }
        let after = request.after.max(acknowledged);
        self.in_flight.retain(|other| other.last.is_none_or(|last| last <= after));
        self.sent = self.sent.min(after);
        self.sent_before > self.sent
    }

    pub fn take(&mut self, id: u64) -> Option<SentRequest> {
        let index = self.in_flight.iter().position(|request| request.id == id)?;
        self.in_flight.remove(index)
    }

    pub fn has_room(&self, acknowledged: u64) -> bool {
        let unacknowledged =
            self.in_flight.iter().filter(|request| request.has_unacknowledged_pages(acknowledged));
        unacknowledged.count() < self.limit
    }

    pub fn oldest_overdue_at(&self, acknowledged: u64) -> Option<Duration> {
        let oldest = self.in_flight.iter().find(|request| request.has_unacknowledged_pages(acknowledged));
        oldest.map(|request| request.overdue_at)
    }

    pub fn first_overdue_at(&self, acknowledged: u64) -> Option<Duration> {
        let unanswered = self.in_flight.iter().filter(|request| request.needs_a_reply(acknowledged));
        unanswered.map(|request| request.overdue_at).min()
    }

    /// Forgets overdue requests that need no reply any more.
    pub fn forget_answered(&mut self, acknowledged: u64, now: Duration) {
        self.in_flight.retain(|request| request.overdue_at > now || request.needs_a_reply(acknowledged));
    }

    pub fn is_repeated_gap(&mut self, mark: u64) -> bool {
        self.last_gap.replace(mark) == Some(mark)
    }
}
