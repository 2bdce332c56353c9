//! Proof of the right to confirm while nothing is there to be confirmed.
//!
//! A key without `vod:ConfirmEvents` can pull: on an idle queue nothing would tell until the first event lapses. So a
//! `ConfirmEvents` with a made-up handle is sent after an idle answer, as long as no other request has proven the right. Any
//! answer that is about the handle is proof.

use std::time::Duration;

use super::{ConfirmId, Core, Ticket};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::outcome::RequestFailure;

/// The waits after a request that proved nothing: somebody has to grant the right, and that takes minutes.
const WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// What is known of one sub-application's right to confirm.
#[derive(Debug)]
pub(super) struct ConfirmRight {
    proven: bool,
    /// The request under way.
    asking: Option<(ConfirmId, Ticket)>,
    /// Whether an answer was idle since the last request.
    idle: bool,
    not_before: Moment,
    backoff: Backoff,
}

impl ConfirmRight {
    pub(super) fn new() -> Self {
        Self {
            proven: false,
            asking: None,
            idle: false,
            not_before: Moment(0),
            backoff: Backoff::new(WAITS.0, WAITS.1),
        }
    }

    /// A pull found nothing: there may be time to ask.
    pub(super) fn idle_answer(&mut self) {
        self.idle = true;
    }

    /// How any `ConfirmEvents` of the sub-application ended.
    pub(super) fn learn(&mut self, result: Result<(), RequestFailure>) {
        match result {
            Ok(()) | Err(RequestFailure::Refused) => self.proven = true,
            // The right was taken away.
            Err(RequestFailure::Configuration | RequestFailure::Credentials) => self.proven = false,
            Err(RequestFailure::Throttled | RequestFailure::Clock | RequestFailure::Transient) => {}
        }
    }

    fn wants_to_ask(&self, now: Moment) -> bool {
        !self.proven && self.asking.is_none() && self.idle && now >= self.not_before
    }
}

impl Core {
    /// Sends the requests that are to prove the right to confirm. They wait for everything else: what an event needs goes
    /// first, and one that cannot go now waits for the next idle answer.
    pub(super) fn prove_rights(&mut self, now: Moment) {
        if self.world.draining || !self.requests.is_empty() || self.confirm_queue.iter().next().is_some() {
            return;
        }
        for index in 0..self.queues.len() {
            let polled = self.world.settings.sub_apps.contains(&self.queues[index].id);
            if !polled || !self.queues[index].confirm_right.wants_to_ask(now) {
                continue;
            }
            let Ok(ticket) = self.confirm_quota.take(now) else { return };
            let queue = &mut self.queues[index];
            let request = self.out.prove_confirm(queue.id);
            queue.confirm_right.asking = Some((request, ticket));
            queue.confirm_right.idle = false;
        }
    }

    /// A request that was to prove the right ended.
    pub(super) fn confirm_proof(
        &mut self,
        now: Moment,
        request: ConfirmId,
        result: Result<(), RequestFailure>,
    ) {
        let asked = |right: &ConfirmRight| right.asking.as_ref().is_some_and(|(asked, _)| *asked == request);
        let Some(queue) = self.queues.iter_mut().find(|queue| asked(&queue.confirm_right)) else { return };
        let right = &mut queue.confirm_right;
        let Some((_, ticket)) = right.asking.take() else { return };
        right.learn(result);
        right.not_before = now + right.backoff.next(&mut self.rng);
        if result == Err(RequestFailure::Throttled) {
            self.confirm_quota.throttled(ticket, now, &mut self.rng);
        }
    }
}
