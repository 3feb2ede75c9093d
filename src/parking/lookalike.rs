//! Plates that a camera may have misread: one look-alike letter apart.
//!
//! **Promise.** Two plates are one apart when they have the same length and differ in one place, by a pair that users report
//! as misread: O0, I1, B8, S5, Z2, D0, G6. Unmatched entries and exits that are one apart are proposed to a person, each at most once, and the
//! same ones give the same proposals in whatever order they come.
//! **Kept by.** [`skeleton`] is equal for all plates that are one apart, so candidates are found by an index; [`one_apart`]
//! decides.
//! **Not promised.** That a proposal is right: it never leads to a charge by itself. O and D both look like 0, but are not a pair.
//! Other look-alikes, of Latin or of two scripts, are not in the list: it holds what users report.

use super::plate::Plate;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Sub;

/// Characters that cameras and people take for each other, in both directions.
pub const PAIRS: [(char, char); 7] =
    [('O', '0'), ('I', '1'), ('B', '8'), ('S', '5'), ('Z', '2'), ('D', '0'), ('G', '6')];

/// A place, counted in letters from 0, and what two plates have there.
type Difference = (usize, char, char);

/// Where two plates differ, when they are one look-alike apart: the place, counted in letters from 0, and what each has there.
pub fn one_apart(a: &Plate, b: &Plate) -> Option<Difference> {
    let (mut left, mut right) = (a.as_str().chars(), b.as_str().chars());
    let mut found = None;
    for place in 0.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (Some(x), Some(y)) if x == y => {}
            (Some(x), Some(y)) if found.is_none() && is_pair(x, y) => found = Some((place, x, y)),
            _ => return None,
        }
    }
    found
}

fn is_pair(x: char, y: char) -> bool {
    PAIRS.contains(&(x, y)) || PAIRS.contains(&(y, x))
}

/// The plate with each look-alike letter as the digit it resembles. Plates that are one apart have the same; not all that
/// have the same are one apart.
pub fn skeleton(plate: &Plate) -> String {
    let digit = |c| PAIRS.iter().find(|(letter, _)| *letter == c).map_or(c, |(_, digit)| *digit);
    plate.as_str().chars().map(digit).collect()
}

/// An entry without an exit, or an exit without an entry, at one garage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedPassage<I, T> {
    pub id: I,
    pub plate: Plate,
    pub at: T,
}

/// An entry and a later exit that may be one stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal<I> {
    pub entry: I,
    pub exit: I,
    /// Where the plates differ, and what the entry and the exit have there.
    pub place: usize,
    pub at_entry: char,
    pub at_exit: char,
}

/// Proposes pairs among the leftovers of one garage: an entry with a later exit, one look-alike apart. The pair that is
/// nearest in time comes first, and takes both out of the question for others; of pairs equally near, the earlier entry's,
/// then the smaller ids'. `T` is a time that can be subtracted, such as milliseconds.
pub fn pair_leftovers<I, T>(
    entries: &[UnmatchedPassage<I, T>],
    exits: &[UnmatchedPassage<I, T>],
) -> Vec<Proposal<I>>
where
    I: Clone + Ord,
    T: Copy + Ord + Sub,
    T::Output: Copy + Ord,
{
    let mut by_skeleton: BTreeMap<String, LookalikeGroup<I, T>> = BTreeMap::new();
    for entry in entries {
        by_skeleton.entry(skeleton(&entry.plate)).or_default().entries.push(entry);
    }
    for exit in exits {
        // Without an entry of its kind an exit cannot be paired.
        if let Some(group) = by_skeleton.get_mut(&skeleton(&exit.plate)) {
            group.exits.push(exit);
        }
    }
    let mut found: Vec<(T::Output, T, Proposal<I>)> =
        by_skeleton.into_values().flat_map(LookalikeGroup::pair).collect();
    found.sort_by(|(near, at, one), (other_near, other_at, other)| {
        (near, at, &one.entry, &one.exit).cmp(&(other_near, other_at, &other.entry, &other.exit))
    });
    found.into_iter().map(|(_, _, proposal)| proposal).collect()
}

/// Entries and exits with one skeleton. Pairs exist only within a group.
struct LookalikeGroup<'a, I, T> {
    entries: Vec<&'a UnmatchedPassage<I, T>>,
    exits: Vec<&'a UnmatchedPassage<I, T>>,
}

