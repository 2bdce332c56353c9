//! Looks for damage before it is met: SQLite itself finds a damaged page when it needs it, which can be long after the start.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tokio::sync::mpsc::WeakSender;
use tracing::{info, warn};

use super::request::Request;

/// How long a start looks. A journal of a usual size is looked through in it, and no start waits longer.
pub(super) const LIMIT_AT_START: Duration = Duration::from_millis(150);
/// How long it is gone on with afterwards, while the relay works: a very large journal is not read from end to end.
const LIMIT_AFTERWARDS: Duration = Duration::from_secs(10);

/// Looks at the structure of every page for up to `limit`. False when that was too short.
pub(super) fn look(conn: &Connection, limit: Duration) -> rusqlite::Result<bool> {
    let interrupt = conn.get_interrupt_handle();
    let (looking, looked) = mpsc::channel::<()>();
    let timer = thread::spawn(move || {
        if looked.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let found: rusqlite::Result<String> = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    drop(looking);
    // After its end no later statement can be interrupted.
    if let Err(panic) = timer.join() {
        std::panic::resume_unwind(panic);
    }
    match found {
        Ok(verdict) if verdict == "ok" => Ok(true),
        // The line before it names the database, of which there is one.
        Ok(damage) => Err(corrupt(damage.lines().last().unwrap_or_default())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(false),
        Err(error) => Err(error),
    }
}

/// SQLite's error of a damaged file.
pub(super) fn corrupt(damage: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(damage.to_owned()))
}

/// Looks again, longer, on a thread and a connection of its own. What it finds, the writer is told, and ends with.
pub(super) fn look_on(path: PathBuf, writer: WeakSender<Request>) {
    let look_on = move || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match Connection::open_with_flags(&path, flags).and_then(|conn| look(&conn, LIMIT_AFTERWARDS)) {
            Ok(true) => {}
            Ok(false) => {
                info!(
                    limit_s = LIMIT_AFTERWARDS.as_secs(),
                    "the journal is too large to look through all of it"
                );
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                if let Some(writer) = writer.upgrade() {
                    // A writer that has ended needs to hear no more.
                    let _ = writer.blocking_send(Request::Damaged(error.to_string()));
                }
            }
            Err(error) => warn!(%error, "the journal could not be looked through for damage"),
        }
    };
    if let Err(error) = thread::Builder::new().name("journal-look".into()).spawn(look_on) {
        warn!(%error, "the journal is not looked through for damage: no thread can be started");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A database of some hundred pages.
    fn database(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("database");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO t (x) SELECT randomblob(900) FROM n",
        )
        .unwrap();
        path
    }

    #[test]
    fn a_look_sees_what_is_sound_and_what_it_has_no_time_for() {
        let folder = tempfile::tempdir().unwrap();
        let conn = Connection::open(database(&folder)).unwrap();
        assert!(look(&conn, Duration::from_secs(60)).unwrap());
        // Whichever is faster, the look or its end: it is no error.
        look(&conn, Duration::ZERO).unwrap();
    }

    #[test]
    fn damage_that_is_found_after_the_start_ends_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(&folder);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xa5; 64 * 4096], 100 * 4096).unwrap();
        let (requests, mut queue) = tokio::sync::mpsc::channel(1);
        look_on(path, requests.downgrade());
        let Some(Request::Damaged(damage)) = queue.blocking_recv() else { panic!("the writer was not told") };
        assert!(damage.contains("Tree"), "{damage}");
    }
}
