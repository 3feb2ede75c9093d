//! The list of who did what: commands, sign-ins and refused attempts.
//!
//! **Promise.** Each command that may change something, each sign-in and each refused attempt is in the list, with time, name, role and
//! address, as long as the list is not full; then the oldest go first. No flood of refused attempts removes a command from it, fills
//! a disk, or holds anybody up. Nothing in the list is a plate, a token or an amount: forgotten plates are not found here, and somebody who
//! may read the list may read all of it.
//! **Kept by.** Two lists, one of them for refused attempts alone, each of at most [`FILES`] files of about [`FILE_MAX`] bytes. A thread
//! writes them. What it cannot take at once is counted, and the number is in the next line. A line says which command it was, not
//! what was in it: the ledger has that.
//! **Not promised.** That the list withstands somebody who can write to the data directory.

use crate::codes;
use crate::store::private::hand_over_file;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Debug, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many files a list has: the one that grows, and those before it.
const FILES: u32 = 5;
const FILE_MAX: u64 = 1024 * 1024;
/// How many lines wait for the disk.
const WAITING_MAX: usize = 256;
/// How many refused attempts are written in a minute. The others are counted.
const REFUSED_PER_MINUTE: u32 = 120;
const MINUTE: Duration = Duration::from_secs(60);

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    Command,
    SignIn,
    SignOut,
    Refused,
}

impl AuditKind {
    fn list(self) -> &'static str {
        match self {
            AuditKind::Refused => "audit-refused",
            _ => "audit",
        }
    }
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    pub at: Timestamp,
    pub kind: AuditKind,
    /// The command, or the route that was asked for.
    pub what: String,
    /// The name of the token, or the user of this machine; `None` when nobody showed a valid one.
    pub name: Option<String>,
    pub role: Option<String>,
    /// Where the request came from: an IP address, or `admin.sock`.
    pub address: String,
    /// "done", or the code of what was wrong.
    pub outcome: String,
    /// How many lines before this one were not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_written: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Takes lines. Cloning shares it; when the last one is dropped, the thread writes what it has and ends. The default takes nothing.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<AuditQueue>>);

#[derive(Debug)]
struct AuditQueue {
    lines: SyncSender<AuditLine>,
    quota: Mutex<RefusedQuota>,
    clock: fn() -> Timestamp,
}

/// Lets so few refused attempts into the queue that commands always find room there.
#[derive(Debug)]
struct RefusedQuota {
    minute: Instant,
    refused: u32,
    not_written: u64,
}

impl Audit {
    /// Writes into a data directory, which the caller holds.
    pub fn open(dir: &Path, clock: fn() -> Timestamp) -> io::Result<Audit> {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let dir = dir.to_owned();
        std::thread::Builder::new().name("audit".into()).spawn(move || write_all(&dir, &waiting))?;
        let quota = Mutex::new(RefusedQuota { minute: Instant::now(), refused: 0, not_written: 0 });
        Ok(Audit(Some(Arc::new(AuditQueue { lines, quota, clock }))))
    }

    /// Adds a line, without waiting for it. `who` is a name and a role.
    pub fn note(
        &self,
        kind: AuditKind,
        what: String,
        who: Option<(String, String)>,
        address: String,
        outcome: &str,
    ) {
        let Some(queue) = &self.0 else { return };
        let mut quota = queue.quota.lock().expect("no thread panics while it holds the quota");
        if quota.minute.elapsed() >= MINUTE {
            (quota.minute, quota.refused) = (Instant::now(), 0);
        }
        if kind == AuditKind::Refused {
            quota.refused += 1;
            if quota.refused > REFUSED_PER_MINUTE {
                quota.not_written += 1;
                return;
            }
        }
        let (name, role) = who.unzip();
        let (at, outcome, not_written) = ((queue.clock)(), outcome.to_owned(), quota.not_written);
        let line = AuditLine { at, kind, what, name, role, address, outcome, not_written };
        match queue.lines.try_send(line) {
            Ok(()) => quota.not_written = 0,
            Err(_) => quota.not_written += 1,
        }
    }
}

fn write_all(dir: &Path, waiting: &Receiver<AuditLine>) {
    let mut said: Option<Instant> = None;
    while let Ok(line) = waiting.recv() {
        if let Err(error) = append(dir, &line)
            && said.is_none_or(|said| said.elapsed() >= MINUTE)
        {
            said = Some(Instant::now());
            tracing::error!(
                code = %codes::AUDIT_NOT_WRITTEN,
                %error,
                hint = "make room on the disk, or correct the permissions of the data directory",
                "who did what cannot be recorded in the audit list"
            );
        }
    }
}

