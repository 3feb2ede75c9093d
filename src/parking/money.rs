//! Money: whole minor units of an ISO 4217 currency, and the tax within them.
//!
//! **Promise.** No amount is ever rounded, wraps around or changes its currency in silence.
//! **Kept by.** An amount is an integer; where a sum may not fit, the method's name says what happens then; only
//! [`VatRate::net_of`] rounds. [`Money`] combines an amount with its currency.

use serde::{Deserialize, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An amount in minor units: cents where there are cents, yen where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(i64);

impl Amount {
    pub const ZERO: Amount = Amount(0);
    pub const MAX: Amount = Amount(i64::MAX);

    pub const fn of_minor(minor: i64) -> Amount {
        Amount(minor)
    }

    pub const fn minor(self) -> i64 {
        self.0
    }

    pub fn saturating_times(self, count: u64) -> Amount {
        Amount(self.0.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX)))
    }

    /// Of the opposite sign.
    pub const fn negated(self) -> Amount {
        Amount(self.0.saturating_neg())
    }

    pub const fn saturating_add(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }

    pub const fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// What is left after `other` is taken away; nothing when that is more.
    pub fn less_at_most(self, other: Amount) -> Amount {
        self.saturating_sub(other).max(Amount::ZERO)
    }
}

/// A currency of ISO 4217 that has coins or notes: the standard says how many decimals it is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency is the ISO 4217 code of a currency used for payments, such as \"EUR\"")]
pub struct NoCurrency;

impl Currency {
    /// `code` in three capital letters. Gold, testing codes and the like are in the standard and are refused.
    pub fn new(code: &str) -> Result<Currency, NoCurrency> {
        let currency = iso_currency::Currency::from_code(code).ok_or(NoCurrency)?;
        currency.exponent().map(|_| Currency(currency)).ok_or(NoCurrency)
    }

    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many decimals: EUR 2, JPY 0, KWD 3.
    pub fn decimals(self) -> usize {
        self.0.exponent().map_or(0, usize::from)
    }

    /// As people write it, with all decimals and a point, without the code: 3.50.
    pub fn show(self, amount: Amount) -> String {
        let (sign, minor) = (if amount.0 < 0 { "-" } else { "" }, amount.0.unsigned_abs());
        match self.decimals() {
            0 => format!("{sign}{minor}"),
            decimals => {
                let one = 10u64.pow(decimals as u32);
                format!("{sign}{}.{:0decimals$}", minor / one, minor % one)
            }
        }
    }
}

/// In the order of the codes.
impl Ord for Currency {
    fn cmp(&self, other: &Currency) -> Ordering {
        self.code().cmp(other.code())
    }
}

impl PartialOrd for Currency {
    fn partial_cmp(&self, other: &Currency) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Currency {
    type Err = NoCurrency;
    fn from_str(code: &str) -> Result<Currency, NoCurrency> {
        Currency::new(code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

serialize_as_text!(Currency);

/// An amount of a currency: `{"amount":350,"currency":"EUR"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    pub amount: Amount,
    pub currency: Currency,
}

impl Money {
    pub const fn of_minor(minor: i64, currency: Currency) -> Money {
        Money { amount: Amount::of_minor(minor), currency }
    }

    pub const fn minor(self) -> i64 {
        self.amount.minor()
    }
}

/// What amounts come to, for each currency.
#[derive(Debug, Default)]
pub struct MoneySums(BTreeMap<Currency, Amount>);

impl MoneySums {
    pub fn add(&mut self, money: Money) {
        let sum = self.0.entry(money.currency).or_default();
        *sum = sum.saturating_add(money.amount);
    }

    /// In the order of the currencies; a sum of zero is one of them.
    pub fn list(self) -> Vec<Money> {
        self.0.into_iter().map(|(currency, amount)| Money { amount, currency }).collect()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.currency.show(self.amount), self.currency))
    }
}

/// A rate of value-added tax, in hundredths of a percent: 19 % is 1900, 8.1 % is 810.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VatRate(u16);

impl VatRate {
    /// `None` above 100 %.
    pub const fn of_hundredths(hundredths: u16) -> Option<VatRate> {
        if hundredths <= 10_000 { Some(VatRate(hundredths)) } else { None }
    }

    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// The net amount within `gross`, rounded once to a minor unit, half away from zero. What is left of `gross` is the tax.
    pub fn net_of(self, gross: Amount) -> Amount {
        let whole = i128::from(self.whole());
        let rounded = (20_000 * i128::from(gross.0.unsigned_abs()) + whole) / (2 * whole);
        // At most the gross, whose lowest value alone has no opposite.
        Amount(i64::try_from(rounded * i128::from(gross.0.signum())).unwrap_or(i64::MIN))
    }

    /// How many ten-thousandths of the net amount the gross amount is.
    pub const fn whole(self) -> u32 {
        10_000 + self.0 as u32
    }
}

/// The VAT of an amount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VatBasis {
    Rate(VatRate),
    /// None is charged, for this reason, as documents state it.
    Exempt(String),
}

impl VatBasis {
    /// `None`: there is no VAT.
    pub fn rate(&self) -> Option<VatRate> {
        match self {
            VatBasis::Rate(rate) => Some(*rate),
            VatBasis::Exempt(_) => None,
        }
    }
}

