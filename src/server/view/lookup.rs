//! Finds closed stays by the ids of their charges.

use super::chains::{ChainHeads, PlateChain};
use super::changes::ViewChanges;
use super::event_decisions::decided_plate;
use super::pages::{FoundStay, Slot, SlotAddress, StoredPassage};
use super::state::{Snapshot, VisibleState};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{End, Visit};
use crate::parking::{ChargeId, Event, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::StreamId;
use crate::server::view::billing::issued::{ExitId, IssuedExit};
use crate::server::view::billing::rules::ChargeKey;
use crate::store::StoreError;

impl VisibleState {
    /// The charge that an id names. `None`: the garage in it cannot be a name of one.
    pub fn charge_key(&self, id: &ChargeId) -> Option<ChargeKey> {
        let name = SiteName::new(&id.garage).ok()?;
        let (epoch, made_at_ms) = (Epoch::from_bytes(id.epoch), id.made_at_ms);
        let exit = IssuedExit { epoch, sequence: id.sequence, made_at_ms };
        Some(ChargeKey { garage: self.key_of(&name).clone(), exit })
    }

    /// The closed stay of a charge. `newest` gives the newest member of the chain of a plate.
    pub(super) fn stay_of(
        &self,
        ledger: &Ledger,
        key: &ChargeKey,
        newest: impl Fn(&Plate) -> Result<Option<SlotAddress>, StoreError>,
        changes: &mut ViewChanges,
    ) -> Result<Option<FoundStay>, StoreError> {
        let Some(number) = self.garages.get(&key.garage).map(|garage| garage.stays.number) else {
            return Ok(None);
        };
        let IssuedExit { epoch, sequence, made_at_ms } = key.exit;
        for site in self.sites_of(&key.garage) {
            if let Some(forgotten) = self.forgotten_stay_of(ledger, &site, key.exit, changes)? {
                return Ok(Some(forgotten));
            }
            let Some((stream, page)) = ledger.page_with(&site, epoch, sequence)? else { continue };
            let Content::Records(records) = &page.page.content else { continue };
            let Some(index) = sequence.checked_sub(page.page.first.get()) else { continue };
            let Some(record) = records.get(index as usize) else { continue };
            let read_first =
                Event::from_bytes(&record.payload).ok().and_then(|event| event.kind.plate().cloned());
            let corrected = changes.reading((page.position, (index / 16) as u8), index as u8)?;
            let corrected = corrected.and_then(|plate| Plate::stored(&plate).ok());
            let decided = decided_plate(self.decisions.of_event(&site, (epoch, sequence)));
            for plate in decided.into_iter().chain(corrected).chain(read_first) {
                let is_it = |address: SlotAddress, exit: StoredPassage| {
                    address.garage == number && ExitId::of(exit) == ExitId { stream, sequence, made_at_ms }
                };
                let found = find_stay(newest(&plate)?, plate.as_str(), is_it, changes)?;
                if let Some((address, visit)) = found {
                    return Ok(Some(FoundStay { plate: plate.as_str().into(), address, visit }));
                }
            }
        }
        Ok(None)
    }

    /// The closed stay of a charge whose plate was forgotten; the token is in place of the plate.
    fn forgotten_stay_of(
        &self,
        ledger: &Ledger,
        site: &SiteName,
        IssuedExit { epoch, sequence, made_at_ms }: IssuedExit,
        changes: &mut ViewChanges,
    ) -> Result<Option<FoundStay>, StoreError> {
        let stream = StreamId { site: site.clone(), epoch };
        let Some(stream) = ledger.number_of(&stream) else { return Ok(None) };
        let exit = ExitId { stream, sequence, made_at_ms };
        let Some(address) = changes.billing.frozen.slot_of(exit)? else { return Ok(None) };
        Ok(match changes.slot(address)?.visit.clone() {
            Some((plate, visit @ Visit::Stay { end: End::Left(its), .. })) if ExitId::of(its) == exit => {
                Some(FoundStay { plate, address, visit })
            }
            _ => None,
        })
    }
}

/// The closed stay of a charge, as the views are written.
pub fn written_stay(
    (view, ledger): (&Snapshot, &Ledger),
    key: &ChargeKey,
) -> Result<Option<FoundStay>, StoreError> {
    let store = ledger.store();
    let newest = |plate: &Plate| ChainHeads::read(store, PlateChain::of(plate));
    view.stay_of(ledger, key, newest, &mut ViewChanges::on(store))
}

/// A stay by the chain of its plate, as the views stand with what is not written yet.
pub fn find_stay(
    newest: Option<SlotAddress>,
    plate: &str,
    is_wanted: impl Fn(SlotAddress, StoredPassage) -> bool,
    changes: &mut ViewChanges,
) -> Result<Option<(SlotAddress, Visit<StoredPassage>)>, StoreError> {
    for member in changes.chain(newest, Slot::clone) {
        let (address, slot) = member?;
        if let Some((its, visit @ Visit::Stay { end: End::Left(exit), .. })) = &slot.visit
            && **its == *plate
            && is_wanted(address, *exit)
        {
            return Ok(Some((address, visit.clone())));
        }
    }
    Ok(None)
}
