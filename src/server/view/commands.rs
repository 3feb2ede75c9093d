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

mod forget;
mod forgotten;
mod orders;
mod repairs;
#[cfg(test)]
mod tests;

use super::billing::note_waiting;
use super::billing::recorder::{DraftRecorder, RatingEffect};
use super::billing::rules::PutInForce;
use super::billing::totals::Sign;
use super::changes::ViewChanges;
use super::corrections::{KnownEvent, known_event};
use super::decisions::Decommissioned;
use super::event_decisions::{DecidedEvent, EventDecision, EventKey, decided_plate, joined_entry, made_by};
use super::garages::GarageState;
use super::issues::RecordedIssue;
use super::openings;
use super::refusal::{ApplyEventError, JudgeError, Refusal};
use super::rerating::AllPages;
use super::state::View;
use super::stays::{EventPosition, StayIndex, StayUpdate};
use crate::codes;
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Event;
use crate::parking::garage::OperatorSays;
use crate::parking::payment::PaymentId;
use crate::parking::stay::Way;
use crate::server::ledger::Ledger;
use crate::server::record::{Command, QuarantinePlace, ToForget};
use crate::store::StoreError;
use forgotten::{ForgottenExit, forgotten_run, made_again};
use jiff::civil::Date;
use orders::ChargeEffect;

/// What a command does, once it is judged.
#[derive(Debug)]
enum Effect {
    Garage(SiteName, GarageChange),
    DecideEvent { event: EventKey, what: DecidedEvent },
    UndoEvent { event: EventKey, decision: u64 },
    PutInForce,
    Decide(Box<ChargeEffect>),
    UndoPayment { payment: PaymentId, date: Date },
    Forget { whose: ToForget, before: Date, seed: [u8; 16] },
    Issue(RecordedIssue),
    ResumeNumbers { numbers: (u64, u64), reason: String, date: Date },
    Nothing,
}

#[derive(Debug)]
enum GarageChange {
    Called(SiteName),
    Capacity(Option<u32>),
    Decommissioned { undo: bool },
    Released(ReleasedEvents),
    Discarded { position: u64, places: u64 },
    Adopted,
    ShownAs(Option<(OperatorSays, Option<String>)>),
}

#[derive(Debug)]
struct ReleasedEvents {
    position: u64,
    received_at_ms: i64,
    site: SiteName,
    stream: u32,
    epoch: Epoch,
    /// Each with its place in the page and its sequence.
    events: Vec<(u32, u64, Event)>,
}

/// What a command is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judging {
    /// Whether it makes sense now: only then it is recorded.
    Before,
    /// What it does. A decision that is recorded acts whatever was delivered before it.
    Recorded,
}

/// Judges a command: by the views as they are, and what of them is not written yet.
struct CommandJudge<'a> {
    view: &'a View,
    ledger: &'a Ledger,
    /// Of the command, and when it was recorded.
    position: u64,
    at_ms: i64,
    judging: Judging,
    changes: &'a mut ViewChanges,
}

impl CommandJudge<'_> {
    fn effect(&mut self, command: &Command) -> Result<Effect, JudgeError> {
        let (view, ledger) = (self.view, self.ledger);
        if let Some(reason) = command.reason() {
            let bytes = reason.trim().len();
            if bytes == 0 || reason.len() > Command::REASON_MAX {
                return Err(Refusal::Reason { bytes }.into());
            }
        }
        let (key, change) = match command {
            Command::Rename { garage, to } => {
                let (key, _) = view.known_garage(garage)?;
                let owner = view.key_of(to);
                if view.name_of(key) == to {
                    return Err(Refusal::SameName(to.clone()).into());
                }
                if owner != key && (owner != to || view.garages.contains_key(to)) {
                    let owner = view.name_of(owner).clone();
                    return Err(Refusal::NameTaken { name: to.clone(), owner }.into());
                }
                (key.clone(), GarageChange::Called(to.clone()))
            }
            Command::Capacity { garage, spaces } => {
                let (key, known) = view.known_garage(garage)?;
                let called = || view.name_of(key).clone();
                match (known.decisions.capacity, *spaces) {
                    (None, None) => return Err(Refusal::NoCapacitySet(called()).into()),
                    (Some(capacity), Some(new)) if capacity == new => {
                        return Err(Refusal::SameCapacity { garage: called(), capacity }.into());
                    }
                    _ => (key.clone(), GarageChange::Capacity(*spaces)),
                }
            }
            Command::Decommission { garage, undo } => {
                let (key, known) = view.known_garage(garage)?;
                let garage = view.name_of(key).clone();
                match &known.decisions.decommissioned {
                    Some(since) if !undo => {
                        let position = since.position;
                        return Err(Refusal::Decommissioned { garage, position }.into());
                    }
                    None if *undo => return Err(Refusal::NotDecommissioned(garage).into()),
                    _ => (key.clone(), GarageChange::Decommissioned { undo: *undo }),
                }
            }
            Command::Release { place } => {
                let (key, waiting) = view.waiting(*place)?;
                (key, GarageChange::Released(understood(ledger, *place, waiting)?))
            }
            Command::Discard { place, .. } => {
                let (key, places) = view.waiting(*place)?;
                (key, GarageChange::Discarded { position: place.position, places })
            }
            Command::Adopt { garage } => {
                let (key, _) = view.known_garage(garage)?;
                if !ledger.streams().contains_key(garage) {
                    let sites = view.sites_of(key);
                    return Err(Refusal::NotSentUnder { garage: garage.clone(), sites }.into());
                }
                (key.clone(), GarageChange::Adopted)
            }
            Command::ShowAs { garage, opening, until_ms, reason } => {
                let (key, known) = view.known_garage(garage)?;
                if opening.is_none() && known.opening.operator.is_none() {
                    return Err(Refusal::DecidesItself(view.name_of(key).clone()).into());
                }
                let says = |opening| OperatorSays { opening, since_ms: self.at_ms, until_ms: *until_ms };
                (key.clone(), GarageChange::ShownAs(opening.map(|opening| (says(opening), reason.clone()))))
            }
            _ => return self.repair(command),
        };
        Ok(Effect::Garage(key, change))
    }
}

