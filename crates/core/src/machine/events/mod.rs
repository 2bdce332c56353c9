//! The events: those that are in flight until they are safe, and their way to the broker.
//!
//! - Owns: the events in hand and their states (`transitions.md`), what is ready to be published and what is
//!   being published, the waits between publishes, the backlog in the journal, the breaker, the events that
//!   may break the connection, and how many events may be in hand.
//! - Is told: what was recorded or loaded, how a publish ended, what the journal committed, which handle
//!   holds an event, and how a handle ended.
//! - Says: what to publish, load, park, or count as failed (through the outbox), which handles an event that
//!   is safe has, and which event it has let go though the cloud may still hold it ([`Unsettled`]).
//! - Never touches: leases, confirm requests, or polls. A handle is a number here.

mod backlog;
mod breaker;
mod capacity;
mod in_flight;
mod publishes;
mod refusals;
mod suspects;

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tencent_vod_event::Event;

use super::handles::{HandleEnd, HandleId};
use super::types::{ConfirmAfter, Settings};
use crate::clock::Moment;
use crate::identity::{EventId, Recorded};
use crate::outgoing::Outgoing;
use crate::write::{Loaded, Pulled};
use backlog::Backlog;
use breaker::Breaker;
use capacity::Capacity;
use in_flight::{InFlight, InFlightState};
use suspects::Suspects;

/// See the module.
#[derive(Debug)]
pub(super) struct Events {
    in_hand: FxHashMap<EventId, InFlight>,
    /// In the order of receipt: a failed event goes before later ones.
    ready: BTreeSet<EventId>,
    /// The time of the next publish of each waiting event.
    retries: BTreeSet<(Moment, EventId)>,
    /// Events that may break the connection.
    suspects: Suspects,
    breaker: Breaker,
    backlog: Backlog,
    capacity: Capacity,
    /// Events in flight that the broker returned or refused.
    refused: usize,
    /// Events in flight that may break the connection.
    suspected: usize,
    /// Acks so far.
    acks: u64,
    publishing: usize,
    /// Before this moment nothing is published: an outage of the output has just returned events.
    publish_from: Moment,
}

/// A safe event was let go without proof that the cloud has forgotten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsettled {
    pub(super) sub_app: usize,
    /// When its newest delivery arrived.
    pub(super) received_at: Moment,
}

impl Events {
    pub(super) fn new(settings: &Settings, now: Moment) -> Self {
        Self {
            in_hand: FxHashMap::default(),
            ready: BTreeSet::new(),
            retries: BTreeSet::new(),
            suspects: Suspects::default(),
            breaker: Breaker::default(),
            backlog: Backlog::after_start(),
            capacity: Capacity::new(settings.relay.max_in_flight, now),
            refused: 0,
            suspected: 0,
            acks: 0,
            publishing: 0,
            publish_from: now,
        }
    }

