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

use super::super::codec::{damaged, sized};
use super::super::pages::StoredPassage;
use crate::codes::{self, Code};
use crate::parking::Plate;
use crate::store::{Store, StoreError};
use smol_str::SmolStr;
use std::collections::HashSet;

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
    DecisionWithoutEffect,
    ForgottenStayChanged,
}

impl AnomalyCode {
    pub const ALL: [AnomalyCode; 15] = [
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
        AnomalyCode::DecisionWithoutEffect,
        AnomalyCode::ForgottenStayChanged,
    ];

    /// Whether it is about a garage rather than a car: listed once for the garage.
    fn is_about_a_garage(self) -> bool {
        use AnomalyCode::{CalendarIncomplete, ClockNotSet, ForgottenStayChanged, NoTariff, UnreadablePlate};
        matches!(self, ClockNotSet | UnreadablePlate | NoTariff | CalendarIncomplete | ForgottenStayChanged)
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
            AnomalyCode::DecisionWithoutEffect => (
                codes::DECISION_WITHOUT_EFFECT,
                "a decision of an operator changes nothing: there is no such charge or event, a void or credit finds nothing to be paid or less than it gives back, or the stay to be billed is not on hold. \"server decisions list\" shows the decisions with their ids, \"server decisions undo\" takes one back",
                "server decisions undo DECISION",
            ),
            AnomalyCode::ForgottenStayChanged => (
                codes::FORGOTTEN_STAY_CHANGED,
                "a corrected plate, or a decision that joins an exit to another entry, would change a stay whose plate was forgotten; the stay keeps its account and its amount. \"server charges show\" shows the charge, \"server charges credit\" gives back what is too much",
                "server charges credit ID --amount MINOR_UNITS --reason TEXT",
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
    pub plate: SmolStr,
}

impl AnomalyKey {
    pub fn of(code: AnomalyCode, garage: u32, plate: &Plate) -> AnomalyKey {
        AnomalyKey::of_text(code, garage, plate.as_str())
    }

    /// The same of a plate, or of the token that took its place.
    pub fn of_text(code: AnomalyCode, garage: u32, plate: &str) -> AnomalyKey {
        match code.is_about_a_garage() {
            true => AnomalyKey::of_garage(code, garage),
            false => AnomalyKey { code, garage, plate: plate.into() },
        }
    }

    pub fn of_garage(code: AnomalyCode, garage: u32) -> AnomalyKey {
        AnomalyKey { code, garage, plate: SmolStr::default() }
    }

    pub fn with(&self, prefix: &[u8]) -> Vec<u8> {
        [prefix, &[self.code as u8], &self.garage.to_be_bytes(), self.plate.as_bytes()].concat()
    }

    pub fn key(&self) -> Vec<u8> {
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
    pub fn read(key: &[u8]) -> Result<AnomalyKey, StoreError> {
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

    /// Of the command at a position, which was recorded at that time.
    pub fn of_decision(position: u64, at_ms: i64) -> AnomalyFact {
        AnomalyFact { at_ms, stream: u32::MAX, sequence: position, is_made: true }
    }
}

/// The plates of an anomaly in any garage.
pub(super) fn plates_of(store: &Store, code: AnomalyCode) -> Result<HashSet<SmolStr>, StoreError> {
    let (from, to) = ([b"vbn", &[code as u8][..]].concat(), [b"vbn", &[code as u8 + 1][..]].concat());
    store.range(&from, &to).map(|entry| Ok(AnomalyKey::read(&entry?.0)?.plate)).collect()
}

/// Where in a key the plate begins.
pub const PLATE_AT: usize = 8;
