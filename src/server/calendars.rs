//! Warns before a calendar of the tariffs in force ends: stays on later days have no price.

use super::applying::LiveViews;
use super::view::Snapshot;
use crate::codes;
use crate::daemon::clock;
use crate::parking::tariff::CalendarEnd;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// When the calendars end that the tariffs in force need, the earliest first.
pub fn ends(view: &Snapshot) -> Vec<CalendarEnd> {
    view.billing.rules.tariffs().map(|(_, set)| set.calendar_ends(clock::now())).unwrap_or_default()
}

/// Those that end soon or have ended: people are warned of them.
pub fn ending(view: &Snapshot) -> Vec<CalendarEnd> {
    ends(view).into_iter().filter(CalendarEnd::is_soon).collect()
}

/// Logs a warning for each calendar that ends soon: when the views show `position`, and then every day until `stop`.
pub async fn warn_daily(live: Arc<LiveViews>, position: u64, stop: CancellationToken) {
    let warn = async {
        live.applied_to(position).await;
        loop {
            for end in ending(&live.snapshot()) {
                tracing::warn!(
                    code = %codes::CALENDAR_ENDS,
                    calendar = end.calendar,
                    complete_through = %end.complete_through,
                    days_left = end.days_left,
                    hint = "add the holidays of the following years to the calendar, set complete_through, and start the server again; no price changes by that",
                    "a calendar ends: stays on later days wait for a price"
                );
            }
            tokio::time::sleep(WARN_EVERY).await;
        }
    };
    stop.run_until_cancelled(warn).await;
}
