//! What the relay says of its work: a line of progress now and then at info, one a batch and one an event at debug, and
//! failing calls and publishes when they begin to fail, change their reason, and work again. Never a body, never a secret.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::core::{Effect, Input, LetGo, Load, PullId};
use super::stats::Stats;
use crate::clock::Moment;
use crate::event::SubAppId;
use crate::identity::EventId;
use crate::lease::Window;
use crate::outcome::PublishOutcome;
use crate::vod::{Action, CallError};

/// How a call to the cloud ended, with the words that the core has no use for.
#[derive(Debug)]
pub(super) struct CallEnded {
    pub(super) sub_app: SubAppId,
    pub(super) action: Action,
    pub(super) error: Option<CallError>,
}

/// What is being said, and what was said already.
pub(super) struct Report {
    stats: Arc<Stats>,
    window: Window,
    answers: HashMap<PullId, (SubAppId, Arc<str>)>,
    /// Why calls fail now, by whose and which they are: the code, and all of it for people.
    failing: BTreeMap<(SubAppId, &'static str), (String, Arc<str>)>,
    refused: Refused,
    since: Progress,
    /// When progress was told last.
    told_at: Option<Moment>,
}

/// What has been done since it was told last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    pulled: usize,
    redelivered: usize,
    confirmed: usize,
    let_go: usize,
}

/// Progress is told at most so often: a backlog is hundreds of batches a second.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Events whose last publish the broker did not take.
#[derive(Debug, Default)]
struct Refused {
    events: HashSet<EventId>,
    /// The reasons that were told since there are any.
    told: BTreeSet<Arc<str>>,
    newest: Arc<str>,
}

/// How many different reasons of the broker are told before some publish has to succeed first.
const REASONS_TOLD: usize = 8;

impl Report {
    pub(super) fn new(stats: Arc<Stats>, window: Window) -> Self {
        Self {
            stats,
            window,
            answers: HashMap::new(),
            failing: BTreeMap::new(),
            refused: Refused::default(),
            since: Progress::default(),
            told_at: None,
        }
    }

    /// A call ended: transitions are said, not attempts.
    pub(super) fn call(&mut self, call: &CallEnded) {
        let CallEnded { sub_app, action, error } = call;
        let key = (*sub_app, action.name());
        match error {
            None => {
                if self.failing.remove(&key).is_some() {
                    info!(%sub_app, action = action.name(), "calls succeed again");
                }
            }
            Some(error) => {
                let words = format!("sub-application {sub_app}: {error}").into();
                let said = self.failing.insert(key, (error.code.clone(), words));
                if said.is_none_or(|(code, _)| code != error.code) {
                    let next_step = error.next_step();
                    let action = action.name();
                    warn!(%sub_app, action, failure = %error.failure, %error, next_step, "calls fail, and are tried again");
                }
            }
        }
    }

    pub(super) fn input(&mut self, now: Moment, input: &Input) {
        match input {
            Input::Pulled { result: Ok(_), .. } => self.stats.update(|s| s.pulled_at = Some(now)),
            Input::Recorded { pull, recorded } => {
                let Some((sub_app, request_id)) = self.answers.remove(pull) else { return };
                let redelivered = recorded.iter().filter(|r| r.redelivered).count();
                self.stats.update(|s| {
                    s.deliveries += recorded.len() as u64;
                    s.redelivered += redelivered as u64;
                });
                self.since.pulled += recorded.len();
                self.since.redelivered += redelivered;
                debug!(%sub_app, events = recorded.len(), redelivered, %request_id, "pulled and journalled");
                for record in recorded {
                    debug!(
                        event = record.event.0,
                        occurrence = record.occurrence,
                        redelivered = record.redelivered,
                        "event journalled"
                    );
                }
            }
            Input::Published { event, outcome } => {
                self.stats.published(outcome);
                debug!(event = event.0, outcome = outcome.name(), "publish ended");
                self.publish(*event, outcome);
            }
            _ => {}
        }
    }

