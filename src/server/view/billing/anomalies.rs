//! Anomalies: what did not add up, once for each code, garage and plate, with its count and the times of the first and the last.
//!
//! **Promise.** Each fact counts once, and no longer than it does not add up: the list is a function of the facts, in whatever order
//! they came.
//!
//! | key | value |
//! | --- | --- |
//! | `vbn` + code (u8) + garage (u32) + plate | how often it happened (u64) |
//! | `vbf` + the same + 0 (u8) + [`AnomalyFact`]: time (u64), stream (u32), sequence (u64), made (u8) | the position (u64) of the fact |
//!
//! A plate that nobody registered is not written down here: a city may have millions. Its stays say it, and listing reads them.

use super::super::chains::{ChainHeads, PlateChain};
use super::super::changes::ViewChanges;
use super::super::codec::{damaged, decode, read_range, sized, u64_from};
use super::super::list::{StayFilter, list_now as list_stays};
use super::super::pages::{Slot, SlotAddress, StoredPassage, is_token};
use super::super::state::Snapshot;
use super::super::written::at_one_position;
use super::draft::{ClosedStay, UNREGISTERED};
use super::places::Place;
use crate::codes::{self, Code};
use crate::parking::Plate;
use crate::parking::stay::{End, Visit};
use crate::server::hex::{hex, unhex};
use crate::server::ledger::Ledger;
use crate::store::{Store, StoreError};
use smol_str::SmolStr;
use std::collections::HashSet;
use std::fmt;
use std::sync::Mutex;

/// What did not add up. Stands in keys: new ones are added at the end. [`AnomalyCode::told`] says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum AnomalyCode {
    ExitWithoutEntry = 1,
    EntryWhileOpen,
    ClockSkew,
    ExitBeforeEntry,
    OpenInTwoGarages,
    StayOver30Days,
    ClockNotSet,
    UnreadablePlate,
    NoTariff,
    CalendarIncomplete,
    PlaceUndecided,
    OtherAccountInContract,
    Unregistered,
}

impl AnomalyCode {
    const ALL: [AnomalyCode; 13] = [
        AnomalyCode::ExitWithoutEntry,
        AnomalyCode::EntryWhileOpen,
        AnomalyCode::ClockSkew,
        AnomalyCode::ExitBeforeEntry,
        AnomalyCode::OpenInTwoGarages,
        AnomalyCode::StayOver30Days,
        AnomalyCode::ClockNotSet,
        AnomalyCode::UnreadablePlate,
        AnomalyCode::NoTariff,
        AnomalyCode::CalendarIncomplete,
        AnomalyCode::PlaceUndecided,
        AnomalyCode::OtherAccountInContract,
        AnomalyCode::Unregistered,
    ];

    /// Whether it is about a garage rather than a car: listed once for the garage.
    fn is_about_a_garage(self) -> bool {
        use AnomalyCode::{CalendarIncomplete, ClockNotSet, NoTariff, UnreadablePlate};
        matches!(self, ClockNotSet | UnreadablePlate | NoTariff | CalendarIncomplete)
    }

