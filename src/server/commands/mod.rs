//! What operators may do: commands, each recorded at a position of its own in the ledger.
//!
//! **Promise.** A command that was answered with its position is on disk, and acts from that position on, however often the
//! books are folded anew. A command that makes no sense is refused before anything is recorded.
//! **Kept by.** What an operator wants is an [`Intent`]; records are made of it here alone. Commands come over `admin.sock`, or from a program that holds the directory: one at a time. Each is judged by
//! the view at the ledger's end (`View::judge`), recorded by the one committing thread, and answered after the fold has
//! reached it.
//! **Not promised.** That a command acts on events that an edge has not delivered yet in any other way than at their positions.

mod desk;
mod intent;
mod offline;
mod put;
mod reading;
mod start;

pub use desk::{Desk, Order, not_recorded};
pub use intent::{BadIntent, Intent};
pub use offline::Offline;
pub use put::Put;
pub use start::put_at_start;

use crate::server::books::BooksQuestion;
use crate::server::record::QuarantinePlace;
use serde::{Deserialize, Serialize};

/// What can be asked for over `admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Garages,
    /// What waits behind `after`, at most `limit` events.
    Quarantine {
        after: Option<QuarantinePlace>,
        limit: usize,
    },
    /// Do this, and record it.
    Command(Intent),
    /// Put in force, or only say what that would change.
    Put {
        put: Put,
        dry_run: bool,
    },
    /// Registered plates behind `after`, as many as one answer holds.
    Plates {
        after: Option<String>,
    },
    Contracts,
    /// Read in the books of money.
    Books(BooksQuestion),
    /// Price what waits for a price.
    ApplyTariffs,
    /// What a person may want to repair.
    Review,
    /// Read everything, fold it anew, compare.
    Verify,
    /// The base of a compacted ledger, behind a key in hexadecimal digits, as much as one answer holds.
    Base {
        after: Option<String>,
    },
    /// The ledger's records from this position on, as many as one answer holds, for a backup.
    Records {
        from: u64,
        through: Option<u64>,
    },
}
