//! Moving what is not acknowledged from the oldest epoch to the newest.

use super::super::life::{Entry, Life, entry_key, page_key};
use super::super::opening::Moving;
use super::{Pages, first_told, keys_of, read_page};
use crate::messaging::page::{Content, Page, SealedPage};
use crate::messaging::{Epoch, Sequence};
use crate::store::{Batch, StoreError};

/// How many pages one step of a move takes: each is a removal and a new page in one batch.
const MOVED_AT_ONCE: usize = 400;

impl Pages {
    /// Moves what is not acknowledged of the epoch that is being delivered to a new one, in its place in the order. Each page
    /// remembers where it stood. Called by the committer only; a crash in between goes on at the next opening.
    pub(in crate::messaging::outbox) fn move_oldest(&self, first: u64) -> Result<(Epoch, u64), StoreError> {
        let life = self.position().life;
        self.acknowledge(life, first.saturating_sub(1));
        // Keys of what is delivered are written down, and its pages are gone before the move is begun.
        self.sweep()?;
        let (from, to) = {
            let mut state = self.state();
            let from = state.front().number;
            let to = Life::begin(self.checked(state.next_number)?, state.front().rank, Epoch::random());
            state.next_number += 1;
            (from, to)
        };
        let entry = Entry { takes_over: Some((from, first)), ..to.entry() };
        self.store.put(&entry_key(to.number), &entry.encode())?;
        self.store.flush()?;
        let number = to.number;
        {
            let mut state = self.state();
            state.growing = None;
            let place = state.lives.iter().position(|life| life.number == from).expect("it was the first");
            state.lives.insert(place + 1, to);
        }
        self.go_on_moving(Moving { from, first, to: number })
    }

    pub(super) fn go_on_moving(&self, moving: Moving) -> Result<(Epoch, u64), StoreError> {
        let Moving { from, first: first_moved, to } = moving;
        loop {
            let (acknowledged, mut next, mut digest, epoch) = {
                let mut state = self.state();
                let acknowledged = state.life_mut(from).map_or(0, |life| life.acknowledged);
                let acknowledged = acknowledged.max(first_moved.saturating_sub(1));
                let to = state.life_mut(to).expect("the life that takes over is there");
                (acknowledged, to.next, to.newest_digest, to.epoch)
            };
            let mut batch = Batch::default();
            let mut moved = Vec::new();
            let entries = self.store.range(&page_key(from, 0), &page_key(from, u64::MAX));
            for entry in entries.take(MOVED_AT_ONCE) {
                let (key, value) = entry?;
                let page = read_page(&key, &value)?;
                batch.remove(key);
                if page.last() <= acknowledged {
                    continue;
                }
                // The beginning of the first page may be delivered, in a page that was cut differently.
                let delivered = (acknowledged + 1).saturating_sub(page.first.get());
                let later = |first: Sequence| {
                    Sequence::new(first.get() + delivered).expect("it lies between two sequences of a page")
                };
                let count = page.count() - delivered;
                if delivered > 0 {
                    let keys = keys_of(&page).into_iter().filter(|(place, _)| *place <= acknowledged);
                    let told = keys.map(|(place, key)| (first_told(&page, place), key));
                    for ((epoch, first), key) in told.collect::<Vec<_>>() {
                        let running_s = self.running_s();
                        self.keys().acknowledged(&self.store, epoch, [(first, key)], running_s)?;
                    }
                }
                let (former_epoch, former_first) = page.moved_from.unwrap_or((page.epoch, page.first));
                let first = Sequence::new(next).expect("sequences begin at 1");
                let last = Sequence::new(next + count - 1).expect("it is not before the first");
                let page = Page {
                    epoch,
                    first,
                    previous: digest,
                    moved_from: Some((former_epoch, later(former_first))),
                    begun: page.begun,
                    content: match page.content {
                        Content::Lost { reason, .. } => Content::Lost { last, reason },
                        Content::Records(mut records) => {
                            Content::Records(records.split_off(delivered as usize))
                        }
                    },
                };
                let sealed = SealedPage::seal(&page);
                let stored = sealed.to_stored();
                digest = Some(sealed.digest);
                next += count;
                moved.push((first.get(), stored.len() as u64, keys_of(&page)));
                batch.put(page_key(to, first.get()), stored);
            }
            if batch.is_empty() {
                break;
            }
            self.store.apply(&batch)?;
            let mut keys = self.keys();
            let mut state = self.state();
            let life = state.life_mut(to).expect("the life that takes over is there");
            for (first, length, its_keys) in moved {
                life.oldest_first.get_or_insert(first);
                life.newest_first = Some(first);
                life.bytes += length;
                for (sequence, key) in its_keys {
                    keys.waits(&key, to, sequence);
                }
            }
            life.next = next;
            life.newest_digest = digest;
        }
        let entry = {
            let mut state = self.state();
            state.lives.retain(|life| life.number != from);
            let to = state.life_mut(to).expect("the life that takes over is there");
            to.took_over = Some(from);
            to.entry()
        };
        // An opening must not take what is moved for lost: the note forgets the former epoch before the store does, and only
        // when the new one is on disk.
        self.store.flush()?;
        self.note();
        let mut batch = Batch::default();
        batch.remove(entry_key(from));
        batch.put(entry_key(to), entry.encode());
        self.store.apply(&batch)?;
        self.store.flush()?;
        self.note();
        let moved = self.state().life_mut(to).map_or(0, |life| life.next - 1);
        Ok((entry.epoch, moved))
    }
}
