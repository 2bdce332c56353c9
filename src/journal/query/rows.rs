//! Events and deliveries, as a reader of the journal gets them.

use rusqlite::Row;
use serde::Serialize;
use tencent_vod_event::{Fingerprint, MessageId};
use vodrelay_core::clock::WallTime;

use super::EventState;

/// Where the next page begins: after this event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) received_at: WallTime,
    pub(super) id: i64,
}

/// One event, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// Its number in the journal.
    pub id: i64,
    /// The id by which consumers drop repeats.
    pub message_id: String,
    /// The sub-application of its queue.
    pub sub_app_id: u64,
    /// `EventType`.
    pub event_type: Option<String>,
    /// The file that it is about.
    pub file_id: Option<String>,
    /// The task that it is about.
    pub task_id: Option<String>,
    /// Its state.
    pub state: EventState,
    /// Its number among the events of its fingerprint, from 1.
    pub occurrence: u32,
    /// How often the cloud handed it over again.
    pub redeliveries: u32,
    /// How many publishes of it may have left the relay.
    pub attempts: u32,
    /// Whether it may be in the queue more than once.
    pub maybe_duplicate: bool,
    /// The code of its last failed publish, or of its parking.
    pub error_code: Option<String>,
    /// The message that belongs to the code.
    pub message: Option<String>,
    /// Why it was parked last. It stays after a release.
    pub parked_message: Option<String>,
    /// When it arrived first.
    pub received_at: WallTime,
    /// When the broker acked it.
    pub published_at: Option<WallTime>,
    /// When the cloud confirmed it, or when it was proven to have forgotten it.
    pub confirmed_at: Option<WallTime>,
}

impl EventRow {
    /// Where the page after this event begins.
    pub fn cursor(&self) -> Cursor {
        Cursor { received_at: self.received_at, id: self.id }
    }
}

/// One delivery of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryRow {
    /// The cloud's receipt.
    pub handle: Option<String>,
    /// The cloud's id of the answer that brought it.
    pub request_id: String,
    /// When it arrived.
    pub pulled_at: WallTime,
    /// The moment from which it must not be confirmed.
    pub lease_until: WallTime,
    /// confirmed, refused, lost, settled, lapsed or open.
    pub outcome: String,
    /// When the cloud confirmed it.
    pub confirmed_at: Option<WallTime>,
}

/// An event with everything that the journal has about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEvent {
    /// The event.
    pub event: EventRow,
    /// Digest of what it says, in hex.
    pub fingerprint: String,
    /// Its deliveries, oldest first; the newest thousand if there are more.
    pub deliveries: Vec<DeliveryRow>,
    /// The bytes that the cloud sent.
    pub body: Vec<u8>,
}

/// The columns of [`EventRow`].
pub(super) const EVENT: &str =
    "e.id, e.fingerprint, e.occurrence, e.sub_app_id, e.event_type, e.file_id, e.task_id, e.state,
    e.redeliveries, e.attempts, e.uncertain OR (e.state = 'received' AND e.id <= (SELECT coalesce(max(up_to), 0) FROM copied))
        AS maybe_duplicate, CASE WHEN e.reason LIKE '% [VR-___]' THEN substr(e.reason, -7, 6) END AS error_code,
    CASE WHEN e.reason LIKE '% [VR-___]' THEN substr(e.reason, 1, length(e.reason) - 9) ELSE e.reason END AS message,
    coalesce(e.parked_reason, CASE WHEN e.parked THEN e.reason END) AS parked_message,
    e.received_at, e.published_at, e.confirmed_at";

pub(super) fn event_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let occurrence = row.get("occurrence")?;
    Ok(EventRow {
        id: row.get("id")?,
        message_id: MessageId::new(&Fingerprint(row.get("fingerprint")?), occurrence).to_string(),
        sub_app_id: row.get::<_, i64>("sub_app_id")?.cast_unsigned(),
        event_type: row.get("event_type")?,
        file_id: row.get("file_id")?,
        task_id: row.get("task_id")?,
        state: row.get("state")?,
        occurrence,
        redeliveries: row.get("redeliveries")?,
        attempts: row.get("attempts")?,
        maybe_duplicate: row.get("maybe_duplicate")?,
        error_code: row.get("error_code")?,
        message: row.get("message")?,
        parked_message: row.get("parked_message")?,
        received_at: WallTime(row.get("received_at")?),
        published_at: row.get::<_, Option<_>>("published_at")?.map(WallTime),
        confirmed_at: row.get::<_, Option<_>>("confirmed_at")?.map(WallTime),
    })
}

pub(super) fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        handle: row.get("handle")?,
        request_id: row.get("request_id")?,
        pulled_at: WallTime(row.get("pulled_at")?),
        lease_until: WallTime(row.get("lease_until")?),
        outcome: row.get("outcome")?,
        confirmed_at: row.get::<_, Option<_>>("confirmed_at")?.map(WallTime),
    })
}
