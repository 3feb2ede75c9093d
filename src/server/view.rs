//! The view of the garages: a fold over the ledger, in order of position.
//!
//! **Promise.** At any position the view is what folding the ledger from its beginning gives, and nothing else.
//! **Kept by.** [`View::apply`] sees records only. What it changed is written in one batch together with the position it
//! has reached; after a crash folding goes on from there. A view never holds up the ledger: it follows behind.
//! **Not promised.** That it is at the ledger's end: every answer says the position that it shows.
//!
//! | key | value |
//! | --- | --- |
//! | `vp` | the position reached (u64) |
//! | `vg` + name | a [`Garage`] |
//! | `vh` + position (u64) | a [`Hole`] |
//! | `vq` + position (u64) | a [`Quarantined`] |

use super::ledger::{Ledger, Record};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, LedgerId, SiteName};
use crate::parking::board::{BoardLine, BoardVersion};
use crate::parking::{Board, BoardAnswer, BoardQuestion, Event, Occupancy};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};

/// What the events of one garage add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garage {
    pub capacity: u32,
    pub occupancy: Occupancy,
    /// How many events were applied.
    pub events: u64,
    /// When the last of them was received.
    pub as_of_ms: Option<i64>,
    /// The position that changed it last.
    pub changed_at: u64,
    /// The last event applied.
    pub through: Option<(Epoch, u64)>,
}

/// Events that will never come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub garage: SiteName,
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub reason: String,
    pub received_at_ms: i64,
}

/// Events of one page that were accepted and cannot be applied. Their bytes are in the ledger. Kept by page, because a
/// garage with a newer program may send very many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub garage: SiteName,
    pub epoch: Epoch,
    /// The first sequence of the page.
    pub first: u64,
    /// Bit n: the n-th event of the page.
    events: u64,
    /// Of the first of them.
    pub reason: String,
    pub received_at_ms: i64,
}

const _: () = assert!(crate::messaging::page::RECORDS_MAX <= 64, "a bit for each event of a page");

impl Quarantined {
    /// The places in the page, from 0.
    pub fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let events = self.events;
        (0..64).filter(move |place| events >> place & 1 == 1)
    }
}

/// The state of the fold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub position: u64,
    pub garages: BTreeMap<SiteName, Garage>,
    pub holes: BTreeMap<u64, Hole>,
    /// By position.
    pub quarantine: BTreeMap<u64, Quarantined>,
}

/// What changed since the view was last written.
#[derive(Debug, Default)]
pub struct Changes {
    garages: BTreeSet<SiteName>,
    holes: BTreeSet<u64>,
    quarantine: BTreeSet<u64>,
}

impl Changes {
    /// Whether they still fit into one batch, whatever one more record changes.
    pub fn is_full(&self) -> bool {
        let writes = self.garages.len() + self.holes.len() + self.quarantine.len() + 1;
        writes + 2 > BATCH_MAX
    }
}

const POSITION: &[u8] = b"vp";

