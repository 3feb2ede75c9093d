//! The views of the garages: folds over the ledger, in order of position.
//!
//! **Promise.** At any position the views are what folding the ledger from its beginning gives, byte for byte.
//! **Kept by.** [`View::apply`] sees records only. What it changed is written in one batch together with the position it
//! has reached; after a crash folding goes on from there. A view never holds up the ledger: it follows behind. A view of
//! another version, or one that does not read, is dropped and folded anew.
//! **Not promised.** That it is at the ledger's end: every answer says the position that it shows.
//!
//! Occupancy, holes and quarantine are kept in memory. Stays are too many: they are in [`pages`], and only the cars that
//! are inside for less than 30 days are in memory ([`stays`]). What is in pages is read as it was written last, at most a second behind.
//!
//! | key | value |
//! | --- | --- |
//! | `vp` | the version of the fold (u8), the position reached (u64) |
//! | `vg` + name | a [`Garage`] |
//! | `vh` + position (u64) | a [`Hole`] |
//! | `vd` + position (u64) | a [`Damage`], under the last of its positions |
//! | `vq` + position (u64) | a [`Quarantined`] |
//! | `vs` `vi` `vo` `vr` | the stays: see [`pages`] |
//! | `vj` `vk` `vt` | the cars that are inside for long: see [`aged`] |
//! | `vc` + … | what commands changed: see [`commands`] |
//! | `vb` + … | the books of money: see [`billing`] |

mod aged;
pub mod base;
pub mod billing;
mod changes;
mod commands;
#[cfg(test)]
mod hostile_records_tests;
pub mod list;
mod pages;
mod repairs;
pub mod review;
mod shared;
mod snapshot;
mod stays;
#[cfg(test)]
mod stays_tests;
mod step;
#[cfg(test)]
pub mod tests;
mod written;

use crate::parking::occupancy::free_spaces;
pub use changes::Changes;
pub use commands::{JudgeError, Refusal};
pub use pages::{Address, Passage, is_token};
pub use repairs::NoRepair;
pub use shared::SharedMap;
pub use snapshot::{Shown, Snapshot};
pub use stays::{Book, NotApplied};
pub use step::Step;
use step::{HoleIn, What};
pub use written::{KEYS, at_one_position, compare, discard, written_damages, written_position};
use written::{damaged, decode, encode, sized};

use super::ledger::{Ledger, Loss};
use crate::messaging::{Epoch, SiteName};
use crate::parking::{Event, Occupancy};
use crate::store::StoreError;
use billing::{Billing, anomalies::AnomalyCode};
use serde::{Deserialize, Serialize};
use stays::{Stays, Teller};
use std::ops::{Deref, DerefMut};

/// What the events of one garage add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garage {
    /// What an operator set, else what the edge told.
    pub capacity: u32,
    pub told_capacity: u32,
    pub occupancy: Occupancy,
    /// How many events were applied.
    pub events: u64,
    /// When the last of them was received.
    pub as_of_ms: Option<i64>,
    /// The position that changed it last.
    pub changed_at: u64,
    /// The last event applied.
    pub through: Option<(Epoch, u64)>,
    pub stays: Book,
    pub orders: commands::Orders,
}

impl Garage {
    /// How many cars are inside; unknown before its first event is applied.
    pub fn known_occupied(&self) -> Option<i64> {
        (self.events > 0).then_some(self.occupancy.occupied)
    }

    /// How many spaces it has; unknown until an operator or its edge says so.
    pub fn known_capacity(&self) -> Option<u32> {
        (self.capacity > 0 || self.orders.capacity.is_some()).then_some(self.capacity)
    }

    /// Free spaces, where both are known.
    pub fn known_free(&self) -> Option<u32> {
        Some(free_spaces(self.known_capacity()?, self.known_occupied()?))
    }
}

/// Events that will never come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub garage: SiteName,
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub reason: String,
    /// None for events that came, and cannot be read any more.
    pub received_at_ms: Option<i64>,
}

/// Positions of the ledger that cannot be read any more, or are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The first of them.
    pub from: u64,
    pub last: u64,
    pub reason: String,
    /// When it was recorded, where that is known.
    pub found_at_ms: Option<i64>,
}

/// Events of one page that were accepted and cannot be applied. Their bytes are in the ledger. Kept by page, because a
/// garage with a newer program may send very many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub garage: SiteName,
    pub epoch: Epoch,
    /// The first sequence of the page.
    pub first: u64,
    /// Bit n: the n-th event of the page.
    events: u64,
    /// Of the first of them.
    pub reason: String,
    pub received_at_ms: i64,
}

const _: () = assert!(crate::messaging::page::RECORDS_MAX <= 64, "a bit for each event of a page");

impl Quarantined {
    pub fn count(&self) -> u32 {
        self.events.count_ones()
    }

    /// The places in the page, from 0.
    pub fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let events = self.events;
        (0..64).filter(move |place| events >> place & 1 == 1)
    }
}

/// The state of the fold: what is shown, and what only folding needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    shown: Shown,
    pub billing: Billing,
    stays: Stays,
}

