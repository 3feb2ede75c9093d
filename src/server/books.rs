//! Reads the books of money: lists of charges, drafts of a month, and which documents it has. HTTP, the operators of a running server, and commands
//! to a directory on which no server runs all use this module.
//!
//! **Promise.** A draft adds up. When the books did not change while it was read, its sums are those that the views keep; otherwise it
//! is refused.
//! **Kept by.** A draft comes in parts, each of one position. [`DraftStatement::of`] adds its lines up and compares.
//! **Not promised.** That a draft shows one moment: only a document does.

use super::charge_details::charge_details;
use super::hex::{packed, unpacked};
use super::ledger::Ledger;
use super::reckoning::{ChargeLine, Reckoner};
use super::view::billing::UNREGISTERED;
use super::view::billing::documents::{self, DocumentFacts};
use super::view::billing::issued::{IssuedBooks, IssuedExit};
use super::view::billing::totals::{Totals, read_month};
use super::view::charges::{self, ChargeCursor, ChargeFilter, ChargeList};
use super::view::{Snapshot, written_position};
use crate::daemon::admin::{NotDone, Outcome};
use crate::parking::document::{
    BilledCustomer, DocumentError, DocumentHead, DocumentLine, Issuer, LAYOUT, LineAmount, PlateTerm,
    Rendering, TotalsBuilder, TotalsError, render,
};
use crate::parking::journal::Debtor;
use crate::parking::money::{Currency, VatBasis};
use crate::parking::register::Account;
use crate::parking::{ChargeId, Month, Plate};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// What parts of drafts look like; another form is of another version of this program.
const FORM: u32 = 3;
/// How many lines a part of a draft has at most.
const LINES_IN_A_PART: usize = 1_000;

/// What of the charges is asked for. What is unknown finds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub plate: Option<String>,
    pub garage: Option<String>,
    pub account: Option<String>,
    pub month: Option<String>,
    pub after: Option<ChargeCursor>,
    pub limit: usize,
}

/// Drafts of charges: of one plate, newest first; of a registered account, plate by plate; else garage by garage, newest first.
#[derive(Debug, Default, Serialize)]
pub struct ChargesAnswer {
    /// The views' position: later events are not shown yet.
    pub position: u64,
    pub charges: Vec<ChargeLine>,
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    Account(String),
    /// A look at one car.
    Plate(String),
}

impl Whose {
    /// `None`: nobody can have the name. The cars that nobody registered have no statement together: each has one of its own.
    fn debtor(&self) -> Option<Debtor> {
        match self {
            Whose::Account(name) => Account::new(name).ok().map(Debtor::Account),
            Whose::Plate(plate) => Plate::new(plate).ok().map(Debtor::Plate),
        }
    }

    /// The first part of the charges for a month.
    fn charges_of(&self, month: Month) -> ChargeFilter {
        let (account, plate) = match self.debtor() {
            Some(Debtor::Plate(plate)) => (None, Some(plate)),
            debtor => (debtor.map(|debtor| debtor.name().to_owned()), None),
        };
        ChargeFilter { account, plate, month: Some(month), limit: LINES_IN_A_PART, ..ChargeFilter::default() }
    }
}

/// What can be asked of the books of money over `admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BooksQuestion {
    /// A list of charges.
    Charges(Asked),
    /// The next part of the draft for a month.
    Draft { month: Month, whose: Whose, after: Option<ChargeCursor> },
    /// The documents of a month.
    Issued { month: Month, whose: Whose },
    /// The tariffs that are in force.
    Tariffs,
    /// One charge, and what stands behind it.
    Charge(ChargeId),
}

impl BooksQuestion {
    /// Whether the answer must show everything recorded so far: true unless it continues an earlier answer.
    pub fn is_a_beginning(&self) -> bool {
        match self {
            BooksQuestion::Charges(asked) => asked.after.is_none(),
            BooksQuestion::Draft { after, .. } => after.is_none(),
            BooksQuestion::Issued { .. } | BooksQuestion::Tariffs | BooksQuestion::Charge(_) => true,
        }
    }
}

/// A line of a draft; its share of the net sum is known once all lines are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftLine {
    vat: VatBasis,
    currency: Currency,
    line: DocumentLine,
}

