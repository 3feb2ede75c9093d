//! `server plates …`, `accounts …`, `contracts …`, `charges …`, `decisions …`, `statements …`: the commands with which an operator
//! reads and changes billing.

use super::money_flags::{
    AccountsCommand, ChargesCommand, ContractsCommand, DecisionsCommand, ImportFlags, PlatesCommand, PutFlags,
};
use super::record;
use crate::cli::{elements, list, more, print, said, table, text};
use crate::codes;
use crate::daemon::admin::{NotDone, Outcome};
use crate::parking::Month;
use crate::parking::money::{Currency, Money};
use crate::parking::register::{self, CustomerPatch, DateRange, address_lines};
use crate::server::books::{Asked, BooksQuestion, DraftStatement, Whose, read_part};
use crate::server::commands::{Put, ServerRequest, ServerSession};
use crate::server::record::Command;
use crate::server::view::charges::ChargeCursor;
use jiff::civil::Date;
use serde_json::Value;
use std::fs;
use std::path::Path;

pub(super) fn run_plates(
    session: &mut ServerSession<'_>,
    today: Date,
    command: PlatesCommand,
) -> Result<(), NotDone> {
    match command {
        PlatesCommand::Import(flags) => import(session, Put::Plates, &flags),
        PlatesCommand::List(output) => {
            let columns = [
                ("PLATE", "plate"),
                ("ACCOUNT", "account"),
                ("NAME", "name"),
                ("FROM", "valid_from"),
                ("TO", "valid_to"),
            ];
            let all = whole_list(session, "plates", usize::MAX, |after, _| ServerRequest::Plates { after })?;
            output.print(&all, |all| list(all, "plates", columns));
            Ok(())
        }
        PlatesCommand::Add { plate, account, from, to, put: flags } => {
            let dates = DateRange::new(Some(from.unwrap_or(today)), to)
                .map_err(|error| format!("{error}. Nothing was recorded"))?;
            put(session, &Put::AddPlate { plate, account, dates }, flags)
        }
        PlatesCommand::Remove { plate, on, put: flags } => {
            put(session, &Put::RemovePlate { plate, on: on.unwrap_or(today) }, flags)
        }
    }
}

pub(super) fn run_accounts(session: &mut ServerSession<'_>, command: AccountsCommand) -> Result<(), NotDone> {
    let columns = [
        ("ACCOUNT", "account"),
        ("NAME", "name"),
        ("ADDRESS", "address"),
        ("COUNTRY", "country"),
        ("VAT ID", "vat_id"),
        ("E-MAIL", "email"),
    ];
    let mut all =
        || whole_list(session, "accounts", usize::MAX, |after, _| ServerRequest::Accounts { after });
    match command {
        AccountsCommand::Import(flags) => import(session, Put::Accounts, &flags),
        AccountsCommand::List(output) => {
            output.print(&all()?, |all| list(all, "accounts", columns));
            Ok(())
        }
        AccountsCommand::Show { account, output } => {
            let mut all = all()?;
            if let Value::Array(accounts) = &mut all["accounts"] {
                accounts.retain(|its| its["account"] == account.as_str());
            }
            if elements(&all, "accounts").next().is_none() {
                return Err(NotDone::Refused(format!(
                    "nothing is known of the account {account:?}. Nothing was changed. \"server accounts set\" records who is billed for it"
                )));
            }
            output.print(&all, |all| list(all, "accounts", columns));
            Ok(())
        }
        AccountsCommand::Set { account, name, address, country, vat_id, email, put: flags } => {
            let address = address.map(|lines| address_lines(&lines));
            let patch = CustomerPatch { name, address, country, vat_id, email };
            put(session, &Put::SetAccount { account, patch }, flags)
        }
    }
}

pub(super) fn run_contracts(
    session: &mut ServerSession<'_>,
    today: Date,
    command: ContractsCommand,
) -> Result<(), NotDone> {
    match command {
        ContractsCommand::Import(flags) => import(session, Put::Contracts, &flags),
        ContractsCommand::List(output) => {
            session.ask(ServerRequest::Contracts).map(|answer| output.print(&answer, print_contracts))
        }
        ContractsCommand::Remove { contract, on, put: flags } => {
            put(session, &Put::RemoveContract { contract, on: on.unwrap_or(today) }, flags)
        }
    }
}

pub(super) fn run_charges(session: &mut ServerSession<'_>, command: ChargesCommand) -> Result<(), NotDone> {
    match command {
        ChargesCommand::List { plate, garage, account, month, after, limit, output } => {
            let plate = plate.map(|plate| plate.to_string());
            let month = month.map(|month| month.to_string());
            let asked = Asked { plate, garage, account, month, after, limit: limit as usize };
            // Each answer looks at a limited number of stays, whether they match or not.
            let ask = |next: Option<String>, limit| {
                let after = next.map_or(asked.after.clone(), |next| ChargeCursor::parse(&next));
                ServerRequest::Books(BooksQuestion::Charges(Asked { after, limit, ..asked.clone() }))
            };
            whole_list(session, "charges", asked.limit, ask).map(|all| output.print(&all, print_charges))
        }
        ChargesCommand::Show { charge, output } => {
            let answer = session.ask(ServerRequest::Books(BooksQuestion::Charge(charge)))?;
            output.print(&answer, print_charge);
            Ok(())
        }
        ChargesCommand::Void { charge, reason } => record(session, Command::Void { charge, reason }),
        ChargesCommand::Credit { charge, amount, reason } => {
            record(session, Command::Credit { charge, amount, reason })
        }
    }
}

