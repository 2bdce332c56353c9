//! What becomes of an answer after its record.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use tencent_vod_event::Event;

use super::handles::{HandleEnd, HandleEnded, HandleId, HeldDelivery};
use super::{Core, InFlight, InFlightState};
use crate::clock::Moment;
use crate::identity::{EventId, Recorded};
use crate::outgoing::Outgoing;
use crate::write::Pulled;

impl Core {
    /// How many events more can be held.
    pub(super) fn capacity_for_polls(&self, now: Moment) -> Option<usize> {
        self.capacity
            .events(now)
            .saturating_add(self.capacity_besides())
            .checked_sub(self.in_hand() + self.backlog.coming())
    }

    /// Events in the relay's hands, or on their way there through the journal.
    pub(super) fn in_hand(&self) -> usize {
        self.events.len() + self.polls.recordings().events()
    }

    pub(super) fn recorded(&mut self, pulled: &Pulled, recorded: Vec<Recorded>) {
        self.polls.recorded(pulled);
        let Some(index) = self.sub_apps.iter().position(|id| *id == pulled.sub_app) else { return };
        for (event, record) in pulled.events.iter().zip(recorded) {
            self.meet(index, pulled, event, record);
            let held = event.handle.as_ref().and_then(|handle| {
                let Recorded { delivery, event, .. } = record;
                let (lease, received_at) = (pulled.lease, pulled.received_at);
                let held = HeldDelivery { sub_app: index, handle, lease, received_at, delivery, event };
                self.handles.hold(self.world.now, &mut self.out, &held)
            });
            match held {
                Some(handle) => {
                    self.held_by(record.event, handle);
                    self.review(handle);
                }
                // It cannot be confirmed: once it is safe, it is done, and the cloud will hand it over again.
                None => self.forget_if_done(record.event),
            }
        }
    }

    fn held_by(&mut self, event: EventId, handle: HandleId) {
        if let Some(in_flight) = self.events.get_mut(&event)
            && !in_flight.holds.contains(&handle)
        {
            in_flight.holds.push(handle);
        }
    }

    /// What is known of a handle's events changed.
    pub(super) fn review(&mut self, handle: HandleId) {
        let confirm_after = self.world.settings.confirm_after;
        let events = &self.events;
        let may_confirm =
            |event| events.get(&event).is_none_or(|in_flight| in_flight.may_confirm(confirm_after));
        self.handles.review(self.world.now, handle, may_confirm);
    }

    /// Takes an event into the relay's hands, unless it is there already.
    fn meet(&mut self, index: usize, pulled: &Pulled, event: &Arc<Event>, record: Recorded) {
        let new = match self.events.entry(record.event) {
            Entry::Occupied(mut in_flight) => {
                in_flight.get_mut().received_at = pulled.received_at;
                return;
            }
            Entry::Vacant(new) => new,
        };
        let safe = record.progress.published || record.progress.parked;
        let state = if safe {
            InFlightState::Safe
        } else if pulled.publish_now && !record.redelivered {
            InFlightState::Ready
        } else {
            // Stored, or known from an earlier run and not loaded yet, or released by an operator.
            InFlightState::Stored
        };
        let outgoing = (state == InFlightState::Ready).then(|| {
            let Recorded { occurrence, redelivered, .. } = record;
            let (event, request_id) = (Arc::clone(event), Arc::clone(&pulled.request_id));
            Arc::new(Outgoing::new(event, occurrence, redelivered, pulled.pulled_at, request_id))
        });
        let confirmed = record.progress.confirmed;
        let in_flight = InFlight::new(state, index, outgoing, confirmed, pulled.received_at);
        new.insert(in_flight);
        match state {
            InFlightState::Ready => _ = self.ready.insert(record.event),
            InFlightState::Stored => self.backlog.add(record.event),
            _ => {}
        }
    }

    /// Tells the events of handles that have left the relay's hands.
    pub(super) fn handles_ended(&mut self, all: Vec<HandleEnded>) {
        for HandleEnded { handle, events, how } in all {
            if let HandleEnd::Lapsed(lease) = how
                && self.world.output_up
                && events.iter().any(|event| self.waits_for_the_output(*event))
            {
                self.capacity.lapsed(lease, self.in_hand(), self.world.now);
            }
            for event in events {
                if let Some(in_flight) = self.events.get_mut(&event) {
                    in_flight.holds.retain(|held| *held != handle);
                }
                match how {
                    HandleEnd::Merged(other) => self.held_by(event, other),
                    HandleEnd::Confirmed => {
                        if let Some(in_flight) = self.events.get_mut(&event) {
                            in_flight.confirmed = true;
                        }
                        self.forget_if_done(event);
                    }
                    HandleEnd::Refused | HandleEnd::Lapsed(_) => self.forget_if_done(event),
                }
            }
        }
    }

    /// Whether nothing is wrong with an event but that its turn to be published has not come, or takes long.
    fn waits_for_the_output(&self, event: EventId) -> bool {
        let waits = |in_flight: &InFlight| {
            in_flight.tries.failures == 0
                && matches!(
                    in_flight.state(),
                    InFlightState::Ready | InFlightState::Publishing | InFlightState::Acked
                )
                && !in_flight.may_confirm(self.world.settings.confirm_after)
        };
        self.events.get(&event).is_some_and(waits)
    }
}