    /// Its code; what it means, what became of it, and what a person can do; and the command that resolves it, as it is typed,
    /// with what is to be filled in.
    pub fn told(self) -> (Code, &'static str, &'static str) {
        const CLOSE: &str = "server stays close ENTRY --left TIME --reason TEXT";
        match self {
            AnomalyCode::ExitWithoutEntry => (
                codes::EXIT_WITHOUT_ENTRY,
                "a car left, but no entry with its plate is open; nothing is charged. \"server stays review\" looks for an entry with a look-alike plate, \"server stays join\" joins the two into one stay",
                "server stays join ENTRY EXIT --reason TEXT",
            ),
            AnomalyCode::EntryWhileOpen => (
                codes::ENTRY_WHILE_OPEN,
                "a car that was already inside entered again: its exit was not seen. The earlier stay remains unresolved and is not charged; \"server stays close\" sets the time at which it ended",
                CLOSE,
            ),
            AnomalyCode::ClockSkew => (
                codes::CLOCK_SKEW,
                "a stay ended up to 5 minutes before it began, because two clocks differ; it counts as zero minutes long. Set the clocks of the garage right; \"server charges void\" voids a charge that is too high",
                "server charges void ID --reason TEXT",
            ),
            AnomalyCode::ExitBeforeEntry => (
                codes::EXIT_BEFORE_ENTRY,
                "a stay ended more than 5 minutes before it began; it is held and not charged. Set the clocks of the garage right; \"server stays close\" sets the right end of this stay, and charges it",
                CLOSE,
            ),
            AnomalyCode::OpenInTwoGarages => (
                codes::OPEN_IN_TWO_GARAGES,
                "a car entered a garage while it was inside another: a plate was misread, or an exit was missed. \"server stays review\" shows the long stays of such cars; \"server stays close\" ends one whose exit was missed, \"server stays split\" divides one",
                CLOSE,
            ),
            AnomalyCode::StayOver30Days => (
                codes::STAY_OVER_30_DAYS,
                "a stay is longer than 30 days; it is held and not charged. \"server stays bill\" charges it as it is, \"server stays split\" divides it",
                "server stays bill ID --reason TEXT",
            ),
            AnomalyCode::ClockNotSet => (
                codes::CLOCK_NOT_SET,
                "the garage's clock was not known to be set when it took these events; their stays are charged by the recorded times, which may be wrong. Set the clock; \"server charges credit\" refunds overcharges",
                "server charges credit ID --amount MINOR_UNITS --reason TEXT",
            ),
            AnomalyCode::UnreadablePlate => (
                codes::UNREADABLE_PLATE,
                "a plate could not be read; the car is counted, but never matched or charged. If somebody knows the plate, post a plate_correction for that event to the garage's edge",
                r#"curl -H 'Content-Type: application/json' -d '{"kind":"plate_correction","epoch":"EPOCH","sequence":SEQUENCE,"plate":"PLATE"}' http://EDGE/v1/events"#,
            ),
            AnomalyCode::NoTariff => (
                codes::NO_TARIFF,
                "no tariff has a price for this stay yet; it waits. Add a tariff to the configuration and restart the server",
                "server tariffs check FILE",
            ),
            AnomalyCode::CalendarIncomplete => (
                codes::CALENDAR_INCOMPLETE,
                "a stay needs the calendar of its tariff on a day that the calendar does not cover; it waits, and its note in GET /v1/charges names the calendar and the day. Add the holidays of that year and set complete_through in the configuration, and restart the server",
                "server tariffs check FILE",
            ),
            AnomalyCode::PlaceUndecided => (
                codes::PLACE_UNDECIDED,
                "whether the contract of this car has a place for the stay depends on another car of the contract that is still inside; the stay is on hold until that car leaves. \"server stays close\" ends a stay whose exit was missed",
                CLOSE,
            ),
            AnomalyCode::OtherAccountInContract => (
                codes::OTHER_ACCOUNT_IN_CONTRACT,
                "the plate is registered to another account than that of the contract that names the car; the account of the contract pays. Correct the registration or the contract",
                "server plates add PLATE ACCOUNT",
            ),
            AnomalyCode::Unregistered => (
                codes::UNREGISTERED,
                "this plate is not registered; its stays are charged to the account \"unregistered\". \"server plates add\" registers it, from a date on; \"server charges void\" voids a charge",
                "server plates add PLATE ACCOUNT --from DATE",
            ),
        }
    }

    pub fn parse(text: &str) -> Option<AnomalyCode> {
        AnomalyCode::ALL.into_iter().find(|code| code.told().0.as_str() == text)
    }
}

/// What is listed once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnomalyKey {
    pub code: AnomalyCode,
    pub garage: u32,
    /// Empty for what is about a garage.
    plate: SmolStr,
}

impl AnomalyKey {
    pub fn of(code: AnomalyCode, garage: u32, plate: &Plate) -> AnomalyKey {
        match code.is_about_a_garage() {
            true => AnomalyKey::of_garage(code, garage),
            false => AnomalyKey { code, garage, plate: plate.as_str().into() },
        }
    }

    pub fn of_garage(code: AnomalyCode, garage: u32) -> AnomalyKey {
        AnomalyKey { code, garage, plate: SmolStr::default() }
    }

