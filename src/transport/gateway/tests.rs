//! The gateway as a whole, on sockets.

use super::*;
use crate::messaging::wire::REPLY_MAX;
use crate::transport::dealer::DealerConnection;
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);
const READY: &[u8] = b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06DEALER";

struct Listening {
    waiting: mpsc::Receiver<Incoming>,
    address: ServerAddress,
    open: Gauge,
    stop: CancellationToken,
}

async fn listening(limits: PeerLimits) -> Listening {
    let (metrics, stop) = (GatewayMetrics::default(), CancellationToken::new());
    let open = metrics.open.clone();
    let address = "tcp://127.0.0.1:0".parse().unwrap();
    let (waiting, local) = listen(&address, None, limits, metrics, stop.clone()).await.unwrap();
    Listening { waiting, address: format!("tcp://{local}").parse().unwrap(), open, stop }
}

impl Listening {
    /// Asks through `dealer`, and answers with the same.
    async fn echo(&mut self, dealer: &mut DealerConnection, body: &[u8]) -> Bytes {
        dealer.send(body.to_vec()).await.unwrap();
        let Incoming { peer, body } = self.waiting.recv().await.unwrap();
        assert!(peer.garages().is_none() && peer.address().ip().is_loopback());
        assert!(peer.reply(body.to_vec()));
        tokio::time::timeout(SOON, dealer.recv()).await.expect("a reply comes").unwrap()
    }

    async fn all_have_gone(&self) {
        let began = Instant::now();
        while self.open.get() > 0 {
            assert!(began.elapsed() < SOON, "{} are open", self.open.get());
            tokio::task::yield_now().await;
        }
    }
}

/// The crate remembers each connection that a ROUTER ever had.
#[tokio::test]
async fn after_many_connections_another_router_takes_over_and_all_are_answered() {
    let mut gateway = listening(PeerLimits { ways_per_router: 3, ..PeerLimits::default() }).await;
    let mut first = DealerConnection::connect(&gateway.address, None).await.unwrap();
    assert_eq!(&gateway.echo(&mut first, b"first").await[..], b"first");
    let mut later = Vec::new();
    for n in 0..5u8 {
        let mut dealer = DealerConnection::connect(&gateway.address, None).await.unwrap();
        assert_eq!(gateway.echo(&mut dealer, &[n]).await[..], [n]);
        later.push(dealer);
        assert_eq!(&gateway.echo(&mut first, b"again").await[..], b"again", "its ROUTER is still there");
    }
    // The third ROUTER ends the first: its peers have to connect again.
    let mut seventh = DealerConnection::connect(&gateway.address, None).await.unwrap();
    assert_eq!(&gateway.echo(&mut seventh, b"seventh").await[..], b"seventh");
    assert!(tokio::time::timeout(SOON, first.recv()).await.expect("it is closed").is_err());
    assert_eq!(gateway.echo(&mut later[4], b"x").await[..], *b"x");
    drop((first, later, seventh));
    gateway.all_have_gone().await;
    gateway.stop.cancel();
    assert!(gateway.waiting.recv().await.is_none(), "the server notices the end");
}

#[tokio::test]
async fn a_reply_to_a_peer_that_has_gone_waits_for_nobody() {
    let mut gateway = listening(PeerLimits::default()).await;
    let mut peer = TcpStream::connect(gateway.address.host_and_port()).await.unwrap();
    peer.write_all(&[&zmtp::greeting()[..], READY, b"\x01\0\0\x01x"].concat()).await.unwrap();
    let incoming = gateway.waiting.recv().await.unwrap();
    peer.set_zero_linger().unwrap();
    drop(peer);
    gateway.all_have_gone().await;
    assert!(!incoming.peer.reply(b"too late".to_vec()));
}

/// Of the largest replies, as many as it may have requests in flight.
#[tokio::test]
async fn replies_to_a_peer_that_does_not_read_delay_nobody() {
    let mut gateway = listening(PeerLimits::default()).await;
    let mut silent = TcpStream::connect(gateway.address.host_and_port()).await.unwrap();
    let asks = b"\x01\0\0\x01x".repeat(PeerLimits::default().in_flight + 1);
    silent.write_all(&[&zmtp::greeting()[..], READY, &asks].concat()).await.unwrap();
    let mut asked = Vec::new();
    while asked.len() < PeerLimits::default().in_flight {
        asked.push(gateway.waiting.recv().await.unwrap().peer);
    }
    let mut other = DealerConnection::connect(&gateway.address, None).await.unwrap();
    assert_eq!(gateway.echo(&mut other, b"before").await[..], *b"before");
    assert!(gateway.waiting.try_recv().is_err(), "no more is read of it than may be in flight");
    for peer in asked {
        assert!(peer.reply(vec![7; REPLY_MAX]), "it is queued, and nobody waits");
    }
    // What the system took of the replies makes room for another request.
    other.send(b"after".to_vec()).await.unwrap();
    loop {
        let Incoming { peer, body } = gateway.waiting.recv().await.unwrap();
        peer.reply(body.to_vec());
        if body[..] == *b"after" {
            break;
        }
    }
    assert_eq!(other.recv().await.unwrap()[..], *b"after");
    drop(silent);
}

/// TLS is put before the gateway as another kind of stream.
#[tokio::test]
async fn any_stream_is_served_and_both_ways_are_closed_with_it() {
    let limits = PeerLimits::default();
    let closed = ClosedPeers::new(ClosedCounters::default());
    let peers = Peers::new(limits, closed, Gauge::default());
    let (queue, mut waiting) = mpsc::channel(QUEUE);
    let routers = Routers::start(Arc::clone(&peers), queue, CancellationToken::new()).await.unwrap();
    let slot = peers.admit("10.0.0.1:7".parse().unwrap(), Instant::now()).unwrap();
    let (mut peer, stream) = tokio::io::duplex(50);
    let all = Arc::clone(&peers);
    let served = tokio::spawn(async move { connection::serve(stream, &slot, &all, &routers).await });
    peer.write_all(&zmtp::greeting()).await.unwrap();
    peer.write_all(READY).await.unwrap();
    peer.write_all(b"\x01\0\0\x05hello").await.unwrap();
    let incoming = tokio::time::timeout(SOON, async {
        let mut handshake = [0; 94];
        peer.read_exact(&mut handshake).await.unwrap();
        waiting.recv().await.unwrap()
    });
    let incoming = incoming.await.unwrap();
    assert_eq!(&incoming.body[..], b"hello");
    assert!(incoming.peer.reply(vec![7; 200]));
    let mut reply = [0; 204];
    peer.read_exact(&mut reply).await.unwrap();
    assert_eq!((&reply[..4], reply[203]), (&b"\x01\0\0\xC8"[..], 7));
    drop(peer);
    assert!(matches!(served.await.unwrap(), connection::ConnectionOver::PeerGone));
}
