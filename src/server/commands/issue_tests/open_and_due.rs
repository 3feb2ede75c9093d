//! What keeps a month open, and what is due from whom.

use super::*;
use crate::parking::document::LineCar;
use crate::server::issuing::Issuing;
use crate::server::record::ToForget;
use crate::server::view::charges::check_documents;

impl IssuingTown {
    /// Tariffs for a garage in another time zone, too.
    fn put_new_york(&mut self) {
        let new_york = TARIFFS
            .replace("centre", "york")
            .replace("\"*\"", "\"york\"")
            .replace("Europe/Berlin", "America/New_York");
        let toml = format!("{TARIFFS}{new_york}");
        self.put(Put::Tariffs { toml, retroactive: Retroactive::Allowed });
    }
}

#[test]
fn an_account_with_stays_in_two_currencies_gets_a_document_in_each() {
    let mut town = IssuingTown::new();
    let dollars =
        TARIFFS.replace("centre", "york").replace("\"*\"", "\"york\"").replace("\"EUR\"", "\"USD\"");
    town.put(Put::Tariffs { toml: format!("{TARIFFS}{dollars}"), retroactive: Retroactive::Allowed });
    town.stay("york", "MM1", (10, 5), 1);
    town.stay("a", "MM1", (10, 6), 2);
    town.stay("york", "MM2", (10, 7), 3);
    town.stay("york", "SS1", (10, 8), 4);
    let report = town.issue("2020-10");
    let said: Vec<_> =
        report["documents"].as_array().unwrap().iter().map(|its| its["currency"].clone()).collect();
    assert_eq!(said, ["EUR", "USD", "USD"]);
    let miller = [document(1, "miller", 500, 1), document(2, "miller", 1000, 2)];
    assert_eq!(town.issued(), [&miller[..], &[document(3, "smith", 1000, 1)]].concat());
    let charge = town.charge("MM2");
    town.give(Command::Credit { charge, amount: 200, reason: "waited".into() });
    town.issue("2020-10");
    assert_eq!(town.issued()[3..], [document(4, "miller", -200, 1)], "nothing is due in EUR");
    let documents = town.documents();
    let (mut sums, mut serials) = (BTreeMap::new(), Vec::new());
    for FoundDocument { head, lines, .. } in &documents {
        let sum: i64 = lines.iter().map(|line| line.amount.gross.minor()).sum();
        assert_eq!(sum, head.totals.gross.minor());
        *sums.entry(head.currency.to_string()).or_insert(0) += sum;
        serials.push(head.issue.as_ref().unwrap().serial);
    }
    assert_eq!(serials, [1, 2, 3, 4]);
    assert_eq!(sums, BTreeMap::from([("EUR".to_owned(), 500), ("USD".to_owned(), 1800)]));
    assert_eq!(documents[3].head.corrects[0].number, documents[1].head.issue.as_ref().unwrap().number);
    town.compare();
    town.verify();
}

