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

/// How often it is looked whether the journal has changed.
const FIGURES_PERIOD: Duration = Duration::from_secs(1);
/// When the journal is asked for its figures though this relay has not changed it: an operator may have, with a program of their own.
const ASKED_AT_THE_LATEST: Duration = Duration::from_secs(15);

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

/// What was asked last.
struct LastAsked {
    polled: Arc<[SubAppId]>,
    /// Commits before the question: what was committed while it was on its way may not be in the answer.
    commits: u64,
    at: Moment,
}

impl LastAsked {
    /// Whether the answer would be the same now. Each question costs a third of what an idle relay costs (measured: 0.6 ms each).
    fn holds(&self, polled: &[SubAppId], commits: u64, now: Moment) -> bool {
        self.commits == commits && *self.polled == *polled && now.since(self.at) < ASKED_AT_THE_LATEST
    }
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

/// Asks the journal for its figures when they have changed.
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
    let mut asked: Option<LastAsked> = None;
    loop {
        let polled: Arc<[SubAppId]> = sub_apps.borrow().as_slice().into();
        if Moment::now() >= settle_from {
            let Ok(()) = settle_unpolled(&journal, &polled).await else { return };
            settle_from = Moment::now() + SETTLE_PERIOD;
        }
        let (commits, now) = (journal.commits(), Moment::now());
        if !asked.as_ref().is_some_and(|asked| asked.holds(&polled, commits, now)) {
            let Ok(summary) = journal.summary(Some(Arc::clone(&polled))).await else { return };
            let bytes = journal.bytes();
            found.send_replace(Some(JournalFigures { summary, bytes, received_before_today }));
            asked = Some(LastAsked { polled, commits, at: now });
        }
        tokio::time::sleep(FIGURES_PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_hold_until_something_was_committed_or_others_are_asked_for_or_for_a_while() {
        let polled = [SubAppId(1), SubAppId(2)];
        let asked = LastAsked { polled: polled.into(), commits: 7, at: Moment(1_000) };
        let later = Moment(1_000) + ASKED_AT_THE_LATEST;
        assert!(asked.holds(&polled, 7, Moment(1_000)) && asked.holds(&polled, 7, Moment(later.0 - 1)));
        assert!(!asked.holds(&polled, 8, Moment(1_001)), "something was committed");
        assert!(!asked.holds(&polled[..1], 7, Moment(1_001)), "others are polled");
        assert!(!asked.holds(&polled, 7, later), "somebody else may have changed it");
    }
}
