//! The way from an edge to the server, which can be cut.
//!
//! **Promise.** Whatever happens to a link, what arrives on a connection is what was sent on it, from the first byte
//! on and without a gap: that is what TCP promises in the worst weather. A connection of which bytes were lost never
//! carries any again. A healed link takes new connections.
//! **Kept by.** A connection that lost something is reset when its link heals, as a gateway resets one that it forgot.
//! **Not promised.** That a cut disturbs anything: an idle link carries nothing that could be lost. [`Link::met`] tells.

use super::faults::{Cut, Way};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

/// The most bytes that are carried at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// How late a piece arrives on a link with [`Cut::Delay`], in milliseconds.
const DELAY_MS: std::ops::RangeInclusive<u64> = 1..=120;

/// How many bytes a connection carries that is made on a link with [`Cut::Reset`]: less than a handshake, or some events.
const BYTES_BEFORE_RESET: std::ops::RangeInclusive<u64> = 0..=2_000;

/// A piece of at least so many bytes carries events, and not just one: a question for the board is shorter.
const EVENTS_BYTES: usize = 400;

/// What the machine is given to recover when it has no more sockets, or an address is not free yet.
const BREATHER: Duration = Duration::from_millis(50);

/// What a link does to what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weather {
    /// How often the weather has changed.
    number: u64,
    cut: Option<Cut>,
}

/// One edge's way to the server. It goes on while this exists.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    weather: watch::Sender<Weather>,
    /// The number of the last weather that did something to a connection.
    met: watch::Sender<u64>,
    /// Told of each piece that arrived.
    carries: Notify,
    deliveries: Arc<Notify>,
    rng: Mutex<ChaCha8Rng>,
}

impl Shared {
    fn draw(&self, from: std::ops::RangeInclusive<u64>) -> u64 {
        self.rng.lock().expect("nobody panics with it").random_range(from)
    }

    fn meets(&self, weather: Weather) {
        self.met.send_if_modified(|met| std::mem::replace(met, weather.number) != weather.number);
    }
}

impl Link {
    /// Listens at `at` (port 0 picks one) and carries what comes to `to`, whether anybody listens there or not. Whenever
    /// more than an event or two go to the server, `deliveries` is told. `seed` decides how late and how early things happen.
    pub async fn open(
        at: SocketAddr,
        to: SocketAddr,
        seed: u64,
        deliveries: Arc<Notify>,
    ) -> io::Result<Link> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let (weather, _) = watch::channel(Weather { number: 0, cut: None });
        let (met, _) = watch::channel(0);
        let rng = Mutex::new(ChaCha8Rng::seed_from_u64(seed));
        let shared = Arc::new(Shared { to, weather, met, carries: Notify::new(), deliveries, rng });
        let serving = tokio::spawn(serve(listener, address, shared.clone()));
        Ok(Link { address, shared, serving })
    }

    /// Where the edge finds it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, until [`Link::heal`] or another cut. Returns its number.
    pub fn cut(&self, cut: Cut) -> u64 {
        self.change(Some(cut))
    }

    /// The link works again.
    pub fn heal(&self) {
        self.change(None);
    }

    fn change(&self, cut: Option<Cut>) -> u64 {
        let mut number = 0;
        self.shared.weather.send_modify(|weather| {
            number = weather.number + 1;
            *weather = Weather { number, cut };
        });
        number
    }

    /// Returns when the link has carried something: then there is a connection, and more to come.
    pub async fn carries(&self) {
        self.shared.carries.notified().await;
    }

    /// Returns once the cut of this number has done something to a connection.
    pub async fn met(&self, number: u64) {
        let mut met = self.shared.met.subscribe();
        // The link lives as long as we look at it.
        let _ = met.wait_for(|met| *met >= number).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Takes connections as long as the link exists; ends with all of them.
async fn serve(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut weather = shared.weather.subscribe();
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let refuses = weather.borrow_and_update().cut == Some(Cut::Refuse);
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        tokio::select! {
            biased;
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&listener, refuses) => match accepted {
                Ok(near) => _ = connections.spawn(connection(near, shared.clone())),
                Err(_) => tokio::time::sleep(BREATHER).await,
            }
        }
    }
}

/// The next connection. Without a listener there is none: when that is not on purpose, it is an error.
async fn accept(listener: &Option<TcpListener>, refuses: bool) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None if refuses => std::future::pending().await,
        None => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// One connection, from its first byte to its end.
