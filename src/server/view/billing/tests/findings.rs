//! Faults that were found in the books of money once, each with the right value. The numbers are those of the list of findings.

use super::*;
use crate::parking::journal::Debtor;
use crate::parking::money::VatRate;
use crate::server::books::customer_of;
use jiff::civil::date;

/// M1. A garage was offline while a car left it. Until it delivered, the car seemed to be inside, and what arrived first decided who
/// was one car too many: 5.00 and 2.50, and a car in two garages. Nobody was.
#[test]
fn what_arrived_first_does_not_decide_who_was_one_car_too_many() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts("Fleet,acme,CC1,*,,,1\nFleet,acme,CC2,*,,,1\n");
    world.events("A", &[("entry", "CC1", "2026-11-23T08:00:00+01:00")]);
    world.stay("B", "CC2", TEN, TWELVE);
    assert_eq!(world.books(), books(&[("CC2", "held", None)]), "CC1 may be inside");
    world.stay("B", "CC1", "2026-11-23T13:00:00+01:00", "2026-11-23T14:00:00+01:00");
    world.events("A", &[("exit", "CC1", NINE)]);
    let covered = |plate| (plate, "covered", Some(0));
    assert_eq!(world.books(), books(&[covered("CC1"), covered("CC2"), covered("CC1")]));
    assert_eq!(world.anomalies(), told(&[]));
    world.follows_from_the_ledger();
}

/// M2. A stay of 2 November was corrected to a plate of a contract while another of its cars was inside on the 20th: 5.00.
#[test]
fn cars_that_were_inside_then_count_and_not_those_that_are_inside_now() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts("Fleet,acme,CC1,*,,,1\nFleet,acme,CC2,*,,,1\n");
    let first = world.stay("A", "CX1", "2026-11-02T08:00:00+01:00", "2026-11-02T09:30:00+01:00");
    world.events("A", &[("entry", "CC2", "2026-11-20T08:00:00+01:00")]);
    world.correct("A", first, "CC1");
    world.correct("A", first + 1, "CC1");
    assert_eq!(world.books(), books(&[("CC1", "covered", Some(0))]));
    world.follows_from_the_ledger();
}

/// M3. A stay of 29 November that was delivered after the car had been registered to its new owner went to the new owner.
#[test]
fn the_holder_on_the_day_of_the_entry_pays_however_late_the_stay_is_delivered() {
    let mut world = BillingWorld::with_tariffs();
    world.add_plate("AB1", "old", date(2026, 1, 1));
    world.add_plate("AB1", "new", date(2026, 12, 1));
    world.stay("A", "AB1", "2026-12-02T08:00:00+01:00", "2026-12-02T09:00:00+01:00");
    world.stay("B", "AB1", "2026-11-29T08:00:00+01:00", "2026-11-29T09:00:00+01:00");
    world.stay("B", "AB1", "2026-11-30T23:59:00+01:00", "2026-12-01T00:30:00+01:00");
    let accounts: Vec<String> = world.lines().into_iter().map(|line| line.account).collect();
    assert_eq!(accounts, ["old", "old", "new"]);
    world.follows_from_the_ledger();
}

/// M6. A bill was addressed to the name beside the plate that came first in the alphabet; adding a plate gave old months another
/// address.
#[test]
fn an_account_is_billed_under_its_own_record_whatever_plates_it_has() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nMM1,acme,Acme Ltd\n");
    world.accounts("account,name,address,country,vat_id,email\nacme,Acme Ltd,1 Hill|Town,DE,,\n");
    world.plates("plate,account,name\nAA1,acme,Another\n");
    let acme = Account::new("acme").unwrap();
    let customer = customer_of(&world.view.snapshot(), Debtor::Account(acme));
    assert_eq!((customer.name.as_deref(), customer.address.len()), (Some("Acme Ltd"), 2));
    world.follows_from_the_ledger();
}

