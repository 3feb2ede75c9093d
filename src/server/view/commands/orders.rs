//! What operators' billing commands would do.

use super::{CommandJudge, Effect};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::tariff::{Amount, Money};
use crate::parking::{ChargeId, Event, Plate};
use crate::server::record::Command;
use crate::server::view::billing::entries::{BilledStay, BillingEntry, EntryKind, EntryNumber};
use crate::server::view::billing::list::PRICED_AT_ONCE;
use crate::server::view::refusal::{JudgeError, Refusal};
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct FoundCharge {
    pub number: EntryNumber,
    pub entry: BillingEntry,
}

impl CommandJudge<'_> {
    pub(super) fn order(&mut self, command: &Command) -> Result<Effect, JudgeError> {
        let in_force = &self.view.billing.in_force;
        Ok(match command {
            Command::RemovePlate { plate } => match Plate::stored(plate) {
                Ok(its) if in_force.registration(&its).is_some() => Effect::PutInForce,
                _ => return Err(Refusal::NoSuchPlate(plate.clone()).into()),
            },
            Command::RemoveContract { contract } => {
                match in_force.contracts().any(|known| known.name == *contract) {
                    true => Effect::PutInForce,
                    false => return Err(Refusal::NoSuchContract(contract.clone()).into()),
                }
            }
            Command::Tariffs { .. }
            | Command::Plates { .. }
            | Command::Contracts { .. }
            | Command::Erased => Effect::PutInForce,
            Command::Price { from, to } if to.saturating_sub(*from) > PRICED_AT_ONCE => {
                return Err(Refusal::TooManyEntries { from: *from, to: *to }.into());
            }
            Command::Price { .. } if in_force.tariffs().is_none() => return Err(Refusal::NoTariffs.into()),
            Command::Price { from, to } => Effect::Price { from: *from, to: *to },
            Command::Void { charge, .. } => Effect::TakeBack(self.charged(charge)?),
            Command::Credit { charge, amount, .. } => {
                Effect::Credit(self.credited(charge, *amount)?, Amount::of_minor(*amount))
            }
            Command::Forget { whose, seed } => {
                self.judge_forget(whose)?;
                Effect::Forget { whose: whose.clone(), seed: *seed }
            }
            _ => Effect::Nothing,
        })
    }

    fn credited(&mut self, charge: &ChargeId, amount: i64) -> Result<FoundCharge, JudgeError> {
        let found = self.charged(charge)?;
        let EntryKind::Stay(stay) = &found.entry.what else { unreachable!("only a stay is charged") };
        let (money, _) = stay.terms.money().expect("it is charged");
        let plate = stay.plate()?;
        let left = self.view.billing.left_of(found.number, money, &plate, &mut self.changes.billing)?;
        if amount <= 0 || amount > left.minor() {
            let left = Money { amount: left, ..money };
            let asked = Money { amount: Amount::of_minor(amount), ..money };
            return Err(Refusal::TooMuch { charge: charge.clone(), left, asked }.into());
        }
        Ok(found)
    }

    /// The charge with an id, unless it was voided.
    fn charged(&mut self, id: &ChargeId) -> Result<FoundCharge, JudgeError> {
        let found = self.find_charge(id)?.ok_or_else(|| Refusal::NoSuchCharge(id.clone()))?;
        let EntryKind::Stay(stay) = &found.entry.what else { unreachable!("an id names a stay") };
        match (stay.terms.money(), found.entry.settled_by) {
            (None, _) => Err(Refusal::NotCharged(id.clone()).into()),
            (Some(_), 1..) => Err(Refusal::TakenBack(id.clone()).into()),
            (Some(_), 0) => Ok(found),
        }
    }

    pub(super) fn find_charge(&mut self, id: &ChargeId) -> Result<Option<FoundCharge>, StoreError> {
        let view = self.view;
        let Ok(garage) = SiteName::new(&id.garage) else { return Ok(None) };
        let key = view.key_of(&garage);
        let Some(number) = view.garages.get(key).map(|garage| garage.stays.number) else { return Ok(None) };
        let epoch = Epoch::from_bytes(id.epoch);
        for site in view.sites_of(key) {
            let Some((stream, page)) = self.ledger.page_with(&site, epoch, id.sequence)? else { continue };
            let Content::Records(records) = &page.page.content else { continue };
            let Some(index) = id.sequence.checked_sub(page.page.first.get()) else { continue };
            let Some(record) = records.get(index as usize) else { continue };
            let read_first =
                Event::from_bytes(&record.payload).ok().and_then(|event| event.kind.plate().cloned());
            let corrected = self.changes.reading((page.position, (index / 16) as u8), index as u8)?;
            let corrected = corrected.and_then(|plate| Plate::stored(&plate).ok());
            for plate in corrected.iter().chain(&read_first) {
                let is = |_: &BillingEntry, stay: &BilledStay| {
                    stay.garage == number
                        && stay.exit.stream() == stream
                        && stay.exit.sequence == id.sequence
                        && (stay.made_at != stay.exit.position).then_some(stay.made_at) == id.made_at
                };
                if let Some((number, entry)) = view.billing.find(plate, is, &mut self.changes.billing)? {
                    return Ok(Some(FoundCharge { number, entry }));
                }
            }
        }
        Ok(None)
    }
}
