//! The file with what is raised, silenced and not delivered: `alarms.json` in the data directory, beside the ledger.
//!
//! **Promise.** After a kill or a power cut it is as before or as after the last change, whole. One that is lost or cannot be read is reported, and it
//! begins empty: what is wrong is raised again.
//! **Kept by.** It is written beside its place, synced and renamed.

use super::state::AlarmBook;
use super::waiting::WaitingLines;
use crate::codes;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const NAME: &str = "alarms.json";
const NEW: &str = "alarms.json.new";
const UNREADABLE: &str = "alarms.json.unreadable";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptAlarms {
    pub book: AlarmBook,
    pub lines: WaitingLines,
}

#[derive(Serialize, Deserialize)]
struct AlarmsFile<K> {
    format: u32,
    #[serde(flatten)]
    kept: K,
}

/// Reads the file of a data directory.
pub fn read(dir: &Path) -> KeptAlarms {
    let path = dir.join(NAME);
    let problem = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return KeptAlarms::default(),
        Err(error) => error.to_string(),
        Ok(bytes) => match serde_json::from_slice::<AlarmsFile<KeptAlarms>>(&bytes) {
            Ok(AlarmsFile { format: FORMAT, kept }) => return kept,
            Ok(AlarmsFile { format, .. }) => format!("it has format {format}"),
            Err(error) => error.to_string(),
        },
    };
    let _ = fs::rename(&path, dir.join(UNREADABLE));
    tracing::error!(
        code = %codes::ALARMS_UNREADABLE,
        error = problem,
        hint = "nothing to do: what is wrong is raised again. Silences have to be given again, and notifications that were not delivered are lost; alarms.json.unreadable has them",
        "the file of alarms cannot be read; the list of alarms begins empty"
    );
    KeptAlarms::default()
}

/// Replaces the file.
pub fn write(dir: &Path, kept: &KeptAlarms) -> io::Result<()> {
    let bytes = serde_json::to_vec(&AlarmsFile { format: FORMAT, kept }).map_err(io::Error::other)?;
    let new = dir.join(NEW);
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    // Not by the C library's name for it, which is our barrier: what becomes of this file says nothing about events.
    rustix::fs::fsync(&file)?;
    fs::rename(&new, dir.join(NAME))?;
    Ok(rustix::fs::fsync(&File::open(dir)?)?)
}

#[cfg(test)]
mod tests {
    use super::super::id::AlarmId;
    use super::super::state::{RaisedAlarm, Silence};
    use super::*;
    use crate::messaging::SiteName;

    #[test]
    fn what_is_kept_comes_back_and_what_cannot_be_read_begins_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), KeptAlarms::default());
        let mut kept = KeptAlarms::default();
        let garage = Some(SiteName::new("Bull Ring ü").unwrap());
        let alarm = RaisedAlarm { since_ms: -1, notified_at_ms: Some(5), text: Default::default() };
        kept.book.raised.insert(AlarmId { code: codes::CONFLICT, garage: garage.clone() }, alarm);
        kept.book.silence(codes::CONFLICT, garage, Some(Silence { until_ms: 9, by: "ada".into() }));
        write(dir.path(), &kept).unwrap();
        write(dir.path(), &kept).unwrap();
        assert_eq!(read(dir.path()), kept);
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"{\"format\":2,\"book\":{},\"lines\":{}}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read(dir.path()), KeptAlarms::default());
            assert!(dir.path().join(UNREADABLE).exists() && !path.exists());
        }
    }
}
