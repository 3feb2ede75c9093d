//! The views of the garages: the result of applying the ledger's records in order of position.
//!
//! **Promise.** At any position the views are what rebuilding them from the ledger's beginning gives, byte for byte.
//! **Kept by.** [`View::apply`] sees records only. What it changed is written in one batch together with the position it has
//! reached; after a crash the records behind it are applied. A view never delays the ledger: it is updated afterwards. A view of
//! another version, or one that cannot be read, is dropped and rebuilt.
//! **Not promised.** That a view has reached the ledger's end: every answer says the position that it shows.
//!
//! Occupancy, missing ranges and quarantine are kept in memory. Stays are too many: they are in [`pages`], and only the cars that
//! are inside for less than 30 days are in memory ([`stays`]). Pages are read as last written, at most a second behind.
//!
//! | key | value |
//! | --- | --- |
//! | `vp` | the version of the views (u8), the position reached (u64) |
//! | `vg` + name | a [`Garage`] |
//! | `vh` + position (u64) | a [`MissingRange`] |
//! | `vd` + position (u64) | a [`LedgerDamage`], under the last of its positions |
//! | `vq` + position (u64) | a [`QuarantinedPage`] |
//! | `vu` + name | what is said of whether it is open: see [`openings`] |
//! | `vs` `vi` `vo` `vr` | the stays: see [`pages`] |
//! | `vj` `vk` `vt` | the cars that are inside for long: see [`aged`] |
//! | `vl` + … | how full each garage was, over time: see [`curves`] |
//! | `vc` + … | what commands changed: see [`decisions`] |
//! | `vb` + … | the books of money: see [`billing`] |

mod aged;
pub mod anomaly_list;
mod apply;
pub mod base;
pub mod billing;
mod chains;
mod changes;
pub mod charges;
mod codec;
mod commands;
mod corrections;
pub mod curves;
mod decision_map;
mod decisions;
pub mod event_decisions;
pub mod forgotten;
mod garages;
#[cfg(test)]
mod hostile_records_tests;
mod issues;
pub mod list;
pub mod lookup;
pub mod openings;
mod page_maps;
mod pages;
mod plate_filter;
mod recent;
mod refusal;
pub mod rerating;
pub mod review;
mod saving;
mod state;
mod stays;
#[cfg(test)]
mod stays_tests;
#[cfg(test)]
pub mod tests;
mod unwritten;
mod written;

pub use apply::{CatchUpError, PreparedRecord, catch_up};
pub use changes::ViewChanges;
#[cfg(test)]
pub use garages::SLOTS_OF_A_PAGE;
pub use garages::{GarageState, LedgerDamage, MissingRange, QuarantinedPage, StayCounts};
pub use pages::{FoundStay, SlotAddress, StoredPassage, VisitInPage, is_token, page_of};
pub use refusal::JudgeError;
pub use state::{Snapshot, View};
pub use written::{KEYS, at_one_position, compare, discard, written_damages, written_position};

/// A sorted map that costs nothing to copy: a copy shares with the original what is the same in both (a persistent data structure).
pub type SharedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;
