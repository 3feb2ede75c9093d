//! The sums of a document, and the share of each line in them.
//!
//! **Promise.** For each VAT rate, net is rounded once on the sum of the gross amounts, half away from zero. The net amounts of the lines
//! add up to it exactly, and none is a minor unit or more away from its exact value.
//! **Kept by.** The largest remainder method: each line gets its exact net amount rounded down; the minor units that are missing
//! then go to the lines that lost most, the earlier first. A remainder is a whole number below 20,000, so counting them takes a small
//! table, however many lines there are.

use crate::parking::Month;
use crate::parking::journal::SupplyTotal;
use crate::parking::money::{Amount, VatBasis};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What a document comes to: `gross = net + vat`, here and for each rate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentTotals {
    /// How many lines there are.
    pub lines: u64,
    pub gross: Amount,
    pub net: Amount,
    pub vat: Amount,
    /// For each rate, in ascending order; what has no VAT comes last.
    pub rates: Vec<RateSum>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateSum {
    pub rate: VatBasis,
    pub gross: Amount,
    pub net: Amount,
    pub vat: Amount,
}

/// The amount of a line. What is left of `gross` after `net` is its VAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineAmount {
    /// Its place in [`DocumentTotals::rates`]. `None`: nothing is charged, so there is no rate.
    pub rate: Option<u16>,
    pub gross: Amount,
    pub net: Amount,
}

impl LineAmount {
    /// Zero or of the sign of the gross amount.
    pub fn vat(self) -> Amount {
        self.gross.saturating_sub(self.net)
    }
}

/// An earlier document that a line corrects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CorrectedDocument<T = SmolStr> {
    pub number: T,
    /// Its date of issue.
    pub date: Date,
}

/// No document can be made of the lines. Nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TotalsError {
    #[error("the sum of the lines does not fit into 64 bits: issue fewer stays at a time")]
    TooLarge,
    #[error("the lines have more than 65,535 VAT rates or reasons for no VAT: issue fewer stays at a time")]
    TooManyRates,
    /// A mistake of the caller, as `Changed`.
    #[error("a line has an amount, but neither a VAT rate nor a reason for no VAT")]
    NoRate,
    #[error("the lines changed between adding them up and sharing the net amounts")]
    Changed,
}

/// Adds lines up, one after the other.
#[derive(Debug, Default)]
pub struct TotalsBuilder {
    lines: u64,
    rates: BTreeMap<VatBasis, RateBuilder>,
    corrects: BTreeSet<CorrectedDocument>,
}

#[derive(Debug, Default)]
struct RateBuilder {
    gross: i128,
    /// The sum of the net amounts, each rounded down.
    rounded_down: i128,
    /// How many lines lose how much by that.
    remainders: BTreeMap<u32, u64>,
}

impl TotalsBuilder {
    /// Adds a line. A line without a rate has the amount 0.
    pub fn add(&mut self, rate: Option<&VatBasis>, gross: Amount) -> Result<(), TotalsError> {
        self.lines += 1;
        let Some(rate) = rate else {
            return if gross == Amount::ZERO { Ok(()) } else { Err(TotalsError::NoRate) };
        };
        if !self.rates.contains_key(rate) {
            self.rates.insert(rate.clone(), RateBuilder::default());
        }
        let sum = self.rates.get_mut(rate).expect("it was inserted");
        let (net, remainder) = rounded_down(rate, gross);
        // No number of lines that can be counted exceeds 128 bits.
        sum.gross += i128::from(gross.minor());
        sum.rounded_down += i128::from(net);
        if remainder > 0 {
            *sum.remainders.entry(remainder).or_default() += 1;
        }
        Ok(())
    }

    /// A line corrects this document.
    pub fn corrects(&mut self, document: &CorrectedDocument) {
        if !self.corrects.contains(document) {
            self.corrects.insert(document.clone());
        }
    }

