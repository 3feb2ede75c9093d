//! What an operator did, as it stands in the ledger. Data only: `commands` decides what is recorded, the views what it changes.

use crate::messaging::page::RECORDS_MAX;
use crate::messaging::{Digest, SiteName};
use crate::parking::statement::Month;
use crate::parking::{ChargeId, EventId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an operator did. Stands in the ledger: new kinds are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The garage is called `to` from now on. Its edge may go on under the old name.
    Rename {
        garage: SiteName,
        to: SiteName,
    },
    /// Leave the garage out of boards and of the city's numbers, or take it in again.
    Decommission {
        garage: SiteName,
        undo: bool,
    },
    /// The garage has so many spaces, whatever its edge tells; `None`: what its edge tells counts again.
    Capacity {
        garage: SiteName,
        spaces: Option<u32>,
    },
    /// What waits there acts now, if it is understood now.
    Release {
        place: QuarantinePlace,
    },
    /// What waits there is given up.
    Discard {
        place: QuarantinePlace,
        reason: String,
    },
    /// The next conflict of this garage is to be answered by "move what is not acknowledged to a new epoch": both sides count.
    Adopt {
        garage: SiteName,
    },
    /// A piece of what is too long for one record. It says nothing until the command that comes right after the last piece.
    Piece {
        bytes: Vec<u8>,
    },
    /// The tariffs in the pieces before, as canonical TOML, are in force from here on.
    Tariffs {
        pieces: u32,
        digest: Digest,
    },
    /// The registrations in the pieces before (postcard) are added; one of a known plate takes the place of the former.
    Plates {
        pieces: u32,
        digest: Digest,
    },
    RemovePlate {
        plate: String,
    },
    /// The contracts in the pieces before (postcard) are added; one of a known name takes the place of the former.
    Contracts {
        pieces: u32,
        digest: Digest,
    },
    RemoveContract {
        contract: String,
    },
    /// The stays that wait for a price, among the entries of these numbers, are priced by the tariffs in force.
    Price {
        from: u64,
        to: u64,
    },
    /// A charge is taken back whole, less what was credited before.
    Void {
        charge: ChargeId,
        reason: String,
    },
    /// Some of a charge is given back, in minor units of its currency.
    Credit {
        charge: ChargeId,
        amount: i64,
        reason: String,
    },
    /// This exit is of the car of that entry: a plate was misread.
    JoinStay {
        entry: EventId,
        exit: EventId,
        reason: String,
    },
    /// The car of this entry left at that time, and nobody saw it.
    CloseStay {
        entry: EventId,
        left_at_ms: i64,
        offset_minutes: i16,
        reason: String,
    },
    /// The car of this entry left and came again in the midst of its stay, and nobody saw it.
    SplitStay {
        entry: EventId,
        left_at_ms: i64,
        entered_at_ms: i64,
        offset_minutes: i16,
        reason: String,
    },
    /// A stay that is held for its length is charged as it is.
    BillStay {
        charge: ChargeId,
        reason: String,
    },
    /// Random tokens stand for plates from here on; the same one for a plate and a month under one seed.
    Forget {
        whose: ToForget,
        seed: [u8; 16],
    },
    /// What stood here was forgotten: the ledger was compacted.
    Erased,
}

impl Command {
    /// The longest reason, in bytes: a record must fit into a value of the store.
    pub const REASON_MAX: usize = 1024;

    /// What it is called in logs. What it says may be a plate, or what somebody wrote about a person.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Rename { .. } => "rename",
            Command::Decommission { .. } => "decommission",
            Command::Capacity { .. } => "capacity",
            Command::Release { .. } => "release",
            Command::Discard { .. } => "discard",
            Command::Adopt { .. } => "adopt",
            Command::Piece { .. } => "piece",
            Command::Tariffs { .. } => "tariffs",
            Command::Plates { .. } => "plates",
            Command::RemovePlate { .. } => "remove_plate",
            Command::Contracts { .. } => "contracts",
            Command::RemoveContract { .. } => "remove_contract",
            Command::Price { .. } => "price",
            Command::Void { .. } => "void",
            Command::Credit { .. } => "credit",
            Command::JoinStay { .. } => "join_stay",
            Command::CloseStay { .. } => "close_stay",
            Command::SplitStay { .. } => "split_stay",
            Command::BillStay { .. } => "bill_stay",
            Command::Forget { .. } => "forget",
            Command::Erased => "erased",
        }
    }

    /// Whether it is judged by stays and charges, which are read as they were written last.
    pub fn is_about_entries(&self) -> bool {
        !matches!(
            self,
            Command::Rename { .. }
                | Command::Decommission { .. }
                | Command::Capacity { .. }
                | Command::Release { .. }
                | Command::Discard { .. }
                | Command::Adopt { .. }
        )
    }
}

/// Which stays are to lose their plates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToForget {
    /// All of this plate.
    Plate(String),
    /// Those that were charged, among the entries of these numbers, for a month before this one.
    Charged { from: u64, to: u64, before: Month },
}

/// Where an event waits in quarantine: a page's position in the ledger, and a place in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinePlace {
    pub position: u64,
    /// From 0; `None`: all that wait of the page.
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

/// A text that names no place.
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
