//! What a receiver cannot make a sender do, whatever it answers.

use super::tests::held;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LEDGER: LedgerId = LedgerId::from_bytes([9; 16]);
const OTHER: LedgerId = LedgerId::from_bytes([8; 16]);

/// What happens, one after the other.
#[derive(Debug, Clone)]
enum ResendStep {
    Pass { ms: u64 },
    Append { count: u64 },
    ResendAnswer(ResendAnswer),
    LinkBreaks,
    Restart,
    Bind { ledger: LedgerId },
}

/// A reply to a request that was sent, or to one that never was.
#[derive(Debug, Clone)]
struct ResendAnswer {
    /// Which of the requests, the last one first; one that is long forgotten, too.
    to: usize,
    ledger: LedgerId,
    mark: u64,
    verdict: Verdict,
    pause_ms: u32,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..80, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Accepted),
        3 => Just(Verdict::Gap),
        2 => number().prop_map(|first| Verdict::Conflict { first }),
        2 => number().prop_map(|from| Verdict::Move { from }),
        1 => Just(Verdict::Refused { reason: "it is full".into() }),
        1 => Just(Verdict::OtherLedger),
    ]
}

fn answer() -> impl Strategy<Value = ResendAnswer> {
    let ledger = prop_oneof![9 => Just(LEDGER), 1 => Just(OTHER)];
    let pause_ms = prop_oneof![8 => Just(0), 1 => 0u32..3000, 1 => any::<u32>()];
    (0usize..6, ledger, number(), verdict(), pause_ms).prop_map(|(to, ledger, mark, verdict, pause_ms)| {
        ResendAnswer { to, ledger, mark, verdict, pause_ms }
    })
}

fn step() -> impl Strategy<Value = ResendStep> {
    prop_oneof![
        6 => (0u64..2500).prop_map(|ms| ResendStep::Pass { ms }),
        2 => (1u64..20).prop_map(|count| ResendStep::Append { count }),
        9 => answer().prop_map(ResendStep::ResendAnswer),
        1 => Just(ResendStep::LinkBreaks),
        1 => Just(ResendStep::Restart),
        1 => prop_oneof![2 => Just(LEDGER), 1 => Just(OTHER)].prop_map(|ledger| ResendStep::Bind { ledger }),
    ]
}

/// A sender, the outbox behind it, and when each message of it was sent last.
struct ResendWorld {
    config: SenderConfig,
    sender: Sender,
    now: Duration,
    /// Messages that the epoch before gave to this one keep their number: it is their sequence plus this.
    moved: u64,
    oldest: u64,
    acknowledged: u64,
    stored: u64,
    /// The number of messages that fit into one request.
    fits: u64,
    connects: bool,
    asked: Vec<u64>,
    last_sent: BTreeMap<u64, Duration>,
    /// The requests that the honest receiver of the end has yet to answer.
    received: Vec<(u64, Option<(u64, u64)>)>,
}

impl ResendWorld {
    fn new(config: SenderConfig, fits: u64, connects: bool) -> ResendWorld {
        ResendWorld {
            config,
            sender: Sender::new(config, held(1, 0, 0), Some(LEDGER)),
            now: Duration::ZERO,
            moved: 0,
            oldest: 1,
            acknowledged: 0,
            stored: 0,
            fits,
            connects,
            asked: Vec::new(),
            last_sent: BTreeMap::new(),
            received: Vec::new(),
        }
    }

    fn held(&self) -> Position {
        held(self.oldest, self.acknowledged, self.stored)
    }

    /// Does what the sender wants now. Returns when it wants something again.
    fn act(&mut self) -> Duration {
        for _ in 0..100 {
            match self.sender.poll(self.now) {
                Action::Connect { .. } if self.connects => self.sender.connected(self.now),
                Action::Connect { .. } => self.sender.link_broke(self.now),
                Action::Disconnect => {}
                Action::Send { id, pages_from, .. } => self.send(id, pages_from),
                Action::Wait { until } => return until,
            }
        }
        panic!("the sender does not come to rest at {:?}", self.now);
    }

