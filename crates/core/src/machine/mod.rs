//! The core decides; it has no I/O, no clock and no await.
//!
//! Everything that can happen reaches it as an [`Input`], everything that shall be done leaves it as an [`Effect`]. What it
//! holds is the part of the journal that is on its way: events that are not yet safe, and handles that can still be
//! confirmed. All of it can be lost in a crash, and is rebuilt from the journal and from the cloud's redeliveries.
//!
//! An event's way through here:
//!
//! ```text
//! Pulled -> Write(Record) -> Written(Recorded) -> Publish -> Published(Acked) -> Write(Published)
//!        -> Written(Published) -> Confirm -> Confirmed(Ok) -> Write(Confirmed)
//! ```
//!
//! Every arrow from a [`Write`] to its [`Written`] is a commit: a state is durable before its consequence leaves.

mod arrivals;
mod capacity;
mod confirms;
mod in_flight;
mod outbox;
mod polls;
mod proofs;
mod publishes;
mod quota;
mod reconfigure;
mod refusals;
mod round_robin;
#[cfg(test)]
mod tests;
mod types;
mod world;

use std::collections::{BTreeSet, HashMap, HashSet};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tencent_vod_event::{EventHandle, SubAppId};

use crate::clock::Moment;
use crate::identity::{DeliveryId, EventId};
use crate::lease::Lease;
use crate::outcome::{JournalState, OutputState};
use crate::write::Written;
use capacity::Capacity;
use in_flight::{InFlight, InFlightState};
use outbox::Outbox;
use polls::{Polls, PullEnded};
use quota::{Quota, Ticket};
use refusals::{Breaker, Suspects};
use round_robin::RoundRobin;
pub use types::{Answer, ConfirmAfter, ConfirmId, Effect, Input, Load, Settings};
use world::World;

/// A handle under a lease. Keyed by a number, because a handle is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct HandleId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandleState {
    /// Waits for its events to be safe.
    Waiting,
    /// Waits for its request, since then.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lapse(HandleId),
    Retry(EventId),
}

/// What the core keeps for one sub-application.
#[derive(Debug)]
struct SubAppState {
    id: SubAppId,
    confirms: confirms::ConfirmLane,
    confirm_right: proofs::ConfirmRight,
}

/// The state machine.
#[derive(Debug)]
pub struct Core {
    world: World,
    rng: fastrand::Rng,
    finished: bool,
    queues: Vec<SubAppState>,
    /// Sub-applications with something to confirm.
    confirm_queue: RoundRobin,
    confirm_quota: Quota,
    capacity: Capacity,

    polls: Polls,
    events: FxHashMap<EventId, InFlight>,
    /// In the order in which they were received: what failed goes before what came later.
    ready: BTreeSet<EventId>,
    /// Events that may break the connection.
    suspects: Suspects,
    breaker: Breaker,
    /// Events in hand that the broker returned or refused.
    refused: usize,
    /// Events in hand that may break the connection.
    suspected: usize,
    /// Acks so far.
    acks: u64,
    publishing: usize,
    /// Before this moment nothing is published: an outage of the output has just brought events back.
    publish_from: Moment,
    handles: FxHashMap<HandleId, HandleEntry>,
    /// Handles that no request is confirming now, so that another delivery under the same handle joins them.
    open_handles: HashMap<(usize, EventHandle), HandleId>,
    requests: FxHashMap<ConfirmId, confirms::ConfirmRequest>,
    backlog: publishes::Backlog,
    timers: BTreeSet<(Moment, Timer)>,
    out: Outbox,
}

