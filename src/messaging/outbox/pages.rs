//! The pages of an outbox, in a store.
//!
//! | key | value |
//! | --- | --- |
//! | `e` + index (u32) | the epoch's 16 bytes |
//! | `p` + epoch index (u32) + first sequence (u64) | a [`SealedPage`] |
//! | `a` | epoch index (u32), highest acknowledged sequence (u64); a hint: it may be behind |
//!
//! Numbers are big-endian, so that keys sort by age. An outbox may come to hold several epochs, oldest first;
//! what is appended belongs to the last.

use super::super::page::{self, Content, Page, Record, SealedPage};
use super::super::{Digest, Epoch, Sequence};
use super::{Appended, Progress, Status};
use crate::store::{Batch, Store, StoreError};
use std::sync::{Mutex, MutexGuard};

/// Why an outbox does not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the outbox is damaged: {what}. Nothing was deleted and nothing is sent. Keep a copy of the data directory; the events before the damage can be read from it"
    )]
    Damaged { what: String },
    #[error("cannot start the committer thread: {0}. Nothing was changed")]
    Thread(#[source] std::io::Error),
}

/// Where an outbox begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The oldest sequence stored, or the next one.
    pub oldest: u64,
    /// The highest acknowledged sequence that is known, 0 for none.
    pub acknowledged: u64,
    /// The last sequence on disk, 0 for none.
    pub durable: u64,
}

/// Pages to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    pub pages: Vec<SealedPage>,
    /// The last sequence in them.
    pub last: Option<u64>,
    /// The oldest sequence that the outbox had when they were read, or its next one.
    pub oldest: u64,
}

pub(super) struct Pages {
    store: Store,
    epoch: Epoch,
    epoch_index: u32,
    state: Mutex<State>,
}

struct State {
    /// The newest page while it may still grow. Its content is on disk.
    growing: Option<Growing>,
    next: u64,
    /// The first sequence of the oldest and of the newest page stored, while there is any.
    oldest_first: Option<u64>,
    newest_first: Option<u64>,
    /// Of the newest page as it is stored.
    newest_digest: Option<Digest>,
    acknowledged: u64,
    bytes: u64,
    /// While a group is being written: the first sequence of the first page that it changes. What the store shows
    /// from there on may not be on disk yet.
    writing_from: Option<u64>,
    /// The sender wants what is being written: the page is not to grow further.
    seal_wanted: bool,
}

#[derive(Clone)]
struct Growing {
    page: Page,
    /// At most the length of its encoding.
    len_max: usize,
    /// The length of what is stored, 0 while it is not.
    stored_len: usize,
    /// Whether it holds more than what is stored.
    grew: bool,
}

/// A page to be written.
struct Writing {
    key: Vec<u8>,
    stored: Vec<u8>,
    first: u64,
}

impl Growing {
    fn begin(epoch: Epoch, first: u64, previous: Option<Digest>, begun_at_ms: i64) -> Growing {
        Growing {
            page: Page {
                epoch,
                first: Sequence::new(first).expect("sequences begin at 1"),
                previous,
                begun_at_ms,
                content: Content::Records(Vec::new()),
            },
            len_max: Page::HEADER_MAX,
            stored_len: 0,
            grew: false,
        }
    }
    fn records(&mut self) -> &mut Vec<Record> {
        match &mut self.page.content {
            Content::Records(records) => records,
            Content::Lost { .. } => unreachable!("a growing page was begun with records"),
        }
    }
    /// Whether the record still fits; the first always does.
    fn fits(&self, record: &Record) -> bool {
        let held = match &self.page.content {
            Content::Records(records) => records.len(),
            Content::Lost { .. } => page::RECORDS_MAX,
        };
        held < page::RECORDS_MAX && self.len_max + record.encoded_len_max() <= page::BYTES_MAX
    }
    fn push(&mut self, record: Record) {
        self.len_max += record.encoded_len_max();
        self.records().push(record);
        self.grew = true;
    }
}

