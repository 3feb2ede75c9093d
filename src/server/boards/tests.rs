use super::*;
use crate::parking::Board;
use crate::parking::board::{GatheredBoard, Gathering};
use crate::parking::garage::{Opening, ShownState};
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::view::tests::{apply_ledger, apply_to_each, event, world};
use crate::server::view::{View, ViewChanges};
use crate::store::Store;
use proptest::prelude::*;

/// A ledger, the view that follows it, and who answers questions about it.
struct City {
    store: Store,
    ledger: Ledger,
    view: View,
    live: Arc<LiveViews>,
    boards: Boards,
}

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

impl City {
    fn new() -> City {
        let (_, store, ledger) = world();
        let live = Arc::new(LiveViews::default());
        let boards = Boards::new(Arc::clone(&live), LiveGarages::default(), ledger.id(), 1);
        City { store, ledger, view: View::default(), live, boards }
    }

    /// The server was started again.
    fn restart(&mut self, run: u64) {
        let part_max = self.boards.part_max;
        self.boards = Boards::new(Arc::clone(&self.live), LiveGarages::default(), self.ledger.id(), run);
        self.boards.part_max = part_max;
    }

    /// The same with the garages of the configuration that it has.
    fn restart_with(&mut self, run: u64) {
        let garages = self.boards.garages.clone();
        self.boards = Boards::new(Arc::clone(&self.live), garages, self.ledger.id(), run);
    }

    fn follow(&mut self) {
        let mut changes: ViewChanges = apply_ledger(&mut self.view, &self.ledger, &self.store);
        self.view.save(&mut changes).unwrap();
        self.live.show(&self.view);
    }

    fn enter(&mut self, garage: &str) {
        self.enter_each(&[garage.to_owned()]);
    }

