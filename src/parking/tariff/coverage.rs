//! Whether bands cover every hour: of the week, and around the holidays of the calendar.

use super::Tariff;
use super::days::{DayKind, number_of};
use super::window::ClockTime;
use std::collections::BTreeSet;

/// More than so many spans help nobody.
const SHOWN_MAX: usize = 12;

/// The hours for which no band has a price, in words. `None`: there are none.
///
/// A day's hours depend on what it is and on what the day before it was, whose windows may run into it. A week without
/// holidays has seven such pairs; each holiday may make two more, with the day before it and with the day after it.
pub(super) fn uncovered(tariff: &Tariff) -> Option<String> {
    let week = DayKind::WEEK;
    let mut missing = Vec::new();
    for today in 0..7 {
        let yesterday = week[(today + 6) % 7];
        let hours = uncovered_of(tariff, yesterday, week[today]);
        missing.extend(hours.into_iter().map(|hours| format!("{} {hours}", week[today].name())));
    }
    // Around holidays the same hours are missing on many dates: the first one stands for all.
    let mut seen = BTreeSet::new();
    for date in tariff.calendar.iter().flat_map(|calendar| calendar.holidays()) {
        for after in [0, 1] {
            let day = number_of(*date) + after;
            let (yesterday, today) = (tariff.kind_of(day - 1), tariff.kind_of(day));
            if weekday_before(today) == Some(yesterday) || !seen.insert((yesterday as u8, today as u8)) {
                continue;
            }
            let how = if after == 0 { "such as on" } else { "after the holiday" };
            let hours = uncovered_of(tariff, yesterday, today).into_iter();
            missing.extend(hours.map(|hours| format!("{} {hours} {how} {date}", today.name())));
        }
    }
    let hidden = missing.len().saturating_sub(SHOWN_MAX);
    missing.truncate(SHOWN_MAX);
    let more = if hidden > 0 { format!(", and {hidden} more") } else { String::new() };
    (!missing.is_empty()).then(|| format!("{}{more}", missing.join(", ")))
}

/// `None` for a holiday, which follows no day in particular.
fn weekday_before(today: DayKind) -> Option<DayKind> {
    let place = DayKind::WEEK.iter().position(|day| *day == today)?;
    Some(DayKind::WEEK[(place + 6) % 7])
}

/// The spans of a day without a price.
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
    let shown = |minutes| ClockTime::of_minutes(minutes);
    spans.into_iter().map(|(from, to)| format!("{}-{}", shown(from), shown(to))).collect()
}
