use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn garage(n: usize) -> SiteName {
    SiteName::new(&format!("g{n}")).unwrap()
}

fn served_in_order(turns: &mut Turns<(usize, usize)>) -> Vec<(usize, usize)> {
    std::iter::from_fn(|| turns.next()).collect()
}

#[test]
fn garages_take_turns_and_each_is_served_in_its_order() {
    let mut turns = Turns::default();
    let came = [(0, 0), (0, 1), (0, 2), (1, 0), (0, 3), (2, 0), (2, 1)];
    came.iter().for_each(|came| assert_eq!(turns.add(&garage(came.0), *came, 10), []));
    assert_eq!(turns.next(), Some((0, 0)));
    // One that comes meanwhile waits for those that wait, once.
    assert_eq!(turns.add(&garage(3), (3, 0), 10), []);
    let order = served_in_order(&mut turns);
    assert_eq!(order, [(1, 0), (2, 0), (0, 1), (3, 0), (2, 1), (0, 2), (0, 3)]);
    assert_eq!((turns.count(), turns.bytes()), (0, 0));
}

#[test]
fn a_herd_is_served_in_the_order_in_which_it_came() {
    let mut turns = Turns::default();
    (0..1000).for_each(|n| assert_eq!(turns.add(&garage(n), (n, 0), 300), []));
    assert_eq!(served_in_order(&mut turns), (0..1000).map(|n| (n, 0)).collect::<Vec<_>>());
}

/// A garage with a million events waiting sends as fast as it can.
#[test]
fn a_flood_of_one_garage_is_sent_away_and_a_fresh_one_is_served_next_but_one() {
    const LENGTH: usize = 32 * 1024;
    let mut turns = Turns::default();
    let mut sent_away = Vec::new();
    (0..1000).for_each(|n| sent_away.extend(turns.add(&garage(0), (0, n), LENGTH)));
    assert_eq!(turns.count(), BYTES_MAX / LENGTH);
    assert_eq!(sent_away[..], (turns.count()..1000).map(|n| (0, n)).collect::<Vec<_>>()[..], "the newest");
    // All is full, and yet it gets in.
    let last = turns.count() - 1;
    assert_eq!(turns.add(&garage(1), (1, 0), LENGTH), [(0, last)]);
    assert_eq!([turns.next(), turns.next()], [Some((0, 0)), Some((1, 0))]);
}

#[test]
fn one_that_was_sent_away_comes_before_those_that_were_not() {
    let mut turns = Turns::default();
    (0..COUNT_MAX).for_each(|n| assert_eq!(turns.add(&garage(n), (n, 0), 1), []));
    assert_eq!(turns.add(&garage(9999), (9999, 0), 1), [(9999, 0)], "the others came first");
    assert_eq!(turns.add(&garage(9999), (9999, 1), 1), [(COUNT_MAX - 1, 0)], "now it was sent away once");
    assert_eq!(turns.add(&garage(9998), (9998, 0), 1), [(9998, 0)]);
    let order = served_in_order(&mut turns);
    assert_eq!(order[..2], [(0, 0), (1, 0)]);
    assert_eq!(order.last(), Some(&(9999, 1)));
    // Once it is served, that is forgotten.
    (0..COUNT_MAX).for_each(|n| assert_eq!(turns.add(&garage(n), (n, 0), 1), []));
    assert_eq!(turns.add(&garage(9999), (9999, 2), 1), [(9999, 2)]);
}

#[test]
fn the_pause_grows_with_what_waits_and_stays_within_its_limits() {
    let mut turns = Turns::default();
    assert_eq!(turns.pause_ms(), 100, "nothing is known yet");
    // 1 MB per second.
    turns.served(0, 1 << 20, Duration::from_secs(1));
    let pauses: Vec<u32> = (0..8)
        .map(|n| {
            turns.add(&garage(n), (n, 0), 256 * 1024);
            turns.pause_ms()
        })
        .collect();
    assert_eq!(pauses[..3], [251, 502, 753]);
    assert!(pauses.is_sorted_by(|a, b| a < b), "{pauses:?}");
    (0..20).for_each(|_| turns.served(1, 1024, Duration::from_secs(10)));
    assert_eq!(turns.pause_ms(), 10_000);
    served_in_order(&mut turns);
    assert_eq!(turns.pause_ms(), 100);
}

#[derive(Debug, Clone)]
enum Step {
    Comes { garage: usize, length: usize },
    Serve,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![3 => 0..1000usize, 2 => 30_000..40_000usize, 1 => 1..=256 * 1024usize];
    let garage = prop_oneof![3 => Just(0usize), 2 => 0..5usize, 3 => 0..400usize];
    prop_oneof![
        5 => (garage, length).prop_map(|(garage, length)| Step::Comes { garage, length }),
        1 => Just(Step::Serve),
    ]
}

proptest! {
    /// However much comes, what waits is bounded, each request is served or sent away once, and each garage in its order.
    #[test]
    fn everything_is_bounded_and_answered_once(steps in proptest::collection::vec(step(), 1..600)) {
        let mut turns = Turns::default();
        let (mut answered, mut came) = (Vec::new(), 0);
        let mut served: BTreeMap<usize, usize> = BTreeMap::new();
        let mut serve = |request: (usize, usize), answered: &mut Vec<usize>| {
            let before = served.insert(request.0, request.1);
            assert!(before < Some(request.1), "in order");
            answered.push(request.1);
        };
        for step in steps {
            match step {
                Step::Comes { garage: n, length } => {
                    let leaving = turns.add(&garage(n), (n, came), length);
                    came += 1;
                    answered.extend(leaving.into_iter().map(|(_, n)| n));
                }
                Step::Serve => {
                    if let Some(request) = turns.next() {
                        serve(request, &mut answered);
                    }
                }
            }
            prop_assert!(turns.count() <= COUNT_MAX && turns.bytes() <= BYTES_MAX);
        }
        served_in_order(&mut turns).into_iter().for_each(|request| serve(request, &mut answered));
        prop_assert_eq!((turns.count(), turns.bytes()), (0, 0));
        answered.sort_unstable();
        prop_assert_eq!(answered, (0..came).collect::<Vec<_>>());
    }

    /// More garages than there is room for, each with a backlog and a window, and each one coming back in its own time.
    #[test]
    fn no_garage_starves_however_many_there_are(
        garages in 130..300usize,
        window in 1..4usize,
        picks: Vec<u8>,
    ) {
        let mut turns = Turns::default();
        let mut served = vec![0u32; garages];
        for round in 0..12 {
            for n in 0..garages {
                // A few of them always come first.
                let n = (n + usize::from(picks.get(round).copied().unwrap_or_default() % 4)) % garages;
                (0..window).for_each(|_| drop(turns.add(&garage(n), (n, 0), 32 * 1024)));
            }
            (0..64).filter_map(|_| turns.next()).for_each(|(n, _)| served[n] += 1);
        }
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        prop_assert!(*least > 0, "{:?}", served);
        prop_assert!(*most <= 12, "{:?}", served);
    }
}
