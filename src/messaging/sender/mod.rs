//! Delivers the pages of an outbox, oldest first, until they are acknowledged: the Lazy Pirate pattern
//! (P. Hintjens, "Code Connected", chapter 4) with a window.
//!
//! **Promise.** Only an acknowledgement settles a page, and no page is sent again sooner than
//! [`backoff::RESEND_LEAST`] after it was last sent, whatever the receiver answers. It never gives up, and a queue that
//! does not move while the receiver answers is noticed ([`stillness`]).
//! **Kept by.** A state machine that sees only values: it is told what happened and what time it is, and
//! [`Sender::poll`] answers what to do next. A thin shell owns the sockets and the outbox. Pages are sent in order; going
//! back to an earlier one happens in one place ([`Sender::forget_flights`]), which waits for the resend time.
//! **Not promised.** That the server list is tried in order of distance: it is walked round.
//!
//! Time is a [`Duration`] since any fixed moment, of a clock that never goes back.

pub mod backoff;
#[cfg(test)]
mod hostile_receiver_tests;
#[cfg(test)]
mod resend_tests;
pub mod stillness;
#[cfg(test)]
mod tests;

use super::wire::{PAUSE_MAX_MS, Reply, Verdict};
use super::{LedgerId, wire};
use backoff::{RESEND_LEAST, reconnect_after, resend_after};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::time::Duration;

/// What the shell is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a new socket to the server of this index, then tell [`Sender::connected`] or [`Sender::link_broke`].
    Connect { server: usize },
    /// Nobody answered in time: drop the socket. A [`Action::Connect`] follows in its time.
    Disconnect,
    /// Send a request with this id: pages from `pages_from` on, when given, and the question when `ask`. Then tell
    /// [`Sender::sent`].
    Send { id: u64, pages_from: Option<u64>, ask: bool },
    /// Nothing until something happens or this moment comes.
    Wait { until: Duration },
}

/// What the shell is to do with the outbox after a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything up to here is safe at the receiver. Delete it.
    Settled { through: u64 },
    /// The reply moved nothing.
    Nothing,
    /// The receiver has less than it once acknowledged: it was restored from a copy, or is another one. What is still
    /// here is sent again; the rest is a hole there.
    ReceiverWentBack { mark: u64, settled: u64 },
    /// From `first` on other messages stand in the receiver's book where ours belong. What comes before, up to `settled`, is
    /// safe there. The queue waits and asks again.
    Conflict { first: u64, settled: u64 },
    /// The receiver will not take what we send, and says why. The queue waits and asks again.
    Refused { reason: String },
    /// The first answer ever. Nothing is delivered before this ledger is remembered on disk and told to [`Sender::bind`].
    Found { ledger: LedgerId },
    /// What answers keeps another ledger than the one that we deliver to. Nothing else of the reply counts. Drop the socket;
    /// the next address is tried.
    OtherLedger { found: LedgerId },
    /// An operator decided that our side of a conflict counts too: move what stands from this sequence on to a new epoch, then
    /// tell [`Sender::begin_epoch`]. What comes before is safe at the receiver.
    Move { from: u64 },
}

/// What a reply means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replied {
    pub outcome: Outcome,
    /// The receiver has applied more of this epoch, up to here, than was ever sent from here: somebody else has sent
    /// under it. This directory is an older copy, or another site goes on from a copy of it. New messages need a new epoch.
    pub ahead: Option<u64>,
}

impl From<Outcome> for Replied {
    fn from(outcome: Outcome) -> Replied {
        Replied { outcome, ahead: None }
    }
}

/// What the outbox holds of the epoch that is being delivered. Sequences are plain numbers, 0 standing before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The oldest sequence stored, or the next one.
    pub oldest: u64,
    /// The highest that is acknowledged, as far as we know.
    pub settled: u64,
    /// The last that is on disk.
    pub available: u64,
}

#[derive(Debug, Clone)]
struct Flight {
    id: u64,
    /// The last sequence in it, when it carries pages, and the last one before them.
    last: Option<u64>,
    after: u64,
    asks: bool,
    overdue_at: Duration,
    settled_when_sent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down {
        connect_at: Duration,
    },
    Connecting,
    Up,
    /// The shell has yet to drop the socket.
    Doubtful {
        connect_at: Duration,
    },
}

