//! Applying one event: the one door to occupancy and stays, for a page as for what is released from quarantine.

use super::billing::Billing;
use super::billing::anomalies::AnomalyCode;
use super::changes::ViewChanges;
use super::garages::GarageState;
use super::refusal::NotApplied;
use super::state::View;
use super::stays::{BillingContext, EventPlace, StayIndex};
use crate::messaging::{Epoch, SiteName};
use crate::parking::{Event, EventKind};
use crate::server::ledger::Ledger;
use crate::store::StoreError;

impl View {
    /// Applies one event that was received at a time. `Err` inside: it changed nothing, and belongs into quarantine with that reason.
    pub(super) fn apply_event(
        &mut self,
        ledger: &Ledger,
        place: EventPlace<'_>,
        received_at_ms: i64,
        event: &Event,
        changes: &mut ViewChanges,
    ) -> Result<Result<(), NotApplied>, StoreError> {
        let key = self.key_of(place.site).clone();
        let (garage, stays, billing) = self.garage_mut(&key, changes);
        let applied = apply_to(&key, garage, (stays, billing), ledger, place, event, changes)?;
        if applied.is_ok() {
            garage.as_of_ms = Some(received_at_ms);
            self.garage_changed(&key, place.position);
        }
        Ok(applied)
    }
}

/// Applies an event to its garage.
pub(super) fn apply_to(
    key: &SiteName,
    garage: &mut GarageState,
    (stays, billing): (&mut StayIndex, &mut Billing),
    ledger: &Ledger,
    place: EventPlace<'_>,
    event: &Event,
    changes: &mut ViewChanges,
) -> Result<Result<(), NotApplied>, StoreError> {
    let called = garage.decisions.called.as_ref().unwrap_or(key);
    let teller = BillingContext { billing, called: called.as_str() };
    let book = &mut garage.stays;
    match &event.kind {
        EventKind::Entry { plate: Some(plate) } => {
            stays.enter(book, plate, place.passage(event), teller, changes)?;
        }
        EventKind::Exit { plate: Some(plate) } => {
            stays.leave(book, plate, place.passage(event), teller, changes)?;
        }
        EventKind::PlateCorrection { epoch, sequence, plate } => {
            let Ok(epoch) = epoch.parse::<Epoch>() else {
                return Ok(Err(NotApplied::NoEpoch(epoch.clone())));
            };
            let reading = ((epoch, *sequence), plate);
            if let Err(why) = stays.correct(ledger, book, place, reading, teller, changes)? {
                return Ok(Err(why));
            }
        }
        EventKind::Entry { plate: None } | EventKind::Exit { plate: None } => {
            let at_ms = event.at.timestamp.as_millisecond();
            changes.billing.note(AnomalyCode::UnreadablePlate, book.number, None, at_ms, place.position)?;
        }
        EventKind::Count { .. } => {}
    }
    garage.occupancy.apply(&event.kind);
    Ok(Ok(()))
}