impl Core {
    /// A core that knows nothing yet: it begins by asking the journal what is unpublished.
    pub fn new(settings: Settings, now: Moment) -> Self {
        let polls = Polls::new(&settings, now);
        let sub_apps = settings.sub_apps.clone();
        let mut core = Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            finished: false,
            queues: Vec::new(),
            confirm_queue: RoundRobin::default(),
            confirm_quota: Quota::new(settings.requests_per_second, now),
            capacity: Capacity::new(settings.max_in_flight, now),
            polls,
            events: FxHashMap::default(),
            ready: BTreeSet::new(),
            suspects: Suspects::default(),
            breaker: Breaker::default(),
            refused: 0,
            suspected: 0,
            acks: 0,
            publishing: 0,
            publish_from: now,
            handles: FxHashMap::default(),
            open_handles: HashMap::new(),
            requests: FxHashMap::default(),
            backlog: publishes::Backlog::after_start(),
            timers: BTreeSet::new(),
            out: Outbox::default(),
            world: World::new(settings, now),
        };
        for id in sub_apps {
            core.add(id, true);
        }
        core
    }

    /// Takes what happened and says what shall be done. Inputs that arrived together are best given together: what they
    /// lead to is then committed together.
    pub fn step(&mut self, now: Moment, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        self.world.now = now;
        // Leases first: nothing joins a handle whose lease has lapsed meanwhile.
        self.run_timers(now);
        for input in inputs {
            self.take(input);
        }
        self.out.wakes();
        self.turn_breaker(now);
        self.load_backlog(now);
        self.publish_ready(now);
        self.confirm_ready(now);
        self.prove_rights(now);
        let capacity = self.capacity_for_polls(now);
        self.polls.send(&self.world, &mut self.out, capacity, !self.breaker.is_open());
        self.out.flush();
        self.finish();
        self.out.take()
    }

    /// One input; see [`Core::step`].
    pub fn handle(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        self.step(now, [input])
    }

    /// When a [`Input::Tick`] is due, if nothing else happens.
    pub fn next_wake(&self) -> Option<Moment> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.out.wake_at()].into_iter().flatten().min()
    }

    /// What is in flight now.
    pub fn load(&self) -> Load {
        Load {
            events: self.events.len(),
            publishing: self.publishing,
            handles: self.handles.len(),
            confirms: self.requests.len(),
            polls: self.polls.in_flight(),
            paused: self.polls.is_paused(),
            backlog: self.backlog.is_open(),
            unroutable_since: self.breaker.open_since(),
        }
    }

    /// Whether the next thing to happen is a commit: others are neither under way nor waiting for the quota.
    pub fn only_commits_pending(&self) -> bool {
        let commits = self.out.has_open_commits() || self.polls.recordings().any();
        let pulls = !self.polls.is_paused() || self.polls.in_flight() > 0;
        let confirms = !self.requests.is_empty() || self.confirm_queue.iter().next().is_some();
        commits && !pulls && !confirms && self.publishing == 0
    }

    fn take(&mut self, input: Input) {
        let now = self.world.now;
        match input {
            Input::Output(state) => self.world.output_up = state == OutputState::Up,
            Input::Journal(state) => self.world.journal_up = state == JournalState::Up,
            Input::Pulled { pull, sent_at, received_at, pulled_at, result } => {
                self.pulled(PullEnded { pull, sent_at, received_at, pulled_at, result });
            }
            Input::Written(written) => self.written(now, written),
            Input::Published { event, outcome } => self.published(now, event, outcome),
            Input::Confirmed { request, result } => self.confirmed(now, request, result),
            Input::ConfirmProof { request, result } => self.confirm_proof(now, request, result),
            Input::Tick => {}
            Input::Reconfigure(settings) => self.reconfigure(now, *settings),
            Input::Drain => self.world.draining = true,
        }
    }

    fn pulled(&mut self, ended: PullEnded) {
        let publish_now = self.publishes_at_once();
        let Self { world, rng, out, polls, queues, .. } = self;
        if let Some(idle) = polls.ended(world, rng, out, ended, publish_now) {
            queues[idle].confirm_right.idle_answer();
        }
    }

    fn written(&mut self, now: Moment, written: Written) {
        match written {
            Written::Recorded(pulled, recorded) => return self.recorded(now, &pulled, recorded),
            Written::Loaded(loaded) => return self.loaded(now, loaded),
            Written::Published(events) => events.iter().for_each(|event| self.safe(now, *event)),
            Written::Parked(events) => events.iter().for_each(|(event, _)| self.safe(now, *event)),
            Written::Failed(attempts) => {
                attempts.iter().for_each(|attempt| self.back_off(now, attempt.event))
            }
            // Nothing waits for these but the drain.
            Written::Confirmed(_) | Written::LetGo(..) | Written::Settled(_) => {}
            // The core asks for none of these.
            Written::Released(_) | Written::Pruned(_) | Written::Vacuumed(_) | Written::Summary(_) => return,
        }
        self.out.committed();
    }

    fn run_timers(&mut self, now: Moment) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Lapse(entry) => self.lapse(now, entry),
                Timer::Retry(event) => self.retry(event),
            }
        }
    }

    /// The drain is over when nothing that is in flight can still change the journal or reach the cloud in time.
    fn finish(&mut self) {
        if !self.world.draining || self.finished {
            return;
        }
        let publishable = self.world.output_up && (!self.ready.is_empty() || self.suspects.any_ready());
        let confirmable = self.handles.values().any(|entry| entry.state != HandleState::Waiting);
        let busy = self.polls.in_flight() > 0
            || self.polls.recordings().any()
            || self.publishing > 0
            || self.out.has_open_commits()
            || !self.requests.is_empty()
            || self.backlog.is_loading()
            || publishable
            || confirmable;
        if !busy {
            self.finished = true;
            self.out.push(Effect::Finished);
        }
    }

    /// Distinct handles: no request may carry one twice.
    fn distinct(&self, entry: &[HandleId]) -> Vec<EventHandle> {
        let mut seen = HashSet::new();
        entry
            .iter()
            .map(|id| self.handles[id].handle.clone())
            .filter(|handle| seen.insert(handle.clone()))
            .collect()
    }
}
