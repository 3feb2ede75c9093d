//! The pages in which visits are kept, as bytes.
//!
//! Visits are appended to the newest page of their garage in the order of their first events, and stay where they are:
//! an end is written into the slot. A page is thus rewritten while somebody of it is inside, and rests afterwards. A
//! visit that a corrected plate undoes leaves an empty slot; the one that takes its place is appended.
//!
//! Plates are found through a hash table of a fixed size ([`HEADS`]): a head names the newest slot of its plates, and
//! each slot the one before it, as in a log with an index of heads (FASTER, Bitcask's ancestors): an append costs one
//! head in memory, and looking for a plate reads the slots of its chain, one of 65,536, and nothing else. Sorted runs would
//! need merging, and pages sorted by plate a rewrite for every event, because cars come in no order.
//!
//! | key | value |
//! | --- | --- |
//! | `vs` + garage (u32) + page (u32) | the [`Slot`]s of that page |
//! | `vi` + n (u16) | heads `512 n` to `512 n + 511`, each an [`Address`] or none |
//! | `vo` + garage (u32) + n (u32) | a bit for each of 8,192 pages: somebody in it is inside, for less than 30 days |
//! | `vj` `vk` `vt` | the cars that are inside for longer: see [`aged`](super::aged) |
//! | `vr` + position (u64) + n (u8) | the plates corrected last of events `16 n` to `16 n + 15` of the page at that position |
//!
//! A garage's number is the order in which it was first seen.

use super::billing::Cover;
use super::{damaged, decode, encode};
use crate::parking::Plate;
use crate::parking::stay::{End, Visit};
use crate::store::{Store, StoreError, VALUE_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a visit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    pub garage: u32,
    pub page: u32,
    pub slot: u8,
}

/// What is kept of an entry or exit. Ordered as the events of one garage are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Passage {
    /// Where it was applied.
    pub position: u64,
    pub sequence: u64,
    /// The ledger's number of its (garage, epoch), and a bit: see [`Passage::made`].
    stream: u32,
    pub at_ms: i64,
    pub offset_minutes: i16,
}

/// In [`Passage::stream`]: an operator's word made it. It has the place of the entry of its stay, and comes right after it.
const MADE: u32 = 1 << 31;

impl Passage {
    pub fn new(
        position: u64,
        (stream, sequence): (u32, u64),
        (at_ms, offset_minutes): (i64, i16),
    ) -> Passage {
        Passage { position, sequence, stream, at_ms, offset_minutes }
    }

    /// One that an operator says happened in the stay that begins with `self`.
    pub fn made(self, at_ms: i64, offset_minutes: i16) -> Passage {
        Passage { stream: self.stream | MADE, at_ms, offset_minutes, ..self }
    }

    pub fn is_made(&self) -> bool {
        self.stream & MADE != 0
    }

    /// The ledger's number of the (garage, epoch) of its event; of one that was made, of the stay's first.
    pub fn stream(&self) -> u32 {
        self.stream & !MADE
    }
}

/// One place of a page. The plate is text `T`, its own or a part of the page's bytes: reading a page normalises nothing
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot<T = Box<str>> {
    /// The slot before this one in the chain of its head.
    pub previous: Option<Address>,
    /// It was appended when its first event was applied. So whatever is further down the chain, of the same garage,
    /// began before it.
    pub in_order: bool,
    /// Whether a contract covers its stay.
    pub cover: Cover,
    /// `None`: a corrected plate undid it.
    pub visit: Option<(T, Visit<Passage>)>,
}

/// The longest encoded page; the rest is room for its version and length.
pub const PAGE_MAX: usize = VALUE_MAX - 8;
/// An address counts slots in a byte, and in one byte of its encoding.
pub const SLOTS_MAX: u8 = 127;
/// At most what an end takes in a page: its kind, then position, sequence, stream, time and offset.
const END_MAX: usize = 1 + 10 + 10 + 5 + 8 + 3;

