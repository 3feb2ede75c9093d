//! Applies the ledger's records to the views, one after the other. Occupancy and stays change only in [`apply_to`], both for the
//! events of a page and for those released from quarantine.

use super::billing::Billing;
use super::billing::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::billing::totals::Sign;
use super::changes::ViewChanges;
use super::curves::{Counted, CurveChanges, HOUR_MS, Reception};
use super::decisions::Decisions;
use super::forgotten::forget_noted;
use super::garages::{GarageState, LedgerDamage, MissingRange, QuarantinedPage};
use super::openings;
use super::refusal::{ApplyEventError, NotApplied};
use super::state::View;
use super::stays::{self, EventPosition, StayIndex, StayUpdate};
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::messaging::{Epoch, SiteName};
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
    from: u64,
    position: u64,
    what: Preparation,
}

#[derive(Debug)]
enum Preparation {
    Page(PreparedPage),
    /// Any other record, as it is.
    Record(Record),
    /// Positions that cannot be read, or are lost, and the events that are known to be among them.
    Damaged(LedgerDamage, Vec<Loss>),
}

#[derive(Debug)]
struct PreparedPage {
    stream: StreamId,
    /// The ledger's number of the stream.
    number: u32,
    received_at_ms: i64,
    first: u64,
    /// Whether the edge's clock was known to be set when the page was begun.
    clock_set: bool,
    events: Vec<Result<Event, StoredError>>,
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
                let garage_opening_and_quarantine = 3;
                let times = events.iter().flatten().map(at_ms_of);
                events.iter().map(of).sum::<usize>()
                    + stays::WRITES_OF_A_PAGE
                    + garage_opening_and_quarantine
                    + CurveChanges::writes_at_most(times)
            }
            Preparation::Record(Record::Command { command: Command::Release { .. }, .. }) => {
                let apart = (0..RECORDS_MAX as i64).map(|n| n * HOUR_MS);
                let curves = CurveChanges::writes_at_most(apart);
                RECORDS_MAX * stays::WRITES_OF_A_CORRECTION + stays::WRITES_OF_A_PAGE + 5 + curves
            }
            Preparation::Record(_) => 4,
            Preparation::Damaged(_, losses) => 1 + losses.len(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    #[error(transparent)]
    Ledger(StoreError),
    /// The views cannot be written.
    #[error(transparent)]
    Views(StoreError),
}

impl From<CatchUpError> for StoreError {
    fn from(error: CatchUpError) -> StoreError {
        match error {
            CatchUpError::Ledger(error) | CatchUpError::Views(error) => error,
        }
    }
}

/// Applies the ledger's records behind the view's position up to `through`, each after `before_each`. The changes are written when
/// there is no room for more; the last ones are left to the caller.
pub fn catch_up(
    view: &mut View,
    ledger: &Ledger,
    through: u64,
    changes: &mut ViewChanges,
    mut before_each: impl FnMut(&PreparedRecord),
) -> Result<(), CatchUpError> {
    for found in ledger.records(view.position + 1) {
        let (position, found) = found.map_err(CatchUpError::Ledger)?;
        if position > through {
            break;
        }
        let step = PreparedRecord::read(ledger, position, found).map_err(CatchUpError::Ledger)?;
        before_each(&step);
        if !changes.have_room_for(step.writes_at_most()) {
            view.save(changes).map_err(CatchUpError::Views)?;
        }
        view.apply(ledger, step, changes).map_err(CatchUpError::Ledger)?;
    }
    Ok(())
}

