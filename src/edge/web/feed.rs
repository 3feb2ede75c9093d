//! The board for those who watch it: `GET /v1/board/stream`.
//!
//! **Promise.** Who watches sees each change within a quarter of a second or so, and what several changes made at once. Nobody who
//! watches costs nothing.
//! **Kept by.** While somebody watches, one task looks [`LOOK_EVERY`] whether anything that is shown is another than before, and
//! encodes the board once for all. The age of the board is not looked at: it grows by itself.

use super::alarm;
use super::board::BoardPage;
use crate::daemon::clock;
use crate::edge::EdgeShared;
use crate::http::events;
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The shortest time between two events.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub struct BoardFeed {
    shared: Arc<EdgeShared>,
    shown: watch::Sender<Bytes>,
    /// Notified when somebody begins to watch.
    watched: Notify,
    stop: CancellationToken,
}

/// What an event was made from.
#[derive(Debug, PartialEq)]
struct Shown {
    revision: u64,
    pending: u64,
    connected: bool,
    alarm: Option<String>,
}

impl BoardFeed {
    pub fn new(shared: Arc<EdgeShared>, stop: CancellationToken) -> Arc<BoardFeed> {
        Arc::new(BoardFeed { shared, shown: watch::Sender::new(Bytes::new()), watched: Notify::new(), stop })
    }

    /// The board as it is now, and its changes from here on.
    pub fn watch(&self) -> Response {
        let shown = self.shown.subscribe();
        let (first, _) = self.event();
        self.watched.notify_one();
        events::answer(first, shown, self.stop.clone())
    }

    fn event(&self) -> (Bytes, Option<Timestamp>) {
        let page = BoardPage::of(&self.shared);
        let json = serde_json::to_vec(&page).expect("a board always encodes");
        (events::event("board", &json), page.changes_at)
    }

    fn looked_at(&self) -> Shown {
        // One lock at a time: in one expression all would be held to its end, and the alarm needs that of sending, too.
        let revision = self.shared.display().revision();
        let connected = self.shared.sending().connected;
        let alarm = alarm(&self.shared).map(|alarm| alarm.text);
        Shown { revision, pending: self.shared.outbox.waiting(), connected, alarm }
    }

    /// Shows changes to those who watch, until `stop`.
    pub async fn keep_showing(self: Arc<BoardFeed>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                self.watched.notified().await;
                self.show_while_watched().await;
            }
        })
        .await;
    }

    async fn show_while_watched(&self) {
        let (mut before, mut changes_at) = (None, None);
        while self.shown.receiver_count() > 0 {
            let now = self.looked_at();
            let by_time = changes_at.is_some_and(|at| at <= clock::now());
            if by_time || before.as_ref() != Some(&now) {
                let event;
                (event, changes_at) = self.event();
                before = Some(now);
                self.shown.send_replace(event);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
