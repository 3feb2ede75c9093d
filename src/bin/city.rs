//! The city: see `fogpost::city`. It is its own server and edge as well, so that one binary is the whole system.

use fogpost::city::children::{self, run_daemon};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|first| first.to_str()) {
        Some(children::SERVER) => run_daemon("server", args, fogpost::cli::server::main),
        Some(children::EDGE) => run_daemon("edge", args, fogpost::cli::edge::main),
        _ => fogpost::city::main(args),
    }
}
