use super::*;
use crate::messaging::Sequence;
use crate::messaging::page::Content;
use crate::messaging::page::{Page, Record as Message, SealedPage};
use crate::messaging::wire::Request;
use crate::store::Store;
use crate::store::simulated::Disk;

pub const EPOCH: Epoch = Epoch::from_bytes([3; 16]);

pub fn page_after(first: u64, events: &[Vec<u8>]) -> SealedPage {
    let message = |payload: &Vec<u8>| Message::of(payload.clone());
    SealedPage::seal(&Page {
        epoch: EPOCH,
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
    let request = Request {
        id: 1,
        site: SiteName::new(garage).unwrap(),
        epoch: EPOCH,
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages,
        ask: None,
        observation: None,
    };
    ledger.commit(&[request], 77).unwrap();
}

pub fn fold(view: &mut View, ledger: &Ledger, store: &Store) -> Changes {
    let mut changes = Changes::on(store);
    for record in ledger.records(view.position + 1) {
        let (position, record) = record.unwrap();
        let step = Step::read(ledger, position, record).unwrap();
        view.apply(ledger, step, &mut changes).unwrap();
    }
    changes
}

pub fn world() -> (Disk, Store, Ledger) {
    let disk = Disk::default();
    let store = Store::on(disk.clone());
    let ledger = Ledger::open(store.clone()).unwrap();
    (disk, store, ledger)
}

#[test]
fn after_a_crash_the_view_catches_up_to_what_a_fold_from_the_beginning_gives() {
    let entry = event(r#"{"kind":"entry","plate":"AB1"}"#);
    for flushed in [false, true] {
        let (disk, store, ledger) = world();
        let mut view = View::load(&store, &ledger).unwrap();
        apply(&ledger, "a", vec![page_after(1, &[entry.clone(), entry.clone()])]);
        ledger.record_capacity(&SiteName::new("a").unwrap(), 9, 5).unwrap();
        let mut changes = fold(&mut view, &ledger, &store);
        view.save(&mut changes).unwrap();
        if flushed {
            store.flush().unwrap();
        }
        apply(&ledger, "b", vec![page_after(1, std::slice::from_ref(&entry))]);
        disk.power_on(0);
        let store = Store::on(disk);
        let ledger = Ledger::open(store.clone()).unwrap();
        let mut caught_up = View::load(&store, &ledger).unwrap();
        fold(&mut caught_up, &ledger, &store);
        let mut anew = View::default();
        fold(&mut anew, &ledger, &store);
        assert_eq!(caught_up, anew);
        assert_eq!(anew.position, 3);
        let a = &anew.garages[&SiteName::new("a").unwrap()];
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
    let mut changes = fold(&mut view, &ledger, &store);
    view.save(&mut changes).unwrap();
    assert_eq!(view.garages[&SiteName::new("a").unwrap()].occupancy.occupied, 2);
    let set_aside = &view.quarantine[&1];
    assert_eq!((set_aside.first, set_aside.places().collect::<Vec<_>>()), (1, vec![1]));
    assert_eq!(View::load(&store, &ledger).unwrap(), view);
}

#[test]
fn the_board_carries_what_changed_since_the_version_that_an_edge_has() {
    let (_, store, ledger) = world();
    let entry = event(r#"{"kind":"entry","plate":"AB1"}"#);
    let mut view = View::default();
    apply(&ledger, "a", vec![page_after(1, std::slice::from_ref(&entry))]);
    fold(&mut view, &ledger, &store);
    let asker = SiteName::new("c").unwrap();
    let run = (ledger.id(), 1);
    let whole = view.answer(run, &asker, &BoardQuestion { have: None });
    let board = Board::after(None, whole).unwrap();
    apply(&ledger, "b", vec![page_after(1, &[entry])]);
    fold(&mut view, &ledger, &store);
    let question = BoardQuestion { have: Some(board.version) };
    let BoardAnswer::Changed { from, now } = view.answer(run, &asker, &question) else {
        panic!("the version is known")
    };
    assert_eq!(now.garages.keys().collect::<Vec<_>>(), ["b"]);
    let after = Board::after(Some(board), BoardAnswer::Changed { from, now }).unwrap();
    assert_eq!(after.garages.len(), 2);
    // Another ledger; and this one after another start: it may be restored, and have come to the position by another way.
    for other in [(LedgerId::random(), 1), (ledger.id(), 2)] {
        assert!(matches!(view.answer(other, &asker, &question), BoardAnswer::Whole(_)), "{other:?}");
    }
}
