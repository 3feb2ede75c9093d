//! The oracle: what must be true at the server, by the events that the city's edges confirmed.
//!
//! **Promise.** The books of a garage hold each event that its edge confirmed, once, in order, and nothing else.
//! [`CityBooks::compare`] names every difference between the server and them.
//! **Kept by.** Simplicity. The oracle counts, adds, and hashes what was confirmed. It shares no code with the programs that it
//! checks, and computes neither plates nor occupancy as they do.
//! **Not promised.** That it names the event that differs: it says which [`RollingHash::EVERY`] events the difference is among.

use super::money::Takings;
use fogpost::traffic::{Direction, StartingState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// A hash over events in their order, with a note of it now and then.
#[derive(Debug, Clone, Default)]
pub struct RollingHash {
    hasher: blake3::Hasher,
    events: u64,
    notes: Vec<[u8; 16]>,
}

impl RollingHash {
    /// After this number of events the hash so far is noted.
    pub const EVERY: u64 = 1_000;

    /// Appends one event; `plate` is its letters and digits.
    pub fn record(&mut self, kind: &str, plate: Option<&str>, at_unix_ns: i128) {
        // Lengths first, so that no two different events give the same bytes.
        let plate_length = plate.map_or(u32::MAX, |plate| plate.len() as u32);
        self.hasher.update(&(kind.len() as u32).to_le_bytes());
        self.hasher.update(kind.as_bytes());
        self.hasher.update(&plate_length.to_le_bytes());
        self.hasher.update(plate.unwrap_or_default().as_bytes());
        self.hasher.update(&at_unix_ns.to_le_bytes());
        self.events += 1;
        if self.events.is_multiple_of(Self::EVERY) {
            self.notes.push(short_digest(&self.hasher));
        }
    }

    /// Where `other` first differs: the number of an event; it is that one or one of the [`Self::EVERY`] from it on.
    fn first_difference(&self, other: &RollingHash) -> Option<u64> {
        if self.events == other.events && short_digest(&self.hasher) == short_digest(&other.hasher) {
            return None;
        }
        let same = self.notes.iter().zip(&other.notes).take_while(|(a, b)| a == b).count();
        Some(same as u64 * Self::EVERY + 1)
    }
}

fn short_digest(hasher: &blake3::Hasher) -> [u8; 16] {
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// An event as the books take it once it is confirmed.
#[derive(Debug)]
pub struct PostedEvent {
    pub direction: Direction,
    pub unix_ms: i64,
    /// The letters and digits of its plate.
    pub key: Option<String>,
}

/// An edge's answer: the events are on its disk under these numbers, a single one under the first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    pub epoch: String,
    #[serde(alias = "sequence")]
    pub first: u64,
    pub last: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct Baseline {
    pub state: StartingState,
    pub marks: BTreeMap<String, u64>,
    /// The cars inside, and since when.
    pub stays: StayPairing,
    pub closed: u64,
    /// From where the events of this run are listed.
    pub cursor: Option<String>,
}

impl Baseline {
    pub fn applied(&self) -> u64 {
        self.marks.values().sum()
    }
}

#[derive(Debug, Clone, Default)]
pub struct ServerAccount {
    pub applied: u64,
    pub occupied: i64,
    /// Events that its edge still holds; `None` if the edge did not answer.
    pub depth: Option<u64>,
    pub closed: u64,
    pub taken: Takings,
    pub charges: Option<GarageCharges>,
    pub events: Option<ListedEvents>,
}

/// The events of one garage as the server lists them.
#[derive(Debug, Clone, Default)]
pub struct ListedEvents {
    pub hash: RollingHash,
    /// The first thing about their numbers that is wrong.
    pub irregular: Option<String>,
}

/// A way in which the server differs from what was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// `None`: it concerns the whole city.
    pub garage: Option<String>,
    pub what: String,
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.garage {
            Some(garage) => write!(f, "{garage}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Stays that ended. It is equal for the same stays in whatever order, and differs for others: a sum of hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedStays {
    pub count: u64,
    sum: u128,
}

impl EndedStays {
    pub fn record(&mut self, plate: &str, entered_unix_ms: i64, left_unix_ms: i64) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&entered_unix_ms.to_le_bytes());
        hasher.update(&left_unix_ms.to_le_bytes());
        hasher.update(plate.as_bytes());
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(short_digest(&hasher)));
        self.count += 1;
    }
}