/// Some lines of a draft, in no order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftPart {
    /// The position that it shows.
    position: u64,
    issuer: Issuer,
    customer: BilledCustomer,
    lines: Vec<DraftLine>,
    /// What the views keep of the account's month; none for a look at one car.
    totals: Option<Totals>,
    pub next: Option<ChargeCursor>,
}

/// Why there is no draft. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a draft does not add up: {0}. Nothing was changed. \"server verify\" says more")]
    Totals(#[from] TotalsError),
    #[error("{0}")]
    Document(#[from] DocumentError),
    #[error(
        "the lines of the draft of {whose:?} do not add up to what the books say. Nothing was changed. \"server verify\" says more"
    )]
    Disagree { whose: String },
    #[error("the draft has more than {lines} lines")]
    TooLong { lines: usize },
    #[error(
        "the draft that the server sent cannot be read: {0}. Nothing was changed. Does the running server have another version than this program?"
    )]
    Form(String),
}

/// An answer where the store could not be read.
pub fn not_read(error: StoreError) -> NotDone {
    NotDone::Refused(format!("{error}. Nothing was changed. \"server verify\" says more"))
}

/// Reads the books of money. `view` gives the views as readers see them now.
pub struct BooksReader<'a, V> {
    pub ledger: &'a Ledger,
    /// While it is held the views are not written, where a server runs.
    pub saving: Option<&'a Mutex<()>>,
    pub view: V,
}

