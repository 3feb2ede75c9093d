//! `edge outbox …` and `edge ledger …`: what a person at a garage may look at and decide.
//!
//! **Promise.** Looking changes nothing, whether the edge runs or not, and keeps no edge from starting. What is decided is written
//! into the directory itself, which is held meanwhile.
//! **Kept by.** A running edge answers over `admin.sock`. Without one a copy is looked into, because sled writes whenever it opens;
//! the status of a large outbox is read from the note beside its store instead.

use super::Shared;
use super::sending::SenderCommand;
use crate::config::EdgeTask;
use crate::daemon::admin::{self, Call, NotDone, Outcome, Reached};
use crate::daemon::clock;
use crate::messaging::LedgerId;
use crate::messaging::outbox::{HIGH_WATER_FILE, LastKnownStatus, Options, Outbox, WaitingMessage};
use crate::parking::Event;
use crate::parking::event::Shown;
use crate::store::copy::{self, CopyError, Spare};
use crate::store::directory::{DataDir, DirectoryError, Idle, STORE};
use crate::store::{Purpose, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How many events one answer carries.
const PEEK_MOST: usize = 1000;

/// The status of a store above this size is not read from a copy.
const STATUS_COPIES_MOST: u64 = 64 << 20;
/// How long an edge that is just starting or stopping is waited for. Above what a clean stop may take.
const SETTLES_WITHIN: Duration = Duration::from_secs(6);

/// What is asked over `admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Status,
    /// Waiting events behind a place: which epoch of the outbox, and which sequence.
    Peek {
        after: Option<(u32, u64)>,
        limit: usize,
    },
    Verify,
    Adopt {
        ledger: String,
    },
}

/// Where a running edge takes commands.
pub struct Desk {
    shared: Arc<Shared>,
    tell: mpsc::Sender<SenderCommand>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, tell: mpsc::Sender<SenderCommand>) -> Desk {
        Desk { shared, tell }
    }

    pub async fn answer(&self, call: Call<Request>) -> Outcome {
        match call.request {
            Request::Adopt { ledger } => {
                let ledger = read_id(&ledger)?;
                let former = self.shared.outbox.ledger();
                let bound = self.shared.outbox.bind(ledger).await;
                bound.map_err(|error| format!("the edge cannot write that down now: {error}. Try again"))?;
                tracing::warn!(%ledger, former = former.map(|id| id.to_string()), by = call.caller.as_str(), "an operator decided that this garage delivers to another ledger");
                // The sender may be ending: it reads the id at its next start.
                let _ = self.tell.send(SenderCommand::Bound(ledger)).await;
                Ok(adopted(former, ledger))
            }
            request => {
                let outbox = self.shared.outbox.clone();
                let looked = tokio::task::spawn_blocking(move || look(&outbox, &request));
                looked.await.unwrap_or_else(|error| Err(error.to_string().into()))
            }
        }
    }
}

fn read_id(text: &str) -> Result<LedgerId, String> {
    text.parse().map_err(|error| format!("{text:?} is no ledger's id: {error}. Nothing was changed"))
}

fn adopted(former: Option<LedgerId>, ledger: LedgerId) -> Value {
    let from = match former {
        Some(former) if former == ledger => "It did before.".to_owned(),
        Some(former) => format!(
            "It delivered to {former} before: what that ledger had acknowledged is deleted here, and the new one records it as missing"
        ),
        None => "It had not delivered to any ledger yet.".to_owned(),
    };
    json!({ "ledger": ledger.to_string(), "said": format!("This garage delivers to the ledger {ledger} from now on, and to no other. {from}") })
}

/// Everything that changes nothing.
fn look(outbox: &Outbox, request: &Request) -> Outcome {
    let failed = |error: crate::store::StoreError| NotDone::from(error.to_string());
    match request {
        Request::Status => {
            let status = outbox.status().map_err(failed)?;
            let now = clock::read();
            Ok(json!({
                "epoch": status.epoch.to_string(),
                "next_sequence": status.next_sequence,
                "acknowledged": status.acknowledged,
                "depth": status.depth,
                "bytes": status.bytes,
                "epochs": status.epochs,
                "damaged": outbox.damages().iter().map(|damage| damage.last - damage.first + 1).sum::<u64>(),
                "oldest_age_seconds": status.oldest_begun.map(|begun| begun.age_at(&now).as_secs_f64()),
                "ledger": outbox.ledger().map(|ledger| ledger.to_string()),
                "keys_remembered": outbox.keys_remembered(),
            }))
        }
        Request::Peek { after, limit } => {
            let limit = (*limit).min(PEEK_MOST);
            let mut found = outbox.peek(*after, limit + 1).map_err(failed)?;
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|last| (last.epoch_index, last.sequence));
            Ok(json!({ "events": found.into_iter().map(shown).collect::<Vec<_>>(), "next": next }))
        }
        Request::Verify => {
            let found = outbox.inspect().map_err(failed)?;
            Ok(serde_json::to_value(found).map_err(|error| error.to_string())?)
        }
        Request::Adopt { .. } => unreachable!("this changes something"),
    }
}

