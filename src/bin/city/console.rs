//! What people see while the city runs.
//!
//! **Promise.** On a terminal a table (or, in a replay, a bar) that renews itself in place; elsewhere plain lines
//! at a calm pace. With `--json` nothing but the result goes to stdout.
//! **Not promised.** That everything is seen: when nobody reads any more, the city goes on in silence.

use super::money::Takings;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How often plain lines come where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// One garage, as it is shown.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    /// At the centre; `None` before it has heard of the garage.
    pub occupied: Option<i64>,
    pub capacity: u32,
    /// The money.
    pub taken: Takings,
    /// Events that wait at the edge.
    pub backlog: Option<u64>,
    pub resends: Option<u64>,
    pub state: &'static str,
}

/// The city at one moment.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// The time in the city, if it has one.
    pub clock: Option<String>,
    pub rows: Vec<Row>,
    pub confirmed: u64,
    pub applied: u64,
    /// How many events there will be, if that is known.
    pub planned: Option<u64>,
    pub seconds: f64,
    /// What bad weather has done so far, if there is any.
    pub weather: Option<String>,
}

/// What the picture is drawn as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    Table,
    Bar,
}

/// The screen, or whatever is in its place.
#[derive(Debug)]
pub struct Console {
    to_stderr: bool,
    terminal: bool,
    bar: Option<ProgressBar>,
    /// Lines of the table that is on the screen.
    drawn: usize,
    last_plain: Option<Instant>,
}

impl Console {
    /// With `json`, stdout is left alone.
    pub fn new(json: bool) -> Console {
        let terminal = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Console { to_stderr: json, terminal, bar: None, drawn: 0, last_plain: None }
    }

    /// Whether the picture renews itself, and is worth a look several times a second.
    pub fn is_lively(&self) -> bool {
        self.terminal || std::io::stderr().is_terminal()
    }

    fn put(&self, text: &str) {
        // Nobody may be reading any more (`city | head`). That is no reason to leave cars uncounted.
        let _ = if self.to_stderr {
            std::io::stderr().lock().write_all(text.as_bytes())
        } else {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        };
    }

    /// Lines that stay.
    pub fn say(&mut self, text: &str) {
        let mut out = self.erase();
        out.push_str(text);
        out.push('\n');
        match &self.bar {
            Some(bar) => bar.suspend(|| self.put(&out)),
            None => self.put(&out),
        }
    }

    /// Shows the city as it is now, in place of how it was before.
    pub fn show(&mut self, picture: &Picture, view: View) {
        match view {
            View::Bar if std::io::stderr().is_terminal() => self.show_bar(picture),
            View::Table if self.terminal => {
                self.end_bar();
                let (columns, lines) = self.size();
                let table = table(picture, columns, lines);
                let mut out = self.erase();
                for line in &table {
                    out.push_str(line);
                    out.push('\n');
                }
                self.drawn = table.len();
                self.put(&out);
            }
            _ if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) => {
                self.last_plain = Some(Instant::now());
                match view {
                    View::Table => plain(picture).iter().for_each(|line| self.say(line)),
                    // Like the bar that it stands for, it is no result: it does not belong on stdout.
                    View::Bar => _ = writeln!(std::io::stderr(), "{}", progress(picture)),
                }
            }
            _ => {}
        }
    }

    fn show_bar(&mut self, picture: &Picture) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = "{bar:30} {percent:>3} %  {wide_msg}";
            let style = ProgressStyle::with_template(style).expect("the template is well formed");
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.with_style(style.progress_chars("━╸─"))
        });
        bar.set_length(picture.planned.unwrap_or(picture.confirmed));
        bar.set_message(progress(picture));
        bar.set_position(picture.applied);
    }

    fn end_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Takes the picture away; what was said stays.
    pub fn clear(&mut self) {
        self.end_bar();
        let out = self.erase();
        self.put(&out);
    }

    /// What moves the cursor to the first line of the table and erases all below.
    fn erase(&mut self) -> String {
        let mut out = String::new();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A\r\x1b[J", self.drawn).expect("a String takes all");
            self.drawn = 0;
        }
        out
    }

    fn size(&self) -> (usize, usize) {
        let size = if self.to_stderr {
            rustix::termios::tcgetwinsize(std::io::stderr())
        } else {
            rustix::termios::tcgetwinsize(std::io::stdout())
        };
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (usize::from(size.ws_col), usize::from(size.ws_row))
            }
            _ => (80, 24),
        }
    }
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "–".to_owned(), grouped)
}

/// How far all is, in one line.
fn progress(picture: &Picture) -> String {
    let of = picture.planned.map_or_else(String::new, |planned| format!(" of {}", grouped(planned)));
    let rate = picture.applied as f64 / picture.seconds.max(0.001);
    format!(
        "{} confirmed, {} applied{of} events, {}/s",
        grouped(picture.confirmed),
        grouped(picture.applied),
        grouped(rate as u64)
    )
}

fn occupied_of(row: &Row) -> String {
    match row.occupied {
        Some(occupied) => format!("{occupied}/{}", row.capacity),
        None => format!("–/{}", row.capacity),
    }
}

