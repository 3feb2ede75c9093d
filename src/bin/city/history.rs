//! Reading a garage's events back from the centre.
//!
//! **Promise.** Each listed event is visited once, in the order in which the centre lists them. How far a reading
//! came can be kept, and a later one goes on from there.
//! **Not promised.** That the list is right: [`Numbers`] and the oracle judge that.

use super::books::{Baseline, ReadBack};
use super::client::DaemonClient;
use super::stays::Stays;
use fogpost::http::client::{HttpCallError, percent_encoded};
use fogpost::traffic::StartingState;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An event in `GET /v1/events`.
#[derive(Debug, Deserialize)]
pub struct Listed<'a> {
    #[serde(borrow)]
    pub garage: Cow<'a, str>,
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    pub sequence: u64,
    /// Empty for an event that the server keeps without understanding it.
    #[serde(default, borrow)]
    pub kind: Cow<'a, str>,
    #[serde(default, borrow)]
    pub plate: Option<Cow<'a, str>>,
    #[serde(default)]
    pub at: Option<jiff::Timestamp>,
}

/// Where the last page of a reading began. The next one begins there again, and finds what came since.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<String>);

/// Why a garage's events could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    #[error(transparent)]
    Call(#[from] HttpCallError),
    #[error("{url} answered something else than its contract says: {source}")]
    Nonsense { url: String, source: serde_json::Error },
}

/// Visits the events of `garage` that the server lists from `place` on, and moves `place` to the last page.
pub async fn read(
    http: &DaemonClient,
    server: &str,
    garage: &str,
    place: &mut Place,
    mut visit: impl FnMut(&Listed<'_>),
) -> Result<(), ReadBackError> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        events: Vec<Listed<'a>>,
        next: Option<String>,
    }
    let first = format!("{server}/v1/events?limit=1000&garage={}", percent_encoded(garage));
    loop {
        let url = match &place.0 {
            Some(after) => format!("{first}&after={}", percent_encoded(after)),
            None => first.clone(),
        };
        let body = http.get(&url).await?;
        let page: Page = match serde_json::from_slice(&body) {
            Ok(page) => page,
            Err(source) => return Err(ReadBackError::Nonsense { url, source }),
        };
        page.events.iter().for_each(&mut visit);
        match page.next {
            Some(next) => place.0 = Some(next),
            None => return Ok(()),
        }
    }
}

/// Watches that the events of one garage are listed with the numbers 1, 2, 3, … of each epoch.
#[derive(Debug, Default)]
struct Numbers {
    last: BTreeMap<String, u64>,
    irregular: Option<String>,
}

impl Numbers {
    fn see(&mut self, garage: &str, event: &Listed<'_>) {
        let last = match self.last.get_mut(event.epoch.as_ref()) {
            Some(last) => last,
            None => self.last.entry(event.epoch.clone().into_owned()).or_insert(0),
        };
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

/// What a garage at the centre holds before a run, and where the reading of this run's events begins.
pub async fn baseline(
    http: &DaemonClient,
    server: &str,
    garage: &str,
    marks: BTreeMap<String, u64>,
    occupied: i64,
) -> Result<(Baseline, Place), ReadBackError> {
    let mut place = Place::default();
    let mut inside: HashMap<Arc<str>, (u64, Option<i64>)> = HashMap::new();
    let mut latest_unix_ms = None;
    let mut nth = 0;
    read(http, server, garage, &mut place, |event| {
        nth += 1;
        let at = event.at.map(|at| at.as_millisecond());
        latest_unix_ms = latest_unix_ms.max(at);
        match (event.kind.as_ref(), &event.plate) {
            ("entry", Some(plate)) => _ = inside.insert(Arc::from(plate.as_ref()), (nth, at)),
            ("exit", Some(plate)) => _ = inside.remove(plate.as_ref()),
            _ => {}
        }
    })
    .await?;
    let since = inside.iter().filter_map(|(car, (_, at))| Some((car.clone(), (*at)?)));
    let stays = Stays::of_cars(since.collect());
    let mut inside: Vec<(u64, Arc<str>)> = inside.into_iter().map(|(car, (nth, _))| (nth, car)).collect();
    inside.sort_unstable();
    // More plates than cars: the oldest of them left without being read.
    let cars = usize::try_from(occupied).unwrap_or(0);
    inside.drain(..inside.len().saturating_sub(cars));
    let state =
        StartingState { occupied, inside: inside.into_iter().map(|(_, car)| car).collect(), latest_unix_ms };
    Ok((Baseline { state, marks, stays, ..Baseline::default() }, place))
}

/// Reads the events that the centre lists after the baseline.
pub async fn read_back(
    http: &DaemonClient,
    server: &str,
    garage: &str,
    baseline: &Baseline,
    mut place: Place,
) -> Result<ReadBack, ReadBackError> {
    let mut read_back = ReadBack::default();
    let mut numbers = Numbers { last: baseline.marks.clone(), irregular: None };
    let mut timeless = None;
    read(http, server, garage, &mut place, |event| {
        let before = baseline.marks.get(event.epoch.as_ref());
        if before.is_some_and(|mark| event.sequence <= *mark) {
            return; // The page on which the baseline ended begins with events from before it.
        }
        numbers.see(garage, event);
        let Some(at) = event.at else {
            timeless.get_or_insert_with(|| format!("number {} is listed without a time", event.sequence));
            return;
        };
        read_back.tape.record(&event.kind, event.plate.as_deref(), at.as_nanosecond());
    })
    .await?;
    read_back.irregular = numbers.irregular.or(timeless);
    Ok(read_back)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(garage: &'static str, sequence: u64) -> Listed<'static> {
        Listed {
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
            let mut numbers = Numbers::default();
            events.iter().for_each(|event| numbers.see("1", event));
            assert_eq!(numbers.irregular.as_deref(), complaint);
        }
    }
}
