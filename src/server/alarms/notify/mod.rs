//! Brings notifications to their receivers.
//!
//! **Promise.** A receiver that is slow, away or broken costs one task and its waiting line, and disturbs nobody else. Every attempt ends.

mod email;
mod webhook;

use super::id::AlarmId;
use super::state::AlarmEvent;
use super::waiting::Notification;
use super::{Alarms, notification};
use crate::codes;
use crate::config::{Channel, NotifyConfig};
use crate::server::view::Snapshot;
use email::Email;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use webhook::Webhook;
use zeroize::Zeroizing;

/// How long one attempt may take.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Somebody who is notified.
pub struct Receiver {
    config: NotifyConfig,
    channel: OpenChannel,
}

enum OpenChannel {
    Webhook(Webhook),
    Email(Email),
}

/// What a receiver gets.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(flatten)]
    notification: &'a Notification,
    /// The id of the ledger.
    server: &'a str,
}

impl Receiver {
    /// Reads its secret.
    pub fn open(config: &NotifyConfig) -> Result<Receiver, String> {
        let channel = match &config.channel {
            Channel::Webhook { url, secret_file } => {
                Webhook::open(url, secret_file).map(OpenChannel::Webhook)
            }
            Channel::Email(email) => Email::open(email).map(OpenChannel::Email),
        };
        let channel = channel
            .map_err(|why| format!("[[notify]] {:?}: {why}. Nothing was opened or changed", config.name))?;
        Ok(Receiver { config: config.clone(), channel })
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    fn kind(&self) -> &'static str {
        match self.channel {
            OpenChannel::Webhook(_) => "webhook",
            OpenChannel::Email(_) => "email",
        }
    }

    pub fn wants(&self, view: &Snapshot, id: &AlarmId) -> bool {
        let NotifyConfig { codes, garages, .. } = &self.config;
        let of_garage =
            |key| view.sites_of(key).iter().chain([view.name_of(key)]).any(|name| garages.contains(name));
        (codes.is_empty() || codes.contains(&id.code))
            && (garages.is_empty() || id.garage.as_ref().is_some_and(of_garage))
    }

    async fn deliver(&self, notification: &Notification, server: &str) -> Result<(), String> {
        let delivered = async {
            match &self.channel {
                OpenChannel::Webhook(webhook) => {
                    let body = serde_json::to_vec(&Payload { notification, server })
                        .map_err(|error| error.to_string())?;
                    webhook.post(&notification.id, body).await
                }
                OpenChannel::Email(email) => email.send(notification, server).await,
            }
        };
        let too_slow = || Err(format!("it did not answer within {} s", DELIVERED_WITHIN.as_secs()));
        timeout(DELIVERED_WITHIN, delivered).await.unwrap_or_else(|_| too_slow())
    }
}

impl Alarms {
    /// Brings what waits to a receiver, in order, each until it arrived.
    pub(super) async fn notify_for_ever(self: Arc<Self>, n: usize) {
        let receiver = &self.receivers[n];
        let mut changed = self.changed.subscribe();
        let server = self.ledger.to_string();
        let mut failures: u32 = 0;
        loop {
            let next = self.shown().kept.lines.next(receiver.name()).cloned();
            let Some(next) = next else {
                if changed.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match receiver.deliver(&next, &server).await {
                Ok(()) => {
                    if std::mem::take(&mut failures) > 0 {
                        tracing::info!(receiver = receiver.name(), "notifications arrive again");
                    }
                    let alarms = Arc::clone(&self);
                    let arrived = spawn_blocking(move || alarms.arrived(n, &next.id));
                    arrived.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(
                            code = %codes::NOTIFICATION_NOT_DELIVERED,
                            receiver = receiver.name(),
                            error,
                            hint = "\"server alarms test\" says at once whether it works; it is tried again and again, and what waits is kept",
                            "a receiver cannot be notified of alarms"
                        );
                    }
                    let pause = FIRST_RETRY.saturating_mul(1 << failures.min(16)).min(LAST_RETRY);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                }
            }
        }
    }

    fn arrived(&self, n: usize, id: &str) {
        let view = self.live.snapshot();
        let raised = self.lines(&view);
        self.change(|kept| {
            kept.lines.arrived(self.receivers[n].name(), id, |omitted| Notification {
                omitted: Some(omitted),
                raised,
                ..notification(AlarmEvent::Summary, None)
            });
        });
    }

    /// Sends a test to each receiver, and says what became of it.
    pub(super) async fn test(self: &Arc<Self>) -> Value {
        let test = Arc::new(notification(AlarmEvent::Test, None));
        let server: Arc<str> = self.ledger.to_string().into();
        let sent = (0..self.receivers.len()).map(|n| {
            let (alarms, test, server) = (Arc::clone(self), Arc::clone(&test), Arc::clone(&server));
            tokio::spawn(async move { alarms.receivers[n].deliver(&test, &server).await })
        });
        let sent: Vec<_> = sent.collect();
        let mut answers = Vec::new();
        for (receiver, sent) in self.receivers.iter().zip(sent) {
            let error = sent.await.unwrap_or_else(|error| Err(error.to_string())).err();
            let waiting = self.shown().kept.lines.count(receiver.name());
            answers.push(json!({ "receiver": receiver.name(), "kind": receiver.kind(), "delivered": error.is_none(), "error": error, "waiting": waiting }));
        }
        json!({ "receivers": answers })
    }
}

/// The content of a file with a secret, without the end of its line.
fn secret(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = read.map_err(|error| format!("cannot read {path:?}: {error}"))?;
    match text.trim() {
        "" => Err(format!("{path:?} is empty")),
        secret => Ok(Zeroizing::new(secret.to_owned())),
    }
}
