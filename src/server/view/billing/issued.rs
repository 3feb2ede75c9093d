//! What documents have charged for each stay, and which stays the next documents are about.
//!
//! **Promise.** What is due for a charge is its draft minus what was issued, for each account, currency and VAT rate. A stay for which
//! an account has something due is in a page that is marked, or, if it no longer exists, among the withdrawn ones.
//! **Kept by.** Marks follow each change of a draft, as totals do.
//!
//! | key | value |
//! | --- | --- |
//! | `vbx` + stream (u32) + sequence / 8 (u64) | the [`IssuedAmount`]s of exits with these sequences |
//! | `vbq` + garage (u32) + page (u32) | how many stays of the page have something due (u32) |
//! | `vbw` + stream (u32) + sequence (u64), and time (u64) of an exit that was made | a [`WithdrawnStay`] |

use super::super::codec::{damaged, decode, encode, read, sized};
use super::super::pages::StoredPassage;
use super::draft::{Draft, DraftState, UNREGISTERED};
use crate::parking::Month;
use crate::parking::money::{Amount, Currency, Money, VatBasis};
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// What all documents together have charged for a stay to one account, in one currency, at one VAT rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedAmount {
    pub exit: ExitId,
    pub account: SmolStr,
    pub amount: Money,
    /// `None`: nothing was charged, the stay was only listed.
    pub vat: Option<VatBasis>,
    pub month: Month,
    /// The serial of the latest document about it.
    pub document: u64,
}

/// The exit of a stay as this ledger's views name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExitId {
    pub stream: u32,
    pub sequence: u64,
    pub made_at_ms: Option<i64>,
}

impl ExitId {
    pub fn of(exit: StoredPassage) -> ExitId {
        let made_at_ms = exit.is_made().then_some(exit.at_ms);
        ExitId { stream: exit.stream(), sequence: exit.sequence, made_at_ms }
    }
}

/// A stay that documents charged and that no longer exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnStay {
    pub garage: u32,
    pub plate: SmolStr,
    pub entry: StoredPassage,
    pub exit: StoredPassage,
}

/// Something due for a charge: an amount to be charged, or, if negative, to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub account: SmolStr,
    pub amount: Money,
    /// `None`: nothing is charged, the stay is only listed.
    pub vat: Option<VatBasis>,
    /// The month of supply.
    pub month: Month,
    /// What documents have charged at the rate so far, and the latest that names the stay. `None`: the stay stands on no document of the
    /// account in the currency yet.
    pub before: Option<(Amount, u64)>,
}

/// What is due for a charge, by its draft (`None`: the stay no longer exists) and by what was issued. `None`: a person must decide first.
pub fn dues(draft: Option<&Draft>, issued: &[IssuedAmount]) -> Option<Vec<Due>> {
    let latest = |account: &str, currency: Currency| {
        let same = issued.iter().filter(|its| its.account == account && its.amount.currency == currency);
        same.map(|its| its.document).max()
    };
    let mut dues: Vec<Due> = Vec::new();
    for its in issued {
        let amount = Money { amount: its.amount.amount.negated(), ..its.amount };
        let latest = latest(&its.account, its.amount.currency).unwrap_or(its.document);
        let (account, vat) = (its.account.clone(), its.vat.clone());
        dues.push(Due { account, amount, vat, month: its.month, before: Some((its.amount.amount, latest)) });
    }
    if let Some(draft) = draft {
        let amount = draft.amount?;
        let vat = draft.vat.clone().filter(|_| amount.amount != Amount::ZERO);
        let before = latest(&draft.account, amount.currency).map(|document| (Amount::ZERO, document));
        let is_its = |due: &&mut Due| {
            due.account == draft.account && due.amount.currency == amount.currency && due.vat == vat
        };
        match dues.iter_mut().find(is_its) {
            Some(due) => due.amount.amount = due.amount.amount.saturating_add(amount.amount),
            // A stay that was voided before any document was made is on none.
            None if draft.state == DraftState::Void => {}
            None => {
                let (account, month) = (draft.account.clone(), draft.month);
                dues.push(Due { account, amount, vat, month, before });
            }
        }
    }
    dues.retain(|due| due.amount.amount != Amount::ZERO || due.before.is_none());
    Some(dues)
}

/// Whether the next documents of accounts are about a charge. What cars owe that nobody registered is only billed on request.
pub fn is_due(draft: Option<&Draft>, issued: &[IssuedAmount]) -> bool {
    dues(draft, issued).is_some_and(|dues| dues.iter().any(|due| due.account != UNREGISTERED))
}

fn amounts_key(exit: ExitId) -> Vec<u8> {
    [b"vbx", &exit.stream.to_be_bytes()[..], &(exit.sequence / 8).to_be_bytes()].concat()
}

fn marks_key(garage: u32, page: u32) -> Vec<u8> {
    [b"vbq", &garage.to_be_bytes()[..], &page.to_be_bytes()].concat()
}

fn withdrawn_key(exit: ExitId) -> Vec<u8> {
    let mut key = [b"vbw", &exit.stream.to_be_bytes()[..], &exit.sequence.to_be_bytes()].concat();
    key.extend(exit.made_at_ms.iter().flat_map(|at_ms| at_ms.to_be_bytes()));
    key
}