impl Slot {
    /// At most what it will take in a page, however its visit ends.
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

/// What happens to a slot after it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Append(Slot),
    End(u8, End<Passage>),
    /// A corrected plate undid the visit.
    Empty(u8),
    /// A token stands for the plate from now on.
    Forget(u8, Box<str>),
}

/// How much longer than a plate the token is that may stand for it.
pub fn longer_as_token(plate: &str) -> usize {
    TOKEN_LEN.saturating_sub(plate.len())
}

/// How long a token is, in bytes. It begins with `~`, as no plate does.
pub const TOKEN_LEN: usize = 11;

/// Whether a token stands for a plate.
pub fn is_token(plate: &str) -> bool {
    plate.starts_with('~')
}

/// Makes a change to the slots of a page. `None` when it does not fit to them: the page is damaged.
pub fn make<'a, T: From<&'a str>>(slots: &mut Vec<Slot<T>>, change: &'a Change) -> Option<()> {
    match change {
        Change::Append(Slot { previous, in_order, cover, visit }) => {
            let visit = visit.as_ref().map(|(plate, visit)| (T::from(&**plate), visit.clone()));
            slots.push(Slot { previous: *previous, in_order: *in_order, cover: *cover, visit });
        }
        Change::End(slot, new) => match &mut slots.get_mut(usize::from(*slot))?.visit {
            Some((_, Visit::Stay { end, .. })) => end.clone_from(new),
            _ => return None,
        },
        Change::Empty(slot) => slots.get_mut(usize::from(*slot))?.visit = None,
        Change::Forget(slot, token) => {
            slots.get_mut(usize::from(*slot))?.visit.as_mut()?.0 = T::from(&**token);
        }
    }
    Some(())
}

/// The value of a page after `changes`, from the one before it, if there was one. `None`: they do not fit to it.
pub fn change_page(before: Option<&[u8]>, changes: &[Change]) -> Option<Vec<u8>> {
    let mut slots: Vec<Slot<&str>> = match before {
        Some(value) => decode(b"vs", value).ok()?,
        None => Vec::new(),
    };
    for change in changes {
        make(&mut slots, change)?;
    }
    Some(encode_page(&slots))
}

pub fn page_key(garage: u32, page: u32) -> Vec<u8> {
    [b"vs", &garage.to_be_bytes()[..], &page.to_be_bytes()].concat()
}

/// The slots of a page; none when there is no such page.
pub fn read_page(store: &Store, garage: u32, page: u32) -> Result<Vec<Slot>, StoreError> {
    let key = page_key(garage, page);
    store.get(&key)?.map_or(Ok(Vec::new()), |value| decode(&key, &value))
}

pub fn encode_page<T: Serialize>(slots: &[Slot<T>]) -> Vec<u8> {
    let value = encode(&slots);
    assert!(value.len() <= VALUE_MAX, "a page is filled by what its slots reserve");
    value
}

/// How many plates share a chain depends on this: with a million visits, seventeen.
pub const HEADS: usize = 1 << 16;
const HEADS_IN_A_PAGE: usize = 512;
/// How many keys the heads take.
pub const HEAD_PAGES: usize = HEADS / HEADS_IN_A_PAGE;

/// The newest slot of each chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads(Vec<Option<Address>>);

impl Default for Heads {
    fn default() -> Heads {
        Heads(vec![None; HEADS])
    }
}

/// Which chain a plate is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(u16);

