//! The settings of `server`.

use super::ConfigError;
use super::file::{self, ServerFile};
use super::ranges::{self, Retention};
use crate::parking::statement::Operator;
use crate::parking::tariff::TariffSet;
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use clap::Args;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The settings of a server as one source gives them: the command line with the environment, or the table `[server]` of a file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Directory of the ledger [default: data/server]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "FOGPOST_DATA_DIR",
        help_heading = "Global options"
    )]
    #[serde(default, deserialize_with = "ranges::path")]
    pub data_dir: Option<PathBuf>,
    /// Format of the log on stderr [default: text on a terminal, else json]
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "FOGPOST_LOG_FORMAT",
        help_heading = "Global options"
    )]
    pub log_format: Option<LogFormat>,
    /// Address to which edges connect, tcp://ADDR:PORT [default: tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS", env = "FOGPOST_LISTEN", help_heading = "Network options")]
    pub listen: Option<ServerAddress>,
    /// HTTP address for people and programs [default: 127.0.0.1:5580]
    #[arg(long, value_name = "ADDR:PORT", env = "FOGPOST_HTTP", help_heading = "Network options")]
    pub http: Option<SocketAddr>,
    /// Disk space to keep free; edges keep their events below it [default: 64 MB, or 5 % of a smaller disk]
    #[arg(long, value_name = "BYTES", env = "FOGPOST_RESERVE_BYTES", help_heading = "Storage options")]
    pub reserve_bytes: Option<u64>,
    /// Days after which charged stays lose their plates, counted from the end of the month of their exit: 1 to 36500, or "never" [default: never]
    #[arg(long, value_name = "DAYS", env = "FOGPOST_RETENTION_DAYS", help_heading = "Storage options")]
    pub retention_days: Option<Retention>,
}

/// The checked settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    pub listen: ServerAddress,
    pub http: SocketAddr,
    /// `None`: the smaller of 64 MB and 5 % of the filesystem.
    pub reserve_bytes: Option<u64>,
    /// `None`: plates are kept.
    pub retention_days: Option<u32>,
    pub log_format: LogFormat,
    /// All tariffs of the file; empty without a file.
    pub tariffs: TariffSet,
    /// The sender of the statements; without a name when the file gives none.
    pub operator: Operator,
}

impl ServerConfig {
    /// `settings`, completed by `file` where they say nothing.
    pub fn new(settings: ServerSettings, file: Option<&Path>) -> Result<ServerConfig, ConfigError> {
        let ServerFile { server: table, tariffs, operator, .. } = file::read_for_server(file)?;
        let listen = settings.listen.or(table.listen);
        let retention_days = settings.retention_days.or(table.retention_days);
        Ok(ServerConfig {
            data_dir: settings.data_dir.or(table.data_dir).unwrap_or_else(|| "data/server".into()),
            listen: listen.unwrap_or_else(|| "tcp://127.0.0.1:5555".parse().expect("it is an address")),
            http: settings.http.or(table.http).unwrap_or_else(|| ([127, 0, 0, 1], 5580).into()),
            reserve_bytes: settings.reserve_bytes.or(table.reserve_bytes),
            retention_days: match retention_days {
                Some(Retention::Days(days)) => Some(days),
                Some(Retention::Forever) | None => None,
            },
            log_format: settings.log_format.or(table.log_format).unwrap_or_else(LogFormat::default_here),
            tariffs,
            operator: operator.0,
        })
    }
}
