//! The thread that serves requests: it decodes them, commits them together, and answers.

use super::applying::LiveViews;
use super::boards::Boards;
use super::capacities::Capacities;
use super::commands::{PendingCommand, fits_on, not_recorded};
use super::ledger::{Applied, Ledger};
use super::seen::UnknownSites;
pub use super::seen::{SKEW_ALARM_MS, Seen};
use crate::codes;
use crate::daemon::clock::wall_ms;
use crate::http::metrics::Metrics;
use crate::messaging::SiteName;
use crate::messaging::wire::{self, Reply, Request, Verdict, WireError};
use crate::parking::Observation;
use crate::store::StoreError;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use crate::transport::gateway::{Incoming, Peer};
use prometheus_client::metrics::counter::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// A commit takes what waits, up to this many bytes, so that the first of them does not wait for long.
const GATHER_BYTES: usize = 2 * 1024 * 1024;
/// The pause that an edge is asked for while the disk is full.
const PAUSE_WHEN_FULL_MS: u32 = 5_000;

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

enum Next {
    Request(Incoming),
    Command(PendingCommand),
    /// A capacity that was reported some time ago is to be recorded.
    Capacities,
    Closed,
}

fn observation_of(request: &Request) -> Option<Observation> {
    Observation::from_bytes(request.observation.as_ref()?).ok()
}

/// Resolves at a moment, or never.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

pub struct Serving {
    pub ledger: Ledger,
    pub boards: Boards,
    pub live: Arc<LiveViews>,
    pub seen: Arc<Mutex<BTreeMap<SiteName, Seen>>>,
    pub counters: Counters,
    pub orders: mpsc::Receiver<PendingCommand>,
    pub capacities: Capacities,
    pub unknown_sites: UnknownSites,
    pub not_certified: NotCertified,
    pub room: DiskRoom,
    /// The disk had no room at the last check.
    pub short_of_room: bool,
}

impl Serving {
    /// Serves until the queue closes. On `Err` the disk failed: no request of the group was answered, and the process must end.
    pub fn serve_until_closed(
        mut self,
        mut waiting: mpsc::Receiver<Incoming>,
        runtime: &Handle,
    ) -> Result<(), StoreError> {
        loop {
            let may_record = !self.short_of_room;
            let capacities_due = may_record.then(|| self.capacities.next_due(Instant::now())).flatten();
            let next = runtime.block_on(async {
                tokio::select! {
                    Some(order) = self.orders.recv() => Next::Command(order),
                    () = until(capacities_due) => Next::Capacities,
                    first = waiting.recv() => first.map_or(Next::Closed, Next::Request),
                }
            });
            match next {
                Next::Request(first) => {
                    let (peers, requests) = self.gather(first, &mut waiting)?;
                    self.serve(peers, &requests)?;
                }
                Next::Command(order) => self.carry_out(order)?,
                Next::Capacities => {
                    self.look_for_room(&[]);
                    if !self.short_of_room {
                        self.commit(&[], wall_ms())?;
                        self.live.grown_to(self.ledger.position());
                    }
                }
                Next::Closed => return Ok(()),
            }
        }
    }

    /// Decodes the requests that wait, up to [`GATHER_BYTES`]. What is not a request is answered at once.
    fn gather(
        &mut self,
        first: Incoming,
        waiting: &mut mpsc::Receiver<Incoming>,
    ) -> Result<(Vec<Peer>, Vec<Request>), StoreError> {
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        let mut incoming = Some(first);
        while let Some(Incoming { peer, body }) = incoming {
            bytes += body.len();
            self.counters.requests.inc();
            match Request::decode(&body) {
                Ok(request) if peer.may_speak_for(&request.site) => {
                    peer.note_valid_request();
                    gathered.push((peer, request));
                }
                Ok(request) => self.refuse_for_another(peer, request)?,
                Err(error) => self.answer_nonsense(peer, &error),
            }
            incoming = (bytes < GATHER_BYTES).then(|| waiting.try_recv().ok()).flatten();
        }
        Ok(gathered.into_iter().unzip())
    }

