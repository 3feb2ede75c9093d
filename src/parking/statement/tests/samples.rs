//! Statements for tests: a realistic month, and lines of every kind with hostile texts.

use super::*;
use crate::parking::money::Currency;
use jiff::{SignedDuration, Timestamp, tz::Offset};
use proptest::prelude::*;

pub(crate) fn euro() -> Currency {
    Currency::new("EUR").unwrap()
}
pub(crate) fn yen() -> Currency {
    Currency::new("JPY").unwrap()
}

pub(crate) fn vat(hundredths: u16) -> Option<VatRate> {
    VatRate::of_hundredths(hundredths)
}

pub(crate) fn head(customer: Customer) -> StatementHead {
    StatementHead {
        operator: Operator {
            name: "Stadtwerke Musterstadt Parken GmbH".into(),
            address: vec!["Hauptstraße 12".into(), "70173 Stuttgart".into(), "Germany".into()],
            vat_id: Some("DE 123 456 789".into()),
        },
        customer,
        month: "2026-11".parse().unwrap(),
        number: Some(7),
        position: 184_220,
    }
}

pub(crate) fn account(name: &str) -> Customer {
    Customer::Account { account: name.into(), name: Some("Miller Logistik GmbH & Co. KG".into()) }
}

pub(crate) fn statement(lines: Vec<StatementLine>) -> Statement {
    Statement::new(head(account("miller")), lines).unwrap()
}

pub(crate) fn credit(minor: i64, currency: Currency, vat: Option<VatRate>) -> StatementLine {
    let entry = StatementEntry::Credit(correction("c", "barrier stuck"));
    StatementLine { id: "position 9".into(), amount: Money::of_minor(minor, currency), vat, entry }
}

pub(crate) fn correction(charge: &str, reason: &str) -> Correction {
    Correction {
        charge: charge.into(),
        reason: reason.into(),
        by: "a.meier".into(),
        at: Moment::parse("2026-11-28T09:30:00+01:00").unwrap(),
    }
}

/// `stays` stays of three cars at three garages, then the first taken back and some of another given back.
pub(crate) fn a_month(stays: i64) -> Statement {
    let garages =
        [("Bull Ring", "centre"), ("Landesbibliothek", "landesbibliothek"), ("P+R Österfeld", "p+r")];
    let plates = ["SML1234", "SAB77E", "LBXY906"];
    let first = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_793_513_112); // 2026-11-01 07:05:12 at +01:00
    let mut lines = Vec::new();
    for n in 0..stays {
        let which = usize::try_from(n % 3).unwrap();
        let entry = first + SignedDuration::from_secs(n * 40_000 + n * n % 977);
        let units = n * 7 % 11 + 4;
        let exit = entry + SignedDuration::from_secs(units * 3600 - 1000 - n * 37 % 900);
        let offset = Offset::constant(1);
        let breakdown = |first: i64, units: i64, rule: &str| {
            let from = super::words::local(Moment {
                timestamp: entry + SignedDuration::from_secs(first * 3600),
                offset,
            });
            let sum = Money::of_minor(units * 250, euro());
            format!("{units} units from {} {}, 2.50 EUR each: {sum} ({rule})", from.date(), from.time())
        };
        let free = n % 10 == 4;
        let mut stay = StatementStay {
            garage: garages[which].0.into(),
            car: if n == 7 {
                StatementCar::Token("9f27c1d04be8a6f3".into())
            } else {
                StatementCar::Plate(plates[which].into())
            },
            entry: Moment { timestamp: entry, offset },
            exit: Moment { timestamp: exit, offset },
            tariff: garages[which].1.into(),
            breakdown: match units {
                0..8 => vec![breakdown(0, units, "mon-fri 07:00-19:00")],
                _ => vec![breakdown(0, 6, "mon-fri 07:00-19:00"), breakdown(6, units - 6, "all 00:00-24:00")],
            },
            note: None,
        };
        if free {
            stay.note = Some("contract \"Miller day\" covers it: 1 of 2 cars inside".into());
            stay.breakdown.clear();
        } else if n % 10 == 8 {
            stay.note = Some("contract \"Miller day\": one car too many, 3 inside of 2".into());
        }
        let id = format!("{}/6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0/{}", stay.garage, 1200 + n * 3);
        let minor = if free { 0 } else { units * 250 };
        let vat = vat(1900);
        lines.push(StatementLine {
            id,
            amount: Money::of_minor(minor, euro()),
            vat,
            entry: StatementEntry::Charge(stay),
        });
    }
    let line = |n: i64, minor, entry| StatementLine {
        id: format!("position {}", 184_000 + n),
        amount: Money::of_minor(minor, euro()),
        vat: vat(1900),
        entry,
    };
    let void = StatementEntry::Void(correction(
        &lines[0].id,
        "the plate was misread; the car is another customer's",
    ));
    let credit = StatementEntry::Credit(correction(&lines[1].id, "barrier out of order, waited 40 minutes"));
    let back = line(1, -lines[0].amount.minor(), void);
    lines.extend([back, line(2, -300, credit)]);
    statement(lines)
}

fn harm() -> impl Strategy<Value = String> {
    const TEXTS: &[&str] = &[
        "=1+1",
        "+49",
        "-5",
        "@x",
        "\t=1",
        "\r\n=2",
        "<script>alert(1)</script>",
        "\"'&<>",
        "a;=1",
        "Bull Ring",
    ];
    prop_oneof![proptest::sample::select(TEXTS).prop_map(str::to_owned), "\\PC{0,8}"]
}

fn moment() -> impl Strategy<Value = Moment> {
    (0i64..4_000_000_000, -12i8..15).prop_map(|(second, hours)| Moment {
        timestamp: Timestamp::from_second(second).unwrap(),
        offset: Offset::constant(hours),
    })
}

fn entry() -> impl Strategy<Value = StatementEntry> {
    let car = prop_oneof![
        harm().prop_map(StatementCar::Plate),
        harm().prop_map(StatementCar::Token),
        Just(StatementCar::Unknown)
    ];
    let texts = (harm(), harm(), prop::option::of(harm()), prop::collection::vec(harm(), 0..4));
    let stay =
        (car, moment(), moment(), texts).prop_map(|(car, entry, exit, (garage, tariff, note, breakdown))| {
            StatementEntry::Charge(StatementStay { garage, car, entry, exit, tariff, breakdown, note })
        });
    let correction =
        (harm(), harm(), harm(), moment(), any::<bool>()).prop_map(|(charge, reason, by, at, whole)| {
            let correction = Correction { charge, reason, by, at };
            if whole { StatementEntry::Void(correction) } else { StatementEntry::Credit(correction) }
        });
    prop_oneof![stay, correction]
}

/// Lines of any kind, whose sums fit into 64 bits.
pub(crate) fn any_lines() -> impl Strategy<Value = Vec<StatementLine>> {
    let amount = (-1_000_000_000_000i64..1_000_000_000_000, prop_oneof![Just(euro()), Just(yen())]);
    let rate = prop::option::of(prop_oneof![Just(0u16), Just(700), Just(770), Just(1900), 0u16..=10_000]);
    let line =
        (harm(), amount, rate, entry()).prop_map(|(id, (minor, currency), rate, entry)| StatementLine {
            id,
            amount: Money::of_minor(minor, currency),
            vat: rate.and_then(VatRate::of_hundredths),
            entry,
        });
    prop::collection::vec(line, 0..12)
}
