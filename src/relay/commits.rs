//! The relay's writes on their way to the journal. They are gathered for a moment to share a commit, and keep
//! their order.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use vodrelay_core::clock::WallTime;
use vodrelay_core::write::{Write, Written};

use super::RelayError;
use super::commit_delay::CommitDelay;
use crate::clock::Now as _;
use crate::journal::{Closed, Journal};

pub(super) struct Commits {
    journal: Journal,
    written: mpsc::UnboundedSender<Written>,
    delay: CommitDelay,
    gathered: Vec<(Write, WallTime)>,
    /// The arrival of the first of these.
    since: Instant,
    /// Writes that the journal has not answered yet.
    unanswered: usize,
}

impl Commits {
    pub(super) fn new(
        journal: Journal,
        written: mpsc::UnboundedSender<Written>,
        max_in_flight: usize,
    ) -> Self {
        let delay = CommitDelay::new(max_in_flight);
        Self { journal, written, delay, gathered: Vec::new(), since: Instant::now(), unanswered: 0 }
    }

    pub(super) fn configure(&mut self, max_in_flight: usize) {
        self.delay.configure(max_in_flight);
    }

    pub(super) fn add(&mut self, write: Write) {
        if self.gathered.is_empty() {
            self.since = Instant::now();
        }
        self.delay.add(write.urgency());
        self.gathered.push((write, WallTime::now()));
    }

    /// The time until the gathered writes are due; `None` without any.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let left = || (self.since + self.delay.get()).saturating_duration_since(Instant::now());
        (!self.gathered.is_empty()).then(left)
    }

    /// Sends the writes that are due. With `nothing_else_comes` these are all, unless an answer of the
    /// journal may bring more.
    pub(super) fn send_due(&mut self, nothing_else_comes: bool) -> Result<(), RelayError> {
        let waits_in_vain = nothing_else_comes && self.unanswered == 0 && !self.gathered.is_empty();
        if !waits_in_vain && self.due_in().is_none_or(|left| !left.is_zero()) {
            return Ok(());
        }
        self.unanswered += self.gathered.len();
        self.delay.reset();
        self.journal.write(self.gathered.drain(..), &self.written).map_err(|Closed| RelayError::Journal)
    }

    /// The journal answered this many writes.
    pub(super) fn answered(&mut self, writes: usize) {
        self.unanswered -= writes;
    }
}
