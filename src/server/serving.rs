//! The thread that serves requests: decode, commit together, answer.

use super::commands::Order;
use super::folding::Signal;
use super::ledger::{Applied, Ledger};
use super::view::View;
use crate::daemon::clock::wall_ms;
use crate::messaging::wire::{self, Reply, Request, Verdict, WireError};
use crate::messaging::{Epoch, SiteName};
use crate::parking::{BoardQuestion, Observation};
use crate::store::StoreError;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use crate::transport::front::{Incoming, Peer, Replied, Replies};
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// A commit takes what waits, up to this many bytes, so that the first of them does not wait for long.
const GATHER_BYTES: usize = 2 * 1024 * 1024;
/// How long an edge is asked to send no events while the disk is full.
const PAUSE_WHEN_FULL_MS: u32 = 5_000;

/// What is merely seen of a site: no view, and forgotten at a restart.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub heard_at_ms: i64,
    pub observation: Option<Observation>,
    pub duplicates_refused: u64,
    pub conflicts: u64,
    /// The epoch and the first sequence of the page in conflict, while it is.
    pub in_conflict_at: Option<(Epoch, u64)>,
    pub refused: Option<String>,
    /// Its wall clock less ours, in milliseconds, when its last request came.
    pub clock_ahead_ms: Option<i64>,
    /// The processes that spoke under this name, the last one at the end.
    instances: VecDeque<u64>,
    /// When it was last seen that two of them speak by turns.
    two_at: Option<Instant>,
}

/// How many processes of a site are told apart.
const INSTANCES: usize = 4;
/// For how long two edges under one name are an alarm after they were last seen to speak by turns.
const TWO_EDGES_FOR: Duration = Duration::from_secs(60);
/// A clock that differs by more than this is an alarm. A request may wait in queues for a moment.
pub const SKEW_ALARM_MS: i64 = 5_000;

impl Seen {
    /// Whether two live edges speak under one name. One that was started anew never speaks under its old instance again.
    pub fn two_edges(&self) -> bool {
        self.two_at.is_some_and(|at| at.elapsed() < TWO_EDGES_FOR)
    }

    /// Returns whether it has just come out that there are two.
    fn spoke(&mut self, instance: u64) -> bool {
        if self.instances.back() == Some(&instance) {
            return false;
        }
        let known = self.instances.iter().position(|known| *known == instance);
        if let Some(place) = known {
            self.instances.remove(place);
        }
        self.instances.push_back(instance);
        if self.instances.len() > INSTANCES {
            self.instances.pop_front();
        }
        known.is_some() && {
            let news = !self.two_edges();
            self.two_at = Some(Instant::now());
            news
        }
    }

    fn watch_clock(&mut self, site: &SiteName, ahead_ms: i64) {
        let skewed = |ahead_ms: i64| ahead_ms.saturating_abs() > SKEW_ALARM_MS;
        let before = self.clock_ahead_ms.replace(ahead_ms).is_some_and(skewed);
        if skewed(ahead_ms) && !before {
            tracing::error!(garage = %site, ahead_seconds = ahead_ms / 1000, "the clocks of this garage and of this server differ; one of them is wrong. Events keep the garage's time, and beside it when they came here; nothing is lost. Check NTP on both");
        } else if !skewed(ahead_ms) && before {
            tracing::info!(garage = %site, "the clocks of this garage and of this server agree again");
        }
    }

