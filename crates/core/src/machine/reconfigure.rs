//! What can change while the relay is at work.

use tencent_vod_event::SubAppId;

use super::{Core, Settings};
use crate::clock::Moment;
use crate::machine::capacity::Capacity;
use crate::machine::refusals::PROBE_EVERY;

impl Core {
    /// Takes over what can change at work: the sub-applications, the quota, the back-off, the capacity, and the attempts. What a
    /// running lease or a proof depends on stays: the window, and what a confirm waits for.
    pub(super) fn reconfigure(&mut self, now: Moment, new: Settings) {
        let old = &self.world.settings;
        self.polls.configure(old, &new);
        self.handles.configure(old, &new);
        if old.max_in_flight != new.max_in_flight {
            self.capacity = Capacity::new(new.max_in_flight, now);
        }
        self.world.settings = Settings { confirm_after: old.confirm_after, window: old.window, ..new };
        self.follow_sub_apps();
    }

    /// Begins with those that are new, and polls those no more that are gone. What such a one has in hand is finished.
    fn follow_sub_apps(&mut self) {
        let wanted = self.world.settings.sub_apps.clone();
        for id in &wanted {
            if !self.sub_apps.contains(id) {
                self.add(*id, true);
            }
        }
        self.polls.want(&wanted);
    }

    /// Takes a sub-application up. One that only the journal knows is not polled.
    pub(super) fn add(&mut self, id: SubAppId, polled: bool) -> usize {
        let rest = self.breaker.is_open().then_some(PROBE_EVERY);
        self.polls.add(&self.world, id, polled, rest);
        self.handles.add(id);
        self.sub_apps.push(id);
        self.sub_apps.len() - 1
    }
}
