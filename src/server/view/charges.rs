//! Reads the drafts of charges: by plate, by account, by garage and month.
//!
//! **Promise.** A list that is read to its end shows once each charge that existed during the whole reading. No answer looks at more
//! than [`LOOK_AT`] stays: it returns what it has found, and a cursor to continue from.
//! **Not promised.** That a whole list shows one moment: a charge that changes meanwhile is shown as it is when it is read.

use super::billing::documents::{self, DocumentRow, DocumentState};
use super::billing::frozen;
use super::billing::histories::{ALL_TIMES, PastStayKey};
use super::billing::issued::{IssuedBooks, IssuedExit, dues};
use super::billing::receivables::ReceivablesRows;
use super::billing::rules::ChargeKey;
use super::billing::totals::{self, Sign, Totals};
use super::billing::{BillingChanges, Draft, UNREGISTERED};
use super::codec::{damaged, encode, read_range, u32_from};
use super::list::{StayFilter, list_now as list_stays};
use super::lookup::written_stay;
use super::pages::{FoundStay, SlotAddress, StoredPassage, all_visits, page_key, read_page};
use super::state::Snapshot;
use super::written::at_one_position;
use crate::parking::money::{Money, MoneySums};
use crate::parking::register::PlateEntry;
use crate::parking::stay::Visit;
use crate::parking::{Month, Plate};
use crate::server::hex::{hex, unhex};
use crate::server::ledger::Ledger;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Mutex;

/// Maximum number of stays that one answer looks at.
const LOOK_AT: usize = 4_000;
/// How many stays are read at once to look for wanted ones.
const STAYS_AT_ONCE: usize = 256;

/// What to list. `None` filters nothing.
#[derive(Debug, Clone, Default)]
pub struct ChargeFilter {
    pub plate: Option<Plate>,
    pub garage: Option<u32>,
    pub account: Option<String>,
    pub month: Option<Month>,
    pub after: Option<ChargeCursor>,
    pub limit: usize,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChargeCursor {
    Stay(SlotAddress),
    /// Among the stays of an account's plates.
    OfPlate {
        plate: SmolStr,
        entry_ms: i64,
        address: SlotAddress,
    },
    /// Among an account's stays whose plates were forgotten; `None`: from the first on.
    Forgotten(Option<SlotAddress>),
}

impl fmt::Display for ChargeCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&postcard::to_stdvec(self).expect("a cursor always encodes")))
    }
}

impl ChargeCursor {
    pub fn parse(text: &str) -> Option<ChargeCursor> {
        postcard::from_bytes(&unhex(text)?).ok()
    }
}

/// A closed stay and the draft of its charge.
#[derive(Debug, Clone)]
pub struct ListedDraft {
    pub address: SlotAddress,
    /// Or the token that took its place.
    pub plate: SmolStr,
    pub entry: StoredPassage,
    pub exit: StoredPassage,
    pub draft: Draft,
}

#[derive(Debug, Default)]
pub struct ChargeList {
    pub charges: Vec<ListedDraft>,
    /// Where to continue; `None` at the end.
    pub next: Option<ChargeCursor>,
}

/// Lists drafts: those of one plate newest first; those of a registered account plate by plate; else garage by garage, newest first.
/// Gives the position that they show. While `saving` is held the views are not written.
pub fn list(
    (view, ledger): (&Snapshot, &Ledger),
    saving: Option<&Mutex<()>>,
    wanted: &ChargeFilter,
) -> Result<(u64, ChargeList), StoreError> {
    at_one_position(ledger.store(), saving, || {
        let mut search = ChargeSearch::new(view, ledger, wanted, LOOK_AT);
        match (&wanted.plate, wanted.account.as_deref()) {
            (None, Some(account)) if account != UNREGISTERED => search.of_account(account)?,
            _ => search.of_stays()?,
        }
        Ok(search.list)
    })
}

struct ChargeSearch<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
    wanted: &'a ChargeFilter,
    /// Without any change.
    written: BillingChanges,
    look_at: usize,
    list: ChargeList,
}

