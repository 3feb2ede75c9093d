//! Reads the billing data: lists of charges, and statements in pieces. HTTP, the operators of a running server, and commands to a
//! directory on which no server runs all use this module.
//!
//! **Promise.** An assembled statement adds up and agrees with the sums that the views keep; otherwise no statement is returned.
//! It shows one state of the books, however many pieces it came in and whatever was charged meanwhile.
//! **Kept by.** The first piece fixes the newest entry of the account's month; entries before it never change, and each names the
//! one before it. So pieces come newest first, and [`StatementAssembler`] reverses them.
//! **Not promised.** That the statements of several accounts show one state: each names the position that it shows.

use super::hex::{hex, unhex};
use super::ledger::Ledger;
use super::reckoning::{ChargeLine, Reckoner};
use super::view::billing::UNREGISTERED;
use super::view::billing::entries::{self, BillingEntry, EntryKind, EntryNumber, MonthBook};
use super::view::billing::list::{self, EntryFilter, EntryList, EntryReader};
use super::view::{Snapshot, at_one_position, written_position};
use crate::daemon::admin::{NotDone, Outcome};
use crate::parking::Plate;
use crate::parking::money::{Currency, VatRate};
use crate::parking::register::Account;
use crate::parking::statement::{
    Customer, Month, Operator, Statement, StatementError, StatementHead, StatementLine,
};
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

const SLICE: usize = 128;
/// What pieces of statements look like; another form is of another version of this program.
const FORM: u32 = 2;

/// What of the charges is asked for. What is unknown finds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub plate: Option<String>,
    pub garage: Option<String>,
    pub account: Option<String>,
    pub month: Option<String>,
    pub after: Option<EntryNumber>,
    pub limit: usize,
}

/// Charges, stays that wait for a price or are held, voids and credits; newest first.
#[derive(Debug, Default, Serialize)]
pub struct ChargesAnswer {
    /// The views' position: later events are not shown yet.
    pub position: u64,
    pub charges: Vec<ChargeLine>,
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    /// All accounts that have an entry in the month.
    All,
    Account(String),
    /// A look at one car.
    Plate(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementCursor {
    account: u32,
    /// The entry to go on from; `None`: the account is not begun.
    entry: Option<EntryNumber>,
}

/// What can be asked of the books of money over `admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BooksQuestion {
    /// A list of charges.
    Charges(Asked),
    /// The next pieces of statements.
    Statements { month: Month, whose: Whose, from: Option<StatementCursor> },
    /// The tariffs that are in force.
    Tariffs,
    /// The months in which anything was charged.
    Months,
}

impl BooksQuestion {
    /// Whether the answer must show everything recorded so far: true unless it continues an earlier answer.
    pub fn is_a_beginning(&self) -> bool {
        match self {
            BooksQuestion::Charges(asked) => asked.after.is_none(),
            BooksQuestion::Statements { from, .. } => from.is_none(),
            BooksQuestion::Tariffs | BooksQuestion::Months => true,
        }
    }
}

/// Some lines of one statement, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementPiece {
    /// In the first piece of a statement.
    opening: Option<Opening>,
    lines: Vec<StatementLine>,
    is_last: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Opening {
    head: StatementHead,
    /// What the views keep; none for a look at one car.
    book: Option<MonthBook>,
}

/// Why there is no statement. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "a statement does not add up: {0}. Nothing was changed. Do not send the statement; \"server verify\" says more"
    )]
    Statement(#[from] StatementError),
    #[error(
        "the lines of the statement of {whose:?} add up to {lines}, but the books say {books}. Nothing was changed. Do not send the statement; \"server verify\" says more"
    )]
    Disagree { whose: String, lines: String, books: String },
    #[error("the statement has more than {lines} lines")]
    TooLong { lines: u64 },
    #[error(
        "the statements that the server sent cannot be read: {0}. Nothing was changed. Does the running server have another version than this program?"
    )]
    Form(String),
}

/// Reads the books of money. `view` gives the views as readers see them now.
pub struct BooksReader<'a, V> {
    pub ledger: &'a Ledger,
    pub store: &'a Store,
    /// While it is held the views are not written, where a server runs.
    pub saving: Option<&'a Mutex<()>>,
    pub view: V,
}

/// How many lines of statements, and how many bytes of them, an answer may still carry.
pub(in crate::server) struct AnswerRoom {
    pub lines: usize,
    pub bytes: usize,
}

impl AnswerRoom {
    const DEFAULT: AnswerRoom = AnswerRoom { lines: 10_000, bytes: 1024 * 1024 };

