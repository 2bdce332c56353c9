//! The relay: a core that decides, and this shell around it that acts.
//!
//! One task owns the core. It turns everything that can happen into an [`Input`] and carries the core's
//! [`Effect`]s out. Requests to the cloud are tasks of their own. Publishes and commits go through queues
//! that keep their order.
//!
//! The queues between these tasks have no bound of their own: every element is an effect or the answer to one, and the core
//! bounds those (`max_in_flight`).

mod commit_delay;
mod commits;
mod meters;
mod observe;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use tencent_vod::{Action, Client, FailureKind, Pull};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::identity::EventId;
use vodrelay_core::machine::{Answer, Core, Effect, Input, Settings};
use vodrelay_core::outcome::{JournalState, OutputState, PublishOutcome};
use vodrelay_core::write::Written;

use crate::clock::Now as _;
use crate::cloud;
use crate::heartbeat::Heartbeat;
use crate::journal::Journal;
use crate::output::{Outcomes, Output};
use commits::Commits;
use observe::{Observer, RequestEnded};
pub use stats::{RelayStats, Snapshot};

/// The most inputs of one step. Their consequences are committed together.
const INPUTS_PER_STEP: usize = 256;

/// The most batches of outcomes in one step.
const BATCHES_PER_STEP: usize = 8;

/// The loop runs at least this often, for its heartbeat.
const ROUND_MAX: Duration = Duration::from_secs(5);

/// The parts of the relay.
#[derive(Debug)]
pub struct RelayParts {
    /// The settings of the core.
    pub settings: Settings,
    /// The cloud.
    pub client: Client,
    /// The record.
    pub journal: Journal,
    /// Where events go.
    pub output: Output,
    /// Figures for observers.
    pub stats: Arc<RelayStats>,
    /// Settings that change at work.
    pub changes: mpsc::UnboundedReceiver<Settings>,
    /// The loop's heartbeat.
    pub heartbeat: Heartbeat,
}

/// Why the relay ended before its drain was over.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The journal's writer ended; the writer's own error says why.
    #[error("the journal ended")]
    Journal,
    /// A part of the relay panicked.
    #[error("a task of the relay died")]
    Task(#[source] tokio::task::JoinError),
}

/// Relays until `drain` is cancelled and nothing is in flight any more.
///
/// # Errors
///
/// [`RelayError`] when a necessary part is gone.
pub async fn run(parts: RelayParts, drain: CancellationToken) -> Result<(), RelayError> {
    let RelayParts { settings, client, journal, output, stats, changes, heartbeat } = parts;
    let (window, max_in_flight) = (settings.lease_window(), settings.relay.max_in_flight);
    let core = Core::new(settings, Moment::now());
    let (inputs, arrived) = mpsc::unbounded_channel();
    let (journal_state, output_state) = (journal.state(), output.state());
    let (outcomes, published) = mpsc::unbounded_channel();
    let report = Observer::new(stats, window);
    let (answers, written) = mpsc::unbounded_channel();
    let commits = Commits::new(journal, answers, max_in_flight);
    let mut shell = Shell {
        core,
        client,
        output,
        outcomes,
        inputs,
        commits,
        tasks: JoinSet::new(),
        report,
        others: Vec::new(),
    };
    let arrivals = Arrivals {
        inputs: arrived,
        written,
        published,
        journal_state,
        output_state,
        settings: changes,
        heartbeat,
    };
    shell.run(arrivals, drain).await
}

/// A result of a task: an input, and for requests to the cloud the facts for the report.
struct Arrived {
    input: Input,
    request: Option<RequestEnded>,
}

impl From<Input> for Arrived {
    fn from(input: Input) -> Self {
        Self { input, request: None }
    }
}

