//! The forms of the board for edges that are older than the server: frozen. They know no states.
//!
//! Form 3 comes in parts. Form 2, of edges of version 0.1.0, comes in one piece, so only where the city is small enough for a reply.

use super::{
    Board, BoardLine, BoardPart, BoardQuestion, BoardVersion, Extensible, GarageFacts, PartLine, UnknownForm,
    decode, encode,
};
use crate::parking::garage::KnownHours;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierLine {
    pub capacity: u32,
    pub occupied: i64,
    pub as_of_ms: Option<i64>,
    pub through: Option<([u8; 16], u64)>,
}

impl From<BoardLine> for EarlierLine {
    fn from(BoardLine { capacity, occupied, as_of_ms, through, .. }: BoardLine) -> EarlierLine {
        EarlierLine { capacity, occupied, as_of_ms, through }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierBoard {
    pub version: BoardVersion,
    pub garages: BTreeMap<String, EarlierLine>,
}

/// Of the lines nobody knows whether their garages are open.
impl From<EarlierBoard> for Board {
    fn from(EarlierBoard { version, garages }: EarlierBoard) -> Board {
        let facts = GarageFacts { hours: KnownHours::unknown(), ..GarageFacts::default() };
        let garages =
            garages.into_iter().map(|(name, EarlierLine { capacity, occupied, as_of_ms, through })| {
                (name, BoardLine { capacity, occupied, as_of_ms, through, facts: facts.clone() })
            });
        Board { version, garages: garages.collect() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeBoardQuestion {
    pub have: Option<BoardVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WholeBoardAnswer {
    Whole(EarlierBoard),
    /// The lines that changed since `from`, and the version that results.
    Changed {
        from: BoardVersion,
        now: EarlierBoard,
    },
}

/// A question of form 3 has the fields of one of form 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EarlierQuestion(pub BoardQuestion);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierAnswer {
    /// What the asker's garage is called on the board, and its line.
    pub own: Option<(String, EarlierLine)>,
    /// An [`EarlierPart`], encoded.
    pub part: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierPart {
    pub since: Option<BoardVersion>,
    pub upto: BoardVersion,
    pub board_at: u64,
    pub is_last: bool,
    /// Of each garage its name, capacity, count and when it was heard.
    pub garages: Vec<(String, u32, i64, Option<i64>)>,
}

impl From<BoardPart> for EarlierPart {
    fn from(BoardPart { since, upto, board_at, is_last, garages }: BoardPart) -> EarlierPart {
        let garages =
            garages.into_iter().map(|Extensible(PartLine { name, capacity, occupied, as_of_ms, .. })| {
                (name, capacity, occupied, as_of_ms)
            });
        EarlierPart { since, upto, board_at, is_last, garages: garages.collect() }
    }
}

rides_along!(WholeBoardQuestion in form 2, WholeBoardAnswer in form 2);
rides_along!(EarlierQuestion in form 3, EarlierAnswer in form 3, EarlierPart in form 3);
