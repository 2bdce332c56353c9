//! Proves the right to confirm while there is nothing to confirm.
//!
//! A key without `vod:ConfirmEvents` can pull. On an idle queue that would stay hidden until the first event
//! lapses. So a `ConfirmEvents` with a made-up handle is sent after an idle answer, as long as no other
//! request has proven the right. Any answer about the handle is proof.

use std::time::Duration;

use super::Handles;
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::machine::outbox::Outbox;
use crate::machine::quota::Ticket;
use crate::machine::types::ConfirmId;
use crate::machine::world::World;
use crate::outcome::RequestFailure;

/// The waits after a request that proved nothing: granting the right takes minutes.
const WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// The state of one sub-application's right to confirm.
#[derive(Debug)]
pub(super) struct ConfirmRight {
    proven: bool,
    /// The request in flight.
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

    /// The end of any `ConfirmEvents` of the sub-application.
    pub(super) fn learn(&mut self, result: Result<(), RequestFailure>) {
        match result {
            Ok(()) | Err(RequestFailure::Refused) => self.proven = true,
            // The right was withdrawn.
            Err(RequestFailure::Configuration | RequestFailure::Credentials) => self.proven = false,
            Err(RequestFailure::Throttled | RequestFailure::Clock | RequestFailure::Transient) => {}
        }
    }

    fn wants_to_ask(&self, now: Moment) -> bool {
        !self.proven && self.asking.is_none() && self.idle && now >= self.not_before
    }
}

impl Handles {
    /// A pull of this sub-application found nothing, so there may be time for the request.
    pub(in crate::machine) fn idle_answer(&mut self, sub_app: usize) {
        self.sub_apps[sub_app].right.idle = true;
    }

    /// Sends the requests that prove the right to confirm. They come last: events go first, and a request
    /// that cannot leave now waits for the next idle answer.
    pub(in crate::machine) fn prove_rights(&mut self, world: &World, out: &mut Outbox) {
        if world.draining || self.any_request() {
            return;
        }
        for sub_app in &mut self.sub_apps {
            let polled = world.settings.sub_apps.contains(&sub_app.id);
            if !polled || !sub_app.right.wants_to_ask(world.now) {
                continue;
            }
            let Ok(ticket) = self.quota.take(world.now) else { return };
            sub_app.right.asking = Some((out.prove_confirm(sub_app.id), ticket));
            sub_app.right.idle = false;
        }
    }

    /// A request for a proof ended.
    pub(in crate::machine) fn proof_ended(
        &mut self,
        world: &World,
        rng: &mut fastrand::Rng,
        request: ConfirmId,
        result: Result<(), RequestFailure>,
    ) {
        let asked = |right: &ConfirmRight| right.asking.as_ref().is_some_and(|(asked, _)| *asked == request);
        let mut rights = self.sub_apps.iter_mut().map(|sub_app| &mut sub_app.right);
        let Some(right) = rights.find(|right| asked(right)) else { return };
        let Some((_, ticket)) = right.asking.take() else { return };
        right.learn(result);
        right.not_before = world.now + right.backoff.next(rng);
        if result == Err(RequestFailure::Throttled) {
            self.quota.throttled(ticket, world.now, rng);
        }
    }
}
