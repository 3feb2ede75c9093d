//! The entries of the books of money, as bytes: charges, voids, credits, and stays that wait for a price.
//!
//! **Promise.** Entries are numbered in the order of the ledger, and none is ever taken away. The only part of an entry that
//! changes is the number of the later entry that voided or priced it.
//! **Kept by.** They are appended to the newest page. An entry names the one before it of its plate's chain and of its
//! account's month, as in a log with an index of heads: an append costs one page, one head and one month.
//!
//! | key | value |
//! | --- | --- |
//! | `vbe` + page (u64) | up to [`IN_A_PAGE`] [`BillingEntry`]s |
//! | `vbi` + n (u16) | heads `512 n` to `512 n + 511` of the chains of plates, each the number of the newest entry, or 0 |
//! | `vba` + account (u32) | an [`AccountBook`] |
//! | `vbm` + account (u32) + year (i16) + month (u8) | a [`MonthBook`] |

use super::super::chains::ChainLink;
use super::super::codec::{damaged, encode, key_u64, read, sized};
use super::super::pages::{Cover, StoredPassage, longer_as_token};
use super::{BilledGarage, ClosedStay};
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::parking::tariff::{Money, VatRate};
use crate::store::{Store, StoreError, VALUE_MAX};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub const IN_A_PAGE: u64 = 64;

/// The number of an entry: 64 times its page, plus its place in the page, counted from 1. 0 stands for no entry.
pub type EntryNumber = u64;

impl ChainLink for EntryNumber {
    const PREFIX: &'static [u8] = b"vbi";
}

