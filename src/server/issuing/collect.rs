//! Finds what is due, and keeps it in few bytes until its document is made.

use crate::parking::document::ReadDocument;
use crate::parking::journal::Debtor;
use crate::parking::money::{Amount, Currency, VatBasis};
use crate::parking::register::{Account, ContractName};
use crate::parking::stay::End;
use crate::parking::{Month, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::documents::lines_of;
use crate::server::view::billing::documents;
use crate::server::view::billing::draft::{Draft, DraftState};
use crate::server::view::billing::issued::{Due, IssuedExit, dues};
use crate::server::view::billing::{BillingChanges, UNREGISTERED};
use crate::server::view::list::{StayFilter, list};
use crate::server::view::lookup::written_stay;
use crate::server::view::{FoundStay, SlotAddress, Snapshot, StoredPassage, is_token, page_of};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// How many stays of a plate are read at once.
const STAYS_AT_ONCE: usize = 256;

/// For whom documents are issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueScope {
    AllAccounts,
    Account(Account),
    /// A car that nobody registered.
    Plate(Plate),
}

/// A line of a document to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueStay {
    pub garage: u32,
    pub plate: SmolStr,
    pub entry: StoredPassage,
    pub exit: StoredPassage,
    pub month: Month,
    pub amount: Amount,
    pub vat: Option<VatBasis>,
    pub before: Option<(Amount, u64)>,
    /// `None`: the account pays nothing for the stay at this rate any more.
    pub now: Option<(DraftState, Option<ContractName>)>,
}

impl DueStay {
    /// Whether a document is made for it. A covered stay is only listed beside others.
    fn makes_a_document(&self) -> bool {
        self.amount != Amount::ZERO || !matches!(self.now, Some((DraftState::Covered, _)))
    }
}

/// What is due from one debtor in one currency.
#[derive(Debug, Default)]
pub struct DueBundle {
    bytes: Vec<u8>,
    /// When each stay ended, and where it is in `bytes`.
    order: Vec<(i64, usize)>,
    pub makes_a_document: bool,
}

impl DueBundle {
    fn add(&mut self, stay: &DueStay) {
        self.order.push((stay.exit.at_ms, self.bytes.len()));
        self.bytes = postcard::to_extend(stay, std::mem::take(&mut self.bytes)).expect("it always encodes");
        self.makes_a_document |= stay.makes_a_document();
    }

    /// The stays in the order in which they ended.
    pub fn stays(&self) -> impl Iterator<Item = DueStay> {
        let at = |(_, place): &(i64, usize)| &self.bytes[*place..];
        self.order.iter().map(move |place| postcard::from_bytes(at(place)).expect("it was encoded here"))
    }
}

pub type Bundles = BTreeMap<(Debtor, Currency), DueBundle>;

/// Plates, entries and exits.
type StaysByAddress = BTreeMap<SlotAddress, (SmolStr, (StoredPassage, StoredPassage))>;

pub struct DueCollector<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
    scope: &'a IssueScope,
    through: Month,
    /// Without any change.
    written: BillingChanges,
    bundles: Bundles,
}

