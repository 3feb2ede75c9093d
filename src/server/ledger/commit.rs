//! One commit: the pages of all waiting requests are judged, written and flushed, and only then visible to readers.
//!
//! # A page of a request
//!
//! [`judge`] decides by the mark. What is written for one page survives a crash as a whole or not at all. After any answer except
//! "accepted", the rest of the request is ignored.
//!
//! | judgement | written | answer |
//! | --- | --- | --- |
//! | `Duplicate` | – | accepted, a duplicate |
//! | `Next` | the page at the next position, its index entry, the mark; the stream, if it is new | accepted, applied |
//! | `AfterMissingRange` | the record of the missing range, then as `Next` | accepted, applied, missing |
//! | `Missing` | the record of the missing range, its index entry, the mark; the stream, if it is new | accepted, missing |
//! | `Gap` | – | gap |
//! | `Conflict`, but all messages are the same | – | accepted, a duplicate |
//! | `Conflict`, but all that differs comes after the mark | the rest as a page of its own, as `Next` | accepted, applied |
//! | `Conflict` otherwise | see below | conflict or move, from the first message that differs |
//!
//! # A stream in conflict
//!
//! | state | a conflict | a page that moved here from it, in a stream that began later | an operator adopts the site |
//! | --- | --- | --- | --- |
//! | In order | / conflict | – | Adopted |
//! | Adopted: the next conflict of the site is decided | Moving / record `Moved`, the decision is used up; move | – | Adopted |
//! | Moving: the sender is asked to move | / move | In order | Moving, and the next conflict is decided too |

use super::keys::{
    adoption_key, index_key, mark_key, mark_value, moved_key, record_key, stream_key, stream_value,
    trailing_u64,
};
use super::{Applied, Ledger, Stream};
use crate::messaging::page::{Content, Page, SealedPage, shortened};
use crate::messaging::receiver::{Judgement, Mark, PageSpan, judge};
use crate::messaging::wire::{Request, Verdict};
use crate::messaging::{Digest, Epoch, SiteName};
use crate::server::record::{Command, Record};
use crate::store::{BATCH_MAX, Batch, StoreError};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// The longest reason in the record of a missing range: the site chooses the text, and a record must fit into a value of the
/// store.
const REASON_MAX: usize = 1024;

/// A commit in progress. Readers see nothing of it before [`Commit::finish`].
pub(super) struct Commit<'a> {
    ledger: &'a Ledger,
    now_ms: i64,
    batch: Batch,
    next_position: u64,
    streams: ChangedStreams,
    moves: ChangedMoves,
}

/// Changes to the streams. They may not be visible in the store yet.
struct ChangedStreams {
    /// The number of streams before this commit. Those that begin in it follow.
    known: usize,
    begun: Vec<Stream>,
    marks: HashMap<u32, Mark>,
    /// Pages applied in this commit, by stream and first sequence.
    pages: HashMap<(u32, u64), Digest>,
}

/// Changes to the decisions about conflicts.
#[derive(Default)]
struct ChangedMoves {
    /// Streams whose sender is asked to move from now on.
    moving: Vec<u32>,
    /// Streams that have moved.
    arrived: Vec<u32>,
    /// Sites whose next conflict is decided.
    adopted: Vec<SiteName>,
}

/// A request that is being applied.
struct Applying<'r> {
    request: &'r Request,
    stream: Option<u32>,
    answer: Applied,
}

/// A key and its value.
type Write = (Vec<u8>, Vec<u8>);

