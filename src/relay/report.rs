//! What the relay says of its work: one line a batch at info, one an event at debug, and failing calls when they begin to
//! fail, change their reason, and work again. Never a body, never a secret.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::core::{Effect, Input, LetGo, Load, PullId};
use super::stats::Stats;
use crate::clock::Moment;
use crate::event::SubAppId;
use crate::lease::Window;
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
    /// Why calls fail now, by whose and which they are.
    failing: HashMap<(SubAppId, Action), String>,
}

impl Report {
    pub(super) fn new(stats: Arc<Stats>, window: Window) -> Self {
        Self { stats, window, answers: HashMap::new(), failing: HashMap::new() }
    }

    /// A call ended: transitions are said, not attempts.
    pub(super) fn call(&mut self, call: &CallEnded) {
        let CallEnded { sub_app, action, error } = call;
        let key = (*sub_app, *action);
        match error {
            None => {
                if self.failing.remove(&key).is_some() {
                    info!(%sub_app, action = action.name(), "calls succeed again");
                }
            }
            Some(error) => {
                let said = self.failing.insert(key, error.code.clone());
                if said.as_deref() != Some(error.code.as_str()) {
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
                info!(%sub_app, events = recorded.len(), redelivered, %request_id, "pulled and journalled");
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
                    warn!(event = event.0, reason = %reason, "event parked; `vodrelay events show` has it");
                }
            }
            Effect::RecordConfirmed(confirmed) => {
                for delivery in confirmed {
                    let lease_left = (delivery.lease.sent_at + self.window.length).since(now);
                    self.stats.confirmed(now.since(delivery.received_at), lease_left);
                    debug!(event = delivery.event.0, "event confirmed");
                }
                info!(events = confirmed.len(), "confirmed");
            }
            Effect::RecordLetGo(deliveries, why) => {
                self.stats.update(|s| s.let_go += deliveries.len() as u64);
                let why = match why {
                    LetGo::Refused => "the cloud rejects the handle",
                    LetGo::Lost => "no answer before the lease lapsed",
                };
                info!(handles = deliveries.len(), why, "handles let go; their events come again");
            }
            _ => {}
        }
    }

    pub(super) fn load(&self, load: Load) {
        self.stats.update(|s| s.load = load);
    }
}
