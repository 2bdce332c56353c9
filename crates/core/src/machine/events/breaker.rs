//! Handles the time when nothing is routable: it is not the event's fault, and less is tried.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Events;
use super::in_flight::{InFlight, InFlightState};
use super::refusals::RETRY_WAITS;
use crate::backoff::wait_after;
use crate::clock::Moment;
use crate::identity::EventId;
use crate::machine::world::World;

/// This many different returned events without an ack between them open the breaker.
const RETURNED_TO_OPEN: usize = 16;

/// While the breaker is open, each sub-application is polled this often, and an event waits at most this long
/// for its next publish. So a queue that is bound again is found within this time.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(30);

/// The events that the first ack brings back are spread over this time.
const AFTER_OPEN: Duration = Duration::from_secs(10);

/// Open while no publish is routable.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// The events that were returned since the last ack; no more than needed to open it.
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

    /// An event was acked, so it is routable.
    pub(super) fn acked(&mut self) {
        self.returned.clear();
    }

    /// Opens or closes by the returned events. Returns whether it did.
    fn turn(&mut self, now: Moment) -> bool {
        let unroutable = self.returned.len() >= RETURNED_TO_OPEN;
        if unroutable == self.is_open() {
            return false;
        }
        // Events that were returned after the ack in the same step count.
        self.open_since = unroutable.then_some(now);
        self.load_from = unroutable.then_some(now + PROBE_EVERY);
        true
    }

    /// Whether the backlog may be read further now, or when. While nothing is routable, that is rare and
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
    /// Opens or closes the breaker by this step, and returns whether it did. At the end of the inputs,
    /// because the answers of one batch come together.
    pub(in crate::machine) fn turn_breaker(&mut self, world: &World, rng: &mut fastrand::Rng) -> bool {
        let turned = self.breaker.turn(world.now);
        if turned {
            let longest = if self.breaker.is_open() { PROBE_EVERY } else { AFTER_OPEN };
            self.hurry_refused(world.now, rng, longest);
        }
        turned
    }

    /// How often each sub-application is polled while nothing is routable, to find a routable event.
    pub(in crate::machine) fn polls_rest(&self) -> Option<Duration> {
        self.breaker.is_open().then_some(PROBE_EVERY)
    }

    /// The time since which no publish is routable.
    pub(in crate::machine) fn unroutable_since(&self) -> Option<Moment> {
        self.breaker.open_since()
    }

    /// Limits the wait of events after a return or a refusal to this.
    fn hurry_refused(&mut self, now: Moment, rng: &mut fastrand::Rng, longest: Duration) {
        let late = |(event, in_flight): (&EventId, &InFlight)| {
            let at = in_flight.tries.refused_until().filter(|at| *at > now + longest)?;
            (in_flight.state() == InFlightState::BackingOff).then_some((at, *event))
        };
        let mut late: Vec<(Moment, EventId)> = self.in_hand.iter().filter_map(late).collect();
        // The map has no order, and a seed must always give the same run.
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
    /// The number of returned events since the last ack.
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
