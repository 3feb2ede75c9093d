//! The server: applies the events of all garages exactly once, and counts the free spaces of the city.
//!
//! Requests wait in turn ([`admission`]), one thread serves them ([`serving`]), one applies the records to the views behind it ([`applying`]), HTTP reads ([`web`]).
//! A module uses only those above it in this list:
//!
//! | layer | modules |
//! | --- | --- |
//! | facts as values and bytes | [`record`] |
//! | the log | [`ledger`], [`opening`] |
//! | the views | [`view`], [`applying`] |
//! | reading | [`reckoning`], [`books`], [`receivables`], [`states`], [`listed`], [`boards`], [`verify`] |
//! | operating | [`issuing`], [`documents`], [`commands`] |
//! | serving | [`seen`], [`capacities`], [`replying`], [`turns`], [`admission`], [`serving`], [`calendars`] |
//! | alarms | [`alarms`]; operators silence them, so [`commands`] uses it |
//! | upkeep | [`backup`], [`compact`], [`certificates`] |
//! | HTTP | [`web`] |

mod admission;
pub mod alarms;
pub mod applying;
pub mod backup;
mod boards;
pub mod books;
mod calendars;
mod capacities;
pub mod certificates;
pub mod charge_details;
mod charts;
pub mod commands;
pub mod compact;
pub mod documents;
mod hex;
#[cfg(test)]
mod hostile_peer_tests;
pub mod issuing;
pub mod ledger;
mod listed;
pub mod opening;
#[cfg(test)]
mod readers_tests;
pub mod receivables;
#[cfg(test)]
mod receivables_tests;
pub mod reckoning;
pub mod record;
mod replying;
mod seen;
pub mod serving;
mod states;
mod turns;
pub mod verify;
pub mod view;
mod web;

use crate::audit::Audit;
use crate::codes;
use crate::config::{LiveGarages, ServerConfig, warn_of_plaintext};
use crate::daemon::admin::{AdminSocket, Call};
use crate::daemon::audited::{self, Audited};
use crate::daemon::certificates::{ReloadRequest, keep_current, unusable};
use crate::daemon::doors::Doors;
use crate::daemon::tasks::Tasks;
use crate::daemon::{self, Daemon, DaemonError, STOP_WITHIN, StopRequest};
use crate::http::metrics::Metrics;
use crate::http::{self, Connections};
use crate::store::directory::DataDir;
use crate::store::{StoreError, salvage};
use crate::telemetry;
use crate::transport::gateway::{self, GatewayMetrics};
use crate::transport::tls::Acceptor;
use alarms::{AlarmSources, Alarms};
use applying::LiveViews;
use boards::Boards;
use capacities::Capacities;
use commands::{CommandDesk, ServerRequest};
use ledger::Ledger;
use opening::OpenedLedger;
use seen::UnknownSites;
use serving::Serving;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use view::View;
use web::ServerWeb;

/// Name of the file in the data directory that notes how far its ledger had come; see `ledger::LedgerHighWater`.
pub const HIGH_WATER_FILE: &str = "witness";

pub fn run(config: ServerConfig) -> ExitCode {
    telemetry::init(config.log_format, tracing::Level::INFO);
    daemon::run(Server::open(config))
}

struct Server {
    /// Held until the daemon ends: another process on the same directory is refused with a message.
    _dir: DataDir,
    stop: CancellationToken,
    live: Arc<LiveViews>,
    serving_ended: JoinHandle<Result<(), StoreError>>,
    applying_ended: JoinHandle<Result<(), StoreError>>,
    http: JoinHandle<()>,
    tasks: Tasks,
    unreadable: daemon::StoreUnreadable,
}