impl Deref for View {
    type Target = Shown;
    fn deref(&self) -> &Shown {
        &self.shown
    }
}

impl DerefMut for View {
    fn deref_mut(&mut self) -> &mut Shown {
        &mut self.shown
    }
}

/// Where an event is applied. One that is released from quarantine is applied at the position of its release.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub site: &'a SiteName,
    /// The ledger's number of the event's (garage, epoch).
    pub stream: u32,
    pub sequence: u64,
    pub position: u64,
}

impl View {
    /// What readers see of it. Nothing is copied but a few pointers.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { shown: self.shown.clone(), billing: self.billing.shown().clone() }
    }

    /// Folds the next record.
    ///
    /// The caller has seen to it that the changes have room for the step. The answer is what went to quarantine.
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
            What::Damaged { damage, losses } => {
                for Loss { position, stream, first, last } in losses {
                    let Ok(stream) = ledger.stream(stream) else { continue };
                    let garage = self.key_of(&stream.site).clone();
                    let reason = format!(
                        "the ledger's record of them, at position {position}, cannot be read any more: {}",
                        damage.reason
                    );
                    let epoch = stream.epoch;
                    let hole = Hole { garage, epoch, first, last, reason, received_at_ms: None };
                    self.put_hole(position, hole);
                    changes.holes.insert(position);
                }
                changes.damages.insert(damage.last);
                self.damages.insert(damage.last, damage);
            }
            What::Page { stream: number, received_at_ms, first, clock_set, events } => {
                let stream = ledger.stream(number)?;
                let last = first + events.len() as u64 - 1;
                let mut set_aside = 0u64;
                let mut reason = None;
                let key = self.key_of(&stream.site).clone();
                self.stays.received(received_at_ms, position, changes)?;
                let (garage, stays, billing) = self.garage_mut(&key, changes);
                garage.counted(&key, events.len() as u64);
                if !clock_set {
                    let number = garage.stays.number;
                    changes.billing.note(AnomalyCode::ClockNotSet, number, None, received_at_ms, position)?;
                }
                for (index, event) in events.into_iter().enumerate() {
                    let sequence = first + index as u64;
                    let place = Place { site: &stream.site, stream: number, sequence, position };
                    let applied = match event {
                        Ok(event) => {
                            let books = (&mut *stays, &mut *billing);
                            let applied = apply_to(&key, garage, books, ledger, place, &event, changes)?;
                            applied.map_err(|error| error.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(error) = applied {
                        set_aside |= 1 << index;
                        reason.get_or_insert(error);
                    }
                }
                garage.events += last - first + 1;
                garage.as_of_ms = Some(received_at_ms);
                garage.through = Some((stream.epoch, last));
                self.garage_changed(&key, position);
                if let Some(reason) = reason {
                    let quarantined = Quarantined {
                        garage: key,
                        epoch: stream.epoch,
                        first,
                        events: set_aside,
                        reason,
                        received_at_ms,
                    };
                    self.quarantine.insert(position, quarantined);
                    changes.quarantine.insert(position);
                }
            }
            What::Hole(HoleIn { stream, received_at_ms, first, last, reason }) => {
                let stream = ledger.stream(stream)?;
                let garage = self.key_of(&stream.site).clone();
                let hole = Hole {
                    garage,
                    epoch: stream.epoch,
                    first,
                    last,
                    reason,
                    received_at_ms: Some(received_at_ms),
                };
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

    /// Applies one event: the one door to occupancy and stays, for a page as for what is released from quarantine.
    /// `Err` inside: it changed nothing, and belongs into quarantine with that reason.
    pub fn apply_event(
        &mut self,
        ledger: &Ledger,
        place: Place<'_>,
        received_at_ms: i64,
        event: &Event,
        changes: &mut Changes,
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

    /// A garage that is about to change, and the stays and the books of money of all.
    fn garage_mut(
        &mut self,
        site: &SiteName,
        changes: &mut Changes,
    ) -> (&mut Garage, &mut Stays, &mut Billing) {
        if !changes.garages.contains(site) {
            changes.garages.insert(site.clone());
        }
        let View { shown, stays, billing } = self;
        if !shown.garages.contains_key(site) {
            let garage = Garage { stays: stays.begin_garage(), ..Garage::default() };
            shown.put_garage(site.clone(), garage);
        }
        (shown.garages.get_mut(site).expect("it is there"), stays, billing)
    }
}

/// What an event changes, in one place for all ways by which it may come.
fn apply_to(
    key: &SiteName,
    garage: &mut Garage,
    (stays, billing): (&mut Stays, &mut Billing),
    ledger: &Ledger,
    place: Place<'_>,
    event: &Event,
    changes: &mut Changes,
) -> Result<Result<(), NotApplied>, StoreError> {
    let called = garage.orders.called.as_ref().unwrap_or(key);
    let teller = Teller { billing, called: called.as_str() };
    let applied = stays.apply(ledger, &mut garage.stays, place, event, teller, changes)?;
    if applied.is_ok() {
        garage.occupancy.apply(&event.kind);
    }
    Ok(applied)
}
