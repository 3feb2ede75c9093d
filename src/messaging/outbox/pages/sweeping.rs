//! Acknowledging, taking an acknowledgement back, and deleting what is acknowledged.

use super::super::life::{self, Life, encode_acknowledged, entry_key, first_in, page_key};
use super::{Pages, first_told, keys_of, read_page};
use crate::messaging::Epoch;
use crate::messaging::page::Key;
use crate::store::StoreError;

/// How many pages are deleted at a time, with the keys in them: a busy disk lets acknowledgements of a whole backlog pile up, and
/// 100,000 keys take 11 MB.
const DELETED_AT_ONCE: usize = 128;

/// Pages to be deleted, and the keys of their messages, by the epoch and sequence that their producers were told.
#[derive(Default)]
struct Doomed {
    keep_keys: bool,
    bytes: u64,
    pages: Vec<Vec<u8>>,
    keys: Vec<(Epoch, Vec<(u64, Key)>)>,
}

impl Doomed {
    fn add(&mut self, key: Vec<u8>, value: &[u8]) {
        if self.keep_keys
            && let Ok(page) = read_page(&key, value)
        {
            let told = keys_of(&page).into_iter().map(|(place, key)| (first_told(&page, place), key));
            for ((epoch, first), key) in told {
                match self.keys.last_mut() {
                    Some((last, keys)) if *last == epoch => keys.push((first, key)),
                    _ => self.keys.push((epoch, vec![(first, key)])),
                }
            }
        }
        self.bytes += value.len() as u64;
        self.pages.push(key);
    }
}

impl Pages {
    /// Deletes what is acknowledged, except the newest page, and epochs that are delivered. Called by the committer only.
    ///
    /// What it deletes need not be on disk: whatever a crash brings back is sent again, and known to the receiver as a duplicate.
    pub(in crate::messaging::outbox) fn sweep(&self) -> Result<(), StoreError> {
        while self.sweep_front()? {}
        let running_s = self.running_s();
        self.keys().forget_old(&self.store, running_s)
    }

    /// Returns whether the front epoch was delivered whole and is gone.
    fn sweep_front(&self) -> Result<bool, StoreError> {
        let (life, is_last) = {
            let state = self.state();
            (state.front().clone(), state.lives.len() == 1)
        };
        let done = !is_last && life.acknowledged == life.next - 1;
        let everything = is_last && life.acknowledged == life.next - 1;
        if let Some(newest) = life.newest_first {
            let mut oldest = life.oldest_first;
            if oldest.is_some_and(|oldest| oldest <= life.acknowledged) {
                // What is deleted can still be found in the store's file: a salvage must know that it was delivered.
                self.hint(life.number, life.acknowledged)?;
            }
            while let Some(from) = oldest.filter(|oldest| *oldest <= life.acknowledged) {
                // Deleting must not overtake the note by which an opening knows that it was deletion.
                self.note();
                oldest = self.delete(&life, from, newest, done)?;
                if oldest.is_some() {
                    // sled takes writes faster than a busy disk, and keeps them all in memory.
                    self.store.flush()?;
                }
            }
        }
        if done {
            self.store.remove(&entry_key(life.number))?;
            let mut state = self.state();
            state.lives.retain(|other| other.number != life.number);
            let front = state.front().position();
            drop(state);
            self.note();
            self.hint(front.life, front.acknowledged)?;
            return Ok(true);
        }
        if everything {
            // After a restart the newest page would look as if it still waited.
            self.hint(life.number, life.acknowledged)?;
        }
        Ok(false)
    }

    /// Writes down which life is being delivered, and up to where it is acknowledged.
    fn hint(&self, life: u32, acknowledged: u64) -> Result<(), StoreError> {
        let value = encode_acknowledged(life, acknowledged);
        if self.store.get(life::ACKNOWLEDGED)?.as_deref() != Some(&value) {
            self.store.put(life::ACKNOWLEDGED, &value)?;
        }
        Ok(())
    }

    /// Deletes acknowledged pages of a life, `all` of them or all but the newest: up to [`DELETED_AT_ONCE`], beginning with
    /// `oldest`. Returns where the next ones begin, if there are more.
    fn delete(&self, life: &Life, oldest: u64, newest: u64, all: bool) -> Result<Option<u64>, StoreError> {
        let mut oldest_left = oldest;
        let mut doomed = Doomed { keep_keys: !self.keys().is_empty(), ..Doomed::default() };
        let mut more = None;
        let end = if all { u64::MAX } else { newest };
        let through = life.acknowledged;
        let mut former: Option<(Vec<u8>, Vec<u8>)> = None;
        let from = page_key(life.number, oldest);
        for entry in self.store.range(&from, &page_key(life.number, end.min(through).saturating_add(2))) {
            let (key, value) = entry?;
            let first = first_in(&key)?;
            // A page ends before the next one begins.
            if let Some((key, value)) = former.take()
                && first - 1 <= through
            {
                doomed.add(key, &value);
                oldest_left = first;
                if doomed.pages.len() == DELETED_AT_ONCE {
                    more = Some(first);
                    break;
                }
            }
            former = Some((key, value));
        }
        if all && let Some((key, value)) = former {
            doomed.add(key, &value);
            oldest_left = life.next;
        }
        {
            // From here on nobody is told that these are still here.
            let mut state = self.state();
            let now = state.life_mut(life.number).expect("only the committer takes epochs away");
            debug_assert!(now.acknowledged >= through, "only the committer takes an acknowledgement back");
            now.bytes -= doomed.bytes;
            now.oldest_first = (oldest_left < life.next).then_some(oldest_left);
        }
        let running_s = self.running_s();
        for (epoch, keys) in doomed.keys {
            self.keys().acknowledged(&self.store, epoch, keys, running_s)?;
        }
        for key in doomed.pages {
            self.store.remove(&key)?;
        }
        Ok(more)
    }

    pub(in crate::messaging::outbox) fn acknowledge(&self, life: u32, through: u64) {
        let mut state = self.state();
        // A reply may speak of an epoch that was delivered or moved meanwhile.
        if let Some(life) = state.life_mut(life) {
            assert!(through < life.next, "the sender settles only what it was given");
            life.acknowledged = life.acknowledged.max(through);
        }
    }

    /// The receiver has less than it once acknowledged: what is still here waits again, after a restart too, and is on disk
    /// as such when this returns. Called by the committer only, so that no sweep is under way.
    pub(in crate::messaging::outbox) fn unacknowledge(&self, life: u32, mark: u64) -> Result<(), StoreError> {
        let acknowledged = {
            let mut state = self.state();
            let Some(life) = state.life_mut(life) else { return Ok(()) };
            life.acknowledged = life.acknowledged.min(mark.max(life.oldest() - 1));
            life.acknowledged
        };
        // An opening believes the hint and the note: neither may go on telling what was taken back.
        let hint = self.store.get(life::ACKNOWLEDGED)?;
        if hint
            .and_then(|hint| life::decode_acknowledged(&hint))
            .is_some_and(|(number, through)| number == life && through > acknowledged)
        {
            self.store.put(life::ACKNOWLEDGED, &encode_acknowledged(life, acknowledged))?;
            self.store.flush()?;
        }
        self.note();
        Ok(())
    }
}
