//! Sorted maps of which a copy costs nothing: a copy shares with its origin what is the same in both.
//!
//! The views that readers see are such a copy. What the views change afterwards is copied along the path to it, a few nodes of a
//! tree, and a reader never sees it.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Index, RangeBounds};

/// A sorted map with the methods of `BTreeMap` that the views need.
pub struct SharedMap<K: Ord, V>(rpds::RedBlackTreeMapSync<K, V>);

impl<K: Ord, V> SharedMap<K, V> {
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.0.insert_mut(key, value);
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.0.remove_mut(key);
    }

    pub fn len(&self) -> usize {
        self.0.size()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values()
    }

    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.0.last()
    }

    /// Panics when the range ends before it begins, as that of `BTreeMap` does.
    pub fn range<Q: Ord + ?Sized>(&self, range: impl RangeBounds<Q>) -> impl Iterator<Item = (&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.0.range(range)
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Copies the value first, when another map shares it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }
}

impl<K: Ord, V> Default for SharedMap<K, V> {
    fn default() -> SharedMap<K, V> {
        SharedMap(rpds::RedBlackTreeMapSync::default())
    }
}

impl<K: Ord, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> SharedMap<K, V> {
        SharedMap(self.0.clone())
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &SharedMap<K, V>) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for SharedMap<K, V> {
    type Output = V;
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> SharedMap<K, V> {
        SharedMap(entries.into_iter().collect())
    }
}

impl<K: Ord, V> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// What readers hold stays as it was, whatever the map is made to hold afterwards.
        #[test]
        fn copies_are_what_the_map_was_when_they_were_made(
            steps in prop::collection::vec((0u8..4, 0u8..20, any::<u16>()), 0..200)
        ) {
            let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (what, key, value) in steps {
                match what {
                    0 => {
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    1 => {
                        map.remove(&key);
                        model.remove(&key);
                    }
                    2 => {
                        if let Some(place) = map.get_mut(&key) {
                            *place = value;
                        }
                        model.entry(key).and_modify(|place| *place = value);
                    }
                    _ => copies.push((map.clone(), model.clone())),
                }
                copies.push((map.clone(), model.clone()));
            }
            for (map, model) in copies {
                prop_assert_eq!(map.iter().collect::<Vec<_>>(), model.iter().collect::<Vec<_>>());
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.range(5..15).collect::<Vec<_>>(), model.range(5..15).collect::<Vec<_>>());
                prop_assert_eq!(map.last_key_value(), model.last_key_value());
            }
        }
    }
}
