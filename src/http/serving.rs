//! The accept loop and the life of each connection.
//!
//! **Promise.** A whole request is answered, even when its client has closed its sending direction. No client holds a connection
//! longer than [`TimeLimits`] says, and no client keeps others out ([`super::limits`]). Every refusal is a problem that says why,
//! also for requests that never reach a handler. A stop still answers whole requests. It takes about as long as the longest of
//! them, and at most the grace period.
//! **Kept by.** One task for each connection, which owns its stream, its handler and its one timer. hyper continues after a half
//! close, so it does not notice that a client leaves while a handler works, and the handler runs to its end. So each handler must
//! be bounded, and its effects must be correct without its client.
//! **Not promised.** An answer to a client that closes both directions, or that does not read.

use super::Problem;
use super::access::Access;
use super::connection::{
    ConnectionEnd, ConnectionStage, LastWords, RequestBody, TimeLimits, Watch, WatchedStream,
};
use super::events::OpenEnded;
use super::hosts::{Arrival, KnownHosts};
use super::limits::{ConnectionSlot, Connections};
use super::pages;
use super::stream::HttpStream;
use crate::audit::AuditKind;
use crate::codes;
use crate::transport::tls::web::WebAcceptor;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidData};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The longest header of a request; also how much of a body hyper reads at a time.
const HEADER_MAX: usize = 16 * 1024;
/// Only answers of at least this length count toward the memory of all answers together.
const LARGE_ANSWER: u64 = 16 * 1024;
/// How long the loop waits after the system had no descriptor or memory for a connection, and none could be closed.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);
/// Minimum interval between two log lines about that.
const LOG_FAILED_ACCEPT_EVERY: Duration = Duration::from_secs(60);
/// How long after a stop an idle connection is still read: a request that was sent before the stop may not have been read yet.
const SENT_BEFORE_STOP: Duration = Duration::from_millis(20);
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub struct Rules {
    pub times: TimeLimits,
    pub hosts: KnownHosts,
    /// `None`: without TLS.
    pub tls: Option<WebAcceptor>,
    /// Notes requests that were meant for another host.
    pub access: Option<Access>,
}

/// Serves `router` on `listener` until `stop`, and then answers what is complete.
pub async fn serve(
    rules: Rules,
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    connections: Arc<Connections>,
) {
    let host = Arc::new(Host {
        router: TowerToHyperService::new(router),
        connections: Arc::clone(&connections),
        times: rules.times,
        hosts: rules.hosts,
        tls: rules.tls,
        access: rules.access,
        stop,
    });
    let mut tasks = JoinSet::new();
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = host.stop.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                say_if_panicked(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match connections.admit(peer.ip()).await {
                Some(place) => {
                    // Without it the second part of an answer may wait for the client's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    tasks.spawn(Arc::clone(&host).serve_connection(stream, peer, place));
                }
                None => refuse(&stream, peer),
            },
            // The client has gone already.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {
            }
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() >= LOG_FAILED_ACCEPT_EVERY) {
                    tracing::error!(
                        code = %codes::CONNECTION_NOT_ACCEPTED,
                        %error,
                        hint = "raise the limit of open files (ulimit -n); idle connections are closed to make room",
                        "a connection could not be accepted"
                    );
                    logged = Some(Instant::now());
                }
                if !connections.free_a_descriptor().await {
                    let _ = timeout(AFTER_FAILED_ACCEPT, host.stop.cancelled()).await;
                }
            }
        }
    }
    drop(listener);
    let answered = async {
        while let Some(ended) = tasks.join_next().await {
            say_if_panicked(ended);
        }
    };
    if timeout(host.times.grace, answered).await.is_err() {
        let open = tasks.len();
        tracing::warn!(
            code = %codes::STOP_TOO_SLOW,
            open,
            hint = "nothing to do: everything that was confirmed is on the disk",
            "some requests were not answered in time while the daemon stopped"
        );
    }
}

fn say_if_panicked(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(
            code = %codes::CONNECTION_PANICKED,
            %error,
            hint = "report this with the log",
            "a connection ended because of a bug in this program"
        );
    }
}

/// Answers a client for which there is no slot. This costs no task, so the answer is sent only if that is possible at once.
fn refuse(stream: &TcpStream, peer: SocketAddr) {
    tracing::debug!(%peer, "refused: all connections are being answered");
    let detail = "this daemon is already answering as many connections as it can. Nothing was stored; send it again in a moment";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1);
    let _ = stream.try_write(&problem.to_bytes());
}

