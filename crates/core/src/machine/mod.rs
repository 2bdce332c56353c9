//! The core decides; it has no I/O, no clock and no await.
//!
//! Everything that can happen arrives as an [`Input`], and everything to be done leaves as an [`Effect`]. It
//! holds the part of the journal that is in flight: events that are not yet safe, and handles that can still
//! be confirmed. All of it can be lost in a crash, and is rebuilt from the journal and from the cloud's
//! redeliveries.
//!
//! An event's way through here:
//!
//! ```text
//! Pulled -> Write(Record) -> Written(Recorded) -> Publish -> Published(Acked) -> Write(Published)
//!        -> Written(Published) -> Confirm -> Confirmed(Ok) -> Write(Confirmed)
//! ```
//!
//! Every arrow from a [`Write`] to its [`Written`] is a commit: a state is durable before its consequence
//! leaves.
//!
//! Three owners hold the state, and no field of one can be reached from another: the `polls` (whom to poll,
//! and when), the `events` (in flight until they are safe), and the `handles` (what can be confirmed, and
//! the requests for it). Each takes facts, puts effects into the `outbox`, and returns what another owner
//! needs. All of that crosses in this file:
//!
//! | from | what | to |
//! | --- | --- | --- |
//! | polls | an answer is recorded: its events and their handles | events, then handles |
//! | polls | events that are being recorded, and polls whose batches may come | events: they take capacity |
//! | polls | a pull found nothing | handles: there may be time to prove the right to confirm |
//! | events | whether new events are published at once | polls: the record says so |
//! | events | an event is safe | its handles: they may be confirmed |
//! | events | nothing is routable, or something is again | polls: they rest, or go on |
//! | events | an event that is safe is let go unconfirmed | polls: an idle answer settles it |
//! | events | how many events more can be held | polls: how many may be sent |
//! | handles | a handle is confirmed, refused, lapsed or merged | its events |
//!
//! [`Write`]: crate::write::Write

mod events;
mod handles;
mod outbox;
mod polls;
mod quota;
mod round_robin;
#[cfg(test)]
mod tests;
mod types;
mod world;

use tencent_vod_event::SubAppId;

use crate::clock::Moment;
use crate::identity::{EventId, Recorded};
use crate::outcome::{JournalState, OutputState, RequestFailure};
use crate::write::{Loaded, Pulled, Written};
use events::{Events, Unsettled};
use handles::{HandleEnd, HandleEnded, Handles, HeldDelivery};
use outbox::Outbox;
use polls::{Polls, PullEnded};
pub use types::{Answer, ConfirmAfter, ConfirmId, Effect, Input, Load, RelaySettings, Settings};
use world::World;

/// The state machine.
#[derive(Debug)]
pub struct Core {
    events: Events,
    handles: Handles,
    polls: Polls,
    /// In the order of their arrival: the owners name a sub-application by its index.
    sub_apps: Vec<SubAppId>,
    world: World,
    rng: fastrand::Rng,
    out: Outbox,
    finished: bool,
}

impl Core {
    /// A new core. It begins by asking the journal for unpublished events.
    pub fn new(settings: Settings, now: Moment) -> Self {
        let wanted = settings.sub_apps.clone();
        let mut core = Self {
            events: Events::new(&settings, now),
            handles: Handles::new(&settings, now),
            polls: Polls::new(&settings, now),
            sub_apps: Vec::new(),
            rng: fastrand::Rng::with_seed(settings.seed),
            out: Outbox::default(),
            finished: false,
            world: World::new(settings, now),
        };
        for id in wanted {
            core.add(id, true);
        }
        core
    }

    /// Takes what happened and returns what is to be done. Give inputs that arrived together in one call:
    /// their consequences are then committed together.
    pub fn step(&mut self, now: Moment, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        self.world.now = now;
        // Leases first: nothing may join a handle whose lease has lapsed.
        let lapsed = self.handles.lapse_due(now, &mut self.out);
        self.handles_ended(lapsed);
        self.events.retry_due(now);
        for input in inputs {
            self.take(input);
        }
        self.out.wakes();
        if self.events.turn_breaker(&self.world, &mut self.rng) {
            self.polls.rest(self.events.polls_rest());
        }
        self.events.load(&self.world, &mut self.out, self.polls.recordings(), self.polls.further());
        self.events.publish(&self.world, &mut self.out);
        let let_go = self.handles.send(&self.world, &mut self.out);
        self.handles_ended(let_go);
        self.handles.prove_rights(&self.world, &mut self.out);
        let capacity = self.events.capacity_for_polls(&self.world, self.polls.recordings());
        let routable = self.events.unroutable_since().is_none();
        self.polls.send(&self.world, &mut self.out, capacity, routable);
        self.out.flush();
        self.finish();
        self.out.take()
    }

