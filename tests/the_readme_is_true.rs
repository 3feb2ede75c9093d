//! The commands of the README do what it says, in its order, in an empty directory beside the examples.
//!
//! `cargo run --release --bin NAME --` stands for the binary under test. The replay of the whole recording is limited
//! here, because this is a debug build; the rest runs as it is written, but on addresses that are free: environment variables
//! give them to the programs, and the addresses of the README are replaced in what the shell runs. That the README names the
//! defaults is compared with `--help`.

use crate::common::daemon::own_loopback_address;
use crate::common::turns::together;
use fogpost::parking::Plate;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The lines of all shell blocks.
fn commands() -> VecDeque<String> {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut commands = VecDeque::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push_back(command.to_owned()),
            _ => {}
        }
    }
    commands
}

fn binary(name: &str) -> &'static str {
    match name {
        "city" => env!("CARGO_BIN_EXE_city"),
        "edge" => env!("CARGO_BIN_EXE_edge"),
        "server" => env!("CARGO_BIN_EXE_server"),
        other => panic!("the README runs {other:?}, which is no binary of this package"),
    }
}

/// The binary and the arguments of a `cargo run` line.
fn cargo_run(line: &str) -> (&'static str, Vec<String>) {
    let rest = line.strip_prefix("cargo run --release --bin ").expect(line);
    let (name, arguments) = rest.split_once(" -- ").unwrap_or((rest, ""));
    (binary(name), arguments.split_whitespace().map(str::to_owned).collect())
}

struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Running {
    /// Starts a program with some settings in its environment.
    fn start(line: &str, dir: &Path, settings: &[(&str, &str)]) -> Running {
        let (program, arguments) = cargo_run(line);
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).env_clear().envs(settings.iter().copied());
        let log = dir.join("stderr.log");
        let stderr = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Running { child, lines, log }
    }

    fn wait_for(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(_) => {
                    let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                    panic!("no line with {part:?} came; there were: {seen:#?}\n{log}")
                }
            }
        }
    }

    /// Ctrl-C; returns the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of `key=` in a ready line.
fn told(line: &str, key: &str) -> String {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key} in {line:?}")).to_owned()
}

/// The README and `--help` agree on a default.
fn assert_default(program: &str, default: &str) {
    let help = Command::new(binary(program)).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("{default}]")), "{program} --help has no default {default}: {help}");
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    assert!(readme.contains(default), "the README does not name the default {default} of {program}");
}

