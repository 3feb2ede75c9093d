//! **Promise.** Stays that do not add up are told once for each code, garage and plate, and none is billed by guess. An operator
//! joins, closes, splits or bills them, by a command that the review shows, and what the repaired stays cost follows. It survives a
//! kill of everything, and the books agree.

use crate::common::money::{TARIFFS, Town};
use serde_json::json;

/// The command that a review proposes, with a reason, and times where it asks for them.
fn words(command: &str, times: &[(&str, &str)]) -> Vec<String> {
    let command = command.strip_prefix("server ").unwrap();
    let mut words: Vec<String> = command.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
    for (flag, time) in times {
        let place = words.iter().position(|word| word == flag).unwrap();
        words[place + 1] = (*time).to_owned();
    }
    let place = words.iter().position(|word| word == "TEXT").unwrap();
    words[place] = "a camera misread it".into();
    words
}

fn run(town: &Town, words: &[String]) -> String {
    town.operator().says(&words.iter().map(String::as_str).collect::<Vec<_>>()).done()
}

#[test]
fn a_misread_exit_is_joined_as_the_review_says() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.tell("a", &json!({"kind": "entry", "plate": "B-OO 1", "at": "2026-11-03T08:00:00+01:00"}));
    town.tell("a", &json!({"kind": "exit", "plate": "B-O0 1", "at": "2026-11-03T10:30:00+01:00"}));
    assert_eq!(town.anomalies(), ["exit_without_entry BO01"]);
    let review = town.operator().says(&["stays", "review", "--json"]).json();
    let [pair] = review["pairs"].as_array().unwrap().as_slice() else { panic!("{review}") };
    assert_eq!((&pair["entry"]["plate"], &pair["exit"]["plate"]), (&json!("BOO1"), &json!("BO01")));
    let text = town.operator().says(&["stays", "review"]).done();
    assert!(text.contains("BOO1 entered at") && text.contains("server stays join"), "{text}");
    let said = run(&town, &words(pair["command"].as_str().unwrap(), &[]));
    assert!(said.contains("it is charged by its length"), "{said}");
    assert_eq!(town.short(""), ["BOO1 unregistered 750 charged"]);
    town.kill_all();
    assert_eq!(town.short(""), ["BOO1 unregistered 750 charged"]);
    let stays = town.server.http().get_json("/v1/stays?plate=BOO1");
    assert_eq!(stays["stays"][0]["state"], "closed");
    let review = town.operator().says(&["stays", "review", "--json"]).json();
    assert_eq!(review["pairs"], json!([]));
    town.verify();
}

#[test]
fn a_stay_whose_exit_nobody_saw_is_closed_and_one_that_was_two_visits_is_split() {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    let day = |day: u8, time: &str| format!("2026-11-{day:02}T{time}:00+01:00");
    town.tell("a", &json!({"kind": "entry", "plate": "AA 1", "at": day(3, "08:00")}));
    town.settle();
    // It was read in another garage meanwhile, so that it must have left.
    town.tell("b", &json!({"kind": "entry", "plate": "AA 1", "at": day(3, "12:00")}));
    town.tell("b", &json!({"kind": "exit", "plate": "AA 1", "at": day(3, "13:00")}));
    town.settle();
    let inside = town.operator().says(&["stays", "review", "--json"]).json();
    let close = inside["long"][0]["command"].as_str().unwrap().to_owned();
    assert!(close.starts_with("server stays close"), "{inside}");
    town.tell("a", &json!({"kind": "exit", "plate": "AA 1", "at": day(4, "10:00")}));
    assert_eq!(town.short(""), ["AA1 unregistered 250 charged", "AA1 unregistered 6500 charged"]);
    assert!(town.anomalies().contains(&"open_in_two_garages AA1".to_owned()));

    let review = town.operator().says(&["stays", "review", "--json"]).json();
    let [long] = review["long"].as_array().unwrap().as_slice() else { panic!("{review}") };
    assert_eq!((&long["garage"], &long["elsewhere"]["garage"]), (&json!("a"), &json!("b")));
    let split = words(
        long["command"].as_str().unwrap(),
        &[("--left", &day(3, "11:00")), ("--entered", &day(4, "09:00"))],
    );
    run(&town, &split);
    let after =
        ["AA1 unregistered 250 charged", "AA1 unregistered 750 charged", "AA1 unregistered 250 charged"];
    assert_eq!(town.short(""), after);
    town.kill_all();
    assert_eq!(town.short(""), after);

    town.tell("a", &json!({"kind": "entry", "plate": "AA 2", "at": day(5, "08:00")}));
    town.tell("a", &json!({"kind": "entry", "plate": "AA 2", "at": day(6, "08:00")}));
    assert!(town.anomalies().contains(&"entry_while_open AA2".to_owned()));
    let stays = town.server.http().get_json("/v1/stays?plate=AA2");
    let entry = stays["stays"].as_array().unwrap().last().unwrap()["entry"].clone();
    let id = format!("a/{}/{}", entry["epoch"].as_str().unwrap(), entry["sequence"]);
    let at = day(5, "09:30");
    let close = ["stays", "close", &id, "--left", &at, "--reason", "seen on the tape"];
    let said = town.operator().says(&close).done();
    assert!(said.contains("has ended; it is charged by its length"), "{said}");
    let refused = town.operator().says(&close).refused();
    assert!(refused.contains("has already ended") && refused.contains("Nothing was recorded"), "{refused}");
    assert_eq!(town.short("&plate=AA2"), ["AA2 unregistered 500 charged"]);
    let charge = &town.charges("&plate=AA2")[0];
    assert_eq!(charge["left_at"], at);
    town.operator().says(&["charges", "void", charge["id"].as_str().unwrap(), "--reason", "a gift"]).done();
    assert_eq!(town.short("&plate=AA2"), ["AA2 unregistered 0 void"]);
    town.verify();
}

