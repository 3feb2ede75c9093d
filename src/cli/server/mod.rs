//! The command line of `server`: the daemon, or one command and then the end.

mod books;
mod books_flags;
mod export;
mod running;
mod stays;
mod tariffs;

use self::books_flags::{
    BooksTask, ChargesFlags, ContractsFlags, JournalFlags, PlatesFlags, StatementsFlags,
};
use self::stays::StaysFlags;
use crate::config::{ConfigError, ServerConfig, ServerSettings, file};
use crate::messaging::SiteName;
use crate::parking::moment::MomentError;
use crate::parking::{Moment, Plate};
use crate::server::commands::Intent;
use crate::server::record::QuarantinePlace;
use crate::store::private::keep_what_we_create_private;
use crate::{daemon, server, telemetry};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the program `server`; `args` as a program gets them, its name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    keep_what_we_create_private();
    let ServerCall { config, task } = match ServerCall::from_args(args) {
        Ok(call) => call,
        Err(error) => return daemon::exit_for_config(&error),
    };
    if task == ServerTask::Serve {
        return server::run(config);
    }
    daemon::keep_small(); // a backup holds two stores
    telemetry::init_quiet(config.log_format);
    running::run(&config, &task)
}

/// Applies the events of every garage exactly once, and knows the occupancy of the city.
#[derive(Debug, Parser)]
#[command(name = "server", version, about, max_term_width = 100)]
struct Flags {
    #[command(flatten)]
    settings: ServerSettings,
    /// Configuration file; its tables [server] and [operator] and its tariffs are read [default: none]
    #[arg(long, global = true, value_name = "FILE", env = "FOGPOST_CONFIG", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Without one of these the server runs until it is stopped
    #[command(subcommand)]
    task: Option<TaskFlags>,
}

