//! What changed in the books of money and is not written yet, and reading through it.

use super::super::codec::{encode, read};
use super::super::pages::SlotAddress;
use super::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::documents::{DocumentChanges, DocumentRow};
use super::forgettings::{self, Forgetting};
use super::frozen::FrozenStays;
use super::histories::Histories;
use super::issued::IssuedBooks;
use super::receivables::{self, ReceivablesRows};
use super::recorder::DraftRecorder;
use super::rules::RulesChanges;
use super::totals::{self, Totals};
use crate::parking::receivables::{Receivables, RowChanges};
use crate::parking::{Month, Plate};
use crate::store::{Batch, Store, StoreError};
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
    months: BTreeMap<(u32, Month), Totals>,
    pub(in crate::server::view) frozen: FrozenStays,
    pub(in crate::server::view) forgettings: BTreeMap<Vec<u8>, Forgetting>,
    /// Visits that may have to be forgotten once what changed them is applied.
    pub(in crate::server::view) to_forget: BTreeMap<SlotAddress, Plate>,
    /// How often each anomaly happened.
    counts: BTreeMap<AnomalyKey, u64>,
    /// `None`: it did not happen after all.
    facts: BTreeMap<(AnomalyKey, AnomalyFact), Option<u64>>,
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
            months: BTreeMap::new(),
            frozen: FrozenStays::on(store),
            forgettings: BTreeMap::new(),
            to_forget: BTreeMap::new(),
            counts: BTreeMap::new(),
            facts: BTreeMap::new(),
        }
    }

    pub fn writes(&self) -> usize {
        let books = self.accounts.len() + self.garages.len() + self.months.len();
        books
            + self.rules.writes()
            + self.histories.writes()
            + self.issued.writes()
            + self.frozen.writes()
            + self.forgettings.len()
            + self.receivables_changes.len()
            + self.documents.writes()
            + self.counts.len()
            + self.facts.len()
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

    pub(super) fn month_mut(&mut self, account: u32, month: Month) -> Result<&mut Totals, StoreError> {
        if !self.months.contains_key(&(account, month)) {
            let known = totals::read_month(&self.store, account, month)?.unwrap_or_default();
            self.months.insert((account, month), known);
        }
        Ok(self.months.get_mut(&(account, month)).expect("it was just put there"))
    }

    fn count_mut(&mut self, anomaly: &AnomalyKey) -> Result<&mut u64, StoreError> {
        if !self.counts.contains_key(anomaly) {
            let known = read(&self.store, &anomaly.key())?.unwrap_or_default();
            self.counts.insert(anomaly.clone(), known);
        }
        Ok(self.counts.get_mut(anomaly).expect("it was just put there"))
    }

    pub(in crate::server::view) fn happened(
        &self,
        anomaly: &AnomalyKey,
        fact: AnomalyFact,
    ) -> Result<bool, StoreError> {
        match self.facts.get(&(anomaly.clone(), fact)) {
            Some(changed) => Ok(changed.is_some()),
            None => Ok(self.store.get(&anomaly.fact_key(fact))?.is_some()),
        }
    }

    /// Notes that something did not add up, at a position of the ledger.
    pub fn note(&mut self, anomaly: AnomalyKey, fact: AnomalyFact, position: u64) -> Result<(), StoreError> {
        *self.count_mut(&anomaly)? += 1;
        self.facts.insert((anomaly, fact), Some(position));
        Ok(())
    }

    /// Notes that decisions wait for what they are about, each with its position and the time of its command. The garage is new.
    pub fn wait_for_facts(&mut self, garage: u32, decisions: impl Iterator<Item = (u64, i64)>) {
        let anomaly = AnomalyKey::of_garage(AnomalyCode::DecisionWithoutEffect, garage);
        for (position, at_ms) in decisions {
            *self.counts.entry(anomaly.clone()).or_default() += 1;
            let fact = AnomalyFact::of_decision(position, at_ms);
            self.facts.insert((anomaly.clone(), fact), Some(position));
        }
    }

    /// Notes that it adds up after all.
    pub fn take_back(&mut self, anomaly: AnomalyKey, fact: AnomalyFact) -> Result<(), StoreError> {
        let count = self.count_mut(&anomaly)?;
        *count = count.saturating_sub(1);
        self.facts.insert((anomaly, fact), None);
        Ok(())
    }

    pub(super) fn save(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        for ((account, month), of_month) in std::mem::take(&mut self.months) {
            let key = totals::month_key(account, month);
            if of_month.is_empty() { batch.remove(key) } else { batch.put(key, encode(&of_month)) }
        }
        self.frozen.drain(batch)?;
        for (key, forgetting) in std::mem::take(&mut self.forgettings) {
            batch.put(forgettings::stored_key(&key), encode(&forgetting));
        }
        for (anomaly, count) in std::mem::take(&mut self.counts) {
            if count == 0 { batch.remove(anomaly.key()) } else { batch.put(anomaly.key(), encode(&count)) }
        }
        for ((anomaly, fact), position) in std::mem::take(&mut self.facts) {
            let key = anomaly.fact_key(fact);
            match position {
                Some(position) => batch.put(key, encode(&position)),
                None => batch.remove(key),
            }
        }
        self.histories.drain(batch);
        self.issued.drain(batch);
        receivables::drain(&mut self.receivables_changes, batch);
        self.documents.drain(batch);
        Ok(())
    }
}
