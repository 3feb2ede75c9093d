//! Operators' repairs of stays that do not add up: they are joined, closed, split, or charged as they are.
//!
//! **Promise.** A repair is a record at its position; no event is changed by it. The drafts of the stays that it changes follow.
//! **Kept by.** A repair is judged by the visits that would result, before it is recorded and again when it is applied. What a
//! person says happened is a [`StoredPassage`] that is [made](StoredPassage::made); it stands right after the entry of its stay, and
//! pairs like any other (`parking::stay::pair`).

use super::forgotten::unseen_end;
use super::{CommandJudge, Effect, Judging};
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{self, End, Visit, Way};
use crate::parking::{EventId, Moment, Plate};
use crate::server::record::Command;
use crate::server::view::billing::CLOCKS_DIFFER_MS;
use crate::server::view::corrections::{KnownEvent, LookBack, VisitRun, known_event, visits};
use crate::server::view::event_decisions::{DecidedEvent, EventKey};
use crate::server::view::pages::StoredPassage;
use crate::server::view::refusal::{ApplyEventError, JudgeError, NotApplied, Refusal};
use jiff::Timestamp;

impl CommandJudge<'_> {
    pub(super) fn repair(&mut self, command: &Command) -> Result<Effect, JudgeError> {
        Ok(match command {
            Command::JoinStay { entry, exit, plate, .. } => {
                let what = match (self.judging, plate) {
                    (Judging::Recorded, Some(plate)) => DecidedEvent::Plate(plate.as_str().into()),
                    (Judging::Recorded, None) => self.joined_to(entry)?,
                    (Judging::Before, _) => self.joined(entry, exit)?,
                };
                Effect::DecideEvent { event: self.event_key(exit)?, what }
            }
            Command::CloseStay { entry, left_at_ms, offset_minutes, .. } => {
                self.parted(entry, (*left_at_ms, None), *offset_minutes)?;
                let (left_at_ms, offset_minutes) = (*left_at_ms, *offset_minutes);
                Effect::DecideEvent {
                    event: self.event_key(entry)?,
                    what: DecidedEvent::Closed { left_at_ms, offset_minutes },
                }
            }
            Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, .. } => {
                self.parted(entry, (*left_at_ms, Some(*entered_at_ms)), *offset_minutes)?;
                let (left_at_ms, entered_at_ms, offset_minutes) =
                    (*left_at_ms, *entered_at_ms, *offset_minutes);
                let what = DecidedEvent::Split { left_at_ms, entered_at_ms, offset_minutes };
                Effect::DecideEvent { event: self.event_key(entry)?, what }
            }
            _ => self.order(command)?,
        })
    }

    /// How the exit is matched from now on: by the plate of the entry, or, where that was forgotten, by the entry itself.
    fn joined(&mut self, entry: &EventId, exit: &EventId) -> Result<DecidedEvent, JudgeError> {
        let (entry_site, known_entry) = self.event(entry)?;
        let (site, known_exit) = self.event(exit)?;
        let of_entry = self.forgotten_visits(&self.event_key(entry)?, &known_entry)?;
        if known_entry.way != Way::In || of_entry.is_none() && known_entry.plate.is_none() {
            return Err(Refusal::NoEntry(entry.clone()).into());
        }
        if known_exit.way != Way::Out {
            return Err(Refusal::NoExit(exit.clone()).into());
        }
        let entry_key = self.view.key_of(&entry_site);
        if self.view.key_of(&site) != entry_key {
            return Err(Refusal::TwoGarages.into());
        }
        if let Some(of_exit) = self.forgotten_visits(&self.event_key(exit)?, &known_exit)? {
            let (entry, exit) = (entry.clone(), exit.clone());
            let StoredPassage { at_ms, offset_minutes, .. } = known_exit.passage;
            let at = Box::new(Moment::from_ms(at_ms, offset_minutes));
            if of_entry.is_none() {
                return Err(Refusal::ForgottenExit { entry, exit, at }.into());
            }
            if of_exit.iter().any(|(_, visit)| matches!(visit, Visit::Stay { .. })) {
                return Err(Refusal::EndsForgottenStay { entry, exit, at }.into());
            }
        } else if let Some(read) = &known_exit.plate {
            // It gets another plate, or none, so it must be found under its present one.
            let run = self.beside(entry_key, read, known_exit.passage)?;
            if !run.iter().any(|(_, visit)| visit.holds(&known_exit.passage)) {
                return Err(Refusal::NoExit(exit.clone()).into());
            }
        }
        let Some(plate) = known_entry.plate.filter(|_| of_entry.is_none()) else {
            if known_exit.passage < known_entry.passage {
                return Err(Refusal::NotThen { event: entry.clone(), why: "it begins later" }.into());
            }
            return match of_entry.and_then(|run| unseen_end(run, known_exit.passage)) {
                Some(_) => self.joined_to(entry),
                None => Err(Refusal::HasEnded(entry.clone()).into()),
            };
        };
        let after = stay::with(
            &visits(&self.beside(entry_key, &plate, known_exit.passage)?),
            Way::Out,
            known_exit.passage,
        );
        let joined = Visit::Stay { entry: known_entry.passage, end: End::Left(known_exit.passage) };
        if known_exit.plate.as_ref() == Some(&plate) || !after.contains(&joined) {
            let (entry, exit, plate) = (entry.clone(), exit.clone(), plate.to_string());
            return Err(Refusal::NoNeighbours { entry, exit, plate }.into());
        }
        Ok(DecidedEvent::Plate(plate.as_str().into()))
    }

    fn joined_to(&self, entry: &EventId) -> Result<DecidedEvent, JudgeError> {
        let (_, epoch, sequence) = self.event_key(entry)?;
        Ok(DecidedEvent::Joined { epoch, sequence })
    }

    /// The visits of a car to a garage beside an event, unless too many follow.
    fn beside(
        &mut self,
        garage: &SiteName,
        plate: &Plate,
        event: StoredPassage,
    ) -> Result<VisitRun, JudgeError> {
        let number = self.view.garages.get(garage).map_or(u32::MAX, |garage| garage.stays.number);
        let run = self.view.stays.beside(number, plate, event, LookBack::Limited, self.changes)?;
        Ok(run.ok_or(Refusal::TooFarBack)?)
    }

    /// Checks that closing a stay, or splitting it where the car entered again, makes sense. A recorded decision needs only times
    /// that exist: it acts whatever came before or after it.
    fn parted(
        &mut self,
        id: &EventId,
        (left_at_ms, entered_at_ms): (i64, Option<i64>),
        offset: i16,
    ) -> Result<(), JudgeError> {
        let times = std::iter::once(left_at_ms).chain(entered_at_ms);
        if let Some(bad) = times.into_iter().find(|at_ms| Timestamp::from_millisecond(*at_ms).is_err()) {
            return Err(Refusal::NotATime(bad).into());
        }
        if self.judging == Judging::Recorded {
            return Ok(());
        }
        let (site, known) = self.event(id)?;
        let left = known.passage.made(left_at_ms, offset);
        let forgotten = self.forgotten_visits(&self.event_key(id)?, &known)?;
        let before = match (known.way, forgotten, &known.plate) {
            (Way::In, Some(run), _) => run,
            (Way::In, None, Some(plate)) => self.beside(self.view.key_of(&site), plate, left)?,
            _ => return Err(Refusal::NoEntry(id.clone()).into()),
        };
        let then = |why| Err(Refusal::NotThen { event: id.clone(), why }.into());
        // Of the stays that begin with this event, or with what was made in it, the last that begins before that time.
        let is_of = |passage: &StoredPassage| {
            (passage.position, passage.sequence, passage.stream())
                == (known.passage.position, known.passage.sequence, known.passage.stream())
        };
        let stay = before.iter().rev().find_map(|(_, visit)| match visit {
            Visit::Stay { entry, end } if is_of(entry) && entry.at_ms <= left_at_ms => Some((entry, end)),
            _ => None,
        });
        let Some((entry, end)) = stay else { return then("it begins later") };
        match (entered_at_ms, end) {
            (None, End::Left(exit)) if exit.at_ms >= entry.at_ms.saturating_sub(CLOCKS_DIFFER_MS) => {
                Err(Refusal::HasEnded(id.clone()).into())
            }
            (Some(entered), End::Left(exit)) if entered > exit.at_ms => {
                then("it had ended before the time given for the new entry")
            }
            (Some(entered), _) if entered <= left_at_ms => {
                then("the time given for the new entry is not after the time at which the car left")
            }
            _ => Ok(()),
        }
    }

    fn event_key(&self, id: &EventId) -> Result<EventKey, Refusal> {
        let name = SiteName::new(&id.garage).map_err(|_| Refusal::NoSuchEvent(id.clone()))?;
        Ok((self.view.key_of(&name).clone(), Epoch::from_bytes(id.epoch), id.sequence))
    }

    /// An event by its id, and the site under which it came.
    pub(super) fn event(&self, id: &EventId) -> Result<(SiteName, KnownEvent), JudgeError> {
        let unknown = || Refusal::NoSuchEvent(id.clone());
        let Ok(name) = SiteName::new(&id.garage) else { return Err(unknown().into()) };
        let of = (Epoch::from_bytes(id.epoch), id.sequence);
        let mut refusal = unknown();
        let applied = (self.view.position + 1, 0);
        for site in self.view.sites_of(self.view.key_of(&name)) {
            let decisions = &self.view.decisions;
            match known_event(self.ledger, decisions, &site, of, applied, self.changes) {
                Ok(known) => return Ok((site, known)),
                Err(ApplyEventError::Store(error)) => return Err(error.into()),
                Err(ApplyEventError::NotApplied(NotApplied::NoSuchEvent { .. })) => {}
                Err(ApplyEventError::NotApplied(why)) => {
                    refusal = Refusal::NotUsable { event: id.clone(), why }
                }
            }
        }
        Err(refusal.into())
    }
}
