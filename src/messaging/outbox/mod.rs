//! Messages wait here, on disk, until the receiver has acknowledged them.
//!
//! **Promise.** Once [`Outbox::append`] returns `Ok`, its messages survive `kill -9` and a power cut, under
//! consecutive sequences that nothing else ever gets; those of one append are kept all or none.
//! **Kept by.** One committer thread owns the writes: it takes all waiting appends, writes the pages that
//! they fill, flushes once, then answers them all (group commit). All that a commit needs is in the page itself, so
//! that it costs one key. Only flushed messages are given to the sender, and a page that was given out
//! never changes again. Only [`Outbox::settle`] leads to a deletion, and the newest page always stays: it remembers the
//! next sequence.
//!
//! It may hold several epochs; they are delivered one after the other, oldest first, and new messages belong to the newest.
//! A post with a key that is remembered ([`keys`]) stores nothing, and gets the first answer.
//!
//! **Not promised.** An order between two appends that run at the same time; protection against a lying disk.

mod inspect;
pub mod keys;
mod life;
mod opening;
mod pages;
pub mod salvage;
#[cfg(test)]
mod tests;
mod witness;

pub use crate::store::salvage::OnLoss;
pub use inspect::Inspection;
pub use opening::Damage;
pub use pages::{Position, Taken};
pub use witness::Noted;

use super::page::{self, Record};
use super::{ClockReading, Epoch, LedgerId, Sequence};
use crate::codes::{self, Code, Coded};
use crate::store::room::{self, DiskRoom, OpenedStore, StoreCondition};
use crate::store::salvage::Salvaged;
use crate::store::{self, BATCH_MAX, Purpose, Store, StoreError};
use pages::{Pages, Post};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// The file in a data directory that tells how far its outbox had come; see the `witness` module.
pub const WITNESS: &str = "witness";

/// How many appends may wait for the committer. Beyond it producers are told to come back.
const QUEUE: usize = 1024;
/// A group is closed when it may take so many pages: they must fit into one batch of the store.
const GROUP_PAGES: usize = BATCH_MAX;
/// The most messages of one append. Their pages must fit into one batch of the store.
pub const APPEND_MAX: usize = 10_000;
/// A move to another epoch is not begun with less room than this, or than its pages take.
const MOVE_NEEDS: u64 = 32 << 20;
/// The most bytes of one append, payloads and keys together.
pub const APPEND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Where an append's messages stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub epoch: Epoch,
    pub first: Sequence,
    pub last: Sequence,
    /// Nothing was stored: they stand there since they were posted first, under the same key.
    pub repeated: bool,
}

/// How much an outbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of stored pages.
    pub bytes: u64,
}

impl Limits {
    pub const NONE: Limits = Limits { messages: u64::MAX, bytes: u64::MAX };
}

/// Asked before each write whether the disk has room, with the bytes of the stored pages and of the messages that come; the
/// error says what is short, for people.
pub type Room = Arc<dyn Fn(u64, u64) -> Result<(), String> + Send + Sync>;

/// What an outbox is opened with.
#[derive(Clone)]
pub struct Options {
    /// A file beside the store that tells how far it had come; see the `witness` module.
    pub witness: Option<PathBuf>,
    /// Which machine this is. When another one wrote last, the directory is a copy, and a new epoch begins.
    pub machine: Option<[u8; 16]>,
    pub limits: Limits,
    pub room: Option<Room>,
    pub on_loss: OnLoss,
}

impl Default for Options {
    fn default() -> Options {
        Options { witness: None, machine: None, limits: Limits::NONE, room: None, on_loss: OnLoss::Record }
    }
}

