//! What a closed stay costs by all that is known: the draft of its charge.
//!
//! **Promise.** A draft is a function of the stay, the [`BillingRules`], and the [`Place`] that the stay has in its contract. It depends
//! neither on the order in which these became known nor on what was computed before.
//! **Kept by.** [`Assessor::draft`] is the only function that says what a stay costs, whether totals are kept, a list is shown, or a
//! document is issued.

use super::super::pages::StoredPassage;
use super::anomalies::AnomalyCode;
use super::exits::IssuedExit;
use super::garages::BilledGarage;
use super::places::Place;
use super::rules::{BillingRules, ChargeDecision, ChargeKey, Decided};
use crate::parking::Month;
use crate::parking::Plate;
use crate::parking::money::{Amount, Money, VatBasis};
use crate::parking::register::{Account, ContractName};
use crate::parking::tariff::{CalendarIncomplete, Tariff};
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A longer stay is on hold until a person has looked.
pub const LONGEST_MS: i64 = 30 * 24 * 3_600_000;
/// A longer stay is never billed, even if a person confirmed it: no car stays ten years, and pricing takes time for each day.
pub const LONGEST_BILLED_DAYS: i64 = 3_660;
/// By how much an exit may be earlier than its entry because two clocks differ; such a stay counts as zero minutes long.
pub const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;
/// The account of cars that nobody has registered.
pub const UNREGISTERED: &str = Account::UNREGISTERED;

/// A stay that has ended.
#[derive(Debug, Clone, Copy)]
pub struct ClosedStay<'a> {
    pub garage: &'a BilledGarage,
    pub plate: &'a Plate,
    pub entry: StoredPassage,
    pub exit: StoredPassage,
    /// Of a stay that a contract names; of others it means nothing.
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub account: SmolStr,
    /// The contract that names the car, whether it covers the stay or not.
    pub contract: Option<ContractName>,
    /// Of its exit, by the local date.
    pub month: Month,
    pub state: DraftState,
    /// By the tariff; zero where a contract covers the stay. `None`: it has no price.
    pub price: Option<Money>,
    /// What is to be paid, after credits and voids.
    pub amount: Option<Money>,
    /// At the local date of the exit. `None`: it has no price.
    pub vat: Option<VatBasis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DraftState {
    Charged,
    Covered,
    /// An operator voided it.
    Void,
    Waiting(WaitsFor),
    Held(HeldBecause),
}

/// What a stay without a price waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitsFor {
    Tariff,
    /// The calendar of its tariff does not say whether a day of the stay is a holiday.
    Calendar,
}

/// Why a person must decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldBecause {
    /// It ended before it began, by more than clocks may differ.
    EndsBeforeItBegins,
    TooLong,
    /// Whether its contract has a place for it depends on a car that is still inside.
    PlaceUndecided,
}

impl DraftState {
    /// As `GET /v1/charges` says it.
    pub fn name(self) -> &'static str {
        match self {
            DraftState::Charged => "charged",
            DraftState::Covered => "covered",
            DraftState::Void => "void",
            DraftState::Waiting(_) => "waiting",
            DraftState::Held(_) => "held",
        }
    }
}

/// What drafts follow from, beside the stays.
#[derive(Clone, Copy)]
pub struct Assessor<'a> {
    pub rules: &'a BillingRules,
    pub ledger: &'a Ledger,
}

