//! The thread that folds the view behind the ledger, and what it shows to readers.
//!
//! **Promise.** Nobody who reads the views waits for a step of the fold, however long it takes.
//! **Kept by.** The thread alone has the [`View`]. What readers see is a [`Snapshot`] of it, which takes the place of the one before
//! after each step, or every [`SHOW_EVERY`] while many follow each other; they wait for nothing but the copying of a pointer. What
//! needs the view itself is asked of the thread ([`Signal::ask`]), and answered between two steps.

use super::ledger::{Found, Ledger};
use super::view::{self, PreparedRecord, Snapshot, View, ViewChanges};
use crate::codes;
use crate::store::{Store, StoreError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How often the view is written while events flow. Folding what a crash lost takes a moment.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How often readers get what was folded meanwhile, while the fold catches up.
const SHOW_EVERY: Duration = Duration::from_millis(20);

/// After how many records a fold looks up.
const LOOK_EVERY: u64 = 256;

/// What the fold and all others tell each other.
#[derive(Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
    /// What readers see.
    shown: watch::Sender<Arc<Snapshot>>,
    /// The position that the written view has reached.
    saved: watch::Sender<u64>,
    saving: Mutex<()>,
}

/// What needs the view itself.
type Question = Box<dyn FnOnce(&View) + Send>;

#[derive(Default)]
struct State {
    /// The ledger's end.
    position: u64,
    stop: bool,
    /// Somebody waits for the view to be written.
    save: bool,
    questions: Vec<Question>,
    /// Nobody answers questions any more.
    ended: bool,
}

/// Why the fold woke up, beside what the ledger has.
struct Woken {
    stop: bool,
    save: bool,
    questions: Vec<Question>,
}

impl Signal {
    /// Shows `view` from the beginning.
    pub fn showing(view: &View) -> Signal {
        Signal { shown: watch::Sender::new(Arc::new(view.snapshot())), ..Signal::default() }
    }
    /// Lets readers see what `view` is now. What was shown before is given back.
    pub(super) fn show(&self, view: &View) -> Arc<Snapshot> {
        self.shown.send_replace(Arc::new(view.snapshot()))
    }
    pub fn grown_to(&self, position: u64) {
        self.set(|state| state.position = position);
    }
    pub fn stop(&self) {
        self.set(|state| state.stop = true);
    }
    /// The views as they are now. Nobody waits here for more than the copying of a pointer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shown.borrow())
    }
    /// Resolves when readers see `position`, or a later one.
    pub async fn folded_to(&self, position: u64) {
        let reached = self.shown.subscribe().wait_for(|shown| shown.position >= position).await.is_ok();
        assert!(reached, "the sender lives as long as we");
    }
    /// Resolves when the view was written that has reached `position`; asks for it.
    pub async fn saved_to(&self, position: u64) {
        let mut saved = self.saved.subscribe();
        self.set(|state| state.save = true);
        let reached = saved.wait_for(|saved| *saved >= position).await.is_ok();
        assert!(reached, "the sender lives as long as we");
    }
    /// Has the fold answer a question between two of its steps. `None`: the fold has ended, or the question met damage over which
    /// sled panics.
    pub async fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> A + Send + 'static,
    ) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |view| {
            let _ = answer.send(question(view)); // who asked may have gone
        });
        self.set(|state| {
            if !state.ended {
                state.questions.push(question);
            }
        });
        answered.await.ok()
    }
    /// While this is held the written views stay as they are; the fold goes on, and waits with its next writing.
    pub fn hold_saving(&self) -> MutexGuard<'_, ()> {
        // sled may panic over a damaged store while somebody compares: that changed nothing here.
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The lock that [`Signal::hold_saving`] holds.
    pub fn saving(&self) -> &Mutex<()> {
        &self.saving
    }
    /// The same, unless somebody else holds it.
    fn try_hold_saving(&self) -> Option<MutexGuard<'_, ()>> {
        match self.saving.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no thread panics while it holds the signal"));
        self.changed.notify_all();
    }
    /// Waits until the ledger is beyond `position`, the fold is to do something else, or the time is up.
    fn wait(&self, position: u64, at_most: Duration) -> Woken {
        let state = self.state.lock().expect("no thread panics while it holds the signal");
        let waits = |state: &mut State| {
            state.position <= position && !state.stop && !state.save && state.questions.is_empty()
        };
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, at_most, waits)
            .expect("no thread panics while it holds the signal");
        Woken {
            stop: state.stop,
            save: std::mem::take(&mut state.save),
            questions: std::mem::take(&mut state.questions),
        }
    }
}

