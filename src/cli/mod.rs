//! The command lines of `edge` and `server`.
//!
//! Each parses its arguments and then either runs the daemon or carries out one command: the running daemon does it, or, when
//! none runs, it is done directly in the data directory.

mod audit;
pub mod edge;
pub mod server;
mod tokens;

use crate::codes::{self, Coded};
use crate::daemon::EXIT_SETTING;
use crate::daemon::admin::NotDone;
use clap::{Args, Command, Parser};
use serde_json::Value;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use unicode_width::UnicodeWidthStr;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct OutputFlags {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl OutputFlags {
    #[cfg(test)]
    const TEXT: OutputFlags = OutputFlags { json: false };

    fn print(self, answer: &Value, in_words: impl FnOnce(&Value) -> String) {
        print(&if self.json { format!("{answer}\n") } else { in_words(answer) });
    }
}

/// A value as people read it: a text without quotes, nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().map(text).collect::<Vec<_>>().join(" | "),
        other => other.to_string(),
    }
}

/// A value of a table or list of facts: `--` for what is not known.
fn known(value: &Value) -> String {
    if value.is_null() { "--".to_owned() } else { text(value) }
}

/// The sentence in which an answer says what was done.
fn said(answer: &Value) -> String {
    format!("{}\n", text(&answer["said"]))
}

fn elements<'a>(answer: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    answer[list].as_array().into_iter().flatten()
}

/// A list in an answer as a table: under each heading a field of its elements.
fn list<const N: usize>(answer: &Value, list: &str, columns: [(&str, &str); N]) -> String {
    let rows = elements(answer, list).map(|line| columns.map(|(_, field)| text(&line[field])));
    table(columns.map(|(heading, _)| heading), rows) + &more(answer)
}

/// A table whose columns are as wide as their widest cell.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].width()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width())));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The line below a list that goes on.
fn more(answer: &Value) -> String {
    match &answer["next"] {
        Value::Null => String::new(),
        next => format!("there are more: --after {}\n", text(next)),
    }
}

/// The end of a help text: these examples, and the exit codes.
macro_rules! examples {
    ($examples:literal) => {
        concat!(
            "Examples:\n",
            $examples,
            "\n\nExit codes:
   0  done, or stopped on request
   1  failed, or something is wrong with the data; stderr says what and what to do
  64  a flag, an environment variable or the configuration file is not valid; nothing was changed"
        )
    };
}
use examples;

/// Parses a command line. Commands without examples of their own show those of the command above them.
fn parse<T: Parser>(args: Vec<OsString>) -> Result<T, clap::Error> {
    let mut command = inherit_examples(T::command());
    let mut matches = command.try_get_matches_from_mut(args)?;
    T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn inherit_examples(command: Command) -> Command {
    let examples = command.get_after_help().cloned().unwrap_or_default();
    command.mut_subcommands(|below| match below.get_after_help() {
        Some(_) => inherit_examples(below),
        None => inherit_examples(below.after_help(examples.clone())),
    })
}

fn exit_after(done: Result<(), NotDone>) -> ExitCode {
    done.map_or_else(|reason| failure(&reason), |()| ExitCode::SUCCESS)
}

fn failure(reason: &NotDone) -> ExitCode {
    codes::print_error(reason.code(), reason);
    ExitCode::FAILURE
}

/// Writes to stdout. A reader that has seen enough, such as `head`, may have closed the pipe; that is not a failure.
fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints what `code` means, or all codes with a line each.
fn explain(code: Option<&str>) -> ExitCode {
    match codes::explain(code) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            codes::print_error(error.code(), &error);
            ExitCode::from(EXIT_SETTING)
        }
    }
}
