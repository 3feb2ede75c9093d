//! How many cars were inside each garage, over time: by the minute, by the hour and by the day.
//!
//! **Promise.** The count at the end of each minute, hour and day is what all events up to then make of it that the views know now,
//! whenever they were delivered. Minutes reach 25 hours back, hours 8 days, days two years; a garage takes no more room than that,
//! also when its events have impossible times.
//! **Kept by.** A bucket is a minute, an hour or a day, and has what the events within it changed ([`CountChange`]), never the count
//! itself. So an event that comes late changes one bucket of each unit, and the count at any time is the count now less what
//! changed since ([`read`]). Buckets lie in pages, and the pages of a unit in a ring: a page takes the place of the one before it.
//! **Not promised.** The least and the greatest count within a bucket for events that were not delivered in the order of their
//! times: within a bucket they count in the order of the ledger. Anything about the time while the server's own clock was wrong, and
//! about pages whose places it took while it was ahead.
//!
//! Which time counts is decided by [`believed`]. An event changes a bucket when it is applied, and its bucket is known from it and the
//! records before it: the views are the same bytes whenever they are saved or rebuilt.
//!
//! | key | value |
//! | --- | --- |
//! | `vl` + garage (u32) | a [`Curve`] |
//! | `vl` + garage (u32) + unit (u8) + place in the ring (u8) | a [`CurvePage`] |

pub mod read;
#[cfg(test)]
mod tests;

use super::codec::{decode, encode, key_u32, u32_from};
use super::unwritten::Unwritten;
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// How late an event may be. Outboxes have waited for weeks; a clock that lost its battery shows a time years ago.
const LATE_MS: i64 = 90 * DAY_MS;

/// A clock that is set back by less is not worth moving anything: the time comes again soon.
const SET_BACK_MS: i64 = HOUR_MS;

/// The maximum number of spans of which the count is not known. When there are more, the first two become one.
const UNKNOWN_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurveUnit {
    Minute,
    Hour,
    Day,
}

impl CurveUnit {
    const ALL: [CurveUnit; 3] = [CurveUnit::Minute, CurveUnit::Hour, CurveUnit::Day];

    pub fn ms(self) -> i64 {
        [MINUTE_MS, HOUR_MS, DAY_MS][self as usize]
    }

    /// How many buckets a page has, and how many pages the ring has.
    fn pages(self) -> (i64, i64) {
        // One page more than is to be shown: the newest has only begun.
        [(60, 26), (24, 9), (32, 24)][self as usize]
    }

    /// The number of the page of a bucket, and the bucket's index in it.
    fn page_of(self, bucket: i64) -> (i64, u8) {
        let (buckets, _) = self.pages();
        (bucket.div_euclid(buckets), bucket.rem_euclid(buckets) as u8)
    }
}

/// What a run of events does to the count: compared with what it was before the run, the count after it, and the least and the
/// greatest within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountChange {
    net: i64,
    least: i64,
    greatest: i64,
}

impl CountChange {
    fn by(net: i64) -> CountChange {
        CountChange { net, least: net.min(0), greatest: net.max(0) }
    }

    /// The count is not known before it.
    fn first(net: i64) -> CountChange {
        CountChange { net, least: net, greatest: net }
    }

    /// This run, then `later`.
    fn then(self, later: CountChange) -> CountChange {
        CountChange {
            net: self.net.saturating_add(later.net),
            least: self.least.min(self.net.saturating_add(later.least)),
            greatest: self.greatest.max(self.net.saturating_add(later.greatest)),
        }
    }
}

/// The buckets of a page in which something changed, ascending.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct CurvePage {
    number: i64,
    buckets: Vec<(u8, CountChange)>,
}

impl CurvePage {
    fn add(&mut self, index: u8, change: CountChange) {
        match self.buckets.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(place) => self.buckets[place].1 = self.buckets[place].1.then(change),
            Err(place) => self.buckets.insert(place, (index, change)),
        }
    }
}

/// What is kept in memory of a garage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The count after the last event.
    count: i64,
    /// When the first event was, by its time.
    since_ms: i64,
    /// When the last event was, by its time.
    last_ms: i64,
    /// Events after the last one are lost.
    lost: bool,
    /// The times between which events are lost.
    unknown: Vec<(i64, i64)>,
    /// For each unit the latest bucket, which is not in a page yet.
    latest: [(i64, CountChange); 3],
}

