//! Forgetting plates: a random token stands for one in stays and charges.
//!
//! **Promise.** Amounts, dates and garages stay, and so do all sums. Under one seed the same plate has the same token within a
//! month, and nobody can tell from a token which plate it was once the seed is erased.
//! **Kept by.** A token is drawn by a keyed hash; the key, the seed, stands in the command that ordered it, and `server compact`
//! erases it.
//! **Not promised.** That the events in the ledger lose their plates before that, or backups ever.

use super::super::pages::{Head, TOKEN_LEN, is_token};
use super::super::{Changes, View};
use super::entries::{Entry, Number, Terms, What};
use super::list::FORGOTTEN_AT_ONCE;
use super::orders::NoOrder;
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::parking::stay::{End, Visit};
use crate::server::record::ToForget;
use crate::store::StoreError;

/// The token of a plate in a month.
fn token(seed: &[u8; 16], plate: &str, month: Month) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut key = [0; 32];
    key[..16].copy_from_slice(seed);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(month.to_string().as_bytes()).update(plate.as_bytes());
    let hash = hasher.finalize();
    let letters =
        hash.as_bytes()[..TOKEN_LEN - 1].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    std::iter::once('~').chain(letters).collect()
}

/// Whether an entry may be forgotten: it has a price, or nothing is to be had from it any more.
pub(super) fn is_done(entry: &Entry) -> bool {
    match &entry.what {
        What::Stay(stay) => entry.settled_by != 0 || !matches!(stay.terms, Terms::Pending | Terms::Held(_)),
        What::Void { .. } | What::Credit { .. } => false, // they name no plate
    }
}

impl View {
    /// Whether a plate may be forgotten now.
    pub(super) fn judge_forget(
        &self,
        whose: &ToForget,
        changes: &mut Changes,
    ) -> Result<Result<(), NoOrder>, StoreError> {
        let text = match whose {
            ToForget::Plate(text) => text,
            ToForget::Charged { from, to, .. } if to.saturating_sub(*from) > FORGOTTEN_AT_ONCE => {
                return Ok(Err(NoOrder::TooManyEntries { from: *from, to: *to }));
            }
            ToForget::Charged { .. } => return Ok(Ok(())),
        };
        let Ok(plate) = Plate::stored(text) else { return Ok(Err(NoOrder::NothingToForget(text.clone()))) };
        if self.billing.in_force.names(&plate) {
            return Ok(Err(NoOrder::Registered(text.clone())));
        }
        if self.stays.is_inside_anywhere(&plate, changes)? {
            return Ok(Err(NoOrder::Inside(text.clone())));
        }
        let entries = self.of_plate(&plate, changes)?;
        if entries.iter().any(|(_, entry)| matches!(entry.what, What::Stay(_)) && !is_done(entry)) {
            return Ok(Err(NoOrder::Unbilled(text.clone())));
        }
        match entries.is_empty() && self.stays.of_plate(&plate, changes)?.is_empty() {
            true => Ok(Err(NoOrder::NothingToForget(text.clone()))),
            false => Ok(Ok(())),
        }
    }

    /// Lets tokens stand for the plates.
    pub(super) fn forget(
        &mut self,
        whose: &ToForget,
        seed: &[u8; 16],
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        match whose {
            ToForget::Plate(text) => {
                let Ok(plate) = Plate::stored(text) else { return Ok(()) };
                for (number, entry) in self.of_plate(&plate, changes)? {
                    self.forget_entry(number, &entry, seed, changes)?;
                }
                // What never became a charge.
                for (address, visit) in self.stays.of_plate(&plate, changes)? {
                    let first = *visit.first();
                    let month = Month::of(super::date(first, None)).unwrap_or(Month::EPOCH);
                    changes.forget(address, &token(seed, plate.as_str(), month))?;
                }
                changes.billing.forget_anomalies(&plate, &token(seed, plate.as_str(), Month::EPOCH))?;
            }
            ToForget::Charged { from, to, before } => {
                for number in (*from).max(1)..(*to).min(self.billing.end()) {
                    let Some(entry) = self.billing.entry_if_any(number, &mut changes.billing)? else {
                        continue;
                    };
                    if entry.month < *before && is_done(&entry) {
                        self.forget_entry(number, &entry, seed, changes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets a token stand for the plate of an entry, and of its stay.
    fn forget_entry(
        &mut self,
        number: Number,
        entry: &Entry,
        seed: &[u8; 16],
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let What::Stay(stay) = &entry.what else { return Ok(()) };
        if is_token(&stay.plate) {
            return Ok(());
        }
        let token = token(seed, &stay.plate, entry.month);
        let plate = super::stored_plate(&stay.plate)?;
        let visit = Visit::Stay { entry: stay.entry, end: End::Left(stay.exit) };
        for (address, its) in self.stays.of_plate(&plate, changes)? {
            if address.garage == stay.garage && its == visit {
                changes.forget(address, &token)?;
            }
        }
        self.billing.put_token(number, &token, &mut changes.billing)
    }

    /// The entries of stays of a plate.
    fn of_plate(&self, plate: &Plate, changes: &mut Changes) -> Result<Vec<(Number, Entry)>, StoreError> {
        let mut found = Vec::new();
        let mut next = self.billing.heads.get(Head::of(plate));
        while next != 0 {
            let entry = self.billing.entry(next, &mut changes.billing)?;
            let before = entry.before_of_plate;
            if matches!(&entry.what, What::Stay(stay) if *stay.plate == *plate.as_str()) {
                found.push((next, entry));
            }
            next = before;
        }
        Ok(found)
    }
}
