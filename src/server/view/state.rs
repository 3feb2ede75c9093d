//! The state of the views: what readers see at one position, and what only the applying of records needs.
//!
//! **Promise.** A snapshot never changes, and all that it shows is of one position. Taking one costs next to nothing. Readers
//! do not wait for the thread that applies records, nor that thread for readers.
//! **Kept by.** It is made of [`SharedMap`]s: the thread continues with its own copy, and copies only the parts that it changes
//! (copy-on-write).
//! **Not promised.** Stays, charges and anomalies: they are not in a snapshot, but read from the store as last written.

use super::SharedMap;
use super::billing::{Billing, ShownBooks};
use super::changes::ViewChanges;
use super::curves::Curves;
use super::decisions::Decisions;
use super::garages::{GarageState, LedgerDamage, MissingRange, QuarantinedPage};
use super::stays::StayIndex;
use crate::messaging::SiteName;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct VisibleState {
    pub position: u64,
    /// Each under its key: see [`decisions`](super::decisions).
    pub garages: SharedMap<SiteName, GarageState>,
    keys: SharedMap<u32, SiteName>,
    /// The keys of the garages by the position that changed each last, and its number.
    changed: SharedMap<(u64, u32), SiteName>,
    missing_ranges: SharedMap<u64, MissingRange>,
    missing_ranges_of: SharedMap<SiteName, SiteMissingRanges>,
    pub damages: SharedMap<u64, LedgerDamage>,
    pub quarantine: SharedMap<u64, QuarantinedPage>,
    pub decisions: Decisions,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct SiteMissingRanges {
    positions: SharedMap<u64, ()>,
    events: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub(super) shown: VisibleState,
    pub billing: ShownBooks,
}

impl Deref for Snapshot {
    type Target = VisibleState;
    fn deref(&self) -> &VisibleState {
        &self.shown
    }
}

impl VisibleState {
    pub(super) fn put_garage(&mut self, key: SiteName, garage: GarageState) {
        let number = garage.stays.number;
        self.keys.insert_mut(number, key.clone());
        self.changed.insert_mut((garage.changed_at, number), key.clone());
        self.garages.insert_mut(key, garage);
    }

    /// Notes that the record at `position` changed a garage: boards then report it to edges whose board is older.
    pub(super) fn garage_changed(&mut self, key: &SiteName, position: u64) {
        let Some(garage) = self.garages.get_mut(key) else { return };
        let before = std::mem::replace(&mut garage.changed_at, position);
        let number = garage.stays.number;
        self.changed.remove_mut(&(before, number));
        self.changed.insert_mut((position, number), key.clone());
    }

    /// The garages that were changed after `position`, with their keys, in the order in which each was changed last; all of them
    /// for `None`.
    pub fn changed_since(&self, position: Option<u64>) -> impl Iterator<Item = (&SiteName, &GarageState)> {
        let from = position.map_or(0, |position| position.saturating_add(1));
        let changed = self.changed.range((from, 0)..);
        changed.filter_map(|(_, key)| Some((key, self.garages.get(key)?)))
    }

    pub fn key_of_number(&self, number: u32) -> Option<&SiteName> {
        self.keys.get(&number)
    }

    /// What the garage of this number is called; nothing for one that is not known.
    pub fn name_of_number(&self, number: u32) -> String {
        self.key_of_number(number).map(|key| self.name_of(key).to_string()).unwrap_or_default()
    }

    /// The number of the garage whose events come under a name; `None` for what is no name, and for one that is not known.
    pub fn number_of(&self, name: &str) -> Option<u32> {
        let site = SiteName::new(name).ok()?;
        Some(self.garages.get(self.key_of(&site))?.stays.number)
    }

    pub(super) fn put_missing_range(&mut self, position: u64, range: MissingRange) {
        let mut of_site = self.missing_ranges_of.get(&range.garage).cloned().unwrap_or_default();
        of_site.positions.insert_mut(position, ());
        let events = range.last.saturating_sub(range.first).saturating_add(1);
        of_site.events = of_site.events.saturating_add(events);
        self.missing_ranges_of.insert_mut(range.garage.clone(), of_site);
        self.missing_ranges.insert_mut(position, range);
    }

    pub fn missing_ranges(&self) -> &SharedMap<u64, MissingRange> {
        &self.missing_ranges
    }

    /// The number of missing ranges of the garage with this key, the number of events in all of them, and the first ranges.
    pub fn missing_ranges_of(&self, key: &SiteName, at_most: usize) -> (usize, u64, Vec<&MissingRange>) {
        let sites = self.sites_of(key);
        let of_sites: Vec<_> = sites.iter().filter_map(|site| self.missing_ranges_of.get(site)).collect();
        let count = of_sites.iter().map(|of_site| of_site.positions.size()).sum();
        let events = of_sites.iter().map(|of_site| of_site.events).fold(0, u64::saturating_add);
        let firsts = of_sites.iter().flat_map(|of_site| of_site.positions.keys().take(at_most));
        let firsts: BTreeMap<u64, &MissingRange> =
            firsts.filter_map(|position| Some((*position, self.missing_ranges.get(position)?))).collect();
        (count, events, firsts.into_values().take(at_most).collect())
    }

    /// The events that wait in quarantine after a position and a place in the page there, each with its position and place,
    /// oldest first.
    pub fn waiting_events(
        &self,
        after: Option<(u64, usize)>,
    ) -> impl Iterator<Item = (u64, usize, &QuarantinedPage)> {
        let pages = self.quarantine.range(after.map_or(0, |(position, _)| position)..);
        let events =
            pages.flat_map(|(position, page)| page.places().map(move |place| (*position, place, page)));
        events.filter(move |(position, place, _)| after.is_none_or(|after| (*position, *place) > after))
    }

    /// The key of the garage whose events come under `site`.
    pub fn key_of<'a>(&'a self, site: &'a SiteName) -> &'a SiteName {
        self.decisions.names.get(site).unwrap_or(site)
    }

    pub fn name_of<'a>(&'a self, key: &'a SiteName) -> &'a SiteName {
        self.garages.get(key).and_then(|garage| garage.decisions.called.as_ref()).unwrap_or(key)
    }

    /// All names under which events of the garage of this key may come.
    pub fn sites_of(&self, key: &SiteName) -> Vec<SiteName> {
        std::iter::once(key).chain(self.decisions.other_names(key)).cloned().collect()
    }
}

/// The views at a position: what readers see, and what only applying further records needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub(super) shown: VisibleState,
    pub billing: Billing,
    pub(super) stays: StayIndex,
    pub(super) curves: Curves,
}

