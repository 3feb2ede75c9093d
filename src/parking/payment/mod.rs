//! Payments: money that customers paid, or that was paid back to them, as a bank statement lists it.
//!
//! **Promise.** A file is read whole or not at all, and every bad line is named. A [`Payment`] that was read back from the ledger could
//! have stood in a file.
//! **Kept by.** [`Payment::check`] is what both readers ask.
//! **Not promised.** That the document or the account exists: [`receivables`](super::receivables) decides what a payment pays.

mod read;

pub use read::{PaymentFile, PaymentLine, read_payments};

use super::money::{Amount, Money};
use super::name::{Account, label, printable};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A payment's number: 1, 2, 3, … in the order of the ledger, whatever import it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentId(pub u64);

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a payment; a payment is named by its number, such as 17, which `server payments list` shows"
)]
pub struct NoPaymentId(String);

impl FromStr for PaymentId {
    type Err = NoPaymentId;
    fn from_str(text: &str) -> Result<PaymentId, NoPaymentId> {
        let number = text.parse().ok().filter(|number: &u64| *number > 0 && number.to_string() == text);
        number.map(PaymentId).ok_or_else(|| NoPaymentId(text.to_owned()))
    }
}

/// A payment as it was imported: a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Number of the document that it pays, as printed there.
    pub number: Option<String>,
    pub account: Option<Account>,
    /// Never zero. Negative: money that was paid back.
    pub money: Money,
    /// The day on which the money was received or paid back.
    pub date: Date,
    /// What the bank or the customer wrote. May be empty.
    pub reference: String,
}

/// Two payments with one key are the same payment, imported twice.
pub type PaymentKey = [u8; 16];

impl Payment {
    /// The longest reference, in bytes.
    pub const REFERENCE_MAX: usize = 280;
    /// The largest amount, in minor units and without its sign. No sum of payments overflows below a million of these.
    pub const AMOUNT_MAX: i64 = 9_000_000_000_000;

    /// Whether a file could have given it. What was kept is checked when it is read again.
    pub fn check(&self) -> Result<(), String> {
        let is_text = |text: &String| printable(text, Self::REFERENCE_MAX).is_ok_and(|same| same == *text);
        if self.number.as_ref().is_some_and(|number| label(number).ok().as_ref() != Some(number)) {
            return Err(format!("{:?} is not the number of a document", self.number));
        }
        if !is_text(&self.reference) {
            return Err("the reference is too long, or contains what cannot be printed".into());
        }
        if self.number.is_none() && self.account.is_none() && self.reference.is_empty() {
            return Err(
                "it has no document number, no account and no reference: nobody could find out what it pays"
                    .into(),
            );
        }
        check_amount(self.money.amount)
    }

    /// Number, amount, date and reference; where there is no number, the account too.
    pub fn key(&self) -> PaymentKey {
        let account = self.account.as_ref().filter(|_| self.number.is_none());
        let parts = (&self.number, account, self.money, self.date, &self.reference);
        let bytes = postcard::to_allocvec(&parts).expect("a payment always encodes");
        *blake3::hash(&bytes).as_bytes().first_chunk().expect("a digest has 32 bytes")
    }
}

fn check_amount(amount: Amount) -> Result<(), String> {
    match amount.minor() {
        0 => Err("an amount of zero pays nothing".into()),
        minor if minor.unsigned_abs() > Payment::AMOUNT_MAX.unsigned_abs() => {
            Err(format!("the limit is {} minor units", Payment::AMOUNT_MAX))
        }
        _ => Ok(()),
    }
}

/// Version of the form in which the ledger keeps payments.
const VERSION: u8 = 1;

/// Why bytes of the ledger are no payments that this program understands. None of them is applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredPaymentsError {
    #[error("they have version {0}, this program knows version {VERSION}")]
    Version(u8),
    #[error("they do not decode: {0}")]
    Malformed(String),
    #[error("payment {index} of the import, counted from 0: {reason}")]
    Bad { index: usize, reason: String },
}

/// The payments of one import as the ledger keeps them: a version byte, then postcard.
pub fn to_bytes(payments: &[Payment]) -> Vec<u8> {
    postcard::to_extend(payments, vec![VERSION]).expect("payments always encode")
}

pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Payment>, StoredPaymentsError> {
    let malformed = |reason: &str| StoredPaymentsError::Malformed(reason.to_owned());
    let (version, body) = bytes.split_first().ok_or_else(|| malformed("there are no bytes"))?;
    if *version != VERSION {
        return Err(StoredPaymentsError::Version(*version));
    }
    let (payments, rest) =
        postcard::take_from_bytes::<Vec<Payment>>(body).map_err(|error| malformed(&error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow their end"));
    }
    for (index, payment) in payments.iter().enumerate() {
        payment.check().map_err(|reason| StoredPaymentsError::Bad { index, reason })?;
    }
    Ok(payments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::money::Currency;
    use jiff::civil::date;

    fn payment() -> Payment {
        Payment {
            number: Some("2026-000017".into()),
            account: Some(Account::new("miller").unwrap()),
            money: Money::of_minor(1250, Currency::new("EUR").unwrap()),
            date: date(2026, 11, 30),
            reference: "R 5".into(),
        }
    }

    /// The ledger keeps these bytes for good.
    #[test]
    fn the_form_on_disk_is_this() {
        let bytes = to_bytes(&[payment()]);
        let expected = [
            &[1, 1][..], // version, one payment
            &[1, 11],
            b"2026-000017", // some number
            &[1, 6],
            b"miller", // some account
            &[0xc4, 0x13, 3],
            b"EUR", // zigzag(1250)
            &[10],
            b"2026-11-30",
            &[3],
            b"R 5",
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(from_bytes(&bytes), Ok(vec![payment()]));
    }

    #[test]
    fn bytes_that_no_file_could_have_given_are_refused() {
        assert_eq!(from_bytes(&[2, 0]), Err(StoredPaymentsError::Version(2)));
        assert!(matches!(from_bytes(&[]), Err(StoredPaymentsError::Malformed(_))));
        assert!(matches!(from_bytes(&[1, 1, 9]), Err(StoredPaymentsError::Malformed(_))));
        assert!(matches!(from_bytes(&[1, 0, 0]), Err(StoredPaymentsError::Malformed(_))));
        let spoilt: [fn(&mut Payment); 5] = [
            |its| its.money.amount = Amount::ZERO,
            |its| its.money.amount = Amount::of_minor(i64::MIN),
            |its| its.number = Some(" 17".into()),
            |its| its.reference = "a\nb".into(),
            |its| (its.number, its.account, its.reference) = (None, None, String::new()),
        ];
        for spoil in spoilt {
            let mut bad = payment();
            spoil(&mut bad);
            let read = from_bytes(&to_bytes(&[payment(), bad.clone()]));
            assert!(matches!(read, Err(StoredPaymentsError::Bad { index: 1, .. })), "{bad:?}: {read:?}");
        }
    }

    #[test]
    fn the_key_of_a_payment_is_its_number_amount_date_and_reference() {
        let changed = |change: fn(&mut Payment)| {
            let mut other = payment();
            change(&mut other);
            other.key()
        };
        let key = payment().key();
        assert_eq!(changed(|its| its.account = None), key, "the number says whose it is");
        assert_ne!(changed(|its| its.number = None), key);
        assert_ne!(changed(|its| its.money = Money::of_minor(1251, its.money.currency)), key);
        assert_ne!(changed(|its| its.money.currency = Currency::new("USD").unwrap()), key);
        assert_ne!(changed(|its| its.date = date(2026, 12, 1)), key);
        assert_ne!(changed(|its| its.reference.clear()), key);
        let only_account = changed(|its| its.number = None);
        assert_ne!(
            changed(|its| (its.number, its.account) = (None, Account::new("smith").ok())),
            only_account
        );
    }

    #[test]
    fn a_payment_is_named_by_its_number() {
        assert_eq!("17".parse(), Ok(PaymentId(17)));
        for text in ["", "0", "017", "+1", "-1", "1.5", "a"] {
            assert!(text.parse::<PaymentId>().is_err(), "{text}");
        }
    }
}