impl Head {
    pub fn of(plate: &Plate) -> Head {
        // FNV-1a. Whoever makes plates to meet in one chain makes a long chain: see `LOOK_BACK`.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = plate.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step);
        Head((hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16)
    }

    /// Its place among all heads.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The page of heads that it is in.
    pub fn page(self) -> u16 {
        self.0 / HEADS_IN_A_PAGE as u16
    }
}

fn heads_key(page: u16) -> Vec<u8> {
    [b"vi", &page.to_be_bytes()[..]].concat()
}

impl Heads {
    pub fn load(store: &Store) -> Result<Heads, StoreError> {
        let mut heads = Heads::default();
        for entry in store.range(b"vi", b"vj") {
            let (key, value) = entry?;
            let page = u16::from_be_bytes(super::sized(&key[2..])?);
            let of_page: Vec<Option<Address>> = decode(&key, &value)?;
            let place = heads.0.chunks_exact_mut(HEADS_IN_A_PAGE).nth(usize::from(page));
            match place {
                Some(place) if of_page.len() == place.len() => place.copy_from_slice(&of_page),
                _ => return Err(damaged(&key)),
            }
        }
        Ok(heads)
    }

    pub fn get(&self, head: Head) -> Option<Address> {
        self.0[usize::from(head.0)]
    }

    pub fn set(&mut self, head: Head, newest: Address) {
        self.0[usize::from(head.0)] = Some(newest);
    }

    /// A page of heads as a key and a value.
    pub fn entry(&self, page: u16) -> (Vec<u8>, Vec<u8>) {
        let from = usize::from(page) * HEADS_IN_A_PAGE;
        (heads_key(page), encode(&&self.0[from..from + HEADS_IN_A_PAGE]))
    }

    /// The head of one plate as it was written last.
    pub fn read(store: &Store, head: Head) -> Result<Option<Address>, StoreError> {
        let key = heads_key(head.page());
        let Some(value) = store.get(&key)? else {
            return Ok(None);
        };
        let of_page: Vec<Option<Address>> = decode(&key, &value)?;
        of_page.get(usize::from(head.0) % HEADS_IN_A_PAGE).copied().ok_or_else(|| damaged(&key))
    }
}

const PAGES_IN_A_MAP: u32 = 8192;

/// How many cars of each page of one garage are inside; pages without such are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupied(BTreeMap<u32, u32>);

impl Occupied {
    /// One more; the map that changed, if one did.
    pub fn enter(&mut self, page: u32) -> Option<u32> {
        let count = self.0.entry(page).or_default();
        *count += 1;
        (*count == 1).then_some(page / PAGES_IN_A_MAP)
    }

    /// One less.
    pub fn leave(&mut self, page: u32) -> Option<u32> {
        let count = self.0.get_mut(&page)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.0.remove(&page);
        Some(page / PAGES_IN_A_MAP)
    }

    /// A map as a key and a value; `None` for one without a bit.
    pub fn entry(&self, garage: u32, map: u32) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = [b"vo", &garage.to_be_bytes()[..], &map.to_be_bytes()].concat();
        let mut bits = Vec::new();
        for page in self.0.range(map * PAGES_IN_A_MAP..(map + 1) * PAGES_IN_A_MAP).map(|(page, _)| page) {
            let bit = (page % PAGES_IN_A_MAP) as usize;
            bits.resize(bit / 8 + 1, 0u8);
            bits[bit / 8] |= 1 << (bit % 8);
        }
        (key, (!bits.is_empty()).then_some(bits))
    }
}

/// The pages of garages from number `from` to `to` (exclusive) in which somebody is inside for less than 30 days, as they
/// were written last, ascending.
pub fn occupied_pages(store: &Store, from: u32, to: u32) -> Result<Vec<(u32, u32)>, StoreError> {
    mapped_pages(store, *b"vo", from, to)
}

/// Pages, each with the number of its garage.
pub type PagesOf = Vec<(u32, u32)>;

/// The page that a bit of a map stands for: the map, the byte in it, and the bit.
pub fn place_in_map(page: u32) -> (u32, usize, u8) {
    let bit = page % PAGES_IN_A_MAP;
    (page / PAGES_IN_A_MAP, (bit / 8) as usize, 1 << (bit % 8))
}

