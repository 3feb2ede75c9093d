//! Documents against what was due, on a simulated disk.

mod facts_only;
mod old_documents;
mod open_and_due;

use super::operate::{self, Backend, CaughtUp, OpenBooks};
use super::{Put, Retroactive, ServerRequest};
use crate::config::LiveGarages;
use crate::daemon::admin::{NotDone, Outcome};
use crate::messaging::Epoch;
use crate::messaging::page::SealedPage;
use crate::messaging::wire::Request;
use crate::parking::Plate;
use crate::parking::document::{
    CorrectionReason, DocumentHead, DocumentLine, OperatorSettings, ReadDocument, Rendering, export_name,
    render,
};
use crate::parking::register::{Account, DateRange};
use crate::server::applying::catch_up;
use crate::server::books::{Asked, BooksReader};
use crate::server::issuing::{IssueOrder, IssueScope};
use crate::server::ledger::Ledger;
use crate::server::reckoning::ChargeLine;
use crate::server::record::Command;
use crate::server::record::documents::lines_of;
use crate::server::view::billing::documents;
use crate::server::view::billing::recorder::RatingEffect;
use crate::server::view::billing::rules::PutInForce;
use crate::server::view::tests::{event, page_of, request};
use crate::server::view::{JudgeError, Snapshot, View, discard};
use crate::store::Store;
use crate::store::simulated::Disk;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TARIFFS: &str = r#"
[[tariff]]
name = "centre"
garages = ["*"]
currency = "EUR"
time_zone = "Europe/Berlin"
valid_from = 2019-01-01
vat = [{ from = 2007-01-01, percent = 19 }, { from = 2020-07-01, percent = 16 }, { from = 2021-01-01, percent = 19 }]
unit_minutes = 60
bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 250 }]
"#;

const OPERATOR: &str = r#"
time_zone = "Europe/Berlin"
name = "Stadtwerke Musterstadt"
address = ["Hauptstraße 12", "70173 Stuttgart"]
country = "DE"
vat_id = "DE123456789"
"#;

/// A server on which none runs, on a disk whose power can be cut.
pub(super) struct IssuingTown {
    pub(super) disk: Disk,
    pub(super) ledger: Ledger,
    pub(super) view: View,
    pub(super) operator: OperatorSettings,
    pub(super) dir: Arc<TempDir>,
    /// How often something can still be recorded before the power is cut.
    pub(super) records_left: usize,
    /// When pages are received.
    pub(super) received_at_ms: i64,
    /// What garages have delivered.
    pub(super) sent: RefCell<Vec<Request>>,
    /// What garages deliver after the next records, one page after each.
    pub(super) arriving: Vec<(&'static str, Epoch, SealedPage)>,
    /// The longest that recording took, for which garages wait, and the longest that applying took.
    pub(super) longest: [Duration; 2],
}

impl Backend for IssuingTown {
    fn open(&self) -> OpenBooks<'_> {
        let IssuingTown { ledger, operator, dir, .. } = self;
        static NO_GARAGES: LazyLock<LiveGarages> = LazyLock::new(LiveGarages::default);
        OpenBooks { ledger, live: None, operator, documents_dir: dir.path(), garages: &NO_GARAGES }
    }
    fn view(&self) -> Arc<Snapshot> {
        Arc::new(self.view.snapshot())
    }
    fn catch_up(&self, _until: CaughtUp) -> Result<(), NotDone> {
        Ok(())
    }
    fn judge(&self, command: &Command) -> Result<Result<Command, JudgeError>, NotDone> {
        Ok(self.view.judge(&self.ledger, command))
    }
    fn effect_of(&self, put: PutInForce) -> Result<RatingEffect, NotDone> {
        Ok(self.view.effect_of(&self.ledger, put).unwrap())
    }
    fn record(&mut self, commands: Vec<Command>, by: &str) -> Result<u64, NotDone> {
        self.records_left = self.records_left.checked_sub(1).ok_or(NotDone::Stopping)?;
        let began = Instant::now();
        let position = self.ledger.record_all(by, commands, 5).unwrap();
        self.longest[0] = self.longest[0].max(began.elapsed());
        if let Some((garage, epoch, page)) = self.arriving.pop() {
            self.commit(garage, epoch, page);
        }
        Ok(position)
    }
    fn shows(&mut self, _position: u64) -> bool {
        let began = Instant::now();
        catch_up(&self.ledger, &mut self.view).unwrap();
        self.longest[1] = self.longest[1].max(began.elapsed());
        true
    }
}

