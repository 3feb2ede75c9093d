//! Lists stays: they are read from the pages as last written, newest first within a garage.
//!
//! **Promise.** A list reads what it shows and little else: one plate's chain, one garage's pages, or the pages in which a car is
//! inside. A list that is read to its end shows once each stay that existed during the whole reading, and each answer shows one
//! position. No answer reads more than [`LOOK_AT`] slots or pages: it returns what it has found, and a cursor to continue from.
//! **Not promised.** That a whole list shows one moment: a stay that ends or is corrected meanwhile is shown as it is when it is
//! read.

use super::aged;
use super::chains::{ChainHeads, PlateChain};
use super::changes::ViewChanges;
use super::codec::{damaged, sized, u32_from};
use super::page_maps::{AGED, OCCUPIED, mapped_pages};
use super::pages::{Slot, SlotAddress, StoredPassage, page_key};
use super::written::at_one_position;
use crate::parking::Plate;
use crate::parking::stay::{End, Visit};
use crate::store::{Store, StoreError};
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Maximum number of slots of a plate's chain, or of pages of garages, that one answer looks at.
const LOOK_AT: usize = 4_000;

/// What to list. `None` filters nothing.
#[derive(Debug, Clone)]
pub struct StayFilter {
    pub plate: Option<Plate>,
    pub garage: Option<u32>,
    /// Stays of cars that are inside, or all others.
    pub open: Option<bool>,
    pub after: Option<SlotAddress>,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedStay {
    pub address: SlotAddress,
    pub plate: SmolStr,
    pub entry: StoredPassage,
    pub end: End<StoredPassage>,
}

#[derive(Debug, Default)]
pub struct StayList {
    pub stays: Vec<ListedStay>,
    /// Where to continue; `None` at the end.
    pub next: Option<SlotAddress>,
}

/// Lists stays: of one plate newest first; else garage by garage in the order in which they were first seen, newest first.
/// A stay that a corrected plate changed counts as new.
/// Gives the position that they show. While `saving` is held the views are not written.
pub fn list(
    store: &Store,
    saving: Option<&Mutex<()>>,
    wanted: &StayFilter,
) -> Result<(u64, StayList), StoreError> {
    at_one_position(store, saving, || list_now(store, wanted, LOOK_AT))
}

fn list_now(store: &Store, wanted: &StayFilter, look_at: usize) -> Result<StayList, StoreError> {
    let list = StayList::default();
    let mut search = StaySearch { wanted, pages: ViewChanges::on(store), look_at, list };
    match &wanted.plate {
        Some(plate) => search.of_plate(plate)?,
        None => search.of_garages()?,
    }
    Ok(search.list)
}

struct StaySearch<'a> {
    wanted: &'a StayFilter,
    /// Without any change: the pages as they were written last.
    pages: ViewChanges,
    look_at: usize,
    list: StayList,
}

