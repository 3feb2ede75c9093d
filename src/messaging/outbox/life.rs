//! The epochs that an outbox holds, and the keys of everything that it stores.
//!
//! | key | value |
//! | --- | --- |
//! | `e` + life (u32) | an [`Entry`]: a version byte, then postcard |
//! | `p` + life (u32) + first sequence (u64) | a [`SealedPage`](super::super::page::SealedPage) |
//! | `d` + life (u32) + first sequence (u64) | a page that could not be read, as it was found |
//! | `a` | life (u32), highest acknowledged sequence (u64); a hint: it may be behind |
//! | `k` + number (u64) | keys of acknowledged messages, see [`super::keys`] |
//! | `l` | the id of the ledger that this outbox delivers to, 16 bytes |
//! | `h` | which machine wrote this last, 16 bytes |
//!
//! Numbers are big-endian. A *life* is the number that this outbox gave to an epoch. It is given again at the earliest after 32,767
//! others, when nothing of the former epoch is stored. Lives are delivered in the order of their rank, oldest first; new messages belong to the last one.

use super::super::{Digest, Epoch};
use super::pages::Position;
use crate::store::StoreError;
use serde::{Deserialize, Serialize};

pub(super) const ACKNOWLEDGED: &[u8] = b"a";
pub(super) const LEDGER: &[u8] = b"l";
pub(super) const MACHINE: &[u8] = b"h";

/// What is stored of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub epoch: Epoch,
    pub rank: u64,
    /// The life whose messages are being moved here, and from which sequence on. What a crash interrupted goes on at the next
    /// opening.
    pub takes_over: Option<(u32, u64)>,
    /// The life whose messages were moved here, once all of them were: whatever is found of it does not count.
    pub took_over: Option<u32>,
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![2]).expect("an entry always encodes")
    }
    pub fn decode(bytes: &[u8]) -> Option<Entry> {
        match bytes.split_first() {
            Some((2, body)) => postcard::from_bytes(body).ok(),
            Some((1, body)) => {
                let (epoch, rank, takes_over) = postcard::from_bytes(body).ok()?;
                Some(Entry { epoch, rank, takes_over, took_over: None })
            }
            _ => None,
        }
    }
}

/// An epoch in this outbox, as far as its pages go.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub number: u32,
    pub rank: u64,
    pub epoch: Epoch,
    /// The sequence that comes after the last one on disk.
    pub next: u64,
    /// The first sequence of the oldest and of the newest page stored, while there is any.
    pub oldest_first: Option<u64>,
    pub newest_first: Option<u64>,
    /// Of the newest page as it is stored.
    pub newest_digest: Option<Digest>,
    pub acknowledged: u64,
    /// Of its pages.
    pub bytes: u64,
    /// See [`Entry::took_over`].
    pub took_over: Option<u32>,
}

impl Life {
    pub fn begin(number: u32, rank: u64, epoch: Epoch) -> Life {
        Life {
            number,
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
    pub fn entry(&self) -> Entry {
        Entry { epoch: self.epoch, rank: self.rank, takes_over: None, took_over: self.took_over }
    }
    pub fn position(&self) -> Position {
        Position {
            life: self.number,
            epoch: self.epoch,
            oldest: self.oldest(),
            acknowledged: self.acknowledged,
            durable: self.next - 1,
        }
    }
    /// How many messages wait.
    pub fn depth(&self) -> u64 {
        self.next - 1 - self.acknowledged
    }
    /// The oldest sequence stored, or the next one.
    pub fn oldest(&self) -> u64 {
        self.oldest_first.unwrap_or(self.next)
    }
}

pub(super) fn entry_key(life: u32) -> Vec<u8> {
    [b"e", &life.to_be_bytes()[..]].concat()
}

pub(super) fn page_key(life: u32, first: u64) -> Vec<u8> {
    [b"p", &life.to_be_bytes()[..], &first.to_be_bytes()].concat()
}

/// Where a page that cannot be read is kept: under its own key, with another first letter.
pub(super) fn aside_key(page_key: &[u8]) -> Vec<u8> {
    [b"d", &page_key[1..]].concat()
}

/// The life and the first sequence in a page's key.
pub(super) fn parse_page_key(key: &[u8]) -> Option<(u32, u64)> {
    let (life, first) = key.get(1..)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*life), u64::from_be_bytes(first.try_into().ok()?)))
}

pub(super) fn first_in(key: &[u8]) -> Result<u64, StoreError> {
    parse_page_key(key).map(|(_, first)| first).ok_or_else(|| StoreError::Damaged {
        place: format!("key {key:02x?}"),
        reason: "it has the wrong length".into(),
    })
}

pub(super) fn encode_acknowledged(life: u32, through: u64) -> Vec<u8> {
    [&life.to_be_bytes()[..], &through.to_be_bytes()].concat()
}

pub(super) fn decode_acknowledged(value: &[u8]) -> Option<(u32, u64)> {
    let (life, through) = value.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*life), u64::from_be_bytes(through.try_into().ok()?)))
}
