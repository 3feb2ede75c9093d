//! The command lines of `edge` and `server`.
//!
//! Each parses its arguments, then runs the daemon, or gives one command to the daemon that runs or does it in the data directory.

pub mod edge;
pub mod server;

use crate::codes::{self, Coded};
use crate::daemon::EXIT_SETTING;
use clap::Args;
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct OutputFlags {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl OutputFlags {
    const TEXT: OutputFlags = OutputFlags { json: false };

    fn print(self, answer: &Value, in_words: impl FnOnce(&Value) -> String) {
        print(&if self.json { format!("{answer}\n") } else { in_words(answer) });
    }
}

/// The end of a program's help.
macro_rules! exit_codes {
    () => {
        "Exit codes:
   0  done, or stopped on request
   1  failed, or something is wrong with the data; stderr says what and what to do
  64  a flag, an environment variable or the configuration file is not valid; nothing was changed"
    };
}
use exit_codes;

/// Says on stderr why a command failed.
fn failure(error: &impl Coded) -> ExitCode {
    codes::print_error(error.code(), error);
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
