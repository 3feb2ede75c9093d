//! One commit: the pages of all requests that were waiting, judged, written, flushed, and only then shown.

use super::keys::{
    adoption_key, index_key, mark_key, mark_value, moved_key, record_key, stream_key, stream_value,
    trailing_u64,
};
use super::{Applied, Ledger, Stream};
use crate::messaging::page::{Content, Page, SealedPage};
use crate::messaging::receiver::{Judgement, Mark, PageSpan, judge};
use crate::messaging::wire::{Request, Verdict};
use crate::messaging::{Digest, Epoch, Sequence, SiteName};
use crate::server::record::{Command, Record};
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
    /// Streams that are told to move from now on.
    moved: Vec<u32>,
    /// Streams that have moved, and are told so no more.
    arrived: Vec<u32>,
    /// Sites whose next conflict is to be answered so.
    adopted: Vec<SiteName>,
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
            moved: Vec::new(),
            arrived: Vec::new(),
            adopted: Vec::new(),
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
        if request.ledger.is_some_and(|ledger| ledger != self.ledger.id()) {
            // Nothing of another ledger's business is told, either.
            return Ok(Applied { mark: 0, verdict: Verdict::OtherLedger, ..answer });
        }
        for sealed in &request.pages {
            let page = match sealed.open() {
                Ok(page) if page.epoch == request.epoch => page,
                Ok(_) => return Ok(refused(answer, "a page belongs to another epoch than the request")),
                Err(error) => return Ok(refused(answer, &format!("a page was refused: {error}"))),
            };
            let place = PageSpan {
                first: page.first.get(),
                last: page.last(),
                digest: sealed.digest,
                previous: page.previous,
                is_lost: matches!(page.content, Content::Lost { .. }),
            };
            let judgement = judge(place, mark, request.oldest, |first| match stream {
                Some(stream) => match self.pages.get(&(stream, first)) {
                    Some(digest) => Ok(Some(*digest)),
                    None => self.ledger.digest_at(stream, first, sealed.digest),
                },
                None => Ok::<_, StoreError>(None),
            })?;
            match judgement {
                Judgement::Duplicate => {
                    // A page may tell of as many lost messages as there are numbers, and come again and again.
                    answer.duplicates = answer.duplicates.saturating_add(page.count());
                    continue;
                }
                Judgement::Gap { .. } => {
                    answer.verdict = Verdict::Gap;
                    return Ok(answer);
                }
                Judgement::Conflict => {
                    let known = self.known_part(stream, &page)? as u64;
                    answer.duplicates = answer.duplicates.saturating_add(known);
                    if known == page.count() {
                        continue;
                    }
                    let parts_at = place.first + known;
                    if let (Some(number), 1.., true) = (stream, known, parts_at == mark.sequence + 1) {
                        mark = self.apply_rest((number, &request.site), page, known)?;
                        answer.applied += mark.sequence - answer.mark;
                        answer.mark = mark.sequence;
                        continue;
                    }
                    answer.verdict = match self.may_move(stream, &request.site)? {
                        true => Verdict::Move { from: parts_at },
                        false => Verdict::Conflict { first: parts_at },
                    };
                    return Ok(answer);
                }
                Judgement::Next | Judgement::AfterMissingRange { .. } | Judgement::Missing { .. } => {}
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
            if let Judgement::AfterMissingRange { from, to } = judgement {
                answer.missing += to - from + 1;
                let reason = "the site was told that they are safe, and this ledger does not have them";
                let hole = self.hole(number, (from, to), reason, None);
                writes.push((record_key(self.take_position()), hole.encode()));
            }
            let (record, first) = match (&page.content, judgement) {
                (Content::Lost { reason, .. }, Judgement::Missing { from, to }) => {
                    answer.missing += to - from + 1;
                    // The next page names the one that was lost.
                    mark = Mark { sequence: place.last, digest: None };
                    (self.hole(number, (from, to), reason, Some(sealed.digest)), from)
                }
                (Content::Lost { .. }, _) => unreachable!("what is lost is judged to be missing"),
                (Content::Records(_), _) => {
                    answer.applied += page.count();
                    mark = Mark::after(&page, sealed.digest);
                    let page = sealed.clone();
                    (Record::Page { stream: number, received_at_ms: self.now_ms, page }, place.first)
                }
            };
            if let Some((former, _)) = page.moved_from
                && let Some(former) = self.ledger.stream_number(&request.site, former)
                && self.ledger.stream(former)?.moved
                && self.began_since_told(number, former)?
            {
                // It has moved: what comes under the former epoch from now on is another conflict.
                if self.batch.len() == BATCH_MAX {
                    self.write_batch()?;
                }
                self.batch.remove(moved_key(former));
                self.arrived.push(former);
            }
            let position = self.take_position();
            writes.push((record_key(position), record.encode()));
            writes.push((index_key(number, first), position.to_be_bytes().to_vec()));
            writes.push((mark_key(number), mark_value(mark, &request.site, request.epoch)));
            self.write(writes)?;
            self.pages.insert((number, first), sealed.digest);
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

    /// How many messages of a page in conflict are the same that were applied under its place, before they part. A copy of a
    /// site's outbox ends in a page that had not grown yet: it was begun at the same moment by the same clocks, and the one
    /// page begins as the other does.
    fn known_part(&mut self, stream: Option<u32>, page: &Page) -> Result<usize, StoreError> {
        let (Some(stream), Content::Records(records)) = (stream, &page.content) else {
            return Ok(0);
        };
        // What this commit has applied is read, too.
        self.write_batch()?;
        let mut known = 0;
        while known < records.len() {
            let sequence = page.first.get() + known as u64;
            let Some(applied) = self.ledger.page_beginning(stream, sequence)? else { break };
            let Content::Records(there) = &applied.content else { break };
            if applied.begun != page.begun {
                break;
            }
            let same = records[known..].iter().zip(there).take_while(|(ours, theirs)| ours == theirs).count();
            known += same;
            if same < there.len() {
                break;
            }
        }
        Ok(known)
    }

    /// Applies what comes after the first `known` messages of a page, as a page of its own. It names none before it, by which
    /// [`Mark::after`] knows for good that the next page names the whole one.
    fn apply_rest(
        &mut self,
        (stream, site): (u32, &SiteName),
        page: Page,
        known: u64,
    ) -> Result<Mark, StoreError> {
        let later = |sequence: Sequence| {
            let place = sequence.get().checked_add(known).and_then(Sequence::new);
            place.expect("decoding refuses a page with a sequence that has no successor")
        };
        let Content::Records(mut records) = page.content else { unreachable!("only messages are known") };
        let rest = Page {
            epoch: page.epoch,
            first: later(page.first),
            previous: None,
            moved_from: page.moved_from.map(|(epoch, first)| (epoch, later(first))),
            begun: page.begun,
            content: Content::Records(records.split_off(known as usize)),
        };
        let first = rest.first.get();
        let sealed = SealedPage::seal(&rest);
        let digest = sealed.digest;
        let mark = Mark::after(&rest, digest);
        let record = Record::Page { stream, received_at_ms: self.now_ms, page: sealed };
        let position = self.take_position();
        self.write(vec![
            (record_key(position), record.encode()),
            (index_key(stream, first), position.to_be_bytes().to_vec()),
            (mark_key(stream), mark_value(mark, site, rest.epoch)),
        ])?;
        self.pages.insert((stream, first), digest);
        self.marks.insert(stream, mark);
        Ok(mark)
    }

    /// Whether an operator decided that this side of a conflict counts too, now or before: then this stream is told to move
    /// for good, and the decision is used up.
    fn may_move(&mut self, stream: Option<u32>, site: &SiteName) -> Result<bool, StoreError> {
        let Some(stream) = stream else { return Ok(false) };
        {
            let streams = self.ledger.read_streams();
            let known = streams.all.get(stream as usize);
            let moved = known.is_some_and(|known| known.moved) && !self.arrived.contains(&stream);
            if self.moved.contains(&stream) || moved {
                return Ok(true);
            }
            let used_up = self.moved.iter().any(|moved| match streams.all.get(*moved as usize) {
                Some(stream) => stream.site == *site,
                None => self.begun[*moved as usize - self.known].site == *site,
            });
            if !streams.adoptions.contains(site) || used_up {
                return Ok(false);
            }
        }
        let record = Record::Moved { stream, received_at_ms: self.now_ms };
        let position = self.take_position();
        if self.batch.len() + 3 > BATCH_MAX {
            self.write_batch()?;
        }
        self.batch.put(record_key(position), record.encode());
        self.batch.put(moved_key(stream), position.to_be_bytes().to_vec());
        self.batch.remove(adoption_key(site));
        self.moved.push(stream);
        Ok(true)
    }

    /// Whether a stream began after `former` was told to move. One that began before is of an earlier move, whatever it brings.
    fn began_since_told(&self, stream: u32, former: u32) -> Result<bool, StoreError> {
        if stream as usize >= self.known {
            return Ok(true);
        }
        let store = &self.ledger.store;
        let began = store.range(&index_key(stream, 0), &index_key(stream, u64::MAX)).next().transpose()?;
        match (began, store.get(&moved_key(former))?) {
            (Some((_, began)), Some(told)) => Ok(trailing_u64(&began)? > trailing_u64(&told)?),
            _ => Ok(true),
        }
    }

    /// The position that the record of a command gets; `bytes` are the encoded record.
    pub(super) fn record_command(&mut self, record: &Record, bytes: Vec<u8>) -> Result<u64, StoreError> {
        let position = self.take_position();
        let mut writes = Vec::with_capacity(2);
        if let Record::Command { command: Command::Adopt { garage }, .. } = record {
            writes.push((adoption_key(garage), position.to_be_bytes().to_vec()));
            self.adopted.push(garage.clone());
        }
        writes.push((record_key(position), bytes));
        self.write(writes)?;
        Ok(position)
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
        for number in self.moved {
            let stream = &mut streams.all[number as usize];
            stream.moved = true;
            let site = stream.site.clone();
            streams.adoptions.remove(&site);
        }
        for number in self.arrived {
            streams.all[number as usize].moved = false;
        }
        streams.adoptions.extend(self.adopted);
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
        self.begun.push(Stream { site: site.clone(), epoch, mark: Mark::default(), moved: false });
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
        Record::MissingRange { stream, received_at_ms: self.now_ms, first, last, reason, told_by }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer streams than garages ever built")
}

fn refused(answer: Applied, reason: &str) -> Applied {
    Applied { verdict: Verdict::Refused { reason: reason.to_owned() }, ..answer }
}