/// An entry at 8 o'clock of a day in 2020, and the exit.
pub(super) fn stay_events(plate: &str, (month, day): (u8, u8), hours: u8) -> [Vec<u8>; 2] {
    [("entry", 8), ("exit", 8 + hours)].map(|(kind, hour)| {
        let at = format!("2020-{month:02}-{day:02}T{hour:02}:00:00+01:00");
        event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#))
    })
}

pub(super) struct FoundDocument {
    pub(super) head: DocumentHead,
    pub(super) lines: Vec<DocumentLine>,
    pub(super) file: Vec<u8>,
}

/// Number, whose, total and lines of a document.
pub(super) type IssuedDocument = (String, String, i64, u64);

pub(super) fn document(number: u64, whose: &str, total: i64, lines: u64) -> IssuedDocument {
    (format!("{number:06}"), whose.to_owned(), total, lines)
}

impl IssuingTown {
    pub(super) fn new() -> IssuingTown {
        let disk = Disk::default();
        IssuingTown::on(Store::on(disk.clone()), disk)
    }

    pub(super) fn of(
        disk: Disk,
        ledger: Ledger,
        operator: OperatorSettings,
        dir: Arc<TempDir>,
    ) -> IssuingTown {
        IssuingTown {
            disk,
            ledger,
            view: View::default(),
            operator,
            dir,
            records_left: usize::MAX,
            received_at_ms: 77,
            sent: RefCell::default(),
            arriving: Vec::new(),
            longest: Default::default(),
        }
    }

    pub(super) fn on(store: Store, disk: Disk) -> IssuingTown {
        let ledger = Ledger::open(store).unwrap();
        let operator = toml::from_str(OPERATOR).unwrap();
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut town = IssuingTown::of(disk, ledger, operator, dir);
        town.put(Put::Tariffs { toml: TARIFFS.into(), retroactive: Retroactive::Refused });
        let csv = "account,name,address,country\nmiller,Miller GmbH,Hafen 7|Hamburg,DE\nsmith,Smith,Markt 1|Ulm,DE\n";
        town.put(Put::Accounts(csv.into()));
        town.put(Put::Plates("plate,account\nMM1,miller\nMM2,miller\nSS1,smith\nNN1,nameless\n".into()));
        town
    }

    pub(super) fn ask(&mut self, request: ServerRequest) -> Outcome {
        operate::answer(self, request, "me")
    }

    pub(super) fn put(&mut self, put: Put) {
        self.ask(ServerRequest::Put { put, dry_run: false }).unwrap();
    }

    pub(super) fn register(&mut self, plate: &str, account: &str, from: &str) {
        let (plate, account) = (Plate::new(plate).unwrap(), Account::new(account).unwrap());
        let dates = DateRange::new(Some(from.parse().unwrap()), None).unwrap();
        self.put(Put::AddPlate { plate, account, dates });
    }

    pub(super) fn give(&mut self, command: Command) {
        self.ask(ServerRequest::Command(command)).unwrap();
    }

    /// A garage delivers events in an epoch of its own.
    pub(super) fn deliver(&mut self, garage: &str, events: &[Vec<u8>]) -> Epoch {
        let epoch = Epoch::random();
        self.commit(garage, epoch, page_of(epoch, 1, events));
        self.shows(0);
        epoch
    }

    /// A garage delivers a page, which is the first that it still has.
    pub(super) fn commit(&self, garage: &str, epoch: Epoch, page: SealedPage) {
        let oldest = page.open().unwrap().first.get();
        let request = Request { oldest, ..request(garage, epoch, vec![page]) };
        self.sent.borrow_mut().push(request.clone());
        self.ledger.commit(&[request], self.received_at_ms).unwrap();
    }

