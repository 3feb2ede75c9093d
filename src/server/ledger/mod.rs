//! The durable, append-only record of everything that was applied.
//!
//! **Promise.** A page stands in the ledger once, at one position, after all earlier pages of its stream. What
//! [`Ledger::commit`] reports is on disk.
//! **Kept by.** `receiver::judge` decides over every page; a page, its place in the index and the mark of its stream are
//! written in one atomic batch; one flush covers all requests that were waiting; only then is anybody answered.
//! One thread commits; any thread reads, and reads only what was flushed.
//! **Not promised.** That a position stays free of damage: `server verify` is to come.

mod read;
mod record;
#[cfg(test)]
mod tests;

pub use read::PageAt;
pub use record::Record;

use crate::messaging::page::{Content, Page};
use crate::messaging::receiver::{Judgement, Place, judge};
use crate::messaging::wire::{Request, Verdict};
use crate::messaging::{Digest, Epoch, LedgerId, SiteName};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use record::{index_key, mark_key, record_key, stream_key, stream_value, trailing_u64};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// One life of one site, as this ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub site: SiteName,
    pub epoch: Epoch,
    /// The highest sequence applied.
    pub mark: u64,
}

/// What became of one request. To be told to its sender only after [`Ledger::commit`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub mark: u64,
    pub verdict: Verdict,
    /// How many messages were applied, and how many were known already.
    pub applied: u64,
    pub duplicates: u64,
    /// Messages that the sender can no longer give.
    pub missing: u64,
    /// This was the first page of a (site, epoch) never seen.
    pub new_epoch: bool,
}

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Ledger {
    store: Store,
    id: LedgerId,
    shared: Arc<Shared>,
}

struct Shared {
    streams: RwLock<Streams>,
    /// The last position that is on disk.
    durable: AtomicU64,
}

#[derive(Default)]
struct Streams {
    all: Vec<Stream>,
    numbers: HashMap<(SiteName, Epoch), u32>,
    by_site: BTreeMap<SiteName, Vec<u32>>,
}

impl Streams {
    fn add(&mut self, stream: Stream) -> u32 {
        let number = u32::try_from(self.all.len()).expect("there are fewer streams than garages ever built");
        self.numbers.insert((stream.site.clone(), stream.epoch), number);
        self.by_site.entry(stream.site.clone()).or_default().push(number);
        self.all.push(stream);
        number
    }
}

/// Writes a commit in batches that the store takes.
struct Writer<'a> {
    store: &'a Store,
    batch: Batch,
    next_position: u64,
}

impl Writer<'_> {
    /// Adds writes that must survive together.
    fn add(&mut self, writes: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        if self.batch.len() + writes.len() > BATCH_MAX {
            self.store.apply(&std::mem::take(&mut self.batch))?;
        }
        for (key, value) in writes {
            self.batch.put(key, value);
        }
        Ok(())
    }
    fn finish(self) -> Result<u64, StoreError> {
        if !self.batch.is_empty() {
            self.store.apply(&self.batch)?;
        }
        Ok(self.next_position)
    }
}

impl Ledger {
    /// Opens the ledger in `store`, or begins a new one.
    pub fn open(store: Store) -> Result<Ledger, StoreError> {
        let id = match store.get(record::LEDGER_ID)? {
            Some(bytes) => {
                LedgerId::from_bytes(bytes[..].try_into().map_err(|_| damaged("the ledger's id"))?)
            }
            None => {
                let id = LedgerId::random();
                store.put(record::LEDGER_ID, &id.to_bytes())?;
                store.flush()?;
                id
            }
        };
        let mut streams = Streams::default();
        for entry in store.range(b"s", b"t") {
            let (_, value) = entry?;
            let (epoch, name) = value.split_first_chunk::<16>().ok_or_else(|| damaged("a stream's name"))?;
            let name = std::str::from_utf8(name).ok().and_then(|name| SiteName::new(name).ok());
            let number = streams.add(Stream {
                site: name.ok_or_else(|| damaged("a stream's name"))?,
                epoch: Epoch::from_bytes(*epoch),
                mark: 0,
            });
            let mark = store.get(&mark_key(number))?;
            streams.all[number as usize].mark = match mark {
                Some(mark) => trailing_u64(&mark)?,
                None => 0,
            };
        }
        let last = store.last(b"r", b"s")?;
        let durable = last.map_or(Ok(0), |(key, _)| trailing_u64(&key))?;
        Ok(Ledger {
            store,
            id,
            shared: Arc::new(Shared { streams: RwLock::new(streams), durable: AtomicU64::new(durable) }),
        })
    }

    pub fn id(&self) -> LedgerId {
        self.id
    }

    /// The last position that is on disk, 0 for none.
    pub fn position(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Every site, with its streams in the order in which they were first seen.
    pub fn streams(&self) -> BTreeMap<SiteName, Vec<Stream>> {
        let streams = self.read_streams();
        let of = |numbers: &Vec<u32>| {
            let numbers = numbers.iter();
            numbers.map(|number| streams.all[*number as usize].clone()).collect()
        };
        streams.by_site.iter().map(|(site, numbers)| (site.clone(), of(numbers))).collect()
    }

    /// Applies the pages of all `requests`, as far as each goes, and flushes once. Called by one thread.
    ///
    /// On `Ok` everything that the answers say is on disk. On `Err` the store is poisoned and nobody may be answered.
    pub fn commit(&self, requests: &[Request], now_ms: i64) -> Result<Vec<Applied>, StoreError> {
        let mut writer = self.writer();
        let mut pending = HashMap::new();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(self.apply(&mut writer, &mut pending, request, now_ms)?);
        }
        self.finish(writer)?;
        Ok(answers)
    }

