//! The handles: the deliveries that can still be confirmed, and the requests that confirm them.
//!
//! - Owns: the handles under a lease and the timers of their leases, the confirm requests in flight and those
//!   that wait, the quota of `ConfirmEvents`, and the proofs of the right to confirm.
//! - Is told: which delivery arrived under which handle, which handle's events changed, how a request ended,
//!   and that a sub-application has nothing. Whether an event may be confirmed it asks through a function
//!   that it is handed.
//! - Says: which confirm to send and which deliveries are confirmed, refused or lost (through the outbox),
//!   and which handles have left the relay's hands and how ([`HandleEnded`]).
//! - Never touches: events, polls, or what an event's state means.

mod lane;
mod proofs;
mod requests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tencent_vod_event::{EventHandle, SubAppId};

use super::outbox::Outbox;
use super::quota::Quota;
use super::round_robin::RoundRobin;
use super::types::{ConfirmId, Settings};
use crate::clock::Moment;
use crate::identity::{DeliveryId, EventId};
use crate::lease::Lease;
use lane::ConfirmLane;
use proofs::ConfirmRight;
use requests::ConfirmRequest;

/// See the module.
#[derive(Debug)]
pub(super) struct Handles {
    sub_apps: Vec<SubAppConfirms>,
    held: FxHashMap<HandleId, HandleEntry>,
    /// Handles outside requests, so another delivery under the same handle can join them.
    open: HashMap<(usize, EventHandle), HandleId>,
    /// When each lease ends.
    lapses: BTreeSet<(Moment, HandleId)>,
    requests: FxHashMap<ConfirmId, ConfirmRequest>,
    /// Sub-applications with handles to confirm.
    queue: RoundRobin,
    quota: Quota,
}

/// A handle under a lease. Keyed by a number, because a handle is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HandleId(u64);

/// The state of one sub-application.
#[derive(Debug)]
struct SubAppConfirms {
    id: SubAppId,
    lane: ConfirmLane,
    right: ConfirmRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandleState {
    /// Waits for its events to be safe.
    Waiting,
    /// Waits for its request, since this moment.
    Queued(Moment),
    /// In a request.
    Requested,
}

#[derive(Debug)]
struct HandleEntry {
    sub_app: usize,
    handle: EventHandle,
    lease: Lease,
    received_at: Moment,
    deliveries: SmallVec<[(DeliveryId, EventId); 1]>,
    state: HandleState,
    /// Whether a request with it may have reached the cloud.
    tried: bool,
}

/// A delivery that arrived under a handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldDelivery<'a> {
    pub(super) sub_app: usize,
    pub(super) handle: &'a EventHandle,
    pub(super) lease: Lease,
    pub(super) received_at: Moment,
    pub(super) delivery: DeliveryId,
    pub(super) event: EventId,
}

/// A handle that has left.
#[derive(Debug)]
#[must_use = "the events of a handle that ended must learn of it"]
pub(super) struct HandleEnded {
    pub(super) handle: HandleId,
    /// Its events, one for each delivery.
    pub(super) events: SmallVec<[EventId; 1]>,
    pub(super) how: HandleEnd,
}

/// The end of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandleEnd {
    /// The cloud accepted it, and has forgotten its events.
    Confirmed,
    /// The cloud refused it.
    Refused,
    /// Its lease ended before it could be confirmed.
    Lapsed(Lease),
    /// Its deliveries use this handle from now on.
    Merged(HandleId),
}

impl HandleEntry {
    fn ended(&self, handle: HandleId, how: HandleEnd) -> HandleEnded {
        HandleEnded { handle, events: self.deliveries.iter().map(|(_, event)| *event).collect(), how }
    }
}

impl Handles {
    pub(super) fn new(settings: &Settings, now: Moment) -> Self {
        Self {
            sub_apps: Vec::new(),
            held: FxHashMap::default(),
            open: HashMap::new(),
            lapses: BTreeSet::new(),
            requests: FxHashMap::default(),
            queue: RoundRobin::default(),
            quota: Quota::new(settings.requests_per_second, now),
        }
    }

    /// Adds a sub-application, behind the known ones.
    pub(super) fn add(&mut self, id: SubAppId) {
        self.sub_apps.push(SubAppConfirms { id, lane: ConfirmLane::new(), right: ConfirmRight::new() });
    }

    /// Takes over new settings.
    pub(super) fn configure(&mut self, old: &Settings, new: &Settings) {
        if old.requests_per_second != new.requests_per_second {
            self.quota.configure(new.requests_per_second);
        }
    }

