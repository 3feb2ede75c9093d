//! A client of both daemons.

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use ureq::Agent;

/// Longer than any answer may take; beyond it the answer counts as never come.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// An answer of any status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    /// The header of this name: seconds.
    pub retry_after: Option<String>,
    /// All headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The values of all headers of this name, one in each line.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.iter().filter(|(its, _)| its == name).map(|(_, value)| value.as_str());
        values.collect::<Vec<_>>().join("\n")
    }

    /// Checks that this is a problem with this code, and gives its detail.
    pub fn problem_with(&self, status: u16, code: &str) -> String {
        let detail = self.problem(status);
        assert_eq!(self.json()["code"], code, "{self:?}");
        detail
    }

    /// Checks that this is a problem of `status` as the contract has it, and gives its detail.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status, "{self:?}");
        body["detail"].as_str().unwrap_or_else(|| panic!("it has no detail: {self:?}")).to_owned()
    }
}

/// Why there is no answer.
#[derive(Debug)]
#[allow(dead_code, reason = "a failure shows the reasons")]
pub enum NoAnswer {
    /// Nobody listened: the request was never sent.
    NotSent(String),
    /// It was sent, or may have been, and what became of it is unknown.
    Unknown(String),
}

/// Speaks to one daemon.
#[derive(Clone)]
pub struct Http {
    base: String,
    agent: Agent,
    /// Those that each request has.
    headers: Vec<(String, String)>,
}

impl Http {
    pub fn new(address: SocketAddr) -> Http {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WITHIN))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .no_delay(true)
            .build();
        Http { base: format!("http://{address}"), agent: config.new_agent(), headers: Vec::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The same client with another header in each request.
    pub fn with(&self, name: &str, value: &str) -> Http {
        let mut http = self.clone();
        http.headers.push((name.to_owned(), value.to_owned()));
        http
    }

    fn with_headers<B>(&self, mut request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    pub fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        heard(self.with_headers(self.agent.get(format!("{}{path}", self.base))).call())
    }

    /// The answer to a question that must succeed.
    pub fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).unwrap_or_else(|error| panic!("GET {path}: {error:?}"));
        assert_eq!(answer.status, 200, "GET {path}: {answer:?}");
        answer.json()
    }

    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
        let request = self.with_headers(self.agent.post(format!("{}{path}", self.base)));
        heard(request.header("Content-Type", content_type).send(body))
    }

    /// The same under an idempotency key.
    pub fn post_with_key(
        &self,
        path: &str,
        content_type: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Answer, NoAnswer> {
        let request = self.with_headers(self.agent.post(format!("{}{path}", self.base)));
        heard(request.header("Content-Type", content_type).header("Idempotency-Key", key).send(body))
    }

    /// Any method, with a body.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Answer, NoAnswer> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.header("Content-Type", content_type).body(body).unwrap();
        let request = self.agent.configure_request(request).allow_non_standard_methods(true).build();
        heard(self.agent.run(request))
    }

    /// `POST /v1/events`.
    pub fn post_event(&self, event: &Value) -> Result<Answer, NoAnswer> {
        self.post("/v1/events", "application/json", event.to_string().as_bytes())
    }

    /// `POST /v1/events/batch`.
    pub fn post_batch(&self, ndjson: &str) -> Result<Answer, NoAnswer> {
        self.post("/v1/events/batch", "application/x-ndjson", ndjson.as_bytes())
    }
}

fn heard(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, NoAnswer> {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(ureq::Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(NoAnswer::NotSent(error.to_string()));
        }
        Err(error) => return Err(NoAnswer::Unknown(error.to_string())),
    };
    let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
    let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
    let headers = answer.headers().iter();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect();
    let body = answer.body_mut().with_config().limit(64 * 1024 * 1024).read_to_string();
    let body = body.map_err(|error| NoAnswer::Unknown(error.to_string()))?;
    Ok(Answer { status: answer.status().as_u16(), content_type, retry_after, headers, body })
}

/// Sends these bytes as they are and reads what comes back, if anything does: for what no client would send.
pub fn send_bytes(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    // A daemon that waits for more gets no more: after this the writing side is closed.
    const NO_MORE_AFTER: Duration = Duration::from_millis(300);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(NO_MORE_AFTER)).unwrap();
    stream.set_write_timeout(Some(ANSWER_WITHIN)).unwrap();
    // It may have answered and closed before it has read all.
    let _ = stream.write_all(bytes);
    let mut received = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let mut closed_our_side = false;
    loop {
        if let Some((answer, _)) = parse_answer(&received) {
            return Some(answer);
        }
        match stream.read(&mut chunk) {
            Ok(0) => return None,
            Ok(length) => received.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if closed_our_side {
                    return None;
                }
                let _ = stream.shutdown(Shutdown::Write);
                stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
                closed_our_side = true;
            }
            Err(_) => return None,
        }
    }
}

/// Opens a connection to the daemon of `dir` and sends the beginning of a post on it.
pub fn send_half_a_request(dir: &Path) -> TcpStream {
    let address = std::fs::read_to_string(dir.join("http.addr")).unwrap();
    let mut stream = TcpStream::connect(address.trim()).unwrap();
    let half = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{";
    stream.write_all(half.as_bytes()).unwrap();
    stream
}

/// The first answer in what was received, once it is complete, and how long it is.
pub fn parse_answer(received: &[u8]) -> Option<(Answer, usize)> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let length: usize = header("content-length:").map_or(Ok(0), |length| length.parse()).unwrap();
    let body = received[end + 4..].get(..length)?;
    let answer = Answer {
        status: head.split_whitespace().nth(1)?.parse().ok()?,
        content_type: header("content-type:").unwrap_or_default(),
        retry_after: header("retry-after:"),
        headers: head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(a, b)| (a.into(), b.into()))
            .collect(),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    Some((answer, end + 4 + length))
}