impl Curve {
    fn begin(first: &Counted, received_ms: i64) -> Curve {
        let at_ms = believed(first.at_ms, received_ms);
        let change = CountChange::first(first.after.saturating_sub(first.before));
        let latest = CurveUnit::ALL.map(|unit| (at_ms.div_euclid(unit.ms()), change));
        let (since_ms, last_ms, count) = (at_ms, at_ms, first.after);
        Curve { count, since_ms, last_ms, lost: false, unknown: Vec::new(), latest }
    }

    /// The server's clock was ahead and was set back: what was noted at later times than this counts as of now.
    fn set_back(&mut self, garage: u32, now_ms: i64, changes: &mut CurveChanges) -> Result<(), StoreError> {
        for unit in CurveUnit::ALL {
            let now = now_ms.div_euclid(unit.ms());
            let latest = &mut self.latest[unit as usize];
            if latest.0 > now {
                let (own, later) = changes.take_from(garage, unit, now)?;
                *latest = (now, own.then(CountChange::by(later.saturating_add(latest.1.net))));
            }
        }
        let spans = self.unknown.iter_mut().flat_map(|(from, to)| [from, to]);
        for at_ms in spans.chain([&mut self.since_ms, &mut self.last_ms]) {
            *at_ms = now_ms.min(*at_ms);
        }
        Ok(())
    }

    /// Notes that the count is known again at a time, after events that are lost.
    fn known_again(&mut self, at_ms: i64) {
        self.lost = false;
        if self.last_ms < at_ms {
            self.unknown.push((self.last_ms, at_ms));
        }
        if self.unknown.len() > UNKNOWN_MAX {
            let (_, to) = self.unknown.remove(1);
            self.unknown[0].1 = to;
        }
    }
}

/// When an event counts as having happened, by its own time and by when the server received it.
///
/// Its own time, so that what a garage delivers days later appears where it belongs; but no event happened after it was received,
/// and one that is months older than that has a wrong clock.
fn believed(at_ms: i64, received_ms: i64) -> i64 {
    let is_believed = (received_ms.saturating_sub(LATE_MS)..=received_ms).contains(&at_ms);
    if is_believed { at_ms } else { received_ms }
}

/// The curves of all garages, by the garages' numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves(BTreeMap<u32, Curve>);

/// What changed since the views were last written.
#[derive(Debug)]
pub struct CurveChanges {
    curves: BTreeSet<u32>,
    pages: Unwritten<CurvePage>,
}

const PREFIX: &[u8] = b"vl";
const END: &[u8] = b"vm";
const KEY_LEN: usize = PREFIX.len() + 4;

fn page_key(garage: u32, unit: CurveUnit, place: u8) -> Vec<u8> {
    [&key_u32(PREFIX, garage)[..], &[unit as u8, place]].concat()
}

impl CurveChanges {
    pub fn on(store: &Store) -> CurveChanges {
        CurveChanges { curves: BTreeSet::new(), pages: Unwritten::on(store) }
    }

    pub fn writes(&self) -> usize {
        self.curves.len() + self.pages.writes()
    }

    /// The maximum number of writes that events of one garage at these times add.
    pub fn writes_at_most(times_ms: impl Iterator<Item = i64>) -> usize {
        let (mut hour, mut pages) = (None, 1);
        for at_ms in times_ms {
            pages += usize::from(hour.replace(at_ms.div_euclid(HOUR_MS)) != hour);
        }
        1 + CurveUnit::ALL.len() * pages
    }

    /// Adds a change to a bucket that is not the latest.
    fn add(
        &mut self,
        garage: u32,
        unit: CurveUnit,
        (bucket, change): (i64, CountChange),
    ) -> Result<(), StoreError> {
        if change == CountChange::default() {
            return Ok(());
        }
        let (number, index) = unit.page_of(bucket);
        let (_, pages) = unit.pages();
        let key = page_key(garage, unit, number.rem_euclid(pages) as u8);
        self.pages.change(key, |page| match page.number {
            its if its == number => page.add(index, change),
            its if its < number || page.buckets.is_empty() => {
                *page = CurvePage { number, buckets: vec![(index, change)] };
            }
            _ => {} // further back than the curve reaches
        })
    }

