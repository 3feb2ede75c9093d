//! A statement as one page to print or to send.

use super::escape::{StyleText, Text};
use super::words::{duration, local, offset};
use super::{
    Correction, Customer, Moment, Money, Statement, StatementCar, StatementEntry, StatementHead,
    StatementLine, StatementStay, Total,
};
use std::fmt::{self, Display, Write};

const STYLE: &str = include_str!("page.css");

impl Statement {
    pub fn to_html(&self) -> String {
        let mut page = String::with_capacity(8 << 10 | self.lines().len() << 11);
        write_page(&mut page, self).expect("memory takes text");
        page
    }
}

/// With a proper minus.
fn amount(money: Money) -> String {
    money.number().replace('-', "\u{2212}")
}

fn write_page(page: &mut String, statement: &Statement) -> fmt::Result {
    let head = statement.head();
    let number = head.number.map_or_else(String::new, |number| format!(", No. {number}"));
    let title = format!("Statement {}, {}{number}", head.month, head.customer.id());
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}@page {{ @bottom-left {{ content: \"{}\"; }} }}\n</style>\n</head>\n<body>\n",
        Text(&title),
        StyleText(&title)
    )?;
    write_head(page, statement)?;
    if statement.lines().is_empty() {
        page.push_str("<p class=\"nothing\">Nothing was charged in this month.</p>\n");
    } else {
        write_lines(page, statement)?;
    }
    statement.totals().iter().try_for_each(|total| write_total(page, total))?;
    page.push_str("</body>\n</html>\n");
    Ok(())
}

fn write_head(page: &mut String, statement: &Statement) -> fmt::Result {
    let StatementHead { operator, customer, month, number, position } = statement.head();
    write!(page, "<header>\n<address><strong>{}</strong>", Text(&operator.name))?;
    operator.address.iter().try_for_each(|line| write!(page, "<br>{}", Text(line)))?;
    if let Some(id) = &operator.vat_id {
        write!(page, "<br>VAT ID {}", Text(id))?;
    }
    page.push_str("</address>\n<div class=\"to\">");
    match customer {
        Customer::Account { name: Some(name), .. } => write!(page, "<strong>{}</strong>", Text(name))?,
        customer => write!(page, "<strong>{}</strong>", Text(customer.id()))?,
    }
    write!(page, "</div>\n</header>\n<h1>Parking statement, {}</h1>\n<dl>", month.in_words())?;
    let mut fact =
        |name: &str, value: &dyn Display| write!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    match customer {
        Customer::Account { account, .. } => fact("Account", &Text(account))?,
        Customer::Plate(plate) => fact("Car", &Text(plate))?,
    }
    if let Some(number) = number {
        fact("Statement", &format_args!("No. {number}"))?;
    }
    fact("Period", &format_args!("{} to {}", day(month.first_day()), day(month.last_day())))?;
    fact("Books at position", position)?;
    for total in statement.totals() {
        let (gross, currency) = (amount(total.gross), total.gross.currency);
        fact("Total", &format_args!("<strong>{gross} {currency}</strong>"))?;
    }
    page.push_str("</dl>\n");
    Ok(())
}

fn day(date: jiff::civil::Date) -> impl Display {
    date.strftime("%-d %b %Y")
}

fn write_lines(page: &mut String, statement: &Statement) -> fmt::Result {
    // One rate for all lines is said once.
    let rates = || statement.totals().iter().flat_map(|total| &total.rates).map(|sum| sum.rate);
    let common = rates().next().filter(|first| rates().all(|rate| rate == *first));
    let header = match common {
        Some(Some(rate)) => format!("Amount, with {rate} % VAT"),
        Some(None) | None => "Amount".to_owned(),
    };
    write!(
        page,
        "<table class=\"lines\">\n<thead><tr><th>Entry</th><th>Exit</th><th>Garage, car</th><th>Tariff</th>\
         <th class=\"n\">{header}</th></tr></thead>\n"
    )?;
    let each = common.is_none();
    for line in statement.lines() {
        match &line.entry {
            StatementEntry::Charge(stay) => write_stay(page, line, stay, each)?,
            StatementEntry::Void(correction) => write_correction(page, line, "Void", correction, each)?,
            StatementEntry::Credit(correction) => write_correction(page, line, "Credit", correction, each)?,
        }
    }
    page.push_str("</table>\n");
    Ok(())
}

/// Date above time, as signs at a garage and receipts write them.
fn when(moment: Moment) -> String {
    let (local, offset) = (local(moment), offset(moment));
    let (date, time) = (local.strftime("%a %-d %b %Y"), local.time());
    format!("<time datetime=\"{moment}\">{date}<br><b>{time}</b> <small>{offset}</small></time>")
}

/// `each`: with its own rate.
fn write_amount(page: &mut String, line: &StatementLine, each: bool) -> fmt::Result {
    write!(page, "<td class=\"n\"><b>{} {}</b>", amount(line.amount), line.amount.currency)?;
    match line.vat {
        Some(rate) if each => write!(page, "<br><small>with {rate} % VAT</small>")?,
        None if each => page.push_str("<br><small>outside of VAT</small>"),
        _ => {}
    }
    page.push_str("</td></tr>\n");
    Ok(())
}

fn write_stay(page: &mut String, line: &StatementLine, stay: &StatementStay, each: bool) -> fmt::Result {
    // A short one stays on one sheet; a long one would leave the rest of a sheet empty.
    let long = if stay.breakdown.len() > 12 { " class=\"long\"" } else { "" };
    write!(
        page,
        "<tbody{long}>\n<tr><td>{}</td><td>{}</td><td>{}<br>",
        when(stay.entry),
        when(stay.exit),
        Text(&stay.garage)
    )?;
    match &stay.car {
        StatementCar::Plate(plate) => write!(page, "<b>{}</b>", Text(plate))?,
        StatementCar::Token(token) => write!(page, "<small>plate forgotten: {}</small>", Text(token))?,
        StatementCar::Unknown => page.push_str("<small>plate unknown</small>"),
    }
    write!(page, "</td><td>{}", Text(&stay.tariff))?;
    if let Some(lasted) = duration(stay.entry, stay.exit) {
        write!(page, "<br><small>{lasted}</small>")?;
    }
    page.push_str("</td>");
    write_amount(page, line, each)?;
    page.push_str("<tr class=\"why\"><td colspan=\"5\">");
    if let Some(note) = &stay.note {
        write!(page, "<p class=\"note\">{}</p>", Text(note))?;
    }
    if !stay.breakdown.is_empty() {
        let class = if stay.breakdown.len() > 5 { " class=\"many\"" } else { "" };
        write!(page, "<ul{class}>")?;
        stay.breakdown.iter().try_for_each(|step| write!(page, "<li>{}</li>", Text(step)))?;
        page.push_str("</ul>");
    }
    write!(page, "<p class=\"id\">Charge {}</p></td></tr>\n</tbody>\n", Text(&line.id))
}

fn write_correction(
    page: &mut String,
    line: &StatementLine,
    what: &str,
    correction: &Correction,
    each: bool,
) -> fmt::Result {
    write!(
        page,
        "<tbody>\n<tr><td>{}</td><td colspan=\"3\">{what}: {}<br><small>by {}</small></td>",
        when(correction.at),
        Text(&correction.reason),
        Text(&correction.by)
    )?;
    write_amount(page, line, each)?;
    write!(
        page,
        "<tr class=\"why\"><td colspan=\"5\"><p class=\"id\">{what} {} of charge {}</p></td></tr>\n</tbody>\n",
        Text(&line.id),
        Text(&correction.charge)
    )
}

fn write_total(page: &mut String, total: &Total) -> fmt::Result {
    let code = total.gross.currency;
    write!(
        page,
        "<table class=\"sums\">\n<thead><tr><th>Sums in {code}</th><th class=\"n\">Net</th><th class=\"n\">VAT</th>\
         <th class=\"n\">With VAT</th></tr></thead>\n<tbody>\n"
    )?;
    for sum in &total.rates {
        match sum.rate {
            Some(rate) => write!(page, "<tr><td>{rate} % VAT</td>")?,
            None => page.push_str("<tr><td>Outside of VAT</td>"),
        }
        for part in [sum.net, sum.vat, sum.gross] {
            write!(page, "<td class=\"n\">{}</td>", amount(part))?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n<tfoot><tr><td>Total</td>");
    for part in [total.net, total.vat, total.gross] {
        write!(page, "<td class=\"n\">{}</td>", amount(part))?;
    }
    page.push_str("</tr></tfoot>\n</table>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{a_month, account, any_lines, head, statement};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_shows_what_a_customer_asks_for() {
        let page = a_month(3).to_html();
        for fact in [
            "<strong>Stadtwerke Musterstadt Parken GmbH</strong><br>Hauptstraße 12<br>70173 Stuttgart",
            "VAT ID DE 123 456 789",
            "Miller Logistik GmbH &amp; Co. KG",
            "1 Nov 2026 to 30 Nov 2026",
            "Sun 1 Nov 2026<br><b>07:05:12</b> <small>+01:00</small>",
            "Bull Ring<br><b>SML1234</b>",
            "<li>4 units from 2026-11-01 07:05:12, 2.50 EUR each: 10.00 EUR (mon-fri 07:00-19:00)</li>",
            "Void: the plate was misread; the car is another customer&#39;s",
            "<b>\u{2212}10.00 EUR</b>",
            "<td>19 % VAT</td>",
        ] {
            assert!(page.contains(fact), "{fact}\n{page}");
        }
    }

    #[test]
    fn a_page_needs_nothing_else_and_prints_its_header_on_every_sheet() {
        let page = a_month(3).to_html();
        for word in ["http:", "https:", "url(", "@import", "<script", "<link", "<img", "src="] {
            assert!(!page.contains(word), "{word}");
        }
        for rule in ["@page", "size: A4", "@media print", "table-header-group"] {
            assert!(page.contains(rule), "{rule}");
        }
        assert!(page.contains("<html lang=\"en\">"));
    }

    /// Tags and attributes of a page, in order.
    fn markup(page: &str) -> Vec<&str> {
        page.split('<')
            .skip(1)
            .map(|rest| rest.split_once('>').unwrap().0)
            .filter(|tag| !tag.starts_with("time"))
            .collect()
    }

    fn with_texts(lines: Vec<StatementLine>, change: fn(&str) -> String) -> String {
        let mut head = head(account(&change("<b>")));
        head.operator.name = change("<script>alert(1)</script>");
        head.operator.address = vec![change("\"><img src=x>")];
        head.operator.vat_id = Some(change("'&lt;"));
        let lines = lines.into_iter().map(|mut line| {
            line.id = change(&line.id);
            let part = |text: &mut String| *text = change(text);
            match &mut line.entry {
                StatementEntry::Charge(stay) => {
                    part(&mut stay.garage);
                    part(&mut stay.tariff);
                    stay.breakdown.iter_mut().for_each(part);
                    stay.note.iter_mut().for_each(part);
                    match &mut stay.car {
                        StatementCar::Plate(text) | StatementCar::Token(text) => part(text),
                        StatementCar::Unknown => {}
                    }
                }
                StatementEntry::Void(correction) | StatementEntry::Credit(correction) => {
                    part(&mut correction.charge);
                    part(&mut correction.reason);
                    part(&mut correction.by);
                }
            }
            line
        });
        Statement::new(head, lines.collect()).unwrap().to_html()
    }

    proptest! {
        /// The page has the same markup as when every text were an `x`.
        #[test]
        fn no_text_becomes_markup(lines in any_lines()) {
            let tame = with_texts(lines.clone(), |_| "x".to_owned());
            let wild = with_texts(lines, str::to_owned);
            prop_assert_eq!(markup(&wild), markup(&tame));
            prop_assert!(wild.chars().all(|c| c == '\n' || !c.is_control()));
        }

        #[test]
        fn a_page_has_every_line(lines in any_lines()) {
            let count = lines.len();
            let page = statement(lines).to_html();
            prop_assert_eq!(page.matches("class=\"why\"").count(), count);
        }
    }
}
