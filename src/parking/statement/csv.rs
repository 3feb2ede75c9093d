//! A statement as a table: one row for each line.

use super::sheet::{CsvTable, text};
use super::{Statement, StatementEntry, StatementLine};
use std::borrow::Cow;

/// Amounts have the decimals of their currency and a point. What a kind of line does not have is empty.
#[rustfmt::skip]
const HEADER: [&str; 19] = [
    "month", "number", "account", "kind", "id", "corrects", "garage", "plate", "entry", "exit", "tariff",
    "amount", "currency", "vat_percent", "note", "reason", "by", "at", "breakdown",
];

impl Statement {
    pub fn to_csv(&self) -> String {
        let mut table = CsvTable::new(&HEADER);
        for line in self.lines() {
            table.row(row(self, line).iter().map(|cell| cell.as_bytes()));
        }
        table.finish()
    }
}

fn row<'a>(statement: &'a Statement, line: &'a StatementLine) -> [Cow<'a, str>; HEADER.len()] {
    let head = statement.head();
    let none = || Cow::Borrowed("");
    let (stay, correction) = match &line.entry {
        StatementEntry::Charge(stay) => (Some(stay), None),
        StatementEntry::Void(correction) | StatementEntry::Credit(correction) => (None, Some(correction)),
    };
    let of_stay = |part: fn(&super::StatementStay) -> &str| stay.map_or_else(none, |stay| text(part(stay)));
    let of_correction = |part: fn(&super::Correction) -> &str| {
        correction.map_or_else(none, |correction| text(part(correction)))
    };
    [
        head.month.to_string().into(),
        head.number.map_or_else(none, |number| number.to_string().into()),
        text(head.customer.id()),
        line.entry.kind().into(),
        text(&line.id),
        of_correction(|correction| &correction.charge),
        of_stay(|stay| &stay.garage),
        of_stay(|stay| stay.car.label().unwrap_or_default()),
        stay.map_or_else(none, |stay| stay.entry.to_string().into()),
        stay.map_or_else(none, |stay| stay.exit.to_string().into()),
        of_stay(|stay| &stay.tariff),
        line.amount.number().into(),
        line.amount.currency.code().into(),
        line.vat.map_or_else(none, |rate| rate.to_string().into()),
        of_stay(|stay| stay.note.as_deref().unwrap_or_default()),
        of_correction(|correction| &correction.reason),
        of_correction(|correction| &correction.by),
        correction.map_or_else(none, |correction| correction.at.to_string().into()),
        stay.map_or_else(none, |stay| text(&stay.breakdown.join("; ")).into_owned().into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::samples::{a_month, any_lines, statement};
    use super::*;
    use proptest::prelude::*;

    fn rows(table: &str) -> Vec<csv::StringRecord> {
        csv::Reader::from_reader(table.as_bytes()).records().map(Result::unwrap).collect()
    }
    fn column(name: &str) -> usize {
        HEADER.iter().position(|column| *column == name).unwrap()
    }

    #[test]
    fn a_spreadsheet_finds_every_line() {
        let statement = a_month(3);
        let table = statement.to_csv();
        assert!(table.starts_with("month,number,account,kind,"));
        assert_eq!(table.matches("\r\n").count(), 1 + statement.lines().len());
        let rows = rows(&table);
        let cell = |row: usize, name: &str| rows[row].get(column(name)).unwrap();
        assert_eq!(cell(0, "amount"), "10.00");
        assert_eq!(cell(0, "garage"), "Bull Ring");
        assert_eq!(cell(3, "kind"), "void");
        assert_eq!(cell(3, "amount"), "-10.00");
        assert_eq!(cell(3, "corrects"), cell(0, "id"));
        assert_eq!(cell(3, "at"), "2026-11-28T09:30:00+01:00");
    }

    proptest! {
        #[test]
        fn only_numbers_begin_like_a_formula_and_amounts_come_back(lines in any_lines()) {
            let statement = statement(lines);
            let rows = rows(&statement.to_csv());
            prop_assert_eq!(rows.len(), statement.lines().len());
            for (row, line) in rows.iter().zip(statement.lines()) {
                for (cell, name) in row.iter().zip(HEADER) {
                    if name == "amount" {
                        prop_assert_eq!(cell.replace('.', "").parse::<i64>(), Ok(line.amount.minor()));
                    } else {
                        prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{name}: {cell:?}");
                    }
                }
                prop_assert_eq!(&row[column("id")], text(&line.id));
            }
        }
    }
}
