//! What documents have charged for each stay, and which stays the next documents are about.
//!
//! **Promise.** What is due for a charge is its draft minus what was issued, for each account, currency and VAT rate. A stay for which
//! an account has something due is in a page that is marked, or, if it no longer exists, among the withdrawn ones. A stay whose events
//! the ledger does not have is in neither: nothing is due for it until they arrive.
//! **Kept by.** Marks follow each change of a draft, as totals do. Charges are named by what facts say, not by numbers of this ledger:
//! documents that were imported may name stays that are delivered later.
//!
//! | key | value |
//! | --- | --- |
//! | `vbx` + epoch (16 bytes) + sequence / 64 (u64) | the [`IssuedLine`]s about exits with these sequences |
//! | `vbq` + garage (u32) + page (u32) | how many stays of the page have something due (u32) |
//! | `vbw` + epoch (16 bytes) + sequence (u64), and time (u64) of an exit that was made | a [`WithdrawnStay`] |

use super::super::codec::{encode, key_u64, read, read_range, sized};
use super::super::pages::StoredPassage;
use super::super::unwritten::Unwritten;
use super::documents::{self, DocumentFacts};
use super::draft::{Draft, DraftState, UNREGISTERED};
use super::totals::Sign;
use crate::messaging::Epoch;
use crate::parking::Month;
use crate::parking::money::{Amount, Currency, Money, MoneySums, VatBasis};
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use super::exits::{ExitId, IssuedExit};

/// How many sequences share a page.
const SEQUENCES_IN_A_PAGE: u64 = 64;
/// How many documents are remembered.
const DOCUMENTS_MAX: usize = 4_096;

/// What all documents together have charged for a stay to one account, in one currency, at one VAT rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedAmount {
    pub account: SmolStr,
    pub amount: Money,
    /// `None`: nothing was charged, the stay was only listed.
    pub vat: Option<VatBasis>,
    pub month: Month,
    /// The serial of the latest document about it.
    pub document: u64,
}

/// What a line of a document charges.
#[derive(Debug, Clone, Copy)]
pub struct LineOfCharge {
    pub charge: IssuedExit,
    pub amount: Amount,
    /// Its place in the document's rates.
    pub rate: Option<u16>,
    pub month: Month,
}

/// An [`IssuedAmount`] as it is kept: in some ten bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct IssuedLine {
    /// The place of the exit's sequence in its page.
    place: u8,
    made_at_ms: Option<i64>,
    amount: Amount,
    rate: Option<u16>,
    month: Month,
    /// Its account, its currency and its rates are those of the line.
    document: u64,
}

impl IssuedLine {
    fn is_about(&self, charge: &IssuedExit) -> bool {
        (u64::from(self.place), self.made_at_ms) == (charge.sequence % SEQUENCES_IN_A_PAGE, charge.made_at_ms)
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
    if issued.is_empty() && draft.is_none_or(|draft| draft.account == UNREGISTERED) {
        return false;
    }
    dues(draft, issued).is_some_and(|dues| dues.iter().any(|due| due.account != UNREGISTERED))
}

/// The exits whose lines are kept together.
type LinesPage = (Epoch, u64);

fn page_of(charge: &IssuedExit) -> LinesPage {
    (charge.epoch, charge.sequence / SEQUENCES_IN_A_PAGE)
}

fn lines_key((epoch, number): LinesPage) -> Vec<u8> {
    key_u64(&[b"vbx", &epoch.to_bytes()[..]].concat(), number)
}

fn marks_key(garage: u32, page: u32) -> Vec<u8> {
    [b"vbq", &garage.to_be_bytes()[..], &page.to_be_bytes()].concat()
}

fn withdrawn_key(charge: &IssuedExit) -> Vec<u8> {
    charge.key(b"vbw")
}

/// What was issued, as written, with the changes that are not written yet.
#[derive(Debug)]
pub struct IssuedBooks {
    store: Store,
    lines: BTreeMap<LinesPage, Vec<IssuedLine>>,
    /// Documents that are not written yet.
    new_documents: BTreeMap<u64, Arc<DocumentFacts>>,
    marks: Unwritten<u32>,
    withdrawn: Unwritten<WithdrawnStay>,
    /// What was read last: the next stay is often of the same page.
    last_page: RefCell<Option<(LinesPage, Arc<[IssuedLine]>)>>,
    documents: RefCell<HashMap<u64, Arc<DocumentFacts>>>,
}

impl IssuedBooks {
    pub fn on(store: &Store) -> IssuedBooks {
        IssuedBooks {
            store: store.clone(),
            lines: BTreeMap::new(),
            new_documents: BTreeMap::new(),
            marks: Unwritten::on(store),
            withdrawn: Unwritten::on(store),
            last_page: RefCell::default(),
            documents: RefCell::default(),
        }
    }

