//! A record that is ready to be applied.

use super::garages::LedgerDamage;
use super::stays;
use crate::messaging::SiteName;
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::parking::stored::StoredError;
use crate::parking::{Event, EventKind};
use crate::server::ledger::{Ledger, Loss, RecordOrDamage};
use crate::server::record::{Command, Record, StreamId};
use crate::store::StoreError;

/// A record that is ready to be applied: what needs no view is done already, so that nothing waits for it.
#[derive(Debug)]
pub struct PreparedRecord {
    /// It is about one position, or about a stretch that cannot be read, or that is lost and the position that says so.
    pub(super) from: u64,
    pub(super) position: u64,
    pub(super) what: Preparation,
}

#[derive(Debug)]
pub(super) enum Preparation {
    /// A page of events.
    Page(PreparedPage),
    /// Events of a stream that will never come.
    MissingRange { stream: StreamId, received_at_ms: i64, first: u64, last: u64, reason: String },
    /// An edge reported its number of spaces.
    Capacity { site: SiteName, capacity: u32 },
    /// An operator's command.
    Command(Command),
    /// Positions that cannot be read, or are lost.
    Damaged { damage: LedgerDamage, losses: Vec<Loss> },
    /// It changes no view.
    Nothing,
}

/// A page of events.
#[derive(Debug)]
pub(super) struct PreparedPage {
    pub stream: StreamId,
    /// The ledger's number of the stream.
    pub stream_number: u32,
    pub received_at_ms: i64,
    pub first: u64,
    /// Whether the edge's clock was known to be set when the page was begun.
    pub clock_set: bool,
    pub events: Vec<Result<Event, StoredError>>,
}

impl PreparedRecord {
    /// Checks what stands at `position` and reads its events. What cannot be read becomes missing ranges of the garages that the index names.
    pub fn read(ledger: &Ledger, position: u64, found: RecordOrDamage) -> Result<PreparedRecord, StoreError> {
        let (from, told) = match found {
            RecordOrDamage::Damaged { from, reason } => (from, Err(reason)),
            // A record that says something else than what it follows is as good as one that cannot be read.
            RecordOrDamage::Record(Record::Truncated { from, to, .. })
                if from == 0 || from > to || to != position - 1 =>
            {
                (
                    position,
                    Err(format!("it says that positions {from} to {to} are lost, which it does not follow")),
                )
            }
            RecordOrDamage::Record(Record::Truncated { received_at_ms, from, to }) => {
                let reason = format!("positions {from} to {to} were on disk and are lost");
                let damage = LedgerDamage { from, last: to, reason, found_at_ms: Some(received_at_ms) };
                return Ok(PreparedRecord {
                    from,
                    position,
                    what: Preparation::Damaged { damage, losses: Vec::new() },
                });
            }
            RecordOrDamage::Record(record) => (position, Self::what(ledger, record)),
        };
        let what = match told {
            Ok(what) => what,
            Err(reason) => {
                let damage = LedgerDamage { from, last: position, reason, found_at_ms: None };
                Preparation::Damaged { damage, losses: ledger.losses(from, position)? }
            }
        };
        Ok(PreparedRecord { from, position, what })
    }

    fn what(ledger: &Ledger, record: Record) -> Result<Preparation, String> {
        let number_of = |stream| {
            ledger.number_of(stream).ok_or_else(|| format!("{stream} is not in the list of streams"))
        };
        Ok(match record {
            Record::Page { stream, received_at_ms, page } => {
                let stream_number = number_of(&stream)?;
                let page = page.read().map_err(|error| error.to_string())?;
                let Content::Records(records) = page.content else {
                    return Err("a page without events stands where events were applied".into());
                };
                let events = records.iter().map(|record| Event::from_bytes(&record.payload)).collect();
                let (first, clock_set) = (page.first.get(), page.begun.set);
                Preparation::Page(PreparedPage {
                    stream,
                    stream_number,
                    received_at_ms,
                    first,
                    clock_set,
                    events,
                })
            }
            Record::MissingRange { stream, received_at_ms, first, last, reason, .. } => {
                number_of(&stream)?;
                Preparation::MissingRange { stream, received_at_ms, first, last, reason }
            }
            Record::Capacity { site, capacity, .. } => Preparation::Capacity { site, capacity },
            Record::Command { command, .. } => Preparation::Command(command),
            Record::Moved { .. } => Preparation::Nothing,
            Record::Truncated { .. } => unreachable!("it is about more positions than its own"),
        })
    }

    /// What it says of positions that cannot be read, and whose events are known to be among them.
    pub fn damage(&self) -> Option<(&LedgerDamage, &[Loss])> {
        match &self.what {
            Preparation::Damaged { damage, losses } => Some((damage, losses)),
            _ => None,
        }
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
            Preparation::Command(Command::Release { .. }) => {
                RECORDS_MAX * stays::WRITES_OF_A_CORRECTION + stays::WRITES_OF_A_PAGE + 4
            }
            Preparation::Command(_) => 4,
            Preparation::MissingRange { .. } | Preparation::Capacity { .. } => 1,
            Preparation::Damaged { losses, .. } => 1 + losses.len(),
            Preparation::Nothing => 0,
        }
    }
}
