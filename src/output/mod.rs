//! Where events go: RabbitMQ, or standard output.
//!
//! An [`Output`] is the cheap, cloneable side of a task that [`amqp::spawn`] or [`stdout::spawn`] starts. Every message
//! handed to it comes back as exactly one [`PublishOutcome`].
//!
//! - [`amqp`]: the task that owns the connection; `link` makes one, `topology` proves it, `lanes` publish over it and
//!   `returns` says what the broker's answers prove.
//! - [`stdout`]: one JSON line an event.
//! - [`message`]: what an event looks like on the wire.

pub mod amqp;
mod backoff;
mod lanes;
mod link;
pub mod message;
mod probe;
mod returns;
pub mod stdout;
mod tls;
mod topology;

use std::sync::Arc;

use async_channel::TrySendError;
use tokio::sync::{oneshot, watch};

use crate::clock::WallTime;
use crate::event::{Event, MessageId};
use crate::outcome::{OutputState, PublishOutcome};

/// One event on its way out.
#[derive(Clone, Debug)]
pub struct Message {
    /// What consumers drop repeats by; the same for every publish of one occurrence.
    pub message_id: MessageId,
    /// The event.
    pub event: Arc<Event>,
    /// Which occurrence of its fingerprint, from 1.
    pub occurrence: u32,
    /// Whether the cloud had handed it over before.
    pub redelivered: bool,
    /// When the delivery was pulled.
    pub pulled_at: WallTime,
    /// The `RequestId` of the answer that brought the delivery.
    pub request_id: Arc<str>,
}

/// Why an output ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard output does not take any more lines.
    #[error("cannot write events to standard output; see that its reader keeps running, then start again")]
    StandardOutput(#[source] std::io::Error),
}

/// The side of an output that publishers hold.
#[derive(Clone, Debug)]
pub struct Output {
    jobs: async_channel::Sender<Job>,
    state: watch::Receiver<OutputState>,
}

impl Output {
    /// Publishes one message; the future is its one outcome. The message is queued before this returns, if there is room, so
    /// that messages leave in the order of these calls as far as one lane carries them.
    ///
    /// `alone` asks for a batch of its own: a suspect is told apart from its siblings that way. The outcome comes within the
    /// output's own time limits, unless [`Output::state`] is [`OutputState::Blocked`]: then it waits as long as that lasts.
    /// Dropping the future does not withdraw the message.
    pub fn publish(&self, message: Message, alone: bool) -> impl Future<Output = PublishOutcome> + use<> {
        let (answer, outcome) = oneshot::channel();
        let queued = self.jobs.try_send(Job { message, alone, answer });
        let jobs = self.jobs.clone();
        async move {
            let queued = match queued {
                Err(TrySendError::Full(job)) => jobs.send(job).await.is_ok(),
                queued => queued.is_ok(),
            };
            if !queued {
                return PublishOutcome::Unsent;
            }
            // A job that is dropped unanswered proves nothing about its message.
            outcome.await.unwrap_or_else(|_| unknown("the output ended before it answered"))
        }
    }

    /// Whether events can be taken now; every change is seen.
    pub fn state(&self) -> watch::Receiver<OutputState> {
        self.state.clone()
    }
}

/// A message that waits to be published, and whom to tell.
#[derive(Debug)]
struct Job {
    message: Message,
    alone: bool,
    answer: oneshot::Sender<PublishOutcome>,
}

impl Job {
    fn answer(self, outcome: PublishOutcome) {
        // A publisher that no longer listens has its message's fate in the journal as unanswered.
        let _ = self.answer.send(outcome);
    }
}

/// Makes the two ends of an output. What waits in between is bounded, because it is memory.
fn channel(initial: OutputState) -> (Output, async_channel::Receiver<Job>, watch::Sender<OutputState>) {
    const QUEUED_JOBS: usize = 1024;
    let (jobs, queue) = async_channel::bounded(QUEUED_JOBS);
    let (state_sender, state) = watch::channel(initial);
    (Output { jobs, state }, queue, state_sender)
}

/// Closes the queue and answers what is left in it. It never left this process.
fn refuse_the_rest(jobs: &async_channel::Receiver<Job>) {
    jobs.close();
    while let Ok(job) = jobs.try_recv() {
        job.answer(PublishOutcome::Unsent);
    }
}

fn unknown(reason: impl Into<Arc<str>>) -> PublishOutcome {
    PublishOutcome::Unknown { reason: reason.into(), suspect: false }
}
