//! One run of the city: start, feed, settle, check, stop.
//!
//! **Promise.** The report tells how each confirmed event fared. Whatever goes wrong ends up in it, and the
//! daemons are stopped in every case.
//! **Kept by.** The phases are one future that is dropped when a daemon dies or the user insists; stopping stands
//! outside of it.

use super::books::{AtCentre, Baseline, Books, Discrepancy, ReadBack};
use super::chaos::gate::Pass;
use super::chaos::{Count, Diary, Toll, Weather};
use super::children::{ChildError, peak_rss_bytes};
use super::client::{DaemonClient, GarageAtServer};
use super::console::{Console, View, grouped};
use super::example;
use super::fleet::{Berth, Fleet, Place};
use super::history::{self, ReadBackError};
use super::plan::{Plan, Site, plan, sites};
use super::producer::{Endurance, Producer, Tally};
use super::report::{GarageTotal, Report};
use super::settings::{Cars, Pace, Settings, Verify};
use super::till::{self, Bill, Till};
use super::watch::{self, Stage};
use fogpost::daemon::admin::AskError;
use fogpost::http::client::HttpCallError;
use fogpost::traffic::EventWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why a run could not be brought to an end. What was confirmed is on the edges' disks.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot use {path:?}: {source}. Nothing was confirmed. Choose another --data-dir")]
    Place { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Call(#[from] HttpCallError),
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
    #[error("the server did not take the example's customers: {0}")]
    Customers(#[from] AskError),
    #[error("{garage}: its edge failed its producer: {source}")]
    Feed { garage: String, source: HttpCallError },
    #[error("what earlier runs had left was not delivered: nothing moved for {} s, {depth} events wait at the edges. They stay on disk", NO_PROGRESS.as_secs())]
    LeftOvers { depth: u64 },
    #[error("ended at once, as asked; the books were not checked")]
    Aborted,
}

/// After so long without any progress, more waiting is no use.
const NO_PROGRESS: Duration = Duration::from_secs(120);

/// In bad weather an edge may have begun to wait for 60 s right before the last fault was over, and twice in a row.
const NO_PROGRESS_AFTER_CHAOS: Duration = Duration::from_secs(240);

/// When all events are applied, the occupancy follows at once, or it is wrong.
const VIEWS_CATCH_UP: Duration = Duration::from_secs(10);

/// A daemon's end is noticed right after it stops answering.
const DEATH_IS_KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// How long a run that was interrupted may take to settle.
const SETTLE_WHEN_INTERRUPTED: Duration = Duration::from_secs(30);

/// How often the state of the daemons is asked for while something is awaited from them.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Occupancies that did not change for so long after a backlog have caught up with it.
const VIEWS_REST: Duration = Duration::from_secs(1);

const STOPPING: &str =
    "the cars stop; the city ends when all is delivered and checked (once more to end it at once)";
const LINGERING_RIGHT: &str =
    "All is applied, and the books are right. The city stays up to be looked at; Ctrl-C ends it.";
const LINGERING_WRONG: &str = "THE BOOKS ARE NOT RIGHT. The city stays up to be looked at; Ctrl-C ends it.";

/// How long a run that failed asks how far it had come.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// How often the picture is renewed where someone sees it change, and elsewhere.
const SHOW_EVERY: Duration = Duration::from_millis(500);
const SHOW_EVERY_PLAIN: Duration = Duration::from_secs(2);

/// How many garages are read back at a time. The server's processors are the limit, more readers bring nothing.
const READERS: usize = 4;

/// What the user's signals ask for.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// The first one: stop the cars, then check and end.
    pub stop: CancellationToken,
    /// The second one: end now.
    pub abort: CancellationToken,
}

/// A run that has daemons.
struct Run<'a> {
    settings: &'a Settings,
    signals: &'a Signals,
    console: &'a mut Console,
    report: &'a mut Report,
    http: DaemonClient,
    place: &'a Path,
    sites: &'a [Site],
    fleet: &'a Arc<Fleet>,
    toll: Arc<Toll>,
    tallies: Vec<Arc<Tally>>,
    begun: Instant,
    /// A statement to look at: the one that the user was told of last, at the end the best.
    bill: Option<Bill>,
}

