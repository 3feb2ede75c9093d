//! Checks the log of a store before sled opens it.
//!
//! sled 0.34 treats a message that it cannot read as the end of its segment or of its log, and zeroes everything after it, so
//! opening a damaged log destroys data that could still be read. So this module first reads the part that sled will replay, in
//! the same way, and a damaged log is salvaged ([`super::salvage`]) instead of opened.
//!
//! **Promise.** [`check`] only reads. It finds each message that sled would stumble over and that was not left by a crash.
//! **Kept by.** A crash leaves a torn end: nothing behind it was synced. Damage shows where a message cannot be read that was synced
//! for certain: a later segment says so, or the store was closed in order, and its end written down. A torn end may be damaged, too:
//! it is kept ([`keep_torn`]) until the opening of the store has found all that was confirmed.
//! **Not promised.** That what the last snapshot covers is sound: sled does not replay it, and damage there shows when it is read.
//! Nor that a torn end is kept on a disk that is nearly full, or beside 32 MB of others: opening needs room.
//!
//! The format is that of sled 0.34.7 (`src/pagecache/{iterator,logger}.rs`, `src/serialization.rs` there).

use super::if_there;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// sled's name for the file that holds everything.
pub(super) const LOG_FILE: &str = "db";
/// The size of a segment, fixed when a store is created. A value must stay below a quarter of it, and an event's commit
/// writes only what it changed, so a large segment costs nothing.
pub(super) const SEGMENT_BYTES: usize = 512 * 1024;
/// The file that keeps the segments that sled zeroed, until it is known that nothing is missing.
pub(super) const TORN_FILE: &str = "torn";
/// Nothing is added to that file once it holds so much: the first torn end may hold what was confirmed, and those of starts that end
/// before the store is found whole hold only what such a start writes.
const TORN_BYTES_MAX: u64 = 32 << 20;

pub(super) const SEGMENT: u64 = SEGMENT_BYTES as u64;
const SEGMENT_HEADER: usize = 20;
/// With less than this left, a segment holds no further message.
const MESSAGE_HEADER_MAX: usize = 32;
const KIND_CORRUPTED: u8 = 0;
const KIND_CAP: u8 = 2;
const KIND_LAST: u8 = 11;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogCondition {
    Sound,
    /// Its end is torn, as a crash leaves it, or damaged: sled will zero the segments at these bytes of the file.
    Torn(Vec<u64>),
    Damaged(String),
}

/// Reads the part of the log in `dir` that sled will replay. `closed_at` is its end if the store was closed in order ([`end`]).
pub(super) fn check(dir: &Path, closed_at: Option<u64>) -> io::Result<LogCondition> {
    let Some(log) = if_there(File::open(dir.join(LOG_FILE)))? else { return Ok(LogCondition::Sound) };
    let replayed_from = snapshot_lsn(dir)? / SEGMENT * SEGMENT;
    let Segments { mut by_lsn, unreadable, synced } = Segments::of(&log)?;
    by_lsn.retain(|(lsn, _)| *lsn >= replayed_from);
    if let Some(two) = by_lsn.windows(2).find(|two| two[0].0 == two[1].0) {
        return Ok(LogCondition::Damaged(format!("two segments of it claim the same place, {}", two[0].0)));
    }
    // Up to here everything was on disk.
    let written = synced.max(closed_at.unwrap_or(0));
    let mut torn = Vec::new();
    for (lsn, at) in &by_lsn {
        let bytes = read_segment(&log, *at)?;
        if let Some(stopped) = unreadable_from(&bytes, lsn / SEGMENT) {
            let end = lsn + stopped as u64;
            if end < written {
                let place = at + stopped as u64;
                return Ok(LogCondition::Damaged(format!(
                    "a message at byte {place} of its file cannot be read"
                )));
            }
            if Some(end) != closed_at {
                torn.push(*at);
                continue;
            }
        }
        // sled goes no further than the first torn segment.
        if !torn.is_empty() {
            torn.push(*at);
        }
    }
    // A segment whose header cannot be read is one that sled does not see. What was never used, or zeroed by sled, holds nothing.
    for at in unreadable {
        let bytes = read_segment(&log, at)?;
        let Some(message) = first_message(&bytes) else { continue };
        let lsn = message.segment.saturating_mul(SEGMENT);
        if lsn >= replayed_from && lsn < written {
            return Ok(LogCondition::Damaged(format!(
                "the header of a segment at byte {at} of its file cannot be read"
            )));
        }
        torn.push(at);
    }
    let last = closed_at.map(|end| end.saturating_sub(1) / SEGMENT * SEGMENT);
    if last.is_some_and(|last| !by_lsn.iter().any(|(lsn, _)| *lsn == last)) {
        return Ok(LogCondition::Damaged("its last segment is missing".into()));
    }
    Ok(if torn.is_empty() { LogCondition::Sound } else { LogCondition::Torn(torn) })
}

