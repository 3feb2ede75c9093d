//! Anomalies: what did not add up, once for each code, garage and plate, with its count and the times of the first and the last.
//!
//! A plate that nobody registered is not written down here: a city may have millions. The entries of the account
//! `unregistered` say it, and listing reads them.

use super::super::chains::{ChainHeads, PlateChain, walk};
use super::super::codec::{damaged, decode, sized};
use super::super::pages::is_token;
use super::super::written::at_one_position;
use super::entries::{BilledStay, BillingEntry, EntryKind, EntryNumber, link};
use super::list::EntryReader;
use crate::codes::{self, Code};
use crate::parking::Plate;
use crate::server::hex::{hex, unhex};
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
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
    Unregistered,
    CalendarIncomplete,
}

impl AnomalyCode {
    const ALL: [AnomalyCode; 11] = [
        AnomalyCode::ExitWithoutEntry,
        AnomalyCode::EntryWhileOpen,
        AnomalyCode::ClockSkew,
        AnomalyCode::ExitBeforeEntry,
        AnomalyCode::OpenInTwoGarages,
        AnomalyCode::StayOver30Days,
        AnomalyCode::ClockNotSet,
        AnomalyCode::UnreadablePlate,
        AnomalyCode::NoTariff,
        AnomalyCode::Unregistered,
        AnomalyCode::CalendarIncomplete,
    ];

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
                "no tariff has a price for this stay yet; it waits. Add a tariff to the configuration and restart the server; then \"server tariffs apply\" prices it",
                "server tariffs apply",
            ),
            AnomalyCode::CalendarIncomplete => (
                codes::CALENDAR_INCOMPLETE,
                "a stay needs the calendar of its tariff on a day that the calendar does not cover; it waits, and its note in GET /v1/charges names the calendar and the day. Add the holidays of that year and set complete_through in the configuration, and restart the server; then \"server tariffs apply\" prices it",
                "server tariffs apply",
            ),
            AnomalyCode::Unregistered => (
                codes::UNREGISTERED,
                "this plate is not registered; its stays are charged to the account \"unregistered\". \"server plates add\" registers it for later stays, \"server charges void\" voids a charge",
                "server plates add PLATE ACCOUNT NAME",
            ),
        }
    }

    pub fn parse(text: &str) -> Option<AnomalyCode> {
        AnomalyCode::ALL.into_iter().find(|code| code.told().0.as_str() == text)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    pub count: u64,
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    pub first_position: u64,
    pub last_position: u64,
}

impl Anomaly {
    pub fn happened(&mut self, at_ms: i64, position: u64) {
        if self.count == 0 {
            (self.first_at_ms, self.first_position) = (at_ms, position);
        }
        self.count += 1;
        (self.last_at_ms, self.last_position) = (at_ms, position);
    }
}

/// Where in a key the plate begins, or the token that stands for one.
pub(super) const PLATE_AT: usize = 8;

pub(super) fn key(code: AnomalyCode, garage: u32, plate: Option<&Plate>) -> Vec<u8> {
    let plate = plate.map_or("", Plate::as_str);
    [b"vbn", &[code as u8][..], &garage.to_be_bytes(), plate.as_bytes()].concat()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedAnomaly {
    pub code: AnomalyCode,
    pub garage: u32,
    pub plate: Option<String>,
    pub anomaly: Anomaly,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnomalyCursor {
    Key(Vec<u8>),
    /// Before this entry of the account `unregistered`; the greatest number: from its newest on.
    Entry(EntryNumber),
}

impl fmt::Display for AnomalyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnomalyCursor::Key(key) => f.write_str(&hex(key)),
            AnomalyCursor::Entry(number) => write!(f, "e{number}"),
        }
    }
}

impl AnomalyCursor {
    pub fn parse(text: &str) -> Option<AnomalyCursor> {
        if let Some(number) = text.strip_prefix('e') {
            return number.parse().ok().map(AnomalyCursor::Entry);
        }
        unhex(text).filter(|key| key.len() >= PLATE_AT).map(AnomalyCursor::Key)
    }
}

/// How many anomalies, and entries of unregistered plates and of their chains, an answer looks at before it gives what it has.
const LOOK_AT: usize = 20_000;

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
    pub anomalies: Vec<NotedAnomaly>,
    /// Where to continue; `None` at the end.
    pub next: Option<AnomalyCursor>,
}

