//! The protocol between a sender and a receiver, version 2. This documentation is its specification.
//!
//! # Transport
//! Every exchange is begun by the sender: one request, one reply. Over ZeroMQ both are multipart messages of an
//! empty delimiter frame and one body frame, so that a DEALER and a plain REQ socket are served alike (REQ adds and
//! removes the delimiter itself; RFC 28/REQREP). A request's body is at most [`REQUEST_MAX`] bytes, a reply's
//! at most [`REPLY_MAX`].
//!
//! # Envelope
//! ```text
//! 66 6F 67 70   "fogp"
//! 02            version
//! …             the body: Request or Reply, in postcard (https://postcard.jamesmunns.com/wire-format)
//! ```
//! In postcard unsigned integers are little-endian base-128 varints, signed ones zigzag first; strings, byte
//! strings and sequences carry their length as a varint; options are 00, or 01 and the value; an enum is its
//! variant's number as a varint, then its fields; fields follow in the order below without names. Epochs, ledger
//! ids (UUIDs) and digests are 16 plain bytes.
//!
//! # Request
//! | field | type | meaning |
//! | --- | --- | --- |
//! | id | u64 | chosen by the sender, given back in the reply |
//! | site | string | the name of the sender: 1 to 64 bytes of printable UTF-8, NFC |
//! | epoch | 16 bytes | the epoch of the outbox that `pages` belong to |
//! | oldest | u64 | the oldest sequence that the sender still has in this epoch, or its next one when it has none |
//! | ledger | option of 16 bytes | the ledger that the pages are for; a receiver that keeps another one applies nothing |
//! | instance | u64 | drawn when the sender's process started: two at a time under one name are noticed by it |
//! | clock_ms | i64 | the sender's wall clock when it sent this, milliseconds since 1970 |
//! | pages | sequence of (digest 16 bytes, byte string) | consecutive pages, oldest first; may be empty |
//! | ask | option of byte string | a question that rides along; its meaning is the application's |
//! | observation | option of byte string | what the sender reports; likewise |
//!
//! A page's bytes are described in [`super::page`]; its digest is the first 16 bytes of their BLAKE3 hash. A page names the
//! digest of the one before it, so that a receiver can refuse one that continues another page than it has.
//!
//! # Reply
//! | field | type | meaning |
//! | --- | --- | --- |
//! | id | u64 | of the request; 0 when that could not be read |
//! | ledger | 16 bytes | the id of the ledger that answers |
//! | mark | u64 | the highest sequence applied of (site, epoch), on disk; 0 for none. All up to it may be deleted |
//! | verdict | enum | 0 accepted · 1 gap: `mark + 1` is expected; with a pause, the receiver is busy (below) · 2 conflict (first: u64): from this sequence on another page stands there, or the page continues another one than the applied; the request's pages before it are applied · 3 refused (reason: string) · 4 other ledger: the request is for another one · 5 move (from: u64): give what stands from this sequence on a new epoch, and send it there; what comes before is applied |
//! | pause_ms | u32 | how long the sender is asked to send no events, in milliseconds; at most 60,000 counts |
//! | clock_ms | i64 | the receiver's wall clock when it answered |
//! | notice | option of string | what the person at the sender's site should know |
//! | answer | option of byte string | to `ask` |
//!
//! A sender that has not delivered anything yet first asks without pages, and delivers only to the ledger that answers. A page of
//! lost messages ([`super::page::Content::Lost`]) gives way to messages that the receiver has: it is acknowledged, and what it
//! covers above the mark is recorded as missing.
//!
//! A reply comes only after everything up to `mark` is on the receiver's disk.
//!
//! # Busy
//! A receiver that has too much waiting answers with a gap and a `pause_ms` above 0 ([`Reply::busy`]). It has looked at nothing of the
//! request, pages, question or observation: nothing is lost, refused or acknowledged, and the mark is the true one. The sender goes back to
//! the pages of this request, and sends no request at all before the pause is over and its own resend time too, plus a random time of up to
//! as much again, so that those who were sent away together do not come back together. A sender that does not know this form takes it for
//! any other gap, and waits before it sends the pages again. In no other case does a gap come with a pause.
//!
//! # Versions
//! A receiver that does not know a request's version answers with version 0, whose form never changes: `"fogp" 00 lowest
//! highest`, the two bytes being the versions that it knows. The sender then keeps its messages and reports the problem.
//!
//! `tests/wire/*.hex` contains byte examples that every implementation must reproduce.

