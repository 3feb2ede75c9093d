//! Issues documents: what is due becomes invoices and credit notes, which never change again.
//!
//! **Promise.** An issue takes effect whole or not at all, also if the program is killed. Its documents charge exactly what was due when
//! it was collected, and have the next numbers of the series. When it is answered, their copies are on disk outside of the ledger.
//! **Kept by.** The documents are recorded in pieces, which have no effect. One last record ([`Command::Issue`]) puts all of them in force;
//! from then on the views know what was charged. One issue runs at a time, and no other command meanwhile.
//! **Not promised.** That a month is complete: a garage that was offline delivers later. What was missing is on the next documents.
//!
//! 1. [`collect`] finds what is due while the written views are held, and keeps it in some 70 bytes for a stay.
//! 2. [`make`] makes one document after the other. Nothing is held meanwhile: garages are served, and their events applied.
//! 3. [`copies`] writes them beside the ledger and syncs them; their pieces are recorded in groups between garages' events.
//! 4. The last record. Then the copies get their names.
//!
//! [`locks`] says when nothing can be issued, [`open`] what may come on later documents, and [`import`] brings back what the ledger lacks.

mod collect;
mod copies;
mod import;
mod locks;
mod make;
mod open;
#[cfg(test)]
mod random_tests;

pub use collect::IssueScope;
pub use copies::CopiesDir;
pub use import::DocumentImportReport;
pub use locks::warn_of_backup;

use crate::daemon::admin::NotDone;
use crate::parking::Month;
use crate::parking::document::{
    BilledCustomer, DocumentHead, DocumentLine, Issue, LineCar, OperatorSettings,
};
use crate::parking::journal::Debtor;
use crate::parking::money::{Currency, Money};
use crate::parking::tariff::TariffSet;
use crate::server::applying::LiveViews;
use crate::server::books::customer_of;
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::record::documents::{BYTES_IN_A_RECORD, DocumentNote};
use crate::server::view::Snapshot;
use crate::server::view::billing::documents;
use crate::store::StoreError;
use collect::{Bundles, DueBundle, DueCollector};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use make::{DocumentMaker, MakeError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// How many pieces are recorded at once: a commit of 160 KB, for which garages wait some milliseconds.
const PIECES_AT_ONCE: usize = if cfg!(test) { 1 } else { 32 };

/// How many lines of a document, and of all documents, a dry run shows.
const LINES_SHOWN: usize = 50;
const LINES_SHOWN_OF_ALL: usize = 2_000;

/// What to issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueOrder {
    /// All that is due with an exit in this month or before.
    pub month: Month,
    pub scope: IssueScope,
    /// Of issue; `None`: today.
    pub date: Option<Date>,
    pub dry_run: bool,
}

/// A document that was issued, or would be.
#[derive(Debug, Serialize)]
pub struct DocumentLineOfReport {
    pub number: Option<String>,
    pub kind: &'static str,
    pub account: String,
    pub currency: Currency,
    pub total: i64,
    pub lines: u64,
    /// As people read it.
    pub amount: String,
    /// Of a document that would be issued, one for each stay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first_lines: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct IssueReport {
    pub month: Month,
    pub date: Date,
    pub documents: Vec<DocumentLineOfReport>,
    /// What keeps the month open, line by line.
    pub open: Vec<String>,
    /// Of the record that issued the documents. `None`: nothing was issued.
    pub position: Option<u64>,
}

/// What issuing reads and writes.
pub struct Issuing<'a> {
    pub ledger: &'a Ledger,
    /// The views of a running server. `None`: nobody writes them meanwhile.
    pub live: Option<&'a LiveViews>,
    pub view: Arc<Snapshot>,
    pub operator: &'a OperatorSettings,
    pub documents_dir: &'a Path,
    pub now: Timestamp,
}

/// Records commands, all or none, and gives the position of the last.
pub type RecordCommands<'r> = &'r mut dyn FnMut(Vec<Command>) -> Result<u64, NotDone>;