#[test]
fn a_stay_on_hold_keeps_its_month_open_and_is_issued_once_it_is_decided() {
    let mut town = IssuingTown::new();
    let passed = |kind: &str, plate: &str, at: &str| {
        event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#))
    };
    let (entered, left) = ("2020-10-01T08:00:00+02:00", "2020-11-05T08:00:00+01:00");
    town.deliver("a", &[passed("entry", "MM1", entered), passed("exit", "MM1", left)]);
    town.stay("a", "MM2", (11, 6), 1);
    town.stay("a", "NN1", (11, 7), 1);
    let open = |town: &mut IssuingTown| -> Vec<String> {
        let report = town.issue("2020-11");
        report["open"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    let before = open(&mut town);
    let [garage, held, nameless] = &before[..] else { panic!("{before:?}") };
    assert!(
        garage.starts_with("garage \"a\" has delivered nothing that happened after 2020-11-07"),
        "{garage}"
    );
    assert_eq!(
        held,
        "1 stay of \"miller\" in 2020-11 waits or is on hold: \"server charges list --account miller --month 2020-11\""
    );
    assert!(nameless.starts_with("account \"nameless\" has no name"), "{nameless}");
    assert_eq!(town.issued(), [document(1, "miller", 250, 1)]);
    // Only those who are asked for are listed.
    let smith = IssuingTown::order("2020-11", IssueScope::Account(Account::new("smith").unwrap()));
    assert!(!town.ask(ServerRequest::Issue(smith)).unwrap()["open"].to_string().contains("on hold"));

    let charge = town.charge("MM1");
    town.give(Command::BillStay { charge, reason: "the owner was away".into() });
    let after = open(&mut town);
    assert_eq!(after, [garage.clone(), nameless.clone()]);
    let hours = (35 * 24 + 1) * 250;
    assert_eq!(town.issued()[1..], [document(2, "miller", hours, 1)]);
    town.compare();
    town.verify();
}

/// An edge that was offline delivers for a while after it is back. Its garage was taken for complete with the first page that came after
/// the month, and by the operator's midnight instead of its own.
#[test]
fn a_garage_keeps_a_month_open_until_it_delivers_what_happened_after_the_month_ended_there() {
    let mut town = IssuingTown::new();
    town.put_new_york();
    town.received_at_ms = "2020-11-09T12:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let open = |town: &mut IssuingTown| {
        let report = town.issue("2020-10");
        ["\"a\"", "\"york\""].map(|garage| {
            let of_it =
                |line: &&serde_json::Value| line.as_str().unwrap().starts_with(&format!("garage {garage}"));
            report["open"].as_array().unwrap().iter().find(of_it).map(ToString::to_string)
        })
    };
    town.stay("a", "MM1", (10, 5), 2);
    town.stay("york", "MM1", (10, 6), 2);
    let both = open(&mut town);
    assert!(both[0].as_ref().unwrap().contains("after 2020-10-05T11:00:00+02:00"), "{both:?}");
    assert!(both[1].as_ref().unwrap().contains("after 2020-10-06T05:00:00-04:00"), "{both:?}");
    // Midnight in Berlin is seven in the evening in New York.
    for (at, is_open) in
        [("2020-11-01T00:30:00+01:00", [false, true]), ("2020-11-01T06:00:00+01:00", [false; 2])]
    {
        for garage in ["a", "york"] {
            town.deliver(garage, &[event(&format!(r#"{{"kind":"entry","plate":null,"at":"{at}"}}"#))]);
        }
        assert_eq!(open(&mut town).map(|line| line.is_some()), is_open, "{at}");
    }
}

/// The account was charged for the stays from the day of the registration on, and what the car had been charged for them could not be
/// given back: no document was made for the plate of a registered car.
#[test]
fn what_a_car_was_charged_before_somebody_registered_it_is_given_back_to_it() {
    let mut town = IssuingTown::new();
    let of_plate = |plate: &str| IssuingTown::order("2020-10", IssueScope::Plate(Plate::new(plate).unwrap()));
    let other = town.stay("a", "ZZ1", (10, 5), 2);
    town.stay("a", "ZZ1", (10, 6), 1);
    town.ask(ServerRequest::Issue(of_plate("ZZ1"))).unwrap();
    // One of them was of smith's car, which had been misread.
    for sequence in [1, 2] {
        let json =
            format!(r#"{{"kind":"plate_correction","epoch":"{other}","sequence":{sequence},"plate":"SS1"}}"#);
        town.deliver("a", &[event(&json)]);
    }
    town.register("ZZ1", "miller", "2020-10-01");
    town.issue("2020-10");
    town.ask(ServerRequest::Issue(of_plate("ZZ1"))).unwrap();
    let issued = [
        document(1, "unregistered", 750, 2),
        document(2, "miller", 250, 1),
        document(3, "smith", 500, 1),
        document(4, "unregistered", -750, 2),
    ];
    assert_eq!(town.issued(), issued);
    let documents = town.documents();
    let number = |place: usize| &documents[place].head.issue.as_ref().unwrap().number;
    assert_eq!(&documents[3].head.corrects[0].number, number(0));
    for (plate, account) in [("ZZ1", "miller"), ("SS1", "smith")] {
        let refused = town.refuses(of_plate(plate));
        assert!(refused.contains(&format!("is registered to {account:?}")), "{refused}");
    }
    assert_eq!(town.verify(), (4, 750));
    town.compare();
}

/// The number of documents that `verify` said was that of the last one, also where numbers are lost, and nothing was compared with it.
#[test]
fn amounts_that_are_not_those_of_the_documents_are_found() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (10, 5), 1);
    town.issue("2020-10");
    assert_eq!(town.verify(), (1, 250));
    let store = town.ledger.store();
    let (key, value) = store.last(b"vbx", b"vby").unwrap().unwrap();
    let mut wrong = value.clone();
    let amount = wrong.windows(2).position(|part| part == [0xf4, 0x03]).unwrap(); // 250, as postcard writes it
    wrong[amount] ^= 2;
    store.put(&key, &wrong).unwrap();
    let mut found = Vec::new();
    check_documents(store, &mut |place, _| found.push(place)).unwrap();
    assert_eq!(found, ["the amounts that were issued for stays"]);
}

/// No issue is needed before plates are forgotten.
#[test]
fn a_forgotten_stay_is_on_the_next_document_without_its_plate() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (10, 5), 2);
    town.stay("a", "MM1", (11, 5), 1);
    let (whose, before) = (ToForget::Account("miller".into()), "2020-11-01".parse().unwrap());
    town.ask(ServerRequest::Forget { whose, before }).unwrap();
    town.stay("b", "MM1", (10, 6), 3);
    town.issue("2020-12");
    assert_eq!(town.issued(), [document(1, "miller", 1500, 3)]);
    let first = town.documents().remove(0);
    let has_plate = |line: &DocumentLine| matches!(line.car, LineCar::Plate(_));
    assert_eq!(first.lines.iter().map(has_plate).collect::<Vec<_>>(), [false, false, true]);
    let charge = first.lines[0].reference.long().parse().unwrap();
    town.give(Command::Credit { charge, amount: 200, reason: "waited".into() });
    town.issue("2020-12");
    assert_eq!(town.issued()[1..], [document(2, "miller", -200, 1)]);
    town.compare();
    town.verify();
}

#[test]
fn the_date_of_issue_is_the_operators_and_a_month_ends_with_its_last_garage() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (10, 5), 2);
    town.put_new_york();
    let issue = |town: &IssuingTown, now: &str, date: Option<&str>| {
        let issuing = Issuing {
            ledger: &town.ledger,
            live: None,
            view: Arc::new(town.view.snapshot()),
            operator: &town.operator,
            documents_dir: town.dir.path(),
            now: now.parse().unwrap(),
        };
        let date = date.map(|date| date.parse().unwrap());
        let order = IssueOrder { date, ..IssuingTown::order("2020-10", IssueScope::AllAccounts) };
        issuing.issue(&order, &mut |commands| Ok(town.ledger.record_all("me", commands, 5).unwrap()))
    };
    for (now, date, reason) in [
        ("2020-10-31T22:59:00Z", None, "2020-10 has not ended in Europe/Berlin, where it is 2020-10-31"),
        ("2020-11-01T03:59:00Z", None, "2020-10 has not ended in America/New_York, where it is 2020-10-31"),
        ("2020-12-31T22:59:00Z", Some("2021-01-01"), "is in the future: today is 2020-12-31"),
    ] {
        let refused = issue(&town, now, date).unwrap_err().to_string();
        assert!(refused.contains(reason) && refused.contains("Nothing was issued"), "{refused}");
    }
    let report = issue(&town, "2020-12-31T23:00:00Z", None).unwrap();
    assert_eq!(report.documents[0].number.as_deref(), Some("2021-000001"));
    town.shows(0);
    assert_eq!(town.documents()[0].head.issue.as_ref().unwrap().date, "2021-01-01".parse().unwrap());
}
