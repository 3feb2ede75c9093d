//! The ROUTER sockets behind the gateway: requests with their peers, and the replies to them.
//!
//! One takes all new connections. The crate never forgets one of them altogether, so after many of them another ROUTER takes over, and the
//! peers of the one before the last have to connect again.

use super::GatewayError;
use super::close_reason::CloseReason;
use super::limits::ROUTER_CHUNK;
use super::peers::{OpenPeer, Peers};
use super::tunnel::{Tunnel, serial_of};
use crate::codes;
use crate::messaging::SiteName;
use bytes::Bytes;
use futures_util::FutureExt;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use zeromq::{
    RouterRecvHalf, RouterSendHalf, RouterSocket, Socket, SocketOptions, SocketRecv, SocketSend, ZmqMessage,
};

/// How often a reply is offered before its peer counts as one that does not read, at first without a pause between.
const TRIES: usize = 40;
const TRIES_AT_ONCE: usize = 8;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Who sent a request. It takes one reply.
pub struct Peer {
    open: Arc<OpenPeer>,
    /// The identity, and what was before the body, which leads the reply back through proxies.
    envelope: Vec<Bytes>,
    peers: Arc<Peers>,
    /// The crate's table of peers must not be wanted by two threads: one of them would not get its reply in.
    socket: Arc<std::sync::Mutex<RouterSendHalf>>,
}

#[derive(Debug)]
pub struct Incoming {
    pub peer: Peer,
    /// Empty, so not a request, if the message did not consist of an envelope and one body.
    pub body: Bytes,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.open.fmt(f)
    }
}

/// All ROUTER sockets that are open.
pub(super) struct Routers {
    peers: Arc<Peers>,
    /// The sockets alone keep the queue open, so that the server notices when they end.
    queue: mpsc::WeakSender<Incoming>,
    stop: CancellationToken,
    /// Ways are opened one at a time, so that a few descriptors in reserve are enough for all of them.
    current: Mutex<CurrentRouter>,
}

struct CurrentRouter {
    tunnel: Tunnel,
    /// How many ways were opened to it.
    ways: usize,
    ends: CancellationToken,
    /// Ends the one before it.
    previous_ends: CancellationToken,
}

impl Routers {
    /// Gives `queue` the requests that come, until `stop`.
    pub async fn start(
        peers: Arc<Peers>,
        queue: mpsc::Sender<Incoming>,
        stop: CancellationToken,
    ) -> Result<Arc<Routers>, GatewayError> {
        let ends = stop.child_token();
        let tunnel = start_router(Arc::clone(&peers), queue.clone(), ends.clone()).await?;
        let current = CurrentRouter { tunnel, ways: 0, ends, previous_ends: CancellationToken::new() };
        Ok(Arc::new(Routers { peers, queue: queue.downgrade(), stop, current: Mutex::new(current) }))
    }

    /// Connects the peer with this serial number to a ROUTER.
    pub async fn open(&self, serial: u64) -> io::Result<UnixStream> {
        let mut current = self.current.lock().await;
        if current.ways >= self.peers.limits.ways_per_router
            && let Some(queue) = self.queue.upgrade()
        {
            let ends = self.stop.child_token();
            let started = start_router(Arc::clone(&self.peers), queue, ends.clone()).await;
            current.tunnel = started.map_err(io::Error::other)?;
            current.ways = 0;
            let previous_ends = std::mem::replace(&mut current.ends, ends);
            std::mem::replace(&mut current.previous_ends, previous_ends).cancel();
        }
        current.ways += 1;
        current.tunnel.open(serial, || _ = self.peers.free_a_descriptor(Instant::now())).await
    }
}

async fn start_router(
    peers: Arc<Peers>,
    queue: mpsc::Sender<Incoming>,
    ends: CancellationToken,
) -> Result<Tunnel, GatewayError> {
    let (listener, tunnel) = Tunnel::bind()?;
    let mut options = SocketOptions::default();
    options.read_buffer(128, ROUTER_CHUNK, 2);
    let mut socket = RouterSocket::with_options(options);
    socket.bind_listener(listener).await?;
    tokio::spawn(receive(socket, peers, queue, ends));
    Ok(tunnel)
}