    pub(super) fn effect(&mut self, now: Moment, effect: &Effect) {
        match effect {
            Effect::Record { pull, sub_app, answer, .. } => {
                self.answers.insert(*pull, (*sub_app, Arc::clone(&answer.request_id)));
            }
            Effect::RecordParked(events) => {
                self.stats.update(|s| s.parked += events.len() as u64);
                for (event, reason) in events {
                    self.taken(*event);
                    warn!(event = event.0, reason = %reason, "event parked; `vodrelay events show` has it");
                }
            }
            Effect::RecordConfirmed(confirmed) => {
                for delivery in confirmed {
                    let lease_left = (delivery.lease.sent_at + self.window.length).since(now);
                    self.stats.confirmed(now.since(delivery.received_at), lease_left);
                    debug!(event = delivery.event.0, "event confirmed");
                }
                self.since.confirmed += confirmed.len();
                debug!(events = confirmed.len(), "confirmed");
            }
            Effect::RecordLetGo(deliveries, why) => {
                self.since.let_go += deliveries.len();
                self.stats.update(|s| s.let_go += deliveries.len() as u64);
                let why = match why {
                    LetGo::Refused => "the cloud rejects the handle",
                    LetGo::Lost => "no answer before the lease lapsed",
                };
                debug!(handles = deliveries.len(), why, "handles let go; their events come again");
            }
            _ => {}
        }
    }

    /// A publish ended. What the state of the output tells already is not told again.
    fn publish(&mut self, event: EventId, outcome: &PublishOutcome) {
        let reason: Arc<str> = match outcome {
            PublishOutcome::Acked => return self.taken(event),
            PublishOutcome::Unknown { .. } | PublishOutcome::Unsent => return,
            PublishOutcome::Nacked => {
                "RabbitMQ nacks publishes: see whether the queue is full, and its log".into()
            }
            PublishOutcome::Returned { code, text } => format!(
                "RabbitMQ returns publishes ({code} {text}): see that a queue is bound for their routing keys"
            )
            .into(),
            PublishOutcome::ChannelError { code, text } => {
                format!("RabbitMQ refuses publishes ({code}): {text}").into()
            }
        };
        self.refused.events.insert(event);
        self.refused.newest = Arc::clone(&reason);
        if self.refused.told.len() < REASONS_TOLD && self.refused.told.insert(Arc::clone(&reason)) {
            warn!(%reason, "publishes fail, and are tried again");
        }
    }

    /// The broker has the event, or it was given up.
    fn taken(&mut self, event: EventId) {
        if self.refused.events.remove(&event) && self.refused.events.is_empty() {
            self.refused = Refused::default();
            info!("publishes do not fail any more");
        }
    }

    /// Tells what was done since it was told last, if there is anything to tell.
    pub(super) fn progress(&mut self) {
        let Progress { pulled, redelivered, confirmed, let_go } = std::mem::take(&mut self.since);
        if pulled + confirmed + let_go > 0 {
            info!(pulled, redelivered, confirmed, let_go, "relayed");
        }
    }

    pub(super) fn load(&mut self, now: Moment, load: Load) {
        if self.since != Progress::default() && self.told_at.is_none_or(|at| now.since(at) >= PROGRESS_EVERY)
        {
            self.told_at = Some(now);
            self.progress();
        }
        let trouble = self.trouble(load);
        self.stats.update(|s| {
            s.load = load;
            s.trouble = trouble;
        });
    }

    /// What fails now: one thing, so that the line stays a line.
    fn trouble(&self, load: Load) -> Option<Arc<str>> {
        if !self.refused.events.is_empty() {
            return Some(Arc::clone(&self.refused.newest));
        }
        let failing = |wanted: Action| {
            let found = self.failing.iter().find(|((_, action), _)| *action == wanted.name());
            found.map(|(_, (_, words))| Arc::clone(words))
        };
        // A confirm that failed is no trouble any more when no handle is left to be confirmed.
        let confirms = || (load.handles > 0).then(|| failing(Action::ConfirmEvents)).flatten();
        failing(Action::PullEvents).or_else(confirms)
    }
}
