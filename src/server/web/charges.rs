//! `GET /v1/charges`, `GET /v1/anomalies`.

use super::{ServerWeb, SharedWeb, parse_cursor, time};
use crate::http::{Paging, Problem, query};
use crate::parking::Plate;
use crate::server::books::Asked;
use crate::server::view::billing::anomalies::{self, AnomalyCode, AnomalyFilter, NotedAnomaly};
use crate::server::view::written_position;
use crate::store::StoreError;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
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
    State(web): SharedWeb,
    asked: Result<Query<ChargesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let asked = query(asked)?;
    let limit = Paging { after: None, limit: asked.limit }.limit()?;
    let after = parse_cursor(asked.after.as_deref(), |text| text.parse().ok().filter(|n: &u64| *n > 0))?;
    let ChargesQuery { plate, garage, account, month, .. } = asked;
    let asked = Asked { plate, garage, account, month, after, limit };
    web.answer_in_turn(&web.readers, move |web| web.books().charges(&asked)).await
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
    /// The command that resolves it.
    command: &'static str,
}

/// What did not add up: once for each code, garage and plate. Plates that nobody registered come last.
pub(super) async fn anomalies(
    State(web): SharedWeb,
    asked: Result<Query<AnomaliesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    #[derive(Serialize, Default)]
    struct Answer {
        position: u64,
        anomalies: Vec<AnomalyLine>,
        next: Option<String>,
    }
    let asked = query(asked)?;
    let limit = Paging { after: None, limit: asked.limit }.limit()?;
    let after = parse_cursor(asked.after.as_deref(), anomalies::AnomalyCursor::parse)?;
    let list = move |web: &ServerWeb| {
        let position = written_position(&web.store)?.unwrap_or_default();
        let nothing = || Ok(Answer { position, ..Answer::default() });
        let code = match &asked.code {
            Some(code) => match AnomalyCode::parse(code) {
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
            let garage = asked.garage.as_ref().map(|name| view.number_of(name));
            (garage, view.billing.account(crate::server::view::billing::UNREGISTERED))
        };
        if garage == Some(None) {
            return nothing();
        }
        let garage = garage.flatten();
        let wanted = AnomalyFilter { code, garage, plate, after, limit };
        let anomalies::AnomalyList { position, anomalies, next } =
            anomalies::list(&web.store, Some(web.signal.saving()), unregistered, &wanted)?;
        let view = web.view();
        let lines = anomalies.into_iter().map(|NotedAnomaly { code, garage, plate, anomaly }| AnomalyLine {
            code: code.as_str(),
            garage: view.name_of_number(garage),
            plate,
            count: anomaly.count,
            first_at: time(anomaly.first_at_ms),
            last_at: time(anomaly.last_at_ms),
            first_position: anomaly.first_position,
            last_position: anomaly.last_position,
            explanation: code.explanation(),
            command: code.command(),
        });
        Ok::<_, StoreError>(Answer {
            position,
            anomalies: lines.collect(),
            next: next.map(|next| next.to_string()),
        })
    };
    web.answer_in_turn(&web.readers, list).await
}
