//! The file beside sled's log that says whose store this is.
//!
//! sled takes a log that it cannot read for an empty one; the marker tells a store that was in use from a new one. And it holds what
//! must be known to read a log that sled refuses: the id by which the store knows its frames ([`super::frame`]).

use super::frame::FrameKey;
use super::sled_log::Boot;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "fogpost";
const FILE_NEW: &str = "fogpost.new";

/// The id of a store, drawn when it is created.
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

/// Whether every value that matters is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    All,
    /// An earlier version of fogpost began the store: what it wrote is not framed, and cannot be salvaged.
    Some,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub purpose: String,
    pub id: Option<(StoreId, Framing)>,
    /// The boot of the machine in which the store was written last.
    boot: Option<String>,
}

impl Marker {
    /// The marker of a store that this process writes.
    pub fn now(purpose: String, id: StoreId, framing: Framing) -> Marker {
        Marker { purpose, id: Some((id, framing)), boot: boot_id() }
    }

    /// `None` when there is none.
    pub fn read(dir: &Path) -> io::Result<Option<Marker>> {
        let text = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => String::from_utf8_lossy(&read?).into_owned(),
        };
        let field = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
            text.lines().find_map(of)
        };
        let id = field("id").and_then(|id| uuid::Uuid::try_parse(&id).ok());
        let framing = if field("framed").as_deref() == Some("all") { Framing::All } else { Framing::Some };
        Ok(Some(Marker {
            purpose: field("fogpost").unwrap_or_default(),
            id: id.map(|id| (StoreId(id.into_bytes()), framing)),
            boot: field("boot"),
        }))
    }

    /// Replaces the marker of a store; on disk when this returns, except for the name of the directory itself.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = format!("fogpost {}\n", self.purpose);
        if let Some((id, framing)) = &self.id {
            let framed = if *framing == Framing::All { "all" } else { "some" };
            text.push_str(&format!("id {}\nframed {framed}\n", uuid::Uuid::from_bytes(id.0)));
        }
        if let Some(boot) = &self.boot {
            text.push_str(&format!("boot {boot}\n"));
        }
        let new = dir.join(FILE_NEW);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }

    /// Whether the machine runs since the store was written.
    pub fn boot(&self) -> Boot {
        match (&self.boot, boot_id()) {
            (Some(then), Some(now)) if *then == now => Boot::Same,
            _ => Boot::Other,
        }
    }

    /// Whether the store can be salvaged: all its values that matter are framed, and the key to their frames is known.
    pub fn salvageable(&self) -> Option<StoreId> {
        self.id.and_then(|(id, framing)| (framing == Framing::All).then_some(id))
    }
}

/// Which boot of the machine this is, as far as the kernel tells.
fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    uuid::Uuid::try_parse(text.trim()).ok().map(|id| id.to_string())
}
