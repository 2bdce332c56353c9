//! When to poll a sub-application, and with how many polls at once. The quota decides how many requests the
//! account may make.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::outcome::RequestFailure;
use crate::write::EVENTS_PER_PULL;

/// The most polls of one sub-application in flight.
const POLLS_MAX: usize = 32;

/// The waits after failed requests: short for failures that pass, long for those that need an operator.
const TRANSIENT_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const OPERATOR_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The demand of a sub-application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// A poll from this moment on, to look for events.
    From(Moment),
    /// Another poll now: there is more.
    More,
}

/// When one sub-application is polled, and with how many polls at once.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    wanted: bool,
    in_flight: usize,
    target: usize,
    due: Moment,
    /// While nothing can be published: one poll in this time, whatever it brings.
    rest: Option<Duration>,
    /// When the newest poll left, and the one before it.
    started_at: Moment,
    started_before: Moment,
    idle: Backoff,
    transient: Backoff,
    operator: Backoff,
}

impl Pace {
    /// Due at once, with one poll.
    pub(super) fn new(idle_min: Duration, idle_max: Duration, now: Moment) -> Self {
        Self {
            wanted: true,
            in_flight: 0,
            target: 1,
            due: now,
            rest: None,
            started_at: now,
            started_before: now,
            idle: Backoff::new(idle_min, idle_max),
            transient: Backoff::new(TRANSIENT_WAITS.0, TRANSIENT_WAITS.1),
            operator: Backoff::new(OPERATOR_WAITS.0, OPERATOR_WAITS.1),
        }
    }

    /// The number of polls in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The demand for a further poll; `None` when enough are in flight.
    pub(super) fn demand(&self) -> Option<Demand> {
        let (demand, most) = match self.rest {
            Some(every) => (Demand::From(self.due.max(self.started_at + every)), 1),
            None if self.target > 1 => (Demand::More, self.target),
            None => (Demand::From(self.due), 1),
        };
        (self.wanted && self.in_flight < most).then_some(demand)
    }

    /// Whether it is polled at all.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Sets the waits between idle answers.
    pub(super) fn configure(&mut self, idle_min: Duration, idle_max: Duration) {
        self.idle = Backoff::new(idle_min, idle_max);
    }

    /// From now on there is one poll in this time, or as many as events require again.
    pub(super) fn rest(&mut self, every: Option<Duration>) {
        self.rest = every;
    }

    /// A poll leaves.
    pub(super) fn started(&mut self, now: Moment) {
        self.started_before = std::mem::replace(&mut self.started_at, now);
        self.in_flight += 1;
    }

    /// A poll brought `events` events: more polls while batches are full, one again when they are not.
    pub(super) fn brought(&mut self, events: usize, now: Moment) {
        self.in_flight -= 1;
        self.settle_down();
        self.due = now;
        self.target = if events >= EVENTS_PER_PULL {
            (self.target * 2).min(POLLS_MAX)
        } else {
            (self.target / 2).max(1)
        };
    }

    /// A poll that was sent at `sent_at` found nothing. The time that the server held it counts towards the
    /// wait. Of polls that were in flight together, the last one lengthens it.
    pub(super) fn found_nothing(&mut self, sent_at: Moment, rng: &mut fastrand::Rng) {
        self.in_flight -= 1;
        self.transient.reset();
        self.operator.reset();
        self.target = 1;
        self.due = sent_at + if self.in_flight == 0 { self.idle.next(rng) } else { self.idle.shortest() };
    }

    /// A poll failed.
    pub(super) fn failed(&mut self, failure: RequestFailure, now: Moment, rng: &mut fastrand::Rng) {
        self.in_flight -= 1;
        let backoff = match failure {
            // It did nothing, and says nothing about this sub-application. It is repeated when the quota
            // allows.
            RequestFailure::Throttled => {
                self.started_at = self.started_before;
                return;
            }
            RequestFailure::Transient => &mut self.transient,
            RequestFailure::Credentials
            | RequestFailure::Clock
            | RequestFailure::Refused
            | RequestFailure::Configuration => &mut self.operator,
        };
        self.target = 1;
        self.due = now + backoff.next(rng);
    }

