//! A page: up to 64 consecutive messages of one epoch, or a record that some messages are lost.
//!
//! A page is the value of one key of a store, and of one position in the ledger. It is immutable once it is sealed, and its
//! [`Digest`] is its identity: the same (epoch, first sequence) never has two.
//!
//! Encoded: one byte with the version of this form ([`VERSION`]), then [`Page`] as postcard (see [`super::wire`]):
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | epoch | 16 bytes | the epoch of the outbox |
//! | first | u64 | the first sequence |
//! | previous | option of 16 bytes | the digest of the page before it |
//! | moved_from | option of (16 bytes, u64) | the epoch and first sequence under which these messages stood before |
//! | begun | clock | what the sender's clocks showed when the page was begun: wall_ms i64, monotonic_ms u64, boot 16 bytes, set bool |
//! | content | enum | 0 records: a sequence of (key: option of key, after_ms: u32, payload: byte string) · 1 lost (last: u64, reason: string) |
//!
//! A sequence is at least 1. A page with a sequence, present or former, above 2^64 - 2 is refused.
//!
//! A key is (text: byte string, body: 16 bytes, count: u32): under it the producer would post the same again.

use super::clock::ClockReading;
use super::identity::{Digest, Epoch, Sequence};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The form of an encoded page that this program writes.
pub const VERSION: u8 = 2;
/// Stands in the place of a version: what follows is no longer what was received.
const REPLACED: u8 = u8::MAX;
pub const RECORDS_MAX: usize = 64;
/// The longest encoded page, in bytes. Below the store's limit of 6 KB by what an outbox and a ledger
/// put around it (a digest, a name, an epoch, a time).
pub const BYTES_MAX: usize = crate::store::VALUE_MAX - 192;
/// The longest payload of one message, in bytes.
pub const PAYLOAD_MAX: usize = 4 * 1024;
/// The longest key of a producer, in bytes.
pub const KEY_MAX: usize = 255;

/// Under this key a producer posts the same again, in case it missed the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// 1 to [`KEY_MAX`] bytes, chosen by the producer.
    pub text: Bytes,
    /// The digest of what was posted under it: the same key with another body is a mistake of the producer.
    pub body: Digest,
    /// The number of messages that were posted under it together, from the one that carries it on.
    pub count: u32,
}

/// One message. `P` is how its payload is held: `&[u8]` where it is looked at in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<P = Bytes> {
    /// The first message of an append carries its key, if there is one.
    pub key: Option<IdempotencyKey>,
    /// The time since the page was begun, in milliseconds of the sender's monotonic clock.
    pub after_ms: u32,
    pub payload: P,
}

impl Message {
    /// A message without a key, taken when its page is begun.
    pub fn of(payload: impl Into<Bytes>) -> Message {
        Message { key: None, after_ms: 0, payload: payload.into() }
    }

    /// An upper bound of what this message takes in an encoded page.
    pub fn encoded_len_max(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.text.len() + 2 + Digest::LEN + 5);
        1 + key + 5 + 3 + self.payload.len()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content<P = Bytes> {
    Records(Vec<Message<P>>),
    /// Messages that the sender had confirmed and can no longer read.
    Lost {
        last: Sequence,
        reason: String,
    },
}

/// A run of consecutive sequences of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<P = Bytes> {
    pub epoch: Epoch,
    pub first: Sequence,
    /// The digest of the page before it in its epoch: a chain, by which a receiver knows that it continues what it has.
    /// None for the first page, and after a page whose digest is not known any more.
    pub previous: Option<Digest>,
    /// The epoch and first sequence under which these messages stood before, when they were moved from another epoch.
    pub moved_from: Option<(Epoch, Sequence)>,
    pub begun: ClockReading,
    pub content: Content<P>,
}

/// A page that borrows its messages (zero-copy): looking through a backlog of millions copies none of them.
pub type PageView<'a> = Page<&'a [u8]>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("it is {0} bytes long; a page has 1 to {BYTES_MAX}")]
    Length(usize),
    #[error("its form has version {0}; this program knows version {VERSION}")]
    Version(u8),
    #[error("its digest does not match its bytes")]
    Digest,
    #[error("it does not decode: {0}")]
    Malformed(postcard::Error),
    #[error("its sequences make no sense: {0}")]
    Sequences(&'static str),
}

