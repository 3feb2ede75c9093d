//! Turns entries of the billing views into lines of charges and of statements. See [`super::books`].
//!
//! The breakdown of a charge is not stored. It is computed from the entry, the exit and the tariff, which are stored.

use super::ledger::Ledger;
use super::view::billing::entries::{BilledStay, EntryKind, HeldBecause, Terms, VoidedBecause};
use super::view::billing::list::ListedEntry;
use super::view::billing::{CLOCKS_DIFFER_MS, UNREGISTERED};
use super::view::{Snapshot, StoredPassage, is_token};
use crate::parking::ChargeId;
use crate::parking::event::Moment;
use crate::parking::money::{VatRate, as_percent};
use crate::parking::statement::{self, Correction, StatementCar, StatementLine};
use crate::parking::tariff::{BreakdownLine, Money, Priced, Tariff};
use crate::server::record::Record;
use crate::store::StoreError;
use jiff::Timestamp;
use jiff::tz::Offset;
use serde::Serialize;

/// One entry, as `GET /v1/charges` shows it.
#[derive(Debug, Serialize)]
pub struct ChargeLine {
    pub id: String,
    /// `charge`, `void` or `credit`.
    pub kind: &'static str,
    /// Of a charge: `charged`, `voided`, `pending` or `held`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Of a void or a credit: the charge that it corrects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge: Option<String>,
    pub garage: String,
    pub plate: String,
    pub account: String,
    pub entered_at: String,
    pub left_at: String,
    /// What it adds to what the account owes.
    #[serde(flatten)]
    pub money: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_percent")]
    pub vat_percent: Option<VatRate>,
    pub tariff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    pub month: String,
    pub position: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breakdown: Vec<BreakdownLine>,
}

pub struct Reckoner<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
}

