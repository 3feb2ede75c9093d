//! The settings of the daemons. A flag overrides the environment, the environment overrides the file, and the file overrides the
//! default. All settings are typed and checked before anything is opened.

/// The value of each setting from the first source that gives it.
macro_rules! first_given {
    ($first:expr, $second:expr; $Settings:ident { $($name:ident),* $(,)? }) => {
        $Settings { $($name: $first.$name.or($second.$name)),* }
    };
}

mod cars_per_hour;
mod edge;
mod file;
pub mod ranges;
mod server;

pub use cars_per_hour::CarsPerHour;
pub use edge::{EdgeConfig, EdgeSettings};
pub use server::{ServerConfig, ServerSettings};

use crate::codes::{self, Code, Coded};
use crate::parking::tariff::TariffError;
use std::path::PathBuf;

// The headings of `--help`, which are the same for both daemons.
const GLOBAL: &str = "Global options";
const NETWORK: &str = "Network options";
const GARAGE: &str = "Garage options";
const STORAGE: &str = "Storage options";

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
