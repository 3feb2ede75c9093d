//! Commands to a running server.

use super::put::{self, Put};
use super::{Request, reading};
use crate::codes;
use crate::daemon::admin::{Call, NotDone, Outcome};
use crate::parking::statement::{Month, Operator};
use crate::server::books::{BooksQuestion, BooksReader};
use crate::server::folding::Signal;
use crate::server::ledger::Ledger;
use crate::server::record::{Command, ToForget};
use crate::server::verify::verify_live;
use crate::server::view::Snapshot;
use crate::server::view::billing::list::{pending, to_forget};
use crate::server::view::review::review;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use crate::store::{Store, StoreError};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long a server that stops waits until what it has recorded is folded, too.
const FOLDED_WITHIN: Duration = Duration::from_secs(1);

/// How often plates are looked for that are to be forgotten.
const RETIRE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Who gives the commands that forget old plates.
const RETENTION: &str = "the setting retention_days";

/// A command on its way to the committing thread.
#[derive(Debug)]
pub struct Order {
    /// What stands right before the command.
    pub pieces: Vec<Vec<u8>>,
    pub command: Command,
    /// Who gave it.
    pub by: String,
    /// Told its position when it is on disk, or why nobody knows whether it is. Dropped: it was never begun.
    pub recorded_at: oneshot::Sender<Result<u64, String>>,
}

impl Order {
    /// Refuses what the disk has no room for, before any of it is written.
    pub fn fits_on(&self, room: &DiskRoom) -> Result<(), String> {
        fits_on(room, &self.pieces)
    }
}

/// What a command takes that has no pieces, in bytes.
const COMMAND_BYTES: u64 = 8 * 1024;

/// Whether the disk has room for a command with `pieces` and for what the views keep of it; if not, why, and what to do.
pub(super) fn fits_on(room: &DiskRoom, pieces: &[Vec<u8>]) -> Result<(), String> {
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() + COMMAND_BYTES;
    let in_ledger_and_views = 2 * bytes * WRITTEN_FOR_VALUES;
    room.check(in_ledger_and_views).map_err(|what| {
        format!(
            "{what}. Nothing was recorded, and what was recorded before is kept. Make room on the disk and give the command again"
        )
    })
}

/// What an operator reads when a command could not be recorded.
pub fn not_recorded(error: &StoreError) -> String {
    match error {
        StoreError::ValueTooLong { .. } => format!("{error}. Nothing was recorded"),
        _ => format!(
            "{error}. Whether the command was recorded shows at the next start of the server: look, and if it was not, give it again"
        ),
    }
}

/// What an operator reads when a read met damage that sled panics over, or a mistake of ours.
fn broke_off(what: &str, do_this: &str) -> NotDone {
    NotDone::Refused(format!(
        "{what} broke off; the server goes on, and nothing was changed. {do_this}. The server's log says more, please report this with it"
    ))
}

/// Where operators come to.
pub struct Desk {
    books: Arc<Open>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    /// One command is judged, recorded and folded before the next is judged.
    turn: Mutex<()>,
}

/// What is read for operators.
struct Open {
    ledger: Ledger,
    store: Store,
    signal: Arc<Signal>,
    /// Who sends statements.
    operator: Operator,
}

impl Open {
    /// The views as they are now.
    fn view(&self) -> Arc<Snapshot> {
        self.signal.snapshot()
    }
}

impl Desk {
    pub fn new(
        ledger: Ledger,
        store: Store,
        signal: Arc<Signal>,
        orders: mpsc::Sender<Order>,
        operator: Operator,
        stop: CancellationToken,
    ) -> Desk {
        let books = Arc::new(Open { ledger, store, signal, operator });
        Desk { books, orders, stop, turn: Mutex::new(()) }
    }

    pub async fn answer(&self, call: Call<Request>) -> Outcome {
        match call.request {
            Request::Command(intent) => {
                let command = intent.command().map_err(|bad| format!("{bad}. Nothing was recorded"))?;
                let _turn = self.turn.lock().await;
                self.carry_out(Vec::new(), command, call.caller.as_str()).await
            }
            Request::Books(question) => self.look(question).await,
            Request::Put { put, dry_run } => self.put(put, dry_run, call.caller.as_str()).await,
            Request::ApplyTariffs => self.apply_tariffs(call.caller.as_str()).await,
            Request::Review => self.review().await,
            Request::Plates { after } => {
                self.read(move |books| Ok(reading::plates(&books.view(), after.as_deref()))).await?
            }
            Request::Contracts => self.read(|books| Ok(reading::contracts(&books.view()))).await?,
            Request::Garages => {
                self.read(|books| Ok(reading::garages(&books.view(), &books.ledger.streams()))).await?
            }
            Request::Quarantine { after, limit } => {
                self.read(move |books| Ok(reading::quarantine(&books.view(), after, limit))).await?
            }
            Request::Verify => {
                let verified = self
                    .read(|books| reading::verified(verify_live(&books.ledger, &books.store, &books.signal)));
                verified.await.unwrap_or_else(|_| {
                    Err(broke_off(
                        "verifying",
                        "Stop the server and verify again: then its directory is looked into as it is",
                    ))
                })
            }
            Request::Base { after } => {
                self.read(move |books| reading::base(&books.ledger, after.as_deref())).await?
            }
            Request::Records { from, through } => {
                let read = self.read(move |books| reading::records(&books.ledger, from, through));
                read.await.unwrap_or_else(|_| {
                    Err(broke_off("reading the ledger", "Ask server verify what is wrong with it"))
                })
            }
        }
    }

