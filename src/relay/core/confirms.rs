//! Telling the cloud: within the lease, at most sixteen handles a call, none twice, none lapsed.
//!
//! `ConfirmEvents` says nothing per handle. A call that the cloud rejects is halved until the bad handle stands alone.

use std::collections::VecDeque;
use std::time::Duration;

use super::{CallId, ConfirmedDelivery, Core, Effect, EventId, HeldId, HeldStage, Timer};
use crate::clock::Moment;
use crate::outcome::CallFailure;
use crate::relay::backoff::Backoff;

/// What one `ConfirmEvents` takes at most (document 266/33434).
const HANDLES_PER_CALL: usize = 16;

/// How many calls of one sub-application are in flight at the most.
const CALLS_MAX: usize = 4;

/// How long a handle waits for others to fill its call, while another call is in flight.
const LINGER: Duration = Duration::from_millis(50);

/// With less of its lease left a handle is let go: no call could end in time.
const CALL_MIN: Duration = Duration::from_millis(100);

/// A call that failed so often in a row is halved, in case one handle in it is what fails.
const FAILURES_BEFORE_HALVING: u32 = 2;

/// One sub-application's calls.
#[derive(Debug)]
pub(super) struct Lane {
    queue: VecDeque<HeldId>,
    /// Parts of rejected calls, which must stay apart.
    halves: VecDeque<Vec<HeldId>>,
    calls: usize,
    not_before: Moment,
    backoff: Backoff,
    failures_in_a_row: u32,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            halves: VecDeque::new(),
            calls: 0,
            not_before: Moment(0),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            failures_in_a_row: 0,
        }
    }

    /// At once, and not when it is its turn: by then it may have been queued again, and stand there twice.
    fn take_back(&mut self, id: HeldId) {
        self.queue.retain(|queued| *queued != id);
        for half in &mut self.halves {
            half.retain(|queued| *queued != id);
        }
        self.halves.retain(|half| !half.is_empty());
    }
}

impl Core {
    /// Sends the calls that are worth sending now.
    pub(super) fn confirm_ready(&mut self, now: Moment) {
        for index in 0..self.queues.len() {
            self.drop_stale(now, index);
            while self.confirm_one(now, index) {}
        }
    }

    /// Whether a call was sent, so that another one may follow.
    fn confirm_one(&mut self, now: Moment, index: usize) -> bool {
        let lane = &self.queues[index].confirms;
        let Some(first) = lane.halves.front().map(|half| half[0]).or_else(|| lane.queue.front().copied())
        else {
            return false;
        };
        if lane.calls >= CALLS_MAX {
            return false;
        }
        if lane.not_before > now {
            let not_before = lane.not_before;
            self.wake(not_before);
            return false;
        }
        // Alone it leaves at once; behind another call it waits a little for company.
        let HeldStage::Queued(since) = self.held[&first].stage else { return false };
        let full = !lane.halves.is_empty() || lane.queue.len() >= HANDLES_PER_CALL;
        if lane.calls > 0 && !full && !self.draining && now < since + LINGER {
            self.wake(since + LINGER);
            return false;
        }
        if let Err(when) = self.confirm_quota.take(now) {
            self.wake(when);
            return false;
        }
        let lane = &mut self.queues[index].confirms;
        let group = lane.halves.pop_front().unwrap_or_else(|| {
            let count = lane.queue.len().min(HANDLES_PER_CALL);
            lane.queue.drain(..count).collect()
        });
        lane.calls += 1;
        self.call(index, group);
        true
    }

    /// Forgets what was waiting and need not any more, and lets go what no call could confirm in time.
    fn drop_stale(&mut self, now: Moment, index: usize) {
        let lane = &self.queues[index].confirms;
        if lane.queue.is_empty() && lane.halves.is_empty() {
            return;
        }
        let waiting: Vec<HeldId> = lane.queue.iter().chain(lane.halves.iter().flatten()).copied().collect();
        for id in waiting {
            if self.held.get(&id).is_some_and(|held| held.lease.remaining(now) < CALL_MIN) {
                self.lapse(id);
            }
        }
        let held = &self.held;
        let queued = |id: &HeldId| held.get(id).is_some_and(|h| matches!(h.stage, HeldStage::Queued(_)));
        let lane = &mut self.queues[index].confirms;
        lane.queue.retain(queued);
        for half in &mut lane.halves {
            half.retain(queued);
        }
        lane.halves.retain(|half| !half.is_empty());
    }

    fn call(&mut self, index: usize, group: Vec<HeldId>) {
        let call = CallId(self.new_id());
        let handles = self.distinct(&group);
        let mut cutoff = Moment(u64::MAX);
        for id in &group {
            if let Some(held) = self.held.get_mut(id) {
                held.stage = HeldStage::Calling;
                cutoff = cutoff.min(held.lease.cutoff);
                // Another delivery under this handle is not covered by this call.
                self.open_handles.remove(&(index, held.handle.clone()));
            }
        }
        self.calls.insert(call, group);
        let sub_app = self.queues[index].id;
        self.out.effects.push(Effect::Confirm { call, sub_app, handles, cutoff });
    }

