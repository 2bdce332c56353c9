//! The polls: whom to ask for events, when, and what is in progress until the answer is recorded.
//!
//! - Owns: the pulls in flight, the turns of the sub-applications and the pace of each, the quota of
//!   `PullEvents`, the answers that the journal is recording, and what an idle answer can settle.
//! - Is told: how a pull ended, that an answer is recorded, that an event was let go unconfirmed though it is
//!   safe, and how many events more can be held.
//! - Says: which pull to send, what to record and what to settle, which sub-application has nothing, and how
//!   many events are still being recorded.
//! - Never touches: events, handles, or what becomes of an answer after its record.

mod fair_queue;
mod pace;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tencent_vod_event::SubAppId;

use super::outbox::Outbox;
use super::quota::{Quota, Ticket};
use super::types::{Answer, ConfirmAfter, Effect, Settings};
use super::world::World;
use crate::clock::{Moment, WallTime};
use crate::outcome::RequestFailure;
use crate::write::{EVENTS_PER_PULL, PullId, Pulled, Write};
use fair_queue::FairQueue;
use pace::Pace;
use settling::Settling;

/// See the module.
#[derive(Debug)]
pub(super) struct Polls {
    sub_apps: Vec<SubAppPolls>,
    queue: FairQueue,
    quota: Quota,
    in_flight: FxHashMap<PullId, (usize, Ticket)>,
    /// Sub-applications with a poll in flight.
    polled: usize,
    /// Whether nothing may be pulled now.
    paused: bool,
    recordings: Recordings,
}

/// The state of one sub-application.
#[derive(Debug)]
struct SubAppPolls {
    id: SubAppId,
    pace: Pace,
    settling: Settling,
}

/// Pulls between their answer and their record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recordings {
    pulls: usize,
    /// Those whose new events are not published at once.
    waiting: usize,
    /// The events of all of them.
    events: usize,
}

impl Recordings {
    /// The number of events on their way in through the journal.
    pub(super) fn events(self) -> usize {
        self.events
    }

    /// Whether an answer is being recorded.
    pub(super) fn any(self) -> bool {
        self.pulls > 0
    }

    /// Whether new events are being recorded that are not published at once.
    pub(super) fn any_waiting(self) -> bool {
        self.waiting > 0
    }
}

/// How a pull ended.
#[derive(Debug)]
pub(super) struct PullEnded {
    pub(super) pull: PullId,
    pub(super) sent_at: Moment,
    pub(super) received_at: Moment,
    pub(super) pulled_at: WallTime,
    pub(super) result: Result<Answer, RequestFailure>,
}

impl Polls {
    pub(super) fn new(settings: &Settings, now: Moment) -> Self {
        Self {
            sub_apps: Vec::new(),
            queue: FairQueue::default(),
            quota: Quota::new(settings.requests_per_second, now),
            in_flight: FxHashMap::default(),
            polled: 0,
            paused: false,
            recordings: Recordings::default(),
        }
    }

    /// Adds a sub-application, behind the known ones. It is polled once in each `rest`, or as it demands.
    pub(super) fn add(&mut self, world: &World, id: SubAppId, wanted: bool, rest: Option<Duration>) {
        let World { settings, now, .. } = world;
        let mut pace = Pace::new(settings.relay.idle_backoff_min, settings.relay.idle_backoff_max, *now);
        pace.want(wanted);
        pace.rest(rest);
        self.queue.set_demand(self.sub_apps.len(), pace.demand());
        let settling = Settling::after_start(*now, settings.window);
        self.sub_apps.push(SubAppPolls { id, pace, settling });
    }

    /// From now on these sub-applications are polled, and no others.
    pub(super) fn want(&mut self, wanted: &[SubAppId]) {
        for (index, sub_app) in self.sub_apps.iter_mut().enumerate() {
            sub_app.pace.want(wanted.contains(&sub_app.id));
            self.queue.set_demand(index, sub_app.pace.demand());
        }
    }

    /// From now on each sub-application is polled once in this time, or as it demands.
    pub(super) fn rest(&mut self, every: Option<Duration>) {
        for (index, sub_app) in self.sub_apps.iter_mut().enumerate() {
            sub_app.pace.rest(every);
            self.queue.set_demand(index, sub_app.pace.demand());
        }
    }

    /// Takes over new settings.
    pub(super) fn configure(&mut self, old: &Settings, new: &Settings) {
        if old.requests_per_second != new.requests_per_second {
            self.quota.configure(new.requests_per_second);
        }
        if (old.relay.idle_backoff_min, old.relay.idle_backoff_max)
            != (new.relay.idle_backoff_min, new.relay.idle_backoff_max)
        {
            for sub_app in &mut self.sub_apps {
                sub_app.pace.configure(new.relay.idle_backoff_min, new.relay.idle_backoff_max);
            }
        }
    }

