//! What the garage shows: the last board from the server with its age, and the garage's own count, which includes the events
//! that are not delivered yet.
//!
//! **Promise.** The own count is that of the server's ledger after every event that this edge confirmed, as long as it
//! knows where the server's count stands.
//! **Kept by.** The board says up to which of our events it counts; we add the effect of the later ones.
//! **Not promised.** That board and count survive a `kill -9` to the second: they are written every second. A count that may
//! lack something is not shown until the server answers.

use crate::messaging::page::Content;
use crate::messaging::{Digest, Epoch, SiteName, page::SealedPage};
use crate::parking::board::earlier::EarlierBoard;
use crate::parking::board::{
    BoardLine, BoardPart, Extensible, GarageFacts, GatheredBoard, Gathering, OwnLine,
};
use crate::parking::garage::{GarageSays, Openness, ShownState, is_full, shown_state};
use crate::parking::occupancy::{CountEffect, free_spaces};
use crate::parking::{Board, BoardQuestion, Event};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Maximum number of runs of events. Beyond it neighbours are joined, and the own count comes from the server a little later.
const RUNS_MAX: usize = 4096;

/// The form of what is written to disk: this version, a digest of it and of the rest, and [`Saved`] as postcard.
const SAVED_VERSION: u8 = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    board: Option<(Board, i64)>,
    /// The epoch, one of its sequences, and our count after that event.
    own: Option<([u8; 16], u64, i64)>,
    /// What we said last, up to that event, of whether the garage is open.
    says: Option<GarageSays>,
}

/// Version 2, which knew no states.
#[derive(Deserialize)]
struct SavedWithoutStates {
    board: Option<(EarlierBoard, i64)>,
    own: Option<([u8; 16], u64, i64)>,
}

/// The place after an event: its epoch, by the order in which epochs are delivered, and its sequence. Places are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct EventPlace {
    epoch: usize,
    sequence: u64,
}

/// Events of one epoch that are counted together.
#[derive(Debug, Clone, Copy)]
struct EventRun {
    last: EventPlace,
    events: u64,
    effect: CountEffect,
}

#[derive(Debug, Default)]
pub struct Display {
    own: String,
    /// The epochs that this outbox holds or held, in the order in which they are delivered.
    epochs: Vec<[u8; 16]>,
    board: GatheredBoard,
    /// When the whole shown board arrived, or was last known to be still correct.
    received_at: Option<(Instant, i64)>,
    /// Our count after our event `base.1`, from the server; `None` when the server never gave one.
    base: (Option<i64>, EventPlace),
    /// What the events up to there say of whether the garage is open.
    base_says: Option<GarageSays>,
    /// Our events after `base.1`, in order.
    runs: VecDeque<EventRun>,
    /// The effect of all of them.
    pending: CountEffect,
    capacity: u32,
    is_full: bool,
    /// How often something that is shown changed.
    revision: u64,
    /// Up to where each epoch was counted from disk. [`Display::appended`] is called for these events too, when their producers are
    /// answered.
    found: BTreeMap<[u8; 16], u64>,
    /// Epochs whose events were moved: they were found under another one.
    moved: BTreeSet<[u8; 16]>,
    /// What was appended while another display is made from the disk, to take the place of this one.
    since: Option<Vec<(Epoch, u64, u64, CountEffect)>>,
    /// Events up to here wait on the disk and are in no run: the own count is not known before they are counted, or the
    /// server has counted them.
    uncounted_through: Option<EventPlace>,
    own_line: Option<BoardLine>,
    /// What a server said of this garage beside its count; `None`: none has answered.
    own_facts: Option<GarageFacts>,
}

impl Display {
    /// `epochs` are those of the outbox, oldest first, each with the oldest sequence still stored.
    ///
    /// The count is unknown until the server reports it, staff counts, or a count saved by an earlier process is restored
    /// ([`Display::restore`]): a directory without a history may belong to a new garage, or replace one that was lost.
    pub fn new(own: &SiteName, epochs: &[(Epoch, u64)]) -> Display {
        let oldest = epochs.first().map_or(1, |(_, oldest)| *oldest);
        Display {
            own: own.to_string(),
            epochs: epochs.iter().map(|(epoch, _)| epoch.to_bytes()).collect(),
            base: (None, EventPlace { epoch: 0, sequence: oldest - 1 }),
            ..Display::default()
        }
    }

