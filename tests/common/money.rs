//! A server with tariffs, garages and cars that come and go: what they owe.

use super::scale::by_scale;
use super::{Edge, Operator, Program, Server, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

/// 2.50 EUR for each started hour, 19 % of it VAT; the first ten minutes are free. Garage "tokyo": 100 JPY, no VAT.
pub const TARIFFS: &str = r#"
[operator]
name = "Stadtwerke <Musterstadt> & Söhne"
address = ["Hauptstraße 12", "70173 Stuttgart"]
vat_id = "DE 123 456 789"

[[tariff]]
name = "centre"
garages = ["a", "b"]
currency = "EUR"
time_zone = "Europe/Berlin"
valid_from = 2020-01-01
vat_percent = 19
grace_minutes = 10
unit_minutes = 60
bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 250 }]

[[tariff]]
name = "tokyo"
garages = ["tokyo"]
currency = "JPY"
time_zone = "Asia/Tokyo"
valid_from = 2020-01-01
vat_reason = "Exempt small business"
unit_minutes = 30
bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 100 }]
"#;

pub struct Town {
    pub server: Server,
    pub edges: BTreeMap<String, Edge>,
    operator: Operator,
    pub dir: TempDir,
    /// How many events each garage was told.
    told: BTreeMap<String, u64>,
    epochs: BTreeMap<String, String>,
}

