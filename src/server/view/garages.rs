//! What the views keep in memory of each garage, and of what could not be applied.

use super::decisions::GarageDecisions;
use super::openings::GarageOpening;
use super::pages::{PAGE_MAX, SLOTS_MAX, SlotAddress, StoredPassage};
use crate::codes;
use crate::messaging::page::RECORDS_MAX;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Occupancy;
use crate::parking::garage::is_full;
use crate::parking::occupancy::free_spaces;
use crate::parking::stay::{End, Visit};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarageState {
    /// The capacity that an operator set, else the one that the edge reported.
    pub capacity: u32,
    pub told_capacity: u32,
    pub occupancy: Occupancy,
    pub events: u64,
    pub as_of_ms: Option<i64>,
    pub changed_at: u64,
    pub through: Option<(Epoch, u64)>,
    pub stays: GarageStays,
    pub decisions: GarageDecisions,
    /// Stored under a key of its own.
    #[serde(skip)]
    pub opening: GarageOpening,
}

impl GarageState {
    /// How many cars are inside; unknown before its first event is applied.
    pub fn known_occupied(&self) -> Option<i64> {
        (self.events > 0).then_some(self.occupancy.occupied)
    }

    /// How many spaces it has; unknown until an operator or its edge says so.
    pub fn known_capacity(&self) -> Option<u32> {
        (self.capacity > 0 || self.decisions.capacity.is_some()).then_some(self.capacity)
    }

    pub(super) fn was_told(&mut self, name: &SiteName, (capacity, at_ms): (u32, i64)) {
        self.told_capacity = capacity;
        self.capacity = self.decisions.capacity.unwrap_or(capacity);
        if self.capacity != capacity {
            tracing::info!(garage = %name, told = capacity, stands = self.capacity, "an edge reports a capacity that differs from the one an operator set; the operator's is used");
        }
        self.look_whether_full(at_ms);
    }

    /// Its count or its capacity may have changed at this time.
    pub(super) fn look_whether_full(&mut self, at_ms: i64) {
        let (since, occupied) = (self.opening.full_since_ms, self.occupancy.occupied);
        let is_full_at = |capacity| is_full(since.is_some(), capacity, free_spaces(capacity, occupied));
        let full = self.known_capacity().is_some_and(is_full_at);
        self.opening.full_since_ms = full.then(|| since.unwrap_or(at_ms));
    }

    /// Counts events that came; a decommissioned garage should send none.
    pub(super) fn counted(&mut self, name: &SiteName, events: u64) {
        if let Some(since) = &mut self.decisions.decommissioned {
            if since.events_since == 0 {
                tracing::warn!(
                    code = %codes::GARAGE_DECOMMISSIONED,
                    garage = %name,
                    hint = "if it is in use again: server garages decommission NAME --undo",
                    "events of a decommissioned garage are applied and counted like any others"
                );
            }
            since.events_since += events;
        }
    }

    pub fn is_shown(&self) -> bool {
        self.decisions.decommissioned.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingRange {
    pub garage: SiteName,
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub reason: String,
    /// When the ledger recorded the range; `None` for events that were received, and cannot be read any more.
    pub received_at_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerDamage {
    pub from: u64,
    pub last: u64,
    pub reason: String,
    pub found_at_ms: Option<i64>,
}

/// Events of one page that were accepted and cannot be applied. Their bytes are in the ledger. Kept by page, because a
/// garage with a newer program may send very many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedPage {
    pub garage: SiteName,
    pub epoch: Epoch,
    pub first: u64,
    /// Bit n: the n-th event of the page.
    pub(super) events: u64,
    /// Why the first of them cannot be applied.
    pub reason: String,
    pub received_at_ms: i64,
}

const _: () = assert!(RECORDS_MAX <= 64, "a bit for each event of a page");

impl QuarantinedPage {
    pub fn count(&self) -> u32 {
        self.events.count_ones()
    }

    pub fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let events = self.events;
        (0..64).filter(move |place| events >> place & 1 == 1)
    }
}

#[cfg(test)]
thread_local! {
    /// Pages may be packed in other ways: no record depends on it.
    pub static SLOTS_OF_A_PAGE: std::cell::Cell<u8> = const { std::cell::Cell::new(SLOTS_MAX) };
}

/// Counts of one garage's visits, and where the next one is put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarageStays {
    /// The number of the garage, in the order in which garages were first seen.
    pub number: u32,
    page: u32,
    slots: u8,
    /// What the slots of the page reserve.
    bytes: u32,
    pub counts: StayCounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StayCounts {
    /// Stays of cars that are inside.
    pub open: u64,
    /// Stays with an exit.
    pub closed: u64,
    /// Stays whose exit nobody saw.
    pub exits_missed: u64,
    /// Exits without an entry.
    pub exits_unmatched: u64,
}

impl GarageStays {
    pub(super) fn of_garage(number: u32) -> GarageStays {
        GarageStays { number, ..GarageStays::default() }
    }

    /// The newest page of its visits.
    pub(super) fn newest_page(&self) -> u32 {
        self.page
    }

    /// Where the next visit is put, which reserves this many bytes of its page.
    pub(super) fn next_address(&mut self, reserve: usize) -> SlotAddress {
        #[cfg(test)]
        let slots_max = SLOTS_OF_A_PAGE.get();
        #[cfg(not(test))]
        let slots_max = SLOTS_MAX;
        if self.bytes as usize + reserve > PAGE_MAX || self.slots == slots_max {
            (self.page, self.slots, self.bytes) = (self.page + 1, 0, 0);
        }
        let address = SlotAddress { garage: self.number, page: self.page, slot: self.slots };
        self.bytes += u32::try_from(reserve).expect("a plate is short");
        self.slots += 1;
        address
    }

    pub(super) fn count(&mut self, visit: &Visit<StoredPassage>) -> &mut u64 {
        match visit {
            Visit::Stay { end: End::Inside, .. } => &mut self.counts.open,
            Visit::Stay { end: End::Left(_), .. } => &mut self.counts.closed,
            Visit::Stay { end: End::Unseen, .. } => &mut self.counts.exits_missed,
            Visit::Exit(_) => &mut self.counts.exits_unmatched,
        }
    }
}
