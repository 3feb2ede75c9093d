//! What operators may do: commands, each recorded at a position of its own in the ledger.
//!
//! **Promise.** A command that was answered with its position is on disk, and acts from that position on, however often the
//! books are folded anew. A command that makes no sense is refused before anything is recorded.
//! **Kept by.** Commands come over `admin.sock`, or from a program that holds the directory: one at a time. Each is judged by
//! the view at the ledger's end (`View::judge`), recorded by the one committing thread, and answered after the fold has
//! reached it.
//! **Not promised.** That a command acts on events that an edge has not delivered yet in any other way than at their positions.

pub mod cli;
mod desk;
mod offline;
mod reading;
mod tariffs;

pub use desk::{Desk, Order};
pub use offline::Offline;

use crate::messaging::SiteName;
use crate::messaging::page::RECORDS_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an operator did. Stands in the ledger: new kinds are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The garage is called `to` from now on. Its edge may go on under the old name.
    Rename { garage: SiteName, to: SiteName },
    /// Leave the garage out of boards and of the city's numbers, or take it in again.
    Decommission { garage: SiteName, undo: bool },
    /// The garage has so many spaces, whatever its edge tells; `None`: what its edge tells counts again.
    Capacity { garage: SiteName, spaces: Option<u32> },
    /// What waits there acts now, if it is understood now.
    Release { place: Place },
    /// What waits there is given up.
    Discard { place: Place, reason: String },
    /// The next conflict of this garage is to be answered by "move what is not acknowledged to a new epoch": both sides count.
    Adopt { garage: SiteName },
}

impl Command {
    /// The longest reason, in bytes: a record must fit into a value of the store.
    pub const REASON_MAX: usize = 1024;
}

/// Where an event waits in quarantine: a page's position in the ledger, and a place in the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub position: u64,
    /// From 0; `None`: all that wait of the page.
    pub index: Option<u8>,
}

impl fmt::Display for Place {
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
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;
    fn from_str(text: &str) -> Result<Place, NoPlace> {
        let (position, index) = match text.split_once('.') {
            Some((position, index)) => (position, Some(index.parse::<u8>().map_err(|_| NoPlace)?)),
            None => (text, None),
        };
        if index.is_some_and(|index| usize::from(index) >= RECORDS_MAX) {
            return Err(NoPlace);
        }
        Ok(Place { position: position.parse().map_err(|_| NoPlace)?, index })
    }
}

/// What can be asked for over `admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Garages,
    /// What waits behind `after`, at most `limit` events.
    Quarantine {
        after: Option<Place>,
        limit: usize,
    },
    Command(Command),
    /// Read everything, fold it anew, compare.
    Verify,
    /// The ledger's records from this position on, as many as one answer holds, for a backup.
    Records {
        from: u64,
        through: Option<u64>,
    },
}
