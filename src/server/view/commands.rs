//! What the commands of operators do to the view.
//!
//! A garage is known for good by the name under which its events came first: that is its key in [`View::garages`], in stays,
//! holes and quarantine, and no command changes it. A rename changes what the garage is *called*, and lets events that come
//! under the new name count for it, too. So nothing is moved, and an edge may go on under the old name for as long as it likes.
//!
//! [`View::judge`] alone says what a command does. It is asked twice: before a command is recorded, so that what makes no sense
//! leaves no trace, and when the fold reaches it. Between the two an event may have come that changes the judgement; then the
//! command stands in the ledger without effect, and the view remembers why.
//!
//! | key | value |
//! | --- | --- |
//! | `vcn` + name | the key of the garage that has this name as well |
//! | `vcr` + position (u64) | why the command there has no effect |
//! | `vcs` | the position that last took a line from the board (u64) |

use super::billing::NoOrder;
use super::repairs::NoRepair;
use super::shared::SharedMap;
use super::{Changes, Garage, View, damaged, decode, encode, sized};
use crate::codes;
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Event;
use crate::server::ledger::Ledger;
use crate::server::record::{Command, QuarantinePlace};
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What operators said of one garage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// What it is called since it was renamed.
    pub called: Option<SiteName>,
    /// How many spaces it has, whatever its edge tells.
    pub capacity: Option<u32>,
    pub decommissioned: Option<Decommissioned>,
}

/// A garage that is left out of boards and of the city's numbers. What it sends is applied like anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decommissioned {
    /// The position of the command.
    pub position: u64,
    /// Events that came later.
    pub events_since: u64,
}

/// What commands changed, beside the garages and the quarantine themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandsView {
    /// Other names of garages, and whose they are.
    names: SharedMap<SiteName, SiteName>,
    /// The same by owner, each in the order of the names.
    of_owner: SharedMap<SiteName, Vec<SiteName>>,
    /// The position that last took a line from the board: a change since an earlier version cannot say it.
    reshaped_at: u64,
    /// By position: why a command that was recorded has no effect.
    without_effect: SharedMap<u64, String>,
}

/// What of it changed since the view was last written.
#[derive(Debug, Default)]
pub(super) struct CommandsChanges {
    names: BTreeSet<SiteName>,
    reshaped: bool,
    without_effect: BTreeSet<u64>,
}

impl CommandsChanges {
    pub(super) fn writes(&self) -> usize {
        self.names.len() + self.without_effect.len() + usize::from(self.reshaped)
    }
}

