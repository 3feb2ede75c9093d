//! The progress of an outbox, recorded in the high-water file beside its store. From it, an outbox whose newest or oldest pages
//! were lost to damage can detect the loss.

use super::super::Epoch;
use super::super::clock::BootId;
use super::OutboxStatus;
use crate::store::high_water::{self, HighWaterMark};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The number of epochs whose ends fit into the file: the newest ones.
pub(super) const ENDS_MAX: usize = 14;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutboxHighWater {
    /// The epochs that were held, oldest first, each with the sequence of its next message. New messages belonged to the last one.
    pub ends: Vec<(Epoch, u64)>,
    /// The epoch that was being delivered, and the highest sequence acknowledged. Whatever was deleted lies at or below it.
    pub oldest: Epoch,
    pub acknowledged: u64,
    /// The boot of the machine when this was written. A mark of the current boot is the last one that was written; a mark of an
    /// earlier boot may be older than what the disk holds.
    pub boot: BootId,
}

impl HighWaterMark for OutboxHighWater {
    const LENGTH_BYTES: usize = 2;
}

impl OutboxHighWater {
    /// The sequence that the next message of an epoch would have got.
    pub fn next_of(&self, epoch: Epoch) -> Option<u64> {
        self.ends.iter().find(|(its, _)| *its == epoch).map(|(_, next)| *next)
    }

    pub fn acknowledged_of(&self, epoch: Epoch) -> u64 {
        if self.oldest == epoch { self.acknowledged } else { 0 }
    }
}

/// The progress of an outbox that no process has open, as its high-water file tells, and the boot of the machine in which that was
/// written: in the present boot it is exact. It counts the newest epochs, and the size of the pages and their age are not known.
/// `None` if the file holds nothing that can be read.
pub fn last_known_status(path: &Path) -> io::Result<Option<(OutboxStatus, BootId)>> {
    let mark: Option<OutboxHighWater> = high_water::read(path)?;
    Ok(mark.and_then(|mark| {
        let (epoch, next_sequence) = *mark.ends.last()?;
        let waiting = mark
            .ends
            .iter()
            .map(|(epoch, next)| next.saturating_sub(1).saturating_sub(mark.acknowledged_of(*epoch)));
        let status = OutboxStatus {
            epoch,
            next_sequence,
            acknowledged: mark.acknowledged_of(epoch),
            depth: waiting.fold(0, u64::saturating_add),
            bytes: 0,
            epochs: mark.ends.len(),
            oldest_begun: None,
        };
        Some((status, mark.boot))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::high_water::HighWaterFile;

    #[test]
    fn the_longest_mark_fits_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let (file, mark) = HighWaterFile::open::<OutboxHighWater>(&path).unwrap();
        assert_eq!(mark, None);
        let mark = OutboxHighWater {
            ends: vec![(Epoch::from_bytes([1; 16]), u64::MAX); ENDS_MAX],
            oldest: Epoch::from_bytes([2; 16]),
            acknowledged: u64::MAX,
            boot: [3; 16],
        };
        file.write(&mark);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 512);
        assert_eq!(HighWaterFile::open(&path).unwrap().1, Some(mark));
    }
}