/// M7. A contract was removed while its cars were inside: the charge of the second went to nobody, "for the contract :".
#[test]
fn a_contract_that_has_ended_still_pays_for_the_stays_that_began_before() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts("Fleet,acme,CC1,*,,,1\nFleet,acme,CC2,*,,,1\n");
    world.events("A", &[("entry", "CC1", NINE), ("entry", "CC2", NINE)]);
    world.end_contract("Fleet", date(2026, 11, 24));
    world.events("A", &[("exit", "CC1", TEN), ("exit", "CC2", TEN)]);
    world.stay("A", "CC1", "2026-11-24T09:00:00+01:00", "2026-11-24T10:00:00+01:00");
    assert_eq!(
        world.books(),
        books(&[("CC1", "covered", Some(0)), ("CC2", "charged", Some(250)), ("CC1", "charged", Some(250))])
    );
    let lines = world.lines();
    assert_eq!((lines[1].account.as_str(), lines[1].contract.as_deref()), ("acme", Some("Fleet")));
    assert_eq!((lines[2].account.as_str(), lines[2].contract.as_deref()), (UNREGISTERED, None));
    assert!(lines[1].note.as_deref().unwrap().starts_with("one car too many for the contract Fleet"));
    world.follows_from_the_ledger();
}

/// M8. The holidays of 2026 were listed and no others: New Year's Day of 2027 was priced as a weekday, without a word.
#[test]
fn a_stay_behind_the_end_of_its_calendar_waits_and_is_priced_once_the_calendar_goes_on() {
    let tariffs = |holidays: &str, through: &str| {
        format!(
            r#"
            [[calendar]]
            name = "land"
            holidays = [{holidays}]
            complete_from = 2026-01-01
            complete_through = {through}
            [[tariff]]
            name = "centre"
            garages = ["*"]
            currency = "EUR"
            time_zone = "Europe/Berlin"
            valid_from = 2020-01-01
            calendar = "land"
            vat_percent = 19
            unit_minutes = 60
            bands = [
                {{ days = "mon-sat", from = "00:00", to = "24:00", per_unit = 250 }},
                {{ days = "sun,holiday", from = "00:00", to = "24:00", per_unit = 100 }},
            ]
            "#
        )
    };
    let mut world = BillingWorld::new();
    world.put(&tariffs("2026-12-25", "2026-12-31"));
    world.stay("A", "AB1", "2027-01-01T09:00:00+01:00", "2027-01-01T10:00:00+01:00");
    world.stay("A", "AB1", "2026-12-30T09:00:00+01:00", "2026-12-30T10:00:00+01:00");
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(250)), ("AB1", "waiting", None)]));
    let note = world.lines()[1].note.clone().unwrap();
    assert!(note.contains("land") && note.contains("2027-01-01"), "{note}");
    assert_eq!(world.anomalies()[0], ("calendar_incomplete", "A".into(), String::new(), 1));
    world.put(&tariffs("2026-12-25, 2027-01-01", "2027-12-31"));
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(250)), ("AB1", "charged", Some(100))]));
    assert_eq!(world.anomalies(), told(&[("unregistered", "A", "AB1", 2)]));
    world.follows_from_the_ledger();
}

/// M9. A stay from 30 June to 1 July 2020 had 19 % VAT, by its entry.
#[test]
fn the_rate_of_vat_is_that_of_the_day_of_the_exit() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("A", "AB1", "2020-06-30T20:00:00+02:00", "2020-07-01T08:00:00+02:00");
    let line = world.line("AB1");
    assert_eq!(
        (line.vat_percent.map(VatRate::hundredths), line.month.to_string()),
        (Some(1_600), "2020-07".to_owned())
    );
    world.follows_from_the_ledger();
}

