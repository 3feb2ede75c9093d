//! Logs on stderr: what happened, whose data it affects, and what happens next.

use clap::ValueEnum;
use serde::Deserialize;
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, JSON otherwise.
    pub fn default_here() -> LogFormat {
        if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json }
    }
}

/// Starts logging at the level of `RUST_LOG`, or at `level` without it. A second call in one process does nothing.
pub fn init(format: LogFormat, level: Level) {
    // zeromq and sled log what we report ourselves, in words about data.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.as_str()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