/// Why an outbox does not open. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the record of the ledger that this outbox delivers to cannot be read. Nothing was deleted and nothing is sent. Keep a copy of the data directory, and restore the record from a backup"
    )]
    Ledger,
    #[error(
        "cannot use the note of how far the outbox had come: {0}. Nothing was changed. Check that the disk is there and that this user may write to it"
    )]
    Witness(#[source] std::io::Error),
    #[error("cannot start the committer thread: {0}. Nothing was changed")]
    Thread(#[source] std::io::Error),
}

impl Coded for OpenError {
    fn code(&self) -> Code {
        match self {
            OpenError::Store(error) => error.code(),
            OpenError::Ledger => codes::LEDGER_BINDING_UNREADABLE,
            OpenError::Witness(_) => codes::HIGH_WATER_FILE_UNUSABLE,
            OpenError::Thread(_) => codes::CANNOT_START,
        }
    }
}

/// Why an append was not confirmed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Nothing was stored.
    #[error("there is nothing to store: an append holds 1 to {APPEND_MAX} messages, this one {0}")]
    Count(usize),
    /// Nothing was stored.
    #[error("message {index} takes {bytes} bytes, the limit is {}; nothing was stored", page::PAYLOAD_MAX)]
    TooLong { index: usize, bytes: usize },
    /// Nothing was stored.
    #[error("the append takes {bytes} bytes, the limit is {APPEND_BYTES_MAX}; nothing was stored")]
    TooLarge { bytes: usize },
    /// Nothing was stored.
    #[error("a key has 1 to {} bytes, this one {bytes}; nothing was stored", page::KEY_MAX)]
    Key { bytes: usize },
    /// Nothing was stored.
    #[error("this key was used before, for something else; nothing was stored. What is new needs a new key")]
    KeyReused,
    /// Nothing was stored. There is room when older keys may be forgotten.
    #[error(
        "{} keys are remembered, and none of them may be forgotten yet; nothing was stored. Post again later, or without a key",
        keys::KEPT_MOST
    )]
    KeysFull,
    /// Nothing was stored. There is room again when waiting messages were delivered.
    #[error("{0}; nothing was stored, and what was confirmed before is kept and goes on being delivered")]
    Full(String),
    /// Nothing was stored. The same append may succeed in a moment.
    #[error("more appends wait for the disk than it can take; nothing was stored, try again in a moment")]
    Busy,
    /// Whether it was stored is unknown until the outbox is opened again; nothing more is accepted until then.
    #[error(
        "writing to the disk failed, and whether this append was stored is unknown. Nothing more is accepted until the process starts again; its log says what failed"
    )]
    Failed,
}

/// How far the outbox has come with the epoch that is being delivered. Sequences are plain numbers, 0 standing before the
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which epoch it is; see [`Position::life`].
    pub life: u32,
    /// The oldest sequence that is still stored, or the next one.
    pub oldest: u64,
    /// The last sequence that is on disk.
    pub durable: u64,
    /// Writing failed; see [`Outbox::failure`]. Nothing more is accepted.
    pub failed: bool,
}

/// What the outbox holds, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The epoch that new messages get, and the sequence that the next one will have.
    pub epoch: Epoch,
    pub next_sequence: u64,
    /// The highest sequence of that epoch that is acknowledged, 0 for none.
    pub acknowledged: u64,
    /// How many messages wait, of all epochs.
    pub depth: u64,
    /// How many bytes of pages are stored.
    pub bytes: u64,
    /// How many epochs are held.
    pub epochs: usize,
    /// What the clocks showed when the oldest waiting page was begun.
    pub oldest_begun: Option<ClockReading>,
}

/// A message that waits, where it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// See [`Position::life`].
    pub life: u32,
    pub epoch: Epoch,
    pub sequence: u64,
    pub record: Record,
}

type Done<T> = oneshot::Sender<Result<T, AppendError>>;

enum Command {
    Append {
        post: Post,
        done: Done<Appended>,
    },
    Sweep,
    Unsettle {
        life: u32,
        mark: u64,
        done: Done<()>,
    },
    /// Of new messages, unless it is another one than this by now.
    BeginEpoch {
        unless_not: Epoch,
        done: Done<Epoch>,
    },
    Move {
        life: u32,
        from: u64,
        done: Done<Option<(Epoch, u64)>>,
    },
    /// `unless_bound`: only when no ledger is known.
    Bind {
        ledger: LedgerId,
        unless_bound: bool,
        done: Done<LedgerId>,
    },
}

