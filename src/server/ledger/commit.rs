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

use super::keys::record_key;
use super::streams::{Advance, Streams};
use super::{Applied, Ledger};
use crate::messaging::page::{Content, Page, SealedPage, shortened};
use crate::messaging::receiver::{Judgement, Mark, PageSpan, judge};
use crate::messaging::wire::{Request, Verdict};
use crate::messaging::{Digest, Epoch};
use crate::server::record::{Record, StreamId};
use crate::store::{BATCH_MAX, Batch, StoreError};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// The most writes that must survive together: a missing range and the page behind it, with what [`Streams::advance`] adds.
const TOGETHER_MAX: usize = 6;

/// The longest reason in the record of a missing range: the site chooses it, and a record must fit into a value.
const REASON_MAX: usize = 1024;

/// A commit in progress. Readers see nothing of it before [`Commit::finish`].
pub(super) struct Commit<'a> {
    ledger: &'a Ledger,
    now_ms: i64,
    batch: Batch,
    next_position: u64,
    streams: Streams,
    /// Pages applied in this commit, by stream and first sequence.
    pages: HashMap<(u32, u64), Digest>,
}

struct Applying<'r> {
    request: &'r Request,
    /// The stream as the ledger calls it, and its number if it has begun.
    stream: StreamId,
    number: Option<u32>,
    answer: Applied,
}

