//! Moves the bytes of one connection between its peer, its [`Session`] and the ROUTER.
//!
//! One task and one timer for each connection. Nothing is read before the last was taken, so each side holds back the other, and an idle
//! connection has no buffers.

use super::close_reason::CloseReason;
use super::peers::{PeerSlot, Peers};
use super::router::Routers;
use super::session::Session;
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep_until, timeout};

/// How much is read at a time.
const CHUNK: usize = 16 * 1024;
/// How much may wait for a peer to read it before the ROUTER is not read any more.
const UNSENT_MAX: usize = 64 * 1024;
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionOver {
    /// The peer closed it, or the network did.
    #[error("the peer has gone")]
    PeerGone,
    #[error("the way to the ROUTER broke: {0}")]
    Router(io::Error),
    #[error("closed")]
    Closed(CloseReason),
    /// There was no TLS connection, for this reason.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl From<CloseReason> for ConnectionOver {
    fn from(reason: CloseReason) -> ConnectionOver {
        ConnectionOver::Closed(reason)
    }
}

/// The way to the ROUTER, which is opened when the first message begins: until then a peer costs it nothing.
enum ToRouter {
    NotYet,
    Opening(Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send>>),
    Open(UnixStream),
}

/// Serves `stream` until the peer leaves, or has to. Both ways are closed then.
pub async fn serve<S>(stream: S, slot: &PeerSlot, peers: &Peers, routers: &Arc<Routers>) -> ConnectionOver
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let now = Instant::now();
    let mut connection = GatewayConnection {
        stream,
        router: ToRouter::NotYet,
        session: Session::new(&peers.limits, now),
        input: BytesMut::new(),
        has_ended: false,
        must_flush: false,
        answered: 0,
        slot,
        peers,
        routers,
    };
    let mut timer = pin!(sleep_until((now + peers.limits.handshake).into()));
    let over = poll_fn(|cx| connection.poll(cx, timer.as_mut())).await;
    // What a peer that broke the rules may know, if it goes out at once.
    let _ = poll_fn(|cx| Poll::Ready(connection.poll_write_peer(cx, Instant::now()))).await;
    drop(std::mem::replace(&mut connection.router, ToRouter::NotYet));
    let _ = timeout(CLOSE_WITHIN, connection.stream.shutdown()).await;
    over
}

struct GatewayConnection<'a, S> {
    stream: S,
    router: ToRouter,
    session: Session,
    /// What was read and waits for a reply to an earlier message.
    input: BytesMut,
    /// The peer closed its sending direction.
    has_ended: bool,
    must_flush: bool,
    /// Bytes of replies that were taken from the ROUTER and not noted yet.
    answered: usize,
    slot: &'a PeerSlot,
    peers: &'a Peers,
    routers: &'a Arc<Routers>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> GatewayConnection<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<ConnectionOver> {
        match self.move_bytes(cx, timer) {
            Ok(()) => Poll::Pending,
            Err(over) => Poll::Ready(over),
        }
    }

    /// Moves what can be moved now. On `Ok` a waker is registered for whatever comes next.
    fn move_bytes(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Result<(), ConnectionOver> {
        if let Some(reason) = self.slot.peer.poll_closed(cx.waker()) {
            return Err(reason.into());
        }
        let now = Instant::now();
        loop {
            let read = self.read_peer(cx, now)?;
            let written = self.write_router(cx, now)?;
            let replied = self.read_router(cx)?;
            let sent = self.poll_write_peer(cx, now)?;
            if !(read || written || replied || sent) {
                break;
            }
        }
        self.slot.note(&self.session, std::mem::take(&mut self.answered), now);
        if self.has_ended && (!self.session.is_between_messages() || self.session.is_answered()) {
            return Err(ConnectionOver::PeerGone);
        }
        // Deadlines mostly move further away: the timer is set again when it fires, or when one is nearer.
        let Some((deadline, reason)) = self.session.deadline(&self.peers.limits, self.slot.peer.is_proven())
        else {
            return Ok(());
        };
        if deadline < timer.deadline().into_std() {
            timer.as_mut().reset(deadline.into());
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Err(reason.into());
            }
            timer.as_mut().reset(deadline.into());
        }
        Ok(())
    }

    fn read_peer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ConnectionOver> {
        if !self.session.takes_input(&self.peers.limits) {
            return Ok(false);
        }
        if !self.input.is_empty() {
            let mut rest = &self.input[..];
            self.session.received(&mut rest, &self.peers.limits, now)?;
            let taken = self.input.len() - rest.len();
            self.input.advance(taken);
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            return Ok(taken > 0);
        }
        if self.has_ended {
            return Ok(false);
        }
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        match Pin::new(&mut self.stream).poll_read(cx, &mut chunk) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(ConnectionOver::PeerGone),
            Poll::Ready(Ok(())) => {}
        }
        let mut bytes = chunk.filled();
        if bytes.is_empty() {
            self.has_ended = true;
            return Ok(false);
        }
        self.session.received(&mut bytes, &self.peers.limits, now)?;
        self.input.extend_from_slice(bytes);
        Ok(true)
    }

    fn write_router(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ConnectionOver> {
        let mut wrote = false;
        while !self.session.to_router.is_empty() {
            match &mut self.router {
                ToRouter::NotYet => {
                    let (routers, serial) = (Arc::clone(self.routers), self.slot.peer.serial);
                    self.router = ToRouter::Opening(Box::pin(async move { routers.open(serial).await }));
                }
                ToRouter::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(opened) => {
                        self.router = ToRouter::Open(opened.map_err(ConnectionOver::Router)?);
                    }
                },
                ToRouter::Open(router) => {
                    match Pin::new(router).poll_write(cx, &self.session.to_router) {
                        Poll::Pending => break,
                        Poll::Ready(Err(error)) => return Err(ConnectionOver::Router(error)),
                        Poll::Ready(Ok(length)) => self.session.to_router.advance(length),
                    }
                    wrote = true;
                }
            }
        }
        if self.session.to_router.is_empty() {
            self.session.to_router = BytesMut::new();
        } else {
            self.session.router_is_full(now);
        }
        Ok(wrote)
    }

    fn read_router(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionOver> {
        let ToRouter::Open(router) = &mut self.router else { return Ok(false) };
        if self.session.to_peer.len() >= UNSENT_MAX {
            return Ok(false);
        }
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        match Pin::new(router).poll_read(cx, &mut chunk) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(error)) => return Err(ConnectionOver::Router(error)),
            Poll::Ready(Ok(())) => {}
        }
        if chunk.filled().is_empty() {
            return Err(ConnectionOver::Router(io::ErrorKind::UnexpectedEof.into()));
        }
        self.answered += self.session.replied(chunk.filled())?;
        Ok(true)
    }

    fn poll_write_peer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ConnectionOver> {
        let mut wrote = false;
        while !self.session.to_peer.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.session.to_peer) {
                Poll::Pending => break,
                Poll::Ready(Err(_) | Ok(0)) => return Err(ConnectionOver::PeerGone),
                Poll::Ready(Ok(length)) => self.session.to_peer.advance(length),
            }
            (wrote, self.must_flush) = (true, true);
        }
        if self.session.to_peer.is_empty() {
            self.session.to_peer = BytesMut::new();
        }
        if self.must_flush {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(_)) => return Err(ConnectionOver::PeerGone),
                Poll::Ready(Ok(())) => self.must_flush = false,
            }
        }
        self.session.wrote_to_peer(wrote, now);
        Ok(wrote)
    }
}
