//! Payments from a file: `number,account,amount,currency,date,reference`.

use super::{Payment, PaymentKey, check_amount};
use crate::parking::money::{Amount, Currency, Money};
use crate::parking::name::{Account, label, printable};
use crate::parking::table::{BadLine, Column, CsvFile, CsvRow, ImportError, date, whole};
use jiff::civil::Date;
use std::collections::BTreeMap;

/// A payment and the line of the file on which it stands, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentLine {
    pub line: usize,
    pub payment: Payment,
    /// The first line of the same file that says the same (number, amount, date, reference).
    pub repeats: Option<usize>,
}

/// A file of which no line is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentFile {
    pub lines: Vec<PaymentLine>,
    /// A sentence for each column that was ignored.
    pub warnings: Vec<String>,
}

const COLUMNS: [Column; 6] = [
    Column::Optional("number"),
    Column::Optional("account"),
    Column::Required("amount"),
    Column::Required("currency"),
    Column::Required("date"),
    Column::Optional("reference"),
];

/// Reads a file of payments. A line names a document, or an account, or at least has a reference. An amount is written with a point
/// and no more decimals than its currency has; a negative one was paid back. `today` is the last date that a payment can have.
pub fn read_payments(text: &str, today: Date) -> Result<PaymentFile, ImportError> {
    let table = CsvFile::open(text, COLUMNS)?;
    let warnings = table.warnings().to_vec();
    let mut lines = Vec::new();
    let mut first_lines = BTreeMap::<PaymentKey, usize>::new();
    let bad = table.each_row(|row, bad| {
        if let Some(payment) = payment(&row, today, bad) {
            let first = *first_lines.entry(payment.key()).or_insert(row.line);
            let repeats = (first != row.line).then_some(first);
            lines.push(PaymentLine { line: row.line, payment, repeats });
        }
    });
    whole(PaymentFile { lines, warnings }, bad)
}

fn payment(row: &CsvRow<'_, 6>, today: Date, bad: &mut Vec<BadLine>) -> Option<Payment> {
    let [number, account, amount_text, currency, day, reference] = row.cells;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let number = row.check("number", some(number).map(|text| label(&text)).transpose(), bad);
    let account = row.check("account", some(account).map(|text| Account::new(&text)).transpose(), bad);
    let currency = row.check("currency", Currency::new(currency), bad);
    let amount = currency.and_then(|currency| row.check("amount", amount(amount_text, currency), bad));
    let day = row.check("date", date(day).and_then(|day| not_after(day, today)), bad);
    let reference = row.check("reference", printable(reference, Payment::REFERENCE_MAX), bad);
    let money = Money { amount: amount?, currency: currency? };
    let payment = Payment { number: number?, account: account?, money, date: day?, reference: reference? };
    let checked = payment.check().map_err(|reason| bad.push(BadLine::whole(row.line, reason)));
    checked.ok().map(|()| payment)
}

fn not_after(day: Date, today: Date) -> Result<Date, String> {
    if day <= today { Ok(day) } else { Err(format!("{day} is in the future; today is {today}")) }
}

