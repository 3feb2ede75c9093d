//! The facts of the ledger as values and as bytes: the content of each position.
//!
//! A record is a version byte, a checksum, then postcard of [`Record`], which begins with the kind. The checksum is the first 8 bytes of
//! BLAKE3 of the version byte and of what follows the checksum.

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
pub enum Record {
    /// A page as it was received.
    Page { stream: StreamId, received_at_ms: i64, page: SealedPage },
    /// `first..=last` will never come: they were acknowledged to the site, and this ledger does not have them.
    MissingRange {
        stream: StreamId,
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
    Moved { stream: StreamId, received_at_ms: i64 },
    /// A command of an operator, and the user who gave it.
    Command { received_at_ms: i64, by: String, command: Command },
    /// The records at positions `from..=to`, at least one and right before this one, were on disk once and are lost: the disk lost them,
    /// or an older copy was put in their place. Their numbers are never used again, so a position always means the same record.
    Truncated { received_at_ms: i64, from: u64, to: u64 },
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend([0; CHECKSUM]);
        let mut bytes = postcard::to_extend(self, bytes).expect("a record always encodes");
        let sum = record_checksum(&bytes[1 + CHECKSUM..]);
        bytes[1..=CHECKSUM].copy_from_slice(&sum);
        bytes
    }

    /// Decodes what [`Record::encode`] made of a record that can stand at this position. Any other value is [`StoreError::Damaged`].
    pub fn decode(position: u64, bytes: &[u8]) -> Result<Record, StoreError> {
        let damaged = |reason: &dyn fmt::Display| unreadable(position, reason);
        let (version, rest) = bytes.split_first().ok_or_else(|| damaged(&"it is empty"))?;
        if *version != VERSION {
            return Err(damaged(&format_args!("its form has version {version}")));
        }
        let (sum, body) = rest.split_first_chunk::<CHECKSUM>().ok_or_else(|| damaged(&"it is too short"))?;
        if *sum != record_checksum(body) {
            return Err(damaged(&"its checksum does not match"));
        }
        match postcard::from_bytes(body).map_err(|error| damaged(&error))? {
            Record::Truncated { from, to, .. }
                if from == 0 || from > to || to.checked_add(1) != Some(position) =>
            {
                Err(damaged(&format_args!(
                    "it records the loss of positions {from} to {to}, but these are not the positions before it"
                )))
            }
            record => Ok(record),
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

fn record_checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::Hasher::new().update(&[VERSION]).update(body).finalize();
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

    fn stream() -> StreamId {
        StreamId { site: SiteName::new("Bull Ring").unwrap(), epoch: Epoch::from_bytes([5; 16]) }
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
            assert_eq!(Record::decode(4001, &sound).unwrap(), record);
            for place in 0..sound.len() {
                let mut damaged = sound.clone();
                for bit in [0x10, 0x01] {
                    damaged[place] = sound[place] ^ bit;
                    let decoded = Record::decode(4001, &damaged);
                    assert!(matches!(decoded, Err(StoreError::Damaged { .. })), "byte {place} of {record:?}");
                }
            }
        }
    }

    #[test]
    fn a_loss_is_of_the_positions_right_before_its_record() {
        for (position, from, to) in [(4, 1, 3), (4, 3, 3), (u64::MAX, 1, u64::MAX - 1)] {
            let loss = Record::Truncated { received_at_ms: 7, from, to };
            assert_eq!(Record::decode(position, &loss.encode()).unwrap(), loss);
        }
        for (position, from, to) in [(4, 0, 3), (4, 1, 2), (4, 1, 4), (4, 4, 3), (0, 1, u64::MAX)] {
            let loss = Record::Truncated { received_at_ms: 7, from, to };
            let decoded = Record::decode(position, &loss.encode());
            assert!(matches!(decoded, Err(StoreError::Damaged { .. })), "{from} to {to} at {position}");
        }
    }

    /// Ledgers keep these bytes for good.
    #[test]
    fn a_record_has_the_same_bytes_in_every_version_of_the_program() {
        let digest = Digest::from_bytes([7; 16]);
        let page = SealedPage { digest, bytes: Bytes::from_static(&[1, 2]) };
        let (first, last, reason, told_by) = (9, 300, "r".to_owned(), Some(digest));
        let (site, received_at_ms) = (stream().site, 5);
        let command = Command::Piece { bytes: vec![8] };
        const NAME: &str = "\x09Bull Ring";
        const DIGEST: &str = "\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07";
        const EPOCH: &str = "\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05";
        let cases: [(Vec<&[u8]>, Record); 6] = [
            (
                vec![b"\x00", NAME.as_bytes(), EPOCH.as_bytes(), b"\x0a", DIGEST.as_bytes(), b"\x02\x01\x02"],
                Record::Page { stream: stream(), received_at_ms, page },
            ),
            (
                vec![
                    b"\x01",
                    NAME.as_bytes(),
                    EPOCH.as_bytes(),
                    b"\x0a\x09\xac\x02\x01r\x01",
                    DIGEST.as_bytes(),
                ],
                Record::MissingRange { stream: stream(), received_at_ms, first, last, reason, told_by },
            ),
            (
                vec![b"\x02", NAME.as_bytes(), b"\x0a\x07"],
                Record::Capacity { site, received_at_ms, capacity: 7 },
            ),
            (
                vec![b"\x03", NAME.as_bytes(), EPOCH.as_bytes(), b"\x0a"],
                Record::Moved { stream: stream(), received_at_ms },
            ),
            (
                vec![b"\x04\x0a\x02me\x06\x01\x08"],
                Record::Command { received_at_ms, by: "me".into(), command },
            ),
            (vec![b"\x05\x0a\x01\x02"], Record::Truncated { received_at_ms, from: 1, to: 2 }),
        ];
        for (body, record) in cases {
            let body = body.concat();
            let bytes = [&[VERSION][..], &record_checksum(&body), &body].concat();
            assert_eq!(record.encode(), bytes, "{record:?}");
            assert_eq!(Record::decode(3, &bytes).unwrap(), record);
        }
    }
}
