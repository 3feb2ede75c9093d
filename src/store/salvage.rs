//! Opens the store of a data directory, and builds a new one from the values that can still be found in a damaged one.
//!
//! **Promise.** A directory whose store sled refuses, or in which something cannot be read, gets a new store of all values that
//! matter and can be found anywhere in the old one's file. The old one is kept aside under a name with the date. A crash
//! meanwhile leaves either the old store or the new one whole.
//! **Kept by.** Values are framed ([`super::frame`]), so that sled is not needed to find them. The new store is written and synced
//! beside the old one, and then takes its name.
//! **Not promised.** That the values are the latest ones: some had been removed, and where the newest is damaged an older one is
//! found. A [`Rebuild`] knows what the values mean, and decides which count.

use super::directory::STORE;
pub use super::frame::Stamp;
use super::frame::{FRAME_MAX, Frame, FrameKey, MAGIC};
pub(crate) use super::marker::Boot;
use super::marker::{self, Marker, StoreId};
use super::room::{DiskRoom, OPENING_NEEDS};
use super::sled_log::{LOG_FILE, TORN_FILE, read_up_to};
use super::{
    Entry, Purpose, Store, StoreError, StoreOpenError, if_there, on_sled, remove_if_there, unframed,
};
use crate::codes::{self, Coded};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// The new store while it is written, and the file in it that marks it as complete.
const NEW: &str = "store.new";
const WHOLE: &str = "whole";
/// The file that requests salvage at the next start.
const REQUEST: &str = "salvage";

/// Writes the values that still count into the new store.
pub type Rebuild<'a> = &'a dyn Fn(&Salvaged, &Store) -> Result<(), StoreError>;

/// What to do at opening when confirmed data is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnLoss {
    #[default]
    Record,
    /// Write nothing and fail with [`StoreError::Damaged`]: the missing data may still be found in the file of the store.
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub stamp: Stamp,
}

/// The newest sound value under each key of a damaged store. Only its keys and places are in memory.
pub struct Salvaged {
    /// The log, and what was kept of its torn ends.
    files: Vec<File>,
    frames: FrameKey,
    boot: Boot,
    places: BTreeMap<Box<[u8]>, FramePlace>,
}

#[derive(Debug, Clone, Copy)]
struct FramePlace {
    stamp: Stamp,
    file: u8,
    at: u64,
}

impl Salvaged {
    /// Looks through the log of the store in `path` for the store's own frames.
    fn scan(path: &Path, id: StoreId, boot: Boot) -> io::Result<Salvaged> {
        let mut files = Vec::new();
        for name in [LOG_FILE, TORN_FILE] {
            // A lost log holds nothing.
            files.extend(if_there(File::open(path.join(name)))?);
        }
        Salvaged::scan_files(files, id, boot)
    }

    fn scan_files(files: Vec<File>, id: StoreId, boot: Boot) -> io::Result<Salvaged> {
        let mut found = Salvaged { files, frames: id.frames(), boot, places: BTreeMap::new() };
        let mut places = BTreeMap::new();
        found.each_frame(&mut |place, frame| {
            let known = places.entry(frame.key.into()).or_insert(place);
            if known.stamp <= place.stamp {
                *known = place;
            }
        })?;
        found.places = places;
        Ok(found)
    }

