//! What the fold changed in the books of money and has not written yet, and reading through it.

use super::Billing;
use super::anomalies::{self, Anomaly, AnomalyCode, key};
use super::entries::{self, Entry, MonthBook};
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::store::{Batch, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug)]
pub struct BillingChanges {
    store: Store,
    pub(super) accounts: BTreeSet<u32>,
    pub(super) heads: BTreeSet<u16>,
    /// Garages in which money was taken.
    pub(super) taken: BTreeSet<u32>,
    /// Whole pages that are not the newest.
    pub(super) pages: BTreeMap<u64, Vec<Entry>>,
    /// Whether the newest page changed.
    pub(super) tail: bool,
    /// Pages of what is in force.
    pub(super) in_force: BTreeSet<u32>,
    months: BTreeMap<(u32, Month), MonthBook>,
    /// `None`: it is told under a token now.
    anomalies: BTreeMap<Vec<u8>, Option<Anomaly>>,
    /// The page that was read last and is not changed: chains often stay in one.
    seen: Option<(u64, Vec<Entry>)>,
}

impl BillingChanges {
    pub fn on(store: &Store) -> BillingChanges {
        BillingChanges {
            store: store.clone(),
            accounts: BTreeSet::new(),
            heads: BTreeSet::new(),
            taken: BTreeSet::new(),
            pages: BTreeMap::new(),
            tail: false,
            in_force: BTreeSet::new(),
            months: BTreeMap::new(),
            anomalies: BTreeMap::new(),
            seen: None,
        }
    }

    /// How many writes it comes to.
    pub fn writes(&self) -> usize {
        let books = self.accounts.len() + self.months.len() + self.anomalies.len() + self.taken.len();
        books + self.heads.len() + self.pages.len() + usize::from(self.tail) + self.in_force.len()
    }

    pub(super) fn page(&mut self, page: u64) -> Result<&[Entry], StoreError> {
        if let Some(changed) = self.pages.get(&page) {
            return Ok(changed);
        }
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != page) {
            self.seen = Some((page, entries::read_page(&self.store, page)?));
        }
        Ok(&self.seen.as_ref().expect("it was just read").1)
    }

    pub(super) fn page_mut(&mut self, page: u64) -> Result<&mut Vec<Entry>, StoreError> {
        self.seen = None;
        if !self.pages.contains_key(&page) {
            self.pages.insert(page, entries::read_page(&self.store, page)?);
        }
        Ok(self.pages.get_mut(&page).expect("it was just put there"))
    }

    pub(super) fn month_mut(&mut self, account: u32, month: Month) -> Result<&mut MonthBook, StoreError> {
        if !self.months.contains_key(&(account, month)) {
            let book = entries::read_month(&self.store, account, month)?.unwrap_or_default();
            self.months.insert((account, month), book);
        }
        Ok(self.months.get_mut(&(account, month)).expect("it was just put there"))
    }

    /// Something did not add up.
    pub fn note(
        &mut self,
        code: AnomalyCode,
        garage: u32,
        plate: Option<&Plate>,
        at_ms: i64,
        position: u64,
    ) -> Result<(), StoreError> {
        let key = key(code, garage, plate);
        let anomaly = match self.anomalies.get_mut(&key) {
            Some(anomaly) => anomaly.get_or_insert_default(),
            None => {
                let known =
                    self.store.get(&key)?.map(|value| super::super::decode(&key, &value)).transpose()?;
                self.anomalies
                    .entry(key)
                    .or_insert_with(|| Some(known.unwrap_or_default()))
                    .get_or_insert_default()
            }
        };
        anomaly.happened(at_ms, position);
        Ok(())
    }

    /// Lets a token stand for a plate in what did not add up.
    pub(super) fn forget_anomalies(&mut self, plate: &Plate, token: &str) -> Result<(), StoreError> {
        let is_of = |key: &[u8]| key.get(anomalies::PLATE_AT..) == Some(plate.as_str().as_bytes());
        let mut found: BTreeMap<Vec<u8>, Anomaly> = BTreeMap::new();
        for entry in self.store.range(b"vbn", b"vbo") {
            let (key, value) = entry?;
            if is_of(&key) && !self.anomalies.contains_key(&key) {
                let anomaly = super::super::decode(&key, &value)?;
                found.insert(key, anomaly);
            }
        }
        let waiting = self.anomalies.iter().filter(|(key, _)| is_of(key));
        found.extend(waiting.filter_map(|(key, anomaly)| Some((key.clone(), anomaly.clone()?))));
        for (key, anomaly) in found {
            let under_token = [&key[..anomalies::PLATE_AT], token.as_bytes()].concat();
            self.anomalies.insert(key, None);
            self.anomalies.insert(under_token, Some(anomaly));
        }
        Ok(())
    }

    /// Puts everything that changed into `batch`; it is changed no more.
    pub fn drain(&mut self, billing: &Billing, batch: &mut Batch) {
        self.seen = None;
        for account in std::mem::take(&mut self.accounts) {
            batch.put(
                entries::account_key(account),
                super::super::encode(
                    billing.account_book(account).expect("an account that changed is known"),
                ),
            );
        }
        for garage in std::mem::take(&mut self.taken) {
            let key = [b"vbg", &garage.to_be_bytes()[..]].concat();
            batch.put(key, super::super::encode(&billing.taken(garage)));
        }
        for page in std::mem::take(&mut self.heads) {
            let (key, value) = billing.heads.entry(page);
            batch.put(key, value);
        }
        for (page, entries) in std::mem::take(&mut self.pages) {
            batch.put(entries::page_key(page), entries::encode_page(&entries));
        }
        if std::mem::take(&mut self.tail) {
            batch.put(entries::page_key(billing.tail_page), entries::encode_page(&billing.tail));
        }
        for page in std::mem::take(&mut self.in_force) {
            billing.in_force.save(page, batch);
        }
        for ((account, month), book) in std::mem::take(&mut self.months) {
            batch.put(entries::month_key(account, month), super::super::encode(&book));
        }
        for (key, anomaly) in std::mem::take(&mut self.anomalies) {
            match anomaly {
                Some(anomaly) => batch.put(key, super::super::encode(&anomaly)),
                None => batch.remove(key),
            }
        }
    }
}
