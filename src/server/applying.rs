//! The thread that applies the records of the ledger to the views, and what it shows to readers.
//!
//! **Promise.** A reader of the views never waits for a record to be applied, however long that takes.
//! **Kept by.** Only the thread has the [`View`]. Readers see a [`Snapshot`] of it, which is replaced after each record, or every
//! [`SHOW_EVERY`] while many records follow each other; readers wait only for a pointer to be copied. A question that needs the
//! view itself goes to the thread ([`LiveViews::ask`]), which answers between two records.

use super::ledger::{Ledger, RecordOrDamage};
use super::view::{self, PreparedRecord, Snapshot, View, ViewChanges};
use crate::codes;
use crate::store::{Store, StoreError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How often the views are written while events arrive. After a crash, a second of records is applied again, which takes a moment.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How often readers get a new snapshot while the thread catches up.
const SHOW_EVERY: Duration = Duration::from_millis(20);

/// Number of records after which the thread looks for something else to do.
const LOOK_EVERY: u64 = 256;

/// What the applying thread shares with all others.
#[derive(Default)]
pub struct LiveViews {
    state: Mutex<LiveState>,
    changed: Condvar,
    shown: watch::Sender<Arc<Snapshot>>,
    /// The position of the written views.
    saved: watch::Sender<u64>,
    saving: Mutex<()>,
}

/// A question that needs the view itself.
type ViewQuestion = Box<dyn FnOnce(&View) + Send>;

#[derive(Default)]
struct LiveState {
    position: u64,
    stop: bool,
    /// Somebody waits for the views to be written.
    save: bool,
    questions: Vec<ViewQuestion>,
    /// The thread has ended, so that no question is answered any more.
    ended: bool,
}

impl LiveViews {
    pub fn showing(view: &View) -> LiveViews {
        LiveViews { shown: watch::Sender::new(Arc::new(view.snapshot())), ..LiveViews::default() }
    }
    /// Shows `view` to readers. Returns what was shown before.
    pub(super) fn show(&self, view: &View) -> Arc<Snapshot> {
        self.shown.send_replace(Arc::new(view.snapshot()))
    }
    pub fn grown_to(&self, position: u64) {
        self.set(|state| state.position = position);
    }
    pub fn stop(&self) {
        self.set(|state| state.stop = true);
    }
    /// The views as they are now. This takes no longer than the copy of a pointer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shown.borrow())
    }
    /// Resolves when readers see `position`, or a later one.
    pub async fn applied_to(&self, position: u64) {
        let reached = self.shown.subscribe().wait_for(|shown| shown.position >= position).await.is_ok();
        assert!(reached, "the sender lives as long as we");
    }
    /// Asks for the views to be written, and resolves when they are written at `position` or a later one.
    pub async fn saved_to(&self, position: u64) {
        let mut saved = self.saved.subscribe();
        self.set(|state| state.save = true);
        let reached = saved.wait_for(|saved| *saved >= position).await.is_ok();
        assert!(reached, "the sender lives as long as we");
    }
    /// Lets the thread answer a question between two records. `None`: the thread has ended, or sled panicked over damage.
    pub async fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> A + Send + 'static,
    ) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        let question: ViewQuestion = Box::new(move |view| {
            let _ = answer.send(question(view)); // the asker may have disconnected
        });
        self.set(|state| {
            if !state.ended {
                state.questions.push(question);
            }
        });
        answered.await.ok()
    }
    /// While this is held the written views do not change. Records are still applied; the next writing waits.
    pub fn hold_saving(&self) -> MutexGuard<'_, ()> {
        // sled may panic over a damaged store while somebody compares: that changed nothing here.
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn saving(&self) -> &Mutex<()> {
        &self.saving
    }
    fn set(&self, change: impl FnOnce(&mut LiveState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
    fn lock(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().expect("no thread panics while it holds the live views")
    }
    /// Waits until the ledger is past `position`, there is something else to do, or the time is up.
    fn wait(&self, position: u64, at_most: Duration) -> MutexGuard<'_, LiveState> {
        let waits = |state: &mut LiveState| {
            state.position <= position && !state.stop && !state.save && state.questions.is_empty()
        };
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, waits);
        waited.expect("no thread panics while it holds the live views").0
    }
}

