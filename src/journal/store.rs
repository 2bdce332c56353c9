//! The SQL of each request. Every method runs inside the transaction that the writer opened.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};

use super::damage;
use super::query::State;
use super::schema::{self, Found};
use super::tally::Tally;
use super::{Answer, Attempt, HandleOutcome, Loaded, OpenError, Summary};
use crate::clock::{Moment, WallTime, boot_id};
use crate::crash;
use crate::event::{Event, EventHandle, Fingerprint, SubAppId};
use crate::identity::{DeliveryId, EventId, Known, KnownLease, Progress, Recorded, Verdict, classify};

/// Long enough for an operator's small transaction, short against a lease.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pages in the WAL before they are copied into the file: a page that changed many times until then is copied once. 8 MB.
const WAL_PAGES: i64 = 2_048;
/// What a checkpoint leaves of a WAL that a slow reader made long.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// All statements of this file stay prepared.
const STATEMENTS: usize = 64;
/// An answer brings 16 events at most, so that no more equal ones than these can have been under one handle.
const NEWEST_OCCURRENCES: u32 = 16;
/// Leases lapse in the order of their deliveries: the newest tell whether all have lapsed.
const NEWEST_DELIVERIES: u32 = 64;

/// The connection of the writer thread.
#[derive(Debug)]
pub(super) struct Store {
    conn: Connection,
    /// This boot's row in `boot`: moments of other boots are not comparable.
    boot: i64,
    tally: Tally,
    /// Whether all pages have been looked at.
    seen_through: bool,
}

/// What the judgement of a delivery needs of one occurrence.
struct Occurrence {
    event: EventId,
    occurrence: u32,
    progress: Progress,
    attempts: u32,
}

