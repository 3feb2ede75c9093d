//! One run of the city: start, feed, wait until all events have arrived, check, stop.
//!
//! **Promise.** The report says what happened to each confirmed event. It includes everything that went wrong, and the daemons
//! are stopped in every case.
//! **Kept by.** The phases are one future, which is dropped when a daemon dies or the user interrupts again; stopping the daemons
//! is not part of it.

mod check;
mod feed;
mod settle;

use super::books::Discrepancy;
use super::chaos::SharedFaultCounts;
use super::charge_list::{self, StatementLink};
use super::children::{ChildError, peak_rss_bytes};
use super::display::CityDisplay;
use super::example::{self, CustomersError};
use super::fleet::{DaemonSlot, Fleet};
use super::plan::{GarageSite, plan, sites};
use super::report::{CityReport, Phase};
use super::settings::{Cars, Settings, Verify};
use super::status::{CityStatus, CityTime};
use fogpost::http::client::HttpCallError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Why a run could not be brought to an end. What was confirmed is on the edges' disks.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot use {path:?}: {source}. Nothing was confirmed. Choose another --data-dir")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Call(#[from] HttpCallError),
    #[error(transparent)]
    Customers(#[from] CustomersError),
    #[error("{garage}: its edge failed its producer: {source}")]
    Feed { garage: String, source: HttpCallError },
    #[error("what earlier runs had left was not delivered: nothing moved for {} s, {depth} events wait at the edges. They stay on disk", settle::NO_PROGRESS.as_secs())]
    LeftOvers { depth: u64 },
    #[error("ended at once, as asked; the books were not checked")]
    Aborted,
}

/// A daemon's end is noticed right after it stops answering.
const DEATH_IS_KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// How often daemons are asked while something is awaited from them.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How long a run that failed asks how far it had come.
const LAST_LOOK: Duration = Duration::from_secs(2);

const LINGERING_RIGHT: &str =
    "All is applied, and the books are right. The city stays up to be looked at; Ctrl-C ends it.";
const LINGERING_WRONG: &str = "THE BOOKS ARE NOT RIGHT. The city stays up to be looked at; Ctrl-C ends it.";

/// What the user's signals ask for.
#[derive(Debug, Clone, Default)]
pub struct CitySignals {
    /// The first one: stop the cars, then check and end.
    pub stop: CancellationToken,
    /// The second one: end now.
    pub abort: CancellationToken,
}

/// A run that has daemons.
struct CityRun<'a> {
    settings: &'a Settings,
    signals: &'a CitySignals,
    display: &'a mut CityDisplay,
    report: &'a mut CityReport,
    dir: &'a Path,
    sites: &'a [GarageSite],
    fleet: Arc<Fleet>,
    status: CityStatus,
    fault_counts: SharedFaultCounts,
    /// A statement to look at: the last one shown to the user, and at the end the best one.
    statement: Option<StatementLink>,
}

/// Runs the city. The books are right if, and only if, the report says so.
pub async fn run(settings: &Settings, signals: &CitySignals, display: &mut CityDisplay) -> CityReport {
    let mut report = CityReport::empty(settings.flags.seed, settings.flags.verify);
    let (dir, temporary) = match create_dir(settings) {
        Ok(created) => created,
        Err(error) => {
            report.error = Some(error.to_string());
            return report;
        }
    };
    let ran = run_in(&dir, settings, signals, display, &mut report).await;
    let statement_command = ran.unwrap_or_else(|error| {
        report.error = Some(error.to_string());
        None
    });
    report.interrupted = signals.stop.is_cancelled();
    report.books_right = report.error.is_none() && report.discrepancies.is_empty();
    // A temporary directory in which nothing was ever confirmed has nothing to show, unless something failed.
    let empty = report.interrupted && report.events == 0;
    report.data_dir = match temporary {
        Some(temporary) if report.books_right || empty => {
            drop(temporary);
            None
        }
        Some(temporary) => Some(temporary.keep()),
        None => Some(dir),
    };
    report.statement_command = statement_command.filter(|_| report.data_dir.is_some());
    report.phases.begin(Phase::Stop);
    report.seconds = report.phases.total_seconds();
    report.events_per_second = report.events as f64 / report.seconds.max(0.01);
    display.clear();
    report
}