/// The views of a ledger as they were written last. Views at a position that the ledger has lost are dropped and rebuilt.
pub fn open_view(ledger: &Ledger) -> Result<View, StoreError> {
    let store = ledger.store();
    let view = View::open(store, ledger)?;
    if view.position == 0 || ledger.has_record(view.position)? {
        return Ok(view);
    }
    tracing::warn!(
        code = %codes::VIEWS_AHEAD_OF_LEDGER,
        view = view.position,
        hint = "nothing to do if a backup was restored; otherwise check the disk",
        "the views are ahead of the ledger; they are rebuilt from it"
    );
    view::discard(store)?;
    View::begin(ledger, store)
}

/// Logs what of the ledger cannot be read any more. The rest is applied all the same.
fn report(step: &PreparedRecord) {
    let Some((damage, losses)) = step.damage() else { return };
    for loss in losses {
        tracing::error!(
            code = %codes::APPLIED_EVENTS_UNREADABLE,
            position = loss.position, garage = %loss.stream.site, first = loss.first, last = loss.last, reason = damage.reason,
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

/// Applies the records that the view lacks, and writes it. For a program that has the directory to itself.
pub fn catch_up(ledger: &Ledger, view: &mut View) -> Result<(), StoreError> {
    let mut changes = ViewChanges::on(ledger.store());
    view::catch_up(view, ledger, u64::MAX, &mut changes, report)?;
    view.save(&mut changes)
}

/// Applies records until asked to stop, then writes the views. An error means that the ledger cannot be read or written, or that the
/// views hold something unreadable: then they are dropped, so that the next start does not meet it again.
pub fn apply_until_stopped(
    ledger: &Ledger,
    store: &Store,
    view: View,
    live: &LiveViews,
) -> Result<(), StoreError> {
    let _ended = ReleaseAskers(live);
    let now = Instant::now();
    let applier = Applier {
        ledger,
        live,
        view,
        changes: ViewChanges::on(store),
        shown_at: now,
        retired: Vec::new(),
        saved_at: now,
        unsaved: false,
        save_asked: false,
    };
    let applied = applier.run();
    if let Err(error @ StoreError::Damaged { .. }) = &applied {
        match view::discard(store).and_then(|()| store.flush()) {
            Ok(()) => tracing::error!(
                code = %codes::VIEWS_DROPPED,
                %error,
                hint = "check the disk; the ledger holds everything",
                "a part of the views cannot be read; the next start rebuilds them from the ledger"
            ),
            Err(why) => tracing::error!(
                code = %codes::VIEWS_NOT_DROPPED,
                %error, %why,
                hint = "run: server verify; restore a backup on another disk",
                "a part of the views cannot be read, and the views cannot be dropped; the ledger was not changed"
            ),
        }
    }
    applied
}

/// When the thread ends, in whatever way, those who wait for an answer get none.
struct ReleaseAskers<'a>(&'a LiveViews);

impl Drop for ReleaseAskers<'_> {
    fn drop(&mut self) {
        self.0.set(|state| {
            state.ended = true;
            state.questions.clear();
        });
    }
}

struct Applier<'a> {
    ledger: &'a Ledger,
    live: &'a LiveViews,
    view: View,
    changes: ViewChanges,
    shown_at: Instant,
    /// Snapshots that were shown and are still read.
    retired: Vec<Arc<Snapshot>>,
    /// When the views were written last, or writing was put off.
    saved_at: Instant,
    unsaved: bool,
    save_asked: bool,
}

