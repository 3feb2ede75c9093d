//! **Promise.** `city --chaos` kills edges and the server and cuts their links, from the first event to the last, and every
//! event that was confirmed is at the server once, in order. A daemon that ends without being killed by it is a failure.

use crate::common::daemon::command;
use crate::common::scale::{Scale, runs_from};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/birmingham/birmingham.csv");

const CITY: &str = env!("CARGO_BIN_EXE_city");

fn start(arguments: &[&str]) -> Child {
    start_program(Path::new(CITY), arguments)
}

fn start_program(program: &Path, arguments: &[&str]) -> Child {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let mut command = command(program.to_str().unwrap(), &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The exit code and the result of a city that ended.
fn result(output: &Output) -> (Option<i32>, Value) {
    let progress = String::from_utf8_lossy(&output.stderr);
    println!("{progress}");
    let json = String::from_utf8_lossy(&output.stdout);
    (output.status.code(), serde_json::from_str(&json).unwrap_or_else(|_| panic!("no result: {json}")))
}

fn city(arguments: &[&str]) -> (Option<i32>, Value) {
    result(&start(arguments).wait_with_output().unwrap())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_replay_in_bad_weather_comes_to_the_same_as_in_good_weather() {
    let replay = ["--replay", RECORDING, "--limit", "20000", "--seed", "7", "--exit-when-settled", "--json"];
    let (good, calm) = city(&replay);
    let (bad, stormy) = city(&[&replay[..], &["--chaos"]].concat());
    assert_eq!((good, bad), (Some(0), Some(0)), "{stormy}");
    assert!(calm.get("chaos").is_none());
    for result in [&calm, &stormy] {
        assert_eq!((number(&result["events"]), number(&result["applied"])), (20_000, 20_000));
        assert_eq!((&result["books_right"], &result["verified"]), (&true.into(), &"full".into()));
    }
    assert_eq!(calm["garages"], stormy["garages"], "weather changes neither events nor occupancies");

    let chaos = &stormy["chaos"];
    let cuts = &chaos["cuts"];
    assert_eq!(number(&chaos["planned"]), 20);
    assert_eq!(number(&chaos["edges_killed"]), 8);
    assert_eq!(number(&chaos["server_killed"]), 4);
    assert_eq!(number(&cuts["total"]), 8);
    let kinds = ["delay", "stall", "reset", "black_hole", "half_open", "refused"];
    assert!(kinds.iter().all(|kind| number(&cuts[kind]) > 0), "{cuts}");
    assert!(number(&cuts["met_traffic"]) >= 6, "the cuts met nothing, so that they prove nothing: {cuts}");
    assert!(number(&chaos["posts_repeated"]) > 0, "no kill met a post: {chaos}");
    assert!(number(&stormy["resends"]) > 0, "nothing had to be sent again");
}

#[test]
fn a_city_whose_connections_have_tls_is_right_in_bad_weather() {
    let replay = ["--replay", RECORDING, "--limit", "5000", "--seed", "7", "--exit-when-settled", "--json"];
    let (code, result) = city(&[&replay[..], &["--chaos", "--tls"]].concat());
    assert_eq!((code, number(&result["applied"])), (Some(0), 5_000), "{result}");
}

#[test]
fn a_live_city_in_bad_weather_is_right_when_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let child =
        start(&["--chaos", "--speed", "600", "--garages", "4", "--seed", "3", "--json", "--data-dir", data]);
    wait_until("eight faults have struck", || faults(dir.path()).len() >= 8);
    signal(child.id(), rustix::process::Signal::INT);
    let (code, result) = result(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{result}");
    assert_eq!((&result["books_right"], &result["interrupted"]), (&true.into(), &true.into()));
    assert_eq!(result["events"], result["applied"]);
    assert!(number(&result["events"]) > 100, "{result}");
    let chaos = &result["chaos"];
    // Of ten faults in a row four kill edges, two the server, and four cut links.
    assert!(number(&chaos["edges_killed"]) >= 2, "{chaos}");
    assert!(number(&chaos["server_killed"]) >= 1, "{chaos}");
    assert!(number(&chaos["cuts"]["total"]) >= 2, "{chaos}");
    assert!(chaos["planned"].is_null(), "{chaos}");
}

/// A fault every few seconds, each on top of what those before it left behind.
#[test]
fn a_live_city_is_right_after_twenty_minutes_of_bad_weather() {
    if !runs_from(Scale::Long) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let child = start(&["--chaos", "--json", "--data-dir", data]);
    let (city, began) = (child.id(), Instant::now());
    // What it says is read all the time, so that it never waits for us.
    let ended = std::thread::spawn(|| child.wait_with_output().unwrap());
    while began.elapsed() < Duration::from_secs(20 * 60) && !ended.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
    }
    if !ended.is_finished() {
        signal(city, rustix::process::Signal::INT);
    }
    let (code, result) = result(&ended.join().unwrap());
    println!("{result}");
    assert_eq!((code, &result["books_right"]), (Some(0), &true.into()), "{result}");
    assert!(began.elapsed() >= Duration::from_secs(20 * 60), "it ended by itself: {result}");
    assert_eq!(result["events"], result["applied"]);
    assert!(number(&result["chaos"]["edges_killed"]) >= 50, "{result}");
}

#[test]
fn a_daemon_that_ends_by_itself_in_bad_weather_is_a_failure_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("city");
    let arguments = ["--chaos", "--garages", "2", "--json", "--data-dir", data.to_str().unwrap()];
    let child = start(&arguments);
    let edge = edge_of(child.id(), &data);
    // SIGTERM is not what the weather sends.
    signal(edge, rustix::process::Signal::TERM);
    let (code, result) = result(&child.wait_with_output().unwrap());
    assert_eq!((code, &result["books_right"]), (Some(1), &false.into()));
    let error = result["error"].as_str().unwrap();
    assert!(error.contains("edge-2 ended by itself (exit code 0)"), "{error}");
}

/// A city once started the daemons that it had killed from the path of its program. When this was built again during the run,
/// they were of another version, or did not start at all.
#[test]
fn a_city_whose_program_is_replaced_goes_on_with_the_version_that_it_is_of() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (program, data) = (dir.path().join("city"), dir.path().join("data"));
    // As a build does it: another name of the file, which is taken away and given to another file.
    std::fs::hard_link(CITY, &program).unwrap();
    let replay = ["--replay", RECORDING, "--limit", "3000", "--chaos", "--exit-when-settled", "--json"];
    let arguments = [&replay[..], &["--data-dir", data.to_str().unwrap()]].concat();
    let child = start_program(&program, &arguments);
    wait_until("the server is up", || data.join("server/http.addr").exists());
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "another version").unwrap();
    let (code, result) = result(&child.wait_with_output().unwrap());
    assert_eq!((code, &result["books_right"]), (Some(0), &true.into()), "{result}");
    assert_eq!(result["ledger_verified"], true);
    // All of them came back after the program was replaced.
    let killed = [number(&result["chaos"]["edges_killed"]), number(&result["chaos"]["server_killed"])];
    assert_eq!(killed, [8, 4]);
}