use super::identity::{Epoch, LedgerId, SiteName};
use super::page::SealedPage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub const MAGIC: [u8; 4] = *b"fogp";
pub const VERSION: u8 = 2;
/// The longest body of a request, in bytes.
pub const REQUEST_MAX: usize = 256 * 1024;
/// The longest body of a reply, in bytes.
pub const REPLY_MAX: usize = 256 * 1024;
pub const PAUSE_MAX_MS: u32 = 60_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub site: SiteName,
    pub epoch: Epoch,
    pub oldest: u64,
    pub ledger: Option<LedgerId>,
    pub instance: u64,
    pub clock_ms: i64,
    pub pages: Vec<SealedPage>,
    pub ask: Option<Bytes>,
    pub observation: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub id: u64,
    pub ledger: LedgerId,
    pub mark: u64,
    pub verdict: Verdict,
    pub pause_ms: u32,
    pub clock_ms: i64,
    pub notice: Option<String>,
    pub answer: Option<Bytes>,
}

/// What became of a request's pages. `mark` says how far they were applied in every case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Accepted,
    Gap,
    Conflict { first: u64 },
    Refused { reason: String },
    OtherLedger,
    Move { from: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it is {0} bytes long, more than the protocol allows")]
    TooLong(usize),
    #[error("it does not begin with \"fogp\"")]
    NotOurs,
    #[error("it has version {0}; this program speaks version {VERSION}")]
    Version(u8),
    #[error("the other side speaks versions {lowest} to {highest} only, this program version {VERSION}")]
    PeerSpeaks { lowest: u8, highest: u8 },
    #[error("it does not decode: {0}")]
    Malformed(postcard::Error),
    #[error("bytes follow its end")]
    Trailing,
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
    pub fn decode(bytes: &[u8]) -> Result<Request, WireError> {
        decode(bytes, REQUEST_MAX)
    }
}

impl Reply {
    /// The reply to a request for which the receiver has no room: its sender may come back after `pause_ms`. See the module.
    #[must_use]
    pub fn busy(self, pause_ms: u32) -> Reply {
        Reply { verdict: Verdict::Gap, pause_ms: pause_ms.max(1), ..self }
    }

    /// How long the sender of the request is asked to wait, if that is all that the reply says.
    pub fn busy_ms(&self) -> Option<u32> {
        (self.verdict == Verdict::Gap && self.pause_ms > 0).then_some(self.pause_ms)
    }

    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
    pub fn decode(bytes: &[u8]) -> Result<Reply, WireError> {
        if let [b'f', b'o', b'g', b'p', 0, lowest, highest] = *bytes {
            return Err(WireError::PeerSpeaks { lowest, highest });
        }
        decode(bytes, REPLY_MAX)
    }
}

/// The answer to a request of an unknown version.
pub fn versions_known() -> Vec<u8> {
    [&MAGIC[..], &[0, VERSION, VERSION]].concat()
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    let envelope = [&MAGIC[..], &[VERSION]].concat();
    postcard::to_extend(message, envelope).expect("a message always encodes")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLong(bytes.len()));
    }
    let body = bytes.strip_prefix(&MAGIC).ok_or(WireError::NotOurs)?;
    let (version, body) = body.split_first().ok_or(WireError::NotOurs)?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    let (message, rest) = postcard::take_from_bytes(body).map_err(WireError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(WireError::Trailing) }
}
