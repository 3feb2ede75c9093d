//! Replays the corpora.

use super::*;
use std::collections::BTreeSet;
use std::fs;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap().map(Result::unwrap);
    entries.map(|entry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Every kind of input is understood at least once: a corpus that no longer gets beyond the first check would show nothing.
#[test]
fn no_input_of_the_corpora_ends_a_target() {
    for FuzzTarget { name, kinds, run } in TARGETS {
        let mut understood = BTreeSet::new();
        for entry in fs::read_dir(fuzz().join("corpus").join(name)).unwrap().map(Result::unwrap) {
            let bytes = fs::read(entry.path()).unwrap();
            println!("{}", entry.path().display());
            if run(&bytes) {
                understood.insert(bytes[0] % kinds);
            }
        }
        assert_eq!(
            understood.len(),
            usize::from(kinds),
            "{name}: of its kinds only {understood:?} are understood"
        );
    }
}

#[test]
fn each_target_has_its_program_and_its_corpus() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names_in("fuzz_targets"), names);
    assert_eq!(names_in("corpus"), names);
    let manifest: toml::Table = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap().parse().unwrap();
    let programs =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned());
    assert_eq!(programs.collect::<BTreeSet<_>>(), names);
    for name in &names {
        let program = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", bytes)")), "{name}");
    }
}
