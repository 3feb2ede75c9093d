//! How long documents keep plates, and documents without them.
//!
//! **Promise.** A document without plates has the same number, date, lines, amounts and totals as the one that was issued. It contains neither a
//! plate nor anything that a plate can be found out from.
//! **Kept by.** One word takes the place of all plates. The digests of the renderings with plates are not kept: a person with the rest of a
//! document could try all plates against them.
//! **Not promised.** That a plate disappears from what people wrote: names, addresses and reasons.

use super::line::{DocumentLine, LineCar};
use super::{BilledCustomer, DocumentHead};
use crate::parking::journal::Debtor;
use jiff::civil::Date;

/// Takes the place of all plates. Has the form of a token, but does not tell which lines are about one car.
const FORGOTTEN: &str = "~forgotten";

/// How long documents keep plates, seen from a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlateTerm {
    /// After the year of issue.
    pub years: u16,
    /// In the operator's time zone.
    pub today: Date,
}

impl PlateTerm {
    /// Whether documents of this date of issue have no plates any more.
    pub fn is_over(self, issued: Date) -> bool {
        i32::from(self.today.year()) - i32::from(issued.year()) > i32::from(self.years)
    }
}

impl DocumentHead {
    /// The head without the plate that the document is addressed to.
    pub fn without_plate(self) -> DocumentHead {
        let serial = self.issue.as_ref().map_or(0, |issue| issue.serial);
        let customer = BilledCustomer { debtor: self.customer.debtor.without_plate(serial), ..self.customer };
        DocumentHead { customer, ..self }
    }
}

impl DocumentLine {
    pub fn without_plate(self) -> DocumentLine {
        let car = match self.car {
            LineCar::Plate(_) => LineCar::Token(FORGOTTEN.into()),
            token @ LineCar::Token(_) => token,
        };
        DocumentLine { car, ..self }
    }
}

impl Debtor {
    /// Whom the document with this serial is addressed to, without the plate.
    pub fn without_plate(self, document: u64) -> Debtor {
        match self {
            Debtor::Plate(_) => Debtor::PlateRemoved { document },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn plates_are_kept_until_the_end_of_the_last_year_of_the_term() {
        let is_over = |years, today, issued| PlateTerm { years, today }.is_over(issued);
        for issued in [date(2016, 1, 1), date(2016, 12, 31)] {
            assert!(!is_over(10, date(2026, 12, 31), issued));
            assert!(is_over(10, date(2027, 1, 1), issued));
        }
        assert!(!is_over(1, date(2027, 12, 31), date(2026, 1, 1)));
        assert!(is_over(1, date(2028, 1, 1), date(2026, 12, 31)));
        // A clock that is far behind removes nothing.
        assert!(!is_over(1, date(1970, 1, 1), date(2026, 1, 1)));
    }
}
