//! Records the tariffs of the configuration when a server starts.

use super::put::in_pieces;
use crate::codes;
use crate::daemon::clock;
use crate::parking::tariff::TariffSet;
use crate::server::ledger::{Ledger, RecordOrDamage};
use crate::server::record::{Command, Record};
use crate::server::view::View;
use crate::server::view::billing::rules::PutInForce;
use crate::store::StoreError;
use crate::store::room::{DiskRoom, WRITTEN_FOR_VALUES};
use jiff::civil::Date;

const BY: &str = "the configuration, at the server's start";

/// Puts `tariffs` in force unless they are already: a command at the ledger's end, before any event that this server will take.
/// Without tariffs what is in force stays; so it does when others would change the price of a draft.
pub fn put_at_start(
    ledger: &Ledger,
    view: &View,
    room: &DiskRoom,
    tariffs: &TariffSet,
    today: Date,
) -> Result<(), StoreError> {
    let in_force = in_force(ledger, view)?;
    if tariffs.tariffs().is_empty() {
        match in_force {
            Some((position, _)) => tracing::info!(
                position,
                "the configuration has no tariffs; those put in force at this position stay in force"
            ),
            None => tracing::info!(
                "the configuration has no tariffs and none are in force: stays are recorded and wait for a price"
            ),
        }
        return Ok(());
    }
    if let Some((position, known)) = &in_force {
        if known == tariffs {
            tracing::info!(
                position,
                "the tariffs of the configuration have been in force since this position"
            );
            return Ok(());
        }
        let differences = known.differences(tariffs, today);
        if !differences.is_empty() && changes_a_price(ledger, view, tariffs)? {
            tracing::error!(
                code = %codes::TARIFFS_DIFFER,
                position,
                differences = differences.join("; "),
                hint = "give the changed tariffs a valid_from in the future, or run: server tariffs put FILE --retroactive --dry-run",
                "the tariffs of the configuration would change prices of stays that have ended; the tariffs of the ledger stay in force"
            );
            return Ok(());
        }
    }
    let (parts, pieces, digest) = in_pieces(tariffs.to_toml().into_bytes());
    let bytes: usize = parts.iter().map(Vec::len).sum();
    if let Err(what) = room.check(bytes as u64 * WRITTEN_FOR_VALUES) {
        tracing::error!(
            code = %codes::TARIFFS_NOT_PUT_IN_FORCE,
            reason = what,
            hint = "make room and start the server again",
            "the tariffs of the configuration could not be put in force; stays are charged by the previous ones"
        );
        return Ok(());
    }
    let command = Command::Tariffs { pieces, digest };
    let position = ledger.record_order(BY, parts, command, clock::wall_ms())?;
    tracing::info!(
        position,
        tariffs = tariffs.tariffs().len(),
        "the tariffs of the configuration are in force; no price of a draft changes"
    );
    Ok(())
}

/// Whether a draft that has a price would have another one.
fn changes_a_price(ledger: &Ledger, view: &View, tariffs: &TariffSet) -> Result<bool, StoreError> {
    let effect = view.effect_of(ledger, PutInForce::Tariffs(tariffs.clone()))?;
    Ok(effect.priced_before > 0)
}

/// The tariffs at the ledger's end: the view may be behind it.
fn in_force(ledger: &Ledger, view: &View) -> Result<Option<(u64, TariffSet)>, StoreError> {
    let mut in_force = view.billing.rules.tariffs().map(|(position, set)| (position, set.clone()));
    for found in ledger.records(view.position + 1) {
        let (position, found) = found?;
        if let RecordOrDamage::Record(Record::Command { command: command @ Command::Tariffs { .. }, .. }) =
            found
            && let Some(Ok(PutInForce::Tariffs(set))) = PutInForce::read(ledger, position, &command)?
        {
            in_force = Some((position, set));
        }
    }
    Ok(in_force)
}
