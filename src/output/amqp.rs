//! The task that owns the connection to RabbitMQ.
//!
//! A connection is an epoch: it is opened, proven, used by its lanes, and dropped as a whole at the first
//! doubt. Publishes in flight then end as `Unknown`, waiting ones as `Unsent`. lapin's own recovery stays
//! off, because with it pending confirms hang until a new connection exists (measured with 4.12.3).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::Channel;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use vodrelay_core::backoff::Backoff;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{OutputState, Problem, PublishOutcome};

use super::lanes::{Epoch, PublishLane};
use super::link::{self, Link};
pub use super::message::BodyFormat;
pub use super::options::{Address, Auth, LANES, Options, TimeLimits, Topology};
pub use super::probe::{ProbeStep, probe};
use super::refusal;
pub use super::tls::TlsFiles;
use super::{Ends, Error, Output, PublishJob, channel, refuse_the_rest};
use crate::heartbeat::Heartbeat;
use crate::latency::Latency;

/// The message of an output that has tried no broker yet.
pub const NOT_CONNECTED_YET: &str = "not connected yet";

/// Starts the output. The task ends in bounded time when `shutdown` is cancelled and the batches in flight
/// are answered.
///
/// Must be called within the tokio runtime.
pub fn spawn(options: Options, shutdown: CancellationToken) -> (Output, JoinHandle<Result<(), Error>>) {
    let queues = if options.in_order { options.lanes } else { 1 };
    let (output, Ends { queues, state, broker, times, heartbeat }) =
        channel(OutputState::Down(Problem::new(ErrorCode::BrokerUnreachable, NOT_CONNECTED_YET)), queues);
    let owner = Owner { options: Arc::new(options), queues, state, broker, times, heartbeat, shutdown };
    let task = tokio::spawn(async move {
        owner.run().await;
        Ok(())
    });
    (output, task)
}

/// How an epoch ended.
#[derive(PartialEq)]
enum Ended {
    Lost,
    Stopped,
}

struct Owner {
    options: Arc<Options>,
    queues: Vec<async_channel::Receiver<PublishJob>>,
    state: watch::Sender<OutputState>,
    broker: watch::Sender<Option<Arc<str>>>,
    times: Arc<Latency>,
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
}

