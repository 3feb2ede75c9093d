//! The streams of the ledger, and what a record says about them. Marks, index and decisions about conflicts follow from the records,
//! and are derived only here: by a commit, at opening, by a check, by a copy and by a salvage.

use super::keys::{
    adoption_key, decode_stream, index_key, mark_key, mark_value, moved_key, stream_key, stream_value,
    trailing_u64,
};
use super::{Log, damaged};
use crate::messaging::page::{Page, PageError};
use crate::messaging::receiver::Mark;
use crate::messaging::{Digest, Epoch, SiteName};
use crate::server::record::{Command, Record, StreamId};
use crate::store::{Batch, Store, StoreError};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync, VectorSync};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The last of all epochs in their order.
const LAST_EPOCH: Epoch = Epoch::from_bytes([u8::MAX; 16]);

/// Made-up name of a garage whose name was lost with a damaged store.
pub(super) const NAMELESS: &str = "unknown garage ";

/// One (site, epoch), as this ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub id: StreamId,
    pub mark: Mark,
    /// The position of its first record that the index names.
    pub(super) began: u64,
    /// The position at which the edge was asked to move what is in conflict to a new epoch; it is asked again until it has done so.
    pub(super) moving: Option<u64>,
}

/// A record that moves the mark of its stream.
#[derive(Debug)]
pub(super) struct Advance {
    pub stream: StreamId,
    pub first: u64,
    pub last: u64,
    pub mark: Mark,
    /// Whether the index names the record. A missing range that the ledger detected is right before a page that it names.
    pub is_indexed: bool,
    /// What was applied; `None` for a missing range.
    pub page: Option<Page>,
    /// The epoch in which the events were before the edge moved them. The record of a missing range does not say it: where only
    /// records are read, the next page ends the move.
    pub moved_from: Option<Epoch>,
}

impl Advance {
    /// `None` when the record belongs to no stream, or moves no mark.
    pub fn of(record: &Record) -> Result<Option<Advance>, PageError> {
        Ok(match record {
            Record::Page { stream, page: sealed, .. } => {
                Some(Advance::of_page(stream.clone(), sealed.read()?, sealed.digest))
            }
            Record::MissingRange { stream, first, last, told_by, .. } => Some(Advance {
                stream: stream.clone(),
                first: *first,
                last: *last,
                // The next page names the digest of the lost page, which is not available.
                mark: Mark::after_missing(*last),
                is_indexed: told_by.is_some(),
                page: None,
                moved_from: None,
            }),
            _ => None,
        })
    }

    /// What the record of a page says. `digest` is the one that the page was received with.
    pub fn of_page(stream: StreamId, page: Page, digest: Digest) -> Advance {
        Advance {
            stream,
            first: page.first.get(),
            last: page.last(),
            mark: Mark::after(&page, digest),
            is_indexed: true,
            moved_from: page.moved_from.map(|(former, _)| former),
            page: Some(page),
        }
    }
}

/// See the module. Cloning shares what does not change: a commit changes a clone, which readers see once it is on disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    all: VectorSync<Stream>,
    numbers: RedBlackTreeMapSync<StreamId, u32>,
    /// Sites whose next conflict is answered by "move".
    adoptions: RedBlackTreeSetSync<SiteName>,
}

impl Streams {
    pub fn load(log: &dyn Log, store: &Store) -> Result<Streams, StoreError> {
        let mut streams = Streams::default();
        for (expected, entry) in (0u32..).zip(store.range(b"s", b"t")) {
            let (key, value) = entry?;
            // A stream is known by its number: a missing one would give its keys to another garage.
            if key[1..] != expected.to_be_bytes() {
                return Err(damaged("the list of streams, which lacks one"));
            }
            let id = decode_stream(&value).ok_or_else(|| damaged("a stream's name"))?;
            let first = log.pages_from(expected, 0).next();
            let began = first.and_then(Result::ok).map_or(0, |(_, position)| position);
            let mark = log.mark(expected)?.unwrap_or_default();
            let moving = store.get(&moved_key(expected))?.map(|asked| trailing_u64(&asked)).transpose()?;
            streams.push(Stream { id, mark, began, moving });
        }
        for entry in store.range(b"q", b"r") {
            let (key, _) = entry?;
            let name = std::str::from_utf8(&key[1..]).ok().and_then(|name| SiteName::new(name).ok());
            streams.adoptions.insert_mut(name.ok_or_else(|| damaged("a decision about a conflict"))?);
        }
        Ok(streams)
    }

    /// How many there are: the number of the next one.
    pub fn count(&self) -> u32 {
        u32::try_from(self.all.len()).expect("there are fewer streams than garages ever built")
    }

    pub fn get(&self, number: u32) -> Option<&Stream> {
        self.all.get(number as usize)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter()
    }

    pub fn number(&self, stream: &StreamId) -> Option<u32> {
        self.numbers.get(stream).copied()
    }

