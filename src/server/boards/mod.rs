//! Answers to questions about the board.
//!
//! **Promise.** An answer costs the same in a city of ten thousand garages as in one of ten: what changed since the asker's version
//! is looked up by position, encoded once for all who ask since that version, and fits into a reply.
//! **Kept by.** A board is made from a snapshot of the views, and kept until at most a twentieth of the time goes into encoding
//! ([`PAID_BACK`]). So it may lack what was applied in the last milliseconds.

use super::applying::LiveViews;
use super::states::GaragesNow;
use super::view::{GarageState, Snapshot};
use crate::codes;
use crate::config::{GarageTable, LiveGarages};
use crate::daemon::clock;
use crate::messaging::{LedgerId, SiteName, wire};
use crate::parking::board::earlier::{
    EarlierAnswer, EarlierBoard, EarlierLine, EarlierPart, EarlierQuestion, WholeBoardAnswer,
    WholeBoardQuestion,
};
use crate::parking::board::{BoardLine, BoardPart, BoardVersion, Extensible, OwnLine, PartLine, Since};
use crate::parking::{BoardAnswer, BoardQuestion};
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
    /// The garages of the configuration, and those of them that this board is made with.
    garages: LiveGarages,
    table: Arc<GarageTable>,
    made_at: Instant,
    encoding: Duration,
    /// Its encoded parts, by their form and the position since which each lists the changes.
    parts: HashMap<(BoardForm, Option<u64>), Bytes>,
    kept_bytes: usize,
    encoded: u64,
    part_max: usize,
    /// Whether it was said that an edge of an earlier version cannot have this board.
    said_too_large: bool,
}

/// How a part is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum BoardForm {
    /// For edges that know no states.
    Three,
    Four,
}

impl Boards {
    pub fn new(live: Arc<LiveViews>, garages: LiveGarages, ledger: LedgerId, run: u64) -> Boards {
        let (view, table) = (live.snapshot(), garages.table());
        Boards {
            live,
            ledger,
            run,
            view,
            garages,
            table,
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
            let own = self.own_line(asker).map(|(called, line)| OwnLine { called, line: Extensible(line) });
            return Some(BoardAnswer { own, part: self.part(BoardForm::Four, since) }.to_bytes().into());
        }
        if let Ok(EarlierQuestion(BoardQuestion { since })) = EarlierQuestion::from_bytes(ask) {
            let since = since.filter(|since| self.can_tell(&since.version, since.begun));
            let own = self.own_line(asker).map(|(called, line)| (called, line.into()));
            return Some(EarlierAnswer { own, part: self.part(BoardForm::Three, since) }.to_bytes().into());
        }
        let WholeBoardQuestion { have } = WholeBoardQuestion::from_bytes(ask).ok()?;
        self.answer_earlier(asker, have)
    }

    /// Goes on to the views and the garages as they are now, unless the board was just encoded.
    fn renew(&mut self) {
        let now = Instant::now();
        let table = self.garages.table();
        if table.revision != self.table.revision {
            // The lines have no position at which they changed: edges gather all of them, as after a start.
            (self.table, self.run) = (table, rand::random());
            self.forget_parts();
        }
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
    fn part(&mut self, form: BoardForm, since: Option<Since>) -> Bytes {
        let position = since.map(|since| since.version.position);
        let key = (form, position);
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
        let garages = self.garages_now();
        let mut size = BoardPart::EMPTY_AT_MOST;
        let mut upto = 0;
        let changed = self.view.changed_since(position).filter(|(_, garage)| garage.is_shown());
        for (garage_key, garage) in changed {
            let BoardLine { capacity, occupied, as_of_ms, facts, .. } = garages.line(garage_key, garage);
            let name = self.view.name_of(garage_key).to_string();
            let line = PartLine { name, capacity, occupied, as_of_ms, facts };
            size += line.size_at_most();
            if size > self.part_max && !part.garages.is_empty() {
                (part.upto, part.is_last) = (self.version(upto), false);
                break;
            }
            upto = garage.changed_at;
            part.garages.push(Extensible(line));
        }
        let bytes = Bytes::from(match form {
            BoardForm::Three => EarlierPart::from(part).to_bytes(),
            BoardForm::Four => part.to_bytes(),
        });
        self.encoding += began.elapsed();
        self.encoded += 1;
        if self.kept_bytes + bytes.len() > KEPT_BYTES {
            self.forget_parts();
        }
        self.kept_bytes += bytes.len();
        self.parts.insert(key, bytes.clone());
        bytes
    }

    fn garages_now(&self) -> GaragesNow<'_> {
        GaragesNow { view: &self.view, table: &self.table, now: clock::now() }
    }

    /// The name and the line of the garage that asks, also where boards leave it out: it adds to it what it has not delivered.
    fn own_line(&self, asker: &SiteName) -> Option<(String, BoardLine)> {
        let key = self.view.key_of(asker);
        let name = self.view.name_of(key).to_string();
        match self.view.garages.get(key) {
            Some(garage) => Some((name, self.garages_now().line(key, garage))),
            // Its hours hold before its first event comes.
            None if self.table.garages.contains_key(asker) => {
                Some((name, self.garages_now().line(key, &GarageState::default())))
            }
            None => None,
        }
    }

    /// The board as a change since the version that the asker has, where that is possible, in one piece.
    fn answer_earlier(&mut self, asker: &SiteName, have: Option<BoardVersion>) -> Option<Bytes> {
        let from = have.filter(|have| self.can_tell(have, have.position));
        let own = self.view.key_of(asker);
        let known = self.garages_now();
        let mut garages: BTreeMap<String, EarlierLine> = self
            .view
            .changed_since(from.map(|from| from.position))
            .filter(|(key, garage)| garage.is_shown() && *key != own)
            .map(|(key, garage)| (self.view.name_of(key).to_string(), known.line(key, garage).into()))
            .take(EARLIER_LINES_MAX + 1)
            .collect();
        if let Some(garage) = self.view.garages.get(own) {
            garages.insert(asker.to_string(), known.line(own, garage).into());
        }
        let now = EarlierBoard { version: self.version(self.view.position), garages };
        let answer = match from {
            Some(from) => WholeBoardAnswer::Changed { from, now },
            None => WholeBoardAnswer::Whole(now),
        };
        let answer = answer.to_bytes();
        if answer.len() > ANSWER_MAX {
            if !std::mem::replace(&mut self.said_too_large, true) {
                tracing::warn!(
                    code = %codes::BOARD_TOO_LARGE_FOR_EDGE,
                    garage = %asker,
                    hint = "install the server's version on the edge; its events are taken as usual",
                    "an edge of an earlier version shows no board, because the board is too large for one reply"
                );
            }
            return None;
        }
        Some(answer.into())
    }
}

#[cfg(test)]
mod tests;
