//! The ROUTER socket behind the gateway: requests with their peers, and the replies to them.

use super::close_reason::CloseReason;
use super::limits::ROUTER_CHUNK;
use super::peers::{OpenPeer, Peers};
use super::tunnel::serial_of;
use crate::codes;
use crate::messaging::SiteName;
use bytes::Bytes;
use futures_util::FutureExt;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeromq::{
    RouterRecvHalf, RouterSendHalf, RouterSocket, SocketOptions, SocketRecv, SocketSend, ZmqMessage,
};

/// How often a reply is offered before its peer counts as one that does not read.
const TRIES: usize = 8;

/// Who sent a request. It takes one reply.
pub struct Peer {
    open: Arc<OpenPeer>,
    /// The identity, and what was before the body, which leads the reply back through proxies.
    envelope: Vec<Bytes>,
    peers: Arc<Peers>,
    socket: RouterSendHalf,
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

pub(super) fn options() -> SocketOptions {
    let mut options = SocketOptions::default();
    options.read_buffer(128, ROUTER_CHUNK, 2);
    options
}

/// Gives `queue` the requests that come, until `stop`.
pub(super) async fn receive(
    socket: RouterSocket,
    peers: Arc<Peers>,
    queue: mpsc::Sender<Incoming>,
    stop: CancellationToken,
) {
    let (send, mut recv): (_, RouterRecvHalf) = socket.split();
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
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
        let peer = Peer { open, envelope, peers: Arc::clone(&peers), socket: send.clone() };
        tokio::select! {
            () = stop.cancelled() => return,
            sent = queue.send(Incoming { peer, body }) => if sent.is_err() { return },
        }
    }
}

/// The frames up to and including the delimiter, and the body. What was sent without a delimiter is answered with one.
fn open_envelope(mut frames: Vec<Bytes>) -> (Vec<Bytes>, Bytes) {
    let body = frames.pop().unwrap_or_default();
    if frames.len() >= 2 && frames.last().is_some_and(Bytes::is_empty) {
        return (frames, body);
    }
    frames.truncate(1);
    frames.push(Bytes::new());
    (frames, Bytes::new())
}

impl Peer {
    /// Notes that it has sent a valid request: its connection is not among the first to give way to others.
    pub fn is_valid(&self) {
        self.open.is_valid();
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

    /// Queues the reply. False when the peer has gone or does not read: then it is closed, and asks again. Nobody waits for it.
    pub fn reply(mut self, body: Vec<u8>) -> bool {
        let mut frames = self.envelope;
        frames.push(Bytes::from(body));
        let length = frames.iter().skip(1).map(Bytes::len).sum();
        let Ok(message) = ZmqMessage::try_from(frames) else { return false };
        self.peers.reply_is_queued(&self.open, length, Instant::now());
        // `None` may only mean that a peer is coming or going at this moment, and holds the table of peers.
        for _ in 0..TRIES {
            match self.socket.send(message.clone()).now_or_never() {
                Some(Ok(())) => return true,
                Some(Err(_)) => break,
                None => std::thread::yield_now(),
            }
        }
        tracing::debug!(peer = ?self.open, "router: dropped a reply; its peer has gone or does not read");
        self.open.close(CloseReason::NotReading);
        false
    }
}
