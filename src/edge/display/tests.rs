use super::*;
use crate::messaging::page::{Content, Message, Page};
use crate::messaging::{ClockReading, Sequence};
use crate::parking::board::{BoardVersion, PartLine};
use crate::parking::event::Sighting;
use crate::parking::garage::Opening;
use crate::parking::{EventKind, Moment};

const EPOCH: Epoch = Epoch::from_bytes([5; 16]);

fn entries(n: u64) -> CountEffect {
    let entry = CountEffect::on_count(&EventKind::Entry { plate: None });
    (0..n).fold(CountEffect::default(), |effect, _| effect.then(entry))
}

/// What the server says of the one garage that there is.
fn board_saying(occupied: i64, through: u64) -> (BoardPart, OwnLine) {
    let (through_event, facts) = (Some((EPOCH.to_bytes(), through)), GarageFacts::default());
    let line =
        BoardLine { capacity: 100, occupied, as_of_ms: None, through: through_event, facts: facts.clone() };
    let upto = BoardVersion { ledger: [1; 16], position: through, run: 1 };
    let name = "a".to_owned();
    let its = Extensible(PartLine { name: name.clone(), capacity: 100, occupied, as_of_ms: None, facts });
    let part = BoardPart { since: None, upto, board_at: through, is_last: true, garages: vec![its] };
    (part, OwnLine { called: name, line: Extensible(line) })
}

/// One that the server has answered before, where the outbox has all its events.
fn display(oldest: u64) -> Display {
    let mut display = unanswered(oldest);
    display.base.0 = (oldest == 1).then_some(0);
    display
}

fn unanswered(oldest: u64) -> Display {
    Display::new(&SiteName::new("a").unwrap(), &[(EPOCH, oldest)])
}

fn answered(display: &mut Display, (part, own): (BoardPart, OwnLine)) {
    display.answered(part, Some(&own), Instant::now(), 0);
}

/// In a large city the board comes in parts, one with each question. The own count does not wait for the last of them.
#[test]
fn the_own_line_counts_before_the_board_is_whole() {
    let mut display = display(100);
    let (mut part, own) = board_saying(40, 99);
    part.is_last = false;
    answered(&mut display, (part, own));
    assert_eq!(display.own_occupied(), Some(40));
    assert!(display.board().is_none() && display.age(Instant::now()).is_none());
}

/// A board line may hold any numbers: a server that is damaged, or none of ours, must not end an edge.
#[test]
fn a_board_of_extreme_numbers_does_no_harm() {
    for occupied in [i64::MIN, -1, i64::MAX] {
        for through in [0, 1, 3, u64::MAX - 1, u64::MAX] {
            let mut display = display(1);
            display.appended(EPOCH, 3, 3, entries(3));
            answered(&mut display, board_saying(occupied, through));
            display.appended(EPOCH, 5, 2, entries(2));
            assert!(display.own_occupied().is_some());
            let mut next = self::display(1);
            next.restore(&display.save(), Instant::now(), i64::MAX);
            next.restore(&display.save(), Instant::now(), i64::MIN);
        }
    }
}

/// An edge whose directory was replaced once showed 500 free spaces of a garage that was full.
#[test]
fn a_count_is_unknown_until_somebody_tells_it() {
    let (mut replaced, mut new, mut counted) = (unanswered(1), unanswered(1), unanswered(1));
    for display in [&mut replaced, &mut new, &mut counted] {
        display.appended(EPOCH, 3, 3, entries(3));
        assert_eq!(display.own_occupied(), None);
    }
    let (part, mut own) = board_saying(480, 7);
    own.line.0.through = Some(([9; 16], 7));
    answered(&mut replaced, (part, own));
    assert_eq!(replaced.own_occupied(), Some(483), "the server knows the garage by its earlier epoch");
    let (mut part, _) = board_saying(0, 0);
    part.garages.clear();
    new.answered(part, None, Instant::now(), 0);
    assert_eq!(new.own_occupied(), Some(3), "the server has never heard of the garage");
    let count = CountEffect::on_count(&EventKind::Count { occupied: 50, reason: "rounds".into() });
    counted.appended(EPOCH, 4, 1, count);
    assert_eq!(counted.own_occupied(), Some(50));
}

