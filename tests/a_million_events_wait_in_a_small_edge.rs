//! **Promise.** With a million events waiting and 100,000 idempotency keys remembered an edge stays below 64 MB: while they
//! are posted, when it is opened again after a kill, and until they are delivered and 100,000 keys of delivered events are kept.

use crate::common::daemon::optimised;
use crate::common::scale::by_scale;
use crate::common::{Edge, Server, crowd, requires, wait_until};
use std::path::Path;
use std::time::{Duration, Instant};

const EDGE_MEMORY_MAX_KB: u64 = 64 * 1024;
const DELIVERED_WITHIN: Duration = Duration::from_secs(300);

#[test]
fn a_million_events_and_100000_keys_take_less_than_64_mb_of_an_edge() {
    let events: u64 = by_scale(200_000, 1_000_000, 1_000_000);
    let keys: u64 = events / 10;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    server.kill();
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let posting = Instant::now();
    crowd::each(&edge, 0..keys, |http, number| {
        let answer = crowd::post_numbered(http, number);
        assert_eq!(answer.status, 201, "{answer:?}");
    });
    let keyed_in = posting.elapsed();
    crowd::post_batches(&edge, keys..events);
    let posted_in = posting.elapsed();
    let waiting = edge.http().get_json("/v1/outbox");
    assert_eq!((&waiting["depth"], &waiting["keys_remembered"]), (&events.into(), &keys.into()));
    println!(
        "posted {keys} under keys in {keyed_in:.1?}, all {events} in {posted_in:.1?}: {}",
        waiting["bytes"]
    );
    assert_is_small(&edge, "after posting");

    edge.kill();
    let opening = Instant::now();
    edge.restart();
    println!("opened with all of them waiting after a kill in {:.2?}", opening.elapsed());
    assert_is_small(&edge, "after opening");
    assert_eq!(edge.stop().0, Some(0));
    let opening = Instant::now();
    match requires::strace() {
        true => edge.restart_under(&slow_disk(edge.dir()).each_ref().map(String::as_str)),
        false => edge.restart(),
    }
    println!("opened with all of them waiting after a clean stop in {:.2?}", opening.elapsed());
    assert_is_small(&edge, "after opening again");
    // A long backlog is counted in the background; until that is done its sum is not known.
    wait_until("what waits is counted", DELIVERED_WITHIN, &[&edge], || {
        edge.http().get_json("/v1/board")["own"]["pending"] == events
    });
    assert_is_small(&edge, "after counting");
    let again = crowd::post_numbered(&edge.http(), keys / 2);
    assert_eq!(again.status, 201, "{again:?}");
    assert_eq!(edge.depth(), events, "a key that waits is known after opening");

    server.restart();
    let back = Instant::now();
    wait_until("the backlog is delivered", DELIVERED_WITHIN, &[&edge, &server], || edge.depth() == 0);
    println!("delivered in {:.1?}", back.elapsed());
    assert_eq!(edge.http().get_json("/v1/outbox")["keys_remembered"], keys);
    assert_eq!(server.applied_of("a"), events);
    assert_is_small(&edge, "after delivering");
    edge.kill();
    let opening = Instant::now();
    edge.restart();
    println!("opened with only keys in {:.2?}", opening.elapsed());
    assert_eq!(edge.http().get_json("/v1/outbox")["keys_remembered"], keys);
    assert_is_small(&edge, "after opening with only keys");
    edge.assert_sound();
    println!("the server took {:?}", server.memory());
}

/// A busy machine: each write of the store waits for a moment, so that acknowledgements come faster than they are worked off.
/// When they did, the edge once held the keys of the whole backlog at a time.
fn slow_disk(dir: &Path) -> [String; 12] {
    let file = dir.join("store").join("db");
    let words =
        ["strace", "-D", "-f", "-qq", "-e", "signal=none", "-o", "/dev/null", "-P"].map(str::to_owned);
    let [a, b, c, d, e, f, g, h, i] = words;
    let inject = "inject=pwrite64,write:delay_enter=200000".to_owned();
    [a, b, c, d, e, f, g, h, i, file.to_str().unwrap().to_owned(), "-e".to_owned(), inject]
}

fn assert_is_small(edge: &Edge, when: &str) {
    let memory = edge.memory();
    println!("{when} the edge has taken {memory:?}");
    // The promise is of the program that is installed, which takes 47 to 51 MB here, as one does that is optimised and checks its
    // assertions. One that was built without optimisation is so large that its own pages are not counted, and its stacks and
    // futures take more: 60 to 66 MB were seen.
    let more = if optimised() { 0 } else { memory.program_kb + 8 * 1024 };
    assert!(memory.most_kb < EDGE_MEMORY_MAX_KB + more, "{when} the edge took {memory:?}");
}
