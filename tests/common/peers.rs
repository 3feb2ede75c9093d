//! Servers that are none, and ways to a server that break.

use super::daemon::own_loopback_address;
use bytes::Bytes;
use fogpost::fault_proxy::{FaultProxy, LinkDirection, LinkFault};
use fogpost::messaging::wire::{Reply, Request};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use zeromq::{DealerSocket, ReqSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(own_loopback_address()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts every connection and never says a byte.
pub struct SilentListener {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
}

impl SilentListener {
    pub fn start() -> SilentListener {
        let (listener, address) = listen();
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&accepted);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                kept.push(connection);
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        SilentListener { address, accepted }
    }

    pub fn address(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A ROUTER socket that shakes hands and reads, and answers the same to everything, or nothing.
pub struct Stranger {
    address: String,
    heard: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Stranger {
    pub fn start(answer: Option<&'static [u8]>) -> Stranger {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut socket = RouterSocket::new();
        let bound = runtime.block_on(socket.bind(&format!("tcp://{}", own_loopback_address()))).unwrap();
        let heard = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&heard);
        runtime.spawn(async move {
            while let Ok(message) = socket.recv().await {
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer {
                    let mut frames = message.into_vec();
                    frames.pop();
                    frames.push(Bytes::from_static(answer));
                    let _ = socket.send(ZmqMessage::try_from(frames).unwrap()).await;
                }
            }
        });
        Stranger { address: bound.to_string(), heard, _runtime: runtime }
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// How many requests it has read.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

/// Speaks the protocol in a server's place, and answers each request as the test says. Gone when it is dropped.
pub struct StandIn {
    _runtime: Runtime,
}

impl StandIn {
    /// It listens where a server did that has ended.
    pub fn start(at: SocketAddr, answer: impl Fn(&Request) -> Reply + Send + 'static) -> StandIn {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut socket = RouterSocket::new();
        runtime.block_on(socket.bind(&format!("tcp://{at}"))).unwrap();
        runtime.spawn(async move {
            while let Ok(message) = socket.recv().await {
                let mut frames = message.into_vec();
                let request = Request::decode(&frames.pop().unwrap()).unwrap();
                frames.push(answer(&request).encode().into());
                let _ = socket.send(ZmqMessage::try_from(frames).unwrap()).await;
            }
        });
        StandIn { _runtime: runtime }
    }
}

/// Another address of a server, which can fall silent and be slow.
pub struct Detour {
    proxy: FaultProxy,
    _runtime: Runtime,
}

impl Detour {
    pub fn start(to: SocketAddr) -> Detour {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let at = own_loopback_address().parse().unwrap();
        let proxy = runtime.block_on(FaultProxy::open(at, to)).unwrap();
        Detour { proxy, _runtime: runtime }
    }

    pub fn address(&self) -> String {
        format!("tcp://{}", self.proxy.address())
    }

    /// What goes to the server still arrives; what comes back is lost, and never comes later.
    pub fn fall_silent(&self) {
        self.proxy.set(LinkFault::HalfOpen(LinkDirection::ToEdge));
    }

    /// Ends the silence, and with it the connections that lost something.
    pub fn speak_again(&self) {
        self.proxy.heal();
    }

    /// In each direction of each connection.
    pub fn slow_down_to(&self, bytes_per_s: u64) {
        self.proxy.limit_speed(bytes_per_s);
    }

    /// How many bytes it has carried to the server.
    pub fn carried(&self) -> u64 {
        self.proxy.bytes_to_server()
    }
}

/// A DEALER or REQ socket of somebody who is no edge.
pub struct Caller<S> {
    socket: S,
    runtime: Runtime,
}

impl<S: Socket + SocketSend + SocketRecv> Caller<S> {
    fn connect(address: &str) -> Caller<S> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut socket = S::new();
        runtime.block_on(socket.connect(address)).unwrap();
        Caller { socket, runtime }
    }

    fn send(&mut self, frames: Vec<Bytes>) {
        let message = ZmqMessage::try_from(frames).unwrap();
        self.runtime.block_on(self.socket.send(message)).unwrap();
    }

    /// The frames of the next message, if one comes in time.
    fn receive(&mut self, within: Duration) -> Option<Vec<Bytes>> {
        let received =
            self.runtime.block_on(async { tokio::time::timeout(within, self.socket.recv()).await });
        Some(received.ok()?.ok()?.into_vec())
    }
}

/// Longer than any answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

impl Caller<DealerSocket> {
    pub fn dealer(address: &str) -> Caller<DealerSocket> {
        Caller::connect(address)
    }

    /// Sends these frames, with no expectation.
    pub fn say(&mut self, frames: Vec<Bytes>) {
        self.send(frames);
    }

    /// What comes within `within`, if anything does.
    pub fn hear(&mut self, within: Duration) -> Option<Vec<Bytes>> {
        self.receive(within)
    }

    /// The answer to one body behind an empty delimiter.
    pub fn ask(&mut self, body: impl Into<Bytes>) -> Bytes {
        self.send(vec![Bytes::new(), body.into()]);
        match self.receive(ANSWER_WITHIN).expect("the server answers every body").as_slice() {
            [delimiter, body] if delimiter.is_empty() => body.clone(),
            frames => panic!("a reply of an empty delimiter and a body was expected: {frames:?}"),
        }
    }
}

impl Caller<ReqSocket> {
    pub fn req(address: &str) -> Caller<ReqSocket> {
        Caller::connect(address)
    }

    /// The answer to one body; the socket adds and removes the delimiter.
    pub fn ask(&mut self, body: impl Into<Bytes>) -> Bytes {
        self.send(vec![body.into()]);
        match self.receive(ANSWER_WITHIN).expect("the server answers every body").as_slice() {
            [body] => body.clone(),
            frames => panic!("a reply of one body was expected: {frames:?}"),
        }
    }
}
