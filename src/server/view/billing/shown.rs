//! The part of the books of money that is in memory and shown to readers; see [`super::super::state`].

use super::super::SharedMap;
use super::super::codec::damaged;
use super::super::pages::{SlotAddress, StoredPassage, is_token, page_key};
use super::changes::BillingChanges;
use super::documents::LastDocument;
use super::draft::{Assessor, ClosedStay, Draft};
use super::garages::BilledGarages;
use super::histories::PastStayKey;
use super::places::Place;
use super::rules::BillingRules;
use super::totals::{Sign, Totals};
use crate::parking::Plate;
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use smol_str::SmolStr;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShownBooks {
    pub rules: BillingRules,
    pub garages: BilledGarages,
    accounts: SharedMap<u32, SmolStr>,
    account_numbers: SharedMap<SmolStr, u32>,
    taken: SharedMap<u32, Totals>,
    /// The document that was issued last.
    pub last_document: LastDocument,
    /// The position of the last command by which numbers were resumed; 0: there is none.
    pub numbers_resumed_at: u64,
}

impl ShownBooks {
    pub fn assessor<'a>(&'a self, ledger: &'a Ledger) -> Assessor<'a> {
        Assessor { rules: &self.rules, ledger }
    }

    /// The place that a stay has in its contract.
    pub(in crate::server::view) fn place_of(
        &self,
        plate: &Plate,
        at: PastStayKey,
        changes: &BillingChanges,
    ) -> Result<Place, StoreError> {
        if self.rules.register.plate(plate).is_none_or(|its| its.contracts().is_empty()) {
            return Ok(Place::default());
        }
        Ok(changes.histories.get(plate.as_str(), at)?.map_or_else(Place::default, |past| past.place))
    }

    /// The draft of a closed stay in a slot, written or not; `plate` may be the token that took its place. `None`: the stay is of a
    /// garage that is not known.
    pub fn draft_in(
        &self,
        ledger: &Ledger,
        address: SlotAddress,
        plate: &str,
        (entry, exit): (StoredPassage, StoredPassage),
        changes: &BillingChanges,
    ) -> Result<Option<Draft>, StoreError> {
        if is_token(plate) {
            let stay = changes.frozen.get(address)?;
            return stay.map(|stay| Some(stay.draft)).ok_or_else(|| damaged(b"vbz"));
        }
        let Some(garage) = self.garages.get(address.garage) else { return Ok(None) };
        let plate = &Plate::stored(plate).map_err(|_| damaged(&page_key(address.garage, address.page)))?;
        let place = self.place_of(plate, PastStayKey { entry_ms: entry.at_ms, address }, changes)?;
        self.assessor(ledger).draft(ClosedStay { garage, plate, entry, exit, place }).map(Some)
    }

    pub(super) fn add_account(&mut self, name: SmolStr) -> u32 {
        let number = self.accounts_end();
        self.account_numbers.insert_mut(name.clone(), number);
        self.accounts.insert_mut(number, name);
        number
    }

    pub fn account_name(&self, number: u32) -> Option<&str> {
        self.accounts.get(&number).map(SmolStr::as_str)
    }

    /// The number of an account to which anything was ever charged.
    pub fn account(&self, name: &str) -> Option<u32> {
        self.account_numbers.get(name).copied()
    }

    pub fn accounts_end(&self) -> u32 {
        u32::try_from(self.accounts.size()).expect("there are fewer accounts than people")
    }

    /// What the stays in a garage cost, if one has ended.
    pub fn taken(&self, garage: u32) -> Option<&Totals> {
        self.taken.get(&garage)
    }

    pub(super) fn put_taken(&mut self, garage: u32, taken: Totals) {
        match taken.is_empty() {
            true => _ = self.taken.remove_mut(&garage),
            false => self.taken.insert_mut(garage, taken),
        }
    }

    pub(super) fn take(&mut self, sign: Sign, garage: u32, draft: &Draft) {
        if !self.taken.contains_key(&garage) {
            self.taken.insert_mut(garage, Totals::default());
        }
        let taken = self.taken.get_mut(&garage).expect("it was just put there");
        taken.count(sign, draft);
        if taken.is_empty() {
            self.taken.remove_mut(&garage);
        }
    }
}
