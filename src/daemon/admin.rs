//! Commands to a running daemon, over `DATA_DIR/admin.sock`.
//!
//! **Promise.** Only the daemon's own user (and root) can give commands. A command that was answered with "ok" is done. A command
//! that was never accepted has changed nothing. A client learns which of the two holds, or that it is unknown.
//! **Kept by.** The socket has mode 0600 before it listens. The daemon says `accepted` before it begins with a command, and
//! what it has written to a Unix socket reaches the client even when the daemon dies a moment later: a client that
//! never read it knows that nothing began.
//! **Not promised.** That two commands given at the same time are carried out in the order in which they were given.
//!
//! The client sends one line of JSON, a request. The daemon answers with lines of JSON:
//!
//! | line | meaning |
//! | --- | --- |
//! | `{"progress":"accepted"}` | the request was read and understood; the daemon begins |
//! | `{"progress":"working"}` | every 5 s, so that silence means trouble |
//! | `{"ok":…}`, `{"error":"…","code":"…"}` or `{"stopping":true}` | the last one; the third: nothing was begun, and the daemon ends |

use crate::codes::{self, Code, Coded};
use crate::store;
use crate::store::directory::{DataDir, DirectoryError};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempPath;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const NAME: &str = "admin.sock";
/// The longest path that a socket can have: `sun_path` is 108 bytes with the zero at its end.
const PATH_MAX: usize = 107;
/// The longest request, in bytes: a registry of half a million plates.
const REQUEST_MAX: u64 = 32 * 1024 * 1024;
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
const CLIENTS_MAX: usize = 16;
/// How long a client may take for its request, and for taking a line of the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// How often a daemon that works on a command sends a sign of life.
const WORKING_EVERY: Duration = Duration::from_secs(5);
/// How long a daemon may say nothing. Above what a slow disk takes.
const DAEMON_PATIENCE: Duration = Duration::from_secs(60);
/// How long [`reach`] waits for a daemon that starts or stops. Above what a clean stop may take.
const SETTLES_WITHIN: Duration = Duration::from_secs(6);

/// The user who gives a command, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(String);

impl Caller {
    /// The user of this process: for a command that opens the directory itself.
    pub fn this_process() -> Caller {
        Caller::of_user(rustix::process::getuid().as_raw())
    }

    fn of_user(uid: u32) -> Caller {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
        });
        Caller(name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})")))
    }

    /// Such as `ada (uid 1000)`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug)]
pub struct Call<R> {
    pub request: R,
    pub caller: Caller,
}

/// The outcome of a command: the content of `ok`, or the reason of a failure.
pub type Outcome = Result<Value, NotDone>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// In words: what happened, what it means for the data, what to do.
    #[error("{0}")]
    Refused(String),
    /// The same, with a code that says more than that it was refused.
    #[error("{1}")]
    Failed(Code, String),
    /// The daemon stops and has not begun with the command, so it can be given again at once.
    #[error("the daemon is stopping. Nothing was changed. Run the command again")]
    Stopping,
}

impl NotDone {
    pub fn code(&self) -> Code {
        match self {
            NotDone::Refused(_) => codes::COMMAND_REFUSED,
            NotDone::Failed(code, _) => *code,
            NotDone::Stopping => codes::COMMAND_NOT_TAKEN,
        }
    }
}

impl<E: Coded> From<E> for NotDone {
    fn from(error: E) -> NotDone {
        NotDone::Failed(error.code(), error.to_string())
    }
}

impl From<String> for NotDone {
    fn from(reason: String) -> NotDone {
        NotDone::Refused(reason)
    }
}

/// The socket on which a daemon listens for commands. Dropping it removes the socket.
#[derive(Debug)]
pub struct AdminSocket {
    /// Dropped before the listener, so that a client finds either a daemon or no socket.
    name: TempPath,
    listener: UnixListener,
    client_patience: Duration,
}

impl AdminSocket {
    /// Listens in a data directory that this process holds, so that a socket found there is of a daemon that has ended.
    /// A daemon whose disk has no room for the name can go on without: nothing that was promised to others needs it.
    pub fn listen(dir: &DataDir) -> io::Result<AdminSocket> {
        let path = dir.path().join(NAME);
        store::remove_if_there(&path)?;
        let (directory, short) = short_path(dir.path())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let own_user_only = Mode::RUSR | Mode::WUSR;
        // Linux gives the name the rights of the socket. Elsewhere it has wider ones until the next call, while it does not
        // listen: a client that tries is refused.
        rustix::fs::fchmod(&socket, own_user_only)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
        let name = TempPath::try_from_path(path)?;
        rustix::fs::chmod(&short, own_user_only)?;
        rustix::net::listen(&socket, 64)?;
        drop(directory);
        let listener = UnixListener::from_std(socket.into())?;
        Ok(AdminSocket { name, listener, client_patience: CLIENT_PATIENCE })
    }

