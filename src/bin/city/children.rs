//! The daemons of a city, as child processes.
//!
//! **Promise.** A child counts as running only after it has said so itself. A child that ends before it was asked to, and was not
//! killed on purpose, is noticed at once, and reported with its status and the end of its log. No child outlives the city,
//! however the city ends. The program may be built again, or deleted, while the city runs: all children are of the same version
//! as the city.
//! **Kept by.** Waiting for the `ready` line; one task that waits for each process; on Linux the kernel's death signal, which
//! each child asks for before it does anything else, and the kernel's own reference to the program.
//! **Not promised.** That children end when the city is killed with SIGKILL on a system other than Linux: there they continue.
//!
//! Children are in a process group of their own, since Ctrl-C in a terminal goes to the whole group: the city has to stop the
//! cars, let the events arrive and check the books before it stops the daemons.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

/// The first arguments by which the city starts itself as a daemon.
pub const SERVER: &str = "__server";
/// See [`SERVER`].
pub const EDGE: &str = "__edge";

/// In the environment of each child: the process that it must not outlive.
const PARENT: &str = "FOGPOST_CITY_PID";

/// Settings that the user's shell has for daemons started by hand. Children get theirs from the city alone, since a setting
/// like `FOGPOST_SIMULATE` would create cars that are in nobody's books.
const SETTINGS_PREFIX: &str = "FOGPOST_";

/// Daemons promise to end within 5 s of SIGTERM. One that takes twice as long is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A daemon that takes longer to get ready will not get there.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// SIGKILL, by which chaos ends a child.
const KILL_SIGNAL: i32 = rustix::process::Signal::KILL.as_raw();

/// How many lines of a log are shown when its daemon ended.
const LOG_LINES_SHOWN: usize = 8;

/// Why a daemon is not running.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("cannot start {name}: {source}. Nothing was confirmed by it")]
    NotStarted { name: String, source: io::Error },
    #[error("{name} did not get ready within {} s. Its log is {log:?}", READY_WITHIN.as_secs())]
    NeverReady { name: String, log: PathBuf },
    #[error("{name} ended by itself ({}). What it had confirmed is on its disk. {}", in_words(*.status), end_of_log(.log))]
    Ended { name: String, status: ExitStatus, log: PathBuf },
    #[error("{name} could not be killed: {source}. What it had confirmed is on its disk")]
    NotKilled { name: String, source: io::Error },
    #[error("{name} says that it is ready, but not under which address: {path:?}: {source}")]
    NoAddress { name: String, path: PathBuf, source: io::Error },
}

/// How a process ended.
fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn end_of_log(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return format!("Its log {log:?} is empty");
    }
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    format!("Its log {log:?} ends with:\n  {}", shown.join("\n  "))
}

/// What to start.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// Its name in messages and the name of its log: `server`, `edge-3`.
    pub name: String,
    /// [`SERVER`] or [`EDGE`].
    pub role: &'static str,
    pub data_dir: PathBuf,
    /// Everything but the data directory.
    pub arguments: Vec<OsString>,
}

impl ChildSpec {
    pub fn with(mut self, arguments: Vec<OsString>) -> ChildSpec {
        self.arguments.extend(arguments);
        self
    }
}

