//! Applying the ledger's records to the views, one after the other.

use super::billing::anomalies::Code;
use super::changes::Changes;
use super::events::apply_to;
use super::garages::{Damage, Hole, Quarantined};
use super::state::View;
use super::stays::Place;
use super::step::{PageIn, Step, What};
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
    changes: &mut Changes,
    mut before_each: impl FnMut(&Step),
) -> Result<(), CatchUpError> {
    for found in ledger.records(view.position + 1) {
        let (position, found) = found.map_err(CatchUpError::Ledger)?;
        if position > through {
            break;
        }
        let step = Step::read(ledger, position, found).map_err(CatchUpError::Ledger)?;
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
        step: Step,
        changes: &mut Changes,
    ) -> Result<Option<&Quarantined>, StoreError> {
        let Step { from, position, what } = step;
        assert!(
            from <= self.position + 1 && self.position < position,
            "the ledger accounts for every position, in order"
        );
        match what {
            What::Damaged { damage, losses } => self.apply_damage(ledger, damage, losses, changes),
            What::Page(page) => self.apply_page(ledger, position, page, changes)?,
            What::Hole { stream, received_at_ms, first, last, reason } => {
                let stream = ledger.stream(stream)?;
                let (garage, received_at_ms) = (self.key_of(&stream.site).clone(), Some(received_at_ms));
                let hole = Hole { garage, epoch: stream.epoch, first, last, reason, received_at_ms };
                self.put_hole(position, hole);
                changes.holes.insert(position);
            }
            What::Capacity { site, capacity } => {
                let key = self.key_of(&site).clone();
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.was_told(&key, capacity);
                self.garage_changed(&key, position);
            }
            What::Command(command) => self.apply_command(ledger, position, &command, changes)?,
            What::Nothing => {}
        }
        self.position = position;
        Ok(self.quarantine.get(&position))
    }

    fn apply_damage(&mut self, ledger: &Ledger, damage: Damage, losses: Vec<Loss>, changes: &mut Changes) {
        for Loss { position, stream, first, last } in losses {
            let Ok(stream) = ledger.stream(stream) else { continue };
            let garage = self.key_of(&stream.site).clone();
            let reason = format!(
                "the ledger's record of them, at position {position}, cannot be read any more: {}",
                damage.reason
            );
            let hole = Hole { garage, epoch: stream.epoch, first, last, reason, received_at_ms: None };
            self.put_hole(position, hole);
            changes.holes.insert(position);
        }
        changes.damages.insert(damage.last);
        self.damages.insert(damage.last, damage);
    }

    fn apply_page(
        &mut self,
        ledger: &Ledger,
        position: u64,
        page: PageIn,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let PageIn { stream: number, received_at_ms, first, clock_set, events } = page;
        let stream = ledger.stream(number)?;
        let count = events.len() as u64;
        let key = self.key_of(&stream.site).clone();
        self.stays.received(received_at_ms, position, changes)?;
        let (garage, stays, billing) = self.garage_mut(&key, changes);
        garage.counted(&key, count);
        if !clock_set {
            let number = garage.stays.number;
            changes.billing.note(Code::ClockNotSet, number, None, received_at_ms, position)?;
        }
        let (mut set_aside, mut reason) = (0u64, None);
        for (index, event) in events.into_iter().enumerate() {
            let place =
                Place { site: &stream.site, stream: number, sequence: first + index as u64, position };
            let applied = match event {
                Ok(event) => apply_to(&key, garage, (stays, billing), ledger, place, &event, changes)?
                    .map_err(|why| why.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = applied {
                set_aside |= 1 << index;
                reason.get_or_insert(why);
            }
        }
        garage.events += count;
        garage.as_of_ms = Some(received_at_ms);
        garage.through = Some((stream.epoch, first + count - 1));
        self.garage_changed(&key, position);
        if let Some(reason) = reason {
            let epoch = stream.epoch;
            let quarantined =
                Quarantined { garage: key, epoch, first, events: set_aside, reason, received_at_ms };
            self.quarantine.insert(position, quarantined);
            changes.quarantine.insert(position);
        }
        Ok(())
    }
}
