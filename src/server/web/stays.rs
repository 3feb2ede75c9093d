//! `GET /v1/stays`.

use super::{Shared, Web};
use crate::http::{Paging, Problem, bad_cursor, query};
use crate::parking::Plate;
use crate::parking::event::Moment;
use crate::parking::stay::End;
use crate::server::ledger::Ledger;
use crate::server::view::list::{self, Listed, Wanted};
use crate::server::view::{Address, Passage};
use crate::store::StoreError;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub(super) struct StaysQuery {
    plate: Option<String>,
    garage: Option<String>,
    state: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Line {
    garage: String,
    plate: String,
    entered_at: String,
    left_at: Option<String>,
    entry: Event,
    exit: Option<Event>,
    state: &'static str,
}

/// Which event it was.
#[derive(Serialize)]
struct Event {
    epoch: String,
    sequence: u64,
    position: u64,
}

impl Event {
    fn new(ledger: &Ledger, passage: &Passage) -> Result<Event, StoreError> {
        Ok(Event {
            epoch: ledger.stream(passage.stream())?.epoch.to_string(),
            sequence: passage.sequence,
            position: passage.position,
        })
    }
}

impl Line {
    fn new(ledger: &Ledger, garage: String, stay: &Listed) -> Result<Line, StoreError> {
        let exit = match &stay.end {
            End::Left(exit) => Some(exit),
            End::Inside | End::Unseen => None,
        };
        Ok(Line {
            garage,
            plate: stay.plate.to_string(),
            entered_at: at(&stay.entry),
            left_at: exit.map(at),
            entry: Event::new(ledger, &stay.entry)?,
            // One that an operator made has no event.
            exit: exit.filter(|exit| !exit.is_made()).map(|exit| Event::new(ledger, exit)).transpose()?,
            state: if stay.end == End::Inside { "open" } else { "closed" },
        })
    }
}

/// As its source wrote it.
fn at(passage: &Passage) -> String {
    Moment::from_ms(passage.at_ms, passage.offset_minutes).to_string()
}

fn cursor(Address { garage, page, slot }: Address) -> String {
    format!("{garage}.{page}.{slot}")
}

fn parse_cursor(text: &str) -> Option<Address> {
    let mut parts = text.split('.');
    let address = Address {
        garage: parts.next()?.parse().ok()?,
        page: parts.next()?.parse().ok()?,
        slot: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(address)
}

/// Stays of one plate, one garage, open or closed, or all; the newest first within a garage or of a plate.
pub(super) async fn stays(
    State(web): Shared,
    asked: Result<Query<StaysQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    #[derive(Serialize, Default)]
    struct Answer {
        /// The views' position: later events are not shown yet.
        position: u64,
        stays: Vec<Line>,
        next: Option<String>,
    }
    let asked = query(asked)?;
    let limit = Paging { after: None, limit: asked.limit }.limit()?;
    let after = match &asked.after {
        Some(text) => Some(parse_cursor(text).ok_or_else(|| bad_cursor(text))?),
        None => None,
    };
    let garage = asked.garage.as_ref().map(|name| web.view().number_of(name));
    let plate = asked.plate.as_ref().map(|plate| Plate::new(plate).ok());
    let open = asked.state.as_deref().map(|state| match state {
        "open" => Some(true),
        "closed" => Some(false),
        _ => None,
    });
    let list = move |web: &Web| {
        // What nobody has, nobody finds.
        let (Some(garage), Some(plate), Some(open)) = (known(garage), known(plate), known(open)) else {
            let position = crate::server::view::written_position(&web.store)?.unwrap_or_default();
            return Ok(Answer { position, ..Answer::default() });
        };
        let list =
            list::list(&web.store, Some(web.live.saving()), &Wanted { plate, garage, open, after, limit })?;
        // After the list: a garage that it shows is known by now.
        let view = web.view();
        let name = |stay: &Listed| view.name_of_number(stay.address.garage);
        let next = list.next.map(cursor);
        let lines = list.stays.iter().map(|stay| Line::new(&web.ledger, name(stay), stay));
        let stays = lines.collect::<Result<_, StoreError>>()?;
        Ok::<_, StoreError>(Answer { position: list.position, stays, next })
    };
    web.answer_in_turn(&web.readers, list).await
}

/// A filter that was not given filters nothing; one whose value is unknown finds nothing, which is `None`.
fn known<T>(filter: Option<Option<T>>) -> Option<Option<T>> {
    match filter {
        None => Some(None),
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
    }
}
