//! The flags and commands of `server`, as its help shows them.

use super::alarms::{ALARMS_HELP, AlarmsCommand};
use super::certs::{CERTS_HELP, CertsCommand};
use super::document_flags::{DOCUMENTS_HELP, DocumentsCommand, STATEMENTS_HELP, StatementsCommand};
use super::money_flags::*;
use super::payment_flags::{JOURNAL_HELP, JournalCommand, PAYMENTS_HELP, PaymentsCommand};
use crate::cli::audit::AuditFlags;
use crate::cli::tokens::TokensCommand;
use crate::cli::{OutputFlags, examples};
use crate::config::ServerSettings;
use crate::messaging::SiteName;
use crate::parking::moment::MomentError;
use crate::parking::register::Account;
use crate::parking::table::date;
use crate::parking::{ChargeId, EventId, Moment, Plate};
use crate::server::record::QuarantinePlace;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "server", version, about = ABOUT, max_term_width = 100, after_help = AFTER_HELP)]
pub(super) struct ServerFlags {
    #[command(flatten)]
    pub settings: ServerSettings,
    /// Configuration file; its tables [server] and [operator] and its tariffs are read [default: none]
    #[arg(long, global = true, value_name = "FILE", env = "FOGPOST_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Without a command, the server runs until it is stopped
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
}

// Not a doc comment of the flags: the flattened settings would replace it.
const ABOUT: &str = "Applies the events of all garages exactly once, counts free spaces and charges stays";

const AFTER_HELP: &str = examples!(
    "  server                                             Run with data/server and the default addresses
  server --listen tls://0.0.0.0:5555 --config c.toml Run for edges elsewhere, with tariffs
  server verify                                      Check everything that is stored"
);

