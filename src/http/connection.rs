//! One HTTP connection: its stage, how long a stage may last, and the last answer when the connection has to end.
//!
//! | stage | becomes | when | may last |
//! | --- | --- | --- | --- |
//! | Waiting | Receiving | a byte of a request comes | 30 s before the first request (408), 120 s after an answer (closed) |
//! | Receiving | Working | header and body are here | 30 s from the first byte, of a first request from the accept (408) |
//! | Working | Answering | the handler has answered | as long as the handler needs |
//! | Answering | Waiting | the answer is with the kernel | 30 s without progress, 10 min in all (reset) |
//! | Streaming | Waiting | the answer, which has no end of its own ([`super::events`]), was ended | 30 s without progress (reset) |
//!
//! hyper reads requests and writes answers; what it reads and writes passes through [`WatchedStream`], which keeps the [`ConnectionProgress`].
//! The handler is a part of the connection's future: when the connection ends, so does the handler.

use super::Problem;
use super::stream::HttpStream;
use axum::body::Body;
use axum::http::StatusCode;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Clone)]
pub struct TimeLimits {
    pub request: Duration,
    /// Limit between an answer and the next request.
    pub idle: Duration,
    /// Limit for a client that does not read its answer.
    pub stalled: Duration,
    pub answer: Duration,
    /// Limit between two parts of the rest of a body that its handler did not read.
    pub unwanted_body: Duration,
    /// Limit for the client to close after our last answer: if we closed while it still sends, its kernel would drop the answer.
    pub linger: Duration,
    /// Limit for receiving the rest of a request when the daemon stops.
    pub rest_at_stop: Duration,
    /// Limit for answering whole requests when the daemon stops.
    pub grace: Duration,
}

