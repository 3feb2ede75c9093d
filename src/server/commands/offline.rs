//! Commands to a directory on which no server runs.

use super::ServerRequest;
use super::desk::{fits_on, not_recorded};
use super::operate::{self, Backend, CaughtUp, OpenBooks};
use crate::codes;
use crate::config::{LiveGarages, ServerConfig};
use crate::daemon::admin::{self, Caller, DaemonOrDirectory, NotDone, Outcome};
use crate::daemon::audited::{self, Audited};
use crate::daemon::{DaemonError, clock};
use crate::parking::document::OperatorSettings;
use crate::server::applying::{catch_up, open_view};
use crate::server::ledger::Ledger;
use crate::server::opening::{self, OpenedLedger};
use crate::server::record::Command;
use crate::server::view::billing::recorder::RatingEffect;
use crate::server::view::billing::rules::PutInForce;
use crate::server::view::{JudgeError, Snapshot, View};
use crate::store::directory::DataDir;
use crate::store::room::DiskRoom;
use std::path::PathBuf;
use std::sync::Arc;

/// The books of a directory that this process holds.
pub struct OfflineServer {
    pub ledger: Ledger,
    /// At the ledger's end, and written.
    pub view: View,
    room: DiskRoom,
    /// The sender of the statements.
    operator: OperatorSettings,
    documents_dir: PathBuf,
    garages: LiveGarages,
    _dir: DataDir,
}

impl OfflineServer {
    /// Opens the store and applies what the view lacks. On a full disk the ballast is given up first, as by a server.
    pub fn open(dir: DataDir, config: &ServerConfig) -> Result<OfflineServer, DaemonError> {
        let OpenedLedger { ledger, room, .. } = opening::open(dir.path(), config.reserve_bytes)?;
        let mut view = open_view(&ledger)?;
        catch_up(&ledger, &mut view)?;
        let (operator, documents_dir) = (config.operator.clone(), config.documents_dir.clone());
        let garages = config.garages.clone();
        Ok(OfflineServer { ledger, view, room, operator, documents_dir, garages, _dir: dir })
    }
}

impl Backend for OfflineServer {
    fn open(&self) -> OpenBooks<'_> {
        let OfflineServer { ledger, operator, documents_dir, garages, .. } = self;
        OpenBooks { ledger, live: None, operator, documents_dir, garages }
    }
    fn view(&self) -> Arc<Snapshot> {
        Arc::new(self.view.snapshot())
    }

    /// The view is at the ledger's end, and written, between any two requests.
    fn catch_up(&self, _until: CaughtUp) -> Result<(), NotDone> {
        Ok(())
    }

    fn judge(&self, command: &Command) -> Result<Result<Command, JudgeError>, NotDone> {
        Ok(self.view.judge(&self.ledger, command))
    }

    fn effect_of(&self, put: PutInForce) -> Result<RatingEffect, NotDone> {
        Ok(self.view.effect_of(&self.ledger, put).map_err(|error| error.to_string())?)
    }

    fn record(&mut self, commands: Vec<Command>, by: &str) -> Result<u64, NotDone> {
        fits_on(&self.room, &commands)?;
        let recorded = self.ledger.record_all(by, commands, clock::wall_ms());
        Ok(recorded.map_err(|error| not_recorded(&error))?)
    }

    fn shows(&mut self, _position: u64) -> bool {
        // It is recorded: a view that cannot be written is caught up with at the next start.
        let written = catch_up(&self.ledger, &mut self.view).and_then(|()| self.ledger.store().flush());
        if let Err(error) = &written {
            tracing::warn!(
                code = %codes::VIEWS_NOT_WRITTEN,
                %error,
                hint = "nothing to do: the next start applies the command to the views",
                "the command was recorded, but the views were not written"
            );
        }
        written.is_ok()
    }
}

/// Several requests: to the running server, or to its directory, which is held from the first request on that finds no server.
pub struct ServerSession<'a> {
    config: &'a ServerConfig,
    offline: Option<OfflineServer>,
}

impl ServerSession<'_> {
    pub fn of(config: &ServerConfig) -> ServerSession<'_> {
        ServerSession { config, offline: None }
    }

    pub fn ask(&mut self, request: ServerRequest) -> Outcome {
        let offline = match &mut self.offline {
            Some(offline) => offline,
            None => match admin::reach(&self.config.data_dir, &request)? {
                DaemonOrDirectory::Daemon(answer) => return Ok(answer),
                DaemonOrDirectory::Directory(dir) => {
                    self.offline.insert(OfflineServer::open(dir, self.config)?)
                }
            },
        };
        let what = request.audited();
        let outcome = operate::answer(offline, request, Caller::this_process().as_str());
        if let Some(what) = what {
            audited::note_own(&self.config.data_dir, &what, &outcome);
        }
        outcome
    }
}