    /// Reads on a thread that may wait for the disk, or compute for long.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Open) -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let books = Arc::clone(&self.books);
        let read = tokio::task::spawn_blocking(move || read(&books));
        read.await.map_err(|_| broke_off("reading", "Ask server verify what is wrong with the store"))
    }

    /// Reads in the books of money as they are now.
    async fn look(&self, question: BooksQuestion) -> Outcome {
        if question.is_a_beginning() {
            self.written().await?;
        }
        let read = self.read(move |books| {
            let Open { ledger, store, operator, .. } = books;
            let saving = Some(books.signal.saving());
            BooksReader { ledger, store, saving, view: || books.view() }.answer(operator, &question)
        });
        read.await?
    }

    async fn put(&self, put: Put, dry_run: bool, by: &str) -> Outcome {
        let _turn = self.turn.lock().await;
        self.folded().await?;
        let prepared = self.read(move |books| put::prepare(&books.view(), &put)).await?;
        let mut prepared = prepared.map_err(|error| format!("{error}\nNothing was recorded"))?;
        if dry_run || prepared.changes.is_empty() {
            return Ok(reading::put(&prepared, None));
        }
        let pieces = std::mem::take(&mut prepared.pieces);
        let done = self.carry_out(pieces, prepared.command.clone(), by).await?;
        Ok(reading::put(&prepared, done["position"].as_u64()))
    }

    /// Prices what waits, some thousand entries with each command.
    async fn apply_tariffs(&self, by: &str) -> Outcome {
        let _turn = self.turn.lock().await;
        let mut commands = 0;
        let mut from = 1;
        loop {
            self.written().await?;
            let found = self.read(move |books| {
                let _held = books.signal.hold_saving();
                pending(&books.store, from)
            });
            let Some((first, to)) = found.await?.map_err(|error| error.to_string())? else { break };
            self.carry_out(Vec::new(), Command::Price { from: first, to }, by).await?;
            (commands, from) = (commands + 1, to);
        }
        self.written().await?;
        self.read(move |books| reading::applied(&books.store, commands)).await?
    }

    /// Lets plates be forgotten for as long as the server runs: at its start, then once a day.
    pub async fn retire_daily(&self, days: u32) {
        loop {
            let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
            let month = today.saturating_sub(i64::from(days).days());
            if let Some(before) = Month::of(month) {
                match self.retire(before).await {
                    Ok(0) | Err(NotDone::Stopping) => {}
                    Ok(commands) => {
                        tracing::info!(commands, %before, "the plates of stays that were charged for earlier months are forgotten");
                    }
                    Err(error) => {
                        tracing::error!(
                            code = %codes::PLATES_NOT_FORGOTTEN,
                            %error,
                            hint = "it is tried again tomorrow; see the error",
                            "plates that are older than retention_days were not all forgotten"
                        );
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETIRE_EVERY) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Lets the plates of stays be forgotten that were charged for a month before this one. Gives by how many commands.
    async fn retire(&self, before: Month) -> Result<u64, NotDone> {
        let seed = rand::random();
        let (mut commands, mut from) = (0, 1);
        loop {
            let _turn = self.turn.lock().await;
            self.written().await?;
            let found = self.read(move |books| to_forget(&books.store, from, before));
            let found = found.await?.map_err(|error| error.to_string())?;
            let Some((first, to)) = found else { return Ok(commands) };
            let whose = ToForget::Charged { from: first, to, before };
            self.carry_out(Vec::new(), Command::Forget { whose, seed }, RETENTION).await?;
            (commands, from) = (commands + 1, to);
        }
    }

    async fn review(&self) -> Outcome {
        self.written().await?;
        let found = self.read(|books| {
            let found = review(&books.store).map_err(|error| error.to_string())?;
            reading::review(&books.view(), &books.ledger, &found)
        });
        found.await?
    }

    /// Waits until everything that is recorded is folded.
    async fn folded(&self) -> Result<(), NotDone> {
        tokio::select! {
            () = self.books.signal.folded_to(self.books.ledger.position()) => Ok(()),
            () = self.stop.cancelled() => Err(NotDone::Stopping),
        }
    }

    /// Waits until everything that is recorded is folded and written: the entries of charges are read from the store.
    async fn written(&self) -> Result<(), NotDone> {
        let position = self.books.ledger.position();
        self.folded().await?;
        tokio::select! {
            () = self.books.signal.saved_to(position) => Ok(()),
            () = self.stop.cancelled() => Err(NotDone::Stopping),
        }
    }

    /// One command, with what stands right before it. The caller has the turn.
    async fn carry_out(&self, pieces: Vec<Vec<u8>>, command: Command, by: &str) -> Outcome {
        match command.is_about_entries() {
            true => self.written().await?,
            false => self.folded().await?,
        }
        let (ledger, asked) = (self.books.ledger.clone(), command.clone());
        let judged = self.books.signal.ask(move |view| view.judge(&ledger, &asked)).await;
        match judged {
            Some(judged) => judged.map_err(|error| format!("{error}. Nothing was recorded"))?,
            None if self.stop.is_cancelled() => return Err(NotDone::Stopping),
            None => {
                return Err(broke_off(
                    "judging the command",
                    "Ask server verify what is wrong with the store",
                ));
            }
        }
        let (recorded_at, recorded) = oneshot::channel();
        let order = Order { pieces, command: command.clone(), by: by.to_owned(), recorded_at };
        if self.orders.send(order).await.is_err() {
            return Err(NotDone::Stopping);
        }
        let position = match recorded.await {
            Ok(recorded) => recorded?,
            Err(_) => return Err(NotDone::Stopping),
        };
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(FOLDED_WITHIN).await;
        };
        tokio::select! {
            () = self.books.signal.folded_to(position) => reading::done(&self.books.view(), position, &command),
            () = stopped => Ok(reading::recorded(position)),
        }
    }
}
