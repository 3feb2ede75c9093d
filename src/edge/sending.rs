//! The I/O shell of the sender: it owns the socket, reads the outbox, and does what [`Sender`] decides.

use super::EdgeShared;
use crate::codes::{self, Code};
use crate::daemon::clock;
use crate::messaging::outbox::{AppendError, EpochIndex, OutboxStatus, Taken};
use crate::messaging::sender::stillness::{STANDS_STILL_AFTER, Stillness};
use crate::messaging::sender::{Action, Outcome, PAGES_BYTES, ReplyEffect, Sender, SenderConfig};
use crate::messaging::wire::{self, Reply, Request, WireError};
use crate::messaging::{ClockReading, Epoch, LedgerId};
use crate::parking::board::BoardPart;
use crate::parking::{BoardAnswer, DiskSpace, EdgeMachine, Observation};
use crate::store::{StoreError, room};
use crate::transport::ServerAddress;
use crate::transport::dealer::{DealerConnection, DealerError};
use crate::transport::tls::Connector;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// The maximum number of unanswered requests: enough to keep the link and the server's disk busy. When one server serves all
/// garages of a city, more requests would only wait in its memory.
const WINDOW: usize = 4;

/// Alarms that any reply ends.
const OF_CERTIFICATES: [Code; 3] =
    [codes::CERTIFICATE_REFUSED, codes::CERTIFICATES_UNUSABLE, codes::SERVER_NOT_TRUSTED];

#[derive(Debug, Clone, Default)]
pub struct SendingStatus {
    pub connected: bool,
    pub in_flight: u64,
    pub resends: u64,
    /// How often the server asked to come back later, because it had too much waiting.
    pub busy_replies: u64,
    pub server: Option<ServerAddress>,
    pub ledger: Option<String>,
    pub last_acknowledged_at_ms: Option<i64>,
    /// Why the queue waits, when it does not wait for the network.
    pub alarm: Option<Alarm>,
    /// The queue does not move although the server answers.
    pub stands_still: Option<Alarm>,
    pub notice: Option<String>,
    /// Clock offset: the server's wall clock minus ours, in milliseconds, halfway through the last exchange.
    pub skew_ms: Option<i64>,
}

/// A problem that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    pub code: Code,
    pub text: String,
}

/// Delivers until `stop`. An error means that the outbox cannot be read. `adopted` are the ledgers to which an operator has bound
/// the outbox meanwhile; see `edge ledger adopt`.
pub async fn send_until_stopped(
    shared: Arc<EdgeShared>,
    mut adopted: mpsc::Receiver<LedgerId>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let config = SenderConfig {
        servers: shared.config.servers.len(),
        window: WINDOW,
        ask_every: shared.config.board_interval,
        seed: rand::random(),
    };
    let mut shell = Shell {
        sender: Sender::new(config, shared.outbox.position(), shared.outbox.ledger()),
        instance: rand::random(),
        dealer: None,
        began: Instant::now(),
        is_unreachable: false,
        is_busy: false,
        clocks: ClockComparison::default(),
        stillness: Stillness::default(),
        stop: stop.clone(),
        shared,
    };
    if shell.sender.ledger().is_some() && shell.shared.outbox.waiting() > 0 {
        shell.sender.continues_another_process(shell.now());
    }
    let span = tracing::info_span!("sender", garage = %shell.shared.config.garage_name);
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = shell.run(&mut adopted).instrument(span) => ended,
    }
}

struct Shell {
    shared: Arc<EdgeShared>,
    sender: Sender,
    instance: u64,
    dealer: Option<DealerConnection>,
    /// The origin of the sender's time.
    began: Instant,
    /// True while no server can be reached, which is logged once and not at every attempt.
    is_unreachable: bool,
    /// True while the server asks to come back later, which is logged likewise.
    is_busy: bool,
    clocks: ClockComparison,
    stillness: Stillness,
    stop: CancellationToken,
}

impl Shell {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn epoch(&self) -> Epoch {
        self.sender.position().epoch
    }

    fn epoch_index(&self) -> EpochIndex {
        self.sender.position().epoch_index
    }

