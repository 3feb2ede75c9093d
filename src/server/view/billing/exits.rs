//! The exits of stays, which name their charges.

use super::super::codec::{key_u64, sized};
use super::super::pages::StoredPassage;
use crate::messaging::Epoch;
use crate::parking::document::LineReference;
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use uuid::Uuid;

/// The exit of a stay as facts name it; one that an operator made has the place of the entry, and a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedExit {
    pub epoch: Epoch,
    pub sequence: u64,
    pub made_at_ms: Option<i64>,
}

impl IssuedExit {
    pub fn of(ledger: &Ledger, exit: StoredPassage) -> Result<IssuedExit, StoreError> {
        let epoch = ledger.epoch_of(exit.stream())?;
        Ok(IssuedExit { epoch, sequence: exit.sequence, made_at_ms: exit.made_at_ms() })
    }

    /// `None`: the reference is not that of a charge.
    pub fn of_line(reference: &LineReference) -> Option<IssuedExit> {
        let epoch = Epoch::from_bytes(reference.epoch.parse::<Uuid>().ok()?.into_bytes());
        Some(IssuedExit { epoch, sequence: reference.sequence, made_at_ms: reference.made_at_ms })
    }

    /// A key that ends with it.
    pub fn key(&self, prefix: &[u8]) -> Vec<u8> {
        let made_at = self.made_at_ms.map(i64::to_be_bytes);
        let mut bytes = key_u64(&[prefix, &self.epoch.to_bytes()].concat(), self.sequence);
        bytes.extend(made_at.iter().flatten());
        bytes
    }

    /// The exit with which a key ends, from the byte `at` on.
    pub fn read(key: &[u8], at: usize) -> Result<IssuedExit, StoreError> {
        let made_at_ms = match key.len() == at + 24 {
            true => None,
            false => Some(i64::from_be_bytes(sized(key, at + 24..at + 32)?)),
        };
        let epoch = Epoch::from_bytes(sized(key, at..at + 16)?);
        Ok(IssuedExit { epoch, sequence: u64::from_be_bytes(sized(key, at + 16..at + 24)?), made_at_ms })
    }
}

/// The exit of a stay as this ledger's views name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitId {
    pub stream: u32,
    pub sequence: u64,
    pub made_at_ms: Option<i64>,
}

impl ExitId {
    pub fn of(exit: StoredPassage) -> ExitId {
        ExitId { stream: exit.stream(), sequence: exit.sequence, made_at_ms: exit.made_at_ms() }
    }
}
