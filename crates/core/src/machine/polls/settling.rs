//! When an idle answer proves that the cloud has forgotten what was let go.
//!
//! A pull that found nothing proves that the cloud held nothing that was visible when the pull was sent: what
//! was let go long enough before has been confirmed after all. It proves nothing while another pull, under
//! way or lost, may have hidden an event.

use std::time::Duration;

use crate::clock::Moment;

/// How long after a lease's end in the cloud an event must have become visible again, whatever the cloud's
/// timers do.
const SETTLE_SLACK: Duration = Duration::from_secs(5);

/// What one sub-application has to settle.
#[derive(Debug)]
pub(super) struct Settling {
    /// When the oldest and the newest delivery arrived that was let go unconfirmed though its event is safe:
    /// an idle answer to a pull sent well after that settles it.
    unsettled: Option<(Moment, Moment)>,
    /// Until then an idle answer proves nothing: a pull whose answer was lost may have hidden events that
    /// long.
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

    /// A pull that was sent then found nothing, and no other one is in flight. Returns before which moment
    /// everything received is settled, if that is news.
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

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn an_idle_answer_settles_what_must_have_been_visible_when_it_was_asked_for() {
        let mut settling = Settling::after_start(Moment(0), WINDOW);
        assert_eq!(
            settling.found_nothing(Moment(34_999), WINDOW),
            None,
            "an earlier run's pull may hide events"
        );
        assert_eq!(settling.found_nothing(Moment(35_001), WINDOW), Some(Moment(1)));
        assert_eq!(settling.found_nothing(Moment(90_000), WINDOW), None, "there is nothing left to settle");
        settling.add(Moment(100_000));
        settling.add(Moment(120_000));
        assert_eq!(settling.found_nothing(Moment(135_000), WINDOW), None);
        assert_eq!(settling.found_nothing(Moment(140_000), WINDOW), Some(Moment(105_000)));
        assert_eq!(
            settling.found_nothing(Moment(155_001), WINDOW),
            Some(Moment(120_001)),
            "the newest is left"
        );
    }

    #[test]
    fn an_answer_that_was_lost_suspends_it_for_a_window() {
        let mut settling = Settling::after_start(Moment(0), WINDOW);
        settling.answer_lost(Moment(40_000), WINDOW);
        assert_eq!(settling.found_nothing(Moment(74_999), WINDOW), None);
        assert_eq!(settling.found_nothing(Moment(75_000), WINDOW), Some(Moment(40_000)));
    }
}