/// A number that an entry or a head names; `None` for 0.
pub fn link(number: EntryNumber) -> Option<EntryNumber> {
    (number != 0).then_some(number)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingEntry {
    pub position: u64,
    pub account: u32,
    pub month: Month,
    pub before_in_month: EntryNumber,
    pub before_of_plate: EntryNumber,
    /// The void that took it back, or the charge that priced it.
    pub settled_by: EntryNumber,
    pub what: EntryKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Charges a stay, or says why it is not charged.
    Stay(BilledStay),
    /// Takes the charge `of` back: what was left of it, as a negative amount. None: it had no price.
    Void { of: EntryNumber, money: Option<Money>, vat: Option<VatRate>, why: VoidedBecause },
    /// Gives back some of the charge `of`: a negative amount.
    Credit { of: EntryNumber, money: Money, vat: Option<VatRate> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoidedBecause {
    /// An operator voided it; the command at the entry's position has the reason.
    Command,
    /// A plate was corrected, or stays were joined, closed or split, which changed the stay.
    StayChanged,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BilledStay {
    pub garage: u32,
    pub plate: SmolStr,
    pub entry: StoredPassage,
    pub exit: StoredPassage,
    /// The position of what made it a charge: its exit, or a later correction or command.
    pub made_at: u64,
    pub cover: Cover,
    pub terms: Terms,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terms {
    /// Charged by a tariff; `beyond` names the contract whose number of cars it exceeds.
    Charged {
        money: Money,
        vat: Option<VatRate>,
        by: TariffRef,
        beyond: Option<SmolStr>,
    },
    /// A contract covers it. The tariff says the currency, and of which month it is.
    Covered {
        money: Money,
        vat: Option<VatRate>,
        by: TariffRef,
        contract: SmolStr,
    },
    Pending,
    /// It does not add up; a person must look.
    Held(HeldBecause),
    /// Pending, because a unit needs the calendar of its tariff on a day that the calendar does not cover.
    CalendarIncomplete,
}

/// Which tariff: the set that was put in force at a position of the ledger, and the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffRef {
    pub set: u64,
    pub tariff: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldBecause {
    /// It ended before it began, by more than clocks may differ.
    EndsBeforeItBegins,
    TooLong,
}

impl Terms {
    pub fn money(&self) -> Option<(Money, Option<VatRate>)> {
        match self {
            Terms::Charged { money, vat, .. } | Terms::Covered { money, vat, .. } => Some((*money, *vat)),
            Terms::Pending | Terms::CalendarIncomplete | Terms::Held(_) => None,
        }
    }

    pub fn by(&self) -> Option<TariffRef> {
        match self {
            Terms::Charged { by, .. } | Terms::Covered { by, .. } => Some(*by),
            Terms::Pending | Terms::CalendarIncomplete | Terms::Held(_) => None,
        }
    }

    /// Whether it has a price as soon as the tariffs in force have one.
    pub fn waits(&self) -> bool {
        matches!(self, Terms::Pending | Terms::CalendarIncomplete)
    }
}

impl BilledStay {
    /// The same as a stay of its plate, in its garage of this name.
    pub fn closed<'a>(&self, plate: &'a Plate, called: &'a str) -> ClosedStay<'a> {
        let garage = BilledGarage { number: self.garage, called };
        ClosedStay { garage, plate, entry: self.entry, exit: self.exit, cover: self.cover }
    }

    pub fn plate(&self) -> Result<Plate, StoreError> {
        Plate::stored(&self.plate).map_err(|_| damaged(b"vbe"))
    }
}

impl BillingEntry {
    /// The stay that the entry charges. Corrections name only entries that have one.
    pub fn stay(&self) -> Result<&BilledStay, StoreError> {
        match &self.what {
            EntryKind::Stay(stay) => Ok(stay),
            _ => Err(damaged(b"vbe")),
        }
    }

    /// Whether its plate may be forgotten: it has a price, or can no longer be charged.
    pub fn is_done(&self) -> bool {
        match &self.what {
            EntryKind::Stay(stay) => self.settled_by != 0 || stay.terms.money().is_some(),
            EntryKind::Void { .. } | EntryKind::Credit { .. } => false, // they name no plate
        }
    }

    /// The amount that it adds to what the account owes: negative for what is given back; `None` when it has no price.
    pub fn money(&self) -> Option<(Money, Option<VatRate>)> {
        match &self.what {
            EntryKind::Stay(stay) => stay.terms.money(),
            EntryKind::Void { money, vat, .. } => money.map(|money| (money, *vat)),
            EntryKind::Credit { money, vat, .. } => Some((*money, *vat)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountBook {
    pub name: String,
    /// How many statements it has: months with an entry.
    pub statements: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthBook {
    pub number: u32,
    pub last: EntryNumber,
    pub entries: u64,
    pub totals: Vec<(Money, Option<VatRate>)>,
}

impl MonthBook {
    pub fn add(&mut self, money: Money, vat: Option<VatRate>) {
        let known = self.totals.iter_mut().find(|(sum, rate)| sum.currency == money.currency && *rate == vat);
        match known {
            Some((sum, _)) => sum.amount = sum.amount.saturating_add(money.amount),
            None => {
                self.totals.push((money, vat));
                self.totals.sort_by_key(|(sum, rate)| (sum.currency, *rate));
            }
        }
    }
}

/// The page of an entry and its place there, from 0. No entry has the number 0.
pub fn place(number: EntryNumber) -> (u64, usize) {
    let before = number.saturating_sub(1);
    (before / IN_A_PAGE, (before % IN_A_PAGE) as usize)
}

pub fn number(page: u64, place: usize) -> EntryNumber {
    page * IN_A_PAGE + place as u64 + 1
}

/// The longest encoded page; the rest is room for its version and length.
pub const PAGE_MAX: usize = VALUE_MAX - 8;

impl BillingEntry {
    /// The maximum number of bytes that it takes in a page, whichever later entry voids or prices it.
    pub fn reserve(&self) -> usize {
        let token = match &self.what {
            EntryKind::Stay(stay) => longer_as_token(&stay.plate),
            EntryKind::Void { .. } | EntryKind::Credit { .. } => 0,
        };
        size(self) - size(&self.settled_by) + size(&u64::MAX) + token
    }
}

fn size(value: &impl Serialize) -> usize {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(value, size).expect("it always encodes")
}

pub fn page_key(page: u64) -> Vec<u8> {
    key_u64(b"vbe", page)
}

pub fn read_page(store: &Store, page: u64) -> Result<Vec<BillingEntry>, StoreError> {
    Ok(read(store, &page_key(page))?.unwrap_or_default())
}

pub fn encode_page(entries: &[BillingEntry]) -> Vec<u8> {
    let value = encode(&entries);
    assert!(value.len() <= VALUE_MAX, "the longest entries fit, {} do not: {}", entries.len(), value.len());
    value
}

pub fn month_key(account: u32, month: Month) -> Vec<u8> {
    let first = month.first_day();
    [b"vbm", &account.to_be_bytes()[..], &first.year().to_be_bytes(), &[first.month() as u8]].concat()
}

pub fn of_month_key(key: &[u8]) -> Result<(u32, Month), StoreError> {
    let [century, year, month] = sized(key, 7..key.len())?;
    let month = Month::new(i16::from_be_bytes([century, year]), month as i8);
    Ok((u32::from_be_bytes(sized(key, 3..7)?), month.map_err(|_| damaged(key))?))
}

pub fn read_month(store: &Store, account: u32, month: Month) -> Result<Option<MonthBook>, StoreError> {
    read(store, &month_key(account, month))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::tariff::{Amount, Currency};

    #[test]
    fn a_page_of_the_longest_entries_fits_into_a_value() {
        let worst =
            StoredPassage::new(u64::MAX, (u32::MAX, u64::MAX), (i64::from(u32::MAX) * -100_000, -1_560));
        let money = Money { amount: Amount::of_minor(i64::MIN), currency: Currency::new("EUR").unwrap() };
        let stay = BilledStay {
            garage: u32::MAX,
            plate: "京".repeat(48).into(),
            entry: worst,
            exit: worst,
            made_at: u64::MAX,
            cover: Cover::OneTooMany(u32::MAX),
            terms: Terms::Charged {
                money,
                vat: VatRate::of_hundredths(10_000),
                by: TariffRef { set: u64::MAX, tariff: u16::MAX },
                beyond: Some("x".repeat(64).into()),
            },
        };
        let entry = BillingEntry {
            position: u64::MAX,
            account: u32::MAX,
            month: Month::new(9999, 12).unwrap(),
            before_in_month: u64::MAX,
            before_of_plate: u64::MAX,
            settled_by: u64::MAX,
            what: EntryKind::Stay(stay),
        };
        let unsettled = BillingEntry { settled_by: 0, ..entry.clone() };
        let fit = PAGE_MAX / unsettled.reserve();
        assert!(fit > 10);
        assert!(encode_page(&vec![entry; fit]).len() <= VALUE_MAX);
    }
}
