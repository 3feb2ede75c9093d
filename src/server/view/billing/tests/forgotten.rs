//! Stays whose plates are forgotten keep what they cost, and people can still decide about them.

use super::*;
use crate::server::record::ToForget;
use jiff::civil::date;
use proptest::prelude::*;

const DECEMBER: &str = "2026-12-01T09:00:00+01:00";
const DECEMBER_TEN: &str = "2026-12-01T10:00:00+01:00";

fn forget(whose: ToForget) -> Command {
    Command::Forget { whose, before: date(2026, 12, 1), seed: [7; 16] }
}

fn plate_of(plate: &str) -> ToForget {
    ToForget::Plate(plate.into())
}

impl BillingWorld {
    fn only_line(&mut self) -> ChargeLine {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// State and amount of each draft, in the order of their entries.
    fn amounts(&mut self) -> Vec<(&'static str, Option<i64>)> {
        self.books().into_iter().map(|(_, state, amount)| (state, amount)).collect()
    }

    fn names(&mut self, plate: &str) -> bool {
        self.save();
        let holds = |bytes: &[u8]| bytes.windows(plate.len()).any(|part| part == plate.as_bytes());
        written(&self.store).iter().any(|(key, value)| holds(key) || holds(value))
    }
}

#[test]
fn a_stay_of_a_forgotten_plate_that_arrives_later_is_forgotten_when_it_arrives() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "QX1", NINE, TEN);
    world.order(forget(plate_of("QX1"))).unwrap();
    // A stay, an exit without an entry, and an entry that was followed by another.
    world.events("b", &[("exit", "QX1", NINE), ("entry", "QX1", TEN), ("entry", "QX1", ELEVEN)]);
    assert!(world.names("QX1"), "it is inside");
    world.events("b", &[("exit", "QX1", TWELVE), ("entry", "QX2", TEN), ("exit", "QX2", ELEVEN)]);
    assert!(!world.names("QX1"));
    let lines = world.lines();
    let shown: Vec<(bool, &str, &str)> =
        lines.iter().map(|line| (line.plate.starts_with('~'), line.account.as_str(), line.state)).collect();
    let forgotten = (true, "unregistered", "charged");
    assert_eq!(shown, [forgotten, (false, "unregistered", "charged"), forgotten]);
    assert_eq!(world.sum(), 3 * 250);
    assert_eq!(world.anomalies(), told(&[("unregistered", "b", "QX2", 1)]));
    world.stay("b", "QX1", DECEMBER, DECEMBER_TEN);
    assert_eq!(world.line("QX1").amount.map(|amount| amount.minor()), Some(250));
    world.follows_from_the_ledger();
}

#[test]
fn the_late_stays_of_a_forgotten_account_are_forgotten_and_stay_its_own() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nAB1,one,\nCD1,two,\n");
    world.order(forget(ToForget::Account("one".into()))).unwrap();
    world.events(
        "a",
        &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "CD1", NINE), ("exit", "CD1", TEN)],
    );
    let lines = world.lines();
    assert!(lines[0].plate.starts_with('~') && lines[0].account == "one", "{lines:?}");
    assert_eq!(lines[1].plate, "CD1");
    world.follows_from_the_ledger();
}

#[test]
fn what_would_change_a_forgotten_stay_is_an_anomaly() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN);
    world.order(forget(plate_of("AB1"))).unwrap();
    world.plates("plate,account,name\nAB2,two,\n");
    world.correct("a", 2, "AB2");
    world.correct("a", 1, "AB2");
    let line = world.only_line();
    assert!(line.plate.starts_with('~') && line.account == "unregistered", "{line:?}");
    assert_eq!(world.anomalies(), told(&[("forgotten_stay_changed", "a", "", 2)]));
    assert!(!world.names("AB1"));
    world.follows_from_the_ledger();
}

#[test]
fn a_forgotten_stay_keeps_its_place_and_the_other_cars_of_the_contract_pay_as_before() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts("Fleet,acme,CC1,*,,2026-11-30,1\nFleet,acme,CC2,*,,2026-11-30,1\n");
    world.stay("a", "CC1", NINE, TWELVE);
    world.order(forget(plate_of("CC1"))).unwrap();
    world.stay("b", "CC2", TEN, ELEVEN);
    assert_eq!(world.amounts(), [("covered", Some(0)), ("charged", Some(250))]);
    world.stay("b", "CC2", TWELVE, "2026-11-23T13:00:00+01:00");
    assert_eq!(world.amounts()[2], ("covered", Some(0)));
    let accounts: Vec<String> = world.lines().into_iter().map(|line| line.account).collect();
    assert_eq!(accounts, ["acme", "acme", "acme"]);
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_whose_place_is_undecided_is_forgotten_once_it_is_decided() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts("Fleet,acme,CC1,*,,,1\nFleet,acme,CC2,*,,,1\n");
    world.events("a", &[("entry", "CC1", NINE)]);
    world.stay("b", "CC2", TEN, ELEVEN);
    world.order(forget(ToForget::All)).unwrap();
    assert_eq!(world.books(), books(&[("CC2", "held", None)]));
    world.events("a", &[("exit", "CC1", TWELVE)]);
    let plates: Vec<bool> = world.lines().iter().map(|line| line.plate.starts_with('~')).collect();
    assert_eq!(plates, [true, true]);
    assert_eq!(world.amounts(), [("covered", Some(0)), ("charged", Some(250))]);
    world.follows_from_the_ledger();
}

