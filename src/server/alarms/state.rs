//! Which alarms are raised, and when somebody is to hear of them. Pure: time arrives with each call.
//!
//! | alarm | reason present | reason absent | nobody knows |
//! | --- | --- | --- | --- |
//! | – | after `raise_after`: raised | – | – |
//! | raised | reminded daily | after `resolve_after`: resolved | as it is |
//!
//! **Promise.** To each receiver, "raised" and "resolved" of an alarm come by turns, also where it is silenced, and reminders at least
//! `remind_after` apart; a restart changes nothing of that.
//! **Kept by.** Whether "raised" was announced is kept with the alarm. What is resolved is announced only then, but also while silenced.
//! **Not promised.** That the times by which a reason counts as present or gone go on over a restart: they begin again.

use super::conditions::{AlarmText, Baselines, Reading, Readings};
use super::id::AlarmId;
use crate::codes::{self, Code};
use crate::config::AlarmThresholds;
use crate::messaging::SiteName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What outlives a restart, apart from what waits for receivers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AlarmBook {
    pub raised: BTreeMap<AlarmId, RaisedAlarm>,
    pub silences: BTreeMap<AlarmId, Silence>,
    #[serde(default)]
    pub baselines: Baselines,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RaisedAlarm {
    pub since_ms: i64,
    /// When receivers were last notified. `None`: not yet, because it is silenced, or nobody wants to know.
    pub notified_at_ms: Option<i64>,
    /// As it was when it was raised, or when receivers were last notified.
    pub text: AlarmText,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub until_ms: i64,
    /// The user who silenced it.
    pub by: String,
}

/// For how long each reason was seen, or not seen any more, without a break.
#[derive(Debug, Default)]
pub struct Timers {
    present: BTreeMap<AlarmId, Instant>,
    gone: BTreeMap<AlarmId, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmEvent {
    Raised,
    Reminder,
    Resolved,
    /// More came than could wait: what is raised now.
    Summary,
    Test,
}

/// Something that happened to an alarm, of which receivers are to hear.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    pub event: AlarmEvent,
    pub id: AlarmId,
    pub alarm: RaisedAlarm,
}

/// What changed at a look.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    pub raised: Vec<AlarmId>,
    pub resolved: Vec<AlarmId>,
    pub announced: Vec<Announcement>,
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn raise_after(code: Code, thresholds: &AlarmThresholds) -> Duration {
    if code == codes::OCCUPANCY_IMPOSSIBLE { thresholds.occupancy_after.0 } else { Duration::ZERO }
}

impl AlarmBook {
    /// Until when notifications of an alarm are silenced.
    pub fn silenced_until(&self, id: &AlarmId, wall_ms: i64) -> Option<i64> {
        let everywhere = AlarmId { code: id.code, garage: None };
        let of = |id: &AlarmId| self.silences.get(id).map(|silence| silence.until_ms);
        of(id).max(of(&everywhere)).filter(|until| *until > wall_ms)
    }

    /// Takes what is wrong at a moment. `wanted`: whether any receiver wants to hear of an alarm.
    pub fn look(
        &mut self,
        readings: &Readings,
        timers: &mut Timers,
        (now, wall_ms): (Instant, i64),
        thresholds: &AlarmThresholds,
        wanted: impl Fn(&AlarmId) -> bool,
    ) -> Changes {
        let mut changes = Changes::default();
        let ids: BTreeSet<AlarmId> =
            readings.keys().chain(self.raised.keys()).chain(timers.present.keys()).cloned().collect();
        for id in ids {
            match readings.get(&id) {
                Some(Reading::Present(text)) => {
                    timers.gone.remove(&id);
                    if self.raised.contains_key(&id) {
                        continue;
                    }
                    let since = *timers.present.entry(id.clone()).or_insert(now);
                    if now.saturating_duration_since(since) >= raise_after(id.code, thresholds) {
                        timers.present.remove(&id);
                        let alarm =
                            RaisedAlarm { since_ms: wall_ms, notified_at_ms: None, text: text.clone() };
                        self.raised.insert(id.clone(), alarm);
                        changes.raised.push(id);
                    }
                }
                Some(Reading::Unknown) => {
                    timers.gone.remove(&id);
                }
                None => {
                    timers.present.remove(&id);
                    if !self.raised.contains_key(&id) {
                        continue;
                    }
                    let since = *timers.gone.entry(id.clone()).or_insert(now);
                    if now.saturating_duration_since(since) >= thresholds.resolve_after.0 {
                        timers.gone.remove(&id);
                        changes.announced.extend(self.resolve(&id));
                        changes.resolved.push(id);
                    }
                }
            }
        }
        self.silences.retain(|_, silence| silence.until_ms > wall_ms);
        changes.announced.extend(self.announce(readings, wall_ms, thresholds, wanted));
        changes
    }

    fn resolve(&mut self, id: &AlarmId) -> Option<Announcement> {
        let alarm = self.raised.remove(id)?;
        let was_announced = alarm.notified_at_ms.is_some();
        was_announced.then(|| Announcement { event: AlarmEvent::Resolved, id: id.clone(), alarm })
    }

    /// What is to be announced of the alarms that are raised.
    fn announce(
        &mut self,
        readings: &Readings,
        wall_ms: i64,
        thresholds: &AlarmThresholds,
        wanted: impl Fn(&AlarmId) -> bool,
    ) -> Vec<Announcement> {
        let remind_after = milliseconds(thresholds.remind_after.0);
        let mut announced = Vec::new();
        let loud: Vec<AlarmId> = self
            .raised
            .keys()
            .filter(|id| self.silenced_until(id, wall_ms).is_none() && wanted(id))
            .cloned()
            .collect();
        for id in loud {
            let Some(alarm) = self.raised.get_mut(&id) else { continue };
            let event = match alarm.notified_at_ms {
                None => AlarmEvent::Raised,
                Some(at) if wall_ms.saturating_sub(at) >= remind_after => AlarmEvent::Reminder,
                Some(at) => {
                    // Where the clock was set back, the next reminder is not years away.
                    alarm.notified_at_ms = Some(at.min(wall_ms));
                    continue;
                }
            };
            alarm.notified_at_ms = Some(wall_ms);
            if let Some(Reading::Present(text)) = readings.get(&id) {
                alarm.text = text.clone();
            }
            announced.push(Announcement { event, id: id.clone(), alarm: alarm.clone() });
        }
        announced
    }

    /// Stops notifications until a time, of one garage or of all. `None`: they go on.
    pub fn silence(&mut self, code: Code, garage: Option<SiteName>, silence: Option<Silence>) {
        let id = AlarmId { code, garage };
        match silence {
            Some(silence) => self.silences.insert(id, silence),
            None => self.silences.remove(&id),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Period;
    use proptest::prelude::*;
    use serde_json::Map;

    const HOUR_MS: i64 = 3_600_000;

    fn id(code: Code, garage: &str) -> AlarmId {
        AlarmId { code, garage: Some(SiteName::new(garage).unwrap()) }
    }

    fn present() -> Reading {
        Reading::Present(AlarmText { summary: "s".into(), facts: Map::new() })
    }

    fn thresholds() -> AlarmThresholds {
        AlarmThresholds { occupancy_after: Period(Duration::from_secs(30)), ..AlarmThresholds::default() }
    }

    /// A book and the clock by which it is looked at.
    struct Desk {
        book: AlarmBook,
        timers: Timers,
        began: Instant,
        seconds: u64,
    }

    impl Desk {
        fn new() -> Desk {
            Desk { book: AlarmBook::default(), timers: Timers::default(), began: Instant::now(), seconds: 0 }
        }

        fn wall_ms(&self) -> i64 {
            1_000 * HOUR_MS + self.seconds as i64 * 1000
        }

        fn look_after(&mut self, seconds: u64, readings: &[(AlarmId, Reading)]) -> Vec<AlarmEvent> {
            self.seconds += seconds;
            let now = (self.began + Duration::from_secs(self.seconds), self.wall_ms());
            let readings = readings.iter().cloned().collect();
            let changes = self.book.look(&readings, &mut self.timers, now, &thresholds(), |_| true);
            changes.announced.into_iter().map(|announced| announced.event).collect()
        }

        /// As after `kill -9`: only what is kept is left.
        fn restart(&mut self) {
            let kept = serde_json::to_string(&self.book).unwrap();
            self.book = serde_json::from_str(&kept).unwrap();
            self.timers = Timers::default();
        }
    }

    #[test]
    fn an_alarm_is_raised_once_reminded_daily_and_resolved_when_its_reason_stays_away() {
        let (silent, mut desk) = (id(codes::EDGE_SILENT, "Bull Ring"), Desk::new());
        let there = [(silent.clone(), present())];
        assert_eq!(desk.look_after(0, &there), [AlarmEvent::Raised]);
        for _ in 0..23 {
            assert_eq!(desk.look_after(3600, &there), []);
            desk.restart();
        }
        assert_eq!(desk.look_after(3600, &there), [AlarmEvent::Reminder]);
        assert_eq!(desk.look_after(1, &[]), []);
        assert_eq!(desk.look_after(40, &there), [], "it was away for a moment only");
        assert_eq!(desk.look_after(1, &[]), []);
        assert_eq!(desk.look_after(59, &[]), []);
        assert_eq!(desk.look_after(1000, &[(silent, Reading::Unknown)]), [], "nobody knows");
        assert_eq!(desk.look_after(1, &[]), []);
        assert_eq!(desk.look_after(60, &[]), [AlarmEvent::Resolved]);
        assert_eq!(desk.book, AlarmBook::default());
    }

    #[test]
    fn what_must_last_first_is_raised_only_then() {
        let mut desk = Desk::new();
        let there = [(id(codes::OCCUPANCY_IMPOSSIBLE, "a"), present())];
        assert_eq!(desk.look_after(0, &there), []);
        assert_eq!(desk.look_after(29, &there), []);
        assert_eq!(desk.look_after(1, &[]), []);
        assert_eq!(desk.look_after(1, &there), []);
        assert_eq!(desk.look_after(30, &there), [AlarmEvent::Raised]);
    }

    #[test]
    fn a_silence_stops_notifications_and_is_over_by_itself() {
        let mut desk = Desk::new();
        let there = [(id(codes::CONFLICT, "a"), present())];
        let until = |desk: &Desk, seconds: i64| {
            Some(Silence { until_ms: desk.wall_ms() + seconds * 1000, by: "ada".into() })
        };
        let silence = until(&desk, 100);
        desk.book.silence(codes::CONFLICT, None, silence);
        assert_eq!(desk.look_after(0, &there), []);
        assert!(
            desk.book.silenced_until(&there[0].0, desk.wall_ms()).is_some() && desk.book.raised.len() == 1
        );
        assert_eq!(desk.look_after(100, &there), [AlarmEvent::Raised], "it still is");
        let silence = until(&desk, 1000);
        desk.book.silence(codes::CONFLICT, there[0].0.garage.clone(), silence);
        desk.look_after(1, &[]);
        assert_eq!(desk.look_after(60, &[]), [AlarmEvent::Resolved], "who heard of it hears that it is over");
        assert_eq!(desk.look_after(1, &there), []);
        desk.look_after(1, &[]);
        assert_eq!(desk.look_after(60, &[]), [], "nobody heard of it");
    }

    #[test]
    fn a_clock_that_is_set_back_holds_up_no_reminder_for_years() {
        let mut desk = Desk::new();
        let there = [(id(codes::CONFLICT, "a"), present())];
        desk.seconds = 400 * 24 * 3600;
        assert_eq!(desk.look_after(0, &there), [AlarmEvent::Raised]);
        desk.seconds = 0;
        assert_eq!(desk.look_after(0, &there), []);
        assert_eq!(desk.look_after(24 * 3600, &there), [AlarmEvent::Reminder]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Seconds pass, and these of four reasons are present; others unknown.
        Look(u32, u8, u8),
        Silence(u8, bool, u32),
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (prop_oneof![1..90u32, 1..100_000u32], any::<u8>(), any::<u8>()).prop_map(|(after, there, unknown)| Step::Look(after, there, unknown)),
            1 => (any::<u8>(), any::<bool>(), 1..200_000u32).prop_map(|(which, everywhere, seconds)| Step::Silence(which, everywhere, seconds)),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        /// With reasons that come and go, silences and restarts.
        #[test]
        fn raised_and_resolved_come_by_turns_and_reminders_a_day_apart(steps in steps()) {
            let all = [id(codes::CONFLICT, "a"), id(codes::CONFLICT, "b"), id(codes::EDGE_SILENT, "a"), id(codes::OCCUPANCY_IMPOSSIBLE, "b")];
            let mut desk = Desk::new();
            let mut last: BTreeMap<AlarmId, (AlarmEvent, u64)> = BTreeMap::new();
            for step in steps {
                let (there, unknown) = match step {
                    Step::Look(after, there, unknown) => {
                        desk.seconds += u64::from(after);
                        (there, unknown)
                    }
                    Step::Silence(which, everywhere, seconds) => {
                        let AlarmId { code, garage } = all[usize::from(which % 4)].clone();
                        let until_ms = desk.wall_ms() + i64::from(seconds) * 1000;
                        desk.book.silence(code, garage.filter(|_| !everywhere), Some(Silence { until_ms, by: "ada".into() }));
                        continue;
                    }
                    Step::Restart => {
                        desk.restart();
                        continue;
                    }
                };
                let readings: Readings = (0..4).filter_map(|n| {
                    let reading = if there >> n & 1 == 1 { present() } else if unknown >> n & 1 == 1 { Reading::Unknown } else { return None };
                    Some((all[n].clone(), reading))
                }).collect();
                let now = (desk.began + Duration::from_secs(desk.seconds), desk.wall_ms());
                let Desk { book, timers, .. } = &mut desk;
                let changes = book.look(&readings, timers, now, &thresholds(), |_| true);
                for Announcement { event, id, .. } in changes.announced {
                    let before = last.insert(id.clone(), (event, desk.seconds));
                    let follows = match (event, before) {
                        (AlarmEvent::Raised, None | Some((AlarmEvent::Resolved, _))) => true,
                        (AlarmEvent::Reminder, Some((AlarmEvent::Raised | AlarmEvent::Reminder, at))) => desk.seconds - at >= 24 * 3600,
                        (AlarmEvent::Resolved, Some((AlarmEvent::Raised | AlarmEvent::Reminder, _))) => true,
                        _ => false,
                    };
                    prop_assert!(follows, "{id}: {event:?} after {before:?}");
                    prop_assert!(event == AlarmEvent::Resolved || desk.book.silenced_until(&id, desk.wall_ms()).is_none());
                }
                for (id, alarm) in &desk.book.raised {
                    let silenced = desk.book.silenced_until(id, desk.wall_ms()).is_some();
                    prop_assert!(silenced || alarm.notified_at_ms.is_some(), "{id}: nobody was notified");
                }
            }
        }
    }
}
