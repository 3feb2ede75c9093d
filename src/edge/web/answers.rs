//! The JSON of the answers of an edge.

use crate::codes::Code;
use crate::messaging::outbox::OutboxDamage;
use crate::parking::event::EventJson;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct ConfirmedEvent {
    pub sequence: u64,
    pub epoch: String,
}

#[derive(Serialize)]
pub(super) struct ConfirmedBatch {
    pub first: u64,
    pub last: u64,
    pub epoch: String,
}

/// `GET /v1/outbox`.
#[derive(Serialize)]
pub(super) struct OutboxState {
    pub garage: String,
    pub epoch: String,
    pub next_sequence: u64,
    pub acknowledged: u64,
    pub depth: u64,
    pub bytes: u64,
    pub oldest_age_seconds: Option<f64>,
    pub in_flight: u64,
    pub resends: u64,
    pub connected: bool,
    pub last_acknowledged_at: Option<String>,
    pub server: Option<String>,
    pub ledger: Option<String>,
    /// Why the queue waits, when it does not wait for the network.
    pub alarm: Option<String>,
    pub alarm_code: Option<Code>,
    /// What the server wants a person here to know.
    pub notice: Option<String>,
    /// Why events are refused at the moment.
    pub full: Option<String>,
    pub epochs: usize,
    pub keys_remembered: u64,
    pub clock: ClockAnswer,
    /// Events that were confirmed and could not be read any more when this process started.
    pub damages: Vec<OutboxDamage>,
}

#[derive(Serialize)]
pub(super) struct ClockAnswer {
    pub set: bool,
    pub server_ahead_seconds: Option<f64>,
}

/// `GET /v1/outbox/events`.
#[derive(Serialize)]
pub(super) struct WaitingEvents {
    pub epoch: String,
    pub events: Vec<WaitingEvent>,
    pub next: Option<String>,
}

#[derive(Serialize)]
pub(super) struct WaitingEvent {
    pub epoch: String,
    pub sequence: u64,
    /// `None`: this program does not understand the event.
    #[serde(flatten)]
    pub event: Option<EventJson>,
}
