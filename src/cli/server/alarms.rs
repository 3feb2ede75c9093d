//! `server alarms`.

use crate::cli::server::say;
use crate::cli::{OutputFlags, elements, examples, known, table, text};
use crate::config::Period;
use crate::daemon::admin::NotDone;
use crate::daemon::clock;
use crate::messaging::SiteName;
use crate::parking::Moment;
use crate::server::alarms::AlarmsRequest;
use crate::server::commands::{ServerRequest, ServerSession};
use clap::Subcommand;
use serde_json::Value;

pub const ALARMS_HELP: &str = examples!(
    "  server alarms list
  server alarms silence edge_silent \"Bull Ring\" --until 12h
  server alarms test"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum AlarmsCommand {
    /// List the alarms that are raised
    List(OutputFlags),
    /// Stop the notifications of an alarm until a time. Lists and metrics still show it
    Silence {
        /// Code of the alarm, such as edge_silent
        #[arg(value_name = "CODE")]
        code: String,
        /// Name of the garage [default: all, and the server itself]
        #[arg(value_name = "GARAGE", allow_hyphen_values = true)]
        garage: Option<SiteName>,
        /// For how long, such as 90m, 12h or 7d, or until when, such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = until_ms)]
        until: i64,
    },
    /// Let the notifications go on
    Unsilence {
        /// Code of the alarm
        #[arg(value_name = "CODE")]
        code: String,
        /// Name of the garage, as it was given to "silence" [default: none]
        #[arg(value_name = "GARAGE", allow_hyphen_values = true)]
        garage: Option<SiteName>,
    },
    /// Send a test to everybody who is notified, and say whether it arrived
    Test(OutputFlags),
}

/// The end of a silence that begins now.
fn until_ms(text: &str) -> Result<i64, String> {
    if let Ok(Period(length)) = text.parse::<Period>() {
        return Ok(clock::wall_ms().saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)));
    }
    let moment = Moment::parse(text).map_err(|_| {
        format!("{text:?} is neither a time such as 90m, 12h or 7d nor one such as 2026-11-23T08:15:00+01:00")
    })?;
    Ok(moment.timestamp.as_millisecond())
}

pub(super) fn run(session: &mut ServerSession<'_>, command: AlarmsCommand) -> Result<(), NotDone> {
    let request = |request| ServerRequest::Alarms(request);
    match command {
        AlarmsCommand::List(output) => {
            let answer = session.ask(request(AlarmsRequest::List))?;
            output.print(&answer, print_alarms);
            Ok(())
        }
        AlarmsCommand::Silence { code, garage, until } => {
            say(session, request(AlarmsRequest::Silence { code, garage, until_ms: Some(until) }))
        }
        AlarmsCommand::Unsilence { code, garage } => {
            say(session, request(AlarmsRequest::Silence { code, garage, until_ms: None }))
        }
        AlarmsCommand::Test(output) => {
            let answer = session.ask(request(AlarmsRequest::Test))?;
            output.print(&answer, print_test);
            match elements(&answer, "receivers").all(|receiver| receiver["delivered"] == true) {
                true => Ok(()),
                false => Err("not everybody can be notified".to_owned().into()),
            }
        }
    }
}

fn print_alarms(answer: &Value) -> String {
    let rows = elements(answer, "alarms").map(|alarm| {
        let until = alarm["silenced_until"].as_str().map(|until| format!("silenced until {until}"));
        [
            text(&alarm["code"]),
            known(&alarm["garage"]),
            text(&alarm["since"]),
            text(&alarm["summary"]),
            until.unwrap_or_default(),
        ]
    });
    table(["CODE", "GARAGE", "SINCE", "WHAT", "REMARKS"], rows)
}

fn print_test(answer: &Value) -> String {
    let rows = elements(answer, "receivers").map(|receiver| {
        let outcome = match receiver["error"].as_str() {
            Some(error) => format!("failed: {error}"),
            None => "it arrived".to_owned(),
        };
        [text(&receiver["receiver"]), text(&receiver["kind"]), outcome, text(&receiver["waiting"])]
    });
    table(["RECEIVER", "KIND", "TEST", "WAITING"], rows)
}