impl<'a> Commit<'a> {
    pub(super) fn begin(ledger: &'a Ledger, now_ms: i64) -> Commit<'a> {
        Commit {
            ledger,
            now_ms,
            batch: Batch::default(),
            next_position: ledger.position() + 1,
            streams: ChangedStreams {
                known: ledger.read_streams().all.len(),
                begun: Vec::new(),
                marks: HashMap::new(),
                pages: HashMap::new(),
            },
            moves: ChangedMoves::default(),
        }
    }

    pub(super) fn apply(&mut self, request: &Request) -> Result<Applied, StoreError> {
        let stream = self.number_of(&request.site, request.epoch);
        let answer = Applied {
            mark: self.mark(stream).sequence,
            verdict: Verdict::Accepted,
            applied: 0,
            duplicates: 0,
            missing: 0,
            new_epoch: false,
        };
        if request.ledger.is_some_and(|ledger| ledger != self.ledger.id()) {
            // Another ledger's sender learns nothing of our streams.
            return Ok(Applied { mark: 0, verdict: Verdict::OtherLedger, ..answer });
        }
        let span = tracing::debug_span!("commit", garage = %request.site, id = request.id);
        let _entered = span.enter();
        let mut applying = Applying { request, stream, answer };
        for sealed in &request.pages {
            let verdict = match sealed.open() {
                Ok(page) if page.epoch == request.epoch => self.apply_page(&mut applying, sealed, page)?,
                Ok(_) => refused("a page belongs to another epoch than the request".into()),
                Err(error) => refused(format!("a page was refused: {error}")),
            };
            if verdict != Verdict::Accepted {
                tracing::debug!(mark = applying.answer.mark, ?verdict, "commit: request not accepted");
                applying.answer.verdict = verdict;
                break;
            }
        }
        Ok(applying.answer)
    }

    fn apply_page(
        &mut self,
        applying: &mut Applying<'_>,
        sealed: &SealedPage,
        page: Page,
    ) -> Result<Verdict, StoreError> {
        let span = PageSpan::of(&page, sealed.digest);
        let judgement = self.judge(applying, span)?;
        if judgement != Judgement::Next {
            tracing::debug!(first = span.first, last = span.last, ?judgement, "commit: page judged");
        }
        match judgement {
            Judgement::Duplicate => {
                // A page may report as many lost messages as there are numbers, and come again and again.
                applying.answer.duplicates = applying.answer.duplicates.saturating_add(page.count());
            }
            Judgement::Gap { .. } => return Ok(Verdict::Gap),
            Judgement::Conflict => return self.conflict(applying, page),
            Judgement::Missing { from, to } => {
                let Content::Lost { reason, .. } = &page.content else {
                    unreachable!("only pages of lost messages are judged to be missing")
                };
                let (stream, writes) = self.stream_for(applying);
                let record = self.missing_range(stream, (from, to), reason, Some(sealed.digest));
                applying.answer.missing += to - from + 1;
                self.end_move(applying, stream, &page)?;
                let mark = Mark::after_missing(span.last);
                self.append(applying, stream, writes, (record, from, sealed.digest), mark)?;
            }
            Judgement::Next | Judgement::AfterMissingRange { .. } => {
                let (stream, mut writes) = self.stream_for(applying);
                if let Judgement::AfterMissingRange { from, to } = judgement {
                    let reason = "the site was told that they are safe, and this ledger does not have them";
                    let record = self.missing_range(stream, (from, to), reason, None);
                    writes.push((record_key(self.take_position()), record.encode()));
                    applying.answer.missing += to - from + 1;
                }
                applying.answer.applied += page.count();
                self.end_move(applying, stream, &page)?;
                let record = self.page_record(stream, sealed.clone());
                let mark = Mark::after(&page, sealed.digest);
                self.append(applying, stream, writes, (record, span.first, sealed.digest), mark)?;
            }
        }
        Ok(Verdict::Accepted)
    }

    fn judge(&self, applying: &Applying<'_>, page: PageSpan) -> Result<Judgement, StoreError> {
        judge(page, self.mark(applying.stream), applying.request.oldest, |first| {
            let Some(stream) = applying.stream else { return Ok(None) };
            match self.streams.pages.get(&(stream, first)) {
                Some(digest) => Ok(Some(*digest)),
                None => self.ledger.digest_at(stream, first, page.digest),
            }
        })
    }

    /// Compares a page in conflict message by message with what was applied.
    fn conflict(&mut self, applying: &mut Applying<'_>, page: Page) -> Result<Verdict, StoreError> {
        let known = self.known_part(applying.stream, &page)? as u64;
        applying.answer.duplicates = applying.answer.duplicates.saturating_add(known);
        if known == page.count() {
            return Ok(Verdict::Accepted);
        }
        let parts_at = page.first.get() + known;
        let mark = self.mark(applying.stream).sequence;
        if let (Some(stream), 1.., true) = (applying.stream, known, parts_at == mark + 1) {
            // The rest names no page before it. From that, `Mark::after` always knows that the next page names the whole one.
            let rest = page.without_first(known, None);
            let sealed = SealedPage::seal(&rest);
            applying.answer.applied += rest.count();
            let (digest, mark) = (sealed.digest, Mark::after(&rest, sealed.digest));
            let record = self.page_record(stream, sealed);
            self.append(applying, stream, Vec::new(), (record, rest.first.get(), digest), mark)?;
            return Ok(Verdict::Accepted);
        }
        Ok(match self.may_move(applying.stream, &applying.request.site)? {
            true => Verdict::Move { from: parts_at },
            false => Verdict::Conflict { first: parts_at },
        })
    }

    /// Returns the number of messages of a page in conflict that are the same as those applied in its place, before they differ.
    /// A copy of a site's outbox ends in a page that had not grown yet: both pages were begun at the same moment by the same
    /// clocks, and begin with the same messages.
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

    /// Writes a record that moves the mark of its stream, with its index entry and the mark, and with what must survive with them.
    fn append(
        &mut self,
        applying: &mut Applying<'_>,
        stream: u32,
        mut writes: Vec<Write>,
        (record, first, digest): (Record, u64, Digest),
        mark: Mark,
    ) -> Result<(), StoreError> {
        let Request { site, epoch, .. } = applying.request;
        let position = self.take_position();
        writes.push((record_key(position), record.encode()));
        writes.push((index_key(stream, first), position.to_be_bytes().to_vec()));
        writes.push((mark_key(stream), mark_value(mark, site, *epoch)));
        self.write(writes)?;
        self.streams.pages.insert((stream, first), digest);
        self.streams.marks.insert(stream, mark);
        applying.answer.mark = mark.sequence;
        Ok(())
    }

    /// The number of the request's stream. If the stream begins now, also returns the writes that this needs.
    fn stream_for(&mut self, applying: &mut Applying<'_>) -> (u32, Vec<Write>) {
        let mut writes = Vec::with_capacity(5);
        let number = applying.stream.unwrap_or_else(|| {
            let Request { site, epoch, .. } = applying.request;
            let stream = Stream { site: site.clone(), epoch: *epoch, mark: Mark::default(), moved: false };
            self.streams.begun.push(stream);
            let number = number(self.streams.known + self.streams.begun.len() - 1);
            writes.push((stream_key(number), stream_value(site, *epoch)));
            applying.answer.new_epoch = true;
            number
        });
        applying.stream = Some(number);
        (number, writes)
    }

    /// Returns true if an operator decided that this side of a conflict counts too, now or before. Then the sender of this stream
    /// is asked to move until it has done so, and the decision is used up.
    fn may_move(&mut self, stream: Option<u32>, site: &SiteName) -> Result<bool, StoreError> {
        let Some(stream) = stream else { return Ok(false) };
        {
            let streams = self.ledger.read_streams();
            let known = streams.all.get(stream as usize);
            let is_moving = known.is_some_and(|known| known.moved) && !self.moves.arrived.contains(&stream);
            if self.moves.moving.contains(&stream) || is_moving {
                return Ok(true);
            }
            let is_used_up = self.moves.moving.iter().any(|moving| match streams.all.get(*moving as usize) {
                Some(stream) => stream.site == *site,
                None => self.streams.begun[*moving as usize - self.streams.known].site == *site,
            });
            if !streams.adoptions.contains(site) || is_used_up {
                return Ok(false);
            }
        }
        tracing::debug!(stream, "commit: a conflict is decided; the sender is asked to move");
        let record = Record::Moved { stream, received_at_ms: self.now_ms };
        let position = self.take_position();
        if self.batch.len() + 3 > BATCH_MAX {
            self.write_batch()?;
        }
        self.batch.put(record_key(position), record.encode());
        self.batch.put(moved_key(stream), position.to_be_bytes().to_vec());
        self.batch.remove(adoption_key(site));
        self.moves.moving.push(stream);
        Ok(true)
    }

    /// Ends the move of the stream that a page comes from: pages that arrive under that stream from now on are a new conflict.
    fn end_move(&mut self, applying: &Applying<'_>, stream: u32, page: &Page) -> Result<(), StoreError> {
        if let Some((former, _)) = page.moved_from
            && let Some(former) = self.ledger.stream_number(&applying.request.site, former)
            && self.ledger.stream(former)?.moved
            && self.began_after_move_of(stream, former)?
        {
            tracing::debug!(stream, former, "commit: a stream has moved");
            if self.batch.len() == BATCH_MAX {
                self.write_batch()?;
            }
            self.batch.remove(moved_key(former));
            self.moves.arrived.push(former);
        }
        Ok(())
    }

    /// Returns true if a stream began after the sender of `former` was asked to move. A stream that began before that belongs to
    /// an earlier move, whatever pages it contains.
    fn began_after_move_of(&self, stream: u32, former: u32) -> Result<bool, StoreError> {
        if stream as usize >= self.streams.known {
            return Ok(true);
        }
        let store = &self.ledger.store;
        let began = store.range(&index_key(stream, 0), &index_key(stream, u64::MAX)).next().transpose()?;
        match (began, store.get(&moved_key(former))?) {
            (Some((_, began)), Some(asked)) => Ok(trailing_u64(&began)? > trailing_u64(&asked)?),
            _ => Ok(true),
        }
    }

    pub(super) fn record_capacity(&mut self, site: &SiteName, capacity: u32) -> Result<(), StoreError> {
        let record = Record::Capacity { site: site.clone(), received_at_ms: self.now_ms, capacity };
        let position = self.take_position();
        self.write(vec![(record_key(position), record.encode())])
    }

    /// Records a command and returns its position; `bytes` are the encoded record.
    pub(super) fn record_command(&mut self, record: &Record, bytes: Vec<u8>) -> Result<u64, StoreError> {
        let position = self.take_position();
        let mut writes = Vec::with_capacity(2);
        if let Record::Command { command: Command::Adopt { garage }, .. } = record {
            writes.push((adoption_key(garage), position.to_be_bytes().to_vec()));
            self.moves.adopted.push(garage.clone());
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
        for stream in self.streams.begun {
            streams.add(stream);
        }
        for (number, mark) in self.streams.marks {
            streams.all[number as usize].mark = mark;
        }
        for number in self.moves.moving {
            let stream = &mut streams.all[number as usize];
            stream.moved = true;
            let site = stream.site.clone();
            streams.adoptions.remove(&site);
        }
        for number in self.moves.arrived {
            streams.all[number as usize].moved = false;
        }
        streams.adoptions.extend(self.moves.adopted);
        self.ledger.shared.durable.store(self.next_position - 1, Ordering::Release);
        Ok(())
    }

    fn number_of(&self, site: &SiteName, epoch: Epoch) -> Option<u32> {
        let begun =
            self.streams.begun.iter().position(|stream| stream.epoch == epoch && stream.site == *site);
        let begun = begun.map(|index| number(self.streams.known + index));
        begun.or_else(|| self.ledger.stream_number(site, epoch))
    }

    fn mark(&self, stream: Option<u32>) -> Mark {
        let Some(stream) = stream else { return Mark::default() };
        match self.streams.marks.get(&stream) {
            Some(mark) => *mark,
            None if stream as usize >= self.streams.known => Mark::default(),
            None => self.ledger.mark(stream),
        }
    }

    fn take_position(&mut self) -> u64 {
        self.next_position += 1;
        self.next_position - 1
    }

    /// Adds writes that must survive together.
    fn write(&mut self, writes: Vec<Write>) -> Result<(), StoreError> {
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

    fn page_record(&self, stream: u32, page: SealedPage) -> Record {
        Record::Page { stream, received_at_ms: self.now_ms, page }
    }

    fn missing_range(
        &self,
        stream: u32,
        (first, last): (u64, u64),
        reason: &str,
        told_by: Option<Digest>,
    ) -> Record {
        let reason = shortened(reason, REASON_MAX).to_owned();
        Record::MissingRange { stream, received_at_ms: self.now_ms, first, last, reason, told_by }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer streams than garages ever built")
}

fn refused(reason: String) -> Verdict {
    Verdict::Refused { reason }
}
