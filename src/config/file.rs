//! The configuration file: one TOML file for all programs, each reading and checking its own tables.

use super::ConfigError;
use crate::codes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file as one program reads it. An unknown key is an error: a misspelt one would silently do nothing. A table of another
/// program is [`IgnoredAny`], which is not checked: a mistake in a tariff is no reason not to start a garage.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile<E, S, O> {
    #[serde(default)]
    pub edge: E,
    #[serde(default)]
    pub server: S,
    #[serde(default)]
    pub operator: O,
    // These are read separately: alarms and receivers by the server alone, tariffs so that each mistake is reported with its line.
    #[serde(default, rename = "alarms")]
    _alarms: IgnoredAny,
    #[serde(default, rename = "notify")]
    _notify: IgnoredAny,
    #[serde(default, rename = "calendar")]
    _calendar: IgnoredAny,
    #[serde(default, rename = "tariff")]
    _tariff: IgnoredAny,
    #[serde(default, rename = "garage")]
    _garage: IgnoredAny,
}

/// The text of the file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        let reason = format!("cannot read the configuration file {path:?}: {error}");
        ConfigError::Refused(codes::CONFIGURATION_UNREADABLE, reason)
    })
}

/// Reads the text of the file at `path`.
pub fn parse<File: DeserializeOwned>(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let reason = format!("the configuration file {path:?} is not valid:\n{error}");
        ConfigError::Refused(codes::CONFIGURATION_INVALID, reason)
    })
}

/// What tells whether a file changed: modification time, length and number. `None`: there is none.
pub type FileStamp = Option<(i64, i64, u64, u64)>;

pub fn stamp(path: &Path) -> FileStamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
}
