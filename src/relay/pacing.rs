//! When to call the cloud, and how many calls at once.

use std::time::Duration;

use super::backoff::Backoff;
use crate::clock::Moment;
use crate::outcome::CallFailure;

/// What one `PullEvents` can hand out at most (document 266/33433).
pub const EVENTS_PER_PULL: usize = 16;

/// How many polls of one sub-application are in flight at the most.
const POLLS_MAX: usize = 32;

/// The waits after failed calls: short for what passes by itself, long for what only an operator can mend.
const TRANSIENT_WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const OPERATOR_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The pace of one API for the whole account: a token bucket whose rate gives way when the cloud says that it is too much.
///
/// The limit is the account's, so that other programs may use part of it: multiplicative decrease, additive increase.
#[derive(Clone, Debug)]
pub struct Quota {
    configured_per_second: f64,
    per_second: f64,
    tokens: f64,
    refilled_at: Moment,
    lowered_at: Option<Moment>,
}

impl Quota {
    /// A quota that starts at the configured rate.
    pub fn new(per_second: u32, now: Moment) -> Self {
        let rate = f64::from(per_second.max(1));
        Self {
            configured_per_second: rate,
            per_second: rate,
            tokens: 1.0,
            refilled_at: now,
            lowered_at: None,
        }
    }

    /// Takes the right to one call, or says when there may be one.
    pub fn take(&mut self, now: Moment) -> Result<(), Moment> {
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing = Duration::from_secs_f64((1.0 - self.tokens) / self.per_second);
        Err(now + missing.max(Duration::from_millis(1)))
    }

    fn refill(&mut self, now: Moment) {
        let elapsed = now.since(self.refilled_at).as_secs_f64();
        self.refilled_at = self.refilled_at.max(now);
        // A tenth of a second's worth may be sent in one burst.
        let burst = (self.per_second / 10.0).max(1.0);
        self.tokens = (self.tokens + elapsed * self.per_second).min(burst);
        // Back to the configured rate in about twenty seconds.
        self.per_second =
            (self.per_second + elapsed * self.configured_per_second / 20.0).min(self.configured_per_second);
    }

    /// The cloud said that it was too much. Calls that were already under way then say so too, and count once.
    pub fn throttled(&mut self, now: Moment) {
        if self.lowered_at.is_some_and(|at| now.since(at) < Duration::from_millis(500)) {
            return;
        }
        self.lowered_at = Some(now);
        self.per_second = (self.per_second * 0.7).max(1.0);
        self.tokens = self.tokens.min(0.0);
    }

    /// The rate now, in calls per second.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }
}

/// When one sub-application is polled, and by how many polls at once.
#[derive(Clone, Debug)]
pub struct Polls {
    in_flight: usize,
    target: usize,
    due: Moment,
    idle: Backoff,
    transient: Backoff,
    operator: Backoff,
}

impl Polls {
    /// Due at once, one at a time.
    pub fn new(idle_min: Duration, idle_max: Duration, now: Moment) -> Self {
        Self {
            in_flight: 0,
            target: 1,
            due: now,
            idle: Backoff::new(idle_min, idle_max),
            transient: Backoff::new(TRANSIENT_WAITS.0, TRANSIENT_WAITS.1),
            operator: Backoff::new(OPERATOR_WAITS.0, OPERATOR_WAITS.1),
        }
    }

    /// How many polls are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another poll is wanted; `None` when enough are in flight, else from when on.
    pub fn wanted_from(&self) -> Option<Moment> {
        (self.in_flight < self.target).then_some(self.due)
    }

    /// A poll leaves.
    pub fn started(&mut self) {
        self.in_flight += 1;
    }

    /// A poll brought `events` of them: more polls while batches are full, one at a time again when they are not.
    pub fn brought(&mut self, events: usize, now: Moment) {
        self.in_flight -= 1;
        self.settle_down();
        self.due = now;
        self.target = if events >= EVENTS_PER_PULL {
            (self.target * 2).min(POLLS_MAX)
        } else {
            (self.target / 2).max(1)
        };
    }