    /// A stay in 2020 from 8 o'clock on.
    pub(super) fn stay(&mut self, garage: &str, plate: &str, date: (u8, u8), hours: u8) -> Epoch {
        self.deliver(garage, &stay_events(plate, date, hours))
    }

    pub(super) fn order(month: &str, scope: IssueScope) -> IssueOrder {
        IssueOrder { month: month.parse().unwrap(), scope, date: None, dry_run: false }
    }

    pub(super) fn issue(&mut self, month: &str) -> serde_json::Value {
        self.ask(ServerRequest::Issue(Self::order(month, IssueScope::AllAccounts))).unwrap()
    }

    fn refuses(&mut self, order: IssueOrder) -> String {
        self.ask(ServerRequest::Issue(order)).unwrap_err().to_string()
    }

    pub(super) fn documents(&self) -> Vec<FoundDocument> {
        let rows = documents::rows(self.ledger.store(), 1).map(|row| {
            let file = row.unwrap().bytes(&self.ledger).unwrap();
            let read = ReadDocument::from_bytes(&file).unwrap();
            let lines = lines_of(&read.pieces).collect::<Result<Vec<_>, _>>().unwrap();
            for rendering in Rendering::ALL {
                let all = lines.iter().cloned().map(Ok::<_, crate::parking::document::DocumentError>);
                let rendered = render(rendering, &read.head, all, Vec::new()).unwrap();
                assert_eq!(*blake3::hash(&rendered).as_bytes(), read.digests.get(rendering));
            }
            FoundDocument { head: read.head.clone(), lines, file: file.clone() }
        });
        rows.collect()
    }

    pub(super) fn issued(&self) -> Vec<IssuedDocument> {
        let documents = self.documents();
        let of = |its: &FoundDocument| {
            let number = its.head.issue.as_ref().unwrap().number.clone();
            let number = number.split_once('-').unwrap().1.to_owned();
            let totals = &its.head.totals;
            (number, its.head.customer.debtor.name().to_owned(), totals.gross.minor(), totals.lines)
        };
        documents.iter().map(of).collect()
    }

