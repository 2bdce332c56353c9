//! Where events go: RabbitMQ, or standard output.
//!
//! An [`Output`] is the cheap, cloneable side of a task that [`amqp::spawn`] or [`stdout::spawn`] starts. For every message
//! handed to it exactly one [`PublishOutcome`] comes back.
//!
//! - [`amqp`]: the task that owns the connection; `link` makes one, `topology` proves it, `lanes` publish over it and
//!   `returns` says what the broker's answers prove.
//! - [`stdout`]: one JSON line an event.
//! - [`message`]: what an event looks like on the wire.

pub mod amqp;
mod dial;
mod greeting;
mod lanes;
mod link;
pub mod message;
mod options;
mod probe;
mod properties;
mod refusal;
mod returns;
pub mod stdout;
mod stream;
mod tls;
mod topology;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use vodrelay_core::identity::EventId;
use vodrelay_core::outcome::{OutputState, PublishOutcome};
use vodrelay_core::outgoing::Outgoing;

use crate::heartbeat::Heartbeat;
use crate::latency::Latency;

/// Why an output ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard output takes no more lines.
    #[error("cannot write events to standard output; see that its reader keeps running, then start again")]
    StandardOutput(#[source] std::io::Error),
}

/// The receiver of outcomes; those of one batch come together.
pub type Outcomes = mpsc::UnboundedSender<Vec<(EventId, PublishOutcome)>>;

/// The side of an output that publishers hold.
#[derive(Clone, Debug)]
pub struct Output {
    /// One for all lanes, or one for each.
    queues: Arc<[async_channel::Sender<PublishJob>]>,
    state: watch::Receiver<OutputState>,
    broker: watch::Receiver<Option<Arc<str>>>,
    times: Arc<Latency>,
    heartbeat: Heartbeat,
}

impl Output {
    /// Publishes one message; `outcomes` gets exactly one outcome for it, under the number of its `event`. It
    /// is queued when this returns. The queue has no bound: the caller limits the number of outstanding
    /// outcomes.
    ///
    /// `alone` asks for a batch of its own, which separates a suspect from others. The outcome comes within
    /// the output's own time limits, except while [`Output::state`] is [`OutputState::Blocked`].
    pub fn publish(&self, event: EventId, message: Arc<Outgoing>, alone: bool, outcomes: &Outcomes) {
        let lanes = self.queues.len() as u64;
        let lane = usize::try_from(message.event.sub_app.0 % lanes).unwrap_or_default();
        let receipt = Receipt { event, outcomes: Some(outcomes.clone()) };
        if let Err(refused) = self.queues[lane].try_send(PublishJob { message, alone, receipt }) {
            refused.into_inner().answer(PublishOutcome::Unsent);
        }
    }

    /// Whether events can be taken now. Every change is visible.
    pub fn state(&self) -> watch::Receiver<OutputState> {
        self.state.clone()
    }

    /// The connected broker, for people.
    pub fn broker(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.broker.clone()
    }

    /// The heartbeat of the task that owns the connection.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// How long publishes take, from the batch's first frame to the answers for all of it. A line of standard
    /// output is not recorded here.
    pub fn publish_times(&self) -> Arc<Latency> {
        Arc::clone(&self.times)
    }
}

/// A message that waits to be published, with the receiver of its outcome.
#[derive(Debug)]
struct PublishJob {
    message: Arc<Outgoing>,
    alone: bool,
    receipt: Receipt,
}

impl PublishJob {
    fn answer(self, outcome: PublishOutcome) {
        answer_all([(self, outcome)]);
    }
}

/// The promise of one outcome.
#[derive(Debug)]
struct Receipt {
    event: EventId,
    /// Until the outcome is sent.
    outcomes: Option<Outcomes>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // A dropped job proves nothing about its message.
        if let Some(outcomes) = self.outcomes.take() {
            tell(&outcomes, vec![(self.event, unknown("the output ended before it answered"))]);
        }
    }
}

/// Answers several jobs, and wakes each receiver once.
fn answer_all(jobs: impl IntoIterator<Item = (PublishJob, PublishOutcome)>) {
    let jobs = jobs.into_iter();
    let (about, _) = jobs.size_hint();
    let mut together: Option<(Outcomes, Vec<(EventId, PublishOutcome)>)> = None;
    for (mut job, outcome) in jobs {
        let Some(outcomes) = job.receipt.outcomes.take() else { continue };
        let told = (job.receipt.event, outcome);
        match &mut together {
            Some((to, batch)) if to.same_channel(&outcomes) => batch.push(told),
            other => {
                let mut batch = Vec::with_capacity(about);
                batch.push(told);
                if let Some((to, batch)) = other.replace((outcomes, batch)) {
                    tell(&to, batch);
                }
            }
        }
    }
    if let Some((to, batch)) = together {
        tell(&to, batch);
    }
}

fn tell(outcomes: &Outcomes, batch: Vec<(EventId, PublishOutcome)>) {
    // Without a receiver, the messages are unanswered in the journal.
    let _ = outcomes.send(batch);
}

/// The ends of an output for its own tasks.
struct Ends {
    queues: Vec<async_channel::Receiver<PublishJob>>,
    state: watch::Sender<OutputState>,
    broker: watch::Sender<Option<Arc<str>>>,
    times: Arc<Latency>,
    heartbeat: Heartbeat,
}

/// Makes the two sides of an output with this many queues.
fn channel(initial: OutputState, queues: usize) -> (Output, Ends) {
    let (senders, receivers): (Vec<_>, _) = (0..queues.max(1)).map(|_| async_channel::unbounded()).unzip();
    let (state_sender, state) = watch::channel(initial);
    let (broker_sender, broker) = watch::channel(None);
    let times = Arc::new(Latency::of("vodrelay_publish_seconds"));
    let heartbeat = Heartbeat::new("output");
    let output = Output {
        queues: senders.into(),
        state,
        broker,
        times: Arc::clone(&times),
        heartbeat: heartbeat.clone(),
    };
    (output, Ends { queues: receivers, state: state_sender, broker: broker_sender, times, heartbeat })
}

/// Closes the queues and answers the remaining jobs. It never left this process.
fn refuse_the_rest(queues: &[async_channel::Receiver<PublishJob>]) {
    for jobs in queues {
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            job.answer(PublishOutcome::Unsent);
        }
    }
}

fn unknown(reason: impl Into<Arc<str>>) -> PublishOutcome {
    PublishOutcome::Unknown { message: reason.into(), suspect: false }
}
