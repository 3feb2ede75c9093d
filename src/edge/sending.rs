//! The thin shell of the sender: it owns the socket and the outbox's read side, and does what
//! [`Sender`] says.

use super::Shared;
use crate::messaging::outbox::{Status, Taken};
use crate::messaging::sender::{Action, Outcome, PAGES_BYTES, Sender, SenderConfig};
use crate::messaging::wire::{Reply, Request, WireError};
use crate::parking::{BoardAnswer, Observation};
use crate::store::StoreError;
use crate::transport::ServerAddress;
use crate::transport::link::Link;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Requests that may be unanswered at a time: enough to keep the link and the server's disk busy. With a city of garages
/// behind one server, more would only wait in its memory.
const WINDOW: usize = 4;

/// What the sender shows of itself.
#[derive(Debug, Clone, Default)]
pub struct SendingStatus {
    pub connected: bool,
    pub in_flight: u64,
    pub resends: u64,
    pub server: Option<ServerAddress>,
    pub ledger: Option<String>,
    pub last_acknowledged_at_ms: Option<i64>,
    /// Why the queue waits, when it does not wait for the network.
    pub alarm: Option<String>,
}

/// Delivers until `stop`. An error means that the outbox cannot be read.
pub async fn send_until_stopped(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), StoreError> {
    let position = shared.outbox.position();
    let config = SenderConfig {
        servers: shared.config.servers.len(),
        window: WINDOW,
        ask_every: shared.config.board_interval,
        seed: rand::random(),
    };
    let mut shell = Shell {
        sender: Sender::new(config, position.oldest, position.acknowledged, position.durable),
        link: None,
        began: Instant::now(),
        unreachable: false,
        shared,
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = shell.run() => ended,
    }
}

struct Shell {
    shared: Arc<Shared>,
    sender: Sender,
    link: Option<Link>,
    began: Instant,
    /// Said in the log once, not at every try.
    unreachable: bool,
}

impl Shell {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn run(&mut self) -> Result<(), StoreError> {
        let mut progress = self.shared.outbox.progress();
        loop {
            let action = self.sender.poll(self.now());
            match action {
                Action::Connect { server } => self.connect(server).await,
                Action::Disconnect => {
                    tracing::warn!(server = %self.shared.config.servers[self.sender.server()], "no reply in time; the socket is dropped, and what is not acknowledged will be resent there");
                    self.link = None;
                }
                Action::Send { id, pages_from, ask } => self.send(id, pages_from, ask).await?,
                Action::Wait { until } => {
                    self.show();
                    let until = self.began.checked_add(until.min(Duration::from_secs(3600)));
                    let until = until.unwrap_or_else(Instant::now);
                    tokio::select! {
                        received = recv(&mut self.link) => self.received(received),
                        changed = progress.changed() => {
                            if changed.is_err() {
                                return Ok(()); // the outbox closed: the daemon ends
                            }
                            let now = *progress.borrow_and_update();
                            self.sender.outbox_holds(now.oldest, now.durable);
                        }
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                }
            }
        }
    }

    async fn connect(&mut self, server: usize) {
        let address = &self.shared.config.servers[server];
        match Link::connect(address).await {
            Ok(link) => {
                self.link = Some(link);
                self.sender.connected(self.now());
                tracing::debug!(server = %address, "connected");
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unreachable, true) {
                    tracing::warn!(%error, "events stay on this disk and are delivered when a server answers; it is tried again all the time");
                }
                self.sender.link_broke(self.now());
            }
        }
    }