impl<'a> Commit<'a> {
    pub(super) fn begin(ledger: &'a Ledger, now_ms: i64) -> Commit<'a> {
        Commit {
            ledger,
            now_ms,
            batch: Batch::default(),
            next_position: ledger.position() + 1,
            streams: ledger.read_streams().clone(),
            pages: HashMap::new(),
        }
    }

    pub(super) fn apply(&mut self, request: &Request) -> Result<Applied, StoreError> {
        let asked = StreamId { site: request.site.clone(), epoch: request.epoch };
        let number = self.streams.meant_by(&asked);
        let known = number.and_then(|number| self.streams.get(number));
        let answer = Applied {
            mark: known.map_or(0, |known| known.mark.sequence),
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
        let stream = known.map_or(asked, |known| known.id.clone());
        let mut applying = Applying { request, stream, number, answer };
        for sealed in &request.pages {
            let verdict = match sealed.open() {
                Ok(page) if page.epoch == request.epoch => self.apply_page(&mut applying, sealed, page)?,
                Ok(_) => {
                    Verdict::Refused { reason: "a page belongs to another epoch than the request".into() }
                }
                Err(error) => Verdict::Refused { reason: format!("a page was refused: {error}") },
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
                let moved_from = page.moved_from.map(|(former, _)| former);
                self.append_missing(applying, (from, to), reason, Some((sealed.digest, moved_from)))?;
            }
            Judgement::AfterMissingRange { from, to } => {
                let reason = "they were acknowledged to the site, but this ledger does not have them";
                self.append_missing(applying, (from, to), reason, None)?;
                self.append_page(applying, sealed.clone(), page);
            }
            Judgement::Next => {
                self.make_room()?;
                self.append_page(applying, sealed.clone(), page);
            }
        }
        Ok(Verdict::Accepted)
    }

    fn judge(&self, applying: &Applying<'_>, page: PageSpan) -> Result<Judgement, StoreError> {
        judge(page, self.mark(applying.number), applying.request.oldest, |first| {
            let Some(stream) = applying.number else { return Ok(None) };
            match self.pages.get(&(stream, first)) {
                Some(digest) => Ok(Some(*digest)),
                None => self.ledger.digest_at(stream, first, page.digest),
            }
        })
    }

    /// Compares a page in conflict message by message with what was applied.
    fn conflict(&mut self, applying: &mut Applying<'_>, page: Page) -> Result<Verdict, StoreError> {
        let known = self.known_part(applying.number, &page)? as u64;
        applying.answer.duplicates = applying.answer.duplicates.saturating_add(known);
        if known == page.count() {
            return Ok(Verdict::Accepted);
        }
        let parts_at = page.first.get() + known;
        let mark = self.mark(applying.number).sequence;
        if known > 0 && parts_at == mark + 1 {
            // The rest names no page before it. From that, `Mark::after` always knows that the next page names the whole one.
            let rest = page.without_first(known, None);
            self.make_room()?;
            self.append_page(applying, SealedPage::seal(&rest), rest);
            return Ok(Verdict::Accepted);
        }
        Ok(match self.may_move(applying)? {
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

    /// Adds a page. What must survive with it is in the same batch.
    fn append_page(&mut self, applying: &mut Applying<'_>, sealed: SealedPage, page: Page) {
        applying.answer.applied += page.count();
        let (stream, digest) = (applying.stream.clone(), sealed.digest);
        let advance = Advance::of_page(stream.clone(), page, digest);
        let record = Record::Page { stream, received_at_ms: self.now_ms, page: sealed };
        self.append(applying, &record, &advance, Some(digest));
    }

    /// Adds the record of a missing range, which precedes a page, or which a page reported: its digest, and the epoch that it was moved
    /// from.
    fn append_missing(
        &mut self,
        applying: &mut Applying<'_>,
        (first, last): (u64, u64),
        reason: &str,
        reported: Option<(Digest, Option<Epoch>)>,
    ) -> Result<(), StoreError> {
        applying.answer.missing += last - first + 1;
        self.make_room()?;
        let (stream, reason) = (applying.stream.clone(), shortened(reason, REASON_MAX).to_owned());
        let (told_by, moved_from) = reported.unzip();
        let record =
            Record::MissingRange { stream, received_at_ms: self.now_ms, first, last, reason, told_by };
        let advance = Advance::of(&record).ok().flatten().expect("a missing range is of a stream");
        let advance = Advance { moved_from: moved_from.flatten(), ..advance };
        self.append(applying, &record, &advance, told_by);
        Ok(())
    }

    fn append(
        &mut self,
        applying: &mut Applying<'_>,
        record: &Record,
        advance: &Advance,
        digest: Option<Digest>,
    ) {
        let position = self.put_next(record);
        let number = self.streams.advance(position, advance, &mut self.batch);
        self.pages.extend(digest.map(|digest| ((number, advance.first), digest)));
        applying.answer.new_epoch |= applying.number.replace(number).is_none();
        applying.answer.mark = self.mark(Some(number)).sequence;
    }

    /// Returns true if an operator decided that this side of a conflict counts too, now or before. Then the sender of this stream
    /// is asked to move until it has done so, and the decision is used up.
    fn may_move(&mut self, applying: &Applying<'_>) -> Result<bool, StoreError> {
        let Some(stream) = applying.number.and_then(|number| self.streams.get(number)) else {
            return Ok(false);
        };
        if stream.moving.is_some() || !self.streams.is_adopted(&stream.id.site) {
            return Ok(stream.moving.is_some());
        }
        tracing::debug!(stream = %stream.id, "commit: a conflict is decided; the sender is asked to move");
        let stream = stream.id.clone();
        self.add(&Record::Moved { stream, received_at_ms: self.now_ms })?;
        Ok(true)
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<(), StoreError> {
        self.make_room()?;
        let position = self.put_next(record);
        self.streams.decide(position, record, &mut self.batch);
        Ok(())
    }

    /// Flushes, then shows what changed to readers.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        if self.next_position == self.ledger.position() + 1 {
            return Ok(());
        }
        self.write_batch()?;
        self.ledger.log.flush()?;
        {
            let mut streams = self.ledger.write_streams();
            *streams = self.streams;
            self.ledger.shared.durable.store(self.next_position - 1, Ordering::Release);
        }
        self.ledger.note();
        Ok(())
    }

    fn mark(&self, number: Option<u32>) -> Mark {
        number.and_then(|number| self.streams.get(number)).map_or(Mark::default(), |stream| stream.mark)
    }

    /// Puts a record at the next position, which it returns.
    fn put_next(&mut self, record: &Record) -> u64 {
        let position = self.next_position;
        self.batch.put(record_key(position), record.encode());
        self.next_position += 1;
        position
    }

    /// Makes sure that what is added next goes into one batch.
    fn make_room(&mut self) -> Result<(), StoreError> {
        if self.batch.len() + TOGETHER_MAX > BATCH_MAX {
            self.write_batch()?;
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), StoreError> {
        self.ledger.log.append(&std::mem::take(&mut self.batch))
    }
}
