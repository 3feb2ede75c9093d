//! Drafts of charges, what operators decide about them, and what they add up to.

use super::super::anomalies::AnomalyCode;
use super::super::totals::read_month;
use super::*;
use crate::parking::Month;
use crate::parking::document::Issuer;
use crate::server::applying::{LiveViews, apply_until_stopped, open_view};
use crate::server::books::{BooksReader, DraftStatement, Whose};
use crate::server::record::ToForget;
use crate::server::view::anomaly_list::AnomalyCursor;
use jiff::civil::date;
use std::sync::Arc;

impl BillingWorld {
    fn month(&self, account: &str, month: &str) -> Option<(u64, i64)> {
        let number = self.view.billing.account(account)?;
        let totals = read_month(&self.store, number, month.parse().unwrap()).unwrap()?;
        Some((totals.stays, totals.by_currency().iter().map(|money| money.amount.minor()).sum()))
    }

    fn reader(&self) -> BooksReader<'_, impl Fn() -> Arc<crate::server::view::Snapshot>> {
        BooksReader { ledger: &self.ledger, saving: None, view: || Arc::new(self.view.snapshot()) }
    }
}

#[test]
fn a_stay_costs_what_the_version_of_the_day_of_its_entry_says() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN_PAST);
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(500))]));
    let dearer = TARIFFS.replace("2020-01-01", "2026-11-24").replace("per_unit = 250", "per_unit = 300");
    let dearer =
        dearer.replace("{ from = 2020-07-01, percent = 16 }, { from = 2021-01-01, percent = 19 }, ", "");
    world.put(&format!("{TARIFFS}{dearer}"));
    world.stay("a", "AB2", "2026-11-23T23:59:59+01:00", "2026-11-24T00:30:00+01:00");
    world.stay("a", "AB3", "2026-11-24T00:00:00+01:00", "2026-11-24T00:30:00+01:00");
    assert_eq!(
        world.books(),
        books(&[("AB1", "charged", Some(500)), ("AB2", "charged", Some(250)), ("AB3", "charged", Some(300))])
    );
    let line = &world.lines()[0];
    assert_eq!((line.account.as_str(), line.tariff.as_deref()), (UNREGISTERED, Some("centre")));
    assert_eq!((line.breakdown.len(), line.breakdown[0].units), (1, 2));
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_without_a_tariff_waits_and_has_a_price_as_soon_as_there_is_one() {
    let mut world = BillingWorld::new();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", TEN)]);
    assert_eq!(world.books(), books(&[("AB1", "waiting", None)]));
    assert_eq!(world.anomalies()[0], ("no_tariff", "a".into(), String::new(), 1));
    let id = world.line("AB1").id;
    world.put(TARIFFS);
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(250))]));
    assert_eq!(world.line("AB1").id, id);
    assert_eq!(world.anomalies(), told(&[("unregistered", "a", "AB1", 1)]));
    world.follows_from_the_ledger();
}

#[test]
fn a_charge_is_credited_in_part_or_voided_and_never_falls_below_nothing() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN_PAST);
    let charge = world.charge("AB1");
    world.order(credit(&charge, 200)).unwrap();
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(300))]));
    let refused = world.order(credit(&charge, 301)).unwrap_err();
    assert!(refused.contains("3.00 EUR of the charge"), "{refused}");
    assert!(world.order(credit(&charge, 0)).is_err());
    let void = |reason: &str| Command::Void { charge: charge.clone(), reason: reason.into() };
    assert!(world.order(void(" ")).unwrap_err().contains("a reason needs"));
    let position = world.order(void("wrong car")).unwrap();
    assert!(world.order(void("again")).is_err());
    assert!(world.order(credit(&charge, 1)).is_err());
    let line = world.line("AB1");
    assert_eq!(
        (line.state, line.price.map(|price| price.minor()), line.amount.map(|amount| amount.minor())),
        ("void", Some(500), Some(0))
    );
    assert_eq!(world.month(UNREGISTERED, "2026-11"), Some((1, 0)));
    // What was credited before still is when the void is taken back.
    world.order(Command::Undo { decision: position }).unwrap();
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(300))]));
    assert!(world.order(Command::Undo { decision: position }).is_err());
    world.follows_from_the_ledger();
}

