//! What stands behind one charge: its events, what people decided about them and about the charge, and the documents that charged it.

use super::ledger::Ledger;
use super::reckoning::{ChargeLine, Reckoner};
use super::record::documents::unpack_lines;
use super::record::{Command, Record, StreamId};
use super::view::billing::documents::{row, serial_of};
use super::view::billing::issued::{IssuedBooks, IssuedExit};
use super::view::billing::rules::ChargeKey;
use super::view::charges::listed_charge;
use super::view::{Snapshot, StoredPassage, at_one_position};
use crate::messaging::page::Content;
use crate::parking::document::ReadDocument;
use crate::parking::money::Currency;
use crate::parking::{ChargeId, Event, EventId, Moment};
use crate::store::StoreError;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// The charge with an id, and what it follows from. `None`: this ledger knows no such charge.
pub fn charge_details(
    (view, ledger): (&Snapshot, &Ledger),
    saving: Option<&Mutex<()>>,
    id: &ChargeId,
) -> Result<Option<Value>, StoreError> {
    let Some(key) = view.charge_key(id) else { return Ok(None) };
    let (position, details) =
        at_one_position(ledger.store(), saving, || Details { view, ledger, key: &key }.read())?;
    Ok(details.map(|mut details| {
        details["position"] = json!(position);
        details
    }))
}

struct Details<'a> {
    view: &'a Snapshot,
    ledger: &'a Ledger,
    key: &'a ChargeKey,
}

impl Details<'_> {
    fn read(&self) -> Result<Option<Value>, StoreError> {
        let Details { view, ledger, key } = *self;
        let issued = IssuedBooks::on(ledger.store());
        let listed = listed_charge((view, ledger), key)?;
        let line: Option<ChargeLine> = match &listed {
            Some(listed) => Some(Reckoner::new(view, ledger).line(listed, &issued)?),
            None => None,
        };
        let mut events = Vec::new();
        match &listed {
            Some(listed) => {
                let real = [listed.entry, listed.exit].into_iter().filter(|passage| !passage.is_made());
                for passage in real {
                    events.extend(self.event(passage.stream(), passage.sequence)?);
                }
            }
            None => {
                for stream in self.streams() {
                    events.extend(self.event(stream, key.exit.sequence)?);
                }
            }
        }
        let (documents, decisions) = (self.documents(&issued)?, self.decisions(listed.map(|its| its.entry))?);
        if line.is_none() && documents.is_empty() && decisions.is_empty() {
            return Ok(None);
        }
        let mut details = json!({ "events": events, "decisions": decisions, "documents": documents });
        if let Some(line) = line {
            details["charge"] = json!(line);
        }
        Ok(Some(details))
    }

    /// The ledger's numbers of the streams that the key may mean.
    fn streams(&self) -> Vec<u32> {
        let stream = |site| self.ledger.number_of(&StreamId { site, epoch: self.key.exit.epoch });
        self.view.sites_of(&self.key.garage).into_iter().filter_map(stream).collect()
    }

    fn event(&self, stream: u32, sequence: u64) -> Result<Option<Value>, StoreError> {
        let streams = self.ledger.numbered_streams();
        let Some(StreamId { site, epoch }) = streams.get(stream as usize) else { return Ok(None) };
        let Some((_, page)) = self.ledger.page_with(site, *epoch, sequence)? else { return Ok(None) };
        let Content::Records(records) = &page.page.content else { return Ok(None) };
        let index = sequence.checked_sub(page.page.first.get()).and_then(|index| usize::try_from(index).ok());
        let record = index.and_then(|index| records.get(index));
        let Some(Ok(event)) = record.map(|record| Event::from_bytes(&record.payload)) else {
            return Ok(None);
        };
        let id = EventId { garage: self.key.garage.to_string(), epoch: epoch.to_bytes(), sequence };
        Ok(Some(json!({
            "event": id.to_string(),
            "kind": event.kind.name(),
            "plate": event.kind.plate().map(ToString::to_string),
            "at": event.at.to_string(),
            "received_at": Moment::utc_text(page.received_at_ms),
            "position": page.position,
        })))
    }

    /// What was decided about the charge, and about the entry and the exit of its stay, the oldest first.
    fn decisions(&self, entry: Option<StoredPassage>) -> Result<Vec<Value>, StoreError> {
        let ChargeKey { garage, exit } = self.key;
        let mut positions = Vec::new();
        positions.extend(self.view.billing.rules.decisions.of(self.key).iter().map(|its| its.position));
        let mut events = vec![(garage.clone(), exit.epoch, exit.sequence)];
        if let Some(entry) = entry {
            events.push((garage.clone(), self.ledger.epoch_of(entry.stream())?, entry.sequence));
        }
        events.dedup();
        for event in events {
            positions.extend(self.view.decisions.events.of(&event).iter().map(|its| its.position));
        }
        positions.sort_unstable();
        let lines = positions.into_iter().map(|position| decision_line((self.view, self.ledger), position));
        lines.filter_map(Result::transpose).collect()
    }

    /// The documents that charged it, from the last on back by what each corrects.
    fn documents(&self, issued: &IssuedBooks) -> Result<Vec<Value>, StoreError> {
        let exit = self.key.exit;
        let mut found: BTreeMap<u64, Value> = BTreeMap::new();
        let mut wanted = Vec::new();
        wanted.extend(issued.of(exit)?.into_iter().map(|its| its.document));
        while let Some(serial) = wanted.pop() {
            let row = row(self.ledger.store(), serial)?.filter(|_| !found.contains_key(&serial));
            let Some(row) = row else { continue };
            let file = row.bytes(self.ledger)?;
            let (date, Some(facts)) = (row.date, row.facts) else { continue };
            let (mut amount, mut corrects) = (0, Vec::new());
            let pieces = ReadDocument::from_bytes(&file).map(|read| read.pieces).unwrap_or_default();
            for line in pieces.iter().flat_map(|piece| unpack_lines(piece).unwrap_or_default()) {
                if IssuedExit::of_line(&line.reference) == Some(exit) {
                    amount += line.amount.gross.minor();
                    corrects.extend(line.correction.map(|correction| correction.document.number));
                }
            }
            for number in &corrects {
                wanted.extend(serial_of(self.ledger.store(), number)?);
            }
            let document = json!({
                "number": facts.number,
                "kind": facts.kind,
                "account": facts.debtor.name(),
                "date": date,
                "amount": amount,
                "currency": facts.currency,
            });
            found.insert(serial, document);
        }
        Ok(found.into_values().collect())
    }
}