    /// Answers a request for a garage that the certificate of its peer does not name. Nothing of it is taken or remembered, so that the
    /// garage itself is not disturbed. The mark is the true one: what an edge deletes depends on it.
    fn refuse_for_another(&mut self, peer: Peer, request: Request) -> Result<(), StoreError> {
        self.counters.not_certified.inc();
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
        let id = request.id;
        let answers = self.ledger.commit(&[Request { pages: Vec::new(), ..request }], wall_ms())?;
        let mark = answers.first().map_or(0, |answer| answer.mark);
        self.send(peer, self.reply_to(id, mark, Verdict::Refused { reason }).encode());
        Ok(())
    }

    /// Records a command. The caller may have disconnected; the command is recorded anyway. What the disk has no room for is
    /// refused, as events are.
    fn carry_out(&mut self, order: PendingCommand) -> Result<(), StoreError> {
        if let Err(refusal) = fits_on(&self.room, &order.commands) {
            let _ = order.recorded_at.send(Err(refusal));
            return Ok(());
        }
        let recorded = self.ledger.record_all(&order.by, order.commands, wall_ms());
        self.live.grown_to(self.ledger.position());
        let _ = order.recorded_at.send(recorded.as_ref().map(|position| *position).map_err(not_recorded));
        match recorded {
            // The store took nothing and is as well as before.
            Ok(_) | Err(StoreError::ValueTooLong { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn serve(&mut self, peers: Vec<Peer>, requests: &[Request]) -> Result<(), StoreError> {
        let now_ms = wall_ms();
        self.look_for_room(requests);
        let answers = match self.short_of_room {
            true => self.refuse_events(requests, now_ms)?,
            false => self.commit(requests, now_ms)?,
        };
        self.counters.commits.inc();
        let answered = requests.iter().zip(&answers);
        let notices: Vec<_> =
            answered.map(|(request, answer)| self.observe(request, answer, now_ms)).collect();
        self.live.grown_to(self.ledger.position());
        // A group of duplicates is acknowledged without a flush, which would have asked this.
        self.ledger.store().check_in_place()?;
        for (((peer, request), answer), notice) in peers.into_iter().zip(requests).zip(answers).zip(notices) {
            // A question must not delay the next events forever: an edge learns from their refusal why they wait.
            let must_pause = self.short_of_room && !request.pages.is_empty();
            let pause_ms = if must_pause { PAUSE_WHEN_FULL_MS } else { 0 };
            let board = request.ask.as_ref().and_then(|ask| self.boards.answer(&request.site, ask));
            let reply = self.reply_to(request.id, answer.mark, answer.verdict);
            self.send(peer, Reply { pause_ms, notice, answer: board, ..reply }.encode());
        }
        Ok(())
    }

    /// Applies the requests' pages, and records the capacities that are due.
    fn commit(&mut self, requests: &[Request], now_ms: i64) -> Result<Vec<Applied>, StoreError> {
        let now = Instant::now();
        let (capacities, seen) = (&mut self.capacities, &self.seen);
        let due = |answers: &[Applied]| {
            let seen = seen.lock().expect("no thread panics while it holds what was seen");
            for (request, answer) in requests.iter().zip(answers) {
                let site = &request.site;
                if answer.verdict == Verdict::OtherLedger || answer.mark == 0 && !capacities.knows(site) {
                    continue;
                }
                let seen = seen.get(site);
                let before = || seen.and_then(|seen| seen.observation.clone());
                match observation_of(request).or_else(before) {
                    _ if seen.is_some_and(Seen::two_edges) => capacities.is_in_doubt(site),
                    Some(observation) => capacities.told(site, observation.capacity),
                    None => {}
                }
            }
            capacities.due(now)
        };
        let (answers, recorded) = self.ledger.commit_with_capacities(requests, now_ms, due)?;
        self.capacities.are_recorded(recorded, now);
        Ok(answers)
    }

    fn look_for_room(&mut self, requests: &[Request]) {
        let pages = requests.iter().flat_map(|request| &request.pages);
        let bytes: u64 = pages.map(|page| page.bytes.len() as u64).sum();
        let room = self.room.check(bytes * WRITTEN_FOR_VALUES);
        let was_short = std::mem::replace(&mut self.short_of_room, room.is_err());
        match room {
            Err(reason) if !was_short => tracing::error!(
                code = %codes::DISK_FULL,
                reason,
                hint = "make room on the disk; the server then continues by itself",
                "the disk is full; edges keep their events until there is room"
            ),
            Ok(()) if was_short => tracing::info!("the disk has room again; events are taken"),
            _ => {}
        }
    }

    /// Answers everything but events, and writes nothing. A mark is the true one: what an edge deletes depends on it.
    fn refuse_events(&self, requests: &[Request], now_ms: i64) -> Result<Vec<Applied>, StoreError> {
        let without = |request: &Request| Request { pages: Vec::new(), ..request.clone() };
        let without: Vec<Request> = requests.iter().map(without).collect();
        let mut answers = self.ledger.commit(&without, now_ms)?;
        for (request, answer) in requests.iter().zip(&mut answers) {
            if !request.pages.is_empty() && answer.verdict == Verdict::Accepted {
                let reason = "the server's disk is full; it takes events again by itself when there is room";
                answer.verdict = Verdict::Refused { reason: reason.into() };
            }
        }
        Ok(answers)
    }

    /// Counts, logs and remembers what a request brought. Returns what the person at the garage should know.
    fn observe(&mut self, request: &Request, answer: &Applied, now_ms: i64) -> Option<String> {
        let site = &request.site;
        let span = tracing::info_span!("request", garage = %site, epoch = %request.epoch, id = request.id);
        let _entered = span.enter();
        tracing::debug!(
            pages = request.pages.len(),
            oldest = request.oldest,
            mark = answer.mark,
            verdict = ?answer.verdict,
            "serving: a request was judged"
        );
        if answer.verdict == Verdict::OtherLedger {
            tracing::warn!(
                code = %codes::GARAGE_OF_OTHER_LEDGER,
                wanted = request.ledger.map(|ledger| ledger.to_string()),
                hint = "check the server address of the edge, and whether the data directory of this server was replaced",
                "a garage that delivers to another ledger reached this server; nothing was taken from it"
            );
            return None;
        }
        self.count(answer);
        if answer.new_epoch {
            tracing::info!("a garage or epoch never seen before was accepted");
        }
        if answer.missing > 0 {
            tracing::error!(
                code = %codes::EVENTS_MISSING,
                missing = answer.missing,
                hint = "look at missing_ranges of the garage, and whether a backup of this server has the events",
                "events are missing for good and recorded as a missing range"
            );
        }
        let observation = observation_of(request);
        let mut seen = self.seen.lock().expect("no thread panics while it holds what was seen");
        // A site that only asks leaves no trace; of those that report something without ever delivering the last ones are
        // remembered, so that requests under many names fill nothing.
        if answer.mark > 0 || self.capacities.knows(site) {
            self.unknown_sites.forget(site);
        } else if observation.is_some() {
            if let Some(silent) = self.unknown_sites.heard(site) {
                seen.remove(&silent);
            }
        } else if !seen.contains_key(site) {
            return None;
        }
        let seen = seen.entry(site.clone()).or_default();
        seen.heard_at_ms = now_ms;
        let now = Instant::now();
        if seen.request_came(request.instance, now) {
            tracing::error!(
                code = %codes::TWO_EDGES,
                hint = "was a data directory copied? Give one of them a name of its own",
                "two edges use this name at the same time; both are served, and their events add up"
            );
        }
        seen.watch_clock(request.clock_ms.saturating_sub(now_ms), now);
        seen.duplicates_refused = seen.duplicates_refused.saturating_add(answer.duplicates);
        if observation.is_some() {
            seen.observation = observation;
        }
        remember_verdict(seen, request, &answer.verdict);
        seen.notice()
    }

    fn count(&self, answer: &Applied) {
        self.counters.applied.inc_by(answer.applied);
        self.counters.duplicates.inc_by(answer.duplicates);
        match &answer.verdict {
            Verdict::Gap => self.counters.gaps.inc(),
            Verdict::Conflict { .. } | Verdict::Move { .. } => self.counters.conflicts.inc(),
            Verdict::Refused { .. } => self.counters.refused.inc(),
            Verdict::Accepted | Verdict::OtherLedger => 0,
        };
    }

    fn answer_nonsense(&self, peer: Peer, error: &WireError) {
        self.counters.refused.inc();
        tracing::debug!(%error, "serving: refused an invalid request");
        let reason = format!("not a valid request: {error}");
        let body = match error {
            WireError::Version(_) => wire::versions_known(),
            _ => self.reply_to(0, 0, Verdict::Refused { reason }).encode(),
        };
        self.send(peer, body);
    }

    fn reply_to(&self, id: u64, mark: u64, verdict: Verdict) -> Reply {
        let (ledger, clock_ms) = (self.ledger.id(), wall_ms());
        Reply { id, ledger, mark, verdict, pause_ms: 0, clock_ms, notice: None, answer: None }
    }

    fn send(&self, peer: Peer, body: Vec<u8>) {
        if !peer.reply(body) {
            self.counters.replies_dropped.inc();
        }
    }
}

/// When it was last logged that a certificate was shown for a garage that it does not name, by the garages that it names.
#[derive(Debug, Default)]
pub struct NotCertified(BTreeMap<String, Instant>);

impl NotCertified {
    const LOG_EVERY: Duration = Duration::from_secs(600);

    fn is_due(&mut self, certified: &str, now: Instant) -> bool {
        let last = self.0.get(certified);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(*last) >= NotCertified::LOG_EVERY);
        if is_due {
            self.0.insert(certified.to_owned(), now);
        }
        is_due
    }
}

/// Remembers why a site's queue waits, and logs it when that is new.
fn remember_verdict(seen: &mut Seen, request: &Request, verdict: &Verdict) {
    match verdict {
        Verdict::Conflict { first } => {
            seen.conflicts += 1;
            let place = (request.epoch, *first);
            if seen.in_conflict_at.replace(place) != Some(place) {
                tracing::error!(
                    code = %codes::CONFLICT,
                    first,
                    hint = %format_args!("two edges may use one name, or an old copy of a data directory was restored. If the events of both sides are to count: server garages adopt {:?}", request.site.as_str()),
                    "the ledger has another page at this sequence; nothing was applied, and the garage's queue waits"
                );
            }
        }
        Verdict::Refused { reason } => {
            if seen.refused.replace(reason.clone()).as_ref() != Some(reason) {
                tracing::error!(
                    code = %codes::REFUSED_BY_SERVER,
                    reason,
                    hint = "follow the reason; nothing is deleted", "the events of a garage were refused; its queue waits"
                );
            }
        }
        Verdict::Move { .. } => {
            tracing::warn!(
                code = %codes::CONFLICT_DECIDED,
                "a conflict was decided: the garage moves what it has not delivered to a new epoch"
            );
            seen.in_conflict_at = None;
        }
        Verdict::Accepted | Verdict::Gap if !request.pages.is_empty() => {
            seen.in_conflict_at = None;
            seen.refused = None;
        }
        Verdict::Accepted | Verdict::Gap | Verdict::OtherLedger => {}
    }
}