    /// Takes a delivery's handle in. It is confirmed once its events are safe and before its lease lapses.
    /// One handle can cover several events: it is confirmed when all of them are safe, within the earliest of
    /// their leases. Returns `None` when the lease has lapsed.
    pub(super) fn hold(
        &mut self,
        now: Moment,
        out: &mut Outbox,
        held: &HeldDelivery<'_>,
    ) -> Option<HandleId> {
        let HeldDelivery { sub_app, handle, lease, received_at, delivery, event } = *held;
        if lease.lapsed(now) {
            return None;
        }
        let new_id = HandleId(out.new_id());
        let id = match self.open.entry((sub_app, handle.clone())) {
            Entry::Occupied(open) => *open.get(),
            Entry::Vacant(open) => {
                let entry = HandleEntry {
                    sub_app,
                    handle: handle.clone(),
                    lease,
                    received_at,
                    deliveries: SmallVec::new(),
                    state: HandleState::Waiting,
                    tried: false,
                };
                self.held.insert(new_id, entry);
                self.lapses.insert((lease.cutoff, new_id));
                *open.insert(new_id)
            }
        };
        if let Some(entry) = self.held.get_mut(&id) {
            entry.deliveries.push((delivery, event));
            entry.received_at = entry.received_at.max(received_at);
        }
        // An answer can overtake one of an earlier pull: the earliest lease counts, in any order.
        self.shorten(id, lease);
        Some(id)
    }

    /// The earliest lease under a handle counts.
    fn shorten(&mut self, id: HandleId, lease: Lease) {
        let Some(entry) = self.held.get_mut(&id) else { return };
        if lease.cutoff < entry.lease.cutoff {
            self.lapses.remove(&(entry.lease.cutoff, id));
            self.lapses.insert((lease.cutoff, id));
            entry.lease = lease;
        }
    }

    /// Queues a handle when all its events may be confirmed. Takes it back when a new event under it may not.
    pub(super) fn review(&mut self, now: Moment, id: HandleId, may_confirm: impl Fn(EventId) -> bool) {
        let Some(entry) = self.held.get_mut(&id) else { return };
        let safe = entry.deliveries.iter().all(|(_, event)| may_confirm(*event));
        let index = entry.sub_app;
        match entry.state {
            HandleState::Waiting if safe => {
                self.sub_apps[index].lane.push(id);
                entry.state = HandleState::Queued(now);
            }
            HandleState::Queued(_) if !safe => {
                self.sub_apps[index].lane.take_back(id);
                entry.state = HandleState::Waiting;
            }
            _ => return,
        }
        self.queue_changed(index);
    }

    /// A sub-application waits for its turn while its lane has handles.
    fn queue_changed(&mut self, index: usize) {
        if self.sub_apps[index].lane.first().is_some() {
            self.queue.enter(index);
        } else {
            self.queue.leave(index);
        }
    }

    /// Drops the handles whose lease has ended.
    pub(super) fn lapse_due(&mut self, now: Moment, out: &mut Outbox) -> Vec<HandleEnded> {
        let mut ended = Vec::new();
        while let Some((_, id)) = self.lapses.first().copied().filter(|(at, _)| *at <= now) {
            self.lapses.pop_first();
            ended.extend(self.lapse(out, id));
        }
        ended
    }

    /// Lets a handle go: the event comes again under another one, and is then confirmed without another
    /// publish.
    fn lapse(&mut self, out: &mut Outbox, id: HandleId) -> Option<HandleEnded> {
        // A request ends by the lease's cutoff, and itself reports the fate of the handle.
        if self.held.get(&id)?.state == HandleState::Requested {
            return None;
        }
        let entry = self.remove(id)?;
        let ended = entry.ended(id, HandleEnd::Lapsed(entry.lease));
        if entry.tried {
            entry.deliveries.iter().for_each(|(delivery, _)| out.lost(*delivery));
        }
        let key = (entry.sub_app, entry.handle);
        if self.open.get(&key) == Some(&id) {
            self.open.remove(&key);
        }
        if matches!(entry.state, HandleState::Queued(_)) {
            self.sub_apps[entry.sub_app].lane.take_back(id);
            self.queue_changed(entry.sub_app);
        }
        Some(ended)
    }

    fn remove(&mut self, id: HandleId) -> Option<HandleEntry> {
        let entry = self.held.remove(&id)?;
        self.lapses.remove(&(entry.lease.cutoff, id));
        Some(entry)
    }

    /// The time of the next end of a lease.
    pub(super) fn next_lapse(&self) -> Option<Moment> {
        self.lapses.first().map(|(at, _)| *at)
    }

    /// The number of handles.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The number of confirm requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Whether a confirm request is in flight, or waits for its turn.
    pub(super) fn any_request(&self) -> bool {
        !self.requests.is_empty() || self.queue.iter().next().is_some()
    }

    /// Whether a handle is in a request, or waits for one.
    pub(super) fn any_confirmable(&self) -> bool {
        self.held.values().any(|entry| entry.state != HandleState::Waiting)
    }
}
