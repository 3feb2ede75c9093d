//! Answers to questions about the board.
//!
//! **Promise.** An answer costs the same in a city of ten thousand garages as in one of ten: what changed since the asker's version
//! is looked up by position, encoded once for all who ask since that version, and fits into a reply.
//! **Kept by.** A board is made from a snapshot of the views, and kept until at most a twentieth of the time goes into encoding
//! ([`PAID_BACK`]). So it may lack what was applied in the last milliseconds.

use super::applying::LiveViews;
use super::view::{GarageState, Snapshot};
use crate::codes;
use crate::messaging::{LedgerId, SiteName, wire};
use crate::parking::board::{BoardLine, BoardPart, BoardVersion, OwnLine, PartLine, Since, earlier};
use crate::parking::{Board, BoardAnswer, BoardQuestion};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an answer may take of a reply: the rest is for the reply's own fields and the asker's line.
const ANSWER_MAX: usize = wire::REPLY_MAX - 4 * 1024;
/// More lines than this never fit into an answer to an edge of an earlier version: each takes 20 bytes at least.
const EARLIER_LINES_MAX: usize = ANSWER_MAX / 20;
/// For how many times the time that its encoding took a board is given.
const PAID_BACK: u32 = 20;
/// How many bytes of encoded parts are kept for those who ask next.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Answers edges that ask for the board. Only the serving thread has it.
pub struct Boards {
    live: Arc<LiveViews>,
    ledger: LedgerId,
    /// Drawn at each start: what a version of an earlier run meant is not known; see [`BoardVersion`].
    run: u64,
    view: Arc<Snapshot>,
    made_at: Instant,
    encoding: Duration,
    /// Its encoded parts, by the position since which each lists the changes.
    parts: HashMap<Option<u64>, Bytes>,
    kept_bytes: usize,
    encoded: u64,
    part_max: usize,
    /// Whether it was said that an edge of an earlier version cannot have this board.
    said_too_large: bool,
}

impl Boards {
    pub fn new(live: Arc<LiveViews>, ledger: LedgerId, run: u64) -> Boards {
        let view = live.snapshot();
        Boards {
            live,
            ledger,
            run,
            view,
            made_at: Instant::now(),
            encoding: Duration::ZERO,
            parts: HashMap::new(),
            kept_bytes: 0,
            encoded: 0,
            part_max: ANSWER_MAX,
            said_too_large: false,
        }
    }

    /// Answers a question. `None` for one that is not understood, and where the answer does not fit.
    pub fn answer(&mut self, asker: &SiteName, ask: &[u8]) -> Option<Bytes> {
        self.renew();
        if let Ok(BoardQuestion { since }) = BoardQuestion::from_bytes(ask) {
            let since = since.filter(|since| self.can_tell(&since.version, since.begun));
            let answer = BoardAnswer { own: self.own_line(asker), part: self.part(since) };
            return Some(answer.to_bytes().into());
        }
        let earlier::WholeBoardQuestion { have } = earlier::WholeBoardQuestion::from_bytes(ask).ok()?;
        self.answer_earlier(asker, have)
    }

    /// Goes on to the views as they are now, unless the board was just encoded.
    fn renew(&mut self) {
        let now = Instant::now();
        let view = self.live.snapshot();
        if view.position == self.view.position
            || now.saturating_duration_since(self.made_at) < PAID_BACK * self.encoding
        {
            return;
        }
        (self.view, self.made_at, self.encoding) = (view, now, Duration::ZERO);
        self.forget_parts();
    }

    fn forget_parts(&mut self) {
        self.parts.clear();
        self.kept_bytes = 0;
    }

    fn version(&self, position: u64) -> BoardVersion {
        BoardVersion { ledger: self.ledger.to_bytes(), position, run: self.run }
    }