/// The durable queue of one site. Cloning shares it; it closes when the last clone is dropped.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    pages: Arc<Pages>,
    limits: Limits,
    room: Option<Room>,
    queue: Option<mpsc::Sender<Command>>,
    progress: watch::Receiver<Progress>,
    failure: Arc<OnceLock<String>>,
    committer: Option<JoinHandle<()>>,
}

impl Outbox {
    /// Opens the outbox in a data directory that the caller holds, whatever happened to its store.
    ///
    /// When sled refuses the store, a part of it cannot be read, or messages are missing, it is rebuilt first from what stands
    /// anywhere in its file ([`salvage`]), once; only then what is missing is recorded as lost. `check` may refuse the store before
    /// anything is changed in it, and gives the options for it.
    pub fn open_in<E>(
        dir: &Path,
        purpose: Purpose,
        reserve: Option<u64>,
        now: ClockReading,
        check: impl Fn(&Store, DiskRoom) -> Result<Options, E>,
    ) -> Result<Outbox, E>
    where
        E: From<crate::store::StoreOpenError> + From<OpenError>,
    {
        let witness = dir.join(WITNESS);
        let rebuild = |found: &Salvaged, new: &Store| salvage::rebuild(&witness, found, new);
        let mut first_try = if store::salvage::is_possible(dir) { OnLoss::Refuse } else { OnLoss::Record };
        loop {
            let OpenedStore { store, room, condition } = room::open_store(dir, purpose, reserve, &rebuild)?;
            let on_loss = if condition == StoreCondition::Salvaged { OnLoss::Record } else { first_try };
            let unreadable = store.unreadable();
            let opened = check(&store, room).map(|options| {
                let options = Options { witness: Some(witness.clone()), on_loss, ..options };
                Outbox::open(store, options, now)
            });
            let reason = match &opened {
                Ok(Err(OpenError::Store(error @ StoreError::Damaged { .. }))) => Some(error.to_string()),
                Err(_) if *unreadable.borrow() => None,
                _ => {
                    if let Ok(Ok(_)) = &opened {
                        store::salvage::nothing_is_missing(dir);
                    }
                    return opened.and_then(|opened| Ok(opened?));
                }
            };
            if on_loss == OnLoss::Record {
                return opened.and_then(|opened| Ok(opened?));
            }
            drop(opened);
            tracing::warn!(
                code = %codes::STORE_PARTLY_UNREADABLE,
                reason,
                hint = "check the disk",
                "a part of the outbox cannot be read; the store's file is searched for it"
            );
            let requested = store::salvage::request(dir);
            requested.map_err(|source| store::StoreOpenError::Io { path: dir.to_owned(), source })?;
            first_try = OnLoss::Record;
        }
    }