    /// Gives each frame in the files, with its place. It does not search within a frame, because a producer chose that content.
    fn each_frame(&self, give: &mut dyn FnMut(FramePlace, Frame<'_>)) -> io::Result<()> {
        const CHUNK: usize = 1 << 20;
        let mut bytes = vec![0; CHUNK + FRAME_MAX];
        for (number, file) in (0..).zip(&self.files) {
            let (mut at, mut next) = (0u64, 0u64);
            loop {
                let length = read_up_to(file, &mut bytes, at)?;
                let is_last = length < bytes.len();
                let limit = if is_last { length } else { CHUNK };
                for start in memchr::memmem::find_iter(&bytes[..length], &MAGIC) {
                    let place = at + start as u64;
                    if start >= limit || place < next {
                        continue;
                    }
                    if let Some(frame) = self.frames.decode(&bytes[start..length]) {
                        next = place + frame.len() as u64;
                        give(FramePlace { stamp: frame.stamp, file: number, at: place }, frame);
                    }
                }
                if is_last {
                    break;
                }
                at += CHUNK as u64;
            }
        }
        Ok(())
    }

    /// What can be read of `store`, as far as `is_found` says that its key can be.
    pub(crate) fn of_readable(
        store: &Store,
        boot: Boot,
        is_found: impl Fn(&[u8]) -> bool,
    ) -> Result<Salvaged, StoreError> {
        let id = StoreId::random();
        let beside = store.files.as_ref().and_then(|files| files.path.parent());
        let file = beside.map_or_else(tempfile::tempfile, tempfile::tempfile_in).map_err(StoreError::Disk)?;
        let mut copied = BufWriter::new(file);
        let mut order = 0..;
        unframed::read_all(store, &mut |key, value| {
            let stamp = order.next().map(Stamp).expect("there are fewer values");
            let framed = id.frames().encode(stamp, key, value);
            if is_found(key) { copied.write_all(&framed).map_err(StoreError::Disk) } else { Ok(()) }
        })?;
        let file = copied.into_inner().map_err(|error| StoreError::Disk(error.into_error()))?;
        Salvaged::scan_files(vec![file], id, boot).map_err(StoreError::Disk)
    }

    /// Whether everything that was written is in the file, as far as it is sound: the machine did not restart.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == Boot::Same
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<SalvagedValue>, StoreError> {
        self.places.get(key).map(|place| self.read(*place)).transpose()
    }

    /// The newest values from key `from` (inclusive) to `to` (exclusive), ascending.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Result<SalvagedValue, StoreError>> + '_ {
        let places = self.places.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        places.map(|(_, place)| self.read(*place))
    }

    /// The same as [`Salvaged::range`], as the entries of a new store.
    pub fn entries(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = Result<Entry, StoreError>> + '_ {
        self.range(from, to).map(|found| found.map(|found| (found.key, found.value)))
    }

    /// All sound values under `keys`, old ones too, unordered: for keys whose newest value does not count. Reads the whole file.
    pub fn versions(&self, keys: &[Vec<u8>]) -> Result<Vec<SalvagedValue>, StoreError> {
        let mut versions = Vec::new();
        let mut keep = |_: FramePlace, frame: Frame<'_>| {
            if keys.iter().any(|key| key == frame.key) {
                versions.push(owned(frame));
            }
        };
        self.each_frame(&mut keep).map_err(StoreError::Disk)?;
        Ok(versions)
    }

    fn read(&self, place: FramePlace) -> Result<SalvagedValue, StoreError> {
        let mut bytes = vec![0; FRAME_MAX];
        let length = read_up_to(&self.files[usize::from(place.file)], &mut bytes, place.at)
            .map_err(StoreError::Disk)?;
        let frame = self.frames.decode(&bytes[..length]);
        frame.map(owned).ok_or_else(|| StoreError::Damaged {
            place: format!("byte {} of the damaged store", place.at),
            reason: "it reads differently each time".into(),
        })
    }

    fn next_opening(&self) -> u32 {
        self.places.values().map(|place| place.stamp.opening()).max().unwrap_or(0) + 1
    }
}

fn owned(frame: Frame<'_>) -> SalvagedValue {
    SalvagedValue { key: frame.key.to_vec(), value: frame.value.to_vec(), stamp: frame.stamp }
}

/// Whether the store of a data directory can be salvaged. That of an earlier version can be as far as sled opens it.
pub fn is_possible(dir: &Path) -> bool {
    Marker::read(&dir.join(STORE)).is_ok_and(|marker| marker.is_some())
}

