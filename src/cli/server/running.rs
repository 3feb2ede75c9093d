//! Runs one command of `server`, and prints its answer.

use super::flags::{GaragesCommand, QuarantineCommand, ServerCommand, StaysCommand, TariffsCommand};
use super::{books, tariffs};
use crate::cli::{OutputFlags, failure, print};
use crate::codes;
use crate::config::ServerConfig;
use crate::daemon;
use crate::daemon::admin::{self, NotDone, Outcome};
use crate::parking::Moment;
use crate::server::commands::{ServerRequest, ServerSession};
use crate::server::record::Command;
use crate::server::{backup, compact, verify};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use unicode_width::UnicodeWidthStr;

/// Does what the command says, in the running server or in its directory. The answer goes to stdout, the reason of a failure to
/// stderr.
pub(super) fn run(config: &ServerConfig, command: ServerCommand) -> ExitCode {
    let session = &mut ServerSession::of(config);
    match command {
        ServerCommand::Garages(command) => run_garages(session, command),
        ServerCommand::Quarantine(command) => run_quarantine(session, command),
        ServerCommand::Stays(command) => run_stays(session, command),
        ServerCommand::Tariffs(TariffsCommand::Check { file }) => tariffs::tell(&config.tariffs, &file),
        ServerCommand::Tariffs(TariffsCommand::Price { garage, entry, exit, output }) => {
            tariffs::price(&config.tariffs, garage.as_str(), entry, exit, output)
        }
        ServerCommand::Tariffs(TariffsCommand::Apply) => {
            report(session.ask(ServerRequest::ApplyTariffs), OutputFlags::TEXT, print_said)
        }
        ServerCommand::Tariffs(TariffsCommand::Show) => books::show_tariffs(session),
        ServerCommand::Plates(command) => books::run_plates(session, command),
        ServerCommand::Contracts(command) => books::run_contracts(session, command),
        ServerCommand::Charges(command) => books::run_charges(session, command),
        ServerCommand::Statements(command) => books::run_statements(session, command),
        ServerCommand::Journal(command) => books::run_journal(session, command),
        ServerCommand::Forget { plate } => {
            let request = ServerRequest::Forget { plate: plate.to_string() };
            report(session.ask(request), OutputFlags::TEXT, print_said)
        }
        ServerCommand::Compact { to } => {
            let done =
                compact::run(config, &to).map_err(|reason| NotDone::Failed(codes::COMPACTION_FAILED, reason));
            report(done.map(|said| json!({ "said": said })), OutputFlags::TEXT, print_said)
        }
        ServerCommand::Verify { output } => run_verify(&config.data_dir, output),
        ServerCommand::Explain { code } => crate::cli::explain(code.as_deref()),
        ServerCommand::RebuildViews => rebuild_views(&config.data_dir),
        ServerCommand::Backup { to, output } => {
            let done =
                backup::run(config, &to).map_err(|reason| NotDone::Failed(codes::BACKUP_FAILED, reason));
            report(done, output, print_said)
        }
    }
}

fn run_garages(session: &mut ServerSession<'_>, command: GaragesCommand) -> ExitCode {
    let command = match command {
        GaragesCommand::List { output } => {
            return report(session.ask(ServerRequest::Garages), output, print_garages);
        }
        GaragesCommand::Rename { old, new } => Command::Rename { garage: old, to: new },
        GaragesCommand::Decommission { name, undo } => Command::Decommission { garage: name, undo },
        GaragesCommand::Adopt { name } => Command::Adopt { garage: name },
        GaragesCommand::Capacity { name, spaces, as_told: _ } => Command::Capacity { garage: name, spaces },
    };
    record(session, command)
}

fn run_quarantine(session: &mut ServerSession<'_>, command: QuarantineCommand) -> ExitCode {
    let command = match command {
        QuarantineCommand::List { after, limit, output } => {
            let request = ServerRequest::Quarantine { after, limit: limit as usize };
            return report(session.ask(request), output, print_quarantine);
        }
        QuarantineCommand::Release { place } => Command::Release { place },
        QuarantineCommand::Discard { place, reason } => Command::Discard { place, reason },
    };
    record(session, command)
}

fn run_stays(session: &mut ServerSession<'_>, command: StaysCommand) -> ExitCode {
    let command = match command {
        StaysCommand::Review { output } => {
            return report(session.ask(ServerRequest::Review), output, print_review);
        }
        StaysCommand::Join { entry, exit, reason } => Command::JoinStay { entry, exit, reason },
        StaysCommand::Close { entry, left, reason } => {
            let (left_at_ms, offset_minutes) = stored(left);
            Command::CloseStay { entry, left_at_ms, offset_minutes, reason }
        }
        StaysCommand::Split { entry, left, entered, reason } => {
            let ((left_at_ms, offset_minutes), (entered_at_ms, _)) = (stored(left), stored(entered));
            Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason }
        }
        StaysCommand::Bill { charge, reason } => Command::BillStay { charge, reason },
    };
    record(session, command)
}

