//! What is known of garages at a moment: the views of the ledger, and the tables `[[garage]]` of the configuration.
//!
//! The table is no fact of the ledger: it says where a garage is and when it is open, and changes nothing that is counted or charged.
//! So the state of a garage is computed where it is shown, from both.

use super::view::openings::GarageOpening;
use super::view::{GarageState, Snapshot};
use crate::codes;
use crate::config::{GarageTable, GaragesReload, LiveGarages};
use crate::daemon::certificates::ReloadRequest;
use crate::messaging::SiteName;
use crate::parking::board::{BoardLine, GarageFacts};
use crate::parking::garage::{ConfiguredGarage, DecidedBy, KnownHours, Opening, ShownState, shown_state};
use jiff::Timestamp;
use std::ops::Bound;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the server looks whether its configuration file changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The garages as readers see them.
pub struct GaragesNow<'a> {
    pub view: &'a Snapshot,
    pub table: &'a GarageTable,
    pub now: Timestamp,
}

/// The state of a garage, and what led to it as far as that is known.
#[derive(Debug, Default)]
pub struct StateNow {
    pub state: Option<ShownState>,
    pub since: Option<Timestamp>,
    pub reason: Option<String>,
    pub changes_at: Option<Timestamp>,
}

impl GaragesNow<'_> {
    /// The table of the garage with this key, under any name that it has or had.
    pub fn configured(&self, key: &SiteName) -> Option<&ConfiguredGarage> {
        if self.table.garages.is_empty() {
            return None;
        }
        let of = |name: &SiteName| self.table.garages.get(name);
        of(self.view.name_of(key)).or_else(|| self.view.sites_of(key).iter().find_map(of))
    }

    /// The garages of the table behind a name that the ledger does not know, in their order.
    pub fn not_heard(&self, after: Option<&SiteName>) -> impl Iterator<Item = &SiteName> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.table.garages.range::<SiteName, _>((behind, Bound::Unbounded)).map(|(name, _)| name);
        names.filter(|name| !self.view.garages.contains_key(self.view.key_of(name)))
    }

    /// A line of the board: the garage as the ledger has it, with what its table says.
    pub fn line(&self, key: &SiteName, garage: &GarageState) -> BoardLine {
        let configured = self.configured(key);
        let GarageOpening { operator, garage: says, full_since_ms } = &garage.opening;
        let facts = GarageFacts {
            is_full: full_since_ms.is_some(),
            operator: operator.as_ref().map(|(says, _)| *says),
            garage: says.as_ref().map(|(says, _)| *says),
            position: configured.and_then(|its| its.position),
            group: configured.and_then(|its| its.group.clone()),
            hours: configured.map(|its| its.hours.clone()).unwrap_or_default(),
        };
        // A capacity that no edge has reported is in no record, so the ledger does not know whether it is full.
        let unknown = garage.known_capacity().is_none();
        let capacity = configured.and_then(|its| its.capacity).filter(|_| unknown);
        let capacity = capacity.unwrap_or(garage.capacity);
        let is_full =
            facts.is_full || unknown && (1..=garage.occupancy.occupied).contains(&i64::from(capacity));
        BoardLine {
            capacity,
            occupied: garage.occupancy.occupied,
            as_of_ms: garage.as_of_ms,
            through: garage.through.map(|(epoch, last)| (epoch.to_bytes(), last)),
            facts: GarageFacts { is_full, ..facts },
        }
    }

    /// The number of spaces, by an operator, the edge or the table, in this order.
    pub fn capacity(&self, key: &SiteName, garage: &GarageState) -> Option<u32> {
        garage.known_capacity().or_else(|| self.configured(key)?.capacity)
    }

    pub fn state(&self, key: &SiteName, garage: &GarageState) -> StateNow {
        let line = self.line(key, garage);
        let counted = garage.known_occupied().zip(self.capacity(key, garage)).is_some();
        let openness = line.facts.openness();
        let decided = openness.at(self.now);
        let state = shown_state(decided.opening, counted.then_some(line.facts.is_full));
        let moment = |ms| Timestamp::from_millisecond(ms).ok();
        let GarageOpening { operator, garage: says, full_since_ms } = &garage.opening;
        let (since, reason) = match (state, decided.by) {
            (Some(ShownState::Full), _) => (full_since_ms.and_then(moment), None),
            (_, DecidedBy::Operator) => match operator {
                Some((says, reason)) => (moment(says.since_ms), reason.clone()),
                None => (None, None),
            },
            (_, DecidedBy::Garage) => match says {
                Some((says, reason)) => (moment(says.at_ms), reason.clone()),
                None => (None, None),
            },
            (_, DecidedBy::Hours) => match (&line.facts.hours, decided.opening) {
                (KnownHours::Are(hours), Some(Opening::Closed)) => (hours.last_change(self.now), None),
                _ => (None, None),
            },
        };
        StateNow { state, since, reason, changes_at: openness.next_change(self.now) }
    }
}

/// Takes a changed file up within a second, at once on request, until `stop`.
pub async fn keep_garages_current(garages: LiveGarages, mut asked: ReloadRequest, stop: CancellationToken) {
    let keep = async {
        let mut looking = tokio::time::interval(LOOK_EVERY);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looking.tick() => {}
                () = asked.came() => {}
            }
            let looks = garages.clone();
            // A disk that does not answer holds up only this task.
            let Ok(found) = tokio::task::spawn_blocking(move || looks.reload()).await else { return };
            match found {
                GaragesReload::Unchanged => {}
                GaragesReload::TakenUp(garages) => {
                    tracing::info!(garages, "the changed garages are in force")
                }
                GaragesReload::Refused(error) => tracing::error!(
                    code = %codes::GARAGES_INVALID,
                    %error,
                    hint = "correct the file; it is read again when it changes",
                    "the changed configuration file cannot be used; the garages in force before still are"
                ),
            }
        }
    };
    stop.run_until_cancelled(keep).await;
}

/// A line of `/readyz` when the file as it is now is not in force.
pub fn ready_line(garages: &LiveGarages) -> String {
    let Some(error) = garages.refused() else { return String::new() };
    let error = error.to_string().replace('\n', " ");
    format!("{}: {error}; the garages in force before still are\n", codes::GARAGES_INVALID)
}
