//! Carries out a request of an operator, in the same way in a running server and in a directory on which none runs.

use super::checks;
use super::put::{self, News, Put};
use super::{ServerRequest, answers};
use crate::daemon::admin::{NotDone, Outcome};
use crate::daemon::clock;
use crate::parking::document::OperatorSettings;
use crate::server::applying::LiveViews;
use crate::server::books::BooksReader;
use crate::server::ledger::Ledger;
use crate::server::record::{Command, ToForget};
use crate::server::verify::verify;
use crate::server::view::billing::recorder::RatingEffect;
use crate::server::view::billing::rules::PutInForce;
use crate::server::view::forgotten::names_before;
use crate::server::view::review::review;
use crate::server::view::{JudgeError, Snapshot};
use jiff::Timestamp;
use jiff::civil::Date;
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
    pub live: Option<&'a LiveViews>,
    /// Who issues documents.
    pub operator: &'a OperatorSettings,
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
    /// Records a command with the pieces that stand right before it, and gives its position once it is on disk.
    fn record(&mut self, pieces: Vec<Vec<u8>>, command: &Command, by: &str) -> Result<u64, NotDone>;
    /// Returns whether the views show this position, after having waited for it.
    fn shows(&mut self, position: u64) -> bool;
}

/// Answers one request of `by`. The caller ensures that no other command is given meanwhile.
pub(super) fn answer(backend: &mut impl Backend, request: ServerRequest, by: &str) -> Outcome {
    let OpenBooks { ledger, live, operator } = backend.open();
    match request {
        ServerRequest::Garages => Ok(answers::garages(&backend.view(), ledger)),
        ServerRequest::Quarantine { after, limit } => Ok(answers::quarantine(&backend.view(), after, limit)),
        ServerRequest::Plates { after } => Ok(answers::plates(&backend.view(), after.as_deref())),
        ServerRequest::Accounts { after } => Ok(answers::accounts(&backend.view(), after.as_deref())),
        ServerRequest::Contracts => Ok(answers::contracts(&backend.view())),
        ServerRequest::Decisions => answers::decisions(&backend.view(), ledger),
        ServerRequest::Base { after } => answers::base(ledger, after),
        ServerRequest::Records { from, through } => answers::records(ledger, from, through),
        ServerRequest::Verify => answers::verified(verify(ledger, live)),
        ServerRequest::Review => {
            backend.catch_up(CaughtUp::OnDisk)?;
            let found = review(ledger.store()).map_err(|error| error.to_string())?;
            answers::review(&backend.view(), ledger, &found)
        }
        ServerRequest::Books(question) => {
            if question.is_a_beginning() {
                backend.catch_up(CaughtUp::OnDisk)?;
            }
            let saving = live.map(LiveViews::saving);
            BooksReader { ledger, store: ledger.store(), saving, view: || backend.view() }
                .answer(&operator.issuer, &question)
        }
        ServerRequest::Command(command) => carry_out_checked(backend, checks::checked(command), by),
        ServerRequest::Forget { whose, before } => {
            carry_out_checked(backend, checks::forget(&whose, before), by)
        }
        ServerRequest::Put { put, dry_run } => put_in_force(backend, &put, dry_run, by),
    }
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
    let command = &backend.judge(command)?.map_err(|error| format!("{error}. Nothing was recorded"))?;
    let position = backend.record(pieces, command, by)?;
    match backend.shows(position) {
        true => answers::done(&backend.view(), position, command),
        false => Ok(answers::recorded(position)),
    }
}

fn put_in_force(backend: &mut impl Backend, put: &Put, dry_run: bool, by: &str) -> Outcome {
    backend.catch_up(CaughtUp::OnDisk)?;
    let today = today(backend.open().operator);
    let prepared = put::prepare(&backend.view(), put, today);
    let mut prepared = prepared.map_err(|error| format!("{error}\nNothing was recorded"))?;
    if prepared.changes.is_empty() {
        return Ok(answers::put(&prepared, None));
    }
    let news = match prepared.news.clone() {
        News::Tariffs(set) => PutInForce::Tariffs(set),
        News::Register(facts) => PutInForce::Register(facts),
    };
    prepared.drafts = backend.effect_of(news)?;
    if dry_run {
        return Ok(answers::put(&prepared, None));
    }
    let pieces = std::mem::take(&mut prepared.pieces);
    let done = carry_out(backend, pieces, &prepared.command, by)?;
    Ok(answers::put(&prepared, done["position"].as_u64()))
}

/// The date in the time zone of the operator.
pub fn today(operator: &OperatorSettings) -> Date {
    let now = Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default();
    operator.time_zone.to_datetime(now).date()
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