/// `12.50`, `12.5`, `12` or `-12.50`. What could mean two amounts is refused: `1,250` is one and a quarter, or a thousand more.
fn amount(text: &str, currency: Currency) -> Result<Amount, String> {
    let example = currency.show(Amount::of_minor(125_000));
    let wrong = |what: &str| {
        format!(
            "{text:?} {what}; an amount of {currency} looks like {example}, or -{example} for money paid back"
        )
    };
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if text.contains(',') {
        return Err(wrong(
            "contains a comma, which separates decimals in some countries and thousands in others",
        ));
    }
    if !is_number(whole) || !is_number(fraction) {
        return Err(wrong("is not an amount"));
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > currency.decimals() {
        return Err(wrong(&format!("has more than {} decimals", currency.decimals())));
    }
    let minor = format!("{whole}{fraction:0<width$}", width = currency.decimals()).parse::<i64>();
    let amount = Amount::of_minor(sign * minor.map_err(|_| wrong("is too large"))?);
    check_amount(amount).map_err(|reason| wrong(&format!("is not taken: {reason}")))?;
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    const TODAY: Date = date(2026, 11, 30);

    fn read(text: &str) -> PaymentFile {
        read_payments(text, TODAY).unwrap()
    }
    fn refused(text: &str) -> String {
        read_payments(text, TODAY).unwrap_err().to_string()
    }

    #[test]
    fn a_payment_names_a_document_an_account_or_only_a_reference() {
        let file = read(
            "number,account,amount,currency,date,reference\n\
             2026-000017,,12.50,EUR,2026-11-30,\n\
             ,miller,-3,JPY,2026-11-01,\"too much, paid back\"\n\
             ,,1.050,KWD,2026-11-02,from a stranger\n",
        );
        let shown = file.lines.iter().map(|its| {
            let Payment { number, account, money, date, reference } = &its.payment;
            format!("{} {number:?} {account:?} {money} {date} {reference:?}", its.line)
        });
        let expected = [
            "2 Some(\"2026-000017\") None 12.50 EUR 2026-11-30 \"\"",
            "3 None Some(\"miller\") -3 JPY 2026-11-01 \"too much, paid back\"",
            "4 None None 1.050 KWD 2026-11-02 \"from a stranger\"",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!(file.warnings, [""; 0]);
    }

    #[test]
    fn optional_columns_may_be_missing_and_unknown_ones_are_warned_about() {
        let file = read("date;amount;currency;number;IBAN\n2026-11-30;12.5;EUR;17;DE00\n");
        assert_eq!(file.lines[0].payment.money.to_string(), "12.50 EUR");
        assert_eq!(file.lines[0].payment.number.as_deref(), Some("17"));
        assert_eq!(file.warnings.len(), 1);
        assert!(file.warnings[0].contains("\"IBAN\""), "{:?}", file.warnings);
        assert!(refused("number,amount,date\n").contains("\"currency\" is missing"));
    }

    #[test]
    fn amounts_are_read_in_one_way_only() {
        let euro = |text| amount(text, Currency::new("EUR").unwrap());
        for (text, minor) in [
            ("12.50", 1250),
            ("12.5", 1250),
            ("12", 1200),
            ("012.50", 1250),
            ("12.500", 1250),
            ("0.01", 1),
            ("-12.50", -1250),
            ("90000000000.00", 9_000_000_000_000),
            ("-90000000000", -9_000_000_000_000),
        ] {
            assert_eq!(euro(text), Ok(Amount::of_minor(minor)), "{text}");
        }
        for (text, reason) in [
            ("12,50", "contains a comma"),
            ("1,250.00", "contains a comma"),
            ("1.250,00", "contains a comma"),
            ("1.250.00", "is not an amount"),
            ("1 250", "is not an amount"),
            ("1'250", "is not an amount"),
            ("", "is not an amount"),
            ("-", "is not an amount"),
            (".5", "is not an amount"),
            ("5.", "is not an amount"),
            ("+5", "is not an amount"),
            ("--5", "is not an amount"),
            ("1e3", "is not an amount"),
            ("€5", "is not an amount"),
            ("\u{2212}5", "is not an amount"),
            ("１２", "is not an amount"),
            ("12.501", "has more than 2 decimals"),
            ("0", "pays nothing"),
            ("-0.00", "pays nothing"),
            ("90000000000.01", "limit"),
            ("99999999999999999999", "too large"),
        ] {
            let error = euro(text).unwrap_err();
            assert!(error.contains(reason) && error.contains("1250.00"), "{text}: {error}");
        }
        let yen = |text| amount(text, Currency::new("JPY").unwrap());
        assert_eq!(yen("1250"), Ok(Amount::of_minor(1250)));
        assert_eq!(yen("1250.00"), Ok(Amount::of_minor(1250)));
        assert!(yen("12.50").unwrap_err().contains("more than 0 decimals"));
        assert_eq!(amount("1.25", Currency::new("KWD").unwrap()), Ok(Amount::of_minor(1250)));
    }

    #[test]
    fn every_bad_line_is_named_and_nothing_is_used() {
        let error = refused(
            "number,account,amount,currency,date,reference\n\
             17,,5.00,EUR,2026-11-30,fine\n\
             17,,x,eur,30.11.2026,\n\
             17,unregistered,5.00,EUR,2026-12-01,\n\
             ,,5.00,EUR,2026-11-30,\n",
        );
        let starts = [
            "line 3, currency: ",
            "line 3, date: \"30.11.2026\" is not a date",
            "line 4, account: \"unregistered\" is reserved",
            "line 4, date: 2026-12-01 is in the future; today is 2026-11-30",
            "line 5: it has no document number, no account and no reference",
        ];
        assert_eq!(error.lines().count(), starts.len(), "{error}");
        for (line, start) in error.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn a_line_that_repeats_another_is_marked() {
        let file = read(
            "number,account,amount,currency,date,reference\n\
             17,,5.00,EUR,2026-11-30,\n\
             17,,5.00,EUR,2026-11-30,a\n\
             17,miller,5,EUR,2026-11-30,\n\
             18,,5.00,EUR,2026-11-30,\n",
        );
        let repeats: Vec<_> = file.lines.iter().map(|its| its.repeats).collect();
        assert_eq!(repeats, [None, None, Some(2), None]);
    }
}
