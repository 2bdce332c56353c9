//! Whether the relay does its work, judged by what the stages did.
//!
//! A stage is ready when it did its work recently, or has none and has proved that it can. It is not ready
//! when work waits and does not move, or when its part reports why it cannot work. Everything here is values
//! in, values out. Only `since` is remembered.

use std::time::Duration;

use serde::Serialize;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{JournalState, OutputState, Problem};
use vodrelay_core::stages::{StageStatus, Stages};

/// A working loop without a step for this long is stuck. The longest normal pause: a round of connections to
/// brokers that do not answer, or a poll that the cloud holds.
pub const LOOP_LIMIT: Duration = Duration::from_secs(20);

/// A stage did its work in this run, or proved that it can, and does not fail.
pub const READY: &str = "ready";
/// It does not fail, and nothing has proved yet that it can work.
pub const UNPROVEN: &str = "unproven";
/// It fails.
pub const NOT_READY: &str = "not_ready";
/// The states of a stage.
pub const STATES: [&str; 3] = [READY, UNPROVEN, NOT_READY];

/// The message of the publish stage while nothing is routable.
const UNROUTABLE: &str = "RabbitMQ returns every publish and acks none: check the bindings of the exchange; each sub-application is polled only once in 30 s";

/// The facts for the judgement.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The work of the stages.
    pub stages: Stages,
    /// Whether pulling rests on purpose.
    pub paused: bool,
    /// Whether no publish is routable.
    pub unroutable: bool,
    /// The time of the last step of an event.
    pub moved_at: Option<Moment>,
    /// The output's state.
    pub output: OutputState,
    /// The journal's state.
    pub journal: JournalState,
    /// Working loops without a step for longer than [`LOOP_LIMIT`].
    pub stuck_loops: Vec<&'static str>,
}

/// The state of one stage, as the health page and `status` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageHealth {
    /// pull, journal, publish or confirm.
    pub stage: &'static str,
    /// Whether it did its work in this run, and does not fail.
    pub ready: bool,
    /// Whether the state is [`READY`]. Whether the state is [`UNPROVEN`]: it does not fail, and nothing has
    /// proved yet that it can work. [`NOT_READY`]: it fails.
    pub state: &'static str,
    /// Why it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
    /// The message for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The time from which it has this state.
    pub since: WallTime,
    /// The time of its last work.
    pub last_success: Option<WallTime>,
    /// The seconds since then.
    pub age_s: Option<u64>,
    /// How long work may wait without progress, in seconds.
    pub limit_s: u64,
}

/// The state of all stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthVerdict {
    /// Whether no stage fails.
    pub ready: bool,
    /// The stages that do not fail and have not done their work in this run: nothing has proved that they
    /// can.
    pub unproven: Vec<&'static str>,
    /// Whether every loop makes progress.
    pub live: bool,
    /// The loops that do not.
    pub stuck_loops: Vec<&'static str>,
    /// The stages, in the order of an event's way.
    pub stages: Vec<StageHealth>,
}

