//! Applies facts: documents, payments, reversals.

use super::rows::{COUNTERS, named, numbered, of_account};
use super::*;
use crate::parking::journal::{Booking, BookingLine, JournalAccount, Voucher, combined, document_lines};
use std::collections::BTreeSet;

/// How many invoices that a credit note corrects are kept, for the next that corrects it. They have to fit into a row.
const CORRECTED_MAX: usize = 500;

/// Whose money pays no document: (debtor if known, currency).
type Owner<'a> = (Option<&'a Debtor>, Currency);

impl DocumentBalance {
    fn owner(&self) -> Owner<'_> {
        (Some(&self.debtor), self.currency)
    }
}

impl<S: SavedRows> Receivables<'_, S> {
    /// A document was issued, or brought back. One whose serial or number is known changes nothing.
    pub fn apply_document(
        &mut self,
        document: &DocumentSummary,
        corrections: &Corrections,
    ) -> Result<(), S::Error> {
        if self.document(document.serial)?.is_some() || self.serial_of(&document.number)?.is_some() {
            return Ok(());
        }
        self.rows.put(named(b'n', document.number.as_bytes()), &document.serial);
        let balance = DocumentBalance::of(document);
        self.change_open(document.serial, balance.owner(), (Amount::ZERO, balance.open()))?;
        self.rows.put(numbered(b'd', document.serial), &balance);
        for lines in document_lines(&document.debtor, &document.totals) {
            self.book(
                document.date,
                Voucher::Document,
                Some(&document.number),
                document.currency,
                "",
                lines,
            )?;
        }
        self.allocate_waiting(document)?;
        if document.total() < Amount::ZERO {
            self.offset_corrected(document.serial, corrections)?;
        }
        self.offset(&document.debtor, document.currency)
    }

    /// Payments were imported, in this order.
    pub fn apply_payments(&mut self, payments: &[Payment]) -> Result<(), S::Error> {
        payments.iter().try_for_each(|payment| self.apply_payment(payment))
    }

    fn apply_payment(&mut self, payment: &Payment) -> Result<(), S::Error> {
        let mut counters = self.counters()?;
        counters.payments += 1;
        self.rows.put(COUNTERS.to_vec(), &counters);
        let id = counters.payments;
        let key = named(b'k', &payment.key());
        if self.rows.get::<u64>(&key)?.is_none() {
            self.rows.put(key, &id);
        }
        let state = self.state_of(payment)?;
        self.rows.put(numbered(b'p', id), &PaymentRow { payment: payment.clone(), state, undone: None });
        if let (PaymentState::Waiting(Waits::UnknownNumber), Some(number)) = (state, &payment.number) {
            self.rows.put(waiting_key(number, id), &());
        }
        let lines = self.move_money(id, payment, state, payment.money.amount)?;
        self.book_payment(payment.date, Voucher::Payment(id), payment, state, lines)?;
        self.offset_after(state)
    }

    /// A payment was undone on this date.
    ///
    /// # Errors
    /// The inner error: the fact has no effect.
    pub fn apply_undo(&mut self, id: PaymentId, date: Date) -> Result<Result<(), UndoError>, S::Error> {
        let mut row = match self.judge_undo(id, date)? {
            Ok(row) => row,
            Err(error) => return Ok(Err(error)),
        };
        row.undone = Some(date);
        self.rows.put(numbered(b'p', id.0), &row);
        let PaymentRow { payment, state, .. } = &row;
        if let (PaymentState::Waiting(Waits::UnknownNumber), Some(number)) = (state, &payment.number) {
            self.rows.delete(waiting_key(number, id.0));
        }
        let lines = self.move_money(id.0, payment, *state, payment.money.amount.negated())?;
        self.book_payment(date, Voucher::Reversal(id.0), payment, *state, lines)?;
        self.offset_after(*state).map(Ok)
    }

    /// Whether the payment can be undone on this date.
    pub fn judge_undo(&self, id: PaymentId, date: Date) -> Result<Result<PaymentRow, UndoError>, S::Error> {
        Ok(match self.payment(id)? {
            None => Err(UndoError::Unknown(id)),
            Some(PaymentRow { undone: Some(undone), .. }) => Err(UndoError::Undone(id, undone)),
            Some(row) if date < row.payment.date => Err(UndoError::Earlier(id, row.payment.date)),
            Some(row) => Ok(row),
        })
    }

    /// What becomes of a payment, by the documents that are known now.
    pub(super) fn state_of(&self, payment: &Payment) -> Result<PaymentState, S::Error> {
        let Some(number) = &payment.number else { return Ok(PaymentState::Waiting(Waits::NoNumber)) };
        let document =
            self.serial_of(number)?.map(|serial| Ok((serial, self.document(serial)?))).transpose()?;
        let Some((serial, Some(document))) = document else {
            return Ok(PaymentState::Waiting(Waits::UnknownNumber));
        };
        Ok(if payment.money.currency != document.currency {
            PaymentState::Waiting(Waits::OtherCurrency)
        } else if payment
            .account
            .as_ref()
            .is_some_and(|account| Debtor::Account(account.clone()) != document.debtor)
        {
            PaymentState::Waiting(Waits::OtherAccount)
        } else if payment.date < document.date {
            PaymentState::Waiting(Waits::BeforeDocument)
        } else {
            PaymentState::Received(serial)
        })
    }

    /// Payments that named the number of `document` before it was known.
    fn allocate_waiting(&mut self, document: &DocumentSummary) -> Result<(), S::Error> {
        let prefix = [named(b'x', document.number.as_bytes()), vec![0]].concat();
        // Each search begins where the last one ended: it need not step over what was deleted.
        let mut from = prefix.clone();
        while let Some((key, ())) = self.rows.first(&from, &prefix)? {
            let id = rows::last_number(&key);
            self.rows.delete(key.clone());
            from = key;
            let Some(mut row) = self.payment(PaymentId(id))? else { continue };
            let before = row.state;
            row.state = self.state_of(&row.payment)?;
            self.rows.put(numbered(b'p', id), &row);
            if let PaymentState::Received(_) = row.state {
                let amount = row.payment.money.amount;
                let mut lines = self.move_money(id, &row.payment, before, amount.negated())?;
                lines.extend(self.move_money(id, &row.payment, row.state, amount)?);
                self.book_payment(row.payment.date, Voucher::Allocation(id), &row.payment, row.state, lines)?;
            }
        }
        Ok(())
    }

    /// Adds money to where the payment's state says that it belongs, and returns the lines that book it.
    fn move_money(
        &mut self,
        id: u64,
        payment: &Payment,
        state: PaymentState,
        amount: Amount,
    ) -> Result<Vec<BookingLine>, S::Error> {
        let line = |account, amount| BookingLine { account, amount, month: None };
        let bank = line(JournalAccount::Bank, amount);
        let PaymentState::Received(serial) = state else {
            let debtor = payment.account.clone().map(Debtor::Account);
            let source = UnallocatedSource::Payment(PaymentId(id));
            self.change_unallocated((debtor.as_ref(), payment.money.currency), source, amount)?;
            let name = debtor.map(|debtor| debtor.name().to_owned());
            return Ok(vec![bank, line(JournalAccount::Unallocated(name), amount.negated())]);
        };
        let before = self.known_document(serial)?;
        let mut after = before.clone();
        after.received = before.received.saturating_add(amount);
        self.change_open(serial, after.owner(), (before.open(), after.open()))?;
        self.rows.put(numbered(b'd', serial), &after);
        let rest = after.unallocated().saturating_sub(before.unallocated());
        self.change_unallocated(after.owner(), UnallocatedSource::Document(serial), rest)?;
        let allocated = after.allocated().saturating_sub(before.allocated());
        let name = after.debtor.name().to_owned();
        Ok(vec![
            bank,
            line(JournalAccount::Receivable(name.clone()), allocated.negated()),
            line(JournalAccount::Unallocated(Some(name)), rest.negated()),
        ])
    }

    fn offset_after(&mut self, state: PaymentState) -> Result<(), S::Error> {
        let PaymentState::Received(serial) = state else { return Ok(()) };
        let document = self.known_document(serial)?;
        self.offset(&document.debtor, document.currency)
    }

    /// Offsets a new credit note against the invoices that its lines correct.
    fn offset_corrected(&mut self, credit: u64, corrections: &Corrections) -> Result<(), S::Error> {
        let mut by_serial = BTreeMap::new();
        for (number, amount) in corrections {
            by_serial.extend(self.serial_of(number)?.map(|serial| (serial, amount.negated())));
        }
        let mut corrected = BTreeSet::new();
        for (serial, mut rest) in by_serial {
            let of_credit_note: Option<Vec<u64>> = self.rows.get(&numbered(b'i', serial))?;
            for invoice in of_credit_note.unwrap_or_else(|| vec![serial]) {
                let [owing, owed] = [self.known_document(invoice)?, self.known_document(credit)?];
                if owing.owner() != owed.owner() {
                    continue;
                }
                corrected.insert(invoice);
                let amount = rest.min(owing.open()).min(owed.open().negated());
                if amount > Amount::ZERO {
                    self.offset_by((invoice, credit), amount)?;
                    rest = rest.saturating_sub(amount);
                }
            }
        }
        if !corrected.is_empty() {
            let corrected: Vec<u64> = corrected.into_iter().take(CORRECTED_MAX).collect();
            self.rows.put(numbered(b'i', credit), &corrected);
        }
        Ok(())
    }

    /// Offsets the oldest open credit note against the oldest open invoice, until one kind is left.
    fn offset(&mut self, debtor: &Debtor, currency: Currency) -> Result<(), S::Error> {
        let prefix = |sign| [of_account(b'o', Some(debtor), currency), vec![sign]].concat();
        let (invoices, credits) = (prefix(INVOICES), prefix(CREDITS));
        let (mut invoice_from, mut credit_from) = (invoices.clone(), credits.clone());
        loop {
            let invoice = self.rows.first::<Amount>(&invoice_from, &invoices)?;
            let credit = self.rows.first::<Amount>(&credit_from, &credits)?;
            let (Some((invoice, owed)), Some((credit, due_back))) = (invoice, credit) else {
                return Ok(());
            };
            let serials = (rows::last_number(&invoice), rows::last_number(&credit));
            self.offset_by(serials, owed.min(due_back.negated()))?;
            (invoice_from, credit_from) = (invoice, credit);
        }
    }

    /// Offsets an amount of an invoice and a credit note. Both stay on one account of the journal, so there is nothing to book.
    fn offset_by(&mut self, (invoice, credit): (u64, u64), amount: Amount) -> Result<(), S::Error> {
        for (serial, change) in [(invoice, amount), (credit, amount.negated())] {
            let before = self.known_document(serial)?;
            let mut after = before.clone();
            after.offset = before.offset.saturating_add(change);
            self.change_open(serial, after.owner(), (before.open(), after.open()))?;
            self.rows.put(numbered(b'd', serial), &after);
        }
        Ok(())
    }

    /// Takes the plate from a document that is addressed to one. What it has open, and what was received for it and pays no document, are
    /// its own from then on: they are not offset against other documents of the car.
    pub fn remove_plate(&mut self, serial: u64) -> Result<(), S::Error> {
        let Some(before) = self.document(serial)? else { return Ok(()) };
        let debtor = before.debtor.clone().without_plate(serial);
        let after = DocumentBalance { debtor, ..before.clone() };
        if after == before {
            return Ok(());
        }
        let open = before.open();
        self.change_open(serial, before.owner(), (open, Amount::ZERO))?;
        self.change_open(serial, after.owner(), (Amount::ZERO, open))?;
        let source = UnallocatedSource::Document(serial);
        let (debtor, currency) = before.owner();
        let key = [of_account(b'u', debtor, currency), source.to_key().to_vec()].concat();
        let rest = self.rows.get::<Amount>(&key)?.unwrap_or_default();
        self.change_unallocated(before.owner(), source, rest.negated())?;
        self.change_unallocated(after.owner(), source, rest)?;
        self.rows.put(numbered(b'd', serial), &after);
        Ok(())
    }

    /// Notes what a document of an owner had open, and has now.
    fn change_open(
        &mut self,
        serial: u64,
        owner: Owner<'_>,
        (before, open): (Amount, Amount),
    ) -> Result<(), S::Error> {
        let key = |amount: Amount| {
            let sign = if amount > Amount::ZERO { INVOICES } else { CREDITS };
            [of_account(b'o', owner.0, owner.1), vec![sign], serial.to_be_bytes().to_vec()].concat()
        };
        if before != Amount::ZERO {
            self.rows.delete(key(before));
        }
        if open != Amount::ZERO {
            self.rows.put(key(open), &open);
        }
        let change = open.saturating_sub(before);
        self.change_balance(owner, |balance| balance.open = balance.open.saturating_add(change))?;
        Ok(())
    }

    fn change_unallocated(
        &mut self,
        owner: Owner<'_>,
        source: UnallocatedSource,
        change: Amount,
    ) -> Result<(), S::Error> {
        if change == Amount::ZERO {
            return Ok(());
        }
        let entries = of_account(b'u', owner.0, owner.1);
        let key = [&entries[..], &source.to_key()].concat();
        let amount = self.rows.get::<Amount>(&key)?.unwrap_or_default().saturating_add(change);
        match amount {
            Amount::ZERO => self.rows.delete(key),
            amount => self.rows.put(key, &amount),
        }
        let balance = self.change_balance(owner, |balance| {
            balance.unallocated = balance.unallocated.saturating_add(change);
        })?;
        let mut from = entries.clone();
        while balance.unallocated == Amount::ZERO
            && let Some((key, _)) = self.rows.first::<Amount>(&from, &entries)?
        {
            self.rows.delete(key.clone());
            from = key;
        }
        Ok(())
    }

    fn change_balance(
        &mut self,
        (debtor, currency): Owner<'_>,
        change: impl FnOnce(&mut AccountBalance),
    ) -> Result<AccountBalance, S::Error> {
        let key = of_account(b'a', debtor, currency);
        let mut balance = self.balance(debtor, currency)?;
        change(&mut balance);
        match balance == AccountBalance::default() {
            true => self.rows.delete(key),
            false => self.rows.put(key, &balance),
        }
        Ok(balance)
    }

    fn book_payment(
        &mut self,
        date: Date,
        voucher: Voucher,
        payment: &Payment,
        state: PaymentState,
        lines: Vec<BookingLine>,
    ) -> Result<(), S::Error> {
        let Payment { number, money, reference, .. } = payment;
        // The number that a waiting payment names is no document's, or not its.
        let document = number.as_deref().filter(|_| matches!(state, PaymentState::Received(_)));
        self.book(date, voucher, document, money.currency, reference, combined(lines))
    }

    fn book(
        &mut self,
        date: Date,
        voucher: Voucher,
        document: Option<&str>,
        currency: Currency,
        reference: &str,
        lines: Vec<BookingLine>,
    ) -> Result<(), S::Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut counters = self.counters()?;
        counters.bookings += 1;
        self.rows.put(COUNTERS.to_vec(), &counters);
        let number = counters.bookings;
        let (document, reference) = (document.map(str::to_owned), reference.to_owned());
        let booking = Booking { number, date, currency, voucher, document, reference, lines };
        self.rows.put(numbered(b'b', number), &booking);
        Ok(())
    }

    fn known_document(&self, serial: u64) -> Result<DocumentBalance, S::Error> {
        let damaged = || self.rows.saved.damaged(&numbered(b'd', serial));
        self.document(serial)?.ok_or_else(damaged)
    }
}

/// In keys of open documents.
const INVOICES: u8 = 1;
const CREDITS: u8 = 2;

fn waiting_key(number: &str, id: u64) -> Vec<u8> {
    [named(b'x', number.as_bytes()), vec![0], id.to_be_bytes().to_vec()].concat()
}
