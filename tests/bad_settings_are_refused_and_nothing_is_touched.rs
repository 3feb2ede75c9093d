//! **Promise.** A bad setting ends a daemon with 64, and what it cannot have, with 1: before it serves anybody, with a message
//! that names the setting or the path and says why. What others have stored stays as it is.

use crate::common::daemon::{EDGE, Refused, SERVER, command, refused};
use crate::common::{Edge, Journal, Server, assert_exactly_once, events_of, wait_until};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Starts `program` with `args`, expects that it refuses with `code`, and that its message holds all of `says`.
fn assert_refused(program: &str, args: &[&str], code: i32, says: &[&str]) {
    let Refused { code: ended_with, stderr } = refused(program, args);
    assert_eq!(ended_with, Some(code), "{program} {args:?}\n{stderr}");
    for part in says {
        assert!(stderr.contains(part), "{program} {args:?} does not say {part:?}:\n{stderr}");
    }
    assert!(!stderr.contains("panicked"), "{program} {args:?}\n{stderr}");
}

#[test]
fn a_bad_flag_ends_with_64_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let long_name = "x".repeat(65);
    let edges: [(&[&str], &str); 21] = [
        (&[], "--garage-name"),
        (&["--garage-name", ""], "--garage-name"),
        (&["--garage-name", &long_name], "--garage-name"),
        (&["--garage-name", "a\nb"], "--garage-name"),
        (&["--garage-name", "a\u{202e}b"], "--garage-name"),
        (&["--garage-name", " a"], "--garage-name"),
        (&["--garage-name", "a", "--server", "127.0.0.1:5555"], "--server"),
        (&["--garage-name", "a", "--server", "tcp://127.0.0.1"], "--server"),
        (&["--garage-name", "a", "--server", "tcp://127.0.0.1:70000"], "--server"),
        (&["--garage-name", "a", "--server", "tcp://127.0.0.1:0"], "--server"),
        (&["--garage-name", "a", "--server", "http://127.0.0.1:5555"], "--server"),
        (&["--garage-name", "a", "--server", ""], "--server"),
        (&["--garage-name", "a", "--http", "localhost"], "--http"),
        (&["--garage-name", "a", "--http", "127.0.0.1:http"], "--http"),
        (&["--garage-name", "a", "--capacity", "many"], "--capacity"),
        (&["--garage-name", "a", "--capacity=-1"], "--capacity"),
        (&["--garage-name", "a", "--board-interval-ms", "0"], "--board-interval-ms"),
        (&["--garage-name", "a", "--log-format", "xml"], "--log-format"),
        (&["--garage-name", "a", "--colour"], "--colour"),
        (&["--garage-name", "a", "--listen", "tcp://127.0.0.1:0"], "--listen"),
        (&["--garage-name", "a", "start"], "start"),
    ];
    for (args, named) in edges {
        let args = [args, &["--data-dir", path(&data)]].concat();
        assert_refused(EDGE, &args, 64, &[named]);
    }
    let servers: [(&[&str], &str); 7] = [
        (&["--listen", "127.0.0.1:5555"], "--listen"),
        (&["--listen", "tcp://"], "--listen"),
        (&["--http", "5580"], "--http"),
        (&["--http", "tcp://127.0.0.1:0"], "--http"),
        (&["--garage-name", "a"], "--garage-name"),
        (&["--log-format", ""], "--log-format"),
        (&["--capacity"], "--capacity"),
    ];
    for (args, named) in servers {
        let args = [args, &["--data-dir", path(&data)]].concat();
        assert_refused(SERVER, &args, 64, &[named]);
    }
    assert!(!data.exists(), "a refused setting has made a directory");
}

