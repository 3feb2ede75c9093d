//! `server payments …` and `server journal …`.

use super::books::{amount, read_file, whole_list};
use super::money_flags::{ImportFlags, PutFlags};
use super::payment_flags::{JournalCommand, JournalFormat, PaymentsCommand};
use super::say;
use crate::cli::{elements, more, print, said, table, text};
use crate::codes;
use crate::daemon::admin::NotDone;
use crate::parking::journal::{Booking, write_csv, write_hledger};
use crate::parking::payment::PaymentId;
use crate::parking::receivables::Waits;
use crate::server::commands::{ServerRequest, ServerSession};
use crate::server::receivables::{JournalPart, ReceivablesQuestion};
use serde_json::Value;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

pub(super) fn run_payments(session: &mut ServerSession<'_>, command: PaymentsCommand) -> Result<(), NotDone> {
    match command {
        PaymentsCommand::Import(ImportFlags { file, put: PutFlags { dry_run, output } }) => {
            let answer = session.ask(ServerRequest::ImportPayments { csv: read_file(&file)?, dry_run })?;
            output.print(&answer, print_import);
        }
        PaymentsCommand::List { account, unallocated: false, output } => {
            let ask = |after: Option<String>, _| {
                let after = after.and_then(|after| after.parse::<PaymentId>().ok());
                let account = account.clone();
                ServerRequest::Receivables(ReceivablesQuestion::Payments { account, after })
            };
            let all = whole_list(session, "payments", usize::MAX, ask)?;
            output.print(&all, print_payments);
        }
        PaymentsCommand::List { account, unallocated: true, output } => {
            let ask = |after, _| {
                let account = account.clone();
                ServerRequest::Receivables(ReceivablesQuestion::Unallocated { account, after })
            };
            let all = whole_list(session, "unallocated", usize::MAX, ask)?;
            output.print(&all, print_unallocated);
        }
        PaymentsCommand::Undo { payment, dry_run } => {
            return say(session, ServerRequest::UndoPayment { payment, dry_run });
        }
    }
    Ok(())
}

fn print_import(answer: &Value) -> String {
    let lines = |list: &str, before: &str| -> String {
        let mut shown: String =
            elements(answer, list).map(|line| format!("{before}{}\n", text(line))).collect();
        let total = answer[format!("{list}_total")].as_u64().unwrap_or_default();
        match total.saturating_sub(elements(answer, list).count() as u64) {
            0 => {}
            more => shown.push_str(&format!("{before}and {more} more lines\n")),
        }
        shown
    };
    lines("warnings", "warning: ") + &lines("skipped", "") + &lines("waiting", "waits: ") + &said(answer)
}

fn print_payments(answer: &Value) -> String {
    let rows = elements(answer, "payments").map(|line| {
        let cell = |field: &str| text(&line[field]);
        let [id, date, account, number, state, waits, reference] =
            ["id", "date", "account", "number", "state", "waits", "reference"].map(cell);
        let state = match (waits.is_empty(), line["undone_on"].as_str()) {
            (_, Some(date)) => format!("undone on {date}"),
            (true, None) => state,
            (false, None) => format!("{state}: {}", why_it_waits(line)),
        };
        [id, date, amount(line), account, number, state, reference]
    });
    table(["ID", "DATE", "AMOUNT", "ACCOUNT", "NUMBER", "STATE", "REFERENCE"], rows) + &more(answer)
}

/// In words; the code itself, where it is of a later program.
fn why_it_waits(line: &Value) -> String {
    let waits = serde_json::from_value::<Waits>(line["waits"].clone());
    waits.map_or_else(|_| text(&line["waits"]), |waits| waits.to_string())
}

fn print_unallocated(answer: &Value) -> String {
    let rows = elements(answer, "unallocated").map(|line| {
        let cell = |field: &str| text(&line[field]);
        let [payment, date, account, document, waits, reference] =
            ["payment", "date", "account", "document", "waits", "reference"].map(cell);
        let paid_too_much = waits.is_empty() && payment.is_empty();
        let why = if paid_too_much { "paid too much".to_owned() } else { why_it_waits(line) };
        [account, amount(line), payment, document, date, why, reference]
    });
    table(["ACCOUNT", "AMOUNT", "PAYMENT", "NUMBER", "DATE", "WHY", "REFERENCE"], rows) + &more(answer)
}

