//! Corrected plates: an event is removed from the visits next to it under its old plate, and inserted into those under the new
//! one.
//!
//! **Promise.** A correction is applied whole or not at all.
//! **Not promised.** That every correction is applied: one that would have to look through more than [`LOOK_BACK`] visits goes to
//! quarantine.

use super::aged::OpenStay;
use super::billing::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::changes::ViewChanges;
use super::codec::damaged;
use super::pages::{ReadingsOf, SlotAddress, SlotChange, StoredPassage, readings_key};
use super::refusal::{ApplyEventError, LOOK_BACK, NotApplied};
use super::stays::{AppendOrder, EventPosition, StayIndex, StayUpdate};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{self, End, Visit, Way};
use crate::parking::{Event, EventKind, Plate};
use crate::server::ledger::Ledger;
use crate::store::StoreError;

/// A run of visits of one car, ascending, each at its address.
pub(super) type VisitRun = Vec<(SlotAddress, Visit<StoredPassage>)>;

pub(super) fn visits(run: &VisitRun) -> Vec<Visit<StoredPassage>> {
    run.iter().map(|(_, visit)| visit.clone()).collect()
}

impl StayIndex {
    /// Gives an earlier event another plate from now on.
    pub(super) fn correct(
        &mut self,
        ledger: &Ledger,
        place: EventPosition<'_>,
        ((epoch, sequence), plate): ((Epoch, u64), &Plate),
        mut update: StayUpdate<'_>,
    ) -> Result<(), ApplyEventError> {
        let before = (place.position, place.sequence);
        let known = known_event(ledger, place.site, (epoch, sequence), before, update.changes)?;
        let KnownEvent { way, passage, plate: former, readings, index } = known;
        if former.as_ref() == Some(plate) {
            return Ok(());
        }
        // Both are looked at before anything is changed: a correction is applied whole or not at all.
        let garage = update.book.number;
        let mut beside = |plate| {
            self.beside(garage, plate, passage, update.changes)?
                .ok_or(ApplyEventError::from(NotApplied::TooFarBack))
        };
        let old = match &former {
            Some(former) => Some((former, beside(former)?)),
            None => None,
        };
        let new = beside(plate)?;
        if let Some((_, run)) = &old
            && !run.iter().any(|(_, visit)| visit.holds(&passage))
        {
            return Err(NotApplied::AtAnotherPlace.into());
        }
        if let Some((former, run)) = old {
            let after = stay::without(&visits(&run), &passage);
            self.replace(former, (&run, after), &mut update)?;
        }
        if former.is_none() {
            let unreadable = AnomalyKey::of_garage(AnomalyCode::UnreadablePlate, garage);
            update.changes.billing.take_back(unreadable, AnomalyFact::of(passage))?;
        }
        let after = stay::with(&visits(&new), way, passage);
        self.replace(plate, (&new, after), &mut update)?;
        update.changes.readings_mut(readings)?.insert(index, plate.as_str().into());
        Ok(())
    }

    /// The visits of a car beside an event: the last two that begin at or before it, and the first after it, as far
    /// as there are such. `None`: that is too far back.
    pub(super) fn beside(
        &self,
        garage: u32,
        plate: &Plate,
        event: StoredPassage,
        changes: &mut ViewChanges,
    ) -> Result<Option<VisitRun>, StoreError> {
        let mut before: VisitRun = Vec::new();
        let mut after: Option<(SlotAddress, Visit<StoredPassage>)> = None;
        let mut in_order = 0;
        for (looked_at, found) in self.chain(plate, changes).enumerate() {
            if looked_at == LOOK_BACK {
                return Ok(None);
            }
            let (address, Some((visit, is_in_order))) = found? else { continue };
            if address.garage != garage {
                continue;
            }
            if *visit.first() <= event {
                before.push((address, visit));
                // Everything below a visit that was appended in order began before it: after two, nothing nearer comes.
                in_order += usize::from(is_in_order);
                if in_order == 2 {
                    break;
                }
            } else if after.as_ref().is_none_or(|(_, nearest)| visit.first() < nearest.first()) {
                after = Some((address, visit));
            }
        }
        before.sort_by_key(|(_, visit)| *visit.first());
        let mut run = before.split_off(before.len().saturating_sub(2));
        run.extend(after);
        Ok(Some(run))
    }

