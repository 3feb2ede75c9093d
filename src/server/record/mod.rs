//! The facts of the ledger as values and as bytes: the content of each position.
//!
//! A record is a version byte, a checksum, then postcard. A checksum is the first 8 bytes of BLAKE3.
//!
//! | version | checksum of | postcard of |
//! | --- | --- | --- |
//! | 3 | the version byte, and what follows the checksum | [`Record`]: pages, missing ranges and moves name their stream by site and epoch |
//! | 2: read, and no longer written | what follows the checksum | [`Record<u32>`]: they name it by the number that its ledger gave it |

mod command;
pub mod documents;

pub use command::{BadPlace, Command, QuarantinePlace, ToForget};

use crate::messaging::page::SealedPage;
use crate::messaging::{Digest, Epoch, SiteName};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the records that this program writes.
pub const VERSION: u8 = 3;

/// Version of the records that name streams by number.
const NUMBERED: u8 = 2;

const CHECKSUM: usize = 8;

/// The sequences of one epoch of a site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    pub site: SiteName,
    pub epoch: Epoch,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "garage {:?}, epoch {}", self.site.as_str(), self.epoch)
    }
}

/// The content of one position of the ledger. New kinds are added at the end: a kind is stored as its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<S = StreamId> {
    /// A page as it was received.
    Page { stream: S, received_at_ms: i64, page: SealedPage },
    /// `first..=last` will never come: they were acknowledged to the site, and this ledger does not have them.
    MissingRange {
        stream: S,
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
    Moved { stream: S, received_at_ms: i64 },
    /// A command of an operator, and the user who gave it.
    Command { received_at_ms: i64, by: String, command: Command },
    /// The records at positions `from..=to`, at least one and right before this one, were on disk once and are lost: the disk lost them,
    /// or an older copy was put in their place. Their numbers are never used again, so a position always means the same record.
    Truncated { received_at_ms: i64, from: u64, to: u64 },
}

pub enum StoredRecord {
    Named(Record),
    Numbered(Record<u32>),
}

impl StoredRecord {
    /// Reads what [`Record::encode`] made, or made in version 2, of a record that can stand at this position. Any other value is
    /// [`StoreError::Damaged`].
    pub fn read(position: u64, bytes: &[u8]) -> Result<StoredRecord, StoreError> {
        let damaged = |reason: &dyn fmt::Display| unreadable(position, reason);
        let (version, rest) = bytes.split_first().ok_or_else(|| damaged(&"it is empty"))?;
        if ![VERSION, NUMBERED].contains(version) {
            return Err(damaged(&format_args!("its form has version {version}")));
        }
        let (sum, body) = rest.split_first_chunk::<CHECKSUM>().ok_or_else(|| damaged(&"it is too short"))?;
        if *sum != record_checksum(*version, body) {
            return Err(damaged(&"its checksum does not match"));
        }
        let read = match *version {
            NUMBERED => postcard::from_bytes(body).map(StoredRecord::Numbered),
            _ => postcard::from_bytes(body).map(StoredRecord::Named),
        };
        match read.map_err(|error| damaged(&error))? {
            StoredRecord::Named(Record::Truncated { from, to, .. })
            | StoredRecord::Numbered(Record::Truncated { from, to, .. })
                if from == 0 || from > to || to.checked_add(1) != Some(position) =>
            {
                Err(damaged(&format_args!(
                    "it records the loss of positions {from} to {to}, but these are not the positions before it"
                )))
            }
            record => Ok(record),
        }
    }
}

impl<S> Record<S> {
    /// The same record with its stream said otherwise.
    pub fn with_stream<T, E>(self, of: impl FnOnce(S) -> Result<T, E>) -> Result<Record<T>, E> {
        Ok(match self {
            Record::Page { stream, received_at_ms, page } => {
                Record::Page { stream: of(stream)?, received_at_ms, page }
            }
            Record::MissingRange { stream, received_at_ms, first, last, reason, told_by } => {
                Record::MissingRange { stream: of(stream)?, received_at_ms, first, last, reason, told_by }
            }
            Record::Moved { stream, received_at_ms } => Record::Moved { stream: of(stream)?, received_at_ms },
            Record::Capacity { site, received_at_ms, capacity } => {
                Record::Capacity { site, received_at_ms, capacity }
            }
            Record::Command { received_at_ms, by, command } => {
                Record::Command { received_at_ms, by, command }
            }
            Record::Truncated { received_at_ms, from, to } => Record::Truncated { received_at_ms, from, to },
        })
    }
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend([0; CHECKSUM]);
        let mut bytes = postcard::to_extend(self, bytes).expect("a record always encodes");
        let sum = record_checksum(VERSION, &bytes[1 + CHECKSUM..]);
        bytes[1..=CHECKSUM].copy_from_slice(&sum);
        bytes
    }

    /// Decodes what [`Record::encode`] made, as [`StoredRecord::read`] does; `name` gives the streams that a record of version 2
    /// numbers. Any other value is [`StoreError::Damaged`].
    pub fn decode(
        position: u64,
        bytes: &[u8],
        name: impl FnOnce(u32) -> Option<StreamId>,
    ) -> Result<Record, StoreError> {
        match StoredRecord::read(position, bytes)? {
            StoredRecord::Named(record) => Ok(record),
            StoredRecord::Numbered(record) => record.with_stream(|number| {
                let reason = format_args!("it names stream {number}, which there is not");
                name(number).ok_or_else(|| unreadable(position, reason))
            }),
        }
    }

    pub fn stream(&self) -> Option<&StreamId> {
        match self {
            Record::Page { stream, .. }
            | Record::MissingRange { stream, .. }
            | Record::Moved { stream, .. } => Some(stream),
            Record::Capacity { .. } | Record::Command { .. } | Record::Truncated { .. } => None,
        }
    }
}

