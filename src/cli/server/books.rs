//! `server plates …`, `contracts …`, `charges …`, `statements …`, `journal …`: the commands with which an operator reads and
//! changes billing.

use super::export::{Directory, write_new};
use super::flags::{
    ChargesCommand, ContractsCommand, ImportFlags, JournalCommand, PlatesCommand, StatementFormat,
    StatementOf, StatementsCommand,
};
use super::record;
use crate::cli::{OutputFlags, elements, list, more, print, said, table, text};
use crate::codes;
use crate::daemon::admin::{NotDone, Outcome};
use crate::parking::Plate;
use crate::parking::money::{Currency, Money};
use crate::parking::register::{self, Account};
use crate::parking::statement::journal;
use crate::parking::statement::{Month, Statement};
use crate::server::books::{Asked, BooksQuestion, StatementAssembler, Whose, read_answer};
use crate::server::commands::{Put, ServerRequest, ServerSession};
use crate::server::record::Command;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub(super) fn run_plates(session: &mut ServerSession<'_>, command: PlatesCommand) -> Result<(), NotDone> {
    match command {
        PlatesCommand::Import(flags) => import_file(session, Put::Plates, &flags),
        PlatesCommand::List(output) => {
            let columns = [("PLATE", "plate"), ("ACCOUNT", "account"), ("NAME", "name")];
            let all = whole_list(session, "plates", usize::MAX, |after, _| ServerRequest::Plates { after })?;
            output.print(&all, |all| list(all, "plates", columns));
            Ok(())
        }
        PlatesCommand::Add { plate, account, name } => {
            import(session, Put::Plates(csv_of(&plate, &account, &name)?), Import::Record, OutputFlags::TEXT)
        }
        PlatesCommand::Remove { plate } => record(session, Command::RemovePlate { plate: plate.to_string() }),
    }
}

pub(super) fn run_contracts(
    session: &mut ServerSession<'_>,
    command: ContractsCommand,
) -> Result<(), NotDone> {
    match command {
        ContractsCommand::Import(flags) => import_file(session, Put::Contracts, &flags),
        ContractsCommand::List(output) => {
            session.ask(ServerRequest::Contracts).map(|answer| output.print(&answer, print_contracts))
        }
        ContractsCommand::Remove { contract } => record(session, Command::RemoveContract { contract }),
    }
}

pub(super) fn run_charges(session: &mut ServerSession<'_>, command: ChargesCommand) -> Result<(), NotDone> {
    match command {
        ChargesCommand::List { plate, garage, account, month, after, limit, output } => {
            let plate = plate.map(|plate| plate.to_string());
            let month = month.map(|month| month.to_string());
            let asked = Asked { plate, garage, account, month, after, limit: limit as usize };
            // Each answer reads a limited number of entries, whether they match or not.
            let ask = |next: Option<String>, limit| {
                let after = next.map_or(asked.after, |next| next.parse().ok());
                ServerRequest::Books(BooksQuestion::Charges(Asked { after, limit, ..asked.clone() }))
            };
            whole_list(session, "charges", asked.limit, ask).map(|all| output.print(&all, print_charges))
        }
        ChargesCommand::Void { charge, reason } => record(session, Command::Void { charge, reason }),
        ChargesCommand::Credit { charge, amount, reason } => {
            record(session, Command::Credit { charge, amount, reason })
        }
    }
}

pub(super) fn run_statements(
    session: &mut ServerSession<'_>,
    command: StatementsCommand,
) -> Result<(), NotDone> {
    match command {
        StatementsCommand::Show { whose, month, format, of } => {
            show(session, &whose, of, month, format).map(|text| print(&text))
        }
        StatementsCommand::Export { month, out, formats, output } => {
            let all = StatementFormat::value_variants();
            let formats = if formats.is_empty() { all } else { &formats };
            export(session, month, &out, formats).map(|answer| output.print(&answer, said))
        }
    }
}

pub(super) fn show_tariffs(session: &mut ServerSession<'_>) -> Result<(), NotDone> {
    let answer = session.ask(ServerRequest::Books(BooksQuestion::Tariffs))?;
    print(&match answer["position"].as_u64() {
        Some(position) => format!("# In force since position {position}.\n{}", text(&answer["toml"])),
        None => "# No tariffs are in force: stays are recorded and wait for a price.\n".to_owned(),
    });
    Ok(())
}