/// A credit of 4.00 stands on a charge of 5.00. A cheaper tariff leaves 2.50: nothing is due, and nobody owes the customer 1.50.
#[test]
fn a_credit_never_makes_a_charge_negative_when_its_price_falls_later() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN_PAST);
    let charge = world.charge("AB1");
    world.order(credit(&charge, 400)).unwrap();
    world.put(&TARIFFS.replace("per_unit = 250", "per_unit = 125"));
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(0))]));
    world.put(TARIFFS);
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(100))]));
    world.follows_from_the_ledger();
}

#[test]
fn a_corrected_plate_moves_the_stay_to_the_account_of_the_right_car_under_the_same_id() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nAB1,one,One\nAB8,eight,Eight\n");
    let first = world.stay("a", "AB1", NINE, TEN);
    world.save();
    let id = world.line("AB1").id;
    assert_eq!((world.month("one", "2026-11"), world.month("eight", "2026-11")), (Some((1, 250)), None));
    world.correct("a", first, "AB8");
    assert_eq!(world.books(), books(&[]));
    assert_eq!(world.anomalies(), told(&[("exit_without_entry", "a", "AB1", 1)]));
    world.correct("a", first + 1, "AB8");
    let line = world.line("AB8");
    assert_eq!(
        (line.account.as_str(), &line.id, line.amount.map(|amount| amount.minor())),
        ("eight", &id, Some(250))
    );
    assert_eq!((world.month("one", "2026-11"), world.month("eight", "2026-11")), (None, Some((1, 250))));
    assert_eq!(world.anomalies(), told(&[]));
    world.follows_from_the_ledger();
}

#[test]
fn a_plate_that_could_not_be_read_is_no_anomaly_once_somebody_has_read_it() {
    let mut world = BillingWorld::with_tariffs();
    let first = world.page("a", vec![event(&format!(r#"{{"kind":"entry","plate":null,"at":"{NINE}"}}"#))]);
    world.events("a", &[("exit", "AB1", TEN)]);
    let unread = ("unreadable_plate", "a", "", 1);
    assert_eq!(world.anomalies(), told(&[("exit_without_entry", "a", "AB1", 1), unread]));
    world.correct("a", first, "AB1");
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(250))]));
    assert_eq!(world.anomalies(), told(&[("unregistered", "a", "AB1", 1)]));
    world.follows_from_the_ledger();
}

#[test]
fn a_contract_covers_as_many_cars_as_it_says_and_one_too_many_pays() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts(
        "Fleet,acme,AB1,*,2026-01-01,2026-12-31,1\nFleet,acme,AB2,*,2026-01-01,2026-12-31,1\n\
         Other,beta,AB3,b,2026-01-01,2026-12-31,1\nOld,beta,AB4,*,2025-01-01,2026-11-22,1\n",
    );
    world.events(
        "a",
        &[("entry", "AB1", NINE), ("entry", "AB2", NINE), ("entry", "AB3", NINE), ("entry", "AB4", NINE)],
    );
    world.events("a", &[("exit", "AB1", TEN), ("entry", "AB1", TEN)]);
    world.events(
        "a",
        &[("exit", "AB2", TEN), ("exit", "AB3", TEN), ("exit", "AB4", TEN), ("exit", "AB1", TEN)],
    );
    assert_eq!(
        world.books(),
        books(&[
            ("AB1", "covered", Some(0)),
            ("AB2", "charged", Some(250)),
            ("AB3", "charged", Some(250)),
            ("AB4", "charged", Some(250)),
            ("AB1", "covered", Some(0)),
        ])
    );
    let lines = world.lines();
    assert_eq!(lines[0].note.as_deref(), Some("covered by the contract Fleet"));
    assert!(lines[1].note.as_deref().unwrap().starts_with("one car too many for the contract Fleet"));
    assert_eq!((lines[1].account.as_str(), lines[2].account.as_str()), ("acme", UNREGISTERED));
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_that_does_not_add_up_is_not_billed_by_guess() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", TEN, "2026-11-23T09:55:00+01:00");
    world.stay("a", "AB2", TEN, "2026-11-23T09:54:59+01:00");
    world.stay("a", "AB3", TEN, "2026-12-23T10:00:00+01:00");
    world.stay("a", "AB4", TEN, "2026-12-23T10:00:01+01:00");
    assert_eq!(
        world.books(),
        books(&[
            ("AB1", "charged", Some(0)),
            ("AB2", "held", None),
            ("AB3", "charged", Some(30 * 24 * 250)),
            ("AB4", "held", None),
        ])
    );
    let anomalies = world.anomalies();
    for noted in told(&[
        ("clock_skew", "a", "AB1", 1),
        ("exit_before_entry", "a", "AB2", 1),
        ("stay_over_30_days", "a", "AB4", 1),
    ]) {
        assert!(anomalies.contains(&noted), "{noted:?} in {anomalies:?}");
    }
    world.follows_from_the_ledger();
}

