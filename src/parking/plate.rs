//! Number plates.
//!
//! **Promise.** One car is one plate, whatever the width, the case and the script of the digits in which a camera or a person writes it,
//! and whatever separates the letters. Nothing is guessed: O is not 0, and Cyrillic А is not Latin A. Normalising twice changes nothing.
//! **Kept by.** [`Plate::new`] where a plate comes in. What is stored is read as it stands ([`Plate::stored`]).
//! **Not promised.** That separators distinguish plates: `B-NO 1` and `BN-O 1` are one plate.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{
    GeneralCategory as Category, GeneralCategoryGroup as Group, UnicodeGeneralCategory,
};

/// A normalised plate: 1 to 16 letters and decimal digits, without separators and invisible characters. Stored as a text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "SmolStr")]
pub struct Plate(SmolStr);

/// As a text in quotes, for messages to people.
impl fmt::Debug for Plate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlateError {
    #[error("a plate has 1 to 16 letters and digits, this one has {0}")]
    Length(usize),
    #[error("a plate is made of letters and digits, {0:?} is neither")]
    Character(char),
}

impl Plate {
    pub const MIN: usize = 1;
    pub const MAX: usize = 16;

    /// Normalises `text` as it comes from a camera or a person: NFKC, decimal digits of any script as ASCII, Unicode upper case;
    /// spaces, dashes, dots, middle dots and what is invisible are removed.
    pub fn new(text: &str) -> Result<Plate, PlateError> {
        if is_plain(text) {
            return Ok(Plate(text.into()));
        }
        check_bytes(text)?;
        let is_simple = text.chars().all(|c| c.is_ascii() || is_capital(c));
        if is_simple { Plate::of_simple(text) } else { Plate::of_unicode(text) }
    }

    /// What [`Plate::of_unicode`] makes of ASCII and common capital letters, without its tables: nearly all plates come so.
    fn of_simple(text: &str) -> Result<Plate, PlateError> {
        let plate: String =
            text.chars().filter(|c| !is_removed(*c)).map(|c| c.to_ascii_uppercase()).collect();
        if let Some(odd) = plate.chars().find(|c| !c.is_ascii_alphanumeric() && !is_capital(*c)) {
            return Err(PlateError::Character(odd));
        }
        check_length(plate.chars().count(), 0, Self::MIN)?;
        Ok(Plate(plate.into()))
    }

    fn of_unicode(text: &str) -> Result<Plate, PlateError> {
        if let Some(odd) = text.chars().find(|c| is_mark_on_a_space(*c)) {
            return Err(PlateError::Character(odd));
        }
        let mut plate = normalised(text);
        // Upper case may have a compatible form of its own.
        for _ in 0..4 {
            let again = normalised(&plate);
            if again == plate {
                break;
            }
            plate = again;
        }
        let (mut length, mut marks, mut is_behind_a_letter) = (0, 0, false);
        for c in plate.chars() {
            match c.general_category_group() {
                Group::Letter => (length, is_behind_a_letter) = (length + 1, true),
                _ if c.is_ascii_digit() => (length, is_behind_a_letter) = (length + 1, false),
                // Letters of some scripts carry marks that have no composed form.
                Group::Mark if is_behind_a_letter && c.general_category() != Category::EnclosingMark => {
                    marks += 1;
                }
                _ => return Err(PlateError::Character(c)),
            }
        }
        check_length(length, marks, Self::MIN)?;
        Ok(Plate(plate.into()))
    }

