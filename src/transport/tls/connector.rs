//! The edge's end: it connects to servers whose certificates its authority has issued, and shows its own.

use super::files::{Loaded, TlsError, TlsFiles};
use super::live::{Expiry, Live, Reload, WallClock};
use crate::codes::{self, Code};
use crate::transport::ServerAddress;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, version::TLS13};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects by the files as they are now. Cloning shares it.
#[derive(Clone)]
pub struct Connector(Arc<Live<ClientConfig>>);

/// Why there is no connection, or why it ended, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    /// Waiting may help: the network, or a server that starts.
    #[error("{0}")]
    Network(String),
    /// A person has to act.
    #[error("{1}")]
    Certificates(Code, String),
}

impl Connector {
    /// Reads the files. Files that are there and cannot be used do not keep an edge from collecting events: they are tried again when
    /// they change, and until then each attempt to connect fails with the reason.
    pub fn open(files: TlsFiles, clock: WallClock) -> Result<Connector, Arc<TlsError>> {
        let live = Live::new(files, clock, build);
        match live.in_force() {
            Err(error) if error.is_missing_file() => Err(error),
            _ => Ok(Connector(Arc::new(live))),
        }
    }

    /// Opens a connection, for which the caller limits the time. In TLS 1.3 the server judges our certificate after that: a refusal
    /// arrives as an error of the first read.
    pub(super) async fn connect(&self, address: &ServerAddress) -> Result<TlsStream<TcpStream>, TlsFailure> {
        let in_force = self.0.in_force().map_err(|error| {
            let dir = self.0.files().key.display();
            TlsFailure::Certificates(
                codes::CERTIFICATES_UNUSABLE,
                format!("{error}. Correct the files beside {dir}; they are read again when they change"),
            )
        })?;
        let name = ServerName::try_from(address.host().to_owned());
        let name = name.map_err(|error| {
            TlsFailure::Network(format!("{address} has no host name or address: {error}"))
        })?;
        let network = |error: io::Error| TlsFailure::Network(error.to_string());
        let stream = TcpStream::connect(address.host_and_port()).await.map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        let connector = TlsConnector::from(Arc::clone(&in_force.config));
        connector.connect(name, stream).await.map_err(|error| self.explain(&error))
    }

    /// What an error of a connection means.
    pub(super) fn explain(&self, error: &io::Error) -> TlsFailure {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let Some(inner) = inner else { return TlsFailure::Network(error.to_string()) };
        let certificates = |code, text: String| TlsFailure::Certificates(code, text);
        match inner {
            Error::AlertReceived(alert) => match refused_by_server(*alert) {
                Some(reason) => certificates(
                    codes::CERTIFICATE_REFUSED,
                    format!(
                        "the server refuses the certificate of this edge{}: {reason}. To issue another one: server certs issue --garage NAME --out DIR; copy its files over those of {}",
                        self.own_serial(),
                        self.0.files().certificate.display(),
                    ),
                ),
                None => TlsFailure::Network(error.to_string()),
            },
            Error::InvalidCertificate(reason) => certificates(
                codes::SERVER_NOT_TRUSTED,
                format!("the certificate of the server is not accepted: {}", refused_by_us(reason)),
            ),
            Error::InvalidMessage(_) | Error::PeerIncompatible(_) | Error::PeerMisbehaved(_) => certificates(
                codes::NOT_A_SERVER,
                format!(
                    "what answers does not speak TLS 1.3 as a fogpost server does ({inner}). Check the address; a server without TLS has a tcp:// address"
                ),
            ),
            _ => TlsFailure::Network(error.to_string()),
        }
    }

    fn own_serial(&self) -> String {
        self.0.in_force().map(|in_force| format!(" (serial {})", in_force.own.serial)).unwrap_or_default()
    }

    pub fn reload(&self) -> Reload {
        self.0.reload()
    }

    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.expiries()
    }
}

fn refused_by_server(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::CertificateExpired => "it has expired by the server's clock",
        AlertDescription::UnknownCA => "another authority issued it than the server's",
        AlertDescription::CertificateRequired => "it was not shown",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => "it is not one of a garage",
        _ => return None,
    })
}

fn refused_by_us(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "{reason}. Check the clock of this machine; to renew the server's certificate, run on the server: server certs init --host NAME"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "{reason}. Use a name from the certificate as the address, or run on the server: server certs init --host NAME"
        ),
        CertificateError::UnknownIssuer => {
            "another authority issued it than that of this edge (ca.pem). Check the address; it may be another server".to_owned()
        }
        _ => format!("{reason}. Check the address; it may be another server"),
    }
}

fn build(
    loaded: &Loaded,
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(loaded.roots.clone())
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&loaded.shown))));
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
