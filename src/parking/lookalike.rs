//! Plates that a camera may have misread: one look-alike letter apart.
//!
//! **Promise.** Two plates are one apart when they have the same length and differ in one place, by a pair that users report
//! as misread: O0, I1, B8, S5, Z2, D0, G6. Unmatched entries and exits that are one apart are proposed to a person, each at most once, and the
//! same ones give the same proposals in whatever order they come.
//! **Kept by.** [`skeleton`] is equal for all plates that are one apart, so candidates are found by an index; [`one_apart`]
//! decides.
//! **Not promised.** That a proposal is right: it never leads to a charge by itself. O and D both look like 0, but are not a pair.

use super::plate::Plate;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// Characters that cameras and people take for each other, in both directions.
const PAIRS: [(char, char); 7] =
    [('O', '0'), ('I', '1'), ('B', '8'), ('S', '5'), ('Z', '2'), ('D', '0'), ('G', '6')];

fn one_apart(a: &Plate, b: &Plate) -> bool {
    let (a, b) = (a.as_str(), b.as_str());
    let mut different = a.chars().zip(b.chars()).filter(|(x, y)| x != y);
    a.chars().count() == b.chars().count()
        && different.next().is_some_and(|(x, y)| is_pair(x, y))
        && different.next().is_none()
}

fn is_pair(x: char, y: char) -> bool {
    PAIRS.contains(&(x, y)) || PAIRS.contains(&(y, x))
}

/// The plate with each look-alike letter as its digit: equal for plates that are one apart, and for some that are not.
fn skeleton(plate: &Plate) -> String {
    let digit = |c| PAIRS.iter().find(|(letter, _)| *letter == c).map_or(c, |(_, digit)| *digit);
    plate.as_str().chars().map(digit).collect()
}

/// An entry without an exit, or an exit without an entry, at one garage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedPassage<I> {
    pub id: I,
    pub plate: Plate,
    pub at_ms: i64,
}

/// An entry and a later exit that may be one stay.
pub type ProposedPair<'a, I> = (&'a UnmatchedPassage<I>, &'a UnmatchedPassage<I>);

/// Proposes pairs among the leftovers of one garage: an entry with a later exit, one look-alike apart. The pair that is
/// nearest in time comes first, and takes both out of the question for others; of pairs equally near, the earlier entry's,
/// then the smaller ids'.
pub fn pair_leftovers<'a, I: Ord>(
    entries: &'a [UnmatchedPassage<I>],
    exits: &'a [UnmatchedPassage<I>],
) -> Vec<ProposedPair<'a, I>> {
    // Pairs exist only within a group of one skeleton.
    let mut by_skeleton: BTreeMap<String, (Passages<'_, I>, Passages<'_, I>)> = BTreeMap::new();
    for entry in entries {
        by_skeleton.entry(skeleton(&entry.plate)).or_default().0.push(entry);
    }
    for exit in exits {
        // Without an entry of its kind an exit cannot be paired.
        if let Some((_, exits)) = by_skeleton.get_mut(&skeleton(&exit.plate)) {
            exits.push(exit);
        }
    }
    let groups = by_skeleton.into_values();
    let mut found: Vec<_> = groups.flat_map(|(entries, exits)| pair_group(entries, exits)).collect();
    found.sort_by_key(|(entry, exit)| (exit.at_ms - entry.at_ms, entry.at_ms, &entry.id, &exit.id));
    found
}

type Passages<'a, I> = Vec<&'a UnmatchedPassage<I>>;

