//! The SQL of the states of events and deliveries.
//!
//! Events that came together usually change together: one statement is enough for neighbours. `OR ROLLBACK`,
//! because a statement for several rows that could fail half-way would keep a copy of each page. A time takes
//! its bytes from those that the row reserves (`room`), so the row keeps its place.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};
use tencent_vod_event::{Event, EventHandle, Fingerprint, SubAppId};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::identity::{DeliveryId, EventId};
use vodrelay_core::outcome::Problem;
use vodrelay_core::outgoing::Outgoing;
use vodrelay_core::write::{ConfirmedDelivery, FailedAttempt, LetGo, Loaded};

use super::event_state::EventState;
use super::record::latest_time;
use super::store::Store;

/// Sub-applications as a statement takes them.
pub(super) fn list(sub_apps: &[SubAppId]) -> String {
    let ids: Vec<String> = sub_apps.iter().map(|id| id.0.cast_signed().to_string()).collect();
    format!("[{}]", ids.join(","))
}

/// Why an event that a copy brought is listed as a possible duplicate.
const IN_A_COPY: &str =
    "the journal is a copy, and the event may have been published after the copy was made";

impl Store {
    pub(super) fn failed(&self, attempts: &[FailedAttempt]) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(
            "UPDATE event SET attempts = attempts + 1, uncertain = max(uncertain, ?2), reason = ?3 WHERE id = ?1",
        )?;
        for attempt in attempts {
            statement.execute(params![attempt.event.0, attempt.uncertain, attempt.problem.to_string()])?;
        }
        Ok(())
    }

    pub(super) fn published(&self, events: &[EventId], at: WallTime) -> rusqlite::Result<()> {
        let mut sorted = events.to_vec();
        sorted.sort_unstable();
        for neighbours in sorted.chunk_by(|a, b| a.0 + 1 == b.0) {
            let (first, last) = (neighbours[0], neighbours[neighbours.len() - 1]);
            let published = self
                .conn
                .prepare_cached(
                    "UPDATE OR ROLLBACK event SET published_at = ?3, room = x'000000000000'
                     WHERE id BETWEEN ?1 AND ?2 AND published_at IS NULL AND confirmed_at IS NULL AND NOT parked",
                )?
                .execute(params![first.0, last.0, at.0])?;
            self.counts.moved(published, EventState::Received, EventState::Published);
            if published < neighbours.len() {
                self.published_late(first, last, at)?;
            }
        }
        Ok(())
    }

    /// The same for events that are confirmed or parked already.
    fn published_late(&self, first: EventId, last: EventId, at: WallTime) -> rusqlite::Result<()> {
        let set = params![first.0, last.0, at.0];
        let confirmed = self
            .conn
            .prepare_cached(
                "UPDATE OR ROLLBACK event SET published_at = ?3, room = NULL
                 WHERE id BETWEEN ?1 AND ?2 AND published_at IS NULL AND confirmed_at IS NOT NULL AND NOT parked",
            )?
            .execute(set)?;
        self.counts.moved(confirmed, EventState::Received, EventState::Confirmed);
        self.conn
            .prepare_cached(
                "UPDATE OR ROLLBACK event SET published_at = ?3, room = NULL
                 WHERE id BETWEEN ?1 AND ?2 AND published_at IS NULL AND parked",
            )?
            .execute(set)?;
        Ok(())
    }

    pub(super) fn parked(&self, events: &[(EventId, Problem)]) -> rusqlite::Result<()> {
        // A committed ack wins: an event that the broker has is not given up.
        let mut park = self.conn.prepare_cached(
            "UPDATE event SET parked = 1, reason = ?2, parked_reason = ?2 WHERE id = ?1 AND published_at IS NULL AND NOT parked",
        )?;
        let mut again = self.conn.prepare_cached(
            "UPDATE event SET reason = ?2, parked_reason = ?2 WHERE id = ?1 AND published_at IS NULL AND parked",
        )?;
        for (event, problem) in events {
            let problem = problem.to_string();
            if park.execute(params![event.0, problem])? > 0 {
                self.counts.moved(1, EventState::Received, EventState::Parked);
            } else {
                again.execute(params![event.0, problem])?;
            }
        }
        Ok(())
    }

    pub(super) fn confirmed(&self, deliveries: &[ConfirmedDelivery], at: WallTime) -> rusqlite::Result<()> {
        let mut sorted: Vec<DeliveryId> = deliveries.iter().map(|confirmed| confirmed.delivery).collect();
        sorted.sort_unstable();
        for neighbours in sorted.chunk_by(|a, b| a.0 + 1 == b.0) {
            let (first, last) = (neighbours[0], neighbours[neighbours.len() - 1]);
            if self.first_deliveries_confirmed(first, last, at)? < neighbours.len() {
                for delivery in neighbours {
                    self.one_confirmed(*delivery, at)?;
                }
            }
        }
        Ok(())
    }

    /// For those of these events whose first delivery confirms them. Returns their number.
    fn first_deliveries_confirmed(
        &self,
        first: DeliveryId,
        last: DeliveryId,
        at: WallTime,
    ) -> rusqlite::Result<usize> {
        let set = params![first.0, last.0, at.0];
        let done = self
            .conn
            .prepare_cached(
                "UPDATE OR ROLLBACK event SET confirmed_at = ?3, outcome = 1, room = NULL
                 WHERE id BETWEEN ?1 AND ?2 AND request_id IS NOT NULL
                   AND confirmed_at IS NULL AND published_at IS NOT NULL AND NOT parked",
            )?
            .execute(set)?;
        self.counts.moved(done, EventState::Published, EventState::Confirmed);
        if i64::try_from(done).unwrap_or(i64::MAX) > last.0 - first.0 {
            return Ok(done);
        }
        // Events that are still to be published, or parked, keep their state.
        let held = self
            .conn
            .prepare_cached(
                "UPDATE OR ROLLBACK event SET confirmed_at = ?3, outcome = 1, room = x'000000000000'
                 WHERE id BETWEEN ?1 AND ?2 AND request_id IS NOT NULL
                   AND confirmed_at IS NULL AND (published_at IS NULL OR parked)",
            )?
            .execute(set)?;
        Ok(done + held)
    }

    /// One delivery of any kind; a repeat of this call changes nothing.
    fn one_confirmed(&self, delivery: DeliveryId, at: WallTime) -> rusqlite::Result<()> {
        let event = self.event_of(delivery)?;
        let confirm = if event.is_some() {
            "UPDATE delivery SET outcome = 'confirmed', confirmed_at = ?2 WHERE id = ?1 AND outcome IS NOT 'confirmed'"
        } else {
            "UPDATE event SET outcome = 1, handle_confirmed_at = ?2
             WHERE id = ?1 AND request_id IS NOT NULL AND outcome IS NOT 1"
        };
        self.conn.prepare_cached(confirm)?.execute(params![delivery.0, at.0])?;
        self.forgotten_by_the_cloud(event.unwrap_or(delivery.0), at)
    }

    /// The event of a delivery that has a row of its own. For the others, the event has the same number.
    fn event_of(&self, delivery: DeliveryId) -> rusqlite::Result<Option<i64>> {
        self.conn
            .prepare_cached("SELECT event FROM delivery WHERE id = ?1")?
            .query_row([delivery.0], |row| row.get(0))
            .optional()
    }

    fn forgotten_by_the_cloud(&self, event: i64, at: WallTime) -> rusqlite::Result<()> {
        let done = self
            .conn
            .prepare_cached(
                "UPDATE event SET confirmed_at = ?2, room = NULL
                 WHERE id = ?1 AND confirmed_at IS NULL AND published_at IS NOT NULL AND NOT parked",
            )?
            .execute(params![event, at.0])?;
        self.counts.moved(done, EventState::Published, EventState::Confirmed);
        if done == 0 {
            self.conn
                .prepare_cached(
                    "UPDATE event SET confirmed_at = ?2, room = x'000000000000'
                     WHERE id = ?1 AND confirmed_at IS NULL AND (published_at IS NULL OR parked)",
                )?
                .execute(params![event, at.0])?;
        }
        Ok(())
    }

    pub(super) fn let_go(&self, deliveries: &[DeliveryId], why: LetGo) -> rusqlite::Result<()> {
        let (code, name) = match why {
            LetGo::Refused => (2, "refused"),
            LetGo::Lost => (3, "lost"),
        };
        // A clear answer can follow a lost one. What is certain stays.
        let mut first = self.conn.prepare_cached(
            "UPDATE event SET outcome = ?2 WHERE id = ?1 AND request_id IS NOT NULL AND (outcome IS NULL OR outcome = 3)",
        )?;
        let mut further = self.conn.prepare_cached(
            "UPDATE delivery SET outcome = ?2 WHERE id = ?1 AND (outcome IS NULL OR outcome = 'lost')",
        )?;
        for id in deliveries {
            // No event has the number of a further delivery.
            if first.execute(params![id.0, code])? == 0 {
                further.execute(params![id.0, name])?;
            }
        }
        Ok(())
    }

    pub(super) fn settle(
        &self,
        sub_app: SubAppId,
        received_before: Moment,
        at: WallTime,
    ) -> rusqlite::Result<u64> {
        let events = self
            .conn
            .prepare_cached(
                "SELECT id FROM event INDEXED BY event_unconfirmed
                 WHERE sub_app_id = ?1 AND confirmed_at IS NULL AND (published_at IS NOT NULL OR parked)
                   AND coalesce((SELECT boot <> ?2 OR delivery.received_at < ?3 FROM delivery
                                 WHERE event = event.id ORDER BY delivery.id DESC LIMIT 1),
                                boot <> ?2 OR arrived_at < ?3)",
            )?
            .query_map(params![sub_app.0.cast_signed(), self.boot, received_before.0.cast_signed()], |row| {
                row.get(0)
            })?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        self.settled(&events, at)
    }

    pub(super) fn settle_unpolled(
        &self,
        polled: &[SubAppId],
        received_before: WallTime,
        at: WallTime,
        limit: u32,
    ) -> rusqlite::Result<u64> {
        let events = self
            .conn
            .prepare_cached(
                "SELECT id FROM event INDEXED BY event_unconfirmed
                 WHERE confirmed_at IS NULL AND (published_at IS NOT NULL OR parked)
                   AND sub_app_id NOT IN (SELECT value FROM json_each(?1))
                   AND received_at < ?2
                   AND coalesce((SELECT max(pulled_at) FROM delivery WHERE event = event.id), received_at) < ?2
                 LIMIT ?3",
            )?
            .query_map(params![list(polled), received_before.0, limit], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        self.settled(&events, at)
    }

    fn settled(&self, events: &[i64], at: WallTime) -> rusqlite::Result<u64> {
        let mut first = self.conn.prepare_cached(
            "UPDATE event SET outcome = 4 WHERE id = ?1 AND request_id IS NOT NULL AND outcome IS NULL",
        )?;
        let mut further = self
            .conn
            .prepare_cached("UPDATE delivery SET outcome = 'settled' WHERE event = ?1 AND outcome IS NULL")?;
        for id in events {
            self.forgotten_by_the_cloud(*id, at)?;
            first.execute([id])?;
            further.execute([id])?;
        }
        Ok(events.len() as u64)
    }

    pub(super) fn load(&self, after: EventId, limit: u32) -> rusqlite::Result<Vec<Loaded>> {
        let loaded = self
            .conn
            .prepare_cached(
                "WITH received (id) AS (
                     SELECT * FROM (
                         SELECT id FROM event INDEXED BY event_unconfirmed
                         WHERE confirmed_at IS NULL AND published_at IS NULL AND NOT parked AND id > ?1
                         ORDER BY id LIMIT ?2)
                     UNION ALL
                     SELECT * FROM (
                         SELECT id FROM event INDEXED BY event_left
                         WHERE confirmed_at IS NOT NULL AND (published_at IS NULL OR parked)
                           AND parked = 0 AND published_at IS NULL AND id > ?1
                         ORDER BY id LIMIT ?2))
                 SELECT e.id AS event, e.occurrence, e.redeliveries > 0 AS redelivered,
                        e.confirmed_at IS NOT NULL AS confirmed, e.sub_app_id, e.event_type, e.file_id, e.task_id,
                        e.fingerprint, e.search_key, c.body,
                        iif(d.id IS NULL, e.handle, d.handle) AS handle,
                        iif(d.id IS NULL, e.request_id, d.request_id) AS request_id,
                        iif(d.id IS NULL, e.received_at, d.pulled_at) AS pulled_at
                 FROM (SELECT id FROM received ORDER BY id LIMIT ?2) AS r
                      CROSS JOIN event AS e ON e.id = r.id
                      CROSS JOIN content AS c ON c.event = e.id
                      LEFT JOIN delivery AS d ON d.id = (SELECT max(id) FROM delivery WHERE event = e.id)
                 ORDER BY e.id",
            )?
            .query_map(params![after.0, limit], loaded)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut attempt =
            self.conn.prepare_cached("UPDATE event SET attempts = attempts + 1 WHERE id = ?1")?;
        // The journal that this one is a copy of may have published it. Each event that is still to be
        // published passes here, so none has to be marked at the start.
        let mut of_a_copy = self.conn.prepare_cached(
            "UPDATE event SET attempts = attempts + 1, uncertain = 1, reason = coalesce(reason, ?2) WHERE id = ?1",
        )?;
        for one in &loaded {
            if one.event.0 <= self.copied_up_to {
                of_a_copy.execute(params![one.event.0, IN_A_COPY])?;
            } else {
                attempt.execute([one.event.0])?;
            }
        }
        Ok(loaded)
    }

    pub(super) fn release(&self, event: EventId) -> rusqlite::Result<bool> {
        let released = self
            .conn
            .prepare_cached(
                // An event that an earlier program parked has its message in one place only.
                "UPDATE event SET parked = 0, attempts = 0, parked_reason = coalesce(parked_reason, reason), reason = NULL
                 WHERE id = ?1 AND parked RETURNING state",
            )?
            .query_row([event.0], |row| row.get(0))
            .optional()?;
        if let Some(state) = released {
            self.counts.moved(1, EventState::Parked, state);
        }
        Ok(released.is_some())
    }
}

fn loaded(row: &Row<'_>) -> rusqlite::Result<Loaded> {
    let event = Event {
        sub_app: SubAppId(row.get::<_, i64>("sub_app_id")?.cast_unsigned()),
        body: Bytes::copy_from_slice(row.get_ref("body")?.as_bytes()?),
        handle: row.get::<_, Option<_>>("handle")?.map(EventHandle),
        event_type: row.get("event_type")?,
        file_id: row.get("file_id")?,
        task_id: row.get("task_id")?,
        fingerprint: Fingerprint(row.get("fingerprint")?),
        latest_time: latest_time(row.get("search_key")?),
    };
    let (redelivered, pulled_at) = (row.get("redelivered")?, WallTime(row.get("pulled_at")?));
    let occurrence = row.get("occurrence")?;
    let outgoing = Outgoing::new(Arc::new(event), occurrence, redelivered, pulled_at, row.get("request_id")?);
    Ok(Loaded { event: EventId(row.get("event")?), outgoing, confirmed: row.get("confirmed")? })
}