    /// A poll that was sent at `sent_at` found nothing. The time that the server held it counts towards the wait.
    pub fn found_nothing(&mut self, sent_at: Moment, rng: &mut fastrand::Rng) {
        self.in_flight -= 1;
        self.transient.reset();
        self.operator.reset();
        self.target = 1;
        self.due = sent_at + self.idle.next(rng);
    }

    /// A poll failed.
    pub fn failed(&mut self, failure: CallFailure, now: Moment, rng: &mut fastrand::Rng) {
        self.in_flight -= 1;
        self.target = 1;
        let backoff = match failure {
            CallFailure::Throttled | CallFailure::Transient => &mut self.transient,
            CallFailure::Credentials
            | CallFailure::Clock
            | CallFailure::Refused
            | CallFailure::Configuration => &mut self.operator,
        };
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

    fn polls() -> Polls {
        Polls::new(Duration::from_millis(200), Duration::from_secs(5), Moment(0))
    }

    #[test]
    fn one_poll_while_idle_more_while_batches_are_full_and_back() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut polls = polls();
        polls.started();
        assert_eq!(polls.wanted_from(), None);
        polls.brought(16, Moment(10));
        for _ in 0..2 {
            assert_eq!(polls.wanted_from(), Some(Moment(10)));
            polls.started();
        }
        assert_eq!(polls.wanted_from(), None);
        for _ in 0..20 {
            polls.brought(16, Moment(11));
            polls.started();
        }
        assert_eq!(polls.target, POLLS_MAX);
        polls.found_nothing(Moment(12), &mut rng);
        assert_eq!((polls.target, polls.in_flight), (1, 1));
        assert_eq!(polls.wanted_from(), None);
    }

    #[test]
    fn the_time_that_the_server_held_the_poll_counts_towards_the_idle_wait() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut polls = polls();
        for _ in 0..20 {
            polls.started();
            polls.found_nothing(Moment(1_000), &mut rng);
            assert!(polls.due >= Moment(1_200) && polls.due <= Moment(6_000));
        }
        polls.started();
        polls.brought(1, Moment(9_000));
        polls.started();
        polls.found_nothing(Moment(9_000), &mut rng);
        assert_eq!(polls.due, Moment(9_200));
    }

    #[test]
    fn failures_wait_and_what_only_an_operator_can_mend_waits_longer() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (failure, max_ms) in [(CallFailure::Transient, 10_000), (CallFailure::Configuration, 60_000)] {
            let mut polls = polls();
            let mut longest = 0;
            for _ in 0..40 {
                polls.started();
                polls.failed(failure, Moment(0), &mut rng);
                assert!(polls.due.0 >= 200 && polls.due.0 <= max_ms);
                longest = longest.max(polls.due.0);
            }
            assert!(longest > max_ms / 2);
        }
    }

    #[test]
    fn a_quota_lets_through_its_rate_and_gives_way() {
        let mut quota = Quota::new(100, Moment(0));
        let calls = |quota: &mut Quota, from: u64, to: u64| {
            (from..to).filter(|ms| quota.take(Moment(*ms)).is_ok()).count()
        };
        let full = calls(&mut quota, 0, 2_000);
        assert!((199..=211).contains(&full), "{full}");
        quota.throttled(Moment(2_000));
        quota.throttled(Moment(2_001));
        assert!((quota.per_second() - 70.0).abs() < 0.1);
        let lowered = calls(&mut quota, 2_000, 2_500);
        assert!((30..=38).contains(&lowered), "{lowered}");
        quota.take(Moment(30_000)).unwrap();
        assert!((quota.per_second() - 100.0).abs() < 0.1);
        for ms in 0..60 {
            quota.throttled(Moment(31_000 + ms * 1_000));
        }
        assert!(quota.per_second() >= 1.0);
    }

    #[test]
    fn a_quota_says_when_to_come_again() {
        let mut quota = Quota::new(10, Moment(0));
        assert_eq!(quota.take(Moment(0)), Ok(()));
        let when = quota.take(Moment(0)).unwrap_err();
        assert_eq!(when, Moment(100));
        assert_eq!(quota.take(when), Ok(()));
    }
}
