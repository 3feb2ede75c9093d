//! Plain text, 78 characters wide where what people wrote allows it.

use super::super::words::visible;
use super::super::{DocumentHead, DocumentLine};
use super::{LineWords, Money, VatBasis};
use crate::parking::journal::Debtor;
use std::io::{self, Write};

const WIDTH: usize = 78;

pub(super) fn begin(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    let (issuer, customer) = (&head.issuer, &head.customer);
    let address = |out: &mut Vec<u8>, name: &str, lines: &[String], country: &Option<String>| {
        let all = std::iter::once(name).chain(lines.iter().map(String::as_str)).chain(country.as_deref());
        all.filter(|line| !line.is_empty()).try_for_each(|line| writeln!(out, "{}", visible(line)))
    };
    address(out, &issuer.name, &issuer.address, &issuer.country)?;
    for (name, id) in super::tax_ids(head) {
        writeln!(out, "{name} {}", visible(id))?;
    }
    writeln!(out)?;
    if customer.name.is_some() || !customer.address.is_empty() {
        address(out, customer.name.as_deref().unwrap_or_default(), &customer.address, &customer.country)?;
        writeln!(out)?;
    }
    let title = format!("{} {}", super::kind(head), super::number(head)).to_uppercase();
    writeln!(out, "{title}")?;
    let mut fact = |name: &str, value: &str| writeln!(out, "{name:<16}{}", visible(value));
    if let Some(issue) = &head.issue {
        fact("Date of issue", &super::day(issue.date))?;
    }
    match &customer.debtor {
        Debtor::Account(account) => fact("Account", account.as_str())?,
        Debtor::Plate(plate) => fact("Car", plate.as_str())?,
        Debtor::PlateRemoved { .. } => fact("Car", super::PLATE_DELETED)?,
    }
    if let Some(id) = &customer.vat_id {
        fact("Your VAT ID", id)?;
    }
    fact("Stays until", &super::day(head.month.last_day()))?;
    if let Some(corrected) = super::corrected(head) {
        writeln!(out, "\n{}", visible(&corrected))?;
    }
    Ok(())
}

pub(super) fn line(
    out: &mut Vec<u8>,
    head: &DocumentHead,
    line: &DocumentLine,
    words: &LineWords,
) -> io::Result<()> {
    let what = visible(&format!("{}, {}", line.garage, super::car(line)));
    let amount = Money { amount: line.amount.gross, currency: head.currency }.to_string();
    writeln!(out)?;
    // The amount stands at the right edge, on a line of its own when there is no room. Characters are counted: how wide they
    // are is in a table that later releases of Unicode change.
    match WIDTH.checked_sub(what.chars().count() + 1) {
        Some(room) if room >= amount.len() => writeln!(out, "{what} {amount:>room$}")?,
        _ => writeln!(out, "{what}\n{amount:>WIDTH$}")?,
    }
    let LineWords { entry, exit, lasted, steps, correction } = words;
    let lasted = lasted.as_ref().map_or_else(String::new, |time| format!(", after {time}"));
    writeln!(out, "    in  {} {}", entry.day, entry.time)?;
    writeln!(out, "    out {} {}{lasted}", exit.day, exit.time)?;
    let tariff = line.tariff.as_ref().map(|tariff| format!("tariff {tariff}"));
    let vat = super::rate(head, line).map(|rate| match rate {
        VatBasis::Rate(rate) => format!("net {} + {rate} % VAT", head.currency.show(line.amount.net)),
        VatBasis::Exempt(_) => "no VAT".to_owned(),
    });
    let facts: Vec<String> = tariff.into_iter().chain(vat).collect();
    let facts = facts.join(", ");
    let notes = line.notes.iter().map(|note| note.as_str());
    let correction = correction.iter().flatten().map(String::as_str);
    for fact in std::iter::once(facts.as_str()).filter(|fact| !fact.is_empty()).chain(notes).chain(correction)
    {
        writeln!(out, "    {}", visible(fact))?;
    }
    for step in steps {
        writeln!(out, "      {}", visible(step))?;
    }
    writeln!(out, "    ref. {}", visible(&line.reference.short()))
}

pub(super) fn end(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    if head.totals.lines == 0 {
        writeln!(out, "\nNothing was charged.")?;
    }
    writeln!(out, "\n{:<21}{:>19}{:>19}{:>19}", format!("Sums in {}", head.currency), "net", "VAT", "gross")?;
    for (name, [net, vat, gross]) in super::sums(head) {
        let [net, vat, gross] = [net, vat, gross].map(|amount| head.currency.show(amount));
        writeln!(out, "{name:<21}{net:>19}{vat:>19}{gross:>19}")?;
    }
    writeln!(out)?;
    for sentence in super::terms(head) {
        writeln!(out, "{}", visible(&sentence))?;
    }
    for (name, value) in super::bank(head) {
        writeln!(out, "{name:<5}{value}")?;
    }
    if !head.issuer.footer.is_empty() {
        writeln!(out)?;
    }
    head.issuer.footer.iter().try_for_each(|line| writeln!(out, "{}", visible(line)))
}
