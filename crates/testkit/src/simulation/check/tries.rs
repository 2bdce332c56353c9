//! What the publishes of an event met in one process: how long it waits between them, why it is given up, and what is
//! published with nothing beside it.

use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::EventId;
use vodrelay_core::outcome::PublishOutcome;

use super::{Checker, Guarantee};
use crate::simulation::plan::{Fault, Theme};
use crate::simulation::world::BEGIN;

/// An event that lost its answer so often in a row is published with nothing else under way.
const LOSSES_BEFORE_ALONE: u32 = 3;
/// After so many losses in a row, of them so many with nothing else under way, it may be given up.
const LOSSES_TO_PARK: u32 = 6;
const LOSSES_ALONE_TO_PARK: u32 = 3;
/// An event that is returned or refused for so long may be given up in any case.
const REFUSED_MAX_MS: u64 = 600_000;
/// After that it is published once more at the most, and within this.
const REFUSED_SLACK_MS: u64 = 5_000;
/// The shortest waits between refusals: the first, and by how much each is longer than the one before; while the relay is full
/// of such events, and otherwise.
const CROWDED_WAITS_MS: (u64, u64) = (200, 2);
const REFUSAL_WAITS_MS: (u64, u64) = (400, 5);
/// The exchange can be without a queue for so long, and nothing is given up.
const UNBOUND_PARKS_NOTHING_MS: u64 = 60_000;
/// So many waits between nacks in a row are never all short together: each is drawn from a span twice as long as the one before.
const NACK_WAITS: usize = 9;
const NACK_WAITS_MS: u64 = 3_200;

/// What the publishes of one event met.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Refusals while others got through.
    refusals: u32,
    refused_since: Option<u64>,
    losses: u32,
    /// Those of them with nothing else under way, and whether the newest publish is like that.
    losses_alone: u32,
    alone: bool,
    /// How many acks there had been at the first of them.
    acks_before: u64,
    /// What the relay learnt last.
    last: Option<ErrorCode>,
    /// Whether a batch with it was refused, so that it goes in a batch of its own.
    suspect: bool,
    nacked_at: Option<u64>,
    /// The waits after nacks in a row.
    waits: Vec<u64>,
}

impl Tries {
    pub(super) fn answered(&mut self, now: u64, outcome: &PublishOutcome) {
        self.nacked_at = None;
        match outcome {
            PublishOutcome::Unsent => return,
            PublishOutcome::Unknown { suspect: true, .. } => self.suspect = true,
            PublishOutcome::Unknown { .. } => {
                self.losses += 1;
                self.losses_alone += u32::from(self.alone);
            }
            _ => (self.losses, self.losses_alone) = (0, 0),
        }
        if *outcome == PublishOutcome::Nacked {
            self.nacked_at = Some(now);
        } else {
            self.waits.clear();
        }
    }

    /// The relay looks at it; `acks` is how many it has learnt of.
    pub(super) fn learnt(&mut self, now: u64, outcome: &PublishOutcome, unroutable: bool, acks: u64) {
        self.last = outcome.error_code().or(self.last);
        match outcome {
            PublishOutcome::Returned { .. } | PublishOutcome::ChannelError { .. } => {
                let counts = !(unroutable && matches!(outcome, PublishOutcome::Returned { .. }));
                self.refusals += u32::from(counts);
                self.refused_since.get_or_insert(now);
            }
            PublishOutcome::Unknown { suspect: false, .. } if self.losses <= 1 => self.acks_before = acks,
            _ => {}
        }
    }
}

