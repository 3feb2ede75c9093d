//! The answers to operators, the same from a running server and from a directory. `--json` prints them as they are; the test
//! `json_answers_have_the_documented_shape` reads this table. A name with `?` may be absent, a type with `?` may be null:
//!
//! | command | answer |
//! | --- | --- |
//! | `garages list` | `{"garages":[{"name":"text", "capacity":"number?", "occupied":"number?", "free":"number?", "as_of":"text?", "state":"text?", "state_since":"text?", "state_reason":"text?", "state_changes_at":"text?", "address":["text"], "location":"object?", "group":"text?", "opening_hours":"object?", "configured_capacity":"number?", "capacity_told?":"number", "formerly?":"text", "decommissioned":"boolean", "events_since_decommissioned?":"number", "position":"number", "events":"number", "epochs":"number"}], "position":"number"}`; `location` is `{"latitude","longitude"}`, `opening_hours` `{"time_zone","windows"}` with windows such as `mon-fri 07:00-22:00` |
//! | `quarantine list` | `{"quarantine":[{"place":"text", "garage":"text", "epoch":"text", "sequence":"number", "position":"number", "reason":"text", "received_at":"text"}], "next":"text?", "position":"number"}` |
//! | `plates list` | `{"plates":[{"plate":"text", "account":"text", "name":"text", "valid_from":"text?", "valid_to":"text?"}], "next":"text?", "position":"number"}` |
//! | `accounts list` | `{"accounts":[{"account":"text", "name":"text", "address":["text"], "country":"text", "vat_id":"text", "email":"text"}], "next":"text?", "position":"number"}` |
//! | `contracts list` | `{"contracts":[{"contract":"text", "account":"text", "plates":["text"], "garages":["text"], "valid_from":"text?", "valid_to":"text?", "cars":"number"}], "position":"number"}` |
//! | `plates import` | `{"changes":["text"], "changes_total":"number", "warnings":["text"], "unnamed":["text"], "unnamed_total":"number", "drafts":{"drafts":"number", "priced_before":"number", "amounts":[{"amount":"number", "currency":"text"}]}, "position":"number?", "said":"text"}`; `drafts` says how many drafts change and by how much; `position` is null when nothing was recorded. The same for `plates add` and `remove`, and for lists of accounts, contracts and tariffs |
//! | `contracts import` | `{"changes":["text"], "changes_total":"number", "warnings":["text"], "unnamed":["text"], "unnamed_total":"number", "drafts":{"drafts":"number", "priced_before":"number", "amounts":[{"amount":"number", "currency":"text"}]}, "position":"number?", "said":"text"}` |
//! | `stays review` | `{"pairs":[{"garage":"text", "entry":{"id":"text", "plate":"text", "at":"text"}, "exit":{"id":"text", "plate":"text", "at":"text"}, "command":"text"}], "long":[{"garage":"text", "plate":"text", "entry":"text", "entered_at":"text", "left_at":"text?", "elsewhere":{"garage":"text", "entered_at":"text", "left_at":"text?"}, "command":"text"}], "more":"boolean", "said":"text", "position":"number"}` |
//! | `charges list` | `{"charges":[{"id":"text", "garage":"text", "plate":"text", "account":"text", "entered_at":"text", "left_at":"text", "month":"text", "state":"text", "price":"number?", "amount":"number?", "currency":"text?", "issued":"number", "due":"number?", "vat_percent":"number?", "tariff":"text?", "contract":"text?", "note":"text?", "position":"number", "breakdown":[{"unit":"number", "units":"number", "from":"text", "each":"number?", "total":"number", "reason":"text"}]}], "next":"text?", "position":"number"}` |
//! | `charges show` | `{"charge?":{"id":"text", "garage":"text", "plate":"text", "account":"text", "entered_at":"text", "left_at":"text", "month":"text", "state":"text", "price":"number?", "amount":"number?", "currency":"text?", "issued":"number", "due":"number?", "vat_percent":"number?", "tariff":"text?", "contract":"text?", "note":"text?", "position":"number", "breakdown":[{"unit":"number", "units":"number", "from":"text", "each":"number?", "total":"number", "reason":"text"}]}, "events":[{"event":"text", "kind":"text", "plate":"text?", "at":"text", "received_at":"text", "position":"number"}], "decisions":[{"decision":"number", "kind":"text", "charge?":"text", "entry?":"text", "exit?":"text", "left_at?":"text", "entered_at?":"text", "amount?":"number", "currency?":"text?", "reason":"text", "by":"text", "at":"text"}], "documents":[{"number":"text", "kind":"text", "account":"text", "date":"text", "amount":"number", "currency":"text"}], "position":"number"}`; `charge` is absent where the stay exists no longer |
//! | `decisions list` | `{"decisions":[{"decision":"number", "kind":"text", "charge?":"text", "entry?":"text", "exit?":"text", "left_at?":"text", "entered_at?":"text", "amount?":"number", "currency?":"text?", "reason":"text", "by":"text", "at":"text"}], "position":"number"}` |
//! | `tariffs price` | `{"garage":"text", "entry":"text", "exit":"text", "amount":"number", "currency":"text", "tariff":"text", "valid_from":"text", "vat_percent":"number?", "units":"number", "free":"text?", "breakdown":[{"unit":"number", "units":"number", "from":"text", "each":"number?", "total":"number", "reason":"text"}]}` |
//! | `payments import` | `{"payments":"number", "first":"number?", "last":"number?", "amounts":[{"amount":"number", "currency":"text"}], "skipped":["text"], "skipped_total":"number", "waiting":["text"], "waiting_total":"number", "warnings":["text"], "position":"number?", "said":"text"}`; `position` is null when nothing was recorded |
//! | `payments list` | `{"payments":[{"id":"number", "number":"text?", "account":"text?", "amount":"number", "currency":"text", "date":"text", "reference":"text", "state":"text", "waits":"text?", "undone_on":"text?"}], "next":"text?", "position":"number"}` |
//! | `payments list --unallocated` | `{"unallocated":[{"account":"text?", "amount":"number", "currency":"text", "payment":"number?", "document":"text?", "date":"text", "reference":"text?", "waits":"text?"}], "next":"text?", "position":"number"}` |
//! | `documents resume` | `{"first":"number", "last":"number", "position":"number?", "said":"text"}`; the numbers `first` to `last` are lost: none, where `last` is less |
//! | `verify` | `{"clean":"boolean", "ledger":"text?", "position":"number", "pages":"number", "events":"number", "holes":"number", "missing":"number", "truncated":"number", "views_position":"number?", "stays_open":"number", "stays_closed":"number", "exits_missed":"number", "exits_unmatched":"number", "quarantined":"number", "drafts":"number", "amounts":[{"amount":"number", "currency":"text"}], "due":[{"amount":"number", "currency":"text"}], "documents":"number", "issued":[{"amount":"number", "currency":"text"}], "seconds":"number", "findings_total":"number", "findings":[{"place":"text", "what":"text", "means":"text", "do_this":"text"}]}` |
//! | `backup` | `{"fogpost":"text", "ledger":"text", "position":"number", "made_at":"text", "events":"number", "pages":"number", "holes":"number", "commands":"number", "streams":"number", "damaged":"number", "truncated":"number", "said":"text"}`: what `backup.json` says, and `said` |
//!
//! `documents import` answers with the fields of [`DocumentImportReport`], and `said`.
//!
//! `alarms list` answers as `GET /v1/alarms` does; `alarms test` with `{"receivers":[{"receiver","kind","delivered","error","waiting"}]}`.
//!
//! `said` is a sentence for people; a command that records something is answered with `{"position","said"}`.

