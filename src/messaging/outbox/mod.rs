//! Messages wait here, on disk, until the receiver has acknowledged them.
//!
//! **Promise.** Once [`Outbox::append`] returns `Ok`, its messages survive `kill -9` and a power cut, under
//! consecutive sequences that nothing else ever gets; those of one append are kept all or none.
//! **Kept by.** One committer thread owns the writes: it takes all waiting appends, writes the pages that they fill, flushes
//! once, then answers them all (group commit). All data of a commit is in the page itself, so that a commit writes one key. Only
//! flushed messages are given to the sender, and a page that was given out never changes again. Only [`Outbox::acknowledge`]
//! leads to a deletion, and the newest page always stays: it remembers the next sequence.
//!
//! It may hold several epochs; they are delivered one after the other, oldest first, and new messages belong to the newest.
//! A post with a key that is remembered ([`keys`]) stores nothing, and gets the first answer.
//!
//! **Not promised.** An order between two appends that run at the same time; protection against a lying disk.

mod committer;
#[cfg(test)]
mod concurrency_tests;
#[cfg(test)]
mod damage_tests;
mod high_water;
pub mod keys;
mod layout;
#[cfg(test)]
mod model_tests;
mod opening;
mod pages;
mod salvage;
#[cfg(test)]
mod tests;

pub use crate::store::salvage::OnLoss;
pub use high_water::last_known_status;
pub use layout::{EpochIndex, Position};
pub use opening::OutboxDamage;
pub use pages::{Inspection, Taken};

use super::page::{self, Message};
use super::{ClockReading, Epoch, LedgerId, Sequence};
use crate::codes::{self, Code, Coded};
use crate::store::room::DiskRoom;
use crate::store::salvage::{OpenedStore, Salvaged};
use crate::store::{self, Purpose, Store, StoreError, StoreOpenError};
use committer::{Change, Committer, CommitterCommand, Done, check};
use pages::{Pages, Post};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// The file in a data directory that records the progress of its outbox; see [`crate::store::high_water`].
pub const HIGH_WATER_FILE: &str = "witness";

/// The maximum number of appends that wait for the committer. Beyond it producers are asked to come back.
const QUEUE: usize = 1024;
/// The maximum number of messages of one append. Their pages must fit into one batch of the store.
pub const APPEND_MAX: usize = 10_000;
/// The maximum size of one append in bytes, payloads and keys together.
pub const APPEND_BYTES_MAX: usize = 2 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub epoch: Epoch,
    pub first: Sequence,
    pub last: Sequence,
    /// True if this append stored nothing, because its messages had been stored by an earlier append with the same key.
    pub repeated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub messages: u64,
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { messages: u64::MAX, bytes: u64::MAX }
    }
}

/// Checks that the disk has room, given the bytes of the stored pages and of the messages that come. The error says what is short.
pub type Room = Arc<dyn Fn(u64, u64) -> Result<(), String> + Send + Sync>;

#[derive(Clone, Default)]
pub struct Options {
    pub high_water_file: Option<PathBuf>,
    /// The id of this machine. When another one wrote last, the directory is a copy, and a new epoch begins.
    pub machine: Option<[u8; 16]>,
    pub limits: Limits,
    pub room: Option<Room>,
    pub on_loss: OnLoss,
}

/// Why an outbox does not open. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum OutboxOpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the record of the ledger that this outbox delivers to cannot be read. Nothing was deleted and nothing is sent. Keep a copy of the data directory, and restore the record from a backup"
    )]
    Ledger,
    #[error(
        "cannot use the high-water file of the outbox: {0}. Nothing was changed. Check that the disk is there and that this user may write to it"
    )]
    HighWaterFile(#[source] std::io::Error),
    #[error("cannot start the committer thread: {0}. Nothing was changed")]
    Thread(#[source] std::io::Error),
}

impl Coded for OutboxOpenError {
    fn code(&self) -> Code {
        match self {
            OutboxOpenError::Store(error) => error.code(),
            OutboxOpenError::Ledger => codes::LEDGER_BINDING_UNREADABLE,
            OutboxOpenError::HighWaterFile(_) => codes::HIGH_WATER_FILE_UNUSABLE,
            OutboxOpenError::Thread(_) => codes::CANNOT_START,
        }
    }
}

/// Why an append was not confirmed. Except after [`AppendError::Failed`], nothing was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error("an append holds 1 to {APPEND_MAX} messages, this one {0}; nothing was stored")]
    Count(usize),
    #[error("message {index} takes {bytes} bytes, the limit is {}; nothing was stored", page::PAYLOAD_MAX)]
    TooLong { index: usize, bytes: usize },
    #[error("the append takes {bytes} bytes, the limit is {APPEND_BYTES_MAX}; nothing was stored")]
    TooLarge { bytes: usize },
    #[error("a key has 1 to {} bytes, this one {bytes}; nothing was stored", page::KEY_MAX)]
    Key { bytes: usize },
    #[error(
        "this key was used before for something else; nothing was stored. Use a new key for anything new"
    )]
    KeyReused,
    #[error(
        "{} keys are remembered, and none of them is old enough to be forgotten; nothing was stored. Post again later, or without a key",
        keys::KEPT_MOST
    )]
    KeysFull,
    #[error("{0}; nothing was stored. What was confirmed before is kept and still delivered")]
    Full(String),
    #[error("too many appends wait for the disk; nothing was stored. Try again in a moment")]
    Busy,
    #[error(
        "writing to the disk failed, and whether this append was stored is unknown. Nothing more is accepted until the process is started again; its log says what failed"
    )]
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxProgress {
    pub position: Position,
    /// Writing failed, for the reason that [`Pages::failure`] gives. Nothing more is accepted.
    pub failed: bool,
}

