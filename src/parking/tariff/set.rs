//! All tariffs of a configuration, and the choice of the tariff for a stay.

use super::days::Calendar;
use super::parse::OtherTables;
use super::problem::{TariffError, TariffProblem};
use super::read::Notes;
use super::{FALLBACK, Tariff, is_one_zone, parse, print};
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
    /// Reads a text that is tariffs and calendars, such as [`TariffSet::to_toml`] writes; all that is wrong in it, by line.
    pub fn parse(text: &str) -> Result<TariffSet, Vec<TariffError>> {
        parse::parse(text, OtherTables::Refuse)
    }

    /// Reads the tariffs and calendars of a whole configuration file. Other tables are passed over.
    pub fn parse_config(text: &str) -> Result<TariffSet, Vec<TariffError>> {
        parse::parse(text, OtherTables::PassOver)
    }

    pub(super) fn new(calendars: Vec<Arc<Calendar>>, tariffs: Vec<Tariff>) -> TariffSet {
        let mut of_garage: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, tariff) in tariffs.iter().enumerate() {
            for garage in &tariff.garages {
                of_garage.entry(garage.clone()).or_default().push(place);
            }
        }
        TariffSet { calendars, tariffs, of_garage }
    }

    /// The tariff of a stay, for all of it: the version that is in force at this garage on the local date of the entry. `None`: the
    /// garage has none then, and there is no fallback.
    pub fn for_stay(&self, garage: &str, entry: Timestamp) -> Option<&Tariff> {
        self.listed(garage, entry).or_else(|| self.listed(FALLBACK, entry))
    }

    fn listed(&self, garage: &str, entry: Timestamp) -> Option<&Tariff> {
        let places = self.of_garage.get(garage)?;
        let place = places.iter().copied().find(|place| self.is_in_force(*place, entry))?;
        self.tariffs.get(place)
    }

    fn is_in_force(&self, place: usize, entry: Timestamp) -> bool {
        let began = |tariff: &Tariff| tariff.valid_from <= tariff.local_date(entry);
        let (tariff, next) = (&self.tariffs[place], self.tariffs.get(place + 1));
        let next = next.filter(|next| next.name == tariff.name);
        began(tariff) && !next.is_some_and(began)
    }

    /// By name, then by the date from which they hold.
    pub fn tariffs(&self) -> &[Tariff] {
        &self.tariffs
    }

    pub fn calendars(&self) -> impl Iterator<Item = &Calendar> {
        self.calendars.iter().map(Arc::as_ref)
    }

    pub fn is_empty(&self) -> bool {
        self.tariffs.is_empty() && self.calendars.is_empty()
    }

    /// The canonical text: equal sets have the same, and [`TariffSet::parse`] gives the set again.
    pub fn to_toml(&self) -> String {
        print::print(self)
    }

    /// BLAKE3 of the canonical text, as long as the digest of a page.
    pub fn digest(&self) -> [u8; 16] {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(self.to_toml().as_bytes()).as_bytes()[..16]);
        digest
    }
}

/// Checks the tariffs against each other. They come sorted by name and date, each with its line.
pub(super) fn check_together(tariffs: &[(Tariff, usize)], notes: &Notes) {
    let note = |place: usize, problem: TariffProblem| {
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
            note(second, TariffProblem::VersionTwice { date: tariff.valid_from, line: line(first) });
        }
    }
    // When a later version of the same name replaces it, on the date that this gives.
    let until = |place: usize| {
        let next = tariffs.get(place + 1).map(|(next, _)| next);
        next.filter(|next| next.name == tariffs[place].0.name).map(|next| next.valid_from)
    };
    for (garage, places) in of_garage {
        for (n, &a) in places.iter().enumerate() {
            for &b in &places[n + 1..] {
                let (first, second) = in_order_of_lines(a, b, line);
                let (one, other) = (&tariffs[second].0, &tariffs[first].0);
                let date = one.valid_from.max(other.valid_from);
                let holds_then = |place| until(place).is_none_or(|until| date < until);
                if one.name != other.name && holds_then(a) && holds_then(b) {
                    let (garage, other) = (garage.to_owned(), other.name.clone());
                    note(second, TariffProblem::TwoTariffs { garage, date, other, line: line(first) });
                }
            }
        }
        let zone = |place: usize| tariffs[place].0.time_zone.iana_name().unwrap_or_default();
        if let Some(&b) = places.iter().find(|place| !is_one_zone(zone(**place), zone(places[0]))) {
            let (first, second) = in_order_of_lines(places[0], b, line);
            let (here, there) = (zone(second).to_owned(), zone(first).to_owned());
            let garage = garage.to_owned();
            note(second, TariffProblem::TwoZones { garage, here, there, line: line(first) });
        }
    }
}

fn in_order_of_lines(a: usize, b: usize, line: impl Fn(usize) -> usize) -> (usize, usize) {
    if line(a) <= line(b) { (a, b) } else { (b, a) }
}
