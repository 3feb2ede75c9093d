//! Values of the store with the changes to them that are not written yet.

use super::codec::{decode, encode, read};
use crate::store::{Batch, Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Values of one kind, by the keys under which they are stored, as they are now: what changed over what is written.
#[derive(Debug)]
pub struct Unwritten<V> {
    store: Store,
    /// `None`: removed.
    changed: BTreeMap<Vec<u8>, Option<V>>,
}

impl<V: Clone + Serialize + DeserializeOwned> Unwritten<V> {
    pub fn on(store: &Store) -> Unwritten<V> {
        Unwritten { store: store.clone(), changed: BTreeMap::new() }
    }

    /// How many writes the changes are.
    pub fn writes(&self) -> usize {
        self.changed.len()
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<V>, StoreError> {
        match self.changed.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => read(&self.store, key),
        }
    }

    /// The values with keys from `from` to `to` (exclusive), in order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Result<Vec<(Vec<u8>, V)>, StoreError> {
        let mut found = BTreeMap::new();
        for entry in self.store.range(from, to) {
            let (key, value) = entry?;
            if !self.changed.contains_key(&key) {
                let value = decode(&key, &value)?;
                found.insert(key, value);
            }
        }
        for (key, value) in self.changed.range(from.to_vec()..to.to_vec()) {
            found.extend(value.clone().map(|value| (key.clone(), value)));
        }
        Ok(found.into_iter().collect())
    }

    /// `None` removes the value.
    pub fn put(&mut self, key: Vec<u8>, value: Option<V>) {
        self.changed.insert(key, value);
    }

    /// Changes a value. Where there is none it is the default before; it is removed once it is the default again.
    pub fn change(&mut self, key: Vec<u8>, change: impl FnOnce(&mut V)) -> Result<(), StoreError>
    where
        V: Default + PartialEq,
    {
        let place = match self.changed.entry(key) {
            Entry::Occupied(changed) => changed.into_mut(),
            Entry::Vacant(place) => {
                let written = read(&self.store, place.key())?;
                place.insert(written)
            }
        };
        let mut value = place.take().unwrap_or_default();
        change(&mut value);
        *place = (value != V::default()).then_some(value);
        Ok(())
    }

    /// A value of which nothing is written.
    pub fn begin(&mut self, key: Vec<u8>) -> &mut V
    where
        V: Default,
    {
        self.changed.entry(key).or_default().get_or_insert_default()
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        for (key, value) in std::mem::take(&mut self.changed) {
            match value {
                Some(value) => batch.put(key, encode(&value)),
                None => batch.remove(key),
            }
        }
    }
}
