//! Whether the books are right: `server verify`.
//!
//! **Promise.** Every record of the ledger is read and compared with what else is said of it, and every view is folded anew
//! and compared with the written one, byte for byte. What does not agree is told with its place, what it means
//! and what to do. Nothing is written into the store.
//! **Kept by.** The new fold goes into a file of its own under TMPDIR, which is gone afterwards. A directory that no
//! server runs on is copied first, because sled writes when it opens. A running server goes on meanwhile: it
//! waits with writing its views, for the moment in which they are compared.
//! A ledger that lost its end agrees with itself; the note beside the store (`ledger::Note`) tells that it ended later.
//! **Not promised.** That what agrees with itself is what happened: that is between an edge and its producers. Nor that a lost
//! end is found when the note is lost, too. The edges find that out, since they know what was acknowledged: it becomes a hole.

use super::WITNESS;
use super::folding::Signal;
use super::ledger::check::Read;
use super::ledger::{Ledger, Note};
use super::opening::{self, OpenedLedger};
use super::view::billing::list::check_sums;
use super::view::{self, Changes, Step, View};
use crate::daemon::{self, DaemonError, EXIT_SETTING};
use crate::store::copy::{self, Spare};
use crate::store::directory::{DataDir, DirectoryError, STORE};
use crate::store::room::Condition;
use crate::store::{OpenError, Store, StoreError, scratch};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// More are counted, not told: the first ones say where to look.
const FINDINGS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub place: String,
    pub what: String,
    pub means: &'static str,
    pub do_this: &'static str,
}

const LEDGER_MEANS: &str =
    "what was applied there cannot be proven any more; the rest of the ledger is not affected";
const LEDGER_DO: &str = "keep a copy of the data directory; look whether a backup is sound (`server verify --data-dir BACKUP`) and go on from it: edges deliver again what they still have, and what nobody has is recorded as a hole";
const VIEW_MEANS: &str =
    "answers made from it may be wrong; the ledger, from which it follows, is another matter";
const SUMS_MEAN: &str =
    "statements and the money taken, as they are shown, are not what the charges add up to";
const VIEW_DO: &str = "stop the server and run `server refold`: its next start folds all views anew from the ledger. If that does not help, please report it with this text";
const BETTER_MEANS: &str = "they know more than the ledger does now; answers are made from them as before";
const BETTER_DO: &str = "do not run `server refold`: it would forget what they know. Keep a copy of the data directory, and look whether a backup is sound";
const END_MEANS: &str = "the disk lost the newest part of the ledger, or an older copy was put in the place of this directory's store; what was applied there is not in the books";
const END_DO: &str = "keep a copy of the data directory; check the disk, and look whether a backup has more. A server that is started on the directory records the loss and goes on: edges deliver again what they still have, and what nobody has is recorded as a hole";
const STORE_DAMAGED_MEANS: &str =
    "a part of the file cannot be read, or sled refuses it; nothing in it was changed";
const STORE_DAMAGED_DO: &str = "start the server: it rebuilds the store from what can be found, and keeps the damaged one beside it. Check the disk";
const STORE_MEANS: &str = "what the store holds cannot be told";
const STORE_DO: &str =
    "keep a copy of the data directory before anything else, check the disk, then restore a backup";

