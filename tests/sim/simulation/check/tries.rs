//! What the publishes of an event met in one process: how long it waits between them, why it is given up, and what is
//! published with nothing beside it.

use vodrelay::identity::EventId;
use vodrelay::outcome::PublishOutcome;

use super::{Checker, Guarantee};

/// An event that lost its answer so often in a row is published with nothing else under way.
const LOSSES_BEFORE_ALONE: u32 = 3;
/// After so many further losses it may be given up.
const LOSSES_TO_PARK: u32 = 6;
/// An event that is returned or refused for so long may be given up in any case.
const REFUSED_MAX_MS: u64 = 600_000;
/// So many waits between nacks in a row are never all short together: each is drawn from a span twice as long as the one before.
const NACK_WAITS: usize = 9;
const NACK_WAITS_MS: u64 = 3_200;

/// What the publishes of one event met.
#[derive(Debug, Default)]
pub(super) struct Tries {
    refusals: u32,
    refused_since: Option<u64>,
    losses: u32,
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
            PublishOutcome::Unknown { .. } => self.losses += 1,
            PublishOutcome::Returned { .. } | PublishOutcome::ChannelError { .. } => {
                self.losses = 0;
                self.refusals += 1;
                self.refused_since.get_or_insert(now);
            }
            PublishOutcome::Nacked | PublishOutcome::Acked => self.losses = 0,
        }
        if *outcome == PublishOutcome::Nacked {
            self.nacked_at = Some(now);
        } else {
            self.waits.clear();
        }
    }
}

impl Checker {
    /// A publish leaves; `others` are under way beside it.
    pub(super) fn tried(&mut self, relay: usize, event: EventId, alone: bool, others: usize) {
        let now = self.now;
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        let tries = &mut message.tries;
        if let Some(at) = tries.nacked_at.take() {
            tries.waits.push(now - at);
        }
        let newest = &tries.waits[tries.waits.len().saturating_sub(NACK_WAITS)..];
        let in_all: u64 = newest.iter().sum();
        let hurries = newest.len() == NACK_WAITS && in_all <= NACK_WAITS_MS;
        let (suspect, losses) = (tries.suspect, tries.losses);
        if hurries {
            let what = format!(
                "event {} of relay {relay} waited {in_all} ms in all between {NACK_WAITS} nacks and more",
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

    /// An event is given up.
    pub(super) fn given_up(&mut self, relay: usize, event: EventId) {
        let attempts = self.plan.publish_attempts;
        let Some(message) = self.messages.get(&(relay, event)) else { return };
        let Tries { refusals, refused_since, losses, .. } = message.tries;
        let for_long = refused_since.is_some_and(|since| self.now >= since + REFUSED_MAX_MS);
        if refusals < attempts && !for_long && losses < LOSSES_TO_PARK {
            let what = format!(
                "event {} of relay {relay} is given up after {refusals} refusals of {attempts} and {losses} losses in a row",
                event.0
            );
            self.violated(Guarantee::NothingLost, what);
        }
    }
}
