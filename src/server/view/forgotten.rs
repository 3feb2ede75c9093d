//! Which plates are still named, and may be forgotten; and the forgetting of visits as soon as they are over.

use super::billing::{BilledVisit, Billing};
use super::changes::ViewChanges;
use super::pages::{SlotChange, all_visits, ended_on, is_token};
use super::stays::StayIndex;
use crate::server::ledger::Ledger;
use crate::store::{Store, StoreError};
use jiff::civil::Date;

/// Whether a visit that ended before a day names its plate, as the views are written.
pub fn names_before(store: &Store, day: Date) -> Result<bool, StoreError> {
    for found in all_visits(store) {
        let (_, (plate, visit)) = found?;
        if !is_token(&plate) && ended_on(&visit).is_some_and(|last| last < day) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Forgets the visits that an event or a command changed and that are over now, as far as they are meant. Until the event or the
/// command is applied whole, a visit may only seem to be over.
pub fn forget_noted(
    stays: &StayIndex,
    billing: &mut Billing,
    ledger: &Ledger,
    changes: &mut ViewChanges,
) -> Result<(), StoreError> {
    while let Some((address, plate)) = changes.billing.to_forget.pop_first() {
        let Some((text, visit)) = changes.slot(address)?.visit.clone() else { continue };
        if *text != *plate.as_str() {
            continue;
        }
        let found = (&plate, address, &visit);
        let Some(forgetting) = billing.forgetting_of(ledger, found, &changes.billing)? else { continue };
        let place = BilledVisit { plate: &plate, address };
        let token = billing.forget_visit(ledger, place, (&visit, &forgetting), &mut changes.billing)?;
        changes.change(address, SlotChange::Forget(token))?;
        if billing.is_overlapping(&plate) {
            // Those that are left may be in one garage only.
            let visits = stays.of_plate(&plate, changes)?;
            billing.note_overlaps(&plate, &visits, &mut changes.billing)?;
        }
    }
    Ok(())
}
