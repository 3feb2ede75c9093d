//! Rebuilds a ledger from what could be found in a damaged store.
//!
//! **Promise.** Every record that can be found is at its position in the new store. A position whose record cannot be found
//! keeps its number; the garage, the epoch and the sequences that are missing for it are in the index, as they were.
//! **Kept by.** A record at a position never changes, so an old copy is as good as the newest. Streams, index and marks follow
//! from the records ([`LedgerCopy`]), which name their streams. Sequences have no gaps: a page that does not continue the one before
//! it shows what is missing between them. A stored mark shows what is missing at the end.
//!
//! If the list of streams is lost, the number of a stream is the one whose mark names it, or from which the index leads to its records.
//! **Not promised.** That each lost sequence gets the position that it had, when several positions are lost: they are assigned in
//! order.
//!
//! The views are not kept: they follow from the ledger.

use super::keys::{self, LEDGER_ID, index_key, mark_key, record_key, trailing_u64};
use super::streams::{Advance, NAMELESS};
use super::{LedgerCopy, LedgerHighWater, damaged};
use crate::codes;
use crate::messaging::receiver::Mark;
use crate::messaging::{Epoch, SiteName};
use crate::server::record::{Record, StreamId};
use crate::store::salvage::{Salvaged, SalvagedValue, Stamp};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Writes the ledger that was found into `new`. `high_water` is the file beside the damaged store.
pub fn rebuild(high_water: &Path, found: &Salvaged, new: &Store) -> Result<(), StoreError> {
    let note = LedgerHighWater::read(high_water);
    let id = found.get(LEDGER_ID)?.and_then(|id| keys::decode_ledger_id(&id.value));
    let id = id.or(note.map(|note| note.ledger)).ok_or_else(|| damaged("the ledger's id"))?;
    let note = note.filter(|note| note.ledger == id);
    let marks = read_marks(found)?;
    let streams = read_streams(found, &marks)?;
    let mut not_counted = BTreeSet::new();
    // A round ends at a record of a write that a crash undid; there are few of them.
    let losses = loop {
        let (reached, losses) = (BTreeMap::new(), Losses::default());
        let reader =
            RecordReader { found, streams: &streams, note, not_counted: &not_counted, reached, losses };
        let mut copy = LedgerCopy::begin(new, id, streams.clone())?;
        match reader.read_into(&mut copy, &marks)? {
            Ok(losses) => {
                losses.lost.iter().try_for_each(|lost| copy.begin_stream(&lost.stream))?;
                copy.finish()?;
                break losses;
            }
            Err(undone) => {
                not_counted.insert(undone);
                new.flush()?;
                clear(new)?;
            }
        }
    };
    write_losses(new, &streams, &marks, losses)?;
    // The base of a compacted ledger, see `server::view::base`, and the note that this is a copy.
    new.put_all(found.entries(b"b", b"d"))
}

/// The stored marks by the number of their stream, and the stream that each names.
type Marks = BTreeMap<u32, (Mark, StreamId)>;

fn read_marks(found: &Salvaged) -> Result<Marks, StoreError> {
    let mut marks = Marks::new();
    for entry in found.range(b"m", b"n") {
        let SalvagedValue { key, value, .. } = entry?;
        if let (Some(number), Ok(mark)) = (stream_in(&key), keys::decode_mark(&value)) {
            marks.insert(number, mark);
        }
    }
    Ok(marks)
}

/// Epoch of a stream of which neither the name nor a page is left: its records cannot be assigned to any garage.
const NO_EPOCH: Epoch = Epoch::from_bytes([0; 16]);

