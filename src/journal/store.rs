//! The writer's connection: its opening, its transactions, and the SQL that is not about single events.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use tencent_vod_event::SubAppId;
use tracing::warn;
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::write::{Summary, Vacuumed};
use vodrelay_host::descriptors;

use super::damage;
use super::disk::DiskFault;
use super::origin::{self, Note, Origin};
use super::schema::{self, Found};
use super::state_counts::StateCounts;
use super::transitions::list;
use super::{Boot, OpenError};
use crate::clock::Now as _;
use crate::failpoint;

/// Long enough for an operator's small transaction, short against a lease.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// For a new journal. Event bodies share pages, so little of a page is unused. Smaller pages cost a system
/// call each.
const PAGE_BYTES: i64 = 8_192;
/// The size of the WAL at which its pages are copied into the file. A page that changed many times until then
/// is copied once.
const WAL_BYTES: i64 = 8 << 20;
/// The size to which a checkpoint cuts a WAL that a slow reader made long.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// All statements of this file stay prepared.
const STATEMENTS: usize = 64;

/// The connection of the writer thread.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) conn: Connection,
    /// This boot's row in `boot`: moments of other boots are not comparable.
    pub(super) boot: i64,
    /// When this process opened the journal, on this boot's clock.
    pub(super) opened: Moment,
    /// The highest number that a copy brought; 0 in an original journal.
    pub(super) copied_up_to: i64,
    /// Whether there are events of an earlier version, with search keys of another kind.
    pub(super) has_earlier_keys: bool,
    pub(super) counts: StateCounts,
    /// The note for the lock file: see `origin`.
    pub(super) note: Note,
}

