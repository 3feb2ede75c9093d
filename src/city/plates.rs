//! Number plates for cars that do not exist.
//!
//! **Promise.** Within one seed, no two cars of a city carry the same plate, whatever their garages,
//! also after spaces and dashes are taken out; each plate is one that its country could have issued.
//! **Kept by.** A country is a pattern with a known number of plates, and a car's number is led through
//! them by a walk that visits each once. The patterns of two countries never give the same letters and
//! digits, so that a Bulgarian СА and a Ukrainian АА stay apart, and a German BAB 123 has no Swedish twin.
//! **Not promised.** That a plate is free in the real world. A country's plates begin anew once all
//! were given out, which for the smallest takes more than ten million cars.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One piece of a country's pattern.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// One of these, such as the code of a district.
    OneOf(&'static [&'static str]),
    /// One letter of these.
    Letter(&'static str),
    /// A number from the first to the second, both included, padded with zeros to so many digits.
    Number(u64, u64, usize),
    /// A separator, which only some cameras report.
    Mark(&'static str),
}

impl Part {
    fn choices(self) -> u64 {
        match self {
            Part::OneOf(texts) => texts.len() as u64,
            Part::Letter(letters) => letters.chars().count() as u64,
            Part::Number(first, last, _) => last - first + 1,
            Part::Mark(_) => 1,
        }
    }
}

/// How a country writes its plates.
#[derive(Debug)]
struct Country {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests name the country that failed"))]
    name: &'static str,
    pattern: &'static [Part],
}

impl Country {
    fn plates(&self) -> u64 {
        self.pattern.iter().map(|part| part.choices()).product()
    }

    /// Writes the plate with this number, which is below [`Country::plates`].
    fn write(&self, mut number: u64, reading: Reading, out: &mut String) {
        use std::fmt::Write;
        for part in self.pattern {
            let choice = number % part.choices();
            number /= part.choices();
            match *part {
                Part::OneOf(texts) => out.push_str(texts[choice as usize]),
                Part::Letter(letters) => out.extend(letters.chars().nth(choice as usize)),
                Part::Number(first, _, digits) => {
                    let value = first + choice;
                    write!(out, "{value:0digits$}").expect("a String takes all that is written");
                }
                Part::Mark(mark) if reading == Reading::Separated => out.push_str(mark),
                Part::Mark(_) => {}
            }
        }
    }
}

/// How a camera reports a plate. Both readings name the same car.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As it is painted: `B-AB 123`.
    Separated,
    /// Only the letters and digits: `BAB123`.
    Bare,
}

use Part::{Letter, Mark, Number, OneOf};

/// Since 2001, without the letters I and Q; nothing newer than 2016, the year of the recorded data.
const BRITAIN: Country = Country {
    name: "Great Britain",
    pattern: &[
        Letter("ABCDEFGHKLMNOPRSVWY"),
        Letter("ABCDEFGHJKLMNOPRSTUVWXY"),
        OneOf(&[
            "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15", "16", "51",
            "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63", "64", "65", "66",
        ]),
        Mark(" "),
        Letter("ABCDEFGHJKLMNOPRSTUVWXYZ"),
        Letter("ABCDEFGHJKLMNOPRSTUVWXYZ"),
        Letter("ABCDEFGHJKLMNOPRSTUVWXYZ"),
    ],
};

const IRELAND: Country = Country {
    name: "Ireland",
    pattern: &[
        OneOf(&["131", "132", "141", "142", "151", "152", "161", "162"]),
        Mark("-"),
        OneOf(&["D", "C", "G", "L", "W", "KE", "KY", "LH", "MH", "WX"]),
        Mark("-"),
        Number(1, 39_999, 1),
    ],
};

/// The first letter of the series leaves out those that would begin a pair that is not given out.
const GERMANY: Country = Country {
    name: "Germany",
    pattern: &[
        OneOf(&[
            "B", "M", "K", "F", "H", "S", "L", "N", "D", "E", "HH", "HB", "DD", "KA", "MA", "FR", "UL", "TÜ",
            "GÖ", "WÜ", "FÜ", "LÖ", "MZ", "KI", "HL", "BI",
        ]),
        Mark("-"),
        Letter("ACDEFGLMPRTUVWXYZ"),
        Letter("ABCDEFGHJKLMNPRSTUVWXYZ"),
        Mark(" "),
        Number(1, 9_999, 1),
    ],
};

/// The system of 2009, without the letters I, O and U.
const FRANCE: Country = Country {
    name: "France",
    pattern: &[
        Letter("ABCDE"),
        Letter("ABCDEFGHJKLMNPQRSTVWXYZ"),
        Mark("-"),
        Number(1, 999, 3),
        Mark("-"),
        Letter("ABCDEFGHJKLMNPQRTVWXYZ"),
        Letter("ABCDEFGHJKLMNPQRSTVWXYZ"),
    ],
};