async fn connection(mut near: TcpStream, shared: Arc<Shared>) {
    let born = *shared.weather.borrow();
    let _ = near.set_nodelay(true);
    let lost = Lost::default();
    if born.cut == Some(Cut::BlackHole) {
        let mut weather = shared.weather.subscribe();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            tokio::select! {
                biased;
                changed = weather.wait_for(|now| now.number != born.number) => {
                    drop(changed);
                    break;
                }
                read = near.read(&mut piece) => match read {
                    Ok(1..) => shared.meets(born),
                    Ok(0) | Err(_) => break,
                }
            }
        }
        return reset(&near);
    }
    let mut far = match TcpStream::connect(shared.to).await {
        Ok(far) => far,
        // The server is dead. What was accepted on its behalf is taken back.
        Err(_) => return reset(&near),
    };
    let _ = far.set_nodelay(true);
    let carried = {
        let (from_edge, to_edge) = near.split();
        let (from_server, to_server) = far.split();
        let carrier = |way| Carrier { way, born, shared: &shared, lost: &lost };
        let (there, back) = (carrier(Way::ToServer), carrier(Way::ToEdge));
        let both = async {
            tokio::try_join!(there.carry(from_edge, to_server), back.carry(from_server, to_edge)).map(|_| ())
        };
        tokio::select! {
            biased;
            () = doom(born, &shared, &lost) => Err(io::ErrorKind::ConnectionReset.into()),
            carried = both => carried,
        }
    };
    if carried.is_err() {
        reset(&near);
        reset(&far);
    }
}

/// What is dropped after this sends a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// The weather in which a connection lost something, if it did.
#[derive(Debug, Default)]
struct Lost(AtomicU64);

impl Lost {
    fn note(&self, weather: Weather) {
        self.0.store(weather.number, Ordering::Relaxed);
    }

    /// Whether something was lost in a weather that is over: then nothing may follow.
    fn before(&self, now: Weather) -> bool {
        let number = self.0.load(Ordering::Relaxed);
        number != 0 && number != now.number
    }
}

/// Returns when the weather ends a connection that was made in the weather `born`.
async fn doom(born: Weather, shared: &Shared, lost: &Lost) {
    let mut weather = shared.weather.subscribe();
    loop {
        let now = *weather.borrow_and_update();
        match now.cut {
            Some(Cut::Reset) if now.number != born.number => return shared.meets(now),
            Some(Cut::Refuse) => return shared.meets(now),
            _ if lost.before(now) => return,
            _ => {}
        }
        if weather.changed().await.is_err() {
            return;
        }
    }
}

/// What the weather does to one piece.
enum Fate {
    Arrives,
    ArrivesAfter(Duration),
    Waits,
    IsLost,
    /// So many bytes of it arrive, and then the connection is reset.
    IsTheLast(usize),
}

/// One direction of a connection.
struct Carrier<'a> {
    way: Way,
    born: Weather,
    shared: &'a Shared,
    lost: &'a Lost,
}

impl Carrier<'_> {
    /// Carries until the sender ends its direction; an error ends the connection.
    async fn carry(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut weather = self.shared.weather.subscribe();
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = self.shared.draw(BYTES_BEFORE_RESET) as usize;
        loop {
            let length = from.read(&mut piece).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            loop {
                let now = *weather.borrow_and_update();
                match self.fate(now, length, &mut left) {
                    Fate::Arrives => {
                        to.write_all(&piece[..length]).await?;
                    }
                    Fate::ArrivesAfter(delay) => {
                        self.shared.meets(now);
                        tokio::time::sleep(delay).await;
                        to.write_all(&piece[..length]).await?;
                    }
                    Fate::Waits => {
                        self.shared.meets(now);
                        weather.changed().await.map_err(io::Error::other)?;
                        continue;
                    }
                    Fate::IsLost => {
                        self.lost.note(now);
                        self.shared.meets(now);
                        break;
                    }
                    Fate::IsTheLast(bytes) => {
                        if now.cut.is_some() {
                            self.shared.meets(now);
                        }
                        to.write_all(&piece[..bytes]).await?;
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                }
                self.shared.carries.notify_waiters();
                if self.way == Way::ToServer && length >= EVENTS_BYTES {
                    self.shared.deliveries.notify_waiters();
                }
                break;
            }
        }
    }

    fn fate(&self, now: Weather, length: usize, left: &mut usize) -> Fate {
        if self.lost.before(now) {
            return Fate::IsTheLast(0);
        }
        match now.cut {
            None | Some(Cut::Refuse) => Fate::Arrives,
            Some(Cut::Delay) => Fate::ArrivesAfter(Duration::from_millis(self.shared.draw(DELAY_MS))),
            Some(Cut::Stall) => Fate::Waits,
            Some(Cut::BlackHole) => Fate::IsLost,
            Some(Cut::HalfOpen(dead)) if dead == self.way => Fate::IsLost,
            Some(Cut::HalfOpen(_)) => Fate::Arrives,
            Some(Cut::Reset) if now.number == self.born.number && length >= *left => Fate::IsTheLast(*left),
            Some(Cut::Reset) => {
                *left -= length.min(*left);
                Fate::Arrives
            }
        }
    }
}

#[cfg(test)]
mod tests;