impl Server {
    async fn open(config: ServerConfig) -> Result<Server, DaemonError> {
        let tls = open_tls(&config)?;
        let doors = Doors::open(&config.web, "server", None)?;
        let receivers = alarms::open_receivers(&config.notify)?;
        warn_of_plaintext(std::slice::from_ref(&config.listen));
        let dir = hold_directory(&config)?;
        let audit = audited::open(dir.path())?;
        let doors = Arc::new(doors.noting_in(&audit));
        let (OpenedLedger { room, ledger, .. }, view) = open_books(&dir, &config).await?;
        let stop = CancellationToken::new();
        let web_listener = http::listen(config.http, "--http").await?;
        let web_address = daemon::address_of(&web_listener)?;
        let mut metrics = Metrics::new("fogpost_server");
        let counted = gateway_metrics(&mut metrics);
        let (incoming, zmq_address) =
            gateway::listen(&config.listen, tls.clone(), config.peers.clone(), counted, stop.clone()).await?;
        let connections = Connections::of_this_process(&mut metrics);
        let live = Arc::new(LiveViews::showing(&view));
        let seen = SharedSeen::default();
        let of_ledger = (ledger.id(), Arc::clone(&live));
        let alarms = Alarms::open(dir.path().to_owned(), of_ledger, config.alarms, receivers, &mut metrics);
        let capacities = recorded_capacities(&view);
        let (orders, ordered) = mpsc::channel(1);
        let applying_ended = apply_from_now_on(&ledger, view, &live);
        let (replying, waiting) = admission::begin(&ledger, incoming, &mut metrics);
        let serving = Serving {
            ledger: ledger.clone(),
            boards: Boards::new(Arc::clone(&live), config.garages.clone(), ledger.id(), rand::random()),
            live: Arc::clone(&live),
            seen: Arc::clone(&seen),
            replying,
            orders: ordered,
            capacities,
            unknown_sites: UnknownSites::default(),
            room: room.clone(),
            short_of_room: false,
        };
        let runtime = Handle::current();
        let serving_ended = spawn_blocking(move || serving.serve_until_closed(&waiting, &runtime));
        let desk = CommandDesk {
            ledger: ledger.clone(),
            live: Arc::clone(&live),
            alarms: Arc::clone(&alarms),
            operator: config.operator.clone(),
            documents_dir: config.documents_dir.clone(),
            garages: config.garages.clone(),
            orders,
            stop: stop.clone(),
            runtime: Handle::current(),
            turn: Arc::default(),
        };
        let mut tasks = take_commands(desk, &dir, config.retention_days, audit, &stop);
        let warning = calendars::warn_daily(Arc::clone(&live), ledger.position(), stop.clone());
        tasks.spawn("warning of calendars that end", warning);
        keep_files_current(&mut tasks, &config.garages, tls.clone(), &doors, &stop)?;
        let sources = AlarmSources::of(&ledger, &seen, &room, (&tls, &doors));
        alarms.run(sources, &mut tasks, &stop);
        let unreadable = ledger.store().unreadable();
        opening::look_through_later(ledger.store(), &room);
        let web = ServerWeb::new(
            ledger.clone(),
            Arc::clone(&live),
            (seen, alarms),
            room,
            (config.operator, config.tariffs, config.garages),
            (tls, Arc::clone(&doors)),
            metrics,
        );
        let http =
            tokio::spawn(http::serve(doors.rules(), web_listener, web.router(), stop.clone(), connections));
        let (listen, http_url) =
            (config.listen.at(zmq_address), format!("{}://{web_address}", doors.scheme()));
        dir.publish("http.addr", format!("{web_address}\n"))?;
        dir.publish("listen.addr", format!("{zmq_address}\n"))?;
        say_ready(&dir, &ledger, &format!("listen={listen} http={http_url}"));
        Ok(Server { _dir: dir, stop, live, serving_ended, applying_ended, http, tasks, unreadable })
    }
}

fn apply_from_now_on(
    ledger: &Ledger,
    view: View,
    live: &Arc<LiveViews>,
) -> JoinHandle<Result<(), StoreError>> {
    live.grown_to(ledger.position());
    let (ledger, live) = (ledger.clone(), Arc::clone(live));
    spawn_blocking(move || applying::apply_until_stopped(&ledger, ledger.store(), view, &live))
}

