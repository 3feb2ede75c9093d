//! What the server observes about garages while it serves them. This is not a view, and is lost at a restart.
//!
//! **Promise.** Whatever peers report, memory is used only for the garages whose events were applied, and for at most
//! [`UNKNOWN_SITES_MAX`] others: the one that was silent for longest is forgotten first.

use crate::codes;
use crate::daemon::clock::SKEW_ALARM;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Observation;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub heard_at_ms: i64,
    /// The same by a clock that nobody sets.
    pub heard: Option<Instant>,
    pub observation: Option<Observation>,
    pub duplicates_refused: u64,
    pub conflicts: u64,
    /// The epoch and sequence from which its pages are in conflict, while they are.
    pub in_conflict_at: Option<(Epoch, u64)>,
    pub refused: Option<String>,
    /// Clock offset: its wall clock minus ours, by its last request that was not in doubt.
    pub clock_ahead_ms: Option<i64>,
    /// The requests in a row that said that its clock is behind: when the first one came, and their number.
    behind: Option<(Instant, u32)>,
    /// The processes that sent requests under this name, in the order in which they were first heard.
    instances: Vec<Instance>,
    requests: u64,
    /// When two of the processes were last seen to send by turns.
    two_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Instance {
    id: u64,
    request_no: u64,
    /// When it first, and when it last, sent again after a younger process had.
    back: Option<(Instant, Instant)>,
}

/// The maximum number of processes of a site that are distinguished.
const INSTANCES_MAX: usize = 4;
/// For how long two edges under one name are an alarm after they were last seen to send by turns.
const TWO_EDGES_FOR: Duration = Duration::from_secs(60);
/// For how long an older process must come back after younger ones. What a killed one had sent may arrive late, but at once.
const BY_TURNS_FOR: Duration = Duration::from_secs(5);
/// A clock that differs by more than this is an alarm.
pub const SKEW_ALARM_MS: i64 = SKEW_ALARM.as_millis() as i64;
/// For how long, and in how many requests, a clock must seem to be behind. A request that waited somewhere looks so, and others
/// with it; none can look as if the clock were ahead.
const BEHIND_FOR: Duration = Duration::from_secs(3);
const BEHIND_TIMES: u32 = 3;

impl Seen {
    pub fn two_edges(&self) -> bool {
        self.two_at.is_some_and(|at| at.elapsed() < TWO_EDGES_FOR)
    }

    /// Counts a request of a process. Returns true the first time two live edges are detected.
    ///
    /// A process that was started in the place of another sends as the younger one from then on. Only two live ones both go on:
    /// the older one comes back after the younger, again and again.
    pub fn request_came(&mut self, id: u64, now: Instant) -> bool {
        self.requests += 1;
        let request_no = self.requests;
        let Some(index) = self.instances.iter().position(|instance| instance.id == id) else {
            if self.instances.len() == INSTANCES_MAX {
                let silent = (0..INSTANCES_MAX).min_by_key(|index| self.instances[*index].request_no);
                self.instances.remove(silent.expect("there are some"));
            }
            self.instances.push(Instance { id, request_no, back: None });
            return false;
        };
        let (older, younger) = self.instances.split_at_mut(index + 1);
        let instance = older.last_mut().expect("it is among them");
        let came_back = younger.iter().any(|younger| younger.request_no > instance.request_no);
        instance.request_no = request_no;
        if !came_back {
            return false;
        }
        let since = match instance.back {
            Some((since, last)) if now.saturating_duration_since(last) < TWO_EDGES_FOR => since,
            _ => now,
        };
        instance.back = Some((since, now));
        if now.saturating_duration_since(since) < BY_TURNS_FOR {
            return false;
        }
        let news = !self.two_edges();
        self.two_at = Some(now);
        news
    }

    /// Compares the site's wall clock with ours, and logs when they begin or cease to differ.
    pub fn watch_clock(&mut self, ahead_ms: i64, now: Instant) {
        if ahead_ms < -SKEW_ALARM_MS {
            let (since, times) = self.behind.get_or_insert((now, 0));
            *times = times.saturating_add(1);
            if *times < BEHIND_TIMES || now.saturating_duration_since(*since) < BEHIND_FOR {
                return;
            }
        } else {
            self.behind = None;
        }
        let skewed = |ahead_ms: i64| ahead_ms.saturating_abs() > SKEW_ALARM_MS;
        let before = self.clock_ahead_ms.replace(ahead_ms).is_some_and(skewed);
        if skewed(ahead_ms) && !before {
            tracing::error!(
                code = %codes::CLOCKS_DIFFER,
                ahead_seconds = ahead_ms / 1000,
                hint = "check NTP on both; events keep the garage's time, and the time of their arrival beside it",
                "the clocks of this garage and of this server differ"
            );
        } else if !skewed(ahead_ms) && before {
            tracing::info!("the clocks of this garage and of this server agree again");
        }
    }

    /// What a person at the garage should know.
    pub fn notice(&self) -> Option<String> {
        self.two_edges().then(|| {
            "another edge uses this garage's name at the same time. Both are served, and their events add up; give one of them a name and a data directory of its own".into()
        })
    }
}

/// The maximum number of garages that are remembered although no event of them was applied.
pub const UNKNOWN_SITES_MAX: usize = 1_000;

