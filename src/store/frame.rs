//! Frames: encoded values that can be found in a damaged store without sled.
//!
//! **Promise.** A framed value that stands anywhere in a file is found there, with its key, and distinguished from everything else: from
//! other bytes, from a damaged copy of itself, from frames of other stores, and from text in a value that only looks like a frame.
//! Of two frames under one key, the greater stamp was written later.
//! **Kept by.** A frame carries a magic, its lengths, its key and a keyed hash over all of it; the key of the hash is
//! drawn for each store. sled writes a value as consecutive bytes, whole, wherever it puts it.
//! **Not promised.** That removed values are not found: the reader of a damaged store decides which of the
//! values that were found still count.
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | the magic |
//! | 8 | the first bytes of BLAKE3, keyed, over all that follows |
//! | 8 | the stamp, big-endian |
//! | 1 | the length of the key |
//! | 2 | the length of the value, big-endian |
//! | … | the key, then the value |

use super::VALUE_MAX;

pub(super) const MAGIC: [u8; 4] = [0xF0, 0x97, 0x05, 0x7A];
const HASH: usize = 8;
const HEADER: usize = MAGIC.len() + HASH + 8 + 1 + 2;
pub(super) const FRAME_MAX: usize = HEADER + u8::MAX as usize + VALUE_MAX;

/// When a value was written: greater stamps were written later. The upper bits count the openings of the store, the lower
/// [`Stamp::WRITES_BITS`] the writes since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub(super) u64);

impl Stamp {
    const WRITES_BITS: u32 = 40;

    /// The first stamp after an opening with this number.
    pub(super) fn first_of(opening: u32) -> Stamp {
        Stamp(u64::from(opening) << Stamp::WRITES_BITS)
    }

    pub(super) fn opening(self) -> u32 {
        (self.0 >> Stamp::WRITES_BITS) as u32
    }
}

/// The key with which a store recognises its own frames.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameKey([u8; 32]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub stamp: Stamp,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl Frame<'_> {
    pub fn len(&self) -> usize {
        HEADER + self.key.len() + self.value.len()
    }
}

impl FrameKey {
    pub fn of_store(id: &[u8; 16]) -> FrameKey {
        FrameKey(blake3::derive_key("fogpost 2026 frames of a store", id))
    }

    /// # Panics
    /// When the key is longer than 255 bytes or the value longer than 65,535: a store refuses both earlier.
    pub fn encode(&self, stamp: Stamp, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + key.len() + value.len());
        bytes.extend(MAGIC);
        bytes.extend([0; HASH]);
        bytes.extend(stamp.0.to_be_bytes());
        bytes.push(u8::try_from(key.len()).expect("keys are short"));
        bytes.extend(u16::try_from(value.len()).expect("values are short").to_be_bytes());
        bytes.extend(key);
        bytes.extend(value);
        let hash = self.hash(&bytes[MAGIC.len() + HASH..]);
        bytes[MAGIC.len()..][..HASH].copy_from_slice(&hash);
        bytes
    }

    /// The frame that `bytes` begin with, if they begin with one of this store.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let (hash, hashed) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<HASH>()?;
        let (stamp, rest) = hashed.split_first_chunk()?;
        let (key_len, rest) = rest.split_first()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
        let value = rest.get(..usize::from(u16::from_be_bytes(*value_len)))?;
        let frame = Frame { stamp: Stamp(u64::from_be_bytes(*stamp)), key, value };
        let hashed = &hashed[..frame.len() - MAGIC.len() - HASH];
        (self.hash(hashed) == *hash).then_some(frame)
    }

    fn hash(&self, bytes: &[u8]) -> [u8; HASH] {
        *blake3::keyed_hash(&self.0, bytes).as_bytes().first_chunk().expect("a hash is longer")
    }
}

/// The value of a frame of `key` that holds nothing else, without checking its hash. Another frame is returned as the error.
pub(super) fn unwrapped(key: &[u8], mut frame: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
    let Some(key_len) = u8::try_from(key.len()).ok() else { return Err(frame) };
    let value_at = HEADER + key.len();
    let value_len = frame.len().checked_sub(value_at).and_then(|length| u16::try_from(length).ok());
    let is_its = value_len.is_some_and(|length| {
        let [high, low] = length.to_be_bytes();
        frame[HEADER - 3..HEADER] == [key_len, high, low]
    });
    if is_its && frame.starts_with(&MAGIC) && frame[HEADER..value_at] == *key {
        frame.drain(..value_at);
        Ok(frame)
    } else {
        Err(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_and_a_damaged_one_is_not() {
        let own = FrameKey::of_store(&[1; 16]);
        let bytes = own.encode(Stamp(7), b"key", b"a value");
        assert_eq!(own.decode(&bytes), Some(Frame { stamp: Stamp(7), key: b"key", value: b"a value" }));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x20;
            assert_eq!(own.decode(&damaged), None, "at byte {place}");
            assert_eq!(own.decode(&bytes[..place]), None, "cut at byte {place}");
        }
        assert_eq!(FrameKey::of_store(&[2; 16]).decode(&bytes), None, "another store's");
    }

    #[test]
    fn a_frame_is_unwrapped_under_its_own_key_only() {
        let bytes = FrameKey::of_store(&[1; 16]).encode(Stamp(7), b"key", b"a value");
        assert_eq!(unwrapped(b"key", bytes.clone()), Ok(b"a value".to_vec()));
        for (key, bytes) in [
            (&b"kez"[..], bytes.clone()),
            (b"keya", bytes.clone()),
            (b"", bytes.clone()),
            (b"key", [&bytes[..], b"x"].concat()),
            (b"key", bytes[..bytes.len() - 1].to_vec()),
            (b"key", bytes[..HEADER - 1].to_vec()),
            (b"key", Vec::new()),
        ] {
            assert_eq!(unwrapped(key, bytes.clone()), Err(bytes));
        }
    }

    #[test]
    fn a_later_opening_has_greater_stamps() {
        let (early, late) = (Stamp::first_of(3), Stamp::first_of(4));
        assert!(Stamp(early.0 + 1_000_000_000_000) < late);
        assert_eq!(Stamp(late.0 + 5).opening(), 4);
    }
}
