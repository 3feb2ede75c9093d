//! The base: the views at a position, from which they are folded when what came before cannot be folded any more.
//!
//! A compacted ledger has lost plates on purpose, so that its first records do not say any more what the views were. It keeps
//! the views at the position of its compaction beside them; folding anew begins there.
//!
//! | key | value |
//! | --- | --- |
//! | `b` + a key of the views | what stood under it |

use super::pages::{Readings, Slot, is_token};
use super::{KEYS, View, decode, encode};
use crate::parking::stay::{End, Visit};
use crate::server::ledger::Ledger;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};

/// All keys of the base: from here on, and to the second (exclusive).
pub const BASE: (&[u8], &[u8]) = (b"b", b"c");

/// The views at the beginning of the fold: those of the base, if there is one, put into `store`; else none.
pub fn begin(ledger: &Ledger, store: &Store) -> Result<View, StoreError> {
    let base = ledger.store();
    if base.range(BASE.0, BASE.1).next().is_none() {
        return Ok(View::default());
    }
    copy(base, store)?;
    View::load(store, ledger)
}

/// Makes the written views of `views` the base of `store`, and its written views; `keep` may leave out or change a value.
pub fn found(
    views: &Store,
    store: &Store,
    keep: impl Fn(&[u8], Vec<u8>) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<(), StoreError> {
    for prefix in [&b"b"[..], b""] {
        let mut batch = Batch::default();
        for entry in views.range(KEYS.0, KEYS.1) {
            let (key, value) = entry?;
            let Some(value) = keep(&key, value)? else { continue };
            batch.put([prefix, &key].concat(), value);
            if batch.len() == BATCH_MAX {
                store.apply(&std::mem::take(&mut batch))?;
            }
        }
        store.apply(&batch)?;
    }
    Ok(())
}

/// Copies the base into the views, their position last: until then a crash leaves views that do not count.
fn copy(from: &Store, to: &Store) -> Result<(), StoreError> {
    let mut position = None;
    let mut batch = Batch::default();
    for entry in from.range(BASE.0, BASE.1) {
        let (key, value) = entry?;
        match &key[1..] {
            super::POSITION => position = Some(value),
            key => batch.put(key, value),
        }
        if batch.len() == BATCH_MAX {
            to.apply(&std::mem::take(&mut batch))?;
        }
    }
    to.apply(&batch)?;
    position.map_or(Ok(()), |position| to.put(super::POSITION, &position))
}

/// Tells the stream and the sequence of each event of a visit whose plate a token stands for, as the views are written.
pub fn forgotten(views: &Store, tell: &mut dyn FnMut(u32, u64)) -> Result<(), StoreError> {
    for entry in views.range(b"vs", b"vt") {
        let (key, value) = entry?;
        let slots: Vec<Slot> = decode(&key, &value)?;
        let visits = slots.into_iter().filter_map(|slot| slot.visit);
        for (_, visit) in visits.filter(|(plate, _)| is_token(plate)) {
            let (first, last) = match visit {
                Visit::Stay { entry, end: End::Left(exit) } => (entry, Some(exit)),
                Visit::Stay { entry, .. } => (entry, None),
                Visit::Exit(exit) => (exit, None),
            };
            for passage in std::iter::once(first).chain(last).filter(|passage| !passage.is_made()) {
                tell(passage.stream(), passage.sequence);
            }
        }
    }
    Ok(())
}

/// A value of the views without those better readings of which `forgotten` says so, by the position and the place of their
/// event. None: nothing is left of it.
pub fn without_readings(
    key: &[u8],
    value: Vec<u8>,
    forgotten: impl Fn(u64, u8) -> Result<bool, StoreError>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(position) = key.strip_prefix(b"vr").and_then(|place| place.first_chunk()) else {
        return Ok(Some(value));
    };
    let position = u64::from_be_bytes(*position);
    let mut readings: Readings = decode(key, &value)?;
    for index in readings.keys().copied().collect::<Vec<u8>>() {
        if forgotten(position, index)? {
            readings.remove(&index);
        }
    }
    Ok((!readings.is_empty()).then(|| encode(&readings)))
}
