//! A lane: one channel, one task, one batch in flight.
//!
//! One batch at a time makes returned messages attributable (see [`super::returns`]). One owner keeps
//! delivery tags and frames in step. More lanes give more throughput.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lapin::options::BasicPublishOptions;
use lapin::protocol::{AMQPError, AMQPErrorKind};
use lapin::{Channel, Confirmation, Connection, ErrorKind};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{Problem, PublishOutcome};
use vodrelay_core::outgoing::Outgoing;

use super::amqp::Options;
use super::message::{HEADER_VALUE_MAX_BYTES, properties, short};
use super::returns::{BrokerAnswer, Returned, settle};
use super::{PublishJob, answer_all, link, topology, unknown};
use crate::failpoint;
use crate::latency::Latency;

/// Everything that waits goes together, because a batch costs a round trip. With this many the broker is the
/// limit.
const BATCH_MAX: usize = 64;

/// A channel of at least this age is replaced when the broker nacks a whole batch.
///
/// A channel of RabbitMQ remembers who leads a quorum queue. A channel that was opened just after the leader
/// died asks the dead node for ever, and nacks everything although the queue has a new leader (measured with
/// 3.10.8, three nodes).
const NACKING_CHANNEL_MAX: Duration = Duration::from_secs(2);

/// What all lanes of one connection share. A new connection makes a new one, and does not wait for the old
/// one.
#[derive(Clone)]
pub(super) struct Epoch {
    pub(super) options: Arc<Options>,
    pub(super) connection: Arc<Connection>,
    /// The address of the broker, for people.
    pub(super) broker: Arc<str>,
    pub(super) times: Arc<Latency>,
    /// Whether the broker reports `connection.blocked`.
    pub(super) blocked: watch::Receiver<bool>,
    /// The connection is lost: no answer comes any more.
    pub(super) dead: CancellationToken,
    /// The process stops: finish the batch in flight, and take no other.
    pub(super) stop: CancellationToken,
    /// Tells the owner of the connection why it must be dropped.
    pub(super) problem: mpsc::Sender<Problem>,
}

pub(super) struct PublishLane {
    epoch: Epoch,
    jobs: async_channel::Receiver<PublishJob>,
    channel: Channel,
    opened_at: Instant,
    /// A job from the queue that must go into the next batch.
    held: Option<PublishJob>,
}

/// The rest of a batch.
enum After {
    Ready,
    /// No message was taken.
    AllNacked,
    ChannelGone,
    Lost(Problem),
}

/// Why the wait for a batch ends.
enum Ending {
    Resolved,
    Overdue,
    Dead,
    Stopped,
}

/// The broker's answers to a batch.
struct Replies {
    /// For each message, in the order of the batch.
    answers: Vec<Option<BrokerAnswer>>,
    errors: Vec<lapin::Error>,
    ending: Ending,
}

impl PublishLane {
    pub(super) fn new(epoch: Epoch, jobs: async_channel::Receiver<PublishJob>, channel: Channel) -> Self {
        Self { epoch, jobs, channel, opened_at: Instant::now(), held: None }
    }

    pub(super) async fn run(mut self) {
        while let Some(first) = self.next().await {
            // A channel can also end between batches. Then nothing of this batch has been sent.
            if !self.channel.status().connected() && !self.reopen().await {
                first.answer(PublishOutcome::Unsent);
                break;
            }
            let batch = self.collect(first);
            match self.publish(batch).await {
                After::Ready => {}
                After::AllNacked if self.opened_at.elapsed() < NACKING_CHANNEL_MAX => {}
                After::AllNacked | After::ChannelGone => {
                    if !self.reopen().await {
                        break;
                    }
                }
                After::Lost(problem) => {
                    self.give_up(problem).await;
                    break;
                }
            }
        }
        if let Some(job) = self.held {
            job.answer(PublishOutcome::Unsent);
        }
    }

    /// The first job of the next batch, or `None` when this lane is done.
    async fn next(&mut self) -> Option<PublishJob> {
        let epoch = &mut self.epoch;
        loop {
            let blocked = *epoch.blocked.borrow_and_update();
            if !blocked && !epoch.dead.is_cancelled() && !epoch.stop.is_cancelled() && self.held.is_some() {
                return self.held.take();
            }
            tokio::select! {
                biased;
                () = epoch.dead.cancelled() => return None,
                () = epoch.stop.cancelled() => return None,
                changed = epoch.blocked.changed() => changed.ok()?,
                job = self.jobs.recv(), if !blocked => return job.ok(),
            }
        }
    }

