//! The server's side: one ROUTER socket for all edges.

use super::ServerAddress;
use crate::codes;
use bytes::Bytes;
use futures_util::FutureExt;
use std::io;
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeromq::{RouterRecvHalf, RouterSendHalf, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

/// The maximum number of requests that wait between the socket and the serving thread. Beyond it TCP holds the peers back.
const QUEUE: usize = 128;

/// How often a reply is offered before its peer counts as one that does not read.
const TRIES: usize = 8;

#[derive(Debug, Clone)]
pub struct Peer(Vec<Bytes>);

#[derive(Debug)]
pub struct Incoming {
    pub peer: Peer,
    pub body: Bytes,
}

/// Sends replies. Cloning shares the socket.
#[derive(Clone)]
pub struct ReplySender(RouterSendHalf);

/// Why the server cannot listen. Nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    #[error(
        "cannot listen on {address}: {source}. No event was taken, and none is lost. Is another server running there? Choose another --listen"
    )]
    Bind { address: ServerAddress, source: io::Error },
    #[error("the ZeroMQ socket did not start: {0}. No event was taken, and none is lost")]
    Socket(#[from] zeromq::ZmqError),
}

/// Listens on `address` (port 0 picks one) until `stop`. Returns the requests, the sender of replies, and the address.
pub async fn listen(
    address: &ServerAddress,
    stop: CancellationToken,
) -> Result<(mpsc::Receiver<Incoming>, ReplySender, SocketAddr), RouterError> {
    let bind = |source| RouterError::Bind { address: address.clone(), source };
    let listener = tokio::net::TcpListener::bind(address.host_and_port()).await.map_err(bind)?;
    let local = listener.local_addr().map_err(bind)?;
    let listener = listener.into_std().map_err(bind)?;
    let mut socket = RouterSocket::new();
    socket.bind_listener(listener).await?;
    let (send, recv) = socket.split();
    let (queue, waiting) = mpsc::channel(QUEUE);
    tokio::spawn(receive(recv, queue, stop));
    Ok((waiting, ReplySender(send), local))
}

async fn receive(mut socket: RouterRecvHalf, queue: mpsc::Sender<Incoming>, stop: CancellationToken) {
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = socket.recv() => message,
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
        let Some(incoming) = open_envelope(message) else {
            tracing::debug!("router: dropped a message without an envelope; its sender waits for nothing");
            continue;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            sent = queue.send(incoming) => if sent.is_err() { return },
        }
    }
}

/// The frames up to and including the empty delimiter name the peer; one body follows.
fn open_envelope(message: ZmqMessage) -> Option<Incoming> {
    let mut frames = message.into_vec();
    let body = frames.pop()?;
    let delimited = frames.len() >= 2 && frames.last().is_some_and(Bytes::is_empty);
    delimited.then_some(Incoming { peer: Peer(frames), body })
}

impl ReplySender {
    /// Queues a reply, or drops it and returns false when its peer has gone or does not read: waiting for it would freeze every
    /// other peer, and an edge that misses a reply asks again.
    pub fn reply(&mut self, peer: Peer, body: Vec<u8>) -> bool {
        let mut frames = peer.0;
        frames.push(Bytes::from(body));
        let Ok(message) = ZmqMessage::try_from(frames) else { return false };
        // `None` may only mean that a peer is coming or going at this moment, and holds the table of peers.
        for _ in 0..TRIES {
            match self.0.send(message.clone()).now_or_never() {
                Some(Ok(())) => return true,
                Some(Err(error)) => {
                    tracing::debug!(%error, "router: dropped a reply; its peer has gone");
                    return false;
                }
                None => std::thread::yield_now(),
            }
        }
        tracing::debug!("router: dropped a reply; its peer does not read");
        false
    }
}
