//! The board: the occupancy of all garages, as one garage shows it, and what rides along on requests.
//!
//! These travel as opaque bytes in `messaging`, encoded with postcard behind a version byte for each of them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// One garage on the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardLine {
    pub capacity: u32,
    pub occupied: i64,
    /// When the server last received an event of it, in milliseconds since 1970; `None` before the first.
    pub as_of_ms: Option<i64>,
    /// The last event of it that is counted, as (epoch, sequence): a garage adds to its own line what came after.
    pub through: Option<([u8; 16], u64)>,
}

impl BoardLine {
    /// How many cars are inside; unknown before the first event.
    pub fn known_occupied(&self) -> Option<i64> {
        (self.as_of_ms.is_some() || self.through.is_some()).then_some(self.occupied)
    }

    /// How many spaces there are; unknown until somebody told.
    pub fn known_capacity(&self) -> Option<u32> {
        (self.capacity > 0).then_some(self.capacity)
    }
}

/// What a board shows: a state of one ledger at one position, as one run of the server knew it.
///
/// A ledger that was restored from a backup comes to the same positions again, with other events. So only what the same run
/// has told is a version that changes can be told since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardVersion {
    pub ledger: [u8; 16],
    pub position: u64,
    /// Drawn at each start of the server.
    pub run: u64,
}

/// The occupancy of all garages at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    pub version: BoardVersion,
    pub garages: BTreeMap<String, BoardLine>,
}

/// What an edge asks: the board, given the version that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardQuestion {
    pub have: Option<BoardVersion>,
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BoardAnswer {
    Whole(Board),
    /// The lines that changed since `from`, and the version that results.
    Changed {
        from: BoardVersion,
        now: Board,
    },
}

/// What an edge knows now. An observation, never an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub capacity: u32,
    /// The edge's own count, with what is not delivered yet; `None` when it does not know.
    pub occupied: Option<i64>,
    /// How many events wait to be delivered.
    pub backlog: u64,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// Whether its clock is known to be set.
    pub clock_set: bool,
    /// How many confirmed events could not be read any more when it started.
    pub damaged: u64,
    /// Why it takes no events, if so: it is full.
    pub shortage: Option<String>,
}

/// Bytes of another version, or no message at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the other side speaks of the board in a form that this program does not know")]
pub struct UnknownForm;

macro_rules! rides_along {
    ($($name:ident in form $version:literal),*) => {$(
        impl $name {
            pub fn to_bytes(&self) -> Vec<u8> {
                encode($version, self)
            }
            pub fn from_bytes(bytes: &[u8]) -> Result<$name, UnknownForm> {
                decode($version, bytes)
            }
        }
    )*};
}
// Form 1 of the board had versions without the run.
rides_along!(BoardQuestion in form 2, BoardAnswer in form 2, Observation in form 1);

fn encode(version: u8, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("it always encodes")
}

fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, UnknownForm> {
    match bytes.split_first() {
        Some((its, body)) if *its == version => postcard::from_bytes(body).map_err(|_| UnknownForm),
        _ => Err(UnknownForm),
    }
}

impl Board {
    /// The board after an answer: `None` when it changes a version that we do not have, so that the whole must be asked for.
    pub fn after(board: Option<Board>, answer: BoardAnswer) -> Option<Board> {
        match (answer, board) {
            (BoardAnswer::Whole(board), _) => Some(board),
            (BoardAnswer::Changed { from, now }, Some(mut board)) if board.version == from => {
                board.garages.extend(now.garages);
                board.version = now.version;
                Some(board)
            }
            (BoardAnswer::Changed { .. }, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(position: u64, lines: &[(&str, i64)]) -> Board {
        Board {
            version: BoardVersion { ledger: [1; 16], position, run: 7 },
            garages: lines
                .iter()
                .map(|(name, occupied)| {
                    let line =
                        BoardLine { capacity: 10, occupied: *occupied, as_of_ms: Some(1), through: None };
                    ((*name).to_owned(), line)
                })
                .collect(),
        }
    }

    #[test]
    fn a_change_applies_only_to_the_version_it_was_made_for() {
        let have = board(5, &[("a", 1), ("b", 2)]);
        let change = BoardAnswer::Changed { from: have.version, now: board(7, &[("b", 3)]) };
        let change = BoardAnswer::from_bytes(&change.to_bytes()).unwrap();
        let after = Board::after(Some(have), change.clone());
        assert_eq!(after, Some(board(7, &[("a", 1), ("b", 3)])));
        assert_eq!(Board::after(Some(board(6, &[])), change.clone()), None);
        assert_eq!(Board::after(None, change), None);
    }

    #[test]
    fn another_form_is_said_not_guessed() {
        assert_eq!(Observation::from_bytes(&[9, 1, 2]), Err(UnknownForm));
        assert_eq!(BoardQuestion::from_bytes(&[1, 0]), Err(UnknownForm), "an older one");
        assert_eq!(Observation::from_bytes(&[]), Err(UnknownForm));
    }
}
