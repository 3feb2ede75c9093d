//! What a stay costs and why, in a form that is small to store and can be shown unit by unit.

use super::{Amount, Currency, Money, Span, Tariff, TimeWindow, VatRate, time_zone};
use crate::parking::Moment;
use crate::parking::moment::millisecond_of;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize, Serializer};

/// The price of a stay with its breakdown. Stands in the ledger: at most [`Priced::BYTES_MAX`] in postcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priced {
    pub amount: Amount,
    pub currency: Currency,
    /// The name of the tariff, and the date from which its version holds.
    pub tariff: String,
    pub valid_from: Date,
    /// The tax that the amount includes.
    pub vat: Option<VatRate>,
    /// Why there are no units.
    pub free: Option<Free>,
    time_zone: String,
    entry_second: i64,
    unit_minutes: u32,
    /// The rules that lines name by their place, each once.
    rules: Vec<Rule>,
    lines: Vec<BreakdownRun>,
}

/// Why a stay has no units, and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Free {
    /// It did not last.
    NoTime,
    Grace {
        minutes: u32,
    },
}

/// What a unit costs by, or what holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rule {
    /// It is one of the first units of the stay.
    First,
    PerUnit(TimeWindow),
    /// It is the first of its occurrence of the window, and pays for all.
    Flat(TimeWindow),
    /// An earlier unit paid the flat price.
    FlatPaid(TimeWindow),
    Cap(Span, Amount),
    /// Units at several prices in one line, because the breakdown has too many lines.
    Rest,
}

/// Consecutive units of one price for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct BreakdownRun {
    units: u64,
    /// Of each unit; of all together under [`Rule::Rest`].
    price: Amount,
    rule: u8,
    /// The cap that made them cheaper.
    held: Option<u8>,
}

/// One line of a breakdown with all that is shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakdownLine {
    /// The first unit's number in the stay, from 1.
    pub unit: u64,
    /// The number of consecutive units in this line.
    pub units: u64,
    /// When the first of them started, to the second, with the local offset.
    #[serde(serialize_with = "as_rfc_3339")]
    pub from: Moment,
    /// `None` when they have several prices.
    pub each: Option<Amount>,
    pub total: Amount,
    /// In words: the rule, and the cap that held the price, if one did.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PriceJson<'a> {
    pub amount: Amount,
    pub currency: Currency,
    pub tariff: &'a str,
    pub valid_from: Date,
    #[serde(serialize_with = "crate::parking::money::as_percent")]
    pub vat_percent: Option<VatRate>,
    pub units: u64,
    pub free: Option<String>,
    pub breakdown: Vec<BreakdownLine>,
}

impl Priced {
    /// The most lines of a breakdown. What comes behind is one line, so that a charge fits into a value of the store.
    pub const LINES_MAX: usize = 300;
    pub const BYTES_MAX: usize = 5 * 1024;

    pub(super) fn new(tariff: &Tariff, entry: Timestamp, free: Option<Free>, breakdown: Breakdown) -> Priced {
        Priced {
            amount: breakdown.amount,
            currency: tariff.currency,
            tariff: tariff.name.clone(),
            valid_from: tariff.valid_from,
            vat: tariff.vat,
            free,
            time_zone: tariff.time_zone.iana_name().unwrap_or_default().to_owned(),
            entry_second: second_of(entry),
            unit_minutes: tariff.unit_minutes,
            rules: breakdown.rules,
            lines: breakdown.lines,
        }
    }

    pub fn money(&self) -> Money {
        Money { amount: self.amount, currency: self.currency }
    }

    /// How many units were charged, those at no price among them.
    pub fn units(&self) -> u64 {
        self.lines.iter().fold(0, |units, line| units.saturating_add(line.units))
    }

    pub fn free_because(&self) -> Option<String> {
        self.free.map(|free| match free {
            Free::NoTime => "it did not last".to_owned(),
            Free::Grace { minutes } => format!("a stay of at most {minutes} minutes costs nothing"),
        })
    }

