//! What an operator may ask to be recorded.
//!
//! **Promise.** Records are made by this program alone, from what was checked here. A request that was written to the socket by hand
//! is refused where the command line would refuse it, and so is what only the program records (pieces of lists, payments and their
//! reversals, erased commands).

use crate::daemon::clock;
use crate::messaging::SiteName;
use crate::messaging::page::RECORDS_MAX;
use crate::parking::register::Account;
use crate::parking::{ChargeId, Moment, Plate};
use crate::server::record::{Command, QuarantinePlace, ToForget};
use jiff::Timestamp;
use jiff::civil::Date;

/// The command as it is recorded, or why it cannot be. The view judges whether it makes sense at present.
pub(super) fn checked(mut command: Command) -> Result<Command, String> {
    match &mut command {
        Command::Rename { .. }
        | Command::Decommission { .. }
        | Command::Capacity { .. }
        | Command::Adopt { .. }
        | Command::Undo { .. } => {}
        Command::ShowAs { until_ms, .. } => until_ms.map_or(Ok(()), is_to_come)?,
        Command::Release { place } | Command::Discard { place, .. } => in_a_page(*place)?,
        Command::Void { charge: ChargeId { garage, .. }, .. }
        | Command::Credit { charge: ChargeId { garage, .. }, .. }
        | Command::BillStay { charge: ChargeId { garage, .. }, .. } => named("garage", garage)?,
        Command::JoinStay { entry, exit, plate, .. } => {
            // The view says it.
            *plate = None;
            named("garage", &entry.garage)?;
            named("garage", &exit.garage)?;
        }
        Command::CloseStay { entry, left_at_ms, offset_minutes, .. } => {
            named("garage", &entry.garage)?;
            time(*left_at_ms, *offset_minutes)?;
        }
        Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, .. } => {
            named("garage", &entry.garage)?;
            time(*left_at_ms, *offset_minutes)?;
            time(*entered_at_ms, *offset_minutes)?;
        }
        Command::Piece { .. }
        | Command::Tariffs { .. }
        | Command::Register { .. }
        | Command::Forget { .. }
        | Command::Payments { .. }
        | Command::UndoPayment { .. }
        | Command::Erased
        | Command::DocumentPiece { .. }
        | Command::DocumentNote { .. }
        | Command::ResumeNumbers { .. }
        | Command::Issue { .. } => {
            return Err(format!("{:?} is unknown here: only the program itself records it", command.name()));
        }
    }
    command.reason().map_or(Ok(()), has_length)?;
    Ok(command)
}

/// Replaces plates by random tokens, which nobody can choose, in stays that ended before a day.
pub(super) fn forget(whose: &ToForget, before: Date) -> Result<Command, String> {
    let whose = match whose {
        ToForget::Plate(plate) => ToForget::Plate(normal(plate)?),
        ToForget::Account(account) => {
            ToForget::Account(Account::new(account).map_err(|error| error.to_string())?.to_string())
        }
        ToForget::All => ToForget::All,
    };
    Ok(Command::Forget { whose, before, seed: rand::random() })
}

fn has_length(reason: &str) -> Result<(), String> {
    let bytes = if reason.trim().is_empty() { 0 } else { reason.len() };
    match bytes {
        1..=Command::REASON_MAX => Ok(()),
        _ => Err(format!("a reason needs 1 to {} bytes, this one has {bytes}", Command::REASON_MAX)),
    }
}

fn normal(plate: &str) -> Result<String, String> {
    Plate::new(plate).map(|plate| plate.to_string()).map_err(|error| error.to_string())
}

fn named(what: &str, name: &str) -> Result<(), String> {
    match name.len() {
        1..=SiteName::MAX_BYTES => Ok(()),
        bytes => {
            Err(format!("the name of a {what} has 1 to {} bytes, this one has {bytes}", SiteName::MAX_BYTES))
        }
    }
}

fn in_a_page(place: QuarantinePlace) -> Result<(), String> {
    match place.index {
        Some(index) if usize::from(index) >= RECORDS_MAX => Err(format!(
            "a page holds at most {RECORDS_MAX} events, numbered from 0; {index} is not one of them"
        )),
        _ => Ok(()),
    }
}

fn is_to_come(at_ms: i64) -> Result<(), String> {
    time(at_ms, 0)?;
    match at_ms > clock::wall_ms() {
        true => Ok(()),
        false => Err(format!("the time until which it holds, {}, is over", Moment::utc_text(at_ms))),
    }
}

fn time(at_ms: i64, offset_minutes: i16) -> Result<(), String> {
    Timestamp::from_millisecond(at_ms)
        .map_err(|_| format!("{at_ms} milliseconds since 1970 is not a time of years -9999 to 9999"))?;
    jiff::tz::Offset::from_seconds(i32::from(offset_minutes) * 60).map_err(|_| {
        format!("{offset_minutes} minutes is not an offset from UTC, which is less than 26 hours in either direction")
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ServerRequest;
    use super::*;

    fn read(json: &str) -> Result<Command, String> {
        let wrapped = format!(r#"{{"command":{json}}}"#);
        let request = serde_json::from_str(json).or_else(|_| serde_json::from_str(&wrapped));
        match request.map_err(|error| error.to_string())? {
            ServerRequest::Forget { whose, before } => forget(&whose, before),
            ServerRequest::Command(command) => checked(command),
            other => panic!("{other:?}"),
        }
    }

    /// A program that could write to the socket could write any record: one priced 2^64 entries and hung the server forever.
    #[test]
    fn what_only_the_program_records_cannot_be_asked_for() {
        for json in [
            r#"{"piece":{"bytes":[1]}}"#,
            r#"{"tariffs":{"pieces":1,"digest":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"register":{"pieces":4294967295,"digest":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"forget":{"whose":{"plate":"AB1"},"before":"2026-01-01","seed":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#""erased""#,
            r#"{"payments":{"pieces":1,"digest":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"#,
            r#"{"undo_payment":{"payment":1,"date":"2999-01-01"}}"#,
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
            (r#"{"forget":{"whose":{"plate":""},"before":"2026-01-01"}}"#.into(), "letters and digits"),
            (
                format!(r#"{{"forget":{{"whose":{{"account":"{long}"}},"before":"2026-01-01"}}}}"#),
                "the limit is 64",
            ),
            (r#"{"release":{"place":{"position":1,"index":64}}}"#.into(), "at most 64 events"),
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
        let forget = read(r#"{"forget":{"whose":{"plate":"b-ab 1"},"before":"2026-01-01"}}"#).unwrap();
        assert!(matches!(forget, Command::Forget { whose: ToForget::Plate(plate), .. } if plate == "BAB1"));
    }
}
