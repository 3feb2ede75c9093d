//! What people see while the city runs.
//!
//! **Promise.** On a terminal the state of the city is shown in place; elsewhere as plain lines now and then. All of that goes
//! to stderr. With `--json` nothing but the result goes to stdout.
//! **Not promised.** That all output is seen: when nobody reads it any more, the city continues silently.

use super::settings::CityFlags;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use std::time::{Duration, Instant};

/// How often plain lines come where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Maximum number of lines shown, so that a terminal has room for them.
const MAX_LINES: usize = 18;

/// A terminal, or a file or pipe in its place.
#[derive(Debug)]
pub struct CityDisplay {
    /// Lines that stay go to stderr, since stdout is for the result as JSON.
    json: bool,
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    last_plain: Option<Instant>,
}

impl CityDisplay {
    pub fn new(flags: &CityFlags) -> CityDisplay {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg}").expect("the template is well formed");
        CityDisplay { json: flags.json, bar: bar.with_style(style), last_plain: None }
    }

    /// How often a new picture is worth the questions that it takes.
    pub fn show_every(&self) -> Duration {
        Duration::from_millis(if self.bar.is_hidden() { 2_000 } else { 500 })
    }

    /// Writes lines that stay.
    pub fn say(&self, text: &str) {
        // It fails when nobody reads any more (`city | head`). That is no reason to leave cars uncounted.
        let _ = self.bar.suspend(|| {
            if self.json {
                writeln!(std::io::stderr(), "{text}")
            } else {
                writeln!(std::io::stdout(), "{text}")
            }
        });
    }

    /// Shows the city as it is now, in place of how it was before.
    pub fn show(&mut self, lines: &[String]) {
        let mut text = lines[..lines.len().min(MAX_LINES)].join("\n");
        if lines.len() > MAX_LINES {
            text += &format!("\n  … and {} more", lines.len() - MAX_LINES);
        }
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
        } else if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            self.last_plain = Some(Instant::now());
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Removes the picture; lines that were said stay.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
