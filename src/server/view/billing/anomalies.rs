//! What did not add up: once for each code, garage and plate, with how often, first and last.
//!
//! A plate that nobody registered is not written down here: a city may have millions. The entries of the account
//! `unregistered` say it, and listing reads them.

use super::super::pages::{Head, is_token};
use super::super::{decode, sized};
use super::entries::{Entry, Number, PlateHeads, Stay, What};
use super::list::Reader;
use crate::parking::Plate;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What did not add up. Stands in keys: new ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// An exit of a car that had not entered.
    ExitWithoutEntry = 1,
    /// A car entered that was inside: when it had left, nobody saw.
    EntryWhileOpen,
    /// A stay ended up to five minutes before it began: two clocks differ. It has no length.
    ClockSkew,
    /// A stay ended more than five minutes before it began. It is held.
    ExitBeforeEntry,
    /// A car entered one garage while it was inside another.
    OpenInTwoGarages,
    /// A stay is longer than thirty days. It is held.
    StayOver30Days,
    /// An event's time is that of a clock not known to be set.
    ClockNotSet,
    /// A plate that nobody could read.
    UnreadablePlate,
    /// A stay that no tariff has a price for.
    NoTariff,
    /// A plate that nobody registered.
    Unregistered,
}

impl Code {
    const ALL: [Code; 10] = [
        Code::ExitWithoutEntry,
        Code::EntryWhileOpen,
        Code::ClockSkew,
        Code::ExitBeforeEntry,
        Code::OpenInTwoGarages,
        Code::StayOver30Days,
        Code::ClockNotSet,
        Code::UnreadablePlate,
        Code::NoTariff,
        Code::Unregistered,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Code::ExitWithoutEntry => "exit_without_entry",
            Code::EntryWhileOpen => "entry_while_open",
            Code::ClockSkew => "clock_skew",
            Code::ExitBeforeEntry => "exit_before_entry",
            Code::OpenInTwoGarages => "open_in_two_garages",
            Code::StayOver30Days => "stay_over_30_days",
            Code::ClockNotSet => "clock_not_set",
            Code::UnreadablePlate => "unreadable_plate",
            Code::NoTariff => "no_tariff",
            Code::Unregistered => "unregistered",
        }
    }

    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// What it means, what became of it, and what a person can do; [`Code::command`] does it.
    pub fn explanation(self) -> &'static str {
        match self {
            Code::ExitWithoutEntry => {
                "a car left that had not entered, by its plate; nothing is charged. \"server stays review\" looks for an entry with a look-alike plate, \"server stays join\" makes one stay of the two"
            }
            Code::EntryWhileOpen => {
                "a car entered that was inside already: its exit was not seen. The former stay ends unresolved and is not charged; \"server stays close\" ends it at a time"
            }
            Code::ClockSkew => {
                "a stay ended up to 5 minutes before it began, because two clocks differ; it counts as one without length. Where that is too little, set the clocks of the garage right; where it is too much, \"server charges void\" takes the charge back"
            }
            Code::ExitBeforeEntry => {
                "a stay ended more than 5 minutes before it began; it is held and not charged. Set the clocks of the garage right; \"server stays close\" ends this stay at the time when the car left, and charges it"
            }
            Code::OpenInTwoGarages => {
                "a car entered a garage while it was inside another: a plate was misread, or an exit was missed. \"server stays review\" shows the long stays of such cars; \"server stays close\" ends one whose exit was missed, \"server stays split\" parts one in two"
            }
            Code::StayOver30Days => {
                "a stay is longer than 30 days; it is held and not charged. \"server stays bill\" charges it as it is, \"server stays split\" makes two of it"
            }
            Code::ClockNotSet => {
                "the garage's clock was not known to be set when it took these events; what they cost may be wrong. Set the clock; \"server charges credit\" gives back what was too much"
            }
            Code::UnreadablePlate => {
                "a plate could not be read; the car is counted, never matched or charged. A plate_correction for that event, posted to the garage's edge, says the plate where somebody knows it"
            }
            Code::NoTariff => {
                "no tariff has a price for this stay yet; it waits. Add one, restart the server or give it, then \"server tariffs apply\" prices it"
            }
            Code::Unregistered => {
                "nobody registered this plate; it is charged to the account \"unregistered\". \"server plates add\" says who pays from now on, \"server charges void\" takes a charge back"
            }
        }
    }

    /// The command that resolves it, as it is typed, with what is to be filled in.
    pub fn command(self) -> &'static str {
        match self {
            Code::ExitWithoutEntry => "server stays join ENTRY EXIT --reason TEXT",
            Code::EntryWhileOpen | Code::ExitBeforeEntry | Code::OpenInTwoGarages => {
                "server stays close ENTRY --left TIME --reason TEXT"
            }
            Code::ClockSkew => "server charges void ID --reason TEXT",
            Code::StayOver30Days => "server stays bill ID --reason TEXT",
            Code::ClockNotSet => "server charges credit ID --amount MINOR_UNITS --reason TEXT",
            Code::UnreadablePlate => {
                r#"curl -H 'Content-Type: application/json' -d '{"kind":"plate_correction","epoch":"EPOCH","sequence":SEQUENCE,"plate":"PLATE"}' http://EDGE/v1/events"#
            }
            Code::NoTariff => "server tariffs apply",
            Code::Unregistered => "server plates add PLATE ACCOUNT NAME",
        }
    }
}

/// How often, and when first and last.
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

