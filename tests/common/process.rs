//! Programs as child processes: what they say when they are ready, their logs, their end.

use super::turns;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a daemon may take to its ready line. Generous: the machine may be busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How much of a log a failure shows.
const LOG_TAIL_BYTES: u64 = 6 * 1024;

/// Whether tests and programs were built with optimisation, as `./test` does it and `cargo test` by itself does not. An unoptimised
/// program takes more memory.
pub fn optimised() -> bool {
    !cfg!(debug_assertions) || matches!(option_env!("CARGO_PROFILE_TEST_OPT_LEVEL"), Some("2" | "3"))
}

/// What every daemon under test can be asked for.
pub trait Program {
    /// The last lines of its log, under its name.
    fn log_tail(&self) -> String;
    /// All of its log, over its restarts.
    fn log(&self) -> String;
}

/// A loopback address that no other daemon of any running test has; see the parent module.
pub fn own_loopback_address() -> String {
    let [a, b, c]: [u8; 3] = rand::random();
    format!("127.{}.{b}.{}:0", a.clamp(1, 254), c.clamp(1, 254))
}

/// A program with our arguments and none of the caller's settings.
pub fn command(program: &str, args: &[String]) -> Command {
    turns::together();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOGPOST_") {
            command.env_remove(name);
        }
    }
    command
}

/// How a program ended that was not to run.
#[derive(Debug)]
pub struct Refused {
    pub code: Option<i32>,
    pub stderr: String,
}

/// Runs a program that is expected to refuse its settings. Panics when it becomes ready, or is still there
/// after a while.
pub fn refused(program: &str, args: &[&str]) -> Refused {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let mut child = command(program, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let stderr = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let said = lines.recv_timeout(READY_WITHIN);
    if said != Err(RecvTimeoutError::Disconnected) {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{program} {args:?} was to refuse, but said {said:?}\n{}", stderr.join().unwrap());
    }
    let status = child.wait().unwrap();
    Refused { code: status.code(), stderr: stderr.join().unwrap() }
}

/// The lines of a pipe, until it closes. They are read on, so that the process that writes them never waits for us.
pub fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, received) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    received
}

/// A daemon that runs, or ran.
pub struct Process {
    name: String,
    child: Option<Child>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts it, under a tracer if there is one, and returns its ready line; an error says how it ended instead, with its log.
    pub fn try_start(
        name: &str,
        tracer: &[&str],
        program: &str,
        args: &[String],
        dir: &Path,
    ) -> Result<(Process, String), String> {
        // Beside the data directory, which belongs to the daemon.
        let log = dir.with_extension("log");
        let stderr = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = match tracer {
            [] => command(program, args),
            [tracer, its_args @ ..] => {
                let its_args = its_args.iter().copied().chain([program]).map(str::to_owned);
                command(tracer, &its_args.chain(args.iter().cloned()).collect::<Vec<_>>())
            }
        };
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let pid = child.id();
        let mut process = Process { name: name.to_owned(), child: Some(child), pid, log };
        match lines.recv_timeout(READY_WITHIN) {
            Ok(line) => Ok((process, line)),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("{name} was not ready within {READY_WITHIN:?}\n{}", process.log_tail()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = process.wait(Duration::from_secs(10));
                let tail = process.log_tail();
                Err(format!("{name} {args:?} ended with {status:?} before it was ready\n{tail}"))
            }
        }
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// All of its log, over its restarts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// The last lines of its log, under its name.
    pub fn log_tail(&self) -> String {
        let tail = || -> std::io::Result<String> {
            let mut log = File::open(&self.log)?;
            let from = log.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
            log.seek(SeekFrom::Start(from))?;
            let mut text = Vec::new();
            log.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = tail().unwrap_or_else(|error| error.to_string());
        format!("--- the log of {} (pid {}) ends with\n{text}", self.name, self.pid)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for the end that somebody else asked for.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            if began.elapsed() > within {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed()).unwrap();
        assert!(self.child.is_some(), "{} does not run", self.name);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM; its exit code and how long it took.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        match self.wait(Duration::from_secs(20)) {
            Some(status) => (status.code(), began.elapsed()),
            None => {
                let tail = self.log_tail();
                self.kill();
                panic!("{} still ran 20 s after SIGTERM\n{tail}", self.name)
            }
        }
    }

    /// Its memory as the kernel tells it.
    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Memory { most_kb: field("VmHWM:"), now_kb: field("VmRSS:"), program_kb: field("RssFile:") }
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }

    /// How much of the processors it has taken.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // Behind the name, which ends with the last parenthesis, user and system time are the 12th and 13th field, in 1/100 s.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        let hundredths: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(hundredths * 10)
    }
}

/// How much memory a process takes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The most that it ever had, program and all.
    pub most_kb: u64,
    /// What it has now.
    pub now_kb: u64,
    /// What of it now is the program itself, mapped from its file.
    pub program_kb: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a daemon and kills it after so long, wherever it is by then: it may not be ready yet.
pub fn start_and_kill(program: &str, args: &[String], dir: &Path, after: Duration) {
    let stderr = OpenOptions::new().create(true).append(true).open(dir.with_extension("log")).unwrap();
    let mut child = command(program, args).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    std::thread::sleep(after);
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "{program} ended by itself: {ended:?}; see {:?}", dir.with_extension("log"));
    child.kill().unwrap();
    child.wait().unwrap();
}
