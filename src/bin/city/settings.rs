//! What the city is asked to do.
//!
//! **Promise.** [`Settings`] that exist can be carried out, as far as can be known before anything is started: files are there,
//! numbers make sense, no flag contradicts another.

use clap::{ArgGroup, Parser, ValueEnum};
use fogpost::codes;
use fogpost::config::ConfigError;
use fogpost::telemetry::LogFormat;
use fogpost::traffic::recording::{MAX_GARAGES, Recording};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs a whole city: a server, the edges of its garages, and cars. Checks the books at the end.
///
/// Without --replay the cars are simulated, starting at noon on a weekday.
#[derive(Debug, Parser)]
#[command(name = "city", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(group(ArgGroup::new("end of the cars").args(["replay", "limit"]).multiple(true)))]
pub struct CityFlags {
    /// Number of garages of the simulated city.
    #[arg(long, value_name = "N", help_heading = CARS, conflicts_with = "replay", default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=MAX_GARAGES as i64))]
    pub garages: u16,

    /// Recorded occupancy to replay: a CSV file with the columns SystemCodeNumber, Capacity, Occupancy and LastUpdated
    /// [default: none].
    #[arg(long, value_name = "FILE", help_heading = CARS)]
    replay: Option<PathBuf>,

    /// Seed of all random numbers; the same seed gives the same cars and the same faults.
    #[arg(long, value_name = "N", help_heading = CARS, default_value_t = 1)]
    pub seed: u64,

    /// How many times faster than real time the city runs [default: 60; with --replay as fast as possible].
    #[arg(long, value_name = "X", help_heading = CARS, value_parser = speed)]
    speed: Option<f64>,

    /// Maximum number of events of all garages together, in order of time [default: none].
    #[arg(long, value_name = "N", help_heading = CARS)]
    pub limit: Option<u64>,

    /// Keep killing edges and the server and cutting their links; the books are checked as usual. With --replay and without
    /// --speed, faults happen after given numbers of events, otherwise every few seconds. logs/weather.log lists them.
    #[arg(long, help_heading = CARS)]
    pub chaos: bool,

    /// Connect edges and server by TLS with certificates.
    #[arg(long, help_heading = DAEMONS)]
    pub tls: bool,

    /// Directory of the daemons' data and logs. It is kept, and a later run continues from it [default: a temporary directory,
    /// removed when the books are right].
    #[arg(long, value_name = "DIR", help_heading = DAEMONS)]
    pub data_dir: Option<PathBuf>,

    /// Configuration file of the server [default: an example with tariffs, city.toml in the data directory].
    #[arg(long, value_name = "FILE", help_heading = DAEMONS)]
    pub config: Option<PathBuf>,

    /// Format of the daemons' logs.
    #[arg(long, value_name = "FORMAT", help_heading = DAEMONS, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// End when all events are applied and checked. Needs --replay or --limit, since simulated cars have no end.
    #[arg(long, help_heading = RESULT, requires = "end of the cars")]
    pub exit_when_settled: bool,

    /// What is compared at the end.
    #[arg(long, value_name = "HOW", help_heading = RESULT, value_enum, default_value_t = Verify::Full)]
    pub verify: Verify,

    /// Write the result to stdout as one JSON object, and everything else to stderr.
    #[arg(long, help_heading = RESULT)]
    pub json: bool,
}

const CARS: &str = "Cars";
const DAEMONS: &str = "Daemons";
const RESULT: &str = "Result";

const EXAMPLES: &str = "\
Examples:
  city                                             five garages at noon; Ctrl-C checks the books and ends
  city --chaos --data-dir ./mycity                 the same under chaos, with data and logs to look into
  city --replay birmingham.csv --exit-when-settled --json
                                                   a recorded year as fast as possible, and its result

Exit codes: 0 the books are right, 64 a setting makes no sense, 1 anything else.";

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Beyond these, times do not fit into what clocks count.
        Ok(speed) if (0.001..=1e6).contains(&speed) => Ok(speed),
        _ => Err("a speed is a number from 0.001 to 1000000, such as 60".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Each event is read back from the server and compared with what was confirmed, in order, and each charge with the
    /// stays that ended; afterwards `server verify` checks the ledger.
    #[default]
    Full,
    /// Per garage: how many events were applied, how many cars are inside, and how many stays have ended.
    Counts,
}

/// Everything that was asked for, checked.
#[derive(Debug)]
pub struct Settings {
    pub flags: CityFlags,
    /// What to replay; `None`: the cars are simulated.
    pub recording: Option<Recording>,
    /// How many times faster than real time the city runs; `None`: as fast as possible.
    pub speed: Option<f64>,
}

/// How many times faster simulated time goes than ours, unless the user says otherwise.
const SIMULATED_SPEED: f64 = 60.0;

impl Settings {
    /// From a whole command line, the program's name first. Reads the recording too. If there are no settings, nothing was started.
    pub fn from_args(args: Vec<OsString>) -> Result<Settings, ConfigError> {
        let flags = CityFlags::try_parse_from(args)?;
        if let Some(path) = &flags.config {
            std::fs::File::open(path).map_err(|error| {
                let reason = format!("--config {path:?} cannot be read: {error}. Nothing was started");
                ConfigError::Refused(codes::CONFIGURATION_UNREADABLE, reason)
            })?;
        }
        let recording = flags.replay.as_deref().map(Recording::read).transpose();
        let recording =
            recording.map_err(|error| ConfigError::Refused(codes::FILE_UNREADABLE, error.to_string()))?;
        let speed = flags.speed.or(recording.is_none().then_some(SIMULATED_SPEED));
        Ok(Settings { flags, recording, speed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Settings, ConfigError> {
        Settings::from_args(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_plain_command_is_a_simulated_city_of_five() {
        let settings = settings("city").expect("it needs nothing");
        assert!(settings.recording.is_none() && settings.flags.garages == 5);
        assert_eq!(settings.speed, Some(60.0));
        assert_eq!(settings.flags.verify, Verify::Full);
        assert!(!settings.flags.chaos);
    }

    #[test]
    fn a_replay_goes_as_fast_as_possible_without_a_speed() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/birmingham/birmingham.csv");
        let replay = format!("city --replay {file} --exit-when-settled --json");
        assert_eq!(settings(&replay).expect("it is right").speed, None);
        assert!(settings(&format!("{replay} --chaos")).expect("it is right").flags.chaos);
        let slow = format!("{replay} --speed 600");
        assert_eq!(settings(&slow).expect("it is right").speed, Some(600.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "city --garages 0",
            "city --garages 201",
            "city --garages 3 --replay x.csv",
            "city --speed 0",
            "city --speed fast",
            "city --speed inf",
            "city --speed 1e-300",
            "city --speed 1e300",
            "city --exit-when-settled",
            "city --config /no/such/file",
            "city --replay /no/such/file",
            "city --seed minus",
            "city --verify half",
            "city extra",
        ] {
            assert!(settings(line).is_err(), "{line}");
        }
    }
}
