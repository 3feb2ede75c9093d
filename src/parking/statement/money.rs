//! Amounts of money and rates of value added tax, in exact integers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A currency by its ISO 4217 code, with the number of decimals of its minor unit: 2 for EUR, 0 for JPY.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(String, u8)", into = "(String, u8)")]
pub struct Currency {
    pub code: Arc<str>,
    pub exponent: u8,
}

impl Currency {
    pub fn new(code: &str, exponent: u8) -> Currency {
        Currency { code: code.into(), exponent }
    }
}

impl From<(String, u8)> for Currency {
    fn from((code, exponent): (String, u8)) -> Currency {
        Currency { code: code.into(), exponent }
    }
}
impl From<Currency> for (String, u8) {
    fn from(currency: Currency) -> (String, u8) {
        (currency.code.to_string(), currency.exponent)
    }
}

/// An amount in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    pub fn new(minor: i64, currency: &Currency) -> Money {
        Money { minor, currency: currency.clone() }
    }

    /// The number alone, with all decimals of its currency and a point: `-3.50`.
    pub fn number(&self) -> Number {
        Number { minor: self.minor, exponent: self.currency.exponent }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.currency.code)
    }
}

/// An amount without its currency, as columns of numbers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    pub minor: i64,
    pub exponent: u8,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let decimals = usize::from(self.exponent);
        // At least one digit stands before the point.
        let digits = format!("{:0>width$}", self.minor.unsigned_abs(), width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let point = if decimals == 0 { "" } else { "." };
        f.pad(&format!("{sign}{whole}{point}{fraction}"))
    }
}

/// A rate of value added tax, in hundredths of a percent: 1900 is 19 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VatRate(pub u32);

impl VatRate {
    /// The part of `gross` that is tax, when prices include it: `gross × rate / (100 % + rate)`, rounded once, half away
    /// from zero. It never exceeds `gross`, and has its sign.
    pub fn within(self, gross: i64) -> i64 {
        let whole = 10_000 + i128::from(self.0);
        let tax = i128::from(gross) * i128::from(self.0);
        let rounded = (2 * tax.abs() + whole) / (2 * whole) * tax.signum();
        i64::try_from(rounded).expect("a part of an i64 is an i64")
    }

    /// The percentage as people write it: `19`, `7.7`.
    pub fn percent(self) -> String {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => whole.to_string(),
            part if part % 10 == 0 => format!("{whole}.{}", part / 10),
            part => format!("{whole}.{part:02}"),
        }
    }
}

impl fmt::Display for VatRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} %", self.percent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_amount_has_the_decimals_of_its_currency() {
        for (minor, code, exponent, shown) in [
            (350, "EUR", 2, "3.50 EUR"),
            (350, "JPY", 0, "350 JPY"),
            (350, "KWD", 3, "0.350 KWD"),
            (0, "EUR", 2, "0.00 EUR"),
            (7, "EUR", 2, "0.07 EUR"),
            (-7, "EUR", 2, "-0.07 EUR"),
            (-350, "EUR", 2, "-3.50 EUR"),
            (-100_000, "EUR", 2, "-1000.00 EUR"),
            (-1, "JPY", 0, "-1 JPY"),
            (i64::MIN, "EUR", 2, "-92233720368547758.08 EUR"),
        ] {
            assert_eq!(Money::new(minor, &Currency::new(code, exponent)).to_string(), shown);
        }
        assert_eq!(format!("{:>8}", Number { minor: -350, exponent: 2 }), "   -3.50");
    }

    #[test]
    fn a_rate_is_shown_without_needless_decimals() {
        for (rate, shown) in [(1900, "19 %"), (770, "7.7 %"), (255, "2.55 %"), (5, "0.05 %"), (0, "0 %")] {
            assert_eq!(VatRate(rate).to_string(), shown);
        }
    }

    #[test]
    fn the_tax_within_a_price_by_hand() {
        for (gross, rate, tax) in [
            (11_900, 1900, 1900),
            (350, 1900, 56),  // 55.88
            (3, 10_000, 2),   // 1.5: the half goes away from zero
            (-3, 10_000, -2), // also below it
            (1, 10_000, 1),   // 0.5
            (107, 700, 7),
            (1_000, 770, 71), // 71.49
            (1_000, 0, 0),
            (0, 1900, 0),
            (i64::MAX, u32::MAX, 9_223_350_562_068_290_691),
            (i64::MIN, u32::MAX, -9_223_350_562_068_290_692),
        ] {
            assert_eq!(VatRate(rate).within(gross), tax, "{gross} at {rate}");
        }
    }

    proptest! {
        /// The oracle is the definition of rounding: no whole number is nearer to the exact quotient, and of two that are
        /// equally near it is the one farther from zero.
        #[test]
        fn tax_is_the_nearest_whole_number(gross in any::<i64>(), rate in prop_oneof![0u32..20_000, any::<u32>()]) {
            let tax = i128::from(VatRate(rate).within(gross));
            let (numerator, denominator) = (i128::from(gross) * i128::from(rate), 10_000 + i128::from(rate));
            let error = 2 * (tax * denominator - numerator);
            prop_assert!(error.abs() <= denominator);
            if error.abs() == denominator {
                prop_assert_eq!(error.signum(), numerator.signum(), "a half goes away from zero");
            }
            prop_assert!(tax.abs() <= i128::from(gross).abs() && tax.signum() * i128::from(gross).signum() >= 0);
        }

        #[test]
        fn a_shown_number_is_the_amount(minor in any::<i64>(), exponent in 0u8..5) {
            let shown = Number { minor, exponent }.to_string();
            let decimals = shown.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            prop_assert_eq!(decimals, usize::from(exponent));
            prop_assert_eq!(shown.replace('.', "").parse::<i64>(), Ok(minor));
        }
    }
}
