//! The marker file beside sled's log: it says to which program the store belongs, and the store's id.
//!
//! sled treats a log that it cannot read as an empty one; the marker distinguishes a store that was in use from a new one. It
//! also holds the id of the store, without which the frames in a log that sled refuses cannot be read ([`super::frame`]).

use super::frame::FrameKey;
use super::{if_there, remove_if_there, sled_log};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "fogpost";
const FILE_NEW: &str = "fogpost.new";
/// Names the boot of the machine in which the store was opened last. It is removed when a write fails.
const BOOT: &str = "boot";
/// Says where the log ended when the store was closed in order: nothing before that is torn.
const CLOSED: &str = "closed";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreId(pub [u8; 16]);

impl StoreId {
    pub fn random() -> StoreId {
        StoreId(uuid::Uuid::new_v4().into_bytes())
    }
    pub fn frames(&self) -> FrameKey {
        FrameKey::of_store(&self.0)
    }
}

/// Whether everything that was written into a store reached its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// Everything did: bytes in the file are as they were written, or damaged.
    Same,
    /// Unknown: the end of the file may be torn.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    All,
    /// An earlier version of fogpost began the store: what it wrote is not framed, and cannot be salvaged.
    Some,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub purpose: String,
    /// `None` in the marker of an earlier version.
    pub id: Option<(StoreId, Framing)>,
}

impl Marker {
    pub fn read(dir: &Path) -> io::Result<Option<Marker>> {
        let Some(bytes) = if_there(fs::read(dir.join(FILE)))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let field = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
            text.lines().find_map(of)
        };
        let id = field("id").and_then(|id| uuid::Uuid::try_parse(&id).ok());
        let framing = if field("framed").as_deref() == Some("all") { Framing::All } else { Framing::Some };
        Ok(Some(Marker {
            purpose: field("fogpost").unwrap_or_default(),
            id: id.map(|id| (StoreId(id.into_bytes()), framing)),
        }))
    }

    /// Replaces the marker of a store; on disk when this returns, except for the name of the directory itself.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = format!("fogpost {}\n", self.purpose);
        if let Some((id, framing)) = &self.id {
            let framed = if *framing == Framing::All { "all" } else { "some" };
            text.push_str(&format!("id {}\nframed {framed}\n", uuid::Uuid::from_bytes(id.0)));
        }
        let new = dir.join(FILE_NEW);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }

    /// Whether the store can be salvaged: all its values that matter are framed, and the key to their frames is known.
    pub fn salvageable(&self) -> Option<StoreId> {
        self.id.and_then(|(id, framing)| (framing == Framing::All).then_some(id))
    }
}

/// Whether all that was written is in the store's file: the machine did not restart since it was opened, and no write failed.
pub(super) fn written_in(dir: &Path) -> Boot {
    match (fs::read_to_string(dir.join(BOOT)), boot_id()) {
        (Ok(then), Some(now)) if then == now => Boot::Same,
        _ => Boot::Other,
    }
}

/// Where the log ended if the store was closed in order. A kill tears its end, as a power cut does: sled writes in several threads.
pub(super) fn closed_at(dir: &Path) -> Option<u64> {
    let text = fs::read_to_string(dir.join(CLOSED)).ok()?;
    let (end, sum) = text.trim().split_once(' ')?;
    (checksum(end) == sum).then(|| end.parse().ok())?
}

fn checksum(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

/// Records that the store in `dir` was closed in order, and where its log ends.
pub(super) fn closed(dir: &Path) -> io::Result<()> {
    let end = sled_log::end(dir)?.to_string();
    let mut file = File::create(dir.join(CLOSED))?;
    writeln!(file, "{end} {}", checksum(&end))?;
    file.sync_all()
}

/// Records that the store in `dir` is open and may be written from now on.
pub(super) fn opened(dir: &Path) -> io::Result<()> {
    remove_if_there(&dir.join(CLOSED))?;
    File::open(dir)?.sync_all()?;
    match boot_id() {
        Some(boot) if written_in(dir) == Boot::Other => fs::write(dir.join(BOOT), boot),
        _ => Ok(()),
    }
}

/// Records that a write failed, so the end of the log may be torn. This needs no room on the disk.
pub(super) fn a_write_failed(dir: &Path) {
    // When it cannot be removed either, the next opening takes what a failed write left for damage, and salvages the store.
    let _ = fs::remove_file(dir.join(BOOT));
}

/// The id of the machine's current boot, if the kernel provides one.
fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    uuid::Uuid::try_parse(text.trim()).ok().map(|id| id.to_string())
}
