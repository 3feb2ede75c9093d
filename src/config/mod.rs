//! The settings of the daemons. A flag overrides the environment, the environment overrides the file, and the file overrides the
//! default. All settings are typed and checked before anything is opened.

/// The value of each setting from the first source that gives it.
macro_rules! first_given {
    ($first:expr, $second:expr; $Settings:ident { $($name:ident),* $(,)? }) => {
        $Settings { $($name: $first.$name.or($second.$name)),* }
    };
}

mod alarms;
mod edge;
mod file;
mod garages;
mod http;
pub mod ranges;
mod server;
mod tls;

pub use self::http::{AddressRange, HostName, HttpConfig};
pub use alarms::{AlarmThresholds, Channel, EmailConfig, NotifyConfig, Period, SmtpTls, WebhookUrl};
pub use edge::{EdgeConfig, EdgeSettings};
pub use file::{FileStamp, stamp};
pub use garages::{GarageTable, GaragesReload, LiveGarages};
pub use ranges::CarsPerHour;
pub use server::{ServerConfig, ServerSettings};
pub use tls::warn_of_plaintext;

use crate::codes::{self, Code, Coded};

// The headings of `--help`, which are the same for both daemons.
const GLOBAL: &str = "Global options";
const NETWORK: &str = "Network options";
const TLS: &str = "TLS options";
const GARAGE: &str = "Garage options";
const STORAGE: &str = "Storage options";

/// Why a program does not start, or only prints an answer. Nothing was opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag that clap refuses, or `--help` and `--version`.
    #[error("{0}")]
    CommandLine(#[from] clap::Error),
    #[error("{1}")]
    Refused(Code, String),
}

impl ConfigError {
    /// A setting, by the name of its flag, that cannot be used for this reason.
    pub fn setting(flag: &str, reason: &str) -> ConfigError {
        ConfigError::Refused(codes::INVALID_SETTING, format!("the setting {flag} is not valid: {reason}"))
    }
}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        match self {
            ConfigError::CommandLine(_) => codes::INVALID_COMMAND_LINE,
            ConfigError::Refused(code, _) => *code,
        }
    }
}
