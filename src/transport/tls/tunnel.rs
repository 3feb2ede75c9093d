//! Carries one connection of a DEALER through TLS. zeromq takes no stream that is connected already, but connects to Unix sockets.

use super::connector::{Connector, TlsFailure};
use crate::transport::ServerAddress;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as BlockingListener;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, copy, split};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A tunnel to a server. Dropping it closes both its ends.
pub struct TlsTunnel {
    endpoint: String,
    carrying: JoinHandle<TlsFailure>,
}

impl TlsTunnel {
    /// Connects to the server, and waits for one connection to [`TlsTunnel::endpoint`].
    pub async fn open(connector: &Connector, address: &ServerAddress) -> Result<TlsTunnel, TlsFailure> {
        let connected = timeout(CONNECT_WITHIN, connector.connect(address)).await;
        let stream = connected.unwrap_or_else(|_| {
            Err(TlsFailure::Network(format!("no TLS connection within {} s", CONNECT_WITHIN.as_secs())))
        })?;
        // Files: not on a thread of the runtime.
        let door = tokio::task::spawn_blocking(Door::open).await;
        let door = door.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let local = |error: io::Error| {
            TlsFailure::Network(format!("cannot make a socket in a temporary directory: {error}"))
        };
        let door = door.map_err(local)?;
        let endpoint = format!("ipc://{}", door.path());
        let listener = UnixListener::from_std(door.listener).map_err(local)?;
        let (directory, folder) = (door.directory, door.folder);
        let connector = connector.clone();
        let carrying = tokio::spawn(async move {
            let dealer = listener.accept().await;
            drop((listener, directory));
            // Removing it reads the disk; what is lost by not waiting is an empty directory.
            tokio::task::spawn_blocking(move || drop(folder));
            match dealer {
                Ok((dealer, _)) => connector.explain(&carry(dealer, stream).await),
                Err(error) => local(error),
            }
        });
        Ok(TlsTunnel { endpoint, carrying })
    }

    /// Where the DEALER connects.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Resolves when the tunnel has ended, with the reason. Dropping the future changes nothing. To be awaited to its end only once.
    pub async fn ended(&mut self) -> TlsFailure {
        (&mut self.carrying).await.unwrap_or_else(|error| TlsFailure::Network(error.to_string()))
    }

    /// The reason, if it has ended or ends within a moment.
    pub async fn why_ended(mut self) -> Option<TlsFailure> {
        timeout(Duration::from_millis(200), self.ended()).await.ok()
    }
}

impl Drop for TlsTunnel {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Carries bytes both ways until one side ends. Both are closed then: half a connection is of no use.
async fn carry<A, B>(one: A, other: B) -> io::Error
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let ((mut one_reads, mut one_writes), (mut other_reads, mut other_writes)) = (split(one), split(other));
    let ended = tokio::select! {
        // First: the server may say why it closes.
        biased;
        ended = copy(&mut other_reads, &mut one_writes) => ended,
        ended = copy(&mut one_reads, &mut other_writes) => ended,
    };
    ended.err().unwrap_or_else(|| io::Error::other("one end closed it"))
}

/// A listening Unix socket that only this user can reach. It is reached through the open directory, so that its path is short
/// wherever the directory is: the path of a socket has at most 107 bytes.
struct Door {
    listener: BlockingListener,
    directory: File,
    folder: TempDir,
}

impl Door {
    /// In memory, if possible: delivering must not need room on a full disk.
    fn open() -> io::Result<Door> {
        let (memory, temporary) = (Path::new("/dev/shm"), std::env::temp_dir());
        Door::open_in(memory).or_else(|_| Door::open_in(&temporary))
    }

    fn open_in(parent: &Path) -> io::Result<Door> {
        let mut builder = tempfile::Builder::new();
        let folder =
            builder.prefix("fogpost-").permissions(PermissionsExt::from_mode(0o700)).tempdir_in(parent)?;
        let directory = File::open(folder.path())?;
        let listener = BlockingListener::bind(Door::path_in(&directory))?;
        listener.set_nonblocking(true)?;
        Ok(Door { listener, directory, folder })
    }

    fn path_in(directory: &File) -> String {
        format!("/proc/self/fd/{}/s", directory.as_raw_fd())
    }

    fn path(&self) -> String {
        Door::path_in(&self.directory)
    }
}
