//! Commands to a directory on which no server runs.

use super::desk::{fits_on, not_recorded};
use super::put::{self, Put};
use super::{Request, reading};
use crate::codes;
use crate::daemon::admin::{Caller, Outcome};
use crate::daemon::{DaemonError, clock};
use crate::parking::statement::Operator;
use crate::server::books::BooksReader;
use crate::server::folding::{catch_up, open_view};
use crate::server::ledger::Ledger;
use crate::server::opening::{self, OpenedLedger};
use crate::server::record::Command;
use crate::server::verify::verify;
use crate::server::view::View;
use crate::server::view::billing::list::pending;
use crate::server::view::review::review;
use crate::store::Store;
use crate::store::directory::DataDir;
use crate::store::room::DiskRoom;
use std::sync::Arc;

/// The books of a directory that this process holds.
pub struct Offline {
    store: Store,
    ledger: Ledger,
    view: View,
    room: DiskRoom,
    /// Who sends statements.
    operator: Operator,
    _dir: DataDir,
}

impl Offline {
    /// Opens the store and folds what the view lacks. On a full disk the ballast is given up first, as by a server; `reserve`
    /// bytes are kept free, or what is kept where nothing is set.
    pub fn open(dir: DataDir, reserve: Option<u64>) -> Result<Offline, DaemonError> {
        let OpenedLedger { store, ledger, room, .. } = opening::open(dir.path(), reserve)?;
        let mut view = open_view(&ledger, &store)?;
        catch_up(&ledger, &store, &mut view)?;
        Ok(Offline { store, ledger, view, room, operator: Operator::default(), _dir: dir })
    }

    pub fn for_operator(self, operator: &Operator) -> Offline {
        Offline { operator: operator.clone(), ..self }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// At the ledger's end, and written.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What a running server would do and answer.
    pub fn answer(&mut self, request: &Request, by: &Caller) -> Outcome {
        let intent = match request {
            Request::Garages => return Ok(reading::garages(&self.view.snapshot(), &self.ledger.streams())),
            Request::Quarantine { after, limit } => {
                return Ok(reading::quarantine(&self.view.snapshot(), *after, *limit));
            }
            Request::Base { after } => return reading::base(&self.ledger, after.as_deref()),
            Request::Records { from, through } => return reading::records(&self.ledger, *from, *through),
            Request::Verify => return reading::verified(verify(&self.ledger, &self.store)),
            Request::Review => {
                let found = review(&self.store).map_err(|error| error.to_string())?;
                return reading::review(&self.view.snapshot(), &self.ledger, &found);
            }
            Request::Plates { after } => return Ok(reading::plates(&self.view.snapshot(), after.as_deref())),
            Request::Contracts => return Ok(reading::contracts(&self.view.snapshot())),
            Request::Books(question) => {
                let view = Arc::new(self.view.snapshot());
                let books = BooksReader {
                    ledger: &self.ledger,
                    store: &self.store,
                    saving: None,
                    view: || Arc::clone(&view),
                };
                return books.answer(&self.operator, question);
            }
            Request::Put { put, dry_run } => return self.put(put, *dry_run, by),
            Request::ApplyTariffs => return self.apply_tariffs(by),
            Request::Command(intent) => intent,
        };
        let command = intent.clone().command().map_err(|bad| format!("{bad}. Nothing was recorded"))?;
        self.carry_out(Vec::new(), &command, by)
    }

    fn put(&mut self, put: &Put, dry_run: bool, by: &Caller) -> Outcome {
        let mut prepared = put::prepare(&self.view.snapshot(), put)
            .map_err(|error| format!("{error}\nNothing was recorded"))?;
        if dry_run || prepared.changes.is_empty() {
            return Ok(reading::put(&prepared, None));
        }
        let pieces = std::mem::take(&mut prepared.pieces);
        let done = self.carry_out(pieces, &prepared.command, by)?;
        Ok(reading::put(&prepared, done["position"].as_u64()))
    }

    fn apply_tariffs(&mut self, by: &Caller) -> Outcome {
        let (mut commands, mut from) = (0, 1);
        while let Some((first, to)) = pending(&self.store, from).map_err(|error| error.to_string())? {
            self.carry_out(Vec::new(), &Command::Price { from: first, to }, by)?;
            (commands, from) = (commands + 1, to);
        }
        reading::applied(&self.store, commands)
    }

    /// One command, with what stands right before it.
    fn carry_out(&mut self, pieces: Vec<Vec<u8>>, command: &Command, by: &Caller) -> Outcome {
        let judged = self.view.judge(&self.ledger, command);
        judged.map_err(|error| format!("{error}. Nothing was recorded"))?;
        fits_on(&self.room, &pieces)?;
        let position = self
            .ledger
            .record_order(by.as_str(), pieces, command.clone(), clock::wall_ms())
            .map_err(|error| not_recorded(&error))?;
        // It is recorded: a view that cannot be written is folded again at the next start.
        match catch_up(&self.ledger, &self.store, &mut self.view).and_then(|()| self.store.flush()) {
            Ok(()) => reading::done(&self.view.snapshot(), position, command),
            Err(error) => {
                tracing::warn!(
                    code = %codes::VIEWS_NOT_WRITTEN,
                    %error,
                    hint = "nothing is to be done: the next start applies it to the views",
                    "the command is recorded, and the views were not written"
                );
                Ok(reading::recorded(position))
            }
        }
    }
}
