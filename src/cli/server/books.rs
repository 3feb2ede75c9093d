//! `server plates …`, `contracts …`, `charges …`, `statements …`, `journal …`: what an operator does with the books of money.

use super::books_flags::{BooksTask, Format, List};
use super::export::{Directory, write_new};
use super::running::{Session, print_said, report, table, text};
use crate::codes::{self, Coded};
use crate::config::ServerConfig;
use crate::daemon::admin::{NotDone, Outcome};
use crate::parking::Plate;
use crate::parking::register::{self, Account};
use crate::parking::statement::journal::{self, Chart};
use crate::parking::statement::{Month, Statement};
use crate::server::books::{Asked, Question, Together, Whose, read_answer};
use crate::server::commands::{Put, Request};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Does it, in the running server or in its directory; says on stdout what was done, on stderr why not.
pub(super) fn run(config: &ServerConfig, task: &BooksTask) -> ExitCode {
    let mut session = Session::of(config);
    match task {
        BooksTask::Import { what, file, dry_run, json } => {
            let put = read_file(file).map(|text| match what {
                List::Plates => Put::Plates(text),
                List::Contracts => Put::Contracts(text),
            });
            done(put.and_then(|put| import(&mut session, put, *dry_run, *json)))
        }
        BooksTask::Add { plate, account, name } => done(
            csv_of(plate, account, name).and_then(|csv| import(&mut session, Put::Plates(csv), false, false)),
        ),
        BooksTask::List { what: List::Plates, json } => report(plates(&mut session), *json, print_plates),
        BooksTask::List { what: List::Contracts, json } => {
            report(session.ask(&Request::Contracts), *json, print_contracts)
        }
        BooksTask::ApplyTariffs => report(session.ask(&Request::ApplyTariffs), false, print_said),
        BooksTask::ShowTariffs => {
            report(session.ask(&Request::Books(Question::Tariffs)), false, print_tariffs)
        }
        BooksTask::ListCharges { asked, json } => {
            report(charges(&mut session, asked.clone()), *json, print_charges)
        }
        BooksTask::ShowStatement { whose, month, format } => {
            done(show(&mut session, whose, *month, *format).map(|text| say(&text)))
        }
        BooksTask::ExportStatements { month, out, formats, json } => {
            report(export(&mut session, *month, out, formats), *json, print_said)
        }
        BooksTask::ExportJournal { month, out } => done(export_journal(&mut session, *month, out.as_deref())),
    }
}

fn done(outcome: Result<(), NotDone>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            codes::print_error(reason.code(), &reason);
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let mut stdout = std::io::stdout();
    // Whoever reads may have seen enough.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn read_file(path: &Path) -> Result<String, NotDone> {
    let bytes = fs::read(path).map_err(|error| {
        let reason = format!("cannot read {path:?}: {error}. Nothing was recorded");
        NotDone::Failed(codes::FILE_UNREADABLE, reason)
    })?;
    let text = register::decode(&bytes).map_err(|error| format!("{error}\nNothing was recorded"))?;
    Ok(text.to_owned())
}

/// A file of one plate.
fn csv_of(plate: &Plate, account: &Account, name: &str) -> Result<String, NotDone> {
    let mut file = csv::Writer::from_writer(Vec::new());
    for row in [["plate", "account", "name"], [plate.as_str(), account.as_str(), name]] {
        file.write_record(row).expect("memory takes rows of one length");
    }
    let file = file.into_inner().expect("memory takes what is buffered");
    let file = String::from_utf8(file).expect("cells are texts");
    // A line of a file that nobody gave says little.
    register::read_plates(&file).map_err(|error| {
        let reasons = error.0.iter().map(|bad| format!("{}: {}", bad.field.unwrap_or("plate"), bad.reason));
        format!("{}. Nothing was recorded", reasons.collect::<Vec<_>>().join("; "))
    })?;
    Ok(file)
}

/// Shows what a file changes, records it, and says where.
fn import(session: &mut Session<'_>, put: Put, dry_run: bool, as_json: bool) -> Result<(), NotDone> {
    let shown = session.ask(&Request::Put { put: put.clone(), dry_run: true })?;
    let nothing_to_do = shown["changes"].as_array().is_none_or(Vec::is_empty);
    if !as_json {
        say(&changes(&shown));
    }
    let result = match dry_run || nothing_to_do {
        true => shown,
        false => {
            let recorded = session.ask(&Request::Put { put, dry_run: false })?;
            let differs = |field: &str| recorded[field] != shown[field];
            if !as_json && (differs("changes") || differs("changes_total")) {
                let recorded = changes(&recorded);
                say(&format!(
                    "Somebody else changed the registry meanwhile. What was recorded is this:\n{recorded}"
                ));
            }
            recorded
        }
    };
    say(&if as_json { format!("{result}\n") } else { print_said(&result) });
    Ok(())
}

