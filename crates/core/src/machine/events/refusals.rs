//! Events that the broker does not take: how long each waits, when one is parked, and when one is published
//! alone.

use std::time::Duration;

use super::Events;
use super::breaker::PROBE_EVERY;
use super::in_flight::InFlightState;
use crate::backoff::wait_after;
use crate::clock::Moment;
use crate::identity::EventId;
use crate::machine::world::World;

/// The waits between two publishes of one event without an answer, or with a missing exchange or permission.
pub(super) const RETRY_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The waits after nacks. RabbitMQ may have stored the message in one queue while it nacks it for another
/// one, so each attempt can be one more copy.
const NACK_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(300));

/// The longest wait after the first return or refusal of an event. The next one is five times as long: five
/// attempts are spread over about three minutes, so a short loss of a binding parks nothing.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);
const REFUSAL_FACTOR: u32 = 5;
const REFUSAL_WAIT_MAX: Duration = Duration::from_secs(300);

/// The same while many events wait: only twice as long. Otherwise one frequent unroutable type uses up the
/// capacity, and the routable ones wait.
const CROWDED_WAIT: Duration = Duration::from_secs(1);
const CROWDED_FACTOR: u32 = 2;

/// An event that was returned or refused for this long is parked in any case.
const REFUSED_MAX: Duration = Duration::from_secs(600);

/// An event that lost this many answers in a row is published alone: it may be what breaks the connection.
const LOSSES_BEFORE_ALONE: u32 = 3;

/// An event that lost this many answers alone, while others were acked, is parked.
const LOSSES_ALONE: u32 = 3;

/// The results of one event's publishes so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries {
    /// Publishes that failed in any way.
    failures: u32,
    /// Publishes that were returned or refused while others were acked; this many are allowed.
    refusals: u32,
    /// The time since which the broker returns or refuses it.
    refused_since: Option<Moment>,
    /// The waits that the next failure uses.
    waits: Waits,
    /// The end of the current wait.
    retry_at: Option<Moment>,
    /// Publishes in a row that lost their answer.
    losses: u32,
    /// Those of them that were alone.
    losses_alone: u32,
    /// The number of acks at the first of them.
    acks_before: u64,
}

/// The kind of an event's wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waits {
    #[default]
    Retry,
    Nacked,
    Refused,
}

impl Tries {
    /// Whether it may be the event that breaks the connection.
    pub(super) fn is_suspect(&self) -> bool {
        self.losses >= LOSSES_BEFORE_ALONE
    }

    /// Whether no publish of it has failed yet.
    pub(super) fn none_failed(&self) -> bool {
        self.failures == 0
    }

    /// A publish failed, in any way.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The time of its next publish, if it waits after a return or a refusal.
    pub(super) fn refused_until(&self) -> Option<Moment> {
        self.retry_at.filter(|_| self.waits == Waits::Refused)
    }
}

impl Events {
    /// An event was acked: whatever was returned before, an event is routable.
    pub(super) fn acked(&mut self, event: EventId) {
        self.acks += 1;
        self.breaker.acked();
        self.no_longer_refused(event);
    }

    pub(super) fn no_longer_refused(&mut self, event: EventId) {
        self.answered(event);
        if let Some(in_flight) = self.in_hand.get_mut(&event)
            && in_flight.tries.refused_since.take().is_some()
        {
            self.refused -= 1;
        }
    }

    /// The broker answered: the event does not break the connection.
    fn answered(&mut self, event: EventId) {
        if let Some(in_flight) = self.in_hand.get_mut(&event) {
            self.suspected -= usize::from(in_flight.tries.is_suspect());
            in_flight.tries.losses = 0;
            in_flight.tries.losses_alone = 0;
        }
    }

    /// The broker nacked it: its waits grow longer than others.
    pub(super) fn nacked(&mut self, event: EventId) {
        self.answered(event);
        if let Some(in_flight) = self.in_hand.get_mut(&event) {
            in_flight.tries.waits = Waits::Nacked;
        }
    }

    /// The broker returned or refused it. Returns whether it is to be parked.
    pub(super) fn event_refused(&mut self, world: &World, event: EventId, returned: bool) -> bool {
        if returned {
            self.breaker.returned(event);
        }
        self.answered(event);
        let open = self.breaker.is_open();
        let attempts = world.settings.relay.publish_attempts;
        let Some(in_flight) = self.in_hand.get_mut(&event) else { return false };
        let tries = &mut in_flight.tries;
        tries.waits = Waits::Refused;
        if tries.refused_since.is_none() {
            self.refused += 1;
        }
        let since = *tries.refused_since.get_or_insert(world.now);
        // While nothing is routable, it is not the event's fault.
        tries.refusals += u32::from(!(open && returned));
        tries.refusals >= attempts || world.now.since(since) >= REFUSED_MAX
    }

    /// An event lost its answer. Returns why it is to be parked, if it is.
    pub(super) fn lost(&mut self, event: EventId, was_alone: bool) -> Option<String> {
        let acks = self.acks;
        let tries = &mut self.in_hand.get_mut(&event)?.tries;
        tries.waits = Waits::Retry;
        if tries.losses == 0 {
            tries.acks_before = acks;
        }
        tries.losses += 1;
        self.suspected += usize::from(tries.losses == LOSSES_BEFORE_ALONE);
        tries.losses_alone += u32::from(was_alone);
        // A broker that breaks under any publish is not this event's fault: others must have been acked
        // meanwhile.
        let others_got_through = acks > tries.acks_before;
        (tries.losses_alone >= LOSSES_ALONE && others_got_through).then(|| {
            format!(
                "its publish had no answer {} times in a row, the last {} times alone, while other events were acked: it seems to break the connection",
                tries.losses, tries.losses_alone
            )
        })
    }

    /// How long an event waits for its next publish.
    pub(super) fn wait(&self, world: &World, rng: &mut fastrand::Rng, event: EventId) -> Duration {
        let open = self.breaker.is_open();
        let crowded = self.refused > world.settings.relay.max_in_flight / 4;
        let Some(in_flight) = self.in_hand.get(&event) else { return RETRY_WAITS.0 };
        let Tries { failures, refused_since, waits, .. } = in_flight.tries;
        let earlier = failures.saturating_sub(1);
        match waits {
            Waits::Retry => wait_after(earlier, RETRY_WAITS.0, RETRY_WAITS.1, rng),
            Waits::Nacked => wait_after(earlier, NACK_WAITS.0, NACK_WAITS.1, rng),
            Waits::Refused => {
                let (first, factor) =
                    if crowded { (CROWDED_WAIT, CROWDED_FACTOR) } else { (REFUSAL_WAIT, REFUSAL_FACTOR) };
                let grown = factor.checked_pow(earlier).unwrap_or(u32::MAX);
                let most = if open { PROBE_EVERY } else { REFUSAL_WAIT_MAX };
                let longest = first.saturating_mul(grown).min(most);
                let wait = wait_after(u32::MAX, longest / REFUSAL_FACTOR, longest, rng);
                // Its last attempt comes when its time is over, not later.
                let left =
                    refused_since.map_or(wait, |since| REFUSED_MAX.saturating_sub(world.now.since(since)));
                wait.min(left).max(RETRY_WAITS.0)
            }
        }
    }

    /// An event waits until its next publish is due.
    pub(super) fn wait_until(&mut self, at: Moment, event: EventId) {
        let Some(in_flight) = self.in_hand.get_mut(&event) else { return };
        in_flight.enter(InFlightState::BackingOff);
        in_flight.tries.retry_at = Some(at);
        self.retries.insert((at, event));
    }
}
