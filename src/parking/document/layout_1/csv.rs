//! A table: one row for each line. A document without lines has only the header.
//!
//! Amounts have the decimals of their currency and a point. What a line does not have is empty.

use super::super::words::to_second;
use super::super::{DocumentHead, DocumentLine, LineCar};
use super::{LineWords, VatBasis};
use crate::parking::journal::Debtor;
use crate::parking::sheet::{text, write_row};
use std::borrow::Cow;
use std::io;

#[rustfmt::skip]
const HEADER: [&str; 25] = [
    "number", "kind", "date", "account", "month", "reference", "garage", "plate", "token", "entered_at", "left_at", "tariff",
    "vat_percent", "no_vat_reason", "net", "vat", "gross", "currency", "corrects", "corrects_date", "before", "now", "reason",
    "breakdown", "notes",
];

pub(super) fn begin(out: &mut Vec<u8>) -> io::Result<()> {
    write_row(out, HEADER)
}

pub(super) fn line(
    out: &mut Vec<u8>,
    head: &DocumentHead,
    line: &DocumentLine,
    words: &LineWords,
) -> io::Result<()> {
    let none = || Cow::Borrowed("");
    let show = |amount| Cow::Owned(head.currency.show(amount));
    let owned = |written: String| Cow::Owned(text(&written).into_owned());
    let account = match &head.customer.debtor {
        Debtor::Account(account) => text(account.as_str()),
        Debtor::Plate(_) | Debtor::PlateRemoved { .. } => none(),
    };
    let (plate, token) = match &line.car {
        LineCar::Plate(plate) => (text(plate), none()),
        LineCar::Token(token) => (none(), text(token)),
    };
    let (vat_percent, no_vat_reason) = match super::rate(head, line) {
        Some(VatBasis::Rate(rate)) => (rate.to_string().into(), none()),
        Some(VatBasis::Exempt(reason)) => (none(), text(reason)),
        None => (none(), none()),
    };
    let correction = line.correction.as_ref();
    write_row(
        out,
        [
            text(super::number(head)),
            head.kind().code().into(),
            head.issue.as_ref().map_or_else(none, |issue| issue.date.to_string().into()),
            account,
            line.month.to_string().into(),
            owned(line.reference.long()),
            text(&line.garage),
            plate,
            token,
            to_second(line.entry).to_string().into(),
            to_second(line.exit).to_string().into(),
            line.tariff.as_ref().map_or_else(none, |tariff| text(tariff)),
            vat_percent,
            no_vat_reason,
            show(line.amount.net),
            show(line.amount.vat()),
            show(line.amount.gross),
            head.currency.code().into(),
            correction.map_or_else(none, |correction| text(&correction.document.number)),
            correction.map_or_else(none, |correction| correction.document.date.to_string().into()),
            correction.map_or_else(none, |correction| show(correction.before)),
            correction.map_or_else(none, |correction| show(correction.now)),
            correction.map_or_else(none, |correction| text(correction.reason.in_words())),
            owned(words.steps.join("; ")),
            owned(line.notes.join("; ")),
        ]
        .iter()
        .map(|cell| cell.as_bytes()),
    )
}