    fn send(&mut self, id: u64, pages_from: Option<u64>) {
        let carried = pages_from.map(|from| (from, self.stored.min(from + self.fits - 1)));
        for sequence in carried.into_iter().flat_map(|(from, last)| from..=last) {
            let before = self.last_sent.insert(self.moved + sequence, self.now);
            let since = before.map_or(RESEND_LEAST, |before| self.now - before);
            assert!(since >= RESEND_LEAST, "message {sequence} is sent again after {since:?}");
        }
        self.sender.sent(self.now, id, carried.map(|(_, last)| last));
        self.asked.push(id);
        self.received.push((id, carried));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wake = self.act();
            if wake >= end {
                self.now = end;
                self.act();
                return;
            }
            assert!(wake > self.now, "it wants something at once, and does nothing");
            self.now = wake;
        }
    }

    fn replied(&mut self, reply: &Reply) {
        let ReplyEffect { outcome, .. } = self.sender.replied(self.now, reply);
        match outcome {
            Outcome::Acknowledged { through } => {
                self.acknowledged = through;
                self.oldest = through + 1; // all of it is deleted
                self.sender.outbox_holds(self.oldest, self.stored);
            }
            Outcome::Conflict { acknowledged, .. } => self.acknowledged = acknowledged,
            Outcome::ReceiverWentBack { mark, .. } => {
                self.acknowledged = self.acknowledged.min(mark.max(self.oldest - 1))
            }
            Outcome::Move { from } => {
                self.moved += from - 1;
                (self.oldest, self.acknowledged, self.stored) = (1, 0, self.stored - (from - 1));
                self.sender.begin_epoch(self.held());
            }
            Outcome::LedgerFound { ledger } => self.sender.bind(ledger),
            Outcome::Nothing | Outcome::Refused { .. } | Outcome::OtherLedger { .. } => {}
        }
        assert!(self.acknowledged <= self.stored && self.oldest <= self.acknowledged + 1);
    }

    fn take(&mut self, step: ResendStep) {
        match step {
            ResendStep::Pass { ms } => self.pass(Duration::from_millis(ms)),
            ResendStep::Append { count } => {
                self.stored += count;
                self.sender.outbox_holds(self.oldest, self.stored);
            }
            ResendStep::ResendAnswer(answer) => {
                let ResendAnswer { to, ledger, mark, verdict, pause_ms } = answer;
                let id = self.asked.iter().rev().nth(to).copied().unwrap_or(77);
                let (notice, answer) = (None, None);
                self.replied(&Reply { id, ledger, mark, verdict, pause_ms, clock_ms: 0, notice, answer });
            }
            ResendStep::LinkBreaks => self.sender.link_broke(self.now),
            ResendStep::Restart => {
                self.sender = Sender::new(self.config, self.held(), self.sender.ledger());
                self.sender.continues_another_process(self.now);
            }
            ResendStep::Bind { ledger } => self.sender.bind(ledger),
        }
        self.act();
    }

    /// From now on an honest receiver, which has nothing yet, answers everything after 10 ms.
    fn serve_honestly(&mut self) {
        self.connects = true;
        let ledger = self.sender.ledger().unwrap_or(LEDGER);
        let mut mark = 0;
        let end = self.now + Duration::from_secs(600);
        while self.now < end && self.acknowledged < self.stored {
            self.received.clear();
            let wake = self.act();
            for (id, carried) in std::mem::take(&mut self.received) {
                self.now += Duration::from_millis(10);
                let verdict = match carried {
                    Some((from, last)) if from <= u64::max(mark, self.oldest - 1) + 1 => {
                        mark = mark.max(last);
                        Verdict::Accepted
                    }
                    Some(_) => Verdict::Gap,
                    None => Verdict::Accepted,
                };
                let (notice, answer) = (None, None);
                self.replied(&Reply { id, ledger, mark, verdict, pause_ms: 0, clock_ms: 0, notice, answer });
            }
            self.now = self.now.max(wake.min(end));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    /// One resend at once was allowed when the receiver said that it misses something, and whatever made it go on saying so (a
    /// damaged store once did) made a storm of resends. An address that keeps another ledger, a link that breaks, a move to a
    /// new epoch and a restart are no ways around the resend time, either.
    #[test]
    fn nothing_is_sent_again_within_the_least_resend_time_whatever_is_answered(
        steps in proptest::collection::vec(step(), 1..80),
        fits in 1u64..20,
        window in 1usize..6,
        servers in 1usize..3,
        connects: bool,
        seed: u64,
    ) {
        let config = SenderConfig { servers, window, ask_every: Duration::from_secs(1), seed };
        let mut world = ResendWorld::new(config, fits, connects || seed % 4 > 0);
        world.take(ResendStep::Append { count: 10 });
        for step in steps {
            world.take(step);
        }
        world.serve_honestly();
        prop_assert_eq!(world.acknowledged, world.stored, "an honest receiver gets everything in the end");
    }
}
