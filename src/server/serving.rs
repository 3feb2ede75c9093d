//! The thread that serves requests: it commits those that wait together, and answers.

use super::admission::{Group, WaitingRequests};
use super::applying::LiveViews;
use super::boards::Boards;
use super::capacities::Capacities;
use super::commands::{PendingCommand, fits_on, not_recorded};
use super::ledger::{Applied, Ledger};
use super::replying::Replying;
use super::seen::UnknownSites;
pub use super::seen::{SKEW_ALARM_MS, Seen};
use crate::codes;
use crate::daemon::clock::wall_ms;
use crate::messaging::SiteName;
use crate::messaging::wire::{Reply, Request, Verdict};
use crate::parking::Observation;
use crate::store::StoreError;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use crate::transport::gateway::Peer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// A commit takes what waits, up to this many bytes, so that the first of them does not wait for long.
const GATHER_BYTES: usize = 2 * 1024 * 1024;
/// The pause that an edge is asked for while the disk is full.
const PAUSE_WHEN_FULL_MS: u32 = 5_000;

enum Next {
    Requests,
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
    pub replying: Replying,
    pub orders: mpsc::Receiver<PendingCommand>,
    pub capacities: Capacities,
    pub unknown_sites: UnknownSites,
    pub room: DiskRoom,
    /// The disk had no room at the last check.
    pub short_of_room: bool,
}

impl Serving {
    /// Serves until no more requests come. On `Err` the disk failed: no request of the group was answered, and the process must end.
    pub fn serve_until_closed(
        mut self,
        waiting: &WaitingRequests,
        runtime: &Handle,
    ) -> Result<(), StoreError> {
        loop {
            let may_record = !self.short_of_room;
            let capacities_due = may_record.then(|| self.capacities.next_due(Instant::now())).flatten();
            let next = runtime.block_on(async {
                tokio::select! {
                    Some(order) = self.orders.recv() => Next::Command(order),
                    () = until(capacities_due) => Next::Capacities,
                    some_wait = waiting.wait() => if some_wait { Next::Requests } else { Next::Closed },
                }
            });
            match next {
                Next::Requests => {
                    let Group { peers, requests, bytes } = waiting.take(GATHER_BYTES);
                    let began = Instant::now();
                    self.serve(peers, &requests)?;
                    waiting.served(requests.len(), bytes, began.elapsed());
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
        self.replying.counters.commits.inc();
        let answered = requests.iter().zip(&answers);
        let notices: Vec<_> =
            answered.map(|(request, answer)| self.observe(request, answer, now_ms)).collect();
        self.live.grown_to(self.ledger.position());
        // A group of duplicates is acknowledged without a flush, which would have asked this.
        self.ledger.store().check_in_place()?;
        for (((peer, request), answer), notice) in peers.into_iter().zip(requests).zip(answers).zip(notices) {
            // A question must not delay the next events forever: an edge learns from their refusal why they wait.
            let must_pause = self.short_of_room && matches!(answer.verdict, Verdict::Refused { .. });
            let pause_ms = if must_pause { PAUSE_WHEN_FULL_MS } else { 0 };
            let board = request.ask.as_ref().and_then(|ask| self.boards.answer(&request.site, ask));
            let reply = self.replying.reply_to(request.id, answer.mark, answer.verdict);
            self.replying.send(peer, Reply { pause_ms, notice, answer: board, ..reply }.encode());
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
        let now = Instant::now();
        (seen.heard_at_ms, seen.heard) = (now_ms, Some(now));
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
        self.replying.counters.applied.inc_by(answer.applied);
        self.replying.counters.duplicates.inc_by(answer.duplicates);
        match &answer.verdict {
            Verdict::Gap => self.replying.counters.gaps.inc(),
            Verdict::Conflict { .. } | Verdict::Move { .. } => self.replying.counters.conflicts.inc(),
            Verdict::Refused { .. } => self.replying.counters.refused.inc(),
            Verdict::Accepted | Verdict::OtherLedger => 0,
        };
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
