//! The way to a ROUTER socket: Unix streams through a socket that has no name.
//!
//! The crate takes no connected streams, only a listener. So that nobody else connects to it, its name is removed from a folder of our own
//! as soon as it is bound, and connections go through a descriptor of the socket's file below `/proc/self/fd`.

use super::zmtp;
use bytes::BytesMut;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// The ROUTER is in this process: that it does not answer can only mean that there is no descriptor for its side.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// The two ends of a way, and a few that others may take meanwhile.
const DESCRIPTORS_NEEDED: usize = 6;
const RETRY_AFTER: Duration = Duration::from_millis(20);
const READY_MAX: usize = 255;

/// Opens ways to one ROUTER.
pub struct Tunnel(OwnedFd);

impl Tunnel {
    /// A listener for the ROUTER, and the only way to it.
    pub fn bind() -> io::Result<(std::os::unix::net::UnixListener, Tunnel)> {
        let folder = tempfile::Builder::new().prefix("fogpost-").tempdir()?;
        let open =
            |path: &std::path::Path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        // A path below /proc/self/fd is short enough for a socket, whatever TMPDIR is.
        let folder_fd = open(folder.path())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/fogpost-router", folder_fd.as_raw_fd()));
        let listener = std::os::unix::net::UnixListener::bind(&path)?;
        let file = open(&path)?;
        folder.close()?;
        Ok((listener, Tunnel(file)))
    }

    /// Connects to the ROUTER as a DEALER whose identity is `serial`, and shakes hands. `free_a_descriptor` is called while there are too
    /// few: without one, the ROUTER would try without a pause to accept.
    pub async fn open(&self, serial: u64, free_a_descriptor: impl Fn()) -> io::Result<UnixStream> {
        let opened = async {
            while !are_descriptors_left(&self.0, DESCRIPTORS_NEEDED) {
                free_a_descriptor();
                sleep(RETRY_AFTER).await;
            }
            self.connect(serial).await
        };
        timeout(OPEN_WITHIN, opened).await?
    }

    async fn connect(&self, serial: u64) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd())).await?;
        let mut bytes = BytesMut::from(&zmtp::greeting()[..]);
        zmtp::put_ready_of_dealer(identity(serial).as_bytes(), &mut bytes);
        stream.write_all(&bytes).await?;
        // Its greeting, and the header of its READY, which is short.
        let mut reply = [0; 66];
        stream.read_exact(&mut reply).await?;
        let mut ready = [0; READY_MAX];
        stream.read_exact(&mut ready[..usize::from(reply[65])]).await?;
        Ok(stream)
    }
}

/// Whether the process can have this many more file descriptors, found out by having them for a moment.
pub fn are_descriptors_left(any: impl AsFd, count: usize) -> bool {
    let spare: Result<Vec<OwnedFd>, _> =
        (0..count).map(|_| rustix::io::fcntl_dupfd_cloexec(any.as_fd(), 0)).collect();
    spare.is_ok()
}

/// The identity of a connection at the ROUTER: its serial number.
fn identity(serial: u64) -> String {
    serial.to_string()
}

/// The serial number of a connection with this identity.
pub fn serial_of(identity: &[u8]) -> Option<u64> {
    std::str::from_utf8(identity).ok()?.parse().ok()
}
