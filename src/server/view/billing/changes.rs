//! What changed in the books of money and is not written yet, and reading through it.

use super::super::pages::{SlotAddress, StoredPassage};
use super::super::unwritten::Unwritten;
use super::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::documents::{DocumentChanges, DocumentRow};
use super::draft::Draft;
use super::forgettings::Forgetting;
use super::frozen::FrozenStays;
use super::histories::Histories;
use super::issued::IssuedBooks;
use super::receivables::{self, ReceivablesRows};
use super::recorder::DraftRecorder;
use super::rules::RulesChanges;
use super::totals::{self, Sign, Totals};
use crate::parking::Plate;
use crate::parking::receivables::{Receivables, RowChanges};
use crate::store::{Batch, Store, StoreError};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub struct BillingChanges {
    store: Store,
    pub(in crate::server::view) rules: RulesChanges,
    pub(super) accounts: BTreeSet<u32>,
    pub(super) garages: BTreeSet<u32>,
    pub(in crate::server::view) histories: Histories,
    receivables_rows: ReceivablesRows,
    receivables_changes: RowChanges,
    pub issued: IssuedBooks,
    pub(in crate::server::view) documents: DocumentChanges,
    /// Follows which drafts change, where somebody asks.
    pub recorder: Option<DraftRecorder>,
    months: Unwritten<Totals>,
    days: Unwritten<Totals>,
    pub(in crate::server::view) frozen: FrozenStays,
    pub(in crate::server::view) forgettings: Unwritten<Forgetting>,
    /// Visits that may have to be forgotten once what changed them is applied.
    pub(in crate::server::view) to_forget: BTreeMap<SlotAddress, Plate>,
    /// How often each anomaly happened.
    counts: Unwritten<u64>,
    /// The positions of what did not add up.
    facts: Unwritten<u64>,
}

impl BillingChanges {
    pub fn on(store: &Store) -> BillingChanges {
        BillingChanges {
            store: store.clone(),
            rules: RulesChanges::default(),
            accounts: BTreeSet::new(),
            garages: BTreeSet::new(),
            histories: Histories::on(store),
            issued: IssuedBooks::on(store),
            receivables_rows: ReceivablesRows::on(store),
            receivables_changes: RowChanges::new(),
            documents: DocumentChanges::default(),
            recorder: None,
            months: Unwritten::on(store),
            days: Unwritten::on(store),
            frozen: FrozenStays::on(store),
            forgettings: Unwritten::on(store),
            to_forget: BTreeMap::new(),
            counts: Unwritten::on(store),
            facts: Unwritten::on(store),
        }
    }

    pub fn writes(&self) -> usize {
        let books = self.accounts.len() + self.garages.len() + self.months.writes() + self.days.writes();
        books
            + self.rules.writes()
            + self.histories.writes()
            + self.issued.writes()
            + self.frozen.writes()
            + self.forgettings.writes()
            + self.receivables_changes.len()
            + self.documents.writes()
            + self.counts.writes()
            + self.facts.writes()
    }

    /// What became of a number of the series, as it is now, written or not.
    pub fn document(&self, serial: u64) -> Result<Option<DocumentRow>, StoreError> {
        self.documents.row(&self.store, serial)
    }

    /// Open items, payments and the journal as they are now, written or not. A document is applied with
    /// [`Receivables::apply_document`] when it is issued.
    pub fn receivables(&mut self) -> Receivables<'_, ReceivablesRows> {
        Receivables::new(&self.receivables_rows, &mut self.receivables_changes)
    }

    /// Counts a draft in the month of its account.
    pub(super) fn count_in_month(
        &mut self,
        sign: Sign,
        account: u32,
        draft: &Draft,
    ) -> Result<(), StoreError> {
        self.months.change(totals::month_key(account, draft.month), |totals| totals.count(sign, draft))
    }

    /// Counts a draft in the day on which its stay ended in a garage.
    pub(in crate::server::view) fn count_in_day(
        &mut self,
        sign: Sign,
        (garage, day): (u32, Date),
        draft: &Draft,
    ) -> Result<(), StoreError> {
        self.days.change(totals::day_key(garage, day), |totals| totals.count(sign, draft))
    }

    pub(in crate::server::view) fn happened(
        &self,
        anomaly: &AnomalyKey,
        fact: AnomalyFact,
    ) -> Result<bool, StoreError> {
        Ok(self.facts.get(&anomaly.fact_key(fact))?.is_some())
    }

    /// Notes that something did not add up, at a position of the ledger, or that it adds up after all.
    pub fn note(
        &mut self,
        sign: Sign,
        anomaly: &AnomalyKey,
        fact: AnomalyFact,
        position: u64,
    ) -> Result<(), StoreError> {
        self.facts.put(anomaly.fact_key(fact), (sign == Sign::Add).then_some(position));
        self.counts.change(anomaly.key(), |count| match sign {
            Sign::Add => *count += 1,
            Sign::Subtract => *count = count.saturating_sub(1),
        })
    }

    /// The same of an entry or exit.
    pub fn note_passage(
        &mut self,
        sign: Sign,
        anomaly: AnomalyKey,
        passage: StoredPassage,
    ) -> Result<(), StoreError> {
        self.note(sign, &anomaly, AnomalyFact::of(passage), passage.position)
    }

    /// Notes that decisions wait for what they are about, each with its position and the time of its command. The garage is new.
    pub fn wait_for_facts(&mut self, garage: u32, decisions: impl Iterator<Item = (u64, i64)>) {
        let anomaly = AnomalyKey::of_garage(AnomalyCode::DecisionWithoutEffect, garage);
        for (position, at_ms) in decisions {
            *self.counts.begin(anomaly.key()) += 1;
            self.facts.put(anomaly.fact_key(AnomalyFact::of_decision(position, at_ms)), Some(position));
        }
    }

    pub(super) fn drain(&mut self, batch: &mut Batch) {
        self.months.drain(batch);
        self.days.drain(batch);
        self.frozen.drain(batch);
        self.forgettings.drain(batch);
        self.counts.drain(batch);
        self.facts.drain(batch);
        self.histories.drain(batch);
        self.issued.drain(batch);
        receivables::drain(&mut self.receivables_changes, batch);
        self.documents.drain(batch);
    }
}
