//! `server backup DIR`: copies the ledger into a directory that is a server's data directory.
//!
//! **Promise.** The copy holds everything that was acknowledged before the command, and nothing that was not. It counts as
//! a backup once `backup.json` is in it: that is written last, after everything else is on disk.
//! **Kept by.** Records up to a position on disk never change. They are read through the running server, a part at a time, or
//! from its directory when none runs. The command writes the copy itself, so a slow or broken backup disk never affects the
//! server. It gets its final name when it is complete.
//! **Not promised.** The views: they follow from the ledger, and the first start of the copy rebuilds them.
//!
//! To restore, stop the server, and start one on the copy. It has the same ledger id, so edges continue with it. What was acknowledged
//! after the backup is missing in it; where edges have deleted it, their requests show that: it is recorded as a missing range. The
//! numbers of documents that were issued after the backup are not known to it, so it issues none until they are ([`Ledger::copied_at`]).

use super::commands::{BasePart, RecordsPart, ServerRequest, ServerSession, unpacked};
use super::ledger::{CopyCounts, Ledger, LedgerCopy};
use crate::config::ServerConfig;
use crate::daemon::clock;
use crate::messaging::LedgerId;
use crate::parking::Moment;
use crate::store::directory::DataDir;
use crate::store::{Purpose, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The name of an unfinished copy: no server takes it for its store.
const UNFINISHED: &str = "store.unfinished";

/// Whether a directory holds a copy that was never finished, and nothing else: a server that began a new ledger in it would
/// look like a restored one.
pub fn is_unfinished(dir: &DataDir) -> bool {
    dir.path().join(UNFINISHED).exists() && !dir.store().exists()
}

/// Why a backup or a compacted ledger was not made.
pub type Failure = Box<dyn Error>;

/// What `backup.json` says.
#[derive(Debug, Serialize)]
struct Certificate {
    fogpost: &'static str,
    ledger: String,
    position: u64,
    made_at: String,
    #[serde(flatten)]
    counts: CopyCounts,
}

/// Asks for records, or for the base. A server may be stopped, or started, while they are read.
fn ask<T: DeserializeOwned>(session: &mut ServerSession<'_>, request: ServerRequest) -> Result<T, Failure> {
    unpacked(&session.ask(request)?).ok_or_else(|| {
        "the server's answer is not understood. Is it of another version than this program?".into()
    })
}

fn replaced(by: LedgerId) -> Failure {
    format!("the ledger was replaced by another one meanwhile: {by}").into()
}

pub fn run(config: &ServerConfig, to: &Path) -> Result<Value, String> {
    let mut session = ServerSession::of(config);
    // Whether there is anything to copy is found out before a directory is made.
    let first = ask(&mut session, ServerRequest::Records { from: 1, through: None })
        .map_err(|error| error.to_string())?;
    into_new(to, "backup", |unfinished| copy(&mut session, first, unfinished), |copied| certify(to, copied))
}

/// Lets `write` write a store, and once it is complete and on disk makes it the store of `to`, which must be new or empty; then calls
/// `finish`. Errors call it `what`.
pub fn into_new<T, U>(
    to: &Path,
    what: &str,
    write: impl FnOnce(&Path) -> Result<T, Failure>,
    finish: impl FnOnce(T) -> Result<U, Failure>,
) -> Result<U, String> {
    let cannot =
        |error: io::Error| format!("cannot use {to:?} for a {what}: {error}. Nothing stored was changed");
    match fs::read_dir(to).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            return Err(format!(
                "{to:?} is not empty. Nothing was changed. Give a new directory for the {what}, or an empty one"
            ));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
        _ => {}
    }
    // Held until the end, so that no server starts on an incomplete copy.
    let target = DataDir::hold(to).map_err(|error| error.to_string())?;
    let unfinished = to.join(UNFINISHED);
    // Only what is complete and on disk gets its name.
    let written = write(&unfinished).and_then(|written| {
        fs::rename(&unfinished, target.store())?;
        sync(to)?;
        Ok(written)
    });
    written.and_then(finish).map_err(|reason| {
        // Which of the two exists depends on how far it came; neither may be taken for a complete one.
        let removed = [unfinished, target.store()].map(|store| match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{store:?}: {error}")),
            _ => Ok(()),
        });
        let left = match removed.into_iter().collect::<Result<Vec<()>, String>>() {
            Ok(_) => "The unfinished copy was removed".to_owned(),
            Err(error) => format!("The unfinished copy is still there and cannot be removed ({error}); do not use it"),
        };
        format!(
            "the {what} in {to:?} was not made: {reason}. The server's own data is not changed. {left}. Remove {to:?}, and try again"
        )
    })
}