impl Applier<'_> {
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
                // A long catch-up can be stopped, and its progress is kept.
                if position % LOOK_EVERY == 0 {
                    stop = self.look_up(0, Duration::ZERO);
                    // Only where something is unsaved: after a quiet hour nothing is, and this record must be applied first.
                    if stop || self.unsaved && self.saved_at.elapsed() >= SAVE_EVERY {
                        break;
                    }
                }
                self.step(position, found)?;
            }
            if self.unsaved && (stop || self.save_asked || self.saved_at.elapsed() >= SAVE_EVERY) {
                self.save(stop)?;
            }
            if !self.unsaved {
                self.save_asked = false;
                self.live.saved.send_replace(self.view.position);
            }
            if stop {
                return Ok(());
            }
        }
    }

    /// Waits as [`LiveViews::wait`] does, and answers questions. Returns true when the thread is to stop.
    fn look_up(&mut self, position: u64, at_most: Duration) -> bool {
        let (stop, questions) = {
            let mut state = self.live.wait(position, at_most);
            self.save_asked |= std::mem::take(&mut state.save);
            (state.stop, std::mem::take(&mut state.questions))
        };
        for question in questions {
            if catch_unwind(AssertUnwindSafe(|| question(&self.view))).is_err() {
                tracing::error!(
                    code = %codes::VIEW_QUESTION_PANICKED,
                    hint = "report this with the log",
                    "a question about the views failed because of a bug in this program; nothing was changed"
                );
            }
        }
        stop
    }

    fn step(&mut self, position: u64, found: RecordOrDamage) -> Result<(), StoreError> {
        let step = PreparedRecord::read(self.ledger, position, found)?;
        report(&step);
        if !self.changes.have_room_for(step.writes_at_most()) {
            let _nobody_compares = self.live.hold_saving();
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

    fn show(&mut self) {
        self.shown_at = Instant::now();
        if self.live.shown.borrow().position == self.view.position {
            return;
        }
        let former = self.live.show(&self.view);
        // Dropping the last reference frees what only that snapshot had. After an import that is much work, which no reader should do.
        self.retired.push(former);
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Writes the views. While somebody compares the written views this is put off, unless the thread is to stop.
    fn save(&mut self, stopping: bool) -> Result<(), StoreError> {
        self.saved_at = Instant::now();
        let _nobody_compares = match self.live.saving.try_lock() {
            Err(TryLockError::WouldBlock) if !stopping => return Ok(()),
            Err(TryLockError::WouldBlock) => self.live.hold_saving(),
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Ok(held) => held,
        };
        self.view.save(&mut self.changes)?;
        self.unsaved = false;
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
    fn the_applying_thread_survives_a_panic_while_comparing_the_views() {
        let live = LiveViews::default();
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = live.hold_saving();
            panic!("as sled does");
        }));
        assert!(compared.is_err());
        drop(live.hold_saving());
    }

    /// The thread checked at each 256th record whether it was time to save, before it had applied that record. After a quiet
    /// second there was nothing to save, so it was still time to save when the thread returned to the same record, and it looped
    /// forever.
    #[test]
    fn the_applying_thread_goes_on_when_the_record_at_which_it_looks_up_comes_after_a_quiet_time() {
        let (_, store, ledger) = world();
        let live = LiveViews::default();
        let site = SiteName::new("a").unwrap();
        let record = |capacity: u64| {
            ledger.record_capacity(&site, u32::try_from(capacity).unwrap(), 5).unwrap();
            live.grown_to(ledger.position());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let reached = |position| {
            runtime.block_on(async { tokio::time::timeout(ENOUGH, live.applied_to(position)).await.is_ok() })
        };
        std::thread::scope(|scope| {
            let applying = scope.spawn(|| apply_until_stopped(&ledger, &store, View::default(), &live));
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
            live.stop();
            applying.join().unwrap().unwrap();
            assert_eq!((before, after), (true, true));
        });
    }
}