    /// What a person at the garage should know.
    fn notice(&self) -> Option<String> {
        self.two_edges().then(|| {
            "another edge speaks under this garage's name at the same time. Both deliver what they confirmed, and the count is that of both together; give one of them a name and a data directory of its own".into()
        })
    }
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

/// What the serving thread does next.
enum Next {
    Request(Incoming),
    Order(Order),
    Closed,
}

/// Everything that the serving thread works with.
pub struct Serving {
    pub ledger: Ledger,
    pub view: Arc<RwLock<View>>,
    pub signal: Arc<Signal>,
    pub seen: Arc<Mutex<BTreeMap<SiteName, Seen>>>,
    pub counters: Counters,
    pub replies: Replies,
    /// What operators want to have recorded.
    pub orders: mpsc::Receiver<Order>,
    /// What each garage told last, as the ledger has it.
    pub capacities: BTreeMap<SiteName, u32>,
    pub room: DiskRoom,
    /// Whether the disk had no room when it was last asked for.
    pub short_of_room: bool,
}

impl Serving {
    /// Serves until the queue closes. On `Err` the disk failed: nobody was answered, and the process must end.
    pub fn serve_until_closed(
        mut self,
        mut waiting: mpsc::Receiver<Incoming>,
        runtime: &Handle,
    ) -> Result<(), StoreError> {
        loop {
            let next = runtime.block_on(async {
                tokio::select! {
                    Some(order) = self.orders.recv() => Next::Order(order),
                    first = waiting.recv() => first.map_or(Next::Closed, Next::Request),
                }
            });
            let first = match next {
                Next::Request(first) => first,
                Next::Order(order) => {
                    self.carry_out(order)?;
                    continue;
                }
                Next::Closed => return Ok(()),
            };
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
    }

    /// Records a command. Whoever gave it may have gone; it is done all the same.
    fn carry_out(&mut self, order: Order) -> Result<(), StoreError> {
        let recorded = self.ledger.record_order(&order.by, order.pieces, order.command, wall_ms());
        let told = recorded.as_ref().map(|position| *position).map_err(|error| {
            format!("{error}. Whether the command was recorded shows at the next start of the server: look, and if it was not, give it again")
        });
        if let Ok(position) = told {
            self.signal.grown_to(position);
        }
        let _ = order.recorded_at.send(told);
        recorded.map(drop)
    }

    fn serve(&mut self, peers: Vec<Peer>, requests: &[Request]) -> Result<(), StoreError> {
        let now_ms = wall_ms();
        self.look_for_room(requests);
        let answers = match self.short_of_room {
            true => self.refuse_events(requests, now_ms)?,
            false => self.ledger.commit(requests, now_ms)?,
        };
        self.counters.commits.inc();
        let mut notices = Vec::with_capacity(requests.len());
        for (request, answer) in requests.iter().zip(&answers) {
            notices.push(self.observe(request, answer, now_ms)?);
        }
        self.signal.grown_to(self.ledger.position());
        for (((peer, request), answer), notice) in peers.into_iter().zip(requests).zip(answers).zip(notices) {
            let reply = Reply {
                id: request.id,
                ledger: self.ledger.id(),
                mark: answer.mark,
                verdict: answer.verdict,
                pause_ms: if self.short_of_room { PAUSE_WHEN_FULL_MS } else { 0 },
                clock_ms: wall_ms(),
                notice,
                answer: request.ask.as_ref().and_then(|ask| self.answer_question(&request.site, ask)),
            };
            self.reply(peer, reply.encode());
        }
        Ok(())
    }

    fn look_for_room(&mut self, requests: &[Request]) {
        let pages = requests.iter().flat_map(|request| &request.pages);
        let bytes: u64 = pages.map(|page| page.bytes.len() as u64).sum();
        match (self.room.check(bytes * WRITTEN_FOR_VALUES), self.short_of_room) {
            (Err(what), false) => {
                tracing::error!(
                    "{what}; edges keep their events until there is room. Make some on the disk; nothing else is to be done"
                );
                self.short_of_room = true;
            }
            (Ok(()), true) => {
                tracing::info!("the disk has room again; events are taken");
                self.short_of_room = false;
            }
            _ => {}
        }
    }

    /// Answers everything but events, and writes nothing. A mark is the true one: what an edge deletes depends on it.
    fn refuse_events(&self, requests: &[Request], now_ms: i64) -> Result<Vec<Applied>, StoreError> {
        let without: Vec<Request> =
            requests.iter().map(|request| Request { pages: Vec::new(), ..request.clone() }).collect();
        let mut answers = self.ledger.commit(&without, now_ms)?;
        for (request, answer) in requests.iter().zip(&mut answers) {
            if !request.pages.is_empty() && answer.verdict == Verdict::Accepted {
                let reason = "the server's disk is full; it takes events again by itself when there is room";
                answer.verdict = Verdict::Refused { reason: reason.into() };
            }
        }
        Ok(answers)
    }

    fn answer_question(&self, asker: &SiteName, ask: &Bytes) -> Option<Bytes> {
        let question = BoardQuestion::from_bytes(ask).ok()?;
        let view = self.view.read().expect("the fold does not panic while it holds the view");
        let answer = view.answer(self.ledger.id(), asker, &question).to_bytes();
        // A reply must stay within its limit; a city of so many garages asks over HTTP.
        (answer.len() < wire::REPLY_MAX - 1024).then(|| Bytes::from(answer))
    }

    /// Keeps what was seen, and says what a person should know; returns what one at the garage should.
    fn observe(
        &mut self,
        request: &Request,
        answer: &Applied,
        now_ms: i64,
    ) -> Result<Option<String>, StoreError> {
        if answer.verdict == Verdict::OtherLedger {
            tracing::warn!(garage = %request.site, wanted = ?request.ledger.map(|ledger| ledger.to_string()), "a garage that delivers to another ledger knocked; nothing was taken from it. Was its address set wrong, or this server's directory replaced?");
            return Ok(None);
        }
        let mut notice = None;
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
                if seen.spoke(request.instance) {
                    tracing::error!(garage = %site, "two edges speak under this name at the same time; both are served, and what they deliver adds up. Was a data directory copied? Give one of them a name of its own");
                }
                notice = seen.notice();
                seen.watch_clock(site, request.clock_ms.saturating_sub(now_ms));
                seen.duplicates_refused += answer.duplicates;
                if observation.is_some() {
                    seen.observation.clone_from(&observation);
                }
                match &answer.verdict {
                    Verdict::Conflict { first } => {
                        seen.conflicts += 1;
                        let place = (request.epoch, *first);
                        if seen.in_conflict_at.replace(place) != Some(place) {
                            tracing::error!(garage = %site, epoch = %request.epoch, first, "another page stands where this one belongs; nothing was applied, and the garage's queue waits. Two edges may use one name, or a directory was restored. When both sides are to count: server garages adopt {:?}", site.as_str());
                        }
                    }
                    Verdict::Refused { reason } => {
                        if seen.refused.as_ref() != Some(reason) {
                            tracing::error!(garage = %site, reason, "what a garage sends was refused; its queue waits");
                        }
                        seen.refused = Some(reason.clone());
                    }
                    Verdict::Move { .. } => {
                        tracing::warn!(garage = %site, epoch = %request.epoch, "a conflict was decided: the garage was told to move what it had not delivered to a new epoch");
                        seen.in_conflict_at = None;
                    }
                    Verdict::OtherLedger => {}
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
            Verdict::Conflict { .. } | Verdict::Move { .. } => count(&self.counters.conflicts, 1),
            Verdict::Refused { .. } => count(&self.counters.refused, 1),
            Verdict::Accepted | Verdict::OtherLedger => 0,
        };
        if let Some(told) = observation
            && self.capacities.get(site) != Some(&told.capacity)
            && (self.capacities.contains_key(site) || self.capacities.len() < 10_000)
            && !self.short_of_room
            // Two edges that tell two capacities by turns must not fill the ledger with them.
            && notice.is_none()
        {
            self.ledger.record_capacity(site, told.capacity, now_ms)?;
            self.capacities.insert(site.clone(), told.capacity);
        }
        Ok(notice)
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
                clock_ms: wall_ms(),
                notice: None,
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
