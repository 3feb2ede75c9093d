//! What stays cost: a fold of closed stays, and of what operators put in force, into entries that are never taken back in silence.
//!
//! **Promise.** Every closed stay has one entry that is not settled: a charge, a stay that waits for a price, or one that is held
//! because it does not add up. A charge never changes; what corrects it is a further entry. The sum of an account's
//! month is the sum of its entries.
//! **Kept by.** [`Billing::closed`] and [`Billing::undone`] are told of every stay that comes to be or is another one now. What a stay
//! costs is decided by [`Billing::rate`] from what is in force at that position, and written down.
//! **Not promised.** That the working is stored: it follows from the entry, the exit and the tariff set, and is computed when it is shown.
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
mod forget;
pub mod list;
mod orders;
mod shown;
pub mod terms;
#[cfg(test)]
mod tests;

pub use changes::BillingChanges;
pub(super) use orders::check_reason;
pub use orders::{Found, NoOrder};
pub use shown::ShownBooks;

use super::pages::{Head, Passage};
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::parking::tariff::{Amount, Money};
use crate::server::ledger::Ledger;
use crate::store::{Store, StoreError};
use anomalies::AnomalyCode;
use entries::{AccountBook, Entry, Held, Number, PlateHeads, Stay, Terms, VoidedBecause, What};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Deref;
use terms::InForce;

/// A longer stay is held until a person has looked.
pub const LONGEST_DAYS: i64 = 30;
/// An exit may be so much earlier than its entry because two clocks differ; the stay has no length then.
pub const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;
/// Who pays for plates that nobody registered.
pub const UNREGISTERED: &str = "unregistered";
/// How many writes a closed stay may add: its account, its month, an anomaly.
pub const WRITES_OF_A_STAY: usize = 3;
/// Whether a contract covers a stay; decided when it begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cover {
    #[default]
    None,
    /// By number.
    Contract(u32),
    /// There is one, and as many of its cars as it allows are inside already.
    OneTooMany(u32),
}

/// The garage of a stay.
#[derive(Debug, Clone, Copy)]
pub struct Garage<'a> {
    pub number: u32,
    /// What it is called: tariffs and contracts name it so.
    pub called: &'a str,
}

/// A stay that ended.
#[derive(Debug, Clone, Copy)]
pub struct Closed<'a> {
    pub garage: Garage<'a>,
    pub plate: &'a Plate,
    pub entry: Passage,
    pub exit: Passage,
    pub cover: Cover,
}

