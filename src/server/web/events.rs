//! `GET /v1/events`.

use super::{HttpAnswer, ServerWeb, SharedWeb, StreamMark, event_cursor};
use crate::http::{Query, cursor, list_limit};
use crate::messaging::SiteName;
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::parking::event::EventJson;
use crate::parking::{Event, Moment};
use crate::server::ledger::{LedgerPages, PageAt};
use crate::store::StoreError;
use axum::extract::State;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    garage: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    evidence: bool,
}

/// What the clocks of the garage showed when the event was taken: evidence, not truth.
#[derive(Serialize)]
struct Evidence {
    taken_at: String,
    monotonic_ms: u64,
    boot: String,
    clock_set: bool,
}

impl Evidence {
    fn of(page: &crate::messaging::page::Page, after_ms: u32) -> Evidence {
        let begun = &page.begun;
        Evidence {
            taken_at: Moment::utc_text(begun.wall_ms.saturating_add(after_ms.into())),
            monotonic_ms: begun.monotonic_ms.saturating_add(after_ms.into()),
            boot: uuid::Uuid::from_bytes(begun.boot).to_string(),
            clock_set: begun.set,
        }
    }
}

#[derive(Serialize)]
struct EventLine {
    garage: String,
    epoch: String,
    sequence: u64,
    position: u64,
    #[serde(flatten)]
    event: Option<EventJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_understood: Option<String>,
    received_at: String,
    /// Where it was confirmed, when a decided conflict moved it to another epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<StreamMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
}

/// Positions between the events that cannot be read any more.
#[derive(Serialize)]
struct Damaged {
    from: u64,
    last: u64,
    reason: String,
}
#[derive(Serialize)]
struct EventsAnswer {
    events: Vec<EventLine>,
    next: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<Damaged>,
}

pub(super) async fn events(State(web): SharedWeb, Query(asked): Query<EventsQuery>) -> HttpAnswer {
    let limit = list_limit(asked.limit)?;
    let after = cursor(asked.after.as_deref(), event_cursor)?;
    web.answer_in_turn(&web.readers, move |web| read(web, &asked, after, limit)).await
}

/// The events behind `after`, at most `limit`. What was delivered and applied meanwhile may be among them.
fn read(
    web: &ServerWeb,
    asked: &EventsQuery,
    after: Option<(u64, usize)>,
    limit: usize,
) -> Result<EventsAnswer, StoreError> {
    let garage = asked.garage.as_deref().map(|name| SiteName::new(name).ok());
    let garage = garage.map(|site| {
        let view = web.view();
        site.map_or_else(Vec::new, |site| view.sites_of(view.key_of(&site)))
    });
    let from = after.map_or(0, |(position, _)| position);
    // One event more than requested shows whether there is a next page. The first page may be read already.
    let mut wanted = limit + 1 + after.map_or(0, |(_, index)| index + 1);
    let enough = |page: &PageAt| {
        wanted = wanted.saturating_sub(page.page.count() as usize);
        wanted == 0
    };
    let LedgerPages { pages, damaged, go_on_after } = match &garage {
        None => web.ledger.pages(from, enough)?,
        Some(sites) => web.ledger.pages_of(sites, from, enough)?,
    };
    let view = web.view();
    let mut lines = Vec::with_capacity(limit);
    let mut last = None;
    let mut more = false;
    'pages: for page in pages {
        let Content::Records(records) = &page.page.content else {
            continue;
        };
        for (index, record) in records.iter().enumerate() {
            if after.is_some_and(|after| (page.position, index) <= after) {
                continue;
            }
            if lines.len() == limit {
                more = true;
                break 'pages;
            }
            last = Some(format!("{}.{index}", page.position));
            let event = Event::from_bytes(&record.payload);
            lines.push(EventLine {
                garage: view.name_of(view.key_of(&page.site)).to_string(),
                epoch: page.page.epoch.to_string(),
                sequence: page.page.first.get() + index as u64,
                position: page.position,
                not_understood: event.as_ref().err().map(ToString::to_string),
                event: event.ok().map(EventJson::from),
                received_at: Moment::utc_text(page.received_at_ms),
                moved_from: page.page.moved_from.map(|(epoch, first)| StreamMark {
                    epoch: epoch.to_string(),
                    sequence: first.get() + index as u64,
                }),
                evidence: asked.evidence.then(|| Evidence::of(&page.page, record.after_ms)),
            });
        }
    }
    let damaged = damaged.into_iter().map(|(from, last, reason)| Damaged { from, last, reason }).collect();
    let next = match (more, go_on_after) {
        (true, _) => last,
        // After all events of the page at that position.
        (false, at) => at.map(|position| format!("{position}.{}", RECORDS_MAX - 1)),
    };
    Ok(EventsAnswer { events: lines, next, damaged })
}
