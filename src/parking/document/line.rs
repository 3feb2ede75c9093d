//! The lines of a document, in memory and as pieces of bytes.

use super::amounts::{CorrectedDocument, LineAmount};
use super::error::DocumentError;
use super::{FORMAT, decode};
use crate::parking::money::Amount;
use crate::parking::tariff::BreakdownLine;
use crate::parking::{ChargeId, Moment, Month};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::HashMap;
use std::convert::Infallible;
use uuid::Uuid;

/// A stay and what is charged for it, or the correction of what was charged for it. `T` is how texts are held: themselves in memory, and
/// numbers of a table in a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentLine<T = SmolStr> {
    pub reference: LineReference<T>,
    /// The garage's name on the day of issue.
    pub garage: T,
    pub car: LineCar<T>,
    /// With the offset of the garage's local time, as `exit`.
    pub entry: Moment,
    pub exit: Moment,
    /// The month of supply: that of the local date of the exit.
    pub month: Month,
    /// `None`: the stay is covered, so no tariff applies.
    pub tariff: Option<T>,
    /// How the price of the stay came about.
    pub steps: Vec<PriceStep<T>>,
    /// What else explains the price: free by a contract, one car too many, shorter than the grace time.
    pub notes: Vec<T>,
    /// Of a correction line: the difference.
    pub amount: LineAmount,
    /// `None`: the stay stands on a document for the first time.
    pub correction: Option<LineCorrection<T>>,
}

/// The id of the charge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LineReference<T = SmolStr> {
    /// The garage's first name.
    pub garage: T,
    /// A UUID.
    pub epoch: T,
    pub sequence: u64,
    /// Of an exit that an operator made, in milliseconds since 1970.
    pub made_at_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineCar<T = SmolStr> {
    Plate(T),
    /// The plate was forgotten; a random token stands for it.
    Token(T),
}

/// Consecutive units of one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceStep<T = SmolStr> {
    /// When the first of them began.
    pub from: Moment,
    pub units: u64,
    /// `None`: they have several prices.
    pub each: Option<Amount>,
    pub total: Amount,
    /// The rule of the tariff, in words.
    pub rule: T,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCorrection<T = SmolStr> {
    /// The latest document before this one that charged the stay.
    pub document: CorrectedDocument<T>,
    /// What all documents before this one charged, at the VAT rate of the line.
    pub before: Amount,
    /// What is right.
    pub now: Amount,
    pub reason: CorrectionReason<T>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CorrectionReason<T = SmolStr> {
    /// Events that arrived after the issue changed the stay.
    LaterFacts,
    /// An operator decided it, for this reason.
    Decision(T),
}

impl CorrectionReason {
    /// For the customer.
    pub fn in_words(&self) -> &str {
        match self {
            CorrectionReason::LaterFacts => "later facts changed this stay",
            CorrectionReason::Decision(reason) => reason,
        }
    }
}

impl From<&ChargeId> for LineReference {
    fn from(id: &ChargeId) -> LineReference {
        LineReference {
            garage: id.garage.as_str().into(),
            epoch: Uuid::from_bytes(id.epoch).to_string().into(),
            sequence: id.sequence,
            made_at_ms: id.made_at_ms,
        }
    }
}

impl LineReference {
    /// The whole id, as `GET /v1/charges` shows it.
    pub fn long(&self) -> String {
        let LineReference { garage, epoch, sequence, .. } = self;
        self.with_made_at(format!("{garage}/{epoch}/{sequence}"))
    }

    /// What a customer quotes: the beginning of the epoch and the sequence. The garage stands beside it.
    pub(super) fn short(&self) -> String {
        let epoch: String = self.epoch.chars().take(8).collect();
        self.with_made_at(format!("{epoch}-{}", self.sequence))
    }

    fn with_made_at(&self, id: String) -> String {
        self.made_at_ms.map_or(id.clone(), |at_ms| format!("{id}@{}", Moment::utc_text(at_ms)))
    }
}

impl From<&BreakdownLine> for PriceStep {
    fn from(line: &BreakdownLine) -> PriceStep {
        let BreakdownLine { from, units, each, total, .. } = *line;
        PriceStep { from, units, each, total, rule: line.reason.as_str().into() }
    }
}

impl<T> DocumentLine<T> {
    /// The line with each text replaced by what `f` makes of it.
    pub(super) fn try_map<U, E>(self, f: &mut impl FnMut(T) -> Result<U, E>) -> Result<DocumentLine<U>, E> {
        let LineReference { garage, epoch, sequence, made_at_ms } = self.reference;
        let reference = LineReference { garage: f(garage)?, epoch: f(epoch)?, sequence, made_at_ms };
        let car = match self.car {
            LineCar::Plate(text) => LineCar::Plate(f(text)?),
            LineCar::Token(text) => LineCar::Token(f(text)?),
        };
        let mut steps = Vec::with_capacity(self.steps.len());
        for PriceStep { from, units, each, total, rule } in self.steps {
            steps.push(PriceStep { from, units, each, total, rule: f(rule)? });
        }
        let correction = match self.correction {
            None => None,
            Some(LineCorrection { document, before, now, reason }) => {
                let document = CorrectedDocument { number: f(document.number)?, date: document.date };
                let reason = match reason {
                    CorrectionReason::LaterFacts => CorrectionReason::LaterFacts,
                    CorrectionReason::Decision(text) => CorrectionReason::Decision(f(text)?),
                };
                Some(LineCorrection { document, before, now, reason })
            }
        };
        Ok(DocumentLine {
            reference,
            garage: f(self.garage)?,
            car,
            entry: self.entry,
            exit: self.exit,
            month: self.month,
            tariff: self.tariff.map(&mut *f).transpose()?,
            steps,
            notes: self.notes.into_iter().map(&mut *f).collect::<Result<_, E>>()?,
            amount: self.amount,
            correction,
        })
    }
}

/// A piece: some consecutive lines as bytes. Each text stands in it once, so a piece should have some hundred lines.
pub fn encode_lines(lines: impl IntoIterator<Item = DocumentLine>) -> Vec<u8> {
    let mut numbers = HashMap::<SmolStr, u32>::new();
    let mut texts = Vec::new();
    let mut number_of = |text: SmolStr| -> Result<u32, Infallible> {
        Ok(*numbers.entry(text).or_insert_with_key(|text| {
            texts.push(text.clone());
            u32::try_from(texts.len() - 1).expect("a piece has fewer than four thousand million texts")
        }))
    };
    let mut numbered: Vec<DocumentLine<u32>> = Vec::new();
    for line in lines {
        let Ok(line) = line.try_map(&mut number_of);
        numbered.push(line);
    }
    postcard::to_extend(&(texts, numbered), vec![FORMAT]).expect("lines always encode")
}

/// Err: the bytes are not a piece that this program knows.
pub fn decode_lines(bytes: &[u8]) -> Result<Vec<DocumentLine>, DocumentError> {
    let (texts, numbered): (Vec<SmolStr>, Vec<DocumentLine<u32>>) = decode(bytes, "piece of lines")?;
    let mut text_of = |number: u32| {
        let text = usize::try_from(number).ok().and_then(|number| texts.get(number));
        text.cloned()
            .ok_or_else(|| DocumentError::Damaged(format!("its piece of lines has no text {number}")))
    };
    numbered.into_iter().map(|line| line.try_map(&mut text_of)).collect()
}