/// What was read and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub clean: bool,
    pub ledger: Option<String>,
    /// The last position of the ledger that was read.
    pub position: u64,
    pub pages: u64,
    pub events: u64,
    pub holes: u64,
    /// Events that will never come, by the holes.
    pub missing: u64,
    /// Positions that the ledger lost, and says so.
    pub truncated: u64,
    /// The position at which the views were compared; none when they could not be.
    pub views_position: Option<u64>,
    pub stays_open: u64,
    pub stays_closed: u64,
    pub exits_missed: u64,
    pub exits_unmatched: u64,
    pub quarantined: u64,
    pub seconds: f64,
    pub findings_total: u64,
    /// The first hundred.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new() -> Report {
        Report {
            clean: true,
            ledger: None,
            position: 0,
            pages: 0,
            events: 0,
            holes: 0,
            missing: 0,
            truncated: 0,
            views_position: None,
            stays_open: 0,
            stays_closed: 0,
            exits_missed: 0,
            exits_unmatched: 0,
            quarantined: 0,
            seconds: 0.0,
            findings_total: 0,
            findings: Vec::new(),
        }
    }

    fn find(&mut self, place: String, what: String, means: &'static str, do_this: &'static str) {
        self.clean = false;
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place, what, means, do_this });
        }
    }

    fn of_unreadable(error: &impl fmt::Display) -> Report {
        let mut report = Report::new();
        report.find("the store".into(), error.to_string(), STORE_MEANS, STORE_DO);
        report
    }

    /// 0 when nothing is wrong, else 1.
    pub fn exit_code(&self) -> ExitCode {
        if self.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { pages, events, holes, missing, position, .. } = self;
        if let Some(ledger) = &self.ledger {
            writeln!(
                f,
                "ledger {ledger}: {position} positions, {pages} pages, {events} events, {holes} holes ({missing} events missing)"
            )?;
        }
        if self.truncated > 0 {
            writeln!(
                f,
                "{} positions were lost at an earlier time; the ledger says so itself",
                self.truncated
            )?;
        }
        if let Some(position) = self.views_position {
            let Report { stays_open, stays_closed, exits_missed, exits_unmatched, quarantined, .. } = self;
            writeln!(
                f,
                "views at position {position}: {stays_closed} stays closed, {stays_open} open, {exits_missed} exits missed, {exits_unmatched} exits unmatched, {quarantined} events in quarantine"
            )?;
        }
        for Finding { place, what, means, do_this } in &self.findings {
            writeln!(f, "WRONG {place}: {what}.\n  It means: {means}.\n  What to do: {do_this}.")?;
        }
        let told = self.findings.len() as u64;
        if self.findings_total > told {
            writeln!(f, "and {} more", self.findings_total - told)?;
        }
        match self.findings_total {
            0 => write!(f, "everything agrees ({:.1} s)", self.seconds),
            1 => write!(f, "1 thing is wrong ({:.1} s)", self.seconds),
            n => write!(f, "{n} things are wrong ({:.1} s)", self.seconds),
        }
    }
}

/// Why nothing was verified. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("there is no data directory of a server in {0:?}")]
    NoDirectory(std::path::PathBuf),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Copy(#[from] copy::CopyError),
    #[error(
        "the views are folded anew in a file under TMPDIR, and that failed: {0}. Nothing was changed in the data directory. Set TMPDIR to a directory on a disk with room"
    )]
    Scratch(String),
    #[error(transparent)]
    OtherProgram(crate::store::OpenError),
}

