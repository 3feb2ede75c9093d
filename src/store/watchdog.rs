//! Ends the process when the disk does not answer.
//!
//! A read or write that never returns would be worse than one that fails: no request is answered, and nothing restarts the
//! daemon. So an operation that runs longer than [`PATIENCE`] is taken for a failed one; a restart finds out what the disk holds.
//!
//! A write by sled's own threads can also fail while no caller writes, or while the caller that waits for it is not woken. sled
//! keeps that error, so the watchdog looks for it: a process that still runs [`GRACE`] after it was seen is ended here.
//!
//! **Time counts only while the process runs.** It is measured in checks by the watching thread, and not by a clock: a process
//! that was stopped for an hour (SIGSTOP, the freezer of a container, a machine that slept) has not waited for its disk.

use crate::codes::{self, Code};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The time limit of an operation: longer than any working disk takes for one, even behind a full queue.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An operation that notices the failure ends the daemon within this time, with its own message.
const GRACE: Duration = Duration::from_secs(2);

pub(super) const DISK_ADVICE: &str = "What was confirmed is kept. Make room on the disk or replace it, then start again; the start finds out what was stored";

type Looks = u64;

const fn looks(time: Duration) -> Looks {
    (time.as_millis() / LOOK_EVERY.as_millis()) as Looks
}

/// The check at which each running operation began.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    looked: AtomicU64,
    running: Mutex<Vec<Looks>>,
}

/// An operation that is being watched, until it is dropped.
pub(super) struct RunningOperation<'a>(&'a Watchdog, Looks);

impl Watchdog {
    /// Watches until the last user is gone. `failures` returns what failed unnoticed, what that means and what to do.
    pub(super) fn start(
        failures: impl Fn() -> Option<String> + Send + 'static,
    ) -> std::io::Result<Arc<Watchdog>> {
        let watchdog = Arc::new(Watchdog::default());
        let watched = Arc::downgrade(&watchdog);
        start_thread("watchdog", move || watch(&watched, &failures))?;
        Ok(watchdog)
    }

    pub(super) fn begin(&self) -> RunningOperation<'_> {
        let began = self.looked.load(Ordering::Relaxed);
        self.running().push(began);
        RunningOperation(self, began)
    }

    /// Makes one more check. Returns whether an operation runs for too long.
    fn look(&self) -> bool {
        let now = self.looked.fetch_add(1, Ordering::Relaxed) + 1;
        let oldest = self.running().iter().min().copied();
        oldest.is_some_and(|began| now - began > looks(PATIENCE))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Looks>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningOperation<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running();
        if let Some(place) = running.iter().position(|began| *began == self.1) {
            running.swap_remove(place);
        }
    }
}

fn watch(watchdog: &Weak<Watchdog>, failures: &dyn Fn() -> Option<String>) {
    let mut looks_since_failure = 0;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(watchdog) = watchdog.upgrade() else { return };
        if watchdog.look() {
            let what = format!("the disk has not answered for {} s. {DISK_ADVICE}", PATIENCE.as_secs());
            end(codes::DISK_NOT_ANSWERING, &what);
        }
        if let Some(failure) = failures() {
            looks_since_failure += 1;
            if looks_since_failure > looks(GRACE) {
                end(codes::DISK_FAILED, &failure);
            }
        }
    }
}

/// Starts a thread that the store needs. When it panics, the process ends.
pub(super) fn start_thread(name: &'static str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            let what = format!(
                "the thread {name:?} of the store panicked. What was confirmed is kept. Start again, and please report this with the log"
            );
            end(codes::TASK_ENDED, &what);
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(guarded).map(drop)
}

fn end(code: Code, what: &str) -> ! {
    tracing::error!(%code, reason = what, "this program ends");
    codes::print_error(code, &what);
    #[expect(clippy::disallowed_methods, reason = "the store must not be closed: closing would write again")]
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_still_runs_is_counted() {
        let watchdog = Watchdog::default();
        let first = watchdog.begin();
        let second = watchdog.begin();
        drop(first);
        assert_eq!(watchdog.running().len(), 1);
        drop(second);
        assert!((0..=looks(PATIENCE)).all(|_| !watchdog.look()), "nothing runs");
    }

    /// A process that was stopped for a minute was once ended when it went on: the clock had gone on meanwhile.
    #[test]
    fn an_operation_has_run_for_as_long_as_the_watchdog_looked() {
        let watchdog = Watchdog::default();
        for _ in 0..1000 {
            watchdog.look(); // what came before it does not count
        }
        let running = watchdog.begin();
        assert!((0..looks(PATIENCE)).all(|_| !watchdog.look()));
        assert!(watchdog.look(), "a minute of looks is over");
        drop(running);
        assert!(!watchdog.look());
    }
}
