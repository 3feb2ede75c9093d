//! Statements: what one customer owes for one month, as values and as something to send.
//!
//! **Promise.** A [`Statement`] that exists adds up: for each currency and VAT rate its gross is the sum of its lines, its
//! VAT is computed once on that sum, and net and VAT make the gross, to the minor unit. Text, JSON, CSV and HTML show the
//! same lines and totals, and the same statement gives the same bytes. What people wrote (names, reasons, tariffs) is shown
//! as text: it is never markup in the page, and never a formula in a spreadsheet.
//! **Kept by.** Totals come from the lines alone, in checked integers, when the statement is made; renderers only show.
//! **Not promised.** That the lines are all that belong to the month: the caller chooses them and their
//! order, which is kept. A date of issue: nothing here reads a clock.

mod carried;
mod csv;
mod html;
pub mod journal;
mod json;
pub mod overview;
#[cfg(test)]
#[path = "tests/samples.rs"]
mod samples;
mod text;
mod totals;

pub use super::month::{Month, MonthError};
pub use json::StatementJson;
pub use totals::{RateTotal, StatementError, Total};

use super::document::{escape, words};
use super::event::Moment;
use super::money::{Money, VatRate};
use super::sheet;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    pub name: String,
    pub address: Vec<String>,
    pub vat_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Customer {
    Account {
        account: String,
        /// What the customer is called, when the registry says it.
        name: Option<String>,
    },
    /// The stays of one car, of all accounts to which they are billed.
    Plate(String),
}

impl Customer {
    pub fn id(&self) -> &str {
        match self {
            Customer::Account { account, .. } => account,
            Customer::Plate(plate) => plate,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementHead {
    pub operator: Operator,
    pub customer: Customer,
    /// The local month of the exits.
    pub month: Month,
    /// The running number within the account; `None` without one, as in the statement of one plate.
    pub number: Option<u32>,
    /// The position of the books that the statement shows.
    pub position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementCar {
    Plate(String),
    /// Its plate was forgotten; a random token stands for it.
    Token(String),
    Unknown,
}

impl StatementCar {
    pub fn label(&self) -> Option<&str> {
        match self {
            StatementCar::Plate(text) | StatementCar::Token(text) => Some(text),
            StatementCar::Unknown => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementStay {
    pub garage: String,
    pub car: StatementCar,
    /// With the offset of the garage's local time.
    #[serde(with = "carried::moment")]
    pub entry: Moment,
    #[serde(with = "carried::moment")]
    pub exit: Moment,
    pub tariff: String,
    /// How the amount came about, line by line.
    pub breakdown: Vec<String>,
    /// What else explains the amount: free by a contract, one car too many.
    pub note: Option<String>,
}

/// A later decision about a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    pub charge: String,
    pub reason: String,
    pub by: String,
    #[serde(with = "carried::moment")]
    pub at: Moment,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementEntry {
    Charge(StatementStay),
    /// Takes a whole charge back.
    Void(Correction),
    /// Gives a part back.
    Credit(Correction),
}

impl StatementEntry {
    pub fn kind(&self) -> &'static str {
        match self {
            StatementEntry::Charge(_) => "charge",
            StatementEntry::Void(_) => "void",
            StatementEntry::Credit(_) => "credit",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLine {
    pub id: String,
    /// What it adds to the debt: negative for what is given back.
    pub amount: Money,
    /// The rate that the amount includes; `None`: outside of VAT.
    pub vat: Option<VatRate>,
    pub entry: StatementEntry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    head: StatementHead,
    lines: Vec<StatementLine>,
    totals: Vec<Total>,
}

impl Statement {
    /// Adds up `lines`, whose order is kept. On `Err` a sum does not fit into an `i64`, or lines contradict each other.
    pub fn new(head: StatementHead, lines: Vec<StatementLine>) -> Result<Statement, StatementError> {
        let totals = totals::add_up(&lines)?;
        Ok(Statement { head, lines, totals })
    }

    pub fn head(&self) -> &StatementHead {
        &self.head
    }
    pub fn lines(&self) -> &[StatementLine] {
        &self.lines
    }
    /// For each currency, in the order of their codes.
    pub fn totals(&self) -> &[Total] {
        &self.totals
    }
}
