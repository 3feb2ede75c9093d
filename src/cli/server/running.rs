//! Runs one command of `server`, and prints its answer.

use super::flags::{
    GaragesCommand, QuarantineCommand, ServerCommand, ShowAsFlags, StaysCommand, TariffsCommand,
};
use super::money_flags::PutFlags;
use super::{alarms, books, certs, documents, payments, record, say, tariffs};
use crate::cli::audit;
use crate::cli::tokens::{self, TokensCommand};
use crate::cli::{
    OutputFlags, elements, exit_after, explain, failure, known, list, print, said, table, text,
};
use crate::codes;
use crate::config::ServerConfig;
use crate::daemon::admin::{self, NotDone};
use crate::daemon::{self, audited};
use crate::http::tokens::Role;
use crate::parking::garage::Opening;
use crate::server::commands::{Put, Retroactive, ServerRequest, ServerSession};
use crate::server::record::{Command, ToForget};
use crate::server::{backup, commands, compact, verify};
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

/// Does what the command says, in the running server or in its directory. The answer goes to stdout, the reason of a failure to
/// stderr.
pub(super) fn run(config: &ServerConfig, command: ServerCommand) -> ExitCode {
    let session = &mut ServerSession::of(config);
    let today = || commands::today(&config.operator);
    let done = match command {
        ServerCommand::Garages(command) => run_garages(session, command),
        ServerCommand::Quarantine(command) => run_quarantine(session, command),
        ServerCommand::Stays(command) => run_stays(session, command),
        ServerCommand::Tariffs(TariffsCommand::Check { file }) => {
            tariffs::tell(&config.tariffs, &file);
            Ok(())
        }
        ServerCommand::Tariffs(TariffsCommand::Price { garage, entry, exit, output }) => {
            tariffs::price(&config.tariffs, garage.as_str(), entry, exit, output)
        }
        ServerCommand::Tariffs(TariffsCommand::Put { file: _, retroactive, dry_run, output }) => {
            let retroactive = if retroactive { Retroactive::Allowed } else { Retroactive::Refused };
            let put = Put::Tariffs { toml: config.tariffs.to_toml(), retroactive };
            books::put(session, &put, PutFlags { dry_run, output })
        }
        ServerCommand::Tariffs(TariffsCommand::Show) => books::show_tariffs(session),
        ServerCommand::Plates(command) => books::run_plates(session, today(), command),
        ServerCommand::Accounts(command) => books::run_accounts(session, command),
        ServerCommand::Contracts(command) => books::run_contracts(session, today(), command),
        ServerCommand::Charges(command) => books::run_charges(session, command),
        ServerCommand::Decisions(command) => books::run_decisions(session, command),
        ServerCommand::Statements(command) => documents::run_statements(session, command),
        ServerCommand::Documents(command) => documents::run(session, command),
        ServerCommand::Payments(command) => payments::run_payments(session, command),
        ServerCommand::Journal(command) => payments::run_journal(session, command),
        ServerCommand::Certs(command) => {
            let what = certs::audited(&command);
            let done = certs::run(config, command);
            if let Some(what) = what {
                audited::note_own(&config.data_dir, what, &done);
            }
            done
        }
        ServerCommand::Tokens(TokensCommand::Add { role: Role::Ingest, .. }) => {
            Err("ingest is a role of edges: events are posted there. Nothing was changed".to_owned().into())
        }
        ServerCommand::Tokens(command) => {
            tokens::run(&config.web.tokens, Some(&config.data_dir), None, command)
        }
        ServerCommand::Alarms(command) => alarms::run(session, command),
        ServerCommand::Audit(flags) => audit::run(&config.data_dir, flags),
        ServerCommand::Forget { plate, account, before } => {
            let whose = match (plate, account) {
                (Some(plate), _) => ToForget::Plate(plate.to_string()),
                (None, Some(account)) => ToForget::Account(account.to_string()),
                (None, None) => unreachable!("one of both is required"),
            };
            let before = before.unwrap_or_else(|| today().saturating_add(1.day()));
            say(session, ServerRequest::Forget { whose, before })
        }
        ServerCommand::Compact { to } => compact::run(config, &to)
            .map(|said| print(&format!("{said}\n")))
            .map_err(|reason| NotDone::Failed(codes::COMPACTION_FAILED, reason)),
        ServerCommand::Backup { to, output } => backup::run(config, &to)
            .map(|answer| output.print(&answer, said))
            .map_err(|reason| NotDone::Failed(codes::BACKUP_FAILED, reason)),
        ServerCommand::Verify(output) => return run_verify(&config.data_dir, output),
        ServerCommand::Explain { code } => return explain(code.as_deref()),
        ServerCommand::RebuildViews => return rebuild_views(&config.data_dir),
    };
    exit_after(done)
}

