//! `tokens`, a command of both daemons: who may read over HTTP, and post events.

use super::{OutputFlags, list, print};
use crate::daemon::admin::NotDone;
use crate::daemon::{audited, clock};
use crate::http::tokens::{Role, TokenName, TokensFile};
use crate::messaging::SiteName;
use clap::Subcommand;
use serde_json::json;
use std::path::Path;

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum TokensCommand {
    /// Make a token, and print it: it is not shown again. A running daemon takes it up within two seconds
    Add {
        /// Who will use it: 1 to 32 letters, digits, dots, dashes and underscores
        name: TokenName,
        /// What it is for: "ingest" posts events of a garage at its edge; "board" sees free spaces; "read" also stays and plates;
        /// "money" also charges, statements and documents
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// Garage whose events are posted with it [default: the --garage-name of the edge]
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        garage: Option<SiteName>,
    },
    /// List all tokens, by their names
    List(OutputFlags),
    /// Revoke a token: it is refused within two seconds
    Revoke {
        /// Its name
        name: TokenName,
    },
}

/// `own` is the garage of the edge, where it is known; the list of who did what is in `data_dir`.
pub(super) fn run(
    path: &Path,
    data_dir: Option<&Path>,
    own: Option<&SiteName>,
    command: TokensCommand,
) -> Result<(), NotDone> {
    let what = match &command {
        TokensCommand::Add { name, role, .. } => Some(format!("tokens add {name} --role {role}")),
        TokensCommand::Revoke { name } => Some(format!("tokens revoke {name}")),
        TokensCommand::List(_) => None,
    };
    let done = carry_out(path, own, command);
    if let (Some(data_dir), Some(what)) = (data_dir, what) {
        audited::note_own(data_dir, &what, &done);
    }
    done
}

fn carry_out(path: &Path, own: Option<&SiteName>, command: TokensCommand) -> Result<(), NotDone> {
    let file = TokensFile(path);
    match command {
        TokensCommand::Add { name, role, garage } => {
            let garage = match (role, garage) {
                (Role::Ingest, garage) => Some(garage.or_else(|| own.cloned()).ok_or_else(|| {
                    "a token with the role ingest is for one garage. Nothing was changed. Give its --garage".to_owned()
                })?),
                (_, None) => None,
                (_, Some(_)) => {
                    return Err("--garage is only for the role ingest. Nothing was changed".to_owned().into());
                }
            };
            let secret = file.add(name, role, garage, clock::now())?;
            print(&format!("{}\nkeep it: only its digest is stored, in {}\n", *secret, path.display()));
        }
        TokensCommand::Revoke { name } => {
            file.revoke(&name)?;
            print(&format!("{name} is revoked\n"));
        }
        TokensCommand::List(output) => {
            let tokens = file.read()?.unwrap_or_default();
            let lines = tokens.iter().map(|token| {
                json!({"name": token.name, "role": token.role, "garage": token.garage, "created_at": token.created_at})
            });
            let answer = json!({ "tokens": lines.collect::<Vec<_>>() });
            let columns =
                [("NAME", "name"), ("ROLE", "role"), ("GARAGE", "garage"), ("CREATED", "created_at")];
            output.print(&answer, |answer| list(answer, "tokens", columns));
        }
    }
    Ok(())
}