    async fn run(&mut self, adopted: &mut mpsc::Receiver<LedgerId>) -> Result<(), StoreError> {
        let mut progress = self.shared.outbox.progress();
        loop {
            let action = self.sender.poll(self.now());
            match action {
                Action::Connect { server } => self.connect(server).await,
                Action::Disconnect => {
                    tracing::warn!(
                        code = %codes::NO_REPLY,
                        server = %self.shared.config.servers[self.sender.server()],
                        hint = "if this goes on, check the network and the server; what is not acknowledged is sent again",
                        "no usable reply in time; the edge connects to this server next"
                    );
                    self.dealer = None;
                }
                Action::Send { id, pages_from, ask } => self.send(id, pages_from, ask).await?,
                Action::Wait { until } => {
                    self.show();
                    let until = self.began.checked_add(until.min(Duration::from_secs(3600)));
                    let until = until.unwrap_or_else(Instant::now);
                    tokio::select! {
                        received = recv(&mut self.dealer) => self.received(received).await,
                        changed = progress.changed() => {
                            if changed.is_err() {
                                return Ok(()); // the outbox closed: the daemon ends
                            }
                            let now = progress.borrow_and_update().position;
                            if now.epoch_index == self.epoch_index() {
                                self.sender.outbox_holds(now.oldest, now.durable);
                            } else {
                                self.deliver_the_oldest_epoch();
                            }
                        }
                        Some(ledger) = adopted.recv() => {
                            self.sender.bind(ledger);
                            self.shared.sending().alarm = None;
                        }
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                }
            }
        }
    }

    /// Continues with the next epoch when the current one is delivered or was moved.
    fn deliver_the_oldest_epoch(&mut self) {
        let position = self.shared.outbox.position();
        if position.epoch_index != self.epoch_index() {
            self.sender.begin_epoch(position);
        }
    }

    async fn connect(&mut self, server: usize) {
        let address = &self.shared.config.servers[server];
        match DealerConnection::connect(address, self.shared.tls.as_ref()).await {
            Ok(dealer) => {
                self.dealer = Some(dealer);
                self.sender.connected(self.now());
                tracing::debug!(server = %address, "sender: connected");
            }
            Err(error) => {
                tracing::debug!(server = %address, %error, "sender: cannot connect");
                if !std::mem::replace(&mut self.is_unreachable, true) {
                    tracing::warn!(
                        code = %codes::SERVER_UNREACHABLE,
                        %error,
                        hint = "check the network, the server and its address; events stay on this disk, and the edge keeps trying",
                        "no server can be reached"
                    );
                }
                self.say_what_is_wrong_with_certificates(&error);
                self.sender.link_broke(self.now());
            }
        }
    }

    /// Only a person can put this right, so it is an alarm. The edge goes on trying: certificates are taken up when they change.
    fn say_what_is_wrong_with_certificates(&self, error: &DealerError) {
        if let Some((code, text)) = error.certificates() {
            let server = &self.shared.config.servers[self.sender.server()];
            self.alarm(code, format!("no connection to {server}: {text}. Events are taken and stay here"));
        }
    }

    async fn send(&mut self, id: u64, pages_from: Option<u64>, ask: bool) -> Result<(), StoreError> {
        let (outbox, epoch_index) = (self.shared.outbox.clone(), self.epoch_index());
        let data_dir = self.shared.config.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
            let taken = pages_from.map(|from| outbox.take(epoch_index, from, PAGES_BYTES)).transpose()?;
            // All reading is done here: a disk that does not answer must not take a thread from HTTP.
            let known = ask
                .then(|| Ok::<_, StoreError>((outbox.status()?, outbox.shortage(), room::space(&data_dir))));
            let known = known.transpose()?;
            Ok((taken.unwrap_or_default(), known))
        });
        let read = read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let (taken, known): (Taken, _) = read?;
        self.sender.sent(self.now(), id, taken.last);
        if taken.pages.is_empty() && !ask {
            return Ok(());
        }
        let body = Request {
            id,
            site: self.shared.config.garage_name.clone(),
            epoch: self.epoch(),
            // With pages it must be as old as they are.
            oldest: if taken.pages.is_empty() { self.sender.position().oldest } else { taken.oldest },
            ledger: self.sender.ledger(),
            instance: self.instance,
            clock_ms: clock::wall_ms(),
            pages: taken.pages,
            ask: ask.then(|| Bytes::from(self.shared.display().question().to_bytes())),
            observation: known.map(|(status, shortage, disk)| self.observation(&status, shortage, disk)),
        }
        .encode();
        self.clocks.sent(id);
        if let Some(dealer) = &mut self.dealer
            && let Err(error) = dealer.send(body).await
        {
            self.broke(&error);
        }
        Ok(())
    }

    fn observation(
        &self,
        status: &OutboxStatus,
        shortage: Option<String>,
        disk: Option<(u64, u64)>,
    ) -> Bytes {
        let expiries = self.shared.tls.as_ref().map(Connector::expiries).unwrap_or_default();
        let machine = EdgeMachine {
            disk: disk.map(|(left, total)| DiskSpace { left, total }),
            certificate_ends_at_ms: expiries.iter().map(|expiry| expiry.at.as_millisecond()).min(),
        };
        let now = clock::read();
        let age = |begun: ClockReading| u64::try_from(begun.age_at(&now).as_millis()).unwrap_or(u64::MAX);
        let observation = Observation {
            capacity: self.shared.config.capacity,
            occupied: self.shared.display().own_occupied(),
            backlog: status.depth,
            oldest_age_ms: status.oldest_begun.map(age),
            clock_set: now.set,
            damaged: self.shared.outbox.damages().iter().map(|damage| damage.last - damage.first + 1).sum(),
            shortage,
            machine,
        };
        Bytes::from(observation.to_bytes())
    }

    async fn received(&mut self, received: Result<Bytes, DealerError>) {
        let body = match received {
            Ok(body) => body,
            Err(error) => return self.broke(&error),
        };
        match Reply::decode(&body) {
            Ok(reply) => self.replied(reply).await,
            Err(WireError::PeerSpeaks { lowest, highest }) => self.alarm(codes::PROTOCOL_VERSION_MISMATCH, format!(
                "the server speaks versions {lowest} to {highest} of the protocol, this edge version {}; events stay here. Install the same version on both",
                wire::VERSION
            )),
            Err(error) => self.alarm(codes::NOT_A_SERVER, format!("what answers is not a fogpost server: {error}; events stay here. Check the address")),
        }
    }

    async fn replied(&mut self, reply: Reply) {
        if std::mem::take(&mut self.is_unreachable) {
            tracing::info!(server = %self.shared.config.servers[self.sender.server()], ledger = %reply.ledger, "a server answers");
        }
        self.shared.sending().alarm.take_if(|alarm| OF_CERTIFICATES.contains(&alarm.code));
        self.say_if_busy(&reply);
        let epoch_asked = self.epoch();
        let ReplyEffect { outcome, ahead } = self.sender.replied(self.now(), &reply);
        let is_ours = !matches!(outcome, Outcome::OtherLedger { .. });
        if is_ours {
            let skew_ms = self.clocks.compare(&reply);
            {
                let mut status = self.shared.sending();
                status.skew_ms = skew_ms.or(status.skew_ms);
                status.notice.clone_from(&reply.notice);
            }
            self.show_board(&reply);
        }
        self.apply(outcome).await;
        if let Some(mark) = ahead.filter(|_| is_ours && self.epoch() == epoch_asked) {
            self.receiver_is_ahead(mark).await;
        }
        if is_ours && self.sender.ledger().is_some() {
            self.look_whether_the_queue_moves();
        }
    }

    fn say_if_busy(&mut self, reply: &Reply) {
        let busy_ms = reply.busy_ms();
        match (busy_ms, std::mem::replace(&mut self.is_busy, busy_ms.is_some())) {
            (Some(pause_ms), false) => tracing::warn!(
                code = %codes::SERVER_BUSY,
                pause_ms,
                hint = "events stay on this disk, and the edge comes back by itself; if it goes on, look at the server",
                "the server has too much waiting, and asks to come back later"
            ),
            (None, true) => tracing::info!("the server is no longer busy"),
            _ => {}
        }
        self.shared.sending().busy_replies += u64::from(busy_ms.is_some());
    }

    fn show_board(&self, reply: &Reply) {
        let Some(answer) = &reply.answer else { return };
        let read = BoardAnswer::from_bytes(answer)
            .and_then(|answer| Ok((BoardPart::from_bytes(&answer.part)?, answer.own)));
        match read {
            Ok((part, own)) => {
                let mut display = self.shared.display();
                display.answered(part, own.as_ref(), Instant::now(), clock::wall_ms());
            }
            Err(error) => {
                tracing::debug!(%error, "sender: the new board cannot be read; the previous one is still shown")
            }
        }
    }

    /// Does what a reply means for the outbox, and shows what it means for people.
    async fn apply(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged { through } => {
                self.shared.outbox.acknowledge(self.epoch_index(), through);
                let mut status = self.shared.sending();
                if status.alarm.take().is_some() {
                    tracing::info!(through, "events are acknowledged again");
                }
                status.last_acknowledged_at_ms = Some(clock::wall_ms());
            }
            Outcome::Nothing => {}
            Outcome::ReceiverWentBack { mark, acknowledged } => {
                // An error means that the disk failed: the process ends, and the server says it again after a restart.
                if let Err(error) = self.shared.outbox.unacknowledge(self.epoch_index(), mark).await {
                    return self.not_now(&error);
                }
                self.alarm(codes::SERVER_WENT_BACK, format!(
                    "the server has events of this garage only up to {mark}, though it acknowledged {acknowledged}: was it restored from a copy? Events that are still here are sent again, and the server records the rest as missing"
                ));
            }
            Outcome::Conflict { first, acknowledged } => {
                self.shared.outbox.acknowledge(self.epoch_index(), acknowledged);
                self.alarm(codes::CONFLICT, format!(
                    "the server has another page at sequence {first} of epoch {}; nothing is deleted, the queue waits. Does another edge use this name, or was this directory restored from a copy? If the events of both sides are to count, run on the server: server garages adopt {:?}",
                    self.epoch(),
                    self.shared.config.garage_name.as_str()
                ));
            }
            Outcome::Refused { reason } => self.alarm(
                codes::REFUSED_BY_SERVER,
                format!("the server refuses the events of this edge: {reason}; nothing is deleted, the queue waits"),
            ),
            Outcome::LedgerFound { ledger } => match self.shared.outbox.bind_first(ledger).await {
                // An operator may have decided otherwise a moment ago.
                Ok(bound) => {
                    tracing::info!(ledger = %bound, "this garage delivers to this ledger from now on, and to no other");
                    self.sender.bind(bound);
                }
                Err(error) => self.not_now(&error),
            },
            Outcome::OtherLedger { found } => {
                self.dealer = None;
                let ours = self.sender.ledger().map(|ledger| ledger.to_string()).unwrap_or_default();
                self.alarm(codes::OTHER_LEDGER, format!(
                    "the server that answers keeps the ledger {found}, but this garage delivers to the ledger {ours}: nothing is sent to it, nothing is deleted, the queue waits. Check the address. If the ledger {ours} is lost for good and the new one is to take its place: edge ledger adopt {found}"
                ));
            }
            Outcome::Move { from } => self.move_to_a_new_epoch(from).await,
        }
    }

    async fn move_to_a_new_epoch(&mut self, from: u64) {
        let moved = match self.shared.outbox.move_oldest(self.epoch_index(), from).await {
            Ok(moved) => moved,
            Err(error) => return self.not_now(&error),
        };
        let moved_from = self.epoch();
        self.deliver_the_oldest_epoch();
        if let Some((epoch, events)) = moved {
            let shared = Arc::clone(&self.shared);
            let stop = self.stop.clone();
            let rebuild = move || super::rebuild_display(&shared, moved_from, &stop);
            // It reads all that waits. A failure only leaves the count as it was.
            let _ = tokio::task::spawn_blocking(rebuild).await;
            tracing::warn!(
                code = %codes::CONFLICT_DECIDED,
                %epoch, events,
                "a conflict was decided: events that were not acknowledged were moved to a new epoch"
            );
        }
        self.shared.sending().alarm = None;
    }

    fn look_whether_the_queue_moves(&mut self) {
        let (front, waiting) = (self.shared.outbox.position(), self.shared.outbox.waiting());
        self.stillness.answered(self.now(), &front, waiting, self.sender.paused_until());
        let mut status = self.shared.sending();
        match (self.stillness.is_alarming(), status.stands_still.is_some()) {
            (true, false) => {
                let hint = "look for the reason in the log of the server and in this one, and run: edge outbox verify. A restart of this edge reads its disk again. Please report this with both logs";
                tracing::error!(
                    code = %codes::QUEUE_STANDS_STILL,
                    epoch = %self.epoch(),
                    acknowledged = front.acknowledged,
                    waiting,
                    hint,
                    "the server answers, but does not acknowledge the oldest waiting event"
                );
                status.stands_still = Some(Alarm {
                    code: codes::QUEUE_STANDS_STILL,
                    text: format!(
                        "queue_stands_still: the server answers, but for {} s it has not acknowledged the event after sequence {} of epoch {}. Everything confirmed is kept on this disk, and the edge keeps trying. To find the reason, {hint}",
                        STANDS_STILL_AFTER.as_secs(),
                        front.acknowledged,
                        self.epoch(),
                    ),
                });
            }
            (false, true) => {
                tracing::info!(code = %codes::QUEUE_STANDS_STILL, waiting, "the queue moves again");
                status.stands_still = None;
            }
            _ => {}
        }
    }

    /// Another process has sent under our epoch. New events get a new epoch; the events of the old epoch here are sent unchanged.
    async fn receiver_is_ahead(&mut self, mark: u64) {
        if self.shared.outbox.epoch() != self.epoch() {
            return; // new events have another epoch already
        }
        match self.shared.outbox.begin_epoch(self.epoch()).await {
            Ok(epoch) => {
                tracing::error!(
                    code = %codes::SERVER_AHEAD_OF_OUTBOX,
                    mark, previous = %self.epoch(), %epoch,
                    hint = "make sure that no other edge uses this name; new events get a new epoch, and what was confirmed here is delivered",
                    "the server is ahead of this outbox: this directory is an older copy, or another edge goes on from a copy of it"
                );
                self.deliver_the_oldest_epoch();
            }
            Err(error) => self.not_now(&error),
        }
    }

    /// Postpones a change of the outbox. If the outbox is busy, the change is tried again at the server's next reply; if its disk
    /// failed, the process ends.
    fn not_now(&self, error: &AppendError) {
        tracing::debug!(%error, "sender: a change of the outbox is postponed");
    }

    /// Raises an alarm, which is shown until an acknowledgement comes, and logged once.
    fn alarm(&self, code: Code, text: String) {
        let mut status = self.shared.sending();
        if status.alarm.as_ref().is_none_or(|alarm| alarm.text != text) {
            tracing::error!(%code, alarm = text, "an alarm is raised");
        }
        status.alarm = Some(Alarm { code, text });
    }

    fn broke(&mut self, error: &DealerError) {
        self.say_what_is_wrong_with_certificates(error);
        tracing::warn!(
            code = %codes::LINK_BROKE,
            %error,
            hint = "if this goes on, check the network; what is not acknowledged is sent again",
            "the link to the server broke"
        );
        self.dealer = None;
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

async fn recv(dealer: &mut Option<DealerConnection>) -> Result<Bytes, DealerError> {
    match dealer {
        Some(dealer) => dealer.recv().await,
        None => std::future::pending().await,
    }
}

/// Compares the clock of this machine with the server's at each exchange.
#[derive(Default)]
struct ClockComparison {
    /// When the last requests left, by their ids.
    sent_at: VecDeque<(u64, Instant)>,
    is_skewed: bool,
}

impl ClockComparison {
    fn sent(&mut self, id: u64) {
        if self.sent_at.len() >= 4 * WINDOW {
            self.sent_at.pop_front();
        }
        self.sent_at.push_back((id, Instant::now()));
    }

    /// The server's clock minus ours in milliseconds, if the request of this reply is still known. Logs when the clocks begin or
    /// stop differing.
    fn compare(&mut self, reply: &Reply) -> Option<i64> {
        let index = self.sent_at.iter().position(|(id, _)| *id == reply.id)?;
        let (_, sent_at) = self.sent_at.remove(index)?;
        // Halfway through the exchange, as NTP does (RFC 5905); a long one says little.
        let took_ms = i64::try_from(sent_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        let skew_ms = reply.clock_ms.saturating_sub(clock::wall_ms().saturating_sub(took_ms / 2));
        let alarm_ms = i64::try_from(clock::SKEW_ALARM.as_millis()).unwrap_or(i64::MAX);
        let is_skewed = skew_ms.saturating_abs() > alarm_ms.saturating_add(took_ms / 2);
        match (is_skewed, std::mem::replace(&mut self.is_skewed, is_skewed)) {
            (true, false) => tracing::error!(
                code = %codes::CLOCKS_DIFFER,
                skew_seconds = skew_ms / 1000,
                hint = "check NTP on both; events keep the time of this machine, and the server's time of arrival beside it",
                "the clock of this machine and that of the server differ"
            ),
            (false, true) => tracing::info!("the clocks of this machine and of the server agree again"),
            _ => {}
        }
        Some(skew_ms)
    }
}
