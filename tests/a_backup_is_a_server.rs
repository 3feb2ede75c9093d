//! **Promise.** `server backup DIR` copies the ledger while the server works, and without one: everything that was acknowledged
//! before the command is in the copy. A server started on it is the same ledger, restored from an old copy: edges go on,
//! nothing is applied twice, and what it misses for good is recorded as a hole.

use crate::common::daemon::{SERVER, command, refused};
use crate::common::{Edge, Garage, Operator, Program, Server, assert_exactly_once, events_of, wait_until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// The backup of a server into `to`, as it was printed; `backup.json` must say the same.
fn backup(operator: &Operator, to: &Path) -> Value {
    let mut said = operator.says(&["backup", to.to_str().unwrap(), "--json"]).json();
    said.as_object_mut().unwrap().remove("said").unwrap();
    let certificate = fs::read_to_string(to.join("backup.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&certificate).unwrap(), said);
    said
}

/// How many events of a garage are reported as missing.
fn missing(server: &Server, garage: &str) -> u64 {
    let answer = server.http().get_json(&format!("/v1/garages/{garage}"));
    let holes = answer["missing_ranges"].as_array().unwrap().iter();
    holes.map(|hole| hole["last"].as_u64().unwrap() - hole["first"].as_u64().unwrap() + 1).sum()
}

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_before_and_edges_go_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let operator = Operator::of(server.dir());
    let servers = [server.address()];
    let cameras: [&[usize]; 2] = [&[1], &[1, 20]];
    let mut garages: Vec<Garage> =
        ["a", "b"].iter().map(|name| Garage::start(dir.path(), name, &servers, &cameras)).collect();
    wait_until("events flow", SOON, &[&server], || {
        server.applied_of("a") > 500 && server.applied_of("b") > 500
    });
    operator.says(&["garages", "capacity", "a", "77"]).done();

    let (position, applied) = (server.position(), server.applied_of("a"));
    let copy = dir.path().join("copy");
    let said = backup(&operator, &copy);
    let through = said["position"].as_u64().unwrap();
    assert!(through >= position, "what was acknowledged before is missing: {through} of {position}");
    assert_eq!(said["commands"], 1);
    wait_until("more events came", SOON, &[&server], || server.applied_of("a") > applied + 500);
    assert!(server.position() > through, "nothing came after the backup: the test proves nothing");

    // Everything that is acknowledged now is deleted at the edges.
    garages.iter_mut().for_each(Garage::stop_cameras);
    wait_until("all is delivered", SOON, &[&server], || {
        garages.iter().all(|garage| garage.edge.depth() == 0)
    });
    let all: Vec<_> = ["a", "b"].map(|garage| events_of(&server, garage)).into();
    let ledger = server.http().get_json("/v1/occupancy")["ledger"].clone();
    assert_eq!(server.stop().0, Some(0));

    // An edge that hears of the restored server sends it its newest page again, within milliseconds.
    garages.iter().for_each(|garage| garage.edge.freeze());
    let restored = server.start_in_its_place(&copy);
    assert_eq!(restored.position(), through);
    wait_until("the view is applied", SOON, &[&restored], || {
        restored.metric("fogpost_server_view_position") == through
    });
    assert_eq!(restored.http().get_json("/v1/occupancy")["ledger"], ledger);
    assert_eq!(restored.http().get_json("/v1/garages/a")["capacity"], 77);
    // It is a prefix of what was.
    let kept: Vec<_> = ["a", "b"].map(|garage| events_of(&restored, garage)).into();
    for (kept, all) in kept.iter().zip(&all) {
        assert!(kept.len() < all.len() && all.starts_with(kept), "{} of {}", kept.len(), all.len());
    }
    garages.iter().for_each(|garage| garage.edge.thaw());
    // The next event of each garage tells that those between are gone, and is applied.
    for ((garage, kept), all) in garages.iter_mut().zip(&kept).zip(&all) {
        let name = garage.edge.name().to_owned();
        let mut journal = crate::common::Journal::default();
        journal.post_entries(&garage.edge.http(), vec!["AFTER1".into()]);
        journal.post_entries(&garage.edge.http(), vec!["AFTER2".into()]);
        assert_eq!(journal.confirmed_events(), 2);
        wait_until("the edge goes on", SOON, &[&garage.edge, &restored], || garage.edge.depth() == 0);
        let now = events_of(&restored, &name);
        // The edge keeps its newest page; it, and what it holds of the lost ones, came again.
        let lost = missing(&restored, &name);
        assert_eq!(now.len() as u64 + lost, all.len() as u64 + 2);
        assert!(lost > 0, "nothing was lost: the test proves nothing");
        assert!(now.starts_with(kept));
        assert!(now.is_sorted_by(|a, b| a.sequence < b.sequence), "twice, or out of order");
        assert_eq!(now.last().unwrap().plate.as_deref(), Some("AFTER2"));
    }
    restored.verifies();
}

#[test]
fn what_was_not_acknowledged_yet_loses_nothing_by_a_restored_backup() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "a", &[server.address()], &[&[1, 30]]);
    wait_until("events flow", SOON, &[&server], || server.applied_of("a") > 200);
    // The edge falls silent, then the backup is made, and the server dies: nothing was acknowledged after the backup.
    garage.edge.freeze();
    let copy = dir.path().join("copy");
    let operator = Operator::of(server.dir());
    wait_until("what is on its way is applied", SOON, &[&server], || {
        let position = server.position();
        std::thread::sleep(Duration::from_millis(100));
        server.position() == position
    });
    let said = backup(&operator, &copy);
    assert_eq!(said["position"], server.position());
    server.kill();
    garage.edge.thaw();
    let restored = server.start_in_its_place(&copy);
    wait_until("events flow", SOON, &[&garage.edge, &restored], || {
        restored.applied_of("a") > said["events"].as_u64().unwrap() + 100
    });
    println!("{:?}", garage.settle(&restored));
    assert_eq!(missing(&restored, "a"), 0);
}

