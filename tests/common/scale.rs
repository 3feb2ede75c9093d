//! How much a run of the tests tries: a little in minutes, or a lot in an hour.
//!
//! `./test --quick`, `./test` and `./test --long` say it in `FOGPOST_TEST_SCALE`; `cargo test` by itself runs the default. Each
//! promise has a case at each scale where that is possible. What only a larger scale runs is never left out silently: it is a
//! line in the file that `FOGPOST_TEST_SKIPPED` names, which `./test` shows at its end, or on stderr.

use super::requires::note;

/// See the module. A larger scale does all that a smaller one does, or more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scale {
    /// A small case of each promise, all of them in less than 4 minutes.
    Quick,
    /// What the build server runs.
    Default,
    /// The largest cases, which take long.
    Long,
}

/// The scale of this run.
pub fn scale() -> Scale {
    match std::env::var("FOGPOST_TEST_SCALE").as_deref() {
        Ok("quick") => Scale::Quick,
        Ok("default") | Err(_) => Scale::Default,
        Ok("long") => Scale::Long,
        Ok(other) => panic!("FOGPOST_TEST_SCALE is quick, default or long, and not {other:?}"),
    }
}

/// One of three values, by the scale of this run: how many kills, how many events.
pub fn by_scale<T>(quick: T, default: T, long: T) -> T {
    match scale() {
        Scale::Quick => quick,
        Scale::Default => default,
        Scale::Long => long,
    }
}

/// Returns true when this run is of that scale or a larger one. Otherwise the test must return: it has been listed as left to
/// a larger run.
#[must_use]
pub fn runs_from(smallest: Scale) -> bool {
    let runs = scale() >= smallest;
    if !runs {
        let command = if smallest == Scale::Long { "./test --long" } else { "./test" };
        note(&format!("LEFT TO {command}: test {}\n", super::requires::name_of_this_test()));
    }
    runs
}
