//! What drafts add up to: for each account and month, for each garage, and for each garage and day.
//!
//! **Promise.** The totals are the sums of the drafts, whatever changed on the way: `server verify` computes them again.
//! **Kept by.** A draft that changes is subtracted as it was and added as it is. What counts nothing is not kept, so that equal books
//! have equal totals.
//!
//! | key | value |
//! | --- | --- |
//! | `vba` + account (u32) | its name |
//! | `vbm` + account (u32) + year (i16) + month (u8) | the [`Totals`] of its stays that ended in the month |
//! | `vbg` + garage (u32) | the [`Totals`] of its stays |
//! | `vbr` + garage (u32) + year (i16) + month (u8) + day (u8) | the [`Totals`] of its stays that ended on the day, by the clock of the garage |

use super::super::codec::{damaged, key_u32, read, read_range, sized};
use super::draft::Draft;
use crate::parking::Month;
use crate::parking::money::{Amount, Money, MoneySums, VatBasis};
use crate::store::{Store, StoreError};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many stays, with those that have no price.
    pub stays: u64,
    /// In the order of currency and rate.
    pub sums: Vec<Sum>,
}

/// The stays with a price of one currency and VAT rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub amount: Money,
    pub vat: VatBasis,
    pub stays: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Add,
    Subtract,
}

impl Totals {
    pub fn is_empty(&self) -> bool {
        self.stays == 0
    }

    pub fn count(&mut self, sign: Sign, draft: &Draft) {
        let step = |count: &mut u64| match sign {
            Sign::Add => *count += 1,
            // Below nothing only damage leads, which the check of the totals finds.
            Sign::Subtract => *count = count.saturating_sub(1),
        };
        step(&mut self.stays);
        let Some((money, vat)) = draft.money() else { return };
        let key = (money.currency, vat);
        let place = self.sums.binary_search_by(|sum| (sum.amount.currency, &sum.vat).cmp(&key));
        let place = place.unwrap_or_else(|place| {
            let amount = Money { amount: Amount::ZERO, ..money };
            self.sums.insert(place, Sum { amount, vat: vat.clone(), stays: 0 });
            place
        });
        let sum = &mut self.sums[place];
        step(&mut sum.stays);
        let change = match sign {
            Sign::Add => money.amount,
            Sign::Subtract => money.amount.negated(),
        };
        sum.amount.amount = sum.amount.amount.saturating_add(change);
        if sum.stays == 0 {
            self.sums.remove(place);
        }
    }

    /// One amount for each currency, in their order.
    pub fn by_currency(&self) -> Vec<Money> {
        let mut amounts = MoneySums::default();
        self.sums.iter().for_each(|sum| amounts.add(sum.amount));
        amounts.list()
    }
}

pub fn account_key(account: u32) -> Vec<u8> {
    key_u32(b"vba", account)
}

pub fn garage_key(garage: u32) -> Vec<u8> {
    key_u32(b"vbg", garage)
}

/// The key of a garage's day.
pub fn day_key(garage: u32, day: Date) -> Vec<u8> {
    let date = [day.month() as u8, day.day() as u8];
    [b"vbr", &garage.to_be_bytes()[..], &day.year().to_be_bytes(), &date].concat()
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

/// The accounts and months, up to one, with stays that have no price, and how many.
pub fn months_without_price(store: &Store, through: Month) -> Result<Vec<(u32, Month, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in read_range::<Totals>(store, b"vbm", b"vbn") {
        let (key, totals) = entry?;
        let (account, month) = of_month_key(&key)?;
        let priced = totals.sums.iter().map(|sum| sum.stays).sum::<u64>();
        if month <= through && totals.stays > priced {
            found.push((account, month, totals.stays - priced));
        }
    }
    Ok(found)
}

/// What the stays of a garage cost that ended on a day, as last written.
pub fn read_day(store: &Store, garage: u32, day: Date) -> Result<Totals, StoreError> {
    Ok(read(store, &day_key(garage, day))?.unwrap_or_default())
}

pub fn read_month(store: &Store, account: u32, month: Month) -> Result<Option<Totals>, StoreError> {
    read(store, &month_key(account, month))
}