/// What was decided about charges and events, the oldest first.
pub fn decisions(
    (view, ledger): (&Snapshot, &Ledger),
    saving: Option<&Mutex<()>>,
) -> Result<Value, StoreError> {
    let of_charges = view.billing.rules.decisions.iter().map(|(_, its)| its.position);
    let of_events = view.decisions.events.iter().map(|(_, its)| its.position);
    let positions: BTreeSet<u64> = of_charges.chain(of_events).collect();
    let lines = || -> Result<Vec<Value>, StoreError> {
        let lines = positions.iter().map(|position| decision_line((view, ledger), *position));
        lines.filter_map(Result::transpose).collect()
    };
    let (_, lines) = at_one_position(ledger.store(), saving, lines)?;
    Ok(json!({ "decisions": lines, "position": view.position }))
}

/// The currency of a charge by its price, or else by the documents that charged it. `None`: neither says it.
fn currency_of((view, ledger): (&Snapshot, &Ledger), id: &ChargeId) -> Result<Option<Currency>, StoreError> {
    let Some(key) = view.charge_key(id) else { return Ok(None) };
    if let Some(price) = listed_charge((view, ledger), &key)?.and_then(|its| its.draft.price) {
        return Ok(Some(price.currency));
    }
    let issued = IssuedBooks::on(ledger.store()).of(key.exit)?;
    Ok(issued.first().map(|its| its.amount.currency))
}

/// A decision of an operator, by the position of its command. `None`: it cannot be read any more.
fn decision_line((view, ledger): (&Snapshot, &Ledger), position: u64) -> Result<Option<Value>, StoreError> {
    let record = match ledger.record_at(position) {
        Err(StoreError::Damaged { .. }) => None,
        record => record?,
    };
    let Some(Record::Command { received_at_ms, by, command }) = record else { return Ok(None) };
    let mut line = json!({
        "decision": position,
        "kind": command.name(),
        "reason": command.reason(),
        "by": by,
        "at": Moment::utc_text(received_at_ms),
    });
    match &command {
        Command::Void { charge, .. } | Command::BillStay { charge, .. } => line["charge"] = json!(charge),
        Command::Credit { charge, amount, .. } => {
            let currency = match currency_of((view, ledger), charge) {
                Err(StoreError::Damaged { .. }) => None,
                currency => currency?,
            };
            line["charge"] = json!(charge);
            (line["amount"], line["currency"]) = (json!(amount), json!(currency));
        }
        Command::JoinStay { entry, exit, .. } => {
            (line["entry"], line["exit"]) = (json!(entry), json!(exit));
        }
        Command::CloseStay { entry, left_at_ms, offset_minutes, .. } => {
            line["entry"] = json!(entry);
            line["left_at"] = json!(Moment::from_ms(*left_at_ms, *offset_minutes).to_string());
        }
        Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, .. } => {
            line["entry"] = json!(entry);
            line["left_at"] = json!(Moment::from_ms(*left_at_ms, *offset_minutes).to_string());
            line["entered_at"] = json!(Moment::from_ms(*entered_at_ms, *offset_minutes).to_string());
        }
        _ => {}
    }
    Ok(Some(line))
}
