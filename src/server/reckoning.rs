//! Turns drafts of charges into lines of lists and of documents. See [`super::books`].
//!
//! The breakdown of a price is not stored. It is computed from the entry, the exit and the tariff.

use super::ledger::Ledger;
use super::record::Record;
use super::view::billing::CLOCKS_DIFFER_MS;
use super::view::billing::draft::{Assessor, DraftState, HeldBecause, WaitsFor};
use super::view::billing::issued::{IssuedBooks, IssuedExit, dues};
use super::view::billing::rules::{ChargeDecision, Decided};
use super::view::charges::ListedDraft;
use super::view::{Snapshot, StoredPassage, is_token};
use crate::parking::ChargeId;
use crate::parking::document::{DocumentLine, LineAmount, LineCar, LineCorrection, LineReference};
use crate::parking::event::Moment;
use crate::parking::money::{Amount, Currency, Money, VatRate, as_percent};
use crate::parking::tariff::{BreakdownLine, Priced, Tariff};
use crate::store::StoreError;
use serde::Serialize;
use smol_str::SmolStr;

/// The draft of a charge, as `GET /v1/charges` shows it. Amounts are in minor units.
#[derive(Debug, Serialize)]
pub struct ChargeLine {
    pub id: String,
    pub garage: String,
    pub plate: String,
    pub account: String,
    pub entered_at: String,
    pub left_at: String,
    pub month: String,
    /// `charged`, `covered`, `waiting`, `held`, `void`, or `withdrawn`: issued, and the stay no longer exists.
    pub state: &'static str,
    /// By the tariff.
    pub price: Option<Amount>,
    /// After credits and voids.
    pub amount: Option<Amount>,
    pub currency: Option<Currency>,
    /// What documents have charged.
    pub issued: Amount,
    /// What the next document charges; null while a person must decide.
    pub due: Option<Amount>,
    #[serde(serialize_with = "as_percent")]
    pub vat_percent: Option<VatRate>,
    pub tariff: Option<String>,
    pub contract: Option<String>,
    pub note: Option<String>,
    pub position: u64,
    pub breakdown: Vec<BreakdownLine>,
}

pub struct Reckoner<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
}

/// A stay with what is needed to describe it.
struct Described<'a> {
    tariff: Option<&'a Tariff>,
    priced: Option<Priced<'a>>,
}

