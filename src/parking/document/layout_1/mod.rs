//! Layout 1. **Its code and what it uses never change:** a document that was issued with it has these bytes forever. The samples under
//! `document/tests` hold it. What should look different is another layout.

mod csv;
mod html;
mod json;
mod text;

use super::line::{DocumentLine, LineCar};
use super::rendering::Rendering;
use super::words::{duration, local, offset, to_second};
use super::{CorrectedDocument, DocumentHead, DocumentKind, PriceStep};
use crate::parking::Moment;
use crate::parking::money::{Amount, Money, VatBasis};
use jiff::civil::Date;
use std::io;

/// What stands before the first line.
pub(super) fn begin(rendering: Rendering, out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    match rendering {
        Rendering::Text => text::begin(out, head),
        Rendering::Json => json::begin(out, head),
        Rendering::Csv => csv::begin(out),
        Rendering::Html => html::begin(out, head),
    }
}

/// The line with this number, from 1. Its rate is one of the head's.
pub(super) fn line(
    rendering: Rendering,
    out: &mut Vec<u8>,
    head: &DocumentHead,
    line: &DocumentLine,
    words: &LineWords,
    number: u64,
) -> io::Result<()> {
    match rendering {
        Rendering::Text => text::line(out, head, line, words),
        Rendering::Json => json::line(out, head, line, number),
        Rendering::Csv => csv::line(out, head, line, words),
        Rendering::Html => html::line(out, head, line, words),
    }
}

pub(super) fn end(rendering: Rendering, out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    match rendering {
        Rendering::Text => text::end(out, head),
        Rendering::Json => json::end(out, head),
        Rendering::Csv => Ok(()),
        Rendering::Html => html::end(out, head),
    }
}

/// Instead of a number.
const DRAFT: &str = "DRAFT";

fn number(head: &DocumentHead) -> &str {
    head.issue.as_ref().map_or(DRAFT, |issue| &issue.number)
}

fn kind(head: &DocumentHead) -> &'static str {
    match head.kind() {
        DocumentKind::Invoice => "Invoice",
        DocumentKind::CreditNote => "Credit note",
    }
}

fn rate<'h>(head: &'h DocumentHead, line: &DocumentLine) -> Option<&'h VatBasis> {
    line.amount.rate.map(|rate| &head.totals.rates[usize::from(rate)].rate)
}

/// `30 Nov 2026`.
fn day(date: Date) -> String {
    date.strftime("%-d %b %Y").to_string()
}

/// What several renderings say of a line.
pub(super) struct LineWords {
    entry: DayAndTime,
    exit: DayAndTime,
    /// `None`: the exit is earlier than the entry.
    lasted: Option<String>,
    /// How the price came about: `Sun 1 Nov 07:05: 4 × 2.50 = 10.00 (mon-fri 07:00-19:00)`.
    steps: Vec<String>,
    /// What a correction line corrects, and why.
    correction: Option<[String; 2]>,
}

struct DayAndTime {
    /// `Sun 1 Nov 2026`.
    day: String,
    /// `07:05:12`, with the offset from UTC where clocks changed during the stay.
    time: String,
}

impl LineWords {
    pub(super) fn new(head: &DocumentHead, line: &DocumentLine) -> LineWords {
        let day_and_time = |moment: Moment| {
            let time = local(moment).strftime("%H:%M:%S");
            let day = local(moment).strftime("%a %-d %b %Y").to_string();
            let is_clear = line.entry.offset == line.exit.offset;
            let time = if is_clear { time.to_string() } else { format!("{time} (UTC{})", offset(moment)) };
            DayAndTime { day, time }
        };
        LineWords {
            entry: day_and_time(line.entry),
            exit: day_and_time(line.exit),
            lasted: duration(to_second(line.entry), to_second(line.exit)),
            steps: line.steps.iter().map(|step| step_in_words(head, step)).collect(),
            correction: correction(head, line),
        }
    }
}

