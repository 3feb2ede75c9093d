//! What a daemon needs before it serves HTTP: the tokens and the certificate, kept current.
//!
//! **Promise.** An address that others than this machine can reach is served with TLS and to those who have tokens, or the daemon does
//! not start (64). `--insecure-http` lifts the first, and is warned about at every start.

use super::certificates::{Certificates, ReloadRequest, keep_current, ready_lines, unusable};
use super::tasks::Tasks;
use super::{DaemonError, clock};
use crate::audit::Audit;
use crate::codes::{self, Coded};
use crate::config::HttpConfig;
use crate::http::access::{Access, AccessRules};
use crate::http::tokens::{LiveTokens, TokensReload};
use crate::http::{KnownHosts, Rules};
use crate::messaging::SiteName;
use crate::transport::tls::live::{Expiry, Reload};
use crate::transport::tls::web::WebAcceptor;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the daemon looks whether the file of tokens changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Certificates for WebAcceptor {
    fn reload(&self) -> Reload {
        WebAcceptor::reload(self)
    }
    fn expiries(&self) -> Vec<Expiry> {
        WebAcceptor::expiries(self)
    }
}

/// How HTTP is served.
pub struct Doors {
    pub access: Access,
    /// `None`: without TLS.
    pub tls: Option<WebAcceptor>,
    hosts: KnownHosts,
}

impl Doors {
    /// Reads the files. `program` is the one whose command makes tokens; `garage` the one whose events are posted here.
    pub fn open(config: &HttpConfig, program: &str, garage: Option<SiteName>) -> Result<Doors, DaemonError> {
        let tokens = LiveTokens::open(&config.tokens).map_err(|error| {
            DaemonError::Setting(error.code(), format!("{error}. Nothing was opened or changed"))
        })?;
        if !config.is_local && !tokens.exist() {
            let reason = format!(
                "others than this machine can reach the address of --http, and there are no tokens in {:?}, so everybody could read plates and amounts. Nothing was opened or changed. To make one: {program} tokens add NAME --role read",
                config.tokens
            );
            return Err(DaemonError::Setting(codes::TOKENS_NEEDED, reason));
        }
        let hint = "\"server certs issue --host NAME --out DIR\" makes one; give DIR as --http-tls-dir. In a network that is safe by other means: --insecure-http";
        let tls = config.tls.as_ref().map(|(certificate, key)| {
            let opened = WebAcceptor::open(certificate.clone(), key.clone(), clock::now);
            opened.map_err(|error| unusable(&error, hint))
        });
        let tls = tls.transpose()?;
        if !config.is_local && tls.is_none() {
            tracing::warn!(
                code = %codes::INSECURE_HTTP_ALLOWED,
                hint = "make a certificate: server certs issue --host NAME --out DIR",
                "--insecure-http: everybody on the way can read tokens, plates and amounts, and use the tokens"
            );
        }
        let rules = AccessRules {
            always: !config.is_local,
            public_board: config.public_board,
            has_tls: tls.is_some(),
            garage,
        };
        Ok(Doors { access: Access::new(tokens, rules), tls, hosts: KnownHosts(config.hosts.clone()) })
    }

    /// For the listener of cameras, which is known by the same hosts.
    pub fn rules_for_cameras(&self) -> Rules {
        Rules { tls: None, ..self.rules() }
    }

    /// The same, with the list of who did what in a data directory.
    pub fn noting_in(self, audit: &Audit) -> Doors {
        Doors { access: self.access.noting_in(audit.clone()), ..self }
    }

    pub fn rules(&self) -> Rules {
        Rules {
            hosts: self.hosts.clone(),
            tls: self.tls.clone(),
            access: Some(self.access.clone()),
            ..Rules::default()
        }
    }

    /// `http`, or `https` with TLS.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A line of `/readyz` when the certificate expires soon or has expired.
    pub fn ready_lines(&self) -> String {
        ready_lines(self.tls.as_ref())
    }

    /// Takes changed files up, until `stop`.
    pub fn keep_current(&self, tasks: &mut Tasks, stop: &CancellationToken) -> Result<(), DaemonError> {
        let tokens = self.access.tokens().clone();
        tasks.spawn("keeping the tokens current", keep_tokens_current(tokens, stop.clone()));
        if let Some(tls) = self.tls.clone() {
            let keeping = keep_current(tls, ReloadRequest::listen()?, stop.clone());
            tasks.spawn("keeping the certificate for HTTP current", keeping);
        }
        Ok(())
    }
}

async fn keep_tokens_current(tokens: LiveTokens, stop: CancellationToken) {
    let keep = async {
        let mut looking = tokio::time::interval(LOOK_EVERY);
        loop {
            looking.tick().await;
            let looks = tokens.clone();
            // A disk that does not answer holds up only this task.
            let Ok(found) = tokio::task::spawn_blocking(move || looks.reload()).await else { return };
            match found {
                TokensReload::Unchanged => {}
                TokensReload::TakenUp(tokens) => {
                    tracing::info!(tokens, "the changed file of tokens is in force")
                }
                TokensReload::Refused(error) => tracing::error!(
                    code = %codes::TOKENS_UNUSABLE,
                    %error,
                    hint = "correct the file; it is read again when it changes",
                    "the changed file of tokens cannot be used; those in force before still are"
                ),
            }
        }
    };
    stop.run_until_cancelled(keep).await;
}
