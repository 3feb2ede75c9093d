//! The thread that folds the view behind the ledger.

use super::ledger::Ledger;
use super::view::{self, Changes, Step, View};
use crate::store::{Store, StoreError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the view is written while events flow. Folding what a crash lost takes a moment.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// After how many records a fold looks up.
const LOOK_EVERY: u64 = 256;

/// Wakes the fold when the ledger grew.
#[derive(Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
    /// The position that the view has reached.
    folded: watch::Sender<u64>,
    /// The position that the written view has reached.
    saved: watch::Sender<u64>,
    saving: Mutex<()>,
}

#[derive(Default, Clone, Copy)]
struct State {
    position: u64,
    stop: bool,
    /// Somebody waits for the view to be written.
    save: bool,
}

impl Signal {
    pub fn grown_to(&self, position: u64) {
        self.set(|state| state.position = position);
    }
    pub fn stop(&self) {
        self.set(|state| state.stop = true);
    }
    /// Resolves when the view has reached `position`.
    pub async fn folded_to(&self, position: u64) {
        let reached = self.folded.subscribe().wait_for(|folded| *folded >= position).await.is_ok();
        assert!(reached, "the sender lives as long as we");
    }
    /// Resolves when the view was written that has reached `position`; asks for it.
    pub async fn saved_to(&self, position: u64) {
        let mut saved = self.saved.subscribe();
        self.set(|state| state.save = true);
        let reached = saved.wait_for(|saved| *saved >= position).await.is_ok();
        assert!(reached, "the sender lives as long as we");
    }
    /// While this is held the written views stay as they are; the fold waits with its next writing.
    pub fn hold_saving(&self) -> MutexGuard<'_, ()> {
        // sled may panic over a damaged store while somebody compares: that changed nothing here.
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no thread panics while it holds the signal"));
        self.changed.notify_all();
    }
    /// Waits until the ledger is beyond `position`, the fold is to stop, or the time is up.
    fn wait(&self, position: u64, at_most: Duration) -> State {
        let state = self.state.lock().expect("no thread panics while it holds the signal");
        let waits = |state: &mut State| state.position <= position && !state.stop && !state.save;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, at_most, waits)
            .expect("no thread panics while it holds the signal");
        State { save: std::mem::take(&mut state.save), ..*state }
    }
}

/// The view of a ledger as it was written last. One that is of positions that the ledger lost is dropped, to be folded anew.
pub fn open_view(ledger: &Ledger, store: &Store) -> Result<View, StoreError> {
    let view = View::open(store, ledger)?;
    if view.position == 0 || ledger.has_record(view.position)? {
        return Ok(view);
    }
    tracing::warn!(
        view = view.position,
        "the views had come to a position that the ledger does not have; they are dropped and folded anew from what it has"
    );
    view::discard(store)?;
    view::base::begin(ledger, store)
}

/// Says what the ledger cannot give any more. The rest is folded as if nothing were.
fn report(ledger: &Ledger, step: &Step) {
    let Some((damage, losses)) = step.damage() else { return };
    for loss in losses {
        let garage = ledger.stream(loss.stream).map(|stream| stream.site.to_string()).unwrap_or_default();
        tracing::error!(
            position = loss.position,
            garage,
            first = loss.first,
            last = loss.last,
            reason = damage.reason,
            "events that were applied cannot be read any more; they are shown as a hole of their garage, nothing was deleted, and the rest is folded on. Check the disk, and whether a backup has them"
        );
    }
    if losses.is_empty() {
        tracing::error!(
            from = damage.from,
            last = damage.last,
            reason = damage.reason,
            "positions of the ledger cannot be read any more, and what stood there is not known; nothing was deleted, and the rest is folded on. Check the disk, and whether a backup has them"
        );
    }
}

/// Folds what the ledger has beyond the view, and writes it. For a program that has the directory for itself.
pub fn catch_up(ledger: &Ledger, store: &Store, view: &mut View) -> Result<(), StoreError> {
    let mut changes = Changes::on(store);
    for found in ledger.records(view.position + 1) {
        let (position, found) = found?;
        let step = Step::read(ledger, position, found)?;
        report(ledger, &step);
        if !changes.have_room_for(step.writes_at_most()) {
            view.save(&mut changes)?;
        }
        view.apply(ledger, step, &mut changes)?;
    }
    view.save(&mut changes)
}

