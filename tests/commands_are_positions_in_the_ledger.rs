//! **Promise.** What an operator does is a command at a position of its own in the ledger: given over `admin.sock` to a running
//! server, or to its directory when none runs, it acts from there on, survives a kill, and is refused before it leaves a
//! trace when it makes no sense. Nobody but the server's own user can give one.

use crate::common::peers::Caller;
use crate::common::{Edge, Journal, Operator, Server, events_of, wait_until};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

struct World {
    server: Server,
    operator: Operator,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        let operator = Operator::of(server.dir());
        World { server, operator, dir }
    }

    fn edge(&self, name: &str, extra: &[&str]) -> Edge {
        Edge::start(&self.dir.path().join(format!("edge-{name}")), name, &[self.server.address()], extra)
    }

    /// Posts this number of entries and waits until the server counts them for a garage.
    fn cars_enter(&self, edge: &Edge, garage: &str, plates: &[&str]) {
        let before = self.of(garage)["events"].as_u64().unwrap_or(0);
        let mut journal = Journal::default();
        for plate in plates {
            journal.post_entries(&edge.http(), vec![(*plate).to_owned()]);
        }
        assert_eq!(journal.confirmed_events(), plates.len() as u64);
        wait_until("the cars are counted", SOON, &[edge, &self.server], || {
            self.of(garage)["events"] == before + plates.len() as u64
        });
    }

    /// What the server shows of a garage; null for one that it has not heard of.
    fn of(&self, garage: &str) -> Value {
        let answer = self.server.http().get(&format!("/v1/garages/{garage}")).unwrap();
        if answer.status == 404 { Value::Null } else { answer.json() }
    }

    fn waiting(&self) -> Vec<Value> {
        let answer = self.server.http().get_json("/v1/quarantine");
        answer["quarantine"].as_array().unwrap().clone()
    }

    fn books(&self) -> Vec<Value> {
        let seen = [
            "last_heard_at",
            "last_heard_seconds_ago",
            "backlog",
            "oldest_age_seconds",
            "duplicates_refused",
            "clock_set",
            "clock_ahead_seconds",
            "clock_alarm",
            "live_occupied",
            "full",
            "damaged",
            "two_edges",
        ];
        let mut garages = self.server.http().get_json("/v1/garages")["garages"].as_array().unwrap().clone();
        for garage in &mut garages {
            seen.iter().for_each(|field| drop(garage.as_object_mut().unwrap().remove(*field)));
        }
        garages.extend(self.waiting());
        garages.push(self.server.http().get_json("/v1/occupancy"));
        garages
    }

    /// After a kill, and after the views were lost and are rebuilt, everything is shown as before.
    fn the_books_follow_from_the_ledger(mut self) {
        let position = self.server.position();
        let caught_up = |server: &Server| server.metric("fogpost_server_view_position") == position;
        wait_until("the view is applied", SOON, &[&self.server], || caught_up(&self.server));
        let books = self.books();
        self.server.kill();
        self.server.restart();
        wait_until("the view is caught up again", SOON, &[&self.server], || caught_up(&self.server));
        assert_eq!(self.books(), books);
        // A backup is the ledger without its views.
        let copy = self.dir.path().join("copy");
        self.operator.says(&["backup", copy.to_str().unwrap()]).done();
        self.server = Server::start(&copy, &[]);
        wait_until("the views are rebuilt", SOON, &[&self.server], || caught_up(&self.server));
        assert_eq!(self.books(), books);
        self.server.verifies();
    }
}

/// Sends one page as an edge of a newer version would: its second event is of a form that this server does not know.
fn send_unknown(server: &Server, site: &str) -> Epoch {
    let epoch = Epoch::random();
    let known = |plate: &str| {
        let json = json!({"kind": "entry", "plate": plate, "at": "2026-11-23T08:15:00Z"}).to_string();
        Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap().to_bytes()
    };
    let events = [known("NEW1"), vec![9, 1, 2, 3], vec![8, 7], known("NEW2")];
    let record = |payload: Vec<u8>| Message::of(payload);
    let page = SealedPage::seal(&Page {
        epoch,
        first: Sequence::FIRST,
        previous: None,
        moved_from: None,
        begun: fogpost::messaging::ClockReading::at_wall_ms(0),
        content: Content::Records(events.map(record).into()),
    });
    let site = SiteName::new(site).unwrap();
    let request = Request {
        id: 1,
        site,
        epoch,
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages: vec![page],
        ask: None,
        observation: None,
    };
    let reply = Reply::decode(&Caller::dealer(&server.address()).ask(request.encode())).unwrap();
    assert_eq!((reply.mark, reply.verdict), (4, Verdict::Accepted));
    epoch
}

