//! `server` and `edge` as child processes.

use super::http::Http;
use super::operator::{Operator, at_the_edge};
use super::process::{Process, start_and_kill};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub use super::process::{Memory, Program, Refused, command, optimised, own_loopback_address, refused};

pub const EDGE: &str = env!("CARGO_BIN_EXE_edge");
pub const SERVER: &str = env!("CARGO_BIN_EXE_server");

/// The value of `key=` in a ready line.
fn told<'a>(line: &'a str, key: &str) -> &'a str {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the ready line lacks {key}=: {line:?}"))
}

fn address(text: &str) -> SocketAddr {
    let (_, address) = text.split_once("://").unwrap();
    address.parse().unwrap()
}

/// A running `server`.
pub struct Server {
    process: Process,
    dir: PathBuf,
    extra: Vec<String>,
    http: SocketAddr,
    listen: SocketAddr,
    /// Where edges connect, as the ready line has it.
    address: String,
}

impl Server {
    /// Starts a server on addresses of its own and waits until it is ready.
    pub fn start(dir: &Path, extra: &[&str]) -> Server {
        Server::start_under(&[], dir, extra)
    }

    /// The same under another program, such as a tracer, which must leave the pid to the server.
    pub fn start_under(tracer: &[&str], dir: &Path, extra: &[&str]) -> Server {
        Server::start_at(&own_loopback_address(), tracer, dir, extra)
    }

    /// The same on this address, of which the certificate of the server has to know.
    pub fn start_at(own: &str, tracer: &[&str], dir: &Path, extra: &[&str]) -> Server {
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        Server::try_start_at(tracer, dir, own, own, extra).unwrap_or_else(|why| panic!("{why}"))
    }

    fn args(dir: &Path, http: &str, listen: &str, extra: &[String]) -> Vec<String> {
        let mut args = vec!["--data-dir".to_owned(), dir.to_str().unwrap().to_owned()];
        args.extend(["--http".to_owned(), http.to_owned()]);
        let scheme = if extra.iter().any(|arg| arg == "--tls-dir") { "tls" } else { "tcp" };
        args.extend(["--listen".to_owned(), format!("{scheme}://{listen}")]);
        args.extend_from_slice(extra);
        args
    }

    /// Kills it, and then starts and kills it once more for each of `lives`, at that time after its start.
    pub fn kill_while_starting(&mut self, lives: &[Duration]) {
        self.kill();
        let (http, listen) = (self.http.to_string(), self.listen.to_string());
        for life in lives {
            start_and_kill(SERVER, &Server::args(&self.dir, &http, &listen, &self.extra), &self.dir, *life);
        }
    }

    fn try_start_at(
        tracer: &[&str],
        dir: &Path,
        http: &str,
        listen: &str,
        extra: Vec<String>,
    ) -> Result<Server, String> {
        let args = Server::args(dir, http, listen, &extra);
        let (process, ready) = Process::try_start("the server", tracer, SERVER, &args, dir)?;
        assert!(ready.starts_with("ready "), "{ready:?}");
        let (http, listen) = (address(told(&ready, "http")), address(told(&ready, "listen")));
        let published = |name: &str| fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
        assert_eq!(published("http.addr"), http.to_string());
        assert_eq!(published("listen.addr"), listen.to_string());
        let address = told(&ready, "listen").to_owned();
        Ok(Server { process, dir: dir.to_owned(), extra, http, listen, address })
    }

