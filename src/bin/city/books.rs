//! The oracle: what the city knows must be true at the centre.
//!
//! **Promise.** The books of a garage hold each event that its edge confirmed, once, in order, and nothing
//! else; [`Books::compare`] names every way in which the centre tells it differently.
//! **Kept by.** Simplicity. The oracle counts, adds, and hashes what it was told is on disk. It shares no
//! code with the programs that it checks, and computes neither plates nor occupancy as they do.
//! **Not promised.** To say which event differs, only between which two of every [`Tape::EVERY`].

use super::money::Takings;
use super::stays::{Charges, Stays};
use fogpost::traffic::{CarPassage, Direction, StartingState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A rolling hash over events in their order, with a note of it now and then.
#[derive(Debug, Clone, Default)]
pub struct Tape {
    hasher: blake3::Hasher,
    events: u64,
    notes: Vec<[u8; 16]>,
}

impl Tape {
    /// After so many events the hash so far is noted.
    pub const EVERY: u64 = 1_000;

    /// Appends one event; `plate` is its letters and digits.
    pub fn record(&mut self, kind: &str, plate: Option<&str>, at_unix_ns: i128) {
        // Lengths first, so that no two different events leave the same bytes.
        let plate_length = plate.map_or(u32::MAX, |plate| plate.len() as u32);
        self.hasher.update(&(kind.len() as u32).to_le_bytes());
        self.hasher.update(kind.as_bytes());
        self.hasher.update(&plate_length.to_le_bytes());
        self.hasher.update(plate.unwrap_or_default().as_bytes());
        self.hasher.update(&at_unix_ns.to_le_bytes());
        self.events += 1;
        if self.events.is_multiple_of(Self::EVERY) {
            self.notes.push(self.digest());
        }
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    fn digest(&self) -> [u8; 16] {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        digest
    }

    /// Where `other` first differs: the number of an event here, and [`Self::EVERY`] from it on.
    fn first_difference(&self, other: &Tape) -> Option<u64> {
        if self.events == other.events && self.digest() == other.digest() {
            return None;
        }
        let same = self.notes.iter().zip(&other.notes).take_while(|(a, b)| a == b).count();
        Some(same as u64 * Self::EVERY + 1)
    }
}

/// Events on their way to the edge, in the form in which the books take them once they are confirmed.
#[derive(Debug, Default)]
pub struct Draft {
    /// Of each event: its direction, the length of its plate's key or [`Self::NO_PLATE`], the key, the instant.
    bytes: Vec<u8>,
    events: u64,
}

impl Draft {
    const NO_PLATE: u8 = u8::MAX;

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.events = 0;
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn push(&mut self, passage: &CarPassage, plate: Option<&str>) {
        let length = plate.map_or(Some(Self::NO_PLATE), |plate| u8::try_from(plate.len()).ok());
        let length = length.expect("a plate has at most 16 letters");
        self.bytes.push(passage.direction as u8);
        self.bytes.push(length);
        self.bytes.extend_from_slice(plate.unwrap_or_default().as_bytes());
        self.bytes.extend_from_slice(&passage.at.unix_ms.to_le_bytes());
        self.events += 1;
    }

    fn each(&self, mut visit: impl FnMut(Direction, Option<&str>, i64)) {
        let mut rest = &self.bytes[..];
        while let [direction, length, tail @ ..] = rest {
            let direction = match *direction {
                entry if entry == Direction::Entry as u8 => Direction::Entry,
                _ => Direction::Exit,
            };
            let readable = *length != Self::NO_PLATE;
            let (plate, tail) = tail.split_at(if readable { usize::from(*length) } else { 0 });
            let (at, tail) = tail.split_first_chunk().expect("push() wrote it");
            let plate = std::str::from_utf8(plate).expect("push() wrote it");
            visit(direction, readable.then_some(plate), i64::from_le_bytes(*at));
            rest = tail;
        }
    }
}

/// What an edge answered: the events are on its disk under these numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    pub epoch: String,
    pub first: u64,
    pub last: u64,
}

/// A garage at the centre before this run: what it holds, and the highest number of each epoch.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    pub state: StartingState,
    pub marks: BTreeMap<String, u64>,
    /// The cars inside, and since when.
    pub stays: Stays,
    /// How many stays had ended.
    pub closed: u64,
}

