//! Lists entries. They are read as last written, at most a second behind.
//!
//! **Promise.** A list that is read to its end shows once each entry that existed during the whole reading, newest first.
//! **Kept by.** A cursor is the number of an entry. A list reads one plate's chain, one month of one account, or all entries from
//! the newest on. Of all entries, it looks at [`LOOK_AT`] at most before it returns what it has found, with a cursor to continue
//! from.

use super::super::chains::{ChainHeads, PlateChain, walk};
use super::super::codec::{LastPage, damaged, read_range, u32_from, u64_from};
use super::super::pages::is_token;
use super::super::written::at_one_position;
use super::entries::{self, BillingEntry, EntryKind, EntryNumber, MonthBook, link, place};
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::parking::tariff::{Money, VatRate};
use crate::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// How many entries a list looks at before it answers with what it has found.
const LOOK_AT: usize = 50_000;

/// What to list. `None` filters nothing.
#[derive(Debug, Clone, Default)]
pub struct EntryFilter {
    pub plate: Option<Plate>,
    pub garage: Option<u32>,
    pub account: Option<u32>,
    pub month: Option<Month>,
    pub after: Option<EntryNumber>,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    pub number: EntryNumber,
    pub entry: BillingEntry,
    /// The charge that is voided or credited; the entry itself when it is one.
    pub about: BillingEntry,
}

#[derive(Debug, Default)]
pub struct EntryList {
    pub entries: Vec<ListedEntry>,
    /// Where to continue; `None` at the end.
    pub next: Option<EntryNumber>,
}

pub struct EntryReader<'a> {
    store: &'a Store,
    last_read: LastPage<u64, BillingEntry>,
}