fn step_in_words(head: &DocumentHead, step: &PriceStep) -> String {
    let show = |amount| head.currency.show(amount);
    let (from, total) = (local(step.from).strftime("%a %-d %b %H:%M"), show(step.total));
    let price = match (step.units, step.each) {
        (1, _) => total,
        (units, Some(each)) => format!("{units} × {} = {total}", show(each)),
        (units, None) => format!("{units} units, {total}"),
    };
    format!("{from}: {price} ({})", step.rule)
}

fn correction(head: &DocumentHead, line: &DocumentLine) -> Option<[String; 2]> {
    let correction = line.correction.as_ref()?;
    let show = |amount| head.currency.show(amount);
    let (number, date) = (&correction.document.number, day(correction.document.date));
    let (before, now) = (show(correction.before), show(correction.now));
    Some([
        format!("Corrects {number} of {date}: charged until now {before}, correct amount {now}"),
        format!("Reason: {}", correction.reason.in_words()),
    ])
}

/// Stands for a plate that is not kept.
const PLATE_DELETED: &str = "plate deleted";

fn car(line: &DocumentLine) -> &str {
    match &line.car {
        LineCar::Plate(plate) => plate,
        LineCar::Token(_) => PLATE_DELETED,
    }
}

/// The documents that this one corrects.
fn corrected(head: &DocumentHead) -> Option<String> {
    let named = |document: &CorrectedDocument| format!("{} of {}", document.number, day(document.date));
    let all: Vec<String> = head.corrects.iter().map(named).collect();
    let also = match head.kind() {
        DocumentKind::CreditNote => "This credit note corrects",
        DocumentKind::Invoice => "This invoice contains corrections of",
    };
    (!all.is_empty()).then(|| format!("{also} {}.", all.join(", ")))
}

/// What is to be paid and when, in sentences.
fn terms(head: &DocumentHead) -> Vec<String> {
    let total = head.totals.gross.minor();
    let money = |minor| Money::of_minor(minor, head.currency);
    let mut terms = Vec::new();
    match (&head.issue, head.due_date()) {
        (None, _) => terms.push("This is a draft and not an invoice. Amounts may still change.".to_owned()),
        (Some(issue), Some(date)) => {
            terms.push(format!("Please pay {} by {}.", money(total), day(date)));
            terms.push(format!("Please state the number {} with your payment.", issue.number));
        }
        (Some(_), None) if total < 0 => {
            terms.push(format!(
                "{} are credited to your account. Nothing is to be paid.",
                money(total.saturating_neg())
            ));
        }
        (Some(_), None) => terms.push("Nothing is to be paid.".to_owned()),
    }
    if head.totals.rates.iter().any(|sum| matches!(sum.rate, VatBasis::Rate(_))) {
        terms.push("Prices and gross amounts include VAT.".to_owned());
    }
    for sum in &head.totals.rates {
        if let VatBasis::Exempt(reason) = &sum.rate {
            terms.push(format!("No VAT: {reason}."));
        }
    }
    terms
}

/// The operator's bank account, as name and value.
fn bank(head: &DocumentHead) -> Vec<(&'static str, String)> {
    let iban = head.issuer.iban.as_ref().map(|iban| ("IBAN", iban.to_string()));
    let bic = head.issuer.bic.as_ref().map(|bic| ("BIC", bic.to_string()));
    iban.into_iter().chain(bic).collect()
}

/// The numbers by which tax offices know the operator.
fn tax_ids(head: &DocumentHead) -> Vec<(&'static str, &str)> {
    let vat = head.issuer.vat_id.as_deref().map(|id| ("VAT ID", id));
    let tax = head.issuer.tax_number.as_deref().map(|id| ("Tax number", id));
    vat.into_iter().chain(tax).collect()
}

/// For each rate and in total: name, net, VAT, gross.
fn sums(head: &DocumentHead) -> Vec<(String, [Amount; 3])> {
    let totals = &head.totals;
    let rates = totals.rates.iter().map(|sum| {
        let name = match &sum.rate {
            VatBasis::Rate(rate) => format!("{rate} % VAT"),
            VatBasis::Exempt(_) => "No VAT".to_owned(),
        };
        (name, [sum.net, sum.vat, sum.gross])
    });
    rates.chain([("Total".to_owned(), [totals.net, totals.vat, totals.gross])]).collect()
}
