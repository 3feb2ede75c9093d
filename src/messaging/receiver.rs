//! Decides what the receiver does with a page that arrives, from values alone.
//!
//! **Promise.** For a site and epoch exactly `mark + 1` is applied, whatever the link reorders, repeats or loses.
//! **Kept by.** [`judge`] alone decides; the ledger applies what it says and nothing else,
//! moves the mark in the same atomic write, and replies after the flush.
//! **Not promised.** A choice between two different pages for the same sequences: that is a [`Judgement::Conflict`], for a person.
//!
//! # One page
//!
//! `mark` is the highest sequence applied of the stream. A page has sequences `first` to `last`; the sender still has everything from
//! `oldest` on. "Continues" means that the page names the digest of the page that was applied last, as far as both are known.
//!
//! | page | with messages | of lost messages |
//! | --- | --- | --- |
//! | `last ≤ mark` | the same was applied: `Duplicate`; else `Conflict` | `Duplicate`: the ledger has better |
//! | `first ≤ mark < last` | `Conflict` | `Missing` from `mark + 1` |
//! | `first = mark + 1` | continues: `Next`, mark := last; else `Conflict` | `Missing`, mark := last |
//! | `mark + 1 < first ≤ oldest` | `AfterMissingRange`: the sender has deleted what lies between, as acknowledged; mark := last | `Missing` from `mark + 1` |
//! | beyond | `Gap`: wait for `mark + 1` | `Missing` if `first = oldest`, else `Gap` |

use super::identity::Digest;
use super::page::Page;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSpan {
    pub first: u64,
    pub last: u64,
    pub digest: Digest,
    /// The digest of the page before it, as the sender has it.
    pub previous: Option<Digest>,
    /// The page only says that the sender has lost these messages.
    pub is_lost: bool,
}

impl PageSpan {
    pub fn of<P>(page: &Page<P>, digest: Digest) -> PageSpan {
        PageSpan {
            first: page.first.get(),
            last: page.last(),
            digest,
            previous: page.previous,
            is_lost: page.is_lost(),
        }
    }
}

/// The high-water mark of a stream: how far it was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The highest sequence applied, 0 for a stream never seen.
    pub sequence: u64,
    /// The digest of the page that ended there, if the next page is sure to name it.
    pub digest: Option<Digest>,
}

impl Mark {
    /// The mark when a page of messages with this digest was applied.
    ///
    /// A page that names none before it, beyond the first, may be the rest of a page whose beginning was applied already: the
    /// next page names the whole one. All code that derives a mark from what was applied calls this, so that it is the same mark.
    pub fn after(page: &Page, digest: Digest) -> Mark {
        let whole = page.previous.is_some() || page.first.get() == 1;
        Mark { sequence: page.last(), digest: whole.then_some(digest) }
    }