/// The view of a ledger as it was written last. One that is of positions that the ledger lost is dropped, to be folded anew.
pub fn open_view(ledger: &Ledger, store: &Store) -> Result<View, StoreError> {
    let view = View::open(store, ledger)?;
    if view.position == 0 || ledger.has_record(view.position)? {
        return Ok(view);
    }
    tracing::warn!(
        code = %codes::VIEWS_AHEAD_OF_LEDGER,
        view = view.position,
        hint = "nothing is to be done if a backup was restored; else check the disk",
        "the views are ahead of the ledger; they are rebuilt from it"
    );
    view::discard(store)?;
    View::begin(ledger, store)
}

/// Says what the ledger cannot give any more. The rest is folded as if nothing were.
fn report(ledger: &Ledger, step: &PreparedRecord) {
    let Some((damage, losses)) = step.damage() else { return };
    for loss in losses {
        let garage = ledger.stream(loss.stream).map(|stream| stream.site.to_string()).unwrap_or_default();
        tracing::error!(
            code = %codes::APPLIED_EVENTS_UNREADABLE,
            position = loss.position, garage, first = loss.first, last = loss.last, reason = damage.reason,
            hint = "check the disk, and whether a backup has them",
            "events that were applied cannot be read any more; they are shown as a missing range of their garage"
        );
    }
    if losses.is_empty() {
        tracing::error!(
            code = %codes::LEDGER_POSITIONS_UNREADABLE,
            from = damage.from, last = damage.last, reason = damage.reason,
            hint = "check the disk, and whether a backup has them",
            "positions of the ledger cannot be read any more; what they held is not known"
        );
    }
}

/// Folds what the ledger has beyond the view, and writes it. For a program that has the directory for itself.
pub fn catch_up(ledger: &Ledger, store: &Store, view: &mut View) -> Result<(), StoreError> {
    let mut changes = ViewChanges::on(store);
    view::catch_up(view, ledger, u64::MAX, &mut changes, |step| report(ledger, step))?;
    view.save(&mut changes)
}

/// Folds until told to stop; then writes what it has. An error means that the ledger cannot be read or written, or that the
/// views hold something unreadable: then they are dropped, so that the next start does not meet it again.
pub fn fold_until_stopped(
    ledger: &Ledger,
    store: &Store,
    view: View,
    signal: &Signal,
) -> Result<(), StoreError> {
    let _ended = Ended(signal);
    let folded = Fold::new(ledger, store, view, signal).run();
    if let Err(error @ StoreError::Damaged { .. }) = &folded {
        match view::discard(store).and_then(|()| store.flush()) {
            Ok(()) => tracing::error!(
                code = %codes::VIEWS_DROPPED,
                %error,
                hint = "check the disk; the ledger holds everything",
                "the views hold something unreadable; the next start rebuilds them from the ledger"
            ),
            Err(why) => tracing::error!(
                code = %codes::VIEWS_NOT_DROPPED,
                %error, %why,
                hint = "run: server verify; restore a backup on another disk",
                "the views hold something unreadable, and cannot be dropped; the ledger was not changed"
            ),
        }
    }
    folded
}

/// However the fold ends: those who wait for an answer of it hear of it.
struct Ended<'a>(&'a Signal);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.set(|state| {
            state.ended = true;
            state.questions.clear();
        });
    }
}

/// What the folding thread works with.
struct Fold<'a> {
    ledger: &'a Ledger,
    signal: &'a Signal,
    view: View,
    changes: ViewChanges,
    shown_at: Instant,
    /// What was shown and is still read.
    retired: Vec<Arc<Snapshot>>,
    /// When the view was written last, or that was put off.
    saved_at: Instant,
    unsaved: bool,
    /// Somebody waits for the view to be written.
    save_asked: bool,
}

