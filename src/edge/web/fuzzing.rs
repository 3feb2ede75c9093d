//! What producers post, for the fuzz targets.

use super::{now, read_lines};

/// The events of a batch as they are stored; `None`: it is refused.
pub fn events_of_batch(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let batch = read_lines(body, now()).ok()?;
    Some(batch.records.iter().map(|record| record.payload.to_vec()).collect())
}
