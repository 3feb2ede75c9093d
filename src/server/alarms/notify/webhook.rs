//! Webhooks, signed as <https://www.standardwebhooks.com> specifies: receivers verify them with its libraries.
//!
//! The content that is signed is `ID.SECONDS.BODY`, by HMAC-SHA256 under the secret; `webhook-id` is the same when it is tried again. Redirects are not
//! followed: the body goes where the configuration says, and nowhere else.

use super::secret;
use crate::config::WebhookUrl;
use crate::daemon::clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// What libraries for receivers write before a secret.
const PREFIX: &str = "whsec_";
/// The bytes that a secret may have, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

pub struct Webhook {
    url: WebhookUrl,
    key: hmac::Key,
    /// `None`: on this machine, without TLS.
    tls: Option<TlsConnector>,
}

impl Webhook {
    pub fn open(url: &WebhookUrl, secret_file: &Path) -> Result<Webhook, String> {
        let key = key(&secret(secret_file)?).ok_or_else(|| {
            format!("{secret_file:?} does not hold a secret: 24 to 64 bytes in Base64, such as \"openssl rand -base64 32\" prints")
        })?;
        Ok(Webhook { url: url.clone(), key, tls: url.is_tls.then(trusting).transpose()? })
    }

    /// `Ok`: the receiver answered with 2xx.
    pub async fn post(&self, id: &str, body: Vec<u8>) -> Result<(), String> {
        let WebhookUrl { host, port, .. } = &self.url;
        let no_way = |error: std::io::Error| format!("no connection to {host}:{port}: {error}");
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(no_way)?;
        match &self.tls {
            None => self.post_over(stream, id, body).await,
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(no_way)?;
                self.post_over(stream, id, body).await
            }
        }
    }

    async fn post_over<S>(&self, stream: S, id: &str, body: Vec<u8>) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broke = |error: hyper::Error| format!("the connection broke: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        // Ends with this attempt, however it ends.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let seconds = clock::wall_ms() / 1000;
        let request = Request::post(&self.url.path)
            .header(HOST, self.host())
            .header(USER_AGENT, concat!("fogpost/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature(&self.key, id, seconds, &body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(broke)?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
    }

    fn host(&self) -> String {
        let WebhookUrl { host, port, is_tls, .. } = &self.url;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let is_default = *port == if *is_tls { 443 } else { 80 };
        if is_default { host } else { format!("{host}:{port}") }
    }
}

fn key(secret: &str) -> Option<hmac::Key> {
    let text = secret.strip_prefix(PREFIX).unwrap_or(secret);
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    SECRET_BYTES.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, seconds: i64, body: &[u8]) -> String {
    let signed = [format!("{id}.{seconds}.").as_bytes(), body].concat();
    format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed)))
}

/// Trusts the authorities that this system trusts (`SSL_CERT_FILE` names others): an operator's own among them, and no list to keep current.
fn trusting() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "this system has no certificates of authorities (package ca-certificates): {}",
            errors.join("; ")
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "short", "MfKQ9r8G", "not base64 at all, though it is long enough"] {
            assert!(key(text).is_none(), "{text}");
        }
        assert!(key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_some());
    }
}