impl Pages {
    pub(super) fn open(store: Store) -> Result<Pages, OpenError> {
        let (epoch_index, epoch) = match store.last(b"e", b"f")? {
            Some((key, value)) => (
                parse_u32(key.get(1..)).ok_or_else(|| damaged("an epoch's key"))?,
                Epoch::from_bytes(value[..].try_into().map_err(|_| damaged("an epoch's value"))?),
            ),
            None => {
                let epoch = Epoch::random();
                store.put(&epoch_key(0), &epoch.to_bytes())?;
                store.flush()?;
                (0, epoch)
            }
        };
        let mut state = State {
            growing: None,
            next: 1,
            oldest_first: None,
            newest_first: None,
            newest_digest: None,
            acknowledged: 0,
            bytes: 0,
            writing_from: None,
            seal_wanted: false,
        };
        // Every page found is sealed: whether it was sent is not known.
        for entry in store.range(b"p", b"q") {
            let (key, value) = entry?;
            let page = read_page(&key, &value)?;
            if state.newest_first.is_some() && page.first.get() != state.next {
                return Err(damaged(&format!("after sequence {} comes {}", state.next - 1, page.first)));
            }
            state.oldest_first.get_or_insert(page.first.get());
            state.newest_first = Some(page.first.get());
            state.newest_digest = Some(SealedPage::seal(&page).digest);
            state.next = page.last() + 1;
            state.bytes += value.len() as u64;
        }
        if let Some(oldest) = state.oldest_first {
            state.acknowledged = oldest - 1;
        }
        if let Some(value) = store.get(b"a")? {
            let (index, through) =
                value.split_at_checked(4).ok_or_else(|| damaged("the record of the last acknowledgement"))?;
            let through =
                parse_u64(Some(through)).ok_or_else(|| damaged("the record of the last acknowledgement"))?;
            if parse_u32(Some(index)) == Some(epoch_index) {
                if through >= state.next {
                    return Err(damaged(&format!(
                        "sequence {through} was acknowledged, the last one here is {}",
                        state.next - 1
                    )));
                }
                state.acknowledged = state.acknowledged.max(through);
            }
        }
        Ok(Pages { store, epoch, epoch_index, state: Mutex::new(state) })
    }

    /// Writes a group of appends and flushes once. Called by the committer only.
    ///
    /// On `Ok` all of the group is on disk. On `Err` the store is poisoned.
    pub(super) fn commit(
        &self,
        group: &[Vec<Record>],
        begun_at_ms: i64,
    ) -> Result<Vec<Appended>, StoreError> {
        let (mut current, mut next, mut newest_digest) = {
            let mut state = self.state();
            let growing = state.growing.take();
            state.writing_from =
                Some(growing.as_ref().map_or(state.next, |growing| growing.page.first.get()));
            (growing, state.next, state.newest_digest)
        };
        let mut writing: Vec<Writing> = Vec::new();
        let mut bytes_added = 0;
        let mut places = Vec::with_capacity(group.len());
        // An append whose messages stand in several pages must survive whole or not at all. Appends within one page do
        // by themselves, and writing pages one by one saves a sync: a batch costs two in sled.
        let mut needs_batch = false;
        for records in group {
            let first = next;
            let mut pages = 0;
            for record in records {
                let page = match &mut current {
                    Some(page) if page.fits(record) => page,
                    _ => {
                        if let Some(mut full) = current.take() {
                            newest_digest = self.write_out(&mut full, &mut writing, &mut bytes_added);
                            pages += usize::from(full.page.last() >= first);
                        }
                        current.insert(Growing::begin(self.epoch, next, newest_digest, begun_at_ms))
                    }
                };
                page.push(record.clone());
                next += 1;
            }
            needs_batch |= pages > 0;
            places.push(Appended {
                epoch: self.epoch,
                first: Sequence::new(first).expect("sequences begin at 1"),
                last: Sequence::new(next - 1).expect("an append holds a message"),
            });
        }
        let mut newest = current.expect("a group holds a message");
        newest_digest = self.write_out(&mut newest, &mut writing, &mut bytes_added);
        let first_written = writing.first().map_or(next, |page| page.first);
        if needs_batch {
            let mut batch = Batch::default();
            for page in writing {
                batch.put(page.key, page.stored);
            }
            self.store.apply(&batch)?;
        } else {
            for page in &writing {
                self.store.put(&page.key, &page.stored)?;
            }
        }
        self.store.flush()?;

        let mut state = self.state();
        state.next = next;
        state.bytes += bytes_added;
        state.newest_digest = newest_digest;
        state.oldest_first.get_or_insert(first_written);
        state.newest_first = Some(newest.page.first.get());
        state.writing_from = None;
        state.growing = (!std::mem::take(&mut state.seal_wanted)).then_some(newest);
        Ok(places)
    }

