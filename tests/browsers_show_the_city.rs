//! **Promise.** The server's pages show an operator the city: first what is an alarm, then every garage with its occupancy, backlog and
//! takings; the stays of a plate, what they cost and why, and the documents; and what waits for a person, with the command to
//! copy. They change nothing, and what they show follows what happens.

use crate::common::money::{TARIFFS, Town};
use crate::common::{Browser, ColorScheme, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const OPERATOR: &str = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\n";
const PAGES: [&str; 5] = ["/", "/garages/a", "/plates", "/plates?plate=M-AX%201", "/review"];

fn config() -> String {
    let garages = "[[garage]]\nname = \"a\"\naddress = \"Hauptstraße 1\"\ngroup = \"Centre\"\n[[garage]]\nname = \"never seen\"\n";
    let alarms = "[alarms]\nsilent_after = \"3s\"\nresolve_after = \"1s\"\n";
    format!("{}{garages}{alarms}", TARIFFS.replacen("[operator]\n", OPERATOR, 1))
}

/// Cars that came and went in October: one of an account, one of nobody. One left without having come.
fn october(town: &mut Town) {
    for (kind, plate, at) in [
        ("entry", "M-AX 1", "2026-10-05T08:00:00+02:00"),
        ("entry", "B-ÖL 2", "2026-10-05T08:30:00+02:00"),
        ("exit", "M-AX 1", "2026-10-05T10:30:00+02:00"),
        ("entry", "KA-Z 9", "2026-10-05T11:00:00+02:00"),
        ("exit", "KA-Z 9", "2026-10-05T11:45:00+02:00"),
        ("exit", "S-UN 7", "2026-10-05T12:00:00+02:00"),
    ] {
        town.tell("a", &json!({"kind": kind, "plate": plate, "at": at}));
    }
    for garage in ["a", "b"] {
        town.tell(garage, &json!({"kind": "count", "occupied": 7, "reason": "rounds"}));
    }
    town.settle();
    town.operator().says(&["plates", "add", "M-AX 1", "miller", "--from", "2026-01-01"]).done();
    town.operator().says(&["accounts", "set", "miller", "--name", "Miller", "--address", "Hafen 7"]).done();
    let issue = ["statements", "issue", "--month", "2026-10", "--date", "2026-11-01"];
    town.operator().says(&issue).done();
    town.operator().says(&[&issue[..], &["--plate", "KA-Z 9"]].concat()).done();
}

#[test]
fn an_operator_sees_alarms_garages_plates_documents_and_what_waits() {
    let Some(browser) = Browser::start("en") else { return };
    let mut town = Town::new(&config(), &["a", "b"]);
    october(&mut town);
    let http = town.server.http();
    let url = |path: &str| http.url(path);

    browser.open(&url("/"));
    browser.sees("#rows", "7 of 500, 493 free");
    browser.sees("#rows", "Centre");
    browser.sees("#rows", "never seen");
    browser.sees("#calm", "No alarm is raised.");
    town.tell("a", &json!({"kind": "entry", "plate": "M-AX 1"}));
    browser.sees("#rows", "8 of 500, 492 free");

    let listed = http.get_json("/v1/garages?fields=name,free&limit=1");
    assert_eq!(listed["garages"], json!([{"name": "a", "free": 492}]), "the page asks for what it shows");

    // A garage goes silent, and comes back.
    town.edges.get_mut("b").unwrap().kill();
    browser.sees("#alarms", "edge_silent");
    browser.sees("#rows", "1 alarm");
    browser.assert_accessible();
    town.edges.get_mut("b").unwrap().restart();
    wait_until("the alarm is over", SOON, &[&town.server], || browser.text("#calm") == "No alarm is raised.");

    browser.open(&url("/garages/a"));
    browser.sees("#tiles", "8");
    browser.sees("#facts", "Hauptstraße 1");
    browser.sees("#cars", "MAX1");
    browser.sees("#cars", "BÖL2");
    browser.sees("#chart svg", "500");

    // What a car of an account and one of nobody cost, and their documents as they were issued.
    for (plate, account, price, number) in [
        ("m-ax 1", "account miller", "7.50 EUR", "2026-000001"),
        ("KA-Z 9", "car without a customer", "2.50 EUR", "2026-000002"),
    ] {
        browser.open(&url("/plates"));
        browser.run(&format!(
            "document.getElementById('plate').value = {}; document.querySelector('form').requestSubmit()",
            json!(plate)
        ));
        browser.sees("#stays", price);
        browser.sees("#stays", account);
        browser.run("document.querySelector('#stays details').open = true");
        browser.sees("#stays", "all 00:00-24:00");
        browser.sees("#issued", number);
        browser.run("document.querySelector('#issued a').click()");
        browser.sees("body", number);
        browser.sees("body", price.trim_end_matches(" EUR"));
    }
    browser.open(&url("/plates?plate=NOBODY"));
    browser.sees("#said", "No stay of NOBODY is known.");

    browser.open(&url("/review"));
    browser.sees("#anomalies", "exit without entry");
    browser.sees("#anomalies", "server stays join ENTRY EXIT --reason TEXT");
    browser.run("document.querySelector('#look button').click()");
    browser.sees("#review-said", "No repair is proposed.");

    assert_eq!(browser.console(), [] as [String; 0]);
    for path in PAGES {
        browser.open(&url(path));
        wait_until("it has asked the server", SOON, &[&town.server], || {
            browser.run("return performance.getEntriesByType('resource').every(its => its.responseEnd > 0)")
                == true
        });
        for size in [(320, 700), (1280, 800), (3840, 2160)] {
            for scheme in [ColorScheme::Light, ColorScheme::Dark] {
                browser.screen(size, scheme);
                browser.assert_fits();
                browser.assert_accessible();
            }
        }
    }
    assert_eq!(browser.console(), [] as [String; 0]);

    // What was shown stays, and the page says that it is old.
    browser.open(&url("/"));
    browser.sees("#rows", "8 of 500");
    town.server.kill();
    browser.sees("#gone", "The server does not answer. The page shows its last answer, of ");
    browser.sees("#rows", "8 of 500");
    town.server.restart();
    wait_until("it is as it was", SOON, &[&town.server], || browser.text("#gone").is_empty());
}
