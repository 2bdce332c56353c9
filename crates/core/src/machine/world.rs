//! Facts that every owner may read, and only [`super::Core`] changes.

use super::types::Settings;
use crate::clock::Moment;

/// The settings and a few facts. The owners get it behind a shared reference.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    /// The moment of the step.
    pub(super) now: Moment,
    /// Whether the output takes events.
    pub(super) output_up: bool,
    /// Whether the journal commits.
    pub(super) journal_up: bool,
    /// Whether nothing new is begun.
    pub(super) draining: bool,
}

impl World {
    pub(super) fn new(settings: Settings, now: Moment) -> Self {
        Self { settings, now, output_up: false, journal_up: true, draining: false }
    }
}
