//! One page to print or to send.

use super::super::escape::{StyleText, Text};
use super::super::{DocumentHead, DocumentLine};
use super::{DayAndTime, LineWords};
use crate::parking::journal::Debtor;
use crate::parking::money::{Amount, Currency, VatBasis};
use std::fmt::{self, Display};
use std::io::{self, Write};

const STYLE: &str = include_str!("page.css");

/// What people wrote, in its own direction: a name in Hebrew turns nothing around it.
struct Isolated<'a>(&'a str);

impl Display for Isolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<bdi>{}</bdi>", Text(self.0))
    }
}

/// With a proper minus, and digits in groups of three from five digits on.
fn amount(currency: Currency, amount: Amount) -> String {
    let shown = currency.show(amount);
    let (sign, shown) = shown.strip_prefix('-').map_or(("", shown.as_str()), |rest| ("\u{2212}", rest));
    let (whole, decimals) = shown.split_at(shown.find('.').unwrap_or(shown.len()));
    let mut grouped = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && whole.len() > 4 {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped + decimals
}

pub(super) fn begin(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    let title = format!("{} {}", super::kind(head), super::number(head));
    let sheet = format!("{title}, {}", head.issuer.name);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}@page {{ @bottom-left {{ content: \"{}\"; }} }}\n</style>\n</head>\n<body>\n",
        Text(&title),
        StyleText(&sheet)
    )?;
    write_addresses(out, head)?;
    let class = if head.issue.is_none() { " class=\"draft\"" } else { "" };
    writeln!(out, "<h1{class}>{} <span>{}</span></h1>", super::kind(head), Text(super::number(head)))?;
    write_facts(out, head)?;
    if let Some(corrected) = super::corrected(head) {
        writeln!(out, "<p>{}</p>", Text(&corrected))?;
    }
    if head.totals.lines == 0 {
        return writeln!(out, "<p class=\"nothing\">Nothing was charged.</p>");
    }
    writeln!(
        out,
        "<table class=\"lines\">\n<thead><tr><th>Entry</th><th>Exit</th><th>Garage, car</th><th>Tariff, duration</th>\
         <th class=\"n\">VAT</th><th class=\"n\">Net<br>{0}</th><th class=\"n\">Gross<br>{0}</th></tr></thead>",
        head.currency
    )
}

fn write_addresses(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    let (issuer, customer) = (&head.issuer, &head.customer);
    write!(out, "<header>\n<address class=\"to\">")?;
    match (&customer.name, &customer.debtor) {
        (Some(name), _) => write!(out, "<strong>{}</strong>", Isolated(name))?,
        (None, Debtor::Account(account)) => write!(out, "<strong>{}</strong>", Isolated(account.as_str()))?,
        (None, Debtor::Plate(plate)) => {
            write!(out, "The holder of the car<br><strong>{}</strong>", Isolated(plate.as_str()))?
        }
        (None, Debtor::PlateRemoved { .. }) => write!(out, "The holder of the car")?,
    }
    for line in customer.address.iter().chain(&customer.country) {
        write!(out, "<br>{}", Isolated(line))?;
    }
    write!(out, "</address>\n<address class=\"from\"><strong>{}</strong>", Isolated(&issuer.name))?;
    for line in issuer.address.iter().chain(&issuer.country) {
        write!(out, "<br>{}", Isolated(line))?;
    }
    for (name, id) in super::tax_ids(head) {
        write!(out, "<br>{name} {}", Isolated(id))?;
    }
    writeln!(out, "</address>\n</header>")
}

fn write_facts(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    write!(out, "<dl>")?;
    let mut fact =
        |name: &str, value: &dyn Display| write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    if let Some(issue) = &head.issue {
        fact("Date of issue", &super::day(issue.date))?;
    }
    match &head.customer.debtor {
        Debtor::Account(account) => fact("Account", &Isolated(account.as_str()))?,
        Debtor::Plate(plate) => fact("Car", &Isolated(plate.as_str()))?,
        Debtor::PlateRemoved { .. } => fact("Car", &super::PLATE_DELETED)?,
    }
    if let Some(id) = &head.customer.vat_id {
        fact("Your VAT ID", &Isolated(id))?;
    }
    fact("Stays until", &super::day(head.month.last_day()))?;
    let total = amount(head.currency, head.totals.gross);
    fact("Total", &format_args!("<strong>{total} {}</strong>", head.currency))?;
    if let Some(date) = head.due_date() {
        fact("Please pay by", &format_args!("<strong>{}</strong>", super::day(date)))?;
    }
    writeln!(out, "</dl>")
}

/// Date above time, as signs at a garage and receipts write them.
fn when(DayAndTime { day, time }: &DayAndTime) -> String {
    format!("{day}<br><b>{time}</b>")
}

pub(super) fn line(
    out: &mut Vec<u8>,
    head: &DocumentHead,
    line: &DocumentLine,
    words: &LineWords,
) -> io::Result<()> {
    let LineWords { entry, exit, lasted, steps, correction } = words;
    // A short one stays on one sheet; a long one would leave the rest of a sheet empty.
    let long = if steps.len() > 12 { " class=\"long\"" } else { "" };
    write!(
        out,
        "<tbody{long}>\n<tr><td>{}</td><td>{}</td><td>{}<br><b>{}</b></td><td>{}<br>{}</td>",
        when(entry),
        when(exit),
        Isolated(&line.garage),
        Isolated(super::car(line)),
        Isolated(line.tariff.as_deref().unwrap_or_default()),
        lasted.as_deref().unwrap_or_default(),
    )?;
    let rate = match super::rate(head, line) {
        Some(VatBasis::Rate(rate)) => format!("{rate} %"),
        Some(VatBasis::Exempt(_)) => "none".to_owned(),
        None => String::new(),
    };
    let [net, gross] = [line.amount.net, line.amount.gross].map(|part| amount(head.currency, part));
    writeln!(
        out,
        "<td class=\"n\">{rate}</td><td class=\"n\">{net}</td><td class=\"n\"><b>{gross}</b></td></tr>"
    )?;
    write!(out, "<tr class=\"why\"><td colspan=\"7\">")?;
    for sentence in correction.iter().flatten() {
        write!(out, "<p class=\"note\">{}</p>", Isolated(sentence))?;
    }
    for note in &line.notes {
        write!(out, "<p class=\"note\">{}</p>", Isolated(note))?;
    }
    if !steps.is_empty() {
        let class = if steps.len() > 5 { " class=\"many\"" } else { "" };
        write!(out, "<ul{class}>")?;
        steps.iter().try_for_each(|step| write!(out, "<li>{}</li>", Isolated(step)))?;
        write!(out, "</ul>")?;
    }
    writeln!(out, "<p class=\"id\">Ref. {}</p></td></tr>\n</tbody>", Text(&line.reference.short()))
}

pub(super) fn end(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    if head.totals.lines > 0 {
        writeln!(out, "</table>")?;
    }
    write!(
        out,
        "<table class=\"sums\">\n<thead><tr><th>Sums in {}</th><th class=\"n\">Net</th><th class=\"n\">VAT</th>\
         <th class=\"n\">Gross</th></tr></thead>\n<tbody>\n",
        head.currency
    )?;
    for (name, parts) in super::sums(head) {
        let [net, vat, gross] = parts.map(|part| amount(head.currency, part));
        writeln!(
            out,
            "<tr><td>{name}</td><td class=\"n\">{net}</td><td class=\"n\">{vat}</td><td class=\"n\">{gross}</td></tr>"
        )?;
    }
    writeln!(out, "</tbody>\n</table>\n<section class=\"terms\">")?;
    for sentence in super::terms(head) {
        writeln!(out, "<p>{}</p>", Isolated(&sentence))?;
    }
    writeln!(out, "</section>")?;
    write_footer(out, head)?;
    writeln!(out, "</body>\n</html>")
}

/// The operator's address and bank account, and what else the operator says.
fn write_footer(out: &mut Vec<u8>, head: &DocumentHead) -> io::Result<()> {
    let issuer = &head.issuer;
    write!(out, "<footer>\n<div>{}", Isolated(&issuer.name))?;
    for line in issuer.address.iter().chain(&issuer.country) {
        write!(out, "<br>{}", Isolated(line))?;
    }
    writeln!(out, "</div>")?;
    let bank = super::bank(head);
    let ids = super::tax_ids(head).into_iter().map(|(name, id)| (name, id.to_owned()));
    let all: Vec<(&str, String)> = bank.into_iter().chain(ids).collect();
    if !all.is_empty() {
        let lines: Vec<String> =
            all.iter().map(|(name, value)| format!("{name} {}", Isolated(value))).collect();
        writeln!(out, "<div>{}</div>", lines.join("<br>"))?;
    }
    if !issuer.footer.is_empty() {
        let lines: Vec<String> = issuer.footer.iter().map(|line| Isolated(line).to_string()).collect();
        writeln!(out, "<div>{}</div>", lines.join("<br>"))?;
    }
    writeln!(out, "</footer>")
}
