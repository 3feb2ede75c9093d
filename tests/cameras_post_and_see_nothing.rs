//! **Promise.** The listener of cameras takes events from the addresses of its list, and shows nothing to anybody. Where devices have to
//! authenticate, each does it with a password of its own, which can be revoked.

use crate::common::daemon::{EDGE, own_loopback_address, refused};
use crate::common::operator::at_the_edge;
use crate::common::{Edge, Http, Program, Server, wait_until};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// An edge whose cameras post to an address of their own, and a client of that address.
fn edge_with_cameras(at: &Path, server: &Server, extra: &[&str]) -> (Edge, Http) {
    let edge = Edge::start(
        at,
        "a",
        &[server.address()],
        &[&["--camera-http", &own_loopback_address()], extra].concat(),
    );
    let address = std::fs::read_to_string(at.join("camera-http.addr")).unwrap();
    (edge, Http::new(address.trim().parse().unwrap()))
}

#[test]
fn cameras_of_the_list_post_and_see_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, at) = (Server::start(&dir.path().join("server"), &[]), dir.path().join("edge"));
    // Others need tokens, cameras do not.
    at_the_edge(&at, &["tokens", "add", "ada", "--role", "read"]);
    let (edge, cameras) = edge_with_cameras(&at, &server, &["--camera-allow", "10.0.0.0/8,127.0.0.1"]);
    let event = json!({"kind": "entry", "plate": "KA1"});
    assert_eq!(cameras.post_event(&event).unwrap().status, 201);
    assert_eq!(cameras.post_batch(&event.to_string()).unwrap().status, 201);
    edge.http().post_event(&event).unwrap().problem_with(401, "token_missing");
    for path in
        ["/", "/healthz", "/readyz", "/metrics", "/v1/board", "/v1/outbox", "/v1/outbox/events", "/sign-in"]
    {
        cameras.get(path).unwrap().problem(404);
    }
    for path in ["/v1/events", "/v1/events/batch"] {
        cameras.get(path).unwrap().problem(405);
    }
    cameras.with("Host", "other.example").post_event(&event).unwrap().problem_with(421, "unknown_host");
    wait_until("both are applied", SOON, &[&server, &edge], || server.applied_of("a") == 2);
}

#[test]
fn an_address_that_is_not_in_the_list_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let at = dir.path().join("edge");
    let (edge, cameras) = edge_with_cameras(&at, &server, &["--camera-allow", "10.0.0.0/8"]);
    let refused_post = cameras.post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap();
    assert!(refused_post.problem_with(403, "address_not_allowed").contains("127.0.0.1"), "{refused_post:?}");
    assert_eq!(edge.depth(), 0);

    let data = dir.path().join("other");
    let args = ["--data-dir", data.to_str().unwrap(), "--garage-name", "a", "--camera-http", "0.0.0.0:0"];
    let without_list = refused(EDGE, &args);
    assert_eq!(without_list.code, Some(64), "{without_list:?}");
    assert!(without_list.stderr.contains("--camera-http") && without_list.stderr.contains("--camera-allow"));
    for bad in ["10.0.0.0/33", "cameras", ""] {
        let refused = refused(EDGE, &[&args[..], &["--camera-allow", bad]].concat());
        assert!(refused.code == Some(64) && refused.stderr.contains("--camera-allow"), "{bad}: {refused:?}");
    }
    assert!(!data.exists());
}

#[test]
fn a_device_posts_with_a_password_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (server, at) = (Server::start(&dir.path().join("server"), &[]), dir.path().join("edge"));
    let add = |name: &str, args: &[&str]| {
        let said = at_the_edge(&at, &[&["tokens", "add", name], args].concat());
        said.lines().next().unwrap().to_owned()
    };
    let gate = add("gate-1", &["--role", "ingest", "--garage", "a"]);
    let of_other_garage = add("gate-2", &["--role", "ingest", "--garage", "b"]);
    let reader = add("ada", &["--role", "read"]);
    let (edge, cameras) = edge_with_cameras(&at, &server, &["--camera-passwords"]);
    let basic = |name: &str, password: &str| {
        use base64::Engine;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        let answer = cameras.with("Authorization", &format!("Basic {both}"));
        answer.post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap()
    };
    assert_eq!(basic("gate-1", &gate).status, 201);
    for (name, password) in [
        ("gate-2", of_other_garage.as_str()),
        ("ada", &reader),
        ("gate-2", &gate),
        ("", &gate),
        ("gate-1", ""),
        ("gate-1", &gate[..70]),
    ] {
        let refused = basic(name, password);
        refused.problem_with(401, "token_missing");
        assert_eq!(refused.header("www-authenticate"), "Basic realm=\"fogpost\"");
    }
    let bearer = cameras.with("Authorization", &format!("Bearer {gate}"));
    bearer.post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap().problem_with(401, "token_missing");
    at_the_edge(&at, &["tokens", "revoke", "gate-1"]);
    wait_until("it is revoked", SOON, &[&edge], || basic("gate-1", &gate).status == 401);
    assert!(!edge.log().contains(&gate));
}