    pub(super) fn books(&self) -> BooksReader<'_, impl Fn() -> Arc<Snapshot>> {
        BooksReader { ledger: &self.ledger, saving: None, view: || Arc::new(self.view.snapshot()) }
    }

    /// What the drafts come to, and what documents have charged, by charge, account and VAT rate. Charges without a price are in none.
    pub(super) fn compare(&self) {
        let mut asked = Asked { limit: 1000, ..Asked::default() };
        let (mut drafts, mut undecided) = (BTreeMap::new(), Vec::new());
        loop {
            let answer = self.books().charges(&asked).unwrap();
            for line in answer.charges {
                match line.amount {
                    None => undecided.push(line.id),
                    Some(amount) if line.account != "unregistered" && amount.minor() != 0 => {
                        let rate = line.vat_percent.map(|rate| rate.to_string());
                        drafts.insert((line.id, line.account, rate), amount.minor());
                    }
                    Some(_) => {}
                }
            }
            asked.after =
                answer.next.and_then(|next| crate::server::view::charges::ChargeCursor::parse(&next));
            if asked.after.is_none() {
                break;
            }
        }
        let mut charged = BTreeMap::new();
        for document in self.documents() {
            let account = document.head.customer.debtor.name().to_owned();
            for line in &document.lines {
                let rate = line.amount.rate.map(|rate| &document.head.totals.rates[usize::from(rate)].rate);
                let rate = rate.and_then(|vat| vat.rate()).map(|rate| rate.to_string());
                let id = line.reference.long();
                *charged.entry((id, account.clone(), rate)).or_insert(0) += line.amount.gross.minor();
            }
        }
        charged.retain(|(id, account, _), amount| {
            *amount != 0 && !undecided.contains(id) && account != "nameless"
        });
        drafts.retain(|(_, account, _), _| account != "nameless");
        assert_eq!(charged, drafts);
    }

    /// The power is cut, and the server starts again.
    pub(super) fn restart(&mut self) {
        self.disk.power_on(0);
        self.ledger = Ledger::open(Store::on(self.disk.clone())).unwrap();
        self.view = View::open(self.ledger.store(), &self.ledger).unwrap();
        catch_up(&self.ledger, &mut self.view).unwrap();
        self.records_left = usize::MAX;
    }

    /// The views are made again from the ledger as it is now.
    pub(super) fn rebuild(&mut self) {
        self.view = View::default();
        discard(self.ledger.store()).unwrap();
        catch_up(&self.ledger, &mut self.view).unwrap();
    }

    /// The views are what a rebuild gives. Returns how many documents there are, and what they add up to.
    pub(super) fn verify(&mut self) -> (u64, i64) {
        let answer = self.ask(ServerRequest::Verify).unwrap();
        assert_eq!(answer["clean"], true, "{}", answer["text"]);
        let report = &answer["report"];
        let amounts = report["issued"].as_array().unwrap().iter();
        let sum = amounts.map(|money| money["amount"].as_i64().unwrap()).sum();
        (report["documents"].as_u64().unwrap(), sum)
    }

    /// What was issued for the latest stay of a plate, and what is due.
    pub(super) fn issued_and_due(&self, plate: &str) -> (i64, Option<i64>) {
        let line = self.charge_line(plate);
        (line.issued.minor(), line.due.map(|due| due.minor()))
    }

    pub(super) fn charge(&self, plate: &str) -> crate::parking::ChargeId {
        self.charge_line(plate).id.parse().unwrap()
    }

    fn charge_line(&self, plate: &str) -> ChargeLine {
        let asked = Asked { plate: Some(plate.into()), limit: 1, ..Asked::default() };
        self.books().charges(&asked).unwrap().charges.remove(0)
    }

    /// The copies are those of the documents that were issued, byte for byte.
    pub(super) fn check_copies(&self) {
        let mut copies = BTreeMap::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                assert_eq!(fs::read_dir(path).unwrap().count(), 0, "nothing is left unfinished");
            } else {
                copies
                    .insert(path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
        let number = |its: &FoundDocument| export_name(&its.head.issue.as_ref().unwrap().number);
        let documents = self.documents();
        assert_eq!(copies, documents.iter().map(|its| (number(its), its.file.clone())).collect());
    }
}

/// M4 and M16: a void or credit in December changed November's statement, which was sent under its number.
#[test]
fn a_decision_after_the_issue_is_a_correction_of_its_own_date() {
    let mut town = IssuingTown::new();
    for day in [5, 6] {
        town.stay("a", "MM1", (10, day), 3);
    }
    town.issue("2020-10");
    let first = town.documents().remove(0);
    assert_eq!(town.issued(), [document(1, "miller", 1500, 2)]);
    let charge = town.charge("MM1");
    town.give(Command::Void { charge, reason: "barrier open".into() });
    assert_eq!(town.documents()[0].file, first.file, "what was issued stands");
    town.issue("2020-12");
    let documents = town.documents();
    assert_eq!(town.issued()[1..], [document(2, "miller", -750, 1)]);
    assert_eq!(documents[0].file, first.file);
    assert_eq!(documents[1].head.corrects[0].number, first.head.issue.unwrap().number);
    let correction = documents[1].lines[0].correction.as_ref().unwrap();
    assert_eq!((correction.before.minor(), correction.now.minor()), (750, 0));
    assert_eq!(correction.reason, CorrectionReason::Decision("barrier open".into()));
    assert_eq!(town.issue("2020-12")["documents"].as_array().unwrap().len(), 0, "nothing is due twice");
    town.compare();
    town.verify();
    town.check_copies();
}

/// M5: November got number 1, and September 2.
#[test]
fn numbers_are_one_series_in_the_order_of_issue() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (9, 5), 1);
    town.stay("a", "SS1", (11, 5), 2);
    town.issue("2020-10");
    town.stay("a", "SS1", (9, 7), 1);
    town.issue("2020-11");
    assert_eq!(town.issued(), [document(1, "miller", 250, 1), document(2, "smith", 750, 2)]);
    let exits: Vec<_> = town.documents()[1].lines.iter().map(|line| line.exit.timestamp).collect();
    assert!(exits.is_sorted(), "lines are in the order of exit");
    town.verify();
}

