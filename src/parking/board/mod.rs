//! The board: the occupancy of all garages, as one garage shows it. What travels with requests and replies is opaque bytes to
//! `messaging`: postcard behind a version byte for each type.
//!
//! **Promise.** An edge shows whole boards only: the lines of all garages of the city at one position, however many there are.
//! **Kept by.** The server gives the lines in the order in which they changed last, in parts that fit into a reply. A line that
//! changes while a board is gathered goes to the end of that order and comes again, so that the last part completes a board at
//! its position, and the server keeps no state about the edges that gather one. An edge continues from the lines that it has:
//! "what changed since" and "the next part" are one question.
//! **Not promised.** That a board fits into one exchange: a city of 10,000 garages with long names takes three or four.
//!
//! # Form 4
//!
//! What is added to a line, an answer or a part comes at its end, where older edges skip it: each is read from its beginning, and the
//! rest is ignored. A line has its length before it ([`Extensible`]), so the next one is found. A line says facts ([`GarageFacts`]), and
//! the edge makes of them what holds at the moment: so no line changes by time alone, and an edge without a server still shows
//! which garages close in the evening. [`earlier`] has the forms before it.

use super::Moment;
use super::garage::{
    GarageSays, GeoPoint, KnownHours, OpeningNow, Openness, OperatorSays, ShownState, shown_state,
};
use super::occupancy::free_spaces;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use std::collections::BTreeMap;

/// What is said of a garage beside its count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarageFacts {
    /// It counts as full; see [`super::garage::is_full`].
    pub is_full: bool,
    pub operator: Option<OperatorSays>,
    pub garage: Option<GarageSays>,
    pub position: Option<GeoPoint>,
    pub group: Option<String>,
    pub hours: KnownHours,
}

impl GarageFacts {
    /// All that is said of whether it is open.
    pub fn openness(&self) -> Openness<'_> {
        Openness { operator: self.operator, garage: self.garage, hours: &self.hours }
    }

    /// Upper bound of its encoded size.
    fn size_at_most(&self) -> usize {
        let operator = self.operator.map_or(1, |_| 1 + 1 + 10 + 11);
        let garage = self.garage.map_or(1, |_| 1 + 1 + 10);
        let position = self.position.map_or(1, |_| 1 + 5 + 5);
        let group = self.group.as_ref().map_or(1, |group| 1 + 5 + group.len());
        1 + operator + garage + position + group + self.hours.size_at_most()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardLine {
    pub capacity: u32,
    pub occupied: i64,
    /// When the server last received an event of it, in milliseconds since 1970; `None` before the first.
    pub as_of_ms: Option<i64>,
    /// The last event of it that is counted, as (epoch, sequence): a garage adds to its own line what came after.
    pub through: Option<([u8; 16], u64)>,
    pub facts: GarageFacts,
}

impl BoardLine {
    /// The state to show; `None` when it is not known.
    pub fn state(&self, now: Timestamp) -> Option<ShownState> {
        let OpeningNow { opening, .. } = self.facts.openness().at(now);
        let is_full = self.known_occupied().zip(self.known_capacity()).map(|_| self.facts.is_full);
        shown_state(opening, is_full)
    }

    /// How many cars are inside; unknown before the first event.
    pub fn known_occupied(&self) -> Option<i64> {
        (self.as_of_ms.is_some() || self.through.is_some()).then_some(self.occupied)
    }

    /// How many spaces there are; unknown until an edge or an operator has said it.
    pub fn known_capacity(&self) -> Option<u32> {
        (self.capacity > 0).then_some(self.capacity)
    }
}

/// The occupancy of a garage as JSON. What is not known yet is null, never 0: a garage that has reported nothing is not
/// necessarily empty.
#[derive(Debug, Serialize)]
pub struct OccupancyLine {
    name: String,
    capacity: Option<u32>,
    occupied: Option<i64>,
    free: Option<u32>,
    as_of: Option<String>,
    state: Option<ShownState>,
}

impl OccupancyLine {
    pub fn new(
        name: String,
        (capacity, occupied): (Option<u32>, Option<i64>),
        as_of_ms: Option<i64>,
        state: Option<ShownState>,
    ) -> OccupancyLine {
        let free = capacity.zip(occupied).map(|(capacity, occupied)| free_spaces(capacity, occupied));
        OccupancyLine { name, capacity, occupied, free, as_of: as_of_ms.map(Moment::utc_text), state }
    }
}

/// What a board shows: a state of one ledger at one position. A ledger that was restored from a backup comes to the same positions
/// again, with other events, so changes are given only since a version of the same run of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardVersion {
    pub ledger: [u8; 16],
    pub position: u64,
    /// Drawn at each start of the server.
    pub run: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    pub version: BoardVersion,
    pub garages: BTreeMap<String, BoardLine>,
}

