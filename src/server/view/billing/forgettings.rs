//! What is forgotten, also of what arrives later.
//!
//! A plate that is forgotten is kept nowhere: only a hash says that it is it. With the store somebody can test a plate that they guess,
//! and learn that it was forgotten, but not which stays were its.
//!
//! | key | value |
//! | --- | --- |
//! | `vbs` + `a` | a [`Forgetting`] of all plates |
//! | `vbs` + `c` + account | a [`Forgetting`] of the plates of the stays that the account pays |
//! | `vbs` + `p` + hash (16 bytes) | a [`Forgetting`] of one plate |

use super::super::SharedMap;
use super::super::codec::{decode, encode, read_range};
use super::super::pages::{StoredPassage, TOKEN_LEN};
use crate::messaging::LedgerId;
use crate::parking::Month;
use crate::parking::stay::Visit;
use crate::server::record::ToForget;
use crate::store::{Store, StoreError};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Stays that ended before a date are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgetting {
    pub before: Date,
    tokens: Tokens,
}

/// What tokens are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Tokens {
    /// The same plate has one token in a month.
    Seed([u8; 16]),
    /// The seed was erased when the ledger was compacted: each stay has a token of its own.
    Erased,
}

/// All that is forgotten, by its key behind `vbs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgettings(SharedMap<Vec<u8>, Forgetting>);

const ALL: &[u8] = b"a";

fn account_key(account: &str) -> Vec<u8> {
    [b"c", account.as_bytes()].concat()
}

fn plate_key(ledger: LedgerId, plate: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("fogpost: a plate that is forgotten");
    hasher.update(&ledger.to_bytes()).update(plate.as_bytes());
    [b"p", &hasher.finalize().as_bytes()[..16]].concat()
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    [b"vbs", key].concat()
}

impl Forgettings {
    pub fn load(store: &Store) -> Result<Forgettings, StoreError> {
        let mut all = Forgettings::default();
        for entry in read_range(store, b"vbs", b"vbt") {
            let (key, forgetting) = entry?;
            all.0.insert_mut(key[3..].to_vec(), forgetting);
        }
        Ok(all)
    }

    /// Adds one, and gives what is to be written under which key. An earlier one of the same that reaches further stays.
    pub fn add(
        &mut self,
        ledger: LedgerId,
        whose: &ToForget,
        before: Date,
        seed: [u8; 16],
    ) -> (Vec<u8>, Forgetting) {
        let key = match whose {
            ToForget::All => ALL.to_vec(),
            ToForget::Account(account) => account_key(account),
            ToForget::Plate(plate) => plate_key(ledger, plate),
        };
        let before = self.0.get(&key).map_or(before, |earlier| earlier.before.max(before));
        let forgetting = Forgetting { before, tokens: Tokens::Seed(seed) };
        let stored = stored_key(&key);
        self.0.insert_mut(key, forgetting.clone());
        (stored, forgetting)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a visit may be meant whose last event was on this day. Who pays it is not looked at.
    pub fn may_mean(&self, ledger: LedgerId, plate: &str, last: Date) -> bool {
        let of_accounts = self.0.range(b"c".to_vec()..b"d".to_vec()).any(|(_, its)| last < its.before);
        of_accounts || self.of(ledger, plate, None, last).is_some()
    }

    /// What a visit is forgotten by, whose last event was on this day, and which the account pays, if it is known.
    pub fn of(
        &self,
        ledger: LedgerId,
        plate: &str,
        account: Option<&str>,
        last: Date,
    ) -> Option<&Forgetting> {
        if self.0.is_empty() {
            return None;
        }
        let reaches = |key: &[u8]| self.0.get(key).filter(|forgetting| last < forgetting.before);
        reaches(ALL)
            .or_else(|| account.and_then(|account| reaches(&account_key(account))))
            .or_else(|| reaches(&plate_key(ledger, plate)))
    }
}

impl Forgetting {
    /// What replaces the plate of a visit. It reveals nothing of the plate once the seed is erased.
    pub fn token(&self, plate: &str, month: Month, visit: &Visit<StoredPassage>) -> SmolStr {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut key = [0; 32];
        let of = match &self.tokens {
            Tokens::Seed(seed) => {
                key[..16].copy_from_slice(seed);
                plate.to_owned()
            }
            Tokens::Erased => {
                let first = visit.first();
                format!("{}/{}/{}", first.stream(), first.sequence, first.at_ms)
            }
        };
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(month.to_string().as_bytes()).update(of.as_bytes());
        let hash = hasher.finalize();
        let letters = hash.as_bytes()[..TOKEN_LEN - 1].iter();
        let letters = letters.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
        std::iter::once('~').chain(letters).collect()
    }
}

/// A written value without its seed.
pub fn without_seed(key: &[u8], value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let forgetting: Forgetting = decode(key, &value)?;
    Ok(encode(&Forgetting { tokens: Tokens::Erased, ..forgetting }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::stay::End;
    use jiff::civil::date;

    fn stay(sequence: u64) -> Visit<StoredPassage> {
        let passage = |sequence| StoredPassage::new(1, (3, sequence), (sequence as i64, 0));
        Visit::Stay { entry: passage(sequence), end: End::Left(passage(sequence + 1)) }
    }

    #[test]
    fn a_later_forgetting_of_the_same_never_reaches_less_far() {
        let (mut all, ledger) = (Forgettings::default(), LedgerId::random());
        let plate = ToForget::Plate("AB1".into());
        all.add(ledger, &plate, date(2026, 12, 1), [1; 16]);
        all.add(ledger, &plate, date(2026, 11, 1), [2; 16]);
        all.add(ledger, &ToForget::Account("one".into()), date(2026, 6, 1), [3; 16]);
        let of = |plate, account, last| all.of(ledger, plate, account, last).is_some();
        assert!(of("AB1", None, date(2026, 11, 30)) && !of("AB1", None, date(2026, 12, 1)));
        assert!(of("CD1", Some("one"), date(2026, 5, 31)) && !of("CD1", Some("two"), date(2026, 5, 31)));
        assert!(
            all.may_mean(ledger, "CD1", date(2026, 5, 31)) && !all.may_mean(ledger, "CD1", date(2026, 6, 1))
        );
    }

    #[test]
    fn without_its_seed_a_forgetting_still_finds_its_plate_and_its_tokens_say_nothing_of_it() {
        let (mut all, ledger) = (Forgettings::default(), LedgerId::random());
        let (key, seeded) = all.add(ledger, &ToForget::Plate("AB1".into()), date(2026, 12, 1), [7; 16]);
        assert!(!key.windows(3).any(|part| part == b"AB1"));
        let erased = without_seed(&stored_key(&key), encode(&seeded)).unwrap();
        assert!(!erased.windows(16).any(|part| part == [7; 16]));
        let erased: Forgetting = decode(b"vbs", &erased).unwrap();
        assert_eq!(erased.before, seeded.before);
        let token = |of: &Forgetting, plate: &str, sequence| of.token(plate, Month::EPOCH, &stay(sequence));
        assert_eq!(token(&seeded, "AB1", 1), token(&seeded, "AB1", 5), "one plate, one month");
        assert_ne!(token(&seeded, "AB1", 1), token(&seeded, "AB2", 1));
        assert_eq!(token(&erased, "AB1", 1), token(&erased, "AB2", 1), "it is not made of the plate");
        assert_ne!(token(&erased, "AB1", 1), token(&erased, "AB1", 5));
        assert!(token(&erased, "AB1", 1).len() == TOKEN_LEN);
    }
}
