//! Random histories against an oracle.

use super::*;
use crate::parking::journal::{VatBasis, Voucher};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
enum Fact {
    Document(DocumentSummary, Corrections),
    Payment(Payment),
    Undo(PaymentId, Date),
}

fn day(n: i64) -> Date {
    ISSUED.checked_add(jiff::Span::new().days(n)).unwrap()
}

fn debtors() -> [Debtor; 4] {
    let plate = |text| Debtor::Plate(Plate::new(text).unwrap());
    [debtor("miller"), debtor("smith"), plate("AB1"), plate("AB2")]
}

fn currencies() -> [Currency; 2] {
    [euro(), Currency::new("JPY").unwrap()]
}

/// Facts of a ledger in its order: serials ascend, and so do the dates of documents.
fn histories() -> impl Strategy<Value = Vec<Fact>> {
    // Lines that correct earlier documents, of any account, and one that is not known.
    let corrected = prop::collection::vec((1..10u64, -30..10i64), 0..4);
    let documents = (0..4usize, 0..10u8, -60..100i64, corrected);
    let money = (0..10u8, (-30..60i64).prop_filter("a payment", |minor| *minor != 0));
    // Number: up to 12 serials, of which some never come; 0: none. Account: 0: none.
    let payments = (0..14u64, 0..4usize, money, -2..12i64);
    let fact = prop_oneof![
        3 => documents.prop_map(|its| (Some(its), None, None)),
        6 => payments.prop_map(|its| (None, Some(its), None)),
        2 => (1..20u64, 0..9i64).prop_map(|its| (None, None, Some(its))),
    ];
    prop::collection::vec(fact, 0..40).prop_map(|facts| {
        let mut serial = 0;
        let currency = |n: u8| currencies()[usize::from(n == 0)];
        let facts = facts.into_iter().enumerate().map(|(at, fact)| match fact {
            (Some((whose, money, minor, corrected)), _, _) => {
                serial += 1;
                let its =
                    document(serial, debtors()[whose].clone(), day(at as i64 / 5), currency(money), minor);
                Fact::Document(its, corrections(&corrected))
            }
            (_, Some((number_of, account, (money, minor), paid)), _) => {
                let mut its = payment(
                    "",
                    ["", "miller", "smith", ""][account],
                    day(paid),
                    Money::of_minor(minor, currency(money)),
                );
                its.number = (number_of > 0).then(|| number(number_of));
                its.reference = format!("r{at}");
                Fact::Payment(its)
            }
            (_, _, undo) => {
                undo.map(|(id, on)| Fact::Undo(PaymentId(id), day(on))).expect("one of the three")
            }
        });
        facts.collect()
    })
}

/// What the facts mean, said in the simplest way: sums over lists.
#[derive(Default)]
struct Oracle {
    documents: Vec<DocumentSummary>,
    /// The invoices that credit notes correct.
    corrected: BTreeMap<u64, BTreeSet<u64>>,
    payments: Vec<(Payment, Option<Date>)>,
}

impl Oracle {
    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Document(its, _) => self.documents.push(its.clone()),
            Fact::Payment(its) => self.payments.push((its.clone(), None)),
            Fact::Undo(id, on) => {
                if let Some((its, undone @ None)) = self.payments.get_mut(id.0 as usize - 1)
                    && *on >= its.date
                {
                    *undone = Some(*on);
                }
            }
        }
    }
    /// The debtor whose money the payment is.
    fn owner(&self, payment: &Payment) -> Option<Debtor> {
        let account = payment.account.clone().map(Debtor::Account);
        let fits = |document: &&DocumentSummary| {
            Some(&document.number) == payment.number.as_ref()
                && document.currency == payment.money.currency
                && account.as_ref().is_none_or(|account| *account == document.debtor)
                && document.date <= payment.date
        };
        self.documents.iter().find(fits).map(|its| its.debtor.clone()).or(account)
    }
    /// What is open of each invoice after a credit note has offset `sum` of what was: first those that it corrects, then the oldest.
    fn offset(
        &mut self,
        credit: &DocumentSummary,
        corrections: &Corrections,
        mut open: BTreeMap<u64, i64>,
        mut sum: i64,
    ) -> BTreeMap<u64, i64> {
        let mut take = |serial: u64, most: i64| {
            let left = open.get_mut(&serial).filter(|left| **left > 0)?;
            let amount = most.min(*left).min(sum).max(0);
            (*left, sum) = (*left - amount, sum - amount);
            Some(amount)
        };
        let mut corrected = BTreeSet::new();
        for document in self.documents.iter().filter(|its| its.serial < credit.serial) {
            let Some(sum) = corrections.get(&document.number) else { continue };
            let itself = BTreeSet::from([document.serial]);
            let invoices = self.corrected.get(&document.serial).unwrap_or(&itself);
            let mut rest = -sum.minor();
            for invoice in invoices {
                rest -= take(*invoice, rest).unwrap_or(0);
            }
            corrected.extend(invoices);
        }
        let all: Vec<u64> = self.documents.iter().map(|its| its.serial).collect();
        for serial in all {
            take(serial, i64::MAX);
        }
        let is_its = |serial: &u64| {
            let mut same = self.documents.iter().filter(|its| its.serial == *serial);
            same.any(|its| (&its.debtor, its.currency) == (&credit.debtor, credit.currency))
        };
        corrected.retain(is_its);
        if !corrected.is_empty() {
            self.corrected.insert(credit.serial, corrected);
        }
        open
    }
    fn total(document: &DocumentSummary) -> i64 {
        document.totals.iter().map(|its| its.net.minor() + its.vat.minor()).sum()
    }
    fn owed(&self, owner: Option<&Debtor>, currency: Currency) -> i64 {
        let documents =
            self.documents.iter().filter(|its| Some(&its.debtor) == owner && its.currency == currency);
        let paid = self.payments.iter().filter(|(its, undone)| {
            undone.is_none() && its.money.currency == currency && self.owner(its).as_ref() == owner
        });
        documents.map(Oracle::total).sum::<i64>() - paid.map(|(its, _)| its.money.minor()).sum::<i64>()
    }
}

