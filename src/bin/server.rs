//! The server: see `fogpost::server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fogpost::cli::server::main(std::env::args_os().collect())
}
