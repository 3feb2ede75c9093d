//! Chains of everything that belongs to one plate, newest first.
//!
//! Plates are found through a hash table of a fixed size ([`CHAINS`]): a head names the newest member of its chain, and each
//! member the one before it, as in a log with an index of heads (FASTER, Bitcask's ancestors). An append costs one head in
//! memory, and looking for a plate reads the members of its chain, one of 65,536, and nothing else. Sorted runs would need
//! merging, and pages sorted by plate a rewrite for every event, because cars come in no order.

use super::codec::{damaged, encode, read, read_range, sized};
use crate::parking::Plate;
use crate::store::{Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many plates share a chain depends on this number: with a million visits, seventeen.
pub const CHAINS: usize = 1 << 16;
const HEADS_IN_A_PAGE: usize = 512;
pub const HEAD_PAGES: usize = CHAINS / HEADS_IN_A_PAGE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlateChain(u16);

impl PlateChain {
    pub fn of(plate: &Plate) -> PlateChain {
        // FNV-1a. An attacker who makes plates that share a chain makes that chain long; `LOOK_BACK` limits what it costs.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = plate.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step);
        PlateChain((hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }

    pub fn head_page(self) -> u16 {
        self.0 / HEADS_IN_A_PAGE as u16
    }
}

/// Where the newest member of a chain is; the default value stands for an empty chain.
pub trait ChainLink: Copy + Default + PartialEq + Serialize + DeserializeOwned {
    /// What the keys of the heads begin with; a page number (u16) follows.
    const PREFIX: &'static [u8];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHeads<L>(Vec<L>);

impl<L: ChainLink> Default for ChainHeads<L> {
    fn default() -> ChainHeads<L> {
        ChainHeads(vec![L::default(); CHAINS])
    }
}

impl<L: ChainLink> ChainHeads<L> {
    fn key(page: u16) -> Vec<u8> {
        [L::PREFIX, &page.to_be_bytes()].concat()
    }

    pub fn load(store: &Store) -> Result<ChainHeads<L>, StoreError> {
        let mut heads = ChainHeads::default();
        let (prefix, kind) = L::PREFIX.split_at(L::PREFIX.len() - 1);
        let end = [prefix, &[kind[0] + 1]].concat();
        for entry in read_range::<Vec<L>>(store, L::PREFIX, &end) {
            let (key, of_page) = entry?;
            let page = u16::from_be_bytes(sized(&key, L::PREFIX.len()..key.len())?);
            match heads.0.chunks_exact_mut(HEADS_IN_A_PAGE).nth(usize::from(page)) {
                Some(place) if of_page.len() == place.len() => place.copy_from_slice(&of_page),
                _ => return Err(damaged(&key)),
            }
        }
        Ok(heads)
    }

    pub fn get(&self, chain: PlateChain) -> L {
        self.0[chain.index()]
    }

    pub fn set(&mut self, chain: PlateChain, newest: L) {
        self.0[chain.index()] = newest;
    }

    pub fn entry(&self, page: u16) -> (Vec<u8>, Vec<u8>) {
        let from = usize::from(page) * HEADS_IN_A_PAGE;
        (Self::key(page), encode(&&self.0[from..from + HEADS_IN_A_PAGE]))
    }

    pub fn read(store: &Store, chain: PlateChain) -> Result<L, StoreError> {
        let key = Self::key(chain.head_page());
        let Some(of_page) = read::<Vec<L>>(store, &key)? else { return Ok(L::default()) };
        of_page.get(chain.index() % HEADS_IN_A_PAGE).copied().ok_or_else(|| damaged(&key))
    }
}

/// The members of a chain from `newest` on. `read` gives the member at a place and the place of the one before it.
pub fn walk<P: Copy, T>(
    newest: Option<P>,
    mut read: impl FnMut(P) -> Result<(T, Option<P>), StoreError>,
) -> impl Iterator<Item = Result<(P, T), StoreError>> {
    let mut next = newest;
    std::iter::from_fn(move || {
        let place = next.take()?;
        Some(read(place).map(|(member, before)| {
            next = before;
            (place, member)
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::pages::{SLOTS_MAX, SlotAddress};
    use super::*;
    use crate::store::VALUE_MAX;

    #[test]
    fn a_page_of_heads_fits_into_a_value() {
        // A garage for every thousand people of the world, each with ten billion visits.
        let far = SlotAddress { garage: 1 << 20, page: 1 << 27, slot: SLOTS_MAX };
        let heads = ChainHeads(vec![Some(far); CHAINS]);
        assert!(heads.entry(0).1.len() <= VALUE_MAX);
    }
}
