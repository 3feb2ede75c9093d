//! The journal in the format of hledger, and of other programs of plain-text accounting.
//!
//! **Promise.** `hledger` reads it, and shows the balances of the bookings. Two names that people chose never become one account.
//! **Kept by.** `%XX` stands for each byte of a character that hledger would take for something else: in an account's name a colon
//! (separates accounts), a semicolon (begins a comment), a second space (ends the name), and `%` itself, so that the name can be read
//! back; in a description a semicolon and a bar (ends the payee); in the value of a tag a comma.
//!
//! ```text
//! 2026-11-30 (7) Document 2026-000017  ; booking:7, document:2026-000017
//!     assets:receivable:miller  119.00 EUR  ; month:2026-11
//!     revenues:parking:19  -100.00 EUR  ; month:2026-11
//!     liabilities:vat:19  -19.00 EUR  ; month:2026-11
//! ```

use super::Booking;
use crate::parking::money::Money;
use std::fmt::{self, Write};
use std::io;

/// Writes the bookings, one at a time, and returns the number of the last: the next export begins after it. `None`: there was none.
/// The files of several exports can be put together in any order.
pub fn write_hledger<E: From<io::Error>>(
    bookings: impl IntoIterator<Item = Result<Booking, E>>,
    mut to: impl io::Write,
) -> Result<Option<u64>, E> {
    // Without it, 1.050 KWD may be a thousand.
    writeln!(to, "decimal-mark .")?;
    let mut last = None;
    for booking in bookings {
        let booking = booking?;
        let Booking { number, date, .. } = &booking;
        write!(to, "\n{date} ({number}) {}  ; booking:{number}", Escaped(&booking.text(), ";|"))?;
        if let Some(document) = &booking.document {
            write!(to, ", document:{}", Escaped(document, ","))?;
        }
        writeln!(to)?;
        for line in &booking.lines {
            let (path, name) = line.account.path();
            let money = Money { amount: line.amount, currency: booking.currency };
            let colon = if name.is_empty() { "" } else { ":" };
            write!(to, "    {path}{colon}{}  {money}", Escaped(&name, "%:;"))?;
            match line.month {
                Some(month) => writeln!(to, "  ; month:{month}")?,
                None => writeln!(to)?,
            }
        }
        last = Some(booking.number);
    }
    Ok(last)
}

/// A text in which each of the special characters is escaped, and each space that is not a single one between others.
struct Escaped<'a>(&'a str, &'static str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut after_space = true;
        let mut rest = self.0.chars().peekable();
        while let Some(c) = rest.next() {
            let is_special = self.1.contains(c) || c.is_control();
            let is_odd_space = c.is_whitespace() && (c != ' ' || after_space || rest.peek().is_none());
            match is_special || is_odd_space {
                true => c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?,
                false => f.write_char(c)?,
            }
            after_space = c == ' ';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::super::{JournalAccount, Voucher, document_lines};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_booking_is_a_transaction() {
        let totals = [total(rate(1900), "2026-11", 10_000, 1_900)];
        let lines = document_lines(&debtor("Müller  & Co: Süd"), &totals).concat();
        let mut payment = booking(
            8,
            Voucher::Payment(3),
            vec![line(JournalAccount::Bank, -700, None), line(JournalAccount::Unallocated(None), 700, None)],
        );
        (payment.document, payment.reference) = (None, "x; y".into());
        let mut text = Vec::new();
        let bookings = [booking(7, Voucher::Document, lines), payment].map(Ok::<_, io::Error>);
        assert_eq!(write_hledger(bookings, &mut text).unwrap(), Some(8));
        let expected = "\
decimal-mark .

2026-11-30 (7) Document 2026-000017  ; booking:7, document:2026-000017
    assets:receivable:Müller %20& Co%3A Süd  119.00 EUR  ; month:2026-11
    revenues:parking:19  -100.00 EUR  ; month:2026-11
    liabilities:vat:19  -19.00 EUR  ; month:2026-11

2026-11-30 (8) Payment 3: x%3B y  ; booking:8
    assets:bank  -7.00 EUR
    liabilities:unallocated  7.00 EUR
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    fn unescaped(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, others @ ..] = rest {
            if *first == b'%' {
                let hex = std::str::from_utf8(&others[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &others[2..];
            } else {
                bytes.push(*first);
                rest = others;
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn a_name_can_be_read_back(name in "[ -~ äß\u{a0}\u{3000}]{0,12}") {
            let escaped = Escaped(&name, "%:;").to_string();
            prop_assert_eq!(unescaped(&escaped), name);
            prop_assert!(!escaped.contains("  ") && escaped.trim() == escaped && !escaped.contains([':', ';']));
        }
    }
}