impl View {
    /// The command as it is to be recorded, if it makes sense now. Of the books of money only what is written is seen.
    pub fn judge(&self, ledger: &Ledger, command: &Command) -> Result<Command, JudgeError> {
        let changes = &mut ViewChanges::on(ledger.store());
        let (position, at_ms, judging) = (0, 0, Judging::Before);
        let mut judge = CommandJudge { view: self, ledger, position, at_ms, judging, changes };
        Ok(match (judge.effect(command)?, command.clone()) {
            (
                Effect::DecideEvent { what: DecidedEvent::Plate(plate), .. },
                Command::JoinStay { entry, exit, reason, .. },
            ) => Command::JoinStay { entry, exit, plate: Some(plate.to_string()), reason },
            (_, command) => command,
        })
    }

    pub(super) fn apply_command(
        &mut self,
        ledger: &Ledger,
        (position, at_ms): (u64, i64),
        command: &Command,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let judging = Judging::Recorded;
        let effect = CommandJudge { view: self, ledger, position, at_ms, judging, changes }.effect(command);
        match effect.and_then(|effect| self.perform(ledger, (position, at_ms), command, effect, changes)) {
            Ok(()) => self.forget_noted(ledger, changes),
            Err(JudgeError::Store(error)) => Err(error),
            Err(JudgeError::Refused(refusal)) => {
                tracing::warn!(
                    code = %codes::COMMAND_WITHOUT_EFFECT,
                    position, reason = %refusal,
                    hint = "run the command again if it still applies",
                    "a command has no effect: an event came between its check and its position"
                );
                self.decisions.has_no_effect(position, refusal.to_string(), &mut changes.decisions);
                Ok(())
            }
        }
    }

    fn perform(
        &mut self,
        ledger: &Ledger,
        (position, at_ms): (u64, i64),
        command: &Command,
        effect: Effect,
        changes: &mut ViewChanges,
    ) -> Result<(), JudgeError> {
        match effect {
            Effect::Garage(key, change) => {
                tracing::info!(position, garage = %self.name_of(&key), command = command.name(), "a command takes effect");
                self.change_garage(ledger, (position, at_ms), key, change, changes)?;
            }
            Effect::DecideEvent { event, what } => {
                let decision = EventDecision { position, at_ms, what };
                self.change_decisions(ledger, (&event, Sign::Add, &decision), position, changes)?;
            }
            Effect::UndoEvent { event, decision } => {
                let its = self.decisions.events.of(&event).to_vec();
                for undone in its.iter().filter(|its| its.position == decision) {
                    self.change_decisions(ledger, (&event, Sign::Subtract, undone), position, changes)?;
                }
            }
            Effect::PutInForce => self.put_in_force(ledger, position, command, changes)?,
            Effect::Decide(effect) => {
                let ChargeEffect { key, change, stay } = *effect;
                self.billing.decide(ledger, key, change, stay.as_ref(), &mut changes.billing)?;
            }
            Effect::UndoPayment { payment, date } => {
                changes.billing.receivables().apply_undo(payment, date)?.map_err(Refusal::Payment)?;
            }
            Effect::Forget { whose, before, seed } => self.forget(ledger, &whose, before, &seed, changes)?,
            Effect::Issue(recorded) => self.issue(ledger, recorded, changes)?,
            Effect::ResumeNumbers { numbers, reason, date } => {
                self.resume_numbers(numbers, (position, date, &reason), changes)?;
            }
            Effect::Nothing => {}
        }
        Ok(())
    }

