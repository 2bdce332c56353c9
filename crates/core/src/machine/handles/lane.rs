//! The handles that one sub-application has to confirm, in order, and the time of its next request.

use std::collections::VecDeque;
use std::time::Duration;

use super::HandleId;
use crate::backoff::Backoff;
use crate::clock::Moment;

/// What one `ConfirmEvents` takes at most (document 266/33434).
const HANDLES_PER_REQUEST: usize = 16;

/// The most requests of one sub-application in flight: enough for the account's limit at a third of a second
/// of round trip.
const REQUESTS_MAX: usize = 32;

/// How long a handle waits for others to fill its request, while another request is in flight.
const LINGER: Duration = Duration::from_millis(50);

/// A request that failed this often in a row is halved, because one handle in it may be the cause.
const FAILURES_BEFORE_HALVING: u32 = 2;

/// One sub-application's requests.
#[derive(Debug)]
pub(super) struct ConfirmLane {
    queue: VecDeque<HandleId>,
    /// Parts of rejected requests, which must stay apart.
    halves: VecDeque<Vec<HandleId>>,
    requests: usize,
    not_before: Moment,
    backoff: Backoff,
    failures_in_a_row: u32,
}

impl ConfirmLane {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            halves: VecDeque::new(),
            requests: 0,
            not_before: Moment(0),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            failures_in_a_row: 0,
        }
    }

    /// The next handle to confirm.
    pub(super) fn first(&self) -> Option<HandleId> {
        self.halves.front().map(|half| half[0]).or_else(|| self.queue.front().copied())
    }

    /// Behind all others.
    pub(super) fn push(&mut self, id: HandleId) {
        self.queue.push_back(id);
    }

    /// At once, and not at its turn: by then it may be queued again, and would be there twice.
    pub(super) fn take_back(&mut self, id: HandleId) {
        self.queue.retain(|queued| *queued != id);
        for half in &mut self.halves {
            half.retain(|queued| *queued != id);
        }
        self.halves.retain(|half| !half.is_empty());
    }

    /// The time from which the next request is worth sending, whose first handle is queued since then. Never
    /// while enough are in flight.
    pub(super) fn next_request_from(&self, now: Moment, since: Moment, draining: bool) -> Option<Moment> {
        if self.requests >= REQUESTS_MAX {
            return None;
        }
        // Alone it leaves at once; behind another request it waits a little for others.
        let full = !self.halves.is_empty() || self.queue.len() >= HANDLES_PER_REQUEST;
        let at_once = self.requests == 0 || full || draining;
        Some(self.not_before.max(if at_once { now } else { since + LINGER }))
    }

    /// A request leaves: its handles, and whether they are a part of a rejected one.
    pub(super) fn request(&mut self) -> (Vec<HandleId>, bool) {
        self.requests += 1;
        match self.halves.pop_front() {
            Some(half) => (half, true),
            None => {
                let count = self.queue.len().min(HANDLES_PER_REQUEST);
                (self.queue.drain(..count).collect(), false)
            }
        }
    }

    /// A request ended.
    pub(super) fn ended(&mut self) {
        self.requests -= 1;
    }

    /// A request succeeded.
    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
        self.failures_in_a_row = 0;
    }

    /// A request failed: the next one waits. Returns whether its handles are to be halved.
    pub(super) fn failed(&mut self, now: Moment, rng: &mut fastrand::Rng) -> bool {
        self.not_before = now + self.backoff.next(rng);
        self.failures_in_a_row += 1;
        self.failures_in_a_row >= FAILURES_BEFORE_HALVING
    }

    /// These are requested again, behind the others.
    pub(super) fn again(&mut self, group: Vec<HandleId>) {
        self.queue.extend(group);
    }

    /// These are requested again, as they were, before all others.
    pub(super) fn again_first(&mut self, group: Vec<HandleId>, apart: bool) {
        if !apart {
            group.into_iter().rev().for_each(|id| self.queue.push_front(id));
        } else if !group.is_empty() {
            self.halves.push_front(group);
        }
    }

    /// These are requested again, and stay apart from others.
    pub(super) fn again_apart(&mut self, group: Vec<HandleId>) {
        if !group.is_empty() {
            self.halves.push_back(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000);

    fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<HandleId> {
        numbers.into_iter().map(HandleId).collect()
    }

    fn lane(handles: u64) -> ConfirmLane {
        let mut lane = ConfirmLane::new();
        ids(0..handles).into_iter().for_each(|id| lane.push(id));
        lane
    }

    #[test]
    fn a_request_leaves_at_once_when_it_is_alone_or_full_and_lingers_otherwise() {
        let mut lane = lane(20);
        assert_eq!(lane.next_request_from(NOW, NOW, false), Some(NOW));
        assert_eq!(lane.request(), (ids(0..16), false));
        assert_eq!(lane.next_request_from(NOW, NOW, false), Some(NOW + LINGER));
        assert_eq!(lane.next_request_from(NOW, NOW, true), Some(NOW), "a drain waits for nothing");
        ids(20..32).into_iter().for_each(|id| lane.push(id));
        assert_eq!(lane.next_request_from(NOW, NOW, false), Some(NOW));
    }

    #[test]
    fn no_more_requests_are_in_flight_than_the_account_needs() {
        let mut lane = lane(16 * 33);
        for _ in 0..REQUESTS_MAX {
            assert!(lane.next_request_from(NOW, NOW, false).is_some());
            lane.request();
        }
        assert_eq!(lane.next_request_from(NOW, NOW, false), None);
        lane.ended();
        assert!(lane.next_request_from(NOW, NOW, false).is_some());
    }

    #[test]
    fn parts_of_a_rejected_request_go_first_and_stay_apart() {
        let mut lane = lane(3);
        lane.again_apart(ids([10, 11]));
        lane.again_apart(Vec::new());
        lane.again_first(ids([12]), true);
        assert_eq!(lane.first(), Some(HandleId(12)));
        assert_eq!(lane.request(), (ids([12]), true));
        assert_eq!(lane.request(), (ids([10, 11]), true));
        lane.again_first(ids([20, 21]), false);
        assert_eq!(lane.request(), (ids([20, 21, 0, 1, 2]), false));
    }

    #[test]
    fn what_is_taken_back_is_nowhere_any_more() {
        let mut lane = lane(2);
        lane.again_apart(ids([0]));
        lane.take_back(HandleId(0));
        assert_eq!(lane.request(), (ids([1]), false));
        assert_eq!(lane.first(), None);
    }
}