    fn take(&mut self, what: &impl Serialize) {
        let size = postcard::serialize_with_flavor(what, postcard::ser_flavors::Size::default());
        self.bytes = self.bytes.saturating_sub(size.expect("it always encodes"));
    }

    fn is_left(&self) -> bool {
        self.lines > 0 && self.bytes > 0
    }
}

impl<V: Fn() -> Arc<Snapshot>> BooksReader<'_, V> {
    pub fn charges(&self, asked: &Asked) -> Result<ChargesAnswer, StoreError> {
        let view = (self.view)();
        let wanted = || {
            Some(EntryFilter {
                plate: known(&asked.plate, |plate| Plate::new(plate).ok())?,
                garage: known(&asked.garage, |name| view.number_of(name))?,
                account: known(&asked.account, |name| view.billing.account(&normal(name)))?,
                month: known(&asked.month, |month| month.parse().ok())?,
                after: asked.after,
                limit: asked.limit,
            })
        };
        let Some(wanted) = wanted() else {
            let position = written_position(self.store)?.unwrap_or_default();
            return Ok(ChargesAnswer { position, ..ChargesAnswer::default() });
        };
        let (position, EntryList { entries, next }) = list::list(self.store, self.saving, &wanted)?;
        let view = (self.view)();
        let reckoner = Reckoner::new(&view, self.ledger);
        let shown = entries.iter().filter(|listed| is_shown(&listed.entry));
        let charges = shown.map(|listed| reckoner.line(listed)).collect::<Result<_, StoreError>>()?;
        Ok(ChargesAnswer { position, charges, next: next.map(|next| next.to_string()) })
    }

    /// The next pieces of statements, about as many as there is room for, and where to go on.
    pub(in crate::server) fn pieces(
        &self,
        operator: &Operator,
        (month, whose): (Month, &Whose),
        from: Option<StatementCursor>,
        mut room: AnswerRoom,
    ) -> Result<(Vec<StatementPiece>, Option<StatementCursor>), StoreError> {
        let room = &mut room;
        let (first, end) = match whose {
            Whose::Plate(plate) => {
                let Ok(plate) = Plate::new(plate) else { return Ok((Vec::new(), None)) };
                return self.of_plate(operator, month, &plate, from, room);
            }
            Whose::Account(name) => match (self.view)().billing.account(&normal(name)) {
                Some(number) => (number, number + 1),
                None => return Ok((Vec::new(), None)),
            },
            Whose::All => (0, (self.view)().billing.accounts_end()),
        };
        let mut cursor = from.unwrap_or(StatementCursor { account: first, entry: None });
        let mut pieces = Vec::new();
        let mut reader = EntryReader::new(self.store);
        while cursor.account < end && room.is_left() {
            let opening = match cursor.entry {
                Some(_) => None,
                None => self.opening(operator, cursor.account, month)?,
            };
            let mut next = match (&opening, cursor.entry) {
                (Some(Opening { book: Some(book), .. }), _) => book.last,
                (_, entry) => entry.unwrap_or_default(),
            };
            // An answer with an opening alone leads on; one with nothing would not.
            opening.iter().for_each(|opening| room.take(opening));
            let mut lines = Vec::new();
            while next != 0 && room.is_left() {
                let listed = reader.of_month(next, SLICE)?;
                next = listed.last().map_or(0, |oldest| oldest.entry.before_in_month);
                self.add_lines(&listed, &mut lines, room)?;
            }
            if opening.is_some() || cursor.entry.is_some() {
                pieces.push(StatementPiece { opening, lines, is_last: next == 0 });
            }
            cursor = match next {
                0 => StatementCursor { account: cursor.account + 1, entry: None },
                _ => StatementCursor { entry: Some(next), ..cursor },
            };
        }
        self.name_customers(&mut pieces);
        Ok((pieces, (cursor.account < end).then_some(cursor)))
    }

    /// What stands above an account's lines; none when it has no entry in the month.
    fn opening(
        &self,
        operator: &Operator,
        account: u32,
        month: Month,
    ) -> Result<Option<Opening>, StoreError> {
        let read = || entries::read_month(self.store, account, month);
        let (position, Some(book)) = at_one_position(self.store, self.saving, read)? else { return Ok(None) };
        let name = {
            let view = (self.view)();
            let account = view.billing.account_book(account);
            account.map_or(UNREGISTERED, |account| &account.name).to_owned()
        };
        let head = StatementHead {
            operator: operator.clone(),
            customer: Customer::Account { account: name, name: None },
            month,
            number: Some(book.number),
            position,
        };
        Ok(Some(Opening { head, book: Some(book) }))
    }

    /// What the customers of the accounts are called: the registry is looked through once.
    fn name_customers(&self, pieces: &mut [StatementPiece]) {
        let mut nameless: HashMap<String, &mut Option<String>> = HashMap::new();
        for piece in pieces {
            if let Some(Opening { head, .. }) = &mut piece.opening
                && let Customer::Account { account, name } = &mut head.customer
            {
                nameless.insert(account.clone(), name);
            }
        }
        let view = (self.view)();
        for its in view.billing.in_force.plates().values() {
            if nameless.is_empty() {
                break;
            }
            if !its.name.is_empty()
                && let Some(name) = nameless.remove(its.account.as_str())
            {
                *name = Some(its.name.clone());
            }
        }
    }

    fn of_plate(
        &self,
        operator: &Operator,
        month: Month,
        plate: &Plate,
        from: Option<StatementCursor>,
        room: &mut AnswerRoom,
    ) -> Result<(Vec<StatementPiece>, Option<StatementCursor>), StoreError> {
        let wanted = |after| EntryFilter {
            plate: Some(plate.clone()),
            month: Some(month),
            after,
            limit: SLICE,
            ..EntryFilter::default()
        };
        // What comes later stands before it in the chain: the state is that of the first look.
        let first = wanted(from.and_then(|from| from.entry));
        let (position, mut found) = list::list(self.store, self.saving, &first)?;
        let mut is_known = from.is_some();
        let mut lines = Vec::new();
        let next = loop {
            is_known |= !found.entries.is_empty();
            self.add_lines(&found.entries, &mut lines, room)?;
            match found.next {
                Some(next) if room.is_left() => {
                    (_, found) = list::list(self.store, self.saving, &wanted(Some(next)))?;
                }
                next => break next,
            }
        };
        if !is_known {
            return Ok((Vec::new(), None));
        }
        let head = StatementHead {
            operator: operator.clone(),
            customer: Customer::Plate(plate.as_str().to_owned()),
            month,
            number: None,
            position,
        };
        let opening = from.is_none().then_some(Opening { head, book: None });
        let piece = StatementPiece { opening, lines, is_last: next.is_none() };
        Ok((vec![piece], next.map(|entry| StatementCursor { account: 0, entry: Some(entry) })))
    }

    fn add_lines(
        &self,
        listed: &[list::ListedEntry],
        lines: &mut Vec<StatementLine>,
        room: &mut AnswerRoom,
    ) -> Result<(), StoreError> {
        let view = (self.view)();
        let reckoner = Reckoner::new(&view, self.ledger);
        for listed in listed {
            if let Some(line) = reckoner.statement_line(listed)? {
                room.take(&line);
                room.lines = room.lines.saturating_sub(1);
                lines.push(line);
            }
        }
        Ok(())
    }

    /// One statement of at most `at_most` entries, put together here; none when there is none.
    pub fn statement(
        &self,
        operator: &Operator,
        month: Month,
        whose: &Whose,
        at_most: u64,
    ) -> Result<Option<Statement>, BooksError> {
        let mut together = StatementAssembler::new(at_most);
        let (mut from, mut statement) = (None, None);
        loop {
            let (pieces, next) = self.pieces(operator, (month, whose), from, AnswerRoom::DEFAULT)?;
            for piece in pieces {
                statement = together.add(piece)?;
            }
            from = next;
            if from.is_none() {
                return Ok(statement);
            }
        }
    }

    pub fn answer(&self, operator: &Operator, question: &BooksQuestion) -> Outcome {
        let failed = |error: StoreError| {
            NotDone::Refused(format!("{error}. Nothing was changed. \"server verify\" says more"))
        };
        match question {
            BooksQuestion::Charges(asked) => serde_json::to_value(self.charges(asked).map_err(failed)?)
                .map_err(|error| error.to_string().into()),
            BooksQuestion::Statements { month, whose, from } => {
                let (pieces, next) =
                    self.pieces(operator, (*month, whose), *from, AnswerRoom::DEFAULT).map_err(failed)?;
                let bytes = postcard::to_stdvec(&pieces).expect("pieces always encode");
                Ok(json!({ "form": FORM, "pieces": hex(&bytes), "next": next }))
            }
            BooksQuestion::Months => {
                let months = list::months(self.store).map_err(failed)?;
                Ok(json!({ "months": months.iter().map(ToString::to_string).collect::<Vec<_>>() }))
            }
            BooksQuestion::Tariffs => {
                let view = (self.view)();
                let tariffs = view.billing.in_force.tariffs();
                Ok(json!({
                    "position": tariffs.map(|(position, _)| position),
                    "toml": tariffs.map(|(_, set)| set.to_toml()),
                }))
            }
        }
    }
}

