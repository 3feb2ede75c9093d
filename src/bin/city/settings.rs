//! What the city is asked to do.
//!
//! **Promise.** A [`Settings`] that exists can be carried out as far as can be known before anything is
//! started: files are there, numbers make sense, nothing is asked for that contradicts something else.

use clap::{Parser, ValueEnum};
use fogpost::traffic::recording::{MAX_GARAGES, Recording, RecordingError};
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs a whole city: a server, the edges of its garages, and the cars; checks the books at the end.
///
/// Without --replay the cars are simulated, by the hour and the day of the week. Exit codes: 0 the books are right, 64 a
/// setting makes no sense, 1 anything else.
#[derive(Debug, Parser)]
#[command(name = "city", version, max_term_width = 100)]
struct Flags {
    /// Garages of the simulated city [default: 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_GARAGES as i64), conflicts_with = "replay")]
    garages: Option<u16>,

    /// What all randomness derives from: one seed, one plan of cars, one plan of faults.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Where the daemons keep their data and logs. It is kept, and a later run goes on from it [default: a temporary
    /// directory, removed when the books are right].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Recorded occupancy to replay: a CSV with the columns SystemCodeNumber, Capacity, Occupancy and LastUpdated.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,

    /// Stop the cars after so many events of all garages together, in order of time.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// How much faster than the clocks in the city [default: 60; with --replay as fast as it can].
    #[arg(long, value_name = "X", value_parser = speed)]
    speed: Option<f64>,

    /// End when all events are applied and checked. Needs --replay or --limit: simulated cars have no end.
    #[arg(long)]
    exit_when_settled: bool,

    /// Bad weather: kill edges and the server and cut their links all the time, and check the books all the same. With
    /// --replay and without --speed faults come at certain numbers of events, else every few seconds. The logs tell which.
    #[arg(long)]
    chaos: bool,

    /// Write the result to stdout as one JSON object, and everything else to stderr.
    #[arg(long)]
    json: bool,

    /// Read back every event at the end, or compare numbers and occupancies only.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Verify::Full)]
    verify: Verify,

    /// The server's configuration file [default: an example with tariffs, city.toml in the data directory].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How the daemons write their logs.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Beyond these, times do not fit into what clocks count.
        Ok(speed) if (0.001..=1e6).contains(&speed) => Ok(speed),
        _ => Err("a speed is a number from 0.001 to 1000000, such as 60".to_owned()),
    }
}

/// How thoroughly the books are compared at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// Each event is read back from the server and compared with what was confirmed, in order, and each charge with the
    /// stays that ended; afterwards `server verify` judges the ledger.
    Full,
    /// Per garage: how many events were applied, how many cars are inside, and how many stays have ended.
    Counts,
}

/// How the daemons write their logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Where the cars come from.
#[derive(Debug)]
pub enum Cars {
    Simulated { garages: usize },
    Recorded(Recording),
}

/// How fast the clocks of the city go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    AsFastAsItCan,
    /// So many times faster than ours.
    Times(f64),
}

/// Everything that was asked for, checked.
#[derive(Debug)]
pub struct Settings {
    pub cars: Cars,
    pub seed: u64,
    /// `None`: a temporary one.
    pub data_dir: Option<PathBuf>,
    pub limit: Option<u64>,
    pub pace: Pace,
    pub exit_when_settled: bool,
    pub chaos: bool,
    pub json: bool,
    pub verify: Verify,
    pub config: Option<PathBuf>,
    pub log_format: LogFormat,
}

/// Why there are no settings. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// What clap says; also `--help` and `--version`.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error("--config {path:?} cannot be read: {source}. Nothing was started")]
    Config { path: PathBuf, source: std::io::Error },
    #[error(
        "--exit-when-settled needs --replay or --limit, since simulated cars have no end. Nothing was started"
    )]
    NoEnd,
}

const DEFAULT_GARAGES: u16 = 5;
const DEFAULT_SPEED: f64 = 60.0;

impl Settings {
    /// From a whole command line, the program's name first. Reads the recording too.
    pub fn from_args(args: Vec<OsString>) -> Result<Settings, SettingsError> {
        let flags = Flags::try_parse_from(args)?;
        if flags.exit_when_settled && flags.replay.is_none() && flags.limit.is_none() {
            return Err(SettingsError::NoEnd);
        }
        if let Some(path) = &flags.config {
            std::fs::File::open(path)
                .map_err(|source| SettingsError::Config { path: path.clone(), source })?;
        }
        let cars = match &flags.replay {
            Some(path) => Cars::Recorded(Recording::read(path)?),
            None => Cars::Simulated { garages: usize::from(flags.garages.unwrap_or(DEFAULT_GARAGES)) },
        };
        let pace = match (flags.speed, &cars) {
            (Some(times), _) => Pace::Times(times),
            (None, Cars::Simulated { .. }) => Pace::Times(DEFAULT_SPEED),
            (None, Cars::Recorded(_)) => Pace::AsFastAsItCan,
        };
        Ok(Settings {
            cars,
            seed: flags.seed,
            data_dir: flags.data_dir,
            limit: flags.limit,
            pace,
            exit_when_settled: flags.exit_when_settled,
            chaos: flags.chaos,
            json: flags.json,
            verify: flags.verify,
            config: flags.config,
            log_format: flags.log_format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Settings, SettingsError> {
        Settings::from_args(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_plain_command_is_a_simulated_city_of_five() {
        let settings = settings("city").expect("it needs nothing");
        assert!(matches!(settings.cars, Cars::Simulated { garages: 5 }));
        assert_eq!(settings.pace, Pace::Times(60.0));
        assert_eq!(settings.verify, Verify::Full);
        assert!(!settings.chaos);
    }

    #[test]
    fn a_replay_goes_as_fast_as_it_can_unless_told() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/birmingham/birmingham.csv");
        let replay = format!("city --replay {file} --exit-when-settled --json");
        assert_eq!(settings(&replay).expect("it is right").pace, Pace::AsFastAsItCan);
        assert!(settings(&format!("{replay} --chaos")).expect("it is right").chaos);
        let slow = format!("{replay} --speed 600");
        assert_eq!(settings(&slow).expect("it is right").pace, Pace::Times(600.0));
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