    /// Replaces a run of visits of one car with `new`: a visit that begins with the same event keeps its slot. The books of money
    /// are updated for every stay that changed.
    pub(super) fn replace(
        &mut self,
        plate: &Plate,
        (old, new): (&VisitRun, Vec<Visit<StoredPassage>>),
        update: &mut StayUpdate<'_>,
    ) -> Result<(), StoreError> {
        let same = |one: &Visit<StoredPassage>, other: &Visit<StoredPassage>| {
            std::mem::discriminant(one) == std::mem::discriminant(other) && one.first() == other.first()
        };
        for (address, visit) in old {
            *update.book.count(visit) -= 1;
            if visit.is_inside() {
                self.take(plate, update)?;
            }
            let after = new.iter().find(|new| same(new, visit));
            if after == Some(visit) {
                continue;
            }
            match after {
                Some(Visit::Stay { end, .. }) => {
                    update.changes.change(*address, SlotChange::End(end.clone()))?;
                }
                _ => update.changes.change(*address, SlotChange::Empty)?,
            }
            update.visit_changed(plate, *address, Some(visit), after)?;
        }
        for visit in new {
            visit.events().for_each(|(_, event)| self.latest.raise(plate, event.at_ms));
            let kept = old.iter().find(|(_, old)| same(old, &visit)).map(|(address, _)| *address);
            let address = match kept {
                None => self.append(AppendOrder::Later, plate, visit.clone(), update)?,
                Some(address) => {
                    *update.book.count(&visit) += 1;
                    address
                }
            };
            if let Visit::Stay { entry, end: End::Inside } = visit {
                self.is_inside(plate, OpenStay { address, entry }, update.changes)?;
            }
        }
        self.note_overlaps(plate, true, update)
    }
}

pub(super) struct KnownEvent {
    pub way: Way,
    pub passage: StoredPassage,
    /// By the best reading.
    pub plate: Option<Plate>,
    readings: ReadingsOf,
    index: u8,
}

/// Finds an entry or exit by its sequence, among the events before a (position, sequence); the ledger may contain later ones.
pub(super) fn known_event(
    ledger: &Ledger,
    site: &SiteName,
    (epoch, sequence): (Epoch, u64),
    before: (u64, u64),
    changes: &ViewChanges,
) -> Result<KnownEvent, ApplyEventError> {
    let none = || Err(NotApplied::NoSuchEvent { epoch, sequence }.into());
    let Some((stream, page)) = ledger.page_with(site, epoch, sequence)? else { return none() };
    if (page.position, sequence) >= before {
        return none();
    }
    let index = usize::try_from(sequence - page.page.first.get()).expect("it is within the page");
    let Content::Records(records) = &page.page.content else { return none() };
    let Ok(event) = Event::from_bytes(&records[index].payload) else {
        return Err(NotApplied::InQuarantine.into());
    };
    let (way, read_first) = match &event.kind {
        EventKind::Entry { plate } => (Way::In, plate),
        EventKind::Exit { plate } => (Way::Out, plate),
        other => return Err(NotApplied::NoPassage(other.name()).into()),
    };
    let passage = EventPosition { site, stream, sequence, position: page.position }.passage(&event);
    let index = u8::try_from(index).expect("a page holds at most 64 events");
    let readings: ReadingsOf = (page.position, index / 16);
    let plate = match changes.reading(readings, index)? {
        Some(corrected) => Some(Plate::stored(&corrected).map_err(|_| damaged(&readings_key(readings)))?),
        None => read_first.clone(),
    };
    Ok(KnownEvent { way, passage, plate, readings, index })
}