/// Everything that wakes the relay.
struct Arrivals {
    inputs: mpsc::UnboundedReceiver<Arrived>,
    written: mpsc::UnboundedReceiver<Written>,
    published: mpsc::UnboundedReceiver<Vec<(EventId, PublishOutcome)>>,
    journal_state: watch::Receiver<JournalState>,
    output_state: watch::Receiver<OutputState>,
    settings: mpsc::UnboundedReceiver<Settings>,
    heartbeat: Heartbeat,
}

struct Shell {
    core: Core,
    client: Client,
    output: Output,
    outcomes: Outcomes,
    inputs: mpsc::UnboundedSender<Arrived>,
    commits: Commits,
    tasks: JoinSet<Result<(), RelayError>>,
    report: Observer,
    /// The effects of a step except writes. Empty between two steps; only its allocation is kept.
    others: Vec<Effect>,
}

impl Shell {
    async fn run(&mut self, arrivals: Arrivals, drain: CancellationToken) -> Result<(), RelayError> {
        let Arrivals {
            inputs: mut arrived,
            mut written,
            mut published,
            mut journal_state,
            mut output_state,
            mut settings,
            heartbeat,
        } = arrivals;
        let mut inputs: Vec<Arrived> = vec![
            Input::Journal(journal_state.borrow_and_update().clone()).into(),
            Input::Output(output_state.borrow_and_update().clone()).into(),
        ];
        let (mut batches, mut answers) = (Vec::new(), Vec::new());
        let mut draining = false;
        loop {
            heartbeat.progress();
            if self.step(&mut inputs)? {
                return Ok(());
            }
            // A task sends its input before it ends, so its end needs no decision.
            while inputs.is_empty() {
                let asleep = async {
                    let wake = self.core.next_wake().map(|at| at.since(Moment::now()));
                    let wakes = [wake, self.commits.due_in()].into_iter().flatten();
                    tokio::time::sleep(wakes.fold(ROUND_MAX, Duration::min)).await;
                };
                tokio::select! {
                    // States first: outcomes of an output that is down are judged as such.
                    biased;
                    changed = journal_state.changed() => match changed {
                        Ok(()) => inputs.push(Input::Journal(journal_state.borrow_and_update().clone()).into()),
                        Err(_) => return Err(RelayError::Journal),
                    },
                    Ok(()) = output_state.changed() => {
                        inputs.push(Input::Output(output_state.borrow_and_update().clone()).into());
                    }
                    () = drain.cancelled(), if !draining => {
                        draining = true;
                        inputs.push(Input::Drain.into());
                    }
                    Some(changed) = settings.recv() => {
                        self.commits.configure(changed.relay.max_in_flight);
                        inputs.push(Input::Reconfigure(Box::new(changed)).into());
                    }
                    Some(ended) = self.tasks.join_next() => ended.map_err(RelayError::Task)??,
                    count = written.recv_many(&mut answers, INPUTS_PER_STEP) => {
                        self.commits.answered(count);
                        inputs.extend(answers.drain(..).map(|written| Input::Written(written).into()));
                        take_more(&mut inputs, &mut arrived);
                    }
                    count = published.recv_many(&mut batches, BATCHES_PER_STEP) => {
                        debug_assert!(count > 0);
                        let outcomes = batches.drain(..).flatten();
                        inputs.extend(outcomes.map(|(event, outcome)| Input::Published { event, outcome }.into()));
                        take_more(&mut inputs, &mut arrived);
                    }
                    count = arrived.recv_many(&mut inputs, INPUTS_PER_STEP) => debug_assert!(count > 0),
                    () = asleep => inputs.push(Input::Tick.into()),
                }
            }
        }
    }

