//! The settings of `edge`.

use super::file::{self, EdgeTable};
use super::ranges::{AtLeastOne, BoardIntervalMs, NotEmpty};
use super::{CarsPerHour, ConfigError};

use crate::messaging::LedgerId;
use crate::messaging::SiteName;
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keeps the events of one garage on disk until the server has them.
#[derive(Debug, Parser)]
#[command(name = "edge", version, about, max_term_width = 100)]
struct Flags {
    /// The garage's name: 1 to 64 bytes of printable UTF-8
    #[arg(long, global = true, value_name = "NAME", env = "FOGPOST_GARAGE_NAME", allow_hyphen_values = true)]
    garage_name: Option<SiteName>,
    /// Where events are kept [default: data/edge-NAME]
    #[arg(long, global = true, value_name = "DIR", env = "FOGPOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// A way to the server, tcp://HOST:PORT; repeat it in order of preference [default: tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS", env = "FOGPOST_SERVER", value_delimiter = ',')]
    server: Option<Vec<ServerAddress>>,
    /// Where producers post and people look [default: the first free port from 127.0.0.1:5581]
    #[arg(long, value_name = "ADDR:PORT", env = "FOGPOST_HTTP")]
    http: Option<SocketAddr>,
    /// How many spaces the garage has [default: 500]
    #[arg(long, value_name = "SPACES", env = "FOGPOST_CAPACITY")]
    capacity: Option<u32>,
    /// Make up so many cars an hour, to try it out without a camera [default: none]
    #[arg(long, value_name = "CARS_PER_HOUR", env = "FOGPOST_SIMULATE")]
    simulate: Option<CarsPerHour>,
    /// How often the board of the city is asked for, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS", env = "FOGPOST_BOARD_INTERVAL_MS")]
    board_interval_ms: Option<BoardIntervalMs>,
    /// How many events may wait; beyond it producers are refused (507) [default: 10000000]
    #[arg(long, value_name = "EVENTS", env = "FOGPOST_MAX_EVENTS")]
    max_events: Option<AtLeastOne>,
    /// How many bytes what waits may take; beyond it producers are refused (507) [default: 4294967296]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_MAX_BYTES")]
    max_bytes: Option<AtLeastOne>,
    /// How much of the disk is kept free; below it producers are refused (507) [default: 64 MB, or 5 % of a smaller disk]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_RESERVE_BYTES")]
    reserve_bytes: Option<u64>,
    /// Which machine this is, for those without /etc/machine-id: any text [default: what stands there]
    #[arg(long, value_name = "ID", env = "FOGPOST_MACHINE_ID", allow_hyphen_values = true)]
    machine_id: Option<NotEmpty>,
    /// How logs are written [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT", env = "FOGPOST_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// A configuration file; its table [edge] is read
    #[arg(long, global = true, value_name = "FILE", env = "FOGPOST_CONFIG")]
    config: Option<PathBuf>,
    /// Without one of these the edge runs until it is stopped
    #[command(subcommand)]
    task: Option<TaskFlags>,
}

/// What to do instead of running, as it is written on a command line.
#[derive(Debug, Subcommand)]
enum TaskFlags {
    /// Look at what waits to be delivered. Changes nothing, whether the edge runs or not
    #[command(subcommand)]
    Outbox(OutboxFlags),
    /// Decide which ledger this garage delivers to
    #[command(subcommand)]
    Ledger(LedgerFlags),
}

