//! The price of a stay: one pass over its units.
//!
//! Between two moments at which anything could change (a border of a window, midnight, a change of the clocks, a new span
//! of hours), units cost the same until a cap is reached. So they are taken together, and a year costs what its
//! days cost, not its minutes. The result equals pricing one unit after the other: a test compares the two.

use super::days::DayKind;
use super::priced::{Free, Priced, Rule, second_of};
use super::{Amount, BandPrice, Calendar, CalendarIncomplete, Span, Tariff};
use crate::parking::moment::millisecond_of;
use jiff::Timestamp;

const DAY: i64 = 86_400;

impl Tariff {
    /// The price of a stay, whose ends count to the millisecond, as everywhere. The caller chose this version by the entry
    /// ([`super::TariffSet::for_stay`]). An exit that is not after its entry makes a stay that did not last.
    /// `Err`: the stay has no price until the calendar covers a day that a unit needs.
    pub fn price(&self, entry: Timestamp, exit: Timestamp) -> Result<Priced<'_>, CalendarIncomplete> {
        let units = self.units(entry, exit);
        let priced = Priced::new(self, second_of(entry), units.err(), self.vat_at(exit.max(entry)));
        Meter::new(self, second_of(entry), priced).run(units.unwrap_or_default())
    }

    /// The amount of [`Tariff::price`], without the breakdown.
    pub fn amount(&self, entry: Timestamp, exit: Timestamp) -> Result<Amount, CalendarIncomplete> {
        match self.units(entry, exit) {
            Ok(units) => Meter::new(self, second_of(entry), Amount::ZERO).run(units),
            Err(_) => Ok(Amount::ZERO),
        }
    }

    /// How many units a stay is charged for, or why for none.
    fn units(&self, entry: Timestamp, exit: Timestamp) -> Result<u64, Free> {
        let lasted = millisecond_of(exit) - millisecond_of(entry);
        if lasted <= 0 {
            return Err(Free::NoTime);
        }
        if lasted <= milliseconds(self.grace_minutes) {
            return Err(Free::Grace { minutes: self.grace_minutes });
        }
        let unit = milliseconds(self.unit_minutes);
        Ok(((lasted + unit - 1) / unit).cast_unsigned())
    }
}

/// What takes the units that a [`Meter`] counts: the breakdown, or the amount alone.
trait Charged {
    /// Adds `units` at the price of `each`, by `rule`, made cheaper by the cap `held`.
    fn add(&mut self, units: u64, each: Amount, rule: Rule, held: Option<Rule>);
    /// What all units cost so far.
    fn amount(&self) -> Amount;
}

impl Charged for Priced<'_> {
    fn add(&mut self, units: u64, each: Amount, rule: Rule, held: Option<Rule>) {
        self.add(units, each, rule, held);
    }

    fn amount(&self) -> Amount {
        self.amount
    }
}

impl Charged for Amount {
    fn add(&mut self, units: u64, each: Amount, _: Rule, _: Option<Rule>) {
        *self = self.saturating_add(each.saturating_times(units));
    }

    fn amount(&self) -> Amount {
        *self
    }
}

fn milliseconds(minutes: u32) -> i64 {
    i64::from(minutes) * 60_000
}

struct Meter<'t, C> {
    tariff: &'t Tariff,
    entry: i64,
    clock: LocalClock<'t>,
    calendar: Option<&'t Calendar>,
    charged: C,
    /// What was taken under each cap.
    spent: Vec<Recent<Amount>>,
    /// Whether the flat price of each band was taken.
    paid: Vec<Recent<bool>>,
}

/// Values by the number of their occurrence. Local time moves back by at most a day, so the last two are all that is asked for.
#[derive(Clone, Copy)]
struct Recent<T>([(i64, T); 2]);

impl<T: Copy + Default> Recent<T> {
    fn new() -> Recent<T> {
        Recent([(i64::MIN, T::default()); 2])
    }

    fn of(&mut self, occurrence: i64) -> &mut T {
        let [a, b] = &self.0;
        let place = match occurrence {
            known if known == a.0 => 0,
            known if known == b.0 => 1,
            _ => {
                let older = usize::from(b.0 < a.0);
                self.0[older] = (occurrence, T::default());
                older
            }
        };
        &mut self.0[place].1
    }
}

/// Where a unit starts, in local terms.
struct UnitStart {
    /// Since 1970-01-01.
    day: i64,
    minute: u16,
    yesterday: DayKind,
    today: DayKind,
    /// From this second on, anything may be otherwise.
    until: i64,
}