#[test]
fn people_decide_about_a_forgotten_charge_by_its_id() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN);
    let charge = world.charge("AB1");
    world.order(forget(plate_of("AB1"))).unwrap();
    assert!(world.order(credit(&charge, 251)).unwrap_err().contains("can still be given back"));
    let credited = world.order(credit(&charge, 200)).unwrap();
    assert_eq!(world.amounts(), [("charged", Some(50))]);
    let voided = world.order(void(&charge)).unwrap();
    assert_eq!(world.amounts(), [("void", Some(0))]);
    world.order(Command::Undo { decision: voided }).unwrap();
    world.order(Command::Undo { decision: credited }).unwrap();
    assert_eq!(world.amounts(), [("charged", Some(250))]);
    assert!(world.order(bill(&charge)).unwrap_err().contains("is not held"));
    world.follows_from_the_ledger();
}

#[test]
fn a_forgotten_stay_on_hold_is_billed_by_its_id_and_its_anomaly_has_the_token() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", "2026-10-01T09:00:00+02:00", TEN);
    let charge = world.charge("AB1");
    world.order(forget(plate_of("AB1"))).unwrap();
    let token = world.only_line().plate;
    assert_eq!(world.anomalies(), told(&[("stay_over_30_days", "a", &token, 1)]));
    let billed = world.order(bill(&charge)).unwrap();
    let price = world.amounts()[0].1.unwrap();
    assert!(price > 100_000, "{price}");
    assert_eq!(world.anomalies(), told(&[]));
    world.order(Command::Undo { decision: billed }).unwrap();
    assert_eq!(world.amounts(), [("held", None)]);
    assert_eq!(world.anomalies(), told(&[("stay_over_30_days", "a", &token, 1)]));
    world.follows_from_the_ledger();
}

#[test]
fn a_forgotten_stay_is_closed_and_split_by_the_id_of_its_entry() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name,valid_from,valid_to\nAB1,one,,2026-11-01,2026-11-30\nAB2,two,,2026-11-01,2026-11-30\n");
    world.events("a", &[("entry", "AB1", NINE), ("entry", "AB1", TWELVE), ("exit", "AB1", TWELVE)]);
    world.stay("a", "AB2", NINE, TWELVE);
    world.order(forget(ToForget::All)).unwrap();
    let closed = world.order(close(id("a", 1), TEN)).unwrap();
    assert!(world.order(close(id("a", 1), TEN)).unwrap_err().contains("has already ended"));
    let split = world.order(split(id("a", 4), TEN, ELEVEN)).unwrap();
    let shown = |world: &mut BillingWorld| -> Vec<(String, Option<i64>)> {
        let lines = world.lines();
        assert!(lines.iter().all(|line| line.plate.starts_with('~')), "{lines:?}");
        let mut shown: Vec<_> =
            lines.into_iter().map(|line| (line.account, line.amount.map(|its| its.minor()))).collect();
        shown.sort();
        shown
    };
    let expected = |stays: &[(&str, i64)]| -> Vec<(String, Option<i64>)> {
        stays.iter().map(|(account, amount)| ((*account).to_owned(), Some(*amount))).collect()
    };
    assert_eq!(shown(&mut world), expected(&[("one", 0), ("one", 250), ("two", 250), ("two", 250)]));
    world.order(Command::Undo { decision: split }).unwrap();
    world.order(Command::Undo { decision: closed }).unwrap();
    assert_eq!(shown(&mut world), expected(&[("one", 0), ("two", 750)]));
    world.follows_from_the_ledger();
}

fn join(entry: u64, exit: u64) -> Command {
    Command::JoinStay { entry: id("a", entry), exit: id("a", exit), plate: None, reason: "I is 1".into() }
}

/// Events 1 to 3 of garage "a" are an entry of AB1 whose exit was misread, the exit, and the next entry of AB1, which makes sure that the
/// car had left.
fn misread_exit() -> BillingWorld {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name,valid_from,valid_to\nAB1,one,,2026-11-01,2026-11-30\n");
    world.events("a", &[("entry", "AB1", NINE), ("exit", "ABI", TEN), ("entry", "AB1", ELEVEN)]);
    world.events("a", &[("exit", "AB1", TWELVE)]);
    world
}

