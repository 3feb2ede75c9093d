//! Takes requests from the gateway as fast as they come, and lets them wait for the serving thread in [`Turns`].
//!
//! **Promise.** What waits is bounded, and a garage that waits for its turn is delayed by no other. Every request is answered: one
//! that is not valid, not for its peer to send, or too much, at once.
//! **Kept by.** Nothing here waits for a disk or for a peer.

use super::ledger::Ledger;
use super::replying::{Counters, Replying};
use super::turns::Turns;
use crate::codes;
use crate::http::metrics::Metrics;
use crate::messaging::SiteName;
use crate::messaging::wire::{self, Request, Verdict, WireError};
use crate::transport::gateway::{Incoming, Peer};
use prometheus_client::metrics::gauge::Gauge;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// A valid request, and who sent it.
pub type Admitted = (Peer, Request);

/// The requests that wait.
#[derive(Default)]
pub struct WaitingRequests {
    state: Mutex<WaitingState>,
    changed: Notify,
    count: Gauge,
    bytes: Gauge,
}

#[derive(Default)]
struct WaitingState {
    turns: Turns<(Admitted, usize)>,
    /// No more will come.
    is_closed: bool,
}

/// Requests that are served together.
#[derive(Default)]
pub struct Group {
    pub peers: Vec<Peer>,
    pub requests: Vec<Request>,
    pub bytes: usize,
}

impl WaitingRequests {
    pub fn register(metrics: &mut Metrics) -> WaitingRequests {
        WaitingRequests {
            count: metrics.gauge("requests_waiting", "Requests of edges that wait to be served"),
            bytes: metrics.gauge("requests_waiting_bytes", "Bytes of the requests that wait to be served"),
            ..WaitingRequests::default()
        }
    }

    fn show(&self, state: &WaitingState) {
        self.count.set(state.turns.count() as i64);
        self.bytes.set(state.turns.bytes() as i64);
    }

    fn state(&self) -> MutexGuard<'_, WaitingState> {
        self.state.lock().expect("no thread panics while it holds the waiting requests")
    }

    /// Resolves when something waits, with true, or nothing ever will.
    pub async fn wait(&self) -> bool {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state();
                if state.turns.count() > 0 || state.is_closed {
                    return state.turns.count() > 0;
                }
            }
            changed.await;
        }
    }

    /// Takes requests in turn until they have this many bytes together.
    pub fn take(&self, bytes: usize) -> Group {
        let mut group = Group::default();
        let mut state = self.state();
        while group.bytes < bytes
            && let Some(((peer, request), length)) = state.turns.next()
        {
            group.peers.push(peer);
            group.requests.push(request);
            group.bytes += length;
        }
        self.show(&state);
        group
    }

    /// Notes how long it took to serve a group.
    pub fn served(&self, count: usize, bytes: usize, took: Duration) {
        self.state().turns.served(count, bytes, took);
    }
}

/// Admits what comes until the gateway closes. When that ends, so does [`WaitingRequests::wait`].
pub fn begin(
    ledger: &Ledger,
    incoming: mpsc::Receiver<Incoming>,
    metrics: &mut Metrics,
) -> (Replying, Arc<WaitingRequests>) {
    let replying = Replying { ledger: ledger.id(), counters: Counters::register(metrics) };
    let waiting = Arc::new(WaitingRequests::register(metrics));
    let admission = Admission {
        ledger: ledger.clone(),
        replying: replying.clone(),
        waiting: Arc::clone(&waiting),
        not_certified: LogTimes::default(),
        busy: LogTimes::default(),
    };
    tokio::spawn(admission.admit_until_closed(incoming));
    (replying, waiting)
}

struct Admission {
    ledger: Ledger,
    replying: Replying,
    waiting: Arc<WaitingRequests>,
    not_certified: LogTimes,
    busy: LogTimes,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.waiting.state().is_closed = true;
        self.waiting.changed.notify_one();
    }
}