/// The seventh of the Dutch series, which has no vowels.
const NETHERLANDS: Country = Country {
    name: "Netherlands",
    pattern: &[
        Number(1, 99, 2),
        Mark("-"),
        Letter("GHJKLNPRSTXZ"),
        Letter("BDFGHJKLNPRSTVXZ"),
        Letter("BDFGHJKLNPRSTVXZ"),
        Mark("-"),
        Number(1, 9, 1),
    ],
};

const SPAIN: Country = Country {
    name: "Spain",
    pattern: &[
        Number(0, 9_999, 4),
        Mark(" "),
        Letter("BCDFGHJ"),
        Letter("BCDFGHJKLMNPRSTVWXYZ"),
        Letter("BCDFGHJKLMNPRSTVWXYZ"),
    ],
};

const POLAND: Country = Country {
    name: "Poland",
    pattern: &[
        OneOf(&["WA", "WE", "WI", "KR", "PO", "GD", "GA", "DW", "LU", "RZ", "SK", "BI"]),
        Mark(" "),
        Number(10_000, 99_999, 5),
    ],
};

/// Greek letters, not the Latin ones that look like them.
const GREECE: Country = Country {
    name: "Greece",
    pattern: &[
        Letter("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
        Letter("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
        Letter("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
        Mark("-"),
        Number(1_000, 9_999, 4),
    ],
};

/// Cyrillic letters. Districts are those that Ukraine does not use as well in [`UKRAINE`].
const BULGARIA: Country = Country {
    name: "Bulgaria",
    pattern: &[
        OneOf(&["СА", "СВ", "РВ", "ЕН", "СТ", "ТХ", "РА", "ЕВ", "КН"]),
        Mark(" "),
        Number(1, 9_999, 4),
        Mark(" "),
        Letter("АВЕКМНОРСТУХ"),
        Letter("АВЕКМНОРСТУХ"),
    ],
};

/// Cyrillic letters, among them the Ukrainian І.
const UKRAINE: Country = Country {
    name: "Ukraine",
    pattern: &[
        OneOf(&["АА", "АІ", "АЕ", "АХ", "ВС", "ВК", "СЕ", "АТ"]),
        Mark(" "),
        Number(1, 9_999, 4),
        Mark(" "),
        Letter("АВЕІКМНОРСТХ"),
        Letter("АВЕІКМНОРСТХ"),
    ],
};

/// Which cars are seen in a city: countries, and how many of a hundred cars come from each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixture {
    /// The cars of Birmingham, for the recorded data.
    British,
    /// The cars of a city on the Rhine, for the simulated one.
    Continental,
}

impl Mixture {
    fn of_a_hundred(self) -> &'static [(Country, usize)] {
        match self {
            Mixture::British => &[
                (BRITAIN, 88),
                (IRELAND, 3),
                (POLAND, 2),
                (GERMANY, 2),
                (FRANCE, 1),
                (SPAIN, 1),
                (NETHERLANDS, 1),
                (BULGARIA, 1),
                (GREECE, 1),
            ],
            Mixture::Continental => &[
                (GERMANY, 66),
                (FRANCE, 9),
                (NETHERLANDS, 8),
                (POLAND, 5),
                (SPAIN, 2),
                (BRITAIN, 2),
                (IRELAND, 1),
                (GREECE, 2),
                (BULGARIA, 2),
                (UKRAINE, 3),
            ],
        }
    }
}

/// A way through all numbers below `length` that meets each of them once before it begins anew.
#[derive(Debug, Clone, Copy)]
struct Walk {
    length: u64,
    start: u64,
    stride: u64,
}

impl Walk {
    fn through(length: u64, rng: &mut ChaCha8Rng) -> Walk {
        let stride = loop {
            let stride = rng.random_range(length / 4..length * 3 / 4);
            if greatest_common_divisor(stride, length) == 1 {
                break stride;
            }
        };
        Walk { length, start: rng.random_range(0..length), stride }
    }

    fn step(self, index: u64) -> u64 {
        let far = u128::from(index) * u128::from(self.stride) + u128::from(self.start);
        (far % u128::from(self.length)) as u64
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Gives each car of a city its plate: car `n` of garage `g` has the same one whenever it is asked for.
#[derive(Debug)]
pub struct Registry {
    countries: &'static [(Country, usize)],
    walks: Vec<Walk>,
    /// Which country each of a hundred cars in a row comes from, and the how-manieth of it it is.
    hundred: Vec<(usize, usize)>,
    garages: u64,
}

impl Registry {
    /// The plates of a city with so many garages, at least one. One seed gives one registry.
    pub fn new(mixture: Mixture, seed: u64, garages: usize) -> Registry {
        use rand::seq::SliceRandom;
        assert!(garages > 0, "a city without garages has no cars");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::MAX);
        let countries = mixture.of_a_hundred();
        let walks = countries.iter().map(|(country, _)| Walk::through(country.plates(), &mut rng)).collect();
        let mut hundred: Vec<(usize, usize)> = countries
            .iter()
            .enumerate()
            .flat_map(|(country, (_, cars))| (0..*cars).map(move |nth| (country, nth)))
            .collect();
        assert_eq!(hundred.len(), 100, "a mixture tells of a hundred cars");
        hundred.shuffle(&mut rng);
        Registry { countries, walks, hundred, garages: garages as u64 }
    }

    /// Appends the plate of car `number` of garage `garage` to `out`, as this camera reads it.
    pub fn write(&self, garage: usize, number: u64, reading: Reading, out: &mut String) {
        let (country, nth) = self.hundred[(number % 100) as usize];
        let (pattern, cars) = &self.countries[country];
        let index = (number / 100) * *cars as u64 + nth as u64;
        let place = self.walks[country].step(index * self.garages + garage as u64);
        pattern.write(place, reading, out);
    }
}

/// What is left of a plate when its separators are taken out, appended to `out`. The city's plates are
/// in upper case and composed already, so this is the whole rule by which two readings are one car.
pub fn write_key(plate: &str, out: &mut String) {
    out.extend(plate.chars().filter(|letter| letter.is_alphanumeric()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use unicode_normalization::is_nfc;

    fn plate(registry: &Registry, garage: usize, number: u64, reading: Reading) -> String {
        let mut out = String::new();
        registry.write(garage, number, reading, &mut out);
        out
    }

    #[test]
    fn no_two_cars_of_a_city_carry_the_same_plate() {
        for mixture in [Mixture::British, Mixture::Continental] {
            let registry = Registry::new(mixture, 7, 30);
            let mut seen = HashSet::new();
            for garage in 0..30 {
                for number in 0..10_000 {
                    let bare = plate(&registry, garage, number, Reading::Bare);
                    assert!(seen.insert(bare.clone()), "{bare} was given out twice");
                }
            }
        }
    }

    #[test]
    fn the_countries_share_no_plate() {
        // Letters and digits as shapes: two countries may share a shape only if their districts differ.
        let mut owners = std::collections::HashMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for country in [
            &BRITAIN,
            &IRELAND,
            &GERMANY,
            &FRANCE,
            &NETHERLANDS,
            &SPAIN,
            &POLAND,
            &GREECE,
            &BULGARIA,
            &UKRAINE,
        ] {
            for _ in 0..50_000 {
                let mut text = String::new();
                country.write(rng.random_range(0..country.plates()), Reading::Bare, &mut text);
                let shape: String = text
                    .chars()
                    .map(|c| match c {
                        '0'..='9' => '0',
                        'A'..='Z' | 'Ä' | 'Ö' | 'Ü' => 'A',
                        other => other,
                    })
                    .collect();
                let owner = owners.entry(shape.clone()).or_insert(country.name);
                assert_eq!(*owner, country.name, "{text} has the shape {shape}");
            }
        }
    }

    #[test]
    fn every_plate_is_one_that_the_daemons_accept() {
        let registry = Registry::new(Mixture::Continental, 3, 5);
        let (mut greek, mut cyrillic) = (0, 0);
        for number in 0..20_000 {
            let text = plate(&registry, 2, number, Reading::Separated);
            let mut key = String::new();
            write_key(&text, &mut key);
            assert_eq!(key, plate(&registry, 2, number, Reading::Bare));
            assert!((2..=16).contains(&key.chars().count()), "{text}");
            assert!(is_nfc(&text) && text.to_uppercase() == text, "{text}");
            greek += usize::from(key.chars().any(|c| ('Α'..='Ω').contains(&c)));
            cyrillic += usize::from(key.chars().any(|c| ('І'..='Я').contains(&c)));
        }
        assert!(greek > 300 && cyrillic > 800, "{greek} Greek, {cyrillic} Cyrillic");
    }

    #[test]
    fn letters_of_other_scripts_are_not_latin_look_alikes() {
        for country in [&GREECE, &BULGARIA, &UKRAINE] {
            for part in country.pattern {
                let letters: String = match *part {
                    OneOf(texts) => texts.concat(),
                    Letter(letters) => letters.to_owned(),
                    Number(..) | Mark(_) => continue,
                };
                assert!(!letters.chars().any(|c| c.is_ascii()), "{}", country.name);
            }
        }
    }

    #[test]
    fn one_seed_gives_one_registry_and_another_seed_another() {
        let write = |seed| plate(&Registry::new(Mixture::British, seed, 3), 1, 41, Reading::Bare);
        assert_eq!(write(5), write(5));
        assert_ne!(write(5), write(6));
    }
}
