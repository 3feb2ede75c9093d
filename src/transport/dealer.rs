//! The edge's side: one DEALER socket to one server, used until it is in doubt.

use super::ServerAddress;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::time::Duration;
use zeromq::{
    DealerRecvHalf, DealerSendHalf, DealerSocket, Socket, SocketEvent, SocketOptions, SocketRecv, SocketSend,
    ZmqError, ZmqMessage,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long a message may take into the socket's queue, which is empty while the window is kept.
const QUEUE_WITHIN: Duration = Duration::from_secs(2);

/// A connected socket. Dropping it closes the connection.
pub struct DealerConnection {
    send: DealerSendHalf,
    recv: DealerRecvHalf,
    /// Reports that the peer closed: `recv` itself would wait forever.
    monitor: BoxStream<'static, SocketEvent>,
}

/// Why a socket is of no use any more. What was sent through it may or may not have arrived.
#[derive(Debug, thiserror::Error)]
pub enum DealerError {
    #[error("no server answers at {address}: {source}")]
    Connect { address: ServerAddress, source: ZmqError },
    #[error("no server answers at {address} within {} s", CONNECT_WITHIN.as_secs())]
    ConnectTimeout { address: ServerAddress },
    #[error("the connection broke: {0}")]
    Broken(#[from] ZmqError),
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection takes no more messages")]
    Stuck,
    #[error("the server sent a message that does not consist of an empty delimiter and one body")]
    Framing,
}

impl DealerConnection {
    pub async fn connect(address: &ServerAddress) -> Result<DealerConnection, DealerError> {
        let mut options = SocketOptions::default();
        options.connect_timeout(CONNECT_WITHIN);
        // No identity of our own: a fast reconnect under one name would cut itself off.
        let mut socket = DealerSocket::with_options(options);
        let endpoint = address.to_string();
        match tokio::time::timeout(CONNECT_WITHIN, socket.connect(&endpoint)).await {
            Ok(Ok(())) => {
                let monitor = socket.monitor().boxed();
                let (send, recv) = socket.split();
                Ok(DealerConnection { send, recv, monitor })
            }
            Ok(Err(source)) => Err(DealerError::Connect { address: address.clone(), source }),
            Err(_) => Err(DealerError::ConnectTimeout { address: address.clone() }),
        }
    }

    /// Queues one message. `Ok` does not say that it left.
    pub async fn send(&mut self, body: Vec<u8>) -> Result<(), DealerError> {
        let mut message = ZmqMessage::from(Bytes::from(body));
        message.push_front(Bytes::new());
        match tokio::time::timeout(QUEUE_WITHIN, self.send.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(DealerError::Stuck),
        }
    }

    /// The next message. It may wait forever on a link that is cut silently. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<Bytes, DealerError> {
        let message = loop {
            tokio::select! {
                biased;
                message = self.recv.recv() => break message?,
                event = self.monitor.next() => match event {
                    Some(SocketEvent::Disconnected(_)) | None => return Err(DealerError::Closed),
                    Some(event) => tracing::debug!(?event, "dealer: socket event"),
                },
            }
        };
        match <[Bytes; 2]>::try_from(message.into_vec()) {
            Ok([delimiter, body]) if delimiter.is_empty() => Ok(body),
            _ => Err(DealerError::Framing),
        }
    }
}