/// The pages that the maps under a prefix name.
pub fn mapped_pages(
    store: &Store,
    prefix: [u8; 2],
    from: u32,
    to: u32,
) -> Result<Vec<(u32, u32)>, StoreError> {
    let key = |garage: u32| [&prefix[..], &garage.to_be_bytes()].concat();
    let mut pages = Vec::new();
    for entry in store.range(&key(from), &key(to)) {
        let (key, bits) = entry?;
        let place: [u8; 8] = super::sized(&key[2..])?;
        let (garage, map) = place.split_at(4);
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        let first = number(map).checked_mul(PAGES_IN_A_MAP).ok_or_else(|| damaged(&key))?;
        for bit in 0..bits.len().min(PAGES_IN_A_MAP as usize / 8) * 8 {
            if bits[bit / 8] >> (bit % 8) & 1 == 1 {
                pages.push((number(garage), first + bit as u32));
            }
        }
    }
    Ok(pages)
}

/// The plates that were corrected last, by place in a ledger page.
pub type Readings = BTreeMap<u8, Box<str>>;

/// Which readings an event's are kept with: the position of its page and a quarter of it. Plates of any script and length
/// fit so.
pub type ReadingsOf = (u64, u8);

pub fn readings_key((position, quarter): ReadingsOf) -> Vec<u8> {
    [b"vr", &position.to_be_bytes()[..], &[quarter]].concat()
}

pub fn read_readings(store: &Store, of: ReadingsOf) -> Result<Readings, StoreError> {
    let key = readings_key(of);
    store.get(&key)?.map_or(Ok(Readings::new()), |value| decode(&key, &value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_longest_visits_fits_into_a_value() {
        let worst = Passage::new(u64::MAX, (u32::MAX, u64::MAX), (i64::from(u32::MAX) * -100_000, -1_560));
        let far = Address { garage: u32::MAX, page: u32::MAX, slot: SLOTS_MAX };
        let mut slots: Vec<Slot> = Vec::new();
        let mut reserved = 0;
        loop {
            let plate = Box::from("京".repeat(64));
            let visit = Visit::Stay { entry: worst, end: End::Inside };
            let cover = Cover::OneTooMany(u32::MAX);
            let slot = Slot { previous: Some(far), in_order: true, cover, visit: Some((plate, visit)) };
            reserved += slot.reserve();
            if reserved > PAGE_MAX {
                break;
            }
            slots.push(slot);
        }
        assert!(slots.len() > 10);
        for slot in 0..slots.len() {
            make(&mut slots, &Change::End(slot as u8, End::Left(worst))).unwrap();
        }
        assert!(encode_page(&slots).len() <= VALUE_MAX);
    }

    #[test]
    fn a_page_of_heads_fits_into_a_value() {
        // A garage for every thousand people of the world, each with ten billion visits.
        let far = Address { garage: 1 << 20, page: 1 << 27, slot: SLOTS_MAX };
        let heads = Heads(vec![Some(far); HEADS]);
        assert!(heads.entry(0).1.len() <= VALUE_MAX);
    }

    #[test]
    fn the_map_of_pages_tells_where_somebody_is_inside() {
        let store = Store::on(crate::store::simulated::Disk::default());
        let mut occupied = Occupied::default();
        assert_eq!(occupied.enter(3), Some(0));
        assert_eq!(occupied.enter(3), None);
        assert_eq!(occupied.enter(8191), Some(0));
        assert_eq!(occupied.enter(8192), Some(1));
        for map in [0, 1] {
            let (key, value) = occupied.entry(7, map);
            store.put(&key, &value.unwrap()).unwrap();
        }
        assert_eq!(occupied_pages(&store, 0, 9).unwrap(), [(7, 3), (7, 8191), (7, 8192)]);
        assert_eq!(occupied_pages(&store, 0, 7).unwrap(), []);
        assert_eq!(occupied.leave(8192), Some(1));
        assert_eq!(occupied.entry(7, 1).1, None);
    }
}