/// A stay that nobody can price yet is on hold for its length all the same: a person must decide, whatever tariffs there are.
#[test]
fn a_stay_of_more_than_30_days_is_on_hold_even_where_no_tariff_is_in_force() {
    let mut world = BillingWorld::new();
    world.stay("a", "AB4", TEN, "2026-12-23T10:00:01+01:00");
    assert_eq!(world.books(), books(&[("AB4", "held", None)]));
    assert_eq!(world.anomalies()[0], ("stay_over_30_days", "a".into(), "AB4".into(), 1));
    world.follows_from_the_ledger();
}

#[test]
fn what_did_not_add_up_is_listed_once_for_each_code_garage_and_plate() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nAB1,one,One\n");
    world.events(
        "a",
        &[("exit", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", NINE), ("entry", "AB1", TEN)],
    );
    world.events("b", &[("entry", "AB1", TEN), ("entry", "AB2", NINE), ("exit", "AB2", TEN)]);
    world.stay("b", "AB2", NINE, TEN);
    world.save();
    let view = world.view.snapshot();
    let list = |wanted: &AnomalyFilter, look_at| {
        let (mut wanted, mut found) = (wanted.clone(), Vec::new());
        loop {
            let list = anomaly_list::list_now((&view, &world.ledger), &wanted, look_at).unwrap();
            found.extend(list.anomalies.into_iter().map(|its| {
                (its.code.told().0.as_str(), its.garage, its.plate.unwrap_or_default(), its.count)
            }));
            let Some(next) = list.next else { return found };
            assert_ne!(wanted.after.as_ref(), Some(&next), "each answer goes on");
            wanted.after = Some(AnomalyCursor::parse(&next.to_string()).unwrap());
        }
    };
    let all = list(&AnomalyFilter { limit: 2, ..AnomalyFilter::default() }, usize::MAX);
    let codes = all.iter().map(|its| AnomalyCode::parse(its.0)).chain([None]);
    for code in codes {
        for garage in [None, Some(0), Some(1), Some(2)] {
            for plate in [None, Some("AB1"), Some("AB2"), Some("CD1")] {
                for (look_at, limit) in [(1, 2), (3, 2), (usize::MAX, 1), (usize::MAX, 100)] {
                    let of_plate = plate.map(|plate| Plate::new(plate).unwrap());
                    let wanted = AnomalyFilter { code, garage, plate: of_plate, limit, after: None };
                    let is_wanted = |its: &&(&'static str, u32, String, u64)| {
                        code.is_none_or(|code| code.told().0.as_str() == its.0)
                            && garage.is_none_or(|garage| garage == its.1)
                            && plate.is_none_or(|plate| plate == its.2)
                    };
                    let expected: Vec<_> = all.iter().filter(is_wanted).cloned().collect();
                    assert_eq!(list(&wanted, look_at), expected, "{wanted:?} {look_at}");
                }
            }
        }
    }
    assert_eq!(
        world.anomalies(),
        told(&[
            ("exit_without_entry", "a", "AB1", 2),
            ("entry_while_open", "a", "AB1", 1),
            ("open_in_two_garages", "b", "AB1", 1),
            ("unregistered", "b", "AB2", 2),
        ])
    );
    world.follows_from_the_ledger();
}

/// The week of a garage that was offline arrived last, and a car that had been in two garages was not noticed: nothing was inside any
/// more. And what was noticed was lost when a tariff or the register changed.
#[test]
fn a_car_in_two_garages_is_noticed_whenever_they_deliver_and_for_as_long_as_it_was() {
    let away = [("entry", "AB1", TEN), ("exit", "AB1", TWELVE)];
    let here = [("entry", "AB1", NINE), ("exit", "AB1", ELEVEN)];
    for late_first in [true, false] {
        let mut world = BillingWorld::with_tariffs();
        // The two garages have one epoch here, which does not happen: no event may have the id of one of the other.
        world.events("b", &[("exit", "ZZ9", NINE), ("exit", "ZZ9", NINE)]);
        match late_first {
            true => [world.events("b", &away), world.events("a", &here)],
            false => [world.events("a", &here), world.events("b", &away)],
        };
        let expected = told(&[("open_in_two_garages", "b", "AB1", 1)]);
        let open = |world: &mut BillingWorld| {
            let all = world.anomalies().into_iter();
            all.filter(|its| its.0 == "open_in_two_garages").collect::<Vec<_>>()
        };
        assert_eq!(open(&mut world), expected);
        world.put(&TARIFFS.replace("per_unit = 250", "per_unit = 300"));
        assert_eq!(open(&mut world), expected);
        world.add_plate("AB1", "one", date(2026, 1, 1));
        assert_eq!(open(&mut world), expected);
        let charge = world.lines().iter().find(|line| line.garage == "b").unwrap().id.parse().unwrap();
        world.order(void(&charge)).unwrap();
        assert_eq!(open(&mut world), expected);
        world.correct("a", 1, "AB2");
        assert_eq!(open(&mut world), []);
        world.follows_from_the_ledger();
    }
}

#[test]
fn the_month_of_an_account_is_the_sum_of_its_drafts_by_the_local_date_of_the_exit() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nAB1,one,One Ltd\nAB2,one,One Ltd\n");
    // In Berlin the first hour of December.
    world.stay("a", "AB1", NINE, "2026-11-30T23:30:00Z");
    world.events(
        "a",
        &[("entry", "AB2", NINE), ("exit", "AB2", TEN), ("entry", "AB2", NINE), ("exit", "AB2", TEN)],
    );
    world.save();
    assert_eq!(world.month("one", "2026-12"), Some((1, 46_000)));
    assert_eq!(world.month("one", "2026-11"), Some((2, 500)));
    assert_eq!(world.month("one", "2026-10"), None);
    let issuer = Issuer::default();
    let draft = |month: &str| {
        let whose = Whose::Account("one".into());
        world.reader().draft(&issuer, month.parse().unwrap(), &whose, usize::MAX).unwrap()
    };
    assert_eq!(draft("2026-12").unwrap().currencies().count(), 1);
    assert!(draft("2026-11").is_some() && draft("2026-10").is_none());
    world.follows_from_the_ledger();
}

