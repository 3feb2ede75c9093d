//! One run of the city: start, feed, wait until all events have arrived, check, stop.
//!
//! **Promise.** The report says what happened to each confirmed event. It includes everything that went wrong, and the daemons
//! are stopped in every case.
//! **Kept by.** The phases are one future, which is dropped when a daemon dies or the user interrupts again; stopping the daemons
//! is not part of it.

mod check;
mod delivery;
mod feed;
mod status;

use super::books::Discrepancy;
use super::chaos::SharedFaultCounts;
use super::children::{ChildError, peak_rss_bytes};
use super::client::DaemonClient;
use super::display::CityDisplay;
use super::example;
use super::fleet::Fleet;
use super::lists::StatementLink;
use super::plan::{GarageSite, plan, sites};
use super::producer::{CityClock, ProducerCounts};
use super::report::{CityReport, Phase};
use super::settings::{Settings, Verify};
use fogpost::codes::{self, Code, Coded};
use fogpost::http::client::HttpCallError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
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
    #[error("{garage}: an event could not be posted to its edge: {source}")]
    Feed { garage: String, source: HttpCallError },
    #[error("{0}")]
    Unfinished(String),
}

impl Coded for RunError {
    fn code(&self) -> Code {
        match self {
            RunError::Directory { .. } => codes::DATA_DIRECTORY_UNUSABLE,
            RunError::Child(_) => codes::CHILD_FAILED,
            _ => codes::RUN_UNFINISHED,
        }
    }
}

/// A daemon's end is noticed soon after it stops answering.
const DEATH_IS_KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// How often daemons are asked while something is awaited from them.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How long a run that failed asks how far it had come.
const LAST_LOOK: Duration = Duration::from_secs(2);

const ABORTED: &str = "ended at once, as requested; the books were not checked";
const LINGERING_RIGHT: &str = "Everything is applied, and the books are right. The city keeps running so that you can look at it; Ctrl-C ends it.";
const LINGERING_WRONG: &str =
    "THE BOOKS ARE NOT RIGHT. The city keeps running so that you can look at it; Ctrl-C ends it.";

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
    client: DaemonClient,
    /// The server's position in its ledger and how many events it had applied when this run began.
    begins: u64,
    applied_before: u64,
    /// What the producer of each garage counts.
    counts: Vec<Arc<ProducerCounts>>,
    fault_counts: SharedFaultCounts,
    /// `None`: the cars drive as fast as they can.
    clock: Option<CityClock>,
    /// How many events there will be, if that is known.
    planned: Option<u64>,
    /// A statement to look at: the last one shown to the user.
    statement: Option<StatementLink>,
}

/// Runs the city. The books are right if, and only if, the report says so.
pub async fn run(settings: &Settings, signals: &CitySignals, display: &mut CityDisplay) -> CityReport {
    let mut report = CityReport::empty(settings.flags.seed, settings.flags.verify);
    let mut temporary = None;
    if let Err(error) = run_in_directory(settings, signals, display, &mut report, &mut temporary).await {
        report.failed(&error);
    }
    report.interrupted = signals.stop.is_cancelled();
    report.books_right = report.error.is_none() && report.discrepancies.is_empty();
    if let Some(temporary) = &mut temporary {
        // When nothing was ever confirmed, there is nothing to show, unless something failed.
        if report.books_right || report.interrupted && report.events == 0 {
            (report.data_dir, report.statement_command) = (None, None);
        } else {
            temporary.disable_cleanup(true);
        }
    }
    drop(temporary);
    report.phases.begin(Phase::Stop);
    report.seconds = report.phases.total_seconds();
    report.events_per_second = report.events as f64 / report.seconds.max(0.01);
    display.clear();
    report
}

/// Creates the directory of the daemons' data and logs, and runs the city there. A `temporary` directory is the caller's to remove.
async fn run_in_directory(
    settings: &Settings,
    signals: &CitySignals,
    display: &mut CityDisplay,
    report: &mut CityReport,
    temporary: &mut Option<TempDir>,
) -> Result<(), RunError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Directory { path, source }
    };
    let dir = match &settings.flags.data_dir {
        Some(path) => path.clone(),
        None => {
            let created = TempDir::with_prefix("fogpost-city-").map_err(unusable(&std::env::temp_dir()))?;
            temporary.insert(created).path().to_owned()
        }
    };
    report.data_dir = Some(dir.clone());
    std::fs::create_dir_all(dir.join("logs")).map_err(unusable(&dir))?;
    let sites = sites(settings);
    let config = match &settings.flags.config {
        Some(config) => config.clone(),
        None => {
            let written = example::write_config(&dir, settings.recording.as_ref(), &sites);
            written.map_err(unusable(&dir))?
        }
    };
    let fleet = tokio::select! {
        fleet = Fleet::start(settings, &config, &dir, &sites) => Arc::new(fleet?),
        () = signals.stop.cancelled() => return Err(RunError::Unfinished(ABORTED.to_owned())),
    };
    let mut run = CityRun {
        settings,
        signals,
        display,
        report,
        dir: &dir,
        sites: &sites,
        fleet: fleet.clone(),
        client: DaemonClient::default(),
        begins: 0,
        applied_before: 0,
        counts: sites.iter().map(|_| Arc::default()).collect(),
        fault_counts: SharedFaultCounts::default(),
        clock: None,
        planned: None,
        statement: None,
    };
    run.greet();
    let result = tokio::select! {
        result = run.phases() => result,
        death = fleet.first_death() => Err(death.into()),
        () = signals.abort.cancelled() => Err(RunError::Unfinished(ABORTED.to_owned())),
    };
    run.end(result, &config).await;
    Ok(())
}