use super::payments::PreparedPayments;
use super::put::Prepared;
use crate::config::GarageTable;
use crate::daemon::admin::{NotDone, Outcome};
use crate::daemon::{DaemonError, clock};
use crate::messaging::{LedgerId, SiteName};
use crate::parking::money::Money;
use crate::parking::payment::PaymentId;
use crate::parking::register::{Account, PlateEntry};
use crate::parking::{EventId, Moment, Plate};
use crate::server::hex::{hex, unhex};
use crate::server::issuing::{DocumentImportReport, IssueReport};
use crate::server::ledger::Ledger;
use crate::server::listed::{self, GarageLine};
use crate::server::record::{Command, QuarantinePlace, StreamId};
use crate::server::states::GaragesNow;
use crate::server::verify::VerifyReport;
use crate::server::view::base::BASE;
use crate::server::view::review::Review;
use crate::server::view::{Snapshot, StoredPassage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Maximum size of the records in one answer, in bytes.
const RECORDS_BYTES: usize = 1024 * 1024;
/// Maximum number of events that one answer about the quarantine lists.
const QUARANTINE_MAX: usize = 10_000;

pub fn garages(view: &Snapshot, table: &GarageTable, ledger: &Ledger) -> Value {
    let known = GaragesNow { view, table, now: clock::now() };
    let keys: BTreeSet<&SiteName> = view.garages.keys().chain(known.not_heard(None)).collect();
    let garages = keys.into_iter().map(|key| {
        let mut line = json!(GarageLine::of(&known, key));
        line["epochs"] = ledger.streams_of(&view.sites_of(key)).len().into();
        line
    });
    json!({ "garages": garages.collect::<Vec<_>>(), "position": view.position })
}

pub fn quarantine(view: &Snapshot, after: Option<QuarantinePlace>, limit: usize) -> Value {
    let after = after.map(|after| (after.position, after.index.map_or(usize::MAX, usize::from)));
    let (lines, next) = listed::quarantine(view, after, limit.min(QUARANTINE_MAX));
    let lines = lines.into_iter().map(|(_, line)| line);
    json!({ "quarantine": lines.collect::<Vec<_>>(), "next": next, "position": view.position })
}

/// The report of `verify`, as JSON and as text.
pub fn verified(report: Result<VerifyReport, DaemonError>) -> Outcome {
    let report = report.map_err(|error| error.to_string())?;
    let whole = serde_json::to_value(&report).map_err(|error| error.to_string())?;
    Ok(json!({ "clean": report.clean, "report": whole, "text": report.to_string() }))
}

/// Records of the ledger, as many as one answer holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordsPart {
    pub ledger: LedgerId,
    pub through: u64,
    pub streams: Vec<StreamId>,
    pub records: Vec<Vec<u8>>,
}

