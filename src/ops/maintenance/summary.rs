//! One line with the relay's work since the last one.

use std::sync::Arc;

use tencent_vod_event::SubAppId;
use tracing::info;
use vodrelay_core::clock::WallTime;

use crate::clock::Now as _;
use crate::journal::{Closed, Journal};

/// The relay's work since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events that came for the first time.
    pub received: u64,
    /// Events that came again.
    pub redelivered: u64,
    /// Publishes that were acked.
    pub published: u64,
    /// Handles that the cloud confirmed.
    pub confirmed: u64,
    /// Events that were given up.
    pub parked: u64,
}

impl Figures {
    fn since(self, earlier: Self) -> Self {
        Self {
            received: self.received.saturating_sub(earlier.received),
            redelivered: self.redelivered.saturating_sub(earlier.redelivered),
            published: self.published.saturating_sub(earlier.published),
            confirmed: self.confirmed.saturating_sub(earlier.confirmed),
            parked: self.parked.saturating_sub(earlier.parked),
        }
    }
}

/// The figures of the last line.
#[derive(Debug)]
pub(super) struct DailySummary {
    told: Figures,
    told_at: WallTime,
}

impl DailySummary {
    /// The first line counts from now.
    pub(super) fn new(figures: Figures) -> Self {
        Self { told: figures, told_at: WallTime::now() }
    }

    pub(super) async fn run(
        &mut self,
        journal: &Journal,
        polled: Arc<[SubAppId]>,
        figures: Figures,
    ) -> Result<Figures, Closed> {
        let state = journal.summary(Some(polled)).await?;
        let (done, now) = (figures.since(self.told), WallTime::now());
        let oldest_s =
            state.oldest_unconfirmed.map_or(0, |oldest| now.0.saturating_sub(oldest.0).max(0) / 1_000);
        info!(
            since = %self.told_at,
            received = done.received,
            published = done.published,
            confirmed = done.confirmed,
            parked = done.parked,
            redelivered = done.redelivered,
            unconfirmed = state.unconfirmed,
            oldest_unconfirmed_s = oldest_s,
            parked_in_all = state.parked,
            journal_bytes = journal.bytes(),
            "summary"
        );
        *self = Self { told: figures, told_at: now };
        Ok(done)
    }
}