impl<'a> Assessor<'a> {
    pub fn tariff(self, garage: &BilledGarage, entry: StoredPassage) -> Option<&'a Tariff> {
        self.rules.tariff_for(garage, entry.timestamp()?)
    }

    /// What was decided about the charge of a stay, in the order of the ledger.
    pub fn decisions(
        self,
        garage: &BilledGarage,
        exit: StoredPassage,
    ) -> Result<&'a [ChargeDecision], StoreError> {
        if self.rules.decisions.is_empty() {
            return Ok(&[]);
        }
        let exit = IssuedExit::of(self.ledger, exit)?;
        Ok(self.rules.decisions.of(&ChargeKey { garage: garage.key.clone(), exit }))
    }

    pub fn draft(self, stay: ClosedStay<'_>) -> Result<Draft, StoreError> {
        let ClosedStay { garage, plate, entry, exit, place } = stay;
        let tariff = self.tariff(garage, entry);
        let entered_on = self.rules.date(tariff, entry);
        let named = self.rules.register.contract_of(plate, |name| garage.is_called(name), entered_on);
        let account = match named {
            Some(named) => Some(&named.version.account),
            None => self.rules.register.holder(plate, entered_on),
        };
        let account = account.map_or(SmolStr::new_static(UNREGISTERED), |account| account.as_str().into());
        self.assess_by(
            tariff,
            (account, named.map(|named| named.contract.clone())),
            garage,
            (entry, exit),
            place,
        )
    }

    /// The draft of a stay whose account, contract and place are known.
    pub fn assess(
        self,
        payer: (SmolStr, Option<ContractName>),
        garage: &BilledGarage,
        (entry, exit): (StoredPassage, StoredPassage),
        place: Place,
    ) -> Result<Draft, StoreError> {
        self.assess_by(self.tariff(garage, entry), payer, garage, (entry, exit), place)
    }

    fn assess_by(
        self,
        tariff: Option<&Tariff>,
        (account, contract): (SmolStr, Option<ContractName>),
        garage: &BilledGarage,
        (entry, exit): (StoredPassage, StoredPassage),
        place: Place,
    ) -> Result<Draft, StoreError> {
        let left_on = self.rules.date(tariff, exit);
        let place = contract.as_ref().map(|_| place);
        let mut draft = Draft {
            account,
            contract,
            // A month of a year before 0 does not exist: such a stay is far too long, and on hold.
            month: Month::of(left_on).unwrap_or(Month::EPOCH),
            state: DraftState::Waiting(WaitsFor::Tariff),
            price: None,
            amount: None,
            vat: None,
        };
        let lasted_ms = exit.at_ms.saturating_sub(entry.at_ms);
        if lasted_ms < -CLOCKS_DIFFER_MS {
            draft.state = DraftState::Held(HeldBecause::EndsBeforeItBegins);
            return Ok(draft);
        }
        let decisions = self.decisions(garage, exit)?;
        let is_billed = decisions.iter().any(|decision| decision.what == Decided::Bill);
        let is_too_long = lasted_ms > LONGEST_MS && !(is_billed && is_billable(lasted_ms));
        if is_too_long {
            draft.state = DraftState::Held(HeldBecause::TooLong);
            return Ok(draft);
        }
        let (Some(tariff), Some(begins), Some(ends)) = (tariff, entry.timestamp(), exit.timestamp()) else {
            return Ok(draft);
        };
        match place {
            Some(Place::Covered) => {
                draft.state = DraftState::Covered;
                draft.put_price(Amount::ZERO, tariff, left_on);
                return Ok(draft);
            }
            Some(Place::Waits) => {
                draft.state = DraftState::Held(HeldBecause::PlaceUndecided);
                return Ok(draft);
            }
            Some(Place::OneTooMany) | None => {}
        }
        match tariff.amount(begins, ends.max(begins)) {
            Ok(amount) => {
                draft.state = DraftState::Charged;
                draft.put_price(amount, tariff, left_on);
                draft.decide(decisions);
            }
            Err(CalendarIncomplete { .. }) => draft.state = DraftState::Waiting(WaitsFor::Calendar),
        }
        Ok(draft)
    }

    /// What of the stay does not add up.
    pub fn anomalies(self, stay: ClosedStay<'_>, draft: &Draft) -> Vec<AnomalyCode> {
        let ClosedStay { garage, plate, entry, exit, .. } = stay;
        let lasted_ms = exit.at_ms.saturating_sub(entry.at_ms);
        let mut codes = Vec::new();
        if (-CLOCKS_DIFFER_MS..0).contains(&lasted_ms) {
            codes.push(AnomalyCode::ClockSkew);
        }
        codes.extend(draft.anomaly());
        if draft.contract.is_some() {
            let entered_on = self.rules.date(self.tariff(garage, entry), entry);
            let holder = self.rules.register.holder(plate, entered_on);
            if holder.is_some_and(|holder| holder.as_str() != draft.account) {
                codes.push(AnomalyCode::OtherAccountInContract);
            }
        }
        codes
    }
}

