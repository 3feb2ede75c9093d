use super::*;
use crate::messaging::Sequence;
use crate::messaging::page::Content;
use crate::messaging::page::{Message, Page, SealedPage};
use crate::messaging::wire::Request;
use crate::messaging::{Epoch, SiteName};
use crate::parking::Event;
use crate::parking::receivables::{Corrections, DocumentSummary};
use crate::server::ledger::Ledger;
use crate::store::Store;
use crate::store::simulated::Disk;

pub const EPOCH: Epoch = Epoch::from_bytes([3; 16]);

pub fn page_after(first: u64, events: &[Vec<u8>]) -> SealedPage {
    page_of(EPOCH, first, events)
}

pub fn page_of(epoch: Epoch, first: u64, events: &[Vec<u8>]) -> SealedPage {
    let message = |payload: &Vec<u8>| Message::of(payload.clone());
    SealedPage::seal(&Page {
        epoch,
        first: Sequence::new(first).unwrap(),
        previous: None,
        moved_from: None,
        begun: crate::messaging::ClockReading::at_wall_ms(0),
        content: Content::Records(events.iter().map(message).collect()),
    })
}

pub fn event(json: &str) -> Vec<u8> {
    Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap().to_bytes()
}

pub fn apply(ledger: &Ledger, garage: &str, pages: Vec<SealedPage>) {
    apply_at(ledger, garage, pages, 77);
}

/// The same, received at this time.
pub fn apply_at(ledger: &Ledger, garage: &str, pages: Vec<SealedPage>, now_ms: i64) {
    ledger.commit(&[request(garage, EPOCH, pages)], now_ms).unwrap();
}

pub fn request(garage: &str, epoch: Epoch, pages: Vec<SealedPage>) -> Request {
    Request {
        id: 1,
        site: SiteName::new(garage).unwrap(),
        epoch,
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages,
        ask: None,
        observation: None,
    }
}

/// Each garage delivers one page of an epoch of its own; all are committed together.
pub fn apply_to_each<'a>(ledger: &Ledger, garages: impl Iterator<Item = &'a str>, events: &[Vec<u8>]) {
    let requests: Vec<Request> = garages
        .map(|garage| {
            let epoch = Epoch::random();
            request(garage, epoch, vec![page_of(epoch, 1, events)])
        })
        .collect();
    ledger.commit(&requests, 77).unwrap();
}

pub fn apply_ledger(view: &mut View, ledger: &Ledger, store: &Store) -> ViewChanges {
    let mut changes = ViewChanges::on(store);
    catch_up(view, ledger, u64::MAX, &mut changes, |_| {}).unwrap();
    changes
}

pub fn world() -> (Disk, Store, Ledger) {
    let disk = Disk::default();
    let store = Store::on(disk.clone());
    let ledger = Ledger::open(store.clone()).unwrap();
    (disk, store, ledger)
}

/// Issues a document to the views alone, and writes them.
pub fn issue_to_views(view: &View, changes: &mut ViewChanges, document: &DocumentSummary) {
    changes.billing.receivables().apply_document(document, &Corrections::new()).unwrap();
    view.save(changes).unwrap();
}

#[test]
fn after_a_crash_the_view_catches_up_to_what_a_rebuild_gives() {
    let entry = event(r#"{"kind":"entry","plate":"AB1"}"#);
    for flushed in [false, true] {
        let (disk, store, ledger) = world();
        let mut view = View::load(&store, &ledger).unwrap();
        apply(&ledger, "a", vec![page_after(1, &[entry.clone(), entry.clone()])]);
        ledger.record_capacity(&SiteName::new("a").unwrap(), 9, 5).unwrap();
        let mut changes = apply_ledger(&mut view, &ledger, &store);
        view.save(&mut changes).unwrap();
        if flushed {
            store.flush().unwrap();
        }
        apply(&ledger, "b", vec![page_after(1, std::slice::from_ref(&entry))]);
        disk.power_on(0);
        let store = Store::on(disk);
        let ledger = Ledger::open(store.clone()).unwrap();
        let mut caught_up = View::load(&store, &ledger).unwrap();
        apply_ledger(&mut caught_up, &ledger, &store);
        let mut rebuilt = View::default();
        apply_ledger(&mut rebuilt, &ledger, &store);
        assert_eq!(caught_up, rebuilt);
        assert_eq!(rebuilt.position, 3);
        let a = &rebuilt.garages[&SiteName::new("a").unwrap()];
        assert_eq!((a.occupancy.occupied, a.capacity, a.events), (2, 9, 2));
    }
}

#[test]
fn an_unknown_kind_of_event_is_set_aside_and_the_rest_counts() {
    let (_, store, ledger) = world();
    let entry = event(r#"{"kind":"entry","plate":"AB1"}"#);
    let of_a_newer_version = vec![9, 1, 2, 3];
    apply(&ledger, "a", vec![page_after(1, &[entry.clone(), of_a_newer_version, entry])]);
    let mut view = View::default();
    let mut changes = apply_ledger(&mut view, &ledger, &store);
    view.save(&mut changes).unwrap();
    assert_eq!(view.garages[&SiteName::new("a").unwrap()].occupancy.occupied, 2);
    let set_aside = &view.quarantine[&1];
    assert_eq!((set_aside.first, set_aside.places().collect::<Vec<_>>()), (1, vec![1]));
    assert_eq!(View::load(&store, &ledger).unwrap(), view);
}