#[test]
fn a_backup_of_a_server_that_does_not_run_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "a", &[server.address()], &[&[1, 30]]);
    wait_until("events flow", SOON, &[&server], || server.applied_of("a") > 200);
    garage.settle(&server);
    let operator = Operator::of(server.dir());
    let (running, after_stop, after_kill) =
        (dir.path().join("1"), dir.path().join("2"), dir.path().join("3/in/a/new/place"));
    let mut said = vec![backup(&operator, &running)];
    server.stop();
    said.push(backup(&operator, &after_stop));
    server.restart();
    server.kill();
    said.push(backup(&operator, &after_kill));
    for said in &mut said {
        said.as_object_mut().unwrap().remove("made_at").unwrap();
    }
    assert!(said.iter().all(|each| *each == said[0]), "{said:?}");
    // A backup of a backup is one.
    let of_copy = dir.path().join("4");
    let mut again = backup(&Operator::of(&after_kill), &of_copy);
    again.as_object_mut().unwrap().remove("made_at").unwrap();
    assert_eq!(again, said[0]);
    server.restart();
    let books = events_of(&server, "a");
    server.kill();
    let restored = server.start_in_its_place(&of_copy);
    assert_eq!(events_of(&restored, "a"), books);
    restored.verifies();
}

#[test]
fn a_backup_goes_only_into_an_empty_directory_and_what_is_not_finished_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let operator = Operator::of(server.dir());
    let refused = |to: &Path| operator.says(&["backup", to.to_str().unwrap()]).refused();
    let own = refused(server.dir());
    assert!(own.contains("not empty") && own.contains("Nothing was changed"), "{own}");
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(refused(&file).contains("cannot use"));
    assert!(refused(&file.join("below")).contains("Nothing stored was changed"));
    // An empty ledger is one, too.
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(backup(&operator, &empty)["position"], 0);
    let again = refused(&empty);
    assert!(again.contains("not empty"), "{again}");
    assert_eq!(Server::start(&empty, &[]).position(), 0);
    // Of nothing there is no backup, and no directory.
    let nothing =
        Operator::of(&dir.path().join("nothing")).says(&["backup", dir.path().join("x").to_str().unwrap()]);
    assert!(nothing.refused().contains("nothing stored"));
    assert!(!dir.path().join("x").exists() && !dir.path().join("nothing").exists());
    assert!(server.log().contains("ready"));
}

