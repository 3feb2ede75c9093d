//! Money as the city counts it: whole minor units of each currency.
//!
//! **Promise.** Nothing is rounded or converted. Shares no code with the daemons' arithmetic.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What was taken minus what was given back, by currency. A currency of which nothing is left is not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<TakenAmount>", into = "Vec<TakenAmount>")]
pub struct Takings(BTreeMap<String, i128>);

/// As the server and the city's report list it: `{"amount":350,"currency":"GBP"}`.
#[derive(Serialize, Deserialize)]
struct TakenAmount {
    amount: i128,
    currency: String,
}

impl Takings {
    pub fn add(&mut self, minor: i128, currency: &str) {
        let total = self.0.entry(currency.to_owned()).or_default();
        *total += minor;
        if *total == 0 {
            self.0.remove(currency);
        }
    }

    pub fn add_all(&mut self, other: &Takings) {
        other.0.iter().for_each(|(currency, minor)| self.add(*minor, currency));
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<TakenAmount>> for Takings {
    fn from(amounts: Vec<TakenAmount>) -> Takings {
        let mut takings = Takings::default();
        amounts.iter().for_each(|one| takings.add(one.amount, &one.currency));
        takings
    }
}

impl From<Takings> for Vec<TakenAmount> {
    fn from(Takings(by_currency): Takings) -> Vec<TakenAmount> {
        by_currency.into_iter().map(|(currency, amount)| TakenAmount { amount, currency }).collect()
    }
}

/// `1,204.50 GBP`; several currencies joined by `+`; `0` for nothing.
impl fmt::Display for Takings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.pad("0");
        }
        let shown: Vec<String> = self.0.iter().map(|(currency, minor)| shown(*minor, currency)).collect();
        f.pad(&shown.join(" + "))
    }
}

fn shown(minor: i128, currency: &str) -> String {
    let decimals = iso_currency::Currency::from_code(currency).and_then(|known| known.exponent());
    let decimals = usize::from(decimals.unwrap_or(0));
    let (sign, minor) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
    let unit = 10_u128.pow(decimals as u32);
    let whole = grouped(minor / unit);
    if decimals == 0 {
        return format!("{sign}{whole} {currency}");
    }
    format!("{sign}{whole}.{:0decimals$} {currency}", minor % unit)
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takings(amounts: &[(i128, &str)]) -> Takings {
        let mut takings = Takings::default();
        amounts.iter().for_each(|(amount, currency)| takings.add(*amount, currency));
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
    fn numbers_are_grouped() {
        assert_eq!(["0", "999", "1,000", "2,239,705"], [0_u32, 999, 1_000, 2_239_705].map(grouped));
    }

    #[test]
    fn amounts_are_added_by_currency() {
        let mut total = takings(&[(1, "EUR"), (2, "GBP")]);
        total.add_all(&takings(&[(3, "EUR")]));
        assert_eq!(total, takings(&[(4, "EUR"), (2, "GBP")]));
        let json = serde_json::to_string(&total).expect("JSON");
        assert_eq!(json, r#"[{"amount":4,"currency":"EUR"},{"amount":2,"currency":"GBP"}]"#);
        assert_eq!(serde_json::from_str::<Takings>(&json).expect("JSON"), total);
        assert!(takings(&[(7, "EUR"), (-7, "EUR")]).is_nothing());
    }
}
