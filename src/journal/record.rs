//! The SQL that judges and records the events of an answer.

use std::sync::LazyLock;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement, params};
use tencent_vod_event::{Event, EventHandle, Fingerprint, LatestTime};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::identity::{
    DeliveryId, Doubt, EventId, Known, KnownLease, Progress, Recorded, Verdict, classify,
};
use vodrelay_core::lease::{Clocks, KeptLease, Lease};
use vodrelay_core::write::Pulled;

use super::event_state::EventState;
use super::store::Store;

/// An answer brings at most 16 events, so no more equal ones can have had one handle.
const NEWEST_OCCURRENCES: u32 = 16;
/// Leases lapse in the order of their deliveries: the newest ones show whether all have lapsed.
const NEWEST_DELIVERIES: u32 = 64;
/// Events that one statement inserts, when there are enough: the most that the cloud hands out.
const ROWS: usize = 16;

/// The statement that inserts one event, and the one for [`ROWS`]. Values that all events of an answer share
/// are bound once for all rows. The reserved bytes (`room`) are for two times of six bytes. `OR ROLLBACK`,
/// because a statement for several rows that could fail half-way would keep a copy of each page.
static INSERT_EVENTS: LazyLock<[String; 2]> = LazyLock::new(|| {
    [1, ROWS].map(|rows| {
        // A parameter without a number is the one after the highest so far.
        let row = format!("(x'000000000000000000000000', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8{})", ", ?".repeat(10));
        format!(
            "INSERT OR ROLLBACK INTO event (room, received_at, attempts, request_id, boot, sent_at, cutoff, arrived_at,
                                            lease_until, sub_app_id, search_key, fingerprint, occurrence, event_type, file_id,
                                            task_id, uncertain, reason, handle)
             VALUES {}",
            vec![row; rows].join(", ")
        )
    })
});

/// What the judgement of a delivery needs of one occurrence.
struct Occurrence {
    event: EventId,
    occurrence: u32,
    progress: Progress,
}

impl Store {
    pub(super) fn record(&self, pulled: &Pulled) -> rusqlite::Result<Vec<Recorded>> {
        let mut recorder = Recorder { store: self, pulled, new: Vec::new() };
        let mut recorded = Vec::with_capacity(pulled.events.len());
        for event in &pulled.events {
            // A reference to an event of the same answer.
            if recorder.new.iter().any(|(_, new)| new.event.fingerprint == event.fingerprint) {
                recorder.insert(&mut recorded)?;
            }
            let one = recorder.judge(event, &recorded)?;
            recorded.push(one);
        }
        recorder.insert(&mut recorded)?;
        Ok(recorded)
    }
}

/// Records the events of one answer.
struct Recorder<'a> {
    store: &'a Store,
    pulled: &'a Pulled,
    /// New events without row and number, and the places of their results in the answer.
    new: Vec<(usize, New<'a>)>,
}

/// A new event.
struct New<'a> {
    event: &'a Event,
    occurrence: u32,
    doubt: Option<Doubt>,
}

