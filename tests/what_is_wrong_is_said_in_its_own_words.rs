//! **Promise.** What a producer sends is taken as it is meant, or refused with the true reason, in the words of HTTP and JSON, and
//! with a code that stays the same.

use crate::common::Answer;
use crate::common::http::send_bytes;
use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};
use std::net::SocketAddr;

const EVENT: &str = r#"{"kind":"entry","plate":"AB1"}"#;
const BOTH: [(&str, &str); 2] =
    [("/v1/events", "application/json"), ("/v1/events/batch", "application/x-ndjson")];

/// Posts with these headers, exactly as they are given.
fn post(edge: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
    send_bytes(edge, &[head.as_bytes(), body].concat()).expect("it answers")
}

fn edge_of(town: &Town) -> SocketAddr {
    town.edges["a"].address().get().unwrap()
}

/// A problem of this status and code, with this reason; nothing was stored.
fn is_refused(town: &Town, answer: &Answer, status: u16, code: &str, reason: &str) {
    let detail = answer.problem(status);
    assert!(detail.contains(reason) && detail.contains("Nothing was stored"), "{detail} lacks {reason}");
    assert_eq!(answer.json()["code"], code, "{answer:?}");
    assert_eq!(town.edges["a"].http().get_json("/v1/outbox")["next_sequence"], 1, "{answer:?}");
}

/// `Content-Encoding: gzip` was passed over, so that plain bytes under it were stored and compressed ones were "no JSON".
#[test]
fn an_encoding_is_named_whether_a_header_or_the_bytes_tell_it() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let utf_16: Vec<u8> = EVENT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (path, content_type) in BOTH {
        let of_type = ("Content-Type", content_type);
        for encoding in ["gzip", "identity, br", "deflate"] {
            let answer =
                post(edge_of(&town), path, &[of_type, ("Content-Encoding", encoding)], EVENT.as_bytes());
            let reason = "without this header";
            is_refused(&town, &answer, 415, "unsupported_content_encoding", reason);
        }
        let charset = format!("{content_type}; charset=iso-8859-1");
        let answer = post(edge_of(&town), path, &[("Content-Type", &charset)], EVENT.as_bytes());
        is_refused(&town, &answer, 415, "unsupported_charset", "iso-8859-1");
        let answer = post(edge_of(&town), path, &[of_type], &utf_16);
        is_refused(&town, &answer, 400, "invalid_encoding", "this looks like UTF-16");
        let answer = post(edge_of(&town), path, &[of_type], b"{\"kind\":\"entry\",\"plate\":\"M\xdc1\"}");
        is_refused(&town, &answer, 400, "invalid_encoding", "byte 27 is 0xdc, which is not UTF-8");
    }
    // A mark of UTF-8 says nothing, and neither does the encoding that changes nothing.
    let marked = format!("\u{feff}{EVENT}");
    for (path, content_type) in BOTH {
        let headers = [("Content-Type", content_type), ("Content-Encoding", "identity")];
        let answer = post(edge_of(&town), path, &headers, marked.as_bytes());
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    town.tell("a", &json!({"kind": "exit", "plate": null}));
    assert_eq!(town.edges["a"].http().get_json("/v1/outbox")["next_sequence"], 4);
}