/// Adds a line to the list in a data directory at once.
pub fn append(dir: &Path, line: &AuditLine) -> io::Result<()> {
    let path = dir.join(line.kind.list());
    if fs::metadata(&path).is_ok_and(|found| found.len() >= FILE_MAX) {
        for number in (1..FILES - 1).rev() {
            rename_if_there(&numbered(&path, number), &numbered(&path, number + 1))?;
        }
        rename_if_there(&path, &numbered(&path, 1))?;
    }
    let is_new = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    if is_new {
        hand_over_file(&path)?;
    }
    // A flood must not wear a disk out.
    if line.kind == AuditKind::Refused { Ok(()) } else { file.sync_data() }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// The lists of a data directory as one, the oldest line first. A line that cannot be read, such as one that a crash cut short, is
/// left out.
pub fn read(dir: &Path) -> io::Result<Vec<AuditLine>> {
    let mut lines = Vec::new();
    for list in ["audit", "audit-refused"].map(|list| dir.join(list)) {
        for path in (1..FILES).rev().map(|number| numbered(&list, number)).chain([list.clone()]) {
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            for line in BufReader::new(file).split(b'\n') {
                lines.extend(serde_json::from_slice::<AuditLine>(&line?));
            }
        }
    }
    lines.sort_by_key(|line| line.at);
    Ok(lines)
}

/// The name of a value's variant, in lower snake case: what a command is, without what is in it.
pub fn variant(value: &impl Debug) -> String {
    struct UpToName(String);
    impl fmt::Write for UpToName {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for c in text.chars() {
                if !c.is_ascii_alphanumeric() {
                    return Err(fmt::Error);
                }
                if c.is_ascii_uppercase() && !self.0.is_empty() {
                    self.0.push('_');
                }
                self.0.push(c.to_ascii_lowercase());
            }
            Ok(())
        }
    }
    let mut name = UpToName(String::new());
    // It ends with an error after the name, so that a large value is not written out.
    let _ = write!(name, "{value:?}");
    name.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: AuditKind, what: &str) -> AuditLine {
        let (at, address, outcome) = (Timestamp::UNIX_EPOCH, "admin.sock".to_owned(), "done".to_owned());
        AuditLine { at, kind, what: what.into(), name: None, role: None, address, outcome, not_written: 0 }
    }

    #[test]
    fn a_list_is_bounded_and_the_oldest_lines_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(100 * 1024);
        for n in 0..100 {
            append(dir.path(), &line(AuditKind::Command, &format!("{n} {long}"))).unwrap();
        }
        let files: Vec<u64> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert!(files.len() == FILES as usize && files.iter().sum::<u64>() < 6 * FILE_MAX, "{files:?}");
        let read = read(dir.path()).unwrap();
        let numbers: Vec<u32> =
            read.iter().map(|line| line.what.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(numbers.len() > 40 && numbers.is_sorted() && numbers.last() == Some(&99), "{numbers:?}");
    }

    /// Somebody who guesses tokens all night must not push out of the list who forgot which plates.
    #[test]
    fn a_flood_of_refused_attempts_removes_no_command_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), || Timestamp::UNIX_EPOCH).unwrap();
        let ada = || Some(("ada".to_owned(), "operator".to_owned()));
        let refused = || {
            for _ in 0..10_000 {
                audit.note(AuditKind::Refused, "/v1/stays".into(), None, "10.0.0.9".into(), "token_unknown");
            }
        };
        refused();
        audit.note(AuditKind::Command, "forget".into(), ada(), "admin.sock".into(), "done");
        refused();
        let began = Instant::now();
        let command = loop {
            let lines = read(dir.path()).unwrap();
            assert!(lines.len() <= 1 + REFUSED_PER_MINUTE as usize, "{}", lines.len());
            if let Some(command) = lines.into_iter().find(|line| line.kind == AuditKind::Command) {
                break command;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it is written");
            std::thread::yield_now();
        };
        assert_eq!(
            (command.name.as_deref(), command.not_written),
            (Some("ada"), 10_000 - u64::from(REFUSED_PER_MINUTE))
        );
    }

    #[test]
    fn a_line_that_a_crash_cut_short_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), &line(AuditKind::SignIn, "a")).unwrap();
        OpenOptions::new()
            .append(true)
            .open(dir.path().join("audit"))
            .unwrap()
            .write_all(b"{\"at\":\"20\n")
            .unwrap();
        append(dir.path(), &line(AuditKind::SignOut, "b")).unwrap();
        let kinds: Vec<_> = read(dir.path()).unwrap().into_iter().map(|line| line.kind).collect();
        assert_eq!(kinds, [AuditKind::SignIn, AuditKind::SignOut]);
    }

    #[test]
    fn a_variant_is_named_without_what_is_in_it() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "only its name is read")]
        enum Change {
            AddPlate { plate: &'static str },
            Verify,
        }
        assert_eq!(variant(&Change::AddPlate { plate: "KA1" }), "add_plate");
        assert_eq!(variant(&Change::Verify), "verify");
    }
}
