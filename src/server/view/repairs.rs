//! What operators say of stays that do not add up: joined, closed, split, charged as they are.
//!
//! **Promise.** A repair is a record at its position; no event is changed by it. Every stay that is another one afterwards has its
//! charge voided, and what it is then charged anew.
//! **Kept by.** A repair is judged by the visits that it would give, before it is recorded and again when the fold comes to it.
//! What a person says happened is a [`Passage`] that is [made](Passage::made); it stands right after the entry of its stay, and pairs
//! like any other (`parking::stay::pair`).

use super::billing::entries::{Held, Terms, What};
use super::billing::{CLOCKS_DIFFER_MS, NoOrder};
use super::commands::Refusal;
use super::stays::{KnownEvent, NotApplied, Run, Teller, known_event};
use super::{Changes, Passage, View};
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{self, End, Visit, Way};
use crate::parking::{ChargeId, EventId, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::store::StoreError;
use jiff::Timestamp;

/// A longer stay is not billed, whoever looked at it: no car stays ten years, and pricing takes time for each day.
const LONGEST_BILLED_DAYS: i64 = 3_660;
const DAY_MS: i64 = 24 * 3_600_000;

/// Why a stay is not repaired. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRepair {
    #[error(
        "there is no event {0}: GET /v1/events shows those that there are, \"server stays review\" those that may want a repair"
    )]
    NoSuchEvent(EventId),
    #[error("the event {event} cannot be used: {why}")]
    NotUsable { event: EventId, why: NotApplied },
    #[error("the event {0} is no entry with a readable plate")]
    NoEntry(EventId),
    #[error("the event {0} is no exit")]
    NoExit(EventId),
    #[error("the entry and the exit are events of two garages")]
    TwoGarages,
    #[error(
        "they would not become one stay: between {entry} and {exit} lies another event of the plate {plate}, or the exit is older"
    )]
    NoNeighbours { entry: EventId, exit: EventId, plate: String },
    #[error("the stay that begins with {0} has ended already, and neither before it began")]
    HasEnded(EventId),
    #[error("no stay that begins with {event} goes on at that time: {why}")]
    NotThen { event: EventId, why: &'static str },
    #[error("the stay lies more than {} visits back", super::stays::LOOK_BACK)]
    TooFarBack,
    #[error("{0} milliseconds since 1970 is not a time of years -9999 to 9999")]
    NotATime(i64),
    #[error(
        "the stay of {charge} is longer than {} days: a clock was wrong at its entry or at its exit. It stays held",
        LONGEST_BILLED_DAYS
    )]
    TooLongToBill { charge: ChargeId },
}

/// A repair that makes sense: what stands there, and what shall.
struct Repair {
    garage: SiteName,
    plate: Plate,
    before: Run,
    after: Vec<Visit<Passage>>,
}

/// A repair, or why it makes none.
type Judged<T> = Result<T, Refusal>;

impl View {
    /// Whether a repair makes sense now. `None`: the command is about something else.
    pub(super) fn judge_repair(
        &self,
        ledger: &Ledger,
        command: &Command,
        changes: &mut Changes,
    ) -> Result<Option<Judged<()>>, StoreError> {
        let reason = match command {
            Command::JoinStay { reason, .. }
            | Command::CloseStay { reason, .. }
            | Command::SplitStay { reason, .. }
            | Command::BillStay { reason, .. } => reason,
            _ => return Ok(None),
        };
        if let Err(refusal) = super::billing::check_reason(reason) {
            return Ok(Some(Err(refusal)));
        }
        Ok(Some(match command {
            Command::JoinStay { entry, exit, .. } => self.judge_join(ledger, entry, exit, changes)?.map(drop),
            Command::BillStay { charge, .. } => match self.find_charge(ledger, charge, changes)? {
                None => Err(NoOrder::NoSuchCharge(charge.clone()).into()),
                Some(found) => match &found.entry.what {
                    What::Stay(stay)
                        if stay.terms == Terms::Held(Held::TooLong) && found.entry.settled_by == 0 =>
                    {
                        let lasted_ms = stay.exit.at_ms.saturating_sub(stay.entry.at_ms);
                        match lasted_ms > LONGEST_BILLED_DAYS * DAY_MS {
                            true => Err(NoRepair::TooLongToBill { charge: charge.clone() }.into()),
                            false => Ok(()),
                        }
                    }
                    _ => Err(NoOrder::NotHeld(charge.clone()).into()),
                },
            },
            _ => self.repair(ledger, command, changes)?.map(drop),
        }))
    }

