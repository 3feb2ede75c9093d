//! The settings of the daemons. A flag overrides the environment, the environment overrides the file, and the file overrides the
//! default. All settings are typed and checked before anything is opened.

mod cars_per_hour;
mod edge;
pub mod file;
pub mod ranges;
mod server;

pub use cars_per_hour::CarsPerHour;
pub use edge::{EdgeConfig, EdgeSettings};
pub use server::{ServerConfig, ServerSettings};

use crate::codes::{self, Code, Coded};
use crate::parking::tariff::TariffError;
use std::path::PathBuf;

/// Why a program does not start, or only prints an answer. Nothing was opened or changed.
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

impl Coded for ConfigError {
    fn code(&self) -> Code {
        match self {
            ConfigError::CommandLine(_) => codes::INVALID_COMMAND_LINE,
            ConfigError::Unreadable { .. } => codes::CONFIGURATION_UNREADABLE,
            ConfigError::Invalid { .. } => codes::CONFIGURATION_INVALID,
            ConfigError::Tariffs { .. } => codes::TARIFFS_INVALID,
            ConfigError::Setting { .. } => codes::INVALID_SETTING,
        }
    }
}

/// Writes each problem on a line of its own.
fn listed(errors: &[TariffError]) -> String {
    errors.iter().map(|error| format!("\n{error}")).collect()
}
