//! What people decided: a decision without effect is an anomaly, for as long as it has none.

use super::*;
use crate::server::charge_details::decisions;

fn charge(garage: &str, sequence: u64) -> ChargeId {
    ChargeId { garage: garage.into(), epoch: EPOCH.to_bytes(), sequence, made_at_ms: None }
}

impl BillingWorld {
    /// As if it had made sense when it was recorded.
    fn record(&mut self, command: Command) -> u64 {
        let position = self.ledger.record_command("me", command, 5).unwrap();
        self.apply_ledger();
        position
    }

    fn without_effect(&mut self) -> Vec<(String, String, u64)> {
        let mut anomalies = self.anomalies();
        anomalies.retain(|(code, ..)| *code == "decision_without_effect");
        anomalies.into_iter().map(|(_, garage, plate, count)| (garage, plate, count)).collect()
    }
}

fn of(expected: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    expected.iter().map(|(garage, plate, count)| ((*garage).into(), (*plate).into(), *count)).collect()
}

#[test]
fn a_void_or_credit_of_a_covered_stay_is_an_anomaly_until_the_stay_is_to_be_paid() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts("Fleet,acme,CC1,*,,,1\n");
    world.stay("a", "CC1", NINE, TEN);
    world.record(void(&charge("a", 2)));
    let credited = world.record(credit(&charge("a", 2), 100));
    assert_eq!(world.books(), books(&[("CC1", "covered", Some(0))]));
    assert_eq!(world.without_effect(), of(&[("a", "CC1", 2)]));
    world.order(Command::Undo { decision: credited }).unwrap();
    assert_eq!(world.without_effect(), of(&[("a", "CC1", 1)]));
    world.correct("a", 1, "XX9");
    world.correct("a", 2, "XX9");
    assert_eq!(world.books(), books(&[("XX9", "void", Some(0))]));
    assert_eq!(world.without_effect(), of(&[]));
    world.follows_from_the_ledger();
}

#[test]
fn a_credit_beyond_the_amount_gives_back_what_there_is_and_is_an_anomaly() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN);
    world.order(credit(&charge("a", 2), 200)).unwrap();
    assert_eq!(world.without_effect(), of(&[]));
    let beyond = world.record(credit(&charge("a", 2), 51));
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(0))]));
    assert_eq!(world.without_effect(), of(&[("a", "AB1", 1)]));
    world.order(Command::Undo { decision: beyond }).unwrap();
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(50))]));
    assert_eq!(world.without_effect(), of(&[]));
    world.follows_from_the_ledger();
}

#[test]
fn a_decision_waits_for_its_fact_and_is_an_anomaly_meanwhile() {
    let mut world = BillingWorld::with_tariffs();
    // The garage was never seen: nobody is shown an anomaly of it.
    world.record(void(&charge("a", 2)));
    world.record(close(id("a", 3), TEN));
    assert_eq!(world.without_effect(), of(&[]));
    world.events("a", &[("entry", "AB1", NINE)]);
    assert_eq!(world.without_effect(), of(&[("a", "", 2)]));
    world.record(bill(&charge("a", 2)));
    assert_eq!(world.without_effect(), of(&[("a", "", 3)]));
    world.events("a", &[("exit", "AB1", TEN)]);
    assert_eq!(world.books(), books(&[("AB1", "void", Some(0))]));
    assert_eq!(world.without_effect(), of(&[("a", "", 1), ("a", "AB1", 1)]), "the stay is not on hold");
    world.events("a", &[("entry", "AB2", NINE)]);
    assert_eq!(world.books(), books(&[("AB1", "void", Some(0)), ("AB2", "charged", Some(250))]));
    assert_eq!(world.without_effect(), of(&[("a", "AB1", 1)]));
    world.follows_from_the_ledger();
}

#[test]
fn an_id_that_names_another_garage_than_that_of_its_epoch_is_of_nothing() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB2", NINE)]);
    world.page("b", vec![event(r#"{"kind":"entry","plate":null}"#)]);
    assert!(world.order(void(&charge("b", 2))).unwrap_err().contains("there is no charge"));
    world.record(void(&charge("b", 2)));
    world.record(close(id("b", 3), TEN));
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(250))]));
    assert_eq!(world.without_effect(), of(&[("b", "", 2)]));
    // By any name that the garage ever had it is the charge.
    let rename = Command::Rename {
        garage: crate::messaging::SiteName::new("a").unwrap(),
        to: crate::messaging::SiteName::new("alpha").unwrap(),
    };
    world.order(rename).unwrap();
    world.order(void(&charge("alpha", 2))).unwrap();
    assert_eq!(world.books(), books(&[("AB1", "void", Some(0))]));
    world.follows_from_the_ledger();
}

#[test]
fn decisions_of_all_kinds_are_listed_and_undone() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB0", NINE), ("exit", "ABO", TEN), ("entry", "AB2", NINE)]);
    let join =
        Command::JoinStay { entry: id("a", 1), exit: id("a", 2), plate: None, reason: "O is 0".into() };
    let (joined, closed) = (world.order(join).unwrap(), world.order(close(id("a", 3), TEN)).unwrap());
    let voided = world.order(void(&charge("a", 2))).unwrap();
    assert_eq!(world.books(), books(&[("AB0", "void", Some(0)), ("AB2", "charged", Some(250))]));
    let listed = decisions((&world.view.snapshot(), &world.ledger), None).unwrap();
    let kinds: Vec<_> = listed["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["decision"].as_u64().unwrap(), line["kind"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(kinds, [(joined, "join_stay".into()), (closed, "close_stay".into()), (voided, "void".into())]);
    for decision in [joined, closed] {
        world.order(Command::Undo { decision }).unwrap();
    }
    assert_eq!(world.books(), books(&[]));
    assert_eq!(world.without_effect(), of(&[("a", "", 1)]), "the charge that was voided is gone");
    world.order(Command::Undo { decision: voided }).unwrap();
    assert_eq!(world.without_effect(), of(&[]));
    world.follows_from_the_ledger();
}
