//! Opens a store: reads its identity, and checks that it belongs to this program and is sound.

use super::frame::Stamp;
use super::framed::Framed;
use super::marker::{self, Framing, Marker, StoreId};
use super::presence::Presence;
use super::room::DiskRoom;
use super::watchdog::{self, Watchdog};
use super::{
    Backend, FORMAT, Purpose, Store, StoreError, StoreFiles, StoreOpenError, barrier, on_sled, sled_log,
};
use crate::codes;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The oldest format that can be read. Its values are not framed; values that are written now are.
const FORMAT_OLDEST: u32 = 2;

/// Room that must stay free for opening when the torn end of a log is kept.
const KEEPING_LEAVES: u64 = 8 << 20;

/// The key of the identity: the format, the id, and whether all values are framed.
const FORMAT_KEY: &[u8] = b"\0format";
/// The key of the number of openings, with random bytes at each opening.
const OPENED_KEY: &[u8] = b"\0opened";

impl Store {
    /// Opens the store in `path`. `opening` is the least number that this opening gets.
    pub(super) fn open_after(
        path: &Path,
        purpose: Purpose,
        room: &DiskRoom,
        opening: u32,
    ) -> Result<Store, StoreOpenError> {
        let failed = |source| StoreOpenError::Io { path: path.to_owned(), source };
        let marker = Marker::read(path).map_err(failed)?;
        if marker.as_ref().is_some_and(|marker| marker.salvageable().is_some()) {
            match sled_log::check(path, marker::closed_at(path)).map_err(failed)? {
                sled_log::LogCondition::Sound => {}
                sled_log::LogCondition::Damaged(reason) => {
                    return Err(StoreOpenError::Damaged { path: path.to_owned(), reason });
                }
                sled_log::LogCondition::Torn(segments) => {
                    let bytes = segments.len() as u64 * sled_log::SEGMENT;
                    // It is needed only should the torn end be damaged as well: opening itself needs the last of the room more.
                    if room.has_left(bytes + KEEPING_LEAVES) {
                        sled_log::keep_torn(path, &segments).map_err(failed)?;
                    } else {
                        tracing::warn!(
                            code = %codes::TORN_END_NOT_KEPT,
                            hint = "make room on the disk",
                            "there is no room to keep a copy of the unfinished end that a crash left in the log"
                        );
                    }
                }
            }
        }
        let sled = on_sled::OnSled::open(path, room)?;
        let presence = Arc::new(Presence::of(path).map_err(failed)?);
        let (failures, present, dir) = (sled.failures(), Arc::clone(&presence), path.to_owned());
        let watchdog = Watchdog::start(move || match failures() {
            Some(what) => {
                marker::a_write_failed(&dir);
                Some(format!("the disk failed: {what}. {}", watchdog::DISK_ADVICE))
            }
            None => present.check().err().map(|error| error.to_string()),
        });
        let identity = Identity::of(&sled, path, purpose, marker.as_ref(), opening)?;
        let first = Stamp::first_of(identity.opening);
        let mut store = Store::on(Framed::new(sled, purpose, identity.id.frames(), identity.framing, first));
        let (watchdog, poisoned) = (watchdog.map_err(failed)?, Arc::clone(&store.poisoned));
        store.files = Some(Arc::new(StoreFiles { path: path.to_owned(), watchdog, presence, poisoned }));
        marker::opened(path).map_err(failed)?;
        store.write_identity(path, purpose, &identity, marker)?;
        Ok(store)
    }

    /// Writes the identity of the store. Every opening writes something new, so that a first flush proves that the barrier is in
    /// use: sled skips a write that changes nothing, and a flush after it has nothing to sync.
    fn write_identity(
        &self,
        path: &Path,
        purpose: Purpose,
        identity: &Identity,
        marker: Option<Marker>,
    ) -> Result<(), StoreOpenError> {
        let before = barrier::calls();
        let opened = [&identity.opening.to_be_bytes()[..], uuid::Uuid::new_v4().as_bytes()].concat();
        let written =
            self.put(FORMAT_KEY, &identity.encode(purpose)).and_then(|()| self.put(OPENED_KEY, &opened));
        written.and_then(|()| self.flush()).map_err(|error| StoreOpenError::Io {
            path: path.to_owned(),
            source: match error {
                StoreError::Disk(source) => source,
                other => io::Error::other(other),
            },
        })?;
        if barrier::calls() == before {
            return Err(StoreOpenError::NoBarrier);
        }
        let now = Marker { purpose: purpose.to_string(), id: Some((identity.id, identity.framing)) };
        if marker.as_ref() != Some(&now) {
            let synced = now.write(path).and_then(|()| on_sled::sync_tree(path));
            synced.map_err(|source| StoreOpenError::Io { path: path.to_owned(), source })?;
        }
        Ok(())
    }
}

struct Identity {
    id: StoreId,
    framing: Framing,
    opening: u32,
}

impl Identity {
    /// Reads the identity, draws that of a new store, and refuses a store of another program or format. `opening` is the least
    /// number that this opening gets.
    fn of(
        sled: &impl Backend,
        path: &Path,
        purpose: Purpose,
        marker: Option<&Marker>,
        opening: u32,
    ) -> Result<Identity, StoreOpenError> {
        let damaged = |reason: String| StoreOpenError::Damaged { path: path.to_owned(), reason };
        let read = |key| sled.get(key).map_err(|error| damaged(error.to_string()));
        let Some(value) = read(FORMAT_KEY)? else {
            if marker.is_some() {
                return Err(damaged("it was written before, and now reads as empty".into()));
            }
            return Ok(Identity { id: StoreId::random(), framing: Framing::All, opening });
        };
        let too_short = || damaged("its format record is too short".into());
        let (found, rest) = value.split_first_chunk().ok_or_else(too_short)?;
        let found = u32::from_be_bytes(*found);
        let (id, framing, owner) = match found {
            FORMAT_OLDEST => (StoreId::random(), Framing::Some, rest),
            FORMAT => {
                let (id, rest) = rest.split_first_chunk().ok_or_else(too_short)?;
                let (all, owner) = rest.split_first().ok_or_else(too_short)?;
                (StoreId(*id), if *all == 1 { Framing::All } else { Framing::Some }, owner)
            }
            newer if newer > FORMAT => {
                return Err(StoreOpenError::NewerFormat { path: path.to_owned(), found });
            }
            _ => return Err(StoreOpenError::OlderFormat { path: path.to_owned(), found }),
        };
        if owner != purpose.to_string().as_bytes() {
            return Err(StoreOpenError::OtherPurpose {
                path: path.to_owned(),
                found: String::from_utf8_lossy(owner).into_owned(),
                wanted: purpose.to_string(),
            });
        }
        let opened = read(OPENED_KEY)?;
        // An earlier format has a random number there, and no stamps.
        let before = match (found, opened.as_deref().and_then(|value| value.first_chunk())) {
            (FORMAT, Some(number)) => u32::from_be_bytes(*number),
            _ => 0,
        };
        Ok(Identity { id, framing, opening: opening.max(before.saturating_add(1)) })
    }

    fn encode(&self, purpose: Purpose) -> Vec<u8> {
        let all = u8::from(self.framing == Framing::All);
        [&FORMAT.to_be_bytes()[..], &self.id.0, &[all], purpose.to_string().as_bytes()].concat()
    }
}
