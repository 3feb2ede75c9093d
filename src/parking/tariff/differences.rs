//! Whether other tariffs could change a price that exists.
//!
//! **Promise.** When [`TariffSet::differences`] finds none, every stay that ended by the given date, and had a price, has the same
//! price by the new set: the same amount, currency and VAT rate.
//! **Kept by.** For each garage and each date on which a version of either set begins, the tariffs of both sets are compared: their
//! rules, and their VAT rates and holidays on the days that such a stay can have touched.
//! **Not promised.** That each difference changes a price: nothing here knows which stays there were.

use super::{Calendar, FALLBACK, Tariff, TariffSet, VatRate, is_one_zone};
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of holidays in a sentence.
const SHOWN_MAX: usize = 5;

/// One version of a tariff in the place of another, or none (`new`).
struct Replaced<'a> {
    old: &'a Tariff,
    new: Option<&'a Tariff>,
    /// The first local date of entry for which it is so.
    from: Date,
    garages: BTreeSet<&'a str>,
}

impl TariffSet {
    /// What `new` would change for stays that had a price by this set and ended on the local date `through` or before: a sentence
    /// for each difference. Empty when `new` only adds to this set: versions and VAT rates from a later date on, days after the
    /// end of a calendar, or before its beginning, holidays after `through`, tariffs for stays that had none.
    pub fn differences(&self, new: &TariffSet, through: Date) -> Vec<String> {
        let begins =
            |set: &TariffSet| set.tariffs().iter().map(|its| its.valid_from).collect::<BTreeSet<_>>();
        let dates = &begins(self) | &begins(new);
        let garages: BTreeSet<&str> = self.garages().chain(new.garages()).collect();
        let mut replaced: BTreeMap<_, Replaced<'_>> = BTreeMap::new();
        for from in dates.into_iter().filter(|date| *date <= through) {
            for garage in &garages {
                let Some(old) = self.on_date(garage, from) else { continue };
                let new = new.on_date(garage, from);
                let key = |tariff: &Tariff| (tariff.name.clone(), tariff.valid_from);
                let found = replaced.entry((key(old), new.map(key)));
                let found = found.or_insert(Replaced { old, new, from, garages: BTreeSet::new() });
                found.garages.insert(garage);
            }
        }
        // Many tariffs may have one calendar: it is named once.
        let mut sentences: Vec<String> = Vec::new();
        for found in replaced.values().flat_map(|replaced| replaced.differences(through)) {
            if !sentences.contains(&found) {
                sentences.push(found);
            }
        }
        sentences
    }
}

impl Replaced<'_> {
    fn differences(&self, through: Date) -> Vec<String> {
        let old = self.old;
        let Some(new) = self.new else {
            let stays = self.stays();
            return vec![format!("{stays} would have no tariff; they cost by {}", called(old))];
        };
        let mut reasons = Vec::new();
        let rules = other_rules(old, new);
        if !rules.is_empty() {
            reasons.push(format!("other {}", rules.join(", ")));
        }
        reasons.extend(other_vat(old, new, self.from, through));
        let calendars = (old.needed_calendar(), new.needed_calendar());
        let first = self.from.yesterday().unwrap_or(Date::MIN);
        match calendars {
            (Some(old), None) if !holidays(old, first, through).is_empty() => {
                reasons.push(format!("no calendar; it was {:?}", old.name));
            }
            (None, Some(new))
                if !holidays(new, first, through).is_empty() || !covers(new, first, through) =>
            {
                reasons.push(format!("the calendar {:?}; there was none", new.name));
            }
            _ => {}
        }
        let mut sentences = Vec::new();
        if !reasons.is_empty() {
            let is_edited = (&old.name, old.valid_from) == (&new.name, new.valid_from);
            let subject = match is_edited {
                true => format!("{} would have", called(old)),
                false => {
                    format!("{} would cost by {}, not by {}, with", self.stays(), called(new), called(old))
                }
            };
            sentences.push(format!("{subject} {}", reasons.join("; ")));
        }
        if let (Some(old), Some(new)) = calendars {
            sentences.extend(other_days(old, new, first, through));
        }
        sentences
    }

    fn stays(&self) -> String {
        let garages = self.garages.iter().map(|garage| match *garage {
            FALLBACK => "every garage that no tariff names".to_owned(),
            garage => format!("the garage {garage:?}"),
        });
        let garages: Vec<String> = garages.collect();
        format!("stays from {} on in {}", self.from, garages.join(", "))
    }
}