#[test]
fn a_configuration_file_that_cannot_be_used_ends_with_64_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("fogpost.toml");
    let edge: [(&[u8], &str); 7] = [
        (b"[edge]\ngarage-name = \"a\"\n", "garage-name"),
        (b"[edge]\ngarage_name = \"a\"\ncolour = \"red\"\n", "colour"),
        (b"[edge]\ngarage_name = 1\n", "garage_name"),
        (b"[edge]\ngarage_name = \"a\"\ncapacity = -1\n", "capacity"),
        (b"[edge]\ngarage_name = \"a\"\nserver = [\"nowhere\"]\n", "server"),
        (b"[edge]\ngarage_name = \"a\"\nserver = []\n", "--server"),
        (b"[edge]\ngarage_name = \"a\"\nhttp = \"here\"\n", "http"),
    ];
    let server: [(&[u8], &str); 7] = [
        (b"[server]\nlisten = \"there\"\n", "listen"),
        (b"\n\n\n[[tariff]]\nname = \"t\"\n", "line 4: tariff \"t\": garages is missing"),
        (b"\n\n[[calendar]]\nname = \"c\"\nholidays = [1]\n", "line 5: calendar \"c\": holidays"),
        (b"[operator]\nadress = []\n", "adress"),
        (b"[operator]\naddress = [\"Main Street 1\"]\n", "name is missing"),
        (b"[operator]\nname = \"a\\nb\"\n", "more than one line"),
        (b"[operator]\nname = \"A\"\naddress = \"Main Street 1\"\n", "address"),
    ];
    let both: [(&[u8], &str); 5] = [
        (b"[edges]\ngarage_name = \"a\"\n", "edges"),
        (b"[edge\n", "fogpost.toml"),
        (b"[edge]\ngarage_name = \"a\"\n[[tarif]]\n", "tarif"),
        (b"\xff\xfe", "fogpost.toml"),
        (b"just text", "fogpost.toml"),
    ];
    let of = |programs: &'static [&'static str], cases: &[(&'static [u8], &'static str)]| {
        cases.iter().map(|(content, named)| (programs, *content, *named)).collect::<Vec<_>>()
    };
    let cases = [of(&[EDGE], &edge), of(&[SERVER], &server), of(&[EDGE, SERVER], &both)].concat();
    for (programs, content, named) in cases {
        fs::write(&file, content).unwrap();
        let args = ["--config", path(&file), "--data-dir", path(&data)];
        for program in programs {
            assert_refused(program, &args, 64, &[named]);
        }
        // A check of a file names all that is wrong in it, for every program.
        if named != "--server" {
            assert_refused(SERVER, &["tariffs", "check", path(&file)], 64, &[named]);
        }
    }
    let nowhere = dir.path().join("nowhere.toml");
    for unreadable in [nowhere.as_path(), dir.path(), Path::new("")] {
        for program in [EDGE, SERVER] {
            let args = ["--config", path(unreadable), "--data-dir", path(&data)];
            assert_refused(program, &args, 64, &[path(unreadable)]);
        }
    }
    assert!(!data.exists(), "a refused setting has made a directory");
}

/// A mistake in `[[tariff]]` of a shared file once stopped every edge that was given it, with 64.
#[test]
fn a_mistake_in_another_programs_table_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fogpost.toml");
    let of_the_server =
        "[server]\nlisten = 7\ncolour = \"red\"\n[operator]\nadress = 1\n[[tariff]]\nname = 5\n";
    fs::write(&file, format!("{of_the_server}[[calendar]]\n[edge]\ncapacity = 42\n")).unwrap();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let edge = Edge::start(&dir.path().join("edge"), "a", &nowhere, &["--config", path(&file)]);
    assert_eq!(edge.http().get_json("/v1/board")["own"]["capacity"], 42);
    fs::write(&file, "[edge]\ncapacity = \"many\"\ncolour = \"red\"\n").unwrap();
    Server::start(&dir.path().join("server"), &["--config", path(&file)]);
}

/// A setting, as it is named on the command line, and values that make no sense, as a flag and as the file has them. A program
/// takes no value of the file from which it could not be told apart: `None`.
struct Setting {
    flag: &'static str,
    bad: &'static [(&'static str, Option<&'static str>)],
}

