//! `GET /v1/garages/{name}/history`, `GET /v1/garages/{name}/chart.svg`, `GET /v1/curves`: how full garages were, over time, read from
//! the store as last written.

use super::{HttpAnswer, ServerWeb, SharedWeb};
use crate::codes;
use crate::daemon::clock;
use crate::http::{Problem, Query, bad_query, cursor, list_limit};
use crate::messaging::SiteName;
use crate::parking::Moment;
use crate::parking::tariff::time_zone;
use crate::server::charts::{Chart, ChartKind, small_curve};
use crate::server::view::curves::CurveUnit;
use crate::server::view::curves::read::{CurvePoint, WrittenCurve};
use crate::server::view::{GarageState, Snapshot, at_one_position};
use crate::store::StoreError;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// How far back a curve goes, until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum CurveSpan {
    #[serde(rename = "24h")]
    Hours24,
    #[serde(rename = "7d")]
    Days7,
    #[serde(rename = "1y")]
    Year,
}

impl CurveSpan {
    fn read(span: Option<&str>) -> Result<CurveSpan, Problem> {
        match span {
            None | Some("24h") => Ok(CurveSpan::Hours24),
            Some("7d") => Ok(CurveSpan::Days7),
            Some("1y") => Ok(CurveSpan::Year),
            Some(other) => Err(bad_query(format!("span: {other:?} is not 24h, 7d or 1y"))),
        }
    }

    /// The unit of its points, its name, and how many points there are.
    fn points(self) -> (CurveUnit, &'static str, usize) {
        match self {
            CurveSpan::Hours24 => (CurveUnit::Minute, "minute", 24 * 60),
            CurveSpan::Days7 => (CurveUnit::Hour, "hour", 7 * 24),
            CurveSpan::Year => (CurveUnit::Day, "day", 365),
        }
    }

    /// From when to when its points are, if it is this time now: the last one is not over.
    fn range(self, now_ms: i64) -> (i64, i64) {
        let (unit, _, count) = self.points();
        let to_ms = (now_ms.div_euclid(unit.ms()) + 1) * unit.ms();
        (to_ms - count as i64 * unit.ms(), to_ms)
    }

    fn kind(self) -> ChartKind {
        match self {
            CurveSpan::Hours24 => ChartKind::Hours24,
            CurveSpan::Days7 => ChartKind::Days7,
            CurveSpan::Year => ChartKind::Year,
        }
    }

