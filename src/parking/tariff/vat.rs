//! The VAT within the prices of a tariff, by date.

use super::VatRate;
use jiff::civil::Date;

/// What VAT the prices of a tariff include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vat {
    /// The rate of a stay is that of the local date of its exit.
    Rates {
        /// From the tariff's first day on.
        first: VatRate,
        /// Later rates, each from its date on; ascending, after the tariff's first day.
        changes: Vec<(Date, VatRate)>,
    },
    /// None, for this reason, as documents state it.
    Exempt { reason: String },
}

impl Vat {
    /// The rate on a local date of exit. `None`: no VAT is charged.
    pub fn rate_on(&self, exit: Date) -> Option<VatRate> {
        match self {
            Vat::Rates { first, changes } => {
                Some(changes.iter().rfind(|(from, _)| *from <= exit).map_or(*first, |(_, rate)| *rate))
            }
            Vat::Exempt { .. } => None,
        }
    }

    /// The dates on which the rate changes, ascending.
    pub(super) fn changes(&self) -> impl Iterator<Item = Date> {
        let changes = match self {
            Vat::Rates { changes, .. } => &changes[..],
            Vat::Exempt { .. } => &[],
        };
        changes.iter().map(|(from, _)| *from)
    }

    /// The rate `first` at the beginning, and `dated` ones in ascending order. Rates that ended before `valid_from` are left out.
    pub(super) fn of_dated(valid_from: Date, first: VatRate, dated: Vec<(Date, VatRate)>) -> Vat {
        let (before, changes): (Vec<_>, Vec<_>) =
            dated.into_iter().partition(|(from, _)| *from <= valid_from);
        Vat::Rates { first: before.last().map_or(first, |(_, rate)| *rate), changes }
    }
}
