//! `audit`, a command of both daemons: who did what.

use super::{OutputFlags, elements, table, text};
use crate::audit;
use crate::daemon::admin::NotDone;
use clap::Args;
use serde_json::json;
use std::path::Path;

#[derive(Debug, PartialEq, Eq, Args)]
pub struct AuditFlags {
    /// Maximum number of lines: the newest ones
    #[arg(long, value_name = "LINES", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    output: OutputFlags,
}

pub(super) fn run(data_dir: &Path, flags: AuditFlags) -> Result<(), NotDone> {
    let lines = audit::read(data_dir)
        .map_err(|error| format!("the audit list in {data_dir:?} cannot be read: {error}"))?;
    let newest = &lines[lines.len().saturating_sub(flags.limit)..];
    flags.output.print(&json!({ "audit": newest }), |answer| {
        let rows = elements(answer, "audit").map(|line| {
            let not_written =
                line["not_written"].as_u64().map(|count| format!("; {count} lines before were not written"));
            let outcome = text(&line["outcome"]) + &not_written.unwrap_or_default();
            [
                text(&line["at"]),
                text(&line["kind"]),
                text(&line["what"]),
                text(&line["name"]),
                text(&line["role"]),
                text(&line["address"]),
                outcome,
            ]
        });
        table(["AT", "KIND", "WHAT", "NAME", "ROLE", "ADDRESS", "OUTCOME"], rows)
    });
    Ok(())
}