impl Store {
    /// Opens the file, brings it to the newest version, and marks what an earlier process left in doubt.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |cause: rusqlite::Error| match cause.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                OpenError::Damaged { path: path.to_owned(), cause }
            }
            code => OpenError::Failed { path: path.to_owned(), cause, next_step: next_step(code) },
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let seen_through;
        let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        // A file that is refused stays as it is: the end of the last connection would fold the WAL into it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        match schema::examine(&conn).map_err(failed)? {
            Found::Version(version) => {
                seen_through = damage::look(&conn, damage::LIMIT_AT_START).map_err(failed)?;
                if !configure(&conn, version == 0).map_err(failed)? {
                    let problem =
                        "its file system has no shared memory for SQLite's WAL: move it to a local disk";
                    return Err(OpenError::unusable(path, problem));
                }
                schema::migrate(&mut conn, version).map_err(failed)?;
            }
            Found::Newer(found) => {
                return Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION });
            }
            Found::Foreign => {
                let problem = "it is another program's database: set journal.path to a file of its own";
                return Err(OpenError::unusable(path, problem));
            }
        }
        let boot = begin_process(&mut conn).map_err(failed)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
        Ok(Self { conn, boot, tally: Tally::default(), seen_through })
    }

    /// Whether the start had the time to look at all pages.
    pub(super) fn is_seen_through(&self) -> bool {
        self.seen_through
    }

    /// Opens the transaction that the other methods run in.
    pub(super) fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        self.tally.begin();
        // Immediate: a transaction that reads first and writes later can fail with BUSY whatever the time-out is.
        Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)
    }

    /// Writes what is written once for each transaction, before its commit.
    pub(super) fn finish(&self) -> rusqlite::Result<()> {
        self.tally.write(&self.conn)
    }

    pub(super) fn record(&self, answer: &Answer) -> rusqlite::Result<Vec<Recorded>> {
        let mut taken = HashSet::new();
        let mut recorded = Vec::with_capacity(answer.events.len());
        for event in &answer.events {
            let one = self.record_one(answer, event, &taken)?;
            taken.insert(one.event);
            recorded.push(one);
        }
        Ok(recorded)
    }

    fn record_one(
        &self,
        answer: &Answer,
        event: &Event,
        taken: &HashSet<EventId>,
    ) -> rusqlite::Result<Recorded> {
        let occurrences = self.occurrences(&event.fingerprint)?;
        let known = occurrences
            .iter()
            .map(|o| {
                Ok(Known {
                    occurrence: o.occurrence,
                    confirmed: o.progress.confirmed,
                    taken: taken.contains(&o.event),
                    leases: self.leases(o.event, answer)?,
                })
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let late = answer.lease.lapsed(answer.received_at);
        match classify(&known, event.handle.as_ref(), late) {
            Verdict::New { occurrence } => {
                let attempts = u32::from(answer.publish_now);
                // An idle answer is no proof while another relay holds the event: this may be that event once more.
                let uncertain = known.iter().any(|k| k.confirmed && k.was_settled());
                let id = self.insert_event(answer, event, occurrence, attempts, uncertain)?;
                Ok(Recorded {
                    event: id,
                    delivery: self.insert_delivery(answer, event, id)?,
                    occurrence,
                    redelivered: false,
                    progress: Progress::default(),
                    attempts,
                })
            }
            Verdict::Redelivery { occurrence } => {
                let again = occurrences
                    .iter()
                    .find(|o| o.occurrence == occurrence)
                    .expect("a redelivery is one of the occurrences that it was compared with");
                self.conn
                    .prepare_cached("UPDATE event SET redeliveries = redeliveries + 1 WHERE id = ?1")?
                    .execute([again.event.0])?;
                Ok(Recorded {
                    event: again.event,
                    delivery: self.insert_delivery(answer, event, again.event)?,
                    occurrence,
                    redelivered: true,
                    progress: again.progress,
                    attempts: again.attempts,
                })
            }
        }
    }

    /// The occurrences that a delivery with this fingerprint can be, in their order.
    ///
    /// That is every unconfirmed one and the newest few: when the cloud forgets that it confirmed an answer with several
    /// equal events, each of them comes again under its handle.
    fn occurrences(&self, fingerprint: &Fingerprint) -> rusqlite::Result<Vec<Occurrence>> {
        let occurrence = |row: &Row<'_>| {
            Ok(Occurrence {
                event: EventId(row.get(0)?),
                occurrence: row.get(1)?,
                progress: Progress { published: row.get(2)?, parked: row.get(3)?, confirmed: row.get(4)? },
                attempts: row.get(5)?,
            })
        };
        let mut newest = self.conn.prepare_cached(
            "SELECT id, occurrence, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL, attempts
             FROM event INDEXED BY event_by_fingerprint
             WHERE fingerprint_head = ?1 AND fingerprint = ?2 ORDER BY occurrence DESC LIMIT ?3",
        )?;
        let rows =
            newest.query_map(params![head(fingerprint), fingerprint.0, NEWEST_OCCURRENCES], occurrence)?;
        let mut occurrences = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        // Most events have one. Where there are as many as were asked for, some unconfirmed ones may be older; the first
        // occurrence is not in that index, so that it is looked up by its number.
        if let Some(oldest) = occurrences.last().map(|o| o.occurrence)
            && occurrences.len() >= NEWEST_OCCURRENCES as usize
        {
            let mut older = self.conn.prepare_cached(
                "SELECT id, occurrence, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL, attempts
                 FROM event INDEXED BY event_open_again
                 WHERE fingerprint_head = ?1 AND fingerprint = ?2 AND confirmed_at IS NULL AND occurrence > 1 AND occurrence < ?3
                 UNION ALL
                 SELECT id, occurrence, published_at IS NOT NULL, parked, confirmed_at IS NOT NULL, attempts
                 FROM event INDEXED BY event_by_fingerprint
                 WHERE fingerprint_head = ?1 AND fingerprint = ?2 AND occurrence = 1 AND confirmed_at IS NULL AND 1 < ?3",
            )?;
            let rows = older.query_map(params![head(fingerprint), fingerprint.0, oldest], occurrence)?;
            for row in rows {
                occurrences.push(row?);
            }
        }
        occurrences.sort_unstable_by_key(|o| o.occurrence);
        Ok(occurrences)
    }

    fn leases(&self, event: EventId, answer: &Answer) -> rusqlite::Result<Vec<KnownLease>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT handle, boot, cutoff, lease_until, outcome IS 'confirmed', id FROM delivery WHERE event = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(params![event.0, NEWEST_DELIVERIES], |row| {
            let lapsed = if row.get::<_, i64>(1)? == self.boot {
                moment(row.get(2)?) <= answer.received_at
            } else {
                // The boot clock began anew; the wall clock is all that both boots share.
                WallTime(row.get(3)?) <= answer.pulled_at
            };
            let handle = row.get::<_, Option<_>>(0)?.map(EventHandle);
            let (confirmed, delivery) = (row.get(4)?, DeliveryId(row.get(5)?));
            Ok(KnownLease { delivery, handle, lapsed, confirmed })
        })?;
        rows.collect()
    }

    fn insert_event(
        &self,
        answer: &Answer,
        event: &Event,
        occurrence: u32,
        attempts: u32,
        uncertain: bool,
    ) -> rusqlite::Result<EventId> {
        let reason = uncertain.then_some("an equal event before it was settled without the cloud's answer");
        let id = self
            .conn
            .prepare_cached(
                "INSERT OR ROLLBACK INTO event (fingerprint_head, fingerprint, occurrence, sub_app_id, event_type, file_id, task_id,
                                    received_at, attempts, uncertain, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .insert(params![
                head(&event.fingerprint),
                event.fingerprint.0,
                occurrence,
                event.sub_app.0.cast_signed(),
                event.event_type,
                event.file_id,
                event.task_id,
                answer.pulled_at.0,
                attempts,
                uncertain,
                reason,
            ])?;
        self.conn
            .prepare_cached("INSERT OR ROLLBACK INTO content (event, body) VALUES (?1, ?2)")?
            .execute(params![id, Text(&event.body)])?;
        self.tally.came(State::Received);
        Ok(EventId(id))
    }

    fn insert_delivery(&self, answer: &Answer, event: &Event, id: EventId) -> rusqlite::Result<DeliveryId> {
        self.conn
            .prepare_cached(
                "INSERT OR ROLLBACK INTO delivery (event, handle, request_id, boot, sent_at, cutoff, received_at, pulled_at, lease_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .insert(params![
                id.0,
                event.handle.as_ref().map(|h| &h.0),
                answer.request_id,
                self.boot,
                answer.lease.sent_at.0.cast_signed(),
                answer.lease.cutoff.0.cast_signed(),
                answer.received_at.0.cast_signed(),
                answer.pulled_at.0,
                answer.lease_until.0,
            ])
            .map(DeliveryId)
    }

    pub(super) fn attempts(&self, attempts: &[Attempt]) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(
            "UPDATE event SET attempts = attempts + 1, uncertain = max(uncertain, ?2), reason = ?3 WHERE id = ?1",
        )?;
        for attempt in attempts {
            statement.execute(params![attempt.event.0, attempt.uncertain, attempt.reason])?;
        }
        Ok(())
    }

    pub(super) fn published(&self, events: &[(EventId, WallTime)]) -> rusqlite::Result<()> {
        let mut sorted = events.to_vec();
        sorted.sort_unstable();
        // What came together is acked together, most often: one statement is enough for neighbours.
        for neighbours in sorted.chunk_by(|(a, at), (b, then)| a.0 + 1 == b.0 && at == then) {
            let (first, last, at) = (neighbours[0].0, neighbours[neighbours.len() - 1].0, neighbours[0].1);
            let published = self
                .conn
                .prepare_cached(
                    "UPDATE OR ROLLBACK event SET published_at = ?3
                     WHERE id BETWEEN ?1 AND ?2 AND published_at IS NULL AND confirmed_at IS NULL AND NOT parked",
                )?
                .execute(params![first.0, last.0, at.0])?;
            self.tally.moved(published, State::Received, State::Published);
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
                "UPDATE OR ROLLBACK event SET published_at = ?3
                 WHERE id BETWEEN ?1 AND ?2 AND published_at IS NULL AND confirmed_at IS NOT NULL AND NOT parked",
            )?
            .execute(set)?;
        self.tally.moved(confirmed, State::Received, State::Confirmed);
        self.conn
            .prepare_cached(
                "UPDATE OR ROLLBACK event SET published_at = ?3
                 WHERE id BETWEEN ?1 AND ?2 AND published_at IS NULL AND parked",
            )?
            .execute(set)?;
        Ok(())
    }

    pub(super) fn parked(&self, events: &[(EventId, String)]) -> rusqlite::Result<()> {
        // An ack that was committed wins: what the broker has is not given up.
        let mut park = self.conn.prepare_cached(
            "UPDATE event SET parked = 1, reason = ?2 WHERE id = ?1 AND published_at IS NULL AND NOT parked",
        )?;
        let mut again = self.conn.prepare_cached(
            "UPDATE event SET reason = ?2 WHERE id = ?1 AND published_at IS NULL AND parked",
        )?;
        for (event, reason) in events {
            if park.execute(params![event.0, reason])? > 0 {
                self.tally.moved(1, State::Received, State::Parked);
            } else {
                again.execute(params![event.0, reason])?;
            }
        }
        Ok(())
    }

    pub(super) fn confirmed(&self, deliveries: &[DeliveryId], at: WallTime) -> rusqlite::Result<()> {
        let mut sorted = deliveries.to_vec();
        sorted.sort_unstable();
        for neighbours in sorted.chunk_by(|a, b| a.0 + 1 == b.0) {
            let (first, last) = (neighbours[0], neighbours[neighbours.len() - 1]);
            self.conn
                .prepare_cached(
                    "UPDATE OR ROLLBACK delivery SET outcome = 'confirmed', confirmed_at = ?3
                     WHERE id BETWEEN ?1 AND ?2 AND outcome IS NOT 'confirmed'",
                )?
                .execute(params![first.0, last.0, at.0])?;
            let events = self
                .conn
                .prepare_cached("SELECT event FROM delivery WHERE id BETWEEN ?1 AND ?2")?
                .query_map(params![first.0, last.0], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<i64>>>()?;
            for events in events.chunk_by(|a, b| a + 1 == *b) {
                self.forgotten_by_the_cloud(events[0], events[events.len() - 1], at)?;
            }
        }
        Ok(())
    }

    fn forgotten_by_the_cloud(&self, first: i64, last: i64, at: WallTime) -> rusqlite::Result<()> {
        let done = self
            .conn
            .prepare_cached(
                "UPDATE OR ROLLBACK event SET confirmed_at = ?3
                 WHERE id BETWEEN ?1 AND ?2 AND confirmed_at IS NULL AND published_at IS NOT NULL AND NOT parked",
            )?
            .execute(params![first, last, at.0])?;
        self.tally.moved(done, State::Published, State::Confirmed);
        if i64::try_from(done).unwrap_or(i64::MAX) <= last - first {
            // Still to be published, or parked: their state stays.
            self.conn
                .prepare_cached(
                    "UPDATE OR ROLLBACK event SET confirmed_at = ?3
                     WHERE id BETWEEN ?1 AND ?2 AND confirmed_at IS NULL AND (published_at IS NULL OR parked)",
                )?
                .execute(params![first, last, at.0])?;
        }
        Ok(())
    }

    pub(super) fn handle_outcome(
        &self,
        deliveries: &[DeliveryId],
        outcome: HandleOutcome,
    ) -> rusqlite::Result<()> {
        let outcome = match outcome {
            HandleOutcome::Refused => "refused",
            HandleOutcome::Lost => "lost",
        };
        // A lost answer can be followed by a clear one; what is known for certain stays.
        let mut statement = self.conn.prepare_cached(
            "UPDATE delivery SET outcome = ?2 WHERE id = ?1 AND (outcome IS NULL OR outcome = 'lost')",
        )?;
        for id in deliveries {
            statement.execute(params![id.0, outcome])?;
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
                "SELECT id FROM event INDEXED BY event_under_way
                 WHERE sub_app_id = ?1 AND state <> 'confirmed' AND confirmed_at IS NULL
                   AND (published_at IS NOT NULL OR parked)
                   AND EXISTS (SELECT 1 FROM delivery
                               WHERE delivery.id = (SELECT max(id) FROM delivery WHERE event = event.id)
                                 AND (boot <> ?2 OR delivery.received_at < ?3))",
            )?
            .query_map(params![sub_app.0.cast_signed(), self.boot, received_before.0.cast_signed()], |row| {
                row.get(0)
            })?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        let mut delivery = self
            .conn
            .prepare_cached("UPDATE delivery SET outcome = 'settled' WHERE event = ?1 AND outcome IS NULL")?;
        for id in &events {
            self.forgotten_by_the_cloud(*id, *id, at)?;
            delivery.execute([id])?;
        }
        Ok(events.len() as u64)
    }

    pub(super) fn load(&self, after: EventId, limit: u32) -> rusqlite::Result<Vec<Loaded>> {
        let loaded = self
            .conn
            .prepare_cached(
                "SELECT e.id AS event, e.occurrence, e.attempts + 1 AS attempts, e.redeliveries > 0 AS redelivered,
                        e.confirmed_at IS NOT NULL AS confirmed, e.sub_app_id, e.event_type, e.file_id, e.task_id,
                        e.fingerprint, c.body, d.handle, d.request_id, d.pulled_at
                 FROM event AS e INDEXED BY event_received JOIN content AS c ON c.event = e.id
                      JOIN delivery AS d ON d.id = (SELECT max(id) FROM delivery WHERE event = e.id)
                 WHERE e.state = 'received' AND e.id > ?1 ORDER BY e.id LIMIT ?2",
            )?
            .query_map(params![after.0, limit], loaded)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut attempt =
            self.conn.prepare_cached("UPDATE event SET attempts = attempts + 1 WHERE id = ?1")?;
        for one in &loaded {
            attempt.execute([one.event.0])?;
        }
        Ok(loaded)
    }

    pub(super) fn release(&self, event: EventId) -> rusqlite::Result<bool> {
        let released = self
            .conn
            .prepare_cached(
                "UPDATE event SET parked = 0, attempts = 0, reason = NULL WHERE id = ?1 AND parked",
            )?
            .execute([event.0])?;
        if released > 0 {
            let state = self
                .conn
                .prepare_cached("SELECT state FROM event WHERE id = ?1")?
                .query_row([event.0], |row| row.get(0))?;
            self.tally.moved(1, State::Parked, state);
        }
        Ok(released > 0)
    }

    pub(super) fn prune(&self, before: WallTime, limit: u32) -> rusqlite::Result<u64> {
        let pruned = self
            .conn
            .prepare_cached(
                "SELECT id FROM event
                 WHERE received_at < ?1 AND confirmed_at < ?1 AND published_at IS NOT NULL AND NOT parked
                 ORDER BY received_at LIMIT ?2",
            )?
            .query_map(params![before.0, limit], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        // This connection checks no references: each event would cost looks that find what was just written.
        for table in [
            "DELETE FROM delivery WHERE event = ?1",
            "DELETE FROM content WHERE event = ?1",
            "DELETE FROM event WHERE id = ?1",
        ] {
            let mut delete = self.conn.prepare_cached(table)?;
            for id in &pruned {
                delete.execute([id])?;
            }
        }
        // The pages that this freed go back to the file system, a few at a time.
        let mut vacuum = self.conn.prepare_cached("PRAGMA incremental_vacuum(200)")?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
        Ok(pruned.len() as u64)
    }

    pub(super) fn summary(&self) -> rusqlite::Result<Summary> {
        let mut summary = Summary::default();
        // What this transaction has changed so far counts as well.
        self.tally.write(&self.conn)?;
        let mut tally = self.conn.prepare_cached("SELECT state, events FROM tally")?;
        let mut rows = tally.query([])?;
        while let Some(row) = rows.next()? {
            let events = row.get::<_, i64>(1)?.try_into().unwrap_or(0);
            match row.get_ref(0)?.as_str()? {
                "received" => summary.received = events,
                "published" => summary.published = events,
                "confirmed" => summary.confirmed = events,
                "parked" => summary.parked = events,
                _ => {}
            }
        }
        let (unconfirmed, oldest): (i64, Option<i64>) = self
            .conn
            .prepare_cached("SELECT count(*), min(received_at) FROM event INDEXED BY event_under_way WHERE state <> 'confirmed' AND confirmed_at IS NULL")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        summary.unconfirmed = unconfirmed.try_into().unwrap_or(0);
        summary.oldest_unconfirmed = oldest.map(WallTime);
        Ok(summary)
    }

    #[cfg(test)]
    pub(super) fn sql(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.execute_batch(sql)
    }
}

/// What an operator can do about a failure that may pass.
pub(super) fn next_step(code: Option<ErrorCode>) -> &'static str {
    match code {
        Some(ErrorCode::DiskFull) => "free space on the journal's file system",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the journal's write lock: end its transaction, perhaps in a forgotten sqlite3 shell"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "check that the journal is where it was, the owner and the mode of it and of its folder, and that the file system is mounted for writing"
        }
        Some(ErrorCode::SystemIoFailure) => "check the disk, its free space, and the kernel's log",
        Some(ErrorCode::OutOfMemory) => "give the relay more memory",
        _ => "report this with the message above",
    }
}