#[test]
fn a_stay_that_is_found_to_belong_to_somebody_else_is_given_back_and_charged() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (10, 5), 2);
    town.issue("2020-10");
    town.register("MM1", "smith", "2020-10-01");
    town.issue("2020-10");
    assert_eq!(
        town.issued(),
        [document(1, "miller", 500, 1), document(2, "miller", -500, 1), document(3, "smith", 500, 1)]
    );
    town.compare();
    town.verify();
}

#[test]
fn covered_stays_are_listed_once_and_make_no_document_alone() {
    let mut town = IssuingTown::new();
    let csv = "contract,account,plate,garage,valid_from,valid_to,cars\nseason,miller,MM1,*,2020-10-01,2020-10-31,1\n";
    town.put(Put::Contracts(csv.into()));
    town.stay("a", "MM1", (10, 5), 2);
    assert_eq!(town.issue("2020-10")["documents"].as_array().unwrap().len(), 0);
    town.stay("a", "MM2", (10, 6), 2);
    town.issue("2020-10");
    town.stay("a", "MM2", (10, 7), 1);
    town.issue("2020-10");
    assert_eq!(town.issued(), [document(1, "miller", 500, 2), document(2, "miller", 250, 1)]);
    town.verify();
}

#[test]
fn what_cannot_be_issued_is_refused_or_listed() {
    let mut town = IssuingTown::new();
    town.stay("a", "NN1", (10, 5), 2);
    town.stay("a", "MM1", (10, 5), 2);
    town.stay("a", "ZZ1", (10, 5), 2);
    let report = town.issue("2020-10");
    let open = report["open"].to_string();
    assert!(
        open.contains("nameless") && open.contains("nothing that happened after 2020-10-05T11:00:00+02:00"),
        "{open}"
    );
    assert_eq!(report["documents"].as_array().unwrap().len(), 1);
    let plate = |text: &str| IssueScope::Plate(Plate::new(text).unwrap());
    let order = |scope| IssuingTown::order("2020-10", scope);
    let late = IssueOrder { date: Some("2020-11-02".parse().unwrap()), ..order(IssueScope::AllAccounts) };
    let future = IssueOrder { date: Some("9000-11-02".parse().unwrap()), ..late.clone() };
    for (order, reason) in [
        (late, "cannot be before it"),
        (future, "in the future"),
        (IssuingTown::order("9000-01", IssueScope::AllAccounts), "has not ended"),
        (order(IssueScope::Account(Account::new("nobody").unwrap())), "unknown"),
        (order(plate("MM1")), "is registered to \"miller\""),
    ] {
        let refused = town.refuses(order);
        assert!(refused.contains(reason) && refused.contains("Nothing was issued"), "{refused}");
    }
    let dry = IssueOrder { dry_run: true, ..order(plate("ZZ1")) };
    assert_eq!(town.ask(ServerRequest::Issue(dry)).unwrap()["documents"][0]["total"], 500);
    assert_eq!(town.issued().len(), 1);
    town.ask(ServerRequest::Issue(order(plate("ZZ1")))).unwrap();
    assert_eq!(town.issued()[1], document(2, "unregistered", 500, 1));
    town.operator.simplified_up_to = 499;
    town.stay("b", "ZZ1", (10, 9), 2);
    assert!(town.refuses(order(plate("ZZ1"))).contains("simplified_up_to"));
    town.operator = OperatorSettings::default();
    assert!(town.refuses(order(IssueScope::AllAccounts)).contains("name, address, country"));
    town.verify();
}

