//! The thread that serves requests: decode, commit together, answer.

use super::boards::Boards;
use super::commands::Order;
use super::folding::Signal;
use super::ledger::{Applied, Ledger};
use crate::daemon::clock::{SKEW_ALARM, wall_ms};
use crate::messaging::wire::{self, Reply, Request, Verdict, WireError};
use crate::messaging::{Epoch, SiteName};
use crate::parking::Observation;
use crate::store::StoreError;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use crate::transport::front::{Incoming, Peer, Replied, Replies};
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
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
    /// Its wall clock less ours, in milliseconds, when its last request came that was not in doubt.
    pub clock_ahead_ms: Option<i64>,
    /// Since when each request said that its clock is behind, and how many did.
    behind: Option<(Instant, u32)>,
    /// The processes that spoke under this name, in the order in which they were first heard.
    instances: Vec<Spoke>,
    /// How many requests came.
    words: u64,
    /// When it was last seen that two of them speak by turns.
    two_at: Option<Instant>,
}

/// A process of a site.
#[derive(Debug, Clone)]
struct Spoke {
    instance: u64,
    /// The last of its requests, counted among all of the site.
    word: u64,
    /// Since when, and when last, it spoke again after a younger one had.
    back: Option<(Instant, Instant)>,
}

/// How many processes of a site are told apart.
const INSTANCES: usize = 4;
/// For how long two edges under one name are an alarm after they were last seen to speak by turns.
const TWO_EDGES_FOR: Duration = Duration::from_secs(60);
/// For how long an older process must come back after younger ones. What a killed one had sent may arrive late, but at once.
const BY_TURNS_FOR: Duration = Duration::from_secs(5);
/// A clock that differs by more than this is an alarm.
pub const SKEW_ALARM_MS: i64 = SKEW_ALARM.as_millis() as i64;
/// For how long, and in how many requests, a clock must seem to be behind. A request that waited somewhere looks so, and others
/// with it; none can look as if the clock were ahead.
const BEHIND_FOR: Duration = Duration::from_secs(3);
const BEHIND_TIMES: u32 = 3;

impl Seen {
    /// Whether two live edges speak under one name.
    pub fn two_edges(&self) -> bool {
        self.two_at.is_some_and(|at| at.elapsed() < TWO_EDGES_FOR)
    }

