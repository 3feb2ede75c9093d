//! An HTTP client for programs that talk to the daemons.
//!
//! **Promise.** Each call ends: with an answer, or with an error that says who was asked for what and what was wrong.
//! **Kept by.** A time limit on every exchange, and errors that carry the URL.
//! **Not promised.** That a failed request is repeated. Only the caller knows whether that is safe.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The slowest answer waits for one flush of a busy disk; one that takes longer than this will not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long to wait after a 429 or 503 that has no `Retry-After`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum HttpCallError {
    /// Whether the daemon acted is unknown.
    #[error("{url} did not answer: {source}. Its log tells more")]
    NoAnswer { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// Whether the daemon acted is unknown.
    #[error("{url} did not answer within {} s. Its log tells more", ANSWER_WITHIN.as_secs())]
    TooSlow { url: String },
    /// The daemon says that it did nothing.
    #[error("{url} refused with {status}: {detail}")]
    Refused { url: String, status: StatusCode, detail: String },
    /// The daemon did what it was asked, but its answer is not what its contract says.
    #[error("{url} answered something else than its contract says: {source}")]
    Malformed { url: String, source: serde_json::Error },
}

/// What a daemon answered to a `POST`.
#[derive(Debug)]
pub enum PostAnswer<T> {
    /// The request was carried out, and its effect is on disk.
    Created(T),
    /// Nothing was done. The daemon asks the client to retry after this time.
    RetryAfter(Duration),
}

/// Talks to any number of daemons over connections that stay open.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for HttpClient {
    fn default() -> HttpClient {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        HttpClient { client: Client::builder(TokioExecutor::new()).build(connector) }
    }
}

impl HttpClient {
    async fn call(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<(StatusCode, Option<Duration>, Bytes), HttpCallError> {
        let no_answer = |source| HttpCallError::NoAnswer { url: url.to_owned(), source };
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| no_answer(error.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| no_answer(error.into()))?;
            let status = answer.status();
            let pause = answer.headers().get(RETRY_AFTER);
            let pause = pause.and_then(|pause| pause.to_str().ok()?.trim().parse().ok());
            let body = answer.into_body().collect().await;
            let body = body.map_err(|error| no_answer(error.into()))?.to_bytes();
            Ok((status, pause.map(Duration::from_secs), body))
        };
        let too_slow = |_| Err(HttpCallError::TooSlow { url: url.to_owned() });
        tokio::time::timeout(ANSWER_WITHIN, exchange).await.unwrap_or_else(too_slow)
    }

    /// The answer to a successful `GET`, read as JSON.
    pub async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, HttpCallError> {
        let (status, _, body) = self.call(Method::GET, url, &[], Bytes::new()).await?;
        if status.is_success() { read_json(url, &body) } else { Err(refused(url, status, &body)) }
    }

    /// `POST`s `body`, under an idempotency key if there is one. The answer to a success is read as JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        content_type: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<PostAnswer<T>, HttpCallError> {
        let mut headers = vec![(CONTENT_TYPE, content_type)];
        headers.extend(key.map(|key| (HeaderName::from_static("idempotency-key"), key)));
        let (status, pause, body) = self.call(Method::POST, url, &headers, body).await?;
        match status {
            StatusCode::CREATED => read_json(url, &body).map(PostAnswer::Created),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Ok(PostAnswer::RetryAfter(pause.unwrap_or(DEFAULT_RETRY_AFTER)))
            }
            _ => Err(refused(url, status, &body)),
        }
    }
}

fn read_json<T: DeserializeOwned>(url: &str, body: &[u8]) -> Result<T, HttpCallError> {
    serde_json::from_slice(body).map_err(|source| HttpCallError::Malformed { url: url.to_owned(), source })
}

fn refused(url: &str, status: StatusCode, body: &[u8]) -> HttpCallError {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said = problem["detail"].as_str().or(problem["title"].as_str()).map(str::to_owned);
    let detail = said.unwrap_or_else(|| {
        String::from_utf8_lossy(body).chars().take(300).collect::<String>().trim().to_owned()
    });
    HttpCallError::Refused { url: url.to_owned(), status, detail }
}

/// Percent-encodes `text` as one segment of a path or one value of a query.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_garages_survive_a_query() {
        assert_eq!(percent_encoded("Bull Ring"), "Bull%20Ring");
        assert_eq!(percent_encoded("a&b=c+é"), "a%26b%3Dc%2B%C3%A9");
    }

    #[test]
    fn a_refusal_says_what_the_daemon_said() {
        let body = br#"{"title":"full","detail":"the outbox is full"}"#;
        let said = refused("http://x/", StatusCode::INSUFFICIENT_STORAGE, body).to_string();
        assert!(said.contains("507") && said.ends_with("the outbox is full"), "{said}");
        let said = refused("http://x/", StatusCode::BAD_GATEWAY, b"oops\n").to_string();
        assert!(said.ends_with(": oops"), "{said}");
    }
}
