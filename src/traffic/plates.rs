//! Number plates for cars that do not exist.
//!
//! **Promise.** Within one seed, no two cars of a city have the same plate, whatever their garages, also after spaces and
//! dashes are removed, until more than ten million cars have come. Each plate is one that its country could have issued.
//! **Kept by.** A country is a pattern with a known number of plates, and a car's number selects one of them by steps
//! that visit each plate once. Two countries never give the same letters and digits: British plates end in letters, German ones
//! in digits, and Greek letters are not Latin ones.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How a country writes its plates: for each part of a plate the texts that it can be.
type Pattern = Vec<Vec<String>>;

fn one_of(texts: &str) -> Vec<String> {
    texts.split(',').map(str::to_owned).collect()
}

fn letters(letters: &str) -> Vec<String> {
    letters.chars().map(String::from).collect()
}

fn numbers(range: RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The system since 2001, without the letters I and Q. No plate is newer than 2016, the year of the recorded data.
fn britain() -> Pattern {
    let ages = one_of("02,03,04,05,06,07,08,09,51,52,53,54,55,56,57,58,59");
    let last = || letters("ABCDEFGHJKLMNOPRSTUVWXYZ");
    let (area, office) = (letters("ABCDEFGHKLMNOPRSVWY"), letters("ABCDEFGHJKLMNOPRSTUVWXY"));
    vec![area, office, ages, one_of(" "), last(), last(), last()]
}

/// The first letter of the series leaves out those that would begin a pair that is not issued.
fn germany() -> Pattern {
    let towns = one_of("B,M,K,F,H,S,HH,KA,MZ,UL,TÜ,GÖ,WÜ,FÜ,LÖ");
    let (first, second) = (letters("ACDEFGLMPRTUVWXYZ"), letters("ABCDEFGHJKLMNPRSTUVWXYZ"));
    vec![towns, one_of("-"), first, second, one_of(" "), numbers(1..=9_999)]
}

/// Greek letters, not the Latin ones that look like them.
fn greece() -> Pattern {
    let letter = || letters("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ");
    vec![letter(), letter(), letter(), one_of("-"), numbers(1_000..=9_999)]
}

/// A prime above the number of plates of each country: steps of this length visit each plate once before any repeats.
const STRIDE: u128 = (1 << 31) - 1;

#[derive(Debug)]
struct PlateCountry {
    pattern: Pattern,
    plates: u64,
    /// How many of a hundred cars come from it.
    share: u64,
    first: u64,
}

/// Gives each car of a city its plate: car `n` of garage `g` always has the same one.
#[derive(Debug)]
pub struct PlateRegistry {
    pub(super) seed: u64,
    countries: Vec<PlateCountry>,
    garages: u64,
}

impl PlateRegistry {
    /// The plates of a city with this many garages, at least one. One seed gives one registry.
    pub fn new(seed: u64, garages: usize) -> PlateRegistry {
        assert!(garages > 0, "a city without garages has no cars");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Garages use the streams from 0 on, faults the last but one.
        rng.set_stream(u64::MAX);
        let countries = [(britain(), 40), (germany(), 56), (greece(), 4)].map(|(pattern, share)| {
            let plates = pattern.iter().map(|texts| texts.len() as u64).product();
            PlateCountry { pattern, plates, share, first: rng.random_range(0..plates) }
        });
        PlateRegistry { seed, countries: countries.into(), garages: garages as u64 }
    }

    /// The plate of car `number` of garage `garage` as it is painted: `B-AB 123`.
    pub fn plate(&self, garage: usize, number: u64) -> Arc<str> {
        // The countries take turns: 37 and 100 have no factor in common, so each of a hundred cars in a row has its own place.
        let mut place = number % 100 * 37 % 100;
        for PlateCountry { pattern, plates, share, first } in &self.countries {
            if place < *share {
                let index = (number / 100 * share + place) * self.garages + garage as u64;
                let mut rest =
                    ((u128::from(*first) + u128::from(index) * STRIDE) % u128::from(*plates)) as usize;
                let mut plate = String::new();
                for texts in pattern {
                    plate.push_str(&texts[rest % texts.len()]);
                    rest /= texts.len();
                }
                return plate.into();
            }
            place -= share;
        }
        unreachable!("the countries have a hundred cars together")
    }
}

/// A plate without its separators: `BAB123`. The plates here are in upper case and composed already, so this is the whole rule
/// by which two readings are one car.
pub fn letters_and_digits(plate: &str) -> String {
    plate.chars().filter(|letter| letter.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use unicode_normalization::is_nfc;

    #[test]
    fn no_two_cars_of_a_city_have_the_same_plate() {
        let registry = PlateRegistry::new(7, 30);
        let mut seen = HashSet::new();
        for garage in 0..30 {
            for number in 0..10_000 {
                let bare = letters_and_digits(&registry.plate(garage, number));
                assert!(seen.insert(bare.clone()), "{bare} was used twice");
            }
        }
    }

    #[test]
    fn every_plate_is_one_that_the_daemons_accept() {
        let registry = PlateRegistry::new(3, 5);
        let (mut greek, mut latin) = (0, 0);
        for number in 0..20_000 {
            let text = registry.plate(2, number);
            let key = letters_and_digits(&text);
            assert!((2..=16).contains(&key.chars().count()), "{text}");
            assert!(is_nfc(&text) && *text.to_uppercase() == *text, "{text}");
            let has = |of: fn(char) -> bool| key.chars().any(of);
            match (has(|c| ('Α'..='Ω').contains(&c)), has(|c| c.is_ascii_alphabetic())) {
                (true, false) => greek += 1,
                (false, true) => latin += 1,
                other => panic!("{text} mixes scripts: {other:?}"),
            }
        }
        assert_eq!((greek, latin), (800, 19_200));
    }

    #[test]
    fn one_seed_gives_one_registry_and_another_seed_another() {
        let plate = |seed| PlateRegistry::new(seed, 3).plate(1, 41);
        assert_eq!(plate(5), plate(5));
        assert_ne!(plate(5), plate(6));
    }
}