/// Whether a person may let a stay of this length be charged.
pub fn is_billable(lasted_ms: i64) -> bool {
    lasted_ms <= LONGEST_BILLED_DAYS * 24 * 3_600_000
}

impl Draft {
    fn put_price(&mut self, amount: Amount, tariff: &Tariff, left_on: Date) {
        let price = Some(Money { amount, currency: tariff.currency });
        (self.price, self.amount, self.vat) = (price, price, Some(tariff.vat_basis_on(left_on)));
    }

    /// Why it has no price.
    pub fn anomaly(&self) -> Option<AnomalyCode> {
        Some(match self.state {
            DraftState::Held(HeldBecause::EndsBeforeItBegins) => AnomalyCode::ExitBeforeEntry,
            DraftState::Held(HeldBecause::TooLong) => AnomalyCode::StayOver30Days,
            DraftState::Held(HeldBecause::PlaceUndecided) => AnomalyCode::PlaceUndecided,
            DraftState::Waiting(WaitsFor::Tariff) => AnomalyCode::NoTariff,
            DraftState::Waiting(WaitsFor::Calendar) => AnomalyCode::CalendarIncomplete,
            DraftState::Charged | DraftState::Covered | DraftState::Void => return None,
        })
    }

    /// The same price after other decisions.
    pub fn decided_again(&self, decisions: &[ChargeDecision]) -> Draft {
        let mut draft = Draft { amount: self.price, ..self.clone() };
        if draft.state != DraftState::Covered {
            draft.state = DraftState::Charged;
            draft.decide(decisions);
        }
        draft
    }

    /// What decisions leave of the price: never less than nothing.
    fn decide(&mut self, decisions: &[ChargeDecision]) {
        let Some(amount) = &mut self.amount else { return };
        for decision in decisions {
            match decision.what {
                Decided::Void => {
                    self.state = DraftState::Void;
                    amount.amount = Amount::ZERO;
                }
                Decided::Credit(credit) => amount.amount = amount.amount.less_at_most(credit),
                Decided::Bill => {}
            }
        }
    }

    /// What the totals of its account count: nothing while it has no price.
    pub fn money(&self) -> Option<(Money, &VatBasis)> {
        self.amount.zip(self.vat.as_ref())
    }

    /// The decisions that change nothing of the charge, as it is: what they ask for it has not, or has already.
    pub fn without_effect<'d>(
        &self,
        lasted_ms: i64,
        decisions: &'d [ChargeDecision],
    ) -> Vec<&'d ChargeDecision> {
        let mut left = self.price.filter(|_| self.state != DraftState::Covered).map(|price| price.amount);
        let (mut is_void, mut is_billed) = (false, !(lasted_ms > LONGEST_MS && is_billable(lasted_ms)));
        let mut acts = |decision: &ChargeDecision| match (decision.what, left) {
            (Decided::Bill, _) => !std::mem::replace(&mut is_billed, true),
            (_, None) => false,
            (Decided::Void, Some(_)) => {
                left = Some(Amount::ZERO);
                !std::mem::replace(&mut is_void, true)
            }
            (Decided::Credit(credit), Some(amount)) => {
                left = Some(amount.less_at_most(credit));
                !is_void && credit <= amount
            }
        };
        decisions.iter().filter(|decision| !acts(decision)).collect()
    }
}