impl Owner {
    async fn run(self) {
        // A shorter connection does not prove that the problem is over.
        const STEADY: Duration = Duration::from_secs(10);
        let limits = self.options.limits;
        let mut backoff = Backoff::new(limits.backoff_min, limits.backoff_max);
        // Relays that lost one broker draw different waits, and do not return at the same moment.
        let mut rng = fastrand::Rng::new();
        let mut turn = 0;
        loop {
            let attempt = tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = refuse(&self.queues) => break,
                attempt = self.connect(&mut turn) => attempt,
            };
            match attempt {
                Ok((link, channels)) => {
                    let began = Instant::now();
                    let ended = self.epoch(link, channels).await;
                    self.broker.send_replace(None);
                    if ended == Ended::Stopped {
                        break;
                    }
                    if began.elapsed() >= STEADY {
                        backoff.reset();
                    }
                }
                Err(problem) => self.say(OutputState::Down(problem)),
            }
            self.heartbeat.progress();
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = refuse(&self.queues) => break,
                () = tokio::time::sleep(spread(backoff.next(&mut rng), &mut rng)) => {}
            }
        }
        self.heartbeat.rest();
        refuse_the_rest(&self.queues);
        // The end was requested.
        self.state.send_replace(OutputState::Down(Problem::new(ErrorCode::BrokerUnreachable, "stopped")));
    }

    /// One round over the brokers, beginning after the last one that was tried.
    async fn connect(&self, turn: &mut usize) -> Result<(Link, Vec<Channel>), Problem> {
        let mut problems: Vec<(String, ErrorCode)> = Vec::new();
        for _ in &self.options.urls {
            let address = &self.options.urls[*turn % self.options.urls.len()];
            *turn += 1;
            self.heartbeat.progress();
            match link::establish(address, &self.options).await {
                Ok(established) => return Ok(established),
                Err(error) => problems.push((error.to_string(), error.error_code())),
            }
        }
        // In the order of the configuration, so the same problem has the same text in every round.
        problems.sort();
        let messages: Vec<&str> = problems.iter().map(|(message, _)| message.as_str()).collect();
        // Of several problems, the one that needs an operator: an address without a listener may be a node
        // that is down.
        let worst = problems.iter().map(|(_, error_code)| *error_code).max();
        Err(match worst {
            Some(error_code) => Problem::new(error_code, messages.join("; ")),
            None => Problem::new(ErrorCode::ConfigurationWrong, "no URL is configured; name at least one"),
        })
    }

    /// Handles an event of the connection. A problem when the connection is lost.
    fn heard(
        &self,
        event: Option<lapin::Event>,
        link: &Link,
        blocked: &watch::Sender<bool>,
    ) -> Option<Problem> {
        match event {
            Some(lapin::Event::ConnectionBlocked(reason)) => {
                let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
                blocked.send_replace(true);
                let words = format!("RabbitMQ refuses publishes for now: {reason}");
                self.say(OutputState::Blocked(Problem::new(ErrorCode::BrokerBlocked, words)));
                None
            }
            Some(lapin::Event::ConnectionUnblocked) => {
                blocked.send_replace(false);
                tracing::info!(broker = %link.address, "RabbitMQ takes publishes again");
                self.say(OutputState::Up);
                None
            }
            // A channel's error also arrives here; its lane handles it.
            Some(lapin::Event::Error(error)) if !link.connection.status().connected() => {
                Some(lost(&link.address, Some(&error)))
            }
            Some(_) => None,
            None => Some(lost(&link.address, None)),
        }
    }

    /// Publishes over one connection until it is lost, or until the process stops.
    async fn epoch(&self, mut link: Link, channels: Vec<Channel>) -> Ended {
        let (blocked_sender, blocked) = watch::channel(false);
        let (problem, mut problems) = mpsc::channel(channels.len().max(1));
        let dead = CancellationToken::new();
        let epoch = Epoch {
            options: self.options.clone(),
            connection: link.connection.clone(),
            broker: link.address.to_string().into(),
            times: Arc::clone(&self.times),
            blocked,
            dead: dead.clone(),
            stop: self.shutdown.clone(),
            problem,
        };
        let mut lanes = JoinSet::new();
        for (channel, jobs) in channels.into_iter().zip(self.queues.iter().cycle()) {
            lanes.spawn(PublishLane::new(epoch.clone(), jobs.clone(), channel).run());
        }
        drop(epoch);
        tracing::info!(broker = %link.address, "connected to RabbitMQ");
        self.broker.send_replace(Some(link.address.to_string().into()));
        self.say(OutputState::Up);

        // Events report at once. This check of the status catches what they miss.
        let mut look = tokio::time::interval(Duration::from_secs(1));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let lost = loop {
            self.heartbeat.progress();
            tokio::select! {
                () = self.shutdown.cancelled() => break None,
                Some(problem) = problems.recv() => break Some(problem),
                event = link.events.next() => {
                    if let Some(problem) = self.heard(event, &link, &blocked_sender) {
                        break Some(problem);
                    }
                }
                _ = look.tick() => {
                    if !link.connection.status().connected() {
                        break Some(lost(&link.address, None));
                    }
                }
            }
        };
        if let Some(problem) = &lost {
            // In this order: a reader that sees the state go down can be sure that no lane takes another job.
            dead.cancel();
            self.say(OutputState::Down(problem.clone()));
        }
        // The lanes have time limits of their own.
        self.heartbeat.rest();
        // At shutdown the lanes finish their batches or give up after the time limit of a publish. `problems`
        // has capacity for one message of each.
        while let Some(ended) = lanes.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        if lost.is_some() {
            return Ended::Lost;
        }
        link.close(Duration::from_secs(2)).await;
        Ended::Stopped
    }

    /// Sets the state, and logs it when it changed.
    fn say(&self, state: OutputState) {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            current.clone_from(&state);
            changed
        });
        if !changed {
            return;
        }
        match &state {
            // Already logged, with the broker's name.
            OutputState::Up => {}
            OutputState::Blocked(Problem { error_code, message }) => {
                tracing::warn!(%error_code, error = %message, "the output is blocked");
            }
            OutputState::Down(Problem { error_code, message }) => {
                tracing::warn!(%error_code, error = %message, "the output is down");
            }
        }
    }
}

/// The problem of a lost connection, with its cause if lapin names one.
fn lost(address: &Address, cause: Option<&lapin::Error>) -> Problem {
    let cause = cause.map(|error| format!(": {}", refusal::words(error))).unwrap_or_default();
    Problem::new(ErrorCode::BrokerUnreachable, format!("the connection to {address} was lost{cause}"))
}

/// Shortens a wait by up to half, so relays that lost one broker together do not return together, from the
/// first attempt on.
fn spread(wait: Duration, rng: &mut fastrand::Rng) -> Duration {
    wait - wait.mul_f64(rng.f64() / 2.0)
}

/// Answers every job with `Unsent` until the queues close. No job waits for a connection that may never come.
async fn refuse(queues: &[async_channel::Receiver<PublishJob>]) {
    let refuse_one = async |jobs: &async_channel::Receiver<PublishJob>| {
        while let Ok(job) = jobs.recv().await {
            job.answer(PublishOutcome::Unsent);
        }
    };
    join_all(queues.iter().map(refuse_one)).await;
}
