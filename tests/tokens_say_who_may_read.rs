//! **Promise.** Where there are tokens, a daemon answers nobody without one: each role sees what it is for, and a token is taken up and
//! revoked without a restart. An address that others than this machine can reach is served with TLS and tokens, or not at all.

use crate::common::daemon::{EDGE, SERVER, own_loopback_address, refused};
use crate::common::operator::at_the_edge;
use crate::common::process::Process;
use crate::common::raw_http::tls_client;
use crate::common::{Certs, Edge, Http, Operator, Program, Server, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn token_of(said: String) -> String {
    let token = said.lines().next().unwrap().to_owned();
    assert!(token.starts_with("fogpost_"), "{said}");
    token
}

/// `server tokens add NAME --role ROLE`.
fn add(dir: &Path, role: &str) -> String {
    token_of(Operator::of(dir).says(&["tokens", "add", &format!("the-{role}"), "--role", role]).done())
}

/// `edge tokens add NAME ARGS`.
fn add_at_the_edge(dir: &Path, name: &str, args: &[&str]) -> String {
    token_of(at_the_edge(dir, &[&["tokens", "add", name], args].concat()))
}

fn with(http: &Http, token: &str) -> Http {
    http.with("Authorization", &format!("Bearer {token}"))
}

fn status(http: &Http, path: &str) -> u16 {
    http.get(path).unwrap().status
}

#[test]
fn each_role_sees_what_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("server");
    let tokens: Vec<String> = ["board", "read", "money"].iter().map(|role| add(&at, role)).collect();
    let server = Server::start(&at, &[]);
    let http = server.http();
    let paths = [
        (0, "/v1/occupancy"),
        (1, "/"),
        (1, "/metrics"),
        (1, "/v1/garages"),
        (1, "/v1/garages/a"),
        (1, "/v1/garages/a/history"),
        (1, "/v1/garages/a/chart.svg"),
        (1, "/v1/curves"),
        (1, "/v1/events"),
        (1, "/v1/stays?plate=KA1"),
        (1, "/v1/anomalies"),
        (1, "/v1/quarantine"),
        (1, "/v1/damages"),
        (2, "/v1/charges"),
        (2, "/v1/statements/a?month=2026-10"),
        (2, "/v1/documents"),
        (2, "/v1/documents/2026-000001"),
    ];
    for (needed, path) in paths {
        let refused = http.get(path).unwrap();
        refused.problem_with(401, "token_missing");
        assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"fogpost\"");
        for wrong in ["", "fogpost_", "nonsense", &tokens[2][..70]] {
            assert_eq!(status(&with(&http, wrong), path), 401, "{path} {wrong:?}");
        }
        http.with("Authorization", "Basic YTpi").get(path).unwrap().problem_with(401, "token_missing");
        for (role, token) in tokens.iter().enumerate() {
            let answer = with(&http, token).get(path).unwrap();
            if role < needed {
                answer.problem_with(403, "role_insufficient");
            } else {
                assert!([200, 404].contains(&answer.status), "{path} {answer:?}");
            }
        }
    }
    // What was charged is money, wherever it is shown.
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    assert_eq!(edge.http().post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap().status, 201);
    let reader = with(&http, &tokens[1]);
    let is_listed = || !reader.get_json("/v1/garages")["garages"].as_array().unwrap().is_empty();
    wait_until("the garage is listed", SOON, &[&server, &edge], is_listed);
    for path in ["/v1/garages", "/v1/garages/a"] {
        let [of_read, of_money] = [1, 2].map(|role| with(&http, &tokens[role]).get_json(path));
        let taken =
            |answer: &serde_json::Value| answer.pointer("/garages/0").unwrap_or(answer)["taken"].clone();
        assert_eq!((taken(&of_read), taken(&of_money)), (json!(null), json!([])), "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status(&http, path), 200, "{path}");
    }
    assert_eq!((status(&http, "/nowhere"), status(&http, "/v1/outbox")), (404, 404));
}