pub(super) fn run_journal(session: &mut ServerSession<'_>, command: JournalCommand) -> Result<(), NotDone> {
    let JournalCommand::Export { after, format, out } = command;
    let bookings = Bookings::begin(session, after)?;
    let place = out.as_deref().map_or_else(|| "stdout".to_owned(), |file| format!("{file:?}"));
    let written = match &out {
        None => export(bookings, format, BufWriter::new(io::stdout().lock())),
        Some(file) => export_to(bookings, format, file),
    };
    let last = match written {
        Ok(last) => last,
        // Who reads it has seen enough.
        Err(ExportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(ExportError::Io(error)) => {
            let reason = format!(
                "the journal cannot be written to {place}: {error}. Nothing in the books was changed, and a file that was there is kept. Make room or choose another place, and run the command again with --after {after}"
            );
            return Err(NotDone::Failed(codes::EXPORT_FAILED, reason));
        }
        Err(ExportError::NotDone(error)) => return Err(error),
    };
    let said = match last {
        Some(last) => format!(
            "The last booking that was exported is {last}. The next export begins after it: --after {last}\n"
        ),
        None => {
            format!("There is no booking after {after} yet. The next export begins there: --after {after}\n")
        }
    };
    match out {
        Some(_) => print(&said),
        None => _ = io::stderr().write_all(said.as_bytes()),
    }
    Ok(())
}

/// Why an export was not completed.
enum ExportError {
    Io(io::Error),
    NotDone(NotDone),
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> ExportError {
        ExportError::Io(error)
    }
}

/// Writes the bookings, and returns the number of the last.
fn export(
    bookings: Bookings<'_, '_>,
    format: JournalFormat,
    mut to: impl Write,
) -> Result<Option<u64>, ExportError> {
    let last = match format {
        JournalFormat::Csv => write_csv(bookings, &mut to)?,
        JournalFormat::Hledger => write_hledger(bookings, &mut to)?,
    };
    to.flush()?;
    Ok(last)
}

/// The file has its name only once everything in it is on disk.
fn export_to(
    bookings: Bookings<'_, '_>,
    format: JournalFormat,
    file: &Path,
) -> Result<Option<u64>, ExportError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = NamedTempFile::new_in(folder)?;
    let last = export(bookings, format, BufWriter::new(unfinished.as_file()))?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(file).map_err(|error| error.error)?;
    Ok(last)
}

/// The bookings after a number, a part at a time.
struct Bookings<'s, 'c> {
    session: &'s mut ServerSession<'c>,
    /// The number of the last one that was taken.
    last: u64,
    /// The number of the last one to be taken: what comes during an export is left to the next.
    end: u64,
    part: std::vec::IntoIter<Booking>,
}

impl<'s, 'c> Bookings<'s, 'c> {
    fn begin(session: &'s mut ServerSession<'c>, after: u64) -> Result<Bookings<'s, 'c>, NotDone> {
        let JournalPart { bookings, last: end } = journal_part(session, after)?;
        Ok(Bookings { session, last: after, end, part: bookings.into_iter() })
    }
}

fn journal_part(session: &mut ServerSession<'_>, after: u64) -> Result<JournalPart, NotDone> {
    let question = ReceivablesQuestion::Bookings { after };
    let answer = session.ask(ServerRequest::Receivables(question))?;
    Ok(JournalPart::read(&answer).map_err(|error| error.to_string())?)
}

impl Iterator for Bookings<'_, '_> {
    type Item = Result<Booking, ExportError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.last >= self.end {
            return None;
        }
        if self.part.len() == 0 {
            match journal_part(self.session, self.last) {
                Ok(part) => self.part = part.bookings.into_iter(),
                Err(error) => return Some(Err(ExportError::NotDone(error))),
            }
        }
        let number = self.last + 1;
        let Some(booking) = self.part.next().filter(|booking| booking.number == number) else {
            let reason = format!(
                "booking {number} cannot be read. Nothing was changed, and no file was written. \"server verify\" says more"
            );
            return Some(Err(ExportError::NotDone(NotDone::Refused(reason))));
        };
        self.last = number;
        Some(Ok(booking))
    }
}
