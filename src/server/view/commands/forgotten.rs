//! Decisions about events of visits whose plates were forgotten: they are found by the ids of their events, and keep their accounts,
//! their contracts and their tokens.

use super::CommandJudge;
use crate::parking::stay::{self, End, Visit, Way};
use crate::server::ledger::Ledger;
use crate::server::view::billing::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use crate::server::view::billing::issued::ExitId;
use crate::server::view::billing::totals::Sign;
use crate::server::view::changes::ViewChanges;
use crate::server::view::corrections::{KnownEvent, VisitRun, visits};
use crate::server::view::event_decisions::{
    DecidedEvent, EventDecision, EventKey, decided_plate, joined_entry, made_by,
};
use crate::server::view::pages::{Slot, SlotAddress, SlotChange, StoredPassage};
use crate::server::view::state::View;
use crate::server::view::stays::StayUpdate;
use crate::store::StoreError;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// What operators say happened.
pub(super) type Made = Vec<(Way, StoredPassage)>;

/// The forgotten visits of an event and of what was made of it, in order, and their token. `None`: it is not forgotten.
pub(super) fn forgotten_run(
    event: StoredPassage,
    made: &Made,
    changes: &mut ViewChanges,
) -> Result<Option<(SmolStr, VisitRun)>, StoreError> {
    let mut found: BTreeMap<SlotAddress, (SmolStr, Visit<StoredPassage>)> = BTreeMap::new();
    for passage in std::iter::once(event).chain(made.iter().map(|(_, passage)| *passage)) {
        if let Some(address) = changes.billing.frozen.slot_of(ExitId::of(passage))?
            && let Some(visit) = changes.slot(address)?.visit.clone()
        {
            found.insert(address, visit);
        }
    }
    let Some(token) = found.values().next().map(|(token, _)| token.clone()) else { return Ok(None) };
    let mut run: VisitRun = found.into_iter().map(|(address, (_, visit))| (address, visit)).collect();
    run.sort_by_key(|(_, visit)| *visit.first());
    Ok(Some((token, run)))
}

/// The visits once other things were made of their entry. Each is over: the car left unseen.
pub(super) fn made_again(run: &VisitRun, before: &Made, after: &Made) -> Vec<Visit<StoredPassage>> {
    let without = before.iter().rev().fold(visits(run), |visits, (_, made)| stay::without(&visits, made));
    let mut all = after.iter().fold(without, |visits, (way, made)| stay::with(&visits, *way, *made));
    for visit in &mut all {
        if let Visit::Stay { end: end @ End::Inside, .. } = visit {
            *end = End::Unseen;
        }
    }
    all
}

/// An exit that is in a forgotten visit, or is to be in one.
pub(super) struct ForgottenExit<'a> {
    pub event: &'a EventKey,
    pub known: &'a KnownEvent,
    /// The token and the visit that it is in now, if that is forgotten.
    pub its: Option<(SmolStr, VisitRun)>,
    /// What was decided about it until now, and what is from now on.
    pub decided: [Vec<EventDecision>; 2],
}

impl View {
    /// An exit ends another stay by what is decided about it now, and the one or the other is forgotten. What would change a forgotten
    /// visit that no such decision made is an anomaly.
    pub(super) fn change_forgotten_exit(
        &mut self,
        ledger: &Ledger,
        exit: ForgottenExit<'_>,
        (sign, decision): (Sign, &EventDecision),
        position: u64,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let ForgottenExit { event: (garage, ..), known, its, decided: [before, after] } = exit;
        let number = self.garages.get(garage).map_or(u32::MAX, |garage| garage.stays.number);
        let anomaly = AnomalyKey::of_garage(AnomalyCode::ForgottenStayChanged, number);
        let fact = AnomalyFact::of_decision(decision.position, decision.at_ms);
        if sign == Sign::Subtract && changes.billing.happened(&anomaly, fact)? {
            return changes.billing.note(Sign::Subtract, &anomaly, fact, position);
        }
        // The entry of the stay that it ends now.
        let ends = match its.as_ref().and_then(|(_, run)| run.first()) {
            Some((_, Visit::Stay { entry, .. })) => Some((ledger.epoch_of(entry.stream())?, entry.sequence)),
            _ => None,
        };
        let to = joined_entry(&after);
        if ends.is_some() && ends == to {
            return Ok(());
        }
        let target = match to {
            Some((epoch, sequence)) => {
                let entry = (garage.clone(), epoch, sequence);
                self.unseen_end_of(ledger, &entry, known.passage, changes)?
            }
            None => None,
        };
        let is_free = match (&its, ends) {
            (Some(_), Some((epoch, sequence))) => {
                before.iter().any(|its| its.what == DecidedEvent::Joined { epoch, sequence })
            }
            (Some(_), None) => target.is_some(),
            (None, _) => true,
        };
        if !is_free || to.is_some() && target.is_none() {
            return changes.billing.note(Sign::Add, &anomaly, fact, position);
        }
        let plate = decided_plate(&after).or(known.read.clone()).filter(|_| target.is_none());
        self.change_stays(ledger, garage, position, changes, |stays, mut update| {
            let passed = [(Way::Out, known.passage)];
            let had_plate = its.is_some() || known.plate.is_some();
            let has_plate = target.is_some() || plate.is_some();
            if let Some((token, run)) = &its {
                let left = run.iter().filter_map(|(_, visit)| without_exit(visit)).collect();
                update.replace_forgotten(token, run, left)?;
            } else if let Some(plate) = &known.plate {
                stays.take_made(plate, &passed, &mut update)?;
            }
            if let Some((token, run)) = target {
                let joined = |entry| Visit::Stay { entry, end: End::Left(known.passage) };
                let joined = run.iter().map(|(_, visit)| joined(*visit.first())).collect();
                update.replace_forgotten(&token, &run, joined)?;
            } else if let Some(plate) = &plate {
                stays.put_made(plate, &passed, &mut update)?;
            }
            update.plate_changed(known.passage, (had_plate, has_plate))
        })
    }