    fn with(&self, prefix: &[u8]) -> Vec<u8> {
        [prefix, &[self.code as u8], &self.garage.to_be_bytes(), self.plate.as_bytes()].concat()
    }

    pub(super) fn key(&self) -> Vec<u8> {
        self.with(b"vbn")
    }

    pub(super) fn fact_key(&self, fact: AnomalyFact) -> Vec<u8> {
        let AnomalyFact { at_ms, stream, sequence, is_made } = fact;
        let time = (at_ms as u64) ^ (1 << 63);
        let mut key = self.with(b"vbf");
        key.push(0);
        key.extend(time.to_be_bytes());
        key.extend(stream.to_be_bytes());
        key.extend(sequence.to_be_bytes());
        key.push(u8::from(is_made));
        key
    }

    /// Reads a key of a count.
    fn read(key: &[u8]) -> Result<AnomalyKey, StoreError> {
        let code = key.get(3).and_then(|code| AnomalyCode::ALL.into_iter().find(|its| *its as u8 == *code));
        let garage = u32::from_be_bytes(sized(key, 4..PLATE_AT)?);
        let plate = std::str::from_utf8(&key[PLATE_AT..]).map_err(|_| damaged(key))?;
        Ok(AnomalyKey { code: code.ok_or_else(|| damaged(key))?, garage, plate: plate.into() })
    }
}

/// The event that does not add up, or what an operator made of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnomalyFact {
    at_ms: i64,
    stream: u32,
    sequence: u64,
    is_made: bool,
}

impl AnomalyFact {
    pub fn of(passage: StoredPassage) -> AnomalyFact {
        AnomalyFact {
            at_ms: passage.at_ms,
            stream: passage.stream(),
            sequence: passage.sequence,
            is_made: passage.is_made(),
        }
    }

    pub fn of_event(stream: u32, sequence: u64, at_ms: i64) -> AnomalyFact {
        AnomalyFact { at_ms, stream, sequence, is_made: false }
    }
}

/// The plates of an anomaly in any garage.
pub(super) fn plates_of(store: &Store, code: AnomalyCode) -> Result<HashSet<SmolStr>, StoreError> {
    let (from, to) = ([b"vbn", &[code as u8][..]].concat(), [b"vbn", &[code as u8 + 1][..]].concat());
    store.range(&from, &to).map(|entry| Ok(AnomalyKey::read(&entry?.0)?.plate)).collect()
}

/// Where in a key the plate begins.
const PLATE_AT: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    pub code: AnomalyCode,
    pub garage: u32,
    pub plate: Option<String>,
    pub count: u64,
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    pub first_position: u64,
    pub last_position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnomalyCursor {
    Key(Vec<u8>),
    /// Among the stays of unregistered cars: after this one; `None`: from the first on.
    Stay(Option<SlotAddress>),
}

impl fmt::Display for AnomalyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnomalyCursor::Key(key) => f.write_str(&hex(key)),
            AnomalyCursor::Stay(after) => {
                let after = postcard::to_stdvec(after).expect("an address always encodes");
                write!(f, "s{}", hex(&after))
            }
        }
    }
}

impl AnomalyCursor {
    pub fn parse(text: &str) -> Option<AnomalyCursor> {
        match text.strip_prefix('s') {
            Some(after) => postcard::from_bytes(&unhex(after)?).ok().map(AnomalyCursor::Stay),
            None => unhex(text).filter(|key| key.len() >= PLATE_AT).map(AnomalyCursor::Key),
        }
    }
}

/// How many anomalies, and visits of unregistered plates and of their chains, an answer looks at before it gives what it has.
const LOOK_AT: usize = 20_000;
/// How many stays are read at once to look for unregistered cars.
const STAYS_AT_ONCE: usize = 256;

/// What to list. `None` filters nothing.
#[derive(Debug, Clone, Default)]
pub struct AnomalyFilter {
    pub code: Option<AnomalyCode>,
    pub garage: Option<u32>,
    pub plate: Option<Plate>,
    pub after: Option<AnomalyCursor>,
    pub limit: usize,
}

#[derive(Debug)]
pub struct AnomalyList {
    pub anomalies: Vec<Anomaly>,
    /// Where to continue; `None` at the end.
    pub next: Option<AnomalyCursor>,
}

