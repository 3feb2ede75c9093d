//! **Promise.** Nonsense at any door is answered with what is wrong and why, or not at all; nothing of it is stored, and
//! nothing stored suffers.
//!
//! The door here is the HTTP of both daemons. The others have files of their own: the server's ZeroMQ port
//! `nonsense_from_a_peer_changes_nothing.rs`, settings and data directories
//! `bad_settings_are_refused_and_nothing_is_touched.rs`.

use crate::common::http::send_bytes;
use crate::common::{
    Applied, Edge, Http, Journal, Server, assert_exactly_once, events_of, seeded, wait_until,
};
use rand::RngExt;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;

const GARAGE: &str = "Bull Ring";

/// A server, an edge, and what the edge has confirmed so far.
struct World {
    server: Server,
    edge: Edge,
    journal: Journal,
    next_car: u32,
    _dir: TempDir,
}

impl World {
    fn with_good_events() -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        let edge = Edge::start(&dir.path().join("edge"), GARAGE, &[server.address()], &[]);
        let mut world = World { server, edge, journal: Journal::default(), next_car: 0, _dir: dir };
        world.good_events();
        world
    }

    fn http(&self) -> Http {
        self.edge.http()
    }

    fn good_events(&mut self) {
        for cars in [1, 20] {
            let plates = (self.next_car..self.next_car + cars).map(|n| format!("GOOD{n}")).collect();
            self.next_car += cars;
            self.journal.post_entries(&self.http(), plates);
        }
        assert_eq!(self.journal.confirmed_events(), u64::from(self.next_car), "good events are confirmed");
    }

    /// How many events the edge has stored since it was new.
    fn stored(&self) -> u64 {
        self.http().get_json("/v1/outbox")["next_sequence"].as_u64().unwrap() - 1
    }

    /// Posts what is to be refused, sees that nothing was stored, and gives the detail of the problem.
    fn refused(&self, path: &str, content_type: &str, body: &[u8], status: u16) -> String {
        let before = self.stored();
        let answer = self.http().post(path, content_type, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let answer = answer.unwrap_or_else(|error| panic!("no answer to {shown}: {error:?}"));
        let detail = answer.problem(status);
        assert!(detail.to_lowercase().contains("nothing was stored"), "{shown}: {detail:?}");
        assert_eq!(self.stored(), before, "{shown}");
        detail
    }

    /// Good events still flow, and the books hold exactly them.
    fn good_events_flow_and_the_books_are_exact(mut self) {
        self.good_events();
        let (edge, server) = (&self.edge, &self.server);
        let expected = u64::from(self.next_car);
        wait_until("good events arrive", Duration::from_secs(20), &[edge, server], || {
            edge.depth() == 0 && server.applied_of(GARAGE) == expected
        });
        assert_exactly_once(&events_of(&self.server, GARAGE), &[self.journal]);
    }
}

