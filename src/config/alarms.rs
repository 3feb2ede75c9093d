//! The tables `[alarms]` and `[[notify]]`: when something is an alarm, and who is notified.

use super::{ConfigError, ranges};
use crate::codes::{self, Code};
use crate::messaging::SiteName;
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A time such as `90s`, `10m`, `1h 30m` or `7d`, of at least a second and at most a hundred years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

const PERIOD_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Period, String> {
        let wrong = || {
            format!("{text:?} is not a time from a second to a hundred years, such as 90s, 10m, 12h or 7d")
        };
        let span: Span = text.parse().map_err(|_| wrong())?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let length = Duration::try_from(length).map_err(|_| wrong())?;
        let is_possible = (Duration::from_secs(1)..=PERIOD_MAX).contains(&length);
        is_possible.then_some(Period(length)).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(text: String) -> Result<Period, String> {
        text.parse()
    }
}

/// When something is an alarm: the table `[alarms]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlarmThresholds {
    /// An edge is silent when nothing was heard of it for this long.
    pub silent_after: Period,
    /// A backlog grows when at least `backlog_events` wait, and no fewer than this long ago.
    pub backlog_after: Period,
    pub backlog_events: u64,
    /// A queue stands still when the server hears the edge and has acknowledged none of what waits for this long.
    pub still_after: Period,
    /// An occupancy below 0 or above the capacity is an alarm when it lasts this long.
    pub occupancy_after: Period,
    /// The count and the open stays of a garage drift apart when they differ by this number of cars more than at the beginning
    /// of a period of `drift_within`.
    pub drift_cars: u64,
    pub drift_within: Period,
    /// Fewer free bytes than this are an alarm. `None`: a tenth of the disk, at most 2 GB.
    pub disk_free_bytes: Option<u64>,
    /// A missing range is an alarm for this long after it was recorded.
    pub missing_for: Period,
    /// An alarm is resolved when its reason has been gone for this long.
    pub resolve_after: Period,
    /// An alarm that lasts is repeated when its last notification is this long ago.
    pub remind_after: Period,
}

impl Default for AlarmThresholds {
    fn default() -> AlarmThresholds {
        let (minute, hour) = (60, 3600);
        let period = |seconds| Period(Duration::from_secs(seconds));
        AlarmThresholds {
            silent_after: period(minute),
            backlog_after: period(10 * minute),
            backlog_events: 100,
            still_after: period(2 * minute),
            occupancy_after: period(10 * minute),
            drift_cars: 20,
            drift_within: period(24 * hour),
            disk_free_bytes: None,
            missing_for: period(7 * 24 * hour),
            resolve_after: period(minute),
            remind_after: period(24 * hour),
        }
    }
}

/// Somebody who is notified of alarms: a table `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyConfig {
    /// Distinguishes it from the others, in lists, logs and metrics.
    pub name: String,
    pub channel: Channel,
    /// Only these alarms; empty: all.
    pub codes: BTreeSet<Code>,
    /// Only those of these garages; empty: all, and those of the server itself.
    pub garages: BTreeSet<SiteName>,
}

/// How somebody is notified. Secrets are in files of their own, so that a configuration can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    Webhook { url: WebhookUrl, secret_file: PathBuf },
    Email(EmailConfig),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailConfig {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub login: Option<(String, PathBuf)>,
    pub from: String,
    pub to: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Begins in plain text, and goes on only with TLS.
    Starttls,
    /// TLS from the first byte.
    Implicit,
    /// Plain text, on this machine alone.
    None,
}

/// Where a webhook goes: `https`, or `http` on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
    /// The path with its query, which may hold a secret of its own.
    pub path: String,
}

