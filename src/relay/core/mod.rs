//! The core decides; it has no I/O, no clock and no await.
//!
//! Everything that can happen reaches it as an [`Input`], everything that shall be done leaves it as an [`Effect`]. What it
//! holds is the part of the journal that is on its way: events that are not yet safe, and handles that can still be
//! confirmed. All of it can be lost in a crash, and is rebuilt from the journal and from the cloud's redeliveries.
//!
//! An event's way through here:
//!
//! ```text
//! Pulled -> Effect::Record -> Recorded -> Effect::Publish -> Published(Acked) -> Effect::RecordPublished
//!        -> PublishRecorded -> Effect::Confirm -> Confirmed(Ok) -> Effect::RecordConfirmed
//! ```
//!
//! Every arrow to the right of a `Record...` effect waits for its commit: a state is durable before its consequence leaves.

mod confirms;
mod proofs;
mod publishes;
mod pulls;
mod quota;
mod reconfigure;
mod refusals;
mod room;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::pacing::Polls;
use crate::clock::{Moment, WallTime};
use crate::event::{Event, EventHandle, SubAppId};
use crate::identity::{DeliveryId, EventId, Recorded};
use crate::lease::{Lease, Window};
use crate::outcome::{CallFailure, JournalState, OutputState, Problem, PublishOutcome};
use quota::{Quota, Ticket};
use refusals::{Breaker, Suspects, Tries};
use room::Room;
use turns::{PollTurns, Round};

/// On which proof an event counts as safe, so that its handle may be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmAfter {
    /// The broker acked it.
    Publish,
    /// The journal committed it.
    Journal,
}

/// What the core must know beforehand.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The queues to relay.
    pub sub_apps: Vec<SubAppId>,
    /// The proof that a confirm needs.
    pub confirm_after: ConfirmAfter,
    /// The cloud's window and our margin.
    pub window: Window,
    /// The most events that are held at once. One poll of each sub-application may exceed it by its batch.
    pub max_in_flight: usize,
    /// The shortest wait after an idle answer.
    pub idle_backoff_min: Duration,
    /// The longest wait after an idle answer.
    pub idle_backoff_max: Duration,
    /// How many unroutable or refused publishes of an event before it is parked.
    pub publish_attempts: u32,
    /// The account's limit, per API.
    pub requests_per_second: u32,
    /// Where the jitter comes from.
    pub seed: u64,
}

/// A pull request, from its sending to its record in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullId(pub u64);

/// A confirm request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a pull brought, as the shell received it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The cloud's id of the request.
    pub request_id: Arc<str>,
    /// The events, in the answer's order; none when the queue is idle.
    pub events: Vec<Arc<Event>>,
}

/// An event as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The event of the delivery that is published.
    pub event: Arc<Event>,
    /// Which occurrence of its fingerprint.
    pub occurrence: u32,
    /// Whether the cloud had handed it over before.
    pub redelivered: bool,
    /// When the answer with this delivery arrived.
    pub pulled_at: WallTime,
    /// The cloud's id of the request that brought it.
    pub request_id: Arc<str>,
}

/// An unpublished event that the journal hands back.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its number.
    pub event: EventId,
    /// What is to be published.
    pub parcel: Parcel,
    /// Whether the cloud has forgotten it already.
    pub confirmed: bool,
}

