//! `GET /v1/quarantine`, `GET /v1/damages`: each answer comes from memory and shows one position of the views.

use super::{HttpAnswer, SharedWeb, event_cursor};
use crate::http::{Paging, Query, cursor, list_limit};
use crate::parking::Moment;
use crate::server::listed::{self, QuarantineLine};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;

pub(super) async fn quarantine(State(web): SharedWeb, Query(paging): Query<Paging>) -> HttpAnswer {
    #[derive(Serialize)]
    struct Answer {
        quarantine: Vec<QuarantineLine>,
        next: Option<String>,
    }
    let limit = list_limit(paging.limit)?;
    let after = cursor(paging.after.as_deref(), event_cursor)?;
    let (lines, next) = listed::quarantine(&web.view(), after, limit);
    let quarantine = lines.into_iter().map(|(_, line)| line).collect();
    Ok(Json(Answer { quarantine, next }).into_response())
}

/// What the ledger cannot give any more, oldest first.
pub(super) async fn damages(State(web): SharedWeb, Query(paging): Query<Paging>) -> HttpAnswer {
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
    let limit = list_limit(paging.limit)?;
    let after = cursor(paging.after.as_deref(), |text| text.parse::<u64>().ok())?;
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
            found_at: damage.found_at_ms.map(Moment::utc_text),
        })
        .collect();
    let next = wanted.next().and(damages.last()).map(|line| line.last.to_string());
    Ok(Json(Answer { damages, next }).into_response())
}
