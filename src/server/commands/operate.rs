//! Carries out a request of an operator, in the same way in a running server and in a directory on which none runs.

use super::checks;
use super::payments;
use super::put::{self, Put};
use super::{ServerRequest, answers};
use crate::codes;
use crate::config::LiveGarages;
use crate::daemon::admin::{NotDone, Outcome};
use crate::daemon::clock;
use crate::parking::document::OperatorSettings;
use crate::parking::payment::PaymentId;
use crate::parking::register::Account;
use crate::server::applying::LiveViews;
use crate::server::books::BooksReader;
use crate::server::charge_details::decisions;
use crate::server::documents::document_part;
use crate::server::issuing::{CopiesDir, IssueOrder, Issuing, RecordCommands};
use crate::server::ledger::Ledger;
use crate::server::receivables::ReceivablesReader;
use crate::server::record::{Command, ToForget};
use crate::server::verify::verify;
use crate::server::view::billing::recorder::RatingEffect;
use crate::server::view::billing::rules::PutInForce;
use crate::server::view::forgotten::names_before;
use crate::server::view::review::review;
use crate::server::view::{JudgeError, Snapshot};
use jiff::civil::Date;
use std::path::Path;
use std::sync::Arc;

/// How far the views must have caught up before something is read or judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaughtUp {
    /// They show everything that is recorded.
    InMemory,
    /// They are written as well: stays and charges are read from the store.
    OnDisk,
}

/// What is read to answer.
#[derive(Clone, Copy)]
pub(super) struct OpenBooks<'a> {
    pub ledger: &'a Ledger,
    /// The views of a running server. `None`: nobody writes them meanwhile.
    pub live: Option<&'a Arc<LiveViews>>,
    /// Who issues documents.
    pub operator: &'a OperatorSettings,
    /// For the copies of documents.
    pub documents_dir: &'a Path,
    /// Those of the configuration.
    pub garages: &'a LiveGarages,
}

/// A ledger and its views, to which commands are given one at a time.
pub(super) trait Backend {
    fn open(&self) -> OpenBooks<'_>;
    /// The views as readers see them now.
    fn view(&self) -> Arc<Snapshot>;
    /// Returns once the views have caught up with what is recorded now.
    fn catch_up(&self, until: CaughtUp) -> Result<(), NotDone>;
    /// Asks the view itself whether the command makes sense, and how it is to be recorded.
    fn judge(&self, command: &Command) -> Result<Result<Command, JudgeError>, NotDone>;
    /// Asks the view itself what a list would change.
    fn effect_of(&self, put: PutInForce) -> Result<RatingEffect, NotDone>;
    /// Records commands right after each other, all or none, and gives the position of the last once they are on disk.
    fn record(&mut self, commands: Vec<Command>, by: &str) -> Result<u64, NotDone>;
    /// Returns whether the views show this position, after having waited for it.
    fn shows(&mut self, position: u64) -> bool;
}

/// Answers one request of `by`. The caller ensures that no other command is given meanwhile.
pub(super) fn answer(backend: &mut impl Backend, request: ServerRequest, by: &str) -> Outcome {
    let OpenBooks { ledger, live, operator, garages, .. } = backend.open();
    match request {
        ServerRequest::Garages => Ok(answers::garages(&backend.view(), &garages.table(), ledger)),
        ServerRequest::Quarantine { after, limit } => Ok(answers::quarantine(&backend.view(), after, limit)),
        ServerRequest::Plates { after } => Ok(answers::plates(&backend.view(), after.as_deref())),
        ServerRequest::Accounts { after } => Ok(answers::accounts(&backend.view(), after.as_deref())),
        ServerRequest::Contracts => Ok(answers::contracts(&backend.view())),
        ServerRequest::Decisions => {
            backend.catch_up(CaughtUp::OnDisk)?;
            let saving = live.map(|live| live.saving());
            let all = decisions((&backend.view(), ledger), saving);
            Ok(all.map_err(|error| error.to_string())?)
        }
        ServerRequest::Document { number, from } => {
            document_part(ledger, (&number, from), operator.plate_term(today(operator)))
        }
        ServerRequest::Alarms(_) => Err(NotDone::Refused(
            "no server runs on this directory, and only a running one knows alarms and notifies of them. Nothing was changed".into(),
        )),
        ServerRequest::Base { after } => answers::base(ledger, after),
        ServerRequest::Records { from, through } => answers::records(ledger, from, through),
        ServerRequest::Verify => answers::verified(verify(ledger, live.map(|live| &**live))),
        ServerRequest::Review => {
            backend.catch_up(CaughtUp::OnDisk)?;
            let found = review(ledger.store()).map_err(|error| error.to_string())?;
            answers::review(&backend.view(), ledger, &found)
        }
        ServerRequest::Books(question) => {
            if question.is_a_beginning() {
                backend.catch_up(CaughtUp::OnDisk)?;
            }
            let saving = live.map(|live| live.saving());
            BooksReader { ledger, saving, view: || backend.view() }
                .answer((&operator.issuer, operator.plate_term(today(operator))), &question)
        }
        ServerRequest::Receivables(question) => {
            if question.is_a_beginning() {
                backend.catch_up(CaughtUp::OnDisk)?;
            }
            let saving = live.map(|live| live.saving());
            let term = operator.plate_term(today(operator));
            ReceivablesReader { store: ledger.store(), saving, term }.answer(&question)
        }
        ServerRequest::Command(command) => carry_out_checked(backend, checks::checked(command), by),
        ServerRequest::Forget { whose, before } => {
            backend.catch_up(CaughtUp::InMemory)?;
            let known = whose_is_known(&backend.view(), &whose);
            carry_out_checked(backend, known.and_then(|()| checks::forget(&whose, before)), by)
        }
        ServerRequest::Put { put, dry_run } => put_in_force(backend, &put, dry_run, by),
        ServerRequest::ImportPayments { csv, dry_run } => import_payments(backend, &csv, dry_run, by),
        ServerRequest::UndoPayment { payment, dry_run } => undo_payment(backend, payment, dry_run, by),
        ServerRequest::Issue(order) => issue(backend, &order, by),
        ServerRequest::ImportDocuments { path, dry_run } => {
            import_documents(backend, Path::new(&path), dry_run, by)
        }
        ServerRequest::ResumeNumbers { last, reason, dry_run } => {
            resume_numbers(backend, last, reason, dry_run, by)
        }
    }
}

