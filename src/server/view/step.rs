//! A record that is ready to be folded.

use super::{Damage, stays};
use crate::messaging::SiteName;
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::parking::stored::StoredError;
use crate::parking::{Event, EventKind};
use crate::server::ledger::{Found, Ledger, Loss};
use crate::server::record::{Command, Record};
use crate::store::StoreError;

/// A record that is ready to be folded: what needs no view was done before anybody has to wait for it.
#[derive(Debug)]
pub struct Step {
    /// It is about one position, or about a stretch that cannot be read, or that is lost and the position that says so.
    pub(super) from: u64,
    pub(super) position: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Page {
        stream: u32,
        received_at_ms: i64,
        first: u64,
        /// Whether the edge's clock was known to be set when the page was begun.
        clock_set: bool,
        events: Vec<Result<Event, StoredError>>,
    },
    Hole(HoleIn),
    Capacity {
        site: SiteName,
        capacity: u32,
    },
    Command(Command),
    Damaged {
        damage: Damage,
        losses: Vec<Loss>,
    },
    /// It changes no view.
    Nothing,
}

/// A [`Hole`] that names its stream.
#[derive(Debug)]
pub(super) struct HoleIn {
    pub(super) stream: u32,
    pub(super) received_at_ms: i64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) reason: String,
}

impl Step {
    /// Checks what stands at `position` and reads its events. What cannot be read becomes a hole of whom the index names.
    pub fn read(ledger: &Ledger, position: u64, found: Found) -> Result<Step, StoreError> {
        let (from, told) = match found {
            Found::Damaged { from, reason } => (from, Err(reason)),
            // A record that says something else than what it follows is as good as one that cannot be read.
            Found::Record(Record::Truncated { from, to, .. })
                if from == 0 || from > to || to != position - 1 =>
            {
                (
                    position,
                    Err(format!("it says that positions {from} to {to} are lost, which it does not follow")),
                )
            }
            Found::Record(Record::Truncated { received_at_ms, from, to }) => {
                let reason = format!("positions {from} to {to} were on disk and are lost");
                let damage = Damage { from, last: to, reason, found_at_ms: Some(received_at_ms) };
                return Ok(Step { from, position, what: What::Damaged { damage, losses: Vec::new() } });
            }
            Found::Record(record) => (position, Self::what(ledger, record)),
        };
        let what = match told {
            Ok(what) => what,
            Err(reason) => {
                let damage = Damage { from, last: position, reason, found_at_ms: None };
                What::Damaged { damage, losses: ledger.losses(from, position)? }
            }
        };
        Ok(Step { from, position, what })
    }

    fn what(ledger: &Ledger, record: Record) -> Result<What, String> {
        let known = |stream| ledger.stream(stream).map(drop).map_err(|error| error.to_string());
        Ok(match record {
            Record::Page { stream, received_at_ms, page } => {
                known(stream)?;
                let page = page.read().map_err(|error| error.to_string())?;
                let Content::Records(records) = page.content else {
                    return Err("a page without events stands where events were applied".into());
                };
                let events = records.iter().map(|record| Event::from_bytes(&record.payload)).collect();
                let (first, clock_set) = (page.first.get(), page.begun.set);
                What::Page { stream, received_at_ms, first, clock_set, events }
            }
            Record::MissingRange { stream, received_at_ms, first, last, reason, .. } => {
                known(stream)?;
                What::Hole(HoleIn { stream, received_at_ms, first, last, reason })
            }
            Record::Capacity { site, capacity, .. } => What::Capacity { site, capacity },
            Record::Command { command, .. } => What::Command(command),
            Record::Moved { .. } => What::Nothing,
            Record::Truncated { .. } => unreachable!("it is about more positions than its own"),
        })
    }

    /// What it says of positions that cannot be read, and whose events are known to be among them.
    pub fn damage(&self) -> Option<(&Damage, &[Loss])> {
        match &self.what {
            What::Damaged { damage, losses } => Some((damage, losses)),
            _ => None,
        }
    }

    /// The most writes that folding it may add to the changes.
    pub fn writes_at_most(&self) -> usize {
        match &self.what {
            What::Page { events, .. } => {
                let of = |event: &Result<Event, StoredError>| match event {
                    Ok(Event { kind: EventKind::PlateCorrection { .. }, .. }) => {
                        stays::WRITES_OF_A_CORRECTION
                    }
                    _ => stays::WRITES_OF_A_PASSAGE,
                };
                let garage_and_quarantine = 2;
                events.iter().map(of).sum::<usize>() + stays::WRITES_OF_A_PAGE + garage_and_quarantine
            }
            What::Command(Command::Release { .. }) => {
                RECORDS_MAX * stays::WRITES_OF_A_CORRECTION + stays::WRITES_OF_A_PAGE + 4
            }
            What::Command(_) => 4,
            What::Hole(_) | What::Capacity { .. } => 1,
            What::Damaged { losses, .. } => 1 + losses.len(),
            What::Nothing => 0,
        }
    }
}
