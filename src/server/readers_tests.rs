//! Tests that readers do not wait for records to be applied, and that each answer shows one position.

use super::alarms::{self, Alarms};
use super::applying::{LiveViews, apply_until_stopped};
use super::boards::Boards;
use super::ledger::Ledger;
use super::view::View;
use super::view::tests::{apply_to_each, event};
use super::web::ServerWeb;
use crate::config::{HttpConfig, LiveGarages};
use crate::daemon::doors::Doors;
use crate::http::metrics::{ConnectionMetrics, Metrics};
use crate::http::{ConnectionLimits, Connections};
use crate::messaging::SiteName;
use crate::parking::BoardAnswer;
use crate::parking::board::{BoardPart, GatheredBoard};
use crate::store::simulated::Disk;
use crate::store::{Backend, Entries, Entry, Purpose, Store, Write, salvage};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const ENOUGH: Duration = Duration::from_secs(30);

/// A latch: a thread that comes to it while it is shut waits, and can be seen waiting.
#[derive(Clone, Default)]
struct Latch(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Latch {
    fn shut(&self) {
        self.0.0.lock().unwrap().0 = true;
    }

    fn open(&self) {
        self.0.0.lock().unwrap().0 = false;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        if state.0 {
            state.1 = true;
            self.0.1.notify_all();
        }
        drop(self.0.1.wait_while(state, |state| state.0).unwrap());
    }

    fn until_somebody_waits(&self) {
        let state = self.0.0.lock().unwrap();
        let (state, _) = self.0.1.wait_timeout_while(state, ENOUGH, |state| !state.1).unwrap();
        assert!(state.1, "the step came to the latch");
    }
}

/// A disk that is read through a latch.
struct Latched(Disk, Latch);

impl Backend for Latched {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.1.pass();
        self.0.get(key)
    }
    fn apply(&self, writes: &[Write<'_>]) -> io::Result<()> {
        self.0.apply(writes)
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a> {
        self.0.range(from, to)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>> {
        self.0.last(from, to)
    }
}

/// A ledger, the thread that applies its records, and those who answer from its views.
struct Town {
    ledger: Ledger,
    live: Arc<LiveViews>,
    latch: Latch,
    applying: Option<std::thread::JoinHandle<()>>,
}

impl Town {
    fn new() -> Town {
        let disk = Disk::default();
        let ledger = Ledger::open(Store::on(disk.clone())).unwrap();
        let (live, latch) = (Arc::new(LiveViews::default()), Latch::default());
        let views = Store::on(Latched(disk, latch.clone()));
        let applying = {
            let (ledger, live) = (ledger.clone(), Arc::clone(&live));
            std::thread::spawn(move || {
                apply_until_stopped(&ledger, &views, View::default(), &live).unwrap();
            })
        };
        Town { ledger, live, latch, applying: Some(applying) }
    }

    /// One event, which is one record of the ledger.
    fn tell(&self, garage: &str, kind: &str, plate: &str) {
        let event = event(&format!(r#"{{"kind":"{kind}","plate":"{plate}"}}"#));
        apply_to_each(&self.ledger, std::iter::once(garage), &[event]);
        self.live.grown_to(self.ledger.position());
    }

    async fn caught_up(&self) {
        let caught_up = self.live.applied_to(self.ledger.position());
        tokio::time::timeout(ENOUGH, caught_up).await.expect("records are applied");
    }

    /// Serves HTTP; gives where, and what must live as long.
    async fn serve(&self) -> (SocketAddr, CancellationToken, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let room = salvage::open_store(dir.path(), Purpose::Server, None, &|_, _| Ok(())).unwrap().room;
        let (live, mut metrics) = (Arc::clone(&self.live), Metrics::new("test"));
        let nobody = alarms::open_receivers(&[]).unwrap();
        let of_ledger = (self.ledger.id(), Arc::clone(&self.live));
        let path = dir.path().to_owned();
        let alarms = Alarms::open(path, of_ledger, <_>::default(), nobody, &mut metrics);
        let open_to_all = HttpConfig {
            hosts: Vec::new(),
            is_local: true,
            tokens: dir.path().join("tokens.toml"),
            tls: None,
            public_board: false,
        };
        let doors = Arc::new(Doors::open(&open_to_all, "server", None).unwrap());
        let web = ServerWeb::new(
            self.ledger.clone(),
            live,
            (Arc::default(), alarms),
            room,
            <_>::default(),
            (None, doors),
            metrics,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(crate::http::serve(
            Default::default(),
            listener,
            web.router(),
            stop.clone(),
            Connections::new(ConnectionLimits::default(), ConnectionMetrics::default()),
        ));
        (address, stop, dir)
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        self.latch.open();
        self.live.stop();
        if let Some(applying) = self.applying.take() {
            let _ = applying.join();
        }
    }
}

/// The body of an answer with 200.
async fn get(address: SocketAddr, path: &str) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(ENOUGH, ask).await.unwrap_or_else(|_| panic!("{path} is not answered"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}

async fn json(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&get(address, path).await).unwrap()
}

/// While a record was applied, such as the pricing of 4,096 stays, it held a lock that each handler and the thread that serves
/// edges took: HTTP, health and messaging stood still. Here the step stands still until everybody was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_answered_while_the_applying_of_a_record_stands_still() {
    let town = Town::new();
    let (address, _stop, _dir) = town.serve().await;
    town.tell("a", "entry", "AB1");
    town.caught_up().await;

    town.latch.shut();
    // An exit without an entry is noted under what was noted before, which is read.
    town.tell("b", "exit", "AB2");
    town.latch.until_somebody_waits();

    for path in ["/healthz", "/readyz", "/metrics"] {
        get(address, path).await;
    }
    let occupancy = json(address, "/v1/occupancy").await;
    assert_eq!((&occupancy["version"], occupancy["garages"].as_array().unwrap().len()), (&1.into(), 1));
    let garages = json(address, "/v1/garages").await;
    let names: Vec<_> =
        garages["garages"].as_array().unwrap().iter().map(|its| its["name"].clone()).collect();
    assert_eq!(names, ["a", "b"], "the ledger knows one that the views do not know yet");
    assert_eq!(json(address, "/v1/garages/a").await["position"], 1);
    for path in ["/v1/stays", "/v1/charges", "/v1/anomalies", "/v1/quarantine", "/v1/damages", "/v1/events"] {
        json(address, path).await;
    }
    let mut boards = Boards::new(Arc::clone(&town.live), LiveGarages::default(), town.ledger.id(), 1);
    let question = GatheredBoard::default().question().to_bytes();
    let answer = boards.answer(&SiteName::new("a").unwrap(), &question).unwrap();
    let part = BoardPart::from_bytes(&BoardAnswer::from_bytes(&answer).unwrap().part).unwrap();
    assert_eq!((part.upto.position, part.garages.len()), (1, 1));
    // What comes meanwhile is applied.
    town.tell("a", "entry", "AB3");
    assert_eq!(town.ledger.position(), 3);

    town.latch.open();
    town.caught_up().await;
    let occupancy = json(address, "/v1/occupancy").await;
    assert_eq!((&occupancy["version"], &occupancy["garages"][0]["occupied"]), (&3.into(), &2.into()));
}

/// An operator's command is judged by the views themselves, between two records, and gets no answer once the applying thread has ended.
#[tokio::test]
async fn a_question_to_the_views_is_answered_between_two_records_or_never() {
    let town = Town::new();
    town.tell("a", "entry", "AB1");
    town.caught_up().await;
    assert_eq!(town.live.ask(|view| view.garages.size()).await, Some(1));
    let broke_off: Option<()> = town.live.ask(|_| panic!("as sled does over damage")).await;
    assert_eq!(broke_off, None);
    assert_eq!(town.live.ask(|view| view.position).await, Some(1), "it goes on");
    let live = Arc::clone(&town.live);
    drop(town);
    assert_eq!(live.ask(|view| view.position).await, None);
}

/// Each record of this ledger is one car that enters, so that an answer's position says how many cars it must show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_an_answer_shows_is_of_the_position_that_it_names() {
    const CARS: u64 = 900;
    let town = Arc::new(Town::new());
    let (address, _stop, _dir) = town.serve().await;
    let telling = {
        let town = Arc::clone(&town);
        std::thread::spawn(move || {
            for n in 0..CARS {
                town.tell(&format!("g{}", n % 7), "entry", &format!("AB{n}"));
            }
        })
    };
    // The views are written as often as can be.
    let saving = {
        let town = Arc::clone(&town);
        tokio::spawn(async move {
            for position in 1..=CARS {
                town.live.applied_to(position).await;
                town.live.saved_to(position).await;
            }
        })
    };
    let mut last = 0;
    while last < CARS {
        let occupancy = json(address, "/v1/occupancy").await;
        let cars: i64 = occupancy["garages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|its| its["occupied"].as_i64().unwrap())
            .sum();
        assert_eq!(occupancy["version"], cars);
        let garages = json(address, "/v1/garages").await;
        let garages = garages["garages"].as_array().unwrap();
        let events: u64 = garages.iter().map(|its| its["events"].as_u64().unwrap()).sum();
        let known = garages.iter().filter(|its| its["events"] != 0);
        assert!(known.clone().all(|its| its["position"] == events), "{garages:?}");
        let stays = json(address, "/v1/stays?limit=1000").await;
        assert_eq!(stays["position"], stays["stays"].as_array().unwrap().len());
        let open = json(address, "/v1/stays?state=open&limit=1000").await;
        assert_eq!(open["position"], open["stays"].as_array().unwrap().len());
        last = open["position"].as_u64().unwrap();
    }
    telling.join().unwrap();
    saving.await.unwrap();
}
