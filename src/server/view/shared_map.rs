//! Sorted maps of which a copy costs nothing: a copy shares with its origin what is the same in both.
//!
//! The views that readers see are such copies. What the views change afterwards is copied along the path to it, a few nodes of a
//! tree, and a reader never sees it.

pub type SharedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;