impl<'a> ChargeSearch<'a> {
    fn new(
        view: &'a Snapshot,
        ledger: &'a Ledger,
        wanted: &'a ChargeFilter,
        look_at: usize,
    ) -> ChargeSearch<'a> {
        let written = BillingChanges::on(ledger.store());
        ChargeSearch { view, ledger, wanted, written, look_at, list: ChargeList::default() }
    }

    /// Whether the answer may look at one more stay.
    fn goes_on(&mut self) -> bool {
        let goes_on = self.look_at > 0 && self.list.charges.len() < self.wanted.limit;
        self.look_at = self.look_at.saturating_sub(1);
        goes_on
    }

    fn add(
        &mut self,
        address: SlotAddress,
        plate: SmolStr,
        visit: &Visit<StoredPassage>,
    ) -> Result<(), StoreError> {
        let Some((entry, exit)) = visit.closed() else { return Ok(()) };
        let billing = &self.view.billing;
        let draft = billing.draft_in(self.ledger, address, &plate, (entry, exit), &self.written)?;
        let Some(draft) = draft else { return Ok(()) };
        let ChargeFilter { garage, account, month, .. } = self.wanted;
        if garage.is_none_or(|garage| garage == address.garage)
            && account.as_ref().is_none_or(|account| **account == *draft.account)
            && month.is_none_or(|month| month == draft.month)
        {
            self.list.charges.push(ListedDraft { address, plate, entry, exit, draft });
        }
        Ok(())
    }

    fn of_stays(&mut self) -> Result<(), StoreError> {
        let mut after = match self.wanted.after {
            Some(ChargeCursor::Stay(after)) => Some(after),
            _ => None,
        };
        loop {
            let wanted = StayFilter {
                plate: self.wanted.plate.clone(),
                garage: self.wanted.garage,
                open: Some(false),
                after,
                limit: STAYS_AT_ONCE,
            };
            let stays = list_stays(self.ledger.store(), &wanted, self.look_at.max(1))?;
            for stay in stays.stays {
                if !self.goes_on() {
                    self.list.next = after.map(ChargeCursor::Stay);
                    return Ok(());
                }
                after = Some(stay.address);
                self.add(stay.address, stay.plate, &Visit::Stay { entry: stay.entry, end: stay.end })?;
            }
            match stays.next {
                Some(next) if self.goes_on() => after = Some(next),
                next => {
                    self.list.next = next.map(ChargeCursor::Stay);
                    return Ok(());
                }
            }
        }
    }

    fn of_account(&mut self, account: &str) -> Result<(), StoreError> {
        let plates = match &self.wanted.after {
            Some(ChargeCursor::Forgotten(_)) => Vec::new(),
            Some(ChargeCursor::OfPlate { plate, .. }) => plates_of(self.view, account, Some(plate)),
            _ => plates_of(self.view, account, None),
        };
        for plate in plates {
            let mut stays = self.written.histories.of_plate(plate.as_str(), ALL_TIMES)?;
            if let Some(ChargeCursor::OfPlate { plate: last, entry_ms, address }) = &self.wanted.after
                && **last == *plate.as_str()
            {
                stays.retain(|(at, _)| *at < PastStayKey { entry_ms: *entry_ms, address: *address });
            }
            for (at, past) in stays.into_iter().rev() {
                self.add(
                    at.address,
                    plate.as_str().into(),
                    &Visit::Stay { entry: past.entry, end: past.end },
                )?;
                if !self.goes_on() {
                    let (plate, PastStayKey { entry_ms, address }) = (plate.as_str().into(), at);
                    self.list.next = Some(ChargeCursor::OfPlate { plate, entry_ms, address });
                    return Ok(());
                }
            }
        }
        let mut after = match self.wanted.after {
            Some(ChargeCursor::Forgotten(after)) => after,
            _ => None,
        };
        let store = self.ledger.store();
        for address in frozen::slots_of(store, account, after) {
            if !self.goes_on() {
                self.list.next = Some(ChargeCursor::Forgotten(after));
                return Ok(());
            }
            let address = address?;
            let slots = read_page(store, address.garage, address.page)?;
            let slot = slots.get(usize::from(address.slot)).and_then(|slot| slot.visit.as_ref());
            let (token, visit) = slot.ok_or_else(|| damaged(&page_key(address.garage, address.page)))?;
            self.add(address, token.clone(), visit)?;
            after = Some(address);
        }
        Ok(())
    }
}

