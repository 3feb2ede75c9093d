//! **Promise.** Without the server a garage works on: its edge confirms events, counts its own cars with what is not
//! delivered yet, shows the last board of the city with its age, also after a restart, and delivers
//! everything when the server is back. Either program can be told to stop at any time: it ends with 0 within 5 s, and
//! goes on where it was when it is started again.

use crate::common::{
    Edge, Garage, Journal, Server, assert_exactly_once, events_of, send_half_a_request, wait_until,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const STOPS_WITHIN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(20);

fn board(edge: &Edge) -> Value {
    edge.http().get_json("/v1/board")
}

/// What an edge counts itself, without what it knows from the server of its own garage.
fn own(edge: &Edge) -> Value {
    let mut own = board(edge)["own"].take();
    let known = own.as_object_mut().unwrap();
    for field in ["state", "state_changes_at", "group", "position"] {
        assert!(known.remove(field).is_some(), "{field}");
    }
    own
}

fn age(edge: &Edge) -> f64 {
    board(edge)["age_seconds"].as_f64().expect("there is a board")
}

fn post(edge: &Edge, event: Value) {
    let answer = edge.http().post_event(&event).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn an_edge_that_never_heard_of_a_server_confirms_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let mut edge = Edge::start(&dir.path().join("edge"), "north", &nowhere, &["--capacity", "10"]);
    for plate in ["KA1", "KA2", "KA3"] {
        post(&edge, json!({"kind": "entry", "plate": plate}));
    }
    post(&edge, json!({"kind": "exit", "plate": "KA2"}));
    post(&edge, json!({"kind": "entry", "plate": null}));
    // The directory may have taken the place of one that was lost: only the server knows, or staff that count.
    let unknown = json!({"name": "north", "capacity": 10, "occupied": null, "free": null, "pending": 5});
    assert_eq!(own(&edge), unknown);
    let shown = board(&edge);
    assert_eq!((&shown["garages"], &shown["age_seconds"]), (&json!([]), &Value::Null));
    assert_eq!(shown["connected"], false);
    // Staff counted: what came before counts no more.
    post(&edge, json!({"kind": "count", "occupied": 7, "reason": "rounds"}));
    post(&edge, json!({"kind": "exit", "plate": null}));
    assert_eq!(board(&edge)["own"]["occupied"], 6);
    for restart in [Edge::kill, |edge: &mut Edge| assert_eq!(edge.stop().0, Some(0))] {
        restart(&mut edge);
        edge.restart();
        let counted = json!({"name": "north", "capacity": 10, "occupied": 6, "free": 4, "pending": 7});
        assert_eq!(own(&edge), counted, "after a restart");
    }
}

/// The sign of a full garage once said that 500 spaces are free.
#[test]
fn an_edge_whose_directory_was_lost_shows_no_count_until_the_server_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "north", &[server.address()], &[]);
    Journal::default().post_entries(&edge.http(), (0..7).map(|n| format!("KA{n}")).collect());
    wait_until("the cars are delivered", SOON, &[&edge, &server], || edge.depth() == 0);
    server.kill();
    edge.kill();
    std::fs::remove_dir_all(edge.dir()).unwrap();
    edge.restart();
    let unknown = json!({"name": "north", "capacity": 500, "occupied": null, "free": null, "pending": 0});
    assert_eq!(own(&edge), unknown);
    post(&edge, json!({"kind": "entry", "plate": "KA8"}));
    assert_eq!(board(&edge)["own"]["occupied"], Value::Null, "it is not one car either");
    server.restart();
    wait_until("the count is that of the server", SOON, &[&edge, &server], || {
        let own = &board(&edge)["own"];
        (&own["occupied"], &own["free"]) == (&json!(8), &json!(492))
    });
}

/// A garage that has only told how many spaces it has is not known to be empty.
#[test]
fn what_the_server_does_not_know_of_a_garage_is_null() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let quick = ["--board-interval-ms", "100"];
    let silent = Edge::start(&dir.path().join("silent"), "silent", &[server.address()], &quick);
    let busy = Edge::start(&dir.path().join("busy"), "busy", &[server.address()], &quick);
    post(&busy, json!({"kind": "entry", "plate": "KA1"}));
    let line = |list: &Value| {
        let lines = list["garages"].as_array().unwrap().clone();
        lines.into_iter().find(|line| line["name"] == "silent")
    };
    let count = |line: &Value| (line["occupied"].clone(), line["free"].clone());
    wait_until("the board has both", SOON, &[&silent, &busy, &server], || {
        let shown = board(&busy);
        shown["garages"].as_array().unwrap().iter().any(|line| line["name"] == "busy")
    });
    for list in [server.http().get_json("/v1/garages"), server.http().get_json("/v1/occupancy"), board(&busy)]
    {
        // A server need not list a garage without events at all.
        if let Some(line) = line(&list) {
            assert_eq!(count(&line), (Value::Null, Value::Null), "{list}");
        }
    }
    assert_eq!(server.occupied("busy"), Some(1));
}