/// The changes since the last judgement, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A stage is no longer ready, or has another error code.
    NotReady(&'static str, Problem),
    /// A stage is ready again, after this time.
    Ready(&'static str, Duration),
}

/// Judges, and remembers since when.
#[derive(Debug)]
pub struct Health {
    limit: Duration,
    exit_after: Duration,
    started: Moment,
    /// For each stage: why it is not ready, and since when.
    before: [(Option<ErrorCode>, WallTime); 4],
    /// Since when each stage is not ready, whatever the reasons.
    away_since: [Option<Moment>; 4],
    /// Whether each stage was ready once: an unproven stage after a start is not reported.
    proven: [bool; 4],
}

impl Health {
    /// Work may wait for `limit` without progress before a stage is not ready, and for `exit_after` before
    /// the process has to end. Zero means never.
    pub fn new(limit: Duration, exit_after: Duration, now: Moment, wall: WallTime) -> Self {
        Self {
            limit,
            exit_after,
            started: now,
            before: [(Some(ErrorCode::NoPull), wall); 4],
            away_since: [None; 4],
            proven: [false; 4],
        }
    }

    /// The state now, and the changes since the last judgement.
    pub fn look(&mut self, now: Moment, wall: WallTime, facts: &Facts) -> (HealthVerdict, Vec<Turn>) {
        let Stages { pull, journal, publish, confirm } = &facts.stages;
        let judged = [
            ("pull", pull, self.pull(now, facts)),
            ("journal", journal, Self::journal(facts)),
            ("publish", publish, self.publish(now, facts)),
            ("confirm", confirm, self.confirm(now, confirm)),
        ];
        let mut turns = Vec::new();
        let mut stages = Vec::new();
        for (index, (name, stage, problem)) in judged.into_iter().enumerate() {
            let error_code = problem.as_ref().map(|problem| problem.error_code);
            let (before, since) = &mut self.before[index];
            let away_since = match error_code {
                Some(_) => *self.away_since[index].get_or_insert(now),
                None => self.away_since[index].take().unwrap_or(now),
            };
            if *before != error_code {
                (*before, *since) = (error_code, wall);
                match &problem {
                    None if self.proven[index] => {
                        turns.push(Turn::Ready(name, now.since(away_since)));
                    }
                    Some(problem) if self.proven[index] => turns.push(Turn::NotReady(name, problem.clone())),
                    _ => {}
                }
            }
            // A pull is never dropped: before its first answer there is no news of it.
            self.proven[index] |= error_code.is_none() && (name != "pull" || stage.last_success.is_some());
            let age = stage.last_success.map(|at| now.since(at));
            let state = match (error_code, age) {
                (Some(_), _) => NOT_READY,
                (None, None) => UNPROVEN,
                (None, Some(_)) => READY,
            };
            stages.push(StageHealth {
                stage: name,
                ready: state == READY,
                state,
                error_code,
                message: problem.map(|problem| problem.message.to_string()),
                since: *since,
                last_success: age.map(|age| wall - age),
                age_s: age.map(|age| age.as_secs()),
                limit_s: self.limit.as_secs(),
            });
        }
        let ready = stages.iter().all(|stage| stage.state != NOT_READY);
        let unproven =
            stages.iter().filter(|stage| stage.state == UNPROVEN).map(|stage| stage.stage).collect();
        let stuck_loops = facts.stuck_loops.clone();
        (HealthVerdict { ready, unproven, live: stuck_loops.is_empty(), stuck_loops, stages }, turns)
    }

    /// Why the process has to end: work has waited for an answer for too long and no event has made a step,
    /// although the broker and the journal are there. The relay waits for a part that is away: another start
    /// would not bring it back.
    pub fn stuck(&self, now: Moment, facts: &Facts) -> Option<Problem> {
        // Nor would a start restore a binding.
        let there = facts.output == OutputState::Up && facts.journal == JournalState::Up && !facts.unroutable;
        // A negative answer is an answer: a start empties no full queue and grants no right, and would begin
        // the attempts again.
        let waiting = [&facts.stages.publish, &facts.stages.confirm]
            .into_iter()
            .filter_map(|stage| stage.unanswered_since)
            .min()?;
        let since = facts.moved_at.map_or(waiting, |moved| moved.max(waiting));
        let still = now.since(since);
        (there && !self.exit_after.is_zero() && still >= self.exit_after).then(|| {
            let failing =
                [&facts.stages.publish, &facts.stages.confirm].into_iter().find_map(|stage| stage.problem.as_ref());
            let why = failing.map_or(String::new(), |(problem, _)| format!("; last: {problem}"));
            let words = format!(
                "work has waited for an answer for {} s and no event has made a step (health.exit_after){why}",
                still.as_secs()
            );
            Problem::new(ErrorCode::Stuck, words)
        })
    }

    fn pull(&self, now: Moment, facts: &Facts) -> Option<Problem> {
        let stage = &facts.stages.pull;
        let failing = || stage.problem.as_ref().map(|(problem, _)| problem.clone());
        // Before the first answer nothing is proven. A failure is reported at once.
        if stage.last_success.is_none() && stage.problem.is_some() {
            return failing();
        }
        if let Some(problem) = self.lasting(now, stage) {
            return Some(problem);
        }
        // Pulling rests on purpose while the events in flight cannot be published; the other stages report
        // why.
        let silent = now.since(stage.last_success.map_or(self.started, |last| last.max(self.started)));
        (!facts.paused && silent >= self.limit).then(|| {
            failing().unwrap_or_else(|| {
                Problem::new(ErrorCode::NoPull, format!("no pull has succeeded for {} s", silent.as_secs()))
            })
        })
    }

    fn journal(facts: &Facts) -> Option<Problem> {
        match &facts.journal {
            JournalState::Down(problem) => Some(problem.clone()),
            JournalState::Up if facts.stuck_loops.contains(&"journal") => {
                let words = format!("a commit has taken more than {} s", LOOP_LIMIT.as_secs());
                Some(Problem::new(ErrorCode::LoopStuck, words))
            }
            JournalState::Up => None,
        }
    }

    fn publish(&self, now: Moment, facts: &Facts) -> Option<Problem> {
        match &facts.output {
            OutputState::Down(problem) | OutputState::Blocked(problem) => Some(problem.clone()),
            OutputState::Up if facts.unroutable => Some(Problem::new(ErrorCode::PublishReturned, UNROUTABLE)),
            OutputState::Up => self.waiting(now, &facts.stages.publish, ErrorCode::NoPublish),
        }
    }

    fn confirm(&self, now: Moment, stage: &StageStatus) -> Option<Problem> {
        // A stage that has never worked does not recover by waiting.
        let denied = |problem: &Problem| {
            matches!(problem.error_code, ErrorCode::AccountWrong | ErrorCode::CredentialsRejected)
        };
        let never = stage.last_success.is_none();
        let denial = stage.problem.as_ref().filter(|(problem, _)| never && denied(problem));
        denial.map(|(problem, _)| problem.clone()).or_else(|| self.waiting(now, stage, ErrorCode::NoConfirm))
    }

    /// The failures there that last too long.
    fn lasting(&self, now: Moment, stage: &StageStatus) -> Option<Problem> {
        let lasts = |since: Moment| now.since(since) >= self.limit;
        stage.problem.as_ref().filter(|(_, since)| lasts(*since)).map(|(problem, _)| problem.clone())
    }

    /// For a stage that works only when there is work: its failures that last too long, or its work that
    /// waits too long.
    fn waiting(&self, now: Moment, stage: &StageStatus, silence: ErrorCode) -> Option<Problem> {
        if let Some(problem) = self.lasting(now, stage) {
            return Some(problem);
        }
        let waited =
            stage.waiting_since.map(|since| now.since(since)).filter(|waited| *waited >= self.limit)?;
        Some(Problem::new(silence, format!("work has waited for {} s", waited.as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    fn health() -> Health {
        Health::new(Duration::from_secs(60), Duration::from_secs(600), Moment(0), WallTime(0))
    }

    fn facts() -> Facts {
        Facts {
            stages: Stages {
                pull: StageStatus { last_success: Some(Moment(0)), ..StageStatus::default() },
                ..Stages::default()
            },
            paused: false,
            unroutable: false,
            moved_at: None,
            output: OutputState::Up,
            journal: JournalState::Up,
            stuck_loops: Vec::new(),
        }
    }

    fn reasons(health: &mut Health, at: u64, facts: &Facts) -> Vec<Option<ErrorCode>> {
        health.look(Moment(at), WallTime(0), facts).0.stages.iter().map(|stage| stage.error_code).collect()
    }

    #[test]
    fn idle_and_proven_is_ready_and_a_start_without_a_pull_is_unproven() {
        let (mut health, mut facts) = (health(), facts());
        assert_eq!(reasons(&mut health, 30 * SECOND, &facts), [None; 4]);
        facts.stages.pull.last_success = None;
        let (verdict, _) = health.look(Moment(SECOND), WallTime(0), &facts);
        let pull = &verdict.stages[0];
        assert_eq!((pull.ready, pull.state, pull.error_code), (false, UNPROVEN, None), "no answer yet");
        assert_eq!(reasons(&mut health, 60 * SECOND, &facts)[0], Some(ErrorCode::NoPull), "for too long");
        let denied = Problem::new(ErrorCode::CredentialsRejected, "denied");
        facts.stages.pull.problem = Some((denied, Moment(0)));
        assert_eq!(
            reasons(&mut health, SECOND, &facts)[0],
            Some(ErrorCode::CredentialsRejected),
            "told at once"
        );
    }

    #[test]
    fn what_has_not_done_its_work_yet_is_named_and_raises_no_alarm() {
        let (mut health, mut facts) = (health(), facts());
        let (verdict, _) = health.look(Moment(SECOND), WallTime(0), &facts);
        assert_eq!((verdict.ready, verdict.unproven), (true, vec!["journal", "publish", "confirm"]));
        assert!(
            verdict.stages.iter().all(|stage| stage.ready == (stage.state == READY)),
            "{:?}",
            verdict.stages
        );
        facts.stages.confirm.succeeded(Moment(SECOND));
        facts.output = OutputState::Down(Problem::new(ErrorCode::BrokerUnreachable, "away"));
        let (verdict, _) = health.look(Moment(SECOND), WallTime(0), &facts);
        assert_eq!((verdict.ready, verdict.unproven), (false, vec!["journal"]), "what fails is not unproven");
    }

    #[test]
    fn pulls_that_stop_are_noticed_unless_they_are_paused() {
        let (mut health, mut facts) = (health(), facts());
        assert_eq!(reasons(&mut health, 59 * SECOND, &facts)[0], None);
        assert_eq!(reasons(&mut health, 60 * SECOND, &facts)[0], Some(ErrorCode::NoPull));
        facts.paused = true;
        assert_eq!(reasons(&mut health, 600 * SECOND, &facts)[0], None);
    }

    #[test]
    fn work_that_waits_and_does_not_move_is_not_ready() {
        let (mut health, mut facts) = (health(), facts());
        facts.paused = true;
        facts.stages.publish.waiting_since = Some(Moment(0));
        facts.stages.confirm.waiting_since = Some(Moment(30 * SECOND));
        assert_eq!(reasons(&mut health, 59 * SECOND, &facts), [None; 4]);
        assert_eq!(reasons(&mut health, 60 * SECOND, &facts)[2..], [Some(ErrorCode::NoPublish), None]);
        assert_eq!(reasons(&mut health, 90 * SECOND, &facts)[3], Some(ErrorCode::NoConfirm));
        let nacked = Problem::new(ErrorCode::PublishNacked, "nacked");
        facts.stages.publish.problem = Some((nacked, Moment(20 * SECOND)));
        assert_eq!(
            reasons(&mut health, 90 * SECOND, &facts)[2],
            Some(ErrorCode::PublishNacked),
            "the known reason"
        );
    }

    #[test]
    fn what_its_part_says_is_told_at_once() {
        let (mut health, mut facts) = (health(), facts());
        facts.output = OutputState::Blocked(Problem::new(ErrorCode::BrokerBlocked, "alarm"));
        facts.journal = JournalState::Down(Problem::new(ErrorCode::DiskFull, "full"));
        let expected = [None, Some(ErrorCode::DiskFull), Some(ErrorCode::BrokerBlocked), None];
        assert_eq!(reasons(&mut health, SECOND, &facts), expected);
        facts.journal = JournalState::Up;
        facts.stuck_loops = vec!["journal"];
        let (verdict, _) = health.look(Moment(SECOND), WallTime(0), &facts);
        assert_eq!((verdict.live, verdict.stages[1].error_code), (false, Some(ErrorCode::LoopStuck)));
    }

    #[test]
    fn while_nothing_is_routable_publishing_is_not_ready_at_once_and_the_process_stays() {
        let (mut health, mut facts) = (health(), facts());
        facts.unroutable = true;
        facts.stages.publish.waiting_since = Some(Moment(0));
        facts.stages.publish.unanswered_since = Some(Moment(0));
        assert_eq!(reasons(&mut health, 1, &facts)[2], Some(ErrorCode::PublishReturned));
        assert_eq!(health.stuck(Moment(9_000 * SECOND), &facts), None, "a new start brings no binding back");
    }

    #[test]
    fn a_turn_is_told_once_and_what_was_never_ready_has_not_turned() {
        let (mut health, mut facts) = (health(), facts());
        let down = OutputState::Down(Problem::new(ErrorCode::BrokerUnreachable, "away"));
        facts.output = down.clone();
        assert_eq!(health.look(Moment(1), WallTime(1), &facts).1, [], "not yet connected");
        facts.output = OutputState::Up;
        health.look(Moment(2), WallTime(2), &facts);
        facts.output = down;
        let (verdict, turns) = health.look(Moment(3), WallTime(3), &facts);
        assert!(
            matches!(&turns[..], [Turn::NotReady("publish", t)] if t.error_code == ErrorCode::BrokerUnreachable)
        );
        assert_eq!((verdict.ready, verdict.stages[2].since), (false, WallTime(3)));
        assert_eq!(health.look(Moment(4), WallTime(4), &facts).1, []);
        // Another code of the same absence: it counts from the first one.
        facts.output = OutputState::Down(Problem::new(ErrorCode::BrokerLogin, "refused"));
        assert_eq!(health.look(Moment(5), WallTime(5), &facts).1.len(), 1);
        facts.output = OutputState::Up;
        let (verdict, turns) = health.look(Moment(50_003), WallTime(50_003), &facts);
        let again = Turn::Ready("publish", Duration::from_secs(50));
        assert_eq!((turns, verdict.stages[2].since), (vec![again], WallTime(50_003)));
    }

    #[test]
    fn the_process_ends_when_work_waits_for_too_long_and_nothing_is_away() {
        let (health, mut facts) = (health(), facts());
        assert_eq!(health.stuck(Moment(9_000 * SECOND), &facts), None, "nothing waits");
        facts.stages.publish.unanswered_since = Some(Moment(0));
        assert_eq!(health.stuck(Moment(599 * SECOND), &facts), None);
        assert_eq!(health.stuck(Moment(600 * SECOND), &facts).unwrap().error_code, ErrorCode::Stuck);
        facts.moved_at = Some(Moment(SECOND));
        assert_eq!(health.stuck(Moment(600 * SECOND), &facts), None, "something moved");
        facts.output = OutputState::Down(Problem::new(ErrorCode::BrokerUnreachable, "away"));
        assert_eq!(health.stuck(Moment(9_000 * SECOND), &facts), None);
        let never = Health::new(Duration::from_secs(60), Duration::ZERO, Moment(0), WallTime(0));
        facts.output = OutputState::Up;
        assert_eq!(never.stuck(Moment(9_000 * SECOND), &facts), None);
    }

    #[test]
    fn what_is_answered_does_not_end_the_process_however_long_it_waits() {
        let (mut health, mut facts) = (health(), facts());
        let nacked = Problem::new(ErrorCode::PublishNacked, "nacked");
        facts.stages.publish.problem = Some((nacked, Moment(0)));
        facts.stages.publish.waiting_since = Some(Moment(0));
        assert_eq!(health.stuck(Moment(9_000 * SECOND), &facts), None, "a nack is an answer");
        assert_eq!(
            reasons(&mut health, 9_000 * SECOND, &facts)[2],
            Some(ErrorCode::PublishNacked),
            "but told"
        );
    }

    #[test]
    fn a_key_that_may_not_confirm_is_told_at_once_on_an_idle_queue_and_ends_nothing() {
        let (mut health, mut facts) = (health(), facts());
        let denied = Problem::new(ErrorCode::AccountWrong, "no right");
        facts.stages.confirm.problem = Some((denied, Moment(SECOND)));
        assert_eq!(reasons(&mut health, SECOND, &facts)[3], Some(ErrorCode::AccountWrong));
        assert_eq!(health.stuck(Moment(9_000 * SECOND), &facts), None);
        facts.stages.confirm.succeeded(Moment(SECOND));
        assert_eq!(reasons(&mut health, 2 * SECOND, &facts)[3], None, "what worked before gets some time");
        assert_eq!(reasons(&mut health, 61 * SECOND, &facts)[3], Some(ErrorCode::AccountWrong));
        let away = Problem::new(ErrorCode::CloudUnreachable, "time-out");
        facts.stages.confirm =
            StageStatus { problem: Some((away, Moment(SECOND))), ..StageStatus::default() };
        assert_eq!(reasons(&mut health, SECOND, &facts)[3], None, "a first failure proves nothing");
    }
}
