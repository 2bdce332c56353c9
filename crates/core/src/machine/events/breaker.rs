//! When nothing at all is routable: it is not the event's fault, and less is tried.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Events;
use super::in_flight::{InFlight, InFlightState};
use super::refusals::RETRY_WAITS;
use crate::backoff::wait_after;
use crate::clock::Moment;
use crate::identity::EventId;
use crate::machine::world::World;

/// So many different events that were returned without an ack between them open the breaker.
const RETURNED_TO_OPEN: usize = 16;

/// While the breaker is open, each sub-application is polled this often, and an event waits for its next
/// publish at most so long: a queue that is bound again is found within this time.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(30);

/// What the first ack after a return of everything brings back is spread over this time.
const AFTER_OPEN: Duration = Duration::from_secs(10);

/// Open while nothing that is published gets a queue.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Events that were returned since the last ack; no more than open it.
    returned: BTreeSet<EventId>,
    open_since: Option<Moment>,
    /// The next read of the backlog, while it is open.
    load_from: Option<Moment>,
}

impl Breaker {
    pub(super) fn open_since(&self) -> Option<Moment> {
        self.open_since
    }

    pub(super) fn is_open(&self) -> bool {
        self.open_since.is_some()
    }

    /// The broker returned an event.
    pub(super) fn returned(&mut self, event: EventId) {
        if self.returned.len() < RETURNED_TO_OPEN {
            self.returned.insert(event);
        }
    }

    /// Something was acked, and is routable.
    pub(super) fn acked(&mut self) {
        self.returned.clear();
    }

    /// Opens or closes by what was returned. Says whether it did.
    fn turn(&mut self, now: Moment) -> bool {
        let unroutable = self.returned.len() >= RETURNED_TO_OPEN;
        if unroutable == self.is_open() {
            return false;
        }
        // What was returned after the ack, in the same step, counts.
        self.open_since = unroutable.then_some(now);
        self.load_from = unroutable.then_some(now + PROBE_EVERY);
        true
    }

    /// Whether the backlog may be read on now, or when: while nothing is routable, only now and then and a
    /// little.
    pub(super) fn may_load(&mut self, now: Moment) -> Result<(), Moment> {
        match self.load_from {
            Some(at) if at > now => Err(at),
            Some(_) => {
                self.load_from = Some(now + PROBE_EVERY);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Events {
    /// Opens or closes the breaker by what this step brought, and says whether it did. At the end of the
    /// inputs, because the answers of one batch come together.
    pub(in crate::machine) fn turn_breaker(&mut self, world: &World, rng: &mut fastrand::Rng) -> bool {
        let turned = self.breaker.turn(world.now);
        if turned {
            let longest = if self.breaker.is_open() { PROBE_EVERY } else { AFTER_OPEN };
            self.hurry_refused(world.now, rng, longest);
        }
        turned
    }

    /// How often each sub-application is to be polled, while nothing is routable: so that an event is met
    /// that is.
    pub(in crate::machine) fn polls_rest(&self) -> Option<Duration> {
        self.breaker.is_open().then_some(PROBE_EVERY)
    }

    /// Since when nothing that is published gets a queue.
    pub(in crate::machine) fn unroutable_since(&self) -> Option<Moment> {
        self.breaker.open_since()
    }

    /// Makes events that wait after a return or a refusal wait no longer than this.
    fn hurry_refused(&mut self, now: Moment, rng: &mut fastrand::Rng, longest: Duration) {
        let late = |(event, in_flight): (&EventId, &InFlight)| {
            let at = in_flight.tries.refused_until().filter(|at| *at > now + longest)?;
            (in_flight.state() == InFlightState::BackingOff).then_some((at, *event))
        };
        let mut late: Vec<(Moment, EventId)> = self.in_hand.iter().filter_map(late).collect();
        // The map has no order, and one seed is to be one run.
        late.sort_unstable();
        for (at, event) in late {
            self.retries.remove(&(at, event));
            let wait = wait_after(u32::MAX, RETRY_WAITS.0, longest, rng);
            self.wait_until(now + wait, event);
        }
    }
}

#[cfg(test)]
impl Events {
    /// How many events were returned since the last ack.
    pub(in crate::machine) fn returned(&self) -> usize {
        self.breaker.returned.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_different_returns_without_an_ack_open_it_and_an_ack_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 0..40 {
            breaker.returned(EventId(1));
        }
        for event in 2..16 {
            breaker.returned(EventId(event));
        }
        assert!(!breaker.turn(Moment(0)), "fifteen are not enough");
        breaker.returned(EventId(16));
        assert!(breaker.turn(Moment(1)) && breaker.open_since() == Some(Moment(1)));
        assert!(!breaker.turn(Moment(2)), "it turns once");
        breaker.acked();
        breaker.returned(EventId(1));
        assert!(breaker.turn(Moment(3)) && !breaker.is_open());
    }

    #[test]
    fn while_it_is_open_the_backlog_is_read_now_and_then() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.may_load(Moment(0)), Ok(()));
        (0..16).for_each(|event| breaker.returned(EventId(event)));
        breaker.turn(Moment(0));
        assert_eq!(breaker.may_load(Moment(1)), Err(Moment(30_000)));
        assert_eq!(breaker.may_load(Moment(30_000)), Ok(()));
        assert_eq!(breaker.may_load(Moment(30_001)), Err(Moment(60_000)));
    }
}