impl Issuing<'_> {
    /// Issues what is due. The views show all that is recorded, and are written.
    pub fn issue(&self, order: &IssueOrder, record: RecordCommands<'_>) -> Result<IssueReport, NotDone> {
        let date = self.may_issue(order).map_err(not_issued)?;
        let locked = self.locked()?;
        let mut open = self.open_garages(order.month).map_err(not_issued)?;
        let bundles = self.collect(order).map_err(not_issued)?;
        self.owes_as_a_car(order, &bundles).map_err(not_issued)?;
        open.extend(self.open_stays(order).map_err(not_issued)?);
        let (bundles, left_out) = self.with_addresses(bundles, &locked);
        open.extend(left_out);
        let mut report =
            IssueReport { month: order.month, date, documents: Vec::new(), open, position: None };
        match order.dry_run {
            true => self.look(order, &bundles, &mut report),
            false => self.record(order, bundles, record, &mut report),
        }?;
        Ok(report)
    }

    /// The date of issue. `Err`: why nothing can be issued now.
    fn may_issue(&self, order: &IssueOrder) -> Result<Date, String> {
        let missing = self.operator.issuer.missing();
        if !missing.is_empty() {
            return Err(format!(
                "a document needs the operator's {}: set it under [operator] in the configuration, which --config names when no server runs",
                missing.join(", ")
            ));
        }
        let rules = &self.view.billing.rules;
        let zones = rules.tariffs().map(|(_, set)| zones(set)).unwrap_or_default();
        for zone in zones.iter().chain([&self.operator.time_zone]) {
            let today = zone.to_datetime(self.now).date();
            if today <= order.month.last_day() {
                let zone = zone.iana_name().unwrap_or("UTC");
                return Err(format!("{} has not ended in {zone}, where it is {today}", order.month));
            }
        }
        let today = self.operator.time_zone.to_datetime(self.now).date();
        let date = order.date.unwrap_or(today);
        if date > today {
            return Err(format!("the date of issue, {date}, is in the future: today is {today}"));
        }
        if let Some(last) = self.view.billing.last_document.date.filter(|last| date < *last) {
            return Err(format!("the last document is of {last}: a date of issue cannot be before it"));
        }
        match &order.scope {
            IssueScope::Account(account) => {
                let is_known = self.view.billing.account(account.as_str()).is_some()
                    || rules.register.customer(account).is_some();
                let unknown = || {
                    format!("the account {account:?} is unknown; \"server accounts list\" shows the accounts")
                };
                is_known.then_some(date).ok_or_else(unknown)
            }
            IssueScope::Plate(_) | IssueScope::AllAccounts => Ok(date),
        }
    }

    /// Refuses to issue nothing for a car that has an account now: its stays are on the account's documents.
    fn owes_as_a_car(&self, order: &IssueOrder, bundles: &Bundles) -> Result<(), String> {
        let IssueScope::Plate(plate) = &order.scope else { return Ok(()) };
        let today = self.operator.time_zone.to_datetime(self.now).date();
        let holder = self.view.billing.rules.register.holder(plate, today);
        match holder.filter(|_| bundles.is_empty()) {
            None => Ok(()),
            Some(account) => Err(format!(
                "the plate {plate} is registered to {:?}: issue for that account",
                account.as_str()
            )),
        }
    }

    fn collect(&self, order: &IssueOrder) -> Result<Bundles, StoreError> {
        let _not_written = self.live.map(LiveViews::hold_saving);
        DueCollector::new(&self.view, self.ledger, &order.scope, order.month).collect()
    }

    /// What is due from those to whom a document can be addressed, and lines about the others. `locked`: whose documents are damaged.
    fn with_addresses(
        &self,
        bundles: Bundles,
        locked: &BTreeMap<Debtor, String>,
    ) -> (Vec<Addressed>, Vec<String>) {
        let (mut addressed, mut left_out) = (Vec::new(), Vec::new());
        for ((debtor, currency), bundle) in bundles {
            if let Some(number) = locked.get(&debtor) {
                left_out.push(format!(
                    "{:?} gets no document, because document {number} cannot be read and what it charged is not known: \"server documents import {}\"",
                    debtor.name(),
                    self.documents_dir.display()
                ));
                continue;
            }
            let customer = customer_of(&self.view, debtor.clone());
            let has_address = customer.name.is_some() && !customer.address.is_empty();
            match debtor {
                Debtor::Account(account) if !has_address => left_out.push(format!(
                    "account {account:?} has no name or no address, so it gets no document: \"server accounts set {} --name … --address …\"",
                    in_shell(account.as_str())
                )),
                _ => addressed.push((customer, currency, bundle)),
            }
        }
        (addressed, left_out)
    }

    fn maker(&self, order: &IssueOrder) -> DocumentMaker<'_> {
        DocumentMaker::new(&self.view, self.ledger, &self.operator.issuer, order.month)
    }

    /// Says which documents would be issued, and what would be on them.
    fn look(
        &self,
        order: &IssueOrder,
        bundles: &[Addressed],
        report: &mut IssueReport,
    ) -> Result<(), NotDone> {
        let mut maker = self.maker(order);
        let mut room = LINES_SHOWN_OF_ALL;
        for (customer, currency, bundle) in bundles {
            let summed = maker.sum((customer.clone(), *currency), bundle).map_err(not_made)?;
            self.is_simple(&summed.head)?;
            let mut document = line_of_report(&summed.head);
            let lines = maker.first_lines(summed, LINES_SHOWN.min(room)).map_err(not_made)?;
            room -= lines.len();
            document.first_lines = lines.iter().map(|line| line_in_short(*currency, line)).collect();
            report.documents.push(document);
        }
        Ok(())
    }

    /// A document without a customer's name is allowed for small amounts only.
    fn is_simple(&self, head: &DocumentHead) -> Result<(), NotDone> {
        let limit = self.operator.simplified_up_to;
        if matches!(head.customer.debtor, Debtor::Account(_)) || head.totals.gross.minor() <= limit {
            return Ok(());
        }
        Err(not_issued(format!(
            "{} is more than a document without the customer's name may charge ([operator] simplified_up_to): register the plate to an account, with \"server plates add PLATE ACCOUNT --from DATE\", and issue for it",
            Money { amount: head.totals.gross, currency: head.currency }
        )))
    }

    /// A number is given once, also where the ledger was restored from a backup that does not know it.
    fn is_new(&self, number: &str, copies: &CopiesDir<'_>) -> Result<(), NotDone> {
        let known = documents::serial_of(self.ledger.store(), number);
        if known.map_err(not_issued)?.is_some() {
            return Err(not_issued(format!(
                "an earlier document has the number {number}, because [operator] number_format was another one then. Choose a number_format that gives other numbers"
            )));
        }
        match copies.has(number).map_err(not_issued)? {
            true => Err(self.unknown_copy(number)),
            false => Ok(()),
        }
    }

    /// A copy of a document with this number is there, and the ledger does not know it.
    fn unknown_copy(&self, number: &str) -> NotDone {
        not_issued(format!(
            "{:?} has a document with the number {number}, which this ledger does not know: the ledger is an older copy, or the directory belongs to another server. Bring the document back with \"server documents import {}\", start the server on the newer ledger, or set documents_dir to the directory of this one",
            self.documents_dir,
            self.documents_dir.display()
        ))
    }

    fn record(
        &self,
        order: &IssueOrder,
        bundles: Vec<Addressed>,
        record: RecordCommands<'_>,
        report: &mut IssueReport,
    ) -> Result<(), NotDone> {
        let copies = CopiesDir(self.documents_dir);
        copies.complete(self.ledger).map_err(not_issued)?;
        if bundles.is_empty() {
            return Ok(());
        }
        copies.begin().map_err(not_issued)?;
        let (issue, date) = (rand::random(), report.date);
        let first = self.view.billing.last_document.serial + 1;
        let mut pieces = PieceRecorder::new(record);
        let mut maker = self.maker(order);
        let mut last = first - 1;
        for (customer, currency, bundle) in bundles {
            let summed = maker.sum((customer, currency), &bundle).map_err(not_made)?;
            self.is_simple(&summed.head)?;
            let serial = last + 1;
            let number = self.operator.number_format.number(date.year(), serial);
            self.is_new(&number, &copies)?;
            let (head, file) =
                maker.write(summed, Issue { number: number.clone(), serial, date }).map_err(not_made)?;
            copies.write(&number, &file).map_err(not_issued)?;
            pieces.add(issue, &head, &file)?;
            report.documents.push(line_of_report(&head));
            last = serial;
        }
        let from = pieces.finish()?;
        copies.sync().map_err(not_issued)?;
        let command = Command::Issue { issue, from, first, last, date };
        report.position = Some((pieces.record)(vec![command])?);
        Ok(())
    }
}

