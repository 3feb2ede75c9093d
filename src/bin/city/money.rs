//! Money as the city counts it: whole minor units of each currency.
//!
//! **Promise.** Nothing is rounded or converted. Shares no code with the daemons' arithmetic; only the way in which
//! people write an amount comes from there.

use fogpost::parking::tariff::{Amount, Currency, Money};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An amount in an answer of the server: `{"amount":350,"currency":"GBP"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub amount: i64,
    pub currency: String,
}

/// What was taken, less what was given back. A currency of which nothing is left is as none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takings(BTreeMap<String, i128>);

impl Takings {
    pub fn add(&mut self, amount: i64, currency: &str) {
        self.add_minor(i128::from(amount), currency);
    }

    fn add_minor(&mut self, minor: i128, currency: &str) {
        let total = match self.0.get_mut(currency) {
            Some(total) => total,
            None => self.0.entry(currency.to_owned()).or_default(),
        };
        *total += minor;
        if *total == 0 {
            self.0.remove(currency);
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Extend<&'a Takings> for Takings {
    fn extend<T: IntoIterator<Item = &'a Takings>>(&mut self, all: T) {
        for takings in all {
            takings.0.iter().for_each(|(currency, minor)| self.add_minor(*minor, currency));
        }
    }
}

impl<'a> FromIterator<&'a Takings> for Takings {
    fn from_iter<T: IntoIterator<Item = &'a Takings>>(all: T) -> Takings {
        let mut takings = Takings::default();
        takings.extend(all);
        takings
    }
}

impl From<&[Sum]> for Takings {
    fn from(sums: &[Sum]) -> Takings {
        let mut takings = Takings::default();
        sums.iter().for_each(|sum| takings.add(sum.amount, &sum.currency));
        takings
    }
}

impl Serialize for Takings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            amount: i128,
            currency: &'a str,
        }
        serializer.collect_seq(self.0.iter().map(|(currency, amount)| Line { amount: *amount, currency }))
    }
}

/// `1,204.50 GBP`; several currencies joined by `+`; `0` for nothing.
impl fmt::Display for Takings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("0");
        }
        for (nth, (code, minor)) in self.0.iter().enumerate() {
            let shown = match (Currency::new(code), i64::try_from(*minor)) {
                (Ok(currency), Ok(minor)) => Money { amount: Amount::of_minor(minor), currency }.to_string(),
                _ => format!("{minor} {code}"),
            };
            write!(f, "{}{}", if nth > 0 { " + " } else { "" }, grouped(&shown))?;
        }
        Ok(())
    }
}

/// `1204.50 GBP` as `1,204.50 GBP`.
fn grouped(shown: &str) -> String {
    let first = shown.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
    let digits = shown[first..].find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len() - first);
    let mut out = shown[..first].to_owned();
    for (place, digit) in shown[first..first + digits].chars().enumerate() {
        if place > 0 && (digits - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + &shown[first + digits..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takings(sums: &[(i64, &str)]) -> Takings {
        let mut takings = Takings::default();
        sums.iter().for_each(|(amount, currency)| takings.add(*amount, currency));
        takings
    }

    #[test]
    fn money_is_shown_as_people_write_it() {
        assert_eq!(takings(&[(123_456_789, "GBP")]).to_string(), "1,234,567.89 GBP");
        assert_eq!(takings(&[(350, "JPY"), (5, "EUR")]).to_string(), "0.05 EUR + 350 JPY");
        assert_eq!(takings(&[(-100_000, "EUR")]).to_string(), "-1,000.00 EUR");
        assert_eq!(takings(&[(7, "???")]).to_string(), "7 ???");
        assert_eq!(takings(&[(7, "EUR"), (-7, "EUR")]).to_string(), "0");
    }

    #[test]
    fn sums_are_kept_by_currency() {
        let total: Takings =
            [&takings(&[(1, "EUR"), (2, "GBP")]), &takings(&[(3, "EUR")])].into_iter().collect();
        assert_eq!(total, takings(&[(4, "EUR"), (2, "GBP")]));
        let json = serde_json::to_string(&total).expect("JSON");
        assert_eq!(json, r#"[{"amount":4,"currency":"EUR"},{"amount":2,"currency":"GBP"}]"#);
        let again: Vec<Sum> = serde_json::from_str(&json).expect("JSON");
        assert_eq!(Takings::from(&again[..]), total);
        assert!(takings(&[(7, "EUR"), (-7, "EUR")]).is_nothing());
    }
}
