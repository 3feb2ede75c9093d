use super::*;
use crate::messaging::Epoch;
use crate::server::view::catch_up;
use crate::server::view::garages::QuarantinedPage;
use crate::server::view::tests::{event, page_of, request, world};
use crate::store::Store;
use crate::store::simulated::Disk;

const OF_A_NEWER_VERSION: &[u8] = &[9, 1, 2, 3];

fn name(text: &str) -> SiteName {
    SiteName::new(text).unwrap()
}

fn entry() -> Vec<u8> {
    event(r#"{"kind":"entry","plate":"AB1"}"#)
}

/// A ledger and the view that follows it.
struct CommandsWorld {
    disk: Disk,
    store: Store,
    ledger: Ledger,
    view: View,
    changes: ViewChanges,
}

impl CommandsWorld {
    fn new() -> CommandsWorld {
        let (disk, store, ledger) = world();
        CommandsWorld { disk, changes: ViewChanges::on(&store), store, ledger, view: View::default() }
    }

    fn apply_ledger(&mut self) {
        catch_up(&mut self.view, &self.ledger, u64::MAX, &mut self.changes, |_| {}).unwrap();
    }

    /// An edge of `site` sends these events as one page of an epoch of its own.
    fn send(&mut self, site: &str, events: &[Vec<u8>]) -> u64 {
        let epoch = Epoch::random();
        self.ledger.commit(&[request(site, epoch, vec![page_of(epoch, 1, events)])], 77).unwrap();
        self.apply_ledger();
        self.ledger.position()
    }

    fn tell_capacity(&mut self, site: &str, spaces: u32) {
        self.ledger.record_capacity(&name(site), spaces, 5).unwrap();
        self.apply_ledger();
    }

    fn command(&mut self, command: Command) -> Result<u64, Refusal> {
        match self.view.judge(&self.ledger, &command) {
            Ok(_) => {}
            Err(JudgeError::Refused(refusal)) => return Err(refusal),
            Err(error) => panic!("{error}"),
        }
        Ok(self.record(command))
    }

    /// Without asking whether it makes sense.
    fn record(&mut self, command: Command) -> u64 {
        let position = self.ledger.record_command("ada (uid 7)", command, 5).unwrap();
        self.apply_ledger();
        position
    }

    fn rename(&mut self, garage: &str, to: &str) -> Result<u64, Refusal> {
        self.command(Command::Rename { garage: name(garage), to: name(to) })
    }

    fn garage(&self, key: &str) -> &GarageState {
        &self.view.garages[&name(key)]
    }

    /// What an edge that only asks sees.
    fn board(&self) -> Vec<(String, i64)> {
        let shown = self.view.changed_since(None).filter(|(_, garage)| garage.is_shown());
        let lines = shown.map(|(key, its)| (self.view.name_of(key).to_string(), its.occupancy.occupied));
        lines.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
    }

    /// Rebuilding, and loading what was written, both give this view.
    fn the_view_follows_from_the_ledger(mut self) {
        self.view.save(&mut self.changes).unwrap();
        self.store.flush().unwrap();
        self.disk.power_on(0);
        let store = Store::on(self.disk);
        let ledger = Ledger::open(store.clone()).unwrap();
        assert_eq!(View::load(&store, &ledger).unwrap(), self.view);
        let mut rebuilt = View::default();
        let scratch = Store::on(Disk::default());
        let mut changes = ViewChanges::on(&scratch);
        catch_up(&mut rebuilt, &ledger, u64::MAX, &mut changes, |_| {}).unwrap();
        assert_eq!(rebuilt, self.view);
    }
}

#[test]
fn a_renamed_garage_goes_on_under_both_names() {
    let mut world = CommandsWorld::new();
    world.send("a", &[entry(), entry()]);
    world.rename("a", "b").unwrap();
    world.send("a", &[entry()]);
    world.send("b", &[entry()]);
    assert_eq!(world.board(), [("b".to_owned(), 4)]);
    assert_eq!(world.view.sites_of(&name("a")), [name("a"), name("b")]);
    world.the_view_follows_from_the_ledger();
}

#[test]
fn a_garage_can_be_renamed_on_and_back_and_its_names_stay_its_own() {
    let mut world = CommandsWorld::new();
    world.send("a", &[entry()]);
    world.send("z", &[entry()]);
    world.rename("a", "b").unwrap();
    world.rename("b", "c").unwrap();
    assert_eq!(world.board(), [("c".to_owned(), 1), ("z".to_owned(), 1)]);
    for taken in ["a", "b", "c"] {
        let owner = name("c");
        assert_eq!(world.rename("z", taken), Err(Refusal::NameTaken { name: name(taken), owner }));
    }
    let owner = name("z");
    assert_eq!(world.rename("c", "z"), Err(Refusal::NameTaken { name: name("z"), owner }));
    assert_eq!(world.rename("c", "c"), Err(Refusal::SameName(name("c"))));
    assert_eq!(world.rename("y", "x"), Err(Refusal::UnknownGarage(name("y"))));
    world.rename("c", "a").unwrap();
    world.send("c", &[entry()]);
    assert_eq!(world.board(), [("a".to_owned(), 2), ("z".to_owned(), 1)]);
    world.the_view_follows_from_the_ledger();
}

#[test]
fn an_operators_capacity_stands_whatever_the_edge_tells() {
    let mut world = CommandsWorld::new();
    world.tell_capacity("a", 500);
    let set = |spaces| Command::Capacity { garage: name("a"), spaces };
    world.command(set(Some(300))).unwrap();
    world.tell_capacity("a", 501);
    assert_eq!((world.garage("a").capacity, world.garage("a").told_capacity), (300, 501));
    let (garage, capacity) = (name("a"), 300);
    assert_eq!(world.command(set(Some(300))), Err(Refusal::SameCapacity { garage, capacity }));
    world.command(set(None)).unwrap();
    assert_eq!(world.garage("a").capacity, 501);
    assert_eq!(world.command(set(None)), Err(Refusal::NoCapacitySet(name("a"))));
    world.the_view_follows_from_the_ledger();
}

#[test]
fn a_decommissioned_garage_is_hidden_and_still_counted() {
    let mut world = CommandsWorld::new();
    world.send("a", &[entry()]);
    world.send("b", &[entry()]);
    let order = |undo| Command::Decommission { garage: name("a"), undo };
    assert_eq!(world.command(order(true)), Err(Refusal::NotDecommissioned(name("a"))));
    let position = world.command(order(false)).unwrap();
    let garage = name("a");
    assert_eq!(world.command(order(false)), Err(Refusal::Decommissioned { garage, position }));
    world.send("a", &[entry(), entry()]);
    assert_eq!(world.board(), [("b".to_owned(), 1)]);
    assert_eq!(world.garage("a").occupancy.occupied, 3);
    let since = world.garage("a").decisions.decommissioned.clone();
    assert_eq!(since, Some(Decommissioned { position, events_since: 2 }));
    world.command(order(true)).unwrap();
    assert_eq!(world.board(), [("a".to_owned(), 3), ("b".to_owned(), 1)]);
    world.the_view_follows_from_the_ledger();
}

#[test]
fn what_is_still_not_understood_is_not_released_and_can_be_given_up_once() {
    let mut world = CommandsWorld::new();
    let position = world.send("a", &[entry(), OF_A_NEWER_VERSION.to_vec(), OF_A_NEWER_VERSION.to_vec()]);
    let place = |index| QuarantinePlace { position, index };
    let Err(Refusal::NotUnderstood { reason, .. }) =
        world.command(Command::Release { place: place(Some(1)) })
    else {
        panic!("it is not understood")
    };
    assert!(reason.contains("version 9"), "{reason:?}");
    for nothing in [place(Some(0)), place(Some(9)), QuarantinePlace { position: 7, index: None }] {
        let refused = world.command(Command::Release { place: nothing });
        assert_eq!(refused, Err(Refusal::NothingWaits(nothing)));
    }
    let discard = |place, reason: &str| Command::Discard { place, reason: reason.into() };
    assert_eq!(world.command(discard(place(Some(1)), "")), Err(Refusal::Reason { bytes: 0 }));
    let too_long = "x".repeat(Command::REASON_MAX + 1);
    assert!(matches!(world.command(discard(place(None), &too_long)), Err(Refusal::Reason { .. })));
    world.command(discard(place(Some(1)), "a test of the vendor")).unwrap();
    assert_eq!(world.view.quarantine[&position].places().collect::<Vec<_>>(), [2]);
    let again = world.command(discard(place(Some(1)), "again"));
    assert_eq!(again, Err(Refusal::NothingWaits(place(Some(1)))));
    world.command(discard(place(None), "the rest")).unwrap();
    assert!(world.view.quarantine.is_empty());
    assert_eq!(world.garage("a").occupancy.occupied, 1);
    world.the_view_follows_from_the_ledger();
}

/// As a later version does it, that understands what an earlier one has set aside.
#[test]
fn what_is_understood_now_acts_at_the_position_of_its_release() {
    let mut world = CommandsWorld::new();
    let position = world.send("a", &[entry(), entry(), OF_A_NEWER_VERSION.to_vec()]);
    let set_aside = QuarantinedPage { events: 0b110, ..world.view.quarantine[&position].clone() };
    world.view.quarantine.insert_mut(position, set_aside);
    world.view.garages.get_mut(&name("a")).unwrap().occupancy.occupied = 1;
    let released =
        world.command(Command::Release { place: QuarantinePlace { position, index: None } }).unwrap();
    assert_eq!(world.garage("a").occupancy.occupied, 2);
    assert_eq!(world.garage("a").changed_at, released);
    assert_eq!(world.view.quarantine[&position].places().collect::<Vec<_>>(), [2]);
}

/// Two operators, or an event between check and place: the ledger has it, and nothing happens.
#[test]
fn a_command_that_makes_no_sense_any_more_has_no_effect_and_the_view_says_why() {
    let mut world = CommandsWorld::new();
    world.send("a", &[entry()]);
    world.send("b", &[entry()]);
    let before = world.view.garages.clone();
    let position = world.record(Command::Rename { garage: name("a"), to: name("b") });
    assert_eq!(world.view.garages, before);
    let reason = world.view.decisions.without_effect(position).unwrap();
    assert!(reason.contains("belongs to the garage \"b\""), "{reason}");
    assert_eq!(world.view.decisions.without_effect(position - 1), None);
    world.the_view_follows_from_the_ledger();
}