impl Admission {
    async fn admit_until_closed(mut self, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(Incoming { peer, body }) = incoming.recv().await {
            self.replying.counters.requests.inc();
            match Request::decode(&body) {
                Ok(request) if peer.may_speak_for(&request.site) => {
                    peer.note_valid_request();
                    self.admit(peer, request, body.len());
                }
                Ok(request) => self.refuse_for_another(peer, &request),
                Err(error) => self.answer_nonsense(peer, &error),
            }
        }
    }

    fn admit(&mut self, peer: Peer, request: Request, length: usize) {
        let site = request.site.clone();
        let mut state = self.waiting.state();
        let leaving = state.turns.add(&site, ((peer, request), length), length);
        self.waiting.show(&state);
        let (count, bytes, pause_ms) = (state.turns.count(), state.turns.bytes(), state.turns.pause_ms());
        drop(state);
        self.waiting.changed.notify_one();
        if leaving.is_empty() {
            return;
        }
        if self.busy.is_due("", Instant::now()) {
            tracing::warn!(
                code = %codes::SERVER_BUSY,
                waiting = count,
                bytes,
                pause_ms,
                hint = "edges keep their events and come back; if it goes on, look for a slow disk or a busy machine",
                "more requests came than this server serves; some garages were asked to come back later"
            );
        }
        for ((peer, request), _) in leaving {
            self.replying.counters.busy.inc();
            let mark = self.mark(&request);
            let reply = self.replying.reply_to(request.id, mark, Verdict::Gap).busy(pause_ms);
            self.replying.send(peer, reply.encode());
        }
    }

    /// The true mark, as what an edge deletes depends on it. The edge of another ledger learns nothing of ours.
    fn mark(&self, request: &Request) -> u64 {
        let is_ours = request.ledger.is_none_or(|ledger| ledger == self.ledger.id());
        if is_ours { self.ledger.mark(&request.site, request.epoch) } else { 0 }
    }

    /// Answers a request for a garage that the certificate of its peer does not name. Nothing of it is taken or remembered, so that the
    /// garage itself is not disturbed.
    fn refuse_for_another(&mut self, peer: Peer, request: &Request) {
        self.replying.counters.not_certified.inc();
        let garages: Vec<&str> = peer.garages().unwrap_or_default().iter().map(SiteName::as_str).collect();
        let garages = garages.join(", ");
        if self.not_certified.is_due(&garages, Instant::now()) {
            tracing::error!(
                code = %codes::GARAGE_NOT_CERTIFIED,
                garage = %request.site,
                certificate = garages,
                peer = %peer.address(),
                hint = "if the edge was renamed, issue a certificate for its name; if not, somebody has its key: revoke the certificate",
                "a peer asked for a garage that its certificate does not name; nothing was taken"
            );
        }
        let reason = format!(
            "the certificate does not name the garage {:?}, but {garages:?}. Issue one for it: server certs issue --garage {:?} --out DIR",
            request.site.as_str(),
            request.site.as_str(),
        );
        let reply = self.replying.reply_to(request.id, self.mark(request), Verdict::Refused { reason });
        self.replying.send(peer, reply.encode());
    }

    fn answer_nonsense(&self, peer: Peer, error: &WireError) {
        self.replying.counters.refused.inc();
        tracing::debug!(%error, "admission: refused an invalid request");
        let reason = format!("not a valid request: {error}");
        let body = match error {
            WireError::Version(_) => wire::versions_known(),
            _ => self.replying.reply_to(0, 0, Verdict::Refused { reason }).encode(),
        };
        self.replying.send(peer, body);
    }
}

/// When something was last logged, by what it was about.
#[derive(Debug, Default)]
struct LogTimes(BTreeMap<String, Instant>);

impl LogTimes {
    const EVERY: Duration = Duration::from_secs(600);

    fn is_due(&mut self, about: &str, now: Instant) -> bool {
        let last = self.0.get(about);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(*last) >= LogTimes::EVERY);
        if is_due {
            self.0.insert(about.to_owned(), now);
        }
        is_due
    }
}
