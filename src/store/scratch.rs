//! A store for data that need not outlive the process: one file without a name, with only the location of each value in memory.
//!
//! sled would work too, but keeps about fifty megabytes of its leaves in memory. Here a key takes about a hundred bytes.
//!
//! **Not promised.** That anything survives the process: the file has no name, and the kernel frees it.

use super::{Backend, Entries, Entry, Store, Write};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

/// A location in the file is a multiple of this, so that a value that grows often stays where it is.
const STEP: usize = 1024;

struct Scratch {
    file: File,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    locations: BTreeMap<Vec<u8>, ValueLocation>,
    end: u64,
}

#[derive(Clone, Copy)]
struct ValueLocation {
    at: u64,
    length: usize,
    room: usize,
}

impl Index {
    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, ValueLocation)> {
        let range = self.locations.range(from.to_vec()..to.max(from).to_vec());
        range.map(|(key, location)| (key.clone(), *location))
    }
}

/// An empty store in a file of its own under TMPDIR.
pub fn store() -> io::Result<Store> {
    Ok(Store::on(Scratch { file: tempfile::tempfile()?, index: Mutex::default() }))
}

impl Scratch {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nobody panics while it holds the index")
    }

    fn read(&self, location: ValueLocation) -> io::Result<Vec<u8>> {
        let mut value = vec![0; location.length];
        self.file.read_exact_at(&mut value, location.at)?;
        Ok(value)
    }
}

impl Backend for Scratch {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let location = self.index().locations.get(key).copied();
        location.map(|location| self.read(location)).transpose()
    }

    fn apply(&self, writes: &[Write<'_>]) -> io::Result<()> {
        let mut index = self.index();
        for (key, value) in writes {
            let Some(value) = value else {
                index.locations.remove(*key);
                continue;
            };
            let location = match index.locations.get(*key).filter(|location| location.room >= value.len()) {
                Some(location) => ValueLocation { length: value.len(), ..*location },
                None => {
                    let room = value.len().next_multiple_of(STEP);
                    let at = index.end;
                    index.end += room as u64;
                    ValueLocation { at, length: value.len(), room }
                }
            };
            self.file.write_all_at(value, location.at)?;
            index.locations.insert(key.to_vec(), location);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a> {
        let locations: Vec<_> = self.index().range(from, to).collect();
        Box::new(locations.into_iter().map(|(key, location)| Ok((key, self.read(location)?))))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>> {
        let last = self.index().range(from, to).next_back();
        last.map(|(key, location)| Ok((key, self.read(location)?))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::simulated::Disk;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_keeps_what_any_store_keeps(
            writes in prop::collection::vec((0u8..20, prop::option::weighted(0.8, 0usize..3000)), 0..60),
        ) {
            let (scratch, other) = (store().unwrap(), Store::on(Disk::default()));
            for (n, (key, length)) in writes.iter().enumerate() {
                for store in [&scratch, &other] {
                    match length {
                        Some(length) => store.put(&[*key], &vec![n as u8; *length]).unwrap(),
                        None => store.remove(&[*key]).unwrap(),
                    }
                }
            }
            let all = |store: &Store| store.range(&[3], &[17]).map(Result::unwrap).collect::<Vec<_>>();
            prop_assert_eq!(all(&scratch), all(&other));
            prop_assert_eq!(scratch.last(&[0], &[9]).unwrap(), other.last(&[0], &[9]).unwrap());
            prop_assert_eq!(scratch.get(&[5]).unwrap(), other.get(&[5]).unwrap());
        }
    }
}