impl<V: Fn() -> Arc<Snapshot>> BooksReader<'_, V> {
    pub fn charges(&self, asked: &Asked) -> Result<ChargesAnswer, StoreError> {
        let view = (self.view)();
        let wanted = || {
            Some(ChargeFilter {
                plate: known(&asked.plate, |plate| Plate::new(plate).ok())?,
                garage: known(&asked.garage, |name| view.number_of(name))?,
                account: asked.account.as_deref().map(normal),
                month: known(&asked.month, |month| month.parse().ok())?,
                after: asked.after.clone(),
                limit: asked.limit,
            })
        };
        let Some(wanted) = wanted() else {
            let position = written_position(self.ledger.store())?.unwrap_or_default();
            return Ok(ChargesAnswer { position, ..ChargesAnswer::default() });
        };
        let (position, ChargeList { charges, next }) =
            charges::list((&view, self.ledger), self.saving, &wanted)?;
        let (reckoner, issued) = (Reckoner::new(&view, self.ledger), IssuedBooks::on(self.ledger.store()));
        let charges = charges.iter().map(|charge| reckoner.line(charge, &issued));
        let charges = charges.collect::<Result<_, StoreError>>()?;
        Ok(ChargesAnswer { position, charges, next: next.map(|next| next.to_string()) })
    }

    /// The next part of a draft for a month.
    pub fn draft_part(
        &self,
        issuer: &Issuer,
        (month, whose): (Month, &Whose),
        after: Option<ChargeCursor>,
    ) -> Result<Option<DraftPart>, StoreError> {
        let view = (self.view)();
        let Some(debtor) = whose.debtor() else { return Ok(None) };
        let number = debtor.account().map(|account| view.billing.account(account.as_str()));
        if number == Some(None) {
            return Ok(None);
        }
        let wanted = ChargeFilter { after, ..whose.charges_of(month) };
        let (position, found) = charges::list((&view, self.ledger), self.saving, &wanted)?;
        let totals =
            number.flatten().map(|number| read_month(self.ledger.store(), number, month)).transpose()?;
        let (customer, totals) = (customer_of(&view, debtor), totals.flatten());
        let reckoner = Reckoner::new(&view, self.ledger);
        let mut lines = Vec::new();
        for charge in &found.charges {
            let Some((money, vat)) = charge.draft.money() else { continue };
            let amount = LineAmount { rate: None, gross: money.amount, net: money.amount };
            let line = reckoner.document_line(charge, amount, None)?;
            lines.push(DraftLine { vat: vat.clone(), currency: money.currency, line });
        }
        Ok(Some(DraftPart { position, issuer: issuer.clone(), customer, lines, totals, next: found.next }))
    }

    /// The draft of at most `at_most` lines, put together here; none when nothing was charged in the month.
    pub fn draft(
        &self,
        issuer: &Issuer,
        month: Month,
        whose: &Whose,
        at_most: usize,
    ) -> Result<Option<DraftStatement>, BooksError> {
        let (mut parts, mut after) = (Vec::new(), None);
        let mut lines = 0;
        loop {
            let Some(part) = self.draft_part(issuer, (month, whose), after)? else { return Ok(None) };
            lines += part.lines.len();
            if lines > at_most {
                return Err(BooksError::TooLong { lines: at_most });
            }
            after = part.next.clone();
            parts.push(part);
            if after.is_none() {
                return DraftStatement::of(month, parts);
            }
        }
    }

    /// The documents of a month, in order: of an account those that were issued for it; if there are none, those that charged its stays
    /// later. Of a car those that charged its stays last, and those of the same accounts for the month. A plate finds none whose
    /// term is over.
    pub fn issued(
        &self,
        (month, whose): (Month, &Whose),
        term: PlateTerm,
    ) -> Result<Vec<DocumentFacts>, StoreError> {
        let Some(debtor) = whose.debtor() else { return Ok(Vec::new()) };
        let (mut debtors, mut charged_by) = (BTreeSet::from([debtor]), BTreeSet::new());
        if let Whose::Plate(_) = whose {
            charged_by = self.documents_of_stays(whose.charges_of(month))?;
            for serial in &charged_by {
                let facts = documents::row(self.ledger.store(), *serial)?.and_then(|row| row.facts);
                debtors.extend(facts.map(|facts| facts.debtor));
            }
        }
        let (mut found, mut later) = (Vec::new(), BTreeMap::new());
        for row in documents::rows(self.ledger.store(), 1) {
            let row = row?;
            if matches!(whose, Whose::Plate(_)) && term.is_over(row.date) {
                continue;
            }
            match row.facts {
                Some(facts) if !debtors.contains(&facts.debtor) => {}
                Some(facts) if facts.month == month || charged_by.contains(&row.serial) => found.push(facts),
                Some(facts) if facts.month > month => _ = later.insert(row.serial, facts),
                _ => {}
            }
        }
        if found.is_empty() && !later.is_empty() {
            let charged_by = self.documents_of_stays(whose.charges_of(month))?;
            found.extend(charged_by.iter().filter_map(|serial| later.remove(serial)));
        }
        Ok(found)
    }

    /// The serials of the latest documents about the wanted stays.
    fn documents_of_stays(&self, mut wanted: ChargeFilter) -> Result<BTreeSet<u64>, StoreError> {
        let view = (self.view)();
        let issued = IssuedBooks::on(self.ledger.store());
        let mut serials = BTreeSet::new();
        loop {
            let (_, found) = charges::list((&view, self.ledger), self.saving, &wanted)?;
            for charge in &found.charges {
                serials.extend(
                    issued.of(IssuedExit::of(self.ledger, charge.exit)?)?.iter().map(|its| its.document),
                );
            }
            wanted.after = found.next;
            if wanted.after.is_none() {
                return Ok(serials);
            }
        }
    }

    pub fn answer(&self, (issuer, term): (&Issuer, PlateTerm), question: &BooksQuestion) -> Outcome {
        match question {
            BooksQuestion::Charges(asked) => Ok(json!(self.charges(asked).map_err(not_read)?)),
            BooksQuestion::Draft { month, whose, after } => {
                let part = self.draft_part(issuer, (*month, whose), after.clone()).map_err(not_read)?;
                Ok(packed(FORM, &part))
            }
            BooksQuestion::Issued { month, whose } => {
                let found = self.issued((*month, whose), term).map_err(not_read)?;
                Ok(json!({ "numbers": found.iter().map(|its| &its.number).collect::<Vec<_>>() }))
            }
            BooksQuestion::Charge(id) => {
                let details = charge_details((&(self.view)(), self.ledger), self.saving, id);
                details.map_err(not_read)?.ok_or_else(|| {
                    NotDone::Refused(format!("there is no charge {id}. Nothing was changed. \"server charges list\" shows all charges with their ids"))
                })
            }
            BooksQuestion::Tariffs => {
                let view = (self.view)();
                let tariffs = view.billing.rules.tariffs();
                Ok(json!({
                    "position": tariffs.map(|(position, _)| position),
                    "toml": tariffs.map(|(_, set)| set.to_toml()),
                }))
            }
        }
    }
}

/// Whom a debtor's documents are addressed to, as the register says.
pub fn customer_of(view: &Snapshot, debtor: Debtor) -> BilledCustomer {
    let record = debtor.account().and_then(|account| view.billing.rules.register.customer(account));
    let record = record.cloned().unwrap_or_default();
    BilledCustomer::new(debtor, &record)
}

