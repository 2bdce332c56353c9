//! The lane between a core and its journal: commits in their order, and their answers in that order.

use super::*;

impl World {
    /// Bugs that tell the core of a commit before there is one.
    pub(super) fn run_ahead(&mut self, relay: usize, effect: &Effect) {
        match (self.sabotage, effect) {
            (Some(Sabotage::ConfirmedBeforeCommit), Effect::RecordPublished(events)) => {
                self.give(relay, Input::PublishRecorded(events.clone()));
            }
            (Some(Sabotage::PublishedBeforeCommit), Effect::Record { .. }) => {
                let host = &mut self.relays[relay];
                host.durable.get_or_insert_with(|| host.journal.clone());
                let (input, _) = self.apply(relay, effect);
                self.give(relay, input);
            }
            _ => {}
        }
    }

    pub(super) fn begin_commit(&mut self, relay: usize) {
        let process = self.process(relay);
        if !process.committing.is_empty() || process.lane.is_empty() {
            return;
        }
        let count = process.lane.len().min(BATCH);
        process.committing = process.lane.drain(..count).collect();
        let takes = self.slow(Fault::CommitSlow);
        self.within(relay, takes, Within::Commit);
    }

    pub(super) fn commit(&mut self, relay: usize) {
        if !self.relays[relay].journal_up {
            self.within(relay, 200, Within::Commit);
            return;
        }
        let batch = std::mem::take(&mut self.process(relay).committing);
        let mut replies = Vec::new();
        for effect in batch {
            match (self.sabotage, &effect) {
                (Some(Sabotage::PublishedBeforeCommit), Effect::Record { .. }) => {
                    self.relays[relay].durable = None;
                    continue;
                }
                (Some(Sabotage::ConfirmedBeforeCommit), Effect::RecordPublished(_)) => {
                    self.apply(relay, &effect);
                    continue;
                }
                _ => {}
            }
            let (input, what) = self.apply(relay, &effect);
            say!(self, "relay {relay} committed {what}");
            replies.push(input);
        }
        if self.strikes(Fault::CrashAfterCommit) {
            self.crash(relay);
            return;
        }
        // Replies keep the order of the commits.
        let now = self.now;
        let trip = self.rng.u64(0..3);
        let process = self.process(relay);
        process.replied_at = process.replied_at.max(now + trip);
        let after = process.replied_at - now;
        self.within(relay, after, Within::Replies(replies));
        self.begin_commit(relay);
    }

    /// Commits one piece of work, and says what the core is told of it.
    pub(super) fn apply(&mut self, relay: usize, effect: &Effect) -> (Input, String) {
        let now = self.now;
        let host = &mut self.relays[relay];
        let wall_offset = host.wall_offset;
        let loading = host.process.as_ref().is_some_and(|process| process.loading);
        let journal = &mut host.journal;
        let what = if self.trace { brief(effect) } else { String::new() };
        let input = match effect.clone() {
            Effect::Record { pull, answer, lease, received_at, pulled_at, publish_now, .. } => {
                let arrival = Arrival { answer, lease, received_at, pulled_at, publish_now };
                let mut recorded = journal.record(&arrival);
                let ids: Vec<EventId> = recorded.iter().map(|r| r.event).collect();
                if self.sabotage == Some(Sabotage::JoinedForgotten) && loading && !publish_now {
                    journal.forgotten.extend(&ids);
                }
                self.checker.committed(relay, journal, Committed::Recorded(&ids));
                if self.trace {
                    for (event, recorded) in arrival.answer.events.iter().zip(&recorded) {
                        say_recorded(self.now, relay, event, recorded);
                    }
                }
                if let Some(bug) = self.sabotage {
                    bug.recorded(&mut recorded);
                }
                Input::Recorded { pull, recorded }
            }
            Effect::RecordPublished(events) => {
                journal.published(&events);
                self.checker.committed(relay, journal, Committed::Published(&events));
                Input::PublishRecorded(events)
            }
            Effect::RecordAttempts(failed)
                if self.sabotage.is_some_and(|bug| {
                    failed.iter().any(|one| bug.parks(one, journal.row(one.event).map_or(0, |r| r.attempts)))
                }) =>
            {
                let ids: Vec<EventId> = failed.iter().map(|one| one.event).collect();
                let all: Vec<_> = failed.into_iter().map(|one| (one.event, one.problem)).collect();
                journal.parked(&all);
                self.checker.committed(relay, journal, Committed::Parked(&all));
                Input::ParkRecorded(ids)
            }
            Effect::RecordAttempts(failed) => {
                journal.attempts(&failed);
                Input::AttemptRecorded(failed.into_iter().map(|f| f.event).collect())
            }
            Effect::RecordParked(events) => {
                journal.parked(&events);
                self.checker.committed(relay, journal, Committed::Parked(&events));
                let ids: Vec<EventId> = events.into_iter().map(|(event, _)| event).collect();
                Input::ParkRecorded(ids)
            }
            Effect::RecordConfirmed(confirmed) => {
                let ids: Vec<_> = confirmed.into_iter().map(|c| c.delivery).collect();
                journal.confirmed(&ids, WallTime(now.cast_signed() + wall_offset));
                self.checker.committed(relay, journal, Committed::Confirmed(&ids));
                Input::OutcomeRecorded
            }
            Effect::RecordLetGo(deliveries, why) => {
                journal.let_go(&deliveries, why == LetGo::Lost);
                Input::OutcomeRecorded
            }
            Effect::Settle { sub_app, received_before } => {
                journal.settle(sub_app, received_before, WallTime(now.cast_signed() + wall_offset));
                Input::SettleRecorded
            }
            Effect::Load { after, limit } => Input::Loaded(journal.load(after, limit)),
            Effect::Pull { .. }
            | Effect::Publish { .. }
            | Effect::Confirm { .. }
            | Effect::ProveConfirm { .. }
            | Effect::Finished => {
                unreachable!("not the journal's")
            }
        };
        (input, what)
    }
}