/// Where the name of an account is misspelt, nothing would be forgotten, and the answer would say that it was.
fn whose_is_known(view: &Snapshot, whose: &ToForget) -> Result<(), String> {
    let ToForget::Account(name) = whose else { return Ok(()) };
    let Ok(account) = Account::new(name) else { return Ok(()) };
    let register = &view.billing.rules.register;
    let is_known = view.billing.account(account.as_str()).is_some()
        || register.customer(&account).is_some()
        || register
            .plates()
            .values()
            .any(|its| its.holders.list().iter().any(|held| held.account == account));
    is_known.then_some(()).ok_or_else(|| {
        format!("the account {account:?} is unknown; \"server accounts list\" shows the accounts")
    })
}

fn carry_out_checked(backend: &mut impl Backend, checked: Result<Command, String>, by: &str) -> Outcome {
    let command = checked.map_err(|bad| format!("{bad}. Nothing was recorded"))?;
    carry_out(backend, Vec::new(), &command, by)
}

/// Judges one command, records it, and says what it did.
fn carry_out(backend: &mut impl Backend, pieces: Vec<Vec<u8>>, command: &Command, by: &str) -> Outcome {
    backend.catch_up(match command.is_about_entries() {
        true => CaughtUp::OnDisk,
        false => CaughtUp::InMemory,
    })?;
    let command = &judged(backend, command)?;
    let pieces = pieces.into_iter().map(|bytes| Command::Piece { bytes });
    let position = backend.record(pieces.chain([command.clone()]).collect(), by)?;
    match backend.shows(position) {
        true => answers::done(&backend.view(), position, command),
        false => Ok(answers::recorded(position)),
    }
}

/// The command as it is to be recorded, if it makes sense now.
fn judged(backend: &impl Backend, command: &Command) -> Result<Command, NotDone> {
    Ok(backend.judge(command)?.map_err(|error| format!("{error}. Nothing was recorded"))?)
}

fn put_in_force(backend: &mut impl Backend, put: &Put, dry_run: bool, by: &str) -> Outcome {
    backend.catch_up(CaughtUp::OnDisk)?;
    let today = today(backend.open().operator);
    let prepared = put::prepare(&backend.view(), put, today);
    let (mut prepared, news) = prepared.map_err(|error| format!("{error}\nNothing was recorded"))?;
    if prepared.changes.is_empty() {
        return Ok(answers::put(&prepared, None));
    }
    prepared.drafts = backend.effect_of(news)?;
    if dry_run {
        return Ok(answers::put(&prepared, None));
    }
    let pieces = std::mem::take(&mut prepared.pieces);
    let done = carry_out(backend, pieces, &prepared.command, by)?;
    Ok(answers::put(&prepared, done["position"].as_u64()))
}