    /// `first` and the other queued jobs. Message ids within a batch are distinct. A job with `alone` has a
    /// batch of its own.
    fn collect(&mut self, first: PublishJob) -> Vec<PublishJob> {
        let room = BATCH_MAX.min(1 + self.jobs.len());
        let mut ids = HashSet::with_capacity(room);
        let mut batch = Vec::with_capacity(room);
        ids.insert(first.message.message_id.clone());
        batch.push(first);
        while !batch[0].alone && batch.len() < BATCH_MAX && self.held.is_none() {
            let Ok(job) = self.jobs.try_recv() else { break };
            if job.alone || !ids.insert(job.message.message_id.clone()) {
                self.held = Some(job);
            } else {
                batch.push(job);
            }
        }
        batch
    }

    async fn publish(&self, batch: Vec<PublishJob>) -> After {
        if self.epoch.dead.is_cancelled() {
            answer_all(batch.into_iter().map(|job| (job, PublishOutcome::Unsent)));
            return After::Lost(unreachable("the connection to RabbitMQ was lost"));
        }
        let options = &self.epoch.options;
        let Replies { answers, errors, ending } = self.send(&batch).await;
        let (unresolved, after) = self.verdict(ending, &errors, &batch);
        let ids: Vec<_> = batch.iter().map(|job| job.message.message_id.clone()).collect();
        let outcomes = settle(&ids, &answers, &unresolved);
        let after = match after {
            After::Ready if outcomes.iter().all(|outcome| *outcome == PublishOutcome::Nacked) => {
                After::AllNacked
            }
            after => after,
        };
        let comes_back = |outcome: &PublishOutcome| {
            matches!(outcome, PublishOutcome::Returned { .. }) && options.declares_queue()
        };
        if !outcomes.iter().any(comes_back) {
            answer_all(batch.into_iter().zip(outcomes));
            return after;
        }
        let (returned, answered): (Vec<_>, Vec<_>) =
            batch.into_iter().zip(outcomes).partition(|(_, outcome)| comes_back(outcome));
        answer_all(answered);
        // They are answered afterwards: a repeat then finds the queue, and has spent no attempt on waiting.
        let after = match after {
            After::Ready => self.declare_again(returned.len()).await,
            after => after,
        };
        answer_all(returned);
        after
    }

    /// Sends a batch over the connection, and waits for the broker's answers.
    async fn send(&self, batch: &[PublishJob]) -> Replies {
        let longest_header = longest_header(self.epoch.connection.configuration().frame_max());
        let began = Instant::now();
        let limit = self.epoch.options.limits.publish;
        let mut answers: Vec<Option<BrokerAnswer>> = vec![None; batch.len()];
        let mut took = Vec::with_capacity(batch.len());
        let mut errors = Vec::new();
        let mut waiting = Vec::with_capacity(batch.len());
        for (index, job) in batch.iter().enumerate() {
            // The parts of a message are made inside the future: otherwise they would be moved with it, a
            // kilobyte at a time.
            let mut publish = Box::pin(self.publish_one(&job.message, longest_header));
            // All are sent before any is awaited.
            match (&mut publish).now_or_never() {
                None => waiting.push((index, publish)),
                Some(Ok(answer)) => answers[index] = answer,
                Some(Err(error)) => errors.push(error),
            }
        }
        let ending = {
            let resolved = async {
                // The last one is awaited first: RabbitMQ usually answers in order, so this lane wakes once
                // and not for each message.
                while let Some((index, publish)) = waiting.last_mut() {
                    match publish.await {
                        Ok(answer) => {
                            took.push(began.elapsed());
                            answers[*index] = answer;
                        }
                        Err(error) => errors.push(error),
                    }
                    waiting.pop();
                }
            };
            let overdue = overdue(self.epoch.blocked.clone(), limit);
            let stopped = async {
                self.epoch.stop.cancelled().await;
                sleep(limit).await;
            };
            tokio::select! {
                // Answers first: those that have arrived count, whatever else has happened.
                biased;
                () = resolved => Ending::Resolved,
                () = self.epoch.dead.cancelled() => Ending::Dead,
                () = overdue => Ending::Overdue,
                () = stopped => Ending::Stopped,
            }
        };
        for (index, publish) in waiting {
            if let Some(Ok(answer)) = publish.now_or_never() {
                answers[index] = answer;
            }
        }
        self.epoch.times.record(&took);
        Replies { answers, errors, ending }
    }

