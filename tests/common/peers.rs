//! Servers that are none, and ways to a server that break.

use super::daemon::own_loopback_address;
use bytes::Bytes;
use fogpost::messaging::wire::{Reply, Request};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Speaks the protocol in a server's place, and answers each request as it is told to. Gone when it is dropped.
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

/// Another address of a server. It can fall silent: what goes to the server still arrives, what comes back does not. And
/// it can be slow.
pub struct Detour {
    address: SocketAddr,
    mute: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    bytes_per_s: Arc<AtomicU64>,
}

impl Detour {
    pub fn start(to: SocketAddr) -> Detour {
        let (listener, address) = listen();
        let mute = Arc::new(AtomicBool::new(false));
        let carried = Arc::new(AtomicU64::new(0));
        let bytes_per_s = Arc::new(AtomicU64::new(u64::MAX));
        let (silenced, counter, speed) = (Arc::clone(&mute), Arc::clone(&carried), Arc::clone(&bytes_per_s));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(to) else {
                    continue;
                };
                let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let never = Arc::new(AtomicBool::new(false));
                let (counter, there, back) = (Arc::clone(&counter), Arc::clone(&speed), Arc::clone(&speed));
                std::thread::spawn(move || carry(near, far, &never, &counter, &there));
                let (silenced, ignored) = (Arc::clone(&silenced), AtomicU64::new(0));
                std::thread::spawn(move || carry(far_back, near_back, &silenced, &ignored, &back));
            }
        });
        Detour { address, mute, carried, bytes_per_s }
    }

    pub fn address(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub fn fall_silent(&self) {
        self.set_silent(true);
    }

    /// What is said while it is silent is lost, and never comes later.
    pub fn set_silent(&self, silent: bool) {
        self.mute.store(silent, Ordering::Relaxed);
    }

    /// In each direction of each connection.
    pub fn slow_down_to(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// How many bytes it has carried to the server.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    mute: &AtomicBool,
    carried: &AtomicU64,
    bytes_per_s: &AtomicU64,
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if mute.load(Ordering::Relaxed) {
            continue;
        }
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
        carried.fetch_add(length as u64, Ordering::Relaxed);
        let takes = Duration::from_secs_f64(length as f64 / bytes_per_s.load(Ordering::Relaxed) as f64);
        if takes > Duration::from_micros(10) {
            std::thread::sleep(takes);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
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
