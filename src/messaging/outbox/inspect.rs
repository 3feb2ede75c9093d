//! Inspecting an outbox page by page, without changing anything.

use super::super::page::{Content, Page, SealedPage};
use super::super::{Digest, Epoch};
use super::OutboxDamage;
use super::layout::{EpochIndex, page_key};
use crate::store::{Store, StoreError};
use serde::Serialize;

/// What an inspection found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub epochs: u64,
    pub pages: u64,
    /// Messages stored, among them acknowledged ones that are not deleted yet.
    pub messages: u64,
    pub waiting: u64,
    /// Idempotency keys that are remembered.
    pub keys: u64,
    /// Number of lost messages, as recorded in pages for the receiver.
    pub lost: u64,
    /// Pages that were kept aside because they could not be read.
    pub kept_aside: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
}

/// The pages of an epoch that begin before the sequence `end`.
pub(super) struct EpochPages {
    pub epoch_index: EpochIndex,
    pub epoch: Epoch,
    pub end: u64,
}

/// Checks that each page can be read, begins where the one before it ends, and names it. Pages missing up to the current
/// `acknowledged` are no fault: they were delivered and are being deleted.
pub(super) fn inspect_pages(
    store: &Store,
    pages: &EpochPages,
    acknowledged: impl Fn() -> u64,
    found: &mut Inspection,
) -> Result<(), StoreError> {
    found.epochs += 1;
    let mut before: Option<(u64, Option<Digest>)> = None;
    for entry in store.range(&page_key(pages.epoch_index, 0), &page_key(pages.epoch_index, pages.end)) {
        let (key, value) = entry?;
        let fault =
            |what: String| format!("epoch {}, page {:02x?}: {what}", pages.epoch, &key[5.min(key.len())..]);
        let sealed = SealedPage::from_stored(&value);
        let page = match sealed.as_ref().map_err(Clone::clone).and_then(SealedPage::open) {
            Ok(page) => page,
            Err(error) => {
                found.faults.push(fault(format!("it cannot be read: {error}. The next start of the edge keeps it aside, and tells the server that its events are lost")));
                before = None;
                continue;
            }
        };
        found.pages += 1;
        let swept =
            before.is_some_and(|(due, _)| due < page.first.get() && page.first.get() <= acknowledged() + 1);
        if swept {
            before = None;
        }
        if let Some(wrong) = wrong(&page, pages.epoch, before) {
            found.faults.push(fault(wrong));
        }
        match &page.content {
            Content::Records(records) => found.messages += records.len() as u64,
            Content::Lost { .. } => found.lost += page.count(),
        }
        // The page after one that was lost names what it was.
        let digest = match page.content {
            Content::Records(_) => sealed.ok().map(|sealed| sealed.digest),
            Content::Lost { .. } => None,
        };
        before = Some((page.last() + 1, digest));
    }
    Ok(())
}

fn wrong(page: &Page, epoch: Epoch, before: Option<(u64, Option<Digest>)>) -> Option<String> {
    if page.epoch != epoch {
        return Some(format!("it belongs to epoch {}", page.epoch));
    }
    let (due, digest) = before?;
    if page.first.get() != due {
        return Some(format!("it begins with sequence {}, and {due} is due", page.first));
    }
    match (page.previous, digest) {
        (Some(previous), Some(digest)) if previous != digest => {
            Some("it names another page as the one before it".into())
        }
        _ => None,
    }
}

/// The number of pages that are kept aside.
pub(super) fn kept_aside(store: &Store) -> Result<u64, StoreError> {
    store.range(b"d", b"e").try_fold(0, |count, entry| entry.map(|_| count + 1))
}

/// The damage found at opening, as faults.
pub(super) fn faults_of(damages: &[OutboxDamage]) -> impl Iterator<Item = String> + '_ {
    damages.iter().map(|damage| {
        format!(
            "epoch {}, sequences {} to {}: {}. They were confirmed and cannot be read; what was found is kept, and the server records them as missing",
            damage.epoch, damage.first, damage.last, damage.reason
        )
    })
}