impl StaySearch<'_> {
    fn of_plate(&mut self, plate: &Plate) -> Result<(), StoreError> {
        let newest = match self.wanted.after {
            // A cursor that no answer gave leads nowhere.
            Some(after) => {
                let slots = self.pages.slots(after.garage, after.page)?;
                slots.get(usize::from(after.slot)).and_then(|slot| slot.previous)
            }
            None => ChainHeads::read(&self.pages.store, PlateChain::of(plate))?,
        };
        let mut last = None;
        for (looked_at, found) in self.pages.chain(newest, Slot::clone).enumerate() {
            let (address, slot) = found?;
            // A chain is of all plates with one hash: a list can continue from a slot of another plate as well.
            if looked_at == self.look_at {
                self.list.next = last;
                break;
            }
            if !add(self.wanted, &mut self.list, address, &slot) {
                break;
            }
            last = Some(address);
        }
        Ok(())
    }

    /// The next garage, from number `from` to `to` (exclusive), that has pages, or in which a car is inside.
    fn next_garage(&self, from: u32, to: u32) -> Result<Option<u32>, StoreError> {
        if self.wanted.open == Some(true) {
            return aged::next_garage(&self.pages.store, from, to);
        }
        let next = self.pages.store.range(&page_key(from, 0), &page_key(to, 0)).next().transpose()?;
        next.map(|(key, _)| sized(&key, 2..6).map(u32::from_be_bytes)).transpose()
    }

    /// The pages of a garage that may hold what is wanted, the newest first.
    fn pages_of(&self, garage: u32) -> Result<Box<dyn Iterator<Item = u32>>, StoreError> {
        let (store, next) = (&self.pages.store, garage.saturating_add(1));
        if self.wanted.open == Some(true) {
            let mut occupied = mapped_pages(store, OCCUPIED, garage, next)?;
            occupied.extend(mapped_pages(store, AGED, garage, next)?);
            let occupied: BTreeSet<u32> = occupied.into_iter().map(|(_, page)| page).collect();
            return Ok(Box::new(occupied.into_iter().rev()));
        }
        let newest = store.last(&page_key(garage, 0), &page_key(next, 0))?;
        let newest = newest.map_or(Ok(0), |(key, _)| u32_from(&key, 6))?;
        Ok(Box::new((0..=newest).rev()))
    }

    fn of_garages(&mut self) -> Result<(), StoreError> {
        // Beginning with the garage in which the previous list ended.
        let from = self.wanted.after.map_or(0, |after| after.garage);
        let (mut from, to) = match self.wanted.garage {
            Some(garage) => (from.max(garage), garage.saturating_add(1)),
            None => (from, u32::MAX),
        };
        // One garage after the other: all of them together have too many pages.
        while let Some(garage) = self.next_garage(from, to)? {
            let after = self.wanted.after.filter(|after| after.garage == garage);
            // After the first slot of a page comes the page before it.
            let is_done = |page: u32| after.is_some_and(|after| (page, 0) >= (after.page, after.slot));
            for page in self.pages_of(garage)?.skip_while(|page| is_done(*page)) {
                if self.look_at == 0 {
                    // Behind the whole page before.
                    self.list.next = Some(SlotAddress { garage, page: page.saturating_add(1), slot: 0 });
                    return Ok(());
                }
                self.look_at -= 1;
                if !self.add_page(garage, page)? {
                    return Ok(());
                }
            }
            from = garage.saturating_add(1);
        }
        Ok(())
    }

    /// Adds the stays of a page that an earlier answer did not have. `false`: the list is full.
    fn add_page(&mut self, garage: u32, page: u32) -> Result<bool, StoreError> {
        let known = self.wanted.after.filter(|after| (after.garage, after.page) == (garage, page));
        for (slot, its) in self.pages.slots(garage, page)?.iter().enumerate().rev() {
            let slot = u8::try_from(slot).map_err(|_| damaged(&page_key(garage, page)))?;
            if known.is_some_and(|after| slot >= after.slot) {
                continue;
            }
            if !add(self.wanted, &mut self.list, SlotAddress { garage, page, slot }, its) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn add(wanted: &StayFilter, list: &mut StayList, address: SlotAddress, slot: &Slot) -> bool {
    let Some((plate, Visit::Stay { entry, end })) = &slot.visit else {
        return true;
    };
    if wanted.plate.as_ref().is_some_and(|wanted| *wanted.as_str() != **plate)
        || wanted.garage.is_some_and(|garage| garage != address.garage)
        || wanted.open.is_some_and(|open| open != slot.is_inside())
    {
        return true;
    }
    if list.stays.len() == wanted.limit {
        list.next = list.stays.last().map(|stay| stay.address);
        return false;
    }
    list.stays.push(ListedStay { address, plate: plate.clone(), entry: *entry, end: end.clone() });
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::view::View;
    use crate::server::view::tests::{apply, apply_ledger, event, page_after, world};

    /// A filter that finds nothing read everything there was before it said so.
    #[test]
    fn a_list_reads_little_at_a_time_and_finds_all_in_the_end() {
        let (_, store, ledger) = world();
        let mut first = 1;
        for n in 0..40 {
            let events: Vec<Vec<u8>> = (0..60)
                .map(|car| {
                    let kind = if car % 2 == 0 { "entry" } else { "exit" };
                    let plate =
                        if (n, car) == (3, 0) || (n, car) == (3, 1) { 1 } else { 100 + n * 30 + car / 2 };
                    event(&format!(r#"{{"kind":"{kind}","plate":"AB{plate}"}}"#))
                })
                .collect();
            apply(&ledger, "a", vec![page_after(first, &events)]);
            first += events.len() as u64;
        }
        let mut view = View::default();
        let mut changes = apply_ledger(&mut view, &ledger, &store);
        view.save(&mut changes).unwrap();
        let all = StayFilter { plate: None, garage: None, open: None, after: None, limit: 1000 };
        let one = StayFilter { plate: Some(Plate::new("AB1").unwrap()), ..all.clone() };
        let none = StayFilter { open: Some(true), garage: Some(0), ..all.clone() };
        let closed = StayFilter { open: Some(false), limit: 7, ..all.clone() };
        for (wanted, stays) in [(all, 1200), (one, 1), (none, 0), (closed, 1200)] {
            for look_at in [1, 2, 5, usize::MAX] {
                let (mut wanted, mut found) = (wanted.clone(), Vec::new());
                loop {
                    let list = list_now(&store, &wanted, look_at).unwrap();
                    found.extend(list.stays.into_iter().map(|stay| stay.address));
                    let Some(next) = list.next else { break };
                    assert_ne!(wanted.after, Some(next), "each answer goes on");
                    wanted.after = Some(next);
                }
                assert_eq!(found.len(), stays, "{wanted:?} {look_at}");
                found.sort();
                found.dedup();
                assert_eq!(found.len(), stays, "each once");
            }
        }
    }
}