impl<'a> Reckoner<'a> {
    pub fn new(view: &'a Snapshot, ledger: &'a Ledger) -> Reckoner<'a> {
        Reckoner { view, ledger }
    }

    fn assessor(&self) -> Assessor<'a> {
        self.view.billing.assessor(self.ledger)
    }

    pub fn charge_id(&self, garage: u32, exit: StoredPassage) -> Result<ChargeId, StoreError> {
        Ok(ChargeId {
            garage: self.view.key_of_number(garage).map(ToString::to_string).unwrap_or_default(),
            epoch: self.ledger.epoch_of(exit.stream())?.to_bytes(),
            sequence: exit.sequence,
            made_at_ms: exit.made_at_ms(),
        })
    }

    /// What was decided about the charge of a stay in a garage, in the order of the ledger.
    pub fn decisions(&self, garage: u32, exit: StoredPassage) -> Result<&'a [ChargeDecision], StoreError> {
        match self.view.billing.garages.get(garage) {
            Some(garage) => self.assessor().decisions(garage, exit),
            None => Ok(&[]),
        }
    }

    fn describe(&self, charge: &ListedDraft) -> Described<'a> {
        let garage = self.view.billing.garages.get(charge.address.garage);
        let tariff = garage.and_then(|garage| self.assessor().tariff(garage, charge.entry));
        let is_priced = matches!(charge.draft.state, DraftState::Charged | DraftState::Void);
        let ends = charge.entry.timestamp().zip(charge.exit.timestamp());
        let priced = tariff.zip(ends).filter(|_| is_priced);
        let priced = priced.and_then(|(tariff, (entry, exit))| tariff.price(entry, exit.max(entry)).ok());
        Described { tariff, priced }
    }

    /// A moment with the offset of the garage's local time, where a tariff knows it.
    fn moment(tariff: Option<&Tariff>, passage: StoredPassage) -> Moment {
        let told = Moment::from_ms(passage.at_ms, passage.offset_minutes);
        match tariff {
            Some(tariff) => Moment { offset: tariff.time_zone.to_offset(told.timestamp), ..told },
            None => told,
        }
    }

    /// What people decided about a charge, in the order of the ledger, with their reasons.
    fn decided(&self, charge: &ListedDraft) -> Result<Vec<String>, StoreError> {
        let mut notes = Vec::new();
        for decision in self.decisions(charge.address.garage, charge.exit)? {
            let record = self.ledger.record_at(decision.position)?;
            let Some(Record::Command { command, .. }) = record else { continue };
            let reason = command.reason().unwrap_or_default();
            notes.extend(match (decision.what, charge.draft.price) {
                (Decided::Void, Some(_)) => Some(format!("void: {reason}")),
                (Decided::Credit(amount), Some(price)) => {
                    Some(format!("{} given back: {reason}", Money { amount, ..price }))
                }
                _ => None,
            });
        }
        Ok(notes)
    }

    /// What else explains what a stay costs.
    fn note(&self, charge: &ListedDraft, described: &Described<'_>) -> Option<String> {
        let contract = charge.draft.contract.as_ref().map(|name| name.as_str());
        let lasted_ms = charge.exit.at_ms.saturating_sub(charge.entry.at_ms);
        Some(match (charge.draft.state, contract) {
            (DraftState::Covered, Some(contract)) => format!("covered by the contract {contract}"),
            (DraftState::Charged | DraftState::Void, Some(contract)) => format!(
                "one car too many for the contract {contract}: as many of its cars as it allows were inside already"
            ),
            (DraftState::Charged | DraftState::Void, None) if (-CLOCKS_DIFFER_MS..0).contains(&lasted_ms) => {
                "the exit is earlier than the entry by a little: two clocks differ, and the stay has no length".into()
            }
            (DraftState::Charged | DraftState::Void | DraftState::Covered, None) => {
                return described.priced.as_ref().and_then(Priced::free_because);
            }
            (DraftState::Waiting(WaitsFor::Tariff), _) => "no tariff has a price for it yet".into(),
            (DraftState::Waiting(WaitsFor::Calendar), _) => {
                let ends = charge.entry.timestamp().zip(charge.exit.timestamp());
                let (tariff, (entry, exit)) = described.tariff.zip(ends)?;
                format!("it has no price yet: {}", tariff.price(entry, exit.max(entry)).err()?)
            }
            (DraftState::Held(HeldBecause::EndsBeforeItBegins), _) => {
                "it ended before it began and is not charged; \"server stays close\" sets another end".into()
            }
            (DraftState::Held(HeldBecause::TooLong), _) => {
                "it is longer than 30 days and is not charged; \"server stays bill\" charges it, \"server stays split\" divides it".into()
            }
            (DraftState::Held(HeldBecause::PlaceUndecided), _) => format!(
                "whether the contract {} has a place for it depends on another of its cars, which is still inside",
                contract.unwrap_or_default()
            ),
        })
    }

    /// The draft of a charge, and what was issued for it to its account.
    pub fn line(&self, charge: &ListedDraft, issued: &IssuedBooks) -> Result<ChargeLine, StoreError> {
        let draft = &charge.draft;
        let described = self.describe(charge);
        let tariff = described.tariff;
        let amounts = issued.of(IssuedExit::of(self.ledger, charge.exit)?)?;
        let to_account = amounts.iter().filter(|its| its.account == draft.account);
        let due = dues(Some(draft), &amounts).map(|dues| {
            let of_account = dues.iter().filter(|due| due.account == draft.account);
            of_account.fold(Amount::ZERO, |sum, due| sum.saturating_add(due.amount.amount))
        });
        Ok(ChargeLine {
            id: self.charge_id(charge.address.garage, charge.exit)?.to_string(),
            garage: self.view.name_of_number(charge.address.garage),
            plate: charge.plate.to_string(),
            account: draft.account.to_string(),
            entered_at: Self::moment(tariff, charge.entry).to_string(),
            left_at: Self::moment(tariff, charge.exit).to_string(),
            month: draft.month.to_string(),
            state: draft.state.name(),
            price: draft.price.map(|price| price.amount),
            amount: draft.amount.map(|amount| amount.amount),
            currency: draft.price.map(|price| price.currency),
            issued: to_account.fold(Amount::ZERO, |sum, its| sum.saturating_add(its.amount.amount)),
            due,
            vat_percent: draft.vat.as_ref().and_then(|vat| vat.rate()),
            tariff: tariff.map(|tariff| tariff.name.clone()),
            contract: draft.contract.as_ref().map(ToString::to_string),
            note: self.note(charge, &described),
            position: charge.exit.position,
            breakdown: described.priced.map(|its| its.breakdown()).unwrap_or_default(),
        })
    }

    /// A line of a document about a stay.
    pub fn document_line(
        &self,
        charge: &ListedDraft,
        amount: LineAmount,
        correction: Option<LineCorrection>,
    ) -> Result<DocumentLine, StoreError> {
        let described = self.describe(charge);
        let tariff = described.tariff;
        let plate = charge.plate.clone();
        let steps = described.priced.as_ref().map(Priced::breakdown);
        let notes = self
            .note(charge, &described)
            .into_iter()
            .chain(self.decided(charge)?)
            .map(SmolStr::from)
            .collect();
        Ok(DocumentLine {
            reference: LineReference::from(&self.charge_id(charge.address.garage, charge.exit)?),
            garage: self.view.name_of_number(charge.address.garage).into(),
            car: if is_token(&plate) { LineCar::Token(plate) } else { LineCar::Plate(plate) },
            entry: Self::moment(tariff, charge.entry),
            exit: Self::moment(tariff, charge.exit),
            month: charge.draft.month,
            tariff: tariff
                .filter(|_| charge.draft.state != DraftState::Covered)
                .map(|its| SmolStr::from(&its.name)),
            steps: steps.iter().flatten().map(Into::into).collect(),
            notes,
            amount,
            correction,
        })
    }
}
