//! `GET /v1/quarantine`, `GET /v1/damages`: each answer comes from memory and shows one position of the views.

use super::{EventCursor, SharedWeb, parse_cursor, time};
use crate::http::{Paging, Problem, query};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use serde::Serialize;

/// Events that wait, oldest first.
pub(super) async fn quarantine(
    State(web): SharedWeb,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Line {
        garage: String,
        epoch: String,
        sequence: u64,
        position: u64,
        reason: String,
        received_at: String,
    }
    #[derive(Serialize)]
    struct Answer {
        quarantine: Vec<Line>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let after = parse_cursor(paging.after.as_deref(), EventCursor::parse)?;
    let view = web.view();
    let mut waiting = view.waiting_events(after.map(|after| (after.position, after.index)));
    let shown: Vec<_> = waiting.by_ref().take(limit).collect();
    let last = shown.last().map(|(position, index, _)| format!("{position}.{index}"));
    let next = waiting.next().and(last);
    let lines = shown.into_iter().map(|(position, index, page)| Line {
        garage: view.name_of(view.key_of(&page.garage)).to_string(),
        epoch: page.epoch.to_string(),
        sequence: page.first + index as u64,
        position,
        reason: page.reason.clone(),
        received_at: time(page.received_at_ms),
    });
    Ok(Json(Answer { quarantine: lines.collect(), next }))
}

/// What the ledger cannot give any more, oldest first.
pub(super) async fn damages(
    State(web): SharedWeb,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Line {
        from: u64,
        last: u64,
        reason: String,
        found_at: Option<String>,
    }
    #[derive(Serialize)]
    struct Answer {
        damages: Vec<Line>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let after = parse_cursor(paging.after.as_deref(), |text| text.parse::<u64>().ok())?;
    let from = after.map_or(0, |after| after.saturating_add(1));
    let view = web.view();
    let mut wanted = view.damages.range(from..).map(|(_, damage)| damage);
    let damages: Vec<Line> = wanted
        .by_ref()
        .take(limit)
        .map(|damage| Line {
            from: damage.from,
            last: damage.last,
            reason: damage.reason.clone(),
            found_at: damage.found_at_ms.map(time),
        })
        .collect();
    let next = wanted.next().and(damages.last()).map(|line| line.last.to_string());
    Ok(Json(Answer { damages, next }))
}