#[test]
fn a_token_posts_the_events_of_its_garage_and_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, at) = (Server::start(&dir.path().join("server"), &[]), dir.path().join("edge"));
    let gate = add_at_the_edge(&at, "gate", &["--role", "ingest", "--garage-name", "a"]);
    let other = add_at_the_edge(&at, "other", &["--role", "ingest", "--garage", "b"]);
    let [board, read] = ["board", "read"].map(|role| add_at_the_edge(&at, role, &["--role", role]));
    let edge = Edge::start(&at, "a", &[server.address()], &[]);
    let http = edge.http();
    let event = json!({"kind": "entry", "plate": "KA1"});
    let post = |http: &Http| http.post_event(&event).unwrap();
    post(&http).problem_with(401, "token_missing");
    for token in [&other, &board, &read] {
        post(&with(&http, token)).problem_with(403, "role_insufficient");
        with(&http, token).post_batch(&event.to_string()).unwrap().problem_with(403, "role_insufficient");
    }
    assert_eq!(post(&with(&http, &gate)).status, 201);
    assert_eq!(with(&http, &gate).post_batch(&event.to_string()).unwrap().status, 201);
    for (path, seen_by) in
        [("/", 2), ("/v1/board", 2), ("/v1/outbox", 1), ("/v1/outbox/events", 1), ("/metrics", 1)]
    {
        let allowed = [&gate, &board, &read].map(|token| status(&with(&http, token), path) == 200);
        assert_eq!(allowed, [false, seen_by == 2, true], "{path}");
    }
    wait_until("both events are applied", SOON, &[&server, &edge], || server.applied_of("a") == 2);
    // What a program says of itself stays readable: a token needs a garage, and money is nothing of an edge.
    let no_garage =
        refused(EDGE, &["--data-dir", at.to_str().unwrap(), "tokens", "add", "x", "--role", "ingest"]);
    assert!(no_garage.code == Some(1) && no_garage.stderr.contains("--garage"), "{no_garage:?}");
}

#[test]
fn tokens_are_taken_up_and_revoked_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("server");
    let server = Server::start(&at, &[]);
    let http = server.http();
    assert_eq!(status(&http, "/v1/garages"), 200, "on loopback nobody needs a token until there is one");
    let read = add(&at, "read");
    wait_until("tokens are needed", SOON, &[&server], || status(&http, "/v1/garages") == 401);
    let ours = with(&http, &read);
    assert_eq!((status(&ours, "/v1/garages"), status(&ours, "/v1/charges")), (200, 403));
    let money = add(&at, "money");
    wait_until("another is known", SOON, &[&server], || status(&with(&http, &money), "/v1/charges") == 200);
    let listed = Operator::of(&at).says(&["tokens", "list", "--json"]).json();
    assert_eq!(listed["tokens"][0]["name"], "the-read");
    assert!(!listed.to_string().contains(&read["fogpost_".len()..]));
    let again = Operator::of(&at).says(&["tokens", "add", "the-read", "--role", "read"]).refused();
    assert!(again.contains("command_refused"), "{again}");

    Operator::of(&at).says(&["tokens", "revoke", "the-read"]).done();
    wait_until("it is revoked", SOON, &[&server], || status(&ours, "/v1/garages") == 401);
    ours.get("/v1/garages").unwrap().problem_with(401, "token_unknown");
    // A file that is damaged, and one that is gone, open no door.
    let file = dir.path().join("server-tokens.toml");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "nonsense").unwrap();
    wait_until("it says so", SOON, &[&server], || server.log().contains("tokens_unusable"));
    assert_eq!((status(&ours, "/v1/garages"), status(&with(&http, &money), "/v1/charges")), (401, 200));
    std::fs::remove_file(&file).unwrap();
    wait_until("nobody is let in", SOON, &[&server], || status(&with(&http, &money), "/v1/charges") == 401);
    assert_eq!(status(&http, "/v1/garages"), 401);
    std::fs::write(&file, good).unwrap();
    wait_until("it is there again", SOON, &[&server], || status(&with(&http, &money), "/v1/charges") == 200);
}

