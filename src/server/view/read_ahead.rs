//! Reads the records of the ledger for those who apply them.
//!
//! **Promise.** Records come in order of position, each checked and its events read ([`PreparedRecord::read`]), as far as the ledger
//! reached when reading began.
//! **Kept by.** Where many records wait, a thread of its own reads them, at most [`PREPARED_MAX`] ahead: a processor that is idle
//! while the views catch up checks digests and decodes events. What a record says does not depend on the views.

use super::prepared::PreparedRecord;
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::thread;

/// From this many records on, a thread is worth its start.
const WORTH_A_THREAD: u64 = 64;
/// How many records are read ahead: pages of 6 KB, as a rule at most.
const PREPARED_MAX: usize = 32;

/// A record, or why the ledger cannot be read at its place; nothing comes after that.
pub type RecordRead = Result<PreparedRecord, StoreError>;

/// Passes the records from position `from` on to `take`, in order, until it breaks or fails.
pub fn read_ahead<E>(
    ledger: &Ledger,
    from: u64,
    take: impl FnMut(RecordRead) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    if ledger.position().saturating_sub(from) < WORTH_A_THREAD {
        return take_all(records(ledger, from), take);
    }
    thread::scope(|scope| {
        let (prepared, taken) = sync_channel(PREPARED_MAX);
        let reader = scope.spawn(move || {
            for record in records(ledger, from) {
                if prepared.send(record).is_err() {
                    break; // nobody takes more
                }
            }
        });
        let done = take_all(taken, take);
        match reader.join() {
            Ok(()) => done,
            // sled panics over some damage, as it does where no thread reads ahead.
            Err(panic) => resume_unwind(panic),
        }
    })
}

fn records(ledger: &Ledger, from: u64) -> impl Iterator<Item = RecordRead> + '_ {
    ledger.records(from).map(|found| {
        let (position, found) = found?;
        PreparedRecord::read(ledger, position, found)
    })
}

/// The records are dropped when this returns.
fn take_all<E>(
    records: impl IntoIterator<Item = RecordRead>,
    mut take: impl FnMut(RecordRead) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    for record in records {
        if take(record)?.is_break() {
            break;
        }
    }
    Ok(())
}
