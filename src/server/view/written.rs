//! The views as they are written: opened, loaded, saved, compared, dropped.

use super::billing::Billing;
use super::stays::Stays;
use super::{Changes, Damage, Shown, View, base, commands};
use crate::codes;
use crate::messaging::SiteName;
use crate::server::ledger::Ledger;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

pub(super) const POSITION: &[u8] = b"vp";

/// Of what the fold makes of a ledger. A program that folds otherwise has another one.
pub(super) const VERSION: u8 = 4;

/// All keys of the views: from here on, and to the second (exclusive).
pub const KEYS: (&[u8], &[u8]) = (b"v", b"w");

/// The position that the written views have reached; `None` when there are none of this version.
pub fn written_position(store: &Store) -> Result<Option<u64>, StoreError> {
    match store.get(POSITION)?.as_deref() {
        Some([VERSION, position @ ..]) => Ok(Some(u64::from_be_bytes(sized(position)?))),
        _ => Ok(None),
    }
}

/// After so many reads that a save came into, a read keeps the fold from saving for its while.
const READ_FREELY: u32 = 3;
/// How often a read is begun again at most: for a second and a half.
const READ_AGAIN: u32 = 200;

/// Reads written views, all of the position that this gives. The fold may write them meanwhile: then they are read again, and at
/// last while it is kept from `saving`, unless it writes a step that is too large for one batch for more than a second: then the
/// answer may show later positions, too.
pub fn at_one_position<T>(
    store: &Store,
    saving: Option<&Mutex<()>>,
    mut read: impl FnMut() -> Result<T, StoreError>,
) -> Result<(u64, T), StoreError> {
    let mut known = None;
    for attempt in 0..READ_AGAIN {
        let _kept = match saving.filter(|_| attempt >= READ_FREELY).map(Mutex::try_lock) {
            Some(Ok(kept)) => Some(kept),
            Some(Err(TryLockError::Poisoned(kept))) => Some(kept.into_inner()),
            // Somebody who keeps the fold from saving, or the fold itself.
            Some(Err(TryLockError::WouldBlock)) | None => None,
        };
        let before = written_position(store)?;
        known = known.max(before);
        let found = read();
        let is_one = written_position(store)? == before;
        let nothing_is_written = || store.range(KEYS.0, KEYS.1).next().is_none();
        match found {
            Ok(found) if is_one && (before.is_some() || nothing_is_written()) => {
                return Ok((known.unwrap_or_default(), found));
            }
            // Half of what is being written fits to nothing.
            Ok(_) | Err(StoreError::Damaged { .. }) if !is_one || before.is_none() => {}
            found => return found.map(|found| (known.unwrap_or_default(), found)),
        }
        std::thread::sleep(Duration::from_millis(1 << attempt.min(3)));
    }
    read().map(|found| (known.unwrap_or_default(), found))
}

/// What says that the views have reached a position, and are whole.
pub(super) fn position_value(position: u64) -> Vec<u8> {
    [&[VERSION], &position.to_be_bytes()[..]].concat()
}

/// The damages that the written views know, by their last positions.
pub fn written_damages(store: &Store) -> Result<BTreeMap<u64, Damage>, StoreError> {
    let damages = store.range(b"vd", b"ve").map(|entry| {
        let (key, value) = entry?;
        Ok((u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?))
    });
    damages.collect()
}

/// Drops the written views: they are folded anew at the next start. The ledger is not touched.
pub fn discard(store: &Store) -> Result<(), StoreError> {
    // First what says that they are whole: a crash in between must not leave a part that counts.
    store.remove(POSITION)?;
    loop {
        let mut batch = Batch::default();
        for entry in store.range(KEYS.0, KEYS.1).take(BATCH_MAX) {
            batch.remove(entry?.0);
        }
        if batch.is_empty() {
            return Ok(());
        }
        store.apply(&batch)?;
    }
}

/// Compares all keys of the views in two stores, and tells `found` the place and what is wrong with the written one.
pub fn compare(
    written: &Store,
    anew: &Store,
    found: &mut dyn FnMut(String, String),
) -> Result<(), StoreError> {
    let mut written = written.range(KEYS.0, KEYS.1).peekable();
    for entry in anew.range(KEYS.0, KEYS.1) {
        let (key, value) = entry?;
        let beside = |entry: &Result<(Vec<u8>, Vec<u8>), StoreError>| match entry {
            Ok((its, _)) => *its < key,
            Err(_) => true,
        };
        while let Some(entry) = written.next_if(beside) {
            found(describe(&entry?.0), "it is there, and folding the ledger does not give it".into());
        }
        let its = |entry: &Result<(Vec<u8>, Vec<u8>), StoreError>| match entry {
            Ok((its, _)) => *its == key,
            Err(_) => true,
        };
        match written.next_if(its).transpose()? {
            None => found(describe(&key), "it is missing".into()),
            Some((_, its)) if its != value => {
                found(describe(&key), "it is not what folding the ledger gives".into());
            }
            Some(_) => {}
        }
    }
    for entry in written {
        found(describe(&entry?.0), "it is there, and folding the ledger does not give it".into());
    }
    Ok(())
}