/// Keys and values of the base of a compacted ledger, as many as one answer holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct BasePart {
    pub ledger: LedgerId,
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// The key to continue after; none at its end.
    pub next: Option<Vec<u8>>,
}

/// A part for another copy of this program: its bytes in hexadecimal digits.
fn packed(part: &impl Serialize) -> Outcome {
    let bytes = postcard::to_stdvec(part).map_err(|error| error.to_string())?;
    Ok(json!({ "part": hex(&bytes) }))
}

/// Reads what [`packed`] made.
pub fn unpacked<T: DeserializeOwned>(answer: &Value) -> Option<T> {
    postcard::from_bytes(&unhex(answer["part"].as_str()?)?).ok()
}

/// Records from position `from` to `through`, or to the ledger's end.
pub fn records(ledger: &Ledger, from: u64, through: Option<u64>) -> Outcome {
    // Before the streams: each stream of a record that is on disk is known.
    let position = ledger.position();
    if from == 0 || from > position + 1 {
        return Err(NotDone::Refused(format!("the ledger has positions 1 to {position}, not {from}")));
    }
    let through = through.map_or(position, |through| through.min(position));
    let read = ledger.raw_records(from, through, RECORDS_BYTES);
    let records =
        read.map_err(|error| format!("{error}. The ledger cannot be copied; \"server verify\" says more"))?;
    packed(&RecordsPart { ledger: ledger.id(), through, streams: ledger.numbered_streams(), records })
}

