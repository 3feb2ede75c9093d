//! Whether bands cover every hour: of the week, and around the holidays of the calendar.

use super::Tariff;
use super::days::{DayKind, number_of};
use super::window::ClockTime;
use std::collections::BTreeSet;

/// Maximum number of spans in a message: more help nobody.
const SHOWN_MAX: usize = 12;

/// The hours for which no band has a price, in words. `None`: there are none.
/// A day's hours depend on what it is and on what the day before it was, whose windows may run into it. A week without
/// holidays has seven such pairs; each holiday may make two more, with the day before it and with the day after it.
pub(super) fn uncovered(tariff: &Tariff) -> Option<String> {
    let mut missing = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |yesterday, today: DayKind, when: String| {
        for hours in uncovered_of(tariff, yesterday, today) {
            let hours = format!("{} {hours}", today.name());
            // The same hours on many dates: the first one stands for all.
            if seen.insert(hours.clone()) {
                missing.push(hours + &when);
            }
        }
    };
    let week = DayKind::WEEK;
    for today in 0..7 {
        add(week[(today + 6) % 7], week[today], String::new());
    }
    for date in tariff.calendar.iter().flat_map(|calendar| &calendar.holidays) {
        let day = number_of(*date);
        let [before, holiday, after] = [day - 1, day, day + 1].map(|day| tariff.kind_of(day));
        add(before, holiday, format!(" such as on {date}"));
        add(holiday, after, format!(" after the holiday {date}"));
    }
    let hidden = missing.len().saturating_sub(SHOWN_MAX);
    missing.truncate(SHOWN_MAX);
    let more = if hidden > 0 { format!(", and {hidden} more") } else { String::new() };
    (!missing.is_empty()).then(|| format!("{}{more}", missing.join(", ")))
}

fn uncovered_of(tariff: &Tariff, yesterday: DayKind, today: DayKind) -> Vec<String> {
    let borders: Vec<u16> = tariff.ready.borders.iter().map(|second| (second / 60) as u16).collect();
    let covered =
        |minute| tariff.bands.iter().any(|band| band.window.occurrence(yesterday, today, minute).is_some());
    let mut spans: Vec<(u16, u16)> = Vec::new();
    for pair in borders.windows(2) {
        match spans.last_mut() {
            _ if covered(pair[0]) => {}
            Some((_, to)) if *to == pair[0] => *to = pair[1],
            _ => spans.push((pair[0], pair[1])),
        }
    }
    spans.into_iter().map(|(from, to)| format!("{}-{}", ClockTime(from), ClockTime(to))).collect()
}
