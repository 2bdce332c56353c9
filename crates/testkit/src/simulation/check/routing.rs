//! Whether anything that is published gets a queue, by what a process learnt, and what that asks of its polls: few while nothing
//! does, and as many as ever from the first ack on.

use std::collections::{BTreeMap, BTreeSet};

use tencent_vod_event::SubAppId;
use vodrelay_core::identity::EventId;
use vodrelay_core::outcome::PublishOutcome;

use super::{Checker, Guarantee};
use crate::simulation::plan::Theme;

/// So many different events that were returned with no ack between them mean that nothing has a queue.
const RETURNED: usize = 16;
/// Then each sub-application is polled this often at the most.
const POLL_EVERY_MS: u64 = 30_000;
/// Otherwise this often at the least, where nothing is wrong with the cloud: the longest wait after an idle answer, and
/// moments in which the connection is away.
const POLL_WITHIN_MS: u64 = 15_000;

/// What one process learnt.
#[derive(Debug, Default)]
pub(super) struct Routing {
    returned: BTreeSet<EventId>,
    unroutable: bool,
    /// When that changed last.
    turned_at: u64,
    /// The newest poll of each sub-application, the one before it, and the end of the newest.
    asked_at: BTreeMap<SubAppId, u64>,
    asked_before: BTreeMap<SubAppId, u64>,
    ended_at: BTreeMap<SubAppId, u64>,
    acks: u64,
}

impl Routing {
    pub(super) fn turned_at(&self) -> u64 {
        self.turned_at
    }

    pub(super) fn acks(&self) -> u64 {
        self.acks
    }

    pub(super) fn poll_ended(&mut self, sub_app: SubAppId, now: u64) {
        self.ended_at.insert(sub_app, now);
    }

    /// It did nothing, and is asked for again.
    pub(super) fn poll_throttled(&mut self, sub_app: SubAppId) {
        match self.asked_before.remove(&sub_app) {
            Some(at) => self.asked_at.insert(sub_app, at),
            None => self.asked_at.remove(&sub_app),
        };
    }
}

impl Checker {
    /// A core looks at how a publish ended.
    pub(crate) fn learnt(&mut self, relay: usize, event: EventId, outcome: &PublishOutcome) {
        let now = self.now;
        let routing = &mut self.routings[relay];
        match outcome {
            PublishOutcome::Acked => {
                routing.returned.clear();
                routing.acks += 1;
            }
            PublishOutcome::Returned { .. } if routing.returned.len() < RETURNED => {
                routing.returned.insert(event);
            }
            _ => {}
        }
        let (unroutable, acks) = (routing.unroutable, routing.acks);
        if let Some(message) = self.messages.get_mut(&(relay, event)) {
            message.tries.learnt(now, outcome, unroutable, acks);
        }
    }

    /// A core has looked at all that came together; `says` is whether it holds that nothing is routable.
    pub(super) fn turned(&mut self, relay: usize, says: bool) {
        let now = self.now;
        let routing = &mut self.routings[relay];
        let unroutable = routing.returned.len() >= RETURNED;
        if unroutable != routing.unroutable {
            routing.unroutable = unroutable;
            routing.turned_at = now;
        }
        if says != unroutable {
            let (guarantee, count) =
                if says { (Guarantee::NobodyWaits, "fewer than 16") } else { (Guarantee::Bounded, "16") };
            let what = format!(
                "relay {relay} holds that nothing is routable: {says}; {count} events were returned with no ack since"
            );
            self.violated(guarantee, what);
        }
    }

    /// A poll is asked for.
    pub(super) fn polls(&mut self, relay: usize, sub_app: SubAppId) {
        let now = self.now;
        let routing = &mut self.routings[relay];
        let last = routing.asked_at.insert(sub_app, now);
        if let Some(before) = last {
            routing.asked_before.insert(sub_app, before);
        }
        let ended = routing.ended_at.get(&sub_app).copied();
        let (unroutable, turned_at) = (routing.unroutable, routing.turned_at);
        let since_last = last.map(|at| now - at);
        if unroutable && since_last.is_some_and(|ms| ms < POLL_EVERY_MS) {
            let what = format!(
                "relay {relay} polls {sub_app} after {since_last:?} ms, while nothing that is published gets a queue"
            );
            self.violated(Guarantee::Bounded, what);
        }
        let well = matches!(self.plan.theme, Theme::BadNeighbours | Theme::Unbound);
        let free_since = ended.max(last).map(|at| at.max(turned_at));
        if let Some(waited) = free_since.map(|at| now - at).filter(|_| well && !unroutable)
            && waited > POLL_WITHIN_MS
        {
            let what =
                format!("relay {relay} polls {sub_app} after {waited} ms, and nothing keeps it from that");
            self.violated(Guarantee::NobodyWaits, what);
        }
    }
}
