//! What the server has applied, and what it should have.

use super::daemon::Server;
use super::producer::Journal;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// One line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Applied {
    pub garage: String,
    pub epoch: String,
    pub sequence: u64,
    pub position: u64,
    pub kind: String,
    pub plate: Option<String>,
    pub at: String,
    pub received_at: String,
    /// Where it was confirmed, when it was moved to another epoch.
    #[serde(default)]
    pub moved_from: Option<Place>,
}

/// An epoch and a sequence in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Place {
    pub epoch: String,
    pub sequence: u64,
}

/// All events of a garage, in the order of the server.
pub fn events_of(server: &Server, garage: &str) -> Vec<Applied> {
    #[derive(Deserialize)]
    struct Page {
        events: Vec<Applied>,
        next: Option<String>,
    }
    let http = server.http();
    let garage: String = garage.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut events = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/events?garage={garage}&limit=1000{after}");
        let page: Page = serde_json::from_value(http.get_json(&path)).unwrap();
        assert!(page.events.len() <= 1000);
        events.extend(page.events);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return events,
        }
    }
}

/// The promise, said of all that producers wrote down and all that the server shows of their garage: everything answered
/// 201 is there exactly once, under the sequence that was answered; sequences of an epoch are 1, 2, 3, … in order
/// and without gaps; what has no answer is there once as a whole, or not at all; nothing else is there.
pub fn assert_exactly_once(applied: &[Applied], journals: &[Journal]) {
    let faults = faults(applied, journals);
    let shown: Vec<&str> = faults.iter().take(20).map(String::as_str).collect();
    assert!(faults.is_empty(), "{} faults in the books:\n{}", faults.len(), shown.join("\n"));
}

/// What is wrong, in words.
pub fn faults(applied: &[Applied], journals: &[Journal]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last_of: BTreeMap<&str, u64> = BTreeMap::new();
    let mut last_position = 0;
    let mut place_of: HashMap<&str, (&str, u64)> = HashMap::new();
    for event in applied {
        let last = last_of.entry(&event.epoch).or_default();
        if event.sequence != *last + 1 {
            faults.push(format!("sequence {} of epoch {} follows {last}", event.sequence, event.epoch));
        }
        *last = event.sequence;
        if event.position < last_position {
            faults.push(format!("position {} follows {last_position}", event.position));
        }
        last_position = event.position;
        let Some(plate) = &event.plate else {
            faults.push(format!("sequence {} has no plate, and none such was posted", event.sequence));
            continue;
        };
        // Where its producer was told that it is.
        let place = match &event.moved_from {
            Some(told) => (told.epoch.as_str(), told.sequence),
            None => (event.epoch.as_str(), event.sequence),
        };
        if let Some(former) = place_of.insert(plate, place) {
            faults.push(format!("{plate} is applied twice: at {former:?} and at {place:?}"));
        }
    }
    // From here on what is explained is taken out, so that in the end nothing may be left.
    for confirmed in journals.iter().flat_map(|journal| &journal.confirmed) {
        for (sequence, plate) in (confirmed.first..).zip(&confirmed.plates) {
            let wanted = (confirmed.epoch.as_str(), sequence);
            match place_of.remove(plate.as_str()) {
                Some(place) if place == wanted => {}
                Some(place) => {
                    faults.push(format!("{plate} was confirmed at {wanted:?} and stands at {place:?}"))
                }
                None => faults.push(format!("{plate} was confirmed at {wanted:?} and is not applied")),
            }
        }
    }
    for unknown in journals.iter().flat_map(|journal| &journal.unknown) {
        let places: Vec<_> = unknown.iter().filter_map(|plate| place_of.remove(plate.as_str())).collect();
        let together = places.windows(2).all(|two| two[0].0 == two[1].0 && two[0].1 + 1 == two[1].1);
        if !places.is_empty() && (places.len() < unknown.len() || !together) {
            let first = &unknown[0];
            faults.push(format!(
                "of {} posted together from {first} on, these are applied: {places:?}",
                unknown.len()
            ));
        }
    }
    for (plate, place) in place_of {
        faults.push(format!("{plate} is applied at {place:?}, but was refused or never posted"));
    }
    faults
}
