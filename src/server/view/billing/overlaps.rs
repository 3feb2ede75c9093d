//! Cars that were in two garages at once: a plate was misread, or an exit was missed.

use super::super::pages::{SlotAddress, StoredPassage};
use super::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::changes::BillingChanges;
use super::places::HELD_MS;
use super::totals::Sign;
use super::{BilledVisit, Billing};
use crate::parking::Plate;
use crate::parking::stay::{End, Visit};
use crate::store::StoreError;

/// A car that is inside is looked for elsewhere this long.
pub const INSIDE_MS: i64 = HELD_MS;

impl Billing {
    /// Whether the car was in two garages at once by what was known so far.
    pub fn is_overlapping(&self, plate: &Plate) -> bool {
        !self.overlapping.is_empty() && self.overlapping.contains(plate.as_str())
    }

    /// A visit is removed, and with it that its car was elsewhere at its entry.
    pub fn is_no_stay(
        &self,
        BilledVisit { plate, address }: BilledVisit<'_>,
        visit: &Visit<StoredPassage>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let Visit::Stay { entry, .. } = visit else { return Ok(()) };
        let anomaly = AnomalyKey::of(AnomalyCode::OpenInTwoGarages, address.garage, plate);
        match self.is_overlapping(plate) && changes.happened(&anomaly, AnomalyFact::of(*entry))? {
            true => changes.note_passage(Sign::Subtract, anomaly, *entry),
            false => Ok(()),
        }
    }

    /// Notes the entries of a car that lie within a stay of it in another garage. `visits` are all that are known of it.
    pub fn note_overlaps(
        &mut self,
        plate: &Plate,
        visits: &[(SlotAddress, Visit<StoredPassage>)],
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let mut any = false;
        for (address, visit) in visits {
            let Visit::Stay { entry, .. } = visit else { continue };
            let overlaps = visits.iter().any(|(other, its)| {
                other.garage != address.garage && self.is_within((address, *entry), (other, its))
            });
            let anomaly = AnomalyKey::of(AnomalyCode::OpenInTwoGarages, address.garage, plate);
            if overlaps != changes.happened(&anomaly, AnomalyFact::of(*entry))? {
                let sign = if overlaps { Sign::Add } else { Sign::Subtract };
                changes.note_passage(sign, anomaly, *entry)?;
            }
            any |= overlaps;
        }
        match any {
            true => _ = self.overlapping.insert(plate.as_str().into()),
            false => _ = self.overlapping.remove(plate.as_str()),
        }
        Ok(())
    }

    /// Whether an entry lies within a stay of another garage. Of two entries at the same instant the one in the garage whose name comes
    /// first is the earlier.
    fn is_within(
        &self,
        (address, entry): (&SlotAddress, StoredPassage),
        (other, visit): (&SlotAddress, &Visit<StoredPassage>),
    ) -> bool {
        let Visit::Stay { entry: came, end } = visit else { return false };
        let name = |number: u32| self.garages.get(number).map(|garage| &garage.key);
        if (came.at_ms, name(other.garage)) >= (entry.at_ms, name(address.garage)) {
            return false;
        }
        match end {
            End::Left(exit) => exit.at_ms > entry.at_ms,
            End::Inside => entry.at_ms.saturating_sub(came.at_ms) <= INSIDE_MS,
            End::Unseen => false,
        }
    }
}