/// The value that a filter names, if the filter was given. `None`: its value is unknown, so that nothing matches.
pub fn known<T>(filter: &Option<String>, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match filter {
        None => Some(None),
        Some(text) => read(text).map(Some),
    }
}

/// What was only a step on the way to something that is shown is not.
fn is_shown(entry: &BillingEntry) -> bool {
    match &entry.what {
        EntryKind::Stay(stay) => entry.settled_by == 0 || stay.terms.money().is_some(),
        EntryKind::Void { money, .. } => money.is_some(),
        EntryKind::Credit { .. } => true,
    }
}

/// An account's name as the registry has it. That of unregistered cars is no account of the registry.
fn normal(account: &str) -> String {
    Account::new(account).map_or_else(|_| account.trim().to_owned(), |account| account.to_string())
}

/// Puts pieces together, in the order in which they came.
#[derive(Debug)]
pub struct StatementAssembler {
    begun: Option<(Opening, Vec<StatementLine>)>,
    at_most: u64,
}

impl StatementAssembler {
    /// Each statement may have this many entries.
    pub fn new(at_most: u64) -> StatementAssembler {
        StatementAssembler { begun: None, at_most }
    }

    /// Takes one more piece; gives the statement when it was its last.
    pub fn add(&mut self, piece: StatementPiece) -> Result<Option<Statement>, BooksError> {
        let broken = |what: &str| BooksError::Form(what.to_owned());
        match (piece.opening, &mut self.begun) {
            (Some(opening), None) => self.begun = Some((opening, piece.lines)),
            (None, Some((_, lines))) => lines.extend(piece.lines),
            (Some(_), Some(_)) => return Err(broken("a statement begins before the one before has ended")),
            (None, None) => return Err(broken("a statement goes on that never began")),
        }
        let (Opening { book, .. }, lines) = self.begun.as_ref().expect("it has just begun or gone on");
        if book.as_ref().map_or(lines.len() as u64, |book| book.entries) > self.at_most {
            return Err(BooksError::TooLong { lines: self.at_most });
        }
        if !piece.is_last {
            return Ok(None);
        }
        let (Opening { head, book }, mut lines) = self.begun.take().expect("it has just begun or gone on");
        lines.reverse();
        let statement = Statement::new(head, lines)?;
        if let Some(book) = book {
            agree(&statement, &book)?;
        }
        Ok(Some(statement))
    }
}

