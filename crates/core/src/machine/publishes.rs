//! From the journal's record to the broker's ack, and what each other answer leads to.

use std::sync::Arc;

use super::refusals::RETRY_WAITS;
use super::{ConfirmAfter, Core, Effect, EventId, InFlight, InFlightState};
use crate::clock::Moment;
use crate::error_code::ErrorCode;
use crate::outcome::{Problem, PublishOutcome};
use crate::outgoing::Outgoing;
use crate::write::{EVENTS_PER_PULL, FailedAttempt, Loaded, Write};

/// How many publishes wait for their outcome at the most. Enough to keep every lane of the output busy with full batches.
const PUBLISHING_MAX: usize = 256;

/// How many unpublished events are read from the journal at once.
const LOAD_MAX: usize = 256;

/// The unpublished events that only the journal has: those of an earlier run, and those that came while the output was away.
#[derive(Debug)]
pub(super) struct Backlog {
    open: bool,
    /// Every unpublished event up to this number is in the relay's hands.
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

    /// An event is unpublished, and not in the relay's hands.
    pub(super) fn add(&mut self, event: EventId) {
        if self.loading.is_some() {
            self.joined = Some(self.joined.map_or(event, |earlier| earlier.min(event)));
        } else if !self.open || event <= self.cursor {
            self.cursor = EventId(event.0 - 1);
        }
        self.open = true;
    }

    /// How many events the read under way may bring.
    pub(super) fn coming(&self) -> usize {
        self.loading.map_or(0, |limit| limit as usize)
    }

    fn read(&mut self, last: Option<EventId>, count: usize) {
        let limit = self.loading.take().unwrap_or(0);
        if let Some(last) = last {
            self.cursor = self.cursor.max(last);
        }
        self.open = count >= limit as usize;
        if let Some(event) = self.joined.take() {
            // It may have come too late for the read that just ended.
            self.add(event);
        }
    }
}

impl Core {
    /// Whether events that are recorded now go straight on to the output. With `confirm_after = "journal"` they wait in
    /// the journal when others wait there already, or when the output cannot take them.
    pub(super) fn publishes_at_once(&self) -> bool {
        match self.world.settings.confirm_after {
            ConfirmAfter::Publish => true,
            ConfirmAfter::Journal => {
                // What is being recorded to wait must not be overtaken.
                let overtakes = self.polls.recordings().any_waiting();
                let waits = self.backlog.is_open() || overtakes;
                self.world.output_up && !waits && self.in_hand() < self.capacity_for_publishing()
            }
        }
    }

    /// How many events may be in hand only to be published. With `confirm_after = "journal"` the other half is kept for
    /// pulling: the cloud is not to wait while the broker takes nothing.
    fn capacity_for_publishing(&self) -> usize {
        let most = match self.world.settings.confirm_after {
            ConfirmAfter::Publish => self.world.settings.max_in_flight,
            ConfirmAfter::Journal => self.world.settings.max_in_flight / 2,
        };
        most.saturating_add(self.capacity_besides())
    }

    /// How many events more may be in hand, because the broker returns or refuses some for minutes, or because some may break the
    /// connection: the others must not wait for their capacity. An event that may break the connection is given up only when others
    /// get through. While nothing is routable, this is the capacity for an event that may be.
    pub(super) fn capacity_besides(&self) -> usize {
        let most = (self.world.settings.max_in_flight / 4).max(EVENTS_PER_PULL);
        if self.breaker.is_open() { most } else { (self.refused + self.suspected).min(most) }
    }

    /// Reads on in the backlog while there is capacity for it.
    pub(super) fn load_backlog(&mut self, now: Moment) {
        let taken = self.in_hand() + self.polls.further() * EVENTS_PER_PULL;
        let most = if self.breaker.is_open() { EVENTS_PER_PULL } else { LOAD_MAX };
        let capacity = self.capacity_for_publishing().saturating_sub(taken).min(most);
        let worth_it = capacity >= most.min(self.world.settings.max_in_flight / 4).max(1);
        if !self.backlog.is_open()
            || self.backlog.is_loading()
            || !self.world.output_up
            || self.world.draining
            || !worth_it
            || !self.may_load(now)
        {
            return;
        }
        let limit = u32::try_from(capacity).unwrap_or(u32::MAX);
        self.backlog.loading = Some(limit);
        self.out.push(Effect::Write(Write::Load { after: self.backlog.cursor, limit }));
    }