    async fn publish_one(
        &self,
        message: &Outgoing,
        longest_header: usize,
    ) -> lapin::Result<Option<BrokerAnswer>> {
        let options = &self.epoch.options;
        let exchange = short(&options.exchange);
        let key = short(&options.routing_key.key(&message.event));
        let properties = properties(message, options.format, longest_header);
        let body = options.format.body(message);
        // Mandatory: RabbitMQ acks a message that it could not route, and only the return shows it.
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish(exchange, key, mandatory, &body, properties).await?;
        failpoint::reach("sent", "publish");
        sent.await.map(|confirmation| answer(confirmation, &self.epoch.broker))
    }

    /// The queue that the relay declares is bound for every routing key. So a return means that the queue or
    /// its binding was deleted.
    async fn declare_again(&self, returned: usize) -> After {
        let epoch = &self.epoch;
        let proof = async {
            topology::prove(&epoch.connection, &epoch.options).await.map_err(|error| error.to_string())
        };
        match self.in_time("RabbitMQ did not answer a declaration in time", proof).await {
            None => After::Ready,
            Some(Ok(())) => {
                let queue = epoch.options.queue.as_str();
                tracing::warn!(
                    error_code = %ErrorCode::PublishReturned,
                    returned,
                    queue,
                    "messages were returned: the queue or its binding was deleted, and is declared again"
                );
                After::Ready
            }
            Some(Err(message)) => After::Lost(unreachable(message)),
        }
    }

    /// Runs a request to the broker within the time of a connect; `None` when the connection ends or the
    /// process stops meanwhile.
    async fn in_time<T>(
        &self,
        overdue_message: &str,
        work: impl Future<Output = Result<T, String>>,
    ) -> Option<Result<T, String>> {
        let epoch = &self.epoch;
        tokio::select! {
            () = epoch.dead.cancelled() => None,
            // A block could delay it. A stopping lane needs nothing more.
            () = epoch.stop.cancelled() => None,
            () = overdue(epoch.blocked.clone(), epoch.options.limits.connect) => Some(Err(overdue_message.to_owned())),
            result = work => Some(result),
        }
    }

    /// The outcomes of messages whose confirms did not resolve, and the channel that is left.
    fn verdict(
        &self,
        ending: Ending,
        errors: &[lapin::Error],
        batch: &[PublishJob],
    ) -> (PublishOutcome, After) {
        // Only a lone message may be parked for this. Its outcome names its destination.
        let unknown = |message: &str| match batch {
            [only] => unknown(format!("{message}{}", self.way_of(&only.message)).as_str()),
            _ => unknown(message),
        };
        match ending {
            Ending::Resolved => {}
            Ending::Dead => {
                let message = "the connection to RabbitMQ was lost before it answered";
                return (unknown(message), After::Lost(unreachable(message)));
            }
            Ending::Overdue => {
                let limit = self.epoch.options.limits.publish;
                let message = format!("RabbitMQ did not answer a publish within {limit:?}");
                // The broker is there, as far as the lane knows.
                let problem = Problem::new(ErrorCode::PublishUnanswered, message.as_str());
                return (unknown(&message), After::Lost(problem));
            }
            Ending::Stopped => {
                let message = "the relay stopped before RabbitMQ answered";
                return (unknown(message), After::Lost(unreachable(message)));
            }
        }
        let Some(error) = errors.iter().find(|error| error.is_amqp_error()).or(errors.first()) else {
            // Neither error nor answer: only `NotRequested` causes that.
            return (unknown("the channel was not in confirm mode"), After::Ready);
        };
        match channel_exception(error) {
            Some(refusal) if self.epoch.connection.status().connected() => {
                let (code, text) = (refusal.get_id(), super::refusal::words(error));
                let outcome = match batch {
                    // These concern no single message, and are reported once for all.
                    [_] if matches!(code, 403 | 404) => {
                        let text = format!("{text}{}", topology::after_refusal(code, &text));
                        PublishOutcome::ChannelError { code, text: text.into() }
                    }
                    [only] => {
                        let text = format!("{text}{}", self.way_of(&only.message));
                        PublishOutcome::ChannelError { code, text: text.into() }
                    }
                    _ => {
                        let message =
                            format!("RabbitMQ refused a message of the batch and closed the channel: {text}");
                        PublishOutcome::Unknown { message: message.into(), suspect: true }
                    }
                };
                (outcome, After::ChannelGone)
            }
            _ => {
                let message =
                    format!("the connection to RabbitMQ was lost: {}", super::refusal::words(error));
                (unknown(&message), After::Lost(unreachable(message)))
            }
        }
    }