/// The closed stay of a charge and its draft, as the views are written.
pub fn listed_charge(
    (view, ledger): (&Snapshot, &Ledger),
    key: &ChargeKey,
) -> Result<Option<ListedDraft>, StoreError> {
    let Some(FoundStay { plate, address, visit }) = written_stay((view, ledger), key)? else {
        return Ok(None);
    };
    let Some((entry, exit)) = visit.closed() else { return Ok(None) };
    let written = BillingChanges::on(ledger.store());
    let draft = view.billing.draft_in(ledger, address, &plate, (entry, exit), &written)?;
    Ok(draft.map(|draft| ListedDraft { address, plate, entry, exit, draft }))
}

/// The plates that are or were registered to an account, or named by a contract of it, from one on.
fn plates_of(view: &Snapshot, account: &str, from: Option<&SmolStr>) -> Vec<Plate> {
    let register = &view.billing.rules.register;
    let from = from.and_then(|plate| Plate::stored(plate).ok());
    let is_of = |entry: &PlateEntry| {
        entry.holders.list().iter().any(|held| held.account.as_str() == account)
            || entry.contracts().iter().any(|line| {
                let version = register.contract(&line.contract).and_then(|its| its.version(line.dates));
                version.is_some_and(|version| version.account.as_str() == account)
            })
    };
    let from = from.as_ref().map_or(Bound::Unbounded, Bound::Included);
    let plates = register.plates().range::<Plate, _>((from, Bound::Unbounded));
    plates.filter(|(_, entry)| is_of(entry)).map(|(plate, _)| plate.clone()).collect()
}

/// What all drafts add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DraftSums {
    /// How many stays have a price.
    pub drafts: u64,
    /// What they cost after credits and voids, by currency.
    pub amounts: Vec<Money>,
    /// What they cost more than documents have charged, by currency, without what a person must decide first.
    pub due: Vec<Money>,
}

/// Computes all drafts as the written views say them, and reports the stored totals that differ.
pub fn check_totals(
    (view, ledger): (&Snapshot, &Ledger),
    wrong: &mut dyn FnMut(String, String),
) -> Result<DraftSums, StoreError> {
    let store = ledger.store();
    let written = BillingChanges::on(store);
    let mut months: BTreeMap<(u32, Month), Totals> = BTreeMap::new();
    let mut garages: BTreeMap<u32, Totals> = BTreeMap::new();
    let mut days: BTreeMap<Vec<u8>, Totals> = BTreeMap::new();
    let mut all = Totals::default();
    let mut due = MoneySums::default();
    let mut add_dues = |draft: Option<&Draft>, charge: IssuedExit| {
        let before =
            if view.billing.last_document.serial == 0 { Vec::new() } else { written.issued.of(charge)? };
        dues(draft, &before).into_iter().flatten().for_each(|its| due.add(its.amount));
        Ok::<_, StoreError>(())
    };
    for found in all_visits(store) {
        let (address, (plate, visit)) = found?;
        let Some(ends) = visit.closed() else { continue };
        let draft = view.billing.draft_in(ledger, address, &plate, ends, &written)?;
        let draft = draft.ok_or_else(|| damaged(&page_key(address.garage, address.page)))?;
        match view.billing.account(&draft.account) {
            Some(account) => months.entry((account, draft.month)).or_default().count(Sign::Add, &draft),
            None => wrong(format!("the account {:?}", draft.account), "it is missing".into()),
        }
        garages.entry(address.garage).or_default().count(Sign::Add, &draft);
        let day = totals::day_key(address.garage, ends.1.date());
        days.entry(day).or_default().count(Sign::Add, &draft);
        all.count(Sign::Add, &draft);
        add_dues(Some(&draft), IssuedExit::of(ledger, ends.1)?)?;
    }
    for (charge, _) in written.issued.all_withdrawn()? {
        add_dues(None, charge)?;
    }
    let differs = || "the drafts of its stays add up to something else".to_owned();
    for entry in read_range::<Totals>(store, b"vbm", b"vbn") {
        let (key, kept) = entry?;
        let (account, month) = totals::of_month_key(&key)?;
        if months.remove(&(account, month)).as_ref() != Some(&kept) {
            wrong(format!("the totals of account number {account} for {month}"), differs());
        }
    }
    for (account, month) in months.into_keys() {
        wrong(format!("the totals of account number {account} for {month}"), "they are missing".into());
    }
    for entry in read_range::<Totals>(store, b"vbg", b"vbh") {
        let (key, kept) = entry?;
        let garage = u32_from(&key, 3)?;
        if garages.remove(&garage).as_ref() != Some(&kept) {
            wrong(format!("the totals of garage number {garage}"), differs());
        }
    }
    for garage in garages.into_keys() {
        wrong(format!("the totals of garage number {garage}"), "they are missing".into());
    }
    for entry in read_range::<Totals>(store, b"vbr", b"vbs") {
        let (key, kept) = entry?;
        if days.remove(&key[..]).as_ref() != Some(&kept) {
            wrong(format!("the totals of a day of garage number {}", u32_from(&key, 3)?), differs());
        }
    }
    for key in days.into_keys() {
        let garage = u32_from(&key, 3)?;
        wrong(format!("the totals of a day of garage number {garage}"), "they are missing".into());
    }
    let drafts = all.sums.iter().map(|sum| sum.stays).sum();
    Ok(DraftSums { drafts, amounts: all.by_currency(), due: due.list() })
}

