//! Decisions about events of visits whose plates were forgotten: they are found by the ids of their events, and keep their accounts,
//! their contracts and their tokens.

use super::CommandJudge;
use crate::parking::stay::{self, End, Visit, Way};
use crate::server::view::billing::issued::ExitId;
use crate::server::view::changes::ViewChanges;
use crate::server::view::corrections::{KnownEvent, VisitRun, visits};
use crate::server::view::event_decisions::{EventKey, made_by};
use crate::server::view::pages::{Slot, SlotAddress, SlotChange, StoredPassage};
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
        let Some(base) = base else { return Ok(()) };
        let same = |one: &Visit<StoredPassage>, other: &Visit<StoredPassage>| {
            std::mem::discriminant(one) == std::mem::discriminant(other) && one.first() == other.first()
        };
        for (address, visit) in old.iter().rev() {
            *self.book.count(visit) -= 1;
            let (place, ends) = ((*address, token.as_str()), (Some(visit), None));
            self.billing.forgotten_changed(self.ledger, place, ends, &base, &mut self.changes.billing)?;
            let change = match new.iter().find(|new| same(new, visit)) {
                Some(Visit::Stay { end, .. }) => SlotChange::End(end.clone()),
                Some(Visit::Exit(_)) => continue,
                None => SlotChange::Empty,
            };
            self.changes.change(*address, change)?;
        }
        for visit in new {
            *self.book.count(&visit) += 1;
            let kept = old.iter().find(|(_, old)| same(old, &visit)).map(|(address, _)| *address);
            let address = match kept {
                Some(address) => address,
                None => {
                    // No chain of a plate leads to it.
                    let its = Some((token.clone(), visit.clone()));
                    let slot = Slot { previous: None, in_order: false, visit: its };
                    let address = self.book.next_address(slot.reserve());
                    self.changes.change(address, SlotChange::Append(slot))?;
                    address
                }
            };
            let (place, ends) = ((address, token.as_str()), (None, Some(&visit)));
            self.billing.forgotten_changed(self.ledger, place, ends, &base, &mut self.changes.billing)?;
        }
        Ok(())
    }
}
