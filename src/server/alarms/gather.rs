//! Reads what the server knows, for [`conditions`](super::conditions).

use super::conditions::{CityNow, GarageNow, MissingNow};
use crate::daemon::certificates::Certificates;
use crate::daemon::clock;
use crate::daemon::doors::Doors;
use crate::messaging::SiteName;
use crate::parking::DiskSpace;
use crate::server::ledger::Ledger;
use crate::server::seen::Seen;
use crate::server::view::{GarageState, Snapshot};
use crate::server::{SharedSeen, calendars};
use crate::store::room::{self, DiskRoom};
use crate::transport::tls::Acceptor;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Where it stands.
pub struct AlarmSources {
    pub(super) ledger: Ledger,
    seen: SharedSeen,
    room: DiskRoom,
    /// `None`: edges connect without TLS.
    tls: Option<Acceptor>,
    doors: Arc<Doors>,
    /// When this server started.
    began: Instant,
}

impl AlarmSources {
    /// For a server that starts now.
    pub fn of(
        ledger: &Ledger,
        seen: &SharedSeen,
        room: &DiskRoom,
        (tls, doors): (&Option<Acceptor>, &Arc<Doors>),
    ) -> AlarmSources {
        AlarmSources {
            ledger: ledger.clone(),
            seen: Arc::clone(seen),
            room: room.clone(),
            tls: tls.clone(),
            doors: Arc::clone(doors),
            began: Instant::now(),
        }
    }

    pub(super) fn city(&self, view: &Snapshot, data_dir: &Path) -> CityNow {
        let in_use = view.garages.iter().filter(|(_, garage)| garage.is_shown());
        let mut certificates = self.tls.as_ref().map(Certificates::expiries).unwrap_or_default();
        certificates.extend(self.doors.tls.as_ref().map(Certificates::expiries).unwrap_or_default());
        CityNow {
            at: Instant::now(),
            wall_ms: clock::wall_ms(),
            began: self.began,
            garages: in_use.map(|(key, state)| self.garage(view, key, state)).collect(),
            disk: room::space(data_dir).map(|(left, total)| DiskSpace { left, total }),
            reserve: self.room.reserve(),
            calendars: calendars::ends(view),
            certificates,
        }
    }

    fn garage(&self, view: &Snapshot, key: &SiteName, state: &GarageState) -> GarageNow {
        let sites = view.sites_of(key);
        // An edge that was set up again may have another name than before.
        let seen: Seen = {
            let all = self.seen.lock().expect("no thread panics while it holds what was seen");
            let of_sites = sites.iter().filter_map(|site| all.get(site));
            of_sites.max_by_key(|seen| seen.heard_at_ms).cloned().unwrap_or_default()
        };
        let marks = self.ledger.streams_of(&sites).into_iter().map(|stream| stream.mark.sequence);
        let (ranges, events, all) = view.missing_ranges_of(key, usize::MAX);
        GarageNow {
            key: key.clone(),
            heard: seen.heard,
            observation: seen.observation,
            clock_ahead_ms: seen.clock_ahead_ms,
            in_conflict_at: seen.in_conflict_at,
            refused: seen.refused,
            delivered: marks.fold(0, u64::wrapping_add),
            occupied: state.known_occupied(),
            capacity: state.known_capacity(),
            open_stays: state.stays.counts.open,
            missing: MissingNow {
                ranges,
                events,
                last_at_ms: all.iter().filter_map(|range| range.received_at_ms).max(),
                any_unreadable: all.iter().any(|range| range.received_at_ms.is_none()),
            },
        }
    }
}