#[test]
fn a_draft_of_many_lines_comes_in_parts_that_add_up_to_the_totals() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nAB1,one,One Ltd\nCD1,two,Two Ltd\n");
    let visits = |world: &mut BillingWorld, plate, count: usize| {
        let visit = [("entry", plate, NINE), ("exit", plate, TEN)];
        for _ in 0..count / 30 {
            world.events("a", &visit.repeat(30));
        }
        world.save();
    };
    visits(&mut world, "AB1", 1_500);
    visits(&mut world, "CD1", 60);
    let (month, issuer): (Month, _) = ("2026-11".parse().unwrap(), Issuer::default());
    let whose = Whose::Account("one".into());
    let whole = world.reader().draft(&issuer, month, &whose, usize::MAX).unwrap().unwrap();
    // The same in parts, with stays of others in between: each part shows the position at which it was read.
    let (mut parts, mut after) = (Vec::new(), None);
    loop {
        let part = world.reader().draft_part(&issuer, (month, &whose), after).unwrap().unwrap();
        after = part.next.clone();
        parts.push(part);
        visits(&mut world, "CD1", 30);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(parts.len(), 2);
    assert_eq!(DraftStatement::of(month, parts).unwrap().unwrap(), whole);
    assert!(world.reader().draft(&issuer, month, &whose, 1_000).is_err(), "it has more lines");
    assert_eq!(world.month("one", "2026-11"), Some((1_500, 1_500 * 250)));
}

fn forget(whose: ToForget) -> Command {
    Command::Forget { whose, before: date(2027, 1, 1), seed: [7; 16] }
}

