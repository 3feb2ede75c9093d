//! Statements as double entries for a bookkeeper.
//!
//! **Promise.** For each entry, and so in sum for each currency, debits equal credits to the minor unit; what customers owe,
//! net revenue and VAT are those of the statements. The VAT of a month is what the statements of the month say.
//! **Kept by.** One entry for each statement, currency and rate, from the statement's own totals: VAT is computed once on
//! the sum of a rate, so that no split over single charges could agree with it. The statement is the voucher, and tells the
//! charges.
//! **Not promised.** Payments: the books here know nothing of them. That each stay appears once: a caller that gives statements of
//! an account and of its plates gives them twice.
//!
//! # The columns
//!
//! One row for each posting, the form that most import masks share: those of Sage, PayTraq, Odoo and GnuCash. Where a program
//! takes each row for a transaction, as hledger does, a clearing account on the other side of all rows comes out at zero.
//!
//! | column | why |
//! | --- | --- |
//! | `date` | the last day of the month, `YYYY-MM-DD`: when what was supplied within it is billed |
//! | `document` | the voucher's name, the same in all rows of an entry, and unlike that of any other |
//! | `account` | `receivables:CUSTOMER`, `revenue:parking` or `vat:RATE`: a plain-text ledger nests by `:` |
//! | `debit`, `credit` | never negative and never both, with a decimal point; a sum that is given back changes sides |
//! | `currency` | ISO 4217; an entry has one |
//! | `vat_percent` | empty outside of VAT: programs with tax keys choose theirs by it |
//! | `customer` | for programs that keep one receivables account and a ledger of persons beside it |
//! | `text` | what a person reads in the account |

use super::sheet::{self, CsvTable};
use super::{Customer, Money, Statement, VatRate};
use jiff::civil::Date;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Debit,
    Credit,
}

/// A row: an amount on one side of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    pub date: Date,
    pub document: String,
    pub account: String,
    pub side: Side,
    /// Never negative.
    pub amount: Money,
    pub vat: Option<VatRate>,
    pub customer: String,
    pub text: String,
}

/// The postings of a statement. What came to nothing has none.
pub fn postings(statement: &Statement) -> Vec<Posting> {
    let head = statement.head();
    let (month, customer) = (head.month, head.customer.id());
    let kind = match head.customer {
        Customer::Account { .. } => "account",
        Customer::Plate(_) => "plate",
    };
    let number = head.number.map_or_else(String::new, |number| format!(" no. {number}"));
    let text = format!("Parking {month}, statement{number}");
    let mut all = Vec::new();
    for sum in statement.totals().iter().flat_map(|total| &total.rates) {
        let currency = sum.gross.currency;
        let rate = sum.rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
        // A month, a customer and a rate name one sum, whether the statement is numbered or not.
        let document = format!("{month} {kind} {customer} {currency} {rate}");
        // Debits are positive here. A total has an opposite.
        for (account, debit) in [
            (format!("receivables:{customer}"), sum.gross.minor()),
            ("revenue:parking".to_owned(), -sum.net.minor()),
            (format!("vat:{rate}"), -sum.vat.minor()),
        ] {
            if debit == 0 {
                continue;
            }
            all.push(Posting {
                date: month.last_day(),
                document: document.clone(),
                account,
                side: if debit > 0 { Side::Debit } else { Side::Credit },
                amount: Money::of_minor(debit.abs(), currency),
                vat: sum.rate,
                customer: customer.to_owned(),
                text: text.clone(),
            });
        }
    }
    all
}

const HEADER: [&str; 9] =
    ["date", "document", "account", "debit", "credit", "currency", "vat_percent", "customer", "text"];

