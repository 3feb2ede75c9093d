//! The progress of a ledger, recorded in the high-water file beside its store. From it, a ledger that lost its end can detect the
//! loss.

use crate::messaging::LedgerId;
use crate::store::high_water::{self, HighWaterMark};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The position that a ledger had reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHighWater {
    pub ledger: LedgerId,
    /// The last position that was on disk, with all before it.
    pub position: u64,
}

impl HighWaterMark for LedgerHighWater {
    const LENGTH_BYTES: usize = 1;
}

impl LedgerHighWater {
    /// Reads the mark in a file without changing the file. Returns `None` if no mark can be read.
    pub fn read(path: &Path) -> Option<LedgerHighWater> {
        high_water::read(path).ok().flatten()
    }
}