    /// How many points become one of a small curve, so that there are about 80, and which value of the last of them it has.
    fn of_small_curve(self) -> (usize, fn(&CurvePoint) -> i64) {
        match self {
            CurveSpan::Hours24 => (18, |point| point.occupied),
            CurveSpan::Days7 => (2, |point| point.occupied),
            CurveSpan::Year => (5, |point| point.max),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct CurveQuery {
    span: Option<String>,
    tz: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The points of a garage; none where nothing of it is in the written views.
fn points(
    web: &ServerWeb,
    view: &Snapshot,
    (key, garage): (&SiteName, &GarageState),
    (span, now_ms): (CurveSpan, i64),
) -> Result<Vec<Option<CurvePoint>>, StoreError> {
    let (unit, _, count) = span.points();
    let curve = WrittenCurve::read(web.ledger.store(), garage.stays.number, unit)?;
    let heard_ms = emptied_at(web, view, key);
    Ok(curve.map_or_else(|| vec![None; count], |curve| curve.points(now_ms, count, heard_ms)))
}

/// When the edge of a garage was heard last, if nothing waited there: so nothing happened since the last event that is known.
fn emptied_at(web: &ServerWeb, view: &Snapshot, key: &SiteName) -> Option<i64> {
    let seen =
        view.sites_of(key).into_iter().map(|site| web.seen(&site)).max_by_key(|seen| seen.heard_at_ms)?;
    seen.observation.is_some_and(|observed| observed.backlog == 0).then_some(seen.heard_at_ms)
}

/// The key of the garage that a path names.
fn garage_key(view: &Snapshot, name: Result<Path<String>, PathRejection>) -> Result<SiteName, Problem> {
    let bad = |error: PathRejection| {
        Problem::new(StatusCode::BAD_REQUEST, error.body_text()).code(codes::INVALID_PATH)
    };
    let Path(name) = name.map_err(bad)?;
    let key = SiteName::new(&name).ok().map(|site| view.key_of(&site).clone());
    key.filter(|key| view.garages.contains_key(key)).ok_or_else(|| {
        let text = format!("no garage named {name:?} has delivered events");
        Problem::new(StatusCode::NOT_FOUND, text).code(codes::NO_SUCH_GARAGE)
    })
}

#[derive(Serialize)]
struct PointLine {
    at: String,
    occupied: i64,
    min: i64,
    max: i64,
}

pub(super) async fn history(
    State(web): SharedWeb,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<CurveQuery>,
) -> HttpAnswer {
    #[derive(Serialize)]
    struct Answer {
        garage: String,
        span: CurveSpan,
        unit: &'static str,
        capacity: Option<u32>,
        from: String,
        to: String,
        /// Those that are known.
        points: Vec<PointLine>,
    }
    let span = CurveSpan::read(query.span.as_deref())?;
    let key = garage_key(&web.view(), name)?;
    let read = move |web: &ServerWeb| {
        let (view, now_ms) = (web.view(), clock::wall_ms());
        let Some(garage) = view.garages.get(&key) else { return Ok(None) };
        let read = || points(web, &view, (&key, garage), (span, now_ms));
        let (_, points) = at_one_position(web.ledger.store(), Some(web.live.saving()), read)?;
        let (from_ms, to_ms) = span.range(now_ms);
        let line = |CurvePoint { at_ms, occupied, min, max }| PointLine {
            at: Moment::utc_text(at_ms),
            occupied,
            min,
            max,
        };
        Ok::<_, StoreError>(Some(Answer {
            garage: view.name_of(&key).to_string(),
            span,
            unit: span.points().1,
            capacity: garage.known_capacity(),
            from: Moment::utc_text(from_ms),
            to: Moment::utc_text(to_ms),
            points: points.into_iter().flatten().map(line).collect(),
        }))
    };
    web.answer_in_turn(&web.readers, read).await
}

pub(super) async fn chart(
    State(web): SharedWeb,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<CurveQuery>,
) -> HttpAnswer {
    let span = CurveSpan::read(query.span.as_deref())?;
    let zone_name = query.tz.unwrap_or_else(|| "UTC".to_owned());
    let unknown = || bad_query(format!("tz: {zone_name:?} is not a time zone, as in Europe/Berlin"));
    let zone = time_zone(&zone_name).ok_or_else(unknown)?;
    let key = garage_key(&web.view(), name)?;
    let draw = move |web: &ServerWeb| {
        let (view, now_ms) = (web.view(), clock::wall_ms());
        let Some(garage) = view.garages.get(&key) else { return Ok(String::new()) };
        let read = || points(web, &view, (&key, garage), (span, now_ms));
        let (_, points) = at_one_position(web.ledger.store(), Some(web.live.saving()), read)?;
        let (from_ms, to_ms) = span.range(now_ms);
        let chart = Chart {
            garage: view.name_of(&key).as_str(),
            kind: span.kind(),
            capacity: garage.known_capacity(),
            from_ms,
            to_ms,
            points: &points,
            zone: &zone,
            zone_name: &zone_name,
        };
        Ok::<_, StoreError>(chart.svg())
    };
    let svg = web.in_turn(&web.readers, draw).await?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}

#[derive(Serialize)]
struct CurveLine {
    name: String,
    /// Path data for a `viewBox` of `0 0 160 40`, from 0 to the greater of `peak` and `capacity`.
    path: String,
    peak: Option<i64>,
    capacity: Option<u32>,
}

/// The curves of all garages that boards show.
pub(super) async fn curves(State(web): SharedWeb, Query(query): Query<CurveQuery>) -> HttpAnswer {
    #[derive(Serialize)]
    struct Answer {
        from: String,
        to: String,
        garages: Vec<CurveLine>,
        next: Option<String>,
    }
    let span = CurveSpan::read(query.span.as_deref())?;
    let limit = list_limit(query.limit)?;
    let after = cursor(query.after.as_deref(), |name| SiteName::new(name).ok())?;
    let read = move |web: &ServerWeb| {
        let (view, now_ms) = (web.view(), clock::wall_ms());
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = view.garages.range::<SiteName, _>((from, Bound::Unbounded));
        let mut shown: Vec<_> = behind.filter(|(_, its)| its.is_shown()).take(limit + 1).collect();
        let has_more = shown.len() > limit;
        shown.truncate(limit);
        let next = shown.last().filter(|_| has_more).map(|(key, _)| key.to_string());
        let line = |garage: &(&SiteName, &GarageState)| {
            let (name, capacity) = (view.name_of(garage.0), garage.1.known_capacity());
            let points = points(web, &view, *garage, (span, now_ms))?;
            Ok(curve_line(name, capacity, span, &points))
        };
        let read = || shown.iter().map(line).collect::<Result<_, StoreError>>();
        let (_, garages) = at_one_position(web.ledger.store(), Some(web.live.saving()), read)?;
        let (from_ms, to_ms) = span.range(now_ms);
        let (from, to) = (Moment::utc_text(from_ms), Moment::utc_text(to_ms));
        Ok::<_, StoreError>(Answer { from, to, garages, next })
    };
    web.answer_in_turn(&web.readers, read).await
}

fn curve_line(
    name: &SiteName,
    capacity: Option<u32>,
    span: CurveSpan,
    points: &[Option<CurvePoint>],
) -> CurveLine {
    let (together, of) = span.of_small_curve();
    let value = |points: &[Option<CurvePoint>]| points.iter().rev().flatten().next().map(of);
    let values: Vec<_> = points.rchunks(together).rev().map(value).collect();
    let peak = points.iter().flatten().map(|point| point.max).max();
    let top = peak.unwrap_or_default().max(capacity.unwrap_or_default().into());
    CurveLine { name: name.to_string(), path: small_curve(&values, top), peak, capacity }
}
