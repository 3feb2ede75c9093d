//! Sorted maps that cost nothing to copy: a copy shares with the original what is the same in both (persistent data structures).
//!
//! The views that readers see are such copies. What the views change afterwards is copied along the path to it, a few nodes of a
//! tree, and a reader never sees it.

pub type SharedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;