impl Store {
    /// Opens the file, migrates it, and marks the events that an earlier process left uncertain. `noted` is
    /// the note from the lock file.
    pub(super) fn open(path: &Path, boot: &Boot, noted: Option<Note>) -> Result<Self, OpenError> {
        let failed = |cause: rusqlite::Error| match cause.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                OpenError::Damaged { path: path.to_owned(), cause }
            }
            _ => {
                let (error_code, next_step) = diagnosis(path, &cause);
                OpenError::Failed { path: path.to_owned(), cause, error_code, next_step }
            }
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = boot.opened;
        let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        // A refused file stays unchanged: closing the last connection would copy the WAL into it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        match schema::examine(&conn).map_err(failed)? {
            Found::Version(version) => {
                damage::look(&mut conn, damage::LIMIT_AT_START).map_err(failed)?;
                if !configure(&conn, version == 0).map_err(failed)? {
                    if let Some(fault) = DiskFault::at(path) {
                        return Err(OpenError::faulty(path, "it cannot have a WAL", fault));
                    }
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
        let file = Origin::of(path)
            .map_err(|e| OpenError::unusable(path, format!("it disappeared while it was opened ({e})")))?;
        let Begun { boot, copied_up_to, note } =
            begin_process(&mut conn, boot, file, noted, path).map_err(failed)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
        let has_earlier_keys = conn
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM event WHERE id <= (SELECT eight_bytes_up_to FROM search))",
                [],
                |row| row.get(0),
            )
            .map_err(failed)?;
        let counts = StateCounts::default();
        Ok(Self { conn, boot, opened, copied_up_to, has_earlier_keys, counts, note })
    }

    /// The last commit of a clean end: a copy from before it is older than the journal. Returns the note for
    /// the lock file.
    pub(super) fn end_process(&self) -> rusqlite::Result<Note> {
        let tx = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let note = self.note.next(&tx)?;
        tx.commit()?;
        Ok(note)
    }

    /// Opens the transaction that the other methods run in.
    pub(super) fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        self.counts.begin();
        // Immediate: a transaction that reads first and writes later can fail with BUSY in spite of the
        // time-out.
        Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)
    }

    /// Writes what changes once in each transaction, before its commit.
    pub(super) fn finish(&self) -> rusqlite::Result<()> {
        self.counts.write(&self.conn)
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
        // This connection checks no references. Each event would cost lookups of rows that were just written.
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
        Ok(pruned.len() as u64)
    }

    pub(super) fn vacuum(&self, pages: u32) -> rusqlite::Result<Vacuumed> {
        let free = || -> rusqlite::Result<u64> {
            let pages: i64 =
                self.conn.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
            Ok(pages.try_into().unwrap_or(0))
        };
        let before = free()?;
        // `None` would mean all of them.
        let pages = pages.max(1);
        let mut vacuum = self.conn.prepare_cached(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        let left = free()?;
        Ok(Vacuumed { given_back: before.saturating_sub(left), left })
    }

    pub(super) fn summary(&self, polled: Option<&[SubAppId]>) -> rusqlite::Result<Summary> {
        let mut summary = Summary::default();
        // The changes of this transaction count as well.
        self.counts.write(&self.conn)?;
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
            .prepare_cached(
                "SELECT count(*), min(received_at) FROM event INDEXED BY event_unconfirmed
                 WHERE confirmed_at IS NULL
                   AND (?1 IS NULL OR sub_app_id IN (SELECT value FROM json_each(?1)))",
            )?
            .query_row([polled.map(list)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        summary.unconfirmed = unconfirmed.try_into().unwrap_or(0);
        summary.oldest_unconfirmed = oldest.map(WallTime);
        if summary.received > 0 {
            // Of the events that the cloud has forgotten, which can be very many, the first in the index is
            // the oldest.
            let oldest = self
                .conn
                .prepare_cached(
                    "SELECT min(received_at) FROM (
                     SELECT min(received_at) AS received_at FROM event INDEXED BY event_unconfirmed
                     WHERE confirmed_at IS NULL AND published_at IS NULL AND NOT parked
                     UNION ALL
                     SELECT * FROM (
                         SELECT received_at FROM event INDEXED BY event_left
                         WHERE confirmed_at IS NOT NULL AND (published_at IS NULL OR parked)
                           AND parked = 0 AND published_at IS NULL ORDER BY id LIMIT 1))",
                )?
                .query_row([], |row| row.get::<_, Option<i64>>(0))?;
            summary.oldest_unpublished = oldest.map(WallTime);
        }
        summary.in_doubt = origin::in_doubt(&self.conn, self.copied_up_to)?.try_into().unwrap_or(0);
        Ok(summary)
    }

    /// Copies the whole WAL into the file and syncs it. False while a reader needs the file as it is.
    pub(super) fn fold_wal(&self) -> rusqlite::Result<bool> {
        let (busy, pages, copied): (bool, i64, i64) =
            self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        Ok(!busy && pages == copied)
    }
}

/// The problem of a failure at `path`, and what an operator can do about it. Examines the disk where SQLite's
/// code leaves the cause open.
pub(super) fn diagnosis(path: &Path, cause: &rusqlite::Error) -> (ErrorCode, &'static str) {
    match DiskFault::behind(path, cause) {
        Some(fault) => (fault.error_code(), fault.next_step()),
        None => (error_code(cause.sqlite_error_code()), next_step(cause.sqlite_error_code())),
    }
}

/// The problem of a failure, by SQLite's code alone.
pub(super) fn error_code(code: Option<rusqlite::ErrorCode>) -> ErrorCode {
    match code {
        Some(rusqlite::ErrorCode::DiskFull) => ErrorCode::DiskFull,
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            ErrorCode::JournalLocked
        }
        Some(
            rusqlite::ErrorCode::ReadOnly
            | rusqlite::ErrorCode::PermissionDenied
            | rusqlite::ErrorCode::CannotOpen,
        ) => ErrorCode::JournalNotWritable,
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            ErrorCode::JournalDamaged
        }
        Some(rusqlite::ErrorCode::SystemIoFailure) => ErrorCode::JournalIo,
        _ => ErrorCode::JournalFailed,
    }
}

