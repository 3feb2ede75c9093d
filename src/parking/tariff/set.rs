//! All tariffs of a configuration, and the choice of the tariff for a stay.

use super::days::Calendar;
use super::read::Notes;
use super::{FALLBACK, Tariff, is_one_zone};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Valid tariffs and calendars: at most one tariff for a garage on a date. Their order in the text means nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TariffSet {
    /// By name.
    calendars: Vec<Arc<Calendar>>,
    /// By name, then by date.
    tariffs: Vec<Tariff>,
    /// The places of the tariffs that list a garage.
    of_garage: BTreeMap<String, Vec<usize>>,
}

impl TariffSet {
    pub(super) fn new(calendars: Vec<Arc<Calendar>>, tariffs: Vec<Tariff>) -> TariffSet {
        let mut of_garage: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, tariff) in tariffs.iter().enumerate() {
            for garage in &tariff.garages {
                of_garage.entry(garage.clone()).or_default().push(place);
            }
        }
        TariffSet { calendars, tariffs, of_garage }
    }

    /// The tariff for all of a stay: the version in force at this garage on the local date of the entry, else that of the fallback.
    pub fn for_stay(&self, garage: &str, entry: Timestamp) -> Option<&Tariff> {
        self.listed(garage, entry).or_else(|| self.listed(FALLBACK, entry))
    }

    fn listed(&self, garage: &str, entry: Timestamp) -> Option<&Tariff> {
        let places = self.of_garage.get(garage)?;
        let place = places.iter().copied().find(|place| self.is_in_force(*place, entry))?;
        self.tariffs.get(place)
    }

    fn is_in_force(&self, place: usize, entry: Timestamp) -> bool {
        let began = |tariff: &Tariff| tariff.valid_from <= tariff.time_zone.to_datetime(entry).date();
        let (tariff, next) = (&self.tariffs[place], self.tariffs.get(place + 1));
        let next = next.filter(|next| next.name == tariff.name);
        began(tariff) && !next.is_some_and(began)
    }

    pub fn tariffs(&self) -> &[Tariff] {
        &self.tariffs
    }

    pub fn calendars(&self) -> impl Iterator<Item = &Calendar> {
        self.calendars.iter().map(Arc::as_ref)
    }

    pub fn is_empty(&self) -> bool {
        self.tariffs.is_empty() && self.calendars.is_empty()
    }

    /// BLAKE3 of the canonical text, as long as the digest of a page.
    pub fn digest(&self) -> [u8; 16] {
        *blake3::hash(self.to_toml().as_bytes()).as_bytes().first_chunk().expect("a hash is longer")
    }
}

/// Checks the tariffs against each other. They come sorted by name and date, each with its line.
pub(super) fn check_together(tariffs: &[(Tariff, usize)], notes: &Notes) {
    let note = |place: usize, problem: String| {
        let (tariff, line) = &tariffs[place];
        notes.note(*line, &format!("tariff {:?}: ", tariff.name), problem);
    };
    let line = |place: usize| tariffs[place].1;
    let mut of_garage: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, (tariff, _)) in tariffs.iter().enumerate() {
        tariff.garages.iter().for_each(|garage| of_garage.entry(garage).or_default().push(place));
        let next = tariffs.get(place + 1).filter(|(next, _)| next.name == tariff.name);
        if next.is_some_and(|(next, _)| next.valid_from == tariff.valid_from) {
            let (first, second) = in_order_of_lines(place, place + 1, line);
            let (date, line) = (tariff.valid_from, line(first));
            note(second, format!("a version of this tariff from {date} on stands in line {line}, too"));
        }
    }
    // When a later version of the same name replaces it, on the date that this gives.
    let until = |place: usize| {
        let next = tariffs.get(place + 1).map(|(next, _)| next);
        next.filter(|next| next.name == tariffs[place].0.name).map(|next| next.valid_from)
    };
    for (garage, places) in of_garage {
        let garage = match garage {
            FALLBACK => "the fallback \"*\"".to_owned(),
            garage => format!("the garage {garage:?}"),
        };
        for (n, &a) in places.iter().enumerate() {
            for &b in &places[n + 1..] {
                let (first, second) = in_order_of_lines(a, b, line);
                let (one, other) = (&tariffs[second].0, &tariffs[first].0);
                let date = one.valid_from.max(other.valid_from);
                let holds_then = |place| until(place).is_none_or(|until| date < until);
                if one.name != other.name && holds_then(a) && holds_then(b) {
                    let (other, line) = (&other.name, line(first));
                    let which = format!("this one, and {other:?} of line {line}");
                    note(second, format!("{garage} has two tariffs on {date}: {which}"));
                }
            }
        }
        let zone = |place: usize| tariffs[place].0.time_zone.iana_name().unwrap_or_default();
        if let Some(&b) = places.iter().find(|place| !is_one_zone(zone(**place), zone(places[0]))) {
            let (first, second) = in_order_of_lines(places[0], b, line);
            let (here, there, line) = (zone(second), zone(first), line(first));
            note(second, format!("{garage} is in {here} here, but in {there} in line {line}"));
        }
    }
}

fn in_order_of_lines(a: usize, b: usize, line: impl Fn(usize) -> usize) -> (usize, usize) {
    if line(a) <= line(b) { (a, b) } else { (b, a) }
}
