//! Bank accounts: IBAN (ISO 13616, check digits by ISO 7064) and BIC (ISO 9362).

use std::fmt;
use std::str::FromStr;

/// An account number whose check digits are right. Held without spaces, shown in groups of four.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iban(String);

/// A bank's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bic(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BankError {
    #[error(
        "{0:?} is not an IBAN: two letters, two digits, then 11 to 30 letters and digits, such as \"DE89 3704 0044 0532 0130 00\""
    )]
    IbanForm(String),
    #[error("the check digits of the IBAN {0:?} are wrong: a digit was mistyped, or two were exchanged")]
    IbanDigits(String),
    #[error(
        "{0:?} is not a BIC: 8 or 11 letters and digits with the country in the middle, such as \"COBADEFFXXX\""
    )]
    Bic(String),
}

impl FromStr for Iban {
    type Err = BankError;
    fn from_str(text: &str) -> Result<Iban, BankError> {
        let iban = without_spaces(text);
        let bytes = iban.as_bytes();
        let is_iban = (15..=34).contains(&bytes.len())
            && bytes[..2].iter().all(u8::is_ascii_uppercase)
            && bytes[2..4].iter().all(u8::is_ascii_digit)
            && bytes.iter().all(u8::is_ascii_alphanumeric);
        if !is_iban {
            return Err(BankError::IbanForm(text.to_owned()));
        }
        // The country and the check digits go to the end; a letter counts as a number from 10 to 35.
        let remainder = bytes[4..].iter().chain(&bytes[..4]).fold(0u32, |sum, c| match c {
            b'0'..=b'9' => (sum * 10 + u32::from(c - b'0')) % 97,
            _ => (sum * 100 + u32::from(c - b'A') + 10) % 97,
        });
        if remainder == 1 { Ok(Iban(iban)) } else { Err(BankError::IbanDigits(text.to_owned())) }
    }
}

impl fmt::Display for Iban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.chars().enumerate() {
            let space = if at > 0 && at % 4 == 0 { " " } else { "" };
            write!(f, "{space}{c}")?;
        }
        Ok(())
    }
}

impl FromStr for Bic {
    type Err = BankError;
    fn from_str(text: &str) -> Result<Bic, BankError> {
        let bic = without_spaces(text);
        let bytes = bic.as_bytes();
        let is_bic = matches!(bytes.len(), 8 | 11)
            && bytes.iter().all(u8::is_ascii_alphanumeric)
            && bytes[4..6].iter().all(u8::is_ascii_uppercase);
        if is_bic { Ok(Bic(bic)) } else { Err(BankError::Bic(text.to_owned())) }
    }
}

impl fmt::Display for Bic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect::<String>().to_ascii_uppercase()
}

serialize_as_text!(Iban);
serialize_as_text!(Bic);

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the registry of IBAN.
    #[test]
    fn an_iban_is_taken_with_spaces_and_shown_in_groups_of_four() {
        for (written, shown) in [
            ("DE89370400440532013000", "DE89 3704 0044 0532 0130 00"),
            ("gb29 nwbk 6016 1331 9268 19", "GB29 NWBK 6016 1331 9268 19"),
            ("NO93 8601 1117 947", "NO93 8601 1117 947"),
            (" MT84MALT011000012345MTLCAST001S ", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
        ] {
            let iban: Iban = written.parse().unwrap();
            assert_eq!(iban.to_string(), shown);
            assert_eq!(shown.parse(), Ok(iban));
        }
    }

    #[test]
    fn a_mistyped_iban_is_refused() {
        for wrong in ["DE89370400440532013001", "DE98370400440532013000", "DE89370400445032013000"] {
            assert_eq!(wrong.parse::<Iban>(), Err(BankError::IbanDigits(wrong.into())));
        }
        for wrong in
            ["", "DE89", "8937040044053201300012", "DE89-3704-0044-0532-0130-00", "ÄÖ89370400440532013000"]
        {
            assert_eq!(wrong.parse::<Iban>(), Err(BankError::IbanForm(wrong.into())));
        }
    }

    #[test]
    fn a_bic_has_8_or_11_characters_with_a_country() {
        for bic in ["COBADEFF", "cobadeffxxx", "NWBK GB 2L"] {
            assert!(bic.parse::<Bic>().is_ok(), "{bic}");
        }
        for wrong in ["", "COBADEF", "COBA12FF", "COBADEFFXX", "COBADEFF-XX"] {
            assert_eq!(wrong.parse::<Bic>(), Err(BankError::Bic(wrong.into())));
        }
    }
}
