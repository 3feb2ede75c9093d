//! The edge: confirms the events of one garage when they are on its own disk, and delivers them.
//!
//! HTTP takes events ([`web`]) into the outbox; [`sending`] delivers them; [`display`] is what the garage shows.

pub mod commands;
mod display;
mod sending;
mod simulating;
mod web;

#[cfg(any(test, fuzzing))]
pub use web::fuzzing;

use crate::codes;
use crate::config::{EdgeConfig, warn_of_plaintext};
use crate::daemon::admin::AdminSocket;
use crate::daemon::audited;
use crate::daemon::certificates::{self, ReloadRequest};
use crate::daemon::doors::Doors;
use crate::daemon::tasks::Tasks;
use crate::daemon::{self, Daemon, DaemonError, STOP_WITHIN, StopRequest, clock};
use crate::http::metrics::Metrics;
use crate::http::{self, Connections};
use crate::messaging::outbox::{Limits, Options, Outbox, Position};
use crate::messaging::{Epoch, SiteName};
use crate::parking::board::BoardLine;
use crate::parking::occupancy::free_spaces;
use crate::store::directory::DataDir;
use crate::store::room::DiskRoom;
use crate::store::salvage;
use crate::store::{Purpose, Store, StoreError};
use crate::telemetry;
use crate::transport::ServerAddress;
use crate::transport::tls::Connector;
use commands::EdgeDesk;
use display::Display;
use sending::SendingStatus;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use web::feed::BoardFeed;

/// Where the last board is kept, in the data directory.
const BOARD_FILE: &str = "board";
const SAVE_BOARD_EVERY: Duration = Duration::from_secs(1);
/// How often the board may go into the log, and how many of its lines.
const LOG_BOARD_EVERY: Duration = Duration::from_secs(10);
const LOG_BOARD_LINES: usize = 30;
/// Up to this number of waiting events are counted before the edge is ready, which takes 30 ms; ten million take seconds.
const COUNTED_AT_ONCE: u64 = 100_000;
/// The bytes of pages held in memory while they are counted.
const COUNTED_BYTES: usize = 128 * 1024;
/// The default HTTP address is the first free port from here.
const HTTP_FROM: ([u8; 4], u16) = ([127, 0, 0, 1], 5581);

pub fn run(config: EdgeConfig) -> ExitCode {
    telemetry::init(config.log_format, tracing::Level::INFO);
    daemon::run(Edge::open(config))
}

pub(crate) struct EdgeShared {
    config: EdgeConfig,
    outbox: Outbox,
    display: Mutex<Display>,
    sending: Mutex<SendingStatus>,
    /// `None`: no server has TLS.
    tls: Option<Connector>,
}

impl EdgeShared {
    fn display(&self) -> MutexGuard<'_, Display> {
        self.display.lock().expect("no thread panics while it holds the display")
    }
    fn sending(&self) -> MutexGuard<'_, SendingStatus> {
        self.sending.lock().expect("no thread panics while it holds the status")
    }
}

struct Edge {
    dir: DataDir,
    shared: Arc<EdgeShared>,
    stop: CancellationToken,
    sending: JoinHandle<Result<(), StoreError>>,
    tasks: Tasks,
    http: JoinHandle<()>,
}