/// The base of a compacted ledger after a key.
pub fn base(ledger: &Ledger, after: Option<Vec<u8>>) -> Outcome {
    let (first, end) = BASE;
    let from = after.map_or(first.to_vec(), |key| [&key[..], &[0]].concat().max(first.to_vec()));
    let mut part = BasePart { ledger: ledger.id(), entries: Vec::new(), next: None };
    let mut bytes = 0;
    for entry in ledger.store().range(&from, end) {
        let (key, value) = entry.map_err(|error| error.to_string())?;
        if bytes > RECORDS_BYTES {
            part.next = part.entries.last().map(|(key, _)| key.clone());
            break;
        }
        bytes += key.len() + value.len();
        part.entries.push((key, value));
    }
    packed(&part)
}

/// The answer to a command that the views do not show yet.
pub fn recorded(position: u64) -> Value {
    json!({
        "position": position,
        "said": format!("The command is recorded at position {position}. It takes effect when the server has started again; it was just stopped"),
    })
}

/// Says what the command at `position` did, once the views show it.
pub fn done(view: &Snapshot, position: u64, command: &Command) -> Outcome {
    if let Some(reason) = view.decisions.without_effect(position) {
        return Err(NotDone::Refused(format!(
            "{reason}. The command is recorded at position {position} and has no effect: an event came between its check and its position"
        )));
    }
    let said = match command {
        Command::Rename { garage, to } => format!(
            "The garage \"{garage}\" is called \"{to}\" from position {position} on. Its edge may keep its name; events under either name count for \"{to}\""
        ),
        Command::Capacity { garage, spaces } => capacity_is_set(view, position, garage, *spaces),
        Command::Decommission { garage, undo: false } => format!(
            "The garage \"{garage}\" is decommissioned from position {position} on: boards and the city's numbers leave it out. Events that still arrive are applied and counted as before, and reported"
        ),
        Command::Decommission { garage, undo: true } => {
            format!("The garage \"{garage}\" is in use again from position {position} on")
        }
        Command::Adopt { garage } => format!(
            "The next conflict of the garage \"{garage}\" is decided: its edge moves its undelivered events to a new epoch, so that the events of both sides count. Recorded at position {position}"
        ),
        Command::ShowAs { garage, opening, until_ms, .. } => match opening {
            Some(opening) => {
                let until = until_ms.map_or("\"server garages automatic\"".to_owned(), Moment::utc_text);
                format!(
                    "The garage \"{garage}\" is shown as {opening} from position {position} on, until {until}"
                )
            }
            None => format!(
                "From position {position} on the garage \"{garage}\" is open or closed by its own events and its hours"
            ),
        },
        Command::Release { place } => released(view, position, *place),
        Command::Discard { place, .. } => format!(
            "The events at {place} are discarded from position {position} on. Their bytes and the reason stay in the ledger"
        ),
        Command::Forget { before, .. } => format!(
            "From position {position} on, tokens replace plates in stays that ended before {before}, also in those that arrive later. The events themselves contain them until \"server compact\" has rewritten the store, and backups made before that contain them for good"
        ),
        Command::JoinStay { entry, exit, .. } => format!(
            "From position {position} on the exit {exit} ends the stay that began with {entry}; it is charged by its length"
        ),
        Command::CloseStay { entry, .. } => format!(
            "From position {position} on the stay that began with {entry} has ended; it is charged by its length"
        ),
        Command::SplitStay { entry, .. } => format!(
            "From position {position} on the stay that began with {entry} is split in two, and each part is charged by its length"
        ),
        Command::BillStay { charge, .. } => {
            format!(
                "The stay {charge} is charged as it is. \"server decisions undo {position}\" takes this back"
            )
        }
        Command::Void { charge, .. } => {
            format!("The charge {charge} is voided. \"server decisions undo {position}\" takes this back")
        }
        Command::Credit { charge, .. } => format!(
            "Part of the charge {charge} is given back. \"server decisions undo {position}\" takes this back"
        ),
        Command::Undo { decision } => {
            format!("The decision of position {decision} is taken back at position {position}")
        }
        Command::UndoPayment { payment, date } => format!(
            "Payment {payment} is reversed on {date}, recorded at position {position}: what it paid is open again. The payment stays in the list"
        ),
        // The others come from the program, which says what they did.
        _ => format!("It takes effect from position {position} on"),
    };
    Ok(json!({ "position": position, "said": said }))
}