/// The postings as CSV by RFC 4180, with a header, safe against formulas.
pub fn to_csv(postings: &[Posting]) -> String {
    let mut table = CsvTable::new(&HEADER);
    for posting in postings {
        let amount = posting.amount.number();
        let (debit, credit) = match posting.side {
            Side::Debit => (amount.as_str(), ""),
            Side::Credit => ("", amount.as_str()),
        };
        table.row([
            posting.date.to_string().as_str(),
            &sheet::text(&posting.document),
            &sheet::text(&posting.account),
            debit,
            credit,
            &sheet::text(posting.amount.currency.code()),
            &posting.vat.map_or_else(String::new, |rate| rate.to_string()),
            &sheet::text(&posting.customer),
            &sheet::text(&posting.text),
        ]);
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::super::Total;
    use super::super::samples::{a_month, account, any_lines, credit, euro, head, vat, yen};
    use super::*;
    use crate::parking::money::Currency;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn of(customer: Customer, lines: Vec<super::super::StatementLine>) -> Statement {
        Statement::new(head(customer), lines).unwrap()
    }
    fn of_all(statements: &[Statement]) -> Vec<Posting> {
        statements.iter().flat_map(postings).collect()
    }

    #[test]
    fn a_month_is_booked_gross_to_the_customer_and_net_and_tax_apart() {
        let back = of(account("=evil"), vec![credit(-500, yen(), None), credit(-119, euro(), vat(1900))]);
        let table = to_csv(&of_all(&[a_month(3), back]));
        let expected = "\
date,document,account,debit,credit,currency,vat_percent,customer,text
2026-11-30,2026-11 account miller EUR 19,receivables:miller,42.00,,EUR,19,miller,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account miller EUR 19,revenue:parking,,35.29,EUR,19,miller,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account miller EUR 19,vat:19,,6.71,EUR,19,miller,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account =evil EUR 19,receivables:=evil,,1.19,EUR,19,'=evil,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account =evil EUR 19,revenue:parking,1.00,,EUR,19,'=evil,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account =evil EUR 19,vat:19,0.19,,EUR,19,'=evil,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account =evil JPY none,receivables:=evil,,500,JPY,,'=evil,\"Parking 2026-11, statement no. 7\"
2026-11-30,2026-11 account =evil JPY none,revenue:parking,500,,JPY,,'=evil,\"Parking 2026-11, statement no. 7\"
";
        assert_eq!(table, expected.replace('\n', "\r\n"));
    }

    #[test]
    fn what_came_to_nothing_is_not_booked() {
        let lines = vec![credit(-5, euro(), None), credit(5, euro(), None)];
        assert_eq!(of_all(&[of(account("a"), lines), of(account("b"), vec![])]), []);
    }

    /// What each account holds, debits less credits.
    fn balances(rows: &[Posting]) -> BTreeMap<(Currency, &str), i128> {
        let mut balances = BTreeMap::new();
        for row in rows {
            let sign = if row.side == Side::Debit { 1 } else { -1 };
            *balances.entry((row.amount.currency, row.account.as_str())).or_default() +=
                sign * i128::from(row.amount.minor());
        }
        balances
    }

    proptest! {
        #[test]
        fn debits_equal_credits_and_the_statements(months in prop::collection::vec(any_lines(), 0..4)) {
            let name = |n: usize| account(&format!("customer {n}"));
            let statements: Vec<Statement> =
                months.into_iter().enumerate().map(|(n, lines)| of(name(n), lines)).collect();
            let rows = of_all(&statements);
            prop_assert!(rows.iter().all(|row| row.amount.minor() > 0));

            let mut entries: BTreeMap<&str, (i128, &str)> = BTreeMap::new();
            for row in &rows {
                let sign = if row.side == Side::Debit { 1 } else { -1 };
                let (sum, currency) = entries.entry(&row.document).or_insert((0, row.amount.currency.code()));
                *sum += sign * i128::from(row.amount.minor());
                prop_assert_eq!(*currency, row.amount.currency.code(), "an entry has one currency");
            }
            prop_assert!(entries.values().all(|(sum, _)| *sum == 0));

            let balances = balances(&rows);
            let held = |currency: &Currency, is: &dyn Fn(&str) -> bool| -> i128 {
                let its = balances.iter().filter(|((of, account), _)| of == currency && is(account));
                its.map(|(_, sum)| *sum).sum()
            };
            for currency in [euro(), yen()] {
                let totals: Vec<(&Statement, &Total)> = statements
                    .iter()
                    .flat_map(|statement| statement.totals().iter().map(move |total| (statement, total)))
                    .filter(|(_, total)| total.gross.currency == currency)
                    .collect();
                for (statement, total) in &totals {
                    let name = format!("receivables:{}", statement.head().customer.id());
                    prop_assert_eq!(held(&currency, &|account| account == name), i128::from(total.gross.minor()));
                }
                let net: i128 = totals.iter().map(|(_, total)| i128::from(total.net.minor())).sum();
                prop_assert_eq!(held(&currency, &|account| account == "revenue:parking"), -net);
                let mut by_rate: BTreeMap<String, i128> = BTreeMap::new();
                for rate in totals.iter().flat_map(|(_, total)| &total.rates) {
                    let name = rate.rate.map_or("none".to_owned(), |rate| rate.to_string());
                    *by_rate.entry(name).or_default() += i128::from(rate.vat.minor());
                }
                for (rate, vat) in by_rate {
                    let name = format!("vat:{rate}");
                    prop_assert_eq!(held(&currency, &|account| account == name), -vat);
                }
            }
        }
    }
}
