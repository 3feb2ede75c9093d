//! The command line of `edge`: runs the daemon, or carries out one command and exits.

use super::audit::{self, AuditFlags};
use super::tokens::{self, TokensCommand};
use super::{OutputFlags, elements, examples, exit_after, explain, known, parse, print, said};
use crate::config::{ConfigError, EdgeConfig, EdgeSettings};
use crate::daemon;
use crate::daemon::admin::NotDone;
use crate::edge;
use crate::edge::commands::{EdgeRequest, EdgeSession, PEEK_MOST};
use crate::messaging::{LedgerId, SiteName};
use crate::store::private::keep_what_we_create_private;
use clap::{Parser, Subcommand};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs the program `edge`; `args` as a program gets them, its name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    keep_what_we_create_private();
    match EdgeCall::from_args(args) {
        Ok(EdgeCall::Run(config)) => edge::run(*config),
        Ok(EdgeCall::Explain { code }) => explain(code.as_deref()),
        Ok(EdgeCall::Tokens { file, data_dir, own, command }) => {
            exit_after(tokens::run(&file, data_dir.as_deref(), own.as_ref(), command))
        }
        Ok(EdgeCall::Command { data_dir, command }) => run(&data_dir, command),
        Err(error) => daemon::exit_for_config(&error),
    }
}

#[derive(Debug, Parser)]
#[command(name = "edge", version, about = ABOUT, max_term_width = 100, after_help = AFTER_HELP)]
struct EdgeFlags {
    #[command(flatten)]
    settings: EdgeSettings,
    /// Configuration file; its table [edge] is read [default: none]
    #[arg(long, global = true, value_name = "FILE", env = "FOGPOST_CONFIG", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Without a command, the edge runs until it is stopped
    #[command(subcommand)]
    command: Option<EdgeCommand>,
}

// Not a doc comment of the flags: the flattened settings would replace it.
const ABOUT: &str = "Stores the events of one garage on disk and delivers them to the server";

const AFTER_HELP: &str = examples!(
    "  edge --garage-name \"Bull Ring\"                      Run with the server on this machine
  edge --garage-name 1 --server tls://10.0.0.5:5555    Run with a server elsewhere
  edge --data-dir data/edge-1 outbox status            Show how many events wait"
);

const OUTBOX_HELP: &str = examples!(
    "  edge --garage-name \"Bull Ring\" outbox status     Show how many events wait
  edge --data-dir data/edge-1 outbox peek --limit 3 Show the next three events
  edge --data-dir data/edge-1 outbox export | wc -l Count the events that wait"
);

const LEDGER_HELP: &str = examples!(
    "  edge --garage-name 1 outbox status                                         Show the present ledger
  edge --garage-name 1 ledger adopt 2f1c9a0e-8f0b-4b0e-9d5f-6a1f3c1f7f10     Deliver to a new ledger
  edge --data-dir data/edge-1 ledger adopt 2f1c9a0e-8f0b-4b0e-9d5f-6a1f3c1f7f10

A server prints the id of its ledger in its \"ready\" line, after \"ledger=\"."
);

const TOKENS_HELP: &str = examples!(
    "  edge --garage-name 1 tokens add gate-1 --role ingest     Let a gate post events
  edge --garage-name 1 tokens add hall --role board        Let a display show the board
  edge --data-dir data/edge-1 tokens revoke gate-1"
);

