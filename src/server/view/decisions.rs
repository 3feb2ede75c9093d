//! What operators' commands changed, apart from the garages and the quarantine themselves.
//!
//! | key | value |
//! | --- | --- |
//! | `vcn` + name | the key of the garage that has this name as well |
//! | `vcr` + position (u64) | why the command there has no effect |
//! | `vcs` | the position that last took a line from the board (u64) |

use super::SharedMap;
use super::codec::{encode, key_u64, name_in, read_range, u64_from};
use super::event_decisions::{self, AllEventDecisions, EventDecision, EventKey};
use crate::messaging::{Epoch, SiteName};
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarageDecisions {
    pub called: Option<SiteName>,
    /// The number of spaces that an operator set: it counts instead of the number that its edge reports.
    pub capacity: Option<u32>,
    pub decommissioned: Option<Decommissioned>,
}

/// A garage that is left out of boards and of the city's numbers. What it sends is applied like anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decommissioned {
    pub position: u64,
    pub events_since: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Other names of garages, and whose they are.
    pub(super) names: SharedMap<SiteName, SiteName>,
    /// The other names of each garage, in their order.
    of_owner: SharedMap<SiteName, Vec<SiteName>>,
    /// The position that last took a line from the board: a change since an earlier version cannot say it.
    reshaped_at: u64,
    without_effect: SharedMap<u64, String>,
    /// What was decided about single events.
    pub events: AllEventDecisions,
}

#[derive(Debug, Default)]
pub(super) struct DecisionChanges {
    names: BTreeSet<SiteName>,
    pub(super) events: BTreeSet<EventKey>,
    reshaped: bool,
    without_effect: BTreeSet<u64>,
}

impl DecisionChanges {
    pub(super) fn writes(&self) -> usize {
        self.names.len() + self.events.len() + self.without_effect.len() + usize::from(self.reshaped)
    }
}

const RESHAPED: &[u8] = b"vcs";

impl Decisions {
    pub(super) fn other_names(&self, key: &SiteName) -> &[SiteName] {
        self.of_owner.get(key).map_or(&[], Vec::as_slice)
    }

    /// Why the command at `position` has no effect, when it has none.
    pub fn without_effect(&self, position: u64) -> Option<&str> {
        self.without_effect.get(&position).map(String::as_str)
    }

    pub(super) fn has_no_effect(&mut self, position: u64, why: String, changes: &mut DecisionChanges) {
        self.without_effect.insert_mut(position, why);
        changes.without_effect.insert(position);
    }

    /// What was decided about an event that came under the name of a site.
    pub fn of_event(&self, site: &SiteName, (epoch, sequence): (Epoch, u64)) -> &[EventDecision] {
        if self.events.is_empty() {
            return &[];
        }
        let garage = self.names.get(site).unwrap_or(site);
        self.events.of(&(garage.clone(), epoch, sequence))
    }

    /// Notes that the record at `position` removes a line from the board, or renames one.
    pub(super) fn reshape_board(&mut self, position: u64, changes: &mut DecisionChanges) {
        self.reshaped_at = position;
        changes.reshaped = true;
    }

    /// Events that come under `name` count for the garage `owner`, too.
    pub(super) fn add_name(&mut self, name: SiteName, owner: SiteName, changes: &mut DecisionChanges) {
        changes.names.insert(name.clone());
        self.put_name(name, owner);
    }

    /// Whether everything on the board at `position` is still on it, so that a list of changes is enough.
    pub fn is_same_board_since(&self, position: u64) -> bool {
        self.reshaped_at <= position
    }

    fn put_name(&mut self, name: SiteName, owner: SiteName) {
        let mut names = self.other_names(&owner).to_vec();
        if let Err(place) = names.binary_search(&name) {
            names.insert(place, name.clone());
        }
        self.of_owner.insert_mut(owner.clone(), names);
        self.names.insert_mut(name, owner);
    }

    pub(super) fn load(store: &Store) -> Result<Decisions, StoreError> {
        let mut decisions = Decisions::default();
        for entry in read_range(store, b"vcn", b"vco") {
            let (key, owner) = entry?;
            decisions.put_name(name_in(&key, 3)?, owner);
        }
        for entry in read_range(store, b"vcr", b"vcs") {
            let (key, why) = entry?;
            decisions.without_effect.insert_mut(u64_from(&key, 3)?, why);
        }
        decisions.events = event_decisions::load(store)?;
        if let Some(value) = store.get(RESHAPED)? {
            decisions.reshaped_at = u64_from(&value, 0)?;
        }
        Ok(decisions)
    }

    pub(super) fn save(&self, changes: &DecisionChanges, batch: &mut Batch) {
        for name in &changes.names {
            batch.put([b"vcn", name.as_str().as_bytes()].concat(), encode(&self.names[name]));
        }
        for position in &changes.without_effect {
            batch.put(key_u64(b"vcr", *position), encode(&self.without_effect[position]));
        }
        event_decisions::save(&self.events, &changes.events, batch);
        if changes.reshaped {
            batch.put(RESHAPED, self.reshaped_at.to_be_bytes());
        }
    }
}
