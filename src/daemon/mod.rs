//! What every program needs of its life: exit codes, signals, the ready line, one deadline at the end.

use crate::config::ConfigError;
use crate::store::directory::DirectoryError;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long a clean stop may take. What is left then stays on disk, as after a kill.
pub const STOP_WITHIN: Duration = Duration::from_secs(4);

/// A bad setting (`EX_USAGE` of sysexits.h).
pub const EXIT_SETTING: u8 = 64;

/// Prints why the settings are refused, or the help that was asked for.
pub fn exit_for_config(error: &ConfigError) -> ExitCode {
    if let ConfigError::CommandLine(error) = error {
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(EXIT_SETTING) } else { ExitCode::SUCCESS };
    }
    eprintln!("error: {error}");
    ExitCode::from(EXIT_SETTING)
}

/// Why a daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A setting that only what is on the disk shows to be wrong.
    #[error("{0}")]
    Setting(String),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Open(#[from] crate::store::OpenError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Outbox(#[from] crate::messaging::outbox::OpenError),
    #[error(transparent)]
    Listen(#[from] crate::transport::front::ListenError),
    #[error(transparent)]
    Http(#[from] crate::http::ListenError),
    #[error("{0}")]
    Failed(String),
}

impl DaemonError {
    fn exit_code(&self) -> ExitCode {
        match self {
            DaemonError::Setting(_) | DaemonError::Open(crate::store::OpenError::OtherPurpose { .. }) => {
                ExitCode::from(EXIT_SETTING)
            }
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs a daemon to its end on a runtime of its own.
///
/// A failure ends the process at once, without closing the store: after a failed flush, closing would write again.
pub fn run(daemon: impl Future<Output = Result<(), DaemonError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}. Nothing was changed");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(daemon) {
        Ok(()) => {
            runtime.shutdown_timeout(Duration::from_millis(500));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("error: {error}");
            let code = error.exit_code();
            let number = if code == ExitCode::from(EXIT_SETTING) { i32::from(EXIT_SETTING) } else { 1 };
            std::process::exit(number);
        }
    }
}

/// Resolves when somebody asks this process to stop: SIGTERM or SIGINT.
pub async fn stop_requested() -> Result<(), DaemonError> {
    let failed = |error: std::io::Error| DaemonError::Failed(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Prints the one line on stdout that says that the daemon serves. Whoever started it may have closed the pipe.
pub fn print_ready(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "ready {line}");
    let _ = stdout.flush();
}
