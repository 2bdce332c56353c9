//! What can change while the relay is at work.

use tencent_vod_event::SubAppId;

use super::pace::Pace;
use super::{Core, Settings, SubAppState, pulls};
use crate::clock::Moment;
use crate::machine::capacity::Capacity;
use crate::machine::refusals::PROBE_EVERY;

impl Core {
    /// Takes over what can change at work: the sub-applications, the quota, the back-off, the capacity, and the attempts. What a
    /// running lease or a proof depends on stays: the window, and what a confirm waits for.
    pub(super) fn reconfigure(&mut self, now: Moment, new: Settings) {
        let old = &self.world.settings;
        if old.requests_per_second != new.requests_per_second {
            self.pull_quota.configure(new.requests_per_second);
            self.confirm_quota.configure(new.requests_per_second);
        }
        if old.max_in_flight != new.max_in_flight {
            self.capacity = Capacity::new(new.max_in_flight, now);
        }
        if (old.idle_backoff_min, old.idle_backoff_max) != (new.idle_backoff_min, new.idle_backoff_max) {
            for queue in &mut self.queues {
                queue.pace.configure(new.idle_backoff_min, new.idle_backoff_max);
            }
        }
        self.world.settings = Settings { confirm_after: old.confirm_after, window: old.window, ..new };
        self.sub_apps(now);
    }

    /// Begins with those that are new, and polls those no more that are gone. What such a one has in hand is finished.
    fn sub_apps(&mut self, now: Moment) {
        let wanted = self.world.settings.sub_apps.clone();
        for id in &wanted {
            if !self.queues.iter().any(|queue| queue.id == *id) {
                let mut queue = SubAppState::new(*id, &self.world.settings, now);
                queue.pace.rest(self.breaker.is_open().then_some(PROBE_EVERY));
                self.queues.push(queue);
            }
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            queue.pace.want(wanted.contains(&queue.id));
            self.poll_queue.set_demand(index, queue.pace.demand());
        }
    }

    /// A sub-application that only the journal knows. It is not polled.
    pub(super) fn add_unpolled(&mut self, now: Moment, id: SubAppId) -> usize {
        let mut queue = SubAppState::new(id, &self.world.settings, now);
        queue.pace.want(false);
        queue.pace.rest(self.breaker.is_open().then_some(PROBE_EVERY));
        self.queues.push(queue);
        self.queues.len() - 1
    }
}

impl SubAppState {
    pub(super) fn new(id: SubAppId, settings: &Settings, now: Moment) -> Self {
        Self {
            id,
            pace: Pace::new(settings.idle_backoff_min, settings.idle_backoff_max, now),
            confirms: super::confirms::ConfirmLane::new(),
            confirm_right: super::proofs::ConfirmRight::new(),
            // An earlier run may have left unconfirmed events behind, and a pull whose answer it never saw.
            unsettled: Some((now, now)),
            settle_from: now + settings.window.length + pulls::SETTLE_SLACK,
        }
    }
}
