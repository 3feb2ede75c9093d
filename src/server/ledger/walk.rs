//! Walks through the ledger in order of position, and continues after everything that cannot be read.
//!
//! **Promise.** Every position is accounted for: by its record, or as damaged, with what the index still says about it. Walking
//! through the same ledger again gives the same result.

use super::Ledger;
use super::Stream;
use super::log::LogEntries;
use crate::server::record::{Record, StreamId};
use crate::store::StoreError;

/// Maximum number of missing positions that are reported at once.
const STRETCH_MAX: u64 = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordOrDamage {
    Record(Record),
    /// Nothing can be read from this position up to the position that is reported with this value.
    Damaged {
        from: u64,
        reason: String,
    },
}

/// Applied events whose record cannot be read any more, by the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub position: u64,
    pub stream: StreamId,
    pub first: u64,
    pub last: u64,
}

impl Ledger {
    /// The content of each position from `from` on, up to the last one on disk when this was called. Positions that are recorded
    /// as lost ([`Record::Truncated`]) are skipped. An error means that the disk failed.
    pub fn records(&self, from: u64) -> impl Iterator<Item = Result<(u64, RecordOrDamage), StoreError>> + '_ {
        let end = self.position();
        LedgerWalk {
            ledger: self,
            entries: Some(self.log.read_range(from..=end)),
            ahead: None,
            expected: from.max(1),
            end,
        }
    }

    /// What the index says of records at positions `from..=to`, by position.
    ///
    /// It reads the whole index: damage is rare.
    pub fn losses(&self, from: u64, to: u64) -> Result<Vec<Loss>, StoreError> {
        // Before the index: a mark that is read later could belong to a page behind the damaged one.
        let streams = self.read_streams().clone();
        let mut losses: Vec<Loss> = Vec::new();
        for (number, stream) in (0..).zip(streams.iter()) {
            let loss = |(first, position), last| Loss { position, stream: stream.id.clone(), first, last };
            let mut lost: Option<(u64, u64)> = None;
            for page in self.log.pages_from(number, 0) {
                let page = page?;
                if let Some(lost) = lost.take() {
                    losses.push(loss(lost, self.last_before(stream, lost.0, page)));
                }
                lost = Some(page).filter(|(_, position)| (from..=to).contains(position));
            }
            losses.extend(lost.map(|lost| loss(lost, stream.mark.sequence.max(lost.0))));
        }
        losses.sort_by_key(|loss| loss.position);
        Ok(losses)
    }

    /// The last sequence of the page that begins with `first`, by the page after it.
    fn last_before(&self, stream: &Stream, first: u64, (next, position): (u64, u64)) -> u64 {
        // Sequences that the sender had deleted stand right before the page that showed it, as a missing range of their own.
        match self.record_at(position.saturating_sub(1)) {
            Ok(Some(Record::MissingRange { stream: its, first: missing, last, .. }))
                if (&its, last) == (&stream.id, next - 1) && missing > first =>
            {
                missing - 1
            }
            _ => next - 1,
        }
    }
}

type At = (u64, Result<Record, StoreError>);

struct LedgerWalk<'a> {
    ledger: &'a Ledger,
    /// `None` once a part of the store could not be read: from there on each position is looked up individually.
    entries: Option<LogEntries<'a>>,
    /// What was found after positions without content, which are reported first.
    ahead: Option<At>,
    expected: u64,
    end: u64,
}

impl LedgerWalk<'_> {
    /// The next position that has content, or that cannot be read.
    fn look(&mut self) -> Option<Result<At, StoreError>> {
        if let Some(ahead) = self.ahead.take() {
            return Some(Ok(ahead));
        }
        if let Some(entries) = &mut self.entries {
            match entries.next()? {
                Ok((at, value)) => return Some(Ok((at, Record::decode(at, &value)))),
                Err(StoreError::Damaged { .. }) => self.entries = None,
                Err(error) => return Some(Err(error)),
            }
        }
        (self.expected..=self.end).find_map(|position| match self.ledger.record_at(position) {
            Ok(record) => record.map(|record| Ok((position, Ok(record)))),
            Err(error @ StoreError::Damaged { .. }) => Some(Ok((position, Err(error)))),
            Err(error) => Some(Err(error)),
        })
    }

    /// The content of the next position, or of a stretch without any.
    fn step(&mut self, (position, decoded): At) -> Result<(u64, RecordOrDamage), StoreError> {
        let from = self.expected;
        // A walk that begins within a lost range continues after it.
        let is_told = matches!(&decoded, Ok(Record::Truncated { from: lost, .. }) if *lost <= from);
        if position > from && !is_told {
            self.ahead = Some((position, decoded));
            let through = (from + STRETCH_MAX - 1).min(position - 1);
            self.expected = through + 1;
            return Ok((through, RecordOrDamage::Damaged { from, reason: "there is no record".into() }));
        }
        self.expected = position + 1;
        match decoded {
            Ok(record) => Ok((position, RecordOrDamage::Record(record))),
            Err(StoreError::Damaged { reason, .. }) => {
                Ok((position, RecordOrDamage::Damaged { from: position, reason }))
            }
            Err(error) => Err(error),
        }
    }
}

impl Iterator for LedgerWalk<'_> {
    type Item = Result<(u64, RecordOrDamage), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.look()?;
        Some(found.and_then(|at| self.step(at)))
    }
}
