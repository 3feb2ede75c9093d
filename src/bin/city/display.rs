//! What people see while the city runs.
//!
//! **Promise.** On a terminal the state of the city is shown in place; elsewhere as plain lines now and then. All of that goes
//! to stderr. With `--json` nothing but the result goes to stdout.
//! **Not promised.** That all output is seen: when nobody reads it any more, the city continues silently.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often plain lines come where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Maximum number of garages shown, so that a terminal has room for them.
const MAX_LINES: usize = 16;

/// The city at one moment.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub headline: String,
    /// A line for each garage.
    pub garages: Vec<String>,
    pub applied: u64,
    /// How many events there will be, if that is known.
    pub planned: Option<u64>,
}

/// Where lines go that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinesTo {
    Stdout,
    Stderr,
}

/// A terminal, or a file or pipe in its place.
#[derive(Debug)]
pub struct CityDisplay {
    lines_to: LinesTo,
    terminal: bool,
    bar: Option<ProgressBar>,
    last_plain: Option<Instant>,
}

impl CityDisplay {
    pub fn new(lines_to: LinesTo) -> CityDisplay {
        CityDisplay { lines_to, terminal: std::io::stderr().is_terminal(), bar: None, last_plain: None }
    }

    /// How often a new picture is worth the questions that it takes.
    pub fn show_every(&self) -> Duration {
        if self.terminal { Duration::from_millis(500) } else { Duration::from_secs(2) }
    }

    /// Writes lines that stay.
    pub fn say(&self, text: &str) {
        let put = || {
            // It fails when nobody reads any more (`city | head`). That is no reason to leave cars uncounted.
            let _ = match self.lines_to {
                LinesTo::Stdout => writeln!(std::io::stdout(), "{text}"),
                LinesTo::Stderr => writeln!(std::io::stderr(), "{text}"),
            };
        };
        match &self.bar {
            Some(bar) => bar.suspend(put),
            None => put(),
        }
    }

    /// Shows the city as it is now, in place of how it was before.
    pub fn show(&mut self, picture: &Picture) {
        let mut lines = vec![picture.headline.clone()];
        lines.extend(picture.garages.iter().take(MAX_LINES).cloned());
        if picture.garages.len() > MAX_LINES {
            lines.push(format!("  … and {} more", picture.garages.len() - MAX_LINES));
        }
        let text = lines.join("\n");
        if self.terminal {
            self.show_in_place(picture, text);
        } else if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            self.last_plain = Some(Instant::now());
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    fn show_in_place(&mut self, picture: &Picture, text: String) {
        let bar = self.bar.get_or_insert_with(|| {
            let template = if picture.planned.is_some() { "{bar:30} {percent:>3} %  {msg}" } else { "{msg}" };
            let style = ProgressStyle::with_template(template).expect("the template is well formed");
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.with_style(style.progress_chars("━╸─"))
        });
        bar.set_length(picture.planned.unwrap_or(0));
        bar.set_position(picture.applied);
        bar.set_message(text);
    }

    /// Removes the picture; lines that were said stay.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
