//! The keys of the ledger in its store, and the values that are not records.
//!
//! | key | value |
//! | --- | --- |
//! | `i` | a checksum, then the ledger's id, 16 bytes |
//! | `s` + stream (u32) | the checksum of what follows, the epoch's 16 bytes, the site's name |
//! | `m` + stream (u32) | the mark: the highest sequence applied (u64), whether a digest follows (u8), the digest of its page (16 bytes), the epoch's 16 bytes, the site's name |
//! | `t` + stream (u32) | the position at which this stream was asked to move what is in conflict to a new epoch |
//! | `q` + site's name | the position of the command by which the next conflict of this site is answered so |
//! | `r` + position (u64) | a [`Record`](crate::server::record::Record) |
//! | `x` + stream (u32) + first sequence (u64) | the position of that page (u64) |
//! | `c` | in a copy that "server backup" made: the position up to which it was copied (u64) |
//!
//! Numbers are big-endian. A stream is the number that this ledger gave to a (site, epoch): only keys and passages in the views
//! refer to it. A checksum is the first 8 bytes of BLAKE3. Marks and the index have none: opening and reading
//! compare them with the records. Views keep their own keys: see `server::view`.

use crate::messaging::receiver::Mark;
use crate::messaging::{Digest, Epoch, LedgerId, SiteName};
use crate::server::record::{StreamId, checksum, summed};
use crate::store::StoreError;

pub const LEDGER_ID: &[u8] = b"i";
pub const COPIED_AT: &[u8] = b"c";

pub fn ledger_id_value(id: LedgerId) -> Vec<u8> {
    let id = id.to_bytes();
    [&checksum(&id)[..], &id].concat()
}
pub fn decode_ledger_id(value: &[u8]) -> Option<LedgerId> {
    Some(LedgerId::from_bytes(summed(value)?.try_into().ok()?))
}

pub fn stream_key(stream: u32) -> Vec<u8> {
    [b"s", &stream.to_be_bytes()[..]].concat()
}
pub fn stream_value(stream: &StreamId) -> Vec<u8> {
    let body = [&stream.epoch.to_bytes(), stream.site.as_str().as_bytes()].concat();
    [&checksum(&body)[..], &body].concat()
}
pub fn decode_stream(value: &[u8]) -> Option<StreamId> {
    stream_id(summed(value)?)
}
fn stream_id(bytes: &[u8]) -> Option<StreamId> {
    let (epoch, name) = bytes.split_first_chunk::<16>()?;
    let site = SiteName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some(StreamId { site, epoch: Epoch::from_bytes(*epoch) })
}
pub fn mark_key(stream: u32) -> Vec<u8> {
    [b"m", &stream.to_be_bytes()[..]].concat()
}
pub fn moved_key(stream: u32) -> Vec<u8> {
    [b"t", &stream.to_be_bytes()[..]].concat()
}
pub fn adoption_key(site: &SiteName) -> Vec<u8> {
    [b"q", site.as_str().as_bytes()].concat()
}
pub fn record_key(position: u64) -> Vec<u8> {
    [b"r", &position.to_be_bytes()[..]].concat()
}
pub fn index_key(stream: u32, first: u64) -> Vec<u8> {
    [b"x", &stream.to_be_bytes()[..], &first.to_be_bytes()].concat()
}

/// A mark with the stream it belongs to: when the list of streams and the records of a stream are lost, one of the mark's many copies
/// in the log still says whose sequences are missing.
pub fn mark_value(mark: Mark, stream: &StreamId) -> Vec<u8> {
    let mut value = mark.sequence.to_be_bytes().to_vec();
    value.push(u8::from(mark.digest.is_some()));
    value.extend(mark.digest.iter().flat_map(|digest| *digest.as_bytes()));
    value.extend(stream.epoch.to_bytes());
    value.extend(stream.site.as_str().as_bytes());
    value
}

/// A stored mark, and the stream that it names.
pub fn decode_mark(value: &[u8]) -> Result<(Mark, StreamId), StoreError> {
    let parts = || {
        let (sequence, rest) = value.split_first_chunk::<8>()?;
        let (digest, stream) = match rest.split_first()? {
            (0, stream) => (None, stream),
            (1, rest) => rest.split_first_chunk().map(|(digest, stream)| (Some(*digest), stream))?,
            _ => return None,
        };
        let digest = digest.map(Digest::from_bytes);
        Some((Mark { sequence: u64::from_be_bytes(*sequence), digest }, stream_id(stream)?))
    };
    parts()
        .ok_or_else(|| StoreError::Damaged { place: "a mark".into(), reason: "it has the wrong form".into() })
}

pub fn index_place(key: &[u8]) -> Option<(u32, u64)> {
    let (stream, first) = key.get(1..)?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*stream), u64::from_be_bytes(first.try_into().ok()?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_in_a_stream_or_a_ledger_id_is_noticed() {
        let site = SiteName::new("Bull Ring").unwrap();
        let stream = StreamId { site, epoch: Epoch::from_bytes([5; 16]) };
        let mut value = stream_value(&stream);
        assert_eq!(decode_stream(&value), Some(stream));
        *value.last_mut().unwrap() ^= 1;
        assert_eq!(decode_stream(&value), None);
        let id = LedgerId::random();
        assert_eq!(decode_ledger_id(&ledger_id_value(id)), Some(id));
        assert_eq!(decode_ledger_id(&id.to_bytes()), None);
    }
}