impl View {
    /// Applies the next record; returns the events of it that went to quarantine.
    ///
    /// The caller has made sure that the changes have room for the step.
    pub fn apply(
        &mut self,
        ledger: &Ledger,
        step: PreparedRecord,
        changes: &mut ViewChanges,
    ) -> Result<Option<&QuarantinedPage>, StoreError> {
        let PreparedRecord { from, position, what } = step;
        assert!(
            from <= self.position + 1 && self.position < position,
            "the ledger accounts for every position, in order"
        );
        match what {
            Preparation::Damaged(damage, losses) => self.apply_damage(damage, losses, changes),
            Preparation::Page(page) => self.apply_page(ledger, position, page, changes)?,
            Preparation::Record(Record::MissingRange {
                stream, received_at_ms, first, last, reason, ..
            }) => {
                let (garage, received_at_ms) = (self.key_of(&stream.site).clone(), Some(received_at_ms));
                self.curve_is_broken(&garage, changes);
                let range = MissingRange { garage, epoch: stream.epoch, first, last, reason, received_at_ms };
                self.put_missing_range(position, range);
                changes.missing_ranges.insert(position);
            }
            Preparation::Record(Record::Capacity { site, capacity, received_at_ms }) => {
                let key = self.key_of(&site).clone();
                let (garage, ..) = self.garage_mut(&key, changes);
                let before = garage.opening.clone();
                garage.was_told(&key, (capacity, received_at_ms));
                openings::note(&key, &before, &garage.opening, changes);
                self.garage_changed(&key, position);
            }
            Preparation::Record(Record::Command { received_at_ms, command, .. }) => {
                self.apply_command(ledger, (position, received_at_ms), &command, changes)?;
            }
            Preparation::Record(_) => {} // it changes no view
        }
        self.position = position;
        Ok(self.quarantine.get(&position))
    }

    fn apply_damage(&mut self, damage: LedgerDamage, losses: Vec<Loss>, changes: &mut ViewChanges) {
        for Loss { position, stream, first, last } in losses {
            let garage = self.key_of(&stream.site).clone();
            let reason = format!(
                "these events were applied at position {position} of the ledger, whose record can no longer be read: {}",
                damage.reason
            );
            self.curve_is_broken(&garage, changes);
            let range =
                MissingRange { garage, epoch: stream.epoch, first, last, reason, received_at_ms: None };
            self.put_missing_range(position, range);
            changes.missing_ranges.insert(position);
        }
        changes.damages.insert(damage.last);
        self.damages.insert_mut(damage.last, damage);
    }

    /// Events of the garage of a key are lost: how full it was meanwhile is not known.
    fn curve_is_broken(&mut self, key: &SiteName, changes: &mut ViewChanges) {
        if let Some(garage) = self.shown.garages.get(key) {
            self.curves.lost(garage.stays.number, &mut changes.curves);
        }
    }

    fn apply_page(
        &mut self,
        ledger: &Ledger,
        position: u64,
        page: PreparedPage,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let PreparedPage { stream, number, received_at_ms, first, clock_set, events } = page;
        let count = events.len() as u64;
        let key = self.key_of(&stream.site).clone();
        self.stays.received(received_at_ms, position, changes)?;
        let (garage, stays, billing, decisions) = self.garage_mut(&key, changes);
        garage.counted(&key, count);
        if !clock_set {
            let anomaly = AnomalyKey::of_garage(AnomalyCode::ClockNotSet, garage.stays.number);
            // Of the times that it may have, only those of its events do not depend on when it arrived.
            let at_ms =
                events.iter().find_map(|event| Some(event.as_ref().ok()?.at.timestamp.as_millisecond()));
            let fact = AnomalyFact::of_event(number, first, at_ms.unwrap_or_default());
            changes.billing.note(Sign::Add, &anomaly, fact, position)?;
        }
        let opening_before = garage.opening.clone();
        let (mut set_aside, mut reason, mut counted) = (0u64, None, Vec::new());
        for (index, event) in events.into_iter().enumerate() {
            let sequence = first + index as u64;
            let epoch = stream.epoch;
            let place = EventPosition { site: &stream.site, stream: number, epoch, sequence, position };
            let applied = match event {
                Ok(event) => apply_to(garage, (stays, billing, decisions), ledger, place, &event, changes),
                Err(error) => Err(NotApplied::NotUnderstood(error.to_string()).into()),
            };
            match applied {
                Ok(its) => counted.push(its),
                Err(ApplyEventError::Store(error)) => return Err(error),
                Err(ApplyEventError::NotApplied(why)) => {
                    set_aside |= 1 << index;
                    reason.get_or_insert(why.to_string());
                }
            }
        }
        openings::note(&key, &opening_before, &garage.opening, changes);
        garage.events += count;
        garage.as_of_ms = Some(received_at_ms);
        garage.through = Some((stream.epoch, first + count - 1));
        let (garage, receipt) = (garage.stays.number, Reception::Now(received_at_ms));
        self.garage_changed(&key, position);
        self.curves.note(garage, receipt, &counted, &mut changes.curves)?;
        if let Some(reason) = reason {
            let epoch = stream.epoch;
            let quarantined =
                QuarantinedPage { garage: key, epoch, first, events: set_aside, reason, received_at_ms };
            self.quarantine.insert_mut(position, quarantined);
            changes.quarantine.insert(position);
        }
        Ok(())
    }