    /// Records that `site` has `capacity` spaces, on disk when this returns. Called by the committing thread.
    pub fn record_capacity(&self, site: &SiteName, capacity: u32, now_ms: i64) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let position = writer.next_position;
        let record = Record::Capacity { site: site.clone(), received_at_ms: now_ms, capacity };
        writer.add(vec![(record_key(position), record.encode())])?;
        writer.next_position += 1;
        self.finish(writer)
    }

    fn writer(&self) -> Writer<'_> {
        Writer { store: &self.store, batch: Batch::default(), next_position: self.position() + 1 }
    }

    fn finish(&self, writer: Writer<'_>) -> Result<(), StoreError> {
        let before = self.position() + 1;
        let next = writer.finish()?;
        if next > before {
            self.store.flush()?;
            self.shared.durable.store(next - 1, Ordering::Release);
        }
        Ok(())
    }

    fn apply(
        &self,
        writer: &mut Writer<'_>,
        pending: &mut HashMap<(u32, u64), Digest>,
        request: &Request,
        now_ms: i64,
    ) -> Result<Applied, StoreError> {
        let known = self.stream_number(&request.site, request.epoch);
        let mut answer = Applied {
            mark: known.map_or(0, |stream| self.mark(stream)),
            verdict: Verdict::Accepted,
            applied: 0,
            duplicates: 0,
            missing: 0,
            new_epoch: false,
        };
        let mut stream = known;
        for sealed in &request.pages {
            let page = match sealed.open() {
                Ok(page) if page.epoch == request.epoch => page,
                Ok(_) => {
                    return Ok(refused(answer, "a page belongs to another epoch than the request"));
                }
                Err(error) => {
                    return Ok(refused(answer, &format!("a page was refused: {error}")));
                }
            };
            let place = Place { first: page.first.get(), last: page.last(), digest: sealed.digest };
            let judgement = judge(place, answer.mark, request.oldest, |first| match stream {
                // Applied within this commit: not in the store yet.
                Some(stream) => match pending.get(&(stream, first)) {
                    Some(digest) => Ok(Some(*digest)),
                    None => self.digest_at(stream, first),
                },
                None => Ok::<_, StoreError>(None),
            })?;
            match judgement {
                Judgement::Duplicate => {
                    answer.duplicates += page.count();
                    continue;
                }
                Judgement::Gap { .. } => {
                    answer.verdict = Verdict::Gap;
                    return Ok(answer);
                }
                Judgement::Conflict => {
                    answer.verdict = Verdict::Conflict { first: place.first };
                    return Ok(answer);
                }
                Judgement::Next | Judgement::AfterHole { .. } => {}
            }
            let number = match stream {
                Some(number) => number,
                None => {
                    answer.new_epoch = true;
                    self.begin_stream(writer, &request.site, request.epoch)?
                }
            };
            stream = Some(number);
            let mut writes = Vec::with_capacity(4);
            if let Judgement::AfterHole { from, to } = judgement {
                answer.missing += to - from + 1;
                let reason = "the site was told that they are safe, and this ledger does not have them";
                let hole = hole(number, now_ms, (from, to), reason, None);
                writes.push((record_key(writer.next_position), hole.encode()));
                writer.next_position += 1;
            }
            let position = writer.next_position;
            writer.next_position += 1;
            let record = match &page {
                Page { content: Content::Lost { last, reason }, first, .. } => {
                    answer.missing += page.count();
                    hole(number, now_ms, (first.get(), last.get()), reason, Some(sealed.digest))
                }
                _ => {
                    answer.applied += page.count();
                    Record::Page { stream: number, received_at_ms: now_ms, page: sealed.clone() }
                }
            };
            writes.push((record_key(position), record.encode()));
            writes.push((index_key(number, place.first), position.to_be_bytes().to_vec()));
            writes.push((mark_key(number), place.last.to_be_bytes().to_vec()));
            writer.add(writes)?;
            pending.insert((number, place.first), sealed.digest);
            answer.mark = place.last;
            self.write_streams().all[number as usize].mark = place.last;
        }
        Ok(answer)
    }

    fn begin_stream(
        &self,
        writer: &mut Writer<'_>,
        site: &SiteName,
        epoch: Epoch,
    ) -> Result<u32, StoreError> {
        let number = self.write_streams().add(Stream { site: site.clone(), epoch, mark: 0 });
        writer.add(vec![(stream_key(number), stream_value(site, epoch))])?;
        Ok(number)
    }
}

fn hole(
    stream: u32,
    received_at_ms: i64,
    (first, last): (u64, u64),
    reason: &str,
    told_by: Option<Digest>,
) -> Record {
    let mut reason = reason.to_owned();
    let end = (0..=reason.len().min(1024)).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    Record::Hole { stream, received_at_ms, first, last, reason, told_by }
}

fn refused(answer: Applied, reason: &str) -> Applied {
    let reason = reason.to_owned();
    Applied { verdict: Verdict::Refused { reason }, ..answer }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged { place: what.to_owned(), reason: "it has the wrong form".into() }
}
