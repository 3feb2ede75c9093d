//! Applying the ledger's records to the views, one after the other.

use super::billing::anomalies::AnomalyCode;
use super::changes::ViewChanges;
use super::events::apply_to;
use super::garages::{LedgerDamage, MissingRange, QuarantinedPage};
use super::refusal::{ApplyEventError, NotApplied};
use super::state::View;
use super::stays::EventPosition;
use super::step::{Preparation, PreparedPage, PreparedRecord};
use crate::server::ledger::{Ledger, Loss};
use crate::store::StoreError;

/// Why applying records broke off.
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
            Preparation::Damaged { damage, losses } => self.apply_damage(damage, losses, changes),
            Preparation::Page(page) => self.apply_page(ledger, position, page, changes)?,
            Preparation::MissingRange { stream, received_at_ms, first, last, reason } => {
                let (garage, received_at_ms) = (self.key_of(&stream.site).clone(), Some(received_at_ms));
                let range = MissingRange { garage, epoch: stream.epoch, first, last, reason, received_at_ms };
                self.put_missing_range(position, range);
                changes.missing_ranges.insert(position);
            }
            Preparation::Capacity { site, capacity } => {
                let key = self.key_of(&site).clone();
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.was_told(&key, capacity);
                self.garage_changed(&key, position);
            }
            Preparation::Command(command) => self.apply_command(ledger, position, &command, changes)?,
            Preparation::Nothing => {}
        }
        self.position = position;
        Ok(self.quarantine.get(&position))
    }

    fn apply_damage(&mut self, damage: LedgerDamage, losses: Vec<Loss>, changes: &mut ViewChanges) {
        for Loss { position, stream, first, last } in losses {
            let garage = self.key_of(&stream.site).clone();
            let reason = format!(
                "the ledger's record of them, at position {position}, cannot be read any more: {}",
                damage.reason
            );
            let range =
                MissingRange { garage, epoch: stream.epoch, first, last, reason, received_at_ms: None };
            self.put_missing_range(position, range);
            changes.missing_ranges.insert(position);
        }
        changes.damages.insert(damage.last);
        self.damages.insert_mut(damage.last, damage);
    }

    fn apply_page(
        &mut self,
        ledger: &Ledger,
        position: u64,
        page: PreparedPage,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let PreparedPage { stream, stream_number, received_at_ms, first, clock_set, events } = page;
        let count = events.len() as u64;
        let key = self.key_of(&stream.site).clone();
        self.stays.received(received_at_ms, position, changes)?;
        let (garage, stays, billing) = self.garage_mut(&key, changes);
        garage.counted(&key, count);
        if !clock_set {
            let number = garage.stays.number;
            changes.billing.note(AnomalyCode::ClockNotSet, number, None, received_at_ms, position)?;
        }
        let (mut set_aside, mut reason) = (0u64, None);
        for (index, event) in events.into_iter().enumerate() {
            let place = EventPosition {
                site: &stream.site,
                stream: stream_number,
                sequence: first + index as u64,
                position,
            };
            let applied = match event {
                Ok(event) => apply_to(&key, garage, (stays, billing), ledger, place, &event, changes),
                Err(error) => Err(NotApplied::NotUnderstood(error.to_string()).into()),
            };
            match applied {
                Ok(()) => {}
                Err(ApplyEventError::Store(error)) => return Err(error),
                Err(ApplyEventError::NotApplied(why)) => {
                    set_aside |= 1 << index;
                    reason.get_or_insert(why.to_string());
                }
            }
        }
        garage.events += count;
        garage.as_of_ms = Some(received_at_ms);
        garage.through = Some((stream.epoch, first + count - 1));
        self.garage_changed(&key, position);
        if let Some(reason) = reason {
            let epoch = stream.epoch;
            let quarantined =
                QuarantinedPage { garage: key, epoch, first, events: set_aside, reason, received_at_ms };
            self.quarantine.insert_mut(position, quarantined);
            changes.quarantine.insert(position);
        }
        Ok(())
    }
}
