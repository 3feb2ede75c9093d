use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const KINDS: [&str; 5] = ["problem", "alarm", "anomaly", "exit", "log"];

impl CodeEntry {
    /// One or more of [`KINDS`].
    fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let kinds = self.heading.split_once('(').map_or("", |(_, kinds)| kinds.trim_end_matches(')'));
        kinds.split(", ")
    }
}

/// Each source file of the library and its text, this module's apart.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.retain(|(path, _)| !path.contains("src/codes"));
    assert!(found.len() > 100, "the sources are found");
    found
}

/// The names of the constants that follow `codes::` in a text.
fn used(text: &str) -> impl Iterator<Item = &str> {
    text.split("codes::").skip(1).map(used_name)
}

fn used_name(text: &str) -> &str {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_name(c)).next().unwrap_or_default()
}

#[test]
fn each_code_has_an_entry_and_each_entry_a_code() {
    let codes: Vec<_> = ALL.iter().map(|code| code.as_str()).collect();
    let declared: BTreeSet<_> = codes.iter().copied().collect();
    assert_eq!(declared.len(), codes.len(), "a code is declared once");
    let explained: Vec<_> = entries().map(|entry| entry.code()).collect();
    assert!(explained.is_sorted_by(|a, b| a < b), "entries stand in the order of the alphabet, each once");
    let explained: BTreeSet<_> = explained.into_iter().collect();
    assert_eq!(declared.difference(&explained).collect::<Vec<_>>(), [&""; 0], "codes without an entry");
    assert_eq!(explained.difference(&declared).collect::<Vec<_>>(), [&""; 0], "entries without a code");
    for code in codes {
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
    }
}

#[test]
fn an_entry_says_what_happened_what_of_the_data_and_what_to_do() {
    for entry in entries() {
        let lines: Vec<_> = entry.body.lines().collect();
        let form = |n: usize, begins: &str| lines.get(n).is_some_and(|line| line.starts_with(begins));
        assert!(
            lines.len() == 3 && form(1, "* Data: ") && form(2, "* To do: "),
            "{}: one line each for what happened, the data and what to do",
            entry.code()
        );
        assert!(lines.iter().all(|line| line.ends_with('.')), "{}: whole sentences", entry.code());
        assert!(entry.kinds().all(|kind| KINDS.contains(&kind)), "{}: {:?}", entry.code(), entry.heading);
    }
}

/// A code is used by its constant, so that one that nothing can show any more is found.
#[test]
fn each_code_is_used() {
    let sources = sources();
    let used: BTreeSet<_> = sources.iter().flat_map(|(_, text)| used(text)).collect();
    let unused = ALL.iter().filter(|code| !used.contains(&*code.as_str().to_ascii_uppercase()));
    // The command line uses this one through the error of this module.
    let unused: Vec<_> = unused.filter(|code| **code != UNKNOWN_CODE).collect();
    assert_eq!(unused, [&UNKNOWN_CODE; 0]);
}

/// Each warning and each error begins with its code: a constant, or that of the error it reports.
#[test]
fn no_warning_and_no_error_is_logged_without_a_code() {
    let (mut logged, mut may_be_logged) = (BTreeSet::new(), BTreeSet::new());
    let sources = sources();
    for (path, text) in &sources {
        assert!(
            !["use tracing::{", "use tracing::warn", "use tracing::error", "use tracing::*"]
                .iter()
                .any(|import| text.contains(import)),
            "{path}: this test looks for tracing::warn! and tracing::error!"
        );
        for (n, _) in text.match_indices("tracing::warn!(").chain(text.match_indices("tracing::error!(")) {
            let fields = text[n..].split_once('(').unwrap().1.trim_start();
            let code = fields.strip_prefix("code = %codes::").map(used_name);
            let of_error = fields.starts_with("%code,") || fields.starts_with("code = %error.code(),");
            assert!(code.is_some() || of_error, "{path}: a log line without a code: {:.60}", fields);
            logged.extend(code);
            if of_error {
                may_be_logged.extend(used(text));
            }
        }
    }
    for entry in entries() {
        let code = entry.code().to_ascii_uppercase();
        let (is_log, is_only_log) = (entry.kinds().any(|kind| kind == "log"), entry.kinds().eq(["log"]));
        assert!(is_log || !logged.contains(&*code), "{code} is logged, so its entry has the kind log");
        let is_logged = logged.contains(&*code) || may_be_logged.contains(&*code);
        assert!(!is_only_log || is_logged, "{code} is not logged");
    }
}

/// Whatever a program prints as the reason of an exit has a code.
#[test]
fn no_error_is_printed_without_a_code() {
    for (path, text) in &sources() {
        assert!(!text.contains("eprint"), "{path} prints to stderr; use codes::print_error");
    }
}

#[test]
fn a_code_is_explained_and_an_unknown_one_refused_with_the_nearest() {
    let explained = explain(Some("outbox_full")).unwrap();
    assert!(explained.starts_with("outbox_full (problem"), "{explained}");
    let all = explain(None).unwrap();
    assert_eq!(all.lines().count(), ALL.len());
    let nearest = |text: &str| explain(Some(text)).unwrap_err().nearest;
    assert_eq!(nearest("outbox-ful")[0], "outbox_full");
    assert_eq!(nearest("Conflict ")[0], "conflict");
    assert!(nearest("idempotency").contains(&"idempotency_key_reused"));
    assert!(nearest("xyzzy").is_empty());
    assert!(explain(Some("")).unwrap_err().to_string().contains("lists all"));
}
