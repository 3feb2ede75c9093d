//! `GET /metrics`: the Prometheus text format (OpenMetrics 1.0).

use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// All names begin with `prefix`.
    pub fn new(prefix: &str) -> Metrics {
        Metrics { registry: Registry::with_prefix(prefix) }
    }

    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.registry.register(name, help, counter.clone());
        counter
    }

    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.registry.register(name, help, gauge.clone());
        gauge
    }

    /// A gauge for each value of some labels.
    pub fn gauges(&mut self, name: &str, help: &str) -> LabelledGauges {
        let gauges = LabelledGauges::default();
        self.registry.register(name, help, gauges.clone());
        gauges
    }

    /// A counter for each value of some labels.
    pub fn counters(&mut self, name: &str, help: &str) -> LabelledCounters {
        let counters = LabelledCounters::default();
        self.registry.register(name, help, counters.clone());
        counters
    }

    pub fn render(&self) -> impl IntoResponse + use<> {
        let mut text = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, content_type)], text)
    }
}

/// Counters by their labels: pairs of a name and a value.
pub type LabelledCounters = Family<Vec<(&'static str, String)>, Counter>;

/// Gauges by their labels, likewise.
pub type LabelledGauges = Family<Vec<(&'static str, String)>, Gauge>;

/// Counters of a daemon's connections; see [`super::serving`].
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    pub connections_open: Gauge,
    pub connections_refused: Counter,
    pub connections_evicted: Counter,
    pub requests_timed_out: Counter,
    pub requests_invalid: Counter,
    pub answers_timed_out: Counter,
}

impl ConnectionMetrics {
    pub fn register(metrics: &mut Metrics) -> ConnectionMetrics {
        ConnectionMetrics {
            connections_open: metrics.gauge("http_connections_open", "HTTP connections that are open"),
            connections_refused: metrics.counter(
                "http_connections_refused",
                "HTTP connections refused because all others were being answered",
            ),
            connections_evicted: metrics.counter(
                "http_connections_evicted",
                "HTTP connections closed because others needed their place",
            ),
            requests_timed_out: metrics.counter(
                "http_requests_timed_out",
                "HTTP requests and handshakes of TLS that were not complete in time (408)",
            ),
            requests_invalid: metrics.counter(
                "http_requests_invalid",
                "HTTP requests that were not valid HTTP/1.1, or not TLS where TLS is needed",
            ),
            answers_timed_out: metrics
                .counter("http_answers_timed_out", "HTTP answers that their clients did not read in time"),
        }
    }
}