const OF_EDGE: &[Setting] = &[
    Setting {
        flag: "--garage-name",
        bad: &[("", Some("\"\"")), (" a", Some("\" a\"")), ("a\nb", Some("\"a\\nb\""))],
    },
    Setting { flag: "--data-dir", bad: &[("", Some("\"\""))] },
    Setting {
        flag: "--server",
        bad: &[
            ("", Some("[]")),
            ("", Some("[\"\"]")),
            ("127.0.0.1:5555", Some("[\"127.0.0.1:5555\"]")),
            ("tcp://127.0.0.1:0", Some("[\"tcp://127.0.0.1:0\"]")),
            ("tcp://127.0.0.1:70000", Some("[\"tcp://127.0.0.1:70000\"]")),
        ],
    },
    Setting {
        flag: "--http-hosts",
        bad: &[("", Some("[\"\"]")), ("a b", Some("[\"a b\"]")), ("a:b", Some("\"a\""))],
    },
    Setting {
        flag: "--http",
        bad: &[("", Some("\"\"")), ("localhost", Some("\"localhost\"")), ("1:2", Some("1"))],
    },
    Setting {
        flag: "--capacity",
        bad: &[("-1", Some("-1")), ("4294967296", Some("4294967296")), ("", Some("\"\""))],
    },
    Setting {
        flag: "--simulate",
        bad: &[
            ("0", Some("0")),
            ("-1", Some("-1.0")),
            ("1e-300", Some("1e-300")),
            ("3600001", Some("3600001")),
            ("nan", Some("nan")),
            ("inf", Some("inf")),
        ],
    },
    Setting {
        flag: "--board-interval-ms",
        bad: &[("99", Some("99")), ("3600001", Some("3600001")), ("-1", Some("-1")), ("1.5", Some("1.5"))],
    },
    Setting {
        flag: "--max-events",
        bad: &[("0", Some("0")), ("-1", Some("-1")), ("18446744073709551616", None)],
    },
    Setting { flag: "--max-bytes", bad: &[("0", Some("0")), ("-1", Some("-1")), ("4G", Some("\"4G\""))] },
    Setting { flag: "--reserve-bytes", bad: &[("-1", Some("-1")), ("64M", Some("\"64M\""))] },
    Setting { flag: "--tls-dir", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-ca", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-certificate", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-key", bad: &[("", Some("\"\""))] },
    Setting { flag: "--insecure-plaintext", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--machine-id", bad: &[("", Some("\"\"")), ("  ", Some("\"  \"")), ("", Some("7"))] },
    Setting { flag: "--http-tokens", bad: &[("", Some("\"\""))] },
    Setting { flag: "--http-tls-dir", bad: &[("", Some("\"\""))] },
    Setting { flag: "--insecure-http", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--public-board", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--camera-http", bad: &[("", Some("\"\"")), ("localhost", Some("\"localhost\""))] },
    Setting {
        flag: "--camera-allow",
        bad: &[
            ("10.0.0.0/33", Some("[\"10.0.0.0/33\"]")),
            ("cameras", Some("[\"cameras\"]")),
            ("", Some("\"10.0.0.1\"")),
        ],
    },
    Setting { flag: "--camera-passwords", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--log-format", bad: &[("", Some("\"\"")), ("xml", Some("\"xml\""))] },
];

const OF_SERVER: &[Setting] = &[
    Setting { flag: "--data-dir", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-dir", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-ca", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-certificate", bad: &[("", Some("\"\""))] },
    Setting { flag: "--tls-key", bad: &[("", Some("\"\""))] },
    Setting { flag: "--insecure-plaintext", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--documents-dir", bad: &[("", Some("\"\""))] },
    Setting { flag: "--listen", bad: &[("", Some("\"\"")), ("127.0.0.1:5555", Some("\"127.0.0.1:5555\""))] },
    Setting {
        flag: "--max-connections",
        bad: &[("0", Some("0")), ("-1", Some("-1")), ("65537", Some("65537")), ("many", Some("\"many\""))],
    },
    Setting {
        flag: "--max-connections-per-address",
        bad: &[("0", Some("0")), ("-1", Some("-1")), ("65537", Some("65537")), ("", Some("\"\""))],
    },
    Setting {
        flag: "--http-hosts",
        bad: &[("", Some("[\"\"]")), ("a b", Some("[\"a b\"]")), ("a:b", Some("\"a\""))],
    },
    Setting { flag: "--http", bad: &[("", Some("\"\"")), ("5580", Some("5580"))] },
    Setting { flag: "--reserve-bytes", bad: &[("-1", Some("-1")), ("64M", Some("\"64M\""))] },
    Setting {
        flag: "--retention-days",
        bad: &[
            ("0", Some("0")),
            ("-1", Some("-1")),
            ("36501", Some("36501")),
            ("7304485", Some("7304485")),
            ("off", Some("\"off\"")),
            ("", Some("\"\"")),
        ],
    },
    Setting { flag: "--http-tokens", bad: &[("", Some("\"\""))] },
    Setting { flag: "--http-tls-dir", bad: &[("", Some("\"\""))] },
    Setting { flag: "--insecure-http", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--public-board", bad: &[("perhaps", Some("\"perhaps\"")), ("1", Some("1"))] },
    Setting { flag: "--log-format", bad: &[("", Some("\"\"")), ("xml", Some("\"xml\""))] },
];

