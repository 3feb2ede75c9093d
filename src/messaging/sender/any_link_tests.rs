//! Every message is applied once and in order over any link.

use super::tests::{LEDGER, config, held, reply};
use super::*;
use crate::messaging::Digest;
use crate::messaging::receiver::{Judgement, Mark, PageSpan, judge};
use proptest::prelude::*;
use std::collections::{BTreeMap, BinaryHeap};

/// The link of the property test: what it does with one message.
#[derive(Debug, Clone, Copy)]
enum MessageFate {
    Lost,
    Arrives { after_ms: u64 },
    Twice { first_ms: u64, second_ms: u64 },
}

fn fate() -> impl Strategy<Value = MessageFate> {
    prop_oneof![
        2 => Just(MessageFate::Lost),
        7 => (1u64..3000).prop_map(|after_ms| MessageFate::Arrives { after_ms }),
        2 => (1u64..3000, 1u64..9000).prop_map(|(first_ms, second_ms)| MessageFate::Twice { first_ms, second_ms }),
    ]
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum LinkArrival {
    Request { id: u64, oldest: u64, pages: Vec<(u64, u64)> },
    Reply { id: u64, mark: u64, gap: bool },
    Append { through: u64 },
    LinkBreaks,
}

/// A world of one sender, one receiver, and a link that loses, repeats and reorders until it is healed.
struct AnyLinkWorld {
    sender: Sender,
    /// Messages 1..=appended exist; pages were cut when first sent.
    appended: u64,
    pages: BTreeMap<u64, u64>,
    /// The oracle: every application, in order.
    applied: Vec<u64>,
    applied_pages: BTreeMap<u64, u64>,
    mark: u64,
    clock: Duration,
    events: BinaryHeap<std::cmp::Reverse<(Duration, u64, LinkArrival)>>,
    scheduled: u64,
    fates: Vec<MessageFate>,
    next_fate: usize,
    healed_at: Duration,
    wake_at: Duration,
}

impl AnyLinkWorld {
    fn schedule(&mut self, at: Duration, arrival: LinkArrival) {
        self.scheduled += 1;
        self.events.push(std::cmp::Reverse((at, self.scheduled, arrival)));
    }

    fn post(&mut self, arrival: LinkArrival) {
        let fate = if self.clock >= self.healed_at || self.fates.is_empty() {
            MessageFate::Arrives { after_ms: 5 }
        } else {
            self.next_fate += 1;
            self.fates[self.next_fate % self.fates.len()]
        };
        let ms = Duration::from_millis;
        match fate {
            MessageFate::Lost => {}
            MessageFate::Arrives { after_ms } => self.schedule(self.clock + ms(after_ms), arrival),
            MessageFate::Twice { first_ms, second_ms } => {
                self.schedule(self.clock + ms(first_ms), arrival.clone());
                self.schedule(self.clock + ms(second_ms), arrival);
            }
        }
    }

    /// The page that begins at `from`: as it was cut before, or cut now.
    fn page(&mut self, from: u64) -> (u64, u64) {
        let appended = self.appended;
        let last = *self.pages.entry(from).or_insert_with(|| appended.min(from + 6));
        (from, last)
    }

    fn let_the_sender_act(&mut self) {
        loop {
            match self.sender.poll(self.clock) {
                Action::Connect { .. } => self.sender.connected(self.clock),
                Action::Disconnect => {}
                Action::Wait { until } => {
                    let wake_is_due = self.wake_at <= self.clock;
                    if until < Duration::MAX && (wake_is_due || until < self.wake_at) {
                        self.wake_at = until;
                        self.schedule(until, LinkArrival::Append { through: 0 });
                    }
                    return;
                }
                Action::Send { id, pages_from, .. } => {
                    let mut pages = Vec::new();
                    let mut next = pages_from;
                    while let Some(from) = next.filter(|n| *n <= self.appended && pages.len() < 3) {
                        pages.push(self.page(from));
                        next = pages.last().map(|(_, last)| last + 1);
                    }
                    let last = pages.last().map(|(_, last)| *last);
                    self.sender.sent(self.clock, id, last);
                    let oldest = self.sender.position().oldest;
                    self.post(LinkArrival::Request { id, oldest, pages });
                }
            }
        }
    }

    fn receive(&mut self, id: u64, oldest: u64, pages: Vec<(u64, u64)>) {
        let mut gap = false;
        for (first, last) in pages {
            let digest = Digest::of(&[first.to_be_bytes(), last.to_be_bytes()].concat());
            let place = PageSpan { first, last, digest, previous: None, is_lost: false };
            let applied = |first: u64| {
                let last = self.applied_pages.get(&first);
                Ok::<_, ()>(last.map(|last| Digest::of(&[first.to_be_bytes(), last.to_be_bytes()].concat())))
            };
            let mark = Mark { sequence: self.mark, digest: None };
            match judge(place, mark, oldest, applied).unwrap() {
                Judgement::Next => {
                    self.applied.extend(first..=last);
                    self.applied_pages.insert(first, last);
                    self.mark = last;
                }
                Judgement::Duplicate => {}
                Judgement::Gap { expected } => {
                    assert_eq!(expected, self.mark + 1);
                    gap = true;
                    break;
                }
                wrong => panic!("{wrong:?} of {first}..={last} at mark {}", self.mark),
            }
        }
        let mark = self.mark;
        self.post(LinkArrival::Reply { id, mark, gap });
    }

    fn run(&mut self) {
        self.let_the_sender_act();
        let end = self.healed_at + Duration::from_secs(130);
        while let Some(std::cmp::Reverse((at, _, arrival))) = self.events.pop() {
            if at > end {
                break;
            }
            self.clock = self.clock.max(at);
            match arrival {
                LinkArrival::Request { id, oldest, pages } => self.receive(id, oldest, pages),
                LinkArrival::Reply { id, mark, gap } => {
                    let verdict = if gap { Verdict::Gap } else { Verdict::Accepted };
                    let answer = Reply { verdict, ..reply(id, mark) };
                    let acknowledged_before = self.sender.position().acknowledged;
                    match self.sender.replied(self.clock, &answer).outcome {
                        Outcome::Acknowledged { through } => {
                            assert!(through <= self.mark, "acknowledged what is not applied");
                            assert!(through > acknowledged_before);
                            self.sender.outbox_holds(through + 1, self.appended);
                        }
                        Outcome::Nothing => {}
                        wrong => panic!("{wrong:?}"),
                    }
                }
                LinkArrival::Append { through } => {
                    self.appended = self.appended.max(through);
                    let oldest = self.sender.position().acknowledged + 1;
                    self.sender.outbox_holds(oldest, self.appended);
                }
                LinkArrival::LinkBreaks => self.sender.link_broke(self.clock),
            }
            self.let_the_sender_act();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the link does to requests and replies: each message is applied once, in order, and when the link is
    /// well again everything arrives and is acknowledged.
    #[test]
    fn every_message_is_applied_once_and_in_order_over_any_link(
        fates in proptest::collection::vec(fate(), 0..40),
        appends in proptest::collection::vec((0u64..30_000, 1u64..40), 1..12),
        breaks in proptest::collection::vec(0u64..30_000, 0..6),
        window in 1usize..6,
        servers in 1usize..3,
        seed: u64,
    ) {
        let config = SenderConfig { window, servers, seed, ..config(1) };
        let mut world = AnyLinkWorld {
            sender: Sender::new(config, held(1, 0, 0), Some(LEDGER)),
            appended: 0, pages: BTreeMap::new(), applied: Vec::new(), applied_pages: BTreeMap::new(), mark: 0,
            clock: Duration::ZERO, events: BinaryHeap::new(), scheduled: 0, fates, next_fate: 0,
            healed_at: Duration::from_secs(30), wake_at: Duration::ZERO,
        };
        let mut through = 0;
        let mut appends = appends;
        appends.sort_unstable();
        for (at, count) in appends {
            through += count;
            world.schedule(Duration::from_millis(at), LinkArrival::Append { through });
        }
        for at in breaks {
            world.schedule(Duration::from_millis(at), LinkArrival::LinkBreaks);
        }
        world.run();
        prop_assert_eq!(&world.applied, &(1..=through).collect::<Vec<_>>());
        prop_assert_eq!(world.sender.position().acknowledged, through);
    }
}
