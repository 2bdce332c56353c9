//! When an idle answer proves that the cloud has forgotten what was let go.
//!
//! A pull that found nothing proves that the cloud held nothing that was visible when the pull was sent: what was let go long
//! enough before has been confirmed after all. It proves nothing while another pull, under way or lost, may have hidden an
//! event.

use std::time::Duration;

use crate::clock::Moment;

/// How long after a lease's end in the cloud an event must have become visible again, whatever the cloud's timers do.
const SETTLE_SLACK: Duration = Duration::from_secs(5);

/// What one sub-application has to settle.
#[derive(Debug)]
pub(super) struct Settling {
    /// When the oldest and the newest delivery arrived that was let go unconfirmed though its event is safe: an idle answer
    /// to a pull sent well after that settles it.
    unsettled: Option<(Moment, Moment)>,
    /// Until then an idle answer proves nothing: a pull whose answer was lost may have hidden events that long.
    from: Moment,
}

impl Settling {
    /// An earlier run may have left unconfirmed events behind, and a pull whose answer it never saw.
    pub(super) fn after_start(now: Moment, window: Duration) -> Self {
        Self { unsettled: Some((now, now)), from: now + window + SETTLE_SLACK }
    }

    /// An event that is safe was let go unconfirmed.
    pub(super) fn add(&mut self, received_at: Moment) {
        let (oldest, newest) = self.unsettled.unwrap_or((received_at, received_at));
        self.unsettled = Some((oldest.min(received_at), newest.max(received_at)));
    }

    /// The cloud may have handed events to an answer that never arrived.
    pub(super) fn answer_lost(&mut self, now: Moment, window: Duration) {
        self.from = self.from.max(now + window + SETTLE_SLACK);
    }

    /// A pull that was sent then found nothing, and no other one is in flight. Returns before which moment everything
    /// received is settled, if that is news.
    pub(super) fn found_nothing(&mut self, sent_at: Moment, window: Duration) -> Option<Moment> {
        let (oldest, newest) = self.unsettled?;
        if sent_at < self.from {
            return None;
        }
        let received_before = sent_at - window - SETTLE_SLACK;
        if oldest >= received_before {
            return None;
        }
        self.unsettled = (newest >= received_before).then_some((received_before, newest));
        Some(received_before)
    }
}
