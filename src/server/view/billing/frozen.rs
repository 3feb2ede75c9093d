//! What is kept of visits whose plates were forgotten. Without the plate nothing says who pays or which contract covers a stay, so that
//! is kept as it was, and its draft with it.
//!
//! | key | value |
//! | --- | --- |
//! | `vbz` + slot: garage (u32), page (u32), slot (u8) | a [`FrozenStay`] |
//! | `vby` + account + 0 (u8) + slot | nothing: the account pays the stay there |
//! | `vbt` + stream (u32) + sequence (u64), and time (u64) of an event that was made | the slot of the visit with this event |

use super::super::codec::{damaged, sized};
use super::super::pages::SlotAddress;
use super::super::unwritten::Unwritten;
use super::draft::Draft;
use super::issued::ExitId;
use super::places::Place;
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};

/// What is kept of a stay. Of one whose exit nobody saw, the draft says what it would be if it had no length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenStay {
    pub draft: Draft,
    /// In the contract of the draft.
    pub place: Place,
}

fn slot(prefix: &[u8], address: SlotAddress) -> Vec<u8> {
    let SlotAddress { garage, page, slot } = address;
    [prefix, &garage.to_be_bytes(), &page.to_be_bytes(), &[slot]].concat()
}

fn of_account(account: &str) -> Vec<u8> {
    [b"vby", account.as_bytes(), &[0]].concat()
}

fn event_key(event: ExitId) -> Vec<u8> {
    let mut key = [b"vbt", &event.stream.to_be_bytes()[..], &event.sequence.to_be_bytes()].concat();
    key.extend(event.made_at_ms.iter().flat_map(|at_ms| at_ms.to_be_bytes()));
    key
}

#[derive(Debug)]
pub struct FrozenStays {
    stays: Unwritten<FrozenStay>,
    of_accounts: Unwritten<()>,
    events: Unwritten<SlotAddress>,
}

impl FrozenStays {
    pub fn on(store: &Store) -> FrozenStays {
        let (stays, of_accounts) = (Unwritten::on(store), Unwritten::on(store));
        FrozenStays { stays, of_accounts, events: Unwritten::on(store) }
    }

    pub fn writes(&self) -> usize {
        self.stays.writes() + self.of_accounts.writes() + self.events.writes()
    }

    pub fn get(&self, address: SlotAddress) -> Result<Option<FrozenStay>, StoreError> {
        self.stays.get(&slot(b"vbz", address))
    }

    /// The slot of the forgotten visit with an event.
    pub fn slot_of(&self, event: ExitId) -> Result<Option<SlotAddress>, StoreError> {
        self.events.get(&event_key(event))
    }

    pub fn put(&mut self, address: SlotAddress, stay: Option<FrozenStay>) -> Result<(), StoreError> {
        // The account of a stay never changes.
        let account = match &stay {
            Some(stay) => Some(stay.draft.account.clone()),
            None => self.get(address)?.map(|stay| stay.draft.account),
        };
        if let Some(account) = account {
            self.of_accounts.put(slot(&of_account(&account), address), stay.as_ref().map(|_| ()));
        }
        self.stays.put(slot(b"vbz", address), stay);
        Ok(())
    }

    pub fn put_event(&mut self, event: ExitId, slot: Option<SlotAddress>) {
        self.events.put(event_key(event), slot);
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        self.stays.drain(batch);
        self.of_accounts.drain(batch);
        self.events.drain(batch);
    }
}

/// The stays of an account whose plates were forgotten, after a slot.
pub fn slots_of(
    store: &Store,
    account: &str,
    after: Option<SlotAddress>,
) -> impl Iterator<Item = Result<SlotAddress, StoreError>> {
    let prefix = of_account(account);
    let from = after.map_or(prefix.clone(), |after| [&slot(&prefix, after)[..], &[0]].concat());
    let to = [&prefix[..prefix.len() - 1], &[1]].concat();
    store.range(&from, &to).map(|entry| {
        let (key, _) = entry?;
        let at = key.len().checked_sub(9).ok_or_else(|| damaged(&key))?;
        let garage = u32::from_be_bytes(sized(&key, at..at + 4)?);
        let page = u32::from_be_bytes(sized(&key, at + 4..at + 8)?);
        Ok(SlotAddress { garage, page, slot: key[at + 8] })
    })
}