impl Edge {
    async fn open(config: EdgeConfig) -> Result<Edge, DaemonError> {
        let tls = open_tls(&config)?;
        let doors = Doors::open(&config.web, "edge", Some(config.garage_name.clone()))?;
        warn_of_plaintext(&config.servers);
        let dir = DataDir::hold(&config.data_dir)?;
        let audit = audited::open(dir.path())?;
        let doors = Arc::new(doors.noting_in(&audit));
        let (outbox, display, saved) = {
            let (path, config) = (dir.path().to_owned(), config.clone());
            let opened = tokio::task::spawn_blocking(move || open_outbox(&path, &config));
            opened.await.map_err(|error| DaemonError::Failed(codes::TASK_ENDED, error.to_string()))??
        };
        let listener = match config.http {
            Some(address) => http::listen(address, "--http").await?,
            None => http::listen_from(HTTP_FROM.into()).await?,
        };
        let address = daemon::address_of(&listener)?;
        let camera_listener = listen_for_cameras(&config).await?;
        let camera_address = camera_listener.as_ref().map(|(_, address)| *address);
        let shared = Arc::new(EdgeShared {
            config,
            outbox,
            display: Mutex::new(display),
            sending: Mutex::default(),
            tls,
        });
        let stop = CancellationToken::new();
        let counting = {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            tokio::task::spawn_blocking(move || replace_display(&shared, &saved, None, &stop))
        };
        if shared.outbox.waiting() <= COUNTED_AT_ONCE {
            let _ = counting.await; // otherwise the own count is shown a little later
        }
        let (adopt, adopted) = mpsc::channel(4);
        let sending = tokio::spawn(sending::send_until_stopped(Arc::clone(&shared), adopted, stop.clone()));
        let mut tasks = Tasks::default();
        if let Some(cars_per_hour) = shared.config.simulate {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            let simulating = simulating::simulate_until_stopped(shared, cars_per_hour, stop);
            tasks.spawn("simulating cars", simulating);
        }
        if let Some(tls) = shared.tls.clone() {
            let keeping = certificates::keep_current(tls, ReloadRequest::listen()?, stop.clone());
            tasks.spawn("keeping the certificates current", keeping);
        }
        let mut metrics = Metrics::new("fogpost_edge");
        let connections = Connections::of_this_process(&mut metrics);
        doors.keep_current(&mut tasks, &stop)?;
        let feed = BoardFeed::new(Arc::clone(&shared), stop.clone());
        tasks.spawn("showing the board", Arc::clone(&feed).keep_showing());
        let [router, of_cameras] = web::routers(Arc::clone(&shared), Arc::clone(&doors), feed, metrics);
        if let Some((listener, _)) = camera_listener {
            let (rules, connections) = (doors.rules_for_cameras(), connections.clone());
            let serving = http::serve(rules, listener, of_cameras, stop.clone(), connections);
            tasks.spawn("serving cameras", serving);
        }
        let http = tokio::spawn(http::serve(doors.rules(), listener, router, stop.clone(), connections));
        let desk = EdgeDesk { shared: Arc::clone(&shared), adopted: adopt, audit };
        take_commands(desk, &dir, &mut tasks, &stop);
        dir.publish("http.addr", format!("{address}\n"))?;
        if let Some(address) = camera_address {
            dir.publish("camera-http.addr", format!("{address}\n"))?;
        }
        let servers: Vec<_> = shared.config.servers.iter().map(ToString::to_string).collect();
        let position = shared.outbox.position();
        tracing::info!(garage = %shared.config.garage_name, data_dir = %dir.path().display(), epoch = %shared.outbox.epoch(), waiting = position.durable - position.acknowledged, "the edge is ready");
        daemon::print_ready(&format!(
            "edge http={}://{address}{} server={} garage={:?}",
            doors.scheme(),
            camera_address.map(|address| format!(" cameras=http://{address}")).unwrap_or_default(),
            servers.join(","),
            shared.config.garage_name.as_str(),
        ));
        Ok(Edge { dir, shared, stop, sending, http, tasks })
    }
}

/// Takes commands from operators.
fn take_commands(desk: EdgeDesk, dir: &DataDir, tasks: &mut Tasks, stop: &CancellationToken) {
    match AdminSocket::listen(dir) {
        Ok(socket) => {
            let desk = Arc::new(desk);
            let answering = socket.serve(stop.clone(), move |call| {
                let desk = Arc::clone(&desk);
                async move { desk.answer(call).await }
            });
            tasks.spawn("answering commands (admin.sock)", answering);
        }
        Err(error) => {
            tracing::error!(
                code = %codes::ADMIN_SOCKET_UNUSABLE,
                %error,
                hint = "make room or correct the permissions, then start the edge again; events are taken and delivered meanwhile",
                "admin.sock cannot be created, so this edge takes no commands"
            );
        }
    }
}

impl Daemon for Edge {
    async fn run(&mut self, stop: &mut StopRequest) -> Result<(), DaemonError> {
        let (dir, unreadable) = (self.dir.path().to_owned(), self.shared.outbox.unreadable());
        let ended = self.serve(stop).await;
        ended.map_err(|error| daemon::salvage_if_possible(&dir, &unreadable, error))
    }
}