fn capacity_is_set(view: &Snapshot, position: u64, garage: &SiteName, spaces: Option<u32>) -> String {
    let Some(spaces) = spaces else {
        return format!(
            "The capacity of the garage \"{garage}\" is what its edge reports, from position {position} on"
        );
    };
    let told = view.garages.get(view.key_of(garage)).map_or(0, |garage| garage.told_capacity);
    let told = if told == spaces { String::new() } else { format!(" Its edge reports {told}.") };
    format!(
        "The garage \"{garage}\" has {spaces} spaces from position {position} on; this number counts, not the one that its edge reports.{told}"
    )
}

fn released(view: &Snapshot, position: u64, place: QuarantinePlace) -> String {
    let waiting = match place.index {
        None => view.quarantine.get(&place.position).map_or(0, |page| page.places().count()),
        Some(_) => 0,
    };
    let rest = match waiting {
        0 => String::new(),
        n => format!(" {n} events of the same page still cannot be applied and stay in quarantine."),
    };
    format!("The events at {place} take effect from position {position} on.{rest}")
}

/// Says what a list changes, and at which position it was recorded; `None`: nothing was recorded.
pub fn put(prepared: &Prepared, position: Option<u64>) -> Value {
    let count = match prepared.changes_total {
        1 => "1 change".to_owned(),
        n => format!("{n} changes"),
    };
    let drafts = match prepared.drafts.drafts {
        0 => "no draft changes".to_owned(),
        1 => format!("1 draft changes{}", by(&prepared.drafts.amounts)),
        n => format!("{n} drafts change{}", by(&prepared.drafts.amounts)),
    };
    let said = match position {
        Some(position) => format!("{count}, recorded at position {position}; {drafts}"),
        None if prepared.changes.is_empty() => "Nothing changes; nothing was recorded".to_owned(),
        None => format!("{count}; {drafts}; nothing was recorded"),
    };
    let mut answer = json!(prepared);
    (answer["position"], answer["said"]) = (json!(position), json!(said));
    answer
}

/// Says what an import of payments does, and at which position it was recorded; `None`: nothing was recorded.
pub fn payments(prepared: &PreparedPayments, position: Option<u64>) -> Value {
    let PreparedPayments { payments, amounts, skipped_total, waiting_total, .. } = prepared;
    let amounts = joined(amounts);
    let count = match payments {
        0 => "No payment is new".to_owned(),
        1 => format!("1 new payment, {amounts}"),
        n => format!("{n} new payments, {amounts}"),
    };
    let waiting = match waiting_total {
        0 => String::new(),
        1 => "; 1 of them pays no document and waits as unallocated".to_owned(),
        n => format!("; {n} of them pay no document and wait as unallocated"),
    };
    let skipped = match skipped_total {
        0 => String::new(),
        1 => "; 1 line was skipped".to_owned(),
        n => format!("; {n} lines were skipped"),
    };
    let recorded = match (position, prepared.first, prepared.last) {
        (Some(position), Some(first), Some(last)) if first == last => {
            format!("recorded at position {position} as payment {first}")
        }
        (Some(position), Some(first), Some(last)) => {
            format!("recorded at position {position} as payments {first} to {last}")
        }
        _ => "nothing was recorded".to_owned(),
    };
    let mut answer = json!(prepared);
    (answer["position"], answer["said"]) =
        (json!(position), json!(format!("{count}{waiting}{skipped}; {recorded}")));
    answer
}

pub fn payment_could_be_undone(payment: PaymentId) -> Value {
    json!({
        "position": null,
        "said": format!("Payment {payment} can be reversed: what it paid would be open again. Nothing was recorded"),
    })
}