    /// Returns whether it has just come out that there are two.
    ///
    /// A process that was started in the place of another speaks as the younger one from then on. Only two live ones both go on:
    /// the older one comes back after the younger, and that again and again.
    fn spoke(&mut self, instance: u64, now: Instant) -> bool {
        self.words += 1;
        let word = self.words;
        let Some(place) = self.instances.iter().position(|known| known.instance == instance) else {
            if self.instances.len() == INSTANCES {
                let (silent, _) = self
                    .instances
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, its)| its.word)
                    .expect("there are some");
                self.instances.remove(silent);
            }
            self.instances.push(Spoke { instance, word, back: None });
            return false;
        };
        let (older, younger) = self.instances.split_at_mut(place + 1);
        let its = older.last_mut().expect("it is among them");
        let came_back = younger.iter().any(|younger| younger.word > its.word);
        its.word = word;
        if !came_back {
            return false;
        }
        let since = match its.back {
            Some((since, last)) if now.saturating_duration_since(last) < TWO_EDGES_FOR => since,
            _ => now,
        };
        its.back = Some((since, now));
        now.saturating_duration_since(since) >= BY_TURNS_FOR && {
            let news = !self.two_edges();
            self.two_at = Some(now);
            news
        }
    }

    fn watch_clock(&mut self, site: &SiteName, ahead_ms: i64, now: Instant) {
        if ahead_ms < -SKEW_ALARM_MS {
            let (since, times) = self.behind.get_or_insert((now, 0));
            *times = times.saturating_add(1);
            if *times < BEHIND_TIMES || now.saturating_duration_since(*since) < BEHIND_FOR {
                return;
            }
        } else {
            self.behind = None;
        }
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
    pub boards: Boards,
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
        // A group of duplicates is acknowledged without a flush, which would have asked this.
        self.ledger.store().check_in_place()?;
        for (((peer, request), answer), notice) in peers.into_iter().zip(requests).zip(answers).zip(notices) {
            let reply = Reply {
                id: request.id,
                ledger: self.ledger.id(),
                mark: answer.mark,
                verdict: answer.verdict,
                pause_ms: if self.short_of_room { PAUSE_WHEN_FULL_MS } else { 0 },
                clock_ms: wall_ms(),
                notice,
                answer: request.ask.as_ref().and_then(|ask| self.boards.answer(&request.site, ask)),
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
                let now = Instant::now();
                if seen.spoke(request.instance, now) {
                    tracing::error!(garage = %site, "two edges speak under this name at the same time; both are served, and what they deliver adds up. Was a data directory copied? Give one of them a name of its own");
                }
                notice = seen.notice();
                seen.watch_clock(site, request.clock_ms.saturating_sub(now_ms), now);
                seen.duplicates_refused = seen.duplicates_refused.saturating_add(answer.duplicates);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Who speaks at which millisecond; what came out, and when.
    fn two_edges_at(words: &[(u64, u64)]) -> Option<u64> {
        let began = Instant::now();
        let mut seen = Seen::default();
        words
            .iter()
            .find(|(at, instance)| seen.spoke(*instance, began + Duration::from_millis(*at)))
            .map(|(at, _)| *at)
    }

    #[test]
    fn two_live_edges_are_seen_within_seconds() {
        let by_turns: Vec<_> = (0..100).map(|n| (n * 500, n % 2)).collect();
        assert_eq!(two_edges_at(&by_turns), Some(6000));
        // One that was there all the while, and one that asks once in a while.
        let rarely: Vec<_> = (0..100).map(|n| (n * 1000, u64::from(n % 30 == 7))).collect();
        assert_eq!(two_edges_at(&rarely), Some(38_000));
    }

    /// A killed edge's last requests were stalled on their way, and came after the new process had spoken. For a minute they were
    /// taken for a second edge, and a new capacity was not recorded.
    #[test]
    fn late_requests_of_killed_processes_are_no_second_edge() {
        let mut words = vec![(0, 1)];
        for killed in 1..30 {
            let at = killed * 10_000;
            words.extend([(at, killed + 1), (at + 400, killed + 1)]);
            // Four were in flight; they come between those of the new one.
            words.extend((0..4).flat_map(|n| [(at + 500 + n, killed), (at + 500 + n, killed + 1)]));
            words.extend((1..9).map(|second| (at + second * 1000, killed + 1)));
        }
        assert_eq!(two_edges_at(&words), None);
        // The server was started anew and heard the new process first.
        let later = (0..100).map(|n| (n * 1000, 2));
        assert_eq!(
            two_edges_at(&[&[(0, 2), (1, 1), (2, 2), (3, 1)][..], &later.collect::<Vec<_>>()].concat()),
            None
        );
    }

    /// What the clock of a site is said to be after requests that came at these milliseconds and looked so far ahead.
    fn ahead_after(requests: &[(u64, i64)]) -> Option<i64> {
        let (began, site) = (Instant::now(), SiteName::new("a").unwrap());
        let mut seen = Seen::default();
        for (at, ahead_ms) in requests {
            seen.watch_clock(&site, *ahead_ms, began + Duration::from_millis(*at));
        }
        seen.clock_ahead_ms
    }

    /// A request that was held up for 20 s looked like a clock that is 20 s behind, and made an ERROR.
    #[test]
    fn requests_that_come_late_are_no_clock_that_is_behind() {
        let held_up: Vec<_> = (0..8).map(|n| (30_000 + n, -20_000)).collect();
        let requests = [&[(0, -10)][..], &held_up, &[(30_100, -12)], &held_up].concat();
        for seen in 1..=requests.len() {
            assert!(ahead_after(&requests[..seen]).is_some_and(|ahead_ms| ahead_ms >= -12), "after {seen}");
        }
    }

    #[test]
    fn a_clock_that_is_behind_is_known_after_seconds_and_one_that_is_ahead_at_once() {
        let behind = |seconds: u64| (0..=seconds).map(|n| (n * 1000, -600_000)).collect::<Vec<_>>();
        assert_eq!((ahead_after(&behind(2)), ahead_after(&behind(3))), (None, Some(-600_000)));
        assert_eq!(ahead_after(&[(0, 600_000)]), Some(600_000));
        assert_eq!(ahead_after(&[&behind(5)[..], &[(6000, 3)]].concat()), Some(3));
    }
}
