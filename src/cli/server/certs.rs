//! `server certs`: makes and revokes certificates in the TLS directory.

use crate::cli::{OutputFlags, examples, list, print};
use crate::config::ServerConfig;
use crate::daemon::admin::NotDone;
use crate::daemon::clock;
use crate::messaging::SiteName;
use crate::server::certificates::{CertificateLine, CertificateState, CertsDir};
use crate::transport::tls::authority::Holder;
use crate::transport::tls::certificate::Serial;
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

pub(super) const CERTS_HELP: &str = examples!(
    "  server certs init --host server.example 10.0.0.5
  server certs issue --garage \"Bull Ring\" --out ./bull-ring-certs
  server certs revoke --garage \"Bull Ring\""
);

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum CertsCommand {
    /// Make an authority and the certificate of the server. Run it again to renew the certificate, or for other hosts: the
    /// authority is kept, and its own certificate renewed after five years
    Init {
        /// Host names and addresses at which edges reach the server
        #[arg(long = "host", value_name = "NAME", required = true, num_args = 1..)]
        hosts: Vec<String>,
    },
    /// Make a certificate for the edge of a garage, or for a program that serves HTTP. Run it again to renew it; a certificate that
    /// was issued before stays valid
    Issue {
        /// Name of the garage; repeat it if one edge speaks for several
        #[arg(
            long = "garage",
            value_name = "NAME",
            required_unless_present = "hosts",
            allow_hyphen_values = true
        )]
        garages: Vec<SiteName>,
        /// Instead: host names and addresses at which browsers reach an edge (--http-tls-dir)
        #[arg(long = "host", value_name = "NAME", num_args = 1.., conflicts_with = "garages")]
        hosts: Vec<String>,
        /// Directory for ca.pem, certificate.pem and key.pem, to be copied to the edge
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Revoke certificates: a running server refuses them from now on, and closes their connections
    Revoke {
        /// Serials, as "certs list" shows them
        #[arg(value_name = "SERIAL", required_unless_present = "garage")]
        serials: Vec<Serial>,
        /// All valid certificates that name this garage
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        garage: Option<SiteName>,
    },
    /// List all certificates that were issued
    List(OutputFlags),
}

/// What the list of who did what says about a command; `None`: it changes nothing.
pub(super) fn audited(command: &CertsCommand) -> Option<&'static str> {
    match command {
        CertsCommand::Init { .. } => Some("certs init"),
        CertsCommand::Issue { .. } => Some("certs issue"),
        CertsCommand::Revoke { .. } => Some("certs revoke"),
        CertsCommand::List(_) => None,
    }
}

pub(super) fn run(config: &ServerConfig, command: CertsCommand) -> Result<(), NotDone> {
    let (dir, now) = (config.tls_dir.display(), clock::now());
    let certs = CertsDir::of(&config.tls_dir);
    match command {
        CertsCommand::Init { hosts } => {
            let made = certs.init(hosts, now)?;
            let authority = match made.is_new {
                true => {
                    format!("an authority was made in {dir}. Keep its ca-key.pem secret: it lets edges in")
                }
                false => format!("the authority in {dir} was kept"),
            };
            print(&format!("{authority}\n{}", said(&made.issued)));
        }
        CertsCommand::Issue { garages, hosts, out } => {
            let (holder, flag) = match hosts.is_empty() {
                true => (Holder::Edge { garages: garages.into_iter().collect() }, "--tls-dir"),
                false => (Holder::Server { hosts }, "--http-tls-dir"),
            };
            let issued = certs.issue(holder, &out, now)?;
            print(&format!(
                "{}copy {} to the edge, and start it with {flag}\n",
                said(&issued),
                out.display()
            ));
        }
        CertsCommand::Revoke { serials, garage } => {
            let revoked = certs.revoke(&serials, garage.as_ref(), now)?;
            let lines = revoked.iter().map(|line| format!("revoked {}: {}\n", line.serial, line.holder()));
            let lines: String = lines.collect();
            let nothing = "nothing to do: revoked before\n".to_owned();
            print(&if lines.is_empty() { nothing } else { lines });
        }
        CertsCommand::List(output) => {
            let listed = certs.list(now)?;
            let lines = listed.iter().map(|(line, state)| {
                let state = match state {
                    CertificateState::Valid => "valid",
                    CertificateState::Expired => "expired",
                    CertificateState::Revoked => "revoked",
                };
                let CertificateLine { serial, hosts, garages, issued_at, expires_at } = line;
                json!({
                    "serial": serial, "holder": line.holder(), "hosts": hosts, "garages": garages,
                    "issued_at": issued_at, "expires_at": expires_at, "state": state,
                })
            });
            let answer = json!({ "certificates": lines.collect::<Vec<_>>() });
            let columns =
                [("SERIAL", "serial"), ("FOR", "holder"), ("EXPIRES", "expires_at"), ("STATE", "state")];
            output.print(&answer, |answer| list(answer, "certificates", columns));
        }
    }
    Ok(())
}

fn said(issued: &CertificateLine) -> String {
    format!("certificate {} for {}, valid until {}\n", issued.serial, issued.holder(), issued.expires_at)
}
