//! What operators say happened in stays that do not add up, and what those stays cost then.

use super::*;
use crate::messaging::SiteName;

#[test]
fn a_misread_exit_is_joined_to_its_entry_and_the_stay_is_charged() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB0", NINE), ("exit", "ABO", TEN), ("exit", "AB0", ELEVEN)]);
    let join = |entry, exit| Command::JoinStay {
        entry: id("a", entry),
        exit: id("a", exit),
        plate: None,
        reason: "O is 0".into(),
    };
    let refused = world.order(join(1, 1)).unwrap_err();
    assert!(refused.contains("is not an exit"), "{refused}");
    let refused = world.order(join(2, 3)).unwrap_err();
    assert!(refused.contains("is not an entry"), "{refused}");
    let refused = world.order(join(1, 9)).unwrap_err();
    assert!(refused.contains("there is no event"), "{refused}");
    let refused = world.order(join(1, 3)).unwrap_err();
    assert!(refused.contains("the two would not become one stay"), "it is one already: {refused}");
    world.order(join(1, 2)).unwrap();
    assert_eq!(world.books(), books(&[("AB0", "charged", Some(250))]));
    assert_eq!(world.line("AB0").id, format!("a/{EPOCH}/2"));
    assert_eq!(world.anomalies()[0], ("exit_without_entry", "a".into(), "AB0".into(), 1));
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_whose_exit_nobody_saw_is_closed_at_a_time() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("entry", "AB1", TWELVE), ("entry", "AB2", NINE)]);
    let refused = world.order(close(id("a", 1), "2026-11-23T08:59:59+01:00")).unwrap_err();
    assert!(refused.contains("it begins later"), "{refused}");
    world.order(close(id("a", 1), TEN_PAST)).unwrap();
    world.order(close(id("a", 3), TEN)).unwrap();
    assert!(world.order(close(id("a", 1), TEN)).unwrap_err().contains("has already ended"));
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(500)), ("AB2", "charged", Some(250))]));
    let garage = &world.view.garages[&SiteName::new("a").unwrap()];
    let counts = garage.stays.counts;
    assert_eq!((counts.open, counts.closed, counts.exits_missed), (1, 2, 0));
    let line = world.line("AB1");
    assert_eq!(line.left_at, TEN_PAST);
    assert_eq!(
        line.id,
        format!("a/{EPOCH}/1@2026-11-23T09:00:01Z"),
        "the id says the time that the operator gave"
    );
    world.order(void(&line.id.parse().unwrap())).unwrap();
    assert_eq!(world.sum(), 250);
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_that_was_two_visits_is_split_and_each_is_charged() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TWELVE), ("entry", "AB2", NINE)]);
    assert!(
        world.order(split(id("a", 1), ELEVEN, TEN)).unwrap_err().contains("the time at which the car left")
    );
    assert!(
        world.order(split(id("a", 1), TEN, "2026-11-23T12:00:01+01:00")).unwrap_err().contains("had ended")
    );
    world.order(split(id("a", 1), TEN, ELEVEN)).unwrap();
    // One of a car that is inside: the second part ends with its exit.
    world.order(split(id("a", 3), TEN, ELEVEN)).unwrap();
    world.events("a", &[("exit", "AB2", "2026-11-23T12:30:00+01:00")]);
    let parts = world.lines();
    let amounts: Vec<_> =
        parts.iter().map(|line| (line.plate.as_str(), line.amount.map(|amount| amount.minor()))).collect();
    assert_eq!(amounts.len(), 4);
    for part in [("AB1", Some(250)), ("AB1", Some(250)), ("AB2", Some(250)), ("AB2", Some(500))] {
        assert!(amounts.contains(&part), "{part:?} in {amounts:?}");
    }
    let ids: std::collections::BTreeSet<&str> = parts.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids.len(), 4, "each charge has an id of its own: {ids:?}");
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_that_is_held_is_charged_as_it_is_or_made_another() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nAB1,one,\nAB2,one,\n");
    world.stay("a", "AB1", TEN, "2026-12-23T10:00:01+01:00");
    world.stay("a", "AB2", TEN, NINE);
    let [long, backwards] = [world.charge("AB1"), world.charge("AB2")];
    assert!(
        world.order(bill(&backwards)).unwrap_err().contains("is not held"),
        "its times contradict each other"
    );
    let position = world.order(bill(&long)).unwrap();
    assert!(world.order(bill(&long)).unwrap_err().contains("is not held"));
    world.order(close(id("a", 3), ELEVEN)).unwrap();
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(721 * 250)), ("AB2", "charged", Some(250))]));
    assert_eq!(
        world.anomalies(),
        told(&[("exit_without_entry", "a", "AB2", 1)]),
        "a person has looked at the long stay"
    );
    world.order(Command::Undo { decision: position }).unwrap();
    assert_eq!(world.books()[0], ("AB1".to_owned(), "held", None));
    assert_eq!(world.anomalies().len(), 2);
    world.follows_from_the_ledger();
}

#[test]
fn a_charge_that_is_not_there_cannot_be_voided() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN);
    let line = world.line("AB1").id;
    for id in [
        line.replace("/2", "/1"),
        line.replace("/2", "/7"),
        line.replace("a/", "b/"),
        format!("{line}@2026-11-23T09:00:00Z"),
    ] {
        let refused = world.order(void(&id.parse().unwrap())).unwrap_err();
        assert!(refused.contains("there is no charge"), "{refused}");
    }
}