    /// The same, with the number of spaces of the garage.
    pub fn with_capacity(self, capacity: u32) -> Display {
        Display { capacity, ..self }
    }

    /// The waiting events up to this one, the last on disk, are counted later, in a display that replaces this one.
    pub fn will_be_counted(&mut self, epoch: Epoch, through: u64) {
        self.will_be_replaced();
        self.uncounted_through = Some(self.place(epoch.to_bytes(), through));
    }

    /// Whether the own count lacks events that wait on the disk, and is not shown.
    pub fn is_uncounted(&self) -> bool {
        self.uncounted_through.is_some()
    }

    /// From now on a replacement is made from the events on disk; see [`Display::take_over`].
    pub fn will_be_replaced(&mut self) {
        self.since = Some(Vec::new());
    }

    pub fn stays(&mut self) {
        self.since = None;
    }

    /// Replaces `other`, on which [`Display::will_be_replaced`] was called before this one was begun: events appended since then
    /// count here, unless they were found on disk already. `moved` is an epoch whose events have another one now.
    pub fn take_over(&mut self, other: &Display, moved: Option<Epoch>) {
        self.moved.clone_from(&other.moved);
        self.moved.extend(moved.map(Epoch::to_bytes));
        for (epoch, last, events, effect) in other.since.iter().flatten() {
            self.appended(*epoch, *last, *events, *effect);
        }
        self.board.clone_from(&other.board);
        self.received_at = other.received_at;
        self.own_line.clone_from(&other.own_line);
        self.own_facts.clone_from(&other.own_facts);
        if let Some(line) = &other.own_line {
            self.take_own_line(Some(line));
        }
        self.is_full = other.is_full;
        self.revision = other.revision + 1;
        self.look_whether_full();
    }

    /// Events up to `through` were acknowledged and deleted before they were found: the server has counted them, and its next
    /// answer contains the count.
    pub fn passed_over(&mut self, epoch: Epoch, through: u64) {
        let place = self.place(epoch.to_bytes(), through);
        if place > self.base.1 {
            (self.base, self.base_says) = ((None, place), None);
            self.runs.clear();
            self.pending = CountEffect::default();
        }
    }

    /// Events that were found on disk, in order; those up to `through` count. No append begins before `through` and ends after
    /// it.
    pub fn found(&mut self, page: &SealedPage, through: u64) {
        if let Ok(page) = page.view()
            && let Content::Records(records) = &page.content
        {
            let epoch = self.place(page.epoch.to_bytes(), 0).epoch;
            let last = page.last().min(through);
            let (mut events, mut effect) = (0, CountEffect::default());
            for (sequence, record) in (page.first.get()..=last).zip(records) {
                // A page may have grown after the count was saved.
                if (EventPlace { epoch, sequence }) <= self.base.1 {
                    continue;
                }
                events += 1;
                if let Ok(event) = Event::from_bytes(record.payload) {
                    effect = effect.then(CountEffect::of(&event));
                }
            }
            self.count(page.epoch, last, events, effect);
            self.found.insert(page.epoch.to_bytes(), last);
        }
    }

    /// Counts this number of confirmed events up to `last`; `effect` is their combined effect.
    pub fn appended(&mut self, epoch: Epoch, last: u64, events: u64, effect: CountEffect) {
        if let Some(since) = &mut self.since {
            since.push((epoch, last, events, effect));
        }
        let id = epoch.to_bytes();
        if self.found.get(&id).is_none_or(|found| *found < last) && !self.moved.contains(&id) {
            self.count(epoch, last, events, effect);
        }
        self.revision += 1;
        self.look_whether_full();
    }

