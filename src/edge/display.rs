//! What the garage shows: the board as the server told it last, with its age, and the garage's own count with what is not
//! delivered yet.
//!
//! **Promise.** The own count is that of the server's ledger after every event that this edge confirmed, as long as it
//! knows where the server's count stands.
//! **Kept by.** The board says through which of our events it counts; we add the effect of those after.
//! **Not promised.** That board and count survive a `kill -9` to the second: they are written every second. A count that may
//! lack something is not shown until the server answers.

use crate::messaging::page::Content;
use crate::messaging::{Digest, Epoch, SiteName, page::SealedPage};
use crate::parking::board::{BoardLine, BoardPart, Gathered, Gathering, OwnLine};
use crate::parking::occupancy::Effect;
use crate::parking::{Board, BoardQuestion, Event};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How many runs of events are told apart. Beyond it neighbours are joined, and the own count is taken from the server
/// a little later.
const RUNS_MAX: usize = 4096;

/// The form of what is written to disk: this version, a digest of the rest, and [`Saved`] as postcard.
const SAVED_VERSION: u8 = 2;

/// What is written to disk for the next process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    /// The board, and when it came.
    board: Option<(Board, i64)>,
    /// The epoch, one of its sequences, and our count after that event.
    own: Option<([u8; 16], u64, i64)>,
}

/// After an event: its epoch, by the order in which epochs are delivered, and its sequence. Places are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    epoch: usize,
    sequence: u64,
}

/// Events of one epoch that are counted together.
#[derive(Debug, Clone, Copy)]
struct Run {
    last: Place,
    events: u64,
    effect: Effect,
}

/// See the module.
#[derive(Debug)]
pub struct Display {
    own: String,
    /// Those that this outbox holds or held, in the order in which they are delivered.
    epochs: Vec<[u8; 16]>,
    board: Gathered,
    /// When the whole board that is shown came, or was known to be right still.
    received_at: Option<(Instant, i64)>,
    /// Our count after our event `base.1`, as the server told it; the count is unknown when it never did.
    base: (Option<i64>, Place),
    /// Our events after `base.1`, in order.
    runs: VecDeque<Run>,
    /// Up to where each epoch was counted from disk. What was appended up to there is told again when its producer is answered.
    found: BTreeMap<[u8; 16], u64>,
    /// Epochs whose events were moved: they were found under another one.
    moved: BTreeSet<[u8; 16]>,
    /// What was appended while another display is made from the disk, to take the place of this one.
    since: Option<Vec<(Epoch, u64, u64, Effect)>>,
    /// Events up to here wait on the disk and are in no run: the own count is not known before they are counted, or the
    /// server has counted them.
    uncounted_through: Option<Place>,
    /// What the server said of us last.
    own_line: Option<BoardLine>,
}

impl Display {
    /// `epochs` are those of the outbox, oldest first, each with the oldest sequence still stored.
    ///
    /// The count is unknown until the server tells it, staff counted, or an earlier process saved it ([`Display::restore`]): a
    /// directory without a past may be that of a new garage, or have taken the place of one that was lost.
    pub fn new(own: &SiteName, epochs: &[(Epoch, u64)]) -> Display {
        let oldest = epochs.first().map_or(1, |(_, oldest)| *oldest);
        Display {
            own: own.to_string(),
            epochs: epochs.iter().map(|(epoch, _)| epoch.to_bytes()).collect(),
            board: Gathered::default(),
            received_at: None,
            base: (None, Place { epoch: 0, sequence: oldest - 1 }),
            runs: VecDeque::new(),
            found: BTreeMap::new(),
            moved: BTreeSet::new(),
            since: None,
            uncounted_through: None,
            own_line: None,
        }
    }

    /// What waits is counted later, in a display that takes the place of this one: up to this event, the last on disk.
    pub fn will_be_counted(&mut self, epoch: Epoch, through: u64) {
        self.will_be_replaced();
        self.uncounted_through = Some(self.place(epoch.to_bytes(), through));
    }

    /// Whether the own count lacks events that wait on the disk, and is not shown.
    pub fn is_uncounted(&self) -> bool {
        self.uncounted_through.is_some()
    }