    /// Whether what changed since a version makes this board of it, for an edge that knows what was taken away up to `begun`.
    fn can_tell(&self, version: &BoardVersion, begun: u64) -> bool {
        version.is_of_run(&self.version(0))
            && version.position <= self.view.position
            && self.view.decisions.is_same_board_since(begun)
    }

    /// The lines that changed since, encoded: as many as fit.
    fn part(&mut self, since: Option<Since>) -> Bytes {
        let key = since.map(|since| since.version.position);
        if let Some(part) = self.parts.get(&key) {
            return part.clone();
        }
        let began = Instant::now();
        let mut part = BoardPart {
            since: since.map(|since| since.version),
            upto: self.version(self.view.position),
            board_at: self.view.position,
            is_last: true,
            garages: Vec::new(),
        };
        let mut size = BoardPart::EMPTY_AT_MOST;
        let mut upto = 0;
        let changed = self.view.changed_since(key).filter(|(_, garage)| garage.is_shown());
        for (garage_key, garage) in changed {
            let line = PartLine {
                name: self.view.name_of(garage_key).to_string(),
                capacity: garage.capacity,
                occupied: garage.occupancy.occupied,
                as_of_ms: garage.as_of_ms,
            };
            size += line.size_at_most();
            if size > self.part_max && !part.garages.is_empty() {
                (part.upto, part.is_last) = (self.version(upto), false);
                break;
            }
            upto = garage.changed_at;
            part.garages.push(line);
        }
        let bytes = Bytes::from(part.to_bytes());
        self.encoding += began.elapsed();
        self.encoded += 1;
        if self.kept_bytes + bytes.len() > KEPT_BYTES {
            self.forget_parts();
        }
        self.kept_bytes += bytes.len();
        self.parts.insert(key, bytes.clone());
        bytes
    }

    /// The line of the garage that asks, also where boards leave it out: it adds to it what it has not delivered.
    fn own_line(&self, asker: &SiteName) -> Option<OwnLine> {
        let key = self.view.key_of(asker);
        let garage = self.view.garages.get(key)?;
        Some(OwnLine { called: self.view.name_of(key).to_string(), line: line(garage) })
    }

    /// The board as a change since the version that the asker has, where that is possible, in one piece.
    fn answer_earlier(&mut self, asker: &SiteName, have: Option<BoardVersion>) -> Option<Bytes> {
        let from = have.filter(|have| self.can_tell(have, have.position));
        let own = self.view.key_of(asker);
        let mut garages: BTreeMap<String, BoardLine> = self
            .view
            .changed_since(from.map(|from| from.position))
            .filter(|(key, garage)| garage.is_shown() && *key != own)
            .map(|(key, garage)| (self.view.name_of(key).to_string(), line(garage)))
            .take(EARLIER_LINES_MAX + 1)
            .collect();
        if let Some(garage) = self.view.garages.get(own) {
            garages.insert(asker.to_string(), line(garage));
        }
        let now = Board { version: self.version(self.view.position), garages };
        let answer = match from {
            Some(from) => earlier::WholeBoardAnswer::Changed { from, now },
            None => earlier::WholeBoardAnswer::Whole(now),
        };
        let answer = answer.to_bytes();
        if answer.len() > ANSWER_MAX {
            if !std::mem::replace(&mut self.said_too_large, true) {
                tracing::warn!(
                    code = %codes::BOARD_TOO_LARGE_FOR_EDGE,
                    garage = %asker,
                    hint = "install this version there; its events are taken all the same",
                    "an edge of an earlier version shows no board, because the board is too large for one reply"
                );
            }
            return None;
        }
        Some(answer.into())
    }
}

fn line(garage: &GarageState) -> BoardLine {
    BoardLine {
        capacity: garage.capacity,
        occupied: garage.occupancy.occupied,
        as_of_ms: garage.as_of_ms,
        through: garage.through.map(|(epoch, last)| (epoch.to_bytes(), last)),
    }
}

#[cfg(test)]
mod tests;