/// Why a command makes no sense. Nothing was recorded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no garage named {:?} was ever heard of; \"server garages list\" shows those that there are", .0.as_str())]
    UnknownGarage(SiteName),
    #[error(
        "the name {:?} belongs to the garage {:?}: its edge may send under it. Take another name",
        .name.as_str(),
        .owner.as_str()
    )]
    NameTaken { name: SiteName, owner: SiteName },
    #[error("the garage is called {:?} already", .0.as_str())]
    SameName(SiteName),
    #[error("the garage {:?} has {capacity} spaces by an operator's word already", .garage.as_str())]
    SameCapacity { garage: SiteName, capacity: u32 },
    #[error("the capacity of the garage {:?} is what its edge tells already", .0.as_str())]
    NoCapacitySet(SiteName),
    #[error("the garage {:?} is decommissioned already, since position {position}", .garage.as_str())]
    Decommissioned { garage: SiteName, position: u64 },
    #[error("the garage {:?} is not decommissioned", .0.as_str())]
    NotDecommissioned(SiteName),
    #[error(
        "no event waits in quarantine at {0}: it was never set aside, or was released or discarded before; \"server quarantine list\" shows those that wait"
    )]
    NothingWaits(QuarantinePlace),
    #[error(
        "what waits at {place} is still not understood: {reason}. It stays in quarantine. A later version of fogpost may know it; \"server quarantine discard\" gives it up"
    )]
    NotUnderstood { place: QuarantinePlace, reason: String },
    #[error(
        "no edge ever sent under the name {:?}, so that nothing of it can be in conflict; its edge sends under {}",
        .garage.as_str(),
        in_quotes(.sites)
    )]
    NotSentUnder { garage: SiteName, sites: Vec<SiteName> },
    #[error(
        "what waits at {0} cannot be read any more: its record in the ledger is damaged. It was not released; \"server verify\" says more"
    )]
    Unreadable(QuarantinePlace),
    #[error("a reason needs 1 to {max} bytes, this one has {bytes}", max = Command::REASON_MAX)]
    Reason { bytes: usize },
    #[error(transparent)]
    Order(#[from] NoOrder),
    #[error(transparent)]
    Repair(#[from] NoRepair),
}

fn in_quotes(sites: &[SiteName]) -> String {
    let quoted: Vec<String> = sites.iter().map(|site| format!("{:?}", site.as_str())).collect();
    quoted.join(", ")
}

/// What a command does, once it is judged.
#[derive(Debug)]
struct Effect {
    /// The garage's key.
    garage: SiteName,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Called(SiteName),
    Capacity(Option<u32>),
    Decommissioned(bool),
    /// These events of the page act now. Bit n: the n-th of the page waits no longer.
    Released {
        position: u64,
        received_at_ms: i64,
        site: SiteName,
        stream: u32,
        /// Each with its place in the page and its sequence.
        events: Vec<(u32, u64, Event)>,
    },
    Discarded {
        position: u64,
        places: u64,
    },
    /// The ledger answers the next conflict; the books do not change.
    Adopted,
}

/// Why a command was not judged: it is refused, or the disk failed.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl View {
    /// Whether `command` makes sense now. Of the books of money only what is written is seen.
    pub fn judge(&self, ledger: &Ledger, command: &Command) -> Result<(), JudgeError> {
        let mut written = Changes::on(ledger.store());
        if let Some(judged) = self.judge_order(ledger, command, &mut written)? {
            return Ok(judged?);
        }
        match self.judge_repair(ledger, command, &mut written)? {
            Some(judged) => Ok(judged?),
            None => self.effect(ledger, command).map(drop),
        }
    }

    /// What a command about garages and their events would do now.
    fn effect(&self, ledger: &Ledger, command: &Command) -> Result<Effect, JudgeError> {
        Ok(match command {
            Command::Rename { garage, to } => {
                let (key, _) = self.known_garage(garage)?;
                let owner = self.key_of(to);
                if self.name_of(key) == to {
                    return Err(Refusal::SameName(to.clone()).into());
                }
                if owner != key && (owner != to || self.garages.contains_key(to)) {
                    let owner = self.name_of(owner).clone();
                    return Err(Refusal::NameTaken { name: to.clone(), owner }.into());
                }
                Effect { garage: key.clone(), change: Change::Called(to.clone()) }
            }
            Command::Capacity { garage, spaces } => {
                let (key, known) = self.known_garage(garage)?;
                let garage = || self.name_of(key).clone();
                match (known.orders.capacity, *spaces) {
                    (None, None) => return Err(Refusal::NoCapacitySet(garage()).into()),
                    (Some(capacity), Some(new)) if capacity == new => {
                        return Err(Refusal::SameCapacity { garage: garage(), capacity }.into());
                    }
                    _ => {}
                }
                Effect { garage: key.clone(), change: Change::Capacity(*spaces) }
            }
            Command::Decommission { garage, undo } => {
                let (key, known) = self.known_garage(garage)?;
                let garage = self.name_of(key).clone();
                match &known.orders.decommissioned {
                    Some(since) if !undo => {
                        let position = since.position;
                        return Err(Refusal::Decommissioned { garage, position }.into());
                    }
                    None if *undo => return Err(Refusal::NotDecommissioned(garage).into()),
                    _ => {}
                }
                Effect { garage: key.clone(), change: Change::Decommissioned(!undo) }
            }
            Command::Release { place } => {
                let (garage, waiting) = self.waiting(*place)?;
                Effect { garage, change: self.understood(ledger, *place, waiting)? }
            }
            Command::Discard { place, reason } => {
                if reason.is_empty() || reason.len() > Command::REASON_MAX {
                    return Err(Refusal::Reason { bytes: reason.len() }.into());
                }
                let (garage, places) = self.waiting(*place)?;
                Effect { garage, change: Change::Discarded { position: place.position, places } }
            }
            Command::Adopt { garage } => {
                let (key, _) = self.known_garage(garage)?;
                if !ledger.streams().contains_key(garage) {
                    let sites = self.sites_of(key);
                    return Err(Refusal::NotSentUnder { garage: garage.clone(), sites }.into());
                }
                Effect { garage: key.clone(), change: Change::Adopted }
            }
            _ => unreachable!("it is an order in the books of money, or a repair of a stay"),
        })
    }

    fn known_garage<'a>(&'a self, name: &'a SiteName) -> Result<(&'a SiteName, &'a Garage), Refusal> {
        let key = self.key_of(name);
        let garage = self.garages.get(key).ok_or_else(|| Refusal::UnknownGarage(name.clone()))?;
        Ok((key, garage))
    }

    /// The events that wait at a place, as bits, and their garage's key.
    fn waiting(&self, place: QuarantinePlace) -> Result<(SiteName, u64), Refusal> {
        let page = self.quarantine.get(&place.position);
        // A place behind the end of any page is none.
        let asked = place.index.map_or(u64::MAX, |index| 1u64.checked_shl(index.into()).unwrap_or(0));
        match page.map(|page| (&page.garage, page.events & asked)) {
            Some((garage, waiting @ 1..)) => Ok((self.key_of(garage).clone(), waiting)),
            _ => Err(Refusal::NothingWaits(place)),
        }
    }

    /// Those of the waiting events that this program understands now, each with its sequence.
    fn understood(
        &self,
        ledger: &Ledger,
        place: QuarantinePlace,
        waiting: u64,
    ) -> Result<Change, JudgeError> {
        let missing = || Refusal::Unreadable(place);
        let page = ledger.page_at(place.position)?.ok_or_else(missing)?;
        let first = page.page.first.get();
        let (stream, page) = ledger.page_with(&page.site, page.page.epoch, first)?.ok_or_else(missing)?;
        let Content::Records(records) = page.page.content else {
            unreachable!("the ledger records what was lost as a hole")
        };
        let (mut events, mut reason) = (Vec::new(), None);
        for (index, record) in (0u32..).zip(&records).filter(|(index, _)| waiting >> index & 1 == 1) {
            match Event::from_bytes(&record.payload) {
                Ok(event) => events.push((index, first + u64::from(index), event)),
                Err(error) => {
                    reason.get_or_insert_with(|| error.to_string());
                }
            }
        }
        match reason {
            Some(reason) if events.is_empty() => Err(Refusal::NotUnderstood { place, reason }.into()),
            _ => Ok(Change::Released {
                position: place.position,
                received_at_ms: page.received_at_ms,
                site: page.site,
                stream,
                events,
            }),
        }
    }

    /// Folds the command at `position`.
    pub(super) fn apply_command(
        &mut self,
        ledger: &Ledger,
        position: u64,
        command: &Command,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let came_between = "a command has no effect: an event came between its check and its position";
        const REPEAT_COMMAND: &str = "give the command again if it still applies";
        let applied = match self.apply_order(ledger, position, command, changes)? {
            None => self.apply_repair(ledger, position, command, changes)?,
            applied => applied,
        };
        match applied {
            None => {}
            Some(Ok(())) => return Ok(()),
            Some(Err(why)) => {
                tracing::warn!(
                    code = %codes::COMMAND_WITHOUT_EFFECT,
                    position, reason = why,
                    hint = REPEAT_COMMAND,
                    "{came_between}"
                );
                self.has_no_effect(position, why, changes);
                return Ok(());
            }
        }
        let Effect { garage: key, change } = match self.effect(ledger, command) {
            Ok(effect) => effect,
            Err(JudgeError::Store(error)) => return Err(error),
            Err(JudgeError::Refused(refusal)) => {
                tracing::warn!(
                    code = %codes::COMMAND_WITHOUT_EFFECT,
                    position, reason = %refusal,
                    hint = REPEAT_COMMAND,
                    "{came_between}"
                );
                self.has_no_effect(position, refusal.to_string(), changes);
                return Ok(());
            }
        };
        tracing::info!(position, garage = %self.name_of(&key), command = command.name(), "a command takes effect");
        match change {
            Change::Called(name) => {
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.orders.called = (name != key).then(|| name.clone());
                if name != key {
                    self.commands.put_name(name.clone(), key.clone());
                    changes.commands.names.insert(name);
                }
                self.reshape_board(position, changes);
            }
            Change::Capacity(spaces) => {
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.orders.capacity = spaces;
                garage.capacity = spaces.unwrap_or(garage.told_capacity);
            }
            Change::Decommissioned(yes) => {
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.orders.decommissioned = yes.then_some(Decommissioned { position, events_since: 0 });
                self.reshape_board(position, changes);
            }
            Change::Released { position: page, received_at_ms, site, stream, events } => {
                let (mut applied, mut why) = (0u64, None);
                for (index, sequence, event) in events {
                    let place = super::Place { site: &site, stream, sequence, position };
                    match self.apply_event(ledger, place, received_at_ms, &event, changes)? {
                        Ok(()) => applied |= 1 << index,
                        Err(error) => {
                            why.get_or_insert_with(|| error.to_string());
                        }
                    }
                }
                if let Some(why) = why.filter(|_| applied == 0) {
                    self.has_no_effect(
                        position,
                        format!("what waits there cannot be applied yet: {why}"),
                        changes,
                    );
                    return Ok(());
                }
                self.no_longer_waits(page, applied, changes);
            }
            Change::Discarded { position: page, places } => self.no_longer_waits(page, places, changes),
            Change::Adopted => return Ok(()),
        }
        self.garage_changed(&key, position);
        changes.garages.insert(key);
        Ok(())
    }

    fn has_no_effect(&mut self, position: u64, why: String, changes: &mut Changes) {
        self.commands.without_effect.insert(position, why);
        changes.commands.without_effect.insert(position);
    }

    fn reshape_board(&mut self, position: u64, changes: &mut Changes) {
        self.commands.reshaped_at = position;
        changes.commands.reshaped = true;
    }

    fn no_longer_waits(&mut self, page: u64, places: u64, changes: &mut Changes) {
        if let Some(waiting) = self.quarantine.get_mut(&page) {
            waiting.events &= !places;
            if waiting.events == 0 {
                self.quarantine.remove(&page);
            }
        }
        changes.quarantine.insert(page);
    }
}