/// A daemon that is running, or was.
#[derive(Debug)]
pub struct ChildDaemon {
    pub name: String,
    pub pid: u32,
    /// `http://127.0.0.1:5581`
    pub http: String,
    data_dir: PathBuf,
    log: PathBuf,
    end: oneshot::Sender<EndBy>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// How a daemon is to end.
#[derive(Debug, Clone, Copy)]
enum EndBy {
    /// SIGTERM, and time to heed it.
    Stop,
    /// SIGKILL.
    Kill,
}

/// Starts the daemon, and returns once it serves. Its death before [`ChildDaemon::stop`] or [`ChildDaemon::kill`] is sent to
/// `deaths`.
///
/// To be called on a thread that lives as long as the city: the kernel sends the death signal when the *thread* ends that
/// started the child.
pub async fn start(
    spec: ChildSpec,
    logs: &Path,
    deaths: mpsc::UnboundedSender<ChildError>,
) -> Result<ChildDaemon, ChildError> {
    let ChildSpec { name, role, data_dir, arguments } = spec;
    let log = logs.join(format!("{name}.log"));
    let not_started = |source| ChildError::NotStarted { name: name.clone(), source };
    let stderr = File::options().create(true).append(true).open(&log).map_err(not_started)?;
    // An address from an earlier run must not be taken for this one's.
    match std::fs::remove_file(data_dir.join("http.addr")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(not_started(error)),
        _ => {}
    }
    let mut command = ourselves_as(role).map_err(not_started)?;
    command.arg("--data-dir").arg(&data_dir).args(arguments);
    command.stdout(Stdio::piped()).stderr(stderr);
    let mut process = command.spawn().map_err(not_started)?;
    let pid = process.id().expect("nobody has waited for it yet");
    let stdout = process.stdout.take().expect("it is piped");
    let (end, end_requested) = oneshot::channel();
    let (send_ready, ready) = oneshot::channel();
    let (send_ended, ended) = oneshot::channel();
    tokio::spawn(read_output(stdout, send_ready));
    tokio::spawn({
        let (name, log) = (name.clone(), log.clone());
        async move {
            let status = tokio::select! {
                status = process.wait() => {
                    if let Ok(status) = status {
                        // It fails when the city is gone already; then nobody needs to know.
                        let _ = deaths.send(ChildError::Ended { name, status, log });
                    }
                    status
                }
                Ok(end_by) = end_requested => match end_by {
                    EndBy::Stop => stop(process).await,
                    EndBy::Kill => kill(process).await,
                },
            };
            let _ = send_ended.send(status);
        }
    });
    let mut child = ChildDaemon { name, pid, http: String::new(), data_dir, log, end, ended };
    let (name, log) = (child.name.clone(), child.log.clone());
    tokio::select! {
        biased;
        Ok(()) = ready => {}
        Ok(Ok(status)) = &mut child.ended => return Err(ChildError::Ended { name, status, log }),
        () = tokio::time::sleep(READY_WITHIN) => return Err(ChildError::NeverReady { name, log }),
    }
    child.http = format!("http://{}", child.address("http.addr")?);
    Ok(child)
}

/// Runs a command of the program `role` on this data directory to its end.
///
/// To be called on a thread that lives as long as the city, as [`start`].
pub async fn run_command(role: &str, arguments: &[&str], data_dir: &Path) -> io::Result<Output> {
    ourselves_as(role)?.args(arguments).arg("--data-dir").arg(data_dir).output().await
}

/// This very program as another one, which does not outlive the city and has settings from nobody else.
fn ourselves_as(role: &str) -> io::Result<Command> {
    // The kernel holds the file of a running program open under this name, even when its path was replaced or removed: a child of a
    // version that was built meanwhile could speak another protocol. The child's link is that of its parent until it
    // executes another program.
    let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
    let mut command = Command::new(program);
    command.arg0("city").arg(role);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with(SETTINGS_PREFIX) {
            command.env_remove(variable);
        }
    }
    command.env(PARENT, std::process::id().to_string());
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(command)
}

/// Reads what a daemon prints until it ends, so that it never waits for a reader; reports the `ready` line.
async fn read_output(stdout: ChildStdout, ready: oneshot::Sender<()>) {
    let mut lines = BufReader::new(stdout).lines();
    let mut ready = Some(ready);
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("ready")
            && let Some(ready) = ready.take()
        {
            let _ = ready.send(());
        }
    }
}

/// SIGTERM, and SIGKILL to a process that does not heed it.
async fn stop(mut process: tokio::process::Child) -> io::Result<ExitStatus> {
    if let Some(pid) = process.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    match tokio::time::timeout(STOP_WITHIN, process.wait()).await {
        Ok(status) => status,
        Err(_) => kill(process).await,
    }
}

