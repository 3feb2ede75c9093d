//! What changed in the books of money and is not written yet, and reading through it.

use super::super::codec::{LastPage, encode, read, read_range};
use super::anomalies::{self, Anomaly, AnomalyCode, key};
use super::entries::{self, BillingEntry, MonthBook};
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::store::{Batch, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub struct BillingChanges {
    store: Store,
    pub(super) accounts: BTreeSet<u32>,
    pub(super) heads: BTreeSet<u16>,
    pub(super) taken: BTreeSet<u32>,
    pub(super) pages: BTreeMap<u64, Vec<BillingEntry>>,
    pub(super) tail: bool,
    /// Pages of what is in force.
    pub(super) in_force: BTreeSet<u32>,
    months: BTreeMap<(u32, Month), MonthBook>,
    /// `None`: it is listed under a token now.
    anomalies: BTreeMap<Vec<u8>, Option<Anomaly>>,
    last_read: LastPage<u64, BillingEntry>,
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
            last_read: LastPage::default(),
        }
    }

    pub fn writes(&self) -> usize {
        let books = self.accounts.len() + self.months.len() + self.anomalies.len() + self.taken.len();
        books + self.heads.len() + self.pages.len() + usize::from(self.tail) + self.in_force.len()
    }

    pub(super) fn page(&mut self, page: u64) -> Result<&[BillingEntry], StoreError> {
        if let Some(changed) = self.pages.get(&page) {
            return Ok(changed);
        }
        self.last_read.get(page, || entries::read_page(&self.store, page))
    }

    pub(super) fn page_mut(&mut self, page: u64) -> Result<&mut Vec<BillingEntry>, StoreError> {
        self.last_read.forget();
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
                let known = read(&self.store, &key)?.unwrap_or_default();
                self.anomalies.entry(key).or_insert(Some(known)).get_or_insert_default()
            }
        };
        anomaly.happened(at_ms, position);
        Ok(())
    }

    pub fn forget_anomalies(&mut self, plate: &Plate, token: &str) -> Result<(), StoreError> {
        let is_of = |key: &[u8]| key.get(anomalies::PLATE_AT..) == Some(plate.as_str().as_bytes());
        let mut found: BTreeMap<Vec<u8>, Anomaly> = BTreeMap::new();
        for entry in read_range(&self.store, b"vbn", b"vbo") {
            let (key, anomaly) = entry?;
            if is_of(&key) && !self.anomalies.contains_key(&key) {
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

    pub(super) fn save_pages(&mut self, batch: &mut Batch) {
        self.last_read.forget();
        for (page, entries) in std::mem::take(&mut self.pages) {
            batch.put(entries::page_key(page), entries::encode_page(&entries));
        }
        for ((account, month), book) in std::mem::take(&mut self.months) {
            batch.put(entries::month_key(account, month), encode(&book));
        }
        for (key, anomaly) in std::mem::take(&mut self.anomalies) {
            match anomaly {
                Some(anomaly) => batch.put(key, encode(&anomaly)),
                None => batch.remove(key),
            }
        }
    }
}