    /// One input; see [`Core::step`].
    pub fn handle(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        self.step(now, [input])
    }

    /// The time of the next [`Input::Tick`], if nothing else happens.
    pub fn next_wake(&self) -> Option<Moment> {
        let timers = [self.handles.next_lapse(), self.events.next_retry(), self.out.wake_at()];
        timers.into_iter().flatten().min()
    }

    /// The counts of what is in flight.
    pub fn load(&self) -> Load {
        Load {
            events: self.events.len(),
            publishing: self.events.publishing(),
            handles: self.handles.len(),
            confirms: self.handles.in_flight(),
            polls: self.polls.in_flight(),
            paused: self.polls.is_paused(),
            backlog: self.events.has_backlog(),
            unroutable_since: self.events.unroutable_since(),
        }
    }

    /// True when only commits can make progress: nothing else is in flight or waits for the quota.
    pub fn only_commits_pending(&self) -> bool {
        let commits = self.out.has_open_commits() || self.polls.recordings().any();
        let pulls = !self.polls.is_paused() || self.polls.in_flight() > 0;
        commits && !pulls && !self.handles.any_request() && self.events.publishing() == 0
    }

    fn take(&mut self, input: Input) {
        let Self { events, handles, world, rng, out, .. } = self;
        match input {
            Input::Output(state) => world.output_up = state == OutputState::Up,
            Input::Journal(state) => world.journal_up = state == JournalState::Up,
            Input::Pulled { pull, sent_at, received_at, pulled_at, result } => {
                self.pull_ended(PullEnded { pull, sent_at, received_at, pulled_at, result });
            }
            Input::Written(written) => self.written(written),
            Input::Published { event, outcome } => events.publish_ended(world, rng, out, event, outcome),
            Input::Confirmed { request, result } => self.confirmed(request, result),
            Input::ConfirmProof { request, result } => handles.proof_ended(world, rng, request, result),
            Input::Tick => {}
            Input::Reconfigure(settings) => self.reconfigure(*settings),
            Input::Drain => world.draining = true,
        }
    }

    fn pull_ended(&mut self, ended: PullEnded) {
        let Self { events, handles, polls, world, rng, out, .. } = self;
        let publish_now = events.publishes_at_once(world, polls.recordings());
        if let Some(idle) = polls.ended(world, rng, out, ended, publish_now) {
            handles.idle_answer(idle);
        }
    }

    fn written(&mut self, written: Written) {
        match written {
            Written::Recorded(pulled, recorded) => return self.recorded(&pulled, &recorded),
            Written::Loaded(loaded) => return self.loaded(loaded),
            Written::Published(events) => events.iter().for_each(|event| self.safe(*event)),
            Written::Parked(events) => events.iter().for_each(|(event, _)| self.safe(*event)),
            Written::Failed(attempts) => {
                for attempt in &*attempts {
                    self.events.back_off(&self.world, &mut self.rng, attempt.event);
                }
            }
            // Only the drain waits for these.
            Written::Confirmed(_) | Written::LetGo(..) | Written::Settled(_) => {}
            // The core asks for none of these.
            Written::Released(_) | Written::Pruned(_) | Written::Vacuumed(_) | Written::Summary(_) => return,
        }
        self.out.committed();
    }

    /// From polls to events and handles: an answer is on record.
    fn recorded(&mut self, pulled: &Pulled, recorded: &[Recorded]) {
        self.polls.recorded(pulled);
        let Some(sub_app) = self.sub_apps.iter().position(|id| *id == pulled.sub_app) else { return };
        let (lease, received_at) = (pulled.lease, pulled.received_at);
        for (pulled_event, record) in pulled.events.iter().zip(recorded) {
            self.events.meet(sub_app, pulled, pulled_event, record);
            let Recorded { delivery, event, .. } = *record;
            let held = pulled_event.handle.as_ref().and_then(|handle| {
                let held = HeldDelivery { sub_app, handle, lease, received_at, delivery, event };
                self.handles.hold(self.world.now, &mut self.out, &held)
            });
            match held {
                Some(handle) => {
                    self.events.held_by(event, handle);
                    self.review(handle);
                }
                // It cannot be confirmed: when it is safe, it is finished here, and the cloud will hand it
                // over again.
                None => {
                    let unsettled = self.events.forget_if_done(event);
                    self.unsettled(unsettled);
                }
            }
        }
    }

