//! Values for the tests of the journal and of open items.

use super::*;
use jiff::civil::date;

pub fn euro() -> Currency {
    Currency::new("EUR").unwrap()
}
pub fn debtor(account: &str) -> Debtor {
    Debtor::Account(Account::new(account).unwrap())
}
pub fn rate(hundredths: u16) -> VatBasis {
    VatBasis::Rate(VatRate::of_hundredths(hundredths).unwrap())
}
pub fn exempt() -> VatBasis {
    VatBasis::Exempt("small business".into())
}
pub fn total(basis: VatBasis, month: &str, net: i64, vat: i64) -> SupplyTotal {
    SupplyTotal {
        basis,
        month: month.parse().unwrap(),
        net: Amount::of_minor(net),
        vat: Amount::of_minor(vat),
    }
}
pub fn line(account: JournalAccount, minor: i64, month: Option<&str>) -> BookingLine {
    BookingLine { account, amount: Amount::of_minor(minor), month: month.map(|month| month.parse().unwrap()) }
}
pub fn booking(number: u64, voucher: Voucher, lines: Vec<BookingLine>) -> Booking {
    Booking {
        number,
        date: date(2026, 11, 30),
        currency: euro(),
        voucher,
        document: Some("2026-000017".into()),
        reference: String::new(),
        lines,
    }
}
