//! The changes made by applying records that are not written yet, and reads that take them into account.

use super::aged::AgedChanges;
use super::billing::BillingChanges;
use super::chains::{HEAD_PAGES, walk};
use super::codec::{LastPage, damaged};
use super::curves::CurveChanges;
use super::decisions::DecisionChanges;
use super::pages::{self, Readings, ReadingsOf, Slot, SlotAddress, SlotChange};
use super::unwritten::Unwritten;
use crate::messaging::SiteName;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// How many changes of pages may wait: four megabytes.
const WAITING_MAX: usize = 1 << 15;

/// What changed since the view was last written. Everything in it goes into one batch, with the position reached.
#[derive(Debug)]
pub struct ViewChanges {
    pub(super) store: Store,
    pub(super) garages: BTreeSet<SiteName>,
    pub(super) openings: BTreeSet<SiteName>,
    pub(super) missing_ranges: BTreeSet<u64>,
    pub(super) damages: BTreeSet<u64>,
    pub(super) quarantine: BTreeSet<u64>,
    pub(super) decisions: DecisionChanges,
    pub(super) billing: BillingChanges,
    pub(super) curves: CurveChanges,
    pub(super) heads: BTreeSet<u16>,
    pub(super) maps: BTreeSet<(u32, u32)>,
    pub(super) aged: AgedChanges,
    pages: BTreeMap<(u32, u32), Pending>,
    waiting: usize,
    /// The plates corrected last in parts of ledger pages.
    pub(super) readings: Unwritten<Readings>,
    last_read: LastPage<(u32, u32), Slot>,
}

/// The changes of a page that wait. The page is read when it is written, or when a chain leads into it before that.
#[derive(Debug)]
enum Pending {
    Changes(Vec<(u8, SlotChange)>),
    Whole(Vec<Slot>),
}

fn misfit(garage: u32, page: u32) -> StoreError {
    damaged(&pages::page_key(garage, page))
}

impl ViewChanges {
    pub fn on(store: &Store) -> ViewChanges {
        ViewChanges {
            store: store.clone(),
            garages: BTreeSet::new(),
            openings: BTreeSet::new(),
            missing_ranges: BTreeSet::new(),
            damages: BTreeSet::new(),
            quarantine: BTreeSet::new(),
            decisions: DecisionChanges::default(),
            billing: BillingChanges::on(store),
            curves: CurveChanges::on(store),
            heads: BTreeSet::new(),
            maps: BTreeSet::new(),
            aged: AgedChanges::on(store),
            pages: BTreeMap::new(),
            waiting: 0,
            readings: Unwritten::on(store),
            last_read: LastPage::default(),
        }
    }

    /// Whether this many further writes still fit into the batch, and into memory. What one record adds
    /// always does: see [`View::save`](super::View::save).
    pub fn have_room_for(&self, more: usize) -> bool {
        let writes = self.garages.len()
            + self.openings.len()
            + self.missing_ranges.len()
            + self.damages.len()
            + self.quarantine.len()
            + self.maps.len()
            + self.aged.writes()
            + self.decisions.writes()
            + self.billing.writes()
            + self.curves.writes();
        let position = 1;
        self.waiting < WAITING_MAX
            && writes + self.pages.len() + self.readings.writes() + HEAD_PAGES + position + more <= BATCH_MAX
    }

    /// Changes a slot; one that is appended is the next of its page.
    pub(super) fn change(&mut self, address: SlotAddress, change: SlotChange) -> Result<(), StoreError> {
        let SlotAddress { garage, page, slot } = address;
        let pending = self.pages.entry((garage, page)).or_insert_with(|| Pending::Changes(Vec::new()));
        match pending {
            Pending::Changes(changes) => {
                changes.push((slot, change));
                self.waiting += 1;
            }
            Pending::Whole(slots) => {
                pages::make(slots, slot, &change).ok_or_else(|| misfit(garage, page))?;
            }
        }
        self.last_read.forget();
        Ok(())
    }

    pub(super) fn slot(&mut self, address: SlotAddress) -> Result<&Slot, StoreError> {
        let slots = self.slots(address.garage, address.page)?;
        slots.get(usize::from(address.slot)).ok_or_else(|| misfit(address.garage, address.page))
    }

    /// The slots of a page as they are now, written or not.
    pub(super) fn slots(&mut self, garage: u32, page: u32) -> Result<&[Slot], StoreError> {
        let Some(pending) = self.pages.get_mut(&(garage, page)) else {
            return self.last_read.get((garage, page), || pages::read_page(&self.store, garage, page));
        };
        if let Pending::Changes(changes) = pending {
            let mut slots = pages::read_page(&self.store, garage, page)?;
            for (slot, change) in changes {
                pages::make(&mut slots, *slot, change).ok_or_else(|| misfit(garage, page))?;
            }
            *pending = Pending::Whole(slots);
        }
        match pending {
            Pending::Whole(slots) => Ok(slots),
            Pending::Changes(_) => unreachable!("it was made whole"),
        }
    }

    /// What `read` takes from the slots of a chain, from `newest` on; those of other plates with the same hash are among them.
    pub(super) fn chain<T>(
        &mut self,
        newest: Option<SlotAddress>,
        mut read: impl FnMut(&Slot) -> T,
    ) -> impl Iterator<Item = Result<(SlotAddress, T), StoreError>> {
        walk(newest, move |address| {
            let slot = self.slot(address)?;
            Ok((read(slot), slot.previous))
        })
    }

    pub(super) fn reading(&self, of: ReadingsOf, place: u8) -> Result<Option<SmolStr>, StoreError> {
        Ok(self.readings.get(&pages::readings_key(of))?.and_then(|mut readings| readings.remove(&place)))
    }

    /// Puts the pages and readings into `batch`, and removes them from the changes.
    pub(super) fn drain_pages(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        self.last_read.forget();
        self.waiting = 0;
        for ((garage, page), pending) in std::mem::take(&mut self.pages) {
            let key = pages::page_key(garage, page);
            let value = match pending {
                Pending::Whole(slots) => pages::encode_page(&slots),
                Pending::Changes(changes) => {
                    let before = self.store.get(&key)?;
                    let after = pages::change_page(before.as_deref(), &changes);
                    after.ok_or_else(|| misfit(garage, page))?
                }
            };
            batch.put(key, value);
        }
        self.readings.drain(batch);
        Ok(())
    }
}