    /// Gives the inputs to the core, and carries its effects out. Whether the relay has finished.
    fn step(&mut self, inputs: &mut Vec<Arrived>) -> Result<bool, RelayError> {
        let now = Moment::now();
        for Arrived { input, request } in &*inputs {
            if let Some(ended) = request {
                self.report.request_ended(now, ended);
            }
            self.report.input(now, input);
        }
        let effects = self.core.step(now, inputs.drain(..).map(|arrived| arrived.input));
        // Writes first: the journal's thread begins with them while this one does the rest. The consequence
        // of a write comes in a later step.
        let mut others = std::mem::take(&mut self.others);
        for effect in effects {
            match effect {
                Effect::Write(write) => self.commits.add(write),
                other => others.push(other),
            }
        }
        self.commits.send_due(self.core.only_commits_pending())?;
        for effect in others.drain(..) {
            if matches!(effect, Effect::Finished) {
                self.report.progress();
                return Ok(true);
            }
            self.carry_out(effect);
        }
        self.others = others;
        self.report.load(now, self.core.load());
        Ok(false)
    }

    /// Starts the work of an effect. Its result comes back as an input.
    fn carry_out(&mut self, effect: Effect) {
        let inputs = self.inputs.clone();
        match effect {
            Effect::Pull { pull, sub_app } => {
                let client = self.client.clone();
                // A task of its own, never dropped: an answer without a receiver hides its events for the
                // whole window.
                self.tasks.spawn(async move {
                    // The lease starts before the request leaves, and so before the cloud's own window.
                    let sent_at = Moment::now();
                    let answered = client.pull_events(sub_app).await;
                    let (received_at, pulled_at) = (Moment::now(), WallTime::now());
                    let (result, error) = match answered {
                        Ok(Pull { request_id, events }) => (
                            Ok(Answer { request_id, events: events.into_iter().map(Arc::new).collect() }),
                            None,
                        ),
                        Err(error) => (Err(cloud::request_failure(error.failure)), Some(error)),
                    };
                    let input = Input::Pulled { pull, sent_at, received_at, pulled_at, result };
                    let request = Some(RequestEnded { sub_app, action: Action::PullEvents, error });
                    send(&inputs, Arrived { input, request });
                    Ok(())
                });
            }
            // Queued here and now, so events leave in the core's order.
            Effect::Publish { event, outgoing, alone } => {
                self.output.publish(event, outgoing, alone, &self.outcomes);
            }
            Effect::Confirm { request, sub_app, handles, cutoff } => {
                let client = self.client.clone();
                self.tasks.spawn(async move {
                    let error = client.confirm_events(sub_app, &handles, cloud::deadline(cutoff)).await.err();
                    let result =
                        error.as_ref().map_or(Ok(()), |error| Err(cloud::request_failure(error.failure)));
                    let ended = RequestEnded { sub_app, action: Action::ConfirmEvents, error };
                    send(
                        &inputs,
                        Arrived { input: Input::Confirmed { request, result }, request: Some(ended) },
                    );
                    Ok(())
                });
            }
            Effect::ProveConfirm { request, sub_app } => {
                let client = self.client.clone();
                self.tasks.spawn(async move {
                    let error = client.prove_confirm(sub_app).await.err();
                    let result =
                        error.as_ref().map_or(Ok(()), |error| Err(cloud::request_failure(error.failure)));
                    // The cloud's complaint about the made-up handle is the proof, and not a failure.
                    let error = error.filter(|error| error.failure != FailureKind::Refused);
                    let ended = RequestEnded { sub_app, action: Action::ConfirmEvents, error };
                    send(
                        &inputs,
                        Arrived { input: Input::ConfirmProof { request, result }, request: Some(ended) },
                    );
                    Ok(())
                });
            }
            // Taken before.
            Effect::Write(_) | Effect::Finished => {}
        }
    }
}

/// Other arrivals belong to the same step.
fn take_more(inputs: &mut Vec<Arrived>, arrived: &mut mpsc::UnboundedReceiver<Arrived>) {
    while inputs.len() < INPUTS_PER_STEP
        && let Ok(more) = arrived.try_recv()
    {
        inputs.push(more);
    }
}

/// Hands an input to the relay's loop. After the loop has ended, the input is not needed.
fn send(inputs: &mpsc::UnboundedSender<Arrived>, arrived: Arrived) {
    let _ = inputs.send(arrived);
}
