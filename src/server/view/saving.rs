//! Opens, loads and saves the views as a whole.

use super::base;
use super::billing::Billing;
use super::changes::ViewChanges;
use super::charges;
use super::codec::{encode, key_u64, name_in, read_range, u64_from};
use super::curves::Curves;
use super::decisions::Decisions;
use super::openings;
use super::state::View;
use super::stays::StayIndex;
use super::written::{KEYS, POSITION, discard, position_value, written_damages, written_position};
use crate::codes;
use crate::server::ledger::Ledger;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};

impl View {
    /// Reads the views as they were written last; the records behind them are applied later. Views of another version, and views
    /// that cannot be read, are dropped and rebuilt.
    pub fn open(store: &Store, ledger: &Ledger) -> Result<View, StoreError> {
        let why = match written_position(store)? {
            Some(_) => match View::load(store, ledger) {
                Err(error @ StoreError::Damaged { .. }) => error.to_string(),
                loaded => return loaded,
            },
            None if store.range(KEYS.0, KEYS.1).next().is_none() => return View::begin(ledger, store),
            None => "they are of another version of this program, or were being dropped".to_owned(),
        };
        tracing::warn!(
            code = %codes::VIEWS_REBUILT,
            reason = why,
            hint = "answers are behind until the views have caught up; a million events take some seconds",
            "the views are rebuilt from the ledger"
        );
        discard(store)?;
        View::begin(ledger, store)
    }

    /// The views before anything is applied to them: those of the ledger's base, if it has one, put into `store`; else none.
    pub fn begin(ledger: &Ledger, store: &Store) -> Result<View, StoreError> {
        if !base::copy_into(ledger.store(), store)? {
            return Ok(View::default());
        }
        let view = View::load(store, ledger)?;
        // A base of form 2 has none.
        if store.range(b"vbr", b"vbs").next().is_none() {
            charges::write_days((&view.snapshot(), ledger), store)?;
        }
        Ok(view)
    }

    pub fn load(store: &Store, ledger: &Ledger) -> Result<View, StoreError> {
        let mut view = View::default();
        for entry in read_range(store, b"vg", b"vh") {
            let (key, garage) = entry?;
            view.put_garage(name_in(&key, 2)?, garage);
        }
        for entry in openings::load(store) {
            let (key, opening) = entry?;
            if let Some(garage) = view.garages.get_mut(&key) {
                garage.opening = opening;
            }
        }
        for entry in read_range(store, b"vh", b"vi") {
            let (key, range) = entry?;
            view.put_missing_range(u64_from(&key, 2)?, range);
        }
        view.position = written_position(store)?.unwrap_or_default();
        view.damages = written_damages(store)?.into_iter().collect();
        for entry in read_range(store, b"vq", b"vr") {
            let (key, quarantined) = entry?;
            view.quarantine.insert_mut(u64_from(&key, 2)?, quarantined);
        }
        view.decisions = Decisions::load(store)?;
        let garages = view.garages.values().map(|garage| garage.stays.number as usize + 1).max();
        let billed = view.garages.iter().map(|(key, garage)| {
            (garage.stays.number, key.clone(), view.decisions.other_names(key).to_vec())
        });
        view.billing = Billing::load(store, ledger, billed)?;
        view.curves = Curves::load(store)?;
        view.stays = StayIndex::load(store, garages.unwrap_or_default())?;
        Ok(view)
    }

    /// Writes what changed together with the position reached. It is durable with the next flush; after a crash before that the records are applied again.
    pub fn save(&self, changes: &mut ViewChanges) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for name in std::mem::take(&mut changes.garages) {
            batch.put([b"vg", name.as_str().as_bytes()].concat(), encode(&self.garages[&name]));
        }
        for name in std::mem::take(&mut changes.openings) {
            openings::put(&name, &self.garages[&name].opening, &mut batch);
        }
        for position in std::mem::take(&mut changes.missing_ranges) {
            batch.put(key_u64(b"vh", position), encode(&self.missing_ranges()[&position]));
        }
        for position in std::mem::take(&mut changes.damages) {
            batch.put(key_u64(b"vd", position), encode(&self.damages[&position]));
        }
        for position in std::mem::take(&mut changes.quarantine) {
            let key = key_u64(b"vq", position);
            match self.quarantine.get(&position) {
                Some(waiting) => batch.put(key, encode(waiting)),
                None => batch.remove(key),
            }
        }
        self.decisions.save(&std::mem::take(&mut changes.decisions), &mut batch);
        self.stays.drain(changes, &mut batch)?;
        changes.curves.drain(&self.curves, &mut batch);
        self.billing.save(&mut changes.billing, &mut batch);
        let reached = position_value(self.position);
        let store = changes.store.clone();
        if batch.len() < BATCH_MAX {
            batch.put(POSITION, reached);
            return store.apply(&batch);
        }
        // One step may change more than a batch holds: a page of corrections that re-rate, the pricing of what waited. Until the
        // last batch is written the views have no position: a crash in between drops them, and they are rebuilt.
        store.remove(POSITION)?;
        let mut writes = batch.writes().peekable();
        while writes.peek().is_some() {
            let mut part = Batch::default();
            for (key, value) in writes.by_ref().take(BATCH_MAX) {
                match value {
                    Some(value) => part.put(key, value),
                    None => part.remove(key),
                }
            }
            store.apply(&part)?;
        }
        store.put(POSITION, &reached)
    }
}
