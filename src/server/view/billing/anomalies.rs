//! What did not add up: once for each code, garage and plate, with how often, first and last.
//!
//! A plate that nobody registered is not written down here: a city may have millions. The entries of the account
//! `unregistered` say it, and listing reads them.

use super::super::{decode, sized};
use crate::parking::Plate;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

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

    /// What it means, and what a person can do.
    pub fn explanation(self) -> &'static str {
        match self {
            Code::ExitWithoutEntry => "a car left that had not entered, by its plate; nothing is charged. \"server stays review\" looks for an entry with a look-alike plate",
            Code::EntryWhileOpen => "a car entered that was inside already: its exit was not seen. The former stay ends unresolved and is not charged; \"server stays close\" ends it at a time",
            Code::ClockSkew => "a stay ended up to 5 minutes before it began, because two clocks differ; it counts as one without length",
            Code::ExitBeforeEntry => "a stay ended more than 5 minutes before it began; it is not charged. Check the clocks of the garage",
            Code::OpenInTwoGarages => "a car entered a garage while it was inside another: a plate was misread, or an exit was missed",
            Code::StayOver30Days => "a stay is longer than 30 days; it is held and not charged. \"server stays bill\" charges it as it is, \"server stays split\" makes two of it",
            Code::ClockNotSet => "the garage's clock was not known to be set when it took these events; what they cost may be wrong",
            Code::UnreadablePlate => "a plate could not be read; the car is counted, never matched or charged",
            Code::NoTariff => "no tariff has a price for this stay yet; it waits. Add one, restart the server or give it, then \"server tariffs apply\"",
            Code::Unregistered => "nobody registered this plate; it is charged to the account \"unregistered\"",
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

/// Those that are written down, behind `after`, at most `limit`, and whether there are more. A cursor is a key.
pub fn noted(
    store: &Store,
    after: Option<&[u8]>,
    limit: usize,
    wanted: impl Fn(&Noted) -> bool,
) -> Result<(Vec<(Vec<u8>, Noted)>, bool), StoreError> {
    let from = after.map_or_else(|| b"vbn".to_vec(), |after| [after, &[0]].concat());
    let mut found = Vec::new();
    for entry in store.range(&from, b"vbo") {
        let (key, value) = entry?;
        let damaged = || super::super::damaged(&key);
        let code = key.get(3).and_then(|code| Code::ALL.into_iter().find(|its| *its as u8 == *code));
        let garage = u32::from_be_bytes(sized(key.get(4..8).unwrap_or_default())?);
        let plate = std::str::from_utf8(&key[8..]).map_err(|_| damaged())?;
        let noted = Noted {
            code: code.ok_or_else(damaged)?,
            garage,
            plate: (!plate.is_empty()).then(|| plate.to_owned()),
            anomaly: decode(&key, &value)?,
        };
        if wanted(&noted) {
            if found.len() == limit {
                return Ok((found, true));
            }
            found.push((key, noted));
        }
    }
    Ok((found, false))
}
