//! From the journal's record to the broker's ack, and the consequences of each other outcome.

use std::sync::Arc;

use super::Events;
use super::in_flight::{InFlight, InFlightState};
use super::refusals::RETRY_WAITS;
use crate::clock::Moment;
use crate::error_code::ErrorCode;
use crate::identity::EventId;
use crate::machine::outbox::Outbox;
use crate::machine::types::Effect;
use crate::machine::world::World;
use crate::outcome::{Problem, PublishOutcome};
use crate::write::FailedAttempt;

/// The most publishes without an outcome. Enough to keep every lane of the output busy with full batches.
const PUBLISHING_MAX: usize = 256;

impl Events {
    /// Publishes ready events, as far as the output takes them.
    pub(in crate::machine) fn publish(&mut self, world: &World, out: &mut Outbox) {
        let any_ready = !self.ready.is_empty() || self.suspects.any_ready();
        if world.now < self.publish_from && world.output_up && any_ready {
            return out.wake(self.publish_from);
        }
        while world.output_up && self.publishing < PUBLISHING_MAX && !self.suspects.occupies() {
            let event = if !self.suspects.is_next(!self.ready.is_empty()) {
                self.ready.pop_first()
            } else if self.publishing == 0 {
                self.suspects.take()
            } else {
                // Earlier publishes are answered first, so a loss is that of the suspect alone.
                return;
            };
            let Some(event) = event else { break };
            let in_flight =
                self.in_hand.get_mut(&event).filter(|in_flight| in_flight.state() == InFlightState::Ready);
            let Some((in_flight, outgoing)) =
                in_flight.and_then(|c| c.outgoing.clone().map(|outgoing| (c, outgoing)))
            else {
                self.suspects.ended(event);
                continue;
            };
            in_flight.enter(InFlightState::Publishing);
            self.publishing += 1;
            let alone = in_flight.alone || self.suspects.occupies();
            out.push(Effect::Publish { event, outgoing, alone });
        }
        if !self.suspects.occupies() {
            self.suspects.others_went();
        }
    }

    /// A publish ended.
    pub(in crate::machine) fn publish_ended(
        &mut self,
        world: &World,
        rng: &mut fastrand::Rng,
        out: &mut Outbox,
        event: EventId,
        outcome: PublishOutcome,
    ) {
        self.publishing -= 1;
        let was_alone = self.suspects.ended(event);
        let Some(in_flight) = self.in_hand.get_mut(&event) else { return };
        let error_code = outcome.error_code().unwrap_or(ErrorCode::NoPublish);
        let problem = |message: Arc<str>| Problem { error_code, message };
        match outcome {
            PublishOutcome::Acked => {
                in_flight.enter(InFlightState::Acked);
                self.acked(event);
                out.published(event);
            }
            // Repeated without end: a full queue or a leader election is not the event's fault. Another queue
            // of the exchange may have stored it.
            PublishOutcome::Nacked => {
                self.nacked(event);
                self.fail(out, event, true, problem("the broker nacked it".into()));
            }
            PublishOutcome::Returned { code, text } => {
                let parks = self.event_refused(world, event, true);
                self.refuse(out, event, parks, problem(format!("unroutable: {code} {text}").into()));
            }
            // A missing exchange or permission is the broker's problem: it would park every event in turn.
            PublishOutcome::ChannelError { code: 403 | 404, text } => {
                self.fail(out, event, false, problem(text));
            }
            PublishOutcome::ChannelError { code, text } => {
                let parks = self.event_refused(world, event, false);
                self.refuse(
                    out,
                    event,
                    parks,
                    problem(format!("refused by the broker: {code} {text}").into()),
                );
            }
            PublishOutcome::Unknown { message, suspect: true } => {
                in_flight.alone = true;
                self.fail(out, event, true, problem(message));
            }
            PublishOutcome::Unknown { message, suspect: false } => match self.lost(event, was_alone) {
                Some(why) => self.park(out, event, problem(format!("{why}; last: {message}").into())),
                None => self.fail(out, event, true, problem(message)),
            },
            // Nothing left the process, so there is nothing to commit; and no output refused it.
            PublishOutcome::Unsent if !world.output_up => self.keep_its_place(world.now, event),
            PublishOutcome::Unsent => self.back_off(world, rng, event),
        }
    }

    fn refuse(&mut self, out: &mut Outbox, event: EventId, parks: bool, problem: Problem) {
        if parks {
            self.park(out, event, problem);
        } else {
            self.fail(out, event, false, problem);
        }
    }

    fn park(&mut self, out: &mut Outbox, event: EventId, problem: Problem) {
        self.no_longer_refused(event);
        if let Some(in_flight) = self.in_hand.get_mut(&event) {
            in_flight.enter(InFlightState::Parking);
            out.parked(event, problem);
        }
    }

    /// The failure is committed before the next publish may leave, so every repeat is on record.
    fn fail(&mut self, out: &mut Outbox, event: EventId, uncertain: bool, problem: Problem) {
        if let Some(in_flight) = self.in_hand.get_mut(&event) {
            in_flight.enter(InFlightState::Failing);
            out.failed(FailedAttempt { event, uncertain, problem });
        }
    }

    /// The failure of a publish is committed, or the publish never left: the event waits for the next one.
    pub(in crate::machine) fn back_off(&mut self, world: &World, rng: &mut fastrand::Rng, event: EventId) {
        let Some(in_flight) = self.in_hand.get_mut(&event) else { return };
        let first = in_flight.tries.none_failed();
        in_flight.tries.failed();
        // The output went away, which is not the event's fault: it waits for the output in its old place. The
        // second time, the event may be what breaks the connection.
        if first && !world.output_up {
            return self.keep_its_place(world.now, event);
        }
        let wait = self.wait(world, rng, event);
        self.wait_until(world.now + wait, event);
    }

    /// An event that lost its output continues in its old place. The whole output waits the shortest wait. So
    /// no returned event is overtaken, or published again without a wait.
    fn keep_its_place(&mut self, now: Moment, event: EventId) {
        self.publish_from = self.publish_from.max(now + RETRY_WAITS.0);
        self.make_ready(event);
    }

    fn make_ready(&mut self, event: EventId) {
        let Some(in_flight) = self.in_hand.get_mut(&event) else { return };
        in_flight.enter(InFlightState::Ready);
        if in_flight.tries.is_suspect() {
            self.suspects.add(event);
        } else {
            self.ready.insert(event);
        }
    }

    /// Events whose wait is over are ready again.
    pub(in crate::machine) fn retry_due(&mut self, now: Moment) {
        while let Some((_, event)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.pop_first();
            let waits = |in_flight: &InFlight| in_flight.state() == InFlightState::BackingOff;
            if self.in_hand.get(&event).is_some_and(waits) {
                self.make_ready(event);
            }
        }
    }
}
