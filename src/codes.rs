//! The codes that identify problems, alarms, anomalies, error exits and log lines, and the page that explains them.
//!
//! **Promise.** A code keeps its name and its meaning from version to version, so that programs, alerts and people can rely on it.
//! **Kept by.** A [`Code`] can be declared only in this file, and a test pairs each with its entry in `docs/codes.md` and with the places
//! that use it.

use serde::{Serialize, Serializer};
use std::fmt;

/// The page, one entry for each code.
const PAGE: &str = include_str!("../docs/codes.md");
/// Suggestions for a code that does not exist.
const SUGGESTIONS_MAX: usize = 3;

/// A stable name in lower snake case, such as `outbox_full`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// An error that can end a program.
pub trait Coded: fmt::Display {
    fn code(&self) -> Code;
}

/// Prints why a program ends to stderr, in the manner of rustc: `error[CODE]: message`.
pub fn print_error(code: Code, message: &dyn fmt::Display) {
    eprintln!("error[{code}]: {message}");
}

macro_rules! codes {
    ($($name:ident = $text:literal;)*) => {
        $(pub const $name: Code = Code($text);)*
        /// Every code that this version knows.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // Problems over HTTP.
    BAD_REQUEST = "bad_request";
    BUSY = "busy";
    DISK_FULL = "disk_full";
    EMPTY_BATCH = "empty_batch";
    HEADERS_TOO_LARGE = "headers_too_large";
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused";
    IDEMPOTENCY_KEYS_FULL = "idempotency_keys_full";
    INTERNAL_ERROR = "internal_error";
    INVALID_CURSOR = "invalid_cursor";
    INVALID_ENCODING = "invalid_encoding";
    INVALID_EVENT = "invalid_event";
    INVALID_IDEMPOTENCY_KEY = "invalid_idempotency_key";
    INVALID_JSON = "invalid_json";
    INVALID_PATH = "invalid_path";
    INVALID_QUERY = "invalid_query";
    METHOD_NOT_ALLOWED = "method_not_allowed";
    NO_SUCH_GARAGE = "no_such_garage";
    NO_SUCH_STATEMENT = "no_such_statement";
    NOT_FOUND = "not_found";
    OUTBOX_FULL = "outbox_full";
    REQUEST_TIMEOUT = "request_timeout";
    STATEMENT_TOO_LONG = "statement_too_long";
    TOO_LARGE = "too_large";
    UNAVAILABLE = "unavailable";
    UNSUPPORTED_CHARSET = "unsupported_charset";
    UNSUPPORTED_CONTENT_ENCODING = "unsupported_content_encoding";
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type";

    // Alarms of an edge; most are log lines too.
    CONFLICT = "conflict";
    NOT_A_SERVER = "not_a_server";
    OTHER_LEDGER = "other_ledger";
    PROTOCOL_VERSION_MISMATCH = "protocol_version_mismatch";
    QUEUE_STANDS_STILL = "queue_stands_still";
    REFUSED_BY_SERVER = "refused_by_server";
    SERVER_WENT_BACK = "server_went_back";

    // Anomalies of stays.
    CLOCK_NOT_SET = "clock_not_set";
    CLOCK_SKEW = "clock_skew";
    ENTRY_WHILE_OPEN = "entry_while_open";
    EXIT_BEFORE_ENTRY = "exit_before_entry";
    EXIT_WITHOUT_ENTRY = "exit_without_entry";
    NO_TARIFF = "no_tariff";
    OPEN_IN_TWO_GARAGES = "open_in_two_garages";
    STAY_OVER_30_DAYS = "stay_over_30_days";
    UNREADABLE_PLATE = "unreadable_plate";
    UNREGISTERED = "unregistered";

    // Error exits: settings.
    CONFIGURATION_INVALID = "configuration_invalid";
    CONFIGURATION_UNREADABLE = "configuration_unreadable";
    INVALID_COMMAND_LINE = "invalid_command_line";
    INVALID_SETTING = "invalid_setting";
    TARIFFS_INVALID = "tariffs_invalid";
    UNKNOWN_CODE = "unknown_code";

    // Error exits: starting, and what ends a daemon.
    BACKUP_UNFINISHED = "backup_unfinished";
    CANNOT_LISTEN = "cannot_listen";
    CANNOT_START = "cannot_start";
    DATA_DIRECTORY_IN_USE = "data_directory_in_use";
    DATA_DIRECTORY_OF_OTHER_GARAGE = "data_directory_of_other_garage";
    DATA_DIRECTORY_REMOVED = "data_directory_removed";
    DATA_DIRECTORY_RENAMED = "data_directory_renamed";
    DATA_DIRECTORY_REPLACED = "data_directory_replaced";
    DATA_DIRECTORY_UNUSABLE = "data_directory_unusable";
    DISK_FAILED = "disk_failed";
    DISK_NOT_ANSWERING = "disk_not_answering";
    HIGH_WATER_FILE_UNUSABLE = "high_water_file_unusable";
    LEDGER_BINDING_UNREADABLE = "ledger_binding_unreadable";
    NO_DATA_DIRECTORY = "no_data_directory";
    NO_WRITE_BARRIER = "no_write_barrier";
    SALVAGE_FAILED = "salvage_failed";
    STORE_DAMAGED = "store_damaged";
    STORE_FORMAT_NEWER = "store_format_newer";
    STORE_FORMAT_UNRELEASED = "store_format_unreleased";
    STORE_LIMIT_EXCEEDED = "store_limit_exceeded";
    STORE_OF_OTHER_PROGRAM = "store_of_other_program";
    STORE_PARTLY_UNREADABLE = "store_partly_unreadable";
    STORE_UNUSABLE = "store_unusable";
    TASK_ENDED = "task_ended";

    // Error exits: commands.
    BACKUP_FAILED = "backup_failed";
    COMMAND_FATE_UNKNOWN = "command_fate_unknown";
    COMMAND_NOT_TAKEN = "command_not_taken";
    COMMAND_REFUSED = "command_refused";
    COMPACTION_FAILED = "compaction_failed";
    COPY_FAILED = "copy_failed";
    DAEMON_NOT_REACHABLE = "daemon_not_reachable";
    EXPORT_FAILED = "export_failed";
    FILE_UNREADABLE = "file_unreadable";
    VERIFY_SPACE_UNUSABLE = "verify_space_unusable";

    // Error exits: the city.
    BOOKS_NOT_RIGHT = "books_not_right";
    CHILD_FAILED = "child_failed";
    RESULT_NOT_WRITTEN = "result_not_written";
    RUN_UNFINISHED = "run_unfinished";

    // Log lines.
    ADMIN_SOCKET_UNUSABLE = "admin_socket_unusable";
    APPLIED_EVENTS_UNREADABLE = "applied_events_unreadable";
    BALLAST_GIVEN_UP = "ballast_given_up";
    BALLAST_STUCK = "ballast_stuck";
    BOARD_TOO_LARGE_FOR_EDGE = "board_too_large_for_edge";
    CLOCK_SET = "clock_set";
    CLOCKS_DIFFER = "clocks_differ";
    COMMAND_NOT_ACCEPTED = "command_not_accepted";
    COMMAND_WITHOUT_EFFECT = "command_without_effect";
    CONFIRMED_EVENTS_UNREADABLE = "confirmed_events_unreadable";
    CONFLICT_DECIDED = "conflict_decided";
    CONNECTION_NOT_ACCEPTED = "connection_not_accepted";
    CONNECTION_PANICKED = "connection_panicked";
    DELIVERED_PAGES_UNREADABLE = "delivered_pages_unreadable";
    EPOCH_RECORD_UNREADABLE = "epoch_record_unreadable";
    EVENTS_MISSING = "events_missing";
    EVENTS_QUARANTINED = "events_quarantined";
    FILES_OF_ROOT = "files_of_root";
    GARAGE_DECOMMISSIONED = "garage_decommissioned";
    GARAGE_NAME_UNREADABLE = "garage_name_unreadable";
    GARAGE_OF_OTHER_LEDGER = "garage_of_other_ledger";
    IDEMPOTENCY_KEYS_UNREADABLE = "idempotency_keys_unreadable";
    LEDGER_ADOPTED = "ledger_adopted";
    LEDGER_END_LOST = "ledger_end_lost";
    LEDGER_POSITIONS_UNREADABLE = "ledger_positions_unreadable";
    LEDGER_REPLACED = "ledger_replaced";
    LINK_BROKE = "link_broke";
    MACHINE_CHANGED = "machine_changed";
    MARK_CORRECTED = "mark_corrected";
    MOVE_WAITS_FOR_ROOM = "move_waits_for_room";
    NEWEST_PAGE_DAMAGED = "newest_page_damaged";
    NO_REPLY = "no_reply";
    OWN_COUNT_UNKNOWN = "own_count_unknown";
    PAGES_KEPT_ASIDE = "pages_kept_aside";
    PERMISSIONS_NARROWED = "permissions_narrowed";
    PERMISSIONS_TOO_WIDE = "permissions_too_wide";
    PLATES_NOT_FORGOTTEN = "plates_not_forgotten";
    RESENT_PAGE_NOT_COMPARED = "resent_page_not_compared";
    RESTART_FAILED = "restart_failed";
    SALVAGE_NOT_REQUESTED = "salvage_not_requested";
    SALVAGED_TOO_OFTEN = "salvaged_too_often";
    SEQUENCES_WITHOUT_POSITION = "sequences_without_position";
    SERVER_AHEAD_OF_OUTBOX = "server_ahead_of_outbox";
    SERVER_UNREACHABLE = "server_unreachable";
    SIMULATED_CARS = "simulated_cars";
    SNAPSHOT_REMOVED = "snapshot_removed";
    SOCKET_ENDED = "socket_ended";
    STOP_TOO_SLOW = "stop_too_slow";
    STORE_NOT_CHECKED = "store_not_checked";
    STORE_SALVAGE_BEGUN = "store_salvage_begun";
    STORE_SALVAGED = "store_salvaged";
    TARIFFS_NOT_PUT_IN_FORCE = "tariffs_not_put_in_force";
    TORN_END_NOT_KEPT = "torn_end_not_kept";
    TWO_EDGES = "two_edges";
    VIEW_QUESTION_PANICKED = "view_question_panicked";
    VIEWS_AHEAD_OF_LEDGER = "views_ahead_of_ledger";
    VIEWS_DROPPED = "views_dropped";
    VIEWS_NOT_DROPPED = "views_not_dropped";
    VIEWS_NOT_WRITTEN = "views_not_written";
    VIEWS_REBUILT = "views_rebuilt";
}

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

    /// One or more of problem, alarm, anomaly, exit and log.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let kinds = self.heading.split_once('(').map_or("", |(_, kinds)| kinds.trim_end_matches(')'));
        kinds.split(", ")
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

/// The codes that `text` may be a slip of, the nearest first.
fn nearest(text: &str) -> Vec<&'static str> {
    let text = text.trim().to_ascii_lowercase().replace('-', "_");
    // A third of the letters may differ; a part of a code, such as "ledger", is enough too.
    let mut near: Vec<_> = entries()
        .map(|entry| (distance(&text, entry.code()), entry.code()))
        .filter(|(distance, code)| *distance <= text.len() / 3 || text.len() > 2 && code.contains(&text))
        .collect();
    near.sort();
    near.into_iter().map(|(_, code)| code).take(SUGGESTIONS_MAX).collect()
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
