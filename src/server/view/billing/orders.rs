//! What operators order in the books of money: judged before it is recorded, and folded at its position.

use super::super::pages::Head;
use super::super::{Changes, View};
use super::entries::{Entry, Number, Stay, VoidedBecause, What};
use super::list::PRICED_AT_ONCE;
use super::terms::Order;
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::tariff::{Amount, Money};
use crate::parking::{ChargeId, Event, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::view::commands::Refusal;
use crate::store::StoreError;

/// Why an order in the books of money makes no sense. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoOrder {
    #[error("the plate {0} is not registered; \"server plates list\" shows those that are")]
    NoSuchPlate(String),
    #[error("there is no contract {0:?}; \"server contracts list\" shows those that there are")]
    NoSuchContract(String),
    #[error(
        "no tariffs are in force: give them in the file that --config names, as [[tariff]], and start the server again"
    )]
    NoTariffs,
    #[error("there is no charge {0}; GET /v1/charges shows those that there are, with their ids")]
    NoSuchCharge(ChargeId),
    #[error("the stay of {0} was never charged, so there is nothing to give back")]
    NotCharged(ChargeId),
    #[error("the charge {0} was taken back already")]
    TakenBack(ChargeId),
    #[error("of the charge {charge} {left} are left: a credit is more than 0 and at most that, not {asked}")]
    TooMuch { charge: ChargeId, left: Money, asked: Money },
    #[error("the stay of {0} is not held")]
    NotHeld(ChargeId),
    #[error("no stay or charge has the plate {0}; nothing is to be forgotten, or it is already")]
    NothingToForget(String),
    #[error(
        "the plate {0} is registered, or in a contract: take it out first (\"server plates remove\", \"server contracts\"), so that it does not come back with the next stay"
    )]
    Registered(String),
    #[error("the car {0} is inside a garage; forget it when it has left")]
    Inside(String),
    #[error(
        "a stay of {0} has no price yet, or is held: it would be lost. GET /v1/charges?plate={0} shows it; price it, or bill it, and forget then"
    )]
    Unbilled(String),
    #[error(
        "it names the entries {from} to {to}, which are more than one step takes; this program never records that. Nothing was changed by it"
    )]
    TooManyEntries { from: Number, to: Number },
}

/// A charge that was found by its id.
pub struct Found {
    pub number: Number,
    pub entry: Entry,
}

impl View {
    /// Whether an order makes sense now. `None`: the command is about something else. What is not written yet is not seen.
    pub(in crate::server::view) fn judge_order(
        &self,
        ledger: &Ledger,
        command: &Command,
        changes: &mut Changes,
    ) -> Result<Option<Result<(), Refusal>>, StoreError> {
        let in_force = &self.billing.in_force;
        let judged = match command {
            Command::Piece { .. }
            | Command::Tariffs { .. }
            | Command::Plates { .. }
            | Command::Contracts { .. } => Ok(()),
            Command::RemovePlate { plate } => match Plate::stored(plate) {
                Ok(its) if in_force.registration(&its).is_some() => Ok(()),
                _ => Err(NoOrder::NoSuchPlate(plate.clone()).into()),
            },
            Command::RemoveContract { contract } => {
                match in_force.contracts().any(|known| known.name == *contract) {
                    true => Ok(()),
                    false => Err(NoOrder::NoSuchContract(contract.clone()).into()),
                }
            }
            Command::Price { from, to } => match in_force.tariffs() {
                _ if to.saturating_sub(*from) > PRICED_AT_ONCE => {
                    Err(NoOrder::TooManyEntries { from: *from, to: *to }.into())
                }
                Some(_) => Ok(()),
                None => Err(NoOrder::NoTariffs.into()),
            },
            Command::Void { charge, reason } => match check_reason(reason) {
                Ok(()) => self.charged(ledger, charge, changes)?.map(drop).map_err(Refusal::from),
                Err(refusal) => Err(refusal),
            },
            Command::Credit { charge, amount, reason } => match check_reason(reason) {
                Ok(()) => {
                    let judged = self.judge_credit(ledger, charge, *amount, changes)?;
                    judged.map(drop).map_err(Refusal::from)
                }
                Err(refusal) => Err(refusal),
            },
            Command::Forget { whose, .. } => self.judge_forget(whose, changes)?.map_err(Refusal::from),
            Command::Erased => Ok(()),
            _ => return Ok(None),
        };
        Ok(Some(judged))
    }