fn say_ready(dir: &DataDir, ledger: &Ledger, addresses: &str) {
    let (id, position) = (ledger.id(), ledger.position());
    tracing::info!(data_dir = %dir.path().display(), ledger = %id, position, "the server is ready");
    daemon::print_ready(&format!("server {addresses} ledger={id}"));
}

/// Takes changed garages, certificates and tokens up, until `stop`.
fn keep_files_current(
    tasks: &mut Tasks,
    garages: &LiveGarages,
    tls: Option<Acceptor>,
    doors: &Doors,
    stop: &CancellationToken,
) -> Result<(), DaemonError> {
    let keeping = states::keep_garages_current(garages.clone(), ReloadRequest::listen()?, stop.clone());
    tasks.spawn("keeping the garages current", keeping);
    if let Some(tls) = tls {
        let keeping = keep_current(tls, ReloadRequest::listen()?, stop.clone());
        tasks.spawn("keeping the certificates current", keeping);
    }
    doors.keep_current(tasks, stop)
}

fn hold_directory(config: &ServerConfig) -> Result<DataDir, DaemonError> {
    let dir = DataDir::hold(&config.data_dir)?;
    if backup::is_unfinished(&dir) {
        let reason = format!(
            "{:?} holds a backup that was never finished. Nothing was changed. Restore a backup that has a backup.json, or give another --data-dir",
            dir.path()
        );
        return Err(DaemonError::Setting(codes::BACKUP_UNFINISHED, reason));
    }
    Ok(dir)
}

/// What shows this server to edges, for an address with TLS.
fn open_tls(config: &ServerConfig) -> Result<Option<Acceptor>, DaemonError> {
    if !config.listen.is_tls() {
        return Ok(None);
    }
    let hint = "To make certificates: server certs init --host NAME, with each name and address at which edges reach this server";
    Acceptor::open(config.tls.clone(), daemon::clock::now).map(Some).map_err(|error| unusable(&error, hint))
}

/// Opens the ledger and its views, and puts the configured tariffs in force: what an edge delivers right after is charged by them.
async fn open_books(dir: &DataDir, config: &ServerConfig) -> Result<(OpenedLedger, View), DaemonError> {
    let (path, reserve, tariffs) = (dir.path().to_owned(), config.reserve_bytes, config.tariffs.clone());
    let (today, operator) = (commands::today(&config.operator), config.operator.clone());
    let opened = spawn_blocking(move || {
        let opened = opening::open(&path, reserve)?;
        let view = applying::open_view(&opened.ledger)?;
        commands::put_at_start(&opened.ledger, &view, &opened.room, &tariffs, today)?;
        issuing::warn_of_backup(&opened.ledger, view.billing.numbers_resumed_at, &operator)?;
        Ok((opened, view))
    });
    opened.await.map_err(|error| DaemonError::Failed(codes::TASK_ENDED, error.to_string()))?
}

/// The capacities that stand in the ledger. One that the view has not reached yet is recorded a second time: the same value, harmless.
fn recorded_capacities(view: &View) -> Capacities {
    let told = view.garages.iter().filter(|(_, garage)| garage.told_capacity > 0);
    Capacities::of_ledger(
        told.flat_map(|(key, garage)| {
            view.sites_of(key).into_iter().map(|site| (site, garage.told_capacity))
        }),
    )
}

fn gateway_metrics(metrics: &mut Metrics) -> GatewayMetrics {
    GatewayMetrics {
        open: metrics.gauge("gateway_connections_open", "Connections of edges that are open"),
        closed: metrics.counters(
            "gateway_refused",
            "Connections that the gateway did not take, or closed, by the code of the reason",
        ),
    }
}

