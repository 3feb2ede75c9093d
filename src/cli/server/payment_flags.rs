//! The flags of the commands about payments and the journal.

use super::money_flags::ImportFlags;
use crate::cli::{OutputFlags, examples};
use crate::parking::payment::PaymentId;
use crate::parking::register::Account;
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

pub const PAYMENTS_HELP: &str = examples!(
    "  server payments import bank.csv --dry-run
  server payments list --unallocated
  server payments undo 17"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum PaymentsCommand {
    /// Record the payments of a CSV file with the columns number,account,amount,currency,date,reference: all that are new, or none.
    /// A payment with the same number, amount, date and reference as an earlier one is skipped. A payment whose document is not
    /// known waits as unallocated
    Import(ImportFlags),
    /// List payments, oldest first, and what became of each
    List {
        /// Only those of this account [default: all]
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        account: Option<Account>,
        /// Only money that pays no document: payments that wait, and what was paid too much
        #[arg(long)]
        unallocated: bool,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Reverse a payment today: what it paid is open again. The payment stays in the list
    Undo {
        /// Number of the payment, as "server payments list" shows it
        payment: PaymentId,
        /// Only say whether it can be reversed
        #[arg(long)]
        dry_run: bool,
    },
}

pub const JOURNAL_HELP: &str = examples!(
    "  server journal export --out journal-1.csv
  server journal export --after 1842 --out journal-2.csv
  server journal export --format hledger --out fogpost.journal"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum JournalCommand {
    /// Write the bookings after a number, and say the number of the last: the next export begins after it, so that each booking is
    /// exported once
    Export {
        /// Number of the last booking that was exported before
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// Format of the bookings
        #[arg(long, value_enum, default_value_t = JournalFormat::Csv)]
        format: JournalFormat,
        /// File to write; one of the same name is replaced when all is written [default: stdout]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// How bookings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JournalFormat {
    /// A row for each line of a booking, for spreadsheets and bookkeeping programs
    Csv,
    /// For hledger and other programs of plain-text accounting
    Hledger,
}
