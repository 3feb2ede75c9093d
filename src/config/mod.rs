//! Settings: flag, environment, file, default, in this order; typed and checked before anything is opened.

pub mod books;
mod cars_per_hour;
pub mod edge;
pub mod file;
pub mod ranges;
pub mod server;
mod stays;

pub use books::BooksTask;
pub use cars_per_hour::CarsPerHour;
pub use edge::{EdgeCall, EdgeConfig, EdgeTask};
pub use server::{ServerConfig, ServerTask};

use crate::parking::tariff::TariffError;
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;

/// Why a program does not start, or does nothing but answer. Nothing was opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag that clap refuses, or `--help` and `--version`.
    #[error("{0}")]
    CommandLine(#[from] clap::Error),
    #[error("cannot read the configuration file {path:?}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path:?} is not valid:\n{reason}")]
    Invalid { path: PathBuf, reason: String },
    #[error("the configuration file {path:?} has tariffs that are not valid:{}", listed(.errors))]
    Tariffs { path: PathBuf, errors: Vec<TariffError> },
    #[error("the setting {setting} is not valid: {reason}")]
    Setting { setting: &'static str, reason: String },
}

/// Parses a command line, leaving it to the caller to print and exit.
fn parse<T: Parser>(args: Vec<OsString>) -> Result<T, ConfigError> {
    Ok(T::try_parse_from(args)?)
}

/// Each on a line of its own.
fn listed(errors: &[TariffError]) -> String {
    errors.iter().map(|error| format!("\n{error}")).collect()
}
