//! The settings of `edge`.

use super::{ConfigError, file::ConfigFile};
use crate::messaging::SiteName;
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use clap::Parser;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keeps the events of one garage on disk until the server has them.
#[derive(Debug, Parser)]
#[command(name = "edge", version, about, max_term_width = 100)]
struct Flags {
    /// The garage's name: 1 to 64 bytes of printable UTF-8
    #[arg(long, value_name = "NAME", env = "FOGPOST_GARAGE_NAME")]
    garage_name: Option<SiteName>,
    /// Where events are kept [default: data/edge-NAME]
    #[arg(long, value_name = "DIR", env = "FOGPOST_DATA_DIR")]
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
    /// How often the board of the city is asked for, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS", env = "FOGPOST_BOARD_INTERVAL_MS")]
    board_interval_ms: Option<u64>,
    /// How logs are written [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", env = "FOGPOST_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// A configuration file; its table [edge] is read
    #[arg(long, value_name = "FILE", env = "FOGPOST_CONFIG")]
    config: Option<PathBuf>,
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
    pub board_interval: Duration,
    pub log_format: LogFormat,
}

impl EdgeConfig {
    /// `args` as a program gets them, its name first.
    pub fn from_args(args: Vec<OsString>) -> Result<EdgeConfig, ConfigError> {
        let flags: Flags = super::parse(args)?;
        let table = ConfigFile::read(flags.config.as_deref())?.edge;
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
        let board_interval_ms = flags.board_interval_ms.or(table.board_interval_ms).unwrap_or(1000);
        if !(100..=3_600_000).contains(&board_interval_ms) {
            return Err(ConfigError::Setting {
                setting: "--board-interval-ms",
                reason: format!("{board_interval_ms} is not between 100 and 3600000"),
            });
        }
        Ok(EdgeConfig {
            data_dir: flags.data_dir.or(table.data_dir).unwrap_or_else(|| default_data_dir(&garage_name)),
            garage_name,
            servers,
            http: flags.http.or(table.http),
            capacity: flags.capacity.or(table.capacity).unwrap_or(500),
            board_interval: Duration::from_millis(board_interval_ms),
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
        EdgeConfig::from_args(args)
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
            (&["--garage-name", "a", "--colour"], "--colour"),
            (&["--garage-name", "a", "--config", "/nonexistent"], "/nonexistent"),
        ] {
            let error = config(args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
