//! The count of a garage over time, as it was written last.

use super::{CountChange, Curve, CurvePage, CurveUnit, PREFIX, page_key};
use crate::server::view::codec::{key_u32, read, read_range};
use crate::store::{Store, StoreError};

/// A minute, an hour or a day of a garage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurvePoint {
    /// When it began.
    pub at_ms: i64,
    /// How many cars were inside at its end, or are now if it is not over.
    pub occupied: i64,
    pub min: i64,
    pub max: i64,
}

/// The buckets of one unit in which something changed, ascending.
#[derive(Debug, Clone)]
pub struct WrittenCurve {
    curve: Curve,
    unit: CurveUnit,
    buckets: Vec<(i64, CountChange)>,
}

impl WrittenCurve {
    /// `None`: no event of the garage is in the written views.
    pub fn read(store: &Store, garage: u32, unit: CurveUnit) -> Result<Option<WrittenCurve>, StoreError> {
        let Some(curve) = read::<Curve>(store, &key_u32(PREFIX, garage))? else { return Ok(None) };
        let (from, to) = (page_key(garage, unit, 0), page_key(garage, unit, u8::MAX));
        let pages = read_range::<CurvePage>(store, &from, &to).map(|entry| entry.map(|(_, page)| page));
        let mut pages: Vec<CurvePage> = pages.collect::<Result<_, _>>()?;
        pages.sort_unstable_by_key(|page| page.number);
        let mut buckets = Vec::new();
        for page in pages {
            let first = page.number.saturating_mul(unit.pages().0);
            let numbered = |(index, change)| (first.saturating_add(i64::from(index)), change);
            buckets.extend(page.buckets.into_iter().map(numbered));
        }
        buckets.push(curve.latest[unit as usize]);
        Ok(Some(WrittenCurve { curve, unit, buckets }))
    }

    /// The last `count` buckets up to the one that holds `to_ms`, oldest first. `None`: it is not known what happened then.
    ///
    /// `heard_ms` is when the garage last said that nothing waits there: until then nothing else happened.
    pub fn points(&self, to_ms: i64, count: usize, heard_ms: Option<i64>) -> Vec<Option<CurvePoint>> {
        let last = to_ms.div_euclid(self.unit.ms());
        let (earlier, later) = self.buckets.split_at(self.buckets.partition_point(|(its, _)| *its <= last));
        let mut end = later.iter().fold(self.curve.count, |count, (_, its)| count.saturating_sub(its.net));
        let mut earlier = earlier.iter().rev().peekable();
        let known_to_ms = match heard_ms {
            Some(heard_ms) if !self.curve.lost => self.curve.last_ms.max(heard_ms),
            _ => self.curve.last_ms,
        };
        let mut points = Vec::with_capacity(count);
        for back in 0..count as i64 {
            let bucket = last.saturating_sub(back);
            let change = earlier.next_if(|(its, _)| *its == bucket).map(|(_, its)| *its).unwrap_or_default();
            let before = end.saturating_sub(change.net);
            points.push(self.is_known(bucket, known_to_ms).then(|| CurvePoint {
                at_ms: bucket.saturating_mul(self.unit.ms()),
                occupied: end,
                min: before.saturating_add(change.least),
                max: before.saturating_add(change.greatest),
            }));
            end = before;
        }
        points.reverse();
        points
    }

    fn is_known(&self, bucket: i64, known_to_ms: i64) -> bool {
        let from_ms = bucket.saturating_mul(self.unit.ms());
        let to_ms = from_ms.saturating_add(self.unit.ms());
        self.curve.since_ms < to_ms
            && from_ms <= known_to_ms
            && !self
                .curve
                .unknown
                .iter()
                .any(|(since_ms, until_ms)| *since_ms < from_ms && to_ms <= *until_ms)
    }
}
