//! Unpublished events that only the journal has, and how many events may be in flight to be published.

use super::Events;
use crate::identity::EventId;
use crate::machine::outbox::Outbox;
use crate::machine::polls::Recordings;
use crate::machine::types::{ConfirmAfter, Effect};
use crate::machine::world::World;
use crate::write::{EVENTS_PER_PULL, Write};

/// The number of unpublished events that one read of the journal brings.
const LOAD_MAX: usize = 256;

/// The unpublished events that only the journal has: those of an earlier run, and those that came while the
/// output was away.
#[derive(Debug)]
pub(super) struct Backlog {
    open: bool,
    /// Every unpublished event up to this number is in flight.
    cursor: EventId,
    loading: Option<u32>,
    /// An event that joined the backlog while it was being read.
    joined: Option<EventId>,
}

impl Backlog {
    /// After a start everything unpublished is backlog.
    pub(super) fn after_start() -> Self {
        Self { open: true, cursor: EventId(0), loading: None, joined: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// An event is unpublished and not in flight.
    pub(super) fn add(&mut self, event: EventId) {
        if self.loading.is_some() {
            self.joined = Some(self.joined.map_or(event, |earlier| earlier.min(event)));
        } else if !self.open || event <= self.cursor {
            self.cursor = EventId(event.0 - 1);
        }
        self.open = true;
    }

    /// How many events the current read may bring.
    pub(super) fn coming(&self) -> usize {
        self.loading.map_or(0, |limit| limit as usize)
    }

    /// A read begins, of at most this many events. Returns the number after which it begins.
    fn begin_read(&mut self, limit: u32) -> EventId {
        self.loading = Some(limit);
        self.cursor
    }

    /// A read brought this many events, up to this one.
    pub(super) fn read(&mut self, last: Option<EventId>, count: usize) {
        let limit = self.loading.take().unwrap_or(0);
        if let Some(last) = last {
            self.cursor = self.cursor.max(last);
        }
        self.open = count >= limit as usize;
        if let Some(event) = self.joined.take() {
            // It may have come too late for the read that has just ended.
            self.add(event);
        }
    }
}

impl Events {
    /// Whether newly recorded events go straight to the output. With `confirm_after = "journal"` they wait in
    /// the journal when others wait there, or when the output cannot take them.
    pub(in crate::machine) fn publishes_at_once(&self, world: &World, recordings: Recordings) -> bool {
        match world.settings.relay.confirm_after {
            ConfirmAfter::Publish => true,
            ConfirmAfter::Journal => {
                // An event that is recorded to wait must not be overtaken.
                let waits = self.backlog.is_open() || recordings.any_waiting();
                world.output_up && !waits && self.held(recordings) < self.capacity_for_publishing(world)
            }
        }
    }

    /// Reads the backlog further while there is capacity beyond that for further polls.
    pub(in crate::machine) fn load(
        &mut self,
        world: &World,
        out: &mut Outbox,
        recordings: Recordings,
        further_polls: usize,
    ) {
        let taken = self.held(recordings) + further_polls * EVENTS_PER_PULL;
        let most = if self.breaker.is_open() { EVENTS_PER_PULL } else { LOAD_MAX };
        let capacity = self.capacity_for_publishing(world).saturating_sub(taken).min(most);
        let worth_it = capacity >= most.min(world.settings.relay.max_in_flight / 4).max(1);
        if !self.backlog.is_open()
            || self.backlog.is_loading()
            || !world.output_up
            || world.draining
            || !worth_it
        {
            return;
        }
        if let Err(when) = self.breaker.may_load(world.now) {
            return out.wake(when);
        }
        let limit = u32::try_from(capacity).unwrap_or(u32::MAX);
        let after = self.backlog.begin_read(limit);
        out.push(Effect::Write(Write::Load { after, limit }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_read_to_its_end_and_no_further() {
        let mut backlog = Backlog::after_start();
        backlog.loading = Some(2);
        backlog.read(Some(EventId(8)), 2);
        assert!(backlog.is_open() && backlog.cursor == EventId(8));
        backlog.loading = Some(2);
        backlog.read(Some(EventId(9)), 1);
        assert!(!backlog.is_open());
        backlog.add(EventId(20));
        assert!(backlog.is_open() && backlog.cursor == EventId(19));
    }

    #[test]
    fn what_joins_during_a_read_is_read_again() {
        let mut backlog = Backlog::after_start();
        backlog.loading = Some(10);
        backlog.add(EventId(5));
        backlog.add(EventId(7));
        backlog.read(Some(EventId(6)), 3);
        assert!(backlog.is_open() && backlog.cursor == EventId(4));
    }
}