    /// The journal has handed out unpublished events. The sub-application of one may have left the
    /// configuration: the event is still published. A reload can bring the sub-application back, and then an
    /// idle answer settles the event.
    fn loaded(&mut self, loaded: Vec<Loaded>) {
        let with_place = loaded.into_iter().map(|loaded| {
            let id = loaded.outgoing.event.sub_app;
            let known = self.sub_apps.iter().position(|known| *known == id);
            (known.unwrap_or_else(|| self.add(id, false)), loaded)
        });
        let with_place = with_place.collect();
        self.events.loaded(self.world.now, with_place);
    }

    /// From events to handles: an event is safe.
    fn safe(&mut self, event: EventId) {
        for handle in self.events.safe(event) {
            self.review(handle);
        }
        let unsettled = self.events.forget_if_done(event);
        self.unsettled(unsettled);
    }

    /// From events to handles: the facts about a handle's events changed.
    fn review(&mut self, handle: handles::HandleId) {
        let Self { events, handles, world, .. } = self;
        let confirm_after = world.settings.relay.confirm_after;
        handles.review(world.now, handle, |event| events.may_confirm(event, confirm_after));
    }

    fn confirmed(&mut self, request: ConfirmId, result: Result<(), RequestFailure>) {
        let Self { events, handles, world, rng, out, .. } = self;
        let confirm_after = world.settings.relay.confirm_after;
        let may_confirm = |event| events.may_confirm(event, confirm_after);
        let ended = handles.request_ended(world, rng, out, request, result, may_confirm);
        self.handles_ended(ended);
    }

    /// From handles to events: handles have left.
    fn handles_ended(&mut self, all: Vec<HandleEnded>) {
        for HandleEnded { handle, events, how } in all {
            if let HandleEnd::Lapsed(lease) = how {
                self.events.lease_lapsed(&self.world, self.polls.recordings(), lease, &events);
            }
            for event in events {
                let unsettled = self.events.handle_ended(event, handle, how);
                self.unsettled(unsettled);
            }
        }
    }

    /// From events to polls: a safe event was let go unconfirmed.
    fn unsettled(&mut self, unsettled: Option<Unsettled>) {
        if let Some(Unsettled { sub_app, received_at }) = unsettled {
            self.polls.unsettled(sub_app, received_at);
        }
    }

    /// Takes over the settings that can change at work: the sub-applications, the quota, the back-off, the
    /// capacity, and the attempts. Settings that a running lease or a proof depends on stay: the window, and
    /// the proof that a confirm needs.
    fn reconfigure(&mut self, new: Settings) {
        let old = &self.world.settings;
        self.polls.configure(old, &new);
        self.handles.configure(old, &new);
        self.events.configure(old, &new, self.world.now);
        let RelaySettings { confirm_after, lease_margin, .. } = old.relay;
        let relay = RelaySettings { confirm_after, lease_margin, ..new.relay };
        self.world.settings = Settings { window: old.window, relay, ..new };
        // Adds new sub-applications, and stops polling removed ones. Their events in flight are finished.
        let wanted = self.world.settings.sub_apps.clone();
        for id in &wanted {
            if !self.sub_apps.contains(id) {
                self.add(*id, true);
            }
        }
        self.polls.want(&wanted);
    }

    /// Adds a sub-application, with the same index in all owners. One that only the journal has is not
    /// polled.
    fn add(&mut self, id: SubAppId, polled: bool) -> usize {
        self.polls.add(&self.world, id, polled, self.events.polls_rest());
        self.handles.add(id);
        self.sub_apps.push(id);
        self.sub_apps.len() - 1
    }

    /// The drain is over when nothing in flight can still change the journal or reach the cloud in time.
    fn finish(&mut self) {
        if !self.world.draining || self.finished {
            return;
        }
        let publishable = self.world.output_up && self.events.any_ready();
        let busy = self.polls.in_flight() > 0
            || self.polls.recordings().any()
            || self.events.publishing() > 0
            || self.out.has_open_commits()
            || self.handles.in_flight() > 0
            || self.events.is_loading()
            || publishable
            || self.handles.any_confirmable();
        if !busy {
            self.finished = true;
            self.out.push(Effect::Finished);
        }
    }
}