/// What was issued, or would be.
pub fn issued(report: &IssueReport) -> Value {
    let count = match report.documents.len() {
        1 => "1 document".to_owned(),
        n => format!("{n} documents"),
    };
    let said = match report.position {
        Some(position) => format!("{count} issued, recorded at position {position}"),
        None if report.documents.is_empty() => "Nothing is due; nothing was issued".to_owned(),
        None => format!("{count} would be issued; nothing was issued"),
    };
    let mut answer = json!(report);
    answer["said"] = json!(said);
    answer
}

/// Which documents were brought back, or would be.
pub fn documents_imported(report: &DocumentImportReport) -> Value {
    let DocumentImportReport { documents, first, last, known, last_serial, unlocks, position } = report;
    let text = |number: &Option<String>| number.clone().unwrap_or_default();
    let new = match documents {
        0 => "No document is missing in the ledger".to_owned(),
        1 => format!("1 document is brought back, {}", text(first)),
        n => format!("{n} documents are brought back, {} to {}", text(first), text(last)),
    };
    let unlocks = match unlocks {
        true => format!(
            "; documents are issued again, from number {} of the series on. Payments and decisions that were recorded after the backup are lost with it, and so are changes of accounts, plates, contracts and tariffs: import the files again (payments that are known are skipped), repeat the decisions, and see with \"server statements issue --dry-run\" whether something is left",
            last_serial + 1
        ),
        false => String::new(),
    };
    let recorded = match position {
        Some(position) => format!("; recorded at position {position}"),
        None => "; nothing was recorded".to_owned(),
    };
    let mut answer = json!(report);
    answer["said"] = json!(format!("{new}; {known} were known{recorded}{unlocks}"));
    answer
}

/// Which numbers are lost, or would be.
pub fn numbers_resumed((first, last): (u64, u64), position: Option<u64>) -> Value {
    let lost = match (last + 1).saturating_sub(first) {
        0 => "No number is lost".to_owned(),
        1 => format!("Number {last} of the series is lost"),
        _ => format!("The numbers {first} to {last} of the series are lost"),
    };
    let recorded = match position {
        Some(position) => format!("recorded at position {position}"),
        None => "nothing was recorded".to_owned(),
    };
    let again = match last < first {
        true => "",
        false => " What lost documents charged is due again, so the next documents charge it.",
    };
    let said = format!(
        "{lost}; the next document has number {} of the series; {recorded}.{again} A copy of a lost document that is found is brought back by \"server documents import\"",
        last + 1
    );
    json!({ "first": first, "last": last, "position": position, "said": said })
}

/// As in " by 3.50 EUR".
fn by(amounts: &[Money]) -> String {
    match amounts {
        [] => String::new(),
        amounts => format!(" by {}", joined(amounts)),
    }
}

