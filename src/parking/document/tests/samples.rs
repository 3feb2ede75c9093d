//! Documents for tests: realistic ones, and lines of every kind with hostile texts.

use super::super::*;
use crate::parking::journal::Debtor;
use crate::parking::money::{Amount, Currency, VatBasis, VatRate};
use crate::parking::register::{Account, CustomerFields, CustomerRecord};
use crate::parking::{Moment, Month, Plate};
use jiff::civil::date;
use proptest::prelude::*;
use smol_str::SmolStr;

/// A line before its net amount is known.
#[derive(Debug, Clone)]
pub(super) struct RawLine {
    pub(super) line: DocumentLine,
    pub(super) rate: Option<VatBasis>,
    pub(super) gross: i64,
}

pub(super) fn vat(hundredths: u16) -> Option<VatBasis> {
    Some(VatBasis::Rate(VatRate::of_hundredths(hundredths).unwrap()))
}

pub(super) fn no_vat(reason: &str) -> Option<VatBasis> {
    Some(VatBasis::Exempt(reason.into()))
}

pub(super) fn euro() -> Currency {
    Currency::new("EUR").unwrap()
}

pub(super) fn issuer() -> Issuer {
    Issuer {
        name: "Stadtwerke Musterstadt Parken GmbH".into(),
        address: vec!["Hauptstraße 12".into(), "70173 Stuttgart".into()],
        country: Some("DE".into()),
        vat_id: Some("DE 123 456 789".into()),
        tax_number: Some("99/815/08150".into()),
        iban: Some("DE89370400440532013000".parse().unwrap()),
        bic: Some("COBADEFFXXX".parse().unwrap()),
        payment_days: 14,
        footer: vec!["Amtsgericht Stuttgart, HRB 12345".into(), "Managing director: A. Muster".into()],
    }
}

pub(super) fn miller() -> BilledCustomer {
    let fields = CustomerFields {
        name: "Miller Logistik GmbH & Co. KG".into(),
        address: vec!["Am Hafen 4".into(), "20457 Hamburg".into()],
        country: "DE".into(),
        vat_id: "DE 987 654 321".into(),
        email: "office@example.org".into(),
    };
    let debtor = Debtor::Account(Account::new("miller").unwrap());
    BilledCustomer::new(debtor, &CustomerRecord::new(fields).unwrap())
}

pub(super) fn holder_of_a_car() -> BilledCustomer {
    BilledCustomer::new(Debtor::Plate(Plate::new("SML1234").unwrap()), &CustomerRecord::default())
}

pub(super) fn issue(serial: u64) -> Option<Issue> {
    let number = NumberFormat::default().number(2026, serial);
    Some(Issue { number, serial, date: date(2026, 12, 2) })
}

/// The document of these lines, as a caller makes it.
pub(super) fn document(issue: Option<Issue>, raw: Vec<RawLine>) -> (DocumentHead, Vec<DocumentLine>) {
    let mut builder = TotalsBuilder::default();
    for RawLine { line, rate, gross } in &raw {
        builder.add(rate.as_ref(), Amount::of_minor(*gross)).unwrap();
        if let Some(correction) = &line.correction {
            builder.corrects(&correction.document);
        }
    }
    let (totals, corrects, mut shares) = builder.finish().unwrap();
    let lines = raw.into_iter().map(|RawLine { mut line, rate, gross }| {
        line.amount = shares.next(rate.as_ref(), Amount::of_minor(gross), line.month).unwrap();
        line
    });
    let lines = lines.collect();
    let supplies = shares.finish().unwrap();
    let month = Month::new(2026, 11).unwrap();
    let (issuer, customer) = (issuer(), miller());
    let (layout, currency) = (LAYOUT, euro());
    (DocumentHead { layout, issue, month, issuer, customer, currency, totals, supplies, corrects }, lines)
}

pub(super) fn at(text: &str) -> Moment {
    Moment::parse(text).unwrap()
}

fn garage(which: usize) -> (&'static str, &'static str) {
    [("Bull Ring", "centre"), ("Landesbibliothek", "landesbibliothek"), ("P+R Österfeld", "p+r")][which % 3]
}

