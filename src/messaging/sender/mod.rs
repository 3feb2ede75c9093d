//! Delivers the pages of an outbox, oldest first, until they are acknowledged: the Lazy Pirate pattern
//! (P. Hintjens, "Code Connected", chapter 4) with a window.
//!
//! **Promise.** Only a reply acknowledges a page, and no page is sent again sooner than
//! [`backoff::RESEND_LEAST`] after it was last sent, whatever the receiver answers. The sender never gives up, and a queue that
//! does not move while the receiver answers is noticed ([`stillness`]).
//! **Kept by.** A state machine that sees only values: it receives events and the time as values, and [`Sender::poll`] returns
//! what to do next. A thin shell owns the sockets and the outbox. Pages are sent in order; going back to earlier ones
//! ([`Sender::forget_requests`], [`Sender::come_back_later`]) waits for the resend time.
//! **Not promised.** That the nearest server is tried first: the list of servers is tried in turn.
//!
//! Time is a [`Duration`] since any fixed moment, of a clock that never goes back. Sequences are plain numbers here, and 0 means
//! before the first one.
//!
//! # The link
//!
//! Each cell says: next state / action. "Next server" means that the following connection goes to the next address.
//!
//! | state | time passes ([`Sender::poll`]) | connected | link broke | reply |
//! | --- | --- | --- | --- | --- |
//! | Down | at `connect_at`: Connecting / `Connect` | – | – | ignored: nothing is in flight |
//! | Connecting | – / `Wait` | Up | Down / next server, connect later | ignored |
//! | Up, all answered in time | – / `Send` or `Wait` | – | Down / resend after the resend time; next server, if anything was unanswered | see below |
//! | Up, a request is overdue | Down / `Disconnect`, next server, window of 1 | – | as above | as above |
//!
//! # A reply while the link is up
//!
//! "Hold" means: no events before the next resend time, which grows with each refusal, and a window of 1. "Resend" means:
//! continue from the first sequence that is not acknowledged, as soon as the resend time allows. The first row that fits counts.
//!
//! | reply | effect | [`Outcome`] |
//! | --- | --- | --- |
//! | its request is not in flight any more | none | `Nothing` |
//! | from another ledger than ours | resend; link Down, next server | `OtherLedger` |
//! | the receiver is busy: too much waits there | no request before the pause is over and a resend time, spread over as much again; go back to the pages of this request, window of 1 | `Nothing`; `LedgerFound` if we were not bound yet |
//! | we are not bound to a ledger yet | none until [`Sender::bind`] | `LedgerFound` |
//! | its mark is below what was acknowledged when the request was sent | acknowledged := mark, resend; nothing older is stored: hold | `ReceiverWentBack` |
//! | accepted, all pages are at or below the mark | acknowledged := the last of them; window + 1 | `Acknowledged` |
//! | accepted, without pages | none | `Nothing` |
//! | gap, or accepted with a mark within the pages | resend; hold if the gap is the same as before | `Nothing` |
//! | conflict at `first` | acknowledge what comes before; hold | `Conflict` |
//! | refused, or its verdict says that the request names another ledger | hold | `Refused`, `Nothing` |
//! | move from `from` | acknowledge what comes before; hold | `Move` if all before is acknowledged, else `Nothing` |

#[cfg(test)]
mod any_link_tests;
pub mod backoff;
#[cfg(test)]
mod hostile_receiver_tests;
mod pace;
#[cfg(test)]
mod resend_tests;
pub mod stillness;
#[cfg(test)]
mod tests;
mod window;

use super::LedgerId;
use super::outbox::Position;
use super::wire::{self, Reply, Verdict};
use backoff::{RESEND_LEAST, reconnect_after};
use pace::SendingPace;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use window::{SendWindow, SentRequest};

/// The size of the pages in one request: enough to make the cost of a message small, and few enough that a window
/// of them from every garage of a city is served well within the resend time.
pub const PAGES_BYTES: usize = wire::REQUEST_MAX / 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a new socket to the server with this index, then call [`Sender::connected`] or [`Sender::link_broke`].
    Connect { server: usize },
    /// No reply came in time: drop the socket. An [`Action::Connect`] follows.
    Disconnect,
    /// Send a request with this id: with pages from `pages_from` on if given, with the question if `ask`. Call [`Sender::sent`].
    Send { id: u64, pages_from: Option<u64>, ask: bool },
    /// Do nothing until something happens or this moment comes.
    Wait { until: Duration },
}