/// What an operator can do about a failure that may pass, by SQLite's code alone.
pub(super) fn next_step(code: Option<rusqlite::ErrorCode>) -> &'static str {
    match code {
        Some(rusqlite::ErrorCode::DiskFull) => DiskFault::Full.next_step(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "another program holds the journal's write lock: end its transaction, perhaps in a forgotten sqlite3 shell"
        }
        // SQLite does not say why.
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::SystemIoFailure)
            if descriptors::are_used_up() =>
        {
            descriptors::NEXT_STEP
        }
        Some(
            rusqlite::ErrorCode::ReadOnly
            | rusqlite::ErrorCode::PermissionDenied
            | rusqlite::ErrorCode::CannotOpen,
        ) => {
            "check that the journal is at its path, its owner and mode and those of its folder, and that the file system is mounted for writing"
        }
        Some(rusqlite::ErrorCode::SystemIoFailure) => "check the disk, its free space, and the kernel's log",
        Some(rusqlite::ErrorCode::OutOfMemory) => "give the relay more memory",
        _ => "report this with the message above",
    }
}

/// False when the file system cannot hold a WAL. SQLite then keeps its mode without an error.
fn configure(conn: &Connection, new: bool) -> rusqlite::Result<bool> {
    if new {
        // Only possible before the first page is written.
        conn.pragma_update(None, "page_size", PAGE_BYTES)?;
        // Allows pruned pages to go back to the file system later.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // FULL: a commit is on the disk when it returns, also after a power cut.
    conn.pragma_update(None, "synchronous", "FULL")?;
    // The values of this program fit by construction. Checks cost a third of an insert: a list of the allowed
    // outcomes is made for each row, and each reference is looked up.
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "ignore_check_constraints", true)?;
    let page_bytes: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", WAL_BYTES / page_bytes, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without this, SQLite compiles a statement again for each value that could change its plan.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(mode == "wal")
}

/// The records of the start of a process.
struct Begun {
    /// This boot's row.
    boot: i64,
    /// The number up to which the journal is a copy.
    copied_up_to: i64,
    /// For the lock file.
    note: Note,
}

/// Records that this process has the journal. Events that an earlier process may have published without an
/// ack are marked.
fn begin_process(
    conn: &mut Connection,
    boot: &Boot,
    file: Origin,
    noted: Option<Note>,
    path: &Path,
) -> rusqlite::Result<Begun> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("INSERT INTO boot (name) VALUES (?1) ON CONFLICT DO NOTHING", [&boot.id])?;
    let boot = tx.query_row("SELECT id FROM boot WHERE name = ?1", [&boot.id], |row| row.get(0))?;
    // In the same transaction as the new identity, so a start that is cut off recognises the copy again.
    let sign = origin::copy_sign(&tx, file, noted)?;
    if sign.is_some() {
        tx.execute(
            "INSERT INTO copied SELECT coalesce(max(seq), 0), ?1 FROM sqlite_sequence WHERE name = 'event'",
            [WallTime::now().0],
        )?;
    }
    let note = file.record(&tx, noted)?;
    let copied_up_to = tx.query_row(&format!("SELECT {}", schema::COPIED_UP_TO), [], |row| row.get(0))?;
    let in_doubt = format!(
        "UPDATE event SET uncertain = 1
         WHERE id IN ({}) AND state = 'received' AND attempts > 0 AND uncertain = 0",
        schema::NOT_DONE
    );
    tx.execute(&in_doubt, [])?;
    failpoint::reach("committing", "start");
    tx.commit()?;
    failpoint::reach("committed", "start");
    if let Some(sign) = sign {
        let events = origin::in_doubt(conn, copied_up_to)?;
        warn!(
            error_code = %ErrorCode::JournalCopied, path = %path.display(), sign, events_in_doubt = events,
            "the journal is a copy: what happened after it was made is unknown; possible duplicates are listed by `vodrelay events list --maybe-duplicate`"
        );
    }
    Ok(Begun { boot, copied_up_to, note })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A killed process loses no page that the kernel has. So no test with a kill shows whether a commit
    /// waits for the disk.
    #[test]
    fn the_writer_s_connection_waits_for_the_disk_at_each_commit_whoever_made_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        std::fs::write(&path, "").unwrap();
        for run in ["first", "second"] {
            let boot = Boot { id: run.to_owned(), opened: Moment(0) };
            let store = Store::open(&path, &boot, None).unwrap();
            let asked = |name: &str| store.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            assert!(asked("synchronous").unwrap() >= 2, "in the {run} run");
            let mode: String = store.conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }
}