impl<I, T> Default for LookalikeGroup<'_, I, T> {
    fn default() -> Self {
        LookalikeGroup { entries: Vec::new(), exits: Vec::new() }
    }
}

impl<I, T> LookalikeGroup<'_, I, T>
where
    I: Clone + Ord,
    T: Copy + Ord + Sub,
    T::Output: Copy + Ord,
{
    /// The nearest pair of all, then the nearest of what is left, and so on.
    fn pair(mut self) -> Vec<(T::Output, T, Proposal<I>)> {
        self.entries.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        self.exits.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        let mut apart: HashMap<(&Plate, &Plate), Option<Difference>> = HashMap::new();
        let mut used = vec![false; self.exits.len()];
        // Each entry waits with the nearest exit that it may still have: the heap stays as small as the entries are many.
        let mut next = |entry: usize, from: usize, used: &[bool]| {
            let its = self.entries[entry];
            (from..self.exits.len()).find_map(|exit| {
                let candidate = self.exits[exit];
                if used[exit] || candidate.at <= its.at {
                    return None;
                }
                let apart = apart
                    .entry((&its.plate, &candidate.plate))
                    .or_insert_with(|| one_apart(&its.plate, &candidate.plate));
                apart.map(|apart| Reverse((candidate.at - its.at, entry, exit, apart)))
            })
        };
        let mut waiting = BinaryHeap::new();
        for (entry, its) in self.entries.iter().enumerate() {
            let first = self.exits.partition_point(|exit| exit.at <= its.at);
            waiting.extend(next(entry, first, &used));
        }
        let mut found = Vec::new();
        while let Some(Reverse((near, entry, exit, (place, at_entry, at_exit)))) = waiting.pop() {
            if used[exit] {
                waiting.extend(next(entry, exit + 1, &used));
                continue;
            }
            used[exit] = true;
            let (entry, exit) = (self.entries[entry], self.exits[exit]);
            let proposal =
                Proposal { entry: entry.id.clone(), exit: exit.id.clone(), place, at_entry, at_exit };
            found.push((near, entry.at, proposal));
        }
        found
    }
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
            ("BO1", "B01", Some((1, 'O', '0'))),
            ("B01", "BO1", Some((1, '0', 'O'))),
            ("AI1", "A11", Some((1, 'I', '1'))),
            ("AB1", "A81", Some((1, 'B', '8'))),
            ("S1", "51", Some((0, 'S', '5'))),
            ("A12", "A1Z", Some((2, '2', 'Z'))),
            ("D1", "01", Some((0, 'D', '0'))),
            ("AG1", "A61", Some((1, 'G', '6'))),
            ("ÄÖO1", "ÄÖ01", Some((2, 'O', '0'))),
            ("BO1", "BO1", None),
            ("BO1", "BD1", None),
            ("BO1", "BQ1", None),
            ("BOO1", "B001", None),
            ("BO1", "B0", None),
            ("BO1", "BO10", None),
            ("А0", "АО", None), // Cyrillic О
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

    type One = UnmatchedPassage<u32, i64>;

    fn leftover(id: u32, text: &str, at: i64) -> One {
        UnmatchedPassage { id, plate: plate(text), at }
    }
    fn pairs(entries: &[One], exits: &[One]) -> Vec<(u32, u32)> {
        pair_leftovers(entries, exits).into_iter().map(|its| (its.entry, its.exit)).collect()
    }

    #[test]
    fn the_nearest_pair_comes_first_and_each_is_used_once() {
        let entries =
            [leftover(1, "BO1", 0), leftover(2, "BO1", 50), leftover(3, "BO1", 200), leftover(4, "XY1", 0)];
        let exits = [leftover(11, "B01", 60), leftover(12, "B01", 100), leftover(13, "BO1", 10)];
        assert_eq!(pairs(&entries, &exits), [(2, 11), (1, 12)]);
        let proposal = &pair_leftovers(&entries, &exits)[0];
        assert_eq!((proposal.place, proposal.at_entry, proposal.at_exit), (1, 'O', '0'));
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
                if one_apart(&entry.plate, &exit.plate).is_some() && entry.at < exit.at {
                    all.push((exit.at - entry.at, entry.at, entry.id, exit.id));
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
            prop_assert_eq!(one_apart(&with(was), &with(is)), Some((place, was, is)));
            prop_assert_eq!(skeleton(&with(was)), skeleton(&with(is)));
        }
    }
}
