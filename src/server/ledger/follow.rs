//! What a record says about its stream. The mark of a stream follows from its last record, and is derived only here.

use crate::messaging::page::{Page, PageError};
use crate::messaging::receiver::Mark;
use crate::server::record::Record;

/// A record that moves the mark of its stream.
#[derive(Debug)]
pub(super) struct Advance {
    pub stream: u32,
    pub first: u64,
    pub last: u64,
    /// The mark of the stream with this record.
    pub mark: Mark,
    /// Whether the index names the record. A missing range that the ledger detected itself is directly before a page that the
    /// index names.
    pub is_indexed: bool,
    /// What was applied; `None` for a missing range.
    pub page: Option<Page>,
}

impl Advance {
    /// `None` when the record belongs to no stream, or moves no mark.
    pub(super) fn of(record: &Record) -> Result<Option<Advance>, PageError> {
        Ok(match record {
            Record::Page { stream, page: sealed, .. } => {
                let page = sealed.read()?;
                Some(Advance {
                    stream: *stream,
                    first: page.first.get(),
                    last: page.last(),
                    mark: Mark::after(&page, sealed.digest),
                    is_indexed: true,
                    page: Some(page),
                })
            }
            Record::MissingRange { stream, first, last, told_by, .. } => Some(Advance {
                stream: *stream,
                first: *first,
                last: *last,
                // The next page names the digest of the lost page, which is not available.
                mark: Mark::after_missing(*last),
                is_indexed: told_by.is_some(),
                page: None,
            }),
            _ => None,
        })
    }
}