/// What an edge asks: the lines that changed since those that it has. `None`: it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardQuestion {
    pub since: Option<Since>,
}

/// Up to where an edge has the lines of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// It has every line that changed up to here.
    pub version: BoardVersion,
    /// It knows every line that was removed from the board up to this position.
    pub begun: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardAnswer {
    /// The asker's own line, when the server knows the garage. It is there also when boards leave it out.
    pub own: Option<OwnLine>,
    /// A [`BoardPart`], encoded: it is the same for all who ask since the same version.
    pub part: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLine {
    /// What the garage is called on the board. It knows itself by its own name.
    pub called: String,
    pub line: Extensible<BoardLine>,
}

/// A value that later versions may extend: its bytes with their length before them, of which the beginning is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extensible<T>(pub T);

impl<T: Serialize> Serialize for Extensible<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = postcard::to_stdvec(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Extensible<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Extensible<T>, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        postcard::take_from_bytes(&bytes)
            .map(|(value, _)| Extensible(value))
            .map_err(serde::de::Error::custom)
    }
}

/// Some lines of a board, in the order in which they changed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardPart {
    /// They come after these; `None`: they are the first, and what was gathered before is void.
    pub since: Option<BoardVersion>,
    /// All that changed up to here has been given with this part.
    pub upto: BoardVersion,
    /// The position of the board that the part was made from.
    pub board_at: u64,
    pub is_last: bool,
    pub garages: Vec<Extensible<PartLine>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartLine {
    pub name: String,
    pub capacity: u32,
    pub occupied: i64,
    pub as_of_ms: Option<i64>,
    pub facts: GarageFacts,
}

impl PartLine {
    /// Upper bound of its size in an encoded part, with its length.
    pub fn size_at_most(&self) -> usize {
        5 + self.name.len() + 2 + 5 + 10 + 11 + self.facts.size_at_most()
    }
}

impl BoardPart {
    /// Upper bound of the size of a part without lines.
    pub const EMPTY_AT_MOST: usize = 1 + 2 * (16 + 10 + 10) + 10 + 1 + 5;
}

/// The present state of an edge. An observation, never an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub capacity: u32,
    /// The edge's own count, with what is not delivered yet; `None` when it does not know.
    pub occupied: Option<i64>,
    pub backlog: u64,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_age_ms: Option<u64>,
    pub clock_set: bool,
    /// How many confirmed events could not be read any more when it started.
    pub damaged: u64,
    /// Why it takes no events, if so: it is full.
    pub shortage: Option<String>,
    /// Stands behind the other fields, where programs of version 0.1.0 do not look.
    #[serde(skip)]
    pub machine: EdgeMachine,
}

/// What an edge reports of its machine; unknown from an edge that does not report it yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeMachine {
    pub disk: Option<DiskSpace>,
    /// When its certificate expires, or that of its authority if that is sooner.
    pub certificate_ends_at_ms: Option<i64>,
}

/// The free bytes of a disk, and all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpace {
    pub left: u64,
    pub total: u64,
}

/// The longest observation that is read, in bytes: a server keeps the last one of each garage.
pub const OBSERVATION_MAX: usize = 1024;

/// Bytes of another version, or no message at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the other side uses a format of the board that this program does not know")]
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
pub mod earlier;

// Form 1 of the board had versions without the run, forms 2 and 3 (see `earlier`) knew no states.
rides_along!(BoardQuestion in form 4, BoardAnswer in form 4, BoardPart in form 4);
const OBSERVATION_FORM: u8 = 1;

