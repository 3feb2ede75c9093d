//! JSON: one object, with each line of the document on a line of its own. Amounts are integers in minor units of `currency`, times
//! are RFC 3339 with the offset of the garage, to the millisecond, dates are `YYYY-MM-DD`. All fields are always there.
//!
//! | field | |
//! | --- | --- |
//! | `layout`, `kind` | 1; `invoice` or `credit_note` |
//! | `draft`, `number`, `serial`, `date`, `due_date` | the last four are `null` in a draft; `due_date` also where nothing is to be paid |
//! | `month` | the month through which stays that ended are on it |
//! | `operator` | `name`, `address`, `country`, `vat_id`, `tax_number`, `iban`, `bic`, `payment_days`, `footer` |
//! | `customer` | `account` or `plate`, `name`, `address`, `country`, `vat_id` |
//! | `currency`, `corrects` | of all amounts; the earlier documents (`number`, `date`) that its lines correct |
//! | `totals` | `lines`, `gross`, `net`, `vat`, `rates`, each with `vat_percent` or `no_vat_reason`, `gross`, `net`, `vat` |
//! | `lines` | `reference` (the charge's id), `garage`, `plate` or `token`, `entered_at`, `left_at`, `month`, `tariff`, `breakdown`, `notes`, `vat_percent`, `no_vat_reason`, `gross`, `net`, `vat`, `correction` |
//! | `breakdown` | `from`, `units`, `each` (`null`: several prices), `total`, `reason` |
//! | `correction` | `null`, or `number`, `date`, `before`, `now`, `reason` |

use super::super::{CorrectedDocument, DocumentHead, DocumentLine, Issuer, LineAmount, LineCar, RateSum};
use crate::parking::journal::Debtor;
use crate::parking::money::{Amount, VatBasis, VatRate, as_percent};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct HeadJson<'a> {
    layout: u16,
    kind: &'static str,
    draft: bool,
    number: Option<&'a str>,
    serial: Option<u64>,
    date: Option<String>,
    due_date: Option<String>,
    month: String,
    operator: &'a Issuer,
    customer: CustomerJson<'a>,
    currency: &'static str,
    corrects: &'a [CorrectedDocument],
    totals: TotalsJson<'a>,
}

#[derive(Serialize)]
struct CustomerJson<'a> {
    account: Option<&'a str>,
    plate: Option<&'a str>,
    name: Option<&'a str>,
    address: &'a [String],
    country: Option<&'a str>,
    vat_id: Option<&'a str>,
}

#[derive(Serialize)]
struct TotalsJson<'a> {
    lines: u64,
    gross: Amount,
    net: Amount,
    vat: Amount,
    rates: Vec<RateJson<'a>>,
}

/// An amount with its rate.
#[derive(Serialize)]
struct RateJson<'a> {
    #[serde(serialize_with = "as_percent")]
    vat_percent: Option<VatRate>,
    no_vat_reason: Option<&'a str>,
    gross: Amount,
    net: Amount,
    vat: Amount,
}

#[derive(Serialize)]
struct LineJson<'a> {
    reference: String,
    garage: &'a str,
    plate: Option<&'a str>,
    token: Option<&'a str>,
    entered_at: String,
    left_at: String,
    month: String,
    tariff: Option<&'a str>,
    breakdown: Vec<StepJson<'a>>,
    notes: Vec<&'a str>,
    #[serde(flatten)]
    amount: RateJson<'a>,
    correction: Option<CorrectionJson<'a>>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    from: String,
    units: u64,
    each: Option<Amount>,
    total: Amount,
    reason: &'a str,
}

#[derive(Serialize)]
struct CorrectionJson<'a> {
    number: &'a str,
    date: String,
    before: Amount,
    now: Amount,
    reason: &'a str,
}

pub(super) fn begin(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    let (issue, customer) = (head.issue.as_ref(), &head.customer);
    let (account, plate) = match &customer.debtor {
        Debtor::Account(account) => (Some(account.as_str()), None),
        Debtor::Plate(plate) => (None, Some(plate.as_str())),
        Debtor::PlateRemoved { .. } => (None, None),
    };
    let totals = &head.totals;
    let json = HeadJson {
        layout: head.layout,
        kind: head.kind().code(),
        draft: issue.is_none(),
        number: issue.map(|issue| issue.number.as_str()),
        serial: issue.map(|issue| issue.serial),
        date: issue.map(|issue| issue.date.to_string()),
        due_date: head.due_date().map(|date| date.to_string()),
        month: head.month.to_string(),
        operator: &head.issuer,
        customer: CustomerJson {
            account,
            plate,
            name: customer.name.as_deref(),
            address: &customer.address,
            country: customer.country.as_deref(),
            vat_id: customer.vat_id.as_deref(),
        },
        currency: head.currency.code(),
        corrects: &head.corrects,
        totals: TotalsJson {
            lines: totals.lines,
            gross: totals.gross,
            net: totals.net,
            vat: totals.vat,
            rates: totals.rates.iter().map(rate_sum).collect(),
        },
    };
    serde_json::to_writer(&mut *out, &json)?;
    // The lines belong into the object.
    out.pop();
    write!(out, ",\"lines\":[")
}

pub(super) fn line(
    out: &mut Vec<u8>,
    head: &DocumentHead,
    line: &DocumentLine,
    number: u64,
) -> io::Result<()> {
    let (plate, token) = match &line.car {
        LineCar::Plate(plate) => (Some(plate.as_str()), None),
        LineCar::Token(token) => (None, Some(token.as_str())),
    };
    let LineAmount { gross, net, .. } = line.amount;
    let breakdown = line.steps.iter().map(|step| StepJson {
        from: step.from.to_string(),
        units: step.units,
        each: step.each,
        total: step.total,
        reason: &step.rule,
    });
    let json = LineJson {
        reference: line.reference.long(),
        garage: &line.garage,
        plate,
        token,
        entered_at: line.entry.to_string(),
        left_at: line.exit.to_string(),
        month: line.month.to_string(),
        tariff: line.tariff.as_deref(),
        breakdown: breakdown.collect(),
        notes: line.notes.iter().map(|note| note.as_str()).collect(),
        amount: RateJson { gross, net, vat: line.amount.vat(), ..with_rate(super::rate(head, line)) },
        correction: line.correction.as_ref().map(|correction| CorrectionJson {
            number: &correction.document.number,
            date: correction.document.date.to_string(),
            before: correction.before,
            now: correction.now,
            reason: correction.reason.in_words(),
        }),
    };
    write!(out, "{}", if number > 1 { ",\n" } else { "\n" })?;
    Ok(serde_json::to_writer(out, &json)?)
}

pub(super) fn end(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    writeln!(out, "{}]}}", if head.totals.lines > 0 { "\n" } else { "" })
}

fn rate_sum(sum: &RateSum) -> RateJson<'_> {
    let RateSum { rate, gross, net, vat } = sum;
    RateJson { gross: *gross, net: *net, vat: *vat, ..with_rate(Some(rate)) }
}

fn with_rate(rate: Option<&VatBasis>) -> RateJson<'_> {
    let (vat_percent, no_vat_reason) = match rate {
        Some(VatBasis::Rate(rate)) => (Some(*rate), None),
        Some(VatBasis::Exempt(reason)) => (None, Some(reason.as_str())),
        None => (None, None),
    };
    RateJson { vat_percent, no_vat_reason, gross: Amount::ZERO, net: Amount::ZERO, vat: Amount::ZERO }
}