impl<'a> Recorder<'a> {
    /// Judges one event. A new one gets its number from [`Self::insert`].
    fn judge(&mut self, event: &'a Event, recorded: &[Recorded]) -> rusqlite::Result<Recorded> {
        let occurrences = self.occurrences(event)?;
        let known = occurrences
            .iter()
            .map(|o| {
                let leases = self.leases(o.event)?;
                Ok(Known {
                    occurrence: o.occurrence,
                    confirmed: o.progress.confirmed,
                    taken: recorded.iter().any(|r| r.event == o.event),
                    of_a_copy: leases
                        .first()
                        .is_some_and(|newest| newest.delivery.0 <= self.store.copied_up_to),
                    leases,
                })
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let late = self.pulled.lease.lapsed(self.pulled.received_at);
        match classify(&known, event.handle.as_ref(), late) {
            Verdict::New { occurrence, doubt } => {
                self.new.push((recorded.len(), New { event, occurrence, doubt }));
                Ok(Recorded {
                    event: EventId(0),
                    delivery: DeliveryId(0),
                    occurrence,
                    redelivered: false,
                    progress: Progress::default(),
                })
            }
            Verdict::Redelivery { occurrence } => {
                let again = occurrences
                    .iter()
                    .find(|o| o.occurrence == occurrence)
                    .expect("a redelivery is one of the occurrences that it was compared with");
                self.store
                    .conn
                    .prepare_cached("UPDATE event SET redeliveries = redeliveries + 1 WHERE id = ?1")?
                    .execute([again.event.0])?;
                Ok(Recorded {
                    event: again.event,
                    delivery: self.insert_delivery(event, again.event)?,
                    occurrence,
                    redelivered: true,
                    progress: again.progress,
                })
            }
        }
    }

    /// The occurrences with this fingerprint that a delivery can be, in their order.
    ///
    /// These are all unconfirmed ones and the newest few. When the cloud forgets that it confirmed an answer
    /// with several equal events, each of them comes again under its handle.
    fn occurrences(&self, event: &Event) -> rusqlite::Result<Vec<Occurrence>> {
        let mut occurrences = Vec::new();
        self.occurrences_by(search_key(event), &event.fingerprint, &mut occurrences)?;
        if self.store.has_earlier_keys {
            self.occurrences_by(earlier_search_key(event), &event.fingerprint, &mut occurrences)?;
        }
        occurrences.sort_unstable_by_key(|o| o.occurrence);
        Ok(occurrences)
    }

    fn occurrences_by(
        &self,
        key: i64,
        fingerprint: &Fingerprint,
        occurrences: &mut Vec<Occurrence>,
    ) -> rusqlite::Result<()> {
        let occurrence = |row: &Row<'_>| {
            Ok(Occurrence {
                event: EventId(row.get(0)?),
                occurrence: row.get(1)?,
                progress: Progress { published: row.get(2)?, parked: row.get(3)?, confirmed: row.get(4)? },
            })
        };
        let mut newest = self.store.conn.prepare_cached(
            "SELECT id, occurrence, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL
             FROM event INDEXED BY event_by_fingerprint
             WHERE search_key = ?1 AND fingerprint = ?2 ORDER BY occurrence DESC LIMIT ?3",
        )?;
        let before = occurrences.len();
        for row in newest.query_map(params![key, fingerprint.0, NEWEST_OCCURRENCES], occurrence)? {
            occurrences.push(row?);
        }
        // Most events have one. When the limit is reached, some unconfirmed ones may be older. The first
        // occurrence is not in that index, so it is looked up by its number.
        let newest = &occurrences[before..];
        if let Some(oldest) = newest.last().map(|o| o.occurrence)
            && newest.len() >= NEWEST_OCCURRENCES as usize
        {
            let mut older = self.store.conn.prepare_cached(
                "SELECT id, occurrence, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL
                 FROM event INDEXED BY event_open_again
                 WHERE search_key = ?1 AND fingerprint = ?2 AND confirmed_at IS NULL AND occurrence > 1 AND occurrence < ?3
                 UNION ALL
                 SELECT id, occurrence, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL
                 FROM event INDEXED BY event_by_fingerprint
                 WHERE search_key = ?1 AND fingerprint = ?2 AND occurrence = 1 AND confirmed_at IS NULL AND 1 < ?3",
            )?;
            for row in older.query_map(params![key, fingerprint.0, oldest], occurrence)? {
                occurrences.push(row?);
            }
        }
        Ok(())
    }

    fn leases(&self, event: EventId) -> rusqlite::Result<Vec<KnownLease>> {
        let mut statement = self.store.conn.prepare_cached(
            "SELECT id, handle, boot, sent_at, cutoff, lease_until, outcome IS 'confirmed' FROM delivery WHERE event = ?1
             UNION ALL
             SELECT id, handle, boot, sent_at, cutoff, lease_until, outcome IS 1 FROM event WHERE id = ?1 AND request_id IS NOT NULL
             ORDER BY 1 DESC LIMIT ?2",
        )?;
        let Pulled { received_at: now, pulled_at: wall, .. } = *self.pulled;
        let clocks = Clocks { opened: self.store.opened, now, wall };
        let rows = statement.query_map(params![event.0, NEWEST_DELIVERIES], |row| {
            let kept = KeptLease {
                this_boot: row.get::<_, i64>(2)? == self.store.boot,
                lease: Lease { sent_at: moment(row.get(3)?), cutoff: moment(row.get(4)?) },
                until: WallTime(row.get(5)?),
            };
            let handle = row.get::<_, Option<_>>(1)?.map(EventHandle);
            let standing = kept.standing(&clocks);
            Ok(KnownLease { delivery: DeliveryId(row.get(0)?), handle, standing, confirmed: row.get(6)? })
        })?;
        rows.collect()
    }

    /// Inserts the rows of the new events, and puts their numbers into the results.
    fn insert(&mut self, recorded: &mut [Recorded]) -> rusqlite::Result<()> {
        let new = std::mem::take(&mut self.new);
        let (by_sixteen, rest) = new.as_chunks::<ROWS>();
        let groups = by_sixteen.iter().map(|group| group.as_slice()).chain(rest.chunks(1));
        let mut content = self
            .store
            .conn
            .prepare_cached("INSERT OR ROLLBACK INTO content (event, body) VALUES (?1, ?2)")?;
        for group in groups {
            let first = self.insert_events(group)?;
            for ((index, New { event, .. }), id) in group.iter().zip(first..) {
                content.execute(params![id, Text(&event.body)])?;
                recorded[*index].event = EventId(id);
                // The number of an event is that of its first delivery as well.
                recorded[*index].delivery = DeliveryId(id);
                self.store.counts.came(EventState::Received);
            }
        }
        Ok(())
    }

    /// Inserts one event or [`ROWS`]. Returns the number of the first; the others follow it.
    fn insert_events(&self, new: &[(usize, New<'_>)]) -> rusqlite::Result<i64> {
        let [one, many] = &*INSERT_EVENTS;
        let mut statement = self.store.conn.prepare_cached(if new.len() == 1 { one } else { many })?;
        let mut values = Parameters { statement: &mut statement, bound: 0 };
        let pulled = self.pulled;
        values.add(pulled.pulled_at.0)?;
        values.add(pulled.publish_now)?;
        values.add(&pulled.request_id)?;
        values.add(self.store.boot)?;
        values.add(pulled.lease.sent_at.0.cast_signed())?;
        values.add(pulled.lease.cutoff.0.cast_signed())?;
        values.add(pulled.received_at.0.cast_signed())?;
        values.add(pulled.lease_until().0)?;
        for (_, New { event, occurrence, doubt }) in new {
            values.add(event.sub_app.0.cast_signed())?;
            values.add(search_key(event))?;
            values.add(event.fingerprint.0)?;
            values.add(occurrence)?;
            values.add(&event.event_type)?;
            values.add(&event.file_id)?;
            values.add(&event.task_id)?;
            values.add(doubt.is_some())?;
            values.add(doubt.map(Doubt::message))?;
            values.add(event.handle.as_ref().map(|h| &h.0))?;
        }
        statement.raw_execute()?;
        // AUTOINCREMENT gives each row of a statement the number after that of the row before.
        Ok(self.store.conn.last_insert_rowid() + 1 - i64::try_from(new.len()).unwrap_or(i64::MAX))
    }

    /// A delivery after the first.
    fn insert_delivery(&mut self, event: &Event, id: EventId) -> rusqlite::Result<DeliveryId> {
        // From the sequence of the events, so first deliveries and further ones are ordered among each other.
        let number: i64 = self
            .store
            .conn
            .prepare_cached("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'event' RETURNING seq")?
            .query_row([], |row| row.get(0))?;
        self.store.conn
            .prepare_cached(
                "INSERT INTO delivery (id, event, handle, request_id, boot, sent_at, cutoff, received_at, pulled_at, lease_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                number,
                id.0,
                event.handle.as_ref().map(|h| &h.0),
                self.pulled.request_id,
                self.store.boot,
                self.pulled.lease.sent_at.0.cast_signed(),
                self.pulled.lease.cutoff.0.cast_signed(),
                self.pulled.received_at.0.cast_signed(),
                self.pulled.pulled_at.0,
                self.pulled.lease_until().0,
            ])?;
        Ok(DeliveryId(number))
    }
}

/// The values of a statement's parameters, in their order.
struct Parameters<'a, 'c> {
    statement: &'a mut Statement<'c>,
    bound: usize,
}

impl Parameters<'_, '_> {
    fn add(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)
    }
}

/// The small key by which an event is searched.
fn search_key(event: &Event) -> i64 {
    let [a, b, c, d, ..] = event.fingerprint.0;
    (u64::from(event.latest_time.0) << 32 | u64::from(u32::from_be_bytes([a, b, c, d]))).cast_signed()
}

/// The time in a key. It has no meaning in versions before 3.
pub(super) fn latest_time(search_key: i64) -> LatestTime {
    LatestTime((search_key.cast_unsigned() >> 32) as u32)
}

/// The key of the versions before 3.
fn earlier_search_key(event: &Event) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = event.fingerprint.0;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn moment(stored: i64) -> Moment {
    Moment(stored.cast_unsigned())
}

/// Bytes that are stored as text, as they are.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tencent_vod_event::SubAppId;

    #[test]
    fn events_of_one_second_are_neighbours_and_journals_that_exist_are_searched_by_these_keys() {
        let keys = ["a", "b"].map(|name| {
            let body =
                format!(r#"{{"FileUploadEvent":{{"FileId":"{name}","CreateTime":"2026-11-20T16:29:17Z"}}}}"#);
            let event = Event::parse(SubAppId(7), body.into()).unwrap();
            assert_eq!(latest_time(search_key(&event)), event.latest_time);
            search_key(&event)
        });
        assert_eq!(keys.map(|key| key >> 32), [966_702_557; 2]);
        // printf '7\n{"FileUploadEvent":{"CreateTime":"2026-11-20T16:29:17Z","FileId":"a"}}' | sha256sum
        assert_eq!(keys.map(|key| key & 0xffff_ffff), [0x9bd5_20f2, 0x3433_77ad]);
    }
}
