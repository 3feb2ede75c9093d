//! Many producers that post at the same time, for tests that need many posts soon.

use super::daemon::Edge;
use super::http::{Answer, Http};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many post at the same time: one flush makes all of them durable.
const PRODUCERS: usize = 64;
/// The longest batch that an edge takes.
const BATCH: u64 = 10_000;

/// Calls `post` once for each of `numbers`, by many threads, each with a client of its own.
pub fn each(edge: &Edge, numbers: std::ops::Range<u64>, post: impl Fn(&Http, u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            let http = edge.http();
            let (next, post, end) = (&next, &post, numbers.end);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    post(&http, number);
                }
            });
        }
    });
}

/// Posts the entry of one car under a key. Both are told by the number.
pub fn post_numbered(http: &Http, number: u64) -> Answer {
    let body = format!(r#"{{"kind":"entry","plate":"KA{number}"}}"#);
    let answer =
        http.post_with_key("/v1/events", "application/json", &format!("car-{number}"), body.as_bytes());
    answer.unwrap_or_else(|error| panic!("car {number}: {error:?}"))
}

/// Posts this number of entries in the largest batches, plates counted on from `numbers.start`. Their number must be even tens of
/// thousands.
pub fn post_batches(edge: &Edge, numbers: std::ops::Range<u64>) {
    assert_eq!((numbers.end - numbers.start) % BATCH, 0);
    let http = edge.http();
    for first in numbers.step_by(BATCH as usize) {
        let lines = (first..first + BATCH).map(|n| format!("{{\"kind\":\"entry\",\"plate\":\"KA{n}\"}}\n"));
        let answer = http.post_batch(&lines.collect::<String>()).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}