impl<'a> DueCollector<'a> {
    /// Collects what is due for stays that ended in the month `through` or before.
    pub fn new(
        view: &'a Snapshot,
        ledger: &'a Ledger,
        scope: &'a IssueScope,
        through: Month,
    ) -> DueCollector<'a> {
        let written = BillingChanges::on(ledger.store());
        DueCollector { view, ledger, scope, through, written, bundles: Bundles::new() }
    }

    /// All that is due, as the written views say it. The caller ensures that they are not written meanwhile.
    pub fn collect(mut self) -> Result<Bundles, StoreError> {
        match self.scope {
            IssueScope::Plate(plate) => self.of_plate(plate)?,
            _ => {
                for (garage, page) in self.written.issued.marked()? {
                    for (slot, visit) in (0u8..).zip(page_of(self.ledger.store(), garage, page)?) {
                        if let Some((plate, visit)) = visit
                            && let Some(ends) = visit.closed()
                        {
                            self.stay(SlotAddress { garage, page, slot }, &plate, ends)?;
                        }
                    }
                }
            }
        }
        for (charge, stay) in self.written.issued.all_withdrawn()? {
            let due = dues(None, &self.written.issued.of(charge)?).unwrap_or_default();
            self.add((stay.garage, &stay.plate), (stay.entry, stay.exit), None, due)?;
        }
        let mut bundles = self.bundles;
        bundles.retain(|_, bundle| bundle.makes_a_document);
        bundles.values_mut().for_each(|bundle| bundle.order.sort_unstable());
        Ok(bundles)
    }

    /// The stays of a car, and those for which documents charged it that are of another car by now.
    fn of_plate(&mut self, plate: &Plate) -> Result<(), StoreError> {
        let mut charged = self.charged_to(plate)?;
        let (open, mut after) = (Some(false), None);
        loop {
            let limit = STAYS_AT_ONCE;
            let wanted = StayFilter { plate: Some(plate.clone()), garage: None, open, after, limit };
            let (_, found) = list(self.ledger.store(), None, &wanted)?;
            for stay in found.stays {
                let End::Left(exit) = stay.end else { continue };
                self.stay(stay.address, &stay.plate, (stay.entry, exit))?;
                charged.remove(&stay.address);
            }
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        charged.into_iter().try_for_each(|(address, (plate, ends))| self.stay(address, &plate, ends))
    }

    /// The stays for which documents charged a car.
    fn charged_to(&self, plate: &Plate) -> Result<StaysByAddress, StoreError> {
        let debtor = Debtor::Plate(plate.clone());
        let mut charged = StaysByAddress::new();
        for row in documents::rows(self.ledger.store(), 1) {
            let row = row?;
            if row.facts.as_ref().is_none_or(|facts| facts.debtor != debtor) {
                continue;
            }
            let file = row.bytes(self.ledger)?;
            let pieces = ReadDocument::from_bytes(&file).map(|read| read.pieces).unwrap_or_default();
            for line in lines_of(&pieces).filter_map(Result::ok) {
                let key = line.reference.long().parse().ok().and_then(|id| self.view.charge_key(&id));
                let found =
                    key.map(|key| written_stay((self.view, self.ledger), &key)).transpose()?.flatten();
                if let Some(FoundStay { plate, address, visit }) = found
                    && let Some(ends) = visit.closed()
                {
                    charged.insert(address, (plate, ends));
                }
            }
        }
        Ok(charged)
    }

    fn stay(
        &mut self,
        address: SlotAddress,
        plate: &SmolStr,
        ends: (StoredPassage, StoredPassage),
    ) -> Result<(), StoreError> {
        let draft = self.view.billing.draft_in(self.ledger, address, plate, ends, &self.written)?;
        let Some(draft) = draft else { return Ok(()) };
        let before = self.written.issued.of(IssuedExit::of(self.ledger, ends.1)?)?;
        let due = dues(Some(&draft), &before).unwrap_or_default();
        self.add((address.garage, plate), ends, Some(&draft), due)
    }

    fn add(
        &mut self,
        (garage, plate): (u32, &SmolStr),
        (entry, exit): (StoredPassage, StoredPassage),
        draft: Option<&Draft>,
        due: Vec<Due>,
    ) -> Result<(), StoreError> {
        for Due { account, amount, vat, month, before } in due {
            let Some(debtor) = self.debtor(&account, plate, before)?.filter(|_| month <= self.through) else {
                continue;
            };
            let is_of_draft = |draft: &&Draft| {
                draft.account == account && (vat.is_none() || draft.vat == vat) && draft.amount.is_some()
            };
            let now = draft.filter(is_of_draft).map(|draft| (draft.state, draft.contract.clone()));
            let amount_due = amount.amount;
            let plate = plate.clone();
            let stay = DueStay { garage, plate, entry, exit, month, amount: amount_due, vat, before, now };
            self.bundles.entry((debtor, amount.currency)).or_default().add(&stay);
        }
        Ok(())
    }

    /// Who pays what is due from an account. `None`: no document is wanted for it.
    fn debtor(
        &self,
        account: &str,
        plate: &str,
        before: Option<(Amount, u64)>,
    ) -> Result<Option<Debtor>, StoreError> {
        Ok(match self.scope {
            IssueScope::Plate(_) if account != UNREGISTERED => None,
            IssueScope::Plate(wanted) => {
                let is_it = match before {
                    // Its document decides: the stay may be another car's by now.
                    Some((_, serial)) => documents::row(self.ledger.store(), serial)?
                        .and_then(|row| row.facts)
                        .is_some_and(|facts| facts.debtor == Debtor::Plate(wanted.clone())),
                    None => !is_token(plate) && wanted.as_str() == plate,
                };
                is_it.then(|| Debtor::Plate(wanted.clone()))
            }
            IssueScope::Account(wanted) => {
                (wanted.as_str() == account).then(|| Debtor::Account(wanted.clone()))
            }
            IssueScope::AllAccounts => Account::new(account).ok().map(Debtor::Account),
        })
    }
}
