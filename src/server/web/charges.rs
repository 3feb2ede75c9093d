//! `GET /v1/charges`, `GET /v1/anomalies`.

use super::{Shared, time};
use crate::http::{self, Paging, Problem, bad_cursor, query};
use crate::messaging::SiteName;
use crate::parking::Plate;
use crate::parking::statement::Month;
use crate::server::reckoning::{ChargeLine, Reckoner};
use crate::server::view::billing::anomalies::{self, Code, Noted};
use crate::server::view::billing::entries::{Entry, Terms, What};
use crate::server::view::billing::list::{self, List, Wanted};
use crate::server::view::list::keys;
use crate::server::view::written_position;
use crate::store::StoreError;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub(super) struct ChargesQuery {
    plate: Option<String>,
    garage: Option<String>,
    account: Option<String>,
    month: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// Charges, stays that wait for a price or are held, voids and credits; newest first.
pub(super) async fn charges(
    State(web): Shared,
    asked: Result<Query<ChargesQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize, Default)]
    struct Answer {
        /// The views' position: later events are not shown yet.
        position: u64,
        charges: Vec<ChargeLine>,
        next: Option<String>,
    }
    let asked = query(asked)?;
    let limit = Paging { after: None, limit: asked.limit }.limit()?;
    let after = match &asked.after {
        Some(text) => Some(text.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| bad_cursor(text))?),
        None => None,
    };
    let answer = http::blocking(move || {
        let position = written_position(&web.store)?.unwrap_or_default();
        // What nobody has, nobody finds.
        let nothing = || Ok(Answer { position, ..Answer::default() });
        let mut wanted = Wanted { after, limit, ..Wanted::default() };
        if let Some(plate) = &asked.plate {
            let Ok(plate) = Plate::new(plate) else { return nothing() };
            wanted.plate = Some(plate);
        }
        if let Some(month) = &asked.month {
            let Ok(month) = month.parse::<Month>() else { return nothing() };
            wanted.month = Some(month);
        }
        {
            let view = web.view();
            if let Some(garage) = &asked.garage {
                let site = SiteName::new(garage).ok();
                let garage = site.and_then(|site| view.garages.get(view.key_of(&site)));
                let Some(garage) = garage else { return nothing() };
                wanted.garage = Some(garage.stays.number);
            }
            if let Some(account) = &asked.account {
                let Some(account) = view.billing.account(account) else { return nothing() };
                wanted.account = Some(account);
            }
        }
        let List { position, entries, next } = list::list(&web.store, &wanted)?;
        let view = web.view();
        let reckoner = Reckoner::new(&view, &web.ledger);
        let shown = entries.iter().filter(|listed| is_shown(&listed.entry));
        let charges = shown.map(|listed| reckoner.line(listed)).collect::<Result<_, StoreError>>()?;
        Ok::<_, StoreError>(Answer { position, charges, next: next.map(|next| next.to_string()) })
    })
    .await?;
    Ok(Json(answer))
}

/// What was only a step on the way to something that is shown is not.
fn is_shown(entry: &Entry) -> bool {
    match &entry.what {
        What::Stay(stay) => entry.settled_by == 0 || !matches!(stay.terms, Terms::Pending | Terms::Held(_)),
        What::Void { money, .. } => money.is_some(),
        What::Credit { .. } => true,
    }
}

#[derive(Deserialize)]
pub(super) struct AnomaliesQuery {
    code: Option<String>,
    garage: Option<String>,
    plate: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct AnomalyLine {
    code: &'static str,
    garage: String,
    plate: Option<String>,
    count: u64,
    first_at: String,
    last_at: String,
    first_position: u64,
    last_position: u64,
    explanation: &'static str,
}

/// What did not add up: once for each code, garage and plate. Plates that nobody registered come last.
pub(super) async fn anomalies(
    State(web): Shared,
    asked: Result<Query<AnomaliesQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize, Default)]
    struct Answer {
        position: u64,
        anomalies: Vec<AnomalyLine>,
        next: Option<String>,
    }
    let asked = query(asked)?;
    let limit = Paging { after: None, limit: asked.limit }.limit()?;
    let after = match &asked.after {
        Some(text) => Some(anomalies::Cursor::parse(text).ok_or_else(|| bad_cursor(text))?),
        None => None,
    };
    let answer = http::blocking(move || {
        let position = written_position(&web.store)?.unwrap_or_default();
        let nothing = || Ok(Answer { position, ..Answer::default() });
        let code = match &asked.code {
            Some(code) => match Code::parse(code) {
                Some(code) => Some(code),
                None => return nothing(),
            },
            None => None,
        };
        let plate = match &asked.plate {
            Some(plate) => match Plate::new(plate) {
                Ok(plate) => Some(plate),
                Err(_) => return nothing(),
            },
            None => None,
        };
        let (garage, unregistered) = {
            let view = web.view();
            let garage = asked.garage.as_ref().map(|name| {
                let site = SiteName::new(name).ok()?;
                Some(view.garages.get(view.key_of(&site))?.stays.number)
            });
            (garage, view.billing.account(crate::server::view::billing::UNREGISTERED))
        };
        if garage == Some(None) {
            return nothing();
        }
        let garage = garage.flatten();
        let wanted = |noted: &Noted| {
            code.is_none_or(|code| code == noted.code)
                && garage.is_none_or(|garage| garage == noted.garage)
                && plate.as_ref().is_none_or(|plate| noted.plate.as_deref() == Some(plate.as_str()))
        };
        let (found, next) = anomalies::list(&web.store, unregistered, after, limit, wanted)?;
        let view = web.view();
        let names = keys(&view.garages);
        let lines = found.into_iter().map(|Noted { code, garage, plate, anomaly }| AnomalyLine {
            code: code.as_str(),
            garage: names.get(&garage).map(|key| view.name_of(key).to_string()).unwrap_or_default(),
            plate,
            count: anomaly.count,
            first_at: time(anomaly.first_at_ms),
            last_at: time(anomaly.last_at_ms),
            first_position: anomaly.first_position,
            last_position: anomaly.last_position,
            explanation: code.explanation(),
        });
        Ok::<_, StoreError>(Answer {
            position,
            anomalies: lines.collect(),
            next: next.map(|next| next.to_string()),
        })
    })
    .await?;
    Ok(Json(answer))
}