    /// The totals and the corrected documents for the head, and what divides the net amounts over the lines.
    pub fn finish(self) -> Result<(DocumentTotals, Vec<CorrectedDocument>, Shares), TotalsError> {
        let mut totals = DocumentTotals { lines: self.lines, ..DocumentTotals::default() };
        let mut shares = Shares::default();
        let (mut gross, mut net) = (0i128, 0i128);
        for (number, (rate, sum)) in self.rates.into_iter().enumerate() {
            let of_rate = in_64_bits(sum.gross)?;
            let net_of_rate = match &rate {
                VatBasis::Rate(rate) => rate.net_of(of_rate),
                VatBasis::Exempt(_) => of_rate,
            };
            (gross, net) = (gross + sum.gross, net + i128::from(net_of_rate.minor()));
            let missing = i128::from(net_of_rate.minor()) - sum.rounded_down;
            let number = u16::try_from(number).map_err(|_| TotalsError::TooManyRates)?;
            shares.rates.insert(rate.clone(), RateShares::new(number, missing, &sum.remainders));
            // A tax is a part of its sum, with the same sign.
            let vat = of_rate.saturating_sub(net_of_rate);
            totals.rates.push(RateSum { rate, gross: of_rate, net: net_of_rate, vat });
        }
        (totals.gross, totals.net) = (in_64_bits(gross)?, in_64_bits(net)?);
        totals.vat = in_64_bits(gross - net)?;
        Ok((totals, self.corrects.into_iter().collect(), shares))
    }
}

/// A sum whose negative also fits: a journal writes what is given back on the other side.
fn in_64_bits(sum: i128) -> Result<Amount, TotalsError> {
    let sum = i64::try_from(sum).ok().filter(|sum| *sum != i64::MIN);
    sum.map(Amount::of_minor).ok_or(TotalsError::TooLarge)
}

/// The net amount of a line rounded down, and what that loses, in parts of a minor unit: of as many as [`VatRate::whole`] says.
fn rounded_down(rate: &VatBasis, gross: Amount) -> (i64, u32) {
    let VatBasis::Rate(rate) = rate else { return (gross.minor(), 0) };
    let (exact, parts) = (10_000 * i128::from(gross.minor()), i128::from(rate.whole()));
    let net = i64::try_from(exact.div_euclid(parts)).expect("it is not farther from zero than the gross");
    (net, u32::try_from(exact.rem_euclid(parts)).expect("it is below 20,000"))
}

/// Divides the net amounts over the lines, which must be those that were added, in the same order.
#[derive(Debug, Default)]
pub struct Shares {
    rates: BTreeMap<VatBasis, RateShares>,
    /// Net and VAT by the number of a rate and the month of supply.
    supplies: BTreeMap<(u16, Month), [i128; 2]>,
}

#[derive(Debug)]
struct RateShares {
    number: u16,
    /// Each line that loses more than this gets a minor unit more.
    threshold: u32,
    /// How many of those that lose just as much get one.
    left: u64,
}

impl RateShares {
    fn new(number: u16, missing: i128, remainders: &BTreeMap<u32, u64>) -> RateShares {
        let mut missing = u64::try_from(missing).expect("what was rounded down is not above the sum");
        let mut shares = RateShares { number, threshold: u32::MAX, left: 0 };
        for (&remainder, &count) in remainders.iter().rev() {
            if missing == 0 {
                break;
            }
            (shares.threshold, shares.left) = (remainder, count.min(missing));
            missing -= shares.left;
        }
        assert_eq!(missing, 0, "less than a minor unit is missing for each line that was rounded down");
        shares
    }
}

impl Shares {
    /// The amount of the next line, with its share of the net sum of its rate.
    pub fn next(
        &mut self,
        rate: Option<&VatBasis>,
        gross: Amount,
        month: Month,
    ) -> Result<LineAmount, TotalsError> {
        let Some(rate) = rate else { return Ok(LineAmount { rate: None, gross, net: gross }) };
        let shares = self.rates.get_mut(rate).ok_or(TotalsError::Changed)?;
        let (mut net, remainder) = rounded_down(rate, gross);
        if remainder > shares.threshold {
            net += 1;
        } else if remainder == shares.threshold && shares.left > 0 {
            net += 1;
            shares.left -= 1;
        }
        let amount = LineAmount { rate: Some(shares.number), gross, net: Amount::of_minor(net) };
        let supply = self.supplies.entry((shares.number, month)).or_default();
        supply[0] += i128::from(amount.net.minor());
        supply[1] += i128::from(amount.vat().minor());
        Ok(amount)
    }