/// The garages that report something and have no applied event, each with the number of its last request among all of theirs.
#[derive(Debug, Default)]
pub struct UnknownSites {
    last_heard: HashMap<SiteName, u64>,
    next: u64,
}

impl UnknownSites {
    /// Remembers one of them. Returns the one to forget for it if there are too many.
    pub fn heard(&mut self, site: &SiteName) -> Option<SiteName> {
        self.last_heard.insert(site.clone(), self.next);
        self.next += 1;
        if self.last_heard.len() <= UNKNOWN_SITES_MAX {
            return None;
        }
        let silent = self.last_heard.iter().min_by_key(|(_, heard)| **heard)?.0.clone();
        self.last_heard.remove(&silent);
        Some(silent)
    }

    pub fn forget(&mut self, site: &SiteName) {
        self.last_heard.remove(site);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_unknown_sites_the_one_that_was_silent_for_longest_is_forgotten() {
        let name = |n: usize| SiteName::new(&format!("s{n}")).unwrap();
        let mut unknown = UnknownSites::default();
        for n in 0..UNKNOWN_SITES_MAX {
            assert_eq!(unknown.heard(&name(n)), None);
        }
        assert_eq!(unknown.heard(&name(0)), None, "it is one of them");
        assert_eq!(unknown.heard(&name(5000)), Some(name(1)));
        unknown.forget(&name(2));
        assert_eq!(unknown.heard(&name(5001)), None);
        assert_eq!(unknown.heard(&name(5002)), Some(name(3)));
        for n in 0..10_000 {
            unknown.heard(&name(10_000 + n));
        }
        assert_eq!(unknown.last_heard.len(), UNKNOWN_SITES_MAX);
    }

    /// The millisecond at which two edges are detected, when these instances send at these milliseconds.
    fn two_edges_at(requests: &[(u64, u64)]) -> Option<u64> {
        let began = Instant::now();
        let mut seen = Seen::default();
        requests
            .iter()
            .find(|(at, instance)| seen.request_came(*instance, began + Duration::from_millis(*at)))
            .map(|(at, _)| *at)
    }

    #[test]
    fn two_live_edges_are_seen_within_seconds() {
        let by_turns: Vec<_> = (0..100).map(|n| (n * 500, n % 2)).collect();
        assert_eq!(two_edges_at(&by_turns), Some(6000));
        // One that was there all the while, and one that asks once in a while.
        let rarely: Vec<_> = (0..100).map(|n| (n * 1000, u64::from(n % 30 == 7))).collect();
        assert_eq!(two_edges_at(&rarely), Some(38_000));
    }

    /// A killed edge's last requests were stalled on their way, and came after the new process had spoken. For a minute they were
    /// taken for a second edge, and a new capacity was not recorded.
    #[test]
    fn late_requests_of_killed_processes_are_no_second_edge() {
        let mut requests = vec![(0, 1)];
        for killed in 1..30 {
            let at = killed * 10_000;
            requests.extend([(at, killed + 1), (at + 400, killed + 1)]);
            // Four were in flight; they come between those of the new one.
            requests.extend((0..4).flat_map(|n| [(at + 500 + n, killed), (at + 500 + n, killed + 1)]));
            requests.extend((1..9).map(|second| (at + second * 1000, killed + 1)));
        }
        assert_eq!(two_edges_at(&requests), None);
        // The server was restarted and heard the new process first.
        let later = (0..100).map(|n| (n * 1000, 2));
        assert_eq!(
            two_edges_at(&[&[(0, 2), (1, 1), (2, 2), (3, 1)][..], &later.collect::<Vec<_>>()].concat()),
            None
        );
    }

    /// What the clock of a site is said to be after requests that came at these milliseconds and looked so far ahead.
    fn ahead_after(requests: &[(u64, i64)]) -> Option<i64> {
        let began = Instant::now();
        let mut seen = Seen::default();
        for (at, ahead_ms) in requests {
            seen.watch_clock(*ahead_ms, began + Duration::from_millis(*at));
        }
        seen.clock_ahead_ms
    }

    /// A request that was held up for 20 s looked like a clock that is 20 s behind, and made an ERROR.
    #[test]
    fn requests_that_come_late_are_no_clock_that_is_behind() {
        let held_up: Vec<_> = (0..8).map(|n| (30_000 + n, -20_000)).collect();
        let requests = [&[(0, -10)][..], &held_up, &[(30_100, -12)], &held_up].concat();
        for seen in 1..=requests.len() {
            assert!(ahead_after(&requests[..seen]).is_some_and(|ahead_ms| ahead_ms >= -12), "after {seen}");
        }
    }

    #[test]
    fn a_clock_that_is_behind_is_known_after_seconds_and_one_that_is_ahead_at_once() {
        let behind = |seconds: u64| (0..=seconds).map(|n| (n * 1000, -600_000)).collect::<Vec<_>>();
        assert_eq!((ahead_after(&behind(2)), ahead_after(&behind(3))), (None, Some(-600_000)));
        assert_eq!(ahead_after(&[(0, 600_000)]), Some(600_000));
        assert_eq!(ahead_after(&[&behind(5)[..], &[(6000, 3)]].concat()), Some(3));
    }
}