impl Default for TimeLimits {
    fn default() -> TimeLimits {
        TimeLimits {
            request: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            stalled: Duration::from_secs(30),
            answer: Duration::from_secs(600),
            unwanted_body: Duration::from_secs(1),
            linger: Duration::from_secs(2),
            rest_at_stop: Duration::from_millis(250),
            grace: Duration::from_secs(2),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionStage {
    Waiting,
    Receiving,
    Working,
    Answering,
    Streaming,
}

/// What a connection does that can give way, least useful first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It never sent a whole request.
    NoRequestYet,
    /// It was given an answer and has not sent anything since.
    Idle,
    /// It was given an answer and has sent a part of the next request.
    Receiving,
    /// It does not read its answer.
    NotReading,
    /// It reads an answer that has no end of its own. It can be asked for again, so nothing is lost with it.
    Streaming,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExchangeState {
    /// The handler has not been called, so hyper has nothing of ours to write.
    None,
    Called,
    /// hyper has taken the whole answer, but may not have written all of it.
    Taken,
}

/// The state of a connection. It decides time limits only, and reads no clock.
#[derive(Debug)]
pub(super) struct ConnectionProgress {
    pub stage: ConnectionStage,
    /// When the stage began; of a first request, when the connection was accepted.
    since: Instant,
    exchange: ExchangeState,
    served: bool,
    /// Since when the client has not read what is written.
    stalled_since: Option<Instant>,
    /// What the answer takes that is being written.
    pub answer_bytes: u64,
    /// The client has closed its sending direction.
    pub eof: bool,
    /// The status of an answer that hyper made up itself; see [`WatchedStream::poll_write`].
    hypers_own: Option<u16>,
}

impl ConnectionProgress {
    fn go(&mut self, stage: ConnectionStage, now: Instant) {
        self.stage = stage;
        self.since = now;
        self.stalled_since = None;
    }

    fn bytes_came(&mut self, now: Instant) {
        if self.stage == ConnectionStage::Waiting {
            // The time of a first request runs from the accept: a silent connection cannot prolong it with one byte.
            let since = if self.served { now } else { self.since };
            self.go(ConnectionStage::Receiving, since);
        }
    }

    pub fn handler_called(&mut self, now: Instant) {
        self.exchange = ExchangeState::Called;
        self.bytes_came(now); // it may have come together with the request before it,
        if self.stage == ConnectionStage::Answering {
            self.go(ConnectionStage::Receiving, now); // and be read before the answer to that one is written
        }
    }

    pub fn request_complete(&mut self, now: Instant) {
        if self.stage == ConnectionStage::Receiving {
            self.go(ConnectionStage::Working, now);
        }
    }

    pub fn handler_answered(&mut self, now: Instant, answer_bytes: u64) {
        self.go(ConnectionStage::Answering, now);
        self.answer_bytes = answer_bytes;
    }

    /// The answer has no end of its own.
    pub fn stream_begun(&mut self, now: Instant) {
        self.go(ConnectionStage::Streaming, now);
    }

    /// Bytes of such an answer are to be written.
    pub fn streamed(&mut self, bytes: u64) {
        self.answer_bytes += bytes;
    }

    pub fn answer_taken(&mut self) {
        if self.exchange == ExchangeState::Called {
            self.exchange = ExchangeState::Taken;
        }
    }

    pub fn flushed(&mut self, now: Instant) {
        let is_answering = matches!(self.stage, ConnectionStage::Answering | ConnectionStage::Streaming);
        if self.stage == ConnectionStage::Streaming {
            (self.answer_bytes, self.stalled_since) = (0, None);
        }
        if is_answering && self.exchange == ExchangeState::Taken {
            self.served = true;
            self.exchange = ExchangeState::None;
            self.answer_bytes = 0;
            self.go(ConnectionStage::Waiting, now);
        }
    }

    pub fn stalled(&mut self, now: Instant) {
        self.stalled_since.get_or_insert(now);
    }

    pub fn stalled_since(&self) -> Option<Instant> {
        let is_answering = matches!(self.stage, ConnectionStage::Answering | ConnectionStage::Streaming);
        self.stalled_since.filter(|_| is_answering)
    }

    /// Whether the connection can be closed without losing the answer to a whole request of a client that reads.
    pub fn can_give_way(&self) -> bool {
        match self.stage {
            ConnectionStage::Waiting | ConnectionStage::Receiving | ConnectionStage::Streaming => true,
            ConnectionStage::Working => false,
            ConnectionStage::Answering => self.stalled_since.is_some(),
        }
    }

    /// When the time of the connection runs out; `None` while it waits only for the handler.
    pub fn deadline(&self, limits: &TimeLimits) -> Option<Instant> {
        match self.stage {
            ConnectionStage::Waiting if self.served => Some(self.since + limits.idle),
            ConnectionStage::Waiting | ConnectionStage::Receiving => Some(self.since + limits.request),
            ConnectionStage::Working => None,
            ConnectionStage::Answering => {
                let whole = self.since + limits.answer;
                Some(self.stalled_since.map_or(whole, |since| whole.min(since + limits.stalled)))
            }
            ConnectionStage::Streaming => self.stalled_since.map(|since| since + limits.stalled),
        }
    }

    /// The rank among the connections that can be closed for another; `None` when this one cannot.
    pub fn standing(&self, now: Instant) -> Option<(Standing, Instant)> {
        /// A busy client may not read for a moment.
        const STALLED: Duration = Duration::from_secs(5);
        match self.stage {
            ConnectionStage::Waiting | ConnectionStage::Receiving if !self.served => {
                Some((Standing::NoRequestYet, self.since))
            }
            ConnectionStage::Waiting => Some((Standing::Idle, self.since)),
            ConnectionStage::Receiving => Some((Standing::Receiving, self.since)),
            ConnectionStage::Working => None,
            ConnectionStage::Streaming => match self.stalled_since {
                Some(since) if now.saturating_duration_since(since) >= STALLED => {
                    Some((Standing::NotReading, since))
                }
                _ => Some((Standing::Streaming, self.since)),
            },
            ConnectionStage::Answering => {
                let since = self.stalled_since?;
                (now.saturating_duration_since(since) >= STALLED).then_some((Standing::NotReading, since))
            }
        }
    }

    pub fn last_words(&self, end: &ConnectionEnd, limits: &TimeLimits) -> LastWords {
        use ConnectionStage::{Answering, Receiving, Streaming, Waiting, Working};
        let cut_off = |why| {
            let detail = format!("{why} before the request was complete. Nothing was stored; send it again");
            LastWords::Say(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1))
        };
        match (end, self.stage) {
            (ConnectionEnd::Served(result), _) => self.ended(result.as_ref().err()),
            (ConnectionEnd::GivesWay | ConnectionEnd::Stopped, Streaming) if self.stalled_since.is_none() => {
                LastWords::None
            }
            (_, Working | Answering | Streaming) => LastWords::Reset,
            (ConnectionEnd::TimedOut, Waiting) if self.served => LastWords::None,
            (ConnectionEnd::TimedOut, Waiting | Receiving) => {
                let seconds = limits.request.as_secs();
                let detail = format!(
                    "a request has to be complete, header and body, within {seconds} s. Nothing was stored; send it again"
                );
                LastWords::Say(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
            }
            (ConnectionEnd::GivesWay | ConnectionEnd::Stopped, Waiting) => LastWords::None,
            (ConnectionEnd::GivesWay, Receiving) => cut_off("other clients needed the connection"),
            (ConnectionEnd::Stopped, Receiving) => cut_off("this daemon was stopped"),
        }
    }

    fn ended(&self, error: Option<&hyper::Error>) -> LastWords {
        let Some(error) = error.filter(|_| self.exchange == ExchangeState::None) else {
            return LastWords::None;
        };
        let own = self.hypers_own.and_then(|status| StatusCode::from_u16(status).ok());
        let mut status = own.unwrap_or(StatusCode::BAD_REQUEST);
        let detail = match own {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => {
                "the header of the request is too long".into()
            }
            Some(StatusCode::URI_TOO_LONG) => "the path of the request is too long".into(),
            None if error.is_parse_version_h2() => {
                status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
                "HTTP/2 is not supported. Use HTTP/1.1".into()
            }
            None if error.is_incomplete_message() => {
                "the connection was closed before the header of the request was complete".into()
            }
            None if !error.is_parse() => return LastWords::None,
            Some(_) | None => format!("not a valid HTTP/1.1 request: {error}"),
        };
        LastWords::Say(Problem::new(status, format!("{detail}. Nothing was stored")))
    }
}

pub(super) enum ConnectionEnd {
    /// hyper ended it.
    Served(Result<(), hyper::Error>),
    TimedOut,
    GivesWay,
    Stopped,
}

#[derive(Debug)]
pub(super) enum LastWords {
    None,
    Say(Problem),
    /// The client does not read: what waits for it in the kernel is dropped.
    Reset,
}

#[derive(Debug)]
pub(super) struct Watch(Mutex<ConnectionProgress>);

impl Watch {
    /// Of a connection that was just accepted.
    pub fn new(now: Instant) -> Arc<Watch> {
        Arc::new(Watch(Mutex::new(ConnectionProgress {
            stage: ConnectionStage::Waiting,
            since: now,
            exchange: ExchangeState::None,
            served: false,
            stalled_since: None,
            answer_bytes: 0,
            eof: false,
            hypers_own: None,
        })))
    }

    pub fn progress(&self) -> MutexGuard<'_, ConnectionProgress> {
        self.0.lock().expect("no thread panics while it holds the progress of a connection")
    }
}

#[derive(Debug)]
pub(super) struct WatchedStream {
    pub stream: HttpStream,
    pub watch: Arc<Watch>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let mut progress = self.watch.progress();
        if buf.filled().len() > before {
            progress.bytes_came(Instant::now());
        } else {
            progress.eof = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl WatchedStream {
    /// hyper answers what it cannot parse by itself, with an empty body. Our answer says more: of what hyper writes while there
    /// is no exchange only the status is kept, and [`ConnectionProgress::ended`] makes the final answer.
    fn is_hypers_own(&self, bytes: &[u8]) -> bool {
        let mut progress = self.watch.progress();
        if progress.exchange != ExchangeState::None {
            return false;
        }
        let status = bytes.get("HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        progress.hypers_own = progress.hypers_own.or(status);
        true
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        let mut progress = self.watch.progress();
        match written {
            Poll::Ready(_) => progress.stalled_since = None,
            Poll::Pending => progress.stalled(Instant::now()),
        }
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_hypers_own(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_hypers_own(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let mut progress = self.watch.progress();
        match flushed {
            Poll::Ready(Ok(())) => progress.flushed(Instant::now()),
            Poll::Ready(Err(_)) => {}
            // TLS has taken it, and the kernel has no room.
            Poll::Pending => progress.stalled(Instant::now()),
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The body of a request. The part that its handler leaves unread goes to [`UnreadBody`].
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    unread: Arc<UnreadBody>,
    watch: Arc<Watch>,
}

#[derive(Default)]
pub(super) struct UnreadBody(Mutex<Option<Incoming>>);

impl RequestBody {
    pub fn with_unread(incoming: Incoming, watch: &Arc<Watch>) -> (Body, Arc<UnreadBody>) {
        let unread = Arc::default();
        let body =
            RequestBody { incoming: Some(incoming), unread: Arc::clone(&unread), watch: Arc::clone(watch) };
        (Body::new(body), unread)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        let complete = frame.is_none() || incoming.is_end_stream();
        if complete {
            self.watch.progress().request_complete(Instant::now());
        }
        if complete || matches!(frame, Some(Err(_))) {
            self.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && let Ok(mut unread) = self.unread.0.lock()
        {
            *unread = Some(incoming);
        }
    }
}

impl UnreadBody {
    /// Reads the rest of a body that was refused, and drops it, so that the next request on its connection is read, and so that a
    /// client that reads only after sending everything learns the reason. Gives up on a body that is endless or does not arrive.
    pub async fn drop_rest(&self, watch: &Watch, patience: Duration) {
        const REST_MAX: usize = 64 * 1024 * 1024;
        let Some(mut rest) = self.0.lock().ok().and_then(|mut rest| rest.take()) else { return };
        let mut length = 0;
        while length <= REST_MAX {
            let next = std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx));
            match tokio::time::timeout(patience, next).await {
                Ok(Some(Ok(frame))) => length += frame.data_ref().map_or(0, Bytes::len),
                Ok(None) => return watch.progress().request_complete(Instant::now()),
                Ok(Some(Err(_))) | Err(_) => return,
            }
        }
    }
}