impl FromStr for WebhookUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<WebhookUrl, String> {
        let wrong = |why: &str| format!("url is not valid: {why}. It looks like https://alarms.example/hook");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("its scheme is neither https nor http")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_plain = |c: u8| c.is_ascii_graphic() && c != b'#';
        if !path.bytes().all(is_plain) || authority.contains(['@', '#']) {
            return Err(wrong("only a host, a port, a path and a query may stand in it"));
        }
        let default = if is_tls { 443 } else { 80 };
        let (host, port) =
            host_and_port(authority, Some(default)).ok_or_else(|| wrong("its host or port is not one"))?;
        if !is_tls && !is_loopback(&host) {
            return Err(wrong(
                "without TLS everybody on the way can read it, so http is for this machine alone",
            ));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(WebhookUrl { is_tls, host, port, path: format!("{slash}{path}") })
    }
}

fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, Some(port.parse().ok().filter(|port| *port > 0)?))
        }
        _ => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = |c: u8| c.is_ascii_alphanumeric() || b".-:".contains(&c);
    (!host.is_empty() && host.bytes().all(is_host)).then_some((host.to_owned(), port.or(default)?))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A table `[[notify]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyTable {
    name: String,
    kind: NotifyKind,
    url: Option<String>,
    #[serde(default, deserialize_with = "ranges::path")]
    secret_file: Option<PathBuf>,
    smtp: Option<String>,
    tls: Option<SmtpTls>,
    user: Option<String>,
    #[serde(default, deserialize_with = "ranges::path")]
    password_file: Option<PathBuf>,
    from: Option<String>,
    to: Option<Vec<String>>,
    #[serde(default)]
    codes: Vec<String>,
    #[serde(default)]
    garages: BTreeSet<SiteName>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NotifyKind {
    Webhook,
    Email,
}

/// The two tables, in a file with others.
#[derive(Debug, Default, Deserialize)]
pub(super) struct AlarmTables {
    #[serde(default)]
    pub alarms: AlarmThresholds,
    #[serde(default)]
    notify: Vec<NotifyTable>,
}

/// The maximum number of receivers: what waits for each is kept.
const RECEIVERS_MAX: usize = 16;

impl AlarmTables {
    /// The receivers, checked.
    pub fn receivers(self, path: &Path) -> Result<Vec<NotifyConfig>, ConfigError> {
        let wrong = |reason: String| {
            let reason = format!("the configuration file {path:?} is not valid: [[notify]]: {reason}");
            ConfigError::Refused(codes::CONFIGURATION_INVALID, reason)
        };
        if self.notify.len() > RECEIVERS_MAX {
            return Err(wrong(format!("there are more than {RECEIVERS_MAX}")));
        }
        let mut names = BTreeSet::new();
        let mut receivers = Vec::new();
        for table in self.notify {
            let name = table.name.clone();
            let receiver = table.checked().map_err(|reason| wrong(format!("{name:?}: {reason}")))?;
            if !names.insert(receiver.name.clone()) {
                return Err(wrong(format!("the name {name:?} stands there twice")));
            }
            receivers.push(receiver);
        }
        Ok(receivers)
    }
}

impl NotifyTable {
    fn checked(self) -> Result<NotifyConfig, String> {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(is_name) {
            return Err("a name has 1 to 64 letters, digits, dots, dashes or underscores".into());
        }
        let named = |text: &String| {
            let code = codes::named(text).filter(|code| codes::SERVER_ALARMS.contains(code));
            let all = || codes::SERVER_ALARMS.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ");
            code.ok_or_else(|| format!("{text:?} is no alarm of a server; these are: {}", all()))
        };
        let codes = self.codes.iter().map(named).collect::<Result<_, _>>()?;
        let missing = |key: &str| format!("{key} is missing");
        let channel = match self.kind {
            NotifyKind::Webhook => {
                refuse_keys(
                    "webhook",
                    &[
                        ("smtp", self.smtp.is_some()),
                        ("tls", self.tls.is_some()),
                        ("user", self.user.is_some()),
                        ("password_file", self.password_file.is_some()),
                        ("from", self.from.is_some()),
                        ("to", self.to.is_some()),
                    ],
                )?;
                let url = self.url.ok_or_else(|| missing("url"))?.parse()?;
                Channel::Webhook { url, secret_file: self.secret_file.ok_or_else(|| missing("secret_file"))? }
            }
            NotifyKind::Email => {
                refuse_keys(
                    "email",
                    &[("url", self.url.is_some()), ("secret_file", self.secret_file.is_some())],
                )?;
                let tls = self.tls.unwrap_or(SmtpTls::Starttls);
                let (host, port) = self
                    .smtp
                    .and_then(|smtp| host_and_port(&smtp, None))
                    .ok_or("smtp is missing, or is not HOST:PORT")?;
                if tls == SmtpTls::None && !is_loopback(&host) {
                    return Err("tls = \"none\" is for a mail server on this machine alone: everybody on the way could read the mail, and the password".into());
                }
                let login = match (self.user, self.password_file) {
                    (Some(user), Some(file)) => Some((user, file)),
                    (None, None) => None,
                    _ => return Err("user and password_file belong together".into()),
                };
                let to = self.to.filter(|to| !to.is_empty()).ok_or_else(|| missing("to"))?;
                Channel::Email(EmailConfig {
                    host,
                    port,
                    tls,
                    login,
                    from: self.from.ok_or_else(|| missing("from"))?,
                    to,
                })
            }
        };
        Ok(NotifyConfig { name: self.name, channel, codes, garages: self.garages })
    }
}

fn refuse_keys(kind: &str, given: &[(&str, bool)]) -> Result<(), String> {
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((key, _)) => Err(format!("a receiver of kind {kind:?} has no {key}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<NotifyConfig>, String> {
        let tables: AlarmTables = toml::from_str(text).map_err(|error| error.to_string())?;
        tables.receivers(Path::new("c.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_could_notify_nobody_or_tell_everybody_is_refused() {
        let hook = "[[notify]]\nname = \"ops\"\nkind = \"webhook\"\nsecret_file = \"s\"\n";
        let mail =
            "[[notify]]\nname = \"ops\"\nkind = \"email\"\nfrom = \"a@b.example\"\nto = [\"c@d.example\"]\n";
        for (text, part) in [
            (format!("{hook}url = \"http://alarms.example/\""), "everybody on the way"),
            (format!("{hook}url = \"https://user:pw@alarms.example/\""), "only a host"),
            (format!("{hook}url = \"https://alarms.example/a b\""), "only a host"),
            (format!("{hook}url = \"ftp://alarms.example/\""), "neither https nor http"),
            (format!("{hook}url = \"https://:443/\""), "host or port"),
            (format!("{hook}url = \"https://a.example/\"\nto = [\"x\"]"), "has no to"),
            (hook.to_owned(), "url is missing"),
            (
                format!("{hook}url = \"https://a.example/\"\ncodes = [\"outbox-full\"]"),
                "no alarm of a server",
            ),
            (format!("{hook}url = \"https://a.example/\"\n{hook}url = \"https://a.example/\""), "twice"),
            (format!("{mail}smtp = \"mail.example:25\"\ntls = \"none\""), "on this machine alone"),
            (format!("{mail}smtp = \"mail.example\""), "HOST:PORT"),
            (format!("{mail}smtp = \"mail.example:25\"\nuser = \"u\""), "belong together"),
            ("[alarms]\nsilent_after = \"0s\"".to_owned(), "from a second"),
            ("[alarms]\nsilent = \"1s\"".to_owned(), "unknown field"),
        ] {
            let said = read(&text).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        let read =
            read(&format!("{hook}url = \"https://[::1]:8443?k=v\"\ncodes = [\"edge_silent\"]")).unwrap();
        let url = WebhookUrl { is_tls: true, host: "::1".into(), port: 8443, path: "/?k=v".into() };
        assert_eq!(read[0].channel, Channel::Webhook { url, secret_file: "s".into() });
        assert_eq!(read[0].codes.iter().collect::<Vec<_>>(), [&codes::EDGE_SILENT]);
    }

    #[test]
    fn a_period_is_written_as_people_write_it() {
        let seconds = |text: &str| text.parse::<Period>().map(|period| period.0.as_secs());
        assert_eq!(
            ["90s", "10m", "1h 30m", "7d"].map(|text| seconds(text).unwrap()),
            [90, 600, 5400, 604_800]
        );
        for text in ["", "7", "0s", "-5m", "1000y", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