/// The settings of a [`Sender`].
#[derive(Debug, Clone, Copy)]
pub struct SenderConfig {
    /// How many addresses lead to the receiver. At least 1.
    pub servers: usize,
    /// How many requests may be unanswered at a time. At least 1.
    /// It begins with one, grows by one with each that settles something, and begins anew when answers stay away:
    /// a city of garages that comes back together must not drown its server (slow start, RFC 5681).
    pub window: usize,
    /// How often the question is asked, backlog or none.
    pub ask_every: Duration,
    /// Of the jitter.
    pub seed: u64,
}

/// See the module. Sequences are plain numbers here, 0 standing before the first.
#[derive(Debug, Clone)]
pub struct Sender {
    config: SenderConfig,
    rng: ChaCha8Rng,
    link: Link,
    server: usize,
    next_id: u64,
    /// The oldest sequence that the outbox can still give.
    oldest: u64,
    settled: u64,
    /// Sent on this socket.
    sent: u64,
    /// The highest that this process has sent, on any socket.
    sent_before: u64,
    /// The highest that may ever have been sent, by an earlier process too.
    ever_sent: u64,
    /// What the outbox is able to give, as far as we know.
    available: u64,
    /// Whether the last request that we asked for was to carry pages.
    pages_wanted: bool,
    in_flight: VecDeque<Flight>,
    /// How many requests with pages may be unanswered now.
    window: usize,
    /// Requests in a row that stayed without any answer.
    silent_tries: u32,
    /// Requests with pages in a row that were not accepted.
    refused_tries: u32,
    failed_connects: u32,
    /// No events before this: how long to wait after an answer that did not come, or a refusal.
    hold_until: Duration,
    /// No events before this: some of those that come next were sent less than [`RESEND_LEAST`] before it.
    resend_at: Duration,
    /// No events before this: the receiver asked for a pause.
    pause_until: Duration,
    /// When events were last sent, whoever got them.
    events_sent_at: Option<Duration>,
    ask_at: Duration,
    /// Where the receiver's last gap made us go back to, to notice going round in circles.
    last_gap: Option<u64>,
    resends: u64,
    /// The ledger that we deliver to.
    bound: Option<LedgerId>,
    heard_at: Option<Duration>,
}

impl Sender {
    /// A sender for an outbox that holds this of its oldest epoch, and delivers to `ledger`; without one it asks first.
    pub fn new(config: SenderConfig, held: Held, ledger: Option<LedgerId>) -> Sender {
        assert!(config.servers > 0 && config.window > 0);
        let Held { oldest, settled, available } = held;
        assert!(settled <= available && oldest <= settled + 1);
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        Sender {
            config,
            link: Link::Down { connect_at: Duration::ZERO },
            server: 0,
            // Starting anywhere keeps a late reply to a former process from being taken for one to this.
            next_id: rng.random::<u64>() >> 1 | 1,
            rng,
            oldest,
            settled,
            sent: settled,
            sent_before: settled,
            // What an earlier process sent is not known, and may have been all.
            ever_sent: available,
            available,
            pages_wanted: false,
            in_flight: VecDeque::new(),
            window: 1,
            silent_tries: 0,
            refused_tries: 0,
            failed_connects: 0,
            hold_until: Duration::ZERO,
            resend_at: Duration::ZERO,
            pause_until: Duration::ZERO,
            events_sent_at: None,
            ask_at: Duration::ZERO,
            last_gap: None,
            resends: 0,
            bound: ledger,
            heard_at: None,
        }
    }

    /// An earlier process may have sent what waits here until now.
    pub fn goes_on_from_another_process(&mut self, now: Duration) {
        self.resend_at = self.resend_at.max(now + RESEND_LEAST);
    }

    /// From now on the next epoch of the outbox is delivered. What is in flight counts no more: a reply to it is about the
    /// epoch before.
    pub fn begin_epoch(&mut self, held: Held) {
        let Held { oldest, settled, available } = held;
        assert!(settled <= available && oldest <= settled + 1);
        // What was sent and is not settled was moved here: these are the same messages.
        self.forget_flights();
        self.oldest = oldest;
        self.settled = settled;
        self.sent_before = settled;
        self.ever_sent = available;
        self.available = available;
        self.last_gap = None;
        self.refused_tries = 0;
        // A request that was held back belonged to the epoch before; a socket that was silent stays in doubt.
        self.hold_until = Duration::ZERO;
        self.sent = settled;
    }