fn copy(
    session: &mut ServerSession<'_>,
    first: RecordsPart,
    unfinished: &Path,
) -> Result<Certificate, Failure> {
    let RecordsPart { ledger, through, streams, mut records } = first;
    let store = Store::open(unfinished, Purpose::Server)?;
    let mut copy = LedgerCopy::begin(&store, ledger, streams)?;
    while copy.position() < through {
        if records.is_empty() {
            let from = copy.position() + 1;
            let next: RecordsPart = ask(session, ServerRequest::Records { from, through: Some(through) })?;
            if next.ledger != ledger {
                return Err(replaced(next.ledger));
            }
            records = next.records;
        }
        records.drain(..).try_for_each(|record| copy.add(record))?;
    }
    copy.mark_as_copied_at(through)?;
    let counts = copy.finish()?;
    copy_base(session, ledger, &store)?;
    // Only what opens as a server opens it is a backup.
    let copied = Ledger::open(store).map_err(|error| format!("the copy cannot be opened: {error}"))?;
    let (id, position) = (copied.id(), copied.position());
    if (id, position) != (ledger, through) {
        return Err(format!("what was copied does not open: it is ledger {id} up to position {position}, and not ledger {ledger} up to {through}").into());
    }
    Ok(Certificate {
        fogpost: env!("CARGO_PKG_VERSION"),
        ledger: ledger.to_string(),
        position: through,
        made_at: Moment::utc_text(clock::wall_ms()),
        counts,
    })
}

/// Says in `backup.json` that the copy in `to` is complete; it has its name already.
fn certify(to: &Path, certificate: Certificate) -> Result<Value, Failure> {
    let text = serde_json::to_string_pretty(&certificate).expect("it always encodes");
    write_synced(&to.join("backup.json"), &text)?;
    let Certificate { position, counts, .. } = &certificate;
    let mut answer = serde_json::to_value(&certificate).expect("it always encodes");
    answer["said"] = json!(format!(
        "The ledger is copied up to position {position}: {} events in {} pages, {} missing ranges, {} commands. To restore, stop the server and run: server --data-dir {}. What was issued after the backup is brought back by: server documents import DIR",
        counts.events,
        counts.pages,
        counts.missing_ranges,
        counts.commands,
        to.display()
    ));
    Ok(answer)
}

fn copy_base(session: &mut ServerSession<'_>, ledger: LedgerId, store: &Store) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let part: BasePart = ask(session, ServerRequest::Base { after })?;
        if part.ledger != ledger {
            return Err(replaced(part.ledger));
        }
        part.entries.iter().try_for_each(|(key, value)| store.put(key, value))?;
        after = part.next;
        if after.is_none() {
            return Ok(store.flush()?);
        }
    }
}

/// Writes a file whole or not at all, durably.
fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, format!("{text}\n"))?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `certify` failed (its disk was full), and the message said that the copy was removed, while it stayed under the name of a
    /// server's store: the next server on that directory would have served it.
    #[test]
    fn a_backup_that_is_not_certified_leaves_nothing_that_looks_like_one_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for (name, fails_at) in [("copy", 1), ("name", 2), ("certificate", 3)] {
            let to = dir.path().join(name);
            let write = |unfinished: &Path| match fails_at {
                1 => {
                    fs::create_dir(unfinished).unwrap();
                    Err(Failure::from("no room"))
                }
                // There is nothing to give a name to.
                2 => Ok(()),
                _ => Ok(fs::create_dir(unfinished)?),
            };
            let said =
                into_new(&to, "backup", write, |()| Err::<(), _>(Failure::from("no room"))).unwrap_err();
            assert!(said.contains("The unfinished copy was removed"), "{name}: {said}");
            let left: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("store")), "{name}: {left:?}");
        }
    }

    #[test]
    fn what_cannot_be_removed_is_said_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("backup");
        // In the place of the unfinished copy stands something that is no directory.
        let write = |unfinished: &Path| {
            fs::write(unfinished, "x").unwrap();
            Err::<(), _>(Failure::from("no room"))
        };
        let said = into_new(&to, "backup", write, |()| Ok(())).unwrap_err();
        assert!(said.contains("still there") && said.contains("do not use it"), "{said}");
        assert!(to.join(UNFINISHED).exists());
    }
}
