//! Looking at sled's log before sled does.
//!
//! sled 0.34 takes a message that it cannot read for the end of its segment, or of its log, and zeroes what stands behind it:
//! opening a damaged log destroys what could still be read in it. So what sled is about to replay is read here first, in the same
//! way, and a log with damage in it is salvaged ([`super::salvage`]) instead of opened.
//!
//! **Promise.** [`check`] only reads. It finds each message that sled would stumble over and that was not left by a crash.
//! **Kept by.** A crash leaves a torn end: nothing behind it was synced. Damage shows when a later segment says that a later
//! message was synced, or, when the store was closed in order, when newer values stand behind it.
//! **Not promised.** That what the last snapshot covers is sound: sled does not replay it, and damage there shows when it is read. Nor that
//! damage in what was written last before a kill or a power cut is told from what that tore.
//!
//! The format is that of sled 0.34.7 (`src/pagecache/{iterator,logger}.rs`, `src/serialization.rs` there).

use super::frame::{FrameKey, MAGIC, Stamp};
use super::on_sled::{LOG_FILE, SEGMENT_BYTES};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SEGMENT: u64 = SEGMENT_BYTES as u64;
const SEGMENT_HEADER: usize = 20;
/// With less than this left, a segment holds no further message.
const MESSAGE_HEADER_MAX: usize = 32;
const KIND_CORRUPTED: u8 = 0;
const KIND_CAP: u8 = 2;
const KIND_LAST: u8 = 11;

/// What is wrong with a log, in words for people.
pub(super) type Fault = String;

/// Whether everything that was written into a store reached its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// It did: what was written is as it was written, or damaged.
    Same,
    /// This is not known: the end may be torn.
    Other,
}

/// Reads what sled will replay from the log in `dir`. `Ok(None)` when it is sound, or torn as a crash leaves it.
pub(super) fn check(dir: &Path, frames: &FrameKey, boot: Boot) -> io::Result<Option<Fault>> {
    let log = match File::open(dir.join(LOG_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let replayed_from = snapshot_lsn(dir)? / SEGMENT * SEGMENT;
    let length = log.metadata()?.len();
    let mut segments: BTreeMap<u64, u64> = BTreeMap::new();
    let mut unreadable = Vec::new();
    let mut synced = 0;
    for at in (0..length).step_by(SEGMENT_BYTES) {
        match segment_header(&log, at)? {
            Header::Sound { lsn, synced: its } => {
                if lsn < replayed_from {
                    continue;
                }
                synced = synced.max(its);
                if segments.insert(lsn, at).is_some() {
                    return Ok(Some(format!("two segments of it claim the same place, {lsn}")));
                }
            }
            Header::Unreadable => unreadable.push(at),
        }
    }
    let mut newest = Stamp::default();
    let mut torn: Option<u64> = None;
    for (lsn, at) in &segments {
        let bytes = read_segment(&log, *at)?;
        let (end, is_sound) = match messages_end(&bytes, lsn / SEGMENT) {
            End::Whole => (bytes.len(), true),
            End::Stopped(end) => (end, false),
        };
        if torn.is_some() && newest_frame(frames, &bytes[..end]) > newest && boot == Boot::Same {
            return Ok(Some(format!("it cannot be read at {}, and goes on behind it", torn.unwrap_or(0))));
        }
        newest = newest.max(newest_frame(frames, &bytes[..end]));
        if is_sound {
            continue;
        }
        let stopped = lsn + end as u64;
        if stopped < synced {
            return Ok(Some(format!("a message at byte {} of its file cannot be read", at + end as u64)));
        }
        if boot == Boot::Same && newest_frame(frames, &bytes[end..]) > newest {
            return Ok(Some(format!("a message at byte {} of its file cannot be read", at + end as u64)));
        }
        // A store has a marker once its first values are synced: they cannot be what a crash tore.
        let is_beginning = torn.is_none() && newest == Stamp::default() && replayed_from == 0;
        if is_beginning && newest_frame(frames, &bytes[end..]) > newest {
            return Ok(Some(format!("its first message, at byte {} of its file, cannot be read", at + end as u64)));
        }
        torn.get_or_insert(at + end as u64);
    }
    // What sled would take for a new log, although a store has a marker only once its first values are synced.
    let would_read_as_new = segments.is_empty() && replayed_from == 0;
    // A segment whose header cannot be read is one that sled does not see. What was never used, or zeroed by sled, holds nothing.
    for at in unreadable {
        let bytes = read_segment(&log, at)?;
        let is_part_of_it = match first_message(&bytes) {
            Some(message) => {
                let lsn = message.segment.saturating_mul(SEGMENT);
                lsn >= replayed_from && (lsn < synced || boot == Boot::Same || would_read_as_new)
            }
            None => boot == Boot::Same && newest_frame(frames, &bytes) > Stamp::default(),
        };
        if is_part_of_it {
            return Ok(Some(format!("the header of a segment at byte {at} of its file cannot be read")));
        }
    }
    Ok(None)
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

enum Header {
    Sound {
        lsn: u64,
        /// Everything before this was synced when the segment was begun.
        synced: u64,
    },
    Unreadable,
}

fn segment_header(log: &File, at: u64) -> io::Result<Header> {
    let mut bytes = [0; SEGMENT_HEADER];
    match log.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Header::Unreadable),
        read => read?,
    }
    let number = |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
    let sum = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) ^ u32::MAX;
    if crc32fast::hash(&bytes[4..]) != sum {
        return Ok(Header::Unreadable);
    }
    // Places in the log are signed: -1 is that of a log in which nothing was synced yet.
    let place = |from: usize| (number(from) ^ i64::MAX as u64).cast_signed();
    Ok(Header::Sound { lsn: place(4).max(0).cast_unsigned(), synced: place(12).max(0).cast_unsigned() })
}

fn read_segment(log: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SEGMENT_BYTES];
    let mut read = 0;
    while read < bytes.len() {
        match log.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

enum End {
    /// All messages of the segment can be read.
    Whole,
    /// What stands here is not a message that can be read, of this segment as it was written last.
    Stopped(usize),
}

/// Goes through the messages of a segment as sled does.
fn messages_end(bytes: &[u8], segment_number: u64) -> End {
    let mut at = SEGMENT_HEADER;
    while SEGMENT_BYTES - at >= MESSAGE_HEADER_MAX {
        // Of another segment: what stood here before the segment was used again.
        let message = bytes.get(at..).and_then(message).filter(|message| message.segment == segment_number);
        let Some(message) = message else {
            return End::Stopped(at.min(bytes.len()));
        };
        if message.kind == KIND_CAP {
            break;
        }
        at += message.length;
    }
    End::Whole
}

struct Message {
    kind: u8,
    /// The number of the segment that it was written into.
    segment: u64,
    /// With its header.
    length: usize,
}

/// The message that `bytes` begin with, if it is sound.
fn message(bytes: &[u8]) -> Option<Message> {
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
    is_sound.then(|| Message { kind: *kind, segment, length: 4 + header.len() + body.len() })
}

/// The first message in a segment that can be read, wherever it begins.
fn first_message(bytes: &[u8]) -> Option<Message> {
    (SEGMENT_HEADER..bytes.len()).find_map(|at| message(&bytes[at..]))
}

/// A number in sled's variable length.
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

/// The greatest stamp of the frames in `bytes`.
fn newest_frame(frames: &FrameKey, bytes: &[u8]) -> Stamp {
    let starts = memchr::memmem::find_iter(bytes, &MAGIC);
    let found = starts.filter_map(|start| frames.decode(&bytes[start..]));
    found.map(|frame| frame.stamp).max().unwrap_or_default()
}