    /// Folds the repair at `position`. `None`: the command is about something else. `Err` inside: it has no effect.
    pub(super) fn apply_repair(
        &mut self,
        ledger: &Ledger,
        position: u64,
        command: &Command,
        changes: &mut Changes,
    ) -> Result<Option<Result<(), String>>, StoreError> {
        match self.judge_repair(ledger, command, changes)? {
            None => return Ok(None),
            Some(Err(refusal)) => return Ok(Some(Err(refusal.to_string()))),
            Some(Ok(())) => {}
        }
        match command {
            Command::JoinStay { entry, exit, .. } => {
                let Ok((site, plate)) = self.judge_join(ledger, entry, exit, changes)? else {
                    return Ok(Some(Ok(())));
                };
                let key = self.key_of(&site).clone();
                let called = self.name_of(&key).clone();
                let (garage, stays, billing) = self.garage_mut(&key, changes);
                let place = super::Place { site: &site, stream: 0, sequence: 0, position };
                let of = (Epoch::from_bytes(exit.epoch), exit.sequence);
                let teller = Teller { billing, called: called.as_str() };
                let joined =
                    stays.correct(ledger, &mut garage.stays, place, (of, &plate), teller, changes)?;
                self.garage_changed(&key, position);
                return Ok(Some(joined.map_err(|why| why.to_string())));
            }
            Command::BillStay { charge, .. } => {
                if let Some(found) = self.find_charge(ledger, charge, changes)?
                    && let What::Stay(stay) = &found.entry.what
                {
                    let called = self.name_of_number(stay.garage);
                    self.billing.release(
                        position,
                        found.number,
                        &found.entry,
                        &called,
                        &mut changes.billing,
                    )?;
                }
            }
            _ => {
                if let Ok(repair) = self.repair(ledger, command, changes)? {
                    let Repair { garage: key, plate, before, after } = repair;
                    let called = self.name_of(&key).clone();
                    let (garage, stays, billing) = self.garage_mut(&key, changes);
                    let mut teller = Teller { billing, called: called.as_str() };
                    let book = &mut garage.stays;
                    stays.replace(book, &plate, (&before, after), position, &mut teller, changes)?;
                    self.garage_changed(&key, position);
                }
            }
        }
        Ok(Some(Ok(())))
    }

