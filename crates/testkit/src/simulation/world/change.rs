//! What operators change: the configuration, at work and between two runs, and the journal, by an older copy of it.

use super::*;

impl World {
    /// Some of the sub-applications, never none.
    fn some_sub_apps(&mut self) -> Vec<SubAppId> {
        let all = self.plan.sub_apps.clone();
        let kept = self.rng.usize(0..all.len());
        let one = |(at, id): (usize, &SubAppId)| (at == kept || self.rng.bool()).then_some(*id);
        all.iter().enumerate().filter_map(one).collect()
    }

    /// A reload with other sub-applications.
    pub(super) fn reload(&mut self, relay: usize) {
        let wanted = self.some_sub_apps();
        self.configure(relay, wanted);
    }

    pub(super) fn configure(&mut self, relay: usize, wanted: Vec<SubAppId>) {
        let host = &mut self.relays[relay];
        let before = std::mem::replace(&mut host.wanted, wanted.clone());
        if host.process.is_none() || before == wanted {
            return;
        }
        let mut settings = self.plan.settings(0);
        settings.sub_apps = wanted;
        if self.sabotage == Some(Sabotage::RemovedIsPolled) {
            let gone = before.into_iter().filter(|id| !settings.sub_apps.contains(id)).collect::<Vec<_>>();
            settings.sub_apps.extend(gone);
        }
        if let Some(bug) = self.sabotage {
            bug.settings(&mut settings);
        }
        say!(self, "relay {relay} reads its configuration again: {:?}", settings.sub_apps);
        self.give(relay, Input::Reconfigure(Box::new(settings)));
    }

    /// Another configuration for the next run.
    pub(super) fn other_settings(&mut self, relay: usize) {
        let wanted = self.some_sub_apps();
        let confirm_after = [ConfirmAfter::Publish, ConfirmAfter::Journal][self.rng.usize(0..2)];
        let host = &mut self.relays[relay];
        host.wanted = wanted;
        host.confirm_after = confirm_after;
    }

    /// An operator releases parked events, some of them or all, while no process runs.
    pub(super) fn release(&mut self, relay: usize, all: bool) {
        for at in 0..self.relays[relay].journal.rows.len() {
            let row = &self.relays[relay].journal.rows[at];
            if !row.parked || row.pruned || !(all || self.rng.bool()) {
                continue;
            }
            let event = EventId(i64::try_from(at).expect("few rows") + 1);
            say!(self, "relay {relay}: event {} is released", event.0);
            self.checker.released(relay, event, all);
            self.relays[relay].journal.release(event);
        }
    }

    /// When all is at rest, the broker is mended and everything that was parked is released. Says whether there is anything.
    pub(super) fn release_all(&mut self) -> bool {
        let parked = |host: &Relay| host.journal.rows.iter().any(|row| row.parked && !row.pruned);
        let begins = self.plan.rate(Fault::Released) > 0 && !self.released && self.relays.iter().any(parked);
        if begins {
            say!(self, "the broker is mended, and everything that was parked is to be released");
            (self.released, self.mended) = (true, true);
            self.calm_since = self.now;
            self.to_release = (0..self.relays.len()).collect();
            for relay in 0..self.relays.len() {
                self.drain(relay);
            }
        }
        begins
    }

    /// A copy of the journal is kept now and then, and restored later.
    pub(super) fn keep_or_restore(&mut self, relay: usize) {
        if !self.stormy || self.plan.rate(Fault::JournalRestored) == 0 {
            return;
        }
        if self.relays[relay].kept.is_none() {
            self.relays[relay].kept = self.rng.bool().then(|| Box::new(self.relays[relay].journal.clone()));
        } else if self.strikes(Fault::JournalRestored) {
            let host = &mut self.relays[relay];
            let Some(older) = host.kept.take() else { return };
            say!(self, "relay {relay} goes back to {} events", older.rows.len());
            let forgets = |at: &usize| host.journal.rows[*at].confirmed && !older.rows[*at].confirmed;
            let unlearnt: Vec<usize> = (0..older.rows.len()).filter(forgets).collect();
            host.journal.restore(&older);
            host.copied = true;
            self.checker.restored(relay, &host.journal, older.rows.len(), &unlearnt);
        }
    }
}