    /// Opens what `store` holds, or begins a first epoch in it. `now` is what the clocks show.
    pub fn open(store: Store, options: Options, now: ClockReading) -> Result<Outbox, OpenError> {
        let pages = Arc::new(Pages::open(store, &options, now)?);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (progress, watched) = watch::channel(pages.progress());
        let failure = Arc::new(OnceLock::new());
        let committer = Committer {
            pages: Arc::clone(&pages),
            limits: options.limits,
            room: options.room.clone(),
            progress,
            failure: Arc::clone(&failure),
            move_waits: false,
            carried: None,
        };
        let committer = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.commit_until_closed(waiting))
            .map_err(OpenError::Thread)?;
        Ok(Outbox {
            shared: Arc::new(Shared {
                pages,
                limits: options.limits,
                room: options.room,
                queue: Some(queue),
                progress: watched,
                failure,
                committer: Some(committer),
            }),
        })
    }

    /// Stores `records` under consecutive sequences and returns once they are on disk, all or none.
    ///
    /// When the first of them has a key that is remembered, nothing is stored, and the answer is the first one's. `at` is what
    /// the clocks show. If the future is dropped, they may or may not be stored.
    pub async fn append(&self, records: Vec<Record>, at: ClockReading) -> Result<Appended, AppendError> {
        check(&records)?;
        self.ask(|done| Command::Append { post: Post { records, at }, done }).await
    }

    /// New messages belong to a new epoch from now on, unless they do not belong to `former` any more. Returns theirs.
    pub async fn begin_epoch(&self, former: Epoch) -> Result<Epoch, AppendError> {
        self.ask(|done| Command::BeginEpoch { unless_not: former, done }).await
    }

    /// Moves what stands from sequence `from` on of the epoch that is being delivered to a new one, and returns that and how
    /// many messages it has; `None` when `life` is not the one that is being delivered any more. What comes before `from` is
    /// safe at the receiver, and deleted.
    pub async fn move_oldest(&self, life: u32, from: u64) -> Result<Option<(Epoch, u64)>, AppendError> {
        self.ask(|done| Command::Move { life, from, done }).await
    }

    /// Delivers to this ledger from now on. On disk when it returns.
    pub async fn bind(&self, ledger: LedgerId) -> Result<LedgerId, AppendError> {
        self.ask(|done| Command::Bind { ledger, unless_bound: false, done }).await
    }

    /// The same when no ledger is known yet; returns the one that is delivered to.
    pub async fn bind_first(&self, ledger: LedgerId) -> Result<LedgerId, AppendError> {
        self.ask(|done| Command::Bind { ledger, unless_bound: true, done }).await
    }

    /// The ledger that this outbox delivers to, once it is known.
    pub fn ledger(&self) -> Option<LedgerId> {
        self.shared.pages.ledger()
    }

    /// The receiver has no more than `mark`, though it acknowledged more: what is still here waits again, and a restart
    /// knows it when this returns. Waits for the committer however busy it is: as long as this is not done, what the receiver
    /// lacks may be deleted as acknowledged.
    pub async fn unsettle(&self, life: u32, mark: u64) -> Result<(), AppendError> {
        let (done, answer) = oneshot::channel();
        let sent = self.queue().send(Command::Unsettle { life, mark, done }).await;
        sent.map_err(|_| AppendError::Failed)?;
        answer.await.unwrap_or(Err(AppendError::Failed))
    }

    async fn ask<T>(&self, command: impl FnOnce(Done<T>) -> Command) -> Result<T, AppendError> {
        let (done, answer) = oneshot::channel();
        match self.queue().try_send(command(done)) {
            Ok(()) => answer.await.unwrap_or(Err(AppendError::Failed)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AppendError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AppendError::Failed),
        }
    }

    /// Up to `max_bytes` of consecutive pages of the epoch `life` from sequence `from` on, at least one if there is any that
    /// is on disk. They are sealed from now on. Blocks on the disk.
    pub fn take(&self, life: u32, from: u64, max_bytes: usize) -> Result<Taken, StoreError> {
        self.shared.pages.take(life, from, max_bytes)
    }

    /// The receiver has everything of the epoch `life` up to `through` on its disk: it is deleted here, in a moment.
    ///
    /// # Panics
    /// When `through` was never stored: the sender settles only what it was given.
    pub fn settle(&self, life: u32, through: u64) {
        self.shared.pages.acknowledge(life, through);
        // A full queue has the committer busy; it sweeps after each group anyway.
        let _ = self.queue().try_send(Command::Sweep);
    }

    /// Up to `limit` waiting messages, oldest first, after the one at `after` (a life and a sequence). Blocks on the disk.
    pub fn peek(&self, after: Option<(u32, u64)>, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        self.shared.pages.peek(after, limit)
    }

    /// Reads every page that is on disk, and says what is wrong. Changes nothing, and holds nobody up. Blocks on the disk.
    pub fn inspect(&self) -> Result<Inspection, StoreError> {
        self.shared.pages.inspect()
    }

    /// Blocks on the disk for a moment.
    pub fn status(&self) -> Result<Status, StoreError> {
        self.shared.pages.status()
    }

    /// Why nothing more is taken at the moment, if so: a limit is reached, or the disk is short of room. Blocks on the disk.
    pub fn shortage(&self) -> Option<String> {
        let one = (1, page::PAYLOAD_MAX as u64);
        shortage(&self.shared.pages, self.shared.limits, self.shared.room.as_ref(), one).err()
    }

    /// Why nothing more is accepted until a restart, if writing failed: what happened, what it means, what to do.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Where the store's directory is now, if it was renamed since it was opened; see [`Store::moved_to`].
    pub fn moved_to(&self) -> Option<PathBuf> {
        self.shared.pages.store().moved_to()
    }

    /// Turns true when a part of the store could not be read; see [`Store::unreadable`].
    pub fn unreadable(&self) -> watch::Receiver<bool> {
        self.shared.pages.unreadable()
    }

    /// What could not be read at opening.
    pub fn damages(&self) -> &[Damage] {
        self.shared.pages.damages()
    }

    /// How many idempotency keys are remembered. Blocks on the disk: the committer reads keys there.
    pub fn keys_remembered(&self) -> u64 {
        self.shared.pages.keys_remembered()
    }

    /// The epoch that new messages get.
    pub fn epoch(&self) -> Epoch {
        self.shared.pages.epoch()
    }

    /// Where the epoch that is being delivered begins and ends.
    pub fn position(&self) -> Position {
        self.shared.pages.position()
    }

    /// The same of every epoch that is held, oldest first.
    pub fn positions(&self) -> Vec<Position> {
        self.shared.pages.positions()
    }

    /// Changes whenever something became durable, was deleted, or the disk failed.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.clone()
    }

    fn queue(&self) -> &mpsc::Sender<Command> {
        self.shared.queue.as_ref().expect("it is taken only in drop")
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("epoch", &self.epoch())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.take();
        if let Some(committer) = self.committer.take() {
            // What was queued is still committed and answered.
            let _ = committer.join();
        }
    }
}