    /// Takes a bucket and all later ones out of their pages. Returns what changed in it, and by how much the later ones changed the
    /// count.
    fn take_from(
        &mut self,
        garage: u32,
        unit: CurveUnit,
        bucket: i64,
    ) -> Result<(CountChange, i64), StoreError> {
        let (mut own, mut later) = (CountChange::default(), 0i64);
        let (size, pages) = unit.pages();
        for place in 0..pages as u8 {
            let key = page_key(garage, unit, place);
            let Some(mut page) = self.pages.get(&key)? else { continue };
            let first = page.number.saturating_mul(size);
            let number = |index: u8| first.saturating_add(index.into());
            let from = page.buckets.partition_point(|(index, _)| number(*index) < bucket);
            if from == page.buckets.len() {
                continue;
            }
            for (index, change) in page.buckets.drain(from..) {
                match number(index) == bucket {
                    true => own = change,
                    false => later = later.saturating_add(change.net),
                }
            }
            self.pages.put(key, (!page.buckets.is_empty()).then_some(page));
        }
        Ok((own, later))
    }

    pub fn drain(&mut self, curves: &Curves, batch: &mut Batch) {
        for garage in std::mem::take(&mut self.curves) {
            batch.put(key_u32(PREFIX, garage), encode(&curves.0[&garage]));
        }
        self.pages.drain(batch);
    }
}

/// What one applied event did to the count of its garage.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// When it was, by its own time.
    pub at_ms: i64,
    pub before: i64,
    pub after: i64,
}

/// When the server received events.
#[derive(Debug, Clone, Copy)]
pub enum Reception {
    /// In the page that is applied.
    Now(i64),
    /// Long ago: they waited in quarantine.
    Earlier(i64),
}

impl Curves {
    pub fn load(store: &Store) -> Result<Curves, StoreError> {
        let mut curves = Curves::default();
        for entry in store.range(PREFIX, END) {
            let (key, value) = entry?;
            if key.len() == KEY_LEN {
                curves.0.insert(u32_from(&key, PREFIX.len())?, decode(&key, &value)?);
            }
        }
        Ok(curves)
    }

    /// Notes what events of a garage, in their order, did to its count.
    pub fn note(
        &mut self,
        garage: u32,
        receipt: Reception,
        counted: &[Counted],
        changes: &mut CurveChanges,
    ) -> Result<(), StoreError> {
        let Some((first, rest)) = counted.split_first() else { return Ok(()) };
        changes.curves.insert(garage);
        let (Reception::Now(received_ms) | Reception::Earlier(received_ms)) = receipt;
        let (curve, counted) = match self.0.entry(garage) {
            Entry::Occupied(known) => (known.into_mut(), counted),
            Entry::Vacant(place) => (place.insert(Curve::begin(first, received_ms)), rest),
        };
        let is_new = matches!(receipt, Reception::Now(_));
        let latest_ms = curve.latest[CurveUnit::Minute as usize].0.saturating_mul(MINUTE_MS);
        if is_new && latest_ms > received_ms.saturating_add(SET_BACK_MS) {
            curve.set_back(garage, received_ms, changes)?;
        }
        for Counted { at_ms, before, after } in counted {
            let at_ms = believed(*at_ms, received_ms);
            let change = CountChange::by(after.saturating_sub(*before));
            for unit in CurveUnit::ALL {
                let bucket = at_ms.div_euclid(unit.ms());
                let latest = &mut curve.latest[unit as usize];
                if bucket == latest.0 {
                    latest.1 = latest.1.then(change);
                } else if bucket > latest.0 {
                    let over = std::mem::replace(latest, (bucket, change));
                    changes.add(garage, unit, over)?;
                } else {
                    changes.add(garage, unit, (bucket, change))?;
                }
            }
            if curve.lost && is_new {
                curve.known_again(at_ms);
            }
            (curve.since_ms, curve.last_ms) = (curve.since_ms.min(at_ms), curve.last_ms.max(at_ms));
            curve.count = *after;
        }
        Ok(())
    }

    /// Notes that events of a garage are lost that came after those that were noted.
    pub fn lost(&mut self, garage: u32, changes: &mut CurveChanges) {
        if let Some(curve) = self.0.get_mut(&garage) {
            curve.lost = true;
            changes.curves.insert(garage);
        }
    }
}