/// `retention_days = 0` once passed in the file, while the flag refused it, and forgot all months before this one for good; a very
/// large one panicked in a task whose end nobody noticed.
#[test]
fn each_setting_is_checked_in_the_same_way_as_a_flag_in_the_environment_and_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("fogpost.toml"));
    for (program, table, settings) in [(EDGE, "edge", OF_EDGE), (SERVER, "server", OF_SERVER)] {
        let shown = String::from_utf8(command(program, &["--help".into()]).output().unwrap().stdout).unwrap();
        for line in shown.lines().filter_map(|line| line.trim_start().strip_prefix("--")) {
            let flag = format!("--{}", line.split([' ', '[']).next().unwrap());
            let without_values = ["--help", "--version", "--config"];
            let is_tried = settings.iter().any(|setting| setting.flag == flag);
            assert!(is_tried || without_values.contains(&flag.as_str()), "{program}: no bad value of {flag}");
        }
        for Setting { flag, bad } in settings {
            let key = flag.trim_start_matches("--").replace('-', "_");
            let others: Vec<String> = [("--garage-name", "a"), ("--data-dir", path(&data))]
                .into_iter()
                .filter(|(other, _)| other != flag && (*other != "--garage-name" || program == EDGE))
                .flat_map(|(other, value)| [other.to_owned(), value.to_owned()])
                .collect();
            let is_refused = |source: &str, given: &str, extra: &[String], env: Option<(String, &str)>| {
                // One that is taken would serve for ever.
                let bounded = ["20".to_owned(), program.to_owned()];
                let mut command = command("timeout", &[&bounded, &others[..], extra].concat());
                let output = command.envs(env).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(64), "{flag} {given:?} in {source}: {said}");
                assert!(said.contains(flag) || said.contains(&key), "{flag} {given:?} in {source}: {said}");
                assert!(!said.contains("panicked"), "{said}");
            };
            for (value, in_file) in *bad {
                is_refused("a flag", value, &[format!("{flag}={value}")], None);
                is_refused(
                    "the environment",
                    value,
                    &[],
                    Some((format!("FOGPOST_{}", key.to_uppercase()), value)),
                );
                if let Some(in_file) = in_file {
                    fs::write(&file, format!("[{table}]\n{key} = {in_file}\n")).unwrap();
                    is_refused("the file", in_file, &["--config".to_owned(), path(&file).to_owned()], None);
                }
            }
        }
    }
    assert!(!data.exists(), "a refused setting has made a directory");
}

#[test]
fn a_directory_that_another_process_holds_is_refused_and_the_holder_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), vec!["KA1".into()]);
    let edge_args = ["--garage-name", "a", "--http", "127.0.0.1:0", "--data-dir", path(edge.dir())];
    assert_refused(EDGE, &edge_args, 1, &["in use", path(edge.dir())]);
    let server_args =
        ["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", path(server.dir())];
    assert_refused(SERVER, &server_args, 1, &["in use", path(server.dir())]);
    // Neither can have the other's.
    let edge_there = ["--garage-name", "a", "--http", "127.0.0.1:0", "--data-dir", path(server.dir())];
    assert_refused(EDGE, &edge_there, 1, &["in use", path(server.dir())]);

    journal.post_entries(&edge.http(), vec!["KA2".into()]);
    wait_until("both arrive", Duration::from_secs(20), &[&edge, &server], || server.applied_of("a") == 2);
    assert_exactly_once(&events_of(&server, "a"), &[journal]);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "a file").unwrap();
    // Also root can write to none of these.
    for unwritable in
        [file.as_path(), &file.join("below"), Path::new("/proc/fogpost"), Path::new("/proc/self")]
    {
        let shown = format!("{unwritable:?}");
        let args = ["--data-dir", path(unwritable), "--http", "127.0.0.1:0"];
        assert_refused(EDGE, &[&args[..], &["--garage-name", "a"]].concat(), 1, &["data directory", &shown]);
        let args = [&args[..], &["--listen", "tcp://127.0.0.1:0"]].concat();
        assert_refused(SERVER, &args, 1, &["data directory", &shown]);
    }
    assert_eq!(fs::read(&file).unwrap(), b"a file");
}

