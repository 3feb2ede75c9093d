//! Whatever happens, in whatever order: documents never change, and together they charge what the history says in the end.

use super::{IssueOrder, IssueScope, Issuing};
use crate::messaging::Digest;
use crate::parking::document::{OperatorSettings, ReadDocument};
use crate::parking::money::{Amount, Currency, Money};
use crate::parking::payment::{self, Payment};
use crate::parking::register::{Account, CustomerFields, CustomerRecord, RegisterFact};
use crate::server::record::Command;
use crate::server::record::documents::lines_of;
use crate::server::view::billing::UNREGISTERED;
use crate::server::view::billing::documents;
use crate::server::view::billing::receivables::ReceivablesRows;
use crate::server::view::billing::tests::oracle::{self, Books};
use crate::server::view::billing::tests::plan::{acts, plan};
use crate::server::view::billing::tests::random::Town;
use crate::server::view::billing::tests::scaled;
use jiff::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// All that histories are about has happened by then.
const NOW: &str = "2031-06-01T12:00:00Z";

const MONTHS: [&str; 4] = ["2026-12", "2027-01", "2027-02", "2031-05"];

/// Those to whom stays are charged, and from whom a document can be asked for by name and address.
const CUSTOMERS: [&str; 3] = ["acme", "beta", "city"];

/// Charge, account, currency and VAT rate.
type ChargedFor = (String, String, Currency, Option<String>);

/// Issues documents, and records payments, between the steps of a town.
struct Bookkeeper {
    operator: OperatorSettings,
    copies: TempDir,
    /// The documents so far, byte for byte.
    files: Vec<Vec<u8>>,
    payments: u64,
    knows_customers: bool,
}

impl Bookkeeper {
    fn new() -> Bookkeeper {
        let operator = r#"
            time_zone = "Europe/Berlin"
            name = "City parking"
            address = ["Main Street 1"]
            country = "DE"
            vat_id = "DE123456789"
        "#;
        // Syncing a disk for each issue would take most of the time of these tests.
        let memory = Path::new("/dev/shm");
        let copies = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Bookkeeper {
            operator: toml::from_str(operator).unwrap(),
            copies: copies.unwrap(),
            files: Vec::new(),
            payments: 0,
            knows_customers: false,
        }
    }

    fn work(&mut self, town: &mut Town<'_>) {
        if !std::mem::replace(&mut self.knows_customers, true) {
            introduce_customers(town);
        }
        match town.dice.below(8) {
            0 => {
                let month = MONTHS[town.dice.below(MONTHS.len())];
                self.issue(town, month);
            }
            1 => self.pay(town),
            _ => {}
        }
    }

    fn issue(&mut self, town: &mut Town<'_>, month: &str) {
        town.save();
        let issuing = Issuing {
            ledger: &town.ledger,
            live: None,
            view: Arc::new(town.view.snapshot()),
            operator: &self.operator,
            documents_dir: self.copies.path(),
            now: NOW.parse::<Timestamp>().unwrap(),
        };
        let order = IssueOrder {
            month: month.parse().unwrap(),
            scope: IssueScope::AllAccounts,
            date: None,
            dry_run: false,
        };
        let record = &mut |commands| Ok(town.ledger.record_all("me", commands, 5).unwrap());
        issuing.issue(&order, record).unwrap();
        town.apply_ledger();
        town.save();
        let files: Vec<Vec<u8>> = documents::rows(town.ledger.store(), 1)
            .map(|row| row.unwrap().bytes(&town.ledger).unwrap())
            .collect();
        assert_eq!(files[..self.files.len()], self.files, "no document ever changes");
        self.files = files;
    }

    /// Somebody pays a document, a part of it, too much, or one that does not exist.
    fn pay(&mut self, town: &mut Town<'_>) {
        let serial = 1 + town.dice.below(self.files.len() + 2);
        let amount = Amount::of_minor(1 + town.dice.below(900) as i64);
        self.payments += 1;
        let payment = Payment {
            number: Some(format!("2031-{serial:06}")),
            account: None,
            money: Money { amount, currency: "EUR".parse().unwrap() },
            date: "2031-06-01".parse().unwrap(),
            reference: format!("payment {}", self.payments),
        };
        let bytes = payment::to_bytes(&[payment]);
        let command = Command::Payments { pieces: 1, digest: Digest::of(&bytes) };
        town.ledger.record_order("me", vec![bytes], command, 5).unwrap();
        town.apply_ledger();
    }

