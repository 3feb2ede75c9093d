//! What the commands of operators do to the view.
//!
//! A garage is known for good by the name under which its events came first: that is its key in [`View::garages`], in stays,
//! missing ranges and quarantine, and no command changes it. A rename changes what the garage is *called*, and lets events that
//! come under the new name count for it, too. So nothing is moved, and an edge may go on under the old name for as long as it
//! likes.
//!
//! [`View::judge`] alone says what a command does. It is asked twice: before a command is recorded, so that what makes no sense
//! leaves no trace, and when it is applied. Between the two an event may have come that changes the judgement; then the
//! command stands in the ledger without effect, and the view remembers why.

use super::changes::ViewChanges;
use super::decisions::Decommissioned;
use super::garages::GarageState;
use super::refusal::{ApplyEventError, JudgeError, Refusal};
use super::state::View;
use super::stays::EventPosition;
use crate::codes;
use crate::messaging::SiteName;
use crate::messaging::page::Content;
use crate::parking::Event;
use crate::server::ledger::Ledger;
use crate::server::record::{Command, QuarantinePlace};
use crate::store::StoreError;

/// What a command does, once it is judged.
#[derive(Debug)]
struct CommandEffect {
    /// The garage's key.
    garage: SiteName,
    change: GarageChange,
}

#[derive(Debug)]
enum GarageChange {
    Called(SiteName),
    Capacity(Option<u32>),
    Decommissioned(bool),
    Released(ReleasedEvents),
    Discarded {
        position: u64,
        places: u64,
    },
    /// The ledger answers the next conflict; the books do not change.
    Adopted,
}

/// Events of a page in quarantine that act from now on.
#[derive(Debug)]
struct ReleasedEvents {
    /// The position of the page.
    position: u64,
    received_at_ms: i64,
    site: SiteName,
    stream: u32,
    /// Each with its place in the page and its sequence.
    events: Vec<(u32, u64, Event)>,
}

/// Which part of the views a command is about.
enum Subject {
    Garages,
    Stays,
    Charges,
}

fn subject(command: &Command) -> Subject {
    match command {
        Command::Rename { .. }
        | Command::Decommission { .. }
        | Command::Capacity { .. }
        | Command::Release { .. }
        | Command::Discard { .. }
        | Command::Adopt { .. } => Subject::Garages,
        Command::JoinStay { .. }
        | Command::CloseStay { .. }
        | Command::SplitStay { .. }
        | Command::BillStay { .. } => Subject::Stays,
        Command::Piece { .. }
        | Command::Tariffs { .. }
        | Command::Plates { .. }
        | Command::RemovePlate { .. }
        | Command::Contracts { .. }
        | Command::RemoveContract { .. }
        | Command::Price { .. }
        | Command::Void { .. }
        | Command::Credit { .. }
        | Command::Forget { .. }
        | Command::Erased => Subject::Charges,
    }
}

impl View {
    /// Whether `command` makes sense now. Of the books of money only what is written is seen.
    pub fn judge(&self, ledger: &Ledger, command: &Command) -> Result<(), JudgeError> {
        let mut written = ViewChanges::on(ledger.store());
        match subject(command) {
            Subject::Garages => self.effect(ledger, command).map(drop),
            Subject::Stays => self.judge_repair(ledger, command, &mut written),
            Subject::Charges => self.judge_order(ledger, command, &mut written),
        }
    }

    /// Applies the command at `position`.
    pub(super) fn apply_command(
        &mut self,
        ledger: &Ledger,
        position: u64,
        command: &Command,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let applied = match subject(command) {
            Subject::Garages => self.apply_effect(ledger, position, command, changes),
            Subject::Stays => self.apply_repair(ledger, position, command, changes),
            Subject::Charges => self.apply_order(ledger, position, command, changes),
        };
        match applied {
            Ok(()) => Ok(()),
            Err(JudgeError::Store(error)) => Err(error),
            Err(JudgeError::Refused(refusal)) => {
                tracing::warn!(
                    code = %codes::COMMAND_WITHOUT_EFFECT,
                    position, reason = %refusal,
                    hint = "give the command again if it still applies",
                    "a command has no effect: an event came between its check and its position"
                );
                self.decisions.has_no_effect(position, refusal.to_string(), &mut changes.decisions);
                Ok(())
            }
        }
    }