#[derive(Debug, Subcommand)]
enum OutboxFlags {
    /// How much waits, since when, and for which ledger
    Status {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Show the oldest events that wait, a JSON object a line
    Peek {
        /// At most so many
        #[arg(long, value_name = "EVENTS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Print all events that wait, a JSON object a line
    Export,
    /// Read everything, and say what is wrong; ends with 0 when nothing is
    Verify {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum LedgerFlags {
    /// Deliver to this ledger from now on, and to no other: the one before it is lost for good
    Adopt {
        #[arg(value_name = "ID")]
        ledger: LedgerId,
    },
}

/// What an edge program is to do instead of running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeTask {
    Status { json: bool },
    Peek { limit: usize },
    Export,
    Verify { json: bool },
    Adopt { ledger: LedgerId },
}

impl From<TaskFlags> for EdgeTask {
    fn from(flags: TaskFlags) -> EdgeTask {
        match flags {
            TaskFlags::Outbox(OutboxFlags::Status { json }) => EdgeTask::Status { json },
            TaskFlags::Outbox(OutboxFlags::Peek { limit }) => EdgeTask::Peek { limit: limit.into() },
            TaskFlags::Outbox(OutboxFlags::Export) => EdgeTask::Export,
            TaskFlags::Outbox(OutboxFlags::Verify { json }) => EdgeTask::Verify { json },
            TaskFlags::Ledger(LedgerFlags::Adopt { ledger }) => EdgeTask::Adopt { ledger },
        }
    }
}

/// What a command line asks for.
#[derive(Debug, Clone)]
pub enum EdgeCall {
    Run(Box<EdgeConfig>),
    Task { data_dir: PathBuf, task: EdgeTask },
}

/// The checked settings of an edge.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    pub garage_name: SiteName,
    pub data_dir: PathBuf,
    pub servers: Vec<ServerAddress>,
    /// `None`: the first free port from 127.0.0.1:5581.
    pub http: Option<SocketAddr>,
    pub capacity: u32,
    /// How many cars an hour to make up.
    pub simulate: Option<CarsPerHour>,
    pub board_interval: Duration,
    pub max_events: u64,
    pub max_bytes: u64,
    /// `None`: the smaller of 64 MB and 5 % of the filesystem.
    pub reserve_bytes: Option<u64>,
    /// `None`: that of /etc/machine-id.
    pub machine_id: Option<String>,
    pub log_format: LogFormat,
}

impl EdgeCall {
    /// `args` as a program gets them, its name first.
    pub fn from_args(args: Vec<OsString>) -> Result<EdgeCall, ConfigError> {
        let mut flags: Flags = super::parse(args)?;
        let table = file::read_for_edge(flags.config.as_deref())?;
        let Some(task) = flags.task.take() else {
            return EdgeConfig::new(flags, table).map(|config| EdgeCall::Run(Box::new(config)));
        };
        let name = flags.garage_name.or(table.garage_name);
        let data_dir = flags.data_dir.or(table.data_dir).or_else(|| name.as_ref().map(default_data_dir));
        let data_dir = data_dir.ok_or(ConfigError::Setting {
            setting: "--data-dir",
            reason: "it is missing. Give the directory of the edge, or its --garage-name".into(),
        })?;
        Ok(EdgeCall::Task { data_dir, task: task.into() })
    }
}

impl EdgeConfig {
    fn new(flags: Flags, table: EdgeTable) -> Result<EdgeConfig, ConfigError> {
        let garage_name = flags.garage_name.or(table.garage_name).ok_or(ConfigError::Setting {
            setting: "--garage-name",
            reason: "it is missing. Give the name of this garage, such as --garage-name 1".into(),
        })?;
        let servers = match flags.server.or(table.server) {
            Some(servers) if servers.is_empty() => {
                return Err(ConfigError::Setting { setting: "--server", reason: "the list is empty".into() });
            }
            Some(servers) => servers,
            None => vec!["tcp://127.0.0.1:5555".parse().expect("it is an address")],
        };
        if let Some(nowhere) = servers.iter().find(|server| server.host_and_port().ends_with(":0")) {
            return Err(ConfigError::Setting {
                setting: "--server",
                reason: format!("{nowhere} has port 0, where nobody can be reached"),
            });
        }
        let at_least_one = |given: Option<AtLeastOne>, default| given.map_or(default, AtLeastOne::get);
        let board_interval_ms = flags.board_interval_ms.or(table.board_interval_ms);
        Ok(EdgeConfig {
            data_dir: flags.data_dir.or(table.data_dir).unwrap_or_else(|| default_data_dir(&garage_name)),
            garage_name,
            servers,
            http: flags.http.or(table.http),
            capacity: flags.capacity.or(table.capacity).unwrap_or(500),
            simulate: flags.simulate.or(table.simulate),
            board_interval: Duration::from_millis(board_interval_ms.map_or(1000, BoardIntervalMs::get)),
            max_events: at_least_one(flags.max_events.or(table.max_events), 10_000_000),
            max_bytes: at_least_one(flags.max_bytes.or(table.max_bytes), 4 << 30),
            reserve_bytes: flags.reserve_bytes.or(table.reserve_bytes),
            machine_id: flags.machine_id.or(table.machine_id).map(|id| id.to_string()),
            log_format: flags.log_format.or(table.log_format).unwrap_or_else(LogFormat::default_here),
        })
    }
}

/// A name may hold what a path gives a meaning to; such characters are written as `%` and their bytes, so that two
/// names never share a directory.
fn default_data_dir(garage: &SiteName) -> PathBuf {
    let mut name = String::from("edge-");
    for c in garage.as_str().chars() {
        if matches!(c, '/' | '\\' | '%') {
            name.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            name.push(c);
        }
    }
    Path::new("data").join(name)
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
                EdgeCall::Task { data_dir, task } => Ok((data_dir, task)),
                run => panic!("{run:?}"),
            }
        };
        let (dir, peek) = task(&["outbox", "peek", "--limit", "3", "--data-dir", "g1"]).unwrap();
        assert_eq!((dir, peek), (PathBuf::from("g1"), EdgeTask::Peek { limit: 3 }));
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
