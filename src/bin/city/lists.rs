//! Reading events and charges back from the server, and finding a statement to show.
//!
//! **Promise.** Each listed event is visited once, in the order in which the server lists them, and each draft of a charge is counted
//! once, with the garage under which it is listed.
//! **Not promised.** That the lists are right: [`SequenceCheck`] and the oracle judge that.

use super::books::{Baseline, EndedStays, GarageCharges, ListedEvents, StayPairing};
use super::client::{DaemonClient, GarageAtServer, ListPage};
use fogpost::http::client::{HttpCallError, percent_encoded};
use fogpost::traffic::StartingState;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

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

fn events_of(server: &str, garage: &str) -> String {
    format!("{server}/v1/events?limit=1000&garage={}", percent_encoded(garage))
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

pub async fn baseline(
    client: &DaemonClient,
    server: &str,
    garage: &GarageAtServer,
) -> Result<Baseline, HttpCallError> {
    let mut cursor = None;
    let mut stays = StayPairing::default();
    let mut latest_unix_ms = None;
    let visit = |event: ListedEvent| {
        let at = event.at.map(|at| at.as_millisecond());
        latest_unix_ms = latest_unix_ms.max(at);
        match (event.kind.as_str(), event.plate, at) {
            ("entry", Some(plate), Some(at)) => stays.entered(&plate, at),
            ("exit", Some(plate), Some(at)) => stays.left(&plate, at),
            _ => {}
        }
    };
    client.each(&events_of(server, &garage.name), &mut cursor, visit).await?;
    stays.ended = EndedStays::default(); // They ended before this run.
    let mut inside: Vec<(i64, Arc<str>)> =
        stays.inside.iter().map(|(car, since)| (*since, car.clone())).collect();
    inside.sort_unstable();
    // There may be more plates than cars: the oldest of them left without being read.
    let cars = usize::try_from(garage.occupied).unwrap_or(0);
    inside.drain(..inside.len().saturating_sub(cars));
    let inside = inside.into_iter().map(|(_, car)| car).collect();
    Ok(Baseline {
        state: StartingState { occupied: garage.occupied, inside, latest_unix_ms },
        marks: garage.marks.iter().map(|mark| (mark.epoch.clone(), mark.sequence)).collect(),
        stays,
        closed: garage.stays.closed,
        cursor,
    })
}

/// Reads the events of `garage` that the server lists after the baseline.
pub async fn events_after(
    client: &DaemonClient,
    server: &str,
    garage: &str,
    baseline: &Baseline,
) -> Result<ListedEvents, HttpCallError> {
    let mut listed = ListedEvents::default();
    let mut numbers = SequenceCheck { last: baseline.marks.clone(), irregular: None };
    let visit = |event: ListedEvent| {
        if baseline.marks.get(&event.epoch).is_some_and(|mark| event.sequence <= *mark) {
            return; // The page on which the baseline ended begins with events from before it.
        }
        numbers.see(garage, &event);
        match event.at {
            Some(at) => listed.hash.record(&event.kind, event.plate.as_deref(), at.as_nanosecond()),
            None => {
                let timeless = || format!("number {} is listed without a time", event.sequence);
                numbers.irregular.get_or_insert_with(timeless);
            }
        }
    };
    client.each(&events_of(server, garage), &mut baseline.cursor.clone(), visit).await?;
    listed.irregular = numbers.irregular;
    Ok(listed)
}

/// The account of plates that nobody registered. Its month has more lines than a page should have.
const UNREGISTERED: &str = "unregistered";

#[derive(Debug, Deserialize)]
struct ListedCharge {
    state: String,
    garage: String,
    plate: String,
    account: String,
    entered_at: jiff::Timestamp,
    left_at: jiff::Timestamp,
    amount: Option<i64>,
    currency: Option<String>,
    month: String,
    position: u64,
}

/// A statement that is worth a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLink {
    /// An account, or the plate of a car that is on none.
    of: String,
    month: String,
}

impl StatementLink {
    /// The arguments by which `server` prints it, apart from the data directory.
    pub fn command(&self) -> String {
        let plain = self.of.chars().all(|c| c.is_alphanumeric() || c == '-');
        let of = if plain { self.of.clone() } else { format!("'{}'", self.of.replace('\'', "'\\''")) };
        format!("statements show {of} --month {}", self.month)
    }

    pub fn path(&self) -> String {
        format!("/v1/statements/{}?month={}&format=html", percent_encoded(&self.of), self.month)
    }
}

