//! **Promise.** A request whose framing could be read in more than one way, or that is none, is taken once or not at all, and what is
//! sent behind it is never taken for another one: no proxy in front of a daemon can be made to smuggle one in.

use crate::common::raw_http::{
    Door, POST_HEAD, RawClient, answers, entry, new_plate, own_address, post, write_down,
};
use crate::common::{Edge, Journal, Server, assert_exactly_once, events_of, wait_until};
use std::time::Duration;

/// What is sent on a connection of its own, and which statuses the first answer of an edge may have: 0 stands for none. There is no
/// second answer.
struct Probe {
    bytes: Vec<u8>,
    plate: String,
    statuses: &'static [u16],
}

/// The body of an event with this plate; the text may have it in other places.
fn probe(text: impl FnOnce(&str) -> String, statuses: &'static [u16]) -> Probe {
    let plate = new_plate();
    Probe { bytes: text(&entry(&plate)).into_bytes(), plate, statuses }
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// One that nobody may take for a request.
fn smuggled() -> String {
    post("SMUGGLED", "")
}

/// Headers that say in two ways, or in a wrong way, how long a body is; an event or its chunks come behind them, and then another
/// request.
fn lengths_that_are_ambiguous() -> Vec<Probe> {
    let mut probes = Vec::new();
    let long = |headers: &str, body: &str| format!("{POST_HEAD}{headers}\r\n{body}{}", smuggled());
    for value in
        ["+#", "-#", "#,#", "#, #", "#;", "0x#", "# #", "1e1", "", "#\u{b}", "18446744073709551616", "##,"]
    {
        probes.push(probe(
            |event| {
                long(&format!("Content-Length: {}\r\n", value.replace('#', &event.len().to_string())), event)
            },
            &[400],
        ));
    }
    for headers in [
        "Content-Length: #\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: #\r\n",
        "Content-Length : #\r\n",
        "Content-Length\r\n",
        " Content-Length: #\r\n",
        "X: a\r\n Content-Length: #\r\n",
        "X: a\r\n\tContent-Length: #\r\n",
        "X: a\rContent-Length: #\r\n",
        "X: a\0b\r\nContent-Length: #\r\n",
        "X\0: a\r\nContent-Length: #\r\n",
        "X Y: a\r\nContent-Length: #\r\n",
        ": a\r\nContent-Length: #\r\n",
        "\u{e9}: a\r\nContent-Length: #\r\n",
        "X: a\nTransfer-Encoding: chunked\nContent-Length: #\r\n",
    ] {
        probes.push(probe(|event| long(&headers.replace('#', &event.len().to_string()), event), &[400]));
    }
    for value in [
        "xchunked",
        "identity",
        "gzip",
        "chunked, identity",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\u{b}",
        "\r\n chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "x",
        "",
    ] {
        let header = format!("Transfer-Encoding: {value}\r\n");
        probes.push(probe(|event| long(&header, &chunked(event)), &[400]));
        let header = format!("{header}Content-Length: 5\r\n");
        probes.push(probe(|event| long(&header, &chunked(event)), &[400]));
    }
    // With both, the chunks count (RFC 9112, 6.3), and nothing more is read.
    for headers in [
        "Content-Length: #\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: #\r\n",
        "Transfer-Encoding: identity, chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: -1\r\n",
    ] {
        let headers = |event: &str| headers.replace('#', &event.len().to_string());
        probes.push(probe(|event| long(&headers(event), &chunked(event)), &[201, 400]));
        probes.push(probe(|event| long(&headers(event), "0\r\n\r\n"), &[400]));
        probes.push(probe(|event| long(&headers(event), event), &[400]));
    }
    probes.push(probe(
        |event| {
            let text = long("Transfer-Encoding: chunked\r\n", &chunked(event));
            text.replacen("HTTP/1.1", "HTTP/1.0", 1)
        },
        &[400],
    ));
    probes
}

/// Requests within the body of another, which is refused before it was read, or after.
fn requests_in_bodies() -> Vec<Probe> {
    let mut probes = Vec::new();
    let inner = smuggled();
    let length = inner.len();
    let padded = format!("{inner}{}", " ".repeat(5000 - length));
    let texts = [
        (format!("{POST_HEAD}Content-Length: {length}\r\n\r\n{inner}"), &[400][..]),
        (format!("{POST_HEAD}Transfer-Encoding: chunked\r\n\r\n{}", chunked(&inner)), &[400]),
        (format!("{POST_HEAD}Content-Length: 5000\r\n\r\n{padded}"), &[413]),
        (format!("{POST_HEAD}Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n{padded}"), &[413]),
        (format!("{POST_HEAD}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{inner}"), &[400]),
        (
            format!(
                "{POST_HEAD}Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunked(&inner)
            ),
            &[400],
        ),
        (format!("{POST_HEAD}Expect: 200-ok\r\nContent-Length: {length}\r\n\r\n{inner}"), &[400, 417]),
    ];
    for (text, statuses) in texts {
        let other_type = text.replacen("application/json", "text/plain", 1);
        probes.push(probe(|_| other_type, &[415]));
        for path in ["/nothing", "/v1/events?x"] {
            let elsewhere = text.replacen("/v1/events", path, 1);
            probes.push(probe(|_| elsewhere, &[404, 400, 413, 417]));
        }
        for method in ["GET", "DELETE", "OPTIONS", "BREW", "TRACE"] {
            let other_method = text.replacen("POST", method, 1);
            probes.push(probe(|_| other_method, &[405]));
        }
        let elsewhere = text.replacen("localhost", "other.example", 1);
        probes.push(probe(|_| elsewhere, &[421]));
        probes.push(probe(|_| text, statuses));
    }
    probes
}

fn chunks() -> Vec<Probe> {
    let head = format!("{POST_HEAD}Transfer-Encoding: chunked\r\n\r\n");
    let of_bytes = |text: &str| text.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect::<String>();
    let mut probes = vec![
        probe(|event| format!("{head}{}0\r\n\r\n", of_bytes(event)), &[201]),
        probe(|event| format!("{head}{}0\r\n\r\n", of_bytes(&format!("{event:4096}"))), &[201]),
        probe(|event| format!("{head}{}0\r\n\r\n", of_bytes(&format!("{event:4097}"))), &[413]),
        // Trailers say nothing.
        probe(
            |event| {
                let whole = chunked(event);
                let rest = whole.strip_suffix("\r\n").unwrap();
                format!("{head}{rest}Content-Length: 0\r\nHost: other.example\r\n\r\n")
            },
            &[201],
        ),
        probe(
            |event| format!("{head}{:x};{}\r\n{event}\r\n0\r\n\r\n", event.len(), "x".repeat(2 << 20)),
            &[0, 400],
        ),
        probe(
            |event| {
                let whole = chunked(event);
                let rest = whole.strip_suffix("\r\n").unwrap();
                format!("{head}{rest}{}\r\n", "X: y\r\n".repeat(300_000))
            },
            &[0, 400],
        ),
        probe(|event| format!("{head}{:x}\r\n{event}", event.len()), &[400]),
        probe(|event| format!("{head}{:x}\r\n{event}\r\n0\r\n", event.len()), &[400]),
        probe(|_| format!("{head}8000000000000000\r\n{}", " ".repeat(1 << 20)), &[0, 413]),
    ];
    for size in [
        "8000000000000000",
        "FFFFFFFFFFFFFFFF",
        "FFFFFFFFFFFFFFF0",
        "10000000000000000",
        "-1",
        "+5",
        "0x5",
        "zz",
        "",
        " ",
        "5 5",
        "5;a\nb",
        "5\n",
        "0000000000000000000000005",
    ] {
        probes.push(probe(|event| format!("{head}{size}\r\n{event}\r\n0\r\n\r\n{}", smuggled()), &[400]));
    }
    // A chunk that is longer than it says, or ends otherwise.
    for behind in ["x\r\n", "\n", "\r", "\r\r\n"] {
        let text = |event: &str| format!("{head}{:x}\r\n{event}{behind}0\r\n\r\n{}", event.len(), smuggled());
        probes.push(probe(text, &[400]));
    }
    probes
}

/// Hosts, targets, versions and methods; and what never comes to an end.
fn heads() -> Vec<Probe> {
    let mut probes = Vec::new();
    let whole = |line: &str, headers: &str, event: &str| {
        format!(
            "{line}\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{event}",
            event.len()
        )
    };
    let line = "POST /v1/events HTTP/1.1";
    for (headers, statuses) in [
        ("", &[201, 400][..]),
        ("Host: other.example\r\n", &[421]),
        ("Host: localhost\r\nHost: localhost\r\n", &[400]),
        ("Host: localhost\r\nHost: other.example\r\n", &[400, 421]),
        ("Host: localhost, other.example\r\n", &[421]),
        ("Host: localhost@other.example\r\n", &[421]),
        ("Host: other.example\r\n localhost\r\n", &[400]),
    ] {
        probes.push(probe(|event| whole(line, headers, event), statuses));
    }
    let host = "Host: localhost\r\n";
    for (line, statuses) in [
        ("POST http://other.example/v1/events HTTP/1.1", &[421][..]),
        ("POST http://localhost/v1/events HTTP/1.1", &[201]),
        ("POST localhost/v1/events HTTP/1.1", &[400]),
        ("POST v1/events HTTP/1.1", &[400]),
        ("POST  /v1/events HTTP/1.1", &[400]),
        ("POST /v1/events  HTTP/1.1", &[400]),
        ("POST\t/v1/events HTTP/1.1", &[400]),
        ("POST /v1/events", &[400]),
        ("POST /v1/events HTTP/0.9", &[400]),
        ("POST /v1/events HTTP/2.0", &[400, 505]),
        ("POST /v1/events HTTP/1.10", &[400]),
        ("POST /v1/events http/1.1", &[400]),
        ("POST /v1/events\0 HTTP/1.1", &[400]),
        ("post /v1/events HTTP/1.1", &[405]),
        ("P\u{1}ST /v1/events HTTP/1.1", &[400]),
        ("P(ST /v1/events HTTP/1.1", &[400]),
        (" POST /v1/events HTTP/1.1", &[400]),
        ("CONNECT localhost:80 HTTP/1.1", &[404, 405]),
        ("OPTIONS * HTTP/1.1", &[404, 405]),
    ] {
        probes.push(probe(|event| whole(line, host, event), statuses));
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    probes.push(probe(|event| whole(line, &format!("{host}{upgrade}"), event), &[201]));
    probes.push(probe(|event| whole(line, host, event).replace("\r\n", "\n"), &[201, 400]));
    for (text, statuses) in [
        ("GET /\r\n\r\n", &[400][..]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &[505]),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", &[400]),
        ("\r\n\r\n\r\n", &[0, 400]),
    ] {
        probes.push(probe(|_| text.to_owned(), statuses));
    }
    let much = 2 << 20;
    for text in [
        format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(much)),
        format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "y".repeat(much)),
        format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(100_000)),
        format!("{} / HTTP/1.1\r\n{host}\r\n", "M".repeat(much)),
        "\r\n".repeat(much / 2),
    ] {
        probes.push(probe(|_| text, &[0, 400, 414, 431]));
    }
    probes
}