    /// Another one is made from what is on disk from now on; see [`Display::take_over`].
    pub fn will_be_replaced(&mut self) {
        self.since = Some(Vec::new());
    }

    /// Nothing takes its place after all.
    pub fn stays(&mut self) {
        self.since = None;
    }

    /// Takes the place of `former`, which was told that it will be replaced before this one was begun: what was appended since
    /// counts here, unless it was found already. `moved` is an epoch whose events have another one now.
    pub fn take_over(&mut self, former: &Display, moved: Option<Epoch>) {
        self.moved.clone_from(&former.moved);
        self.moved.extend(moved.map(Epoch::to_bytes));
        for (epoch, last, events, effect) in former.since.iter().flatten() {
            self.appended(*epoch, *last, *events, *effect);
        }
        self.board.clone_from(&former.board);
        self.received_at = former.received_at;
        self.own_line.clone_from(&former.own_line);
        if let Some(line) = &former.own_line {
            self.take_own_line(Some(line));
        }
    }

    /// Events up to `through` were acknowledged and deleted before they were found: the server has counted them, and its next
    /// answer tells the count.
    pub fn passed_over(&mut self, epoch: Epoch, through: u64) {
        let place = self.place(epoch.to_bytes(), through);
        if place > self.base.1 {
            self.base = (None, place);
            self.runs.clear();
        }
    }

