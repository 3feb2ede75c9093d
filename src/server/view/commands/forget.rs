//! Forgetting plates: a random token replaces a plate in stays and charges.
//!
//! **Promise.** Amounts, dates and garages stay, and so do all sums. Under one seed the same plate has the same token within a
//! month, and once the seed is erased a token does not reveal which plate it was.
//! **Kept by.** A token is drawn by a keyed hash; its key is the seed, which is stored in the command that ordered the
//! forgetting, and `server compact` erases it.
//! **Not promised.** That the events in the ledger lose their plates before that, or that backups ever lose them.

use super::CommandJudge;
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::parking::stay::{End, Visit};
use crate::server::record::ToForget;
use crate::server::view::billing::entries::{BillingEntry, EntryKind, EntryNumber};
use crate::server::view::billing::list::FORGOTTEN_AT_ONCE;
use crate::server::view::changes::ViewChanges;
use crate::server::view::pages::{SlotChange, TOKEN_LEN, is_token};
use crate::server::view::refusal::{JudgeError, Refusal};
use crate::server::view::state::View;
use crate::store::StoreError;

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

impl CommandJudge<'_> {
    pub(super) fn judge_forget(&mut self, whose: &ToForget) -> Result<(), JudgeError> {
        let View { billing, stays, .. } = self.view;
        let text = match whose {
            ToForget::Plate(text) => text,
            ToForget::Charged { from, to, .. } if to.saturating_sub(*from) > FORGOTTEN_AT_ONCE => {
                return Err(Refusal::TooManyEntries { from: *from, to: *to }.into());
            }
            ToForget::Charged { .. } => return Ok(()),
        };
        let Ok(plate) = Plate::stored(text) else {
            return Err(Refusal::NothingToForget(text.clone()).into());
        };
        if billing.in_force.names(&plate) {
            return Err(Refusal::Registered(text.clone()).into());
        }
        if stays.is_inside_anywhere(&plate, self.changes)? {
            return Err(Refusal::Inside(text.clone()).into());
        }
        let entries: Vec<_> =
            billing.stays_of(&plate, &mut self.changes.billing).collect::<Result<_, _>>()?;
        if entries.iter().any(|(_, entry)| !entry.is_done()) {
            return Err(Refusal::Unbilled(text.clone()).into());
        }
        match entries.is_empty() && stays.of_plate(&plate, self.changes)?.is_empty() {
            true => Err(Refusal::NothingToForget(text.clone()).into()),
            false => Ok(()),
        }
    }
}

impl View {
    pub(super) fn forget(
        &mut self,
        whose: &ToForget,
        seed: &[u8; 16],
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        match whose {
            ToForget::Plate(text) => {
                let Ok(plate) = Plate::stored(text) else { return Ok(()) };
                let entries: Vec<_> =
                    self.billing.stays_of(&plate, &mut changes.billing).collect::<Result<_, _>>()?;
                for (number, entry) in entries {
                    self.forget_entry(number, &entry, seed, changes)?;
                }
                // What never became a charge.
                for (address, visit) in self.stays.of_plate(&plate, changes)? {
                    let first = *visit.first();
                    let month = Month::of(first.date(None)).unwrap_or(Month::EPOCH);
                    changes.change(address, SlotChange::Forget(token(seed, plate.as_str(), month).into()))?;
                }
                changes.billing.forget_anomalies(&plate, &token(seed, plate.as_str(), Month::EPOCH))?;
            }
            ToForget::Charged { from, to, before } => {
                for number in (*from).max(1)..(*to).min(self.billing.end()) {
                    let Some(entry) = self.billing.entry_if_any(number, &mut changes.billing)? else {
                        continue;
                    };
                    if entry.month < *before && entry.is_done() {
                        self.forget_entry(number, &entry, seed, changes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Replaces the plate of an entry, and of its stay, by a token.
    fn forget_entry(
        &mut self,
        number: EntryNumber,
        entry: &BillingEntry,
        seed: &[u8; 16],
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let EntryKind::Stay(stay) = &entry.what else { return Ok(()) };
        if is_token(&stay.plate) {
            return Ok(());
        }
        let token = token(seed, &stay.plate, entry.month);
        let plate = stay.plate()?;
        let visit = Visit::Stay { entry: stay.entry, end: End::Left(stay.exit) };
        for (address, its) in self.stays.of_plate(&plate, changes)? {
            if address.garage == stay.garage && its == visit {
                changes.change(address, SlotChange::Forget(token.as_str().into()))?;
            }
        }
        self.billing.put_token(number, &token, &mut changes.billing)
    }
}
