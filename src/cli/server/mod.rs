//! The command line of `server`: runs the daemon, or carries out one command and exits.

mod alarms;
mod books;
mod certs;
mod document_flags;
mod documents;
mod flags;
mod money_flags;
mod payment_flags;
mod payments;
mod running;
mod tariffs;

use crate::cli::{parse, print, said};
use crate::config::{ConfigError, EdgeSettings, ServerConfig};
use crate::daemon::admin::NotDone;
use crate::server::commands::{ServerRequest, ServerSession};
use crate::server::record::Command;
use crate::store::private::keep_what_we_create_private;
use crate::{daemon, server, telemetry};
use flags::{ServerCommand, ServerFlags, TariffsCommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the program `server`; `args` as a program gets them, its name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    keep_what_we_create_private();
    let ServerCall { config, command } = match ServerCall::from_args(args) {
        Ok(call) => call,
        Err(error) => return daemon::exit_for_config(&error),
    };
    let Some(command) = command else {
        return server::run(config);
    };
    daemon::keep_small(); // a backup holds two stores
    telemetry::init(config.log_format, tracing::Level::WARN);
    running::run(&config, command)
}

#[derive(Debug)]
pub struct ServerCall {
    pub config: ServerConfig,
    /// `None`: serve.
    pub command: Option<ServerCommand>,
}

impl ServerCall {
    pub fn from_args(args: Vec<OsString>) -> Result<ServerCall, ConfigError> {
        let ServerFlags { settings, config: file, command } = parse(args)?;
        let file = match &command {
            // Mistakes in a configuration file can be explained, so it is not read here.
            Some(ServerCommand::Explain { .. }) => None,
            Some(ServerCommand::Tariffs(TariffsCommand::Check { file })) => {
                // A person who checks a file wants to see every mistake in it.
                EdgeSettings::default().completed_by(Some(file))?;
                Some(file)
            }
            Some(ServerCommand::Tariffs(TariffsCommand::Put { file, .. })) => Some(file),
            Some(ServerCommand::Tariffs(TariffsCommand::Price { entry, exit, .. })) => {
                if exit < entry {
                    let reason = format!("{exit} is before the entry at {entry}");
                    return Err(ConfigError::setting("--exit", &reason));
                }
                let reason = "it is missing. Give the file that holds the tariffs";
                Some(file.as_ref().ok_or_else(|| ConfigError::setting("--config", reason))?)
            }
            _ => file.as_ref(),
        };
        let config = ServerConfig::new(settings, file.map(PathBuf::as_path))?;
        Ok(ServerCall { config, command })
    }
}

/// Records an operator's decision, and says where.
fn record(session: &mut ServerSession<'_>, command: Command) -> Result<(), NotDone> {
    say(session, ServerRequest::Command(command))
}

fn say(session: &mut ServerSession<'_>, request: ServerRequest) -> Result<(), NotDone> {
    session.ask(request).map(|answer| print(&said(&answer)))
}

#[cfg(test)]
mod tests {
    use super::document_flags::StatementsCommand;
    use super::flags::{GaragesCommand, QuarantineCommand};
    use super::money_flags::{ChargesCommand, PlatesCommand, PutFlags, StatementFormat, StatementOf};
    use super::*;
    use crate::cli::OutputFlags;
    use crate::messaging::SiteName;
    use crate::parking::Plate;
    use crate::server::record::QuarantinePlace;
    use std::path::Path;

    fn call(args: &[&str]) -> Result<ServerCall, ConfigError> {
        ServerCall::from_args(["server"].iter().chain(args).map(OsString::from).collect())
    }

