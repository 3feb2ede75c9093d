//! `GET /v1/occupancy`, `GET /v1/garages`, `GET /v1/garages/{name}`: each of one position of the views, from memory, except for what was
//! taken today: that is as last written.

use super::{HttpAnswer, ServerWeb, SharedWeb, StreamMark};
use crate::codes;
use crate::daemon::clock;
use crate::http::tokens::{Role, SignedIn};
use crate::http::{Problem, Query, cursor, list_limit};
use crate::messaging::SiteName;
use crate::parking::Moment;
use crate::parking::board::OccupancyLine;
use crate::parking::tariff::Money;
use crate::server::commands::today;
use crate::server::ledger::Stream;
use crate::server::listed::{self, GarageLine};
use crate::server::serving::SKEW_ALARM_MS;
use crate::server::states::GaragesNow;
use crate::server::view::billing::totals::{Totals, read_day};
use crate::server::view::{GarageState, MissingRange, StayCounts};
use crate::store::StoreError;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// An answer about occupancy: of one position and one table, until a garage opens or closes.
pub(super) struct OccupancyAnswer {
    position: u64,
    revision: u64,
    until: Option<Timestamp>,
    body: Bytes,
}

/// All garages that boards show. It is made once for each position, and on no thread that others wait for.
pub(super) async fn occupancy(State(web): SharedWeb) -> HttpAnswer {
    let body = match kept_occupancy(&web) {
        Some(body) => body,
        None => web.in_turn(&web.renderers, |web| Ok::<_, Infallible>(render_occupancy(web))).await?,
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The last answer, if it still holds.
fn kept_occupancy(web: &ServerWeb) -> Option<Bytes> {
    let (position, revision) = (web.view().position, web.garages_configured.table().revision);
    let now = clock::now();
    let kept = web.occupancy.lock().expect("no thread panics while it holds an answer");
    let kept = kept.as_ref().filter(|kept| (kept.position, kept.revision) == (position, revision));
    kept.filter(|kept| kept.until.is_none_or(|until| now < until)).map(|kept| kept.body.clone())
}

fn render_occupancy(web: &ServerWeb) -> Bytes {
    #[derive(Serialize)]
    struct Answer {
        version: u64,
        ledger: String,
        garages: Vec<OccupancyLine>,
    }
    // Another request may have made it while this one waited for its turn.
    if let Some(body) = kept_occupancy(web) {
        return body;
    }
    let (view, table) = (web.view(), web.garages_configured.table());
    let garages = GaragesNow { view: &view, table: &table, now: clock::now() };
    let unknown = GarageState::default();
    let heard = view.garages.iter().filter(|(_, garage)| garage.is_shown());
    let all = heard.chain(garages.not_heard(None).map(|name| (name, &unknown)));
    let lines = all.map(|(key, garage)| listed::occupancy(&garages, key, garage));
    let (lines, changes): (Vec<_>, Vec<_>) = lines.unzip();
    let until = changes.into_iter().flatten().min();
    let answer = Answer { version: view.position, ledger: web.ledger.id().to_string(), garages: lines };
    let body = Bytes::from(serde_json::to_vec(&answer).expect("it always encodes"));
    let mut kept = web.occupancy.lock().expect("no thread panics while it holds an answer");
    let (position, revision) = (view.position, table.revision);
    *kept = Some(OccupancyAnswer { position, revision, until, body: body.clone() });
    body
}

#[derive(Serialize)]
struct GarageAnswer {
    #[serde(flatten)]
    garage: GarageLine,
    stays: StayCounts,
    /// How many cars are inside since more than a day, at most [`INSIDE_LOOKED_AT_EVERY`] ago. `None`: the views are busy.
    inside_over_a_day: Option<u64>,
    /// What was charged, less what was taken back; once for each currency. `None`: the request may not see money.
    taken: Option<Vec<Money>>,
    /// The same of the stays that ended today, as the operator's time zone has it.
    taken_today: Option<Vec<Money>>,
    marks: Vec<StreamMark>,
    last_heard_at: Option<String>,
    last_heard_seconds_ago: Option<f64>,
    backlog: Option<u64>,
    oldest_age_seconds: Option<f64>,
    duplicates_refused: u64,
    conflicts: u64,
    conflict_at: Option<StreamMark>,
    refused: Option<String>,
    two_edges: bool,
    clock_set: Option<bool>,
    clock_ahead_seconds: Option<f64>,
    clock_alarm: bool,
    /// The garage's own count, with what it has not delivered.
    live_occupied: Option<i64>,
    /// Why the garage takes no events, if so.
    full: Option<String>,
    /// Confirmed events that the garage could not read any more when it started.
    damaged: Option<u64>,
    /// The first hundred; the two counts are of all.
    missing_ranges: Vec<MissingRangeLine>,
    missing_ranges_total: usize,
    missing_events: u64,
}

#[derive(Serialize)]
struct MissingRangeLine {
    epoch: String,
    first: u64,
    last: u64,
    reason: String,
    received_at: Option<String>,
}

/// How often the cars inside are looked through.
const INSIDE_LOOKED_AT_EVERY: Duration = Duration::from_secs(60);
/// For how long an answer waits for that: records may be applied that take longer.
const INSIDE_FOUND_WITHIN: Duration = Duration::from_millis(500);
const A_DAY_MS: i64 = 24 * 3_600_000;

/// How many cars of each garage, by its number, are inside for more than a day.
pub(super) type LongInside = Arc<HashMap<u32, u64>>;

impl ServerWeb {
    async fn inside_over_a_day(&self) -> Option<LongInside> {
        let mut kept = self.inside_over_a_day.lock().await;
        if kept.as_ref().is_none_or(|(at, _)| at.elapsed() >= INSIDE_LOOKED_AT_EVERY) {
            let before = clock::wall_ms().saturating_sub(A_DAY_MS);
            let found = self.live.ask(move |view| Arc::new(view.inside_since_before(before)));
            if let Ok(Some(found)) = timeout(INSIDE_FOUND_WITHIN, found).await {
                *kept = Some((Instant::now(), found));
            }
        }
        kept.as_ref().map(|(_, inside)| Arc::clone(inside))
    }
}

/// What an answer about garages shows besides the views.
struct Beside {
    shows_money: bool,
    inside_over_a_day: Option<LongInside>,
}

impl Beside {
    async fn now(web: &ServerWeb, signed_in: &SignedIn) -> Beside {
        let shows_money = signed_in.includes(Role::Money);
        Beside { shows_money, inside_over_a_day: web.inside_over_a_day().await }
    }
}

fn garage_answer(
    web: &ServerWeb,
    garages: &GaragesNow<'_>,
    key: &SiteName,
    beside: &Beside,
) -> Result<GarageAnswer, StoreError> {
    let view = garages.view;
    let sites = view.sites_of(key);
    let streams = web.ledger.streams_of(&sites);
    // An edge that was set up again may have another name than before.
    let seen =
        sites.iter().map(|site| web.seen(site)).max_by_key(|seen| seen.heard_at_ms).unwrap_or_default();
    let heard = (seen.heard_at_ms > 0).then_some(seen.heard_at_ms);
    let observed = seen.observation.as_ref();
    let garage = view.garages.get(key);
    let number = garage.map(|garage| garage.stays.number);
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let (missing_ranges_total, missing_events, missing_ranges) = view.missing_ranges_of(key, 100);
    let missing_range = |range: &MissingRange| MissingRangeLine {
        epoch: range.epoch.to_string(),
        first: range.first,
        last: range.last,
        reason: range.reason.clone(),
        received_at: range.received_at_ms.map(Moment::utc_text),
    };
    let mark =
        |stream: &Stream| StreamMark { epoch: stream.id.epoch.to_string(), sequence: stream.mark.sequence };
    let taken_today = match number.filter(|_| beside.shows_money) {
        Some(number) => read_day(web.ledger.store(), number, today(&web.operator))?,
        None => Totals::default(),
    };
    Ok(GarageAnswer {
        garage: GarageLine::of(garages, key),
        stays: garage.map(|garage| garage.stays.counts).unwrap_or_default(),
        inside_over_a_day: beside
            .inside_over_a_day
            .as_ref()
            .map(|inside| number.and_then(|number| inside.get(&number).copied()).unwrap_or(0)),
        taken: beside.shows_money.then(|| {
            number.and_then(|number| view.billing.taken(number)).map(Totals::by_currency).unwrap_or_default()
        }),
        taken_today: beside.shows_money.then(|| taken_today.by_currency()),
        marks: streams.iter().map(mark).collect(),
        last_heard_at: heard.map(Moment::utc_text),
        last_heard_seconds_ago: heard.map(|at| seconds(clock::wall_ms().saturating_sub(at).max(0) as u64)),
        backlog: observed.map(|observed| observed.backlog),
        oldest_age_seconds: observed.and_then(|observed| observed.oldest_age_ms).map(seconds),
        duplicates_refused: seen.duplicates_refused,
        conflicts: seen.conflicts,
        conflict_at: seen
            .in_conflict_at
            .map(|(epoch, sequence)| StreamMark { epoch: epoch.to_string(), sequence }),
        two_edges: seen.two_edges(),
        clock_set: observed.map(|observed| observed.clock_set),
        clock_ahead_seconds: seen.clock_ahead_ms.map(|ahead_ms| ahead_ms as f64 / 1000.0),
        clock_alarm: seen.clock_ahead_ms.is_some_and(|ahead_ms| ahead_ms.saturating_abs() > SKEW_ALARM_MS),
        live_occupied: observed.and_then(|observed| observed.occupied),
        full: observed.and_then(|observed| observed.shortage.clone()),
        damaged: observed.map(|observed| observed.damaged),
        refused: seen.refused.clone(),
        missing_ranges: missing_ranges.into_iter().map(missing_range).collect(),
        missing_ranges_total,
        missing_events,
    })
}

#[derive(Deserialize)]
pub(super) struct GaragesQuery {
    after: Option<String>,
    limit: Option<usize>,
    /// Names of fields, with commas between them: the answer has no others.
    fields: Option<String>,
}

pub(super) async fn garages(
    State(web): SharedWeb,
    signed_in: SignedIn,
    Query(asked): Query<GaragesQuery>,
) -> HttpAnswer {
    #[derive(Serialize)]
    struct Answer {
        garages: Vec<serde_json::Value>,
        next: Option<String>,
    }
    let limit = list_limit(asked.limit)?;
    let after = cursor(asked.after.as_deref(), |name| SiteName::new(name).ok())?;
    let beside = Beside::now(&web, &signed_in).await;
    let list = move |web: &ServerWeb| {
        let (view, table) = (web.view(), web.garages_configured.table());
        let garages = GaragesNow { view: &view, table: &table, now: clock::now() };
        let mut keys = keys_after(web, &garages, after, limit + 1);
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| more).map(ToString::to_string);
        let fields: Option<Vec<&str>> = asked.fields.as_ref().map(|fields| fields.split(',').collect());
        let garage = |key| {
            let answer = garage_answer(web, &garages, key, &beside)?;
            let mut line = serde_json::to_value(answer).expect("an answer always encodes");
            if let (Some(fields), Some(line)) = (&fields, line.as_object_mut()) {
                line.retain(|name, _| fields.contains(&name.as_str()));
            }
            Ok(line)
        };
        Ok::<_, StoreError>(Answer {
            garages: keys.iter().map(garage).collect::<Result<_, StoreError>>()?,
            next,
        })
    };
    web.answer_in_turn(&web.readers, list).await
}

/// The keys of garages behind `after`, in their order, at most `at_most`. A garage that only reported its capacity has no stream yet;
/// one whose first page is not applied yet has no view; one that only the configuration knows has neither.
fn keys_after(
    web: &ServerWeb,
    garages: &GaragesNow<'_>,
    after: Option<SiteName>,
    at_most: usize,
) -> Vec<SiteName> {
    let view = garages.view;
    let behind = |after: &Option<SiteName>| after.clone().map_or(Bound::Unbounded, Bound::Excluded);
    let seen = view.garages.range::<SiteName, _>((behind(&after), Bound::Unbounded));
    let mut keys: BTreeSet<SiteName> = seen.take(at_most).map(|(key, _)| key.clone()).collect();
    keys.extend(garages.not_heard(after.as_ref()).take(at_most).cloned());
    let mut from = after;
    loop {
        let sites = web.ledger.sites_after(from.as_ref(), at_most);
        let is_the_end = sites.len() < at_most;
        from = sites.last().cloned();
        // Another name of a garage is none of its own.
        keys.extend(sites.into_iter().filter(|site| view.key_of(site) == site));
        while keys.len() > at_most {
            keys.pop_last();
        }
        let last = keys.last().filter(|_| keys.len() == at_most);
        if is_the_end || last.is_some_and(|last| from.as_ref().is_some_and(|from| last <= from)) {
            return keys.into_iter().collect();
        }
    }
}

pub(super) async fn garage(
    State(web): SharedWeb,
    signed_in: SignedIn,
    name: Result<Path<String>, PathRejection>,
) -> HttpAnswer {
    let Path(name) = name.map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, error.body_text()).code(codes::INVALID_PATH)
    })?;
    let unknown = || {
        Problem::new(StatusCode::NOT_FOUND, format!("no garage named {name:?} is known"))
            .code(codes::NO_SUCH_GARAGE)
    };
    let key = SiteName::new(&name).map_err(|_| unknown())?;
    let view = web.view();
    let key = view.key_of(&key).clone();
    // A garage that has reported something but delivered nothing yet is shown while it is remembered.
    let is_heard = web.seen(&key).heard_at_ms > 0;
    let has_delivered = || !web.ledger.streams_of(std::slice::from_ref(&key)).is_empty();
    let table = web.garages_configured.table();
    let is_known = view.garages.contains_key(&key) || table.garages.contains_key(&key);
    if !is_heard && !is_known && !has_delivered() {
        return Err(unknown());
    }
    let beside = Beside::now(&web, &signed_in).await;
    let answer = move |web: &ServerWeb| {
        let garages = GaragesNow { view: &web.view(), table: &table, now: clock::now() };
        garage_answer(web, &garages, &key, &beside)
    };
    web.answer_in_turn(&web.readers, answer).await
}