/// What an import changes, and what it leaves.
fn changes(answer: &Value) -> String {
    let lines = answer["changes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut shown: String = lines.iter().map(|line| format!("{}\n", text(line))).collect();
    let more = answer["changes_total"].as_u64().unwrap_or_default().saturating_sub(lines.len() as u64);
    if more > 0 {
        shown.push_str(&format!("and {more} more changes\n"));
    }
    let total = answer["unnamed_total"].as_u64().unwrap_or_default();
    let named: Vec<String> = answer["unnamed"].as_array().into_iter().flatten().map(text).collect();
    if total > 0 {
        let more = match total - named.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (plates, stay) =
            if total == 1 { ("plate", "stays as it is") } else { ("plates", "stay as they are") };
        shown.push_str(&format!(
            "{total} registered {plates} not named here {stay}: {}{more}\n",
            named.join(" ")
        ));
    }
    shown
}

/// The whole registry, a part at a time.
fn plates(session: &mut Session<'_>) -> Outcome {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let mut answer = session.ask(&Request::Plates { after })?;
        if let Value::Array(plates) = answer["plates"].take() {
            all.extend(plates);
        }
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            answer["plates"] = all.into();
            return Ok(answer);
        }
    }
}

fn print_plates(answer: &Value) -> String {
    let head = ["PLATE", "ACCOUNT", "NAME"].map(str::to_owned);
    let lines = answer["plates"].as_array().into_iter().flatten();
    let lines = lines.map(|line| ["plate", "account", "name"].map(|field| text(&line[field])));
    table(std::iter::once(head).chain(lines).collect())
}

fn print_contracts(answer: &Value) -> String {
    let head = ["CONTRACT", "ACCOUNT", "CARS", "FROM", "TO", "GARAGES", "PLATES"].map(str::to_owned);
    let all = |list: &Value| list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let lines = answer["contracts"].as_array().into_iter().flatten().map(|line| {
        let cell = |field: &str| text(&line[field]);
        let [name, account, cars] = ["contract", "account", "cars"].map(cell);
        [
            name,
            account,
            cars,
            cell("valid_from"),
            cell("valid_to"),
            all(&line["garages"]),
            all(&line["plates"]),
        ]
    });
    table(std::iter::once(head).chain(lines).collect())
}

fn print_tariffs(answer: &Value) -> String {
    match answer["position"].as_u64() {
        Some(position) => format!("# In force since position {position}.\n{}", text(&answer["toml"])),
        None => "# No tariffs are in force: stays are recorded and wait for a price.\n".to_owned(),
    }
}

/// Asks until there are as many as wanted: an answer looks at so many entries, whether they are wanted or not.
fn charges(session: &mut Session<'_>, mut asked: Asked) -> Outcome {
    let mut all = Vec::new();
    loop {
        let mut answer = session.ask(&Request::Books(Question::Charges(asked.clone())))?;
        if let Value::Array(charges) = answer["charges"].take() {
            asked.limit -= charges.len().min(asked.limit);
            all.extend(charges);
        }
        asked.after = answer["next"].as_str().and_then(|next| next.parse().ok());
        if asked.after.is_none() || asked.limit == 0 {
            answer["charges"] = all.into();
            return Ok(answer);
        }
    }
}

fn print_charges(answer: &Value) -> String {
    let head = ["ENTERED", "LEFT", "GARAGE", "PLATE", "ACCOUNT", "AMOUNT", "STATE", "ID", "REMARK"]
        .map(str::to_owned);
    let lines = answer["charges"].as_array().into_iter().flatten().map(|line| {
        let cell = |field: &str| if line[field].is_null() { String::new() } else { text(&line[field]) };
        let state = if line["state"].is_null() { cell("kind") } else { cell("state") };
        let [entered, left, garage, plate, account, id] =
            ["entered_at", "left_at", "garage", "plate", "account", "id"].map(cell);
        let remark = match line["reason"].is_null() {
            true => cell("note"),
            false => format!("{}, by {}", cell("reason"), cell("by")),
        };
        [entered, left, garage, plate, account, amount(line), state, id, remark]
    });
    let mut shown = table(std::iter::once(head).chain(lines).collect());
    if !answer["next"].is_null() {
        shown.push_str(&format!("there are more: --after {}\n", text(&answer["next"])));
    }
    shown
}