    /// The breakdown, line by line: consecutive units of one price for one reason are one line.
    pub fn breakdown(&self) -> Vec<BreakdownLine> {
        let zone = self.time_zone();
        let mut before = 0u64;
        let lines = self.lines.iter().map(|line| {
            let seconds = i128::from(before) * i128::from(self.unit_minutes) * 60;
            let from = i64::try_from(i128::from(self.entry_second) + seconds);
            let from =
                from.ok().and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::MAX);
            let rule = self.rule(line.rule);
            let (each, total) = match rule {
                Rule::Rest => (None, line.price),
                _ => (Some(line.price), line.price.saturating_times(line.units)),
            };
            let mut reason = self.words(rule);
            if let Some(cap) = line.held {
                reason = format!("{reason}, held by {}", self.words(self.rule(cap)));
            }
            let unit = before.saturating_add(1);
            before = before.saturating_add(line.units);
            let from = Moment { timestamp: from, offset: zone.to_offset(from) };
            BreakdownLine { unit, units: line.units, from, each, total, reason }
        });
        lines.collect()
    }

    pub fn time_zone(&self) -> TimeZone {
        time_zone(&self.time_zone).unwrap_or(TimeZone::UTC)
    }

    /// A moment as RFC 3339 has it, with the offset of the place.
    pub fn local(&self, at: Timestamp) -> String {
        Moment { timestamp: at, offset: self.time_zone().to_offset(at) }.to_string()
    }

    pub fn shown(&self) -> PriceJson<'_> {
        PriceJson {
            amount: self.amount,
            currency: self.currency,
            tariff: &self.tariff,
            valid_from: self.valid_from,
            vat_percent: self.vat,
            units: self.units(),
            free: self.free_because(),
            breakdown: self.breakdown(),
        }
    }

    /// A place that a damaged record names and does not have says nothing about its units.
    fn rule(&self, place: u8) -> Rule {
        self.rules.get(usize::from(place)).copied().unwrap_or(Rule::Rest)
    }

    fn words(&self, rule: Rule) -> String {
        match rule {
            Rule::First => "first units".to_owned(),
            Rule::PerUnit(window) => window.to_string(),
            Rule::Flat(window) => format!("flat for {window}"),
            Rule::FlatPaid(window) => format!("flat for {window}, paid"),
            Rule::Cap(span, amount) => {
                let most = Money { amount, currency: self.currency };
                match span {
                    Span::TimeWindow(TimeWindow::ALWAYS) => format!("the cap of {most} a day"),
                    Span::TimeWindow(window) => format!("the cap of {most} for {window}"),
                    Span::Hours(hours) => format!("the cap of {most} for each {hours} h from the entry"),
                    Span::Stay => format!("the cap of {most} for the stay"),
                }
            }
            Rule::Rest => "further units, at several prices".to_owned(),
        }
    }
}

/// The second in which it lies. Windows begin at whole minutes and clocks change at whole seconds, so it is as good as the moment.
pub(super) fn second_of(at: Timestamp) -> i64 {
    millisecond_of(at).div_euclid(1_000)
}

impl BreakdownLine {
    /// The line as a statement shows it: `2026-11-23 08:15 3 × 2.50 = 7.50: mon-fri 07:00-19:00`.
    pub fn in_words(&self, currency: Currency) -> String {
        let from = self.from.offset.to_datetime(self.from.timestamp).strftime("%Y-%m-%d %H:%M");
        let (total, reason) = (currency.show(self.total), &self.reason);
        match (self.units, self.each) {
            (1, _) => format!("{from} {total}: {reason}"),
            (units, Some(each)) => format!("{from} {units} × {} = {total}: {reason}", currency.show(each)),
            (units, None) => format!("{from} {units} units, {total}: {reason}"),
        }
    }
}

fn as_rfc_3339<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(moment)
}

/// A breakdown that is being written.
#[derive(Debug, Default)]
pub(super) struct Breakdown {
    pub(super) amount: Amount,
    rules: Vec<Rule>,
    lines: Vec<BreakdownRun>,
}

impl Breakdown {
    /// `units` at the price of `each`, by `rule`, made cheaper by the cap `held`.
    pub(super) fn add(&mut self, units: u64, each: Amount, rule: Rule, held: Option<Rule>) {
        if units == 0 {
            return;
        }
        let total = each.saturating_times(units);
        self.amount = self.amount.saturating_add(total);
        if self.lines.len() == Priced::LINES_MAX
            && let Some(rest) = self.lines.last_mut()
        {
            rest.units += units;
            rest.price = rest.price.saturating_add(total);
            return;
        }
        let line = BreakdownRun {
            units,
            price: each,
            rule: self.place_of(rule),
            held: held.map(|cap| self.place_of(cap)),
        };
        let is_last = self.lines.len() == Priced::LINES_MAX - 1;
        match self.lines.last_mut() {
            Some(last) if *last == (BreakdownRun { units: last.units, ..line }) => last.units += units,
            _ if is_last => {
                let rule = self.place_of(Rule::Rest);
                self.lines.push(BreakdownRun { units, price: total, rule, held: None });
            }
            _ => self.lines.push(line),
        }
    }

    fn place_of(&mut self, rule: Rule) -> u8 {
        let place = self.rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
            self.rules.push(rule);
            self.rules.len() - 1
        });
        u8::try_from(place).expect("a tariff has too few rules for that")
    }
}