    pub fn writes(&self) -> usize {
        self.lines.len() + self.marks.writes() + self.withdrawn.writes()
    }

    /// The lines of a page that is not changed.
    fn written(&self, page: LinesPage) -> Result<Arc<[IssuedLine]>, StoreError> {
        let mut last = self.last_page.borrow_mut();
        if let Some((_, lines)) = last.as_ref().filter(|(its, _)| *its == page) {
            return Ok(Arc::clone(lines));
        }
        let lines: Vec<IssuedLine> = read(&self.store, &lines_key(page))?.unwrap_or_default();
        Ok(Arc::clone(&last.insert((page, lines.into())).1))
    }

    fn document(&self, serial: u64) -> Result<Arc<DocumentFacts>, StoreError> {
        let mut known = self.documents.borrow_mut();
        if let Some(facts) = self.new_documents.get(&serial).or_else(|| known.get(&serial)) {
            return Ok(Arc::clone(facts));
        }
        let row = documents::row(&self.store, serial)?;
        let facts = row.and_then(|row| row.facts).ok_or_else(|| documents::damaged_row(serial))?;
        if known.len() >= DOCUMENTS_MAX {
            known.clear();
        }
        Ok(Arc::clone(known.entry(serial).or_insert(facts.into())))
    }

    /// What all lines together have charged, as it is written.
    pub fn charged(&self) -> Result<MoneySums, StoreError> {
        let mut charged = MoneySums::default();
        for entry in read_range::<Vec<IssuedLine>>(&self.store, b"vbx", b"vby") {
            for IssuedLine { amount, document, .. } in entry?.1 {
                charged.add(Money { amount, currency: self.document(document)?.currency });
            }
        }
        Ok(charged)
    }

    fn lines_about(&self, charge: &IssuedExit) -> Result<Vec<IssuedLine>, StoreError> {
        let about = |lines: &[IssuedLine]| lines.iter().filter(|its| its.is_about(charge)).copied().collect();
        let page = page_of(charge);
        match self.lines.get(&page) {
            Some(changed) => Ok(about(changed)),
            None => Ok(about(&self.written(page)?)),
        }
    }

    /// What was issued for a stay.
    pub fn of(&self, charge: IssuedExit) -> Result<Vec<IssuedAmount>, StoreError> {
        let amount_of = |IssuedLine { amount, rate, month, document, .. }| {
            let facts = self.document(document)?;
            let amount = Money { amount, currency: facts.currency };
            let (account, vat) = (facts.debtor.name().into(), facts.rate(rate).cloned());
            Ok(IssuedAmount { account, amount, vat, month, document })
        };
        self.lines_about(&charge)?.into_iter().map(amount_of).collect()
    }

