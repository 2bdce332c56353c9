//! The rate of requests of one API, for the whole account.
//!
//! The configured rate is the account's, and other programs may use part of it. Only `RequestLimitExceeded`
//! shows what is left. So the rate is searched as TCP searches for a path's. A throttled request lowers it to
//! what was accepted just before. It returns to just below the limit soon, stays there, and then probes
//! beyond it, faster and faster. At the limit that costs one or two requests every few seconds.
//!
//! How the cloud counts is unknown, so two ways must work. A bucket that holds a second's worth hides for
//! that long that it runs empty. A count that restarts each second refuses everything until the second is
//! over. An even rate suits both.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;

/// Burst allowance: how late a timer may be before requests are lost by it.
const SAVED: f64 = 0.02;

/// How far below the accepted rate the rate goes, and how long it takes to return: for a reliable measure,
/// and for a rough one that may be too low. After three of these times the rate is a quarter higher, after
/// four nearly twice.
const DIP: f64 = 0.03;
const RETURN: Duration = Duration::from_secs(5);
const QUICK_RETURN: Duration = Duration::from_secs(2);

/// A measure over less time than this is rough.
const MEASURE: Duration = Duration::from_secs(1);

/// While nothing is accepted: the first wait for another attempt, and the longest.
const CLOSED_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The longest round trip that counts: the host may have slept.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// The lowest rate in requests a second.
const RATE_MIN: f64 = 0.2;

/// The right to one request, and the request's number if the cloud throttles it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    number: u64,
    at: Moment,
}

/// The rate of one API: a token bucket with next to no burst, at a rate that follows the cloud.
#[derive(Clone, Debug)]
pub(super) struct Quota {
    configured: f64,
    /// The facts about a limit below the configured one.
    limit: Option<Limit>,
    tokens: f64,
    refilled_at: Moment,
    /// Requests so far: the number of the last ticket.
    requests: u64,
    /// Requests up to this one were in flight when one was throttled. Their throttling says nothing new.
    judged: u64,
    first_request_at: Option<Moment>,
    recent: Recent,
    closed_until: Moment,
    closed_waits: Backoff,
    /// If set, the next request is a probe: the others follow this long after it, if its answer has not come
    /// by then.
    probing: Option<Duration>,
}

/// A rate that the cloud did not accept, as far as it could be measured.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// The accepted rate, in requests a second.
    rate: f64,
    /// The rate is not lowered below this by further requests that were throttled for the same reason.
    floor: f64,
    since: Moment,
    returns_in: Duration,
}

impl Limit {
    /// A cubic curve: steep up to the limit, flat around it, steep beyond.
    fn rate_at(&self, now: Moment) -> f64 {
        let beyond = now.since(self.since).as_secs_f64() / self.returns_in.as_secs_f64() - 1.0;
        self.rate * (1.0 + DIP * beyond.powi(3))
    }
}

impl Quota {
    /// Sets another configured rate. The account's limit is searched again.
    pub(super) fn configure(&mut self, per_second: u32) {
        self.configured = f64::from(per_second.max(1));
        self.limit = None;
    }

    /// A quota that starts at the configured rate.
    pub(super) fn new(per_second: u32, now: Moment) -> Self {
        Self {
            configured: f64::from(per_second.max(1)),
            limit: None,
            tokens: 1.0,
            refilled_at: now,
            requests: 0,
            judged: 0,
            first_request_at: None,
            recent: Recent::default(),
            closed_until: now,
            closed_waits: Backoff::new(CLOSED_WAITS.0, CLOSED_WAITS.1),
            probing: None,
        }
    }

    /// The rate at this moment, in requests per second.
    pub(super) fn per_second(&self, now: Moment) -> f64 {
        self.limit.map_or(self.configured, |limit| limit.rate_at(now).clamp(RATE_MIN, self.configured))
    }

    /// Takes the right to one request, or returns when there may be one.
    pub(super) fn take(&mut self, now: Moment) -> Result<Ticket, Moment> {
        let per_second = self.per_second(now);
        self.refill(now, per_second);
        if now < self.closed_until {
            return Err(self.closed_until);
        }
        // Sums of fractions come out a little less than whole.
        let missing = 1.0 - 1e-9 - self.tokens;
        if missing > 0.0 {
            return Err(now + Duration::from_millis((missing / per_second * 1_000.0).ceil() as u64));
        }
        self.tokens -= 1.0;
        self.requests += 1;
        self.first_request_at.get_or_insert(now);
        self.recent.count(now);
        if let Some(answer_takes) = self.probing.take() {
            self.closed_until = now + answer_takes;
        }
        Ok(Ticket { number: self.requests, at: now })
    }

