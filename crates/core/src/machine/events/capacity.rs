//! How many events may be in flight.

use std::time::Duration;

use super::Events;
use super::in_flight::InFlight;
use crate::clock::Moment;
use crate::identity::EventId;
use crate::lease::Lease;
use crate::machine::polls::Recordings;
use crate::machine::types::{ConfirmAfter, Settings};
use crate::machine::world::World;
use crate::write::EVENTS_PER_PULL;

/// The time from none to the configured number.
const RETURN: Duration = Duration::from_secs(1_800);

/// As many as configured, or fewer: as many as the output makes safe within their leases. Further events
/// would lapse in flight and come again repeatedly, and published ones would wait behind them for their
/// confirm.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    most: usize,
    events: usize,
    lowered_at: Moment,
}

impl Capacity {
    pub(super) fn new(max_in_flight: usize, now: Moment) -> Self {
        Self { most: max_in_flight, events: max_in_flight, lowered_at: now }
    }

    /// How many events may be in flight.
    pub(super) fn events(&self, now: Moment) -> usize {
        let returned = now.since(self.lowered_at).as_secs_f64() / RETURN.as_secs_f64() * self.most as f64;
        self.events.saturating_add(returned as usize).min(self.most)
    }

    /// A lease lapsed while its event waited for the output. Leases that began before the capacity was
    /// lowered say nothing new.
    pub(super) fn lapsed(&mut self, lease: Lease, in_hand: usize, now: Moment) {
        if lease.sent_at >= self.lowered_at {
            // At least so many that some failing events do not fill it.
            let least = (self.most / 8).max(4 * EVENTS_PER_PULL).min(self.most);
            self.events = (self.events(now).min(in_hand) / 2).max(least);
            self.lowered_at = now;
        }
    }
}

impl Events {
    /// Events in flight, or on their way there through the journal.
    pub(super) fn held(&self, recordings: Recordings) -> usize {
        self.in_hand.len() + recordings.events()
    }

    /// How many more events polls may bring, if any.
    pub(in crate::machine) fn capacity_for_polls(
        &self,
        world: &World,
        recordings: Recordings,
    ) -> Option<usize> {
        self.capacity
            .events(world.now)
            .saturating_add(self.capacity_besides(world))
            .checked_sub(self.held(recordings) + self.backlog.coming())
    }

    /// How many events may be in flight only to be published. With `confirm_after = "journal"` the other half
    /// is kept for pulling: the cloud must not wait while the broker takes nothing.
    pub(super) fn capacity_for_publishing(&self, world: &World) -> usize {
        let most = match world.settings.relay.confirm_after {
            ConfirmAfter::Publish => world.settings.relay.max_in_flight,
            ConfirmAfter::Journal => world.settings.relay.max_in_flight / 2,
        };
        most.saturating_add(self.capacity_besides(world))
    }

    /// How many more events may be in flight, because the broker returns or refuses some for minutes, or
    /// because some may break the connection. The others must not wait for their capacity. An event that may
    /// break the connection is given up only when others get through. While nothing is routable, this is the
    /// capacity for an event that may be.
    fn capacity_besides(&self, world: &World) -> usize {
        let most = (world.settings.relay.max_in_flight / 4).max(EVENTS_PER_PULL);
        if self.breaker.is_open() { most } else { (self.refused + self.suspected).min(most) }
    }

    /// Takes over new settings.
    pub(in crate::machine) fn configure(&mut self, old: &Settings, new: &Settings, now: Moment) {
        if old.relay.max_in_flight != new.relay.max_in_flight {
            self.capacity = Capacity::new(new.relay.max_in_flight, now);
        }
    }

    /// The lease of these events' handle ended. If one of them only waits for an output that is up, the
    /// output is too slow for this many.
    pub(in crate::machine) fn lease_lapsed(
        &mut self,
        world: &World,
        recordings: Recordings,
        lease: Lease,
        events: &[EventId],
    ) {
        // Nothing is wrong with such an event: its publish has not begun, or takes long.
        let waits = |in_flight: &InFlight| in_flight.waits_for_the_output(world.settings.relay.confirm_after);
        if world.output_up && events.iter().any(|event| self.in_hand.get(event).is_some_and(waits)) {
            self.capacity.lapsed(lease, self.held(recordings), world.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(sent_at: u64) -> Lease {
        Lease { sent_at: Moment(sent_at), cutoff: Moment(sent_at + 27_000) }
    }

    #[test]
    fn capacity_is_halved_once_for_what_lapses_together_and_returns() {
        let mut capacity = Capacity::new(1_024, Moment(0));
        capacity.lapsed(lease(10), 1_000, Moment(27_010));
        capacity.lapsed(lease(20_000), 1_000, Moment(47_000));
        assert_eq!(capacity.events(Moment(27_010)), 500);
        assert_eq!(capacity.events(Moment(127_010)), 556);
        assert_eq!(capacity.events(Moment(1_027_010)), 1_024);
        for second in 100..200 {
            capacity.lapsed(lease(second * 30_000), 100, Moment(second * 30_000 + 27_000));
        }
        assert_eq!(capacity.events(Moment(6_000_000)), 128 + 1);
    }

    #[test]
    fn a_small_room_is_left_as_it_is_and_a_boundless_one_does_not_overflow() {
        for most in [1, 16, 64] {
            let mut capacity = Capacity::new(most, Moment(0));
            capacity.lapsed(lease(0), most, Moment(27_000));
            assert_eq!(capacity.events(Moment(27_000)), most);
        }
        let mut capacity = Capacity::new(usize::MAX, Moment(0));
        capacity.lapsed(lease(0), 1_000, Moment(27_000));
        assert_eq!(capacity.events(Moment(u64::MAX)), usize::MAX);
    }
}