    /// What a command about garages and their events would do now.
    fn effect(&self, ledger: &Ledger, command: &Command) -> Result<CommandEffect, JudgeError> {
        Ok(match command {
            Command::Rename { garage, to } => {
                let (key, _) = self.known_garage(garage)?;
                let owner = self.key_of(to);
                if self.name_of(key) == to {
                    return Err(Refusal::SameName(to.clone()).into());
                }
                if owner != key && (owner != to || self.garages.contains_key(to)) {
                    let owner = self.name_of(owner).clone();
                    return Err(Refusal::NameTaken { name: to.clone(), owner }.into());
                }
                CommandEffect { garage: key.clone(), change: GarageChange::Called(to.clone()) }
            }
            Command::Capacity { garage, spaces } => {
                let (key, known) = self.known_garage(garage)?;
                let garage = || self.name_of(key).clone();
                match (known.decisions.capacity, *spaces) {
                    (None, None) => return Err(Refusal::NoCapacitySet(garage()).into()),
                    (Some(capacity), Some(new)) if capacity == new => {
                        return Err(Refusal::SameCapacity { garage: garage(), capacity }.into());
                    }
                    _ => {}
                }
                CommandEffect { garage: key.clone(), change: GarageChange::Capacity(*spaces) }
            }
            Command::Decommission { garage, undo } => {
                let (key, known) = self.known_garage(garage)?;
                let garage = self.name_of(key).clone();
                match &known.decisions.decommissioned {
                    Some(since) if !undo => {
                        let position = since.position;
                        return Err(Refusal::Decommissioned { garage, position }.into());
                    }
                    None if *undo => return Err(Refusal::NotDecommissioned(garage).into()),
                    _ => {}
                }
                CommandEffect { garage: key.clone(), change: GarageChange::Decommissioned(!undo) }
            }
            Command::Release { place } => {
                let (garage, waiting) = self.waiting(*place)?;
                CommandEffect { garage, change: self.understood(ledger, *place, waiting)? }
            }
            Command::Discard { place, reason } => {
                if reason.is_empty() || reason.len() > Command::REASON_MAX {
                    return Err(Refusal::Reason { bytes: reason.len() }.into());
                }
                let (garage, places) = self.waiting(*place)?;
                CommandEffect { garage, change: GarageChange::Discarded { position: place.position, places } }
            }
            Command::Adopt { garage } => {
                let (key, _) = self.known_garage(garage)?;
                if !ledger.streams().contains_key(garage) {
                    let sites = self.sites_of(key);
                    return Err(Refusal::NotSentUnder { garage: garage.clone(), sites }.into());
                }
                CommandEffect { garage: key.clone(), change: GarageChange::Adopted }
            }
            _ => unreachable!("it is about stays or charges"),
        })
    }

