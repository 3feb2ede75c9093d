//! **Promise.** Who posts again under the same key gets the first answer, and nothing more is stored: while the first is being
//! written, while it waits, after it was delivered and deleted, after many more keys, and after a kill or a restart. The
//! same key for something else is refused. So a producer that never saw its answer may always post again.

use crate::common::http::send_bytes;
use crate::common::producer::Confirmed;
use crate::common::scale::by_scale;
use crate::common::{
    Answer, Edge, Http, Journal, NoAnswer, Server, assert_exactly_once, crowd, events_of, seeded, wait_until,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Each camera posts at least this many rounds: 12,000 posts in all, of which `./test --quick` makes 1,600.
fn rounds() -> usize {
    by_scale(2, 15, 25)
}

/// On a fast machine the cameras go on until this many kills and lost answers were met, for at most 50 times as many rounds.
fn met_least() -> u64 {
    by_scale(3, 12, 20)
}

const CAMERAS: usize = 16;
/// After this number of posts a camera posts all of them again.
const ROUND: usize = 50;
/// One of this number of posts is a batch.
const BATCH_EVERY: usize = 10;
/// When the edge is killed, in milliseconds after it was ready.
const LIVES_FOR_MS: std::ops::RangeInclusive<u64> = 50..=400;
const SOON: Duration = Duration::from_secs(30);
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

const EVENT: (&str, &str) = ("/v1/events", "application/json");
const BATCH: (&str, &str) = ("/v1/events/batch", "application/x-ndjson");

fn entry(plate: &str) -> String {
    format!(r#"{{"kind":"entry","plate":"{plate}"}}"#)
}

/// What a producer posts under one key: an event, or several as a batch.
struct Parcel {
    key: String,
    plates: Vec<String>,
}

impl Parcel {
    fn post(&self, http: &Http) -> Result<Answer, NoAnswer> {
        let lines: Vec<String> = self.plates.iter().map(|plate| entry(plate)).collect();
        let (path, content_type) = if self.plates.len() == 1 { EVENT } else { BATCH };
        http.post_with_key(path, content_type, &self.key, lines.join("\n").as_bytes())
    }

    fn confirmed(self, answer: &Answer) -> Confirmed {
        let answer = answer.json();
        let first = if self.plates.len() == 1 { &answer["sequence"] } else { &answer["first"] };
        Confirmed {
            epoch: answer["epoch"].as_str().unwrap().into(),
            first: first.as_u64().unwrap(),
            plates: self.plates,
        }
    }
}

/// What happened to all cameras so far.
#[derive(Default)]
struct Met {
    kills: AtomicU64,
    unanswered: AtomicU64,
}

impl Met {
    fn enough(&self) -> bool {
        [&self.kills, &self.unanswered].iter().all(|met| met.load(Ordering::Relaxed) >= met_least())
    }
}

/// A camera that posts until it sees an answer, as its maker was told to, and then all once more.
fn camera(edge: &crate::common::EdgeAddress, number: usize, seed: u64, met: &Met) -> Journal {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut journal = Journal::default();
    let until_answered = |parcel: &Parcel| loop {
        let Some(address) = edge.wait(Duration::from_millis(50)) else { continue };
        match parcel.post(&Http::new(address)) {
            Ok(answer) if answer.status == 201 => return answer,
            Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            Err(NoAnswer::Unknown(_)) => _ = met.unanswered.fetch_add(1, Ordering::Relaxed),
            Err(NoAnswer::NotSent(_)) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    for round in 0..50 * rounds() {
        if round >= rounds() && met.enough() {
            break;
        }
        let parcels = (0..ROUND).map(|n| {
            let n = round * ROUND + n;
            let size = if n.is_multiple_of(BATCH_EVERY) { rng.random_range(2..=200) } else { 1 };
            let plates = (0..size).map(|car| format!("C{number}N{n}X{car}")).collect();
            Parcel { key: format!("camera-{number}/{n}"), plates }
        });
        let posted: Vec<(Parcel, Answer)> =
            parcels.map(|p| (until_answered(&p), p)).map(|(a, p)| (p, a)).collect();
        for (parcel, first) in posted {
            let again = until_answered(&parcel);
            assert_eq!(again.body, first.body, "the second answer to {}", parcel.key);
            journal.confirmed.push(parcel.confirmed(&first));
        }
    }
    journal
}

#[test]
fn posts_each_made_twice_through_kills_are_found_once() {
    let (mut rng, dir) = (seeded(), tempfile::tempdir().unwrap());
    let server = Server::start(&dir.path().join("server"), &[]);
    let mut edge =
        Edge::start(&dir.path().join("edge"), "a", &[server.address()], &["--board-interval-ms", "100"]);
    let address = edge.address();
    let began = Instant::now();
    let (met, mut journals) = (Met::default(), Vec::new());
    std::thread::scope(|scope| {
        let cameras: Vec<_> = (0..CAMERAS)
            .map(|number| {
                let (address, seed, met) = (address.clone(), rng.random(), &met);
                scope.spawn(move || camera(&address, number, seed, met))
            })
            .collect();
        while cameras.iter().any(|camera| !camera.is_finished()) {
            std::thread::sleep(Duration::from_millis(rng.random_range(LIVES_FOR_MS)));
            edge.kill();
            edge.restart();
            met.kills.fetch_add(1, Ordering::Relaxed);
        }
        for camera in cameras {
            journals.push(camera.join().expect("a camera met an answer that it should not"));
        }
    });
    let events: u64 = journals.iter().map(Journal::confirmed_events).sum();
    let posts: usize = journals.iter().map(|journal| journal.confirmed.len()).sum();
    println!(
        "{posts} posts with {events} events, each made twice in {:.1?} through {:?} kills; {:?} answers never came",
        began.elapsed(),
        met.kills,
        met.unanswered
    );
    assert!(met.enough(), "the kills met nothing: the test proves nothing");
    wait_until("everything is delivered", SETTLE_WITHIN, &[&edge, &server], || edge.depth() == 0);
    // No unknown posts and none refused: every event is there once, and nothing else.
    assert_exactly_once(&events_of(&server, "a"), &journals);
    assert_eq!(edge.http().get_json("/v1/outbox")["keys_remembered"], posts);
    server.verifies();
    edge.assert_sound();
}

#[test]
fn a_key_is_known_after_many_more_and_after_its_event_was_delivered_and_deleted() {
    let more_keys: u64 = by_scale(5_000, 100_000, 100_000);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let parcels = || {
        let one = Parcel { key: "first-event".into(), plates: vec!["KAONE".into()] };
        let batch =
            Parcel { key: "first-batch".into(), plates: (0..150).map(|n| format!("KB{n}")).collect() };
        [one, batch]
    };
    let first = parcels().map(|parcel| parcel.post(&edge.http()).unwrap());
    assert!(first.iter().all(|answer| answer.status == 201), "{first:?}");
    let known = |edge: &Edge, when: &str| {
        for (parcel, first) in parcels().iter().zip(&first) {
            let again = parcel.post(&edge.http()).unwrap();
            assert_eq!((again.status, &again.body), (201, &first.body), "{} {when}", parcel.key);
        }
        let other = Parcel { key: "first-event".into(), plates: vec!["KATWO".into()] };
        other.post(&edge.http()).unwrap().problem(422);
    };
    known(&edge, "at once");
    wait_until("they are delivered", SOON, &[&edge, &server], || edge.depth() == 0);
    known(&edge, "after they were delivered");
    server.kill();
    let posting = Instant::now();
    crowd::each(&edge, 0..more_keys, |http, number| {
        let answer = crowd::post_numbered(http, number);
        assert_eq!(answer.status, 201, "{answer:?}");
    });
    println!("{more_keys} more keys posted in {:.1?}", posting.elapsed());
    known(&edge, "after many more that wait");
    edge.kill();
    edge.restart();
    known(&edge, "after a kill");
    server.restart();
    wait_until("all are delivered", SETTLE_WITHIN, &[&edge, &server], || edge.depth() == 0);
    known(&edge, "after many more that were delivered");
    assert_eq!(crowd::post_numbered(&edge.http(), 7).status, 201);
    assert_eq!(edge.stop().0, Some(0));
    edge.restart();
    known(&edge, "after a clean restart");
    assert_eq!(edge.http().get_json("/v1/outbox")["keys_remembered"], more_keys + 2);
    wait_until("nothing more came", SOON, &[&edge, &server], || edge.depth() == 0);
    assert_eq!(server.applied_of("a"), more_keys + 151);
    server.verifies();
    edge.assert_sound();
}

#[test]
fn the_same_key_for_something_else_is_refused_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let edge = Edge::start(&dir.path().join("edge"), "a", &nowhere, &[]);
    let http = edge.http();
    let post = |(path, content_type): (&str, &str), key: &str, body: &str| {
        http.post_with_key(path, content_type, key, body.as_bytes()).unwrap()
    };
    let first = post(EVENT, "k", &entry("KA1"));
    assert_eq!(first.status, 201, "{first:?}");
    for (what, body) in [
        (EVENT, entry("KA2")),
        (EVENT, entry("KA1").replace("entry", "exit")),
        (EVENT, format!("{} ", entry("KA1"))),
        // As a batch the same bytes have another answer.
        (BATCH, entry("KA1")),
        (BATCH, format!("{}\n{}", entry("KA1"), entry("KA2"))),
    ] {
        let detail = post(what, "k", &body).problem(422);
        assert!(detail.contains("othing was stored"), "{detail}");
    }
    let batch = post(BATCH, "b", &entry("KA3"));
    assert_eq!(batch.status, 201, "{batch:?}");
    post(EVENT, "b", &entry("KA3")).problem(422);
    assert_eq!(post(BATCH, "b", &entry("KA3")).body, batch.body);
    assert_eq!(post(EVENT, "k", &entry("KA1")).body, first.body, "the refusals changed nothing");
    // What is no event says so, whatever its key.
    post(EVENT, "k", "{}").problem(400);
    assert_eq!(edge.depth(), 2);
    assert_eq!(http.get_json("/v1/board")["own"]["pending"], 2, "what is posted again is counted once");
}

#[test]
fn a_key_is_one_to_255_visible_ascii_characters() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let edge = Edge::start(&dir.path().join("edge"), "a", &nowhere, &[]);
    let address = edge.address().get().unwrap();
    let post = |headers: &[&[u8]], (path, content_type): (&str, &str)| {
        let body = entry("KA1");
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        )
        .into_bytes();
        for key in headers {
            bytes.extend([b"Idempotency-Key: ", *key, b"\r\n"].concat());
        }
        bytes.extend([b"\r\n", body.as_bytes()].concat());
        send_bytes(address, &bytes).expect("every request is answered")
    };
    let (longest, too_long) = ([b'~'; 255], [b'~'; 256]);
    let bad: [&[&[u8]]; 8] = [
        &[b""],
        &[&too_long],
        &["schlüssel".as_bytes()],
        &[b"latin-\xfc"],
        &[b"two words"],
        &[b"a tab\tin it"],
        &[b"one", b"two"],
        &[b"one", b"one"],
    ];
    for headers in bad {
        for what in [EVENT, BATCH] {
            let detail = post(headers, what).problem(400);
            assert!(detail.contains("Idempotency-Key") && detail.contains("othing was stored"), "{detail}");
        }
    }
    assert_eq!(edge.depth(), 0);
    let all_visible: Vec<u8> = (b'!'..=b'~').collect();
    for (stored, key) in [&longest[..], b"!", &all_visible].into_iter().enumerate() {
        let first = post(&[key], EVENT);
        assert_eq!(first.status, 201, "{first:?}");
        assert_eq!(post(&[key], EVENT).body, first.body);
        assert_eq!(edge.depth(), stored as u64 + 1);
    }
}

#[test]
fn posts_of_one_key_at_the_same_moment_get_the_answer_of_one() {
    const TOGETHER: usize = 8;
    const ROUNDS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let edge = Edge::start(&dir.path().join("edge"), "a", &nowhere, &[]);
    let start = Barrier::new(TOGETHER);
    let answers: Vec<Vec<String>> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..TOGETHER)
            .map(|_| {
                let (http, start) = (edge.http(), &start);
                scope.spawn(move || {
                    let post = |round: usize| {
                        start.wait();
                        let plates = (0..=round % 3).map(|car| format!("KA{round}X{car}")).collect();
                        let answer = Parcel { key: format!("key-{round}"), plates }.post(&http).unwrap();
                        assert_eq!(answer.status, 201, "{answer:?}");
                        answer.body
                    };
                    (0..ROUNDS).map(post).collect()
                })
            })
            .collect();
        producers.into_iter().map(|producer| producer.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|of_one| *of_one == answers[0]));
    let events: usize = (0..ROUNDS).map(|round| round % 3 + 1).sum();
    assert_eq!(edge.depth(), events as u64);
    assert_eq!(edge.http().get_json("/v1/board")["own"]["pending"], events);
}