/// The stays of one garage, by its confirmed events. An exit ends the stay of the last entry of its plate. Two entries in a row, or
/// an exit of a car that is not inside, happen only to cars that were here before the city began.
#[derive(Debug, Clone, Default)]
pub struct StayPairing {
    /// Since when the cars are inside, by the letters and digits of their plates.
    pub inside: HashMap<Arc<str>, i64>,
    pub ended: EndedStays,
}

impl StayPairing {
    pub fn entered(&mut self, plate: &str, unix_ms: i64) {
        match self.inside.get_mut(plate) {
            Some(since) => *since = unix_ms,
            None => _ = self.inside.insert(plate.into(), unix_ms),
        }
    }

    pub fn left(&mut self, plate: &str, unix_ms: i64) {
        if let Some(entered) = self.inside.remove(plate) {
            self.ended.record(plate, entered, unix_ms);
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GarageCharges {
    /// What all stays cost.
    pub taken: Takings,
    /// Stays with a draft, whether it has a price or not; including earlier runs.
    pub stays: u64,
    /// Those that ended since this run began.
    pub of_this_run: EndedStays,
}

/// What one garage's edge has confirmed in this run.
#[derive(Debug, Clone, Default)]
pub struct CityBooks {
    pub garage: String,
    pub baseline: Baseline,
    hash: RollingHash,
    change: i64,
    stays: StayPairing,
    last_number: Option<(String, u64)>,
    irregular: Vec<String>,
}

impl CityBooks {
    pub fn new(garage: String, baseline: Baseline) -> CityBooks {
        CityBooks { garage, stays: baseline.stays.clone(), baseline, ..CityBooks::default() }
    }

    /// The edge has confirmed `batch` with `receipt`.
    pub fn confirm(&mut self, batch: &[PostedEvent], receipt: Receipt) {
        for PostedEvent { direction, unix_ms, key } in batch {
            let plate = key.as_deref();
            self.hash.record(direction.kind(), plate, i128::from(*unix_ms) * 1_000_000);
            self.change += direction.change();
            match (direction, plate) {
                (Direction::Entry, Some(plate)) => self.stays.entered(plate, *unix_ms),
                (Direction::Exit, Some(plate)) => self.stays.left(plate, *unix_ms),
                (_, None) => {}
            }
        }
        let first = receipt.first;
        let last = receipt.last.unwrap_or(first);
        let (events, numbers) =
            (batch.len() as u64, last.checked_sub(first).map_or(0, |between| between + 1));
        if numbers != events {
            self.irregular.push(format!("{events} events were confirmed with the numbers {first} to {last}"));
        }
        // There is one producer and no other: its events must follow one another without a gap.
        if let Some((epoch, previous)) = &self.last_number
            && *epoch == receipt.epoch
            && previous + 1 != first
        {
            self.irregular.push(format!(
                "number {first} was confirmed after number {previous}: numbers are missing, or someone else posts to this edge"
            ));
        }
        self.last_number = Some((receipt.epoch, last));
    }

    pub fn confirmed(&self) -> u64 {
        self.hash.events
    }

    pub fn occupied(&self) -> i64 {
        self.baseline.state.occupied + self.change
    }

    /// How many events of this garage the server must have applied when all is.
    pub fn applied_when_settled(&self) -> u64 {
        self.baseline.applied() + self.confirmed()
    }

    /// Every way in which the server differs from these books, in plain words.
    pub fn compare(&self, server: &ServerAccount) -> Vec<Discrepancy> {
        let ServerAccount { applied, occupied, closed, taken, .. } = server;
        let mut found = self.irregular.clone();
        macro_rules! demand {
            ($holds:expr, $($otherwise:tt)+) => {
                if !$holds {
                    found.push(format!($($otherwise)+));
                }
            };
        }
        let owed = self.applied_when_settled();
        let (missing, more) = (owed.saturating_sub(*applied), applied.saturating_sub(owed));
        demand!(
            missing == 0,
            "{missing} confirmed events are missing at the server: it applied {applied} of {owed}"
        );
        demand!(more == 0, "the server applied {more} events more than the {owed} that were confirmed");
        let left = self.occupied();
        demand!(*occupied == left, "the server counts {occupied} cars, the confirmed events leave {left}");
        let depth = server.depth.unwrap_or(0);
        demand!(server.depth.is_some(), "the edge did not say what still waits in its outbox");
        demand!(depth == 0, "{depth} events still wait in the edge's outbox");
        let ended = &self.stays.ended;
        let made = self.baseline.closed + ended.count;
        demand!(
            *closed == made,
            "the server counts {closed} stays that ended, the confirmed events make {made}"
        );
        if let Some(GarageCharges { taken: listed, stays, of_this_run }) = &server.charges {
            let (charged, stayed) = (of_this_run.count, ended.count);
            demand!(listed == taken, "the server lists charges of {listed}, and says that {taken} was taken");
            demand!(stays == closed, "the server lists charges of {stays} stays, and {closed} have ended");
            demand!(
                of_this_run == ended,
                "the {charged} charges of this run are not those of the {stayed} stays that ended in it"
            );
        }
        if let Some(ListedEvents { hash, irregular }) = &server.events {
            let (listed, confirmed) = (hash.events, self.confirmed());
            demand!(
                listed == confirmed,
                "the server lists {listed} events of this run, {confirmed} were confirmed"
            );
            let difference = self.hash.first_difference(hash);
            let first = difference.unwrap_or(0);
            demand!(
                difference.is_none(),
                "the events that the server lists differ in content or order from the confirmed ones, first among number \
                 {first} to {} of this run",
                first + RollingHash::EVERY - 1
            );
            found.extend(irregular.clone());
        }
        let garage = || Some(self.garage.clone());
        found.into_iter().map(|what| Discrepancy { garage: garage(), what }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(nth: u64) -> PostedEvent {
        let direction = if nth.is_multiple_of(3) { Direction::Exit } else { Direction::Entry };
        let key = (nth != 7).then(|| format!("БAB{nth}"));
        PostedEvent { direction, unix_ms: 1_000 * nth as i64, key }
    }

    fn record(hash: &mut RollingHash, event: &PostedEvent) {
        hash.record(event.direction.kind(), event.key.as_deref(), i128::from(event.unix_ms) * 1_000_000);
    }

    /// A garage whose edge confirmed the events 1 to 3,000 in three batches, and a server that knows them all.
    fn confirmed() -> (CityBooks, ServerAccount) {
        let mut books = CityBooks::new("1".to_owned(), Baseline::default());
        let mut server = ServerAccount { depth: Some(0), ..ServerAccount::default() };
        let mut events = ListedEvents::default();
        for nth_batch in 0..3 {
            let (first, last) = (nth_batch * 1_000 + 1, nth_batch * 1_000 + 1_000);
            let batch: Vec<PostedEvent> = (first..=last).map(event).collect();
            for event in &batch {
                record(&mut events.hash, event);
                server.occupied += event.direction.change();
            }
            books.confirm(&batch, Receipt { epoch: "e".to_owned(), first, last: Some(last) });
        }
        server.applied = 3_000;
        server.events = Some(events);
        (books, server)
    }

    fn said(books: &CityBooks, server: &ServerAccount) -> String {
        let found = books.compare(server);
        found.into_iter().map(|found| found.what + "; ").collect()
    }

    #[test]
    fn a_server_that_has_every_event_once_in_order_is_right() {
        let (books, server) = confirmed();
        assert_eq!(books.compare(&server), []);
        assert_eq!(books.confirmed(), 3_000);
        assert_eq!(books.occupied(), 1_000);
    }

    #[test]
    fn each_way_to_be_wrong_is_named() {
        let (books, right) = confirmed();
        let lost = ServerAccount { applied: 2_990, ..right.clone() };
        assert!(said(&books, &lost).contains("10 confirmed events are missing"));
        let twice = ServerAccount { applied: 3_001, ..right.clone() };
        assert!(said(&books, &twice).contains("1 events more"));
        let miscounted = ServerAccount { occupied: 999, ..right.clone() };
        assert!(said(&books, &miscounted).contains("counts 999 cars"));
        let waiting = ServerAccount { depth: Some(5), ..right.clone() };
        assert!(said(&books, &waiting).contains("5 events still wait"));
        let silent = ServerAccount { depth: None, ..right };
        assert!(said(&books, &silent).contains("did not say"));
    }

    #[test]
    fn a_stay_without_its_charge_and_money_without_one_are_named() {
        let mut books = CityBooks::new("1".to_owned(), Baseline { closed: 7, ..Baseline::default() });
        let batch = [(Direction::Entry, 1_000), (Direction::Exit, 9_000)]
            .map(|(direction, unix_ms)| PostedEvent { direction, unix_ms, key: Some("AB1".to_owned()) });
        books.confirm(&batch, Receipt { epoch: "e".to_owned(), first: 1, last: Some(2) });
        let mut charges = GarageCharges { stays: 8, ..GarageCharges::default() };
        charges.taken.add(250, "EUR");
        charges.of_this_run.record("AB1", 1_000, 9_000);
        let right = ServerAccount {
            applied: 2,
            depth: Some(0),
            closed: 8,
            taken: charges.taken.clone(),
            ..ServerAccount::default()
        };
        let with = |charges| ServerAccount { charges: Some(charges), ..right.clone() };
        assert_eq!(said(&books, &with(charges.clone())), "");
        assert!(said(&books, &ServerAccount { closed: 7, ..right.clone() }).contains("make 8"));
        let other = ServerAccount { taken: Takings::default(), ..with(charges.clone()) };
        assert!(said(&books, &other).contains("charges of 2.50 EUR, and says that 0 was taken"));
        let twice = GarageCharges { stays: 9, ..charges.clone() };
        assert!(said(&books, &with(twice)).contains("charges of 9 stays, and 8 have ended"));
        let mut wrong = GarageCharges { of_this_run: Default::default(), ..charges };
        wrong.of_this_run.record("AB1", 1_000, 9_001);
        assert!(
            said(&books, &with(wrong)).contains("the 1 charges of this run are not those of the 1 stays")
        );
    }

    #[test]
    fn two_events_in_the_wrong_order_are_found_and_roughly_where() {
        let (books, mut server) = confirmed();
        let mut hash = RollingHash::default();
        for nth in (1..=2_100).chain([2_102, 2_101]).chain(2_103..=3_000) {
            record(&mut hash, &event(nth));
        }
        server.events = Some(ListedEvents { hash, irregular: None });
        let said = said(&books, &server);
        assert!(said.contains("first among number 2001 to 3000"), "{said}");
    }

    #[test]
    fn a_gap_between_two_confirmations_is_named() {
        let mut books = CityBooks::new("1".to_owned(), Baseline::default());
        let batch = [event(1)];
        books.confirm(&batch, Receipt { epoch: "e".to_owned(), first: 1, last: Some(1) });
        books.confirm(&batch, Receipt { epoch: "e".to_owned(), first: 3, last: Some(3) });
        books.confirm(&batch, Receipt { epoch: "e".to_owned(), first: 4, last: Some(5) });
        let said = said(&books, &ServerAccount::default());
        assert!(said.contains("number 3 was confirmed after number 1"), "{said}");
        assert!(said.contains("1 events were confirmed with the numbers 4 to 5"), "{said}");
    }

    #[test]
    fn what_was_there_before_is_part_of_what_must_be_there() {
        let state = StartingState { occupied: 40, ..StartingState::default() };
        let marks = BTreeMap::from([("a".to_owned(), 100), ("b".to_owned(), 20)]);
        let mut books = CityBooks::new("1".to_owned(), Baseline { state, marks, ..Baseline::default() });
        let batch = [event(1)];
        books.confirm(&batch, Receipt { epoch: "b".to_owned(), first: 21, last: Some(21) });
        assert_eq!((books.occupied(), books.applied_when_settled()), (41, 121));
    }

    #[test]
    fn the_order_of_stays_makes_no_difference_and_everything_else_does() {
        let of = |stays: &[(&str, i64, i64)]| {
            let mut ended = EndedStays::default();
            stays.iter().for_each(|(plate, entered, left)| ended.record(plate, *entered, *left));
            ended
        };
        let two = of(&[("A", 1, 2), ("B", 3, 4)]);
        assert_eq!(two, of(&[("B", 3, 4), ("A", 1, 2)]));
        for other in [
            of(&[("A", 1, 2)]),
            of(&[("A", 1, 2), ("A", 1, 2)]),
            of(&[("A", 1, 2), ("B", 3, 5)]),
            of(&[("A", 1, 2), ("B", 2, 4)]),
            of(&[("A", 1, 2), ("C", 3, 4)]),
            of(&[("A", 1, 2), ("B", 3, 4), ("B", 3, 4)]),
        ] {
            assert_ne!(two, other);
        }
    }

    #[test]
    fn an_exit_ends_the_last_entry_of_its_plate() {
        let mut stays =
            StayPairing { inside: HashMap::from([(Arc::from("FOUND"), 5)]), ..StayPairing::default() };
        stays.entered("A", 10);
        stays.entered("A", 20);
        stays.left("B", 25);
        stays.left("A", 30);
        stays.left("A", 40);
        stays.left("FOUND", 50);
        let mut expected = EndedStays::default();
        expected.record("A", 20, 30);
        expected.record("FOUND", 5, 50);
        assert_eq!(stays.ended, expected);
    }
}