/// The sums of the lines are the sums that the views keep, for each currency and rate.
fn agree(statement: &Statement, book: &MonthBook) -> Result<(), BooksError> {
    let rates = statement.totals().iter().flat_map(|total| &total.rates);
    let mut by_line: Vec<(Currency, Option<VatRate>, i64)> =
        rates.map(|sum| (sum.gross.currency, sum.rate, sum.gross.minor())).collect();
    let sums = book.totals.iter();
    let mut by_book: Vec<(Currency, Option<VatRate>, i64)> =
        sums.map(|(money, rate)| (money.currency, *rate, money.minor())).collect();
    by_line.sort();
    by_book.sort();
    if by_line == by_book {
        return Ok(());
    }
    let whose = statement.head().customer.id().to_owned();
    Err(BooksError::Disagree { whose, lines: in_words(&by_line), books: in_words(&by_book) })
}

/// Sums in minor units, by currency and hundredths of a per cent of VAT.
fn in_words(sums: &[(Currency, Option<VatRate>, i64)]) -> String {
    if sums.is_empty() {
        return "nothing".into();
    }
    let in_words =
        |(currency, rate, minor): &(Currency, Option<VatRate>, i64)| match rate.map(VatRate::hundredths) {
            Some(rate) => format!("{minor} {currency} at {}.{:02} % VAT", rate / 100, rate % 100),
            None => format!("{minor} {currency} without VAT"),
        };
    sums.iter().map(in_words).collect::<Vec<_>>().join(", ")
}

/// An answer to [`BooksQuestion::Statements`], as the one who asked reads it.
pub fn read_answer(
    answer: &serde_json::Value,
) -> Result<(Vec<StatementPiece>, Option<StatementCursor>), BooksError> {
    if answer["form"] != FORM {
        return Err(BooksError::Form(format!("they have the form {}, not {FORM}", answer["form"])));
    }
    let bytes = answer["pieces"].as_str().and_then(unhex);
    let bytes = bytes.ok_or_else(|| BooksError::Form("they are no bytes".into()))?;
    let pieces = postcard::from_bytes(&bytes).map_err(|error| BooksError::Form(error.to_string()))?;
    let next = Option::<StatementCursor>::deserialize(&answer["next"])
        .map_err(|error| BooksError::Form(error.to_string()))?;
    Ok((pieces, next))
}