    fn refill(&mut self, now: Moment, per_second: f64) {
        let elapsed = now.since(self.refilled_at).as_secs_f64();
        self.refilled_at = self.refilled_at.max(now);
        self.tokens = (self.tokens + elapsed * per_second).min(1.0 + SAVED * per_second);
    }

    /// The cloud throttled this request.
    pub(super) fn throttled(&mut self, ticket: Ticket, now: Moment, rng: &mut fastrand::Rng) {
        self.recent.uncount(ticket.at);
        if ticket.number <= self.judged {
            return;
        }
        let accepted = ticket.number - self.judged - 1;
        // Requests that left after this one may be throttled as well.
        let lately = self.recent.second_before(ticket.at) - (self.requests - ticket.number) as f64;
        self.judged = self.requests;
        let per_second = self.per_second(now);
        let measured_since = self.limit.map(|limit| limit.since).or(self.first_request_at);
        if accepted == 0 {
            // Not a matter of the rate: nothing is accepted for the rest of a second or longer.
            self.closed_until = now + self.closed_waits.next(rng);
            let round_trip = now.since(ticket.at).min(ROUND_TRIP_MAX);
            self.probing = Some(CLOSED_WAITS.0.max(2 * round_trip));
            if let Some(limit) = &mut self.limit {
                limit.rate = lately.max(limit.floor).min(limit.rate);
                limit.since = now;
            }
            return;
        }
        self.closed_waits.reset();
        self.closed_until = now;
        self.probing = None;
        // The last second shows what was accepted, unless a bucket was still running empty. Then the share of
        // the requests since it was empty shows it. Neither is trusted without limit: there may have been few
        // requests.
        let floor = (per_second / 2.0).max(RATE_MIN);
        let share = accepted as f64 / (accepted + 1) as f64;
        let rough = measured_since.is_none_or(|since| ticket.at < since + MEASURE);
        self.limit = Some(Limit {
            rate: lately.min(per_second * share).max(floor),
            floor,
            since: now,
            returns_in: if rough { QUICK_RETURN } else { RETURN },
        });
        // One request is omitted, so that the next one does not find the cloud's bucket empty by a hair.
        self.tokens = self.tokens.min(-1.0);
    }
}

/// The requests that were accepted or not answered yet, in each tenth of a second.
#[derive(Clone, Debug, Default)]
struct Recent {
    counts: [u32; Self::TENTHS],
    newest: u64,
}

impl Recent {
    /// A second, and the longest round trip after which a throttled request's second is still known.
    const TENTHS: usize = 30;

    fn tenth(at: Moment) -> u64 {
        at.0 / 100
    }

    fn place(tenth: u64) -> usize {
        (tenth % Self::TENTHS as u64) as usize
    }

    fn knows(&self, tenth: u64) -> bool {
        tenth <= self.newest && tenth + Self::TENTHS as u64 > self.newest
    }

    fn count(&mut self, at: Moment) {
        let tenth = Self::tenth(at);
        for passed in (self.newest + 1..=tenth).rev().take(Self::TENTHS) {
            self.counts[Self::place(passed)] = 0;
        }
        self.newest = self.newest.max(tenth);
        self.counts[Self::place(tenth)] += 1;
    }

    fn uncount(&mut self, at: Moment) {
        let tenth = Self::tenth(at);
        if self.knows(tenth) {
            let count = &mut self.counts[Self::place(tenth)];
            *count = count.saturating_sub(1);
        }
    }