#[test]
fn a_renamed_garage_goes_on_while_its_edge_keeps_the_old_name() {
    let world = World::new();
    let mut edge = world.edge("old", &["--board-interval-ms", "100"]);
    world.cars_enter(&edge, "old", &["KA1", "KA2"]);
    let before = world.server.position();
    let said = world.operator.says(&["garages", "rename", "old", "new"]).done();
    assert!(said.contains(&format!("called \"new\" from position {}", before + 1)), "{said}");
    assert_eq!(world.server.position(), before + 1, "a command is one record");
    assert_eq!((world.server.occupied("new"), world.server.occupied("old")), (Some(2), None));
    world.cars_enter(&edge, "new", &["KA3"]);
    // Both names lead to it; so do events and marks.
    assert_eq!(world.of("old")["name"], "new");
    assert_eq!(world.of("new")["formerly"], "old");
    let plates = |garage: &str| {
        events_of(&world.server, garage).into_iter().filter_map(|event| event.plate).collect::<Vec<_>>()
    };
    assert_eq!(plates("new"), ["KA1", "KA2", "KA3"]);
    assert_eq!(plates("old"), ["KA1", "KA2", "KA3"]);
    // Its own display goes on.
    wait_until("the edge counts its cars", SOON, &[&edge, &world.server], || {
        edge.http().get_json("/v1/board")["own"]["occupied"] == 3
    });
    // The garage gets a new machine, set up under the new name.
    edge.stop();
    edge = world.edge("new", &[]);
    world.cars_enter(&edge, "new", &["KA4"]);
    assert_eq!(world.server.occupied("new"), Some(4));
    assert_eq!(world.of("new")["marks"].as_array().unwrap().len(), 2);
    let refused = world.operator.says(&["garages", "rename", "new", "new"]).refused();
    assert!(refused.contains("called \"new\" already"), "{refused}");
    edge.stop();
    world.the_books_follow_from_the_ledger();
}

#[test]
fn an_operators_capacity_stands_over_restarts_of_the_edge_and_the_server() {
    let mut world = World::new();
    let mut edge = world.edge("a", &["--capacity", "500", "--board-interval-ms", "100"]);
    world.cars_enter(&edge, "a", &["KA1"]);
    wait_until("the capacity is shown", SOON, &[&edge, &world.server], || world.of("a")["capacity"] == 500);
    let said = world.operator.says(&["garages", "capacity", "a", "300"]).done();
    assert!(said.contains("300 spaces") && said.contains("Its edge reports 500"), "{said}");
    world.server.kill();
    world.server.restart();
    edge.kill();
    edge.restart();
    world.cars_enter(&edge, "a", &["KA2"]);
    let line = world.of("a");
    assert_eq!(
        (&line["capacity"], &line["capacity_told"], &line["free"]),
        (&json!(300), &json!(500), &json!(298))
    );
    world.operator.says(&["garages", "capacity", "a", "--as-told"]).done();
    let line = world.of("a");
    assert_eq!((&line["capacity"], &line["capacity_told"]), (&json!(500), &Value::Null));
    world.operator.says(&["garages", "capacity", "a", "300"]).done();
    edge.stop();
    world.the_books_follow_from_the_ledger();
}

#[test]
fn a_decommissioned_garage_is_hidden_and_what_it_sends_is_counted_and_reported() {
    let world = World::new();
    let (mut a, mut b) = (world.edge("a", &[]), world.edge("b", &["--board-interval-ms", "100"]));
    world.cars_enter(&a, "a", &["KA1"]);
    world.cars_enter(&b, "b", &["KB1"]);
    let on_board = |garage: &str| {
        let board = b.http().get_json("/v1/board");
        board["garages"].as_array().unwrap().iter().any(|line| line["name"] == garage)
    };
    wait_until("b shows a", SOON, &[&b, &world.server], || on_board("a"));
    world.operator.says(&["garages", "decommission", "a"]).done();
    assert_eq!((world.server.occupied("a"), world.server.occupied("b")), (None, Some(1)));
    wait_until("b shows a no more", SOON, &[&b, &world.server], || !on_board("a"));
    world.cars_enter(&a, "a", &["KA2", "KA3"]);
    let line = world.of("a");
    assert_eq!((&line["decommissioned"], &line["occupied"]), (&json!(true), &json!(3)));
    assert_eq!(line["events_since_decommissioned"], 2);
    let list = world.operator.says(&["garages", "list"]).done();
    assert!(list.contains("decommissioned, 2 events since"), "{list}");
    let refused = world.operator.says(&["garages", "decommission", "a"]).refused();
    assert!(
        refused.contains("decommissioned already") && refused.contains("Nothing was recorded"),
        "{refused}"
    );
    world.operator.says(&["garages", "decommission", "a", "--undo"]).done();
    assert_eq!(world.server.occupied("a"), Some(3));
    wait_until("b shows a again", SOON, &[&b, &world.server], || on_board("a"));
    world.operator.says(&["garages", "decommission", "b"]).done();
    a.stop();
    b.stop();
    world.the_books_follow_from_the_ledger();
}