#[test]
fn a_power_cut_at_any_moment_leaves_all_documents_or_none() {
    for records in 0.. {
        let mut town = IssuingTown::new();
        for day in 1..=9 {
            town.stay("a", "MM1", (10, day), 1);
            town.stay("a", "SS1", (10, day), 2);
        }
        town.records_left = records;
        let order = IssuingTown::order("2020-10", IssueScope::AllAccounts);
        let issued = town.ask(ServerRequest::Issue(order));
        town.restart();
        let all = [document(1, "miller", 2250, 9), document(2, "smith", 4500, 9)];
        match &issued {
            Ok(_) => assert_eq!(town.issued(), all),
            Err(_) => assert!(town.issued().is_empty()),
        }
        town.issue("2020-10");
        assert_eq!(town.issued(), all, "the same numbers, once");
        town.compare();
        town.verify();
        town.check_copies();
        if issued.is_ok() {
            assert!(records > 1, "it takes several records");
            return;
        }
    }
}

#[test]
fn whatever_happens_the_documents_together_charge_what_the_drafts_say_in_the_end() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut town = IssuingTown::new();
        let plates = ["MM1", "MM2", "SS1", "NN1", "ZZ1"];
        let mut files: Vec<Vec<u8>> = Vec::new();
        for _ in 0..random.random_range(10..40) {
            let plate = plates[random.random_range(0..plates.len())];
            let garage = ["a", "b"][random.random_range(0..2)];
            let date = (random.random_range(6..=8), random.random_range(1..=28));
            match random.random_range(0..12) {
                0..5 => _ = town.stay(garage, plate, date, random.random_range(0..5)),
                5 => {
                    // A plate was misread: the exit belongs to another car, and the stay is gone or another one.
                    let epoch = town.stay(garage, plate, date, 2);
                    if random.random() {
                        town.issue("2020-08");
                    }
                    let other = plates[random.random_range(0..plates.len())];
                    for sequence in [1, 2] {
                        if random.random() {
                            let json = format!(
                                r#"{{"kind":"plate_correction","epoch":"{epoch}","sequence":{sequence},"plate":"{other}"}}"#
                            );
                            town.deliver(garage, &[event(&json)]);
                        }
                    }
                }
                6 => {
                    let account = ["miller", "smith"][random.random_range(0..2)];
                    town.register(plate, account, &format!("2020-{:02}-{:02}", date.0, date.1));
                }
                7 => {
                    let asked = Asked { plate: Some(plate.into()), limit: 5, ..Asked::default() };
                    let found = town.books().charges(&asked).unwrap().charges;
                    if let Some(line) = found.last() {
                        let charge = line.id.parse().unwrap();
                        let command = match random.random() {
                            true => Command::Void { charge, reason: "void".into() },
                            false => Command::Credit { charge, amount: 100, reason: "credit".into() },
                        };
                        drop(town.ask(ServerRequest::Command(command)));
                    }
                }
                8 => town.restart(),
                _ => {
                    town.issue(["2020-06", "2020-07", "2020-08"][random.random_range(0..3)]);
                }
            }
            let now: Vec<Vec<u8>> = town.documents().into_iter().map(|its| its.file).collect();
            assert_eq!(now[..files.len()], files, "no document ever changes");
            files = now;
        }
        town.issue("2020-12");
        println!("seed {seed}: {} documents", town.documents().len());
        town.compare();
        town.verify();
        town.check_copies();
        let serials = town.documents();
        let serials = serials.iter().map(|its| its.head.issue.as_ref().unwrap().serial);
        assert!(serials.eq(1..=town.documents().len() as u64), "numbers have no gap");
    }
}

/// Where a backup was restored, the numbers that were given since would be given again, and the copies of their documents overwritten.
#[test]
fn a_number_that_a_lost_ledger_gave_is_not_given_again() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (10, 5), 2);
    town.operator.number_format = "{number}".parse().unwrap();
    let copy = town.dir.path().join(export_name("1"));
    fs::write(&copy, "the copy of a document").unwrap();
    let refused = town.refuses(IssuingTown::order("2020-10", IssueScope::AllAccounts));
    assert!(refused.contains("which this ledger does not know"), "{refused}");
    assert_eq!(fs::read(&copy).unwrap(), b"the copy of a document");
    assert!(town.issued().is_empty());
}
