//! The edge: see `fogpost::edge`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fogpost::edge::main(std::env::args_os().collect())
}