/// Sends all of them to a door. How many were said to be no valid request, and which events were taken.
pub fn send_all(door: &Door) -> (u64, Journal) {
    let (mut invalid, mut journal) = (0, Journal::default());
    for probes in [lengths_that_are_ambiguous(), requests_in_bodies(), chunks(), heads()] {
        for Probe { bytes, plate, statuses } in probes {
            let mut client = RawClient::connect_from(own_address(), door.to);
            client.say(&bytes);
            client.stop_sending();
            let answers = answers(&client.hear_the_end());
            let what = format!("{}: {}", door.name, bytes[..bytes.len().min(400)].escape_ascii());
            assert!(answers.len() <= 1, "{what} is answered more than once: {answers:#?}");
            let status = answers.first().map_or(0, |answer| answer.status);
            if door.takes_events {
                assert!(statuses.contains(&status), "{what}: {answers:?}");
            } else {
                assert!(matches!(status, 0 | 200 | 400..=505), "{what}: {answers:?}");
            }
            for answer in &answers {
                invalid += u64::from(answer.body.contains("not a valid HTTP/1.1 request"));
                write_down(&mut journal, plate.clone(), answer);
            }
        }
    }
    (invalid, journal)
}

#[test]
fn what_is_misframed_is_taken_once_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let of_edge = Door::plain("the edge", edge.dir(), true);
    let of_server = Door::plain("the server", server.dir(), false);
    let (invalid, journal) = send_all(&of_edge);
    assert!(invalid > 50 && journal.confirmed.len() >= 5, "{invalid} {}", journal.confirmed.len());
    send_all(&of_server);
    // Two whole requests in a row are two: the connections of the probes would have had a second answer as well.
    let plates = [new_plate(), new_plate()];
    let mut client = RawClient::connect(of_edge.to);
    client.say(plates.each_ref().map(|plate| post(plate, "")).concat());
    client.stop_sending();
    let mut both = Journal::default();
    for (plate, answer) in plates.into_iter().zip(answers(&client.hear_the_end())) {
        write_down(&mut both, plate, &answer);
    }
    assert_eq!(both.confirmed.len(), 2);
    wait_until("all is applied", Duration::from_secs(20), &[&edge, &server], || edge.depth() == 0);
    assert_exactly_once(&events_of(&server, "a"), &[journal, both]);
}
