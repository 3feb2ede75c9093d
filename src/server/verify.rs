//! `server verify`: checks the ledger, and whether the views follow from it.
//!
//! **Promise.** Every record of the ledger is read and compared with the index and the marks, and every view is rebuilt and compared with
//! the written one, byte for byte. What does not agree is reported with its place, what it means and what to do. Nothing is written
//! into the store.
//! **Kept by.** The views are rebuilt in a file under TMPDIR, which is removed afterwards. A directory on which no server runs is
//! copied first, because sled writes when it opens. A running server only postpones writing its views while they are compared. A
//! ledger that lost its end agrees with itself; the high-water file beside it says that it ended later.
//! **Not promised.** That consistent books show what really happened: only an edge and its producers can know that. Nor that a
//! lost end is found when the high-water file is lost as well: then the edges, which know what was acknowledged, find it.

use super::HIGH_WATER_FILE;
use super::applying::LiveViews;
use super::ledger::check::{CheckedLedger, Meanwhile};
use super::ledger::{Ledger, LedgerHighWater};
use super::opening::{self, OpenedLedger};
use super::view::charges::{DocumentSums, DraftSums, check_documents, check_totals};
use super::view::{self, CatchUpError, View, ViewChanges};
use crate::codes::{self, Coded};
use crate::daemon::{self, DaemonError};
use crate::parking::money::Money;
use crate::store::copy::{self, Spare};
use crate::store::directory::{DataDir, STORE};
use crate::store::salvage::StoreCondition;
use crate::store::{StoreError, StoreOpenError, scratch};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// More findings are counted and not listed: the first ones say where to look.
const FINDINGS_MAX: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub place: String,
    pub what: String,
    #[serde(flatten)]
    pub advice: Advice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Advice {
    pub means: &'static str,
    pub do_this: &'static str,
}

