//! Clients that write every byte of HTTP by themselves: hostile ones, and honest ones that say how long their answers took.

use super::certs::Certs;
use super::http::{Answer, parse_answer};
use super::producer::{Confirmed, Journal};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than any connection lasts that does something wrong.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where a daemon serves HTTP.
#[derive(Clone)]
pub struct Door {
    pub name: &'static str,
    pub to: SocketAddr,
    /// It takes events: it is one of an edge.
    pub takes_events: bool,
    /// `None`: without TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Door {
    /// The one of the daemon of this data directory.
    pub fn plain(name: &'static str, dir: &Path, takes_events: bool) -> Door {
        let to = std::fs::read_to_string(dir.join("http.addr")).unwrap().trim().parse().unwrap();
        Door { name, to, takes_events, tls: None }
    }

    /// A connection after its handshake, if there is one.
    fn connect(&self, own: Ipv4Addr) -> Box<dyn Duplex> {
        let stream = RawClient::connect_from(own, self.to).0;
        match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(StreamOwned::new(self.session(tls), stream)),
        }
    }

    fn session(&self, tls: &Arc<ClientConfig>) -> ClientConnection {
        ClientConnection::new(Arc::clone(tls), self.to.ip().into()).unwrap()
    }

    /// A connection with TLS, after its handshake.
    pub fn secured(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let (mut session, mut stream) =
            (self.session(self.tls.as_ref().unwrap()), RawClient::connect(self.to).0);
        while session.is_handshaking() {
            session.complete_io(&mut stream).unwrap();
        }
        StreamOwned::new(session, stream)
    }

    /// The answer to a question on a connection of its own, which must succeed.
    pub fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer =
            exchange(self.connect(Ipv4Addr::LOCALHOST).as_mut(), request.as_bytes()).unwrap().unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    }
}

/// A client that trusts an authority, and shows no certificate.
pub fn tls_client(certs: &Certs) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = std::fs::read(certs.of_server().join("ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// The first message of a handshake.
pub fn client_hello(door: &Door) -> Vec<u8> {
    let mut bytes = Vec::new();
    door.session(door.tls.as_ref().unwrap()).write_tls(&mut bytes).unwrap();
    bytes
}

/// An address of its own for a hostile client, from which few others come.
pub fn own_address() -> Ipv4Addr {
    let [a, b]: [u8; 2] = rand::random();
    Ipv4Addr::new(127, 250, a, b.clamp(1, 254))
}

/// A plate that nobody else posts.
pub fn new_plate() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("RAW{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn entry(plate: &str) -> String {
    format!(r#"{{"kind":"entry","plate":"{plate}"}}"#)
}

/// The head of a POST of an event, without what says how long it is.
pub const POST_HEAD: &str =
    "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

/// A whole POST of an event, with these further headers.
pub fn post(plate: &str, headers: &str) -> String {
    let body = entry(plate);
    format!("{POST_HEAD}{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// All whole answers in these bytes, without those that only say "continue".
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((answer, length)) = parse_answer(bytes) {
        bytes = &bytes[length..];
        answers.extend(Some(answer).filter(|answer| answer.status != 100));
    }
    answers
}

/// Writes down an event of this plate, if it was confirmed.
pub fn write_down(journal: &mut Journal, plate: String, answer: &Answer) {
    if answer.status == 201 {
        let body = answer.json();
        let (epoch, first) = (body["epoch"].as_str().unwrap().to_owned(), body["sequence"].as_u64().unwrap());
        journal.confirmed.push(Confirmed { epoch, first, plates: vec![plate] });
    }
}

/// One that may be hostile.
pub struct RawClient(pub TcpStream);

impl RawClient {
    pub fn connect(to: SocketAddr) -> RawClient {
        RawClient::with_stream(TcpStream::connect(to).unwrap())
    }

    /// From another address than 127.0.0.1.
    pub fn connect_from(own: Ipv4Addr, to: SocketAddr) -> RawClient {
        let socket = RawClient::socket();
        rustix::net::bind(&socket, &SocketAddr::from((own, 0))).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        RawClient::with_stream(TcpStream::from(socket))
    }

    /// One for which the kernel keeps little of what it does not read.
    pub fn connect_narrow(to: SocketAddr) -> RawClient {
        let socket = RawClient::socket();
        sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        RawClient::with_stream(TcpStream::from(socket))
    }

    /// Closed in the children of other tests, which would hold the connection open otherwise.
    fn socket() -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
    }

    fn with_stream(stream: TcpStream) -> RawClient {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        RawClient(stream)
    }

    /// Writes as much as the daemon takes before it closes.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        match self.0.write_all(bytes.as_ref()) {
            Err(error) if !is_reset(&error) => panic!("{error}"),
            _ => {}
        }
    }

    pub fn stop_sending(&self) {
        match self.0.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => panic!("{error}"),
            _ => {}
        }
    }

    /// What comes until the daemon closes the connection.
    pub fn hear_the_end(mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        match self.0.read_to_end(&mut heard) {
            Err(error) if !is_reset(&error) => {
                panic!("the connection is still open: {error}, after {}", heard.escape_ascii())
            }
            _ => heard,
        }
    }

    /// Writes a byte whenever the daemon was silent for a second, until it closes. What it said.
    pub fn drip(mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let (mut heard, mut some) = (Vec::new(), [0; 4096]);
        for byte in bytes {
            self.say([*byte]);
            match self.0.read(&mut some) {
                Ok(0) => return heard,
                Ok(length) => heard.extend_from_slice(&some[..length]),
                Err(error) if is_reset(&error) => return heard,
                Err(_) => {}
            }
        }
        panic!("all {} bytes were taken", bytes.len());
    }
}