/// Everything that can happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// The output's state changed.
    Output(OutputState),
    /// The journal's state changed.
    Journal(JournalState),
    /// A pull ended.
    Pulled {
        /// Which pull.
        pull: PullId,
        /// Just before the request was sent: the lease starts here.
        sent_at: Moment,
        /// When the answer had arrived.
        received_at: Moment,
        /// The same moment, for people.
        pulled_at: WallTime,
        /// What came of it.
        result: Result<Answer, CallFailure>,
    },
    /// The journal committed the deliveries of a pull, in the answer's order.
    Recorded {
        /// Which pull.
        pull: PullId,
        /// What each of its deliveries is.
        recorded: Vec<Recorded>,
    },
    /// A publish ended.
    Published {
        /// Which event.
        event: EventId,
        /// What the broker said.
        outcome: PublishOutcome,
    },
    /// The journal committed that these events are published.
    PublishRecorded(Vec<EventId>),
    /// The journal committed that another publish of these events may leave.
    AttemptRecorded(Vec<EventId>),
    /// The journal committed that these events are parked.
    ParkRecorded(Vec<EventId>),
    /// A confirm call ended.
    Confirmed {
        /// Which call.
        call: CallId,
        /// What the cloud said.
        result: Result<(), CallFailure>,
    },
    /// A [`Effect::ProveConfirm`] ended.
    ConfirmProof {
        /// Which request.
        call: CallId,
        /// What the cloud said.
        result: Result<(), CallFailure>,
    },
    /// The journal committed outcomes of handles; nothing waits for them but the drain.
    OutcomeRecorded,
    /// The journal handed back unpublished events, in the order of their numbers.
    Loaded(Vec<Loaded>),
    /// The journal settled what an idle answer proved.
    SettleRecorded,
    /// Time has passed.
    Tick,
    /// The configuration changed; see [`Settings`].
    Reconfigure(Box<Settings>),
    /// Stop pulling, finish what is in flight.
    Drain,
}

/// A delivery whose handle the cloud accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmedDelivery {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The event that it brought.
    pub event: EventId,
    /// Its lease.
    pub lease: Lease,
    /// When its answer had arrived.
    pub received_at: Moment,
}

/// Why the relay let a handle go without a yes from the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    /// The cloud rejects this very handle.
    Refused,
    /// Confirms were sent, and no answer came before the lease lapsed.
    Lost,
}

/// Everything that shall be done. Effects of one step are carried out in their order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Call `PullEvents`.
    Pull {
        /// Which pull.
        pull: PullId,
        /// Whose queue.
        sub_app: SubAppId,
    },
    /// Commit the deliveries of a pull.
    Record {
        /// Which pull.
        pull: PullId,
        /// Whose queue.
        sub_app: SubAppId,
        /// The answer.
        answer: Answer,
        /// The lease of its handles.
        lease: Lease,
        /// When the answer had arrived.
        received_at: Moment,
        /// The same, for people.
        pulled_at: WallTime,
        /// Whether new events of it are published as soon as they are recorded.
        publish_now: bool,
    },
    /// Publish an event.
    Publish {
        /// Which event.
        event: EventId,
        /// What to publish.
        parcel: Arc<Parcel>,
        /// In a batch of its own: a batch with it was refused, and the culprit is being looked for.
        alone: bool,
    },
    /// Commit that these events are published.
    RecordPublished(Vec<EventId>),
    /// Commit that a publish failed and another may follow.
    RecordAttempts(Vec<FailedAttempt>),
    /// Commit that these events are given up, with the reason.
    RecordParked(Vec<(EventId, Problem)>),
    /// Call `ConfirmEvents`.
    Confirm {
        /// Which call.
        call: CallId,
        /// Whose queue.
        sub_app: SubAppId,
        /// The handles, each once.
        handles: Vec<EventHandle>,
        /// Nothing of the call may leave at or after this moment.
        cutoff: Moment,
    },
    /// Call `ConfirmEvents` with a made-up handle, to learn whether the key may call it.
    ProveConfirm {
        /// Returned with the answer.
        call: CallId,
        /// Whose queue.
        sub_app: SubAppId,
    },
    /// Commit that the cloud accepted these handles.
    RecordConfirmed(Vec<ConfirmedDelivery>),
    /// Commit how these handles ended otherwise.
    RecordLetGo(Vec<DeliveryId>, LetGo),
    /// Commit that the cloud no longer holds what was handed over before that moment.
    Settle {
        /// Whose queue.
        sub_app: SubAppId,
        /// Deliveries received before this moment.
        received_before: Moment,
    },
    /// Read unpublished events with higher numbers than `after`.
    Load {
        /// The highest number seen.
        after: EventId,
        /// At most so many.
        limit: u32,
    },
    /// The drain is over: nothing is in flight.
    Finished,
}