const LEDGER_WRONG: Advice = Advice {
    means: "what was applied there can no longer be proven; the rest of the ledger is not affected",
    do_this: "keep a copy of the data directory, check a backup (`server verify --data-dir BACKUP`), and continue from it if it is sound: edges deliver again what they still have, and what nobody has is recorded as a missing range",
};
const LEDGER_END_LOST: Advice = Advice {
    means: "the disk lost the newest part of the ledger, or an older copy was put in the place of this directory's store; what was applied there is not in the books",
    do_this: "keep a copy of the data directory, check the disk, and check whether a backup has more. A server that is started on the directory records the loss and continues: edges deliver again what they still have, and what nobody has is recorded as a missing range",
};
const VIEW_WRONG: Advice = Advice {
    means: "answers made from it may be wrong; the ledger itself is checked separately",
    do_this: "stop the server and run `server rebuild-views`: its next start rebuilds all views from the ledger. If that does not help, please report it with this text",
};
const VIEW_KNOWS_MORE: Advice = Advice {
    means: "they contain more than can be read from the ledger now; answers are made from them as before",
    do_this: "do not run `server rebuild-views`: what only the views contain would be lost. Keep a copy of the data directory, and check whether a backup is sound",
};
const SUMS_WRONG: Advice = Advice {
    means: "the totals of accounts, of the money taken or of what was issued are not the sums of the drafts or of the documents",
    ..VIEW_WRONG
};
const STORE_DAMAGED: Advice = Advice {
    means: "a part of the file cannot be read, or sled refuses it; nothing in it was changed",
    do_this: "start the server: it rebuilds the store from what can be found, and keeps the damaged one beside it. Check the disk",
};
const STORE_UNREADABLE: Advice = Advice {
    means: "what the store holds is not known",
    do_this: "keep a copy of the data directory before anything else, check the disk, then restore a backup",
};

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    pub clean: bool,
    pub ledger: Option<String>,
    #[serde(flatten)]
    pub counts: CheckedLedger,
    /// The position at which the views were compared; `None` when they could not be.
    pub views_position: Option<u64>,
    pub stays_open: u64,
    pub stays_closed: u64,
    pub exits_missed: u64,
    pub exits_unmatched: u64,
    pub quarantined: u64,
    #[serde(flatten)]
    pub sums: DraftSums,
    #[serde(flatten)]
    pub documents: DocumentSums,
    pub seconds: f64,
    pub findings_total: u64,
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    fn new() -> VerifyReport {
        VerifyReport { clean: true, ..VerifyReport::default() }
    }

    fn find(&mut self, place: String, what: String, advice: Advice) {
        self.clean = false;
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place, what, advice });
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckedLedger { position, pages, events, missing_ranges, missing_events, truncated } =
            self.counts;
        if let Some(ledger) = &self.ledger {
            writeln!(
                f,
                "ledger {ledger}: {position} positions, {pages} pages, {events} events, {missing_ranges} missing ranges ({missing_events} events)"
            )?;
        }
        if truncated > 0 {
            writeln!(f, "{truncated} positions were lost at an earlier time; the ledger records this")?;
        }
        if let Some(position) = self.views_position {
            let VerifyReport { stays_open, stays_closed, exits_missed, exits_unmatched, quarantined, .. } =
                self;
            writeln!(
                f,
                "views at position {position}: {stays_closed} stays closed, {stays_open} open, {exits_missed} exits missed, {exits_unmatched} exits unmatched, {quarantined} events in quarantine"
            )?;
            let (DraftSums { drafts, amounts, due }, DocumentSums { documents, issued }) =
                (&self.sums, &self.documents);
            let [amounts, issued, due] = [amounts, issued, due].map(|amounts| listed(amounts));
            writeln!(
                f,
                "{drafts} drafts of charges: {amounts}; {documents} documents: {issued}; due: {due}"
            )?;
        }
        for Finding { place, what, advice: Advice { means, do_this } } in &self.findings {
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

/// As in "3.50 EUR, 400 JPY".
fn listed(amounts: &[Money]) -> String {
    match amounts {
        [] => "nothing".to_owned(),
        _ => amounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn no_directory(path: &Path) -> DaemonError {
    let reason = format!("there is no data directory of a server in {path:?}");
    DaemonError::Setting(codes::NO_DATA_DIRECTORY, reason)
}

fn no_scratch(error: &impl fmt::Display) -> DaemonError {
    let reason = format!(
        "the views are rebuilt in a file under TMPDIR, and that failed: {error}. Nothing was changed in the data directory. Set TMPDIR to a directory on a disk with room"
    );
    DaemonError::Failed(codes::VERIFY_SPACE_UNUSABLE, reason)
}

/// Verifies the store of a data directory that no server runs on. Nothing in it changes.
pub fn verify_directory(path: &Path) -> Result<VerifyReport, DaemonError> {
    let began = Instant::now();
    if !path.join(STORE).is_dir() {
        return Err(no_directory(path));
    }
    let copy = copy::of_idle(path, &[HIGH_WATER_FILE], Spare::AsMuchAgain)
        .map_err(|error| DaemonError::Failed(error.code(), error.to_string()))?;
    let witness = copy.path().join(HIGH_WATER_FILE);
    let mut report = match opening::open_copy(copy.path(), &witness) {
        Ok(OpenedLedger { ledger, condition, .. }) => {
            let mut report = verify(&ledger, None)?;
            if condition == StoreCondition::Salvaged {
                report.find(
                    "the store".into(),
                    "it is damaged; this report is about what can still be found in it".into(),
                    STORE_DAMAGED,
                );
            }
            check_end(&ledger, LedgerHighWater::read(&witness), &mut report);
            report
        }
        Err(error @ DaemonError::Open(StoreOpenError::OtherPurpose { .. })) => return Err(error),
        Err(error) => {
            // The copy is gone by the time somebody reads this.
            let copied = format!("{:?}", copy.path().join(STORE));
            let text = error.to_string().replace(&copied, &format!("{:?}", path.join(STORE)));
            let mut report = VerifyReport::new();
            report.find("the store".into(), text, STORE_UNREADABLE);
            report
        }
    };
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Reports positions that were on disk and are missing at the end of the ledger.
fn check_end(ledger: &Ledger, note: Option<LedgerHighWater>, report: &mut VerifyReport) {
    let end = ledger.position();
    match note {
        Some(note) if note.ledger == ledger.id() && note.position > end => report.find(
            format!("the end of the ledger, positions {} to {}", end + 1, note.position),
            format!("they were on disk, by the file {HIGH_WATER_FILE:?}, and are gone"),
            LEDGER_END_LOST,
        ),
        _ => {}
    }
}

/// Verifies a ledger and its views: those of a running server, or those that nobody writes.
///
/// The views of a running server are not written while they are compared; if more changes gather than one batch holds, records wait
/// to be applied as well. Edges are served all the while.
pub fn verify(ledger: &Ledger, running: Option<&LiveViews>) -> Result<VerifyReport, DaemonError> {
    let began = Instant::now();
    let mut report = VerifyReport::new();
    report.ledger = Some(ledger.id().to_string());
    let meanwhile = if running.is_some() { Meanwhile::Growing } else { Meanwhile::Unchanged };
    let read = ledger.check(meanwhile, &mut |place, what| {
        report.find(place, what, LEDGER_WRONG);
    });
    match read {
        Ok(counts) => report.counts = counts,
        Err(error) => report.find("the ledger".into(), error.to_string(), STORE_UNREADABLE),
    }
    match check_views(ledger, running, &mut report) {
        Ok(()) => {}
        Err(Stopped::Here(error)) => return Err(error),
        Err(Stopped::Ledger(error)) => {
            let what = format!("they were not compared, because the ledger cannot be read: {error}");
            report.find("the views".into(), what, Advice { do_this: LEDGER_WRONG.do_this, ..VIEW_WRONG });
        }
        Err(Stopped::Views(error)) => {
            report.find("the views".into(), error.to_string(), VIEW_WRONG);
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

enum Stopped {
    Here(DaemonError),
    Ledger(StoreError),
    Views(StoreError),
}

fn check_views(
    ledger: &Ledger,
    running: Option<&LiveViews>,
    report: &mut VerifyReport,
) -> Result<(), Stopped> {
    let store = ledger.store();
    let rebuilt_store = scratch::store().map_err(|error| Stopped::Here(no_scratch(&error)))?;
    let mut rebuilt = View::begin(ledger, &rebuilt_store).map_err(Stopped::Views)?;
    let mut changes = ViewChanges::on(&rebuilt_store);
    let catch_up = |view: &mut View, changes: &mut ViewChanges, position: u64| {
        view::catch_up(view, ledger, position, changes, |_| {}).map_err(|error| match error {
            CatchUpError::Ledger(error) => Stopped::Ledger(error),
            CatchUpError::Views(error) => Stopped::Here(no_scratch(&error)),
        })
    };
    let written = || view::written_position(store).map_err(Stopped::Views);

    catch_up(&mut rebuilt, &mut changes, written()?.unwrap_or_default())?;
    // From here on the server does not write its views; the few records since are applied now.
    let _held = running.map(LiveViews::hold_saving);
    let mut find = |what: String, advice| report.find("the views".into(), what, advice);
    let Some(position) = written()? else {
        let (from, to) = view::KEYS;
        if store.range(from, to).next().is_some() {
            let what = "they were written by another version of the program, or a part of them is missing";
            find(what.into(), VIEW_WRONG);
        }
        return Ok(());
    };
    catch_up(&mut rebuilt, &mut changes, position)?;
    if rebuilt.position < position {
        let end = rebuilt.position;
        let what = format!("they say that they reached position {position}, and the ledger ends at {end}");
        find(what, VIEW_WRONG);
        return Ok(());
    }
    let known = view::written_damages(store).map_err(Stopped::Views)?;
    if let Some(damage) = rebuilt.damages.iter().find(|(last, its)| known.get(*last) != Some(*its)) {
        // What they made of the records then is worth more than what a rebuild makes of the damaged ledger now.
        let (from, to) = (damage.1.from, damage.0);
        let what = format!(
            "they were not compared, because they were made while positions {from} to {to} of the ledger could still be read"
        );
        find(what, VIEW_KNOWS_MORE);
        return Ok(());
    }
    rebuilt.save(&mut changes).map_err(|error| Stopped::Here(no_scratch(&error)))?;
    view::compare(store, &rebuilt_store, &mut |place, what| report.find(place, what, VIEW_WRONG))
        .map_err(Stopped::Views)?;
    let shown = rebuilt.snapshot();
    let sums = check_totals((&shown, ledger), &mut |place, what| report.find(place, what, SUMS_WRONG));
    report.sums = sums.map_err(Stopped::Views)?;
    let documents = check_documents(store, &mut |place, what| report.find(place, what, SUMS_WRONG));
    report.documents = documents.map_err(Stopped::Views)?;
    report.views_position = Some(position);
    for garage in rebuilt.garages.values() {
        report.stays_open += garage.stays.counts.open;
        report.stays_closed += garage.stays.counts.closed;
        report.exits_missed += garage.stays.counts.exits_missed;
        report.exits_unmatched += garage.stays.counts.exits_unmatched;
    }
    report.quarantined = rebuilt.quarantine.values().map(|page| page.places().count() as u64).sum();
    Ok(())
}

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
            if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => daemon::exit_for(&error),
    }
}

/// `server rebuild-views`: drops the views of a directory that no server runs on, so that its next start rebuilds them.
pub fn discard_views(data_dir: &Path) -> Result<(), DaemonError> {
    if !data_dir.join(STORE).is_dir() {
        return Err(no_directory(data_dir));
    }
    let dir = DataDir::hold(data_dir)?;
    let OpenedLedger { ledger, .. } = opening::open(dir.path(), None)?;
    view::discard(ledger.store())?;
    ledger.store().flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::SiteName;
    use crate::server::applying::apply_until_stopped;
    use crate::server::view::tests::{apply, event, page_after, world};
    use crate::store::Store;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    /// The ledger grows and the views are written all the while.
    #[test]
    fn a_running_server_is_verified_without_being_stopped() {
        let (_, store, ledger) = world();
        let view = View::open(&store, &ledger).unwrap();
        let live = LiveViews::showing(&view);
        let enough = AtomicBool::new(false);
        let (written, pages) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| apply_until_stopped(&ledger, &store, view, &live).unwrap());
            let (enough, ledger, live) = (&enough, &ledger, &live);
            scope.spawn(move || {
                for n in 0u64.. {
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    let kind = if n % 3 == 2 { "exit" } else { "entry" };
                    let events = [event(&format!(r#"{{"kind":"{kind}","plate":"AB{}"}}"#, n % 7))];
                    apply(ledger, "a", vec![page_after(n + 1, &events)]);
                    ledger.record_capacity(&SiteName::new("b").unwrap(), n as u32, 5).unwrap();
                    live.grown_to(ledger.position());
                    written.send(()).unwrap();
                }
            });
            let mut last = 0;
            for _ in 0..20 {
                pages.recv().unwrap();
                let report = verify(ledger, Some(live)).unwrap();
                assert!(report.clean, "{report}");
                assert!(report.counts.position >= last);
                last = report.counts.position;
            }
            enough.store(true, Ordering::Relaxed);
            live.stop();
        });
        let report = verify(&ledger, None).unwrap();
        assert!(report.clean, "{report}");
        assert!(report.counts.events > 0 && report.views_position.is_some(), "{report}");
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
            assert!(verify(&ledger, None).unwrap().clean);
            damage(&store, &record);
            let ledger = Ledger::open(store.clone()).unwrap();
            let report = verify(&ledger, None).unwrap();
            assert!(!report.clean && report.to_string().contains(words), "{words}: {report}");
        }
    }
}
