//! A wall clock that a test can set while programs look at it.

use super::requires;
use std::fs;
use std::path::{Path, PathBuf};

/// The wall clock of the programs that run under [`FakeClock::tracer`]. As with a real clock that is set, their monotonic
/// clock goes on.
pub struct FakeClock {
    file: PathBuf,
    tracer: Vec<String>,
}

impl FakeClock {
    /// A right clock; `None` when this machine cannot fake one, which is said loudly.
    pub fn new(file: &Path) -> Option<FakeClock> {
        let library = requires::faketime()?;
        let variables = [
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            "DONT_FAKE_MONOTONIC=1".into(),
            "NO_FAKE_STAT=1".into(),
        ];
        let tracer = ["env".to_owned()].into_iter().chain(variables).collect();
        let clock = FakeClock { file: file.to_owned(), tracer };
        clock.set_years_ahead(0);
        Some(clock)
    }

    /// Under what to start a program, so that it looks at this clock.
    pub fn tracer(&self) -> Vec<&str> {
        self.tracer.iter().map(String::as_str).collect()
    }

    /// Sets the clock this number of years (of 365 days) before or behind the right time.
    pub fn set_years_ahead(&self, years: i32) {
        self.set(&format!("{years:+}y"));
    }

    pub fn set_days_ahead(&self, days: i32) {
        self.set(&format!("{days:+}d"));
    }

    pub fn set_minutes_ahead(&self, minutes: i64) {
        self.set(&format!("{minutes:+}m"));
    }

    fn set(&self, ahead: &str) {
        let whole = self.file.with_extension("new");
        fs::write(&whole, format!("{ahead}\n")).unwrap();
        fs::rename(&whole, &self.file).unwrap();
    }
}
