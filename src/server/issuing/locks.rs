//! What keeps documents from being issued: numbers that are not known, and documents that cannot be read.
//!
//! **Promise.** Where a ledger does not know what was issued, nothing is issued: no number is given twice, and nothing is charged twice.
//! **Kept by.** A backup says that it is one ([`Ledger::copied_at`]). Its lock ends with a command behind the end of the backup. Any other
//! copy of a data directory does not say it, nor does a ledger that lost its end: the documents directory has later documents than they
//! know. A document that is damaged locks its debtor; if it is not known whose it is, everybody.

use super::{CopiesDir, Issuing, not_issued};
use crate::codes;
use crate::daemon::admin::NotDone;
use crate::parking::document::OperatorSettings;
use crate::parking::journal::Debtor;
use crate::server::ledger::Ledger;
use crate::server::view::billing::documents::{self, DocumentState};
use crate::store::StoreError;
use std::collections::BTreeMap;

/// The position at which this backup was made, if it is one and the numbers that were given since are not known.
fn backup_without_numbers(ledger: &Ledger, resumed_at: u64) -> Result<Option<u64>, StoreError> {
    Ok(ledger.copied_at()?.filter(|copied_at| resumed_at <= *copied_at))
}

/// Says at the start of a server that issues documents why it issues none.
pub fn warn_of_backup(
    ledger: &Ledger,
    resumed_at: u64,
    operator: &OperatorSettings,
) -> Result<(), StoreError> {
    let issues = operator.issuer.missing().is_empty();
    if let Some(position) = backup_without_numbers(ledger, resumed_at)?.filter(|_| issues) {
        tracing::warn!(
            code = %codes::DOCUMENT_NUMBERS_UNKNOWN,
            position,
            hint = "run: server documents import DIR; if the documents are lost: server documents resume --last N --reason TEXT",
            "this server runs on a backup, so it issues nothing until the documents that were issued after it are known"
        );
    }
    Ok(())
}

impl Issuing<'_> {
    /// Whether numbers of documents that were issued after a backup are not known.
    pub(super) fn lacks_numbers(&self) -> Result<Option<u64>, StoreError> {
        backup_without_numbers(self.ledger, self.view.billing.numbers_resumed_at)
    }

    /// The debtors for whom nothing can be issued, each with the number of a document that is damaged. `Err`: nothing can be issued.
    pub(super) fn locked(&self) -> Result<BTreeMap<Debtor, String>, NotDone> {
        if let Some(position) = self.lacks_numbers().map_err(not_issued)? {
            return Err(NotDone::Failed(
                codes::DOCUMENT_NUMBERS_UNKNOWN,
                format!(
                    "this server runs on a backup of position {position}, so the documents that were issued after it are not known. Nothing was issued. Bring them back: \"server documents import DIR\", with the documents directory of the server or a copy of it (this server's is {:?}). If they are lost: \"server documents resume --last N --reason TEXT\", where N is the last number that was given",
                    self.documents_dir
                ),
            ));
        }
        let mut locked = BTreeMap::new();
        for row in documents::unsound(self.ledger.store()) {
            let row = row.map_err(not_issued)?;
            match (row.state, row.facts) {
                (DocumentState::Damaged, Some(facts)) => _ = locked.insert(facts.debtor, facts.number),
                (DocumentState::Damaged, None) => {
                    return Err(NotDone::Failed(
                        codes::DOCUMENT_DAMAGED,
                        format!(
                            "document {} of the series cannot be read, so what it charged is not known, nor whom. Nothing was issued. Bring it back from its copy: \"server documents import DIR\", with the documents directory ({:?})",
                            row.serial, self.documents_dir
                        ),
                    ));
                }
                (DocumentState::Issued | DocumentState::Lost { .. }, _) => {}
            }
        }
        let last = self.view.billing.last_document.serial;
        let unknown =
            CopiesDir(self.documents_dir).later_than(last, self.ledger.store()).map_err(not_issued)?;
        unknown.map_or(Ok(locked), |number| Err(self.unknown_copy(&number)))
    }
}
