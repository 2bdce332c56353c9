//! Examines the running relay once a second: judges its health, hands the result to all endpoints, and
//! decides when it has to end.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::Problem;
use vodrelay_core::stages::Stages;

use super::document::{About, Rates};
use super::journal_figures::JournalFigures;
use super::{DAY_MS, Watch};
use crate::clock::Now as _;
use crate::config::Config;
use crate::latency::spoken;
use crate::ops::health::{self, Facts, Health, HealthVerdict, LOOP_LIMIT, Turn};
use crate::ops::metrics::Metrics;
use crate::ops::problems;
use crate::relay::Snapshot;

/// The interval of the examination.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The number of examinations over which rates are computed.
const RATE_LOOKS: usize = 60;

/// The result of an examination.
#[derive(Debug)]
pub struct Look {
    /// The relay's state in one line.
    pub line: String,
    /// Whether every loop makes progress. Only then the service manager's watchdog is fed.
    pub live: bool,
    /// Why the process has to end.
    pub stuck: Option<Problem>,
}

/// The counts at one look, for rates.
#[derive(Clone, Copy)]
struct CountSample {
    at: Moment,
    received: u64,
    published: u64,
    confirmed: u64,
}

/// Examines the running relay.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) watch: Watch,
    pub(super) about: About,
    health: Health,
    metrics: Option<Metrics>,
    pub(super) started: (Moment, WallTime),
    verdict: watch::Sender<Arc<HealthVerdict>>,
    document: watch::Sender<String>,
    counts: VecDeque<CountSample>,
    told_ready: bool,
    /// The day, and the number of received events at its start.
    today: (i64, u64),
}

