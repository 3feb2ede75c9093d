//! Server-sent events: answers that go on for as long as somebody reads them.
//!
//! **Promise.** A reader gets what is shown at once, and then each time it changes; a reader that is slow gets the newest, not all. A
//! comment every 15 s shows that the other end is there. The answer ends when the daemon stops.
//! **Kept by.** What is shown is encoded once for all readers, who share its bytes; hyper asks for the next only
//! when there is room for it.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Marks an answer that has no end of its own: it is not a long one that a client reads too slowly.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenEnded;

/// An event with this name, whose data is one line of JSON.
pub fn event(name: &str, json: &[u8]) -> Bytes {
    [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"].concat().into()
}

struct EventReader {
    first: Option<Bytes>,
    shown: watch::Receiver<Bytes>,
    comments: Interval,
    stop: CancellationToken,
}

impl EventReader {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            changed = self.shown.changed() => changed.ok().map(|()| self.shown.borrow_and_update().clone()),
            _ = self.comments.tick() => Some(Bytes::from_static(b": still here\n\n")),
        }
    }
}

/// Answers with `first`, then with each event that `shown` gets.
pub fn answer(first: Bytes, shown: watch::Receiver<Bytes>, stop: CancellationToken) -> Response {
    let mut comments = interval_at(Instant::now() + COMMENT_EVERY, COMMENT_EVERY);
    comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reader = EventReader { first: Some(first), shown, comments, stop };
    let events = unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let mut response =
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response();
    response.extensions_mut().insert(OpenEnded);
    response
}
