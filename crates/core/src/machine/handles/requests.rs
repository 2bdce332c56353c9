//! Confirms: within the lease, at most sixteen handles a request, none twice, none lapsed.
//!
//! `ConfirmEvents` reports nothing for each handle. A request that the cloud rejects is halved until the bad
//! handle stands alone.

use std::collections::HashSet;
use std::time::Duration;

use tencent_vod_event::EventHandle;

use super::{HandleEnd, HandleEnded, HandleId, HandleState, Handles};
use crate::clock::Moment;
use crate::identity::EventId;
use crate::machine::outbox::Outbox;
use crate::machine::quota::Ticket;
use crate::machine::types::{ConfirmId, Effect};
use crate::machine::world::World;
use crate::outcome::RequestFailure;
use crate::write::ConfirmedDelivery;

/// A handle with less of its lease left is let go: no request could end in time.
const REQUEST_MIN: Duration = Duration::from_millis(100);

/// A request in flight.
#[derive(Debug)]
pub(super) struct ConfirmRequest {
    sub_app: usize,
    group: Vec<HandleId>,
    /// Whether it is a part of a rejected request.
    apart: bool,
    ticket: Ticket,
}

impl Handles {
    /// Sends the requests that are worth sending, for the sub-applications in turn. Handles that no request
    /// could confirm in time are let go.
    pub(in crate::machine) fn send(&mut self, world: &World, out: &mut Outbox) -> Vec<HandleEnded> {
        let mut ended = Vec::new();
        let mut turn = None;
        while let Some((next, index)) = self.queue.after(turn) {
            turn = Some(next);
            match self.next_request_from(world, out, index, &mut ended) {
                // Another thing must happen first.
                None => {}
                Some(from) if from > world.now => out.wake(from),
                Some(_) => match self.quota.take(world.now) {
                    Ok(ticket) => self.request(world.now, out, index, ticket, &mut ended),
                    Err(when) => {
                        out.wake(when);
                        break;
                    }
                },
            }
        }
        ended
    }

    /// The time from which the next request of this sub-application is worth sending.
    fn next_request_from(
        &mut self,
        world: &World,
        out: &mut Outbox,
        index: usize,
        ended: &mut Vec<HandleEnded>,
    ) -> Option<Moment> {
        let first = loop {
            let first = self.sub_apps[index].lane.first()?;
            if self.held[&first].lease.remaining(world.now) >= REQUEST_MIN {
                break first;
            }
            ended.extend(self.lapse(out, first));
        };
        let HandleState::Queued(since) = self.held[&first].state else { return None };
        self.sub_apps[index].lane.next_request_from(world.now, since, world.draining)
    }

    fn request(
        &mut self,
        now: Moment,
        out: &mut Outbox,
        index: usize,
        ticket: Ticket,
        ended: &mut Vec<HandleEnded>,
    ) {
        let (mut group, apart) = self.sub_apps[index].lane.request();
        // Its next request comes after those of the others.
        self.queue.leave(index);
        self.queue_changed(index);
        group.retain(|id| {
            let in_time = self.held[id].lease.remaining(now) >= REQUEST_MIN;
            if !in_time {
                ended.extend(self.lapse(out, *id));
            }
            in_time
        });
        let request = ConfirmId(out.new_id());
        let handles = self.distinct(&group);
        let mut cutoff = Moment(u64::MAX);
        for id in &group {
            if let Some(entry) = self.held.get_mut(id) {
                entry.state = HandleState::Requested;
                cutoff = cutoff.min(entry.lease.cutoff);
                // Another delivery under this handle is not covered by this request.
                self.open.remove(&(index, entry.handle.clone()));
            }
        }
        self.requests.insert(request, ConfirmRequest { sub_app: index, group, apart, ticket });
        let sub_app = self.sub_apps[index].id;
        out.push(Effect::Confirm { request, sub_app, handles, cutoff });
    }

    /// Distinct handles: no request may carry one twice.
    fn distinct(&self, group: &[HandleId]) -> Vec<EventHandle> {
        let mut seen = HashSet::new();
        group
            .iter()
            .map(|id| self.held[id].handle.clone())
            .filter(|handle| seen.insert(handle.clone()))
            .collect()
    }