impl Edge {
    async fn serve(&mut self, stop: &mut StopRequest) -> Result<(), DaemonError> {
        let mut unreadable = self.shared.outbox.unreadable();
        let can_be_salvaged = salvage::is_possible(self.dir.path());
        let mut progress = self.shared.outbox.progress();
        let mut saving = tokio::time::interval(SAVE_BOARD_EVERY);
        let mut saved = Vec::new();
        let mut board_log = BoardLog::default();
        loop {
            tokio::select! {
                () = stop.requested() => break,
                Ok(_) = unreadable.wait_for(|unreadable| *unreadable), if can_be_salvaged => {
                    return Err(DaemonError::Failed(codes::STORE_PARTLY_UNREADABLE, "a part of the outbox".into()));
                }
                failed = progress.wait_for(|progress| progress.failed) => {
                    drop(failed);
                    let ended = "the committer ended by itself. What was confirmed is on the disk. Start the edge again, and please report this with the log";
                    return Err(DaemonError::Failed(codes::DISK_FAILED, self.shared.outbox.failure().unwrap_or(ended).to_owned()));
                }
                ended = &mut self.sending => return Err(match ended {
                    Ok(Err(error)) => DaemonError::Store(error),
                    Ok(Ok(())) => DaemonError::Failed(codes::TASK_ENDED, "sending ended by itself; events stay on disk".into()),
                    Err(error) => DaemonError::Failed(codes::TASK_ENDED, format!("sending panicked: {error}; events stay on disk. Please report this with the log")),
                }),
                _ = &mut self.http => return Err(DaemonError::Failed(codes::TASK_ENDED, "HTTP ended by itself; events stay on disk".into())),
                error = self.tasks.one_ended() => return Err(error),
                _ = saving.tick() => {
                    save_board(&self.dir, &self.shared, &mut saved);
                    board_log.look(&self.shared);
                }
            }
        }
        tracing::info!("stopping on request; requests in flight are answered, waiting events stay on disk");
        self.stop.cancel();
        let all = async { ((&mut self.sending).await, (&mut self.http).await, self.tasks.finish().await) };
        if timeout(STOP_WITHIN, all).await.is_err() {
            tracing::warn!(
                code = %codes::STOP_TOO_SLOW,
                hint = "nothing to do: everything that was confirmed is on the disk",
                "a producer kept its connection open while the edge stopped"
            );
            self.http.abort();
        }
        save_board(&self.dir, &self.shared, &mut saved);
        Ok(())
    }
}

/// The listener of `--camera-http`, and its address.
async fn listen_for_cameras(config: &EdgeConfig) -> Result<Option<(TcpListener, SocketAddr)>, DaemonError> {
    let Some(address) = config.camera_http else { return Ok(None) };
    let listener = http::listen(address, "--camera-http").await?;
    let address = daemon::address_of(&listener)?;
    Ok(Some((listener, address)))
}

/// What shows this edge to servers with TLS.
fn open_tls(config: &EdgeConfig) -> Result<Option<Connector>, DaemonError> {
    if !config.servers.iter().any(ServerAddress::is_tls) {
        return Ok(None);
    }
    let tls = Connector::open(config.tls.clone(), clock::now).map_err(|error| {
        certificates::unusable(
            &error,
            "\"server certs issue\" makes them; name their directory with --tls-dir",
        )
    })?;
    Ok(Some(tls))
}

/// Writes the board into the log when it changed, and not more often than every [`LOG_BOARD_EVERY`].
#[derive(Default)]
struct BoardLog {
    lines: BTreeMap<String, BoardLine>,
    own: Option<i64>,
    at: Option<Instant>,
}

impl BoardLog {
    fn look(&mut self, shared: &EdgeShared) {
        if self.at.is_some_and(|at| at.elapsed() < LOG_BOARD_EVERY) {
            return;
        }
        let (lines, own) = {
            let display = shared.display();
            let Some(board) = display.board() else { return };
            (board.garages.clone(), display.own_occupied())
        };
        let own_name = shared.config.garage_name.as_str();
        let changed = lines.iter().filter(|(name, line)| {
            let before = self.lines.get(*name);
            before.is_none_or(|before| (before.occupied, before.capacity) != (line.occupied, line.capacity))
        });
        let line = |(name, line): (&String, &BoardLine)| match (line.known_occupied(), line.known_capacity())
        {
            (Some(occupied), Some(capacity)) => {
                let free = free_spaces(capacity, occupied);
                format!("{name}: {free} of {capacity} free")
            }
            _ => format!("{name}: not known yet"),
        };
        let changed: Vec<String> = changed.map(line).collect();
        if changed.is_empty() && own == self.own {
            return;
        }
        let more = changed.len().saturating_sub(LOG_BOARD_LINES);
        let shown = changed[..changed.len() - more].join(", ");
        if changed.is_empty() {
            tracing::info!(garage = own_name, own_occupied = own, "own count changed");
        } else {
            tracing::info!(garage = own_name, own_occupied = own, more, "the board changed: {shown}");
        }
        *self = BoardLog { lines, own, at: Some(Instant::now()) };
    }
}

/// Saves the board for the next start. The board is a convenience, so a failure is only logged.
fn save_board(dir: &DataDir, shared: &EdgeShared, saved: &mut Vec<u8>) {
    let bytes = {
        let display = shared.display();
        if display.is_uncounted() {
            return; // the file says more
        }
        display.save()
    };
    if bytes == *saved {
        return;
    }
    if let Err(error) = dir.publish(BOARD_FILE, &bytes) {
        tracing::debug!(%error, "the last board was not saved for the next start; events are not affected");
    }
    *saved = bytes;
}

