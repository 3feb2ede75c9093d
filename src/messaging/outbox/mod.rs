//! Messages wait here, on disk, until the receiver has acknowledged them.
//!
//! **Promise.** Once [`Outbox::append`] returns `Ok`, its messages survive `kill -9` and a power cut, under
//! consecutive sequences that nothing else ever gets; those of one append are kept all or none.
//! **Kept by.** One committer thread owns the writes: it takes all waiting appends, writes the pages that
//! they fill, flushes once, then answers them all (group commit). All that a commit needs is in the page itself, so
//! that it costs one key. Only flushed messages are given to the sender, and a page that was given out
//! never changes again. Only [`Outbox::settle`] leads to a deletion, and the newest page always stays: it remembers the
//! next sequence.
//! **Not promised.** An order between two appends that run at the same time; protection against a lying disk.

mod pages;
#[cfg(test)]
mod tests;

pub use pages::{OpenError, Position, Taken};

use super::page::{self, Record};
use super::{Epoch, Sequence};
use crate::store::{BATCH_MAX, Store, StoreError};
use pages::Pages;
use serde::Serialize;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// How many appends may wait for the committer. Beyond it producers are told to come back.
const QUEUE: usize = 1024;
/// A group is closed when it may take so many pages: they must fit into one batch of the store.
const GROUP_PAGES: usize = BATCH_MAX;
/// The most messages of one append. Their pages must fit into one batch of the store.
pub const APPEND_MAX: usize = 10_000;
/// The most bytes of one append, payloads and keys together.
pub const APPEND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Where an append's messages stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub epoch: Epoch,
    pub first: Sequence,
    pub last: Sequence,
}

/// Why an append was not confirmed.
#[derive(Debug, thiserror::Error)]
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
    /// Nothing was stored. The same append may succeed in a moment.
    #[error("more appends wait for the disk than it can take; nothing was stored, try again in a moment")]
    Busy,
    /// Whether it was stored is unknown until the outbox is opened anew; nothing more is accepted until then.
    #[error(
        "the disk failed, and whether this append was stored is unknown. Nothing more is accepted until the process starts again"
    )]
    Failed,
}

/// How far the outbox has come. Sequences are plain numbers, 0 standing before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The oldest sequence that is still stored, or the next one.
    pub oldest: u64,
    /// The last sequence that is on disk.
    pub durable: u64,
    /// The disk failed. What was confirmed is kept; nothing more is accepted.
    pub failed: bool,
}

/// What the outbox holds, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Status {
    pub next_sequence: u64,
    /// The highest sequence acknowledged, 0 for none.
    pub acknowledged: u64,
    /// How many messages wait.
    pub depth: u64,
    /// How many bytes of pages are stored.
    pub bytes: u64,
    /// Wall time, in milliseconds since 1970, when the oldest waiting page was begun.
    #[serde(skip)]
    pub oldest_begun_at_ms: Option<i64>,
}

enum Command {
    Append { records: Vec<Record>, begun_at_ms: i64, done: oneshot::Sender<Result<Appended, AppendError>> },
    Sweep,
}

/// The durable queue of one site. Cloning shares it; it closes when the last clone is dropped.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    pages: Arc<Pages>,
    queue: Option<mpsc::Sender<Command>>,
    progress: watch::Receiver<Progress>,
    committer: Option<JoinHandle<()>>,
}

impl Outbox {
    /// Opens what `store` holds, or begins a first epoch in it.
    pub fn open(store: Store) -> Result<Outbox, OpenError> {
        let pages = Arc::new(Pages::open(store)?);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (progress, watched) = watch::channel(pages.progress());
        let committer = std::thread::Builder::new()
            .name("committer".into())
            .spawn({
                let pages = Arc::clone(&pages);
                move || commit_until_closed(&pages, waiting, &progress)
            })
            .map_err(OpenError::Thread)?;
        Ok(Outbox {
            shared: Arc::new(Shared {
                pages,
                queue: Some(queue),
                progress: watched,
                committer: Some(committer),
            }),
        })
    }

