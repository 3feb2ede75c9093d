//! What a stay costs and why, unit by unit. It follows from the tariff, the entry and the exit, so nothing stores it.

use super::{Amount, Money, Span, Tariff, TimeWindow, VatRate};
use crate::parking::Moment;
use crate::parking::moment::millisecond_of;
use crate::parking::money::as_percent;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// The price of a stay with its breakdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced<'t> {
    pub tariff: &'t Tariff,
    pub amount: Amount,
    /// The rate of the local date of the exit. `None`: the tariff has no VAT.
    pub vat: Option<VatRate>,
    /// Why there are no units.
    pub free: Option<Free>,
    entry_second: i64,
    runs: Vec<BreakdownRun>,
}

/// Why a stay has no units, and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    NoTime,
    Grace { minutes: u32 },
}

/// What a unit costs by, or what holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BreakdownRun {
    units: u64,
    /// Of each unit; of all together under [`Rule::Rest`].
    price: Amount,
    rule: Rule,
    /// The cap that made them cheaper.
    held: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakdownLine {
    /// The first unit's number in the stay, from 1.
    pub unit: u64,
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

impl<'t> Priced<'t> {
    /// The most lines of a breakdown. What comes behind is one line.
    pub const LINES_MAX: usize = 300;

    pub(super) fn new(
        tariff: &'t Tariff,
        entry_second: i64,
        free: Option<Free>,
        vat: Option<VatRate>,
    ) -> Priced<'t> {
        Priced { tariff, amount: Amount::ZERO, vat, free, entry_second, runs: Vec::new() }
    }

    /// Adds `units` at the price of `each`, by `rule`, made cheaper by the cap `held`.
    pub(super) fn add(&mut self, units: u64, each: Amount, rule: Rule, held: Option<Rule>) {
        if units == 0 {
            return;
        }
        let total = each.saturating_times(units);
        self.amount = self.amount.saturating_add(total);
        let run = BreakdownRun { units, price: each, rule, held };
        let count = self.runs.len();
        match self.runs.last_mut() {
            Some(rest) if count == Self::LINES_MAX => {
                rest.units += units;
                rest.price = rest.price.saturating_add(total);
            }
            Some(last) if *last == (BreakdownRun { units: last.units, ..run }) => last.units += units,
            _ if count == Self::LINES_MAX - 1 => {
                self.runs.push(BreakdownRun { units, price: total, rule: Rule::Rest, held: None });
            }
            _ => self.runs.push(run),
        }
    }

    pub fn money(&self) -> Money {
        Money { amount: self.amount, currency: self.tariff.currency }
    }

    /// How many units were charged, those at no price among them.
    pub fn units(&self) -> u64 {
        self.runs.iter().map(|run| run.units).sum()
    }

    pub fn free_because(&self) -> Option<String> {
        self.free.map(|free| match free {
            Free::NoTime => "it did not last".to_owned(),
            Free::Grace { minutes } => format!("a stay of at most {minutes} minutes costs nothing"),
        })
    }

    pub fn breakdown(&self) -> Vec<BreakdownLine> {
        let unit_seconds = 60 * i64::from(self.tariff.unit_minutes);
        let mut before = 0u64;
        let lines = self.runs.iter().map(|run| {
            let from = Timestamp::from_second(self.entry_second + before as i64 * unit_seconds);
            let (each, total) = match run.rule {
                Rule::Rest => (None, run.price),
                _ => (Some(run.price), run.price.saturating_times(run.units)),
            };
            let mut reason = self.words(run.rule);
            if let Some(cap) = run.held {
                reason = format!("{reason}, held by {}", self.words(cap));
            }
            let from = self.at_the_garage(from.unwrap_or(Timestamp::MAX));
            let unit = before + 1;
            before += run.units;
            BreakdownLine { unit, units: run.units, from, each, total, reason }
        });
        lines.collect()
    }

    fn at_the_garage(&self, at: Timestamp) -> Moment {
        Moment { timestamp: at, offset: self.tariff.time_zone.to_offset(at) }
    }

    /// A moment as RFC 3339 has it, with the offset of the place.
    pub fn local(&self, at: Timestamp) -> String {
        self.at_the_garage(at).to_string()
    }

    pub fn to_json(&self) -> Value {
        json!({
            "amount": self.amount,
            "currency": self.tariff.currency,
            "tariff": self.tariff.name,
            "valid_from": self.tariff.valid_from,
            "vat_percent": as_percent(&self.vat, serde_json::value::Serializer).unwrap_or_default(),
            "units": self.units(),
            "free": self.free_because(),
            "breakdown": self.breakdown(),
        })
    }

    fn words(&self, rule: Rule) -> String {
        match rule {
            Rule::First => "first units".to_owned(),
            Rule::PerUnit(window) => window.to_string(),
            Rule::Flat(window) => format!("flat for {window}"),
            Rule::FlatPaid(window) => format!("flat for {window}, paid"),
            Rule::Cap(span, amount) => {
                let most = Money { amount, currency: self.tariff.currency };
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

fn as_rfc_3339<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(moment)
}
