//! The flags of `server statements` and `documents`.

use super::money_flags::{StatementFormat, StatementOf};
use crate::cli::{OutputFlags, examples};
use crate::parking::register::Account;
use crate::parking::table::date;
use crate::parking::{Month, Plate};
use clap::{Args, Subcommand};
use jiff::civil::Date;
use std::path::PathBuf;

pub const STATEMENTS_HELP: &str = examples!(
    "  server statements show miller --month 2026-11
  server statements show B-AB123 --month 2026-11 --format html
  server statements issue --month 2026-11 --dry-run
  server statements issue --month 2026-11"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum StatementsCommand {
    /// Issue invoices and credit notes for all that is due, and list what keeps the month open
    Issue(IssueFlags),
    /// Print the documents of an account or a car for a month; before they are issued, a draft
    Show {
        /// Account or plate
        #[arg(value_name = "ACCOUNT_OR_PLATE", allow_hyphen_values = true)]
        whose: String,
        /// Local month of the exits, such as 2026-11
        #[arg(long)]
        month: Month,
        /// Format of the statement
        #[arg(long, value_enum, default_value_t = StatementFormat::Text)]
        format: StatementFormat,
        /// How to read the name when it is both an account and a plate [default: account]
        #[arg(long, value_enum)]
        of: Option<StatementOf>,
    },
}

#[derive(Debug, PartialEq, Eq, Args)]
pub struct IssueFlags {
    /// Local month; all that is due with an exit in it or before is issued, once it has ended
    #[arg(long)]
    pub month: Month,
    /// Only for this account [default: all accounts]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with = "plate")]
    pub account: Option<Account>,
    /// For a car that nobody registered
    #[arg(long, value_parser = Plate::new)]
    pub plate: Option<Plate>,
    /// Date of issue [default: today]
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub date: Option<Date>,
    /// Only show which documents would be issued
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputFlags,
}

pub const DOCUMENTS_HELP: &str = examples!(
    "  server documents list --account miller
  server documents list --open --days 30
  server documents show 2026-000007 --format html
  server documents export --month 2026-11 --out documents
  server documents import data/server-documents --dry-run
  server documents resume --last 1842 --reason \"lost with the disk\""
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum DocumentsCommand {
    /// List invoices and credit notes
    List {
        /// Only those of this account [default: all]
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        account: Option<Account>,
        /// Only those issued for this month [default: all]
        #[arg(long)]
        month: Option<Month>,
        /// Only those that are not paid
        #[arg(long)]
        open: bool,
        /// Only those that are due since at least this many days [default: all that are open]
        #[arg(long, requires = "open", allow_negative_numbers = true)]
        days: Option<i32>,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Print a document as it was issued
    Show {
        /// Its number, such as 2026-000007
        #[arg(allow_hyphen_values = true)]
        number: String,
        /// Format of the document
        #[arg(long, value_enum, default_value_t = StatementFormat::Text)]
        format: StatementFormat,
    },
    /// Write documents as text, JSON, CSV and HTML, and as files that another server takes over
    Export {
        /// Numbers of documents [default: all]
        #[arg(allow_hyphen_values = true)]
        numbers: Vec<String>,
        /// Only those issued for this month [default: all]
        #[arg(long, conflicts_with = "numbers")]
        month: Option<Month>,
        /// Directory for the files
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Bring documents back that the ledger lacks: those that were issued after the backup that the server runs on, or that are damaged.
    /// Known ones are skipped. After a backup, a whole directory also unlocks issuing
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// Documents directory or a copy of it, or one file; on the server's machine
        #[arg(value_name = "DIR")]
        path: String,
        /// Only show which documents would be brought back
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Record the numbers after the last that is known as lost, and go on after them. It cannot be taken back
    #[command(after_help = RESUME_HELP)]
    Resume {
        /// Last number that was given, as its place in the series: 7 for 2026-000007
        #[arg(long, value_name = "N")]
        last: u64,
        /// The reason, which the books keep
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
        /// Only say whether it is possible
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputFlags,
    },
}

const IMPORT_HELP: &str = examples!(
    "  server documents import data/server-documents --dry-run
  server documents import /mnt/copies/server-documents
  server documents import data/server-documents/2026-000007.fogpost"
);

const RESUME_HELP: &str = examples!(
    "  server documents resume --last 1842 --reason \"lost with the disk\" --dry-run
  server documents resume --last 1842 --reason \"lost with the disk\"
  server documents resume --last 0 --reason \"nothing was issued yet\""
);
