//! Commands to a running server.

use super::ServerRequest;
use super::operate::{self, Backend, CaughtUp, OpenBooks};
use crate::codes;
use crate::config::LiveGarages;
use crate::daemon::admin::{Call, NotDone, Outcome};
use crate::parking::document::OperatorSettings;
use crate::server::alarms::Alarms;
use crate::server::applying::LiveViews;
use crate::server::issuing::CopiesDir;
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::view::billing::recorder::RatingEffect;
use crate::server::view::billing::rules::PutInForce;
use crate::server::view::{JudgeError, Snapshot, View};
use crate::store::StoreError;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use jiff::ToSpan;
use jiff::civil::Date;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a server that stops waits until the views show what it has recorded.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

/// How often old plates are forgotten.
const RETIRE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// The user that is recorded for the commands that forget old plates.
const RETENTION: &str = "the setting retention_days";

/// A command on its way to the committing thread.
#[derive(Debug)]
pub struct PendingCommand {
    /// What is recorded right after each other, all or none: a command, after the pieces that it is about.
    pub commands: Vec<Command>,
    /// The user who gave it.
    pub by: String,
    /// Receives the position of the last once it is on disk, or the reason why that is unknown. If the channel is dropped, the
    /// command was not accepted.
    pub recorded_at: oneshot::Sender<Result<u64, String>>,
}

/// The most bytes that a record has.
const COMMAND_BYTES: u64 = 8 * 1024;

/// Whether the disk has room for commands and for what the views keep of them; if not, why, and what to do.
pub fn fits_on(room: &DiskRoom, commands: &[Command]) -> Result<(), String> {
    let bytes = commands.len() as u64 * COMMAND_BYTES;
    let in_ledger_and_views = 2 * bytes * WRITTEN_FOR_VALUES;
    room.check(in_ledger_and_views).map_err(|what| {
        format!(
            "{what}. Nothing was recorded, and what was recorded before is kept. Make room on the disk and run the command again"
        )
    })
}

/// What an operator reads when a command could not be recorded.
pub fn not_recorded(error: &StoreError) -> String {
    match error {
        StoreError::ValueTooLong { .. } => format!("{error}. Nothing was recorded"),
        _ => format!(
            "{error}. Whether the command was recorded is known after the next start of the server: check then, and run it again if it was not"
        ),
    }
}

/// Takes the commands of operators in a running server. Everything that waits here runs on a thread that may block.
#[derive(Clone)]
pub struct CommandDesk {
    pub ledger: Ledger,
    pub live: Arc<LiveViews>,
    pub alarms: Arc<Alarms>,
    /// Who issues documents.
    pub operator: OperatorSettings,
    /// For the copies of documents.
    pub documents_dir: PathBuf,
    /// Those of the configuration.
    pub garages: LiveGarages,
    pub orders: mpsc::Sender<PendingCommand>,
    pub stop: CancellationToken,
    pub runtime: Handle,
    /// One command is judged, recorded and applied before the next is judged.
    pub turn: Arc<Mutex<()>>,
}

