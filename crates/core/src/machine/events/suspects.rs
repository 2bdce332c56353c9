//! Events that may break the connection, and their turn.

use std::collections::BTreeSet;

use crate::identity::EventId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    ready: BTreeSet<EventId>,
    /// The one that is being published alone.
    publishing: Option<EventId>,
    /// Whether the others go before the next of them.
    others_first: bool,
}

impl Suspects {
    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn add(&mut self, event: EventId) {
        self.ready.insert(event);
    }

    /// While one of them is being published, nothing else is.
    pub(super) fn occupies(&self) -> bool {
        self.publishing.is_some()
    }

    /// Whether one of them is next, now or when nothing else is in flight.
    pub(super) fn is_next(&self, others_ready: bool) -> bool {
        self.any_ready() && !(self.others_first && others_ready)
    }

    pub(super) fn take(&mut self) -> Option<EventId> {
        let event = self.ready.pop_first()?;
        self.publishing = Some(event);
        self.others_first = true;
        Some(event)
    }

    /// The others had their turn.
    pub(super) fn others_went(&mut self) {
        self.others_first = false;
    }

    /// A publish ended. Returns whether it was alone on purpose.
    pub(super) fn ended(&mut self, event: EventId) -> bool {
        let was_alone = self.publishing == Some(event);
        if was_alone {
            self.publishing = None;
        }
        was_alone
    }
}
