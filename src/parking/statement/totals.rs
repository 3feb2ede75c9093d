//! The sums of a statement.

use super::StatementLine;
use crate::parking::money::{Amount, Currency, Money, VatRate, as_percent};
use serde::Serialize;
use std::collections::BTreeMap;

/// What one currency comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Total {
    pub currency: Currency,
    pub gross: Money,
    pub net: Money,
    pub vat: Money,
    /// For each rate, in ascending order; what is outside of VAT comes first.
    pub rates: Vec<RateTotal>,
}

/// What one rate of one currency comes to: `gross = net + vat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateTotal {
    #[serde(rename = "vat_percent", serialize_with = "as_percent")]
    pub rate: Option<VatRate>,
    pub gross: Money,
    pub net: Money,
    pub vat: Money,
}

/// The lines do not add up to a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sum in {currency} does not fit into 64 bits")]
pub struct StatementError {
    currency: Currency,
}

/// The totals of `lines`: VAT once on the sum of each rate.
pub(super) fn add_up(lines: &[StatementLine]) -> Result<Vec<Total>, StatementError> {
    let mut sums: BTreeMap<Currency, BTreeMap<Option<VatRate>, i128>> = BTreeMap::new();
    for line in lines {
        let by_rate = sums.entry(line.amount.currency).or_default();
        // No number of lines that memory can hold exceeds 128 bits.
        *by_rate.entry(line.vat).or_default() += i128::from(line.amount.minor());
    }
    sums.into_iter().map(|(currency, by_rate)| total(currency, by_rate)).collect()
}

fn total(currency: Currency, by_rate: BTreeMap<Option<VatRate>, i128>) -> Result<Total, StatementError> {
    let overflow = || StatementError { currency };
    let money = |minor| Money::of_minor(minor, currency);
    let mut rates = Vec::with_capacity(by_rate.len());
    for (rate, sum) in by_rate {
        let sum = in_64_bits(sum).ok_or_else(overflow)?;
        let tax = rate.map_or(0, |rate| rate.within(Amount::of_minor(sum)).minor());
        // A tax is a part of its sum, with the same sign.
        rates.push(RateTotal { rate, gross: money(sum), net: money(sum - tax), vat: money(tax) });
    }
    let sum = |part: fn(&RateTotal) -> Money| {
        let sum = rates.iter().map(|rate| i128::from(part(rate).minor())).sum::<i128>();
        in_64_bits(sum).map(money).ok_or_else(overflow)
    };
    let (gross, net, vat) = (sum(|rate| rate.gross)?, sum(|rate| rate.net)?, sum(|rate| rate.vat)?);
    assert_eq!(i128::from(gross.minor()), i128::from(net.minor()) + i128::from(vat.minor()));
    Ok(Total { currency, gross, net, vat, rates })
}

/// A sum whose negative also fits: a journal writes what is given back on the other side.
fn in_64_bits(sum: i128) -> Option<i64> {
    i64::try_from(sum).ok().filter(|sum| *sum != i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{any_lines, credit, euro, vat, yen};
    use super::*;
    use proptest::prelude::*;

    fn sums(lines: &[StatementLine]) -> Vec<(String, i64, i64, i64)> {
        let totals = add_up(lines).unwrap();
        let rates = totals.iter().flat_map(|total| &total.rates);
        rates
            .map(|sum| {
                let rate = sum.rate.map_or("none".to_owned(), |rate| rate.to_string());
                (
                    format!("{} {rate}", sum.gross.currency),
                    sum.gross.minor(),
                    sum.net.minor(),
                    sum.vat.minor(),
                )
            })
            .collect()
    }

    #[test]
    fn vat_is_computed_once_on_the_sum_of_its_rate() {
        // One line has 55.88 in it, nine of them 502.94.
        let rate = vat(1900);
        let one = credit(350, euro(), rate);
        assert_eq!(sums(std::slice::from_ref(&one)), [("EUR 19".into(), 350, 294, 56)]);
        let nine: Vec<StatementLine> = std::iter::repeat_n(one, 9).collect();
        assert_eq!(sums(&nine), [("EUR 19".into(), 3150, 2647, 503)], "9 × 56 would be 504");
    }

    #[test]
    fn currencies_and_rates_stand_apart() {
        let lines = [
            credit(500, yen(), None),
            credit(1070, euro(), vat(700)),
            credit(-119, euro(), vat(1900)),
            credit(42, euro(), None),
            credit(8, euro(), vat(0)),
        ];
        let expected = [
            ("EUR none".into(), 42, 42, 0),
            ("EUR 0".into(), 8, 8, 0),
            ("EUR 7".into(), 1070, 1000, 70),
            ("EUR 19".into(), -119, -100, -19),
            ("JPY none".into(), 500, 500, 0),
        ];
        assert_eq!(sums(&lines), expected);
        let totals = add_up(&lines).unwrap();
        assert_eq!((totals[0].gross.minor(), totals[0].net.minor(), totals[0].vat.minor()), (1001, 950, 51));
        assert_eq!(add_up(&[]), Ok(vec![]));
    }

    #[test]
    fn what_does_not_add_up_is_said() {
        let most = credit(i64::MAX, euro(), None);
        let overflow = Err(StatementError { currency: euro() });
        assert_eq!(add_up(&[most.clone(), credit(1, euro(), None)]), overflow);
        assert_eq!(add_up(&[most.clone(), credit(1, euro(), vat(0))]), overflow);
        assert_eq!(add_up(&[credit(i64::MIN, euro(), None)]), overflow);
        // On the way to a sum that has a place nothing overflows.
        let back = [most.clone(), credit(1, euro(), None), credit(-2, euro(), None)];
        assert_eq!(add_up(&back).unwrap()[0].gross.minor(), i64::MAX - 1);
    }

    proptest! {
        #[test]
        fn the_sum_of_a_statement_is_the_sum_of_its_lines(lines in any_lines()) {
            for total in add_up(&lines).unwrap() {
                let currency = total.gross.currency;
                let its = lines.iter().filter(|line| line.amount.currency == currency);
                prop_assert_eq!(total.gross.minor(), its.clone().map(|line| line.amount.minor()).sum::<i64>());
                prop_assert_eq!(total.gross.minor(), total.net.minor() + total.vat.minor());
                prop_assert_eq!(total.vat.minor(), total.rates.iter().map(|sum| sum.vat.minor()).sum::<i64>());
                for sum in &total.rates {
                    let of_rate = its.clone().filter(|line| line.vat == sum.rate);
                    prop_assert_eq!(sum.gross.minor(), of_rate.map(|line| line.amount.minor()).sum::<i64>());
                    prop_assert_eq!(sum.gross.minor(), sum.net.minor() + sum.vat.minor());
                    // gross / (1 + rate) is net, up to half a minor unit: in whole numbers.
                    let rate = i128::from(sum.rate.map_or(0, |rate| rate.hundredths()));
                    let exact = i128::from(sum.gross.minor()) * 10_000;
                    let error = i128::from(sum.net.minor()) * (10_000 + rate) - exact;
                    prop_assert!(2 * error.abs() <= 10_000 + rate);
                }
            }
        }
    }
}