    #[test]
    fn the_data_directory_is_given_before_or_after_a_subcommand() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\ndata_dir = \"d\"\n").unwrap();
        let file = file.path().to_str().unwrap();
        for args in [
            &["--data-dir", "d", "garages", "list"][..],
            &["garages", "--data-dir", "d", "list"],
            &["garages", "list", "--data-dir", "d"],
            &["garages", "list", "--config", file],
            &["--config", file, "garages", "list"],
        ] {
            let ServerCall { config, command } = call(args).unwrap();
            assert_eq!(config.data_dir, Path::new("d"), "{args:?}");
            let list = ServerCommand::Garages(GaragesCommand::List(OutputFlags::TEXT));
            assert_eq!(command, Some(list), "{args:?}");
        }
    }

    #[test]
    fn what_the_file_says_of_retention_is_switched_off_by_a_flag() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let days = |content: &str, args: &[&str]| {
            std::fs::write(file.path(), format!("[server]\n{content}\n")).unwrap();
            call(&[&["--config", path], args].concat()).unwrap().config.retention_days
        };
        assert_eq!(days("retention_days = 365", &[]), Some(365));
        assert_eq!(days("retention_days = 365", &["--retention-days", "7"]), Some(7));
        assert_eq!(days("retention_days = 365", &["--retention-days", "never"]), None);
        assert_eq!(days("retention_days = \"never\"", &[]), None);
        assert_eq!(days("retention_days = \"never\"", &["--retention-days", "36500"]), Some(36_500));
    }

    #[test]
    fn without_a_subcommand_it_serves_and_nothing_has_to_be_set() {
        let ServerCall { config, command } = call(&[]).unwrap();
        assert_eq!((&command, config.data_dir.as_path()), (&None, Path::new("data/server")));
        assert_eq!(config.listen.to_string(), "tcp://127.0.0.1:5555");
        assert_eq!(config.http.to_string(), "127.0.0.1:5580");
    }

    fn command(args: &[&str]) -> ServerCommand {
        call(args).unwrap().command.unwrap()
    }

    #[test]
    fn commands_are_read_as_they_are_meant() {
        let name = || SiteName::new("a").unwrap();
        let capacity = |spaces, as_told| {
            ServerCommand::Garages(GaragesCommand::Capacity { name: name(), spaces, as_told })
        };
        assert_eq!(command(&["garages", "capacity", "a", "30"]), capacity(Some(30), false));
        assert_eq!(command(&["garages", "capacity", "a", "--as-told"]), capacity(None, true));
        let undo = GaragesCommand::Decommission { name: name(), undo: true };
        assert_eq!(command(&["garages", "decommission", "a", "--undo"]), ServerCommand::Garages(undo));
        let place = QuarantinePlace { position: 17, index: Some(3) };
        let release = ServerCommand::Quarantine(QuarantineCommand::Release { place });
        assert_eq!(command(&["quarantine", "release", "17.3"]), release);
    }

    #[test]
    fn tariffs_come_from_the_file_that_is_named() {
        let tariffs = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tariffs.toml");
        let checked = call(&["tariffs", "check", tariffs]).unwrap();
        let check = ServerCommand::Tariffs(TariffsCommand::Check { file: tariffs.into() });
        assert_eq!(checked.command, Some(check));
        let serving = call(&["--config", tariffs]).unwrap();
        assert_eq!((serving.command, &serving.config.tariffs), (None, &checked.config.tariffs));
        assert!(!serving.config.tariffs.is_empty() && call(&[]).unwrap().config.tariffs.is_empty());
        let price = ["tariffs", "price", "--garage", "a", "--entry", "2026-01-01T00:00:00Z", "--exit"];
        for (exit, part) in [
            ("2026-01-01T00:00:00", "an offset"),
            ("2025-12-31T23:59:59Z", "--exit"),
            ("2026-01-01T00:00:00Z", "--config"),
        ] {
            let error = call(&[&price[..], &[exit]].concat()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_books_of_money_are_asked_for_as_it_is_meant() {
        let month = "2026-11".parse().unwrap();
        let show = |of| {
            let (whose, format) = ("BB1".into(), StatementFormat::Text);
            ServerCommand::Statements(StatementsCommand::Show { whose, month, format, of })
        };
        let args = ["statements", "show", "BB1", "--month", "2026-11"];
        assert_eq!(command(&args), show(None));
        assert_eq!(command(&[&args[..], &["--of", "account"]].concat()), show(Some(StatementOf::Account)));
        let charge = "Bull Ring/d5947e0f-1414-4ac6-8009-21147bb78df6/623";
        let credit = ["charges", "credit", charge, "--amount", "150", "--reason", "x"];
        let expected =
            ChargesCommand::Credit { charge: charge.parse().unwrap(), amount: 150, reason: "x".into() };
        assert_eq!(command(&credit), ServerCommand::Charges(expected));
        let plate = Plate::new("BAB1").unwrap();
        let put = PutFlags { dry_run: false, output: OutputFlags::TEXT };
        let remove = ServerCommand::Plates(PlatesCommand::Remove { plate, on: None, put });
        assert_eq!(command(&["plates", "remove", "b-ab 1"]), remove);
    }

    #[test]
    fn bad_commands_are_refused_by_name() {
        for (args, part) in [
            (&["garages"][..], "list"),
            (&["garages", "capacity", "a"], "SPACES"),
            (&["garages", "capacity", "a", "--", "-1"], "SPACES"),
            (&["garages", "capacity", "a", "3", "--as-told"], "--as-told"),
            (&["garages", "rename", "a", ""], "NEW"),
            (&["quarantine", "discard", "17"], "--reason"),
            (&["quarantine", "release", "17.64"], "17.64"),
            (&["quarantine", "release", "x"], "a place looks like"),
            (&["alarms", "silence", "conflict"], "--until"),
            (&["alarms", "silence", "conflict", "--until", "soon"], "soon"),
            (&["backup"], "DIR"),
            (&["tariffs", "price"], "--garage"),
            (&["tariffs", "check", "/nonexistent"], "/nonexistent"),
            (&["start"], "start"),
        ] {
            let error = call(args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