pub(super) fn key(code: Code, garage: u32, plate: Option<&Plate>) -> Vec<u8> {
    let plate = plate.map_or("", Plate::as_str);
    [b"vbn", &[code as u8][..], &garage.to_be_bytes(), plate.as_bytes()].concat()
}

/// One that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    pub code: Code,
    /// By number.
    pub garage: u32,
    pub plate: Option<String>,
    pub anomaly: Anomaly,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Behind this key.
    Key(Vec<u8>),
    /// Before this entry of the account `unregistered`; none: from its newest on.
    Entry(Number),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Key(key) => key.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Cursor::Entry(number) => write!(f, "e{number}"),
        }
    }
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Cursor> {
        if let Some(number) = text.strip_prefix('e') {
            return number.parse().ok().map(Cursor::Entry);
        }
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let even = text.len().is_multiple_of(2) && text.len() >= 16;
        even.then(|| text.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>())?.map(Cursor::Key)
    }
}

/// How many entries of unregistered plates a list looks at before it answers with what it has found.
const LOOK_AT: usize = 20_000;

/// Those that are wanted behind `after`, at most `limit`, and where to go on. First what is written down, then the plates of
/// the entries of the account `unregistered`, whose number is given if there is one.
pub fn list(
    store: &Store,
    unregistered: Option<u32>,
    after: Option<Cursor>,
    limit: usize,
    wanted: impl Fn(&Noted) -> bool,
) -> Result<(Vec<Noted>, Option<Cursor>), StoreError> {
    let mut found = Vec::new();
    let before = match after {
        Some(Cursor::Entry(number)) => Some(number),
        other => {
            let from = match other {
                Some(Cursor::Key(key)) => [&key[..], &[0]].concat(),
                _ => b"vbn".to_vec(),
            };
            let mut last = None;
            for entry in store.range(&from.max(b"vbn".to_vec()), b"vbo") {
                let (key, value) = entry?;
                let noted = read(&key, &value)?;
                if wanted(&noted) {
                    if found.len() == limit {
                        return Ok((found, last.map(Cursor::Key)));
                    }
                    found.push(noted);
                    last = Some(key);
                }
            }
            if found.len() == limit {
                return Ok((found, Some(Cursor::Entry(Number::MAX))));
            }
            None
        }
    };
    let Some(account) = unregistered else { return Ok((found, None)) };
    of_unregistered(store, account, before.filter(|number| *number != Number::MAX), limit, wanted, &mut found)
        .map(|next| (found, next.map(Cursor::Entry)))
}

fn read(key: &[u8], value: &[u8]) -> Result<Noted, StoreError> {
    let damaged = || super::super::damaged(key);
    let code = key.get(3).and_then(|code| Code::ALL.into_iter().find(|its| *its as u8 == *code));
    let garage = u32::from_be_bytes(sized(key.get(4..PLATE_AT).unwrap_or_default())?);
    let plate = std::str::from_utf8(&key[PLATE_AT..]).map_err(|_| damaged())?;
    Ok(Noted {
        code: code.ok_or_else(damaged)?,
        garage,
        plate: (!plate.is_empty()).then(|| plate.to_owned()),
        anomaly: decode(key, value)?,
    })
}

/// The plates of the account, each at its newest entry in a garage. Where to go on.
fn of_unregistered(
    store: &Store,
    account: u32,
    before: Option<Number>,
    limit: usize,
    wanted: impl Fn(&Noted) -> bool,
    found: &mut Vec<Noted>,
) -> Result<Option<Number>, StoreError> {
    let mut reader = Reader::new(store);
    let (mut next, mut looked_at) = (before, 0);
    // A plate that is forgotten is nobody's any more.
    let is_of = |entry: &Entry| match &entry.what {
        What::Stay(stay) if entry.account == account && !is_token(&stay.plate) => Some(stay.clone()),
        _ => None,
    };
    loop {
        next = reader.before(next)?;
        let Some(number) = next else { return Ok(None) };
        if found.len() == limit || looked_at == LOOK_AT {
            return Ok(Some(number + 1));
        }
        looked_at += 1;
        let Some(stay) = reader.entry(number)?.as_ref().and_then(is_of) else { continue };
        let of_it = |other: &Stay| other.plate == stay.plate && other.garage == stay.garage;
        let noted = |anomaly| Noted {
            code: Code::Unregistered,
            garage: stay.garage,
            plate: Some(stay.plate.to_string()),
            anomaly,
        };
        if !wanted(&noted(Anomaly::default())) {
            continue;
        }
        let plate = Plate::stored(&stay.plate).map_err(|_| super::super::damaged(b"vbe"))?;
        let mut chain = PlateHeads::read(store, Head::of(&plate))?;
        let mut all: Vec<(Number, Stay, u64)> = Vec::new();
        while chain != 0 {
            let Some(entry) = reader.entry(chain)? else { break };
            if let Some(other) = is_of(&entry).filter(of_it) {
                all.push((chain, other, entry.position));
            }
            chain = entry.before_of_plate;
        }
        if all.first().is_none_or(|(newest, ..)| *newest != number) {
            continue; // it was told at its newest entry
        }
        let mut anomaly = Anomaly::default();
        let mut exits = Vec::new();
        for (_, stay, position) in all.iter().rev() {
            // An entry that took the place of another is about the same exit.
            if !exits.contains(&stay.exit) {
                exits.push(stay.exit);
                anomaly.happened(stay.exit.at_ms, *position);
            }
        }
        found.push(noted(anomaly));
    }
}
