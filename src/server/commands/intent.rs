//! What an operator wants, as the command line and `admin.sock` say it.
//!
//! **Promise.** Records are made by this program alone, from what was checked here. A request that was written to the socket by hand
//! is refused where the command line would refuse it.
//! **Kept by.** [`Intent`] has no variant for what only the program records (pieces of lists, numbers of entries, erased
//! commands), and [`Intent::command`] is the only function that turns it into a [`Command`].

use crate::messaging::SiteName;
use crate::messaging::page::RECORDS_MAX;
use crate::parking::{ChargeId, EventId, Plate};
use crate::server::record::{Command, QuarantinePlace, ToForget};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// See the module. Each becomes one command in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Intent {
    /// Rename the garage to `to`. Its edge may go on under the old name.
    Rename {
        garage: SiteName,
        to: SiteName,
    },
    /// Leave the garage out of boards and of the city's numbers, or include it again.
    Decommission {
        garage: SiteName,
        undo: bool,
    },
    /// Set the number of spaces, whatever the edge reports; `None`: the number that the edge reports counts again.
    Capacity {
        garage: SiteName,
        spaces: Option<u32>,
    },
    /// Apply the quarantined events at this place, if they are understood now.
    Release {
        place: QuarantinePlace,
    },
    /// Discard the quarantined events at this place.
    Discard {
        place: QuarantinePlace,
        reason: String,
    },
    /// The next conflict of this garage is answered by "move what is not acknowledged to a new epoch".
    Adopt {
        garage: SiteName,
    },
    RemovePlate {
        plate: String,
    },
    RemoveContract {
        contract: String,
    },
    /// Void a charge: credit its amount minus what was credited before.
    Void {
        charge: ChargeId,
        reason: String,
    },
    /// Credit a part of a charge, in minor units of its currency.
    Credit {
        charge: ChargeId,
        amount: i64,
        reason: String,
    },
    /// Match the exit with the entry: a plate was misread.
    JoinStay {
        entry: EventId,
        exit: EventId,
        reason: String,
    },
    /// Record that the car of this entry left unseen at that time.
    CloseStay {
        entry: EventId,
        left_at_ms: i64,
        offset_minutes: i16,
        reason: String,
    },
    /// Record that the car of this entry left and came back unseen during its stay.
    SplitStay {
        entry: EventId,
        left_at_ms: i64,
        entered_at_ms: i64,
        offset_minutes: i16,
        reason: String,
    },
    /// Charge a stay that is on hold for its length.
    BillStay {
        charge: ChargeId,
        reason: String,
    },
    /// Replace a plate by random tokens.
    Forget {
        plate: String,
    },
}

/// Why an intent cannot become a command. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIntent {
    #[error("a reason needs 1 to {max} bytes, this one has {bytes}", max = Command::REASON_MAX)]
    Reason { bytes: usize },
    #[error("{0} milliseconds since 1970 is not a time of years -9999 to 9999")]
    Time(i64),
    #[error("{0} minutes is not an offset from UTC: it is less than 26 hours either way")]
    Offset(i16),
    #[error("a page holds {RECORDS_MAX} events at most, from 0 on; there is none with the number {0}")]
    Index(u8),
    #[error("{0}")]
    Plate(crate::parking::PlateError),
    #[error("the name of a {what} has 1 to {max} bytes, this one has {bytes}", max = SiteName::MAX_BYTES)]
    Name { what: &'static str, bytes: usize },
}

impl Intent {
    /// The command that is recorded for it. The view judges whether it makes sense at present.
    pub fn command(self) -> Result<Command, BadIntent> {
        Ok(match self {
            Intent::Rename { garage, to } => Command::Rename { garage, to },
            Intent::Decommission { garage, undo } => Command::Decommission { garage, undo },
            Intent::Capacity { garage, spaces } => Command::Capacity { garage, spaces },
            Intent::Release { place } => Command::Release { place: in_a_page(place)? },
            Intent::Discard { place, reason } => {
                Command::Discard { place: in_a_page(place)?, reason: checked(reason)? }
            }
            Intent::Adopt { garage } => Command::Adopt { garage },
            Intent::RemovePlate { plate } => Command::RemovePlate { plate: normal(&plate)? },
            Intent::RemoveContract { contract } => {
                named("contract", &contract)?;
                Command::RemoveContract { contract }
            }
            Intent::Void { charge, reason } => {
                named("garage", &charge.garage)?;
                Command::Void { charge, reason: checked(reason)? }
            }
            Intent::Credit { charge, amount, reason } => {
                named("garage", &charge.garage)?;
                Command::Credit { charge, amount, reason: checked(reason)? }
            }
            Intent::JoinStay { entry, exit, reason } => {
                named("garage", &entry.garage).and_then(|()| named("garage", &exit.garage))?;
                Command::JoinStay { entry, exit, reason: checked(reason)? }
            }
            Intent::CloseStay { entry, left_at_ms, offset_minutes, reason } => {
                named("garage", &entry.garage)?;
                time(left_at_ms, offset_minutes)?;
                Command::CloseStay { entry, left_at_ms, offset_minutes, reason: checked(reason)? }
            }
            Intent::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason } => {
                named("garage", &entry.garage)?;
                time(left_at_ms, offset_minutes).and_then(|()| time(entered_at_ms, offset_minutes))?;
                let reason = checked(reason)?;
                Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason }
            }
            Intent::BillStay { charge, reason } => {
                named("garage", &charge.garage)?;
                Command::BillStay { charge, reason: checked(reason)? }
            }
            Intent::Forget { plate } => {
                Command::Forget { whose: ToForget::Plate(normal(&plate)?), seed: rand::random() }
            }
        })
    }
}

