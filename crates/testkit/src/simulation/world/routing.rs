//! The exchange's binding, and polls that rest because of it without a reason, for deliberate bugs.

use super::*;

/// As long as the core's polls rest while nothing is routable.
const REST_MS: u64 = 30_000;
/// So many different returned events open the breaker.
const RETURNED_TO_OPEN: usize = 16;

/// Why polls of a process rest that must not, and when the newest poll of each sub-application left.
#[derive(Debug, Default)]
pub(super) struct Rests {
    /// Different events that were returned, whatever was acked between them.
    returned: BTreeSet<EventId>,
    was_open: bool,
    polled_at: BTreeMap<SubAppId, u64>,
}

impl World {
    pub(super) fn unbind(&mut self, lasts: u64) {
        say!(self, "the exchange has no queue for {lasts} ms");
        if self.stormy {
            self.unbound_until = self.unbound_until.max(self.now + lasts);
        }
    }

    /// A core has learnt how a publish ended, and what its breaker is now.
    pub(super) fn routed(&mut self, relay: usize, event: EventId, outcome: &PublishOutcome) {
        let rests = &mut self.process(relay).rests;
        match outcome {
            PublishOutcome::Returned { .. } => _ = rests.returned.insert(event),
            // A breaker that is open closes, and one that is not forgets nothing.
            PublishOutcome::Acked if rests.returned.len() >= RETURNED_TO_OPEN => rests.returned.clear(),
            _ => {}
        }
    }

    /// How long a poll waits that a deliberate bug holds back.
    pub(super) fn rests_for(&mut self, relay: usize, sub_app: SubAppId) -> u64 {
        let (now, sabotage) = (self.now, self.sabotage);
        let process = self.process(relay);
        let open = process.core.load().unroutable_since.is_some();
        let rests = &mut process.rests;
        rests.was_open |= open;
        let resting = match sabotage {
            Some(Sabotage::BreakerNeverCloses) => rests.was_open && !open,
            Some(Sabotage::BreakerIgnoresAcks) => !open && rests.returned.len() >= RETURNED_TO_OPEN,
            _ => false,
        };
        let last = rests.polled_at.get(&sub_app).copied();
        let at = last.filter(|_| resting).map_or(now, |last| (last + REST_MS).max(now));
        rests.polled_at.insert(sub_app, at);
        at - now
    }
}
