//! **Promise.** A garage is open, full or closed: by an operator's command, by its own events, by its opening hours, in this order. Its own
//! sign shows it at once, the signs of all others within seconds, also after a restart; what is not known is null.

use crate::common::{Edge, FakeClock, Operator, Program, Server, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const OFTEN: [&str; 4] = ["--board-interval-ms", "100", "--capacity", "100"];

/// A server with a configuration, and the edges of "a" and "b".
struct City {
    dir: tempfile::TempDir,
    server: Server,
    a: Edge,
    b: Edge,
}

impl City {
    fn new(garages: &str) -> City {
        City::under(&[], garages)
    }

    fn under(tracer: &[&str], garages: &str) -> City {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("fogpost.toml");
        std::fs::write(&config, garages).unwrap();
        let flags = ["--config", config.to_str().unwrap()];
        let server = Server::start_under(tracer, &dir.path().join("server"), &flags);
        let edge =
            |name: &str| Edge::start_under(tracer, &dir.path().join(name), name, &[server.address()], &OFTEN);
        let (a, b) = (edge("a"), edge("b"));
        for edge in [&a, &b] {
            edge.http().post_event(&json!({"kind": "count", "occupied": 7, "reason": "rounds"})).unwrap();
        }
        let city = City { dir, server, a, b };
        city.until("both garages are known", || {
            let b = city.on_the_board("b")["occupied"] == 7;
            b && city.on_the_board("a")["occupied"] == 7 && city.own()["occupied"] == 7
        });
        city
    }

    fn configure(&self, garages: &str) {
        std::fs::write(self.dir.path().join("fogpost.toml"), garages).unwrap();
    }

    fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        wait_until(what, SOON, &[&self.server, &self.a, &self.b], holds);
    }

    fn operator(&self) -> Operator {
        Operator::of(self.server.dir())
    }

    /// The own garage on the sign in "a".
    fn own(&self) -> Value {
        self.a.http().get_json("/v1/board")["own"].clone()
    }

    /// A garage on the sign in "b".
    fn on_the_board(&self, name: &str) -> Value {
        line(&self.b.http().get_json("/v1/board"), name)
    }

    /// What the server says of "a".
    fn garage(&self) -> Value {
        self.server.http().get_json("/v1/garages/a")
    }

    /// On all signs, and at the server.
    fn is_everywhere(&self, state: &str) -> bool {
        let occupancy = line(&self.server.http().get_json("/v1/occupancy"), "a");
        [self.own(), self.on_the_board("a"), self.garage(), occupancy].iter().all(|its| its["state"] == state)
    }
}

fn line(answer: &Value, name: &str) -> Value {
    let lines = answer["garages"].as_array().unwrap();
    lines.iter().find(|line| line["name"] == name).cloned().unwrap_or_default()
}

#[test]
fn an_operator_closes_a_garage_and_a_restart_does_not_open_it() {
    let mut city = City::new("");
    city.until("it is open", || city.is_everywhere("open"));
    let close = ["garages", "close", "a", "--reason", "flood", "--until"];
    let said = city.operator().says(&[&close[..], &["2020-01-01T00:00:00Z"]].concat()).refused();
    assert!(said.contains("is over"), "{said}");
    let said = city.operator().says(&["garages", "automatic", "a"]).refused();
    assert!(said.contains("decide already"), "{said}");
    city.operator().says(&["garages", "close", "c"]).refused();

    let said = city.operator().says(&[&close[..], &["2099-01-01T00:00:00Z"]].concat()).done();
    assert!(said.contains("shown as closed") && said.contains("2099-01-01T00:00:00Z"), "{said}");
    city.until("it is closed everywhere", || city.is_everywhere("closed"));
    let garage = city.garage();
    assert_eq!(
        (&garage["state_reason"], &garage["state_changes_at"]),
        (&json!("flood"), &json!("2099-01-01T00:00:00Z"))
    );
    assert!(garage["state_since"].is_string(), "{garage}");
    assert_eq!(city.on_the_board("a")["state_changes_at"], "2099-01-01T00:00:00Z");
    assert_eq!((&city.own()["free"], city.on_the_board("b")["state"].as_str()), (&json!(93), Some("open")));
    let audit = city.operator().says(&["audit", "--json"]).json();
    let commands = audit["audit"].as_array().unwrap().iter().map(|line| line["what"].as_str().unwrap());
    assert_eq!(commands.filter(|what| what.contains("show_as")).count(), 4, "{audit}");

    city.server.kill();
    city.a.stop();
    city.a.restart();
    assert_eq!(city.own()["state"], "closed", "what the server said last is on its disk");
    city.server.restart();
    city.until("it is closed after the restart", || city.is_everywhere("closed"));
    city.server.verifies();

    // Its own word counts less.
    city.a.http().post_event(&json!({"kind": "opened"})).unwrap();
    city.operator().says(&["garages", "automatic", "a"]).done();
    city.until("it is open again", || city.is_everywhere("open"));
    assert_eq!(line(&city.operator().says(&["garages", "list", "--json"]).json(), "a")["state"], "open");
    city.server.stop();
    city.operator().verifies();
}