impl Deref for View {
    type Target = VisibleState;
    fn deref(&self) -> &VisibleState {
        &self.shown
    }
}

impl DerefMut for View {
    fn deref_mut(&mut self) -> &mut VisibleState {
        &mut self.shown
    }
}

impl View {
    /// What readers see of it. Nothing is copied but a few pointers.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { shown: self.shown.clone(), billing: (*self.billing).clone() }
    }

    /// How many cars of each garage, by its number, are inside and came before this time. It looks at all cars inside that came
    /// within 30 days.
    pub fn inside_since_before(&self, ms: i64) -> HashMap<u32, u64> {
        let open = self.garages.values().map(|garage| (garage.stays.number, garage.stays.counts.open));
        self.stays.inside_since_before(ms, open)
    }

    /// A garage that is about to change, added where it was never seen; and the stays and the books of money of all garages,
    /// and what operators decided.
    pub(super) fn garage_mut(
        &mut self,
        site: &SiteName,
        changes: &mut ViewChanges,
    ) -> (&mut GarageState, &mut StayIndex, &mut Billing, &Decisions) {
        if !changes.garages.contains(site) {
            changes.garages.insert(site.clone());
        }
        let View { shown, stays, billing, .. } = self;
        if !shown.garages.contains_key(site) {
            let garage = GarageState { stays: stays.begin_garage(), ..GarageState::default() };
            let number = garage.stays.number;
            let others = shown.decisions.other_names(site).to_vec();
            billing.add_garage(number, site.clone(), others, &mut changes.billing);
            let decisions = shown.decisions.events.iter().filter(|((key, ..), _)| key == site);
            changes.billing.wait_for_facts(number, decisions.map(|(_, its)| (its.position, its.at_ms)));
            shown.put_garage(site.clone(), garage);
        }
        let VisibleState { garages, decisions, .. } = shown;
        (garages.get_mut(site).expect("it is there"), stays, billing, decisions)
    }
}
