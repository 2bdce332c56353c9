//! Decides when an idle answer proves that the cloud has forgotten an event.
//!
//! A pull that found nothing proves that the cloud had nothing visible when the pull was sent. Events that
//! were let go long enough before have been confirmed after all. It proves nothing while another pull, in
//! flight or lost, may have hidden an event.

use std::time::Duration;

use crate::clock::Moment;

/// The time after a lease's end by which an event must be visible again, with slack for the cloud's timers.
const SETTLE_SLACK: Duration = Duration::from_secs(5);

/// The events that one sub-application has to settle.
#[derive(Debug)]
pub(super) struct Settling {
    /// The times of the oldest and the newest delivery of safe events that were let go unconfirmed. An idle
    /// answer to a pull that was sent well after that settles them.
    unsettled: Option<(Moment, Moment)>,
    /// Until then an idle answer proves nothing: a pull whose answer was lost may have hidden events for that
    /// long.
    from: Moment,
}

impl Settling {
    /// An earlier run may have left unconfirmed events, and a pull whose answer it never got.
    pub(super) fn after_start(now: Moment, window: Duration) -> Self {
        Self { unsettled: Some((now, now)), from: now + window + SETTLE_SLACK }
    }

    /// A safe event was let go unconfirmed.
    pub(super) fn add(&mut self, received_at: Moment) {
        let (oldest, newest) = self.unsettled.unwrap_or((received_at, received_at));
        self.unsettled = Some((oldest.min(received_at), newest.max(received_at)));
    }

    /// The cloud may have handed events to a lost answer.
    pub(super) fn answer_lost(&mut self, now: Moment, window: Duration) {
        self.from = self.from.max(now + window + SETTLE_SLACK);
    }

    /// A pull that was sent then found nothing, and no other one is in flight. Returns the moment before
    /// which everything is settled, if that is new.
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