impl Garage {
    /// Its edge told how many spaces it has.
    pub(super) fn was_told(&mut self, name: &SiteName, capacity: u32) {
        self.told_capacity = capacity;
        self.capacity = self.orders.capacity.unwrap_or(capacity);
        if self.capacity != capacity {
            tracing::info!(garage = %name, told = capacity, stands = self.capacity, "an edge tells another capacity than an operator set; the operator's stands");
        }
    }

    /// Events came; a decommissioned garage should have none.
    pub(super) fn counted(&mut self, name: &SiteName, events: u64) {
        if let Some(since) = &mut self.orders.decommissioned {
            if since.events_since == 0 {
                tracing::warn!(
                    code = %codes::GARAGE_DECOMMISSIONED,
                    garage = %name,
                    hint = "if it is in use again: server garages decommission NAME --undo",
                    "events of a decommissioned garage are applied and counted as any others"
                );
            }
            since.events_since += events;
        }
    }

    /// Whether boards and the city's numbers have it.
    pub fn is_shown(&self) -> bool {
        self.orders.decommissioned.is_none()
    }
}

impl super::Quarantined {
    /// The sequence of the event at a place of the page.
    pub fn sequence(&self, place: usize) -> (Epoch, u64) {
        (self.epoch, self.first + place as u64)
    }
}