impl Baseline {
    /// How many events of this garage the centre had applied.
    pub fn applied(&self) -> u64 {
        self.marks.values().sum()
    }
}

/// What the centre tells about a garage at the end.
#[derive(Debug, Clone, Default)]
pub struct AtCentre {
    /// The sum of its marks.
    pub applied: u64,
    pub occupied: i64,
    /// Events that its edge still holds; `None` if the edge did not say.
    pub depth: Option<u64>,
    /// Stays that ended.
    pub closed: u64,
    /// The money.
    pub taken: Takings,
    /// All charges, as the centre lists them.
    pub charges: Option<Charges>,
    /// The events after the baseline, as the centre lists them.
    pub read_back: Option<ReadBack>,
}

/// The events of one garage as the centre lists them.
#[derive(Debug, Clone, Default)]
pub struct ReadBack {
    pub tape: Tape,
    /// The first thing about their numbers that is not as it should be.
    pub irregular: Option<String>,
}

/// A way in which the centre differs from what was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// `None`: it concerns the whole city.
    pub garage: Option<String>,
    pub what: String,
}

/// What one garage's edge has confirmed in this run.
#[derive(Debug, Clone)]
pub struct Books {
    pub garage: String,
    pub baseline: Baseline,
    tape: Tape,
    change: i64,
    stays: Stays,
    last_receipt: Option<Receipt>,
    irregular: Vec<String>,
}

impl Books {
    pub fn new(garage: String, baseline: Baseline) -> Books {
        Books {
            garage,
            stays: baseline.stays.clone(),
            baseline,
            tape: Tape::default(),
            change: 0,
            last_receipt: None,
            irregular: Vec::new(),
        }
    }

    /// The edge has confirmed `draft` with `receipt`.
    pub fn confirm(&mut self, draft: &Draft, receipt: Receipt) {
        draft.each(|direction, plate, unix_ms| {
            self.tape.record(direction.kind(), plate, i128::from(unix_ms) * 1_000_000);
            self.change += direction.change();
            match (direction, plate) {
                (Direction::Entry, Some(plate)) => self.stays.entered(plate, unix_ms),
                (Direction::Exit, Some(plate)) => self.stays.left(plate, unix_ms),
                (_, None) => {}
            }
        });
        let numbers = receipt.last.checked_sub(receipt.first).map_or(0, |between| between + 1);
        if numbers != draft.events {
            self.irregular.push(format!(
                "{} events were confirmed with the numbers {} to {}",
                draft.events, receipt.first, receipt.last
            ));
        }
        // One producer and no other: its events must follow one another without a gap.
        if let Some(former) = &self.last_receipt
            && former.epoch == receipt.epoch
            && former.last + 1 != receipt.first
        {
            self.irregular.push(format!(
                "number {} was confirmed after number {}: numbers are missing, or someone else gives this edge events",
                receipt.first, former.last
            ));
        }
        self.last_receipt = Some(receipt);
    }

    /// Events confirmed in this run.
    pub fn confirmed(&self) -> u64 {
        self.tape.events()
    }

    /// What the garage must hold when all is applied.
    pub fn occupied(&self) -> i64 {
        self.baseline.state.occupied + self.change
    }

    /// How many events of this garage the centre must have applied when all is.
    pub fn applied_when_settled(&self) -> u64 {
        self.baseline.applied() + self.confirmed()
    }

    /// Every way in which the centre differs from these books, in plain words.
    pub fn compare(&self, centre: &AtCentre) -> Vec<Discrepancy> {
        let mut found = self.irregular.clone();
        let owed = self.applied_when_settled();
        if centre.applied < owed {
            found.push(format!(
                "{} confirmed events are missing at the centre: it applied {} of {owed}",
                owed - centre.applied,
                centre.applied
            ));
        } else if centre.applied > owed {
            found.push(format!(
                "the centre applied {} events more than the {owed} that were confirmed",
                centre.applied - owed
            ));
        }
        if centre.occupied != self.occupied() {
            found.push(format!(
                "the centre counts {} cars, the confirmed events leave {}",
                centre.occupied,
                self.occupied()
            ));
        }
        match centre.depth {
            Some(0) => {}
            Some(depth) => found.push(format!("{depth} events still wait in the edge's outbox")),
            None => found.push("the edge did not say what still waits in its outbox".to_owned()),
        }
        let closed = self.baseline.closed + self.stays.ended().count;
        if centre.closed != closed {
            found.push(format!(
                "the centre counts {} stays that ended, the confirmed events make {closed}",
                centre.closed
            ));
        }
        if let Some(charges) = &centre.charges {
            found.extend(self.compare_charges(centre, charges));
        }
        if let Some(read_back) = &centre.read_back {
            found.extend(self.compare_events(read_back));
        }
        let garage = || Some(self.garage.clone());
        found.into_iter().map(|what| Discrepancy { garage: garage(), what }).collect()
    }

