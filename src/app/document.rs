//! The relay's state as one JSON document, which `vodrelay status` shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use vodrelay_core::clock::{Moment, WallTime};

use super::journal_figures::JournalFigures;
use super::supervisor::Supervisor;
use crate::config::{self, Config};
use crate::ops::health::{HealthVerdict, StageHealth};
use crate::ops::maintenance::JobState;
use crate::ops::problems::{self, LoggedProblem};
use crate::relay::Snapshot;

/// The settings of the start.
#[derive(Clone, Debug, Serialize)]
pub(super) struct About {
    /// The file that was read; `None` with the environment alone.
    config: Option<PathBuf>,
    journal: PathBuf,
    confirm_after: &'static str,
    /// amqp or stdout.
    output: &'static str,
    exchange: Option<String>,
    queue: Option<String>,
    routing_key: Option<String>,
}

impl About {
    pub(super) fn of(config: &Config, file: Option<&Path>) -> Self {
        let is_amqp = config.output.kind == config::OutputKind::Amqp;
        let amqp = |text: &String| (is_amqp && !text.is_empty()).then(|| text.clone());
        Self {
            config: config::file_read(file),
            journal: config.journal.path.clone(),
            confirm_after: match config.relay.confirm_after {
                config::ConfirmAfter::Publish => "publish",
                config::ConfirmAfter::Journal => "journal",
            },
            output: if is_amqp { "amqp" } else { "stdout" },
            exchange: amqp(&config.amqp.exchange),
            queue: amqp(&config.amqp.queue),
            routing_key: amqp(&config.amqp.routing_key.to_string()),
        }
    }
}

/// The cloud's own count of waiting events.
#[derive(Debug, Serialize)]
struct CloudBacklog {
    events: u64,
    counted: WallTime,
}

/// The relay's state, for people and for programs.
#[derive(Debug, Serialize)]
struct StatusDocument<'a> {
    version: &'static str,
    pid: u32,
    started: String,
    uptime_s: u64,
    state: &'a str,
    ready: bool,
    live: bool,
    stuck_loops: &'a [&'static str],
    stages: &'a [StageHealth],
    in_flight: InFlightCounts,
    totals: Totals,
    per_second: Rates,
    lease: LeaseFigures,
    about: &'a About,
    broker: Option<String>,
    backlog: Option<CloudBacklog>,
    journal: Option<StatusJournal>,
    clock_skew_s: Option<f64>,
    problems: Vec<LoggedProblem>,
    maintenance: Vec<JobState>,
}

#[derive(Debug, Serialize)]
struct InFlightCounts {
    events: usize,
    publishing: usize,
    handles: usize,
    polls: usize,
    confirms: usize,
}

#[derive(Debug, Serialize)]
struct Totals {
    deliveries: u64,
    redelivered: u64,
    published: u64,
    confirmed: u64,
    let_go: u64,
    parked: u64,
}

/// Over the last minute, or since the start.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rates {
    pub(super) received: f64,
    pub(super) published: f64,
    pub(super) confirmed: f64,
}

/// The distance to the end of the cloud's window.
#[derive(Debug, Serialize)]
struct LeaseFigures {
    smallest_left_s: Option<f64>,
    pull_to_confirm_p50_s: Option<f64>,
    pull_to_confirm_p99_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct StatusJournal {
    received: u64,
    published: u64,
    confirmed: u64,
    parked: u64,
    unconfirmed: u64,
    oldest_unconfirmed: Option<String>,
    oldest_unconfirmed_age_s: Option<u64>,
    oldest_unpublished: Option<String>,
    oldest_unpublished_age_s: Option<u64>,
    in_doubt: u64,
    bytes: u64,
    commit_p50_ms: f64,
    commit_p99_ms: f64,
    publish_p50_ms: f64,
    publish_p99_ms: f64,
}

impl Supervisor {
    pub(super) fn describe(
        &self,
        now: Moment,
        wall: WallTime,
        snapshot: &Snapshot,
        verdict: &HealthVerdict,
        figures: Option<JournalFigures>,
        line: &str,
    ) -> String {
        let (commit, publish) = (self.watch.commit_times(), self.watch.publish_times());
        let ms = |us: u64| us as f64 / 1_000.0;
        let load = snapshot.load;
        let age =
            |at: Option<WallTime>| at.map(|at| wall.0.saturating_sub(at.0).max(0).cast_unsigned() / 1_000);
        let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64());
        let document = StatusDocument {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: self.started.1.to_string(),
            uptime_s: now.since(self.started.0).as_secs(),
            state: line,
            ready: verdict.ready,
            live: verdict.live,
            stuck_loops: &verdict.stuck_loops,
            stages: &verdict.stages,
            in_flight: InFlightCounts {
                events: load.events,
                publishing: load.publishing,
                handles: load.handles,
                polls: load.polls,
                confirms: load.confirms,
            },
            totals: Totals {
                deliveries: snapshot.deliveries,
                redelivered: snapshot.redelivered,
                published: snapshot.published(),
                confirmed: snapshot.confirmed,
                let_go: snapshot.let_go,
                parked: snapshot.parked,
            },
            per_second: self.rates(),
            lease: LeaseFigures {
                smallest_left_s: seconds(snapshot.smallest_lease_left),
                pull_to_confirm_p50_s: seconds(snapshot.pull_to_confirm_p50),
                pull_to_confirm_p99_s: seconds(snapshot.pull_to_confirm_p99),
            },
            about: &self.about,
            broker: self.watch.broker.borrow().as_deref().map(str::to_owned),
            backlog: self.watch.waiting.total().map(|(events, counted)| CloudBacklog { events, counted }),
            journal: figures.map(|JournalFigures { summary, bytes, .. }| StatusJournal {
                received: summary.received,
                published: summary.published,
                confirmed: summary.confirmed,
                parked: summary.parked,
                unconfirmed: summary.unconfirmed,
                oldest_unconfirmed: summary.oldest_unconfirmed.map(|at| at.to_string()),
                oldest_unconfirmed_age_s: age(summary.oldest_unconfirmed),
                oldest_unpublished: summary.oldest_unpublished.map(|at| at.to_string()),
                oldest_unpublished_age_s: age(summary.oldest_unpublished),
                in_doubt: summary.in_doubt,
                bytes,
                commit_p50_ms: ms(commit.p50_us),
                commit_p99_ms: ms(commit.p99_us),
                publish_p50_ms: ms(publish.p50_us),
                publish_p99_ms: ms(publish.p99_us),
            }),
            clock_skew_s: self.watch.client.clock_skew_ms().map(|ms| ms as f64 / 1_000.0),
            problems: problems::logged(),
            maintenance: self.watch.maintenance(),
        };
        serde_json::to_string(&document).expect("figures and texts are JSON")
    }
}