    /// The stream that a peer means. One whose site was lost with a damaged store is found by its epoch, which belongs to one site.
    pub fn meant_by(&self, stream: &StreamId) -> Option<u32> {
        let nameless = || {
            let before = SiteName::new(NAMELESS.trim_end()).expect("it is short and can be printed");
            let before = StreamId { site: before, epoch: LAST_EPOCH };
            let all = self.numbers.range((Bound::Excluded(before), Bound::Unbounded));
            let mut nameless = all.take_while(|(its, _)| its.site.as_str().starts_with(NAMELESS));
            nameless.find(|(its, _)| its.epoch == stream.epoch).map(|(_, number)| *number)
        };
        self.number(stream).or_else(nameless)
    }

    /// The numbers of a site's streams, in the order in which they began.
    pub fn of_site(&self, site: &SiteName) -> Vec<u32> {
        let [first, last] =
            [Epoch::from_bytes([0; 16]), LAST_EPOCH].map(|epoch| StreamId { site: site.clone(), epoch });
        let mut numbers: Vec<u32> = self.numbers.range(first..=last).map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The names of at most `at_most` sites after `after`, in order.
    pub fn sites_after(&self, after: Option<&SiteName>, at_most: usize) -> Vec<SiteName> {
        let from = after.map(|site| StreamId { site: site.clone(), epoch: LAST_EPOCH });
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut sites: Vec<SiteName> = Vec::new();
        for (StreamId { site, .. }, _) in self.numbers.range((from, Bound::Unbounded)) {
            if sites.last() != Some(site) {
                if sites.len() == at_most {
                    break;
                }
                sites.push(site.clone());
            }
        }
        sites
    }

    /// All sites, each with its streams in the order in which they began.
    pub fn by_site(&self) -> BTreeMap<SiteName, Vec<Stream>> {
        let mut sites: BTreeMap<SiteName, Vec<Stream>> = BTreeMap::new();
        for stream in self.iter() {
            sites.entry(stream.id.site.clone()).or_default().push(stream.clone());
        }
        sites
    }

    /// Whether an operator decided the next conflict of a site.
    pub fn is_adopted(&self, site: &SiteName) -> bool {
        self.adoptions.contains(site)
    }

    fn push(&mut self, stream: Stream) -> u32 {
        let number = self.count();
        self.numbers.insert_mut(stream.id.clone(), number);
        self.all.push_back_mut(stream);
        number
    }

    pub fn begin(&mut self, id: StreamId, batch: &mut Batch) -> u32 {
        batch.put(stream_key(self.count()), stream_value(&id));
        self.push(Stream { id, mark: Mark::default(), began: 0, moving: None })
    }

    pub fn set_mark(&mut self, number: u32, mark: Mark) {
        self.change(number, |stream| stream.mark = mark);
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut Stream)) {
        change(self.all.get_mut(number as usize).expect("a stream with a number is there"));
    }

    /// Follows the record at `position`, which moves the mark of its stream. Adds at most 4 writes to the batch: the stream if it
    /// begins, the index entry, the mark, and the end of a move. Returns the number of the stream.
    pub fn advance(&mut self, position: u64, advance: &Advance, batch: &mut Batch) -> u32 {
        let Advance { stream, first, mark, is_indexed, moved_from, .. } = advance;
        let number = self.number(stream).unwrap_or_else(|| self.begin(stream.clone(), batch));
        if *is_indexed {
            batch.put(index_key(number, *first), position.to_be_bytes());
            batch.put(mark_key(number), mark_value(*mark, stream));
            self.change(number, |stream| {
                if stream.mark == Mark::default() {
                    stream.began = position;
                }
                stream.mark = *mark;
            });
        }
        if let Some(former) = moved_from {
            self.end_move(number, *former, batch);
        }
        number
    }

    /// Ends the move of the stream that events of `number` were moved from: its pages are a new conflict from now on.
    fn end_move(&mut self, number: u32, former: Epoch, batch: &mut Batch) {
        let Stream { id: StreamId { site, .. }, began, .. } = &self.all[number as usize];
        let (began, former) = (*began, StreamId { site: site.clone(), epoch: former });
        let Some(former) = self.meant_by(&former) else { return };
        // A stream that began before its edge was asked belongs to an earlier move, whatever pages it contains.
        if self.all[former as usize].moving.is_some_and(|asked| began > asked) {
            tracing::debug!(stream = number, former, "a stream has moved");
            batch.remove(moved_key(former));
            self.change(former, |stream| stream.moving = None);
        }
    }

    /// Follows the record at `position` if it decides about conflicts. Adds at most 2 writes to the batch.
    pub fn decide(&mut self, position: u64, record: &Record, batch: &mut Batch) {
        match record {
            Record::Command { command: Command::Adopt { garage }, .. } => {
                batch.put(adoption_key(garage), position.to_be_bytes());
                self.adoptions.insert_mut(garage.clone());
            }
            Record::Moved { stream, .. } => {
                if let Some(number) = self.number(stream) {
                    batch.put(moved_key(number), position.to_be_bytes());
                    self.change(number, |stream| stream.moving = Some(position));
                }
                // The decision is used up.
                batch.remove(adoption_key(&stream.site));
                self.adoptions.remove_mut(&stream.site);
            }
            _ => {}
        }
    }
}
