//! The edge: see `fogpost::edge`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fogpost::cli::edge::main(std::env::args_os().collect())
}