#[test]
fn what_does_not_add_up_is_told_and_not_billed_by_guess() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let tell = |town: &mut Town, kind: &str, plate: serde_json::Value, at: &str| {
        town.tell("a", &json!({"kind": kind, "plate": plate, "at": at}));
    };
    tell(&mut town, "exit", json!("BB 1"), "2026-11-03T08:00:00+01:00");
    tell(&mut town, "exit", json!("BB 1"), "2026-11-03T09:00:00+01:00");
    tell(&mut town, "entry", json!("BB 2"), "2026-11-03T08:00:00+01:00");
    tell(&mut town, "exit", json!("BB 2"), "2026-11-03T07:55:00+01:00");
    tell(&mut town, "entry", json!("BB 3"), "2026-11-03T08:00:00+01:00");
    tell(&mut town, "exit", json!("BB 3"), "2026-11-03T07:54:59+01:00");
    tell(&mut town, "entry", json!("BB 4"), "2026-10-01T08:00:00+02:00");
    tell(&mut town, "exit", json!("BB 4"), "2026-11-03T08:00:00+01:00");
    tell(&mut town, "entry", json!(null), "2026-11-03T08:00:00+01:00");
    let told = town.anomalies();
    for expected in [
        "exit_without_entry BB1",
        "clock_skew BB2",
        "exit_before_entry BB3",
        "stay_over_30_days BB4",
        "unreadable_plate -",
        "unregistered BB2",
    ] {
        assert_eq!(told.iter().filter(|line| *line == expected).count(), 1, "{expected}: {told:?}");
    }
    let twice = town.server.http().get_json("/v1/anomalies?code=exit_without_entry");
    assert_eq!((&twice["anomalies"][0]["count"], &twice["next"]), (&json!(2), &json!(null)));
    assert!(twice["anomalies"][0]["first_at"].is_string() && twice["anomalies"][0]["last_at"].is_string());
    assert_eq!(town.server.http().get_json("/v1/anomalies?code=nonsense")["anomalies"], json!([]));
    let states = ["BB2 unregistered 0 charged", "BB3 unregistered null held", "BB4 unregistered null held"];
    assert_eq!(town.short(""), states);
    let held = town.id("&plate=BB4");
    let said = town.operator().says(&["stays", "bill", &held, "--reason", "he was away"]).done();
    assert!(said.contains("is charged as it is"), "{said}");
    let days_and_hour = 33 * 24 + 1;
    assert_eq!(town.short("&plate=BB4"), [format!("BB4 unregistered {} charged", days_and_hour * 250)]);
    let refused = town.operator().says(&["stays", "bill", &town.id("&plate=BB3"), "--reason", "x"]).refused();
    assert!(refused.contains("is not held") && refused.contains("Nothing was recorded"), "{refused}");
    town.verify();
}
