//! **Promise.** The board in a garage is a page that is right without anybody looking after it: it follows each event, says how old the
//! figures of other garages are when the server is away, says when it has lost the garage's own computer, and comes back by
//! itself. It fits every screen, in the languages of its readers, and without colours.

use crate::common::daemon::own_loopback_address;
use crate::common::scale::{Scale, scale};
use crate::common::{Browser, ColorScheme, Edge, Server, turns, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// Within which an event is on the board of a machine that does nothing else.
const IN_TIME: Duration = Duration::from_secs(2);

fn post(edge: &Edge, event: Value) {
    let answer = edge.http().post_event(&event).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// An edge whose staff counted its cars.
fn counted(dir: &Path, name: &str, server: &Server, occupied: u32) -> Edge {
    let own = tempfile::tempdir_in(dir).unwrap().keep();
    // It comes back to the same one when it is started again.
    let http = own_loopback_address().replace(":0", ":5581");
    let edge = Edge::start(&own, name, &[server.address()], &["--capacity", "40", "--http", &http]);
    post(&edge, json!({"kind": "count", "occupied": occupied, "reason": "rounds"}));
    wait_until("it is applied", SOON, &[&edge, server], || server.applied_of(name) == 1);
    edge
}

fn page(edge: &Edge) -> String {
    edge.http().url("/")
}

#[test]
fn the_board_follows_each_event_and_says_what_it_does_not_know() {
    let Some(browser) = Browser::start("en") else { return };
    let _alone = turns::alone_when_long();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut north = counted(dir.path(), "north", &server, 33);
    let south = counted(dir.path(), "south", &server, 15);

    browser.open(&page(&north));
    browser.sees("#free", "7");
    browser.sees("#others", "25");
    browser.sees("#age", "Connected to the city.");
    let began = Instant::now();
    post(&north, json!({"kind": "entry", "plate": "KA1"}));
    browser.sees("#free", "6");
    println!("its own event was shown after {:?}", began.elapsed());
    assert!(scale() < Scale::Long || began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    let began = Instant::now();
    post(&south, json!({"kind": "entry", "plate": "KA2"}));
    browser.sees("#others", "24");
    println!("one of another garage was shown after {:?}", began.elapsed());
    assert!(scale() < Scale::Long || began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    browser.assert_accessible();

    server.kill();
    browser.sees("#age", "as they were");
    post(&north, json!({"kind": "exit", "plate": "KA1"}));
    browser.sees("#free", "7");
    browser.sees("#others", "24");
    browser.assert_accessible();
    server.restart();
    browser.sees("#age", "Connected to the city.");
    assert_eq!(browser.console(), [] as [String; 0]);

    // Its computer goes away, and comes back.
    north.kill();
    browser.sees("#age", "has lost the connection to its garage's computer");
    browser.sees("#free", "7");
    north.restart();
    browser.sees("#age", "Connected to the city.");
    post(&north, json!({"kind": "count", "occupied": 40, "reason": "rounds"}));
    browser.sees("#free", "FULL");
}

#[test]
fn an_edge_that_knows_nothing_shows_no_number() {
    let Some(browser) = Browser::start("en") else { return };
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let edge = Edge::start(&dir.path().join("edge"), "north", &nowhere, &["--capacity", "10"]);
    browser.open(&page(&edge));
    browser.sees("#name", "north");
    browser.sees("#free", "--");
    browser.sees("#age", "not known yet");
    browser.assert_accessible();
    assert_eq!(browser.console(), [] as [String; 0]);
}

#[test]
fn a_board_speaks_the_language_of_its_readers_and_fits_their_screens() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = counted(dir.path(), "Parkhaus am Landesmuseum für Technik und Arbeit", &server, 12);
    let others: Vec<Edge> = [("<script>alert(1)</script>", 40), ("موقف السيارات", 3), ("Süd", 39)]
        .map(|(name, occupied)| counted(dir.path(), name, &server, occupied))
        .into();
    let languages = [
        ("en", "free of 40 spaces", "Connected to the city.", "FULL"),
        ("de-AT", "von 40 Plätzen frei", "Mit der Stadt verbunden.", "BESETZT"),
        ("fr", "libres sur 40 places", "Connecté à la ville.", "COMPLET"),
        ("es-MX", "libres de 40 plazas", "Conectado con la ciudad.", "COMPLETO"),
        ("fi", "free of 40 spaces", "Connected to the city.", "FULL"),
    ];
    for (language, detail, age, full) in languages {
        let Some(browser) = Browser::start(language) else { return };
        browser.open(&page(&edge));
        browser.sees("#free", "28");
        browser.sees("#detail", detail);
        browser.sees("#age", age);
        browser.sees("#others", full);
        browser.sees("#others", "<script>alert(1)</script>");
        for size in [(320, 568), (768, 1024), (1280, 720), (1920, 1080), (3840, 2160), (1080, 1920)] {
            for scheme in [ColorScheme::Light, ColorScheme::Dark] {
                browser.screen(size, scheme);
                browser.assert_fits();
                if language == "en" {
                    browser.assert_accessible();
                }
            }
        }
        assert_eq!(browser.console(), [] as [String; 0], "{language}");
    }
    drop(others);
}
