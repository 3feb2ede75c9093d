use super::*;
use std::collections::VecDeque;

pub(super) const LEDGER: LedgerId = LedgerId::from_bytes([9; 16]);

impl From<Outcome> for ReplyEffect {
    fn from(outcome: Outcome) -> ReplyEffect {
        ReplyEffect { outcome, ahead: None }
    }
}

pub(super) fn config(servers: usize) -> SenderConfig {
    SenderConfig { servers, window: 4, ask_every: Duration::from_secs(1), seed: 7 }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn reply(id: u64, mark: u64) -> Reply {
    Reply {
        id,
        ledger: LEDGER,
        mark,
        verdict: Verdict::Accepted,
        pause_ms: 0,
        clock_ms: 0,
        notice: None,
        answer: None,
    }
}

pub(super) fn held(oldest: u64, acknowledged: u64, durable: u64) -> Position {
    let epoch = crate::messaging::Epoch::from_bytes([1; 16]);
    Position { epoch_index: 0, epoch, oldest, acknowledged, durable }
}

/// A sender with `available` messages, connected to its first server.
fn connected(servers: usize, available: u64) -> Sender {
    let mut sender = Sender::new(config(servers), held(1, 0, available), Some(LEDGER));
    assert_eq!(sender.poll(Duration::ZERO), Action::Connect { server: 0 });
    sender.connected(Duration::ZERO);
    sender
}

/// One whose window is open: some messages were acknowledged before, and the question was asked a moment ago.
fn opened(servers: usize, available: u64) -> Sender {
    let mut sender = connected(servers, available);
    for _ in 0..3 {
        let (id, from) = send(&mut sender, Duration::ZERO, 1);
        sender.replied(Duration::ZERO, &reply(id, from.unwrap()));
    }
    sender
}

/// Takes the next action, which must be a request, and sends up to `count` messages in it.
fn send(sender: &mut Sender, now: Duration, count: u64) -> (u64, Option<u64>) {
    match sender.poll(now) {
        Action::Send { id, pages_from, .. } => {
            let last = pages_from.map(|from| from + count - 1);
            sender.sent(now, id, last);
            (id, pages_from)
        }
        other => panic!("expected a request, got {other:?}"),
    }
}

#[test]
fn the_oldest_goes_first_and_the_window_opens_as_answers_come() {
    let mut sender = connected(1, 1000);
    let mut unanswered = VecDeque::from([send(&mut sender, Duration::ZERO, 10)]);
    let mut most = 1;
    for from in (11..200).step_by(10) {
        if matches!(sender.clone().poll(Duration::ZERO), Action::Wait { .. }) {
            let (id, from) = unanswered.pop_front().unwrap();
            sender.replied(Duration::ZERO, &reply(id, from.unwrap() + 9));
        }
        unanswered.push_back(send(&mut sender, Duration::ZERO, 10));
        assert_eq!(unanswered.back().unwrap().1, Some(from));
        most = most.max(unanswered.len());
    }
    assert_eq!(most, 4);
    assert_eq!(sender.in_flight(), 10 * unanswered.len() as u64);
}

#[test]
fn after_silence_the_window_begins_with_one_again() {
    let mut sender = opened(1, 1000);
    for _ in 0..4 {
        send(&mut sender, secs(1), 10);
    }
    assert_eq!(sender.poll(secs(9)), Action::Disconnect);
    assert!(matches!(sender.poll(secs(9)), Action::Connect { .. }));
    sender.connected(secs(9));
    send(&mut sender, secs(9), 10);
    assert!(matches!(sender.poll(secs(9)), Action::Wait { .. }));
}

#[test]
fn only_a_reply_acknowledges_and_it_counts_for_all_before() {
    let mut sender = opened(1, 30);
    let (first, _) = send(&mut sender, Duration::ZERO, 10);
    let (second, _) = send(&mut sender, Duration::ZERO, 10);
    let outcome = sender.replied(secs(1), &reply(second, 23));
    assert_eq!(outcome, Outcome::Acknowledged { through: 23 }.into());
    assert_eq!(sender.replied(secs(1), &reply(first, 23)), Outcome::Nothing.into());
    assert_eq!(sender.position().acknowledged, 23);
}

#[test]
fn nothing_is_resent_before_two_seconds_even_when_the_link_breaks_at_once() {
    let mut sender = connected(1, 10);
    send(&mut sender, Duration::ZERO, 10);
    sender.link_broke(Duration::from_millis(5));
    let Action::Wait { until } = sender.poll(Duration::from_millis(5)) else {
        panic!("it must not connect in a tight loop")
    };
    assert!(until <= secs(2), "connecting may be soon");
    assert_eq!(sender.poll(until), Action::Connect { server: 0 });
    sender.connected(until);
    let Action::Wait { until } = sender.poll(until) else { panic!("the events must wait for their time") };
    assert!(until >= Duration::from_secs(1));
    let (_, from) = send(&mut sender, secs(2), 10);
    assert_eq!(from, Some(1));
    assert_eq!(sender.resends(), 10);
}

#[test]
fn a_silent_server_is_left_for_the_next_address_after_one_resend_time() {
    let mut sender = connected(2, 10);
    send(&mut sender, Duration::ZERO, 10);
    assert!(matches!(sender.poll(Duration::from_millis(1999)), Action::Wait { .. }));
    assert_eq!(sender.poll(secs(2)), Action::Disconnect);
    assert_eq!(sender.poll(secs(2)), Action::Connect { server: 1 });
    sender.connected(secs(2));
    assert_eq!(send(&mut sender, secs(2), 10).1, Some(1));
}

#[test]
fn a_server_that_cannot_be_reached_is_left_for_the_next_address() {
    let mut sender = Sender::new(config(3), held(1, 0, 1), Some(LEDGER));
    let mut now = Duration::ZERO;
    let mut tried = Vec::new();
    while tried.len() < 6 {
        match sender.poll(now) {
            Action::Connect { server } => {
                tried.push(server);
                sender.link_broke(now);
            }
            Action::Wait { until } => now = until,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tried, [0, 1, 2, 0, 1, 2]);
    assert!(now >= Duration::from_millis(500), "not in a tight loop");
}

#[test]
fn the_question_is_asked_at_its_interval_backlog_or_none() {
    let mut sender = connected(1, 0);
    for second in 0..5 {
        let (id, pages) = send(&mut sender, secs(second), 0);
        assert_eq!(pages, None);
        sender.replied(secs(second) + Duration::from_millis(3), &reply(id, 0));
        let wait = sender.poll(secs(second) + Duration::from_millis(3));
        assert_eq!(wait, Action::Wait { until: secs(second + 1) });
    }
}

#[test]
fn a_question_does_not_wait_behind_a_full_window() {
    let mut sender = opened(1, 1000);
    for _ in 0..4 {
        send(&mut sender, Duration::ZERO, 10);
    }
    assert!(matches!(sender.poll(Duration::ZERO), Action::Wait { .. }));
    assert!(matches!(sender.poll(secs(1)), Action::Send { pages_from: None, ask: true, .. }));
}

#[test]
fn a_pause_that_the_server_asks_for_is_kept_up_to_a_minute() {
    let mut sender = connected(1, 100);
    let (id, _) = send(&mut sender, Duration::ZERO, 10);
    let pause = Reply { pause_ms: 3_600_000, ..reply(id, 10) };
    sender.replied(secs(1), &pause);
    let mut now = secs(1);
    loop {
        match sender.poll(now) {
            Action::Send { id, pages_from: None, .. } => {
                sender.sent(now, id, None);
                sender.replied(now, &reply(id, 10));
            }
            Action::Send { pages_from, .. } => {
                assert_eq!((now, pages_from), (secs(61), Some(11)));
                return;
            }
            Action::Wait { until } => now = until,
            other => panic!("{other:?}"),
        }
    }
}

/// Another process has sent under this epoch: this directory is an older copy, or the other one is.
#[test]
fn a_receiver_that_is_ahead_of_everything_that_was_ever_sent_is_reported_and_acknowledges_only_what_it_has_of_ours()
 {
    let mut sender = connected(1, 10);
    let (id, _) = send(&mut sender, Duration::ZERO, 10);
    let replied = sender.replied(secs(1), &reply(id, 11));
    assert_eq!(replied, ReplyEffect { outcome: Outcome::Acknowledged { through: 10 }, ahead: Some(11) });
    sender.outbox_holds(11, 15);
    let (id, _) = send(&mut sender, secs(1), 5);
    let conflict = Reply { verdict: Verdict::Conflict { first: 11 }, ..reply(id, 20) };
    let replied = sender.replied(secs(1), &conflict);
    assert_eq!(
        replied,
        ReplyEffect { outcome: Outcome::Conflict { first: 11, acknowledged: 10 }, ahead: Some(20) }
    );
    assert_eq!(sender.position().acknowledged, 10);
    // It does not send them again in a tight loop either.
    while let Action::Send { id, pages_from, .. } = sender.poll(secs(1)) {
        assert_eq!(pages_from, None);
        sender.sent(secs(1), id, None);
    }
}

#[test]
fn nothing_is_delivered_before_the_ledger_is_known() {
    let held = held(1, 0, 10);
    let mut sender = Sender::new(config(1), held, None);
    sender.poll(Duration::ZERO);
    sender.connected(Duration::ZERO);
    let (id, pages) = send(&mut sender, Duration::ZERO, 0);
    assert_eq!(pages, None);
    assert!(matches!(sender.poll(Duration::ZERO), Action::Wait { .. }));
    assert_eq!(
        sender.replied(Duration::ZERO, &reply(id, 0)).outcome,
        Outcome::LedgerFound { ledger: LEDGER }
    );
    assert!(matches!(sender.poll(Duration::ZERO), Action::Wait { .. }), "it is not on disk yet");
    sender.bind(LEDGER);
    assert_eq!(send(&mut sender, Duration::ZERO, 10).1, Some(1));
}

/// The board may be asked for once an hour; the first delivery must not wait for that when the first answer was lost.
#[test]
fn who_does_not_know_the_ledger_asks_again_soon() {
    let held = held(1, 0, 10);
    let mut sender = Sender::new(SenderConfig { ask_every: secs(3600), ..config(1) }, held, None);
    let mut now = Duration::ZERO;
    let mut asked = 0;
    while asked < 3 {
        match sender.poll(now) {
            Action::Connect { .. } => sender.connected(now),
            Action::Disconnect => {}
            Action::Send { id, ask, .. } => {
                asked += u32::from(ask);
                sender.sent(now, id, None);
            }
            Action::Wait { until } => now = until,
        }
    }
    assert!(now <= secs(10), "{now:?}");
}

#[test]
fn another_ledger_gets_nothing_and_the_next_address_is_tried() {
    let mut sender = connected(2, 10);
    let (id, _) = send(&mut sender, Duration::ZERO, 10);
    let found = LedgerId::from_bytes([8; 16]);
    let other = Reply { ledger: found, ..reply(id, 10) };
    assert_eq!(sender.replied(Duration::ZERO, &other).outcome, Outcome::OtherLedger { found });
    assert_eq!(sender.position().acknowledged, 0);
    let Action::Wait { until } = sender.poll(Duration::ZERO) else { panic!("not in a tight loop") };
    assert!(until > Duration::ZERO);
    assert_eq!(sender.poll(until), Action::Connect { server: 1 });
    sender.connected(until);
    // An operator says that the other one is right.
    sender.bind(found);
    assert_eq!(send(&mut sender, secs(1), 0).1, None, "a question: the events were sent a moment ago");
    let (id, from) = send(&mut sender, secs(2), 10);
    assert_eq!(from, Some(1));
    let replied = sender.replied(secs(2), &Reply { ledger: found, ..reply(id, 10) });
    assert_eq!(replied.outcome, Outcome::Acknowledged { through: 10 });
}

/// Each answer from a wrong address once counted as a refusal by our own server, so that the right one, when it was there
/// again, waited for up to a minute.
#[test]
fn a_wrong_address_in_the_list_does_not_hold_up_what_goes_to_the_right_one() {
    let mut sender = connected(2, 10);
    let other = |id| Reply { ledger: LedgerId::from_bytes([8; 16]), ..reply(id, 0) };
    let (mut now, mut wrong, mut sent_at) = (Duration::ZERO, 0, Duration::ZERO);
    loop {
        match sender.poll(now) {
            Action::Connect { server: 0 } => sender.connected(now),
            Action::Connect { .. } if wrong < 20 => sender.link_broke(now), // the right one does not run yet
            Action::Connect { .. } => break,
            Action::Send { id, pages_from, .. } => {
                sender.sent(now, id, pages_from.map(|from| from + 9));
                sent_at = if pages_from.is_some() { now } else { sent_at };
                sender.replied(now, &other(id));
                wrong += 1;
            }
            Action::Wait { until } => now = until,
            Action::Disconnect => panic!("it answers"),
        }
    }
    sender.connected(now);
    now = now.max(sent_at + RESEND_LEAST);
    assert_eq!(send(&mut sender, now, 10).1, Some(1));
}

#[test]
fn the_next_epoch_begins_afresh_and_replies_to_the_one_before_are_ignored() {
    let mut sender = opened(1, 30);
    let (id, _) = send(&mut sender, Duration::ZERO, 10);
    sender.begin_epoch(held(1, 0, 5));
    assert_eq!(sender.replied(Duration::ZERO, &reply(id, 13)), Outcome::Nothing.into());
    assert_eq!(
        send(&mut sender, secs(1), 0).1,
        None,
        "what was sent and not acknowledged may be in the new epoch"
    );
    let (id, from) = send(&mut sender, secs(2), 5);
    assert_eq!(from, Some(1));
    assert_eq!(sender.replied(secs(2), &reply(id, 5)).outcome, Outcome::Acknowledged { through: 5 });
}

#[test]
fn a_move_waits_for_the_new_epoch() {
    let mut sender = opened(1, 30);
    let (id, _) = send(&mut sender, Duration::ZERO, 10);
    let answer = Reply { verdict: Verdict::Move { from: 4 }, ..reply(id, 3) };
    assert_eq!(sender.replied(Duration::ZERO, &answer).outcome, Outcome::Move { from: 4 });
    assert!(matches!(
        sender.poll(Duration::ZERO),
        Action::Wait { .. } | Action::Send { pages_from: None, .. }
    ));
    sender.begin_epoch(held(1, 0, 27));
    assert_eq!(send(&mut sender, secs(1), 0).1, None, "they were sent a moment ago, under the epoch before");
    assert_eq!(send(&mut sender, secs(2), 27).1, Some(1));
}

/// What the receiver has of a request before the conflict in it was once moved too, and counted twice.
#[test]
fn what_comes_before_a_conflict_is_acknowledged_and_does_not_move() {
    let mut sender = opened(1, 30);
    let (id, from) = send(&mut sender, Duration::ZERO, 10);
    assert_eq!(from, Some(4));
    let conflict = Reply { verdict: Verdict::Conflict { first: 9 }, ..reply(id, 20) };
    let outcome = sender.replied(Duration::ZERO, &conflict).outcome;
    assert_eq!(outcome, Outcome::Conflict { first: 9, acknowledged: 8 });
    // An earlier request that is not answered yet keeps what comes after it from moving.
    let mut sender = opened(1, 30);
    send(&mut sender, Duration::ZERO, 10);
    let (second, from) = send(&mut sender, Duration::ZERO, 10);
    assert_eq!(from, Some(14));
    let answer = Reply { verdict: Verdict::Move { from: 14 }, ..reply(second, 20) };
    assert_eq!(sender.replied(Duration::ZERO, &answer).outcome, Outcome::Nothing);
    assert_eq!(sender.position().acknowledged, 3);
}

/// Another edge goes on from a copy of this directory, and its messages stand at the receiver where ours belong. A mark
/// alone once acknowledged what was never applied.
#[test]
fn a_mark_that_others_moved_acknowledges_nothing_of_ours() {
    let mut sender = Sender::new(config(1), held(51, 50, 60), Some(LEDGER));
    sender.poll(Duration::ZERO);
    sender.connected(Duration::ZERO);
    let (id, from) = send(&mut sender, Duration::ZERO, 1);
    assert_eq!(from, Some(51));
    let conflict = Reply { verdict: Verdict::Conflict { first: 51 }, ..reply(id, 55) };
    assert_eq!(sender.replied(secs(1), &conflict), Outcome::Conflict { first: 51, acknowledged: 50 }.into());
    let (id, pages) = send(&mut sender, secs(1), 0);
    assert_eq!(pages, None, "a question");
    assert_eq!(sender.replied(secs(1), &reply(id, 55)), Outcome::Nothing.into());
    assert_eq!(sender.position().acknowledged, 50);
    let (id, from) = send(&mut sender, secs(9), 1);
    assert_eq!(from, Some(51), "it asks again for the same place");
    let conflict = Reply { verdict: Verdict::Conflict { first: 51 }, ..reply(id, 56) };
    sender.replied(secs(9), &conflict);
    assert_eq!(sender.position().acknowledged, 50);
}

#[test]
fn the_resend_time_grows_while_a_conflict_lasts() {
    let mut sender = connected(1, 10);
    let mut now = Duration::ZERO;
    let mut sent_at = Vec::new();
    while sent_at.len() < 12 {
        match sender.poll(now) {
            Action::Send { id, pages_from, .. } => {
                sender.sent(now, id, pages_from.map(|_| 10));
                let verdict = match pages_from {
                    Some(_) => Verdict::Conflict { first: 1 },
                    None => Verdict::Accepted,
                };
                sent_at.extend(pages_from.map(|_| now));
                sender.replied(now, &Reply { verdict, ..reply(id, 0) });
            }
            Action::Wait { until } => now = until,
            other => panic!("{other:?}"),
        }
    }
    let waits: Vec<_> = sent_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| (RESEND_LEAST..=secs(61)).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > secs(16)), "{waits:?}");
}

