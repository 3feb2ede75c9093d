//! Makes one document of what is due.

use super::collect::{DueBundle, DueStay};
use crate::parking::Month;
use crate::parking::document::{
    BilledCustomer, CorrectedDocument, CorrectionReason, Digests, DocumentError, DocumentFile, DocumentHead,
    DocumentLine, DocumentPlates, Issue, Issuer, LAYOUT, LineAmount, LineCar, LineCorrection, ReadDocument,
    Shares, TotalsBuilder, TotalsError,
};
use crate::parking::money::{Currency, Money};
use crate::server::ledger::Ledger;
use crate::server::reckoning::Reckoner;
use crate::server::record::Record;
use crate::server::record::documents::{LINES_TOGETHER, lines_of, pack_lines};
use crate::server::view::billing::Draft;
use crate::server::view::billing::documents::row;
use crate::server::view::billing::draft::DraftState;
use crate::server::view::billing::issued::IssuedExit;
use crate::server::view::billing::rules::{ChargeDecision, Decided};
use crate::server::view::charges::ListedDraft;
use crate::server::view::{SlotAddress, Snapshot};
use crate::store::StoreError;
use std::collections::{BTreeMap, HashMap};
use std::io;

/// Why no document is made. Nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Totals(#[from] TotalsError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error("document number {0} of the series, which a line corrects, cannot be read")]
    Corrected(u64),
}

pub struct DocumentMaker<'a> {
    ledger: &'a Ledger,
    reckoner: Reckoner<'a>,
    issuer: &'a Issuer,
    month: Month,
    /// Documents that lines correct, and the positions that issued them.
    corrected: HashMap<u64, (CorrectedDocument, u64)>,
    /// What earlier documents say of stays for which their accounts pay nothing any more, by document and exit.
    given_back: BTreeMap<u64, BTreeMap<IssuedExit, Option<DocumentLine>>>,
}

/// A document whose amounts are known, and whose lines are not written yet.
pub struct SummedDocument<'b> {
    pub head: DocumentHead,
    bundle: &'b DueBundle,
    shares: Shares,
}

