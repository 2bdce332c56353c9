//! When to pull, and what becomes of the answer.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tencent_vod_event::{Event, EventHandle};

use super::{
    Answer, ConfirmAfter, Core, Effect, HandleEntry, HandleId, HandleState, InFlight, InFlightState, Timer,
};
use crate::clock::{Moment, WallTime};
use crate::identity::Recorded;
use crate::lease::Lease;
use crate::outcome::RequestFailure;
use crate::outgoing::Outgoing;
use crate::write::{EVENTS_PER_PULL, PullId, Pulled, Write};

/// How long after a lease's end in the cloud an event must have become visible again, whatever the cloud's timers do.
pub(super) const SETTLE_SLACK: Duration = Duration::from_secs(5);

impl Core {
    /// Sends the polls that are wanted, by the sub-applications' turns.
    pub(super) fn pull(&mut self, now: Moment) {
        // While the broker is away the cloud keeps the events, for four days; or the journal does.
        let may_go_on = match self.world.settings.confirm_after {
            ConfirmAfter::Publish => self.world.output_up,
            ConfirmAfter::Journal => true,
        };
        let capacity = self.capacity_for_polls(now).unwrap_or(0);
        let kept = self.world.draining || !self.world.journal_up || !may_go_on || capacity < EVENTS_PER_PULL;
        // While nothing is routable there is a poll now and then (`Pace::rest`), to meet an event that is.
        self.paused = kept || self.breaker.is_open();
        if kept {
            return;
        }
        while let Some(index) = self.next_to_poll(now) {
            let ticket = match self.pull_quota.take(now) {
                Ok(ticket) => ticket,
                Err(when) => {
                    self.out.wake(when);
                    return;
                }
            };
            let queue = &mut self.queues[index];
            self.polled += usize::from(queue.pace.in_flight() == 0);
            queue.pace.started(now);
            self.poll_queue.served(index);
            self.poll_queue.set_demand(index, queue.pace.demand());
            let pull = self.out.pull(queue.id);
            self.pulls.insert(pull, (index, ticket));
        }
        if let Some(due) = self.poll_queue.next_due(now) {
            self.out.wake(due);
        }
    }

    /// The sub-application whose turn it is, if there is capacity for what its poll may bring. Capacity is made by an input, so that
    /// no timer is needed. A first poll needs capacity for its own batch, a further one for the batches of all further polls:
    /// reserving for first polls would let many idle sub-applications starve each other.
    fn next_to_poll(&self, now: Moment) -> Option<usize> {
        let capacity = self.capacity_for_polls(now)?;
        let for_a_further_one = (self.further_polls() + 2) * EVENTS_PER_PULL <= capacity;
        let may = |index: usize| for_a_further_one || self.queues[index].pace.in_flight() == 0;
        (EVENTS_PER_PULL <= capacity).then(|| self.poll_queue.next(now, may)).flatten()
    }

    /// How many events more can be held.
    fn capacity_for_polls(&self, now: Moment) -> Option<usize> {
        self.capacity
            .events(now)
            .saturating_add(self.capacity_besides())
            .checked_sub(self.in_hand() + self.backlog.coming())
    }

    /// Polls beyond the first of each sub-application: capacity is kept for what they bring.
    pub(super) fn further_polls(&self) -> usize {
        self.pulls.len() - self.polled
    }

    /// Events in the relay's hands, or on their way there through the journal.
    pub(super) fn in_hand(&self) -> usize {
        self.events.len() + self.recordings.events
    }

    pub(super) fn pulled(
        &mut self,
        now: Moment,
        pull: PullId,
        sent_at: Moment,
        received_at: Moment,
        pulled_at: WallTime,
        result: Result<Answer, RequestFailure>,
    ) {
        let Some((index, ticket)) = self.pulls.remove(&pull) else { return };
        match result {
            Err(failure) => {
                if failure == RequestFailure::Throttled {
                    self.pull_quota.throttled(ticket, now, &mut self.rng);
                }
                let queue = &mut self.queues[index];
                queue.pace.failed(failure, now, &mut self.rng);
                if failure == RequestFailure::Transient {
                    // The cloud may have handed events to an answer that never arrived.
                    queue.settle_from =
                        queue.settle_from.max(now + self.world.settings.window.length + SETTLE_SLACK);
                }
            }
            Ok(answer) if answer.events.is_empty() => {
                self.queues[index].pace.found_nothing(sent_at, &mut self.rng);
                self.queues[index].confirm_right.idle_answer();
                self.settle(index, sent_at);
            }
            Ok(answer) => {
                self.queues[index].pace.brought(answer.events.len(), now);
                let lease = self.world.settings.window.lease(sent_at);
                let publish_now = self.publishes_at_once();
                let sub_app = self.queues[index].id;
                // The journal before anything else: whatever happens next, the event and its handle are known.
                let Answer { request_id, events } = answer;
                self.recordings.pulls += 1;
                self.recordings.waiting += usize::from(!publish_now);
                self.recordings.events += events.len();
                let pulled =
                    Pulled { pull, sub_app, request_id, events, lease, received_at, pulled_at, publish_now };
                self.out.push(Effect::Write(Write::Record(Arc::new(pulled))));
            }
        }
        let pace = &self.queues[index].pace;
        self.polled -= usize::from(pace.in_flight() == 0);
        self.poll_queue.set_demand(index, pace.demand());
    }

    /// An idle answer proves that the cloud holds nothing that was visible when the pull was sent: what was let go long
    /// enough before has been confirmed after all. It proves nothing while another pull, under way or lost, may have hidden
    /// the event.
    fn settle(&mut self, index: usize, sent_at: Moment) {
        let queue = &mut self.queues[index];
        let Some((oldest, newest)) = queue.unsettled else { return };
        if queue.pace.in_flight() > 0 || sent_at < queue.settle_from {
            return;
        }
        let received_before = sent_at - self.world.settings.window.length - SETTLE_SLACK;
        if oldest >= received_before {
            return;
        }
        queue.unsettled = (newest >= received_before).then_some((received_before, newest));
        let sub_app = queue.id;
        self.out.settle(sub_app, received_before);
    }

    pub(super) fn recorded(&mut self, now: Moment, pulled: &Pulled, recorded: Vec<Recorded>) {
        self.recordings.pulls -= 1;
        self.recordings.waiting -= usize::from(!pulled.publish_now);
        self.recordings.events -= pulled.events.len();
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
