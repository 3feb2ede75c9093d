//! The codes that identify problems, alarms, anomalies, error exits and log lines, and the page that explains them.
//!
//! **Promise.** A code keeps its name and its meaning from version to version, so that programs, alerts and people can rely on it.
//! **Kept by.** A [`Code`] can be declared only in this file, and a test pairs each with its entry in `docs/codes.md` and its uses.

use serde::Serialize;
use std::fmt;

/// The page, one entry for each code.
const PAGE: &str = include_str!("../docs/codes.md");

/// A stable name in lower snake case, such as `outbox_full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Code(&'static str);

impl Code {
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The code with this name. `None`: this version knows none.
pub fn named(name: &str) -> Option<Code> {
    ALL.iter().copied().find(|code| code.as_str() == name)
}

/// An error that can end a program.
pub trait Coded: fmt::Display {
    fn code(&self) -> Code;
}

/// Prints why a program ends to stderr, in the manner of rustc: `error[CODE]: message`.
pub fn print_error(code: Code, message: &dyn fmt::Display) {
    eprintln!("error[{code}]: {message}");
}

/// Declares each code as a constant, whose text is its name in lower case: `OUTBOX_FULL` is `outbox_full`.
macro_rules! codes {
    ($($name:ident)*) => {
        $(pub const $name: Code = {
            const TEXT: [u8; stringify!($name).len()] = in_lower_case(stringify!($name));
            match str::from_utf8(&TEXT) {
                Ok(text) => Code(text),
                Err(_) => panic!("an identifier is a text"),
            }
        };)*
        /// Every code that this version knows.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

const fn in_lower_case<const LENGTH: usize>(name: &str) -> [u8; LENGTH] {
    let mut text = *name.as_bytes().first_chunk().expect("it has this length");
    text.make_ascii_lowercase();
    text
}

codes! {
    // Problems over HTTP.
    ADDRESS_NOT_ALLOWED BAD_REQUEST BUSY DISK_FULL EMPTY_BATCH FOREIGN_ORIGIN HEADERS_TOO_LARGE IDEMPOTENCY_KEY_REUSED IDEMPOTENCY_KEYS_FULL
    INTERNAL_ERROR INVALID_CURSOR INVALID_ENCODING INVALID_EVENT INVALID_IDEMPOTENCY_KEY INVALID_JSON
    INVALID_PATH INVALID_QUERY METHOD_NOT_ALLOWED NO_SUCH_DOCUMENT NO_SUCH_GARAGE NO_SUCH_STATEMENT NOT_FOUND OUTBOX_FULL
    REQUEST_TIMEOUT ROLE_INSUFFICIENT STATEMENT_TOO_LONG TOKEN_MISSING TOKEN_UNKNOWN TOO_LARGE UNAVAILABLE UNKNOWN_HOST UNSUPPORTED_CHARSET
    UNSUPPORTED_CONTENT_ENCODING UNSUPPORTED_MEDIA_TYPE

    // Alarms of an edge; most are log lines too.
    CERTIFICATE_REFUSED CERTIFICATES_UNUSABLE CONFLICT NOT_A_SERVER OTHER_LEDGER PROTOCOL_VERSION_MISMATCH QUEUE_STANDS_STILL REFUSED_BY_SERVER
    SERVER_NOT_TRUSTED SERVER_WENT_BACK

    // Alarms of the server; most of the others are log lines or alarms of an edge, too.
    BACKLOG_GROWS COUNT_DRIFTS DISK_NEARLY_FULL EDGE_SILENT OCCUPANCY_IMPOSSIBLE

    // Anomalies of stays.
    CALENDAR_INCOMPLETE CLOCK_NOT_SET CLOCK_SKEW DECISION_WITHOUT_EFFECT ENTRY_WHILE_OPEN EXIT_BEFORE_ENTRY EXIT_WITHOUT_ENTRY
    FORGOTTEN_STAY_CHANGED
    NO_TARIFF OPEN_IN_TWO_GARAGES OTHER_ACCOUNT_IN_CONTRACT PLACE_UNDECIDED STAY_OVER_30_DAYS UNREADABLE_PLATE UNREGISTERED

    // Error exits: settings.
    CONFIGURATION_INVALID CONFIGURATION_UNREADABLE GARAGES_INVALID INVALID_COMMAND_LINE INVALID_SETTING PLAINTEXT_REFUSED TARIFFS_INVALID TOKENS_NEEDED TOKENS_UNUSABLE
    UNKNOWN_CODE

    // Error exits: starting, and what ends a daemon.
    BACKUP_UNFINISHED CANNOT_LISTEN CANNOT_START DATA_DIRECTORY_IN_USE DATA_DIRECTORY_OF_OTHER_GARAGE
    DATA_DIRECTORY_REMOVED DATA_DIRECTORY_RENAMED DATA_DIRECTORY_REPLACED DATA_DIRECTORY_UNUSABLE
    DISK_FAILED DISK_NOT_ANSWERING HIGH_WATER_FILE_UNUSABLE LEDGER_BINDING_UNREADABLE NO_DATA_DIRECTORY
    NO_WRITE_BARRIER SALVAGE_FAILED STORE_DAMAGED STORE_FORMAT_NEWER STORE_FORMAT_UNRELEASED
    STORE_LIMIT_EXCEEDED STORE_OF_OTHER_PROGRAM STORE_PARTLY_UNREADABLE STORE_UNUSABLE TASK_ENDED

    // Error exits: commands.
    BACKUP_FAILED CERTIFICATES_NOT_MADE COMMAND_FATE_UNKNOWN COMMAND_NOT_TAKEN COMMAND_REFUSED COMPACTION_FAILED COPY_FAILED
    DAEMON_NOT_REACHABLE DOCUMENT_NUMBERS_UNKNOWN EXPORT_FAILED FILE_UNREADABLE VERIFY_SPACE_UNUSABLE

    // Error exits: the city.
    BOOKS_NOT_RIGHT CHILD_FAILED RESULT_NOT_WRITTEN RUN_UNFINISHED

    // Log lines.
    ADMIN_SOCKET_UNUSABLE ALARMS_NOT_WRITTEN ALARMS_UNREADABLE APPLIED_EVENTS_UNREADABLE AUDIT_NOT_WRITTEN BALLAST_GIVEN_UP BALLAST_STUCK BOARD_TOO_LARGE_FOR_EDGE
    CALENDAR_ENDS CERTIFICATE_EXPIRES TARIFFS_DIFFER CLOCK_SET CLOCKS_DIFFER COMMAND_NOT_ACCEPTED COMMAND_WITHOUT_EFFECT CONFIRMED_EVENTS_UNREADABLE
    CONFLICT_DECIDED CONNECTION_NOT_ACCEPTED CONNECTION_PANICKED DELIVERED_PAGES_UNREADABLE DOCUMENT_COPIES_UNFINISHED DOCUMENT_DAMAGED
    EPOCH_RECORD_UNREADABLE EVENTS_MISSING EVENTS_QUARANTINED FILES_OF_ROOT GARAGE_DECOMMISSIONED GARAGE_NOT_CERTIFIED
    GARAGE_NAME_UNREADABLE GARAGE_OF_OTHER_LEDGER IDEMPOTENCY_KEYS_UNREADABLE INSECURE_HTTP_ALLOWED LEDGER_ADOPTED LEDGER_END_LOST
    LEDGER_POSITIONS_UNREADABLE LEDGER_REPLACED LINK_BROKE MACHINE_CHANGED MARK_CORRECTED
    MOVE_WAITS_FOR_ROOM NEWEST_PAGE_DAMAGED NO_REPLY NOTIFICATION_NOT_DELIVERED NOTIFICATIONS_DROPPED OWN_COUNT_UNKNOWN PAGES_KEPT_ASIDE
    PEER_CERTIFICATE_EXPIRED PEER_CERTIFICATE_REVOKED PEER_TLS_REFUSED
    PEER_COMMANDS_TOO_MANY PEER_CONNECTS_TOO_OFTEN PEER_FRAME_INVALID PEER_GAVE_WAY PEER_HANDSHAKE_INVALID PEER_HANDSHAKE_TOO_SLOW
    PEER_MECHANISM_UNSUPPORTED PEER_MESSAGE_TOO_LARGE PEER_MESSAGE_UNFINISHED PEER_NOT_READING PEER_NOT_ZMTP PEER_SILENT
    PEER_WITHOUT_DESCRIPTOR PEER_ZMTP_TOO_OLD PEERS_TOO_MANY PERMISSIONS_NARROWED
    PERMISSIONS_TOO_WIDE PLAINTEXT_ALLOWED PLATES_NOT_FORGOTTEN RESENT_PAGE_NOT_COMPARED RESTART_FAILED SALVAGE_NOT_REQUESTED
    SALVAGED_TOO_OFTEN SEQUENCES_WITHOUT_POSITION SERVER_AHEAD_OF_OUTBOX SERVER_BUSY SERVER_UNREACHABLE SIMULATED_CARS
    SNAPSHOT_REMOVED SOCKET_ENDED STOP_TOO_SLOW STORE_NOT_CHECKED STORE_SALVAGE_BEGUN STORE_SALVAGED
    TARIFFS_NOT_PUT_IN_FORCE TORN_END_NOT_KEPT TWO_EDGES VIEW_QUESTION_PANICKED VIEWS_AHEAD_OF_LEDGER
    VIEWS_DROPPED VIEWS_NOT_DROPPED VIEWS_NOT_WRITTEN VIEWS_REBUILT
}

/// The alarms that a server raises, reminds of and resolves.
pub const SERVER_ALARMS: &[Code] = &[
    BACKLOG_GROWS,
    CALENDAR_ENDS,
    CERTIFICATE_EXPIRES,
    CLOCKS_DIFFER,
    CONFLICT,
    COUNT_DRIFTS,
    DISK_NEARLY_FULL,
    EDGE_SILENT,
    EVENTS_MISSING,
    OCCUPANCY_IMPOSSIBLE,
    OUTBOX_FULL,
    QUEUE_STANDS_STILL,
];

/// What `docs/codes.md` says of one code.
#[derive(Debug, Clone, Copy)]
pub struct CodeEntry {
    /// The heading: the code and, in parentheses, where it is seen.
    heading: &'static str,
    body: &'static str,
}

impl CodeEntry {
    pub fn code(&self) -> &'static str {
        self.heading.split(' ').next().unwrap_or_default()
    }

    /// What happened, in one sentence.
    fn summary(&self) -> &'static str {
        self.body.lines().next().unwrap_or_default()
    }
}

/// The entries of `docs/codes.md`, in its order.
pub fn entries() -> impl Iterator<Item = CodeEntry> {
    PAGE.split("\n## ").skip(1).filter_map(|section| {
        let (heading, body) = section.split_once('\n')?;
        Some(CodeEntry { heading, body: body.trim() })
    })
}

/// Answers `explain`: the entry of `code`, or the nearest codes when it has none; without a code one line for each.
pub fn explain(code: Option<&str>) -> Result<String, UnknownCode> {
    let Some(code) = code else {
        let width = entries().map(|entry| entry.code().len()).max().unwrap_or(0);
        return Ok(entries()
            .map(|entry| format!("{:width$}  {}\n", entry.code(), entry.summary()))
            .collect());
    };
    match entries().find(|entry| entry.code() == code) {
        Some(CodeEntry { heading, body }) => Ok(format!("{heading}\n\n{body}\n")),
        None => Err(UnknownCode { code: code.to_owned(), nearest: nearest(code) }),
    }
}

/// Nobody can be told about a code that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no code {code:?}. {}", suggestion(.nearest))]
pub struct UnknownCode {
    code: String,
    nearest: Vec<&'static str>,
}

impl Coded for UnknownCode {
    fn code(&self) -> Code {
        UNKNOWN_CODE
    }
}

fn suggestion(nearest: &[&str]) -> String {
    match nearest {
        [] => "Without a code, \"explain\" lists all".to_owned(),
        some => format!("Did you mean {}?", some.join(", ")),
    }
}

/// At most three codes that `text` may be a slip of, the nearest first.
fn nearest(text: &str) -> Vec<&'static str> {
    let text = text.trim().to_ascii_lowercase().replace('-', "_");
    // A third of the letters may differ; a part of a code, such as "ledger", is enough too.
    let mut near: Vec<_> = entries()
        .map(|entry| (distance(&text, entry.code()), entry.code()))
        .filter(|(distance, code)| *distance <= text.len() / 3 || text.len() > 2 && code.contains(&text))
        .collect();
    near.sort();
    near.into_iter().map(|(_, code)| code).take(3).collect()
}

/// The number of single letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