fn read_file(path: &Path) -> Result<String, NotDone> {
    let bytes = fs::read(path).map_err(|error| {
        let reason = format!("cannot read {path:?}: {error}. Nothing was recorded");
        NotDone::Failed(codes::FILE_UNREADABLE, reason)
    })?;
    let text = register::decode(&bytes).map_err(|error| format!("{error}\nNothing was recorded"))?;
    Ok(text.to_owned())
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Import {
    Record,
    DryRun,
}

fn import_file(
    session: &mut ServerSession<'_>,
    put: fn(String) -> Put,
    flags: &ImportFlags,
) -> Result<(), NotDone> {
    let kind = if flags.dry_run { Import::DryRun } else { Import::Record };
    import(session, put(read_file(&flags.file)?), kind, flags.output)
}

/// Shows what a file changes, records it, and says where.
fn import(
    session: &mut ServerSession<'_>,
    put: Put,
    import: Import,
    output: OutputFlags,
) -> Result<(), NotDone> {
    let shown = session.ask(ServerRequest::Put { put: put.clone(), dry_run: true })?;
    let nothing_to_do = shown["changes"].as_array().is_none_or(Vec::is_empty);
    if !output.json {
        print(&changes(&shown));
    }
    if import == Import::DryRun || nothing_to_do {
        output.print(&shown, said);
        return Ok(());
    }
    let recorded = session.ask(ServerRequest::Put { put, dry_run: false })?;
    let differs = |field: &str| recorded[field] != shown[field];
    if !output.json && (differs("changes") || differs("changes_total")) {
        let recorded = changes(&recorded);
        print(&format!(
            "Somebody else changed the registry meanwhile. These changes were recorded:\n{recorded}"
        ));
    }
    output.print(&recorded, said);
    Ok(())
}

fn changes(answer: &Value) -> String {
    let mut shown: String = elements(answer, "changes").map(|line| format!("{}\n", text(line))).collect();
    let count = elements(answer, "changes").count() as u64;
    let more = answer["changes_total"].as_u64().unwrap_or_default().saturating_sub(count);
    if more > 0 {
        shown.push_str(&format!("and {more} more changes\n"));
    }
    let total = answer["unnamed_total"].as_u64().unwrap_or_default();
    let named: Vec<String> = elements(answer, "unnamed").map(text).collect();
    if total > 0 {
        let more = match total - named.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (plates, stay) = if total == 1 { ("plate", "is kept") } else { ("plates", "are kept") };
        shown.push_str(&format!(
            "{total} registered {plates} not named here {stay}: {}{more}\n",
            named.join(" ")
        ));
    }
    shown
}

/// A list of which each answer is a part, until this many elements have come. `ask` gets the cursor and how many are still wanted.
fn whole_list(
    session: &mut ServerSession<'_>,
    name: &str,
    mut limit: usize,
    ask: impl Fn(Option<String>, usize) -> ServerRequest,
) -> Outcome {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let mut answer = session.ask(ask(after, limit))?;
        if let Value::Array(part) = answer[name].take() {
            limit -= part.len().min(limit);
            all.extend(part);
        }
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() || limit == 0 {
            answer[name] = all.into();
            return Ok(answer);
        }
    }
}

fn print_contracts(answer: &Value) -> String {
    let rows = elements(answer, "contracts").map(|line| {
        let cell = |field: &str| text(&line[field]);
        let all = |field: &str| elements(line, field).map(text).collect::<Vec<_>>().join(", ");
        let [name, account, cars, from, to] =
            ["contract", "account", "cars", "valid_from", "valid_to"].map(cell);
        [name, account, cars, from, to, all("garages"), all("plates")]
    });
    table(["CONTRACT", "ACCOUNT", "CARS", "FROM", "TO", "GARAGES", "PLATES"], rows)
}