#[test]
fn a_way_that_breaks_under_every_request_is_left_for_the_next_address() {
    let mut sender = connected(2, 10);
    send(&mut sender, Duration::ZERO, 10);
    sender.link_broke(Duration::from_millis(5));
    let Action::Wait { until } = sender.poll(Duration::from_millis(5)) else { panic!("not in a tight loop") };
    assert_eq!(sender.poll(until), Action::Connect { server: 1 });
}

#[test]
fn a_lost_answer_to_a_question_does_not_silence_the_next_one() {
    let mut sender = opened(1, 5);
    let (first, _) = send(&mut sender, secs(1), 1); // carries the question too
    let (second, pages) = send(&mut sender, secs(1), 1);
    assert_eq!(pages, Some(5));
    let _lost = first;
    sender.replied(secs(1), &reply(second, 5));
    assert!(matches!(sender.poll(secs(1)), Action::Wait { until } if until <= secs(4)));
}

#[test]
fn a_conflict_stops_the_queue_but_not_the_questions() {
    let mut sender = connected(1, 10);
    let (id, _) = send(&mut sender, Duration::ZERO, 10);
    let conflict = Reply { verdict: Verdict::Conflict { first: 1 }, ..reply(id, 0) };
    let outcome = sender.replied(secs(1), &conflict);
    assert_eq!(outcome, Outcome::Conflict { first: 1, acknowledged: 0 }.into());
    let (id, pages) = send(&mut sender, secs(2), 0);
    assert_eq!(pages, None, "a question goes out alone");
    sender.replied(secs(2), &reply(id, 0));
    assert_eq!(send(&mut sender, secs(3), 10).1, Some(1), "and it tries again");
}

