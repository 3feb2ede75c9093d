//! Names that operators give: accounts, contracts, garages, customers. A name is printable UTF-8 in normal form C.

use crate::text::is_unprintable;
use smol_str::SmolStr;
use std::fmt;
use std::str::FromStr;
use unicode_normalization::UnicodeNormalization;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("it is empty")]
    Empty,
    #[error("it has {bytes} bytes, the limit is {limit}")]
    Long { bytes: usize, limit: usize },
    #[error("it contains {0:?}, which is not a printable character")]
    Unprintable(char),
    #[error("{0:?} is reserved for the stays of unregistered plates")]
    Reserved(String),
}

/// The account to which stays are charged: 1 to 64 bytes of printable UTF-8 in normal form C, without spaces at the ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(SmolStr);

/// As a text in quotes, for messages to people.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Account {
    /// The name shown for plates that are not registered. No [`Account`] has this name, in any case of the letters.
    pub const UNREGISTERED: &str = "unregistered";
    pub const MAX_BYTES: usize = 64;

    /// Brings `text` into normal form C, removes spaces at its ends, and checks it.
    pub fn new(text: &str) -> Result<Account, LabelError> {
        let name = label(text)?;
        let is_reserved = name.eq_ignore_ascii_case(Self::UNREGISTERED);
        if is_reserved { Err(LabelError::Reserved(name)) } else { Ok(Account(name.into())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl FromStr for Account {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Account, LabelError> {
        Account::new(text)
    }
}
serialize_as_text!(Account);

/// A name of 1 to 64 bytes, as garages and contracts have.
pub fn label(text: &str) -> Result<String, LabelError> {
    let name = printable(text, Account::MAX_BYTES)?;
    if name.is_empty() { Err(LabelError::Empty) } else { Ok(name) }
}

/// A text in normal form C without spaces at its ends. It may be empty.
pub fn printable(text: &str, limit: usize) -> Result<String, LabelError> {
    let text = text.trim();
    let name: String = if text.is_ascii() { text.to_owned() } else { text.nfc().collect() };
    if name.len() > limit {
        return Err(LabelError::Long { bytes: name.len(), limit });
    }
    match name.chars().find(|c| is_unprintable(*c)) {
        Some(odd) => Err(LabelError::Unprintable(odd)),
        None => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accounts_are_names() {
        for (text, name) in [
            ("miller", "miller"),
            (" Müller & Co. ", "Müller & Co."),
            ("Su\u{308}d", "Süd"),
            ("4711", "4711"),
        ] {
            assert_eq!(Account::new(text).unwrap().as_str(), name);
        }
        let most = "x".repeat(64);
        assert_eq!(Account::new(&most).unwrap().as_str(), most);
    }

    #[test]
    fn what_is_no_account_is_refused_with_the_reason() {
        assert_eq!(Account::new("  "), Err(LabelError::Empty));
        assert_eq!(Account::new(&"ä".repeat(33)), Err(LabelError::Long { bytes: 66, limit: 64 }));
        assert_eq!(Account::new("a\u{202e}b"), Err(LabelError::Unprintable('\u{202e}')));
        assert_eq!(Account::new("a\nb"), Err(LabelError::Unprintable('\n')));
        for text in ["unregistered", "Unregistered", " UNREGISTERED "] {
            assert!(matches!(Account::new(text), Err(LabelError::Reserved(_))), "{text}");
        }
    }

    #[test]
    fn an_account_travels_as_its_name_and_is_checked_on_arrival() {
        let bytes = postcard::to_allocvec(&Account::new("miller").unwrap()).unwrap();
        assert_eq!(bytes, postcard::to_allocvec("miller").unwrap());
        assert!(postcard::from_bytes::<Account>(&bytes).is_ok());
        assert!(postcard::from_bytes::<Account>(&postcard::to_allocvec("unregistered").unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn an_account_read_again_is_the_same(text in "\\PC{0,20}") {
            if let Ok(account) = Account::new(&text) {
                prop_assert_eq!(Account::new(account.as_str()), Ok(account));
            }
        }
    }
}
