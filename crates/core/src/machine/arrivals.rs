//! What becomes of an answer after its record.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use smallvec::SmallVec;
use tencent_vod_event::{Event, EventHandle};

use super::{Core, HandleEntry, HandleId, HandleState, InFlight, InFlightState, Timer};
use crate::clock::Moment;
use crate::identity::Recorded;
use crate::lease::Lease;
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

    pub(super) fn recorded(&mut self, now: Moment, pulled: &Pulled, recorded: Vec<Recorded>) {
        self.polls.recorded(pulled);
        let Some(index) = self.queues.iter().position(|queue| queue.id == pulled.sub_app) else { return };
        for (event, record) in pulled.events.iter().zip(recorded) {
            self.meet(index, pulled, event, record);
            match &event.handle {
                Some(handle) => self.hold(now, index, handle, pulled.lease, pulled.received_at, &record),
                // It cannot be confirmed: once it is safe, it is done, and the cloud will hand it over again.
                None => self.forget_if_done(record.event),
            }
        }
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

    /// Takes a handle into the relay's hands, to be confirmed once its events are safe and before its lease lapses. One
    /// handle can stand on several events: it is confirmed when all of them are safe, within the earliest of their leases.
    fn hold(
        &mut self,
        now: Moment,
        sub_app: usize,
        handle: &EventHandle,
        lease: Lease,
        received_at: Moment,
        record: &Recorded,
    ) {
        if lease.lapsed(now) {
            self.forget_if_done(record.event);
            return;
        }
        let next_id = self.out.new_id();
        let id = match self.open_handles.entry((sub_app, handle.clone())) {
            Entry::Occupied(open) => *open.get(),
            Entry::Vacant(open) => {
                let id = *open.insert(HandleId(next_id));
                let entry = HandleEntry {
                    sub_app,
                    handle: handle.clone(),
                    lease,
                    received_at,
                    deliveries: SmallVec::new(),
                    state: HandleState::Waiting,
                    tried: false,
                };
                self.handles.insert(id, entry);
                self.timers.insert((lease.cutoff, Timer::Lapse(id)));
                id
            }
        };
        if let Some(entry) = self.handles.get_mut(&id) {
            entry.deliveries.push((record.delivery, record.event));
            entry.received_at = entry.received_at.max(received_at);
            // An answer can overtake one whose pull left before: the earliest lease counts, whichever came first.
            if lease.cutoff < entry.lease.cutoff {
                self.timers.remove(&(entry.lease.cutoff, Timer::Lapse(id)));
                self.timers.insert((lease.cutoff, Timer::Lapse(id)));
                entry.lease = lease;
            }
        }
        if let Some(in_flight) = self.events.get_mut(&record.event)
            && !in_flight.holds.contains(&id)
        {
            in_flight.holds.push(id);
        }
        self.queue_if_safe(now, id);
    }
}