/// What to do instead of serving, as it is written on a command line.
#[derive(Debug, Subcommand)]
enum TaskFlags {
    /// Look at the garages, or change what they are called and how they count
    #[command(subcommand)]
    Garages(GaragesFlags),
    /// Look at the events that were accepted and could not be applied, and decide what becomes of them
    #[command(subcommand)]
    Quarantine(QuarantineFlags),
    /// Check tariffs, price a stay by them, see which are in force, or price what waits for a tariff
    #[command(subcommand)]
    Tariffs(TariffsFlags),
    /// Say to which account the stays of a plate are charged
    #[command(subcommand)]
    Plates(PlatesFlags),
    /// Season tickets: which plates may park where without paying, and how many of them at once
    #[command(subcommand)]
    Contracts(ContractsFlags),
    /// Look at what was charged, and correct it
    #[command(subcommand)]
    Charges(ChargesFlags),
    /// What an account or a car owes for a month, to be sent
    #[command(subcommand)]
    Statements(StatementsFlags),
    /// Look at stays that do not add up, and repair them
    #[command(subcommand)]
    Stays(StaysFlags),
    /// Let a random token stand for a plate in stays and charges. Amounts, dates and garages stay. See "compact" for the rest
    Forget {
        #[arg(value_parser = Plate::new)]
        plate: Plate,
    },
    /// Write the ledger of a stopped server into a new directory, without what was forgotten
    Compact {
        /// Must not exist, or be empty
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// A month's statements as double entries for a bookkeeper
    #[command(subcommand)]
    Journal(JournalFlags),
    /// Read everything and fold it anew: says what is wrong, where, and what to do. Changes nothing
    Verify {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Explain a code of a problem, an anomaly, an error or a log line: what happened, what it means for the data, what to do
    Explain {
        /// Code, such as entry_while_open [default: list all]
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// Drop the views, so that the next start folds them anew from the ledger. The server must be stopped
    Refold,
    /// Copy the ledger into a new directory, also while the server runs. The way back: server --data-dir DIR
    Backup {
        /// Must not exist, or be empty
        #[arg(value_name = "DIR")]
        to: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum GaragesFlags {
    /// List all garages
    List {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Call a garage otherwise. Its edge may go on under the old name
    Rename {
        #[arg(allow_hyphen_values = true)]
        old: SiteName,
        #[arg(allow_hyphen_values = true)]
        new: SiteName,
    },
    /// Leave a garage out of boards and of the city's numbers. Events that still come are applied and reported
    Decommission {
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
        /// Take it in again
        #[arg(long)]
        undo: bool,
    },
    /// Let both sides of a garage's conflict count: its edge is told to send what it has not delivered under a new epoch
    Adopt {
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
    },
    /// Set how many spaces a garage has, whatever its edge tells
    Capacity {
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
        #[arg(value_name = "SPACES", required_unless_present = "as_told", conflicts_with = "as_told")]
        spaces: Option<u32>,
        /// What its edge tells counts again
        #[arg(long)]
        as_told: bool,
    },
}

#[derive(Debug, Subcommand)]
enum QuarantineFlags {
    /// List the events that wait
    List {
        /// Only what comes behind this place
        #[arg(long, value_name = "POSITION[.INDEX]")]
        after: Option<QuarantinePlace>,
        /// At most so many
        #[arg(long, value_name = "EVENTS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Let what waits act now, if this program understands it now
    Release {
        #[arg(value_name = "POSITION[.INDEX]")]
        place: QuarantinePlace,
    },
    /// Give up what waits. Its bytes and the reason stay in the ledger
    Discard {
        #[arg(value_name = "POSITION[.INDEX]")]
        place: QuarantinePlace,
        /// Why, for those who will ask
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
enum TariffsFlags {
    /// Check a configuration file and its tariffs: names the line and the reason of each mistake, and ends with 64 if there is one
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Price a stay by the tariffs of --config, and show the working
    Price {
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        garage: SiteName,
        /// When the car entered, such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = timestamp)]
        entry: Timestamp,
        /// When it left
        #[arg(long, value_name = "TIME", value_parser = timestamp)]
        exit: Timestamp,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Price the stays that wait because no tariff was in force for them. Start the server with the tariffs in --config first
    Apply,
    /// Print the tariffs that are in force, as a configuration file has them
    Show,
}

fn timestamp(text: &str) -> Result<Timestamp, MomentError> {
    Moment::parse(text).map(|moment| moment.timestamp)
}

/// What a server program is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTask {
    /// Serve until told to stop.
    Serve,
    ListGarages {
        json: bool,
    },
    ListQuarantine {
        after: Option<QuarantinePlace>,
        limit: usize,
        json: bool,
    },
    Verify {
        json: bool,
    },
    Refold,
    /// Explain this code, or list all.
    Explain {
        code: Option<String>,
    },
    /// Do this, and record it in the ledger.
    Command(Intent),
    Backup {
        to: PathBuf,
        json: bool,
    },
    /// Tell about the tariffs of this file, which were read and are valid.
    CheckTariffs {
        file: PathBuf,
    },
    PriceStay {
        garage: SiteName,
        entry: Timestamp,
        exit: Timestamp,
        json: bool,
    },
    /// About the books of money.
    Books(BooksTask),
    ReviewStays {
        json: bool,
    },
    Compact {
        to: PathBuf,
    },
}

impl From<TaskFlags> for ServerTask {
    fn from(flags: TaskFlags) -> ServerTask {
        match flags {
            TaskFlags::Garages(GaragesFlags::List { json }) => ServerTask::ListGarages { json },
            TaskFlags::Garages(GaragesFlags::Adopt { name }) => {
                ServerTask::Command(Intent::Adopt { garage: name })
            }
            TaskFlags::Garages(GaragesFlags::Rename { old, new }) => {
                ServerTask::Command(Intent::Rename { garage: old, to: new })
            }
            TaskFlags::Garages(GaragesFlags::Decommission { name, undo }) => {
                ServerTask::Command(Intent::Decommission { garage: name, undo })
            }
            TaskFlags::Garages(GaragesFlags::Capacity { name, spaces, as_told: _ }) => {
                ServerTask::Command(Intent::Capacity { garage: name, spaces })
            }
            TaskFlags::Quarantine(QuarantineFlags::List { after, limit, json }) => {
                ServerTask::ListQuarantine { after, limit: limit as usize, json }
            }
            TaskFlags::Quarantine(QuarantineFlags::Release { place }) => {
                ServerTask::Command(Intent::Release { place })
            }
            TaskFlags::Quarantine(QuarantineFlags::Discard { place, reason }) => {
                ServerTask::Command(Intent::Discard { place, reason })
            }
            TaskFlags::Tariffs(TariffsFlags::Check { file }) => ServerTask::CheckTariffs { file },
            TaskFlags::Tariffs(TariffsFlags::Price { garage, entry, exit, json }) => {
                ServerTask::PriceStay { garage, entry, exit, json }
            }
            TaskFlags::Tariffs(TariffsFlags::Apply) => ServerTask::Books(BooksTask::ApplyTariffs),
            TaskFlags::Tariffs(TariffsFlags::Show) => ServerTask::Books(BooksTask::ShowTariffs),
            TaskFlags::Plates(flags) => flags.into(),
            TaskFlags::Contracts(flags) => flags.into(),
            TaskFlags::Charges(flags) => flags.into(),
            TaskFlags::Statements(flags) => flags.into(),
            TaskFlags::Journal(flags) => flags.into(),
            TaskFlags::Stays(flags) => flags.into(),
            TaskFlags::Forget { plate } => ServerTask::Command(Intent::Forget { plate: plate.to_string() }),
            TaskFlags::Compact { to } => ServerTask::Compact { to },
            TaskFlags::Verify { json } => ServerTask::Verify { json },
            TaskFlags::Explain { code } => ServerTask::Explain { code },
            TaskFlags::Refold => ServerTask::Refold,
            TaskFlags::Backup { to, json } => ServerTask::Backup { to, json },
        }
    }
}

/// What a command line asks for, with the settings for it.
#[derive(Debug)]
pub struct ServerCall {
    pub config: ServerConfig,
    pub task: ServerTask,
}

impl ServerCall {
    /// `args` as a program gets them, its name first.
    pub fn from_args(args: Vec<OsString>) -> Result<ServerCall, ConfigError> {
        let flags = Flags::try_parse_from(args)?;
        let task = flags.task.map_or(ServerTask::Serve, ServerTask::from);
        let path = match &task {
            // What is wrong with a configuration file can be explained.
            ServerTask::Explain { .. } => None,
            ServerTask::CheckTariffs { file } => Some(file),
            ServerTask::PriceStay { entry, exit, .. } if exit < entry => {
                let reason = format!("{exit} is before the entry at {entry}");
                return Err(ConfigError::Setting { setting: "--exit", reason });
            }
            ServerTask::PriceStay { .. } if flags.config.is_none() => {
                let reason = "it is missing. Give the file that holds the tariffs".into();
                return Err(ConfigError::Setting { setting: "--config", reason });
            }
            _ => flags.config.as_ref(),
        };
        if let ServerTask::CheckTariffs { file } = &task {
            file::read_for_edge(Some(file))?; // a person who checks a file wants to see every mistake in it
        }
        let config = ServerConfig::new(flags.settings, path.map(PathBuf::as_path))?;
        Ok(ServerCall { config, task })
    }
}

#[cfg(test)]
mod tests {
    use super::books_flags::Format;
    use super::*;
    use crate::server::books::Whose;
    use std::path::Path;

    fn call(args: &[&str]) -> Result<ServerCall, ConfigError> {
        ServerCall::from_args(["server"].iter().chain(args).map(OsString::from).collect())
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        let ServerCall { config, task } = call(&[]).unwrap();
        assert_eq!(task, ServerTask::Serve);
        assert_eq!(config.data_dir, Path::new("data/server"));
    }

    #[test]
    fn the_data_directory_is_given_before_or_after_a_subcommand() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\ndata_dir = \"d\"\n").unwrap();
        let file = file.path().to_str().unwrap();
        for args in [
            &["--data-dir", "d", "garages", "list"][..],
            &["garages", "--data-dir", "d", "list"],
            &["garages", "list", "--data-dir", "d"],
            &["garages", "list", "--config", file],
            &["--config", file, "garages", "list"],
        ] {
            let ServerCall { config, task } = call(args).unwrap();
            assert_eq!(config.data_dir, Path::new("d"), "{args:?}");
            assert_eq!(task, ServerTask::ListGarages { json: false }, "{args:?}");
        }
    }

    #[test]
    fn what_the_file_says_of_retention_is_switched_off_by_a_flag() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let days = |content: &str, args: &[&str]| {
            std::fs::write(file.path(), format!("[server]\n{content}\n")).unwrap();
            call(&[&["--config", path], args].concat()).unwrap().config.retention_days
        };
        assert_eq!(days("retention_days = 365", &[]), Some(365));
        assert_eq!(days("retention_days = 365", &["--retention-days", "7"]), Some(7));
        assert_eq!(days("retention_days = 365", &["--retention-days", "never"]), None);
        assert_eq!(days("retention_days = \"never\"", &[]), None);
        assert_eq!(days("retention_days = \"never\"", &["--retention-days", "36500"]), Some(36_500));
    }

    #[test]
    fn nothing_has_to_be_set() {
        let ServerCall { config, task } = call(&[]).unwrap();
        assert_eq!((&task, config.data_dir.as_path()), (&ServerTask::Serve, Path::new("data/server")));
        assert_eq!(config.listen.to_string(), "tcp://127.0.0.1:5555");
        assert_eq!(config.http.to_string(), "127.0.0.1:5580");
    }

    #[test]
    fn commands_are_read_as_they_are_meant() {
        let garage = || SiteName::new("a").unwrap();
        let command = |args: &[&str]| match call(args).unwrap().task {
            ServerTask::Command(intent) => intent,
            other => panic!("{other:?}"),
        };
        let spaces = |spaces| Intent::Capacity { garage: garage(), spaces };
        assert_eq!(command(&["garages", "capacity", "a", "30"]), spaces(Some(30)));
        assert_eq!(command(&["garages", "capacity", "a", "--as-told"]), spaces(None));
        let undo = Intent::Decommission { garage: garage(), undo: true };
        assert_eq!(command(&["garages", "decommission", "a", "--undo"]), undo);
        let place = QuarantinePlace { position: 17, index: Some(3) };
        assert_eq!(command(&["quarantine", "release", "17.3"]), Intent::Release { place });
    }

    #[test]
    fn tariffs_come_from_the_file_that_is_named() {
        let tariffs = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tariffs.toml");
        let checked = call(&["tariffs", "check", tariffs]).unwrap();
        assert_eq!(checked.task, ServerTask::CheckTariffs { file: tariffs.into() });
        let serving = call(&["--config", tariffs]).unwrap();
        assert_eq!((serving.task, &serving.config.tariffs), (ServerTask::Serve, &checked.config.tariffs));
        assert!(!serving.config.tariffs.is_empty() && call(&[]).unwrap().config.tariffs.is_empty());
        let price = ["tariffs", "price", "--garage", "a", "--entry", "2026-01-01T00:00:00Z", "--exit"];
        for (exit, part) in [
            ("2026-01-01T00:00:00", "an offset"),
            ("2025-12-31T23:59:59Z", "--exit"),
            ("2026-01-01T00:00:00Z", "--config"),
        ] {
            let error = call(&[&price[..], &[exit]].concat()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_books_of_money_are_asked_for_as_it_is_meant() {
        let books = |args: &[&str]| match call(args).unwrap().task {
            ServerTask::Books(task) => task,
            other => panic!("{other:?}"),
        };
        let month = "2026-11".parse().unwrap();
        let account = || Whose::Account("BB1".into());
        let show = |whose| BooksTask::ShowStatement { whose, month, format: Format::Text };
        let args = ["statements", "show", "BB1", "--month", "2026-11"];
        assert_eq!(books(&args), show(vec![account(), Whose::Plate("BB1".into())]));
        assert_eq!(books(&[&args[..], &["--of", "account"]].concat()), show(vec![account()]));
        let export = ["statements", "export", "--month", "2026-11", "--out", "d"];
        let exports = |formats: &[Format]| {
            let formats = formats.to_vec();
            BooksTask::ExportStatements { month, out: "d".into(), formats, json: false }
        };
        assert_eq!(books(&export), exports(&[Format::Text, Format::Json, Format::Csv, Format::Html]));
        let some = [&export[..], &["--format", "html", "--format", "csv"]].concat();
        assert_eq!(books(&some), exports(&[Format::Html, Format::Csv]));
        let charge = "Bull Ring/d5947e0f-1414-4ac6-8009-21147bb78df6/623";
        let credit = ["charges", "credit", charge, "--amount", "150", "--reason", "x"];
        let expected = Intent::Credit { charge: charge.parse().unwrap(), amount: 150, reason: "x".into() };
        assert_eq!(call(&credit).unwrap().task, ServerTask::Command(expected));
        let remove = call(&["plates", "remove", "b-ab 1"]).unwrap().task;
        assert_eq!(remove, ServerTask::Command(Intent::RemovePlate { plate: "BAB1".into() }));
    }

    #[test]
    fn bad_commands_are_refused_by_name() {
        for (args, part) in [
            (&["garages"][..], "list"),
            (&["garages", "capacity", "a"], "SPACES"),
            (&["garages", "capacity", "a", "--", "-1"], "SPACES"),
            (&["garages", "capacity", "a", "3", "--as-told"], "--as-told"),
            (&["garages", "rename", "a", ""], "NEW"),
            (&["quarantine", "discard", "17"], "--reason"),
            (&["quarantine", "release", "17.64"], "17.64"),
            (&["quarantine", "release", "x"], "a place looks like"),
            (&["backup"], "DIR"),
            (&["tariffs", "price"], "--garage"),
            (&["tariffs", "check", "/nonexistent"], "/nonexistent"),
            (&["start"], "start"),
        ] {
            let error = call(args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
