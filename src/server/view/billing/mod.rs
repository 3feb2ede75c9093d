//! What stays cost: entries that follow from closed stays and from what operators put in force. No entry is ever removed.
//!
//! **Promise.** Every closed stay has one entry that no later entry voided or priced: a charge, a stay that waits for a price, or
//! one that is held because it does not add up. A charge never changes; what corrects it is a further entry. The sum of an
//! account's month is the sum of its entries.
//! **Kept by.** [`Billing::closed`] and [`Billing::undone`] are called for every stay that closes or changes. [`Billing::rate`]
//! decides what a stay costs, from what is in force at that position, and the entry stores the result.
//! **Not promised.** That the breakdown of a price is stored: it follows from the entry, the exit and the tariff set, and is computed when it is shown.
//!
//! | key | value |
//! | --- | --- |
//! | `vbe` `vbi` `vba` `vbm` | the entries and what finds them: see [`entries`] |
//! | `vbo` | what is in force: see [`terms`] |
//! | `vbg` + garage (u32) | what was taken there, less what was given back, by currency |
//! | `vbn` + code (u8) + garage (u32) + plate | an [`Anomaly`](anomalies::Anomaly) |

pub mod anomalies;
mod changes;
pub mod entries;
pub mod list;
mod shown;
pub mod terms;
#[cfg(test)]
mod tests;

pub use changes::BillingChanges;
pub use shown::ShownBooks;

use super::chains::{ChainHeads, PlateChain, walk};
use super::codec::{damaged, encode, key_u32, read_range, u32_from, u64_from};
use super::pages::{Cover, StoredPassage};
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::parking::tariff::{Amount, Money};
use crate::server::ledger::Ledger;
use crate::store::{Batch, Store, StoreError};
use anomalies::AnomalyCode;
use entries::{
    AccountBook, BilledStay, BillingEntry, EntryKind, EntryNumber, HeldBecause, Terms, VoidedBecause, link,
};
use jiff::tz::TimeZone;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use terms::{InForce, InForceChange};

/// A longer stay is held until a person has looked.
pub const LONGEST_DAYS: i64 = 30;
/// By how much an exit may be earlier than its entry because two clocks differ; such a stay counts as zero minutes long.
pub const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;
pub const UNREGISTERED: &str = "unregistered";
/// How many writes a closed stay may add: its account, its month, an anomaly.
pub const WRITES_OF_A_STAY: usize = 3;

#[derive(Debug, Clone, Copy)]
pub struct BilledGarage<'a> {
    pub number: u32,
    pub called: &'a str,
}

