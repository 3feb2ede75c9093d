//! `config.example.toml` shows every setting there is, and the values that hold without it.

use fogpost::cli::edge::EdgeCall;
use fogpost::cli::server::ServerCall;
use fogpost::parking::tariff::TariffSet;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");

fn args(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

#[test]
fn its_values_are_the_defaults() {
    let with = EdgeCall::from_args(args(&["edge", "--config", EXAMPLE])).unwrap();
    let without = EdgeCall::from_args(args(&["edge", "--garage-name", "1"])).unwrap();
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
    let with = ServerCall::from_args(args(&["server", "--config", EXAMPLE])).unwrap();
    let without = ServerCall::from_args(args(&["server"])).unwrap();
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
}

/// The keys of a table, also those that stand commented out as `# key = value`.
fn keys(table: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().skip_while(|line| *line != format!("[{table}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let key = |line: &str| -> Option<String> {
        let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
        key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then(|| key.to_owned())
    };
    lines.filter_map(key).collect()
}

/// The long flags of a program, as keys of the file.
fn flags(program: &str) -> BTreeSet<String> {
    let help = Command::new(program).arg("--help").output().unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let flags = words.map(|flag| flag.trim_matches(|c: char| !c.is_alphanumeric()).replace('-', "_"));
    flags.filter(|flag| !matches!(flag.as_str(), "help" | "version" | "config")).collect()
}

#[test]
fn it_shows_every_flag_and_nothing_else() {
    assert_eq!(keys("edge"), flags(env!("CARGO_BIN_EXE_edge")));
    assert_eq!(keys("server"), flags(env!("CARGO_BIN_EXE_server")));
}

#[test]
fn its_tariff_is_valid_without_the_hashes() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("#     "));
    let tariffs = TariffSet::parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    let entry = "2026-03-02T08:00:00+01:00".parse().unwrap();
    for garage in ["1", "Bull Ring"] {
        assert_eq!(tariffs.for_stay(garage, entry).map(|tariff| tariff.name.as_str()), Some("centre"));
    }
}