/// Lists the wanted anomalies: first the stored ones, then the plates of the entries of the account `unregistered`, whose number
/// is given if it exists. Gives the position that they show. While `saving` is held the views are not written.
pub fn list(
    store: &Store,
    saving: Option<&Mutex<()>>,
    unregistered: Option<u32>,
    wanted: &AnomalyFilter,
) -> Result<(u64, AnomalyList), StoreError> {
    at_one_position(store, saving, || list_now(store, unregistered, wanted, LOOK_AT))
}

pub(super) fn list_now(
    store: &Store,
    unregistered: Option<u32>,
    wanted: &AnomalyFilter,
    look_at: usize,
) -> Result<AnomalyList, StoreError> {
    let mut search = AnomalySearch { store, wanted, look_at, found: Vec::new() };
    let before = match &wanted.after {
        Some(AnomalyCursor::Entry(number)) => Some(*number).filter(|number| *number != EntryNumber::MAX),
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
    let next = match unregistered.filter(|_| is_asked_for) {
        None => None,
        Some(_) if search.found.len() == wanted.limit => Some(EntryNumber::MAX),
        Some(account) => match &wanted.plate {
            Some(plate) => search.of_unregistered_plate(account, plate, before)?,
            None => search.of_unregistered(account, before)?,
        },
    };
    Ok(AnomalyList { anomalies: search.found, next: next.map(AnomalyCursor::Entry) })
}

struct AnomalySearch<'a> {
    store: &'a Store,
    wanted: &'a AnomalyFilter,
    look_at: usize,
    found: Vec<NotedAnomaly>,
}

impl AnomalySearch<'_> {
    /// Whether the answer has room for one more, and may look for it.
    fn goes_on(&mut self) -> bool {
        let goes_on = self.look_at > 0 && self.found.len() < self.wanted.limit;
        self.look_at = self.look_at.saturating_sub(1);
        goes_on
    }

    /// Finds the anomalies stored after a key, code by code, and only those of a garage or a plate if the filter names one.
    /// Returns where to continue if there may be more.
    fn written_down(&mut self, after: &[u8]) -> Result<Option<AnomalyCursor>, StoreError> {
        let mut last = after.to_vec();
        for code in
            AnomalyCode::ALL.into_iter().filter(|code| self.wanted.code.is_none_or(|its| its == *code))
        {
            let (mut from, to) = keys_of(code, self.wanted);
            if *after >= *from {
                from = [after, &[0]].concat();
            }
            if from >= to {
                continue;
            }
            for entry in self.store.range(&from, &to) {
                let (key, value) = entry?;
                if !self.goes_on() {
                    return Ok(Some(AnomalyCursor::Key(last)));
                }
                let noted = read(&key, &value)?;
                let plate = self.wanted.plate.as_ref();
                if plate.is_none_or(|plate| noted.plate.as_deref() == Some(plate.as_str())) {
                    self.found.push(noted);
                }
                last = key;
            }
        }
        Ok(None)
    }

    /// Finds the plates of the account, each at its newest entry in a garage. Returns where to continue.
    fn of_unregistered(
        &mut self,
        account: u32,
        before: Option<EntryNumber>,
    ) -> Result<Option<EntryNumber>, StoreError> {
        // Two, because each keeps the page that it read last.
        let (mut reader, mut chains) = (EntryReader::new(self.store), EntryReader::new(self.store));
        let mut next = before;
        loop {
            next = reader.before(next)?;
            let Some(number) = next else { return Ok(None) };
            if !self.goes_on() {
                return Ok(Some(number + 1));
            }
            let entry = reader.entry(number)?;
            let Some(stay) = entry.as_ref().and_then(|entry| stay_of(entry, account)) else { continue };
            if self.wanted.garage.is_some_and(|garage| garage != stay.garage) {
                continue;
            }
            let plate = Plate::new(&stay.plate).map_err(|_| damaged(b"vbe"))?;
            // Empty: the plate was listed at its newest entry.
            let visits = self.visits(&mut chains, account, &plate, Some((stay.garage, number)))?;
            if !visits.is_empty() {
                self.found.push(unregistered(&visits));
            }
        }
    }

    /// Finds one plate among them: only its chain is read.
    fn of_unregistered_plate(
        &mut self,
        account: u32,
        plate: &Plate,
        before: Option<EntryNumber>,
    ) -> Result<Option<EntryNumber>, StoreError> {
        let mut of_garages: BTreeMap<u32, Vec<Visited>> = BTreeMap::new();
        for visited in self.visits(&mut EntryReader::new(self.store), account, plate, None)? {
            of_garages.entry(visited.1.garage).or_default().push(visited);
        }
        let newest = |visits: &Vec<Visited>| visits[0].0;
        let mut of_garages: Vec<Vec<Visited>> = of_garages
            .into_values()
            .filter(|visits| before.is_none_or(|before| newest(visits) < before))
            .filter(|visits| self.wanted.garage.is_none_or(|garage| garage == visits[0].1.garage))
            .collect();
        of_garages.sort_by_key(|visits| std::cmp::Reverse(newest(visits)));
        for visits in of_garages {
            if self.found.len() == self.wanted.limit {
                return Ok(Some(newest(&visits) + 1));
            }
            self.found.push(unregistered(&visits));
        }
        Ok(None)
    }

    /// The stays of a plate that the account pays for, newest first; or those in one garage, if the newest has that number.
    fn visits(
        &mut self,
        reader: &mut EntryReader<'_>,
        account: u32,
        plate: &Plate,
        only: Option<(u32, EntryNumber)>,
    ) -> Result<Vec<Visited>, StoreError> {
        let newest = link(ChainHeads::<EntryNumber>::read(self.store, PlateChain::of(plate))?);
        let chain = walk(newest, |number| {
            self.look_at = self.look_at.saturating_sub(1);
            let entry = reader.entry(number)?;
            let before = entry.as_ref().and_then(|entry| link(entry.before_of_plate));
            Ok((entry, before))
        });
        let mut visits = Vec::new();
        for found in chain {
            let (number, Some(entry)) = found? else { break };
            let is_of = |stay: &BilledStay| {
                *stay.plate == *plate.as_str() && only.is_none_or(|(garage, _)| garage == stay.garage)
            };
            if let Some(stay) = stay_of(&entry, account).filter(is_of) {
                if visits.is_empty() && only.is_some_and(|(_, newest)| newest != number) {
                    break;
                }
                visits.push((number, stay, entry.position));
            }
        }
        Ok(visits)
    }
}

