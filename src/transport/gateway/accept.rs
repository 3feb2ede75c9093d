//! The accept loop, and what to do when the process has no file descriptors left.

use super::Gateway;
use super::close_reason::CloseReason;
use super::connection::{self, ConnectionOver};
use super::peers::PeerSlot;
use super::secured;
use super::tunnel::are_descriptors_left;
use crate::codes;
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long the loop waits after the system had no descriptor or memory for a connection.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);
/// Descriptors that are left for the ways to the ROUTER, for files and for HTTP.
const DESCRIPTORS_LEFT: usize = 16;
/// After how long without a byte the kernel asks whether the peer is still there, and how often.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMES: u32 = 4;

/// Bytes that the kernel keeps of a connection in each direction: much more than a request, and not what it might grow to.
const SOCKET_BUFFER: usize = 256 * 1024;

/// Sets what all connections of `listener` inherit.
pub fn bound_buffers(listener: &TcpListener) -> std::io::Result<()> {
    sockopt::set_socket_send_buffer_size(listener, SOCKET_BUFFER)?;
    Ok(sockopt::set_socket_recv_buffer_size(listener, SOCKET_BUFFER)?)
}

/// Raises the soft limit of file descriptors to the hard one.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "gateway: the limit of open files stays as it is");
    }
}

impl Gateway {
    /// Takes connections until `stop`. Those that are open stay open: they end with the process.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    say_if_panicked(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    if let Some(slot) = self.admit(&stream, address) {
                        tasks.spawn(Arc::clone(&self).serve(stream, slot));
                    }
                }
                // The peer has gone already.
                Err(error)
                    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
                Err(error) => {
                    let (now, nobody) = (Instant::now(), ([0; 4], 0).into());
                    self.peers.closed.add(CloseReason::NoDescriptor, nobody, &error, now);
                    self.peers.free_a_descriptor(now);
                    tokio::select! {
                        () = sleep(AFTER_FAILED_ACCEPT) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        tasks.detach_all();
    }

    fn admit(&self, stream: &TcpStream, address: SocketAddr) -> Option<PeerSlot> {
        let now = Instant::now();
        let has_room = are_descriptors_left(stream, DESCRIPTORS_LEFT) || self.peers.free_a_descriptor(now);
        let admitted = match has_room {
            true => self.peers.admit(address, now),
            false => Err(CloseReason::NoDescriptor),
        };
        match admitted {
            Ok(slot) => {
                // Both fail only for a connection that has broken already.
                let _ = stream.set_nodelay(true);
                let _ = keep_alive(stream);
                Some(slot)
            }
            Err(reason) => {
                self.peers.closed.add(reason, address, &"it was not taken", now);
                None
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, slot: PeerSlot) {
        let address = slot.peer.address;
        let over = match &self.tls {
            None => connection::serve(stream, &slot, &self.peers, &self.routers).await,
            Some(tls) => secured::serve(tls, stream, &slot, &self.peers, &self.routers).await,
        };
        match over {
            ConnectionOver::Closed(reason) => {
                self.peers.closed.add(reason, address, &"it was closed", Instant::now())
            }
            ConnectionOver::Tls(error) => {
                self.peers.closed.add(CloseReason::TlsRefused, address, &error, Instant::now());
            }
            over => tracing::debug!(peer = %address, %over, "gateway: a connection ended"),
        }
    }
}

fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_TIMES)?;
    sockopt::set_socket_keepalive(stream, true)
}

fn say_if_panicked(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(
            code = %codes::CONNECTION_PANICKED,
            %error,
            hint = "report this with the log",
            "a connection ended because of a bug in this program"
        );
    }
}
