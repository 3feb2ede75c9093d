//! Reading the pages of one epoch in order, and reporting what is missing between them.

use super::super::layout::{self, StoredEpoch, aside_key, page_key, page_keys, parse_page_key};
use super::{OutboxDamage, OutboxOpening};
use crate::codes;
use crate::messaging::page::{Content, Page, PageView, RECORDS_MAX, SealedPage, shortened};
use crate::messaging::{Digest, Epoch, Sequence};
use crate::store::StoreError;

struct UnreadablePage {
    key: Vec<u8>,
    first: u64,
    reason: String,
}

#[derive(Clone, Copy, Default)]
pub(super) struct EpochRole {
    pub is_newest: bool,
    /// Another epoch takes over its oldest pages.
    pub is_moving_away: bool,
}

/// The state machine of the module [`super`].
pub(super) struct EpochReader<'o, 'a> {
    opening: &'o mut OutboxOpening<'a>,
    stored: StoredEpoch,
    role: EpochRole,
    /// Up to here everything is known to be acknowledged, and may be gone.
    acknowledged: u64,
    /// The sequence up to which this is known from the hint.
    hinted: u64,
    /// The sequence at which the next page begins, if that is known.
    due: Option<u64>,
    unreadable: Vec<UnreadablePage>,
    ends_in_a_loss: bool,
}

impl<'o, 'a> EpochReader<'o, 'a> {
    pub(super) fn begin(
        opening: &'o mut OutboxOpening<'a>,
        stored: StoredEpoch,
        role: EpochRole,
    ) -> Result<EpochReader<'o, 'a>, StoreError> {
        let hint = opening.store.get(layout::ACKNOWLEDGED)?;
        let hint = hint.and_then(|value| layout::decode_acknowledged(&value));
        let hinted = hint.filter(|(index, _)| *index == stored.index).map_or(0, |(_, through)| through);
        // Only the last mark says where the epoch began, and a move takes its beginning away.
        let mark = opening.mark.filter(|_| opening.mark_is_exact() && !role.is_moving_away);
        let delivering = mark.filter(|mark| mark.oldest == stored.epoch);
        let due = match (delivering, mark.and_then(|mark| mark.next_of(stored.epoch))) {
            (Some(mark), _) => Some(mark.acknowledged + 1),
            // It waits behind the epoch that was being delivered: nothing of it was acknowledged.
            (None, Some(_)) => Some(1),
            (None, None) => None,
        };
        let acknowledged = hinted.max(delivering.map_or(0, |mark| mark.acknowledged));
        Ok(EpochReader { role, hinted, due, ..EpochReader::vanished(opening, stored, acknowledged) })
    }

    /// The reader of an epoch of which nothing is left.
    pub(super) fn vanished(
        opening: &'o mut OutboxOpening<'a>,
        stored: StoredEpoch,
        acknowledged: u64,
    ) -> EpochReader<'o, 'a> {
        EpochReader {
            opening,
            stored,
            role: EpochRole::default(),
            acknowledged,
            hinted: 0,
            due: None,
            unreadable: Vec::new(),
            ends_in_a_loss: false,
        }
    }

    pub(super) fn read(mut self) -> Result<(), StoreError> {
        let store = self.opening.store;
        let (from, to) = page_keys(self.stored.index);
        for entry in store.range(&from, &to) {
            let (key, value) = entry?;
            let Some((_, first)) = parse_page_key(&key) else {
                let (first, reason) = (self.due.unwrap_or(1), "its key has the wrong length".into());
                self.unreadable.push(UnreadablePage { key, first, reason });
                continue;
            };
            match readable(first, &value, self.stored.epoch) {
                Ok((digest, page)) => self.take(key, digest, &page, value.len())?,
                Err(reason) => self.unreadable.push(UnreadablePage { key, first, reason }),
            }
        }
        let end_is_in_doubt = self.end()?;
        // After an end that was lost at an earlier opening the next sequence is as uncertain as it was then.
        let is_in_doubt = end_is_in_doubt || self.ends_in_a_loss;
        self.opening.contents.tail_in_doubt |= is_in_doubt && self.role.is_newest;
        self.opening.contents.epochs.push_back(self.stored);
        Ok(())
    }

    pub(super) fn lose_all_before(mut self, next: u64) -> Result<(), StoreError> {
        self.lose(1, next - 1)?;
        self.stored.acknowledged = self.acknowledged;
        self.opening.contents.epochs.push_back(self.stored);
        Ok(())
    }

    fn take(
        &mut self,
        key: Vec<u8>,
        digest: Digest,
        page: &PageView<'_>,
        length: usize,
    ) -> Result<(), StoreError> {
        let first = page.first.get();
        if self.stored.newest_first.is_some() && first < self.stored.next {
            let reason = format!("it begins with {first}, where {} was due", self.stored.next);
            self.unreadable.push(UnreadablePage { key, first, reason });
            return Ok(());
        }
        let due = self.due.or(self.unreadable.first().map(|page| page.first));
        if due.is_some_and(|due| due < first) || !self.unreadable.is_empty() {
            self.lose(due.unwrap_or(first), first - 1)?;
        }
        self.stored.push_page(first, page.last(), digest, length as u64);
        self.due = Some(self.stored.next);
        self.ends_in_a_loss = page.is_lost();
        for (sequence, key) in page.keys() {
            self.opening.contents.keys.found_waiting(&key, self.stored.index, sequence);
        }
        Ok(())
    }