/// Creates the directory of the daemons' data and logs. A temporary one is removed with its content when it is dropped.
fn create_dir(settings: &Settings) -> Result<(PathBuf, Option<TempDir>), RunError> {
    let (path, temporary) = match &settings.flags.data_dir {
        Some(path) => (path.clone(), None),
        None => {
            let temporary = TempDir::with_prefix("fogpost-city-")
                .map_err(|source| RunError::Directory { path: std::env::temp_dir(), source })?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    match std::fs::create_dir_all(path.join("logs")) {
        Ok(()) => Ok((path, temporary)),
        Err(source) => Err(RunError::Directory { path, source }),
    }
}

/// Starts the daemons, lets the phases happen, and stops the daemons. Returns the command that shows a statement afterwards.
async fn run_in(
    dir: &Path,
    settings: &Settings,
    signals: &CitySignals,
    display: &mut CityDisplay,
    report: &mut CityReport,
) -> Result<Option<String>, RunError> {
    let config = match &settings.flags.config {
        Some(config) => config.clone(),
        None => example::write_config(dir, &settings.cars)
            .map_err(|source| RunError::Directory { path: dir.to_owned(), source })?,
    };
    let (send_death, mut deaths) = mpsc::unbounded_channel();
    let sites = sites(&settings.cars);
    let fleet = tokio::select! {
        fleet = Fleet::start(settings, &config, dir, &sites, &send_death) => Arc::new(fleet?),
        () = signals.stop.cancelled() => return Err(RunError::Aborted),
    };
    greet(display, &fleet, &sites, dir);
    let status = CityStatus::of(&fleet, &sites);
    let mut run = CityRun {
        settings,
        signals,
        display,
        report: &mut *report,
        dir,
        sites: &sites,
        fleet: fleet.clone(),
        status: status.clone(),
        fault_counts: SharedFaultCounts::default(),
        statement: None,
    };
    let result = tokio::select! {
        result = run.phases() => result,
        Some(death) = deaths.recv() => Err(death.into()),
        () = signals.abort.cancelled() => Err(RunError::Aborted),
    };
    let (statement, fault_counts) = (run.statement.take(), run.fault_counts.clone());
    report.chaos = settings.flags.chaos.then(|| fault_counts.lock().clone());
    report.events = status.confirmed();
    report.error = match result {
        Ok(()) => None,
        Err(error) => Some(after_failure(error, &mut deaths, &status, report).await.to_string()),
    };
    end(&fleet, settings, &mut deaths, report).await;
    let data_dir = dir.join("server");
    Ok(statement.map(|statement| {
        let command = statement.command();
        format!("server {command} --data-dir {} --config {}", data_dir.display(), config.display())
    }))
}

/// Finds out why a run failed, and how far it had come.
async fn after_failure(
    error: RunError,
    deaths: &mut mpsc::UnboundedReceiver<ChildError>,
    status: &CityStatus,
    report: &mut CityReport,
) -> RunError {
    let mut reason = error;
    // A daemon that does not answer may have ended a moment ago: that is the better reason.
    if let RunError::Call(_) | RunError::Feed { .. } = &reason
        && let Ok(Some(death)) = tokio::time::timeout(DEATH_IS_KNOWN_WITHIN, deaths.recv()).await
    {
        reason = death.into();
    }
    // The server may be what failed. Then nobody knows, and nobody waits for it.
    if let Ok(Ok(applied)) = tokio::time::timeout(LAST_LOOK, status.applied()).await {
        report.applied = applied;
    }
    reason
}

/// Stops the daemons, and lets `server verify` judge what they leave. Each fault becomes a discrepancy.
async fn end(
    fleet: &Fleet,
    settings: &Settings,
    deaths: &mut mpsc::UnboundedReceiver<ChildError>,
    report: &mut CityReport,
) {
    report.phases.begin(Phase::Stop);
    let peaks = &mut report.peak_rss_bytes;
    peaks.server = fleet.server.peak_rss_bytes().await;
    let edges = fleet.edges.iter().map(DaemonSlot::peak_rss_bytes);
    peaks.edges_max = futures_util::future::join_all(edges).await.into_iter().flatten().max();
    peaks.city = peak_rss_bytes("self");

    let mut complaints = fleet.stop().await;
    if settings.flags.verify == Verify::Full && report.error.is_none() {
        report.phases.begin(Phase::Verify);
        let judged = fleet.server.run_command(&["verify"]).await;
        report.ledger_verified = Some(judged.is_ok());
        complaints.extend(judged.err());
    }
    // Daemons that ended by themselves, besides the one that ended the run.
    complaints.extend(std::iter::from_fn(|| deaths.try_recv().ok()).map(|death| death.to_string()));
    report.discrepancies.extend(complaints.into_iter().map(|what| Discrepancy { garage: None, what }));
}

fn greet(display: &CityDisplay, fleet: &Fleet, sites: &[GarageSite], dir: &Path) {
    let mut out = format!("the city     {}/\n", fleet.server.http);
    for (GarageSite { name, capacity }, edge) in sites.iter().zip(&fleet.edges) {
        out += &format!("{:<12} {}/  {name}, {capacity} spaces\n", edge.name, edge.http);
    }
    out += &format!("data, logs   {}\n", dir.display());
    display.say(&out);
}

impl CityRun<'_> {
    async fn phases(&mut self) -> Result<(), RunError> {
        if self.has_customers() {
            let (server, seed) = (&self.fleet.server, self.settings.flags.seed);
            example::register_customers(server, self.dir, self.sites, seed).await?;
        }
        let before = self.before().await?;
        let plan = plan(self.settings, &before.baselines);
        for (index, baseline) in before.baselines.iter().enumerate() {
            self.status.counts_of(index).applied_before.store(baseline.applied(), Ordering::Relaxed);
        }

        self.report.phases.begin(Phase::Feed);
        let mut time = CityTime::start(self.settings.pace, &plan);
        let books = self.feed(plan, before.baselines, &time).await?;

        self.report.phases.begin(Phase::Settle);
        self.settle(&books, &time).await?;
        time.note_settled();

        self.report.phases.begin(Phase::Check);
        self.check(&books, before.cursors, before.position).await?;

        self.report.phases.begin(Phase::Linger);
        self.linger(&time).await
    }

    /// Whether the example's customers are registered. A replay has none: which car is whose depends on the seed there.
    fn has_customers(&self) -> bool {
        self.settings.flags.config.is_none() && matches!(self.settings.cars, Cars::Simulated { .. })
    }

    fn server(&self) -> &str {
        &self.fleet.server.http
    }

    /// Stays up to be looked at, until a signal comes, unless the city is to end.
    async fn linger(&mut self, time: &CityTime) -> Result<(), RunError> {
        if self.settings.flags.exit_when_settled || self.signals.stop.is_cancelled() {
            return Ok(());
        }
        if let Some(statement) = &self.report.statement {
            self.display.say(&format!("a statement  {}{statement}", self.server()));
        }
        let right = self.report.discrepancies.is_empty();
        self.display.say(if right { LINGERING_RIGHT } else { LINGERING_WRONG });
        self.report.discrepancies.iter().for_each(|found| self.display.say(&found.to_string()));
        let mut show = ticks(self.display.show_every());
        loop {
            tokio::select! {
                biased;
                () = self.signals.stop.cancelled() => return Ok(()),
                _ = show.tick() => self.show(time).await,
            }
        }
    }

    /// Shows how far the run is.
    async fn show(&mut self, time: &CityTime) {
        // A run that goes as fast as it can is measured: it names a statement at the end.
        if time.clock.is_some() {
            self.offer_statement().await;
        }
        let mut picture = self.status.picture(time).await;
        if self.settings.flags.chaos {
            picture.garages.insert(0, format!("  {}", *self.fault_counts.lock()));
        }
        self.display.show(&picture);
    }

    /// Says where a statement can be opened, as soon as there is one, and once more when there is one of an account.
    async fn offer_statement(&mut self) {
        let enough = |link: &StatementLink| link.of_account || !self.has_customers();
        if self.statement.as_ref().is_some_and(enough) {
            return;
        }
        // Under chaos the server may be dead. The next picture asks again.
        if let Ok(Some(link)) = charge_list::newest_statement(&self.status.client, self.server()).await
            && (self.statement.is_none() || link.of_account)
        {
            self.display.say(&format!("open a statement in a browser: {}{}", self.server(), link.path()));
            self.statement = Some(link);
        }
    }
}

/// Whether anything moves.
struct ProgressWatch<T> {
    last: Option<T>,
    since: Instant,
}

impl<T: PartialEq> ProgressWatch<T> {
    fn new() -> ProgressWatch<T> {
        ProgressWatch { last: None, since: Instant::now() }
    }

    fn observe(&mut self, now: T) {
        if self.last.as_ref() != Some(&now) {
            self.last = Some(now);
            self.since = Instant::now();
        }
    }

    fn still_for(&self, time: Duration) -> bool {
        self.since.elapsed() >= time
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