impl Checker {
    /// A publish leaves; `others` are under way beside it.
    pub(super) fn tried(&mut self, relay: usize, event: EventId, alone: bool, others: usize) {
        let now = self.now;
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        let tries = &mut message.tries;
        tries.alone = others == 0;
        if let Some(at) = tries.nacked_at.take() {
            tries.waits.push(now - at);
        }
        let newest = &tries.waits[tries.waits.len().saturating_sub(NACK_WAITS)..];
        let in_all: u64 = newest.iter().sum();
        let hurries = newest.len() == NACK_WAITS && in_all <= NACK_WAITS_MS;
        let (suspect, losses, refused_since) = (tries.suspect, tries.losses, tries.refused_since);
        if hurries {
            let what = format!(
                "event {} of relay {relay} waited {in_all} ms in all between {NACK_WAITS} nacks and more",
                event.0
            );
            self.violated(Guarantee::Bounded, what);
        }
        let roomy = matches!(self.plan.theme, Theme::BadNeighbours | Theme::Unbound);
        if let Some(ms) = refused_since.map(|since| now - since).filter(|_| roomy)
            && ms > REFUSED_MAX_MS + REFUSED_SLACK_MS
        {
            let what = format!(
                "event {} of relay {relay} was refused first {ms} ms ago, and is published again",
                event.0
            );
            self.violated(Guarantee::Bounded, what);
        }
        if suspect && !alone {
            let what = format!(
                "event {} of relay {relay}, whose batch was refused, is published with others again",
                event.0
            );
            self.violated(Guarantee::NobodyWaits, what);
        }
        if losses >= LOSSES_BEFORE_ALONE && others > 0 {
            let what = format!(
                "event {} of relay {relay} lost {losses} answers in a row, and is published beside {others} others",
                event.0
            );
            self.violated(Guarantee::NobodyWaits, what);
        }
    }

    /// An event is given up, for this reason.
    pub(super) fn given_up(&mut self, relay: usize, event: EventId, reason: ErrorCode) {
        let attempts = self.plan.publish_attempts;
        let routing = &self.routings[relay];
        let (turned_at, acks) = (routing.turned_at(), routing.acks());
        let Some(message) = self.messages.get(&(relay, event)) else { return };
        let Tries { refusals, refused_since, losses, losses_alone, acks_before, last, .. } = message.tries;
        let breaks = self.contents[message.content].breaks;
        let refused_for = refused_since.map_or(0, |since| self.now - since);
        let for_long = refused_for >= REFUSED_MAX_MS;
        let one = format!("event {} of relay {relay}", event.0);
        if last != Some(reason) {
            let what = format!("{one} is given up for {reason}, and met {last:?} last");
            self.violated(Guarantee::NothingLost, what);
        }
        let what = if reason == ErrorCode::PublishUnanswered {
            let isolated = losses >= LOSSES_TO_PARK && losses_alone >= LOSSES_ALONE_TO_PARK;
            let suspicious = breaks || self.plan.theme == Theme::Swarm;
            (!isolated || acks <= acks_before || !suspicious).then(|| {
                format!(
                    "{one} is given up after {losses} losses in a row, {losses_alone} with nothing beside it, and {} acks",
                    acks - acks_before
                )
            })
        } else if refusals < attempts && !for_long {
            Some(format!("{one} is given up after {refusals} refusals of {attempts} within {refused_for} ms"))
        } else {
            // Events wait less for a while when the broker begins to route something, or nothing any more.
            let turned = refused_since.is_some_and(|since| turned_at >= since);
            let least = self.least_ms(attempts);
            (!for_long && !turned && refused_for < least)
                .then(|| format!("{one} is given up within {refused_for} ms, {least} ms are the least"))
        };
        if let Some(what) = what {
            self.violated(Guarantee::NothingLost, what);
        }
        let (from, _) = self.plan.unbound_ms;
        if self.plan.theme == Theme::Unbound && self.now < BEGIN + from + UNBOUND_PARKS_NOTHING_MS {
            let what = format!("{one} is given up soon after the exchange lost its queue");
            self.violated(Guarantee::NothingLost, what);
        }
    }

    /// The least time from the first of so many refusals to the last.
    fn least_ms(&self, attempts: u32) -> u64 {
        // When the connection is lost under an event, its first wait is that for the connection.
        let roomy = matches!(self.plan.theme, Theme::BadNeighbours | Theme::Unbound)
            && self.plan.rate(Fault::EventBreaks) == 0;
        let (first, factor) = if roomy { REFUSAL_WAITS_MS } else { CROWDED_WAITS_MS };
        (1..attempts).map(|earlier| first * factor.pow(earlier - 1)).sum()
    }
}
