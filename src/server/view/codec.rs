//! How the views are stored: encoded values, numbers in keys, and functions that read both.

use crate::messaging::SiteName;
use crate::store::{Store, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::Range;

const VALUE_VERSION: u8 = 1;

pub fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VALUE_VERSION]).expect("it always encodes")
}

pub fn decode<'a, T: Deserialize<'a>>(key: &[u8], value: &'a [u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((&VALUE_VERSION, body)) => postcard::from_bytes(body).map_err(|_| damaged(key)),
        _ => Err(damaged(key)),
    }
}

pub fn read<T: DeserializeOwned>(store: &Store, key: &[u8]) -> Result<Option<T>, StoreError> {
    store.get(key)?.map(|value| decode(key, &value)).transpose()
}

pub fn read_range<'a, T: DeserializeOwned>(
    store: &'a Store,
    from: &[u8],
    to: &[u8],
) -> impl Iterator<Item = Result<(Vec<u8>, T), StoreError>> + use<'a, T> {
    store.range(from, to).map(|entry| {
        let (key, value) = entry?;
        let value = decode(&key, &value)?;
        Ok((key, value))
    })
}

pub fn key_u64(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

pub fn key_u32(prefix: &[u8], number: u32) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

/// The number with which a key ends, from the byte `at` on.
pub fn u64_from(key: &[u8], at: usize) -> Result<u64, StoreError> {
    sized(key, at..key.len()).map(u64::from_be_bytes)
}

/// The number with which a key ends, from the byte `at` on.
pub fn u32_from(key: &[u8], at: usize) -> Result<u32, StoreError> {
    sized(key, at..key.len()).map(u32::from_be_bytes)
}

/// A part of a key, or of a value without a version, that has this length.
pub fn sized<const N: usize>(bytes: &[u8], part: Range<usize>) -> Result<[u8; N], StoreError> {
    bytes.get(part).and_then(|part| part.try_into().ok()).ok_or_else(|| damaged(bytes))
}

/// The name with which a key ends, from the byte `at` on.
pub fn name_in(key: &[u8], at: usize) -> Result<SiteName, StoreError> {
    let name = key.get(at..).and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| SiteName::new(name).ok()).ok_or_else(|| damaged(key))
}

pub fn damaged(key: &[u8]) -> StoreError {
    StoreError::Damaged {
        place: format!("the view's key {key:02x?}"),
        reason: "it has the wrong form".into(),
    }
}

/// The page that was read last. The next link of a chain is often in the same page.
#[derive(Debug)]
pub struct LastPage<P, T>(Option<(P, Vec<T>)>);

impl<P, T> Default for LastPage<P, T> {
    fn default() -> LastPage<P, T> {
        LastPage(None)
    }
}

impl<P: Copy + PartialEq, T> LastPage<P, T> {
    pub fn get(
        &mut self,
        place: P,
        read: impl FnOnce() -> Result<Vec<T>, StoreError>,
    ) -> Result<&[T], StoreError> {
        if self.0.as_ref().is_none_or(|(last, _)| *last != place) {
            self.0 = Some((place, read()?));
        }
        Ok(&self.0.as_ref().expect("it was just read").1)
    }

    pub fn forget(&mut self) {
        self.0 = None;
    }
}