/// Requests that the next start salvages the store of a data directory. The request is on disk when this returns.
pub fn request(dir: &Path) -> io::Result<()> {
    File::create(dir.join(REQUEST))?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// The opening of the store found all that was confirmed, so what was kept of a torn end is removed.
fn nothing_is_missing(dir: &Path) {
    // Left there it takes room, and is searched should the store be salvaged later: an old value is never taken for a newer one.
    let _ = fs::remove_file(dir.join(STORE).join(TORN_FILE));
}

/// Completes a salvage that a crash interrupted: a complete new store takes the name of the old one.
fn finish_interrupted(dir: &Path) -> io::Result<()> {
    let (store, new) = (dir.join(STORE), dir.join(NEW));
    if new.join(WHOLE).exists() && !store.exists() {
        fs::rename(&new, &store)?;
    }
    if store.join(WHOLE).exists() {
        fs::remove_file(store.join(WHOLE))?;
        remove_if_there(&dir.join(REQUEST))?;
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

pub struct OpenedStore {
    pub store: Store,
    pub room: DiskRoom,
    pub condition: StoreCondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCondition {
    /// sled could open it. That all of it can be read is not known.
    Opened,
    Salvaged,
}

/// Opens the store of a data directory that the caller holds, also on a full disk: then the ballast is given up first. It is
/// created (again) as soon as there is room for it.
///
/// A store that sled refuses, or that is to be salvaged ([`request`]), is rebuilt by `rebuild` first, where that is possible.
pub fn open_store(
    dir: &Path,
    purpose: Purpose,
    reserve: Option<u64>,
    rebuild: Rebuild<'_>,
) -> Result<OpenedStore, StoreOpenError> {
    let room = DiskRoom::of(dir, reserve);
    let path = dir.join(STORE);
    let io_error = |source| StoreOpenError::Io { path: dir.to_owned(), source };
    finish_interrupted(dir).map_err(io_error)?;
    if !room.has_left(OPENING_NEEDS) {
        room.give_up_ballast();
    }
    let open = || match Store::open_after(&path, purpose, &room, 0) {
        Err(StoreOpenError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
                && room.give_up_ballast() =>
        {
            Store::open_after(&path, purpose, &room, 0)
        }
        opened => opened,
    };
    let is_requested = dir.join(REQUEST).exists();
    let mut is_salvaged = is_requested && salvage(dir, purpose, &room, rebuild)?;
    if is_requested && !is_salvaged {
        remove_if_there(&dir.join(REQUEST)).map_err(io_error)?;
    }
    let store = match open() {
        Err(StoreOpenError::Damaged { path, reason }) if !is_requested => {
            tracing::warn!(
                code = %codes::STORE_DAMAGED,
                reason,
                hint = "check the disk; a new store is built from what can be read, where that is possible",
                "the store cannot be opened"
            );
            is_salvaged = salvage(dir, purpose, &room, rebuild)?;
            if !is_salvaged {
                return Err(StoreOpenError::Damaged { path, reason });
            }
            open()
        }
        opened => opened,
    }?;
    room.keep_ballast().map_err(io_error)?;
    let condition = if is_salvaged { StoreCondition::Salvaged } else { StoreCondition::Opened };
    Ok(OpenedStore { store, room, condition })
}

/// Opens the store of a data directory as [`open_store`] does, and what `open` finds in it.
///
/// When `open` meets a part that cannot be read, or misses what was confirmed, the store is rebuilt from what stands anywhere in its
/// file, once; only then may `open` record a loss.
pub fn open_with<T, E: Coded + From<StoreOpenError>>(
    dir: &Path,
    purpose: Purpose,
    reserve: Option<u64>,
    rebuild: Rebuild<'_>,
    open: impl Fn(OpenedStore, OnLoss) -> Result<T, E>,
) -> Result<T, E> {
    let mut first_try = if is_possible(dir) { OnLoss::Refuse } else { OnLoss::Record };
    loop {
        let opened = open_store(dir, purpose, reserve, rebuild)?;
        let is_salvaged = opened.condition == StoreCondition::Salvaged;
        let on_loss = if is_salvaged { OnLoss::Record } else { first_try };
        let unreadable = opened.store.unreadable();
        let error = match open(opened, on_loss) {
            Ok(opened) => {
                nothing_is_missing(dir);
                return Ok(opened);
            }
            Err(error) => error,
        };
        let is_damaged = error.code() == codes::STORE_PARTLY_UNREADABLE || *unreadable.borrow();
        if !is_damaged || on_loss == OnLoss::Record {
            return Err(error);
        }
        tracing::warn!(
            code = %codes::STORE_PARTLY_UNREADABLE,
            %purpose, reason = %error,
            hint = "check the disk",
            "a part of the store cannot be read; its file is searched for it"
        );
        request(dir).map_err(|source| StoreOpenError::Io { path: dir.to_owned(), source })?;
        first_try = OnLoss::Record;
    }
}

/// Replaces the store by a new one with all values that can be found in the old one. Returns `Ok(false)` and changes nothing when
/// the store cannot be salvaged, or nothing can be found in it.
///
/// The store must be closed.
fn salvage(
    dir: &Path,
    purpose: Purpose,
    room: &DiskRoom,
    rebuild: Rebuild<'_>,
) -> Result<bool, StoreOpenError> {
    let (store, new) = (dir.join(STORE), dir.join(NEW));
    let failed = |source| StoreOpenError::Io { path: store.clone(), source };
    let marker = Marker::read(&store).map_err(failed)?;
    let Some(marker) = marker else { return Ok(false) };
    let boot = marker::written_in(&store);
    let found = match marker.salvageable() {
        Some(id) => Salvaged::scan(&store, id, boot).map_err(failed)?,
        // Without frames, only sled knows where the values stand.
        None => match Store::open_after(&store, purpose, room, 1) {
            Err(StoreOpenError::Damaged { .. }) => return Ok(false),
            opened => Salvaged::of_readable(&opened?, boot, |_| true)
                .map_err(|error| failed(io::Error::other(error)))?,
        },
    };
    if found.places.is_empty() {
        return Ok(false);
    }
    tracing::warn!(
        code = %codes::STORE_SALVAGE_BEGUN,
        data_dir = %dir.display(), values = found.places.len(),
        hint = "check the disk",
        "the store is damaged: a new one is built from everything that can be read of it"
    );
    if new.exists() {
        fs::remove_dir_all(&new).map_err(failed)?; // left by a crash
    }
    {
        let target = Store::open_after(&new, purpose, room, found.next_opening())?;
        let built = rebuild(&found, &target).and_then(|()| target.flush());
        built.map_err(|error| StoreOpenError::Salvage { path: store.clone(), source: Box::new(error) })?;
    }
    let aside = aside_name(dir);
    let swapped = || -> io::Result<()> {
        File::create(new.join(WHOLE))?.sync_all()?;
        on_sled::sync_tree(&new)?;
        fs::rename(&store, &aside)?;
        File::open(dir)?.sync_all()?;
        finish_interrupted(dir)
    };
    swapped().map_err(failed)?;
    tracing::error!(
        code = %codes::STORE_SALVAGED,
        damaged = %aside.display(),
        hint = "check the disk; delete the damaged store when nobody needs to look into it",
        "the store was damaged, and was rebuilt from what could be read of it"
    );
    Ok(true)
}

/// An unused name that contains the date.
fn aside_name(dir: &Path) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the store knows no daemon, and this is only a name")]
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    let names = (1u32..).map(|n| match n {
        1 => format!("{STORE}.damaged-{now}"),
        n => format!("{STORE}.damaged-{now}-{n}"),
    });
    let mut free = names.map(|name| dir.join(name)).filter(|path| !path.exists());
    free.next().expect("there is always another number")
}

#[cfg(test)]
#[path = "tests/salvage.rs"]
mod tests;
