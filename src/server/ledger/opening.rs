//! Opens a ledger for service and repairs inconsistencies, so that nothing is acknowledged that is not in the ledger, and nothing
//! is applied twice.
//!
//! No record is changed or removed. What is repaired follows from the records:
//!
//! * A mark follows from the last record of its stream. A mark that is too high would acknowledge lost events; one that is too
//!   low would apply events twice.
//! * The index names no position after the end.
//! * Positions after the end that the high-water file or an index entry names are recorded as lost, at the position after them.

use super::keys::{LEDGER_ID, index_key, ledger_id_value, mark_key, mark_value, record_key, trailing_u64};
use super::streams::Advance;
use super::{Ledger, Stream, damaged};
use crate::codes;
use crate::messaging::LedgerId;
use crate::messaging::receiver::Mark;
use crate::server::record::{Record, StreamId};
use crate::store::high_water::{self, HighWaterFile, HighWaterMark};
use crate::store::salvage::OnLoss;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::Ordering;

/// The position that a ledger had reached, in the high-water file beside its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHighWater {
    pub ledger: LedgerId,
    pub position: u64,
}

impl HighWaterMark for LedgerHighWater {
    const LENGTH_BYTES: usize = 1;
}

impl LedgerHighWater {
    /// Reads the mark in a file without changing the file. Returns `None` if no mark can be read.
    pub fn read(path: &Path) -> Option<LedgerHighWater> {
        high_water::read(path).ok().flatten()
    }
}

impl Ledger {
    /// Opens the ledger in `store` to serve with it. `high_water` is a file beside the store, kept up to date from now on.
    ///
    /// When the ledger ends before a position that was on disk once, the loss is recorded ([`Record::Truncated`]), on disk.
    pub fn open_beside(
        store: Store,
        high_water: &Path,
        on_loss: OnLoss,
        now_ms: i64,
    ) -> Result<Ledger, StoreError> {
        let (file, note) = match HighWaterFile::open::<LedgerHighWater>(high_water) {
            Ok((file, note)) => (Some(file), note),
            Err(error) => {
                tracing::error!(
                    code = %codes::HIGH_WATER_FILE_UNUSABLE,
                    %error, file = %high_water.display(),
                    hint = "correct the permissions or make room, then start again",
                    "the high-water file of the ledger cannot be used, so a lost end of the ledger would not be noticed"
                );
                (None, None)
            }
        };
        if let Some(note) = &note
            && note.position > 0
            && store.get(LEDGER_ID)?.is_none()
        {
            if on_loss == OnLoss::Refuse {
                return Err(damaged("the ledger's id"));
            }
            // Everything is lost, the id with it. The directory still belongs to that ledger: its edges deliver to no other.
            store.put(LEDGER_ID, &ledger_id_value(note.ledger))?;
        }
        let ledger = Ledger::open(store)?;
        let mut known = ledger.repair_streams(on_loss)?;
        match note {
            Some(note) if note.ledger == ledger.id => known = known.max(note.position),
            Some(note) => tracing::warn!(
                code = %codes::LEDGER_REPLACED,
                previous = %note.ledger, now = %ledger.id, positions = note.position,
                hint = "put the old ledger back, or run on each edge: edge ledger adopt ID",
                "another ledger was in this directory before; its edges do not deliver to this one"
            ),
            None => {}
        }
        let end = ledger.position();
        if known > end {
            let (from, to) = (end + 1, known);
            if on_loss == OnLoss::Refuse {
                return Err(StoreError::Damaged {
                    place: format!("positions {from} to {to} of the ledger"),
                    reason: "they were on disk, and are not there any more".into(),
                });
            }
            let record = Record::Truncated { received_at_ms: now_ms, from, to };
            ledger.store.put(&record_key(to + 1), &record.encode())?;
            tracing::error!(
                code = %codes::LEDGER_END_LOST,
                from, to, ledger = %ledger.id,
                hint = "check the disk, whether an older copy of the store was put here, and whether a backup has more",
                "the end of the ledger is lost; edges deliver again what they still have, and the rest is recorded as missing"
            );
        }
        ledger.store.flush()?;
        ledger.shared.durable.store(if known > end { known + 1 } else { end }, Ordering::Release);
        let ledger = Ledger { high_water: file.map(std::sync::Arc::new), ..ledger };
        ledger.note();
        Ok(ledger)
    }

    /// Makes marks and index agree with the records. Returns the last position that the index named.
    fn repair_streams(&self, on_loss: OnLoss) -> Result<u64, StoreError> {
        let end = self.position();
        let mut known = 0;
        let mut streams = self.read_streams().clone();
        // What says who has delivered what is small, and must be readable as a whole.
        for (from, to) in [(b"m", b"r"), (b"s", b"v"), (b"x", b"y")] {
            self.store.range(from, to).try_for_each(|entry| entry.map(drop))?;
        }
        // The number of a stream that is not in the list would be given a second time.
        let count = streams.count();
        for prefix in [b"m", b"x", b"t"] {
            let last = self.store.last(prefix, &[prefix[0] + 1])?;
            let number = last.and_then(|(key, _)| Some(u32::from_be_bytes(*key.get(1..)?.first_chunk()?)));
            if number.is_some_and(|number| number >= count) {
                return Err(damaged("the list of streams, which lacks one that the ledger has records of"));
            }
        }
        for number in 0..count {
            let Stream { id, mark: stored, .. } = streams.get(number).expect("it is among them").clone();
            let reached = loop {
                let Some((key, position)) =
                    self.store.last(&index_key(number, 0), &index_key(number, u64::MAX))?
                else {
                    break Mark::default();
                };
                let (first, position) = (trailing_u64(&key)?, trailing_u64(&position)?);
                if position <= end {
                    match self.reach(position, &id, first)? {
                        Some(mark) => break mark,
                        // The record cannot be read; only the mark says that it was applied, and how far it went.
                        None if stored.sequence >= first => break stored,
                        None => {}
                    }
                }
                if on_loss == OnLoss::Refuse {
                    return Err(damaged("a record that the index knows"));
                }
                known = known.max(position);
                self.store.remove(&key)?;
            };
            if reached != stored {
                if on_loss == OnLoss::Refuse {
                    return Err(damaged("the mark of a garage"));
                }
                tracing::error!(
                    code = %codes::MARK_CORRECTED,
                    garage = %id.site, epoch = %id.epoch, mark = stored.sequence, records = reached.sequence,
                    hint = "check the disk; the edge delivers again what it still has, and the rest becomes a missing range",
                    "the mark of a garage did not match its records; it was set to where the records end"
                );
                self.store.put(&mark_key(number), &mark_value(reached, &id))?;
                streams.set_mark(number, reached);
            }
        }
        *self.write_streams() = streams;
        Ok(known)
    }

    /// The mark by the record at a position; `None` when it cannot be read, or is not of that stream and sequence.
    fn reach(&self, position: u64, stream: &StreamId, first: u64) -> Result<Option<Mark>, StoreError> {
        let record = self.readable_at(position)?;
        let advance = record.and_then(|record| Advance::of(&record).ok().flatten());
        Ok(advance.filter(|its| (&its.stream, its.first) == (stream, first)).map(|its| its.mark))
    }
}
