//! The notifications that wait for their receivers.
//!
//! **Promise.** Each receiver gets them in order, each once, and again only if it was not known to have arrived. What does not fit is counted,
//! and followed by a summary of what is raised when the others have arrived.

use super::state::AlarmEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};

/// The maximum that waits for a receiver. A receiver that is away for days hears of the first ones, and of what is still raised then.
const WAITING_MAX: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub id: String,
    pub event: AlarmEvent,
    /// `None`: of a summary or a test.
    pub alarm: Option<AlarmLine>,
    /// Of a summary: the number of notifications that it stands for, and all that is raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<AlarmLine>,
    pub at: String,
}

/// An alarm as people and programs see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmLine {
    pub code: String,
    /// Under the name that it has now. `None`: the server itself.
    pub garage: Option<String>,
    pub since: String,
    pub summary: String,
    pub hint: String,
    pub facts: Map<String, Value>,
    pub silenced_until: Option<String>,
    pub notified_at: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitingLine {
    waiting: VecDeque<Notification>,
    /// The number of those that came when there was no room.
    omitted: u64,
}

/// What waits for each receiver, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitingLines(BTreeMap<String, WaitingLine>);

impl WaitingLines {
    pub fn push(&mut self, receiver: &str, notification: Notification) {
        let line = self.0.entry(receiver.to_owned()).or_default();
        if line.omitted > 0 || line.waiting.len() >= WAITING_MAX {
            line.omitted += 1;
        } else {
            line.waiting.push_back(notification);
        }
    }

    /// The next one for a receiver.
    pub fn next(&self, receiver: &str) -> Option<&Notification> {
        self.0.get(receiver)?.waiting.front()
    }

    /// It arrived. Behind the last one of a line that was full comes a summary, which `summary` makes of the number of those that
    /// were omitted.
    pub fn arrived(&mut self, receiver: &str, id: &str, summary: impl FnOnce(u64) -> Notification) {
        let Some(line) = self.0.get_mut(receiver) else { return };
        if line.waiting.front().is_some_and(|first| first.id == id) {
            line.waiting.pop_front();
        }
        if line.waiting.is_empty() && line.omitted > 0 {
            let omitted = std::mem::take(&mut line.omitted);
            line.waiting.push_back(summary(omitted));
        }
        if line.waiting.is_empty() {
            self.0.remove(receiver);
        }
    }

    /// How many have not arrived at a receiver.
    pub fn count(&self, receiver: &str) -> u64 {
        self.0.get(receiver).map_or(0, |line| line.waiting.len() as u64 + line.omitted)
    }

    /// Forgets what waits for receivers that are no longer there. Returns the name of each and the number of its notifications.
    pub fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<(String, u64)> {
        let gone: Vec<String> = self.0.keys().filter(|name| !is_there(name)).cloned().collect();
        gone.into_iter()
            .map(|name| {
                let count = self.count(&name);
                self.0.remove(&name);
                (name, count)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(id: usize, omitted: Option<u64>) -> Notification {
        let (event, at) = (AlarmEvent::Summary, String::new());
        Notification { id: id.to_string(), event, alarm: None, omitted, raised: Vec::new(), at }
    }

    #[test]
    fn they_arrive_in_order_and_what_did_not_fit_is_summed_up_behind_the_others() {
        let mut lines = WaitingLines::default();
        (0..WAITING_MAX + 7).for_each(|n| lines.push("ops", notification(n, None)));
        assert_eq!(lines.count("ops"), WAITING_MAX as u64 + 7);
        let mut arrived = Vec::new();
        while let Some(next) = lines.next("ops").cloned() {
            arrived.push(next.id.clone());
            lines.arrived("ops", &next.id, |omitted| notification(9999, Some(omitted)));
            if arrived.len() == 3 {
                lines.push("ops", notification(1234, None));
                assert_eq!(
                    lines.count("ops"),
                    WAITING_MAX as u64 + 5,
                    "none overtakes those that were omitted"
                );
            }
            if let Some(omitted) = next.omitted {
                assert_eq!(omitted, 8);
            }
        }
        let expected: Vec<String> = (0..WAITING_MAX).chain([9999]).map(|n| n.to_string()).collect();
        assert_eq!((arrived, lines), (expected, WaitingLines::default()));
    }

    #[test]
    fn what_waits_for_nobody_is_counted_when_it_is_forgotten() {
        let mut lines = WaitingLines::default();
        lines.push("ops", notification(1, None));
        lines.push("mail", notification(2, None));
        assert_eq!(lines.keep_only(|name| name == "mail"), [("ops".to_owned(), 1)]);
        assert_eq!((lines.count("ops"), lines.count("mail")), (0, 1));
    }
}