impl std::fmt::Debug for CountSample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountSample").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Begins with a relay of this configuration, which came from this file.
    pub fn new(watch: Watch, config: &Config, file: Option<&Path>, metrics: Option<Metrics>) -> Self {
        let (now, wall) = (Moment::now(), WallTime::now());
        let health = Health::new(config.health.ready_limit, config.health.exit_after, now, wall);
        let verdict = HealthVerdict {
            ready: false,
            unproven: Vec::new(),
            live: true,
            stuck_loops: Vec::new(),
            stages: Vec::new(),
        };
        let mut new = Self {
            watch,
            about: About::of(config, file),
            health,
            metrics,
            started: (now, wall),
            verdict: watch::Sender::new(Arc::new(verdict)),
            document: watch::Sender::new(String::new()),
            counts: VecDeque::new(),
            told_ready: false,
            today: (wall.0 / DAY_MS, 0),
        };
        new.look(false);
        new
    }

    /// The newest judgement.
    pub fn verdict(&self) -> watch::Receiver<Arc<HealthVerdict>> {
        self.verdict.subscribe()
    }

    /// The newest state, as JSON.
    pub fn document(&self) -> watch::Receiver<String> {
        self.document.subscribe()
    }

    /// Looks once. While the process stops, the end of a stage is not reported.
    pub fn look(&mut self, stopping: bool) -> Look {
        let (now, wall) = (Moment::now(), WallTime::now());
        let snapshot = self.watch.snapshot();
        let facts = self.watch.facts(now, &snapshot);
        let (verdict, turns) = self.health.look(now, wall, &facts);
        for turn in turns.into_iter().filter(|_| !stopping) {
            match turn {
                Turn::Ready(stage, away) => info!(stage, "stage is ready again after {}", spoken(away)),
                Turn::NotReady(stage, problem) => {
                    warn!(error_code = %problem.error_code, stage, error = %problem.message, "stage is not ready");
                }
            }
        }
        if verdict.ready && verdict.unproven.is_empty() && !self.told_ready {
            self.told_ready = true;
            info!("every stage is ready");
        }
        for stuck in &verdict.stuck_loops {
            if !self.verdict.borrow().stuck_loops.contains(stuck) {
                let limit_s = LOOP_LIMIT.as_secs();
                tracing::error!(error_code = %ErrorCode::LoopStuck, name = stuck, limit_s, "a loop makes no progress");
            }
        }
        problems::lasting(wall, &present(&verdict, &facts));
        let figures = self.watch.figures.borrow().clone();
        let published = snapshot.published();
        let received = snapshot.received();
        self.count(CountSample { at: now, received, published, confirmed: snapshot.confirmed });
        let line = self.line(now, wall, &snapshot, received, figures.as_ref());
        self.measure(now, &snapshot, &verdict, figures.as_ref());
        let document = self.describe(now, wall, &snapshot, &verdict, figures, &line);
        self.document.send_replace(document);
        let live = verdict.live;
        self.verdict.send_replace(Arc::new(verdict));
        Look { line, live, stuck: self.health.stuck(now, &facts) }
    }

    fn count(&mut self, counts: CountSample) {
        if self.counts.len() > RATE_LOOKS {
            self.counts.pop_front();
        }
        self.counts.push_back(counts);
    }

    pub(super) fn rates(&self) -> Rates {
        let (Some(first), Some(last)) = (self.counts.front(), self.counts.back()) else {
            return Rates::default();
        };
        let seconds = last.at.since(first.at).as_secs_f64();
        let rate = |first: u64, last: u64| {
            if seconds > 0.0 { last.saturating_sub(first) as f64 / seconds } else { 0.0 }
        };
        Rates {
            received: rate(first.received, last.received),
            published: rate(first.published, last.published),
            confirmed: rate(first.confirmed, last.confirmed),
        }
    }

    /// The state in one line: the problem or the work, today's figures, and the time of the cloud's last
    /// answer.
    fn line(
        &mut self,
        now: Moment,
        wall: WallTime,
        snapshot: &Snapshot,
        received: u64,
        figures: Option<&JournalFigures>,
    ) -> String {
        let day = wall.0 / DAY_MS;
        if day != self.today.0 {
            self.today = (day, received);
        }
        let before =
            figures.filter(|_| self.started.1.0 / DAY_MS == day).map_or(0, |f| f.received_before_today);
        let today = received - self.today.1 + before;
        let pulled = snapshot.stages.pull.last_success.map(|at| now.since(at).as_secs());
        let pulled = pulled.map_or("no pull yet".to_owned(), |s| format!("last pull {s} s ago"));
        format!("{}; {} events today; {pulled}", self.watch.state(snapshot), thousands(today))
    }

    fn measure(
        &self,
        now: Moment,
        snapshot: &Snapshot,
        verdict: &HealthVerdict,
        figures: Option<&JournalFigures>,
    ) {
        let Some(recorder) = &self.metrics else { return };
        metrics::gauge!("vodrelay_in_flight_events").set(snapshot.load.events as f64);
        metrics::gauge!("vodrelay_in_flight_handles").set(snapshot.load.handles as f64);
        if let Some(ms) = self.watch.client.clock_skew_ms() {
            metrics::gauge!("vodrelay_clock_skew_seconds").set(ms as f64 / 1_000.0);
        }
        let before = Arc::clone(&self.verdict.borrow());
        for stage in &verdict.stages {
            for state in health::STATES {
                let is_so = f64::from(u8::from(stage.state == state));
                metrics::gauge!("vodrelay_stage_state", "stage" => stage.stage, "state" => state).set(is_so);
            }
            let age = stage.age_s.unwrap_or_else(|| now.since(self.started.0).as_secs());
            metrics::gauge!("vodrelay_stage_last_success_age_seconds", "stage" => stage.stage)
                .set(age as f64);
            let was =
                before.stages.iter().find(|was| was.stage == stage.stage).and_then(|was| was.error_code);
            if let Some(was) = was.filter(|was| Some(*was) != stage.error_code) {
                metrics::gauge!("vodrelay_stage_error_code", "stage" => stage.stage, "error_code" => was.as_str()).set(0.0);
            }
            if let Some(code) = stage.error_code {
                metrics::gauge!("vodrelay_stage_error_code", "stage" => stage.stage, "error_code" => code.as_str()).set(1.0);
            }
        }
        if let Some(JournalFigures { summary, bytes, .. }) = figures {
            let states = [
                ("received", summary.received),
                ("published", summary.published),
                ("confirmed", summary.confirmed),
                ("parked", summary.parked),
            ];
            for (state, events) in states {
                metrics::gauge!("vodrelay_journal_events", "state" => state).set(events as f64);
            }
            metrics::gauge!("vodrelay_journal_bytes").set(*bytes as f64);
            let oldest =
                summary.oldest_unconfirmed.map_or(0, |at| WallTime::now().0.saturating_sub(at.0).max(0));
            metrics::gauge!("vodrelay_oldest_unconfirmed_age_seconds").set(oldest as f64 / 1_000.0);
            let oldest =
                summary.oldest_unpublished.map_or(0, |at| WallTime::now().0.saturating_sub(at.0).max(0));
            metrics::gauge!("vodrelay_oldest_unpublished_age_seconds").set(oldest as f64 / 1_000.0);
        }
        recorder.upkeep();
    }
}

impl Watch {
    fn facts(&self, now: Moment, snapshot: &Snapshot) -> Facts {
        let limit = LOOP_LIMIT.as_millis();
        let stuck = |silent: Option<u64>| silent.is_some_and(|ms| u128::from(ms) > limit);
        Facts {
            stages: snapshot.stages.clone(),
            paused: snapshot.load.paused,
            unroutable: snapshot.load.unroutable_since.is_some(),
            moved_at: snapshot.moved_at,
            output: self.output.borrow().clone(),
            journal: self.journal.borrow().clone(),
            stuck_loops: self
                .heartbeats
                .iter()
                .filter(|heartbeat| stuck(heartbeat.silent_ms(now)))
                .map(|p| p.name())
                .collect(),
        }
    }
}

/// The problems that last now.
fn present(verdict: &HealthVerdict, facts: &Facts) -> Vec<ErrorCode> {
    let Stages { pull, journal, publish, confirm } = &facts.stages;
    let failing = [pull, journal, publish, confirm].into_iter().filter_map(|stage| stage.problem.as_ref());
    let mut present: Vec<ErrorCode> = failing.map(|(problem, _)| problem.error_code).collect();
    present.extend(verdict.stages.iter().filter_map(|stage| stage.error_code));
    if !verdict.stuck_loops.is_empty() {
        present.push(ErrorCode::LoopStuck);
    }
    present
}

/// A number for people: 1,204.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1_204, "1,204"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(number), text);
        }
    }
}