#[test]
fn a_receiver_restored_from_a_copy_gets_what_is_still_here() {
    let mut sender = Sender::new(config(1), held(31, 40, 60), Some(LEDGER));
    sender.poll(Duration::ZERO);
    sender.connected(Duration::ZERO);
    let (id, from) = send(&mut sender, Duration::ZERO, 10);
    assert_eq!(from, Some(41));
    let outcome = sender.replied(secs(1), &reply(id, 10));
    let went_back = Outcome::ReceiverWentBack { mark: 10, acknowledged: 40 };
    assert_eq!(outcome, went_back.into());
    assert_eq!(send(&mut sender, secs(1), 0).1, None, "some of them were sent a moment ago");
    assert_eq!(send(&mut sender, secs(2), 10).1, Some(31));
}

/// A busy receiver is no silent one, and has refused nothing: what came before the request is still answered.
#[test]
fn a_busy_receiver_is_left_alone_for_as_long_as_it_asks_and_then_gets_the_same_again() {
    let mut sender = opened(2, 40);
    let millis = Duration::from_millis;
    let [first, second, third] = [0; 3].map(|_| send(&mut sender, Duration::ZERO, 10).0);
    assert_eq!(sender.replied(millis(100), &reply(second, 3).busy(5000)), Outcome::Nothing.into());
    assert_eq!(sender.replied(millis(200), &reply(first, 13)), Outcome::Acknowledged { through: 13 }.into());
    let gap = Reply { verdict: Verdict::Gap, ..reply(third, 13) };
    assert_eq!(sender.replied(millis(300), &gap), Outcome::Nothing.into(), "it is forgotten");
    let Action::Wait { until } = sender.poll(millis(400)) else { panic!("not even a question") };
    assert!((millis(5100)..=millis(10_100)).contains(&until), "{until:?}");
    assert!(sender.is_connected(until) && sender.paused_until() == until);
    assert_eq!(send(&mut sender, until, 10).1, Some(14));
    assert_eq!(sender.server(), 0);
    assert_eq!(send(&mut sender, until, 10).1, Some(24));
    let waits = matches!(sender.poll(until), Action::Wait { .. });
    assert!(waits, "the window began with one again, and one request was acknowledged since");
}

