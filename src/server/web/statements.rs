//! `GET /v1/statements/{account or plate}`.

use super::{HttpAnswer, SharedWeb};
use crate::codes;
use crate::http::{Problem, Query, bad_query};
use crate::parking::Month;
use crate::parking::document::Rendering;
use crate::parking::money::Currency;
use crate::server::books::{BooksError, Whose};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// A longer statement is not made here: its page would take hundreds of megabytes.
const LINES_MAX: usize = 20_000;
const WAITS: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
pub(super) struct StatementQuery {
    month: Option<String>,
    of: Option<String>,
    format: Option<String>,
    /// Of a statement in several currencies; without it, the first in their order is shown.
    currency: Option<String>,
}

/// The media type of a format.
pub(super) fn format(name: Option<&str>) -> Result<(&'static str, Rendering), Problem> {
    Ok(match name.unwrap_or("json") {
        "json" => ("application/json", Rendering::Json),
        "html" => ("text/html; charset=utf-8", Rendering::Html),
        "csv" => ("text/csv; charset=utf-8", Rendering::Csv),
        "text" => ("text/plain; charset=utf-8", Rendering::Text),
        other => {
            return Err(bad_query(format!(
                "format: {other:?} is not a format. The formats are json, html, csv and text"
            )));
        }
    })
}

/// The statement of an account for a month, else the look at one car.
pub(super) async fn statement(
    State(web): SharedWeb,
    whose: Result<Path<String>, PathRejection>,
    Query(asked): Query<StatementQuery>,
) -> HttpAnswer {
    let Path(whose) = whose.map_err(|error| bad_query(error.body_text()))?;
    let month =
        asked.month.ok_or_else(|| bad_query("month: it is missing. A month looks like 2026-11".into()))?;
    let month: Month = month.parse().map_err(|error| bad_query(format!("month: {error}")))?;
    let (account, plate) = match asked.of.as_deref() {
        None => (true, true),
        Some("account") => (true, false),
        Some("plate") => (false, true),
        Some(other) => return Err(bad_query(format!("of: {other:?} is not valid. Use account or plate"))),
    };
    let (media_type, rendering) = format(asked.format.as_deref())?;
    // A request whose client has left cannot be distinguished from others, so no request waits long.
    let Ok(turn) = timeout(WAITS, web.statements.lock()).await else {
        let detail = "other statements are being made. Nothing was changed; ask again in a moment";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5));
    };
    let body = web.in_turn(&web.readers, move |web| {
        let wanted = [
            account.then(|| Whose::Account(whose.clone())),
            plate.then(|| Whose::Plate(whose.clone())),
        ];
        for of in wanted.iter().flatten() {
            match web.books().draft(&web.operator.issuer, month, of, LINES_MAX) {
                Ok(None) => {}
                Ok(Some(draft)) => {
                    let wanted = |its: &Currency| asked.currency.as_ref().is_none_or(|code| its.code() == code);
                    if let Some(currency) = draft.currencies().find(wanted) {
                        return Ok(Ok(draft.render(currency, rendering)?));
                    }
                }
                Err(BooksError::TooLong { .. }) => {
                    let detail = format!(
                        "the statement of {whose:?} for {month} has more than {LINES_MAX} lines. \"server statements show\" prints it, GET /v1/charges?account=&month= lists it"
                    );
                    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
                    return Ok(Err(problem.code(codes::STATEMENT_TOO_LONG)));
                }
                Err(error) => return Err(error),
            }
        }
        let detail = format!(
            "{whose:?} is neither an account nor a plate that was charged in {month}; GET /v1/charges shows what was"
        );
        Ok(Err(Problem::new(StatusCode::NOT_FOUND, detail).code(codes::NO_SUCH_STATEMENT)))
    });
    let body = body.await?;
    drop(turn);
    Ok(([(header::CONTENT_TYPE, media_type)], Body::from(body?)).into_response())
}
