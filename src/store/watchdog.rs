//! Ends the process when the disk does not answer.
//!
//! A write that never returns would be worse than one that fails: nobody is answered, and nothing restarts the daemon. sled
//! 0.34 can also miss its own failure: when a write of its log fails while the flushing thread already waits for a later
//! part, that thread is not woken. So an operation that runs longer than [`PATIENCE`] is taken for a failed one, and doubt
//! is fatal: a restart finds out what the disk holds.
//!
//! And a write of sled's own threads can fail while nobody writes, or while the one who waits for it is not woken. sled keeps that
//! error, so it is looked for: who has not ended [`GRACE`] after it was seen is ended here.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Longer than any disk that works takes for one write, even behind a full queue of others.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An operation that meets the failure ends the daemon in this time by itself, with words of its own.
const GRACE: Duration = Duration::from_secs(2);

/// What a failure of the disk means, and what to do.
pub(super) const DISK_ADVICE: &str = "What was confirmed is kept. Make room on the disk or replace it, then start again: that finds out what it holds";

/// When each running operation began.
#[derive(Debug, Default)]
pub(super) struct Watchdog(Mutex<Vec<Instant>>);

/// An operation that is being watched, until it is dropped.
pub(super) struct Watched<'a>(&'a Watchdog, Instant);

impl Watchdog {
    /// Watches until the last user is gone. `failures` tells what failed while nobody looked, what that means and what to do.
    pub(super) fn start(
        failures: impl Fn() -> Option<String> + Send + 'static,
    ) -> std::io::Result<Arc<Watchdog>> {
        let watchdog = Arc::new(Watchdog::default());
        let watched = Arc::downgrade(&watchdog);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || watch(&watched, &failures))?;
        Ok(watchdog)
    }

    pub(super) fn begin(&self) -> Watched<'_> {
        let began = Instant::now();
        self.running().push(began);
        Watched(self, began)
    }

    fn longest(&self) -> Option<Duration> {
        self.running().iter().min().map(Instant::elapsed)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running();
        if let Some(place) = running.iter().position(|began| *began == self.1) {
            running.swap_remove(place);
        }
    }
}

fn watch(watchdog: &Weak<Watchdog>, failures: &dyn Fn() -> Option<String>) {
    let mut failed_at = None;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(watchdog) = watchdog.upgrade() else { return };
        if watchdog.longest().is_some_and(|longest| longest > PATIENCE) {
            let seconds = PATIENCE.as_secs();
            end(&format!("the disk has not answered for {seconds} s. {DISK_ADVICE}"));
        }
        if let Some(failure) = failures()
            && failed_at.get_or_insert_with(Instant::now).elapsed() >= GRACE
        {
            end(&failure);
        }
    }
}

fn end(what: &str) -> ! {
    tracing::error!("{what}");
    eprintln!("error: {what}");
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_still_runs_is_counted() {
        let watchdog = Watchdog::default();
        assert_eq!(watchdog.longest(), None);
        let first = watchdog.begin();
        let second = watchdog.begin();
        drop(first);
        assert!(watchdog.longest().is_some());
        drop(second);
        assert_eq!(watchdog.longest(), None);
    }
}