#[test]
fn a_busy_receiver_may_be_the_first_to_name_its_ledger() {
    let mut sender = Sender::new(config(1), held(1, 0, 10), None);
    sender.poll(Duration::ZERO);
    sender.connected(Duration::ZERO);
    let (id, _) = send(&mut sender, Duration::ZERO, 0);
    let found = sender.replied(Duration::ZERO, &reply(id, 0).busy(1)).outcome;
    assert_eq!(found, Outcome::LedgerFound { ledger: LEDGER });
    sender.bind(LEDGER);
    let Action::Wait { until } = sender.poll(Duration::ZERO) else { panic!("it was asked to wait") };
    assert!(until >= RESEND_LEAST);
    assert_eq!(send(&mut sender, until, 10).1, Some(1));
}

/// A herd that was sent away together came back together, 2 s later, and was sent away again.
#[test]
fn edges_that_were_sent_away_together_do_not_come_back_together() {
    let mut back: Vec<u128> = (0..1000)
        .map(|seed| {
            let mut sender = Sender::new(SenderConfig { seed, ..config(1) }, held(1, 0, 10), Some(LEDGER));
            sender.poll(Duration::ZERO);
            sender.connected(Duration::ZERO);
            let (id, _) = send(&mut sender, Duration::ZERO, 10);
            sender.replied(Duration::ZERO, &reply(id, 0).busy(300));
            let Action::Wait { until } = sender.poll(Duration::ZERO) else { panic!("it was asked to wait") };
            until.as_millis()
        })
        .collect();
    back.sort_unstable();
    assert!(back[0] >= 2000 && back[999] <= 4000, "{back:?}");
    assert!(back.windows(100).all(|hundred| hundred[99] - hundred[0] > 100), "{back:?}");
}
