//! The table of contents of a month's statements: which customer, which number, how much, in which file.

use super::sheet::{CsvTable, text};
use super::{Customer, Statement};

const HEADER: [&str; 11] =
    ["month", "account", "name", "number", "lines", "currency", "gross", "net", "vat", "position", "file"];

/// Grows by one statement after the other: none of them has to be kept.
pub struct Overview(CsvTable);

impl Default for Overview {
    fn default() -> Overview {
        Overview(CsvTable::new(&HEADER))
    }
}

impl Overview {
    /// A row for each currency of `statement`; one without amounts when there is none. `file` is its name without ending.
    pub fn add(&mut self, statement: &Statement, file: &str) {
        let head = statement.head();
        let name = match &head.customer {
            Customer::Account { name, .. } => name.as_deref().unwrap_or_default(),
            Customer::Plate(_) => "",
        };
        let number = head.number.map_or_else(String::new, |number| number.to_string());
        let mut row = |amounts: [&str; 4]| {
            let [currency, gross, net, vat] = amounts;
            self.0.row([
                head.month.to_string().as_str(),
                &text(head.customer.id()),
                &text(name),
                &number,
                &statement.lines().len().to_string(),
                &text(currency),
                gross,
                net,
                vat,
                &head.position.to_string(),
                &text(file),
            ]);
        };
        for total in statement.totals() {
            let (gross, net, vat) = (total.gross.number(), total.net.number(), total.vat.number());
            row([total.gross.currency.code(), &gross, &net, &vat]);
        }
        if statement.totals().is_empty() {
            row([""; 4]);
        }
    }

    pub fn to_csv(self) -> String {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{a_month, account, head};
    use super::*;

    #[test]
    fn each_statement_stands_in_it_with_its_sums() {
        let mut overview = Overview::default();
        overview.add(&a_month(3), "miller-2026-11");
        overview.add(&Statement::new(head(account("=evil")), vec![]).unwrap(), "_evil-2026-11");
        let expected = "\
month,account,name,number,lines,currency,gross,net,vat,position,file
2026-11,miller,Miller Logistik GmbH & Co. KG,7,5,EUR,42.00,35.29,6.71,184220,miller-2026-11
2026-11,'=evil,Miller Logistik GmbH & Co. KG,7,0,,,,,184220,_evil-2026-11
";
        assert_eq!(overview.to_csv(), expected.replace('\n', "\r\n"));
    }
}
