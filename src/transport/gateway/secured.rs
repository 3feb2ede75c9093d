//! A connection with TLS: who the peer is, and when it may not be connected any more.

use super::close_reason::CloseReason;
use super::connection::{self, ConnectionOver};
use super::peers::{PeerSlot, Peers};
use super::router::Routers;
use crate::transport::tls::{Acceptor, MustEnd};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Serves `stream` until the peer leaves, or has to.
pub async fn serve(
    tls: &Acceptor,
    stream: TcpStream,
    slot: &PeerSlot,
    peers: &Peers,
    routers: &Arc<Routers>,
) -> ConnectionOver {
    let accepting = timeout(peers.limits.handshake, tls.accept(stream));
    // It may have to give way before it has shown who it is.
    let must_leave = poll_fn(|cx| slot.peer.poll_closed(cx.waker()).map_or(Poll::Pending, Poll::Ready));
    let accepted = tokio::select! {
        accepted = accepting => accepted,
        reason = must_leave => return reason.into(),
    };
    let (stream, shown) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return ConnectionOver::Tls(error),
        Err(_) => return CloseReason::HandshakeTooSlow.into(),
    };
    slot.peer.garages.get_or_init(|| shown.garages.clone());
    let watching = async {
        slot.peer.close(match tls.must_end(&shown).await {
            MustEnd::Revoked => CloseReason::Revoked,
            MustEnd::Expired => CloseReason::Expired,
        });
        pending::<Infallible>().await
    };
    tokio::select! {
        over = connection::serve(stream, slot, peers, routers) => over,
        never = watching => match never {},
    }
}