    /// Gives every request to `handler` and answers with what it says, until `stop`: then the socket is removed, and this
    /// returns when the commands that were begun are answered. A handler goes on when its client has gone.
    pub async fn serve<R, F>(
        self,
        stop: CancellationToken,
        handler: impl Fn(Call<R>) -> F + Send + Sync + 'static,
    ) where
        R: DeserializeOwned + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let room = Arc::new(Semaphore::new(CLIENTS_MAX));
        let mut clients = JoinSet::new();
        let AdminSocket { name, listener, client_patience } = self;
        loop {
            let served = async {
                let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                served = served => served,
                () = stop.cancelled() => break,
            };
            while clients.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let (handler, stop) = (Arc::clone(&handler), stop.clone());
                    clients.spawn(async move {
                        let client = AdminClient { stream, patience: client_patience };
                        if let Err(error) = client.serve(&*handler, &stop).await {
                            tracing::debug!(%error, "a client of admin.sock went away");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(
                        code = %codes::COMMAND_NOT_ACCEPTED,
                        %error,
                        hint = "it is tried again; raise the limit of open files (ulimit -n) if this goes on",
                        "a connection to admin.sock could not be accepted"
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(name);
        drop(listener);
        while clients.join_next().await.is_some() {}
    }
}

struct AdminClient {
    stream: UnixStream,
    patience: Duration,
}

impl AdminClient {
    async fn serve<R, F>(
        mut self,
        handler: &impl Fn(Call<R>) -> F,
        stop: &CancellationToken,
    ) -> io::Result<()>
    where
        R: DeserializeOwned + Send + 'static,
        F: Future<Output = Outcome>,
    {
        let caller = Caller::of_user(self.stream.peer_cred()?.uid());
        let request = tokio::select! {
            request = timeout(self.patience, self.request()) => request,
            () = stop.cancelled() => return Ok(()), // nothing began, and the client knows it
        };
        let line = match request {
            Ok(read) => read?,
            Err(_) => Err(format!("no complete line came within {} s", self.patience.as_secs())),
        };
        let understood = async { understand(line?).await };
        let request = match understood.await {
            Ok(request) => request,
            Err(reason) => return self.say(json!({"error": format!("{reason}. Nothing was changed")})).await,
        };
        self.say(json!({"progress": "accepted"})).await?;
        let mut outcome = pin!(handler(Call { request, caller }));
        let mut working = tokio::time::interval(WORKING_EVERY);
        working.reset();
        let mut gone = Ok(());
        let outcome = loop {
            tokio::select! {
                outcome = &mut outcome => break outcome,
                _ = working.tick(), if gone.is_ok() => gone = self.say(json!({"progress": "working"})).await,
            }
        };
        gone?;
        self.say(match outcome {
            Ok(answer) => json!({ "ok": answer }),
            Err(NotDone::Stopping) => json!({ "stopping": true }),
            Err(error) => json!({ "error": error.to_string(), "code": error.code() }),
        })
        .await
    }

    /// Reads the line of the request; the inner error is an answer to the client.
    async fn request(&mut self) -> io::Result<Result<Vec<u8>, String>> {
        let mut line = Vec::new();
        let mut limited = tokio::io::BufReader::new((&mut self.stream).take(REQUEST_MAX + 1));
        limited.read_until(b'\n', &mut line).await?;
        if line.pop_if(|last| *last == b'\n').is_some() {
            return Ok(Ok(line));
        }
        Ok(Err(match line.len() as u64 > REQUEST_MAX {
            true => format!("the request is longer than {REQUEST_MAX} bytes"),
            false => "the line did not end".into(),
        }))
    }

    async fn say(&mut self, line: Value) -> io::Result<()> {
        let line = format!("{line}\n");
        match timeout(self.patience, self.stream.write_all(line.as_bytes())).await {
            Ok(written) => written,
            Err(_) => Err(io::Error::new(ErrorKind::TimedOut, "the client does not read")),
        }
    }
}

/// A longer request is parsed on a thread that serves nobody else.
const PARSED_AT_ONCE: usize = 64 * 1024;

async fn understand<R: DeserializeOwned + Send + 'static>(line: Vec<u8>) -> Result<R, String> {
    let length = line.len();
    let parse = move || {
        serde_json::from_slice(&line).map_err(|error| format!("the request is not understood: {error}"))
    };
    if length <= PARSED_AT_ONCE {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.unwrap_or_else(|error| Err(error.to_string()))
}

#[derive(Debug)]
pub enum DaemonOrDirectory {
    Daemon(Value),
    /// No daemon runs. This process holds the directory now and can do the command itself.
    Directory(DataDir),
}

/// Gives a command to the daemon of `data_dir`, or holds the directory when none runs. Waits for one that starts or stops. Blocks.
pub fn reach(data_dir: &Path, request: &impl Serialize) -> Result<DaemonOrDirectory, NotDone> {
    let began = Instant::now();
    loop {
        let settling = match ask(data_dir, request) {
            Ok(Some(answer)) => return Ok(DaemonOrDirectory::Daemon(answer)),
            Err(error) if error.code() == codes::COMMAND_NOT_TAKEN => error,
            Err(error) => return Err(error),
            Ok(None) if !data_dir.join("store").is_dir() => {
                let reason = format!(
                    "there is nothing stored in {data_dir:?}. Nothing was changed. Give the data directory of the daemon with --data-dir"
                );
                return Err(NotDone::Failed(codes::NO_DATA_DIRECTORY, reason));
            }
            Ok(None) => match DataDir::hold(data_dir) {
                Ok(dir) => return Ok(DaemonOrDirectory::Directory(dir)),
                Err(DirectoryError::Held { holder, .. }) => {
                    let holder = holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                    let reason = format!(
                        "the data directory {data_dir:?} is in use by another process{holder} that takes no commands at the moment: it is starting, stopping or busy. Nothing was changed. Try again in a moment"
                    );
                    NotDone::Failed(codes::DATA_DIRECTORY_IN_USE, reason)
                }
                Err(error) => return Err(error.into()),
            },
        };
        if began.elapsed() > SETTLES_WITHIN {
            return Err(settling);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Gives a command to the daemon of `data_dir`. `None` when no daemon listens there, so that nothing was changed. Blocks.
pub fn ask(data_dir: &Path, request: &impl Serialize) -> Result<Option<Value>, NotDone> {
    let not_taken = || {
        let reason = format!(
            "the daemon of {data_dir:?} ended before it took the command. Nothing was changed. Run the command again"
        );
        Err(NotDone::Failed(codes::COMMAND_NOT_TAKEN, reason))
    };
    let unknown = |why: String| {
        let reason = format!(
            "the daemon of {data_dir:?} received the command, but did not report its result ({why}). The command was carried out as a whole or not at all. Check which of the two; if it was not carried out, run it again"
        );
        NotDone::Failed(codes::COMMAND_FATE_UNKNOWN, reason)
    };
    let connected = short_path(data_dir).and_then(|(_directory, short)| BlockingStream::connect(short));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            let reason = format!(
                "cannot reach the daemon of {data_dir:?}: {error}. Nothing was changed. Run the command as the user that the daemon runs as, or as root"
            );
            return Err(NotDone::Failed(codes::DAEMON_NOT_REACHABLE, reason));
        }
    };
    let request = serde_json::to_string(request).expect("a request always encodes");
    let patience = stream
        .set_read_timeout(Some(DAEMON_PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(DAEMON_PATIENCE)));
    if patience.and_then(|()| stream.write_all(format!("{request}\n").as_bytes())).is_err() {
        return not_taken(); // its line never ended
    }
    let mut lines = BufReader::new(stream);
    let mut accepted = false;
    loop {
        let mut line = Vec::new();
        let read = (&mut lines).take(ANSWER_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.ends_with(b"\n") => {}
            // It may have begun, and just not come to say so.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(unknown(format!("it said nothing for {} s", DAEMON_PATIENCE.as_secs())));
            }
            _ if !accepted => return not_taken(),
            Ok(_) => return Err(unknown("it ended".into())),
            Err(error) => return Err(unknown(error.to_string())),
        }
        let answer: Value = serde_json::from_slice(&line).map_err(|error| unknown(error.to_string()))?;
        let Value::Object(mut answer) = answer else { return Err(unknown("its answer is not valid".into())) };
        if let Some(ok) = answer.remove("ok") {
            return Ok(Some(ok));
        }
        if let Some(Value::String(reason)) = answer.remove("error") {
            let code = answer.get("code").and_then(Value::as_str).and_then(codes::named);
            return Err(match code.filter(|code| *code != codes::COMMAND_REFUSED) {
                Some(code) => NotDone::Failed(code, reason),
                None => NotDone::Refused(reason),
            });
        }
        if answer.contains_key("stopping") {
            return not_taken();
        }
        accepted |= answer.contains_key("progress");
    }
}

/// A path to the socket that is short enough for one; it holds while the file, if there is one, is open.
fn short_path(dir: &Path) -> io::Result<(Option<File>, PathBuf)> {
    let path = dir.join(NAME);
    if path.as_os_str().len() <= PATH_MAX {
        return Ok((None, path));
    }
    let directory = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()));
    Ok((Some(directory), path))
}

#[cfg(test)]
mod tests;
