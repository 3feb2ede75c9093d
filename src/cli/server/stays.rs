//! `server stays …`: repairs of stays on a command line.

use super::ServerTask;
use crate::parking::event::Moment;
use crate::parking::{ChargeId, EventId};
use crate::server::commands::Intent;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum StaysFlags {
    /// Show what may want a repair, with the command that would do it
    Review {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// This exit ends the stay of that entry: a plate was misread
    Join {
        /// As "review" shows it, or GARAGE/EPOCH/SEQUENCE
        #[arg(allow_hyphen_values = true)]
        entry: EventId,
        #[arg(allow_hyphen_values = true)]
        exit: EventId,
        /// Why: the books keep it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// The car of this entry left at that time, and nobody saw it. The stay is charged by its length
    Close {
        #[arg(allow_hyphen_values = true)]
        entry: EventId,
        /// Such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
        left: Moment,
        /// Why: the books keep it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// The car of this entry left and came again in the midst of its stay. Each part is charged by itself
    Split {
        #[arg(allow_hyphen_values = true)]
        entry: EventId,
        /// When it left, such as 2026-11-23T08:15:00+01:00
        #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
        left: Moment,
        /// When it came again
        #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
        entered: Moment,
        /// Why: the books keep it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
    /// Charge a stay of more than 30 days as it is
    Bill {
        /// The id that "server charges list" shows
        #[arg(value_name = "ID", allow_hyphen_values = true)]
        charge: ChargeId,
        /// Why: the books keep it
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
    },
}

/// What the ledger keeps of a moment.
fn kept(moment: Moment) -> (i64, i16) {
    let minutes = moment.offset.seconds() / 60;
    (moment.timestamp.as_millisecond(), i16::try_from(minutes).expect("an offset is below 26 hours"))
}

impl From<StaysFlags> for ServerTask {
    fn from(flags: StaysFlags) -> ServerTask {
        ServerTask::Command(match flags {
            StaysFlags::Review { json } => return ServerTask::ReviewStays { json },
            StaysFlags::Join { entry, exit, reason } => Intent::JoinStay { entry, exit, reason },
            StaysFlags::Close { entry, left, reason } => {
                let (left_at_ms, offset_minutes) = kept(left);
                Intent::CloseStay { entry, left_at_ms, offset_minutes, reason }
            }
            StaysFlags::Split { entry, left, entered, reason } => {
                let ((left_at_ms, offset_minutes), (entered_at_ms, _)) = (kept(left), kept(entered));
                Intent::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason }
            }
            StaysFlags::Bill { charge, reason } => Intent::BillStay { charge, reason },
        })
    }
}
