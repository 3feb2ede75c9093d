//! When a sign says "full".

/// Whether a garage counts as full, when it did or did not a moment ago.
///
/// | before | no space is free | fewer free than [`free_again`] | more |
/// | --- | --- | --- | --- |
/// | not full | full | not full | not full |
/// | full | full | full | not full |
///
/// A full garage is one where a car that leaves is followed by one that waits at the barrier. A sign that changed with each of them
/// would send cars across the city to a space that is gone when they arrive.
pub fn is_full(was_full: bool, capacity: u32, free: u32) -> bool {
    free == 0 || was_full && free < free_again(capacity)
}

/// How many spaces have to be free before a full garage is no longer full: one, and 1 % of all (rounded up), but never more than there are.
fn free_again(capacity: u32) -> u32 {
    capacity.div_ceil(100).saturating_add(1).min(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_garage_is_free_again_when_more_than_one_space_in_a_hundred_is() {
        for (capacity, again) in
            [(1, 1), (2, 2), (3, 2), (100, 2), (101, 3), (500, 6), (u32::MAX, 42_949_674)]
        {
            assert!(is_full(true, capacity, again - 1), "{capacity}");
            assert!(!is_full(true, capacity, again), "{capacity}");
            assert!(!is_full(false, capacity, 1), "{capacity}");
        }
        assert!(is_full(false, 0, 0) && is_full(true, 0, 0), "a garage without spaces is full");
    }

    proptest! {
        #[test]
        fn a_sign_does_not_flicker_and_an_empty_garage_is_never_full(capacity in 1u32.., free in 0u32..) {
            let free = free.min(capacity);
            let after = is_full(true, capacity, free);
            prop_assert_eq!(is_full(after, capacity, free), after, "the same count changes nothing");
            prop_assert!(!is_full(true, capacity, capacity));
            prop_assert_eq!(is_full(false, capacity, free), free == 0);
        }
    }
}
