//! The commands `edge outbox …` and `edge ledger …`, with which a person at a garage reads the outbox or chooses its ledger.
//!
//! **Promise.** Reading changes nothing, whether the edge runs or not, and keeps no edge from starting. The choice of a ledger is
//! written into the directory itself, which is locked meanwhile.
//! **Kept by.** A running edge answers over `admin.sock`. Without one a copy is read, because sled writes whenever it opens;
//! the status of a large outbox is read from the high-water file beside its store instead.
//!
//! With `--json` these print one object. A name with `?` may be absent, a type with `?` may be null:
//!
//! | command | answer |
//! | --- | --- |
//! | `outbox status` | `{"epoch":"text", "next_sequence":"number", "acknowledged":"number", "depth":"number", "bytes":"number?", "epochs":"number", "damaged":"number?", "oldest_age_seconds":"number?", "ledger":"text?", "keys_remembered":"number?", "source?":"text"}`; `source` says that the edge had noted it |
//! | `outbox verify` | `{"epochs":"number", "pages":"number", "messages":"number", "waiting":"number", "keys":"number", "lost":"number", "kept_aside":"number", "faults":["text"]}` |

use super::EdgeShared;
use crate::audit::{Audit, variant};
use crate::codes;
use crate::daemon::admin::{self, Call, DaemonOrDirectory, NotDone, Outcome};
use crate::daemon::audited::{self, Audited};
use crate::daemon::clock;
use crate::messaging::LedgerId;
use crate::messaging::outbox::{self, HIGH_WATER_FILE, Options, Outbox, OutboxStatus, WaitingMessage};
use crate::parking::Event;
use crate::parking::event::EventJson;
use crate::store::copy::{self, CopyError, Spare};
use crate::store::directory::{DirectoryError, Idle, STORE};
use crate::store::{Purpose, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub const PEEK_MOST: usize = 1000;

/// A store above this size is not copied for its status.
const STATUS_COPIES_MOST: u64 = 64 << 20;
/// How long a command waits for an edge that starts or stops: longer than a clean stop may take.
const SETTLES_WITHIN: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeRequest {
    Status,
    /// The waiting events after this epoch (by its index in the outbox) and sequence.
    Peek {
        after: Option<(u32, u64)>,
        limit: usize,
    },
    Verify,
    Adopt {
        ledger: String,
    },
}

impl Audited for EdgeRequest {
    fn audited(&self) -> Option<String> {
        matches!(self, EdgeRequest::Adopt { .. }).then(|| variant(self))
    }
}

pub struct EdgeDesk {
    pub(super) shared: Arc<EdgeShared>,
    /// Where the sender learns of a ledger that was adopted.
    pub(super) adopted: mpsc::Sender<LedgerId>,
    pub(super) audit: Audit,
}

impl EdgeDesk {
    pub async fn answer(&self, call: Call<EdgeRequest>) -> Outcome {
        let (what, caller) = (call.request.audited(), call.caller.clone());
        let outcome = self.carry_out(call).await;
        if let Some(what) = what {
            audited::note(&self.audit, what, &caller, &outcome);
        }
        outcome
    }

    async fn carry_out(&self, call: Call<EdgeRequest>) -> Outcome {
        match call.request {
            EdgeRequest::Adopt { ledger } => {
                let ledger = read_id(&ledger)?;
                let previous = self.shared.outbox.ledger();
                let bound = self.shared.outbox.bind(ledger).await;
                bound.map_err(|error| format!("the edge cannot record this now: {error}. Try again"))?;
                tracing::warn!(
                    code = %codes::LEDGER_ADOPTED,
                    %ledger, previous = previous.map(|id| id.to_string()), by = call.caller.as_str(),
                    "an operator decided that this garage delivers to another ledger"
                );
                // The sender may be ending: it reads the id at its next start.
                let _ = self.adopted.send(ledger).await;
                Ok(adopted(previous, ledger))
            }
            request => {
                let outbox = self.shared.outbox.clone();
                let reading = tokio::task::spawn_blocking(move || read(&outbox, &request));
                reading.await.unwrap_or_else(|error| Err(error.to_string().into()))
            }
        }
    }
}

fn read_id(text: &str) -> Result<LedgerId, String> {
    text.parse().map_err(|error| format!("{text:?} is not the id of a ledger: {error}. Nothing was changed"))
}

fn adopted(previous: Option<LedgerId>, ledger: LedgerId) -> Value {
    let from = match previous {
        Some(previous) if previous == ledger => "It already did.".to_owned(),
        Some(previous) => format!(
            "It delivered to {previous} before: events that the old ledger had acknowledged are deleted here, and the new one records them as missing"
        ),
        None => "It had not delivered to any ledger yet.".to_owned(),
    };
    json!({ "ledger": ledger.to_string(), "said": format!("This garage delivers to the ledger {ledger} from now on, and to no other. {from}") })
}

fn read(outbox: &Outbox, request: &EdgeRequest) -> Outcome {
    match request {
        EdgeRequest::Status => {
            let mut answer = status_json(&outbox.status()?);
            let damaged = outbox.damages().iter().map(|damage| damage.last - damage.first + 1);
            answer["damaged"] = damaged.sum::<u64>().into();
            answer["ledger"] = outbox.ledger().map(|ledger| ledger.to_string()).into();
            answer["keys_remembered"] = outbox.keys_remembered().into();
            Ok(answer)
        }
        EdgeRequest::Peek { after, limit } => {
            let (found, next) = outbox.peek(*after, PEEK_MOST.min(*limit))?;
            Ok(json!({ "events": found.into_iter().map(shown).collect::<Vec<_>>(), "next": next }))
        }
        EdgeRequest::Verify => {
            let found = outbox.inspect()?;
            Ok(serde_json::to_value(found).map_err(|error| error.to_string())?)
        }
        EdgeRequest::Adopt { .. } => unreachable!("this request changes something"),
    }
}

/// A waiting event in JSON. One that this program does not understand is shown as its bytes.
fn shown(waiting: WaitingMessage) -> Value {
    let mut line = match Event::from_bytes(&waiting.record.payload) {
        Ok(event) => serde_json::to_value(EventJson::from(event)).unwrap_or_default(),
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

/// Asks the edge of a data directory: the daemon when it runs, else its directory, which is opened once for all requests.
pub struct EdgeSession<'a> {
    data_dir: &'a Path,
    offline: Option<OfflineOutbox>,
}

impl EdgeSession<'_> {
    pub fn of(data_dir: &Path) -> EdgeSession<'_> {
        EdgeSession { data_dir, offline: None }
    }

    pub fn ask(&mut self, request: &EdgeRequest) -> Outcome {
        if let Some(offline) = &self.offline {
            return offline.answer(request);
        }
        let offline = if matches!(request, EdgeRequest::Adopt { .. }) {
            match admin::reach(self.data_dir, request)? {
                DaemonOrDirectory::Daemon(answer) => return Ok(answer),
                DaemonOrDirectory::Directory(dir) => OfflineOutbox::open(dir.path().to_owned(), dir)?,
            }
        } else {
            match self.read(request)? {
                ReadFrom::Answer(answer) => return Ok(answer),
                ReadFrom::Copy(copy) => OfflineOutbox::open(copy.path().to_owned(), copy)?,
            }
        };
        self.offline.insert(offline).answer(request)
    }

    /// Asks the daemon or reads the high-water file beside the store; makes a copy when neither gives an answer.
    fn read(&self, request: &EdgeRequest) -> Result<ReadFrom, NotDone> {
        let began = Instant::now();
        loop {
            if let Some(answer) = admin::ask(self.data_dir, request)? {
                return Ok(ReadFrom::Answer(answer));
            }
            if !self.data_dir.join(STORE).is_dir() {
                let reason = format!("there is no data directory of an edge in {:?}", self.data_dir);
                return Err(NotDone::Failed(codes::NO_DATA_DIRECTORY, reason));
            }
            if matches!(request, EdgeRequest::Status)
                && let Some(answer) = last_known_status(self.data_dir)
            {
                return Ok(ReadFrom::Answer(answer));
            }
            match copy::of_idle(self.data_dir, &[HIGH_WATER_FILE], Spare::ForOpening) {
                Ok(copy) => return Ok(ReadFrom::Copy(copy)),
                // An edge is just starting or stopping. It will answer, or be gone.
                Err(CopyError::Used { .. } | CopyError::Directory(DirectoryError::Held { .. }))
                    if began.elapsed() < SETTLES_WITHIN =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

enum ReadFrom {
    Answer(Value),
    Copy(TempDir),
}

struct OfflineOutbox {
    outbox: Outbox,
    /// The directory. It is released, or removed, after the outbox.
    _dir: Box<dyn Any>,
}

impl OfflineOutbox {
    fn open(path: PathBuf, dir: impl Any) -> Result<OfflineOutbox, NotDone> {
        let store = Store::open(&path.join(STORE), Purpose::Edge)?;
        // Without a machine: the person who runs this command is not the machine that wrote last.
        let options = Options {
            high_water_file: Some(path.join(HIGH_WATER_FILE)),
            machine: None,
            ..Options::default()
        };
        let outbox = Outbox::open(store, options, clock::read())?;
        Ok(OfflineOutbox { outbox, _dir: Box::new(dir) })
    }

    fn answer(&self, request: &EdgeRequest) -> Outcome {
        let EdgeRequest::Adopt { ledger } = request else {
            return read(&self.outbox, request);
        };
        let ledger = read_id(ledger)?;
        let previous = self.outbox.ledger();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| format!("{error}. Nothing was changed"))?;
        runtime.block_on(self.outbox.bind(ledger)).map_err(|error| error.to_string())?;
        Ok(adopted(previous, ledger))
    }
}

/// The status of a large outbox on which no edge runs, as far as the high-water file beside the store contains it.
fn last_known_status(data_dir: &Path) -> Option<Value> {
    if copy::size_of(&data_dir.join(STORE)).ok()? <= STATUS_COPIES_MOST || Idle::look(data_dir).is_err() {
        return None;
    }
    let (status, boot) = outbox::last_known_status(&data_dir.join(HIGH_WATER_FILE)).ok()??;
    let said = match boot == clock::boot() {
        true => "the last status that the edge wrote down; \"edge outbox verify\" reads the outbox itself",
        false => {
            "the last status that the edge wrote down before this machine was restarted; after a power cut it may be a moment older than the outbox. \"edge outbox verify\" reads the outbox itself"
        }
    };
    let mut answer = status_json(&status);
    for unknown in ["bytes", "damaged", "oldest_age_seconds", "ledger", "keys_remembered"] {
        answer[unknown] = Value::Null;
    }
    answer["source"] = said.into();
    Some(answer)
}

fn status_json(status: &OutboxStatus) -> Value {
    let now = clock::read();
    json!({
        "epoch": status.epoch.to_string(),
        "next_sequence": status.next_sequence,
        "acknowledged": status.acknowledged,
        "depth": status.depth,
        "bytes": status.bytes,
        "epochs": status.epochs,
        "oldest_age_seconds": status.oldest_begun.map(|begun| begun.age_at(&now).as_secs_f64()),
    })
}
