//! `GET /v1/documents` and `GET /v1/documents/{number}`.

use super::statements::format;
use super::{HttpAnswer, SharedWeb};
use crate::codes;
use crate::daemon::clock;
use crate::http::{Problem, Query, bad_query, cursor, list_limit};
use crate::parking::journal::Debtor;
use crate::parking::register::Account;
use crate::server::books::known;
use crate::server::documents::{ShowDocumentError, document_file, rendered};
use crate::server::receivables::{
    DocumentCursor, DocumentFilter, DocumentsAnswer, DocumentsShown, ReceivablesReader,
};
use crate::server::view::written_position;
use crate::store::StoreError;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct DocumentsQuery {
    account: Option<String>,
    month: Option<String>,
    open: Option<bool>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The documents that were issued, and what of each is paid.
pub(super) async fn documents(State(web): SharedWeb, Query(asked): Query<DocumentsQuery>) -> HttpAnswer {
    let limit = list_limit(asked.limit)?;
    let after = cursor(asked.after.as_deref(), DocumentCursor::parse)?;
    let list = move |web: &super::ServerWeb| {
        let store = web.ledger.store();
        let wanted = || {
            let debtor = known(&asked.account, |account| Some(Debtor::Account(Account::new(account).ok()?)))?;
            let month = known(&asked.month, |month| month.parse().ok())?;
            let shown = match asked.open {
                Some(true) => DocumentsShown::Open { days: None },
                _ => DocumentsShown::All,
            };
            Some(DocumentFilter { debtor, month, shown, after, limit })
        };
        let Some(wanted) = wanted() else {
            let position = written_position(store)?.unwrap_or_default();
            return Ok::<_, StoreError>(DocumentsAnswer { position, ..DocumentsAnswer::default() });
        };
        let now = Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default();
        let today = web.operator.time_zone.to_datetime(now).date();
        ReceivablesReader { store, saving: Some(web.live.saving()), today }.documents(&wanted)
    };
    web.answer_in_turn(&web.readers, list).await
}

#[derive(Deserialize)]
pub(super) struct DocumentQuery {
    format: Option<String>,
}

/// One document as it was issued.
pub(super) async fn document(
    State(web): SharedWeb,
    number: Result<Path<String>, PathRejection>,
    Query(asked): Query<DocumentQuery>,
) -> HttpAnswer {
    let Path(number) = number.map_err(|error| bad_query(error.body_text()))?;
    let (media_type, rendering) = format(asked.format.as_deref())?;
    let read = move |web: &super::ServerWeb| {
        let shown = document_file(&web.ledger, &number).and_then(|file| rendered(&file, rendering));
        match shown {
            Ok((_, rendered)) => Ok(Ok(rendered)),
            Err(error @ ShowDocumentError::Unknown(_)) => {
                let detail = error.to_string();
                Ok(Err(Problem::new(StatusCode::NOT_FOUND, detail).code(codes::NO_SUCH_DOCUMENT)))
            }
            Err(error) => Err(error),
        }
    };
    let body = web.in_turn(&web.renderers, read).await??;
    Ok(([(header::CONTENT_TYPE, media_type)], Body::from(body)).into_response())
}
