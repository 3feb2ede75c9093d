//! A Bloom filter of plates (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970): it says which plates were
//! certainly never added.

use std::hash::{DefaultHasher, Hash, Hasher};

/// What stands for a plate here and in [`RecentCars`](super::recent::RecentCars).
pub fn hash_of(plate: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    plate.hash(&mut hasher);
    hasher.finish()
}

/// Each plate sets two of `BITS` bits; the memory is taken with the first plate. With one plate for 16 bits, one of 70 others is held
/// to be here in vain, with one for 32, one of 270.
#[derive(Debug, Clone, Default)]
pub struct PlateFilter<const BITS: u64>(Vec<u64>);

/// It only saves work: what is found in the store is the same with and without it.
impl<const BITS: u64> PartialEq for PlateFilter<BITS> {
    fn eq(&self, _: &PlateFilter<BITS>) -> bool {
        true
    }
}
impl<const BITS: u64> Eq for PlateFilter<BITS> {}

impl<const BITS: u64> PlateFilter<BITS> {
    fn places(hash: u64) -> [u64; 2] {
        [hash % BITS, (hash >> 22) % BITS]
    }

    pub fn add(&mut self, hash: u64) {
        if self.0.is_empty() {
            self.0 = vec![0; (BITS / 64) as usize];
        }
        for place in Self::places(hash) {
            self.0[(place / 64) as usize] |= 1 << (place % 64);
        }
    }

    pub fn may_hold(&self, hash: u64) -> bool {
        let holds = |place: u64| self.0[(place / 64) as usize] >> (place % 64) & 1 == 1;
        !self.0.is_empty() && Self::places(hash).into_iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_never_rules_out_what_was_added() {
        let mut filter = PlateFilter::<{ 1 << 24 }>::default();
        assert!(!filter.may_hold(hash_of("AB1")));
        (0..100_000).for_each(|n| filter.add(hash_of(&format!("AB{n}"))));
        assert!((0..100_000).all(|n| filter.may_hold(hash_of(&format!("AB{n}")))));
        let in_vain = (0..100_000).filter(|n| filter.may_hold(hash_of(&format!("CD{n}")))).count();
        assert!(in_vain < 1_000, "{in_vain}");
    }
}