fn run_garages(session: &mut ServerSession<'_>, command: GaragesCommand) -> Result<(), NotDone> {
    let command = match command {
        GaragesCommand::List(output) => {
            return session.ask(ServerRequest::Garages).map(|answer| output.print(&answer, print_garages));
        }
        GaragesCommand::Rename { old, new } => Command::Rename { garage: old, to: new },
        GaragesCommand::Decommission { name, undo } => Command::Decommission { garage: name, undo },
        GaragesCommand::Adopt { name } => Command::Adopt { garage: name },
        GaragesCommand::Capacity { name, spaces, as_told: _ } => Command::Capacity { garage: name, spaces },
        GaragesCommand::Close(flags) => show_as(Opening::Closed, flags),
        GaragesCommand::Open(flags) => show_as(Opening::Open, flags),
        GaragesCommand::Automatic { name } => {
            Command::ShowAs { garage: name, opening: None, until_ms: None, reason: None }
        }
    };
    record(session, command)
}

fn show_as(opening: Opening, ShowAsFlags { name, reason, until }: ShowAsFlags) -> Command {
    let until_ms = until.map(Timestamp::as_millisecond);
    Command::ShowAs { garage: name, opening: Some(opening), until_ms, reason }
}

fn run_quarantine(session: &mut ServerSession<'_>, command: QuarantineCommand) -> Result<(), NotDone> {
    let command = match command {
        QuarantineCommand::List { after, limit, output } => {
            let answer = session.ask(ServerRequest::Quarantine { after, limit: limit as usize })?;
            let columns = [
                ("PLACE", "place"),
                ("GARAGE", "garage"),
                ("SEQUENCE", "sequence"),
                ("RECEIVED", "received_at"),
                ("REASON", "reason"),
            ];
            output.print(&answer, |answer| list(answer, "quarantine", columns));
            return Ok(());
        }
        QuarantineCommand::Release { place } => Command::Release { place },
        QuarantineCommand::Discard { place, reason } => Command::Discard { place, reason },
    };
    record(session, command)
}

fn run_stays(session: &mut ServerSession<'_>, command: StaysCommand) -> Result<(), NotDone> {
    let command = match command {
        StaysCommand::Review(output) => {
            return session.ask(ServerRequest::Review).map(|answer| output.print(&answer, print_review));
        }
        StaysCommand::Join { entry, exit, reason } => Command::JoinStay { entry, exit, plate: None, reason },
        StaysCommand::Close { entry, left, reason } => {
            let (left_at_ms, offset_minutes) = left.into();
            Command::CloseStay { entry, left_at_ms, offset_minutes, reason }
        }
        StaysCommand::Split { entry, left, entered, reason } => {
            let ((left_at_ms, offset_minutes), (entered_at_ms, _)) = (left.into(), entered.into());
            Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason }
        }
        StaysCommand::Bill { charge, reason } => Command::BillStay { charge, reason },
    };
    record(session, command)
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
        if let Some(name) = garage["formerly"].as_str() {
            remarks.push(format!("formerly {name}"));
        }
        if let Some(told @ 1..) = garage["capacity_told"].as_u64()
            && garage["capacity"] != told
        {
            remarks.push(format!("its edge reports {told} spaces"));
        }
        if let Some(reason) = garage["state_reason"].as_str() {
            remarks.push(reason.to_owned());
        }
        let cell = |field: &str| known(&garage[field]);
        [cell("name"), cell("state"), cell("occupied"), cell("capacity"), cell("events"), remarks.join("; ")]
    });
    table(["NAME", "STATE", "OCCUPIED", "CAPACITY", "EVENTS", "REMARKS"], rows)
}

fn print_review(answer: &Value) -> String {
    let mut shown = said(answer);
    for pair in elements(answer, "pairs") {
        let [garage, command] = ["garage", "command"].map(|field| text(&pair[field]));
        let [entered, left] =
            ["entry", "exit"].map(|end| (text(&pair[end]["plate"]), text(&pair[end]["at"])));
        shown += &format!(
            "\n{garage}: {} entered at {}, {} left at {}\n  {command}\n",
            entered.0, entered.1, left.0, left.1
        );
    }
    for long in elements(answer, "long") {
        let left = match long["left_at"].as_str() {
            Some(left) => format!("left at {left}"),
            None => "is inside, or left unseen".to_owned(),
        };
        let [garage, plate, entered, command] =
            ["garage", "plate", "entered_at", "command"].map(|field| text(&long[field]));
        let [other, came] = ["garage", "entered_at"].map(|field| text(&long["elsewhere"][field]));
        shown += &format!(
            "\n{garage}: {plate} entered at {entered} and {left}, and was read in {other} at {came}\n  {command}\n"
        );
    }
    if answer["more"] == true {
        shown.push_str("\nThere are more; they are shown once these are repaired\n");
    }
    shown
}