fn print_decisions(answer: &Value) -> String {
    let rows = elements(answer, "decisions").map(|line| {
        let cell = |field: &str| text(&line[field]);
        let [decision, kind, charge, entry, exit, left, entered, reason, at] =
            ["decision", "kind", "charge", "entry", "exit", "left_at", "entered_at", "reason", "at"]
                .map(cell);
        let amount = match &line["currency"] {
            Value::Null => cell("amount"),
            _ => amount(line),
        };
        [decision, kind, charge, entry, exit, left, entered, amount, reason, at]
    });
    let head = ["DECISION", "KIND", "CHARGE", "ENTRY", "EXIT", "LEFT", "ENTERED", "AMOUNT", "REASON", "AT"];
    table(head, rows)
}

pub(super) fn run_decisions(
    session: &mut ServerSession<'_>,
    command: DecisionsCommand,
) -> Result<(), NotDone> {
    match command {
        DecisionsCommand::List(output) => {
            let all = session.ask(ServerRequest::Decisions)?;
            output.print(&all, print_decisions);
            Ok(())
        }
        DecisionsCommand::Undo { decision } => record(session, Command::Undo { decision }),
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

pub(super) fn read_file(path: &Path) -> Result<String, NotDone> {
    let bytes = fs::read(path).map_err(|error| {
        let reason = format!("cannot read {path:?}: {error}. Nothing was recorded");
        NotDone::Failed(codes::FILE_UNREADABLE, reason)
    })?;
    let text = register::decode(&bytes).map_err(|error| format!("{error}\nNothing was recorded"))?;
    Ok(text.to_owned())
}

fn import(
    session: &mut ServerSession<'_>,
    kind: fn(String) -> Put,
    flags: &ImportFlags,
) -> Result<(), NotDone> {
    put(session, &kind(read_file(&flags.file)?), flags.put)
}

/// Shows what a list changes, records it, and says where.
pub(super) fn put(session: &mut ServerSession<'_>, put: &Put, flags: PutFlags) -> Result<(), NotDone> {
    let PutFlags { dry_run, output } = flags;
    let shown = session.ask(ServerRequest::Put { put: put.clone(), dry_run: true })?;
    let nothing_to_do = shown["changes"].as_array().is_none_or(Vec::is_empty);
    if !output.json {
        print(&changes(&shown));
    }
    if dry_run || nothing_to_do {
        output.print(&shown, said);
        return Ok(());
    }
    let recorded = session.ask(ServerRequest::Put { put: put.clone(), dry_run: false })?;
    let differs = |field: &str| recorded[field] != shown[field];
    if !output.json && (differs("changes") || differs("changes_total")) {
        let recorded = changes(&recorded);
        print(&format!(
            "Somebody else changed the register meanwhile. These changes were recorded:\n{recorded}"
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
    shown.extend(elements(answer, "warnings").map(|line| format!("warning: {}\n", text(line))));
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
pub(super) fn whole_list(
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
        let [entered, left, garage, plate, account, state, id, note] =
            ["entered_at", "left_at", "garage", "plate", "account", "state", "id", "note"].map(cell);
        [entered, left, garage, plate, account, amount(line), state, id, note]
    });
    let head = ["ENTERED", "LEFT", "GARAGE", "PLATE", "ACCOUNT", "AMOUNT", "STATE", "ID", "NOTE"];
    table(head, rows) + &more(answer)
}

/// A charge, and below it what it follows from.
fn print_charge(answer: &Value) -> String {
    let charge = match &answer["charge"] {
        Value::Null => "The stay of this charge exists no longer.\n".to_owned(),
        charge => print_charges(&serde_json::json!({ "charges": [charge] })),
    };
    let events =
        [("EVENT", "event"), ("KIND", "kind"), ("PLATE", "plate"), ("AT", "at"), ("RECEIVED", "received_at")];
    let documents = elements(answer, "documents").map(|line| {
        let [number, kind, account, date] =
            ["number", "kind", "account", "date"].map(|field| text(&line[field]));
        [number, kind.replace('_', " "), account, date, amount(line)]
    });
    let documents = table(["DOCUMENT", "KIND", "ACCOUNT", "DATE", "AMOUNT"], documents);
    let (events, decisions) = (list(answer, "events", events), print_decisions(answer));
    format!("{charge}\n{events}\n{decisions}\n{documents}")
}

/// As people write it: 3.50 EUR.
pub(super) fn amount(line: &Value) -> String {
    money(line, "amount")
}

/// A field of a line in its currency.
pub(super) fn money(line: &Value, field: &str) -> String {
    let (Some(minor), Some(code)) = (line[field].as_i64(), line["currency"].as_str()) else {
        return String::new();
    };
    match Currency::new(code) {
        Ok(currency) => Money::of_minor(minor, currency).to_string(),
        Err(_) => format!("{minor} {code}"), // of a later program
    }
}

/// The draft of a month. `None`: nothing was charged.
pub(super) fn draft(
    session: &mut ServerSession<'_>,
    month: Month,
    whose: &Whose,
) -> Result<Option<DraftStatement>, NotDone> {
    let (mut parts, mut after) = (Vec::new(), None);
    loop {
        let question = BooksQuestion::Draft { month, whose: whose.clone(), after };
        let answer = session.ask(ServerRequest::Books(question))?;
        let Some(part) = read_part(&answer).map_err(|error| error.to_string())? else { return Ok(None) };
        after = part.next.clone();
        parts.push(part);
        if after.is_none() {
            return Ok(DraftStatement::of(month, parts).map_err(|error| error.to_string())?);
        }
    }
}