    /// Events that were found on disk, in order; those up to `through` count. No append ends behind it and begins before.
    pub fn found(&mut self, page: &SealedPage, through: u64) {
        if let Ok(page) = page.view()
            && let Content::Records(records) = &page.content
        {
            // A page may have grown after the count was saved.
            let place = self.place(page.epoch.to_bytes(), 0);
            let before = match self.base.1.epoch.cmp(&place.epoch) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => self.base.1.sequence,
                std::cmp::Ordering::Greater => u64::MAX,
            };
            let known = before.saturating_sub(page.first.get() - 1);
            let upto = (through + 1).saturating_sub(page.first.get());
            let upto = usize::try_from(upto).unwrap_or(usize::MAX).min(records.len());
            let known = usize::try_from(known).unwrap_or(usize::MAX).min(upto);
            let events =
                records[known..upto].iter().filter_map(|record| Event::from_bytes(record.payload).ok());
            let effect = events.map(|event| Effect::of(&event.kind)).fold(Effect::default(), Effect::then);
            let last = page.last().min(through);
            self.count(page.epoch, last, (upto - known) as u64, effect);
            self.found.insert(page.epoch.to_bytes(), last);
        }
    }

    /// So many events up to `last` were confirmed, with this effect together.
    pub fn appended(&mut self, epoch: Epoch, last: u64, events: u64, effect: Effect) {
        if let Some(since) = &mut self.since {
            since.push((epoch, last, events, effect));
        }
        let id = epoch.to_bytes();
        if self.found.get(&id).is_none_or(|found| *found < last) && !self.moved.contains(&id) {
            self.count(epoch, last, events, effect);
        }
    }

    fn count(&mut self, epoch: Epoch, last: u64, events: u64, effect: Effect) {
        let last = self.place(epoch.to_bytes(), last);
        if last <= self.base.1 || events == 0 {
            return;
        }
        // Two appends may be told in the wrong order.
        let place = self.runs.partition_point(|run| run.last < last);
        self.runs.insert(place, Run { last, events, effect });
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
    fn place(&mut self, epoch: [u8; 16], sequence: u64) -> Place {
        let known = self.epochs.iter().position(|known| *known == epoch);
        let epoch = known.unwrap_or_else(|| {
            self.epochs.push(epoch);
            self.epochs.len() - 1
        });
        Place { epoch, sequence }
    }

    /// What to ask the server for.
    pub fn question(&self) -> BoardQuestion {
        self.board.question()
    }

    /// A part of the board came, with our own line.
    pub fn answered(&mut self, part: BoardPart, own: Option<&OwnLine>, now: Instant, now_ms: i64) {
        match self.board.take(part, own, &self.own) {
            Gathering::Whole => self.received_at = Some((now, now_ms)),
            Gathering::Partly => {}
            Gathering::Ignored => return,
        }
        // It is as new as the part: it does not wait for the rest of the board.
        self.take_own_line(own.as_ref().map(|own| &own.line));
        if let Some(own) = own {
            self.own_line = Some(own.line.clone());
        }
    }

    /// A server that does not know this garage counts none of its events: the garage is new.
    fn take_own_line(&mut self, line: Option<&BoardLine>) {
        let (occupied, through) = line.map_or((0, None), |line| (line.occupied, line.through));
        let through = match through {
            Some((epoch, sequence)) if self.epochs.contains(&epoch) => {
                let known = self.epochs.iter().position(|known| *known == epoch);
                Place { epoch: known.unwrap_or_default(), sequence }
            }
            // Nothing of our epochs is counted there yet.
            _ => Place { epoch: 0, sequence: 0 },
        };
        if self.uncounted_through.is_some_and(|uncounted| uncounted <= through) {
            self.uncounted_through = None;
        }
        // The former base stays good when the server stands within a run, or behind it.
        let next = self.runs.iter().find(|run| run.last > through);
        let at_a_boundary = next.is_none_or(|run| {
            run.last.epoch != through.epoch || run.last.sequence - run.events == through.sequence
        });
        if through >= self.base.1 && (at_a_boundary || through == self.base.1) {
            while self.runs.front().is_some_and(|run| run.last <= through) {
                self.runs.pop_front();
            }
            self.base = (Some(occupied), through);
        }
    }

    /// Our own count, with what is not delivered yet.
    pub fn own_occupied(&self) -> Option<i64> {
        if self.is_uncounted() {
            return None;
        }
        let runs = self.runs.iter().map(|run| run.effect);
        runs.fold(Effect::default(), Effect::then).on(self.base.0)
    }

    pub fn board(&self) -> Option<&Board> {
        self.board.whole()
    }

    /// How long ago the server said what the board shows, and when that was.
    pub fn age(&self, now: Instant) -> Option<(Duration, i64)> {
        self.received_at.map(|(at, at_ms)| (now.saturating_duration_since(at), at_ms))
    }

    /// What to write to disk for the next process.
    pub fn save(&self) -> Vec<u8> {
        let board = self.board.whole().cloned().zip(self.received_at.map(|(_, at_ms)| at_ms));
        let through = self.runs.back().map_or(self.base.1, |run| run.last);
        let count = self.own_occupied().filter(|_| self.is_complete());
        let own = count.map(|count| (self.epochs[through.epoch], through.sequence, count));
        let body = postcard::to_stdvec(&Saved { board, own }).expect("a board always encodes");
        [&[SAVED_VERSION], &Digest::of(&body).as_bytes()[..], &body].concat()
    }

    /// Whether every event up to the newest run is in one: an append that is on disk and not told yet would be missing.
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
            && (Place { epoch, sequence }) >= self.base.1
        {
            self.base = (Some(count), Place { epoch, sequence });
        }
        if let Some((board, at_ms)) = saved.board {
            let age = u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0);
            let received_at = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
            self.received_at = Some((received_at, at_ms));
            let own = board.garages.get(&self.own).cloned();
            self.board = Gathered::from_whole(board);
            if let Some(line) = own {
                self.take_own_line(Some(&line));
            }
        }
    }
}