#[test]
fn a_garage_closes_itself_and_its_sign_says_so_without_a_server() {
    let mut city = City::new("");
    city.until("it is open", || city.is_everywhere("open"));
    city.server.kill();
    let posted = city.a.http().post_event(&json!({"kind": "closed", "reason": "power cut"})).unwrap();
    assert_eq!((posted.status, posted.json()["sequence"].as_u64()), (201, Some(2)));
    assert_eq!(
        (&city.own()["state"], &city.own()["occupied"]),
        (&json!("closed"), &json!(7)),
        "it changes no count"
    );
    city.a.stop();
    city.a.restart();
    assert_eq!(city.own()["state"], "closed");
    city.server.restart();
    city.until("the others hear of it", || city.is_everywhere("closed"));
    assert_eq!(
        (&city.garage()["state_reason"], &city.garage()["occupied"]),
        (&json!("power cut"), &json!(7))
    );
    let events = city.server.http().get_json("/v1/events?garage=a");
    let last = events["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((last["kind"].as_str(), last["reason"].as_str()), (Some("closed"), Some("power cut")));
    city.a.http().post_event(&json!({"kind": "opened"})).unwrap();
    assert_eq!(city.own()["state"], "open");
    city.until("it is open again", || city.is_everywhere("open"));
    assert_eq!(city.garage()["state_reason"], Value::Null);
    city.server.verifies();
}

/// With each car that left a full garage and the next that entered, all signs of the city changed.
#[test]
fn a_full_garage_is_full_until_enough_spaces_are_free() {
    let city = City::new("");
    let cars = |kind: &str, count: usize| {
        let line = format!("{{\"kind\":\"{kind}\",\"plate\":null}}\n");
        city.a.http().post_batch(&line.repeat(count)).unwrap();
    };
    cars("entry", 92);
    city.until("one space is free", || city.is_everywhere("open") && city.garage()["free"] == 1);
    cars("entry", 1);
    city.until("none is free", || city.is_everywhere("full"));
    assert!(city.garage()["state_since"].is_string());
    cars("exit", 1);
    city.until("one is free again", || city.on_the_board("a")["free"] == 1 && city.garage()["free"] == 1);
    assert!(city.is_everywhere("full"), "and soon gone");
    cars("exit", 1);
    city.until("two are free", || city.is_everywhere("open"));
    city.server.verifies();
}

/// `hours`: from and to, the same for all days.
fn table(hours: (&str, &str)) -> String {
    let (from, to) = hours;
    format!(
        "[[garage]]\nname = \"a\"\nposition = {{ latitude = 52.5, longitude = 13.4 }}\ntime_zone = \"UTC\"\nopening_hours = [{{ days = \"all\", from = \"{from}\", to = \"{to}\" }}]\n"
    )
}

/// A state by hours changes by time alone: no record of the ledger comes with it, and no server has to be there.
#[test]
fn a_garage_opens_and_closes_by_its_hours_also_without_a_server() {
    let clock_file = tempfile::tempdir().unwrap();
    let Some(clock) = FakeClock::new(&clock_file.path().join("clock")) else { return };
    let at = |minutes: i64| {
        let moment = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
        jiff::tz::TimeZone::UTC.to_datetime(moment).strftime("%H:%M").to_string()
    };
    // It opens in an hour and closes three hours later.
    let mut city = City::under(&clock.tracer(), &table((&at(60), &at(240))));
    city.until("it is closed", || city.is_everywhere("closed"));
    let opens = city.garage()["state_changes_at"].as_str().unwrap().to_owned();
    assert!(opens.contains(&at(60)), "{opens}");
    assert_eq!(
        (&city.own()["state_changes_at"], &city.on_the_board("a")["state_changes_at"]),
        (&json!(opens), &json!(opens))
    );
    let position = city.server.position();
    clock.set_minutes_ahead(90);
    city.until("it is open", || city.is_everywhere("open"));
    assert_eq!(city.server.position(), position, "nothing was recorded");
    city.server.kill();
    clock.set_minutes_ahead(270);
    assert_eq!(
        (&city.own()["state"], &city.on_the_board("a")["state"]),
        (&json!("closed"), &json!("closed"))
    );
    assert_eq!(city.on_the_board("b")["state"], "open", "it has no hours");
}

#[test]
fn the_table_of_garages_changes_while_the_server_runs_and_a_bad_one_changes_nothing() {
    let mut city = City::new(&table(("00:00", "24:00")));
    city.until("it is known", || city.on_the_board("a")["position"]["latitude"] == 52.5);
    assert_eq!(city.on_the_board("a")["distance_m"], Value::Null, "b has no position");
    let east = "[[garage]]\nname = \"b\"\nposition = { latitude = 52.5, longitude = 13.3 }\naddress = [\"Park Street 1\", \"City\"]\ncapacity = 9\ngroup = \"East\"\n";
    let never = "[[garage]]\nname = \"never heard\"\ncapacity = 12\n";
    city.configure(&(table(("00:00", "24:00")) + east + never));
    city.until("b has a position", || city.on_the_board("a")["distance_m"] == 6769);
    assert_eq!(
        (&city.on_the_board("a")["bearing_degrees"], &city.on_the_board("b")["group"]),
        (&json!(90), &json!("East"))
    );
    let b = city.server.http().get_json("/v1/garages/b");
    assert_eq!((&b["capacity"], &b["configured_capacity"]), (&json!(100), &json!(9)), "the edge's is used");
    assert_eq!(
        (&b["location"], &b["group"]),
        (&json!({"latitude": 52.5, "longitude": 13.3}), &json!("East"))
    );
    assert_eq!((&b["address"], &b["opening_hours"]), (&json!(["Park Street 1", "City"]), &Value::Null));
    assert_eq!(city.garage()["opening_hours"], json!({"time_zone": "UTC", "windows": ["all 00:00-24:00"]}));
    for path in ["/v1/garages", "/v1/occupancy"] {
        let never = line(&city.server.http().get_json(path), "never heard");
        let what = (&never["capacity"], &never["occupied"], &never["state"]);
        assert_eq!(what, (&json!(12), &Value::Null, &Value::Null), "{path}: {never}");
    }
    assert_eq!(city.server.http().get_json("/v1/garages/never%20heard")["last_heard_at"], Value::Null);
    assert_eq!(city.server.http().get("/v1/garages/nobody").unwrap().status, 404);

    city.configure("[[garage]]\nname = \"a\"\ncapacity = \"many\"\n");
    city.server.hang_up();
    let ready = || city.server.http().get("/readyz").unwrap();
    city.until("it is said", || ready().body.contains("garages_invalid: "));
    assert_eq!((ready().status, ready().body.contains("line 3")), (200, true), "{}", ready().body);
    assert!(city.server.log().contains("garages_invalid"));
    assert_eq!(city.garage()["location"]["latitude"], 52.5);
    city.configure("");
    city.server.hang_up();
    city.until("the table is gone", || city.on_the_board("a")["position"] == Value::Null);
    assert!(!ready().body.contains("garages_invalid"));
    city.server.stop();
}

#[test]
fn a_server_with_a_bad_table_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    for (text, parts) in [
        ("[[garage]]\nname = \"\"\n", &["line 2", "not valid"][..]),
        ("[[garage]]\nname = \"a\"\n[[garage]]\nname = \"a\"\n", &["line 4"]),
        ("[[garage]]\nname = \"a\"\nopens = \"08:00\"\n", &["line 3", "\"opens\" is not known"]),
    ] {
        std::fs::write(&config, text).unwrap();
        let said = Operator::of(&dir.path().join("server")).says(&["--config", config.to_str().unwrap()]);
        assert_eq!(said.code, Some(64), "{said:?}");
        assert!(said.stderr.starts_with("error[garages_invalid]: "), "{said:?}");
        assert!(parts.iter().all(|part| said.stderr.contains(part)), "{said:?}");
        assert!(!Path::exists(&dir.path().join("server")));
    }
}
