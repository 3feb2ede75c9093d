//! The drafts of stays whose plates were forgotten. Without the plate nothing says who pays or which contract covers the stay, so the
//! draft is kept as it was.
//!
//! | key | value |
//! | --- | --- |
//! | `vbz` + slot: garage (u32), page (u32), slot (u8) | a [`Draft`] |
//! | `vby` + account + 0 (u8) + slot | nothing: the account has the draft there |

use super::super::codec::{self, damaged, sized};
use super::super::pages::SlotAddress;
use super::draft::Draft;
use crate::store::{Batch, Store, StoreError};

fn slot(prefix: &[u8], address: SlotAddress) -> Vec<u8> {
    let SlotAddress { garage, page, slot } = address;
    [prefix, &garage.to_be_bytes(), &page.to_be_bytes(), &[slot]].concat()
}

fn of_account(account: &str) -> Vec<u8> {
    [b"vby", account.as_bytes(), &[0]].concat()
}

pub fn read(store: &Store, address: SlotAddress) -> Result<Option<Draft>, StoreError> {
    codec::read(store, &slot(b"vbz", address))
}

pub fn put(address: SlotAddress, draft: &Draft, batch: &mut Batch) {
    batch.put(slot(b"vbz", address), codec::encode(draft));
    batch.put(slot(&of_account(&draft.account), address), codec::encode(&()));
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
