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
mod handles;
mod in_flight;
mod outbox;
mod polls;
mod publishes;
mod quota;
mod reconfigure;
mod refusals;
mod round_robin;
#[cfg(test)]
mod tests;
mod types;
mod world;

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use tencent_vod_event::SubAppId;

use crate::clock::Moment;
use crate::identity::EventId;
use crate::outcome::{JournalState, OutputState, RequestFailure};
use crate::write::Written;
use capacity::Capacity;
use handles::Handles;
use in_flight::{InFlight, InFlightState};
use outbox::Outbox;
use polls::{Polls, PullEnded};
use refusals::{Breaker, Suspects};
pub use types::{Answer, ConfirmAfter, ConfirmId, Effect, Input, Load, Settings};
use world::World;

/// The state machine.
#[derive(Debug)]
pub struct Core {
    world: World,
    rng: fastrand::Rng,
    finished: bool,
    /// In the order in which they came: their place is their name in all owners.
    sub_apps: Vec<SubAppId>,
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
    handles: Handles,
    backlog: publishes::Backlog,
    /// When each event is to be published again.
    retries: BTreeSet<(Moment, EventId)>,
    out: Outbox,
}

impl Core {
    /// A core that knows nothing yet: it begins by asking the journal what is unpublished.
    pub fn new(settings: Settings, now: Moment) -> Self {
        let (polls, handles) = (Polls::new(&settings, now), Handles::new(&settings, now));
        let sub_apps = settings.sub_apps.clone();
        let mut core = Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            finished: false,
            sub_apps: Vec::new(),
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
            handles,
            backlog: publishes::Backlog::after_start(),
            retries: BTreeSet::new(),
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
        let ended = self.handles.send(&self.world, &mut self.out);
        self.handles_ended(ended);
        self.handles.prove_rights(&self.world, &mut self.out);
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
        let retry = self.retries.first().map(|(at, _)| *at);
        [self.handles.next_lapse(), retry, self.out.wake_at()].into_iter().flatten().min()
    }

    /// What is in flight now.
    pub fn load(&self) -> Load {
        Load {
            events: self.events.len(),
            publishing: self.publishing,
            handles: self.handles.len(),
            confirms: self.handles.in_flight(),
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
        commits && !pulls && !self.handles.any_request() && self.publishing == 0
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
            Input::Confirmed { request, result } => self.confirmed(request, result),
            Input::ConfirmProof { request, result } => {
                self.handles.proof_ended(&self.world, &mut self.rng, request, result);
            }
            Input::Tick => {}
            Input::Reconfigure(settings) => self.reconfigure(now, *settings),
            Input::Drain => self.world.draining = true,
        }
    }

    fn pulled(&mut self, ended: PullEnded) {
        let publish_now = self.publishes_at_once();
        let Self { world, rng, out, polls, handles, .. } = self;
        if let Some(idle) = polls.ended(world, rng, out, ended, publish_now) {
            handles.idle_answer(idle);
        }
    }

    fn confirmed(&mut self, request: ConfirmId, result: Result<(), RequestFailure>) {
        let Self { world, rng, out, handles, events, .. } = self;
        let confirm_after = world.settings.confirm_after;
        let may_confirm = |event| {
            events.get(&event).is_none_or(|in_flight: &InFlight| in_flight.may_confirm(confirm_after))
        };
        let ended = handles.request_ended(world, rng, out, request, result, may_confirm);
        self.handles_ended(ended);
    }

    fn written(&mut self, now: Moment, written: Written) {
        match written {
            Written::Recorded(pulled, recorded) => return self.recorded(&pulled, recorded),
            Written::Loaded(loaded) => return self.loaded(now, loaded),
            Written::Published(events) => events.iter().for_each(|event| self.safe(*event)),
            Written::Parked(events) => events.iter().for_each(|(event, _)| self.safe(*event)),
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
        let ended = self.handles.lapse_due(now, &mut self.out);
        self.handles_ended(ended);
        while let Some((_, event)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.pop_first();
            self.retry(event);
        }
    }

    /// The drain is over when nothing that is in flight can still change the journal or reach the cloud in time.
    fn finish(&mut self) {
        if !self.world.draining || self.finished {
            return;
        }
        let publishable = self.world.output_up && (!self.ready.is_empty() || self.suspects.any_ready());
        let busy = self.polls.in_flight() > 0
            || self.polls.recordings().any()
            || self.publishing > 0
            || self.out.has_open_commits()
            || self.handles.in_flight() > 0
            || self.backlog.is_loading()
            || publishable
            || self.handles.any_confirmable();
        if !busy {
            self.finished = true;
            self.out.push(Effect::Finished);
        }
    }
}
