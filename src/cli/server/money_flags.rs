//! The flags of the commands about money.

use crate::cli::{OutputFlags, examples};
use crate::parking::document::Rendering;
use crate::parking::register::{Account, ContractName};
use crate::parking::table::date;
use crate::parking::{ChargeId, Month, Plate};
use crate::server::view::charges::ChargeCursor;
use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;
use std::path::PathBuf;

pub const PLATES_HELP: &str = examples!(
    "  server plates import plates.csv --dry-run
  server plates add B-AB123 miller --from 2026-11-01
  server plates remove B-AB123 --on 2026-12-01"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum PlatesCommand {
    /// Register the plates of a CSV file with the columns plate,account,name,valid_from,valid_to; the last three may be missing.
    /// Shows the changes, then records all of them or none. Registered plates that are not in the file are kept
    Import(ImportFlags),
    /// List the registrations of plates
    List(OutputFlags),
    /// Register one plate. A registration to another account ends the day before
    Add {
        /// Plate to register
        #[arg(value_parser = Plate::new)]
        plate: Plate,
        /// Account to which its stays are charged
        #[arg(allow_hyphen_values = true)]
        account: Account,
        /// First day, by the local date of entry [default: today]
        #[arg(long, value_name = "DATE", value_parser = date)]
        from: Option<Date>,
        /// Last day [default: none]
        #[arg(long, value_name = "DATE", value_parser = date)]
        to: Option<Date>,
        #[command(flatten)]
        put: PutFlags,
    },
    /// End the registration of a plate: its later stays go to the account "unregistered"
    Remove {
        /// Registered plate
        #[arg(value_parser = Plate::new)]
        plate: Plate,
        /// First day on which it is not registered [default: today]
        #[arg(long, value_name = "DATE", value_parser = date)]
        on: Option<Date>,
        #[command(flatten)]
        put: PutFlags,
    },
}

/// How a change of the register is recorded and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct PutFlags {
    /// Only show the changes
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, PartialEq, Eq, Args)]
pub struct ImportFlags {
    /// CSV file in UTF-8
    pub file: PathBuf,
    #[command(flatten)]
    pub put: PutFlags,
}

pub const ACCOUNTS_HELP: &str = examples!(
    "  server accounts import accounts.csv --dry-run
  server accounts set miller --name \"Miller Logistik GmbH\" --address \"Hafenstraße 7|20457 Hamburg\" --country DE
  server accounts show miller"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum AccountsCommand {
    /// Take the customers of a CSV file with the columns account,name,address,country,vat_id,email; lines of the address are
    /// separated by "|". Shows the changes, then records all of them or none. Accounts that are not in the file are kept
    Import(ImportFlags),
    /// List all customers
    List(OutputFlags),
    /// Show one customer
    Show {
        /// Account
        #[arg(allow_hyphen_values = true)]
        account: Account,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Change what is known of a customer. What is not given stays
    Set {
        /// Account
        #[arg(allow_hyphen_values = true)]
        account: Account,
        /// Name, as documents show it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        name: Option<String>,
        /// Address; its lines are separated by "|"
        #[arg(long, value_name = "LINES", allow_hyphen_values = true)]
        address: Option<String>,
        /// Country code of two letters (ISO 3166-1), such as DE
        #[arg(long, value_name = "CODE")]
        country: Option<String>,
        /// VAT identification number
        #[arg(long, value_name = "TEXT")]
        vat_id: Option<String>,
        /// E-mail address
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        #[command(flatten)]
        put: PutFlags,
    },
}

pub const CONTRACTS_HELP: &str = examples!(
    "  server contracts import contracts.csv --dry-run
  server contracts list
  server contracts remove miller-day --on 2026-12-01"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ContractsCommand {
    /// Add the contracts of a CSV file with the columns contract,account,plate,garage,valid_from,valid_to,cars; garage may be *.
    /// Lines of one contract with other dates are versions of it. Shows the changes, then records all of them or none. Contracts
    /// that are not in the file are kept
    Import(ImportFlags),
    /// List the versions of all contracts
    List(OutputFlags),
    /// End a contract. Stays that began before the day remain covered
    Remove {
        /// Name of the contract
        #[arg(allow_hyphen_values = true)]
        contract: ContractName,
        /// First day on which it does not hold [default: today]
        #[arg(long, value_name = "DATE", value_parser = date)]
        on: Option<Date>,
        #[command(flatten)]
        put: PutFlags,
    },
}

pub const CHARGES_HELP: &str = examples!(
    "  server charges list --account miller --month 2026-11
  server charges show 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623
  server charges void 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623 --reason \"barrier open\"
  server charges credit 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623 --amount 150 --reason \"waited at the exit\""
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum ChargesCommand {
    /// List what stays cost by all that is known
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
        /// Only charges after this one [default: from the first]
        #[arg(long, value_name = "CURSOR", value_parser = cursor)]
        after: Option<ChargeCursor>,
        /// Maximum number of charges
        #[arg(long, value_name = "CHARGES", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Show one charge, and the events, decisions and documents behind it
    Show {
        /// Id of the charge, as "server charges list" shows it
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        #[command(flatten)]
        output: OutputFlags,
    },
    /// Void a charge: nothing of it is due. The decision survives corrections of the stay
    Void {
        /// Id of the charge, as "server charges list" shows it
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// The reason, which documents show
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// Give a part of a charge back. The decision survives corrections of the stay
    Credit {
        /// Id of the charge, as "server charges list" shows it
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// Amount in minor units of the charge's currency: 150 is 1.50 EUR, or 150 JPY
        #[arg(long, value_name = "MINOR_UNITS", allow_negative_numbers = true, value_parser = minor_units)]
        amount: i64,
        /// The reason, which documents show
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}

/// An amount is never guessed: 1,50 and 1.50 are two amounts in some countries.
fn minor_units(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| {
        "an amount is a whole number of minor units, without a point or comma: 150 is 1.50 EUR, or 150 JPY"
            .to_owned()
    })
}

fn cursor(text: &str) -> Result<ChargeCursor, String> {
    ChargeCursor::parse(text).ok_or_else(|| "it is no cursor of \"charges list\"".to_owned())
}

pub const DECISIONS_HELP: &str = examples!(
    "  server decisions list
  server decisions list --json
  server decisions undo 184220"
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum DecisionsCommand {
    /// List the decisions about charges: voids, credits, stays of more than 30 days that are billed
    List(OutputFlags),
    /// Take a decision back: the charge is what it would be without it
    Undo {
        /// Decision, as "decisions list" shows it
        #[arg(value_name = "DECISION")]
        decision: u64,
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

impl StatementFormat {
    pub fn rendering(self) -> Rendering {
        match self {
            StatementFormat::Text => Rendering::Text,
            StatementFormat::Json => Rendering::Json,
            StatementFormat::Csv => Rendering::Csv,
            StatementFormat::Html => Rendering::Html,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatementOf {
    Account,
    Plate,
}