    fn count(&mut self, epoch: Epoch, last: u64, events: u64, effect: CountEffect) {
        let last = self.place(epoch.to_bytes(), last);
        if last <= self.base.1 || events == 0 {
            return;
        }
        // Two appends may be reported in the wrong order.
        let place = self.runs.partition_point(|run| run.last < last);
        let is_newest = place == self.runs.len();
        self.runs.insert(place, EventRun { last, events, effect });
        self.pending = if is_newest { self.pending.then(effect) } else { self.effect_of_runs() };
        if self.runs.len() > RUNS_MAX {
            self.join_the_newest();
        }
    }

    fn join_the_newest(&mut self) {
        if let Some(newest) = self.runs.pop_back()
            && let Some(before) = self.runs.back_mut()
        {
            if before.last.epoch == newest.last.epoch {
                before.last = newest.last;
                before.events += newest.events;
                before.effect = before.effect.then(newest.effect);
            } else {
                self.runs.push_back(newest);
            }
        }
    }

    /// The place of a sequence. An epoch that is not known yet comes after all that are.
    fn place(&mut self, epoch: [u8; 16], sequence: u64) -> EventPlace {
        let known = self.epochs.iter().position(|known| *known == epoch);
        let epoch = known.unwrap_or_else(|| {
            self.epochs.push(epoch);
            self.epochs.len() - 1
        });
        EventPlace { epoch, sequence }
    }

    pub fn question(&self) -> BoardQuestion {
        self.board.question()
    }

    pub fn answered(&mut self, part: BoardPart, own: Option<&OwnLine>, now: Instant, now_ms: i64) {
        let line = own.map(|OwnLine { line: Extensible(line), .. }| line);
        // A part without lines of the same board says only that it is still correct.
        let is_another = part.since.is_none() || !part.garages.is_empty();
        let own_changed = line.is_some() && line != self.own_line.as_ref();
        self.revision += u64::from(is_another || own_changed || self.own_facts.is_none());
        match self.board.take(part, own, &self.own) {
            Gathering::Whole => self.received_at = Some((now, now_ms)),
            Gathering::Partly => {}
            Gathering::Ignored => return,
        }
        // It is as new as the part: it does not wait for the rest of the board.
        self.take_own_line(line);
        self.own_facts = Some(line.map(|line| line.facts.clone()).unwrap_or_default());
        if let Some(line) = line {
            self.own_line = Some(line.clone());
            self.is_full_as_in(&line.facts);
        }
        self.look_whether_full();
    }

    /// Once the server has counted all our events, it knows better whether the garage was full before.
    fn is_full_as_in(&mut self, facts: &GarageFacts) {
        if self.runs.is_empty() {
            self.is_full = facts.is_full;
        }
    }