/// Lists the wanted anomalies: first those that are written down, then the plates of stays that nobody registered. Gives the
/// position that they show. While `saving` is held the views are not written.
pub fn list(
    (view, ledger): (&Snapshot, &Ledger),
    saving: Option<&Mutex<()>>,
    wanted: &AnomalyFilter,
) -> Result<(u64, AnomalyList), StoreError> {
    at_one_position(ledger.store(), saving, || list_now((view, ledger), wanted, LOOK_AT))
}

pub(super) fn list_now(
    (view, ledger): (&Snapshot, &Ledger),
    wanted: &AnomalyFilter,
    look_at: usize,
) -> Result<AnomalyList, StoreError> {
    let mut search = AnomalySearch { view, ledger, wanted, look_at, found: Vec::new() };
    let after = match &wanted.after {
        Some(AnomalyCursor::Stay(after)) => *after,
        after => {
            let after = match after {
                Some(AnomalyCursor::Key(key)) => &key[..],
                _ => &[],
            };
            let next = search.written_down(after)?;
            if next.is_some() {
                return Ok(AnomalyList { anomalies: search.found, next });
            }
            None
        }
    };
    let is_asked_for = wanted.code.is_none_or(|code| code == AnomalyCode::Unregistered);
    let next = if is_asked_for && view.billing.account(UNREGISTERED).is_some() {
        search.unregistered(after)?
    } else {
        None
    };
    Ok(AnomalyList { anomalies: search.found, next })
}

struct AnomalySearch<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
    wanted: &'a AnomalyFilter,
    look_at: usize,
    found: Vec<Anomaly>,
}

impl AnomalySearch<'_> {
    /// Whether the answer may look at one more.
    fn goes_on(&mut self) -> bool {
        let goes_on = self.look_at > 0 && self.found.len() < self.wanted.limit;
        self.look_at = self.look_at.saturating_sub(1);
        goes_on
    }

    /// Finds the anomalies written down after a key, code by code, and only those of a garage or a plate if the filter names one.
    fn written_down(&mut self, after: &[u8]) -> Result<Option<AnomalyCursor>, StoreError> {
        let store = self.ledger.store();
        let after = [after, &[0]].concat();
        let mut last = None;
        for code in AnomalyCode::ALL.into_iter().filter(|code| self.wanted.code.is_none_or(|its| its == *code)) {
            let (from, to) = keys_of(code, self.wanted);
            for entry in read_range::<u64>(store, from.as_slice().max(after.as_slice()), &to) {
                let (key, count) = entry?;
                if !self.goes_on() {
                    return Ok(last.map(AnomalyCursor::Key).or(Some(AnomalyCursor::Key(from))));
                }
                let anomaly = AnomalyKey::read(&key)?;
                if self.wanted.plate.as_ref().is_none_or(|plate| *plate.as_str() == *anomaly.plate) {
                    self.found.push(written(store, anomaly, count)?);
                }
                last = Some(key);
            }
        }
        Ok(None)
    }

    /// Finds the cars that nobody registered: each once for a garage, at its newest stay there.
    fn unregistered(&mut self, mut after: Option<SlotAddress>) -> Result<Option<AnomalyCursor>, StoreError> {
        let store = self.ledger.store();
        loop {
            let wanted = StayFilter {
                plate: self.wanted.plate.clone(),
                garage: self.wanted.garage,
                open: Some(false),
                after,
                limit: STAYS_AT_ONCE,
            };
            let stays = list_stays(store, &wanted, self.look_at.max(1))?;
            for stay in stays.stays {
                if !self.goes_on() {
                    return Ok(Some(AnomalyCursor::Stay(after)));
                }
                after = Some(stay.address);
                let End::Left(exit) = stay.end else { continue };
                if is_token(&stay.plate) || !self.is_unregistered(stay.address.garage, &stay.plate, stay.entry, exit)? {
                    continue;
                }
                self.found.extend(self.of_car(stay.address, &stay.plate)?);
            }
            match stays.next {
                Some(next) if self.goes_on() => after = Some(next),
                next => return Ok(next.map(|next| AnomalyCursor::Stay(Some(next)))),
            }
        }
    }

    fn is_unregistered(
        &self,
        garage: u32,
        plate: &str,
        entry: StoredPassage,
        exit: StoredPassage,
    ) -> Result<bool, StoreError> {
        let plate = Plate::stored(plate).map_err(|_| damaged(b"vs"))?;
        let Some(garage) = self.view.billing.garages.get(garage) else { return Ok(false) };
        let stay = ClosedStay { garage, plate: &plate, entry, exit, place: Place::default() };
        Ok(self.view.billing.assessor(self.ledger).draft(stay)?.account == UNREGISTERED)
    }

    /// The anomaly of a car in a garage, if its newest stay there that nobody pays is at this address.
    fn of_car(&self, newest: SlotAddress, plate: &str) -> Result<Option<Anomaly>, StoreError> {
        let its = Plate::stored(plate).map_err(|_| damaged(b"vs"))?;
        let head = ChainHeads::read(self.ledger.store(), PlateChain::of(&its))?;
        let mut exits: Vec<StoredPassage> = Vec::new();
        for member in ViewChanges::on(self.ledger.store()).chain(head, Slot::clone) {
            let (address, slot) = member?;
            let Some((other, Visit::Stay { entry, end: End::Left(exit) })) = &slot.visit else { continue };
            if address.garage != newest.garage
                || **other != *plate
                || !self.is_unregistered(newest.garage, plate, *entry, *exit)?
            {
                continue;
            }
            if exits.is_empty() && address != newest {
                return Ok(None);
            }
            exits.push(*exit);
        }
        let by_time = |exit: &&StoredPassage| (exit.at_ms, exit.position, exit.sequence);
        let (Some(first), Some(last)) = (exits.iter().min_by_key(by_time), exits.iter().max_by_key(by_time)) else {
            return Ok(None);
        };
        Ok(Some(Anomaly {
            code: AnomalyCode::Unregistered,
            garage: newest.garage,
            plate: Some(plate.to_owned()),
            count: exits.len() as u64,
            first_at_ms: first.at_ms,
            last_at_ms: last.at_ms,
            first_position: first.position,
            last_position: last.position,
        }))
    }
}

