//! The results of one step: its effects, the rows of its commits, and the time at which the core wants to run
//! again.
//!
//! The owners only add to it. Writes leave first. The consequence of a commit waits for the journal's answer.

use tencent_vod_event::SubAppId;

use super::types::{ConfirmId, Effect};
use crate::clock::Moment;
use crate::identity::{DeliveryId, EventId};
use crate::outcome::Problem;
use crate::write::{ConfirmedDelivery, FailedAttempt, LetGo, PullId, Write};

/// Effects of one step. Rows that share a commit are gathered until [`Outbox::flush`].
#[derive(Debug, Default)]
pub(super) struct Outbox {
    effects: Vec<Effect>,
    published: Vec<EventId>,
    attempts: Vec<FailedAttempt>,
    parked: Vec<(EventId, Problem)>,
    confirmed: Vec<ConfirmedDelivery>,
    refused: Vec<DeliveryId>,
    lost: Vec<DeliveryId>,
    /// Commits without an answer that only the drain waits for.
    commits: usize,
    /// The next time at which an owner wants to run, beside its timers.
    wake_at: Option<Moment>,
    last_id: u64,
}

impl Outbox {
    /// A number that nothing else has.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Asks for a pull.
    pub(super) fn pull(&mut self, sub_app: SubAppId) -> PullId {
        let pull = PullId(self.new_id());
        self.effects.push(Effect::Pull { pull, sub_app });
        pull
    }

    /// Asks for a proof of the right to confirm.
    pub(super) fn prove_confirm(&mut self, sub_app: SubAppId) -> ConfirmId {
        let request = ConfirmId(self.new_id());
        self.effects.push(Effect::ProveConfirm { request, sub_app });
        request
    }

    /// Any other effect.
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The broker acked this event.
    pub(super) fn published(&mut self, event: EventId) {
        self.published.push(event);
    }

    /// A publish failed.
    pub(super) fn failed(&mut self, attempt: FailedAttempt) {
        self.attempts.push(attempt);
    }

    /// The relay gives this event up.
    pub(super) fn parked(&mut self, event: EventId, problem: Problem) {
        self.parked.push((event, problem));
    }

    /// The cloud accepted a handle.
    pub(super) fn confirmed(&mut self, delivery: ConfirmedDelivery) {
        self.confirmed.push(delivery);
    }

    /// The cloud refused the handle of this delivery.
    pub(super) fn refused(&mut self, delivery: DeliveryId) {
        self.refused.push(delivery);
    }

    /// A confirm of this delivery was sent, and no answer came in time.
    pub(super) fn lost(&mut self, delivery: DeliveryId) {
        self.lost.push(delivery);
    }

    /// The cloud holds nothing of this sub-application that was received before this moment.
    pub(super) fn settle(&mut self, sub_app: SubAppId, received_before: Moment) {
        self.commits += 1;
        self.effects.push(Effect::Write(Write::Settle { sub_app, received_before }));
    }

    /// An owner wants to run at this moment.
    pub(super) fn wake(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// All owners run now.
    pub(super) fn wakes(&mut self) {
        self.wake_at = None;
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.wake_at
    }

    /// The journal committed a write of [`Outbox::flush`] or [`Outbox::settle`].
    pub(super) fn committed(&mut self) {
        self.commits -= 1;
    }

    /// Whether a commit that only the drain waits for has no answer yet.
    pub(super) fn has_open_commits(&self) -> bool {
        self.commits > 0
    }

    /// Turns the gathered results into effects. Writes come first: their consequences wait for the answer,
    /// and other effects lose nothing by coming later.
    pub(super) fn flush(&mut self) {
        let mut commits = Vec::new();
        if !self.published.is_empty() {
            commits.push(Effect::Write(Write::Published(std::mem::take(&mut self.published).into())));
        }
        if !self.parked.is_empty() {
            commits.push(Effect::Write(Write::Parked(std::mem::take(&mut self.parked).into())));
        }
        if !self.attempts.is_empty() {
            commits.push(Effect::Write(Write::Failed(std::mem::take(&mut self.attempts).into())));
        }
        if !self.confirmed.is_empty() {
            commits.push(Effect::Write(Write::Confirmed(std::mem::take(&mut self.confirmed).into())));
        }
        for (deliveries, why) in [(&mut self.refused, LetGo::Refused), (&mut self.lost, LetGo::Lost)] {
            if !deliveries.is_empty() {
                commits.push(Effect::Write(Write::LetGo(std::mem::take(deliveries).into(), why)));
            }
        }
        self.commits += commits.len();
        self.effects.splice(0..0, commits);
    }

    /// The effects, in this order.
    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