/// As people write it: 3.50 EUR.
fn amount(line: &Value) -> String {
    let (Some(minor), Some(code)) = (line["amount"].as_i64(), line["currency"].as_str()) else {
        return String::new();
    };
    let decimals = crate::parking::tariff::Currency::new(code).map_or(0, |currency| currency.decimals());
    let currency = crate::parking::statement::Currency::new(code, u8::try_from(decimals).unwrap_or(0));
    crate::parking::statement::Money::new(minor, &currency).to_string()
}

/// Gives each statement to `take`, as soon as its last piece has come.
fn statements(
    session: &mut Session<'_>,
    month: Month,
    whose: &Whose,
    mut take: impl FnMut(Statement) -> Result<(), NotDone>,
) -> Result<(), NotDone> {
    let mut together = Together::default();
    let mut from = None;
    loop {
        let question = Question::Statements { month, whose: whose.clone(), from };
        let answer = session.ask(&Request::Books(question))?;
        let (pieces, next) = read_answer(&answer).map_err(|error| error.to_string())?;
        for piece in pieces {
            if let Some(statement) = together.add(piece).map_err(|error| error.to_string())? {
                take(statement)?;
            }
        }
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

fn show(session: &mut Session<'_>, whose: &[Whose], month: Month, format: Format) -> Result<String, NotDone> {
    for whose in whose {
        let mut shown = None;
        statements(session, month, whose, |statement| {
            shown = Some(format.render(&statement));
            Ok(())
        })?;
        if let Some(shown) = shown {
            return Ok(shown);
        }
    }
    let name = match whose.first() {
        Some(Whose::Account(name) | Whose::Plate(name)) => name.as_str(),
        _ => "",
    };
    Err(NotDone::Refused(format!(
        "there is no statement of {name:?} for {month}: neither an account nor a plate of that name was charged then. Nothing was changed. \"server charges list --month {month}\" shows what was"
    )))
}

fn export(session: &mut Session<'_>, month: Month, out: &Path, formats: &[Format]) -> Outcome {
    let mut directory = Directory::begin(out, month, formats).map_err(|error| NotDone::because(&error))?;
    let mut nameless = false;
    statements(session, month, &Whose::All, |statement| {
        nameless |= statement.head().operator.name.is_empty();
        directory.add(&statement).map_err(|error| NotDone::because(&error))
    })?;
    let (statements, lines) = (directory.statements, directory.lines);
    if statements == 0 {
        return Err(nothing_in(month));
    }
    directory.finish().map_err(|error| NotDone::because(&error))?;
    let count = if statements == 1 { "1 statement".to_owned() } else { format!("{statements} statements") };
    let who = match nameless {
        true => " They do not say who sends them: the configuration has no [operator].",
        false => "",
    };
    Ok(json!({
        "statements": statements,
        "lines": lines,
        "out": out,
        "said": format!("{count} for {month} with {lines} lines in {}; index.csv lists them.{who}", out.display()),
    }))
}

fn nothing_in(month: Month) -> NotDone {
    NotDone::Refused(format!(
        "nothing was charged in {month}, so there is nothing to write. Nothing was changed. Is it the month that you mean?"
    ))
}

/// The postings of a month, or of all months.
fn export_journal(
    session: &mut Session<'_>,
    month: Option<Month>,
    out: Option<&Path>,
) -> Result<(), NotDone> {
    let months = match month {
        Some(month) => vec![month],
        None => all_months(session)?,
    };
    let chart = Chart::default();
    let mut postings = Vec::new();
    let mut any = false;
    for month in &months {
        statements(session, *month, &Whose::All, |statement| {
            any = true;
            postings.extend(journal::postings(&[statement], &chart));
            Ok(())
        })?;
    }
    if !any {
        return Err(match month {
            Some(month) => nothing_in(month),
            None => {
                "nothing was charged yet, so there is nothing to write. Nothing was changed".to_owned().into()
            }
        });
    }
    let csv = journal::to_csv(&postings);
    match out {
        None => say(&csv),
        Some(path) => {
            write_new(path, &csv).map_err(|error| NotDone::because(&error))?;
            let of = month.map_or_else(|| format!("{} months", months.len()), |month| month.to_string());
            say(&format!("{} postings for {of} in {}\n", postings.len(), path.display()));
        }
    }
    Ok(())
}

fn all_months(session: &mut Session<'_>) -> Result<Vec<Month>, NotDone> {
    let answer = session.ask(&Request::Books(Question::Months))?;
    let months =
        answer["months"].as_array().into_iter().flatten().filter_map(|month| month.as_str()?.parse().ok());
    Ok(months.collect())
}