/// Takes commands from operators, and from the setting `retention_days`.
fn take_commands(
    desk: CommandDesk,
    dir: &DataDir,
    retention_days: Option<u32>,
    audit: Audit,
    stop: &CancellationToken,
) -> Tasks {
    let mut tasks = Tasks::default();
    let copies = desk.clone();
    tokio::spawn(async move { copies.complete_copies().await });
    if let Some(days) = retention_days {
        let desk = desk.clone();
        tasks.spawn("forgetting old plates (retention_days)", async move { desk.retire_daily(days).await });
    }
    match AdminSocket::listen(dir) {
        Ok(socket) => {
            let answering = socket.serve(stop.clone(), move |call: Call<ServerRequest>| {
                let (desk, audit) = (desk.clone(), audit.clone());
                async move {
                    let (what, caller) = (call.request.audited(), call.caller.clone());
                    let outcome = desk.answer(call).await;
                    if let Some(what) = what {
                        audited::note(&audit, what, &caller, &outcome);
                    }
                    outcome
                }
            });
            tasks.spawn("answering commands (admin.sock)", answering);
        }
        Err(error) => {
            tracing::error!(
                code = %codes::ADMIN_SOCKET_UNUSABLE,
                %error,
                hint = "make room or correct the permissions, then start the server again; edges are served meanwhile",
                "admin.sock cannot be created, so this server takes no commands"
            );
        }
    }
    tasks
}

impl Daemon for Server {
    async fn run(&mut self, stop: &mut StopRequest) -> Result<(), DaemonError> {
        let (dir, unreadable) = (self._dir.path().to_owned(), self.unreadable.clone());
        let ended = self.serve(stop).await;
        ended.map_err(|error| daemon::salvage_if_possible(&dir, &unreadable, error))
    }
}

impl Server {
    async fn serve(&mut self, stop: &mut StopRequest) -> Result<(), DaemonError> {
        let mut unreadable = self.unreadable.clone();
        let can_be_salvaged = salvage::is_possible(self._dir.path());
        tokio::select! {
            () = stop.requested() => {}
            Ok(_) = unreadable.wait_for(|unreadable| *unreadable), if can_be_salvaged => {
                return Err(DaemonError::Failed(codes::STORE_PARTLY_UNREADABLE, "a part of the ledger or of the views".into()));
            }
            ended = &mut self.serving_ended => return Err(ended_early("serving edges", ended)),
            ended = &mut self.applying_ended => return Err(ended_early("applying records to the views", ended)),
            error = self.tasks.one_ended() => return Err(error),
            _ = &mut self.http => return Err(DaemonError::Failed(codes::TASK_ENDED, "HTTP ended by itself".into())),
        }
        tracing::info!("stopping on request; requests in flight are answered, edges keep all other events");
        self.stop.cancel();
        let live = Arc::clone(&self.live);
        let ended = async {
            let served = (&mut self.serving_ended).await;
            // Operators get the answer to the command that they have given, or that it was not taken.
            self.tasks.finish().await;
            live.stop();
            (served, (&mut self.applying_ended).await)
        };
        match timeout(STOP_WITHIN, ended).await {
            Ok((Ok(Err(error)), _) | (_, Ok(Err(error)))) => return Err(error.into()),
            Ok(_) => {}
            Err(_) => tracing::warn!(
                code = %codes::STOP_TOO_SLOW,
                hint = "check the disk; what is stored is complete, as after a kill",
                "stopping took too long"
            ),
        }
        // Open connections of browsers may stay; they hold nothing of value.
        let _ = timeout(std::time::Duration::from_millis(300), &mut self.http).await;
        Ok(())
    }
}

fn ended_early(what: &str, ended: Result<Result<(), StoreError>, JoinError>) -> DaemonError {
    let reason = match ended {
        Ok(Err(error)) => return DaemonError::Store(error),
        Ok(Ok(())) => format!("{what} ended by itself; edges keep their events"),
        Err(_) => format!(
            "{what} panicked; what is on disk is complete, edges keep the rest. Please report this with the log"
        ),
    };
    DaemonError::Failed(codes::TASK_ENDED, reason)
}

type SharedSeen = Arc<Mutex<std::collections::BTreeMap<crate::messaging::SiteName, serving::Seen>>>;