    /// Queues the page for writing when it holds more than what is stored. Returns its digest.
    fn write_out(
        &self,
        page: &mut Growing,
        writing: &mut Vec<Writing>,
        bytes_added: &mut u64,
    ) -> Option<Digest> {
        let sealed = SealedPage::seal(&page.page);
        // A page that only made room for the next one is stored as it is.
        if std::mem::take(&mut page.grew) {
            let stored = sealed.to_stored();
            *bytes_added += stored.len() as u64 - page.stored_len as u64;
            page.stored_len = stored.len();
            let first = page.page.first.get();
            writing.push(Writing { key: self.page_key(first), stored, first });
        }
        Some(sealed.digest)
    }

    /// Deletes what is acknowledged, except the newest page. Called by the committer only.
    ///
    /// No flush: whatever a crash brings back is sent again, and known to the receiver as a duplicate.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let (Some(oldest), Some(newest), acknowledged, everything) = ({
            let state = self.state();
            let last = state.next - 1;
            (state.oldest_first, state.newest_first, state.acknowledged, state.acknowledged == last)
        }) else {
            return Ok(());
        };
        if oldest > acknowledged {
            return Ok(());
        }
        let mut oldest_left = oldest;
        let mut bytes = 0;
        let through = acknowledged.min(newest);
        let mut former: Option<(Vec<u8>, usize)> = None;
        let range = self.store.range(&self.page_key(oldest), &self.page_key(through + 2));
        let mut doomed = Vec::new();
        for entry in range {
            let (key, value) = entry?;
            let first = first_in(&key)?;
            // A page ends before the next one begins.
            if let Some((key, length)) = former.take()
                && first - 1 <= acknowledged
            {
                doomed.push(key);
                bytes += length as u64;
                oldest_left = first;
            }
            former = Some((key, value.len()));
        }
        {
            // From here on nobody is told that these are still here.
            let mut state = self.state();
            if state.acknowledged < acknowledged {
                return Ok(()); // the receiver went back meanwhile, and may want them
            }
            state.bytes -= bytes;
            state.oldest_first = Some(oldest_left);
        }
        for key in doomed {
            self.store.remove(&key)?;
        }
        if everything {
            // After a restart the newest page would look as if it still waited.
            let mut value = self.epoch_index.to_be_bytes().to_vec();
            value.extend_from_slice(&acknowledged.to_be_bytes());
            if self.store.get(b"a")?.as_deref() != Some(&value) {
                self.store.put(b"a", &value)?;
            }
        }
        Ok(())
    }

    pub(super) fn acknowledge(&self, through: u64) {
        let mut state = self.state();
        assert!(through < state.next, "the sender refuses such replies");
        state.acknowledged = state.acknowledged.max(through);
    }

    /// The receiver has less than it once acknowledged: what is still here waits again.
    pub(super) fn unacknowledge(&self, mark: u64) {
        let mut state = self.state();
        let oldest = state.oldest_first.unwrap_or(state.next);
        state.acknowledged = state.acknowledged.min(mark.max(oldest - 1));
    }

    pub(super) fn take(&self, from: u64, max_bytes: usize) -> Result<Taken, StoreError> {
        // The state stays locked, so that the newest page neither grows nor is begun while we look.
        let mut state = self.state();
        let end = match state.writing_from {
            Some(first) => first,
            None => state.next,
        };
        let oldest = state.oldest_first.unwrap_or(state.next);
        let mut taken = Taken { oldest, ..Taken::default() };
        let mut bytes = 0;
        let mut reached_end = true;
        let from = from.max(oldest);
        for entry in self.store.range(&self.key_of_page_with(from)?, &self.page_key(end)) {
            let (key, value) = entry?;
            let sealed =
                SealedPage::from_stored(&value).and_then(|sealed| sealed.open().map(|page| (sealed, page)));
            let (sealed, page) = sealed.map_err(|error| StoreError::Damaged {
                place: format!("page {:02x?}", &key),
                reason: error.to_string(),
            })?;
            bytes += value.len();
            if !taken.pages.is_empty() && bytes > max_bytes {
                reached_end = false;
                break;
            }
            taken.last = Some(page.last());
            taken.pages.push(sealed);
        }
        // What is being written now comes next.
        state.seal_wanted |= reached_end && state.writing_from.is_some();
        if let Some(growing) = &state.growing
            && taken.last.is_some_and(|last| last >= growing.page.first.get())
        {
            state.growing = None;
        }
        Ok(taken)
    }

    pub(super) fn peek(&self, after: u64, limit: usize) -> Result<Vec<(u64, Record)>, StoreError> {
        let (acknowledged, end) = {
            let state = self.state();
            (state.acknowledged, state.next)
        };
        // A cursor is what somebody sent us: it may lie beyond everything.
        let from = after.min(end).max(acknowledged) + 1;
        let mut found = Vec::new();
        for entry in self.store.range(&self.key_of_page_with(from)?, &self.page_key(end)) {
            let (key, value) = entry?;
            let page = read_page(&key, &value).map_err(|error| StoreError::Damaged {
                place: format!("page {key:02x?}"),
                reason: error.to_string(),
            })?;
            let Content::Records(records) = page.content else {
                continue;
            };
            for (sequence, record) in (page.first.get()..).zip(records) {
                if sequence < from || sequence >= end {
                    continue; // acknowledged, or not on disk yet
                }
                if found.len() == limit {
                    return Ok(found);
                }
                found.push((sequence, record));
            }
        }
        Ok(found)
    }

    pub(super) fn status(&self) -> Result<Status, StoreError> {
        let (status, oldest_waiting) = {
            let state = self.state();
            let depth = state.next - 1 - state.acknowledged;
            let status = Status {
                next_sequence: state.next,
                acknowledged: state.acknowledged,
                depth,
                bytes: state.bytes,
                oldest_begun_at_ms: None,
            };
            (status, (depth > 0).then_some(state.acknowledged + 1))
        };
        let begun_at = match oldest_waiting {
            Some(sequence) => {
                let key = self.key_of_page_with(sequence)?;
                let page = self.store.get(&key)?;
                page.and_then(|value| SealedPage::from_stored(&value).ok()?.open().ok())
                    .map(|page| page.begun_at_ms)
            }
            None => None,
        };
        Ok(Status { oldest_begun_at_ms: begun_at, ..status })
    }

    pub(super) fn progress(&self) -> Progress {
        let state = self.state();
        Progress { oldest: state.oldest_first.unwrap_or(state.next), durable: state.next - 1, failed: false }
    }

    pub(super) fn position(&self) -> Position {
        let state = self.state();
        Position {
            oldest: state.oldest_first.unwrap_or(state.next),
            acknowledged: state.acknowledged,
            durable: state.next - 1,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key of the stored page that `sequence` stands in, or of the place where it would begin.
    fn key_of_page_with(&self, sequence: u64) -> Result<Vec<u8>, StoreError> {
        let page = self.store.last(&self.page_key(0), &self.page_key(sequence + 1))?;
        match page {
            Some((key, value)) => {
                let covers = read_page(&key, &value).is_ok_and(|page| page.last() >= sequence);
                Ok(if covers { key } else { self.page_key(sequence) })
            }
            None => Ok(self.page_key(sequence)),
        }
    }

    fn page_key(&self, first: u64) -> Vec<u8> {
        let mut key = vec![b'p'];
        key.extend_from_slice(&self.epoch_index.to_be_bytes());
        key.extend_from_slice(&first.to_be_bytes());
        key
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the outbox's state")
    }
}

fn epoch_key(index: u32) -> Vec<u8> {
    let mut key = vec![b'e'];
    key.extend_from_slice(&index.to_be_bytes());
    key
}

fn read_page(key: &[u8], value: &[u8]) -> Result<Page, OpenError> {
    let page = SealedPage::from_stored(value).and_then(|sealed| sealed.open());
    let page = page.map_err(|error| damaged(&format!("the page at {key:02x?}: {error}")))?;
    if Some(page.first.get()) != parse_u64(key.get(5..)) {
        return Err(damaged(&format!("the page at {key:02x?} begins with sequence {}", page.first)));
    }
    Ok(page)
}

fn first_in(key: &[u8]) -> Result<u64, StoreError> {
    parse_u64(key.get(5..)).ok_or_else(|| StoreError::Damaged {
        place: format!("key {key:02x?}"),
        reason: "it has the wrong length".into(),
    })
}

fn damaged(what: &str) -> OpenError {
    OpenError::Damaged { what: what.into() }
}

fn parse_u32(bytes: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(bytes?.try_into().ok()?))
}

fn parse_u64(bytes: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}