const RESHAPED: &[u8] = b"vcs";

impl CommandsView {
    /// Whose a name is that belongs to a garage beside its key.
    pub(super) fn key_of(&self, site: &SiteName) -> Option<&SiteName> {
        self.names.get(site)
    }

    /// The names that belong to a garage beside its key.
    pub(super) fn other_names(&self, key: &SiteName) -> &[SiteName] {
        self.of_owner.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn without_effect(&self, position: u64) -> Option<&str> {
        self.without_effect.get(&position).map(String::as_str)
    }

    pub(super) fn is_same_board_since(&self, position: u64) -> bool {
        self.reshaped_at <= position
    }

    fn put_name(&mut self, name: SiteName, owner: SiteName) {
        let mut names = self.other_names(&owner).to_vec();
        if let Err(place) = names.binary_search(&name) {
            names.insert(place, name.clone());
        }
        self.of_owner.insert(owner.clone(), names);
        self.names.insert(name, owner);
    }

    pub(super) fn load(store: &Store) -> Result<CommandsView, StoreError> {
        let mut commands = CommandsView::default();
        for entry in store.range(b"vcn", b"vco") {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key[3..]).ok();
            let name = name.and_then(|name| SiteName::new(name).ok());
            commands.put_name(name.ok_or_else(|| damaged(&key))?, decode(&key, &value)?);
        }
        for entry in store.range(b"vcr", b"vcs") {
            let (key, value) = entry?;
            commands.without_effect.insert(u64::from_be_bytes(sized(&key[3..])?), decode(&key, &value)?);
        }
        if let Some(value) = store.get(RESHAPED)? {
            commands.reshaped_at = u64::from_be_bytes(sized(&value)?);
        }
        Ok(commands)
    }

    pub(super) fn save(&self, changes: &CommandsChanges, batch: &mut Batch) {
        for name in &changes.names {
            batch.put([b"vcn", name.as_str().as_bytes()].concat(), encode(&self.names[name]));
        }
        for position in &changes.without_effect {
            let key = [b"vcr", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.without_effect[position]));
        }
        if changes.reshaped {
            batch.put(RESHAPED, self.reshaped_at.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