    /// Everything from a second before this moment on.
    fn second_before(&self, at: Moment) -> f64 {
        let from = at - Duration::from_secs(1);
        let first = Self::tenth(from);
        let count = |tenth| if self.knows(tenth) { f64::from(self.counts[Self::place(tenth)]) } else { 0.0 };
        let whole: f64 = (first + 1..=self.newest).map(count).sum();
        whole + count(first) * (1.0 - (from.0 % 100) as f64 / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    /// All requests that are allowed at these moments.
    fn requests(quota: &mut Quota, moments: impl Iterator<Item = u64>) -> Vec<Ticket> {
        moments.filter_map(|ms| quota.take(Moment(ms)).ok()).collect()
    }

    #[test]
    fn it_lets_through_its_rate_evenly() {
        let mut quota = Quota::new(100, Moment(0));
        let at: Vec<u64> = requests(&mut quota, 0..2_000).iter().map(|ticket| ticket.at.0).collect();
        assert_eq!(at.len(), 200);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] == 10));
    }

    #[test]
    fn it_says_when_to_come_again_and_means_it() {
        for per_second in [1, 3, 7, 100, 1_000] {
            let mut quota = Quota::new(per_second, Moment(5));
            quota.take(Moment(5)).unwrap();
            let mut now = Moment(5);
            for _ in 0..100 {
                let when = quota.take(now).unwrap_err();
                assert!(when > now && when <= now + Duration::from_millis(1_000));
                assert!(quota.take(when).is_ok(), "{per_second} a second, at {when:?}");
                now = when;
            }
        }
    }

    #[test]
    fn timers_that_are_late_lose_nothing_and_a_pause_makes_no_burst() {
        let mut quota = Quota::new(100, Moment(0));
        let mut rng = rng();
        let (mut now, mut count) = (0, 0);
        while now < 10_000 {
            match quota.take(Moment(now)) {
                Ok(_) => count += 1,
                Err(when) => now = when.0 + rng.u64(0..15),
            }
        }
        assert!((998..=1_003).contains(&count), "{count}");
        let burst = requests(&mut quota, std::iter::repeat_n(60_000, 100)).len();
        assert!(burst <= 3, "{burst}");
    }

    #[test]
    fn a_hundred_thousand_a_second_do_not_wait_for_a_timer() {
        let mut quota = Quota::new(100_000, Moment(0));
        for ms in 1..1_000 {
            assert_eq!(requests(&mut quota, std::iter::repeat_n(ms, 100)).len(), 100);
        }
    }

    #[test]
    fn requests_that_were_under_way_count_once() {
        let (mut quota, mut rng) = (Quota::new(100, Moment(0)), rng());
        let tickets = requests(&mut quota, 0..1_000);
        for ticket in &tickets[90..] {
            quota.throttled(*ticket, Moment(1_000), &mut rng);
        }
        let rate = quota.per_second(Moment(1_000));
        assert!((85.0..90.0).contains(&rate), "{rate}: ninety were accepted in the last second");
    }

    #[test]
    fn the_rate_returns_dwells_and_then_goes_beyond() {
        let mut quota = Quota::new(100, Moment(0));
        quota.limit = Some(Limit { rate: 50.0, floor: 25.0, since: Moment(2_000), returns_in: RETURN });
        let rates = [2, 7, 12, 17, 22, 27].map(|second| quota.per_second(Moment(second * 1_000)));
        let rounded = rates.map(|rate| (rate * 10.0).round() / 10.0);
        assert_eq!(rounded, [48.5, 50.0, 51.5, 62.0, 90.5, 100.0]);
    }

    #[test]
    fn while_nothing_is_accepted_single_requests_try_fewer_and_fewer() {
        let (mut quota, mut rng) = (Quota::new(100, Moment(0)), rng());
        let mut at = Vec::new();
        let mut under_way: Vec<(u64, Ticket)> = Vec::new();
        for now in 0..60_000 {
            while let Ok(ticket) = quota.take(Moment(now)) {
                at.push(now);
                under_way.push((now + 40, ticket));
            }
            for (_, ticket) in under_way.extract_if(.., |(back, _)| *back <= now) {
                quota.throttled(ticket, Moment(now), &mut rng);
            }
        }
        assert!((15..60).contains(&at.len()), "{}", at.len());
        let last = &at[at.len() / 2..];
        assert!(last.windows(2).all(|pair| (100..=5_100).contains(&(pair[1] - pair[0]))));
        // When requests are accepted again, the rate is as before.
        let open = requests(&mut quota, 70_000..75_000).len();
        assert!(open > 400, "{open}");
    }

    #[test]
    fn a_host_that_slept_through_the_answer_does_not_wait_as_long_again() {
        let (mut quota, mut rng) = (Quota::new(100, Moment(0)), rng());
        let ticket = quota.take(Moment(0)).unwrap();
        quota.throttled(ticket, Moment(200_000), &mut rng);
        let count = requests(&mut quota, 200_000..202_000).len();
        assert!(count > 50, "{count}");
    }
}
