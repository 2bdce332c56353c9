//! The memory of a queue, with which a test compares both ends afterwards.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::queue::EventNo;

/// The result of one handle of a confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfirmVerdict {
    /// It deleted its event.
    Confirmed,
    /// It had deleted its event already, and its window is not over: harmless.
    Repeated,
    /// It was never given out, or its event is gone.
    Unknown,
    /// Its event was delivered again later, under another handle.
    Superseded,
    /// Its window is over.
    Late,
    /// A fault makes it fail every request that contains it.
    Poisoned,
    /// It was good, and refused with a bad one.
    RefusedWithOthers,
}

impl ConfirmVerdict {
    /// The cause, in words for an error message.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Confirmed | Self::Repeated => "it is confirmed",
            Self::Unknown => "no event has this handle",
            Self::Superseded => "the event was delivered again under another handle",
            Self::Late => "its time to be confirmed is over",
            Self::Poisoned => "a fault forbids it",
            Self::RefusedWithOthers => "another handle of the call is bad",
        }
    }
}

/// One delivery of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryRecord {
    /// The handle; `None` when a fault removed it.
    #[serde(serialize_with = "optional_text")]
    pub handle: Option<Arc<str>>,
    /// When, in milliseconds of the queue's clock.
    pub at: u64,
    /// The moment from which the handle is late and the event visible again.
    pub until: u64,
}

/// One event, from its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRecord {
    /// Its number within its queue.
    pub number: EventNo,
    /// Whose queue.
    pub sub_app_id: u64,
    /// Its JSON without a handle, unchanged.
    #[serde(serialize_with = "text")]
    pub json: Arc<str>,
    /// When it was put.
    pub put_at: u64,
    /// Its deliveries, in order.
    pub deliveries: Vec<DeliveryRecord>,
    /// When it was confirmed.
    pub confirmed_at: Option<u64>,
    /// When it was deleted after its retention.
    pub expired_at: Option<u64>,
}

/// One handle of one confirm, as it was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfirmRecord {
    /// Whose queue.
    pub sub_app_id: u64,
    /// The number of the `ConfirmEvents` request to this queue, from 1.
    pub call: u64,
    /// The handle.
    #[serde(serialize_with = "text")]
    pub handle: Arc<str>,
    /// When.
    pub at: u64,
    /// The result.
    pub verdict: ConfirmVerdict,
    /// The events that it deleted.
    pub events: Vec<EventNo>,
}

/// The memory of one queue, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// By queue, in the order of their numbers.
    pub events: Vec<EventRecord>,
    /// By queue, in the order of their arrival.
    pub confirms: Vec<ConfirmRecord>,
}

impl Ledger {
    /// The unconfirmed events.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &EventRecord> {
        self.events.iter().filter(|event| event.confirmed_at.is_none())
    }

    /// The handles that were received with this verdict.
    pub fn with_verdict(&self, verdict: ConfirmVerdict) -> impl Iterator<Item = &ConfirmRecord> {
        self.confirms.iter().filter(move |confirm| confirm.verdict == verdict)
    }

    /// Calls of `ConfirmEvents` that held some handle twice, by sub-application and call.
    pub fn calls_with_a_handle_twice(&self) -> Vec<(u64, u64)> {
        let mut seen = HashSet::new();
        let twice = self.confirms.iter().filter(|c| !seen.insert((c.sub_app_id, c.call, c.handle.clone())));
        twice.map(|c| (c.sub_app_id, c.call)).collect()
    }
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn optional_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.serialize_some(text.as_ref()),
        None => serializer.serialize_none(),
    }
}