/// A stay of a month ended some minutes before it began, by two clocks: its rate was that of the next day, and of the next month.
#[test]
fn where_two_clocks_differ_around_midnight_the_rate_of_vat_is_still_that_of_the_exit() {
    let mut world = BillingWorld::with_tariffs();
    world.stay("A", "AB1", "2020-07-01T00:01:00+02:00", "2020-06-30T23:58:00+02:00");
    let line = world.line("AB1");
    assert_eq!(
        (
            line.amount.map(|amount| amount.minor()),
            line.vat_percent.map(VatRate::hundredths),
            line.month.to_string()
        ),
        (Some(0), Some(1_900), "2020-06".to_owned())
    );
    world.follows_from_the_ledger();
}

/// M10. An exit was corrected to another car in the batch in which it came: two charges had one id.
#[test]
fn an_exit_is_of_one_charge_whenever_its_plate_is_corrected() {
    let passed = |kind: &str, plate: &str, at: &str| {
        event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#))
    };
    let correction =
        event(&format!(r#"{{"kind":"plate_correction","epoch":"{EPOCH}","sequence":3,"plate":"BB2"}}"#));
    let all =
        [passed("entry", "AA1", NINE), passed("entry", "BB2", NINE), passed("exit", "AA1", TEN), correction];
    let mut at_once = BillingWorld::with_tariffs();
    at_once.page("A", all.to_vec());
    let mut one_by_one = BillingWorld::with_tariffs();
    for event in all {
        one_by_one.page("A", vec![event]);
    }
    for mut world in [at_once, one_by_one] {
        assert_eq!(world.books(), books(&[("BB2", "charged", Some(250))]));
        assert_eq!(world.line("BB2").id, format!("A/{EPOCH}/3"));
        world.follows_from_the_ledger();
    }
}

/// M11. A charge of 5.00 was voided, then its plate was corrected: 5.00 again. 4.00 were credited: after a correction they were gone.
#[test]
fn what_a_person_decided_about_a_charge_survives_a_corrected_plate() {
    let mut world = BillingWorld::with_tariffs();
    let first = world.events(
        "A",
        &[
            ("entry", "AB1", NINE),
            ("exit", "AB1", TEN_PAST),
            ("entry", "AB2", NINE),
            ("exit", "AB2", TEN_PAST),
        ],
    );
    let (voided, credited) = (world.charge("AB1"), world.charge("AB2"));
    world.order(void(&voided)).unwrap();
    world.order(credit(&credited, 400)).unwrap();
    let decided = |void, credit| books(&[(void, "void", Some(0)), (credit, "charged", Some(100))]);
    assert_eq!(world.books(), decided("AB1", "AB2"));
    for (sequence, plate) in (first..).zip(["AB7", "AB7", "AB8", "AB8"]) {
        world.correct("A", sequence, plate);
    }
    assert_eq!(world.books(), decided("AB7", "AB8"));
    world.follows_from_the_ledger();
}

/// M15. The contract of one account named a plate that was registered to another: the covered stay stood on the other's bill.
#[test]
fn the_account_of_the_contract_pays_and_a_registration_that_differs_is_an_anomaly() {
    let mut world = BillingWorld::with_tariffs();
    world.plates("plate,account,name\nCC1,other,Other Ltd\n");
    let csv = "contract,account,plate,garage,valid_from,valid_to,cars\nFleet,acme,CC1,*,,,1\n";
    let import = world.view.billing.rules.register.import_contracts(csv, |one, other| one == other).unwrap();
    assert_eq!(import.disagreements.len(), 1, "it is warned about at import");
    world.contracts("Fleet,acme,CC1,*,,,1\n");
    world.stay("A", "CC1", NINE, TEN);
    let line = world.line("CC1");
    assert_eq!(
        (line.account.as_str(), line.state, line.contract.as_deref()),
        ("acme", "covered", Some("Fleet"))
    );
    assert_eq!(world.anomalies(), told(&[("other_account_in_contract", "A", "CC1", 1)]));
    world.add_plate("CC1", "acme", date(2026, 1, 1));
    assert_eq!(world.anomalies(), told(&[]));
    world.follows_from_the_ledger();
}