fn print_charges(answer: &Value) -> String {
    let rows = elements(answer, "charges").map(|line| {
        let cell = |field: &str| text(&line[field]);
        let state = if line["state"].is_null() { cell("kind") } else { cell("state") };
        let [entered, left, garage, plate, account, id] =
            ["entered_at", "left_at", "garage", "plate", "account", "id"].map(cell);
        let remark = match line["reason"].is_null() {
            true => cell("note"),
            false => format!("{}, by {}", cell("reason"), cell("by")),
        };
        [entered, left, garage, plate, account, amount(line), state, id, remark]
    });
    let head = ["ENTERED", "LEFT", "GARAGE", "PLATE", "ACCOUNT", "AMOUNT", "STATE", "ID", "REMARK"];
    table(head, rows) + &more(answer)
}

/// As people write it: 3.50 EUR.
fn amount(line: &Value) -> String {
    let (Some(minor), Some(code)) = (line["amount"].as_i64(), line["currency"].as_str()) else {
        return String::new();
    };
    match Currency::new(code) {
        Ok(currency) => Money::of_minor(minor, currency).to_string(),
        Err(_) => format!("{minor} {code}"), // of a later program
    }
}

/// Gives each statement to `take`, as soon as its last piece has come.
fn statements(
    session: &mut ServerSession<'_>,
    month: Month,
    whose: &Whose,
    mut take: impl FnMut(Statement) -> Result<(), NotDone>,
) -> Result<(), NotDone> {
    let mut together = StatementAssembler::new(u64::MAX);
    let mut from = None;
    loop {
        let question = BooksQuestion::Statements { month, whose: whose.clone(), from };
        let answer = session.ask(ServerRequest::Books(question))?;
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

fn show(
    session: &mut ServerSession<'_>,
    name: &str,
    of: Option<StatementOf>,
    month: Month,
    format: StatementFormat,
) -> Result<String, NotDone> {
    let (account, plate) = (Whose::Account(name.to_owned()), Whose::Plate(name.to_owned()));
    let candidates = match of {
        None => vec![account, plate],
        Some(StatementOf::Account) => vec![account],
        Some(StatementOf::Plate) => vec![plate],
    };
    for whose in candidates {
        let mut shown = None;
        statements(session, month, &whose, |statement| {
            shown = Some(format.render(&statement));
            Ok(())
        })?;
        if let Some(shown) = shown {
            return Ok(shown);
        }
    }
    Err(NotDone::Refused(format!(
        "there is no statement of {name:?} for {month}: neither an account nor a plate of that name was charged in that month. Nothing was changed. \"server charges list --month {month}\" shows the charges of the month"
    )))
}

fn export(session: &mut ServerSession<'_>, month: Month, out: &Path, formats: &[StatementFormat]) -> Outcome {
    let mut directory = Directory::begin(out, month, formats)?;
    let mut nameless = false;
    statements(session, month, &Whose::All, |statement| {
        nameless |= statement.head().operator.name.is_empty();
        Ok(directory.add(&statement)?)
    })?;
    let (statements, lines) = (directory.statements, directory.lines);
    if statements == 0 {
        return Err(nothing_in(month));
    }
    directory.finish()?;
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
        "nothing was charged in {month}, so there is nothing to write. Nothing was changed. Check the month"
    ))
}

pub(super) fn run_journal(
    session: &mut ServerSession<'_>,
    JournalCommand::Export { month, out }: JournalCommand,
) -> Result<(), NotDone> {
    let months: Vec<Month> = match month {
        Some(month) => vec![month],
        None => {
            let answer = session.ask(ServerRequest::Books(BooksQuestion::Months))?;
            elements(&answer, "months").filter_map(|month| month.as_str()?.parse().ok()).collect()
        }
    };
    let mut postings = Vec::new();
    let mut any = false;
    for month in &months {
        statements(session, *month, &Whose::All, |statement| {
            any = true;
            postings.extend(journal::postings(&statement));
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
        None => print(&csv),
        Some(path) => {
            write_new(&path, &csv)?;
            let of = month.map_or_else(|| format!("{} months", months.len()), |month| month.to_string());
            print(&format!("{} postings for {of} in {}\n", postings.len(), path.display()));
        }
    }
    Ok(())
}