/// Keeps the segments that sled will zero in a file beside the log, after what that file already holds. If confirmed data turns
/// out to be missing, it is searched for there, too. On disk when this returns.
pub(super) fn keep_torn(dir: &Path, segments: &[u64]) -> io::Result<()> {
    let log = File::open(dir.join(LOG_FILE))?;
    let mut kept = File::options().create(true).append(true).open(dir.join(TORN_FILE))?;
    if kept.metadata()?.len() >= TORN_BYTES_MAX {
        return Ok(());
    }
    for at in segments {
        kept.write_all(&read_segment(&log, *at)?)?;
    }
    kept.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Where the log of a closed store ends, as a place in all that was ever written: behind the last message that can be read.
pub(super) fn end(dir: &Path) -> io::Result<u64> {
    let log = File::open(dir.join(LOG_FILE))?;
    let Some((lsn, at)) = Segments::of(&log)?.by_lsn.pop() else { return Ok(0) };
    let end = unreadable_from(&read_segment(&log, at)?, lsn / SEGMENT);
    Ok(lsn + end.map_or(SEGMENT, |end| end as u64))
}

struct Segments {
    /// Where each begins: in all that was ever written, and in the file. In order.
    by_lsn: Vec<(u64, u64)>,
    unreadable: Vec<u64>,
    /// Everything before this was synced when the newest one was begun.
    synced: u64,
}

impl Segments {
    fn of(log: &File) -> io::Result<Segments> {
        let mut segments = Segments { by_lsn: Vec::new(), unreadable: Vec::new(), synced: 0 };
        for at in (0..log.metadata()?.len()).step_by(SEGMENT_BYTES) {
            match segment_header(log, at)? {
                Some((lsn, synced)) => {
                    segments.synced = segments.synced.max(synced);
                    segments.by_lsn.push((lsn, at));
                }
                None => segments.unreadable.push(at),
            }
        }
        segments.by_lsn.sort_unstable();
        Ok(segments)
    }
}

/// Up to where the newest snapshot covers the log: that is its name.
fn snapshot_lsn(dir: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let lsn = name.to_str().and_then(|name| u64::from_str_radix(name.strip_prefix("snap.")?, 16).ok());
        newest = newest.max(lsn.unwrap_or(0));
    }
    Ok(newest)
}

/// Where a segment begins in all that was ever written, and up to where all was synced then; `None` if its header cannot be read.
fn segment_header(log: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let mut bytes = [0; SEGMENT_HEADER];
    if read_up_to(log, &mut bytes, at)? < SEGMENT_HEADER {
        return Ok(None);
    }
    let number = |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
    let sum = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) ^ u32::MAX;
    // Places in the log are signed: -1 is that of a log in which nothing was synced yet.
    let place = |from: usize| (number(from) ^ i64::MAX as u64).cast_signed().max(0).cast_unsigned();
    Ok((crc32fast::hash(&bytes[4..]) == sum).then(|| (place(4), place(12))))
}

fn read_segment(log: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SEGMENT_BYTES];
    let read = read_up_to(log, &mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Fills `bytes` from a place in a file, as far as the file goes. Returns how many were read.
pub(super) fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Goes through the messages of a segment as sled does. Returns the place of the first bytes that are not a readable message of this
/// segment as it was last written, if there are any.
fn unreadable_from(bytes: &[u8], segment_number: u64) -> Option<usize> {
    let mut at = SEGMENT_HEADER;
    while SEGMENT_BYTES - at >= MESSAGE_HEADER_MAX {
        // Of another segment: what stood here before the segment was used again.
        let message = bytes.get(at..).and_then(message).filter(|message| message.segment == segment_number);
        let Some(message) = message else {
            return Some(at.min(bytes.len()));
        };
        if message.kind == KIND_CAP {
            break;
        }
        at += message.length;
    }
    None
}

struct SledMessage {
    kind: u8,
    segment: u64,
    length: usize,
}

fn message(bytes: &[u8]) -> Option<SledMessage> {
    let (sum, hashed) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = hashed.split_first()?;
    let (length, rest) = number(rest)?;
    let (segment, rest) = number(rest)?;
    let (_page, rest) = number(rest)?;
    let header = &hashed[..hashed.len() - rest.len()];
    let body = rest.get(..usize::try_from(length).ok()?)?;
    if !(KIND_CORRUPTED + 1..=KIND_LAST).contains(kind) {
        return None;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(header);
    let is_sound = hasher.finalize() ^ u32::MAX == u32::from_le_bytes(*sum);
    is_sound.then(|| SledMessage { kind: *kind, segment, length: 4 + header.len() + body.len() })
}

fn first_message(bytes: &[u8]) -> Option<SledMessage> {
    (SEGMENT_HEADER..bytes.len()).find_map(|at| message(&bytes[at..]))
}

/// Decodes a number in sled's variable-length encoding.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let first = u64::from(*first);
    Some(match first {
        0..=240 => (first, rest),
        241..=248 => {
            let (second, rest) = rest.split_first()?;
            (240 + 256 * (first - 241) + u64::from(*second), rest)
        }
        249 => {
            let (two, rest) = rest.split_first_chunk::<2>()?;
            (2288 + 256 * u64::from(two[0]) + u64::from(two[1]), rest)
        }
        _ => {
            let (digits, rest) = rest.split_at_checked(first as usize - 247)?;
            let mut eight = [0; 8];
            eight[..digits.len()].copy_from_slice(digits);
            (u64::from_le_bytes(eight), rest)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start that is killed before the store is found whole leaves what was kept, and the next one keeps another end.
    #[test]
    fn a_store_that_never_gets_up_does_not_fill_the_disk_with_torn_ends() {
        let dir = tempfile::tempdir().unwrap();
        let kept = || fs::metadata(dir.path().join(TORN_FILE)).unwrap().len();
        File::create(dir.path().join(LOG_FILE)).unwrap().set_len(SEGMENT).unwrap();
        for start in 1..=2 {
            keep_torn(dir.path(), &[0]).unwrap();
            assert_eq!(kept(), start * SEGMENT);
        }
        File::options()
            .write(true)
            .open(dir.path().join(TORN_FILE))
            .unwrap()
            .set_len(TORN_BYTES_MAX)
            .unwrap();
        keep_torn(dir.path(), &[0]).unwrap();
        assert_eq!(kept(), TORN_BYTES_MAX);
    }
}