/// Each stream, by its number. A stream that nothing names gets a made-up name, so that others keep their numbers.
fn read_streams(found: &Salvaged, marks: &Marks) -> Result<Vec<StreamId>, StoreError> {
    let mut named: BTreeMap<u32, StreamId> =
        marks.iter().map(|(number, (_, stream))| (*number, stream.clone())).collect();
    for entry in found.range(b"s", b"t") {
        let SalvagedValue { key, value, .. } = entry?;
        if let (Some(number), Some(stream)) = (stream_in(&key), keys::decode_stream(&value)) {
            named.insert(number, stream);
        }
    }
    for number in 0..named.keys().last().map_or(0, |last| last + 1) {
        if named.contains_key(&number) {
            continue;
        }
        let stream = match named_by_index(found, number)? {
            Some(stream) => stream,
            None => {
                tracing::error!(
                    code = %codes::GARAGE_NAME_UNREADABLE,
                    stream = number,
                    hint = "rename the garage: server garages rename",
                    "the name of a garage can no longer be read; its events are kept under a placeholder name"
                );
                let site = SiteName::new(&format!("{NAMELESS}{number}"));
                StreamId { site: site.expect("it is short and can be printed"), epoch: NO_EPOCH }
            }
        };
        named.insert(number, stream);
    }
    let known: BTreeSet<StreamId> = named.values().cloned().collect();
    let others = streams_in_records(found)?;
    Ok(named.into_values().chain(others.difference(&known).cloned()).collect())
}

/// The streams that records name.
fn streams_in_records(found: &Salvaged) -> Result<BTreeSet<StreamId>, StoreError> {
    let mut streams = BTreeSet::new();
    for entry in found.range(b"r", b"s") {
        let SalvagedValue { key, value, .. } = entry?;
        if let Ok(record) = Record::decode(trailing_u64(&key)?, &value) {
            streams.extend(record.stream().cloned());
        }
    }
    Ok(streams)
}

/// The stream that a record names to which the index leads from this number.
fn named_by_index(found: &Salvaged, number: u32) -> Result<Option<StreamId>, StoreError> {
    for entry in found.range(&index_key(number, 0), &index_key(number, u64::MAX)) {
        let position = trailing_u64(&entry?.value)?;
        if let Some(record) = found.get(&record_key(position))?
            && let Ok(record) = Record::decode(position, &record.value)
        {
            return Ok(record.stream().cloned());
        }
    }
    Ok(None)
}

/// Sequences of a stream that were not found, and the positions between which they stood.
#[derive(Debug)]
struct LostRange {
    stream: StreamId,
    first: u64,
    after: u64,
    before: u64,
}

#[derive(Default)]
struct Losses {
    lost: Vec<LostRange>,
    positions: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct StreamEnd {
    sequence: u64,
    position: u64,
}

struct RecordReader<'a> {
    found: &'a Salvaged,
    streams: &'a [StreamId],
    note: Option<LedgerHighWater>,
    not_counted: &'a BTreeSet<u64>,
    reached: BTreeMap<StreamId, StreamEnd>,
    losses: Losses,
}