/// Reads the drafts of all charges, by garage. Those at positions after `begins` are of this run.
pub async fn charges(
    client: &DaemonClient,
    server: &str,
    begins: u64,
) -> Result<BTreeMap<String, GarageCharges>, HttpCallError> {
    let mut garages = BTreeMap::new();
    let visit = |charge| add_charge(&mut garages, charge, begins);
    client.each(&format!("{server}/v1/charges?limit=1000"), &mut None, visit).await?;
    Ok(garages)
}

fn add_charge(garages: &mut BTreeMap<String, GarageCharges>, charge: ListedCharge, begins: u64) {
    let garage = garages.entry(charge.garage).or_default();
    if let (Some(amount), Some(currency)) = (charge.amount, &charge.currency) {
        garage.taken.add(amount.into(), currency);
    }
    // What is withdrawn was issued for a stay that is no longer one.
    if charge.state != "withdrawn" {
        garage.stays += 1;
        if charge.position > begins {
            let (entered, left) = (charge.entered_at.as_millisecond(), charge.left_at.as_millisecond());
            garage.of_this_run.record(&charge.plate, entered, left);
        }
    }
}

/// A statement with one of the newest charges, if there are any.
pub async fn newest_statement(
    client: &DaemonClient,
    server: &str,
) -> Result<Option<StatementLink>, HttpCallError> {
    let page: ListPage<ListedCharge> = client.get(&format!("{server}/v1/charges?limit=100")).await?;
    Ok(statement_of(page.items))
}

/// Accounts are shown rather than single cars, and then what cost most.
fn statement_of(charges: Vec<ListedCharge>) -> Option<StatementLink> {
    let charged = charges
        .into_iter()
        .filter(|charge| charge.state == "charged" && charge.amount.is_some_and(|amount| amount > 0));
    let best = charged.max_by_key(|charge| (charge.account != UNREGISTERED, charge.amount))?;
    let of = if best.account == UNREGISTERED { best.plate } else { best.account };
    Some(StatementLink { of, month: best.month })
}

/// The position in the ledger up to which the list of charges goes.
pub async fn charges_position(client: &DaemonClient, server: &str) -> Result<u64, HttpCallError> {
    #[derive(Deserialize)]
    struct Position {
        position: u64,
    }
    Ok(client.get::<Position>(&format!("{server}/v1/charges?limit=1")).await?.position)
}

#[cfg(test)]
mod tests {
    use super::super::money::Takings;
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

    const LIST: &str = r#"{"position":9,"charges":[
        {"id":"v","state":"withdrawn","garage":"A","plate":"P1","account":"unregistered","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","price":null,"amount":null,"currency":"GBP","issued":300,"due":-300,"month":"2016-11","position":9},
        {"id":"y","state":"charged","garage":"A","plate":"P2","account":"unregistered","entered_at":"2016-10-01T11:00:00.5+01:00",
         "left_at":"2016-10-01T12:00:00+01:00","price":200,"amount":200,"currency":"GBP","month":"2016-10","position":8,"breakdown":[{"units":2}]},
        {"id":"z","state":"held","garage":"B","plate":"P3","account":"works","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","price":null,"amount":null,"currency":null,"month":"2016-11","position":7},
        {"id":"x","state":"void","garage":"A","plate":"P1","account":"unregistered","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","price":300,"amount":0,"currency":"GBP","month":"2016-11","position":5},
        {"id":"w","state":"charged","garage":"A","plate":"P1","account":"city works","entered_at":"2016-11-01T10:00:00Z",
         "left_at":"2016-11-01T11:00:00Z","price":300,"amount":100,"currency":"GBP","month":"2016-11","position":5}],"next":null}"#;

    #[test]
    fn what_is_listed_is_summed_and_each_stay_counts_once() {
        let page = || serde_json::from_str::<ListPage<ListedCharge>>(LIST).expect("it is a list").items;
        let mut list = BTreeMap::new();
        page().into_iter().for_each(|charge| add_charge(&mut list, charge, 5));
        let mut taken = Takings::default();
        taken.add(300, "GBP");
        let mut of_this_run = EndedStays::default();
        of_this_run.record("P2", 1_475_316_000_500, 1_475_319_600_000);
        assert_eq!(list["A"], GarageCharges { taken, stays: 3, of_this_run });
        assert_eq!((list["B"].stays, &list["B"].taken), (1, &Takings::default()));
        assert_eq!(list.len(), 2);
        let statement = statement_of(page()).expect("there are two");
        assert_eq!(statement.path(), "/v1/statements/city%20works?month=2016-11&format=html");
        assert_eq!(statement.command(), "statements show 'city works' --month 2016-11");
    }
}
