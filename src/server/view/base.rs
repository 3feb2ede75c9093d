//! The base: the views at a position, from which they are folded when what came before cannot be folded any more.
//!
//! A compacted ledger has lost plates on purpose, so that its first records do not say any more what the views were. It keeps
//! the views at the position of its compaction beside them; folding anew begins there.
//!
//! | key | value |
//! | --- | --- |
//! | `b` + a key of the views | what stood under it |

use super::{KEYS, View};
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
    keep: impl Fn(&[u8], Vec<u8>) -> Option<Vec<u8>>,
) -> Result<(), StoreError> {
    for prefix in [&b"b"[..], b""] {
        let mut batch = Batch::default();
        for entry in views.range(KEYS.0, KEYS.1) {
            let (key, value) = entry?;
            let Some(value) = keep(&key, value) else { continue };
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
