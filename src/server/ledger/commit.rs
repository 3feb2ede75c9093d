//! One commit: the pages of all requests that were waiting, judged, written, flushed, and only then shown.

use super::record::{index_key, mark_key, mark_value, record_key, stream_key, stream_value};
use super::{Applied, Ledger, Record, Stream};
use crate::messaging::page::Content;
use crate::messaging::receiver::{Judgement, Mark, Place, judge};
use crate::messaging::wire::{Request, Verdict};
use crate::messaging::{Digest, Epoch, SiteName};
use crate::store::{BATCH_MAX, Batch, StoreError};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// Nothing that a commit changes is seen by readers before [`Commit::finish`].
pub(super) struct Commit<'a> {
    ledger: &'a Ledger,
    now_ms: i64,
    batch: Batch,
    next_position: u64,
    /// Streams that begin in this commit. Their numbers follow those of the ledger.
    begun: Vec<Stream>,
    known: usize,
    marks: HashMap<u32, Mark>,
    /// Pages applied in this commit, which the store does not show yet.
    pages: HashMap<(u32, u64), Digest>,
}

impl<'a> Commit<'a> {
    pub(super) fn begin(ledger: &'a Ledger, now_ms: i64) -> Commit<'a> {
        Commit {
            ledger,
            now_ms,
            batch: Batch::default(),
            next_position: ledger.position() + 1,
            begun: Vec::new(),
            known: ledger.read_streams().all.len(),
            marks: HashMap::new(),
            pages: HashMap::new(),
        }
    }

    pub(super) fn apply(&mut self, request: &Request) -> Result<Applied, StoreError> {
        let mut stream = self.number_of(&request.site, request.epoch);
        let mut mark = stream.map_or_else(Mark::default, |stream| self.mark(stream));
        let mut answer = Applied {
            mark: mark.sequence,
            verdict: Verdict::Accepted,
            applied: 0,
            duplicates: 0,
            missing: 0,
            new_epoch: false,
        };
        for sealed in &request.pages {
            let page = match sealed.open() {
                Ok(page) if page.epoch == request.epoch => page,
                Ok(_) => return Ok(refused(answer, "a page belongs to another epoch than the request")),
                Err(error) => return Ok(refused(answer, &format!("a page was refused: {error}"))),
            };
            let place = Place {
                first: page.first.get(),
                last: page.last(),
                digest: sealed.digest,
                previous: page.previous,
            };
            let judgement = judge(place, mark, request.oldest, |first| match stream {
                Some(stream) => match self.pages.get(&(stream, first)) {
                    Some(digest) => Ok(Some(*digest)),
                    None => self.ledger.digest_at(stream, first),
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
            let mut writes = Vec::with_capacity(5);
            let number = match stream {
                Some(number) => number,
                None => {
                    answer.new_epoch = true;
                    let number = self.begin_stream(&request.site, request.epoch);
                    writes.push((stream_key(number), stream_value(&request.site, request.epoch)));
                    *stream.insert(number)
                }
            };
            if let Judgement::AfterHole { from, to } = judgement {
                answer.missing += to - from + 1;
                let reason = "the site was told that they are safe, and this ledger does not have them";
                let hole = self.hole(number, (from, to), reason, None);
                writes.push((record_key(self.take_position()), hole.encode()));
            }
            let record = match &page.content {
                Content::Lost { last, reason } => {
                    answer.missing += page.count();
                    self.hole(number, (place.first, last.get()), reason, Some(sealed.digest))
                }
                Content::Records(_) => {
                    answer.applied += page.count();
                    Record::Page { stream: number, received_at_ms: self.now_ms, page: sealed.clone() }
                }
            };
            mark = Mark { sequence: place.last, digest: Some(sealed.digest) };
            let position = self.take_position();
            writes.push((record_key(position), record.encode()));
            writes.push((index_key(number, place.first), position.to_be_bytes().to_vec()));
            writes.push((mark_key(number), mark_value(mark)));
            self.write(writes)?;
            self.pages.insert((number, place.first), sealed.digest);
            self.marks.insert(number, mark);
            answer.mark = mark.sequence;
        }
        Ok(answer)
    }

    pub(super) fn record_capacity(&mut self, site: &SiteName, capacity: u32) -> Result<(), StoreError> {
        let record = Record::Capacity { site: site.clone(), received_at_ms: self.now_ms, capacity };
        let position = self.take_position();
        self.write(vec![(record_key(position), record.encode())])
    }

    /// Flushes, then shows what changed to readers.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        if self.next_position == self.ledger.position() + 1 {
            return Ok(());
        }
        self.write_batch()?;
        self.ledger.store.flush()?;
        let mut streams = self.ledger.write_streams();
        for stream in self.begun {
            streams.add(stream);
        }
        for (number, mark) in self.marks {
            streams.all[number as usize].mark = mark;
        }
        self.ledger.shared.durable.store(self.next_position - 1, Ordering::Release);
        Ok(())
    }

    fn number_of(&self, site: &SiteName, epoch: Epoch) -> Option<u32> {
        let begun = self.begun.iter().position(|stream| stream.epoch == epoch && stream.site == *site);
        let begun = begun.map(|index| number(self.known + index));
        begun.or_else(|| self.ledger.stream_number(site, epoch))
    }

    fn mark(&self, stream: u32) -> Mark {
        match self.marks.get(&stream) {
            Some(mark) => *mark,
            None => self.ledger.mark(stream),
        }
    }

    fn begin_stream(&mut self, site: &SiteName, epoch: Epoch) -> u32 {
        self.begun.push(Stream { site: site.clone(), epoch, mark: Mark::default() });
        number(self.known + self.begun.len() - 1)
    }

    fn take_position(&mut self) -> u64 {
        self.next_position += 1;
        self.next_position - 1
    }

    /// Adds writes that must survive together.
    fn write(&mut self, writes: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        if self.batch.len() + writes.len() > BATCH_MAX {
            self.write_batch()?;
        }
        for (key, value) in writes {
            self.batch.put(key, value);
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), StoreError> {
        self.ledger.store.apply(&std::mem::take(&mut self.batch))
    }

    fn hole(&self, stream: u32, (first, last): (u64, u64), reason: &str, told_by: Option<Digest>) -> Record {
        // A site chooses the words; a record must fit into a value of the store.
        let end = (0..=reason.len().min(1024)).rev().find(|end| reason.is_char_boundary(*end));
        let reason = reason[..end.unwrap_or(0)].to_owned();
        Record::Hole { stream, received_at_ms: self.now_ms, first, last, reason, told_by }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer streams than garages ever built")
}

fn refused(answer: Applied, reason: &str) -> Applied {
    Applied { verdict: Verdict::Refused { reason: reason.to_owned() }, ..answer }
}