    /// Starts it again on the same directory and addresses, as a service manager would. It must have ended.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|why| panic!("{why}"));
    }

    /// The same; an error says how it ended instead, with its log. It can be tried again.
    pub fn try_restart(&mut self) -> Result<(), String> {
        assert!(!self.process.runs(), "the server still runs");
        let (http, listen) = (self.http.to_string(), self.listen.to_string());
        *self = Server::try_start_at(&[], &self.dir, &http, &listen, self.extra.clone())?;
        Ok(())
    }

    /// The same under another program, such as a tracer, which must leave it the pid.
    pub fn restart_under(&mut self, tracer: &[&str]) {
        self.try_restart_under(tracer).unwrap_or_else(|why| panic!("{why}"));
    }

    /// The same; an error says how it ended instead, with its log. It can be tried again.
    pub fn try_restart_under(&mut self, tracer: &[&str]) -> Result<(), String> {
        assert!(!self.process.runs(), "the server still runs");
        let (http, listen) = (self.http.to_string(), self.listen.to_string());
        *self = Server::try_start_at(tracer, &self.dir, &http, &listen, self.extra.clone())?;
        Ok(())
    }

    /// Starts a server on another directory in its place, where edges look for it. It must have ended.
    pub fn start_in_its_place(&self, dir: &Path) -> Server {
        assert!(!self.process.runs(), "the server still runs");
        let (http, listen) = (self.http.to_string(), self.listen.to_string());
        let started = Server::try_start_at(&[], dir, &http, &listen, self.extra.clone());
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    /// The exit code, once it has ended by itself or by somebody else's hand; `None` when it still runs after so long.
    pub fn ended_within(&mut self, within: Duration) -> Option<i32> {
        let status = self.process.wait(within)?;
        Some(status.code().unwrap_or(-1))
    }

    /// SIGTERM; the exit code, and how long it took to end.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        self.process.stop()
    }

    pub fn http(&self) -> Http {
        Http::new(self.http)
    }

    /// Its `verify` finds everything in order, whether it runs or not.
    pub fn verifies(&self) {
        Operator::of(&self.dir).verifies();
    }

    /// Where edges connect.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where edges connect, as a setting of theirs.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.process.signal(rustix::process::Signal::HUP);
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn memory(&self) -> Memory {
        self.process.memory()
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        self.process.descriptors()
    }

    /// How much of the processors it has taken.
    pub fn cpu(&self) -> Duration {
        self.process.cpu()
    }

    /// How many cars its view counts in a garage; `None` for one that it has not heard of.
    pub fn occupied(&self, garage: &str) -> Option<i64> {
        let answer = self.http().get_json("/v1/occupancy");
        let line = answer["garages"].as_array().unwrap().iter().find(|line| line["name"] == garage)?;
        line["occupied"].as_i64()
    }

    /// How many records its ledger holds.
    pub fn position(&self) -> u64 {
        self.metric("fogpost_server_ledger_position")
    }

    /// A number of `GET /metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let answer = self.http().get("/metrics").unwrap();
        let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no metric {name} in\n{}", answer.body));
        value.parse().unwrap()
    }

    /// How many events it has applied of one garage, by its marks.
    pub fn applied_of(&self, garage: &str) -> u64 {
        let answer = self.http().get(&format!("/v1/garages/{}", path_segment(garage))).unwrap();
        if answer.status == 404 {
            return 0;
        }
        let marks = answer.json()["marks"].as_array().unwrap().clone();
        marks.iter().map(|mark| mark["sequence"].as_u64().unwrap()).sum()
    }
}

impl Program for Server {
    fn log_tail(&self) -> String {
        self.process.log_tail()
    }
    fn log(&self) -> String {
        self.process.log()
    }
}

