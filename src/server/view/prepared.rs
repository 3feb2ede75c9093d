//! Records of the ledger, checked and read: what can be done before the views are known.

use super::garages::LedgerDamage;
use super::stays;
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::parking::stored::StoredError;
use crate::parking::{Event, EventKind};
use crate::server::ledger::{Ledger, Loss, RecordOrDamage};
use crate::server::record::{Command, PAGE_OF_LOST_EVENTS, Record, StreamId};
use crate::store::StoreError;

/// A record that is ready to be applied: it is checked, and its events are read.
#[derive(Debug)]
pub struct PreparedRecord {
    /// The first position that it is about. It is about one position, about a range that cannot be read, or about a range that is
    /// lost and the position that records the loss.
    pub(super) from: u64,
    pub(super) position: u64,
    pub(super) what: Preparation,
}

#[derive(Debug)]
pub(super) enum Preparation {
    Page(PreparedPage),
    /// Any other record, as it is.
    Record(Record),
    /// Positions that cannot be read, or are lost, and the events that are known to be among them.
    Damaged(LedgerDamage, Vec<Loss>),
}

#[derive(Debug)]
pub(super) struct PreparedPage {
    pub(super) stream: StreamId,
    /// The ledger's number of the stream.
    pub(super) number: u32,
    pub(super) received_at_ms: i64,
    pub(super) first: u64,
    /// Whether the edge's clock was known to be set when the page was begun.
    pub(super) clock_set: bool,
    pub(super) events: Vec<Result<Event, StoredError>>,
}

impl PreparedRecord {
    /// Checks what stands at `position` and reads its events. What cannot be read becomes missing ranges of the garages that the
    /// index names.
    pub fn read(ledger: &Ledger, position: u64, found: RecordOrDamage) -> Result<PreparedRecord, StoreError> {
        let (from, prepared) = match found {
            RecordOrDamage::Damaged { from, reason } => (from, Err(reason)),
            RecordOrDamage::Record(Record::Truncated { received_at_ms, from, to }) => {
                let reason = format!("positions {from} to {to} were on disk and are lost");
                let damage = LedgerDamage { from, last: to, reason, found_at_ms: Some(received_at_ms) };
                (from, Ok(Preparation::Damaged(damage, Vec::new())))
            }
            RecordOrDamage::Record(record) => (position, PreparedRecord::prepare(ledger, record)),
        };
        let what = match prepared {
            Ok(what) => what,
            Err(reason) => {
                let damage = LedgerDamage { from, last: position, reason, found_at_ms: None };
                Preparation::Damaged(damage, ledger.losses(from, position)?)
            }
        };
        Ok(PreparedRecord { from, position, what })
    }

    fn prepare(ledger: &Ledger, record: Record) -> Result<Preparation, String> {
        let number_of = |stream: &StreamId| {
            ledger.number_of(stream).ok_or_else(|| format!("{stream} is not in the list of streams"))
        };
        Ok(match record {
            Record::Page { stream, received_at_ms, page } => {
                let number = number_of(&stream)?;
                let page = page.view().map_err(|error| error.to_string())?;
                let Content::Records(records) = page.content else {
                    return Err(PAGE_OF_LOST_EVENTS.into());
                };
                let events = records.iter().map(|record| Event::from_bytes(record.payload)).collect();
                let (first, clock_set) = (page.first.get(), page.begun.set);
                Preparation::Page(PreparedPage { stream, number, received_at_ms, first, clock_set, events })
            }
            Record::MissingRange { ref stream, .. } => {
                number_of(stream)?;
                Preparation::Record(record)
            }
            record => Preparation::Record(record),
        })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// What it says of positions that cannot be read, and whose events are known to be among them.
    pub fn damage(&self) -> Option<(&LedgerDamage, &[Loss])> {
        let Preparation::Damaged(damage, losses) = &self.what else { return None };
        Some((damage, losses))
    }

    /// Maximum number of writes that applying it adds to the changes.
    pub fn writes_at_most(&self) -> usize {
        match &self.what {
            Preparation::Page(PreparedPage { events, .. }) => {
                let of = |event: &Result<Event, StoredError>| match event {
                    Ok(Event { kind: EventKind::PlateCorrection { .. }, .. }) => {
                        stays::WRITES_OF_A_CORRECTION
                    }
                    _ => stays::WRITES_OF_A_PASSAGE,
                };
                let garage_and_quarantine = 2;
                events.iter().map(of).sum::<usize>() + stays::WRITES_OF_A_PAGE + garage_and_quarantine
            }
            Preparation::Record(Record::Command { command: Command::Release { .. }, .. }) => {
                RECORDS_MAX * stays::WRITES_OF_A_CORRECTION + stays::WRITES_OF_A_PAGE + 4
            }
            Preparation::Record(_) => 4,
            Preparation::Damaged(_, losses) => 1 + losses.len(),
        }
    }
}