    /// The mark when everything up to `last` was recorded as missing. The next page names the one that was lost.
    pub fn after_missing(last: u64) -> Mark {
        Mark { sequence: last, digest: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Next,
    /// This ledger was restored or is new: record that `from..=to` are missing for good, then apply the page.
    AfterMissingRange {
        from: u64,
        to: u64,
    },
    Duplicate,
    /// Record `from..=to` of a lost page as missing, and move the mark, without a digest.
    Missing {
        from: u64,
        to: u64,
    },
    Gap {
        expected: u64,
    },
    Conflict,
}

/// `mark` says how far this site and epoch was applied. `oldest` is the oldest sequence that the sender still has. `applied` gives
/// the digest of the page that was applied with this first sequence; it is called only for sequences at or below the mark.
pub fn judge<E>(
    page: PageSpan,
    mark: Mark,
    oldest: u64,
    applied: impl FnOnce(u64) -> Result<Option<Digest>, E>,
) -> Result<Judgement, E> {
    debug_assert!(page.first > 0 && page.first <= page.last);
    let continues = match (page.previous, mark.digest) {
        (Some(previous), Some(digest)) => previous == digest,
        _ => true,
    };
    let mark = mark.sequence;
    if page.is_lost && page.last <= mark {
        return Ok(Judgement::Duplicate);
    }
    if page.is_lost && page.first <= mark.max(oldest.saturating_sub(1)) + 1 {
        return Ok(Judgement::Missing { from: mark + 1, to: page.last });
    }
    Ok(if page.first <= mark {
        if page.last <= mark && applied(page.first)? == Some(page.digest) {
            Judgement::Duplicate
        } else {
            Judgement::Conflict
        }
    } else if page.first == mark + 1 {
        // Two sites may continue from one copied directory: only one of them can be the one recorded here.
        if continues { Judgement::Next } else { Judgement::Conflict }
    } else if page.first <= oldest {
        Judgement::AfterMissingRange { from: mark + 1, to: page.first - 1 }
    } else {
        Judgement::Gap { expected: mark + 1 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const A: Digest = Digest::from_bytes([1; 16]);
    const B: Digest = Digest::from_bytes([2; 16]);

    fn marked(sequence: u64) -> Mark {
        Mark { sequence, digest: None }
    }

    fn judged(first: u64, last: u64, mark: u64, oldest: u64) -> Judgement {
        let place = PageSpan { first, last, digest: A, previous: None, is_lost: false };
        let pages_of_ten = |first| Ok::<_, Infallible>((first % 10 == 1).then_some(A));
        judge(place, marked(mark), oldest, pages_of_ten).unwrap()
    }

    #[test]
    fn the_next_page_is_applied() {
        assert_eq!(judged(1, 10, 0, 1), Judgement::Next);
        assert_eq!(judged(11, 20, 10, 11), Judgement::Next);
    }

    #[test]
    fn a_page_applied_before_is_a_duplicate() {
        assert_eq!(judged(1, 10, 20, 1), Judgement::Duplicate);
        assert_eq!(judged(11, 20, 20, 1), Judgement::Duplicate);
    }

    #[test]
    fn a_page_that_comes_too_early_waits_for_the_one_before() {
        assert_eq!(judged(21, 30, 10, 11), Judgement::Gap { expected: 11 });
        assert_eq!(judged(11, 20, 0, 1), Judgement::Gap { expected: 1 });
    }

    #[test]
    fn what_the_sender_has_deleted_as_acknowledged_is_a_missing_range() {
        let missing = Judgement::AfterMissingRange { from: 11, to: 20 };
        assert_eq!(judged(21, 30, 10, 21), missing);
        assert_eq!(judged(21, 30, 0, 21), Judgement::AfterMissingRange { from: 1, to: 20 });
    }

    #[test]
    fn another_content_at_an_applied_place_is_a_conflict() {
        let place = PageSpan { first: 1, last: 10, digest: B, previous: None, is_lost: false };
        let judgement = judge(place, marked(20), 1, |_| Ok::<_, Infallible>(Some(A)));
        assert_eq!(judgement, Ok(Judgement::Conflict));
    }

    #[test]
    fn a_page_cut_differently_from_the_applied_ones_is_a_conflict() {
        assert_eq!(judged(11, 25, 20, 1), Judgement::Conflict); // reaches over the mark
        assert_eq!(judged(5, 9, 20, 1), Judgement::Conflict); // begins within a page
    }

    #[test]
    fn a_page_of_lost_messages_gives_way_to_what_the_book_has() {
        let judged = |first, last, mark: u64, oldest| {
            let place = PageSpan { first, last, digest: B, previous: Some(A), is_lost: true };
            let mark = Mark { sequence: mark, digest: Some(A) };
            judge(place, mark, oldest, |_| Ok::<_, Infallible>(Some(A))).unwrap()
        };
        assert_eq!(judged(11, 20, 10, 11), Judgement::Missing { from: 11, to: 20 });
        assert_eq!(judged(11, 20, 15, 11), Judgement::Missing { from: 16, to: 20 });
        assert_eq!(judged(11, 20, 20, 11), Judgement::Duplicate);
        assert_eq!(judged(11, 20, 5, 1), Judgement::Gap { expected: 6 });
        assert_eq!(judged(11, 20, 5, 11), Judgement::Missing { from: 6, to: 20 });
    }

    #[test]
    fn a_page_that_continues_another_one_than_the_applied_is_a_conflict() {
        let mark = Mark { sequence: 10, digest: Some(A) };
        let judged = |previous| {
            let place = PageSpan { first: 11, last: 20, digest: B, previous, is_lost: false };
            judge(place, mark, 1, |_| Ok::<_, Infallible>(None)).unwrap()
        };
        assert_eq!(judged(Some(A)), Judgement::Next);
        assert_eq!(judged(Some(B)), Judgement::Conflict);
        assert_eq!(judged(None), Judgement::Next, "the page before it was lost");
    }
}