/// Writes the same again and again, and reads nothing, until the daemon breaks the connection off.
pub fn flood(mut stream: impl Write, socket: &TcpStream, bytes: &[u8]) {
    let began = Instant::now();
    socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut written = 0;
    loop {
        match stream.write(&bytes[written..]) {
            Ok(length) => written = (written + length) % bytes.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        assert!(began.elapsed() < PATIENCE, "the flood still runs");
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// How an honest client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// For each request.
    Afresh,
    /// Once, as long as its connection stays open.
    Once,
    /// For each request, from an address of its own, as one that is far away: the second half comes later than the first.
    FromAfar,
}

/// A producer at the door of an edge, or a reader of the server, one request after the other.
pub struct Honest {
    door: Door,
    manner: Manner,
    kept: Option<Box<dyn Duplex>>,
    asked: usize,
    pub journal: Journal,
    /// The longest time to the whole answer, asking again included, without that for which the kernel connected: ports of this machine
    /// are used again and again, and sometimes it takes a second for that.
    pub longest: Duration,
    /// The longest time with it.
    pub longest_with_connecting: Duration,
    /// The time for which the kernel connected, of this question.
    connecting: Duration,
    pub answered: u64,
    /// How often it had to ask again.
    pub again: u64,
}

impl Honest {
    pub fn new(door: &Door, manner: Manner) -> Honest {
        let journal = Journal::default();
        let (longest, longest_with_connecting) = (Duration::ZERO, Duration::ZERO);
        Honest {
            door: door.clone(),
            manner,
            kept: None,
            asked: 0,
            journal,
            longest,
            longest_with_connecting,
            connecting: Duration::ZERO,
            answered: 0,
            again: 0,
        }
    }

    /// Asks once, and checks the answer.
    pub fn ask(&mut self) {
        const QUESTIONS: [&str; 4] = ["/readyz", "/v1/occupancy", "/v1/garages", "/v1/events?limit=5"];
        let (plate, began) = (new_plate(), Instant::now());
        let path = QUESTIONS[self.asked % QUESTIONS.len()];
        let request = match self.door.takes_events {
            // Under a key, so that it can be asked again when its connection was closed meanwhile.
            true => post(&plate, &format!("Idempotency-Key: {plate}\r\n")),
            false => format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        };
        self.asked += 1;
        let answer = self.answer(request.as_bytes());
        let connecting = std::mem::take(&mut self.connecting);
        let whole = began.elapsed();
        self.longest = self.longest.max(whole.saturating_sub(connecting));
        self.longest_with_connecting = self.longest_with_connecting.max(whole);
        self.answered += 1;
        let expected = if self.door.takes_events { 201 } else { 200 };
        assert_eq!(answer.status, expected, "{}: {request:?}: {answer:?}", self.door.name);
        if self.door.takes_events {
            write_down(&mut self.journal, plate, &answer);
        } else if path == "/readyz" {
            assert_eq!(answer.body, "ready\n");
        } else {
            answer.json();
        }
    }

    /// Asks again when its connection had to give way: it was idle, or came among thousands of others.
    fn answer(&mut self, request: &[u8]) -> Answer {
        let began = Instant::now();
        loop {
            match self.try_to_ask(request) {
                Ok(Some(answer)) if answer.status != 503 => return answer,
                _ => self.again += 1,
            }
            assert!(began.elapsed() < PATIENCE, "an honest client of {} is not answered", self.door.name);
        }
    }

    fn try_to_ask(&mut self, request: &[u8]) -> io::Result<Option<Answer>> {
        let own = match self.manner {
            Manner::FromAfar => Ipv4Addr::new(127, 252, 0, 1),
            _ => Ipv4Addr::LOCALHOST,
        };
        let mut stream = self.kept.take().unwrap_or_else(|| {
            let began = Instant::now();
            let stream = self.door.connect(own);
            self.connecting += began.elapsed();
            stream
        });
        let mut rest = request;
        if self.manner == Manner::FromAfar {
            let half = request.len() / 2;
            stream.write_all(&request[..half])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_millis(50));
            rest = &request[half..];
        }
        let answer = exchange(stream.as_mut(), rest);
        if self.manner == Manner::Once && matches!(answer, Ok(Some(_))) {
            self.kept = Some(stream);
        }
        answer
    }
}

/// `None`: it was closed before an answer came.
fn exchange(stream: &mut dyn Duplex, request: &[u8]) -> io::Result<Option<Answer>> {
    stream.write_all(request)?;
    stream.flush()?;
    let (mut heard, mut some) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut some)? {
            0 => return Ok(None),
            length => heard.extend_from_slice(&some[..length]),
        }
        if let Some((answer, _)) = parse_answer(&heard) {
            return Ok(Some(answer));
        }
    }
}