fn check(world: &mut World, oracle: &Oracle) -> Result<(), TestCaseError> {
    let owners: Vec<Option<Debtor>> = debtors().into_iter().map(Some).chain([None]).collect();
    let mut expected = BTreeMap::<(Currency, JournalAccount), i64>::new();
    for currency in currencies() {
        for owner in &owners {
            let balance = world.books().balance(owner.as_ref(), currency).unwrap();
            let (open, unallocated) = (balance.open.minor(), balance.unallocated.minor());
            prop_assert_eq!(
                open - unallocated,
                oracle.owed(owner.as_ref(), currency),
                "{:?} {}",
                owner,
                currency
            );
            let entries: i64 = world.unallocated(owner.as_ref(), currency).iter().map(|its| its.1).sum();
            prop_assert_eq!(entries, unallocated);
            let listed: Vec<i64> = match owner {
                None => Vec::new(),
                Some(_) => {
                    let all = world
                        .books()
                        .open_documents(owner.as_ref(), None)
                        .map(Result::unwrap)
                        .collect::<Vec<_>>();
                    all.iter()
                        .filter(|its| its.balance.currency == currency)
                        .map(|its| its.balance.open().minor())
                        .collect()
                }
            };
            prop_assert_eq!(listed.iter().sum::<i64>(), open);
            prop_assert!(
                listed.iter().all(|its| its.signum() == open.signum()),
                "credit notes were offset: {:?}",
                listed
            );
            let name = owner.as_ref().map(|its| its.name().to_owned());
            if let Some(name) = &name {
                *expected.entry((currency, JournalAccount::Receivable(name.clone()))).or_default() += open;
            }
            *expected.entry((currency, JournalAccount::Unallocated(name))).or_default() -= unallocated;
        }
        let of_currency =
            oracle.payments.iter().filter(|(its, undone)| undone.is_none() && its.money.currency == currency);
        expected
            .insert((currency, JournalAccount::Bank), of_currency.map(|(its, _)| its.money.minor()).sum());
        let totals =
            oracle.documents.iter().filter(|its| its.currency == currency).flat_map(|its| &its.totals);
        for its in totals {
            *expected.entry((currency, JournalAccount::Revenue(its.basis.clone()))).or_default() -=
                its.net.minor();
            let VatBasis::Rate(rate) = its.basis else { continue };
            *expected.entry((currency, JournalAccount::VatOwed(rate))).or_default() -= its.vat.minor();
        }
    }
    let mut held = BTreeMap::<(Currency, JournalAccount), i64>::new();
    for (n, booking) in world.bookings().iter().enumerate() {
        prop_assert_eq!(booking.number, n as u64 + 1);
        prop_assert!(booking.lines.len() > 1 && booking.lines.iter().all(|line| line.amount != Amount::ZERO));
        prop_assert_eq!(booking.lines.iter().map(|line| line.amount.minor()).sum::<i64>(), 0);
        prop_assert!(
            booking.lines.iter().all(|line| line.month.is_some() == (booking.voucher == Voucher::Document))
        );
        for line in &booking.lines {
            *held.entry((booking.currency, line.account.clone())).or_default() += line.amount.minor();
        }
    }
    held.retain(|_, sum| *sum != 0);
    expected.retain(|_, sum| *sum != 0);
    prop_assert_eq!(held, expected);
    for its in &oracle.documents {
        let balance = world.of(its.serial);
        let (paid, total) = (balance.paid().minor(), Oracle::total(its));
        prop_assert!((total.min(0)..=total.max(0)).contains(&paid), "paid {} of {}", paid, total);
        prop_assert_eq!(
            (&balance.number, balance.date, balance.total.minor()),
            (&its.number, its.date, total)
        );
    }
    Ok(())
}

