//! What operators' decisions about charges, and their lists, would do.

use super::{CommandJudge, Effect, Judging};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::money::{Amount, Money};
use crate::parking::stay::{End, Visit};
use crate::parking::{ChargeId, Event, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::view::billing::DecisionChange;
use crate::server::view::billing::draft::{Draft, DraftState, HeldBecause, is_billable};
use crate::server::view::billing::rules::{ChargeDecision, ChargeKey, Decided};
use crate::server::view::changes::ViewChanges;
use crate::server::view::charges as list;
use crate::server::view::event_decisions::EventDecisions;
use crate::server::view::issues::RecordedIssue;
use crate::server::view::pages::{SlotAddress, StoredPassage};
use crate::server::view::refusal::{JudgeError, Refusal};
use crate::server::view::state::View;
use crate::store::StoreError;

/// How many numbers are recorded as lost at once: a typing error cannot be taken back.
const LOST_AT_ONCE: u64 = 10_000;

/// A closed stay by the id of its charge.
#[derive(Debug)]
pub(in crate::server::view) struct FoundCharge {
    pub plate: Plate,
    pub address: SlotAddress,
    pub visit: Visit<StoredPassage>,
    pub draft: Draft,
}

/// What is decided about a charge, and its stay if the ledger has it.
#[derive(Debug)]
pub(super) struct ChargeEffect {
    pub key: ChargeKey,
    pub change: DecisionChange,
    pub stay: Option<(Plate, SlotAddress, Visit<StoredPassage>)>,
}

impl CommandJudge<'_> {
    pub(super) fn order(&mut self, command: &Command) -> Result<Effect, JudgeError> {
        Ok(match command {
            Command::Tariffs { .. } | Command::Register { .. } | Command::Payments { .. } => {
                Effect::PutInForce
            }
            Command::UndoPayment { payment, date } => {
                let judged = self.changes.billing.receivables().judge_undo(*payment, *date)?;
                judged.map_err(Refusal::Payment)?;
                Effect::UndoPayment { payment: *payment, date: *date }
            }
            Command::Void { charge, .. } => self.decided(charge, Decided::Void)?,
            Command::Credit { charge, amount, .. } => {
                self.decided(charge, Decided::Credit(Amount::of_minor(*amount)))?
            }
            Command::BillStay { charge, .. } => self.decided(charge, Decided::Bill)?,
            Command::Undo { decision } => self.undone(*decision)?,
            Command::Forget { whose, before, seed } => {
                self.judge_forget(whose, *before)?;
                Effect::Forget { whose: whose.clone(), before: *before, seed: *seed }
            }
            Command::Issue { issue, from, first, last, date } => {
                let position = self.position;
                if last < first || !self.may_be_given(*first, *last) {
                    let given = self.view.billing.last_document.serial;
                    return Err(Refusal::NumbersGiven { first: *first, given }.into());
                }
                let (issue, from, first, last, date) = (*issue, *from, *first, *last, *date);
                Effect::Issue(RecordedIssue { position, issue, from, first, last, date })
            }
            Command::ResumeNumbers { first, last, reason, date } => {
                let given = self.view.billing.last_document.serial;
                if *last < given {
                    return Err(Refusal::NumberKnown { last: *last, given }.into());
                }
                let lost = last.checked_add(1).and_then(|end| end.checked_sub(*first));
                if lost.is_none_or(|lost| lost > LOST_AT_ONCE) || *first <= given {
                    return Err(Refusal::TooManyLost { last: *last, given }.into());
                }
                if self.judging == Judging::Recorded && !self.may_be_given(*first, *first) {
                    return Err(Refusal::NumbersGiven { first: *first, given }.into());
                }
                let (numbers, reason, date) = ((*first, *last), reason.clone(), *date);
                Effect::ResumeNumbers { numbers, reason, date }
            }
            _ => Effect::Nothing,
        })
    }

    /// Whether documents of a recorded command may have these numbers. Those that are skipped were given by records that cannot be read:
    /// each number has one at least, so that there are no more numbers than positions.
    fn may_be_given(&self, first: u64, last: u64) -> bool {
        let given = self.view.billing.last_document;
        let positions = self.position.saturating_sub(given.position);
        first > 0 && last.saturating_sub(given.serial) <= positions && last - first <= self.position
    }

    /// A decision about a charge. One that is recorded acts as soon as its stay is in the ledger.
    fn decided(&mut self, charge: &ChargeId, what: Decided) -> Result<Effect, JudgeError> {
        let found = match (self.judging, what) {
            (Judging::Recorded, _) => self.find(charge)?,
            (Judging::Before, Decided::Void) => Some(self.charged(charge)?),
            (Judging::Before, Decided::Credit(amount)) => Some(self.credited(charge, amount.minor())?),
            (Judging::Before, Decided::Bill) => Some(self.held(charge)?),
        };
        let change = DecisionChange::Decide(ChargeDecision { position: self.position, what });
        let stay = found.map(|FoundCharge { plate, address, visit, .. }| (plate, address, visit));
        Ok(Effect::Decide(Box::new(ChargeEffect { key: key_of(charge), change, stay })))
    }

    /// The decision that the command at a position made, to be taken back.
    fn undone(&mut self, position: u64) -> Result<Effect, JudgeError> {
        if let Some(event) = self.view.decisions.events.find(position) {
            return Ok(Effect::UndoEvent { event, decision: position });
        }
        let decisions = self.view.billing.rules.all_decisions();
        let is_it = |decisions: &[ChargeDecision]| decisions.iter().any(|its| its.position == position);
        let Some(key) = decisions.iter().find_map(|(key, its)| is_it(its).then_some(*key)) else {
            return Err(Refusal::NoSuchDecision(position).into());
        };
        let stay = self.find_by_key(key)?.map(|found| (found.plate, found.address, found.visit));
        Ok(Effect::Decide(Box::new(ChargeEffect { key, change: DecisionChange::Undo(position), stay })))
    }

    /// A stay that is held for its length, and can be charged as it is.
    fn held(&mut self, charge: &ChargeId) -> Result<FoundCharge, JudgeError> {
        let found = self.found(charge)?;
        match (found.draft.state, &found.visit) {
            (DraftState::Held(HeldBecause::TooLong), Visit::Stay { entry, end: End::Left(exit) }) => {
                match is_billable(exit.at_ms.saturating_sub(entry.at_ms)) {
                    true => Ok(found),
                    false => Err(Refusal::TooLongToBill { charge: charge.clone() }.into()),
                }
            }
            _ => Err(Refusal::NotHeld(charge.clone()).into()),
        }
    }

    fn credited(&mut self, charge: &ChargeId, amount: i64) -> Result<FoundCharge, JudgeError> {
        let found = self.charged(charge)?;
        let left = found.draft.amount.expect("it is charged");
        if amount <= 0 || amount > left.amount.minor() {
            let asked = Money { amount: Amount::of_minor(amount), ..left };
            return Err(Refusal::TooMuch { charge: charge.clone(), left, asked }.into());
        }
        Ok(found)
    }

    /// The charge with an id, if it has a price and is not void.
    fn charged(&mut self, id: &ChargeId) -> Result<FoundCharge, JudgeError> {
        let found = self.found(id)?;
        match found.draft.state {
            DraftState::Void => Err(Refusal::TakenBack(id.clone()).into()),
            _ if found.draft.price.is_none() => Err(Refusal::NotCharged(id.clone()).into()),
            _ => Ok(found),
        }
    }

    fn found(&mut self, id: &ChargeId) -> Result<FoundCharge, JudgeError> {
        Ok(self.find(id)?.ok_or_else(|| Refusal::NoSuchCharge(id.clone()))?)
    }

    fn find(&mut self, id: &ChargeId) -> Result<Option<FoundCharge>, StoreError> {
        let view = self.view;
        match SiteName::new(&id.garage) {
            Ok(name) => self.find_in(view.key_of(&name), key_of(id)),
            Err(_) => Ok(None),
        }
    }

    fn find_by_key(&mut self, key: ChargeKey) -> Result<Option<FoundCharge>, StoreError> {
        let view = self.view;
        for garage in view.garages.keys() {
            if let Some(found) = self.find_in(garage, key)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn find_in(&mut self, garage: &SiteName, key: ChargeKey) -> Result<Option<FoundCharge>, StoreError> {
        self.view.find_charge(self.ledger, garage, key, self.changes)
    }
}

impl View {
    /// The closed stay of a charge, in the garage of a key.
    pub(in crate::server::view) fn find_charge(
        &self,
        ledger: &Ledger,
        garage: &SiteName,
        key: ChargeKey,
        changes: &mut ViewChanges,
    ) -> Result<Option<FoundCharge>, StoreError> {
        let Some(number) = self.garages.get(garage).map(|garage| garage.stays.number) else {
            return Ok(None);
        };
        for site in self.sites_of(garage) {
            let Some((stream, page)) = ledger.page_with(&site, key.epoch, key.sequence)? else {
                continue;
            };
            let Content::Records(records) = &page.page.content else { continue };
            let Some(index) = key.sequence.checked_sub(page.page.first.get()) else { continue };
            let Some(record) = records.get(index as usize) else { continue };
            let read_first =
                Event::from_bytes(&record.payload).ok().and_then(|event| event.kind.plate().cloned());
            let corrected = changes.reading((page.position, (index / 16) as u8), index as u8)?;
            let corrected = corrected.and_then(|plate| Plate::stored(&plate).ok());
            let decided = self.decisions.events.of((key.epoch, key.sequence)).and_then(EventDecisions::plate);
            for plate in decided.into_iter().chain(corrected).chain(read_first) {
                let is_it = |address: SlotAddress, exit: StoredPassage| {
                    address.garage == number
                        && exit.stream() == stream
                        && exit.sequence == key.sequence
                        && exit.is_made().then_some(exit.at_ms) == key.made_at_ms
                };
                let newest = self.stays.newest_of(&plate);
                if let Some((address, visit)) = list::find_stay(newest, plate.as_str(), is_it, changes)? {
                    let draft = self.billing.draft_of(ledger, (&plate, address, &visit), &changes.billing)?;
                    let draft = draft.expect("only closed stays are found");
                    return Ok(Some(FoundCharge { plate, address, visit, draft }));
                }
            }
        }
        Ok(None)
    }
}

fn key_of(id: &ChargeId) -> ChargeKey {
    ChargeKey { epoch: Epoch::from_bytes(id.epoch), sequence: id.sequence, made_at_ms: id.made_at_ms }
}