/// Such a join was refused: nothing but "close", with the time written by hand, charged the stay.
#[test]
fn a_forgotten_exit_is_joined_to_a_forgotten_entry_by_their_ids() {
    let mut world = misread_exit();
    world.order(forget(ToForget::All)).unwrap();
    let before = (world.books(), world.anomalies());
    assert_eq!(world.amounts(), [("charged", Some(250))]);
    let joined = world.order(join(1, 2)).unwrap();
    let line = world.lines().remove(0);
    assert_eq!((line.account.as_str(), line.id.as_str()), ("one", &*format!("a/{EPOCH}/2")));
    assert!(line.plate.starts_with('~'));
    assert_eq!(world.amounts(), [("charged", Some(250)), ("charged", Some(250))]);
    let recorded = format!("{:?}", world.ledger.record_at(joined).unwrap());
    assert!(recorded.contains("JoinStay") && recorded.contains("plate: None"), "{recorded}");
    for (entry, exit, reason) in [
        (1, 2, "ends a stay whose plate was forgotten"),
        (3, 2, "ends a stay whose plate was forgotten"),
        (1, 3, "is not an exit"),
        (2, 4, "is not an entry"),
    ] {
        let refused = world.order(join(entry, exit)).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
    world.order(void(&format!("a/{EPOCH}/2").parse().unwrap())).unwrap();
    assert_eq!(world.amounts()[0], ("void", Some(0)));
    world.order(Command::Undo { decision: joined + 1 }).unwrap();
    world.order(Command::Undo { decision: joined }).unwrap();
    assert_eq!((world.books(), world.anomalies()), before);
    assert!(!world.names("ABI"));
    world.order(join(1, 2)).unwrap();
    assert_eq!(world.sum(), 500);
    world.follows_from_the_ledger();
}

#[test]
fn an_exit_that_is_joined_to_a_forgotten_entry_is_forgotten_until_that_is_undone() {
    for (plate, names_it) in [(r#""ABI""#, true), ("null", false)] {
        let mut world = BillingWorld::with_tariffs();
        world.events("a", &[("entry", "AB1", NINE)]);
        let exit = format!(r#"{{"kind":"exit","plate":{plate},"at":"{TEN}"}}"#);
        world.page("a", vec![event(&exit)]);
        world.events("a", &[("entry", "AB1", ELEVEN), ("exit", "AB1", TWELVE)]);
        world.order(forget(plate_of("AB1"))).unwrap();
        let before = (world.books(), world.anomalies());
        assert_eq!(world.names("ABI"), names_it);
        let joined = world.order(join(1, 2)).unwrap();
        assert_eq!(world.amounts(), [("charged", Some(250)), ("charged", Some(250))]);
        assert_eq!(world.anomalies(), told(&[]));
        assert!(!world.names("ABI"));
        // What the garage corrects from now on would change it.
        world.correct("a", 2, "AB7");
        assert_eq!(world.anomalies(), told(&[("forgotten_stay_changed", "a", "", 1)]));
        world.order(Command::Undo { decision: joined }).unwrap();
        let after = (world.books(), world.anomalies());
        assert_eq!(after.0, before.0);
        let others: Vec<_> =
            after.1.iter().filter(|its| its.0 != "forgotten_stay_changed").cloned().collect();
        assert_eq!(others, before.1);
        world.follows_from_the_ledger();
    }
}

#[test]
fn a_join_that_would_name_a_forgotten_exit_or_change_a_frozen_amount_is_refused_and_says_what_to_do() {
    let mut world = misread_exit();
    world.events("a", &[("entry", "XX1", "2026-11-23T09:30:00+01:00"), ("exit", "XX2", TWELVE)]);
    world.order(forget(plate_of("ABI"))).unwrap();
    let refused = world.order(join(1, 2)).unwrap_err();
    let advice = format!("server stays close 'a/{EPOCH}/1' --left 2026-11-23T10:00:00+01:00");
    assert!(refused.contains("would have a plate again") && refused.contains(&advice), "{refused}");
    world.order(forget(plate_of("XX2"))).unwrap();
    world.order(forget(plate_of("AB1"))).unwrap();
    let refused = world.order(join(1, 4)).unwrap_err();
    assert!(refused.contains("whose amount is kept") && refused.contains("server charges void"), "{refused}");
    let refused = world.order(join(3, 6)).unwrap_err();
    assert!(refused.contains("has already ended"), "{refused}");
    world.order(close(id("a", 1), TEN)).unwrap();
    assert!(world.order(join(1, 2)).unwrap_err().contains("has already ended"));
    assert_eq!(world.amounts(), [("charged", Some(250)), ("charged", Some(250))]);
    world.follows_from_the_ledger();
}

/// Its place ends when the car enters elsewhere, as that of a car with a plate does. A repair forgot when that was.
#[test]
fn a_forgotten_stay_that_is_ended_by_hand_holds_its_place_until_the_next_entry_of_its_car() {
    for is_forgotten in [false, true] {
        let mut world = BillingWorld::with_tariffs();
        world.contracts("Fleet,acme,CC1,*,,2026-11-30,1\nFleet,acme,CC2,*,,2026-11-30,1\n");
        world.events("a", &[("entry", "CC1", NINE)]);
        world.stay("b", "CC1", TEN, ELEVEN);
        world.stay("a", "CC1", "2026-11-23T15:00:00+01:00", "2026-11-23T16:00:00+01:00");
        if is_forgotten {
            world.order(forget(ToForget::All)).unwrap();
        }
        world.order(close(id("a", 1), "2026-11-23T14:00:00+01:00")).unwrap();
        world.stay("b", "CC2", TWELVE, "2026-11-23T13:00:00+01:00");
        assert!(world.amounts().iter().all(|its| *its == ("covered", Some(0))), "{:?}", world.amounts());
        assert_eq!(world.amounts().len(), 4);
        world.follows_from_the_ledger();
    }
}

/// It was judged, and then the plate was forgotten, or another command came.
#[test]
fn a_recorded_join_that_would_change_a_frozen_stay_is_an_anomaly_until_it_is_undone() {
    let mut world = misread_exit();
    world.order(forget(ToForget::All)).unwrap();
    let before = (world.books(), world.anomalies());
    let mut record = |command: Command| world.ledger.record_command("me", command, 5).unwrap();
    let joins = [join(1, 4), join(3, 2), join(9, 2)].map(&mut record);
    world.apply_ledger();
    assert_eq!(world.books(), before.0);
    assert_eq!(world.anomalies(), told(&[("forgotten_stay_changed", "a", "", 3)]));
    for decision in joins {
        world.order(Command::Undo { decision }).unwrap();
    }
    assert_eq!((world.books(), world.anomalies()), before);
    world.follows_from_the_ledger();
}

#[test]
fn a_forgotten_stay_that_waits_has_a_price_as_soon_as_there_is_a_tariff() {
    let mut world = BillingWorld::new();
    world.plates("plate,account,name,valid_from,valid_to\nAB1,one,,2026-11-01,2026-11-30\n");
    world.stay("a", "AB1", NINE, TEN);
    world.order(forget(plate_of("AB1"))).unwrap();
    assert_eq!(world.amounts(), [("waiting", None)]);
    assert_eq!(world.anomalies(), told(&[("no_tariff", "a", "", 1)]));
    world.put(TARIFFS);
    let line = world.only_line();
    assert_eq!((line.account.as_str(), world.amounts()), ("one", vec![("charged", Some(250))]));
    assert_eq!(world.anomalies(), told(&[]));
    world.follows_from_the_ledger();
}

/// Garage, plate, hours after the one before, hours inside, and whether what ended before its day is forgotten then.
type Stay = (usize, usize, i64, i64, bool);

const FLEET: &str = "Fleet,acme,CC1,*,,,1\nFleet,acme,CC2,*,,,1\nFleet,acme,CC3,*,,,1\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scaled(20, 60, 1_000)))]

    #[test]
    fn forgetting_changes_no_cover_and_no_amount(
        stays in prop::collection::vec((0usize..3, 0usize..3, 0i64..60, 1i64..120, any::<bool>()), 1..25),
    ) {
        let live = |stays: &[Stay], forgets: bool| {
            let mut world = BillingWorld::with_tariffs();
            world.contracts(FLEET);
            let mut now_ms = ms("2026-03-01T00:00:00Z");
            for (garage, plate, gap, hours, forgotten) in stays {
                now_ms += gap * 3_600_000;
                let at = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
                let (garage, plate) = (["a", "b", "c"][*garage], ["CC1", "CC2", "CC3"][*plate]);
                let (entry, exit) = (at(now_ms), at(now_ms + hours * 3_600_000));
                world.events(garage, &[("entry", plate, &entry), ("exit", plate, &exit)]);
                if *forgotten && forgets {
                    let day = jiff::Timestamp::from_millisecond(now_ms).unwrap();
                    let before = jiff::tz::TimeZone::UTC.to_datetime(day).date();
                    world.order(Command::Forget { whose: ToForget::All, before, seed: [7; 16] }).unwrap();
                }
            }
            let lines = world.lines().into_iter();
            let mut shown: Vec<_> = lines.map(|line| (line.id, line.account, line.state, line.amount)).collect();
            shown.sort_by(|a, b| a.0.cmp(&b.0));
            world.follows_from_the_ledger();
            shown
        };
        prop_assert_eq!(live(&stays, true), live(&stays, false));
    }
}
