//! Telling the cloud: within the lease, at most sixteen handles a request, none twice, none lapsed.
//!
//! `ConfirmEvents` says nothing per handle. A request that the cloud rejects is halved until the bad handle stands alone.

use std::collections::VecDeque;
use std::time::Duration;

use super::{
    ConfirmId, Core, Effect, EventId, HandleId, HandleState, InFlight, InFlightState, Ticket, Timer,
};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::outcome::RequestFailure;
use crate::write::ConfirmedDelivery;

/// What one `ConfirmEvents` takes at most (document 266/33434).
const HANDLES_PER_REQUEST: usize = 16;

/// How many requests of one sub-application are in flight at the most: enough for the account's limit over a third of a second
/// of round trip.
const REQUESTS_MAX: usize = 32;

/// How long a handle waits for others to fill its request, while another request is in flight.
const LINGER: Duration = Duration::from_millis(50);

/// With less of its lease left a handle is let go: no request could end in time.
const REQUEST_MIN: Duration = Duration::from_millis(100);

/// A request that failed so often in a row is halved, in case one handle in it is what fails.
const FAILURES_BEFORE_HALVING: u32 = 2;

/// One sub-application's requests.
#[derive(Debug)]
pub(super) struct ConfirmLane {
    queue: VecDeque<HandleId>,
    /// Parts of rejected requests, which must stay apart.
    halves: VecDeque<Vec<HandleId>>,
    requests: usize,
    not_before: Moment,
    backoff: Backoff,
    failures_in_a_row: u32,
}