/// False when the file system cannot hold a WAL, which SQLite answers by keeping the mode it had.
fn configure(conn: &Connection, new: bool) -> rusqlite::Result<bool> {
    if new {
        // Only possible before the first page is written: pruned pages can go back to the file system later.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // FULL: a commit is on the disk when it returns, also after a power cut.
    conn.pragma_update(None, "synchronous", "FULL")?;
    // What this program writes fits by construction. Checking it costs a third of an insert: a list of the allowed outcomes is
    // made anew for each row, and each reference is looked up.
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "ignore_check_constraints", true)?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", WAL_PAGES, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without this a statement is compiled anew for each value that could make another plan better.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(mode == "wal")
}

/// Returns this boot's row. What an earlier process may have published without learning of its ack is marked.
fn begin_process(conn: &mut Connection) -> rusqlite::Result<i64> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let name = boot_id();
    tx.execute("INSERT INTO boot (name) VALUES (?1) ON CONFLICT DO NOTHING", [&name])?;
    let boot = tx.query_row("SELECT id FROM boot WHERE name = ?1", [&name], |row| row.get(0))?;
    tx.execute(
        "UPDATE event SET uncertain = 1 WHERE state = 'received' AND attempts > 0 AND uncertain = 0",
        [],
    )?;
    crash::point("committing", "start");
    tx.commit()?;
    crash::point("committed", "start");
    Ok(boot)
}

fn loaded(row: &Row<'_>) -> rusqlite::Result<Loaded> {
    Ok(Loaded {
        event: EventId(row.get("event")?),
        occurrence: row.get("occurrence")?,
        attempts: row.get("attempts")?,
        redelivered: row.get("redelivered")?,
        pulled_at: WallTime(row.get("pulled_at")?),
        request_id: row.get("request_id")?,
        confirmed: row.get("confirmed")?,
        content: Event {
            sub_app: SubAppId(row.get::<_, i64>("sub_app_id")?.cast_unsigned()),
            body: Bytes::copy_from_slice(row.get_ref("body")?.as_bytes()?),
            handle: row.get::<_, Option<_>>("handle")?.map(EventHandle),
            event_type: row.get("event_type")?,
            file_id: row.get("file_id")?,
            task_id: row.get("task_id")?,
            fingerprint: Fingerprint(row.get("fingerprint")?),
        },
    })
}

/// The small key of a fingerprint.
fn head(fingerprint: &Fingerprint) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = fingerprint.0;
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
