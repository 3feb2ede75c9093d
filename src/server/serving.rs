//! The thread that serves requests: decode, commit together, answer.

use super::folding::Signal;
use super::ledger::{Applied, Ledger};
use super::view::View;
use crate::messaging::SiteName;
use crate::messaging::wire::{self, Reply, Request, Verdict, WireError};
use crate::parking::{BoardQuestion, Observation};
use crate::store::StoreError;
use crate::transport::front::{Incoming, Peer, Replied, Replies};
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// A commit takes what waits, up to this many bytes, so that the first of them does not wait for long.
const GATHER_BYTES: usize = 2 * 1024 * 1024;

/// What is merely seen of a site: no view, and forgotten at a restart.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub heard_at_ms: i64,
    pub observation: Option<Observation>,
    pub duplicates_refused: u64,
    pub conflicts: u64,
    /// The first sequence of the page in conflict, while it is.
    pub in_conflict_at: Option<u64>,
    pub refused: Option<String>,
}

/// What the serving thread counts.
#[derive(Clone)]
pub struct Counters {
    pub requests: Counter,
    pub applied: Counter,
    pub duplicates: Counter,
    pub gaps: Counter,
    pub conflicts: Counter,
    pub refused: Counter,
    pub commits: Counter,
    pub replies_dropped: Counter,
}

/// Everything that the serving thread works with.
pub struct Serving {
    pub ledger: Ledger,
    pub view: Arc<RwLock<View>>,
    pub signal: Arc<Signal>,
    pub seen: Arc<Mutex<BTreeMap<SiteName, Seen>>>,
    pub counters: Counters,
    pub replies: Replies,
    /// What each garage told last, as the ledger has it.
    pub capacities: BTreeMap<SiteName, u32>,
}

impl Serving {
    /// Serves until the queue closes. On `Err` the disk failed: nobody was answered, and the process must end.
    pub fn serve_until_closed(mut self, mut waiting: mpsc::Receiver<Incoming>) -> Result<(), StoreError> {
        while let Some(first) = waiting.blocking_recv() {
            let mut peers = Vec::new();
            let mut requests = Vec::new();
            let mut bytes = 0;
            let mut incoming = Some(first);
            while let Some(Incoming { peer, body }) = incoming {
                bytes += body.len();
                self.counters.requests.inc();
                match Request::decode(&body) {
                    Ok(request) => {
                        peers.push(peer);
                        requests.push(request);
                    }
                    Err(error) => self.answer_nonsense(peer, &error),
                }
                incoming = (bytes < GATHER_BYTES).then(|| waiting.try_recv().ok()).flatten();
            }
            self.serve(peers, &requests)?;
        }
        Ok(())
    }

    fn serve(&mut self, peers: Vec<Peer>, requests: &[Request]) -> Result<(), StoreError> {
        let now_ms = now_ms();
        let answers = self.ledger.commit(requests, now_ms)?;
        self.counters.commits.inc();
        for (request, answer) in requests.iter().zip(&answers) {
            self.observe(request, answer, now_ms)?;
        }
        self.signal.grown_to(self.ledger.position());
        for ((peer, request), answer) in peers.into_iter().zip(requests).zip(answers) {
            let reply = Reply {
                id: request.id,
                ledger: self.ledger.id(),
                mark: answer.mark,
                verdict: answer.verdict,
                pause_ms: 0,
                answer: request.ask.as_ref().and_then(|ask| self.answer_question(ask)),
            };
            self.reply(peer, reply.encode());
        }
        Ok(())
    }

    fn answer_question(&self, ask: &Bytes) -> Option<Bytes> {
        let question = BoardQuestion::from_bytes(ask).ok()?;
        let view = self.view.read().expect("the fold does not panic while it holds the view");
        let answer = view.answer(self.ledger.id(), &question).to_bytes();
        // A reply must stay within its limit; a city of so many garages asks over HTTP.
        (answer.len() < wire::REPLY_MAX - 1024).then(|| Bytes::from(answer))
    }

    /// Keeps what was seen, and says what a person should know.
    fn observe(&mut self, request: &Request, answer: &Applied, now_ms: i64) -> Result<(), StoreError> {
        let site = &request.site;
        let observation = request.observation.as_ref();
        let observation = observation.and_then(|bytes| Observation::from_bytes(bytes).ok());
        let count = |counter: &Counter, n: u64| counter.inc_by(n);
        count(&self.counters.applied, answer.applied);
        count(&self.counters.duplicates, answer.duplicates);
        if answer.new_epoch {
            tracing::info!(garage = %site, epoch = %request.epoch, "a garage or epoch never seen before was accepted");
        }
        if answer.missing > 0 {
            tracing::error!(garage = %site, epoch = %request.epoch, missing = answer.missing, "events are missing for good and recorded as a hole; look at the garage's page, and at the backups of this server");
        }
        {
            let mut seen = self.seen.lock().expect("no thread panics while it holds what was seen");
            // A stranger who only asks leaves no trace, so that asking under many names fills nothing.
            if answer.mark > 0 || seen.contains_key(site) || observation.is_some() && seen.len() < 10_000 {
                let seen = seen.entry(site.clone()).or_default();
                seen.heard_at_ms = now_ms;
                seen.duplicates_refused += answer.duplicates;
                if observation.is_some() {
                    seen.observation.clone_from(&observation);
                }
                match &answer.verdict {
                    Verdict::Conflict { first } => {
                        seen.conflicts += 1;
                        if seen.in_conflict_at.replace(*first) != Some(*first) {
                            tracing::error!(garage = %site, epoch = %request.epoch, first, "another page stands where this one belongs; nothing was applied, and the garage's queue waits. Two edges may use one name, or a directory was restored");
                        }
                    }
                    Verdict::Refused { reason } => {
                        if seen.refused.as_ref() != Some(reason) {
                            tracing::error!(garage = %site, reason, "what a garage sends was refused; its queue waits");
                        }
                        seen.refused = Some(reason.clone());
                    }
                    Verdict::Accepted | Verdict::Gap => {
                        if !request.pages.is_empty() {
                            seen.in_conflict_at = None;
                            seen.refused = None;
                        }
                    }
                }
            }
        }
        match &answer.verdict {
            Verdict::Gap => count(&self.counters.gaps, 1),
            Verdict::Conflict { .. } => count(&self.counters.conflicts, 1),
            Verdict::Refused { .. } => count(&self.counters.refused, 1),
            Verdict::Accepted => 0,
        };
        if let Some(told) = observation
            && self.capacities.get(site) != Some(&told.capacity)
            && self.capacities.len() < 10_000
        {
            self.ledger.record_capacity(site, told.capacity, now_ms)?;
            self.capacities.insert(site.clone(), told.capacity);
        }
        Ok(())
    }

    fn answer_nonsense(&mut self, peer: Peer, error: &WireError) {
        self.counters.refused.inc();
        tracing::debug!(%error, "a request that is none of ours was refused");
        let body = match error {
            WireError::Version(_) => wire::versions_known(),
            _ => Reply {
                id: 0,
                ledger: self.ledger.id(),
                mark: 0,
                verdict: Verdict::Refused { reason: format!("this is no request: {error}") },
                pause_ms: 0,
                answer: None,
            }
            .encode(),
        };
        self.reply(peer, body);
    }

    fn reply(&mut self, peer: Peer, body: Vec<u8>) {
        if self.replies.reply(peer, body) == Replied::Dropped {
            self.counters.replies_dropped.inc();
        }
    }
}

/// Wall time: evidence, not truth.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
