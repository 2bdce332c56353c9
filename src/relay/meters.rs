//! The counters and histograms of the relay's work. Without a recorder they count nothing.

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::write::LetGo;

/// Handles that are looked up once: a lookup for each event would cost more than the count. Rare ones are
/// looked up below.
pub(super) struct Meters {
    received: Counter,
    redelivered: Counter,
    published: HashMap<&'static str, Counter>,
    confirmed: Counter,
    pull_to_confirm: Histogram,
    lease_remaining: Histogram,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            received: counter!("vodrelay_events_received_total"),
            redelivered: counter!("vodrelay_redelivered_total"),
            published: HashMap::new(),
            confirmed: counter!("vodrelay_confirmed_total", "outcome" => "confirmed"),
            pull_to_confirm: histogram!("vodrelay_pull_to_confirm_seconds"),
            lease_remaining: histogram!("vodrelay_lease_remaining_seconds"),
        }
    }

    pub(super) fn recorded(&self, new: u64, redelivered: u64) {
        self.received.increment(new);
        self.redelivered.increment(redelivered);
    }

    pub(super) fn published(&mut self, outcome: &'static str, events: usize) {
        let new = || counter!("vodrelay_published_total", "outcome" => outcome);
        self.published.entry(outcome).or_insert_with(new).increment(events as u64);
    }

    pub(super) fn confirmed(&self, pull_to_confirm: Duration, lease_left: Duration) {
        self.confirmed.increment(1);
        self.pull_to_confirm.record(pull_to_confirm);
        self.lease_remaining.record(lease_left);
    }
}

pub(super) fn let_go(deliveries: u64, why: LetGo) {
    let outcome = match why {
        LetGo::Refused => "refused",
        LetGo::Lost => "lost",
    };
    counter!("vodrelay_confirmed_total", "outcome" => outcome).increment(deliveries);
}

pub(super) fn parked(error_code: ErrorCode) {
    counter!("vodrelay_parked_total", "error_code" => error_code.as_str()).increment(1);
}
