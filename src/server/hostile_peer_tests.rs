//! Peers whose requests are well-formed but contain hostile numbers: whatever they send, the server answers, its books do not
//! change, and a rebuild of the views completes.
//!
//! Debug builds check every addition, so that a sum of a peer's numbers that could overflow fails here.

use super::ledger::Ledger;
use super::ledger::check::Meanwhile;
use super::view::tests::{apply_ledger, world};
use super::view::{View, list};
use crate::messaging::page::{IdempotencyKey, Message, RECORDS_MAX, SealedPage, VERSION};
use crate::messaging::wire::Request;
use crate::messaging::{ClockReading, Digest, Epoch, LedgerId, SiteName};
use crate::parking::Event;
use crate::store::Store;
use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;

/// A page as it stands on the wire, with numbers that [`crate::messaging::page::Page`] could not hold.
#[derive(Debug, Clone, Serialize)]
struct RawPage {
    epoch: [u8; 16],
    first: u64,
    previous: Option<[u8; 16]>,
    moved_from: Option<([u8; 16], u64)>,
    begun: ClockReading,
    content: RawContent,
}

#[derive(Debug, Clone, Serialize)]
enum RawContent {
    Records(Vec<Message>),
    Lost { last: u64, reason: String },
}

impl RawPage {
    fn seal(&self) -> SealedPage {
        let bytes = Bytes::from(postcard::to_extend(self, vec![VERSION]).unwrap());
        SealedPage { digest: Digest::of(&bytes), bytes }
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8u64, 2 => 0..200u64, 3 => u64::MAX - 70..=u64::MAX, 1 => any::<u64>()]
}

/// Few of them, so that pages meet.
fn sixteen() -> impl Strategy<Value = [u8; 16]> {
    (1..4u8).prop_map(|byte| [byte; 16])
}

