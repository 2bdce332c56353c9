//! The order of sub-applications when requests are scarce.

use std::collections::BTreeSet;

/// Sub-applications with a demand. The one that was served longest ago is first.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    waiting: BTreeSet<(u64, usize)>,
    /// The position of each waiting sub-application.
    turns: Vec<Option<u64>>,
    next_turn: u64,
}

impl RoundRobin {
    /// Adds it behind all others, if it does not wait already.
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

    /// Removes it.
    pub(super) fn leave(&mut self, index: usize) {
        if let Some(turn) = self.turns.get_mut(index).and_then(Option::take) {
            self.waiting.remove(&(turn, index));
        }
    }

    /// All that wait, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter().map(|(_, index)| *index)
    }

    /// The first that waits behind this position, with its own position.
    pub(super) fn after(&self, turn: Option<u64>) -> Option<(u64, usize)> {
        let from = turn.map_or(0, |turn| turn + 1);
        self.waiting.range((from, 0)..).next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
