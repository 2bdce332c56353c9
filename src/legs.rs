//! The four legs of an event's way: pulling, journalling, publishing, confirming; and how each of them stands.

use crate::clock::Moment;
use crate::outcome::Trouble;

/// How one leg stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// When it did its work last.
    pub last_success: Option<Moment>,
    /// Since when work waits for it that has not moved. `None` when nothing waits.
    pub waiting_since: Option<Moment>,
    /// Since when something has waited there for an answer without any. What was answered and waits for its next try does
    /// not: a new start would only begin the tries anew.
    pub unanswered_since: Option<Moment>,
    /// What keeps failing there, and since when.
    pub trouble: Option<(Trouble, Moment)>,
}

impl Leg {
    /// It has just done its work.
    pub fn succeeded(&mut self, now: Moment) {
        self.last_success = Some(now);
        self.answered(now);
        if self.waiting_since.is_some() {
            self.waiting_since = Some(now);
        }
    }

    /// Somebody answered it, whatever the answer.
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

/// The legs of an event's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legs {
    /// `PullEvents`.
    pub pull: Leg,
    /// Commits.
    pub journal: Leg,
    /// Publishes.
    pub publish: Leg,
    /// `ConfirmEvents`.
    pub confirm: Leg,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_since_the_last_that_was_done() {
        let mut leg = Leg::default();
        leg.waits(Moment(10), true);
        leg.waits(Moment(20), true);
        assert_eq!(leg.waiting_since, Some(Moment(10)));
        leg.succeeded(Moment(30));
        assert_eq!((leg.waiting_since, leg.last_success), (Some(Moment(30)), Some(Moment(30))));
        leg.waits(Moment(40), false);
        leg.succeeded(Moment(50));
        assert_eq!(leg.waiting_since, None);
    }

    #[test]
    fn any_answer_ends_the_wait_for_one() {
        let mut leg = Leg::default();
        leg.answered(Moment(5));
        assert_eq!(leg.unanswered_since, None, "nothing was asked");
        leg.asks(Moment(10), true);
        leg.asks(Moment(20), true);
        assert_eq!(leg.unanswered_since, Some(Moment(10)));
        leg.answered(Moment(30));
        assert_eq!(leg.unanswered_since, Some(Moment(30)));
        leg.asks(Moment(40), false);
        assert_eq!(leg.unanswered_since, None);
    }
}
