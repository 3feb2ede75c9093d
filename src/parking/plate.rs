//! Number plates.

use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// A normalised plate: 2 to 16 letters and digits of any script, upper case, NFC, without the separators that
/// people and cameras write differently. Nothing is guessed: O is not 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plate(String);

/// Why a text is no plate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlateError {
    #[error("a plate has 2 to 16 letters and digits, this one has {0}")]
    Length(usize),
    #[error("a plate is made of letters and digits, {0:?} is neither")]
    Character(char),
}

impl Plate {
    pub const MIN: usize = 2;
    pub const MAX: usize = 16;

    /// Normalises `text` as it comes from a camera or a person: NFC, Unicode upper case, then spaces, dashes, dots and
    /// middle dots are removed.
    pub fn new(text: &str) -> Result<Plate, PlateError> {
        // Most plates come as they should be: the ledger's all do.
        let as_it_should_be = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit();
        if (Self::MIN..=Self::MAX).contains(&text.len()) && text.bytes().all(as_it_should_be) {
            return Ok(Plate(text.to_owned()));
        }
        // What is far too long is no plate, whatever it would be normalised to.
        if text.len() > 1024 {
            return Err(PlateError::Length(text.chars().count()));
        }
        // Letters that a separator held apart may compose, and upper case may decompose: NFC comes last.
        let bare = text.nfc().filter(|c| !is_separator(*c)).flat_map(char::to_uppercase);
        let plate: String = bare.filter(|c| !is_separator(*c)).nfc().collect();
        if let Some(odd) = plate.chars().find(|c| !is_letter_or_digit(*c)) {
            return Err(PlateError::Character(odd));
        }
        let length = plate.chars().filter(|c| c.is_alphanumeric()).count();
        let marks = plate.chars().count() - length;
        if !(Self::MIN..=Self::MAX).contains(&length) || marks > 2 * Self::MAX {
            return Err(PlateError::Length(length));
        }
        Ok(Plate(plate))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Letters of some scripts carry marks that have no composed form; they belong to the letter.
fn is_letter_or_digit(c: char) -> bool {
    c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c)
}

/// Space in all its widths, dash and its look-alikes, dot, middle dot.
fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '-' | '\u{ad}' | '\u{2010}'
                ..='\u{2015}'
                    | '\u{2212}'
                    | '\u{fe58}'
                    | '\u{fe63}'
                    | '\u{ff0d}'
                    | '.'
                    | '\u{b7}'
                    | '\u{2022}'
                    | '\u{2219}'
                    | '\u{22c5}'
                    | '\u{30fb}'
                    | '\u{ff65}'
        )
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
        assert_eq!(Plate::new("A"), Err(PlateError::Length(1)));
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

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,20}") {
            if let Ok(once) = Plate::new(&text) {
                prop_assert_eq!(Plate::new(once.as_str()), Ok(once));
            }
        }
    }
}