    /// Applies one event that was received at a time. An event that is not applied changes nothing.
    pub(super) fn apply_event(
        &mut self,
        ledger: &Ledger,
        place: EventPosition<'_>,
        received_at_ms: i64,
        event: &Event,
        changes: &mut ViewChanges,
    ) -> Result<(), ApplyEventError> {
        let key = self.key_of(place.site).clone();
        let (garage, stays, billing, decisions) = self.garage_mut(&key, changes);
        let opening_before = garage.opening.clone();
        let counted = apply_to(garage, (stays, billing, decisions), ledger, place, event, changes)?;
        openings::note(&key, &opening_before, &garage.opening, changes);
        garage.as_of_ms = Some(received_at_ms);
        let (garage, receipt) = (garage.stays.number, Reception::Earlier(received_at_ms));
        self.garage_changed(&key, place.position);
        Ok(self.curves.note(garage, receipt, &[counted], &mut changes.curves)?)
    }
}

fn at_ms_of(event: &Event) -> i64 {
    event.at.timestamp.as_millisecond()
}

/// Applies one event to its garage.
pub(super) fn apply_to(
    garage: &mut GarageState,
    (stays, billing, decisions): (&mut StayIndex, &mut Billing, &Decisions),
    ledger: &Ledger,
    place: EventPosition<'_>,
    event: &Event,
    changes: &mut ViewChanges,
) -> Result<Counted, ApplyEventError> {
    let book = &mut garage.stays;
    let mut update = StayUpdate { book, billing: &mut *billing, decisions, ledger, changes: &mut *changes };
    match &event.kind {
        EventKind::Entry { plate } => {
            let plate = update.plate_of(place, event, plate.as_ref())?;
            plate.map_or(Ok(()), |plate| stays.enter(&plate, place, event, update))?;
        }
        EventKind::Exit { plate } => {
            let plate = update.plate_of(place, event, plate.as_ref())?;
            plate.map_or(Ok(()), |plate| stays.leave(&plate, place.passage(event), update))?;
        }
        EventKind::PlateCorrection { epoch, sequence, plate } => {
            let epoch = epoch.parse::<Epoch>().map_err(|_| NotApplied::NoEpoch(epoch.clone()))?;
            let at_ms = event.at.timestamp.as_millisecond();
            stays.correct((place, at_ms), ((epoch, *sequence), plate), &mut update)?;
        }
        EventKind::Closed { .. } | EventKind::Opened => garage.opening.heard(event),
        EventKind::Count { .. } => {}
    }
    let before = garage.occupancy.occupied;
    garage.occupancy.apply(&event.kind);
    garage.look_whether_full(event.at.timestamp.as_millisecond());
    forget_noted(stays, billing, ledger, changes)?;
    Ok(Counted { at_ms: at_ms_of(event), before, after: garage.occupancy.occupied })
}
