//! A receiver whose replies are well-formed and whose numbers are made to do harm: the sender never acknowledges what it has not
//! sent, and never ends.

use super::tests::held;
use super::*;
use proptest::prelude::*;

const OURS: LedgerId = LedgerId::from_bytes([9; 16]);

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..120u64, 2 => u64::MAX - 3..=u64::MAX, 1 => any::<u64>()]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Accepted),
        1 => Just(Verdict::Gap),
        2 => number().prop_map(|first| Verdict::Conflict { first }),
        1 => Just(Verdict::Refused { reason: "r".into() }),
        1 => Just(Verdict::OtherLedger),
        2 => number().prop_map(|from| Verdict::Move { from }),
    ]
}

#[derive(Debug, Clone)]
enum Happens {
    /// A reply to one of the last requests.
    Replied {
        back: usize,
        mark: u64,
        verdict: Verdict,
        pause_ms: u32,
        is_ours: bool,
    },
    Broke,
    Time(u64),
    Appended(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let replied = (0..5usize, number(), verdict(), any::<u32>(), prop::bool::weighted(0.95)).prop_map(
        |(back, mark, verdict, pause_ms, is_ours)| Happens::Replied {
            back,
            mark,
            verdict,
            pause_ms,
            is_ours,
        },
    );
    prop_oneof![
        10 => replied,
        1 => Just(Happens::Broke),
        4 => (0..5_000u64).prop_map(Happens::Time),
        3 => (1..30u64).prop_map(Happens::Appended),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_reply_ends_the_sender_or_acknowledges_what_was_not_sent(
        is_bound in any::<bool>(),
        story in prop::collection::vec(happens(), 1..60),
        takes in prop::collection::vec(1..12u64, 1..20),
    ) {
        let config = SenderConfig { servers: 2, window: 4, ask_every: Duration::from_secs(1), seed: 7 };
        let mut available = 20;
        let mut sender = Sender::new(config, held(1, 0, available), is_bound.then_some(OURS));
        let mut now = Duration::ZERO;
        let mut ids = Vec::new();
        let mut takes = takes.iter().cycle();
        // The highest sequence of this epoch that ever left, and up to where the outbox has deleted.
        let (mut sent, mut deleted) = (0, 0);
        for step in story {
            for _ in 0..20 {
                match sender.poll(now) {
                    Action::Connect { .. } => sender.connected(now),
                    Action::Disconnect => {}
                    Action::Send { id, pages_from, .. } => {
                        let last = pages_from.map(|from| (from - 1 + takes.next().unwrap()).min(available));
                        let last = last.filter(|last| *last >= pages_from.unwrap());
                        sent = sent.max(last.unwrap_or(0));
                        sender.sent(now, id, last);
                        ids.push(id);
                    }
                    Action::Wait { .. } => break,
                }
            }
            match step {
                Happens::Time(ms) => now += Duration::from_millis(ms),
                Happens::Broke => sender.link_broke(now),
                Happens::Appended(count) => {
                    available += count;
                    sender.outbox_holds(deleted + 1, available);
                }
                Happens::Replied { back, mark, verdict, pause_ms, is_ours } => {
                    let Some(id) = ids.iter().rev().nth(back) else { continue };
                    let ledger = if is_ours { OURS } else { LedgerId::from_bytes([1; 16]) };
                    let reply = Reply {
                        id: *id,
                        ledger,
                        mark,
                        verdict,
                        pause_ms,
                        clock_ms: i64::MIN,
                        notice: None,
                        answer: None,
                    };
                    match sender.replied(now, &reply).outcome {
                        Outcome::LedgerFound { ledger } => sender.bind(ledger),
                        Outcome::Acknowledged { through } | Outcome::Conflict { acknowledged: through, .. } => {
                            prop_assert!(through <= sent, "{} of {} sent", through, sent);
                            deleted = deleted.max(through);
                            sender.outbox_holds(deleted + 1, available);
                        }
                        Outcome::Move { from } => {
                            prop_assert!((1..=sent).contains(&from), "from {} of {} sent", from, sent);
                            available -= from - 1;
                            (sent, deleted) = (0, 0);
                            ids.clear();
                            sender.begin_epoch(held(1, 0, available));
                        }
                        Outcome::ReceiverWentBack { acknowledged, .. } => prop_assert!(acknowledged <= sent),
                        Outcome::Nothing | Outcome::Refused { .. } | Outcome::OtherLedger { .. } => {}
                    }
                }
            }
            prop_assert!(sender.position().acknowledged <= available);
            prop_assert!(sender.in_flight() <= available);
        }
    }
}