/// What the outbox holds, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxStatus {
    /// The epoch of new messages, and the sequence that the next one will have.
    pub epoch: Epoch,
    pub next_sequence: u64,
    /// The highest sequence of that epoch that is acknowledged, 0 for none.
    pub acknowledged: u64,
    /// The number of messages that wait, of all epochs.
    pub depth: u64,
    pub bytes: u64,
    pub epochs: usize,
    /// The clocks when the oldest waiting page was begun.
    pub oldest_begun: Option<ClockReading>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingMessage {
    pub epoch_index: EpochIndex,
    pub epoch: Epoch,
    pub sequence: u64,
    pub record: Message,
}

/// The durable queue of one site. Cloning shares it; it closes with its last clone. [`Pages`] reads what it holds.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<OutboxShared>,
}

struct OutboxShared {
    pages: Arc<Pages>,
    queue: Option<mpsc::Sender<CommitterCommand>>,
    progress: watch::Receiver<OutboxProgress>,
    committer: Option<JoinHandle<()>>,
}

impl Deref for Outbox {
    type Target = Pages;
    fn deref(&self) -> &Pages {
        &self.shared.pages
    }
}

impl Outbox {
    /// Opens the outbox in a data directory that the caller holds. A damaged store is salvaged
    /// ([`store::salvage::open_with`]). `check` may refuse the store before anything is changed in it, and gives its options.
    pub fn open_in<E>(
        dir: &Path,
        purpose: Purpose,
        reserve: Option<u64>,
        now: ClockReading,
        check: impl Fn(&Store, DiskRoom) -> Result<Options, E>,
    ) -> Result<Outbox, E>
    where
        E: Coded + From<StoreOpenError> + From<OutboxOpenError>,
    {
        let file = dir.join(HIGH_WATER_FILE);
        let rebuild = |found: &Salvaged, new: &Store| salvage::rebuild(&file, found, new);
        let open = |OpenedStore { store, room, .. }, on_loss| {
            let options = check(&store, room)?;
            let options = Options { high_water_file: Some(file.clone()), on_loss, ..options };
            Ok(Outbox::open(store, options, now)?)
        };
        store::salvage::open_with(dir, purpose, reserve, &rebuild, open)
    }

