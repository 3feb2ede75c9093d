//! The edge's side: one DEALER socket to one server, used until it is in doubt.

use super::ServerAddress;
use super::tls::Connector;
use super::tls::connector::TlsFailure;
use super::tls::tunnel::TlsTunnel;
use crate::codes::Code;
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
    /// The way to a server with TLS. It closes with the socket.
    tunnel: Option<TlsTunnel>,
}

/// Why a socket is of no use any more. What was sent through it may or may not have arrived.
#[derive(Debug, thiserror::Error)]
pub enum DealerError {
    #[error("no server answers at {address}: {source}")]
    Connect { address: ServerAddress, source: ZmqError },
    #[error("no server answers at {address} within {} s", CONNECT_WITHIN.as_secs())]
    ConnectTimeout { address: ServerAddress },
    #[error("no TLS connection with {address}: {source}")]
    Tls { address: ServerAddress, source: TlsFailure },
    #[error("the TLS connection ended: {0}")]
    TlsEnded(#[from] TlsFailure),
    #[error("the connection broke: {0}")]
    Broken(#[from] ZmqError),
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection takes no more messages")]
    Stuck,
    #[error("the server sent a message that does not consist of an empty delimiter and one body")]
    Framing,
}

impl DealerError {
    /// What is wrong with certificates, if that is the reason.
    pub fn certificates(&self) -> Option<(Code, &str)> {
        match self {
            DealerError::Tls { source: TlsFailure::Certificates(code, text), .. }
            | DealerError::TlsEnded(TlsFailure::Certificates(code, text)) => Some((*code, text)),
            _ => None,
        }
    }
}

impl DealerConnection {
    /// `tls` is needed for addresses with TLS.
    pub async fn connect(
        address: &ServerAddress,
        tls: Option<&Connector>,
    ) -> Result<DealerConnection, DealerError> {
        let tls_failed = |source| DealerError::Tls { address: address.clone(), source };
        let tunnel = match tls {
            Some(tls) if address.is_tls() => Some(TlsTunnel::open(tls, address).await.map_err(tls_failed)?),
            _ => None,
        };
        let endpoint = match &tunnel {
            Some(tunnel) => tunnel.endpoint().to_owned(),
            None => address.to_string(),
        };
        let mut options = SocketOptions::default();
        options.connect_timeout(CONNECT_WITHIN);
        // No identity of our own: a fast reconnect under one name would cut itself off.
        let mut socket = DealerSocket::with_options(options);
        let error = match tokio::time::timeout(CONNECT_WITHIN, socket.connect(&endpoint)).await {
            Ok(Ok(())) => {
                let monitor = socket.monitor().boxed();
                let (send, recv) = socket.split();
                return Ok(DealerConnection { send, recv, monitor, tunnel });
            }
            Ok(Err(source)) => DealerError::Connect { address: address.clone(), source },
            Err(_) => DealerError::ConnectTimeout { address: address.clone() },
        };
        match tunnel {
            // In TLS 1.3 the server may refuse our certificate after the handshake.
            Some(tunnel) => Err(tunnel.why_ended().await.map_or(error, tls_failed)),
            None => Err(error),
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
                why = ended(&mut self.tunnel) => return Err(DealerError::TlsEnded(why)),
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

/// Resolves when the tunnel has ended; never without one.
async fn ended(tunnel: &mut Option<TlsTunnel>) -> TlsFailure {
    match tunnel {
        Some(tunnel) => tunnel.ended().await,
        None => std::future::pending().await,
    }
}