#[test]
fn a_browser_signs_in_once_and_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("server");
    let read = add(&at, "read");
    let server = Server::start(&at, &[]);
    let http = server.http();
    let browser = http.with("Accept", "text/html,*/*;q=0.8");
    let led = browser.get("/").unwrap();
    assert_eq!((led.status, led.header("location")), (303, "/sign-in".to_owned()));
    let form = browser.get("/sign-in").unwrap();
    assert!(
        form.status == 200 && form.body.contains("type=\"password\"") && form.body.contains("nonce="),
        "{form:?}"
    );
    let policy = form.header("content-security-policy");
    assert!(policy.contains("form-action 'self'") && !policy.contains("unsafe"), "{policy}");

    let address = std::fs::read_to_string(at.join("http.addr")).unwrap();
    let ours = browser.with("Origin", &format!("http://{}", address.trim()));
    let urlencoded = "application/x-www-form-urlencoded";
    let sign_in = |http: &Http, token: &str| {
        http.post("/sign-in", urlencoded, format!("token={token}").as_bytes()).unwrap()
    };
    let refused = sign_in(&ours, "fogpost_0");
    assert!(refused.status == 401 && refused.header("set-cookie").is_empty(), "{refused:?}");
    assert!(refused.body.contains("not valid") && !refused.body.contains("fogpost_0"), "{}", refused.body);
    sign_in(&browser.with("Origin", "https://other.example"), &read).problem_with(403, "foreign_origin");
    let signed_in = sign_in(&ours, &read);
    assert_eq!((signed_in.status, signed_in.header("location")), (303, "/".to_owned()));
    let cookie = signed_in.header("set-cookie");
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part) && !cookie.contains("Domain"), "{cookie}");
    }
    let signed_in = browser.with("Cookie", &format!("other=1; {}", cookie.split(';').next().unwrap()));
    let page = signed_in.get("/").unwrap();
    assert!(page.status == 200 && page.body.contains("the-read (read)"), "{page:?}");
    assert_eq!((status(&signed_in, "/v1/garages"), status(&signed_in, "/v1/charges")), (200, 403));
    assert!(signed_in.get("/sign-in").unwrap().body.contains("Signed in as the-read"));

    let out = signed_in.post("/sign-out", urlencoded, b"").unwrap();
    assert!(out.status == 303 && out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
    Operator::of(&at).says(&["tokens", "revoke", "the-read"]).done();
    wait_until("the cookie is worth nothing", SOON, &[&server], || status(&signed_in, "/") == 303);
}

#[test]
fn the_board_and_the_occupancy_may_be_public() {
    let dir = tempfile::tempdir().unwrap();
    let [at_server, at_edge] = ["server", "edge"].map(|name| dir.path().join(name));
    add(&at_server, "read");
    add_at_the_edge(&at_edge, "gate", &["--role", "ingest", "--garage", "a"]);
    let server = Server::start(&at_server, &["--public-board"]);
    let edge = Edge::start(&at_edge, "a", &[server.address()], &["--public-board"]);
    assert_eq!((status(&server.http(), "/v1/occupancy"), status(&server.http(), "/v1/garages")), (200, 401));
    let of_edge = ["/", "/v1/board", "/v1/outbox", "/v1/outbox/events", "/metrics"];
    assert_eq!(of_edge.map(|path| status(&edge.http(), path)), [200, 200, 401, 401, 401]);
}