    /// Adds a decision about an event, or takes it back, and changes the visits that follow from it if the ledger has the event.
    fn change_decisions(
        &mut self,
        ledger: &Ledger,
        (event, sign, decision): (&EventKey, Sign, &EventDecision),
        position: u64,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let known = self.known_event(ledger, event, changes)?;
        if known.as_ref().is_none_or(|known| known.way != decision.what.is_about()) {
            let garage = self.garages.get(&event.0).map(|garage| garage.stays.number);
            note_waiting(sign, garage, (decision.position, decision.at_ms), &mut changes.billing)?;
        }
        let made = |view: &View, known: &KnownEvent| match known.way {
            Way::In => made_by(view.decisions.events.of(event), known.passage),
            Way::Out => Vec::new(),
        };
        let before = known.as_ref().map(|known| made(self, known)).unwrap_or_default();
        let mut decisions = self.decisions.events.clone();
        match sign {
            Sign::Add => decisions.add(event.clone(), decision.clone()),
            Sign::Subtract => decisions.undo(event, decision.position),
        }
        changes.decisions.events.insert(event.clone());
        let Some(known) = known else {
            self.decisions.events = decisions;
            return Ok(());
        };
        let forgotten = forgotten_run(known.passage, &before, changes)?;
        if known.way == Way::Out && (forgotten.is_some() || joined_entry(decisions.of(event)).is_some()) {
            let decided = [&self.decisions.events, &decisions].map(|all| all.of(event).to_vec());
            self.decisions.events = decisions;
            let exit = ForgottenExit { event, known: &known, its: forgotten, decided };
            return self.change_forgotten_exit(ledger, exit, (sign, decision), position, changes);
        }
        if let Some((token, run)) = forgotten {
            self.decisions.events = decisions;
            let new = made_again(&run, &before, &made(self, &known));
            return self.change_stays(ledger, &event.0, position, changes, |_, mut update| {
                update.replace_forgotten(&token, &run, new)
            });
        }
        // The visits follow in three steps: without what was made of the event, with its plate, with what is made of it now.
        let to = decided_plate(decisions.of(event)).or(known.read.clone());
        let key = &event.0;
        self.change_stays(ledger, key, position, changes, |stays, mut update| {
            known.plate.as_ref().map_or(Ok(()), |plate| stays.take_made(plate, &before, &mut update))
        })?;
        self.decisions.events = decisions;
        let after = made(self, &known);
        self.change_stays(ledger, key, position, changes, |stays, mut update| {
            let passage = [(known.way, known.passage)];
            if known.plate != to {
                known.plate.as_ref().map_or(Ok(()), |plate| stays.take_made(plate, &passage, &mut update))?;
                to.as_ref().map_or(Ok(()), |plate| stays.put_made(plate, &passage, &mut update))?;
                update.read_as(known.passage, known.plate.as_ref(), to.as_ref())?;
            }
            to.as_ref().map_or(Ok(()), |plate| stays.put_made(plate, &after, &mut update))
        })
    }

    /// An entry or exit that the ledger has.
    fn known_event(
        &self,
        ledger: &Ledger,
        (garage, epoch, sequence): &EventKey,
        changes: &ViewChanges,
    ) -> Result<Option<KnownEvent>, StoreError> {
        for site in self.sites_of(garage) {
            let before = (self.position + 1, 0);
            match known_event(ledger, &self.decisions, &site, (*epoch, *sequence), before, changes) {
                Ok(known) => return Ok(Some(known)),
                Err(ApplyEventError::Store(error)) => return Err(error),
                Err(ApplyEventError::NotApplied(_)) => {}
            }
        }
        Ok(None)
    }