#[test]
fn a_forgotten_plate_is_a_token_in_stays_and_drafts_and_every_sum_stays() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("exit", "AB1", NINE), ("entry", "AB1", NINE), ("exit", "AB1", TEN)]);
    world.stay("b", "AB1", "2026-12-01T10:00:00+01:00", "2026-12-01T11:00:00+01:00");
    world.events("a", &[("entry", "AB2", NINE), ("exit", "AB2", TEN), ("entry", "AB3", TEN)]);
    let of = |plate: &str| forget(ToForget::Plate(plate.into()));
    assert!(world.order(of("AB3")).unwrap_err().contains("is inside"));
    assert!(world.order(of("AB9")).unwrap_err().contains("there is nothing to forget"));
    let before = world.sum();
    world.order(of("AB1")).unwrap();
    assert!(world.order(of("AB1")).unwrap_err().contains("there is nothing to forget"));
    assert_eq!(world.sum(), before);
    let plates: Vec<String> = world.lines().into_iter().map(|line| line.plate).collect();
    assert!(plates[0].starts_with('~') && plates[1] == "AB2" && plates[2].starts_with('~'), "{plates:?}");
    assert_ne!(plates[0], plates[2], "two months, two tokens");
    for (key, value) in written(&world.store) {
        let holds = |bytes: &[u8]| bytes.windows(3).any(|part| part == b"AB1");
        assert!(!holds(&key) && !holds(&value), "the views hold the plate under {key:02x?}");
    }
    world.stay("a", "AB4", NINE, TEN);
    world.plates("plate,account,name\nAB4,four,\n");
    assert!(world.order(of("AB4")).unwrap_err().contains("is registered"));
    // What is forgotten is not rated again.
    world.put(&TARIFFS.replace("per_unit = 250", "per_unit = 300"));
    assert_eq!(world.sum(), before + 50 + 300);
    world.follows_from_the_ledger();
}

#[test]
fn stays_that_ended_before_a_date_lose_their_plates_and_later_ones_keep_them() {
    let mut world = BillingWorld::with_tariffs();
    world.events(
        "a",
        &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", TEN), ("exit", "AB1", ELEVEN)],
    );
    world.stay("a", "AB1", TWELVE, "2026-12-01T10:00:00+01:00");
    let before = world.sum();
    world.order(Command::Forget { whose: ToForget::All, before: date(2026, 12, 1), seed: [7; 16] }).unwrap();
    let plates: Vec<String> = world.lines().into_iter().map(|line| line.plate).collect();
    assert!(plates[0].starts_with('~') && plates[0] == plates[1], "one month, one token: {plates:?}");
    assert_eq!((plates[2].as_str(), world.sum()), ("AB1", before));
    world.follows_from_the_ledger();
}

/// A page of money was damaged on the disk. A server that met it ended, and met it again at each start.
#[test]
fn what_cannot_be_read_of_the_views_is_dropped_and_rebuilt_at_the_next_start() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", TEN)]);
    let before = world.books();
    let (key, _) = world.store.last(b"vbm", b"vbn").unwrap().unwrap();
    world.store.put(&key, &[1, 0xff]).unwrap();
    let next = page_of(EPOCH, 4, &[event(&format!(r#"{{"kind":"exit","plate":"AB1","at":"{ELEVEN}"}}"#))]);
    apply(&world.ledger, "a", vec![next]);
    let (live, view) = (LiveViews::default(), View::open(&world.store, &world.ledger).unwrap());
    live.grown_to(world.ledger.position());
    let applied = apply_until_stopped(&world.ledger, &world.store, view, &live);
    assert!(applied.unwrap_err().to_string().contains("unreadable"));
    world.view = open_view(&world.ledger).unwrap();
    assert_eq!(world.view.position, 0, "they are rebuilt");
    world.changes = ViewChanges::on(&world.store);
    world.apply_ledger();
    let after = world.books();
    assert!(after.len() == 2 && after[0] == before[0], "{after:?}");
    world.follows_from_the_ledger();
}

#[test]
fn sums_that_do_not_agree_with_their_drafts_are_found() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("a", "AB1", NINE, TEN);
    world.save();
    for prefix in [&b"vbm"[..], b"vbg"] {
        let (key, value) = world.store.last(prefix, &[prefix, &[255]].concat()).unwrap().unwrap();
        let mut wrong = value.clone();
        let amount = wrong.windows(2).position(|part| part == [0xf4, 0x03]).unwrap(); // 250, as postcard writes it
        wrong[amount] ^= 2;
        world.store.put(&key, &wrong).unwrap();
        let mut found = Vec::new();
        let view = world.view.snapshot();
        charges::check_totals((&view, &world.ledger), &mut |place, _| found.push(place)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!crate::server::verify::verify(&world.ledger, None).unwrap().clean);
        world.store.put(&key, &value).unwrap();
    }
    world.follows_from_the_ledger();
}
