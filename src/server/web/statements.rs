//! `GET /v1/statements/{account or plate}`.

use super::documents::{self, AnswerFrame, format};
use super::{HttpAnswer, ServerWeb, SharedWeb};
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
use axum::response::{Html, IntoResponse};
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

/// The documents of an account for a month, or its draft; else those of one car.
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
    let wanted = [account.then(|| Whose::Account(whose.clone())), plate.then(|| Whose::Plate(whose.clone()))];
    let found = web
        .in_turn(&web.readers, move |web| {
            for of in wanted.iter().flatten() {
                if let Some(found) = find(web, of, month, asked.currency.as_deref(), rendering)? {
                    return Ok(Some(found));
                }
            }
            Ok::<_, BooksError>(None)
        })
        .await?;
    drop(turn);
    match found {
        Some(FoundStatement::Draft(draft)) => {
            Ok(([(header::CONTENT_TYPE, media_type)], Body::from(draft)).into_response())
        }
        Some(FoundStatement::Issued(numbers)) if rendering == Rendering::Html && numbers.len() > 1 => {
            Ok(Html(links(month, &numbers)).into_response())
        }
        Some(FoundStatement::Issued(numbers)) => {
            let frame = match rendering {
                Rendering::Json => AnswerFrame { before: "{\"documents\":[", between: ",", after: "]}\n" },
                Rendering::Csv => AnswerFrame::default(),
                Rendering::Text | Rendering::Html => AnswerFrame { between: "\n", ..AnswerFrame::default() },
            };
            documents::send(&web, media_type, rendering, numbers, frame).await
        }
        Some(FoundStatement::TooLong) => {
            let detail = format!(
                "the statement of {whose:?} for {month} has more than {LINES_MAX} lines. \"server statements show\" prints it, GET /v1/charges?account=&month= lists it"
            );
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
            Err(problem.code(codes::STATEMENT_TOO_LONG))
        }
        None => {
            let detail = format!(
                "{whose:?} is neither an account nor a plate that was charged in {month}; GET /v1/charges shows what was"
            );
            Err(Problem::new(StatusCode::NOT_FOUND, detail).code(codes::NO_SUCH_STATEMENT))
        }
    }
}

/// What there is of a month.
enum FoundStatement {
    Draft(Vec<u8>),
    /// The numbers of its documents.
    Issued(Vec<String>),
    TooLong,
}

/// `None`: nothing was charged in the currency.
fn find(
    web: &ServerWeb,
    of: &Whose,
    month: Month,
    currency: Option<&str>,
    rendering: Rendering,
) -> Result<Option<FoundStatement>, BooksError> {
    let is_wanted = |its: &Currency| currency.is_none_or(|code| its.code() == code);
    let mut issued = web.books().issued((month, of), web.plate_term())?;
    if !issued.is_empty() {
        issued.retain(|its| is_wanted(&its.currency));
        let numbers: Vec<String> = issued.into_iter().map(|its| its.number).collect();
        return Ok((!numbers.is_empty()).then_some(FoundStatement::Issued(numbers)));
    }
    let draft = match web.books().draft(&web.operator.issuer, month, of, LINES_MAX) {
        Err(BooksError::TooLong { .. }) => return Ok(Some(FoundStatement::TooLong)),
        draft => draft?,
    };
    let Some(draft) = draft else { return Ok(None) };
    let Some(currency) = draft.currencies().find(is_wanted) else { return Ok(None) };
    Ok(Some(FoundStatement::Draft(draft.render(currency, rendering)?)))
}

/// A page that names the documents of a month.
fn links(month: Month, numbers: &[String]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Documents for {month}</title></head>\n<body>\n<h1>Documents for {month}</h1>\n<ul>\n"
    );
    for number in numbers {
        page += &format!("<li><a href=\"/v1/documents/{number}?format=html\">{number}</a></li>\n");
    }
    page + "</ul>\n</body>\n</html>\n"
}