    /// Stores `records` under consecutive sequences and returns once they are on disk, all or none.
    ///
    /// `begun_at_ms` is the wall time, for people. If the future is dropped, they may or may not be stored.
    pub async fn append(&self, records: Vec<Record>, begun_at_ms: i64) -> Result<Appended, AppendError> {
        check(&records)?;
        let (done, answer) = oneshot::channel();
        let command = Command::Append { records, begun_at_ms, done };
        match self.queue().try_send(command) {
            Ok(()) => answer.await.unwrap_or(Err(AppendError::Failed)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AppendError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AppendError::Failed),
        }
    }

    /// Up to `max_bytes` of consecutive pages from sequence `from` on, at least one if there is any that is on disk.
    /// They are sealed from now on. Blocks on the disk.
    pub fn take(&self, from: u64, max_bytes: usize) -> Result<Taken, StoreError> {
        self.shared.pages.take(from, max_bytes)
    }

    /// The receiver has everything up to `through` on its disk: it is deleted here, in a moment.
    ///
    /// # Panics
    /// When `through` was never stored: the sender refuses such acknowledgements.
    pub fn settle(&self, through: u64) {
        self.shared.pages.acknowledge(through);
        // A full queue has the committer busy; it sweeps after each group anyway.
        let _ = self.queue().try_send(Command::Sweep);
    }

    /// The receiver has no more than `mark`, though it acknowledged more: what is still here waits again.
    pub fn unsettle(&self, mark: u64) {
        self.shared.pages.unacknowledge(mark);
    }

    /// Up to `limit` waiting messages after sequence `after`, oldest first. Blocks on the disk.
    pub fn peek(&self, after: u64, limit: usize) -> Result<Vec<(u64, Record)>, StoreError> {
        self.shared.pages.peek(after, limit)
    }

    /// Blocks on the disk for a moment.
    pub fn status(&self) -> Result<Status, StoreError> {
        self.shared.pages.status()
    }

    pub fn epoch(&self) -> Epoch {
        self.shared.pages.epoch()
    }

    /// Where the outbox begins and ends.
    pub fn position(&self) -> Position {
        self.shared.pages.position()
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
        let key = record.key.as_ref().map_or(0, |key| key.len());
        let bytes = record.payload.len();
        if bytes > page::PAYLOAD_MAX || key > page::KEY_MAX {
            return Err(AppendError::TooLong { index, bytes });
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

fn commit_until_closed(
    pages: &Pages,
    mut waiting: mpsc::Receiver<Command>,
    progress: &watch::Sender<Progress>,
) {
    // What did not fit into the group before.
    let mut carried: Option<Command> = None;
    while let Some(first) = carried.take().or_else(|| waiting.blocking_recv()) {
        let mut group = Vec::new();
        let mut answers = Vec::new();
        let mut begun_at = 0;
        let mut pages_in_group = 0;
        let mut command = Some(first);
        while let Some(next) = command {
            if let Command::Append { records, begun_at_ms, done } = next {
                pages_in_group += pages_at_most(&records);
                if pages_in_group > GROUP_PAGES && !group.is_empty() {
                    carried = Some(Command::Append { records, begun_at_ms, done });
                    break;
                }
                begun_at = begun_at_ms;
                group.push(records);
                answers.push(done);
            }
            command = waiting.try_recv().ok();
        }
        let committed = if group.is_empty() { Ok(Vec::new()) } else { pages.commit(&group, begun_at) };
        let committed = committed.and_then(|places| {
            pages.sweep()?;
            Ok(places)
        });
        match committed {
            Ok(places) => {
                progress.send_replace(pages.progress());
                for (done, place) in answers.into_iter().zip(places) {
                    let _ = done.send(Ok(place)); // the producer may have gone
                }
            }
            Err(error) => {
                tracing::error!(%error, "the outbox could not be written; nothing more is accepted until a restart finds out what the disk holds");
                progress.send_modify(|progress| progress.failed = true);
                for done in answers {
                    let _ = done.send(Err(AppendError::Failed));
                }
                return; // dropping the queue, and what was carried, answers everybody else
            }
        }
    }
}