/// Opens the outbox, with a display in which the waiting events are not counted yet, and what an earlier process saved of its display.
fn open_outbox(dir: &Path, config: &EdgeConfig) -> Result<(Outbox, Display, Vec<u8>), DaemonError> {
    let garage = &config.garage_name;
    let options = |store: &Store, room: DiskRoom| -> Result<Options, DaemonError> {
        check_garage(store, garage)?;
        Ok(Options {
            machine: clock::machine(config.machine_id.as_deref()),
            limits: Limits { messages: config.max_events, bytes: config.max_bytes },
            room: Some(Arc::new(move |stored, coming| room.check_inside(stored, coming))),
            ..Options::default()
        })
    };
    let outbox = Outbox::open_in(dir, Purpose::Edge, config.reserve_bytes, clock::read(), options)?;
    if let Some(what) = outbox.shortage() {
        tracing::error!(
            code = %codes::OUTBOX_FULL,
            reason = what,
            hint = "make room on the disk, or find out why nothing is delivered",
            "producers are refused until there is room; what was confirmed is delivered"
        );
    }
    let mut display = new_display(config, &outbox);
    let saved = std::fs::read(dir.join(BOARD_FILE)).unwrap_or_default();
    display.restore(&saved, Instant::now(), clock::wall_ms());
    let positions = outbox.positions();
    let newest = positions.last().expect("an outbox always holds an epoch");
    display.will_be_counted(newest.epoch, newest.durable);
    Ok((outbox, display, saved))
}

fn check_garage(store: &Store, garage: &SiteName) -> Result<(), DaemonError> {
    const NAME: &[u8] = b"g";
    match store.get(NAME)? {
        Some(stored) if stored == garage.as_str().as_bytes() => Ok(()),
        Some(stored) => Err(DaemonError::Setting(
            codes::DATA_DIRECTORY_OF_OTHER_GARAGE,
            format!(
                "this data directory belongs to garage {:?}, not to {:?}. Nothing was changed. Start the edge with --garage-name {:?}, or give this garage a --data-dir of its own",
                String::from_utf8_lossy(&stored),
                garage.as_str(),
                String::from_utf8_lossy(&stored),
            ),
        )),
        None => {
            store.put(NAME, garage.as_str().as_bytes())?;
            store.flush()?;
            Ok(())
        }
    }
}

fn new_display(config: &EdgeConfig, outbox: &Outbox) -> Display {
    let positions = outbox.positions();
    let epochs: Vec<_> = positions.iter().map(|position| (position.epoch, position.oldest)).collect();
    Display::new(&config.garage_name, &epochs).with_capacity(config.capacity)
}

/// Counts the events on disk, until `stop`. Events that are delivered and deleted meanwhile are included in the server's count.
fn count_what_waits(
    display: &mut Display,
    outbox: &Outbox,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut progress = outbox.progress();
    for Position { epoch_index, epoch, oldest, durable, .. } in outbox.positions() {
        let mut counted = oldest - 1;
        while counted < durable && !stop.is_cancelled() {
            progress.mark_unchanged();
            let taken = outbox.take(epoch_index, counted + 1, COUNTED_BYTES)?;
            let first = taken.pages.first().and_then(|page| Some(page.view().ok()?.first.get()));
            let begins = first.unwrap_or_else(|| {
                let now = outbox.positions().into_iter().find(|position| position.epoch_index == epoch_index);
                now.map_or(durable + 1, |position| position.oldest)
            });
            if begins > counted + 1 {
                counted = durable.min(begins - 1);
                display.passed_over(epoch, counted);
            } else if first.is_none() {
                // It is just being written, and can be taken when that is done.
                let written = async {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = progress.changed() => {}
                    }
                };
                tokio::runtime::Handle::current().block_on(written);
            }
            taken.pages.iter().for_each(|page| display.found(page, durable));
            counted = taken.last.unwrap_or(counted);
        }
    }
    Ok(())
}

/// Events of the epoch `moved` have new places, so the server's count on the board is compared with them again.
fn rebuild_display(shared: &EdgeShared, moved: Epoch, stop: &CancellationToken) {
    let saved = {
        let mut display = shared.display();
        display.will_be_replaced();
        display.save()
    };
    replace_display(shared, &saved, Some(moved), stop);
}

/// Makes a display from what is on disk and `saved`, which replaces the one that was marked to be replaced.
fn replace_display(shared: &EdgeShared, saved: &[u8], moved: Option<Epoch>, stop: &CancellationToken) {
    let mut display = new_display(&shared.config, &shared.outbox);
    display.restore(saved, Instant::now(), clock::wall_ms());
    let counted = count_what_waits(&mut display, &shared.outbox, stop);
    let mut shown = shared.display();
    match counted {
        Ok(()) if !stop.is_cancelled() => {
            display.take_over(&shown, moved);
            *shown = display;
        }
        Ok(()) => {}
        Err(error) => {
            shown.stays();
            tracing::warn!(
                code = %codes::OWN_COUNT_UNKNOWN,
                %error,
                hint = "run: edge outbox verify",
                "the waiting events cannot be counted; the garage's previous count is still shown"
            );
        }
    }
}