    /// The destination of a message, for an operator.
    fn way_of(&self, message: &Outgoing) -> String {
        let Epoch { options, broker, .. } = &self.epoch;
        way(&options.routing_key.key(&message.event), &options.exchange, broker)
    }

    /// Proves the topology again and opens a new channel, because the exchange may be missing.
    async fn reopen(&mut self) -> bool {
        let epoch = &self.epoch;
        let fresh = async {
            topology::prove(&epoch.connection, &epoch.options).await.map_err(|error| error.to_string())?;
            link::publishing_channel(&epoch.connection).await.map_err(|error| error.to_string())
        };
        match self.in_time("RabbitMQ did not open another channel in time", fresh).await {
            None => false,
            Some(Ok(channel)) => {
                // The old channel closes when it is dropped. Nothing is in flight on it.
                self.channel = channel;
                self.opened_at = Instant::now();
                true
            }
            Some(Err(message)) => {
                self.give_up(unreachable(message)).await;
                false
            }
        }
    }

    async fn give_up(&self, problem: Problem) {
        // Without a receiver, another lane has reported it.
        let _ = self.epoch.problem.send(problem).await;
    }
}

fn unreachable(words: impl Into<Arc<str>>) -> Problem {
    Problem::new(ErrorCode::BrokerUnreachable, words)
}

fn way(routing_key: &str, exchange: &str, broker: &str) -> String {
    format!("; routing key {routing_key}, exchange {exchange}, broker {broker}")
}

fn answer(confirmation: Confirmation, broker: &str) -> Option<BrokerAnswer> {
    let returned = |message: lapin::message::BasicReturnMessage| Returned {
        message_id: message.delivery.properties.message_id().as_ref().map(ToString::to_string),
        code: message.reply_code,
        // The missing binding. The operator looks for it at this broker.
        text: {
            let delivery = &message.delivery;
            let way = way(delivery.routing_key.as_str(), delivery.exchange.as_str(), broker);
            format!("{}{way}", message.reply_text).into()
        },
    };
    match confirmation {
        Confirmation::Ack(message) => Some(BrokerAnswer::Ack(message.map(returned))),
        Confirmation::Nack(message) => Some(BrokerAnswer::Nack(message.map(returned))),
        Confirmation::NotRequested => {
            tracing::error!(error_code = %ErrorCode::Bug, "published on a channel that is not in confirm mode: this is a bug");
            None
        }
    }
}

fn channel_exception(error: &lapin::Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) if matches!(refusal.kind(), AMQPErrorKind::Soft(_)) => {
            Some(refusal)
        }
        _ => None,
    }
}

/// The properties of a message go in one frame, and four of its headers have unbounded lengths.
fn longest_header(frame_max: u32) -> usize {
    const OTHER_PROPERTIES: usize = 2048;
    let frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
    (frame_max.saturating_sub(OTHER_PROPERTIES) / 4).min(HEADER_VALUE_MAX_BYTES)
}

/// Resolves when `limit` has passed without a block. Every end of a block starts the clock again.
async fn overdue(mut blocked: watch::Receiver<bool>, limit: Duration) {
    loop {
        if *blocked.borrow_and_update() {
            if blocked.changed().await.is_err() {
                return;
            }
        } else if !matches!(timeout(limit, blocked.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}
