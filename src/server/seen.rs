//! What the server sees of garages while it serves them: no view, and forgotten at a restart.
//!
//! **Promise.** Whatever peers say, this takes memory for the garages whose events were applied, and for [`STRANGERS_MAX`] others.
//! **Kept by.** A name under which no event was ever applied is a stranger: the one that was silent for longest goes first.

use crate::codes;
use crate::daemon::clock::SKEW_ALARM;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Observation;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// What is merely seen of a site: no view, and forgotten at a restart.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub heard_at_ms: i64,
    pub observation: Option<Observation>,
    pub duplicates_refused: u64,
    pub conflicts: u64,
    /// The epoch and the first sequence of the page in conflict, while it is.
    pub in_conflict_at: Option<(Epoch, u64)>,
    pub refused: Option<String>,
    /// Its wall clock less ours, in milliseconds, when its last request came that was not in doubt.
    pub clock_ahead_ms: Option<i64>,
    /// Since when each request said that its clock is behind, and how many did.
    behind: Option<(Instant, u32)>,
    /// The processes that spoke under this name, in the order in which they were first heard.
    instances: Vec<Spoke>,
    /// How many requests came.
    words: u64,
    /// When it was last seen that two of them speak by turns.
    two_at: Option<Instant>,
}

/// A process of a site.
#[derive(Debug, Clone)]
struct Spoke {
    instance: u64,
    /// The last of its requests, counted among all of the site.
    word: u64,
    /// Since when, and when last, it spoke again after a younger one had.
    back: Option<(Instant, Instant)>,
}

/// How many processes of a site are told apart.
const INSTANCES: usize = 4;
/// For how long two edges under one name are an alarm after they were last seen to speak by turns.
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
    /// Whether two live edges speak under one name.
    pub fn two_edges(&self) -> bool {
        self.two_at.is_some_and(|at| at.elapsed() < TWO_EDGES_FOR)
    }

    /// Returns whether it has just come out that there are two.
    ///
    /// A process that was started in the place of another speaks as the younger one from then on. Only two live ones both go on:
    /// the older one comes back after the younger, and that again and again.
    pub fn spoke(&mut self, instance: u64, now: Instant) -> bool {
        self.words += 1;
        let word = self.words;
        let Some(place) = self.instances.iter().position(|known| known.instance == instance) else {
            if self.instances.len() == INSTANCES {
                let (silent, _) = self
                    .instances
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, its)| its.word)
                    .expect("there are some");
                self.instances.remove(silent);
            }
            self.instances.push(Spoke { instance, word, back: None });
            return false;
        };
        let (older, younger) = self.instances.split_at_mut(place + 1);
        let its = older.last_mut().expect("it is among them");
        let came_back = younger.iter().any(|younger| younger.word > its.word);
        its.word = word;
        if !came_back {
            return false;
        }
        let since = match its.back {
            Some((since, last)) if now.saturating_duration_since(last) < TWO_EDGES_FOR => since,
            _ => now,
        };
        its.back = Some((since, now));
        now.saturating_duration_since(since) >= BY_TURNS_FOR && {
            let news = !self.two_edges();
            self.two_at = Some(now);
            news
        }
    }

    pub fn watch_clock(&mut self, site: &SiteName, ahead_ms: i64, now: Instant) {
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
                garage = %site, ahead_seconds = ahead_ms / 1000,
                hint = "check NTP on both; events keep the garage's time, and the time of their arrival beside it",
                "the clocks of this garage and of this server differ"
            );
        } else if !skewed(ahead_ms) && before {
            tracing::info!(garage = %site, "the clocks of this garage and of this server agree again");
        }
    }

    /// What a person at the garage should know.
    pub fn notice(&self) -> Option<String> {
        self.two_edges().then(|| {
            "another edge speaks under this garage's name at the same time. Both deliver what they confirmed, and the count is that of both together; give one of them a name and a data directory of its own".into()
        })
    }
}

/// Of how many garages without an event that was applied it is kept what they say.
pub const STRANGERS_MAX: usize = 1_000;

/// The garages that only say something, in the order in which they were heard last.
#[derive(Debug, Default)]
pub struct Strangers {
    in_order: BTreeMap<u64, SiteName>,
    places: HashMap<SiteName, u64>,
    next: u64,
}

impl Strangers {
    /// One of them said something. Gives the one to forget for it: there are too many.
    pub fn heard(&mut self, site: &SiteName) -> Option<SiteName> {
        self.forget(site);
        self.in_order.insert(self.next, site.clone());
        self.places.insert(site.clone(), self.next);
        self.next += 1;
        if self.places.len() <= STRANGERS_MAX {
            return None;
        }
        let (_, silent) = self.in_order.pop_first()?;
        self.places.remove(&silent);
        Some(silent)
    }

    /// It is none any more: an event of it was applied.
    pub fn forget(&mut self, site: &SiteName) {
        if let Some(place) = self.places.remove(site) {
            self.in_order.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_strangers_the_one_that_was_silent_for_longest_is_forgotten() {
        let name = |n: usize| SiteName::new(&format!("s{n}")).unwrap();
        let mut strangers = Strangers::default();
        for n in 0..STRANGERS_MAX {
            assert_eq!(strangers.heard(&name(n)), None);
        }
        assert_eq!(strangers.heard(&name(0)), None, "it is one of them");
        assert_eq!(strangers.heard(&name(5000)), Some(name(1)));
        strangers.forget(&name(2));
        assert_eq!(strangers.heard(&name(5001)), None);
        assert_eq!(strangers.heard(&name(5002)), Some(name(3)));
        for n in 0..10_000 {
            strangers.heard(&name(10_000 + n));
        }
        assert_eq!((strangers.in_order.len(), strangers.places.len()), (STRANGERS_MAX, STRANGERS_MAX));
    }

    /// Who speaks at which millisecond; what came out, and when.
    fn two_edges_at(words: &[(u64, u64)]) -> Option<u64> {
        let began = Instant::now();
        let mut seen = Seen::default();
        words
            .iter()
            .find(|(at, instance)| seen.spoke(*instance, began + Duration::from_millis(*at)))
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
        let mut words = vec![(0, 1)];
        for killed in 1..30 {
            let at = killed * 10_000;
            words.extend([(at, killed + 1), (at + 400, killed + 1)]);
            // Four were in flight; they come between those of the new one.
            words.extend((0..4).flat_map(|n| [(at + 500 + n, killed), (at + 500 + n, killed + 1)]));
            words.extend((1..9).map(|second| (at + second * 1000, killed + 1)));
        }
        assert_eq!(two_edges_at(&words), None);
        // The server was started anew and heard the new process first.
        let later = (0..100).map(|n| (n * 1000, 2));
        assert_eq!(
            two_edges_at(&[&[(0, 2), (1, 1), (2, 2), (3, 1)][..], &later.collect::<Vec<_>>()].concat()),
            None
        );
    }

    /// What the clock of a site is said to be after requests that came at these milliseconds and looked so far ahead.
    fn ahead_after(requests: &[(u64, i64)]) -> Option<i64> {
        let (began, site) = (Instant::now(), SiteName::new("a").unwrap());
        let mut seen = Seen::default();
        for (at, ahead_ms) in requests {
            seen.watch_clock(&site, *ahead_ms, began + Duration::from_millis(*at));
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
