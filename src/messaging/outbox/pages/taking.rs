//! Giving pages to the sender.

use super::super::layout::{EpochIndex, page_key};
use super::{Pages, unreadable};
use crate::messaging::page::SealedPage;
use crate::store::StoreError;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    pub pages: Vec<SealedPage>,
    pub last: Option<u64>,
    /// The oldest sequence that the outbox had when they were read, or its next one.
    pub oldest: u64,
}

struct TakenPage {
    first: u64,
    last: u64,
    sealed: SealedPage,
}

impl Pages {
    /// Takes up to `max_bytes` of consecutive pages of an epoch from sequence `from` on, at least one if there is any that
    /// is on disk. They are sealed from now on. Blocks on the disk.
    ///
    /// The state is not locked while pages are read, so a disk that does not answer delays only the sender. What is read
    /// cannot change meanwhile: it lies before the page that grows or is being written, and was flushed. The growing page is
    /// sealed first, when everything before it is taken; what is appended after that begins a new page after it.
    pub fn take(&self, epoch_index: EpochIndex, from: u64, max_bytes: usize) -> Result<Taken, StoreError> {
        let mut read: Vec<TakenPage> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        'reading: loop {
            let room = if read.is_empty() { usize::MAX } else { max_bytes.saturating_sub(bytes) };
            let Some((after, end)) = self.unchanging(epoch_index, next.unwrap_or(from), room) else { break };
            let begin = match next {
                None => self.key_of_page_with(epoch_index, after)?,
                Some(_) => page_key(epoch_index, after),
            };
            for entry in self.store.range(&begin, &page_key(epoch_index, end)) {
                let (key, value) = entry?;
                bytes += value.len();
                if !read.is_empty() && bytes > max_bytes {
                    break 'reading;
                }
                let opened = SealedPage::from_stored(&value).and_then(|sealed| {
                    let (first, last) = sealed.view().map(|page| (page.first.get(), page.last()))?;
                    Ok(TakenPage { first, last, sealed })
                });
                read.push(opened.map_err(|error| unreadable(&key, &error))?);
            }
            next = Some(end);
        }
        let mut state = self.state();
        let Some(stored) = state.epoch_mut(epoch_index) else {
            return Ok(Taken { oldest: from, ..Taken::default() }); // it is delivered or moved: nothing of it is left
        };
        // A sweep moves the oldest sequence before it deletes: from there on, everything was there while we read.
        let (epoch, oldest) = (stored.epoch, stored.oldest());
        drop(state);
        let pages: Vec<TakenPage> = read.into_iter().skip_while(|page| page.last < oldest).collect();
        if let Some((first, last)) = first_gap(&pages, from.max(oldest), next) {
            self.store.contradicts_itself();
            return Err(StoreError::Damaged {
                place: format!("sequences {first} to {last} of epoch {epoch} in the outbox"),
                reason: "their pages were there and cannot be found any more".into(),
            });
        }
        let last = pages.last().map(|page| page.last);
        Ok(Taken { pages: pages.into_iter().map(|page| page.sealed).collect(), last, oldest })
    }

    /// Where reading begins, and up to where pages never change again, if there is anything from `from` on. Up to `room`
    /// bytes are wanted: when they reach beyond the sealed pages, the growing page is sealed, or will be once it is written.
    fn unchanging(&self, epoch_index: EpochIndex, from: u64, room: usize) -> Option<(u64, u64)> {
        let mut state = self.state();
        let is_newest = state.newest().index == epoch_index;
        let stored = state.epoch_mut(epoch_index)?;
        let (from, next) = (from.max(stored.oldest()), stored.next);
        let end = match (state.writing_from, &state.growing) {
            (Some(writing), _) if is_newest => {
                state.seal_wanted |= from >= writing;
                writing
            }
            (None, Some(growing)) if is_newest => {
                let first = growing.page.first.get();
                if (first..next).contains(&from) && growing.stored_len <= room {
                    state.growing = None;
                    next
                } else {
                    first
                }
            }
            _ => next,
        };
        (from < end).then_some((from, end))
    }
}

/// The first sequences that `pages`, which were read from `from` on, do not cover: up to the next one of them, or up to `end`,
/// when everything before it was read.
///
/// A store with a damaged index gives out pages that do not follow each other; a receiver would ask for the rest forever.
fn first_gap(pages: &[TakenPage], from: u64, end: Option<u64>) -> Option<(u64, u64)> {
    let mut due = from;
    for page in pages {
        if page.first > due {
            return Some((due, page.first - 1));
        }
        due = due.max(page.last + 1);
    }
    end.filter(|end| due < *end).map(|end| (due, end - 1))
}