/// The state of the fold that is kept in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Billing {
    shown: ShownBooks,
    /// The newest page of entries, its number, and what its entries reserve.
    tail: Vec<Entry>,
    tail_page: u64,
    tail_bytes: usize,
    heads: PlateHeads,
    /// How many covered cars of each contract are inside.
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
        let mut billing = Billing { shown, heads: PlateHeads::load(store)?, ..Billing::default() };
        for (expected, entry) in (0u32..).zip(store.range(b"vba", b"vbb")) {
            let (key, value) = entry?;
            if key[3..] != expected.to_be_bytes() {
                return Err(super::damaged(&key));
            }
            billing.shown.add_account(super::decode(&key, &value)?);
        }
        for entry in store.range(b"vbg", b"vbh") {
            let (key, value) = entry?;
            let garage = u32::from_be_bytes(super::sized(&key[3..])?);
            billing.shown.put_taken(garage, super::decode(&key, &value)?);
        }
        if let Some((key, value)) = store.last(b"vbe", b"vbf")? {
            billing.tail_page = u64::from_be_bytes(super::sized(&key[3..])?);
            billing.tail = super::decode(&key, &value)?;
            billing.tail_bytes = billing.tail.iter().map(Entry::reserve).sum();
        }
        Ok(billing)
    }

    /// A car is inside that was when the views were written.
    pub fn was_inside(&mut self, cover: Cover) {
        if let Cover::Contract(number) = cover {
            *self.inside.entry(number).or_default() += 1;
        }
    }

    /// A car enters: whether a contract covers its stay.
    pub fn entered(&mut self, garage: Garage<'_>, plate: &Plate, entry: Passage) -> Cover {
        let zone = self.zone(garage, entry);
        let day = date(entry, zone.as_ref());
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

    /// A car that was inside is not any more.
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

    /// A stay came to be at `position`: writes down what it costs.
    pub fn closed(
        &mut self,
        position: u64,
        closed: Closed<'_>,
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
        let (terms, month) = self.rate(closed, false);
        if terms == Terms::Pending {
            changes.note(AnomalyCode::NoTariff, garage.number, None, closed.exit.at_ms, position)?;
        }
        self.charge(position, position, closed, terms, month, changes).map(drop)
    }

    /// What a stay costs by what is in force now, and in which month. `looked_at`: a person said that its length is right.
    pub fn rate(&self, closed: Closed<'_>, looked_at: bool) -> (Terms, Month) {
        let Closed { garage, entry, exit, cover, .. } = closed;
        let tariff = timestamp(entry).and_then(|entry| self.in_force.tariff_for(garage.called, entry));
        let zone = tariff.map(|(_, tariff)| tariff.time_zone());
        // Years before 0 are nobody's: such a stay is far too long, and held.
        let month = Month::of(date(exit, zone)).unwrap_or(Month::EPOCH);
        let span_ms = exit.at_ms.saturating_sub(entry.at_ms);
        if span_ms < -CLOCKS_DIFFER_MS {
            return (Terms::Held(Held::EndsBeforeItBegins), month);
        }
        let (Some((by, tariff)), Some(begins), Some(ends)) = (tariff, timestamp(entry), timestamp(exit))
        else {
            return (Terms::Pending, month);
        };
        let contract_name =
            |number| self.in_force.contract(number).map_or("", |contract| contract.name.as_str());
        if let Cover::Contract(number) = cover {
            let money = Money { amount: Amount::ZERO, currency: tariff.currency() };
            let contract = contract_name(number).into();
            return (Terms::Covered { money, vat: tariff.vat(), by, contract }, month);
        }
        if span_ms > LONGEST_DAYS * 24 * 3_600_000 && !looked_at {
            return (Terms::Held(Held::TooLong), month);
        }
        let priced = tariff.price(begins, ends.max(begins));
        let beyond = match cover {
            Cover::OneTooMany(number) => Some(contract_name(number).into()),
            _ => None,
        };
        let money = Money { amount: priced.amount, currency: tariff.currency() };
        (Terms::Charged { money, vat: tariff.vat(), by, beyond }, month)
    }

    /// Appends the entry of a stay that came to be at `made_at`.
    fn charge(
        &mut self,
        position: u64,
        made_at: u64,
        closed: Closed<'_>,
        terms: Terms,
        month: Month,
        changes: &mut BillingChanges,
    ) -> Result<Number, StoreError> {
        let account = self.account_of(closed.plate, closed.cover, changes);
        let stay = Stay {
            garage: closed.garage.number,
            plate: closed.plate.as_str().into(),
            entry: closed.entry,
            exit: closed.exit,
            made_at,
            cover: closed.cover,
            terms,
        };
        let of = (closed.garage.number, closed.plate);
        self.append(position, (account, month), of, What::Stay(stay), changes)
    }

    /// A stay is another one now, or none: its charge is taken back at `position`.
    pub fn undone(
        &mut self,
        position: u64,
        garage: u32,
        plate: &Plate,
        exit: Passage,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let same = |stay: &Stay| stay.garage == garage && stay.exit == exit;
        match self.find(plate, same, changes)? {
            Some((number, entry)) => {
                self.take_back(position, number, &entry, VoidedBecause::StayChanged, changes).map(drop)
            }
            None => Ok(()),
        }
    }

    /// The newest entry of a stay of this plate that nothing has settled.
    pub fn find(
        &self,
        plate: &Plate,
        wanted: impl Fn(&Stay) -> bool,
        changes: &mut BillingChanges,
    ) -> Result<Option<(Number, Entry)>, StoreError> {
        let mut next = self.heads.get(Head::of(plate));
        while next != 0 {
            let entry = self.entry(next, changes)?;
            if let What::Stay(stay) = &entry.what
                && entry.settled_by == 0
                && *stay.plate == *plate.as_str()
                && wanted(stay)
            {
                return Ok(Some((next, entry)));
            }
            next = entry.before_of_plate;
        }
        Ok(None)
    }

    /// Takes back what is left of a charge, or ends a stay that has no price: one more entry, whose number this gives.
    pub fn take_back(
        &mut self,
        position: u64,
        number: Number,
        entry: &Entry,
        why: VoidedBecause,
        changes: &mut BillingChanges,
    ) -> Result<Number, StoreError> {
        let stay = stay_of(entry)?;
        let plate = stored_plate(&stay.plate)?;
        let money = match stay.terms.money() {
            Some((money, _)) => {
                Some(Money { amount: negative(self.left_of(number, money, &plate, changes)?), ..money })
            }
            None => None,
        };
        let what = What::Void { of: number, money, vat: stay.terms.money().and_then(|(_, vat)| vat), why };
        let voided =
            self.append(position, (entry.account, entry.month), (stay.garage, &plate), what, changes)?;
        self.settle(number, voided, changes)?;
        Ok(voided)
    }

    /// Gives some of a charge back.
    pub fn credit(
        &mut self,
        position: u64,
        number: Number,
        entry: &Entry,
        amount: Amount,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let stay = stay_of(entry)?;
        let plate = stored_plate(&stay.plate)?;
        let Some((money, vat)) = stay.terms.money() else { return Ok(()) };
        let money = Money { amount: negative(amount), ..money };
        let what = What::Credit { of: number, money, vat };
        self.append(position, (entry.account, entry.month), (stay.garage, &plate), what, changes).map(drop)
    }

    /// What was not given back of a charge of `money`.
    pub fn left_of(
        &self,
        number: Number,
        money: Money,
        plate: &Plate,
        changes: &mut BillingChanges,
    ) -> Result<Amount, StoreError> {
        let (mut left, mut next) = (money.amount, self.heads.get(Head::of(plate)));
        while next > number {
            let entry = self.entry(next, changes)?;
            if let What::Credit { of, money, .. } = entry.what
                && of == number
            {
                left = left.saturating_add(money.amount);
            }
            next = entry.before_of_plate;
        }
        Ok(left)
    }

    /// Prices those of the entries numbered `from..to` that wait for a price and have one now. Gives how many.
    pub fn price(
        &mut self,
        position: u64,
        (from, to): (Number, Number),
        called: impl Fn(u32) -> Option<String>,
        changes: &mut BillingChanges,
    ) -> Result<u64, StoreError> {
        let mut priced = 0;
        for number in from.max(1)..to.min(self.end()) {
            let Some(entry) = self.entry_if_any(number, changes)? else { continue };
            let What::Stay(stay) = &entry.what else { continue };
            if stay.terms != Terms::Pending || entry.settled_by != 0 {
                continue;
            }
            let Some(called) = called(stay.garage) else { continue };
            let plate = stored_plate(&stay.plate)?;
            let garage = Garage { number: stay.garage, called: &called };
            let closed =
                Closed { garage, plate: &plate, entry: stay.entry, exit: stay.exit, cover: stay.cover };
            let (terms, month) = self.rate(closed, false);
            if terms == Terms::Pending {
                continue;
            }
            let charged = self.charge(position, stay.made_at, closed, terms, month, changes)?;
            self.settle(number, charged, changes)?;
            priced += 1;
        }
        Ok(priced)
    }

    /// Bills a stay that was held, as it is: a person said that its length is right.
    pub fn release(
        &mut self,
        position: u64,
        number: Number,
        entry: &Entry,
        called: &str,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let stay = stay_of(entry)?;
        let plate = stored_plate(&stay.plate)?;
        let garage = Garage { number: stay.garage, called };
        let closed = Closed { garage, plate: &plate, entry: stay.entry, exit: stay.exit, cover: stay.cover };
        let (terms, month) = self.rate(closed, true);
        let charged = self.charge(position, stay.made_at, closed, terms, month, changes)?;
        self.settle(number, charged, changes)
    }

    fn take(&mut self, garage: u32, money: Money, changes: &mut BillingChanges) {
        self.shown.take(garage, money);
        changes.taken.insert(garage);
    }

    /// One past the number of the newest entry.
    pub fn end(&self) -> Number {
        entries::number(self.tail_page, self.tail.len())
    }

    pub(super) fn put_in_force(&mut self, position: u64, order: terms::Order) {
        self.shown.in_force_mut().put(position, order);
    }

    /// What of it readers see.
    pub fn shown(&self) -> &ShownBooks {
        &self.shown
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
        what: What,
        changes: &mut BillingChanges,
    ) -> Result<Number, StoreError> {
        let head = Head::of(plate);
        let before_in_month = changes.month_mut(account, month)?.last;
        let before_of_plate = self.heads.get(head);
        let entry = Entry { position, account, month, before_in_month, before_of_plate, settled_by: 0, what };
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
            self.take(garage, money, changes);
        }
        if is_first {
            changes.accounts.insert(account);
        }
        self.heads.set(head, number);
        changes.heads.insert(head.page());
        Ok(number)
    }

    /// Appends to the newest page.
    fn push(&mut self, entry: Entry, changes: &mut BillingChanges) -> Number {
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

    fn settle(&mut self, number: Number, by: Number, changes: &mut BillingChanges) -> Result<(), StoreError> {
        self.entry_mut(number, changes)?.settled_by = by;
        Ok(())
    }

    /// Lets a token stand for the plate of a stay's entry.
    fn put_token(
        &mut self,
        number: Number,
        token: &str,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        if let What::Stay(stay) = &mut self.entry_mut(number, changes)?.what {
            stay.plate = token.into();
        }
        Ok(())
    }

    fn entry_mut<'a>(
        &'a mut self,
        number: Number,
        changes: &'a mut BillingChanges,
    ) -> Result<&'a mut Entry, StoreError> {
        let (page, place) = entries::place(number);
        let entry = if page == self.tail_page {
            changes.tail = true;
            self.tail.get_mut(place)
        } else {
            changes.page_mut(page)?.get_mut(place)
        };
        entry.ok_or_else(|| super::damaged(&entries::page_key(page)))
    }

    /// An entry as it is now, written or not.
    pub fn entry(&self, number: Number, changes: &mut BillingChanges) -> Result<Entry, StoreError> {
        let (page, _) = entries::place(number);
        self.entry_if_any(number, changes)?.ok_or_else(|| super::damaged(&entries::page_key(page)))
    }

    fn entry_if_any(
        &self,
        number: Number,
        changes: &mut BillingChanges,
    ) -> Result<Option<Entry>, StoreError> {
        let (page, place) = entries::place(number);
        if page == self.tail_page {
            return Ok(self.tail.get(place).cloned());
        }
        Ok(changes.page(page)?.get(place).cloned())
    }

    fn zone(&self, garage: Garage<'_>, entry: Passage) -> Option<TimeZone> {
        let (_, tariff) = self.in_force.tariff_for(garage.called, timestamp(entry)?)?;
        Some(tariff.time_zone().clone())
    }
}

fn stay_of(entry: &Entry) -> Result<&Stay, StoreError> {
    match &entry.what {
        What::Stay(stay) => Ok(stay),
        _ => Err(super::damaged(b"vbe")),
    }
}

fn stored_plate(plate: &str) -> Result<Plate, StoreError> {
    Plate::stored(plate).map_err(|_| super::damaged(b"vbe"))
}

fn negative(amount: Amount) -> Amount {
    Amount::of_minor(amount.minor().saturating_neg())
}

pub(super) fn timestamp(passage: Passage) -> Option<Timestamp> {
    Timestamp::from_millisecond(passage.at_ms).ok()
}

/// The local date of a passage: in a tariff's zone, else as its source wrote it.
fn date(passage: Passage, zone: Option<&TimeZone>) -> Date {
    let Some(timestamp) = timestamp(passage) else { return Date::default() };
    match zone {
        Some(zone) => zone.to_datetime(timestamp).date(),
        None => {
            let offset = Offset::from_seconds(i32::from(passage.offset_minutes) * 60).unwrap_or(Offset::UTC);
            offset.to_datetime(timestamp).date()
        }
    }
}
