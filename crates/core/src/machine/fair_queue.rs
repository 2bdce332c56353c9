//! Whose turn it is, when there are fewer requests than sub-applications that want one.

use std::collections::BTreeSet;

use crate::clock::Moment;
use crate::pacing::Wish;

/// Sub-applications that want something, the one first that has waited the longest since it was served.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    waiting: BTreeSet<(u64, usize)>,
    /// The turn of each sub-application that waits.
    turns: Vec<Option<u64>>,
    next_turn: u64,
}

impl RoundRobin {
    /// It waits from now on, behind all others, if it did not wait already.
    pub(super) fn enter(&mut self, index: usize) {
        if self.turns.len() <= index {
            self.turns.resize(index + 1, None);
        }
        if self.turns[index].is_none() {
            self.turns[index] = Some(self.next_turn);
            self.waiting.insert((self.next_turn, index));
            self.next_turn += 1;
        }
    }

    /// It wants nothing any more.
    pub(super) fn leave(&mut self, index: usize) {
        if let Some(turn) = self.turns.get_mut(index).and_then(Option::take) {
            self.waiting.remove(&(turn, index));
        }
    }

    /// All that wait, in turn.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter().map(|(_, index)| *index)
    }

    /// The first that waits behind this turn, and its own turn.
    pub(super) fn after(&self, turn: Option<u64>) -> Option<(u64, usize)> {
        let from = turn.map_or(0, |turn| turn + 1);
        self.waiting.range((from, 0)..).next().copied()
    }
}

/// Who is polled next. Two classes share the polls one by one: those of which a backlog is known, and those that are merely
/// due. So many idle sub-applications do not keep one with a backlog waiting, and the other way round.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    backlogged: RoundRobin,
    /// In the order of the moments from which on they want a poll.
    due: BTreeSet<(Moment, usize)>,
    due_from: Vec<Option<Moment>>,
    due_is_next: bool,
}

impl FairQueue {
    /// What a sub-application wants from now on.
    pub(super) fn wishes(&mut self, index: usize, wish: Option<Wish>) {
        if self.due_from.len() <= index {
            self.due_from.resize(index + 1, None);
        }
        let from = if let Some(Wish::From(from)) = wish { Some(from) } else { None };
        if self.due_from[index] != from {
            if let Some(earlier) = std::mem::replace(&mut self.due_from[index], from) {
                self.due.remove(&(earlier, index));
            }
            self.due.extend(from.map(|from| (from, index)));
        }
        if wish == Some(Wish::More) {
            self.backlogged.enter(index);
        } else {
            self.backlogged.leave(index);
        }
    }

    /// Whose turn it is; of those with a backlog only such as `may` have another poll.
    pub(super) fn next(&self, now: Moment, may: impl Fn(usize) -> bool) -> Option<usize> {
        let backlogged = || self.backlogged.iter().find(|index| may(*index));
        let due = || self.due.first().filter(|(from, _)| *from <= now).map(|(_, index)| *index);
        if self.due_is_next { due().or_else(backlogged) } else { backlogged().or_else(due) }
    }

    /// It had its turn.
    pub(super) fn served(&mut self, index: usize) {
        self.due_is_next = self.due_from.get(index).is_none_or(Option::is_none);
        self.backlogged.leave(index);
    }

    /// When the next sub-application is due that is not due yet.
    pub(super) fn next_due(&self, now: Moment) -> Option<Moment> {
        self.due.range((now, usize::MAX)..).next().map(|(from, _)| *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(turns: &mut FairQueue, now: u64, wish: Wish) -> usize {
        let index = turns.next(Moment(now), |_| true).unwrap();
        turns.served(index);
        turns.wishes(index, Some(wish));
        index
    }

    #[test]
    fn the_two_classes_share_and_each_takes_turns_among_its_own() {
        let mut turns = FairQueue::default();
        for index in 0..3 {
            turns.wishes(index, Some(Wish::More));
        }
        for index in 3..6 {
            turns.wishes(index, Some(Wish::From(Moment(index as u64))));
        }
        let mut order = Vec::new();
        for now in 10..18 {
            let more = turns.next(Moment(now), |_| true).unwrap() < 3;
            let wish = if more { Wish::More } else { Wish::From(Moment(now)) };
            order.push(served(&mut turns, now, wish));
        }
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 0, 3]);
    }

    #[test]
    fn a_class_that_is_alone_has_every_turn() {
        let mut turns = FairQueue::default();
        turns.wishes(0, Some(Wish::More));
        turns.wishes(1, Some(Wish::More));
        turns.wishes(2, Some(Wish::From(Moment(100))));
        let order: Vec<usize> = (0..4).map(|now| served(&mut turns, now, Wish::More)).collect();
        assert_eq!(order, [0, 1, 0, 1]);
        assert_eq!(turns.next_due(Moment(0)), Some(Moment(100)));
        assert_eq!(turns.next_due(Moment(100)), None);
        turns.wishes(0, None);
        turns.wishes(1, None);
        assert_eq!(turns.next(Moment(99), |_| true), None);
        assert_eq!(turns.next(Moment(100), |_| true), Some(2));
    }

    #[test]
    fn those_that_may_not_are_passed_over() {
        let mut turns = FairQueue::default();
        turns.wishes(0, Some(Wish::More));
        turns.wishes(1, Some(Wish::More));
        assert_eq!(turns.next(Moment(0), |index| index == 1), Some(1));
        assert_eq!(turns.next(Moment(0), |_| false), None);
    }

    #[test]
    fn a_round_is_gone_through_once_and_who_enters_again_comes_last() {
        let mut round = RoundRobin::default();
        for index in [4, 2, 7, 2] {
            round.enter(index);
        }
        round.leave(4);
        round.leave(9);
        round.enter(4);
        let (mut turn, mut met) = (None, Vec::new());
        while let Some((next, index)) = round.after(turn) {
            turn = Some(next);
            met.push(index);
        }
        assert_eq!(met, [2, 7, 4]);
        assert_eq!(round.iter().collect::<Vec<_>>(), met);
    }
}
