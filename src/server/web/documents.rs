//! `GET /v1/documents` and `GET /v1/documents/{number}`.

use super::{HttpAnswer, ServerWeb, SharedWeb};
use crate::codes;
use crate::http::{Problem, Query, bad_query, cursor, list_limit};
use crate::parking::Plate;
use crate::parking::document::{DocumentError, Rendering};
use crate::parking::journal::Debtor;
use crate::parking::register::Account;
use crate::server::books::known;
use crate::server::documents::{ShowDocumentError, checked, document_file, write_rendering};
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
use bytes::Bytes;
use serde::Deserialize;
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

#[derive(Deserialize)]
pub(super) struct DocumentsQuery {
    account: Option<String>,
    /// Those of an unregistered car; with `account` nothing is both.
    plate: Option<String>,
    month: Option<String>,
    open: Option<bool>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The documents that were issued, and what of each is paid.
pub(super) async fn documents(State(web): SharedWeb, Query(asked): Query<DocumentsQuery>) -> HttpAnswer {
    let limit = list_limit(asked.limit)?;
    let after = cursor(asked.after.as_deref(), DocumentCursor::parse)?;
    let list = move |web: &ServerWeb| {
        let store = web.ledger.store();
        let wanted = || {
            let account =
                known(&asked.account, |account| Some(Debtor::Account(Account::new(account).ok()?)))?;
            let car = known(&asked.plate, |plate| Some(Debtor::Plate(Plate::new(plate).ok()?)))?;
            let debtor = match (account, car) {
                (Some(_), Some(_)) => return None,
                (account, car) => account.or(car),
            };
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
        let saving = Some(web.live.saving());
        ReceivablesReader { store, saving, term: web.plate_term() }.documents(&wanted)
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
    send(&web, media_type, rendering, vec![number], AnswerFrame::default()).await
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

/// What stands around documents that are sent as one answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerFrame {
    pub before: &'static str,
    pub between: &'static str,
    pub after: &'static str,
}

/// Sends documents as they were issued. They are rendered while the client reads: a long one takes no more memory than a short one.
pub(super) async fn send(
    web: &Arc<ServerWeb>,
    media_type: &'static str,
    rendering: Rendering,
    numbers: Vec<String>,
    frame: AnswerFrame,
) -> HttpAnswer {
    let turn = ServerWeb::turn(&web.documents).await?;
    let (begin, begun) = oneshot::channel();
    let web = Arc::clone(web);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        render_to(begin, &web, rendering, &numbers, frame);
    });
    let chunks = begun.await.map_err(|error| Problem::internal(&error))??;
    let next = |mut chunks: mpsc::Receiver<Chunk>| async { chunks.recv().await.map(|chunk| (chunk, chunks)) };
    let body = Body::from_stream(futures_util::stream::unfold(chunks, next));
    Ok(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

type Chunk = io::Result<Bytes>;
const CHUNK_BYTES: usize = 64 << 10;
/// How far rendering is ahead of the reader.
const CHUNKS_AHEAD: usize = 8;

/// Checks all documents, and gives their bytes chunk by chunk from then on.
fn render_to(
    begin: oneshot::Sender<Result<mpsc::Receiver<Chunk>, Problem>>,
    web: &ServerWeb,
    rendering: Rendering,
    numbers: &[String],
    frame: AnswerFrame,
) {
    let files = numbers.iter().map(|number| document_file(&web.ledger, number, web.plate_term()));
    let files: Result<Vec<_>, _> = files.collect();
    let documents = files.as_ref().map_err(problem).and_then(|files| {
        let checked = files.iter().map(|file| checked(file, rendering).map_err(|error| problem(&error)));
        checked.collect::<Result<Vec<_>, Problem>>()
    });
    let documents = match documents {
        Ok(documents) => documents,
        Err(problem) => {
            let _ = begin.send(Err(problem));
            return;
        }
    };
    let (chunks, read) = mpsc::channel(CHUNKS_AHEAD);
    if begin.send(Ok(read)).is_err() {
        return;
    }
    let mut out = ChunkWriter { chunks, buffer: Vec::new(), skips_line: false };
    let mut write = || -> Result<(), DocumentError> {
        out.write_all(frame.before.as_bytes())?;
        for (at, document) in documents.iter().enumerate() {
            if at > 0 {
                out.write_all(frame.between.as_bytes())?;
                // A table has one header.
                out.skips_line = rendering == Rendering::Csv;
            }
            write_rendering(document, rendering, &mut out)?;
        }
        out.write_all(frame.after.as_bytes())?;
        Ok(out.flush()?)
    };
    if let Err(error) = write() {
        // The client sees that the answer is not complete, unless it left.
        let _ = out.chunks.blocking_send(Err(io::Error::other(error)));
    }
}

fn problem(error: &ShowDocumentError) -> Problem {
    match error {
        ShowDocumentError::Unknown(_) => {
            Problem::new(StatusCode::NOT_FOUND, error.to_string()).code(codes::NO_SUCH_DOCUMENT)
        }
        error => Problem::internal(error),
    }
}

/// Hands chunks on to the answer, and waits while the client has others to read.
struct ChunkWriter {
    chunks: mpsc::Sender<Chunk>,
    buffer: Vec<u8>,
    /// The bytes to the end of the line are left out.
    skips_line: bool,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line_end = bytes.iter().position(|byte| *byte == b'\n').filter(|_| self.skips_line);
        self.skips_line &= line_end.is_none();
        if !self.skips_line {
            self.buffer.extend_from_slice(&bytes[line_end.map_or(0, |at| at + 1)..]);
        }
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}
