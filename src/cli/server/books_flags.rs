//! `server plates …`, `contracts …`, `charges …`, `statements …`, `journal …`: the books of money on a command line.

use super::ServerTask;
use crate::parking::register::Account;
use crate::parking::statement::Month;
use crate::parking::{ChargeId, Plate};
use crate::server::books::{Asked, Whose};
use crate::server::commands::Intent;
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

/// What to do with the books of money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BooksTask {
    Import {
        what: List,
        file: PathBuf,
        dry_run: bool,
        json: bool,
    },
    Add {
        plate: Plate,
        account: Account,
        name: String,
    },
    List {
        what: List,
        json: bool,
    },
    ApplyTariffs,
    ShowTariffs,
    ListCharges {
        asked: Asked,
        json: bool,
    },
    /// The first of these that there is.
    ShowStatement {
        whose: Vec<Whose>,
        month: Month,
        format: Format,
    },
    ExportStatements {
        month: Month,
        out: PathBuf,
        formats: Vec<Format>,
        json: bool,
    },
    /// `None`: to stdout.
    ExportJournal {
        /// `None`: all.
        month: Option<Month>,
        out: Option<PathBuf>,
    },
}

/// What an operator gives as a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Plates,
    Contracts,
}

/// How a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal or a plain mail
    Text,
    /// For programs
    Json,
    /// For spreadsheets
    Csv,
    /// A page to print or to send
    Html,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Of {
    Account,
    Plate,
}

#[derive(Debug, Subcommand)]
pub enum PlatesFlags {
    /// Register the plates of a file with the columns plate,account,name. Shows the changes first; all or nothing. Registered
    /// plates that the file does not name stay
    Import {
        file: PathBuf,
        /// Only show the changes
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// List the registered plates
    List {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Register one plate, or change to which account it is charged. What was charged stays with its account
    Add {
        #[arg(value_parser = Plate::new)]
        plate: Plate,
        #[arg(allow_hyphen_values = true)]
        account: Account,
        /// Who holds the account, as statements show it
        #[arg(default_value = "", allow_hyphen_values = true)]
        name: String,
    },
    /// Register a plate no more: what it is charged from now on goes to the account "unregistered"
    Remove {
        #[arg(value_parser = Plate::new)]
        plate: Plate,
    },
}

#[derive(Debug, Subcommand)]
pub enum ContractsFlags {
    /// Take the contracts of a file with the columns contract,account,plate,garage,valid_from,valid_to,cars; garage may be *.
    /// Shows the changes first; all or nothing. Contracts that the file does not name stay
    Import {
        file: PathBuf,
        /// Only show the changes
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// List the contracts
    List {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// End a contract. Stays that began under it are covered still
    Remove {
        #[arg(allow_hyphen_values = true)]
        contract: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ChargesFlags {
    /// List charges, voids and credits, the newest first
    List {
        #[arg(long, value_parser = Plate::new)]
        plate: Option<Plate>,
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        garage: Option<String>,
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        account: Option<String>,
        /// The local month of the exits, such as 2026-11
        #[arg(long)]
        month: Option<Month>,
        /// Only what comes behind this one
        #[arg(long, value_name = "CURSOR", value_parser = clap::value_parser!(u64).range(1..))]
        after: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "ENTRIES", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Take a charge back, as far as it was not credited. It stays in the books, and a further entry says so, with the reason
    Void {
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// Why: the statement shows it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// Give some of a charge back: a further entry, with the reason
    Credit {
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// How much, in minor units of the charge's currency: 150 is 1.50 EUR, and 150 JPY
        #[arg(long, value_name = "MINOR_UNITS", allow_negative_numbers = true)]
        amount: i64,
        /// Why: the statement shows it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum StatementsFlags {
    /// Print the statement of an account, or what one car was charged
    Show {
        #[arg(value_name = "ACCOUNT_OR_PLATE", allow_hyphen_values = true)]
        whose: String,
        /// The local month of the exits, such as 2026-11
        #[arg(long)]
        month: Month,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Which of the two is meant, where an account is called like a plate [default: the account]
        #[arg(long, value_enum)]
        of: Option<Of>,
    },
    /// Write the statements of all accounts for a month into a new directory, with an index
    Export {
        /// The local month of the exits, such as 2026-11
        #[arg(long)]
        month: Month,
        /// Must not exist, or be empty
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// One of them; repeat it for several [default: all four]
        #[arg(long = "format", value_enum, value_name = "FORMAT")]
        formats: Vec<Format>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum JournalFlags {
    /// Write the statements of a month, or of all, as postings: CSV whose debits equal its credits
    Export {
        /// The local month of the exits, such as 2026-11 [default: every month]
        #[arg(long)]
        month: Option<Month>,
        /// Must not exist [default: to stdout]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

impl From<PlatesFlags> for ServerTask {
    fn from(flags: PlatesFlags) -> ServerTask {
        let what = List::Plates;
        ServerTask::Books(match flags {
            PlatesFlags::Import { file, dry_run, json } => BooksTask::Import { what, file, dry_run, json },
            PlatesFlags::List { json } => BooksTask::List { what, json },
            PlatesFlags::Add { plate, account, name } => BooksTask::Add { plate, account, name },
            PlatesFlags::Remove { plate } => {
                return ServerTask::Command(Intent::RemovePlate { plate: plate.to_string() });
            }
        })
    }
}

impl From<ContractsFlags> for ServerTask {
    fn from(flags: ContractsFlags) -> ServerTask {
        let what = List::Contracts;
        ServerTask::Books(match flags {
            ContractsFlags::Import { file, dry_run, json } => BooksTask::Import { what, file, dry_run, json },
            ContractsFlags::List { json } => BooksTask::List { what, json },
            ContractsFlags::Remove { contract } => {
                return ServerTask::Command(Intent::RemoveContract { contract });
            }
        })
    }
}

impl From<ChargesFlags> for ServerTask {
    fn from(flags: ChargesFlags) -> ServerTask {
        match flags {
            ChargesFlags::List { plate, garage, account, month, after, limit, json } => {
                let plate = plate.map(|plate| plate.to_string());
                let month = month.map(|month| month.to_string());
                let asked = Asked { plate, garage, account, month, after, limit: limit as usize };
                ServerTask::Books(BooksTask::ListCharges { asked, json })
            }
            ChargesFlags::Void { charge, reason } => ServerTask::Command(Intent::Void { charge, reason }),
            ChargesFlags::Credit { charge, amount, reason } => {
                ServerTask::Command(Intent::Credit { charge, amount, reason })
            }
        }
    }
}

impl From<StatementsFlags> for ServerTask {
    fn from(flags: StatementsFlags) -> ServerTask {
        ServerTask::Books(match flags {
            StatementsFlags::Show { whose, month, format, of } => {
                let whose = match of {
                    None => vec![Whose::Account(whose.clone()), Whose::Plate(whose)],
                    Some(Of::Account) => vec![Whose::Account(whose)],
                    Some(Of::Plate) => vec![Whose::Plate(whose)],
                };
                BooksTask::ShowStatement { whose, month, format }
            }
            StatementsFlags::Export { month, out, formats, json } => {
                let formats = match formats.is_empty() {
                    true => Format::value_variants().to_vec(),
                    false => formats,
                };
                BooksTask::ExportStatements { month, out, formats, json }
            }
        })
    }
}

impl From<JournalFlags> for ServerTask {
    fn from(JournalFlags::Export { month, out }: JournalFlags) -> ServerTask {
        ServerTask::Books(BooksTask::ExportJournal { month, out })
    }
}