impl CommandDesk {
    pub async fn answer(&self, call: Call<ServerRequest>) -> Outcome {
        let Call { request, caller, .. } = call;
        if let ServerRequest::Alarms(request) = request {
            return self.alarms.answer(request, caller.as_str()).await;
        }
        let broke_off = broke_off(&request);
        // The thread holds the turn: a client that disconnects must not let another command in before this one is done.
        let turn = match request.may_record() {
            true => Some(Arc::clone(&self.turn).lock_owned().await),
            false => None,
        };
        let mut desk = self.clone();
        let answered = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            operate::answer(&mut desk, request, caller.as_str())
        });
        answered.await.unwrap_or(Err(broke_off))
    }

    /// Finishes the copies of documents that an earlier run has not finished.
    pub async fn complete_copies(&self) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let desk = self.clone();
        let completed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            desk.catch_up(CaughtUp::OnDisk).map_err(|error| error.to_string())?;
            CopiesDir(&desk.documents_dir).complete(&desk.ledger).map_err(|error| error.to_string())
        });
        if let Ok(Err(error)) = completed.await {
            tracing::warn!(
                code = %codes::DOCUMENT_COPIES_UNFINISHED,
                error,
                hint = "check the directory documents_dir; the next issue, or the next start, tries again",
                "copies of documents that were issued are missing, or do not have their final names"
            );
        }
    }

    /// Forgets old plates for as long as the server runs: at its start, then once a day.
    pub async fn retire_daily(&self, days: u32) {
        loop {
            let before =
                operate::today(&self.operator).saturating_sub(i64::from(days).days()).first_of_month();
            match self.retire(before).await {
                Ok(false) | Err(NotDone::Stopping) => {}
                Ok(true) => tracing::info!(%before, "the plates of stays that ended earlier are forgotten"),
                Err(error) => {
                    tracing::error!(
                        code = %codes::PLATES_NOT_FORGOTTEN,
                        %error,
                        hint = "fix the cause that the error names; the server tries again tomorrow",
                        "not all plates older than retention_days were forgotten"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETIRE_EVERY) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Forgets the plates of stays that ended before a day. Returns whether there were any.
    async fn retire(&self, before: Date) -> Result<bool, NotDone> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let mut desk = self.clone();
        let forgotten = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            operate::forget_before(&mut desk, before, RETENTION)
        });
        forgotten.await.unwrap_or_else(|error| Err(error.to_string().into()))
    }

    /// Asks the view itself, between two records.
    fn ask_view<A: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> A + Send + 'static,
    ) -> Result<A, NotDone> {
        let answer = self.runtime.block_on(self.live.ask(question));
        answer.ok_or_else(|| match self.stop.is_cancelled() {
            true => NotDone::Stopping,
            false => NotDone::Refused("the check of the command broke off; the server keeps running, and nothing was changed. \"server verify\" says what is wrong with the store. The server's log says more; please report this with the log".into()),
        })
    }

    /// Waits, unless the server is to stop.
    fn wait_for<T>(&self, what: impl Future<Output = T>) -> Result<T, NotDone> {
        self.runtime.block_on(async {
            tokio::select! {
                waited = what => Ok(waited),
                () = self.stop.cancelled() => Err(NotDone::Stopping),
            }
        })
    }
}

/// What an operator reads when a request met damage that sled panics over, or a mistake of ours.
fn broke_off(request: &ServerRequest) -> NotDone {
    let (what, hint) = match request {
        ServerRequest::Verify => (
            "the check broke off; the server keeps running, and nothing was changed",
            "Stop the server and run \"server verify\" again: it then reads the data directory itself",
        ),
        _ if request.may_record() => (
            "the command broke off; the server keeps running",
            "Whether it was recorded is not known: check, and run it again if it was not. \"server verify\" says what is wrong with the store",
        ),
        _ => (
            "reading broke off; the server keeps running, and nothing was changed",
            "\"server verify\" says what is wrong with the store",
        ),
    };
    NotDone::Refused(format!("{what}. {hint}. The server's log says more; please report this with the log"))
}

impl Backend for CommandDesk {
    fn open(&self) -> OpenBooks<'_> {
        let CommandDesk { ledger, live, operator, documents_dir, garages, .. } = self;
        OpenBooks { ledger, live: Some(live), operator, documents_dir, garages }
    }
    fn view(&self) -> Arc<Snapshot> {
        self.live.snapshot()
    }

    fn catch_up(&self, until: CaughtUp) -> Result<(), NotDone> {
        let position = self.ledger.position();
        self.wait_for(self.live.applied_to(position))?;
        match until {
            CaughtUp::InMemory => Ok(()),
            CaughtUp::OnDisk => self.wait_for(self.live.saved_to(position)),
        }
    }

    fn judge(&self, command: &Command) -> Result<Result<Command, JudgeError>, NotDone> {
        let (ledger, asked) = (self.ledger.clone(), command.clone());
        self.ask_view(move |view| view.judge(&ledger, &asked))
    }

    fn effect_of(&self, put: PutInForce) -> Result<RatingEffect, NotDone> {
        let ledger = self.ledger.clone();
        let effect = self.ask_view(move |view| view.effect_of(&ledger, put))?;
        Ok(effect.map_err(|error| error.to_string())?)
    }

    fn record(&mut self, commands: Vec<Command>, by: &str) -> Result<u64, NotDone> {
        let (recorded_at, recorded) = oneshot::channel();
        let order = PendingCommand { commands, by: by.to_owned(), recorded_at };
        self.orders.blocking_send(order).map_err(|_| NotDone::Stopping)?;
        // Once it is taken, its position comes even while the server stops.
        Ok(recorded.blocking_recv().map_err(|_| NotDone::Stopping)??)
    }

    fn shows(&mut self, position: u64) -> bool {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(APPLIED_WITHIN).await;
        };
        self.runtime.block_on(async {
            tokio::select! {
                () = self.live.applied_to(position) => true,
                () = stopped => false,
            }
        })
    }
}