/// The nearest pair of all, then the nearest of what is left, and so on.
fn pair_group<'a, I: Ord>(
    mut entries: Passages<'a, I>,
    mut exits: Passages<'a, I>,
) -> Vec<ProposedPair<'a, I>> {
    entries.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
    exits.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
    let mut apart: HashMap<(&Plate, &Plate), bool> = HashMap::new();
    let mut used = vec![false; exits.len()];
    // Each entry waits with the nearest exit that it may still have: the heap stays as small as the entries are many.
    let mut next = |entry: usize, from: usize, used: &[bool]| {
        let its = entries[entry];
        (from..exits.len()).find_map(|exit| {
            let candidate = exits[exit];
            let is_possible = !used[exit] && candidate.at_ms > its.at_ms;
            let is_pair = is_possible
                && *apart
                    .entry((&its.plate, &candidate.plate))
                    .or_insert_with(|| one_apart(&its.plate, &candidate.plate));
            is_pair.then(|| Reverse((candidate.at_ms - its.at_ms, entry, exit)))
        })
    };
    let mut waiting = BinaryHeap::new();
    for (entry, its) in entries.iter().enumerate() {
        let first = exits.partition_point(|exit| exit.at_ms <= its.at_ms);
        waiting.extend(next(entry, first, &used));
    }
    let mut found = Vec::new();
    while let Some(Reverse((_, entry, exit))) = waiting.pop() {
        if used[exit] {
            waiting.extend(next(entry, exit + 1, &used));
            continue;
        }
        used[exit] = true;
        found.push((entries[entry], exits[exit]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plate(text: &str) -> Plate {
        Plate::new(text).unwrap()
    }

    #[test]
    fn plates_are_one_apart_by_a_pair_of_the_list() {
        for (a, b, apart) in [
            ("BO1", "B01", true),
            ("B01", "BO1", true),
            ("AI1", "A11", true),
            ("AB1", "A81", true),
            ("S1", "51", true),
            ("A12", "A1Z", true),
            ("D1", "01", true),
            ("AG1", "A61", true),
            ("ÄÖO1", "ÄÖ01", true),
            ("BO1", "BO1", false),
            ("BO1", "BD1", false),
            ("BO1", "BQ1", false),
            ("BOO1", "B001", false),
            ("BO1", "B0", false),
            ("BO1", "BO10", false),
            ("А0", "АО", false), // Cyrillic О
        ] {
            assert_eq!(one_apart(&plate(a), &plate(b)), apart, "{a} {b}");
        }
    }

    #[test]
    fn a_skeleton_is_made_of_what_letters_resemble() {
        for (text, skeleton_of) in [("OI BSZDG", "0185206"), ("A0Q", "A0Q"), ("ÄО1", "ÄО1")] {
            assert_eq!(skeleton(&plate(text)), skeleton_of);
        }
    }

    type One = UnmatchedPassage<u32>;

    fn leftover(id: u32, text: &str, at: i64) -> One {
        UnmatchedPassage { id, plate: plate(text), at_ms: at }
    }
    fn pairs(entries: &[One], exits: &[One]) -> Vec<(u32, u32)> {
        pair_leftovers(entries, exits).into_iter().map(|(entry, exit)| (entry.id, exit.id)).collect()
    }

    #[test]
    fn the_nearest_pair_comes_first_and_each_is_used_once() {
        let entries =
            [leftover(1, "BO1", 0), leftover(2, "BO1", 50), leftover(3, "BO1", 200), leftover(4, "XY1", 0)];
        let exits = [leftover(11, "B01", 60), leftover(12, "B01", 100), leftover(13, "BO1", 10)];
        assert_eq!(pairs(&entries, &exits), [(2, 11), (1, 12)]);
    }

    #[test]
    fn an_exit_does_not_come_before_or_with_its_entry() {
        assert_eq!(pairs(&[leftover(1, "BO1", 10)], &[leftover(2, "B01", 10), leftover(3, "B01", 9)]), []);
        assert_eq!(pairs(&[leftover(1, "BO1", 10)], &[leftover(2, "B01", 11)]), [(1, 2)]);
    }

    #[test]
    fn equal_skeletons_are_not_enough() {
        assert_eq!(pairs(&[leftover(1, "BO1", 0)], &[leftover(2, "BD1", 5), leftover(3, "801", 6)]), []);
        assert_eq!(
            pairs(&[leftover(1, "B01", 0)], &[leftover(2, "BD1", 5), leftover(3, "801", 6)]),
            [(1, 2)]
        );
    }

    fn any_leftovers(first_id: u32) -> impl Strategy<Value = Vec<One>> {
        let one = (prop::sample::select(&["BO1", "B01", "BD1", "801", "8O1", "BOI", "XY1"][..]), 0i64..12);
        prop::collection::vec(one, 0..8).prop_map(move |all| {
            all.into_iter().zip(first_id..).map(|((text, at), id)| leftover(id, text, at)).collect()
        })
    }

    /// The definition: of all pairs take the nearest, strike both out, repeat.
    fn oracle(entries: &[One], exits: &[One]) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        for entry in entries {
            for exit in exits {
                if one_apart(&entry.plate, &exit.plate) && entry.at_ms < exit.at_ms {
                    all.push((exit.at_ms - entry.at_ms, entry.at_ms, entry.id, exit.id));
                }
            }
        }
        all.sort();
        let mut chosen: Vec<(u32, u32)> = Vec::new();
        for (_, _, entry, exit) in all {
            if chosen.iter().all(|(e, x)| *e != entry && *x != exit) {
                chosen.push((entry, exit));
            }
        }
        chosen
    }

    proptest! {
        #[test]
        fn proposals_are_what_the_definition_says_in_whatever_order_leftovers_come(
            entries in any_leftovers(0),
            exits in any_leftovers(100),
        ) {
            let expected = oracle(&entries, &exits);
            prop_assert_eq!(pairs(&entries, &exits), expected.clone());
            let (mut entries, mut exits) = (entries, exits);
            entries.reverse();
            exits.reverse();
            prop_assert_eq!(pairs(&entries, &exits), expected);
        }

        #[test]
        fn who_is_one_apart_has_one_skeleton(
            text in "[A-Z0-9]{2,8}",
            place in any::<prop::sample::Index>(),
            pair in prop::sample::select(&PAIRS[..]),
            letter in any::<bool>(),
        ) {
            let place = place.index(text.len());
            let (was, is) = if letter { (pair.0, pair.1) } else { (pair.1, pair.0) };
            let with = |c: char| {
                let text: String = text.chars().enumerate().map(|(n, old)| if n == place { c } else { old }).collect();
                plate(&text)
            };
            prop_assert!(one_apart(&with(was), &with(is)));
            prop_assert_eq!(skeleton(&with(was)), skeleton(&with(is)));
        }
    }
}