fn path_segment(name: &str) -> String {
    let bytes = name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// Where an edge serves HTTP at the moment, for those who outlive its restarts.
#[derive(Clone, Default)]
pub struct EdgeAddress(Arc<(Mutex<Option<SocketAddr>>, Condvar)>);

impl EdgeAddress {
    pub fn get(&self) -> Option<SocketAddr> {
        *self.0.0.lock().unwrap()
    }

    fn set(&self, address: Option<SocketAddr>) {
        *self.0.0.lock().unwrap() = address;
        self.0.1.notify_all();
    }

    /// The address, once there is one; `None` when there was none for `patience`.
    pub fn wait(&self, patience: Duration) -> Option<SocketAddr> {
        let address = self.0.0.lock().unwrap();
        *self.0.1.wait_timeout_while(address, patience, |address| address.is_none()).unwrap().0
    }
}

/// A running `edge`.
pub struct Edge {
    process: Process,
    dir: PathBuf,
    name: String,
    args: Vec<String>,
    address: EdgeAddress,
}

impl Edge {
    /// Starts the edge of garage `name` on an HTTP address of its own and waits until it is ready.
    pub fn start(dir: &Path, name: &str, servers: &[String], extra: &[&str]) -> Edge {
        Edge::start_under(&[], dir, name, servers, extra)
    }

    /// The same under another program, such as a tracer, which must leave the pid to the edge.
    pub fn start_under(tracer: &[&str], dir: &Path, name: &str, servers: &[String], extra: &[&str]) -> Edge {
        let mut args = vec!["--data-dir".to_owned(), dir.to_str().unwrap().to_owned()];
        args.extend(["--garage-name".to_owned(), name.to_owned()]);
        for server in servers {
            args.extend(["--server".to_owned(), server.clone()]);
        }
        args.extend(extra.iter().map(ToString::to_string));
        let started = Edge::try_start_at(tracer, dir, name, args, EdgeAddress::default());
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    fn with_http(args: &[String]) -> Vec<String> {
        let mut args = args.to_vec();
        if !args.iter().any(|arg| arg == "--http") {
            args.extend(["--http".to_owned(), own_loopback_address()]);
        }
        args
    }

    /// Kills it, and then starts and kills it once more for each of `lives`, at that time after its start.
    pub fn kill_while_starting(&mut self, lives: &[Duration]) {
        self.kill();
        for life in lives {
            start_and_kill(EDGE, &Edge::with_http(&self.args), &self.dir, *life);
        }
    }

    fn try_start_at(
        tracer: &[&str],
        dir: &Path,
        name: &str,
        args: Vec<String>,
        address_cell: EdgeAddress,
    ) -> Result<Edge, String> {
        let given = Edge::with_http(&args);
        let title = format!("the edge of {name:?}");
        let (process, ready) = Process::try_start(&title, tracer, EDGE, &given, dir)?;
        assert!(ready.starts_with("ready "), "{ready:?}");
        let http = address(told(&ready, "http"));
        assert_eq!(fs::read_to_string(dir.join("http.addr")).unwrap().trim(), http.to_string());
        address_cell.set(Some(http));
        Ok(Edge { process, dir: dir.to_owned(), name: name.to_owned(), args, address: address_cell })
    }

    /// Starts it again on the same directory with the same settings. Its HTTP address is a new one.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|why| panic!("{why}"));
    }

    /// The same under another program, such as a tracer, which must leave it the pid.
    pub fn restart_under(&mut self, tracer: &[&str]) {
        self.try_restart_under(tracer).unwrap_or_else(|why| panic!("{why}"));
    }

    /// The same; an error says how it ended instead, with its log. It can be tried again.
    pub fn try_restart_under(&mut self, tracer: &[&str]) -> Result<(), String> {
        assert!(!self.process.runs(), "the edge still runs");
        let (args, address) = (self.args.clone(), self.address.clone());
        *self = Edge::try_start_at(tracer, &self.dir, &self.name, args, address)?;
        Ok(())
    }

    /// The same; an error says how it ended instead, with its log. It can be tried again.
    pub fn try_restart(&mut self) -> Result<(), String> {
        assert!(!self.process.runs(), "the edge still runs");
        let (args, address) = (self.args.clone(), self.address.clone());
        *self = Edge::try_start_at(&[], &self.dir, &self.name, args, address)?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
        self.address.set(None);
    }

    /// The exit code, once it has ended by itself or by somebody else's hand; `None` when it still runs after so long.
    pub fn ended_within(&mut self, within: Duration) -> Option<i32> {
        let status = self.process.wait(within)?;
        self.address.set(None);
        Some(status.code().unwrap_or(-1))
    }

    /// SIGTERM; the exit code, and how long it took to end.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let ended = self.process.stop();
        self.address.set(None);
        ended
    }

    pub fn http(&self) -> Http {
        Http::new(self.address.get().expect("the edge runs"))
    }

    /// Follows the edge over its restarts.
    pub fn address(&self) -> EdgeAddress {
        self.address.clone()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn memory(&self) -> Memory {
        self.process.memory()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.process.signal(rustix::process::Signal::HUP);
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        self.process.descriptors()
    }

    /// The code of its alarm, and what the alarm says; empty texts without one.
    pub fn alarm(&self) -> (String, String) {
        let outbox = self.http().get_json("/v1/outbox");
        let text = |field: &str| outbox[field].as_str().unwrap_or_default().to_owned();
        (text("alarm_code"), text("alarm"))
    }

    /// Stops it in its tracks (SIGSTOP) until [`Edge::thaw`].
    pub fn freeze(&self) {
        self.process.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.signal(rustix::process::Signal::CONT);
    }

    /// `edge outbox verify` finds nothing wrong, whether the edge runs or not.
    pub fn assert_sound(&self) {
        let said = at_the_edge(&self.dir, &["outbox", "verify"]);
        assert!(said.contains("nothing is wrong"), "{said}");
        assert!(!said.contains("damage found earlier"), "{said}");
    }

    /// Where it is now: an edge that meets damage starts itself again, at another address. `None` while it is at none.
    pub fn http_now(&self) -> Option<Http> {
        let address = std::fs::read_to_string(self.dir.join("http.addr")).ok()?;
        address.trim().parse().ok().map(Http::new)
    }

    /// Whether it answers, and has delivered all that it confirmed.
    pub fn is_drained(&self) -> bool {
        let answer = self.http_now().and_then(|http| http.get("/v1/outbox").ok());
        answer.is_some_and(|answer| answer.status == 200 && answer.json()["depth"] == 0)
    }

    /// How many events it has confirmed and not yet delivered.
    pub fn depth(&self) -> u64 {
        self.http().get_json("/v1/outbox")["depth"].as_u64().unwrap()
    }
}

impl Program for Edge {
    fn log_tail(&self) -> String {
        self.process.log_tail()
    }
    fn log(&self) -> String {
        self.process.log()
    }
}