/// What the shell does with the outbox after a reply. Where the queue waits, the sender asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has everything up to here on its disk. Delete it.
    Acknowledged {
        through: u64,
    },
    Nothing,
    /// The receiver has less than it once acknowledged: it was restored from a copy, or is another one. What is still
    /// here is sent again; the rest is missing there.
    ReceiverWentBack {
        mark: u64,
        acknowledged: u64,
    },
    /// From `first` on the receiver's ledger has other messages in our place. It has ours up to `acknowledged`. The queue waits.
    Conflict {
        first: u64,
        acknowledged: u64,
    },
    /// The receiver does not take what we send, for this reason. The queue waits.
    Refused {
        reason: String,
    },
    /// The first reply ever. Nothing is delivered before this ledger is remembered on disk and given to [`Sender::bind`].
    LedgerFound {
        ledger: LedgerId,
    },
    /// The server keeps another ledger than ours. Nothing else of the reply counts. Drop the socket; the next address is tried.
    OtherLedger {
        found: LedgerId,
    },
    /// Our side of a conflict counts too: move the messages from this sequence on to a new epoch, then call
    /// [`Sender::begin_epoch`]. The receiver has what comes before.
    Move {
        from: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyEffect {
    pub outcome: Outcome,
    /// The receiver has applied more of this epoch, up to this mark, than was ever sent from here: another process has sent
    /// under it. This directory is an older copy, or another site uses a copy of it. New messages need a new epoch.
    pub ahead: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub struct SenderConfig {
    /// The number of addresses that lead to the receiver. At least 1.
    pub servers: usize,
    /// The maximum number of unanswered requests with pages. At least 1. The window begins with one (slow start, RFC 5681): a city of
    /// garages that comes back together must not drown its server.
    pub window: usize,
    /// How often the question is asked, with or without a backlog.
    pub ask_every: Duration,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Down { connect_at: Duration },
    Connecting,
    Up,
}

#[derive(Debug, Clone)]
struct Link {
    state: ConnectionState,
    server: usize,
    /// Failed connections in a row, including connections that got no reply.
    failed_connects: u32,
    heard_at: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Sender {
    config: SenderConfig,
    rng: ChaCha8Rng,
    next_id: u64,
    link: Link,
    outbox: Position,
    window: SendWindow,
    pace: SendingPace,
    ask_at: Duration,
    bound: Option<LedgerId>,
}

impl Sender {
    /// Creates the sender for an outbox that holds `outbox` of its oldest epoch, and delivers to `ledger`. Without a ledger the
    /// sender asks for one first.
    pub fn new(config: SenderConfig, outbox: Position, ledger: Option<LedgerId>) -> Sender {
        assert!(config.servers > 0 && config.window > 0);
        check(&outbox);
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        Sender {
            config,
            // Starting anywhere keeps a late reply to an earlier process from being taken for one to this.
            next_id: rng.random::<u64>() >> 1 | 1,
            rng,
            link: Link {
                state: ConnectionState::Down { connect_at: Duration::ZERO },
                server: 0,
                failed_connects: 0,
                heard_at: None,
            },
            outbox,
            window: SendWindow::new(outbox),
            pace: SendingPace::default(),
            ask_at: Duration::ZERO,
            bound: ledger,
        }
    }

    /// Notes that an earlier process may have sent the waiting messages a moment ago.
    pub fn continues_another_process(&mut self, now: Duration) {
        self.pace.resend_at = self.pace.resend_at.max(now + RESEND_LEAST);
    }

    /// Delivers the next epoch from now on. What is in flight is forgotten: a reply to it is about the epoch before.
    pub fn begin_epoch(&mut self, outbox: Position) {
        check(&outbox);
        tracing::debug!(?outbox, "sender: delivering the next epoch");
        // What was sent and is not acknowledged was moved here: these are the same messages.
        self.forget_requests();
        self.outbox = outbox;
        self.window.begin_epoch(outbox);
        // A request that was held back belonged to the epoch before. Silence does not: a silent server stays in doubt.
        self.pace.forget_refusals();
    }

    /// Delivers to this ledger from now on, and to no other.
    pub fn bind(&mut self, ledger: LedgerId) {
        if self.bound.replace(ledger) != Some(ledger) {
            tracing::debug!(%ledger, "sender: bound to a ledger");
            self.pace.forget_refusals();
        }
    }

    /// Says that the outbox now holds flushed messages up to `durable`, and none older than `oldest`.
    pub fn outbox_holds(&mut self, oldest: u64, durable: u64) {
        debug_assert!(durable >= self.outbox.acknowledged);
        self.outbox.oldest = oldest;
        self.outbox.durable = self.outbox.durable.max(durable);
    }

    /// What the outbox holds of the epoch that is being delivered, as far as the sender knows.
    pub fn position(&self) -> &Position {
        &self.outbox
    }

    /// The socket is connected, as [`Action::Connect`] asked.
    pub fn connected(&mut self, _now: Duration) {
        debug_assert_eq!(self.link.state, ConnectionState::Connecting);
        self.link.state = ConnectionState::Up;
    }

    /// Connecting failed, or the socket reported an error. Nothing is known about what was in flight.
    pub fn link_broke(&mut self, now: Duration) {
        match self.link.state {
            ConnectionState::Down { .. } => return,
            ConnectionState::Connecting => self.use_next_server(),
            ConnectionState::Up => {
                // It may be resent when its time has come, on whichever socket there is then.
                if let Some(overdue_at) = self.window.oldest_overdue_at(self.outbox.acknowledged) {
                    self.pace.hold_until = self.pace.hold_until.max(overdue_at);
                }
                if self.window.first_overdue_at(self.outbox.acknowledged).is_some() {
                    // A link that breaks under what is asked of it is as good as a silent one.
                    self.no_reply_came();
                }
            }
        }
        self.link.failed_connects = self.link.failed_connects.saturating_add(1);
        self.forget_requests();
        self.disconnect(now, self.link.failed_connects - 1);
    }

    /// The request of the last [`Action::Send`] went out, with pages up to `last` if it carries any. When pages were wanted and
    /// none could be read, they come after the next [`Sender::outbox_holds`]; the request then counts as not sent unless it asks.
    pub fn sent(&mut self, now: Duration, id: u64, last: Option<u64>) {
        let after = self.window.sent;
        let asks = self.window.wanted.ask;
        match last {
            Some(last) => {
                self.window.sent_through(last);
                self.outbox.durable = self.outbox.durable.max(last);
                self.pace.events_sent_at = Some(now);
            }
            None if self.window.wanted.pages => self.outbox.durable = self.window.sent,
            None => {}
        }
        if last.is_none() && !asks {
            return;
        }
        if asks {
            // Nothing is delivered before the first reply: a lost one must not cost a long interval.
            let unbound = self.bound.is_none().then_some(RESEND_LEAST);
            self.ask_at = now + self.config.ask_every.min(unbound.unwrap_or(Duration::MAX));
        }
        let overdue_at = now + self.pace.resend_time(&mut self.rng);
        let acknowledged_when_sent = self.outbox.acknowledged;
        tracing::debug!(id, after, last, asks, ?overdue_at, "sender: request sent");
        let request = SentRequest { id, last, after, asks, overdue_at, acknowledged_when_sent };
        self.window.in_flight.push_back(request);
    }

    /// A reply came. Only an accepted request that carried pages acknowledges, and only what it carried and what came before: the receiver compared
    /// their digests, and each names the one before it. A mark alone proves nothing about the content behind it.
    pub fn replied(&mut self, now: Duration, reply: &Reply) -> ReplyEffect {
        let Some(request) = self.window.take(reply.id) else {
            tracing::debug!(id = reply.id, "sender: ignored a reply to a request that is not in flight");
            return ReplyEffect { outcome: Outcome::Nothing, ahead: None };
        };
        if self.bound.is_some_and(|bound| bound != reply.ledger) {
            tracing::debug!(found = %reply.ledger, "sender: another ledger answers; disconnecting");
            self.forget_requests();
            self.use_next_server();
            self.link.failed_connects = self.link.failed_connects.saturating_add(1);
            self.disconnect(now, self.link.failed_connects);
            return ReplyEffect { outcome: Outcome::OtherLedger { found: reply.ledger }, ahead: None };
        }
        let ahead = (reply.mark > self.window.ever_sent).then_some(reply.mark);
        let outcome = self.judge(now, &request, reply);
        tracing::debug!(
            id = reply.id,
            mark = reply.mark,
            verdict = ?reply.verdict,
            pause_ms = reply.pause_ms,
            ahead,
            ?outcome,
            "sender: reply"
        );
        ReplyEffect { outcome, ahead }
    }

    /// Decides what a reply from our ledger means, and goes back or holds back accordingly.
    fn judge(&mut self, now: Duration, request: &SentRequest, reply: &Reply) -> Outcome {
        self.link.heard_at = Some(now);
        self.link.failed_connects = 0;
        let busy_ms = reply.busy_ms();
        self.pace.heard(now, if busy_ms.is_some() { 0 } else { reply.pause_ms });
        if let Some(busy_ms) = busy_ms {
            self.come_back_later(now, request, busy_ms);
        }
        if self.bound.is_none() {
            return Outcome::LedgerFound { ledger: reply.ledger };
        }
        if busy_ms.is_some() {
            return Outcome::Nothing;
        }
        if reply.mark < request.acknowledged_when_sent {
            return self.receiver_went_back(now, request, reply);
        }
        match (&reply.verdict, request.last) {
            (Verdict::Accepted, Some(last)) if reply.mark >= last => {
                self.pace.refused_tries = 0;
                if last <= self.outbox.acknowledged {
                    return Outcome::Nothing;
                }
                self.outbox.acknowledged = last;
                self.window.sent = self.window.sent.max(last);
                self.window.limit = (self.window.limit + 1).min(self.config.window);
                Outcome::Acknowledged { through: last }
            }
            (Verdict::Accepted, None) => Outcome::Nothing,
            // Accepted, but not applied as far as it went: as good as a gap.
            (Verdict::Gap | Verdict::Accepted, _) => {
                if self.window.is_repeated_gap(reply.mark) {
                    // The same again is no accident: the resend time grows.
                    self.hold(now);
                }
                self.forget_requests();
                Outcome::Nothing
            }
            (Verdict::Conflict { first }, _) => {
                self.acknowledge_before(request, *first);
                self.hold(now);
                Outcome::Conflict { first: *first, acknowledged: self.outbox.acknowledged }
            }
            (Verdict::Refused { reason }, _) => {
                self.hold(now);
                Outcome::Refused { reason: reason.clone() }
            }
            (Verdict::OtherLedger, _) => {
                self.hold(now);
                Outcome::Nothing
            }
            (Verdict::Move { from }, _) => {
                let all_before_is_acknowledged = self.acknowledge_before(request, *from);
                self.hold(now);
                // Otherwise the reply to an earlier request must first say what became of the pages before.
                if all_before_is_acknowledged { Outcome::Move { from: *from } } else { Outcome::Nothing }
            }
        }
    }

    /// Says what to do now. Call it again after doing that, until it says to wait.
    pub fn poll(&mut self, now: Duration) -> Action {
        match self.link.state {
            ConnectionState::Down { connect_at } if connect_at <= now => {
                self.link.state = ConnectionState::Connecting;
                Action::Connect { server: self.link.server }
            }
            ConnectionState::Down { connect_at } => Action::Wait { until: connect_at },
            ConnectionState::Connecting => Action::Wait { until: Duration::MAX },
            ConnectionState::Up => self.poll_up(now),
        }
    }

    fn poll_up(&mut self, now: Duration) -> Action {
        let acknowledged = self.outbox.acknowledged;
        if self.window.first_overdue_at(acknowledged).is_some_and(|at| at <= now) {
            // Lazy Pirate: a socket that stays silent is of no use; the next address may be.
            self.no_reply_came();
            self.forget_requests();
            self.link.state = ConnectionState::Down { connect_at: now };
            return Action::Disconnect;
        }
        self.window.forget_answered(acknowledged, now);
        let mut wake = self.window.first_overdue_at(acknowledged);
        let mut wake_at = |moment: Duration| wake = Some(wake.map_or(moment, |w| w.min(moment)));

        let is_asking = self.window.in_flight.iter().any(|request| request.asks);
        let ask_at = self.ask_at.max(self.pace.busy_until);
        let ask = !is_asking && ask_at <= now;
        if !is_asking && !ask {
            wake_at(ask_at);
        }
        let mut pages_from = None;
        let has_pages = self.window.sent < self.outbox.durable;
        if self.bound.is_some() && self.window.has_room(acknowledged) && has_pages {
            let may_at = self.pace.events_may_go_at();
            if may_at <= now {
                pages_from = Some(self.window.sent + 1);
            } else {
                wake_at(may_at);
            }
        }
        if ask || pages_from.is_some() {
            let id = self.next_id;
            self.next_id += 1;
            self.window.wanted = window::WantedRequest { pages: pages_from.is_some(), ask };
            return Action::Send { id, pages_from, ask };
        }
        Action::Wait { until: wake.unwrap_or(Duration::MAX) }
    }

    pub fn resends(&self) -> u64 {
        self.window.resends
    }
    /// The number of messages that are sent and not yet acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.window.sent.saturating_sub(self.outbox.acknowledged)
    }
    /// Returns true when a socket is up and a reply came lately: within twice the asking interval and a resend time. While nothing is
    /// sent because the receiver is busy, it counts as connected.
    pub fn is_connected(&self, now: Duration) -> bool {
        let patience = self.config.ask_every * 2 + RESEND_LEAST;
        let since = |heard_at: Duration| now.saturating_sub(heard_at.max(self.pace.busy_until));
        self.link.state == ConnectionState::Up && self.link.heard_at.is_some_and(|at| since(at) <= patience)
    }
    /// The ledger that we deliver to, once it is known.
    pub fn ledger(&self) -> Option<LedgerId> {
        self.bound
    }
    pub fn server(&self) -> usize {
        self.link.server
    }
    /// The end of the last pause that the receiver asked for; it may have passed.
    pub fn paused_until(&self) -> Duration {
        self.pace.pause_until.max(self.pace.busy_until)
    }

    fn receiver_went_back(&mut self, now: Duration, request: &SentRequest, reply: &Reply) -> Outcome {
        let acknowledged = self.outbox.acknowledged;
        let begin_after = reply.mark.max(self.outbox.oldest - 1);
        if begin_after < acknowledged {
            self.outbox.acknowledged = begin_after;
            self.forget_requests();
        } else if request.last.is_some() {
            // It was not applied, although there is nothing older to send.
            self.hold(now);
        }
        Outcome::ReceiverWentBack { mark: reply.mark, acknowledged }
    }

    /// Acknowledges what comes before `first`: the receiver compared the pages of the request and found them the same up to there.
    /// Returns true if everything before `first` is acknowledged then: earlier requests may still be unanswered.
    fn acknowledge_before(&mut self, request: &SentRequest, first: u64) -> bool {
        let carried = request.last.is_some_and(|last| (request.after + 1..=last).contains(&first));
        if !carried || request.after > self.outbox.acknowledged {
            return false;
        }
        self.outbox.acknowledged = self.outbox.acknowledged.max(first - 1);
        self.outbox.acknowledged == first - 1
    }

    /// The receiver did not look at the request. It is sent again, after those before it, when the receiver may have room.
    fn come_back_later(&mut self, now: Duration, request: &SentRequest, busy_ms: u32) {
        let until = self.pace.busy(now, busy_ms, &mut self.rng);
        tracing::debug!(?until, "sender: the receiver is busy; holding all requests back");
        self.window.limit = 1;
        if self.window.go_back_to_request(request, self.outbox.acknowledged) {
            self.pace.wait_for_the_least_resend_time();
        }
    }

    /// Sends no events for a resend time, which grows with each refusal, because the receiver did not accept them.
    fn hold(&mut self, now: Duration) {
        let until = self.pace.refused(now, &mut self.rng);
        tracing::debug!(?until, "sender: not accepted; holding events back");
        self.window.limit = 1;
        self.forget_requests();
    }

    fn no_reply_came(&mut self) {
        self.pace.silent_tries = self.pace.silent_tries.saturating_add(1);
        self.window.limit = 1;
        self.use_next_server();
        tracing::debug!(next_server = self.link.server, "sender: no reply to what was sent");
    }

    /// Goes back to the first message that is not acknowledged. The least resend time is kept here: it runs from the last time that anything was sent, because a page is not always sent
    /// together with the same other pages.
    fn forget_requests(&mut self) {
        if self.window.go_back_to(self.outbox.acknowledged) {
            self.pace.wait_for_the_least_resend_time();
        }
    }

    fn disconnect(&mut self, now: Duration, tries: u32) {
        let connect_at = now + reconnect_after(tries, &mut self.rng);
        tracing::debug!(
            server = self.link.server,
            failed = self.link.failed_connects,
            ?connect_at,
            "sender: link is down"
        );
        self.link.state = ConnectionState::Down { connect_at };
    }

    fn use_next_server(&mut self) {
        self.link.server = (self.link.server + 1) % self.config.servers;
    }
}

fn check(outbox: &Position) {
    assert!(outbox.acknowledged <= outbox.durable && outbox.oldest <= outbox.acknowledged + 1);
}
