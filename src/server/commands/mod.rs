//! Commands of operators, each recorded at a position of its own in the ledger.
//!
//! **Promise.** A command that was answered with its position is on disk, and acts from that position on, however often the
//! views are rebuilt. A command that makes no sense is refused before anything is recorded.
//! **Kept by.** Commands come over `admin.sock`, or from a program that holds the directory, one at a time. Each is checked
//! ([`checks`]), judged by the view at the ledger's end (`View::judge`), recorded by the one committing thread, and answered once the
//! views show it ([`operate`]).
//! **Not promised.** That a command treats events that are delivered later as earlier ones: it acts on them at their positions.

pub mod answers;
mod checks;
mod desk;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod issue_speed_tests;
#[cfg(test)]
mod issue_tests;
#[cfg(test)]
mod issued_stays_tests;
mod offline;
mod operate;
pub mod payments;
mod put;
mod start;

pub use answers::{BasePart, RecordsPart, unpacked};
pub use desk::{CommandDesk, PendingCommand, fits_on, not_recorded};
pub use offline::{OfflineServer, ServerSession};
pub use operate::today;
pub use put::{Put, Retroactive};
pub use start::put_at_start;

use crate::audit::variant;
use crate::daemon::audited::Audited;
use crate::parking::payment::PaymentId;
use crate::server::alarms::AlarmsRequest;
use crate::server::books::BooksQuestion;
use crate::server::issuing::IssueOrder;
use crate::server::receivables::ReceivablesQuestion;
use crate::server::record::{Command, QuarantinePlace, ToForget};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// A request of an operator, as it comes over `admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ServerRequest {
    /// List all garages.
    Garages,
    /// At most `limit` events in quarantine after `after`.
    Quarantine { after: Option<QuarantinePlace>, limit: usize },
    /// Record this command.
    Command(Command),
    /// Replace plates by random tokens, in stays that ended before a day.
    Forget { whose: ToForget, before: Date },
    /// Put a list in force, or say what that would change.
    Put { put: Put, dry_run: bool },
    /// Record those payments of a CSV file that are new, or say what that would do.
    ImportPayments { csv: String, dry_run: bool },
    /// Reverse a payment today, or say whether that is possible.
    UndoPayment { payment: PaymentId, dry_run: bool },
    /// Issue documents, or say which ones would be.
    Issue(IssueOrder),
    /// Bring the documents in a directory of the server's machine back, or the document in a file, or say which ones would be.
    ImportDocuments { path: String, dry_run: bool },
    /// Record the numbers after the last that is known as lost, or say whether that is possible.
    ResumeNumbers { last: u64, reason: String, dry_run: bool },
    /// Registered plates after `after`, as many as one answer holds.
    Plates { after: Option<String> },
    /// Accounts with a record after `after`, as many as one answer holds.
    Accounts { after: Option<String> },
    /// List all contracts.
    Contracts,
    /// The bytes of a document, from one on, as many as one answer holds.
    Document { number: String, from: usize },
    /// List what was decided about charges.
    Decisions,
    /// Ask a question about money.
    Books(BooksQuestion),
    /// Ask about payments, open items or the journal.
    Receivables(ReceivablesQuestion),
    /// List the stays that may need a repair.
    Review,
    /// Verify the ledger and the views.
    Verify,
    /// Read the base of a compacted ledger after a key, as much as one answer holds.
    Base { after: Option<Vec<u8>> },
    /// List or silence alarms, or try the receivers out.
    Alarms(AlarmsRequest),
    /// Read the records from this position on, as many as one answer holds, for a backup.
    Records { from: u64, through: Option<u64> },
}

impl Audited for ServerRequest {
    fn audited(&self) -> Option<String> {
        if let ServerRequest::Alarms(request) = self {
            return (*request != AlarmsRequest::List).then(|| format!("alarms_{}", variant(request)));
        }
        self.may_record().then(|| match self {
            ServerRequest::Command(command) => variant(command),
            ServerRequest::Put { put, .. } => format!("put_{}", variant(put)),
            other => variant(other),
        })
    }
}

impl ServerRequest {
    /// Whether carrying it out may add to the ledger.
    fn may_record(&self) -> bool {
        use ServerRequest::{
            Command, Forget, ImportDocuments, ImportPayments, Issue, Put, ResumeNumbers, UndoPayment,
        };
        match self {
            Command(_) | Forget { .. } => true,
            Issue(order) => !order.dry_run,
            Put { dry_run, .. }
            | ImportPayments { dry_run, .. }
            | UndoPayment { dry_run, .. }
            | ImportDocuments { dry_run, .. }
            | ResumeNumbers { dry_run, .. } => !dry_run,
            _ => false,
        }
    }
}
