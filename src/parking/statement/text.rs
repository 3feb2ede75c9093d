//! A statement as plain text, 78 columns wide where what people wrote allows it.

use super::words::{duration, local, offset, visible};
use super::{
    Correction, Customer, Moment, Statement, StatementCar, StatementEntry, StatementLine, StatementStay,
    Total,
};
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

const WIDTH: usize = 78;

impl Statement {
    /// For a terminal or a plain mail.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        head(&mut out, self);
        for line in self.lines() {
            out.push('\n');
            entry(&mut out, line);
        }
        out.push('\n');
        if self.lines().is_empty() {
            out.push_str("Nothing was charged in this month.\n");
        }
        for total in self.totals() {
            sums(&mut out, total);
        }
        out
    }
}

/// Text grows in memory, which takes it all.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.write_fmt(line).expect("memory takes text");
    out.push('\n');
}

fn head(out: &mut String, statement: &Statement) {
    let head = statement.head();
    put(out, format_args!("{}", visible(&head.operator.name)));
    for line in &head.operator.address {
        put(out, format_args!("{}", visible(line)));
    }
    if let Some(id) = &head.operator.vat_id {
        put(out, format_args!("VAT ID {}", visible(id)));
    }
    put(out, format_args!("\nSTATEMENT FOR {}", head.month.in_words().to_string().to_uppercase()));
    match &head.customer {
        Customer::Account { account, name: None } => put(out, format_args!("Account  {}", visible(account))),
        Customer::Account { account, name: Some(name) } => {
            put(out, format_args!("Account  {} ({})", visible(account), visible(name)));
        }
        Customer::Plate(plate) => put(out, format_args!("Car      {}", visible(plate))),
    }
    if let Some(number) = head.number {
        put(out, format_args!("Number   {number}"));
    }
    put(out, format_args!("Books    position {}", head.position));
}

fn time(moment: Moment) -> String {
    let local = local(moment);
    format!("{} {} {}", local.date(), local.time(), offset(moment))
}

fn entry(out: &mut String, line: &StatementLine) {
    match &line.entry {
        StatementEntry::Charge(stay) => charge(out, line, stay),
        StatementEntry::Void(correction) => corrected(out, line, "Void", correction),
        StatementEntry::Credit(correction) => corrected(out, line, "Credit", correction),
    }
    put(out, format_args!("    id {}", visible(&line.id)));
}

fn charge(out: &mut String, line: &StatementLine, stay: &StatementStay) {
    let car = match &stay.car {
        StatementCar::Plate(plate) => visible(plate),
        StatementCar::Token(token) => format!("plate forgotten ({})", visible(token)),
        StatementCar::Unknown => "plate unknown".to_owned(),
    };
    with_amount(out, line, &format!("{}, {car}", visible(&stay.garage)));
    let lasted = duration(stay.entry, stay.exit).map_or_else(String::new, |time| format!(", after {time}"));
    put(out, format_args!("    in  {}", time(stay.entry)));
    put(out, format_args!("    out {}{lasted}", time(stay.exit)));
    let rate = line.vat.map_or_else(String::new, |rate| format!(", with {rate} % VAT"));
    put(out, format_args!("    tariff {}{rate}", visible(&stay.tariff)));
    if let Some(note) = &stay.note {
        put(out, format_args!("    {}", visible(note)));
    }
    for step in &stay.breakdown {
        put(out, format_args!("      {}", visible(step)));
    }
}

fn corrected(out: &mut String, line: &StatementLine, what: &str, correction: &Correction) {
    with_amount(out, line, &format!("{what}: {}", visible(&correction.reason)));
    let rate = line.vat.map_or_else(String::new, |rate| format!(", with {rate} % VAT"));
    put(out, format_args!("    by {}, {}{rate}", visible(&correction.by), time(correction.at)));
    put(out, format_args!("    of {}", visible(&correction.charge)));
}

/// The amount stands at the right edge, on a line of its own when there is no room.
fn with_amount(out: &mut String, line: &StatementLine, text: &str) {
    let amount = line.amount.to_string();
    match WIDTH.checked_sub(text.width() + 1) {
        Some(room) if room >= amount.width() => put(out, format_args!("{text} {amount:>room$}")),
        _ => put(out, format_args!("{text}\n{amount:>WIDTH$}")),
    }
}

fn sums(out: &mut String, total: &Total) {
    let code = total.gross.currency.code();
    let row = |out: &mut String, label: &str, net: String, vat: String, gross: String| {
        put(out, format_args!("{label:<21}{net:>19}{vat:>19}{gross:>19}"));
    };
    row(out, &format!("Sums in {code}"), "net".into(), "VAT".into(), "with VAT".into());
    for sum in &total.rates {
        let label = sum.rate.map_or("outside of VAT".to_owned(), |rate| format!("{rate} % VAT"));
        row(out, &label, sum.net.number(), sum.vat.number(), sum.gross.number());
    }
    row(out, "Total", total.net.number(), total.vat.number(), total.gross.number());
}

#[cfg(test)]
mod tests {
    use super::super::samples::{a_month, any_lines, credit, euro, head as sample_head, statement, vat, yen};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_statement_reads_like_this() {
        let text = a_month(2).to_text();
        let expected = "\
Stadtwerke Musterstadt Parken GmbH
Hauptstraße 12
70173 Stuttgart
Germany
VAT ID DE 123 456 789

STATEMENT FOR NOVEMBER 2026
Account  miller (Miller Logistik GmbH & Co. KG)
Number   7
Books    position 184220

Bull Ring, SML1234                                                   10.00 EUR
    in  2026-11-01 07:05:12 +01:00
    out 2026-11-01 10:48:32 +01:00, after 3 h 43 min 20 s
    tariff centre, with 19 % VAT
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_look_at_a_car_says_which_and_has_no_number() {
        let mut head = sample_head(Customer::Plate("SML1234".into()));
        head.number = None;
        let text = Statement::new(head, vec![]).unwrap().to_text();
        assert!(text.contains("Car      SML1234\nBooks"), "{text}");
        assert!(text.ends_with("\nNothing was charged in this month.\n"), "{text}");
    }

    #[test]
    fn every_currency_has_sums_of_its_own() {
        let lines = vec![credit(-1190, euro(), vat(1900)), credit(500, yen(), None)];
        let text = statement(lines).to_text();
        let sums: Vec<String> = text
            .lines()
            .rev()
            .take(6)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let expected = [
            "Total 500 0 500",
            "outside of VAT 500 0 500",
            "Sums in JPY net VAT with VAT",
            "Total -10.00 -1.90 -11.90",
            "19 % VAT -10.00 -1.90 -11.90",
            "Sums in EUR net VAT with VAT",
        ];
        assert_eq!(sums, expected);
    }

    proptest! {
        #[test]
        fn a_terminal_is_told_nothing(lines in any_lines()) {
            let text = statement(lines).to_text();
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