    fn known_garage<'a>(&'a self, name: &'a SiteName) -> Result<(&'a SiteName, &'a GarageState), Refusal> {
        let key = self.key_of(name);
        let garage = self.garages.get(key).ok_or_else(|| Refusal::UnknownGarage(name.clone()))?;
        Ok((key, garage))
    }

    /// The events that wait at a place, as bits, and their garage's key.
    fn waiting(&self, place: QuarantinePlace) -> Result<(SiteName, u64), Refusal> {
        let page = self.quarantine.get(&place.position);
        // A place behind the end of any page is none.
        let asked = place.index.map_or(u64::MAX, |index| 1u64.checked_shl(index.into()).unwrap_or(0));
        match page.map(|page| (&page.garage, page.events & asked)) {
            Some((garage, waiting @ 1..)) => Ok((self.key_of(garage).clone(), waiting)),
            _ => Err(Refusal::NothingWaits(place)),
        }
    }

    /// Those of the waiting events that this program understands now, each with its sequence.
    fn understood(
        &self,
        ledger: &Ledger,
        place: QuarantinePlace,
        waiting: u64,
    ) -> Result<GarageChange, JudgeError> {
        let missing = || Refusal::Unreadable(place);
        let page = ledger.page_at(place.position)?.ok_or_else(missing)?;
        let first = page.page.first.get();
        let (stream, page) = ledger.page_with(&page.site, page.page.epoch, first)?.ok_or_else(missing)?;
        let Content::Records(records) = page.page.content else {
            unreachable!("the ledger records what was lost as a hole")
        };
        let (mut events, mut reason) = (Vec::new(), None);
        for (index, record) in (0u32..).zip(&records).filter(|(index, _)| waiting >> index & 1 == 1) {
            match Event::from_bytes(&record.payload) {
                Ok(event) => events.push((index, first + u64::from(index), event)),
                Err(error) => {
                    reason.get_or_insert_with(|| error.to_string());
                }
            }
        }
        match reason {
            Some(reason) if events.is_empty() => Err(Refusal::NotUnderstood { place, reason }.into()),
            _ => Ok(GarageChange::Released(ReleasedEvents {
                position: place.position,
                received_at_ms: page.received_at_ms,
                site: page.site,
                stream,
                events,
            })),
        }
    }

    fn apply_effect(
        &mut self,
        ledger: &Ledger,
        position: u64,
        command: &Command,
        changes: &mut ViewChanges,
    ) -> Result<(), JudgeError> {
        let CommandEffect { garage: key, change } = self.effect(ledger, command)?;
        tracing::info!(position, garage = %self.name_of(&key), command = command.name(), "a command takes effect");
        match change {
            GarageChange::Called(name) => {
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.decisions.called = (name != key).then(|| name.clone());
                if name != key {
                    self.decisions.add_name(name, key.clone(), &mut changes.decisions);
                }
                self.decisions.reshape_board(position, &mut changes.decisions);
            }
            GarageChange::Capacity(spaces) => {
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.decisions.capacity = spaces;
                garage.capacity = spaces.unwrap_or(garage.told_capacity);
            }
            GarageChange::Decommissioned(yes) => {
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.decisions.decommissioned = yes.then_some(Decommissioned { position, events_since: 0 });
                self.decisions.reshape_board(position, &mut changes.decisions);
            }
            GarageChange::Released(released) => self.release(ledger, position, released, changes)?,
            GarageChange::Discarded { position: page, places } => self.no_longer_waits(page, places, changes),
            GarageChange::Adopted => return Ok(()),
        }
        self.garage_changed(&key, position);
        changes.garages.insert(key);
        Ok(())
    }

    /// Applies events that waited in quarantine.
    fn release(
        &mut self,
        ledger: &Ledger,
        position: u64,
        released: ReleasedEvents,
        changes: &mut ViewChanges,
    ) -> Result<(), JudgeError> {
        let (mut applied, mut why_not) = (0u64, None);
        for (index, sequence, event) in released.events {
            let place = EventPosition { site: &released.site, stream: released.stream, sequence, position };
            match self.apply_event(ledger, place, released.received_at_ms, &event, changes) {
                Ok(()) => applied |= 1 << index,
                Err(ApplyEventError::Store(error)) => return Err(error.into()),
                Err(ApplyEventError::NotApplied(why)) => {
                    why_not.get_or_insert(why);
                }
            }
        }
        if let Some(why) = why_not.filter(|_| applied == 0) {
            return Err(Refusal::NotAppliedYet(why).into());
        }
        self.no_longer_waits(released.position, applied, changes);
        Ok(())
    }

    fn no_longer_waits(&mut self, page: u64, places: u64, changes: &mut ViewChanges) {
        if let Some(waiting) = self.quarantine.get_mut(&page) {
            waiting.events &= !places;
            if waiting.events == 0 {
                self.quarantine.remove_mut(&page);
            }
        }
        changes.quarantine.insert(page);
    }
}

#[cfg(test)]
mod tests;