fn called(tariff: &Tariff) -> String {
    format!("the tariff {:?} of {}", tariff.name, tariff.valid_from)
}

/// The keys of the rules that differ.
fn other_rules(old: &Tariff, new: &Tariff) -> Vec<&'static str> {
    let zone = |tariff: &Tariff| tariff.time_zone.iana_name().unwrap_or_default().to_owned();
    let rules = [
        ("currency", old.currency == new.currency),
        ("time_zone", is_one_zone(&zone(old), &zone(new))),
        ("grace_minutes", old.grace_minutes == new.grace_minutes),
        ("unit_minutes", old.unit_minutes == new.unit_minutes),
        ("first", old.first == new.first),
        ("bands", old.bands == new.bands),
        ("caps", old.caps == new.caps),
        ("daily_cap", old.daily_cap == new.daily_cap),
        ("stay_cap", old.stay_cap == new.stay_cap),
    ];
    rules.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}

/// The first date from `from` through `through` on which the rates differ.
fn other_vat(old: &Tariff, new: &Tariff, from: Date, through: Date) -> Option<String> {
    let mut dates: Vec<Date> = old.vat.changes().chain(new.vat.changes()).collect();
    dates.retain(|date| (from..=through).contains(date));
    dates.push(from);
    dates.sort();
    let shown = |rate: Option<VatRate>| rate.map_or("no VAT".to_owned(), |rate| format!("{rate} % VAT"));
    dates.into_iter().find_map(|date| {
        let (old, new) = (old.vat.rate_on(date), new.vat.rate_on(date));
        (old != new).then(|| format!("{} instead of {} on {date}", shown(new), shown(old)))
    })
}

/// What differs within the days that the old calendar covers.
fn other_days(old: &Calendar, new: &Calendar, first: Date, through: Date) -> Option<String> {
    let (first, last) = (first.max(old.complete_from()), through.min(old.complete_through()));
    if first > last {
        return None;
    }
    let mut reasons = Vec::new();
    let (before, after) = (holidays(old, first, last), holidays(new, first, last));
    for (what, dates) in [("add the holidays", &after - &before), ("remove the holidays", &before - &after)] {
        let shown: Vec<String> = dates.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
        let more = if dates.len() > SHOWN_MAX {
            format!(" and {} more", dates.len() - SHOWN_MAX)
        } else {
            String::new()
        };
        if !dates.is_empty() {
            reasons.push(format!("{what} {}{more}", shown.join(", ")));
        }
    }
    if !covers(new, first, last) {
        let (from, through) = (new.complete_from(), new.complete_through());
        reasons.push(format!("be complete only from {from} through {through}"));
    }
    let subject = match old.name == new.name {
        true => format!("the calendar {:?}", new.name),
        false => format!("the calendar {:?}, in the place of {:?},", new.name, old.name),
    };
    (!reasons.is_empty()).then(|| format!("{subject} would {}", reasons.join(" and ")))
}

fn holidays(calendar: &Calendar, first: Date, last: Date) -> BTreeSet<Date> {
    calendar.holidays().filter(|day| (first..=last).contains(day)).collect()
}

fn covers(calendar: &Calendar, first: Date, last: Date) -> bool {
    calendar.complete_from() <= first && calendar.complete_through() >= last
}
