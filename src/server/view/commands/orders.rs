//! What operators' decisions about charges, and their lists, would do.

use super::{CommandJudge, Effect, Judging};
use crate::parking::money::{Amount, Money};
use crate::parking::stay::{End, Visit};
use crate::parking::{ChargeId, Plate};
use crate::server::record::Command;
use crate::server::view::billing::DecisionChange;
use crate::server::view::billing::draft::{Draft, DraftState, HeldBecause, is_billable};
use crate::server::view::billing::rules::{ChargeDecision, ChargeKey, Decided};
use crate::server::view::codec::damaged;
use crate::server::view::issues::RecordedIssue;
use crate::server::view::pages::FoundStay;
use crate::server::view::refusal::{JudgeError, Refusal};
use crate::server::view::state::View;
use crate::store::StoreError;

/// How many numbers are recorded as lost at once: a typing error cannot be taken back.
const LOST_AT_ONCE: u64 = 10_000;

/// A closed stay by the id of its charge.
#[derive(Debug)]
struct FoundCharge {
    stay: FoundStay,
    draft: Draft,
}

/// What is decided about a charge, and its stay if the ledger has it.
#[derive(Debug)]
pub(super) struct ChargeEffect {
    pub key: ChargeKey,
    pub change: DecisionChange,
    pub stay: Option<FoundStay>,
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
        let (position, at_ms) = (self.position, self.at_ms);
        let change = DecisionChange::Decide(ChargeDecision { position, at_ms, what });
        let key = self.view.charge_key(charge).ok_or_else(|| Refusal::NoSuchCharge(charge.clone()))?;
        Ok(Effect::Decide(Box::new(ChargeEffect { key, change, stay: found.map(|found| found.stay) })))
    }

    /// The decision that the command at a position made, to be taken back.
    fn undone(&mut self, position: u64) -> Result<Effect, JudgeError> {
        if let Some(event) = self.view.decisions.events.find(position) {
            return Ok(Effect::UndoEvent { event, decision: position });
        }
        let Some(key) = self.view.billing.rules.decisions.find(position) else {
            return Err(Refusal::NoSuchDecision(position).into());
        };
        let stay = self.find_by_key(&key)?.map(|found| found.stay);
        Ok(Effect::Decide(Box::new(ChargeEffect { key, change: DecisionChange::Undo(position), stay })))
    }

    /// A stay that is held for its length, and can be charged as it is.
    fn held(&mut self, charge: &ChargeId) -> Result<FoundCharge, JudgeError> {
        let found = self.found(charge)?;
        match (found.draft.state, &found.stay.visit) {
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
        self.view.charge_key(id).map_or(Ok(None), |key| self.find_by_key(&key))
    }

    fn find_by_key(&mut self, key: &ChargeKey) -> Result<Option<FoundCharge>, StoreError> {
        let View { stays, billing, .. } = self.view;
        let newest = |plate: &Plate| Ok(stays.newest_of(plate));
        let Some(stay) = self.view.stay_of(self.ledger, key, newest, self.changes)? else { return Ok(None) };
        let ends = stay.visit.closed().expect("only closed stays are found");
        let draft = billing.draft_in(self.ledger, stay.address, &stay.plate, ends, &self.changes.billing)?;
        let draft = draft.ok_or_else(|| damaged(b"vg"))?;
        Ok(Some(FoundCharge { stay, draft }))
    }
}