/// A moment as the ledger stores it: milliseconds since 1970, and the offset in minutes.
fn stored(moment: Moment) -> (i64, i16) {
    let minutes = moment.offset.seconds() / 60;
    (moment.timestamp.as_millisecond(), i16::try_from(minutes).expect("an offset is below 26 hours"))
}

/// Records an operator's decision, and says where.
pub(super) fn record(session: &mut ServerSession<'_>, command: Command) -> ExitCode {
    report(session.ask(ServerRequest::Command(command)), OutputFlags::TEXT, print_said)
}

/// Asks the running server, or looks into a copy of its directory.
fn run_verify(data_dir: &Path, output: OutputFlags) -> ExitCode {
    let answer = match admin::ask(data_dir, &ServerRequest::Verify) {
        Ok(Some(answer)) => answer,
        Ok(None) => return verify::main(data_dir, output.json),
        Err(error) => return failure(&error),
    };
    let shown = if output.json { &answer["report"] } else { &answer["text"] };
    print(&format!("{}\n", text(shown)));
    if answer["clean"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn rebuild_views(data_dir: &Path) -> ExitCode {
    match verify::discard_views(data_dir) {
        Ok(()) => {
            print("the views are dropped; the next start rebuilds them from the ledger\n");
            ExitCode::SUCCESS
        }
        Err(error) => daemon::exit_for(&error),
    }
}

/// Prints an answer as JSON or in words, or the reason why there is none.
pub(super) fn report(outcome: Outcome, output: OutputFlags, in_words: fn(&Value) -> String) -> ExitCode {
    match outcome {
        Ok(answer) => {
            output.print(&answer, in_words);
            ExitCode::SUCCESS
        }
        Err(reason) => failure(&reason),
    }
}

pub(super) fn print_said(answer: &Value) -> String {
    format!("{}\n", text(&answer["said"]))
}

fn print_garages(answer: &Value) -> String {
    let rows = elements(answer, "garages").map(|garage| {
        let mut remarks = Vec::new();
        if garage["decommissioned"] == true {
            let events = match garage["events_since_decommissioned"].as_u64() {
                Some(events @ 1..) => format!(", {events} events since"),
                _ => String::new(),
            };
            remarks.push(format!("decommissioned{events}"));
        }
        if !garage["formerly"].is_null() {
            remarks.push(format!("formerly {}", text(&garage["formerly"])));
        }
        if !garage["capacity_told"].is_null() && garage["capacity_told"] != garage["capacity"] {
            remarks.push(format!("its edge tells {} spaces", text(&garage["capacity_told"])));
        }
        let cell = |field: &str| match &garage[field] {
            Value::Null => "--".to_owned(),
            known => text(known),
        };
        [cell("name"), cell("occupied"), cell("capacity"), cell("events"), remarks.join("; ")]
    });
    table(["NAME", "OCCUPIED", "CAPACITY", "EVENTS", "REMARKS"], rows)
}

fn print_review(answer: &Value) -> String {
    let mut shown = format!("{}\n", text(&answer["said"]));
    for pair in elements(answer, "pairs") {
        let [entry, exit] = ["entry", "exit"].map(|end| &pair[end]);
        shown.push_str(&format!(
            "\n{}: {} entered at {}, {} left at {}\n  {}\n",
            text(&pair["garage"]),
            text(&entry["plate"]),
            text(&entry["at"]),
            text(&exit["plate"]),
            text(&exit["at"]),
            text(&pair["command"])
        ));
    }
    for long in elements(answer, "long") {
        let left = match long["left_at"].as_str() {
            Some(left) => format!("left at {left}"),
            None => "is inside, or left unseen".to_owned(),
        };
        shown.push_str(&format!(
            "\n{}: {} entered at {} and {left}, and was read in {} at {}\n  {}\n",
            text(&long["garage"]),
            text(&long["plate"]),
            text(&long["entered_at"]),
            text(&long["elsewhere"]["garage"]),
            text(&long["elsewhere"]["entered_at"]),
            text(&long["command"])
        ));
    }
    if answer["more"] == true {
        shown.push_str("\nThere are more; they show when these are repaired\n");
    }
    shown
}

fn print_quarantine(answer: &Value) -> String {
    let rows = elements(answer, "quarantine")
        .map(|line| ["place", "garage", "sequence", "received_at", "reason"].map(|field| text(&line[field])));
    table(["PLACE", "GARAGE", "SEQUENCE", "RECEIVED", "REASON"], rows) + &more(answer)
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A table whose columns are as wide as their widest cell.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width())));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The elements of a list in an answer.
pub(super) fn elements<'a>(answer: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    answer[list].as_array().into_iter().flatten()
}

/// The line below a list that goes on.
pub(super) fn more(answer: &Value) -> String {
    match &answer["next"] {
        Value::Null => String::new(),
        next => format!("there are more: --after {}\n", text(next)),
    }
}