    /// A confirm request ended.
    pub(in crate::machine) fn request_ended(
        &mut self,
        world: &World,
        rng: &mut fastrand::Rng,
        out: &mut Outbox,
        request: ConfirmId,
        result: Result<(), RequestFailure>,
        may_confirm: impl Fn(EventId) -> bool,
    ) -> Vec<HandleEnded> {
        let mut ended = Vec::new();
        let Some(ConfirmRequest { sub_app: index, group, apart, ticket }) = self.requests.remove(&request)
        else {
            return ended;
        };
        let now = world.now;
        let sub_app = &mut self.sub_apps[index];
        sub_app.right.learn(result);
        sub_app.lane.ended();
        match result {
            Ok(()) => {
                sub_app.lane.succeeded();
                ended.extend(group.iter().filter_map(|id| self.accepted(now, out, *id)));
            }
            // The cloud answered, so there is no need to wait.
            Err(RequestFailure::Refused) if group.len() == 1 => ended.extend(self.refused(out, group[0])),
            Err(RequestFailure::Refused) => self.halve(now, out, &group, &may_confirm, &mut ended),
            // It did nothing, and is repeated as it was. The quota decides when.
            Err(RequestFailure::Throttled) => {
                self.quota.throttled(ticket, now, rng);
                let again = self.reopen(now, out, &group, &may_confirm, &mut ended);
                self.sub_apps[index].lane.again_first(again, apart);
            }
            Err(failure) => {
                let often = sub_app.lane.failed(now, rng);
                if failure == RequestFailure::Transient {
                    self.mark_tried(&group);
                }
                if failure == RequestFailure::Transient && often && group.len() > 1 {
                    self.halve(now, out, &group, &may_confirm, &mut ended);
                } else {
                    let again = self.reopen(now, out, &group, &may_confirm, &mut ended);
                    self.sub_apps[index].lane.again(again);
                }
            }
        }
        self.queue_changed(index);
        ended
    }

    fn mark_tried(&mut self, group: &[HandleId]) {
        for id in group {
            if let Some(entry) = self.held.get_mut(id) {
                entry.tried = true;
            }
        }
    }

    fn halve(
        &mut self,
        now: Moment,
        out: &mut Outbox,
        group: &[HandleId],
        may_confirm: &impl Fn(EventId) -> bool,
        ended: &mut Vec<HandleEnded>,
    ) {
        let index = self.held[&group[0]].sub_app;
        for half in group.chunks(group.len().div_ceil(2)) {
            let again = self.reopen(now, out, half, may_confirm, ended);
            self.sub_apps[index].lane.again_apart(again);
        }
    }

    /// Prepares handles of a failed request for another one, and returns those that can have one.
    fn reopen(
        &mut self,
        now: Moment,
        out: &mut Outbox,
        group: &[HandleId],
        may_confirm: &impl Fn(EventId) -> bool,
        ended: &mut Vec<HandleEnded>,
    ) -> Vec<HandleId> {
        let mut again = Vec::new();
        for id in group {
            let Some(entry) = self.held.get_mut(id) else { continue };
            entry.state = HandleState::Queued(now);
            if entry.lease.lapsed(now) {
                ended.extend(self.lapse(out, *id));
                continue;
            }
            let key = (entry.sub_app, entry.handle.clone());
            match self.open.get(&key) {
                Some(other) => ended.extend(self.merge(now, *id, *other, may_confirm)),
                None => {
                    self.open.insert(key, *id);
                    again.push(*id);
                }
            }
        }
        again
    }

    /// While `from` was in its request, another delivery came under the same handle. They are confirmed
    /// together when the events of both are safe.
    fn merge(
        &mut self,
        now: Moment,
        from: HandleId,
        into: HandleId,
        may_confirm: &impl Fn(EventId) -> bool,
    ) -> Option<HandleEnded> {
        let entry = self.remove(from)?;
        let ended = entry.ended(from, HandleEnd::Merged(into));
        self.shorten(into, entry.lease);
        if let Some(other) = self.held.get_mut(&into) {
            other.tried |= entry.tried;
            other.deliveries.extend(entry.deliveries);
        }
        self.review(now, into, may_confirm);
        Some(ended)
    }

    /// The cloud has forgotten the events of a handle.
    fn accepted(&mut self, now: Moment, out: &mut Outbox, id: HandleId) -> Option<HandleEnded> {
        let entry = self.remove(id)?;
        let (lease, received_at) = (entry.lease, entry.received_at);
        for (delivery, event) in &entry.deliveries {
            let (delivery, event) = (*delivery, *event);
            out.confirmed(ConfirmedDelivery { delivery, event, lease, received_at, confirmed_at: now });
        }
        Some(entry.ended(id, HandleEnd::Confirmed))
    }

    /// The cloud refused a handle that stood alone.
    fn refused(&mut self, out: &mut Outbox, id: HandleId) -> Option<HandleEnded> {
        let entry = self.remove(id)?;
        entry.deliveries.iter().for_each(|(delivery, _)| out.refused(*delivery));
        Some(entry.ended(id, HandleEnd::Refused))
    }
}
