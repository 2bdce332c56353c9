//! The journal's writes, and its answers after the commit.
//!
//! The core requests the writes for the way of an event; maintenance and `events release` request the others.
//! The journal's writer executes each of them (`journal/execute.rs`). The lists are shared, so an answer can
//! carry the question: code that counts, counts committed facts.

use std::sync::Arc;

use tencent_vod_event::{Event, SubAppId};

use crate::clock::{Moment, WallTime};
use crate::identity::{DeliveryId, EventId, Recorded};
use crate::lease::Lease;
use crate::outcome::Problem;
use crate::outgoing::Outgoing;

/// The most events of one `PullEvents` (document 266/33433).
pub const EVENTS_PER_PULL: usize = 16;

/// A pull request, from its sending to its record in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullId(pub u64);

/// The result of one pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Which pull.
    pub pull: PullId,
    /// The sub-application of the request.
    pub sub_app: SubAppId,
    /// The cloud's id of the answer.
    pub request_id: Arc<str>,
    /// The events, in the answer's order.
    pub events: Vec<Arc<Event>>,
    /// The lease of every handle in it.
    pub lease: Lease,
    /// When the answer arrived.
    pub received_at: Moment,
    /// The same, for people and headers.
    pub pulled_at: WallTime,
    /// Whether new events are published right after the commit: that first attempt is counted in the same commit.
    pub publish_now: bool,
}

impl Pulled {
    /// The lease's cutoff on the wall clock, for people and for a relay after a reboot.
    pub fn lease_until(&self) -> WallTime {
        let Lease { sent_at, cutoff } = self.lease;
        self.pulled_at + cutoff.since(sent_at) - self.received_at.since(sent_at)
    }
}

/// A publish that failed, and may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Which event.
    pub event: EventId,
    /// Whether the broker may have it.
    pub uncertain: bool,
    /// What happened.
    pub problem: Problem,
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
    /// When its answer arrived.
    pub received_at: Moment,
    /// When the cloud accepted it.
    pub confirmed_at: Moment,
}

/// Why the relay let a handle go unconfirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    /// The cloud rejects this handle.
    Refused,
    /// Confirms were sent, and no answer came before the lease lapsed.
    Lost,
}

/// An unpublished event that the journal hands back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its number.
    pub event: EventId,
    /// The message to publish: the event as its first delivery brought it, with the handle of its newest one.
    pub outgoing: Outgoing,
    /// Whether the cloud has already forgotten it.
    pub confirmed: bool,
}

/// The journal's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that wait for their ack.
    pub received: u64,
    /// Events that the broker has and the cloud still holds.
    pub published: u64,
    /// Confirmed events.
    pub confirmed: u64,
    /// Events that wait for an operator.
    pub parked: u64,
    /// Events of any state that the cloud still holds, as far as the journal knows.
    pub unconfirmed: u64,
    /// The receipt of the oldest of those.
    pub oldest_unconfirmed: Option<WallTime>,
    /// The receipt of the oldest event that waits for its ack.
    pub oldest_unpublished: Option<WallTime>,
    /// Unfinished events that came with a copy: their fate after the copy is unknown.
    pub in_doubt: u64,
}

/// The result of one step of giving free pages back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacuumed {
    /// Pages that went back to the file system.
    pub given_back: u64,
    /// Pages that are still free.
    pub left: u64,
}