/// Writes what the stays of each garage and day cost, for views that a base without them began.
pub fn write_days((view, ledger): (&Snapshot, &Ledger), store: &Store) -> Result<(), StoreError> {
    let written = BillingChanges::on(store);
    let mut days: BTreeMap<Vec<u8>, Totals> = BTreeMap::new();
    for found in all_visits(store) {
        let (address, (plate, visit)) = found?;
        let Some(ends) = visit.closed() else { continue };
        let draft = view.billing.draft_in(ledger, address, &plate, ends, &written)?;
        let draft = draft.ok_or_else(|| damaged(&page_key(address.garage, address.page)))?;
        let day = totals::day_key(address.garage, ends.1.date());
        days.entry(day).or_default().count(Sign::Add, &draft);
    }
    let days: Vec<_> = days.into_iter().collect();
    for part in days.chunks(BATCH_MAX / 2) {
        let mut batch = Batch::default();
        part.iter().for_each(|(key, totals)| batch.put(key.clone(), encode(totals)));
        store.apply(&batch)?;
    }
    Ok(())
}

/// What documents add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DocumentSums {
    /// How many were issued.
    pub documents: u64,
    /// What they charge less what they give back, by currency, without those that were never read.
    pub issued: Vec<Money>,
}

/// Adds up the documents as the written views say them, and reports where their totals are not what their lines charge.
pub fn check_documents(
    store: &Store,
    wrong: &mut dyn FnMut(String, String),
) -> Result<DocumentSums, StoreError> {
    let books = ReceivablesRows::on(store);
    let (mut documents, mut all, mut of_lines) = (0, MoneySums::default(), MoneySums::default());
    for row in documents::rows(store, 1) {
        let DocumentRow { serial, state, .. } = row?;
        if matches!(state, DocumentState::Lost { .. }) {
            continue;
        }
        documents += 1;
        // The lines of one that cannot be read are not known.
        let is_read = state == DocumentState::Issued;
        match books.read(|books| books.document(serial))? {
            Some(document) => {
                let total = Money { amount: document.total, currency: document.currency };
                all.add(total);
                if is_read {
                    of_lines.add(total);
                }
            }
            None if is_read => {
                wrong(format!("document {serial} of the series"), "nothing says what of it is paid".into());
            }
            None => {}
        }
    }
    if IssuedBooks::on(store).charged()?.list() != of_lines.list() {
        let what = "they are not what all documents charge together";
        wrong("the amounts that were issued for stays".into(), what.into());
    }
    Ok(DocumentSums { documents, issued: all.list() })
}
