//! A simulated disk for tests: power can be cut between any two steps.

use crate::store::{Backend, Batch, Entries, Entry, Write};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What would survive a power cut, and what would not yet. Clones share the disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    durable: Map,
    visible: Map,
    /// Since the last flush, in order; each survives whole or not at all.
    waiting: Vec<Batch>,
    steps_to_cut: Option<usize>,
    powered_off: bool,
}

impl DiskState {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_to_cut {
            Some(0) => self.powered_off = true,
            Some(steps) => *steps -= 1,
            None => {}
        }
        if self.powered_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = Entry> {
        let range = self.visible.range(from.to_vec()..to.max(from).to_vec());
        range.map(|(key, value)| (key.clone(), value.clone()))
    }
}

fn replay(map: &mut Map, batch: &Batch) {
    for (key, value) in batch.writes() {
        match value {
            Some(value) => map.insert(key.to_vec(), value.to_vec()),
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
        waiting.iter().take(survivors).for_each(|batch| replay(&mut state.durable, batch));
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
    fn apply(&self, writes: &[Write<'_>]) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let mut batch = Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(*key, *value),
                None => batch.remove(*key),
            }
        }
        replay(&mut state.visible, &batch);
        state.waiting.push(batch);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.durable = state.visible.clone();
        state.waiting.clear();
        Ok(())
    }
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a> {
        let entries: Vec<_> = self.state().range(from, to).map(Ok).collect();
        Box::new(entries.into_iter())
    }
    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>> {
        Ok(self.state().range(from, to).next_back())
    }
}