impl<'t, C: Charged> Meter<'t, C> {
    fn new(tariff: &'t Tariff, entry: i64, charged: C) -> Meter<'t, C> {
        Meter {
            tariff,
            entry,
            clock: LocalClock { tariff, offset: 0, until: i64::MIN },
            calendar: tariff.needed_calendar(),
            charged,
            spent: vec![Recent::new(); tariff.ready.limits.len()],
            paid: vec![Recent::new(); tariff.bands.len()],
        }
    }

    fn run(mut self, units: u64) -> Result<C, CalendarIncomplete> {
        let unit_seconds = 60 * i64::from(self.tariff.unit_minutes);
        let mut caps: Vec<(usize, i64)> = Vec::with_capacity(self.spent.len());
        let mut done = 0u64;
        while done < units {
            let start = self.entry + done as i64 * unit_seconds;
            let moment = self.moment(start)?;
            let until = self.caps_at(&moment, start, &mut caps).min(moment.until);
            let starts = ((until - start + unit_seconds - 1) / unit_seconds).max(1) as u64;
            let (price, rule, alike) = self.price_at(&moment, done);
            let count = alike.min(starts).min(units - done);
            self.take(count, price, rule, &caps);
            done += count;
        }
        Ok(self.charged)
    }

    fn moment(&mut self, start: i64) -> Result<UnitStart, CalendarIncomplete> {
        let local = start + self.clock.offset_at(start);
        let (day, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        if let Some(calendar) = self.calendar {
            // All units until the next border need the same days.
            let earliest = if second < self.tariff.ready.days_reach { day - 1 } else { day };
            if let Some(day) = (earliest..=day).find(|day| !calendar.is_complete_on(*day)) {
                return Err(CalendarIncomplete::on(calendar, day));
            }
        }
        let borders = &self.tariff.ready.borders;
        let border = borders[borders.partition_point(|border| *border <= second)];
        Ok(UnitStart {
            day,
            minute: (second / 60) as u16,
            yesterday: self.tariff.kind_of(day - 1),
            today: self.tariff.kind_of(day),
            until: (start + border - second).min(self.clock.until),
        })
    }

    /// Puts the caps that hold a unit into `caps`, each with its occurrence; the answer is when that changes by hours from the entry.
    fn caps_at(&self, moment: &UnitStart, start: i64, caps: &mut Vec<(usize, i64)>) -> i64 {
        caps.clear();
        let mut until = i64::MAX;
        for (place, cap) in self.tariff.ready.limits.iter().enumerate() {
            let occurrence = match cap.span {
                Span::Stay => Some(0),
                Span::Hours(hours) => {
                    let span = i64::from(hours) * 3600;
                    let nth = (start - self.entry) / span;
                    until = until.min(self.entry + (nth + 1) * span);
                    Some(nth)
                }
                Span::TimeWindow(window) => window
                    .occurrence(moment.yesterday, moment.today, moment.minute)
                    .map(|days_ago| moment.day - days_ago),
            };
            caps.extend(occurrence.map(|occurrence| (place, occurrence)));
        }
        until
    }

    /// What the unit behind `done` others costs before caps, by which rule, and for how many units in a row that holds at most.
    fn price_at(&mut self, moment: &UnitStart, done: u64) -> (Amount, Rule, u64) {
        let mut steps = 0u64;
        for first in &self.tariff.first {
            steps += u64::from(first.units);
            if done < steps {
                return (first.per_unit, Rule::First, steps - done);
            }
        }
        for (band, paid) in self.tariff.bands.iter().zip(&mut self.paid) {
            let window = band.window;
            let Some(days_ago) = window.occurrence(moment.yesterday, moment.today, moment.minute) else {
                continue;
            };
            return match band.price {
                BandPrice::PerUnit(price) => (price, Rule::PerUnit(window), u64::MAX),
                BandPrice::Flat(price) => {
                    let paid = paid.of(moment.day - days_ago);
                    match std::mem::replace(paid, true) {
                        false => (price, Rule::Flat(window), 1),
                        true => (Amount::ZERO, Rule::FlatPaid(window), u64::MAX),
                    }
                }
            };
        }
        unreachable!("a tariff without a price for an hour is refused when it is read")
    }

    /// Takes `units` at `price`, no more than what is left under each of `caps`.
    fn take(&mut self, units: u64, price: Amount, rule: Rule, caps: &[(usize, i64)]) {
        let limits = &self.tariff.ready.limits;
        let mut left = Amount::MAX;
        let mut holder = None;
        for &(place, occurrence) in caps {
            let left_here = limits[place].amount.less_at_most(*self.spent[place].of(occurrence));
            if left_here < left {
                (left, holder) = (left_here, Some(Rule::Cap(limits[place].span, limits[place].amount)));
            }
        }
        let whole = match price {
            Amount::ZERO => units,
            price => units.min((left.minor() / price.minor()) as u64),
        };
        let before = self.charged.amount();
        self.charged.add(whole, price, rule, None);
        if whole < units {
            let part = left.less_at_most(price.saturating_times(whole));
            let parts = u64::from(part > Amount::ZERO);
            self.charged.add(parts, part, rule, holder);
            self.charged.add(units - whole - parts, Amount::ZERO, rule, holder);
        }
        let taken = self.charged.amount().less_at_most(before);
        for &(place, occurrence) in caps {
            let spent = self.spent[place].of(occurrence);
            *spent = spent.saturating_add(taken);
        }
    }
}

/// The offset of local time, looked up once for each span between two changes of the clocks.
struct LocalClock<'t> {
    tariff: &'t Tariff,
    offset: i64,
    /// The second at which it changes; before any lookup, the beginning of time.
    until: i64,
}

impl LocalClock<'_> {
    /// The seconds are asked for in ascending order.
    fn offset_at(&mut self, second: i64) -> i64 {
        if second >= self.until {
            (self.offset, self.until) = self.tariff.offset_at(second);
        }
        self.offset
    }
}