impl<P> Page<P> {
    /// The last sequence that the page covers. A page without messages cannot be made by decoding.
    pub fn last(&self) -> u64 {
        match &self.content {
            Content::Records(messages) => self.first.get() + messages.len() as u64 - 1,
            Content::Lost { last, .. } => last.get(),
        }
    }

    pub fn count(&self) -> u64 {
        self.last() - self.first.get() + 1
    }

    pub fn is_lost(&self) -> bool {
        matches!(self.content, Content::Lost { .. })
    }

    /// The keys in it, with the sequences of the messages that carry them.
    pub fn keys(&self) -> Vec<(u64, IdempotencyKey)> {
        match &self.content {
            Content::Records(messages) => (self.first.get()..)
                .zip(messages)
                .filter_map(|(sequence, message)| Some((sequence, message.key.clone()?)))
                .collect(),
            Content::Lost { .. } => Vec::new(),
        }
    }

    /// The epoch and sequence that the producer of the message at `sequence` was answered with.
    pub fn first_answer(&self, sequence: u64) -> (Epoch, u64) {
        match self.moved_from {
            Some((epoch, first)) => (epoch, first.get() + (sequence - self.first.get())),
            None => (self.epoch, sequence),
        }
    }
}

impl Page {
    /// An upper bound of what a page takes without its messages.
    pub const HEADER_MAX: usize = 1 + 16 + 10 + 17 + 27 + ClockReading::ENCODED_MAX + 1 + 2;

    pub fn encode(&self) -> Vec<u8> {
        let bytes = vec![VERSION];
        postcard::to_extend(self, bytes).expect("a page always encodes: it has no unsized sequence")
    }

    /// Decodes what [`Page::encode`] made, and refuses everything else.
    pub fn decode(bytes: &[u8]) -> Result<Page, PageError> {
        decode(bytes)
    }

    /// The rest of the page from its message `skipped` on, with another digest before it.
    ///
    /// # Panics
    /// When the page has no more than `skipped` messages.
    pub fn without_first(self, skipped: u64, previous: Option<Digest>) -> Page {
        // Decoding refuses a page with a sequence that has no successor.
        let later =
            |first: Sequence| Sequence::new(first.get() + skipped).expect("it is above another sequence");
        assert!(skipped < self.count());
        let content = match self.content {
            Content::Records(mut messages) => Content::Records(messages.split_off(skipped as usize)),
            lost @ Content::Lost { .. } => lost,
        };
        let moved_from = self.moved_from.map(|(epoch, first)| (epoch, later(first)));
        Page { first: later(self.first), previous, moved_from, content, ..self }
    }
}

/// Decodes what [`Page::encode`] made; with `&[u8]` for `P` the page borrows its payloads.
fn decode<'a, P: Deserialize<'a>>(bytes: &'a [u8]) -> Result<Page<P>, PageError> {
    if bytes.len() > BYTES_MAX {
        return Err(PageError::Length(bytes.len()));
    }
    let (version, body) = bytes.split_first().ok_or(PageError::Length(0))?;
    if *version != VERSION {
        return Err(PageError::Version(*version));
    }
    let (page, rest) = postcard::take_from_bytes::<Page<P>>(body).map_err(PageError::Malformed)?;
    if !rest.is_empty() {
        return Err(PageError::Sequences("bytes follow its end"));
    }
    let after_first = match &page.content {
        Content::Records(messages) if messages.is_empty() => {
            return Err(PageError::Sequences("it holds no message"));
        }
        Content::Records(messages) if messages.len() > RECORDS_MAX => {
            return Err(PageError::Sequences("it holds more than 64 messages"));
        }
        Content::Records(messages) => messages.len() as u64 - 1,
        Content::Lost { last, .. } => last
            .get()
            .checked_sub(page.first.get())
            .ok_or(PageError::Sequences("its last is before its first"))?,
    };
    // Each sequence that a page speaks of has a successor, so that counting on from it never overflows.
    let moved_from = page.moved_from.map(|(_, first)| first);
    for first in [Some(page.first), moved_from].into_iter().flatten() {
        let successor = after_first.checked_add(1).and_then(|count| first.get().checked_add(count));
        if successor.is_none() {
            return Err(PageError::Sequences("a sequence is out of range"));
        }
    }
    Ok(page)
}