#[test]
fn an_event_that_is_none_is_refused_by_field_and_reason() {
    let world = World::with_good_events();
    let long = "x".repeat(257);
    let nested = format!("{{\"kind\":{}", "[".repeat(4000));
    let cases: Vec<(String, &str)> = vec![
        // Plates.
        (json!({"kind": "entry"}).to_string(), "plate: it is missing"),
        (json!({"kind": "entry", "plate": ""}).to_string(), "plate: a plate has 1 to 16"),
        (json!({"kind": "entry", "plate": "- . -"}).to_string(), "plate: a plate has 1 to 16"),
        (json!({"kind": "exit", "plate": "ABCDEFGH123456789"}).to_string(), "plate: a plate has 1 to 16"),
        (json!({"kind": "exit", "plate": "<AB1>"}).to_string(), "plate: a plate is made of"),
        (json!({"kind": "exit", "plate": "AB\u{0}1"}).to_string(), "plate: a plate is made of"),
        (
            json!({"kind": "exit", "plate": 17}).to_string(),
            "plate: it must be a text in quotes or null, not the number 17",
        ),
        (
            json!({"kind": "exit", "plate": ["AB1"]}).to_string(),
            "plate: it must be a text in quotes or null, not a list",
        ),
        // Times.
        (json!({"kind": "exit", "plate": "AB1", "at": ""}).to_string(), "at: "),
        (json!({"kind": "exit", "plate": "AB1", "at": "yesterday"}).to_string(), "at: "),
        (json!({"kind": "exit", "plate": "AB1", "at": "2026-11-23"}).to_string(), "at: "),
        (
            json!({"kind": "exit", "plate": "AB1", "at": "2026-11-23T08:15:00"}).to_string(),
            "at: it lacks the offset",
        ),
        (json!({"kind": "exit", "plate": "AB1", "at": "2026-02-30T08:15:00Z"}).to_string(), "at: "),
        (json!({"kind": "exit", "plate": "AB1", "at": "2026-11-23T25:15:00Z"}).to_string(), "at: "),
        (json!({"kind": "exit", "plate": "AB1", "at": "2026-11-23T08:15:00+99:00"}).to_string(), "at: "),
        (json!({"kind": "exit", "plate": "AB1", "at": "99999-11-23T08:15:00Z"}).to_string(), "at: "),
        (
            json!({"kind": "exit", "plate": "AB1", "at": 1_764_000_000}).to_string(),
            "at: it must be a text in quotes, not the number 1764000000",
        ),
        (json!({"kind": "exit", "plate": "AB1", "seen_at": "noon"}).to_string(), "seen_at: "),
        // Kinds and fields.
        (json!({"plate": "AB1"}).to_string(), "kind: it is missing"),
        (json!({"kind": "enter", "plate": "AB1"}).to_string(), "kind: \"enter\" is not one of"),
        (
            json!({"kind": 1, "plate": "AB1"}).to_string(),
            "kind: it must be a text in quotes, not the number 1",
        ),
        (json!({"kind": "entry", "plate": "AB1", "colour": "red"}).to_string(), "unknown field `colour`"),
        (json!({"kind": "entry", "plate": "AB1", "Lane": "2"}).to_string(), "unknown field `Lane`"),
        (json!({"kind": "entry", "plate": "AB1", "occupied": 3}).to_string(), "occupied: "),
        (json!({"kind": "entry", "plate": "AB1", "lane": long}).to_string(), "lane: it is 257 bytes long"),
        (
            json!({"kind": "entry", "plate": "AB1", "lane": "a\nb"}).to_string(),
            "lane: it holds a control character",
        ),
        (json!({"kind": "entry", "plate": "AB1", "confidence": 1.01}).to_string(), "confidence: "),
        (json!({"kind": "entry", "plate": "AB1", "confidence": -0.1}).to_string(), "confidence: "),
        (r#"{"kind":"entry","plate":"AB1","confidence":1e999}"#.to_owned(), "number out of range"),
        (r#"{"kind":"entry","plate":"AB1","confidence":NaN}"#.to_owned(), "not a valid JSON event"),
        (r#"{"kind":"entry","plate":"AB1","plate":"AB2"}"#.to_owned(), "duplicate field `plate`"),
        (json!({"kind": "count", "reason": "rounds"}).to_string(), "occupied: it is missing"),
        (json!({"kind": "count", "occupied": -1, "reason": "r"}).to_string(), "occupied: "),
        (json!({"kind": "count", "occupied": 4_294_967_296u64, "reason": "r"}).to_string(), "occupied: "),
        (json!({"kind": "count", "occupied": 1.5, "reason": "r"}).to_string(), "occupied: "),
        (json!({"kind": "count", "occupied": 1}).to_string(), "reason: it is missing"),
        (
            json!({"kind": "plate_correction", "epoch": "e", "sequence": 1, "plate": "AB1"}).to_string(),
            "epoch: ",
        ),
        (
            json!({"kind": "plate_correction", "epoch": uuid::Uuid::nil(), "sequence": 0, "plate": "AB1"})
                .to_string(),
            "sequence: sequences begin at 1",
        ),
        // What is no JSON of an object.
        (String::new(), "not a valid JSON event"),
        (" \n\t ".to_owned(), "not a valid JSON event"),
        ("{".to_owned(), "not a valid JSON event"),
        ("null".to_owned(), "an event is an object"),
        ("[\"entry\",\"AB1\"]".to_owned(), "an event is an object"),
        ("\"entry\"".to_owned(), "an event is an object"),
        (r#"{"kind":"entry","plate":"AB1"} {}"#.to_owned(), "trailing characters"),
        (r#"{"kind":"entry","plate":"AB1",}"#.to_owned(), "trailing comma"),
        (nested, "not a valid JSON event"),
        ("[".repeat(4000), "an event is an object"),
    ];
    for (body, reason) in &cases {
        let detail = world.refused("/v1/events", "application/json", body.as_bytes(), 400);
        assert!(detail.contains(reason), "{body}: {detail:?} lacks {reason:?}");
    }
    let latin_1 = b"{\"kind\":\"entry\",\"plate\":\"M\xdcX1\"}";
    world.refused("/v1/events", "application/json", latin_1, 400);
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn a_batch_with_a_broken_line_is_refused_as_a_whole_and_the_line_is_named() {
    let world = World::with_good_events();
    let good: Vec<String> =
        (1..=10_000).map(|n| json!({"kind": "entry", "plate": format!("LINE{n}")}).to_string()).collect();
    for (broken, reason) in [
        ("{\"kind\":\"entry\",\"plate\":\"LI", "not a valid JSON event"),
        (r#"{"kind":"entry","plate":"?"}"#, "plate: a plate is made of"),
        (r#"{"kind":"entry","plate":"AB1","at":"soon"}"#, "at: "),
        (r#"{"kind":"entry","plate":"AB1","colour":"red"}"#, "unknown field `colour`"),
    ] {
        let mut lines = good.clone();
        lines[6_999] = broken.to_owned();
        let body = lines.join("\n");
        let detail = world.refused("/v1/events/batch", "application/x-ndjson", body.as_bytes(), 400);
        assert!(detail.starts_with("line 7000: ") && detail.contains(reason), "{detail:?}");
    }
    for nothing in ["", "\n", "\r\n \r\n"] {
        let detail = world.refused("/v1/events/batch", "application/x-ndjson", nothing.as_bytes(), 400);
        assert!(detail.contains("holds no event"), "{detail:?}");
    }
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn what_is_too_long_is_refused_and_what_is_just_short_enough_is_taken() {
    let mut world = World::with_good_events();
    // JSON may be padded with spaces, so that a length can be met exactly.
    let padded = |plate: &str, length: usize| {
        let event = json!({"kind": "entry", "plate": plate}).to_string();
        format!("{event}{}", " ".repeat(length - event.len())).into_bytes()
    };
    let (event_max, batch_max) = (4 * 1024, 1024 * 1024);
    let detail = world.refused("/v1/events", "application/json", &padded("LONG1", event_max + 1), 413);
    assert!(detail.contains("an event has at most 4096 bytes"), "{detail:?}");
    let ndjson = "application/x-ndjson";
    let detail = world.refused("/v1/events/batch", ndjson, &padded("LONG1", batch_max + 1), 413);
    assert!(detail.contains("a batch has at most 1048576 bytes"), "{detail:?}");
    let lines = |count: usize| vec![r#"{"kind":"exit","plate":null}"#; count].join("\n");
    let detail = world.refused("/v1/events/batch", ndjson, lines(10_001).as_bytes(), 413);
    assert!(detail.contains("at most 10000 lines"), "{detail:?}");
    let long_line = format!(r#"{{"kind":"exit","plate":null,"lane":"{}"}}"#, "x".repeat(event_max));
    let body = format!("{}\n{long_line}\n", lines(2));
    let detail = world.refused("/v1/events/batch", ndjson, body.as_bytes(), 400);
    assert!(detail.starts_with("line 3: "), "{detail:?}");

    for (path, body) in
        [("/v1/events", padded("FITS1", event_max)), ("/v1/events/batch", padded("FITS2", batch_max))]
    {
        let content_type = if path.ends_with("batch") { ndjson } else { "application/json" };
        let answer = world.http().post(path, content_type, &body).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        world.next_car += 1;
        let body = answer.json();
        let first = body.get("sequence").or(body.get("first")).unwrap().as_u64().unwrap();
        world.journal.confirmed.push(crate::common::producer::Confirmed {
            epoch: body["epoch"].as_str().unwrap().to_owned(),
            first,
            plates: vec![if path.ends_with("batch") { "FITS2" } else { "FITS1" }.to_owned()],
        });
    }
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn a_name_that_is_no_utf_8_is_a_problem_as_any_other() {
    let world = World::with_good_events();
    let answer = world.server.http().get("/v1/garages/%FF").unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.problem(400);
    // In a filter it is a name that nobody has.
    let answer = world.server.http().get("/v1/events?garage=%FF").unwrap();
    assert_eq!((answer.status, &answer.json()["events"]), (200, &serde_json::json!([])), "{answer:?}");
    world.good_events_flow_and_the_books_are_exact();
}

/// A producer that gets a broken pipe instead of the reason would post the same again for ever.
#[test]
fn what_is_much_too_long_is_told_so_and_not_cut_off() {
    let world = World::with_good_events();
    for (path, content_type, length) in [
        ("/v1/events", "application/json", 64 * 1024),
        ("/v1/events", "application/json", 2 * 1024 * 1024),
        ("/v1/events/batch", "application/x-ndjson", 2 * 1024 * 1024),
        ("/v1/events/batch", "application/x-ndjson", 8 * 1024 * 1024),
    ] {
        for _ in 0..5 {
            world.refused(path, content_type, &vec![b' '; length], 413);
        }
    }
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn a_wrong_type_method_or_path_is_told_so() {
    let world = World::with_good_events();
    let event = br#"{"kind":"entry","plate":"AB1"}"#;
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let detail = world.refused("/v1/events", wrong, event, 415);
        assert!(detail.contains("application/json"), "{detail:?}");
        let detail = world.refused("/v1/events/batch", wrong, event, 415);
        assert!(detail.contains("application/x-ndjson"), "{detail:?}");
    }
    let stored = world.stored();
    for method in ["PUT", "PATCH", "DELETE", "BREW"] {
        for path in ["/v1/events", "/v1/events/batch", "/v1/outbox", "/"] {
            let answer = world.http().request(method, path, "application/json", event).unwrap();
            assert!(!answer.problem(405).is_empty());
            let answer = world.server.http().request(method, path, "application/json", event).unwrap();
            assert!(matches!(answer.status, 404 | 405), "{answer:?}");
            answer.problem(answer.status);
        }
    }
    for path in
        ["/v1/event", "/v1/events/", "/v1/events/batch/7", "/v2/events", "/%00", "/..%2f..%2fetc/passwd"]
    {
        let answer = world.http().post(path, "application/json", event).unwrap();
        assert!(!answer.problem(404).is_empty());
        let answer = world.server.http().post(path, "application/json", event).unwrap();
        assert!(!answer.problem(answer.status).is_empty());
        assert!(matches!(answer.status, 404 | 405), "{path}: {answer:?}");
    }
    assert_eq!(world.stored(), stored);
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn a_question_that_makes_no_sense_is_refused_or_has_an_empty_answer() {
    let world = World::with_good_events();
    let (edge, server) = (world.http(), world.server.http());
    let lists = [(&edge, "/v1/outbox/events"), (&server, "/v1/events"), (&server, "/v1/quarantine")];
    for (http, path) in lists {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=-1", "limit"),
            ("limit=many", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=1&limit=2", "limit"),
            ("after=here", "after"),
            ("after=-1", "after"),
            ("after=99999999999999999999.1", "after"),
        ] {
            let detail = http.get(&format!("{path}?{query}")).unwrap().problem(400);
            assert!(detail.contains(field), "{path}?{query}: {detail:?}");
        }
    }
    for nobody in ["nobody", "%00", "a%0Ab", &"x".repeat(65), ""] {
        assert_eq!(
            server.get_json(&format!("/v1/events?garage={nobody}"))["events"],
            json!([]),
            "{nobody:?}"
        );
    }
    for nobody in ["nobody", "%00", "a%0Ab", &"x".repeat(65)] {
        let answer = server.get(&format!("/v1/garages/{nobody}")).unwrap();
        assert!(matches!(answer.status, 400 | 404), "{nobody:?}: {answer:?}");
        answer.problem(answer.status);
    }
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn a_cursor_beyond_everything_has_nothing_behind_it() {
    let world = World::with_good_events();
    let beyond = u64::MAX;
    let mut wrong = Vec::new();
    for (http, path, list) in [
        (world.http(), format!("/v1/outbox/events?after={beyond}"), "events"),
        (world.server.http(), format!("/v1/events?after={beyond}.0"), "events"),
        (world.server.http(), format!("/v1/events?garage=Bull%20Ring&after={beyond}.0"), "events"),
        (world.server.http(), format!("/v1/events?after={}.{beyond}", 1000), "events"),
        (world.server.http(), format!("/v1/quarantine?after={beyond}.0"), "quarantine"),
    ] {
        let answer = http.get(&path).unwrap();
        let empty = answer.status == 200 && answer.json()[list] == json!([]);
        if !empty && answer.status != 400 {
            wrong.push(format!("{path}: {} {}", answer.status, answer.body));
        }
    }
    assert_eq!(wrong, [""; 0]);
    world.good_events_flow_and_the_books_are_exact();
}

#[test]
fn bytes_that_are_no_http_do_no_harm() {
    let world = World::with_good_events();
    let mut rng = seeded();
    let addresses: Vec<SocketAddr> = [world.edge.dir(), world.server.dir()]
        .map(|dir| std::fs::read_to_string(dir.join("http.addr")).unwrap().trim().parse().unwrap())
        .to_vec();
    let mut nonsense: Vec<Vec<u8>> = vec![
        b"\r\n\r\n".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), // a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /v1/events HTTP/1.1\r\nContent-Length: -5\r\n\r\n".to_vec(),
        b"POST /v1/events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"kind\":\"entry\",\"plate\":\"AB1\"}".to_vec(),
        [&b"GET /"[..], &vec![b'a'; 1 << 20]].concat(),
        [&b"GET / HTTP/1.1\r\n"[..], &b"X: y\r\n".repeat(20_000)].concat(),
    ];
    nonsense.extend((0..60).map(|_| {
        let length = rng.random_range(1..2_000);
        (0..length).map(|_| rng.random()).collect()
    }));
    let stored = world.stored();
    for bytes in &nonsense {
        for address in &addresses {
            if let Some(answer) = send_bytes(*address, bytes) {
                assert!(
                    (400..=505).contains(&answer.status),
                    "{:?}: {answer:?}",
                    bytes.escape_ascii().to_string()
                );
            }
        }
    }
    assert_eq!(world.stored(), stored);
    world.good_events_flow_and_the_books_are_exact();
}

/// Some flips leave a good event, with another plate perhaps: then it is answered 201 and stored, and only then.
#[test]
fn a_request_with_a_flipped_bit_is_stored_only_if_it_says_so() {
    let world = World::with_good_events();
    let mut rng = seeded();
    let address =
        std::fs::read_to_string(world.edge.dir().join("http.addr")).unwrap().trim().parse().unwrap();
    let body = r#"{"kind":"exit","plate":"B-AB 123","at":"2026-11-23T08:15:00+01:00","lane":"2"}"#;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let good = format!("{head}{body}").into_bytes();
    let mut stored = world.stored();
    let (mut taken, mut refused, mut unanswered) = (0, 0, 0);
    for _ in 0..400 {
        let mut bytes = good.clone();
        let place = rng.random_range(0..bytes.len());
        bytes[place] ^= 1 << rng.random_range(0..8);
        let sent = bytes.escape_ascii().to_string();
        match send_bytes(address, &bytes) {
            Some(answer) if answer.status == 201 => {
                stored += 1;
                taken += 1;
                assert_eq!(answer.json()["sequence"], stored, "{sent}");
            }
            Some(answer) => {
                assert!(
                    answer.status < 500 || answer.status == 501 || answer.status == 505,
                    "{sent}: {answer:?}"
                );
                refused += 1;
            }
            None => unanswered += 1,
        }
        assert_eq!(world.stored(), stored, "{sent}");
    }
    println!(
        "of 400 requests with a flipped bit {taken} were taken, {refused} refused, {unanswered} not answered"
    );
    assert!(refused > 100);
    let edge = &world.edge;
    wait_until("all arrive", Duration::from_secs(20), &[edge, &world.server], || edge.depth() == 0);
    let applied: Vec<Applied> = events_of(&world.server, GARAGE);
    let sequences: Vec<u64> = applied.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=stored).collect::<Vec<u64>>());
}

/// A client lost its next request: the connection on which one was refused, before its body had come, was closed under it.
#[test]
fn a_refused_request_does_not_cost_the_next_one_on_its_connection() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let address = std::fs::read_to_string(server.dir().join("http.addr")).unwrap();
    let mut connection = std::net::TcpStream::connect(address.trim()).unwrap();
    for path in ["/v1/charges", "/nothing"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(b"{}").unwrap();
    }
    connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).unwrap();
    for answer in ["HTTP/1.1 405", "HTTP/1.1 404", "HTTP/1.1 200"] {
        assert!(answers.contains(answer), "{answer} is not in {answers}");
    }
}