/// Folds until told to stop; then writes what it has. An error means that the ledger cannot be read or written, or that the
/// views hold something unreadable: then they are dropped, so that the next start does not meet it again.
pub fn fold_until_stopped(
    ledger: &Ledger,
    store: &Store,
    view: &RwLock<View>,
    signal: &Signal,
) -> Result<(), StoreError> {
    let folded = fold(ledger, store, view, signal);
    if let Err(error @ StoreError::Damaged { .. }) = &folded {
        match view::discard(store).and_then(|()| store.flush()) {
            Ok(()) => tracing::error!(
                %error,
                "the views hold something unreadable and are dropped; the next start folds them anew from the ledger, which holds everything. Check the disk"
            ),
            Err(why) => tracing::error!(
                %error,
                %why,
                "the views hold something unreadable and cannot be dropped either. The ledger was not changed. \"server verify\" says what it holds; restore a backup on another disk"
            ),
        }
    }
    folded
}

fn fold(ledger: &Ledger, store: &Store, view: &RwLock<View>, signal: &Signal) -> Result<(), StoreError> {
    let mut changes = Changes::on(store);
    let mut saved_at = Instant::now();
    let mut unsaved = false;
    loop {
        let position = view.read().expect("only this thread writes").position;
        signal.folded.send_replace(position);
        let patience =
            if unsaved { SAVE_EVERY.saturating_sub(saved_at.elapsed()) } else { Duration::from_secs(3600) };
        let state = signal.wait(position, patience);
        let (mut stop, mut save_now) = (state.stop, state.save);
        for found in ledger.records(position + 1) {
            let (position, found) = found?;
            // A long catch-up is told to stop like anything else, and its progress is kept.
            if position % LOOK_EVERY == 0 {
                let state = signal.wait(0, Duration::ZERO);
                (stop, save_now) = (state.stop, save_now || state.save);
                // Only for what is to be saved: after a quiet hour there is nothing, and this record is folded first.
                if stop || unsaved && saved_at.elapsed() >= SAVE_EVERY {
                    break;
                }
            }
            let step = Step::read(ledger, position, found)?;
            report(ledger, &step);
            if !changes.have_room_for(step.writes_at_most()) {
                save(view, signal, &mut changes)?;
            }
            let mut view = view.write().expect("only this thread writes");
            if let Some(aside) = view.apply(ledger, step, &mut changes)? {
                tracing::warn!(garage = %aside.garage, position, first = aside.first, events = aside.count(), reason = aside.reason, "events that cannot be applied were accepted and set aside; they are kept in the ledger");
            }
            unsaved = true;
        }
        if unsaved && (stop || save_now || saved_at.elapsed() >= SAVE_EVERY) {
            save(view, signal, &mut changes)?;
            saved_at = Instant::now();
            unsaved = false;
        }
        if !unsaved {
            signal.saved.send_replace(view.read().expect("only this thread writes").position);
        }
        if stop {
            return Ok(());
        }
    }
}

/// Readers go on meanwhile: only the fold writes into the view.
fn save(view: &RwLock<View>, signal: &Signal, changes: &mut Changes) -> Result<(), StoreError> {
    let _nobody_reads_all = signal.hold_saving();
    view.read().expect("only this thread writes").save(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::SiteName;
    use crate::server::view::tests::world;

    const ENOUGH: Duration = Duration::from_secs(20);

    /// `verify` of a damaged store panics in sled while it holds the views. The server ended with it, at its next save.
    #[test]
    fn the_fold_survives_whoever_panics_while_comparing_the_views() {
        let signal = Signal::default();
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = signal.hold_saving();
            panic!("as sled does");
        }));
        assert!(compared.is_err());
        drop(signal.hold_saving());
    }

    /// The fold looked up at each 256th record whether it was time to save, before it had folded it. After a quiet second there
    /// was nothing to save, so that it was still time when it came back to the same record, and so for ever.
    #[test]
    fn the_fold_goes_on_when_the_record_at_which_it_looks_up_comes_after_a_quiet_time() {
        let (_, store, ledger) = world();
        let (view, signal) = (RwLock::new(View::default()), Signal::default());
        let site = SiteName::new("a").unwrap();
        let record = |capacity: u64| {
            ledger.record_capacity(&site, u32::try_from(capacity).unwrap(), 5).unwrap();
            signal.grown_to(ledger.position());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let reached = |position| {
            runtime.block_on(async { tokio::time::timeout(ENOUGH, signal.folded_to(position)).await.is_ok() })
        };
        std::thread::scope(|scope| {
            let fold = scope.spawn(|| fold_until_stopped(&ledger, &store, &view, &signal));
            (1..LOOK_EVERY).for_each(record);
            let before = reached(LOOK_EVERY - 1);
            let began = Instant::now();
            while view::written_position(&store).unwrap() != Some(LOOK_EVERY - 1) && began.elapsed() < ENOUGH
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            // It is the quiet time itself that is waited for.
            std::thread::sleep(SAVE_EVERY);
            record(LOOK_EVERY);
            let after = reached(LOOK_EVERY);
            signal.stop();
            fold.join().unwrap().unwrap();
            assert_eq!((before, after), (true, true));
        });
    }
}
