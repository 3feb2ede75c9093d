//! **Promise.** A count is never clamped, for it is a reason to look; free spaces always are from 0 to the capacity, wherever they
//! are shown.

use crate::common::{Edge, Program, Server, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

/// One exit too many made four free spaces out of three: on the server's page and lists, on the board, in the edge's log.
#[test]
fn an_exit_too_many_gives_no_garage_more_spaces_than_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &["--capacity", "3"]);
    let shows = |occupied: i64, free: i64| {
        let programs: [&dyn Program; 2] = [&server, &edge];
        wait_until("every sign shows it", Duration::from_secs(60), &programs, || {
            let is_shown = |line: &Value| line["occupied"] == occupied && line["free"] == free;
            let board = edge.http().get_json("/v1/board");
            is_shown(&board["own"])
                && is_shown(&board["garages"][0])
                && is_shown(&server.http().get_json("/v1/occupancy")["garages"][0])
                && is_shown(&server.http().get_json("/v1/garages/a"))
                && edge.log().contains(&format!("a: {free} of 3 free"))
        });
    };
    let tell = |kind: &str| {
        assert_eq!(edge.http().post_event(&json!({"kind": kind, "plate": null})).unwrap().status, 201);
    };
    tell("exit");
    shows(-1, 3);
    for _ in 0..5 {
        tell("entry");
    }
    shows(4, 0);
}