fn check(records: &[Record]) -> Result<(), AppendError> {
    if records.is_empty() || records.len() > APPEND_MAX {
        return Err(AppendError::Count(records.len()));
    }
    for (index, record) in records.iter().enumerate() {
        let key = record.key.as_ref().map_or(1, |key| key.text.len());
        let bytes = record.payload.len();
        if bytes > page::PAYLOAD_MAX {
            return Err(AppendError::TooLong { index, bytes });
        }
        if !(1..=page::KEY_MAX).contains(&key) {
            return Err(AppendError::Key { bytes: key });
        }
    }
    let bytes = records.iter().map(Record::encoded_len_max).sum();
    if bytes > APPEND_BYTES_MAX {
        return Err(AppendError::TooLarge { bytes });
    }
    Ok(())
}

/// At most how many pages these messages touch: two neighbours hold more than one page's bytes or 64 messages together.
fn pages_at_most(records: &[Record]) -> usize {
    let bytes: usize = records.iter().map(Record::encoded_len_max).sum();
    let room = page::BYTES_MAX - page::Page::HEADER_MAX;
    2 * bytes / room + records.len() / page::RECORDS_MAX + 2
}

/// Why more messages, so many of so many bytes, are not taken, if so.
fn shortage(
    pages: &Pages,
    limits: Limits,
    room: Option<&Room>,
    (more, more_bytes): (u64, u64),
) -> Result<(), String> {
    let (waiting, bytes) = pages.size();
    if waiting.saturating_add(more) > limits.messages {
        return Err(format!("the outbox is full: {waiting} events wait, its limit is {}", limits.messages));
    }
    if bytes > limits.bytes {
        return Err(format!("the outbox is full: it takes {bytes} bytes, its limit is {}", limits.bytes));
    }
    room.map_or(Ok(()), |room| room(bytes, more_bytes))
}

