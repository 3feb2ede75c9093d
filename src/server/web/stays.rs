//! `GET /v1/stays` and `GET /v1/review`.

use super::{HttpAnswer, ServerWeb, SharedWeb};
use crate::http::{self, Query, list_limit};
use crate::parking::Plate;
use crate::parking::event::Moment;
use crate::parking::stay::End;
use crate::server::books::known;
use crate::server::commands::answers;
use crate::server::ledger::Ledger;
use crate::server::view::list::{self, ListedStay, StayFilter};
use crate::server::view::review;
use crate::server::view::{SlotAddress, StoredPassage, written_position};
use crate::store::StoreError;
use axum::extract::State;
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
struct StayLine {
    garage: String,
    plate: String,
    entered_at: String,
    left_at: Option<String>,
    entry: EventRef,
    exit: Option<EventRef>,
    state: &'static str,
}

#[derive(Serialize)]
struct EventRef {
    epoch: String,
    sequence: u64,
    position: u64,
}

impl EventRef {
    fn new(ledger: &Ledger, passage: &StoredPassage) -> Result<EventRef, StoreError> {
        Ok(EventRef {
            epoch: ledger.epoch_of(passage.stream())?.to_string(),
            sequence: passage.sequence,
            position: passage.position,
        })
    }
}

impl StayLine {
    fn new(ledger: &Ledger, garage: String, stay: &ListedStay) -> Result<StayLine, StoreError> {
        let exit = stay.end.exit();
        Ok(StayLine {
            garage,
            plate: stay.plate.to_string(),
            entered_at: at(&stay.entry),
            left_at: exit.map(at),
            entry: EventRef::new(ledger, &stay.entry)?,
            // One that an operator made has no event.
            exit: exit.filter(|exit| !exit.is_made()).map(|exit| EventRef::new(ledger, exit)).transpose()?,
            state: if stay.end == End::Inside { "open" } else { "closed" },
        })
    }
}

/// As its source wrote it.
fn at(passage: &StoredPassage) -> String {
    Moment::from_ms(passage.at_ms, passage.offset_minutes).to_string()
}

fn cursor(SlotAddress { garage, page, slot }: SlotAddress) -> String {
    format!("{garage}.{page}.{slot}")
}

fn parse_address(text: &str) -> Option<SlotAddress> {
    let mut parts = text.split('.');
    let address = SlotAddress {
        garage: parts.next()?.parse().ok()?,
        page: parts.next()?.parse().ok()?,
        slot: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(address)
}

/// Stays of one plate, one garage, open or closed, or all; the newest first within a garage or of a plate.
pub(super) async fn stays(State(web): SharedWeb, Query(asked): Query<StaysQuery>) -> HttpAnswer {
    #[derive(Serialize, Default)]
    struct Answer {
        /// The views' position: later events are not shown yet.
        position: u64,
        stays: Vec<StayLine>,
        next: Option<String>,
    }
    let limit = list_limit(asked.limit)?;
    let after = http::cursor(asked.after.as_deref(), parse_address)?;
    let is_open = |state: &str| match state {
        "open" => Some(true),
        "closed" => Some(false),
        _ => None,
    };
    let list = move |web: &ServerWeb| {
        let wanted = || {
            Some(StayFilter {
                plate: known(&asked.plate, |plate| Plate::new(plate).ok())?,
                garage: known(&asked.garage, |name| web.view().number_of(name))?,
                open: known(&asked.state, is_open)?,
                after,
                limit,
            })
        };
        let Some(wanted) = wanted() else {
            let position = written_position(web.ledger.store())?.unwrap_or_default();
            return Ok(Answer { position, ..Answer::default() });
        };
        let (position, list) = list::list(web.ledger.store(), Some(web.live.saving()), &wanted)?;
        // After the list: a garage that it shows is known by now.
        let view = web.view();
        let name = |stay: &ListedStay| view.name_of_number(stay.address.garage);
        let next = list.next.map(cursor);
        let lines = list.stays.iter().map(|stay| StayLine::new(&web.ledger, name(stay), stay));
        let stays = lines.collect::<Result<_, StoreError>>()?;
        Ok::<_, StoreError>(Answer { position, stays, next })
    };
    web.answer_in_turn(&web.readers, list).await
}

/// What a person may want to repair, with the commands: what `server stays review` shows. It reads all stays, so that it may take
/// minutes, and is made for one request at a time.
pub(super) async fn review(State(web): SharedWeb) -> HttpAnswer {
    let look = |web: &ServerWeb| {
        let found = review::review(web.ledger.store()).map_err(|error| error.to_string())?;
        answers::review(&web.view(), &web.ledger, &found).map_err(|error| error.to_string())
    };
    web.answer_in_turn(&web.reviews, look).await
}