    fn settle_down(&mut self) {
        self.idle.reset();
        self.transient.reset();
        self.operator.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_millis(200), Duration::from_secs(5), Moment(0))
    }

    #[test]
    fn one_poll_while_idle_more_while_batches_are_full_and_back() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pace = pace();
        assert_eq!(pace.demand(), Some(Demand::From(Moment(0))));
        pace.started(Moment(0));
        assert_eq!(pace.demand(), None);
        pace.brought(16, Moment(10));
        for _ in 0..2 {
            assert_eq!(pace.demand(), Some(Demand::More));
            pace.started(Moment(0));
        }
        assert_eq!(pace.demand(), None);
        for _ in 0..20 {
            pace.brought(16, Moment(11));
            pace.started(Moment(0));
        }
        assert_eq!(pace.target, POLLS_MAX);
        pace.found_nothing(Moment(12), &mut rng);
        assert_eq!((pace.target, pace.in_flight), (1, 1));
        assert_eq!(pace.demand(), None);
    }

    #[test]
    fn at_rest_there_is_one_poll_now_and_then_whatever_it_brings() {
        let mut pace = pace();
        pace.started(Moment(1_000));
        pace.brought(16, Moment(1_100));
        pace.rest(Some(Duration::from_secs(30)));
        assert_eq!(pace.demand(), Some(Demand::From(Moment(31_000))));
        pace.started(Moment(31_000));
        assert_eq!(pace.demand(), None);
        pace.brought(16, Moment(31_100));
        assert_eq!(pace.demand(), Some(Demand::From(Moment(61_000))));
        pace.rest(None);
        assert_eq!(pace.demand(), Some(Demand::More));
    }

    #[test]
    fn at_rest_a_throttled_poll_is_not_the_poll_of_its_time() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pace = pace();
        pace.rest(Some(Duration::from_secs(30)));
        pace.started(Moment(30_000));
        pace.found_nothing(Moment(30_000), &mut rng);
        pace.started(Moment(60_000));
        pace.failed(RequestFailure::Throttled, Moment(60_010), &mut rng);
        assert_eq!(pace.demand(), Some(Demand::From(Moment(60_000))));
    }

    #[test]
    fn the_time_that_the_server_held_the_poll_counts_towards_the_idle_wait() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pace = pace();
        for _ in 0..20 {
            pace.started(Moment(0));
            pace.found_nothing(Moment(1_000), &mut rng);
            assert!(pace.due >= Moment(1_200) && pace.due <= Moment(6_000));
        }
        pace.started(Moment(0));
        pace.brought(1, Moment(9_000));
        pace.started(Moment(0));
        pace.found_nothing(Moment(9_000), &mut rng);
        assert_eq!(pace.due, Moment(9_200));
    }

    #[test]
    fn polls_that_find_nothing_together_are_one_reason_to_wait() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pace = pace();
        for _ in 0..16 {
            pace.started(Moment(0));
        }
        for _ in 0..16 {
            pace.found_nothing(Moment(1_000), &mut rng);
        }
        assert_eq!(pace.demand(), Some(Demand::From(Moment(1_200))));
    }

    #[test]
    fn failures_wait_and_what_only_an_operator_can_mend_waits_longer() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (failure, max_ms) in
            [(RequestFailure::Transient, 10_000), (RequestFailure::Configuration, 60_000)]
        {
            let mut pace = pace();
            let mut longest = 0;
            for _ in 0..40 {
                pace.started(Moment(0));
                pace.failed(failure, Moment(0), &mut rng);
                assert!(pace.due.0 >= 200 && pace.due.0 <= max_ms);
                longest = longest.max(pace.due.0);
            }
            assert!(longest > max_ms / 2);
        }
    }

    #[test]
    fn a_throttled_poll_is_asked_again_and_changes_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pace = pace();
        pace.started(Moment(0));
        pace.brought(16, Moment(10));
        pace.started(Moment(0));
        pace.started(Moment(0));
        pace.failed(RequestFailure::Throttled, Moment(20), &mut rng);
        assert_eq!((pace.target, pace.in_flight, pace.demand()), (2, 1, Some(Demand::More)));
    }
}
