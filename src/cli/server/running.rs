//! `server garages …`, `server quarantine …`, `server backup …`: one command, then the end.

use super::{ServerTask, books, tariffs};
use crate::codes::{self, Coded};
use crate::config::ServerConfig;
use crate::daemon;
use crate::daemon::admin::{self, Caller, NotDone, Outcome, Reached};
use crate::server::commands::{Offline, Request};
use crate::server::{backup, compact, verify};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Does the task in the running server or in its directory; says on stdout what was done, on stderr why not.
pub(super) fn run(config: &ServerConfig, task: &ServerTask) -> ExitCode {
    let (request, json) = match task {
        ServerTask::Serve => unreachable!("a daemon is no command"),
        ServerTask::Backup { to, json } => {
            return report(
                backup::run(&config.data_dir, to)
                    .map_err(|reason| NotDone::Failed(codes::BACKUP_FAILED, reason)),
                *json,
                print_said,
            );
        }
        ServerTask::CheckTariffs { file } => return tariffs::tell(&config.tariffs, file),
        ServerTask::PriceStay { garage, entry, exit, json } => {
            return tariffs::price(&config.tariffs, garage.as_str(), *entry, *exit, *json);
        }
        ServerTask::Verify { json } => return run_verify(&config.data_dir, *json),
        ServerTask::Refold => return run_refold(&config.data_dir),
        ServerTask::Explain { code } => return crate::cli::explain(code.as_deref()),
        ServerTask::ListGarages { json } => (Request::Garages, *json),
        ServerTask::ListQuarantine { after, limit, json } => {
            (Request::Quarantine { after: *after, limit: *limit }, *json)
        }
        ServerTask::Books(task) => return books::run(config, task),
        ServerTask::ReviewStays { json } => (Request::Review, *json),
        ServerTask::Compact { to } => {
            let done = compact::run(&config.data_dir, to)
                .map_err(|reason| NotDone::Failed(codes::COMPACTION_FAILED, reason));
            return report(done.map(|said| json!({ "said": said })), false, print_said);
        }
        ServerTask::Command(intent) => (Request::Command(intent.clone()), false),
    };
    report(
        Session::of(config).ask(&request),
        json,
        match request {
            Request::Garages => print_garages,
            Request::Quarantine { .. } => print_quarantine,
            Request::Review => print_review,
            _ => print_said,
        },
    )
}

/// Several requests: to the running server, or to its directory, which is held from the first request on.
pub(super) struct Session<'a> {
    config: &'a ServerConfig,
    offline: Option<Offline>,
}

impl Session<'_> {
    pub(super) fn of(config: &ServerConfig) -> Session<'_> {
        Session { config, offline: None }
    }

    pub(super) fn ask(&mut self, request: &Request) -> Outcome {
        let caller = Caller::this_process();
        if let Some(offline) = &mut self.offline {
            return offline.answer(request, &caller);
        }
        match admin::reach(&self.config.data_dir, request, |_| {}) {
            Ok(Reached::Daemon(answer)) => Ok(answer),
            Ok(Reached::Directory(dir)) => {
                let offline = Offline::open(dir, self.config.reserve_bytes)
                    .map_err(|error| NotDone::because(&error))?;
                self.offline.insert(offline.for_operator(&self.config.operator)).answer(request, &caller)
            }
            Err(error) => Err(NotDone::because(&error)),
        }
    }
}

/// Asks the running server, or looks into a copy of its directory.
fn run_verify(data_dir: &Path, json: bool) -> ExitCode {
    let answer = match admin::ask(data_dir, &Request::Verify, |_| {}) {
        Ok(Some(answer)) => answer,
        Ok(None) => return verify::main(data_dir, json),
        Err(error) => {
            codes::print_error(error.code(), &error);
            return ExitCode::FAILURE;
        }
    };
    let shown = if json { &answer["report"] } else { &answer["text"] };
    let _ = writeln!(std::io::stdout(), "{}", text(shown));
    if answer["clean"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_refold(data_dir: &Path) -> ExitCode {
    match verify::refold(data_dir) {
        Ok(()) => {
            let _ = writeln!(
                std::io::stdout(),
                "the views are dropped; the next start folds them anew from the ledger"
            );
            ExitCode::SUCCESS
        }
        Err(error) => daemon::exit_for(&error),
    }
}

pub(super) fn report(outcome: Outcome, json: bool, print: fn(&Value) -> String) -> ExitCode {
    match outcome {
        Ok(answer) => {
            let text = if json { format!("{answer}\n") } else { print(&answer) };
            // Whoever reads may have seen enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            codes::print_error(reason.code(), &reason);
            ExitCode::FAILURE
        }
    }
}

pub(super) fn print_said(answer: &Value) -> String {
    format!("{}\n", text(&answer["said"]))
}

fn print_garages(answer: &Value) -> String {
    let head = ["NAME", "OCCUPIED", "CAPACITY", "EVENTS", "REMARKS"].map(str::to_owned);
    let lines = answer["garages"].as_array().into_iter().flatten().map(|garage| {
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
    table(std::iter::once(head).chain(lines).collect())
}

fn print_review(answer: &Value) -> String {
    let mut shown = format!("{}\n", text(&answer["said"]));
    for pair in answer["pairs"].as_array().into_iter().flatten() {
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
    for long in answer["long"].as_array().into_iter().flatten() {
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
    let head = ["PLACE", "GARAGE", "SEQUENCE", "RECEIVED", "REASON"].map(str::to_owned);
    let lines = answer["quarantine"].as_array().into_iter().flatten();
    let lines = lines
        .map(|line| ["place", "garage", "sequence", "received_at", "reason"].map(|field| text(&line[field])));
    let mut shown = table(std::iter::once(head).chain(lines).collect());
    if !answer["next"].is_null() {
        shown.push_str(&format!("there are more: --after {}\n", text(&answer["next"])));
    }
    shown
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    use unicode_width::UnicodeWidthStr;
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width())));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
