//! The thread that folds the view behind the ledger.

use super::ledger::Ledger;
use super::view::{Changes, View};
use crate::store::{Store, StoreError};
use std::sync::{Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};

/// How often the view is written while events flow. Folding what a crash lost takes a moment.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// After how many records a fold looks up.
const LOOK_EVERY: u64 = 256;

/// Wakes the fold when the ledger grew.
#[derive(Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy)]
struct State {
    position: u64,
    stop: bool,
}

impl Signal {
    pub fn grown_to(&self, position: u64) {
        self.set(|state| state.position = position);
    }
    pub fn stop(&self) {
        self.set(|state| state.stop = true);
    }
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no thread panics while it holds the signal"));
        self.changed.notify_all();
    }
    /// Waits until the ledger is beyond `position`, the fold is to stop, or the time is up.
    fn wait(&self, position: u64, at_most: Duration) -> State {
        let state = self.state.lock().expect("no thread panics while it holds the signal");
        let waits = |state: &mut State| state.position <= position && !state.stop;
        let (state, _) = self
            .changed
            .wait_timeout_while(state, at_most, waits)
            .expect("no thread panics while it holds the signal");
        *state
    }
}

/// Folds until told to stop; then writes what it has. An error means that the ledger cannot be read or written.
pub fn fold_until_stopped(
    ledger: &Ledger,
    store: &Store,
    view: &RwLock<View>,
    signal: &Signal,
) -> Result<(), StoreError> {
    let mut changes = Changes::default();
    let mut saved_at = Instant::now();
    let mut unsaved = false;
    loop {
        let position = view.read().expect("only this thread writes").position;
        let patience =
            if unsaved { SAVE_EVERY.saturating_sub(saved_at.elapsed()) } else { Duration::from_secs(3600) };
        let state = signal.wait(position, patience);
        let mut stop = state.stop;
        for record in ledger.records(position + 1) {
            let (position, record) = record?;
            // A long catch-up is told to stop like anything else, and its progress is kept.
            if position % LOOK_EVERY == 0 {
                stop = signal.wait(0, Duration::ZERO).stop;
                if stop || saved_at.elapsed() >= SAVE_EVERY {
                    break;
                }
            }
            let mut view = view.write().expect("only this thread writes");
            view.apply(ledger, position, record, &mut changes)?;
            unsaved = true;
            if changes.is_full() {
                view.save(store, &mut changes)?;
            }
        }
        if unsaved && (stop || saved_at.elapsed() >= SAVE_EVERY) {
            let view = view.read().expect("only this thread writes");
            view.save(store, &mut changes)?;
            saved_at = Instant::now();
            unsaved = false;
        }
        if stop {
            return Ok(());
        }
    }
}