/// What to do instead of serving.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ServerCommand {
    /// List, rename, close or decommission garages, set their capacity, and resolve conflicts
    #[command(subcommand, after_help = GARAGES_HELP)]
    Garages(GaragesCommand),
    /// List events that were accepted but could not be applied, and release or discard them
    #[command(subcommand, after_help = QUARANTINE_HELP)]
    Quarantine(QuarantineCommand),
    /// Check tariffs, price a stay by them, show those in force, or put others in force
    #[command(subcommand, after_help = TARIFFS_HELP)]
    Tariffs(TariffsCommand),
    /// Manage registered plates: the account to which the stays of each are charged, by date
    #[command(subcommand, after_help = PLATES_HELP)]
    Plates(PlatesCommand),
    /// Manage customers: who is billed for an account, under which address
    #[command(subcommand, after_help = ACCOUNTS_HELP)]
    Accounts(AccountsCommand),
    /// Manage season tickets: which plates may park where without paying, and how many of them at once
    #[command(subcommand, after_help = CONTRACTS_HELP)]
    Contracts(ContractsCommand),
    /// List charges, and correct them
    #[command(subcommand, after_help = CHARGES_HELP)]
    Charges(ChargesCommand),
    /// List what people decided about charges, and take decisions back
    #[command(subcommand, after_help = DECISIONS_HELP)]
    Decisions(DecisionsCommand),
    /// Print what accounts and cars owe for a month, and issue documents
    #[command(subcommand, after_help = STATEMENTS_HELP)]
    Statements(StatementsCommand),
    /// List invoices and credit notes, show and export them
    #[command(subcommand, after_help = DOCUMENTS_HELP)]
    Documents(DocumentsCommand),
    /// Record payments, list them and what they pay, and reverse one
    #[command(subcommand, after_help = PAYMENTS_HELP)]
    Payments(PaymentsCommand),
    /// Export documents and payments as bookings
    #[command(subcommand, after_help = JOURNAL_HELP)]
    Journal(JournalCommand),
    /// List stays that do not add up, and repair them
    #[command(subcommand, after_help = STAYS_HELP)]
    Stays(StaysCommand),
    /// Make the certificates for tls:// addresses: an authority, the server's, those of edges; revoke and list them
    #[command(subcommand, after_help = CERTS_HELP)]
    Certs(CertsCommand),
    /// Make, list and revoke the tokens that requests over HTTP need
    #[command(subcommand, after_help = TOKENS_HELP)]
    Tokens(TokensCommand),
    /// List the alarms of a running server, silence them, or try out who is notified
    #[command(subcommand, after_help = ALARMS_HELP)]
    Alarms(AlarmsCommand),
    /// List who did what: commands, sign-ins and refused attempts
    Audit(AuditFlags),
    /// Replace the plates of stays that ended before a day with random tokens, also of those that arrive later. Accounts, amounts,
    /// dates and garages are kept. "compact" removes the plates from the events, too
    #[command(after_help = FORGET_HELP)]
    Forget {
        /// Plate to forget
        #[arg(value_parser = Plate::new, required_unless_present = "account", conflicts_with = "account")]
        plate: Option<Plate>,
        /// Forget the plates of all stays that this account pays
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        account: Option<Account>,
        /// Only in stays that ended before this day [default: tomorrow]
        #[arg(long, value_name = "DATE", value_parser = date)]
        before: Option<Date>,
    },
    /// Write the ledger of a stopped server into a new directory, without the forgotten plates
    Compact {
        /// New directory: it must not exist, or be empty
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Read the whole ledger, rebuild the views from it and compare. Reports what is wrong, where, and what to do. Changes
    /// nothing
    Verify(OutputFlags),
    /// Explain a code of a problem, an anomaly, an error or a log line: what happened, what it means for the data, what to do
    Explain {
        /// Code, such as entry_while_open [default: list all]
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// Drop the views, so that the next start rebuilds them from the ledger. The server must be stopped
    #[command(alias = "refold")]
    RebuildViews,
    /// Copy the ledger into a new directory, also while the server runs. To restore: server --data-dir DIR
    Backup {
        /// New directory: it must not exist, or be empty
        #[arg(value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        output: OutputFlags,
    },
}

const TOKENS_HELP: &str = examples!(
    "  server tokens add monitoring --role read
  server tokens add ada --role money
  server tokens revoke ada"
);

const GARAGES_HELP: &str = examples!(
    "  server garages list
  server garages rename \"Bull Ring\" \"Bull Ring North\"
  server garages capacity \"Bull Ring\" 577
  server garages close \"Bull Ring\" --reason flood --until 2026-11-24T06:00:00+01:00"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum GaragesCommand {
    /// List all garages
    List(OutputFlags),
    /// Rename a garage. Its edge may keep the old name
    Rename {
        /// Current name of the garage
        #[arg(allow_hyphen_values = true)]
        old: SiteName,
        /// New name of the garage
        #[arg(allow_hyphen_values = true)]
        new: SiteName,
    },
    /// Remove a garage from boards and from the city's numbers. Events that still arrive are applied and reported
    Decommission {
        /// Name of the garage
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
        /// Put the garage back on boards and into the city's numbers
        #[arg(long)]
        undo: bool,
    },
    /// Resolve a conflict by accepting both sides: the edge moves its undelivered events to a new epoch
    Adopt {
        /// Name of the garage
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
    },
    /// Set the number of parking spaces of a garage; it counts instead of the number that its edge reports
    Capacity {
        /// Name of the garage
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
        /// Number of parking spaces
        #[arg(value_name = "SPACES", required_unless_present = "as_told", conflicts_with = "as_told")]
        spaces: Option<u32>,
        /// Use the number that the edge reports
        #[arg(long)]
        as_told: bool,
    },
    /// Show a garage as closed, by command: its own events and its opening hours do not count
    Close(ShowAsFlags),
    /// Show a garage as open, or as full when it is, by command: its own events and its opening hours do not count
    Open(ShowAsFlags),
    /// Take "close" and "open" back: the garage's own events and its opening hours decide again
    Automatic {
        /// Name of the garage
        #[arg(allow_hyphen_values = true)]
        name: SiteName,
    },
}

#[derive(Debug, PartialEq, Eq, Args)]
pub struct ShowAsFlags {
    /// Name of the garage
    #[arg(allow_hyphen_values = true)]
    pub name: SiteName,
    /// Reason, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Time until which it holds, such as 2026-11-24T06:00:00+01:00 [default: until "garages automatic"]
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub until: Option<Timestamp>,
}

const QUARANTINE_HELP: &str = examples!(
    "  server quarantine list
  server quarantine release 184220.3
  server quarantine discard 184220.3 --reason \"test events of the installer\""
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum QuarantineCommand {
    /// List the events in quarantine
    List {
        /// Only events after this place [default: from the first]
        #[arg(long, value_name = "POSITION[.INDEX]")]
        after: Option<QuarantinePlace>,
        /// Maximum number of events
        #[arg(long, value_name = "EVENTS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Apply events in quarantine, if this version can apply them
    Release {
        /// Place as "quarantine list" shows it; without an index, all events of the page
        #[arg(value_name = "POSITION[.INDEX]")]
        place: QuarantinePlace,
    },
    /// Discard events in quarantine. Their bytes and the reason stay in the ledger
    Discard {
        /// Place as "quarantine list" shows it; without an index, all events of the page
        #[arg(value_name = "POSITION[.INDEX]")]
        place: QuarantinePlace,
        /// The reason, for people who ask later
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}

const FORGET_HELP: &str = examples!(
    "  server forget B-AB123
  server forget --account miller --before 2026-01-01"
);

const TARIFFS_HELP: &str = examples!(
    "  server tariffs check examples/tariffs.toml
  server tariffs price --config c.toml --garage 1 --entry 2026-11-23T08:15:00+01:00 --exit 2026-11-23T11:20:00+01:00
  server tariffs put c.toml --retroactive --dry-run"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum TariffsCommand {
    /// Check a configuration file and its tariffs. Reports the line and the reason of each mistake, and exits with 64 if there is
    /// one
    Check {
        /// Configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Price a stay by the tariffs of --config, and show the breakdown
    Price {
        /// Garage of the stay
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        garage: SiteName,
        /// Time of entry, such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = timestamp)]
        entry: Timestamp,
        /// Time of exit
        #[arg(long, value_name = "TIME", value_parser = timestamp)]
        exit: Timestamp,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Put the tariffs of a configuration file in force. What would change prices that exist is refused, unless --retroactive
    /// allows it
    Put {
        /// Configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Change prices of stays that have ended
        #[arg(long)]
        retroactive: bool,
        /// Only show what changes
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Print the tariffs that are in force, as a configuration file has them
    Show,
}

fn timestamp(text: &str) -> Result<Timestamp, MomentError> {
    Moment::parse(text).map(|moment| moment.timestamp)
}

const STAYS_HELP: &str = examples!(
    "  server stays review
  server stays join 1/d5947e0f-1414-4ac6-8009-21147bb78df6/7 1/d5947e0f-1414-4ac6-8009-21147bb78df6/9 --reason \"O was read as 0\"
  server stays close 1/d5947e0f-1414-4ac6-8009-21147bb78df6/7 --left 2026-11-23T08:15:00+01:00 --reason \"barrier open\""
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum StaysCommand {
    /// List what may need a repair, each with the command for it
    Review(OutputFlags),
    /// Join an entry and an exit to one stay, because a plate was misread
    Join {
        /// Event id of the entry, as "review" shows it: GARAGE/EPOCH/SEQUENCE
        #[arg(allow_hyphen_values = true)]
        entry: EventId,
        /// Event id of the exit
        #[arg(allow_hyphen_values = true)]
        exit: EventId,
        /// The reason, which the books keep
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// End a stay whose exit was not seen, at the time at which the car left. The stay is then charged by its length
    Close {
        /// Event id of the entry: GARAGE/EPOCH/SEQUENCE
        #[arg(allow_hyphen_values = true)]
        entry: EventId,
        /// Time at which the car left, such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
        left: Moment,
        /// The reason, which the books keep
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// Split a stay during which the car left and came back unseen. Each part is charged separately
    Split {
        /// Event id of the entry: GARAGE/EPOCH/SEQUENCE
        #[arg(allow_hyphen_values = true)]
        entry: EventId,
        /// Time at which the car left, such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
        left: Moment,
        /// Time at which it entered again
        #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
        entered: Moment,
        /// The reason, which the books keep
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// Charge a stay of more than 30 days as it is
    Bill {
        /// Id of the charge, as "server charges list" shows it
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// The reason, which the books keep
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}