    /// The forgotten stay of an entry whose end nobody saw, and that began before an exit, with its token.
    fn unseen_end_of(
        &self,
        ledger: &Ledger,
        event: &EventKey,
        exit: StoredPassage,
        changes: &mut ViewChanges,
    ) -> Result<Option<(SmolStr, VisitRun)>, StoreError> {
        let known = self.known_event(ledger, event, changes)?;
        let Some(KnownEvent { way: Way::In, passage, .. }) = known else { return Ok(None) };
        let made = made_by(self.decisions.events.of(event), passage);
        let found = forgotten_run(passage, &made, changes)?;
        Ok(found.and_then(|(token, run)| Some((token, vec![unseen_end(run, exit)?]))))
    }
}

/// The last stay of a run whose end nobody saw, if it began before an exit.
pub(super) fn unseen_end(run: VisitRun, exit: StoredPassage) -> Option<(SlotAddress, Visit<StoredPassage>)> {
    let (address, visit) = run.into_iter().next_back()?;
    let is_open = matches!(visit, Visit::Stay { entry, end: End::Unseen } if entry < exit);
    is_open.then_some((address, visit))
}

/// What is left of a visit without its exit.
fn without_exit(visit: &Visit<StoredPassage>) -> Option<Visit<StoredPassage>> {
    match visit {
        Visit::Stay { entry, .. } => Some(Visit::Stay { entry: *entry, end: End::Unseen }),
        Visit::Exit(_) => None,
    }
}

impl CommandJudge<'_> {
    /// The visits of a forgotten entry.
    pub(super) fn forgotten_visits(
        &mut self,
        event: &EventKey,
        known: &KnownEvent,
    ) -> Result<Option<VisitRun>, StoreError> {
        let made = made_by(self.view.decisions.events.of(event), known.passage);
        let found = forgotten_run(known.passage, &made, self.changes)?;
        Ok(found.map(|(_, run)| run))
    }
}

impl StayUpdate<'_> {
    /// Replaces forgotten visits with others. One that begins with the same event keeps its slot.
    pub(super) fn replace_forgotten(
        &mut self,
        token: &SmolStr,
        old: &VisitRun,
        new: Vec<Visit<StoredPassage>>,
    ) -> Result<(), StoreError> {
        let mut base = None;
        for (address, _) in old {
            base = base.or(self.changes.billing.frozen.get(*address)?);
        }
        let base = base.as_ref();
        let same = |one: &Visit<StoredPassage>, other: &Visit<StoredPassage>| {
            std::mem::discriminant(one) == std::mem::discriminant(other) && one.first() == other.first()
        };
        let kept = |visit: &Visit<StoredPassage>| old.iter().any(|(_, old)| same(old, visit));
        for (address, visit) in old.iter().rev() {
            let after = new.iter().find(|new| same(new, visit));
            *self.book.count(visit) -= 1;
            if let Some(after) = after {
                *self.book.count(after) += 1;
            }
            let (place, ends) = ((*address, token.as_str()), (Some(visit), after));
            self.billing.forgotten_changed(self.ledger, place, ends, base, &mut self.changes.billing)?;
            let change = match after {
                Some(Visit::Stay { end, .. }) => SlotChange::End(end.clone()),
                Some(Visit::Exit(_)) => continue,
                None => SlotChange::Empty,
            };
            self.changes.change(*address, change)?;
        }
        for visit in new.iter().filter(|visit| !kept(visit)) {
            *self.book.count(visit) += 1;
            // No chain of a plate leads to it.
            let its = Some((token.clone(), visit.clone()));
            let slot = Slot { previous: None, in_order: false, visit: its };
            let address = self.book.next_address(slot.reserve());
            self.changes.change(address, SlotChange::Append(slot))?;
            let (place, ends) = ((address, token.as_str()), (None, Some(visit)));
            self.billing.forgotten_changed(self.ledger, place, ends, base, &mut self.changes.billing)?;
        }
        Ok(())
    }
}