    pub(super) fn loaded(&mut self, now: Moment, loaded: Vec<Loaded>) {
        self.backlog.read(loaded.last().map(|l| l.event), loaded.len());
        for Loaded { event, outgoing, confirmed } in loaded {
            let sub_app = outgoing.event.sub_app;
            let known = self.sub_apps.iter().position(|known| *known == sub_app);
            // Its sub-application may have left the configuration: it is published all the same. A reload can bring the
            // sub-application back, and then an idle answer settles the event.
            let index = known.unwrap_or_else(|| self.add(sub_app, false));
            self.carry_loaded(now, index, event, outgoing, confirmed);
        }
    }

    /// Takes an event into the relay's hands, unless it is there already. The handles that an earlier run had for it are let
    /// go: one of them may stand on further events, which that run had in its hands and this one has not.
    fn carry_loaded(
        &mut self,
        now: Moment,
        sub_app: usize,
        event: EventId,
        outgoing: Outgoing,
        confirmed: bool,
    ) {
        let outgoing = Some(Arc::new(outgoing));
        if let Some(in_flight) = self.events.get_mut(&event) {
            if in_flight.state() == InFlightState::Stored {
                in_flight.outgoing = outgoing;
                in_flight.enter(InFlightState::Ready);
                self.ready.insert(event);
            }
            return;
        }
        let in_flight = InFlight::new(InFlightState::Ready, sub_app, outgoing, confirmed, now);
        self.events.insert(event, in_flight);
        self.ready.insert(event);
    }

    pub(super) fn publish_ready(&mut self, now: Moment) {
        let any_ready = !self.ready.is_empty() || self.suspects.any_ready();
        if now < self.publish_from && self.world.output_up && any_ready {
            return self.out.wake(self.publish_from);
        }
        while self.world.output_up && self.publishing < PUBLISHING_MAX && !self.suspects.occupies() {
            let event = if !self.suspects.is_next(!self.ready.is_empty()) {
                self.ready.pop_first()
            } else if self.publishing == 0 {
                self.suspects.take()
            } else {
                // What is under way is answered before, so that a loss is that of the suspect alone.
                return;
            };
            let Some(event) = event else { break };
            let in_flight =
                self.events.get_mut(&event).filter(|in_flight| in_flight.state() == InFlightState::Ready);
            let Some((in_flight, outgoing)) =
                in_flight.and_then(|c| c.outgoing.clone().map(|outgoing| (c, outgoing)))
            else {
                self.suspects.ended(event);
                continue;
            };
            in_flight.enter(InFlightState::Publishing);
            self.publishing += 1;
            let alone = in_flight.alone || self.suspects.occupies();
            self.out.push(Effect::Publish { event, outgoing, alone });
        }
        if !self.suspects.occupies() {
            self.suspects.others_went();
        }
    }

    pub(super) fn published(&mut self, now: Moment, event: EventId, outcome: PublishOutcome) {
        self.publishing -= 1;
        let was_alone = self.suspects.ended(event);
        let Some(in_flight) = self.events.get_mut(&event) else { return };
        let error_code = outcome.error_code().unwrap_or(ErrorCode::NoPublish);
        let problem = |message: Arc<str>| Problem { error_code, message };
        match outcome {
            PublishOutcome::Acked => {
                in_flight.enter(InFlightState::Acked);
                self.acked(event);
                self.out.published(event);
            }
            // Tried again for as long as it takes: a full queue or a leader election is no fault of the event. Another queue of
            // the exchange may have stored it.
            PublishOutcome::Nacked => {
                self.nacked(event);
                self.fail(event, true, problem("the broker nacked it".into()));
            }
            PublishOutcome::Returned { code, text } => {
                let parks = self.event_refused(now, event, true);
                self.refuse(event, parks, problem(format!("unroutable: {code} {text}").into()));
            }
            // A missing exchange or permission is the broker's problem: it would park every event in turn.
            PublishOutcome::ChannelError { code: 403 | 404, text } => {
                self.fail(event, false, problem(text));
            }
            PublishOutcome::ChannelError { code, text } => {
                let parks = self.event_refused(now, event, false);
                self.refuse(event, parks, problem(format!("refused by the broker: {code} {text}").into()));
            }
            PublishOutcome::Unknown { message, suspect: true } => {
                in_flight.alone = true;
                self.fail(event, true, problem(message));
            }
            PublishOutcome::Unknown { message, suspect: false } => match self.lost(event, was_alone) {
                Some(why) => self.park(event, problem(format!("{why}; last: {message}").into())),
                None => self.fail(event, true, problem(message)),
            },
            // Nothing left the process, so that there is nothing to commit; and no output refused it.
            PublishOutcome::Unsent if !self.world.output_up => self.keep_its_place(now, event),
            PublishOutcome::Unsent => self.back_off(now, event),
        }
    }