    /// Compares the end with what is known of it. Returns true if it is in doubt.
    fn end(&mut self) -> Result<bool, StoreError> {
        let next = self.stored.next;
        let mut is_in_doubt = !self.unreadable.is_empty();
        let marked_next = self.opening.mark.and_then(|mark| mark.next_of(self.stored.epoch)).unwrap_or(1);
        // At least this many had been given out. The hint speaks of the newest epoch only.
        let known_next = marked_next.max(if self.role.is_newest { self.hinted + 1 } else { 1 });
        let due = self.unreadable.first().map_or(next, |page| {
            // What lay before it may be missing, too.
            self.due.map_or(page.first, |due| due.min(page.first)).max(next)
        });
        // What was here is in the epoch that takes over.
        let has_moved_away = self.role.is_moving_away && self.stored.newest_first.is_none() && !is_in_doubt;
        if !has_moved_away && (is_in_doubt || known_next > next) {
            // An exact mark knows the end. Otherwise there may have been as much as the last page held.
            let at_most =
                self.unreadable.last().map_or(due, |page| page.first.max(due)) + RECORDS_MAX as u64 - 1;
            let last = match known_next > due {
                true if self.opening.mark_is_exact() || self.unreadable.is_empty() => known_next - 1,
                true => (known_next - 1).max(at_most),
                false => at_most,
            };
            self.lose(due, last)?;
            self.stored.next = self.stored.next.max(last + 1);
            is_in_doubt = true;
        }
        let before_oldest = self.stored.oldest_first.map_or(self.stored.acknowledged, |oldest| oldest - 1);
        self.stored.acknowledged = before_oldest.max(self.acknowledged).min(self.stored.next - 1);
        Ok(is_in_doubt)
    }

    /// Keeps what was found of `first..=last`, which cannot be read, and writes a page that says so, unless all was acknowledged.
    fn lose(&mut self, first: u64, last: u64) -> Result<(), StoreError> {
        let epoch = self.stored.epoch;
        let reason = match self.unreadable.first() {
            Some(page) => page.reason.clone(),
            None => "their pages are missing from the store".into(),
        };
        let first = first.max(self.acknowledged + 1);
        if first <= last {
            self.opening.refuse_loss(format!("sequences {first} to {last} of epoch {epoch}"), &reason)?;
        }
        // First what was found is kept, then the loss is recorded, and only then the pages go: writes keep their order.
        self.keep_unreadable_aside()?;
        let unreadable = std::mem::take(&mut self.unreadable);
        let place_of_loss = (first <= last).then(|| page_key(self.stored.index, first));
        if place_of_loss.is_some() {
            self.write_lost_page(first, last, &reason)?;
        }
        for page in unreadable.iter().filter(|page| Some(&page.key) != place_of_loss.as_ref()) {
            self.opening.store.remove(&page.key)?;
            self.opening.wrote = true;
        }
        if place_of_loss.is_none() {
            tracing::warn!(
                code = %codes::DELIVERED_PAGES_UNREADABLE,
                %epoch, last, reason,
                hint = "check the disk",
                "pages that were delivered already cannot be read; nothing is lost"
            );
            return Ok(());
        }
        tracing::error!(
            code = %codes::CONFIRMED_EVENTS_UNREADABLE,
            %epoch, first, last, reason,
            hint = "check the disk; what was found is kept in the store, and the rest is delivered",
            "events that were confirmed cannot be read any more; the server records them as missing"
        );
        self.opening.contents.damages.push(OutboxDamage { epoch, first, last, reason });
        Ok(())
    }

    fn keep_unreadable_aside(&mut self) -> Result<(), StoreError> {
        let store = self.opening.store;
        self.opening.wrote |= !self.unreadable.is_empty();
        store.put_all(self.unreadable.iter().filter_map(|page| {
            let value = store.get(&page.key).transpose()?;
            Some(value.map(|value| (aside_key(&page.key), value)))
        }))
    }

    fn write_lost_page(&mut self, first: u64, last: u64, reason: &str) -> Result<(), StoreError> {
        let page = SealedPage::seal(&Page {
            epoch: self.stored.epoch,
            first: Sequence::new(first).expect("sequences begin at 1"),
            // What was before it may have been read back in an older form.
            previous: None,
            moved_from: None,
            begun: self.opening.now,
            content: Content::Lost {
                last: Sequence::new(last).expect("it is not before the first"),
                // Reasons travel, and a page is short.
                reason: shortened(reason, 512).to_owned(),
            },
        });
        let value = page.to_stored();
        self.opening.store.put(&page_key(self.stored.index, first), &value)?;
        self.opening.wrote = true;
        self.stored.push_page(first, last, page.digest, value.len() as u64);
        Ok(())
    }
}

/// The digest and content of a page; the error says why it cannot be read.
fn readable<'v>(first: u64, value: &'v [u8], epoch: Epoch) -> Result<(Digest, PageView<'v>), String> {
    match SealedPage::open_stored(value) {
        Ok((_, page)) if page.first.get() != first => Err(format!("it begins with sequence {}", page.first)),
        Ok((_, page)) if page.epoch != epoch => Err(format!("it belongs to epoch {}", page.epoch)),
        viewed => viewed.map_err(|error| error.to_string()),
    }
}