    /// Sends the wanted polls, for the sub-applications in turn. `capacity` is how many more events can be
    /// held. While nothing is `routable`, each sub-application is polled rarely, to find a routable event.
    pub(super) fn send(&mut self, world: &World, out: &mut Outbox, capacity: Option<usize>, routable: bool) {
        // While the broker is away, the cloud keeps the events for four days, or the journal keeps them.
        let may_go_on = match world.settings.relay.confirm_after {
            ConfirmAfter::Publish => world.output_up,
            ConfirmAfter::Journal => true,
        };
        let capacity = capacity.unwrap_or(0);
        let kept = world.draining || !world.journal_up || !may_go_on || capacity < EVENTS_PER_PULL;
        self.paused = kept || !routable;
        if kept {
            return;
        }
        while let Some(index) = self.next_to_poll(world.now, capacity) {
            let ticket = match self.quota.take(world.now) {
                Ok(ticket) => ticket,
                Err(when) => return out.wake(when),
            };
            let sub_app = &mut self.sub_apps[index];
            self.polled += usize::from(sub_app.pace.in_flight() == 0);
            sub_app.pace.started(world.now);
            self.queue.served(index);
            self.queue.set_demand(index, sub_app.pace.demand());
            self.in_flight.insert(out.pull(sub_app.id), (index, ticket));
        }
        if let Some(due) = self.queue.next_due(world.now) {
            out.wake(due);
        }
    }

    /// The next sub-application, if there is capacity for the events of its poll. Capacity is only freed by
    /// an input, so no timer is needed. A first poll needs capacity for its own batch, a further one for the
    /// batches of all further polls. Reserving for first polls would let many idle sub-applications starve
    /// each other.
    fn next_to_poll(&self, now: Moment, capacity: usize) -> Option<usize> {
        let for_a_further_one = (self.further() + 2) * EVENTS_PER_PULL <= capacity;
        let may = |index: usize| for_a_further_one || self.sub_apps[index].pace.in_flight() == 0;
        self.queue.next(now, may)
    }

    /// A pull ended. Its events are recorded, to be published at once or not. Returns the idle
    /// sub-application, if the answer was idle.
    pub(super) fn ended(
        &mut self,
        world: &World,
        rng: &mut fastrand::Rng,
        out: &mut Outbox,
        ended: PullEnded,
        publish_now: bool,
    ) -> Option<usize> {
        let PullEnded { pull, sent_at, received_at, pulled_at, result } = ended;
        let (index, ticket) = self.in_flight.remove(&pull)?;
        let window = world.settings.lease_window();
        let sub_app = &mut self.sub_apps[index];
        let mut idle = None;
        match result {
            Err(failure) => {
                if failure == RequestFailure::Throttled {
                    self.quota.throttled(ticket, world.now, rng);
                }
                sub_app.pace.failed(failure, world.now, rng);
                if failure == RequestFailure::Transient {
                    sub_app.settling.answer_lost(world.now, window.length);
                }
            }
            Ok(answer) if answer.events.is_empty() => {
                sub_app.pace.found_nothing(sent_at, rng);
                idle = Some(index);
                // Another pull may be carrying what this one did not find.
                if sub_app.pace.in_flight() == 0
                    && let Some(received_before) = sub_app.settling.found_nothing(sent_at, window.length)
                {
                    out.settle(sub_app.id, received_before);
                }
            }
            Ok(Answer { request_id, events }) => {
                sub_app.pace.brought(events.len(), world.now);
                let (sub_app, lease) = (sub_app.id, window.lease(sent_at));
                self.recordings.pulls += 1;
                self.recordings.waiting += usize::from(!publish_now);
                self.recordings.events += events.len();
                // The journal first: whatever happens next, the event and its handle are on record.
                let pulled =
                    Pulled { pull, sub_app, request_id, events, lease, received_at, pulled_at, publish_now };
                out.push(Effect::Write(Write::Record(Arc::new(pulled))));
            }
        }
        let pace = &self.sub_apps[index].pace;
        self.polled -= usize::from(pace.in_flight() == 0);
        self.queue.set_demand(index, pace.demand());
        idle
    }

    /// The journal has recorded an answer.
    pub(super) fn recorded(&mut self, pulled: &Pulled) {
        self.recordings.pulls -= 1;
        self.recordings.waiting -= usize::from(!pulled.publish_now);
        self.recordings.events -= pulled.events.len();
    }

    /// A safe event was let go unconfirmed: the cloud may or may not have forgotten it.
    pub(super) fn unsettled(&mut self, sub_app: usize, received_at: Moment) {
        self.sub_apps[sub_app].settling.add(received_at);
    }

    /// A pull between its answer and its record.
    pub(super) fn recordings(&self) -> Recordings {
        self.recordings
    }

    /// The number of polls in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Polls beyond the first of each sub-application: capacity is reserved for their events.
    pub(super) fn further(&self) -> usize {
        self.in_flight.len() - self.polled
    }

    /// Whether nothing may be pulled now.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }
}
