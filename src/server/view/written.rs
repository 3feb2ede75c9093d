//! The views as stored: their position, and how they are read at one position, compared and dropped.

use super::codec::{read_range, u64_from};
use super::garages::LedgerDamage;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

pub(super) const POSITION: &[u8] = b"vp";

/// The version of what the views make of a ledger. Each change of how records are applied raises it.
pub(super) const VERSION: u8 = 9;

/// All keys of the views: from here on, and to the second (exclusive).
pub const KEYS: (&[u8], &[u8]) = (b"v", b"w");

/// The position that the written views have reached; `None` when there are none of this version.
pub fn written_position(store: &Store) -> Result<Option<u64>, StoreError> {
    match store.get(POSITION)?.as_deref() {
        Some(value @ [VERSION, ..]) => u64_from(value, 1).map(Some),
        _ => Ok(None),
    }
}

/// After this many reads that a save came into, a read keeps the views from being saved meanwhile.
const READ_FREELY: u32 = 3;
/// Maximum number of times that a read is begun again: about a second and a half.
const READ_AGAIN: u32 = 200;

/// Reads written views, all at the position that this returns. If they are written meanwhile, they are read again, in the end
/// while `saving` is held. Only if the changes of one record are too large for one batch, and writing them takes more than a
/// second, may the answer show later positions, too.
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
            // Another reader holds it, or the thread that saves.
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
            // What is half written matches nothing.
            Ok(_) | Err(StoreError::Damaged { .. }) if !is_one || before.is_none() => {}
            found => return found.map(|found| (known.unwrap_or_default(), found)),
        }
        std::thread::sleep(Duration::from_millis(1 << attempt.min(3)));
    }
    read().map(|found| (known.unwrap_or_default(), found))
}

/// The value that says that the views have reached a position, and are complete.
pub(super) fn position_value(position: u64) -> Vec<u8> {
    [&[VERSION], &position.to_be_bytes()[..]].concat()
}

/// The damages that the written views know, by their last positions.
pub fn written_damages(store: &Store) -> Result<BTreeMap<u64, LedgerDamage>, StoreError> {
    let damages = read_range(store, b"vd", b"ve").map(|entry| {
        let (key, damage) = entry?;
        Ok((u64_from(&key, 2)?, damage))
    });
    damages.collect()
}

/// Drops the written views: they are rebuilt at the next start. The ledger is not touched.
pub fn discard(store: &Store) -> Result<(), StoreError> {
    // The value that says that they are complete comes first: a crash in between must not leave a part that counts.
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

/// Compares all keys of the views in two stores, and reports each difference to `found`: the place, and what is wrong with the
/// stored views.
pub fn compare(
    written: &Store,
    rebuilt: &Store,
    found: &mut dyn FnMut(String, String),
) -> Result<(), StoreError> {
    let too_much =
        |key: &[u8]| (describe(key), "it is stored, but does not follow from the ledger".to_owned());
    let mut found = |(place, what)| found(place, what);
    let mut written = written.range(KEYS.0, KEYS.1).peekable();
    for entry in rebuilt.range(KEYS.0, KEYS.1) {
        let (key, value) = entry?;
        // An error is taken as soon as it comes.
        let is = |entry: &Result<(Vec<u8>, Vec<u8>), StoreError>, order| {
            entry.as_ref().map_or(true, |(its, _)| its.cmp(&key) == order)
        };
        while let Some(entry) = written.next_if(|entry| is(entry, Ordering::Less)) {
            found(too_much(&entry?.0));
        }
        match written.next_if(|entry| is(entry, Ordering::Equal)).transpose()? {
            None => found((describe(&key), "it is missing".into())),
            Some((_, its)) if its != value => {
                found((describe(&key), "it differs from what follows from the ledger".into()))
            }
            Some(_) => {}
        }
    }
    for entry in written {
        found(too_much(&entry?.0));
    }
    Ok(())
}

fn describe(key: &[u8]) -> String {
    let number = |range: std::ops::Range<usize>| {
        let bytes = key.get(range).unwrap_or_default();
        bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    match key.get(..2) {
        Some(b"vp") => "the position of the views".into(),
        Some(b"vg") => format!("the view of garage {:?}", String::from_utf8_lossy(&key[2..])),
        Some(b"vu") => format!("whether garage {:?} is open", String::from_utf8_lossy(&key[2..])),
        Some(b"vh") => format!("the view of the missing range at position {}", number(2..10)),
        Some(b"vd") => format!("the view of the damage that ends at position {}", number(2..10)),
        Some(b"vq") => format!("the quarantine of position {}", number(2..10)),
        Some(b"vs") => format!("page {} of the stays of garage number {}", number(6..10), number(2..6)),
        Some(b"vi") => format!("page {} of the index of plates", number(2..4)),
        Some(b"vl") => format!("the occupancy over time of garage number {}", number(2..6)),
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
        Some(b'k') => "open items, payments or the journal".into(),
        Some(b'm') => "an account's month".into(),
        Some(b'a') => "an account".into(),
        Some(b'r') => "a garage's day".into(),
        Some(b'n') => "an anomaly".into(),
        _ => format!("the books of money, key {key:02x?}"),
    }
}