/// What stands under a sequence. Pages with the same `variant` begin alike, as those of a copied directory do.
fn message(sequence: u64, variant: u8, of: u64) -> Message {
    let far = ["1000-01-02T00:00:00Z", "9000-12-30T23:59:59Z"][usize::from(variant % 2)];
    let json = match (sequence.wrapping_add(variant.into())) % 6 {
        0 => r#"{"kind":"entry","plate":"AA1"}"#.to_owned(),
        1 => r#"{"kind":"exit","plate":"AA1"}"#.to_owned(),
        2 => format!(r#"{{"kind":"exit","plate":"AA1","at":"{far}"}}"#),
        3 => {
            let epoch = Epoch::from_bytes([1; 16]);
            let of = of.max(1);
            format!(r#"{{"kind":"plate_correction","epoch":"{epoch}","sequence":{of},"plate":"BB2"}}"#)
        }
        4 => r#"{"kind":"count","occupied":4294967295,"reason":"r"}"#.to_owned(),
        _ => return Message::of(vec![9; 3]),
    };
    let event = Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH);
    let payload = event.map_or_else(|_| vec![1, 0, 0], |event| event.to_bytes());
    let key = sequence.is_multiple_of(5).then(|| IdempotencyKey {
        text: Bytes::from_static(b"k"),
        body: Digest::of(b"body"),
        count: u32::MAX,
    });
    Message { key, after_ms: u32::MAX, payload: payload.into() }
}

fn content(first: u64) -> impl Strategy<Value = RawContent> {
    let count = prop_oneof![8 => 1..6usize, 1 => Just(RECORDS_MAX), 1 => Just(0)];
    let records =
        (count, prop_oneof![6 => Just(0u8), 1 => 1..3u8], number()).prop_map(move |(count, variant, of)| {
            let sequences = (0..count as u64).map(|n| first.wrapping_add(n));
            RawContent::Records(sequences.map(|sequence| message(sequence, variant, of)).collect())
        });
    let lost = number().prop_map(|last| RawContent::Lost { last, reason: "r".repeat(1500) });
    prop_oneof![4 => records, 1 => lost]
}

fn page() -> impl Strategy<Value = RawPage> {
    let begun = prop_oneof![
        6 => Just(ClockReading::at_wall_ms(0)),
        1 => any::<(i64, u64, bool)>().prop_map(|(wall_ms, monotonic_ms, set)| ClockReading {
            wall_ms,
            monotonic_ms,
            boot: [1; 16],
            set
        }),
    ];
    let moved_from = prop::option::weighted(0.3, (sixteen(), number()));
    let previous = prop::option::weighted(0.1, sixteen());
    (sixteen(), number(), previous, moved_from, begun).prop_flat_map(
        |(epoch, first, previous, moved_from, begun)| {
            content(first).prop_map(move |content| RawPage {
                epoch,
                first,
                previous,
                moved_from,
                begun,
                content,
            })
        },
    )
}

#[derive(Debug, Clone)]
struct Said {
    garage: bool,
    /// The epoch of the request, where it is not that of its first page.
    epoch: Option<[u8; 16]>,
    oldest: u64,
    ledger: Option<bool>,
    numbers: (u64, u64, i64),
    pages: Vec<RawPage>,
}

fn said() -> impl Strategy<Value = Said> {
    let epoch = prop::option::weighted(0.1, sixteen());
    let ledger = prop::option::weighted(0.2, any::<bool>());
    let pages = prop::collection::vec(page(), 0..5);
    (any::<bool>(), epoch, number(), ledger, any::<(u64, u64, i64)>(), pages).prop_map(
        |(garage, epoch, oldest, ledger, numbers, pages)| Said {
            garage,
            epoch,
            oldest,
            ledger,
            numbers,
            pages,
        },
    )
}

impl Said {
    /// The request, as the server reads it from its bytes.
    fn request(&self, ledger: &Ledger) -> Request {
        let epoch = self.epoch.or(self.pages.first().map(|page| page.epoch)).unwrap_or([1; 16]);
        // The later pages of a request often are of its epoch.
        let pages = self.pages.iter().map(|page| RawPage { epoch, ..page.clone() }.seal()).collect();
        let (id, instance, clock_ms) = self.numbers;
        let request = Request {
            id,
            site: SiteName::new(if self.garage { "a" } else { "b" }).unwrap(),
            epoch: Epoch::from_bytes(epoch),
            oldest: self.oldest,
            ledger: self.ledger.map(|ours| if ours { ledger.id() } else { LedgerId::random() }),
            instance,
            clock_ms,
            pages,
            ask: None,
            observation: None,
        };
        Request::decode(&request.encode()).unwrap()
    }
}

fn no_faults(ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    ledger.check(Meanwhile::Unchanged, &mut |place, what| faults.push(format!("{place}: {what}"))).unwrap();
    faults
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_well_formed_request_ends_the_server_or_spoils_its_books(
        said in prop::collection::vec(prop::collection::vec(said(), 1..4), 1..8),
        adopted in prop::option::of(0..8usize),
    ) {
        let (disk, _, ledger) = world();
        for (round, together) in said.iter().enumerate() {
            if adopted == Some(round) {
                let garage = SiteName::new("a").unwrap();
                ledger.record_command("me", super::record::Command::Adopt { garage }, 5).unwrap();
            }
            let requests: Vec<_> = together.iter().map(|said| said.request(&ledger)).collect();
            let answers = ledger.commit(&requests, 5).unwrap();
            prop_assert_eq!(answers.len(), requests.len());
        }
        prop_assert_eq!(no_faults(&ledger), [] as [String; 0]);
        let streams = ledger.streams();
        disk.power_on(0);
        let store = Store::on(disk);
        let ledger = Ledger::open(store.clone()).unwrap();
        prop_assert_eq!(ledger.streams(), streams);
        let mut view = View::default();
        let mut changes = apply_ledger(&mut view, &ledger, &store);
        view.save(&mut changes).unwrap();
        prop_assert_eq!(view.position, ledger.position());
        prop_assert_eq!(&View::load(&store, &ledger).unwrap(), &view);
        let wanted = list::StayFilter { plate: None, garage: None, open: None, after: None, limit: 1000 };
        list::list(&store, None, &wanted).unwrap();
    }
}

/// The two requests that ended a server: a page whose messages had stood at the end of all numbers, and then a longer one
/// with the same beginning, of which only the rest is applied.
#[test]
fn a_page_that_grew_and_was_moved_from_the_end_of_all_numbers_is_refused() {
    use crate::messaging::wire::Verdict;
    let (_, _, ledger) = world();
    let page = |count: u64| RawPage {
        epoch: [1; 16],
        first: 1,
        previous: None,
        moved_from: Some(([2; 16], u64::MAX)),
        begun: ClockReading::at_wall_ms(0),
        content: RawContent::Records((1..=count).map(|sequence| message(sequence, 0, 1)).collect()),
    };
    for count in [1, 2] {
        let numbers = (1, 1, 0);
        let said =
            Said { garage: true, epoch: None, oldest: 1, ledger: None, numbers, pages: vec![page(count)] };
        let answer = ledger.commit(&[said.request(&ledger)], 5).unwrap().remove(0);
        let Verdict::Refused { reason } = answer.verdict else { panic!("{answer:?}") };
        assert!(reason.contains("out of range"), "{reason}");
    }
    assert_eq!(ledger.position(), 0);
}
