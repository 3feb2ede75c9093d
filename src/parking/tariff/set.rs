//! All tariffs of a configuration, and the choice of the tariff for a stay.

use super::read::Notes;
use super::{Calendar, CalendarEnd, FALLBACK, Tariff, is_one_zone};
use jiff::Timestamp;
use jiff::civil::Date;
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
        self.for_stay_in([garage], entry)
    }

    /// The same for a garage of several names: the first that a tariff lists decides.
    pub fn for_stay_in<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        entry: Timestamp,
    ) -> Option<&Tariff> {
        self.in_force(names, |tariff| tariff.date_of(entry))
    }

    /// Whether a tariff lists a garage of this name.
    pub fn names(&self, garage: &str) -> bool {
        self.of_garage.contains_key(garage)
    }

    /// The tariff for stays that begin on a local date.
    pub(super) fn on_date(&self, garage: &str, date: Date) -> Option<&Tariff> {
        self.in_force([garage], |_| date)
    }

    fn in_force<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        date: impl Fn(&Tariff) -> Date,
    ) -> Option<&Tariff> {
        let listed = |garage: &str| {
            let places = self.of_garage.get(garage)?;
            let began = |tariff: &Tariff| tariff.valid_from <= date(tariff);
            let in_force =
                |place: &usize| began(&self.tariffs[*place]) && !self.next(*place).is_some_and(began);
            places.iter().copied().find(in_force).map(|place| &self.tariffs[place])
        };
        names.into_iter().find_map(listed).or_else(|| listed(FALLBACK))
    }

    /// The version that replaces the one at this place.
    fn next(&self, place: usize) -> Option<&Tariff> {
        self.tariffs.get(place + 1).filter(|next| next.name == self.tariffs[place].name)
    }

    /// The names in the lists of garages, with [`FALLBACK`] if it is in one.
    pub(super) fn garages(&self) -> impl Iterator<Item = &str> {
        self.of_garage.keys().map(String::as_str)
    }

    /// When the calendars end that tariffs need now or will need, the earliest first.
    pub fn calendar_ends(&self, now: Timestamp) -> Vec<CalendarEnd> {
        let used = self.tariffs.iter().enumerate().filter_map(|(place, tariff)| {
            let (calendar, today) = (tariff.needed_calendar()?, tariff.date_of(now));
            let is_replaced = self.next(place).is_some_and(|next| next.valid_from <= today);
            let complete_through = calendar.complete_through();
            (!is_replaced).then(|| CalendarEnd {
                days_left: i64::from((complete_through - today).get_days()),
                calendar: calendar.name.clone(),
                complete_through,
            })
        });
        let mut earliest: BTreeMap<String, CalendarEnd> = BTreeMap::new();
        for end in used {
            let known = earliest.entry(end.calendar.clone()).or_insert_with(|| end.clone());
            *known = end.min(known.clone());
        }
        let mut ends: Vec<CalendarEnd> = earliest.into_values().collect();
        ends.sort();
        ends
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
