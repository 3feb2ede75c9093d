//! `messaging` serves something that is no parking: the example `meter` runs, and is short.

use std::process::Command;

#[test]
fn five_hundred_readings_are_booked_once_over_a_link_that_loses_a_third() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    // In the profile of the tests, for which the library is built already.
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--profile", "test", "--example", "meter", "--manifest-path", manifest])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("500 readings booked once, in order"), "{stdout}");
}

#[test]
fn it_takes_fewer_than_80_lines_and_no_parking() {
    let source = include_str!("../examples/meter.rs");
    assert!(source.lines().count() < 80);
    assert!(!source.contains("fogpost::parking") && !source.contains("fogpost::server"));
}
