//! What operators decided about single things. A decision is named by the position of its command, acts from then on, and never was once
//! it is taken back.

use super::SharedMap;
use super::codec::{encode, read_range};
use crate::store::{Batch, Store, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision<W> {
    /// Of the command in the ledger, which names the decision.
    pub position: u64,
    /// When the command was recorded.
    pub at_ms: i64,
    pub what: W,
}

/// The decisions about each thing, in the order of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionMap<K: Ord, W>(SharedMap<K, Vec<Decision<W>>>);

impl<K: Ord, W> Default for DecisionMap<K, W> {
    fn default() -> DecisionMap<K, W> {
        DecisionMap(SharedMap::default())
    }
}

impl<K: Ord + Clone, W: Clone> DecisionMap<K, W> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, about: &K) -> &[Decision<W>] {
        self.0.get(about).map_or(&[], Vec::as_slice)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &Decision<W>)> {
        self.0.iter().flat_map(|(about, its)| its.iter().map(move |decision| (about, decision)))
    }

    /// What the command at a position decided about.
    pub fn find(&self, position: u64) -> Option<K> {
        self.iter().find(|(_, decision)| decision.position == position).map(|(about, _)| about.clone())
    }

    pub fn add(&mut self, about: K, decision: Decision<W>) {
        let its = self.of(&about).iter().cloned().chain([decision]).collect();
        self.0.insert_mut(about, its);
    }

    /// Takes the decision of a command back.
    pub fn undo(&mut self, about: &K, position: u64) {
        let mut its = self.of(about).to_vec();
        its.retain(|decision| decision.position != position);
        match its.is_empty() {
            true => _ = self.0.remove_mut(about),
            false => self.0.insert_mut(about.clone(), its),
        }
    }
}

impl<K: Ord + Clone, W: Clone + Serialize + DeserializeOwned> DecisionMap<K, W> {
    /// Reads what is written under keys from `from` to `to` (exclusive).
    pub fn load(
        store: &Store,
        (from, to): (&[u8], &[u8]),
        read_key: impl Fn(&[u8]) -> Result<K, StoreError>,
    ) -> Result<DecisionMap<K, W>, StoreError> {
        let mut all = DecisionMap::default();
        for entry in read_range(store, from, to) {
            let (key, its) = entry?;
            all.0.insert_mut(read_key(&key)?, its);
        }
        Ok(all)
    }

    /// Writes the decisions about one thing under a key.
    pub fn save(&self, about: &K, key: Vec<u8>, batch: &mut Batch) {
        match self.of(about) {
            [] => batch.remove(key),
            its => batch.put(key, encode(&its)),
        }
    }
}
