//! The server's end: it accepts peers whose certificates its authority has issued.

use super::certificate::{CertificateFacts, Serial};
use super::files::{Loaded, TlsError, TlsFiles};
use super::live::{Expiry, Live, Reload, WallClock};
use crate::messaging::SiteName;
use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    version::TLS13,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Accepts connections by the files as they are now. Cloning shares it.
#[derive(Clone)]
pub struct Acceptor(Arc<Live<ServerConfig>>);

/// Who a peer is, by the certificate that it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPeer {
    pub serial: Serial,
    /// The garages for which it may speak.
    pub garages: Vec<SiteName>,
    not_after: Timestamp,
}

/// Why a connection that was accepted must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MustEnd {
    #[error("the certificate of the peer was revoked")]
    Revoked,
    #[error("the certificate of the peer expired")]
    Expired,
}

/// The longest that a connection goes unchecked: clocks may be set.
const CHECK_WITHIN: Duration = Duration::from_secs(60);

impl Acceptor {
    /// Reads the files.
    pub fn open(files: TlsFiles, clock: WallClock) -> Result<Acceptor, Arc<TlsError>> {
        let live = Live::new(files, clock, build);
        live.in_force()?;
        Ok(Acceptor(Arc::new(live)))
    }

    /// Does the handshake, for which the caller limits the time. An error says what was wrong with the peer; it has been sent to it as an alert.
    pub async fn accept<S>(&self, stream: S) -> std::io::Result<(TlsStream<S>, TlsPeer)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let in_force = self.0.in_force().map_err(std::io::Error::other)?;
        let stream = TlsAcceptor::from(Arc::clone(&in_force.config)).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let facts = shown.and_then(CertificateFacts::read);
        let CertificateFacts { serial, garages, not_after, .. } =
            facts.ok_or_else(|| std::io::Error::other("the certificate of the peer cannot be read"))?;
        let peer = TlsPeer { serial, garages: garages.into_iter().collect(), not_after };
        Ok((stream, peer))
    }

    /// Resolves when the connection of this peer must end.
    pub async fn must_end(&self, peer: &TlsPeer) -> MustEnd {
        let mut changes = self.0.subscribe();
        loop {
            // Before the look, so that a change right after it is seen.
            changes.borrow_and_update();
            if let Some(why) = self.look(peer) {
                return why;
            }
            let until_expired =
                Duration::try_from(peer.not_after.duration_since(self.0.now())).unwrap_or_default();
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(until_expired.min(CHECK_WITHIN)) => {}
            }
        }
    }

    fn look(&self, peer: &TlsPeer) -> Option<MustEnd> {
        let is_revoked = self.0.in_force().is_ok_and(|in_force| in_force.revoked.contains(&peer.serial));
        match () {
            () if is_revoked => Some(MustEnd::Revoked),
            () if peer.not_after < self.0.now() => Some(MustEnd::Expired),
            () => None,
        }
    }

    pub fn reload(&self) -> Reload {
        self.0.reload()
    }

    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.expiries()
    }
}

fn build(
    loaded: &Loaded,
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let roots = Arc::new(loaded.roots.clone());
    let inner = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let verifier = Arc::new(WithoutRevoked { inner, revoked: loaded.revoked.clone() });
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&loaded.shown))));
    // A resumed session would not show its certificate again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// Refuses revoked certificates within the handshake, so that the peer learns why.
#[derive(Debug)]
struct WithoutRevoked {
    inner: Arc<dyn ClientCertVerifier>,
    revoked: BTreeSet<Serial>,
}

impl ClientCertVerifier for WithoutRevoked {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        let facts = CertificateFacts::read(certificate).ok_or(CertificateError::BadEncoding)?;
        if self.revoked.contains(&facts.serial) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