    /// Delivers to this ledger from now on, and to no other.
    pub fn bind(&mut self, ledger: LedgerId) {
        if self.bound.replace(ledger) != Some(ledger) {
            self.hold_until = Duration::ZERO;
            self.refused_tries = 0;
        }
    }

    /// The outbox now holds flushed messages up to `available`, and none older than `oldest`.
    pub fn outbox_holds(&mut self, oldest: u64, available: u64) {
        debug_assert!(available >= self.settled);
        self.oldest = oldest;
        self.available = self.available.max(available);
    }

    /// The oldest sequence that a request says we have.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    pub fn connected(&mut self, _now: Duration) {
        debug_assert_eq!(self.link, Link::Connecting);
        self.link = Link::Up;
    }

    /// Connecting failed, or the socket reported an error. Nothing is known about what was in flight.
    pub fn link_broke(&mut self, now: Duration) {
        match self.link {
            Link::Down { .. } => return,
            Link::Connecting => {
                self.failed_connects = self.failed_connects.saturating_add(1);
                self.next_server();
            }
            Link::Up | Link::Doubtful { .. } => {
                // It may be resent when its time has come, on whichever socket there is then.
                let oldest = self.unsettled_flights().next();
                if let Some(overdue_at) = oldest.map(|f| f.overdue_at) {
                    self.hold_until = self.hold_until.max(overdue_at);
                }
                if self.unanswered().next().is_some() {
                    // A way that breaks under what is asked of it is as good as a silent one.
                    self.nobody_answered();
                }
                self.failed_connects = self.failed_connects.saturating_add(1);
            }
        }
        self.forget_flights();
        let wait = match self.failed_connects {
            0 => Duration::ZERO,
            tries => reconnect_after(tries - 1, &mut self.rng),
        };
        self.link = Link::Down { connect_at: now + wait };
    }

    /// The request `id` went out, with pages up to `last` if it carries any. When pages were wanted and none could be
    /// had, they come after the next [`Sender::outbox_holds`]; the request then counts as not sent unless it asks.
    pub fn sent(&mut self, now: Duration, id: u64, last: Option<u64>, asks: bool) {
        let after = self.sent;
        match last {
            Some(last) => {
                debug_assert!(last > self.sent);
                self.resends += last.min(self.sent_before).saturating_sub(self.sent);
                self.sent = last;
                self.sent_before = self.sent_before.max(last);
                self.ever_sent = self.ever_sent.max(last);
                self.available = self.available.max(last);
                self.events_sent_at = Some(now);
            }
            None if self.pages_wanted => self.available = self.sent,
            None => {}
        }
        if last.is_none() && !asks {
            return;
        }
        if asks {
            // Nothing is delivered before the first answer: a lost one must not cost a long interval.
            let unbound = self.bound.is_none().then_some(RESEND_LEAST);
            self.ask_at = now + self.config.ask_every.min(unbound.unwrap_or(Duration::MAX));
        }
        let overdue_at = now + self.resend_time();
        let settled_when_sent = self.settled;
        self.in_flight.push_back(Flight { id, last, after, asks, overdue_at, settled_when_sent });
    }

    /// A reply came.
    ///
    /// One to a request that is no longer waited for is ignored. Only an
    /// accepted request that carried pages settles, and only what it carried and what came before: the receiver compared
    /// their digests, and each names the one before it. A mark alone proves nothing about the content behind it.
    pub fn replied(&mut self, now: Duration, reply: &Reply) -> Replied {
        let Some(place) = self.in_flight.iter().position(|f| f.id == reply.id) else {
            return Outcome::Nothing.into();
        };
        let flight = self.in_flight.remove(place).expect("it was just found");
        match self.bound {
            Some(bound) if bound != reply.ledger => {
                // It took nothing, and says nothing about our own server: that one need not be spared.
                self.forget_flights();
                self.next_server();
                self.failed_connects = self.failed_connects.saturating_add(1);
                let connect_at = now + reconnect_after(self.failed_connects, &mut self.rng);
                self.link = Link::Down { connect_at };
                return Outcome::OtherLedger { found: reply.ledger }.into();
            }
            _ => {}
        }
        let ahead = (reply.mark > self.ever_sent).then_some(reply.mark);
        Replied { outcome: self.judged(now, &flight, reply), ahead }
    }

    fn judged(&mut self, now: Duration, flight: &Flight, reply: &Reply) -> Outcome {
        self.heard_at = Some(now);
        self.failed_connects = 0;
        if reply.pause_ms > 0 {
            let pause = Duration::from_millis(reply.pause_ms.min(PAUSE_MAX_MS).into());
            self.pause_until = self.pause_until.max(now + pause);
        }
        if std::mem::take(&mut self.silent_tries) > 0
            && self.refused_tries == 0
            && let Some(sent_at) = self.events_sent_at
        {
            // Somebody answers again: no need to sit out a long resend time.
            self.hold_until = self.hold_until.min(sent_at + RESEND_LEAST);
        }
        if self.bound.is_none() {
            return Outcome::Found { ledger: reply.ledger };
        }
        if reply.mark < flight.settled_when_sent {
            return self.receiver_went_back(now, flight, reply);
        }
        match (&reply.verdict, flight.last) {
            (Verdict::Accepted, Some(last)) if reply.mark >= last => {
                self.refused_tries = 0;
                if last <= self.settled {
                    return Outcome::Nothing;
                }
                self.settled = last;
                self.sent = self.sent.max(last);
                self.window = (self.window + 1).min(self.config.window);
                Outcome::Settled { through: last }
            }
            (Verdict::Accepted, None) => Outcome::Nothing,
            // Accepted, but not applied as far as it went: as good as a gap.
            (Verdict::Gap | Verdict::Accepted, _) => {
                self.go_back(now, reply.mark);
                Outcome::Nothing
            }
            (Verdict::Conflict { first }, _) => {
                self.settle_before(flight, *first);
                self.refused(now);
                Outcome::Conflict { first: *first, settled: self.settled }
            }
            (Verdict::Refused { reason }, _) => {
                self.refused(now);
                Outcome::Refused { reason: reason.clone() }
            }
            (Verdict::OtherLedger, _) => {
                self.refused(now);
                Outcome::Nothing
            }
            (Verdict::Move { from }, _) => {
                let begins_there = self.settle_before(flight, *from);
                self.refused(now);
                // Otherwise an earlier request is still to say what became of the pages before.
                if begins_there { Outcome::Move { from: *from } } else { Outcome::Nothing }
            }
        }
    }

    /// What to do now. Ask again after doing it, until it says to wait.
    pub fn poll(&mut self, now: Duration) -> Action {
        match self.link {
            Link::Doubtful { connect_at } => {
                self.link = Link::Down { connect_at };
                Action::Disconnect
            }
            Link::Down { connect_at } if connect_at <= now => {
                self.link = Link::Connecting;
                Action::Connect { server: self.server }
            }
            Link::Down { connect_at } => Action::Wait { until: connect_at },
            Link::Connecting => Action::Wait { until: Duration::MAX },
            Link::Up => self.poll_up(now),
        }
    }

    fn poll_up(&mut self, now: Duration) -> Action {
        if self.unanswered().any(|f| f.overdue_at <= now) {
            // Lazy Pirate: a socket that stays silent is of no use; the next address may be.
            self.nobody_answered();
            self.forget_flights();
            self.link = Link::Doubtful { connect_at: now };
            return self.poll(now);
        }
        // Acknowledged by a later reply, while its own was lost.
        let settled = self.settled;
        self.in_flight.retain(|f| f.asks || f.overdue_at > now || f.last.is_none_or(|last| last > settled));
        let mut wake = self.unanswered().map(|f| f.overdue_at).min();
        let mut wake_at = |moment: Duration| wake = Some(wake.map_or(moment, |w| w.min(moment)));

        let asking = self.in_flight.iter().any(|f| f.asks);
        let ask = !asking && self.ask_at <= now;
        if !asking && !ask {
            wake_at(self.ask_at);
        }
        let with_pages = self.unsettled_flights().count();
        let mut pages_from = None;
        if self.bound.is_some() && with_pages < self.window && self.sent < self.available {
            let may_at = self.hold_until.max(self.pause_until).max(self.resend_at);
            if may_at <= now {
                pages_from = Some(self.sent + 1);
            } else {
                wake_at(may_at);
            }
        }
        if ask || pages_from.is_some() {
            let id = self.next_id;
            self.next_id += 1;
            self.pages_wanted = pages_from.is_some();
            return Action::Send { id, pages_from, ask };
        }
        Action::Wait { until: wake.unwrap_or(Duration::MAX) }
    }

    /// How many messages were sent again.
    pub fn resends(&self) -> u64 {
        self.resends
    }
    /// How many messages are sent and not yet answered.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.settled.min(self.sent)
    }
    /// Whether a socket is up and was answered through lately: within twice the asking interval and a resend time.
    pub fn is_connected(&self, now: Duration) -> bool {
        let patience = self.config.ask_every * 2 + RESEND_LEAST;
        self.link == Link::Up && self.heard_at.is_some_and(|at| now - at <= patience)
    }
    /// The ledger that we deliver to, once it is known.
    pub fn ledger(&self) -> Option<LedgerId> {
        self.bound
    }
    /// The address that is in use or tried next.
    pub fn server(&self) -> usize {
        self.server
    }
    pub fn settled(&self) -> u64 {
        self.settled
    }
    /// Up to when the receiver asked for a pause, now or before.
    pub fn paused_until(&self) -> Duration {
        self.pause_until
    }

    fn receiver_went_back(&mut self, now: Duration, flight: &Flight, reply: &Reply) -> Outcome {
        let settled = self.settled;
        let begin_after = reply.mark.max(self.oldest - 1);
        if begin_after < settled {
            self.settled = begin_after;
            self.forget_flights();
        } else if flight.last.is_some() {
            // It was not applied, although there is nothing older to send.
            self.refused(now);
        }
        Outcome::ReceiverWentBack { mark: reply.mark, settled }
    }

    /// The receiver compared the pages of a request and found them the same up to `first`. Returns whether everything before
    /// `first` is settled then: earlier requests may still be unanswered.
    fn settle_before(&mut self, flight: &Flight, first: u64) -> bool {
        let carried = flight.last.is_some_and(|last| (flight.after + 1..=last).contains(&first));
        if !carried || flight.after > self.settled {
            return false;
        }
        self.settled = self.settled.max(first - 1);
        self.settled == first - 1
    }

    /// The receiver misses something that we have sent. If it says the same again, the loss is not an accident, and the resend
    /// time grows.
    fn go_back(&mut self, now: Duration, mark: u64) {
        if self.last_gap == Some(mark) {
            self.refused(now);
        }
        self.last_gap = Some(mark);
        self.forget_flights();
    }

    fn refused(&mut self, now: Duration) {
        self.refused_tries = self.refused_tries.saturating_add(1);
        self.hold_until = self.hold_until.max(now + self.resend_time());
        self.window = 1;
        self.forget_flights();
    }

    /// The resend time of the next try.
    fn resend_time(&mut self) -> Duration {
        let tries = self.silent_tries.max(self.refused_tries.saturating_sub(1));
        resend_after(tries, &mut self.rng)
    }

    /// Requests whose pages are not settled yet, oldest first.
    fn unsettled_flights(&self) -> impl Iterator<Item = &Flight> {
        let settled = self.settled;
        self.in_flight.iter().filter(move |f| f.last.is_some_and(|last| last > settled))
    }

    /// Requests that still lack the reply they are waiting for.
    fn unanswered(&self) -> impl Iterator<Item = &Flight> {
        let settled = self.settled;
        self.in_flight.iter().filter(move |f| f.asks || f.last.is_none_or(|last| last > settled))
    }

    fn nobody_answered(&mut self) {
        self.silent_tries = self.silent_tries.saturating_add(1);
        self.window = 1;
        self.next_server();
    }

    /// Goes back to the first message that is not settled. This is the only way in which anything is sent again, so that the
    /// least resend time is kept here: it runs from the last sending, because a page is not always sent beside the same others.
    fn forget_flights(&mut self) {
        self.in_flight.clear();
        self.sent = self.settled;
        if let Some(sent_at) = self.events_sent_at
            && self.sent_before > self.settled
        {
            self.resend_at = self.resend_at.max(sent_at + RESEND_LEAST);
        }
    }

    fn next_server(&mut self) {
        self.server = (self.server + 1) % self.config.servers;
    }
}

/// How many bytes of pages go into one request: enough to make the cost of a message small, and few enough that a window
/// of them from every garage of a city is served well within the resend time.
pub const PAGES_BYTES: usize = wire::REQUEST_MAX / 8;
