//! Renderings.

use serde::{Deserialize, Serialize};

/// The forms in which a document is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rendering {
    /// For a terminal or a plain mail.
    Text,
    /// For programs.
    Json,
    /// For spreadsheets: a row for each line.
    Csv,
    /// One page to print or to send, without anything from outside.
    Html,
}

impl Rendering {
    pub const ALL: [Rendering; 4] = [Rendering::Text, Rendering::Json, Rendering::Csv, Rendering::Html];

    /// The ending of a file, without a dot.
    pub const fn ending(self) -> &'static str {
        match self {
            Rendering::Text => "txt",
            Rendering::Json => "json",
            Rendering::Csv => "csv",
            Rendering::Html => "html",
        }
    }

    /// The name of the file with this rendering of the document: `2026-000007.html`. A number is safe as a name.
    pub fn file_name(self, number: &str) -> String {
        format!("{number}.{}", self.ending())
    }
}