/// A publish that failed, and may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Which event.
    pub event: EventId,
    /// Whether the broker may have it all the same.
    pub uncertain: bool,
    /// What happened.
    pub problem: Problem,
}

/// A handle under a lease. Keyed by a number, because a handle is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct HeldId(u64);

/// How far an event got in the relay's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFlightState {
    /// Unpublished, and only the journal has its content: `Load` brings it.
    Stored,
    /// Waits for its turn to be published.
    Ready,
    /// A publish failed; the failure is being committed.
    Failing,
    /// Waits out its back-off.
    BackingOff,
    /// Given to the output; its outcome comes.
    Publishing,
    /// Acked; the ack is being committed.
    Acked,
    /// Given up; that is being committed.
    Parking,
    /// Published or parked, and committed.
    Safe,
}

/// An event in the relay's hands: until it is safe, and no handle of it is left to confirm.
#[derive(Debug)]
struct Carried {
    sub_app: usize,
    parcel: Option<Arc<Parcel>>,
    state: InFlightState,
    /// Its handles that can still be confirmed.
    holds: SmallVec<[HeldId; 1]>,
    /// What its publishes have met.
    tries: Tries,
    /// In a batch of its own.
    alone: bool,
    confirmed: bool,
    /// When its newest delivery arrived.
    received_at: Moment,
}

impl Carried {
    /// Whether it may be confirmed.
    fn may_confirm(&self, confirm_after: ConfirmAfter) -> bool {
        match confirm_after {
            ConfirmAfter::Publish => self.state == InFlightState::Safe,
            // The commit of its record is the proof; whatever is in the map has been recorded.
            ConfirmAfter::Journal => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldStage {
    /// Waits for its events to be safe.
    Waiting,
    /// Waits for its call, since then.
    Queued(Moment),
    /// In a call.
    Calling,
}

#[derive(Debug)]
struct Held {
    sub_app: usize,
    handle: EventHandle,
    lease: Lease,
    received_at: Moment,
    deliveries: SmallVec<[(DeliveryId, EventId); 1]>,
    state: HeldStage,
    /// Whether a call with it may have reached the cloud.
    tried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lapse(HeldId),
    Retry(EventId),
}

/// A pull between its answer and its record.
#[derive(Debug)]
struct Recording {
    sub_app: usize,
    answer: Answer,
    lease: Lease,
    received_at: Moment,
    pulled_at: WallTime,
    publish_now: bool,
}

/// What the core keeps for one sub-application.
#[derive(Debug)]
struct Queue {
    id: SubAppId,
    polls: Polls,
    confirms: confirms::Lane,
    confirm_right: proofs::ConfirmRight,
    /// When the oldest and the newest delivery arrived that was let go unconfirmed though its event is safe: an idle answer
    /// to a pull sent well after that settles it.
    unsettled: Option<(Moment, Moment)>,
    /// Until then an idle answer proves nothing: a pull whose answer was lost may have hidden events that long.
    veiled_until: Moment,
}

/// The state machine.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    rng: fastrand::Rng,
    output_up: bool,
    journal_up: bool,
    draining: bool,
    finished: bool,
    queues: Vec<Queue>,
    poll_turns: PollTurns,
    /// Sub-applications with something to confirm.
    confirm_turns: Round,
    pull_quota: Quota,
    confirm_quota: Quota,
    room: Room,
    next_id: u64,

    pulls: FxHashMap<PullId, (usize, Ticket)>,
    /// Sub-applications with a poll in flight.
    polled: usize,
    /// Whether nothing is to be pulled now.
    paused: bool,
    recordings: FxHashMap<PullId, Recording>,
    /// Events in these.
    recording: usize,
    events: FxHashMap<EventId, Carried>,
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
    held: FxHashMap<HeldId, Held>,
    /// Handles that no call is confirming now, so that another delivery under the same handle joins them.
    open_handles: HashMap<(usize, EventHandle), HeldId>,
    calls: FxHashMap<CallId, confirms::Call>,
    backlog: publishes::Backlog,
    /// Commits that nothing but the drain waits for.
    commits: usize,
    timers: BTreeSet<(Moment, Timer)>,
    /// The next time that pulling or confirming wants to be looked at again.
    wake_at: Option<Moment>,
    out: Outbox,
}

/// Effects of one step that are worth one commit together.
#[derive(Debug, Default)]
struct Outbox {
    effects: Vec<Effect>,
    published: Vec<EventId>,
    attempts: Vec<FailedAttempt>,
    parked: Vec<(EventId, Problem)>,
    confirmed: Vec<ConfirmedDelivery>,
    refused: Vec<DeliveryId>,
    lost: Vec<DeliveryId>,
}

/// Figures of what is in flight, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Events in the relay's hands.
    pub events: usize,
    /// Publishes without an outcome.
    pub publishing: usize,
    /// Handles that can still be confirmed.
    pub handles: usize,
    /// Confirm calls in flight.
    pub confirms: usize,
    /// Polls in flight.
    pub polls: usize,
    /// Whether nothing is to be pulled now: the events in hand are enough, or have nowhere to go.
    pub paused: bool,
    /// Whether the journal has unpublished events that are not in the relay's hands.
    pub backlog: bool,
    /// Since when nothing that is published gets a queue.
    pub unroutable_since: Option<Moment>,
}

impl Core {
    /// A core that knows nothing yet: it begins by asking the journal what is unpublished.
    pub fn new(settings: Settings, now: Moment) -> Self {
        let queues: Vec<Queue> = settings.sub_apps.iter().map(|id| Queue::new(*id, &settings, now)).collect();
        let mut poll_turns = PollTurns::default();
        for (index, queue) in queues.iter().enumerate() {
            poll_turns.wishes(index, queue.polls.wish());
        }
        Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            output_up: false,
            journal_up: true,
            draining: false,
            finished: false,
            queues,
            poll_turns,
            confirm_turns: Round::default(),
            pull_quota: Quota::new(settings.requests_per_second, now),
            confirm_quota: Quota::new(settings.requests_per_second, now),
            room: Room::new(settings.max_in_flight, now),
            next_id: 0,
            pulls: FxHashMap::default(),
            polled: 0,
            paused: false,
            recordings: FxHashMap::default(),
            recording: 0,
            events: FxHashMap::default(),
            ready: BTreeSet::new(),
            suspects: Suspects::default(),
            breaker: Breaker::default(),
            refused: 0,
            suspected: 0,
            acks: 0,
            publishing: 0,
            publish_from: now,
            held: FxHashMap::default(),
            open_handles: HashMap::new(),
            calls: FxHashMap::default(),
            backlog: publishes::Backlog::after_start(),
            commits: 0,
            timers: BTreeSet::new(),
            wake_at: None,
            out: Outbox::default(),
            settings,
        }
    }