/// A stay with one step of its price.
pub(super) fn stay(which: usize, sequence: u64, entry: &str, exit: &str, units: i64) -> RawLine {
    let (garage, tariff) = garage(which);
    let (entry, exit, each) = (at(entry), at(exit), 250);
    let step = PriceStep {
        from: entry,
        units: units as u64,
        each: Some(Amount::of_minor(each)),
        total: Amount::of_minor(units * each),
        rule: "mon-fri 07:00-19:00".into(),
    };
    let line = DocumentLine {
        reference: LineReference {
            garage: garage.into(),
            epoch: "6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0".into(),
            sequence,
            made_at_ms: None,
        },
        garage: garage.into(),
        car: LineCar::Plate(["SML1234", "SAB77E", "LBXY906"][which % 3].into()),
        entry,
        exit,
        month: Month::of(exit.offset.to_datetime(exit.timestamp).date()).unwrap(),
        tariff: Some(tariff.into()),
        steps: vec![step],
        notes: vec![],
        amount: LineAmount { rate: None, gross: Amount::ZERO, net: Amount::ZERO },
        correction: None,
    };
    RawLine { line, rate: vat(1900), gross: units * each }
}

pub(super) fn corrects(raw: RawLine, before: i64, now: i64, reason: CorrectionReason) -> RawLine {
    let document = CorrectedDocument { number: "2026-000003".into(), date: date(2026, 11, 3) };
    let (before_amount, now_amount) = (Amount::of_minor(before), Amount::of_minor(now));
    let correction = LineCorrection { document, before: before_amount, now: now_amount, reason };
    RawLine { line: DocumentLine { correction: Some(correction), ..raw.line }, gross: now - before, ..raw }
}

/// An invoice with lines of all kinds.
pub(super) fn invoice() -> (DocumentHead, Vec<DocumentLine>) {
    let mut long = stay(1, 1209, "2026-11-03T17:30:00.250+01:00", "2026-11-04T06:10:09.9+01:00", 2);
    let night = PriceStep {
        from: at("2026-11-03T19:30:00+01:00"),
        units: 11,
        each: None,
        total: Amount::of_minor(700),
        rule: "all 00:00-24:00, held by the cap of 12.00 EUR a day".into(),
    };
    long.line.steps.push(night);
    long.gross = 1200;
    let mut covered = stay(2, 77, "2026-11-05T08:00:00+01:00", "2026-11-05T17:45:30+01:00", 0);
    covered.line.notes = vec!["covered by the contract Miller day".into()];
    (covered.line.tariff, covered.rate) = (None, None);
    covered.line.steps.clear();
    let mut forgotten = stay(0, 1230, "2026-10-25T01:30:00+02:00", "2026-10-25T03:30:00+01:00", 3);
    forgotten.line.car = LineCar::Token("9f27c1d04be8a6f3".into());
    let mut old_rate = stay(0, 1240, "2026-11-09T10:00:00+01:00", "2026-11-09T11:20:00+01:00", 2);
    old_rate.rate = vat(700);
    let mut exempt = stay(2, 81, "2026-11-10T10:00:00+01:00", "2026-11-10T10:40:00+01:00", 1);
    exempt.rate = no_vat("exempt under section 4 number 12 UStG");
    exempt.line.reference.made_at_ms = Some(1_795_000_000_000);
    let later = stay(1, 1100, "2026-10-28T12:00:00+01:00", "2026-10-28T14:59:00+01:00", 3);
    let lines = vec![
        stay(0, 1200, "2026-11-01T07:05:12+01:00", "2026-11-01T10:48:32+01:00", 4),
        long,
        covered,
        forgotten,
        old_rate,
        exempt,
        corrects(later, 500, 750, CorrectionReason::LaterFacts),
    ];
    document(issue(7), lines)
}

pub(super) fn credit_note() -> (DocumentHead, Vec<DocumentLine>) {
    let first = stay(0, 1002, "2026-10-12T09:00:00+02:00", "2026-10-12T14:30:00+02:00", 6);
    let reason = CorrectionReason::Decision("barrier out of order, waited 40 minutes".into());
    let second = stay(1, 1007, "2026-10-14T09:00:00+02:00", "2026-10-14T10:30:00+02:00", 2);
    document(
        issue(8),
        vec![corrects(first, 1500, 750, reason), corrects(second, 500, 0, CorrectionReason::LaterFacts)],
    )
}

