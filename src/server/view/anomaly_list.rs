//! Lists what did not add up: what is written down, and the cars that nobody registered.

use super::billing::anomalies::{AnomalyCode, AnomalyKey, PLATE_AT};
use super::billing::places::Place;
use super::billing::{ClosedStay, UNREGISTERED};
use super::chains::{ChainHeads, PlateChain};
use super::changes::ViewChanges;
use super::codec::{damaged, decode, read_range, sized};
use super::list::{StayFilter, list_now as list_stays};
use super::pages::{Slot, SlotAddress, StoredPassage, is_token};
use super::state::Snapshot;
use super::written::at_one_position;
use crate::parking::Plate;
use crate::parking::stay::{End, Visit};
use crate::server::hex::{hex, unhex};
use crate::server::ledger::Ledger;
use crate::store::{Store, StoreError};
use std::fmt;
use std::sync::Mutex;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    pub code: AnomalyCode,
    pub garage: u32,
    pub plate: Option<String>,
    pub count: u64,
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    pub first_position: u64,
    pub last_position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnomalyCursor {
    Key(Vec<u8>),
    /// Among the stays of unregistered cars: after this one; `None`: from the first on.
    Stay(Option<SlotAddress>),
}

impl fmt::Display for AnomalyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnomalyCursor::Key(key) => f.write_str(&hex(key)),
            AnomalyCursor::Stay(after) => {
                let after = postcard::to_stdvec(after).expect("an address always encodes");
                write!(f, "s{}", hex(&after))
            }
        }
    }
}

impl AnomalyCursor {
    pub fn parse(text: &str) -> Option<AnomalyCursor> {
        match text.strip_prefix('s') {
            Some(after) => postcard::from_bytes(&unhex(after)?).ok().map(AnomalyCursor::Stay),
            None => unhex(text).filter(|key| key.len() >= PLATE_AT).map(AnomalyCursor::Key),
        }
    }
}

/// How many anomalies, and visits of unregistered plates and of their chains, an answer looks at before it gives what it has.
const LOOK_AT: usize = 20_000;
/// How many stays are read at once to look for unregistered cars.
const STAYS_AT_ONCE: usize = 256;

/// What to list. `None` filters nothing.
#[derive(Debug, Clone, Default)]
pub struct AnomalyFilter {
    pub code: Option<AnomalyCode>,
    pub garage: Option<u32>,
    pub plate: Option<Plate>,
    pub after: Option<AnomalyCursor>,
    pub limit: usize,
}

#[derive(Debug)]
pub struct AnomalyList {
    pub anomalies: Vec<Anomaly>,
    /// Where to continue; `None` at the end.
    pub next: Option<AnomalyCursor>,
}

/// Lists the wanted anomalies: first those that are written down, then the plates of stays that nobody registered. Gives the
/// position that they show. While `saving` is held the views are not written.
pub fn list(
    (view, ledger): (&Snapshot, &Ledger),
    saving: Option<&Mutex<()>>,
    wanted: &AnomalyFilter,
) -> Result<(u64, AnomalyList), StoreError> {
    at_one_position(ledger.store(), saving, || list_now((view, ledger), wanted, LOOK_AT))
}

pub(in crate::server::view) fn list_now(
    (view, ledger): (&Snapshot, &Ledger),
    wanted: &AnomalyFilter,
    look_at: usize,
) -> Result<AnomalyList, StoreError> {
    let mut search = AnomalySearch { view, ledger, wanted, look_at, found: Vec::new() };
    let after = match &wanted.after {
        Some(AnomalyCursor::Stay(after)) => *after,
        after => {
            let after = match after {
                Some(AnomalyCursor::Key(key)) => &key[..],
                _ => &[],
            };
            let next = search.written_down(after)?;
            if next.is_some() {
                return Ok(AnomalyList { anomalies: search.found, next });
            }
            None
        }
    };
    let is_asked_for = wanted.code.is_none_or(|code| code == AnomalyCode::Unregistered);
    let next = if is_asked_for && view.billing.account(UNREGISTERED).is_some() {
        search.unregistered(after)?
    } else {
        None
    };
    Ok(AnomalyList { anomalies: search.found, next })
}

struct AnomalySearch<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
    wanted: &'a AnomalyFilter,
    look_at: usize,
    found: Vec<Anomaly>,
}

