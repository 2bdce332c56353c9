//! The metrics: one list of their names and meanings, and the recorder for all of them.
//!
//! `docs/metrics.md` explains each. A test compares it with this list and the running endpoint.

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Every metric of ours, with its meaning. Those of the process itself (`process_*`) come from their library.
pub const METRICS: &[(&str, MetricKind, &str)] = &[
    ("vodrelay_events_received_total", MetricKind::Counter, "Events that were recorded as new"),
    ("vodrelay_redelivered_total", MetricKind::Counter, "Deliveries of events that the journal already had"),
    ("vodrelay_published_total", MetricKind::Counter, "Publishes by their outcome"),
    ("vodrelay_confirmed_total", MetricKind::Counter, "Handles by the end of their confirm"),
    (
        "vodrelay_parked_total",
        MetricKind::Counter,
        "Events that were given up and wait for an operator, by error code",
    ),
    ("vodrelay_api_requests_total", MetricKind::Counter, "Requests to the cloud by action and code"),
    ("vodrelay_problems_total", MetricKind::Counter, "Warnings and errors of the log by their code"),
    (
        "vodrelay_log_lines_dropped_total",
        MetricKind::Counter,
        "Lines of the log that were dropped because its reader was too slow",
    ),
    ("vodrelay_reloads_total", MetricKind::Counter, "Reloads of the configuration by their result"),
    ("vodrelay_maintenance_runs_total", MetricKind::Counter, "Runs of scheduled jobs by their result"),
    (
        "vodrelay_publish_seconds",
        MetricKind::Histogram,
        "From a batch's first frame to the broker's answers for all of it, for each message",
    ),
    (
        "vodrelay_pull_to_confirm_seconds",
        MetricKind::Histogram,
        "From a pull's answer to the answer of its confirm",
    ),
    (
        "vodrelay_lease_remaining_seconds",
        MetricKind::Histogram,
        "The rest of the cloud's window at a confirm's answer",
    ),
    (
        "vodrelay_journal_commit_seconds",
        MetricKind::Histogram,
        "Time of a transaction of the journal with its sync",
    ),
    ("vodrelay_journal_events", MetricKind::Gauge, "Events in the journal by their state"),
    ("vodrelay_journal_bytes", MetricKind::Gauge, "Size of the journal with its WAL"),
    (
        "vodrelay_oldest_unconfirmed_age_seconds",
        MetricKind::Gauge,
        "Age of the oldest event that is not confirmed; 0 when there is none",
    ),
    (
        "vodrelay_oldest_unpublished_age_seconds",
        MetricKind::Gauge,
        "Age of the oldest event that waits for the broker's ack; 0 when there is none",
    ),
    (
        "vodrelay_backlog_events",
        MetricKind::Gauge,
        "Events that wait in the cloud by sub-application; about three minutes late",
    ),
    ("vodrelay_clock_skew_seconds", MetricKind::Gauge, "The cloud's clock minus the host's"),
    ("vodrelay_in_flight_events", MetricKind::Gauge, "Events in the relay's hands"),
    ("vodrelay_in_flight_handles", MetricKind::Gauge, "Handles that can still be confirmed"),
    (
        "vodrelay_stage_state",
        MetricKind::Gauge,
        "1 for the state of the stage: ready, unproven, or not_ready",
    ),
    ("vodrelay_stage_error_code", MetricKind::Gauge, "1 for the error code of a stage that is not ready"),
    ("vodrelay_stage_last_success_age_seconds", MetricKind::Gauge, "Time since the stage did its work last"),
    ("vodrelay_maintenance_last_run_timestamp_seconds", MetricKind::Gauge, "When a scheduled job ended last"),
    (
        "vodrelay_maintenance_last_success_timestamp_seconds",
        MetricKind::Gauge,
        "When a scheduled job succeeded last",
    ),
    ("vodrelay_build_info", MetricKind::Gauge, "1, with the version as its label"),
];

/// From a fast disk to a broker that used its whole time limit.
const SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The window is 30 s, and confirms keep a margin of 3 s.
const LEASE_SECONDS: &[f64] = &[0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0, 27.5, 29.0, 29.5, 30.0];

/// The reading side of the recorder.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Begins to count, for the whole process. Call it before the first count.
    ///
    /// # Errors
    ///
    /// When the process already has a recorder.
    pub fn install() -> Result<Self, BuildError> {
        let lease = Matcher::Full("vodrelay_lease_remaining_seconds".to_owned());
        let handle = PrometheusBuilder::new()
            .set_buckets(SECONDS)?
            .set_buckets_for_metric(lease, LEASE_SECONDS)?
            .install_recorder()?;
        for (name, kind, meaning) in METRICS {
            let unit = if name.ends_with("_seconds") {
                Unit::Seconds
            } else if name.ends_with("_bytes") {
                Unit::Bytes
            } else {
                Unit::Count
            };
            match kind {
                MetricKind::Counter => metrics::describe_counter!(*name, unit, *meaning),
                MetricKind::Gauge => metrics::describe_gauge!(*name, unit, *meaning),
                MetricKind::Histogram => metrics::describe_histogram!(*name, unit, *meaning),
            }
        }
        metrics::gauge!("vodrelay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let process = Collector::default();
        process.describe();
        Ok(Self { handle, process })
    }

    /// Moves the newest values of the histograms into their buckets. Without it they would pile up between
    /// scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }
}