/// What is wrong with the record of a page whose events are lost: their loss has a record of its own kind.
pub const PAGE_OF_LOST_EVENTS: &str =
    "it is a page that reports lost events, in a place where events were applied";

pub fn unreadable(position: u64, reason: impl fmt::Display) -> StoreError {
    StoreError::Damaged { place: format!("ledger position {position}"), reason: reason.to_string() }
}

/// From version 3 on it covers the version: otherwise one flipped bit would turn a record into another one of version 2.
fn record_checksum(version: u8, body: &[u8]) -> [u8; CHECKSUM] {
    if version == NUMBERED {
        return checksum(body);
    }
    let hash = blake3::Hasher::new().update(&[version]).update(body).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is longer")
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
pub mod tests {
    use super::*;
    use bytes::Bytes;

    /// The record as a program of version 2 wrote it.
    pub fn encode_version_2(record: &Record<u32>) -> Vec<u8> {
        let body = postcard::to_stdvec(record).unwrap();
        [&[NUMBERED][..], &checksum(&body), &body].concat()
    }

    fn stream() -> StreamId {
        StreamId { site: SiteName::new("Bull Ring").unwrap(), epoch: Epoch::from_bytes([5; 16]) }
    }

    fn name(number: u32) -> Option<StreamId> {
        (number == 3).then(stream)
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_record_is_noticed() {
        let records = [
            Record::Capacity { site: stream().site, received_at_ms: 7, capacity: 500 },
            Record::Moved { stream: stream(), received_at_ms: -1 },
            Record::Truncated { received_at_ms: 7, from: 3201, to: 4000 },
        ];
        for record in records {
            let sound = record.encode();
            assert_eq!(Record::decode(4001, &sound, name).unwrap(), record);
            for place in 0..sound.len() {
                let mut damaged = sound.clone();
                for bit in [0x10, 0x01] {
                    damaged[place] = sound[place] ^ bit;
                    let decoded = Record::decode(4001, &damaged, name);
                    assert!(matches!(decoded, Err(StoreError::Damaged { .. })), "byte {place} of {record:?}");
                }
            }
        }
    }

    #[test]
    fn a_loss_is_of_the_positions_right_before_its_record() {
        for (position, from, to) in [(4, 1, 3), (4, 3, 3), (u64::MAX, 1, u64::MAX - 1)] {
            let loss = Record::Truncated { received_at_ms: 7, from, to };
            assert_eq!(Record::decode(position, &loss.encode(), name).unwrap(), loss);
        }
        for (position, from, to) in [(4, 0, 3), (4, 1, 2), (4, 1, 4), (4, 4, 3), (0, 1, u64::MAX)] {
            let loss = Record::Truncated { received_at_ms: 7, from, to };
            let decoded = Record::decode(position, &loss.encode(), name);
            assert!(matches!(decoded, Err(StoreError::Damaged { .. })), "{from} to {to} at {position}");
        }
    }

    /// Ledgers keep these bytes for good.
    #[test]
    fn records_of_version_2_are_read_and_their_streams_are_named() {
        let digest = Digest::from_bytes([7; 16]);
        let page = SealedPage { digest, bytes: Bytes::from_static(&[1, 2]) };
        let (first, last, reason, told_by) = (9, 300, "r".to_owned(), Some(digest));
        let (site, received_at_ms) = (stream().site, 5);
        let command = Command::Piece { bytes: vec![8] };
        let cases: [(&[u8], Record); 6] = [
            (
                b"\x00\x03\x0a\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x02\x01\x02",
                Record::Page { stream: stream(), received_at_ms, page },
            ),
            (
                b"\x01\x03\x0a\x09\xac\x02\x01r\x01\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07",
                Record::MissingRange { stream: stream(), received_at_ms, first, last, reason, told_by },
            ),
            (b"\x02\x09Bull Ring\x0a\x07", Record::Capacity { site, received_at_ms, capacity: 7 }),
            (b"\x03\x03\x0a", Record::Moved { stream: stream(), received_at_ms }),
            (b"\x04\x0a\x02me\x06\x01\x08", Record::Command { received_at_ms, by: "me".into(), command }),
            (b"\x05\x0a\x01\x02", Record::Truncated { received_at_ms, from: 1, to: 2 }),
        ];
        for (body, record) in cases {
            let bytes = [&[2][..], &checksum(body), body].concat();
            assert_eq!(Record::decode(3, &bytes, name).unwrap(), record);
            let numbered = record.clone().with_stream(|_| Ok::<_, ()>(3)).unwrap();
            assert_eq!(encode_version_2(&numbered), bytes);
            let unnamed = Record::decode(3, &bytes, |_| None);
            assert_eq!(unnamed.is_err(), record.stream().is_some(), "{record:?}");
        }
    }
}