    /// A car enters each of these garages.
    fn enter_each(&mut self, garages: &[String]) {
        let entry = event(r#"{"kind":"entry","plate":null}"#);
        apply_to_each(&self.ledger, garages.iter().map(String::as_str), &[entry]);
        self.follow();
    }

    fn command(&mut self, command: Command) {
        if self.view.judge(&self.ledger, &command).is_ok() {
            self.ledger.record_command("ada", command, 5).unwrap();
            self.follow();
        }
    }

    fn rename(&mut self, garage: &str, to: &str) {
        self.command(Command::Rename { garage: site(garage), to: site(to) });
    }

    fn ask(&mut self, asker: &str, gathered: &GatheredBoard) -> BoardAnswer {
        // Encoding is paid for at once, so that a test need not wait.
        self.boards.encoding = Duration::ZERO;
        let answer = self.boards.answer(&site(asker), &gathered.question().to_bytes()).unwrap();
        assert!(answer.len() < wire::REPLY_MAX - 2048, "it fits into a reply");
        BoardAnswer::from_bytes(&answer).unwrap()
    }

    /// What an edge sees that knows itself by `asker`, by the views alone.
    fn expected(&self, asker: &str) -> BTreeMap<String, i64> {
        let asker = site(asker);
        let own = self.view.key_of(&asker);
        let mut board = BTreeMap::new();
        for (key, garage) in self.view.garages.iter().filter(|(key, its)| its.is_shown() || *key == own) {
            let name = if key == own { &asker } else { self.view.name_of(key) };
            board.insert(name.to_string(), garage.occupancy.occupied);
        }
        board
    }
}

fn take(gathered: &mut GatheredBoard, answer: &BoardAnswer, asker: &str) -> Gathering {
    gathered.take(BoardPart::from_bytes(&answer.part).unwrap(), answer.own.as_ref(), asker)
}

fn lines(board: &Board) -> BTreeMap<String, i64> {
    board.garages.iter().map(|(name, line)| (name.clone(), line.occupied)).collect()
}

fn gather(city: &mut City, gathered: &mut GatheredBoard, asker: &str) -> usize {
    for questions in 1..100 {
        let answer = city.ask(asker, gathered);
        if take(gathered, &answer, asker) == Gathering::Whole {
            return questions;
        }
    }
    panic!("a hundred questions do not give a board");
}

#[test]
fn the_board_carries_what_changed_since_the_version_that_an_edge_has() {
    let mut city = City::new();
    city.enter("a");
    let mut edge = GatheredBoard::default();
    gather(&mut city, &mut edge, "c");
    city.enter("b");
    let answer = city.ask("c", &edge);
    let part = BoardPart::from_bytes(&answer.part).unwrap();
    assert_eq!(part.garages.iter().map(|line| &line.0.name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(take(&mut edge, &answer, "c"), Gathering::Whole);
    assert_eq!(edge.whole().unwrap().garages.len(), 2);
    // Another ledger; and this one after another start: it may be restored, and have come to the position by another way.
    for other in [(LedgerId::random(), 1), (city.ledger.id(), 2)] {
        (city.boards.ledger, city.boards.run) = other;
        city.boards.parts.clear();
        let part = BoardPart::from_bytes(&city.ask("c", &edge).part).unwrap();
        assert_eq!((part.since, part.garages.len()), (None, 2));
    }
}

/// A change of the board can add lines and not take any: an edge that has an earlier version gets all of them.
#[test]
fn an_edge_never_keeps_a_line_that_is_gone() {
    let mut city = City::new();
    city.enter("a");
    city.enter("b");
    let mut edge = GatheredBoard::default();
    gather(&mut city, &mut edge, "b");
    city.rename("a", "c");
    let answer = city.ask("b", &edge);
    assert_eq!(BoardPart::from_bytes(&answer.part).unwrap().since, None);
    take(&mut edge, &answer, "b");
    assert_eq!(lines(edge.whole().unwrap()), [("b".to_owned(), 1), ("c".to_owned(), 1)].into());
    city.enter("a");
    let answer = city.ask("b", &edge);
    assert!(BoardPart::from_bytes(&answer.part).unwrap().since.is_some());
    take(&mut edge, &answer, "b");
    assert_eq!(edge.whole().unwrap().garages["c"].occupied, 2);
    city.command(Command::Decommission { garage: site("c"), undo: false });
    gather(&mut city, &mut edge, "b");
    assert_eq!(lines(edge.whole().unwrap()), [("b".to_owned(), 1)].into());
}

/// It adds what it has not delivered to the line that it knows itself by.
#[test]
fn an_edge_finds_its_own_line_whatever_became_of_its_garage() {
    let mut city = City::new();
    city.enter("a");
    city.enter("b");
    city.rename("a", "c");
    city.command(Command::Decommission { garage: site("c"), undo: false });
    for asker in ["a", "c"] {
        let mut edge = GatheredBoard::default();
        gather(&mut city, &mut edge, asker);
        assert_eq!(
            lines(edge.whole().unwrap()),
            [("b".to_owned(), 1), (asker.to_owned(), 1)].into(),
            "{asker}"
        );
        assert!(edge.whole().unwrap().garages[asker].through.is_some());
    }
}

/// Above some 3,000 garages a new edge never got a board, and nobody said so. Each question looked at all garages on the only
/// thread that serves edges.
#[test]
fn a_board_of_ten_thousand_garages_is_encoded_once_and_reaches_everybody() {
    let mut city = City::new();
    let name = |n: usize| format!("{n:05} {}", "a long name of a garage".repeat(2));
    city.enter_each(&(0..10_000).map(name).collect::<Vec<_>>());
    let mut edges: Vec<GatheredBoard> = (0..20).map(|_| GatheredBoard::default()).collect();
    for (n, edge) in edges.iter_mut().enumerate() {
        let questions = gather(&mut city, edge, &name(n));
        assert_eq!(edge.whole().unwrap().garages.len(), 10_000);
        assert!((2..8).contains(&questions), "{questions}");
    }
    let parts = city.boards.encoded;
    assert!(parts < 8, "each part was encoded once, not for each edge: {parts}");
    // One garage changes: one line is encoded, once.
    city.enter(&name(7));
    for (n, edge) in edges.iter_mut().enumerate() {
        let answer = city.ask(&name(n), edge);
        assert!(answer.part.len() < 200, "{}", answer.part.len());
        assert_eq!(take(edge, &answer, &name(n)), Gathering::Whole);
        assert_eq!(edge.whole().unwrap().garages[&name(7)].occupied, 2);
    }
    assert_eq!(city.boards.encoded, parts + 1);
}

#[test]
fn an_edge_of_the_version_before_gets_its_board_where_it_fits() {
    let mut city = City::new();
    city.enter("a");
    city.enter("b");
    let ask = |city: &mut City, have| {
        city.boards.encoding = Duration::ZERO;
        let question = WholeBoardQuestion { have }.to_bytes();
        let answer = city.boards.answer(&site("a"), &question)?;
        Some(WholeBoardAnswer::from_bytes(&answer).unwrap())
    };
    let Some(WholeBoardAnswer::Whole(board)) = ask(&mut city, None) else { panic!("it gets the whole") };
    let (version, board): (_, Board) = (board.version, board.into());
    assert_eq!(lines(&board), city.expected("a"));
    assert!(board.garages["a"].through.is_some());
    city.enter("b");
    let Some(WholeBoardAnswer::Changed { from, now }) = ask(&mut city, Some(version)) else {
        panic!("it gets what changed")
    };
    assert_eq!(from, version);
    assert_eq!(lines(&now.into()), [("a".to_owned(), 1), ("b".to_owned(), 2)].into());
    city.enter_each(&(0..4_000).map(|n| format!("{n} {}", "x".repeat(50))).collect::<Vec<_>>());
    assert!(ask(&mut city, None).is_none(), "it does not fit");
}

#[test]
fn an_edge_that_knows_no_states_gets_the_lines_that_it_knows() {
    let mut city = City::new();
    city.enter("a");
    city.enter("b");
    city.boards.encoding = Duration::ZERO;
    let question = EarlierQuestion(BoardQuestion { since: None }).to_bytes();
    let answer = EarlierAnswer::from_bytes(&city.boards.answer(&site("b"), &question).unwrap()).unwrap();
    let (called, own) = answer.own.unwrap();
    assert_eq!((called.as_str(), own.occupied, own.through.is_some()), ("b", 1, true));
    let part = EarlierPart::from_bytes(&answer.part).unwrap();
    let names: Vec<_> = part.garages.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!((names, part.is_last), (vec!["a", "b"], true));
}

/// The configuration has no position in the ledger: its change alone would have reached no edge that has a board.
#[test]
fn a_change_of_the_configuration_reaches_edges_that_have_a_board() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let with = |group: &str| format!("[[garage]]\nname = \"a\"\ngroup = {group:?}\n");
    let mut city = City::new();
    city.enter("a");
    city.enter("b");
    city.boards.garages = LiveGarages::of(&path, &with("East")).unwrap();
    city.restart_with(2);
    let mut edge = GatheredBoard::default();
    gather(&mut city, &mut edge, "b");
    let group = |edge: &GatheredBoard| edge.whole().unwrap().garages["a"].facts.group.clone();
    assert_eq!(group(&edge).as_deref(), Some("East"));
    std::fs::write(&path, with("West")).unwrap();
    city.boards.garages.reload();
    gather(&mut city, &mut edge, "b");
    assert_eq!(group(&edge).as_deref(), Some("West"));
    let answer = city.ask("b", &edge);
    let part = BoardPart::from_bytes(&answer.part).unwrap();
    assert!(part.since.is_some() && part.garages.is_empty(), "and then nothing more is sent");
}

#[test]
fn what_an_operator_orders_is_a_change_of_the_line() {
    let mut city = City::new();
    city.enter("a");
    city.enter("b");
    let mut edge = GatheredBoard::default();
    gather(&mut city, &mut edge, "b");
    let order = |opening| Command::ShowAs { garage: site("a"), opening, until_ms: None, reason: None };
    city.command(order(Some(Opening::Closed)));
    let answer = city.ask("b", &edge);
    let part = BoardPart::from_bytes(&answer.part).unwrap();
    assert_eq!((part.since.is_some(), part.garages.len()), (true, 1));
    take(&mut edge, &answer, "b");
    let state = edge.whole().unwrap().garages["a"].state(clock::now());
    assert_eq!(state, Some(ShownState::Closed));
}

#[derive(Debug, Clone)]
enum BoardStep {
    Enter(u8),
    Rename(u8, u8),
    Decommission(u8, bool),
    Restart,
    /// An edge asks; its answer comes, or is lost.
    Ask(u8, bool),
    /// An answer that came before comes again.
    Again(u8),
}

fn step() -> impl Strategy<Value = BoardStep> {
    prop_oneof![
        8 => (0u8..12).prop_map(BoardStep::Enter),
        1 => (0u8..12, 0u8..16).prop_map(|(from, to)| BoardStep::Rename(from, to)),
        1 => (0u8..12, any::<bool>()).prop_map(|(garage, undo)| BoardStep::Decommission(garage, undo)),
        1 => Just(BoardStep::Restart),
        8 => (0u8..3, prop::bool::weighted(0.8)).prop_map(|(edge, comes)| BoardStep::Ask(edge, comes)),
        2 => (0u8..3).prop_map(BoardStep::Again),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// In parts of a few lines, with answers that are lost or come twice: what an edge shows is at any time a board that the city
    /// had at that position, and in the end the newest.
    #[test]
    fn an_edge_shows_only_boards_that_the_city_had(steps in prop::collection::vec(step(), 1..80)) {
        let mut city = City::new();
        city.boards.part_max = BoardPart::EMPTY_AT_MOST + 3 * 44;
        let name = |n: u8| format!("g{n}");
        let mut edges: Vec<(GatheredBoard, Option<BoardAnswer>)> = vec![Default::default(); 3];
        let mut had: HashMap<(usize, u64), BTreeMap<String, i64>> = HashMap::new();
        let mut runs = 1;
        for step in steps {
            match step {
                BoardStep::Enter(garage) => city.enter(&name(garage)),
                BoardStep::Rename(garage, to) => city.rename(&name(garage), &name(to)),
                BoardStep::Decommission(garage, undo) => {
                    city.command(Command::Decommission { garage: site(&name(garage)), undo });
                }
                BoardStep::Restart => {
                    runs += 1;
                    city.restart(runs);
                }
                BoardStep::Ask(edge, comes) => {
                    let (gathered, last) = &mut edges[usize::from(edge)];
                    let answer = city.ask(&name(edge), gathered);
                    if comes {
                        take(gathered, &answer, &name(edge));
                    }
                    *last = Some(answer);
                }
                BoardStep::Again(edge) => {
                    let (gathered, last) = &mut edges[usize::from(edge)];
                    if let Some(answer) = last {
                        take(gathered, answer, &name(edge));
                    }
                }
            }
            for (edge, (gathered, _)) in edges.iter().enumerate() {
                let expected = city.expected(&name(edge as u8));
                had.insert((edge, city.view.position), expected);
                if let Some(board) = gathered.whole() {
                    prop_assert_eq!(&lines(board), &had[&(edge, board.version.position)]);
                }
            }
        }
        for (edge, (gathered, _)) in edges.iter_mut().enumerate() {
            gather(&mut city, gathered, &name(edge as u8));
            prop_assert_eq!(lines(gathered.whole().unwrap()), city.expected(&name(edge as u8)));
        }
    }
}
