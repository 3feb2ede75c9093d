//! The requests that wait for the serving thread: whose turn it is, and who has to come back later.
//!
//! **Promise.** However much peers send, what waits stays within [`COUNT_MAX`] and [`BYTES_MAX`]. Garages take turns, one request
//! each, and the requests of a garage stay in their order. A garage that was sent away comes before those that were not, so each one
//! that keeps coming back is served.
//! **Kept by.** When there is too much, the garage with the most requests loses its newest one. Among equals that is the garage that was
//! sent away the least often since it was last served, and of those the one that came last.
//! **Not promised.** Fairness between peers that use one garage's name, which without TLS anybody can.

use crate::messaging::SiteName;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The maximum number of requests that wait: one of each connection.
pub const COUNT_MAX: usize = 2048;
/// The maximum number of bytes of all requests that wait: the whole windows of a hundred garages that deliver backlogs. Who is sent away
/// comes back after 2 s at the least, which is longer than it takes to serve all of this.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// The maximum number of garages of which it is remembered that they were sent away. Beyond it, all are forgotten.
const SENT_AWAY_MAX: usize = 4096;
/// What a request costs beside its bytes, in bytes that take as long.
const REQUEST_COST: usize = 1024;
/// The limits of what a garage is asked to wait before it comes back.
const PAUSE_LEAST_MS: f64 = 100.0;
const PAUSE_MOST_MS: f64 = 10_000.0;

#[derive(Debug)]
pub struct Turns<T> {
    garages: HashMap<SiteName, GarageQueue<T>>,
    /// Each garage that has something waiting, in the order of their turns.
    order: VecDeque<SiteName>,
    count: usize,
    bytes: usize,
    /// How often a garage was sent away with nothing left waiting, since it was last served.
    sent_away: HashMap<SiteName, u32>,
    /// How many garages ever began to wait.
    begun: u64,
    /// What was served, in cost and seconds; what is longer ago counts less.
    served: (f64, f64),
}

#[derive(Debug)]
struct GarageQueue<T> {
    /// Oldest first, each with its length in bytes.
    requests: VecDeque<(T, usize)>,
    sent_away: u32,
    /// Garages that began to wait later have a higher number.
    begun: u64,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        let (garages, order, sent_away) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Turns { garages, order, count: 0, bytes: 0, sent_away, begun: 0, served: (0.0, 0.0) }
    }
}

impl<T> Turns<T> {
    /// Takes a request of `length` bytes, and returns the requests that have to come back later, this one perhaps among them.
    pub fn add(&mut self, garage: &SiteName, request: T, length: usize) -> Vec<T> {
        self.count += 1;
        self.bytes += length;
        let queue = self.garages.entry(garage.clone()).or_insert_with(|| {
            self.order.push_back(garage.clone());
            self.begun += 1;
            let sent_away = self.sent_away.get(garage).copied().unwrap_or_default();
            GarageQueue { requests: VecDeque::new(), sent_away, begun: self.begun }
        });
        queue.requests.push_back((request, length));
        let mut leaving = Vec::new();
        while self.count > COUNT_MAX || self.bytes > BYTES_MAX {
            leaving.extend(self.send_one_away());
        }
        leaving
    }

    /// The request whose turn it is. Afterwards it is the turn of the next garage.
    pub fn next(&mut self) -> Option<T> {
        let garage = self.order.pop_front()?;
        let queue = self.garages.get_mut(&garage)?;
        let (request, length) = queue.requests.pop_front()?;
        self.count -= 1;
        self.bytes -= length;
        self.sent_away.remove(&garage);
        queue.sent_away = 0;
        if queue.requests.is_empty() {
            self.garages.remove(&garage);
        } else {
            self.order.push_back(garage);
        }
        Some(request)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes how long it took to serve requests of this number of bytes together.
    pub fn served(&mut self, count: usize, bytes: usize, took: Duration) {
        let (cost, seconds) = self.served;
        self.served = (cost * 0.875 + cost_of(count, bytes), seconds * 0.875 + took.as_secs_f64());
    }

    /// How long it will take to serve what waits, in milliseconds: until then nobody needs to come back.
    pub fn pause_ms(&self) -> u32 {
        let (cost, seconds) = self.served;
        let all = if cost > 0.0 { cost_of(self.count, self.bytes) * seconds / cost } else { 0.0 };
        (all * 1000.0).clamp(PAUSE_LEAST_MS, PAUSE_MOST_MS).ceil() as u32
    }

    fn send_one_away(&mut self) -> Option<T> {
        let waiting = self.garages.iter();
        let (garage, _) =
            waiting.max_by_key(|(_, queue)| (queue.requests.len(), Reverse(queue.sent_away), queue.begun))?;
        let garage = garage.clone();
        let queue = self.garages.get_mut(&garage)?;
        let (request, length) = queue.requests.pop_back()?;
        self.count -= 1;
        self.bytes -= length;
        if queue.requests.is_empty() {
            self.garages.remove(&garage);
            self.order.retain(|waiting| *waiting != garage);
            if self.sent_away.len() >= SENT_AWAY_MAX {
                self.sent_away.clear();
            }
            let times = self.sent_away.entry(garage).or_default();
            *times = times.saturating_add(1);
        }
        Some(request)
    }
}

fn cost_of(count: usize, bytes: usize) -> f64 {
    (count * REQUEST_COST + bytes) as f64
}

#[cfg(test)]
mod tests;
