//! Events that may break the connection, and whose turn it is.

use std::collections::BTreeSet;

use crate::identity::EventId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    ready: BTreeSet<EventId>,
    /// The one that is being published, with nothing else under way.
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

    /// Whether it is the turn of one of them, now or as soon as nothing else is under way.
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

    /// A publish ended; says whether nothing else was under way on purpose.
    pub(super) fn ended(&mut self, event: EventId) -> bool {
        let was_alone = self.publishing == Some(event);
        if was_alone {
            self.publishing = None;
        }
        was_alone
    }
}