/// A field that stands twice was called ".", and types were those of our language: "expected u32".
#[test]
fn what_is_wrong_with_a_field_is_said_by_its_name_and_in_the_words_of_json() {
    let town = Town::new(TARIFFS, &["a"]);
    for (event, reason) in [
        (r#"{"kind":"entry","plate":"AB1","plate":"AB1"}"#, "plate: duplicate field `plate`"),
        (r#"{"kind":"entry","plate":"AB1","pl\u0061te":null}"#, "plate: duplicate field `plate`"),
        (
            r#"{"kind":"entry","plate":{"a":1,"a":2}}"#,
            "plate: it must be a text in quotes or null, not an object",
        ),
        (
            r#"{"kind":"count","occupied":"7","reason":"r"}"#,
            "it must be a whole number from 0 to 4294967295, not a text",
        ),
        (
            r#"{"kind":"count","occupied":7.5,"reason":"r"}"#,
            "occupied: it must be a whole number from 0 to 4294967295, not the number 7.5",
        ),
        (
            r#"{"kind":"count","occupied":7,"reason":true}"#,
            "reason: it must be a text in quotes, not true or false",
        ),
        (
            r#"{"kind":"entry","plate":"AB1","confidence":"high"}"#,
            "confidence: it must be a number, not a text",
        ),
    ] {
        for (path, content_type) in BOTH {
            let answer = post(edge_of(&town), path, &[("Content-Type", content_type)], event.as_bytes());
            is_refused(&town, &answer, 400, "invalid_event", reason);
            let detail = answer.problem(400);
            for word in ["u32", "u64", "f64", "expected", "invalid type", "struct"] {
                assert!(!detail.contains(word), "{detail}");
            }
        }
    }
}

/// The draft standard writes a key in quotes. `"k-7"` and `k-7` were two keys, and one event was stored twice.
#[test]
fn a_key_is_one_key_with_and_without_quotes() {
    let town = Town::new(TARIFFS, &["a"]);
    let json = ("Content-Type", "application/json");
    for bad in ["\"k", "\"a\"b\"", "\"a\\n\"", "\"\"", "a b"] {
        let answer = post(edge_of(&town), "/v1/events", &[json, ("Idempotency-Key", bad)], EVENT.as_bytes());
        is_refused(&town, &answer, 400, "invalid_idempotency_key", "Idempotency-Key: ");
    }
    let two = [json, ("Idempotency-Key", "k"), ("Idempotency-Key", "k")];
    let answer = post(edge_of(&town), "/v1/events", &two, EVENT.as_bytes());
    is_refused(&town, &answer, 400, "invalid_idempotency_key", "more than once");

    let sequence_under = |key: &str| {
        let answer = post(edge_of(&town), "/v1/events", &[json, ("Idempotency-Key", key)], EVENT.as_bytes());
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["sequence"].clone()
    };
    let sequences = |keys: &[&str]| keys.iter().map(|key| sequence_under(key)).collect::<Vec<Value>>();
    assert_eq!(sequences(&["k-7", "\"k-7\"", "k-7"]), [1, 1, 1]);
    assert_eq!(sequences(&["\"lane 2, \\\"north\\\"\"", "\"lane 2, \\\"north\\\"\""]), [2, 2]);
    let other = EVENT.replace("AB1", "AB2");
    let answer =
        post(edge_of(&town), "/v1/events", &[json, ("Idempotency-Key", "\"k-7\"")], other.as_bytes());
    answer.problem(422);
    assert_eq!(answer.json()["code"], "idempotency_key_reused");
}

#[test]
fn every_problem_has_a_code_in_lower_snake_case() {
    let town = Town::new(TARIFFS, &["a"]);
    let (edge, server) = (town.edges["a"].http(), town.server.http());
    for (answer, status, code) in [
        (edge.get("/v1/nothing"), 404, "not_found"),
        (edge.get("/v1/events"), 405, "method_not_allowed"),
        (edge.get("/v1/outbox/events?limit=0"), 400, "invalid_query"),
        (edge.get("/v1/outbox/events?limit=many"), 400, "invalid_query"),
        (edge.get("/v1/outbox/events?after=x"), 400, "invalid_cursor"),
        (edge.post("/v1/events", "text/plain", b"x"), 415, "unsupported_media_type"),
        (edge.post("/v1/events", "application/json", b"x"), 400, "invalid_json"),
        (edge.post("/v1/events", "application/json", &[b' '; 5000]), 413, "too_large"),
        (edge.post("/v1/events/batch", "application/x-ndjson", b"\n"), 400, "empty_batch"),
        (server.get("/v1/garages/nobody"), 404, "no_such_garage"),
        (server.get("/v1/garages/%FF"), 400, "invalid_path"),
        (server.get("/v1/statements/nobody?month=2026-11"), 404, "no_such_statement"),
        (server.get("/v1/statements/nobody"), 400, "invalid_query"),
        (server.get("/v1/stays?after=x"), 400, "invalid_cursor"),
    ] {
        let answer = answer.unwrap();
        answer.problem(status);
        assert_eq!(answer.json()["code"], code, "{answer:?}");
    }
}