    /// The sums for each rate and month of supply, once each line has its amount.
    pub fn finish(self) -> Result<Vec<SupplyTotal>, TotalsError> {
        let rates: Vec<VatBasis> = self.rates.into_keys().collect();
        let supplies = self.supplies.into_iter().map(|((rate, month), [net, vat])| {
            let basis = rates[usize::from(rate)].clone();
            Ok(SupplyTotal { basis, month, net: in_64_bits(net)?, vat: in_64_bits(vat)? })
        });
        supplies.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::money::VatRate;
    use proptest::prelude::*;

    fn rate(hundredths: u16) -> VatBasis {
        VatBasis::Rate(VatRate::of_hundredths(hundredths).unwrap())
    }
    fn exempt() -> VatBasis {
        VatBasis::Exempt("exempt under section 4".into())
    }

    fn shared(lines: &[(VatBasis, i64)]) -> Result<(DocumentTotals, Vec<i64>), TotalsError> {
        let mut builder = TotalsBuilder::default();
        for (rate, gross) in lines {
            builder.add(Some(rate), Amount::of_minor(*gross))?;
        }
        let (totals, _, mut shares) = builder.finish()?;
        let month = |n: usize| Month::new(2026, 1 + (n % 3) as i8).unwrap();
        let net = lines.iter().enumerate().map(|(n, (rate, gross))| {
            let amount = shares.next(Some(rate), Amount::of_minor(*gross), month(n)).unwrap();
            assert_eq!(&totals.rates[usize::from(amount.rate.unwrap())].rate, rate);
            assert_eq!(amount.net.minor() + amount.vat().minor(), *gross);
            amount.net.minor()
        });
        let net: Vec<i64> = net.collect();
        let mut supplies = BTreeMap::<_, [i64; 2]>::new();
        for (n, ((rate, gross), net)) in lines.iter().zip(&net).enumerate() {
            let supply = supplies.entry((rate, month(n))).or_default();
            *supply = [supply[0] + net, supply[1] + gross - net];
        }
        let shared = shares.finish().unwrap();
        let shared = shared.iter().map(|sum| ((&sum.basis, sum.month), [sum.net.minor(), sum.vat.minor()]));
        assert!(shared.eq(supplies), "months of supply");
        Ok((totals, net))
    }

    #[test]
    fn the_net_of_the_sum_is_divided_by_the_largest_remainder() {
        // 294.12 each: rounded by itself, each would be 294, and nine of them 2646.
        let (totals, net) = shared(&vec![(rate(1900), 350); 9]).unwrap();
        assert_eq!((totals.gross.minor(), totals.net.minor(), totals.vat.minor()), (3150, 2647, 503));
        assert_eq!(net, [295, 294, 294, 294, 294, 294, 294, 294, 294]);
        // 84.03, 0.84 and 168.07: the second lost most.
        let (totals, net) = shared(&[(rate(1900), 100), (rate(1900), 1), (rate(1900), 200)]).unwrap();
        assert_eq!((totals.net.minor(), net), (253, vec![84, 1, 168]));
    }

    #[test]
    fn rates_and_what_has_none_stand_apart() {
        let lines = [(exempt(), 42), (rate(1900), -119), (rate(700), 1070), (rate(0), 8), (exempt(), -2)];
        let (totals, net) = shared(&lines).unwrap();
        assert_eq!(net, [42, -100, 1000, 8, -2]);
        let sums: Vec<_> =
            totals.rates.iter().map(|sum| (&sum.rate, sum.net.minor(), sum.vat.minor())).collect();
        assert_eq!(
            sums,
            [(&rate(0), 8, 0), (&rate(700), 1000, 70), (&rate(1900), -100, -19), (&exempt(), 40, 0)]
        );
        assert_eq!((totals.gross.minor(), totals.net.minor(), totals.vat.minor()), (999, 948, 51));
    }

    #[test]
    fn a_line_without_a_rate_costs_nothing() {
        let mut builder = TotalsBuilder::default();
        builder.add(None, Amount::ZERO).unwrap();
        assert_eq!(builder.add(None, Amount::of_minor(1)), Err(TotalsError::NoRate));
        let (totals, _, mut shares) = builder.finish().unwrap();
        assert_eq!((totals.lines, totals.rates.len(), totals.gross), (2, 0, Amount::ZERO));
        let month = Month::new(2026, 11).unwrap();
        let nothing = LineAmount { rate: None, gross: Amount::ZERO, net: Amount::ZERO };
        assert_eq!(shares.next(None, Amount::ZERO, month), Ok(nothing));
        assert_eq!(shares.next(Some(&rate(1900)), Amount::ZERO, month), Err(TotalsError::Changed));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for lines in [
            vec![(exempt(), i64::MAX), (exempt(), 1)],
            vec![(exempt(), i64::MAX), (rate(0), 1)],
            vec![(rate(1900), i64::MIN)],
        ] {
            assert_eq!(shared(&lines), Err(TotalsError::TooLarge));
        }
        // On the way to a sum that has a place nothing overflows.
        let lines = [(exempt(), i64::MAX), (exempt(), 1), (exempt(), -2)];
        assert_eq!(shared(&lines).unwrap().0.gross.minor(), i64::MAX - 1);
    }

    fn any_line() -> impl Strategy<Value = (VatBasis, i64)> {
        let any_rate = prop_oneof![Just(0u16), Just(700), Just(1900), Just(2000), 0u16..=10_000];
        let any_rate = prop_oneof![4 => any_rate.prop_map(rate), 1 => Just(exempt())];
        (any_rate, prop_oneof![-5_000i64..5_000, Just(350), -1_000_000_000_000i64..1_000_000_000_000])
    }

    proptest! {
        /// The oracle sorts all lines by what they lose, as the method is defined, in exact fractions.
        #[test]
        fn lines_make_the_totals_whatever_their_amounts_and_signs(lines in prop::collection::vec(any_line(), 0..40)) {
            let (totals, net) = shared(&lines).unwrap();
            prop_assert_eq!(totals.gross.minor(), lines.iter().map(|line| line.1).sum::<i64>());
            prop_assert_eq!(totals.net.minor(), net.iter().sum::<i64>());
            prop_assert_eq!(totals.gross.minor(), totals.net.minor() + totals.vat.minor());
            prop_assert_eq!(totals.vat.minor(), totals.rates.iter().map(|sum| sum.vat.minor()).sum::<i64>());
            for sum in &totals.rates {
                let parts = match &sum.rate { VatBasis::Rate(rate) => i128::from(rate.whole()), VatBasis::Exempt(_) => 10_000 };
                let its: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].0 == sum.rate).collect();
                prop_assert_eq!(sum.gross.minor(), its.iter().map(|n| lines[*n].1).sum::<i64>());
                let error = 2 * (i128::from(sum.net.minor()) * parts - 10_000 * i128::from(sum.gross.minor()));
                prop_assert!(error.abs() < parts || error.abs() == parts && (error > 0) == (sum.gross.minor() > 0));
                let exact = |n: usize| 10_000 * i128::from(lines[n].1);
                let mut oracle: Vec<(usize, i128)> =
                    its.iter().map(|n| (*n, exact(*n).div_euclid(parts))).collect();
                oracle.sort_by_key(|(n, _)| (-exact(*n).rem_euclid(parts), *n));
                let missing = i128::from(sum.net.minor()) - oracle.iter().map(|line| line.1).sum::<i128>();
                for (place, (n, down)) in oracle.iter().enumerate() {
                    prop_assert_eq!(i128::from(net[*n]), down + i128::from((place as i128) < missing));
                }
            }
        }
    }
}
