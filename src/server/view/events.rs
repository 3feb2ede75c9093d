//! Applies one event. Occupancy and stays change only here, both for the events of a page and for those released from quarantine.

use super::billing::Billing;
use super::billing::anomalies::AnomalyCode;
use super::changes::ViewChanges;
use super::garages::GarageState;
use super::refusal::{ApplyEventError, NotApplied};
use super::state::View;
use super::stays::{EventPosition, StayIndex, StayUpdate};
use crate::messaging::{Epoch, SiteName};
use crate::parking::{Event, EventKind};
use crate::server::ledger::Ledger;

impl View {
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
        let (garage, stays, billing) = self.garage_mut(&key, changes);
        apply_to(&key, garage, (stays, billing), ledger, place, event, changes)?;
        garage.as_of_ms = Some(received_at_ms);
        self.garage_changed(&key, place.position);
        Ok(())
    }
}

/// Applies an event to its garage.
pub(super) fn apply_to(
    key: &SiteName,
    garage: &mut GarageState,
    (stays, billing): (&mut StayIndex, &mut Billing),
    ledger: &Ledger,
    place: EventPosition<'_>,
    event: &Event,
    changes: &mut ViewChanges,
) -> Result<(), ApplyEventError> {
    let called = garage.decisions.called.as_ref().unwrap_or(key).as_str();
    let update = StayUpdate { book: &mut garage.stays, billing, called, changes };
    match &event.kind {
        EventKind::Entry { plate: Some(plate) } => stays.enter(plate, place.passage(event), update)?,
        EventKind::Exit { plate: Some(plate) } => stays.leave(plate, place.passage(event), update)?,
        EventKind::PlateCorrection { epoch, sequence, plate } => {
            let epoch = epoch.parse::<Epoch>().map_err(|_| NotApplied::NoEpoch(epoch.clone()))?;
            stays.correct(ledger, place, ((epoch, *sequence), plate), update)?;
        }
        EventKind::Entry { plate: None } | EventKind::Exit { plate: None } => {
            let (number, at_ms) = (update.book.number, event.at.timestamp.as_millisecond());
            let changes = &mut update.changes.billing;
            changes.note(AnomalyCode::UnreadablePlate, number, None, at_ms, place.position)?;
        }
        EventKind::Count { .. } => {}
    }
    garage.occupancy.apply(&event.kind);
    Ok(())
}