    /// Takes a recorded event in, unless it is in flight already.
    pub(super) fn meet(&mut self, sub_app: usize, pulled: &Pulled, event: &Arc<Event>, record: &Recorded) {
        let new = match self.in_hand.entry(record.event) {
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
            let Recorded { occurrence, redelivered, .. } = *record;
            let (event, request_id) = (Arc::clone(event), Arc::clone(&pulled.request_id));
            Arc::new(Outgoing::new(event, occurrence, redelivered, pulled.pulled_at, request_id))
        });
        let confirmed = record.progress.confirmed;
        new.insert(InFlight::new(state, sub_app, outgoing, confirmed, pulled.received_at));
        match state {
            InFlightState::Ready => _ = self.ready.insert(record.event),
            InFlightState::Stored => self.backlog.add(record.event),
            _ => {}
        }
    }

    /// The journal has handed out unpublished events, each of this sub-application.
    pub(super) fn loaded(&mut self, now: Moment, loaded: Vec<(usize, Loaded)>) {
        self.backlog.read(loaded.last().map(|(_, last)| last.event), loaded.len());
        for (sub_app, loaded) in loaded {
            self.carry_loaded(now, sub_app, loaded);
        }
    }

    /// Takes an event in, unless it is in flight already. Handles that an earlier run had for it are let go:
    /// one of them may cover further events, which that run had in flight and this one has not.
    fn carry_loaded(&mut self, now: Moment, sub_app: usize, loaded: Loaded) {
        let Loaded { event, outgoing, confirmed } = loaded;
        let outgoing = Some(Arc::new(outgoing));
        if let Some(in_flight) = self.in_hand.get_mut(&event) {
            if in_flight.state() == InFlightState::Stored {
                in_flight.outgoing = outgoing;
                in_flight.enter(InFlightState::Ready);
                self.ready.insert(event);
            }
            return;
        }
        let in_flight = InFlight::new(InFlightState::Ready, sub_app, outgoing, confirmed, now);
        self.in_hand.insert(event, in_flight);
        self.ready.insert(event);
    }

    /// A handle of the event can be confirmed.
    pub(super) fn held_by(&mut self, event: EventId, handle: HandleId) {
        if let Some(in_flight) = self.in_hand.get_mut(&event)
            && !in_flight.holds.contains(&handle)
        {
            in_flight.holds.push(handle);
        }
    }

    /// A handle of the event has left.
    pub(super) fn handle_ended(
        &mut self,
        event: EventId,
        handle: HandleId,
        how: HandleEnd,
    ) -> Option<Unsettled> {
        let in_flight = self.in_hand.get_mut(&event)?;
        in_flight.holds.retain(|held| *held != handle);
        match how {
            HandleEnd::Merged(other) => {
                self.held_by(event, other);
                return None;
            }
            HandleEnd::Confirmed => in_flight.confirmed = true,
            HandleEnd::Refused | HandleEnd::Lapsed(_) => {}
        }
        self.forget_if_done(event)
    }

    /// The journal has committed that the event is published or parked. Returns the handles that wait for it.
    pub(super) fn safe(&mut self, event: EventId) -> SmallVec<[HandleId; 1]> {
        let Some(in_flight) = self.in_hand.get_mut(&event) else { return SmallVec::new() };
        in_flight.enter(InFlightState::Safe);
        in_flight.outgoing = None;
        in_flight.holds.clone()
    }

    /// Drops an event when it needs nothing more here.
    pub(super) fn forget_if_done(&mut self, event: EventId) -> Option<Unsettled> {
        let in_flight = self.in_hand.get(&event)?;
        let done = matches!(in_flight.state(), InFlightState::Safe | InFlightState::Stored)
            && in_flight.holds.is_empty();
        if !done {
            return None;
        }
        let unsettled = in_flight.state() == InFlightState::Safe && !in_flight.confirmed;
        let InFlight { sub_app, received_at, .. } = self.in_hand.remove(&event)?;
        unsettled.then_some(Unsettled { sub_app, received_at })
    }

    /// Whether nothing of the event keeps its handle from being confirmed.
    pub(super) fn may_confirm(&self, event: EventId, confirm_after: ConfirmAfter) -> bool {
        self.in_hand.get(&event).is_none_or(|in_flight| in_flight.may_confirm(confirm_after))
    }

    /// The number of events in flight.
    pub(super) fn len(&self) -> usize {
        self.in_hand.len()
    }

    /// The number of publishes without an outcome.
    pub(super) fn publishing(&self) -> usize {
        self.publishing
    }

    /// Whether an event waits to be published.
    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty() || self.suspects.any_ready()
    }

    /// Whether the journal has unpublished events that are not in flight.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog.is_open()
    }

    /// Whether the backlog is being read.
    pub(super) fn is_loading(&self) -> bool {
        self.backlog.is_loading()
    }

    /// The time of the next publish.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        self.retries.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
impl Events {
    /// The number of events in flight that may break the connection.
    pub(super) fn suspected(&self) -> usize {
        self.suspected
    }
}