#[test]
fn an_address_outside_this_machine_needs_tls_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = data.to_str().unwrap();
    let server = |extra: &[&str]| {
        let args = ["--data-dir", at, "--listen", "tcp://127.0.0.1:0", "--http", "0.0.0.0:0"];
        refused(SERVER, &[&args, extra].concat())
    };
    let edge = |extra: &[&str]| {
        refused(EDGE, &[&["--data-dir", at, "--garage-name", "a", "--http", "[::]:0"], extra].concat())
    };
    for (refused, program) in [
        (server(&[]), "server"),
        (server(&["--insecure-http"]), "server"),
        (edge(&[]), "edge"),
        (edge(&["--insecure-http"]), "edge"),
    ] {
        assert_eq!(refused.code, Some(64), "{refused:?}");
        let advice = format!("{program} tokens add");
        assert!(refused.stderr.contains("tokens_needed") && refused.stderr.contains(&advice), "{refused:?}");
    }
    let read = add(&data, "read");
    for refused in [server(&[]), edge(&[])] {
        assert_eq!(refused.code, Some(64), "{refused:?}");
        for part in ["certificates_unusable", "server certs issue --host", "--insecure-http"] {
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
    }
    assert!(!data.exists(), "a refused setting has made a directory");

    let args = ["--data-dir", at, "--listen", "tcp://127.0.0.1:0", "--http", "0.0.0.0:0", "--insecure-http"];
    let args: Vec<String> = args.map(str::to_owned).into();
    let (mut process, ready) = Process::try_start("the server", &[], SERVER, &args, &data).unwrap();
    let port = std::fs::read_to_string(data.join("http.addr"))
        .unwrap()
        .trim()
        .rsplit_once(':')
        .unwrap()
        .1
        .to_owned();
    let http = Http::new(format!("127.0.0.1:{port}").parse().unwrap());
    assert_eq!(
        (status(&http, "/v1/garages"), status(&with(&http, &read), "/v1/garages")),
        (401, 200),
        "{ready}"
    );
    assert_eq!(process.stop().0, Some(0));
    assert_eq!(process.log().matches("insecure_http_allowed").count(), 1, "{}", process.log());
}

/// What a client with TLS gets.
fn by_tls(certs: &Certs, address: SocketAddr, request: &str) -> String {
    let session = rustls::ClientConnection::new(tls_client(certs), address.ip().into()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut stream = rustls::StreamOwned::new(session, stream);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn browsers_are_served_by_tls_and_show_no_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    let own = own_loopback_address();
    let (host, _) = own.rsplit_once(':').unwrap();
    let for_http = dir.path().join("for-http");
    certs.run(&["issue", "--host", host, "--out", for_http.to_str().unwrap()]);
    let at = dir.path().join("server");
    let read = add(&at, "read");
    let server = Server::start_at(&own, &[], &at, &["--http-tls-dir", for_http.to_str().unwrap()]);
    let address = std::fs::read_to_string(at.join("http.addr")).unwrap().trim().parse().unwrap();
    let get = |path: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {read}\r\nConnection: close\r\n\r\n"
        );
        by_tls(&certs, address, &head)
    };
    assert!(get("/v1/garages").starts_with("HTTP/1.1 200 "), "{}", get("/v1/garages"));
    assert!(get("/readyz").ends_with("ready\n"), "{}", get("/readyz"));
    assert!(get("/metrics").contains("certificate_days_left{certificate=\"http\"}"));
    let form = format!("token={read}");
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: {address}\r\nOrigin: https://{address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let signed_in = by_tls(&certs, address, &head);
    assert!(
        signed_in.contains("set-cookie: __Host-fogpost-") && signed_in.contains("; Secure"),
        "{signed_in}"
    );
    let plain = server.http().get("/healthz").unwrap();
    assert!(plain.problem(400).contains("https://"), "{plain:?}");
    // A client that never finishes its handshake, or leaves within it, holds up nobody.
    let mut silent = TcpStream::connect(address).unwrap();
    silent.write_all(&[0x16, 3, 1]).unwrap();
    assert!(get("/healthz").ends_with("ok\n"));

    // A renewed certificate is shown from the next connection on.
    certs.run(&["issue", "--host", host, "--out", for_http.to_str().unwrap()]);
    wait_until("it is taken up", SOON, &[&server], || {
        server.log().contains("changed certificates are in force")
    });
    assert!(get("/healthz").ends_with("ok\n"));
}