    /// A plate that this program or an earlier release stored. The rule was another once, and what it made of a plate stays a plate, so
    /// that the same records give the same books.
    pub fn stored(text: &str) -> Result<Plate, PlateError> {
        if is_plain(text) {
            return Ok(Plate(text.into()));
        }
        by_first_rule(text).or_else(|_| Plate::new(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<SmolStr> for Plate {
    type Error = PlateError;
    fn try_from(stored: SmolStr) -> Result<Plate, PlateError> {
        if is_plain(&stored) { Ok(Plate(stored)) } else { Plate::stored(&stored) }
    }
}

/// Most plates come as they should be: the ledger's all do.
fn is_plain(text: &str) -> bool {
    let fits = (Plate::MIN..=Plate::MAX).contains(&text.len());
    fits && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || is_capital(c))
}

/// Capital letters that no rule changes, and that do not compose with each other: Latin, Greek and Cyrillic ones.
fn is_capital(c: char) -> bool {
    matches!(c, 'À'..='Ö' | 'Ø'..='Þ' | 'Α'..='Ρ' | 'Σ'..='Ω' | 'А'..='Я')
}

/// What is far too long is not a plate, whatever it would be normalised to.
fn check_bytes(text: &str) -> Result<(), PlateError> {
    if text.len() > 1024 { Err(PlateError::Length(text.chars().count())) } else { Ok(()) }
}

fn check_length(length: usize, marks: usize, least: usize) -> Result<(), PlateError> {
    let fits = (least..=Plate::MAX).contains(&length) && marks <= 2 * Plate::MAX;
    if fits { Ok(()) } else { Err(PlateError::Length(length)) }
}

fn normalised(text: &str) -> String {
    let bare = text.nfkc().filter(|c| !is_removed(*c)).map(|c| decimal_digit(c).unwrap_or(c));
    // Letters that a separator held apart may compose, and upper case may decompose.
    bare.flat_map(char::to_uppercase).filter(|c| !is_removed(*c)).nfkc().collect()
}

/// Nearly all plates are in ASCII, for which the tables of Unicode take long.
fn is_removed(c: char) -> bool {
    if c.is_ascii() { c.is_whitespace() || matches!(c, '-' | '.') } else { is_removed_in_unicode(c) }
}

fn is_removed_in_unicode(c: char) -> bool {
    let is_dash = c == '\u{2212}' || c.general_category() == Category::DashPunctuation;
    c.is_whitespace() || is_dash || DOTS.contains(c) || is_invisible(c)
}

const DOTS: &str = ".\u{b7}\u{2022}\u{2027}\u{2219}\u{22c5}\u{2e31}\u{3002}\u{30fb}";

/// Format characters, and what Unicode calls default ignorable: variation selectors, marks and letters that show nothing.
fn is_invisible(c: char) -> bool {
    c.general_category() == Category::Format
        || matches!(u32::from(c), 0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f
            | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
            | 0xfff0..=0xfff8 | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

/// Decimal digits stand in Unicode in runs from 0 to 9, and where two runs touch, ten by ten.
fn decimal_digit(c: char) -> Option<char> {
    let is_decimal =
        |code: u32| char::from_u32(code).is_some_and(|c| c.general_category() == Category::DecimalNumber);
    if c.is_ascii() || !is_decimal(u32::from(c)) {
        return None;
    }
    let before = (0..u32::from(c)).rev().take_while(|code| is_decimal(*code)).count();
    char::from_digit((before % 10) as u32, 10)
}

/// NFKC takes `´` for a space with a mark. Without the space the mark would move to the letter before it.
fn is_mark_on_a_space(c: char) -> bool {
    !c.is_whitespace() && !c.is_ascii() && std::iter::once(c).nfkc().any(char::is_whitespace)
}

/// The rule of the first release: NFC, upper case, and at least two letters or numbers of any kind.
fn by_first_rule(text: &str) -> Result<Plate, PlateError> {
    const LEAST: usize = 2;
    let is_of_a_plate = |c: char| c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c);
    check_bytes(text)?;
    let bare = text.nfc().filter(|c| !was_separator(*c)).flat_map(char::to_uppercase);
    let plate: String = bare.filter(|c| !was_separator(*c)).nfc().collect();
    if let Some(odd) = plate.chars().find(|c| !is_of_a_plate(*c)) {
        return Err(PlateError::Character(odd));
    }
    let length = plate.chars().filter(|c| c.is_alphanumeric()).count();
    check_length(length, plate.chars().count() - length, LEAST)?;
    Ok(Plate(plate.into()))
}

fn was_separator(c: char) -> bool {
    const SEPARATORS: &str =
        "-\u{ad}\u{2212}\u{fe58}\u{fe63}\u{ff0d}.\u{b7}\u{2022}\u{2219}\u{22c5}\u{30fb}\u{ff65}";
    c.is_whitespace() || matches!(c, '\u{2010}'..='\u{2015}') || SEPARATORS.contains(c)
}

impl fmt::Display for Plate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plate(text: &str) -> String {
        Plate::new(text).unwrap().to_string()
    }

    #[test]
    fn one_car_is_one_plate_however_it_is_written() {
        for spelling in ["B-AB 123", "b ab123", "B·AB·123", "B–AB\u{a0}123", "B.AB.123"] {
            assert_eq!(plate(spelling), "BAB123");
        }
        assert_eq!(plate("mü-x 1"), plate("MU\u{308}X1"));
    }

    #[test]
    fn plates_of_other_scripts_are_plates() {
        assert_eq!(plate("а 123 вс 77"), "А123ВС77");
        assert_eq!(plate("ΙΒΝ-1234"), "ΙΒΝ1234");
        assert_eq!(plate("京A·12345"), "京A12345");
        assert_eq!(plate("品川 300 あ 12-34"), "品川300あ1234");
    }

    #[test]
    fn nothing_is_guessed() {
        assert_ne!(plate("O1"), plate("01"));
        assert_ne!(plate("AB1"), plate("АВ1"), "Cyrillic is not Latin");
    }

    #[test]
    fn what_is_no_plate_is_refused_with_the_reason() {
        assert_eq!(Plate::new(""), Err(PlateError::Length(0)));
        assert_eq!(Plate::new("- ."), Err(PlateError::Length(0)));
        assert_eq!(Plate::new(&"A".repeat(17)), Err(PlateError::Length(17)));
        assert_eq!(Plate::new("AB<1>"), Err(PlateError::Character('<')));
        assert_eq!(Plate::new("AB\u{0}1"), Err(PlateError::Character('\u{0}')));
    }

    #[test]
    fn a_mark_behind_a_separator_belongs_to_its_letter() {
        assert_eq!(plate("e-\u{301}A1"), "ÉA1");
        assert!(Plate::new(&format!("AB1{}", "\u{301}".repeat(60))).is_err());
    }

    /// Each was once a car of its own, so that a stay that began under one never ended under another.
    #[test]
    fn one_car_has_one_plate_in_any_width_and_in_the_digits_of_any_script() {
        for (spelling, one) in [
            ("ＢＡＢ１２３", "BAB123"),
            ("ｂ－ａｂ　１２３", "BAB123"),
            ("۱۲۳", "123"),
            ("١٢٣", "123"),
            ("१२३", "123"),
            ("๑๒๓", "123"),
            ("𝟏𝟐𝟑", "123"),
            ("B²", "B2"),
            ("①②", "12"),
            ("B\u{fe0f}AB\u{200d}1\u{202c}\u{feff}\u{34f}\u{e0101}", "BAB1"),
            ("A\u{3164}\u{ffa0}1", "A1"),
            ("Ⅷ7", "VIII7"),
            ("ｱ12", "ア12"),
            ("straße 1", "STRASSE1"),
            ("ﬁ1", "FI1"),
            ("बा १ च १२३४", "बा1च1234"),
        ] {
            assert_eq!(plate(spelling), one, "{spelling}");
        }
    }

    /// Plates in Hong Kong may be a single letter, and "taken at least two" left no way to count that car.
    #[test]
    fn a_plate_may_be_one_letter_or_one_digit() {
        for (text, one) in [("D", "D"), (" 9 ", "9"), ("d", "D"), ("٧", "7")] {
            assert_eq!(plate(text), one);
        }
    }

    #[test]
    fn what_is_neither_letter_nor_digit_in_any_width_is_refused() {
        for (text, odd) in [
            ("½A", '\u{2044}'),
            ("A´1", '´'),
            ("A¨", '¨'),
            ("1\u{20e3}", '\u{20e3}'),
            ("1\u{301}", '\u{301}'),
            ("\u{301}A", '\u{301}'),
            ("A፩", '፩'),
            ("A_1", '_'),
            ("A\u{2800}1", '\u{2800}'),
            ("🚗1", '🚗'),
        ] {
            assert_eq!(Plate::new(text), Err(PlateError::Character(odd)), "{text}");
        }
    }

    #[test]
    fn what_the_first_rule_stored_is_read_as_it_was() {
        for kept in ["ＢＡＢ１２３", "۱۲۳", "B②", "½½", "AB\u{fe0f}", "BAB123", "京A12345", "É1"]
        {
            assert_eq!(Plate::stored(kept).as_ref().map(Plate::as_str), Ok(kept));
        }
        assert_eq!(Plate::stored("b-ab 1").as_ref().map(Plate::as_str), Ok("BAB1"), "as it always was");
        for no_plate in ["", "?", "-", "AB<1>"] {
            assert!(Plate::stored(no_plate).is_err(), "{no_plate}");
        }
    }

    /// The oracle is the plate in plain ASCII, before it was written in some other way.
    fn written_somehow() -> impl Strategy<Value = (String, String)> {
        const ZEROS: [char; 8] = ['0', '０', '٠', '۰', '०', '০', '๐', '\u{1d7ce}'];
        const BETWEEN: [&str; 9] = ["", " ", "-", "\u{2013}", "·", ".", "\u{3000}", "\u{fe0f}", "\u{200b}"];
        let letter = (prop::char::range('A', 'Z'), 0..3u8).prop_map(|(c, style)| match style {
            0 => (c, c),
            1 => (c, c.to_ascii_lowercase()),
            _ => (c, char::from_u32(u32::from(c) + 0xfee0).unwrap()),
        });
        let digit = (0..10u32, prop::sample::select(&ZEROS[..])).prop_map(|(digit, zero)| {
            (char::from_digit(digit, 10).unwrap(), char::from_u32(u32::from(zero) + digit).unwrap())
        });
        let each = (prop_oneof![letter, digit], prop::sample::select(&BETWEEN[..]));
        prop::collection::vec(each, 1..=Plate::MAX).prop_map(|all| {
            let plain = all.iter().map(|((plain, _), _)| *plain).collect();
            (plain, all.iter().map(|((_, written), between)| format!("{written}{between}")).collect())
        })
    }

    #[test]
    fn of_ascii_the_same_is_removed_as_by_the_tables_of_unicode() {
        for c in '\0'..='\x7f' {
            assert_eq!(is_removed(c), is_removed_in_unicode(c), "{c:?}");
        }
    }

    #[test]
    fn normalising_any_one_character_twice_changes_nothing() {
        // Tens of thousands that are all alike.
        let is_one_of_many = |c: char| {
            let many = ['\u{3400}'..='\u{9fff}', '\u{ac00}'..='\u{d7a3}', '\u{12000}'..='\u{18cff}'];
            many.iter().any(|range| range.contains(&c))
        };
        let is_assigned = |c: &char| !c.is_ascii() && c.general_category_group() != Group::Other;
        for c in ('\u{0}'..='\u{1ffff}').filter(is_assigned).filter(|c| !is_one_of_many(*c)) {
            for text in [c.to_string(), format!("E{c}9")] {
                if let Ok(once) = Plate::new(&text) {
                    assert_eq!(Plate::new(once.as_str()), Ok(once.clone()), "{c:?}");
                    assert_eq!(Plate::stored(once.as_str()), Ok(once), "{c:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,20}", marked in "(\\p{L}|\\p{N}|\\p{M}){1,8}") {
            for text in [text, marked] {
                if let Ok(once) = Plate::new(&text) {
                    prop_assert_eq!(Plate::new(once.as_str()), Ok(once.clone()));
                    prop_assert_eq!(Plate::stored(once.as_str()), Ok(once));
                }
            }
        }

        #[test]
        fn simple_plates_are_read_as_the_tables_of_unicode_say(
            text in "[\\x00-\\x7f]{0,20}",
            likely in "[A-Za-z0-9 .À-ÖØ-ÞΑ-ΡΣ-ΩА-Я-]{0,20}",
        ) {
            for text in [text, likely] {
                prop_assert_eq!(Plate::of_simple(&text), Plate::of_unicode(&text));
                if is_plain(&text) {
                    let by_first_rule = by_first_rule(&text).or_else(|_| Plate::of_unicode(&text));
                    prop_assert_eq!(by_first_rule.as_ref().map(Plate::as_str), Ok(text.as_str()));
                }
            }
        }

        #[test]
        fn a_plate_is_one_however_it_is_written((plain, written) in written_somehow()) {
            prop_assert_eq!(plate(&written), plain);
        }
    }
}