/// A customer, and what is due from it in a currency.
type Addressed = (BilledCustomer, Currency, DueBundle);

/// The time zones of garages.
fn zones(set: &TariffSet) -> Vec<TimeZone> {
    set.tariffs().iter().map(|tariff| tariff.time_zone.clone()).collect()
}

fn not_issued(reason: impl fmt::Display) -> NotDone {
    NotDone::Refused(format!("{reason}. Nothing was issued"))
}

fn not_made(error: MakeError) -> NotDone {
    not_issued(format!("a document was not made: {error}"))
}

fn line_of_report(head: &DocumentHead) -> DocumentLineOfReport {
    let account = match &head.customer.debtor {
        Debtor::Account(account) => account.to_string(),
        Debtor::Plate(plate) => plate.to_string(),
        removed @ Debtor::PlateRemoved { .. } => removed.name().to_owned(),
    };
    DocumentLineOfReport {
        number: head.issue.as_ref().map(|issue| issue.number.clone()),
        kind: head.kind().code(),
        account,
        currency: head.currency,
        total: head.totals.gross.minor(),
        lines: head.totals.lines,
        amount: Money { amount: head.totals.gross, currency: head.currency }.to_string(),
        first_lines: Vec::new(),
    }
}

/// A name as one word of a command: names may have spaces.
fn in_shell(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', "'\\''")),
    }
}

