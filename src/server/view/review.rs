//! What a person may want to repair: unmatched entries and exits whose plates differ by one look-alike letter, and long stays of
//! a car that was read elsewhere meanwhile.
//!
//! **Promise.** Nothing is guessed: a review proposes a repair together with its command, and changes nothing.
//! **Not promised.** That it includes the end of the ledger: it reads all stays as last written.

use super::chains::{ChainHeads, PlateChain};
use super::changes::ViewChanges;
use super::codec::damaged;
use super::pages::{Slot, SlotAddress, StoredPassage, all_visits, is_token, page_key};
use crate::parking::Plate;
use crate::parking::lookalike::{UnmatchedPassage, pair_leftovers};
use crate::parking::stay::{End, Visit};
use crate::store::{Store, StoreError};
use std::collections::BTreeMap;

/// Shorter stays are not looked at.
const LONG_MS: i64 = 20 * 3_600_000;
pub const TOLD_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookalikePair {
    pub garage: u32,
    pub entry: (String, StoredPassage),
    pub exit: (String, StoredPassage),
}

/// A long stay, and when its car was read in another garage meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongStay {
    pub garage: u32,
    pub plate: String,
    pub entry: StoredPassage,
    pub exit: Option<StoredPassage>,
    /// The garage, when the car came there, and when it left.
    pub elsewhere: (u32, StoredPassage, Option<StoredPassage>),
}

#[derive(Debug, Default)]
pub struct Review {
    pub pairs: Vec<LookalikePair>,
    pub long: Vec<LongStay>,
    /// Whether there is more than [`TOLD_MAX`] of one kind.
    pub more: bool,
}

type Leftover = UnmatchedPassage<StoredPassage>;

pub fn review(store: &Store) -> Result<Review, StoreError> {
    let mut review = Review::default();
    // The entries and the exits of each garage.
    let mut leftovers: BTreeMap<u32, (Vec<Leftover>, Vec<Leftover>)> = BTreeMap::new();
    for found in all_visits(store) {
        let (SlotAddress { garage, page, .. }, (plate, visit)) = found?;
        // What is forgotten has no plate that could be compared.
        if is_token(&plate) {
            continue;
        }
        let of = |passage: StoredPassage| {
            let plate = Plate::stored(&plate).map_err(|_| damaged(&page_key(garage, page)))?;
            Ok::<_, StoreError>(UnmatchedPassage { id: passage, plate, at_ms: passage.at_ms })
        };
        let (entries, exits) = leftovers.entry(garage).or_default();
        match &visit {
            Visit::Stay { entry, end: End::Inside | End::Unseen } => entries.push(of(*entry)?),
            Visit::Exit(exit) if !exit.is_made() => exits.push(of(*exit)?),
            _ => {}
        }
        if let Visit::Stay { entry, end } = visit {
            let exit = end.exit().copied();
            let long = exit.is_none_or(|exit| exit.at_ms.saturating_sub(entry.at_ms) >= LONG_MS);
            if long
                && review.long.len() <= TOLD_MAX
                && let Some(elsewhere) = read_elsewhere(store, garage, &plate, entry, exit)?
            {
                review.long.push(LongStay { garage, plate: plate.into(), entry, exit, elsewhere });
            }
        }
    }
    // Without an unmatched exit there is nothing to pair, and there are many cars inside.
    for (garage, (entries, exits)) in leftovers.into_iter().filter(|(_, (_, exits))| !exits.is_empty()) {
        for (entry, exit) in pair_leftovers(&entries, &exits) {
            let [entry, exit] = [entry, exit].map(|its| (its.plate.to_string(), its.id));
            review.pairs.push(LookalikePair { garage, entry, exit });
        }
    }
    review.more = review.pairs.len() > TOLD_MAX || review.long.len() > TOLD_MAX;
    review.pairs.truncate(TOLD_MAX);
    review.long.truncate(TOLD_MAX);
    Ok(review)
}

/// The first visit of the car to another garage that lies within a stay.
fn read_elsewhere(
    store: &Store,
    garage: u32,
    plate: &str,
    entry: StoredPassage,
    exit: Option<StoredPassage>,
) -> Result<Option<(u32, StoredPassage, Option<StoredPassage>)>, StoreError> {
    let its = Plate::stored(plate).map_err(|_| damaged(b"vs"))?;
    let newest = ChainHeads::read(store, PlateChain::of(&its))?;
    let mut found: Option<(u32, StoredPassage, Option<StoredPassage>)> = None;
    for member in ViewChanges::on(store).chain(newest, Slot::clone) {
        let (address, slot) = member?;
        let Some((other, Visit::Stay { entry: came, end })) = &slot.visit else { continue };
        let within = came.at_ms > entry.at_ms && exit.is_none_or(|exit| came.at_ms < exit.at_ms);
        let is_first = found.is_none_or(|(_, first, _)| came.at_ms < first.at_ms);
        if **other == *plate && address.garage != garage && within && is_first {
            found = Some((address.garage, *came, end.exit().copied()));
        }
    }
    Ok(found)
}