fn checked(reason: String) -> Result<String, BadIntent> {
    match reason.trim().len() {
        0 => Err(BadIntent::Reason { bytes: 0 }),
        _ if reason.len() > Command::REASON_MAX => Err(BadIntent::Reason { bytes: reason.len() }),
        _ => Ok(reason),
    }
}

fn normal(plate: &str) -> Result<String, BadIntent> {
    Plate::new(plate).map(|plate| plate.to_string()).map_err(BadIntent::Plate)
}

fn named(what: &'static str, name: &str) -> Result<(), BadIntent> {
    match name.len() {
        1..=SiteName::MAX_BYTES => Ok(()),
        bytes => Err(BadIntent::Name { what, bytes }),
    }
}

fn in_a_page(place: QuarantinePlace) -> Result<QuarantinePlace, BadIntent> {
    match place.index {
        Some(index) if usize::from(index) >= RECORDS_MAX => Err(BadIntent::Index(index)),
        _ => Ok(place),
    }
}

fn time(at_ms: i64, offset_minutes: i16) -> Result<(), BadIntent> {
    Timestamp::from_millisecond(at_ms).map_err(|_| BadIntent::Time(at_ms))?;
    let seconds = i32::from(offset_minutes) * 60;
    jiff::tz::Offset::from_seconds(seconds).map_err(|_| BadIntent::Offset(offset_minutes))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Command, String> {
        let intent: Intent = serde_json::from_str(json).map_err(|error| error.to_string())?;
        intent.command().map_err(|bad| bad.to_string())
    }

    /// A program that could write to the socket could write any record: one priced 2^64 entries and hung the server forever.
    #[test]
    fn what_only_the_program_records_cannot_be_asked_for() {
        for json in [
            r#"{"piece":{"bytes":[1]}}"#,
            r#"{"tariffs":{"pieces":1,"digest":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"plates":{"pieces":4294967295,"digest":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"contracts":{"pieces":0,"digest":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"price":{"from":1,"to":18446744073709551615}}"#,
            r#"{"forget":{"whose":{"plate":"AB1"},"seed":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"forget":{"plate":"AB1","seed":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#""erased""#,
        ] {
            let refused = read(json).unwrap_err();
            assert!(refused.contains("unknown") || refused.contains("missing field"), "{json}: {refused}");
        }
    }

    #[test]
    fn what_the_command_line_refuses_is_refused_on_the_socket() {
        let event = "a/d5947e0f-1414-4ac6-8009-21147bb78df6/3";
        let long = "x".repeat(2000);
        let cases = [
            (format!(r#"{{"void":{{"charge":"{event}","reason":"  "}}}}"#), "1 to 1024 bytes"),
            (format!(r#"{{"void":{{"charge":"{event}","reason":"{long}"}}}}"#), "1 to 1024 bytes"),
            (format!(r#"{{"bill_stay":{{"charge":"{long}{event}","reason":"r"}}}}"#), "1 to 64 bytes"),
            (format!(r#"{{"remove_contract":{{"contract":"{long}"}}}}"#), "1 to 64 bytes"),
            (r#"{"remove_contract":{"contract":""}}"#.into(), "1 to 64 bytes"),
            (r#"{"remove_plate":{"plate":"*"}}"#.into(), "letters and digits"),
            (r#"{"forget":{"plate":""}}"#.into(), "letters and digits"),
            (r#"{"release":{"place":{"position":1,"index":64}}}"#.into(), "64 events at most"),
            (r#"{"rename":{"garage":"a","to":""}}"#.into(), "1 to 64 bytes"),
            (
                format!(
                    r#"{{"close_stay":{{"entry":"{event}","left_at_ms":-9223372036854775808,"offset_minutes":0,"reason":"r"}}}}"#
                ),
                "is not a time",
            ),
            (
                format!(
                    r#"{{"split_stay":{{"entry":"{event}","left_at_ms":0,"entered_at_ms":9223372036854775807,"offset_minutes":0,"reason":"r"}}}}"#
                ),
                "is not a time",
            ),
            (
                format!(
                    r#"{{"close_stay":{{"entry":"{event}","left_at_ms":0,"offset_minutes":32767,"reason":"r"}}}}"#
                ),
                "is not an offset",
            ),
        ];
        for (json, reason) in cases {
            let refused = read(&json).unwrap_err();
            assert!(refused.contains(reason), "{json}: {refused}");
        }
        let plate = read(r#"{"remove_plate":{"plate":"b-ab 1"}}"#).unwrap();
        assert_eq!(plate, Command::RemovePlate { plate: "BAB1".into() });
    }
}
