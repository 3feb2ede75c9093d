//! **Promise.** A page of another site reads nothing from a daemon, and posts nothing to it, with the help of a browser that can
//! reach it. Pages run their own scripts and no others, whatever the names and plates are that they show.

use crate::common::daemon::{SERVER, own_loopback_address, refused};
use crate::common::{Answer, Edge, Http, Server, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const MARKUP: &str = "<script>alert(\"1\")</script>&amp;";
/// Read from right to left.
const ARABIC: &str = "أبج 1234";

/// A server that bills, and an edge with such names.
fn daemons(dir: &std::path::Path, extra: &[&str]) -> (Server, Edge) {
    let bills = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bills.toml");
    let server = Server::start(&dir.join("server"), &[&["--config", bills], extra].concat());
    let edge = Edge::start(&dir.join("edge"), MARKUP, &[server.address()], extra);
    (server, edge)
}

fn get(http: &Http, path: &str) -> Answer {
    http.get(path).unwrap()
}

#[test]
fn a_name_of_another_site_that_leads_here_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (server, edge) = daemons(dir.path(), &["--http-hosts", "books.example,10.0.0.5"]);
    for http in [server.http(), edge.http()] {
        for path in ["/", "/healthz", "/metrics", "/v1/garages", "/v1/outbox/events", "/nowhere"] {
            for host in ["rebound.example", "rebound.example:5580", "localhost.rebound.example", "10.0.0.6"] {
                let refused = get(&http.with("Host", host), path);
                let detail = refused.problem_with(421, "unknown_host");
                assert!(detail.contains(host) && detail.contains("--http-hosts"), "{detail}");
            }
        }
        for host in ["localhost", "localhost:80", "[::1]:5580", "Books.Example:443", "10.0.0.5"] {
            assert_eq!(get(&http.with("Host", host), "/healthz").status, 200, "{host}");
        }
    }
}

#[test]
fn a_page_of_another_site_posts_nothing_and_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, edge) = daemons(dir.path(), &[]);
    let event = json!({"kind": "entry", "plate": "KA1"});
    for origin in ["https://other.example", "null", "http://localhost:3000"] {
        let refused = edge.http().with("Origin", origin).post_event(&event).unwrap();
        refused.problem_with(403, "foreign_origin");
        for (http, path) in [(edge.http(), "/v1/outbox/events"), (server.http(), "/v1/events")] {
            let preflight =
                http.with("Origin", origin).request("OPTIONS", path, "application/json", b"").unwrap();
            for answer in [get(&http.with("Origin", origin), path), preflight] {
                let cors = answer.headers.iter().filter(|(name, _)| name.starts_with("access-control"));
                assert_eq!(cors.count(), 0, "{answer:?}");
                assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
            }
        }
    }
    assert_eq!(edge.depth(), 0);
    let address = std::fs::read_to_string(edge.dir().join("http.addr")).unwrap();
    let own = edge.http().with("Origin", &format!("http://{}", address.trim()));
    assert_eq!(own.post_event(&event).unwrap().status, 201);
}

#[test]
fn a_page_runs_its_own_scripts_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (server, edge) = daemons(dir.path(), &[]);
    let of_server = ["/", "/garages/a", "/plates", "/review"].map(|path| (server.http(), path));
    for (http, path) in of_server.into_iter().chain([(edge.http(), "/")]) {
        let [page, again] = [get(&http, path), get(&http, path)];
        let policy = page.header("content-security-policy");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(part), "{policy} lacks {part}");
        }
        let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert!(nonce.len() >= 32 && !again.body.contains(nonce), "{nonce} is new for each answer");
        assert_protected(&page);
        for element in ["<script", "<style"] {
            let with_nonce = format!("{element} nonce=\"{nonce}\">");
            assert_eq!(
                page.body.matches(element).count(),
                page.body.matches(&with_nonce).count(),
                "{element}"
            );
            assert!(page.body.contains(&with_nonce));
        }
        // What a policy without "unsafe-inline" would not run, and what would make markup of a text.
        let forbidden = [
            " onclick=",
            " onload=",
            " onerror=",
            " style=",
            "javascript:",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "setAttribute",
            "%NONCE%",
            "http://",
            "https://",
        ];
        for text in forbidden {
            assert!(!page.body.contains(text), "a page has {text:?}");
        }
        assert!(page.body.contains("textContent"));
    }
}

fn assert_protected(answer: &Answer) {
    let has = |name: &str, value: &str| assert_eq!(answer.header(name), value, "{name}: {answer:?}");
    has("x-content-type-options", "nosniff");
    has("referrer-policy", "same-origin");
    has("cache-control", "no-store");
    has("cross-origin-resource-policy", "same-origin");
}

#[test]
fn names_and_plates_are_shown_as_texts() {
    let dir = tempfile::tempdir().unwrap();
    let (server, edge) = daemons(dir.path(), &[]);
    for (kind, at) in [("entry", "2026-10-05T08:00:00+02:00"), ("exit", "2026-10-05T10:30:00+02:00")] {
        let answer = edge.http().post_event(&json!({"kind": kind, "plate": ARABIC, "at": at})).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    // An invisible mark that turns the text around is no part of a plate, and of no name.
    let turned = format!("\u{202e}{ARABIC}\u{2066}");
    let answer = edge
        .http()
        .post_event(&json!({"kind": "entry", "plate": turned, "at": "2026-10-06T08:00:00+02:00"}))
        .unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    wait_until("all are applied", SOON, &[&server, &edge], || server.applied_of(MARKUP) == 3);
    let plate = ARABIC.replace(' ', "");
    let stays = || server.http().get_json("/v1/stays")["stays"].as_array().unwrap().clone();
    wait_until("both stays are written", SOON, &[&server, &edge], || stays().len() == 2);
    let plates: Vec<_> = stays().iter().map(|stay| stay["plate"].clone()).collect();
    assert_eq!(plates, [json!(plate), json!(plate)]);

    let statement =
        get(&server.http(), &format!("/v1/statements/{}?month=2026-10&format=html", in_path(&plate)));
    assert_eq!(statement.status, 200, "{statement:?}");
    assert!(statement.body.contains(&format!("<bdi>{plate}</bdi>")), "{}", statement.body);
    assert!(
        statement.body.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;"),
        "{}",
        statement.body
    );
    assert!(!statement.body.contains("<script"));
    let policy = statement.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert_protected(&statement);

    // What is no HTML is never taken for it: a problem that repeats what was asked, a list, a statement as text.
    let asked = in_path(MARKUP);
    for path in [
        format!("/v1/garages/{asked}x"),
        format!("/v1/garages?after={asked}"),
        "/v1/garages".into(),
        format!("/{asked}"),
    ] {
        let answer = get(&server.http(), &path);
        assert!(answer.content_type.contains("json"), "{answer:?}");
        assert_protected(&answer);
    }
}

fn in_path(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_host_that_is_none_is_refused_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for host in ["http://books.example", "books.example:80", "books example", "", "*"] {
        let args =
            ["--data-dir", data.to_str().unwrap(), "--http", &own_loopback_address(), "--http-hosts", host];
        let refused = refused(SERVER, &args);
        assert_eq!(refused.code, Some(64), "{host}: {refused:?}");
        assert!(refused.stderr.contains("--http-hosts"), "{refused:?}");
    }
    assert!(!data.exists());
}
