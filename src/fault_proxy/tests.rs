use super::*;
use tokio::task::JoinHandle;

const NOWHERE: &str = "127.0.0.1:0";
/// Hosts of one test each, whose port is free for a while: nobody else takes it there, nor connects from it.
const HOST_THAT_REFUSES: &str = "127.77.0.2:0";
const HOST_THAT_DIES: &str = "127.77.0.1:0";
/// Longer than anything here takes, and shorter than anybody would wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that says back what it hears, and how much it has heard in all.
struct Echo {
    address: SocketAddr,
    heard: watch::Receiver<u64>,
    serving: JoinHandle<()>,
}

impl Echo {
    async fn start(at: &str) -> Echo {
        let listener = TcpListener::bind(at).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (hear, heard) = watch::channel(0);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let hear = hear.clone();
                connections.spawn(async move {
                    let mut piece = vec![0; PIECE_BYTES];
                    while let Ok(length @ 1..) = stream.read(&mut piece).await {
                        hear.send_modify(|heard| *heard += length as u64);
                        if stream.write_all(&piece[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Echo { address, heard, serving }
    }

    async fn has_heard(&mut self, bytes: u64) {
        let heard = self.heard.wait_for(|heard| *heard >= bytes);
        let heard = tokio::time::timeout(PATIENCE, heard).await;
        assert_eq!(*heard.expect("it arrives in time").expect("it serves"), bytes);
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn link(to: SocketAddr) -> FaultProxy {
    link_at(NOWHERE, to).await
}

async fn link_at(at: &str, to: SocketAddr) -> FaultProxy {
    FaultProxy::open(at.parse().expect("an address"), to).await.expect("a free port")
}

async fn connect(link: &FaultProxy) -> TcpStream {
    TcpStream::connect(link.address()).await.expect("the link listens")
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("it takes some bytes");
}

/// Reads `text`, or panics.
async fn hear(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await;
    read.expect("an answer comes").expect("the connection goes on");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

async fn is_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let error = read.expect("the end comes").expect_err("it is no orderly end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

async fn affected(link: &FaultProxy, number: u64) {
    tokio::time::timeout(PATIENCE, link.affected(number)).await.expect("it affects what was sent");
}

/// Whether something comes within a moment in which it would have come.
async fn is_silent(stream: &mut TcpStream) -> bool {
    let read = stream.read_u8();
    tokio::time::timeout(Duration::from_millis(150), read).await.is_err()
}

#[tokio::test]
async fn an_open_link_carries_everything_both_ways_and_passes_the_end_on() {
    let echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let text: String = (0..300_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let (mut read, mut write) = connect(&link).await.into_split();
    let sent = text.clone();
    let writing = tokio::spawn(async move {
        write.write_all(sent.as_bytes()).await.expect("it is carried");
        write.shutdown().await.expect("it ends in order");
    });
    let mut back = String::new();
    read.read_to_string(&mut back).await.expect("it ends in order");
    writing.await.expect("it does not panic");
    assert!(back == text);
}

#[tokio::test]
async fn a_delayed_link_carries_everything_late_and_in_order() {
    let echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let mut stream = connect(&link).await;
    let number = link.set(LinkFault::Delay);
    let begun = tokio::time::Instant::now();
    for text in ["one", "two", "three"] {
        say(&mut stream, text).await;
        hear(&mut stream, text).await;
    }
    affected(&link, number).await;
    assert!(begun.elapsed() >= Duration::from_millis(6), "each of six pieces waits for at least 1 ms");
    link.heal();
    say(&mut stream, "four").await;
    hear(&mut stream, "four").await;
}

#[tokio::test]
async fn what_was_sent_on_a_stalled_link_arrives_when_it_heals() {
    let mut echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let mut stream = connect(&link).await;
    let number = link.set(LinkFault::Stall);
    say(&mut stream, "one").await;
    affected(&link, number).await;
    assert!(is_silent(&mut stream).await);
    link.heal();
    hear(&mut stream, "one").await;
    echo.has_heard(3).await;
}

#[tokio::test]
async fn a_reset_link_breaks_what_it_carries_and_soon_what_comes_new() {
    let echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let mut stream = connect(&link).await;
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    let number = link.set(LinkFault::Reset);
    is_reset(&mut stream).await;
    affected(&link, number).await;
    let (mut read, mut write) = connect(&link).await.into_split();
    let writing = tokio::spawn(async move { while write.write_all(&[7; 1_000]).await.is_ok() {} });
    let mut rest = Vec::new();
    // The kernel reports a reset once: to the reader or to the writer.
    let _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut rest)).await.expect("the end comes");
    assert!(rest.len() <= 2_000, "{} bytes came back", rest.len());
    tokio::time::timeout(PATIENCE, writing).await.expect("it breaks").expect("it does not panic");
    link.heal();
    let mut stream = connect(&link).await;
    say(&mut stream, "two").await;
    hear(&mut stream, "two").await;
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_afterwards_breaks_what_it_took_from() {
    let mut echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let (mut old, mut idle) = (connect(&link).await, connect(&link).await);
    for stream in [&mut old, &mut idle] {
        say(stream, "one").await;
        hear(stream, "one").await;
    }
    let number = link.set(LinkFault::BlackHole);
    say(&mut old, "two").await;
    affected(&link, number).await;
    let mut new = connect(&link).await;
    say(&mut new, "three").await;
    assert!(is_silent(&mut old).await && is_silent(&mut new).await);
    link.heal();
    is_reset(&mut old).await;
    is_reset(&mut new).await;
    say(&mut idle, "four").await;
    hear(&mut idle, "four").await;
    echo.has_heard(10).await;
}

#[tokio::test]
async fn of_a_half_open_link_one_way_works() {
    let mut echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let mut stream = connect(&link).await;
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    let number = link.set(LinkFault::HalfOpen(LinkDirection::ToEdge));
    say(&mut stream, "two").await;
    affected(&link, number).await;
    echo.has_heard(6).await;
    assert!(is_silent(&mut stream).await);
    link.heal();
    is_reset(&mut stream).await;

    let mut stream = connect(&link).await;
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    let number = link.set(LinkFault::HalfOpen(LinkDirection::ToServer));
    say(&mut stream, "three").await;
    affected(&link, number).await;
    assert!(is_silent(&mut stream).await);
    link.heal();
    is_reset(&mut stream).await;
    echo.has_heard(9).await;
}

#[tokio::test]
async fn a_link_that_refuses_breaks_what_it_carries_and_listens_again_when_it_heals() {
    let echo = Echo::start(NOWHERE).await;
    let link = link_at(HOST_THAT_REFUSES, echo.address).await;
    let mut stream = connect(&link).await;
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    let number = link.set(LinkFault::Refuse);
    is_reset(&mut stream).await;
    affected(&link, number).await;
    let refused = TcpStream::connect(link.address()).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    link.heal();
    let began = tokio::time::Instant::now();
    let mut stream = loop {
        match TcpStream::connect(link.address()).await {
            Ok(stream) => break stream,
            Err(_) => assert!(began.elapsed() < PATIENCE, "it listens again"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    say(&mut stream, "two").await;
    hear(&mut stream, "two").await;
}

#[tokio::test]
async fn a_link_outlives_its_server() {
    let mut echo = Echo::start(HOST_THAT_DIES).await;
    let link = link(echo.address).await;
    let mut stream = connect(&link).await;
    say(&mut stream, "one").await;
    hear(&mut stream, "one").await;
    echo.serving.abort();
    let _ = (&mut echo.serving).await;
    // Its connections end with it, and new ones are not possible.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end comes");
    is_reset(&mut connect(&link).await).await;
    let _echo = Echo::start(&echo.address.to_string()).await;
    let mut stream = connect(&link).await;
    say(&mut stream, "two").await;
    hear(&mut stream, "two").await;
}

#[tokio::test]
async fn what_arrives_at_the_server_is_notified_and_counted() {
    let echo = Echo::start(NOWHERE).await;
    let link = link(echo.address).await;
    let mut stream = connect(&link).await;
    let mut carried = Box::pin(link.carried());
    assert!(futures_util::FutureExt::now_or_never(carried.as_mut()).is_none());
    say(&mut stream, "events").await;
    tokio::time::timeout(PATIENCE, carried).await.expect("it is notified");
    hear(&mut stream, "events").await;
    assert_eq!(link.bytes_to_server(), 6);
}