impl AnomalySearch<'_> {
    /// Whether the answer may look at one more.
    fn goes_on(&mut self) -> bool {
        let goes_on = self.look_at > 0 && self.found.len() < self.wanted.limit;
        self.look_at = self.look_at.saturating_sub(1);
        goes_on
    }

    /// Finds the anomalies written down after a key, code by code, and only those of a garage or a plate if the filter names one.
    fn written_down(&mut self, after: &[u8]) -> Result<Option<AnomalyCursor>, StoreError> {
        let store = self.ledger.store();
        let after = [after, &[0]].concat();
        let mut last = None;
        for code in
            AnomalyCode::ALL.into_iter().filter(|code| self.wanted.code.is_none_or(|its| its == *code))
        {
            let (from, to) = keys_of(code, self.wanted);
            for entry in read_range::<u64>(store, from.as_slice().max(after.as_slice()), &to) {
                let (key, count) = entry?;
                if !self.goes_on() {
                    return Ok(last.map(AnomalyCursor::Key).or(Some(AnomalyCursor::Key(from))));
                }
                let anomaly = AnomalyKey::read(&key)?;
                if self.wanted.plate.as_ref().is_none_or(|plate| *plate.as_str() == *anomaly.plate) {
                    self.found.push(written(store, anomaly, count)?);
                }
                last = Some(key);
            }
        }
        Ok(None)
    }

    /// Finds the cars that nobody registered: each once for a garage, at its newest stay there.
    fn unregistered(&mut self, mut after: Option<SlotAddress>) -> Result<Option<AnomalyCursor>, StoreError> {
        let store = self.ledger.store();
        loop {
            let wanted = StayFilter {
                plate: self.wanted.plate.clone(),
                garage: self.wanted.garage,
                open: Some(false),
                after,
                limit: STAYS_AT_ONCE,
            };
            let stays = list_stays(store, &wanted, self.look_at.max(1))?;
            for stay in stays.stays {
                if !self.goes_on() {
                    return Ok(Some(AnomalyCursor::Stay(after)));
                }
                after = Some(stay.address);
                let End::Left(exit) = stay.end else { continue };
                if is_token(&stay.plate)
                    || !self.is_unregistered(stay.address.garage, &stay.plate, stay.entry, exit)?
                {
                    continue;
                }
                self.found.extend(self.of_car(stay.address, &stay.plate)?);
            }
            match stays.next {
                Some(next) if self.goes_on() => after = Some(next),
                next => return Ok(next.map(|next| AnomalyCursor::Stay(Some(next)))),
            }
        }
    }

    fn is_unregistered(
        &self,
        garage: u32,
        plate: &str,
        entry: StoredPassage,
        exit: StoredPassage,
    ) -> Result<bool, StoreError> {
        let plate = Plate::stored(plate).map_err(|_| damaged(b"vs"))?;
        let Some(garage) = self.view.billing.garages.get(garage) else { return Ok(false) };
        let stay = ClosedStay { garage, plate: &plate, entry, exit, place: Place::default() };
        Ok(self.view.billing.assessor(self.ledger).draft(stay)?.account == UNREGISTERED)
    }

    /// The anomaly of a car in a garage, if its newest stay there that nobody pays is at this address.
    fn of_car(&self, newest: SlotAddress, plate: &str) -> Result<Option<Anomaly>, StoreError> {
        let its = Plate::stored(plate).map_err(|_| damaged(b"vs"))?;
        let head = ChainHeads::read(self.ledger.store(), PlateChain::of(&its))?;
        let mut exits: Vec<StoredPassage> = Vec::new();
        for member in ViewChanges::on(self.ledger.store()).chain(head, Slot::clone) {
            let (address, slot) = member?;
            let Some((other, Visit::Stay { entry, end: End::Left(exit) })) = &slot.visit else { continue };
            if address.garage != newest.garage
                || **other != *plate
                || !self.is_unregistered(newest.garage, plate, *entry, *exit)?
            {
                continue;
            }
            if exits.is_empty() && address != newest {
                return Ok(None);
            }
            exits.push(*exit);
        }
        let by_time = |exit: &&StoredPassage| (exit.at_ms, exit.position, exit.sequence);
        let (Some(first), Some(last)) = (exits.iter().min_by_key(by_time), exits.iter().max_by_key(by_time))
        else {
            return Ok(None);
        };
        Ok(Some(Anomaly {
            code: AnomalyCode::Unregistered,
            garage: newest.garage,
            plate: Some(plate.to_owned()),
            count: exits.len() as u64,
            first_at_ms: first.at_ms,
            last_at_ms: last.at_ms,
            first_position: first.position,
            last_position: last.position,
        }))
    }
}

/// An anomaly with the first and the last of its facts.
fn written(store: &Store, anomaly: AnomalyKey, count: u64) -> Result<Anomaly, StoreError> {
    let from = [&anomaly.with(b"vbf")[..], &[0]].concat();
    let to = [&from[..from.len() - 1], &[1]].concat();
    let first = store.range(&from, &to).next().transpose()?;
    let last = store.last(&from, &to)?;
    let (Some(first), Some(last)) = (first, last) else { return Err(damaged(&anomaly.key())) };
    let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let time = u64::from_be_bytes(sized(key, from.len()..from.len() + 8)?);
        let position: u64 = decode(key, value)?;
        Ok::<_, StoreError>(((time ^ (1 << 63)) as i64, position))
    };
    let ((first_at_ms, first_position), (last_at_ms, last_position)) = (read(&first)?, read(&last)?);
    let AnomalyKey { code, garage, plate } = anomaly;
    let plate = (!plate.is_empty()).then(|| plate.to_string());
    Ok(Anomaly { code, garage, plate, count, first_at_ms, last_at_ms, first_position, last_position })
}

fn keys_of(code: AnomalyCode, wanted: &AnomalyFilter) -> (Vec<u8>, Vec<u8>) {
    let of_code = |code: u8| [b"vbn", &[code][..]].concat();
    let of_garage = |garage: u32| [&of_code(code as u8)[..], &garage.to_be_bytes()].concat();
    match (wanted.garage, &wanted.plate) {
        (Some(garage), Some(plate)) => {
            let from = [&of_garage(garage)[..], plate.as_str().as_bytes()].concat();
            let to = [&from[..], &[0]].concat();
            (from, to)
        }
        (Some(garage), None) => {
            let to = garage.checked_add(1).map_or_else(|| of_code(code as u8 + 1), of_garage);
            (of_garage(garage), to)
        }
        (None, _) => (of_code(code as u8), of_code(code as u8 + 1)),
    }
}