pub fn shortened(text: &str, bytes: usize) -> &str {
    let end = (0..=text.len().min(bytes)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// A page as it is stored and sent: its bytes and their digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPage {
    pub digest: Digest,
    pub bytes: Bytes,
}

impl SealedPage {
    pub fn seal(page: &Page) -> SealedPage {
        let bytes = Bytes::from(page.encode());
        SealedPage { digest: Digest::of(&bytes), bytes }
    }

    /// Checks the digest and decodes.
    pub fn open(&self) -> Result<Page, PageError> {
        checked(self.digest, &self.bytes)
    }

    /// Checks the digest and looks into the page where it is.
    pub fn view(&self) -> Result<PageView<'_>, PageError> {
        checked(self.digest, &self.bytes)
    }

    /// Checks a value that [`SealedPage::to_stored`] made, and decodes; with `&[u8]` for `P` it looks into the page where it is.
    pub fn open_stored<'a, P: Deserialize<'a>>(value: &'a [u8]) -> Result<(Digest, Page<P>), PageError> {
        let (digest, bytes) = split_stored(value)?;
        Ok((digest, checked(digest, bytes)?))
    }

    /// The same page with other content, under the digest that it was received with: the receiver had to forget some of it.
    /// [`SealedPage::open`] refuses it, so that it is never taken for what was received.
    pub fn replaced_by(&self, page: &Page) -> SealedPage {
        SealedPage { digest: self.digest, bytes: [&[REPLACED], &page.encode()[..]].concat().into() }
    }

    /// What is kept of a page, as it was received or replaced.
    pub fn read(&self) -> Result<Page, PageError> {
        match self.bytes.split_first() {
            Some((&REPLACED, kept)) => Page::decode(kept),
            _ => self.open(),
        }
    }

    /// As one value of a store: digest, then bytes.
    pub fn to_stored(&self) -> Vec<u8> {
        [self.digest.as_bytes(), &self.bytes[..]].concat()
    }

    pub fn from_stored(value: &[u8]) -> Result<SealedPage, PageError> {
        split_stored(value).map(|(digest, bytes)| SealedPage { digest, bytes: Bytes::copy_from_slice(bytes) })
    }
}

fn checked<'a, P: Deserialize<'a>>(digest: Digest, bytes: &'a [u8]) -> Result<Page<P>, PageError> {
    if Digest::of(bytes) == digest { decode(bytes) } else { Err(PageError::Digest) }
}

