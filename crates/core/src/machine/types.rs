//! The inputs and effects of the state machine.

use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::{Event, EventHandle, SubAppId};

use crate::clock::{Moment, WallTime};
use crate::identity::EventId;
use crate::lease::Window;
use crate::outcome::{JournalState, OutputState, PublishOutcome, RequestFailure};
use crate::outgoing::Outgoing;
use crate::write::{PullId, Write, Written};

/// The proof by which an event counts as safe, so that its handle may be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmAfter {
    /// The broker acked it.
    Publish,
    /// The journal committed it.
    Journal,
}

/// The settings of the core.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The queues to relay.
    pub sub_apps: Vec<SubAppId>,
    /// How long the cloud lets a handle be confirmed.
    pub window: Duration,
    /// The account's limit, per API.
    pub requests_per_second: u32,
    /// How events are carried.
    pub relay: RelaySettings,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Settings {
    /// The cloud's window and the relay's margin at its end.
    pub fn lease_window(&self) -> Window {
        Window { length: self.window, margin: self.relay.lease_margin }
    }
}

/// How events are carried: the section `[relay]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// The proof that a confirm needs.
    pub confirm_after: ConfirmAfter,
    /// The end of the window, in which no confirm leaves.
    pub lease_margin: Duration,
    /// The most events in flight. One poll of each sub-application may exceed it by its batch.
    pub max_in_flight: usize,
    /// The shortest wait after an idle answer.
    pub idle_backoff_min: Duration,
    /// The longest wait after an idle answer.
    pub idle_backoff_max: Duration,
    /// How often an unroutable or refused event is published before it is parked, spread over minutes.
    pub publish_attempts: u32,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            confirm_after: ConfirmAfter::Publish,
            lease_margin: Duration::from_secs(3),
            max_in_flight: 1024,
            idle_backoff_min: Duration::from_millis(200),
            idle_backoff_max: Duration::from_secs(5),
            publish_attempts: 5,
        }
    }
}

/// A confirm request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfirmId(pub u64);

/// What a pull brought, as the shell received it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The cloud's id of the request.
    pub request_id: Arc<str>,
    /// The events, in the answer's order; none when the queue is idle.
    pub events: Vec<Arc<Event>>,
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
        /// When the answer arrived.
        received_at: Moment,
        /// The same moment, for people.
        pulled_at: WallTime,
        /// Its result.
        result: Result<Answer, RequestFailure>,
    },
    /// The journal committed a write of the core.
    Written(Written),
    /// A publish ended.
    Published {
        /// Which event.
        event: EventId,
        /// The broker's answer.
        outcome: PublishOutcome,
    },
    /// A confirm request ended.
    Confirmed {
        /// Which request.
        request: ConfirmId,
        /// The cloud's answer.
        result: Result<(), RequestFailure>,
    },
    /// A [`Effect::ProveConfirm`] ended.
    ConfirmProof {
        /// Which request.
        request: ConfirmId,
        /// The cloud's answer.
        result: Result<(), RequestFailure>,
    },
    /// Time has passed.
    Tick,
    /// The configuration changed; see [`Settings`].
    Reconfigure(Box<Settings>),
    /// Stop pulling, finish what is in flight.
    Drain,
}

/// Everything that is to be done. Effects of one step are carried out in their order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a `PullEvents`.
    Pull {
        /// Which pull.
        pull: PullId,
        /// Whose queue.
        sub_app: SubAppId,
    },
    /// Ask the journal. Its consequences wait for its [`Input::Written`].
    Write(Write),
    /// Publish an event.
    Publish {
        /// Which event.
        event: EventId,
        /// What to publish.
        outgoing: Arc<Outgoing>,
        /// In a batch of its own: a batch with it was refused, and the cause is being searched.
        alone: bool,
    },
    /// Send a `ConfirmEvents`.
    Confirm {
        /// Which request.
        request: ConfirmId,
        /// Whose queue.
        sub_app: SubAppId,
        /// The handles, each once.
        handles: Vec<EventHandle>,
        /// Nothing of the request may leave at or after this moment.
        cutoff: Moment,
    },
    /// Send a `ConfirmEvents` with a made-up handle, to learn whether the key has the right.
    ProveConfirm {
        /// Returned with the answer.
        request: ConfirmId,
        /// Whose queue.
        sub_app: SubAppId,
    },
    /// The drain is over: nothing is in flight.
    Finished,
}

/// The counts of what is in flight, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Events in flight.
    pub events: usize,
    /// Publishes without an outcome.
    pub publishing: usize,
    /// Handles that can still be confirmed.
    pub handles: usize,
    /// Confirm requests in flight.
    pub confirms: usize,
    /// Polls in flight.
    pub polls: usize,
    /// Whether nothing may be pulled now: there are enough events in flight, or they cannot be published.
    pub paused: bool,
    /// Whether the journal has unpublished events that are not in flight.
    pub backlog: bool,
    /// The time since which no publish is routable.
    pub unroutable_since: Option<Moment>,
}