    /// Takes what happened and says what shall be done. Inputs that arrived together are best given together: what they
    /// lead to is then committed together.
    pub fn step(&mut self, now: Moment, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        // Leases first: nothing joins a handle whose lease has lapsed meanwhile.
        self.run_timers(now);
        for input in inputs {
            self.take(now, input);
        }
        self.wake_at = None;
        self.turn_breaker(now);
        self.load_backlog(now);
        self.publish_ready(now);
        self.confirm_ready(now);
        self.prove_rights(now);
        self.pull(now);
        self.flush();
        self.finish();
        std::mem::take(&mut self.out.effects)
    }

    /// One input; see [`Core::step`].
    pub fn handle(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        self.step(now, [input])
    }

    /// When a [`Input::Tick`] is due, if nothing else happens.
    pub fn next_wake(&self) -> Option<Moment> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.wake_at].into_iter().flatten().min()
    }

    /// What is in flight now.
    pub fn load(&self) -> Load {
        Load {
            events: self.events.len(),
            publishing: self.publishing,
            handles: self.held.len(),
            confirms: self.calls.len(),
            polls: self.pulls.len(),
            paused: self.paused,
            backlog: self.backlog.is_open(),
            unroutable_since: self.breaker.open_since(),
        }
    }

    /// Whether the next thing to happen is a commit: others are neither under way nor waiting for the quota.
    pub fn waits_for_commits_alone(&self) -> bool {
        let commits = self.commits > 0 || !self.recordings.is_empty();
        let pulls = !self.paused || !self.pulls.is_empty();
        let confirms = !self.calls.is_empty() || self.confirm_turns.iter().next().is_some();
        commits && !pulls && !confirms && self.publishing == 0
    }

    fn take(&mut self, now: Moment, input: Input) {
        match input {
            Input::Output(state) => self.output_up = state == OutputState::Up,
            Input::Journal(state) => self.journal_up = state == JournalState::Up,
            Input::Pulled { pull, sent_at, received_at, pulled_at, result } => {
                self.pulled(now, pull, sent_at, received_at, pulled_at, result);
            }
            Input::Recorded { pull, recorded } => self.recorded(now, pull, recorded),
            Input::Published { event, outcome } => self.published(now, event, outcome),
            Input::PublishRecorded(events) | Input::ParkRecorded(events) => {
                self.commits -= 1;
                for event in events {
                    self.safe(now, event);
                }
            }
            Input::AttemptRecorded(events) => {
                self.commits -= 1;
                for event in events {
                    self.back_off(now, event);
                }
            }
            Input::Confirmed { call, result } => self.confirmed(now, call, result),
            Input::ConfirmProof { call, result } => self.confirm_proof(now, call, result),
            Input::OutcomeRecorded | Input::SettleRecorded => self.commits -= 1,
            Input::Loaded(loaded) => self.loaded(now, loaded),
            Input::Tick => {}
            Input::Reconfigure(settings) => self.reconfigure(now, *settings),
            Input::Drain => self.draining = true,
        }
    }

    fn run_timers(&mut self, now: Moment) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Lapse(held) => self.lapse(now, held),
                Timer::Retry(event) => self.retry(event),
            }
        }
    }

    fn wake(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Turns what the step gathered into effects. Commits come first: what follows from them waits for their answer, and
    /// what does not depend on them loses nothing by coming after.
    fn flush(&mut self) {
        let mut commits = Vec::new();
        let out = &mut self.out;
        if !out.published.is_empty() {
            commits.push(Effect::RecordPublished(std::mem::take(&mut out.published)));
        }
        if !out.parked.is_empty() {
            commits.push(Effect::RecordParked(std::mem::take(&mut out.parked)));
        }
        if !out.attempts.is_empty() {
            commits.push(Effect::RecordAttempts(std::mem::take(&mut out.attempts)));
        }
        if !out.confirmed.is_empty() {
            commits.push(Effect::RecordConfirmed(std::mem::take(&mut out.confirmed)));
        }
        if !out.refused.is_empty() {
            commits.push(Effect::RecordLetGo(std::mem::take(&mut out.refused), LetGo::Refused));
        }
        if !out.lost.is_empty() {
            commits.push(Effect::RecordLetGo(std::mem::take(&mut out.lost), LetGo::Lost));
        }
        self.commits += commits.len();
        self.out.effects.splice(0..0, commits);
    }

    /// The drain is over when nothing that is in flight can still change the journal or reach the cloud in time.
    fn finish(&mut self) {
        if !self.draining || self.finished {
            return;
        }
        let publishable = self.output_up && (!self.ready.is_empty() || self.suspects.any_ready());
        let confirmable = self.held.values().any(|held| held.state != HeldStage::Waiting);
        let busy = !self.pulls.is_empty()
            || !self.recordings.is_empty()
            || self.publishing > 0
            || self.commits > 0
            || !self.calls.is_empty()
            || self.backlog.is_loading()
            || publishable
            || confirmable;
        if !busy {
            self.finished = true;
            self.out.effects.push(Effect::Finished);
        }
    }

    /// Distinct handles: no call may carry one twice.
    fn distinct(&self, held: &[HeldId]) -> Vec<EventHandle> {
        let mut seen = HashSet::new();
        held.iter()
            .map(|id| self.held[id].handle.clone())
            .filter(|handle| seen.insert(handle.clone()))
            .collect()
    }
}