#[test]
fn what_is_still_not_understood_stays_in_quarantine_until_it_is_given_up_with_a_reason() {
    let world = World::new();
    let epoch = send_unknown(&world.server, "a");
    wait_until("the page is applied", SOON, &[&world.server], || world.waiting().len() == 2);
    let position = world.waiting()[0]["position"].as_u64().unwrap();
    let list = world.operator.says(&["quarantine", "list", "--json"]).json();
    let line = &list["quarantine"][0];
    assert_eq!((&line["place"], &line["sequence"]), (&json!(format!("{position}.1")), &json!(2)));
    assert_eq!(line["epoch"], epoch.to_string());
    let (place, page) = (format!("{position}.1"), position.to_string());
    let refused = world.operator.says(&["quarantine", "release", &place]).refused();
    for part in ["still cannot be applied", "version 9", "Nothing was recorded"] {
        assert!(refused.contains(part), "{refused}");
    }
    let nothing = world.operator.says(&["quarantine", "release", &format!("{position}.0")]).refused();
    assert!(nothing.contains("no event waits in quarantine"), "{nothing}");
    assert_eq!(world.server.position(), position, "a refused command left a trace");
    world.operator.says(&["quarantine", "discard", &place, "--reason", "a test of the vendor"]).done();
    assert_eq!(world.waiting().len(), 1);
    let again = world.operator.says(&["quarantine", "discard", &place, "--reason", "again"]).refused();
    assert!(again.contains("already released or discarded"), "{again}");
    world.operator.says(&["quarantine", "discard", &page, "--reason", "the rest"]).done();
    assert_eq!(world.waiting(), Vec::<Value>::new());
    assert_eq!(world.server.position(), position + 2);
    assert_eq!(world.of("a")["occupied"], 2);
    world.the_books_follow_from_the_ledger();
}

#[test]
fn without_a_running_server_commands_go_into_its_directory() {
    let mut world = World::new();
    let mut edge = world.edge("a", &[]);
    world.cars_enter(&edge, "a", &["KA1"]);
    edge.stop();
    let position = world.server.position();
    // Both ways to end leave the directory to us: one removes its socket, the other does not.
    assert_eq!(world.server.stop().0, Some(0));
    assert!(!world.server.dir().join("admin.sock").exists());
    world.operator.says(&["garages", "rename", "a", "b"]).done();
    assert_eq!(world.operator.garage("b").unwrap()["occupied"], 1);
    world.server.restart();
    assert_eq!(world.server.occupied("b"), Some(1));
    world.server.kill();
    assert!(world.server.dir().join("admin.sock").exists());
    let refused = world.operator.says(&["garages", "rename", "c", "d"]).refused();
    assert!(refused.contains("no garage named \"c\""), "{refused}");
    world.operator.says(&["garages", "capacity", "b", "7"]).done();
    world.server.restart();
    assert_eq!(world.of("b")["capacity"], 7);
    assert_eq!(world.server.position(), position + 2);
    world.the_books_follow_from_the_ledger();
}

/// Answered means on disk: the next moment may be the last.
#[test]
fn a_command_that_was_answered_survives_the_kill_that_follows_it() {
    let mut world = World::new();
    let mut edge = world.edge("a", &[]);
    world.cars_enter(&edge, "a", &["KA1"]);
    edge.stop();
    for spaces in 1..=10 {
        world.operator.says(&["garages", "capacity", "a", &spaces.to_string()]).done();
        world.server.kill();
        world.server.restart();
        wait_until("the view has caught up", SOON, &[&world.server], || {
            world.server.metric("fogpost_server_view_position") == world.server.position()
        });
        assert_eq!(world.of("a")["capacity"], spaces);
    }
    world.the_books_follow_from_the_ledger();
}

