//! Keeps the certificates of a daemon current, and warns before they expire.

use super::{DaemonError, clock};
use crate::codes;
use crate::http::metrics::{LabelledGauges, Metrics};
use crate::transport::tls::live::{Expiry, Reload};
use crate::transport::tls::{Acceptor, Connector, TlsError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the daemon looks whether its files changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// One end of TLS, as its files are. Cloning shares it.
pub trait Certificates: Clone + Send + 'static {
    /// Reads the files again if they changed.
    fn reload(&self) -> Reload;
    /// When our certificates expire.
    fn expiries(&self) -> Vec<Expiry>;
}

impl Certificates for Acceptor {
    fn reload(&self) -> Reload {
        Acceptor::reload(self)
    }
    fn expiries(&self) -> Vec<Expiry> {
        Acceptor::expiries(self)
    }
}

impl Certificates for Connector {
    fn reload(&self) -> Reload {
        Connector::reload(self)
    }
    fn expiries(&self) -> Vec<Expiry> {
        Connector::expiries(self)
    }
}

/// Why a daemon does not start with such files.
pub fn unusable(error: &TlsError, hint: &str) -> DaemonError {
    DaemonError::Setting(
        codes::CERTIFICATES_UNUSABLE,
        format!("{error}. Nothing was opened or changed. {hint}"),
    )
}

/// The request of an operator to read the certificates again: SIGHUP.
pub struct ReloadRequest(Signal);

impl ReloadRequest {
    /// From now on SIGHUP does not end the process.
    pub fn listen() -> Result<ReloadRequest, DaemonError> {
        let failed =
            |error| DaemonError::Failed(codes::CANNOT_START, format!("cannot listen for signals: {error}"));
        signal(SignalKind::hangup()).map(ReloadRequest).map_err(failed)
    }

    /// Resolves at the next request.
    pub async fn came(&mut self) {
        self.0.recv().await;
    }
}

/// Takes changed files up within two seconds, at once on request, until `stop`.
pub async fn keep_current(
    certificates: impl Certificates,
    mut asked: ReloadRequest,
    stop: CancellationToken,
) {
    let keep = async {
        let mut looking = tokio::time::interval(LOOK_EVERY);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = None;
        loop {
            let is_asked = tokio::select! {
                _ = looking.tick() => false,
                () = asked.came() => true,
            };
            let looks = certificates.clone();
            // A disk that does not answer holds up only this task.
            let Ok(found) = tokio::task::spawn_blocking(move || looks.reload()).await else { return };
            let expiries = certificates.expiries();
            match found {
                Reload::TakenUp => {
                    let own = expiries.first().map(|expiry| expiry.at.to_string());
                    tracing::info!(expires = own, "changed certificates are in force for new connections");
                    warned = None;
                }
                Reload::Refused(error) => tracing::error!(
                    code = %codes::CERTIFICATES_UNUSABLE,
                    %error,
                    hint = "correct the files; they are read again when they change",
                    "changed certificates cannot be used; those in force before still are"
                ),
                Reload::Unchanged if is_asked => tracing::info!("no certificate changed"),
                Reload::Unchanged => {}
            }
            if warned.is_none_or(|warned: Instant| warned.elapsed() >= WARN_EVERY) {
                warned = Some(Instant::now());
                expiries.iter().filter(|expiry| expiry.is_soon()).for_each(warn);
            }
        }
    };
    stop.run_until_cancelled(keep).await;
}

fn warn(expiry: &Expiry) {
    tracing::warn!(
        code = %codes::CERTIFICATE_EXPIRES,
        certificate = expiry.certificate,
        expires = %expiry.at,
        days_left = expiry.days_left,
        hint = HINT,
        "a certificate expires soon or has expired; then no connection is possible, and edges keep their events"
    );
}

const HINT: &str = "make another one (server certs init, server certs issue) and copy its files over the old ones; no restart is needed";

/// A line of `/readyz` for each certificate that expires soon or has expired.
pub fn ready_lines(certificates: Option<&impl Certificates>) -> String {
    let expiries = certificates.map(Certificates::expiries).unwrap_or_default();
    let soon = expiries.iter().filter(|expiry| expiry.is_soon());
    let line = |expiry: &Expiry| {
        let Expiry { certificate, at, days_left } = expiry;
        let when = if *at <= clock::now() {
            format!("expired at {at}")
        } else {
            format!("expires at {at}, in {days_left} days")
        };
        format!("{}: the certificate ({certificate}) {when}: {HINT}\n", codes::CERTIFICATE_EXPIRES)
    };
    soon.map(line).collect()
}

pub fn days_left_gauges(metrics: &mut Metrics) -> LabelledGauges {
    metrics.gauges("certificate_days_left", "Days until the own certificate and that of the authority expire")
}

/// Sets what [`days_left_gauges`] registered.
pub fn show_days_left(gauges: &LabelledGauges, certificates: Option<&impl Certificates>) {
    for expiry in certificates.map(Certificates::expiries).unwrap_or_default() {
        let label = vec![("certificate", expiry.certificate.to_owned())];
        gauges.get_or_create(&label).set(expiry.days_left);
    }
}
