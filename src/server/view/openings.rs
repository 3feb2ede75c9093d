//! What the ledger says of whether a garage is open, and of whether it is full.
//!
//! | key | value |
//! | --- | --- |
//! | `vu` + name | a [`GarageOpening`]; none while nothing is said |
//!
//! A base of a compacted ledger that was made before there were such keys says the same without them.

use super::changes::ViewChanges;
use super::codec::{encode, name_in, read_range};
use crate::messaging::SiteName;
use crate::parking::garage::{GarageSays, OperatorSays};
use crate::parking::{Event, EventKind};
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};

/// What was said of a garage, each with the reason that was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarageOpening {
    pub operator: Option<(OperatorSays, Option<String>)>,
    pub garage: Option<(GarageSays, Option<String>)>,
    /// Since when it counts as full, by the time of the event; `None`: it does not.
    pub full_since_ms: Option<i64>,
}

impl GarageOpening {
    /// Takes what an event says of its garage.
    pub(super) fn heard(&mut self, event: &Event) {
        if let Some(says) = GarageSays::by(event) {
            let reason = match &event.kind {
                EventKind::Closed { reason } => reason.clone(),
                _ => None,
            };
            self.garage = Some((says, reason));
        }
    }
}

/// Notes that the opening of a garage is to be written, if it is another one than before.
pub(super) fn note(key: &SiteName, before: &GarageOpening, now: &GarageOpening, changes: &mut ViewChanges) {
    if now != before {
        changes.openings.insert(key.clone());
    }
}

pub(super) fn put(name: &SiteName, opening: &GarageOpening, batch: &mut Batch) {
    let key = [b"vu", name.as_str().as_bytes()].concat();
    match opening {
        opening if *opening == GarageOpening::default() => batch.remove(key),
        opening => batch.put(key, encode(opening)),
    }
}

pub(super) fn load(store: &Store) -> impl Iterator<Item = Result<(SiteName, GarageOpening), StoreError>> {
    read_range(store, b"vu", b"vv").map(|entry| {
        let (key, opening) = entry?;
        Ok((name_in(&key, 2)?, opening))
    })
}
