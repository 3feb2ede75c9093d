//! **Promise.** Both programs explain each code, need no data for it, and print errors with one: `error[CODE]: message`.

use crate::common::daemon::{EDGE, SERVER};
use std::process::{Command, Output};

/// Runs a program to its end, away from any data and with a configuration file that is not there.
fn run(program: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(args).current_dir(dir.path()).env("FOGPOST_CONFIG", "missing.toml");
    let output = command.output().unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "{program} {args:?} left something");
    output
}

/// What it says on stdout, when all is well.
fn explained(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success() && output.stderr.is_empty(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says on stderr when it refuses with 64.
fn refused(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.code() == Some(64) && output.stdout.is_empty(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn explain_shows_one_code_or_all_and_refuses_an_unknown_one_with_the_nearest() {
    for program in [EDGE, SERVER] {
        let one = explained(program, &["explain", "outbox_full"]);
        assert!(one.starts_with("outbox_full (problem"), "{one}");
        assert!(one.contains("* Data: ") && one.contains("* To do: "), "{one}");
        let all = explained(program, &["explain"]);
        for line in all.lines() {
            let (code, summary) = line.split_once(' ').unwrap();
            assert!(!summary.trim().is_empty(), "{line}");
            assert!(explained(program, &["explain", code]).starts_with(code), "{line}");
        }
        assert!(all.lines().count() > 50, "{all}");
        let unknown = refused(program, &["explain", "outbox_ful"]);
        assert!(unknown.starts_with("error[unknown_code]: "), "{unknown}");
        assert!(unknown.contains("Did you mean outbox_full?"), "{unknown}");
    }
}

#[test]
fn an_error_exit_names_a_code_that_is_explained() {
    let refusals: [(&str, &[&str], &str); 5] = [
        (EDGE, &["--colour"], "invalid_command_line"),
        (SERVER, &["--colour"], "invalid_command_line"),
        (EDGE, &["--garage-name", "a"], "configuration_unreadable"),
        (SERVER, &[], "configuration_unreadable"),
        (SERVER, &["tariffs", "check", "nowhere.toml"], "configuration_unreadable"),
    ];
    for (program, args, code) in refusals {
        let said = refused(program, args);
        assert!(said.starts_with(&format!("error[{code}]: ")), "{program} {args:?}: {said}");
        assert!(explained(program, &["explain", code]).starts_with(code));
    }
}