/// The one thread that writes.
struct Committer {
    pages: Arc<Pages>,
    limits: Limits,
    room: Option<Room>,
    progress: watch::Sender<Progress>,
    failure: Arc<OnceLock<String>>,
    /// A move was refused for want of room, which is said once.
    move_waits: bool,
    /// What did not fit into the group before.
    carried: Option<Command>,
}

/// Appends that are written together.
#[derive(Default)]
struct Group {
    posts: Vec<Post>,
    /// By the index of their post, and whether it was posted before; several may wait for one, when a producer posts again
    /// before it was answered.
    answers: Vec<(usize, bool, Done<Appended>)>,
    /// The posts that have a key, by it.
    keys: HashMap<bytes::Bytes, usize>,
    pages: usize,
    messages: u64,
    bytes: u64,
}

impl Committer {
    fn commit_until_closed(mut self, mut waiting: mpsc::Receiver<Command>) {
        // What was acknowledged before this process, and not deleted yet: a delivered epoch must not hold up the next.
        let swept = self.pages.sweep().map(|()| self.progress.send_replace(self.pages.progress()));
        if let Err(error) = swept {
            self.fail(&error);
            return;
        }
        while let Some(first) = self.carried.take().or_else(|| waiting.blocking_recv()) {
            if self.serve(first, &mut waiting).is_err() {
                return; // dropping the queue, and what was carried, answers everybody else
            }
        }
    }

    /// Said before anybody is answered.
    fn fail(&self, error: &StoreError) {
        tracing::error!(
            code = %codes::DISK_FAILED,
            %error,
            hint = "make room or replace the disk; a restart finds out what the disk holds",
            "the outbox could not be written; nothing more is accepted"
        );
        let _ = self.failure.set(error.to_string()); // the first one is the cause
        self.progress.send_modify(|progress| progress.failed = true);
    }

    /// Serves `first` and what waits with it, no more than the queue holds: who is answered at once may come again for ever,
    /// and those before them wait for the end of the group. After an error nothing more is served.
    fn serve(&mut self, first: Command, waiting: &mut mpsc::Receiver<Command>) -> Result<(), StoreError> {
        let mut group = Group::default();
        let mut command = Some(first);
        let mut taken = 0;
        while let Some(next) = command {
            taken += 1;
            match next {
                Command::Append { post, done } => {
                    if let Some(post) =
                        self.gather(&mut group, post, done).inspect_err(|error| self.fail(error))?
                    {
                        self.carried = Some(post);
                        break;
                    }
                }
                Command::Sweep => {}
                // Not after the group: the sweep that follows it would delete what is taken back here.
                unsettle @ Command::Unsettle { .. } => {
                    self.change(unsettle).inspect_err(|error| self.fail(error))?
                }
                other if group.posts.is_empty() => {
                    self.change(other).inspect_err(|error| self.fail(error))?
                }
                other => {
                    self.carried = Some(other);
                    break;
                }
            }
            command = if taken < QUEUE { waiting.try_recv().ok() } else { None };
        }
        let places = match group.posts.is_empty() {
            true => Vec::new(),
            false => self.pages.commit(&group.posts).inspect_err(|error| self.fail(error))?,
        };
        self.pages.sweep().inspect_err(|error| self.fail(error))?;
        self.progress.send_replace(self.pages.progress());
        for (index, repeated, done) in group.answers {
            let _ = done.send(Ok(Appended { repeated, ..places[index] })); // the producer may have gone
        }
        Ok(())
    }