/// As a number of percent, for `serialize_with`: 19, 8.1 or null.
pub fn as_percent<S: Serializer>(rate: &Option<VatRate>, serializer: S) -> Result<S::Ok, S::Error> {
    match rate.map(VatRate::hundredths) {
        None => serializer.serialize_none(),
        Some(hundredths) if hundredths % 100 == 0 => serializer.serialize_u16(hundredths / 100),
        // The nearest binary fraction is written with its two decimals again.
        Some(hundredths) => serializer.serialize_f64(f64::from(hundredths) / 100.0),
    }
}

/// `19` or `8.1`, as it stands in a configuration.
impl fmt::Display for VatRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_currency_has_its_own_decimals() {
        for (minor, code, shown) in [
            (350, "EUR", "3.50 EUR"),
            (350, "JPY", "350 JPY"),
            (350, "KWD", "0.350 KWD"),
            (1050, "KWD", "1.050 KWD"),
            (0, "EUR", "0.00 EUR"),
            (-5, "EUR", "-0.05 EUR"),
            (-350, "EUR", "-3.50 EUR"),
            (-100_000, "EUR", "-1000.00 EUR"),
            (-1, "JPY", "-1 JPY"),
            (i64::MIN, "EUR", "-92233720368547758.08 EUR"),
        ] {
            assert_eq!(Money::of_minor(minor, Currency::new(code).unwrap()).to_string(), shown);
        }
    }

    #[test]
    fn what_nobody_pays_with_is_no_currency() {
        for code in ["", "eur", "EURO", "XXX", "XAU", "ABC", "€"] {
            assert_eq!(Currency::new(code), Err(NoCurrency), "{code}");
        }
    }

    #[test]
    fn net_is_rounded_once_half_away_from_zero() {
        let net = |hundredths, gross| {
            VatRate::of_hundredths(hundredths).unwrap().net_of(Amount::of_minor(gross)).minor()
        };
        assert_eq!(net(1900, 11900), 10_000);
        assert_eq!(net(1900, 350), 294); // 294.12
        assert_eq!(net(770, 1_000), 929); // 928.51
        assert_eq!(net(810, 25), 23); // 23.127
        assert_eq!(net(10_000, 1), 1); // 0.5
        assert_eq!(net(10_000, -1), -1);
        assert_eq!(net(10_000, 3), 2); // 1.5
        assert_eq!(net(10_000, -3), -2);
        assert_eq!(net(0, 350), 350);
        assert_eq!(net(10_000, i64::MAX), i64::MAX / 2 + 1);
        assert_eq!(VatRate::of_hundredths(10_001), None);
    }

    #[test]
    fn a_rate_is_shown_as_it_was_written() {
        let shown = |hundredths| VatRate::of_hundredths(hundredths).unwrap().to_string();
        assert_eq!([1900, 810, 255, 505, 5, 0].map(shown), ["19", "8.1", "2.55", "5.05", "0.05", "0"]);
    }

    #[test]
    fn a_percentage_keeps_its_decimals() {
        for (hundredths, shown) in [(1900, "19"), (770, "7.7"), (255, "2.55"), (1, "0.01"), (0, "0")] {
            let mut json = Vec::new();
            as_percent(&VatRate::of_hundredths(hundredths), &mut serde_json::Serializer::new(&mut json))
                .unwrap();
            assert_eq!(String::from_utf8(json).unwrap(), shown);
        }
    }

    #[test]
    fn money_is_stored_small_and_shown_as_the_contract_says() {
        let money = Money { amount: Amount::of_minor(350), currency: Currency::new("EUR").unwrap() };
        assert_eq!(serde_json::to_string(&money).unwrap(), r#"{"amount":350,"currency":"EUR"}"#);
        let bytes = postcard::to_stdvec(&money).unwrap();
        assert_eq!(bytes.len(), 6);
        assert_eq!(postcard::from_bytes::<Money>(&bytes).unwrap(), money);
    }

    proptest! {
        /// The oracle is the definition of rounding: no whole number is nearer to the exact quotient, and of two that are
        /// equally near it is the one farther from zero.
        #[test]
        fn net_is_the_nearest_whole_number(gross in any::<i64>(), small in -200i64..200, rate in 0u16..=10_000) {
            for (gross, rate) in [(gross, rate), (small, rate), (small, 2_000), (small, 10_000)] {
                let net = VatRate::of_hundredths(rate).unwrap().net_of(Amount::of_minor(gross)).minor();
                let (numerator, denominator) = (i128::from(gross) * 10_000, 10_000 + i128::from(rate));
                let error = 2 * (i128::from(net) * denominator - numerator);
                prop_assert!(error.abs() <= denominator);
                if error.abs() == denominator {
                    prop_assert_eq!(error.signum(), numerator.signum(), "a half goes away from zero");
                }
                prop_assert!(net.unsigned_abs() <= gross.unsigned_abs() && net.signum() * gross.signum() >= 0);
            }
        }

        #[test]
        fn a_shown_number_is_the_amount(minor in any::<i64>(), code in prop::sample::select(&["EUR", "JPY", "KWD"])) {
            let currency = Currency::new(code).unwrap();
            let shown = currency.show(Amount::of_minor(minor));
            let decimals = shown.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            prop_assert_eq!(decimals, currency.decimals());
            prop_assert_eq!(shown.replace('.', "").parse::<i64>(), Ok(minor));
        }
    }
}
