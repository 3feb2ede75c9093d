//! Opens the ledger of a data directory. A damaged store is salvaged.
//!
//! **Promise.** A ledger of which anything can be read opens. All records that can be found are in it.
//! **Kept by.** Where sled refuses the store, a part of it cannot be read, or its end is missing, the store is rebuilt from the
//! records found anywhere in its file (`ledger::salvage`); this happens once, before a loss is recorded.
//! **Not promised.** That a large store is read whole before it is served: above [`READ_AT_ONCE`] bytes it is read in the
//! background ([`look_through`]), and what cannot be read is salvaged at the next start.

use super::HIGH_WATER_FILE;
use super::ledger::{self, Ledger};
use crate::codes;
use crate::daemon::{DaemonError, clock};
use crate::store::room::DiskRoom;
use crate::store::salvage::{self, OnLoss, OpenedStore, Salvaged, StoreCondition};
use crate::store::{Purpose, Store, StoreError};
use std::path::Path;

/// Stores of up to this many bytes are read whole when they are opened, which takes a second or two.
pub const READ_AT_ONCE: u64 = 256 << 20;

pub struct OpenedLedger {
    pub room: DiskRoom,
    pub ledger: Ledger,
    pub condition: StoreCondition,
}

/// Opens the ledger of a directory that the caller holds. A loss is recorded and on disk when this returns.
pub fn open(dir: &Path, reserve: Option<u64>) -> Result<OpenedLedger, DaemonError> {
    let high_water = dir.join(HIGH_WATER_FILE);
    let open = |store, on_loss| Ledger::open_beside(store, &high_water, on_loss, clock::wall_ms());
    open_with(dir, reserve, &high_water, &open)
}

/// Opens the ledger of a copy of a data directory, to look into it. `high_water` is the file beside the original.
pub fn open_copy(dir: &Path, high_water: &Path) -> Result<OpenedLedger, DaemonError> {
    open_with(dir, None, high_water, &|store, _| Ledger::open(store))
}

fn open_with(
    dir: &Path,
    reserve: Option<u64>,
    high_water: &Path,
    open: &dyn Fn(Store, OnLoss) -> Result<Ledger, StoreError>,
) -> Result<OpenedLedger, DaemonError> {
    let rebuild = |found: &Salvaged, new: &Store| ledger::salvage::rebuild(high_water, found, new);
    salvage::open_with(dir, Purpose::Server, reserve, &rebuild, |opened, on_loss| {
        let OpenedStore { store, room, condition } = opened;
        if on_loss == OnLoss::Refuse && room.store_bytes() <= READ_AT_ONCE {
            look_through(&store)?;
        }
        let ledger = open(store, on_loss)?;
        Ok(OpenedLedger { room, ledger, condition })
    })
}

/// Reads everything. An error says that a part cannot be read.
pub fn look_through(store: &Store) -> Result<(), StoreError> {
    store.range(&[1], &[u8::MAX]).try_for_each(|entry| entry.map(drop))
}

/// Reads a store in the background that is too large to be read at its opening. What cannot be read shows in [`Store::unreadable`].
pub fn look_through_later(store: &Store, room: &DiskRoom) {
    if room.store_bytes() <= READ_AT_ONCE {
        return;
    }
    let store = store.clone();
    let looking = std::thread::Builder::new().name("look-through".into()).spawn(move || look_through(&store));
    if let Err(error) = looking {
        tracing::warn!(
            code = %codes::STORE_NOT_CHECKED,
            %error,
            hint = "run: server verify",
            "the store could not be checked for damage; damage shows when it is read"
        );
    }
}
