//! What operators decided about single events: the plate of an exit or its entry, and when a car left or came back unseen.
//!
//! **Promise.** A decision acts as soon as its event is in the ledger, before or after it, and wins over what garages correct. Among
//! decisions about a plate, and among those that close a stay, the later wins. A decision that is taken back never was.
//! **Kept by.** The decisions of an event are looked up when the event is applied, and whenever its plate changes; the visits
//! that follow from them are a function of the events and of the decisions.
//!
//! | key | value |
//! | --- | --- |
//! | `vcd` + garage + 0 (u8) + epoch (16 bytes) + sequence (u64) | the [`EventDecision`]s about that event |

use super::codec::{damaged, decode, encode, key_u64, name_in, sized, u64_from};
use super::decision_map::{Decision, DecisionMap};
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

pub type EventDecision = Decision<DecidedEvent>;
pub type AllEventDecisions = DecisionMap<EventKey, DecidedEvent>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecidedEvent {
    /// The exit has this plate.
    Plate(SmolStr),
    /// The car of the entry left then.
    Closed { left_at_ms: i64, offset_minutes: i16 },
    /// The car of the entry left, and came back.
    Split { left_at_ms: i64, entered_at_ms: i64, offset_minutes: i16 },
    /// The exit ends the stay of this entry of its garage, whose plate was forgotten.
    Joined { epoch: Epoch, sequence: u64 },
}

impl DecidedEvent {
    /// What its event must be: an exit, or an entry.
    pub fn is_about(&self) -> Way {
        match self {
            DecidedEvent::Plate(_) | DecidedEvent::Joined { .. } => Way::Out,
            DecidedEvent::Closed { .. } | DecidedEvent::Split { .. } => Way::In,
        }
    }
}

/// The plate that decisions give to their event.
pub fn decided_plate(decisions: &[EventDecision]) -> Option<Plate> {
    decisions.iter().rev().find_map(|decision| match &decision.what {
        DecidedEvent::Plate(plate) => Plate::stored(plate).ok(),
        _ => None,
    })
}

/// The forgotten entry, by its epoch and its sequence, whose stay the exit ends by these decisions. `None`: its plate decides.
pub fn joined_entry(decisions: &[EventDecision]) -> Option<(Epoch, u64)> {
    let last = decisions.iter().rfind(|decision| decision.what.is_about() == Way::Out)?;
    match last.what {
        DecidedEvent::Joined { epoch, sequence } => Some((epoch, sequence)),
        _ => None,
    }
}

/// What happened by decisions in the stay that begins with `entry`, in order.
pub fn made_by(decisions: &[EventDecision], entry: StoredPassage) -> Vec<(Way, StoredPassage)> {
    let mut made = Vec::new();
    let mut closed = None;
    for decision in decisions {
        match decision.what {
            DecidedEvent::Plate(_) | DecidedEvent::Joined { .. } => {}
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

fn stored_key((garage, epoch, sequence): &EventKey) -> Vec<u8> {
    key_u64(&[b"vcd", garage.as_str().as_bytes(), &[0], &epoch.to_bytes()].concat(), *sequence)
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
    let mut its: Vec<EventDecision> = decode(key, &value)?;
    for decision in &mut its {
        if let DecidedEvent::Plate(plate) = &mut decision.what {
            *plate = SmolStr::new_static("~");
        }
    }
    Ok(encode(&its))
}

pub fn load(store: &Store) -> Result<AllEventDecisions, StoreError> {
    DecisionMap::load(store, (b"vcd", b"vce"), read_key)
}

pub fn save(decisions: &AllEventDecisions, changed: &BTreeSet<EventKey>, batch: &mut Batch) {
    changed.iter().for_each(|event| decisions.save(event, stored_key(event), batch));
}