impl VerifyError {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            VerifyError::NoDirectory(_) | VerifyError::OtherProgram(_) => ExitCode::from(EXIT_SETTING),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Verifies the store of a data directory that no server runs on. Nothing in it changes.
pub fn verify_directory(path: &Path) -> Result<Report, VerifyError> {
    let began = Instant::now();
    if !path.join("store").is_dir() {
        return Err(VerifyError::NoDirectory(path.to_owned()));
    }
    let copy = copy::of_idle(path, &[WITNESS], Spare::AsMuchAgain)?;
    let witness = copy.path().join(WITNESS);
    let mut report = match opening::open_copy(copy.path(), &witness) {
        Ok(OpenedLedger { store, ledger, condition, .. }) => {
            let mut report = verify(&ledger, &store)?;
            if condition == Condition::Salvaged {
                report.find(
                    "the store".into(),
                    "it is damaged; what is told here is of what can still be found in it".into(),
                    STORE_DAMAGED_MEANS,
                    STORE_DAMAGED_DO,
                );
            }
            check_end(&ledger, Note::read(&witness), &mut report);
            report
        }
        Err(DaemonError::Open(error @ OpenError::OtherPurpose { .. })) => {
            return Err(VerifyError::OtherProgram(error));
        }
        // The copy is gone by the time somebody reads this.
        Err(error) => {
            let copied = format!("{:?}", copy.path().join(STORE));
            let text = error.to_string().replace(&copied, &format!("{:?}", path.join(STORE)));
            Report::of_unreadable(&text)
        }
    };
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Whether the ledger ends where it had come to.
fn check_end(ledger: &Ledger, note: Option<Note>, report: &mut Report) {
    let end = ledger.position();
    match note {
        Some(note) if note.ledger == ledger.id() && note.position > end => report.find(
            format!("the end of the ledger, positions {} to {}", end + 1, note.position),
            format!("they were on disk, by the note in the file {WITNESS:?}, and are gone"),
            END_MEANS,
            END_DO,
        ),
        _ => {}
    }
}

/// Verifies a store that nobody writes to.
pub fn verify(ledger: &Ledger, store: &Store) -> Result<Report, VerifyError> {
    verify_with(ledger, store, None)
}

/// Verifies while the server runs. As long as the views are compared they are not written: the fold waits with what it has to
/// write, and with it whatever shows its position (boards, lists, the answer to a command). Edges are served all the while.
pub fn verify_live(ledger: &Ledger, store: &Store, signal: &Signal) -> Result<Report, VerifyError> {
    verify_with(ledger, store, Some(signal))
}

fn verify_with(ledger: &Ledger, store: &Store, running: Option<&Signal>) -> Result<Report, VerifyError> {
    let began = Instant::now();
    let mut report = Report::new();
    report.ledger = Some(ledger.id().to_string());
    let read = ledger.check(running.is_some(), &mut |place, what| {
        report.find(place, what, LEDGER_MEANS, LEDGER_DO);
    });
    match read {
        Ok(Read { through, pages, events, holes, missing, truncated }) => {
            report = Report { position: through, pages, events, holes, missing, truncated, ..report };
        }
        Err(error) => report.find("the ledger".into(), error.to_string(), STORE_MEANS, STORE_DO),
    }
    match check_views(ledger, store, running, &mut report) {
        Ok(()) => {}
        Err(Stopped::Here(error)) => return Err(error),
        Err(Stopped::Ledger(error)) => {
            let what = format!("they were not compared, because the ledger cannot be folded: {error}");
            report.find("the views".into(), what, VIEW_MEANS, LEDGER_DO);
        }
        Err(Stopped::Views(error)) => {
            report.find("the views".into(), error.to_string(), VIEW_MEANS, VIEW_DO);
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Why the views were not compared.
enum Stopped {
    /// The new fold has no place.
    Here(VerifyError),
    Ledger(StoreError),
    Views(StoreError),
}

fn check_views(
    ledger: &Ledger,
    store: &Store,
    running: Option<&Signal>,
    report: &mut Report,
) -> Result<(), Stopped> {
    let scratch_failed = |error: &dyn fmt::Display| Stopped::Here(VerifyError::Scratch(error.to_string()));
    let anew = scratch::store().map_err(|error| scratch_failed(&error))?;
    let view = view::base::begin(ledger, &anew).map_err(Stopped::Views)?;
    let mut fold = Fold { ledger, view, changes: Changes::on(&anew) };
    let written = || view::written_position(store).map_err(Stopped::Views);

    fold.go_on_to(written()?.unwrap_or_default())?;
    // From here on the server does not write its views; the few records since are folded meanwhile.
    let _held = running.map(Signal::hold_saving);
    let Some(position) = written()? else {
        let (from, to) = view::KEYS;
        if store.range(from, to).next().is_some() {
            let what =
                "they are of another version of the program, or only a part of them is there".to_owned();
            report.find("the views".into(), what, VIEW_MEANS, VIEW_DO);
        }
        return Ok(());
    };
    fold.go_on_to(position)?;
    if fold.view.position < position {
        let what = format!(
            "they say that they reached position {position}, and the ledger ends at {}",
            fold.view.position
        );
        report.find("the views".into(), what, VIEW_MEANS, VIEW_DO);
        return Ok(());
    }
    let known = view::written_damages(store).map_err(Stopped::Views)?;
    if let Some(damage) = fold.view.damages.iter().find(|(last, its)| known.get(*last) != Some(*its)) {
        // What they made of it then is worth more than what a fold makes of it now.
        let what = format!(
            "they were not compared, because they were folded while positions {} to {} of the ledger could still be read",
            damage.1.from, damage.0
        );
        report.find("the views".into(), what, BETTER_MEANS, BETTER_DO);
        return Ok(());
    }
    fold.view.save(&mut fold.changes).map_err(|error| scratch_failed(&error))?;
    view::compare(store, &anew, &mut |place, what| report.find(place, what, VIEW_MEANS, VIEW_DO))
        .map_err(Stopped::Views)?;
    check_sums(store, &mut |place, what| report.find(place, what, SUMS_MEAN, VIEW_DO))
        .map_err(Stopped::Views)?;
    report.views_position = Some(position);
    for garage in fold.view.garages.values() {
        report.stays_open += garage.stays.open;
        report.stays_closed += garage.stays.closed;
        report.exits_missed += garage.stays.exits_missed;
        report.exits_unmatched += garage.stays.exits_unmatched;
    }
    report.quarantined = fold.view.quarantine.values().map(|page| page.places().count() as u64).sum();
    Ok(())
}

/// All views, folded from the beginning.
struct Fold<'a> {
    ledger: &'a Ledger,
    view: View,
    changes: Changes,
}

impl Fold<'_> {
    fn go_on_to(&mut self, position: u64) -> Result<(), Stopped> {
        for found in self.ledger.records(self.view.position + 1) {
            let (at, found) = found.map_err(Stopped::Ledger)?;
            if at > position {
                break;
            }
            let step = Step::read(self.ledger, at, found).map_err(Stopped::Ledger)?;
            if !self.changes.have_room_for(step.writes_at_most()) {
                let saved = self.view.save(&mut self.changes);
                saved.map_err(|error| Stopped::Here(VerifyError::Scratch(error.to_string())))?;
            }
            self.view.apply(self.ledger, step, &mut self.changes).map_err(Stopped::Ledger)?;
        }
        Ok(())
    }
}

/// `server verify`.
pub fn main(data_dir: &Path, json: bool) -> ExitCode {
    daemon::keep_small();
    match verify_directory(data_dir) {
        Ok(report) => {
            let text = if json {
                serde_json::to_string_pretty(&report).expect("a report is plain data")
            } else {
                report.to_string()
            };
            println!("{text}");
            report.exit_code()
        }
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

/// `server refold`: drops the views of a directory that no server runs on, so that its next start folds them anew.
pub fn refold(data_dir: &Path) -> Result<(), DaemonError> {
    if !data_dir.join("store").is_dir() {
        return Err(DaemonError::Setting(VerifyError::NoDirectory(data_dir.to_owned()).to_string()));
    }
    let dir = DataDir::hold(data_dir)?;
    let OpenedLedger { store, .. } = opening::open(dir.path(), None)?;
    view::discard(&store)?;
    store.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::SiteName;
    use crate::server::folding::fold_until_stopped;
    use crate::server::view::tests::{apply, event, page_after, world};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    /// The ledger grows and the views are written all the while.
    #[test]
    fn a_running_server_is_verified_without_being_stopped() {
        let (_, store, ledger) = world();
        let view = View::open(&store, &ledger).unwrap();
        let signal = Signal::showing(&view);
        let enough = AtomicBool::new(false);
        let (written, pages) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| fold_until_stopped(&ledger, &store, view, &signal).unwrap());
            let (enough, ledger, signal) = (&enough, &ledger, &signal);
            scope.spawn(move || {
                for n in 0u64.. {
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    let kind = if n % 3 == 2 { "exit" } else { "entry" };
                    let events = [event(&format!(r#"{{"kind":"{kind}","plate":"AB{}"}}"#, n % 7))];
                    apply(ledger, "a", vec![page_after(n + 1, &events)]);
                    ledger.record_capacity(&SiteName::new("b").unwrap(), n as u32, 5).unwrap();
                    signal.grown_to(ledger.position());
                    written.send(()).unwrap();
                }
            });
            let mut last = 0;
            for _ in 0..20 {
                pages.recv().unwrap();
                let report = verify_live(ledger, &store, signal).unwrap();
                assert!(report.clean, "{report}");
                assert!(report.position >= last);
                last = report.position;
            }
            enough.store(true, Ordering::Relaxed);
            signal.stop();
        });
        let report = verify(&ledger, &store).unwrap();
        assert!(report.clean, "{report}");
        assert!(report.events > 0 && report.views_position.is_some(), "{report}");
    }

    #[test]
    fn an_event_that_stands_twice_or_nowhere_is_found() {
        let entry = || event(r#"{"kind":"entry","plate":"AB1"}"#);
        let record = |n: u64| [b"r", &n.to_be_bytes()[..]].concat();
        type Damage = fn(&Store, &dyn Fn(u64) -> Vec<u8>);
        let damages: [(Damage, &str); 3] = [
            (
                |store, record| {
                    let second = store.get(&record(2)).unwrap().unwrap();
                    store.put(&record(3), &second).unwrap();
                },
                "position 3, garage \"a\"",
            ),
            (|store, record| store.remove(&record(3)).unwrap(), "the mark of garage \"a\""),
            (
                |store, record| {
                    let first = store.get(&record(1)).unwrap().unwrap();
                    store.put(&record(4), &first).unwrap();
                },
                "sequences 1 to 1 follow sequence 3",
            ),
        ];
        for (damage, words) in damages {
            let (_, store, ledger) = world();
            apply(&ledger, "a", (1..=3).map(|n| page_after(n, &[entry()])).collect());
            assert!(verify(&ledger, &store).unwrap().clean);
            damage(&store, &record);
            let ledger = Ledger::open(store.clone()).unwrap();
            let report = verify(&ledger, &store).unwrap();
            assert!(!report.clean && report.to_string().contains(words), "{words}: {report}");
        }
    }
}
