//! `GET /v1/charges`, `GET /v1/anomalies`.

use super::{HttpAnswer, ServerWeb, SharedWeb};
use crate::http::{Query, cursor, list_limit};
use crate::parking::{Moment, Plate};
use crate::server::books::{Asked, known};
use crate::server::view::anomaly_list::{self, AnomalyCursor, AnomalyFilter, AnomalyList};
use crate::server::view::billing::anomalies::AnomalyCode;
use crate::server::view::charges::ChargeCursor;
use crate::server::view::written_position;
use crate::store::StoreError;
use axum::extract::State;
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

/// Drafts of charges: what stays cost by all that is known.
pub(super) async fn charges(State(web): SharedWeb, Query(asked): Query<ChargesQuery>) -> HttpAnswer {
    let limit = list_limit(asked.limit)?;
    let after = cursor(asked.after.as_deref(), ChargeCursor::parse)?;
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
    command: &'static str,
}

/// What did not add up: once for each code, garage and plate. Plates that nobody registered come last.
pub(super) async fn anomalies(State(web): SharedWeb, Query(asked): Query<AnomaliesQuery>) -> HttpAnswer {
    #[derive(Serialize, Default)]
    struct Answer {
        position: u64,
        anomalies: Vec<AnomalyLine>,
        next: Option<String>,
    }
    let limit = list_limit(asked.limit)?;
    let after = cursor(asked.after.as_deref(), AnomalyCursor::parse)?;
    let list = move |web: &ServerWeb| {
        let view = web.view();
        let wanted = || {
            Some(AnomalyFilter {
                code: known(&asked.code, AnomalyCode::parse)?,
                garage: known(&asked.garage, |name| view.number_of(name))?,
                plate: known(&asked.plate, |plate| Plate::new(plate).ok())?,
                after,
                limit,
            })
        };
        let Some(wanted) = wanted() else {
            let position = written_position(web.ledger.store())?.unwrap_or_default();
            return Ok(Answer { position, ..Answer::default() });
        };
        let (position, AnomalyList { anomalies, next }) =
            anomaly_list::list((&view, &web.ledger), Some(web.live.saving()), &wanted)?;
        let lines = anomalies.into_iter().map(|anomaly| {
            let (code, explanation, command) = anomaly.code.told();
            AnomalyLine {
                code: code.as_str(),
                garage: view.name_of_number(anomaly.garage),
                plate: anomaly.plate,
                count: anomaly.count,
                first_at: Moment::utc_text(anomaly.first_at_ms),
                last_at: Moment::utc_text(anomaly.last_at_ms),
                first_position: anomaly.first_position,
                last_position: anomaly.last_position,
                explanation,
                command,
            }
        });
        Ok::<_, StoreError>(Answer {
            position,
            anomalies: lines.collect(),
            next: next.map(|next| next.to_string()),
        })
    };
    web.answer_in_turn(&web.readers, list).await
}