fn encode(version: u8, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("it always encodes")
}

impl Observation {
    pub fn from_bytes(bytes: &[u8]) -> Result<Observation, UnknownForm> {
        if bytes.len() > OBSERVATION_MAX {
            return Err(UnknownForm);
        }
        let body = bytes.strip_prefix(&[OBSERVATION_FORM]).ok_or(UnknownForm)?;
        let (observation, rest) = postcard::take_from_bytes(body).map_err(|_| UnknownForm)?;
        let machine = match rest {
            [] => EdgeMachine::default(),
            rest => postcard::from_bytes(rest).map_err(|_| UnknownForm)?,
        };
        Ok(Observation { machine, ..observation })
    }
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(&self.machine, encode(OBSERVATION_FORM, self)).expect("it always encodes")
    }
}

fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, UnknownForm> {
    match bytes.split_first() {
        Some((its, body)) if *its == version => postcard::from_bytes(body).map_err(|_| UnknownForm),
        _ => Err(UnknownForm),
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatheredBoard {
    whole: Option<Board>,
    /// What has come of the next one, and the position of the board with which that began.
    next: Option<(Board, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gathering {
    /// There is another whole board, or the same one is known to be of a later position.
    Whole,
    /// More parts are to come; what is shown is the last whole one.
    Partly,
    /// It does not go on from what was gathered: it came twice, or late.
    Ignored,
}

impl GatheredBoard {
    pub fn from_whole(board: Board) -> GatheredBoard {
        GatheredBoard { whole: Some(board), next: None }
    }

    pub fn whole(&self) -> Option<&Board> {
        self.whole.as_ref()
    }

    pub fn question(&self) -> BoardQuestion {
        let since = match (&self.next, &self.whole) {
            (Some((board, begun)), _) => Some(Since { version: board.version, begun: *begun }),
            (None, Some(board)) => Some(Since { version: board.version, begun: board.version.position }),
            (None, None) => None,
        };
        BoardQuestion { since }
    }

    /// Takes a part that came in answer to a question. `name` is what the garage calls itself.
    pub fn take(&mut self, part: BoardPart, own: Option<&OwnLine>, name: &str) -> Gathering {
        let asked = self.question().since.map(|since| since.version);
        let BoardPart { since, upto, board_at, is_last, garages } = part;
        let (mut board, begun) = match since {
            // One run of a server only goes forward.
            None if asked.is_some_and(|asked| asked.is_of_run(&upto) && asked.position > board_at) => {
                return Gathering::Ignored;
            }
            None => (Board { version: upto, garages: BTreeMap::new() }, board_at),
            Some(since) if Some(since) == asked => match self.next.take() {
                Some(gathered) => gathered,
                None if is_last => (self.whole.take().expect("it was asked about"), since.position),
                None => (self.whole.clone().expect("it was asked about"), since.position),
            },
            Some(_) => return Gathering::Ignored,
        };
        let lines =
            garages.into_iter().map(|Extensible(PartLine { name, capacity, occupied, as_of_ms, facts })| {
                (name, BoardLine { capacity, occupied, as_of_ms, through: None, facts })
            });
        board.garages.extend(lines);
        board.version = upto;
        if !is_last {
            self.next = Some((board, begun));
            return Gathering::Partly;
        }
        if let Some(own) = own {
            board.garages.remove(&own.called);
            board.garages.insert(name.to_owned(), own.line.0.clone());
        }
        (self.whole, self.next) = (Some(board), None);
        Gathering::Whole
    }
}

impl BoardVersion {
    pub fn is_of_run(&self, other: &BoardVersion) -> bool {
        (self.ledger, self.run) == (other.ledger, other.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::garage::{HoursText, Opening};
    use proptest::prelude::*;

    fn board(position: u64, lines: &[(&str, i64)]) -> Board {
        Board {
            version: BoardVersion { ledger: [1; 16], position, run: 7 },
            garages: lines
                .iter()
                .map(|(name, occupied)| {
                    let line = BoardLine {
                        capacity: 10,
                        occupied: *occupied,
                        as_of_ms: Some(1),
                        through: None,
                        facts: GarageFacts::default(),
                    };
                    ((*name).to_owned(), line)
                })
                .collect(),
        }
    }

    fn part(since: Option<BoardVersion>, upto: u64, is_last: bool, lines: &[(&str, i64)]) -> BoardPart {
        let Board { version, garages } = board(upto, lines);
        let line = |(name, line): (String, BoardLine)| {
            let BoardLine { capacity, occupied, as_of_ms, facts, .. } = line;
            Extensible(PartLine { name, capacity, occupied, as_of_ms, facts })
        };
        let garages = garages.into_iter().map(line).collect();
        BoardPart { since, upto: version, board_at: 9, is_last, garages }
    }

    fn version(position: u64) -> Option<BoardVersion> {
        Some(board(position, &[]).version)
    }

    #[test]
    fn a_change_applies_only_to_the_version_it_was_made_for() {
        let change = || {
            let part = part(version(5), 7, true, &[("b", 3)]);
            BoardPart::from_bytes(&part.to_bytes()).unwrap()
        };
        let mut gathered = GatheredBoard::from_whole(board(5, &[("a", 1), ("b", 2)]));
        assert_eq!(gathered.take(change(), None, "x"), Gathering::Whole);
        assert_eq!(gathered.whole(), Some(&board(7, &[("a", 1), ("b", 3)])));
        for mut other in [GatheredBoard::from_whole(board(6, &[])), GatheredBoard::default(), gathered] {
            let before = other.clone();
            assert_eq!(other.take(change(), None, "x"), Gathering::Ignored);
            assert_eq!(other, before);
        }
    }

    /// A board that lacks some garages would look like one of a smaller city.
    #[test]
    fn the_last_whole_board_is_shown_until_the_next_is_whole() {
        let former = board(2, &[("a", 1), ("gone", 2)]);
        let mut gathered = GatheredBoard::from_whole(former.clone());
        // The server was started again: it gives all lines, the first part of them twice.
        let restarted = |mut part: BoardPart| {
            part.upto.run = 8;
            part.since.iter_mut().for_each(|since| since.run = 8);
            part
        };
        let first = restarted(part(None, 3, false, &[("a", 5)]));
        assert_eq!(gathered.take(first.clone(), None, "x"), Gathering::Partly);
        assert_eq!(gathered.whole(), Some(&former));
        let since = gathered.question().since.unwrap();
        assert_eq!((since.version, since.begun), (first.upto, 9));
        let own = OwnLine { called: "b".into(), line: Extensible(former.garages["a"].clone()) };
        let last = restarted(part(version(3), 9, true, &[("b", 6)]));
        assert_eq!(gathered.take(last, Some(&own), "x"), Gathering::Whole);
        let whole = gathered.whole().unwrap();
        assert_eq!(whole.garages.keys().collect::<Vec<_>>(), ["a", "x"], "it knows itself by its own name");
        assert_eq!((whole.garages["a"].occupied, whole.version.position), (5, 9));
        let shown = gathered.clone();
        let late = restarted(BoardPart { board_at: 8, ..part(None, 3, false, &[("a", 5)]) });
        assert_eq!(gathered.take(late, None, "x"), Gathering::Ignored);
        assert_eq!(gathered, shown);
    }

    #[test]
    fn another_form_is_said_not_guessed() {
        assert_eq!(Observation::from_bytes(&[9, 1, 2]), Err(UnknownForm));
        assert_eq!(BoardQuestion::from_bytes(&[3, 0]), Err(UnknownForm), "an older one");
        assert_eq!(Observation::from_bytes(&[]), Err(UnknownForm));
    }

    /// What an edge reports of its machine came later: an older server does not look behind the other fields, and a newer one knows
    /// what an older edge does not report.
    #[test]
    fn an_observation_is_understood_by_older_programs_and_theirs_by_us() {
        let disk = Some(DiskSpace { left: 1, total: 300 });
        let machine = EdgeMachine { disk, certificate_ends_at_ms: Some(-5) };
        let observation = Observation {
            capacity: 500,
            occupied: Some(-3),
            backlog: 7,
            oldest_age_ms: Some(1000),
            clock_set: true,
            damaged: 0,
            shortage: None,
            machine,
        };
        let bytes = observation.to_bytes();
        assert_eq!(Observation::from_bytes(&bytes), Ok(observation.clone()));
        let by_older: Observation = decode(OBSERVATION_FORM, &bytes).unwrap();
        assert_eq!(by_older, Observation { machine: EdgeMachine::default(), ..observation.clone() });
        let of_older = encode(OBSERVATION_FORM, &observation);
        assert_eq!(Observation::from_bytes(&of_older), Ok(by_older));
        assert_eq!(Observation::from_bytes(&[&of_older[..], &[1]].concat()), Err(UnknownForm), "half of it");
    }

    fn facts() -> impl Strategy<Value = GarageFacts> {
        let opening = || any::<bool>().prop_map(|open| if open { Opening::Open } else { Opening::Closed });
        let operator = (opening(), any::<i64>(), any::<Option<i64>>())
            .prop_map(|(opening, since_ms, until_ms)| OperatorSays { opening, since_ms, until_ms });
        let garage = (opening(), any::<i64>()).prop_map(|(opening, at_ms)| GarageSays { opening, at_ms });
        let position = (-90.0..=90.0f64, -180.0..=180.0f64);
        let position = position.prop_map(|(latitude, longitude)| GeoPoint::new(latitude, longitude).unwrap());
        let windows = prop::collection::vec("[a-z,-]{3,27} [0-2][0-9]:00-23:00", 0..4);
        let hours = prop::option::of(("[A-Za-z/]{1,40}", windows)).prop_map(|hours| {
            KnownHours::from(hours.map(|(time_zone, windows)| HoursText { time_zone, windows }))
        });
        let (operator, garage) = (prop::option::of(operator), prop::option::of(garage));
        let (position, group) = (prop::option::of(position), prop::option::of("\\PC{0,30}"));
        let all = (any::<bool>(), operator, garage, position, group, hours);
        all.prop_map(|(is_full, operator, garage, position, group, hours)| GarageFacts {
            is_full,
            operator,
            garage,
            position,
            group,
            hours,
        })
    }

    proptest! {
        #[test]
        fn what_a_later_version_adds_to_a_line_an_answer_or_a_part_is_skipped(
            facts in facts(), (capacity, occupied, as_of_ms) in any::<(u32, i64, Option<i64>)>(), added in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let line = PartLine { name: "a".into(), capacity, occupied, as_of_ms, facts: facts.clone() };
            let bytes = postcard::to_stdvec(&line).unwrap();
            prop_assert!(bytes.len() + 5 <= line.size_at_most(), "{} of {}", bytes.len(), line.size_at_most());
            let longer = Bytes::from([&bytes[..], &added].concat());
            let part = (None::<BoardVersion>, version(5).unwrap(), 9u64, true, vec![&longer, &longer]);
            let part = [&encode(4, &part)[..], &added].concat();
            let read = BoardPart::from_bytes(&part).unwrap();
            prop_assert_eq!(&read.garages, &[Extensible(line.clone()), Extensible(line)]);
            let own = BoardLine { capacity, occupied, as_of_ms, through: Some(([7; 16], 1)), facts };
            let longer = Bytes::from([&postcard::to_stdvec(&own).unwrap()[..], &added].concat());
            let answer = [&encode(4, &(Some(("a", longer)), Bytes::new()))[..], &added].concat();
            prop_assert_eq!(BoardAnswer::from_bytes(&answer).unwrap().own.unwrap().line, Extensible(own));
        }
    }

    #[test]
    fn an_observation_that_is_far_too_long_is_not_read() {
        let of = |length: usize| Observation {
            capacity: 1,
            occupied: None,
            backlog: 0,
            oldest_age_ms: None,
            clock_set: true,
            damaged: 0,
            shortage: Some("x".repeat(length)),
            machine: EdgeMachine::default(),
        };
        assert_eq!(Observation::from_bytes(&of(900).to_bytes()), Ok(of(900)));
        assert_eq!(Observation::from_bytes(&of(1100).to_bytes()), Err(UnknownForm));
    }
}
