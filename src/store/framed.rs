//! A backend whose values are framed, so that they can be salvaged; see [`super::frame`].

use super::frame::{self, FrameKey, MAGIC, Stamp};
use super::marker::Framing;
use super::{Backend, Entries, Entry, Purpose, Write};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Framed<B> {
    inner: B,
    purpose: Purpose,
    frames: FrameKey,
    framing: Framing,
    next_stamp: AtomicU64,
}

impl<B: Backend> Framed<B> {
    /// `first` is greater than every stamp in the store.
    pub fn new(inner: B, purpose: Purpose, frames: FrameKey, framing: Framing, first: Stamp) -> Framed<B> {
        Framed { inner, purpose, frames, framing, next_stamp: AtomicU64::new(first.0) }
    }

    fn unframed(&self, key: &[u8], value: Vec<u8>) -> io::Result<Vec<u8>> {
        if !is_fact(self.purpose, key) {
            return Ok(value);
        }
        if self.framing == Framing::Some && !value.starts_with(&MAGIC) {
            return Ok(value); // as an earlier version wrote it
        }
        // sled has compared a checksum when it read this from its log: the hash is for what is found without sled.
        frame::unwrapped(key, value).map_err(|value| {
            let what = format!("the value of key {key:02x?} ({} bytes) is damaged", value.len());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }
}

/// Whether the value of a key cannot be derived from others, so that it is framed.
fn is_fact(purpose: Purpose, key: &[u8]) -> bool {
    match (purpose, key.first()) {
        (_, None | Some(0)) => false,
        (Purpose::Server, Some(prefix)) => b"bimrs".contains(prefix),
        (Purpose::Edge | Purpose::Other(_), Some(_)) => true,
    }
}

impl<B: Backend> Backend for Framed<B> {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.inner.get(key)?.map(|value| self.unframed(key, value)).transpose()
    }

    fn apply(&self, writes: &[Write<'_>]) -> io::Result<()> {
        let framed = |(key, value): &Write<'_>| {
            let value = value.filter(|_| is_fact(self.purpose, key))?;
            let stamp = Stamp(self.next_stamp.fetch_add(1, Ordering::Relaxed));
            Some(self.frames.encode(stamp, key, value))
        };
        let frames: Vec<_> = writes.iter().map(framed).collect();
        let writes = writes.iter().zip(&frames);
        let framed: Vec<_> =
            writes.map(|((key, value), frame)| (*key, frame.as_deref().or(*value))).collect();
        self.inner.apply(&framed)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a> {
        Box::new(self.inner.range(from, to).map(|entry| {
            let (key, value) = entry?;
            let value = self.unframed(&key, value)?;
            Ok((key, value))
        }))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>> {
        let Some((key, value)) = self.inner.last(from, to)? else { return Ok(None) };
        let value = self.unframed(&key, value)?;
        Ok(Some((key, value)))
    }
}