type Visited = (EntryNumber, BilledStay, u64);

fn keys_of(code: AnomalyCode, wanted: &AnomalyFilter) -> (Vec<u8>, Vec<u8>) {
    let of_code = |code: u8| [b"vbn", &[code][..]].concat();
    match (wanted.garage, &wanted.plate) {
        (Some(garage), Some(plate)) => {
            let from = key(code, garage, Some(plate));
            let to = [&from[..], &[0]].concat();
            (from, to)
        }
        (Some(garage), None) => {
            let to =
                garage.checked_add(1).map_or_else(|| of_code(code as u8 + 1), |next| key(code, next, None));
            (key(code, garage, None), to)
        }
        (None, _) => (of_code(code as u8), of_code(code as u8 + 1)),
    }
}

/// The stay of an entry, if the account pays for it. A forgotten plate belongs to nobody.
fn stay_of(entry: &BillingEntry, account: u32) -> Option<BilledStay> {
    match &entry.what {
        EntryKind::Stay(stay) if entry.account == account && !is_token(&stay.plate) => Some(stay.clone()),
        _ => None,
    }
}

/// The anomaly of an unregistered plate in a garage, from its stays there, newest first.
fn unregistered(visits: &[Visited]) -> NotedAnomaly {
    let mut anomaly = Anomaly::default();
    let mut exits = HashSet::new();
    for (_, stay, position) in visits.iter().rev() {
        // An entry that took the place of another is about the same exit.
        let exit = stay.exit;
        if exits.insert((exit.position, exit.sequence, exit.stream(), exit.is_made(), exit.at_ms)) {
            anomaly.happened(exit.at_ms, *position);
        }
    }
    let (_, stay, _) = &visits[0];
    NotedAnomaly {
        code: AnomalyCode::Unregistered,
        garage: stay.garage,
        plate: Some(stay.plate.to_string()),
        anomaly,
    }
}

fn read(key: &[u8], value: &[u8]) -> Result<NotedAnomaly, StoreError> {
    let code = key.get(3).and_then(|code| AnomalyCode::ALL.into_iter().find(|its| *its as u8 == *code));
    let garage = u32::from_be_bytes(sized(key, 4..PLATE_AT)?);
    let plate = std::str::from_utf8(&key[PLATE_AT..]).map_err(|_| damaged(key))?;
    Ok(NotedAnomaly {
        code: code.ok_or_else(|| damaged(key))?,
        garage,
        plate: (!plate.is_empty()).then(|| plate.to_owned()),
        anomaly: decode(key, value)?,
    })
}
