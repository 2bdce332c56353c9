//! What the journal can be asked, and what it answers after the commit.
//!
//! The core asks for the writes that the way of an event needs; maintenance and `events release` ask for the others. The
//! journal's writer carries each of them out (`journal/execute.rs`). The lists are shared, so that an answer can carry what was
//! asked for: whoever counts, counts what is committed.

use std::sync::Arc;

use tencent_vod_event::{Event, SubAppId};

use crate::clock::{Moment, WallTime};
use crate::identity::{DeliveryId, EventId, Recorded};
use crate::lease::Lease;
use crate::outcome::Problem;
use crate::outgoing::Outgoing;

/// What one `PullEvents` can hand out at most (document 266/33433).
pub const EVENTS_PER_PULL: usize = 16;

/// A pull request, from its sending to its record in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullId(pub u64);

/// What one pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Which pull.
    pub pull: PullId,
    /// The sub-application that was asked.
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
    /// The lease's cutoff on the wall clock, for people, and for a relay after a reboot.
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
    /// Whether the broker may have it all the same.
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
    /// When its answer had arrived.
    pub received_at: Moment,
    /// When the cloud accepted it.
    pub confirmed_at: Moment,
}

/// Why the relay let a handle go without a yes from the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    /// The cloud rejects this very handle.
    Refused,
    /// Confirms were sent, and no answer came before the lease lapsed.
    Lost,
}

/// An unpublished event that the journal hands back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its number.
    pub event: EventId,
    /// What is to be published: the event as its first delivery brought it, with the handle of its newest one.
    pub outgoing: Outgoing,
    /// Whether the cloud has forgotten it already.
    pub confirmed: bool,
}

/// The journal in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that wait for their ack.
    pub received: u64,
    /// Events that the broker has and the cloud still holds.
    pub published: u64,
    /// Events that are done.
    pub confirmed: u64,
    /// Events that wait for an operator.
    pub parked: u64,
    /// Events of any state that the cloud still holds, as far as the journal knows.
    pub unconfirmed: u64,
    /// When the oldest of those arrived.
    pub oldest_unconfirmed: Option<WallTime>,
    /// When the oldest event arrived that waits for its ack.
    pub oldest_unpublished: Option<WallTime>,
    /// Events that are not done and came with a copy: what became of them after it was made is not known.
    pub in_doubt: u64,
}

/// What one step of giving free pages back did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacuumed {
    /// Pages that went back to the file system.
    pub given_back: u64,
    /// Pages that are still free.
    pub left: u64,
}

/// What the journal can be asked. Each write is one part of a transaction, and can run more than once: each run after a rollback
/// starts from the same database.
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
    /// The cloud proved that it holds nothing of `sub_app` that was delivered before `received_before`: what is published or parked
    /// and was not handed over since counts as confirmed.
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
        /// At most so many.
        limit: u32,
    },
    /// Make a parked event a received one, with all its attempts before it.
    Release(EventId),
    /// The same as [`Self::Settle`] by the calendar, for sub-applications that nobody polls, so that no idle answer comes: what was
    /// handed over last before `received_before` counts as confirmed, because the cloud deletes an event after four days.
    SettleUnpolled {
        /// The sub-applications that are polled.
        polled: Arc<[SubAppId]>,
        /// Deliveries received before this time.
        received_before: WallTime,
        /// At most so many events.
        limit: u32,
    },
    /// Forget up to `limit` confirmed events that were received and confirmed before `before`, the oldest first, with their
    /// deliveries. An event that was pruned is a new one when the cloud hands it over again.
    Prune {
        /// Events before this time.
        before: WallTime,
        /// At most so many.
        limit: u32,
    },
    /// Give up to `pages` free pages of the file, but one at least, back to the file system.
    Vacuum {
        /// At most so many.
        pages: u32,
    },
    /// Sum the journal up. What is unconfirmed is told of these sub-applications, or of all: nothing can confirm the other ones.
    Summarise(Option<Arc<[SubAppId]>>),
}

/// What became of a [`Write`], after its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// What each delivery of the answer is, in the answer's order.
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
    /// Whether the event was parked, and is not any more.
    Released(bool),
    /// How many events were forgotten.
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
    /// Whether it can wait. Records of what has happened already can: at most a confirm waits for them. So can a full answer: the
    /// cloud has more, and its events have waited there already.
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

    /// What it is, for the names of crash points.
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
