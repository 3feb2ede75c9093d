//! The flags and commands of `server`, as its help shows them.

use crate::cli::{OutputFlags, examples};
use crate::config::ServerSettings;
use crate::messaging::SiteName;
use crate::parking::moment::MomentError;
use crate::parking::register::Account;
use crate::parking::statement::Month;
use crate::parking::{ChargeId, EventId, Moment, Plate};
use crate::server::record::QuarantinePlace;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
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
  server --listen tcp://0.0.0.0:5555 --config c.toml Run for edges elsewhere, with tariffs
  server verify                                      Check everything that is stored"
);

/// What to do instead of serving.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ServerCommand {
    /// List, rename or decommission garages, set their capacity, and resolve conflicts
    #[command(subcommand, after_help = GARAGES_HELP)]
    Garages(GaragesCommand),
    /// List events that were accepted but could not be applied, and release or discard them
    #[command(subcommand, after_help = QUARANTINE_HELP)]
    Quarantine(QuarantineCommand),
    /// Check tariffs, price a stay by them, show those in force, or price stays that wait for a tariff
    #[command(subcommand, after_help = TARIFFS_HELP)]
    Tariffs(TariffsCommand),
    /// Manage registered plates: the account to which the stays of each are charged
    #[command(subcommand, after_help = PLATES_HELP)]
    Plates(PlatesCommand),
    /// Manage season tickets: which plates may park where without paying, and how many of them at once
    #[command(subcommand, after_help = CONTRACTS_HELP)]
    Contracts(ContractsCommand),
    /// List charges, and correct them
    #[command(subcommand, after_help = CHARGES_HELP)]
    Charges(ChargesCommand),
    /// Print or export what accounts and cars owe for a month
    #[command(subcommand, after_help = STATEMENTS_HELP)]
    Statements(StatementsCommand),
    /// List stays that do not add up, and repair them
    #[command(subcommand, after_help = STAYS_HELP)]
    Stays(StaysCommand),
    /// Replace a plate with a random token in stays and charges. Amounts, dates and garages are kept. "compact" removes the plate
    /// from the events, too
    Forget {
        /// Plate to forget
        #[arg(value_parser = Plate::new)]
        plate: Plate,
    },
    /// Write the ledger of a stopped server into a new directory, without the forgotten plates
    Compact {
        /// New directory: it must not exist, or be empty
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Export the statements of a month as double entries for a bookkeeper
    #[command(subcommand, after_help = JOURNAL_HELP)]
    Journal(JournalCommand),
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

const GARAGES_HELP: &str = examples!(
    "  server garages list
  server garages rename \"Bull Ring\" \"Bull Ring North\"
  server garages capacity \"Bull Ring\" 577"
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

const TARIFFS_HELP: &str = examples!(
    "  server tariffs check examples/tariffs.toml
  server tariffs price --config c.toml --garage 1 --entry 2026-11-23T08:15:00+01:00 --exit 2026-11-23T11:20:00+01:00
  server tariffs show"
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
    /// Price the stays that wait because no tariff was in force for them. Before that, add the tariff to the file of --config and
    /// restart the server
    Apply,
    /// Print the tariffs that are in force, as a configuration file has them
    Show,
}

fn timestamp(text: &str) -> Result<Timestamp, MomentError> {
    Moment::parse(text).map(|moment| moment.timestamp)
}

const PLATES_HELP: &str = examples!(
    "  server plates import plates.csv --dry-run
  server plates add B-AB123 miller \"Miller Logistik GmbH\"
  server plates remove B-AB123"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum PlatesCommand {
    /// Register the plates of a CSV file with the columns plate,account,name. Shows the changes, then records all of them or
    /// none. Registered plates that are not in the file are kept
    Import(ImportFlags),
    /// List the registered plates
    List(OutputFlags),
    /// Register one plate, or change the account to which it is charged. Earlier charges stay with their account
    Add {
        /// Plate to register
        #[arg(value_parser = Plate::new)]
        plate: Plate,
        /// Account to which its stays are charged
        #[arg(allow_hyphen_values = true)]
        account: Account,
        /// Holder of the account, as statements show it
        #[arg(default_value = "", allow_hyphen_values = true)]
        name: String,
    },
    /// Remove a plate: its later charges go to the account "unregistered"
    Remove {
        /// Registered plate
        #[arg(value_parser = Plate::new)]
        plate: Plate,
    },
}

#[derive(Debug, PartialEq, Eq, Args)]
pub struct ImportFlags {
    /// CSV file in UTF-8
    pub file: PathBuf,
    /// Only show the changes
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputFlags,
}

const CONTRACTS_HELP: &str = examples!(
    "  server contracts import contracts.csv --dry-run
  server contracts list
  server contracts remove miller-day"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ContractsCommand {
    /// Add the contracts of a CSV file with the columns contract,account,plate,garage,valid_from,valid_to,cars; garage may be *.
    /// Shows the changes, then records all of them or none. Contracts that are not in the file are kept
    Import(ImportFlags),
    /// List the contracts
    List(OutputFlags),
    /// End a contract. Stays that began under it remain covered
    Remove {
        /// Name of the contract
        #[arg(allow_hyphen_values = true)]
        contract: String,
    },
}

const CHARGES_HELP: &str = examples!(
    "  server charges list --account miller --month 2026-11
  server charges void 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623 --reason \"barrier open\"
  server charges credit 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623 --amount 150 --reason \"waited at the exit\""
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ChargesCommand {
    /// List charges, voids and credits, the newest first
    List {
        /// Only those of this plate [default: all]
        #[arg(long, value_parser = Plate::new)]
        plate: Option<Plate>,
        /// Only those of this garage [default: all]
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        garage: Option<String>,
        /// Only those of this account [default: all]
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        account: Option<String>,
        /// Only exits in this local month, such as 2026-11 [default: all]
        #[arg(long)]
        month: Option<Month>,
        /// Only entries after this one [default: from the newest]
        #[arg(long, value_name = "CURSOR", value_parser = clap::value_parser!(u64).range(1..))]
        after: Option<u64>,
        /// Maximum number of entries
        #[arg(long, value_name = "ENTRIES", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Void a charge: give back what was not credited yet. The charge stays in the books, and a new entry records the reason
    Void {
        /// Id of the charge, as "server charges list" shows it
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// The reason, which the statement shows
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// Give a part of a charge back. A further entry records the reason
    Credit {
        /// Id of the charge, as "server charges list" shows it
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// Amount in minor units of the charge's currency: 150 is 1.50 EUR, or 150 JPY
        #[arg(long, value_name = "MINOR_UNITS", allow_negative_numbers = true)]
        amount: i64,
        /// The reason, which the statement shows
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}

const STATEMENTS_HELP: &str = examples!(
    "  server statements show miller --month 2026-11
  server statements show B-AB123 --month 2026-11 --format html
  server statements export --month 2026-11 --out november"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum StatementsCommand {
    /// Print the statement of an account, or what one car was charged
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
    /// Write the statements of all accounts for a month into a new directory, with an index
    Export {
        /// Local month of the exits, such as 2026-11
        #[arg(long)]
        month: Month,
        /// New directory: it must not exist, or be empty
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Format of the statements; repeat it for several [default: all four]
        #[arg(long = "format", value_enum, value_name = "FORMAT")]
        formats: Vec<StatementFormat>,
        #[command(flatten)]
        output: OutputFlags,
    },
}

/// How a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatementFormat {
    /// For a terminal or a plain mail
    Text,
    /// For programs
    Json,
    /// For spreadsheets
    Csv,
    /// A page to print or to send
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatementOf {
    Account,
    Plate,
}

const JOURNAL_HELP: &str = examples!(
    "  server journal export --month 2026-11
  server journal export --month 2026-11 --out november.csv
  server journal export --out all.csv"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum JournalCommand {
    /// Write the statements of one month, or of all months, as CSV postings whose debits equal their credits
    Export {
        /// Local month of the exits, such as 2026-11 [default: every month]
        #[arg(long)]
        month: Option<Month>,
        /// New file: it must not exist [default: stdout]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
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
