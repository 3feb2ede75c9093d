//! A simulated disk for tests: power can be cut between any two steps.

use super::{Backend, Batch, Entries, Entry};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Write = (Vec<u8>, Option<Vec<u8>>);

/// What would survive a power cut, and what would not yet. Clones share the disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    durable: Map,
    visible: Map,
    /// Since the last flush, in order; each entry survives whole or not at all.
    waiting: Vec<Vec<Write>>,
    steps_to_cut: Option<usize>,
    powered_off: bool,
}

impl DiskState {
    fn step(&mut self) -> io::Result<()> {
        if let Some(steps) = &mut self.steps_to_cut {
            if *steps == 0 {
                self.powered_off = true;
            } else {
                *steps -= 1;
            }
        }
        if self.powered_off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn write(&mut self, writes: Vec<Write>) -> io::Result<()> {
        self.step()?;
        replay(&mut self.visible, &writes);
        self.waiting.push(writes);
        Ok(())
    }
}

fn replay(map: &mut Map, writes: &[Write]) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

impl Disk {
    /// Cuts the power after `steps` more writes or flushes.
    pub fn cut_power_after(&self, steps: usize) {
        self.state().steps_to_cut = Some(steps);
    }

    pub fn is_off(&self) -> bool {
        self.state().powered_off
    }

    /// How many writes a power cut now could lose.
    pub fn in_doubt(&self) -> usize {
        self.state().waiting.len()
    }

    /// Restores power: the disk holds what was flushed, and the first `survivors` writes since.
    pub fn power_on(&self, survivors: usize) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        for writes in waiting.iter().take(survivors) {
            replay(&mut state.durable, writes);
        }
        state.visible = state.durable.clone();
        state.steps_to_cut = None;
        state.powered_off = false;
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().expect("no test panics while it holds the disk")
    }
}

impl Backend for Disk {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.state().visible.get(key).cloned())
    }
    fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.state().write(vec![(key.to_vec(), Some(value.to_vec()))])
    }
    fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.state().write(vec![(key.to_vec(), None)])
    }
    fn apply(&self, batch: &Batch) -> io::Result<()> {
        let writes = batch.writes().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
        self.state().write(writes.collect())
    }
    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.durable = state.visible.clone();
        state.waiting.clear();
        Ok(())
    }
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a> {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let entries: Vec<_> = self
            .state()
            .visible
            .range(from.to_vec()..to.to_vec())
            .map(|(key, value)| Ok((key.clone(), value.clone())))
            .collect();
        Box::new(entries.into_iter())
    }
    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>> {
        if from >= to {
            return Ok(None);
        }
        Ok(self
            .state()
            .visible
            .range(from.to_vec()..to.to_vec())
            .next_back()
            .map(|(key, value)| (key.clone(), value.clone())))
    }
}