    /// It grows with each change of what is shown, the age of the board aside.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn look_whether_full(&mut self) {
        if let Some(occupied) = self.own_occupied() {
            self.is_full = is_full(self.is_full, self.capacity, free_spaces(self.capacity, occupied));
        }
    }

    /// A server that does not know this garage counts none of its events: the garage is new.
    fn take_own_line(&mut self, line: Option<&BoardLine>) {
        let (occupied, through) = line.map_or((0, None), |line| (line.occupied, line.through));
        let place = through.and_then(|(epoch, sequence)| {
            let epoch = self.epochs.iter().position(|known| *known == epoch)?;
            Some(EventPlace { epoch, sequence })
        });
        // Nothing of our epochs is counted there yet.
        let through = place.unwrap_or_default();
        if self.uncounted_through.is_some_and(|uncounted| uncounted <= through) {
            self.uncounted_through = None;
        }
        // The earlier base stays valid when the server stands within a run, or behind it.
        let next = self.runs.iter().find(|run| run.last > through);
        let at_a_boundary = next.is_none_or(|run| {
            run.last.epoch != through.epoch || run.last.sequence - run.events == through.sequence
        });
        if through >= self.base.1 && (at_a_boundary || through == self.base.1) {
            while self.runs.front().is_some_and(|run| run.last <= through) {
                self.runs.pop_front();
            }
            self.pending = self.effect_of_runs();
            self.base = (Some(occupied), through);
            self.base_says = line.and_then(|line| line.facts.garage);
        }
    }

    fn effect_of_runs(&self) -> CountEffect {
        let runs = self.runs.iter().map(|run| run.effect);
        runs.fold(CountEffect::default(), CountEffect::then)
    }

    pub fn own_occupied(&self) -> Option<i64> {
        if self.is_uncounted() {
            return None;
        }
        self.pending.on(self.base.0)
    }

    /// What our events say of whether the garage is open, delivered or not.
    fn own_says(&self) -> Option<GarageSays> {
        self.pending.says.or(self.base_says)
    }

    /// What the server said of this garage beside its count; `None` until it answers.
    pub fn own_facts(&self) -> Option<&GarageFacts> {
        self.own_facts.as_ref()
    }

    /// All that is known of whether this garage is open. `None` until a server answers: it may have been closed there.
    pub fn own_openness(&self) -> Option<Openness<'_>> {
        let facts = self.own_facts.as_ref()?;
        Some(Openness { garage: self.own_says(), ..facts.openness() })
    }

    /// The state of this garage by its own count; `None` when it is not known.
    pub fn own_state(&self, now: Timestamp) -> Option<ShownState> {
        let opening = self.own_openness()?.at(now).opening;
        shown_state(opening, self.own_occupied().map(|_| self.is_full))
    }

    pub fn board(&self) -> Option<&Board> {
        self.board.whole()
    }

    pub fn age(&self, now: Instant) -> Option<(Duration, i64)> {
        self.received_at.map(|(at, at_ms)| (now.saturating_duration_since(at), at_ms))
    }

    pub fn save(&self) -> Vec<u8> {
        let board = self.board.whole().cloned().zip(self.received_at.map(|(_, at_ms)| at_ms));
        let through = self.runs.back().map_or(self.base.1, |run| run.last);
        let count = self.own_occupied().filter(|_| self.is_complete());
        let own = count.map(|count| (self.epochs[through.epoch], through.sequence, count));
        let says = self.own_says();
        let body = postcard::to_stdvec(&Saved { board, own, says }).expect("a board always encodes");
        let digest = Digest::of(&[&[SAVED_VERSION], &body[..]].concat());
        [&[SAVED_VERSION], &digest.as_bytes()[..], &body].concat()
    }

    /// Whether every event up to the newest run is in a run: an append that is on disk and not reported yet would be missing.
    fn is_complete(&self) -> bool {
        let mut at = self.base.1;
        self.runs.iter().all(|run| {
            let before = if run.last.epoch == at.epoch { at.sequence } else { 0 };
            at = run.last;
            before + run.events == run.last.sequence
        })
    }

    /// What was written by an earlier process, before [`Display::found`]. Anything else is ignored: it is a convenience.
    pub fn restore(&mut self, bytes: &[u8], now: Instant, now_ms: i64) {
        let Some(saved) = decode(bytes) else { return };
        if let Some((epoch, sequence, count)) = saved.own
            && let Some(epoch) = self.epochs.iter().position(|known| *known == epoch)
            && (EventPlace { epoch, sequence }) >= self.base.1
        {
            self.base = (Some(count), EventPlace { epoch, sequence });
            self.base_says = saved.says;
        }
        if let Some((board, at_ms)) = saved.board {
            let age = u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0);
            let received_at = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
            self.received_at = Some((received_at, at_ms));
            let own = board.garages.get(&self.own).cloned();
            self.board = GatheredBoard::from_whole(board);
            if let Some(line) = own {
                self.take_own_line(Some(&line));
                self.is_full_as_in(&line.facts);
                self.own_facts = Some(line.facts);
            }
        }
        self.look_whether_full();
    }
}

fn decode(bytes: &[u8]) -> Option<Saved> {
    let (version, rest) = bytes.split_first()?;
    let (digest, body) = rest.split_first_chunk::<{ Digest::LEN }>()?;
    let is = |digested: &[u8]| Digest::of(digested) == Digest::from_bytes(*digest);
    match *version {
        SAVED_VERSION if is(&[&[SAVED_VERSION], body].concat()) => postcard::from_bytes(body).ok(),
        2 if is(body) => {
            let SavedWithoutStates { board, own } = postcard::from_bytes(body).ok()?;
            Some(Saved { board: board.map(|(board, at_ms)| (board.into(), at_ms)), own, says: None })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