/// What to do instead of running.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum EdgeCommand {
    /// Show the events that wait to be delivered. Changes nothing, and works whether the edge runs or not
    #[command(subcommand, after_help = OUTBOX_HELP)]
    Outbox(OutboxCommand),
    /// Choose the ledger to which this garage delivers
    #[command(subcommand, after_help = LEDGER_HELP)]
    Ledger(LedgerCommand),
    /// Make, list and revoke the tokens that requests over HTTP need
    #[command(subcommand, after_help = TOKENS_HELP)]
    Tokens(TokensCommand),
    /// List who did what: commands, sign-ins and refused attempts
    Audit(AuditFlags),
    /// Explain a code of a problem, an alarm, an error or a log line: what happened, what it means for the data, what to do
    Explain {
        /// Code, such as outbox_full [default: list all]
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum OutboxCommand {
    /// Show how many events wait, since when, and for which ledger
    Status(OutputFlags),
    /// Show the oldest events that wait, one JSON object per line
    Peek {
        /// Maximum number of events: 1 to 1000
        #[arg(long, value_name = "EVENTS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Print all events that wait, one JSON object per line
    Export,
    /// Read all stored events and report damage. Exits with 0 if there is none
    Verify(OutputFlags),
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum LedgerCommand {
    /// Deliver to another ledger from now on, because the previous one is lost for good. Deletes the events here that the lost
    /// ledger had acknowledged; the new ledger records them as missing
    Adopt {
        /// Id of the new ledger
        #[arg(value_name = "ID")]
        ledger: LedgerId,
    },
}

/// What a command line asks for, with the settings for it.
#[derive(Debug)]
pub enum EdgeCall {
    Run(Box<EdgeConfig>),
    Command { data_dir: PathBuf, command: EdgeCommand },
    Tokens { file: PathBuf, data_dir: Option<PathBuf>, own: Option<SiteName>, command: TokensCommand },
    Explain { code: Option<String> },
}

impl EdgeCall {
    pub fn from_args(args: Vec<OsString>) -> Result<EdgeCall, ConfigError> {
        let flags = parse::<EdgeFlags>(args)?;
        if let Some(EdgeCommand::Explain { code }) = flags.command {
            // Before the file is read: what is wrong with a configuration file can be explained.
            return Ok(EdgeCall::Explain { code });
        }
        let settings = flags.settings.completed_by(flags.config.as_deref())?;
        match flags.command {
            None => Ok(EdgeCall::Run(Box::new(settings.try_into()?))),
            Some(EdgeCommand::Tokens(command)) => {
                let (own, file) = (settings.garage_name.clone(), settings.tokens()?);
                Ok(EdgeCall::Tokens { file, data_dir: settings.data_dir().ok(), own, command })
            }
            Some(command) => Ok(EdgeCall::Command { data_dir: settings.data_dir()?, command }),
        }
    }
}

fn run(data_dir: &Path, command: EdgeCommand) -> ExitCode {
    let mut session = EdgeSession::of(data_dir);
    let done = match command {
        EdgeCommand::Outbox(OutboxCommand::Status(output)) => {
            session.ask(&EdgeRequest::Status).map(|answer| output.print(&answer, fields))
        }
        EdgeCommand::Outbox(OutboxCommand::Peek { limit }) => {
            let request = EdgeRequest::Peek { after: None, limit: limit.into() };
            session.ask(&request).map(|answer| print(&events(&answer)))
        }
        EdgeCommand::Outbox(OutboxCommand::Export) => export(&mut session),
        EdgeCommand::Outbox(OutboxCommand::Verify(output)) => match session.ask(&EdgeRequest::Verify) {
            Ok(report) => return show_faults(&report, output),
            Err(reason) => Err(reason),
        },
        EdgeCommand::Ledger(LedgerCommand::Adopt { ledger }) => session
            .ask(&EdgeRequest::Adopt { ledger: ledger.to_string() })
            .map(|answer| print(&said(&answer))),
        EdgeCommand::Audit(flags) => audit::run(data_dir, flags),
        EdgeCommand::Explain { .. } | EdgeCommand::Tokens(_) => unreachable!("it needs no data directory"),
    };
    exit_after(done)
}

fn fields(answer: &Value) -> String {
    let fields = answer.as_object().into_iter().flatten();
    fields.map(|(name, value)| format!("{name:<20} {}\n", known(value))).collect()
}

fn events(answer: &Value) -> String {
    elements(answer, "events").map(|event| format!("{event}\n")).collect()
}

fn export(session: &mut EdgeSession<'_>) -> Result<(), NotDone> {
    let mut after = None;
    loop {
        let answer = session.ask(&EdgeRequest::Peek { after, limit: PEEK_MOST })?;
        match io::stdout().write_all(events(&answer).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()), // the reader has seen enough
            written => written.map_err(|error| error.to_string())?,
        }
        after = serde_json::from_value(answer["next"].clone()).map_err(|error| error.to_string())?;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Prints the report of a verification. Exits with 1 when something is wrong.
fn show_faults(report: &Value, output: OutputFlags) -> ExitCode {
    output.print(report, report_in_words);
    match report["faults"].as_array().is_none_or(Vec::is_empty) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn report_in_words(report: &Value) -> String {
    let count = |field: &str| report[field].as_u64().unwrap_or(0);
    let mut text = format!(
        "{} events in {} pages of {} epochs, {} of them wait; {} keys\n",
        count("messages"),
        count("pages"),
        count("epochs"),
        count("waiting"),
        count("keys")
    );
    let (lost, aside) = (count("lost"), count("kept_aside"));
    if lost > 0 || aside > 0 {
        text += &format!(
            "damage found earlier: {lost} events are reported to the server as lost, {aside} pages are kept aside\n"
        );
    }
    let faults: Vec<&str> = elements(report, "faults").filter_map(Value::as_str).collect();
    match faults.len() {
        0 => text + "nothing is wrong\n",
        n => text + &format!("{n} faults:\n{}\n", faults.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<EdgeConfig, ConfigError> {
        let args = ["edge"].iter().chain(args).map(OsString::from).collect();
        match EdgeCall::from_args(args)? {
            EdgeCall::Run(config) => Ok(*config),
            task => panic!("{task:?}"),
        }
    }

    #[test]
    fn a_task_needs_a_directory_or_a_name() {
        let task = |args: &[&str]| {
            let args = ["edge"].iter().chain(args).map(OsString::from).collect();
            match EdgeCall::from_args(args).map_err(|error| error.to_string())? {
                EdgeCall::Command { data_dir, command } => Ok((data_dir, command)),
                run => panic!("{run:?}"),
            }
        };
        let (dir, peek) = task(&["outbox", "peek", "--limit", "3", "--data-dir", "g1"]).unwrap();
        assert_eq!((dir, peek), (PathBuf::from("g1"), EdgeCommand::Outbox(OutboxCommand::Peek { limit: 3 })));
        let (dir, _) = task(&["--garage-name", "1", "outbox", "export"]).unwrap();
        assert_eq!(dir, Path::new("data/edge-1"));
        let missing: Result<_, String> = task(&["outbox", "status"]);
        assert!(missing.unwrap_err().contains("--data-dir"));
    }

    #[test]
    fn a_name_is_enough() {
        let config = config(&["--garage-name", "Bull Ring"]).unwrap();
        assert_eq!(config.data_dir, Path::new("data/edge-Bull Ring"));
        assert_eq!(config.servers[0].to_string(), "tcp://127.0.0.1:5555");
        assert_eq!((config.capacity, config.http), (500, None));
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_data_directory() {
        let config = config(&["--garage-name", "../../etc"]).unwrap();
        assert_eq!(config.data_dir, Path::new("data/edge-..%2F..%2Fetc"));
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[edge]\ngarage_name = \"a\"\ncapacity = 7\n").unwrap();
        let path = file.path().to_str().unwrap();
        let config = config(&["--config", path, "--garage-name", "b"]).unwrap();
        assert_eq!((config.garage_name.as_str(), config.capacity), ("b", 7));
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        for (args, part) in [
            (&[][..], "--garage-name"),
            (&["--garage-name", ""], "--garage-name"),
            (&["--garage-name", "a", "--server", "nowhere"], "tcp://127.0.0.1:5555"),
            (&["--garage-name", "a", "--server", "tcp://h:0"], "port 0"),
            (&["--garage-name", "a", "--capacity=-1"], "capacity"),
            (&["--garage-name", "a", "--board-interval-ms", "1"], "--board-interval-ms"),
            (&["--garage-name", "a", "--max-events", "0"], "--max-events"),
            (&["--garage-name", "a", "--max-bytes", "4G"], "--max-bytes"),
            (&["--garage-name", "a", "--colour"], "--colour"),
            (&["--garage-name", "a", "--config", "/nonexistent"], "/nonexistent"),
        ] {
            let error = config(args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