fn panicked() -> Problem {
    let detail = "this request met a bug in the program, and whether it was stored is not known. Send it again with the same Idempotency-Key, and please report this with the log";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

struct Host {
    router: TowerToHyperService<Router>,
    connections: Arc<Connections>,
    times: TimeLimits,
    hosts: KnownHosts,
    tls: Option<WebAcceptor>,
    access: Option<Access>,
    stop: CancellationToken,
}

impl Host {
    async fn serve_connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: ConnectionSlot) {
        let Ok(local) = stream.local_addr() else { return };
        let arrival = Arrival { client: peer.ip().to_canonical(), local };
        let Some(stream) = self.secured(stream, &place).await else { return };
        let watch = Arc::clone(&place.watch);
        let io = TokioIo::new(WatchedStream { stream, watch: Arc::clone(&watch) });
        let exchange =
            RequestService { host: Arc::clone(&self), id: place.id, arrival, watch: Arc::clone(&watch) };
        let mut connection = http1::Builder::new()
            .half_close(true)
            .header_read_timeout(None)
            .max_buf_size(HEADER_MAX)
            .serve_connection(io, exchange);
        let end = self.drive(&mut connection, &place).await;
        let last_words = watch.progress().last_words(&end, &self.times);
        let traffic = &self.connections.traffic;
        match (&end, &last_words) {
            (ConnectionEnd::TimedOut, LastWords::Say(_)) => _ = traffic.requests_timed_out.inc(),
            (ConnectionEnd::TimedOut, LastWords::Reset) => _ = traffic.answers_timed_out.inc(),
            (ConnectionEnd::Served(_), LastWords::Say(_)) => _ = traffic.requests_invalid.inc(),
            _ => {}
        }
        // The handler ends here, if it is still there.
        let stream = connection.into_parts().io.into_inner().stream;
        let closing = self.close(stream, &watch, last_words, &place);
        match end {
            // Another connection waits for its descriptor: what cannot be said and heard at once is not.
            ConnectionEnd::GivesWay => _ = closing.now_or_never(),
            _ => closing.await,
        }
    }

    /// Does the handshake of TLS, where there is TLS. `None`: it failed, or the connection had to end.
    async fn secured(&self, stream: TcpStream, place: &ConnectionSlot) -> Option<HttpStream> {
        let Some(tls) = &self.tls else { return Some(HttpStream::Plain(stream)) };
        let traffic = &self.connections.traffic;
        let handshake = async {
            const HANDSHAKE_RECORD: u8 = 0x16;
            let mut first = [0];
            if stream.peek(&mut first).await.is_ok_and(|length| length == 1 && first[0] != HANDSHAKE_RECORD) {
                let detail = "this port speaks TLS: use https://. Nothing was stored";
                let _ = stream.try_write(&Problem::new(StatusCode::BAD_REQUEST, detail).to_bytes());
                traffic.requests_invalid.inc();
                let stream = HttpStream::Plain(stream);
                self.close(stream, &place.watch, LastWords::None, place).await;
                return None;
            }
            match tls.accept(stream).await {
                Ok(stream) => Some(HttpStream::Tls(Box::new(stream))),
                Err(error) => {
                    if error.kind() == InvalidData {
                        traffic.requests_invalid.inc();
                    }
                    tracing::debug!(%error, "a handshake of TLS failed");
                    None
                }
            }
        };
        tokio::select! {
            secured = timeout(self.times.request, handshake) => secured.unwrap_or_else(|_| {
                traffic.requests_timed_out.inc();
                None
            }),
            () = place.gives_way.notified() => None,
            () = self.stop.cancelled() => None,
        }
    }

    /// Lets hyper serve the connection until something ends it.
    async fn drive(
        &self,
        connection: &mut http1::Connection<TokioIo<WatchedStream>, RequestService>,
        place: &ConnectionSlot,
    ) -> ConnectionEnd {
        // Deadlines mostly move further away: the timer is set again when it fires, or when one is nearer.
        const FAR_AWAY: Duration = Duration::from_secs(24 * 60 * 60);
        let first = place.watch.progress().deadline(&self.times);
        let mut timer = pin!(sleep_until(first.unwrap_or(Instant::now() + FAR_AWAY).into()));
        let mut gives_way = pin!(place.gives_way.notified());
        let mut stop = pin!(self.stop.cancelled());
        let (mut asked_to_give_way, mut stopped_at) = (false, None);
        poll_fn(|cx| {
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(ConnectionEnd::Served(result));
            }
            let now = Instant::now();
            asked_to_give_way = asked_to_give_way || gives_way.as_mut().poll(cx).is_ready();
            if stopped_at.is_none() && stop.as_mut().poll(cx).is_ready() {
                stopped_at = Some(now);
            }
            let (stage, mut deadline, can_give_way) = {
                let progress = place.watch.progress();
                (progress.stage, progress.deadline(&self.times), progress.can_give_way())
            };
            // Its request may have become complete meanwhile: then it is answered first.
            if asked_to_give_way && can_give_way {
                return Poll::Ready(ConnectionEnd::GivesWay);
            }
            if let Some(stopped_at) = stopped_at {
                match stage {
                    ConnectionStage::Waiting => deadline = Some(stopped_at + SENT_BEFORE_STOP),
                    ConnectionStage::Receiving => deadline = Some(stopped_at + self.times.rest_at_stop),
                    ConnectionStage::Working | ConnectionStage::Answering => {
                        Pin::new(&mut *connection).graceful_shutdown()
                    }
                    // It ends by itself, if its client reads.
                    ConnectionStage::Streaming => {
                        deadline = Some(stopped_at + self.times.rest_at_stop);
                        Pin::new(&mut *connection).graceful_shutdown()
                    }
                }
            }
            let deadline = deadline.unwrap_or(now + FAR_AWAY);
            if deadline < timer.deadline().into_std() {
                timer.as_mut().reset(deadline.into());
            }
            while timer.as_mut().poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(if stopped_at.is_some() {
                        ConnectionEnd::Stopped
                    } else {
                        ConnectionEnd::TimedOut
                    });
                }
                timer.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await
    }

    /// Sends the final answer and closes. Data from a client that still sends is read for a while: closing with unread bytes
    /// causes a reset, which may destroy the final answer.
    async fn close(
        &self,
        mut stream: HttpStream,
        watch: &Watch,
        last_words: LastWords,
        place: &ConnectionSlot,
    ) {
        match last_words {
            LastWords::Reset => {
                let _ = stream.tcp().set_zero_linger(); // what is unsent is dropped
                return;
            }
            LastWords::None => {}
            LastWords::Say(problem) => {
                let bytes = problem.to_bytes();
                if !matches!(timeout(LAST_WORDS_WITHIN, stream.write_all(&bytes)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
        let patience = if self.stop.is_cancelled() { self.times.rest_at_stop } else { self.times.linger };
        let heard_out = async {
            // The end of TLS is a message, for which there may be no room.
            if stream.shutdown().await.is_err() || watch.progress().eof {
                return;
            }
            let mut bytes = vec![0; HEADER_MAX];
            while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
        };
        tokio::select! {
            _ = timeout(patience, heard_out) => {}
            () = place.gives_way.notified() => {}
        }
    }
}

struct RequestService {
    host: Arc<Host>,
    id: u64,
    arrival: Arrival,
    watch: Arc<Watch>,
}

impl hyper::service::Service<Request<Incoming>> for RequestService {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let watch = Arc::clone(&self.watch);
        watch.progress().handler_called(Instant::now());
        let (mut head, incoming) = request.into_parts();
        let (body, unread) = if incoming.is_end_stream() {
            watch.progress().request_complete(Instant::now());
            (Body::empty(), None)
        } else {
            let (body, unread) = RequestBody::with_unread(incoming, &watch);
            // A client that asks first is answered first: it does not send what is not wanted.
            (body, Some(unread).filter(|_| !head.headers.contains_key(header::EXPECT)))
        };
        // At the level debug only: a path may hold a plate.
        let span = tracing::debug_span!("http", method = %head.method, path = head.uri.path());
        let is_meant = self.host.hosts.check(&head, &self.arrival);
        if let (Err(problem), Some(access)) = (&is_meant, &self.host.access) {
            access.note(AuditKind::Refused, head.uri.path(), None, self.arrival, problem.code.as_str());
        }
        head.extensions.insert(self.arrival);
        let answer = is_meant.map(|()| self.host.router.call(Request::from_parts(head, body)));
        let patience = self.host.times.unwanted_body;
        let (host, id) = (Arc::clone(&self.host), self.id);
        let answering = async move {
            let mut response = match answer {
                Err(problem) => problem.into_response(),
                Ok(answer) => match AssertUnwindSafe(answer).catch_unwind().await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_) => panicked().into_response(),
                },
            };
            pages::protect(response.headers_mut());
            tracing::debug!(status = response.status().as_u16(), "answered");
            if let Some(unread) = unread {
                unread.drop_rest(&watch, patience).await;
            }
            let bytes = axum::body::HttpBody::size_hint(response.body()).lower();
            let is_open_ended = response.extensions().get::<OpenEnded>().is_some();
            watch.progress().handler_answered(Instant::now(), bytes);
            if is_open_ended {
                watch.progress().stream_begun(Instant::now());
            }
            if bytes >= LARGE_ANSWER {
                host.connections.make_room_for_answers(id, Instant::now());
            }
            let streams = is_open_ended.then_some((host, id));
            Ok(response.map(|body| AnswerBody { body, watch, streams }))
        };
        Box::pin(tracing::Instrument::instrument(answering, span))
    }
}

/// The body of an answer: says when hyper has taken it.
struct AnswerBody {
    body: Body,
    watch: Arc<Watch>,
    /// Of an answer that has no end of its own: where its parts count, and its connection.
    streams: Option<(Arc<Host>, u64)>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some((host, id)), Poll::Ready(Some(Ok(frame)))) = (&self.streams, &polled) {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.watch.progress().streamed(bytes);
            if bytes >= LARGE_ANSWER {
                host.connections.make_room_for_answers(*id, Instant::now());
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.watch.progress().answer_taken();
    }
}
