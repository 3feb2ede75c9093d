//! Commands to a directory on which no server runs.

use super::{Request, reading};
use crate::daemon::admin::{Caller, Outcome};
use crate::daemon::{DaemonError, clock};
use crate::server::WITNESS;
use crate::server::folding::{catch_up, open_view};
use crate::server::ledger::Ledger;
use crate::server::verify::verify;
use crate::server::view::View;
use crate::store::directory::DataDir;
use crate::store::{Purpose, Store, StoreError, room};

/// The books of a directory that this process holds.
pub struct Offline {
    store: Store,
    ledger: Ledger,
    view: View,
    _dir: DataDir,
}

impl Offline {
    /// Opens the store and folds what the view lacks. On a full disk the ballast is given up first, as by a server.
    pub fn open(dir: DataDir) -> Result<Offline, DaemonError> {
        let (store, _room) = room::open_store(dir.path(), Purpose::Server, None)?;
        let ledger = Ledger::open_beside(store.clone(), &dir.path().join(WITNESS), clock::wall_ms())?;
        let mut view = open_view(&ledger, &store)?;
        catch_up(&ledger, &store, &mut view)?;
        Ok(Offline { store, ledger, view, _dir: dir })
    }

    /// What a running server would do and answer.
    pub fn answer(&mut self, request: &Request, by: &Caller) -> Outcome {
        let command = match request {
            Request::Garages => return Ok(reading::garages(&self.view, &self.ledger.streams())),
            Request::Quarantine { after, limit } => {
                return Ok(reading::quarantine(&self.view, *after, *limit));
            }
            Request::Records { from, through } => return reading::records(&self.ledger, *from, *through),
            Request::Verify => return reading::verified(verify(&self.ledger, &self.store)),
            Request::Command(command) => command,
        };
        let judged = self.view.judge(&self.ledger, command);
        judged.map_err(|error| format!("{error}. Nothing was recorded"))?;
        let unknown = |error: StoreError| {
            format!(
                "{error}. Whether the command was recorded shows at the next start. Look, and if it was not, give it again"
            )
        };
        let position =
            self.ledger.record_command(by.as_str(), command.clone(), clock::wall_ms()).map_err(unknown)?;
        // It is recorded: a view that cannot be written is folded again at the next start.
        match catch_up(&self.ledger, &self.store, &mut self.view).and_then(|()| self.store.flush()) {
            Ok(()) => reading::done(&self.view, position, command),
            Err(error) => {
                tracing::warn!(%error, "the view was not written; the next start folds it again");
                Ok(reading::recorded(position))
            }
        }
    }
}