impl Town {
    /// With garages of these names; `config` is the server's configuration file.
    pub fn new(config: &str, garages: &[&str]) -> Town {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "fogpost.toml", config);
        let server = Server::start(&dir.path().join("server"), &["--config", file.to_str().unwrap()]);
        let edge = |name: &&str| {
            let edge = Edge::start(&dir.path().join(format!("edge-{name}")), name, &[server.address()], &[]);
            ((*name).to_owned(), edge)
        };
        let edges = garages.iter().map(edge).collect();
        let operator = Operator::of(server.dir());
        Town { server, edges, operator, dir, told: BTreeMap::new(), epochs: BTreeMap::new() }
    }

    /// Another configuration for the next start.
    pub fn configure(&self, config: &str) {
        write(self.dir.path(), "fogpost.toml", config);
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        write(self.dir.path(), name, content).to_str().unwrap().to_owned()
    }

    /// Posts one event; its sequence.
    pub fn tell(&mut self, garage: &str, event: &Value) -> u64 {
        let answer = self.edges[garage].http().post_event(event).unwrap();
        assert_eq!(answer.status, 201, "{event}: {answer:?}");
        *self.told.entry(garage.to_owned()).or_default() += 1;
        let answer = answer.json();
        self.epochs.insert(garage.to_owned(), answer["epoch"].as_str().unwrap().to_owned());
        answer["sequence"].as_u64().unwrap()
    }

    /// Posts these events as one batch.
    pub fn tell_batch(&mut self, garage: &str, events: &[&str]) {
        let answer = self.edges[garage].http().post_batch(&events.join("\n")).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        *self.told.entry(garage.to_owned()).or_default() += events.len() as u64;
    }

    /// A stay on a day of November 2026, by the clock on the wall in Berlin; the sequence of its exit.
    pub fn stay(&mut self, garage: &str, plate: &str, day: u8, from: &str, to: &str) -> u64 {
        let at = |time: &str| format!("2026-11-{day:02}T{time}:00+01:00");
        self.tell(garage, &json!({"kind": "entry", "plate": plate, "at": at(from)}));
        self.tell(garage, &json!({"kind": "exit", "plate": plate, "at": at(to)}))
    }

    pub fn correct(&mut self, garage: &str, sequence: u64, plate: &str) {
        let epoch = self.epochs[garage].clone();
        self.tell(
            garage,
            &json!({"kind": "plate_correction", "epoch": epoch, "sequence": sequence, "plate": plate}),
        );
    }

    /// Who gives commands. What was told before has its position in the ledger first, unless no server runs.
    pub fn operator(&self) -> &Operator {
        if self.server.runs() {
            self.settle();
        }
        &self.operator
    }

    /// Commands go to this directory from now on.
    pub fn operate(&mut self, dir: &Path) {
        self.operator = Operator::of(dir);
    }

    /// Waits until the books show everything that was told.
    pub fn settle(&self) {
        let daemons: Vec<&dyn Program> = vec![&self.server];
        wait_until("the books show every event", SOON, &daemons, || {
            let applied = |garage: &String| self.server.applied_of(garage);
            self.told.iter().all(|(garage, told)| applied(garage) == *told)
                && self.server.http().get_json("/v1/charges?limit=1")["position"] == self.server.position()
        });
    }

    /// SIGKILL of everything, and another start.
    pub fn kill_all(&mut self) {
        self.server.kill();
        self.edges.values_mut().for_each(Edge::kill);
        self.server.restart();
        self.edges.values_mut().for_each(Edge::restart);
    }

    /// Gives a command again and again, while the server is killed at various moments, until it succeeds or says that it is `done`
    /// already.
    pub fn through_kills(&mut self, args: &[&str], done: &str) {
        for delay_ms in by_scale(&[12, 60][..], &[0, 12, 40, 120], &[0, 4, 12, 25, 40, 80, 120, 200]) {
            let operator = Operator::of(self.server.dir());
            let words: Vec<String> = args.iter().map(ToString::to_string).collect();
            let command = std::thread::spawn(move || {
                operator.says(&words.iter().map(String::as_str).collect::<Vec<_>>())
            });
            std::thread::sleep(Duration::from_millis(*delay_ms));
            self.server.kill();
            let said = command.join().unwrap();
            assert!(!said.stderr.contains("panicked"), "{said:?}");
            self.server.restart();
        }
        let said = self.operator().says(args);
        let is_done = said.code == Some(0) || !done.is_empty() && said.stderr.contains(done);
        assert!(is_done, "{args:?}: {said:?}");
    }

    /// SIGTERM of the server, and another start.
    pub fn restart_server(&mut self) {
        assert_eq!(self.server.stop().0, Some(0));
        self.server.restart();
    }

    /// The charges that a filter finds, oldest first.
    pub fn charges(&self, filter: &str) -> Vec<Value> {
        self.settle();
        let answer = self.server.http().get_json(&format!("/v1/charges?limit=1000{filter}"));
        let mut charges = answer["charges"].as_array().unwrap().clone();
        charges.reverse();
        charges
    }

    /// The same in short: plate, account, amount, state.
    pub fn short(&self, filter: &str) -> Vec<String> {
        let short = |line: &Value| {
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            format!("{} {} {} {}", text("plate"), text("account"), line["amount"], text("state"))
        };
        self.charges(filter).iter().map(short).collect()
    }

    /// The id of the one charge that a filter finds.
    pub fn id(&self, filter: &str) -> String {
        let found = self.charges(filter);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]["id"].as_str().unwrap().to_owned()
    }

    /// What an account owes for November by its statement, in EUR, and how many lines that has.
    pub fn owes(&self, account: &str) -> (i64, usize) {
        self.settle();
        let path = format!("/v1/statements/{account}?month=2026-11&currency=EUR");
        let statement = self.server.http().get_json(&path);
        let lines = statement["lines"].as_array().unwrap();
        let sum: i64 = lines.iter().map(|line| line["gross"].as_i64().unwrap()).sum();
        let total = statement["totals"]["gross"].as_i64().unwrap();
        assert_eq!(sum, total, "{statement}");
        (total, lines.len())
    }

    /// The codes of what did not add up, with the plates.
    pub fn anomalies(&self) -> Vec<String> {
        self.settle();
        let answer = self.server.http().get_json("/v1/anomalies");
        // The machine under test may not know whether its clock is set.
        let lines =
            answer["anomalies"].as_array().unwrap().iter().filter(|line| line["code"] != "clock_not_set");
        lines
            .map(|line| {
                format!("{} {}", line["code"].as_str().unwrap(), line["plate"].as_str().unwrap_or("-"))
            })
            .collect()
    }

    /// `server verify` finds nothing.
    pub fn verify(&self) {
        self.settle();
        let said = self.operator.says(&["verify"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