impl<'a> EntryReader<'a> {
    pub fn new(store: &'a Store) -> EntryReader<'a> {
        EntryReader { store, last_read: LastPage::default() }
    }

    pub fn page(&mut self, page: u64) -> Result<&[BillingEntry], StoreError> {
        self.last_read.get(page, || entries::read_page(self.store, page))
    }

    pub fn entry(&mut self, number: EntryNumber) -> Result<Option<BillingEntry>, StoreError> {
        if number == 0 {
            return Ok(None);
        }
        let (page, place) = place(number);
        Ok(self.page(page)?.get(place).cloned())
    }

    fn known(&mut self, number: EntryNumber) -> Result<BillingEntry, StoreError> {
        self.entry(number)?.ok_or_else(|| damaged(&entries::page_key(place(number).0)))
    }

    fn listed(&mut self, number: EntryNumber, entry: BillingEntry) -> Result<ListedEntry, StoreError> {
        let about = match &entry.what {
            EntryKind::Stay(_) => entry.clone(),
            EntryKind::Void { of, .. } | EntryKind::Credit { of, .. } => self.known(*of)?,
        };
        Ok(ListedEntry { number, entry, about })
    }

    /// Entries of the chain of an account's month, from `newest` on, at most `limit`.
    pub fn of_month(&mut self, newest: EntryNumber, limit: usize) -> Result<Vec<ListedEntry>, StoreError> {
        let chain = walk(link(newest), |number| {
            let entry = self.known(number)?;
            let before = link(entry.before_in_month);
            Ok((self.listed(number, entry)?, before))
        });
        chain.take(limit).map(|found| found.map(|(_, listed)| listed)).collect()
    }

    /// The entry before this one in the order of all entries; the newest one when no entry is given.
    pub fn before(&mut self, number: Option<EntryNumber>) -> Result<Option<EntryNumber>, StoreError> {
        if number == Some(0) {
            return Ok(None);
        }
        let page = match number.map(place) {
            Some((_, slot @ 1..)) => return Ok(number.filter(|_| slot > 0).map(|number| number - 1)),
            Some((page, _)) => page.checked_sub(1),
            None => self.store.last(b"vbe", b"vbf")?.map(|(key, _)| u64_from(&key, 3)).transpose()?,
        };
        let Some(page) = page else { return Ok(None) };
        let entries = self.page(page)?.len();
        Ok(entries.checked_sub(1).map(|last| entries::number(page, last)))
    }
}

/// Lists entries, newest first, and gives the position that they show. While `saving` is held the views are not written.
pub fn list(
    store: &Store,
    saving: Option<&Mutex<()>>,
    wanted: &EntryFilter,
) -> Result<(u64, EntryList), StoreError> {
    at_one_position(store, saving, || list_now(store, wanted))
}

fn list_now(store: &Store, wanted: &EntryFilter) -> Result<EntryList, StoreError> {
    let mut list = EntryList::default();
    let mut reader = EntryReader::new(store);
    let matches = |listed: &ListedEntry| {
        let EntryKind::Stay(stay) = &listed.about.what else { return false };
        wanted.plate.as_ref().is_none_or(|plate| *plate.as_str() == *stay.plate)
            && wanted.garage.is_none_or(|garage| garage == stay.garage)
            && wanted.account.is_none_or(|account| account == listed.entry.account)
            && wanted.month.is_none_or(|month| month == listed.entry.month)
    };
    let of_month = wanted.account.zip(wanted.month).filter(|_| wanted.plate.is_none());
    let newest = match (&wanted.plate, of_month, wanted.after) {
        (Some(plate), _, None) => link(ChainHeads::<EntryNumber>::read(store, PlateChain::of(plate))?),
        (Some(_), _, Some(after)) => reader.entry(after)?.and_then(|entry| link(entry.before_of_plate)),
        (None, Some((account, month)), None) => {
            entries::read_month(store, account, month)?.and_then(|book| link(book.last))
        }
        (None, Some(_), Some(after)) => reader.entry(after)?.and_then(|entry| link(entry.before_in_month)),
        (None, None, after) => reader.before(after)?,
    };
    let chain = walk(newest, |number| {
        let Some(entry) = reader.entry(number)? else { return Ok((None, None)) };
        let before = match (&wanted.plate, of_month) {
            (Some(_), _) => link(entry.before_of_plate),
            (None, Some(_)) => link(entry.before_in_month),
            (None, None) => reader.before(Some(number))?,
        };
        Ok((Some(reader.listed(number, entry)?), before))
    });
    let mut last = None;
    for (looked_at, found) in chain.enumerate() {
        let (number, Some(listed)) = found? else { break };
        if looked_at == LOOK_AT || list.entries.len() == wanted.limit {
            // Whether more entries match is only known when somebody asks for them.
            list.next = last;
            break;
        }
        last = Some(number);
        if matches(&listed) {
            list.entries.push(listed);
        }
    }
    Ok(list)
}

pub fn months(store: &Store) -> Result<BTreeSet<Month>, StoreError> {
    let months = store.range(b"vbm", b"vbn").map(|entry| Ok(entries::of_month_key(&entry?.0)?.1));
    months.collect()
}

pub const PRICED_AT_ONCE: u64 = 4096;

/// The next range of numbers, from `from` on, that begins with a stay that waits for a price, as last written.
pub fn pending(store: &Store, from: EntryNumber) -> Result<Option<(EntryNumber, EntryNumber)>, StoreError> {
    let waits = |entry: &BillingEntry| {
        entry.settled_by == 0 && matches!(&entry.what, EntryKind::Stay(stay) if stay.terms.waits())
    };
    stretch(store, from, PRICED_AT_ONCE, waits)
}

/// Maximum number of entries that one command forgets: readers see older data while it is applied.
pub const FORGOTTEN_AT_ONCE: u64 = 256;

/// The next range of numbers, from `from` on, that begins with a charge for a month before this one that names its plate.
pub fn to_forget(
    store: &Store,
    from: EntryNumber,
    before: Month,
) -> Result<Option<(EntryNumber, EntryNumber)>, StoreError> {
    let names = |entry: &BillingEntry| {
        entry.month < before
            && entry.is_done()
            && matches!(&entry.what, EntryKind::Stay(stay) if !is_token(&stay.plate))
    };
    stretch(store, from, FORGOTTEN_AT_ONCE, names)
}

/// The next range of this many numbers, from `from` on, that begins with a wanted entry.
fn stretch(
    store: &Store,
    from: EntryNumber,
    numbers: u64,
    wanted: impl Fn(&BillingEntry) -> bool,
) -> Result<Option<(EntryNumber, EntryNumber)>, StoreError> {
    let (page, _) = place(from.max(1));
    for entry in read_range::<Vec<BillingEntry>>(store, &entries::page_key(page), b"vbf") {
        let (key, found) = entry?;
        let page = u64_from(&key, 3)?;
        for (slot, entry) in found.iter().enumerate() {
            let number = entries::number(page, slot);
            if number >= from && wanted(entry) {
                return Ok(Some((number, number + numbers)));
            }
        }
    }
    Ok(None)
}

/// Adds up all entries as written, and reports the stored sums that differ.
pub fn check_sums(store: &Store, wrong: &mut dyn FnMut(String, String)) -> Result<(), StoreError> {
    type Sums = BTreeMap<(&'static str, Option<VatRate>), i128>;
    let mut months: BTreeMap<(u32, Month), (u64, Sums)> = BTreeMap::new();
    let mut garages: BTreeMap<u32, BTreeMap<&'static str, i128>> = BTreeMap::new();
    let mut reader = EntryReader::new(store);
    for entry in read_range::<Vec<BillingEntry>>(store, b"vbe", b"vbf") {
        let (key, page) = entry?;
        for entry in page {
            let (count, sums) = months.entry((entry.account, entry.month)).or_default();
            *count += 1;
            let Some((money, vat)) = entry.money() else { continue };
            let (code, minor) = (money.currency.code(), i128::from(money.amount.minor()));
            *sums.entry((code, vat)).or_default() += minor;
            let garage = match &entry.what {
                EntryKind::Stay(stay) => stay.garage,
                EntryKind::Void { of, .. } | EntryKind::Credit { of, .. } => match reader.known(*of)?.what {
                    EntryKind::Stay(stay) => stay.garage,
                    _ => return Err(damaged(&key)),
                },
            };
            *garages.entry(garage).or_default().entry(code).or_default() += minor;
        }
    }
    for entry in read_range::<MonthBook>(store, b"vbm", b"vbn") {
        let (key, book) = entry?;
        let (account, month) = entries::of_month_key(&key)?;
        let kept: Sums = book
            .totals
            .iter()
            .map(|(money, vat)| ((money.currency.code(), *vat), i128::from(money.amount.minor())))
            .collect();
        let added = months.remove(&(account, month)).unwrap_or_default();
        if added != (book.entries, kept) {
            let place = format!("the sums of account number {account} for {month}");
            wrong(place, "its entries add up to something else".into());
        }
    }
    for (account, month) in months.into_keys() {
        wrong(format!("the sums of account number {account} for {month}"), "they are missing".into());
    }
    for entry in read_range::<Vec<Money>>(store, b"vbg", b"vbh") {
        let (key, taken) = entry?;
        let garage = u32_from(&key, 3)?;
        let kept: BTreeMap<&'static str, i128> =
            taken.iter().map(|money| (money.currency.code(), i128::from(money.amount.minor()))).collect();
        if garages.remove(&garage).unwrap_or_default() != kept {
            let place = format!("what was taken in garage number {garage}");
            wrong(place, "its entries add up to something else".into());
        }
    }
    for garage in garages.into_keys() {
        wrong(format!("what was taken in garage number {garage}"), "it is missing".into());
    }
    Ok(())
}
