//! Notes the commands of operators in the list of who did what.

use super::admin::{Caller, NotDone, Outcome};
use super::{DaemonError, clock};
use crate::audit::{self, Audit, AuditKind, AuditLine};
use crate::codes::{self, Code};
use std::path::Path;

/// The role of those who may use `admin.sock`, or the data directory itself.
const OPERATOR: &str = "operator";

/// A request of an operator.
pub trait Audited {
    /// Its name, without what is in it. `None`: it changes nothing.
    fn audited(&self) -> Option<String>;
}

/// The list of a data directory, which this process holds.
pub fn open(dir: &Path) -> Result<Audit, DaemonError> {
    let failed = |error| DaemonError::Failed(codes::CANNOT_START, format!("cannot start a thread: {error}"));
    Audit::open(dir, clock::now).map_err(failed)
}

/// Notes a command that a daemon was given over `admin.sock`.
pub fn note(audit: &Audit, what: String, caller: &Caller, outcome: &Outcome) {
    let who = Some((caller.as_str().to_owned(), OPERATOR.to_owned()));
    audit.note(AuditKind::Command, what, who, "admin.sock".to_owned(), said(outcome));
}

/// Notes a command that this process carried out itself, in the data directory or beside it. Without a data directory there is no list.
pub fn note_own<T>(data_dir: &Path, what: &str, done: &Result<T, NotDone>) {
    if !data_dir.is_dir() {
        return;
    }
    let line = AuditLine {
        at: clock::now(),
        kind: AuditKind::Command,
        what: what.to_owned(),
        name: Some(Caller::this_process().as_str().to_owned()),
        role: Some(OPERATOR.to_owned()),
        address: "command line".to_owned(),
        outcome: said(done).to_owned(),
        not_written: 0,
    };
    if let Err(error) = audit::append(data_dir, &line) {
        tracing::error!(
            code = %codes::AUDIT_NOT_WRITTEN,
            %error,
            hint = "make room on the disk, or correct the permissions of the data directory",
            "a command cannot be recorded in the audit list"
        );
    }
}

fn said<T>(outcome: &Result<T, NotDone>) -> &'static str {
    outcome.as_ref().err().map_or("done", |reason| Code::as_str(reason.code()))
}
