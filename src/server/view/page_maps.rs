//! Bit maps of the pages in which a car is inside, so that neither a start nor a list reads all pages.
//!
//! The key of a map is a prefix, the garage (u32) and a number (u32); its value has a bit for each of 8,192 pages.

use super::codec::{damaged, key_u32, sized, u32_from};
use crate::store::{Store, StoreError};
use std::collections::BTreeMap;

const PAGES_IN_A_MAP: u32 = 8192;

/// The prefix of the maps of pages in which a car has been inside for less than 30 days.
pub const OCCUPIED: &[u8] = b"vo";
/// The prefix of the maps of pages in which a car has been inside for longer.
pub const AGED: &[u8] = b"vk";

/// How many cars of each page of one garage are inside; pages without any are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupied(BTreeMap<u32, u32>);

impl Occupied {
    pub fn enter(&mut self, page: u32) -> Option<u32> {
        let count = self.0.entry(page).or_default();
        *count += 1;
        (*count == 1).then_some(page / PAGES_IN_A_MAP)
    }

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
        let key = [OCCUPIED, &garage.to_be_bytes(), &map.to_be_bytes()].concat();
        let mut bits = Vec::new();
        for page in self.0.range(map * PAGES_IN_A_MAP..(map + 1) * PAGES_IN_A_MAP).map(|(page, _)| page) {
            let (_, byte, bit) = place_in_map(*page);
            bits.resize(byte + 1, 0u8);
            bits[byte] |= bit;
        }
        (key, (!bits.is_empty()).then_some(bits))
    }
}

/// The page that a bit of a map stands for: the map, the byte in it, and the bit.
pub fn place_in_map(page: u32) -> (u32, usize, u8) {
    let bit = page % PAGES_IN_A_MAP;
    (page / PAGES_IN_A_MAP, (bit / 8) as usize, 1 << (bit % 8))
}

/// The pages that the maps under a prefix name, of garages from number `from` to `to` (exclusive), as they were written last: each
/// with the number of its garage, ascending.
pub fn mapped_pages(store: &Store, prefix: &[u8], from: u32, to: u32) -> Result<Vec<(u32, u32)>, StoreError> {
    let mut pages = Vec::new();
    for entry in store.range(&key_u32(prefix, from), &key_u32(prefix, to)) {
        let (key, bits) = entry?;
        let garage = u32::from_be_bytes(sized(&key, 2..6)?);
        let first = u32_from(&key, 6)?.checked_mul(PAGES_IN_A_MAP).ok_or_else(|| damaged(&key))?;
        for bit in 0..bits.len().min(PAGES_IN_A_MAP as usize / 8) * 8 {
            if bits[bit / 8] >> (bit % 8) & 1 == 1 {
                pages.push((garage, first + bit as u32));
            }
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(mapped_pages(&store, OCCUPIED, 0, 9).unwrap(), [(7, 3), (7, 8191), (7, 8192)]);
        assert_eq!(mapped_pages(&store, OCCUPIED, 0, 7).unwrap(), []);
        assert_eq!(occupied.leave(8192), Some(1));
        assert_eq!(occupied.entry(7, 1).1, None);
    }
}