impl<'a> Fold<'a> {
    fn new(ledger: &'a Ledger, store: &Store, view: View, signal: &'a Signal) -> Fold<'a> {
        let now = Instant::now();
        Fold {
            ledger,
            signal,
            view,
            changes: ViewChanges::on(store),
            shown_at: now,
            retired: Vec::new(),
            saved_at: now,
            unsaved: false,
            save_asked: false,
        }
    }

    fn run(mut self) -> Result<(), StoreError> {
        loop {
            self.show();
            let patience = if self.unsaved || self.save_asked {
                SAVE_EVERY.saturating_sub(self.saved_at.elapsed())
            } else {
                Duration::from_secs(3600)
            };
            let mut stop = self.look_up(self.view.position, patience);
            for found in self.ledger.records(self.view.position + 1) {
                let (position, found) = found?;
                // A long catch-up is told to stop like anything else, and its progress is kept.
                if position % LOOK_EVERY == 0 {
                    stop = self.look_up(0, Duration::ZERO);
                    // Only for what is to be saved: after a quiet hour there is nothing, and this record is folded first.
                    if stop || self.unsaved && self.saved_at.elapsed() >= SAVE_EVERY {
                        break;
                    }
                }
                self.step(position, found)?;
            }
            if self.unsaved && (stop || self.save_asked || self.saved_at.elapsed() >= SAVE_EVERY) {
                self.save_if_nobody_compares(stop)?;
            }
            if !self.unsaved {
                self.save_asked = false;
                self.signal.saved.send_replace(self.view.position);
            }
            if stop {
                return Ok(());
            }
        }
    }

    /// Waits as [`Signal::wait`] does, and answers what is asked. Returns whether the fold is to stop.
    fn look_up(&mut self, position: u64, at_most: Duration) -> bool {
        let Woken { stop, save, questions } = self.signal.wait(position, at_most);
        self.save_asked |= save;
        for question in questions {
            if catch_unwind(AssertUnwindSafe(|| question(&self.view))).is_err() {
                tracing::error!(
                    code = %codes::VIEW_QUESTION_PANICKED,
                    hint = "report this with the log",
                    "a question about the views failed by a mistake of this program; nothing was changed"
                );
            }
        }
        stop
    }

    fn step(&mut self, position: u64, found: Found) -> Result<(), StoreError> {
        let step = PreparedRecord::read(self.ledger, position, found)?;
        report(self.ledger, &step);
        if !self.changes.have_room_for(step.writes_at_most()) {
            let _nobody_compares = self.signal.hold_saving();
            self.view.save(&mut self.changes)?;
        }
        if let Some(aside) = self.view.apply(self.ledger, step, &mut self.changes)? {
            tracing::warn!(
                code = %codes::EVENTS_QUARANTINED,
                garage = %aside.garage, position, first = aside.first, events = aside.count(), reason = aside.reason,
                hint = "run: server quarantine list",
                "events that cannot be applied were accepted and quarantined"
            );
        }
        self.unsaved = true;
        if self.shown_at.elapsed() >= SHOW_EVERY {
            self.show();
        }
        Ok(())
    }

    /// Lets readers see what the view is now.
    fn show(&mut self) {
        self.shown_at = Instant::now();
        if self.signal.shown.borrow().position == self.view.position {
            return;
        }
        let former = self.signal.show(&self.view);
        // Who lets the last one go frees what only that one had. After an import that is a lot, and no reader's work.
        self.retired.push(former);
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Writes the view. While somebody compares what is written it is put off, unless this is the end.
    fn save_if_nobody_compares(&mut self, is_the_end: bool) -> Result<(), StoreError> {
        self.saved_at = Instant::now();
        let held = match is_the_end {
            true => Some(self.signal.hold_saving()),
            false => self.signal.try_hold_saving(),
        };
        if held.is_some() {
            self.view.save(&mut self.changes)?;
            self.unsaved = false;
        }
        Ok(())
    }
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
        let signal = Signal::default();
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
            let fold = scope.spawn(|| fold_until_stopped(&ledger, &store, View::default(), &signal));
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
