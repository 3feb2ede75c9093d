//! **Promise.** After the replay of the recorded year of thirty garages the server's books are right: `server verify` applies
//! every event again and agrees, each stay is known, and the server has stayed small.
//!
//! `./test --long` replays the whole recording, smaller runs the beginning of it, so that it takes seconds. To run it whole:
//! `FOGPOST_TEST_SCALE=long cargo test --release --test promises the_whole_replay_is_right:: -- --nocapture`.

use crate::common::Operator;
use crate::common::daemon::command;
use crate::common::scale::by_scale;
use serde_json::Value;
use std::time::{Duration, Instant};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/birmingham/birmingham.csv");
const EVENTS: u64 = 2_239_705;
const CLOSED: u64 = 1_108_056;
const OPEN: u64 = 23_585;
/// Cars that leave and never came: the recording begins with cars inside, and eight of its exits find none.
const UNMATCHED: u64 = 8;

const SERVER_BELOW_BYTES: u64 = 128 << 20;
/// The promise is 20 s for the whole recording. Asserted generously, since other tests run beside; the figure is printed.
const VERIFIED_WITHIN: Duration = Duration::from_secs(60);

fn number(of: &Value, field: &str) -> u64 {
    of[field].as_u64().unwrap_or_else(|| panic!("{field} is no number: {of}"))
}

#[test]
fn the_books_after_the_replay_are_right_and_the_server_is_small() {
    let events = by_scale(20_000, 200_000, EVENTS);
    let whole = events == EVENTS;
    let dir = tempfile::tempdir().unwrap();
    let (data, limit) = (dir.path().to_str().unwrap(), events.to_string());
    // Here `server verify` judges; that each event is what was confirmed is what the tests of the city look at.
    let mut arguments = vec![
        "--replay",
        RECORDING,
        "--data-dir",
        data,
        "--verify",
        "counts",
        "--exit-when-settled",
        "--json",
    ];
    if !whole {
        arguments.extend(["--limit", &limit]);
    }
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let output = command(env!("CARGO_BIN_EXE_city"), &arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let city: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((number(&city, "events"), number(&city, "applied")), (events, events));
    let server_bytes = number(&city["peak_rss_bytes"], "server");

    let began = Instant::now();
    let said = Operator::of(&dir.path().join("server")).says(&["verify", "--json"]).json();
    let verified = began.elapsed();
    println!(
        "{events} events: replayed at {:.0}/s, verified in {verified:.1?}; {} stays closed, {} open, {} exits unmatched; the server held {} MB at most",
        city["events_per_second"].as_f64().unwrap(),
        said["stays_closed"],
        said["stays_open"],
        said["exits_unmatched"],
        server_bytes >> 20
    );
    assert_eq!((&said["clean"], number(&said, "events")), (&true.into(), events), "{said}");
    assert_eq!(said["position"], said["views_position"], "a server that was stopped has applied everything");
    for nothing in ["holes", "missing", "truncated", "quarantined"] {
        assert_eq!(said[nothing], 0, "{nothing}: {said}");
    }
    let stays = ["stays_closed", "stays_open", "exits_missed", "exits_unmatched"];
    let [closed, open, missed, unmatched] = stays.map(|field| number(&said, field));
    // Each entry begins a stay, and each exit ends one or is matched by none.
    assert_eq!(2 * closed + open + missed + unmatched, events);
    let inside =
        city["garages"].as_array().unwrap().iter().map(|garage| garage["occupied"].as_i64().unwrap());
    assert_eq!(inside.sum::<i64>(), (open + missed) as i64 - unmatched as i64);
    if whole {
        assert_eq!((closed, open, missed, unmatched), (CLOSED, OPEN, 0, UNMATCHED));
    }
    assert!(server_bytes < SERVER_BELOW_BYTES, "{server_bytes} bytes");
    assert!(verified < VERIFIED_WITHIN, "{verified:?}");
}
