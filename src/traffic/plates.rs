//! Number plates for cars that do not exist.
//!
//! **Promise.** Within one seed, no two cars of a city have the same plate, whatever their garages, also after spaces and
//! dashes are removed. Each plate is one that its country could have issued.
//! **Kept by.** A country is a pattern with a known number of plates, and a car's number selects one of them by steps
//! that visit each plate once. The patterns of two countries never give the same letters and digits: British plates end in
//! letters, German ones in digits, and Greek letters are not Latin ones.
//! **Not promised.** That a plate is free in the real world. A country's plates repeat once all of them were used, which takes
//! more than ten million cars.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// One piece of a country's pattern.
#[derive(Debug, Clone, Copy)]
enum PatternPart {
    /// One of these texts, such as the code of a district.
    OneOf(&'static [&'static str]),
    /// One of these letters.
    Letter(&'static str),
    /// A number from the first to the second, both included.
    Number(u64, u64),
    /// A space or a dash.
    Separator(char),
}

impl PatternPart {
    fn choices(self) -> u64 {
        match self {
            PatternPart::OneOf(texts) => texts.len() as u64,
            PatternPart::Letter(letters) => letters.chars().count() as u64,
            PatternPart::Number(first, last) => last - first + 1,
            PatternPart::Separator(_) => 1,
        }
    }
}

/// How a country writes its plates.
type Pattern = &'static [PatternPart];

fn plates_of(pattern: Pattern) -> u64 {
    pattern.iter().map(|part| part.choices()).product()
}

/// The plate with this number, which is below [`plates_of`] the pattern.
fn write_plate(pattern: Pattern, mut number: u64) -> String {
    let mut plate = String::new();
    for part in pattern {
        let choice = number % part.choices();
        number /= part.choices();
        match *part {
            PatternPart::OneOf(texts) => plate.push_str(texts[choice as usize]),
            PatternPart::Letter(letters) => plate.extend(letters.chars().nth(choice as usize)),
            PatternPart::Number(first, _) => plate.push_str(&(first + choice).to_string()),
            PatternPart::Separator(separator) => plate.push(separator),
        }
    }
    plate
}

use PatternPart::{Letter, Number, OneOf, Separator};

/// The system since 2001, without the letters I and Q. No plate is newer than 2016, the year of the recorded data.
const BRITAIN: Pattern = &[
    Letter("ABCDEFGHKLMNOPRSVWY"),
    Letter("ABCDEFGHJKLMNOPRSTUVWXY"),
    OneOf(&[
        "02", "03", "04", "05", "06", "07", "08", "09", "51", "52", "53", "54", "55", "56", "57", "58", "59",
    ]),
    Separator(' '),
    Letter("ABCDEFGHJKLMNOPRSTUVWXYZ"),
    Letter("ABCDEFGHJKLMNOPRSTUVWXYZ"),
    Letter("ABCDEFGHJKLMNOPRSTUVWXYZ"),
];

/// The first letter of the series leaves out those that would begin a pair that is not issued.
const GERMANY: Pattern = &[
    OneOf(&["B", "M", "K", "F", "H", "S", "HH", "KA", "MZ", "UL", "TÜ", "GÖ", "WÜ", "FÜ", "LÖ"]),
    Separator('-'),
    Letter("ACDEFGLMPRTUVWXYZ"),
    Letter("ABCDEFGHJKLMNPRSTUVWXYZ"),
    Separator(' '),
    Number(1, 9_999),
];

/// Greek letters, not the Latin ones that look like them.
const GREECE: Pattern = &[
    Letter("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
    Letter("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
    Letter("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
    Separator('-'),
    Number(1_000, 9_999),
];

/// Countries, and how many of a hundred cars come from each.
const OF_A_HUNDRED: &[(Pattern, u64)] = &[(BRITAIN, 40), (GERMANY, 56), (GREECE, 4)];

/// A prime above the number of plates of each country: steps of this length visit each plate once before any repeats.
const STRIDE: u128 = (1 << 31) - 1;

/// Gives each car of a city its plate: car `n` of garage `g` always has the same one.
#[derive(Debug)]
pub struct PlateRegistry {
    pub(super) seed: u64,
    /// For each country: the number of its first car's plate.
    first_plates: Vec<u64>,
    garages: u64,
}

impl PlateRegistry {
    /// The plates of a city with this many garages, at least one. One seed gives one registry.
    pub fn new(seed: u64, garages: usize) -> PlateRegistry {
        assert!(garages > 0, "a city without garages has no cars");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Garages use the streams from 0 on, faults the last but one.
        rng.set_stream(u64::MAX);
        let first_plates =
            OF_A_HUNDRED.iter().map(|(pattern, _)| rng.random_range(0..plates_of(pattern))).collect();
        PlateRegistry { seed, first_plates, garages: garages as u64 }
    }

    /// The plate of car `number` of garage `garage` as it is painted: `B-AB 123`.
    pub fn plate(&self, garage: usize, number: u64) -> Arc<str> {
        // The countries take turns: 37 and 100 have no factor in common, so each of a hundred cars in a row has its own place.
        let mut place = number % 100 * 37 % 100;
        for ((pattern, cars), first) in OF_A_HUNDRED.iter().zip(&self.first_plates) {
            if place < *cars {
                let index = (number / 100 * cars + place) * self.garages + garage as u64;
                let plate = u128::from(*first) + u128::from(index) * STRIDE;
                return write_plate(pattern, (plate % u128::from(plates_of(pattern))) as u64).into();
            }
            place -= cars;
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
