//! The edge: confirms the events of one garage when they are on its own disk, and delivers them.
//!
//! HTTP takes events ([`web`]) into the outbox; [`sending`] delivers them; [`display`] is what the garage shows.

mod display;
mod sending;
mod web;

use crate::config::EdgeConfig;
use crate::daemon::{self, Daemon, DaemonError, STOP_WITHIN, StopRequest};
use crate::http;
use crate::messaging::SiteName;
use crate::messaging::outbox::Outbox;
use crate::store::directory::DataDir;
use crate::store::{Purpose, Store, StoreError};
use crate::telemetry;
use display::Display;
use sending::SendingStatus;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Where the last board is kept, in the data directory.
const BOARD_FILE: &str = "board";
/// How often it is written.
const SAVE_BOARD_EVERY: Duration = Duration::from_secs(1);
/// Where producers post when nothing else was said: the first free port from here.
const HTTP_FROM: ([u8; 4], u16) = ([127, 0, 0, 1], 5581);

/// Runs the program `edge`; `args` as a program gets them, its name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let config = match EdgeConfig::from_args(args) {
        Ok(config) => config,
        Err(error) => return daemon::exit_for_config(&error),
    };
    telemetry::init(config.log_format);
    daemon::run(Edge::open(config))
}

/// What the parts of an edge share.
pub(crate) struct Shared {
    config: EdgeConfig,
    outbox: Outbox,
    display: Mutex<Display>,
    sending: Mutex<SendingStatus>,
}

impl Shared {
    fn display(&self) -> MutexGuard<'_, Display> {
        self.display.lock().expect("no thread panics while it holds the display")
    }
    fn sending(&self) -> MutexGuard<'_, SendingStatus> {
        self.sending.lock().expect("no thread panics while it holds the status")
    }
}

struct Edge {
    dir: DataDir,
    shared: Arc<Shared>,
    stop: CancellationToken,
    sending: JoinHandle<Result<(), StoreError>>,
    http: JoinHandle<std::io::Result<()>>,
}

impl Edge {
    async fn open(config: EdgeConfig) -> Result<Edge, DaemonError> {
        let dir = DataDir::hold(&config.data_dir)?;
        let (outbox, display) = {
            let (path, garage) = (dir.store(), config.garage_name.clone());
            let board = dir.path().join(BOARD_FILE);
            let opened = tokio::task::spawn_blocking(move || open_outbox(&path, &garage, &board));
            opened.await.map_err(|error| DaemonError::Failed(error.to_string()))??
        };
        let listener = match config.http {
            Some(address) => http::listen(address).await?,
            None => http::listen_from(HTTP_FROM.into()).await?,
        };
        let address = listener.local_addr().map_err(|error| DaemonError::Failed(error.to_string()))?;
        let shared =
            Arc::new(Shared { config, outbox, display: Mutex::new(display), sending: Mutex::default() });
        let stop = CancellationToken::new();
        let sending = tokio::spawn(sending::send_until_stopped(Arc::clone(&shared), stop.clone()));
        let router = web::router(Arc::clone(&shared));
        let http = tokio::spawn(http::serve(listener, router, stop.clone()));
        dir.publish("http.addr", format!("{address}\n"))?;
        let servers: Vec<_> = shared.config.servers.iter().map(ToString::to_string).collect();
        let position = shared.outbox.position();
        tracing::info!(garage = %shared.config.garage_name, data_dir = %dir.path().display(), epoch = %shared.outbox.epoch(), waiting = position.durable - position.acknowledged, "the edge is ready");
        daemon::print_ready(&format!(
            "edge http=http://{address} server={} garage={:?}",
            servers.join(","),
            shared.config.garage_name.as_str(),
        ));
        Ok(Edge { dir, shared, stop, sending, http })
    }
}

impl Daemon for Edge {
    async fn run(mut self, stop: &mut StopRequest) -> Result<(), DaemonError> {
        let mut progress = self.shared.outbox.progress();
        let mut saving = tokio::time::interval(SAVE_BOARD_EVERY);
        let mut saved = Vec::new();
        loop {
            tokio::select! {
                () = stop.requested() => break,
                failed = progress.wait_for(|progress| progress.failed) => {
                    let what = if failed.is_ok() { "the disk failed" } else { "the committer ended" };
                    return Err(DaemonError::Failed(format!("{what}: nothing more is accepted, everything confirmed is kept. Start the edge again; it finds out what the disk holds")));
                }
                ended = &mut self.sending => return Err(match ended {
                    Ok(Err(error)) => DaemonError::Store(error),
                    Ok(Ok(())) => DaemonError::Failed("sending ended by itself; events stay on disk".into()),
                    Err(error) => DaemonError::Failed(format!("sending panicked: {error}; events stay on disk. Please report this with the log")),
                }),
                _ = &mut self.http => return Err(DaemonError::Failed("HTTP ended by itself; events stay on disk".into())),
                _ = saving.tick() => save_board(&self.dir, &self.shared, &mut saved),
            }
        }
        tracing::info!("stopping: asked to; what is in flight is answered, the rest stays on disk");
        self.stop.cancel();
        if timeout(STOP_WITHIN, async { (self.sending.await, (&mut self.http).await) }).await.is_err() {
            tracing::warn!("a producer kept its connection open; everything that was confirmed is on disk");
            self.http.abort();
        }
        save_board(&self.dir, &self.shared, &mut saved);
        Ok(())
    }
}

/// A board is a convenience: not being able to keep it is no reason to stop.
fn save_board(dir: &DataDir, shared: &Shared, saved: &mut Vec<u8>) {
    let bytes = shared.display().save();
    if bytes == *saved {
        return;
    }
    if let Err(error) = dir.publish(BOARD_FILE, &bytes) {
        tracing::debug!(%error, "the last board was not kept for the next start; events are not concerned");
    }
    *saved = bytes;
}

fn open_outbox(path: &Path, garage: &SiteName, board: &Path) -> Result<(Outbox, Display), DaemonError> {
    const NAME: &[u8] = b"g";
    let store = Store::open(path, Purpose::Edge)?;
    match store.get(NAME)? {
        Some(stored) if stored == garage.as_str().as_bytes() => {}
        Some(stored) => {
            return Err(DaemonError::Setting(format!(
                "this data directory belongs to garage {:?}, not to {:?}. Nothing was changed. Start it with --garage-name {:?}, or give this garage a --data-dir of its own",
                String::from_utf8_lossy(&stored),
                garage.as_str(),
                String::from_utf8_lossy(&stored),
            )));
        }
        None => {
            store.put(NAME, garage.as_str().as_bytes())?;
            store.flush()?;
        }
    }
    let outbox = Outbox::open(store)?;
    let position = outbox.position();
    let mut display = Display::new(garage, outbox.epoch(), position.oldest);
    if let Ok(saved) = std::fs::read(board) {
        display.restore(&saved, Instant::now(), now_ms());
    }
    let mut next = position.oldest;
    while next <= position.durable {
        let taken = outbox.take(next, 1 << 20)?;
        taken.pages.iter().for_each(|page| display.found(page));
        next = taken.last.map_or(position.durable, |last| last) + 1;
    }
    Ok((outbox, display))
}

/// Wall time: evidence, not truth.
fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