impl RecordReader<'_> {
    /// Adds all records to the copy, and returns what is missing. `Err` inside: the record at this position belongs to a write that a
    /// crash undid, and does not count.
    fn read_into(
        mut self,
        copy: &mut LedgerCopy<'_>,
        marks: &Marks,
    ) -> Result<Result<Losses, u64>, StoreError> {
        // Nothing after this position was answered: an incomplete write after it was under way.
        let confirmed = self.note.filter(|_| self.found.is_of_this_boot()).map(|note| note.position);
        for entry in self.found.range(b"r", b"s") {
            let SalvagedValue { key, value, stamp } = entry?;
            let position = trailing_u64(&key)?;
            if self.not_counted.contains(&position) {
                continue;
            }
            let joins =
                confirmed.is_none_or(|confirmed| position <= confirmed || position == copy.position() + 1);
            if !joins {
                break;
            }
            let Ok(record) = Record::decode(position, &value) else { continue };
            match self.follow(position, stamp, &record)? {
                Follows::Yes => {}
                Follows::No => continue,
                Follows::InsteadOf(undone) => return Ok(Err(undone)),
            }
            self.skip_to(copy, position)?;
            copy.add(value)?;
        }
        let end = self.note.map_or(0, |note| note.position);
        self.skip_to(copy, end + 1)?;
        for (number, (mark, _)) in marks {
            let Some(stream) = self.streams.get(*number as usize) else { continue };
            let reached = self.reached.get(stream).copied().unwrap_or_default();
            // The mark may belong to a write that a crash undid: it counts only where a confirmed position is lost.
            let end = confirmed.unwrap_or(u64::MAX - 1);
            let is_lost = self.losses.positions.range(reached.position + 1..=end.max(reached.position + 1));
            let is_lost = confirmed.is_none() || is_lost.into_iter().any(|lost| *lost <= end);
            if mark.sequence > reached.sequence && is_lost {
                let (stream, first, after) = (stream.clone(), reached.sequence + 1, reached.position);
                self.losses.lost.push(LostRange { stream, first, after, before: u64::MAX });
            }
        }
        let at_the_end = self.losses.lost.iter().filter(|lost| lost.before == u64::MAX);
        let free = |after: u64| self.losses.positions.range(after + 1..).next().is_some();
        if at_the_end.into_iter().any(|lost| !free(lost.after)) {
            // The last record is lost, and no note says that there was one.
            let next = copy.position() + 1;
            self.skip_to(copy, next + 1)?;
        }
        Ok(Ok(self.losses))
    }

    /// Adds the positions before this one, which have no record.
    fn skip_to(&mut self, copy: &mut LedgerCopy<'_>, position: u64) -> Result<(), StoreError> {
        while copy.position() + 1 < position {
            self.losses.positions.insert(copy.position() + 1);
            copy.add(Vec::new())?;
        }
        Ok(())
    }

    fn follow(&mut self, position: u64, stamp: Stamp, record: &Record) -> Result<Follows, StoreError> {
        let Ok(advance) = Advance::of(record) else { return Ok(Follows::No) };
        let Some(Advance { stream, first, last, .. }) = advance else {
            if let Record::Truncated { from, to, .. } = record {
                self.losses.positions.retain(|lost| !(*from..=*to).contains(lost));
            }
            return Ok(Follows::Yes);
        };
        if stream.epoch == NO_EPOCH || last < first {
            return Ok(Follows::No);
        }
        let reached = self.reached.entry(stream.clone()).or_default();
        if first <= reached.sequence {
            // Only one of the two can count. It is the later one: a crash undid the other before it was answered.
            let other = self.found.get(&record_key(reached.position))?;
            let is_later = other.is_some_and(|other| other.stamp < stamp);
            return Ok(if is_later { Follows::InsteadOf(reached.position) } else { Follows::No });
        }
        if first > reached.sequence + 1 {
            let lost =
                LostRange { stream, first: reached.sequence + 1, after: reached.position, before: position };
            self.losses.lost.push(lost);
        }
        *reached = StreamEnd { sequence: last, position };
        Ok(Follows::Yes)
    }
}

enum Follows {
    Yes,
    No,
    InsteadOf(u64),
}

/// Puts the lost sequences into the index, each at a lost position, and sets the marks after them.
fn write_losses(new: &Store, streams: &[StreamId], marks: &Marks, losses: Losses) -> Result<(), StoreError> {
    let Losses { mut lost, mut positions } = losses;
    lost.sort_by_key(|lost| (lost.before, lost.after));
    let mut batch = Batch::default();
    for LostRange { stream, first, after, before } in lost {
        // The earliest that fits, because ranges that end later have more to choose from.
        let Some(position) = positions.range(after + 1..before).next().copied() else {
            tracing::error!(
                code = %codes::SEQUENCES_WITHOUT_POSITION,
                garage = %stream.site, epoch = %stream.epoch, first,
                hint = "run: server verify; restore a backup if there is one",
                "sequences are missing from the ledger, and no lost position is left that could have held them"
            );
            continue;
        };
        positions.remove(&position);
        let Some(number) = (0..).zip(streams).find_map(|(number, its)| (*its == stream).then_some(number))
        else {
            continue;
        };
        batch.put(index_key(number, first), position.to_be_bytes());
        if before == u64::MAX
            && let Some((mark, _)) = marks.get(&number)
        {
            batch.put(mark_key(number), keys::mark_value(*mark, &stream));
        }
        if batch.len() + 2 > BATCH_MAX {
            new.apply(&std::mem::take(&mut batch))?;
        }
    }
    new.apply(&batch)
}

fn clear(new: &Store) -> Result<(), StoreError> {
    let keys: Vec<Vec<u8>> =
        new.range(&[1], &[u8::MAX]).map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>()?;
    for some in keys.chunks(BATCH_MAX) {
        let mut batch = Batch::default();
        some.iter().for_each(|key| batch.remove(key.clone()));
        new.apply(&batch)?;
    }
    Ok(())
}

fn stream_in(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(1..)?.try_into().ok()?))
}
