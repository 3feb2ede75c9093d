//! Payments from a file: read, and compared with what was imported before, so that only what is new is recorded.

use super::put::in_pieces;
use crate::parking::money::{Money, MoneySums};
use crate::parking::payment::{self, PaymentId, read_payments};
use crate::parking::receivables::ImportPlan;
use crate::server::record::Command;
use crate::server::view::at_one_position;
use crate::server::view::billing::receivables::ReceivablesRows;
use crate::store::Store;
use jiff::civil::Date;
use serde::Serialize;
use std::sync::Mutex;

/// How many lines about single payments an answer has at most, of each kind.
const LINES_SHOWN: usize = 10_000;

/// What an import records, and what becomes of each payment, as operators read it.
#[derive(Debug, Serialize)]
pub struct PreparedPayments {
    /// How many payments are new.
    pub payments: usize,
    /// The numbers that they get; `null` where there is none.
    pub first: Option<PaymentId>,
    pub last: Option<PaymentId>,
    /// Their sum in each currency.
    pub amounts: Vec<Money>,
    /// The lines that are not imported, with the reasons.
    pub skipped: Vec<String>,
    pub skipped_total: usize,
    /// The payments that pay no document for now, with the reasons.
    pub waiting: Vec<String>,
    pub waiting_total: usize,
    /// About the file: the columns that are not used.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub pieces: Vec<Vec<u8>>,
    #[serde(skip)]
    pub command: Command,
}

/// Reads a file, and compares it with what is written of the payments. `saving` is that of a running server. `Err`: every bad line;
/// nothing was recorded.
pub fn prepare(
    (store, saving): (&Store, Option<&Mutex<()>>),
    csv: &str,
    today: Date,
) -> Result<PreparedPayments, String> {
    let file = read_payments(csv, today).map_err(|error| error.to_string())?;
    let rows = ReceivablesRows::on(store);
    let read = || rows.read(|rows| Ok((rows.plan_import(&file)?, rows.counters()?.payments)));
    let (_, (plan, known)) = at_one_position(store, saving, read).map_err(|error| error.to_string())?;
    let ImportPlan { payments, skipped, waiting } = plan;
    let (pieces, count, digest) = in_pieces(payment::to_bytes(&payments));
    let is_any = !payments.is_empty();
    let mut sums = MoneySums::default();
    payments.iter().for_each(|payment| sums.add(payment.money));
    Ok(PreparedPayments {
        payments: payments.len(),
        first: is_any.then_some(PaymentId(known + 1)),
        last: is_any.then_some(PaymentId(known + payments.len() as u64)),
        amounts: sums.list(),
        skipped: skipped.iter().take(LINES_SHOWN).map(ToString::to_string).collect(),
        skipped_total: skipped.len(),
        waiting: waiting.iter().take(LINES_SHOWN).map(|(line, why)| format!("line {line}: {why}")).collect(),
        waiting_total: waiting.len(),
        warnings: file.warnings,
        pieces,
        command: Command::Payments { pieces: count, digest },
    })
}