fn split_stored(value: &[u8]) -> Result<(Digest, &[u8]), PageError> {
    let (digest, bytes) = value.split_first_chunk().ok_or(PageError::Length(value.len()))?;
    Ok((Digest::from_bytes(*digest), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(records: usize) -> Page {
        Page {
            epoch: Epoch::from_bytes([7; 16]),
            first: Sequence::new(41).unwrap(),
            previous: Some(Digest::of(b"the page before")),
            moved_from: None,
            begun: ClockReading::at_wall_ms(1_764_000_000_000),
            content: Content::Records(vec![
                Message {
                    key: Some(IdempotencyKey {
                        text: Bytes::from_static(b"k"),
                        body: Digest::of(b"body"),
                        count: 1
                    }),
                    after_ms: 7,
                    payload: Bytes::from_static(b"payload"),
                };
                records
            ]),
        }
    }

    #[test]
    fn a_page_comes_back_as_it_was_sealed() {
        let sealed = SealedPage::seal(&page(64));
        let stored = SealedPage::from_stored(&sealed.to_stored()).unwrap();
        assert_eq!(stored.open().unwrap(), page(64));
        assert_eq!(page(64).last(), 104);
    }

    #[test]
    fn a_view_of_a_stored_page_says_what_the_page_says() {
        let mut lost = page(1);
        lost.content = Content::Lost { last: Sequence::new(99).unwrap(), reason: "gone".into() };
        for page in [page(3), page(64), lost] {
            let sealed = SealedPage::seal(&page);
            let stored = sealed.to_stored();
            let (digest, view) = SealedPage::open_stored::<&[u8]>(&stored).unwrap();
            assert_eq!((digest, view.last()), (sealed.digest, page.last()));
            assert_eq!(view.is_lost(), matches!(page.content, Content::Lost { .. }));
            let places: Vec<u64> = view.keys().into_iter().map(|(sequence, _)| sequence).collect();
            let expected = if view.is_lost() { Vec::new() } else { (41..=page.last()).collect() };
            assert_eq!(places, expected);
            assert_eq!(SealedPage::open_stored(&stored), Ok((digest, page)));
            assert!(SealedPage::open_stored::<&[u8]>(&stored[..stored.len() - 1]).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let stored = SealedPage::seal(&page(3)).to_stored();
        for place in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[place] ^= 0x10;
            let opened = SealedPage::from_stored(&damaged).unwrap().open();
            assert_eq!(opened, Err(PageError::Digest), "at byte {place}");
        }
    }

    #[test]
    fn a_replaced_page_keeps_its_digest_and_is_never_taken_for_the_received_one() {
        let sealed = SealedPage::seal(&page(3));
        let replaced = sealed.replaced_by(&page(2));
        assert_eq!((replaced.digest, replaced.bytes[0], sealed.bytes[0]), (sealed.digest, REPLACED, VERSION));
        assert_eq!((replaced.read().unwrap(), sealed.read().unwrap()), (page(2), page(3)));
        assert!(replaced.open().is_err());
        let other = SealedPage { digest: Digest::of(&replaced.bytes), ..replaced };
        assert_eq!(other.open(), Err(PageError::Version(255)));
    }

    #[test]
    fn pages_that_make_no_sense_are_refused() {
        let refused = |page: Page| Page::decode(&page.encode()).unwrap_err();
        assert!(matches!(refused(page(0)), PageError::Sequences(_)));
        assert!(matches!(refused(page(65)), PageError::Sequences(_)));
        let mut lost = page(1);
        lost.content = Content::Lost { last: Sequence::new(40).unwrap(), reason: "r".into() };
        assert!(matches!(refused(lost), PageError::Sequences(_)));
        let mut overflowing = page(1);
        overflowing.first = Sequence::new(u64::MAX).unwrap();
        assert!(matches!(refused(overflowing), PageError::Sequences(_)));
        let mut lost_from_the_first = page(1);
        lost_from_the_first.first = Sequence::FIRST;
        let last = Sequence::new(u64::MAX).unwrap();
        lost_from_the_first.content = Content::Lost { last, reason: "r".into() };
        assert!(matches!(refused(lost_from_the_first), PageError::Sequences(_)));
        assert!(matches!(Page::decode(&[9, 9]), Err(PageError::Version(9))));
        let mut long = page(1).encode();
        long.push(0);
        assert!(Page::decode(&long).is_err());
    }

    /// A page said that its messages had stood at 2^64 - 1 and after it. The server ended when it counted on from there.
    #[test]
    fn a_page_whose_messages_stood_at_places_that_do_not_exist_is_refused() {
        let moved_from = |first: u64, count| {
            let moved_from = Some((Epoch::from_bytes([8; 16]), Sequence::new(first).unwrap()));
            Page::decode(&Page { moved_from, ..page(count) }.encode()).map(drop)
        };
        assert_eq!(moved_from(u64::MAX - 3, 3), Ok(()));
        for (first, count) in [(u64::MAX, 1), (u64::MAX - 3, 4), (u64::MAX - 1, 64)] {
            assert!(matches!(moved_from(first, count), Err(PageError::Sequences(_))), "{first} and {count}");
        }
    }

    #[test]
    fn zero_is_not_a_sequence() {
        assert!(postcard::from_bytes::<Sequence>(&[0]).is_err());
        assert_eq!(postcard::from_bytes(&[7]), Ok(Sequence::new(7).unwrap()));
    }

    #[test]
    fn the_upper_bounds_hold() {
        let full = page(RECORDS_MAX);
        let Content::Records(records) = &full.content else { unreachable!() };
        let bound: usize = records.iter().map(Message::encoded_len_max).sum();
        assert!(full.encode().len() <= Page::HEADER_MAX + bound);
    }
}