/// A server that was stopped with everything applied and then heard nothing new once let every command wait for ever.
#[test]
fn a_server_that_has_nothing_to_do_takes_commands() {
    let mut world = World::new();
    let mut edge = world.edge("a", &[]);
    world.cars_enter(&edge, "a", &["KA1"]);
    edge.stop();
    world.server.stop();
    world.server.restart();
    let said = world.operator.says(&["garages", "capacity", "a", "7"]).done();
    assert!(said.contains("7 spaces"), "{said}");
    assert_eq!(world.of("a")["capacity"], 7);
}

#[test]
fn commands_wait_for_a_server_that_is_just_starting_or_stopping() {
    let mut world = World::new();
    let mut edge = world.edge("a", &[]);
    world.cars_enter(&edge, "a", &["KA1"]);
    edge.stop();
    let before = world.server.position();
    let dir = world.server.dir().to_owned();
    let operator = std::thread::spawn(move || {
        let operator = Operator::of(&dir);
        for spaces in 1..=30 {
            operator.says(&["garages", "capacity", "a", &spaces.to_string()]).done();
        }
    });
    let mut restarts = 0;
    while !operator.is_finished() {
        assert_eq!(world.server.stop().0, Some(0));
        // A command may hold the directory for a moment.
        while world.server.try_restart().is_err() {}
        restarts += 1;
    }
    operator.join().unwrap();
    println!("30 commands over {restarts} restarts");
    assert!(restarts >= 2, "the commands met no restart: the test proves nothing");
    assert_eq!(world.server.position(), before + 30, "each is recorded once");
    world.the_books_follow_from_the_ledger();
}

#[test]
fn only_the_servers_own_user_reaches_its_socket_and_nonsense_on_it_changes_nothing() {
    let world = World::new();
    let mut edge = world.edge("a", &[]);
    world.cars_enter(&edge, "a", &["KA1"]);
    let path = world.server.dir().join("admin.sock");
    let socket = std::fs::metadata(&path).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o7777, 0o600);
    let before = world.server.position();
    let too_long = vec![b'x'; 1_000_000];
    let deep = [vec![b'['; 60_000], b"\n".to_vec()].concat();
    for bytes in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"command\":{\"rename\":{\"garage\":\"a\"}}}\n",
        b"{\"command\":{\"rename\":{\"garage\":\"a\",\"to\":\"\"}}}\n",
        b"{\"command\":{\"explode\":{}}}\n",
        b"{\"command\":{\"release\":{\"place\":{\"position\":1,\"index\":200}}}}\n",
        b"{\"records\":{\"from\":0,\"through\":null}}\n",
        b"{\"records\":{\"from\":18446744073709551615,\"through\":18446744073709551615}}\n",
        b"\xff\xff\xff\xff\n",
        b"{\"command\":",
        &deep,
        &too_long,
    ] {
        let said = say(&path, bytes);
        let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_default();
        assert!(
            last["error"].is_string(),
            "{:?}: {said:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        );
    }
    assert_eq!(world.server.position(), before);
    world.cars_enter(&edge, "a", &["KA2"]);
    edge.stop();
    world.the_books_follow_from_the_ledger();
}

/// Sends these bytes and gives back what comes until the server closes.
fn say(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let _ = stream.write_all(bytes); // it may refuse before it has read all
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut part) {
        said.extend_from_slice(&part[..length]);
    }
    String::from_utf8(said).unwrap()
}

#[test]
fn commands_to_a_directory_that_is_no_servers_are_refused_and_leave_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Operator::of(dir.path()).says(&["garages", "list"]).refused();
    assert!(refused.contains("nothing stored") && refused.contains("--data-dir"), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &["tcp://127.0.0.1:1".to_owned()], &[]);
    edge.stop();
    let refused = Operator::of(edge.dir()).says(&["garages", "list"]).refused();
    assert!(refused.contains("belongs to \"edge\""), "{refused}");
}

/// Many events come while commands are given: each is answered, and the events are as exact as ever.
#[test]
fn commands_and_events_do_not_disturb_each_other() {
    let world = World::new();
    let mut garage =
        crate::common::Garage::start(world.dir.path(), "busy", &[world.server.address()], &[&[1], &[1, 50]]);
    wait_until("the garage is known", SOON, &[&garage.edge, &world.server], || {
        world.of("busy")["events"].as_u64() > Some(0)
    });
    for spaces in 1..=20 {
        world.operator.says(&["garages", "capacity", "busy", &spaces.to_string()]).done();
        assert_eq!(world.of("busy")["capacity"], spaces);
    }
    garage.stop_cameras();
    println!("{:?}", garage.settle(&world.server));
    garage.edge.stop();
    world.the_books_follow_from_the_ledger();
}