    /// Adds what the lines of a document charge. They are about each stay once at each rate.
    pub fn add(
        &mut self,
        document: u64,
        facts: DocumentFacts,
        lines: impl IntoIterator<Item = LineOfCharge>,
    ) -> Result<(), StoreError> {
        let facts = Arc::new(facts);
        self.new_documents.insert(document, Arc::clone(&facts));
        for LineOfCharge { charge, amount, rate, month } in lines {
            let page = page_of(&charge);
            if !self.lines.contains_key(&page) {
                let written = self.written(page)?.to_vec();
                self.lines.insert(page, written);
            }
            let mut same = None;
            for (index, its) in self.lines[&page].iter().enumerate().filter(|(_, its)| its.is_about(&charge))
            {
                let before = self.document(its.document)?;
                if (before.debtor.name(), before.currency, before.rate(its.rate))
                    == (facts.debtor.name(), facts.currency, facts.rate(rate))
                {
                    same = Some(index);
                }
            }
            let lines = self.lines.get_mut(&page).expect("it was just put there");
            match same.map(|index| &mut lines[index]) {
                Some(its) => {
                    its.amount = its.amount.saturating_add(amount);
                    if its.document < document {
                        (its.document, its.rate) = (document, rate);
                    }
                }
                None => {
                    let (place, made_at_ms) =
                        ((charge.sequence % SEQUENCES_IN_A_PAGE) as u8, charge.made_at_ms);
                    lines.push(IssuedLine { place, made_at_ms, amount, rate, month, document });
                }
            }
        }
        Ok(())
    }

    /// How many lines of documents with these serials, first and last, are the latest about a stay.
    pub fn lines_of(&self, charge: IssuedExit, (first, last): (u64, u64)) -> Result<u64, StoreError> {
        let lines = self.lines_about(&charge)?;
        Ok(lines.iter().filter(|its| (first..=last).contains(&its.document)).count() as u64)
    }

    /// One more stay of a page has something due, or one less.
    pub fn mark(&mut self, sign: Sign, garage: u32, page: u32) -> Result<(), StoreError> {
        self.marks.change(marks_key(garage, page), |count| match sign {
            Sign::Add => *count += 1,
            Sign::Subtract => *count = count.saturating_sub(1),
        })
    }

    pub fn set_marks(&mut self, garage: u32, page: u32, count: u32) {
        self.marks.put(marks_key(garage, page), (count > 0).then_some(count));
    }

    /// The pages with stays that have something due, in order.
    pub fn marked(&self) -> Result<Vec<(u32, u32)>, StoreError> {
        let page = |(key, _): (Vec<u8>, u32)| {
            let [garage, page] = [3..7, 7..11].map(|part| sized(&key, part).map(u32::from_be_bytes));
            Ok((garage?, page?))
        };
        self.marks.range(b"vbq", b"vbr")?.into_iter().map(page).collect()
    }

    pub fn withdraw(&mut self, charge: IssuedExit, stay: WithdrawnStay) {
        self.withdrawn.put(withdrawn_key(&charge), Some(stay));
    }

    pub fn is_withdrawn(&self, charge: &IssuedExit) -> Result<bool, StoreError> {
        Ok(self.withdrawn.get(&withdrawn_key(charge))?.is_some())
    }

    /// The stay of a charge exists again.
    pub fn restore(&mut self, charge: IssuedExit) -> Result<(), StoreError> {
        if self.is_withdrawn(&charge)? {
            self.is_settled(charge);
        }
        Ok(())
    }

    /// Nothing of a withdrawn stay is left to be given back.
    pub fn is_settled(&mut self, charge: IssuedExit) {
        self.withdrawn.put(withdrawn_key(&charge), None);
    }

    /// The stays that documents charged and that no longer exist, with their charges.
    pub fn all_withdrawn(&self) -> Result<Vec<(IssuedExit, WithdrawnStay)>, StoreError> {
        let all = self.withdrawn.range(b"vbw", b"vbx")?;
        all.into_iter().map(|(key, stay)| Ok((IssuedExit::read(&key, 3)?, stay))).collect()
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        self.new_documents.clear();
        self.last_page.take();
        for (page, lines) in std::mem::take(&mut self.lines) {
            batch.put(lines_key(page), encode(&lines));
        }
        self.marks.drain(batch);
        self.withdrawn.drain(batch);
    }
}