fn joined(amounts: &[Money]) -> String {
    amounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Maximum number of plates or accounts in one answer.
const LISTED_MAX: usize = 5_000;

fn from<T: Ord>(after: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Bound<T> {
    after.and_then(read).map_or(Bound::Unbounded, Bound::Excluded)
}

/// Lists the registrations of plates after `after`, in order: a line for each plate and account, with its dates.
pub fn plates(view: &Snapshot, after: Option<&str>) -> Value {
    let register = &view.billing.rules.register;
    let from = from(after, |plate| Plate::stored(plate).ok());
    let mut registered = register.plates().range::<Plate, _>((from, Bound::Unbounded));
    let shown: Vec<_> = registered.by_ref().take(LISTED_MAX).collect();
    let next = registered.next().and(shown.last()).map(|(plate, _)| plate.as_str());
    let lines = shown.iter().flat_map(|(plate, entry)| {
        entry.holders.list().iter().map(|held| {
            let name = register.customer(&held.account).map(|customer| customer.name.as_str());
            json!({
                "plate": plate.as_str(),
                "account": held.account.as_str(),
                "name": name.unwrap_or_default(),
                "valid_from": held.dates.first(),
                "valid_to": held.dates.last(),
            })
        })
    });
    json!({ "plates": lines.collect::<Vec<_>>(), "next": next, "position": view.position })
}

/// Lists the customer records of accounts after `after`, in order.
pub fn accounts(view: &Snapshot, after: Option<&str>) -> Value {
    let customers = view.billing.rules.register.customers();
    let from = from(after, |account| Account::new(account).ok());
    let mut customers = customers.range::<Account, _>((from, Bound::Unbounded));
    let shown: Vec<_> = customers.by_ref().take(LISTED_MAX).collect();
    let next = customers.next().and(shown.last()).map(|(account, _)| account.as_str());
    let lines = shown.iter().map(|(account, its)| {
        json!({
            "account": account.as_str(),
            "name": its.name,
            "address": its.address,
            "country": its.country,
            "vat_id": its.vat_id,
            "email": its.email,
        })
    });
    json!({ "accounts": lines.collect::<Vec<_>>(), "next": next, "position": view.position })
}

/// Lists all versions of all contracts.
pub fn contracts(view: &Snapshot) -> Value {
    let register = &view.billing.rules.register;
    let versions = register.contracts().iter().flat_map(|(name, history)| {
        history.versions().iter().map(move |version| {
            let mut plates = BTreeSet::new();
            let mut garages = BTreeSet::new();
            for plate in history.plates() {
                let lines = register.plate(plate).into_iter().flat_map(PlateEntry::contracts);
                for line in lines.filter(|line| line.contract == *name && line.dates == version.dates) {
                    plates.insert(plate.to_string());
                    garages.insert(line.garage.to_string());
                }
            }
            json!({
                "contract": name.as_str(),
                "account": version.account.as_str(),
                "plates": plates,
                "garages": garages,
                "valid_from": version.dates.first(),
                "valid_to": version.dates.last(),
                "cars": version.cars,
            })
        })
    });
    json!({ "contracts": versions.collect::<Vec<_>>(), "position": view.position })
}

/// Lists the stays that may need a repair, each with the command that repairs it.
pub fn review(view: &Snapshot, ledger: &Ledger, found: &Review) -> Outcome {
    let garage = |number: u32| view.name_of_number(number);
    let id = |number: u32, passage: &StoredPassage| {
        let key = view.key_of_number(number).map(ToString::to_string).unwrap_or_default();
        let epoch = ledger.epoch_of(passage.stream()).map_err(|error| error.to_string())?.to_bytes();
        Ok::<_, String>(EventId { garage: key, epoch, sequence: passage.sequence }.to_string())
    };
    let at = |passage: &StoredPassage| Moment::utc_text(passage.at_ms);
    let pairs = found.pairs.iter().map(|pair| {
        let (entry, exit) = (id(pair.garage, &pair.entry.1)?, id(pair.garage, &pair.exit.1)?);
        Ok(json!({
            "garage": garage(pair.garage),
            "entry": { "id": entry, "plate": pair.entry.0, "at": at(&pair.entry.1) },
            "exit": { "id": exit, "plate": pair.exit.0, "at": at(&pair.exit.1) },
            "command": format!("server stays join '{entry}' '{exit}' --reason TEXT"),
        }))
    });
    let long = found.long.iter().map(|long| {
        let entry = id(long.garage, &long.entry)?;
        let (other, came, left) = &long.elsewhere;
        let command = match long.exit {
            Some(_) => format!("server stays split '{entry}' --left TIME --entered TIME --reason TEXT"),
            None => format!("server stays close '{entry}' --left TIME --reason TEXT"),
        };
        Ok(json!({
            "garage": garage(long.garage),
            "plate": long.plate,
            "entry": entry,
            "entered_at": at(&long.entry),
            "left_at": long.exit.as_ref().map(at),
            "elsewhere": { "garage": garage(*other), "entered_at": at(came), "left_at": left.as_ref().map(at) },
            "command": command,
        }))
    });
    let pairs = pairs.collect::<Result<Vec<Value>, String>>()?;
    let long = long.collect::<Result<Vec<Value>, String>>()?;
    let said = format!(
        "{} pairs of an entry and an exit whose plates differ by one look-alike letter, {} long stays during which the car was read in another garage",
        pairs.len(),
        long.len()
    );
    Ok(json!({ "pairs": pairs, "long": long, "more": found.more, "said": said, "position": view.position }))
}
