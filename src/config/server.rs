//! The settings of `server`.

use super::{ConfigError, file::ConfigFile};
use crate::telemetry::LogFormat;
use crate::transport::ServerAddress;
use clap::Parser;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Applies the events of every garage exactly once, and knows the occupancy of the city.
#[derive(Debug, Parser)]
#[command(name = "server", version, about, max_term_width = 100)]
struct Flags {
    /// Where the ledger is kept [default: data/server]
    #[arg(long, value_name = "DIR", env = "FOGPOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where edges connect [default: tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS", env = "FOGPOST_LISTEN")]
    listen: Option<ServerAddress>,
    /// Where people and programs look [default: 127.0.0.1:5580]
    #[arg(long, value_name = "ADDR:PORT", env = "FOGPOST_HTTP")]
    http: Option<SocketAddr>,
    /// How logs are written [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", env = "FOGPOST_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// A configuration file; its table [server] is read
    #[arg(long, value_name = "FILE", env = "FOGPOST_CONFIG")]
    config: Option<PathBuf>,
}

/// The checked settings of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    pub listen: ServerAddress,
    pub http: SocketAddr,
    pub log_format: LogFormat,
}

impl ServerConfig {
    /// `args` as a program gets them, its name first.
    pub fn from_args(args: Vec<OsString>) -> Result<ServerConfig, ConfigError> {
        let flags: Flags = super::parse(args)?;
        let table = ConfigFile::read(flags.config.as_deref())?.server;
        Ok(ServerConfig {
            data_dir: flags.data_dir.or(table.data_dir).unwrap_or_else(|| "data/server".into()),
            listen: flags
                .listen
                .or(table.listen)
                .unwrap_or_else(|| "tcp://127.0.0.1:5555".parse().expect("it is an address")),
            http: flags.http.or(table.http).unwrap_or_else(|| ([127, 0, 0, 1], 5580).into()),
            log_format: flags.log_format.or(table.log_format).unwrap_or_else(LogFormat::default_here),
        })
    }
}
