//! Asks the journal for its figures, and settles events by the calendar.

use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::SubAppId;
use tokio::sync::watch;
use tracing::info;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::write::{Summary, Write, Written};

use super::{DAY_MS, unwound};
use crate::clock::Now as _;
use crate::journal::query::JournalReader;
use crate::journal::{Closed, Journal};

/// How often the journal is asked for its figures.
const FIGURES_PERIOD: Duration = Duration::from_secs(1);

/// How often events are settled by the calendar.
const SETTLE_PERIOD: Duration = Duration::from_secs(3_600);
/// The longest time that the cloud keeps an event.
const CLOUD_KEEPS: Duration = Duration::from_secs(4 * 86_400);
/// So few that no commit of the relay waits long behind them.
const SETTLED_AT_ONCE: u32 = 250;

/// The journal's figures.
#[derive(Clone, Debug)]
pub(super) struct JournalFigures {
    pub(super) summary: Summary,
    /// Its size with its WAL.
    pub(super) bytes: u64,
    /// Events that earlier processes received on the day on which this one started.
    pub(super) received_before_today: u64,
}

/// Settles events by the calendar: those of sub-applications that are no longer polled, where no idle answer
/// proves that the cloud has forgotten them.
async fn settle_unpolled(journal: &Journal, polled: &Arc<[SubAppId]>) -> Result<(), Closed> {
    let now = WallTime::now();
    loop {
        let (polled, limit) = (Arc::clone(polled), SETTLED_AT_ONCE);
        let settle = Write::SettleUnpolled { polled, received_before: now - CLOUD_KEEPS, limit };
        let Written::Settled(settled) = journal.ask(settle).await? else {
            unreachable!("what is settled is answered by its count")
        };
        if settled > 0 {
            info!(
                events = settled,
                "events of sub-applications that are not polled count as confirmed: the cloud deletes them after four days"
            );
        }
        if settled < u64::from(SETTLED_AT_ONCE) {
            return Ok(());
        }
    }
}

/// Asks the journal for its figures at intervals.
pub(super) async fn look_at_figures(
    journal: Journal,
    sub_apps: watch::Receiver<Vec<SubAppId>>,
    found: watch::Sender<Option<JournalFigures>>,
) {
    let mut settle_from = Moment(0);
    let midnight = WallTime(WallTime::now().0 / DAY_MS * DAY_MS);
    let path = journal.path().to_owned();
    let received = tokio::task::spawn_blocking(move || JournalReader::open(&path)?.received_since(midnight));
    // It only completes a line for people.
    let received_before_today = unwound(received.await).unwrap_or(0);
    loop {
        let polled: Arc<[SubAppId]> = sub_apps.borrow().as_slice().into();
        if Moment::now() >= settle_from {
            let Ok(()) = settle_unpolled(&journal, &polled).await else { return };
            settle_from = Moment::now() + SETTLE_PERIOD;
        }
        let Ok(summary) = journal.summary(Some(polled)).await else { return };
        let bytes = journal.bytes();
        found.send_replace(Some(JournalFigures { summary, bytes, received_before_today }));
        tokio::time::sleep(FIGURES_PERIOD).await;
    }
}
