//! The pages in which visits are kept, as bytes.
//!
//! Visits are appended to the newest page of their garage in the order of their first events, and stay where they are:
//! an end is written into the slot. A page is thus rewritten while one of its cars is inside, and not changed afterwards. A
//! visit that a corrected plate undoes leaves an empty slot; the one that takes its place is appended.
//!
//! | key | value |
//! | --- | --- |
//! | `vs` + garage (u32) + page (u32) | the [`Slot`]s of that page |
//! | `vi` + n (u16) | heads `512 n` to `512 n + 511` of the [`chains`](super::chains) of plates, each an [`SlotAddress`] or none |
//! | `vo` + garage (u32) + n (u32) | a map of the pages in which a car has been inside for less than 30 days: see [`page_maps`](super::page_maps) |
//! | `vr` + position (u64) + n (u8) | the plates corrected last of events `16 n` to `16 n + 15` of the page at that position |
//!
//! A garage's number is the order in which it was first seen.

use super::chains::ChainLink;
use super::codec::{decode, encode, read, read_range, sized, u32_from};
use crate::parking::stay::{End, Visit};
use crate::store::{Store, StoreError, VALUE_MAX};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotAddress {
    pub garage: u32,
    pub page: u32,
    pub slot: u8,
}

impl ChainLink for Option<SlotAddress> {
    const PREFIX: &'static [u8] = b"vi";
}

/// What is kept of an entry or exit. Ordered as the events of one garage are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoredPassage {
    pub position: u64,
    pub sequence: u64,
    /// The ledger's number of its (garage, epoch), and a bit: see [`StoredPassage::made`].
    stream: u32,
    pub at_ms: i64,
    pub offset_minutes: i16,
}

/// A bit in [`StoredPassage::stream`]: an operator's command made the passage. It has the place of the entry of its stay, and
/// comes right after it.
const MADE: u32 = 1 << 31;

impl StoredPassage {
    pub fn new(
        position: u64,
        (stream, sequence): (u32, u64),
        (at_ms, offset_minutes): (i64, i16),
    ) -> StoredPassage {
        StoredPassage { position, sequence, stream, at_ms, offset_minutes }
    }

    /// A passage that an operator says happened in the stay that begins with `self`.
    pub fn made(self, at_ms: i64, offset_minutes: i16) -> StoredPassage {
        StoredPassage { stream: self.stream | MADE, at_ms, offset_minutes, ..self }
    }

    /// `None` for a time that no calendar has.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at_ms).ok()
    }

    /// The local date as its source wrote it.
    pub fn date(self) -> Date {
        let Some(timestamp) = self.timestamp() else { return Date::default() };
        let offset = Offset::from_seconds(i32::from(self.offset_minutes) * 60).unwrap_or(Offset::UTC);
        offset.to_datetime(timestamp).date()
    }

    pub fn is_made(&self) -> bool {
        self.stream & MADE != 0
    }

    /// When it was, in milliseconds since 1970, of one that was made: ids have it.
    pub fn made_at_ms(&self) -> Option<i64> {
        self.is_made().then_some(self.at_ms)
    }

    /// The ledger's number of the (garage, epoch) of its event; of one that was made, of the stay's first.
    pub fn stream(&self) -> u32 {
        self.stream & !MADE
    }
}

/// One place of a page. The plate is text `T`, its own or a part of the page's bytes: reading a page does not normalise plates
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot<T = SmolStr> {
    /// The slot before this one in the chain of its head.
    pub previous: Option<SlotAddress>,
    /// It was appended when its first event was applied. So whatever is further down the chain, of the same garage,
    /// began before it.
    pub in_order: bool,
    /// `None`: a corrected plate undid it.
    pub visit: Option<(T, Visit<StoredPassage>)>,
}

/// A closed stay that was looked for.
#[derive(Debug, Clone)]
pub struct FoundStay {
    /// Or the token that took its place.
    pub plate: SmolStr,
    pub address: SlotAddress,
    pub visit: Visit<StoredPassage>,
}

/// The day of the last event of a visit that is over.
pub fn ended_on(visit: &Visit<StoredPassage>) -> Option<Date> {
    (!visit.is_inside()).then(|| visit.last().date())
}

pub const PAGE_MAX: usize = VALUE_MAX - 8;
/// An address counts slots in a byte, and in one byte of its encoding.
pub const SLOTS_MAX: u8 = 127;
/// The maximum number of bytes that an end takes in a page: its kind, then position, sequence, stream, time and offset.
const END_MAX: usize = 1 + 10 + 10 + 5 + 8 + 3;

impl Slot {
    /// The maximum number of bytes that it will take in a page, however its visit ends.
    pub fn reserve(&self) -> usize {
        let size = postcard::ser_flavors::Size::default();
        let now = postcard::serialize_with_flavor(self, size).expect("a slot always encodes");
        match &self.visit {
            Some((plate, Visit::Stay { .. })) => now + END_MAX + longer_as_token(plate),
            Some((plate, Visit::Exit(_))) => now + longer_as_token(plate),
            None => now,
        }
    }