    /// Opens what `store` holds, or begins a first epoch in it. `now` is a reading of the clocks.
    pub fn open(store: Store, options: Options, now: ClockReading) -> Result<Outbox, OutboxOpenError> {
        let pages = Arc::new(Pages::open(store, &options, now)?);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (report, progress) = watch::channel(pages.progress());
        let committer = Committer::new(Arc::clone(&pages), report);
        let committer = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.commit_until_closed(waiting))
            .map_err(OutboxOpenError::Thread)?;
        let (queue, committer) = (Some(queue), Some(committer));
        Ok(Outbox { shared: Arc::new(OutboxShared { pages, queue, progress, committer }) })
    }

    /// Stores `records` under consecutive sequences and returns once they are on disk, all or none.
    ///
    /// When the first of them has a key that is remembered, nothing is stored, and the result of the first append with that key
    /// is returned. `at` is a reading of the clocks. If the future is dropped, they may or may not be stored.
    pub async fn append(&self, records: Vec<Message>, at: ClockReading) -> Result<Appended, AppendError> {
        check(&records)?;
        self.ask(|done| CommitterCommand::Append { post: Post { records, at }, done }).await
    }

    /// Gives new messages a new epoch if theirs is `expected`. Returns their epoch.
    pub async fn begin_epoch(&self, expected: Epoch) -> Result<Epoch, AppendError> {
        let begin = move |committer: &mut Committer| match committer.pages.epoch() {
            epoch if epoch == expected => committer.pages.begin_epoch().map(Ok),
            epoch => Ok(Ok(epoch)),
        };
        self.change(begin).await
    }

    /// Moves the messages from sequence `from` on, of the epoch that is being delivered, to a new epoch. Returns the new epoch
    /// and its number of messages; `None` when `epoch_index` is not the one that is being delivered any more. The receiver has
    /// the messages before `from`, so they are deleted.
    pub async fn move_oldest(
        &self,
        epoch_index: EpochIndex,
        from: u64,
    ) -> Result<Option<(Epoch, u64)>, AppendError> {
        let move_oldest = move |committer: &mut Committer| {
            if let Err(what) = committer.room_to_move() {
                return Ok(Err(AppendError::Full(what)));
            }
            let is_delivered = committer.pages.position().epoch_index == epoch_index;
            is_delivered.then(|| committer.pages.move_oldest(from)).transpose().map(Ok)
        };
        self.change(move_oldest).await
    }

    /// Delivers to this ledger from now on. On disk when it returns.
    pub async fn bind(&self, ledger: LedgerId) -> Result<(), AppendError> {
        self.change(move |committer| committer.pages.bind(ledger).map(Ok)).await
    }

    /// Delivers to this ledger from now on if none is known yet. Returns the one that is delivered to.
    pub async fn bind_first(&self, ledger: LedgerId) -> Result<LedgerId, AppendError> {
        let bind = move |committer: &mut Committer| match committer.pages.ledger() {
            Some(bound) => Ok(Ok(bound)),
            None => committer.pages.bind(ledger).map(|()| Ok(ledger)),
        };
        self.change(bind).await
    }

    /// Takes back acknowledgements above `mark`: the receiver has nothing above it, though it acknowledged more. What is still
    /// here waits again, and this is on disk when the call returns. It waits for the committer however busy that is: until it is
    /// done, messages that the receiver lacks may be deleted as acknowledged.
    pub async fn unacknowledge(&self, epoch_index: EpochIndex, mark: u64) -> Result<(), AppendError> {
        let (done, answer) = oneshot::channel();
        let take_back =
            move |committer: &mut Committer| committer.pages.unacknowledge(epoch_index, mark).map(Ok);
        let sent = self.queue().send(CommitterCommand::ChangeAtOnce(change(take_back, done))).await;
        sent.map_err(|_| AppendError::Failed)?;
        answer.await.unwrap_or(Err(AppendError::Failed))
    }

    async fn change<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut Committer) -> Result<Result<T, AppendError>, StoreError> + Send + 'static,
    ) -> Result<T, AppendError> {
        self.ask(|done| CommitterCommand::Change(change(make, done))).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Done<T>) -> CommitterCommand) -> Result<T, AppendError> {
        let (done, answer) = oneshot::channel();
        match self.queue().try_send(command(done)) {
            Ok(()) => answer.await.unwrap_or(Err(AppendError::Failed)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AppendError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AppendError::Failed),
        }
    }

    /// Says that the receiver has everything of an epoch up to `through` on its disk: it is deleted here, in a moment.
    ///
    /// # Panics
    /// When `through` was never stored: the sender acknowledges only what it was given.
    pub fn acknowledge(&self, epoch_index: EpochIndex, through: u64) {
        self.shared.pages.acknowledge(epoch_index, through);
        // A full queue has the committer busy; it sweeps after each group anyway.
        let _ = self.queue().try_send(CommitterCommand::Sweep);
    }

    /// Changes whenever something became durable, was deleted, or the disk failed.
    pub fn progress(&self) -> watch::Receiver<OutboxProgress> {
        self.shared.progress.clone()
    }

    fn queue(&self) -> &mpsc::Sender<CommitterCommand> {
        self.shared.queue.as_ref().expect("it is taken only in drop")
    }
}

/// A change whose outcome is the answer to its caller, who may have gone. An error of the store is the end of the committer.
fn change<T: Send + 'static>(
    make: impl FnOnce(&mut Committer) -> Result<Result<T, AppendError>, StoreError> + Send + 'static,
    done: Done<T>,
) -> Change {
    Box::new(|committer| make(committer).map(|outcome| drop(done.send(outcome))))
}

impl Drop for OutboxShared {
    fn drop(&mut self) {
        self.queue.take();
        if let Some(committer) = self.committer.take() {
            // What was queued is still committed and answered.
            let _ = committer.join();
        }
    }
}