impl<'a> Reckoner<'a> {
    pub fn new(view: &'a Snapshot, ledger: &'a Ledger) -> Reckoner<'a> {
        Reckoner { view, ledger }
    }

    pub fn charge_id(&self, stay: &BilledStay) -> Result<ChargeId, StoreError> {
        Ok(ChargeId {
            garage: self.view.key_of_number(stay.garage).map(ToString::to_string).unwrap_or_default(),
            epoch: self.ledger.epoch_of(stay.exit.stream())?.to_bytes(),
            sequence: stay.exit.sequence,
            made_at: (stay.made_at != stay.exit.position).then_some(stay.made_at),
        })
    }

    fn called(&self, garage: u32) -> String {
        self.view.name_of_number(garage)
    }

    fn account(&self, number: u32) -> &str {
        let book = self.view.billing.account_book(number);
        book.map_or(UNREGISTERED, |book| book.name.as_str())
    }

    /// An entry's own id: that of the charge; a correction is known by its position, too.
    fn id(&self, listed: &ListedEntry) -> Result<(String, String), StoreError> {
        let charge = self.charge_id(stay_of(listed))?.to_string();
        let kind = match &listed.entry.what {
            EntryKind::Stay(_) => return Ok((charge.clone(), charge)),
            EntryKind::Void { .. } => "void",
            EntryKind::Credit { .. } => "credit",
        };
        Ok((format!("{charge}/{kind}@{}", listed.entry.position), charge))
    }

    fn tariff(&self, stay: &BilledStay) -> Option<&Tariff> {
        self.view.billing.in_force.tariff(stay.terms.by()?)
    }

    fn priced(&self, stay: &BilledStay) -> Option<Priced<'_>> {
        let Terms::Charged { .. } = stay.terms else { return None };
        let (entry, exit) = (stay.entry.timestamp()?, stay.exit.timestamp()?);
        self.tariff(stay)?.price(entry, exit.max(entry)).ok()
    }

    /// A moment with the offset of the garage's local time, where a tariff knows it.
    fn moment(&self, stay: &BilledStay, passage: StoredPassage) -> Moment {
        let told = Moment::from_ms(passage.at_ms, passage.offset_minutes);
        match self.tariff(stay) {
            Some(tariff) => Moment { offset: tariff.time_zone.to_offset(told.timestamp), ..told },
            None => told,
        }
    }

    /// What else explains what a stay costs.
    fn note(&self, stay: &BilledStay, priced: Option<&Priced<'_>>) -> Option<String> {
        match &stay.terms {
            Terms::Covered { contract, .. } => Some(format!("covered by the contract {contract}")),
            Terms::Charged { beyond: Some(contract), .. } => Some(format!(
                "one car too many for the contract {contract}: as many of its cars as it allows were inside already"
            )),
            Terms::Charged { .. } if (-CLOCKS_DIFFER_MS..0).contains(&(stay.exit.at_ms - stay.entry.at_ms)) => {
                Some("the exit is earlier than the entry by a little: two clocks differ, and the stay has no length".into())
            }
            Terms::Charged { .. } => priced.and_then(Priced::free_because),
            Terms::Pending => Some("no tariff has a price for it yet; when one has, \"server tariffs apply\" prices it".into()),
            Terms::CalendarIncomplete => Some(self.incomplete_calendar(stay).unwrap_or_else(|| {
                "the tariffs in force have a price for it now; \"server tariffs apply\" prices it".into()
            })),
            Terms::Held(HeldBecause::EndsBeforeItBegins) => {
                Some("it ended before it began and is not charged; \"server stays close\" sets another end".into())
            }
            Terms::Held(HeldBecause::TooLong) => {
                Some("it is longer than 30 days and is not charged; \"server stays bill\" charges it, \"server stays split\" divides it".into())
            }
        }
    }

    /// Which calendar a stay waits for, and on which day it needs it.
    fn incomplete_calendar(&self, stay: &BilledStay) -> Option<String> {
        let (entry, exit) = (stay.entry.timestamp()?, stay.exit.timestamp()?);
        let (_, tariff) = self.view.billing.in_force.tariff_for(&self.called(stay.garage), entry)?;
        let incomplete = tariff.price(entry, exit.max(entry)).err()?;
        Some(format!("it has no price yet: {incomplete}; then \"server tariffs apply\" prices it"))
    }

    /// Why a correction was made, by whom and when.
    fn why(&self, listed: &ListedEntry) -> Result<(String, String, i64), StoreError> {
        let by_plate = "the plate was corrected, which changed the stay".to_owned();
        Ok(match (self.ledger.record_at(listed.entry.position)?, &listed.entry.what) {
            (Some(Record::Command { received_at_ms, by, command }), what) => {
                let reason = match (command.reason(), what) {
                    (Some(reason), _) => reason,
                    // Of the commands that change a stay, only a release has no reason of its own.
                    (None, EntryKind::Void { why: VoidedBecause::StayChanged, .. }) => {
                        "an operator released an event of this stay from quarantine"
                    }
                    (None, _) => "",
                };
                (reason.to_owned(), by, received_at_ms)
            }
            (Some(Record::Page { received_at_ms, .. }), _) => {
                (by_plate, format!("garage {}", self.called(stay_of(listed).garage)), received_at_ms)
            }
            _ => (by_plate, String::new(), stay_of(listed).exit.at_ms),
        })
    }

    pub fn line(&self, listed: &ListedEntry) -> Result<ChargeLine, StoreError> {
        let stay = stay_of(listed);
        let (id, charge) = self.id(listed)?;
        let (money, vat) = listed.entry.money().unzip();
        let mut line = ChargeLine {
            id,
            kind: "charge",
            state: None,
            charge: None,
            garage: self.called(stay.garage),
            plate: stay.plate.to_string(),
            account: self.account(listed.entry.account).to_owned(),
            entered_at: self.moment(stay, stay.entry).to_string(),
            left_at: self.moment(stay, stay.exit).to_string(),
            money,
            vat_percent: vat.flatten(),
            tariff: self.tariff(stay).map(|tariff| tariff.name.clone()),
            contract: None,
            note: None,
            reason: None,
            by: None,
            month: listed.entry.month.to_string(),
            position: listed.entry.position,
            breakdown: Vec::new(),
        };
        match &listed.entry.what {
            EntryKind::Stay(stay) => {
                let priced = self.priced(stay);
                line.state = Some(match (&stay.terms, listed.entry.settled_by) {
                    (Terms::Pending | Terms::CalendarIncomplete, _) => "pending",
                    (Terms::Held(_), _) => "held",
                    (_, 0) => "charged",
                    _ => "voided",
                });
                if let Terms::Covered { contract, .. } | Terms::Charged { beyond: Some(contract), .. } =
                    &stay.terms
                {
                    line.contract = Some(contract.to_string());
                }
                line.note = self.note(stay, priced.as_ref());
                line.breakdown = priced.map(|priced| priced.breakdown()).unwrap_or_default();
            }
            EntryKind::Void { .. } | EntryKind::Credit { .. } => {
                line.kind =
                    if matches!(listed.entry.what, EntryKind::Void { .. }) { "void" } else { "credit" };
                let (reason, by, _) = self.why(listed)?;
                (line.charge, line.reason, line.by) = (Some(charge), Some(reason), Some(by));
            }
        }
        Ok(line)
    }

    /// A line of a statement; none for what has no price.
    pub fn statement_line(&self, listed: &ListedEntry) -> Result<Option<StatementLine>, StoreError> {
        let Some((money, vat)) = listed.entry.money() else { return Ok(None) };
        let stay = stay_of(listed);
        let (id, charge) = self.id(listed)?;
        let entry = match &listed.entry.what {
            EntryKind::Stay(stay) => {
                let priced = self.priced(stay);
                let breakdown = priced.iter().flat_map(Priced::breakdown);
                statement::StatementEntry::Charge(statement::StatementStay {
                    garage: self.called(stay.garage),
                    car: match is_token(&stay.plate) {
                        true => StatementCar::Token(stay.plate.to_string()),
                        false => StatementCar::Plate(stay.plate.to_string()),
                    },
                    entry: self.moment(stay, stay.entry),
                    exit: self.moment(stay, stay.exit),
                    tariff: self.tariff(stay).map(|tariff| tariff.name.clone()).unwrap_or_default(),
                    breakdown: breakdown.map(|line| line.in_words(money.currency)).collect(),
                    note: self.note(stay, priced.as_ref()),
                })
            }
            what => {
                let (reason, by, at_ms) = self.why(listed)?;
                // People write no milliseconds.
                let at = Timestamp::from_second(at_ms.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH);
                let offset = self.tariff(stay).map_or(Offset::UTC, |tariff| tariff.time_zone.to_offset(at));
                let at = Moment { timestamp: at, offset };
                let correction = Correction { charge, reason, by, at };
                match what {
                    EntryKind::Void { .. } => statement::StatementEntry::Void(correction),
                    _ => statement::StatementEntry::Credit(correction),
                }
            }
        };
        Ok(Some(StatementLine { id, amount: money, vat, entry }))
    }
}

fn stay_of(listed: &ListedEntry) -> &BilledStay {
    match &listed.about.what {
        EntryKind::Stay(stay) => stay,
        _ => unreachable!("a correction is about a stay"),
    }
}