    /// Adds a post to the group, or answers it. Gives it back when it belongs into the next group.
    fn gather(
        &self,
        group: &mut Group,
        post: Post,
        done: Done<Appended>,
    ) -> Result<Option<Command>, StoreError> {
        let key = post.records.first().and_then(|record| record.key.clone());
        if let Some(key) = &key {
            if let Some(index) = group.keys.get(&key.text) {
                let first = group.posts[*index].records.first().and_then(|record| record.key.as_ref());
                if first.is_some_and(|first| first.body == key.body) {
                    group.answers.push((*index, true, done));
                } else {
                    let _ = done.send(Err(AppendError::KeyReused));
                }
                return Ok(None);
            }
            if let Some(known) = self.pages.remembered(key)? {
                self.pages.store().check_in_place()?;
                let first = Sequence::new(known.first);
                let last = Sequence::new(known.first + u64::from(known.count.max(1)) - 1);
                let answer = match (first, last) {
                    (Some(first), Some(last)) if known.body == key.body => {
                        Ok(Appended { epoch: known.epoch, first, last, repeated: true })
                    }
                    _ => Err(AppendError::KeyReused),
                };
                let _ = done.send(answer);
                return Ok(None);
            }
        }
        let pages = pages_at_most(&post.records);
        if group.pages + pages > GROUP_PAGES && !group.posts.is_empty() {
            return Ok(Some(Command::Append { post, done }));
        }
        let messages = group.messages + post.records.len() as u64;
        let bytes = group.bytes + post.records.iter().map(Record::encoded_len_max).sum::<usize>() as u64;
        if let Err(what) = shortage(&self.pages, self.limits, self.room.as_ref(), (messages, bytes)) {
            let _ = done.send(Err(AppendError::Full(what)));
            return Ok(None);
        }
        if key.is_some() && self.pages.keys_remembered() + group.keys.len() as u64 >= keys::KEPT_MOST {
            let _ = done.send(Err(AppendError::KeysFull));
            return Ok(None);
        }
        if let Some(key) = key {
            group.keys.insert(key.text, group.posts.len());
        }
        group.answers.push((group.posts.len(), false, done));
        group.pages += pages;
        group.messages = messages;
        group.bytes = bytes;
        group.posts.push(post);
        Ok(None)
    }

    /// What is moved is written again before its former place is free.
    fn room_to_move(&mut self) -> Result<(), String> {
        let Some(room) = &self.room else { return Ok(()) };
        let (_, stored) = self.pages.size();
        let is_there = room(stored, stored.min(MOVE_NEEDS));
        match (&is_there, std::mem::replace(&mut self.move_waits, is_there.is_err())) {
            (Err(what), false) => {
                tracing::error!(
                    code = %codes::MOVE_WAITS_FOR_ROOM,
                    reason = what,
                    hint = "make room on the disk: then it goes on by itself",
                    "what the server wants to have moved to a new epoch waits until there is room"
                );
            }
            (Ok(()), true) => {
                tracing::info!("the disk has room again, and what waits is moved to a new epoch")
            }
            _ => {}
        }
        is_there
    }

    /// What changes the outbox itself.
    fn change(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Unsettle { life, mark, done } => {
                self.pages.unacknowledge(life, mark)?;
                let _ = done.send(Ok(()));
            }
            Command::BeginEpoch { unless_not, done } => {
                let epoch = match self.pages.epoch() {
                    epoch if epoch != unless_not => epoch,
                    _ => self.pages.begin_epoch()?,
                };
                let _ = done.send(Ok(epoch));
            }
            Command::Move { life, from, done } => {
                if let Err(what) = self.room_to_move() {
                    let _ = done.send(Err(AppendError::Full(what)));
                    return Ok(());
                }
                let moved = match self.pages.position().life == life {
                    true => Some(self.pages.move_oldest(from)?),
                    false => None,
                };
                let _ = done.send(Ok(moved));
            }
            Command::Bind { ledger, unless_bound, done } => {
                let bound = match self.pages.ledger().filter(|_| unless_bound) {
                    Some(bound) => bound,
                    None => {
                        self.pages.bind(ledger)?;
                        ledger
                    }
                };
                let _ = done.send(Ok(bound));
            }
            Command::Append { .. } | Command::Sweep => unreachable!("these are gathered"),
        }
        self.progress.send_replace(self.pages.progress());
        Ok(())
    }
}