/// An anomaly with the first and the last of its facts.
fn written(store: &Store, anomaly: AnomalyKey, count: u64) -> Result<Anomaly, StoreError> {
    let from = [&anomaly.with(b"vbf")[..], &[0]].concat();
    let to = [&from[..from.len() - 1], &[1]].concat();
    let first = store.range(&from, &to).next().transpose()?;
    let last = store.last(&from, &to)?;
    let (Some(first), Some(last)) = (first, last) else { return Err(damaged(&anomaly.key())) };
    let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let time = u64::from_be_bytes(sized(key, from.len()..from.len() + 8)?);
        let position: u64 = decode(key, value)?;
        Ok::<_, StoreError>(((time ^ (1 << 63)) as i64, position))
    };
    let ((first_at_ms, first_position), (last_at_ms, last_position)) = (read(&first)?, read(&last)?);
    let AnomalyKey { code, garage, plate } = anomaly;
    let plate = (!plate.is_empty()).then(|| plate.to_string());
    Ok(Anomaly { code, garage, plate, count, first_at_ms, last_at_ms, first_position, last_position })
}

fn keys_of(code: AnomalyCode, wanted: &AnomalyFilter) -> (Vec<u8>, Vec<u8>) {
    let of_code = |code: u8| [b"vbn", &[code][..]].concat();
    let of_garage = |garage: u32| [&of_code(code as u8)[..], &garage.to_be_bytes()].concat();
    match (wanted.garage, &wanted.plate) {
        (Some(garage), Some(plate)) => {
            let from = [&of_garage(garage)[..], plate.as_str().as_bytes()].concat();
            let to = [&from[..], &[0]].concat();
            (from, to)
        }
        (Some(garage), None) => {
            let to = garage.checked_add(1).map_or_else(|| of_code(code as u8 + 1), of_garage);
            (of_garage(garage), to)
        }
        (None, _) => (of_code(code as u8), of_code(code as u8 + 1)),
    }
}
