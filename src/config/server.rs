//! The settings of `server`.

use super::ConfigError;
use super::books::{BooksTask, ChargesFlags, ContractsFlags, JournalFlags, PlatesFlags, StatementsFlags};
use super::file::{self, ServerFile};
use super::ranges::Retention;
use super::stays::StaysFlags;
use crate::messaging::SiteName;
use crate::parking::moment::MomentError;
use crate::parking::statement::Operator;
use crate::parking::tariff::TariffSet;
use crate::parking::{Moment, Plate};
use crate::server::commands::Intent;
use crate::server::record::QuarantinePlace;
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Applies the events of every garage exactly once, and knows the occupancy of the city.
#[derive(Debug, Parser)]
#[command(name = "server", version, about, max_term_width = 100)]
struct Flags {
    /// Where the ledger is kept [default: data/server]
    #[arg(long, global = true, value_name = "DIR", env = "FOGPOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where edges connect [default: tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS", env = "FOGPOST_LISTEN")]
    listen: Option<ServerAddress>,
    /// Where people and programs look [default: 127.0.0.1:5580]
    #[arg(long, value_name = "ADDR:PORT", env = "FOGPOST_HTTP")]
    http: Option<SocketAddr>,
    /// How much of the disk is kept free; below it edges keep their events [default: 64 MB, or 5 % of a smaller disk]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_RESERVE_BYTES")]
    reserve_bytes: Option<u64>,
    /// Stays that were charged lose their plates this many days after the month of their exit: 1 to 36500, or "never" [default: never]
    #[arg(long, value_name = "DAYS", env = "FOGPOST_RETENTION_DAYS")]
    retention_days: Option<Retention>,
    /// How logs are written [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT", env = "FOGPOST_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// A configuration file; its tables [server] and [operator] and its tariffs are read
    #[arg(long, global = true, value_name = "FILE", env = "FOGPOST_CONFIG")]
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
            TaskFlags::Refold => ServerTask::Refold,
            TaskFlags::Backup { to, json } => ServerTask::Backup { to, json },
        }
    }
}

/// The checked settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `None`: serve.
    pub data_dir: PathBuf,
    pub listen: ServerAddress,
    pub http: SocketAddr,
    /// `None`: the smaller of 64 MB and 5 % of the filesystem.
    pub reserve_bytes: Option<u64>,
    /// `None`: plates are kept.
    pub retention_days: Option<u32>,
    pub log_format: LogFormat,
    /// All of the file's tariffs; empty without a file.
    pub tariffs: TariffSet,
    /// Who sends statements; without a name when the file does not say.
    pub operator: Operator,
    pub task: ServerTask,
}

impl ServerConfig {
    /// `args` as a program gets them, its name first.
    pub fn from_args(args: Vec<OsString>) -> Result<ServerConfig, ConfigError> {
        let flags: Flags = super::parse(args)?;
        let task = flags.task.map_or(ServerTask::Serve, ServerTask::from);
        let path = match &task {
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
            file::read_for_edge(Some(file))?; // who checks a file wants to hear of all that is wrong in it
        }
        let ServerFile { server: table, tariffs, operator, .. } =
            file::read_for_server(path.map(PathBuf::as_path))?;
        Ok(ServerConfig {
            data_dir: flags.data_dir.or(table.data_dir).unwrap_or_else(|| "data/server".into()),
            listen: flags
                .listen
                .or(table.listen)
                .unwrap_or_else(|| "tcp://127.0.0.1:5555".parse().expect("it is an address")),
            http: flags.http.or(table.http).unwrap_or_else(|| ([127, 0, 0, 1], 5580).into()),
            reserve_bytes: flags.reserve_bytes.or(table.reserve_bytes),
            retention_days: match flags.retention_days.or(table.retention_days) {
                Some(Retention::Days(days)) => Some(days),
                Some(Retention::Forever) | None => None,
            },
            log_format: flags.log_format.or(table.log_format).unwrap_or_else(LogFormat::default_here),
            tariffs,
            operator: operator.0,
            task,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::books::Format;
    use super::*;
    use crate::server::books::Whose;
    use std::path::Path;

    fn config(args: &[&str]) -> Result<ServerConfig, ConfigError> {
        ServerConfig::from_args(["server"].iter().chain(args).map(OsString::from).collect())
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        let config = config(&[]).unwrap();
        assert_eq!(config.task, ServerTask::Serve);
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
            let config = config(args).unwrap();
            assert_eq!(config.data_dir, Path::new("d"), "{args:?}");
            assert_eq!(config.task, ServerTask::ListGarages { json: false }, "{args:?}");
        }
    }

    #[test]
    fn what_the_file_says_of_retention_is_switched_off_by_a_flag() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let days = |content: &str, args: &[&str]| {
            std::fs::write(file.path(), format!("[server]\n{content}\n")).unwrap();
            config(&[&["--config", path], args].concat()).unwrap().retention_days
        };
        assert_eq!(days("retention_days = 365", &[]), Some(365));
        assert_eq!(days("retention_days = 365", &["--retention-days", "7"]), Some(7));
        assert_eq!(days("retention_days = 365", &["--retention-days", "never"]), None);
        assert_eq!(days("retention_days = \"never\"", &[]), None);
        assert_eq!(days("retention_days = \"never\"", &["--retention-days", "36500"]), Some(36_500));
    }

    #[test]
    fn nothing_has_to_be_set() {
        let config = config(&[]).unwrap();
        assert_eq!((&config.task, config.data_dir.as_path()), (&ServerTask::Serve, Path::new("data/server")));
        assert_eq!(config.listen.to_string(), "tcp://127.0.0.1:5555");
        assert_eq!(config.http.to_string(), "127.0.0.1:5580");
    }

    #[test]
    fn commands_are_read_as_they_are_meant() {
        let garage = || SiteName::new("a").unwrap();
        let command = |args: &[&str]| match config(args).unwrap().task {
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
        let checked = config(&["tariffs", "check", tariffs]).unwrap();
        assert_eq!(checked.task, ServerTask::CheckTariffs { file: tariffs.into() });
        let serving = config(&["--config", tariffs]).unwrap();
        assert_eq!((serving.task, &serving.tariffs), (ServerTask::Serve, &checked.tariffs));
        assert!(!serving.tariffs.is_empty() && config(&[]).unwrap().tariffs.is_empty());
        let price = ["tariffs", "price", "--garage", "a", "--entry", "2026-01-01T00:00:00Z", "--exit"];
        for (exit, part) in [
            ("2026-01-01T00:00:00", "an offset"),
            ("2025-12-31T23:59:59Z", "--exit"),
            ("2026-01-01T00:00:00Z", "--config"),
        ] {
            let error = config(&[&price[..], &[exit]].concat()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_books_of_money_are_asked_for_as_it_is_meant() {
        let books = |args: &[&str]| match config(args).unwrap().task {
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
        assert_eq!(config(&credit).unwrap().task, ServerTask::Command(expected));
        let remove = config(&["plates", "remove", "b-ab 1"]).unwrap().task;
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
            let error = config(args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
