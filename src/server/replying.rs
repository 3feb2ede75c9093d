//! What the server counts while it serves edges, and how it answers them.

use crate::daemon::clock::wall_ms;
use crate::http::metrics::Metrics;
use crate::messaging::LedgerId;
use crate::messaging::wire::{Reply, Verdict};
use crate::transport::gateway::Peer;
use prometheus_client::metrics::counter::Counter;

#[derive(Clone)]
pub struct Counters {
    pub requests: Counter,
    pub applied: Counter,
    pub duplicates: Counter,
    pub gaps: Counter,
    pub conflicts: Counter,
    pub refused: Counter,
    pub busy: Counter,
    pub commits: Counter,
    pub replies_dropped: Counter,
    pub not_certified: Counter,
}

impl Counters {
    pub fn register(metrics: &mut Metrics) -> Counters {
        Counters {
            requests: metrics.counter("requests", "Requests received from edges"),
            applied: metrics.counter("events_applied", "Events applied to the ledger"),
            duplicates: metrics.counter("duplicates_refused", "Events received again and not applied again"),
            gaps: metrics.counter(
                "gaps",
                "Requests whose first event is not the next one; the edge sends the earlier ones first",
            ),
            conflicts: metrics.counter(
                "conflicts",
                "Requests whose content differs from the events applied at their sequences",
            ),
            refused: metrics.counter("refused", "Requests that were not understood"),
            busy: metrics.counter(
                "busy_replies",
                "Requests whose edge was asked to come back later, because too much was waiting",
            ),
            commits: metrics.counter("commits", "Groups of requests committed together"),
            replies_dropped: metrics
                .counter("replies_dropped", "Replies whose peer had gone or did not read"),
            not_certified: metrics.counter(
                "garages_not_certified",
                "Requests for a garage that the certificate of the peer does not name",
            ),
        }
    }
}

/// Answers peers in the name of a ledger.
#[derive(Clone)]
pub struct Replying {
    pub ledger: LedgerId,
    pub counters: Counters,
}

impl Replying {
    /// A reply that asks for nothing.
    pub fn reply_to(&self, id: u64, mark: u64, verdict: Verdict) -> Reply {
        let (ledger, clock_ms) = (self.ledger, wall_ms());
        Reply { id, ledger, mark, verdict, pause_ms: 0, clock_ms, notice: None, answer: None }
    }

    /// Waits for nobody: a peer that has gone or does not read gets none.
    pub fn send(&self, peer: Peer, body: Vec<u8>) {
        if !peer.reply(body) {
            self.counters.replies_dropped.inc();
        }
    }
}
