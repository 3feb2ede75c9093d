//! `city`: the whole system in one command: a server, the edges of its garages, cars, and an oracle with books of its own.
//!
//! **Promise.** `city` ends with code 0 only if every event that an edge confirmed is at the server once, in order, each garage
//! holds what these events leave in it, each stay that ended has one charge, and what was taken is their sum.
//! **Kept by.** Real daemons as child processes ([`children`]), which the city talks to by their contracts alone ([`client`]),
//! and compares with books that share no code with them ([`books`]).
//! **Not promised.** That nothing confirmed is lost in a power cut: the city does not cut the power. Tests do.
//!
//! The path of an event: [`fogpost::traffic`] produces it, a [`producer`] posts it to the edge and, once it is confirmed, enters
//! it into the [`books`]. At the end [`lists`] reads it and the charges back from the server. [`run`] leads through the
//! phases. With `--chaos`, [`chaos`] kills daemons and cuts links meanwhile.

mod books;
mod chaos;
mod children;
mod client;
mod display;
mod example;
mod fleet;
mod lists;
mod money;
mod plan;
mod producer;
mod report;
mod run;
mod settings;

use display::CityDisplay;
use fogpost::cli;
use fogpost::codes;
use fogpost::daemon::exit_for_config;
use fogpost::store::private::keep_what_we_create_private;
use report::CityReport;
use run::CitySignals;
use settings::Settings;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The city is its own server and edge as well, so that one binary is the whole system.
fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|first| first.to_str()) {
        Some(children::SERVER) => children::run_daemon("server", args, cli::server::main),
        Some(children::EDGE) => children::run_daemon("edge", args, cli::edge::main),
        _ => run_city(args),
    }
}

fn run_city(args: Vec<OsString>) -> ExitCode {
    keep_what_we_create_private();
    let settings = match Settings::from_args(args) {
        Ok(settings) => settings,
        Err(error) => return exit_for_config(&error),
    };
    let running = async {
        let signals = listen_to_signals()?;
        let mut display = CityDisplay::new(&settings.flags);
        Ok(run::run(&settings, &signals, &mut display).await)
    };
    match tokio::runtime::Runtime::new().and_then(|runtime| runtime.block_on(running)) {
        Ok(report) => conclude(&settings, &report),
        Err(error) => {
            codes::print_error(codes::CANNOT_START, &format!("{error}. Nothing was confirmed"));
            ExitCode::FAILURE
        }
    }
}

/// Signals that come this soon after the first mean the same: `timeout` sends one to the process and one to its group.
const SAME_SIGNAL_WITHIN: Duration = Duration::from_millis(300);

/// The first signal stops the cars, the second everything.
fn listen_to_signals() -> io::Result<CitySignals> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let signals = CitySignals::default();
    tokio::spawn({
        let signals = signals.clone();
        async move {
            let mut first = None;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                let first = *first.get_or_insert_with(Instant::now);
                if signals.stop.is_cancelled() && first.elapsed() > SAME_SIGNAL_WITHIN {
                    signals.abort.cancel();
                }
                signals.stop.cancel();
            }
        }
    });
    Ok(signals)
}

fn conclude(settings: &Settings, report: &CityReport) -> ExitCode {
    let text = if settings.flags.json {
        let _ = writeln!(io::stderr(), "{report}");
        report.to_json()
    } else {
        report.to_string()
    };
    let written = writeln!(io::stdout(), "{text}");
    if let Some((code, complaint)) = report.complaint() {
        codes::print_error(code, &complaint);
        return ExitCode::FAILURE;
    }
    match written {
        // The user who asked for the result as JSON did not get it.
        Err(error) if settings.flags.json => {
            codes::print_error(codes::RESULT_NOT_WRITTEN, &format!("cannot write the result: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
