//! The keys of everything that an outbox stores, and what is stored of its epochs.
//!
//! | key | value |
//! | --- | --- |
//! | `e` + epoch index (u32) | an [`EpochRecord`]: a version byte, then postcard |
//! | `p` + epoch index (u32) + first sequence (u64) | a [`SealedPage`](super::super::page::SealedPage) |
//! | `d` + epoch index (u32) + first sequence (u64) | a page that could not be read, as it was found |
//! | `a` | epoch index (u32), highest acknowledged sequence (u64); a hint: it may be behind |
//! | `k` + number (u64) | keys of acknowledged messages, see [`super::keys`] |
//! | `l` | the id of the ledger that this outbox delivers to, 16 bytes |
//! | `h` | the id of the machine that wrote this last, 16 bytes |
//!
//! Numbers are big-endian. Epochs are delivered in the order of their rank, oldest first; new messages belong to the last one.

use super::super::{Digest, Epoch};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};

/// The number that an outbox gave to one of its epochs. It is reused after 32,767 others at the earliest, and only when nothing
/// of its last epoch is stored.
pub type EpochIndex = u32;

pub(super) const ACKNOWLEDGED: &[u8] = b"a";
pub(super) const LEDGER: &[u8] = b"l";
pub(super) const MACHINE: &[u8] = b"h";

/// What is stored of an epoch in addition to its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochRecord {
    pub epoch: Epoch,
    pub rank: u64,
    /// The epoch whose messages are being moved here, and the first sequence that moves. An opening continues an interrupted move.
    pub takes_over: Option<(EpochIndex, u64)>,
    /// The epoch whose messages were moved here, once all of them were moved: any remains of that epoch are ignored.
    pub took_over: Option<EpochIndex>,
}

impl EpochRecord {
    pub fn new(epoch: Epoch, rank: u64) -> EpochRecord {
        EpochRecord { epoch, rank, takes_over: None, took_over: None }
    }
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![2]).expect("the record of an epoch always encodes")
    }
    pub fn decode(bytes: &[u8]) -> Option<EpochRecord> {
        match bytes.split_first() {
            Some((2, body)) => postcard::from_bytes(body).ok(),
            Some((1, body)) => {
                let (epoch, rank, takes_over) = postcard::from_bytes(body).ok()?;
                Some(EpochRecord { epoch, rank, takes_over, took_over: None })
            }
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch_index: EpochIndex,
    pub epoch: Epoch,
    /// The oldest sequence stored, or the next one.
    pub oldest: u64,
    /// The highest acknowledged sequence that is known, 0 for none.
    pub acknowledged: u64,
    /// The last sequence on disk, 0 for none.
    pub durable: u64,
}

#[derive(Debug, Clone)]
pub(super) struct StoredEpoch {
    pub index: EpochIndex,
    pub rank: u64,
    pub epoch: Epoch,
    /// The sequence after the last one on disk.
    pub next: u64,
    /// The first sequence of the oldest and of the newest page stored, while there is any.
    pub oldest_first: Option<u64>,
    pub newest_first: Option<u64>,
    pub newest_digest: Option<Digest>,
    pub acknowledged: u64,
    pub bytes: u64,
    /// Copied from [`EpochRecord::took_over`].
    pub took_over: Option<EpochIndex>,
}

impl StoredEpoch {
    pub fn begin(index: EpochIndex, rank: u64, epoch: Epoch) -> StoredEpoch {
        StoredEpoch {
            index,
            rank,
            epoch,
            next: 1,
            oldest_first: None,
            newest_first: None,
            newest_digest: None,
            acknowledged: 0,
            bytes: 0,
            took_over: None,
        }
    }
    pub fn record(&self) -> EpochRecord {
        EpochRecord { took_over: self.took_over, ..EpochRecord::new(self.epoch, self.rank) }
    }
    pub fn position(&self) -> Position {
        Position {
            epoch_index: self.index,
            epoch: self.epoch,
            oldest: self.oldest(),
            acknowledged: self.acknowledged,
            durable: self.next - 1,
        }
    }
    pub fn depth(&self) -> u64 {
        self.next - 1 - self.acknowledged
    }
    pub fn oldest(&self) -> u64 {
        self.oldest_first.unwrap_or(self.next)
    }
    pub fn push_page(&mut self, first: u64, last: u64, digest: Digest, bytes: u64) {
        self.oldest_first.get_or_insert(first);
        self.newest_first = Some(first);
        self.newest_digest = Some(digest);
        self.next = last + 1;
        self.bytes += bytes;
    }
}

pub(super) fn epoch_key(index: EpochIndex) -> Vec<u8> {
    [b"e", &index.to_be_bytes()[..]].concat()
}

pub(super) fn parse_epoch_key(key: &[u8]) -> Option<EpochIndex> {
    Some(EpochIndex::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

pub(super) fn page_key(index: EpochIndex, first: u64) -> Vec<u8> {
    [b"p", &index.to_be_bytes()[..], &first.to_be_bytes()].concat()
}

pub(super) fn page_keys(index: EpochIndex) -> (Vec<u8>, Vec<u8>) {
    (page_key(index, 0), page_key(index, u64::MAX))
}

/// The key under which an unreadable page is kept: its own, with another first letter.
pub(super) fn aside_key(page_key: &[u8]) -> Vec<u8> {
    [b"d", &page_key[1..]].concat()
}

pub(super) fn parse_page_key(key: &[u8]) -> Option<(EpochIndex, u64)> {
    decode_acknowledged(key.get(1..)?)
}

pub(super) fn first_in(key: &[u8]) -> Result<u64, StoreError> {
    parse_page_key(key).map(|(_, first)| first).ok_or_else(|| StoreError::Damaged {
        place: format!("key {key:02x?}"),
        reason: "it has the wrong length".into(),
    })
}

pub(super) fn encode_acknowledged(index: EpochIndex, through: u64) -> Vec<u8> {
    [&index.to_be_bytes()[..], &through.to_be_bytes()].concat()
}

pub(super) fn decode_acknowledged(value: &[u8]) -> Option<(EpochIndex, u64)> {
    let (index, through) = value.split_first_chunk::<4>()?;
    Some((EpochIndex::from_be_bytes(*index), u64::from_be_bytes(through.try_into().ok()?)))
}
