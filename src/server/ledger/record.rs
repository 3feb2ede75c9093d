//! What stands at a position of the ledger, as bytes.
//!
//! | key | value |
//! | --- | --- |
//! | `i` | the ledger's id, 16 bytes |
//! | `s` + stream (u32) | the epoch's 16 bytes, then the site's name |
//! | `m` + stream (u32) | the mark: the highest sequence applied (u64), the digest of its page (16 bytes) |
//! | `r` + position (u64) | a [`Record`]: a version byte, then postcard |
//! | `x` + stream (u32) + first sequence (u64) | the position of that page (u64) |
//!
//! Numbers are big-endian. A stream is the number that this ledger gave to a (site, epoch). Views keep their own
//! keys: see `server::view`.

use crate::messaging::page::SealedPage;
use crate::messaging::receiver::Mark;
use crate::messaging::{Digest, Epoch, SiteName};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};

/// The form of a record that this program writes.
pub const VERSION: u8 = 1;

/// One entry of the ledger. New kinds are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A page as it was received.
    Page { stream: u32, received_at_ms: i64, page: SealedPage },
    /// `first..=last` will never come: the site was told that they are safe, and this ledger does not have them.
    Hole {
        stream: u32,
        received_at_ms: i64,
        first: u64,
        last: u64,
        reason: String,
        /// Of the page that told it; none when the ledger found it out itself.
        told_by: Option<Digest>,
    },
    /// A garage told a capacity that it had not told before.
    Capacity { site: SiteName, received_at_ms: i64, capacity: u32 },
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("a record always encodes")
    }

    pub fn decode(position: u64, bytes: &[u8]) -> Result<Record, StoreError> {
        let damaged =
            |reason: String| StoreError::Damaged { place: format!("ledger position {position}"), reason };
        match bytes.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|error| damaged(error.to_string())),
            Some((version, _)) => Err(damaged(format!("its form has version {version}"))),
            None => Err(damaged("it is empty".into())),
        }
    }
}

pub const LEDGER_ID: &[u8] = b"i";

pub fn stream_key(stream: u32) -> Vec<u8> {
    [b"s", &stream.to_be_bytes()[..]].concat()
}
pub fn stream_value(site: &SiteName, epoch: Epoch) -> Vec<u8> {
    [&epoch.to_bytes(), site.as_str().as_bytes()].concat()
}
pub fn mark_key(stream: u32) -> Vec<u8> {
    [b"m", &stream.to_be_bytes()[..]].concat()
}
pub fn record_key(position: u64) -> Vec<u8> {
    [b"r", &position.to_be_bytes()[..]].concat()
}
pub fn index_key(stream: u32, first: u64) -> Vec<u8> {
    [b"x", &stream.to_be_bytes()[..], &first.to_be_bytes()].concat()
}

pub fn mark_value(mark: Mark) -> Vec<u8> {
    let mut value = mark.sequence.to_be_bytes().to_vec();
    value.extend(mark.digest.iter().flat_map(|digest| *digest.as_bytes()));
    value
}
pub fn decode_mark(value: &[u8]) -> Result<Mark, StoreError> {
    let damaged = || StoreError::Damaged { place: "a mark".into(), reason: "it has the wrong length".into() };
    let (sequence, digest) = value.split_first_chunk::<8>().ok_or_else(damaged)?;
    let digest = match digest {
        [] => None,
        digest => Some(Digest::from_bytes(digest.try_into().map_err(|_| damaged())?)),
    };
    Ok(Mark { sequence: u64::from_be_bytes(*sequence), digest })
}

/// The big-endian number at the end of a key, or a whole value.
pub fn trailing_u64(bytes: &[u8]) -> Result<u64, StoreError> {
    match bytes.last_chunk::<8>() {
        Some(number) => Ok(u64::from_be_bytes(*number)),
        None => Err(StoreError::Damaged {
            place: format!("{bytes:02x?}"),
            reason: "a number of 8 bytes is missing".into(),
        }),
    }
}