#[test]
fn the_last_board_stays_with_its_age_and_what_waited_is_delivered_when_the_server_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let servers = [server.address()];
    let quick = ["--board-interval-ms", "100", "--capacity", "50"];
    let mut north = Edge::start(&dir.path().join("north"), "north", &servers, &quick);
    let south = Edge::start(&dir.path().join("south"), "south", &servers, &quick);
    let mut journal = Journal::default();
    journal.post_entries(&north.http(), (0..10).map(|n| format!("NO{n}")).collect());
    Journal::default().post_entries(&south.http(), (0..4).map(|n| format!("SO{n}")).collect());
    let line = |board: &Value, name: &str| {
        let lines = board["garages"].as_array().unwrap().clone();
        lines.into_iter().find(|line| line["name"] == name).unwrap_or_default()
    };
    wait_until("the board shows both garages", SOON, &[&north, &south, &server], || {
        let shown = board(&north);
        line(&shown, "north")["occupied"] == 10 && line(&shown, "south")["occupied"] == 4
    });

    server.kill();
    journal.post_entries(&north.http(), (10..13).map(|n| format!("NO{n}")).collect());
    let shows_the_past_and_itself = |north: &Edge| {
        let shown = board(north);
        assert_eq!(line(&shown, "south")["occupied"], 4);
        assert_eq!(line(&shown, "south")["free"], 46);
        assert_eq!(shown["own"]["occupied"], 13, "{shown}");
        assert_eq!(shown["own"]["pending"], 3, "{shown}");
    };
    shows_the_past_and_itself(&north);
    let before = age(&north);
    wait_until("the board grows older", SOON, &[&north], || age(&north) > before + 0.5);
    wait_until("the edge says that it is on its own", SOON, &[&north], || {
        board(&north)["connected"] == false
    });
    let before = age(&north);
    assert_eq!(north.stop().0, Some(0));
    north.restart();
    shows_the_past_and_itself(&north);
    assert!(age(&north) > before, "the age begins again after a restart");
    // It was written to disk at the stop; a kill now takes nothing away.
    let before = age(&north);
    north.kill();
    north.restart();
    shows_the_past_and_itself(&north);
    assert!(age(&north) > before, "the age begins again after a kill");

    server.restart();
    wait_until("what waited is delivered", SOON, &[&north, &server], || {
        let shown = board(&north);
        north.depth() == 0
            && shown["connected"] == true
            && line(&shown, "north")["occupied"] == 13
            && shown["age_seconds"].as_f64().unwrap() < 2.0
    });
    assert_eq!(board(&north)["own"]["occupied"], 13);
    assert_exactly_once(&events_of(&server, "north"), &[journal]);
}

#[test]
fn told_to_stop_while_traffic_flows_both_end_with_0_in_time_and_go_on_when_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let cameras: [&[usize]; 3] = [&[1], &[1, 10], &[100]];
    let mut garage = Garage::start(dir.path(), "Bull Ring", &[server.address()], &cameras);
    for _ in 0..4 {
        for part in ["the edge", "the server", "both"] {
            let confirmed = garage.confirmed();
            wait_until("traffic flows", SOON, &[&garage.edge, &server], || {
                garage.confirmed() > confirmed + 100
            });
            let mut stopped = Vec::new();
            if part != "the server" {
                stopped.push(garage.edge.stop());
            }
            if part != "the edge" {
                stopped.push(server.stop());
            }
            for (code, took) in stopped {
                assert_eq!(code, Some(0), "{part}");
                assert!(took < STOPS_WITHIN, "{part} took {took:?}");
                println!("stopping {part}: {took:?}");
            }
            if part != "the edge" {
                server.restart();
            }
            if part != "the server" {
                garage.edge.restart();
            }
        }
    }
    println!("{:?}", garage.settle(&server));
}

/// A producer that hangs, a page that stays open in a browser: neither may keep a daemon from stopping.
#[test]
fn told_to_stop_they_do_not_wait_for_connections_that_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let mut journal = Journal::default();
    let (edge_http, server_http) = (edge.http(), server.http());
    journal.post_entries(&edge_http, vec!["KA1".into()]);
    server_http.get_json("/v1/occupancy");
    let half = [send_half_a_request(edge.dir()), send_half_a_request(server.dir())];
    for (name, (code, took)) in [("edge", edge.stop()), ("server", server.stop())] {
        println!("stopping {name} with connections open: {took:?}");
        assert_eq!(code, Some(0), "{name}");
        assert!(took < STOPS_WITHIN, "{name} took {took:?}");
    }
    drop(half);
    server.restart();
    edge.restart();
    wait_until("the event arrives", SOON, &[&edge, &server], || server.applied_of("a") == 1);
    assert_exactly_once(&events_of(&server, "a"), &[journal]);
}

/// The server dies between an acknowledgement and the next board: what it acknowledged is deleted here, and counted
/// by no board that came.
#[test]
fn the_own_count_survives_a_restart_though_the_last_board_is_older_than_the_last_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let seldom = ["--board-interval-ms", "3600000"];
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &seldom);
    let mut journal = Journal::default();
    for n in 0..4 {
        journal.post_entries(&edge.http(), (0..70).map(|car| format!("KA{n}X{car}")).collect());
        wait_until("the cars are delivered", SOON, &[&edge, &server], || edge.depth() == 0);
    }
    server.kill();
    assert_eq!(board(&edge)["own"]["occupied"], 280);
    assert_eq!(edge.stop().0, Some(0));
    edge.restart();
    assert_eq!(board(&edge)["own"]["occupied"], 280, "after a restart");
}

/// Stopping at once after starting must not fall between two chairs.
#[test]
fn told_to_stop_right_after_the_start_they_end_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    for _ in 0..10 {
        for (code, took) in [edge.stop(), server.stop()] {
            assert_eq!(code, Some(0));
            assert!(took < STOPS_WITHIN, "it took {took:?}");
        }
        server.restart();
        edge.restart();
    }
    println!("20 starts and stops: {:?}", began.elapsed());
}
