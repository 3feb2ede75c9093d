//! A camera at the gate of a garage.

use super::daemon::EdgeAddress;
use super::http::{Http, NoAnswer};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Plates that were posted together, and the answer to them.
#[derive(Debug, Clone)]
pub struct Confirmed {
    pub epoch: String,
    pub first: u64,
    pub plates: Vec<String>,
}

/// What became of everything that was posted.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Answered 201.
    pub confirmed: Vec<Confirmed>,
    /// The answer never came: all of these plates are stored together, or none.
    pub unknown: Vec<Vec<String>>,
    /// The answer was an error, or nobody listened: not stored.
    pub refused: Vec<Vec<String>>,
}

impl Journal {
    pub fn confirmed_events(&self) -> u64 {
        self.confirmed.iter().map(|confirmed| confirmed.plates.len() as u64).sum()
    }

    /// Posts an entry for each plate, one alone as an event and several as a batch, and writes down what came back.
    pub fn post_entries(&mut self, http: &Http, plates: Vec<String>) {
        self.post_long_entries(http, plates, 0);
    }

    /// The same with `extra` bytes, 0 to 256, in each event.
    pub fn post_long_entries(&mut self, http: &Http, plates: Vec<String>, extra: usize) {
        let entry = |plate: &String| match extra {
            0 => json!({"kind": "entry", "plate": plate}),
            extra => json!({"kind": "entry", "plate": plate, "camera": "x".repeat(extra)}),
        };
        let answer = match plates.as_slice() {
            [plate] => http.post_event(&entry(plate)),
            plates => {
                let lines: Vec<String> = plates.iter().map(|plate| entry(plate).to_string()).collect();
                http.post_batch(&lines.join("\n"))
            }
        };
        match answer {
            Ok(answer) if answer.status == 201 => {
                let body = answer.json();
                let first = if plates.len() == 1 { &body["sequence"] } else { &body["first"] };
                let first = first.as_u64().unwrap_or_else(|| panic!("{answer:?}"));
                if plates.len() > 1 {
                    assert_eq!(body["last"].as_u64(), Some(first + plates.len() as u64 - 1), "{answer:?}");
                }
                let epoch = body["epoch"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
                self.confirmed.push(Confirmed { epoch, first, plates });
            }
            Ok(answer) if answer.body.contains("othing was stored") => {
                self.refused.push(plates);
            }
            Ok(answer) if answer.status < 500 => panic!("a good event was refused: {answer:?}"),
            Ok(_) | Err(NoAnswer::Unknown(_)) => self.unknown.push(plates),
            Err(NoAnswer::NotSent(_)) => self.refused.push(plates),
        }
    }
}

/// Posts entries of unique plates, as fast as it can, until it is stopped.
pub struct Producer {
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicU64>,
    thread: Option<JoinHandle<Journal>>,
}

impl Producer {
    /// Plates begin with `prefix`, which no other producer may have. `sizes` is walked round: 1 posts one event, more
    /// post a batch of this size.
    pub fn start(edge: EdgeAddress, prefix: &str, sizes: &[usize]) -> Producer {
        Producer::start_long(edge, prefix, sizes, 0)
    }

    /// The same, but with pauses, so that it does not post more than `events_per_s` events a second: a test that waits for something
    /// else all the while would have millions to compare, and a fast machine more than a slow one.
    pub fn start_paced(
        edge: EdgeAddress,
        prefix: &str,
        sizes: &[usize],
        extra: usize,
        events_per_s: f64,
    ) -> Producer {
        Producer::start_as(edge, prefix, sizes, extra, Some(events_per_s))
    }

    /// The same with `extra` bytes, 0 to 256, in each event.
    pub fn start_long(edge: EdgeAddress, prefix: &str, sizes: &[usize], extra: usize) -> Producer {
        Producer::start_as(edge, prefix, sizes, extra, None)
    }

    fn start_as(
        edge: EdgeAddress,
        prefix: &str,
        sizes: &[usize],
        extra: usize,
        events_per_s: Option<f64>,
    ) -> Producer {
        let stop = Arc::new(AtomicBool::new(false));
        let confirmed = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&confirmed));
        let (prefix, sizes) = (prefix.to_owned(), sizes.to_vec());
        let thread = std::thread::spawn(move || {
            let mut journal = Journal::default();
            let mut clients: BTreeMap<SocketAddr, Http> = BTreeMap::new();
            let mut sizes = sizes.into_iter().cycle();
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                let Some(address) = edge.wait(Duration::from_millis(50)) else {
                    continue;
                };
                if !clients.contains_key(&address) {
                    clients = BTreeMap::from([(address, Http::new(address))]);
                }
                let size = sizes.next().expect("there is a size");
                let plates = (number..number + size).map(|n| format!("{prefix}{n}")).collect();
                number += size;
                let (refused_before, began) = (journal.refused.len(), Instant::now());
                journal.post_long_entries(&clients[&address], plates, extra);
                counter.store(journal.confirmed_events(), Ordering::Relaxed);
                if journal.refused.len() > refused_before {
                    // It was killed a moment ago: no need to knock without a pause.
                    std::thread::sleep(Duration::from_millis(1));
                }
                if let Some(events_per_s) = events_per_s {
                    let pause = Duration::from_secs_f64(size as f64 / events_per_s);
                    std::thread::sleep(pause.saturating_sub(began.elapsed()));
                }
            }
            journal
        });
        Producer { stop, confirmed, thread: Some(thread) }
    }

    /// How many events were answered 201 so far.
    pub fn confirmed_events(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Stops it and gives what it wrote down.
    pub fn finish(mut self) -> Journal {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().expect("the producer met an answer that it should not")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
