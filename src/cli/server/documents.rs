//! `server statements issue`, `documents …`: what was issued.

use super::books::{self, money, whole_list};
use super::document_flags::{DocumentsCommand, IssueFlags, StatementsCommand};
use super::money_flags::{StatementFormat, StatementOf};
use crate::cli::{OutputFlags, elements, more, print, said, table, text};
use crate::codes;
use crate::daemon::admin::NotDone;
use crate::parking::Month;
use crate::parking::document::{Rendering, export_name};
use crate::server::books::{BooksQuestion, Whose};
use crate::server::commands::{ServerRequest, ServerSession};
use crate::server::documents::{add_part, checked, write_rendering};
use crate::server::issuing::{IssueOrder, IssueScope};
use crate::server::receivables::{DocumentsShown, ReceivablesQuestion};
use crate::server::view::billing::UNREGISTERED;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::Path;

pub(super) fn run_statements(
    session: &mut ServerSession<'_>,
    command: StatementsCommand,
) -> Result<(), NotDone> {
    match command {
        StatementsCommand::Issue(flags) => issue(session, flags),
        StatementsCommand::Show { whose, month, format, of } => {
            show_month(session, &whose, of, month, format)
        }
    }
}

/// Prints the documents of a month, or its draft.
fn show_month(
    session: &mut ServerSession<'_>,
    name: &str,
    of: Option<StatementOf>,
    month: Month,
    format: StatementFormat,
) -> Result<(), NotDone> {
    let (account, plate) = (Whose::Account(name.to_owned()), Whose::Plate(name.to_owned()));
    let candidates = match of {
        None => vec![account, plate],
        Some(StatementOf::Account) => vec![account],
        Some(StatementOf::Plate) => vec![plate],
    };
    for whose in candidates {
        let question = BooksQuestion::Issued { month, whose: whose.clone() };
        let issued = session.ask(ServerRequest::Books(question))?;
        let numbers: Vec<&str> = elements(&issued, "numbers").filter_map(Value::as_str).collect();
        if !numbers.is_empty() {
            let rendering = format.rendering();
            let (before, between, after) = match rendering {
                Rendering::Json => ("{\"documents\":[", ",", "]}\n"),
                _ => ("", "\n", ""),
            };
            print(before);
            for (place, number) in numbers.iter().enumerate() {
                print_one(&rendered(&read(session, number)?, rendering)?, place, between, rendering);
            }
            print(after);
            return Ok(());
        }
        let Some(draft) = books::draft(session, month, &whose)? else { continue };
        for (place, currency) in draft.currencies().enumerate() {
            let shown = draft.render(currency, format.rendering()).map_err(|error| error.to_string())?;
            print_one(&shown, place, "\n", format.rendering());
        }
        return Ok(());
    }
    if name.trim().eq_ignore_ascii_case(UNREGISTERED) {
        return Err(NotDone::Refused(format!(
            "cars that nobody registered have no statement together for {month}: give the plate of one. Nothing was changed. \"server charges list --account {UNREGISTERED} --month {month}\" shows them"
        )));
    }
    Err(NotDone::Refused(format!(
        "there is no statement of {name:?} for {month}: neither an account nor a plate of that name was charged in that month. Nothing was changed. \"server charges list --month {month}\" shows the charges of the month"
    )))
}

/// Prints one of several documents. A table has one header.
fn print_one(document: &[u8], place: usize, between: &str, rendering: Rendering) {
    let text = String::from_utf8_lossy(document);
    match text.split_once('\n') {
        _ if place == 0 => print(&text),
        Some((_, lines)) if rendering == Rendering::Csv => print(lines),
        _ => {
            print(between);
            print(&text);
        }
    }
}

fn issue(session: &mut ServerSession<'_>, flags: IssueFlags) -> Result<(), NotDone> {
    let IssueFlags { month, account, plate, date, dry_run, output } = flags;
    let scope = match (account, plate) {
        (Some(account), _) => IssueScope::Account(account),
        (None, Some(plate)) => IssueScope::Plate(plate),
        (None, None) => IssueScope::AllAccounts,
    };
    let answer = session.ask(ServerRequest::Issue(IssueOrder { month, scope, date, dry_run }))?;
    output.print(&answer, print_issued);
    Ok(())
}

fn print_issued(answer: &Value) -> String {
    let rows = elements(answer, "documents").map(|document| {
        let number = document["number"].as_str().unwrap_or("DRAFT").to_owned();
        let [kind, account, amount, lines] =
            ["kind", "account", "amount", "lines"].map(|field| text(&document[field]));
        [number, kind.replace('_', " "), account, amount, lines]
    });
    let mut shown = table(["NUMBER", "KIND", "ACCOUNT", "TOTAL", "LINES"], rows);
    for document in elements(answer, "documents").filter(|its| its["first_lines"].is_array()) {
        let [account, amount] = ["account", "amount"].map(|field| text(&document[field]));
        shown += &format!("{account}, {amount}:\n");
        shown.extend(elements(document, "first_lines").map(|line| format!("    {}\n", text(line))));
        let count = elements(document, "first_lines").count() as u64;
        let more = document["lines"].as_u64().unwrap_or_default().saturating_sub(count);
        if more > 0 {
            shown += &format!("    and {more} more lines\n");
        }
    }
    shown.extend(elements(answer, "open").map(|line| format!("open: {}\n", text(line))));
    shown + &text(&answer["said"]) + "\n"
}