/// What was saved, if these are the bytes that were written.
fn decode(bytes: &[u8]) -> Option<Saved> {
    let Some((&SAVED_VERSION, rest)) = bytes.split_first() else { return None };
    let (digest, body) = rest.split_first_chunk::<{ Digest::LEN }>()?;
    (Digest::of(body) == Digest::from_bytes(*digest)).then(|| postcard::from_bytes(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::page::{Content, Message, Page};
    use crate::messaging::{ClockReading, Sequence};
    use crate::parking::EventKind;
    use crate::parking::board::{BoardVersion, PartLine};

    const EPOCH: Epoch = Epoch::from_bytes([5; 16]);

    fn entries(n: u64) -> Effect {
        let entry = Effect::of(&EventKind::Entry { plate: None });
        (0..n).fold(Effect::default(), |effect, _| effect.then(entry))
    }

    /// What the server says of the one garage that there is.
    fn told(occupied: i64, through: u64) -> (BoardPart, OwnLine) {
        let line =
            BoardLine { capacity: 100, occupied, as_of_ms: None, through: Some((EPOCH.to_bytes(), through)) };
        let upto = BoardVersion { ledger: [1; 16], position: through, run: 1 };
        let name = "a".to_owned();
        let its = PartLine { name: name.clone(), capacity: 100, occupied, as_of_ms: None };
        let part = BoardPart { since: None, upto, board_at: through, is_last: true, garages: vec![its] };
        (part, OwnLine { called: name, line })
    }

    /// One that the server has answered before, where the outbox has all its events.
    fn display(oldest: u64) -> Display {
        let mut display = unanswered(oldest);
        display.base.0 = (oldest == 1).then_some(0);
        display
    }

    fn unanswered(oldest: u64) -> Display {
        Display::new(&SiteName::new("a").unwrap(), &[(EPOCH, oldest)])
    }

    fn answered(display: &mut Display, (part, own): (BoardPart, OwnLine)) {
        display.answered(part, Some(&own), Instant::now(), 0);
    }

    /// In a large city the board comes in parts, one with each question. The own count does not wait for the last of them.
    #[test]
    fn the_own_line_counts_before_the_board_is_whole() {
        let mut display = display(100);
        let (mut part, own) = told(40, 99);
        part.is_last = false;
        answered(&mut display, (part, own));
        assert_eq!(display.own_occupied(), Some(40));
        assert!(display.board().is_none() && display.age(Instant::now()).is_none());
    }

    /// A board line may hold any numbers: a server that is damaged, or none of ours, must not end an edge.
    #[test]
    fn a_board_of_extreme_numbers_does_no_harm() {
        for occupied in [i64::MIN, -1, i64::MAX] {
            for through in [0, 1, 3, u64::MAX - 1, u64::MAX] {
                let mut display = display(1);
                display.appended(EPOCH, 3, 3, entries(3));
                answered(&mut display, told(occupied, through));
                display.appended(EPOCH, 5, 2, entries(2));
                assert!(display.own_occupied().is_some());
                let mut next = self::display(1);
                next.restore(&display.save(), Instant::now(), i64::MAX);
                next.restore(&display.save(), Instant::now(), i64::MIN);
            }
        }
    }

    /// An edge whose directory was replaced once showed 500 free spaces of a garage that was full.
    #[test]
    fn a_count_is_unknown_until_somebody_tells_it() {
        let (mut replaced, mut new, mut counted) = (unanswered(1), unanswered(1), unanswered(1));
        for display in [&mut replaced, &mut new, &mut counted] {
            display.appended(EPOCH, 3, 3, entries(3));
            assert_eq!(display.own_occupied(), None);
        }
        let (part, mut own) = told(480, 7);
        own.line.through = Some(([9; 16], 7));
        answered(&mut replaced, (part, own));
        assert_eq!(replaced.own_occupied(), Some(483), "the server knows the garage by its former epoch");
        let (mut part, _) = told(0, 0);
        part.garages.clear();
        new.answered(part, None, Instant::now(), 0);
        assert_eq!(new.own_occupied(), Some(3), "the server has never heard of the garage");
        let count = Effect::of(&EventKind::Count { occupied: 50, reason: "rounds".into() });
        counted.appended(EPOCH, 4, 1, count);
        assert_eq!(counted.own_occupied(), Some(50));
    }

    #[test]
    fn the_own_count_includes_what_is_not_delivered() {
        let mut display = display(1);
        display.appended(EPOCH, 3, 3, entries(3));
        assert_eq!(display.own_occupied(), Some(3));
        answered(&mut display, told(3, 3));
        display.appended(EPOCH, 5, 2, entries(2));
        assert_eq!(display.own_occupied(), Some(5));
        answered(&mut display, told(5, 5));
        assert_eq!(display.own_occupied(), Some(5), "delivered events count once");
    }

    #[test]
    fn an_edge_that_does_not_have_its_past_waits_for_the_server() {
        let mut display = display(100);
        display.appended(EPOCH, 101, 1, entries(1));
        assert_eq!(display.own_occupied(), None);
        answered(&mut display, told(40, 99));
        assert_eq!(display.own_occupied(), Some(41));
    }

    #[test]
    fn a_server_in_the_middle_of_a_run_changes_nothing_until_its_end() {
        let mut display = display(1);
        display.appended(EPOCH, 10, 10, entries(10));
        answered(&mut display, told(4, 4));
        assert_eq!(display.own_occupied(), Some(10));
        answered(&mut display, told(10, 10));
        assert_eq!(display.own_occupied(), Some(10));
    }

    #[test]
    fn a_board_of_an_earlier_process_is_shown_with_its_age() {
        let mut earlier = display(1);
        earlier.appended(EPOCH, 3, 3, entries(3));
        answered(&mut earlier, told(3, 3));
        let bytes = earlier.save();
        let mut display = display(2);
        display.restore(&bytes, Instant::now(), 60_000);
        let (_, at_ms) = display.age(Instant::now()).unwrap();
        assert_eq!(at_ms, 0);
        assert_eq!(display.own_occupied(), Some(3));
        display.restore(b"nonsense", Instant::now(), 0);
        assert!(display.board().is_some());
    }

    /// A flipped bit in the file of the board was once shown as a number of free spaces.
    #[test]
    fn a_saved_board_with_a_flipped_bit_is_not_shown() {
        let mut earlier = display(1);
        earlier.appended(EPOCH, 3, 3, entries(3));
        answered(&mut earlier, told(3, 3));
        let bytes = earlier.save();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut display = display(4);
            display.restore(&damaged, Instant::now(), 0);
            assert!(display.board().is_none() && display.own_occupied().is_none(), "bit {bit}");
        }
    }

    #[test]
    fn the_count_of_an_earlier_process_goes_on_with_what_was_appended_since() {
        let mut earlier = display(1);
        earlier.appended(EPOCH, 3, 3, entries(3));
        earlier.appended(EPOCH, 5, 1, entries(1));
        assert_eq!(Saved { board: None, own: None }, decode(&earlier.save()).unwrap());
        earlier.appended(EPOCH, 4, 1, entries(1));
        let mut later = display(4);
        later.restore(&earlier.save(), Instant::now(), 0);
        later.appended(EPOCH, 5, 2, entries(2)); // known
        later.appended(EPOCH, 6, 1, entries(1));
        assert_eq!(later.own_occupied(), Some(6));
        let mut of_a_crash = display(10); // events were delivered and deleted after the last save
        of_a_crash.restore(&earlier.save(), Instant::now(), 0);
        assert_eq!(of_a_crash.own_occupied(), None);
    }

    #[test]
    fn appends_that_are_told_in_the_wrong_order_count_in_the_right_one() {
        let count = Effect::of(&EventKind::Count { occupied: 50, reason: "rounds".into() });
        let mut display = display(1);
        display.appended(EPOCH, 3, 1, entries(1));
        display.appended(EPOCH, 2, 1, count);
        display.appended(EPOCH, 1, 1, entries(1));
        assert_eq!(display.own_occupied(), Some(51));
    }

    fn page(epoch: Epoch, first: u64, entries: u64) -> SealedPage {
        let event =
            Event::from_json(br#"{"kind":"entry","plate":null}"#, jiff::Timestamp::UNIX_EPOCH).unwrap();
        SealedPage::seal(&Page {
            epoch,
            first: Sequence::new(first).unwrap(),
            previous: None,
            moved_from: None,
            begun: ClockReading::at_wall_ms(0),
            content: Content::Records(vec![Message::of(event.to_bytes()); entries as usize]),
        })
    }

    /// After a move the count is made from the disk anew. Events that came meanwhile once were missing in it, or counted twice,
    /// until they were delivered.
    #[test]
    fn a_display_that_takes_the_place_of_another_counts_what_came_meanwhile_once() {
        let (moved, new) = (Epoch::from_bytes([6; 16]), Epoch::from_bytes([7; 16]));
        let mut former = display(1);
        former.appended(EPOCH, 10, 10, entries(10)); // moved to an epoch of its own afterwards
        former.will_be_replaced();
        former.appended(EPOCH, 11, 1, entries(1)); // so was this one, whose producer is answered late
        let mut display = Display::new(&SiteName::new("a").unwrap(), &[(moved, 1), (new, 1)]);
        display.restore(&former.save(), Instant::now(), 0);
        // The base comes with the first answer; here everything is there from the beginning.
        display.base.0 = Some(0);
        display.found(&page(moved, 1, 12), 12);
        former.appended(new, 2, 2, entries(2)); // on disk before it was read
        former.appended(new, 5, 2, entries(2)); // after it; the page was read all the same
        display.found(&page(new, 1, 5), 3);
        display.take_over(&former, Some(EPOCH));
        assert_eq!(display.own_occupied(), Some(12 + 5));
        // Answered after the change of displays.
        display.appended(EPOCH, 12, 1, entries(1));
        display.appended(new, 3, 1, entries(1));
        assert_eq!(display.own_occupied(), Some(12 + 5));
        display.appended(new, 6, 1, entries(1));
        assert_eq!(display.own_occupied(), Some(12 + 6));
    }

    /// A start on a backlog of millions counts it in the background. The server's count alone, without what waits here, was once
    /// shown as the garage's own.
    #[test]
    fn a_count_that_lacks_what_waits_is_not_shown() {
        let mut former = display(1);
        former.will_be_counted(EPOCH, 12);
        assert_eq!(former.own_occupied(), None);
        former.appended(EPOCH, 13, 1, entries(1));
        answered(&mut former, told(5, 5));
        assert_eq!(former.own_occupied(), None);
        let mut counted = display(1);
        counted.found(&page(EPOCH, 1, 12), 12);
        counted.take_over(&former, None);
        assert_eq!(counted.own_occupied(), Some(13));
        // Or the server has counted it all before that.
        answered(&mut former, told(12, 12));
        assert_eq!(former.own_occupied(), Some(13));
    }

    #[test]
    fn what_was_delivered_before_it_was_counted_is_known_by_the_next_answer() {
        let mut former = display(1);
        former.will_be_counted(EPOCH, 30);
        let mut counted = display(1);
        counted.found(&page(EPOCH, 1, 10), 30);
        counted.passed_over(EPOCH, 20);
        counted.found(&page(EPOCH, 21, 10), 30);
        assert_eq!(counted.own_occupied(), None);
        answered(&mut former, told(19, 20));
        counted.take_over(&former, None);
        assert_eq!(counted.own_occupied(), Some(29));
    }

    #[test]
    fn events_of_a_new_epoch_count_after_those_of_the_old_one() {
        let new = Epoch::from_bytes([6; 16]);
        let mut display = display(1);
        display.appended(EPOCH, 3, 3, entries(3));
        display.appended(new, 2, 2, entries(2));
        assert_eq!(display.own_occupied(), Some(5));
        answered(&mut display, told(3, 3));
        assert_eq!(display.own_occupied(), Some(5));
        // Somebody else has sent more under the old epoch.
        answered(&mut display, told(9, 9));
        assert_eq!(display.own_occupied(), Some(11));
        let mut later = Display::new(&SiteName::new("a").unwrap(), &[(EPOCH, 10), (new, 1)]);
        later.restore(&display.save(), Instant::now(), 0);
        later.appended(new, 3, 1, entries(1));
        assert_eq!(later.own_occupied(), Some(12));
    }

    #[test]
    fn a_long_backlog_stays_small() {
        let mut display = display(1);
        for n in 1..=100_000 {
            display.appended(EPOCH, n, 1, entries(1));
        }
        assert!(display.runs.len() <= RUNS_MAX);
        assert_eq!(display.own_occupied(), Some(100_000));
    }
}