impl<'a> DocumentMaker<'a> {
    pub fn new(
        view: &'a Snapshot,
        ledger: &'a Ledger,
        issuer: &'a Issuer,
        month: Month,
    ) -> DocumentMaker<'a> {
        let reckoner = Reckoner::new(view, ledger);
        let (corrected, given_back) = (HashMap::new(), BTreeMap::new());
        DocumentMaker { ledger, reckoner, issuer, month, corrected, given_back }
    }

    /// Adds the lines up.
    pub fn sum<'b>(
        &mut self,
        (customer, currency): (BilledCustomer, Currency),
        bundle: &'b DueBundle,
    ) -> Result<SummedDocument<'b>, MakeError> {
        let mut builder = TotalsBuilder::default();
        self.given_back.clear();
        for stay in bundle.stays() {
            builder.add(stay.vat.as_ref(), stay.amount)?;
            if let Some((_, serial)) = stay.before {
                builder.corrects(&self.corrected(serial)?.0);
                if stay.now.is_none() {
                    let exit = IssuedExit::of(self.ledger, stay.exit)?;
                    self.given_back.entry(serial).or_default().insert(exit, None);
                }
            }
        }
        self.read_given_back()?;
        let (totals, corrects, shares) = builder.finish()?;
        let head = DocumentHead {
            layout: LAYOUT,
            issue: None,
            month: self.month,
            issuer: self.issuer.clone(),
            customer,
            currency,
            totals,
            supplies: Vec::new(),
            corrects,
        };
        Ok(SummedDocument { head, bundle, shares })
    }

    /// The first lines of the document.
    pub fn first_lines(
        &mut self,
        summed: SummedDocument<'_>,
        at_most: usize,
    ) -> Result<Vec<DocumentLine>, MakeError> {
        let SummedDocument { head, bundle, mut shares } = summed;
        let stays = bundle.stays().take(at_most).map(|stay| {
            let amount = shares.next(stay.vat.as_ref(), stay.amount, stay.month)?;
            self.line(&head, stay, amount)
        });
        stays.collect()
    }

    /// Writes the file of the document. Gives its head, which is complete then.
    pub fn write(
        &mut self,
        summed: SummedDocument<'_>,
        issue: Issue,
    ) -> Result<(DocumentHead, Vec<u8>), MakeError> {
        let SummedDocument { mut head, bundle, mut shares } = summed;
        let (mut pieces, mut together) = (Vec::new(), Vec::with_capacity(LINES_TOGETHER));
        for stay in bundle.stays() {
            let amount = shares.next(stay.vat.as_ref(), stay.amount, stay.month)?;
            together.push(self.line(&head, stay, amount)?);
            if together.len() == LINES_TOGETHER {
                pieces.push(pack_lines(together.drain(..)));
            }
        }
        if !together.is_empty() {
            pieces.push(pack_lines(together));
        }
        head.issue = Some(issue);
        head.supplies = shares.finish()?;
        let digests = Digests::of(&head, lines_of(&pieces))?;
        let mut file = DocumentFile::begin(Vec::new(), DocumentPlates::AsIssued, &head, &digests)?;
        pieces.iter().try_for_each(|piece| file.piece(piece))?;
        Ok((head, file.finish()?))
    }

    fn line(
        &mut self,
        head: &DocumentHead,
        stay: DueStay,
        amount: LineAmount,
    ) -> Result<DocumentLine, MakeError> {
        let DueStay { garage, plate, entry, exit, month, before, now, .. } = stay;
        let decisions = self.reckoner.decisions(garage, exit)?;
        let correction = match before {
            None => None,
            Some((before, serial)) => {
                let (document, position) = self.corrected(serial)?.clone();
                let later = decisions.iter().rfind(|decision| decision.position > position);
                let reason = later.map(|decision| self.reason(decision)).transpose()?.flatten();
                let reason =
                    reason.map_or(CorrectionReason::LaterFacts, |it| CorrectionReason::Decision(it.into()));
                let now = before.saturating_add(amount.gross);
                Some(LineCorrection { document, before, now, reason })
            }
        };
        let mut notes = Vec::new();
        for decision in decisions.iter().filter(|_| correction.is_none()) {
            if let Decided::Credit(credit) = decision.what {
                let money = Money { amount: credit, currency: head.currency };
                let reason = self.reason(decision)?.unwrap_or_default();
                notes.push(format!("{money} credited: {reason}").into());
            }
        }
        let is_priced = now.is_some();
        let (state, contract) = now.unwrap_or((DraftState::Charged, None));
        let account = head.customer.debtor.name().into();
        let draft = Draft { account, contract, month, state, price: None, amount: None, vat: None };
        let address = SlotAddress { garage, page: 0, slot: 0 };
        let charge = ListedDraft { address, plate, entry, exit, draft };
        let mut line = self.reckoner.document_line(&charge, amount, correction)?;
        line.month = month;
        if !is_priced {
            line.steps.clear();
            line.notes.clear();
            if let Some((_, serial)) = before {
                self.as_it_was_charged(&mut line, serial);
            }
        }
        line.notes.extend(notes);
        Ok(line)
    }

    /// Reads the lines about stays that are given back.
    fn read_given_back(&mut self) -> Result<(), MakeError> {
        for (serial, wanted) in &mut self.given_back {
            let row = row(self.ledger.store(), *serial)?.ok_or(MakeError::Corrected(*serial))?;
            let file = row.bytes(self.ledger)?;
            // What cannot be read is shown as the stay is now.
            let Ok(read) = ReadDocument::from_bytes(&file) else { continue };
            for line in lines_of(&read.pieces).filter_map(Result::ok) {
                let exit = IssuedExit::of_line(&line.reference);
                if let Some(wanted) = exit.and_then(|exit| wanted.get_mut(&exit)) {
                    *wanted = Some(line);
                }
            }
        }
        Ok(())
    }

    /// Shows a stay with the car and the times under which the customer was charged for it: it may be another customer's stay now. A
    /// plate that was forgotten stays forgotten.
    fn as_it_was_charged(&self, line: &mut DocumentLine, serial: u64) {
        let exit = IssuedExit::of_line(&line.reference);
        let charged = exit.and_then(|exit| self.given_back.get(&serial)?.get(&exit)?.as_ref());
        if let Some(charged) = charged {
            (line.entry, line.exit) = (charged.entry, charged.exit);
            line.tariff.clone_from(&charged.tariff);
            if matches!(line.car, LineCar::Plate(_)) {
                line.car = charged.car.clone();
            }
        }
    }

    fn corrected(&mut self, serial: u64) -> Result<&(CorrectedDocument, u64), MakeError> {
        if !self.corrected.contains_key(&serial) {
            let row = row(self.ledger.store(), serial)?.ok_or(MakeError::Corrected(serial))?;
            let number = row.facts.ok_or(MakeError::Corrected(serial))?.number.into();
            let document = CorrectedDocument { number, date: row.date };
            self.corrected.insert(serial, (document, row.position));
        }
        Ok(&self.corrected[&serial])
    }

    /// What the operator gave as the reason of a decision.
    fn reason(&self, decision: &ChargeDecision) -> Result<Option<String>, MakeError> {
        match self.ledger.record_at(decision.position) {
            Ok(Some(Record::Command { command, .. })) => Ok(command.reason().map(str::to_owned)),
            Ok(_) | Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