/// Runs the city. The books are right if, and only if, the report says so.
pub async fn run(settings: &Settings, signals: &Signals, console: &mut Console) -> Report {
    let begun = Instant::now();
    let mut report = Report::empty(settings.seed, settings.verify);
    let place = match Place::create(settings.data_dir.as_deref()) {
        Ok(place) => place,
        Err(source) => {
            let path = settings.data_dir.clone().unwrap_or_else(std::env::temp_dir);
            report.error = Some(RunError::Place { path, source }.to_string());
            return report;
        }
    };
    let config = match &settings.config {
        Some(config) => Ok(config.clone()),
        None => example::write(place.path(), &settings.cars),
    };
    let config = match config {
        Ok(config) => config,
        Err(source) => {
            let path = place.path().to_owned();
            report.error = Some(RunError::Place { path, source }.to_string());
            return report;
        }
    };
    let (tell_death, mut deaths) = mpsc::unbounded_channel();
    let sites = sites(&settings.cars);
    let mut bill = None;
    let fleet = tokio::select! {
        fleet = Fleet::start(settings, &config, place.path(), &sites, &tell_death) => fleet.map_err(RunError::from),
        () = signals.stop.cancelled() => Err(RunError::Aborted),
    };
    match fleet {
        Err(error) => report.error = Some(error.to_string()),
        Ok(fleet) => {
            let fleet = Arc::new(fleet);
            greet(console, &fleet, &sites, &place);
            let mut run = Run {
                settings,
                signals,
                console,
                report: &mut report,
                http: DaemonClient::default(),
                tallies: sites.iter().map(|_| Arc::default()).collect(),
                place: place.path(),
                sites: &sites,
                fleet: &fleet,
                toll: Arc::default(),
                begun,
                bill: None,
            };
            let result = tokio::select! {
                result = run.phases() => result,
                Some(death) = deaths.recv() => Err(death.into()),
                () = signals.abort.cancelled() => Err(RunError::Aborted),
            };
            let (http, tallies) = (run.http.clone(), run.tallies.clone());
            bill = run.bill.take();
            // A daemon that does not answer may have ended a moment ago: that is the better reason.
            let result = match result {
                Err(error @ (RunError::Call(_) | RunError::ReadBack(_) | RunError::Feed { .. })) => {
                    match tokio::time::timeout(DEATH_IS_KNOWN_WITHIN, deaths.recv()).await {
                        Ok(Some(death)) => Err(death.into()),
                        _ => Err(error),
                    }
                }
                result => result,
            };
            if settings.chaos {
                let planned = run.report.chaos.take().and_then(|chaos| chaos.planned);
                report.chaos = Some(Count { planned, ..run.toll.count() });
            }
            report.events = tallies.iter().map(|tally| tally.confirmed.load(Ordering::Relaxed)).sum();
            if let Err(error) = result {
                report.error = Some(error.to_string());
                // The server may be what failed. Then nobody knows, and nobody waits for it.
                let applied = watch::applied(&http, &fleet, &sites, &tallies);
                if let Ok(Ok(applied)) = tokio::time::timeout(LAST_LOOK, applied).await {
                    report.applied = applied;
                }
            }
            note_peaks(&mut report, &fleet).await;
            let stopping = Instant::now();
            let mut complaints = fleet.stop().await;
            report.phases.stop = stopping.elapsed().as_secs_f64();
            if settings.verify == Verify::Full && report.error.is_none() {
                let judged = fleet.verify_ledger().await;
                report.ledger_verified = Some(judged.is_ok());
                complaints.extend(judged.err());
            }
            let complaints = complaints.into_iter().chain(more_deaths(&mut deaths));
            let complaint = |what| Discrepancy { garage: None, what };
            report.discrepancies.extend(complaints.map(complaint));
        }
    }
    report.interrupted = signals.stop.is_cancelled();
    report.books_right = report.error.is_none() && report.discrepancies.is_empty();
    // A temporary directory in which nothing was ever confirmed has nothing to tell, unless something failed.
    let empty = report.interrupted && report.events == 0;
    report.data_dir = place.leave(!report.books_right && !empty);
    if let (Some(kept), Some(bill)) = (&report.data_dir, &bill) {
        let (data_dir, config) = (kept.join("server"), config.display());
        let command = bill.command();
        report.statement_command =
            Some(format!("server {command} --data-dir {} --config {config}", data_dir.display()));
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report.events_per_second = report.events as f64 / report.seconds;
    console.clear();
    report
}

/// Daemons that ended by themselves, besides the one that ended the run.
fn more_deaths(deaths: &mut mpsc::UnboundedReceiver<ChildError>) -> impl Iterator<Item = String> + '_ {
    std::iter::from_fn(|| deaths.try_recv().ok()).map(|death| death.to_string())
}