#[derive(Debug, Clone, Copy)]
pub struct ClosedStay<'a> {
    pub garage: BilledGarage<'a>,
    pub plate: &'a Plate,
    pub entry: StoredPassage,
    pub exit: StoredPassage,
    pub cover: Cover,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongStays {
    AreHeld,
    AreCharged,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Billing {
    pub(super) shown: ShownBooks,
    /// The newest page of entries, its number, and what its entries reserve.
    tail: Vec<BillingEntry>,
    tail_page: u64,
    tail_bytes: usize,
    heads: ChainHeads<EntryNumber>,
    inside: HashMap<u32, u32>,
}

impl Deref for Billing {
    type Target = ShownBooks;
    fn deref(&self) -> &ShownBooks {
        &self.shown
    }
}

impl Billing {
    pub fn load(store: &Store, ledger: &Ledger) -> Result<Billing, StoreError> {
        let shown = ShownBooks::of(InForce::load(store, ledger)?);
        let mut billing = Billing { shown, heads: ChainHeads::load(store)?, ..Billing::default() };
        for (expected, entry) in (0u32..).zip(read_range(store, b"vba", b"vbb")) {
            let (key, account) = entry?;
            if u32_from(&key, 3)? != expected {
                return Err(damaged(&key));
            }
            billing.shown.add_account(account);
        }
        for entry in read_range(store, b"vbg", b"vbh") {
            let (key, taken) = entry?;
            billing.shown.put_taken(u32_from(&key, 3)?, taken);
        }
        if let Some((key, value)) = store.last(b"vbe", b"vbf")? {
            billing.tail_page = u64_from(&key, 3)?;
            billing.tail = super::codec::decode(&key, &value)?;
            billing.tail_bytes = billing.tail.iter().map(BillingEntry::reserve).sum();
        }
        Ok(billing)
    }

    /// Counts a car that was inside when the views were written.
    pub fn was_inside(&mut self, cover: Cover) {
        if let Cover::Contract(number) = cover {
            *self.inside.entry(number).or_default() += 1;
        }
    }

    /// Counts a car that enters, and returns whether a contract covers its stay.
    pub fn entered(&mut self, garage: BilledGarage<'_>, plate: &Plate, entry: StoredPassage) -> Cover {
        let zone = self.zone(garage, entry);
        let day = entry.date(zone.as_ref());
        let mut cover = Cover::None;
        for (number, contract) in self.in_force.contracts_for(plate, garage.called, day) {
            if self.inside.get(&number).copied().unwrap_or_default() < contract.cars {
                cover = Cover::Contract(number);
                break;
            }
            if cover == Cover::None {
                cover = Cover::OneTooMany(number);
            }
        }
        self.was_inside(cover);
        cover
    }

    pub fn left(&mut self, cover: Cover) {
        if let Cover::Contract(number) = cover
            && let Some(count) = self.inside.get_mut(&number)
        {
            *count -= 1;
            if *count == 0 {
                self.inside.remove(&number);
            }
        }
    }

    /// Appends the entry of a stay that was closed or changed at `position`: what it costs, or why it has no price.
    pub fn closed(
        &mut self,
        position: u64,
        closed: ClosedStay<'_>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let garage = closed.garage;
        let span_ms = closed.exit.at_ms.saturating_sub(closed.entry.at_ms);
        let mut note =
            |code| changes.note(code, garage.number, Some(closed.plate), closed.exit.at_ms, position);
        if span_ms < -CLOCKS_DIFFER_MS {
            note(AnomalyCode::ExitBeforeEntry)?;
        } else if span_ms < 0 {
            note(AnomalyCode::ClockSkew)?;
        } else if span_ms > LONGEST_DAYS * 24 * 3_600_000 {
            note(AnomalyCode::StayOver30Days)?;
        }
        let (terms, month) = self.rate(closed, LongStays::AreHeld);
        let waits = match terms {
            Terms::Pending => Some(AnomalyCode::NoTariff),
            Terms::CalendarIncomplete => Some(AnomalyCode::CalendarIncomplete),
            _ => None,
        };
        if let Some(code) = waits {
            changes.note(code, garage.number, None, closed.exit.at_ms, position)?;
        }
        self.charge(position, position, closed, terms, month, changes).map(drop)
    }

    /// What a stay costs by what is in force now, and in which month.
    pub fn rate(&self, closed: ClosedStay<'_>, long: LongStays) -> (Terms, Month) {
        let ClosedStay { garage, entry, exit, cover, .. } = closed;
        let tariff = entry.timestamp().and_then(|entry| self.in_force.tariff_for(garage.called, entry));
        let zone = tariff.map(|(_, tariff)| &tariff.time_zone);
        // A month of a year before 0 does not exist: such a stay is far too long, and held.
        let month = Month::of(exit.date(zone)).unwrap_or(Month::EPOCH);
        let span_ms = exit.at_ms.saturating_sub(entry.at_ms);
        if span_ms < -CLOCKS_DIFFER_MS {
            return (Terms::Held(HeldBecause::EndsBeforeItBegins), month);
        }
        let (Some((by, tariff)), Some(begins), Some(ends)) = (tariff, entry.timestamp(), exit.timestamp())
        else {
            return (Terms::Pending, month);
        };
        let contract_name =
            |number| self.in_force.contract(number).map_or("", |contract| contract.name.as_str());
        if let Cover::Contract(number) = cover {
            let money = Money { amount: Amount::ZERO, currency: tariff.currency };
            let contract = contract_name(number).into();
            let vat = tariff.vat_at(ends.max(begins));
            return (Terms::Covered { money, vat, by, contract }, month);
        }
        if span_ms > LONGEST_DAYS * 24 * 3_600_000 && long == LongStays::AreHeld {
            return (Terms::Held(HeldBecause::TooLong), month);
        }
        let Ok(priced) = tariff.price(begins, ends.max(begins)) else {
            return (Terms::CalendarIncomplete, month);
        };
        let beyond = match cover {
            Cover::OneTooMany(number) => Some(contract_name(number).into()),
            _ => None,
        };
        let money = Money { amount: priced.amount, currency: tariff.currency };
        (Terms::Charged { money, vat: priced.vat, by, beyond }, month)
    }

    fn charge(
        &mut self,
        position: u64,
        made_at: u64,
        closed: ClosedStay<'_>,
        terms: Terms,
        month: Month,
        changes: &mut BillingChanges,
    ) -> Result<EntryNumber, StoreError> {
        let account = self.account_of(closed.plate, closed.cover, changes);
        let stay = BilledStay {
            garage: closed.garage.number,
            plate: closed.plate.as_str().into(),
            entry: closed.entry,
            exit: closed.exit,
            made_at,
            cover: closed.cover,
            terms,
        };
        let of = (closed.garage.number, closed.plate);
        self.append(position, (account, month), of, EntryKind::Stay(stay), changes)
    }

    /// A stay changed or no longer exists: voids its charge at `position`.
    pub fn undone(
        &mut self,
        position: u64,
        garage: u32,
        plate: &Plate,
        exit: StoredPassage,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let same = |entry: &BillingEntry, stay: &BilledStay| {
            entry.settled_by == 0 && stay.garage == garage && stay.exit == exit
        };
        match self.find(plate, same, changes)? {
            Some((number, entry)) => {
                self.take_back(position, number, &entry, VoidedBecause::StayChanged, changes)
            }
            None => Ok(()),
        }
    }

    /// The chain of a plate, newest first. Entries of other plates with the same hash are in it, too.
    fn chain<'a>(
        &'a self,
        plate: &Plate,
        changes: &'a mut BillingChanges,
    ) -> impl Iterator<Item = Result<(EntryNumber, BillingEntry), StoreError>> + use<'a> {
        walk(link(self.heads.get(PlateChain::of(plate))), move |number| {
            let entry = self.entry(number, changes)?;
            let before = link(entry.before_of_plate);
            Ok((entry, before))
        })
    }

    pub fn stays_of<'a>(
        &'a self,
        plate: &'a Plate,
        changes: &'a mut BillingChanges,
    ) -> impl Iterator<Item = Result<(EntryNumber, BillingEntry), StoreError>> + use<'a> {
        let is_of = |entry: &BillingEntry| matches!(&entry.what, EntryKind::Stay(stay) if *stay.plate == *plate.as_str());
        self.chain(plate, changes).filter(move |found| found.as_ref().map_or(true, |(_, entry)| is_of(entry)))
    }

    pub fn find(
        &self,
        plate: &Plate,
        wanted: impl Fn(&BillingEntry, &BilledStay) -> bool,
        changes: &mut BillingChanges,
    ) -> Result<Option<(EntryNumber, BillingEntry)>, StoreError> {
        let is_wanted =
            |entry: &BillingEntry| matches!(&entry.what, EntryKind::Stay(stay) if wanted(entry, stay));
        let mut stays = self.stays_of(plate, changes);
        stays.find(|found| found.as_ref().map_or(true, |(_, entry)| is_wanted(entry))).transpose()
    }

    /// Takes back what is left of a charge, or ends a stay that has no price: one more entry.
    pub fn take_back(
        &mut self,
        position: u64,
        number: EntryNumber,
        entry: &BillingEntry,
        why: VoidedBecause,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let stay = entry.stay()?;
        let plate = stay.plate()?;
        let money = match stay.terms.money() {
            Some((money, _)) => {
                Some(Money { amount: negative(self.left_of(number, money, &plate, changes)?), ..money })
            }
            None => None,
        };
        let what =
            EntryKind::Void { of: number, money, vat: stay.terms.money().and_then(|(_, vat)| vat), why };
        let voided =
            self.append(position, (entry.account, entry.month), (stay.garage, &plate), what, changes)?;
        self.entry_mut(number, changes)?.settled_by = voided;
        Ok(())
    }

    pub fn credit(
        &mut self,
        position: u64,
        number: EntryNumber,
        entry: &BillingEntry,
        amount: Amount,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let stay = entry.stay()?;
        let plate = stay.plate()?;
        let Some((money, vat)) = stay.terms.money() else { return Ok(()) };
        let money = Money { amount: negative(amount), ..money };
        let what = EntryKind::Credit { of: number, money, vat };
        self.append(position, (entry.account, entry.month), (stay.garage, &plate), what, changes).map(drop)
    }

    pub fn left_of(
        &self,
        number: EntryNumber,
        money: Money,
        plate: &Plate,
        changes: &mut BillingChanges,
    ) -> Result<Amount, StoreError> {
        let mut left = money.amount;
        for found in self.chain(plate, changes) {
            let (later, entry) = found?;
            if later <= number {
                break;
            }
            if let EntryKind::Credit { of, money, .. } = entry.what
                && of == number
            {
                left = left.saturating_add(money.amount);
            }
        }
        Ok(left)
    }

    /// Prices those of the entries numbered `from..to` that wait for a price and have one now.
    pub fn price(
        &mut self,
        position: u64,
        (from, to): (EntryNumber, EntryNumber),
        called: impl Fn(u32) -> Option<String>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        for number in from.max(1)..to.min(self.end()) {
            let Some(entry) = self.entry_if_any(number, changes)? else { continue };
            let EntryKind::Stay(stay) = &entry.what else { continue };
            if !stay.terms.waits() || entry.settled_by != 0 {
                continue;
            }
            let Some(called) = called(stay.garage) else { continue };
            let plate = stay.plate()?;
            let closed = stay.closed(&plate, &called);
            let (terms, month) = self.rate(closed, LongStays::AreHeld);
            if terms.waits() {
                continue;
            }
            let charged = self.charge(position, stay.made_at, closed, terms, month, changes)?;
            self.entry_mut(number, changes)?.settled_by = charged;
        }
        Ok(())
    }

    pub fn release(
        &mut self,
        position: u64,
        number: EntryNumber,
        entry: &BillingEntry,
        called: &str,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let stay = entry.stay()?;
        let plate = stay.plate()?;
        let closed = stay.closed(&plate, called);
        let (terms, month) = self.rate(closed, LongStays::AreCharged);
        let charged = self.charge(position, stay.made_at, closed, terms, month, changes)?;
        self.entry_mut(number, changes)?.settled_by = charged;
        Ok(())
    }

    /// Puts everything that changed into `batch`.
    pub fn save(&self, changes: &mut BillingChanges, batch: &mut Batch) {
        for account in std::mem::take(&mut changes.accounts) {
            let book = self.account_book(account).expect("an account that changed is known");
            batch.put(key_u32(b"vba", account), encode(book));
        }
        for garage in std::mem::take(&mut changes.taken) {
            batch.put(key_u32(b"vbg", garage), encode(&self.taken(garage)));
        }
        for page in std::mem::take(&mut changes.heads) {
            let (key, value) = self.heads.entry(page);
            batch.put(key, value);
        }
        if std::mem::take(&mut changes.tail) {
            batch.put(entries::page_key(self.tail_page), entries::encode_page(&self.tail));
        }
        for page in std::mem::take(&mut changes.in_force) {
            self.in_force.save(page, batch);
        }
        changes.save_pages(batch);
    }

    /// One past the number of the newest entry.
    pub fn end(&self) -> EntryNumber {
        entries::number(self.tail_page, self.tail.len())
    }

    pub fn put_in_force(&mut self, position: u64, order: InForceChange, changes: &mut BillingChanges) {
        let in_force = Arc::make_mut(&mut self.shown.in_force);
        in_force.put(position, order);
        changes.in_force.insert(in_force.last_page());
    }

    /// Who pays: the account of the plate, else that of the contract under which the stay began.
    fn account_of(&mut self, plate: &Plate, cover: Cover, changes: &mut BillingChanges) -> u32 {
        let of_contract = match cover {
            Cover::Contract(number) | Cover::OneTooMany(number) => self.in_force.contract(number),
            Cover::None => None,
        };
        let registered = self.in_force.registration(plate).map(|its| &its.account);
        let account = registered.or(of_contract.map(|contract| &contract.account));
        let name = account.map_or(UNREGISTERED, |account| account.as_str());
        if let Some(number) = self.shown.account(name) {
            return number;
        }
        let book = AccountBook { name: name.to_owned(), statements: 0 };
        let number = self.shown.add_account(book);
        changes.accounts.insert(number);
        number
    }

    fn append(
        &mut self,
        position: u64,
        (account, month): (u32, Month),
        (garage, plate): (u32, &Plate),
        what: EntryKind,
        changes: &mut BillingChanges,
    ) -> Result<EntryNumber, StoreError> {
        let chain = PlateChain::of(plate);
        let before_in_month = changes.month_mut(account, month)?.last;
        let before_of_plate = self.heads.get(chain);
        let entry =
            BillingEntry { position, account, month, before_in_month, before_of_plate, settled_by: 0, what };
        let money = entry.money();
        let number = self.push(entry, changes);
        let of_month = changes.month_mut(account, month)?;
        let is_first = of_month.entries == 0;
        if is_first {
            let book = self.shown.account_mut(account);
            book.statements += 1;
            of_month.number = book.statements;
        }
        of_month.last = number;
        of_month.entries += 1;
        if let Some((money, vat)) = money {
            of_month.add(money, vat);
            self.shown.take(garage, money);
            changes.taken.insert(garage);
        }
        if is_first {
            changes.accounts.insert(account);
        }
        self.heads.set(chain, number);
        changes.heads.insert(chain.head_page());
        Ok(number)
    }

    fn push(&mut self, entry: BillingEntry, changes: &mut BillingChanges) -> EntryNumber {
        let reserve = entry.reserve();
        if self.tail_bytes + reserve > entries::PAGE_MAX || self.tail.len() as u64 == entries::IN_A_PAGE {
            changes.pages.insert(self.tail_page, std::mem::take(&mut self.tail));
            (self.tail_page, self.tail_bytes) = (self.tail_page + 1, 0);
        }
        let number = self.end();
        self.tail.push(entry);
        self.tail_bytes += reserve;
        changes.tail = true;
        number
    }

    /// Replaces the plate of a stay's entry with a token.
    pub fn put_token(
        &mut self,
        number: EntryNumber,
        token: &str,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        if let EntryKind::Stay(stay) = &mut self.entry_mut(number, changes)?.what {
            stay.plate = token.into();
        }
        Ok(())
    }

    fn entry_mut<'a>(
        &'a mut self,
        number: EntryNumber,
        changes: &'a mut BillingChanges,
    ) -> Result<&'a mut BillingEntry, StoreError> {
        let (page, place) = entries::place(number);
        let entry = if page == self.tail_page {
            changes.tail = true;
            self.tail.get_mut(place)
        } else {
            changes.page_mut(page)?.get_mut(place)
        };
        entry.ok_or_else(|| damaged(&entries::page_key(page)))
    }

    pub fn entry(
        &self,
        number: EntryNumber,
        changes: &mut BillingChanges,
    ) -> Result<BillingEntry, StoreError> {
        let (page, _) = entries::place(number);
        self.entry_if_any(number, changes)?.ok_or_else(|| damaged(&entries::page_key(page)))
    }

    pub fn entry_if_any(
        &self,
        number: EntryNumber,
        changes: &mut BillingChanges,
    ) -> Result<Option<BillingEntry>, StoreError> {
        let (page, place) = entries::place(number);
        if page == self.tail_page {
            return Ok(self.tail.get(place).cloned());
        }
        Ok(changes.page(page)?.get(place).cloned())
    }

    fn zone(&self, garage: BilledGarage<'_>, entry: StoredPassage) -> Option<TimeZone> {
        let (_, tariff) = self.in_force.tariff_for(garage.called, entry.timestamp()?)?;
        Some(tariff.time_zone.clone())
    }
}

fn negative(amount: Amount) -> Amount {
    Amount::of_minor(amount.minor().saturating_neg())
}