fn shell(line: &str, dir: &Path) -> String {
    let output = Command::new("sh").args(["-c", line]).current_dir(dir).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program to its end and gives what it says.
fn run(line: &str, dir: &Path) -> String {
    let (program, arguments) = cargo_run(line);
    let output = Command::new(program).args(arguments).current_dir(dir).env_clear().output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn its_commands_do_what_it_says() {
    together();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(Path::new(ROOT).join("examples"), dir.path().join("examples")).unwrap();
    let mut commands = commands();
    let mut next = |part: &str| -> String {
        let line = commands.pop_front().unwrap_or_else(|| panic!("the README lacks a command with {part:?}"));
        assert!(line.contains(part), "expected a command with {part:?}, found {line:?}");
        line
    };

    let city = Running::start(&next("--bin city"), dir.path(), &[]);
    city.wait_for("http://");
    assert_eq!(city.interrupt(), Some(0), "the books of the live city are right");

    let replay = format!("{} --limit 20000", next("--replay"));
    let mut replay = Running::start(&replay, dir.path(), &[]);
    let json = replay.wait_for("{");
    assert!(replay.child.wait().unwrap().success());
    let result: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&result["events"], &result["applied"]), (&20_000.into(), &20_000.into()));

    let test = Path::new(ROOT).join(next("./test"));
    assert!(is_executable(&test), "{} is to be run", test.display());

    for (program, default) in
        [("server", "tcp://127.0.0.1:5555"), ("server", "127.0.0.1:5580"), ("edge", "127.0.0.1:5581")]
    {
        assert_default(program, default);
    }
    let own = own_loopback_address();
    let listen = format!("tcp://{own}");
    let settings = [("FOGPOST_HTTP", own.as_str()), ("FOGPOST_LISTEN", listen.as_str())];
    let server = Running::start(&next("--bin server"), dir.path(), &settings);
    let ready = server.wait_for("ready");
    let (http, listen) = (told(&ready, "http"), told(&ready, "listen"));
    let http = http.strip_prefix("http://").unwrap();
    let settings = [("FOGPOST_HTTP", http), ("FOGPOST_LISTEN", listen.as_str())];
    assert!(dir.path().join("data/server").is_dir());

    // It takes the first port that is free.
    let edge = Running::start(&next("--garage-name 1"), dir.path(), &[("FOGPOST_SERVER", &listen)]);
    let ready = edge.wait_for("ready");
    let edge_http = told(&ready, "http");
    let (host, port) = edge_http.rsplit_once(':').unwrap();
    assert!(host == "http://127.0.0.1" && port.parse::<u16>().unwrap() >= 5581, "{ready}");
    let shell = |line: &str| shell(&line.replace("http://127.0.0.1:5581", &edge_http), dir.path());
    assert!(dir.path().join("g1").is_dir());

    let confirmed = shell(&next("curl"));
    assert!(confirmed.starts_with(r#"{"sequence":1,"epoch":"#), "{confirmed}");
    let confirmed = shell(&next("batch"));
    assert!(confirmed.starts_with(r#"{"first":2,"last":3,"#), "{confirmed}");

    assert_eq!(server.interrupt(), Some(0));
    with_tls(&mut next, &shell, dir.path(), http);
    let server = Running::start(&next("--config examples/bills.toml"), dir.path(), &settings);
    server.wait_for("ready");
    bills(&mut next, &shell, dir.path());

    assert_eq!(edge.interrupt(), Some(0));
    assert_eq!(server.interrupt(), Some(0));
    assert!(commands.is_empty(), "no test runs {commands:?}");
}

/// The commands of "A garage on another machine": from nothing to a garage that delivers through TLS in four of them.
fn with_tls(next: &mut dyn FnMut(&str) -> String, shell: &dyn Fn(&str) -> String, dir: &Path, http: &str) {
    let said = run(&next("certs init"), dir);
    assert!(said.contains("data/server-certs") && said.contains("server localhost"), "{said}");
    let said = run(&next("certs issue"), dir);
    assert!(said.contains("garage 2") && dir.join("g2-certs/key.pem").is_file(), "{said}");
    // On a port that is free.
    let server =
        Running::start(&next("--listen tls://").replace(":5555", ":0"), dir, &[("FOGPOST_HTTP", http)]);
    let listen = told(&server.wait_for("ready"), "listen");
    let (_, port) = listen.strip_prefix("tls://0.0.0.0").unwrap().split_at(1);
    let edge = next("--garage-name 2").replace(":5555", &format!(":{port}"));
    let edge = Running::start(&edge, dir, &[("FOGPOST_HTTP", "127.0.0.1:0")]);
    let http = told(&edge.wait_for("ready"), "http");
    let event = r#"curl -s -H 'Content-Type: application/json' -d '{"kind":"entry","plate":null}'"#;
    let confirmed = shell(&format!("{event} {http}/v1/events"));
    assert!(confirmed.starts_with(r#"{"sequence":1"#), "{confirmed}");
    let began = std::time::Instant::now();
    let outbox = || shell(&format!("curl -s {http}/v1/outbox"));
    while !outbox().contains(r#""acknowledged":1,"#) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", outbox());
    }
    assert_eq!((edge.interrupt(), server.interrupt()), (Some(0), Some(0)));
}

/// The commands of "Bills": register, see a draft, issue, correct, pay, and take the journal.
fn bills(next: &mut dyn FnMut(&str) -> String, shell: &dyn Fn(&str) -> String, dir: &Path) {
    let said = run(&next("accounts import"), dir);
    assert!(said.contains("+ account miller") && said.contains("Miller Logistics Ltd"), "{said}");
    let said = run(&next("plates import"), dir);
    assert!(said.contains("+ BAB123  account miller from 2026-01-01 on"), "{said}");
    assert!(said.contains("3 changes, recorded at position"), "{said}");
    let said = run(&next("plates add"), dir);
    assert!(said.contains("+ BAB125  account miller from 2026-10-01 on"), "{said}");
    let confirmed = shell(&next("batch"));
    assert!(confirmed.starts_with(r#"{"first":4,"last":5,"#), "{confirmed}");
    let list = next("charges list");
    let began = std::time::Instant::now();
    while !run(&list, dir).contains("7.50 EUR") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", run(&list, dir));
    }
    let show = next("statements show");
    let draft = run(&show, dir);
    for part in ["Stadtwerke Musterstadt", "Miller Logistics Ltd", "08:00: 3 × 2.50 = 7.50", "1.20", "DRAFT"]
    {
        assert!(draft.contains(part), "{part}: {draft}");
    }

    let said = run(&next("statements issue"), dir);
    assert!(said.contains("2026-000001") && said.contains("7.50 EUR"), "{said}");
    let invoice = run("cargo run --release --bin server -- documents show 2026-000001", dir);
    for part in ["INVOICE 2026-000001", "Miller Logistics Ltd", "2 Nov 2026", "1.20", "IBAN DE89"] {
        assert!(invoice.contains(part), "{part}: {invoice}");
    }
    assert_eq!(run(&show, dir), invoice, "once it is issued, the statement is the document");
    assert!(dir.join("data/server-documents/2026-000001.fogpost").is_file());

    let charges = run(&list, dir);
    let id = charges.split_whitespace().find(|word| word.starts_with("1/")).unwrap();
    run(&next("charges credit ID").replace("ID", id), dir);
    assert!(run(&list, dir).contains("6.00 EUR"));
    let said = run(&next("statements issue"), dir);
    assert!(said.contains("2026-000002") && said.contains("-1.50 EUR"), "{said}");
    let both = run(&show, dir);
    assert!(both.starts_with(&invoice) && both.contains("Corrects 2026-000001") && both.contains("waited"));

    let said = run(&next("payments import"), dir);
    assert!(said.contains("1 new payment, 5.00 EUR"), "{said}");
    let open = run(&next("documents list --open"), dir);
    assert!(open.contains("2026-000001") && open.contains("1.00 EUR"), "{open}");
    let journal = next("journal export");
    run(&journal, dir);
    let (_, file) = journal.rsplit_once(' ').unwrap();
    let bookings = std::fs::read_to_string(dir.join(file)).unwrap();
    assert!(bookings.contains("assets:bank") && bookings.contains("assets:receivable:miller"), "{bookings}");
}

fn is_executable(path: &PathBuf) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}

/// Two plates that differ only in where the space stands are one car, by design: the README says so, and what to do.
#[test]
fn plates_that_are_one_car_here_are_named_with_what_to_do() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let listed = "server charges list --plate BNO1234";
    assert!(readme.contains(listed), "the README lacks {listed:?}");
    for written in ["B-NO 1234", "BN-O 1234"] {
        assert!(readme.contains(&format!("`{written}`")), "the README lacks {written:?}");
        assert_eq!(Plate::new(written).unwrap().as_str(), "BNO1234");
    }
}