impl ConfirmLane {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            halves: VecDeque::new(),
            requests: 0,
            not_before: Moment(0),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            failures_in_a_row: 0,
        }
    }

    /// The next one to be confirmed.
    fn first(&self) -> Option<HandleId> {
        self.halves.front().map(|half| half[0]).or_else(|| self.queue.front().copied())
    }

    /// At once, and not when it is its turn: by then it may have been queued again, and stand there twice.
    fn take_back(&mut self, id: HandleId) {
        self.queue.retain(|queued| *queued != id);
        for half in &mut self.halves {
            half.retain(|queued| *queued != id);
        }
        self.halves.retain(|half| !half.is_empty());
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct ConfirmRequest {
    sub_app: usize,
    group: Vec<HandleId>,
    /// Whether it is a part of a rejected request.
    apart: bool,
    ticket: Ticket,
}

impl Core {
    /// Sends the requests that are worth sending now, one for each sub-application in turn.
    pub(super) fn confirm_ready(&mut self, now: Moment) {
        let mut turn = None;
        while let Some((next, index)) = self.confirm_queue.after(turn) {
            turn = Some(next);
            match self.next_request_from(now, index) {
                // Something else has to happen before.
                None => {}
                Some(from) if from > now => self.out.wake(from),
                Some(_) => match self.confirm_quota.take(now) {
                    Ok(ticket) => self.send(now, index, ticket),
                    Err(when) => {
                        self.out.wake(when);
                        return;
                    }
                },
            }
        }
    }

    /// From when on the next request of this sub-application is worth sending.
    fn next_request_from(&mut self, now: Moment, index: usize) -> Option<Moment> {
        let first = loop {
            let first = self.queues[index].confirms.first()?;
            if self.handles[&first].lease.remaining(now) >= REQUEST_MIN {
                break first;
            }
            self.lapse(now, first);
        };
        let lane = &self.queues[index].confirms;
        if lane.requests >= REQUESTS_MAX {
            return None;
        }
        // Alone it leaves at once; behind another request it waits a little for others.
        let full = !lane.halves.is_empty() || lane.queue.len() >= HANDLES_PER_REQUEST;
        let at_once = lane.requests == 0 || full || self.world.draining;
        let HandleState::Queued(since) = self.handles[&first].state else { return None };
        Some(lane.not_before.max(if at_once { now } else { since + LINGER }))
    }

    fn send(&mut self, now: Moment, index: usize, ticket: Ticket) {
        let lane = &mut self.queues[index].confirms;
        let apart = !lane.halves.is_empty();
        let mut group = lane.halves.pop_front().unwrap_or_else(|| {
            let count = lane.queue.len().min(HANDLES_PER_REQUEST);
            lane.queue.drain(..count).collect()
        });
        lane.requests += 1;
        // Its next request comes after those of the others.
        self.confirm_queue.leave(index);
        self.queue_changed(index);
        group.retain(|id| {
            let in_time = self.handles[id].lease.remaining(now) >= REQUEST_MIN;
            if !in_time {
                self.lapse(now, *id);
            }
            in_time
        });
        let request = ConfirmId(self.out.new_id());
        let handles = self.distinct(&group);
        let mut cutoff = Moment(u64::MAX);
        for id in &group {
            if let Some(entry) = self.handles.get_mut(id) {
                entry.state = HandleState::Requested;
                cutoff = cutoff.min(entry.lease.cutoff);
                // Another delivery under this handle is not covered by this request.
                self.open_handles.remove(&(index, entry.handle.clone()));
            }
        }
        self.requests.insert(request, ConfirmRequest { sub_app: index, group, apart, ticket });
        let sub_app = self.queues[index].id;
        self.out.push(Effect::Confirm { request, sub_app, handles, cutoff });
    }

    /// A sub-application waits for its turn while there is something in its queue.
    fn queue_changed(&mut self, index: usize) {
        if self.queues[index].confirms.first().is_some() {
            self.confirm_queue.enter(index);
        } else {
            self.confirm_queue.leave(index);
        }
    }

    pub(super) fn confirmed(&mut self, now: Moment, request: ConfirmId, result: Result<(), RequestFailure>) {
        let Some(ConfirmRequest { sub_app: index, group, apart, ticket }) = self.requests.remove(&request)
        else {
            return;
        };
        self.queues[index].confirm_right.learn(result);
        let lane = &mut self.queues[index].confirms;
        lane.requests -= 1;
        match result {
            Ok(()) => {
                lane.backoff.reset();
                lane.failures_in_a_row = 0;
                for id in group {
                    self.forgotten_by_the_cloud(now, id);
                }
            }
            // The cloud answered, so that there is no reason to wait.
            Err(RequestFailure::Refused) if group.len() == 1 => self.refused(group[0]),
            Err(RequestFailure::Refused) => self.halve(now, index, &group),
            // It did nothing, and is made again as it was. When, the quota says.
            Err(RequestFailure::Throttled) => {
                self.confirm_quota.throttled(ticket, now, &mut self.rng);
                let again = self.reopen(now, &group);
                let lane = &mut self.queues[index].confirms;
                if !apart {
                    again.into_iter().rev().for_each(|id| lane.queue.push_front(id));
                } else if !again.is_empty() {
                    lane.halves.push_front(again);
                }
            }
            Err(failure) => {
                lane.not_before = now + lane.backoff.next(&mut self.rng);
                lane.failures_in_a_row += 1;
                let halve = lane.failures_in_a_row >= FAILURES_BEFORE_HALVING && group.len() > 1;
                if failure == RequestFailure::Transient {
                    self.mark_tried(&group);
                }
                if halve && failure == RequestFailure::Transient {
                    self.halve(now, index, &group);
                } else {
                    let again = self.reopen(now, &group);
                    self.queues[index].confirms.queue.extend(again);
                }
            }
        }
        self.queue_changed(index);
    }

    fn mark_tried(&mut self, group: &[HandleId]) {
        for id in group {
            if let Some(entry) = self.handles.get_mut(id) {
                entry.tried = true;
            }
        }
    }

    fn halve(&mut self, now: Moment, index: usize, group: &[HandleId]) {
        for half in group.chunks(group.len().div_ceil(2)) {
            let again = self.reopen(now, half);
            if !again.is_empty() {
                self.queues[index].confirms.halves.push_back(again);
            }
        }
    }

    /// Makes handles whose request failed ready for another one, and returns those that can have one.
    fn reopen(&mut self, now: Moment, group: &[HandleId]) -> Vec<HandleId> {
        let mut again = Vec::new();
        for id in group {
            let Some(entry) = self.handles.get_mut(id) else { continue };
            entry.state = HandleState::Queued(now);
            if entry.lease.lapsed(now) {
                self.lapse(now, *id);
                continue;
            }
            let key = (entry.sub_app, entry.handle.clone());
            match self.open_handles.get(&key) {
                Some(other) => self.merge(now, *id, *other),
                None => {
                    self.open_handles.insert(key, *id);
                    again.push(*id);
                }
            }
        }
        again
    }

    /// While `from` was in its request, another delivery came under the same handle: they are confirmed together now, when the
    /// events of both are safe.
    fn merge(&mut self, now: Moment, from: HandleId, into: HandleId) {
        let Some(entry) = self.handles.remove(&from) else { return };
        self.timers.remove(&(entry.lease.cutoff, Timer::Lapse(from)));
        for (_, event) in &entry.deliveries {
            if let Some(in_flight) = self.events.get_mut(event) {
                in_flight.holds.retain(|id| *id != from);
                if !in_flight.holds.contains(&into) {
                    in_flight.holds.push(into);
                }
            }
        }
        if let Some(other) = self.handles.get_mut(&into) {
            if entry.lease.cutoff < other.lease.cutoff {
                self.timers.remove(&(other.lease.cutoff, Timer::Lapse(into)));
                self.timers.insert((entry.lease.cutoff, Timer::Lapse(into)));
                other.lease = entry.lease;
            }
            other.tried |= entry.tried;
            other.deliveries.extend(entry.deliveries);
        }
        self.queue_if_safe(now, into);
    }

    /// Queues a handle for its request when all its events are safe; takes it back when a new event under it is not.
    pub(super) fn queue_if_safe(&mut self, now: Moment, id: HandleId) {
        let Some(entry) = self.handles.get_mut(&id) else { return };
        let confirm_after = self.world.settings.confirm_after;
        let safe = entry.deliveries.iter().all(|(_, event)| {
            self.events.get(event).is_none_or(|in_flight| in_flight.may_confirm(confirm_after))
        });
        let index = entry.sub_app;
        match entry.state {
            HandleState::Waiting if safe => {
                self.queues[index].confirms.queue.push_back(id);
                entry.state = HandleState::Queued(now);
            }
            HandleState::Queued(_) if !safe => {
                self.queues[index].confirms.take_back(id);
                entry.state = HandleState::Waiting;
            }
            _ => return,
        }
        self.queue_changed(index);
    }

    fn forgotten_by_the_cloud(&mut self, now: Moment, id: HandleId) {
        let Some(entry) = self.handles.remove(&id) else { return };
        self.timers.remove(&(entry.lease.cutoff, Timer::Lapse(id)));
        for (delivery, event) in entry.deliveries {
            let lease = entry.lease;
            let received_at = entry.received_at;
            self.out.confirmed(ConfirmedDelivery { delivery, event, lease, received_at, confirmed_at: now });
            if let Some(in_flight) = self.events.get_mut(&event) {
                in_flight.confirmed = true;
                in_flight.holds.retain(|entry| *entry != id);
            }
            self.forget_if_done(event);
        }
    }

    fn refused(&mut self, id: HandleId) {
        let Some(entry) = self.handles.remove(&id) else { return };
        self.timers.remove(&(entry.lease.cutoff, Timer::Lapse(id)));
        for (delivery, event) in entry.deliveries {
            self.out.refused(delivery);
            self.release(id, event);
        }
    }

    /// Lets a handle go: the event comes again under another one, and is then confirmed without being published again.
    pub(super) fn lapse(&mut self, now: Moment, id: HandleId) {
        // A request ends by the lease's cutoff, and says itself what became of the handle.
        if self.handles.get(&id).is_none_or(|entry| entry.state == HandleState::Requested) {
            return;
        }
        let Some(entry) = self.handles.remove(&id) else { return };
        self.timers.remove(&(entry.lease.cutoff, Timer::Lapse(id)));
        let key = (entry.sub_app, entry.handle);
        if self.open_handles.get(&key) == Some(&id) {
            self.open_handles.remove(&key);
        }
        if matches!(entry.state, HandleState::Queued(_)) {
            self.queues[entry.sub_app].confirms.take_back(id);
            self.queue_changed(entry.sub_app);
        }
        if self.world.output_up && entry.deliveries.iter().any(|(_, event)| self.waits_for_the_output(*event))
        {
            self.capacity.lapsed(entry.lease, self.in_hand(), now);
        }
        for (delivery, event) in entry.deliveries {
            if entry.tried {
                self.out.lost(delivery);
            }
            self.release(id, event);
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

    fn release(&mut self, id: HandleId, event: EventId) {
        if let Some(in_flight) = self.events.get_mut(&event) {
            in_flight.holds.retain(|entry| *entry != id);
        }
        self.forget_if_done(event);
    }
}