fn import_payments(backend: &mut impl Backend, csv: &str, dry_run: bool, by: &str) -> Outcome {
    backend.catch_up(CaughtUp::OnDisk)?;
    let OpenBooks { ledger, live, operator, .. } = backend.open();
    let books = (ledger.store(), live.map(|live| live.saving()));
    let prepared = payments::prepare(books, csv, today(operator));
    let mut prepared = prepared.map_err(|error| format!("{error}\nNothing was recorded"))?;
    if dry_run || prepared.payments == 0 {
        return Ok(answers::payments(&prepared, None));
    }
    let pieces = std::mem::take(&mut prepared.pieces);
    let done = carry_out(backend, pieces, &prepared.command, by)?;
    Ok(answers::payments(&prepared, done["position"].as_u64()))
}

/// Reverses a payment on the day that it is in the operator's time zone.
fn undo_payment(backend: &mut impl Backend, payment: PaymentId, dry_run: bool, by: &str) -> Outcome {
    let command = Command::UndoPayment { payment, date: today(backend.open().operator) };
    if !dry_run {
        return carry_out(backend, Vec::new(), &command, by);
    }
    backend.catch_up(CaughtUp::OnDisk)?;
    judged(backend, &command)?;
    Ok(answers::payment_could_be_undone(payment))
}

fn issue(backend: &mut impl Backend, order: &IssueOrder, by: &str) -> Outcome {
    let report = issuing(backend, by, |issuing, record| issuing.issue(order, record))?;
    complete_copies(backend, report.position)?;
    Ok(answers::issued(&report))
}

fn import_documents(backend: &mut impl Backend, path: &Path, dry_run: bool, by: &str) -> Outcome {
    let report = issuing(backend, by, |issuing, record| issuing.import(path, dry_run, record))?;
    complete_copies(backend, report.position)?;
    Ok(answers::documents_imported(&report))
}

/// Lets `act` record documents while the views show all that was recorded before, and are written.
fn issuing<T>(
    backend: &mut impl Backend,
    by: &str,
    act: impl FnOnce(&Issuing<'_>, RecordCommands<'_>) -> Result<T, NotDone>,
) -> Result<T, NotDone> {
    backend.catch_up(CaughtUp::OnDisk)?;
    let OpenBooks { ledger, live, operator, documents_dir, .. } = backend.open();
    let (ledger, operator, documents_dir) = (ledger.clone(), operator.clone(), documents_dir.to_owned());
    // The views that are written are held by it, not by the backend, which records meanwhile.
    let live = live.cloned();
    let view = backend.view();
    let (operator, documents_dir, live) = (&operator, &*documents_dir, live.as_deref());
    let issuing = Issuing { ledger: &ledger, live, view, operator, documents_dir, now: clock::now() };
    act(&issuing, &mut |commands| backend.record(commands, by))
}

/// Gives the copies of documents that were put in force at `position` their names.
fn complete_copies(backend: &mut impl Backend, position: Option<u64>) -> Result<(), NotDone> {
    if let Some(position) = position
        && backend.shows(position)
    {
        backend.catch_up(CaughtUp::OnDisk)?;
        let OpenBooks { ledger, documents_dir, .. } = backend.open();
        if let Err(error) = CopiesDir(documents_dir).complete(ledger) {
            tracing::warn!(
                code = %codes::DOCUMENT_COPIES_UNFINISHED,
                %error,
                hint = "nothing to do: the next issue, or the next start, finishes them",
                "the copies of documents that were issued do not have their final names yet"
            );
        }
    }
    Ok(())
}

/// Records the numbers after the last that is known as lost.
fn resume_numbers(backend: &mut impl Backend, last: u64, reason: String, dry_run: bool, by: &str) -> Outcome {
    backend.catch_up(CaughtUp::OnDisk)?;
    let first = backend.view().billing.last_document.serial + 1;
    let command = Command::ResumeNumbers { first, last, reason, date: today(backend.open().operator) };
    let position = match dry_run {
        true => {
            judged(backend, &command)?;
            None
        }
        false => carry_out(backend, Vec::new(), &command, by)?["position"].as_u64(),
    };
    Ok(answers::numbers_resumed((first, last), position))
}

/// The date in the time zone of the operator.
pub fn today(operator: &OperatorSettings) -> Date {
    operator.time_zone.to_datetime(clock::now()).date()
}

/// Forgets the plates of all stays that ended before a day, if there are any. Returns whether a command was recorded.
pub(super) fn forget_before(backend: &mut impl Backend, before: Date, by: &str) -> Result<bool, NotDone> {
    backend.catch_up(CaughtUp::OnDisk)?;
    let any = names_before(backend.open().ledger.store(), before).map_err(|error| error.to_string())?;
    if any {
        let command = checks::forget(&ToForget::All, before).map_err(NotDone::Refused)?;
        carry_out(backend, Vec::new(), &command, by)?;
    }
    Ok(any)
}
