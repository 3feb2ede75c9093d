//! Corrected plates: an event is removed from the visits next to it under its old plate, and inserted into those under the new
//! one.
//!
//! **Promise.** A correction is applied whole or not at all.
//! **Not promised.** That every correction is applied: one that would have to look through more than [`LOOK_BACK`] visits goes to
//! quarantine.

use super::aged::OpenStay;
use super::billing::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::billing::issued::ExitId;
use super::billing::totals::Sign;
use super::changes::ViewChanges;
use super::codec::damaged;
use super::decisions::Decisions;
use super::event_decisions::{decided_plate, made_by};
use super::pages::{Readings, ReadingsOf, SlotAddress, SlotChange, StoredPassage, readings_key};
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

/// How far back the visits of a car are looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookBack {
    /// At most [`LOOK_BACK`] visits: what a garage corrects must not take long.
    Limited,
    /// What an operator decides acts in any case.
    Unlimited,
}

pub(super) fn visits(run: &VisitRun) -> Vec<Visit<StoredPassage>> {
    run.iter().map(|(_, visit)| visit.clone()).collect()
}

impl StayIndex {
    /// A garage gives an earlier event of it another plate.
    pub(super) fn correct(
        &mut self,
        (place, at_ms): (EventPosition<'_>, i64),
        (event, plate): ((Epoch, u64), &Plate),
        update: &mut StayUpdate<'_>,
    ) -> Result<(), ApplyEventError> {
        let before = (place.position, place.sequence);
        let known = known_event(update.ledger, update.decisions, place.site, event, before, update.changes)?;
        if update.changes.billing.frozen.slot_of(ExitId::of(known.passage))?.is_some() {
            let anomaly = AnomalyKey::of_garage(AnomalyCode::ForgottenStayChanged, update.book.number);
            let fact = AnomalyFact::of_event(place.stream, place.sequence, at_ms);
            return Ok(update.changes.billing.note(Sign::Add, &anomaly, fact, place.position)?);
        }
        // What an operator decided wins; the reading counts again if that is taken back.
        if decided_plate(update.decisions.of_event(place.site, event)).is_none() {
            self.move_event((place.site, event), &known, Some(plate), LookBack::Limited, update)?;
        }
        let corrected = |its: &mut Readings| _ = its.insert(known.index, plate.as_str().into());
        Ok(update.changes.readings.change(readings_key(known.readings), corrected)?)
    }

    /// An event is matched by another plate from now on, or by none, with what operators made of it.
    pub(super) fn move_event(
        &mut self,
        (site, event): (&SiteName, (Epoch, u64)),
        known: &KnownEvent,
        to: Option<&Plate>,
        look_back: LookBack,
        update: &mut StayUpdate<'_>,
    ) -> Result<(), ApplyEventError> {
        let KnownEvent { way, passage, plate: from, .. } = known;
        if from.as_ref() == to {
            return Ok(());
        }
        // Both are looked at before anything is changed: a correction is applied whole or not at all.
        let garage = update.book.number;
        for plate in from.as_ref().into_iter().chain(to) {
            let run = self.beside(garage, plate, *passage, look_back, update.changes)?;
            let run = run.ok_or(ApplyEventError::from(NotApplied::TooFarBack))?;
            if from.as_ref() == Some(plate) && !run.iter().any(|(_, visit)| visit.holds(passage)) {
                return Err(NotApplied::AtAnotherPlace.into());
            }
        }
        let made = match way {
            Way::In => made_by(update.decisions.of_event(site, event), *passage),
            Way::Out => Vec::new(),
        };
        if let Some(from) = from {
            self.take_made(from, &made, update)?;
            self.take_made(from, &[(*way, *passage)], update)?;
        }
        if let Some(to) = to {
            self.put_made(to, &[(*way, *passage)], update)?;
            self.put_made(to, &made, update)?;
        }
        Ok(update.read_as(*passage, from.as_ref(), to)?)
    }

    /// Puts passages into the visits of a car, one after the other.
    pub(super) fn put_made(
        &mut self,
        plate: &Plate,
        passages: &[(Way, StoredPassage)],
        update: &mut StayUpdate<'_>,
    ) -> Result<(), StoreError> {
        for (way, passage) in passages {
            let run = self.run_beside(plate, *passage, update)?;
            let after = stay::with(&visits(&run), *way, *passage);
            self.replace(plate, (&run, after), update)?;
        }
        Ok(())
    }

    /// Takes passages out of the visits of a car, the last first.
    pub(super) fn take_made(
        &mut self,
        plate: &Plate,
        passages: &[(Way, StoredPassage)],
        update: &mut StayUpdate<'_>,
    ) -> Result<(), StoreError> {
        for (_, passage) in passages.iter().rev() {
            let run = self.run_beside(plate, *passage, update)?;
            let after = stay::without(&visits(&run), passage);
            self.replace(plate, (&run, after), update)?;
        }
        Ok(())
    }

    fn run_beside(
        &self,
        plate: &Plate,
        passage: StoredPassage,
        update: &mut StayUpdate<'_>,
    ) -> Result<VisitRun, StoreError> {
        let run = self.beside(update.book.number, plate, passage, LookBack::Unlimited, update.changes)?;
        Ok(run.expect("nothing limits how far it looks"))
    }

    /// The visits of a car beside an event: the last two that begin at or before it, and the first after it, as far
    /// as there are such. `None`: that is too far back.
    pub(super) fn beside(
        &self,
        garage: u32,
        plate: &Plate,
        event: StoredPassage,
        look_back: LookBack,
        changes: &mut ViewChanges,
    ) -> Result<Option<VisitRun>, StoreError> {
        let mut before: VisitRun = Vec::new();
        let mut after: Option<(SlotAddress, Visit<StoredPassage>)> = None;
        let mut in_order = 0;
        for (looked_at, found) in self.chain(plate, changes).enumerate() {
            if looked_at == LOOK_BACK && look_back == LookBack::Limited {
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
        // The last first: an exit moves from a later visit to an earlier one, and must leave the one before it joins the other.
        for (address, visit) in old.iter().rev() {
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
            self.recent.seen(plate.as_str(), update.book.number, visit.last().at_ms);
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
    /// By what the garage read or corrected, whatever was decided.
    pub read: Option<Plate>,
    readings: ReadingsOf,
    index: u8,
}

/// Finds an entry or exit by its sequence, among the events before a (position, sequence); the ledger may contain later ones.
pub(super) fn known_event(
    ledger: &Ledger,
    decisions: &Decisions,
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
    let place = EventPosition { site, stream, epoch, sequence, position: page.position };
    let passage = place.passage(&event);
    let index = u8::try_from(index).expect("a page holds at most 64 events");
    let readings: ReadingsOf = (page.position, index / 16);
    let read = match changes.reading(readings, index)? {
        Some(corrected) => Some(Plate::stored(&corrected).map_err(|_| damaged(&readings_key(readings)))?),
        None => read_first.clone(),
    };
    let decided = decided_plate(decisions.of_event(site, (epoch, sequence)));
    Ok(KnownEvent { way, passage, plate: decided.or(read.clone()), read, readings, index })
}
