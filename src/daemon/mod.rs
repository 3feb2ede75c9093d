//! The lifecycle of a process: exit codes, signals, the ready line, and one deadline for shutdown.

pub mod admin;
pub mod audited;
pub mod certificates;
pub mod clock;
pub mod doors;
mod memory;
pub mod tasks;

pub use memory::keep_small;

use crate::codes::{self, Code, Coded};
use crate::config::ConfigError;
use crate::store::directory::DirectoryError;
use crate::store::salvage;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a clean stop may take. What is left then stays on disk, as after a kill.
pub const STOP_WITHIN: Duration = Duration::from_secs(4);
/// After this time a daemon that was asked to stop ends wherever it is: a disk that hangs, or anything else that blocks a thread, must
/// not hold it for more than 5 s. The warning is logged a moment before, because the log may hang as well.
const STOPPED_WITHIN: Duration = Duration::from_millis(4500);
const STOP_SAID_AFTER: Duration = Duration::from_millis(4300);

/// A bad setting (`EX_USAGE` of sysexits.h).
pub const EXIT_SETTING: u8 = 64;

/// Prints why the settings are refused, or the help that was asked for.
pub fn exit_for_config(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::CommandLine(asked) if !asked.use_stderr() => {
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
        ConfigError::CommandLine(wrong) => {
            let text = wrong.render().to_string();
            codes::print_error(error.code(), &text.strip_prefix("error: ").unwrap_or(&text).trim_end());
        }
        _ => codes::print_error(error.code(), error),
    }
    ExitCode::from(EXIT_SETTING)
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A setting that only what is on the disk shows to be wrong.
    #[error("{1}")]
    Setting(Code, String),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Open(#[from] crate::store::StoreOpenError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Outbox(#[from] crate::messaging::outbox::OutboxOpenError),
    #[error(transparent)]
    Listen(#[from] crate::transport::gateway::GatewayError),
    #[error(transparent)]
    Http(#[from] crate::http::HttpListenError),
    #[error("{1}")]
    Failed(Code, String),
    #[error(
        "a part of the store cannot be read: {0}. The process starts itself again, and rebuilds the store from what can be found"
    )]
    Salvage(Box<DaemonError>),
}

impl Coded for DaemonError {
    fn code(&self) -> Code {
        match self {
            DaemonError::Setting(code, _) | DaemonError::Failed(code, _) => *code,
            DaemonError::Directory(error) => error.code(),
            DaemonError::Open(error) => error.code(),
            DaemonError::Store(error) => error.code(),
            DaemonError::Outbox(error) => error.code(),
            DaemonError::Listen(_) | DaemonError::Http(_) => codes::CANNOT_LISTEN,
            DaemonError::Salvage(_) => codes::STORE_PARTLY_UNREADABLE,
        }
    }
}

impl DaemonError {
    fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Setting(..)
            | DaemonError::Open(crate::store::StoreOpenError::OtherPurpose { .. }) => EXIT_SETTING,
            _ => 1,
        }
    }
}

pub fn exit_for(error: &DaemonError) -> ExitCode {
    codes::print_error(error.code(), error);
    ExitCode::from(error.exit_code())
}

pub trait Daemon: Sized {
    /// Serves until `stop`, then ends in order. On `Err` the process ends without dropping it.
    fn run(&mut self, stop: &mut StopRequest) -> impl Future<Output = Result<(), DaemonError>>;
}