impl View {
    /// What was written last; the rest follows by folding.
    pub fn load(store: &Store) -> Result<View, StoreError> {
        let mut view = View::default();
        if let Some(value) = store.get(POSITION)? {
            view.position = u64::from_be_bytes(sized(&value)?);
        }
        for entry in store.range(b"vg", b"vh") {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key[2..]).ok();
            let name = name.and_then(|name| SiteName::new(name).ok());
            let name = name.ok_or_else(|| damaged(&key))?;
            view.garages.insert(name, decode(&key, &value)?);
        }
        for entry in store.range(b"vh", b"vi") {
            let (key, value) = entry?;
            view.holes.insert(u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?);
        }
        for entry in store.range(b"vq", b"vr") {
            let (key, value) = entry?;
            view.quarantine.insert(u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?);
        }
        Ok(view)
    }

    /// Folds the record at `position`. An error when it is not the next one: the ledger then lacks a position.
    pub fn apply(
        &mut self,
        ledger: &Ledger,
        position: u64,
        record: Record,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        if position != self.position + 1 {
            return Err(StoreError::Damaged {
                place: format!("ledger position {}", self.position + 1),
                reason: format!("it is missing; the next one is {position}"),
            });
        }
        match record {
            Record::Page { stream, received_at_ms, page } => {
                let stream = ledger.stream(stream)?;
                let page = page.open().map_err(|error| StoreError::Damaged {
                    place: format!("ledger position {position}"),
                    reason: error.to_string(),
                })?;
                let (first, last) = (page.first.get(), page.last());
                let Content::Records(records) = page.content else {
                    unreachable!("the ledger records what was lost as a hole")
                };
                let garage = self.garages.entry(stream.site.clone()).or_default();
                let mut set_aside = 0u64;
                let mut reason = None;
                for (place, record) in records.into_iter().enumerate() {
                    garage.events += 1;
                    match Event::from_bytes(&record.payload) {
                        Ok(event) => garage.occupancy.apply(&event.kind),
                        Err(error) => {
                            set_aside |= 1 << place;
                            reason.get_or_insert(error);
                        }
                    }
                }
                if let Some(reason) = reason {
                    tracing::warn!(garage = %stream.site, first, events = set_aside.count_ones(), %reason, "events that this server does not understand were accepted and set aside; they are kept in the ledger");
                    let quarantined = Quarantined {
                        garage: stream.site.clone(),
                        epoch: stream.epoch,
                        first,
                        events: set_aside,
                        reason: reason.to_string(),
                        received_at_ms,
                    };
                    self.quarantine.insert(position, quarantined);
                    changes.quarantine.insert(position);
                }
                garage.as_of_ms = Some(received_at_ms);
                garage.changed_at = position;
                garage.through = Some((stream.epoch, last));
                changes.garages.insert(stream.site);
            }
            Record::Hole { stream, received_at_ms, first, last, reason, .. } => {
                let stream = ledger.stream(stream)?;
                let hole =
                    Hole { garage: stream.site, epoch: stream.epoch, first, last, reason, received_at_ms };
                self.holes.insert(position, hole);
                changes.holes.insert(position);
            }
            Record::Capacity { site, capacity, .. } => {
                let garage = self.garages.entry(site.clone()).or_default();
                garage.capacity = capacity;
                garage.changed_at = position;
                changes.garages.insert(site);
            }
        }
        self.position = position;
        Ok(())
    }

    /// Writes what changed together with the position reached. Durable with the next flush; a crash before folds again.
    pub fn save(&self, store: &Store, changes: &mut Changes) -> Result<(), StoreError> {
        let changes = std::mem::take(changes);
        let mut batch = Batch::default();
        for name in &changes.garages {
            let key = [b"vg", name.as_str().as_bytes()].concat();
            batch.put(key, encode(&self.garages[name]));
        }
        for position in &changes.holes {
            let key = [b"vh", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.holes[position]));
        }
        for position in &changes.quarantine {
            let key = [b"vq", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.quarantine[position]));
        }
        batch.put(POSITION, self.position.to_be_bytes());
        store.apply(&batch)
    }

    /// The board, as a change since the version that the asker has where that is possible.
    pub fn answer(&self, ledger: LedgerId, question: &BoardQuestion) -> BoardAnswer {
        let version = BoardVersion { ledger: ledger.to_bytes(), position: self.position };
        let since =
            question.have.filter(|have| have.ledger == version.ledger && have.position <= version.position);
        let newer = |garage: &Garage| since.is_none_or(|have| garage.changed_at > have.position);
        let lines = self.garages.iter().filter(|(_, garage)| newer(garage));
        let board = Board {
            version,
            garages: lines
                .map(|(name, garage)| {
                    let line = BoardLine {
                        capacity: garage.capacity,
                        occupied: garage.occupancy.occupied,
                        as_of_ms: garage.as_of_ms,
                        through: garage.through.map(|(epoch, last)| (epoch.to_bytes(), last)),
                    };
                    (name.to_string(), line)
                })
                .collect(),
        };
        match since {
            Some(from) => BoardAnswer::Changed { from, now: board },
            None => BoardAnswer::Whole(board),
        }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).expect("it always encodes")
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((1, body)) => postcard::from_bytes(body).map_err(|_| damaged(key)),
        _ => Err(damaged(key)),
    }
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| damaged(bytes))
}