/// Gives `queue` the requests that come to `socket`, until `ends`.
async fn receive(
    socket: RouterSocket,
    peers: Arc<Peers>,
    queue: mpsc::Sender<Incoming>,
    ends: CancellationToken,
) {
    let (send, mut recv): (RouterSendHalf, RouterRecvHalf) = socket.split();
    let send = Arc::new(std::sync::Mutex::new(send));
    loop {
        let message = tokio::select! {
            () = ends.cancelled() => return,
            message = recv.recv() => message,
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(
                    code = %codes::SOCKET_ENDED,
                    %error,
                    hint = "the server ends; start it again and report this with the log",
                    "the server's socket ended; edges keep their events until it is back"
                );
                return; // dropping the queue ends the server
            }
        };
        let (envelope, body) = open_envelope(message.into_vec());
        let serial = envelope.first().and_then(|identity| serial_of(identity));
        let Some(open) = serial.and_then(|serial| peers.get(serial)) else {
            continue; // it has gone: nobody waits for a reply
        };
        let peer = Peer { open, envelope, peers: Arc::clone(&peers), socket: Arc::clone(&send) };
        tokio::select! {
            () = ends.cancelled() => return,
            sent = queue.send(Incoming { peer, body }) => if sent.is_err() { return },
        }
    }
}

/// The frames up to and including the delimiter, and the body. What was sent without a delimiter is answered with one. The frames are
/// copied: as they came they keep the whole buffer in memory that they were read into.
fn open_envelope(mut frames: Vec<Bytes>) -> (Vec<Bytes>, Bytes) {
    let body = frames.pop().unwrap_or_default();
    frames.iter_mut().skip(1).for_each(|frame| *frame = Bytes::copy_from_slice(frame));
    if frames.len() >= 2 && frames.last().is_some_and(Bytes::is_empty) {
        return (frames, body);
    }
    frames.truncate(1);
    frames.push(Bytes::new());
    (frames, Bytes::new())
}

impl Peer {
    /// Notes that it has sent a valid request: its connection is not among the first to give way to others.
    pub fn note_valid_request(&self) {
        self.open.note_valid_request();
    }

    pub fn address(&self) -> SocketAddr {
        self.open.address
    }

    /// The garages that its certificate names. `None`: it showed no certificate.
    pub fn garages(&self) -> Option<&[SiteName]> {
        self.open.garages.get().map(Vec::as_slice)
    }

    /// It may send requests of this garage: its certificate names it, or it was not asked for one.
    pub fn may_speak_for(&self, garage: &SiteName) -> bool {
        self.garages().is_none_or(|garages| garages.contains(garage))
    }

    /// Queues the reply. False when the peer has gone or does not read: then it is closed, and asks again. It
    /// waits for no peer, but for up to 32 ms for the table of peers, when others come or go at this moment.
    pub fn reply(self, body: Vec<u8>) -> bool {
        let mut frames = self.envelope;
        frames.push(Bytes::from(body));
        let length = frames.iter().skip(1).map(Bytes::len).sum();
        let Ok(message) = ZmqMessage::try_from(frames) else { return false };
        if !self.peers.reply_is_queued(&self.open, length, Instant::now()) {
            return false;
        }
        let mut socket = self.socket.lock().expect("no thread panics while it sends a reply");
        // `None` may only mean that a peer is coming or going at this moment, and holds the table of peers.
        for n in 0..TRIES {
            match socket.send(message.clone()).now_or_never() {
                Some(Ok(())) => return true,
                Some(Err(_)) => break,
                None if n < TRIES_AT_ONCE => std::thread::yield_now(),
                None => std::thread::sleep(TRY_AGAIN_AFTER),
            }
        }
        drop(socket);
        tracing::debug!(peer = ?self.open, "router: dropped a reply; its peer has gone or does not read");
        self.open.close(CloseReason::NotReading);
        false
    }
}
