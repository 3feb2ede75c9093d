//! The configuration file: one TOML file for all programs, each reading and checking its own tables.

use super::{ConfigError, EdgeSettings, ServerSettings};
use crate::parking::statement::Operator;
use crate::parking::tariff::TariffSet;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::path::Path;

/// What `edge` reads of the file. An unknown key is an error: a misspelt one would silently do nothing. The tables of other
/// programs are not checked: a mistake in a tariff is no reason not to start a garage.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeFile {
    #[serde(default)]
    edge: EdgeSettings,
    #[serde(default, rename = "server")]
    _server: IgnoredAny,
    #[serde(default, rename = "operator")]
    _operator: IgnoredAny,
    #[serde(default, rename = "calendar")]
    _calendar: IgnoredAny,
    #[serde(default, rename = "tariff")]
    _tariff: IgnoredAny,
}

/// What `server` reads of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    #[serde(default, rename = "edge")]
    _edge: IgnoredAny,
    #[serde(default)]
    pub server: ServerSettings,
    #[serde(default)]
    pub operator: OperatorTable,
    #[serde(default, rename = "calendar")]
    _calendar: IgnoredAny,
    #[serde(default, rename = "tariff")]
    _tariff: IgnoredAny,
    /// The content of `[[calendar]]` and `[[tariff]]`. They are read separately, so that each mistake in them is reported with
    /// its line.
    #[serde(skip)]
    pub tariffs: TariffSet,
}

/// `[operator]`: who sends the statements.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "OperatorKeys")]
pub struct OperatorTable(pub Operator);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorKeys {
    name: Option<String>,
    #[serde(default)]
    address: Vec<String>,
    vat_id: Option<String>,
}

impl TryFrom<OperatorKeys> for OperatorTable {
    type Error = String;
    fn try_from(OperatorKeys { name, address, vat_id }: OperatorKeys) -> Result<OperatorTable, String> {
        let texts = name.iter().chain(&address).chain(&vat_id);
        if let Some(text) =
            texts.clone().find(|text| text.trim().is_empty() || text.chars().any(char::is_control))
        {
            return Err(format!(
                "in [operator] {text:?} is empty, or more than one line; address is a list of lines"
            ));
        }
        if name.is_none() && texts.count() > 0 {
            return Err("in [operator] the name is missing: a statement begins with it".into());
        }
        Ok(OperatorTable(Operator { name: name.unwrap_or_default(), address, vat_id }))
    }
}

/// Reads the table `[edge]` of `path`; an empty table when there is no file to read.
pub fn read_for_edge(path: Option<&Path>) -> Result<EdgeSettings, ConfigError> {
    let Some(path) = path else { return Ok(EdgeSettings::default()) };
    parse::<EdgeFile>(path, &text(path)?).map(|file| file.edge)
}

/// Reads the tables for a server from `path`; empty when there is no file to read.
pub fn read_for_server(path: Option<&Path>) -> Result<ServerFile, ConfigError> {
    let Some(path) = path else { return Ok(ServerFile::default()) };
    let text = text(path)?;
    let file: ServerFile = parse(path, &text)?;
    let tariffs = TariffSet::parse_config(&text)
        .map_err(|errors| ConfigError::Tariffs { path: path.to_owned(), errors })?;
    Ok(ServerFile { tariffs, ..file })
}

fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text)
        .map_err(|error| ConfigError::Invalid { path: path.to_owned(), reason: error.to_string() })
}