    fn refuse(&mut self, event: EventId, parks: bool, problem: Problem) {
        if parks {
            self.park(event, problem);
        } else {
            self.fail(event, false, problem);
        }
    }

    fn park(&mut self, event: EventId, problem: Problem) {
        self.no_longer_refused(event);
        if let Some(in_flight) = self.events.get_mut(&event) {
            in_flight.enter(InFlightState::Parking);
            self.out.parked(event, problem);
        }
    }

    /// The failure is committed before the next publish may leave, so that every repeat is on record.
    fn fail(&mut self, event: EventId, uncertain: bool, problem: Problem) {
        if let Some(in_flight) = self.events.get_mut(&event) {
            in_flight.enter(InFlightState::Failing);
            self.out.failed(FailedAttempt { event, uncertain, problem });
        }
    }

    pub(super) fn back_off(&mut self, now: Moment, event: EventId) {
        let Some(in_flight) = self.events.get_mut(&event) else { return };
        let failures = in_flight.tries.failures;
        in_flight.tries.failures = failures.saturating_add(1);
        // The output went away under it, which is no fault of the event: it waits for the output, in its old place. A second
        // time it may be the event that takes the connection down.
        if failures == 0 && !self.world.output_up {
            return self.keep_its_place(now, event);
        }
        let wait = self.wait(now, event);
        self.wait_until(now + wait, event);
    }

    /// An event that the output went away under goes on in its old place. The output as a whole waits the shortest wait, so
    /// that none of those that it brought back is overtaken, or published again without a wait.
    fn keep_its_place(&mut self, now: Moment, event: EventId) {
        self.publish_from = self.publish_from.max(now + RETRY_WAITS.0);
        self.make_ready(event);
    }

    fn make_ready(&mut self, event: EventId) {
        let Some(in_flight) = self.events.get_mut(&event) else { return };
        in_flight.enter(InFlightState::Ready);
        if in_flight.tries.is_suspect() {
            self.suspects.add(event);
        } else {
            self.ready.insert(event);
        }
    }

    pub(super) fn retry(&mut self, event: EventId) {
        if self.events.get(&event).is_some_and(|in_flight| in_flight.state() == InFlightState::BackingOff) {
            self.make_ready(event);
        }
    }

    /// The journal has committed that the event is published or parked.
    pub(super) fn safe(&mut self, event: EventId) {
        let Some(in_flight) = self.events.get_mut(&event) else { return };
        in_flight.enter(InFlightState::Safe);
        in_flight.outgoing = None;
        for handle in in_flight.holds.clone() {
            self.review(handle);
        }
        self.forget_if_done(event);
    }

    /// Lets an event out of the relay's hands when nothing is left to do for it here.
    pub(super) fn forget_if_done(&mut self, event: EventId) {
        let Some(in_flight) = self.events.get(&event) else { return };
        let done = matches!(in_flight.state(), InFlightState::Safe | InFlightState::Stored)
            && in_flight.holds.is_empty();
        if !done {
            return;
        }
        if in_flight.state() == InFlightState::Safe && !in_flight.confirmed {
            let received_at = in_flight.received_at;
            self.polls.unsettled(in_flight.sub_app, received_at);
        }
        self.events.remove(&event);
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