async fn kill(mut process: tokio::process::Child) -> io::Result<ExitStatus> {
    process.start_kill()?;
    process.wait().await
}

impl ChildDaemon {
    /// The address that the daemon wrote into `file` of its data directory.
    pub fn address(&self, file: &str) -> Result<SocketAddr, ChildError> {
        let path = self.data_dir.join(file);
        let text = std::fs::read_to_string(&path);
        let address = text.and_then(|text| text.trim().parse().map_err(io::Error::other));
        address.map_err(|source| ChildError::NoAddress { name: self.name.clone(), path, source })
    }

    /// The most memory that the process ever held, as the kernel counts it. `None` where the kernel does not count it.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        peak_rss_bytes(&self.pid.to_string())
    }

    /// Tells the daemon to end, and returns once it has. `Err` says how it ended, if not with code 0.
    pub async fn stop(self) -> Result<(), String> {
        if self.end.send(EndBy::Stop).is_err() {
            return Ok(()); // It ended before, and `deaths` has its death.
        }
        match self.ended.await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                Err(format!("{} ended with {} when it was told to stop", self.name, in_words(status)))
            }
            Ok(Err(error)) => Err(format!("{} could not be stopped: {error}", self.name)),
            Err(_) => Err(format!("{} was lost from sight", self.name)),
        }
    }

    /// SIGKILL; returns once the process is gone. `Err`: it had ended by itself before, which no kill explains.
    pub async fn kill(self) -> Result<(), ChildError> {
        let ChildDaemon { name, log, end, ended, .. } = self;
        let _ = end.send(EndBy::Kill); // It fails when the child has ended already; `ended` says how.
        match ended.await {
            Ok(Ok(status)) if status.signal() == Some(KILL_SIGNAL) => Ok(()),
            Ok(Ok(status)) => Err(ChildError::Ended { name, status, log }),
            Ok(Err(source)) => Err(ChildError::NotKilled { name, source }),
            Err(_) => Err(ChildError::NotKilled { name, source: io::ErrorKind::BrokenPipe.into() }),
        }
    }
}

/// `VmHWM` of a process, by its id or `self`.
pub fn peak_rss_bytes(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Runs a daemon in this process, which the city has started for it. `args` is the whole command line.
pub fn run_daemon(
    name: &str,
    args: Vec<OsString>,
    daemon: impl FnOnce(Vec<OsString>) -> ExitCode,
) -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Err(error) = die_with_parent() {
        eprintln!("{name}: cannot tie its life to that of the city: {error}. Nothing was started");
        return ExitCode::FAILURE;
    }
    // `ps` and `top` would call it "exe". That it stays so is no reason to stop.
    let _ = std::fs::write("/proc/self/comm", name);
    daemon(std::iter::once(OsString::from(name)).chain(args.into_iter().skip(2)).collect())
}

/// SIGKILL, not SIGTERM: a city that was killed wants its children gone, and to them it makes no difference.
#[cfg(target_os = "linux")]
fn die_with_parent() -> io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The city may have ended before the kernel knew of the wish. Then the parent is another process already.
    let expected = std::env::var(PARENT).ok().and_then(|pid| pid.parse().ok());
    let parent = getppid().map(rustix::process::Pid::as_raw_pid);
    match expected {
        Some(expected) if parent != Some(expected) => Err(io::Error::other("the city has ended")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_much_memory_we_held() {
        let peak = peak_rss_bytes("self").expect("on Linux");
        assert!((1 << 20..1 << 34).contains(&peak), "{peak}");
        assert_eq!(peak_rss_bytes("no-such-process"), None);
    }

    #[test]
    fn the_end_of_a_process_is_described_in_words() {
        assert_eq!(in_words(ExitStatus::from_raw(64 << 8)), "exit code 64");
        assert_eq!(in_words(ExitStatus::from_raw(9)), "killed by signal 9");
    }
}