fn greet(console: &mut Console, fleet: &Fleet, sites: &[Site], place: &Place) {
    let mut out = format!("the city     {}/\n", fleet.server.http);
    for (site, edge) in sites.iter().zip(&fleet.edges) {
        let Site { name, capacity } = site;
        out += &format!("{:<12} {}/  {name}, {capacity} spaces\n", edge.name, edge.http);
    }
    out += &format!("data, logs   {}", place.path().display());
    console.say(&out);
}

async fn note_peaks(report: &mut Report, fleet: &Fleet) {
    let peaks = &mut report.peak_rss_bytes;
    peaks.server = fleet.server.peak_rss_bytes().await;
    let edges = fleet.edges.iter().map(Berth::peak_rss_bytes);
    peaks.edges_max = futures_util::future::join_all(edges).await.into_iter().flatten().max();
    peaks.city = peak_rss_bytes("self");
}

impl Run<'_> {
    async fn phases(&mut self) -> Result<(), RunError> {
        self.register_customers().await?;
        let (baselines, places, begins) = self.baselines().await?;
        let plan = plan(self.settings, &baselines);
        for (tally, baseline) in self.tallies.iter().zip(&baselines) {
            tally.applied_before.store(baseline.applied(), Ordering::Relaxed);
        }
        self.report.phases.start = self.begun.elapsed().as_secs_f64();

        let feeding = Instant::now();
        let mut stage = Stage::open(self.settings.pace, &plan);
        let books = self.feed(plan, baselines, &stage).await?;
        self.report.phases.feed = feeding.elapsed().as_secs_f64();

        let settling = Instant::now();
        self.settle(&books, &stage).await?;
        self.report.phases.settle = settling.elapsed().as_secs_f64();
        stage.stop_the_watch();

        let checking = Instant::now();
        self.check(&books, places, begins).await?;
        self.report.phases.check = checking.elapsed().as_secs_f64();
        self.linger(&stage).await
    }

    /// A live city with the example's tariffs has customers, too. A replay has none: which car is whose depends on the seed there.
    async fn register_customers(&self) -> Result<(), RunError> {
        if self.settings.config.is_some() || !matches!(self.settings.cars, Cars::Simulated { .. }) {
            return Ok(());
        }
        let (data_dir, sites, seed) = (self.place.join("server"), self.sites.to_owned(), self.settings.seed);
        let registering = tokio::task::spawn_blocking(move || example::register(&data_dir, &sites, seed));
        Ok(registering.await.expect("it does not panic")?)
    }

    /// What the centre has of each garage, once everything that earlier runs had left was delivered, and the position that it has
    /// come to.
    async fn baselines(&mut self) -> Result<(Vec<Baseline>, Vec<history::Place>, u64), RunError> {
        self.deliver_left_overs().await?;
        let garages = self.http.garages(self.server()).await?;
        let mut baselines = Vec::with_capacity(self.sites.len());
        let mut places = Vec::with_capacity(self.sites.len());
        for Site { name, .. } in self.sites {
            let (baseline, place) = match garages.get(name) {
                Some(garage) if garage.applied() > 0 => {
                    let marks = garage.marks.iter().map(|mark| (mark.epoch.clone(), mark.sequence));
                    let (marks, occupied) = (marks.collect(), garage.occupied);
                    let (baseline, place) =
                        history::baseline(&self.http, self.server(), name, marks, occupied).await?;
                    (Baseline { closed: garage.stays.closed, ..baseline }, place)
                }
                _ => Default::default(),
            };
            baselines.push(baseline);
            places.push(place);
        }
        let found: u64 = baselines.iter().map(Baseline::applied).sum();
        if found > 0 {
            self.console.say(&format!("going on from {} events of earlier runs\n", grouped(found)));
        }
        let begins = garages.values().map(|garage| garage.position).max().unwrap_or(0);
        Ok((baselines, places, begins))
    }

    async fn deliver_left_overs(&mut self) -> Result<(), RunError> {
        let mut progress = Progress::new();
        let mut told = false;
        loop {
            let depth = watch::depths(&self.http, self.fleet).await?.iter().sum();
            // The views follow the ledger: they have come to rest when nothing changes any more.
            let occupied = watch::occupied(&self.http, self.server()).await?;
            progress.observe((depth, occupied));
            if depth == 0 && (!told || progress.still_for(VIEWS_REST)) {
                return Ok(());
            }
            if progress.still_for(NO_PROGRESS) {
                return Err(RunError::LeftOvers { depth });
            }
            if !told {
                told = true;
                self.console.say(&format!("the edges deliver {} events first", grouped(depth)));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Lets the cars drive until they end or are told to; returns what was confirmed.
    async fn feed(
        &mut self,
        plan: Plan,
        baselines: Vec<Baseline>,
        stage: &Stage,
    ) -> Result<Vec<Books>, RunError> {
        let (weather, passes) = self.weather(&plan);
        let clear = CancellationToken::new();
        let mut raging = JoinSet::new();
        if let Some(weather) = weather {
            let diary = Diary::begin(&self.place.join("logs"));
            let diary = diary.map_err(|source| RunError::Place { path: self.place.to_owned(), source })?;
            raging.spawn(weather.rage(self.fleet.clone(), self.http.clone(), diary, clear.clone()));
        }
        let mut producers = JoinSet::new();
        let mut passes = passes.into_iter();
        let garages = plan.traffic.into_iter().zip(plan.limits).zip(baselines).enumerate();
        for (index, ((traffic, limit), baseline)) in garages {
            let producer = Producer {
                http: self.http.clone(),
                edge: self.fleet.edges[index].http.clone(),
                traffic,
                limit,
                writer: EventWriter::new(plan.registry.clone(), index),
                books: Books::new(self.sites[index].name.clone(), baseline),
                tally: self.tallies[index].clone(),
                clock: stage.clock,
                endurance: passes.next().map(|pass| {
                    let seed = self.settings.seed.wrapping_add(index as u64);
                    Endurance::new(pass, seed, self.toll.clone())
                }),
            };
            let stop = self.signals.stop.clone();
            producers.spawn(async move { (index, producer.run(stop).await) });
        }
        let mut done: Vec<Option<Books>> = self.sites.iter().map(|_| None).collect();
        let mut told = false;
        let mut show = self.show_ticks();
        loop {
            tokio::select! {
                biased;
                () = self.signals.stop.cancelled(), if !told => {
                    told = true;
                    self.console.say(STOPPING);
                    clear.cancel();
                }
                ended = producers.join_next() => match ended {
                    None => break,
                    Some(ended) => {
                        let (index, (books, result)) = ended.expect("a producer does not panic");
                        let garage = || self.sites[index].name.clone();
                        result.map_err(|source| RunError::Feed { garage: garage(), source })?;
                        done[index] = Some(books);
                    }
                },
                _ = show.tick() => self.show(stage).await,
            }
        }
        // Before the books are settled everyone is up again, and every link works.
        clear.cancel();
        while let Some(raged) = raging.join_next().await {
            raged.expect("the weather does not panic");
        }
        Ok(done.into_iter().map(|books| books.expect("each producer has ended")).collect())
    }

    /// The bad weather that was asked for, and the producers' ways through it.
    fn weather(&mut self, plan: &Plan) -> (Option<Weather>, Vec<Pass>) {
        if !self.settings.chaos {
            return (None, Vec::new());
        }
        let (seed, toll) = (self.settings.seed, self.toll.clone());
        let (weather, passes) = match self.settings.pace {
            Pace::AsFastAsItCan => Weather::by_progress(seed, &plan.limits, toll),
            Pace::Times(_) => Weather::by_time(seed, plan.limits.len(), toll),
        };
        self.report.chaos = Some(Count { planned: weather.planned(), ..Count::default() });
        (Some(weather), passes)
    }

    /// After so long without any progress, more waiting is no use.
    fn no_progress(&self) -> Duration {
        if self.settings.chaos { NO_PROGRESS_AFTER_CHAOS } else { NO_PROGRESS }
    }

    /// Waits until the centre has all that was confirmed, as long as there is progress.
    ///
    /// Does not judge: what is missing then is found by [`Run::check`].
    async fn settle(&mut self, books: &[Books], stage: &Stage) -> Result<(), RunError> {
        let mut progress = Progress::new();
        let mut show = self.show_ticks();
        let mut ask = ticks(ASK_EVERY);
        let mut bound = None;
        let owed: u64 = books.iter().map(Books::applied_when_settled).sum();
        loop {
            tokio::select! {
                biased;
                _ = show.tick() => {
                    self.show(stage).await;
                    continue;
                }
                _ = ask.tick() => {}
            }
            let garages = self.http.garages(self.server()).await?;
            let known = |books: &Books| garages.get(&books.garage);
            let applied = books.iter().filter_map(known).map(GarageAtServer::applied).sum();
            let all_applied = applied >= owed;
            let depths = watch::depths(&self.http, self.fleet).await?;
            let depth: u64 = depths.iter().sum();
            let occupied = |books: &Books| known(books).map_or(0, |garage| garage.occupied);
            let counted = books.iter().all(|books| occupied(books) == books.occupied());
            if all_applied && depth == 0 && counted {
                return Ok(());
            }
            progress.observe((applied, depth, books.iter().map(occupied).collect::<Vec<_>>()));
            let patience = if all_applied && depth == 0 { VIEWS_CATCH_UP } else { self.no_progress() };
            if self.signals.stop.is_cancelled() {
                bound.get_or_insert_with(Instant::now);
            }
            let most = if self.settings.chaos { NO_PROGRESS_AFTER_CHAOS } else { SETTLE_WHEN_INTERRUPTED };
            let late = bound.is_some_and(|since| since.elapsed() > most);
            if late || progress.still_for(patience) {
                self.console.say(&format!(
                    "not settled: {} of {} events are applied, {} wait at the edges; comparing the books as they are",
                    grouped(applied),
                    grouped(owed),
                    grouped(depth)
                ));
                return Ok(());
            }
        }
    }

    /// Compares the books with the centre, and notes what differs.
    async fn check(
        &mut self,
        books: &[Books],
        places: Vec<history::Place>,
        begins: u64,
    ) -> Result<(), RunError> {
        let (mut read_back, till) = match self.settings.verify {
            Verify::Full => {
                let events: u64 = books.iter().map(Books::confirmed).sum();
                self.console.say(&format!(
                    "reading {} events back from the centre, and all charges",
                    grouped(events)
                ));
                let (read_back, till) =
                    tokio::join!(self.read_back(books, places), self.read_charges(begins));
                (read_back?, Some(till?))
            }
            Verify::Counts => (books.iter().map(|_| None).collect(), None),
        };
        let bill = match &till {
            Some(till) => till.bill.clone(),
            None => till::newest(&self.http, self.server()).await?,
        };
        let garages = self.http.garages(self.server()).await?;
        let occupancy = self.http.occupancy(self.server()).await?;
        let outboxes = watch::outboxes(&self.http, self.fleet).await;
        let report = &mut *self.report;
        report.duplicates_refused += self.fleet.server.former_count();
        for (index, books) in books.iter().enumerate() {
            let garage = garages.get(&books.garage);
            let occupied = occupancy.get(&books.garage).copied().unwrap_or(0);
            let outbox = outboxes[index].as_ref().ok();
            let centre = AtCentre {
                applied: garage.map_or(0, GarageAtServer::applied),
                occupied,
                depth: outbox.map(|outbox| outbox.depth),
                closed: garage.map_or(0, |garage| garage.stays.closed),
                taken: garage.map(GarageAtServer::taken).unwrap_or_default(),
                charges: till.as_ref().map(|till| till.of(&books.garage)),
                read_back: read_back[index].take(),
            };
            report.discrepancies.extend(books.compare(&centre));
            report.applied += centre.applied.saturating_sub(books.baseline.applied());
            report.duplicates_refused += garage.map_or(0, |garage| garage.duplicates_refused);
            report.resends += outbox.map_or(0, |outbox| outbox.resends);
            report.resends += self.fleet.edges[index].former_count();
            report.held_back += self.tallies[index].held_back.load(Ordering::Relaxed);
            report.taken.extend([&centre.taken]);
            report.stays += centre.closed;
            report.garages.push(GarageTotal {
                name: books.garage.clone(),
                capacity: self.sites[index].capacity,
                occupied,
                taken: centre.taken,
                events: books.confirmed(),
            });
        }
        report.statement = bill.as_ref().map(Bill::path);
        self.bill = bill.or(self.bill.take());
        Ok(())
    }

    /// All charges, once the list has come as far as the counts; those at positions after `begins` are of this run.
    async fn read_charges(&self, begins: u64) -> Result<Till, RunError> {
        let garages = self.http.garages(self.server()).await?;
        let counted = garages.values().map(|garage| garage.position).max().unwrap_or(0);
        let began = Instant::now();
        // A list that stays behind is compared as it is.
        while till::position(&self.http, self.server()).await? < counted && began.elapsed() < VIEWS_CATCH_UP {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(till::read(&self.http, self.server(), begins).await?)
    }

    async fn read_back(
        &self,
        books: &[Books],
        places: Vec<history::Place>,
    ) -> Result<Vec<Option<ReadBack>>, RunError> {
        let readers = Arc::new(Semaphore::new(READERS));
        let mut reading = JoinSet::new();
        for (index, (books, place)) in books.iter().zip(places).enumerate() {
            let (http, server, readers) = (self.http.clone(), self.server().to_owned(), readers.clone());
            let (garage, baseline) = (books.garage.clone(), books.baseline.clone());
            reading.spawn(async move {
                let _turn = readers.acquire().await.expect("nobody closes it");
                (index, history::read_back(&http, &server, &garage, &baseline, place).await)
            });
        }
        let mut all: Vec<Option<ReadBack>> = books.iter().map(|_| None).collect();
        while let Some(read) = reading.join_next().await {
            let (index, read_back) = read.expect("a reader does not panic");
            all[index] = Some(read_back?);
        }
        Ok(all)
    }

    /// Stays up to be looked at, until a signal comes, unless the city is to end.
    async fn linger(&mut self, stage: &Stage) -> Result<(), RunError> {
        if self.settings.exit_when_settled || self.signals.stop.is_cancelled() {
            return Ok(());
        }
        let right = self.report.discrepancies.is_empty();
        if let Some(statement) = &self.report.statement {
            self.console.say(&format!("a statement  {}{statement}", self.server()));
        }
        self.console.say(if right { LINGERING_RIGHT } else { LINGERING_WRONG });
        for Discrepancy { garage, what } in &self.report.discrepancies {
            self.console.say(&format!("{}: {what}", garage.as_deref().unwrap_or("the city")));
        }
        let mut show = self.show_ticks();
        loop {
            tokio::select! {
                biased;
                () = self.signals.stop.cancelled() => return Ok(()),
                _ = show.tick() => self.show_as(stage, View::Table).await,
            }
        }
    }

    fn show_ticks(&self) -> tokio::time::Interval {
        ticks(if self.console.is_lively() { SHOW_EVERY } else { SHOW_EVERY_PLAIN })
    }

    async fn show(&mut self, stage: &Stage) {
        let fast = self.settings.pace == Pace::AsFastAsItCan;
        self.show_as(stage, if fast { View::Bar } else { View::Table }).await;
        if !fast {
            self.tell_of_a_statement().await;
        }
    }

    /// Says where a statement can be seen, as soon as there is one, and once more when there is one of an account.
    async fn tell_of_a_statement(&mut self) {
        let accounts = self.settings.config.is_none() && matches!(self.settings.cars, Cars::Simulated { .. });
        let enough = |bill: &Bill| bill.of_account || !accounts;
        if self.bill.as_ref().is_some_and(enough) {
            return;
        }
        // In bad weather the server may be dead. The next picture asks again.
        if let Ok(Some(bill)) = till::newest(&self.http, self.server()).await
            && (self.bill.is_none() || bill.of_account)
        {
            self.console.say(&format!("a statement  {}{}", self.server(), bill.path()));
            self.bill = Some(bill);
        }
    }

    async fn show_as(&mut self, stage: &Stage, view: View) {
        let mut picture = watch::look(&self.http, self.fleet, self.sites, &self.tallies, stage).await;
        if self.settings.chaos {
            picture.weather = Some(self.toll.count().to_string());
        }
        self.console.show(&picture, view);
    }

    fn server(&self) -> &str {
        &self.fleet.server.http
    }
}

/// Whether anything moves.
struct Progress<T> {
    last: Option<T>,
    since: Instant,
}

impl<T: PartialEq> Progress<T> {
    fn new() -> Progress<T> {
        Progress { last: None, since: Instant::now() }
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
