//! Reading a garage's events back from the server.
//!
//! **Promise.** Each listed event is visited once, in the order in which the server lists them. A later reading can go on from
//! where an earlier one ended.
//! **Not promised.** That the list is right: [`SequenceCheck`] and the oracle judge that.

use super::books::{Baseline, ListedEvents};
use super::client::{DaemonClient, GarageAtServer};
use super::stays::StayPairing;
use fogpost::http::client::{HttpCallError, percent_encoded};
use fogpost::traffic::StartingState;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An event in `GET /v1/events`.
#[derive(Debug, Deserialize)]
struct ListedEvent {
    garage: String,
    epoch: String,
    sequence: u64,
    /// Empty for an event that the server keeps without understanding it.
    #[serde(default)]
    kind: String,
    plate: Option<String>,
    at: Option<jiff::Timestamp>,
}

/// Visits the events of `garage` that the server lists from the cursor `after` on, and leaves `after` at the last page.
async fn read(
    client: &DaemonClient,
    server: &str,
    garage: &str,
    after: &mut Option<String>,
    visit: impl FnMut(ListedEvent),
) -> Result<(), HttpCallError> {
    client
        .each(&format!("{server}/v1/events?limit=1000&garage={}", percent_encoded(garage)), after, visit)
        .await
}

/// Checks that the events of one garage are listed with the numbers 1, 2, 3, … of each epoch.
#[derive(Debug, Default)]
struct SequenceCheck {
    last: BTreeMap<String, u64>,
    irregular: Option<String>,
}

impl SequenceCheck {
    fn see(&mut self, garage: &str, event: &ListedEvent) {
        let last = self.last.entry(event.epoch.clone()).or_insert(0);
        if self.irregular.is_none() {
            if event.garage != garage {
                self.irregular = Some(format!("an event of {:?} is listed under it", event.garage));
            } else if event.sequence != *last + 1 {
                self.irregular = Some(format!(
                    "number {} of epoch {} is listed after number {last}",
                    event.sequence, event.epoch
                ));
            }
        }
        *last = event.sequence;
    }
}

/// What a garage at the server holds before a run, and the cursor from which the events of this run are read.
pub async fn baseline(
    client: &DaemonClient,
    server: &str,
    garage: &GarageAtServer,
) -> Result<(Baseline, Option<String>), HttpCallError> {
    let mut after = None;
    // Each car with the number of its entry in the list and the time of it.
    let mut inside: HashMap<Arc<str>, (u64, Option<i64>)> = HashMap::new();
    let mut latest_unix_ms = None;
    let mut number = 0;
    read(client, server, &garage.name, &mut after, |event| {
        number += 1;
        let at = event.at.map(|at| at.as_millisecond());
        latest_unix_ms = latest_unix_ms.max(at);
        match (event.kind.as_str(), event.plate) {
            ("entry", Some(plate)) => _ = inside.insert(plate.into(), (number, at)),
            ("exit", Some(plate)) => _ = inside.remove(plate.as_str()),
            _ => {}
        }
    })
    .await?;
    let since = inside.iter().filter_map(|(car, (_, at))| Some((car.clone(), (*at)?)));
    let stays = StayPairing::of_cars(since.collect());
    let mut inside: Vec<(u64, Arc<str>)> =
        inside.into_iter().map(|(car, (number, _))| (number, car)).collect();
    inside.sort_unstable();
    // There may be more plates than cars: the oldest of them left without being read.
    let cars = usize::try_from(garage.occupied).unwrap_or(0);
    inside.drain(..inside.len().saturating_sub(cars));
    let inside = inside.into_iter().map(|(_, car)| car).collect();
    let state = StartingState { occupied: garage.occupied, inside, latest_unix_ms };
    let marks = garage.marks.iter().map(|mark| (mark.epoch.clone(), mark.sequence)).collect();
    Ok((Baseline { state, marks, stays, closed: garage.stays.closed }, after))
}

/// Reads the events that the server lists after the baseline.
pub async fn read_back(
    client: &DaemonClient,
    server: &str,
    garage: &str,
    baseline: &Baseline,
    mut after: Option<String>,
) -> Result<ListedEvents, HttpCallError> {
    let mut listed = ListedEvents::default();
    let mut numbers = SequenceCheck { last: baseline.marks.clone(), irregular: None };
    let mut timeless = None;
    read(client, server, garage, &mut after, |event| {
        let before = baseline.marks.get(&event.epoch);
        if before.is_some_and(|mark| event.sequence <= *mark) {
            return; // The page on which the baseline ended begins with events from before it.
        }
        numbers.see(garage, &event);
        let Some(at) = event.at else {
            timeless.get_or_insert_with(|| format!("number {} is listed without a time", event.sequence));
            return;
        };
        listed.hash.record(&event.kind, event.plate.as_deref(), at.as_nanosecond());
    })
    .await?;
    listed.irregular = numbers.irregular.or(timeless);
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(garage: &str, sequence: u64) -> ListedEvent {
        ListedEvent {
            garage: garage.into(),
            epoch: "e".into(),
            sequence,
            kind: "entry".into(),
            plate: None,
            at: None,
        }
    }

    #[test]
    fn events_that_are_listed_twice_skipped_or_of_others_are_noticed() {
        for (events, complaint) in [
            (vec![listed("1", 1), listed("1", 2)], None),
            (vec![listed("1", 2)], Some("number 2 of epoch e is listed after number 0")),
            (vec![listed("1", 1), listed("1", 1)], Some("number 1 of epoch e is listed after number 1")),
            (vec![listed("1", 1), listed("2", 2)], Some("an event of \"2\" is listed under it")),
        ] {
            let mut numbers = SequenceCheck::default();
            events.iter().for_each(|event| numbers.see("1", event));
            assert_eq!(numbers.irregular.as_deref(), complaint);
        }
    }
}
