//! The lane between a core and its journal: commits in their order, and their answers in that order.

use super::*;

impl World {
    /// Bugs that tell the core of a commit before there is one.
    pub(super) fn run_ahead(&mut self, relay: usize, write: &Write) {
        match (self.sabotage, write) {
            (Some(Sabotage::ConfirmedBeforeCommit), Write::Published(events)) => {
                self.give(relay, Input::Written(Written::Published(events.clone())));
            }
            (Some(Sabotage::PublishedBeforeCommit), Write::Record(_)) => {
                let host = &mut self.relays[relay];
                host.durable.get_or_insert_with(|| host.journal.clone());
                let (written, _) = self.apply(relay, write);
                self.give(relay, Input::Written(written));
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
        for write in batch {
            match (self.sabotage, &write) {
                (Some(Sabotage::PublishedBeforeCommit), Write::Record(_)) => {
                    self.relays[relay].durable = None;
                    continue;
                }
                (Some(Sabotage::ConfirmedBeforeCommit), Write::Published(_)) => {
                    self.apply(relay, &write);
                    continue;
                }
                _ => {}
            }
            let (written, what) = self.apply(relay, &write);
            say!(self, "relay {relay} committed {what}");
            replies.push(Input::Written(written));
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
    pub(super) fn apply(&mut self, relay: usize, write: &Write) -> (Written, String) {
        let now = self.now;
        let host = &mut self.relays[relay];
        let wall_offset = host.wall_offset;
        let loading = host.process.as_ref().is_some_and(|process| process.loading);
        let journal = &mut host.journal;
        let what = if self.trace { brief(write) } else { String::new() };
        let written = match write.clone() {
            Write::Record(pulled) => {
                let mut recorded = journal.record(&pulled);
                let ids: Vec<EventId> = recorded.iter().map(|r| r.event).collect();
                if self.sabotage == Some(Sabotage::JoinedForgotten) && loading && !pulled.publish_now {
                    journal.forgotten.extend(&ids);
                }
                self.checker.committed(relay, journal, Committed::Recorded(&ids));
                if self.trace {
                    for (event, recorded) in pulled.events.iter().zip(&recorded) {
                        say_recorded(self.now, relay, event, recorded);
                    }
                }
                if let Some(bug) = self.sabotage {
                    bug.recorded(&mut recorded);
                }
                Written::Recorded(pulled, recorded)
            }
            Write::Published(events) => {
                journal.published(&events);
                self.checker.committed(relay, journal, Committed::Published(&events));
                Written::Published(events)
            }
            Write::Failed(failed)
                if self.sabotage.is_some_and(|bug| {
                    failed.iter().any(|one| bug.parks(one, journal.row(one.event).map_or(0, |r| r.attempts)))
                }) =>
            {
                let all: Vec<_> = failed.iter().map(|one| (one.event, one.problem.clone())).collect();
                journal.parked(&all);
                self.checker.committed(relay, journal, Committed::Parked(&all));
                Written::Parked(all.into())
            }
            Write::Failed(failed) => {
                journal.attempts(&failed);
                Written::Failed(failed)
            }
            Write::Parked(events) => {
                journal.parked(&events);
                self.checker.committed(relay, journal, Committed::Parked(&events));
                Written::Parked(events)
            }
            Write::Confirmed(confirmed) => {
                let ids: Vec<_> = confirmed.iter().map(|c| c.delivery).collect();
                journal.confirmed(&ids, WallTime(now.cast_signed() + wall_offset));
                self.checker.committed(relay, journal, Committed::Confirmed(&ids));
                Written::Confirmed(confirmed)
            }
            Write::LetGo(deliveries, why) => {
                journal.let_go(&deliveries, why == LetGo::Lost);
                Written::LetGo(deliveries, why)
            }
            Write::Settle { sub_app, received_before } => {
                journal.settle(sub_app, received_before, WallTime(now.cast_signed() + wall_offset));
                Written::Settled(0)
            }
            Write::Load { after, limit } => Written::Loaded(journal.load(after, limit)),
            other => unreachable!("the core does not ask for {other:?}"),
        };
        (written, what)
    }
}
