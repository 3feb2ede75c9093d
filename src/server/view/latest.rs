//! When a car was seen last, anywhere: an event that is later than that lies within no stay that has ended, so only cars that are inside
//! have to be looked at. Garages deliver late, so an earlier event is no exception; then all stays of the car are looked at.
//!
//! Cars whose plates share a chain share a time. It is read from the chain when it is needed first, and is never written.

use super::chains::{CHAINS, PlateChain};
use crate::parking::Plate;
use crate::store::StoreError;

/// In milliseconds since 1970, of each chain; [`UNKNOWN`] until it is needed.
#[derive(Debug, Clone)]
pub struct LatestEvents(Vec<i64>);

const UNKNOWN: i64 = i64::MIN;
const NEVER: i64 = i64::MIN + 1;

impl Default for LatestEvents {
    fn default() -> LatestEvents {
        LatestEvents(vec![UNKNOWN; CHAINS])
    }
}

/// What was looked up says nothing about the stays.
impl PartialEq for LatestEvents {
    fn eq(&self, _: &LatestEvents) -> bool {
        true
    }
}

impl Eq for LatestEvents {}

impl LatestEvents {
    /// Whether an event is later than all that are known of its car; it is known from now on. `all` gives the times of the events that
    /// share its chain.
    pub fn is_latest(
        &mut self,
        plate: &Plate,
        at_ms: i64,
        all: impl FnOnce() -> Result<Vec<Option<i64>>, StoreError>,
    ) -> Result<bool, StoreError> {
        let latest = &mut self.0[PlateChain::of(plate).index()];
        if *latest == UNKNOWN {
            *latest = all()?.into_iter().flatten().max().unwrap_or(NEVER).max(NEVER);
        }
        let is_latest = at_ms > *latest;
        *latest = at_ms.max(*latest);
        Ok(is_latest)
    }

    /// An event is of this car from now on.
    pub fn raise(&mut self, plate: &Plate, at_ms: i64) {
        let latest = &mut self.0[PlateChain::of(plate).index()];
        if *latest != UNKNOWN {
            *latest = at_ms.max(*latest);
        }
    }
}