    fn compare_charges(&self, centre: &AtCentre, charges: &Charges) -> impl Iterator<Item = String> {
        let sum = (charges.taken != centre.taken).then(|| {
            format!("the centre lists charges of {}, and says that {} was taken", charges.taken, centre.taken)
        });
        let number = (charges.stays != centre.closed).then(|| {
            format!("the centre lists charges of {} stays, and {} have ended", charges.stays, centre.closed)
        });
        let ended = self.stays.ended();
        let which = (charges.of_this_run != *ended).then(|| {
            format!(
                "the {} charges of this run are not those of the {} stays that ended in it",
                charges.of_this_run.count, ended.count
            )
        });
        sum.into_iter().chain(number).chain(which)
    }

    fn compare_events(&self, read_back: &ReadBack) -> impl Iterator<Item = String> {
        let listed = read_back.tape.events();
        let number = (listed != self.confirmed()).then(|| {
            format!("the centre lists {listed} events of this run, {} were confirmed", self.confirmed())
        });
        let content = self.tape.first_difference(&read_back.tape).map(|first| {
            format!(
                "the events that the centre lists differ in content or order from the confirmed ones, \
                 first among number {first} to {} of this run",
                first + Tape::EVERY - 1
            )
        });
        number.into_iter().chain(content).chain(read_back.irregular.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogpost::traffic::LocalInstant;

    fn passage(nth: u64) -> (CarPassage, String) {
        let direction = if nth.is_multiple_of(3) { Direction::Exit } else { Direction::Entry };
        let at = LocalInstant { unix_ms: 1_000 * nth as i64, offset_seconds: 0 };
        (CarPassage { direction, car: None, at }, format!("БAB{nth}"))
    }

    /// A garage that was told the events 1 to 3,000 in three batches, and a centre that knows them all.
    fn told() -> (Books, AtCentre) {
        let mut books = Books::new("1".to_owned(), Baseline::default());
        let mut centre = AtCentre { depth: Some(0), ..AtCentre::default() };
        let mut read_back = ReadBack::default();
        for batch in 0..3 {
            let mut draft = Draft::default();
            for nth in batch * 1_000 + 1..=batch * 1_000 + 1_000 {
                let (passage, plate) = passage(nth);
                let plate = (nth != 7).then_some(plate.as_str());
                draft.push(&passage, plate);
                let ns = i128::from(passage.at.unix_ms) * 1_000_000;
                read_back.tape.record(passage.direction.kind(), plate, ns);
                centre.occupied += passage.direction.change();
            }
            let (first, last) = (batch * 1_000 + 1, batch * 1_000 + 1_000);
            books.confirm(&draft, Receipt { epoch: "e".to_owned(), first, last });
        }
        centre.applied = 3_000;
        centre.read_back = Some(read_back);
        (books, centre)
    }

    fn said(books: &Books, centre: &AtCentre) -> String {
        let found = books.compare(centre);
        found.into_iter().map(|found| found.what + "; ").collect()
    }

    #[test]
    fn a_centre_that_has_every_event_once_in_order_is_right() {
        let (books, centre) = told();
        assert_eq!(books.compare(&centre), []);
        assert_eq!(books.confirmed(), 3_000);
        assert_eq!(books.occupied(), 1_000);
    }

    #[test]
    fn each_way_to_be_wrong_is_named() {
        let (books, right) = told();
        let lost = AtCentre { applied: 2_990, ..right.clone() };
        assert!(said(&books, &lost).contains("10 confirmed events are missing"));
        let twice = AtCentre { applied: 3_001, ..right.clone() };
        assert!(said(&books, &twice).contains("1 events more"));
        let miscounted = AtCentre { occupied: 999, ..right.clone() };
        assert!(said(&books, &miscounted).contains("counts 999 cars"));
        let waiting = AtCentre { depth: Some(5), ..right.clone() };
        assert!(said(&books, &waiting).contains("5 events still wait"));
        let silent = AtCentre { depth: None, ..right };
        assert!(said(&books, &silent).contains("did not say"));
    }

    #[test]
    fn a_stay_without_its_charge_and_money_without_one_are_named() {
        let mut books = Books::new("1".to_owned(), Baseline { closed: 7, ..Baseline::default() });
        let mut draft = Draft::default();
        let at = |unix_ms| LocalInstant { unix_ms, offset_seconds: 0 };
        for (direction, unix_ms) in [(Direction::Entry, 1_000), (Direction::Exit, 9_000)] {
            draft.push(&CarPassage { direction, car: None, at: at(unix_ms) }, Some("AB1"));
        }
        books.confirm(&draft, Receipt { epoch: "e".to_owned(), first: 1, last: 2 });
        let mut charges = Charges { stays: 8, ..Charges::default() };
        charges.taken.add(250, "EUR");
        charges.of_this_run.record("AB1", 1_000, 9_000);
        let right = AtCentre {
            applied: 2,
            depth: Some(0),
            closed: 8,
            taken: charges.taken.clone(),
            ..AtCentre::default()
        };
        let with = |charges| AtCentre { charges: Some(charges), ..right.clone() };
        assert_eq!(said(&books, &with(charges.clone())), "");
        assert!(said(&books, &AtCentre { closed: 7, ..right.clone() }).contains("make 8"));
        let other = AtCentre { taken: Takings::default(), ..with(charges.clone()) };
        assert!(said(&books, &other).contains("charges of 2.50 EUR, and says that 0 was taken"));
        let twice = Charges { stays: 9, ..charges.clone() };
        assert!(said(&books, &with(twice)).contains("charges of 9 stays, and 8 have ended"));
        let mut wrong = Charges { of_this_run: Default::default(), ..charges };
        wrong.of_this_run.record("AB1", 1_000, 9_001);
        assert!(
            said(&books, &with(wrong)).contains("the 1 charges of this run are not those of the 1 stays")
        );
    }

    #[test]
    fn two_events_in_the_wrong_order_are_found_and_roughly_where() {
        let (books, mut centre) = told();
        let mut tape = Tape::default();
        for nth in (1..=2_100).chain([2_102, 2_101]).chain(2_103..=3_000) {
            let (passage, plate) = passage(nth);
            let plate = (nth != 7).then_some(plate.as_str());
            tape.record(passage.direction.kind(), plate, i128::from(passage.at.unix_ms) * 1_000_000);
        }
        centre.read_back = Some(ReadBack { tape, irregular: None });
        let said = said(&books, &centre);
        assert!(said.contains("first among number 2001 to 3000"), "{said}");
    }

    #[test]
    fn a_gap_between_two_confirmations_is_named() {
        let mut books = Books::new("1".to_owned(), Baseline::default());
        let mut draft = Draft::default();
        draft.push(&passage(1).0, None);
        books.confirm(&draft, Receipt { epoch: "e".to_owned(), first: 1, last: 1 });
        books.confirm(&draft, Receipt { epoch: "e".to_owned(), first: 3, last: 3 });
        books.confirm(&draft, Receipt { epoch: "e".to_owned(), first: 4, last: 5 });
        let said = said(&books, &AtCentre::default());
        assert!(said.contains("number 3 was confirmed after number 1"), "{said}");
        assert!(said.contains("1 events were confirmed with the numbers 4 to 5"), "{said}");
    }

    #[test]
    fn what_was_there_before_is_part_of_what_must_be_there() {
        let state = StartingState { occupied: 40, ..StartingState::default() };
        let marks = BTreeMap::from([("a".to_owned(), 100), ("b".to_owned(), 20)]);
        let mut books = Books::new("1".to_owned(), Baseline { state, marks, ..Baseline::default() });
        let mut draft = Draft::default();
        draft.push(&passage(1).0, None);
        books.confirm(&draft, Receipt { epoch: "b".to_owned(), first: 21, last: 21 });
        assert_eq!((books.occupied(), books.applied_when_settled()), (41, 121));
    }
}