    async fn send(&mut self, id: u64, pages_from: Option<u64>, ask: bool) -> Result<(), StoreError> {
        let outbox = self.shared.outbox.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
            let taken = pages_from.map(|from| outbox.take(from, PAGES_BYTES)).transpose()?;
            let status = ask.then(|| outbox.status()).transpose()?;
            Ok((taken.unwrap_or_default(), status))
        });
        let read = read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let (taken, status): (Taken, _) = read?;
        self.sender.sent(self.now(), id, taken.last, ask);
        if taken.pages.is_empty() && !ask {
            return Ok(());
        }
        let body = Request {
            id,
            site: self.shared.config.garage_name.clone(),
            epoch: self.shared.outbox.epoch(),
            // What is told with pages must be as old as they are.
            oldest: if taken.pages.is_empty() { self.sender.oldest() } else { taken.oldest },
            pages: taken.pages,
            ask: ask.then(|| Bytes::from(self.shared.display().question().to_bytes())),
            observation: status.map(|status| self.observation(&status)),
        }
        .encode();
        let sent = match &mut self.link {
            Some(link) => link.send(body).await,
            None => return Ok(()),
        };
        if let Err(error) = sent {
            self.broke(&error);
        }
        Ok(())
    }

    fn observation(&self, status: &Status) -> Bytes {
        let clock_ms = super::now_ms();
        let age = |begun: i64| u64::try_from(clock_ms - begun).unwrap_or(0);
        let observation = Observation {
            capacity: self.shared.config.capacity,
            occupied: self.shared.display().own_occupied(),
            backlog: status.depth,
            oldest_age_ms: status.oldest_begun_at_ms.map(age),
            clock_ms,
        };
        Bytes::from(observation.to_bytes())
    }

    fn received(&mut self, received: Result<Bytes, crate::transport::link::LinkError>) {
        let body = match received {
            Ok(body) => body,
            Err(error) => return self.broke(&error),
        };
        match Reply::decode(&body) {
            Ok(reply) => self.replied(reply),
            Err(WireError::PeerSpeaks { lowest, highest }) => self.alarm(format!(
                "the server speaks versions {lowest} to {highest} of the protocol, this edge version {}; events stay here. Bring both to one version",
                crate::messaging::wire::VERSION
            )),
            Err(error) => self.alarm(format!("what answers is no fogpost server: {error}; events stay here. Check the address")),
        }
    }

    fn replied(&mut self, reply: Reply) {
        if std::mem::take(&mut self.unreachable) {
            tracing::info!(server = %self.shared.config.servers[self.sender.server()], ledger = %reply.ledger, "a server answers");
        }
        let outcome = self.sender.replied(self.now(), &reply);
        if let Some(answer) = &reply.answer {
            match BoardAnswer::from_bytes(answer) {
                Ok(answer) => self.shared.display().answered(answer, Instant::now(), super::now_ms()),
                Err(error) => tracing::debug!(%error, "the board is shown as it was"),
            }
        }
        match outcome {
            Ok(Outcome::Settled { through }) => {
                self.shared.outbox.settle(through);
                let mut status = self.shared.sending();
                if status.alarm.take().is_some() {
                    tracing::info!(through, "events are acknowledged again");
                }
                status.last_acknowledged_at_ms = Some(super::now_ms());
            }
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::ReceiverWentBack { mark, settled }) => {
                self.shared.outbox.unsettle(mark);
                self.alarm(format!(
                "the server has our events up to {mark} only, though it acknowledged {settled}: was it restored from a copy? What is still here is sent again, the rest is recorded there as missing"
            ));
            }
            Ok(Outcome::Conflict { first }) => self.alarm(format!(
                "the server has another page at sequence {first} of this epoch; nothing is deleted, the queue waits. Does another edge use this name, or was this directory restored from a copy?"
            )),
            Ok(Outcome::Refused { reason }) => self.alarm(format!("the server refuses what we send: {reason}; nothing is deleted, the queue waits")),
            Err(error) => self.alarm(error.to_string()),
        }
    }

    /// Said once in the log, and shown until an acknowledgement comes.
    fn alarm(&self, text: String) {
        let mut status = self.shared.sending();
        if status.alarm.as_ref() != Some(&text) {
            tracing::error!("{text}");
        }
        status.alarm = Some(text);
    }

    fn broke(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "the link to the server broke; what is not acknowledged will be resent");
        self.link = None;
        self.sender.link_broke(self.now());
    }

    fn show(&self) {
        let now = self.now();
        let mut status = self.shared.sending();
        status.connected = self.sender.is_connected(now);
        status.in_flight = self.sender.in_flight();
        status.resends = self.sender.resends();
        status.server = self.shared.config.servers.get(self.sender.server()).cloned();
        status.ledger = self.sender.ledger().map(|ledger| ledger.to_string());
    }
}

async fn recv(link: &mut Option<Link>) -> Result<Bytes, crate::transport::link::LinkError> {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}
