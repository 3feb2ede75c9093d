//! **Promise.** The journal that is exported for hledger is read by it, whatever customers are called, and hledger shows the amounts of
//! every line and the balances of all accounts as the bookings say.

use crate::common::{requires, scale::by_scale};
use fogpost::parking::journal::{
    Booking, BookingLine, JournalAccount, VatBasis, Voucher, combined, document_lines, write_hledger,
};
use fogpost::parking::journal::{Debtor, SupplyTotal};
use fogpost::parking::money::{Amount, Currency, Money, VatRate};
use fogpost::parking::name::Account;
use jiff::civil::date;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;

/// Names that hledger would read as something else: accounts within accounts, comments, amounts, virtual accounts, ends of names.
const NAMES: &[&str] = &[
    "miller",
    "Müller & Söhne",
    "A: B :C",
    "two  spaces",
    "many     spaces",
    "a;b ; c",
    "(round)",
    "[square]",
    "=5 EUR",
    "@ 5 EUR",
    "* done",
    "! pending",
    "%3A",
    "50 %",
    "\"quoted\"",
    "a|b, c",
    "no\u{a0} break \u{3000}x",
    "a # b",
    "{lot}",
    "5.00 EUR",
    "~ auto",
    "~",
    "-1",
    "a = b",
    "include x",
    "end",
    "Ünï:",
    ":",
    ";",
    "日本  駐車場",
];

/// Documents, payments and reversals of many customers in three currencies, from a simple generator.
fn bookings(count: u64) -> impl Iterator<Item = Booking> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (1..=count).map(move |number| {
        let name = NAMES[random(NAMES.len() as u64) as usize];
        let debtor = Debtor::Account(Account::new(name).unwrap());
        let currency = Currency::new(["EUR", "JPY", "KWD"][random(3) as usize]).unwrap();
        let minor = random(10_000_000) as i64 - 3_000_000;
        let day = date(2026, 1 + random(12) as i8, 1 + random(28) as i8);
        let (voucher, lines) = match random(4) {
            0 | 1 => {
                let rate = VatRate::of_hundredths([1900, 810, 0][random(3) as usize]).unwrap();
                let vat = minor - rate.net_of(Amount::of_minor(minor)).minor();
                let total = |basis, month: &str, net: i64, vat: i64| SupplyTotal {
                    basis,
                    month: month.parse().unwrap(),
                    net: Amount::of_minor(net),
                    vat: Amount::of_minor(vat),
                };
                let exempt = VatBasis::Exempt(format!("§ 19: {name}"));
                let totals = [
                    total(VatBasis::Rate(rate), "2026-11", minor - vat, vat),
                    total(exempt, "2026-10", 7 - minor / 3, 0),
                ];
                (Voucher::Document, document_lines(&debtor, &totals).concat())
            }
            kind => {
                let owner = (random(5) > 0).then(|| debtor.name().to_owned());
                let split = minor / 4;
                let line =
                    |account, minor| BookingLine { account, amount: Amount::of_minor(minor), month: None };
                let lines = vec![
                    line(JournalAccount::Bank, minor),
                    line(JournalAccount::Receivable(debtor.name().to_owned()), split - minor),
                    line(JournalAccount::Unallocated(owner), -split),
                ];
                (
                    if kind == 2 { Voucher::Payment(number) } else { Voucher::Reversal(number) },
                    combined(lines),
                )
            }
        };
        let document = (random(3) > 0).then(|| format!("RE,{number}/2026; x"));
        let reference = format!("{name} | {name} ; date: 2020-01-01");
        Booking { number, date: day, currency, voucher, document, reference, lines }
    })
}

fn hledger(file: &Path, arguments: &[&str]) -> Vec<csv::StringRecord> {
    let output = Command::new("hledger")
        .arg("-f")
        .arg(file)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    csv::Reader::from_reader(&output.stdout[..]).records().map(Result::unwrap).collect()
}

/// As hledger names the account, with the names that people chose read back.
fn account_of(line: &BookingLine) -> Vec<String> {
    let parts: Vec<&str> = match &line.account {
        JournalAccount::Bank => vec!["assets", "bank"],
        JournalAccount::Receivable(name) => vec!["assets", "receivable", name],
        JournalAccount::Unallocated(None) => vec!["liabilities", "unallocated"],
        JournalAccount::Unallocated(Some(name)) => vec!["liabilities", "unallocated", name],
        JournalAccount::VatOwed(rate) => {
            return ["liabilities", "vat", &rate.to_string()].map(str::to_owned).to_vec();
        }
        JournalAccount::Revenue(VatBasis::Rate(rate)) => {
            return ["revenues", "parking", &rate.to_string()].map(str::to_owned).to_vec();
        }
        JournalAccount::Revenue(VatBasis::Exempt(reason)) => vec!["revenues", "parking", "no VAT", reason],
    };
    parts.into_iter().map(str::to_owned).collect()
}

fn read_back(account: &str) -> Vec<String> {
    let part = |part: &str| {
        let mut bytes = Vec::new();
        let mut rest = part.bytes();
        while let Some(byte) = rest.next() {
            let hex = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
            match byte {
                b'%' => bytes.push(hex(rest.next().unwrap()) << 4 | hex(rest.next().unwrap())),
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    account.split(':').map(part).collect()
}

#[test]
fn hledger_shows_every_line_and_every_balance() {
    if !requires::hledger() {
        return;
    }
    let count = by_scale(200, 3_000, 100_000);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fogpost.journal");
    let out = io::BufWriter::new(std::fs::File::create(&file).unwrap());
    let last = write_hledger(bookings(count).map(Ok::<_, io::Error>), out).unwrap();
    assert_eq!(last, Some(count));

    let mut expected = Vec::new();
    let mut balances = BTreeMap::<(Vec<String>, &str), i64>::new();
    for booking in bookings(count) {
        for line in &booking.lines {
            let money = Money { amount: line.amount, currency: booking.currency };
            expected.push((booking.number, booking.date.to_string(), account_of(line), money.to_string()));
            *balances.entry((account_of(line), booking.currency.code())).or_default() += line.amount.minor();
        }
    }
    let mut shown: Vec<_> = hledger(&file, &["print", "-O", "csv"])
        .iter()
        .map(|row| {
            (
                row[4].parse().unwrap(),
                row[1].to_owned(),
                read_back(&row[7]),
                format!("{} {}", &row[8], &row[9]),
            )
        })
        .collect();
    shown.sort_by_key(|(number, ..): &(u64, _, _, _)| *number);
    assert_eq!(shown, expected);

    let expected: BTreeMap<_, _> = balances
        .into_iter()
        .filter(|(_, minor)| *minor != 0)
        .map(|((account, code), minor)| {
            ((account, code.to_owned()), Currency::new(code).unwrap().show(Amount::of_minor(minor)))
        })
        .collect();
    let mut shown = BTreeMap::new();
    for row in hledger(&file, &["balance", "--flat", "--no-total", "-O", "csv"]) {
        for money in row[1].split(", ").filter(|money| *money != "0") {
            let (number, code) = money.split_once(' ').unwrap();
            shown.insert((read_back(&row[0]), code.to_owned()), number.to_owned());
        }
    }
    assert_eq!(shown, expected);
}