#[test]
fn the_own_count_includes_what_is_not_delivered() {
    let mut display = display(1);
    display.appended(EPOCH, 3, 3, entries(3));
    assert_eq!(display.own_occupied(), Some(3));
    answered(&mut display, board_saying(3, 3));
    display.appended(EPOCH, 5, 2, entries(2));
    assert_eq!(display.own_occupied(), Some(5));
    answered(&mut display, board_saying(5, 5));
    assert_eq!(display.own_occupied(), Some(5), "delivered events count once");
}

#[test]
fn an_edge_that_does_not_have_its_past_waits_for_the_server() {
    let mut display = display(100);
    display.appended(EPOCH, 101, 1, entries(1));
    assert_eq!(display.own_occupied(), None);
    answered(&mut display, board_saying(40, 99));
    assert_eq!(display.own_occupied(), Some(41));
}

#[test]
fn a_server_in_the_middle_of_a_run_changes_nothing_until_its_end() {
    let mut display = display(1);
    display.appended(EPOCH, 10, 10, entries(10));
    answered(&mut display, board_saying(4, 4));
    assert_eq!(display.own_occupied(), Some(10));
    answered(&mut display, board_saying(10, 10));
    assert_eq!(display.own_occupied(), Some(10));
}

#[test]
fn a_board_of_an_earlier_process_is_shown_with_its_age() {
    let mut earlier = display(1);
    earlier.appended(EPOCH, 3, 3, entries(3));
    answered(&mut earlier, board_saying(3, 3));
    let bytes = earlier.save();
    let mut display = display(2);
    display.restore(&bytes, Instant::now(), 60_000);
    let (_, at_ms) = display.age(Instant::now()).unwrap();
    assert_eq!(at_ms, 0);
    assert_eq!(display.own_occupied(), Some(3));
    display.restore(b"nonsense", Instant::now(), 0);
    assert!(display.board().is_some());
}

/// A flipped bit in the file of the board was once shown as a number of free spaces.
#[test]
fn a_saved_board_with_a_flipped_bit_is_not_shown() {
    let mut earlier = display(1);
    earlier.appended(EPOCH, 3, 3, entries(3));
    answered(&mut earlier, board_saying(3, 3));
    let bytes = earlier.save();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut display = display(4);
        display.restore(&damaged, Instant::now(), 0);
        assert!(display.board().is_none() && display.own_occupied().is_none(), "bit {bit}");
    }
}

#[test]
fn the_count_of_an_earlier_process_goes_on_with_what_was_appended_since() {
    let mut earlier = display(1);
    earlier.appended(EPOCH, 3, 3, entries(3));
    earlier.appended(EPOCH, 5, 1, entries(1));
    assert_eq!(Saved { board: None, own: None, says: None }, decode(&earlier.save()).unwrap());
    earlier.appended(EPOCH, 4, 1, entries(1));
    let mut later = display(4);
    later.restore(&earlier.save(), Instant::now(), 0);
    later.appended(EPOCH, 5, 2, entries(2)); // known
    later.appended(EPOCH, 6, 1, entries(1));
    assert_eq!(later.own_occupied(), Some(6));
    let mut of_a_crash = display(10); // events were delivered and deleted after the last save
    of_a_crash.restore(&earlier.save(), Instant::now(), 0);
    assert_eq!(of_a_crash.own_occupied(), None);
}

#[test]
fn appends_that_are_told_in_the_wrong_order_count_in_the_right_one() {
    let count = CountEffect::on_count(&EventKind::Count { occupied: 50, reason: "rounds".into() });
    let mut display = display(1);
    display.appended(EPOCH, 3, 1, entries(1));
    display.appended(EPOCH, 2, 1, count);
    display.appended(EPOCH, 1, 1, entries(1));
    assert_eq!(display.own_occupied(), Some(51));
}

