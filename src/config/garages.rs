//! The tables `[[garage]]`, as the configuration file is now.
//!
//! **Promise.** A changed file is in force without a restart. A file that cannot be used changes nothing: the garages that were in
//! force stay, and a later file is tried again.

use super::file::{FileStamp, stamp};
use super::{ConfigError, file};
use crate::codes;
use crate::messaging::SiteName;
use crate::parking::garage::{ConfiguredGarage, parse_config};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard};

/// The garages of one state of the file, by name.
#[derive(Debug, Default, PartialEq)]
pub struct GarageTable {
    pub garages: BTreeMap<SiteName, ConfiguredGarage>,
    /// How often they changed since the start.
    pub revision: u64,
}

impl GarageTable {
    fn read(path: &Path, text: &str) -> Result<BTreeMap<SiteName, ConfiguredGarage>, ConfigError> {
        let refused = |errors: String| {
            let reason = format!("the configuration file {path:?} has garages that are not valid:{errors}");
            ConfigError::Refused(codes::GARAGES_INVALID, reason)
        };
        let garages = parse_config(text)
            .map_err(|errors| refused(errors.iter().map(|error| format!("\n{error}")).collect()))?;
        let (mut named, mut errors) = (BTreeMap::new(), String::new());
        for garage in garages {
            let line = garage.line;
            match SiteName::new(&garage.name) {
                Err(error) => {
                    errors +=
                        &format!("\nline {line}: garage {:?}: the name is not valid: {error}", garage.name);
                }
                // Two spellings of one name.
                Ok(name) if named.contains_key(&name) => {
                    errors += &format!(
                        "\nline {line}: garage {:?}: a garage of this name stands above, too",
                        garage.name
                    );
                }
                Ok(name) => {
                    named.insert(name, garage);
                }
            }
        }
        if errors.is_empty() { Ok(named) } else { Err(refused(errors)) }
    }
}

/// The garages that are in force. Cloning shares them.
#[derive(Clone, Default)]
pub struct LiveGarages(Arc<GaragesState>);

#[derive(Default)]
struct GaragesState {
    /// `None`: there is no file.
    path: Option<PathBuf>,
    in_force: RwLock<GaragesInForce>,
}

#[derive(Default)]
struct GaragesInForce {
    stamp: FileStamp,
    table: Arc<GarageTable>,
    /// Why the file as it is now is not in force.
    refused: Option<Arc<ConfigError>>,
}

/// What a look at the file found.
#[derive(Debug)]
pub enum GaragesReload {
    Unchanged,
    /// The number of garages in force now.
    TakenUp(usize),
    /// It changed and cannot be used; what was in force before still is.
    Refused(Arc<ConfigError>),
}

/// As settings show it: what is in force.
impl fmt::Debug for LiveGarages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table().garages.fmt(f)
    }
}

impl LiveGarages {
    /// Those of the file at `path`, which has this text.
    pub fn of(path: &Path, text: &str) -> Result<LiveGarages, ConfigError> {
        let table = Arc::new(GarageTable { garages: GarageTable::read(path, text)?, revision: 0 });
        // Without a stamp: what was written since the text was read is found by the first look.
        let in_force = RwLock::new(GaragesInForce { table, ..GaragesInForce::default() });
        Ok(LiveGarages(Arc::new(GaragesState { path: Some(path.to_owned()), in_force })))
    }

    fn in_force(&self) -> RwLockReadGuard<'_, GaragesInForce> {
        self.0.in_force.read().expect("no thread panics while it holds the garages")
    }

    pub fn table(&self) -> Arc<GarageTable> {
        Arc::clone(&self.in_force().table)
    }

    /// Why the file as it is now is not in force, if so.
    pub fn refused(&self) -> Option<Arc<ConfigError>> {
        self.in_force().refused.clone()
    }

    /// Reads the file again if it changed. It reads the disk, so not on a thread of the runtime.
    pub fn reload(&self) -> GaragesReload {
        let Some(path) = &self.0.path else { return GaragesReload::Unchanged };
        let stamp = stamp(path);
        if self.in_force().stamp == stamp {
            return GaragesReload::Unchanged;
        }
        let read = file::read(path).and_then(|text| GarageTable::read(path, &text));
        let mut in_force = self.0.in_force.write().expect("no thread panics while it holds the garages");
        in_force.stamp = stamp;
        match read {
            Ok(garages) => {
                in_force.refused = None;
                if garages == in_force.table.garages {
                    return GaragesReload::Unchanged;
                }
                let (count, revision) = (garages.len(), in_force.table.revision + 1);
                in_force.table = Arc::new(GarageTable { garages, revision });
                GaragesReload::TakenUp(count)
            }
            Err(error) => {
                let error = Arc::new(error);
                in_force.refused = Some(Arc::clone(&error));
                GaragesReload::Refused(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_file_is_taken_up_and_a_bad_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let with = |name: &str| format!("[[garage]]\nname = {name:?}\n");
        let garages = LiveGarages::of(&path, &with("a")).unwrap();
        let names = || garages.table().garages.keys().map(ToString::to_string).collect::<Vec<_>>();
        fs::write(&path, with("a")).unwrap();
        assert!(matches!(garages.reload(), GaragesReload::Unchanged), "it has the same garages");
        fs::write(&path, with("a") + &with("b")).unwrap();
        assert!(matches!(garages.reload(), GaragesReload::TakenUp(2)));
        assert!(matches!(garages.reload(), GaragesReload::Unchanged));
        for (text, part) in [
            (with("a") + "position = 7", "position must be"),
            (with(&"x".repeat(65)), "line 2"),
            ("nonsense".into(), "not TOML"),
        ] {
            fs::write(&path, text).unwrap();
            let GaragesReload::Refused(error) = garages.reload() else { panic!("it is refused") };
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!((names(), garages.table().revision), (vec!["a".to_owned(), "b".to_owned()], 1));
            assert!(garages.refused().is_some());
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(garages.reload(), GaragesReload::Refused(_)), "a file that is gone is no empty one");
        fs::write(&path, with("b")).unwrap();
        assert!(matches!(garages.reload(), GaragesReload::TakenUp(1)));
        assert!(garages.refused().is_none());
    }
}