    pub(super) fn confirmed(&mut self, now: Moment, call: CallId, result: Result<(), CallFailure>) {
        let Some(group) = self.calls.remove(&call) else { return };
        let Some(index) = group.first().and_then(|id| self.held.get(id)).map(|held| held.sub_app) else {
            return;
        };
        let lane = &mut self.queues[index].confirms;
        lane.calls -= 1;
        match result {
            Ok(()) => {
                lane.backoff.reset();
                lane.failures_in_a_row = 0;
                for id in group {
                    self.forgotten_by_the_cloud(id);
                }
            }
            // The cloud answered, so that there is no reason to wait.
            Err(CallFailure::Refused) if group.len() == 1 => self.refused(group[0]),
            Err(CallFailure::Refused) => self.halve(now, index, &group),
            Err(failure) => {
                lane.not_before = now + lane.backoff.next(&mut self.rng);
                lane.failures_in_a_row += 1;
                let halve = lane.failures_in_a_row >= FAILURES_BEFORE_HALVING && group.len() > 1;
                match failure {
                    CallFailure::Throttled => self.confirm_quota.throttled(now),
                    CallFailure::Transient => self.mark_tried(&group),
                    _ => {}
                }
                if halve && failure == CallFailure::Transient {
                    self.halve(now, index, &group);
                } else {
                    let again = self.reopen(now, &group);
                    self.queues[index].confirms.queue.extend(again);
                }
            }
        }
    }

    fn mark_tried(&mut self, group: &[HeldId]) {
        for id in group {
            if let Some(held) = self.held.get_mut(id) {
                held.tried = true;
            }
        }
    }

    fn halve(&mut self, now: Moment, index: usize, group: &[HeldId]) {
        for half in group.chunks(group.len().div_ceil(2)) {
            let again = self.reopen(now, half);
            if !again.is_empty() {
                self.queues[index].confirms.halves.push_back(again);
            }
        }
    }

    /// Makes handles whose call failed ready for another one, and returns those that can have one.
    fn reopen(&mut self, now: Moment, group: &[HeldId]) -> Vec<HeldId> {
        let mut again = Vec::new();
        for id in group {
            let Some(held) = self.held.get_mut(id) else { continue };
            held.stage = HeldStage::Queued(now);
            if held.lease.lapsed(now) {
                self.lapse(*id);
                continue;
            }
            let key = (held.sub_app, held.handle.clone());
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

    /// While `from` was in its call, another delivery came under the same handle: they are confirmed together now, when the
    /// events of both are safe.
    fn merge(&mut self, now: Moment, from: HeldId, into: HeldId) {
        let Some(held) = self.held.remove(&from) else { return };
        self.timers.remove(&(held.lease.cutoff, Timer::Lapse(from)));
        for (_, event) in &held.deliveries {
            if let Some(carried) = self.events.get_mut(event) {
                carried.holds.retain(|id| *id != from);
                if !carried.holds.contains(&into) {
                    carried.holds.push(into);
                }
            }
        }
        if let Some(other) = self.held.get_mut(&into) {
            if held.lease.cutoff < other.lease.cutoff {
                self.timers.remove(&(other.lease.cutoff, Timer::Lapse(into)));
                self.timers.insert((held.lease.cutoff, Timer::Lapse(into)));
                other.lease = held.lease;
            }
            other.tried |= held.tried;
            other.deliveries.extend(held.deliveries);
        }
        self.queue_if_safe(now, into);
    }

    /// Queues a handle for its call when all its events are safe; takes it back when a new event under it is not.
    pub(super) fn queue_if_safe(&mut self, now: Moment, id: HeldId) {
        let Some(held) = self.held.get(&id) else { return };
        let safe = held
            .deliveries
            .iter()
            .all(|(_, event)| self.events.get(event).is_none_or(|carried| self.may_confirm(carried.stage)));
        let index = held.sub_app;
        let stage = match held.stage {
            HeldStage::Waiting if safe => {
                self.queues[index].confirms.queue.push_back(id);
                HeldStage::Queued(now)
            }
            HeldStage::Queued(_) if !safe => {
                self.queues[index].confirms.take_back(id);
                HeldStage::Waiting
            }
            other => other,
        };
        if let Some(held) = self.held.get_mut(&id) {
            held.stage = stage;
        }
    }

    fn forgotten_by_the_cloud(&mut self, id: HeldId) {
        let Some(held) = self.held.remove(&id) else { return };
        self.timers.remove(&(held.lease.cutoff, Timer::Lapse(id)));
        for (delivery, event) in held.deliveries {
            let lease = held.lease;
            let received_at = held.received_at;
            self.out.confirmed.push(ConfirmedDelivery { delivery, event, lease, received_at });
            if let Some(carried) = self.events.get_mut(&event) {
                carried.confirmed = true;
            }
            self.release(id, event);
        }
    }

    fn refused(&mut self, id: HeldId) {
        let Some(held) = self.held.remove(&id) else { return };
        self.timers.remove(&(held.lease.cutoff, Timer::Lapse(id)));
        for (delivery, event) in held.deliveries {
            self.out.refused.push(delivery);
            self.release(id, event);
        }
    }

    /// Lets a handle go: the event comes again under another one, and is then confirmed without being published again.
    pub(super) fn lapse(&mut self, id: HeldId) {
        // A call ends by the lease's cutoff, and says itself what became of the handle.
        if self.held.get(&id).is_none_or(|held| held.stage == HeldStage::Calling) {
            return;
        }
        let Some(held) = self.held.remove(&id) else { return };
        self.timers.remove(&(held.lease.cutoff, Timer::Lapse(id)));
        let key = (held.sub_app, held.handle);
        if self.open_handles.get(&key) == Some(&id) {
            self.open_handles.remove(&key);
        }
        for (delivery, event) in held.deliveries {
            if held.tried {
                self.out.lost.push(delivery);
            }
            self.release(id, event);
        }
    }

    fn release(&mut self, id: HeldId, event: EventId) {
        if let Some(carried) = self.events.get_mut(&event) {
            carried.holds.retain(|held| *held != id);
        }
        self.forget_if_done(event);
    }
}
