//! To which account a plate is registered, by date.

use super::DateRange;
use crate::parking::name::Account;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// In these dates the plate is registered to this account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub dates: DateRange,
    pub account: Account,
}

/// The registrations of one plate, in the order of their dates. No two overlap, and where one follows another of the same account on
/// the next day, they are one: what is here depends only on who holds the plate on which day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders(Box<[Held]>);

impl Holders {
    pub fn list(&self) -> &[Held] {
        &self.0
    }

    pub fn on(&self, day: Date) -> Option<&Account> {
        let held = self.0.partition_point(|held| held.dates.last().is_some_and(|last| last < day));
        self.0.get(held).filter(|held| held.dates.contains(day)).map(|held| &held.account)
    }

    /// The registrations that have a day in `dates`.
    pub fn overlapping(&self, dates: DateRange) -> impl Iterator<Item = &Held> {
        let before =
            |held: &Held| held.dates.last().zip(dates.first()).is_some_and(|(last, first)| last < first);
        let from = self.0.partition_point(before);
        self.0[from..].iter().take_while(move |held| held.dates.overlap(dates).is_some())
    }

    /// Registers the plate to `account` in `dates`, or to nobody. What it was before in these dates ends the day before, and goes on the
    /// day after.
    pub fn set(&self, dates: DateRange, account: Option<&Account>) -> Holders {
        let mut all = Vec::with_capacity(self.0.len() + 2);
        for held in &self.0 {
            let rest = held.dates.without(dates);
            all.extend(rest.map(|dates| Held { dates, account: held.account.clone() }));
        }
        all.extend(account.map(|account| Held { dates, account: account.clone() }));
        all.sort_unstable_by_key(|held| held.dates);
        let mut joined: Vec<Held> = Vec::with_capacity(all.len());
        for held in all {
            let last = joined.last_mut().filter(|last| last.account == held.account);
            match last.and_then(|last| Some((last.dates.joined(held.dates)?, last))) {
                Some((dates, last)) => last.dates = dates,
                None => joined.push(held),
            }
        }
        Holders(joined.into())
    }

    /// The parts of `dates` in which the plate is not registered to `account`, or is registered, where that is `None`.
    pub fn differing(&self, dates: DateRange, account: Option<&Account>) -> Vec<DateRange> {
        let held = self.overlapping(dates);
        let Some(account) = account else {
            return held.filter_map(|held| held.dates.overlap(dates)).collect();
        };
        let mut rest = vec![dates];
        for held in held.filter(|held| held.account == *account) {
            let Some(last) = rest.pop() else { break };
            rest.extend(last.without(held.dates));
        }
        rest
    }

    /// An upper bound of the encoded size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|held| held.account.as_str().len() + 12).sum()
    }
}