/// A waiting event in JSON. One that this program does not understand is shown as its bytes.
fn shown(waiting: WaitingMessage) -> Value {
    let mut line = match Event::from_bytes(&waiting.record.payload) {
        Ok(event) => serde_json::to_value(Shown::from(event)).unwrap_or_default(),
        Err(error) => {
            let hex: String = waiting.record.payload.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "not_understood": error.to_string(), "bytes": hex })
        }
    };
    line["epoch"] = waiting.epoch.to_string().into();
    line["sequence"] = waiting.sequence.into();
    if let Some(key) = &waiting.record.key {
        line["idempotency_key"] = String::from_utf8_lossy(&key.text).into();
    }
    line
}

/// Does a task in a data directory; the answer goes to stdout, why not to stderr.
pub fn run(data_dir: &Path, task: &EdgeTask) -> ExitCode {
    let done = match task {
        EdgeTask::Status { json } => one(data_dir, &Request::Status)
            .map(|answer| print(&if *json { line(&answer) } else { fields(&answer) })),
        EdgeTask::Peek { limit } => {
            let request = Request::Peek { after: None, limit: *limit };
            one(data_dir, &request).map(|answer| print(&events(&answer)))
        }
        EdgeTask::Export => export(data_dir),
        EdgeTask::Verify { json } => return verify(data_dir, *json),
        EdgeTask::Adopt { ledger } => one(data_dir, &Request::Adopt { ledger: ledger.to_string() })
            .map(|answer| print(&format!("{}\n", answer["said"].as_str().unwrap_or_default()))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads may have seen enough.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn line(answer: &Value) -> String {
    format!("{answer}\n")
}

fn fields(answer: &Value) -> String {
    let fields = answer.as_object().into_iter().flatten();
    let text = |value: &Value| match value {
        Value::Null => "--".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.map(|(name, value)| format!("{name:<20} {}\n", text(value))).collect()
}

fn events(answer: &Value) -> String {
    answer["events"].as_array().into_iter().flatten().map(line).collect()
}

/// An outbox of a directory on which no edge runs, opened for one answer after another.
struct Offline {
    outbox: Outbox,
    _kept: Kept,
}

/// What an outbox is opened in, until the end.
enum Kept {
    /// The directory itself, held.
    Held(DataDir),
    /// A copy, removed then.
    Copied(TempDir),
}

impl Offline {
    fn open(kept: Kept) -> Result<Offline, String> {
        let dir = match &kept {
            Kept::Held(dir) => dir.path(),
            Kept::Copied(dir) => dir.path(),
        };
        let store = Store::open(&dir.join(STORE), Purpose::Edge).map_err(|error| error.to_string())?;
        // Without a machine: nobody who looks, or decides, is taken for the one that wrote last.
        let options =
            Options { high_water_file: Some(dir.join(HIGH_WATER_FILE)), machine: None, ..Options::default() };
        let outbox = Outbox::open(store, options, clock::read()).map_err(|error| error.to_string())?;
        Ok(Offline { outbox, _kept: kept })
    }

    fn answer(&self, request: &Request) -> Result<Value, String> {
        let Request::Adopt { ledger } = request else {
            return look(&self.outbox, request).map_err(|error| error.to_string());
        };
        let ledger = read_id(ledger)?;
        let former = self.outbox.ledger();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| format!("{error}. Nothing was changed"))?;
        runtime.block_on(self.outbox.bind(ledger)).map_err(|error| error.to_string())?;
        Ok(adopted(former, ledger))
    }
}

/// Where answers come from.
enum Source {
    Daemon,
    Directory(Box<Offline>),
    /// The note beside the store.
    Note,
}

/// Asks once, and says who answered.
fn first(data_dir: &Path, request: &Request) -> Result<(Source, Value), String> {
    let from = |kept| -> Result<_, String> {
        let offline = Offline::open(kept)?;
        let answer = offline.answer(request)?;
        Ok((Source::Directory(Box::new(offline)), answer))
    };
    if matches!(request, Request::Adopt { .. }) {
        return match admin::reach(data_dir, request, |_| {}).map_err(|error| error.to_string())? {
            Reached::Daemon(answer) => Ok((Source::Daemon, answer)),
            Reached::Directory(dir) => from(Kept::Held(dir)),
        };
    }
    let began = Instant::now();
    loop {
        if let Some(answer) = admin::ask(data_dir, request, |_| {}).map_err(|error| error.to_string())? {
            return Ok((Source::Daemon, answer));
        }
        if !data_dir.join(STORE).is_dir() {
            return Err(format!("there is no data directory of an edge in {data_dir:?}"));
        }
        if matches!(request, Request::Status)
            && let Some(answer) = noted(data_dir)
        {
            return Ok((Source::Note, answer));
        }
        match copy::of_idle(data_dir, &[HIGH_WATER_FILE], Spare::ForOpening) {
            Ok(copy) => return from(Kept::Copied(copy)),
            // An edge is just starting or stopping. It will answer, or be gone.
            Err(CopyError::Used { .. } | CopyError::Directory(DirectoryError::Held { .. }))
                if began.elapsed() < SETTLES_WITHIN =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The status of a large outbox on which no edge runs, as far as the note beside the store tells it: without a copy.
fn noted(data_dir: &Path) -> Option<Value> {
    if copy::size_of_store(data_dir).ok()? <= STATUS_COPIES_MOST || Idle::look(data_dir).is_err() {
        return None;
    }
    let noted = LastKnownStatus::read(&data_dir.join(HIGH_WATER_FILE)).ok()??;
    let said = match noted.boot == clock::boot() {
        true => "what the edge noted last; \"edge outbox verify\" reads all of it",
        false => {
            "what the edge noted last, before this machine was started again; after a power cut it may be a moment older than what is stored. \"edge outbox verify\" reads all of it"
        }
    };
    Some(json!({
        "epoch": noted.epoch.to_string(),
        "next_sequence": noted.next_sequence,
        "acknowledged": noted.acknowledged,
        "depth": noted.depth,
        "bytes": null,
        "epochs": noted.epochs,
        "damaged": null,
        "oldest_age_seconds": null,
        "ledger": null,
        "keys_remembered": null,
        "source": said,
    }))
}

fn one(data_dir: &Path, request: &Request) -> Result<Value, String> {
    first(data_dir, request).map(|(_, answer)| answer)
}

/// All waiting events, a JSON object a line.
fn export(data_dir: &Path) -> Result<(), String> {
    let request = |after| Request::Peek { after, limit: PEEK_MOST };
    let (source, mut answer) = first(data_dir, &request(None))?;
    loop {
        match io::stdout().write_all(events(&answer).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()), // the reader has seen enough
            written => written.map_err(|error| error.to_string())?,
        }
        let next: Option<(u32, u64)> =
            serde_json::from_value(answer["next"].clone()).map_err(|error| error.to_string())?;
        let Some(next) = next else { return Ok(()) };
        answer = match &source {
            Source::Daemon => one(data_dir, &request(Some(next)))?,
            Source::Directory(offline) => offline.answer(&request(Some(next)))?,
            Source::Note => unreachable!("it answers for the status alone"),
        };
    }
}

/// Ends with 0 when nothing is wrong, else with 1.
fn verify(data_dir: &Path, as_json: bool) -> ExitCode {
    let found = match one(data_dir, &Request::Verify) {
        Ok(found) => found,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let faults: Vec<&str> =
        found["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if as_json {
        print(&line(&found));
    } else {
        let count = |field: &str| found[field].as_u64().unwrap_or(0);
        print(&format!(
            "{} events in {} pages of {} epochs, {} of them wait; {} keys\n",
            count("messages"),
            count("pages"),
            count("epochs"),
            count("waiting"),
            count("keys")
        ));
        if count("lost") > 0 || count("kept_aside") > 0 {
            print(&format!(
                "{} events are told to the server as lost, {} pages are kept aside: damage of the past\n",
                count("lost"),
                count("kept_aside")
            ));
        }
        match faults.len() {
            0 => print("nothing is wrong\n"),
            n => print(&format!("{n} faults:\n{}\n", faults.join("\n"))),
        }
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