/// What is open of the invoices of a credit note's debtor.
fn open_invoices(world: &mut World, credit: &DocumentSummary) -> BTreeMap<u64, i64> {
    let all: Vec<_> = world.books().open_documents(Some(&credit.debtor), None).map(Result::unwrap).collect();
    let its = all.iter().filter(|its| its.balance.currency == credit.currency);
    its.map(|its| (its.serial, its.balance.open().minor())).filter(|(_, open)| *open > 0).collect()
}

/// Applies facts, payments that follow each other in groups of at most `batch`.
fn apply(world: &mut World, facts: &[Fact], batch: usize) {
    let mut payments = Vec::new();
    for (n, fact) in facts.iter().enumerate() {
        if let Fact::Payment(its) = fact {
            payments.push(its.clone());
        }
        if payments.len() >= batch || !matches!(facts.get(n + 1), Some(Fact::Payment(_))) {
            world.books().apply_payments(&std::mem::take(&mut payments)).unwrap();
        }
        match fact {
            Fact::Document(its, corrections) => world.books().apply_document(its, corrections).unwrap(),
            Fact::Undo(id, on) => _ = world.books().apply_undo(*id, *on).unwrap(),
            Fact::Payment(_) => (),
        }
    }
}

proptest! {
    #[test]
    fn open_items_and_journal_are_what_the_facts_add_up_to(facts in histories()) {
        let (mut world, mut oracle) = (World::default(), Oracle::default());
        let mut booked: Vec<Booking> = Vec::new();
        for fact in &facts {
            let credit = match fact {
                Fact::Document(its, corrections) if Oracle::total(its) < 0 => Some((its, corrections)),
                _ => None,
            };
            let before = credit.map(|(its, _)| open_invoices(&mut world, its));
            apply(&mut world, std::slice::from_ref(fact), 1);
            oracle.take(fact);
            check(&mut world, &oracle)?;
            if let (Some((its, corrections)), Some(before)) = (credit, before) {
                let mut after = open_invoices(&mut world, its);
                let offset = before.values().sum::<i64>() - after.values().sum::<i64>();
                let mut expected = oracle.offset(its, corrections, before, offset);
                for open in [&mut after, &mut expected] {
                    open.retain(|_, left| *left > 0);
                }
                prop_assert_eq!(after, expected, "{:?} corrects {:?}", its, corrections);
            }
            let now = world.bookings();
            prop_assert_eq!(&now[..booked.len()], &booked[..], "what was booked stays");
            booked = now;
        }
    }

    #[test]
    fn nothing_depends_on_how_payments_are_imported_or_when_rows_are_saved(
        facts in histories(), batch in 1..9usize, saves in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (mut one, mut other) = (World::default(), World::default());
        apply(&mut one, &facts, 1);
        one.save();
        let mut from = 0;
        for (n, _) in facts.iter().enumerate().filter(|(n, _)| saves[*n]) {
            apply(&mut other, &facts[from..n], batch);
            other.save();
            from = n;
        }
        apply(&mut other, &facts[from..], batch);
        other.save();
        prop_assert_eq!(one.saved, other.saved);
    }

    /// Where nothing is offset, the order of payments and documents does not matter either.
    #[test]
    fn without_credit_notes_the_order_of_payments_does_not_matter(facts in histories(), seed in any::<u64>()) {
        let mut facts: Vec<Fact> = facts.into_iter().filter(|fact| match fact {
            Fact::Document(its, _) => Oracle::total(its) > 0,
            Fact::Payment(_) => true,
            Fact::Undo(..) => false,
        }).collect();
        let result = |facts: &[Fact]| {
            let mut world = World::default();
            apply(&mut world, facts, 3);
            let documents: Vec<_> = world.books().documents(0).map(Result::unwrap).collect();
            let owners = debtors().into_iter().map(Some).chain([None]).collect::<Vec<_>>();
            let balances: Vec<_> =
                owners.iter().flat_map(|owner| currencies().map(|its| (owner.clone(), its))).map(|(owner, currency)| {
                    world.books().balance(owner.as_ref(), currency).unwrap()
                }).collect();
            (documents, balances)
        };
        let before = result(&facts);
        let mut state = seed;
        for n in (1..facts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            facts.swap(n, (state >> 33) as usize % (n + 1));
        }
        prop_assert_eq!(before, result(&facts));
    }
}