#[test]
fn a_directory_of_another_garage_or_program_is_refused_with_64_and_keeps_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "north", &[server.address()], &[]);
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), vec!["KA1".into(), "KA2".into()]);
    wait_until("both arrive", Duration::from_secs(20), &[&edge, &server], || server.applied_of("north") == 2);
    server.kill();
    journal.post_entries(&edge.http(), vec!["KA3".into(), "KA4".into()]);
    edge.kill();

    let (at_edge, at_server) = (path(edge.dir()).to_owned(), path(server.dir()).to_owned());
    let edge_at = |name, dir| ["--garage-name", name, "--http", "127.0.0.1:0", "--data-dir", dir];
    assert_refused(EDGE, &edge_at("south", &at_edge), 64, &["\"north\"", "\"south\"", "Nothing was changed"]);
    assert_refused(EDGE, &edge_at("north", &at_server), 64, &["server", "edge"]);
    let server_at = ["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", &at_edge];
    assert_refused(SERVER, &server_at, 64, &["server", "edge"]);

    server.restart();
    edge.restart();
    wait_until("all four arrive", Duration::from_secs(20), &[&edge, &server], || {
        server.applied_of("north") == 4
    });
    assert_exactly_once(&events_of(&server, "north"), &[journal]);
}

#[test]
fn an_address_that_is_taken_is_refused_and_the_stored_events_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let mut journal = Journal::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    server.kill();
    journal.post_entries(&edge.http(), vec!["KA1".into()]);
    edge.kill();
    let tokens = dir.path().join("tokens.toml");
    fs::write(&tokens, "version = 1\n").unwrap();

    let edge_args = ["--garage-name", "a", "--http", &taken, "--data-dir", path(edge.dir())];
    assert_refused(EDGE, &edge_args, 1, &["--http", &taken]);
    let server_args = |http, listen| {
        ["--http", http, "--listen", listen, "--data-dir", path(server.dir()), "--insecure-plaintext"]
    };
    assert_refused(SERVER, &server_args(&taken, "tcp://127.0.0.1:0"), 1, &["--http", &taken]);
    let listen = format!("tcp://{taken}");
    assert_refused(SERVER, &server_args("127.0.0.1:0", &listen), 1, &["--listen", &taken]);
    // An address that is none of this machine's.
    let of_others = [
        &server_args("192.0.2.1:0", "tcp://127.0.0.1:0")[..],
        &["--insecure-http", "--http-tokens", path(&tokens)],
    ]
    .concat();
    assert_refused(SERVER, &of_others, 1, &["192.0.2.1"]);
    assert_refused(SERVER, &server_args("127.0.0.1:0", "tcp://192.0.2.1:0"), 1, &["192.0.2.1"]);
    assert_refused(
        SERVER,
        &server_args("127.0.0.1:0", "tcp://no-such-host.invalid:0"),
        1,
        &["no-such-host.invalid"],
    );
    drop(listener);

    server.restart();
    edge.restart();
    wait_until("the event arrives", Duration::from_secs(20), &[&edge, &server], || {
        server.applied_of("a") == 1
    });
    assert_exactly_once(&events_of(&server, "a"), &[journal]);
}

/// Being without the server is what an edge is for.
#[test]
fn a_server_that_cannot_be_reached_is_no_bad_setting() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    server.kill();
    let servers =
        ["tcp://no-such-host.invalid:5555".to_owned(), "tcp://[::1]:1".to_owned(), server.address()];
    let edge = Edge::start(&dir.path().join("edge"), "a", &servers, &["--insecure-plaintext"]);
    let readyz = edge.http().get("/readyz").unwrap();
    assert_eq!((readyz.status, readyz.body.as_str()), (200, "ready\n"));
    let mut journal = Journal::default();
    for n in 0..5 {
        journal.post_entries(&edge.http(), vec![format!("KA{n}")]);
    }
    assert_eq!(journal.confirmed_events(), 5);
    assert_eq!(edge.depth(), 5);
    server.restart();
    wait_until("the events arrive", Duration::from_secs(30), &[&edge, &server], || {
        server.applied_of("a") == 5
    });
    assert_exactly_once(&events_of(&server, "a"), &[journal]);
}
