//! Decides which sub-application polls next when requests are scarce.

use std::collections::BTreeSet;

use super::pace::Demand;
use crate::clock::Moment;
use crate::machine::round_robin::RoundRobin;

/// The next one to poll. Two classes alternate: those with a known backlog, and those that are due. So many
/// idle sub-applications do not delay one with a backlog, and the other way round.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    backlogged: RoundRobin,
    /// In the order of the times from which they want a poll.
    due: BTreeSet<(Moment, usize)>,
    due_from: Vec<Option<Moment>>,
    due_is_next: bool,
}

impl FairQueue {
    /// Sets the demand of a sub-application.
    pub(super) fn set_demand(&mut self, index: usize, demand: Option<Demand>) {
        if self.due_from.len() <= index {
            self.due_from.resize(index + 1, None);
        }
        let from = if let Some(Demand::From(from)) = demand { Some(from) } else { None };
        if self.due_from[index] != from {
            if let Some(earlier) = std::mem::replace(&mut self.due_from[index], from) {
                self.due.remove(&(earlier, index));
            }
            self.due.extend(from.map(|from| (from, index)));
        }
        if demand == Some(Demand::More) {
            self.backlogged.enter(index);
        } else {
            self.backlogged.leave(index);
        }
    }

    /// The next one; of those with a backlog only such as `may` have another poll.
    pub(super) fn next(&self, now: Moment, may: impl Fn(usize) -> bool) -> Option<usize> {
        let backlogged = || self.backlogged.iter().find(|index| may(*index));
        let due = || self.due.first().filter(|(from, _)| *from <= now).map(|(_, index)| *index);
        if self.due_is_next { due().or_else(backlogged) } else { backlogged().or_else(due) }
    }

    /// It was served.
    pub(super) fn served(&mut self, index: usize) {
        self.due_is_next = self.due_from.get(index).is_none_or(Option::is_none);
        self.backlogged.leave(index);
    }

    /// The time at which the next sub-application is due.
    pub(super) fn next_due(&self, now: Moment) -> Option<Moment> {
        self.due.range((now, usize::MAX)..).next().map(|(from, _)| *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(turns: &mut FairQueue, now: u64, demand: Demand) -> usize {
        let index = turns.next(Moment(now), |_| true).unwrap();
        turns.served(index);
        turns.set_demand(index, Some(demand));
        index
    }

    #[test]
    fn the_two_classes_share_and_each_takes_turns_among_its_own() {
        let mut turns = FairQueue::default();
        for index in 0..3 {
            turns.set_demand(index, Some(Demand::More));
        }
        for index in 3..6 {
            turns.set_demand(index, Some(Demand::From(Moment(index as u64))));
        }
        let mut order = Vec::new();
        for now in 10..18 {
            let more = turns.next(Moment(now), |_| true).unwrap() < 3;
            let demand = if more { Demand::More } else { Demand::From(Moment(now)) };
            order.push(served(&mut turns, now, demand));
        }
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 0, 3]);
    }

    #[test]
    fn a_class_that_is_alone_has_every_turn() {
        let mut turns = FairQueue::default();
        turns.set_demand(0, Some(Demand::More));
        turns.set_demand(1, Some(Demand::More));
        turns.set_demand(2, Some(Demand::From(Moment(100))));
        let order: Vec<usize> = (0..4).map(|now| served(&mut turns, now, Demand::More)).collect();
        assert_eq!(order, [0, 1, 0, 1]);
        assert_eq!(turns.next_due(Moment(0)), Some(Moment(100)));
        assert_eq!(turns.next_due(Moment(100)), None);
        turns.set_demand(0, None);
        turns.set_demand(1, None);
        assert_eq!(turns.next(Moment(99), |_| true), None);
        assert_eq!(turns.next(Moment(100), |_| true), Some(2));
    }

    #[test]
    fn those_that_may_not_are_passed_over() {
        let mut turns = FairQueue::default();
        turns.set_demand(0, Some(Demand::More));
        turns.set_demand(1, Some(Demand::More));
        assert_eq!(turns.next(Moment(0), |index| index == 1), Some(1));
        assert_eq!(turns.next(Moment(0), |_| false), None);
    }
}