/// The money of the whole city, once there is some.
fn takings(picture: &Picture) -> Option<String> {
    let taken: Takings = picture.rows.iter().map(|row| &row.taken).collect();
    (!taken.is_nothing()).then(|| format!("{taken} taken"))
}

/// A table of at most so many lines, none wider than so many columns.
fn table(picture: &Picture, columns: usize, lines: usize) -> Vec<String> {
    let name_width = picture.rows.iter().map(|row| row.name.width()).max().unwrap_or(0).clamp(6, 30);
    let mut out = Vec::new();
    out.push(match &picture.clock {
        Some(clock) => format!("{clock}   {}", progress(picture)),
        None => progress(picture),
    });
    out.extend(picture.weather.clone());
    out.extend(takings(picture));
    let line = |cells: [&str; 6]| {
        let [name, occupied, taken, backlog, resends, state] = cells;
        format!(
            "{}  {}  {}  {}  {}  {state}",
            padded(name, name_width),
            right(occupied, 11),
            right(taken, 14),
            right(backlog, 9),
            right(resends, 7)
        )
    };
    out.push(line(["garage", "occupied", "taken", "backlog", "resends", "state"]));
    // One line stays free for the cursor, one may be needed to tell of what has no room.
    let room = lines.saturating_sub(out.len() + 2).max(1);
    for row in picture.rows.iter().take(room) {
        let (backlog, resends) = (or_dash(row.backlog), or_dash(row.resends));
        let taken = row.taken.to_string();
        out.push(line([&row.name, &occupied_of(row), &taken, &backlog, &resends, row.state]));
    }
    if picture.rows.len() > room {
        out.push(format!("… and {} more", picture.rows.len() - room));
    }
    out.into_iter().map(|line| cut(&line, columns.saturating_sub(1))).collect()
}

/// The same as lines of a log, one for the city and one for each garage.
fn plain(picture: &Picture) -> Vec<String> {
    let clock = picture.clock.as_deref().unwrap_or("city");
    let mut out = vec![format!("{clock}: {}", progress(picture))];
    out.extend(picture.weather.iter().map(|weather| format!("  {weather}")));
    out.extend(takings(picture).map(|taken| format!("  {taken}")));
    for row in &picture.rows {
        let (backlog, resends) = (or_dash(row.backlog), or_dash(row.resends));
        out.push(format!(
            "  {}: {} occupied, {} taken, backlog {backlog}, resends {resends}, {}",
            row.name,
            occupied_of(row),
            row.taken,
            row.state
        ));
    }
    out
}

fn padded(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let missing = width - text.width();
    text + &" ".repeat(missing)
}

fn right(text: &str, width: usize) -> String {
    " ".repeat(width.saturating_sub(text.width())) + text
}

/// As much of `text` as fits into so many columns.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut used = 1; // for the ellipsis
    let mut out = String::new();
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > columns {
            break;
        }
        out.push(letter);
    }
    out + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(cents: i64) -> Takings {
        let mut taken = Takings::default();
        taken.add(cents, "EUR");
        taken
    }

    fn picture(garages: usize) -> Picture {
        const LONG: &str = "A name that is longer than its column may be";
        let row = |index: usize| Row {
            name: ["Bull Ring", "Λιμάνι", "Универмаг", LONG][index % 4].to_owned(),
            occupied: (index != 1).then_some(-4),
            capacity: 1_200,
            taken: taken(123_450),
            backlog: Some(12_345),
            resends: None,
            state: "delivering",
        };
        Picture {
            clock: Some("Mon 08:15".to_owned()),
            rows: (0..garages).map(row).collect(),
            confirmed: 1_234,
            applied: 1_000,
            planned: Some(2_239_705),
            seconds: 2.0,
            weather: None,
        }
    }

    #[test]
    fn the_table_fits_the_terminal() {
        for (columns, lines, garages) in [(80, 24, 5), (80, 24, 30), (40, 10, 30), (20, 5, 4), (1, 1, 2)] {
            let table = table(&picture(garages), columns, lines);
            assert!(table.iter().all(|line| line.width() < columns.max(2)), "{table:#?}");
            assert!(table.len() < lines.max(6), "{table:#?}");
        }
        let all = table(&picture(5), 100, 24).join("\n");
        assert!(
            all.contains("Mon 08:15   1,234 confirmed, 1,000 applied of 2,239,705 events, 500/s"),
            "{all}"
        );
        assert!(all.contains("-4/1200") && all.contains("–/1200") && all.contains("12,345"), "{all}");
        assert!(all.contains("  1,234.50 EUR  ") && all.contains("\n6,172.50 EUR taken\n"), "{all}");
    }

    #[test]
    fn columns_stand_under_each_other_in_every_script() {
        let table = table(&picture(4), 100, 24);
        let place = |line: &String| line.find("delivering").map(|at| line[..at].width());
        assert_eq!(table[3..].iter().map(place).collect::<Vec<_>>(), [place(&table[3]); 4]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(["0", "999", "1,000", "2,239,705"], [0, 999, 1_000, 2_239_705].map(grouped));
    }
}
