//! Reads everything that sled can still return from a damaged store without frames, which an earlier version created.
//!
//! **Promise.** Every value that a walk reaches, or that sled finds by its key, is read. Nothing else is.
//! **Not promised.** That a store which sled does not open can be read: without frames, only sled knows where its values stand.
//!
//! A walk and a lookup by key take different paths through sled's tree, and damage interrupts them at different places. Keys that
//! end in a number of eight bytes, as pages and records have, are looked up one by one where a walk shows a gap.

use super::{Store, StoreError};

pub(super) type Give<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// A longer gap in the numbers of keys is not a gap but another epoch, or another kind of key.
const GAP_MAX: u64 = 1 << 17;

/// Gives every value of `store` that can be read. The same key may be given twice.
pub(super) fn read_all(store: &Store, give: &mut Give<'_>) -> Result<(), StoreError> {
    let mut from = vec![1];
    let mut before: Option<Vec<u8>> = None;
    // How far the walk jumps over what it cannot get through.
    let mut jump = 1;
    loop {
        let mut walk = store.range(&from, &[u8::MAX]);
        let stopped = loop {
            match walk.next() {
                None => break false,
                Some(Err(_)) => break true,
                Some(Ok((key, value))) => {
                    look_between(store, before.as_deref(), Some(&key), give)?;
                    give(&key, &value)?;
                    (before, jump) = (Some(key), 1);
                }
            }
        };
        if !stopped {
            return look_between(store, before.as_deref(), None, give);
        }
        let last = before.as_deref().filter(|key| *key >= &from[..]).unwrap_or(&from);
        let next = match parts(last) {
            Some((prefix, number)) if jump <= GAP_MAX => {
                number.checked_add(jump).map(|number| key_of(prefix, number))
            }
            _ => None,
        };
        jump = jump.saturating_mul(2);
        from = match (next, from[0].checked_add(1)) {
            (Some(next), _) => next,
            // The next kind of keys.
            (None, Some(kind)) if kind < u8::MAX => {
                jump = 1;
                vec![kind]
            }
            (None, _) => return Ok(()),
        };
    }
}

/// Looks for the keys whose numbers lie between two that follow each other in a walk, or behind the last one of its kind.
fn look_between(
    store: &Store,
    before: Option<&[u8]>,
    after: Option<&[u8]>,
    give: &mut Give<'_>,
) -> Result<(), StoreError> {
    let Some((prefix, first)) = before.and_then(parts) else { return Ok(()) };
    let end = match after.and_then(parts) {
        Some((same, end)) if same == prefix => end,
        _ => first.saturating_add(GAP_MAX),
    };
    if end.saturating_sub(first) > GAP_MAX {
        return Ok(());
    }
    for number in first + 1..end {
        let key = key_of(prefix, number);
        if let Ok(Some(value)) = store.get(&key) {
            give(&key, &value)?;
        }
    }
    Ok(())
}

fn parts(key: &[u8]) -> Option<(&[u8], u64)> {
    let (prefix, number) = key.split_last_chunk()?;
    (!prefix.is_empty()).then(|| (prefix, u64::from_be_bytes(*number)))
}

fn key_of(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}
