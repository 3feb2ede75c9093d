//! Which plates are still named, and may be forgotten.

use super::codec::read_range;
use super::pages::{Slot, StoredPassage, is_token};
use crate::parking::stay::{End, Visit};
use crate::store::{Store, StoreError};
use jiff::civil::Date;

/// Whether a visit is over, and its last event was before a day.
pub fn ended_before(visit: &Visit<StoredPassage>, day: Date) -> bool {
    let last = match visit {
        Visit::Stay { end: End::Inside, .. } => return false,
        Visit::Stay { end: End::Left(exit), .. } | Visit::Exit(exit) => exit,
        Visit::Stay { entry, end: End::Unseen } => entry,
    };
    last.date() < day
}

/// Whether a visit that ended before a day names its plate, as the views are written.
pub fn names_before(store: &Store, day: Date) -> Result<bool, StoreError> {
    for entry in read_range::<Vec<Slot>>(store, b"vs", b"vt") {
        let (_, slots) = entry?;
        let visits = slots.iter().filter_map(|slot| slot.visit.as_ref());
        if visits.filter(|(plate, _)| !is_token(plate)).any(|(_, visit)| ended_before(visit, day)) {
            return Ok(true);
        }
    }
    Ok(false)
}
