//! The daemons of a city, as child processes.
//!
//! **Promise.** No child outlives the city, however the city ends. All are of the city's version, also when the program is built
//! again, or deleted, meanwhile.
//! **Kept by.** The kernel's death signal, which each child asks for first, and the kernel's own reference to the program.
//!
//! Children are in a process group of their own, since Ctrl-C in a terminal goes to the whole group: the city has to stop the
//! cars, let the events arrive and check the books before it stops the daemons.

use fogpost::codes;
use fogpost::store::remove_if_there;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

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
const LOG_LINES_SHOWN: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("cannot start {name}: {source}. Nothing was confirmed by it")]
    NotStarted { name: String, source: io::Error },
    #[error("{name} ended by itself ({}). What it had confirmed is on its disk. {}", in_words(*.status), end_of_log(.log))]
    Ended { name: String, status: ExitStatus, log: PathBuf },
    #[error("{name} could not be ended: {source}. What it had confirmed is on its disk")]
    NotEnded { name: String, source: io::Error },
}

pub fn in_words(status: ExitStatus) -> String {
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

#[derive(Debug)]
pub struct ChildSpec {
    /// Its name in messages: `server`, `edge-3`.
    pub name: String,
    /// [`SERVER`] or [`EDGE`].
    pub role: &'static str,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub arguments: Vec<OsString>,
}

impl ChildSpec {
    /// Starts the daemon, and returns once it serves.
    ///
    /// To be called on a thread that lives as long as the city: the kernel sends the death signal when the *thread* ends that
    /// started the child.
    pub async fn start(&self) -> Result<Child, ChildError> {
        let not_started = |source| ChildError::NotStarted { name: self.name.clone(), source };
        let stderr = File::options().create(true).append(true).open(&self.log).map_err(not_started)?;
        // An address from an earlier run must not be taken for this one's.
        remove_if_there(&self.data_dir.join("http.addr")).map_err(not_started)?;
        let mut command = ourselves_as(self.role);
        command.arg("--data-dir").arg(&self.data_dir).args(&self.arguments);
        command.stdout(Stdio::piped()).stderr(stderr);
        let mut process = command.spawn().map_err(not_started)?;
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("ready") {
                    return Ok(());
                }
            }
            Err(self.ended(process.wait().await))
        };
        match timeout(READY_WITHIN, ready).await {
            Ok(ready) => ready?,
            Err(_) => {
                let seconds = READY_WITHIN.as_secs();
                let late = format!("it did not get ready within {seconds} s. Its log is {:?}", self.log);
                return Err(not_started(io::Error::other(late)));
            }
        }
        // What it prints is read until it ends, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(process)
    }

    /// The address that the daemon wrote into `file` of its data directory.
    pub fn address(&self, file: &str) -> Result<SocketAddr, ChildError> {
        let text = std::fs::read_to_string(self.data_dir.join(file));
        let address = text.and_then(|text| text.trim().parse().map_err(io::Error::other));
        address.map_err(|source| ChildError::NotStarted { name: self.name.clone(), source })
    }

    /// It ended before it was asked to.
    pub fn ended(&self, status: io::Result<ExitStatus>) -> ChildError {
        let name = self.name.clone();
        match status {
            Ok(status) => ChildError::Ended { name, status, log: self.log.clone() },
            Err(source) => ChildError::NotEnded { name, source },
        }
    }

    /// Runs a command of the daemon's program on its data directory; returns what it printed. `Err` says what went wrong.
    /// To be called where [`ChildSpec::start`] is.
    pub async fn run_command(&self, arguments: &[&str]) -> Result<String, String> {
        let words = arguments.join(" ");
        let ran =
            ourselves_as(self.role).args(arguments).arg("--data-dir").arg(&self.data_dir).output().await;
        let ran = ran.map_err(|error| format!("cannot run `{} {words}`: {error}", self.name))?;
        let said = [&ran.stdout[..], &ran.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if ran.status.success() { Ok(said) } else { Err(format!("`{} {words}` failed: {said}", self.name)) }
    }
}

/// This very program as another one, which does not outlive the city and has settings from nobody else.
fn ourselves_as(role: &str) -> Command {
    // The kernel holds the file of a running program open under this name, even when its path was replaced or removed. The child's
    // link is that of its parent until it executes another program.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("city").arg(role);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with(SETTINGS_PREFIX) {
            command.env_remove(variable);
        }
    }
    command.env(PARENT, std::process::id().to_string());
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command
}

/// SIGTERM, and SIGKILL if it does not heed it; returns once the process is gone.
pub async fn stop(process: &mut Child) -> io::Result<ExitStatus> {
    if let Some(pid) = process.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    match timeout(STOP_WITHIN, process.wait()).await {
        Ok(status) => status,
        Err(_) => kill(process).await,
    }
}

/// SIGKILL; returns once the process is gone. If it had ended by itself before, its status is another one.
pub async fn kill(process: &mut Child) -> io::Result<ExitStatus> {
    process.start_kill()?;
    process.wait().await
}

/// The most memory that the process ever held, as the kernel counts it.
pub fn peak_rss_of(process: &Child) -> Option<u64> {
    peak_rss_bytes(&process.id()?.to_string())
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
    if let Err(error) = die_with_parent() {
        let reason = format!("cannot tie its life to that of the city: {error}. Nothing was started");
        codes::print_error(codes::CANNOT_START, &reason);
        return ExitCode::FAILURE;
    }
    // `ps` and `top` would call it "exe". That it stays so is no reason to stop.
    let _ = std::fs::write("/proc/self/comm", name);
    daemon(std::iter::once(OsString::from(name)).chain(args.into_iter().skip(2)).collect())
}

/// SIGKILL, not SIGTERM: a city that was killed wants its children gone, and to them it makes no difference.
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
