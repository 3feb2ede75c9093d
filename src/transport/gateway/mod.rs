//! The gateway: what the internet may do to the server's ROUTER socket, and nothing else.
//!
//! ```text
//! peer ── TCP ──▶ accept (secured) ──▶ connection: session (zmtp) ── Unix stream ──▶ ROUTER ──▶ serving
//! ```
//!
//! **Promise.** Whatever a peer sends, announces or does not read, the server's memory, descriptors and other peers are spared; it is
//! counted why a connection was closed. Every message that comes through is answered, unless its peer has gone.
//! **Kept by.** The gateway ends the peer's handshake itself, checks every header ([`session`]) and passes on only what is within the limits
//! ([`limits`]). Each connection has an identity of the gateway's choice at the ROUTER, so no peer takes another's replies. Which
//! connection is closed for another is decided in [`peers`].
//! **Not promised.** Who a peer is, without TLS: a garage's name is what the peer says then. Fairness between garages: here it is one between
//! connections, of which the ROUTER takes one message each in turn; the server goes on from there.

mod accept;
mod close_reason;
mod connection;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod limits;
mod peers;
mod router;
mod secured;
mod session;
mod tunnel;
mod zmtp;

pub use close_reason::ClosedCounters;
pub use limits::PeerLimits;
pub use router::{Incoming, Peer};

use super::ServerAddress;
use super::tls::Acceptor;
use close_reason::ClosedPeers;
use peers::Peers;
use prometheus_client::metrics::gauge::Gauge;
use router::Routers;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The maximum number of requests that wait to be admitted or sent away, for which nobody waits. Beyond it TCP holds the peers back.
const QUEUE: usize = 8;

/// Why the server cannot listen. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(
        "cannot listen on {address}: {source}. No event was taken, and none is lost. Is another server running there? Choose another --listen"
    )]
    Bind { address: ServerAddress, source: io::Error },
    #[error("the ZeroMQ socket did not start: {0}. No event was taken, and none is lost")]
    Socket(#[from] zeromq::ZmqError),
    #[error("the way to the ZeroMQ socket cannot be made: {0}. No event was taken, and none is lost")]
    Tunnel(#[from] io::Error),
}

/// What the gateway counts.
#[derive(Debug, Clone, Default)]
pub struct GatewayMetrics {
    pub open: Gauge,
    pub closed: ClosedCounters,
}

struct Gateway {
    peers: Arc<Peers>,
    /// `None`: peers connect without TLS.
    tls: Option<Acceptor>,
    routers: Arc<Routers>,
}

/// Listens on `address` (port 0 picks one) until `stop`, with TLS if `tls` is given. Returns the requests and the address.
pub async fn listen(
    address: &ServerAddress,
    tls: Option<Acceptor>,
    limits: PeerLimits,
    metrics: GatewayMetrics,
    stop: CancellationToken,
) -> Result<(mpsc::Receiver<Incoming>, SocketAddr), GatewayError> {
    let bind = |source| GatewayError::Bind { address: address.clone(), source };
    let listener = TcpListener::bind(address.host_and_port()).await.map_err(bind)?;
    let local = listener.local_addr().map_err(bind)?;
    accept::bound_buffers(&listener).map_err(bind)?;
    let (queue, waiting) = mpsc::channel(QUEUE);
    let peers = Peers::new(limits, ClosedPeers::new(metrics.closed), metrics.open);
    let routers = Routers::start(Arc::clone(&peers), queue, stop.clone()).await?;
    accept::raise_descriptor_limit();
    let gateway = Gateway { peers, tls, routers };
    tokio::spawn(Arc::new(gateway).accept(listener, stop));
    Ok((waiting, local))
}

#[cfg(test)]
mod tests;
