//! Commands of operators as recorded in the ledger. This module holds data only: `commands` decides what is recorded, and the
//! views decide what a command changes.

use crate::messaging::page::RECORDS_MAX;
use crate::messaging::{Digest, SiteName};
use crate::parking::garage::Opening;
use crate::parking::payment::PaymentId;
use crate::parking::{ChargeId, EventId};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// A command of an operator. New kinds are added at the end: a kind is stored as its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Rename the garage to `to`. Its edge may keep using the old name.
    Rename { garage: SiteName, to: SiteName },
    /// Leave the garage out of boards and of the city's numbers, or include it again.
    Decommission { garage: SiteName, undo: bool },
    /// Set the number of spaces, which then counts instead of the one that the edge reports. `None`: that one counts again.
    Capacity { garage: SiteName, spaces: Option<u32> },
    /// Apply the quarantined events at this place, if they are understood now.
    Release { place: QuarantinePlace },
    /// Discard the quarantined events at this place.
    Discard { place: QuarantinePlace, reason: String },
    /// Answer the next conflict of this garage by "move what is not acknowledged to a new epoch", so that both sides count.
    Adopt { garage: SiteName },
    /// A piece of something too long for one record. It has no effect until the command that comes right after the last piece.
    Piece { bytes: Vec<u8> },
    /// The tariffs in the pieces before, as canonical TOML, are in force from here on.
    Tariffs { pieces: u32, digest: Digest },
    /// The facts in the pieces before (postcard, a list of `parking::register::RegisterFact`) change the register.
    Register { pieces: u32, digest: Digest },
    /// Void a charge: nothing of it is due.
    Void { charge: ChargeId, reason: String },
    /// Credit a part of a charge, in minor units of its currency. At most the whole charge is given back.
    Credit { charge: ChargeId, amount: i64, reason: String },
    /// Match the exit with the entry: a plate was misread. The exit has this plate, which the program adds when it records the
    /// command; `None`: that of the entry was forgotten, and the exit ends its stay.
    JoinStay { entry: EventId, exit: EventId, plate: Option<String>, reason: String },
    /// Record that the car of this entry left unseen at that time.
    CloseStay { entry: EventId, left_at_ms: i64, offset_minutes: i16, reason: String },
    /// Record that the car of this entry left and came back unseen during its stay.
    SplitStay { entry: EventId, left_at_ms: i64, entered_at_ms: i64, offset_minutes: i16, reason: String },
    /// Charge a stay that is on hold for its length.
    BillStay { charge: ChargeId, reason: String },
    /// Take back the decision about a charge that the command at this position made.
    Undo { decision: u64 },
    /// Replace the plates of stays that ended before this date by random tokens: one token for a plate and a month under one seed.
    Forget { whose: ToForget, before: Date, seed: [u8; 16] },
    /// The command that stood here was removed when the ledger was compacted.
    Erased,
    /// The payments in the pieces before (`parking::payment::to_bytes`) were received or paid back.
    Payments { pieces: u32, digest: Digest },
    /// Reverse a payment on this date, in the operator's time zone.
    UndoPayment { payment: PaymentId, date: Date },
    /// Some of the bytes of the document with this serial, as `documents export` writes it. Other records may stand between the pieces.
    /// They have no effect until their issue is recorded.
    DocumentPiece { issue: [u8; 16], serial: u64, bytes: Vec<u8> },
    /// The documents whose pieces stand at `from` and after it, and have this id, are issued: all of them, with these serials.
    Issue { issue: [u8; 16], from: u64, first: u64, last: u64, date: Date },
    /// A part of the `documents::DocumentNote` of the document with this serial. Notes stand behind the pieces of their issue.
    DocumentNote { issue: [u8; 16], serial: u64, bytes: Vec<u8> },
    /// The numbers of documents go on after `last`, also in a backup; those from `first` on are lost. Where none is, `first` is `last` + 1.
    ResumeNumbers { first: u64, last: u64, reason: String, date: Date },
    /// Show the garage as open, or as closed, whatever it says itself and whatever its hours are, until this time in milliseconds since
    /// 1970. `None`: its own word and its hours decide again.
    ShowAs { garage: SiteName, opening: Option<Opening>, until_ms: Option<i64>, reason: Option<String> },
}

impl Command {
    /// The longest reason, in bytes: a record must fit into a value of the store.
    pub const REASON_MAX: usize = 1024;

    /// The command's name for logs. They show nothing else of it: it may hold a plate, or words about a person.
    pub fn name(&self) -> String {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
            named => named.ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default(),
        }
    }

    /// The reason that the operator gave, of a command that has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Command::Discard { reason, .. }
            | Command::Void { reason, .. }
            | Command::Credit { reason, .. }
            | Command::JoinStay { reason, .. }
            | Command::CloseStay { reason, .. }
            | Command::SplitStay { reason, .. }
            | Command::BillStay { reason, .. }
            | Command::ResumeNumbers { reason, .. } => Some(reason),
            Command::ShowAs { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }

    /// Whether judging the command needs stays and charges, which are read from the stored views.
    pub fn is_about_entries(&self) -> bool {
        !matches!(
            self,
            Command::Rename { .. }
                | Command::Decommission { .. }
                | Command::Capacity { .. }
                | Command::Release { .. }
                | Command::Discard { .. }
                | Command::Adopt { .. }
                | Command::ShowAs { .. }
        )
    }
}

/// The stays that lose their plates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToForget {
    /// Those of this plate.
    Plate(String),
    /// Those that this account pays.
    Account(String),
    /// All.
    All,
}

/// The place of an event in quarantine: the position of its page in the ledger, and its index in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinePlace {
    pub position: u64,
    /// From 0; `None`: all events of the page that wait.
    pub index: Option<u8>,
}

impl fmt::Display for QuarantinePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}.{index}", self.position),
            None => write!(f, "{}", self.position),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a place looks like 17 or 17.3: a position of the ledger, and an event of the page there, from 0 to {}", RECORDS_MAX - 1)]
pub struct BadPlace;

impl FromStr for QuarantinePlace {
    type Err = BadPlace;
    fn from_str(text: &str) -> Result<QuarantinePlace, BadPlace> {
        let (position, index) = match text.split_once('.') {
            Some((position, index)) => (position, Some(index.parse::<u8>().map_err(|_| BadPlace)?)),
            None => (text, None),
        };
        if index.is_some_and(|index| usize::from(index) >= RECORDS_MAX) {
            return Err(BadPlace);
        }
        Ok(QuarantinePlace { position: position.parse().map_err(|_| BadPlace)?, index })
    }
}