    /// Folds the order at `position`. `None`: the command is about something else. `Err` inside: it has no effect.
    pub(in crate::server::view) fn apply_order(
        &mut self,
        ledger: &Ledger,
        position: u64,
        command: &Command,
        changes: &mut Changes,
    ) -> Result<Option<Result<(), String>>, StoreError> {
        let judged = match self.judge_order(ledger, command, changes)? {
            None => return Ok(None),
            Some(Err(refusal)) => Err(refusal.to_string()),
            Some(Ok(())) => Ok(()),
        };
        if let Err(why) = judged {
            return Ok(Some(Err(why)));
        }
        if let Some(order) = Order::read(ledger, position, command)? {
            return Ok(Some(order.map(|order| {
                self.billing.put_in_force(position, order);
                changes.billing.in_force.insert(self.billing.in_force.last_page());
            })));
        }
        match command {
            Command::Price { from, to } => {
                let View { shown, billing, .. } = self;
                let called = |number| shown.key_of_number(number).map(|key| shown.name_of(key).to_string());
                billing.price(position, (*from, *to), called, &mut changes.billing)?;
            }
            Command::Void { charge, .. } => {
                if let Ok(Found { number, entry }) = self.charged(ledger, charge, changes)? {
                    let why = VoidedBecause::Command;
                    self.billing.take_back(position, number, &entry, why, &mut changes.billing)?;
                }
            }
            Command::Credit { charge, amount, .. } => {
                if let Ok(found) = self.judge_credit(ledger, charge, *amount, changes)? {
                    let amount = Amount::of_minor(*amount);
                    self.billing.credit(
                        position,
                        found.number,
                        &found.entry,
                        amount,
                        &mut changes.billing,
                    )?;
                }
            }
            Command::Forget { whose, seed } => self.forget(whose, seed, changes)?,
            _ => {}
        }
        Ok(Some(Ok(())))
    }

    fn judge_credit(
        &self,
        ledger: &Ledger,
        charge: &ChargeId,
        amount: i64,
        changes: &mut Changes,
    ) -> Result<Result<Found, NoOrder>, StoreError> {
        let found = match self.charged(ledger, charge, changes)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let What::Stay(stay) = &found.entry.what else { unreachable!("only a stay is charged") };
        let (money, _) = stay.terms.money().expect("it is charged");
        let plate = super::stored_plate(&stay.plate)?;
        let left = Money {
            amount: self.billing.left_of(found.number, money, &plate, &mut changes.billing)?,
            ..money
        };
        if amount <= 0 || amount > left.amount.minor() {
            let asked = Money { amount: Amount::of_minor(amount), ..money };
            return Ok(Err(NoOrder::TooMuch { charge: charge.clone(), left, asked }));
        }
        Ok(Ok(found))
    }

    /// The charge of an id, if it is one that nothing took back.
    fn charged(
        &self,
        ledger: &Ledger,
        id: &ChargeId,
        changes: &mut Changes,
    ) -> Result<Result<Found, NoOrder>, StoreError> {
        let Some(found) = self.find_charge(ledger, id, changes)? else {
            return Ok(Err(NoOrder::NoSuchCharge(id.clone())));
        };
        let What::Stay(stay) = &found.entry.what else { unreachable!("an id names a stay") };
        Ok(match (stay.terms.money(), found.entry.settled_by) {
            (None, _) => Err(NoOrder::NotCharged(id.clone())),
            (Some(_), 1..) => Err(NoOrder::TakenBack(id.clone())),
            (Some(_), 0) => Ok(found),
        })
    }

    /// The newest entry of the stay that an id names.
    pub fn find_charge(
        &self,
        ledger: &Ledger,
        id: &ChargeId,
        changes: &mut Changes,
    ) -> Result<Option<Found>, StoreError> {
        let Ok(garage) = SiteName::new(&id.garage) else { return Ok(None) };
        let key = self.key_of(&garage);
        let Some(number) = self.garages.get(key).map(|garage| garage.stays.number) else { return Ok(None) };
        let epoch = Epoch::from_bytes(id.epoch);
        for site in self.sites_of(key) {
            let Some((stream, page)) = ledger.page_with(&site, epoch, id.sequence)? else { continue };
            let Content::Records(records) = &page.page.content else { continue };
            let Some(index) = id.sequence.checked_sub(page.page.first.get()) else { continue };
            let Some(record) = records.get(index as usize) else { continue };
            let read_first =
                Event::from_bytes(&record.payload).ok().and_then(|event| event.kind.plate().cloned());
            let corrected = changes.reading((page.position, (index / 16) as u8), index as u8)?;
            let corrected = corrected.and_then(|plate| Plate::stored(&plate).ok());
            for plate in corrected.iter().chain(&read_first) {
                let is = |stay: &Stay| {
                    stay.garage == number
                        && stay.exit.stream() == stream
                        && stay.exit.sequence == id.sequence
                        && (stay.made_at != stay.exit.position).then_some(stay.made_at) == id.made_at
                };
                if let Some((number, entry)) = self.newest_of(plate, is, changes)? {
                    return Ok(Some(Found { number, entry }));
                }
            }
        }
        Ok(None)
    }

    fn newest_of(
        &self,
        plate: &Plate,
        wanted: impl Fn(&Stay) -> bool,
        changes: &mut Changes,
    ) -> Result<Option<(Number, Entry)>, StoreError> {
        let mut next = self.billing.heads.get(Head::of(plate));
        while next != 0 {
            let entry = self.billing.entry(next, &mut changes.billing)?;
            if let What::Stay(stay) = &entry.what
                && *stay.plate == *plate.as_str()
                && wanted(stay)
            {
                return Ok(Some((next, entry)));
            }
            next = entry.before_of_plate;
        }
        Ok(None)
    }
}

pub(in crate::server::view) fn check_reason(reason: &str) -> Result<(), Refusal> {
    let bytes = reason.trim().len();
    if bytes == 0 || reason.len() > Command::REASON_MAX { Err(Refusal::Reason { bytes }) } else { Ok(()) }
}