    /// Changes stays of the garage of a key, which the record at `position` changes.
    fn change_stays<E>(
        &mut self,
        ledger: &Ledger,
        key: &SiteName,
        position: u64,
        changes: &mut ViewChanges,
        change: impl FnOnce(&mut StayIndex, StayUpdate<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (garage, stays, billing, decisions) = self.garage_mut(key, changes);
        let changed =
            change(stays, StayUpdate { book: &mut garage.stays, billing, decisions, ledger, changes });
        self.garage_changed(key, position);
        changed
    }

    /// Puts a list in force that the command at `position` is about.
    fn put_in_force(
        &mut self,
        ledger: &Ledger,
        position: u64,
        command: &Command,
        changes: &mut ViewChanges,
    ) -> Result<(), JudgeError> {
        let Some(put) = PutInForce::read(ledger, position, command)? else { return Ok(()) };
        let pages = self.all_pages();
        let View { billing, stays, .. } = self;
        match put.map_err(Refusal::List)? {
            PutInForce::Tariffs(set) => billing.put_tariffs(ledger, (position, set), &pages, changes)?,
            PutInForce::Register(facts) => billing.put_register(ledger, &facts, (stays, &pages), changes)?,
            PutInForce::Payments(payments) => changes.billing.receivables().apply_payments(&payments)?,
        }
        Ok(())
    }

    /// What a list would do to drafts if it were put in force. Nothing is changed.
    pub fn effect_of(&self, ledger: &Ledger, put: PutInForce) -> Result<RatingEffect, StoreError> {
        let mut billing = self.billing.clone();
        let mut changes = ViewChanges::on(ledger.store());
        changes.billing.recorder = Some(DraftRecorder::default());
        let pages = self.all_pages();
        match put {
            PutInForce::Tariffs(set) => {
                billing.put_tariffs(ledger, (self.position, set), &pages, &mut changes)?
            }
            PutInForce::Register(facts) => {
                billing.put_register(ledger, &facts, (&self.stays, &pages), &mut changes)?;
            }
            // No draft depends on what was paid.
            PutInForce::Payments(_) => {}
        }
        Ok(changes.billing.recorder.take().map(|recorder| recorder.effect()).unwrap_or_default())
    }

    /// The pages of visits of all garages.
    pub(super) fn all_pages(&self) -> AllPages {
        self.garages.values().map(|garage| (garage.stays.number, garage.stays.newest_page())).collect()
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

    fn change_garage(
        &mut self,
        ledger: &Ledger,
        (position, at_ms): (u64, i64),
        key: SiteName,
        change: GarageChange,
        changes: &mut ViewChanges,
    ) -> Result<(), JudgeError> {
        let (garage, ..) = self.garage_mut(&key, changes);
        let before = garage.opening.clone();
        match change {
            GarageChange::Called(name) => {
                garage.decisions.called = (name != key).then(|| name.clone());
                let number = garage.stays.number;
                if name != key {
                    self.decisions.add_name(name.clone(), key.clone(), &mut changes.decisions);
                    let pages = self.all_pages();
                    self.billing.add_name(ledger, (number, name), &pages, changes)?;
                }
                self.decisions.reshape_board(position, &mut changes.decisions);
            }
            GarageChange::Capacity(spaces) => {
                garage.decisions.capacity = spaces;
                garage.capacity = spaces.unwrap_or(garage.told_capacity);
                garage.look_whether_full(at_ms);
                openings::note(&key, &before, &garage.opening, changes);
            }
            GarageChange::ShownAs(says) => {
                garage.opening.operator = says;
                openings::note(&key, &before, &garage.opening, changes);
            }
            GarageChange::Decommissioned { undo } => {
                garage.decisions.decommissioned =
                    (!undo).then_some(Decommissioned { position, events_since: 0 });
                self.decisions.reshape_board(position, &mut changes.decisions);
            }
            GarageChange::Released(released) => self.release(ledger, position, released, changes)?,
            GarageChange::Discarded { position: page, places } => self.no_longer_waits(page, places, changes),
            GarageChange::Adopted => return Ok(()), // the ledger answers the next conflict; the books do not change
        }
        self.garage_changed(&key, position);
        Ok(())
    }

    fn release(
        &mut self,
        ledger: &Ledger,
        position: u64,
        released: ReleasedEvents,
        changes: &mut ViewChanges,
    ) -> Result<(), JudgeError> {
        let (mut applied, mut why_not) = (0u64, None);
        let ReleasedEvents { position: page, received_at_ms, site, stream, epoch, events } = released;
        for (index, sequence, event) in events {
            let place = EventPosition { site: &site, stream, epoch, sequence, position };
            match self.apply_event(ledger, place, received_at_ms, &event, changes) {
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
        self.no_longer_waits(page, applied, changes);
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

/// Those of the waiting events that this program understands now, each with its sequence.
fn understood(ledger: &Ledger, place: QuarantinePlace, waiting: u64) -> Result<ReleasedEvents, JudgeError> {
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
    if let Some(reason) = reason.filter(|_| events.is_empty()) {
        return Err(Refusal::NotUnderstood { place, reason }.into());
    }
    let (position, received_at_ms, site) = (place.position, page.received_at_ms, page.site);
    let epoch = page.page.epoch;
    Ok(ReleasedEvents { position, received_at_ms, site, stream, epoch, events })
}
