//! The broker: it stores, nacks, returns, refuses, or is not heard of.

use vodrelay_core::write::FailedAttempt;

use super::super::check::Publish;
use super::*;

impl World {
    pub(super) fn publish_leaves(
        &mut self,
        relay: usize,
        event: EventId,
        outgoing: Arc<Outgoing>,
        alone: bool,
    ) {
        let host = &self.relays[relay];
        if !host.linked {
            let trip = self.rng.u64(0..5);
            self.within(relay, trip, Within::Unsent { event });
            return;
        }
        if self.now < host.blocked_until {
            let wait = host.blocked_until - self.now;
            self.within(relay, wait, Within::PublishLeaves { event, outgoing, alone });
            return;
        }
        let others = host.process.as_ref().map_or(0, |process| process.flights.len());
        let publish = Publish { event, outgoing: &outgoing, alone, others };
        self.checker.publish_left(relay, &publish, host.on_disk());
        say!(self, "relay {relay} publishes event {} occurrence {}", event.0, outgoing.occurrence);
        self.next_flight += 1;
        let flight = self.next_flight;
        let body = String::from_utf8_lossy(&outgoing.event.body);
        let unroutable = body.contains(UNROUTABLE) && !self.mended || self.now < self.unbound_until;
        let (refused, breaks) = (body.contains(REFUSED), body.contains(BREAKS));
        self.process(relay).flights.insert(flight, Flight { event, outgoing, alone });
        let there = self.slow(Fault::PublishSlow);
        let back = there + self.trip();
        if breaks {
            let life = self.relays[relay].life;
            self.after(there, Happening::Break { flight, relay, life });
            return;
        }
        if self.sabotage == Some(Sabotage::AckedWhenSent) {
            self.give(relay, Input::Published { event, outcome: PublishOutcome::Acked });
        }
        let lost = || PublishOutcome::Unknown { message: "no answer".into(), suspect: false };
        let returned = || PublishOutcome::Returned { code: 312, text: "NO_ROUTE".into() };
        let mut stores = None;
        let (outcome, takes) = if refused {
            (PublishOutcome::ChannelError { code: 406, text: "PRECONDITION_FAILED".into() }, back)
        } else if unroutable || self.strikes(Fault::Return) {
            (returned(), back)
        } else if self.strikes(Fault::Nack) {
            // Of two queues on the exchange, the one is full and nacks for both, and the other has stored it.
            if self.plan.second_queue {
                stores = Some(there);
            }
            (PublishOutcome::Nacked, back)
        } else if self.strikes(Fault::UnknownLost) {
            (lost(), back + 1_000)
        } else if self.strikes(Fault::UnknownStored) {
            stores = Some(there);
            (lost(), back + 1_000)
        } else if self.strikes(Fault::UnknownThenStored) {
            let later = self.rng.u64(1_000..20_000);
            stores = Some(back + later);
            (lost(), back)
        } else {
            stores = Some(there);
            (PublishOutcome::Acked, back)
        };
        if let Some(after) = stores {
            self.after(after, Happening::Store { flight, relay, event });
        }
        self.within(relay, takes, Within::PublishBack { flight, outcome });
    }

    pub(super) fn store(&mut self, flight: u64, relay: usize, event: EventId) {
        if self.cancelled.remove(&flight) {
            return;
        }
        say!(self, "broker stores event {} of relay {relay}", event.0);
        self.checker.stored(relay, event, self.relays[relay].on_disk());
        let under_way = self.relays[relay].process.as_ref().is_some_and(|p| p.flights.contains_key(&flight));
        if under_way && self.strikes(Fault::CrashAfterStore) {
            self.crash(relay);
        }
    }

    pub(super) fn publish_back(&mut self, relay: usize, flight: u64, outcome: PublishOutcome) {
        let Some(Flight { event, outgoing, alone }) = self.process(relay).flights.remove(&flight) else {
            return;
        };
        say!(self, "broker on event {} of relay {relay}: {outcome:?}", event.0);
        self.checker.publish_answered(relay, event, &outcome, true);
        if matches!(outcome, PublishOutcome::ChannelError { .. }) && !alone {
            // The channel is closed: its other publishes have no answer, and one of them may be the next culprit.
            let siblings: Vec<u64> =
                self.process(relay).flights.iter().filter(|(_, f)| !f.alone).map(|(id, _)| *id).collect();
            for sibling in siblings {
                if self.rng.bool() {
                    self.lose(relay, sibling, true);
                }
            }
        }
        self.process(relay).ended.push(Ended::Publish(event, outcome.clone()));
        match self.sabotage {
            Some(Sabotage::AckedWhenSent) => return,
            Some(Sabotage::NoPublishWait) if outcome == PublishOutcome::Nacked => {
                self.within(relay, 1, Within::PublishLeaves { event, outgoing, alone });
                return;
            }
            Some(Sabotage::WaitStopsGrowing) if outcome == PublishOutcome::Nacked => {
                let failed = FailedAttempt { event, uncertain: true, problem: problem("nacked") };
                self.relays[relay].journal.attempts(&[failed]);
                self.within(relay, 250, Within::PublishLeaves { event, outgoing, alone });
                return;
            }
            Some(Sabotage::RefusedInHaste) if matches!(outcome, PublishOutcome::Returned { .. }) => {
                let tried = self.relays[relay].journal.row(event).map_or(0, |row| row.attempts);
                if tried < self.plan.publish_attempts {
                    let failed = FailedAttempt { event, uncertain: false, problem: problem("returned") };
                    self.relays[relay].journal.attempts(&[failed]);
                    self.within(relay, 250, Within::PublishLeaves { event, outgoing, alone });
                    return;
                }
            }
            _ => {}
        }
        let outcome = self.sabotage.map_or(outcome.clone(), |bug| bug.outcome(outcome));
        self.give(relay, Input::Published { event, outcome });
    }

    /// The connection breaks under this publish, if it is still under way, and is there again a moment later.
    pub(super) fn break_under(&mut self, flight: u64, relay: usize, life: u64) {
        let host = &self.relays[relay];
        let under_way = host.process.as_ref().is_some_and(|process| process.flights.contains_key(&flight));
        if host.life != life || !under_way {
            return;
        }
        say!(self, "the connection of relay {relay} breaks");
        self.disconnect(relay);
        let lasts = self.rng.u64(50..1_000);
        self.after(lasts, Happening::OutputUp { relay, life });
    }

    /// A publish loses its answer; what has not arrived yet may arrive all the same, or never.
    pub(super) fn lose(&mut self, relay: usize, flight: u64, suspect: bool) {
        if self.rng.bool() {
            self.cancelled.insert(flight);
        }
        let reason: Arc<str> = "the channel was closed".into();
        self.publish_back(relay, flight, PublishOutcome::Unknown { message: reason, suspect });
    }
}