fn line_in_short(currency: Currency, line: &DocumentLine) -> String {
    let car = match &line.car {
        LineCar::Plate(plate) | LineCar::Token(plate) => plate,
    };
    let show = |amount| currency.show(amount);
    let corrects = line.correction.as_ref().map(|its| {
        let number = &its.document.number;
        format!(", corrects {number}: {} until now, {} now", show(its.before), show(its.now))
    });
    let amount = show(line.amount.gross);
    format!("{} {} {car}: {amount}{}", line.exit, line.garage, corrects.unwrap_or_default())
}

/// Records pieces of documents in groups, and notes of the documents behind them.
struct PieceRecorder<'r> {
    record: RecordCommands<'r>,
    waiting: Vec<Command>,
    notes: Vec<Command>,
    /// The position of the first.
    from: Option<u64>,
}

impl<'r> PieceRecorder<'r> {
    fn new(record: RecordCommands<'r>) -> PieceRecorder<'r> {
        PieceRecorder { record, waiting: Vec::new(), notes: Vec::new(), from: None }
    }

    fn add(&mut self, issue: [u8; 16], head: &DocumentHead, file: &[u8]) -> Result<(), NotDone> {
        let Some(note) = DocumentNote::of(head, file) else { return Ok(()) };
        let serial = note.summary.serial;
        for bytes in file.chunks(BYTES_IN_A_RECORD) {
            self.put(Command::DocumentPiece { issue, serial, bytes: bytes.to_vec() })?;
        }
        let note = note.to_bytes();
        let parts = note.chunks(BYTES_IN_A_RECORD).map(<[u8]>::to_vec);
        self.notes.extend(parts.map(|bytes| Command::DocumentNote { issue, serial, bytes }));
        Ok(())
    }

    fn put(&mut self, command: Command) -> Result<(), NotDone> {
        self.waiting.push(command);
        if self.waiting.len() < PIECES_AT_ONCE { Ok(()) } else { self.record_waiting() }
    }

    fn record_waiting(&mut self) -> Result<(), NotDone> {
        let count = self.waiting.len() as u64;
        if count > 0 {
            let last = (self.record)(std::mem::take(&mut self.waiting))?;
            self.from.get_or_insert(last + 1 - count);
        }
        Ok(())
    }

    /// Records the rest, and gives the position of the first piece.
    fn finish(&mut self) -> Result<u64, NotDone> {
        for note in std::mem::take(&mut self.notes) {
            self.put(note)?;
        }
        self.record_waiting()?;
        Ok(self.from.unwrap_or_default())
    }
}