/// Killed in the middle, on any machine: whatever is there by then is either a backup or is refused.
#[test]
fn a_backup_that_was_killed_is_none_and_no_server_starts_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "a", &[server.address()], &[&[1, 200], &[300]]);
    wait_until("events flow", SOON, &[&server], || server.applied_of("a") > 20_000);
    garage.settle(&server);
    let (position, books) = (server.position(), events_of(&server, "a"));
    let (mut unfinished, mut finished) = (0, 0);
    for n in 0..40 {
        let copy = dir.path().join(format!("copy-{n}"));
        let args = ["backup", copy.to_str().unwrap(), "--data-dir", server.dir().to_str().unwrap()];
        let mut child = command(SERVER, &args.map(str::to_owned)).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(n * 25));
        child.kill().unwrap();
        child.wait().unwrap();
        if copy.join("backup.json").exists() {
            finished += 1;
            let copy = Server::start(&copy, &[]);
            assert_eq!((copy.position(), events_of(&copy, "a")), (position, books.clone()));
        } else if copy.join("store.unfinished").exists() {
            unfinished += 1;
            let refused = refused(SERVER, &["--data-dir", copy.to_str().unwrap(), "--http", "127.0.0.1:0"]);
            assert_eq!(refused.code, Some(64), "{}", refused.stderr);
            assert!(refused.stderr.contains("never finished"), "{}", refused.stderr);
        }
        if finished > 1 {
            break;
        }
    }
    println!("{unfinished} were killed unfinished, {finished} were finished");
    assert!(unfinished > 0, "none was killed in the middle: the test proves nothing");
    // The server took no notice.
    assert_eq!(events_of(&server, "a"), books);
    server.verifies();
    assert_eq!(server.stop().0, Some(0));
}

/// Edges that wait for a server which comes back as its backup find their own ledger.
#[test]
fn an_edge_that_knew_more_than_the_backup_is_served_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let mut journal = crate::common::Journal::default();
    journal.post_entries(&edge.http(), (0..10).map(|n| format!("KA{n}")).collect());
    wait_until("they are delivered", SOON, &[&edge, &server], || edge.depth() == 0);
    let copy = dir.path().join("copy");
    backup(&Operator::of(server.dir()), &copy);
    server.kill();
    // While there is no server, events are confirmed as ever.
    journal.post_entries(&edge.http(), (10..300).map(|n| format!("KA{n}")).collect());
    let restored = server.start_in_its_place(&copy);
    wait_until("they are delivered", SOON, &[&edge, &restored], || edge.depth() == 0);
    assert_exactly_once(&events_of(&restored, "a"), &[journal]);
    assert_eq!(missing(&restored, "a"), 0);
    restored.verifies();
}

/// A server was restored, and grew beyond the position that an edge's board was of, by other events. The edge asked what had
/// changed since, was told what came later, and went on showing a number of the lost history.
#[test]
fn a_board_of_before_the_restoration_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let often = ["--board-interval-ms", "100"];
    let edge =
        |name: &str| Edge::start(&dir.path().join(format!("edge {name}")), name, &[server.address()], &often);
    let (watching, busy, quiet) = (edge("watching"), edge("busy"), edge("quiet"));
    let mut cars = 0;
    let mut enter = |edge: &Edge, server: &Server| {
        cars += 1;
        crate::common::Journal::default().post_entries(&edge.http(), vec![format!("KA{cars}")]);
        wait_until("it is delivered", SOON, &[edge, server], || edge.depth() == 0);
    };
    let shown = |edge: &Edge, garage: &str| {
        let board = edge.http().get_json("/v1/board");
        let lines = board["garages"].as_array().into_iter().flatten();
        let line = lines.filter(|line| line["name"] == garage).map(|line| line["occupied"].as_i64()).next();
        (board["version"]["position"].as_u64(), line.flatten())
    };
    enter(&quiet, &server);
    enter(&busy, &server);
    let copy = dir.path().join("copy");
    backup(&Operator::of(server.dir()), &copy);
    (0..20).for_each(|_| enter(&busy, &server));
    let before = server.position();
    wait_until("the board shows it", SOON, &[&watching, &server], || {
        shown(&watching, "quiet") == (Some(before), Some(1))
    });
    watching.freeze();
    busy.freeze();
    server.kill();
    let restored = server.start_in_its_place(&copy);
    enter(&quiet, &restored);
    let changed = events_of(&restored, "quiet").last().unwrap().position;
    assert!(changed <= before, "{changed} is behind {before}: the test proves nothing");
    busy.thaw();
    while restored.position() <= before + 1 {
        enter(&busy, &restored);
    }
    watching.thaw();
    wait_until("the board shows what came instead", SOON, &[&watching, &restored], || {
        shown(&watching, "quiet").1 == Some(2)
    });
    restored.verifies();
}