pub(super) fn run(session: &mut ServerSession<'_>, command: DocumentsCommand) -> Result<(), NotDone> {
    match command {
        DocumentsCommand::List { account, month, open, days, output } => {
            let shown = if open { DocumentsShown::Open { days } } else { DocumentsShown::All };
            let all = whole_list(session, "documents", usize::MAX, |after, _| {
                let account = account.clone();
                ServerRequest::Receivables(ReceivablesQuestion::Documents { account, month, shown, after })
            })?;
            output.print(&all, print_documents);
            Ok(())
        }
        DocumentsCommand::Show { number, format } => show(session, &number, format.rendering()),
        DocumentsCommand::Export { numbers, month, out, output } => {
            export(session, numbers, month, &out, output)
        }
        DocumentsCommand::Import { path, dry_run, output } => {
            // The server reads it, from its own working directory.
            let absolute = std::path::absolute(&path).map(|path| path.into_os_string().into_string());
            let path = absolute.ok().and_then(Result::ok).unwrap_or(path);
            let answer = session.ask(ServerRequest::ImportDocuments { path, dry_run })?;
            output.print(&answer, said);
            Ok(())
        }
        DocumentsCommand::Resume { last, reason, dry_run, output } => {
            let answer = session.ask(ServerRequest::ResumeNumbers { last, reason, dry_run })?;
            output.print(&answer, said);
            Ok(())
        }
    }
}

fn print_documents(answer: &Value) -> String {
    let rows = elements(answer, "documents").map(|document| {
        let cell = |field: &str| text(&document[field]);
        let [number, kind, account, plate, date, month, due] =
            ["number", "kind", "account", "plate", "date", "month", "due"].map(cell);
        let (kind, whose) = (kind.replace('_', " "), account + &plate);
        [number, kind, whose, date, month, money(document, "total"), money(document, "open"), due]
    });
    let head = ["NUMBER", "KIND", "ACCOUNT", "DATE", "MONTH", "TOTAL", "OPEN", "DUE"];
    let missing = elements(answer, "missing").map(|missing| {
        let [first, last, state, date, reason] =
            ["first", "last", "state", "date", "reason"].map(|field| text(&missing[field]));
        let numbers = if first == last { first } else { format!("{first} to {last}") };
        let reason = if reason.is_empty() { reason } else { format!(" since {date}: {reason}") };
        format!("number {numbers} of the series: {state}{reason}\n")
    });
    let missing: String = missing.collect();
    table(head, rows) + &missing + &more(answer)
}

/// The file of a document.
fn read(session: &mut ServerSession<'_>, number: &str) -> Result<Vec<u8>, NotDone> {
    let (mut file, mut from) = (Vec::new(), Some(0));
    while let Some(begin) = from {
        let answer = session.ask(ServerRequest::Document { number: number.to_owned(), from: begin })?;
        from = add_part(&mut file, &answer).map_err(|error| error.to_string())?;
    }
    Ok(file)
}

/// Prints a document.
fn show(session: &mut ServerSession<'_>, number: &str, rendering: Rendering) -> Result<(), NotDone> {
    let shown = rendered(&read(session, number)?, rendering)?;
    print(&String::from_utf8_lossy(&shown));
    Ok(())
}

fn rendered(file: &[u8], rendering: Rendering) -> Result<Vec<u8>, NotDone> {
    let document = checked(file, rendering).map_err(|error| error.to_string())?;
    Ok(write_rendering(&document, rendering, Vec::new()).map_err(|error| error.to_string())?)
}

/// Writes documents in all their forms: as files that another ledger takes over, and as people and programs read them.
fn export(
    session: &mut ServerSession<'_>,
    mut numbers: Vec<String>,
    month: Option<Month>,
    out: &Path,
    output: OutputFlags,
) -> Result<(), NotDone> {
    if numbers.is_empty() {
        let all = whole_list(session, "documents", usize::MAX, |after, _| {
            let shown = DocumentsShown::All;
            ServerRequest::Receivables(ReceivablesQuestion::Documents { account: None, month, shown, after })
        })?;
        numbers = elements(&all, "documents").map(|document| text(&document["number"])).collect();
    }
    let failed = |error: io::Error| {
        let reason = format!("cannot write to {out:?}: {error}. Nothing stored was changed");
        NotDone::Failed(codes::EXPORT_FAILED, reason)
    };
    fs::create_dir_all(out).map_err(failed)?;
    for number in &numbers {
        let file = read(session, number)?;
        for rendering in Rendering::ALL {
            fs::write(out.join(rendering.file_name(number)), rendered(&file, rendering)?).map_err(failed)?;
        }
        fs::write(out.join(export_name(number)), file).map_err(failed)?;
    }
    let said = match numbers.len() {
        1 => "1 document was written".to_owned(),
        n => format!("{n} documents were written"),
    };
    let answer = serde_json::json!({ "documents": numbers, "said": format!("{said} to {}", out.display()) });
    output.print(&answer, crate::cli::said);
    Ok(())
}