/// Opens a daemon and runs it to its end, on a runtime of its own.
/// A failure ends the process at once, without closing the store: after a failed flush, closing would write again.
pub fn run<D: Daemon>(open: impl Future<Output = Result<D, DaemonError>>) -> ExitCode {
    memory::keep_small();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // A name server that does not answer keeps a thread for half a minute; reading the disk must not wait for it.
        .max_blocking_threads(64)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let reason = format!("cannot start: {error}. Nothing was changed");
            return exit_for(&DaemonError::Failed(codes::CANNOT_START, reason));
        }
    };
    let ended = runtime.block_on(async {
        // Before anything is opened, so that a daemon that is still starting can be stopped cleanly.
        let mut stop = StopRequest::listen()?;
        let mut daemon = tokio::select! {
            daemon = open => daemon?,
            () = stop.requested() => return Ok(()),
        };
        let mut watching = tokio::spawn(clock::say_when_set());
        let ended = tokio::select! {
            ended = daemon.run(&mut stop) => ended,
            ended = &mut watching => Err(tasks::ended_early("watching the clock", ended)),
        };
        // Before the daemon is dropped: that closes the store, and waits for threads that may wait for the disk.
        ended.unwrap_or_else(|error| fail(&error));
        Ok(())
    });
    match ended {
        Ok(()) => {
            runtime.shutdown_timeout(Duration::from_millis(500));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &DaemonError) -> ! {
    tracing::error!(code = %error.code(), %error, "this program ends");
    codes::print_error(error.code(), error);
    if matches!(error, DaemonError::Salvage(_)) {
        restart();
    }
    #[expect(clippy::disallowed_methods, reason = "the store must not be closed: closing would write again")]
    std::process::exit(error.exit_code().into())
}

/// Ends the process a while after it was asked to stop, even if its threads wait for something then.
fn bound_the_stop() {
    let after = |time: Duration, then: fn()| {
        let wait = move || {
            std::thread::sleep(time);
            then();
        };
        let _ = std::thread::Builder::new().name("deadline".into()).spawn(wait); // without it a stop is not bounded
    };
    after(STOP_SAID_AFTER, || {
        tracing::warn!(
            code = %codes::STOP_TOO_SLOW,
            hint = "check the disk; what was confirmed is stored, as after a kill",
            "stopping takes too long, so the program ends without waiting"
        );
    });
    #[expect(clippy::disallowed_methods, reason = "something hangs: nothing can be closed in order")]
    after(STOPPED_WITHIN, || std::process::exit(0));
}

/// Turns the error that ended a daemon into [`DaemonError::Salvage`] when a part of its store is unreadable and can be salvaged.
pub fn salvage_if_possible(dir: &Path, store: &StoreUnreadable, error: DaemonError) -> DaemonError {
    if !*store.borrow() || !salvage::is_possible(dir) {
        return error;
    }
    match salvage::request(dir) {
        Ok(()) => DaemonError::Salvage(Box::new(error)),
        Err(why) => {
            tracing::error!(
                code = %codes::SALVAGE_NOT_REQUESTED,
                %why,
                hint = "make room on the disk and start again; nothing in the store was changed",
                "the store cannot be marked to be rebuilt at the next start"
            );
            error
        }
    }
}

/// See [`crate::store::Store::unreadable`].
pub type StoreUnreadable = tokio::sync::watch::Receiver<bool>;

/// Counts how often the process started itself again, so that a disk that fails more and more does not keep it doing so.
const RESTARTS: &str = "FOGPOST_RESTARTS";
const RESTARTS_MAX: u32 = 5;

/// Puts a new run of this program in the place of this one, with the same arguments. Returns when that is not possible.
fn restart() {
    let restarts = std::env::var(RESTARTS).ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    if restarts >= RESTARTS_MAX {
        tracing::error!(
            code = %codes::SALVAGED_TOO_OFTEN,
            restarts,
            hint = "the disk is failing: replace it",
            "the store was rebuilt several times in a row"
        );
        return;
    }
    let mut args = std::env::args_os();
    let mut again = std::process::Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    let error = again.args(args).env(RESTARTS, (restarts + 1).to_string()).exec();
    tracing::error!(
        code = %codes::RESTART_FAILED,
        %error,
        hint = "start the daemon",
        "this process cannot start itself again"
    );
}

#[derive(Debug)]
pub struct StopRequest {
    terminate: Signal,
    interrupt: Signal,
}

impl StopRequest {
    fn listen() -> Result<StopRequest, DaemonError> {
        let failed =
            |error| DaemonError::Failed(codes::CANNOT_START, format!("cannot listen for signals: {error}"));
        Ok(StopRequest {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Resolves when somebody asks this process to stop. From then on it ends within 5 s.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        bound_the_stop();
    }
}

/// The address at which a listener listens.
pub fn address_of(listener: &TcpListener) -> Result<SocketAddr, DaemonError> {
    listener.local_addr().map_err(|error| DaemonError::Failed(codes::CANNOT_LISTEN, error.to_string()))
}

/// Prints the one line on stdout that says that the daemon serves. The parent process may have closed the pipe.
pub fn print_ready(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "ready {line}");
    let _ = stdout.flush();
}