/// One thing that the journal can be asked. Each write is one part of a transaction and can run more than
/// once: a run after a rollback starts from the same database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Judge and record the events of one answer.
    Record(Arc<Pulled>),
    /// The broker acked these events.
    Published(Arc<[EventId]>),
    /// Publishes failed. Another attempt of each is counted, and may leave after the commit.
    Failed(Arc<[FailedAttempt]>),
    /// The relay gives these events up.
    Parked(Arc<[(EventId, Problem)]>),
    /// The cloud accepted these handles; their events count as confirmed from the first time on.
    Confirmed(Arc<[ConfirmedDelivery]>),
    /// These deliveries ended without a confirm.
    LetGo(Arc<[DeliveryId]>, LetGo),
    /// The cloud proved that it holds nothing of `sub_app` that was delivered before `received_before`.
    /// Published and parked events without a later delivery count as confirmed.
    Settle {
        /// Whose queue.
        sub_app: SubAppId,
        /// Deliveries received before this moment.
        received_before: Moment,
    },
    /// Hand out up to `limit` received events with numbers above `after`, ascending, to be published. The attempt is counted in the
    /// same commit.
    Load {
        /// The highest number seen.
        after: EventId,
        /// At most this many.
        limit: u32,
    },
    /// Make a parked event a received one, with all its attempts again.
    Release(EventId),
    /// As [`Self::Settle`], by the calendar, for sub-applications that are not polled and have no idle
    /// answers. An event whose last delivery was before `received_before` counts as confirmed, because the
    /// cloud deletes events after four days.
    SettleUnpolled {
        /// The sub-applications that are polled.
        polled: Arc<[SubAppId]>,
        /// Deliveries received before this time.
        received_before: WallTime,
        /// At most this many events.
        limit: u32,
    },
    /// Delete up to `limit` confirmed events that were received and confirmed before `before`, the oldest
    /// first, with their deliveries. A pruned event is a new one when the cloud hands it over again.
    Prune {
        /// Events before this time.
        before: WallTime,
        /// At most this many.
        limit: u32,
    },
    /// Give up to `pages` free pages of the file, and at least one, back to the file system.
    Vacuum {
        /// At most this many.
        pages: u32,
    },
    /// Count the events. Unconfirmed events count for these sub-applications, or for all: nothing can confirm
    /// the others.
    Summarise(Option<Arc<[SubAppId]>>),
}

/// The result of a [`Write`], after its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The judgement of each delivery, in the answer's order.
    Recorded(Arc<Pulled>, Vec<Recorded>),
    /// See [`Write::Published`].
    Published(Arc<[EventId]>),
    /// See [`Write::Failed`].
    Failed(Arc<[FailedAttempt]>),
    /// See [`Write::Parked`].
    Parked(Arc<[(EventId, Problem)]>),
    /// See [`Write::Confirmed`].
    Confirmed(Arc<[ConfirmedDelivery]>),
    /// See [`Write::LetGo`].
    LetGo(Arc<[DeliveryId]>, LetGo),
    /// How many events were settled.
    Settled(u64),
    /// The events that are handed out.
    Loaded(Vec<Loaded>),
    /// Whether the event was parked before.
    Released(bool),
    /// The number of deleted events.
    Pruned(u64),
    /// See [`Vacuumed`].
    Vacuumed(Vacuumed),
    /// See [`Summary`].
    Summary(Summary),
}

/// Whether a write can wait to share a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// An event waits for it.
    Urgent,
    /// It can wait for a moment.
    Deferrable {
        /// How many rows it writes.
        rows: usize,
        /// Whether a confirm waits for it.
        confirm_waits: bool,
    },
}

impl Write {
    /// Whether it changes nothing in the journal, whatever is in there.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Summarise(_))
    }

    /// Whether it can wait. Records of past facts can wait: at most a confirm depends on them. So can a full
    /// answer: the cloud has more events, which have waited longer.
    pub fn urgency(&self) -> Urgency {
        let rows = |rows| Urgency::Deferrable { rows, confirm_waits: false };
        match self {
            Self::Record(pulled) if pulled.events.len() >= EVENTS_PER_PULL => rows(pulled.events.len()),
            Self::Published(events) => Urgency::Deferrable { rows: events.len(), confirm_waits: true },
            Self::Confirmed(deliveries) => rows(deliveries.len()),
            Self::LetGo(deliveries, _) => rows(deliveries.len()),
            _ => Urgency::Urgent,
        }
    }

    /// Its name, for failpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::Published(_) => "published",
            Self::Failed(_) => "failed",
            Self::Parked(_) => "parked",
            Self::Confirmed(_) => "confirmed",
            Self::LetGo(..) => "let_go",
            Self::Settle { .. } => "settle",
            Self::Load { .. } => "load",
            Self::Release(_) => "release",
            Self::SettleUnpolled { .. } => "settle_unpolled",
            Self::Prune { .. } => "prune",
            Self::Vacuum { .. } => "vacuum",
            Self::Summarise(_) => "summarise",
        }
    }
}
