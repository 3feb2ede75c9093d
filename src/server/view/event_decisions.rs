//! What operators decided about single events: the plate of an exit, and when a car left or came back unseen.
//!
//! **Promise.** A decision acts as soon as its event is in the ledger, before or after it, and wins over what garages correct. Among
//! decisions about a plate, and among those that close a stay, the later wins. A decision that is taken back never was.
//! **Kept by.** The decisions of an event are looked up when the event is applied, and whenever its plate changes; the visits
//! that follow from them are a function of the events and of the decisions.
//!
//! | key | value |
//! | --- | --- |
//! | `vcd` + garage + 0 (u8) + epoch (16 bytes) + sequence (u64) | the [`EventDecisions`] of that event |

use super::SharedMap;
use super::codec::{damaged, decode, encode, key_u64, name_in, read_range, sized, u64_from};
use super::pages::StoredPassage;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Plate;
use crate::parking::stay::Way;
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// An event by the key of its garage, the epoch and the sequence: an id that names another garage than that of the epoch is of none.
pub type EventKey = (SiteName, Epoch, u64);

/// The decisions about one event, in the order of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDecisions {
    pub decisions: Vec<EventDecision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDecision {
    /// Of the command in the ledger, which names the decision.
    pub position: u64,
    /// When the command was recorded.
    pub at_ms: i64,
    pub what: DecidedEvent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecidedEvent {
    /// The exit has this plate.
    Plate(SmolStr),
    /// The car of the entry left then.
    Closed { left_at_ms: i64, offset_minutes: i16 },
    /// The car of the entry left, and came back.
    Split { left_at_ms: i64, entered_at_ms: i64, offset_minutes: i16 },
}

impl DecidedEvent {
    /// What its event must be: an exit, or an entry.
    pub fn is_about(&self) -> Way {
        match self {
            DecidedEvent::Plate(_) => Way::Out,
            DecidedEvent::Closed { .. } | DecidedEvent::Split { .. } => Way::In,
        }
    }
}

impl EventDecisions {
    pub fn plate(&self) -> Option<Plate> {
        self.decisions.iter().rev().find_map(|decision| match &decision.what {
            DecidedEvent::Plate(plate) => Plate::stored(plate).ok(),
            _ => None,
        })
    }

    /// What happened in the stay that begins with `entry`, in order.
    pub fn made(&self, entry: StoredPassage) -> Vec<(Way, StoredPassage)> {
        let mut made = Vec::new();
        let mut closed = None;
        for decision in &self.decisions {
            match decision.what {
                DecidedEvent::Plate(_) => {}
                DecidedEvent::Closed { left_at_ms, offset_minutes } => {
                    closed = Some((Way::Out, entry.made(left_at_ms, offset_minutes)));
                }
                DecidedEvent::Split { left_at_ms, entered_at_ms, offset_minutes } => {
                    made.push((Way::Out, entry.made(left_at_ms, offset_minutes)));
                    made.push((Way::In, entry.made(entered_at_ms, offset_minutes)));
                }
            }
        }
        made.extend(closed);
        made.sort_by_key(|(_, passage)| *passage);
        made.dedup_by_key(|(_, passage)| *passage);
        made
    }
}

fn read_key(key: &[u8]) -> Result<EventKey, StoreError> {
    // No name has a 0 in it.
    let end = key.iter().position(|byte| *byte == 0).ok_or_else(|| damaged(key))?;
    let epoch = Epoch::from_bytes(sized(key, end + 1..end + 17)?);
    Ok((name_in(&key[..end], 3)?, epoch, u64_from(key, end + 17)?))
}

/// Written decisions without the plates that they gave to an event, if that is `forgotten`.
pub fn without_plates(
    key: &[u8],
    value: Vec<u8>,
    forgotten: impl Fn(&EventKey) -> bool,
) -> Result<Vec<u8>, StoreError> {
    if !forgotten(&read_key(key)?) {
        return Ok(value);
    }
    let mut its: EventDecisions = decode(key, &value)?;
    for decision in &mut its.decisions {
        if let DecidedEvent::Plate(plate) = &mut decision.what {
            *plate = SmolStr::new_static("~");
        }
    }
    Ok(encode(&its))
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllEventDecisions(SharedMap<EventKey, EventDecisions>);

impl AllEventDecisions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, event: &EventKey) -> Option<&EventDecisions> {
        self.0.get(event)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&EventKey, &EventDecisions)> {
        self.0.iter()
    }

    pub fn add(&mut self, event: EventKey, decision: EventDecision) {
        let mut its = self.0.get(&event).cloned().unwrap_or_default();
        its.decisions.push(decision);
        self.0.insert_mut(event, its);
    }

    /// Takes the decision of a command back.
    pub fn undo(&mut self, event: &EventKey, position: u64) {
        let Some(mut its) = self.0.get(event).cloned() else { return };
        its.decisions.retain(|decision| decision.position != position);
        match its.decisions.is_empty() {
            true => _ = self.0.remove_mut(event),
            false => self.0.insert_mut(event.clone(), its),
        }
    }

    /// The event about which the command at a position decided.
    pub fn find(&self, position: u64) -> Option<EventKey> {
        let is_it = |its: &EventDecisions| its.decisions.iter().any(|decision| decision.position == position);
        self.0.iter().find_map(|(event, its)| is_it(its).then(|| event.clone()))
    }

    pub fn load(store: &Store) -> Result<AllEventDecisions, StoreError> {
        let mut all = AllEventDecisions::default();
        for entry in read_range(store, b"vcd", b"vce") {
            let (key, its) = entry?;
            all.0.insert_mut(read_key(&key)?, its);
        }
        Ok(all)
    }

    pub fn save(&self, changed: &BTreeSet<EventKey>, batch: &mut Batch) {
        for event @ (garage, epoch, sequence) in changed {
            let epoch = [b"vcd", garage.as_str().as_bytes(), &[0], &epoch.to_bytes()].concat();
            let key = key_u64(&epoch, *sequence);
            match self.0.get(event) {
                Some(its) => batch.put(key, encode(its)),
                None => batch.remove(key),
            }
        }
    }
}
