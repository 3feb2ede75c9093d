//! `--simulate`: simulated cars, to try an edge out without a camera.

use super::EdgeShared;
use crate::codes;
use crate::config::CarsPerHour;
use crate::daemon::clock;
use crate::messaging::page::Message;
use crate::parking::Event;
use crate::parking::occupancy::CountEffect;
use crate::traffic::steady::{SteadyGarage, cars};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a car waits at the barrier when the outbox refuses events.
const AT_THE_BARRIER: Duration = Duration::from_secs(1);

/// Appends the events of cars as they come, until `stop`. They are treated like every other event.
pub async fn simulate_until_stopped(
    shared: Arc<EdgeShared>,
    cars_per_hour: CarsPerHour,
    stop: CancellationToken,
) {
    tracing::warn!(
        code = %codes::SIMULATED_CARS,
        hint = "do not use --simulate in a garage that is billed",
        "this edge simulates cars (--simulate): its events are not real"
    );
    tokio::select! {
        () = stop.cancelled() => {}
        () = simulate(&shared, cars_per_hour) => {
            tracing::info!("the simulation has ended: no more cars come");
            stop.cancelled().await; // that is no reason to end
        }
    }
}

async fn simulate(shared: &EdgeShared, cars_per_hour: CarsPerHour) {
    let occupied = shared.display().own_occupied().unwrap_or(0).max(0);
    let garage = SteadyGarage {
        name: shared.config.garage_name.as_str(),
        capacity: shared.config.capacity,
        cars_per_hour,
        seed: rand::random(),
        occupied,
    };
    let began = Instant::now();
    for car in cars(&garage) {
        sleep_until(began + Duration::from_millis(car.unix_ms.unsigned_abs())).await;
        let event =
            json!({ "kind": car.direction.kind(), "plate": car.plate.as_deref(), "lane": "simulated" })
                .to_string();
        let now = clock::now();
        let event = Event::from_json(event.as_bytes(), now).expect("simulated cars are events");
        loop {
            match shared.outbox.append(vec![Message::of(event.to_bytes())], clock::read()).await {
                Ok(appended) => {
                    let effect = CountEffect::of(&event);
                    shared.display().appended(appended.epoch, appended.last.get(), 1, effect);
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, "a simulated event was refused, and is tried again");
                    sleep(AT_THE_BARRIER).await;
                }
            }
        }
    }
}
