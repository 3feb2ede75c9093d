//! The journal as CSV by RFC 4180, safe against formulas: one row for each line of a booking, the form that most import masks share.
//!
//! | column | why |
//! | --- | --- |
//! | `booking` | 1, 2, 3, …: the same in all rows of a booking, which balances |
//! | `date` | of the document, of the receipt, or of the reversal: `YYYY-MM-DD` |
//! | `document` | number of the document that the booking is about; empty while nobody knows it |
//! | `account` | `assets:receivable:ACCOUNT` and so on; a colon in a customer's name stays as it is, `customer` has it alone |
//! | `debit`, `credit` | never negative and never both, with a decimal point |
//! | `currency` | ISO 4217 |
//! | `vat_percent`, `vat_reason` | of revenue and VAT: the rate, or why there is none |
//! | `month` | of the supply: `YYYY-MM`; empty for money |
//! | `customer` | for programs that keep one receivables account and a separate customer ledger |
//! | `text` | what a person reads in the account |

use super::Booking;
use crate::parking::money::Amount;
use crate::parking::sheet::text;
use std::io;

const HEADER: [&str; 12] = [
    "booking",
    "date",
    "document",
    "account",
    "debit",
    "credit",
    "currency",
    "vat_percent",
    "vat_reason",
    "month",
    "customer",
    "text",
];

/// Writes a header and the bookings, one at a time, and returns the number of the last: the next export begins after it. `None`: there
/// was none.
pub fn write_csv<E: From<io::Error>>(
    bookings: impl IntoIterator<Item = Result<Booking, E>>,
    to: impl io::Write,
) -> Result<Option<u64>, E> {
    let mut table = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(to);
    table.write_record(HEADER).map_err(io::Error::from)?;
    let mut last = None;
    for booking in bookings {
        let booking = booking?;
        let about = booking.text();
        for line in &booking.lines {
            let (path, name) = line.account.path();
            let (customer, rate, reason) = line.account.facets();
            let account = if name.is_empty() { path.to_owned() } else { format!("{path}:{name}") };
            let show = |amount| booking.currency.show(amount);
            let (debit, credit) = match line.amount > Amount::ZERO {
                true => (show(line.amount), String::new()),
                false => (String::new(), show(line.amount.negated())),
            };
            let row = [
                booking.number.to_string(),
                booking.date.to_string(),
                text(booking.document.as_deref().unwrap_or_default()).into_owned(),
                text(&account).into_owned(),
                debit,
                credit,
                booking.currency.to_string(),
                rate.map_or_else(String::new, |rate| rate.to_string()),
                text(reason.unwrap_or_default()).into_owned(),
                line.month.map_or_else(String::new, |month| month.to_string()),
                text(customer.unwrap_or_default()).into_owned(),
                text(&about).into_owned(),
            ];
            table.write_record(row).map_err(io::Error::from)?;
        }
        last = Some(booking.number);
    }
    table.flush()?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::super::{JournalAccount, Voucher, document_lines};
    use super::*;

    #[test]
    fn a_row_has_what_an_import_needs() {
        let totals = [total(rate(1900), "2026-11", 10_000, 1_900), total(exempt(), "2026-10", -500, 0)];
        let lines = document_lines(&debtor("=evil"), &totals).concat();
        let mut payment = booking(
            8,
            Voucher::Payment(3),
            vec![line(JournalAccount::Bank, 700, None), line(JournalAccount::Unallocated(None), -700, None)],
        );
        (payment.document, payment.reference) = (None, "from, \"a\" stranger".into());
        let mut table = Vec::new();
        let bookings = [booking(7, Voucher::Document, lines), payment].map(Ok::<_, io::Error>);
        assert_eq!(write_csv(bookings, &mut table).unwrap(), Some(8));
        let expected = "\
booking,date,document,account,debit,credit,currency,vat_percent,vat_reason,month,customer,text
7,2026-11-30,2026-000017,assets:receivable:=evil,,5.00,EUR,,,2026-10,'=evil,Document 2026-000017
7,2026-11-30,2026-000017,revenues:parking:no VAT:small business,5.00,,EUR,,small business,2026-10,,Document 2026-000017
7,2026-11-30,2026-000017,assets:receivable:=evil,119.00,,EUR,,,2026-11,'=evil,Document 2026-000017
7,2026-11-30,2026-000017,revenues:parking:19,,100.00,EUR,19,,2026-11,,Document 2026-000017
7,2026-11-30,2026-000017,liabilities:vat:19,,19.00,EUR,19,,2026-11,,Document 2026-000017
8,2026-11-30,,assets:bank,7.00,,EUR,,,,,\"Payment 3: from, \"\"a\"\" stranger\"
8,2026-11-30,,liabilities:unallocated,,7.00,EUR,,,,,\"Payment 3: from, \"\"a\"\" stranger\"
";
        assert_eq!(String::from_utf8(table).unwrap(), expected.replace('\n', "\r\n"));
        let mut nothing = Vec::new();
        assert_eq!(write_csv(Vec::<Result<Booking, io::Error>>::new(), &mut nothing).unwrap(), None);
        assert_eq!(nothing.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