impl CityRun<'_> {
    fn greet(&self) {
        let mut out = format!("the city     {}/\n", self.server());
        for (GarageSite { name, capacity }, edge) in self.sites.iter().zip(&self.fleet.edges) {
            out += &format!("{:<12} {}/  {name}, {capacity} spaces\n", edge.spec.name, edge.http);
        }
        out += &format!("data, logs   {}\n", self.dir.display());
        self.display.say(&out);
    }

    async fn phases(&mut self) -> Result<(), RunError> {
        // A replay has no customers: which car is whose depends on the seed there.
        if self.settings.flags.config.is_none() && self.settings.recording.is_none() {
            let (server, seed) = (&self.fleet.server.spec, self.settings.flags.seed);
            let registered = example::register_customers(server, self.dir, self.sites, seed).await;
            registered.map_err(RunError::Unfinished)?;
        }
        let baselines = self.baselines().await?;
        let plan = plan(self.settings, &baselines);

        self.report.phases.begin(Phase::Feed);
        let clock = |speed| CityClock::starting(plan.clock_starts_unix_ms, speed, plan.zone.clone());
        (self.clock, self.planned) = (self.settings.speed.map(clock), plan.total);
        let books = self.feed(plan, baselines).await?;

        self.report.phases.begin(Phase::Settle);
        self.deliver(&books).await?;

        self.report.phases.begin(Phase::Check);
        self.check(&books).await?;

        self.report.phases.begin(Phase::Linger);
        self.linger().await
    }

    fn server(&self) -> &str {
        &self.fleet.server.http
    }

    /// Stays up to be looked at, until a signal comes, unless the city is to end.
    async fn linger(&mut self) -> Result<(), RunError> {
        if self.settings.flags.exit_when_settled || self.signals.stop.is_cancelled() {
            return Ok(());
        }
        if let Some(statement) = &self.report.statement {
            self.display.say(&format!("a statement  {}{statement}", self.server()));
        }
        let right = self.report.discrepancies.is_empty();
        self.display.say(if right { LINGERING_RIGHT } else { LINGERING_WRONG });
        self.report.discrepancies.iter().for_each(|found| self.display.say(&found.to_string()));
        let signals = self.signals;
        let mut show = ticks(self.display.show_every());
        loop {
            tokio::select! {
                biased;
                () = signals.stop.cancelled() => return Ok(()),
                _ = show.tick() => self.show().await,
            }
        }
    }

    /// Stops the daemons, and lets `server verify` judge what they leave. Each fault becomes a discrepancy.
    async fn end(&mut self, result: Result<(), RunError>, config: &Path) {
        self.report.chaos = self.settings.flags.chaos.then(|| self.fault_counts.lock().clone());
        if let Some(chaos) = &mut self.report.chaos {
            chaos.posts_repeated =
                self.counts.iter().map(|counts| counts.repeated.load(Ordering::Relaxed)).sum();
        }
        self.report.events = self.confirmed();
        if let Err(error) = result {
            self.find_reason(error).await;
        }
        self.report.phases.begin(Phase::Stop);
        let peaks = &mut self.report.peak_rss_bytes;
        peaks.server = self.fleet.server.peak_rss_bytes().await;
        let edges = self.fleet.edges.iter().map(|edge| edge.peak_rss_bytes());
        peaks.edges_max = futures_util::future::join_all(edges).await.into_iter().flatten().max();
        peaks.city = peak_rss_bytes("self");

        let mut complaints = self.fleet.stop().await;
        if self.settings.flags.verify == Verify::Full && self.report.error.is_none() {
            self.report.phases.begin(Phase::Verify);
            let judged = self.fleet.server.spec.run_command(&["verify"]).await;
            self.report.ledger_verified = Some(judged.is_ok());
            complaints.extend(judged.err());
        }
        let complaints = complaints.into_iter().map(|what| Discrepancy { garage: None, what });
        self.report.discrepancies.extend(complaints);
        self.report.statement_command = self.statement.take().map(|statement| {
            let (command, data_dir) = (statement.command(), &self.fleet.server.spec.data_dir);
            format!("server {command} --data-dir {} --config {}", data_dir.display(), config.display())
        });
    }

    /// Reports why the run failed, and how far it had come.
    async fn find_reason(&mut self, mut reason: RunError) {
        // A daemon that does not answer may have ended a moment ago: that is the better reason.
        if let RunError::Call(_) | RunError::Feed { .. } = &reason
            && let Ok(death) = timeout(DEATH_IS_KNOWN_WITHIN, self.fleet.first_death()).await
        {
            reason = death.into();
        }
        self.report.failed(&reason);
        // The server may be what failed. Then nobody knows, and nobody waits for it.
        if let Ok(Ok(applied)) = timeout(LAST_LOOK, self.applied()).await {
            self.report.applied = applied;
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