    /// The exit's site, and the plate by which it is read from now on.
    fn judge_join(
        &self,
        ledger: &Ledger,
        entry: &EventId,
        exit: &EventId,
        changes: &mut Changes,
    ) -> Result<Judged<(SiteName, Plate)>, StoreError> {
        let (entry_key, known_entry) = match self.event(ledger, entry, changes)? {
            Ok((site, known)) => (self.key_of(&site).clone(), known),
            Err(why) => return Ok(Err(why)),
        };
        let (site, known_exit) = match self.event(ledger, exit, changes)? {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let (Way::In, Some(plate)) = (known_entry.way, known_entry.plate) else {
            return Ok(Err(NoRepair::NoEntry(entry.clone()).into()));
        };
        if known_exit.way != Way::Out {
            return Ok(Err(NoRepair::NoExit(exit.clone()).into()));
        }
        if *self.key_of(&site) != entry_key {
            return Ok(Err(NoRepair::TwoGarages.into()));
        }
        let number = self.garages.get(&entry_key).map_or(u32::MAX, |garage| garage.stays.number);
        // The exit is read by another plate then: it must stand where it is read now. That of a car that was forgotten does not.
        if let Some(read) = &known_exit.plate {
            match self.stays.beside(number, read, known_exit.passage, changes)? {
                None => return Ok(Err(NoRepair::TooFarBack.into())),
                Some(run) if !run.iter().any(|(_, visit)| visit.holds(&known_exit.passage)) => {
                    return Ok(Err(NoRepair::NoExit(exit.clone()).into()));
                }
                Some(_) => {}
            }
        }
        let Some(run) = self.stays.beside(number, &plate, known_exit.passage, changes)? else {
            return Ok(Err(NoRepair::TooFarBack.into()));
        };
        let visits: Vec<_> = run.into_iter().map(|(_, visit)| visit).collect();
        let after = stay::with(&visits, Way::Out, known_exit.passage);
        let joined = Visit::Stay { entry: known_entry.passage, end: End::Left(known_exit.passage) };
        if known_exit.plate.as_ref() == Some(&plate) || !after.contains(&joined) {
            let (entry, exit, plate) = (entry.clone(), exit.clone(), plate.to_string());
            return Ok(Err(NoRepair::NoNeighbours { entry, exit, plate }.into()));
        }
        Ok(Ok((site, plate)))
    }

    /// What closing or splitting a stay would make of the visits beside it.
    fn repair(
        &self,
        ledger: &Ledger,
        command: &Command,
        changes: &mut Changes,
    ) -> Result<Judged<Repair>, StoreError> {
        let (id, left_at_ms, entered_at_ms, offset) = match command {
            Command::CloseStay { entry, left_at_ms, offset_minutes, .. } => {
                (entry, *left_at_ms, None, *offset_minutes)
            }
            Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, .. } => {
                (entry, *left_at_ms, Some(*entered_at_ms), *offset_minutes)
            }
            _ => unreachable!("the others repair no visits"),
        };
        let times = std::iter::once(left_at_ms).chain(entered_at_ms);
        if let Some(bad) = times.into_iter().find(|at_ms| Timestamp::from_millisecond(*at_ms).is_err()) {
            return Ok(Err(NoRepair::NotATime(bad).into()));
        }
        let (site, known) = match self.event(ledger, id, changes)? {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let (Way::In, Some(plate)) = (known.way, known.plate) else {
            return Ok(Err(NoRepair::NoEntry(id.clone()).into()));
        };
        let garage = self.key_of(&site).clone();
        let number = self.garages.get(&garage).map_or(u32::MAX, |garage| garage.stays.number);
        let left = known.passage.made(left_at_ms, offset);
        let Some(before) = self.stays.beside(number, &plate, left, changes)? else {
            return Ok(Err(NoRepair::TooFarBack.into()));
        };
        let then = |why| Ok(Err(NoRepair::NotThen { event: id.clone(), why }.into()));
        // Of the stays that begin with this event, or with what was made in it, the last that begins before that time.
        let is_of = |passage: &Passage| {
            (passage.position, passage.sequence, passage.stream())
                == (known.passage.position, known.passage.sequence, known.passage.stream())
        };
        let stay = before.iter().rev().find_map(|(_, visit)| match visit {
            Visit::Stay { entry, end } if is_of(entry) && entry.at_ms <= left_at_ms => Some((entry, end)),
            _ => None,
        });
        let Some((entry, end)) = stay else { return then("it begins later") };
        let visits: Vec<_> = before.iter().map(|(_, visit)| visit.clone()).collect();
        let after = match (entered_at_ms, end) {
            (None, End::Left(exit)) if exit.at_ms >= entry.at_ms.saturating_sub(CLOCKS_DIFFER_MS) => {
                return Ok(Err(NoRepair::HasEnded(id.clone()).into()));
            }
            (None, _) => stay::with(&visits, Way::Out, left),
            (Some(entered), End::Left(exit)) if entered > exit.at_ms => {
                return then("it had ended when the car is said to have come again");
            }
            (Some(entered), _) if entered <= left_at_ms => {
                return then("the car is said to have come again before it had left");
            }
            (Some(entered), _) => {
                let out = stay::with(&visits, Way::Out, left);
                stay::with(&out, Way::In, known.passage.made(entered, offset))
            }
        };
        Ok(Ok(Repair { garage, plate, before, after }))
    }

    /// An event by its id, and the site under which it came.
    fn event(
        &self,
        ledger: &Ledger,
        id: &EventId,
        changes: &Changes,
    ) -> Result<Judged<(SiteName, KnownEvent)>, StoreError> {
        let unknown = || NoRepair::NoSuchEvent(id.clone());
        let Ok(name) = SiteName::new(&id.garage) else { return Ok(Err(unknown().into())) };
        let of = (Epoch::from_bytes(id.epoch), id.sequence);
        let mut refusal = unknown();
        let folded = (self.position + 1, 0);
        for site in self.sites_of(self.key_of(&name)) {
            match known_event(ledger, &site, of, folded, changes)? {
                Ok(known) => return Ok(Ok((site, known))),
                Err(NotApplied::NoSuchEvent { .. }) => {}
                Err(why) => refusal = NoRepair::NotUsable { event: id.clone(), why },
            }
        }
        Ok(Err(refusal.into()))
    }
}
