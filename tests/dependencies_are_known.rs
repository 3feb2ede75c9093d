//! **Promise.** Each dependency comes from crates.io with the bytes that the lock file names, has a licence that we accept, and is there
//! in one version. An exception is a line in a list below, with its reason; one that is no longer needed fails as well.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The licences without which a dependency could not be used, and what they ask for.
const LICENCES: &[(&str, &str)] = &[
    ("MIT", "its notice goes with copies"),
    ("Apache-2.0", "its text and notices go with copies"),
    ("BSD-3-Clause", "its notice goes with copies, and nobody is named in advertising"),
    ("0BSD", "it asks for nothing"),
    ("ISC", "its notice goes with copies"),
    ("Unicode-3.0", "its notice goes with the tables of Unicode"),
];

/// Dependencies of which there are several versions: (name, reason).
const SEVERAL_VERSIONS: &[(&str, &str)] = &[
    ("embedded-io", "postcard names two, and uses neither here"),
    ("getrandom", "ring 0.17 has not moved to the version of rand"),
    ("nom", "lettre uses 8, and what reads the certificates of rcgen has not moved from 7"),
    ("parking_lot", "sled 0.34 is the last release, and keeps the old one"),
    ("parking_lot_core", "as parking_lot"),
    ("syn", "at build time alone: derive macros move to 3 one after the other"),
    ("synstructure", "as syn"),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The dependencies that this platform needs. What others need was never fetched here.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{} packages", packages.len());
    packages.iter().filter(|package| package["name"] != env!("CARGO_PKG_NAME")).cloned().collect()
}

/// For each part of an expression, all of which hold: those of its alternatives that we accept.
fn accepted(expression: &str) -> Vec<Vec<&'static str>> {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    let known =
        |text: &str| LICENCES.iter().map(|(licence, _)| *licence).find(|licence| *licence == text.trim());
    expression.split(" AND ").map(|part| part.split(" OR ").filter_map(known).collect()).collect()
}

#[test]
fn every_licence_is_one_that_we_accept() {
    let mut needed = BTreeSet::new();
    for package in packages() {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        for alternatives in accepted(licence) {
            assert!(!alternatives.is_empty(), "{name}: licence {licence}");
            if let [only] = alternatives[..] {
                needed.insert(only);
            }
        }
    }
    assert_eq!(
        needed,
        LICENCES.iter().map(|(licence, _)| *licence).collect(),
        "what is accepted, and what is needed"
    );
}

#[test]
fn a_licence_is_accepted_only_if_each_of_its_parts_is() {
    assert_eq!(accepted("Zlib OR Apache-2.0 OR MIT"), [["Apache-2.0", "MIT"]]);
    assert_eq!(accepted("(MIT OR Apache-2.0) AND GPL-3.0"), [vec!["MIT", "Apache-2.0"], vec![]]);
    assert_eq!(accepted("GPL-3.0/MIT"), [["MIT"]]);
}

#[test]
fn everything_comes_from_crates_io_with_the_bytes_of_the_lock_file() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let text = fs::read_to_string(root().join(lock)).unwrap();
        let lock: toml::Table = text.parse().unwrap();
        for package in lock["package"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            if name.starts_with(env!("CARGO_PKG_NAME")) {
                assert!(package.get("source").is_none(), "{name} is ours");
                continue;
            }
            let source = package.get("source").and_then(toml::Value::as_str);
            assert_eq!(source, Some(CRATES_IO), "{name} comes from elsewhere");
            assert!(package.get("checksum").is_some(), "{name} has no checksum");
        }
    }
}

#[test]
fn nothing_is_there_in_two_versions_without_a_reason() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        let text = |field: &str| package[field].as_str().unwrap().to_owned();
        versions.entry(text("name")).or_default().push(text("version"));
    }
    versions.retain(|_, versions| versions.len() > 1);
    let found: BTreeSet<&str> = versions.keys().map(String::as_str).collect();
    assert_eq!(found, SEVERAL_VERSIONS.iter().map(|(name, _)| *name).collect(), "{versions:?}");
}