/// The value that a filter names, if the filter was given. `None`: its value is unknown, so that nothing matches.
pub fn known<T>(filter: &Option<String>, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match filter {
        None => Some(None),
        Some(text) => read(text).map(Some),
    }
}

/// An account's name as the register has it. That of unregistered cars is no account of the register.
fn normal(account: &str) -> String {
    match Account::new(account) {
        Ok(account) => account.to_string(),
        Err(_) if account.trim().eq_ignore_ascii_case(UNREGISTERED) => UNREGISTERED.to_owned(),
        Err(_) => account.trim().to_owned(),
    }
}

/// What the next document of a month would show: one for each currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftStatement {
    documents: BTreeMap<Currency, (DocumentHead, Vec<DocumentLine>)>,
}

impl DraftStatement {
    /// Puts parts together. `None`: there is no line.
    pub fn of(month: Month, parts: Vec<DraftPart>) -> Result<Option<DraftStatement>, BooksError> {
        let Some(DraftPart { position, issuer, customer, totals, .. }) = parts.first().cloned() else {
            return Ok(None);
        };
        let is_of_one_moment = parts.iter().all(|part| part.position == position);
        let mut by_currency: BTreeMap<Currency, Vec<DraftLine>> = BTreeMap::new();
        for line in parts.into_iter().flat_map(|part| part.lines) {
            by_currency.entry(line.currency).or_default().push(line);
        }
        let mut documents = BTreeMap::new();
        for (currency, mut lines) in by_currency {
            lines.sort_by(|a, b| {
                let key = |its: &DraftLine| (its.line.exit.timestamp, its.line.entry.timestamp);
                key(a).cmp(&key(b)).then_with(|| a.line.reference.cmp(&b.line.reference))
            });
            let mut builder = TotalsBuilder::default();
            lines.iter().try_for_each(|its| builder.add(Some(&its.vat), its.line.amount.gross))?;
            let (totals, corrects, mut shares) = builder.finish()?;
            let lines: Vec<DocumentLine> = lines
                .into_iter()
                .map(|its| {
                    let amount = shares.next(Some(&its.vat), its.line.amount.gross, its.line.month)?;
                    Ok::<_, TotalsError>(DocumentLine { amount, ..its.line })
                })
                .collect::<Result<_, _>>()?;
            let (issuer, customer) = (issuer.clone(), customer.clone());
            let (layout, supplies) = (LAYOUT, shares.finish()?);
            let head = DocumentHead {
                layout,
                issue: None,
                month,
                issuer,
                customer,
                currency,
                totals,
                supplies,
                corrects,
            };
            documents.insert(currency, (head, lines));
        }
        let statement = DraftStatement { documents };
        if let Some(totals) = totals.filter(|_| is_of_one_moment)
            && !statement.agrees_with(&totals)
        {
            return Err(BooksError::Disagree { whose: customer.debtor.name().to_owned() });
        }
        Ok((!statement.documents.is_empty()).then_some(statement))
    }

    /// Whether the sums of the lines are those that the views keep, for each currency and rate.
    fn agrees_with(&self, totals: &Totals) -> bool {
        let rates = self.documents.iter().flat_map(|(currency, (head, _))| {
            head.totals.rates.iter().map(|sum| (*currency, sum.rate.clone(), sum.gross))
        });
        let mut by_line: Vec<_> = rates.collect();
        let mut kept: Vec<_> =
            totals.sums.iter().map(|sum| (sum.amount.currency, sum.vat.clone(), sum.amount.amount)).collect();
        by_line.sort();
        kept.sort();
        by_line == kept
    }

    /// The currencies in which something is charged.
    pub fn currencies(&self) -> impl Iterator<Item = Currency> {
        self.documents.keys().copied()
    }

    pub fn render(&self, currency: Currency, rendering: Rendering) -> Result<Vec<u8>, DocumentError> {
        let (head, lines) = &self.documents[&currency];
        render(rendering, head, lines.iter().cloned().map(Ok::<_, DocumentError>), Vec::new())
    }
}

/// An answer to [`BooksQuestion::Draft`], as the one who asked reads it.
pub fn read_part(answer: &serde_json::Value) -> Result<Option<DraftPart>, BooksError> {
    unpacked(FORM, answer).map_err(BooksError::Form)
}
