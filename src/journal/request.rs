//! What the writer can be asked.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::copy;
use super::store::Store;
use super::{Answer, Attempt, HandleOutcome, Loaded, Summary, Vacuumed};
use crate::clock::{Moment, WallTime};
use crate::event::SubAppId;
use crate::identity::{DeliveryId, EventId, Recorded};

/// Holds a result back until the transaction that made it is committed.
#[derive(Debug)]
pub(super) struct Slot<T> {
    value: Option<T>,
    reply: oneshot::Sender<T>,
}

impl<T> Slot<T> {
    pub(super) fn new() -> (Self, oneshot::Receiver<T>) {
        let (reply, answer) = oneshot::channel();
        (Self { value: None, reply }, answer)
    }

    fn keep(&mut self, value: T) {
        self.value = Some(value);
    }

    /// A caller that has gone away needs no reply. A slot without a value was never committed: its caller reads `Closed`.
    fn send(self) {
        if let Some(value) = self.value {
            let _ = self.reply.send(value);
        }
    }
}

/// What waits for the writer.
#[derive(Debug)]
pub(super) enum Queued {
    /// Work for one transaction.
    Requests(Vec<Request>),
    /// Work between two transactions.
    Copy(copy::Command),
}

/// One request. It can run more than once: each run after a rollback starts from the same database.
#[derive(Debug)]
pub(super) enum Request {
    Record(Answer, Slot<Vec<Recorded>>),
    Attempts(Vec<Attempt>, Slot<()>),
    Published(Vec<(EventId, WallTime)>, Slot<()>),
    Parked(Vec<(EventId, String)>, Slot<()>),
    Confirmed(Vec<DeliveryId>, WallTime, Slot<()>),
    HandleOutcome(Vec<DeliveryId>, HandleOutcome, Slot<()>),
    Settle {
        sub_app: SubAppId,
        received_before: Moment,
        at: WallTime,
        slot: Slot<u64>,
    },
    Load {
        after: EventId,
        limit: u32,
        slot: Slot<Vec<Loaded>>,
    },
    Release(EventId, Slot<bool>),
    Prune {
        before: WallTime,
        limit: u32,
        slot: Slot<u64>,
    },
    Vacuum {
        pages: u32,
        slot: Slot<Vacuumed>,
    },
    SettleUnpolled {
        polled: Arc<[SubAppId]>,
        received_before: WallTime,
        at: WallTime,
        limit: u32,
        slot: Slot<u64>,
    },
    Summary(Option<Arc<[SubAppId]>>, Slot<Summary>),
    /// Runs a statement on the writer's own connection.
    #[cfg(test)]
    Sql(&'static str, Slot<()>),
}

impl Request {
    /// Runs inside the store's open transaction, and keeps the result.
    pub(super) fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        match self {
            Self::Record(answer, slot) => slot.keep(store.record(answer)?),
            Self::Attempts(attempts, slot) => slot.keep(store.attempts(attempts)?),
            Self::Published(events, slot) => slot.keep(store.published(events)?),
            Self::Parked(events, slot) => slot.keep(store.parked(events)?),
            Self::Confirmed(deliveries, at, slot) => slot.keep(store.confirmed(deliveries, *at)?),
            Self::HandleOutcome(deliveries, outcome, slot) => {
                slot.keep(store.handle_outcome(deliveries, *outcome)?);
            }
            Self::Settle { sub_app, received_before, at, slot } => {
                slot.keep(store.settle(*sub_app, *received_before, *at)?);
            }
            Self::Load { after, limit, slot } => slot.keep(store.load(*after, *limit)?),
            Self::Release(event, slot) => slot.keep(store.release(*event)?),
            Self::Prune { before, limit, slot } => slot.keep(store.prune(*before, *limit)?),
            Self::Vacuum { pages, slot } => slot.keep(store.vacuum(*pages)?),
            Self::SettleUnpolled { polled, received_before, at, limit, slot } => {
                slot.keep(store.settle_unpolled(polled, *received_before, *at, *limit)?);
            }
            Self::Summary(polled, slot) => slot.keep(store.summary(polled.as_deref())?),
            #[cfg(test)]
            Self::Sql(sql, slot) => slot.keep(store.sql(sql)?),
        }
        Ok(())
    }

    /// What it is, for the names of crash points.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Record(..) => "record",
            Self::Attempts(..) => "attempts",
            Self::Published(..) => "published",
            Self::Parked(..) => "parked",
            Self::Confirmed(..) => "confirmed",
            Self::HandleOutcome(..) => "handle_outcome",
            Self::Settle { .. } => "settle",
            Self::Load { .. } => "load",
            Self::Release(..) => "release",
            Self::Prune { .. } => "prune",
            Self::Vacuum { .. } => "vacuum",
            Self::SettleUnpolled { .. } => "settle_unpolled",
            Self::Summary(..) => "summary",
            #[cfg(test)]
            Self::Sql(..) => "sql",
        }
    }

    /// Tells the caller; to be called after the commit.
    pub(super) fn reply(self) {
        match self {
            Self::Record(_, slot) => slot.send(),
            Self::Attempts(_, slot)
            | Self::Published(_, slot)
            | Self::Parked(_, slot)
            | Self::Confirmed(_, _, slot)
            | Self::HandleOutcome(_, _, slot) => slot.send(),
            Self::Settle { slot, .. } | Self::SettleUnpolled { slot, .. } | Self::Prune { slot, .. } => {
                slot.send()
            }
            Self::Vacuum { slot, .. } => slot.send(),
            Self::Load { slot, .. } => slot.send(),
            Self::Release(_, slot) => slot.send(),
            Self::Summary(_, slot) => slot.send(),
            #[cfg(test)]
            Self::Sql(_, slot) => slot.send(),
        }
    }
}