#[test]
fn one_seed_gives_one_plan_of_faults() {
    let storm = |seed: &str| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let arguments = ["--replay", RECORDING, "--limit", "3000", "--data-dir", data, "--seed", seed];
        let (code, result) = city(&[&arguments[..], &["--chaos", "--exit-when-settled", "--json"]].concat());
        assert_eq!(code, Some(0), "{result}");
        faults(dir.path())
    };
    let first = storm("9");
    assert_eq!(first.len(), 20);
    assert!(first[0].starts_with("at event "), "{first:?}");
    assert_eq!(first, storm("9"));
    assert_ne!(first, storm("10"));
}

/// The faults that have struck, as the city wrote them down, without the time that it took.
fn faults(data: &Path) -> Vec<String> {
    let diary = std::fs::read_to_string(data.join("logs/weather.log")).unwrap_or_default();
    diary.lines().filter_map(|line| Some(line.split_once(" s: ")?.1.to_owned())).collect()
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(120), "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The process of the second edge, once it is ready.
fn edge_of(city: u32, data: &Path) -> u32 {
    let place = data.join("edge-2");
    let mut found = None;
    wait_until("the second edge is ready", || {
        found = children(city).into_iter().find(|pid| is_about(*pid, &place));
        place.join("http.addr").exists() && found.is_some()
    });
    found.unwrap()
}

fn children(city: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{city}/task")) else {
        return Vec::new();
    };
    let lists =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

fn is_about(pid: u32, place: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').any(|word| Path::new(word) == place)
}
