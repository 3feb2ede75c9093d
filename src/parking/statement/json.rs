//! A statement as JSON.

use super::{Operator, Statement, StatementCar, StatementEntry, StatementLine, Total};
use crate::parking::money::{VatRate, as_percent};
use serde::Serialize;

/// A statement as programs read it. Amounts are integers in minor units, times RFC 3339 with offset.
#[derive(Debug, Serialize)]
pub struct StatementJson<'a> {
    operator: &'a Operator,
    /// `null` in the statement of one plate.
    account: Option<&'a str>,
    account_name: Option<&'a str>,
    plate: Option<&'a str>,
    month: String,
    number: Option<u32>,
    position: u64,
    lines: Vec<ShownLine<'a>>,
    totals: &'a [Total],
}

/// Every line has the first five fields; the others depend on its kind.
#[derive(Debug, Serialize)]
struct ShownLine<'a> {
    kind: &'static str,
    id: &'a str,
    amount: i64,
    currency: &'a str,
    #[serde(serialize_with = "as_percent")]
    vat_percent: Option<VatRate>,
    #[serde(flatten)]
    entry: ShownEntry<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownEntry<'a> {
    Charge {
        garage: &'a str,
        plate: Option<&'a str>,
        /// What stands for a plate that was forgotten.
        token: Option<&'a str>,
        entry: String,
        exit: String,
        tariff: &'a str,
        breakdown: &'a [String],
        note: Option<&'a str>,
    },
    Correction {
        charge: &'a str,
        reason: &'a str,
        by: &'a str,
        at: String,
    },
}

impl Statement {
    /// For programs: serialises to the object that `GET /v1/statements/…` answers with.
    pub fn to_json(&self) -> StatementJson<'_> {
        let head = self.head();
        let (account, account_name, plate) = match &head.customer {
            super::Customer::Account { account, name } => (Some(account.as_str()), name.as_deref(), None),
            super::Customer::Plate(plate) => (None, None, Some(plate.as_str())),
        };
        StatementJson {
            operator: &head.operator,
            account,
            account_name,
            plate,
            month: head.month.to_string(),
            number: head.number,
            position: head.position,
            lines: self.lines().iter().map(line).collect(),
            totals: self.totals(),
        }
    }
}

fn line(line: &StatementLine) -> ShownLine<'_> {
    let entry = match &line.entry {
        StatementEntry::Charge(stay) => {
            let (plate, token) = match &stay.car {
                StatementCar::Plate(plate) => (Some(plate.as_str()), None),
                StatementCar::Token(token) => (None, Some(token.as_str())),
                StatementCar::Unknown => (None, None),
            };
            ShownEntry::Charge {
                garage: &stay.garage,
                plate,
                token,
                entry: stay.entry.to_string(),
                exit: stay.exit.to_string(),
                tariff: &stay.tariff,
                breakdown: &stay.breakdown,
                note: stay.note.as_deref(),
            }
        }
        StatementEntry::Void(correction) | StatementEntry::Credit(correction) => ShownEntry::Correction {
            charge: &correction.charge,
            reason: &correction.reason,
            by: &correction.by,
            at: correction.at.to_string(),
        },
    };
    ShownLine {
        kind: line.entry.kind(),
        id: &line.id,
        amount: line.amount.minor(),
        currency: line.amount.currency.code(),
        vat_percent: line.vat,
        entry,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{a_month, any_lines, statement};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn a_program_finds_every_fact_of_a_statement() {
        let json = serde_json::to_value(a_month(3).to_json()).unwrap();
        assert_eq!(json["operator"]["name"], "Stadtwerke Musterstadt Parken GmbH");
        assert_eq!(json["account"], "miller");
        assert_eq!(json["account_name"], "Miller Logistik GmbH & Co. KG");
        assert_eq!(json["plate"], Value::Null);
        assert_eq!((&json["month"], &json["number"]), (&json!("2026-11"), &json!(7)));
        let charge = &json["lines"][0];
        assert_eq!(charge["kind"], "charge");
        assert_eq!((&charge["amount"], &charge["currency"]), (&json!(1000), &json!("EUR")));
        assert_eq!(charge["entry"], "2026-11-01T07:05:12+01:00");
        assert_eq!(charge["vat_percent"], json!(19));
        let void = &json["lines"][3];
        assert_eq!(
            (&void["kind"], &void["charge"], &void["amount"]),
            (&json!("void"), &charge["id"], &json!(-1000))
        );
        let gross = &json["totals"][0]["gross"];
        assert_eq!(gross["currency"], "EUR");
        assert_eq!(gross["amount"], json["totals"][0]["rates"][0]["gross"]["amount"]);
    }

    proptest! {
        #[test]
        fn the_lines_in_json_add_up_to_its_totals(lines in any_lines()) {
            let json = serde_json::to_value(statement(lines).to_json()).unwrap();
            for total in json["totals"].as_array().unwrap() {
                let its = json["lines"].as_array().unwrap().iter().filter(|line| line["currency"] == total["currency"]);
                let sum: i64 = its.map(|line| line["amount"].as_i64().unwrap()).sum();
                prop_assert_eq!(total["gross"]["amount"].as_i64(), Some(sum));
            }
        }
    }
}
