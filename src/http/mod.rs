//! HTTP for both daemons: problems, lists, listening, connections and their limits.

pub mod access;
pub mod bodies;
pub mod cameras;
pub mod client;
mod connection;
pub mod events;
mod hosts;
mod limits;
pub mod metrics;
mod pages;
mod serving;
mod sign_in;
mod stream;
#[cfg(test)]
mod tests;
pub mod tokens;

pub use connection::TimeLimits;
pub use hosts::{Arrival, KnownHosts};
pub use limits::{ConnectionLimits, Connections};
pub use pages::page_for;
pub use serving::{Rules, serve};
pub use sign_in::with_sign_in;

use crate::codes::{self, Code};
use axum::Json;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel keeps until they are accepted. Beyond it, a client waits for a second before it tries again.
const BACKLOG: u32 = 4096;
/// Bytes that the kernel keeps of a connection in each direction. It might grow to many times as much for a client that does not read.
const SOCKET_BUFFER: u32 = 256 * 1024;

/// An error answer: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    pub status: u16,
    pub title: &'static str,
    /// A stable code by which programs can distinguish problems, in lower snake case.
    pub code: Code,
    /// What happened, what it means for the data, what to do.
    pub detail: String,
    #[serde(skip)]
    pub retry_after_seconds: Option<u32>,
}

impl Problem {
    /// A problem with the default code of its status; see [`Problem::code`].
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error"),
            code: code_of(status),
            detail: detail.into(),
            retry_after_seconds: None,
        }
    }

    /// Replaces the code, where programs may want to distinguish this problem from others with the same status.
    pub fn code(mut self, code: Code) -> Problem {
        self.code = code;
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Problem {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// A failure of this daemon; the details are in the log.
    pub fn internal(error: &dyn std::fmt::Display) -> Problem {
        tracing::error!(
            code = %codes::INTERNAL_ERROR,
            %error,
            hint = "report this with the log; stored events are not affected",
            "a request could not be answered"
        );
        let detail = format!("{error}. The request changed nothing; the log of this daemon says more");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The whole answer as bytes, for a connection that hyper does not write to and that is closed after it.
    fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.status,
            self.title,
            body.len()
        );
        #[expect(clippy::disallowed_methods, reason = "this layer knows no daemon")]
        let now = jiff::Timestamp::now();
        if let Ok(date) = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
            head += &format!("Date: {date}\r\n");
        }
        if let Some(seconds) = self.retry_after_seconds {
            head += &format!("Retry-After: {seconds}\r\n");
        }
        [head.as_bytes(), b"\r\n", &body].concat()
    }
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => codes::BAD_REQUEST,
        StatusCode::NOT_FOUND => codes::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED => codes::METHOD_NOT_ALLOWED,
        StatusCode::REQUEST_TIMEOUT => codes::REQUEST_TIMEOUT,
        StatusCode::PAYLOAD_TOO_LARGE => codes::TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => codes::UNSUPPORTED_MEDIA_TYPE,
        StatusCode::SERVICE_UNAVAILABLE => codes::UNAVAILABLE,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => codes::HEADERS_TOO_LARGE,
        other if other.is_client_error() => codes::BAD_REQUEST,
        _ => codes::INTERNAL_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Paging {
    pub after: Option<String>,
    pub limit: Option<usize>,
}

/// The `limit` of a list: 1 to 1000, 100 when it is not given.
pub fn list_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        None => Ok(100),
        Some(limit @ 1..=1000) => Ok(limit),
        Some(limit) => Err(bad_query(format!("limit: {limit} is not between 1 and 1000"))),
    }
}

pub fn bad_query(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail).code(codes::INVALID_QUERY)
}

/// The parsed query of a request; one that is not understood is answered with a problem.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(rejection) => Err(bad_query(rejection.body_text())),
        }
    }
}

/// The message of a daemon whose store directory was renamed since the start.
pub fn renamed(now_at: &std::path::Path) -> String {
    format!(
        "the store's directory was renamed while it is in use: it is {now_at:?} now. Events are taken and delivered as ever, and the next start would not find them. Rename it back, or start with the new name as --data-dir"
    )
}

/// The cursor of a query, where it has one. One that this daemon did not give is a problem.
pub fn cursor<T>(after: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let bad = |text: &str| {
        let detail =
            format!("after: {text:?} is not a cursor. Use the value of \"next\" of the previous answer");
        Problem::new(StatusCode::BAD_REQUEST, detail).code(codes::INVALID_CURSOR)
    };
    after.map(|text| parse(text).ok_or_else(|| bad(text))).transpose()
}

/// Runs a read that blocks on the disk.
pub async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Problem> {
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| Problem::internal(&error))?;
    read.map_err(|error| Problem::internal(&error))
}

/// Answers unknown paths and wrong methods with a problem.
pub fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "this path does not exist; the README lists all paths")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method; see the README",
            )
        })
}

/// Why HTTP cannot be served. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}. No event was taken, and none is lost. Is another program there? Choose another {flag}"
)]
pub struct HttpListenError {
    pub address: SocketAddr,
    /// The setting that names it.
    pub flag: &'static str,
    pub source: std::io::Error,
}

/// `flag` is the setting that names the address.
pub async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, HttpListenError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // What is accepted inherits them.
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| HttpListenError { address, flag, source })
}

pub async fn listen_from(address: SocketAddr) -> Result<TcpListener, HttpListenError> {
    let mut last = None;
    for port in address.port()..=u16::MAX {
        match listen(SocketAddr::new(address.ip(), port), "--http").await {
            Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => last = Some(error),
            result => return result,
        }
    }
    Err(last.expect("at least one port was tried"))
}
