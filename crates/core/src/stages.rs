//! The four stages of an event's way: pull, journal, publish, confirm; and the state of each.

use crate::clock::Moment;
use crate::outcome::Problem;

/// The state of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageStatus {
    /// The time of its last work.
    pub last_success: Option<Moment>,
    /// The time since which work waits without progress. `None` when nothing waits.
    pub waiting_since: Option<Moment>,
    /// The time since which work has waited for an answer. Answered work that waits for its next attempt does
    /// not count: a start would only begin the attempts again.
    pub unanswered_since: Option<Moment>,
    /// The failure that lasts, and the time of its begin.
    pub problem: Option<(Problem, Moment)>,
}

impl StageStatus {
    /// It has just done its work.
    pub fn succeeded(&mut self, now: Moment) {
        self.last_success = Some(now);
        self.answered(now);
        if self.waiting_since.is_some() {
            self.waiting_since = Some(now);
        }
    }

    /// It got an answer of any kind.
    pub fn answered(&mut self, now: Moment) {
        if self.unanswered_since.is_some() {
            self.unanswered_since = Some(now);
        }
    }

    /// Whether it waits for an answer now.
    pub fn asks(&mut self, now: Moment, asks: bool) {
        self.unanswered_since = asks.then(|| self.unanswered_since.unwrap_or(now));
    }

    /// Whether work waits for it now.
    pub fn waits(&mut self, now: Moment, work: bool) {
        self.waiting_since = work.then(|| self.waiting_since.unwrap_or(now));
    }
}

/// The stages of an event's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// `PullEvents`.
    pub pull: StageStatus,
    /// Commits.
    pub journal: StageStatus,
    /// Publishes.
    pub publish: StageStatus,
    /// `ConfirmEvents`.
    pub confirm: StageStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_since_the_last_that_was_done() {
        let mut stage = StageStatus::default();
        stage.waits(Moment(10), true);
        stage.waits(Moment(20), true);
        assert_eq!(stage.waiting_since, Some(Moment(10)));
        stage.succeeded(Moment(30));
        assert_eq!((stage.waiting_since, stage.last_success), (Some(Moment(30)), Some(Moment(30))));
        stage.waits(Moment(40), false);
        stage.succeeded(Moment(50));
        assert_eq!(stage.waiting_since, None);
    }

    #[test]
    fn any_answer_ends_the_wait_for_one() {
        let mut stage = StageStatus::default();
        stage.answered(Moment(5));
        assert_eq!(stage.unanswered_since, None, "nothing was asked");
        stage.asks(Moment(10), true);
        stage.asks(Moment(20), true);
        assert_eq!(stage.unanswered_since, Some(Moment(10)));
        stage.answered(Moment(30));
        assert_eq!(stage.unanswered_since, Some(Moment(30)));
        stage.asks(Moment(40), false);
        assert_eq!(stage.unanswered_since, None);
    }
}