    /// What all documents together have charged, where it is not nothing.
    fn charged(&self) -> BTreeMap<ChargedFor, i64> {
        let mut charged: BTreeMap<ChargedFor, i64> = BTreeMap::new();
        for (serial, file) in (1..).zip(&self.files) {
            let read = ReadDocument::from_bytes(file).unwrap();
            assert_eq!(read.head.issue.as_ref().unwrap().serial, serial, "numbers have no gap");
            let account = read.head.customer.debtor.name().to_owned();
            for line in lines_of(&read.pieces) {
                let line = line.unwrap();
                let rate = line.amount.rate.map(|rate| &read.head.totals.rates[usize::from(rate)].rate);
                let rate = rate.and_then(|vat| vat.rate()).map(|rate| rate.to_string());
                let id = line.reference.long();
                *charged.entry((id, account.clone(), read.head.currency, rate)).or_default() +=
                    line.amount.gross.minor();
            }
        }
        charged.retain(|_, minor| *minor != 0);
        charged
    }

    /// Open items are what documents ask for and payments have not paid.
    fn check_receivables(&self, town: &Town<'_>) {
        let rows = ReceivablesRows::on(town.ledger.store());
        rows.read(|rows| {
            assert_eq!(rows.counters()?.payments, self.payments);
            for (serial, file) in (1..).zip(&self.files) {
                let total = ReadDocument::from_bytes(file).unwrap().head.totals.gross;
                let balance = rows.document(serial)?.expect("each document has a balance");
                let open = total.minor().abs() - balance.paid().minor().abs();
                assert!(open >= 0 && balance.open().minor().abs() == open, "{serial}: {balance:?}");
            }
            Ok(())
        })
        .unwrap();
    }
}

fn introduce_customers(town: &mut Town<'_>) {
    let customer = |name: &str| RegisterFact::Customer {
        account: Account::new(name).unwrap(),
        customer: Box::new(
            CustomerRecord::new(CustomerFields {
                name: name.to_owned(),
                address: vec!["Street 1".into()],
                country: "DE".into(),
                ..CustomerFields::default()
            })
            .unwrap(),
        ),
    };
    let bytes = postcard::to_stdvec(&CUSTOMERS.map(customer).to_vec()).unwrap();
    let command = Command::Register { pieces: 1, digest: Digest::of(&bytes) };
    town.ledger.record_order("me", vec![bytes], command, 5).unwrap();
    town.apply_ledger();
}

/// What customers have to pay by a history, where it is not nothing. A charge that waits for a decision is in `undecided`.
fn owed(books: &Books) -> (BTreeMap<ChargedFor, i64>, Vec<String>) {
    let (mut owed, mut undecided) = (BTreeMap::new(), Vec::new());
    for (id, stay) in &books.drafts {
        let draft = &stay.draft;
        match &draft.amount {
            None => undecided.push(id.clone()),
            Some(money) if money.amount != Amount::ZERO && draft.account != UNREGISTERED => {
                let rate = draft.vat.as_ref().and_then(|vat| vat.rate()).map(|rate| rate.to_string());
                let of = (id.clone(), draft.account.to_string(), money.currency, rate);
                owed.insert(of, money.amount.minor());
            }
            Some(_) => {}
        }
    }
    (owed, undecided)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scaled(100, 2_000, 50_000)))]

    #[test]
    fn documents_charge_what_a_history_says_and_never_change_whatever_was_issued_when(
        (garages, acts) in acts(),
        seed in any::<u64>(),
    ) {
        let planned = plan(garages, &acts);
        let mut bookkeeper = Bookkeeper::new();
        let mut town = Town::live_with(&planned, seed, &mut |town| bookkeeper.work(town));
        bookkeeper.issue(&mut town, "2031-05");
        let (owed, undecided) = owed(&oracle::books(&planned.history));
        let mut charged = bookkeeper.charged();
        charged.retain(|(id, ..), _| !undecided.contains(id));
        prop_assert_eq!(charged, owed);
        bookkeeper.check_receivables(&town);
        town.rebuild();
    }
}