fn damaged(key: &[u8]) -> StoreError {
    StoreError::Damaged {
        place: format!("the view's key {key:02x?}"),
        reason: "it has the wrong form".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::Sequence;
    use crate::messaging::page::{Page, Record as Message, SealedPage};
    use crate::messaging::wire::Request;
    use crate::store::simulated::Disk;
    use bytes::Bytes;

    const EPOCH: Epoch = Epoch::from_bytes([3; 16]);

    fn page(first: u64, events: &[Vec<u8>]) -> SealedPage {
        let message = |payload: &Vec<u8>| Message { key: None, payload: Bytes::from(payload.clone()) };
        SealedPage::seal(&Page {
            epoch: EPOCH,
            first: Sequence::new(first).unwrap(),
            previous: None,
            begun_at_ms: 0,
            content: Content::Records(events.iter().map(message).collect()),
        })
    }

    fn event(json: &str) -> Vec<u8> {
        Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap().to_bytes()
    }

    fn apply(ledger: &Ledger, garage: &str, pages: Vec<SealedPage>) {
        let request = Request {
            id: 1,
            site: SiteName::new(garage).unwrap(),
            epoch: EPOCH,
            oldest: 1,
            pages,
            ask: None,
            observation: None,
        };
        ledger.commit(&[request], 77).unwrap();
    }

    fn fold(view: &mut View, ledger: &Ledger) -> Changes {
        let mut changes = Changes::default();
        for record in ledger.records(view.position + 1) {
            let (position, record) = record.unwrap();
            view.apply(ledger, position, record, &mut changes).unwrap();
        }
        changes
    }

    fn world() -> (Disk, Store, Ledger) {
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
            let mut view = View::load(&store).unwrap();
            apply(&ledger, "a", vec![page(1, &[entry.clone(), entry.clone()])]);
            ledger.record_capacity(&SiteName::new("a").unwrap(), 9, 5).unwrap();
            let mut changes = fold(&mut view, &ledger);
            view.save(&store, &mut changes).unwrap();
            if flushed {
                store.flush().unwrap();
            }
            apply(&ledger, "b", vec![page(1, std::slice::from_ref(&entry))]);
            disk.power_on(0);
            let store = Store::on(disk);
            let ledger = Ledger::open(store.clone()).unwrap();
            let mut caught_up = View::load(&store).unwrap();
            fold(&mut caught_up, &ledger);
            let mut anew = View::default();
            fold(&mut anew, &ledger);
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
        apply(&ledger, "a", vec![page(1, &[entry.clone(), of_a_newer_version, entry])]);
        let mut view = View::default();
        let mut changes = fold(&mut view, &ledger);
        view.save(&store, &mut changes).unwrap();
        assert_eq!(view.garages[&SiteName::new("a").unwrap()].occupancy.occupied, 2);
        let set_aside = &view.quarantine[&1];
        assert_eq!((set_aside.first, set_aside.places().collect::<Vec<_>>()), (1, vec![1]));
        assert_eq!(View::load(&store).unwrap(), view);
    }

    #[test]
    fn the_board_carries_what_changed_since_the_version_that_an_edge_has() {
        let (_, _, ledger) = world();
        let entry = event(r#"{"kind":"entry","plate":"AB1"}"#);
        let mut view = View::default();
        apply(&ledger, "a", vec![page(1, std::slice::from_ref(&entry))]);
        fold(&mut view, &ledger);
        let whole = view.answer(ledger.id(), &BoardQuestion { have: None });
        let board = Board::after(None, whole).unwrap();
        apply(&ledger, "b", vec![page(1, &[entry])]);
        fold(&mut view, &ledger);
        let question = BoardQuestion { have: Some(board.version) };
        let BoardAnswer::Changed { from, now } = view.answer(ledger.id(), &question) else {
            panic!("the version is known")
        };
        assert_eq!(now.garages.keys().collect::<Vec<_>>(), ["b"]);
        let after = Board::after(Some(board), BoardAnswer::Changed { from, now }).unwrap();
        assert_eq!(after.garages.len(), 2);
        let of_another_ledger = view.answer(LedgerId::random(), &question);
        assert!(matches!(of_another_ledger, BoardAnswer::Whole(_)));
    }
}