    pub fn is_inside(&self) -> bool {
        self.visit.as_ref().is_some_and(|(_, visit)| visit.is_inside())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotChange {
    Append(Slot),
    End(End<StoredPassage>),
    /// A corrected plate undid the visit.
    Empty,
    Forget(SmolStr),
}

pub fn longer_as_token(plate: &str) -> usize {
    TOKEN_LEN.saturating_sub(plate.len())
}

/// How long a token is, in bytes. It begins with `~`, as no plate does.
pub const TOKEN_LEN: usize = 11;

pub fn is_token(plate: &str) -> bool {
    plate.starts_with('~')
}

/// Makes a change to the slots of a page. `None` when it does not fit to them: the page is damaged.
pub fn make<'a, T: From<&'a str>>(slots: &mut Vec<Slot<T>>, slot: u8, change: &'a SlotChange) -> Option<()> {
    let changed = slots.get_mut(usize::from(slot));
    match change {
        SlotChange::Append(Slot { previous, in_order, visit }) => {
            let visit = visit.as_ref().map(|(plate, visit)| (T::from(&**plate), visit.clone()));
            slots.push(Slot { previous: *previous, in_order: *in_order, visit });
        }
        SlotChange::End(new) => match &mut changed?.visit {
            Some((_, Visit::Stay { end, .. })) => end.clone_from(new),
            _ => return None,
        },
        SlotChange::Empty => changed?.visit = None,
        SlotChange::Forget(token) => changed?.visit.as_mut()?.0 = T::from(&**token),
    }
    Some(())
}

/// The value of a page after `changes`, from the one before it, if there was one. `None`: they do not fit to it.
pub fn change_page(before: Option<&[u8]>, changes: &[(u8, SlotChange)]) -> Option<Vec<u8>> {
    let mut slots: Vec<Slot<&str>> = match before {
        Some(value) => decode(b"vs", value).ok()?,
        None => Vec::new(),
    };
    for (slot, change) in changes {
        make(&mut slots, *slot, change)?;
    }
    Some(encode_page(&slots))
}

pub fn page_key(garage: u32, page: u32) -> Vec<u8> {
    [b"vs", &garage.to_be_bytes()[..], &page.to_be_bytes()].concat()
}

pub fn read_page(store: &Store, garage: u32, page: u32) -> Result<Vec<Slot>, StoreError> {
    Ok(read(store, &page_key(garage, page))?.unwrap_or_default())
}

/// A plate, or the token that took its place, and a visit.
pub type VisitInPage = (SmolStr, Visit<StoredPassage>);

/// The visits of a page as it was written last, slot by slot.
pub fn page_of(store: &Store, garage: u32, page: u32) -> Result<Vec<Option<VisitInPage>>, StoreError> {
    Ok(read_page(store, garage, page)?.into_iter().map(|slot| slot.visit).collect())
}

/// All visits as they were written last, in the order of their pages.
pub fn all_visits(store: &Store) -> impl Iterator<Item = Result<(SlotAddress, VisitInPage), StoreError>> {
    let visits_of = |(key, slots): (Vec<u8>, Vec<Slot>)| {
        let (garage, page) = (u32::from_be_bytes(sized(&key, 2..6)?), u32_from(&key, 6)?);
        let visits =
            (0u8..).zip(slots).map(move |(slot, its)| (SlotAddress { garage, page, slot }, its.visit));
        Ok(visits.filter_map(|(address, visit)| Some((address, visit?))))
    };
    read_range(store, b"vs", b"vt").flat_map(move |entry| match entry.and_then(visits_of) {
        Ok(visits) => visits.map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    })
}

pub fn encode_page<T: Serialize>(slots: &[Slot<T>]) -> Vec<u8> {
    let value = encode(&slots);
    assert!(value.len() <= VALUE_MAX, "a page is filled by what its slots reserve");
    value
}

/// The plates that were corrected last, by place in a ledger page.
pub type Readings = BTreeMap<u8, SmolStr>;

/// The group of readings that an event's reading is kept in: the position of its page, and a quarter of the page. Plates of any
/// script and length fit into one value this way.
pub type ReadingsOf = (u64, u8);

pub fn readings_key((position, quarter): ReadingsOf) -> Vec<u8> {
    [b"vr", &position.to_be_bytes()[..], &[quarter]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_longest_visits_fits_into_a_value() {
        let worst =
            StoredPassage::new(u64::MAX, (u32::MAX, u64::MAX), (i64::from(u32::MAX) * -100_000, -1_560));
        let far = SlotAddress { garage: u32::MAX, page: u32::MAX, slot: SLOTS_MAX };
        let mut slots: Vec<Slot> = Vec::new();
        let mut reserved = 0;
        loop {
            let plate = SmolStr::from("京".repeat(64));
            let visit = Visit::Stay { entry: worst, end: End::Inside };
            let slot = Slot { previous: Some(far), in_order: true, visit: Some((plate, visit)) };
            reserved += slot.reserve();
            if reserved > PAGE_MAX {
                break;
            }
            slots.push(slot);
        }
        assert!(slots.len() > 10);
        for slot in 0..slots.len() {
            make(&mut slots, slot as u8, &SlotChange::End(End::Left(worst))).unwrap();
        }
        assert!(encode_page(&slots).len() <= VALUE_MAX);
    }
}
