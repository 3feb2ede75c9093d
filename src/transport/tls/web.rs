//! The server's end for browsers: it shows a certificate and asks for none.

use super::files::{Loaded, TlsError, TlsFiles};
use super::live::{Expiry, Live, Reload, WallClock};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Accepts connections of browsers by the files as they are now. Cloning shares it.
#[derive(Clone)]
pub struct WebAcceptor(Arc<Live<ServerConfig>>);

impl WebAcceptor {
    /// Reads the certificate, with those of intermediate authorities, and its key.
    pub fn open(certificate: PathBuf, key: PathBuf, clock: WallClock) -> Result<WebAcceptor, Arc<TlsError>> {
        // Nobody is asked for a certificate, so there is no authority, and nothing is revoked.
        let files = TlsFiles { ca: certificate.clone(), certificate, key, revoked: "/dev/null".into() };
        let live = Live::new(files, clock, build);
        live.in_force()?;
        Ok(WebAcceptor(Arc::new(live)))
    }

    /// Does the handshake, for which the caller limits the time.
    pub async fn accept<S>(&self, stream: S) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let in_force = self.0.in_force().map_err(std::io::Error::other)?;
        TlsAcceptor::from(Arc::clone(&in_force.config)).accept(stream).await
    }

    pub fn reload(&self) -> Reload {
        self.0.reload()
    }

    pub fn expiries(&self) -> Vec<Expiry> {
        let own = self.0.expiries().into_iter().take(1);
        own.map(|own| Expiry { certificate: "http", ..own }).collect()
    }
}

fn build(
    loaded: &Loaded,
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&loaded.shown))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
