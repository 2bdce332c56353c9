//! An event as it is published.

use std::sync::Arc;

use tencent_vod_event::{Event, MessageId};

use crate::clock::WallTime;

/// An event as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The id by which consumers drop repeats; the same for every publish of one occurrence.
    pub message_id: MessageId,
    /// The event of the published delivery.
    pub event: Arc<Event>,
    /// The number among the events of its fingerprint, from 1.
    pub occurrence: u32,
    /// Whether the cloud had handed it over before.
    pub redelivered: bool,
    /// When the answer with this delivery arrived.
    pub pulled_at: WallTime,
    /// The cloud's id of the request that brought it.
    pub request_id: Arc<str>,
}

impl Outgoing {
    /// The `occurrence`-th event of its fingerprint, with its message id.
    pub fn new(
        event: Arc<Event>,
        occurrence: u32,
        redelivered: bool,
        pulled_at: WallTime,
        request_id: Arc<str>,
    ) -> Self {
        let message_id = MessageId::new(&event.fingerprint, occurrence);
        Self { message_id, event, occurrence, redelivered, pulled_at, request_id }
    }
}