/// What was issued, as written, with the changes that are not written yet.
#[derive(Debug)]
pub struct IssuedBooks {
    store: Store,
    amounts: BTreeMap<Vec<u8>, Vec<IssuedAmount>>,
    marks: BTreeMap<(u32, u32), u32>,
    withdrawn: BTreeMap<ExitId, Option<WithdrawnStay>>,
}

impl IssuedBooks {
    pub fn on(store: &Store) -> IssuedBooks {
        IssuedBooks {
            store: store.clone(),
            amounts: BTreeMap::new(),
            marks: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
        }
    }

    pub fn writes(&self) -> usize {
        self.amounts.len() + self.marks.len() + self.withdrawn.len()
    }

    fn page(&self, exit: ExitId) -> Result<Vec<IssuedAmount>, StoreError> {
        let key = amounts_key(exit);
        match self.amounts.get(&key) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(read(&self.store, &key)?.unwrap_or_default()),
        }
    }

    /// What was issued for a stay.
    pub fn of(&self, exit: ExitId) -> Result<Vec<IssuedAmount>, StoreError> {
        let mut amounts = self.page(exit)?;
        amounts.retain(|its| its.exit == exit);
        Ok(amounts)
    }

    /// Adds what a line of a document charges.
    pub fn add(&mut self, line: IssuedAmount) -> Result<(), StoreError> {
        let mut amounts = self.page(line.exit)?;
        let is_its = |its: &&mut IssuedAmount| {
            its.exit == line.exit
                && its.account == line.account
                && its.amount.currency == line.amount.currency
                && its.vat == line.vat
        };
        let key = amounts_key(line.exit);
        match amounts.iter_mut().find(is_its) {
            Some(its) => {
                its.amount.amount = its.amount.amount.saturating_add(line.amount.amount);
                its.document = line.document;
            }
            None => amounts.push(line),
        }
        self.amounts.insert(key, amounts);
        Ok(())
    }

    fn mark_mut(&mut self, garage: u32, page: u32) -> Result<&mut u32, StoreError> {
        if !self.marks.contains_key(&(garage, page)) {
            let known = read(&self.store, &marks_key(garage, page))?.unwrap_or_default();
            self.marks.insert((garage, page), known);
        }
        Ok(self.marks.get_mut(&(garage, page)).expect("it was just put there"))
    }

    pub fn mark(&mut self, garage: u32, page: u32) -> Result<(), StoreError> {
        *self.mark_mut(garage, page)? += 1;
        Ok(())
    }

    pub fn unmark(&mut self, garage: u32, page: u32) -> Result<(), StoreError> {
        let count = self.mark_mut(garage, page)?;
        *count = count.saturating_sub(1);
        Ok(())
    }

    pub fn set_marks(&mut self, garage: u32, page: u32, count: u32) {
        self.marks.insert((garage, page), count);
    }

    /// The pages with stays that have something due, in order.
    pub fn marked(&self) -> Result<Vec<(u32, u32)>, StoreError> {
        let mut pages = BTreeMap::new();
        for entry in self.store.range(b"vbq", b"vbr") {
            let (key, _) = entry?;
            let [garage, page] = [3..7, 7..11].map(|part| sized(&key, part).map(u32::from_be_bytes));
            pages.insert((garage?, page?), 1);
        }
        pages.extend(self.marks.iter().map(|(page, count)| (*page, *count)));
        Ok(pages.into_iter().filter(|(_, count)| *count > 0).map(|(page, _)| page).collect())
    }

    pub fn withdraw(&mut self, exit: ExitId, stay: WithdrawnStay) {
        self.withdrawn.insert(exit, Some(stay));
    }

    /// The stay of an exit exists again.
    pub fn restore(&mut self, exit: ExitId) -> Result<(), StoreError> {
        let is_withdrawn = match self.withdrawn.get(&exit) {
            Some(changed) => changed.is_some(),
            None => self.store.get(&withdrawn_key(exit))?.is_some(),
        };
        if is_withdrawn {
            self.withdrawn.insert(exit, None);
        }
        Ok(())
    }

    /// Nothing of a withdrawn stay is left to be given back.
    pub fn is_settled(&mut self, exit: ExitId) {
        self.withdrawn.insert(exit, None);
    }

    /// The stays that documents charged and that no longer exist, with their exits.
    pub fn all_withdrawn(&self) -> Result<Vec<(ExitId, WithdrawnStay)>, StoreError> {
        let mut all = BTreeMap::new();
        for entry in self.store.range(b"vbw", b"vbx") {
            let (key, value) = entry?;
            let stay: WithdrawnStay = decode(&key, &value)?;
            let exit = ExitId::of(stay.exit);
            if key != withdrawn_key(exit) {
                return Err(damaged(&key));
            }
            all.insert(exit, Some(stay));
        }
        all.extend(self.withdrawn.iter().map(|(exit, stay)| (*exit, stay.clone())));
        Ok(all.into_iter().filter_map(|(exit, stay)| Some((exit, stay?))).collect())
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        for (key, amounts) in std::mem::take(&mut self.amounts) {
            batch.put(key, encode(&amounts));
        }
        for ((garage, page), count) in std::mem::take(&mut self.marks) {
            let key = marks_key(garage, page);
            if count == 0 { batch.remove(key) } else { batch.put(key, encode(&count)) }
        }
        for (exit, stay) in std::mem::take(&mut self.withdrawn) {
            match stay {
                Some(stay) => batch.put(withdrawn_key(exit), encode(&stay)),
                None => batch.remove(withdrawn_key(exit)),
            }
        }
    }
}