fn page(epoch: Epoch, first: u64, entries: u64) -> SealedPage {
    let event = Event::from_json(br#"{"kind":"entry","plate":null}"#, jiff::Timestamp::UNIX_EPOCH).unwrap();
    SealedPage::seal(&Page {
        epoch,
        first: Sequence::new(first).unwrap(),
        previous: None,
        moved_from: None,
        begun: ClockReading::at_wall_ms(0),
        content: Content::Records(vec![Message::of(event.to_bytes()); entries as usize]),
    })
}

/// After a move the count is made from the disk again. Events that came meanwhile once were missing in it, or counted twice,
/// until they were delivered.
#[test]
fn a_display_that_takes_the_place_of_another_counts_what_came_meanwhile_once() {
    let (moved, new) = (Epoch::from_bytes([6; 16]), Epoch::from_bytes([7; 16]));
    let mut earlier = display(1);
    earlier.appended(EPOCH, 10, 10, entries(10)); // moved to an epoch of its own afterwards
    earlier.will_be_replaced();
    earlier.appended(EPOCH, 11, 1, entries(1)); // so was this one, whose producer is answered late
    let mut display = Display::new(&SiteName::new("a").unwrap(), &[(moved, 1), (new, 1)]);
    display.restore(&earlier.save(), Instant::now(), 0);
    // The base comes with the first answer; here everything is there from the beginning.
    display.base.0 = Some(0);
    display.found(&page(moved, 1, 12), 12);
    earlier.appended(new, 2, 2, entries(2)); // on disk before it was read
    earlier.appended(new, 5, 2, entries(2)); // after it; the page was read all the same
    display.found(&page(new, 1, 5), 3);
    display.take_over(&earlier, Some(EPOCH));
    assert_eq!(display.own_occupied(), Some(12 + 5));
    // Answered after the change of displays.
    display.appended(EPOCH, 12, 1, entries(1));
    display.appended(new, 3, 1, entries(1));
    assert_eq!(display.own_occupied(), Some(12 + 5));
    display.appended(new, 6, 1, entries(1));
    assert_eq!(display.own_occupied(), Some(12 + 6));
}

/// A start on a backlog of millions counts it in the background. The server's count alone, without what waits here, was once
/// shown as the garage's own.
#[test]
fn a_count_that_lacks_what_waits_is_not_shown() {
    let mut earlier = display(1);
    earlier.will_be_counted(EPOCH, 12);
    assert_eq!(earlier.own_occupied(), None);
    earlier.appended(EPOCH, 13, 1, entries(1));
    answered(&mut earlier, board_saying(5, 5));
    assert_eq!(earlier.own_occupied(), None);
    let mut counted = display(1);
    counted.found(&page(EPOCH, 1, 12), 12);
    counted.take_over(&earlier, None);
    assert_eq!(counted.own_occupied(), Some(13));
    // Or the server has counted it all before that.
    answered(&mut earlier, board_saying(12, 12));
    assert_eq!(earlier.own_occupied(), Some(13));
}

#[test]
fn what_was_delivered_before_it_was_counted_is_known_by_the_next_answer() {
    let mut earlier = display(1);
    earlier.will_be_counted(EPOCH, 30);
    let mut counted = display(1);
    counted.found(&page(EPOCH, 1, 10), 30);
    counted.passed_over(EPOCH, 20);
    counted.found(&page(EPOCH, 21, 10), 30);
    assert_eq!(counted.own_occupied(), None);
    answered(&mut earlier, board_saying(19, 20));
    counted.take_over(&earlier, None);
    assert_eq!(counted.own_occupied(), Some(29));
}

#[test]
fn events_of_a_new_epoch_count_after_those_of_the_old_one() {
    let new = Epoch::from_bytes([6; 16]);
    let mut display = display(1);
    display.appended(EPOCH, 3, 3, entries(3));
    display.appended(new, 2, 2, entries(2));
    assert_eq!(display.own_occupied(), Some(5));
    answered(&mut display, board_saying(3, 3));
    assert_eq!(display.own_occupied(), Some(5));
    // Somebody else has sent more under the old epoch.
    answered(&mut display, board_saying(9, 9));
    assert_eq!(display.own_occupied(), Some(11));
    let mut later = Display::new(&SiteName::new("a").unwrap(), &[(EPOCH, 10), (new, 1)]);
    later.restore(&display.save(), Instant::now(), 0);
    later.appended(new, 3, 1, entries(1));
    assert_eq!(later.own_occupied(), Some(12));
}

#[test]
fn a_long_backlog_stays_small() {
    let mut display = display(1);
    for n in 1..=100_000 {
        display.appended(EPOCH, n, 1, entries(1));
    }
    assert!(display.runs.len() <= RUNS_MAX);
    assert_eq!(display.own_occupied(), Some(100_000));
}

fn says(opening: Opening, at_ms: i64) -> CountEffect {
    let kind = match opening {
        Opening::Open => EventKind::Opened,
        Opening::Closed => EventKind::Closed { reason: None },
    };
    let at = Timestamp::from_millisecond(at_ms).unwrap();
    CountEffect::of(&Event { kind, at: Moment::utc(at), seen: Sighting::default() })
}

#[test]
fn what_the_garage_says_of_itself_is_shown_before_it_is_delivered_and_after_a_restart() {
    let now = Timestamp::from_second(100).unwrap();
    let mut display = display(1).with_capacity(100);
    display.appended(EPOCH, 3, 3, entries(3));
    assert_eq!(display.own_state(now), None, "no server has answered: it may be closed there");
    answered(&mut display, board_saying(3, 3));
    assert_eq!(display.own_state(now), Some(ShownState::Open));
    display.appended(EPOCH, 4, 1, says(Opening::Closed, 99_000));
    assert_eq!(display.own_state(now), Some(ShownState::Closed));
    answered(&mut display, board_saying(3, 3));
    assert_eq!(display.own_state(now), Some(ShownState::Closed), "the server has not heard of it yet");

    let mut next = unanswered(1).with_capacity(100);
    next.restore(&display.save(), Instant::now(), 0);
    assert_eq!(next.own_state(now), Some(ShownState::Closed));
    let (part, mut own) = board_saying(3, 4);
    own.line.0.facts.garage = Some(GarageSays { opening: Opening::Closed, at_ms: 99_000 });
    answered(&mut next, (part, own));
    assert_eq!(next.own_state(now), Some(ShownState::Closed));
    next.appended(EPOCH, 5, 1, says(Opening::Open, 99_500));
    assert_eq!(next.own_state(now), Some(ShownState::Open));
}

/// With each car that left and the next that entered, the sign went from "full" to "free" and back.
#[test]
fn a_full_garage_is_full_until_enough_spaces_are_free() {
    let now = Timestamp::UNIX_EPOCH;
    let exits = |n: u64| {
        let exit = CountEffect::on_count(&EventKind::Exit { plate: None });
        (0..n).fold(CountEffect::default(), |effect, _| effect.then(exit))
    };
    let mut display = display(1).with_capacity(100);
    answered(&mut display, board_saying(0, 0));
    display.appended(EPOCH, 99, 99, entries(99));
    assert_eq!(display.own_state(now), Some(ShownState::Open));
    display.appended(EPOCH, 100, 1, entries(1));
    assert_eq!(display.own_state(now), Some(ShownState::Full));
    display.appended(EPOCH, 101, 1, exits(1));
    assert_eq!(display.own_state(now), Some(ShownState::Full), "one space is soon gone");
    display.appended(EPOCH, 102, 1, exits(1));
    assert_eq!(display.own_state(now), Some(ShownState::Open));
}

#[test]
fn what_the_version_before_saved_is_shown_and_its_states_are_not_known() {
    let mut before = display(1);
    before.appended(EPOCH, 3, 3, entries(3));
    answered(&mut before, board_saying(3, 3));
    let saved = decode(&before.save()).unwrap();
    let (board, at_ms) = saved.board.unwrap();
    let lines = board.garages.into_iter().map(|(name, line)| (name, line.into())).collect();
    let earlier = EarlierBoard { version: board.version, garages: lines };
    let body = postcard::to_stdvec(&(Some((earlier, at_ms)), saved.own)).unwrap();
    let bytes = [&[2], &Digest::of(&body).as_bytes()[..], &body].concat();
    let mut next = unanswered(1).with_capacity(100);
    next.restore(&bytes, Instant::now(), 0);
    assert_eq!(next.own_occupied(), Some(3));
    let line = &next.board().unwrap().garages["a"];
    assert_eq!((line.occupied, line.state(Timestamp::UNIX_EPOCH)), (3, None));
    assert_eq!(next.own_state(Timestamp::UNIX_EPOCH), None);
}
