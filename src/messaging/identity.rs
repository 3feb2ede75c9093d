//! The identifiers used in messages: sites, epochs, sequences, ledgers and digests.

use crate::text::is_unprintable;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// The number of a message in its epoch: 1, 2, 3, … without gaps. 0 does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    pub const FIRST: Sequence = Sequence(NonZeroU64::MIN);

    pub fn new(number: u64) -> Option<Sequence> {
        NonZeroU64::new(number).map(Sequence)
    }
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a run of sequences of one outbox: a random UUID. When its next sequence is not certain, an outbox begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(UuidBytes);

/// The id of a ledger: a random UUID, drawn when the ledger is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LedgerId(UuidBytes);

/// UUIDs are sixteen plain bytes in our formats; `uuid`'s own serde form adds a length.
type UuidBytes = [u8; 16];

macro_rules! identified_by_uuid {
    ($name:ident) => {
        impl $name {
            pub fn random() -> Self {
                Self(Uuid::new_v4().into_bytes())
            }
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Ok(Self(Uuid::try_parse(text)?.into_bytes()))
            }
        }
    };
}
identified_by_uuid!(Epoch);
identified_by_uuid!(LedgerId);

/// The first 16 bytes of a page's BLAKE3 hash: its identity and its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest([u8; 16]);

impl Digest {
    pub const LEN: usize = 16;

    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes().first_chunk().expect("a hash is longer"))
    }
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Digest {
        Digest(bytes)
    }
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name that an operator gave to a site: 1 to 64 bytes of printable UTF-8 in normal form C, spaces allowed inside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SiteName(String);

/// A text in quotes, as it appears in messages to people; it does not show how we store it.
impl fmt::Debug for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteNameError {
    #[error("a name needs 1 to 64 bytes, this one has {0}")]
    Length(usize),
    #[error("a name consists of printable characters, and {0:?} is not one")]
    Unprintable(char),
    #[error("a name neither begins nor ends with a space")]
    Space,
}

impl SiteName {
    pub const MAX_BYTES: usize = 64;

    /// Brings `text` into normal form C, then checks it.
    pub fn new(text: &str) -> Result<SiteName, SiteNameError> {
        let name: String = text.nfc().collect();
        if name.is_empty() || name.len() > Self::MAX_BYTES {
            return Err(SiteNameError::Length(name.len()));
        }
        if let Some(odd) = name.chars().find(|c| is_unprintable(*c)) {
            return Err(SiteNameError::Unprintable(odd));
        }
        if name.trim() != name {
            return Err(SiteNameError::Space);
        }
        Ok(SiteName(name))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for SiteName {
    type Err = SiteNameError;
    fn from_str(text: &str) -> Result<SiteName, SiteNameError> {
        SiteName::new(text)
    }
}
impl TryFrom<String> for SiteName {
    type Error = SiteNameError;
    fn try_from(text: String) -> Result<SiteName, SiteNameError> {
        SiteName::new(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_real_garages_are_names() {
        for name in ["1", "Bull Ring", "Others-CCCPS105a", "Гараж", "Parkhaus Süd"] {
            assert_eq!(SiteName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn two_spellings_of_one_letter_are_one_name() {
        assert_eq!(SiteName::new("Su\u{308}d").unwrap(), SiteName::new("Süd").unwrap());
    }

    #[test]
    fn what_cannot_be_read_on_a_sign_is_no_name() {
        assert_eq!(SiteName::new(""), Err(SiteNameError::Length(0)));
        assert_eq!(SiteName::new(&"x".repeat(65)), Err(SiteNameError::Length(65)));
        assert_eq!(SiteName::new("a\nb"), Err(SiteNameError::Unprintable('\n')));
        assert_eq!(SiteName::new("a\u{202e}b"), Err(SiteNameError::Unprintable('\u{202e}')));
        assert_eq!(SiteName::new(" a"), Err(SiteNameError::Space));
    }
}
