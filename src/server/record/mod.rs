//! The facts of the ledger as values and as bytes: the content of each position.
//!
//! A record is a version byte, the checksum of what follows, then postcard. A checksum is the first 8 bytes of BLAKE3.

mod command;

pub use command::{BadPlace, Command, QuarantinePlace, ToForget};

use crate::messaging::page::SealedPage;
use crate::messaging::{Digest, SiteName};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the records that this program writes.
pub const VERSION: u8 = 2;

/// Length of a [`checksum`].
const CHECKSUM: usize = 8;

/// The content of one position of the ledger. New kinds are added at the end: a kind is stored as its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A page as it was received.
    Page { stream: u32, received_at_ms: i64, page: SealedPage },
    /// `first..=last` will never come: they were acknowledged to the site, and this ledger does not have them.
    MissingRange {
        stream: u32,
        received_at_ms: i64,
        first: u64,
        last: u64,
        reason: String,
        /// Digest of the page that reported it; none when the ledger detected it itself.
        told_by: Option<Digest>,
    },
    /// A garage reported a capacity that it had not reported before.
    Capacity { site: SiteName, received_at_ms: i64, capacity: u32 },
    /// A stream in conflict was asked to move what it had not delivered to a new epoch, as an operator had decided.
    Moved { stream: u32, received_at_ms: i64 },
    /// A command of an operator, and the user who gave it.
    Command { received_at_ms: i64, by: String, command: Command },
    /// The records at positions `from..=to`, right before this one, were on disk once and are lost: the disk lost them, or an
    /// older copy was put in their place. Their numbers are never used again, so a position always means the same record.
    Truncated { received_at_ms: i64, from: u64, to: u64 },
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend([0; CHECKSUM]);
        let mut bytes = postcard::to_extend(self, bytes).expect("a record always encodes");
        let sum = checksum(&bytes[1 + CHECKSUM..]);
        bytes[1..=CHECKSUM].copy_from_slice(&sum);
        bytes
    }

    /// Decodes what [`Record::encode`] made. Any other value is [`StoreError::Damaged`].
    pub fn decode(position: u64, bytes: &[u8]) -> Result<Record, StoreError> {
        let damaged = |reason: &dyn fmt::Display| unreadable(position, reason);
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                let body = summed(rest).ok_or_else(|| damaged(&"its checksum does not match"))?;
                postcard::from_bytes(body).map_err(|error| damaged(&error))
            }
            Some((version, _)) => Err(damaged(&format_args!("its form has version {version}"))),
            None => Err(damaged(&"it is empty")),
        }
    }
}

/// The record at a position cannot be read.
pub fn unreadable(position: u64, reason: impl fmt::Display) -> StoreError {
    StoreError::Damaged { place: format!("ledger position {position}"), reason: reason.to_string() }
}

pub fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

/// The bytes after a checksum, if the checksum matches.
pub fn summed(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, body) = bytes.split_first_chunk::<CHECKSUM>()?;
    (*sum == checksum(body)).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_in_a_record_is_noticed() {
        let site = SiteName::new("Bull Ring").unwrap();
        let records = [
            Record::Capacity { site: site.clone(), received_at_ms: 7, capacity: 500 },
            Record::Moved { stream: 3, received_at_ms: -1 },
            Record::Truncated { received_at_ms: 7, from: 3201, to: 4000 },
        ];
        for record in records {
            let sound = record.encode();
            assert_eq!(Record::decode(1, &sound).unwrap(), record);
            for place in 0..sound.len() {
                let mut damaged = sound.clone();
                damaged[place] ^= 0x10;
                let decoded = Record::decode(1, &damaged);
                assert!(matches!(decoded, Err(StoreError::Damaged { .. })), "at byte {place} of {record:?}");
            }
        }
    }
}