pub(super) fn harm() -> impl Strategy<Value = String> {
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
        "</bdi></style>",
        "\u{202e}gnp.exe",
        "חניון העיר",
        "Bull Ring",
    ];
    let long = "[a-zA-Z ]{150,200}";
    prop_oneof![6 => proptest::sample::select(TEXTS).prop_map(str::to_owned), 3 => "\\PC{0,8}", 1 => long]
}

fn text() -> impl Strategy<Value = SmolStr> {
    harm().prop_map(SmolStr::from)
}

fn moment() -> impl Strategy<Value = Moment> {
    (0i64..4_000_000_000_000, -12i16..15).prop_map(|(at_ms, hours)| Moment::from_ms(at_ms, hours * 60))
}

fn amount() -> impl Strategy<Value = Amount> {
    (-1_000_000_000i64..1_000_000_000).prop_map(Amount::of_minor)
}

fn any_line() -> impl Strategy<Value = RawLine> {
    let car = (text(), any::<bool>())
        .prop_map(|(text, known)| if known { LineCar::Plate(text) } else { LineCar::Token(text) });
    let step = (moment(), 1u64..1000, prop::option::of(amount()), amount(), text())
        .prop_map(|(from, units, each, total, rule)| PriceStep { from, units, each, total, rule });
    let reason = prop::option::of(text())
        .prop_map(|reason| reason.map_or(CorrectionReason::LaterFacts, CorrectionReason::Decision));
    let correction = prop::option::of((text(), amount(), amount(), reason));
    let reference = (text(), text(), any::<u64>(), prop::option::of(0i64..4_000_000_000_000)).prop_map(
        |(garage, epoch, sequence, made_at_ms)| LineReference { garage, epoch, sequence, made_at_ms },
    );
    let vats = prop_oneof![Just(0u16), Just(700), Just(1900), 0u16..=10_000];
    let rate =
        prop_oneof![4 => vats.prop_map(vat), 1 => harm().prop_map(|reason| no_vat(&reason)), 1 => Just(None)];
    let texts = (text(), prop::option::of(text()), prop::collection::vec(text(), 0..3));
    let stay = (reference, car, moment(), moment(), texts, prop::collection::vec(step, 0..3));
    (stay, rate, amount(), correction).prop_map(|(stay, rate, gross, correction)| {
        let (reference, car, entry, exit, (garage, tariff, notes), steps) = stay;
        let amount = LineAmount { rate: None, gross, net: gross };
        let month = Month::new(2026, 1 + (reference.sequence % 12) as i8).unwrap();
        let line = DocumentLine {
            reference,
            garage,
            car,
            entry,
            exit,
            month,
            tariff,
            steps,
            notes,
            amount,
            correction: None,
        };
        let gross = if rate.is_some() { gross.minor() } else { 0 };
        match correction.filter(|_| rate.is_some()) {
            None => RawLine { line, rate, gross },
            Some((number, before, now, reason)) => {
                let document = CorrectedDocument { number, date: date(2026, 11, 3) };
                let gross = now.minor() - before.minor();
                let correction = Some(LineCorrection { document, before, now, reason });
                RawLine { line: DocumentLine { correction, ..line }, rate, gross }
            }
        }
    })
}

/// Documents of any kind, with hostile texts wherever people write.
pub(super) fn any_document() -> impl Strategy<Value = (DocumentHead, Vec<DocumentLine>)> {
    let texts = prop::collection::vec(harm(), 10);
    (prop::collection::vec(any_line(), 0..8), any::<bool>(), texts).prop_map(|(lines, issued, texts)| {
        let (mut head, lines) = document(issue(7).filter(|_| issued), lines);
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap();
        head.issuer.name = next();
        head.issuer.address = vec![next()];
        head.issuer.vat_id = Some(next());
        head.issuer.footer = vec![next()];
        let account = Account::new(&next()).unwrap_or_else(|_| Account::new("=<b>").unwrap());
        head.customer = BilledCustomer {
            debtor: if issued { Debtor::Account(account) } else { holder_of_a_car().debtor },
            name: Some(next()),
            address: vec![next()],
            country: Some(next()),
            vat_id: Some(next()),
        };
        (head, lines)
    })
}