/// What stands under a key, for people.
fn describe(key: &[u8]) -> String {
    let number = |range: std::ops::Range<usize>| {
        let bytes = key.get(range).unwrap_or_default();
        bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    match key.get(..2) {
        Some(b"vp") => "the position of the views".into(),
        Some(b"vg") => format!("the view of garage {:?}", String::from_utf8_lossy(&key[2..])),
        Some(b"vh") => format!("the view of the hole at position {}", number(2..10)),
        Some(b"vd") => format!("the view of the damage that ends at position {}", number(2..10)),
        Some(b"vq") => format!("the quarantine of position {}", number(2..10)),
        Some(b"vs") => format!("page {} of the stays of garage number {}", number(6..10), number(2..6)),
        Some(b"vi") => format!("page {} of the index of plates", number(2..4)),
        Some(b"vc") => "what operators' commands changed".into(),
        Some(b"vo") => format!("the map of the cars inside garage number {}", number(2..6)),
        Some(b"vb") => describe_billing(key),
        Some(b"vj" | b"vk" | b"vt") => "the cars that are inside for more than 30 days".into(),
        Some(b"vr") => format!("the corrected plates of position {}", number(2..10)),
        _ => format!("the view's key {key:02x?}"),
    }
}

fn describe_billing(key: &[u8]) -> String {
    match key.get(2) {
        Some(b'e') => "a page of charges".into(),
        Some(b'm') => "an account's month".into(),
        Some(b'a') => "an account".into(),
        Some(b'n') => "an anomaly".into(),
        _ => format!("the books of money, key {key:02x?}"),
    }
}

impl View {
    /// What was written last; the rest follows by folding. Views of another version, and such that do not read, are
    /// dropped, to be folded anew.
    pub fn open(store: &Store, ledger: &Ledger) -> Result<View, StoreError> {
        let why = match written_position(store)? {
            Some(_) => match View::load(store, ledger) {
                Err(error @ StoreError::Damaged { .. }) => error.to_string(),
                loaded => return loaded,
            },
            None if store.range(KEYS.0, KEYS.1).next().is_none() => return base::begin(ledger, store),
            None => "they are of another version of this program, or were being dropped".to_owned(),
        };
        tracing::warn!(
            code = %codes::VIEWS_REBUILT,
            reason = why,
            hint = "answers are behind until then; a million events take some seconds",
            "the views are rebuilt from the ledger"
        );
        discard(store)?;
        base::begin(ledger, store)
    }

    /// What was written last.
    pub fn load(store: &Store, ledger: &Ledger) -> Result<View, StoreError> {
        let shown = Shown::at(written_position(store)?.unwrap_or_default());
        let mut view = View { shown, ..View::default() };
        for entry in store.range(b"vg", b"vh") {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key[2..]).ok();
            let name = name.and_then(|name| SiteName::new(name).ok());
            let name = name.ok_or_else(|| damaged(&key))?;
            view.put_garage(name, decode(&key, &value)?);
        }
        for entry in store.range(b"vh", b"vi") {
            let (key, value) = entry?;
            view.put_hole(u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?);
        }
        view.damages = written_damages(store)?.into_iter().collect();
        for entry in store.range(b"vq", b"vr") {
            let (key, value) = entry?;
            view.quarantine.insert(u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?);
        }
        view.commands = commands::CommandsView::load(store)?;
        let garages = view.garages.values().map(|garage| garage.stays.number as usize + 1).max();
        view.billing = Billing::load(store, ledger)?;
        view.stays = Stays::load(store, garages.unwrap_or_default(), &mut view.billing)?;
        Ok(view)
    }

    /// Writes what changed together with the position reached. Durable with the next flush; a crash before folds again.
    pub fn save(&self, changes: &mut Changes) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for name in std::mem::take(&mut changes.garages) {
            let key = [b"vg", name.as_str().as_bytes()].concat();
            batch.put(key, encode(&self.garages[&name]));
        }
        for position in std::mem::take(&mut changes.holes) {
            let key = [b"vh", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.holes()[&position]));
        }
        for position in std::mem::take(&mut changes.damages) {
            let key = [b"vd", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.damages[&position]));
        }
        for position in std::mem::take(&mut changes.quarantine) {
            let key = [b"vq", &position.to_be_bytes()[..]].concat();
            match self.quarantine.get(&position) {
                Some(waiting) => batch.put(key, encode(waiting)),
                None => batch.remove(key),
            }
        }
        self.commands.save(&std::mem::take(&mut changes.commands), &mut batch);
        self.stays.drain(changes, &mut batch)?;
        changes.billing.drain(&self.billing, &mut batch);
        let reached = position_value(self.position);
        let store = changes.store();
        if batch.len() < BATCH_MAX {
            batch.put(POSITION, reached);
            return store.apply(&batch);
        }
        // One step may change more than a batch holds: a page of corrections that re-rate, the pricing of what waited. Until the
        // last batch is written the views have no position: a crash in between drops them, and they are folded anew.
        store.remove(POSITION)?;
        let mut writes = batch.writes().peekable();
        while writes.peek().is_some() {
            let mut part = Batch::default();
            for (key, value) in writes.by_ref().take(BATCH_MAX) {
                match value {
                    Some(value) => part.put(key, value),
                    None => part.remove(key),
                }
            }
            store.apply(&part)?;
        }
        store.put(POSITION, &reached)
    }
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).expect("it always encodes")
}

pub(super) fn decode<'a, T: Deserialize<'a>>(key: &[u8], value: &'a [u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((1, body)) => postcard::from_bytes(body).map_err(|_| damaged(key)),
        _ => Err(damaged(key)),
    }
}

pub(super) fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| damaged(bytes))
}

pub(super) fn damaged(key: &[u8]) -> StoreError {
    StoreError::Damaged {
        place: format!("the view's key {key:02x?}"),
        reason: "it has the wrong form".into(),
    }
}
