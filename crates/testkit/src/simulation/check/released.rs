//! What an operator releases, and what the journal may mark as a possible duplicate.

use vodrelay_core::identity::EventId;

use super::super::journal::{Journal, Row};
use super::{Checker, Content, Guarantee, Message};

impl Checker {
    /// A parked event waits to be published again. At the end of a run the broker is mended before, but for what it refuses.
    pub(crate) fn released(&mut self, relay: usize, event: EventId, at_the_end: bool) {
        let Some(message) = self.messages.get_mut(&(relay, event)) else { return };
        message.left = 0;
        message.released_at_end |= at_the_end;
        if message.placed && message.copies == 0 {
            message.placed = false;
            self.contents[message.content].placed -= 1;
        }
    }

    /// A process opens a journal: what it holds as tried and without an end may be at the broker.
    pub(crate) fn opened(&mut self, relay: usize, journal: &Journal) {
        for (at, row) in journal.rows.iter().enumerate() {
            let id = EventId(i64::try_from(at).expect("few rows") + 1);
            if !row.published
                && !row.parked
                && row.attempts > 0
                && let Some(message) = self.messages.get_mut(&(relay, id))
            {
                message.doubted = true;
            }
        }
    }

    /// What is asked of a row at the end, where something was released or may be marked.
    pub(super) fn released_well(&mut self, relay: usize, id: EventId, row: &Row) {
        let Message { content, released_at_end, doubted, .. } = self.messages[&(relay, id)];
        let Content { refused, breaks, .. } = self.contents[content];
        if released_at_end && row.parked && !refused && !breaks {
            let what = format!(
                "event {} of relay {relay} was released, and is parked for {:?} again",
                id.0, row.parked_for
            );
            self.violated(Guarantee::NothingLost, what);
        }
        if row.uncertain && !doubted && row.doubt.is_none() && !self.copied.contains(&relay) {
            let what =
                format!("event {} of relay {relay} is marked as a possible duplicate for no reason", id.0);
            self.violated(Guarantee::RepeatsNamed, what);
        }
    }
}
