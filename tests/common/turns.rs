//! Which tests run side by side.
//!
//! libtest runs as many tests at a time as the machine has cores. Most of them wait for a disk or a clock and do not mind each
//! other. A test that measures how soon something happens, or needs all of the machine, calls [`alone`] first.
//!
//! Every other test takes part by itself, from the first program that it starts until its thread ends.

use super::scale::{Scale, scale};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets tests run side by side, or one alone.
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    /// How many tests run side by side.
    together: usize,
    /// How many wait to run alone. No other begins meanwhile, or they would wait for ever.
    waiting: usize,
    /// Whether one runs alone.
    alone: bool,
}

static TURNS: Turns = Turns::new();

thread_local! {
    static TOGETHER: RefCell<Option<Together>> = const { RefCell::new(None) };
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

impl Turns {
    const fn new() -> Turns {
        let state = State { together: 0, waiting: 0, alone: false };
        Turns { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_together(&self) {
        let may_not = |state: &mut State| state.alone || state.waiting > 0;
        self.changed.wait_while(self.state(), may_not).unwrap().together += 1;
    }

    fn begin_alone(&self) {
        let mut state = self.state();
        state.waiting += 1;
        let may_not = |state: &mut State| state.alone || state.together > 0;
        state = self.changed.wait_while(state, may_not).unwrap();
        state.waiting -= 1;
        state.alone = true;
    }

    fn end(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

/// A test's part in those that run side by side. Its thread keeps it to its end.
struct Together;

impl Drop for Together {
    fn drop(&mut self) {
        TURNS.end(|state| state.together -= 1);
    }
}

/// While it lives no other test runs that starts programs.
#[must_use]
pub struct Alone(());

impl Drop for Alone {
    fn drop(&mut self) {
        IS_ALONE.set(false);
        TURNS.end(|state| state.alone = false);
    }
}

/// Waits until no other test runs that starts programs, and keeps them waiting until the returned guard is dropped. To be called
/// in the thread of the test.
pub fn alone() -> Alone {
    drop(TOGETHER.take());
    TURNS.begin_alone();
    IS_ALONE.set(true);
    Alone(())
}

/// [`alone`] at the scale `long`, where the test looks at times that it does not look at otherwise.
pub fn alone_when_long() -> Option<Alone> {
    (scale() == Scale::Long).then(alone)
}

/// Takes part in what runs side by side, and waits while a test runs alone. Called by whatever starts a program.
pub fn together() {
    // The threads that a test starts belong to it. libtest names the thread of a test after it.
    let is_of_a_test = std::thread::current().name().is_some_and(|name| name.contains("::"));
    TOGETHER.with_borrow_mut(|together| {
        if is_of_a_test && together.is_none() && !IS_ALONE.get() {
            TURNS.begin_together();
            *together = Some(Together);
        }
    });
}

/// One that wants to run alone is let in though others begin all the time, and none runs beside it.
#[test]
fn a_test_that_runs_alone_has_no_other_beside_it() {
    let turns = Turns::new();
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (turns, running) = (&turns, &running);
            scope.spawn(move || {
                for _ in 0..200 {
                    let alone = thread == 0;
                    if alone {
                        turns.begin_alone()
                    } else {
                        turns.begin_together()
                    }
                    let beside = running.fetch_add(1, Ordering::SeqCst);
                    std::thread::yield_now();
                    let with = running.fetch_sub(1, Ordering::SeqCst);
                    assert!(!alone || (beside, with) == (0, 1), "{beside} and {with} ran beside it");
                    turns.end(|state| if alone { state.alone = false } else { state.together -= 1 });
                }
            });
        }
    });
    assert_eq!(*turns.state(), State { together: 0, waiting: 0, alone: false });
}
